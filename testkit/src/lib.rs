//! What libtlsresume's process tests and its demo share: real servers, real clients, and the
//! folders they work in.
//!
//! | module | what it gives |
//! |---|---|
//! | [`server`] | [`Server`]: `examples/prefork_server`, started, killed and restarted |
//! | [`installed`] | [`Installed`]: nginx, Apache, PostgreSQL and others, as the distribution has them |
//! | [`client`] | [`Client`]: a visit with `openssl s_client`, `gnutls-cli` or Python's `ssl`, and its return |
//! | [`load`] | [`Load`] and [`Traffic`]: many returning visits by `examples/load_client` |
//! | [`matrix`] | every kind of session, at every other place |
//! | [`policies`] | [`Policies`]: the matrix of `c-tests/policies` |
//! | [`stats`] | [`Stats`]: a server's metrics as numbers |
//! | [`faketime`] | [`FakeClock`]: a wall clock that the test steps |
//! | [`children`] | has the example server say how its workers ended |
//! | [`random`] | [`Random`]: chance that can be repeated |
//! | [`process`] | [`Process`]: what all of these are made of |
//! | [`redis`] | [`RedisServer`], [`SentinelGroup`], [`RedisCluster`]: Redis as the distribution has it |
//! | [`middleman`] | [`Middleman`]: stands between nodes and Redis, and behaves as the test says |
//! | [`forwarder`] | [`Forwarder`]: sends each connection where the test says |
//! | [`steal`] | [`Steal`]: what the host of a virtual machine gives to others meanwhile |
//! | [`stopwatch`] | [`Stopwatch`]: how long something takes a thread, whatever else the machine does |
//! | [`folder`], [`net`], [`wait`] | own folders, free ports, conditions with a deadline |
//!
//! Everything here stops by itself: a value that stands for a process ends it when dropped, and
//! prints what the process said if the thread is panicking. Nothing sleeps for a fixed time.
//!
//! ```no_run
//! use tlsresume_testkit::{Mode, Server, client};
//!
//! # fn main() -> tlsresume_testkit::Result<()> {
//! for client in client::all() {
//!     for mode in Mode::ALL {
//!         let mut server = Server::example()?.arg("--direct").start()?;
//!         let visitor = client.visit(server.direct(0, 0)?, mode)?;
//!         server.kill_worker(0)?;
//!         let back = visitor.come_back(server.direct(1, 0)?)?;
//!         assert!(back.reused, "{} {mode}: {back:?}", client.name());
//!     }
//! }
//! # Ok(())
//! # }
//! ```

pub mod children;
pub mod client;
pub mod error;
pub mod faketime;
pub mod folder;
pub mod forwarder;
pub mod installed;
pub mod load;
pub mod matrix;
pub mod memory;
pub mod middleman;
pub mod net;
pub mod policies;
pub mod process;
pub mod random;
pub mod redis;
pub mod server;
pub mod stats;
pub mod steal;
pub mod stopwatch;
pub mod wait;

pub use client::{Answer, Client, Connection, Mode, Visitor};
pub use error::{Error, Result};
pub use faketime::FakeClock;
pub use folder::Folder;
pub use forwarder::Forwarder;
pub use installed::Installed;
pub use load::{Load, LoadReport, Traffic, alone};
pub use middleman::{Behaviour, Middleman};
pub use net::free_port;
pub use policies::Policies;
pub use process::{Process, say, yielding};
pub use random::Random;
pub use redis::{RedisCluster, RedisServer, SentinelGroup};
pub use server::Server;
pub use stats::Stats;
pub use steal::Steal;
pub use stopwatch::Stopwatch;
pub use wait::{DEADLINE, wait_until};
