//! Who turns off both tickets and the session cache in a server wants no resumption, and has none; who turns off one of
//! them goes on with the other. `docs/servers.md` has the settings.

use tlsresume_testkit::installed::{Program, Settings, Visits, preload_library};
use tlsresume_testkit::{Mode, Result};

type Change = fn(Settings) -> Settings;

/// Neither tickets nor a cache, as each server says it.
const DISABLED: [(Program, Change); 8] = [
    (Program::Nginx, |it| it.server("ssl_session_tickets off; ssl_session_cache off;")),
    (Program::Haproxy, |it| {
        it.top("tune.ssl.cachesize 0\nssl-default-bind-options no-tls-tickets")
    }),
    (Program::Apache, |it| apache_with_cache(it, "SSLSessionCache none")),
    (Program::Apache, |it| apache_with_cache(it, "")),
    (Program::Stunnel, |it| it.server("sessionResume = no")),
    (Program::Lighttpd, |it| {
        it.top("ssl.openssl.ssl-conf-cmd = (\"Options\" => \"-SessionTicket\")")
    }),
    (Program::H2o, |it| it.top("ssl-session-resumption:\n  mode: off")),
    (Program::Postgres, |it| it),
];

/// Without tickets, and with another cache than Debian's.
fn apache_with_cache(settings: Settings, cache: &str) -> Settings {
    let debians = "SSLSessionCache shmcb:@folder@/cache(512000)";
    let config = include_str!("../../servers/apache.conf").replace(debians, cache);
    settings.config(config).server("SSLSessionTickets off")
}

/// One of them alone.
const ONE_IS_ON: [(Program, Change); 8] = [
    (Program::Nginx, |it| it.server("ssl_session_tickets off;")),
    (Program::Nginx, |it| it.server("ssl_session_cache off;")),
    // As Debian's haproxy.cfg has it.
    (Program::Haproxy, |it| it.top("ssl-default-bind-options no-tls-tickets")),
    (Program::Haproxy, |it| it.top("tune.ssl.cachesize 0")),
    (Program::Apache, |it| it.server("SSLSessionTickets off")),
    // lighttpd itself turns the cache off.
    (Program::Lighttpd, |it| it),
    (Program::H2o, |it| it.top("ssl-session-resumption:\n  mode: cache")),
    (Program::H2o, |it| it.top("ssl-session-resumption:\n  mode: ticket")),
];

/// For each kind of session whether a client resumed.
fn resumed(program: Program, change: Change, force: &str) -> Result<[bool; 3]> {
    let settings = program.settings().workers(1).preload(preload_library()?);
    let server = change(settings.env("TLSRESUME_RESUMPTION_FORCE", force)).start()?;
    let mut visits = Visits::start()?;
    let mut resumed = [false; 3];
    for (mode, resumed) in Mode::ALL.into_iter().zip(&mut resumed) {
        let home = visits.visit(&server, mode, None)?;
        *resumed = match home.session {
            Some(session) => visits.visit(&server, mode, Some(session))?.reused,
            None => false,
        };
        visits.close()?;
    }
    Ok(resumed)
}

#[test]
fn a_server_that_turns_off_tickets_and_cache_resumes_nothing_unless_forced() -> Result<()> {
    for (program, change) in DISABLED {
        assert_eq!(resumed(program, change, "false")?, [false; 3], "{program}");
    }
    Ok(())
}

#[test]
fn force_overrides_what_a_server_turned_off() -> Result<()> {
    for (program, change) in DISABLED {
        assert_eq!(resumed(program, change, "true")?, [true; 3], "{program}");
    }
    Ok(())
}

#[test]
fn a_server_that_turns_off_one_of_them_goes_on_with_the_other() -> Result<()> {
    for (index, (program, change)) in ONE_IS_ON.into_iter().enumerate() {
        assert_eq!(resumed(program, change, "false")?, [true; 3], "{program}, line {index}");
    }
    Ok(())
}
