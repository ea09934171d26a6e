//! A client of Redis that knows the protocol and nothing else.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::error::Doing;
use crate::{Error, Result};

const DOING: &str = "asking redis-server";

/// One connection to a Redis server.
#[derive(Debug)]
pub struct RespClient(BufReader<Box<dyn Stream>>);

/// What Redis answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A word such as `OK`.
    Status(String),
    /// A refusal, with its reason.
    Error(String),
    /// A number.
    Number(i64),
    /// A value.
    Bytes(Vec<u8>),
    /// There is none.
    Nil,
    /// Several.
    List(Vec<Reply>),
}

trait Stream: Read + Write + Send + Sync + fmt::Debug {}

impl Stream for TcpStream {}
impl Stream for UnixStream {}

impl RespClient {
    /// Connects to a port; an answer that takes longer than `limit` is an error.
    pub fn connect(address: SocketAddr, limit: Duration) -> Result<RespClient> {
        let stream = TcpStream::connect_timeout(&address, limit).doing(DOING)?;
        stream.set_read_timeout(Some(limit)).doing(DOING)?;
        stream.set_nodelay(true).doing(DOING)?;
        Ok(RespClient(BufReader::new(Box::new(stream))))
    }

    /// Connects to a Unix socket.
    pub fn connect_unix(path: &Path, limit: Duration) -> Result<RespClient> {
        let stream = UnixStream::connect(path).doing(DOING)?;
        stream.set_read_timeout(Some(limit)).doing(DOING)?;
        Ok(RespClient(BufReader::new(Box::new(stream))))
    }

    /// The answer to a command; a refusal is an error.
    pub fn ask<T: AsRef<[u8]>>(&mut self, command: &[T]) -> Result<Reply> {
        match self.send(command).and_then(|()| self.read()).doing(DOING)? {
            Reply::Error(reason) => Err(Error::Unexpected {
                program: "redis-server".into(),
                reason,
                log: String::new(),
            }),
            reply => Ok(reply),
        }
    }

    /// The same as text.
    pub fn command(&mut self, command: &[&str]) -> Result<String> {
        self.ask(command).map(|reply| reply.to_string())
    }

    /// What it says without being asked, as to a monitor.
    pub(super) fn hear(&mut self) -> Result<Reply> {
        self.read().doing("listening to redis-server")
    }

    fn send<T: AsRef<[u8]>>(&mut self, command: &[T]) -> io::Result<()> {
        let mut request = format!("*{}\r\n", command.len()).into_bytes();
        for word in command.iter().map(AsRef::as_ref) {
            request.extend(format!("${}\r\n", word.len()).as_bytes());
            request.extend(word);
            request.extend(b"\r\n");
        }
        self.0.get_mut().write_all(&request)
    }

    fn read(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let text = line.strip_suffix("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let (kind, text) = text.split_at_checked(1).ok_or_else(|| unknown(&line))?;
        let number = || text.parse::<i64>().map_err(io::Error::other);
        match kind {
            "+" => Ok(Reply::Status(text.into())),
            "-" => Ok(Reply::Error(text.into())),
            ":" => Ok(Reply::Number(number()?)),
            "$" => self.read_bytes(number()?),
            "*" => self.read_list(number()?),
            _ => Err(unknown(&line)),
        }
    }

    fn read_bytes(&mut self, len: i64) -> io::Result<Reply> {
        let Ok(len) = usize::try_from(len) else { return Ok(Reply::Nil) };
        let mut bytes = vec![0; len + 2];
        self.0.read_exact(&mut bytes)?;
        bytes.truncate(len);
        Ok(Reply::Bytes(bytes))
    }

    fn read_list(&mut self, len: i64) -> io::Result<Reply> {
        match len {
            0.. => (0..len).map(|_| self.read()).collect::<io::Result<_>>().map(Reply::List),
            _ => Ok(Reply::Nil),
        }
    }
}

impl Reply {
    /// The bytes of a value.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Reply::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The elements of a list; anything else has none.
    pub fn list(&self) -> &[Reply] {
        match self {
            Reply::List(all) => all,
            _ => &[],
        }
    }
}

impl fmt::Display for Reply {
    /// As `redis-cli` prints it where nobody looks: lists one element a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Status(text) | Reply::Error(text) => f.write_str(text),
            Reply::Number(number) => write!(f, "{number}"),
            Reply::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Reply::Nil => f.write_str("(nil)"),
            Reply::List(all) => {
                let lines: Vec<_> = all.iter().map(Reply::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}

fn unknown(line: &str) -> io::Error {
    io::Error::other(format!("{line:?} is no answer of Redis"))
}
