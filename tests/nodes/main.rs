//! Several nodes in one process, each with memory of its own, joined by a real Redis and nothing else.

mod agent;
mod control;
mod faults;
mod junk;
mod lookups;
mod notices;
mod other_secret;
mod places;
mod repair;
mod ring;
mod secrets;
mod sessions;
mod support;
mod waits;
mod wire;
