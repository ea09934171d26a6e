//! Whom a change of keys or sessions reached: the processes that have this memory, and the nodes of the cluster.

use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tlsresume::clock;
use tlsresume::engine::{Engine, Nodes};

use crate::attached::{self, Attached};
use crate::output::{Exit, complain};

/// Longest wait for other nodes to say that they have a change. They say so every two seconds.
const NODES_PATIENCE: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(50);

/// Of one change.
pub(crate) struct Reach<'a> {
    path: &'a Path,
    /// `None`: the system does not tell.
    processes: Option<Attached>,
    /// `None`: there is no cluster.
    nodes: Option<Nodes>,
}

impl<'a> Reach<'a> {
    /// Whom the change reached that was just made. With a cluster it waits for the nodes' word on it.
    pub(crate) fn of_change(engine: &'a Engine) -> Self {
        let path = engine.config().memory.path.as_deref().unwrap_or(Path::new(""));
        let nodes = nodes_after_change(engine);
        Reach { path, processes: attached::to(path), nodes }
    }

    /// In few words: `4 processes here, 3 nodes`.
    pub(crate) fn text(&self) -> String {
        let here = match self.processes {
            None => "an unknown number of processes here (/proc does not tell)".to_owned(),
            Some(Attached { current: 0, .. }) => "no process here".to_owned(),
            Some(Attached { current, .. }) => {
                count(current as u64, "process", "processes") + " here"
            }
        };
        match self.nodes {
            None => here,
            Some(nodes) => format!("{here}, {}", count(in_sync(&nodes), "node", "nodes")),
        }
    }

    /// Adds what is known to the JSON of a change.
    pub(crate) fn add_to(&self, mut change: Value) -> Value {
        change["processes"] = self.processes.map(|processes| processes.current).into();
        change["processes_with_another_file"] =
            self.processes.map(|processes| processes.other).into();
        change["processes_unreadable"] =
            self.processes.map(|processes| processes.unreadable).into();
        if let Some(nodes) = &self.nodes {
            change["nodes"] = json!(in_sync(nodes));
            change["nodes_not_reached"] = json!(nodes.out_of_sync);
            change["transport_up"] = json!(nodes.is_connected);
        }
        change
    }

    /// Says on standard error what was not reached and what to do, and gives the exit status.
    pub(crate) fn conclude(&self) -> Exit {
        let missed = self.missed();
        for line in &missed {
            complain(line);
        }
        if !missed.is_empty() {
            return Exit::NotEverywhere;
        }
        match self.processes {
            Some(Attached { current: 0, unreadable, .. }) => {
                let but = match unreadable {
                    0 => String::new(),
                    some => format!(" ({some} of its user's processes may not be looked at)"),
                };
                complain(&format_args!(
                    "no process has {} open{but}: the change is stored and holds for servers that start later",
                    self.path.display()
                ));
                Exit::Nothing
            }
            _ => Exit::Done,
        }
    }

    fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        if let Some(Attached { other, .. }) = self.processes
            && other > 0
        {
            let (have, them) = if other == 1 { ("has", "it") } else { ("have", "them") };
            missed.push(format!(
                "not reached: {} {have} an older file of {}, which was removed or replaced; restart {them}",
                count(other as u64, "process", "processes"),
                self.path.display()
            ));
        }
        match self.nodes {
            Some(Nodes { is_connected: false, .. }) => missed.push(
                "other nodes not reached: this node has no connection to Redis now; they have the change once it has \
                 one (tlsresumectl status shows whether an agent runs)"
                    .to_owned(),
            ),
            Some(Nodes { heard, out_of_sync, other_secret, .. }) if out_of_sync > 0 => {
                let look = match other_secret {
                    0 => "at their connections to Redis and clocks".to_owned(),
                    some => format!("at cluster.secret_file: {some} of them have another secret"),
                };
                missed.push(format!(
                    "{out_of_sync} of {heard} nodes did not say within {} s that they have the change; look at \
                     tlsresumectl status, and {look}",
                    NODES_PATIENCE.as_secs()
                ));
            }
            _ => {}
        }
        missed
    }
}

/// This node always has its own change.
fn in_sync(nodes: &Nodes) -> u64 {
    match nodes.is_connected {
        true => nodes.heard.saturating_sub(nodes.out_of_sync).max(1),
        false => 1,
    }
}

/// What the agent heard of the nodes once it has compared their rings with the changed one.
fn nodes_after_change(engine: &Engine) -> Option<Nodes> {
    let changed = clock::since_boot();
    loop {
        let nodes = engine.nodes()?;
        let waited = clock::since_boot() - changed;
        let is_told = waited > nodes.told_within && nodes.out_of_sync == 0;
        if !nodes.is_connected || is_told || waited > nodes.told_within + NODES_PATIENCE {
            return Some(nodes);
        }
        thread::sleep(PAUSE);
    }
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(processes: Option<(usize, usize)>, nodes: Option<(u64, u64, bool)>) -> Reach<'static> {
        Reach {
            path: Path::new("/run/a"),
            processes: processes.map(|(current, other)| Attached { current, other, unreadable: 0 }),
            nodes: nodes.map(|(heard, out_of_sync, is_connected)| Nodes {
                heard,
                out_of_sync,
                other_secret: 0,
                is_connected,
                told_within: Duration::ZERO,
            }),
        }
    }

    #[test]
    fn it_is_told_in_numbers_and_nodes_only_where_there_is_a_cluster() {
        for (processes, nodes, text) in [
            (Some((4, 0)), Some((3, 0, true)), "4 processes here, 3 nodes"),
            (Some((1, 2)), None, "1 process here"),
            (Some((0, 0)), Some((1, 0, true)), "no process here, 1 node"),
            (Some((2, 0)), Some((3, 1, true)), "2 processes here, 2 nodes"),
            (Some((2, 0)), Some((3, 0, false)), "2 processes here, 1 node"),
            (None, None, "an unknown number of processes here (/proc does not tell)"),
        ] {
            assert_eq!(reach(processes, nodes).text(), text);
        }
    }

    #[test]
    fn the_exit_status_says_whether_it_was_everywhere() {
        for (processes, nodes, exit) in [
            (Some((4, 0)), None, Exit::Done),
            (Some((4, 0)), Some((3, 0, true)), Exit::Done),
            (None, None, Exit::Done),
            (Some((0, 0)), None, Exit::Nothing),
            (Some((4, 1)), None, Exit::NotEverywhere),
            (Some((0, 1)), None, Exit::NotEverywhere),
            (Some((4, 0)), Some((3, 1, true)), Exit::NotEverywhere),
            (Some((4, 0)), Some((3, 0, false)), Exit::NotEverywhere),
        ] {
            assert_eq!(reach(processes, nodes).conclude(), exit, "{processes:?} {nodes:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_null() {
        let change = reach(None, None).add_to(json!({ "forgotten": 1 }));
        let expected = json!({ "forgotten": 1, "processes": null, "processes_with_another_file": null,
            "processes_unreadable": null });
        assert_eq!(change, expected);
    }
}
