//! Servers of the distribution with two doors of different rules: what is let in at the lax one is not in force at the
//! strict one.

use std::net::SocketAddr;
use std::process::Command;

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::installed::certs::{self, Authority, Certificate, Files};
use tlsresume_testkit::installed::{Call, Installed, Program, Visits, preload_library};
use tlsresume_testkit::matrix::Kind;
use tlsresume_testkit::{DEADLINE, Folder, Process, Result, net, wait_until};

/// HAProxy with two binds that trust one authority; the first ignores all faults of certificates.
struct Doors {
    haproxy: Installed,
    lax: SocketAddr,
    strict: SocketAddr,
    good: Files,
    evil: Files,
    // Last, so that HAProxy has ended when they go.
    _folders: [Folder; 2],
}

impl Doors {
    fn open(kind: Kind) -> Result<Doors> {
        let (memory, folder) = (Folder::in_memory()?, Folder::new()?);
        let authority = Authority::new("authority")?;
        let [lax, strict] = [net::free_port()?, net::free_port()?]
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let frontend = |name: &str, at: SocketAddr, more: &str| {
            format!(
                "frontend {name}\n    bind {at} ssl crt @pem@ ca-file @folder@/authority.crt \
                 verify required {more}\n    http-request return status 200 content-type \
                 text/plain string \"{name}\"\n"
            )
        };
        let haproxy = Program::Haproxy
            .settings()
            .preload(preload_library()?)
            .env("TLSRESUME_MEMORY_PATH", memory.file("sessions"))
            .env("TLSRESUME_RESUMPTION_MODE", kind.server_mode())
            .file("authority.crt", authority.certificate().pem())
            .http(&frontend("lax", lax, "crt-ignore-err all ca-ignore-err all"))
            .http(&frontend("strict", strict, ""))
            .start()?;
        let good = authority.issue("good")?.write_to(&folder, "good")?;
        let evil = Certificate::self_signed("evil")?.write_to(&folder, "evil")?;
        Ok(Doors { haproxy, lax, strict, good, evil, _folders: [memory, folder] })
    }
}

/// The session of a self-made certificate is taken to the strict door, again and again, before and after others came.
fn a_certificate_that_was_let_in_stays_at_its_door(kind: Kind) -> Result<()> {
    const ATTEMPTS: usize = 4;
    let doors = Doors::open(kind)?;
    let mut visits = Visits::start()?;
    let call = |to, files| Call::to(to, kind.client_mode()).certificate(files);
    for attempt in 0..ATTEMPTS {
        let at_lax = visits.connect(&call(doors.lax, &doors.evil))?;
        assert!(at_lax.answer.contains("lax"), "{kind}: {at_lax:?}");
        visits.close()?;
        // One that is refused at all, by an alert or without one, was kept out.
        let at_strict = visits.connect(&call(doors.strict, &doors.evil).with(at_lax.session));
        if let Ok(visit) = at_strict {
            let log = doors.haproxy.log();
            assert!(!visit.answer.contains("strict"), "{kind}, {attempt}: {visit:?}\n{log}");
            visits.close()?;
        }
        let honest = visits.connect(&call(doors.strict, &doors.good))?;
        assert!(honest.answer.contains("strict"), "{kind}: {honest:?}");
        visits.close()?;
    }
    Ok(())
}

#[test]
fn haproxy_serves_no_self_made_certificate_at_its_strict_bind() -> Result<()> {
    Kind::ALL.into_iter().try_for_each(a_certificate_that_was_let_in_stays_at_its_door)
}

/// Of each bind, from the second return on.
#[test]
fn haproxy_resumes_clients_with_a_certificate_that_holds() -> Result<()> {
    const RETURNS: usize = 5;
    for kind in Kind::ALL {
        let doors = Doors::open(kind)?;
        let mut visits = Visits::start()?;
        let mut session = None;
        for nth in 0..=RETURNS {
            let call = Call::to(doors.strict, kind.client_mode()).certificate(&doors.good);
            let visit = visits.connect(&call.with(session))?;
            visits.close()?;
            assert!(nth < 2 || visit.reused, "{kind}: return {nth}: {visit:?}");
            session = visit.session;
        }
    }
    Ok(())
}

/// `openssl s_server` under the preload, one more program on one memory path.
struct Single {
    process: Process,
    address: SocketAddr,
}

impl Single {
    fn start(memory: &Folder, kind: Kind, args: &[&str]) -> Result<Single> {
        let address = SocketAddr::from(([127, 0, 0, 1], net::free_port()?));
        let mut command = Command::new("openssl");
        command.arg("s_server").args(["-accept", &address.to_string(), "-www"]).args(args);
        command.env("LD_PRELOAD", preload_library()?);
        command.env("TLSRESUME_MEMORY_PATH", memory.file("sessions"));
        command.env("TLSRESUME_RESUMPTION_MODE", kind.server_mode());
        let process = Process::start(command, "openssl")?;
        wait_until("s_server", DEADLINE, || std::net::TcpStream::connect(address).is_ok())?;
        Ok(Single { process, address })
    }
}

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A server for everybody and one for holders of a key, without a certificate, on one memory path.
#[test]
fn a_session_of_a_public_server_opens_none_that_asks_for_a_key() -> Result<()> {
    let folder = Folder::new()?;
    let certificate = certs::localhost()?.write_to(&folder, "server")?;
    let pem = certificate.pem.display().to_string();
    for kind in Kind::ALL {
        let memory = Folder::in_memory()?;
        let public = Single::start(&memory, kind, &["-cert", &pem])?;
        let private = Single::start(&memory, kind, &["-nocert", "-psk", KEY])?;
        let stranger = OpenSsl::new();
        let visitor = stranger.first_visit(public.address, kind.client_mode())?;
        assert!(visitor.come_back_as(&stranger, public.address)?.reused, "{kind}: it is good");
        for attempt in 0..3 {
            let there = visitor.come_back_as(&stranger, private.address);
            let is_in = there.as_ref().is_ok_and(|connection| connection.reused);
            let log = private.process.transcript();
            assert!(!is_in, "{kind}, {attempt}: {there:?}\n{log}");
        }
        let holder = OpenSsl::new().args(["-psk", KEY]);
        holder.first_visit(private.address, kind.client_mode())?;
    }
    Ok(())
}
