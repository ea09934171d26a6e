//! The example terminator forwards bytes as they are, whatever the two sides do, and the one line
//! that it has for the library makes its clients resume everywhere.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Deserialize;
use tlsresume_testkit::client::{OpenSsl, OpenSslVisitor};
use tlsresume_testkit::server::{Settings, example};
use tlsresume_testkit::{DEADLINE, Folder, Mode, Process, Result, Server, wait_until};

// ---- what it is for: clients resume ----

#[test]
fn clients_resume_at_another_worker() -> Result<()> {
    let backend = Backend::start(answer_request);
    let mut terminator = terminator(&backend)?.start()?;
    for mode in Mode::ALL {
        // The kernel gives a client to any worker that waits for one: let there be one.
        pause(&mut terminator, 1)?;
        let visitor = visit(terminator.address(), mode)?;
        resume(&mut terminator, 1)?;
        pause(&mut terminator, 0)?;
        assert!(comes_back(&visitor, terminator.address())?, "{mode}");
        resume(&mut terminator, 0)?;
    }
    Ok(())
}

#[test]
fn clients_resume_at_another_terminator_on_one_memory_path() -> Result<()> {
    let backend = Backend::start(answer_request);
    let memory = Folder::in_memory()?;
    let start =
        || terminator(&backend)?.env("TLSRESUME_MEMORY_PATH", memory.file("sessions")).start();
    let (one, other) = (start()?, start()?);
    for mode in Mode::ALL {
        let visitor = visit(one.address(), mode)?;
        assert!(comes_back(&visitor, other.address())?, "{mode}");
    }
    Ok(())
}

#[test]
fn clients_resume_after_a_restart() -> Result<()> {
    let backend = Backend::start(answer_request);
    let memory = Folder::in_memory()?;
    let mut terminator =
        terminator(&backend)?.env("TLSRESUME_MEMORY_PATH", memory.file("sessions")).start()?;
    for mode in Mode::ALL {
        let visitor = visit(terminator.address(), mode)?;
        terminator.restart()?;
        assert!(comes_back(&visitor, terminator.address())?, "{mode}");
    }
    Ok(())
}

/// Control: the same eyes see what plain OpenSSL can do, and that it can do no more.
#[test]
fn without_the_library_clients_resume_in_the_same_process_only() -> Result<()> {
    let backend = Backend::start(answer_request);
    let memory = Folder::in_memory()?;
    let start = || {
        terminator(&backend)?
            .args(["--plain", "--workers", "1"])
            .env("TLSRESUME_MEMORY_PATH", memory.file("sessions"))
            .start()
    };
    let (one, other) = (start()?, start()?);
    for mode in Mode::ALL {
        let visitor = visit(one.address(), mode)?;
        assert!(comes_back(&visitor, one.address())?, "{mode}, same terminator");
        let visitor = visit(one.address(), mode)?;
        assert!(!comes_back(&visitor, other.address())?, "{mode}, other terminator");
    }
    Ok(())
}

#[test]
fn the_integration_is_one_line() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let sources = std::fs::read_dir(&examples).expect("the examples are there");
    let mut calls = Vec::new();
    for entry in sources {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.starts_with("terminator") {
            let text = std::fs::read_to_string(&path).expect("readable");
            let lines = text.lines().filter(|line| line.contains("tlsresume_"));
            calls.extend(lines.map(|line| format!("{name}: {}", line.trim())));
        }
    }
    assert_eq!(calls, ["terminator.c: if (!options.plain && !tlsresume_install(ctx))"]);
}

// ---- what it has to be: a good forwarder ----

#[test]
fn bytes_pass_unchanged_both_ways_at_the_same_time_to_a_slow_reader() -> Result<()> {
    let backend = Backend::start(echo);
    everything_comes_back_from(&backend)
}

#[test]
fn a_backend_that_answers_after_the_end_of_the_request_is_heard() -> Result<()> {
    let backend = Backend::start(|mut client| {
        let mut request = Vec::new();
        client.read_to_end(&mut request)?;
        client.write_all(&request)
    });
    everything_comes_back_from(&backend)
}

#[test]
fn a_client_that_goes_on_after_the_end_of_the_answer_is_heard() -> Result<()> {
    let (report, heard) = channel();
    let backend = Backend::start(move |mut client| {
        client.write_all(b"hello")?;
        client.shutdown(Shutdown::Write)?;
        let count = io::copy(&mut client, &mut io::sink())?;
        report.send(count).map_err(io::Error::other)
    });
    let terminator = terminator(&backend)?.start()?;
    for version in ["1.2", "1.3"] {
        let transfer = Talker::start(&terminator, version, "listen first")?.transfer()?;
        assert_eq!(transfer.end, "close_notify", "TLS {version}");
        let count: u64 = soon(&heard);
        assert_eq!(count, transfer.bytes, "TLS {version}");
    }
    Ok(())
}

#[test]
fn a_client_that_reads_nothing_stops_the_backend_and_costs_little_memory() -> Result<()> {
    const FLOOD: usize = 256 << 20;
    let (report, written) = channel();
    let is_warm = Arc::new(AtomicBool::new(false));
    let backend = Backend::start(move |mut client| {
        if !is_warm.swap(true, Ordering::Relaxed) {
            return answer_request(client);
        }
        client.set_write_timeout(Some(Duration::from_secs(1)))?;
        let (block, mut count) = ([0; 1 << 16], 0);
        while count < FLOOD {
            match client.write(&block) {
                Ok(bytes) => count += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        report.send(count).map_err(io::Error::other)
    });
    let terminator = terminator(&backend)?.args(["--workers", "1"]).start()?;
    let worker = terminator.loops()[0].pid;
    // The first handshake of a process brings megabytes of OpenSSL into memory.
    visit(terminator.address(), Mode::Tls13)?;
    let before = resident_kib(worker);

    let _deaf = Talker::start(&terminator, "1.3", "deaf")?;
    let count: usize = soon(&written);
    assert!(count < FLOOD, "the backend could send it all");
    let grown = resident_kib(worker).saturating_sub(before);
    assert!(grown < 4096, "{count} bytes sent, and the worker has {grown} KiB more");
    Ok(())
}

#[test]
fn a_request_that_breaks_off_does_not_look_complete() -> Result<()> {
    let (report, ends) = channel();
    let backend = Backend::start(move |mut client| {
        let end = io::copy(&mut client, &mut io::sink()).map_err(|error| error.kind());
        report.send(end).map_err(io::Error::other)
    });
    let terminator = terminator(&backend)?.start()?;
    let _cut = Talker::start(&terminator, "1.3", "cut")?;
    let end: std::result::Result<u64, ErrorKind> = soon(&ends);
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    Ok(())
}

#[test]
fn an_answer_that_breaks_off_does_not_look_complete() -> Result<()> {
    let backend = Backend::start(|mut client| {
        // What is closed before it was read is reset.
        client.read_exact(&mut [0; 1000])
    });
    let terminator = terminator(&backend)?.start()?;
    let transfer = Talker::start(&terminator, "1.3", "duplex")?.transfer()?;
    assert_eq!(transfer.end, "cut");
    Ok(())
}

#[test]
fn a_dead_backend_costs_only_the_connections_that_need_it() -> Result<()> {
    let backend = Backend::start(echo);
    let address = backend.address;
    let terminator = terminator(&backend)?.args(["--workers", "1"]).start()?;
    let mut talker = Talker::start(&terminator, "1.3", "talk")?;
    assert_eq!(talker.says("before")?, "before");

    drop(backend);
    let transfer = Talker::start(&terminator, "1.3", "duplex")?.transfer()?;
    assert_eq!((&*transfer.end, transfer.bytes_received), ("cut", 0));
    assert_eq!(talker.says("during")?, "during");

    let _again = Backend::start_at(address, echo);
    let transfer = Talker::start(&terminator, "1.3", "duplex")?.transfer()?;
    assert_eq!(transfer.received, transfer.sent);
    assert_eq!(talker.says("after")?, "after");
    assert_eq!(terminator.log().matches("cannot connect to the backend").count(), 1);
    Ok(())
}

#[test]
fn many_clients_are_served_at_once() -> Result<()> {
    let backend = Backend::start(echo);
    let terminator = terminator(&backend)?.args(["--workers", "1"]).start()?;
    let starts = (0..20).map(|_| Talker::start(&terminator, "1.3", "talk"));
    let mut talkers = starts.collect::<Result<Vec<_>>>()?;
    for round in ["one", "two"] {
        for talker in &mut talkers {
            assert_eq!(talker.says(round)?, round);
        }
    }
    Ok(())
}

#[test]
fn a_client_that_does_not_shake_hands_is_dropped() -> Result<()> {
    let backend = Backend::start(echo);
    let terminator = terminator(&backend)?.args(["--handshake-timeout", "1"]).start()?;
    let mut silent = TcpStream::connect(terminator.address()).expect("it listens");
    silent.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    assert_eq!(silent.read(&mut [0; 1]).expect("it ends the connection"), 0);
    Ok(())
}

#[test]
fn a_connection_without_traffic_is_dropped() -> Result<()> {
    let backend = Backend::start(echo);
    let terminator = terminator(&backend)?.args(["--idle-timeout", "1"]).start()?;
    let transfer = Talker::start(&terminator, "1.3", "idle")?.transfer()?;
    assert_eq!(transfer.end, "cut");
    Ok(())
}

// ---- its processes ----

#[test]
fn a_killed_worker_is_replaced_and_its_clients_resume() -> Result<()> {
    let backend = Backend::start(answer_request);
    let mut terminator = terminator(&backend)?.args(["--workers", "1"]).start()?;
    for mode in Mode::ALL {
        let visitor = visit(terminator.address(), mode)?;
        terminator.kill_worker(0)?;
        assert!(comes_back(&visitor, terminator.address())?, "{mode}");
    }
    Ok(())
}

#[test]
fn sigterm_lets_clients_finish_takes_no_new_ones_and_ends_with_0() -> Result<()> {
    let backend = Backend::start(echo);
    let mut terminator = terminator(&backend)?.start()?;
    let mut talker = Talker::start(&terminator, "1.3", "talk")?;
    assert_eq!(talker.says("before")?, "before");

    let address = terminator.address();
    terminator.signal(libc::SIGTERM)?;
    wait_until("closed listeners", DEADLINE, || TcpStream::connect(address).is_err())?;
    assert_eq!(talker.says("after")?, "after");
    drop(talker);
    let status = terminator.wait_end(DEADLINE)?;
    assert_eq!(status.code(), Some(0), "{}", terminator.log());
    Ok(())
}

#[test]
fn sigterm_waits_for_no_client_that_goes_on_and_on() -> Result<()> {
    let backend = Backend::start(echo);
    let mut terminator = terminator(&backend)?.start()?;
    let mut talker = Talker::start(&terminator, "1.3", "talk")?;
    assert_eq!(talker.says("before")?, "before");
    terminator.signal(libc::SIGTERM)?;
    let status = terminator.wait_end(DEADLINE)?;
    assert_eq!(status.code(), Some(0), "{}", terminator.log());
    Ok(())
}

// ---- the terminator and its visitors ----

/// What a client sends to a backend that returns it arrives, and so does the end.
fn everything_comes_back_from(backend: &Backend) -> Result<()> {
    let terminator = terminator(backend)?.start()?;
    for version in ["1.2", "1.3"] {
        let transfer = Talker::start(&terminator, version, "duplex")?.transfer()?;
        assert_eq!(transfer.received, transfer.sent, "TLS {version}");
        assert_eq!(transfer.end, "close_notify", "TLS {version}");
    }
    Ok(())
}

fn terminator(backend: &Backend) -> Result<Settings> {
    let address = backend.address.to_string();
    Ok(Server::program(example("terminator")?).args(["--backend", &address]))
}

fn visit(at: SocketAddr, mode: Mode) -> Result<OpenSslVisitor> {
    OpenSsl::new().first_visit(at, mode)
}

fn comes_back(visitor: &OpenSslVisitor, to: SocketAddr) -> Result<bool> {
    Ok(visitor.come_back_as(&OpenSsl::new(), to)?.reused)
}

/// Stops a worker, as a debugger does: it accepts nobody.
fn pause(terminator: &mut Server, worker: u32) -> Result<()> {
    let pid = terminator.signal_worker(worker, libc::SIGSTOP)?;
    wait_until("a stopped worker", DEADLINE, || read_proc(pid, "stat").contains(") T "))
}

fn resume(terminator: &mut Server, worker: u32) -> Result<()> {
    let pid = terminator.signal_worker(worker, libc::SIGCONT)?;
    wait_until("a running worker", DEADLINE, || !read_proc(pid, "stat").contains(") T "))
}

fn resident_kib(pid: u32) -> u64 {
    let status = read_proc(pid, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.and_then(|text| text.parse().ok()).expect("a process has a VmHWM")
}

fn read_proc(pid: u32, name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default()
}

fn soon<T>(reports: &Receiver<T>) -> T {
    reports.recv_timeout(DEADLINE).expect("a report in time")
}

/// A Python client that does with its connection what its role says: see the script.
struct Talker(Process);

/// What it says at its end.
#[derive(Debug, Deserialize)]
struct Transfer {
    /// Digest of what it wanted to send.
    sent: String,
    /// Digest of what it got.
    received: String,
    /// How much it wanted to send.
    bytes: u64,
    bytes_received: u64,
    /// `close_notify`, or `cut`.
    end: String,
}

impl Talker {
    fn start(terminator: &Server, version: &str, role: &str) -> Result<Talker> {
        let mut command = Command::new("python3");
        command.args(["-I", "-c", SCRIPT]);
        command.args([&terminator.address().port().to_string(), version, role]);
        Process::start(command, "python3").map(Talker)
    }

    fn transfer(mut self) -> Result<Transfer> {
        self.0.wait_end(DEADLINE)?;
        let transcript = self.0.transcript();
        let report = transcript.stdout().find_map(|line| serde_json::from_str(line).ok());
        report.ok_or_else(|| self.0.unexpected("gave no report"))
    }

    /// Sends a line and returns the next one that comes.
    fn says(&mut self, line: &str) -> Result<String> {
        let heard = self.0.transcript().stdout().count();
        self.0.write(&format!("{line}\n"))?;
        self.0.wait_for("an answer", DEADLINE, |transcript| {
            transcript.stdout().nth(heard).map(str::to_owned)
        })
    }
}

/// The TLS library is between two buffers, so that the script decides when it reads and writes,
/// and when it ends its own direction.
const SCRIPT: &str = include_str!("../clients/talker.py");

/// A TCP server on a port of its own, one thread for each connection; it stops listening when
/// dropped, and its connections go on.
struct Backend {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    fn start<F>(serve: F) -> Backend
    where
        F: Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
    {
        Backend::start_at((Ipv4Addr::LOCALHOST, 0).into(), serve)
    }

    fn start_at<F>(address: SocketAddr, serve: F) -> Backend
    where
        F: Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
    {
        let listener = TcpListener::bind(address).expect("the port is free");
        let address = listener.local_addr().expect("it listens");
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let thread = thread::spawn(move || {
            for client in listener.incoming() {
                if is_over.load(Ordering::Acquire) {
                    return;
                }
                let (client, serve) = (client.expect("a client"), serve.clone());
                // What goes wrong with a client is seen by the client.
                thread::spawn(move || drop(serve(client)));
            }
        });
        Backend { address, over, thread: Some(thread) }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the thread; if that fails, it has ended already.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One HTTP request, one answer.
fn answer_request(mut client: TcpStream) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        request.extend(byte);
    }
    client.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
}

fn echo(mut client: TcpStream) -> io::Result<()> {
    let mut back = client.try_clone()?;
    io::copy(&mut client, &mut back)?;
    back.shutdown(Shutdown::Write)
}
