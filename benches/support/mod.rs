//! What the benchmarks share: progress, repeated samples, and results as a table and as JSON.

use std::env;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use serde::Serialize;

/// A benchmark that cannot measure says why and ends.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Says on the terminal what is going on.
#[expect(clippy::print_stderr, reason = "progress is for whoever waits at the terminal")]
pub(crate) fn progress(text: impl fmt::Display) {
    eprintln!("bench: {text}");
}

/// Several measurements of one thing.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(samples: impl IntoIterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (sorted[0], sorted[sorted.len() - 1]);
        Spread { median: sorted[sorted.len() / 2], min, max }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ({:.3}-{:.3})", self.median, self.min, self.max)
    }
}

/// A table in Markdown.
pub(crate) struct Table {
    text: String,
}

impl Table {
    pub(crate) fn new(title: &str, note: &str, columns: &[&str]) -> Table {
        let mut table = Table { text: format!("## {title}\n\n{note}\n\n") };
        table.row(columns.iter().map(ToString::to_string));
        table.row(columns.iter().map(|_| "---".to_owned()));
        table
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().collect();
        self.text += &format!("| {} |\n", cells.join(" | "));
    }
}

/// Prints the tables and writes them, and the results as JSON, to `target/bench`.
#[expect(clippy::print_stdout, reason = "the tables are what a benchmark is run for")]
pub(crate) fn publish(name: &str, results: &impl Serialize, tables: &[Table]) -> Outcome<()> {
    let text: String = tables.iter().map(|table| format!("{}\n", table.text)).collect();
    print!("{text}");
    let folder = target_folder()?.join("bench");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("{name}.md")), text)?;
    fs::write(folder.join(format!("{name}.json")), serde_json::to_string_pretty(results)?)?;
    Ok(())
}

/// The folder of cargo's that this program was built in, `target/release/deps/PROGRAM`.
fn target_folder() -> Outcome<PathBuf> {
    let program = env::current_exe()?;
    let folder =
        program.ancestors().nth(3).ok_or("the benchmark is not in cargo's target folder")?;
    Ok(folder.to_path_buf())
}
