//! The metrics of a server, as numbers.

use std::net::SocketAddr;

use crate::client::OpenSsl;
use crate::{Error, Result};

/// What `GET /stats` of a server with `--handle` said.
#[derive(Debug, Clone)]
pub struct Stats(String);

impl Stats {
    /// Asks the server; its counters are those of all processes that share its memory.
    pub fn of(server: SocketAddr) -> Result<Stats> {
        let text = OpenSsl::new().get(server, "/stats")?;
        let is_metrics = text.contains("tlsresume_");
        is_metrics.then_some(Stats(text.clone())).ok_or(Error::Unexpected {
            program: "prefork_server".into(),
            reason: "has no metrics".into(),
            log: text,
        })
    }

    /// The value of one metric, named without the prefix and with its labels:
    /// `keys{state="active"}`.
    ///
    /// # Panics
    /// When there is no such metric: the test is wrong.
    pub fn get(&self, name: &str) -> u64 {
        let value = |line: &str| {
            line.strip_prefix("tlsresume_")?.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()
        };
        let found = self.0.lines().find_map(value);
        found.unwrap_or_else(|| panic!("no metric {name} in\n{}", self.0))
    }

    /// The sum over all labels of a metric.
    pub fn sum(&self, name: &str) -> u64 {
        let value = |line: &str| {
            let labels = line.strip_prefix("tlsresume_")?.strip_prefix(name)?.strip_prefix('{')?;
            labels.rsplit_once(' ')?.1.parse::<u64>().ok()
        };
        self.0.lines().filter_map(value).sum()
    }
}
