//! One connection to one server: whatever comes over it, or does not come, an exchange ends at its deadline.
//!
//! Owns: the socket, TLS on it, the parser with what it has read, and whether there was a notice. Called by: `link.rs`
//! and `cluster.rs`, by `dial.rs` to make it. Threads: one. Forks: a child that drops what it inherited closes its own
//! descriptor and says nothing to the server. Failure: after an error other than a wait that was over, the connection
//! is of no more use.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Parser, PushKind, RedisResult, Value};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};
use zeroize::Zeroizing;

use super::{Failure, refused};
use crate::secret::Secret;
use crate::{clock, sys};

/// Most bytes that are read in one exchange: several times what the largest batch of ours is answered with. Where that
/// is not enough for a part of the stream, `news.rs` asks for a smaller one.
const MOST_BYTES: usize = 8 << 20;

/// Most lines among them. No value is without one, and each takes far more memory than its three bytes.
pub(super) const MOST_LINES: usize = 1 << 17;

/// A connection that nobody uses is one that every router between may forget.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How soon a Unix socket whose queue is full is tried again: nothing tells when there is a place in it.
const QUEUE_RETRY: Duration = Duration::from_millis(1);

/// Who we are, and what we want.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) database: i64,
}

/// A connection to a server.
pub(super) struct Connection {
    stream: Stream,
    /// Keeps what it has read of a value that is not whole yet.
    parser: Parser,
    room: Room,
    /// Answers that have come, of those that are fetched next.
    come: Vec<Value>,
    /// There was a notice.
    told: bool,
}

enum Stream {
    Plain(Timed),
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

/// A socket on which nothing takes longer than until its deadline, however small the parts in which it happens. It
/// never blocks, for the system counts the time limits of a socket in ticks of up to 10 ms: more than a handshake may
/// have.
struct Timed {
    socket: Socket,
    deadline: Duration,
    /// Once the time is over, what is there already is still read.
    may_look: bool,
}

/// What may still be read.
struct Room {
    bytes: usize,
    lines: usize,
}

/// What is read, as long as there is room.
struct Bounded<'a> {
    stream: &'a mut Stream,
    room: &'a mut Room,
}

impl Connection {
    /// Connects, with TLS if there is a configuration for it, under the name that the certificate must have. All of it
    /// ends at `deadline`.
    pub(super) fn open(
        address: &SockAddr,
        tls: Option<(&str, &Arc<ClientConfig>)>,
        deadline: Duration,
    ) -> Result<Self, Failure> {
        let mut timed = Timed::connect(address, deadline)?;
        let stream = match tls {
            None => Stream::Plain(timed),
            Some((host, config)) => {
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                let client = ClientConnection::new(Arc::clone(config), name);
                let mut client = client.map_err(io::Error::other)?;
                client.complete_io(&mut timed)?;
                Stream::Tls(Box::new(StreamOwned::new(client, timed)))
            }
        };
        let room = Room::default();
        Ok(Connection { stream, parser: Parser::new(), room, come: Vec::new(), told: false })
    }

    /// Only in this version of the protocol news come on the connection that commands go over.
    pub(super) fn log_in(&mut self, login: &Login, deadline: Duration) -> Result<(), Failure> {
        let database = login.database.to_string();
        let mut hello = vec![&b"HELLO"[..], b"3"];
        if let Some(password) = &login.password {
            let user = login.user.as_deref().unwrap_or("default");
            hello.extend([b"AUTH", user.as_bytes(), password.expose()]);
        }
        let select = [&b"SELECT"[..], database.as_bytes()];
        let all = [&hello[..], &select];
        let commands = if login.database == 0 { &all[..1] } else { &all[..] };
        for answer in self.round(&packed(commands), commands.len(), deadline)? {
            if let Value::ServerError(error) = answer {
                return Err(Failure::Lost(refused(&error).to_string()));
            }
        }
        Ok(())
    }

    /// Sends all commands, then reads all answers, errors among them.
    pub(super) fn exchange<'a>(
        &mut self,
        commands: impl IntoIterator<Item = &'a Cmd>,
        deadline: Duration,
    ) -> Result<Vec<Value>, Failure> {
        let (packed, count) = together(commands);
        self.round(&packed, count, deadline)
    }

    /// Sends all commands; while answers to others are under way too, [`Connection::fetch`] tells them apart by their
    /// number.
    pub(super) fn begin<'a>(
        &mut self,
        commands: impl IntoIterator<Item = &'a Cmd>,
        deadline: Duration,
    ) -> Result<(), Failure> {
        self.write(&together(commands).0, deadline)
    }

    /// The next `count` answers, errors among them, waited for until then; `None` when some have not come by then. What
    /// is there when this is called is there in time, however late it is called.
    pub(super) fn fetch(
        &mut self,
        count: usize,
        until: Duration,
    ) -> Result<Option<Vec<Value>>, Failure> {
        let timed = self.stream.timed();
        (timed.deadline, timed.may_look) = (until, true);
        while self.come.len() < count {
            match self.read() {
                Ok(Value::Push { .. }) => {}
                Ok(answer) => self.come.push(answer),
                Err(error) if error.is_timeout() => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        self.room = Room::default();
        Ok(Some(std::mem::take(&mut self.come)))
    }

    fn round(
        &mut self,
        packed: &[u8],
        count: usize,
        deadline: Duration,
    ) -> Result<Vec<Value>, Failure> {
        self.send(packed, deadline)?;
        let answers = self.fetch(count, deadline)?;
        answers.ok_or_else(|| out_of_time().into())
    }

    /// Asks to be told of what is published there; whether that is granted.
    pub(super) fn subscribe(&mut self, channel: &str, deadline: Duration) -> Result<bool, Failure> {
        self.send(&packed(&[&[b"SUBSCRIBE", channel.as_bytes()]]), deadline)?;
        loop {
            match self.read()? {
                Value::Push { kind: PushKind::Subscribe, .. } => return Ok(true),
                Value::Push { .. } => {}
                Value::ServerError(_) => return Ok(false),
                _ => return Err(Failure::garbage("SUBSCRIBE")),
            }
        }
    }

    /// Waits for a notice; `false` when there was none for so long. What has come of one by then is not lost.
    pub(super) fn wait(&mut self, longest: Duration) -> Result<bool, Failure> {
        self.stream.timed().deadline = clock::since_boot() + longest;
        while !self.told {
            match self.read() {
                // Whoever waits again and again reads no more of one value than in an exchange.
                Ok(Value::Push { .. }) => self.room = Room::default(),
                Ok(_) => return Err(Failure::Lost("answers what was not asked".into())),
                Err(error) if error.is_timeout() => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.was_told())
    }

    /// Whether there was a notice since this was asked last.
    pub(super) fn was_told(&mut self) -> bool {
        std::mem::take(&mut self.told)
    }

    /// Begins an exchange.
    fn send(&mut self, packed: &[u8], deadline: Duration) -> Result<(), Failure> {
        self.room = Room::default();
        self.write(packed, deadline)
    }

    fn write(&mut self, packed: &[u8], deadline: Duration) -> Result<(), Failure> {
        self.stream.timed().deadline = deadline;
        match &mut self.stream {
            Stream::Plain(timed) => timed.write_all(packed)?,
            Stream::Tls(tls) => tls.write_all(packed).and_then(|()| tls.flush())?,
        }
        Ok(())
    }

    fn read(&mut self) -> RedisResult<Value> {
        let Connection { stream, parser, room, told, .. } = self;
        let value = parser.parse_value(Bounded { stream, room })?;
        *told |= matches!(value, Value::Push { kind: PushKind::Message, .. });
        Ok(value)
    }
}

impl Stream {
    fn timed(&mut self) -> &mut Timed {
        match self {
            Stream::Plain(timed) => timed,
            Stream::Tls(tls) => &mut tls.sock,
        }
    }
}

impl Timed {
    fn connect(address: &SockAddr, deadline: Duration) -> io::Result<Self> {
        let socket = Socket::new(address.domain(), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let timed = Timed { socket, deadline, may_look: false };
        // Asked once more, connect(2) tells what became of it.
        let attempt = |socket: &Socket| socket.connect(address);
        if address.domain() == Domain::UNIX {
            timed.retry(attempt, |_, left| {
                sys::pause(left.min(QUEUE_RETRY));
                Ok(())
            })?;
        } else {
            timed.socket.set_tcp_nodelay(true)?;
            timed.socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
            timed.retry(attempt, sys::await_writable)?;
        }
        Ok(timed)
    }

    /// Attempts something until it need not be waited for.
    fn retry<T>(
        &self,
        mut attempt: impl FnMut(&Socket) -> io::Result<T>,
        wait: impl Fn(&Socket, Duration) -> io::Result<()>,
    ) -> io::Result<T> {
        loop {
            let left = left(self.deadline)?;
            match attempt(&self.socket) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_under_way(&error) => wait(&self.socket, left)?,
                done => return done,
            }
        }
    }
}

fn is_under_way(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
        || matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EALREADY))
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.retry(|mut socket| socket.read(buffer), sys::await_readable) {
            // This thread may have had no processor for so long: that the time is over says nothing of the server. Once
            // only, else a server that goes on and on would never be late.
            Err(late) if is_timeout(&late) && std::mem::take(&mut self.may_look) => {
                match (&self.socket).read(buffer) {
                    Err(error) if is_under_way(&error) => Err(late),
                    looked => looked,
                }
            }
            read => read,
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A server that is gone must not end this process by a signal.
        let attempt = |socket: &Socket| socket.send_with_flags(bytes, libc::MSG_NOSIGNAL);
        self.retry(attempt, sys::await_writable)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Default for Room {
    fn default() -> Self {
        Room { bytes: MOST_BYTES, lines: MOST_LINES }
    }
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.stream {
            Stream::Plain(timed) => timed.read(buffer)?,
            Stream::Tls(tls) => tls.read(buffer)?,
        };
        let lines = buffer[..count].iter().filter(|byte| **byte == b'\n').count();
        match (self.room.bytes.checked_sub(count), self.room.lines.checked_sub(lines)) {
            (Some(bytes), Some(lines)) => *self.room = Room { bytes, lines },
            _ => return Err(io::Error::other("answers with more than was asked for")),
        }
        Ok(count)
    }
}

fn is_timeout(error: &io::Error) -> bool {
    error.kind() == ErrorKind::TimedOut
}

/// As they are sent, and how many they are.
fn together<'a>(commands: impl IntoIterator<Item = &'a Cmd>) -> (Vec<u8>, usize) {
    let (mut packed, mut count) = (Vec::new(), 0);
    for command in commands {
        command.write_packed_command(&mut packed);
        count += 1;
    }
    (packed, count)
}

/// As they are sent; wiped, for a password may be among the words.
fn packed(commands: &[&[&[u8]]]) -> Zeroizing<Vec<u8>> {
    /// More than a number of 64 bits and what stands around it.
    const FRAME: usize = 32;
    let words = commands.iter().flat_map(|words| words.iter());
    let size: usize = words.map(|word| word.len() + FRAME).sum();
    // It does not grow: what it grew out of would not be wiped.
    let mut packed = Zeroizing::new(Vec::with_capacity(size + commands.len() * FRAME));
    for words in commands {
        packed.extend(format!("*{}\r\n", words.len()).into_bytes());
        for word in *words {
            packed.extend(format!("${}\r\n", word.len()).into_bytes());
            packed.extend_from_slice(word);
            packed.extend_from_slice(b"\r\n");
        }
    }
    packed
}

/// What is left until then; an error when nothing is.
pub(super) fn left(deadline: Duration) -> io::Result<Duration> {
    clock::until(deadline).ok_or_else(out_of_time)
}

fn out_of_time() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "no answer in time")
}
