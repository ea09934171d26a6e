//! The Redis or memcached that servers keep sessions in, behind a middleman that can make it slow.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tlsresume_testkit::installed::is_root;
use tlsresume_testkit::net::ReservedPort;
use tlsresume_testkit::{Behaviour, Middleman, Process, RedisServer, wait_until};

use crate::support::Outcome;
use crate::{LATE, Phase};

const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Redis,
    Memcached,
}

/// One of them, or none; ended when dropped.
pub(crate) struct Cache {
    backend: Backend,
    /// Where servers find it, whether somebody listens there or not.
    port: ReservedPort,
    middleman: Option<Middleman>,
}

enum Backend {
    None,
    Redis(Box<RedisServer>),
    Memcached { port: ReservedPort, process: Process },
}

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Program::Redis => "Redis",
            Program::Memcached => "memcached",
        }
    }
}

impl Cache {
    pub(crate) fn start(program: Option<Program>) -> Outcome<Cache> {
        let backend = match program {
            None => Backend::None,
            Some(Program::Redis) => Backend::Redis(Box::new(RedisServer::start()?)),
            Some(Program::Memcached) => {
                let port = ReservedPort::new()?;
                let process = start_memcached(&port)?;
                Backend::Memcached { port, process }
            }
        };
        let mut cache = Cache { backend, port: ReservedPort::new()?, middleman: None };
        cache.put_middleman()?;
        Ok(cache)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Has what this phase is about happen.
    pub(crate) fn enter(&mut self, phase: Phase) -> Outcome<()> {
        match phase {
            Phase::Healthy => {
                self.behave(Behaviour::Pass);
                self.backend.signal(libc::SIGCONT)?;
            }
            Phase::Stopped => self.backend.signal(libc::SIGSTOP)?,
            Phase::Late => self.behave(Behaviour::Delay(LATE)),
            Phase::Killed => {
                self.backend.kill()?;
                // Nobody listens where servers look for it.
                self.middleman = None;
            }
            Phase::Again => {
                self.backend.restart()?;
                self.put_middleman()?;
            }
        }
        Ok(())
    }

    fn behave(&self, behaviour: Behaviour) {
        if let Some(middleman) = &self.middleman {
            middleman.behave(behaviour);
        }
    }

    fn put_middleman(&mut self) -> Outcome<()> {
        if let Some(target) = self.backend.address() {
            self.middleman = Some(Middleman::start_at(self.port.address(), target)?);
        }
        Ok(())
    }
}

impl Backend {
    fn address(&self) -> Option<SocketAddr> {
        match self {
            Backend::None => None,
            Backend::Redis(server) => Some(server.address()),
            Backend::Memcached { port, .. } => Some(port.address()),
        }
    }

    /// SIGSTOP or SIGCONT.
    fn signal(&mut self, signal: libc::c_int) -> Outcome<()> {
        match self {
            Backend::None => {}
            Backend::Redis(server) if signal == libc::SIGSTOP => server.stop()?,
            Backend::Redis(server) => server.cont()?,
            Backend::Memcached { process, .. } => process.signal(signal)?,
        }
        Ok(())
    }

    fn kill(&mut self) -> Outcome<()> {
        match self {
            Backend::None => {}
            Backend::Redis(server) => server.kill()?,
            Backend::Memcached { process, .. } => process.kill()?,
        }
        Ok(())
    }

    fn restart(&mut self) -> Outcome<()> {
        match self {
            Backend::None => {}
            Backend::Redis(server) => server.restart_empty()?,
            Backend::Memcached { port, process } => *process = start_memcached(port)?,
        }
        Ok(())
    }
}

impl Drop for Backend {
    /// A process that is stopped hears nothing but this.
    fn drop(&mut self) {
        if let Backend::Memcached { process, .. } = self {
            // What cannot be killed has ended.
            let _ = process.kill();
        }
    }
}

fn start_memcached(port: &ReservedPort) -> Outcome<Process> {
    let mut command = Command::new("memcached");
    command.args(["-l", "127.0.0.1", "-U", "0", "-p", &port.number().to_string()]);
    if is_root() {
        command.args(["-u", "nobody"]);
    }
    let process = Process::start(command, "memcached")?;
    let accepts = || std::net::TcpStream::connect_timeout(&port.address(), LIMIT).is_ok();
    wait_until("memcached", LIMIT, || process.has_ended() || accepts())?;
    if process.has_ended() {
        return Err(process.unexpected("ended").into());
    }
    Ok(process)
}
