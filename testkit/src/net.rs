//! Loopback addresses.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Result;
use crate::error::Doing;

/// A TCP port of the loopback address that nobody listens on now. Prefer port 0 where the
/// program can tell which one it got.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing("finding a free port")?;
    Ok(listener.local_addr().doing("finding a free port")?.port())
}

/// The same free port of two loopback addresses, which nobody else uses: clients connect from
/// 127.0.0.1, so none of them takes the port while a server restarts.
pub fn one_port_of_two_addresses() -> Result<[SocketAddr; 2]> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let [.., middle, low] = std::process::id().wrapping_mul(16).wrapping_add(nth).to_be_bytes();
        let host = |last| Ipv4Addr::new(127, (middle % 254) + 1, low, last);
        let first = TcpListener::bind((host(1), 0)).doing("finding a free port")?;
        let first = first.local_addr().doing("finding a free port")?;
        let second = SocketAddr::from((host(2), first.port()));
        if TcpListener::bind(second).is_ok() {
            return Ok([first, second]);
        }
    }
}
