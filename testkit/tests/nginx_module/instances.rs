//! The library's memory lives as long as a configuration or a connection needs it, and no longer;
//! that it is lost is said if it is, once it is.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use tlsresume_testkit::client::OpenSsl;
use tlsresume_testkit::{DEADLINE, Folder, Mode, Result, Visitor, free_port};

use crate::nginx::{Blocks, Nginx, Site, address, server, shared, site_on};

const LOSS: &str = "changed, and its memory with it";

/// A connection without TLS that is kept open.
struct KeptOpen {
    reader: BufReader<TcpStream>,
}

impl KeptOpen {
    fn to(port: u16) -> KeptOpen {
        let stream = TcpStream::connect(address(port)).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("it is not zero");
        KeptOpen { reader: BufReader::new(stream) }
    }

    /// The line with the status.
    fn get(&mut self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.reader.get_mut().write_all(request.as_bytes()).expect("it is open");
        let (mut status, mut length) = (String::new(), 0);
        self.reader.read_line(&mut status).expect("it answers");
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).expect("it answers");
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().expect("a number");
            }
            if line.trim().is_empty() {
                break;
            }
        }
        self.reader.read_exact(&mut vec![0; length]).expect("a body");
        status
    }
}

#[test]
fn a_connection_from_before_a_reload_has_its_status_without_a_master_process_too() -> Result<()> {
    let (site, port) = (Site::new()?, free_port()?);
    let status = "location / { tlsresume_status; }";
    let http = format!("tlsresume tlsresume.toml; server {{ listen 127.0.0.1:{port}; {status} }}");
    site.configure("master_process off;", &Blocks { http: &http, ..Blocks::default() })?;
    site.write("tlsresume.toml", "# 1\n");
    let mut command = site.command(&["-g", "daemon off;"]);
    // What is freed is overwritten.
    command.env("MALLOC_PERTURB_", "165");
    let nginx = site.start_alone(command, port)?;

    let mut connection = KeptOpen::to(port);
    assert!(connection.get("/").starts_with("HTTP/1.1 200"));
    for reload in 1..=3 {
        nginx.site.write("tlsresume.toml", &format!("# {reload} more\n"));
        nginx.signal("nginx.pid", libc::SIGHUP);
        // Said before it is done, but the one process that there is answers nobody meanwhile. Such
        // an nginx takes no new connections after it.
        nginx.wait_for_lines(": reconfiguring", reload)?;
        let status = connection.get("/");
        assert!(status.starts_with("HTTP/1.1 200"), "{status}{}", nginx.log());
    }
    assert_eq!(nginx.lines_with("[emerg]"), 0, "{}", nginx.log());
    Ok(())
}

/// How many mappings a process shares with others: nginx's own, and the library's.
fn shared_mappings(nginx: &Nginx) -> usize {
    let pid = nginx.pid_in("nginx.pid").expect("it runs");
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    maps.lines().filter(|line| line.contains(" rw-s ")).count()
}

#[test]
fn reloads_with_changed_files_leave_no_memory_behind() -> Result<()> {
    let memory = Folder::in_memory()?;
    let at_path = shared(&memory.file("sessions"), "stateless");
    for text in ["", &at_path] {
        let (site, ports) = (Site::new()?, [free_port()?, free_port()?]);
        let write =
            |site: &Site, round: &str| site.write("tlsresume.toml", &format!("{text}# {round}\n"));
        let http = format!("tlsresume tlsresume.toml; {}", server(ports[0], ""));
        let stream = format!(
            "tlsresume tlsresume.toml; server {{ listen 127.0.0.1:{} ssl; return ok; }}",
            ports[1]
        );
        let good = Blocks { http: &http, stream: &stream, ..Blocks::default() };
        let nonsense = format!("{stream} nonsense;");
        let bad = Blocks { http: &http, stream: &nonsense, ..Blocks::default() };
        write(&site, "0");
        site.configure("", &good)?;
        let nginx = site.start()?;
        let at_start = shared_mappings(&nginx);
        for round in 1..=4 {
            // One that fails after the file was taken, and one that does not.
            write(&nginx.site, &format!("{round}, not in force"));
            nginx.site.configure("", &bad)?;
            nginx.signal("nginx.pid", libc::SIGHUP);
            nginx.wait_for_lines("unknown directive \"nonsense\"", round)?;
            write(&nginx.site, &round.to_string());
            nginx.site.configure("", &good)?;
            nginx.reload()?;
            assert_eq!(shared_mappings(&nginx), at_start, "{round}: {}", nginx.log());
        }
    }
    Ok(())
}

#[test]
fn a_failed_reload_says_nothing_of_memory_and_the_next_good_one_what_it_costs() -> Result<()> {
    let (site, port) = (Site::new()?, free_port()?);
    site.write("tlsresume.toml", "# A\n");
    let http = format!("tlsresume tlsresume.toml; {}", server(port, ""));
    site.configure("", &Blocks { http: &http, ..Blocks::default() })?;
    let nginx = site.start()?;
    let client = OpenSsl::new();
    let visitor = client.first_visit(address(port), Mode::Tls12Ticket)?;

    let nonsense = format!("{http} nonsense;");
    nginx.site.write("tlsresume.toml", "# B\n");
    nginx.site.configure("", &Blocks { http: &nonsense, ..Blocks::default() })?;
    nginx.signal("nginx.pid", libc::SIGHUP);
    nginx.wait_for_lines("unknown directive \"nonsense\"", 1)?;
    assert!(visitor.come_back_as(&client, address(port))?.resumed(), "{}", nginx.log());
    assert_eq!(nginx.lines_with(LOSS), 0, "{}", nginx.log());

    nginx.site.write("tlsresume.toml", "# C\n");
    nginx.site.configure("", &Blocks { http: &http, ..Blocks::default() })?;
    nginx.reload()?;
    nginx.wait_for_lines("exited with code 0", 1)?;
    assert!(!visitor.come_back_as(&client, address(port))?.reused, "{}", nginx.log());
    assert_eq!(nginx.lines_with(LOSS), 1, "{}", nginx.log());
    Ok(())
}

#[test]
fn a_path_to_memory_that_has_seen_more_is_a_loss_all_the_same() -> Result<()> {
    let (memory, client) = (Folder::in_memory()?, OpenSsl::new());
    let busy_port = free_port()?;
    let _busy = site_on(&memory.file("sessions"), busy_port, 1, "")?.start()?;
    for mode in Mode::ALL.into_iter().cycle().take(9) {
        let visitor = client.first_visit(address(busy_port), mode)?;
        assert!(visitor.come_back_as(&client, address(busy_port))?.resumed());
    }

    let (site, port) = (Site::new()?, free_port()?);
    site.write("tlsresume.toml", "");
    let http = format!("tlsresume tlsresume.toml; {}", server(port, ""));
    site.configure("", &Blocks { http: &http, ..Blocks::default() })?;
    let nginx = site.start()?;
    let visitor = client.first_visit(address(port), Mode::Tls12Ticket)?;
    nginx.site.write("tlsresume.toml", &shared(&memory.file("sessions"), "stateless"));
    nginx.reload()?;
    nginx.wait_for_lines("exited with code 0", 1)?;
    assert!(!visitor.come_back_as(&client, address(port))?.reused, "{}", nginx.log());
    assert_eq!(nginx.lines_with(LOSS), 1, "{}", nginx.log());
    Ok(())
}

#[test]
fn memory_without_a_session_is_no_loss() -> Result<()> {
    let (site, port) = (Site::new()?, free_port()?);
    site.write("tlsresume.toml", "# A\n");
    let http = format!("tlsresume tlsresume.toml; {}", server(port, ""));
    site.configure("", &Blocks { http: &http, ..Blocks::default() })?;
    let nginx = site.start()?;
    nginx.site.write("tlsresume.toml", "# B\n");
    nginx.reload()?;
    assert_eq!(nginx.lines_with(LOSS), 0, "{}", nginx.log());
    Ok(())
}

#[test]
fn off_for_one_reload_forgets_nobody() -> Result<()> {
    let (site, port) = (Site::new()?, free_port()?);
    let client = OpenSsl::new();
    let configure = |site: &Site, word: &str| {
        let http = format!("tlsresume {word}; {}", server(port, ""));
        site.configure("", &Blocks { http: &http, ..Blocks::default() })
    };
    site.write("tlsresume.toml", "");
    configure(&site, "tlsresume.toml")?;
    let nginx = site.start()?;
    let visitor = client.first_visit(address(port), Mode::Tls12Id)?;
    for (generation, word) in ["off", "tlsresume.toml"].into_iter().enumerate() {
        configure(&nginx.site, word)?;
        nginx.reload()?;
        nginx.wait_for_lines("exited with code 0", generation + 1)?;
        let back = visitor.come_back_as(&client, address(port))?;
        assert_eq!(back.reused, word != "off", "{word}: {back:?}\n{}", nginx.log());
    }
    assert_eq!(nginx.lines_with(LOSS), 0, "{}", nginx.log());
    assert!(!visitor.first().reused);
    Ok(())
}

#[test]
fn a_signal_by_nginx_itself_makes_no_memory() -> Result<()> {
    let (memory, port) = (Folder::in_memory()?, free_port()?);
    let path = memory.file("sessions");
    let nginx = site_on(&path, port, 1, "")?.start()?;
    fs::remove_file(&path).expect("the start made it");
    let sent = nginx.site.command(&["-s", "reload"]).output().expect("nginx is installed");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    // The master has its memory already: a file would be that of "nginx -s".
    nginx.wait_for_lines("start worker processes", 2)?;
    assert!(!path.exists(), "{}", nginx.log());
    Ok(())
}
