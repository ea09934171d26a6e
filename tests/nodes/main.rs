//! Several nodes in one process, each with memory of its own, joined by a real Redis and nothing else.

mod lookups;
mod ring;
mod sessions;
mod support;
