//! nginx with the module and nginx with its own shared cache and tickets, both of which resume every client: what it
//! costs that the sessions are good beyond this one server.
//!
//! Instructions say what the code of nginx, OpenSSL and the library costs, on a busy machine too; rates and CPU time
//! add what they leave out, the kernel's work and the processor's caches.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde::Serialize;
use support::{Outcome, Spread, Table, progress, publish};
use tlsresume::clock;
use tlsresume_testkit::server::example;
use tlsresume_testkit::{Folder, LoadReport, Mode, Process, free_port, wait_until};

/// Pairs of runs; the side that goes first takes turns.
const ROUNDS: usize = 31;

const NGINX: &str = "/usr/sbin/nginx";
const WORKERS: usize = 2;

/// Clients at the same time, and the connections of all together in one run.
const CLIENTS: u32 = 4;
const CONNECTIONS: u32 = 2000;

/// Connections under callgrind: the difference is counted, without start and end.
const COUNTED: [u32; 2] = [50, 250];

const LIMIT: Duration = Duration::from_secs(60);

/// One side: a folder with a configuration that has no word yet on processes.
struct Site {
    folder: Folder,
    address: SocketAddr,
}

/// A running nginx, ended when dropped.
struct Nginx<'a> {
    site: &'a Site,
    workers: Vec<u32>,
    _process: Process,
}

/// What one run measured.
struct Run {
    /// Handshakes a second.
    rate: f64,
    /// CPU time of the workers for one connection, in microseconds.
    cpu_us: f64,
}

#[derive(Serialize)]
struct Comparison {
    mode: String,
    /// Handshakes a second, medians of the rounds.
    own: f64,
    module: f64,
    /// How many times as many the module makes.
    rate: Spread,
    /// CPU microseconds for one connection, medians of the rounds.
    own_cpu_us: f64,
    module_cpu_us: f64,
    /// How many times as much nginx's own cache costs.
    cpu: Spread,
    /// Instructions for one resumed connection.
    own_instructions: u64,
    module_instructions: u64,
    /// How many times as many nginx's own cache takes.
    instructions: f64,
    goal: f64,
}

/// The module is to be no slower than what it replaces.
const GOAL: f64 = 1.0;

fn main() -> Outcome<()> {
    let memory = Folder::in_memory()?;
    let own = Site::new("", "ssl_session_cache shared:SSL:16m; ssl_session_timeout 12h;")?;
    let module = example("load_client")?.with_file_name("../nginx/ngx_http_tlsresume_module.so");
    let load = format!("load_module {};", module.canonicalize()?.display());
    let module = Site::new(&load, "tlsresume ./tlsresume.toml;")?;
    fs::write(
        module.folder.file("tlsresume.toml"),
        format!(
            "memory.path = \"{}\"\nmemory.size = \"16MiB\"\n",
            memory.file("sessions").display()
        ),
    )?;

    let mut results = Vec::new();
    for mode in Mode::ALL {
        progress(format_args!("nginx: {mode}"));
        results.push(compare(mode, &own, &module)?);
    }
    publish("nginx", &results, &[table(&results)])
}

fn compare(mode: Mode, own: &Site, module: &Site) -> Outcome<Comparison> {
    let (own_instructions, module_instructions) =
        (own.instructions(mode)?, module.instructions(mode)?);
    let (own, module) = (own.start()?, module.start()?);

    // Warms up caches and clocks.
    own.run(mode)?;
    module.run(mode)?;

    let (mut owns, mut modules) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        if round % 2 == 0 {
            owns.push(own.run(mode)?);
            modules.push(module.run(mode)?);
        } else {
            modules.push(module.run(mode)?);
            owns.push(own.run(mode)?);
        }
    }

    let pairs = || owns.iter().zip(&modules);
    let rates = |runs: &[Run]| Spread::of(runs.iter().map(|run| run.rate)).median;
    let cpu_times = |runs: &[Run]| Spread::of(runs.iter().map(|run| run.cpu_us)).median;
    Ok(Comparison {
        mode: mode.to_string(),
        own: rates(&owns),
        module: rates(&modules),
        rate: Spread::of(pairs().map(|(own, module)| module.rate / own.rate)),
        own_cpu_us: cpu_times(&owns),
        module_cpu_us: cpu_times(&modules),
        cpu: Spread::of(pairs().map(|(own, module)| own.cpu_us / module.cpu_us)),
        own_instructions,
        module_instructions,
        instructions: count(own_instructions) / count(module_instructions),
        goal: GOAL,
    })
}

impl Site {
    /// One with `main` at the top of its configuration, and `http` in its server.
    fn new(main: &str, http: &str) -> Outcome<Site> {
        let folder = Folder::new()?;
        let port = free_port()?;
        make_certificate(&folder)?;
        fs::write(
            folder.file("nginx.conf"),
            format!(
                "{main}\npid nginx.pid;\ndaemon off;\nerror_log stderr notice;\n\
                 events {{ worker_connections 512; }}\n\
                 http {{\naccess_log off;\nclient_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp;\n\
                 uwsgi_temp_path tmp; scgi_temp_path tmp;\n\
                 server {{\nlisten 127.0.0.1:{port} ssl reuseport;\nssl_protocols TLSv1.2 TLSv1.3;\n\
                 ssl_certificate cert.pem;\nssl_certificate_key key.pem;\n{http}\n\
                 location / {{ return 200 ok; }}\n}}\n}}\n"
            ),
        )?;
        Ok(Site { folder, address: ([127, 0, 0, 1], port).into() })
    }

    fn spawn(&self, mut command: Command, main: &str) -> Outcome<Process> {
        command.arg("-p").arg(self.folder.path()).args(["-c", "nginx.conf", "-e", "stderr", "-g"]);
        command.arg(main);
        Ok(Process::start(command, "nginx")?)
    }

    fn start(&self) -> Outcome<Nginx<'_>> {
        let process = self.spawn(Command::new(NGINX), &format!("worker_processes {WORKERS};"))?;
        let workers = process.wait_for("its workers", LIMIT, |transcript| {
            let pids: Vec<u32> = transcript.stderr().filter_map(worker_pid).collect();
            (pids.len() == WORKERS).then_some(pids)
        })?;
        Ok(Nginx { site: self, workers, _process: process })
    }

    /// Instructions of one process for one resumed connection.
    fn instructions(&self, mode: Mode) -> Outcome<u64> {
        let [few, many] = COUNTED;
        let counted = self.count(mode, many)? - self.count(mode, few)?;
        Ok(counted / u64::from(many - few))
    }

    fn count(&self, mode: Mode, connections: u32) -> Outcome<u64> {
        let profile = self.folder.file("profile");
        let mut command = Command::new("valgrind");
        command.arg("--tool=callgrind");
        command.arg(format!("--callgrind-out-file={}", profile.display())).arg(NGINX);
        let mut process = self.spawn(command, "master_process off;")?;
        let mut served = Ok(LoadReport::default());
        wait_until("nginx under valgrind", LIMIT, || {
            served = self.load(mode, 1, 1);
            served.as_ref().is_ok_and(|report| report.handshakes == 1)
        })?;
        served?;
        let report = self.load(mode, connections, 1)?;
        // A signal that comes just before nginx waits for events is noticed with the next one.
        wait_until("its end", LIMIT, || {
            process.signal(libc::SIGTERM).is_err() || process.has_ended()
        })?;
        process.wait_end(LIMIT)?;
        if report.resumed != u64::from(connections - 1) {
            return Err(format!("load_client: {report:?}").into());
        }
        let profile = fs::read_to_string(profile)?;
        let summary = profile.lines().find_map(|line| line.strip_prefix("summary: "));
        Ok(summary.ok_or("callgrind wrote no summary")?.trim().parse()?)
    }

    /// Clients that return again and again, with so many connections together.
    fn load(&self, mode: Mode, connections: u32, clients: u32) -> Outcome<LoadReport> {
        let mut command = Command::new(example("load_client")?);
        command.args(["--connect", &self.address.to_string()]);
        command.args([
            "--connections",
            &connections.to_string(),
            "--threads",
            &clients.to_string(),
        ]);
        command.args(match mode {
            Mode::Tls12Id => ["--tls1.2", "--no-ticket"].as_slice(),
            Mode::Tls12Ticket => &["--tls1.2"],
            Mode::Tls13 => &["--tls1.3"],
        });
        Ok(serde_json::from_slice(&command.output()?.stdout)?)
    }
}

impl Nginx<'_> {
    fn run(&self, mode: Mode) -> Outcome<Run> {
        let (start, cpu_before) = (clock::since_boot(), self.cpu_time()?);
        let report = self.site.load(mode, CONNECTIONS, CLIENTS)?;
        let (elapsed, cpu) = (clock::since_boot() - start, self.cpu_time()? - cpu_before);
        let resumed = u64::from(CONNECTIONS - CLIENTS);
        if (report.handshakes, report.resumed) != (u64::from(CONNECTIONS), resumed) {
            return Err(format!("load_client: {report:?}").into());
        }
        Ok(Run {
            rate: f64::from(CONNECTIONS) / elapsed.as_secs_f64(),
            cpu_us: cpu.as_secs_f64() * 1e6 / f64::from(CONNECTIONS),
        })
    }

    /// What the workers have used so far, in user and system mode. Ticks of `stat` are too long for one run, so it is
    /// the same sum in nanoseconds.
    fn cpu_time(&self) -> Outcome<Duration> {
        let mut total = 0;
        for pid in &self.workers {
            let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
            total += text.split(' ').next().ok_or("schedstat is empty")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(total))
    }
}

fn count(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

/// Reads `… start worker process 123`.
fn worker_pid(line: &str) -> Option<u32> {
    line.split_once("start worker process ")?.1.parse().ok()
}

fn make_certificate(folder: &Folder) -> Outcome<()> {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=bench.example"])
        .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out"])
        .arg(folder.file("cert.pem"))
        .arg("-keyout")
        .arg(folder.file("key.pem"))
        .output()?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into());
    }
    Ok(())
}

fn table(results: &[Comparison]) -> Table {
    let mut table = Table::new(
        "nginx with its own cache, and with the module",
        &format!(
            "Its own: `ssl_session_cache shared:SSL:16m` and tickets. The module: a memory path, 16 MiB. {WORKERS} \
             workers, {CLIENTS} clients that return again and again and are resumed by both; clients and servers share \
             {} cores. {ROUNDS} pairs of runs of {CONNECTIONS} connections, in changing order; median ratio (min-max), \
             where more than 1 is to the module's credit. CPU and instructions are the workers', for a whole connection \
             with a request.",
            std::thread::available_parallelism().map_or(0, usize::from),
        ),
        &[
            "resumption",
            "own",
            "module",
            "rate",
            "own CPU",
            "module CPU",
            "CPU",
            "own instructions",
            "module instructions",
            "instructions",
            "goal",
        ],
    );
    for result in results {
        let verdict = if result.rate.median >= result.goal { "pass" } else { "fail" };
        table.row([
            result.mode.clone(),
            format!("{:.0}/s", result.own),
            format!("{:.0}/s", result.module),
            result.rate.to_string(),
            format!("{:.1} µs", result.own_cpu_us),
            format!("{:.1} µs", result.module_cpu_us),
            result.cpu.to_string(),
            result.own_instructions.to_string(),
            result.module_instructions.to_string(),
            format!("{:.3}", result.instructions),
            format!("{:.2}: {verdict}", result.goal),
        ]);
    }
    table
}
