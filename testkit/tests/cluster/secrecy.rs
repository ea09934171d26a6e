//! Neither Redis nor the network between sees a secret of a client's session.

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::{DEADLINE, Middleman, RedisServer, Result, Stats, alone};

use crate::nodes::{Cluster, Sharing, addresses, moves};

const VISITS: usize = 10;

/// What the clients know: TLS 1.2 master secrets, TLS 1.3 traffic secrets and the keys in tickets.
fn nothing_of_it_is_seen(sharing: Sharing, kinds: &[Kind]) -> Result<()> {
    let _alone = alone();
    let redis = RedisServer::start()?;
    let middleman = Middleman::start(redis.address())?;
    middleman.record();
    let url = middleman.url(&redis.url());
    let nodes = Cluster::at(url, sharing, kinds[0])?.patient().nodes(2)?;

    let mut secrets = Vec::new();
    for kind in kinds {
        for (visit, node) in (0..VISITS).flat_map(|visit| nodes.iter().map(move |it| (visit, it))) {
            let known = OpenSsl::new().secrets(node.address(), kind.client_mode())?;
            assert!(!known.is_empty(), "{kind}, visit {visit}");
            secrets.extend(known);
        }
        // By now what was made first has been everywhere.
        moves(*kind, &nodes[0], &nodes[1], DEADLINE)?;
    }
    let stats = Stats::of(addresses(&nodes)[0])?;
    assert!(stats.get("transport_sent_total") > 0, "{stats:?}");

    let places =
        [("the network", middleman.captured()), ("Redis", redis.dump()?)].map(Haystack::new);
    for place in &places {
        // Control: what is there is found.
        assert!(place.has(b"tlsresume:"), "{}", place.name);
        for secret in &secrets {
            let text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            for form in [&secret[..], text.as_bytes(), text.to_uppercase().as_bytes()] {
                assert!(!place.has(form), "{} sees {text}", place.name);
            }
            // Nor a part of it, as a record that is cut would show.
            assert!(!place.has(&secret[..secret.len() / 2]), "{} sees half of {text}", place.name);
        }
    }
    Ok(())
}

/// Bytes in which others are looked for.
struct Haystack {
    name: &'static str,
    bytes: Vec<u8>,
}

impl Haystack {
    fn new((name, bytes): (&'static str, Vec<u8>)) -> Haystack {
        Haystack { name, bytes }
    }

    fn has(&self, needle: &[u8]) -> bool {
        let [first, ..] = needle else { return true };
        let starts = self.bytes.iter().enumerate().filter(|(_, byte)| *byte == first);
        starts.into_iter().any(|(at, _)| self.bytes[at..].starts_with(needle))
    }
}

#[test]
fn no_secret_of_stateless_clients_is_seen_in_push() -> Result<()> {
    let kinds = [Kind::Tls12Id, Kind::Tls12Ticket, Kind::Tls13Stateless];
    nothing_of_it_is_seen(Sharing::Push, &kinds)
}

#[test]
fn no_secret_of_stateless_clients_is_seen_in_pull() -> Result<()> {
    let kinds = [Kind::Tls12Id, Kind::Tls12Ticket, Kind::Tls13Stateless];
    nothing_of_it_is_seen(Sharing::Pull, &kinds)
}

#[test]
fn no_secret_of_stateful_clients_is_seen_in_push() -> Result<()> {
    nothing_of_it_is_seen(Sharing::Push, &[Kind::Tls13Stateful])
}

#[test]
fn no_secret_of_stateful_clients_is_seen_in_pull() -> Result<()> {
    nothing_of_it_is_seen(Sharing::Pull, &[Kind::Tls13Stateful])
}
