//! `status`: one node at a glance.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tlsresume::clock;
use tlsresume::engine::{Engine, Nodes, Report, Secrets};

use crate::metrics::series;
use crate::output::{Exit, Failure, Output, table};

pub(crate) fn status(engine: &Engine, out: Output) -> Result<Exit, Failure> {
    let now = clock::now();
    let status = Status {
        realm: &engine.config().realm,
        path: memory_path(engine),
        report: engine.report(now),
        counters: counters(&engine.metrics(now)),
        cluster: cluster(engine),
    };
    out.print(|| status.json(), || status.text())
}

struct Status<'a> {
    realm: &'a str,
    path: String,
    report: Report,
    /// By the names of the README: `tickets_rejected{reason="mac"}`.
    counters: Vec<(String, Value)>,
    cluster: Vec<Fact>,
}

/// One line of the status.
struct Fact {
    name: &'static str,
    text: String,
    json: Value,
}

impl Status<'_> {
    fn json(&self) -> Value {
        let Report { keys, usage, sessions_live, key_age_seconds, .. } = &self.report;
        let mut status = json!({
            "realm": self.realm,
            "memory": self.path,
            "keys": {
                "pending": keys.pending,
                "active": keys.active,
                "accepting": keys.accepting,
                "revoked": keys.revoked,
            },
            "key_age_seconds": key_age_seconds,
            "sessions_live": sessions_live,
            "store_bytes": {
                "used": usage.used,
                "free": usage.free,
                "overhead": usage.overhead,
            },
            "counters": Map::from_iter(self.counters.iter().cloned()),
        });
        for fact in &self.cluster {
            status[fact.name] = fact.json.clone();
        }
        status
    }

    fn text(&self) -> String {
        let Report { keys, usage, sessions_live, key_age_seconds, .. } = &self.report;
        let age = humantime::format_duration(Duration::from_secs(*key_age_seconds));
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let mut rows = vec![
            row("realm", self.realm.to_owned()),
            row("memory", self.path.clone()),
            row(
                "keys",
                format!(
                    "{} pending, {} active, {} accepting, {} revoked",
                    keys.pending, keys.active, keys.accepting, keys.revoked
                ),
            ),
            row("key age", age.to_string()),
            row("sessions", format!("{sessions_live} live")),
            row(
                "store",
                format!(
                    "{} used, {} free, {} overhead",
                    bytes(usage.used),
                    bytes(usage.free),
                    bytes(usage.overhead)
                ),
            ),
        ];
        rows.extend(self.cluster.iter().map(|fact| row(fact.name, fact.text.clone())));
        let counted = self.counters.iter().filter(|(_, value)| value.as_u64() != Some(0));
        let counted: Vec<_> = counted.map(|(name, value)| row(name, value.to_string())).collect();
        [table(&rows), table(&counted)].join("\n").trim_end().to_owned()
    }
}

/// What there is between this node and others.
fn cluster(engine: &Engine) -> Vec<Fact> {
    let agent = engine.has_agent();
    let text = if agent { "alive" } else { "none" };
    let mut facts = vec![Fact { name: "agent", text: text.to_owned(), json: Value::Bool(agent) }];
    facts.extend(engine.secrets().map(|secrets| secret_fact(&secrets)));
    facts.extend(engine.nodes().map(|nodes| nodes_fact(&nodes, engine.secrets())));
    facts
}

/// Which secret the cluster's messages are sealed with here, by its id.
fn secret_fact(secrets: &Secrets) -> Fact {
    let Secrets { file, own, in_use, .. } = secrets;
    let file = file.display().to_string();
    let stale = match in_use {
        Some(in_use) if in_use != own => {
            format!("; the agent seals with {in_use}: restart the servers and agents here")
        }
        _ => String::new(),
    };
    Fact {
        name: "secret",
        text: format!("{own}, first in {file}{stale}"),
        json: json!({
            "file": file,
            "id": own.to_string(),
            "in_use": in_use.map(|id| id.to_string()),
        }),
    }
}

/// The nodes as the agent last heard of them.
fn nodes_fact(nodes: &Nodes, secrets: Option<Secrets>) -> Fact {
    let Nodes { heard, out_of_sync, other_secret, .. } = nodes;
    let other = secrets.and_then(|secrets| secrets.other).map(|id| id.to_string());
    let strangers = match &other {
        Some(id) if *other_secret > 0 => format!(
            "; {other_secret} with a secret that is not in this node's file ({id}): write the same secret into the \
             file on every host, and restart the servers there"
        ),
        _ => String::new(),
    };
    Fact {
        name: "nodes",
        text: format!("{heard} heard, {out_of_sync} out of sync{strangers}"),
        json: json!({
            "heard": heard,
            "out_of_sync": out_of_sync,
            "other_secret": other_secret,
            "other_secret_id": other,
        }),
    }
}

fn memory_path(engine: &Engine) -> String {
    let path = engine.config().memory.path.as_ref();
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

/// What only grows, under the names that the documentation uses.
fn counters(metrics: &str) -> Vec<(String, Value)> {
    let counter = |(name, value): (&str, Value)| {
        let (family, label) = name.split_at(name.find('{').unwrap_or(name.len()));
        let stem = family.strip_prefix("tlsresume_")?.strip_suffix("_total")?;
        Some((format!("{stem}{label}"), value))
    };
    series(metrics).filter_map(counter).collect()
}

/// In the largest unit that it fills.
fn bytes(count: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| count >> shift > 0) {
        Some((shift, unit)) => {
            let tenths = (u128::from(count) * 10) >> shift;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{count} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_the_names_of_the_readme_and_gauges_are_left_out() {
        let text = "tlsresume_tickets_rejected_total{reason=\"mac\"} 3\ntlsresume_keys 1\n";
        let expected = ("tickets_rejected{reason=\"mac\"}".to_owned(), Value::from(3));
        assert_eq!(counters(text), [expected]);
    }

    #[test]
    fn bytes_are_shown_in_a_unit_that_they_fill() {
        let shown = [0, 1023, 1024, 1536, (16 << 20) - 1, 16 << 20, u64::MAX].map(bytes);
        let expected =
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "15.9 MiB", "16.0 MiB", "17179869183.9 GiB"];
        assert_eq!(shown, expected);
    }
}
