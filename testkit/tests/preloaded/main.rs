//! Servers under `LD_PRELOAD`: what they do as clients is as without the library, sessions stay with
//! their name and authority, and no mistake of ours keeps a server from serving.

mod clients;
mod dry_runs;
mod faults;
mod isolation;
mod layouts;
mod optouts;
mod policies;
mod upgrade;
