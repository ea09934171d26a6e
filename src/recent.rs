//! A small cache of what was used last.
//!
//! Owns: nothing; caches belong to `engine` and `tls`. Threads and forks: see [`Recent`]. Failure: a miss.

#![forbid(unsafe_code)]

use parking_lot::Mutex;

use crate::sys::memory;

/// Up to `N` pairs, the least recently used one out first.
///
/// Never waits: while another thread uses it, or was using it when this process was forked off, the cache is passed by
/// and the value computed anew.
pub(crate) struct Recent<K, V, const N: usize>(Mutex<Pairs<K, V>>);

struct Pairs<K, V> {
    pairs: Vec<Pair<K, V>>,
    /// Counts uses: the pair with the smallest number was not used for longest.
    uses: u64,
}

struct Pair<K, V> {
    key: K,
    value: V,
    used: u64,
}

impl<K, V: Clone, const N: usize> Recent<K, V, N> {
    pub(crate) const fn new() -> Self {
        Recent(Mutex::new(Pairs { pairs: Vec::new(), uses: 0 }))
    }

    /// The value whose key `matches`, or else the one that `make` computes, which is then kept.
    pub(crate) fn get_or(&self, matches: impl Fn(&K) -> bool, make: impl FnOnce() -> (K, V)) -> V {
        if let Some(value) = self.find(matches) {
            return value;
        }
        let (key, value) = make();
        self.keep(key, value.clone());
        value
    }

    /// The value whose key `matches`, which is now the most recently used.
    pub(crate) fn find(&self, matches: impl Fn(&K) -> bool) -> Option<V> {
        let mut cache = self.0.try_lock()?;
        cache.uses += 1;
        let used = cache.uses;
        let pair = cache.pairs.iter_mut().find(|pair| matches(&pair.key))?;
        pair.used = used;
        Some(pair.value.clone())
    }

    /// Keeps a pair, in the place of the least recently used one if need be. Not where memory is short.
    pub(crate) fn keep(&self, key: K, value: V) {
        let Some(mut cache) = self.0.try_lock().filter(|_| memory::is_at_hand()) else { return };
        cache.uses += 1;
        let pair = Pair { key, value, used: cache.uses };
        if cache.pairs.len() < N {
            if memory::try_grow(&mut cache.pairs) {
                cache.pairs.push(pair);
            }
        } else if let Some(oldest) = cache.pairs.iter_mut().min_by_key(|pair| pair.used) {
            *oldest = pair;
        }
    }

    /// Drops the pairs whose keys do not fit any more.
    pub(crate) fn retain(&self, keep: impl Fn(&K) -> bool) {
        if let Some(mut cache) = self.0.try_lock() {
            cache.pairs.retain(|pair| keep(&pair.key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache: Recent<u32, u32, 3> = Recent::new();
        let made = std::cell::Cell::new(0);
        let get = |key: u32| {
            cache.get_or(
                |other| *other == key,
                || {
                    made.set(made.get() + 1);
                    (key, key * 10)
                },
            )
        };
        assert_eq!([1, 2, 3, 1, 4].map(get), [10, 20, 30, 10, 40]);
        assert_eq!(made.get(), 4, "the second 1 was a hit");
        get(1);
        assert_eq!(made.get(), 4, "1 stayed, because it was used after 2");
        get(2);
        assert_eq!(made.get(), 5, "2 went");
    }

    #[test]
    fn a_cache_in_use_elsewhere_is_passed_by() {
        let cache: Recent<u32, u32, 3> = Recent::new();
        let _held = cache.0.lock();
        assert_eq!(cache.get_or(|_| true, || (1, 10)), 10);
    }
}
