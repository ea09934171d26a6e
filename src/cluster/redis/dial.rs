//! Connecting to one address, with the names of hosts looked up beforehand: how long that takes nobody can bound, and
//! it does not count as slowness of Redis.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ClientConfig;
use socket2::SockAddr;

use super::connection::{Connection, Login, left};
use super::{Failure, fit_for_log};
use crate::clock;

/// A name is asked for no more often: connections are made when others have failed, perhaps because the name means
/// another host now.
const FRESH: Duration = Duration::from_secs(1);

/// So many times as long as asking took its answer is used, but no longer than that: an agent whose lease is over by
/// then finds it when it is its turn again, whoever was the agent meanwhile.
const WORTH: u32 = 20;
const LONGEST_FRESH: Duration = Duration::from_secs(30);

/// What a name stood for when it could last be asked for is used for so long: then the address may be somebody else's,
/// who would be told our password.
const GONE: Duration = Duration::from_secs(3600);

/// Most names that are remembered; a cluster's nodes may tell any.
const NAMES: usize = 1024;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Address {
    Host(String, u16),
    Socket(PathBuf),
}

impl Address {
    /// Whether no name has to be looked up.
    pub(super) fn is_numeric(&self) -> bool {
        match self {
            Address::Host(host, _) => host.parse::<IpAddr>().is_ok(),
            Address::Socket(_) => true,
        }
    }
}

/// Connects, and remembers what names stood for.
#[derive(Default)]
pub(super) struct Dialer {
    tls: Option<Arc<ClientConfig>>,
    /// Names are refused.
    numeric: bool,
    /// Tried, never waited for: after a fork somebody who is gone may have it.
    known: Mutex<BTreeMap<(String, u16), Known>>,
}

#[derive(Clone)]
struct Known {
    addresses: Vec<SocketAddr>,
    /// When the name server said so, by the clock since boot.
    found: Duration,
    fresh_until: Duration,
}

/// An address with nothing left to look up.
pub(super) struct Route<'a> {
    dialer: &'a Dialer,
    address: &'a Address,
    places: Vec<SockAddr>,
}

impl Dialer {
    /// Speaks TLS if it is told how.
    pub(super) fn new(tls: Option<Arc<ClientConfig>>) -> Self {
        Dialer { tls, ..Dialer::default() }
    }

    /// Never looks a name up.
    pub(super) fn numeric(&self) -> Self {
        Dialer { numeric: true, ..Dialer::new(self.tls.clone()) }
    }

    /// Looks the name up, if there is one. What that takes `deadline` is moved by.
    pub(super) fn find<'a>(
        &'a self,
        address: &'a Address,
        deadline: &mut Duration,
    ) -> Result<Route<'a>, Failure> {
        match address {
            Address::Socket(path) => {
                Ok(Route { dialer: self, address, places: vec![SockAddr::unix(path)?] })
            }
            Address::Host(host, port) => {
                let begin = clock::since_boot();
                let addresses = self.addresses(host, *port);
                *deadline += clock::since_boot().saturating_sub(begin);
                let places = addresses?.into_iter().map(SockAddr::from).collect();
                Ok(Route { dialer: self, address, places })
            }
        }
    }

    fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let name = (host.to_owned(), port);
        let begin = clock::since_boot();
        let known = self.known.try_lock().and_then(|known| known.get(&name).cloned());
        if let Some(known) = known.as_ref().filter(|known| begin < known.fresh_until) {
            return Ok(known.addresses.clone());
        }
        let (addresses, found) = match (self.look_up(host, port), known) {
            (Ok(addresses), _) => (addresses, begin),
            // Without its name server Redis may still be where it was.
            (Err(_), Some(known)) if !is_gone(known.found, begin) => (known.addresses, known.found),
            (Err(trouble), _) => return Err(trouble),
        };
        let fresh_until = fresh_until(begin, clock::since_boot());
        self.remember(name, Known { addresses: addresses.clone(), found, fresh_until });
        Ok(addresses)
    }

    fn remember(&self, name: (String, u16), meaning: Known) {
        if let Some(mut known) = self.known.try_lock() {
            if known.len() >= NAMES {
                known.clear();
            }
            known.insert(name, meaning);
        }
    }

    fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        if self.numeric {
            let host = fit_for_log(host);
            return Err(Failure::Lost(format!("{host} names a host, and is not an address")));
        }
        let found = (host, port).to_socket_addrs();
        let failed = |why: &str| Failure::Lost(format!("{}: {why}", fit_for_log(host)));
        let found: Vec<_> = found.map_err(|error| failed(&error.to_string()))?.collect();
        if found.is_empty() {
            return Err(failed("has no address"));
        }
        Ok(found)
    }
}

impl Route<'_> {
    /// Connects to the first address that lets us in, and logs in if it is told how. Each gets its share of the time.
    pub(super) fn connect(
        &self,
        login: Option<&Login>,
        deadline: Duration,
    ) -> Result<Connection, Failure> {
        let mut last = Failure::Lost("there is no address".into());
        let mut open = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        for place in &self.places {
            let Ok(left) = left(deadline) else { break };
            let share = clock::since_boot() + left / open;
            let connected =
                Connection::open(place, self.tls(), share).and_then(|mut connection| {
                    login.map_or(Ok(()), |login| connection.log_in(login, share))?;
                    Ok(connection)
                });
            match connected {
                Ok(connection) => return Ok(connection),
                Err(trouble) => last = trouble,
            }
            open -= 1;
        }
        Err(last)
    }

    /// The name that the certificate must have, and how TLS is spoken, if it is.
    fn tls(&self) -> Option<(&str, &Arc<ClientConfig>)> {
        match self.address {
            Address::Host(host, _) => self.dialer.tls.as_ref().map(|tls| (host.as_str(), tls)),
            Address::Socket(_) => None,
        }
    }
}

/// Until when a name means what it was found to mean.
fn is_gone(found: Duration, now: Duration) -> bool {
    now >= found + GONE
}

fn fresh_until(begin: Duration, end: Duration) -> Duration {
    end + (end.saturating_sub(begin) * WORTH).clamp(FRESH, LONGEST_FRESH)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn host(name: &str) -> Address {
        Address::Host(name.into(), 7000)
    }

    #[test]
    fn a_name_becomes_all_its_addresses_and_is_remembered() {
        let (dialer, mut deadline) = (Dialer::default(), Duration::ZERO);
        let address = host("localhost");
        let route = dialer.find(&address, &mut deadline).expect("found");
        assert!(!route.places.is_empty());
        assert!(!deadline.is_zero(), "what it took counts for nothing");
        assert_eq!(dialer.known.lock().len(), 1);
    }

    #[test]
    fn a_name_that_cannot_be_looked_up_any_more_means_what_it_meant() {
        let dialer = Dialer::default();
        let meant = SocketAddr::from(([127, 0, 0, 1], 7000));
        let (name, now) = ("no-such-host.invalid", clock::since_boot());
        let known = Known { addresses: vec![meant], found: now, fresh_until: Duration::ZERO };
        dialer.known.lock().insert((name.into(), 7000), known.clone());
        let (address, mut deadline) = (host(name), Duration::ZERO);
        let route = dialer.find(&address, &mut deadline).expect("remembered");
        assert_eq!(route.places[0].as_socket(), Some(meant));
        assert_eq!(dialer.known.lock()[&(name.into(), 7000)].found, now, "for an hour after that");
    }

    #[test]
    fn a_name_that_was_last_found_an_hour_ago_stands_for_nothing() {
        let (found, hour) = (Duration::from_secs(100), Duration::from_secs(3600));
        assert!(!is_gone(found, found));
        assert!(!is_gone(found, found + hour - Duration::from_millis(1)));
        assert!(is_gone(found, found + hour));
    }

    #[test]
    fn what_took_long_to_find_is_used_for_longer() {
        let (begin, second) = (Duration::from_secs(100), Duration::from_secs(1));
        assert_eq!(fresh_until(begin, begin), begin + second);
        assert_eq!(fresh_until(begin, begin + second), begin + second * 21);
        assert_eq!(fresh_until(begin, begin + second * 5), begin + second * 35);
        let (dialer, mut deadline) = (Dialer::default(), Duration::ZERO);
        let meant = SocketAddr::from(([192, 0, 2, 1], 7000));
        let known = Known {
            addresses: vec![meant],
            found: clock::since_boot(),
            fresh_until: clock::since_boot() + second * 60,
        };
        dialer.known.lock().insert(("localhost".into(), 7000), known);
        let address = host("localhost");
        let route = dialer.find(&address, &mut deadline).expect("remembered");
        assert_eq!(route.places[0].as_socket(), Some(meant), "and not asked for");
    }

    #[test]
    fn where_names_are_not_looked_up_none_is() {
        let (dialer, mut deadline) = (Dialer::default().numeric(), Duration::ZERO);
        assert!(dialer.find(&host("localhost"), &mut deadline).is_err());
        assert!(dialer.find(&host("::1"), &mut deadline).is_ok());
    }

    #[test]
    fn addresses_that_are_silent_share_the_time() {
        let silent: Vec<_> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("bound")).collect();
        let place = |it: &TcpListener| it.local_addr().expect("an address").into();
        let (dialer, address) = (Dialer::default(), host("localhost"));
        let places = silent.iter().map(place).collect();
        let route = Route { dialer: &dialer, address: &address, places };
        let begin = clock::since_boot();
        let limit = Duration::from_millis(300);
        assert!(route.connect(Some(&Login::default()), begin + limit).is_err());
        let took = clock::since_boot() - begin;
        assert!((250..900).contains(&took.as_millis()), "{took:?}");
    }
}
