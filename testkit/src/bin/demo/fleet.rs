//! The servers of one half of the demo.

use std::net::SocketAddr;

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::{DEADLINE, Folder, Result, Server, wait_until};

use crate::interrupt::{self, Outcome};

const WORKERS: u32 = 2;

/// Two servers, which with the library share one memory path.
pub(crate) struct Fleet {
    servers: [Server; 2],
    memory: Option<Folder>,
}

impl Fleet {
    pub(crate) fn start(with_library: bool) -> Result<Fleet> {
        let memory = with_library.then(Folder::in_memory).transpose()?;
        let servers = [start_server("a", memory.as_ref())?, start_server("b", memory.as_ref())?];
        Ok(Fleet { servers, memory })
    }

    pub(crate) fn has_library(&self) -> bool {
        self.memory.is_some()
    }

    /// What the servers have printed since their last start.
    pub(crate) fn log(&self) -> String {
        self.servers.each_ref().map(Server::log).concat()
    }

    /// One address for each server. They stay the same.
    pub(crate) fn addresses(&self) -> [SocketAddr; 2] {
        [self.servers[0].address(), self.servers[1].address()]
    }

    /// Waits until new tickets are encrypted with another key. Plain OpenSSL keeps its key for
    /// as long as the process lives.
    pub(crate) fn await_rotation(&self) -> Outcome<()> {
        if !self.has_library() {
            return Ok(());
        }
        let client = OpenSsl::new();
        let [address, _] = self.addresses();
        let old_key = client.ticket_key_name(address)?;
        wait_until("another ticket key", DEADLINE, || {
            interrupt::check().is_err()
                || client.ticket_key_name(address).is_ok_and(|key| key.is_some() && key != old_key)
        })?;
        interrupt::check()
    }

    /// Kills every worker with SIGKILL and waits for the new ones.
    pub(crate) fn kill_workers(&mut self) -> Result<()> {
        self.servers
            .iter_mut()
            .try_for_each(|server| (0..WORKERS).try_for_each(|worker| server.kill_worker(worker)))
    }

    /// Stops both servers before the first of them starts again: nothing lives on in a process.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.servers.iter_mut().try_for_each(Server::stop)?;
        self.servers.iter_mut().try_for_each(Server::restart)
    }
}

fn start_server(name: &str, memory: Option<&Folder>) -> Result<Server> {
    let settings = Server::example()?.args(["--name", name, "--workers", &WORKERS.to_string()]);
    let settings = match memory {
        None => settings.arg("--plain"),
        Some(folder) => settings
            .env("TLSRESUME_MEMORY_PATH", folder.file("sessions"))
            .env("TLSRESUME_KEYS_ROTATE", "3s")
            .env("TLSRESUME_KEYS_ACTIVATION_DELAY", "1s")
            .env("TLSRESUME_RESUMPTION_LIFETIME", "5m"),
    };
    settings.start()
}
