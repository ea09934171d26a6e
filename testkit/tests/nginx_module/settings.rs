//! Whom the directives attach, and what nginx's own directives do then.

use tlsresume_testkit::client::{OpenSsl, OpenSslVisitor};
use tlsresume_testkit::{DEADLINE, Folder, Mode, Result, Stats, Traffic, free_port, wait_until};

use crate::nginx::{
    Blocks, Site, address, ask, assert_all_resumed, certificate, server, shared, with_status,
};

#[test]
fn the_inner_word_wins_and_off_is_off() -> Result<()> {
    let memory = Folder::in_memory()?;
    let (site, ports) = (Site::new()?, [free_port()?, free_port()?, free_port()?]);
    site.write("one.toml", &shared(&memory.file("one"), "stateless"));
    site.write("two.toml", &shared(&memory.file("two"), "stateless"));
    let servers = [
        with_status(&server(ports[0], "")),
        server(ports[1], "tlsresume off;"),
        with_status(&server(ports[2], "tlsresume two.toml;")),
    ];
    let http = format!("tlsresume one.toml; {}", servers.join("\n"));
    site.configure("", &Blocks { http: &http, ..Blocks::default() })?;
    let nginx = site.start()?;

    assert_eq!(nginx.lines_with("tlsresume: attached server"), 2, "{}", nginx.log());
    let client = OpenSsl::new();
    for mode in Mode::ALL {
        let visitor = client.first_visit(address(ports[0]), mode)?;
        assert!(visitor.come_back_as(&client, address(ports[0]))?.resumed(), "{mode}");
        for port in [ports[1], ports[2]] {
            assert!(!visitor.come_back_as(&client, address(port))?.reused, "{mode}: {port}");
        }
    }
    // Of the servers' own clients the second one's are none of the library's business.
    client.first_visit(address(ports[1]), Mode::Tls12Id)?;
    let stored = |port| Stats::of(address(port)).map(|stats| stats.get("sessions_stored_total"));
    assert_eq!((stored(ports[0])?, stored(ports[2])?), (1, 1));
    Ok(())
}

#[test]
fn servers_without_tls_certificate_or_name_are_no_obstacle() -> Result<()> {
    let (site, ports) = (Site::new()?, [free_port()?, free_port()?]);
    certificate(&site, "named", &["/CN=named.example"]);
    let plain = format!("server {{ listen 127.0.0.1:{}; return 200 \"$answer\\n\"; }}", ports[1]);
    let reject = server(ports[0], "ssl_reject_handshake on;");
    // $ssl_server_name is only known in the handshake: the certificate is loaded then.
    let variable = "server_name named.example; ssl_certificate $ssl_name.crt; \
                    ssl_certificate_key $ssl_name.key;";
    let map = "map $ssl_server_name $ssl_name { default named; }";
    let named = server(ports[0], variable);
    site.configure(
        "user root;",
        &Blocks {
            http: &format!("tlsresume on; {map} {reject} {plain} {named}"),
            ..Blocks::default()
        },
    )?;
    let nginx = site.start()?;
    // The plain one has a context too: it inherits a certificate.
    assert_eq!(nginx.lines_with("tlsresume: attached server"), 2, "{}", nginx.log());
    let client = OpenSsl::new().args(["-servername", "named.example"]);
    for mode in Mode::ALL {
        let visitor = client.first_visit(address(ports[0]), mode)?;
        let back = visitor.come_back_as(&client, address(ports[0]))?;
        assert!(back.resumed(), "{mode}: {back:?}\n{}", nginx.log());
    }
    let stranger = OpenSsl::new().args(["-servername", "stranger.example"]);
    assert!(stranger.first_visit(address(ports[0]), Mode::Tls13).is_err(), "it is rejected");
    assert!(ask(ports[1], "GET", "/")?.starts_with("HTTP/1.1 200"));
    Ok(())
}

#[test]
fn session_tickets_off_means_ids_and_handles() -> Result<()> {
    let (site, port) = (Site::new()?, free_port()?);
    let http = format!("tlsresume on; {}", with_status(&server(port, "ssl_session_tickets off;")));
    site.configure("", &Blocks { workers: 2, http: &http, ..Blocks::default() })?;
    let _nginx = site.start()?;
    for mode in Mode::ALL {
        let report = Traffic::to([address(port)], mode).connections(100, DEADLINE)?;
        assert_all_resumed(&mode.to_string(), &report);
    }
    let stats = Stats::of(address(port))?;
    assert_eq!(stats.get("tickets_issued_total"), 0);
    assert!(stats.get("sessions_hit_total") > 0);
    Ok(())
}

#[test]
fn early_data_of_a_ticket_is_accepted_once_whatever_the_worker() -> Result<()> {
    let (site, port) = (Site::new()?, free_port()?);
    site.write("request", "GET / HTTP/1.0\r\n\r\n");
    // The register of what was seen is trusted once it is older than the window.
    site.write("tlsresume.toml", "early_data.replay_window = \"10s\"\n");
    let server = server(port, "ssl_early_data on;").replace(" ssl;", " ssl reuseport;");
    let http = format!("tlsresume tlsresume.toml; {server}");
    site.configure("", &Blocks { workers: 2, http: &http, ..Blocks::default() })?;
    let nginx = site.start()?;
    let client = OpenSsl::new();
    let hasty = client.clone().args(["-early_data".into(), nginx.site.file("request")]);
    let first_accepted = || -> Result<Option<OpenSslVisitor>> {
        let visitor = client.first_visit(address(port), Mode::Tls13)?;
        let back = visitor.come_back_as(&hasty, address(port))?;
        assert!(back.reused, "{back:?}");
        let accepted = back.answer.is_some_and(|answer| answer.early_data == "accepted");
        Ok(accepted.then_some(visitor))
    };
    let mut accepted = None;
    wait_until("early data that is accepted", 2 * DEADLINE, || {
        accepted = first_accepted().expect("it serves");
        accepted.is_some()
    })?;
    let visitor = accepted.expect("waited for");
    for _ in 0..8 {
        let again = visitor.come_back_as(&hasty, address(port))?;
        assert!(again.resumed(), "{again:?}\n{}", nginx.log());
        assert!(again.answer.is_some_and(|it| it.early_data != "accepted"));
    }
    Ok(())
}
