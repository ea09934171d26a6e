//! The inode of a TCP socket: the kernel is asked for this one (sock_diag(7)), because
//! `/proc/net/tcp` gets long on a machine that has just seen many connections. Where the kernel
//! does not answer such questions, it is looked for there after all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{FromRawFd, OwnedFd};

/// Of the server's end of a connection that a process has accepted.
pub(super) fn inode(client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let (SocketAddr::V4(client), SocketAddr::V4(server)) = (client, server) else { return None };
    let inode = ask(client, server)
        .ok()
        .or_else(|| look_up(&fs::read_to_string("/proc/net/tcp").ok()?, client, server));
    // 0 is that of a connection which nobody has accepted yet.
    inode.filter(|inode| *inode != 0)
}

const REQUEST_BYTES: u32 = 72;
const REPLY_BYTES: usize = 88;
/// `SOCK_DIAG_BY_FAMILY`, the type of both messages.
const BY_FAMILY: u16 = 20;
const LISTENING: u8 = 10;

fn ask(client: SocketAddrV4, server: SocketAddrV4) -> io::Result<u32> {
    let mut request = Vec::new();
    // struct nlmsghdr: length, type, NLM_F_REQUEST, sequence number and sender that we do not need.
    request.extend(REQUEST_BYTES.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(1_u16.to_ne_bytes());
    request.extend([0; 8]);
    // struct inet_diag_req_v2: AF_INET, TCP, no extensions; all states; the server's end.
    request.extend([2, 6, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(server.port().to_be_bytes());
    request.extend(client.port().to_be_bytes());
    for address in [server.ip(), client.ip()] {
        request.extend(address.octets());
        request.extend([0; 12]);
    }
    // Any interface, no cookie.
    request.extend([0; 4]);
    request.extend([0xff; 8]);

    let mut diag = connect()?;
    diag.write_all(&request)?;
    let mut reply = [0; 512];
    let len = diag.read(&mut reply)?;
    let message = reply.get(..len).unwrap_or_default();
    // struct inet_diag_msg: after its header, family and state; the inode is its last member.
    let kind = message.get(4..6) == Some(&BY_FAMILY.to_ne_bytes());
    let is_connection = message.get(17).is_some_and(|state| *state != LISTENING);
    match message.get(REPLY_BYTES - 4..REPLY_BYTES) {
        Some(&[a, b, c, d]) if kind && is_connection => Ok(u32::from_ne_bytes([a, b, c, d])),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn connect() -> io::Result<File> {
    // SAFETY: socket takes three integers and touches no memory of ours.
    let fd = unsafe {
        libc::socket(libc::AF_NETLINK, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and nobody else has it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

const NETLINK_SOCK_DIAG: libc::c_int = 4;

fn look_up(table: &str, client: SocketAddrV4, server: SocketAddrV4) -> Option<u32> {
    let (server, client) = (in_table(server), in_table(client));
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote) = (words.next()?, words.next()?);
        if local != server || remote != client {
            return None;
        }
        // Between addresses and inode: state, queues, timer, retransmissions, user, timeout.
        words.nth(6)?.parse().ok()
    })
}

/// The kernel prints an address as a number of this machine's byte order, the port as a number.
fn in_table(address: SocketAddrV4) -> String {
    let number = u32::from_ne_bytes(address.ip().octets());
    format!("{number:08X}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_kernel_and_its_table_know_the_inode() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let v4 = |address| match address {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => panic!("bound to IPv4"),
        };
        let from = v4(client.local_addr().unwrap());
        let to = v4(accepted.local_addr().unwrap());

        let link = fs::read_link(format!("/proc/self/fd/{}", accepted.as_raw_fd())).unwrap();
        let is_it = |inode: u32| link.as_os_str() == format!("socket:[{inode}]").as_str();
        assert!(inode(from.into(), to.into()).is_some_and(is_it));
        assert!(inode(to.into(), from.into()).is_some_and(|inode| !is_it(inode)));
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        assert!(look_up(&table, from, to).is_some_and(is_it));
        if let Ok(inode) = ask(from, to) {
            assert!(is_it(inode));
        }
    }
}
