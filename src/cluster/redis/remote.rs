//! Where Redis is and how to get in: a server, a Unix socket, a master that sentinels name, or a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{ConnectionAddr, FromRedisValue, IntoConnectionInfo, Value};
use socket2::SockAddr;
use zeroize::Zeroizing;

use super::caution::Caution;
use super::cluster::{Cluster, Seeds};
use super::connection::{Connection, Login, left};
use super::dial::{Address, Dialer};
use super::link::{Link, Wire};
use super::names::Names;
use super::{Failure, refused, tls};
use crate::clock;
use crate::cluster::transport::{Channel, Offers, Transport, Vault};
use crate::error::{Error, Result};
use crate::secret::Secret;

/// What this transport is called.
pub const NAME: &str = "redis";

const SENTINEL_PORT: u16 = 26379;

/// What the files of the `[redis]` section hold.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// First line of `password_file`.
    pub password: Option<Secret>,
    /// PEM: who may have signed the server's certificate; none: the system's authorities.
    pub ca: Option<Vec<u8>>,
    /// PEM: our certificate and its key.
    pub client: Option<(Vec<u8>, Secret)>,
}

/// A Redis that can be connected to.
pub struct Remote {
    target: Target,
    names: Names,
    dialer: Arc<Dialer>,
    caution: Caution,
}

enum Target {
    Server(Address, Login),
    Sentinels(Sentinels),
    Cluster(Arc<Seeds>),
}

struct Sentinels {
    sentinels: Vec<Address>,
    /// The one that answered last.
    first: AtomicUsize,
    master: String,
    /// The master's.
    login: Login,
}

impl Remote {
    /// Reads the addresses. No name is looked up and nothing is connected to yet.
    ///
    /// # Errors
    /// [`Error::Config`] for an address, certificate or key that cannot be used. No text holds a password.
    pub fn new(urls: &[String], credentials: &Credentials, realm: &str) -> Result<Self> {
        let (target, is_secure) = match urls {
            [url] => match url.split_once("+sentinel://") {
                Some((scheme @ ("redis" | "rediss"), rest)) => {
                    (sentinels(rest, credentials)?, scheme == "rediss")
                }
                _ => {
                    let Place { address, login, is_secure } = place(url, credentials)?;
                    (Target::Server(address, login), is_secure)
                }
            },
            nodes => cluster(nodes, credentials)?,
        };
        let tls = is_secure.then(|| tls::client(credentials)).transpose()?;
        Ok(Remote {
            target,
            names: Names::new(realm),
            dialer: Arc::new(Dialer::new(tls)),
            caution: Caution::default(),
        })
    }

    /// From now on no host name is looked up when it is connected to, which can take much longer than any limit.
    ///
    /// # Errors
    /// [`Error::Config`] when an address has one.
    pub fn without_host_names(self) -> Result<Self> {
        let addresses = match &self.target {
            Target::Server(address, _) => std::slice::from_ref(address),
            Target::Sentinels(group) => &group.sentinels,
            Target::Cluster(seeds) => seeds.addresses(),
        };
        if addresses.iter().all(Address::is_numeric) {
            return Ok(Remote { dialer: Arc::new(self.dialer.numeric()), ..self });
        }
        Err(Error::Config(
            "redis.url: with cluster.agent = \"external\" handshakes connect to Redis themselves, where a host name could \
             take too long to look up; write numeric addresses or a Unix socket, or set cluster.agent = \"thread\""
                .into(),
        ))
    }

    /// Connects and logs in; every later call may take as long. All sentinels together get half of it, all nodes of a
    /// cluster that are asked where the others are all of it. Looking up names of hosts comes on top.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn link(&self, limit: Duration) -> std::result::Result<Link, Failure> {
        let mut deadline = clock::since_boot() + limit;
        let wire = match &self.target {
            Target::Server(address, login) => self.server(address, login, deadline)?,
            Target::Sentinels(group) => {
                let master = group.master(&self.dialer, &mut deadline)?;
                self.server(&master, &group.login, deadline)?
            }
            Target::Cluster(seeds) => {
                Wire::Cluster(Box::new(Cluster::connect(seeds, &self.dialer, deadline)?))
            }
        };
        Ok(Link::new(wire, self.names.clone(), self.caution.clone(), limit))
    }

    fn server(
        &self,
        address: &Address,
        login: &Login,
        mut deadline: Duration,
    ) -> std::result::Result<Wire, Failure> {
        let route = self.dialer.find(address, &mut deadline)?;
        Ok(Wire::Server(Box::new(route.connect(Some(login), deadline)?)))
    }
}

impl Transport for Remote {
    fn name(&self) -> &'static str {
        NAME
    }

    fn offers(&self) -> Offers {
        Offers { feed: true, vault: true }
    }

    fn connect(&self, limit: Duration) -> std::result::Result<Box<dyn Channel>, Failure> {
        Ok(Box::new(self.link(limit)?))
    }

    fn connect_vault(&self, limit: Duration) -> std::result::Result<Box<dyn Vault>, Failure> {
        Ok(Box::new(self.link(limit)?))
    }
}

impl Sentinels {
    /// Asks one sentinel after the other where the master is, the one first that answered last: one that hangs costs
    /// time once. Each gets its share of half of the time, so that all are asked and the master is too.
    fn master(
        &self,
        dialer: &Dialer,
        deadline: &mut Duration,
    ) -> std::result::Result<Address, Failure> {
        let mut last = Failure::Lost("no sentinel is configured".into());
        let count = self.sentinels.len();
        let share = left(*deadline)? / 2 / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let begin = self.first.load(Ordering::Relaxed);
        for (nth, sentinel) in self.sentinels.iter().enumerate().cycle().skip(begin).take(count) {
            let asked = dialer.find(sentinel, deadline).and_then(|route| {
                let share = clock::since_boot() + share;
                let mut connection = route.connect(None, share)?;
                ask_for_master(&mut connection, &self.master, share)
            });
            match asked {
                Ok((host, port)) => {
                    self.first.store(nth, Ordering::Relaxed);
                    return Ok(Address::Host(host, port));
                }
                Err(trouble) => last = trouble,
            }
        }
        Err(last)
    }
}

fn ask_for_master(
    connection: &mut Connection,
    master: &str,
    deadline: Duration,
) -> std::result::Result<(String, u16), Failure> {
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let answer = connection.exchange([&question], deadline)?.pop().unwrap_or(Value::Nil);
    if let Value::ServerError(error) = &answer {
        return Err(Failure::Lost(format!("a sentinel answers {}", refused(error))));
    }
    let answer: Option<(String, u16)> =
        FromRedisValue::from_redis_value(answer).map_err(|_| Failure::garbage("SENTINEL"))?;
    answer.ok_or_else(|| Failure::Lost(format!("the sentinels know no master \"{master}\"")))
}

fn bad(problem: &str) -> Error {
    Error::Config(format!("redis.url: {problem}"))
}

/// `[user:password@]host[:port],host[:port]/master[/database]`; user and password are the server's.
fn sentinels(rest: &str, credentials: &Credentials) -> Result<Target> {
    let (user, places) = rest.rsplit_once('@').unwrap_or(("", rest));
    let (hosts, path) = places
        .split_once('/')
        .filter(|(hosts, path)| !hosts.is_empty() && !path.is_empty())
        .ok_or_else(|| bad("sentinels are written redis+sentinel://HOST,HOST/MASTER"))?;
    let (master, database) = path.split_once('/').unwrap_or((path, "0"));
    let at = if user.is_empty() { "" } else { "@" };
    // What one server's address says of user, password and database, they mean for the master.
    let server = Zeroizing::new(format!("redis://{user}{at}localhost/{database}"));
    let sentinel = |host: &str| {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = if has_port { String::new() } else { format!(":{SENTINEL_PORT}") };
        Ok(place(&format!("redis://{host}{port}"), credentials)?.address)
    };
    Ok(Target::Sentinels(Sentinels {
        sentinels: hosts.split(',').map(sentinel).collect::<Result<_>>()?,
        first: AtomicUsize::new(0),
        master: master.to_owned(),
        login: place(&server, credentials)?.login,
    }))
}

/// User and password of the first address count for all. One that speaks TLS means that all do: never less than was
/// asked for.
fn cluster(urls: &[String], credentials: &Credentials) -> Result<(Target, bool)> {
    let nodes: Vec<_> = urls.iter().map(|url| place(url, credentials)).collect::<Result<_>>()?;
    if nodes.iter().any(|node| node.login.database != 0) {
        return Err(bad("a Redis Cluster has database 0 only"));
    }
    let login = nodes.first().ok_or_else(|| bad("is empty"))?.login.clone();
    let is_secure = nodes.iter().any(|node| node.is_secure);
    let addresses = nodes.into_iter().map(|node| node.address).collect();
    Ok((Target::Cluster(Arc::new(Seeds::new(addresses, login))), is_secure))
}

/// What an address says.
struct Place {
    address: Address,
    login: Login,
    is_secure: bool,
}

/// One address, with the password from its file, which goes before the one in the address.
fn place(url: &str, credentials: &Credentials) -> Result<Place> {
    if url.contains('#') {
        return Err(bad("nothing may follow a #; to accept a private authority set redis.ca_file"));
    }
    // TLS is ours: the crate is not to know of it.
    let rest = url.strip_prefix("rediss://");
    let plain = Zeroizing::new(rest.map_or_else(|| url.into(), |rest| format!("redis://{rest}")));
    let info = plain.as_str().into_connection_info().map_err(|error| bad(error.category()))?;
    let address = match info.addr() {
        ConnectionAddr::Tcp(host, port) => Address::Host(host.clone(), *port),
        ConnectionAddr::Unix(path) => {
            SockAddr::unix(path).map_err(|error| bad(&error.to_string()))?;
            Address::Socket(path.clone())
        }
        _ => return Err(bad("is no kind of address that is known here")),
    };
    let settings = info.redis_settings();
    let own = settings.password().map(|password| Secret::new(password.as_bytes()));
    let login = Login {
        user: settings.username().map(str::to_owned),
        password: credentials.password.clone().or(own),
        database: settings.db(),
    };
    Ok(Place { address, login, is_secure: rest.is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(urls: &[&str]) -> Result<Remote> {
        let urls: Vec<_> = urls.iter().map(|url| (*url).to_owned()).collect();
        Remote::new(&urls, &Credentials::default(), "default")
    }

    #[test]
    fn every_documented_form_of_address_is_understood() {
        for urls in [
            &["redis://localhost"][..],
            &["redis://user:word@127.0.0.1:7000/3"],
            &["rediss://redis.example:6380"],
            &["redis+unix:///run/redis.sock"],
            &["redis+sentinel://a,b:26380/mymaster"],
            &["rediss+sentinel://a,b/mymaster"],
            &["redis+sentinel://user:word@a,b/mymaster/2"],
            &["redis://a:7000", "redis://b:7000"],
        ] {
            assert!(remote(urls).is_ok(), "{urls:?}: {:?}", remote(urls).err());
        }
    }

    #[test]
    fn without_host_names_every_address_is_numeric_or_a_socket() {
        for (urls, is_fine) in [
            (&["redis://127.0.0.1"][..], true),
            (&["rediss://user:word@[::1]:6380/2"], true),
            (&["redis+unix:///run/redis.sock"], true),
            (&["redis+sentinel://10.0.0.1,10.0.0.2:26380/mymaster"], true),
            (&["redis://10.0.0.1:7000", "redis://[fe80::1]:7000"], true),
            (&["redis://localhost"], false),
            (&["redis+sentinel://10.0.0.1,b/mymaster"], false),
            (&["redis://10.0.0.1", "redis://b"], false),
        ] {
            let strict = remote(urls).and_then(Remote::without_host_names);
            assert_eq!(strict.is_ok(), is_fine, "{urls:?}");
            if let Err(error) = strict {
                let text = error.to_string();
                assert!(text.contains("redis.url") && text.contains("cluster.agent"), "{text}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said_without_its_password() {
        for urls in [
            &["redis://user:hunter2@/0"][..],
            &["redis://user:hunter2@host/zero"],
            &["rediss://user:hunter2@host/#insecure"],
            &["redis+sentinel://user:hunter2@a,b"],
            &["redis://user:hunter2@a/1", "redis://b"],
        ] {
            let error = remote(urls).err().expect("not usable").to_string();
            assert!(error.starts_with("redis.url"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
