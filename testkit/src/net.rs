//! Loopback addresses.

use std::net::{Ipv4Addr, TcpListener};

use crate::Result;
use crate::error::Doing;

/// A TCP port of the loopback address that nobody listens on now. Prefer port 0 where the
/// program can tell which one it got.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing("finding a free port")?;
    Ok(listener.local_addr().doing("finding a free port")?.port())
}
