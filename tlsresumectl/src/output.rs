//! The only place that prints.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use serde_json::Value;
use tlsresume::error::Error;

/// What the exit status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, everywhere.
    Done,
    /// The arguments or the configuration are wrong, or the system refused.
    Refused,
    /// Nothing is there: no memory, or nobody who has it.
    Nothing,
    /// Done here, but not everywhere.
    NotEverywhere,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Refused => 1,
            Exit::Nothing => 2,
            Exit::NotEverywhere => 3,
        })
    }
}

/// Why a command was not done, or not everywhere.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) reason: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error {
            Error::OnThisNodeOnly(_) => Exit::NotEverywhere,
            _ => Exit::Refused,
        };
        Failure { exit, reason: error.to_string() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure { exit: Exit::Refused, reason: error.to_string() }
    }
}

/// How a result is printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// As JSON instead of text.
    pub(crate) json: bool,
}

impl Output {
    /// Prints a result in the form that was asked for.
    pub(crate) fn print(
        self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> Result<Exit, Failure> {
        let mut result = if self.json { json().to_string() } else { text() };
        if !result.ends_with('\n') {
            result.push('\n');
        }
        let mut out = io::stdout().lock();
        match out.write_all(result.as_bytes()).and_then(|()| out.flush()) {
            // Whoever read along has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Done),
            Err(error) => {
                Err(Failure { exit: Exit::Refused, reason: format!("standard output: {error}") })
            }
            Ok(()) => Ok(Exit::Done),
        }
    }
}

/// Says on standard error what was not done, or not everywhere.
pub(crate) fn complain(failure: &dyn Display) {
    // Where it cannot be said, the exit status still tells.
    let _ = writeln!(io::stderr(), "tlsresumectl: {failure}");
}

/// Columns as wide as their widest cell, but for the last.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell: &String| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  "));
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_on_this_node_only_is_not_done_everywhere() {
        assert_eq!(Failure::from(Error::OnThisNodeOnly("why")).exit, Exit::NotEverywhere);
        assert_eq!(Failure::from(Error::Ring("why")).exit, Exit::Refused);
    }

    #[test]
    fn columns_line_up_and_lines_have_no_blanks_at_their_end() {
        let rows = [["a", "bbb", "c"], ["aaaa", "b", ""]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "a     bbb  c\naaaa  b\n");
        assert_eq!(table(&[]), "");
    }
}
