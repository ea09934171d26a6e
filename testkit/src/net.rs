//! Loopback addresses.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Result;
use crate::error::Doing;

/// A TCP port of the loopback address that nobody listens on now. Prefer port 0 where the
/// program can tell which one it got.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing("finding a free port")?;
    Ok(listener.local_addr().doing("finding a free port")?.port())
}

/// A port of 127.0.0.1 that the kernel gives to nobody else while the value lives, although a
/// server may listen there: for servers that have to be told their port, and are restarted.
#[derive(Debug)]
pub struct ReservedPort {
    port: u16,
    _bound: OwnedFd,
}

impl ReservedPort {
    /// One that nobody uses now.
    pub fn new() -> Result<ReservedPort> {
        reserve().doing("reserving a port")
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.port
    }

    /// Where a server listens on it.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

/// A socket that is bound with `SO_REUSEADDR`, and does not listen, keeps others from getting its
/// port by chance and lets whoever names it with that option have it.
fn reserve() -> io::Result<ReservedPort> {
    // SAFETY: socket takes three integers and touches no memory of ours.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and nobody else has it.
    let bound = unsafe { OwnedFd::from_raw_fd(fd) };
    set_option(&bound, libc::SO_REUSEADDR, &1_i32)?;

    let mut address = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).map_err(io::Error::other)?,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    let mut len = socket_len::<libc::sockaddr_in>()?;
    let pointer = (&raw mut address).cast::<libc::sockaddr>();
    // SAFETY: `pointer` is to a sockaddr_in of `len` bytes, which bind reads.
    if unsafe { libc::bind(fd, pointer, len) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `pointer` is to a sockaddr_in of `len` bytes, which getsockname writes.
    if unsafe { libc::getsockname(fd, pointer, &raw mut len) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ReservedPort { port: u16::from_be(address.sin_port), _bound: bound })
}

/// Sets an option of a socket to a value of C's type for it.
pub(crate) fn set_option<T: Copy>(
    socket: &impl AsRawFd,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let (fd, len) = (socket.as_raw_fd(), socket_len::<T>()?);
    let pointer = (&raw const *value).cast();
    // SAFETY: `pointer` is to `len` bytes, which setsockopt reads.
    match unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, pointer, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn socket_len<T>() -> io::Result<libc::socklen_t> {
    size_of::<T>().try_into().map_err(io::Error::other)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_free_for_whoever_names_it_again_and_again() -> Result<()> {
        let port = ReservedPort::new()?;
        for _ in 0..2 {
            TcpListener::bind(port.address()).doing("listening on a reserved port")?;
        }
        Ok(())
    }
}
