//! Keys that change under load lose no session, and none outlives its lifetime.

use std::time::{Duration, Instant};

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::{
    DEADLINE, FakeClock, Folder, Result, Server, Stats, Traffic, alone, say, wait_until,
};

const ROTATIONS: u64 = 100;

fn a_hundred_rotations_lose_nothing(kinds: &[Kind]) -> Result<()> {
    let _alone = alone();
    let memory = Folder::in_memory()?;
    let mut server = Server::example()?
        .args(["--handle", "--direct", "--workers", "2", "--threads", "2"])
        .env("TLSRESUME_MEMORY_PATH", memory.file("sessions"))
        .env("TLSRESUME_RESUMPTION_MODE", kinds[0].server_mode())
        .env("TLSRESUME_KEYS_ACTIVATION_DELAY", "0s")
        .start()?;
    let addresses: Vec<_> = server.loops().iter().map(|it| it.address).collect();

    let client = OpenSsl::new();
    let visit = |kind: &Kind| client.first_visit(addresses[0], kind.client_mode());
    let visitors = kinds.iter().map(visit).collect::<Result<Vec<_>>>()?;
    let traffic = |kind: &Kind| Traffic::to(addresses.clone(), kind.client_mode()).start();
    let traffic = kinds.iter().map(traffic).collect::<Result<Vec<_>>>()?;

    let keys = || Stats::of(addresses[3]).map(|stats| stats.get("rotations_total"));
    let first = keys()?;
    for rotation in 1..=ROTATIONS {
        server.hang_up()?;
        // Signals of one kind do not queue: the next one must wait for this one's effect.
        wait_until(format!("rotation {rotation}"), DEADLINE, || {
            keys().is_ok_and(|count| count >= first + rotation)
        })?;
    }

    for (kind, traffic) in kinds.iter().zip(traffic) {
        let report = traffic.stop()?;
        say(&format!("{kind}: {report:?}"));
        assert_eq!(report.not_resumed_after_first, 0, "{kind}: {report:?}");
        assert_eq!((report.failed, report.reset), (0, 0), "{kind}: {report:?}");
        assert!(report.resumed > ROTATIONS, "{kind}: {report:?}");
    }
    for (kind, visitor) in kinds.iter().zip(visitors) {
        let back = visitor.come_back_as(&client, addresses[2])?;
        assert!(back.resumed(), "{kind}: a session from before the first rotation: {back:?}");
    }
    server.stop()?;
    assert!(!server.log().contains("SIGHUP:"), "{}", server.log());
    Ok(())
}

#[test]
fn a_hundred_rotations_under_load_lose_no_stateless_session() -> Result<()> {
    a_hundred_rotations_lose_nothing(&[Kind::Tls12Id, Kind::Tls12Ticket, Kind::Tls13Stateless])
}

#[test]
fn a_hundred_rotations_under_load_lose_no_stateful_session() -> Result<()> {
    a_hundred_rotations_lose_nothing(&[Kind::Tls13Stateful])
}

/// Lifetime of sessions in the tests below. OpenSSL counts whole seconds, so one may live for up to
/// one second more.
const LIFETIME: Duration = Duration::from_secs(3);
const ROUNDING: Duration = Duration::from_secs(1);

fn short_lived_server(kind: Kind) -> Result<Server> {
    let lifetime = format!("{}s", LIFETIME.as_secs());
    Server::example()?
        .arg("--direct")
        .env("TLSRESUME_RESUMPTION_MODE", kind.server_mode())
        .env("TLSRESUME_RESUMPTION_LIFETIME", lifetime)
        .start()
}

#[test]
fn no_session_resumes_after_its_lifetime() -> Result<()> {
    let servers: Vec<_> = Kind::ALL.into_iter().map(short_lived_server).collect::<Result<_>>()?;
    let client = OpenSsl::new();
    let mut visitors = Vec::new();
    for (kind, server) in Kind::ALL.into_iter().zip(&servers) {
        let visitor = client.first_visit(server.direct(0, 0)?, kind.client_mode())?;
        let back = visitor.come_back_as(&client, server.direct(1, 0)?)?;
        assert!(back.resumed(), "{kind}: {back:?}");
        visitors.push((kind, visitor));
    }

    let (end, began) = (LIFETIME + ROUNDING, Instant::now());
    wait_until("the end of all lifetimes", 2 * end, || began.elapsed() > end)?;

    // This client does not know how late it is: else it would not even offer a TLS 1.3 ticket.
    let clock = FakeClock::new()?;
    clock.set(-i64::try_from(began.elapsed().as_secs()).expect("a few seconds"))?;
    let environment = clock.environment().into_iter();
    let late = environment.fold(client, |client, (name, value)| client.env(name, value));
    for ((kind, visitor), server) in visitors.iter().zip(&servers) {
        let back = visitor.come_back_as(&late, server.direct(1, 0)?)?;
        assert!(back.refused(), "{kind}: {back:?}");
    }
    Ok(())
}

/// A client that always returns with what it got last has to shake hands in full again at the end
/// of each lifetime, counted from the full handshake before. Times are kept in whole seconds, by
/// clocks that tick at slightly different moments: a lifetime is one second shorter at the least.
fn renewal_extends_no_lifetime(kind: Kind) -> Result<()> {
    const SECONDS: u32 = 9;
    let whole = |lifetime: Duration| 1 + u64::from(SECONDS) / lifetime.as_secs();
    let (least, most) = (whole(LIFETIME + ROUNDING), whole(LIFETIME - ROUNDING));

    let server = short_lived_server(kind)?;
    let addresses = [server.direct(0, 0)?, server.direct(1, 0)?];
    let report = Traffic::to(addresses, kind.client_mode()).threads(1).seconds(SECONDS)?;
    let full = report.handshakes - report.resumed;
    assert!((least..=most).contains(&full), "{full} full handshakes: {report:?}");
    assert_eq!((report.failed, report.reset), (0, 0), "{report:?}");
    Ok(())
}

#[test]
fn renewal_extends_no_lifetime_of_tls12_ids() -> Result<()> {
    renewal_extends_no_lifetime(Kind::Tls12Id)
}

#[test]
fn renewal_extends_no_lifetime_of_tls12_tickets() -> Result<()> {
    renewal_extends_no_lifetime(Kind::Tls12Ticket)
}

#[test]
fn renewal_extends_no_lifetime_of_stateless_tls13_tickets() -> Result<()> {
    renewal_extends_no_lifetime(Kind::Tls13Stateless)
}

#[test]
fn renewal_extends_no_lifetime_of_stateful_tls13_tickets() -> Result<()> {
    renewal_extends_no_lifetime(Kind::Tls13Stateful)
}
