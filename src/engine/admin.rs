//! What an administrator asks for: keys from files, rotation, revocation, flushing.

use std::time::Duration;

use super::cluster::read_secrets;
use super::small_file::read_file;
use super::view::NO_RANDOMNESS;
use super::{Engine, random_into};
use crate::clock::{self, UnixMillis};
use crate::config::{Config, KeyFormat, KeySource};
use crate::error::{Error, Result};
use crate::ring::file::{self, FileKey, Format, KeyFile};
use crate::ring::{CLOCKS_DIFFER, KeyName, Material, Record, is_believed};
use crate::secret::Secret;

/// How long a request waits for another process that is changing the ring.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the transport is asked what time it is.
const ANSWER: Duration = Duration::from_millis(750);

/// A clock that differs by more from the transport's says nothing about all nodes. Half of what others take for wrong: theirs
/// may differ too.
const SOUND: Duration = Duration::from_secs(CLOCKS_DIFFER.as_secs() / 2);

impl Engine {
    /// Adds the keys in `data` to the ring: all open tickets from now on, and the one that the format says encrypts
    /// takes over after the activation delay, until the next scheduled key does.
    ///
    /// # Errors
    /// The data is not what the format says, or the ring is full.
    pub fn import_keys(&self, data: &[u8], format: Format) -> Result<()> {
        let keys = file::parse(format, data, "imported data")?;
        let now = clock::now();
        self.change_ring(PATIENCE, |ring| {
            let ring = ring.with(self.imported_records(&keys, now, ring.making(now)))?;
            self.maintained(&ring, now)
        })
    }

    /// Makes a key that takes over after the activation delay.
    ///
    /// # Errors
    /// Keys come from files or a secret here; the ring is full; or the system gives no randomness.
    pub fn rotate_keys(&self) -> Result<()> {
        if self.config.keys.source != KeySource::Random {
            return Err(Error::Ring("only keys with keys.source = \"random\" can be rotated"));
        }
        let now = clock::now();
        self.change_ring(PATIENCE, |ring| {
            let mut sound = true;
            let rotated = ring.rotate(&self.schedule, now, &mut random_into(&mut sound))?;
            if sound { Ok(rotated) } else { Err(NO_RANDOMNESS) }
        })
    }

    /// Refuses the key of that name from now on, or with `None` every key made so far; new ones take their place.
    ///
    /// # Errors
    /// No key of that name is known; too many single keys are revoked already; the system gives no randomness; or this
    /// host's clock differs too much from the transport's, and then only the keys that this node knows are refused, by name.
    pub fn revoke_keys(&self, name: Option<KeyName>) -> Result<()> {
        let now = clock::now();
        let Some(name) = name else { return self.revoke_all_keys(now) };
        self.change_ring(PATIENCE, |ring| {
            if !ring.knows(&name) {
                return Err(Error::Ring("no key of that name is in the ring"));
            }
            self.maintained(&ring.revoke(name, now)?, now)
        })
    }

    fn revoke_all_keys(&self, now: UnixMillis) -> Result<()> {
        let (source, time) = (self.config.keys.source, self.time_elsewhere(now));
        let derives = source == KeySource::Derived;
        let soon = now + self.config.keys.activation_delay;
        let mut watermark = UnixMillis(0);
        self.change_ring(PATIENCE, |ring| {
            let revoked = match &time {
                // Files count as made when they were written, by this host's clock.
                Ok(_) if source == KeySource::Files => ring.revoke_all(now, derives),
                // Derived keys count as made when they activate: those of more periods than need be would go too.
                Ok(place) if derives => {
                    ring.revoke_all(now.max(place.unwrap_or(now).min(soon)), true)
                }
                Ok(place) => ring.revoke_all(now.max(place.unwrap_or(now)), false),
                Err(_) => ring.revoke_each(now, derives)?,
            };
            watermark = revoked.keys_since();
            self.maintained(&revoked, now)
        })?;
        if time.is_err() {
            // Derived ids stay known.
            self.store.clear();
        }
        time.and_then(|_| self.said_to_all(watermark, now))
    }

    /// Forgets every stored session, also those that other nodes bring later.
    ///
    /// # Errors
    /// Another process kept the ring for too long; or this host's clock differs from the transport's by so much that other
    /// nodes would not do what they are told, and then only what is stored here is forgotten.
    pub fn flush_sessions(&self) -> Result<()> {
        let now = clock::now();
        let time = self.time_elsewhere(now);
        let mut watermark = UnixMillis(0);
        if let Ok(place) = time {
            // Nothing escapes that a node made whose clock is ahead. What is made afterwards counts as made then
            // ([`Ring::authenticating`]), so that nothing new is refused until all clocks are there.
            let since = place.map_or(now, |place| now.max(place + SOUND));
            self.change_ring(PATIENCE, |ring| {
                let flushed = ring.flush_sessions(since);
                watermark = flushed.sessions_since();
                Ok(flushed)
            })?;
        }
        self.store.clear();
        time.and_then(|_| self.said_to_all(watermark, now))
    }

    /// What time it is for the transport, unless this host's clock says nothing about all nodes. `None` where this host's clock
    /// is all there is: without a cluster, or an answer.
    fn time_elsewhere(&self, now: UnixMillis) -> Result<Option<UnixMillis>> {
        let Some(cluster) = &self.cluster else { return Ok(None) };
        match cluster.transport.connect(ANSWER).and_then(|mut channel| channel.time()) {
            Ok(place) => check_clocks(now, place).map(|()| Some(place)),
            Err(failure) => {
                let transport = cluster.transport.name();
                log::warn!(
                    "{transport}: not reached: {failure}; this node refuses what it was told to, other nodes do when both \
                     reach it, and only if this host's clock is right"
                );
                Ok(None)
            }
        }
    }

    /// An earlier request, made while the clock was wrong, may keep every later one from being believed elsewhere.
    fn said_to_all(&self, watermark: UnixMillis, now: UnixMillis) -> Result<()> {
        if self.cluster.is_none() || is_believed(watermark, now) {
            return Ok(());
        }
        Err(Error::OnThisNodeOnly(
            "done on this node only: all keys were revoked, or sessions flushed, here while this host's clock was far \
             ahead, and other nodes refuse what is said of the future; ask another node, and let this one begin with \
             empty memory (stop its servers, remove memory.path)",
        ))
    }

    /// Makes the ring's imported keys those of `keys.files`.
    pub(super) fn load_key_files(&self) -> Result<()> {
        if self.config.keys.source != KeySource::Files {
            return Ok(());
        }
        let records = read_key_files(&self.config)?;
        let names: Vec<_> = records.iter().map(Record::name).collect();
        let (now, mut refused) = (clock::now(), 0);
        self.change_ring(PATIENCE, |ring| {
            let ring = ring.with_imported(records)?;
            refused = names.iter().filter(|name| !ring.knows(name)).count();
            self.maintained(&ring, now)
        })?;
        if refused > 0 {
            log::warn!(
                "keys.files: {refused} of {} keys are refused: they were revoked, or all keys were after their file was \
                 written; write new keys into the files",
                names.len()
            );
        }
        Ok(())
    }

    fn imported_records(&self, keys: &KeyFile, now: UnixMillis, made: UnixMillis) -> Vec<Record> {
        // A millisecond more: a key that was made at the same time would else win by its name.
        let takes_over = now + self.config.keys.activation_delay + Duration::from_millis(1);
        let retires = takes_over + self.config.keys.rotate;
        let record = |(index, FileKey { key, .. }): (usize, &FileKey)| Record {
            material: Material::Ticket(key.clone()),
            imported: true,
            made,
            activates: if index == keys.encrypts { takes_over } else { ALREADY_REPLACED },
            retires: if index == keys.encrypts { retires } else { now },
            accept_until: retires + self.config.resumption.lifetime,
        };
        keys.keys.iter().enumerate().map(record).collect()
    }
}

/// Nodes do not believe what is said of a time that their clocks are far from.
fn check_clocks(own: UnixMillis, place: UnixMillis) -> Result<()> {
    if own > place + SOUND {
        return Err(Error::OnThisNodeOnly(
            "done only with what this node knows, and not with what turns up later: this host's clock is more than 30 \
             minutes ahead of the transport's, and other nodes would refuse what is said of the future; set this host's clock \
             (NTP), or that of its host if it is behind, and try again",
        ));
    }
    if place > own + SOUND {
        return Err(Error::OnThisNodeOnly(
            "done only with what this node knows, and not with what turns up later: this host's clock is more than 30 \
             minutes behind the transport's, and what other nodes made since would go on; set this host's clock (NTP), or that \
             of its host if it is ahead, and try again",
        ));
    }
    Ok(())
}

/// Activation times of keys whose order a file gives: one that only opens, one that encrypts, one that will later.
const ALREADY_REPLACED: UnixMillis = UnixMillis(0);
const ENCRYPTS: UnixMillis = UnixMillis(1);
const NOT_YET: UnixMillis = UnixMillis::MAX;

/// The records of one key file; only the first file's key encrypts. What stands behind it in the file was replaced by
/// it, or waits for its turn, as the format has it.
fn file_records(
    keys: KeyFile,
    first_file: bool,
    modified: UnixMillis,
) -> impl Iterator<Item = Record> {
    let encrypts = keys.encrypts;
    let newest_last = encrypts > 0;
    keys.keys.into_iter().enumerate().map(move |(index, FileKey { key, valid })| {
        let by_order = match () {
            () if first_file && index == encrypts => ENCRYPTS,
            () if newest_last && index > encrypts => NOT_YET,
            () => ALREADY_REPLACED,
        };
        let (activates, ends) = valid.unwrap_or((by_order, UnixMillis::MAX));
        Record {
            material: Material::Ticket(key),
            imported: true,
            made: modified,
            activates,
            retires: ends,
            accept_until: ends,
        }
    })
}

/// The keys of `keys.files`.
pub(super) fn read_key_files(config: &Config) -> Result<Vec<Record>> {
    let format = file_format(config.keys.format);
    let mut records = Vec::new();
    for (rank, path) in config.keys.files.iter().enumerate() {
        let (data, modified) = read_file(path)?;
        let keys = file::parse(format, &data, &path.display().to_string())?;
        records.extend(file_records(keys, rank == 0, modified));
    }
    Ok(records)
}

fn file_format(configured: KeyFormat) -> Format {
    match configured {
        KeyFormat::Nginx => Format::Nginx,
        KeyFormat::Haproxy => Format::Haproxy,
        KeyFormat::Apache => Format::Apache,
        KeyFormat::Ats => Format::Ats,
        KeyFormat::Nghttpx => Format::Nghttpx,
        KeyFormat::H2o => Format::H2o,
        KeyFormat::Openssl => Format::Openssl,
        KeyFormat::Dnsdist => Format::Dnsdist,
    }
}

/// What keys are derived from, where they are.
pub(super) fn secret_of(config: &Config) -> Result<Option<Secret>> {
    match config.keys.source {
        KeySource::Derived => Ok(Some(read_secrets(config)?.first().clone())),
        KeySource::Random | KeySource::Files => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_more_than_half_an_hour_are_not_believed_and_the_error_says_which_to_set()
     {
        let now = UnixMillis::from_secs(1_700_000_000);
        let minute = Duration::from_secs(60);
        for place in [now - minute * 30, now, now + minute * 30] {
            check_clocks(now, place).expect("sound");
            assert!(is_believed(place + SOUND, now), "what is said is believed by all");
        }
        for (place, word) in [(now - minute * 31, "ahead"), (now + minute * 31, "behind")] {
            let said = check_clocks(now, place).expect_err("refused").to_string();
            assert!(said.contains(word) && said.contains("NTP"), "{said}");
        }
    }
}
