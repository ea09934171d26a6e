//! What a node reports about itself: numbers, and the same as Prometheus text (DESIGN 3.7).

use std::fmt::{Display, Write};

use super::Engine;
use crate::clock::UnixMillis;
use crate::ring::Census;
use crate::stats::Counter;
use crate::store::Usage;

/// One node's state at one time.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Every counter, by [`Counter`].
    pub counters: [u64; Counter::COUNT],
    /// Ticket keys by state.
    pub keys: Census,
    /// How long the key that encrypts has been active, in seconds.
    pub key_age_seconds: u64,
    /// Sessions that could be resumed.
    pub sessions_live: u64,
    /// Use of the shared memory.
    pub usage: Usage,
}

impl Report {
    /// The value of one counter.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }
}

impl Engine {
    /// The node's state. Looks at every index entry of the store: meant for reports, not for handshakes.
    pub fn report(&self, now: UnixMillis) -> Report {
        let view = self.view(now);
        let age =
            view.ring.encrypting(now).map(|(record, _)| now.since(record.activates).as_secs());
        Report {
            counters: std::array::from_fn(|index| {
                self.counters().0[index].load(std::sync::atomic::Ordering::Relaxed)
            }),
            keys: view.ring.census(now),
            key_age_seconds: age.unwrap_or(0),
            sessions_live: self.store.live(now),
            usage: self.store.usage(),
        }
    }

    /// The node's state as Prometheus text.
    pub fn metrics(&self, now: UnixMillis) -> String {
        let report = self.report(now);
        let count = |counter| report.counter(counter);
        let mut text = Text(String::new());
        text.family("tickets_issued_total", "counter", "Tickets that were encrypted");
        text.value("tickets_issued_total", "", count(Counter::TicketsIssued));
        text.labelled(
            "tickets_accepted_total",
            ("counter", "Tickets whose handshake resumed, by key"),
            "key",
            &[
                ("current", count(Counter::TicketsAcceptedCurrent)),
                ("older", count(Counter::TicketsAcceptedOlder)),
            ],
        );
        text.labelled(
            "tickets_rejected_total",
            ("counter", "Tickets that led to a full handshake, by reason"),
            "reason",
            &[
                ("unknown_key", count(Counter::TicketsUnknownKey)),
                ("expired", count(Counter::TicketsExpired)),
                ("revoked", count(Counter::TicketsRevoked)),
                ("mac", count(Counter::TicketsMac)),
                ("over_limit", count(Counter::TicketsOverLimit)),
            ],
        );
        text.family("sessions_stored_total", "counter", "Sessions put into the store");
        text.value("sessions_stored_total", "", count(Counter::SessionsStored));
        text.family(
            "sessions_dropped_total",
            "counter",
            "Sessions that could not be put into the store",
        );
        text.value("sessions_dropped_total", "", count(Counter::SessionsDropped));
        text.family("sessions_hit_total", "counter", "Look-ups that found a session");
        text.value("sessions_hit_total", "", count(Counter::SessionsHit));
        text.labelled(
            "sessions_missed_total",
            ("counter", "Look-ups that found no session to resume, by reason"),
            "reason",
            &[
                ("absent", count(Counter::SessionsAbsent)),
                ("expired", count(Counter::SessionsExpired)),
                ("forged_id", count(Counter::SessionsForgedId)),
                ("binding", count(Counter::SessionsBinding)),
                ("parse", count(Counter::SessionsParse)),
                ("over_limit", count(Counter::SessionsOverLimit)),
            ],
        );
        text.family(
            "sessions_evicted_total",
            "counter",
            "Live sessions overwritten for want of room",
        );
        text.value("sessions_evicted_total", "", count(Counter::SessionsEvicted));
        text.family("sessions_live", "gauge", "Sessions that could be resumed");
        text.value("sessions_live", "", report.sessions_live);
        let Usage { used, free, overhead } = report.usage;
        text.labelled(
            "store_bytes",
            ("gauge", "Shared memory, by use"),
            "state",
            &[("used", used), ("free", free), ("overhead", overhead)],
        );
        let Census { pending, active, accepting, revoked } = report.keys;
        text.labelled(
            "keys",
            ("gauge", "Ticket keys, by state"),
            "state",
            &[
                ("pending", pending),
                ("active", active),
                ("accepting", accepting),
                ("revoked", revoked),
            ],
        );
        text.family("key_age_seconds", "gauge", "Time since the encrypting key became active");
        text.value("key_age_seconds", "", report.key_age_seconds);
        text.family("rotations_total", "counter", "Keys that were made");
        text.value("rotations_total", "", count(Counter::Rotations));
        text.labelled(
            "early_data_total",
            ("counter", "Early data offered with a ticket, by verdict"),
            "verdict",
            &[
                ("allowed", count(Counter::EarlyDataAllowed)),
                ("refused", count(Counter::EarlyDataRefused)),
            ],
        );
        text.0
    }
}

/// Prometheus text format, version 0.0.4.
struct Text(String);

impl Text {
    fn labelled(
        &mut self,
        name: &str,
        (kind, help): (&str, &str),
        label: &str,
        values: &[(&str, u64)],
    ) {
        self.family(name, kind, help);
        for (state, value) in values {
            self.value(name, format_args!("{{{label}=\"{state}\"}}"), *value);
        }
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP tlsresume_{name} {help}.\n# TYPE tlsresume_{name} {kind}");
    }

    fn value(&mut self, name: &str, labels: impl Display, value: u64) {
        let _ = writeln!(self.0, "tlsresume_{name}{labels} {value}");
    }
}
