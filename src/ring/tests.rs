//! The ring against its claims: merging, schedules, simulated clusters, revocation, bytes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers made here")]

mod admission;
mod derived;
mod ids;
mod merge;
mod revocation;
mod schedule;
mod sharing;
mod simulation;
mod support;
mod wire;
