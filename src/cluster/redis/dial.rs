//! Connecting to one address, with the names of hosts looked up beforehand: how long that takes nobody can bound, and it
//! does not count as slowness of Redis.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Client, Cmd, Connection, ConnectionAddr, ConnectionInfo, Value};

use super::Trouble;
use crate::clock;

/// A name is asked for no more often: connections are made when others have failed, perhaps because the name means
/// another host now.
const FRESH: Duration = Duration::from_secs(1);

/// Most names that are remembered; a cluster's nodes may tell any.
const NAMES: usize = 1024;

/// The time that the addresses of one name share is cut in no more parts.
const SHARES: u32 = 4;

/// Connects, and remembers what names stood for.
#[derive(Default)]
pub(super) struct Dialer {
    /// Names are refused.
    numeric: bool,
    /// Tried, never waited for: after a fork somebody who is gone may have it.
    known: Mutex<BTreeMap<(String, u16), Known>>,
}

#[derive(Clone)]
struct Known {
    addresses: Vec<SocketAddr>,
    since: Duration,
}

/// An address with nothing left to look up.
pub(super) struct Route {
    places: Vec<ConnectionInfo>,
    /// What is added to a limit, and how many addresses share it, where the crate looks the name up once more.
    extra: Duration,
    parts: u32,
}

impl Dialer {
    /// Never looks a name up.
    pub(super) fn numeric() -> Self {
        Dialer { numeric: true, ..Dialer::default() }
    }

    /// Looks the name up, if there is one.
    pub(super) fn find(&self, info: &ConnectionInfo) -> Result<Route, Trouble> {
        let plain = |places| Route { places, extra: Duration::ZERO, parts: 1 };
        match info.addr() {
            ConnectionAddr::Tcp(host, port) if !is_number(host) => {
                let place = |address: &SocketAddr| {
                    info.clone().set_addr(ConnectionAddr::Tcp(number(address), address.port()))
                };
                Ok(plain(self.addresses(host, *port)?.iter().map(place).collect()))
            }
            // The crate has one field for the name in the certificate and for where to connect to: it looks the name up
            // itself, and counts that as time to connect. Asked just before, it should take no longer than for us. A
            // first address that is silent uses up the time of the others, which the crate offers no way around.
            ConnectionAddr::TcpTls { host, port, .. } if !is_number(host) => {
                let begin = clock::since_boot();
                let count = self.look_up(host, *port)?.len();
                let parts = u32::try_from(count).unwrap_or(SHARES).clamp(1, SHARES);
                let extra = clock::since_boot().saturating_sub(begin);
                Ok(Route { places: vec![info.clone()], extra, parts })
            }
            _ => Ok(plain(vec![info.clone()])),
        }
    }

    fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Trouble> {
        let name = (host.to_owned(), port);
        let now = clock::since_boot();
        let known = self.known.try_lock().and_then(|known| known.get(&name).cloned());
        if let Some(known) = known.as_ref().filter(|known| now < known.since + FRESH) {
            return Ok(known.addresses.clone());
        }
        let addresses = match (self.look_up(host, port), known) {
            (Ok(addresses), _) => addresses,
            // Without its name server Redis may still be where it was.
            (Err(_), Some(known)) => return Ok(known.addresses),
            (Err(trouble), None) => return Err(trouble),
        };
        if let Some(mut known) = self.known.try_lock() {
            if known.len() >= NAMES {
                known.clear();
            }
            let since = clock::since_boot();
            known.insert(name, Known { addresses: addresses.clone(), since });
        }
        Ok(addresses)
    }

    fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Trouble> {
        if self.numeric {
            return Err(Trouble::Lost(format!("{host} names a host, and is not an address")));
        }
        let found = (host, port).to_socket_addrs();
        let found: Vec<_> =
            found.map_err(|error| Trouble::Lost(format!("{host}: {error}")))?.collect();
        if found.is_empty() {
            return Err(Trouble::Lost(format!("{host} has no address")));
        }
        Ok(found)
    }
}

impl Route {
    /// Connects to the first address that lets us in, and logs in. Each gets its share of the time. Answers are waited
    /// for as long, until [`set_limit`] says otherwise.
    pub(super) fn connect(&self, limit: Duration) -> Result<Connection, Trouble> {
        let deadline = clock::since_boot() + limit + self.extra;
        let mut last = Trouble::Lost("there is no address".into());
        let mut open = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        for place in &self.places {
            let Ok(left) = left(deadline) else { break };
            let share = left.saturating_sub(self.extra) / open / self.parts + self.extra;
            match connect_to(place, share) {
                Ok(connection) => {
                    set_limit(&connection, limit)?;
                    return Ok(connection);
                }
                Err(trouble) => last = trouble,
            }
            open -= 1;
        }
        Err(last)
    }
}

fn connect_to(place: &ConnectionInfo, limit: Duration) -> Result<Connection, Trouble> {
    Ok(Client::open(place.clone())?.get_connection_with_timeout(at_least(limit))?)
}

/// Waits no longer than this for each answer, nor to send. A new connection has no limit at all.
pub(super) fn set_limit(connection: &Connection, limit: Duration) -> Result<(), Trouble> {
    connection.set_read_timeout(Some(at_least(limit)))?;
    connection.set_write_timeout(Some(at_least(limit)))?;
    Ok(())
}

/// Sends all commands, then reads all answers, errors among them, until one does not come: the crate's own pipeline would
/// wait for each of the others too. Answers that come one after the other, or other news without end, end at `deadline`.
pub(super) fn exchange<'a>(
    connection: &mut Connection,
    commands: impl IntoIterator<Item = &'a Cmd>,
    deadline: Duration,
) -> Result<Vec<Value>, Trouble> {
    let mut packed = Vec::new();
    let mut count = 0;
    for command in commands {
        command.write_packed_command(&mut packed);
        count += 1;
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    connection.send_packed_command(&packed)?;
    let mut answers = Vec::with_capacity(count);
    while answers.len() < count {
        left(deadline)?;
        match connection.recv_response()? {
            Value::Push { .. } => {}
            answer => answers.push(answer),
        }
    }
    Ok(answers)
}

/// What is left until then.
pub(in crate::cluster) fn left(deadline: Duration) -> Result<Duration, Trouble> {
    let left = deadline.saturating_sub(clock::since_boot());
    if left.is_zero() { Err(Trouble::Lost("no time is left".into())) } else { Ok(left) }
}

/// The system takes zero for no limit.
fn at_least(limit: Duration) -> Duration {
    limit.max(Duration::from_millis(1))
}

/// Whether no name has to be looked up.
pub(super) fn is_numeric(address: &ConnectionAddr) -> bool {
    match address {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => is_number(host),
        _ => true,
    }
}

fn is_number(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}

fn number(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V6(six) if six.scope_id() != 0 => format!("{}%{}", six.ip(), six.scope_id()),
        _ => address.ip().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use redis::IntoConnectionInfo;

    use super::*;

    fn info(url: &str) -> ConnectionInfo {
        url.into_connection_info().expect("an address")
    }

    #[test]
    fn a_name_becomes_all_its_addresses_and_is_remembered() {
        let dialer = Dialer::default();
        let route = dialer.find(&info("redis://localhost:7000")).expect("found");
        assert!(!route.places.is_empty());
        assert!(route.places.iter().all(|place| is_numeric(place.addr())));
        assert_eq!(dialer.known.lock().len(), 1);
    }

    #[test]
    fn a_name_that_cannot_be_looked_up_any_more_means_what_it_meant() {
        let dialer = Dialer::default();
        let address = SocketAddr::from(([127, 0, 0, 1], 7000));
        let known = Known { addresses: vec![address], since: Duration::ZERO };
        dialer.known.lock().insert(("no-such-host.invalid".into(), 7000), known);
        let route = dialer.find(&info("redis://no-such-host.invalid:7000")).expect("remembered");
        assert_eq!(route.places[0].addr(), &ConnectionAddr::Tcp("127.0.0.1".into(), 7000));
    }

    #[test]
    fn where_names_are_not_looked_up_none_is() {
        let dialer = Dialer::numeric();
        assert!(dialer.find(&info("redis://localhost")).is_err());
        assert!(dialer.find(&info("rediss://localhost")).is_err());
        assert!(dialer.find(&info("redis://[::1]:7000")).is_ok());
    }

    #[test]
    fn addresses_that_are_silent_share_the_time() {
        let silent: Vec<_> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("bound")).collect();
        let place =
            |it: &TcpListener| info(&format!("redis://{}", it.local_addr().expect("an address")));
        let places = silent.iter().map(place).collect();
        let route = Route { places, extra: Duration::ZERO, parts: 1 };
        let begin = clock::since_boot();
        assert!(route.connect(Duration::from_millis(300)).is_err());
        let took = clock::since_boot() - begin;
        assert!((250..900).contains(&took.as_millis()), "{took:?}");
    }
}
