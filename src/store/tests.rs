//! The store against its claims: density, eviction, a model, hostile memory, races, files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers made here")]

mod agent;
mod density;
mod files;
mod hostile;
mod model;
mod names;
mod races;
mod records;
mod removals;
mod ring_slots;
mod strikes;
mod superseded;
mod support;
mod tailing;
