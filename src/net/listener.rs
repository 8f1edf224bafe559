//! Listening sockets: TCP on every address of a host name, and Unix sockets.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt;

/// How many connections may wait in the kernel to be accepted.
const BACKLOG: i32 = 1024;

/// Which listener a client came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The text protocol, over TCP.
    Text,
    /// RESP, over TCP.
    Resp,
    /// RESP, over the Unix socket.
    Unix,
    /// RESP, from another thread of this process: it counts as no client, and no list of clients shows it.
    Inside,
}

/// From where a client has connected, and to where.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addresses {
    /// The address of the client; none on a Unix socket, and where it is gone already.
    pub peer: Option<SocketAddr>,
    /// The address of this side.
    pub local: Option<SocketAddr>,
    /// The number of the file descriptor.
    pub descriptor: i32,
}

impl Addresses {
    /// Those of a connection.
    pub fn of(socket: &OwnedFd, endpoint: Endpoint) -> Addresses {
        let descriptor = socket.as_raw_fd();
        if !matches!(endpoint, Endpoint::Text | Endpoint::Resp) {
            return Addresses { peer: None, local: None, descriptor };
        }
        let peer = rustix::net::getpeername(socket).ok().flatten();
        let local = rustix::net::getsockname(socket).ok();
        let address = |any: Option<rustix::net::SocketAddrAny>| SocketAddr::try_from(any?).ok();
        Addresses { peer: address(peer), local: address(local), descriptor }
    }

    /// Both in text: of TCP with the port, of a Unix socket its path with a 0 in place of one.
    pub fn text(&self, unix_socket: Option<&Path>) -> [String; 2] {
        let of_unix = || unix_socket.map_or("?:0".to_owned(), |path| format!("{}:0", path.display()));
        [self.peer, self.local].map(|address| match address {
            Some(address) => address.to_string(),
            None if self.peer.is_none() && self.local.is_none() => of_unix(),
            None => "?:0".to_owned(),
        })
    }
}

/// Listens on every address that `host` resolves to. Fails when one of them is taken; an address family that
/// this machine does not have is passed over as long as another one is left.
pub fn bind_tcp(host: &str, port: u16) -> io::Result<Vec<(OwnedFd, SocketAddr)>> {
    let mut bound = Vec::new();
    let mut passed_over = None;
    for address in (host, port).to_socket_addrs()? {
        if bound.iter().any(|(_, other)| *other == address) {
            continue;
        }
        match listen_tcp(address) {
            Ok(socket) => bound.push((socket, address)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => passed_over = Some(error),
        }
    }
    match (bound.is_empty(), passed_over) {
        (false, _) => Ok(bound),
        (true, Some(error)) => Err(error),
        (true, None) => Err(io::Error::new(io::ErrorKind::NotFound, "the host name has no address")),
    }
}

fn listen_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // The IPv4 address of the same name has a socket of its own.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Listens on a Unix socket at `path`. A socket file that no process serves any more is replaced; anything
/// else that lies there stays and is an error.
pub fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            _ => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves this socket")),
        },
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket lies there"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = OwnedFd::from(UnixListener::bind(path)?);
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Prepares an accepted TCP connection: small replies leave at once, and a peer that was silent for so long is asked
/// whether it is there, if any is.
pub fn prepare_tcp(socket: &OwnedFd, keepalive: Option<Duration>) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    let Some(idle) = keepalive else { return Ok(()) };
    sockopt::set_socket_keepalive(socket, true)?;
    // As Redis: three questions in the third of that time, and the peer is given up.
    sockopt::set_tcp_keepidle(socket, idle)?;
    sockopt::set_tcp_keepintvl(socket, (idle / 3).max(Duration::from_secs(1)))?;
    sockopt::set_tcp_keepcnt(socket, 3)?;
    Ok(())
}
