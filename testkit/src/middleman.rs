//! A TCP proxy that stands between nodes and a server, and behaves as the test says: also on
//! connections that are open already.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::Doing;
use crate::net::set_option;
use crate::{Random, Result};

/// How long a target may take that is stopped and has many waiting.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What a [`Middleman`] does with what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Nothing.
    Pass,
    /// Holds back each piece of a reply for a time, one after the other.
    Delay(Duration),
    /// Each piece of a reply comes so much later, as from a server that is far away.
    Far(Duration),
    /// Replies become random bytes, as many as there were.
    Garbage,
    /// A connection is reset (RST) as soon as its client says something.
    Reset,
    /// Everything is swallowed. A connection that has lost something stays silent for good: bytes
    /// never get lost in the middle of one.
    BlackHole,
    /// Connections are closed at once, those that are open included.
    Refuse,
    /// Replies come one byte at a time, with this pause after each.
    Trickle(Duration),
}

/// A proxy on a port of its own. All its threads end when it is dropped.
#[derive(Debug)]
pub struct Middleman {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    random: Mutex<Random>,
}

#[derive(Debug)]
struct State {
    behaviour: Behaviour,
    over: bool,
    is_recording: bool,
    accepted: usize,
    open: BTreeMap<usize, Arc<Connection>>,
    captured: BTreeMap<(usize, Direction), Vec<u8>>,
}

/// What the server has said, and when.
type Piece = (Instant, Vec<u8>);

/// One client with its connection to the target.
#[derive(Debug)]
struct Connection {
    number: usize,
    client: TcpStream,
    server: TcpStream,
    /// Something was swallowed.
    is_silent: AtomicBool,
    /// It ends with RST: no FIN may be sent before.
    is_reset: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    Request,
    Reply,
}

impl Middleman {
    /// Starts one in front of `target`; everything passes.
    pub fn start(target: SocketAddr) -> Result<Middleman> {
        Middleman::start_at((Ipv4Addr::LOCALHOST, 0).into(), target)
    }

    /// The same at an address that was [reserved](crate::net::ReservedPort): when it is dropped, nobody
    /// listens there until another one is started.
    pub fn start_at(address: SocketAddr, target: SocketAddr) -> Result<Middleman> {
        let doing = "listening for a middleman";
        let listener = TcpListener::bind(address).doing(doing)?;
        let address = listener.local_addr().doing(doing)?;
        let shared = Arc::new(Shared::new(target));
        let ours = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("middleman".into())
            .spawn(move || ours.accept(&listener))
            .doing("starting a thread")?;
        Ok(Middleman { address, shared, acceptor: Some(acceptor) })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `url`, such as that of the server behind it, with this address in the place of the server's.
    pub fn url(&self, url: &str) -> String {
        url.replace(&self.shared.target.to_string(), &self.address.to_string())
    }

    /// From now on it behaves like this. What is being held back is let go.
    pub fn behave(&self, behaviour: Behaviour) {
        let mut state = self.shared.lock();
        state.behaviour = behaviour;
        if behaviour == Behaviour::Refuse {
            state.open.values().for_each(|connection| connection.close());
        }
        self.shared.changed.notify_all();
    }

    /// Records what passes from now on.
    pub fn record(&self) {
        self.shared.lock().is_recording = true;
    }

    /// What clients and server have said since [`record`](Middleman::record): one direction of one
    /// connection after the other.
    pub fn captured(&self) -> Vec<u8> {
        self.shared.lock().captured.values().flatten().copied().collect()
    }

    /// How many connections have come.
    pub fn arrivals(&self) -> usize {
        self.shared.lock().accepted
    }

    /// How many of them are open.
    pub fn open_connections(&self) -> usize {
        self.shared.lock().open.len()
    }
}

impl Drop for Middleman {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.over = true;
            state.open.values().for_each(|connection| connection.close());
        }
        self.shared.changed.notify_all();
        // Wakes the thread if it accepts; if that fails, it has ended already.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            // One that panicked has said so.
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn new(target: SocketAddr) -> Shared {
        let state = State {
            behaviour: Behaviour::Pass,
            over: false,
            is_recording: false,
            accepted: 0,
            open: BTreeMap::new(),
            captured: BTreeMap::new(),
        };
        let (state, random) = (Mutex::new(state), Mutex::new(Random::new()));
        Shared { target, state, changed: Condvar::new(), random }
    }

    /// Until it is over, and all connections have ended.
    fn accept(&self, listener: &TcpListener) {
        thread::scope(|scope| {
            for client in listener.incoming() {
                let Some(number) = self.admit() else { return };
                let Ok(client) = client else { continue };
                let builder = thread::Builder::new().name("middleman".into());
                // Without a thread the connection is closed, which its client sees.
                let _ = builder.spawn_scoped(scope, move || self.serve(number, client));
            }
        });
    }

    /// The number of a new connection; none when it is over.
    fn admit(&self) -> Option<usize> {
        let mut state = self.lock();
        state.accepted += 1;
        (!state.over).then_some(state.accepted)
    }

    /// What cannot be forwarded is closed.
    fn serve(&self, number: usize, client: TcpStream) {
        if self.lock().behaviour == Behaviour::Refuse {
            return;
        }
        let Ok(connection) = Connection::new(number, client, self.target) else { return };
        let connection = Arc::new(connection);
        if !self.enter(&connection) {
            return;
        }
        let (said, pieces) = channel();
        let connection = &connection;
        thread::scope(|scope| {
            scope.spawn(|| self.copy_requests(connection));
            scope.spawn(move || self.pass_replies(connection, &pieces));
            self.read_replies(connection, &said);
            drop(said);
        });
        self.lock().open.remove(&number);
    }

    /// From here on others can close it; not if they would have done so before.
    fn enter(&self, connection: &Arc<Connection>) -> bool {
        let mut state = self.lock();
        let is_welcome = !state.over && state.behaviour != Behaviour::Refuse;
        if is_welcome {
            state.open.insert(connection.number, Arc::clone(connection));
        }
        is_welcome
    }

    /// Until the client ends its direction, or the connection ends.
    fn copy_requests(&self, connection: &Connection) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(len @ 1..) = (&connection.client).read(&mut buffer) {
            self.capture(connection, Direction::Request, &buffer[..len]);
            if self.request(connection, &buffer[..len]).is_err() {
                return connection.end();
            }
        }
        connection.end_of(&connection.server);
    }

    fn read_replies(&self, connection: &Connection, said: &Sender<Piece>) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(len @ 1..) = (&connection.server).read(&mut buffer) {
            let piece = buffer[..len].to_vec();
            self.capture(connection, Direction::Reply, &piece);
            if said.send((Instant::now(), piece)).is_err() {
                return;
            }
        }
    }

    fn pass_replies(&self, connection: &Connection, pieces: &Receiver<Piece>) {
        while let Ok((came, mut piece)) = pieces.recv() {
            let is_far = matches!(self.lock().behaviour, Behaviour::Far(_));
            // What came while another was held back is one piece with the next.
            while !is_far && let Ok((_, more)) = pieces.try_recv() {
                piece.extend(more);
            }
            if self.reply(connection, came, &mut piece).is_err() {
                return connection.end();
            }
        }
        connection.end_of(&connection.client);
    }

    fn request(&self, connection: &Connection, bytes: &[u8]) -> io::Result<()> {
        match self.lock().behaviour {
            Behaviour::Reset => return connection.reset(),
            Behaviour::BlackHole => connection.is_silent.store(true, Ordering::Release),
            _ => {}
        }
        if connection.is_silent.load(Ordering::Acquire) {
            return Ok(());
        }
        (&connection.server).write_all(bytes)
    }

    fn reply(&self, connection: &Connection, came: Instant, bytes: &mut [u8]) -> io::Result<()> {
        let behaviour = self.lock().behaviour;
        match behaviour {
            Behaviour::Delay(time) => self.hold(behaviour, Instant::now() + time),
            Behaviour::Far(time) => self.hold(behaviour, came + time),
            Behaviour::Garbage => self.scramble(bytes),
            Behaviour::BlackHole => connection.is_silent.store(true, Ordering::Release),
            Behaviour::Trickle(pause) => return self.trickle(connection, bytes, pause),
            Behaviour::Pass | Behaviour::Reset | Behaviour::Refuse => {}
        }
        if connection.is_silent.load(Ordering::Acquire) {
            return Ok(());
        }
        (&connection.client).write_all(bytes)
    }

    fn trickle(&self, connection: &Connection, bytes: &[u8], pause: Duration) -> io::Result<()> {
        bytes.iter().try_for_each(|byte| {
            (&connection.client).write_all(&[*byte])?;
            self.hold(Behaviour::Trickle(pause), Instant::now() + pause);
            Ok(())
        })
    }

    /// Waits until then, unless the behaviour changes meanwhile.
    fn hold(&self, behaviour: Behaviour, end: Instant) {
        let mut state = self.lock();
        while state.behaviour == behaviour && !state.over {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn scramble(&self, bytes: &mut [u8]) {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        for part in bytes.chunks_mut(8) {
            let number = random.number().to_le_bytes();
            part.copy_from_slice(&number[..part.len()]);
        }
    }

    fn capture(&self, connection: &Connection, direction: Direction, bytes: &[u8]) {
        let mut state = self.lock();
        if state.is_recording {
            let all = state.captured.entry((connection.number, direction)).or_default();
            all.extend_from_slice(bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn new(number: usize, client: TcpStream, target: SocketAddr) -> io::Result<Connection> {
        let server = TcpStream::connect_timeout(&target, CONNECT_LIMIT)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (is_silent, is_reset) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Connection { number, client, server, is_silent, is_reset })
    }

    /// One side has ended its direction.
    fn end_of(&self, other: &TcpStream) {
        if !self.is_reset.load(Ordering::Acquire) {
            // The end of one direction is data too; a peer that is gone needs none.
            let _ = other.shutdown(Shutdown::Write);
        }
    }

    /// Ends it for both sides; its threads notice, whatever they wait for.
    fn close(&self) {
        // They can only have ended already.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    /// The same, but leaves it to RST to tell the client.
    fn end(&self) {
        if self.is_reset.load(Ordering::Acquire) {
            let _ = self.server.shutdown(Shutdown::Both);
        } else {
            self.close();
        }
    }

    /// Has the client get RST once the threads have ended and the socket is closed.
    fn reset(&self) -> io::Result<()> {
        set_option(&self.client, libc::SO_LINGER, &libc::linger { l_onoff: 1, l_linger: 0 })?;
        self.is_reset.store(true, Ordering::Release);
        Err(io::ErrorKind::ConnectionReset.into())
    }
}
