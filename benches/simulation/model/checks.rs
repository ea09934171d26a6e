//! What is claimed, and what is counted on the way.

use std::collections::HashMap;

use serde::Serialize;
use tlsresume::clock::UnixMillis;
use tlsresume::ring::KeyName;
use tlsresume::ring::sharing::Field;

use super::Millis;

/// A ticket that a client keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) key: KeyName,
    /// When its key counts as made.
    pub(crate) made: UnixMillis,
    pub(crate) issuer: usize,
    pub(crate) issued: Millis,
    /// Until when its session lives, by the clock of its issuer.
    pub(crate) ends: u64,
    /// Whether claim 1 is about it.
    pub(crate) in_touch: bool,
}

/// The making of a key.
#[derive(Clone, Copy, Debug)]
struct Birth {
    at: Millis,
    /// The maker could tell others.
    told: bool,
    published: bool,
    /// How long the last one that could be told took to hear it.
    slowest: Millis,
}

pub(crate) const CLAIMS: usize = 4;

/// What a run came to. Times are milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) nodes: usize,
    pub(crate) seed: u64,
    pub(crate) hours: f64,
    pub(crate) faults: u64,
    pub(crate) restarts: u64,
    pub(crate) revocations: u64,
    pub(crate) tickets_issued: u64,
    /// How often each claim was put to the test: of claims 1 and 2 tickets, of claim 3 all nodes at once, of claim 4
    /// revocations, each time that all nodes that can have heard of one are asked.
    pub(crate) claims_tried: [u64; CLAIMS],
    /// Presented to a reachable node, and claim 1 or 2 is about them; and those of them that were refused.
    pub(crate) tickets_tried: u64,
    pub(crate) tickets_refused: u64,
    /// The others that reached a reachable node, and those of them that were refused.
    pub(crate) tickets_excluded: u64,
    pub(crate) excluded_refused: u64,
    /// From the making of a key until every node that could be told knows it.
    pub(crate) key_reaches_all_median: Millis,
    pub(crate) key_reaches_all_p99: Millis,
    /// From the end of a fault until nobody learns anything more.
    pub(crate) convergence_median: Millis,
    pub(crate) convergence_max: Millis,
    pub(crate) convergences: usize,
    /// Also those that were dropped again because the fleet had others.
    pub(crate) keys_made: usize,
    /// Those made after the fleet's first two minutes.
    pub(crate) keys_made_later: usize,
    pub(crate) keys_published_per_period: f64,
    pub(crate) sent_per_node_hour: u64,
    pub(crate) received_per_node_hour: u64,
    pub(crate) exchanges: u64,
    pub(crate) writes: u64,
    pub(crate) ring_bytes: usize,
    pub(crate) ring_heap_bytes: usize,
    pub(crate) run_seconds: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) report: Report,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) last_birth: Millis,
    births: HashMap<KeyName, Birth>,
    convergences: Vec<Millis>,
    first_refused: Option<String>,
}

impl Checks {
    /// A claim is put to the test.
    pub(crate) fn try_claim(&mut self, claim: usize) {
        self.report.claims_tried[claim - 1] += 1;
    }

    /// A ticket that had to be accepted was not.
    pub(crate) fn refused(&mut self, how: impl FnOnce() -> String) {
        self.report.tickets_refused += 1;
        self.first_refused.get_or_insert_with(how);
    }

    /// Claims 1 and 2.
    pub(crate) fn none_refused(&self) -> Result<(), String> {
        let count = self.report.tickets_refused;
        self.first_refused
            .as_ref()
            .map_or(Ok(()), |first| Err(format!("{first}; refused in all: {count}")))
    }

    pub(crate) fn made(&mut self, names: &[KeyName], told: bool, now: Millis) {
        for name in names {
            self.births.insert(*name, Birth { at: now, told, published: false, slowest: 0 });
            self.last_birth = now;
        }
    }

    /// A node hears of keys; it has been connected since then.
    pub(crate) fn learned(&mut self, names: &[KeyName], connected: Millis, now: Millis) {
        for name in names {
            if let Some(birth) = self.births.get_mut(name)
                && birth.told
                && connected <= birth.at
            {
                birth.slowest = birth.slowest.max(now - birth.at);
            }
        }
    }

    pub(crate) fn published(&mut self, field: Field) {
        if let Field::Key(name) = field
            && let Some(birth) = self.births.get_mut(&name)
        {
            birth.published = true;
        }
    }

    pub(crate) fn converged(&mut self, after: Millis) {
        self.convergences.push(after);
    }

    pub(crate) fn finish(mut self, nodes: usize, length: Millis, rotate: Millis) -> Report {
        let told = self.births.values().filter(|birth| birth.told && birth.slowest > 0);
        let mut reached: Vec<_> = told.map(|birth| birth.slowest).collect();
        let report = &mut self.report;
        report.key_reaches_all_median = quantile(&mut reached, 50);
        report.key_reaches_all_p99 = quantile(&mut reached, 99);
        report.convergence_median = quantile(&mut self.convergences, 50);
        report.convergence_max = quantile(&mut self.convergences, 100);
        report.convergences = self.convergences.len();
        report.keys_made = self.births.len();
        report.keys_made_later = self.births.values().filter(|birth| birth.at > 120_000).count();
        let periods = length.div_ceil(rotate).max(1);
        let published = self.births.values().filter(|birth| birth.published).count();
        report.keys_published_per_period = to_float(published as u64) / to_float(periods);
        report.hours = to_float(length) / 3_600_000.0;
        let node_hours = (nodes as u64 * length / 3_600_000).max(1);
        report.sent_per_node_hour = self.sent / node_hours;
        report.received_per_node_hour = self.received / node_hours;
        self.report
    }
}

fn quantile(samples: &mut [Millis], percent: usize) -> Millis {
    samples.sort_unstable();
    let last = samples.len().saturating_sub(1);
    samples.get(last * percent / 100).copied().unwrap_or_default()
}

fn to_float(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
