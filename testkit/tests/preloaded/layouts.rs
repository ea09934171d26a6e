//! Two real servers share one path, and the second finds there a file of another release.

use std::fs::File;
use std::hash::Hasher;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use siphasher::sip::SipHasher13;
use tlsresume_testkit::installed::{Call, Installed, Program, Session, Visits, preload_library};
use tlsresume_testkit::{DEADLINE, Folder, Mode, Result, wait_until};

/// Gives the memory file the layout version after ours, with a header that is whole (docs/shm-format.md).
fn forge_next_layout(path: &Path) {
    let file = File::options().read(true).write(true).open(path).expect("a server made it");
    let mut fixed = [0; 64];
    file.read_exact_at(&mut fixed, 0).expect("a header");
    fixed[8] += 1;
    let mut check = SipHasher13::new();
    check.write(&fixed);
    file.write_all_at(&fixed, 0).expect("writable");
    file.write_all_at(&check.finish().to_le_bytes(), 64).expect("writable");
}

fn start(memory: &Path) -> Result<Installed> {
    Program::Nginx
        .settings()
        .workers(1)
        .preload(preload_library()?)
        .env("TLSRESUME_MEMORY_PATH", memory)
        .start()
}

struct Visitor(Visits);

impl Visitor {
    fn visit(
        &mut self,
        server: &Installed,
        mode: Mode,
        session: Option<Session>,
    ) -> Result<(bool, Option<Session>)> {
        let visit = self.0.connect(&Call::to(server.address(), mode).with(session))?;
        self.0.close()?;
        Ok((visit.reused, visit.session))
    }

    fn ticket(&mut self, server: &Installed, mode: Mode) -> Result<Option<Session>> {
        let (_, ticket) = self.visit(server, mode, None)?;
        assert!(ticket.is_some(), "{mode}: a ticket\n{}", server.log());
        Ok(ticket)
    }
}

fn revoke_all(memory: &Path) -> Result<()> {
    let output = Command::new(preload_library()?.with_file_name("tlsresumectl"))
        .args(["keys", "revoke", "--all"])
        .env("TLSRESUME_MEMORY_PATH", memory)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "the old server is to be restarted: {said}");
    assert!(said.contains("restart"), "{said}");
    Ok(())
}

#[test]
fn between_servers_of_different_layouts_tickets_go_on_and_a_revocation_reaches_both() -> Result<()>
{
    let folder = Folder::in_memory()?;
    let memory = folder.file("sessions");
    let mut visitor = Visitor(Visits::start()?);

    let old = start(&memory)?;
    let modes = [Mode::Tls12Ticket, Mode::Tls13];
    let before =
        modes.map(|mode| visitor.ticket(&old, mode)).into_iter().collect::<Result<Vec<_>>>()?;
    forge_next_layout(&memory);
    let new = start(&memory)?;

    for (mode, ticket) in modes.into_iter().zip(before) {
        let (reused, _) = visitor.visit(&new, mode, ticket)?;
        assert!(reused, "{mode}: of the old server, at the new\n{}", new.log());
        let of_new = visitor.ticket(&new, mode)?;
        let (reused, _) = visitor.visit(&old, mode, of_new)?;
        assert!(reused, "{mode}: of the new server, at the old\n{}", old.log());
    }
    wait_until("the old server's log says what to do", DEADLINE, || {
        old.log().contains("restart this server")
    })?;

    let revoked = [
        (Mode::Tls12Ticket, visitor.ticket(&old, Mode::Tls12Ticket)?),
        (Mode::Tls13, visitor.ticket(&new, Mode::Tls13)?),
    ];
    revoke_all(&memory)?;
    for (mode, ticket) in revoked {
        for server in [&old, &new] {
            let (reused, _) = visitor.visit(server, mode, ticket)?;
            assert!(!reused, "{mode}: revoked\n{}", server.log());
        }
    }
    Ok(())
}
