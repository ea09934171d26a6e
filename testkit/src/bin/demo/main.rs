//! What libtlsresume changes, shown on real servers and clients.
//!
//! Two servers of two workers each, as behind a load balancer, serve returning clients through a
//! rotation of the ticket keys, the death of workers and a restart of both; once with plain OpenSSL
//! and once with the library. Prints a table, or JSON with `--json`; fails when with the library any
//! client was not resumed.

mod fleet;
mod interrupt;
mod measure;
mod report;

use std::env;
use std::process::ExitCode;

use fleet::Fleet;
use interrupt::{Outcome, Stop};
use measure::{Measurement, Situation};
use report::Report;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program")]
fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let as_json = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--json"] => true,
        _ => {
            eprintln!("usage: demo [--json]");
            return ExitCode::from(2);
        }
    };

    interrupt::catch();
    match run() {
        Ok(report) => {
            let text = if as_json { report.to_json() } else { report.to_table() };
            print!("{text}");
            ExitCode::from(u8::from(!report.ok))
        }
        Err(Stop::Interrupted) => ExitCode::from(interrupt::EXIT_CODE),
        Err(Stop::OutOfTime) => {
            eprintln!("demo: not done after {} s", interrupt::TIME_LIMIT_S);
            ExitCode::FAILURE
        }
        Err(Stop::Failed(error)) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One fleet after the other, so that they do not compete for the processors.
fn run() -> Outcome<Report> {
    let without = measure_all(Fleet::start(false)?)?;
    let with = measure_all(Fleet::start(true)?)?;
    Ok(Report::new(&Situation::ALL.map(Situation::name), without, with))
}

fn measure_all(mut fleet: Fleet) -> Outcome<Vec<Measurement>> {
    let measure_one = |situation| measure::measure(&mut fleet, situation);
    Situation::ALL.into_iter().map(measure_one).collect()
}
