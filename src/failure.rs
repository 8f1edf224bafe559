//! Why the server ends, or does not start, and what to do about it.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};
use wal::Layout;

const UNIX_SOCKET: &str = "--unix-socket";

/// The exit status where the system refuses what the server needs (`EX_CONFIG`).
const EXIT_CONFIG: i32 = 78;

/// Why the server ends, or does not start.
#[derive(Debug)]
pub enum Failure {
    /// The kernel refuses io_uring, or lacks a part of it.
    IoUring(std::io::Error),
    /// The limit of locked memory is too low.
    Memlock {
        /// The limit, in bytes.
        limit: u64,
        /// What all shards need together, in bytes.
        needed: u64,
    },
    /// The limit of open files leaves none for clients.
    OpenFiles {
        /// The limit.
        limit: u64,
        /// What the server needs to serve a single client.
        needed: u64,
    },
    /// There can be no further thread.
    Thread(std::io::Error),
    /// A system call is forbidden.
    SystemCall {
        /// Its name.
        call: &'static str,
        /// What it is needed for, as a verb says it.
        effect: &'static str,
        /// How it failed.
        error: std::io::Error,
    },
    /// There can be no log lines.
    Logging(std::io::Error),
    /// A listener's address cannot be used.
    Listen {
        /// The address, or the path.
        address: String,
        /// The flag that names it.
        flag: &'static str,
        /// Why.
        error: std::io::Error,
    },
    /// The data directory or the log in it.
    Log {
        /// The shard, where it is about one.
        shard: Option<usize>,
        /// Why.
        error: wal::Error,
    },
    /// The data directory holds files of the Go kvlite, and none of this one.
    GoData {
        /// The directory.
        path: PathBuf,
    },
    /// A log builds on what another log lacks, which no crash can have taken.
    Contradiction(Contradiction),
    /// A log frame holds something other than changes.
    Replay {
        /// The shard.
        shard: usize,
        /// The frame.
        seq: u64,
        /// Why.
        error: shard::MalformedChange,
    },
    /// There are keys in a database that clients could not select.
    Databases {
        /// Its number, the greatest in a shard.
        database: u16,
        /// How many there would be.
        databases: u16,
    },
    /// The network of a worker failed.
    Network(std::io::Error),
    /// A worker could not be started.
    Executor(String),
    /// Signals cannot be awaited.
    Signals(std::io::Error),
    /// The password of the admin port cannot be read from its file.
    Password {
        /// The file.
        path: PathBuf,
        /// Why; `None` where its first line is empty.
        error: Option<std::io::Error>,
    },
    /// The admin port cannot be served.
    Admin(std::io::Error),
}

impl Failure {
    /// A failure of a shard's log.
    pub(crate) fn log(shard: usize, error: wal::Error) -> Failure {
        Failure::Log { shard: Some(shard), error }
    }

    /// Why something did not start that needs a thread among other things.
    pub fn from_start(error: std::io::Error, otherwise: impl FnOnce(std::io::Error) -> Failure) -> Failure {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Failure::Thread(error),
            _ => otherwise(error),
        }
    }

    /// The status with which the process exits.
    pub fn exit_status(&self) -> i32 {
        match self {
            Failure::IoUring(_)
            | Failure::Memlock { .. }
            | Failure::OpenFiles { .. }
            | Failure::Thread(_)
            | Failure::SystemCall { .. } => EXIT_CONFIG,
            _ => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::IoUring(error) => {
                write!(f, "io_uring is not available: {error}; {}", io_uring_remedy(error))
            }
            Failure::Memlock { limit, needed } => write!(
                f,
                "the limit of locked memory is {limit} bytes; io_uring needs {needed} here, besides what other \
                 processes of this user have locked; start fewer --shards, or raise it: ulimit -l, LimitMEMLOCK= \
                 of systemd, --ulimit memlock=-1 of a container"
            ),
            Failure::OpenFiles { limit, needed } => write!(
                f,
                "the limit of open files is {limit}, and the shards need {needed} to serve a client; start fewer \
                 --shards, or raise it: ulimit -n, LimitNOFILE= of systemd, --ulimit nofile= of a container"
            ),
            Failure::Thread(error) => write!(
                f,
                "cannot start a thread: {error}; raise the limit of threads (ulimit -u, TasksMax= of systemd, \
                 pids.max of a cgroup, --pids-limit of a container), or start fewer (--shards, or --threads of \
                 kvlite bench)"
            ),
            Failure::SystemCall { call, effect, error } => write!(
                f,
                "the system call {call} is forbidden, which {effect}: {error}; allow it in the seccomp \
                 profile of the container, or with SystemCallFilter= of systemd"
            ),
            Failure::Logging(error) => write!(f, "there can be no log: {error}"),
            Failure::Listen { address, flag, error } => {
                // Other ports of an address that is no address of this machine are no better.
                let is_the_port = matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied);
                let flag = match *flag {
                    flag if is_the_port || flag == UNIX_SOCKET => flag,
                    "--admin-port" => "--admin-host",
                    _ => "--host",
                };
                write!(f, "cannot listen on {address}: {error}; choose another with {flag}")
            }
            Failure::Log { shard, error } => fmt_log(*shard, error, f),
            Failure::GoData { path } => write!(
                f,
                "{path} holds the data of the earlier kvlite in Go: kvlite import {path} --to NEW makes a data directory \
                 of it, for --wal-path NEW",
                path = path.display()
            ),
            Failure::Contradiction(contradiction) => write!(f, "{contradiction}"),
            Failure::Replay { shard, seq, error } => {
                write!(f, "shard {shard}: frame {seq} of the log: {error}; it was written by something else")
            }
            Failure::Databases { database, databases } => write!(
                f,
                "there are keys in database {database}, which no client can select of {databases}; give a greater number \
                 of --databases"
            ),
            Failure::Network(error) => write!(f, "the network failed: {error}"),
            Failure::Executor(error) => write!(f, "cannot start a worker: {error}"),
            Failure::Signals(error) => write!(f, "cannot await signals: {error}"),
            Failure::Password { path, error: Some(error) } => write!(
                f,
                "cannot read --admin-password-file {}: {error}; write the password into it, for the user of this \
                 process to read, or leave the option out",
                path.display()
            ),
            Failure::Password { path, error: None } => write!(
                f,
                "the first line of --admin-password-file {} is empty; write the password into it",
                path.display()
            ),
            Failure::Admin(error) => write!(
                f,
                "cannot serve --admin-port: {error}; allow epoll_create1 and eventfd2 in the seccomp profile of the \
                 container, or leave the port out"
            ),
        }
    }
}

impl std::error::Error for Failure {}

/// What went wrong with the files of a shard, or of none, and what to do about it.
fn fmt_log(shard: Option<usize>, error: &wal::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(shard) = shard {
        write!(f, "shard {shard}: ")?;
    }
    write!(f, "{error}")?;
    if let wal::Error::Locked { .. } = error {
        write!(f, "; stop it, or choose another directory with --wal-path")?;
    }
    if let Some(remedy) = access_remedy(error) {
        write!(f, "; {remedy}")?;
    }
    if let wal::Error::Displaced { .. } = error {
        write!(f, "; what was acknowledged is where it is now, if it still exists")?;
    }
    let Some((remedy, directory)) = damage_remedy(error) else { return Ok(()) };
    write!(f, "; {remedy}; `kvlite check {}` tells more", directory.display())
}

/// What to do where the process may not write to the data directory; `None` when that is not at fault.
fn access_remedy(error: &wal::Error) -> Option<String> {
    let wal::Error::Io { source, .. } = error else { return None };
    match source.kind() {
        ErrorKind::PermissionDenied => {
            let (user, group) = (geteuid().as_raw(), getegid().as_raw());
            Some(format!(
                "kvlite runs as user {user} and group {group}: give them the data directory (chown -R \
                 {user}:{group}, or fsGroup: {group} in Kubernetes), or start kvlite as its owner (--user of a \
                 container, User= of systemd)"
            ))
        }
        ErrorKind::ReadOnlyFilesystem => Some(
            "the data directory has to be writable: mount a volume there (-v of a container), or name another one \
             with --wal-path"
                .to_owned(),
        ),
        _ => None,
    }
}

/// What to do about files that are not as they were written, and the data directory that they are in; `None` when
/// they are not at fault.
pub(crate) fn damage_remedy(error: &wal::Error) -> Option<(String, &Path)> {
    let path = error.evidence()?.path;
    let directory = wal::data_dir_of(path).unwrap_or(path);
    let remedy = match error {
        wal::Error::NewerVersion { .. } => "start a newer kvlite".to_owned(),
        wal::Error::Unfinished { .. } => {
            "remove the directory, and repeat the repair or the backup".to_owned()
        }
        wal::Error::WrongShard { .. } => "move it to the directory of its shard".to_owned(),
        _ => format!(
            "put it back from a copy, or salvage what is readable with `kvlite repair {} --to NEW`",
            directory.display()
        ),
    };
    Some((remedy, directory))
}

fn io_uring_remedy(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile of the \
             container, and set the sysctl kernel.io_uring_disabled to 0"
        }
        Some(libc::ENOSYS) => "allow it in the seccomp profile of the container, or run Linux 6.1 or newer",
        Some(libc::ENOMEM) => "free memory, or raise the limit of locked memory (ulimit -l)",
        _ => "kvlite needs Linux 6.1 or newer",
    }
}

/// A transaction of which one shard lacks its part, although no crash can have taken it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// A shard that has its own part, or a frame that builds on it.
    pub shard: usize,
    /// The number of that frame.
    pub seq: u64,
    /// The shard that lacks its part.
    pub lacking: usize,
    /// Its directory.
    pub directory: PathBuf,
}

impl Contradiction {
    /// The same, of a shard of this layout.
    pub(crate) fn within(self, layout: &Layout) -> Contradiction {
        Contradiction { directory: layout.shard_dir(self.lacking as u32), ..self }
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Contradiction { shard, seq, lacking, directory } = self;
        let data = wal::data_dir_of(directory).unwrap_or(directory).display();
        write!(
            f,
            "shard {lacking}: {}: expected its part of a command over several shards that shard {shard} knows of in \
             frame {seq}, found a log that ends before it, although no crash can have taken it; put the files of \
             shard {lacking} back from a copy, or salvage what is readable with `kvlite repair {data} --to NEW`; \
             `kvlite check {data}` tells more",
            directory.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_written_to_is_told_with_user_and_remedy() {
        let told = |source: std::io::Error| {
            let error = wal::Error::Io { action: "create", path: "/data/LOCK".into(), source };
            Failure::Log { shard: None, error }.to_string()
        };
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        let refused = told(std::io::Error::from_raw_os_error(libc::EACCES));
        assert!(refused.contains(&format!("kvlite runs as user {user} and group {group}")), "{refused}");
        assert!(refused.contains(&format!("chown -R {user}:{group}")), "{refused}");
        let read_only = told(std::io::Error::from_raw_os_error(libc::EROFS));
        assert!(read_only.contains("mount a volume there"), "{read_only}");
        let other = told(std::io::Error::from_raw_os_error(libc::EIO));
        assert!(!other.contains("chown") && !other.contains("volume"), "{other}");
    }
}
