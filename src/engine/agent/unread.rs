//! Fields of the shared hashes that this node cannot read: how long they are there, and which secret they are said to
//! be sealed with.
//!
//! A heartbeat that changes was written by a node that lives and has another secret, or another version. One that stays
//! the same is nobody's. All of them are a stranger's words: of a secret only the id is believed, and a line in the log
//! is no more often than once a minute.
//!
//! Owns: what was seen of each. Called by: [`super::nodes`], [`super::heartbeats`], [`super::ring`]. Threads and forks: the agent's. Failure:
//! none.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::reading::Fields;
use crate::cluster::seal::SecretId;

/// Most ids in a line.
const MOST_TOLD: usize = 3;

/// By the name that it has in the table.
#[derive(Default)]
pub(super) struct Unread(HashMap<Vec<u8>, Value>);

/// Tells one value of a field from the next; who makes two alike has his field deleted.
type Fingerprint = [u8; 8];

struct Value {
    fingerprint: Fingerprint,
    since: Duration,
    /// There was another one before.
    has_changed: bool,
    secret: Option<SecretId>,
}

impl Unread {
    pub(super) fn see(&mut self, name: &[u8], sealed: &[u8], at: Duration) {
        let fingerprint = *Sha256::digest(sealed).first_chunk().expect("8 of 32 bytes");
        let secret = SecretId::said_to_seal(sealed);
        match self.0.get_mut(name) {
            Some(value) if value.fingerprint == fingerprint => {}
            Some(value) => *value = Value { fingerprint, since: at, has_changed: true, secret },
            None => {
                let value = Value { fingerprint, since: at, has_changed: false, secret };
                self.0.insert(name.to_vec(), value);
            }
        }
    }

    pub(super) fn forget(&mut self, name: &[u8]) {
        self.0.remove(name);
    }

    /// What is not there any more needs no watching.
    pub(super) fn keep_only(&mut self, beats: &Fields) {
        self.0.retain(|name, _| beats.contains_key(name));
    }

    /// Since when the value is there.
    pub(super) fn since(&self, name: &[u8]) -> Option<Duration> {
        self.0.get(name).map(|value| value.since)
    }

    /// Whether a node lives behind this name that has written within `silent`.
    pub(super) fn lives(&self, name: &[u8], now: Duration, silent: Duration) -> bool {
        self.0.get(name).is_some_and(|value| value.lives(now, silent))
    }

    /// What has been there for longer than `stays` says of its secret.
    pub(super) fn stale(
        &self,
        now: Duration,
        stays: impl Fn(Option<SecretId>) -> Duration,
    ) -> Vec<Vec<u8>> {
        let is_stale = |value: &Value| now.saturating_sub(value.since) > stays(value.secret);
        let stale = self.0.iter().filter(|(_, value)| is_stale(value));
        stale.map(|(name, _)| name.clone()).collect()
    }

    /// Of each node that lives, the secret that it is said to have.
    pub(super) fn living(
        &self,
        now: Duration,
        silent: Duration,
    ) -> impl Iterator<Item = Option<SecretId>> {
        self.0.values().filter(move |value| value.lives(now, silent)).map(|value| value.secret)
    }
}

impl Value {
    fn lives(&self, now: Duration, silent: Duration) -> bool {
        self.has_changed && now.saturating_sub(self.since) < silent
    }
}

/// Some of the secrets, for a line in the log.
pub(super) fn in_words(secrets: &BTreeSet<SecretId>) -> String {
    let told: Vec<_> = secrets.iter().take(MOST_TOLD).map(SecretId::to_string).collect();
    let more = secrets.len() - told.len();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    told.join(", ") + &rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENT: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    #[test]
    fn what_changes_is_a_node_that_lives_until_it_is_silent_and_what_stays_the_same_is_none() {
        let mut unread = Unread::default();
        for second in 0..3 {
            unread.see(b"junk", b"the same", at(second));
            unread.see(b"node", format!("beat {second}").as_bytes(), at(second));
        }
        assert!(unread.lives(b"node", at(16), SILENT) && !unread.lives(b"node", at(17), SILENT));
        assert!(!unread.lives(b"junk", at(2), SILENT));
        assert_eq!(unread.living(at(2), SILENT).count(), 1);
        unread.forget(b"node");
        unread.see(b"node", b"beat 3", at(3));
        assert!(!unread.lives(b"node", at(3), SILENT), "not known to change");
    }

    #[test]
    fn of_many_secrets_a_few_are_told_by_their_ids() {
        let secrets = |count: u8| (1..=count).map(|id| SecretId([id, 0, 0xfe, 9])).collect();
        assert_eq!(in_words(&secrets(1)), "0100fe09");
        assert_eq!(in_words(&secrets(5)), "0100fe09, 0200fe09, 0300fe09 and 2 more");
    }
}
