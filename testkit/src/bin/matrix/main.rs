//! Prints the resumption matrix as a table in Markdown: of how many returns how many resumed.
//! Fails when any did not.

use std::process::ExitCode;

use tlsresume_testkit::matrix::{self, Kind, Place};
use tlsresume_testkit::{Result, client};

const VISITS: usize = 5;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program")]
fn main() -> ExitCode {
    match table() {
        Ok((table, all_resumed)) => {
            print!("{table}");
            ExitCode::from(u8::from(!all_resumed))
        }
        Err(error) => {
            eprintln!("matrix: {error}");
            ExitCode::FAILURE
        }
    }
}

fn table() -> Result<(String, bool)> {
    let clients = client::all();
    let mut table = "| session | client |".to_owned();
    Place::ALL.iter().for_each(|place| table += &format!(" {place} |"));
    table += "\n|---|---|---|---|---|---|\n";

    let mut all_resumed = true;
    for kind in Kind::ALL {
        for client in &clients {
            table += &format!("| {kind} | {} |", client.name());
            for place in Place::ALL {
                let returns = matrix::run(&**client, kind, place, VISITS)?;
                let resumed = returns.iter().filter(|it| it.resumed()).count();
                table += &format!(" {resumed}/{VISITS} |");
                all_resumed &= resumed == VISITS;
            }
            table += "\n";
        }
    }
    Ok((table, all_resumed))
}
