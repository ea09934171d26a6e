//! The result, as a table for people and as JSON for programs.

use std::fmt::Write;

use serde::Serialize;

use crate::measure::Measurement;

/// All that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    situations: Vec<Row>,
    /// With the library every client was resumed.
    pub(crate) ok: bool,
}

/// One situation, in both halves of the demo.
#[derive(Debug, Serialize)]
struct Row {
    situation: &'static str,
    without: Measurement,
    with: Measurement,
}

const HEAD: &str = "
Returning clients, each sent to the other of two servers: openssl, gnutls-cli, Python and a load
client, with TLS 1.2 session ids, TLS 1.2 tickets and TLS 1.3. CPU is the server's per handshake
of the load client. Plain OpenSSL never rotates its keys: there that row is round robin again.

                       without libtlsresume                   with libtlsresume
situation        handshakes resumed failed      CPU   handshakes resumed failed      CPU
";

impl Report {
    /// One measurement for each situation, in their order.
    pub(crate) fn new(
        situations: &[&'static str],
        without: Vec<Measurement>,
        with: Vec<Measurement>,
    ) -> Report {
        let ok = with.iter().all(Measurement::is_perfect);
        let columns = without.into_iter().zip(with);
        let row = |(situation, (without, with))| Row { situation, without, with };
        Report { situations: situations.iter().copied().zip(columns).map(row).collect(), ok }
    }

    pub(crate) fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("no map keys, no foreign types");
        json + "\n"
    }

    pub(crate) fn to_table(&self) -> String {
        let mut table = String::from(HEAD);
        for row in &self.situations {
            let (name, without, with) = (row.situation, cells(&row.without), cells(&row.with));
            writeln!(table, "{name:<16} {without}   {with}").expect("a String takes all");
        }
        table.push_str(if self.ok { SUCCESS } else { FAILURE });
        table
    }
}

const SUCCESS: &str = "\nWith the library every client was resumed.\n";
const FAILURE: &str = "\nFAILED: with the library a client was not resumed; see the lines above.\n";

fn cells(it: &Measurement) -> String {
    format!("{:>10} {:>7} {:>6} {:>5} us", it.handshakes, it.resumed, it.failed, it.server_cpu_us)
}
