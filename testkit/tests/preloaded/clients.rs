//! What a program does as a client is as without the library: how often its sessions resume is
//! counted at the far end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use tlsresume_testkit::installed::{Installed, Program, Settings, preload_library};
use tlsresume_testkit::{DEADLINE, Folder, Process, Result, net};

const REQUESTS: usize = 6;
/// The modes of the library; what it does to servers must not show in clients.
const MODES: [&str; 3] = ["stateless", "stateful", "off"];

/// A far end that answers whether it resumed: "reused" or "new".
fn far_end(protocol: &str) -> Result<Installed> {
    Program::Nginx
        .settings()
        .workers(1)
        .http("map $ssl_session_reused $how { r reused; default new; }")
        .server(&format!("ssl_protocols {protocol}; ssl_session_cache shared:far:1m;"))
        .server("location = /how { return 200 \"$how $ssl_protocol\\n\"; }")
        .start()
}

/// What a program that is started `with_library` or without does to a far end of each protocol.
fn same_with_and_without(
    requests: impl Fn(&Installed, &dyn Fn(Settings) -> Settings, &Environment) -> Result<Vec<String>>,
) -> Result<()> {
    for protocol in ["TLSv1.2", "TLSv1.3"] {
        let far = far_end(protocol)?;
        let plain = requests(&far, &|it| it, &Environment::default())?;
        // The control: clients do resume, all but the first time.
        let expected: Vec<String> = (0..REQUESTS)
            .map(|nth| format!("{} {protocol}", if nth == 0 { "new" } else { "reused" }))
            .collect();
        assert_eq!(plain, expected, "without the library");
        for mode in MODES {
            let memory = Folder::in_memory()?;
            let environment = Environment(vec![
                ("LD_PRELOAD", text(&preload_library()?)),
                ("TLSRESUME_MEMORY_PATH", text(&memory.file("sessions"))),
                ("TLSRESUME_RESUMPTION_MODE", mode.to_owned()),
                ("TLSRESUME_LOG_LEVEL", "info".to_owned()),
            ]);
            let preloaded = |settings: Settings| {
                environment.0.iter().fold(settings, |it, (name, value)| it.env(name, value))
            };
            let with = requests(&far, &preloaded, &environment)?;
            assert_eq!(with, plain, "{protocol}, resumption.mode = {mode}");
        }
    }
    Ok(())
}

#[derive(Default)]
struct Environment(Vec<(&'static str, String)>);

/// Requests through a proxy without TLS at its front.
fn through(front: SocketAddr) -> Result<Vec<String>> {
    (0..REQUESTS)
        .map(|_| {
            let failed =
                |source| tlsresume_testkit::Error::Io { doing: format!("asking {front}"), source };
            let mut stream = TcpStream::connect(front).map_err(failed)?;
            stream.set_read_timeout(Some(DEADLINE)).map_err(failed)?;
            write!(stream, "GET /how HTTP/1.0\r\n\r\n").map_err(failed)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map_err(failed)?;
            Ok(last_line(&answer))
        })
        .collect()
}

#[test]
fn nginx_resumes_at_its_tls_upstream_as_without_the_library() -> Result<()> {
    same_with_and_without(|far, preloaded, _| {
        let front = SocketAddr::from(([127, 0, 0, 1], net::free_port()?));
        // A context that verifies and is for upstreams must not count as one that verifies clients.
        let proxy = format!(
            "server {{ listen {front}; location / {{ proxy_pass https://{}; \
             proxy_ssl_session_reuse on; proxy_ssl_protocols TLSv1.2 TLSv1.3; proxy_ssl_verify on; \
             proxy_ssl_name localhost; proxy_ssl_trusted_certificate @certificate@; }} }}",
            far.address()
        );
        let _nginx = preloaded(Program::Nginx.settings().workers(1).http(&proxy)).start()?;
        through(front)
    })
}

#[test]
fn haproxy_resumes_at_its_tls_backend_as_without_the_library() -> Result<()> {
    same_with_and_without(|far, preloaded, _| {
        let front = SocketAddr::from(([127, 0, 0, 1], net::free_port()?));
        let sections = format!(
            "frontend clear\n    bind {front}\n    default_backend far\n\
             backend far\n    http-reuse never\n    server far {} ssl verify none\n",
            far.address()
        );
        // Each thread keeps a session of its own.
        let _haproxy = preloaded(Program::Haproxy.settings().workers(1).http(&sections)).start()?;
        through(front)
    })
}

#[test]
fn curl_resumes_as_without_the_library() -> Result<()> {
    same_with_and_without(|far, _, environment| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--insecure", "--http1.1", "--header", "Connection: close"]);
        command.args(vec![format!("https://{}/how", far.address()); REQUESTS]);
        lines_of(command, environment, "curl")
    })
}

#[test]
fn python_resumes_as_a_client_as_without_the_library() -> Result<()> {
    // A context for either role, as the ssl module had it first.
    const SCRIPT: &str = r"
import socket, ssl, sys, warnings
warnings.simplefilter('ignore')
context = ssl.SSLContext(ssl.PROTOCOL_TLS)
session = None
for _ in range(int(sys.argv[3])):
    connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    with context.wrap_socket(connection, session=session) as tls:
        tls.sendall(b'GET /how HTTP/1.0\r\n\r\n')
        answer = b''
        while part := tls.recv(4096):
            answer += part
        session = tls.session
        print(answer.decode().splitlines()[-1], flush=True)
";
    same_with_and_without(|far, _, environment| {
        let mut command = Command::new("python3");
        command.args(["-I", "-c", SCRIPT, &far.address().ip().to_string()]);
        command.args([far.address().port().to_string(), REQUESTS.to_string()]);
        lines_of(command, environment, "python3")
    })
}

fn lines_of(
    mut command: Command,
    environment: &Environment,
    package: &'static str,
) -> Result<Vec<String>> {
    command.envs(environment.0.iter().map(|(name, value)| (name, value)));
    let mut process = Process::start(command, package)?;
    if !process.wait_end(DEADLINE)?.success() {
        return Err(process.unexpected("failed"));
    }
    Ok(process.transcript().stdout().map(str::to_owned).collect())
}

fn last_line(answer: &str) -> String {
    answer.lines().last().unwrap_or_default().to_owned()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
