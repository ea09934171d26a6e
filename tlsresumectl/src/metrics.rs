//! `metrics`: the node's numbers as Prometheus text, or the same as JSON.

use serde_json::{Map, Value};
use tlsresume::clock;
use tlsresume::engine::Engine;

use crate::output::{Exit, Failure, Output};

pub(crate) fn metrics(engine: &Engine, out: Output) -> Result<Exit, Failure> {
    let text = engine.metrics(clock::now());
    let json = || -> Map<String, Value> {
        series(&text).map(|(name, value)| (name.to_owned(), value)).collect()
    };
    out.print(|| Value::Object(json()), || text.clone())
}

/// Every series with its value.
pub(crate) fn series(text: &str) -> impl Iterator<Item = (&str, Value)> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name, value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_its_name_with_labels_and_its_number() {
        let text = "# HELP a b.\n# TYPE a counter\na_total{reason=\"x y\"} 7\nb 0.5\n";
        let found: Vec<_> = series(text).collect();
        assert_eq!(found, [("a_total{reason=\"x y\"}", 7.into()), ("b", 0.5.into())]);
    }
}
