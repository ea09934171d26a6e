//! Every kind of session resumes at every other place, with every client, every time; and nothing
//! resumes with `mode = "off"`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use tlsresume_testkit::client::{GnuTls, OpenSsl, Python};
use tlsresume_testkit::matrix::{self, Kind, Place};
use tlsresume_testkit::{Client, Mode, Result, Server, Stats};

const VISITS: usize = 5;

/// All returns of one cell of the matrix resume.
fn resumes(client: &dyn Client, kind: Kind, place: Place) -> Result<()> {
    let returns = matrix::run(client, kind, place, VISITS)?;
    assert_eq!(returns.len(), VISITS);
    let lost: Vec<_> = returns.iter().filter(|it| !it.resumed()).collect();
    assert!(lost.is_empty(), "{} of {VISITS} did not resume: {lost:#?}", lost.len());
    Ok(())
}

/// The tests of one client: one module for each kind, one test for each place.
macro_rules! matrix_of {
    ($client_name:ident, $client:expr, $($kind_name:ident: $kind:expr),*) => {
        mod $client_name { $(
            mod $kind_name {
                use super::super::*;

                #[test]
                fn resumes_on_another_thread() -> Result<()> {
                    resumes(&$client, $kind, Place::OtherThread)
                }

                #[test]
                fn resumes_on_another_worker() -> Result<()> {
                    resumes(&$client, $kind, Place::OtherWorker)
                }

                #[test]
                fn resumes_on_another_server() -> Result<()> {
                    resumes(&$client, $kind, Place::OtherServer)
                }

                #[test]
                fn resumes_after_a_restart_of_everything() -> Result<()> {
                    resumes(&$client, $kind, Place::AfterRestart)
                }
            } )*
        }
    };
    ($client_name:ident, $client:expr) => {
        matrix_of!(
            $client_name,
            $client,
            tls12_id: Kind::Tls12Id,
            tls12_ticket: Kind::Tls12Ticket,
            tls13_stateless: Kind::Tls13Stateless,
            tls13_stateful: Kind::Tls13Stateful
        );
    };
}

matrix_of!(openssl, OpenSsl::new());
matrix_of!(gnutls, GnuTls::new());
matrix_of!(python, Python);

/// With `mode = "off"` a client gets no session id and no ticket, and the server keeps nothing.
fn gets_nothing(client: &dyn Client, mode: Mode) -> Result<()> {
    let server = Server::example()?
        .args(["--direct", "--handle"])
        .env("TLSRESUME_RESUMPTION_MODE", "off")
        .start()?;
    let address = server.direct(0, 0)?;

    if mode != Mode::Tls13 {
        // In TLS 1.2 all of it is in the clear.
        let tap = Tap::start(address)?;
        client.visit(tap.address, mode).map(drop)?;
        let flight = ServerFlight::read(&tap.recorded());
        assert_eq!(flight, ServerFlight { session_id_len: 0, new_session_tickets: 0 });
    }
    let back = client.visit(address, mode)?.come_back(address)?;
    assert!(back.refused(), "{back:?}");

    let stats = Stats::of(address)?;
    for name in ["tickets_issued_total", "sessions_stored_total", "sessions_live"] {
        assert_eq!(stats.get(name), 0, "{name}");
    }
    assert_eq!(stats.get("store_bytes{state=\"used\"}"), 0);
    assert_eq!(stats.sum("keys"), 0);
    Ok(())
}

macro_rules! off_tests {
    ($($client_name:ident: $client:expr),*) => {
        mod off { $(
            mod $client_name {
                use super::super::*;

                #[test]
                fn gives_tls12_no_session_id() -> Result<()> {
                    gets_nothing(&$client, Mode::Tls12Id)
                }

                #[test]
                fn gives_tls12_no_ticket() -> Result<()> {
                    gets_nothing(&$client, Mode::Tls12Ticket)
                }

                #[test]
                fn gives_tls13_no_ticket() -> Result<()> {
                    gets_nothing(&$client, Mode::Tls13)
                }
            } )*
        }
    };
}

off_tests!(openssl: OpenSsl::new(), gnutls: GnuTls::without_waiting(), python: Python);

/// Control: the same eyes see an id and a ticket where there is one.
#[test]
fn a_server_that_is_not_off_gives_an_id_or_a_ticket() -> Result<()> {
    let server = Server::example()?.arg("--direct").start()?;
    let seen = |mode| {
        let tap = Tap::start(server.direct(0, 0)?)?;
        OpenSsl::new().visit(tap.address, mode).map(drop)?;
        Ok(ServerFlight::read(&tap.recorded()))
    };
    let id = ServerFlight { session_id_len: 32, new_session_tickets: 0 };
    assert_eq!(seen(Mode::Tls12Id)?, id);
    let ticket = ServerFlight { session_id_len: 0, new_session_tickets: 1 };
    assert_eq!(seen(Mode::Tls12Ticket)?, ticket);
    Ok(())
}

/// Forwards one connection and keeps what the server sent.
struct Tap {
    address: SocketAddr,
    thread: thread::JoinHandle<std::io::Result<Vec<u8>>>,
}

impl Tap {
    fn start(server: SocketAddr) -> Result<Tap> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let thread = thread::spawn(move || {
            let (client, _) = listener.accept()?;
            let server = TcpStream::connect(server)?;
            for stream in [&client, &server] {
                stream.set_read_timeout(Some(Duration::from_secs(15)))?;
            }
            thread::scope(|scope| {
                scope.spawn(|| {
                    let end = std::io::copy(&mut &client, &mut &server);
                    let _ = server.shutdown(Shutdown::Write);
                    end
                });
                let (mut recorded, mut buffer) = (Vec::new(), [0; 4096]);
                loop {
                    let count = match (&server).read(&mut buffer) {
                        // A server that has closed before the client's last words came; all of its own are here.
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
                        read => read?,
                    };
                    recorded.extend_from_slice(&buffer[..count]);
                    // A client that has gone needs no more.
                    let gone = (&client).write_all(&buffer[..count]).is_err();
                    if count == 0 || gone {
                        let _ = client.shutdown(Shutdown::Both);
                        return Ok(recorded);
                    }
                }
            })
        });
        Ok(Tap { address, thread })
    }

    /// What the server sent, up to the end of the connection.
    fn recorded(self) -> Vec<u8> {
        self.thread.join().expect("forwarding does not panic").expect("forwarding works")
    }
}

/// What a TLS 1.2 server says in the clear before its ChangeCipherSpec (RFC 5246, RFC 5077).
#[derive(Debug, Default, PartialEq, Eq)]
struct ServerFlight {
    session_id_len: usize,
    new_session_tickets: usize,
}

impl ServerFlight {
    fn read(mut records: &[u8]) -> ServerFlight {
        const HANDSHAKE: u8 = 22;
        let mut messages = Vec::new();
        while let [HANDSHAKE, _, _, high, low, rest @ ..] = records {
            let (body, after) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            messages.extend_from_slice(body);
            records = after;
        }

        let (mut flight, mut rest) = (ServerFlight::default(), &messages[..]);
        while let [kind, b2, b1, b0, after @ ..] = rest {
            let len = u32::from_be_bytes([0, *b2, *b1, *b0]);
            let (body, after) = after.split_at(usize::try_from(len).expect("24 bits fit"));
            match kind {
                // ServerHello: version (2), random (32), then the length of the session id.
                2 => flight.session_id_len = body[34].into(),
                4 => flight.new_session_tickets += 1,
                _ => {}
            }
            rest = after;
        }
        flight
    }
}
