//! Each fault, with the Redis that it happens to.

use std::net::SocketAddr;
use std::time::Duration;

use tlsresume_testkit::{Behaviour, Middleman, RedisCluster, RedisServer, Result, SentinelGroup};

use super::scenario::REALMS;
use super::{Fault, Sign};

/// Stopped for so many seconds: connections stay open and nobody is answered.
pub(crate) struct Stopped<const SECONDS: u64>(RedisServer);

impl<const SECONDS: u64> Fault for Stopped<SECONDS> {
    const NAME: &'static str = "stopped";
    const LASTS: Duration = Duration::from_secs(SECONDS);

    fn start() -> Result<Self> {
        RedisServer::start().map(Stopped)
    }

    fn url(&self) -> String {
        self.0.url()
    }

    fn begin(&mut self) -> Result<()> {
        self.0.stop()
    }

    fn end(&mut self) -> Result<()> {
        self.0.cont()
    }
}

/// Killed, and started again with nothing in it.
pub(crate) struct Killed(RedisServer);

impl Fault for Killed {
    const NAME: &'static str = "killed, then empty";

    fn start() -> Result<Self> {
        RedisServer::start().map(Killed)
    }

    fn url(&self) -> String {
        self.0.url()
    }

    fn begin(&mut self) -> Result<()> {
        self.0.kill()
    }

    fn end(&mut self) -> Result<()> {
        self.0.restart_empty()
    }
}

/// The nodes' password is not what it was, and they are logged out.
pub(crate) struct WrongPassword(RedisServer);

impl Fault for WrongPassword {
    const NAME: &'static str = "wrong password";

    fn start() -> Result<Self> {
        RedisServer::settings().user("node", "right", "~* &* +@all").start().map(WrongPassword)
    }

    fn url(&self) -> String {
        self.0.url()
    }

    fn begin(&mut self) -> Result<()> {
        self.0.command(&["ACL", "SETUSER", "node", "resetpass", ">another"])?;
        self.0.command(&["CLIENT", "KILL", "USER", "node"]).map(drop)
    }

    fn end(&mut self) -> Result<()> {
        self.0.command(&["ACL", "SETUSER", "node", "resetpass", ">right"]).map(drop)
    }
}

/// A Redis behind a middleman that can be told to misbehave.
struct Behind {
    redis: RedisServer,
    middleman: Middleman,
}

impl Behind {
    fn start() -> Result<Behind> {
        let redis = RedisServer::start()?;
        let middleman = Middleman::start(redis.address())?;
        Ok(Behind { redis, middleman })
    }

    fn url(&self) -> String {
        self.middleman.url(&self.redis.url())
    }
}

macro_rules! behind_a_middleman {
    ($(#[$doc:meta])* $name:ident, $text:literal, $behaviour:expr) => {
        $(#[$doc])*
        pub(crate) struct $name(Behind);

        impl Fault for $name {
            const NAME: &'static str = $text;

            fn start() -> Result<Self> {
                Behind::start().map($name)
            }

            fn url(&self) -> String {
                self.0.url()
            }

            fn begin(&mut self) -> Result<()> {
                self.0.middleman.behave($behaviour);
                Ok(())
            }

            fn end(&mut self) -> Result<()> {
                self.0.middleman.behave(Behaviour::Pass);
                Ok(())
            }
        }
    };
}

behind_a_middleman!(
    /// Every reply is half a second late.
    Slow,
    "500 ms late",
    Behaviour::Delay(Duration::from_millis(500))
);

behind_a_middleman!(
    /// Every reply is random bytes.
    Garbage,
    "garbage",
    Behaviour::Garbage
);

behind_a_middleman!(
    /// Every command ends its connection.
    Resets,
    "resets",
    Behaviour::Reset
);

/// One node does not reach Redis for three rotations; the others do. It has keys for twelve.
pub(crate) struct CutOff(Behind);

const ROTATION: Duration = Duration::from_secs(6);

impl Fault for CutOff {
    const NAME: &'static str = "one node cut off";
    const LASTS: Duration = Duration::from_secs(3 * ROTATION.as_secs());
    const ANSWERS: bool = true;
    const SHARES: bool = true;
    const SIGN: Sign = Sign::FirstDown;
    const ROTATES: Option<Duration> = Some(ROTATION);

    fn start() -> Result<Self> {
        Behind::start().map(CutOff)
    }

    fn url(&self) -> String {
        self.0.redis.url()
    }

    fn url_of_the_first(&self) -> String {
        self.0.url()
    }

    fn begin(&mut self) -> Result<()> {
        self.0.middleman.behave(Behaviour::BlackHole);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.0.middleman.behave(Behaviour::Pass);
        Ok(())
    }
}

/// The master dies, and its replica takes its place.
pub(crate) struct Failover {
    group: SentinelGroup,
    killed: Option<SocketAddr>,
}

impl Fault for Failover {
    const NAME: &'static str = "failover";
    /// The new master does, soon.
    const ANSWERS: bool = true;
    const SHARES: bool = true;
    const SIGN: Sign = Sign::Lost;

    fn start() -> Result<Self> {
        Ok(Failover { group: SentinelGroup::start()?, killed: None })
    }

    fn url(&self) -> String {
        self.group.url()
    }

    fn begin(&mut self) -> Result<()> {
        self.killed = Some(self.group.kill_master()?);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.killed.map_or(Ok(()), |killed| self.group.wait_for_failover(killed))
    }
}

/// The slots of all rings move to other masters of a Redis Cluster.
pub(crate) struct Migration(RedisCluster);

impl Migration {
    fn rings() -> impl Iterator<Item = String> {
        REALMS.iter().map(|realm| format!("tlsresume:{{{realm}}}:ring"))
    }
}

impl Fault for Migration {
    const NAME: &'static str = "slots move";
    const ANSWERS: bool = true;
    const SHARES: bool = true;
    const SIGN: Sign = Sign::Counted;

    fn start() -> Result<Self> {
        RedisCluster::start().map(Migration)
    }

    fn url(&self) -> String {
        self.0.url()
    }

    /// All keys are at the new master, and the old one is still asked first.
    fn begin(&mut self) -> Result<()> {
        for ring in Migration::rings() {
            self.0.migrate_slot_of(&ring)?.move_keys()?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        for ring in Migration::rings() {
            let migration = self.0.migrate_slot_of(&ring)?;
            migration.move_keys()?;
            migration.finish()?;
        }
        Ok(())
    }

    /// Those who were sent to another master.
    fn count(&self) -> Result<u64> {
        let mut sum = 0;
        for master in self.0.masters() {
            for word in ["ASK", "MOVED"] {
                let count = master.info("errorstats", &format!("errorstat_{word}"))?;
                let count = count.and_then(|it| it.strip_prefix("count=")?.parse().ok());
                sum += count.unwrap_or(0);
            }
        }
        Ok(sum)
    }
}

/// Nothing more can be written.
pub(crate) struct Full(RedisServer);

impl Fault for Full {
    const NAME: &'static str = "full";
    const ANSWERS: bool = true;

    fn start() -> Result<Self> {
        RedisServer::start().map(Full)
    }

    fn url(&self) -> String {
        self.0.url()
    }

    fn begin(&mut self) -> Result<()> {
        self.0.command(&["CONFIG", "SET", "maxmemory", "1"]).map(drop)
    }

    fn end(&mut self) -> Result<()> {
        self.0.command(&["CONFIG", "SET", "maxmemory", "0"]).map(drop)
    }
}
