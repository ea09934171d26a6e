//! What is promised of every call: that it ends in time and in bounded memory, whatever Redis sends.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tlsresume_testkit::installed::certs::Mutual;
use tlsresume_testkit::{DEADLINE, Stopwatch};

use super::connection::Connection;
use super::*;
use crate::clock;
use crate::cluster::transport::{Board, Channel, Feed, Outgoing, Table, Vault};

#[test]
fn what_another_says_forges_no_line_and_shows_no_password() {
    let said =
        "ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' 'hunter2'";
    let shown = fit_for_log(said);
    assert!(!shown.contains("hunter2") && shown.contains("HELLO"), "{shown}");
    let shown = fit_for_log("first\r\ntlsresume: error: all is lost\u{1b}[2J");
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    assert_eq!(fit_for_log(&"x".repeat(5000)).len(), MOST_TEXT);
}

const LIMIT: Duration = Duration::from_millis(300);

/// What a busy machine may add.
const SLACK: Duration = Duration::from_millis(900);

/// Far more than what ends by its size takes.
const AMPLE: Duration = DEADLINE;

/// More than is ever read in one exchange, with what the system keeps in between.
const MOST_WRITTEN: usize = 32 << 20;

/// How slow the servers here are that are slow: what is tried, and nothing that a test waits for.
const PAUSE: Duration = Duration::from_millis(20);

fn spawn(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().spawn(run).expect("a thread");
}

/// A server that does the same with every connection, on a thread for each.
fn server<F: Fn(TcpStream) + Clone + Send + 'static>(serve: F) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    let accept = move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            spawn(move || serve(stream));
        }
    };
    spawn(accept);
    address
}

/// Lets its client in, then answers each piece that it says with `answer`.
fn answering(answer: impl Fn(&mut TcpStream) + Clone + Send + 'static) -> Remote {
    plain(server(move |mut stream| {
        hear(&mut stream);
        // The client is gone: nothing to do.
        let _ = stream.write_all(b"+OK\r\n");
        while hear(&mut stream) > 0 {
            answer(&mut stream);
        }
    }))
}

fn hear(stream: &mut TcpStream) -> usize {
    stream.read(&mut [0; 4096]).unwrap_or(0)
}

fn trickle(stream: &mut impl Write, bytes: &[u8]) {
    for byte in bytes {
        if stream.write_all(&[*byte]).is_err() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

fn remote(url: &str, credentials: &Credentials) -> Remote {
    Remote::new(&[url.to_owned()], credentials, "default").expect("an address")
}

fn plain(address: SocketAddr) -> Remote {
    remote(&format!("redis://{address}"), &Credentials::default())
}

fn secure(address: SocketAddr, certificates: &Mutual) -> Remote {
    let ca = Some(fs::read(&certificates.authority).expect("read"));
    remote(&format!("rediss://{address}"), &Credentials { ca, ..Credentials::default() })
}

/// A server's side of TLS.
fn speaking(certificates: &Mutual) -> Arc<ServerConfig> {
    let pem = |path| fs::read(path).expect("read");
    let certificate = CertificateDer::from_pem_slice(&pem(&certificates.server.certificate));
    let chain = vec![certificate.expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(&pem(&certificates.server.key)).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key);
    Arc::new(config.expect("a configuration"))
}

/// It is lost, and not before it had its time, nor long after.
fn lost_at_the_limit<T>(run: impl FnOnce() -> Result<T, Failure>) {
    let begun = clock::since_boot();
    let took = took(run);
    assert!(took < LIMIT + SLACK, "took {took:?}");
    assert!(clock::since_boot() - begun >= LIMIT * 9 / 10, "{took:?} is too early");
}

/// How long it takes until it is lost, on a machine that has nothing else to do.
fn took<T>(run: impl FnOnce() -> Result<T, Failure>) -> Duration {
    let stopwatch = Stopwatch::start();
    let result = run().map(drop);
    let took = stopwatch.elapsed();
    assert!(matches!(&result, Err(Failure::Lost(_))), "{result:?} after {took:?}");
    took
}

fn linked(remote: &Remote, limit: Duration) -> Link {
    let mut link = remote.link(AMPLE).expect("let in");
    link.limit(limit);
    link
}

fn look_up(link: &mut Link) -> Result<Option<Vec<u8>>, Failure> {
    link.sessions(&[([0; 24], false)]).map(|mut answers| answers.pop().flatten())
}

#[test]
fn a_login_that_comes_byte_by_byte_ends_at_the_limit() {
    let address = server(|mut stream| trickle(&mut stream, &[b'+'; 500]));
    lost_at_the_limit(|| plain(address).link(LIMIT));
    let urls = [format!("redis://{address}"), format!("redis://{address}")];
    let cluster = Remote::new(&urls, &Credentials::default(), "default").expect("addresses");
    lost_at_the_limit(|| cluster.link(LIMIT));
}

#[test]
fn a_tls_handshake_that_comes_byte_by_byte_ends_at_the_limit() {
    let certificates = Mutual::new().expect("certificates");
    // A record of 16 KiB, of which the first bytes are good.
    let mut record = vec![0; 500];
    record[..9].copy_from_slice(&[22, 3, 3, 0x40, 0, 2, 0, 0x3f, 0xf0]);
    let address = server(move |mut stream| trickle(&mut stream, &record));
    lost_at_the_limit(|| secure(address, &certificates).link(LIMIT));
}

#[test]
fn an_answer_that_comes_byte_by_byte_ends_at_the_limit() {
    let remote = answering(|stream| trickle(stream, &[b'+'; 500]));
    let mut link = linked(&remote, LIMIT);
    lost_at_the_limit(|| look_up(&mut link));
}

#[test]
fn a_connection_that_ends_is_not_waited_for() {
    let closed = answering(|stream| stream.shutdown(Shutdown::Both).expect("closed"));
    let reset = answering(|stream| {
        let socket = SockRef::from(&*stream);
        socket.set_linger(Some(Duration::ZERO)).expect("set");
        // With what it is replaced by, it is closed.
        let nothing = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        *stream = nothing.into();
    });
    for remote in [closed, reset] {
        let mut link = linked(&remote, AMPLE);
        assert!(took(|| look_up(&mut link)) < SLACK);
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    assert!(took(|| plain(address).link(AMPLE)) < SLACK);
}

#[test]
fn answers_one_after_the_other_end_at_the_limit_of_the_call() {
    let remote = answering(|stream| {
        std::thread::sleep(LIMIT * 2 / 3);
        let _ = stream.write_all(b":1\r\n");
    });
    let mut link = linked(&remote, LIMIT);
    // More than are taken out by one command.
    let fields = vec![b"field".to_vec(); 200];
    lost_at_the_limit(|| link.take_out(Table::Ring, &fields));
}

#[test]
fn news_without_end_ends_at_the_limit() {
    let remote = answering(|stream| {
        while stream.write_all(b">2\r\n+message\r\n+x\r\n").is_ok() {
            std::thread::sleep(PAUSE);
        }
    });
    let mut link = linked(&remote, LIMIT);
    lost_at_the_limit(|| look_up(&mut link));
}

#[test]
fn answers_that_would_fill_the_memory_are_cut_off() {
    const PUSH: &[u8] = b">2\r\n+message\r\n+x\r\n";
    for (begin, part) in [
        ("$2000000000\r\n", &b"x"[..]),
        ("!-1\r\n", b"x"),
        ("+", b"x"),
        ("*2000000000\r\n", b":1\r\n"),
        ("*9223372036854775807\r\n", b"*0\r\n"),
        ("%9223372036854775807\r\n", b"_\r\n"),
        ("|9223372036854775807\r\n", b"_\r\n"),
        ("%-1\r\n", b"_\r\n"),
        ("", b"*1\r\n"),
        ("", b"*4096\r\n"),
        ("", PUSH),
    ] {
        let (written, wrote) = mpsc::channel();
        let remote = answering(move |stream| {
            let all = part.repeat(64 * 1024 / part.len());
            let _ = stream.write_all(begin.as_bytes());
            let mut count = 0;
            while count < 2 * MOST_WRITTEN && stream.write_all(&all).is_ok() {
                count += all.len();
            }
            let _ = written.send(count);
        });
        let answer = look_up(&mut linked(&remote, AMPLE));
        assert!(matches!(answer, Err(Failure::Lost(_))), "{begin:?}: {answer:?}");
        let count = wrote.recv_timeout(DEADLINE).expect("an end");
        assert!(count < MOST_WRITTEN, "{begin:?}: {count} bytes");
    }
}

#[test]
fn many_small_values_are_cut_off_before_they_take_much_more_memory_than_they_have_bytes() {
    let remote = answering(|stream| {
        let all = [b"*2000000000\r\n".to_vec(), b":1\r\n".repeat(150_000)].concat();
        let _ = stream.write_all(&all);
    });
    let ended = look_up(&mut linked(&remote, AMPLE));
    assert!(matches!(&ended, Err(Failure::Lost(why)) if !why.contains("time")), "{ended:?}");
}

#[test]
fn a_notice_that_never_ends_is_cut_off_however_often_it_is_waited_for() {
    let remote = answering(|stream| {
        let _ = stream.write_all(b">3\r\n+subscribe\r\n+x\r\n:1\r\n$2000000000\r\n");
        while stream.write_all(&[b'x'; 64 * 1024]).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut link = linked(&remote, AMPLE);
    link.listen().expect("told");
    let begun = clock::since_boot();
    while link.wait_for_notice(PAUSE).is_ok() {
        assert!(clock::since_boot() - begun < DEADLINE);
    }
}

#[test]
fn a_server_that_does_not_read_or_reads_slowly_is_written_to_until_the_limit() {
    let entry = Outgoing::Entry(vec![0; 1 << 20]);
    let batch = vec![entry; 64];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).expect("bound");
    spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"+OK\r\n");
        while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
            std::thread::sleep(PAUSE);
        }
    });
    let certificates = Mutual::new().expect("certificates");
    let config = speaking(&certificates);
    let tls = server(move |stream| {
        let tls = ServerConnection::new(Arc::clone(&config)).expect("a server");
        let mut tls = StreamOwned::new(tls, stream);
        let _ = tls.read(&mut [0; 4096]).and_then(|_| tls.write_all(b"+OK\r\n"));
        while tls.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
            std::thread::sleep(PAUSE);
        }
    });
    for remote in [
        secure(tls, &certificates),
        answering(|_| std::thread::sleep(AMPLE)),
        answering(|_| std::thread::sleep(PAUSE)),
        remote(&format!("redis+unix://{}", path.display()), &Credentials::default()),
    ] {
        let mut link = linked(&remote, LIMIT);
        lost_at_the_limit(|| link.send(&batch, AMPLE));
    }
}

/// Something that lets nobody in any more, and is there as long as this is.
fn full_queue(address: &SockAddr) -> (SockAddr, Vec<Socket>) {
    let socket = || Socket::new(address.domain(), Type::STREAM, None).expect("a socket");
    let listener = socket();
    listener.bind(address).expect("bound");
    listener.listen(0).expect("listens");
    let address = listener.local_addr().expect("an address");
    let wait = |_| {
        let client = socket();
        client.set_nonblocking(true).expect("set");
        // In the queue, or behind it.
        let _ = client.connect(&address);
        client
    };
    let all = (0..8).map(wait).chain([listener]).collect();
    (address, all)
}

#[test]
fn a_unix_socket_with_a_full_queue_is_waited_for_until_the_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let _full = full_queue(&SockAddr::unix(&path).expect("short"));
    let url = format!("redis+unix://{}", path.display());
    lost_at_the_limit(|| remote(&url, &Credentials::default()).link(LIMIT));
}

#[test]
fn a_limit_of_milliseconds_is_not_rounded_up_to_ticks_of_the_system() {
    const SHORT: Duration = Duration::from_millis(5);
    let silent = answering(|_| {});
    let answer = || {
        let mut link = linked(&silent, SHORT);
        took(|| look_up(&mut link))
    };
    let connection = |address: &SockAddr| {
        took(|| Connection::open(address, None, clock::since_boot() + SHORT).map(drop))
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = SockAddr::unix(folder.path().join("socket")).expect("short");
    let (unix, _full) = full_queue(&path);
    let (tcp, _full_too) = full_queue(&SocketAddr::from(([127, 0, 0, 1], 0)).into());
    let waits: [(_, &dyn Fn() -> Duration); 3] = [
        ("an answer", &answer),
        ("a connection by TCP", &|| connection(&tcp)),
        ("a connection to a Unix socket", &|| connection(&unix)),
    ];
    for (what, wait) in waits {
        let mut took: Vec<_> = std::iter::repeat_with(wait).take(31).collect();
        took.sort_unstable();
        let median = took[took.len() / 2];
        assert!(median < SHORT + Duration::from_millis(2), "{what}: {took:?}");
    }
}

const SUBSCRIBED: &[u8] = b">3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n";
const NOTICE: &[u8] = b">3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$0\r\n\r\n";

/// Half of a notice comes before the first wait is over, the rest at the second.
fn is_seen_in_halves(remote: &Remote, go_on: &mpsc::Sender<()>) {
    let mut link = linked(remote, AMPLE);
    link.listen().expect("asked");
    assert!(link.is_told() && !link.has_notice());
    assert_eq!(link.wait_for_notice(LIMIT), Ok(false));
    go_on.send(()).expect("there");
    assert_eq!(link.wait_for_notice(AMPLE), Ok(true));
    assert!(!link.has_notice());
    assert_eq!(look_up(&mut link), Ok(None), "still in step");
}

#[test]
fn a_notice_in_two_halves_is_seen() {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let remote = answering(move |stream| {
        let (first, second) = NOTICE.split_at(17);
        stream.write_all(&[SUBSCRIBED, first].concat()).expect("written");
        wait.lock().recv().expect("there");
        stream.write_all(second).expect("written");
        hear(stream);
        stream.write_all(b"_\r\n").expect("written");
    });
    is_seen_in_halves(&remote, &go_on);
}

#[test]
fn a_notice_in_two_halves_of_a_tls_record_is_seen() {
    let certificates = Mutual::new().expect("certificates");
    let config = speaking(&certificates);
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let address = server(move |stream| {
        let tls = ServerConnection::new(Arc::clone(&config)).expect("a server");
        let mut tls = StreamOwned::new(tls, stream);
        for answer in [b"+OK\r\n", SUBSCRIBED] {
            assert!(tls.read(&mut [0; 4096]).expect("heard") > 0);
            tls.write_all(answer).expect("written");
        }
        tls.conn.writer().write_all(NOTICE).expect("taken");
        let mut record = Vec::new();
        tls.conn.write_tls(&mut record).expect("sealed");
        let (first, second) = record.split_at(record.len() / 2);
        tls.sock.write_all(first).expect("written");
        wait.lock().recv().expect("there");
        tls.sock.write_all(second).expect("written");
        assert!(tls.read(&mut [0; 4096]).expect("heard") > 0);
        tls.write_all(b"_\r\n").expect("written");
    });
    is_seen_in_halves(&secure(address, &certificates), &go_on);
}

#[test]
fn no_tls_session_is_kept_for_another_connection() {
    let certificates = Mutual::new().expect("certificates");
    let config = speaking(&certificates);
    let (made, kinds) = mpsc::channel();
    let address = server(move |stream| {
        let tls = ServerConnection::new(Arc::clone(&config)).expect("a server");
        let mut tls = StreamOwned::new(tls, stream);
        let _ = tls.read(&mut [0; 4096]).and_then(|_| tls.write_all(b"+OK\r\n"));
        made.send(tls.conn.handshake_kind()).expect("there");
    });
    let remote = secure(address, &certificates);
    for _ in 0..2 {
        remote.link(AMPLE).map(drop).expect("let in");
        assert_eq!(kinds.recv(), Ok(Some(HandshakeKind::Full)));
    }
}
