//! What a node takes in of a ring that arrives from another: nothing that no honest node with a fair clock would say.

use std::sync::Arc;
use std::time::Duration;

use super::{MAX_RECORDS, Material, Record, Ring, Schedule};
use crate::clock::UnixMillis;

/// Clocks that differ by more are wrong.
pub const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);

/// Watermarks that lie further ahead may be wrong. Not less than makings may: a revocation has to cover them, and a few
/// more may follow it in the same moment.
const BELIEVED: Duration = Duration::from_secs(CLOCKS_DIFFER.as_secs() + 60);

impl Ring {
    /// Merges what arrived from another node. Left out, and counted, are records whose time is over, keys that activate
    /// and watermarks that lie further ahead than any node with this schedule makes them, keys that were made later
    /// than any clock says (a wrong clock elsewhere poisons nobody, and nobody makes keys today that escape the
    /// revocation of all keys tomorrow), and keys for which there is no room.
    #[must_use]
    pub fn admit(&self, arrived: &Ring, schedule: &Schedule, now: UnixMillis) -> (Ring, usize) {
        let mut refused = 0;
        let mut checked = Ring { tickets: Vec::new(), ids: Vec::new(), ..arrived.clone() };
        let latest_watermark = latest_watermark(schedule, now);
        for watermark in [&mut checked.keys_since, &mut checked.sessions_since] {
            if *watermark > latest_watermark {
                *watermark = UnixMillis(0);
                refused += 1;
            }
        }
        let (horizon, id_horizon) = (schedule.horizon(now), schedule.for_ids().horizon(now));
        let latest_making = self.latest_making(now).max(checked.keys_since);
        // Those that are over give way, when the limits are kept.
        let living = self.records().filter(|record| now < record.accept_until).count();
        let mut room = MAX_RECORDS.saturating_sub(living);
        let mut fits = |record: &&Arc<Record>| {
            let limit = match record.material {
                Material::Ticket(_) => horizon,
                Material::SessionId(_) => id_horizon,
            };
            let is_new = !self.knows(&record.name());
            let fits = now < record.accept_until
                && record.activates <= limit
                && record.made <= latest_making
                && !(is_new && room == 0);
            room -= usize::from(fits && is_new);
            refused += usize::from(!fits);
            fits
        };
        let records: Vec<_> = arrived.records().filter(&mut fits).cloned().collect();
        // After the watermarks: one that is not believed keeps no key out.
        checked.adopt(records.into_iter());
        (self.merge(&checked), refused)
    }

    /// Later than that no honest node made a key. What is made after a revocation of all counts as made then, wherever
    /// the clock was that it was made by ([`Ring::making`]).
    pub(super) fn latest_making(&self, now: UnixMillis) -> UnixMillis {
        (now + CLOCKS_DIFFER).max(self.keys_since)
    }
}

/// Whether every other node believes that all made before that is refused, whatever its schedule.
pub fn is_believed(watermark: UnixMillis, now: UnixMillis) -> bool {
    watermark <= now + BELIEVED
}

/// Later than that no honest node revokes.
fn latest_watermark(schedule: &Schedule, now: UnixMillis) -> UnixMillis {
    schedule.horizon(now).max(now + BELIEVED)
}
