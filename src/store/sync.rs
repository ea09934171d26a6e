//! The atomics of shared memory: the processor's, or the model checker's when built with `--cfg loom`. The latter has
//! no kernel that waits on them: its models bring their own.

#[cfg(not(loom))]
pub(super) use crate::sys::{futex_wait, futex_wake};
#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(super) fn futex_wait(_: &AtomicU32, _: u32, _: std::time::Duration) {}

#[cfg(loom)]
pub(super) fn futex_wake(_: &AtomicU32) {}
