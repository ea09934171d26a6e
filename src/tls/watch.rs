//! Whether an application leaves our info callback in place, as far as a program has seen it: only then is what resumes
//! judged ([`super::confirm`]).
//!
//! Servers that fork for each connection would never know, so what one child sees its parent and its siblings see too.
//!
//! Owns: a byte for each attached context, in memory that forked children share. Called by: [`super::confirm`] and the
//! callbacks that look sessions up. Threads: a byte is atomic. Forks: a process takes bytes from pages of its own, so that
//! two never take the same; what was taken before the fork is shared. Failure: without memory a process is alone.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use once_cell::race::OnceBox;
use parking_lot::Mutex;

use super::slots::Slot;
use crate::engine::Listener;
use crate::sys;

/// What is known of a context.
#[derive(Clone, Copy)]
pub(super) struct Watch(&'static AtomicU8);

const UNKNOWN: u8 = 0;
/// The application was seen to leave our info callback in place.
const LEFT: u8 = 1;
/// It was seen to put another in its place. That stays: it may do so for some virtual hosts only.
const REPLACED: u8 = 2;
/// Nothing is known yet, and a handshake that fails if the callback is replaced is under way, or was.
const TRIED: u8 = 3;

/// Bytes of one process.
struct Page {
    generation: u32,
    rest: &'static [AtomicU8],
}

const PAGE_LEN: usize = 4096;

/// Longest wait for a lock that a fork may have left locked.
const PATIENCE: Duration = Duration::from_millis(100);

impl Watch {
    /// For a new context, or one that is being attached.
    pub(super) fn new() -> Self {
        Watch(shared_byte().unwrap_or_else(|| Box::leak(Box::default())))
    }

    /// That of the contexts of a slot; those without a number have one together.
    pub(super) fn of(slot: Slot) -> &'static Watch {
        static OF_OTHERS: OnceBox<Watch> = OnceBox::new();
        match slot.attachment() {
            Some(attachment) => &attachment.watch,
            None => OF_OTHERS.get_or_init(|| Box::new(Watch::new())),
        }
    }

    /// A handshake has shown whether our info callback is left in place.
    pub(super) fn note(&self, is_left: bool) {
        if !is_left {
            return self.0.store(REPLACED, Ordering::Relaxed);
        }
        let known = self.0.load(Ordering::Relaxed);
        if known == UNKNOWN || known == TRIED {
            let _ = self.0.compare_exchange(known, LEFT, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether what resumes at a listener is judged. Where the listener's address is known, the node knows a name by a
    /// handshake there that has shown it; else a program may have the place of another.
    pub(super) fn vouches_at(&self, listener: &Listener) -> bool {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN | TRIED => *listener != Listener::default(),
            known => known == LEFT,
        }
    }

    /// Whether the application was seen to leave our info callback in place.
    pub(super) fn is_left(&self) -> bool {
        self.0.load(Ordering::Relaxed) == LEFT
    }

    /// Whether a handshake may be tried that fails if it is not judged: once, as long as nothing is known.
    pub(super) fn is_tried_at(&self, listener: &Listener) -> bool {
        let order = Ordering::Relaxed;
        *listener != Listener::default()
            && self.0.load(order) == UNKNOWN
            && self.0.compare_exchange(UNKNOWN, TRIED, order, order).is_ok()
    }
}

fn shared_byte() -> Option<&'static AtomicU8> {
    static PAGE: Mutex<Page> = Mutex::new(Page { generation: 0, rest: &[] });
    let mut page = sys::lock_within(&PAGE, PATIENCE)?;
    let generation = sys::fork_generation();
    if page.generation != generation || page.rest.is_empty() {
        *page = Page { generation, rest: sys::shared_bytes(PAGE_LEN)? };
    }
    let (byte, rest) = page.rest.split_first()?;
    page.rest = rest;
    Some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNNAMED: Listener = [0; 18];

    #[test]
    fn what_was_replaced_once_is_never_trusted_again() {
        let watch = Watch::new();
        watch.note(true);
        assert!(watch.vouches_at(&UNNAMED));
        watch.note(false);
        watch.note(true);
        assert!(!watch.vouches_at(&UNNAMED) && !watch.vouches_at(&[1; 18]));
    }

    #[test]
    fn a_handshake_that_may_fail_is_tried_once_until_more_is_known() {
        let watch = Watch::new();
        assert!(!watch.is_tried_at(&UNNAMED) && !watch.is_left());
        assert!(watch.is_tried_at(&[1; 18]) && !watch.is_tried_at(&[1; 18]));
        assert!(watch.vouches_at(&[1; 18]) && !watch.is_left());
        watch.note(true);
        assert!(watch.is_left() && !watch.is_tried_at(&[1; 18]));
    }

    #[test]
    fn what_nobody_has_seen_is_trusted_where_the_node_knows_the_listener() {
        let (one, other) = (Watch::new(), Watch::new());
        one.note(true);
        assert!(one.vouches_at(&UNNAMED), "contexts do not share what is known");
        assert!(!other.vouches_at(&UNNAMED) && other.vouches_at(&[1; 18]));
    }
}
