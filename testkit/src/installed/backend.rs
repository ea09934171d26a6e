//! A server without TLS, for servers that only end TLS and forward.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::Result;
use crate::error::Doing;

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nbackend\n";

/// Answers each HTTP request with the same page, until dropped.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Backend {
    /// Starts one on a port of its own.
    pub fn start() -> Result<Backend> {
        let doing = "listening for a backend";
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing(doing)?;
        let address = listener.local_addr().doing(doing)?;
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        thread::Builder::new()
            .name("backend".into())
            .spawn(move || accept(&listener, &is_over))
            .doing("starting a thread")?;
        Ok(Backend { address, over })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the thread; if that fails, it has ended already.
        let _ = TcpStream::connect(self.address);
    }
}

/// Each connection has a thread, which ends with it.
fn accept(listener: &TcpListener, is_over: &AtomicBool) {
    for connection in listener.incoming() {
        if is_over.load(Ordering::Acquire) {
            return;
        }
        let Ok(connection) = connection else { continue };
        // Without a thread the connection is closed, which its client sees.
        let _ = thread::Builder::new().name("backend".into()).spawn(move || answer(&connection));
    }
}

fn answer(mut connection: &TcpStream) -> io::Result<()> {
    for line in BufReader::new(connection).split(b'\n') {
        if line? == b"\r" {
            connection.write_all(RESPONSE)?;
        }
    }
    Ok(())
}
