//! `agent`: what talks to transports, as a process of its own for service managers.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tlsresume::engine::Engine;

use crate::output::{Exit, Failure, Output, complain};

pub(crate) fn agent(engine: &Engine, out: Output) -> Result<Exit, Failure> {
    let stop = stop_on_signals()?;
    let config = engine.config();
    let path = config.memory.path.as_deref().unwrap_or(Path::new(""));
    out.print(
        || json!({ "agent": "serving", "realm": config.realm, "memory": path }),
        || format!("agent: serving realm {} at {}", config.realm, path.display()),
    )?;
    notify_ready();
    engine.serve_agent(&stop);
    Ok(Exit::Done)
}

/// What becomes true at the first SIGTERM or SIGINT. The second one ends the process at once: nothing that an agent
/// leaves behind needs to be put in order.
fn stop_on_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag still false.
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Tells a service manager that waits for it (sd_notify(3)).
fn notify_ready() {
    if let Some(socket) = env::var_os("NOTIFY_SOCKET")
        && let Err(error) = notify(&socket, b"READY=1\n")
    {
        complain(&format_args!(
            "NOTIFY_SOCKET: {error}; the service manager does not know that this is ready"
        ));
    }
}

/// A name that starts with @ is one of no file system.
fn notify(socket: &OsStr, message: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message, &address).map(drop)
}
