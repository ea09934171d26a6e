//! Steps of the wall clock, and servers that disagree about times, lose nothing and prolong
//! nothing.

use std::time::{Duration, Instant};

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::{
    DEADLINE, FakeClock, Folder, Result, Server, Stats, Traffic, alone, say, wait_until,
};

const HOUR: i64 = 3600;

fn steps_lose_nothing(kinds: &[Kind]) -> Result<()> {
    let _alone = alone();
    let (clock, memory) = (FakeClock::new()?, Folder::in_memory()?);
    let environment = clock.environment();
    let settings = Server::example()?
        .args(["--handle", "--direct", "--workers", "2"])
        .env("TLSRESUME_MEMORY_PATH", memory.file("sessions"))
        .env("TLSRESUME_RESUMPTION_MODE", kinds[0].server_mode())
        // A step of an hour goes over a change of the key.
        .env("TLSRESUME_KEYS_ROTATE", "40m")
        .env("TLSRESUME_KEYS_ACTIVATION_DELAY", "0s");
    let settings =
        environment.into_iter().fold(settings, |settings, (name, value)| settings.env(name, value));
    let server = settings.start()?;
    let addresses = [server.direct(0, 0)?, server.direct(1, 0)?];
    let key_age = || Stats::of(addresses[0]).map(|stats| stats.get("key_age_seconds"));

    let client = OpenSsl::new();
    let mut visitors = Vec::new();
    let check = |kind: Kind, traffic: Traffic, when: &str| -> Result<()> {
        let report = traffic.stop()?;
        say(&format!("{kind}, {when}: {report:?}"));
        assert_eq!(report.not_resumed_after_first, 0, "{kind}, {when}: {report:?}");
        assert_eq!((report.failed, report.reset), (0, 0), "{kind}, {when}: {report:?}");
        assert!(report.resumed > 0, "{kind}, {when}: {report:?}");
        Ok(())
    };

    // The first key is made at 0. An hour later its successor is 20 minutes old; an hour before, the
    // first key stands in for those that are not there.
    let steps = [
        ("an hour forward", HOUR, 1200..1300),
        ("an hour back", 0, 1..100),
        ("an hour back from the start", -HOUR, 0..1),
        ("an hour forward to the start", 0, 1..100),
    ];
    wait_until("a second in the life of the first key", DEADLINE, || {
        key_age().is_ok_and(|age| (1..100).contains(&age))
    })?;
    for (step, to, expected_age) in steps {
        for kind in kinds {
            let visitor = client.first_visit(addresses[0], kind.client_mode())?;
            visitors.push((*kind, visitor, format!("from before the step {step}")));
        }
        let start = |kind: &Kind| Traffic::to(addresses, kind.client_mode()).start();
        let traffic = kinds.iter().map(start).collect::<Result<Vec<_>>>()?;
        clock.set(to)?;
        wait_until(format!("{step}, as the server sees it"), DEADLINE, || {
            key_age().is_ok_and(|age| expected_age.contains(&age))
        })?;
        for (kind, traffic) in kinds.iter().zip(traffic) {
            check(*kind, traffic, step)?;
        }
        for (kind, visitor, from) in &visitors {
            let back = visitor.come_back_as(&client, addresses[1])?;
            assert!(back.resumed(), "{kind}, {from}, after {step}: {back:?}");
        }
    }
    Ok(())
}

#[test]
fn clock_steps_of_an_hour_under_load_lose_no_stateless_session() -> Result<()> {
    steps_lose_nothing(&[Kind::Tls12Id, Kind::Tls12Ticket, Kind::Tls13Stateless])
}

#[test]
fn clock_steps_of_an_hour_under_load_lose_no_stateful_session() -> Result<()> {
    steps_lose_nothing(&[Kind::Tls13Stateful])
}

/// The short-lived server, and the time after which nothing of it may resume: OpenSSL counts whole
/// seconds.
const SHORT_LIFETIME: Duration = Duration::from_secs(2);
const SHORT_END: Duration = Duration::from_secs(3);

/// By then every key that the short-lived server made in advance for the first seconds is past the
/// time for which that server alone would accept it.
const LATER: Duration = Duration::from_secs(9);

fn different_times_agree(kinds: &[Kind], short_one_first: bool) -> Result<()> {
    let memory = Folder::in_memory()?;
    let start = |name: &str, lifetime: &str, rotate: &str, ahead: &str| {
        Server::example()?
            .args(["--direct", "--workers", "2", "--name", name])
            .env("TLSRESUME_MEMORY_PATH", memory.file("sessions"))
            .env("TLSRESUME_RESUMPTION_MODE", kinds[0].server_mode())
            .env("TLSRESUME_RESUMPTION_LIFETIME", lifetime)
            .env("TLSRESUME_KEYS_ROTATE", rotate)
            .env("TLSRESUME_KEYS_AHEAD", ahead)
            .env("TLSRESUME_KEYS_ACTIVATION_DELAY", "0s")
            .start()
    };
    let start_short = || start("short", &format!("{}s", SHORT_LIFETIME.as_secs()), "2s", "16");
    let start_long = || start("long", "60s", "3s", "1");
    let client = OpenSsl::new();
    let visit = |server: &Server| -> Result<Vec<_>> {
        let address = server.direct(0, 0)?;
        kinds
            .iter()
            .map(|kind| Ok((*kind, client.first_visit(address, kind.client_mode())?)))
            .collect()
    };
    // By serving it makes all keys that it wants, and leaves none to the one that comes second.
    let serve_alone = |server: &Server| {
        let began = Instant::now();
        wait_until("the first server's keys", DEADLINE, || {
            visit(server).is_ok() && began.elapsed() > Duration::from_secs(2)
        })
    };
    let (short, long);
    if short_one_first {
        short = start_short()?;
        serve_alone(&short)?;
        long = start_long()?;
    } else {
        long = start_long()?;
        serve_alone(&long)?;
        short = start_short()?;
    }
    let (of_short, of_long) = (visit(&short)?, visit(&long)?);
    let began = Instant::now();
    let both = [short.direct(1, 0)?, long.direct(1, 0)?];

    // The client's clock stands still, else it would keep a TLS 1.3 ticket to itself that is too old.
    let clock = FakeClock::new()?;
    let environment = clock.environment().into_iter();
    let late = environment.fold(client.clone(), |client, (name, value)| client.env(name, value));
    wait_until("the end of the short lifetime", 2 * SHORT_END, || began.elapsed() > SHORT_END)?;
    clock.set(-i64::try_from(began.elapsed().as_secs()).expect("a few seconds"))?;
    for (kind, visitor) in &of_short {
        for address in both {
            let back = visitor.come_back_as(&late, address)?;
            assert!(back.refused(), "{kind} of the short-lived server lives on: {back:?}");
        }
    }

    // Every connection may change the keys: the servers go on serving meanwhile.
    wait_until("many keys later", 2 * LATER, || {
        let come = |address| client.first_visit(address, kinds[0].client_mode()).is_ok();
        both.into_iter().all(come) && began.elapsed() > LATER
    })?;
    for (kind, visitor) in &of_long {
        for address in both {
            let back = visitor.come_back_as(&client, address)?;
            assert!(back.resumed(), "{kind} of the long-lived server is lost: {back:?}");
        }
    }
    Ok(())
}

const STATELESS: [Kind; 3] = [Kind::Tls12Id, Kind::Tls12Ticket, Kind::Tls13Stateless];

#[test]
fn servers_with_different_times_lose_and_prolong_no_stateless_session() -> Result<()> {
    different_times_agree(&STATELESS, false)
}

#[test]
fn servers_with_different_times_lose_and_prolong_no_stateful_session() -> Result<()> {
    different_times_agree(&[Kind::Tls13Stateful], false)
}

#[test]
fn a_long_lived_server_that_comes_second_loses_no_stateless_session() -> Result<()> {
    different_times_agree(&STATELESS, true)
}

#[test]
fn a_long_lived_server_that_comes_second_loses_no_stateful_session() -> Result<()> {
    different_times_agree(&[Kind::Tls13Stateful], true)
}
