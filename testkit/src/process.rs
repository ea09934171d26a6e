//! A child process whose output is read as it comes and which never outlives the test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libc::c_int;

use crate::error::Doing;
use crate::{Error, Result};

/// How long a process gets to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(7);

/// A running program.
///
/// The kernel kills it when the thread that started it ends, so that nothing is left behind by a
/// test that was itself killed: start processes on a thread that lives as long as they should.
#[derive(Debug)]
pub struct Process {
    program: String,
    child: Child,
    input: Option<ChildStdin>,
    output: Arc<Output>,
}

/// What the process has printed, filled by one thread for each stream.
#[derive(Debug)]
struct Output {
    transcript: Mutex<Transcript>,
    changed: Condvar,
}

/// The lines of a process, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub struct Transcript {
    lines: Vec<(Stream, String)>,
    open_streams: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

impl Process {
    /// Starts `command`, a program of the Debian package `package`.
    pub fn start(mut command: Command, package: &'static str) -> Result<Process> {
        let program = program_name(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        die_with_us(&mut command);

        let mut child = command.spawn().map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::MissingProgram { program: program.clone(), package },
            _ => Error::Io { doing: format!("starting {program}"), source },
        })?;
        let input = child.stdin.take();
        let output = Arc::new(Output {
            transcript: Mutex::new(Transcript { lines: Vec::new(), open_streams: 2 }),
            changed: Condvar::new(),
        });
        let streams = child.stdout.take().zip(child.stderr.take());
        let process = Process { program, child, input, output };
        let (out, err) = streams.expect("both streams were asked to be pipes");
        process.collect(Stream::Out, out)?;
        process.collect(Stream::Err, err)?;
        Ok(process)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes `text` to its standard input.
    pub fn write(&mut self, text: &str) -> Result<()> {
        match &mut self.input {
            Some(input) => input
                .write_all(text.as_bytes())
                .and_then(|()| input.flush())
                .doing(format!("writing to {}", self.program)),
            None => Err(self.unexpected("its input is closed")),
        }
    }

    /// Ends its standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits until `find` finds something in what was printed. Fails after `limit`, and at once
    /// when the process closed its output before that.
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut find: impl FnMut(&Transcript) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut transcript = self.output.lock();
        loop {
            if let Some(found) = find(&transcript) {
                return Ok(found);
            }
            let log = || transcript.to_string();
            if transcript.is_complete() {
                let reason = format!("ended before: {what}");
                return Err(Error::Unexpected {
                    program: self.program.clone(),
                    reason,
                    log: log(),
                });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = format!("{}: {what}", self.program);
                return Err(Error::TimedOut { what, limit, log: log() });
            }
            transcript = self.output.wait(transcript, left);
        }
    }

    /// Whether it and all its children have ended.
    pub fn has_ended(&self) -> bool {
        self.output.lock().is_complete()
    }

    /// Waits until it and all its children have ended, and returns how it did.
    pub fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.wait_for("its end", limit, |transcript| transcript.is_complete().then_some(()))?;
        self.child.wait().doing(format!("waiting for {}", self.program))
    }

    /// Sends it a signal; nothing happens when it has ended.
    pub fn signal(&mut self, signal: c_int) -> Result<()> {
        // One that was waited for has no pid any more: it may be another's by now.
        if self.child.try_wait().doing("asking for a process")?.is_some() {
            return Ok(());
        }
        send_signal(self.pid(), signal)
    }

    /// Asks it to end, and kills it if it does not.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(libc::SIGTERM)?;
        if self.wait_end(GRACE).is_ok() {
            return Ok(());
        }
        self.kill()
    }

    /// Kills it and waits until it and all its children are gone.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(libc::SIGKILL)?;
        self.wait_end(GRACE).map(drop)
    }

    /// What it has printed so far.
    pub fn transcript(&self) -> Transcript {
        self.output.lock().clone()
    }

    /// An error that says `reason` and what the process has printed.
    pub fn unexpected(&self, reason: impl Into<String>) -> Error {
        Error::Unexpected {
            program: self.program.clone(),
            reason: reason.into(),
            log: self.transcript().to_string(),
        }
    }

    fn collect(&self, stream: Stream, source: impl Read + Send + 'static) -> Result<()> {
        let output = Arc::clone(&self.output);
        thread::Builder::new()
            .name(format!("output of {}", self.program))
            .spawn(move || output.read(stream, source))
            .map(drop)
            .doing("starting a thread")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let stopped = self.stop();
        if thread::panicking() {
            dump(&format!("--- {} ---\n{}", self.program, self.transcript()));
        }
        if let Err(error) = stopped {
            dump(&error.to_string());
        }
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Transcript> {
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        transcript: MutexGuard<'a, Transcript>,
        limit: Duration,
    ) -> MutexGuard<'a, Transcript> {
        let woken = self.changed.wait_timeout(transcript, limit);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    fn read(&self, stream: Stream, source: impl Read) {
        for line in BufReader::new(source).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.lock().lines.push((stream, line));
            self.changed.notify_all();
        }
        self.lock().open_streams -= 1;
        self.changed.notify_all();
    }
}

impl Transcript {
    /// The lines of standard output.
    pub fn stdout(&self) -> impl Iterator<Item = &str> {
        self.lines_of(Stream::Out)
    }

    /// The lines of standard error.
    pub fn stderr(&self) -> impl Iterator<Item = &str> {
        self.lines_of(Stream::Err)
    }

    fn lines_of(&self, stream: Stream) -> impl Iterator<Item = &str> {
        self.lines.iter().filter(move |(from, _)| *from == stream).map(|(_, line)| line.as_str())
    }

    /// Nobody can print any more.
    fn is_complete(&self) -> bool {
        self.open_streams == 0
    }
}

impl std::fmt::Display for Transcript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lines.iter().try_for_each(|(stream, line)| match stream {
            Stream::Out => writeln!(f, "{line}"),
            Stream::Err => writeln!(f, "! {line}"),
        })
    }
}

/// Sends `signal` to a process that is known to exist, such as a worker that a server named.
pub(crate) fn send_signal(pid: u32, signal: c_int) -> Result<()> {
    let pid =
        libc::pid_t::try_from(pid).map_err(std::io::Error::other).doing("naming a process")?;
    // SAFETY: kill takes two integers and touches no memory of ours.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => {
            Err(std::io::Error::last_os_error()).doing(format!("sending signal {signal} to {pid}"))
        }
    }
}

/// Sends `signal` to all members of a process group.
pub(crate) fn send_signal_to_group(group: u32, signal: c_int) -> Result<()> {
    let group =
        libc::pid_t::try_from(group).map_err(std::io::Error::other).doing("naming a group")?;
    // SAFETY: killpg takes two integers and touches no memory of ours.
    match unsafe { libc::killpg(group, signal) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error())
            .doing(format!("sending signal {signal} to the group {group}")),
    }
}

/// Has the kernel kill the process when the thread that starts it ends.
fn die_with_us(command: &mut Command) {
    let ask = || {
        // SAFETY: prctl(PR_SET_PDEATHSIG) takes integers and concerns the calling process only.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: `ask` runs between fork and exec, where only async-signal-safe functions are
    // allowed: it makes one system call and allocates nothing.
    unsafe { command.pre_exec(ask) };
}

fn program_name(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    name.to_string_lossy().into_owned()
}

/// A command of lower priority than all that is started otherwise.
pub fn yielding(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "5"]).arg(program);
    command
}

/// Prints what a test says about itself; the test harness shows it when the test failed.
#[expect(clippy::print_stdout, reason = "the harness collects what tests print")]
pub fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "the log of a failed test belongs on its terminal")]
fn dump(text: &str) {
    eprintln!("{text}");
}
