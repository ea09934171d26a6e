//! Sessions do not cross to another name, nor to another rule for client certificates: the class of
//! CVE-2025-23419 and CVE-2025-23048.

use tlsresume_testkit::installed::certs::{Authority, Files};
use tlsresume_testkit::installed::{
    Call, Installed, Program, Session, Visit, Visits, preload_library,
};
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::{Folder, Result, net};

/// A place where a client may be served: a name on a port, and whose clients it verifies.
struct Place {
    port: usize,
    name: &'static str,
    authority: Option<usize>,
}

/// Two names of one address with two authorities, and one of the names on other ports.
const PLACES: [Place; 5] = [
    Place { port: 0, name: "plain.example", authority: None },
    Place { port: 0, name: "alice.example", authority: Some(0) },
    Place { port: 0, name: "bob.example", authority: Some(1) },
    Place { port: 1, name: "alice.example", authority: Some(1) },
    Place { port: 2, name: "alice.example", authority: None },
];

/// One nginx with all places, and a client of each authority.
struct Scene {
    kind: Kind,
    nginx: Installed,
    ports: [u16; 3],
    clients: [Files; 2],
    visits: Visits,
    // Last, so that nginx has ended when they go.
    _folders: [Folder; 2],
}

impl Scene {
    fn new(kind: Kind) -> Result<Scene> {
        let (memory, folder) = (Folder::in_memory()?, Folder::new()?);
        let authorities = [Authority::new("one")?, Authority::new("other")?];
        let ports = [net::free_port()?, net::free_port()?, net::free_port()?];
        let mut settings = Program::Nginx
            .settings()
            .workers(1)
            .preload(preload_library()?)
            .env("TLSRESUME_MEMORY_PATH", memory.file("sessions"))
            .env("TLSRESUME_RESUMPTION_MODE", kind.server_mode());
        for (number, authority) in authorities.iter().enumerate() {
            settings = settings.file(format!("{number}.crt"), authority.certificate().pem());
        }
        for place in &PLACES {
            settings = settings.http(&place.server(ports));
        }
        let clients = [
            authorities[0].issue("client")?.write_to(&folder, "0")?,
            authorities[1].issue("client")?.write_to(&folder, "1")?,
        ];
        let (nginx, visits) = (settings.start()?, Visits::start()?);
        Ok(Scene { kind, nginx, ports, clients, visits, _folders: [memory, folder] })
    }

    /// A visit to a place with the certificate of an authority.
    fn visit(
        &mut self,
        place: &Place,
        authority: Option<usize>,
        session: Option<Session>,
    ) -> Result<Visit> {
        let address = ([127, 0, 0, 1], self.ports[place.port]).into();
        let mut call = Call::to(address, self.kind.client_mode()).name(place.name).with(session);
        if let Some(number) = authority {
            call = call.certificate(&self.clients[number]);
        }
        let visit = self.visits.connect(&call)?;
        self.visits.close()?;
        Ok(visit)
    }
}

impl Place {
    fn server(&self, ports: [u16; 3]) -> String {
        let (port, name) = (ports[self.port], self.name);
        let verify = self.authority.map_or(String::new(), |number| {
            format!("ssl_client_certificate @folder@/{number}.crt; ssl_verify_client on;")
        });
        format!(
            "server {{ listen 127.0.0.1:{port} ssl; server_name {name}; {verify} \
             return 200 \"{name} $ssl_client_verify\\n\"; }}"
        )
    }
}

fn sessions_stay_where_they_were_made(kind: Kind) -> Result<()> {
    let mut scene = Scene::new(kind)?;
    // The first visit teaches the worker whom the place verifies; from then on clients resume.
    for place in &PLACES {
        scene.visit(place, place.authority, None)?;
    }
    for (from, place) in PLACES.iter().enumerate() {
        let first = scene.visit(place, place.authority, None)?;
        assert!(first.session.is_some(), "{kind}: {from} gives a session");
        for (to, target) in PLACES.iter().enumerate() {
            // Sessions cannot be offered with another certificate than they were made with, which is
            // what an attacker has.
            let there = scene.visit(target, place.authority, first.session)?;
            let log = scene.nginx.log();
            assert!(there.offered, "{kind}: {from} to {to}");
            assert_eq!(there.reused, from == to, "{kind}: {from} to {to}: {there:?}\n{log}");
            let served = target.authority.is_none() || target.authority == place.authority;
            assert_eq!(there.answer.contains("200"), served, "{kind}: {from} to {to}: {there:?}");
        }
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

/// Nothing was learned yet: the place that verifies has not served once.
#[test]
fn a_session_without_verification_opens_no_place_that_verifies_even_at_its_first_connection()
-> Result<()> {
    for kind in Kind::ALL {
        let mut scene = Scene::new(kind)?;
        let [_, verifying, _, _, open] = &PLACES;
        scene.visit(open, None, None)?;
        let session = scene.visit(open, None, None)?.session;
        let back = scene.visit(open, None, session)?;
        assert!(back.reused, "{kind}: the session is good: {back:?}");
        // The handshake is ended, or a full one that the place then refuses.
        if let Ok(there) = scene.visit(verifying, None, session) {
            assert!(there.offered && !there.reused, "{kind}: {there:?}");
            assert!(!there.answer.contains("200"), "{kind}: {there:?}");
        }
    }
    Ok(())
}

/// Each worker has to see once whom a name verifies.
#[test]
fn verified_clients_resume_from_their_second_visit_to_a_worker_on() -> Result<()> {
    const VISITS: usize = 6;
    for kind in Kind::ALL {
        let mut scene = Scene::new(kind)?;
        let [_, place, ..] = &PLACES;
        let mut session = scene.visit(place, place.authority, None)?.session;
        for nth in 0..VISITS {
            let back = scene.visit(place, place.authority, session)?;
            assert!(back.reused, "{kind}: return {nth}: {back:?}\n{}", scene.nginx.log());
            session = back.session;
        }
    }
    Ok(())
}
