//! Python's `ssl` module, driven line by line: see `clients/python_client.py`.

use std::net::SocketAddr;
use std::process::Command;

use serde::Deserialize;
use serde_json::json;

use super::{Client, Connection, Mode, Visitor};
use crate::{DEADLINE, Process, Result};

const SCRIPT: &str = include_str!("../../clients/python_client.py");

/// The client.
#[derive(Debug, Clone, Copy)]
pub struct Python;

struct PythonVisitor {
    process: Process,
    first: Connection,
}

/// What the script answers.
#[derive(Debug, Deserialize)]
struct Reply {
    reused: bool,
    body: String,
}

impl Client for Python {
    fn name(&self) -> &'static str {
        "python"
    }

    fn visit(&self, at: SocketAddr, mode: Mode) -> Result<Box<dyn Visitor>> {
        let mut command = Command::new("python3");
        // -I: nothing but the standard library, whatever the user's environment says.
        command.args(["-I", "-c", SCRIPT, mode_argument(mode)]);
        let mut process = Process::start(command, "python3")?;
        let first = connect(&mut process, at, 1)?;
        Ok(Box::new(PythonVisitor { process, first }))
    }
}

impl Visitor for PythonVisitor {
    fn first(&self) -> &Connection {
        &self.first
    }

    fn come_back(mut self: Box<Self>, to: SocketAddr) -> Result<Connection> {
        connect(&mut self.process, to, 2)
    }
}

/// Has the script connect for the `nth` time; it offers the session that it got last.
fn connect(process: &mut Process, to: SocketAddr, nth: usize) -> Result<Connection> {
    let request = json!({ "host": to.ip().to_string(), "port": to.port() });
    process.write(&format!("{request}\n"))?;
    let line = process.wait_for("a connection", DEADLINE, |transcript| {
        transcript.stdout().nth(nth - 1).map(str::to_owned)
    })?;
    let reply: Reply = serde_json::from_str(&line)
        .map_err(|error| process.unexpected(format!("cannot talk to {to}: {error}")))?;
    Ok(Connection { reused: reply.reused, answer: serde_json::from_str(&reply.body).ok() })
}

fn mode_argument(mode: Mode) -> &'static str {
    match mode {
        Mode::Tls12Id => "tls12-id",
        Mode::Tls12Ticket => "tls12-ticket",
        Mode::Tls13 => "tls13",
    }
}
