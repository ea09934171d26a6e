//! Sessions do not cross to another name, nor to another rule for client certificates.

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::matrix::Kind;

use tlsresume_testkit::{
    DEADLINE, Folder, Mode, Result, Traffic, Visitor, alone, free_port, wait_until,
};

use crate::nginx::{
    Blocks, Site, address, assert_all_resumed, certificate, pid_of, server, shared,
};

/// A place where a client may be served: a name on a port, and whose clients it verifies.
struct Place {
    port: usize,
    name: &'static str,
    ca: Option<&'static str>,
}

/// Two names of one address with two authorities, and one of the names on other ports.
const PLACES: [Place; 5] = [
    Place { port: 0, name: "plain.example", ca: None },
    Place { port: 0, name: "alice.example", ca: Some("ca1") },
    Place { port: 0, name: "bob.example", ca: Some("ca2") },
    Place { port: 1, name: "alice.example", ca: Some("ca2") },
    Place { port: 2, name: "alice.example", ca: None },
];

impl Place {
    fn server(&self, ports: &[u16; 3]) -> String {
        let verify = self.ca.map_or(String::new(), |ca| {
            format!("ssl_client_certificate {ca}.crt; ssl_verify_client on;")
        });
        server(ports[self.port], &format!("server_name {}; {verify}", self.name))
    }

    /// A client that this place lets in: with a certificate of its authority.
    fn client(&self, site: &Site) -> OpenSsl {
        let client = OpenSsl::new().args(["-servername", self.name]);
        match self.ca {
            None => client,
            Some(ca) => client
                .args(["-cert".into(), site.file(&format!("client-{ca}.crt"))])
                .args(["-key".into(), site.file(&format!("client-{ca}.key"))]),
        }
    }
}

fn sessions_stay_where_they_were_made(kind: Kind) -> Result<()> {
    let (memory, site) = (Folder::in_memory()?, Site::new()?);
    let ports = [free_port()?, free_port()?, free_port()?];
    for ca in ["ca1", "ca2"] {
        certificate(&site, ca, &[&format!("/CN={ca}")]);
        certificate(&site, &format!("client-{ca}"), &[&format!("/CN=client of {ca}"), ca]);
    }
    site.write("tlsresume.toml", &shared(&memory.file("sessions"), kind.server_mode()));
    let servers = PLACES.each_ref().map(|place| place.server(&ports));
    let http = format!("tlsresume tlsresume.toml; {}", servers.join("\n"));
    site.configure("", &Blocks { http: &http, ..Blocks::default() })?;
    let nginx = site.start()?;

    let visit = |place: &Place| {
        place.client(&nginx.site).first_visit(address(ports[place.port]), kind.client_mode())
    };
    // The first visit teaches the worker whom the place verifies; from then on clients resume.
    PLACES.iter().try_for_each(|place| visit(place).map(drop))?;
    let visitors = PLACES.iter().map(visit).collect::<Result<Vec<_>>>()?;
    for (from, (place, visitor)) in PLACES.iter().zip(&visitors).enumerate() {
        for (to, target) in PLACES.iter().enumerate() {
            // As the target's own client, or with the certificate of the place it comes from: the
            // session must not open the door either way.
            let port = address(ports[target.port]);
            let own = visitor.come_back_as(&target.client(&nginx.site), port)?;
            let what = format!("{kind}: {from} to {to}: {own:?}\n{}", nginx.log());
            assert_eq!(own.reused, from == to, "{what}");
            assert_eq!(own.resumed(), from == to, "{what}");
            if from != to {
                let client = place.client(&nginx.site).args(["-servername", target.name]);
                let foreign = visitor.come_back_as(&client, port)?;
                assert!(!foreign.reused, "{kind}: {from} to {to}, {foreign:?}");
                let trusted = foreign.answer.is_some_and(|answer| answer.client_cert);
                let expected = target.ca.is_some() && target.ca == place.ca;
                assert_eq!(trusted, expected, "{kind}: {from} to {to}");
            }
        }
        let back = visitor.come_back_as(&place.client(&nginx.site), address(ports[place.port]))?;
        assert!(back.resumed(), "{kind}: {from}: {back:?}\n{}", nginx.log());
    }
    Ok(())
}

#[test]
fn tls12_ids_stay_with_their_name_and_authority() -> Result<()> {
    sessions_stay_where_they_were_made(Kind::Tls12Id)
}

#[test]
fn tls12_tickets_stay_with_their_name_and_authority() -> Result<()> {
    sessions_stay_where_they_were_made(Kind::Tls12Ticket)
}

#[test]
fn tls13_stateless_tickets_stay_with_their_name_and_authority() -> Result<()> {
    sessions_stay_where_they_were_made(Kind::Tls13Stateless)
}

#[test]
fn tls13_stateful_tickets_stay_with_their_name_and_authority() -> Result<()> {
    sessions_stay_where_they_were_made(Kind::Tls13Stateful)
}

#[test]
fn verified_clients_resume_in_every_worker_that_has_served_their_name_once() -> Result<()> {
    const WORKERS: usize = 4;

    let (site, port) = (Site::new()?, free_port()?);
    certificate(&site, "ca1", &["/CN=ca1"]);
    certificate(&site, "client-ca1", &["/CN=client of ca1", "ca1"]);
    let named = server(
        port,
        "server_name alice.example; ssl_client_certificate ca1.crt; ssl_verify_client on;",
    );
    let default = server(port, "").replace(" ssl;", " ssl reuseport;");
    let http = format!("tlsresume on; {default} {named}");
    let blocks = Blocks { workers: 4, http: &http, ..Blocks::default() };
    site.configure("", &blocks)?;
    let nginx = site.start()?;
    let client = OpenSsl::new()
        .args(["-servername", "alice.example"])
        .args(["-cert".into(), nginx.site.file("client-ca1.crt")])
        .args(["-key".into(), nginx.site.file("client-ca1.key")]);
    for mode in Mode::ALL {
        let visitor = client.first_visit(address(port), mode)?;
        let mut learned = vec![pid_of(visitor.first())];
        let mut resumed = Vec::new();
        wait_until(format!("{mode}: a return to each worker"), DEADLINE, || {
            let back = visitor.come_back_as(&client, address(port)).expect("it serves");
            let pid = pid_of(&back);
            if learned.contains(&pid) {
                assert!(back.resumed(), "{mode}: {back:?}\n{}", nginx.log());
                resumed.push(pid);
                resumed.sort_unstable();
                resumed.dedup();
            } else {
                learned.push(pid);
            }
            resumed.len() == WORKERS
        })?;
    }
    Ok(())
}

#[test]
fn names_keep_their_sessions_to_themselves_under_load_and_reloads() -> Result<()> {
    const NAMES: [&str; 2] = ["alice.example", "bob.example"];

    let _alone = alone();
    let (site, port) = (Site::new()?, free_port()?);
    let servers = NAMES.map(|name| server(port, &format!("server_name {name};")));
    let http = format!("tlsresume on; {}", servers.join("\n"));
    site.configure("", &Blocks { workers: 2, http: &http, ..Blocks::default() })?;
    let nginx = site.start()?;
    let clients = NAMES.map(|name| OpenSsl::new().args(["-servername", name]));
    let mut traffic = Vec::new();
    for name in NAMES {
        for mode in Mode::ALL {
            traffic.push((name, mode, Traffic::to([address(port)], mode).sni(name).start()?));
        }
    }
    for reload in 1..=3 {
        let mut visitors = Vec::new();
        for (from, client) in clients.iter().enumerate() {
            for mode in Mode::ALL {
                visitors.push((from, mode, client.first_visit(address(port), mode)?));
            }
        }
        nginx.reload()?;
        nginx.wait_for_lines("exited with code 0", 2 * reload)?;
        for (from, mode, visitor) in &visitors {
            for (to, client) in clients.iter().enumerate() {
                let back = visitor.come_back_as(client, address(port))?;
                let what = format!("{mode}: {from} to {to}: {back:?}\n{}", nginx.log());
                assert_eq!(back.reused, *from == to, "{what}");
            }
        }
    }
    for (name, mode, traffic) in traffic {
        assert_all_resumed(&format!("{name}, {mode}"), &traffic.stop()?);
    }
    Ok(())
}

/// Of the clients that have a session from before, one sees its handshake ended; the others, and that one when it comes
/// again, make full ones.
#[test]
fn a_reload_that_turns_verification_on_ends_one_handshake_at_most() -> Result<()> {
    let (memory, site) = (Folder::in_memory()?, Site::new()?);
    let port = free_port()?;
    certificate(&site, "ca1", &["/CN=ca1"]);
    site.write("tlsresume.toml", &shared(&memory.file("sessions"), "stateless"));
    let configure = |site: &Site, verify: &str| {
        let named = server(port, &format!("server_name alice.example; {verify}"));
        let http = format!("tlsresume tlsresume.toml; {named}");
        site.configure("", &Blocks { http: &http, ..Blocks::default() })
    };
    configure(&site, "")?;
    let nginx = site.start()?;
    let client = OpenSsl::new().args(["-servername", "alice.example"]);
    let visitors = Mode::ALL
        .iter()
        .cycle()
        .take(6)
        .map(|mode| client.first_visit(address(port), *mode))
        .collect::<Result<Vec<_>>>()?;
    for visitor in &visitors {
        assert!(visitor.come_back_as(&client, address(port))?.resumed(), "{}", nginx.log());
    }

    configure(&nginx.site, "ssl_client_certificate ca1.crt; ssl_verify_client on;")?;
    nginx.reload()?;
    // The worker of before verifies nobody.
    nginx.wait_for_lines("exited with code 0", 1)?;
    for round in 0..2 {
        for visitor in &visitors {
            // An ended handshake is an error of the client's.
            if let Ok(back) = visitor.come_back_as(&client, address(port)) {
                assert!(!back.resumed(), "{round}: {back:?}\n{}", nginx.log());
            }
        }
    }
    assert!(nginx.lines_with("a handshake was ended") <= 1, "{}", nginx.log());
    for level in ["[crit]", "[alert]", "[emerg]"] {
        assert_eq!(nginx.lines_with(level), 0, "{}", nginx.log());
    }
    Ok(())
}
