//! Early data: each ticket carries it at most once (RFC 8446, section 8.1).

use super::Engine;
use crate::clock::UnixMillis;
use crate::config::KeySource;
use crate::ring::session_id::SESSION_ID_LEN;
use crate::stats::Counter;

impl Engine {
    /// Whether early data may be accepted with the ticket whose session has this id: true for the first who asks on
    /// this node within the replay window, and only where the register is known to be complete.
    ///
    /// `fits`: the session is tied to what serves the connection. Otherwise its early data is refused.
    pub fn early_data_allowed(&self, id: &[u8], fits: bool, now: UnixMillis) -> bool {
        let allowed = fits
            && self.has_the_only_register(now)
            && id.len() == SESSION_ID_LEN
            && self.store.strike(id, self.config.early_data.replay_window, now);
        let counter = if allowed { Counter::EarlyDataAllowed } else { Counter::EarlyDataRefused };
        self.counters().count(counter);
        allowed
    }

    /// Whether no other host has the keys. Hosts have no register in common: each would allow a ticket once.
    fn has_the_only_register(&self, now: UnixMillis) -> bool {
        let view = self.view(now);
        self.config.keys.source == KeySource::Random
            && self.cluster.is_none()
            && !view.ring.records().any(|record| record.imported)
    }
}
