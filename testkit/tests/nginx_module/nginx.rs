//! Debian's nginx with our modules, in a folder of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tlsresume_testkit::server::example;
use tlsresume_testkit::{
    Connection, DEADLINE, Error, Folder, LoadReport, Process, Result, say, wait_until,
};

/// Where Debian's packages put things.
const NGINX: &str = "/usr/sbin/nginx";
pub(crate) const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A running nginx in a folder of its own, ended when dropped.
pub(crate) struct Nginx {
    process: Process,
    // Last, so that nginx has ended when its folder goes.
    pub(crate) site: Site,
}

/// A folder with a configuration.
pub(crate) struct Site {
    pub(crate) folder: Folder,
}

/// How many workers, and what is in the blocks `http` and `stream`.
pub(crate) struct Blocks<'a> {
    pub(crate) workers: u32,
    pub(crate) http: &'a str,
    pub(crate) stream: &'a str,
}

impl Default for Blocks<'_> {
    fn default() -> Self {
        Blocks { workers: 1, http: "", stream: "" }
    }
}

/// What every server of the tests has: it answers as `prefork_server` does, so that the testkit's
/// clients understand it.
pub(crate) const HTTP: &str = r#"
    access_log off;
    client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp;
    uwsgi_temp_path tmp; scgi_temp_path tmp;
    ssl_protocols TLSv1.2 TLSv1.3;
    map $ssl_session_reused $resumed { r true; default false; }
    map $ssl_client_verify $client_cert { SUCCESS true; default false; }
    map $ssl_early_data $early_data { 1 accepted; default 'not accepted'; }
    map '' $answer { default '{"server":"nginx","worker":0,"thread":0,"pid":$pid,
"version":"$ssl_protocol","resumed":$resumed,"name":"$ssl_server_name",
"client_cert":$client_cert,"early_data":"$early_data","cpu_us":0}'; }
"#;

impl Site {
    pub(crate) fn new() -> Result<Site> {
        let site = Site { folder: Folder::new()? };
        fs::create_dir(site.file("tmp")).expect("the folder is new");
        certificate(&site, "server", &["/CN=server.example"]);
        Ok(site)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.file(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).expect("the folder is ours");
    }

    /// Writes `nginx.conf`; `main` comes first in it.
    pub(crate) fn configure(&self, main: &str, blocks: &Blocks<'_>) -> Result<()> {
        let Blocks { workers, http, stream } = blocks;
        let [http_module, stream_module] = [module("http")?, module("stream")?];
        let answer = HTTP.replace(",\n", ",");
        self.write(
            "nginx.conf",
            &format!(
                "load_module {STREAM_MODULE};\nload_module {};\nload_module {};\n{main}\n\
                 worker_processes {workers};\npid nginx.pid;\nerror_log stderr info;\n\
                 events {{ worker_connections 512; }}\n\
                 http {{\n{answer}\nssl_certificate server.crt;\nssl_certificate_key server.key;\n\
                 {http}\n}}\n\
                 stream {{\nssl_protocols TLSv1.2 TLSv1.3;\nssl_certificate server.crt;\n\
                 ssl_certificate_key server.key;\n{stream}\n}}\n",
                http_module.display(),
                stream_module.display(),
            ),
        );
        Ok(())
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(NGINX);
        command.arg("-p").arg(self.folder.path()).args(["-c", "nginx.conf", "-e", "stderr"]);
        command.args(args).current_dir(self.folder.path());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TLSRESUME_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// `nginx -t`: whether it succeeded, and what it said.
    pub(crate) fn test(&self) -> (bool, String) {
        let Output { status, stdout, stderr } =
            self.command(&["-t"]).output().expect("nginx is installed");
        let said = [stdout, stderr].concat();
        (status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Starts it in the foreground: it ends when this thread does.
    pub(crate) fn start(self) -> Result<Nginx> {
        let command = self.command(&["-g", "daemon off;"]);
        self.start_by(command)
    }

    /// Starts it as a daemon, which alone can be upgraded.
    pub(crate) fn start_daemon(self) -> Result<Nginx> {
        let command = self.command(&[]);
        self.start_by(command)
    }

    /// Starts it without workers (`master_process off`); `port` is one that it listens on.
    pub(crate) fn start_alone(self, command: Command, port: u16) -> Result<Nginx> {
        let process = Process::start(command, "nginx")?;
        let nginx = Nginx { process, site: self };
        wait_until("an answer", 2 * DEADLINE, || ask(port, "GET", "/").is_ok())?;
        wait_until("nginx.pid", DEADLINE, || nginx.pid_in("nginx.pid").is_some())?;
        Ok(nginx)
    }

    pub(crate) fn start_by(self, command: Command) -> Result<Nginx> {
        let process = Process::start(command, "nginx")?;
        let nginx = Nginx { process, site: self };
        nginx.wait_for_lines("start worker process ", 1)?;
        wait_until("nginx.pid", DEADLINE, || nginx.pid_in("nginx.pid").is_some())?;
        Ok(nginx)
    }
}

impl Nginx {
    /// What it and its workers have said.
    pub(crate) fn log(&self) -> String {
        self.process.transcript().to_string()
    }

    pub(crate) fn lines_with(&self, text: &str) -> usize {
        self.log().lines().filter(|line| line.contains(text)).count()
    }

    pub(crate) fn wait_for_lines(&self, text: &str, count: usize) -> Result<()> {
        self.process.wait_for(text, DEADLINE, |transcript| {
            (transcript.stderr().filter(|line| line.contains(text)).count() >= count).then_some(())
        })
    }

    pub(crate) fn pid_in(&self, file: &str) -> Option<libc::pid_t> {
        fs::read_to_string(self.site.file(file)).ok()?.trim().parse().ok()
    }

    pub(crate) fn signal(&self, file: &str, signal: libc::c_int) -> libc::pid_t {
        let pid = self.pid_in(file).expect("it runs");
        // SAFETY: kill takes two integers and touches no memory of ours.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
        pid
    }

    /// Reloads, and waits until new workers have taken over.
    pub(crate) fn reload(&self) -> Result<()> {
        const SIGN: &str = "start worker processes";
        let before = self.lines_with(SIGN);
        self.signal("nginx.pid", libc::SIGHUP);
        self.wait_for_lines(SIGN, before + 1)
    }

    /// Ends it and starts it again with the same files.
    pub(crate) fn restart(self) -> Result<Nginx> {
        self.stop()?.start()
    }

    pub(crate) fn stop(mut self) -> Result<Site> {
        self.process.stop()?;
        // What is dropped with the rest is an empty folder.
        let empty = Site { folder: Folder::new()? };
        Ok(std::mem::replace(&mut self.site, empty))
    }
}

impl Drop for Nginx {
    /// A daemon is not the process that was started.
    fn drop(&mut self) {
        for file in ["nginx.pid", "nginx.pid.oldbin"] {
            if let Some(pid) = self.pid_in(file) {
                // SAFETY: kill takes two integers and touches no memory of ours.
                unsafe { libc::kill(pid, libc::SIGTERM) };
            }
        }
    }
}

/// What `make nginx-module` built beside the examples.
pub(crate) fn module(kind: &str) -> Result<PathBuf> {
    let name = format!("ngx_{kind}_tlsresume_module.so");
    let path = example("load_client")?.with_file_name("../nginx").join(&name);
    let missing = |_| Error::MissingExample { name: format!("{name} (make nginx-module)") };
    path.canonicalize().map_err(missing)
}

pub(crate) fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// `NAME.crt` and `NAME.key`, signed by themselves or by `[subject, issuer]`.
pub(crate) fn certificate(site: &Site, name: &str, names: &[&str]) {
    let (cert, key) = (site.file(&format!("{name}.crt")), site.file(&format!("{name}.key")));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-days", "2", "-subj", names[0]]);
    command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out"]);
    command.arg(cert).arg("-keyout").arg(key);
    if let [_, issuer] = names {
        command.arg("-CA").arg(site.file(&format!("{issuer}.crt")));
        command.arg("-CAkey").arg(site.file(&format!("{issuer}.key")));
    }
    let made = command.output().expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A configuration of the library that keeps everything at `memory`.
pub(crate) fn shared(memory: &Path, mode: &str) -> String {
    format!(
        "memory.path = \"{}\"\nmemory.size = \"2MiB\"\nresumption.mode = \"{mode}\"\n",
        memory.display()
    )
}

pub(crate) fn server(port: u16, rest: &str) -> String {
    format!(
        "server {{ listen 127.0.0.1:{port} ssl; {rest} location / {{ return 200 \"$answer\\n\"; }} }}"
    )
}

pub(crate) fn assert_all_resumed(what: &str, report: &LoadReport) {
    say(&format!("{what}: {report:?}"));
    assert_eq!((report.failed, report.not_resumed_after_first), (0, 0), "{what}: {report:?}");
    assert!(report.resumed > 0, "{what}: {report:?}");
}

pub(crate) fn pid_of(connection: &Connection) -> u32 {
    connection.answer.as_ref().expect("the server answers").pid
}

/// A site with one server, whose library keeps everything at `memory`.
pub(crate) fn site_on(memory: &Path, port: u16, workers: u32, cache: &str) -> Result<Site> {
    let site = Site::new()?;
    site.write("ticket.key", &"k".repeat(80));
    site.write("tlsresume.toml", &shared(memory, "stateless"));
    let http = format!("tlsresume tlsresume.toml; {}", server(port, cache));
    site.configure("", &Blocks { workers, http: &http, ..Blocks::default() })?;
    Ok(site)
}

/// Adds `/stats` to a server.
pub(crate) fn with_status(server: &str) -> String {
    server.replacen("location /", "location /stats { tlsresume_status; } location /", 1)
}

/// What a server without TLS answers, head and all.
pub(crate) fn ask(port: u16, method: &str, path: &str) -> Result<String> {
    let failed =
        |source| Error::Io { doing: format!("asking port {port} to {method} {path}"), source };
    let mut stream = TcpStream::connect(address(port)).map_err(failed)?;
    stream.set_read_timeout(Some(DEADLINE)).map_err(failed)?;
    write!(stream, "{method} {path} HTTP/1.0\r\n\r\n").map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    Ok(answer)
}
