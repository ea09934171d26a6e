//! A TCP forwarder whose connections go where the test says, one by one.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::Result;
use crate::error::Doing;

/// Accepts on a port of its own; each connection waits until [`send_next_to`] says where it goes.
/// For clients that return by themselves, always to the same address.
///
/// [`send_next_to`]: Forwarder::send_next_to
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    targets: Option<Sender<SocketAddr>>,
    arrivals: Arc<AtomicUsize>,
}

impl Forwarder {
    /// Starts one.
    pub fn start() -> Result<Forwarder> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing("listening for a forwarder")?;
        let address = listener.local_addr().doing("listening for a forwarder")?;
        let (targets, next_target) = channel();
        let arrivals = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&arrivals);
        thread::Builder::new()
            .name("forwarder".into())
            .spawn(move || run(&listener, &next_target, &counter))
            .doing("starting a thread")?;
        Ok(Forwarder { address, targets: Some(targets), arrivals })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends the next connection, which may be waiting already, to `target`.
    pub fn send_next_to(&self, target: SocketAddr) {
        if let Some(targets) = &self.targets {
            targets.send(target).expect("the thread receives until the sender is gone");
        }
    }

    /// How many connections have come. One comes after both sides have closed the one before.
    pub fn arrivals(&self) -> usize {
        self.arrivals.load(Ordering::Acquire)
    }
}

impl Drop for Forwarder {
    /// The thread is not waited for: it ends once a connection that it still forwards has ended.
    fn drop(&mut self) {
        self.targets = None;
        // Wakes the thread if it accepts; if that fails, it has ended already.
        let _ = TcpStream::connect(self.address);
    }
}

/// Until nobody can name another target.
fn run(listener: &TcpListener, next_target: &Receiver<SocketAddr>, arrivals: &AtomicUsize) {
    for client in listener.incoming() {
        arrivals.fetch_add(1, Ordering::Release);
        let Ok(target) = next_target.recv() else {
            return;
        };
        // What goes wrong between the two is theirs to notice: they see a closed connection.
        let _ = client.and_then(|client| forward(&client, &TcpStream::connect(target)?));
    }
}

/// Copies in both directions until both have ended.
fn forward(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    thread::scope(|scope| {
        let requests = scope.spawn(|| copy(client, server));
        let responses = copy(server, client);
        requests.join().expect("copying does not panic").and(responses)
    })
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to);
    // The end of one direction is data too; a peer that is gone needs none.
    let _ = to.shutdown(Shutdown::Write);
    copied.map(drop)
}
