//! A word that each thread has of its own.
//!
//! The compiler's thread-local variables are not for callbacks: those of a library that was loaded later (dlopen(3)) are
//! allocated when a thread first uses them, and glibc ends a process that has no memory for them.
//!
//! Owns: [`ThreadWord`]. Called by: `log`, `tls`. Threads: each has its own. Forks: a child's thread has its parent's.
//! Failure: a word that cannot be kept stays what it was.

use std::ptr;
use std::sync::OnceLock;

/// Zero in every thread that has not set it.
pub(crate) struct ThreadWord(OnceLock<Option<libc::pthread_key_t>>);

impl ThreadWord {
    pub(crate) const fn new() -> Self {
        ThreadWord(OnceLock::new())
    }

    pub(crate) fn get(&self) -> usize {
        let Some(Some(key)) = self.0.get() else { return 0 };
        // SAFETY: the key was made by `key` and is never deleted.
        unsafe { libc::pthread_getspecific(*key) }.addr()
    }

    /// Whether the word was kept: without memory it may not be.
    pub(crate) fn set(&self, word: usize) -> bool {
        let Some(key) = self.key() else { return false };
        // SAFETY: as in `get`; nobody follows the pointer.
        unsafe { libc::pthread_setspecific(key, ptr::without_provenance(word)) == 0 }
    }

    fn key(&self) -> Option<libc::pthread_key_t> {
        *self.0.get_or_init(|| {
            let mut key = 0;
            // SAFETY: the key may be written; nothing is to be done when a thread ends.
            let made = unsafe { libc::pthread_key_create(&raw mut key, None) };
            (made == 0).then_some(key)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_a_word_of_its_own() {
        static WORD: ThreadWord = ThreadWord::new();
        assert_eq!(WORD.get(), 0);
        assert!(WORD.set(7));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(WORD.get(), 0);
                assert!(WORD.set(8));
                assert_eq!(WORD.get(), 8);
            });
        });
        assert_eq!(WORD.get(), 7);
    }
}
