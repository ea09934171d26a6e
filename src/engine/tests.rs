//! The engine against its claims: two engines on one memory are two processes of one host.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod admin;
mod early_data;
mod memory;
mod metrics;
mod outside;
mod replaced;
mod sessions;
mod sources;
mod support;
mod tickets;
mod transports;
