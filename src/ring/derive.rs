//! Keys computed from a shared secret and the clock: nodes that cannot reach each other at all still agree.
//!
//! Every node computes the keys of the periods around now, so nothing is ever published. The price: who learns the
//! secret knows every key, past and future (no forward secrecy across rotations).

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::Ring;
use super::record::{Material, Record};
use super::schedule::{ID_KEY_BYTES, Schedule, TICKET_KEY_BYTES, id_key, ticket_key};
use crate::clock::UnixMillis;
use crate::error::Result;
use crate::secret::Secret;

/// The ring with the keys of every period whose tickets may still live at `now`, and of `ahead` periods to come.
///
/// # Errors
/// As [`Ring::with`].
pub fn derived(
    ring: &Ring,
    secret: &Secret,
    realm: &str,
    schedule: &Schedule,
    now: UnixMillis,
) -> Result<Ring> {
    let period = u64::try_from(schedule.rotate.as_millis()).unwrap_or(u64::MAX).max(1);
    let lifetime = u64::try_from(schedule.lifetime.as_millis()).unwrap_or(u64::MAX);
    let current = now.0 / period;
    let first = current.saturating_sub(lifetime.div_ceil(period));
    let last = current.saturating_add(u64::from(schedule.ahead));
    let kdf = Hkdf::<Sha256>::new(Some(realm.as_bytes()), secret.expose());
    let mut ring = ring.clone();
    ring.forget(now);
    ring.drop_endless_tickets();
    let tickets = (first..=last).map(|index| ticket_record(&kdf, index, period, schedule));
    let id = id_record(&kdf, ring.keys_since);
    let mut ring = ring.with(tickets.chain([id]))?;
    ring.extend(schedule, now);
    Ok(ring)
}

fn ticket_record(kdf: &Hkdf<Sha256>, index: u64, period: u64, schedule: &Schedule) -> Record {
    let mut bytes = Zeroizing::new([0u8; TICKET_KEY_BYTES]);
    let label = [b"tlsresume ticket key ".as_slice(), &period.to_be_bytes(), &index.to_be_bytes()];
    kdf.expand_multi_info(&label, &mut bytes[..]).expect("80 bytes are within HKDF's limit");
    let activates = UnixMillis(index.saturating_mul(period));
    let retires = activates + schedule.rotate;
    Record {
        material: Material::Ticket(ticket_key(&bytes)),
        imported: false,
        made: activates,
        activates,
        retires,
        accept_until: retires + schedule.lifetime,
    }
}

/// One id key for ever, replaced when every key made before `since` is revoked.
fn id_record(kdf: &Hkdf<Sha256>, since: UnixMillis) -> Record {
    let mut bytes = Zeroizing::new([0u8; ID_KEY_BYTES]);
    let label = [b"tlsresume session id key ".as_slice(), &since.0.to_be_bytes()];
    kdf.expand_multi_info(&label, &mut bytes[..]).expect("32 bytes are within HKDF's limit");
    Record {
        material: Material::SessionId(id_key(&bytes)),
        imported: false,
        made: since,
        activates: since,
        retires: UnixMillis::MAX,
        accept_until: UnixMillis::MAX,
    }
}
