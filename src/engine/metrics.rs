//! What a node reports about itself: numbers, and the same as Prometheus text.

use std::fmt::{Display, Formatter, Write};

use super::Engine;
use crate::clock::UnixMillis;
use crate::ring::Census;
use crate::stats::{Counter, Gauge, LOOKUP_BUCKETS};
use crate::store::Usage;

/// One node's state at one time.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Every counter, by [`Counter`].
    pub counters: [u64; Counter::COUNT],
    /// Every gauge, by [`Gauge`].
    pub gauges: [u64; Gauge::COUNT],
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

    /// The value of one gauge.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges[gauge as usize]
    }

    /// Look-ups in the cluster, by how long they took: the most microseconds of each bucket but the last, and how many
    /// took at most that; then how many there were.
    pub fn lookups(&self) -> ([(u64, u64); LOOKUP_BUCKETS.len()], u64) {
        let mut sum = 0;
        let up_to = LOOKUP_BUCKETS.map(|(counter, most)| {
            sum += self.counter(counter);
            (most, sum)
        });
        (up_to, sum + self.counter(Counter::LookupsOver1s))
    }
}

impl Engine {
    /// The node's state. Looks at all index entries of the store that are in use: meant for reports, not for handshakes.
    pub fn report(&self, now: UnixMillis) -> Report {
        let view = self.current(now);
        let age =
            view.ring.encrypting(now).map(|(record, _)| now.since(record.activates).as_secs());
        Report {
            counters: std::array::from_fn(|index| {
                self.counters().0[index].load(std::sync::atomic::Ordering::Relaxed)
            }),
            gauges: Gauge::ALL.map(|gauge| self.store.gauge(gauge)),
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
        text.cluster(&report);
        text.lookups(&report);
        text.family("nodes_other_secret", "gauge", "Nodes that seal with a secret unknown here");
        text.value("nodes_other_secret", "", report.gauge(Gauge::NodesOtherSecret));
        text.0
    }
}

/// Prometheus text format, version 0.0.4.
struct Text(String);

impl Text {
    fn cluster(&mut self, report: &Report) {
        let count = |counter| report.counter(counter);
        self.labelled(
            "transport_up",
            ("gauge", "Whether the transport works"),
            "transport",
            &super::transports::NAMES.map(|name| (name, report.gauge(Gauge::TransportUp))),
        );
        let totals = [
            ("transport_sent_total", "Records sent to other nodes", Counter::TransportSent),
            ("transport_received_total", "Records of other nodes", Counter::TransportReceived),
            (
                "transport_dropped_total",
                "Records that were lost on the way",
                Counter::TransportDropped,
            ),
        ];
        for (name, help, counter) in totals {
            self.family(name, "counter", help);
            self.value(name, "", count(counter));
        }
        self.labelled(
            "transport_rejected_total",
            ("counter", "What arrived and was not used, by reason"),
            "reason",
            &[
                ("format", count(Counter::TransportRejectedFormat)),
                ("secret", count(Counter::TransportRejectedSecret)),
                ("forged", count(Counter::TransportRejectedForged)),
                ("clock", count(Counter::TransportRejectedClock)),
                ("expired", count(Counter::TransportRejectedExpired)),
            ],
        );
        self.family("nodes", "gauge", "Nodes of the cluster, this one included");
        self.value("nodes", "", report.gauge(Gauge::Nodes));
        self.family(
            "nodes_out_of_sync",
            "gauge",
            "Nodes that have another ring, or another secret",
        );
        self.value("nodes_out_of_sync", "", report.gauge(Gauge::NodesOutOfSync));
    }

    fn lookups(&mut self, report: &Report) {
        let (up_to, all) = report.lookups();
        self.family("lookup_seconds", "histogram", "How long look-ups in the cluster took");
        for (micros, count) in up_to {
            let labels = format_args!("{{le=\"{}\"}}", Seconds(micros));
            self.value("lookup_seconds_bucket", labels, count);
        }
        self.value("lookup_seconds_bucket", "{le=\"+Inf\"}", all);
        self.value("lookup_seconds_sum", "", Seconds(report.counter(Counter::LookupMicros)));
        self.value("lookup_seconds_count", "", all);
        self.family("lookups_found_total", "counter", "Look-ups that found what they looked for");
        self.value("lookups_found_total", "", report.counter(Counter::LookupsFound));
        self.family("lookups_refused_total", "counter", "Look-ups not tried, since others failed");
        self.value("lookups_refused_total", "", report.counter(Counter::LookupsRefused));
        self.family("lookups_skipped_total", "counter", "Look-ups not made, to hold nobody up");
        self.value("lookups_skipped_total", "", report.counter(Counter::LookupsSkipped));
    }

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

    fn value(&mut self, name: &str, labels: impl Display, value: impl Display) {
        let _ = writeln!(self.0, "tlsresume_{name}{labels} {value}");
    }
}

/// Microseconds, written as seconds without needless zeros.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        let text = format!("{whole}.{rest:06}");
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}
