//! Servers in Rust, on the `openssl` crate, and servers in C resume each other's sessions.

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::server::{Settings, example};
use tlsresume_testkit::{Folder, Mode, Result, Server, Visitor};

fn in_rust() -> Result<Settings> {
    Ok(Server::program(example("rust_server")?))
}

/// Two servers on one memory path: who was at the first resumes at the second, and the other way round.
fn resume_each_others_sessions(servers: [Settings; 2]) -> Result<()> {
    for stored in ["stateless", "stateful"] {
        let folder = Folder::new()?;
        let start = |server: &Settings| {
            let server = server.clone().env("TLSRESUME_RESUMPTION_MODE", stored);
            server.env("TLSRESUME_MEMORY_PATH", folder.file("memory")).start()
        };
        let [one, other] = [start(&servers[0])?, start(&servers[1])?];
        for (from, to) in [(&one, &other), (&other, &one)] {
            for mode in Mode::ALL {
                let visitor = OpenSsl::new().first_visit(from.address(), mode)?;
                assert!(visitor.first().refused(), "{stored} {mode}: {:?}", visitor.first());
                let back = Box::new(visitor).come_back(to.address())?;
                assert!(back.resumed(), "{stored} {mode}: {back:?}\n{}", to.log());
            }
        }
    }
    Ok(())
}

#[test]
fn two_rust_servers_resume_each_others_sessions() -> Result<()> {
    resume_each_others_sessions([in_rust()?, in_rust()?])
}

#[test]
fn a_rust_server_and_a_c_server_resume_each_others_sessions() -> Result<()> {
    // OpenSSL refuses sessions of another id context, and the Rust server has none.
    let in_c = Server::example()?.arg("--no-session-id-context");
    resume_each_others_sessions([in_rust()?, in_c])
}

#[test]
fn a_configuration_with_a_mistake_ends_a_rust_server_with_the_reason() -> Result<()> {
    let (status, said) = in_rust()?.env("TLSRESUME_KEYS_ROTATE", "soon").start_in_vain()?;
    assert!(!status.success() && said.contains("TLSRESUME_KEYS_ROTATE"), "{said}");
    Ok(())
}
