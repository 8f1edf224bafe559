//! The sockets that clients connect to.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use crate::config::Config;
use crate::failure::Failure;
use crate::net;
use crate::net::listener::Endpoint;

/// How long an address that is in use is tried again, and how often.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
const BIND_RETRY: Duration = Duration::from_millis(20);

const UNIX_SOCKET: &str = "--unix-socket";

/// The file of a Unix socket as it was bound. Meanwhile another server may have put its own in its place.
pub(super) struct SocketFile {
    path: PathBuf,
    /// As long as it is open, no other file has its number.
    file: OwnedFd,
}

impl SocketFile {
    fn open(path: &Path) -> std::io::Result<SocketFile> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(SocketFile { path: path.to_owned(), file })
    }

    /// Removes it, if it is still there.
    pub fn remove(&self) {
        let (Ok(own), Ok(found)) = (rustix::fs::fstat(&self.file), rustix::fs::lstat(&self.path)) else {
            return;
        };
        if (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino) {
            let _ = std::fs::remove_file(&self.path); // Gone already is as good.
        }
    }
}

/// The sockets that are listened on, and the port of RESP if it is spoken over TCP.
pub(super) struct Listeners {
    pub sockets: Vec<(OwnedFd, Endpoint)>,
    pub resp_port: Option<u16>,
    pub socket_file: Option<SocketFile>,
    /// Those of the admin port.
    pub admin: Vec<OwnedFd>,
}

pub(super) fn listen(config: &Config) -> Result<Listeners, Failure> {
    let bind = |host: &str, port: u16, flag| {
        let address = format!("{host}:{port}");
        let sockets = bind_with_patience(|| net::bind_tcp(host, port));
        sockets.map_err(|error| Failure::Listen { address, flag, error })
    };
    let tcp = |port: u16, flag, endpoint: Endpoint| {
        Ok(bind(&config.host, port, flag)?.into_iter().map(move |(socket, _)| (socket, endpoint)))
    };
    let mut listeners =
        Listeners { sockets: Vec::new(), resp_port: None, socket_file: None, admin: Vec::new() };
    if config.admin_port != 0 {
        let sockets = bind(config.admin_host(), config.admin_port, "--admin-port")?;
        listeners.admin = sockets.into_iter().map(|(socket, _)| socket).collect();
    }
    if config.port != 0 {
        listeners.sockets.extend(tcp(config.port, "--port", Endpoint::Text)?);
    }
    let has_others = config.port != 0 || config.unix_socket.is_some();
    let is_needed = |failure: &Failure| {
        let is_taken =
            matches!(failure, Failure::Listen { error, .. } if error.kind() == ErrorKind::AddrInUse);
        config.resp_port_is_explicit() || !is_taken || !has_others
    };
    if config.resp_port != 0 {
        match tcp(config.resp_port, "--resp-port", Endpoint::Resp) {
            Ok(sockets) => {
                listeners.sockets.extend(sockets);
                listeners.resp_port = Some(config.resp_port);
            }
            Err(failure) if is_needed(&failure) => return Err(failure),
            Err(failure) => tracing::warn!(error = %failure, "serving without RESP over TCP"),
        }
    }
    if let Some(path) = &config.unix_socket {
        let failed =
            |error| Failure::Listen { address: path.display().to_string(), flag: UNIX_SOCKET, error };
        let bound = bind_with_patience(|| net::bind_unix(path));
        let (socket, file) =
            bound.and_then(|socket| Ok((socket, SocketFile::open(path)?))).map_err(failed)?;
        listeners.sockets.push((socket, Endpoint::Unix));
        listeners.socket_file = Some(file);
    }
    Ok(listeners)
}

/// Tries again for a while when an address is in use: after a kill, the kernel still holds the sockets of the killed
/// process until it has cancelled what was submitted on them.
fn bind_with_patience<T>(bind: impl Fn() -> std::io::Result<T>) -> std::io::Result<T> {
    let started = Instant::now();
    loop {
        match bind() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && started.elapsed() < BIND_PATIENCE => {
                std::thread::sleep(BIND_RETRY);
            }
            done => return done,
        }
    }
}
