//! The testkit's own control: against plain OpenSSL its clients report both outcomes truthfully.

use tlsresume_testkit::{Client, Connection, DEADLINE, Load, Mode, Result, Server, client};

fn plain_server(name: &str) -> Result<Server> {
    Server::example()?.args(["--plain", "--direct", "--name", name]).start()
}

/// Client and server agree that the session was, or was not, resumed.
fn assert_resumed(connection: &Connection, expected: bool, client: &dyn Client, mode: Mode) {
    let who = format!("{} with {mode}: {connection:?}", client.name());
    assert_eq!(connection.reused, expected, "{who}");
    let answer = connection.answer.as_ref().expect(&who);
    assert_eq!(answer.resumed, expected, "{who}");
    assert_eq!(answer.version, if mode == Mode::Tls13 { "TLSv1.3" } else { "TLSv1.2" });
}

#[test]
fn every_client_resumes_at_the_process_it_was_at() -> Result<()> {
    let server = plain_server("one")?;
    let address = server.direct(0, 0)?;
    for client in client::all() {
        for mode in Mode::ALL {
            let visitor = client.visit(address, mode)?;
            assert!(!visitor.first().reused);
            assert_resumed(&visitor.come_back(address)?, true, &*client, mode);
        }
    }
    Ok(())
}

#[test]
fn no_client_resumes_at_a_server_that_shares_nothing() -> Result<()> {
    let (one, other) = (plain_server("one")?, plain_server("other")?);
    for client in client::all() {
        for mode in Mode::ALL {
            let visitor = client.visit(one.direct(0, 0)?, mode)?;
            let back = visitor.come_back(other.direct(0, 0)?)?;
            assert_resumed(&back, false, &*client, mode);
            assert_eq!(back.answer.map(|answer| answer.server).as_deref(), Some("other"));
        }
    }
    Ok(())
}

#[test]
fn load_client_counts_what_was_not_resumed() -> Result<()> {
    let (one, other) = (plain_server("one")?, plain_server("other")?);
    let addresses = [one.direct(0, 0)?, other.direct(0, 0)?];
    for mode in Mode::ALL {
        let report = Load::start(&addresses, 10, mode)?.finish(DEADLINE)?;
        assert_eq!((report.handshakes, report.resumed), (10, 0), "{mode}");
        assert_eq!(report.not_resumed_after_first, 9, "{mode}");

        let report = Load::start(&addresses[..1], 10, mode)?.finish(DEADLINE)?;
        assert_eq!((report.handshakes, report.resumed), (10, 9), "{mode}");
    }
    Ok(())
}
