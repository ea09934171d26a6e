//! The strike register: each ticket carries early data at most once (DESIGN 4.7, RFC 8446 section 8.1).

use std::time::Duration;

use super::Engine;
use crate::clock::UnixMillis;
use crate::config::KeySource;
use crate::ring::session_id::{SESSION_ID_LEN, session_key};
use crate::stats::Counter;
use crate::store::{Evicted, Kind, Meta, Origin};

/// Strikes and sessions of one id lie side by side: the strike's key differs in every bit.
const STRIKE_MASK: u8 = 0xff;

impl Engine {
    /// Whether early data may be accepted with the ticket whose session has this id: true for the first who asks on
    /// this node within the replay window, and only where the register is known to be complete.
    ///
    /// `fits`: the session is tied to what serves the connection. Otherwise its early data is refused.
    pub fn early_data_allowed(
        &self,
        id: &[u8],
        fits: bool,
        now: UnixMillis,
        patience: Duration,
    ) -> bool {
        let allowed = fits && self.strike(id, now, patience);
        let counter = if allowed { Counter::EarlyDataAllowed } else { Counter::EarlyDataRefused };
        self.counters().count(counter);
        allowed
    }

    fn strike(&self, id: &[u8], now: UnixMillis, patience: Duration) -> bool {
        // Keys that other hosts may have, and no register in common with them: each would say yes once.
        let view = self.view(now);
        let imported = view.ring.records().any(|record| record.imported);
        if self.config.keys.source != KeySource::Random || imported || self.cluster.is_some() {
            return false;
        }
        let window = self.config.early_data.replay_window;
        let complete_from = (self.store.created() + window).max(self.store.strikes_lost_until());
        let Ok(id) = <&[u8; SESSION_ID_LEN]>::try_from(id) else {
            return false;
        };
        if now < complete_from {
            return false;
        }
        let key = session_key(id).map(|byte| byte ^ STRIKE_MASK);
        // One second more than the window: records count whole seconds.
        let expires = (now + window).secs() + 1;
        let meta = Meta {
            key,
            binding: 0,
            expires: u32::try_from(expires).unwrap_or(u32::MAX),
            authenticated: 0,
            kind: Kind::Strike,
            origin: Origin::Here,
            note: 0,
        };
        match self.store.insert_new(&meta, &[], now, patience) {
            Ok(evicted) => {
                self.note_evicted(evicted, now);
                // An earlier strike may have had to make room while this one was looked for.
                self.store.strikes_lost_until() <= now
            }
            Err(_) => false,
        }
    }

    /// Counts what had to make room. A strike that did may be missed until its window is over.
    pub(super) fn note_evicted(&self, evicted: Evicted, now: UnixMillis) {
        self.counters().add(Counter::SessionsEvicted, evicted.sessions);
        if evicted.strikes > 0 {
            self.store.note_lost_strikes(now + self.config.early_data.replay_window);
        }
    }
}
