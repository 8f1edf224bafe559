//! What the system lets this process do: found out, raised where that is allowed, and set aside before any client gets
//! it.

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, sched_getaffinity, sched_setaffinity};

use crate::config::{CONNECTIONS_MAX, Config, Io};
use crate::durability::UNSYNCED_FILES_MAX;
use crate::failure::Failure;
use crate::http;
use crate::net::{self, ACCEPTS_AT_ONCE, Backend};
use crate::worker::REFUSED_AT_ONCE_MAX;

/// What an executor pins for its own file I/O; sockets have the ring's own buffers.
pub(super) const EXECUTOR_IO_BYTES: usize = 64 * 1024;

/// The least locked memory with which an executor starts.
const MEMLOCK_MIN_BYTES: u64 = 512 * 1024;

/// What an executor pins: its buffers, registered with each of its three rings, and on kernels that count them the
/// queues of these.
const EXECUTOR_PINNED_BYTES: u64 = 3 * EXECUTOR_IO_BYTES as u64 + (48 << 10);

/// Descriptors that are set aside before any client gets one. For the process: the standard ones, the lock, signals, a
/// backup, listeners, and the connections that the kernel has accepted there and no worker has looked at.
const FILES_OF_PROCESS: u64 = 32 + LISTENERS_USUAL * (1 + ACCEPTS_AT_ONCE as u64);
/// Two ports on two addresses, and a Unix socket.
const LISTENERS_USUAL: u64 = 5;
/// For each shard: rings and wake-ups, its directory, the files of its log and its snapshot.
const FILES_PER_SHARD: u64 = 24 + UNSYNCED_FILES_MAX as u64;

/// Finds out whether system calls are allowed whose failures later would not tell their names. Where threads cannot be
/// bound to CPUs they are not, unless `--cpus` asks for it.
pub(super) fn expect_system_calls(config: &mut Config) -> Result<(), Failure> {
    // These limits contradict each other: where the call is allowed it fails in another way, and changes nothing.
    let limits = prlimit(None, Resource::Nofile, Rlimit { current: Some(1), maximum: Some(0) });
    expect_allowed("prlimit64", "tells the limits of the process", limits.err())?;
    let probe = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    expect_allowed("eventfd2", "wakes threads", probe.as_ref().err().copied())?;
    if let Ok(probe) = probe {
        // Neither suits it, so they fail in another way where they are allowed.
        expect_allowed("fdatasync", "brings the log to disk", fdatasync(&probe).err())?;
        let room = fallocate(&probe, FallocateFlags::empty(), 0, 1);
        expect_allowed("fallocate", "makes room for the log", room.err())?;
    }
    if config.cpu_of(0).is_some() {
        let bound = sched_getaffinity(None).and_then(|cpus| sched_setaffinity(None, &cpus));
        let effect =
            if config.cpus_are_explicit() { "binds shards to --cpus" } else { "binds shards to CPUs" };
        match expect_allowed("sched_setaffinity", effect, bound.err()) {
            Err(failure) if config.cpus_are_explicit() => return Err(failure),
            Err(failure) => {
                tracing::warn!(error = %failure, "shards are not bound to CPUs");
                config.bind_none();
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

fn expect_allowed(call: &'static str, effect: &'static str, failed: Option<Errno>) -> Result<(), Failure> {
    match failed {
        Some(error @ (Errno::PERM | Errno::ACCESS | Errno::NOSYS)) => {
            Err(Failure::SystemCall { call, effect, error: error.into() })
        }
        _ => Ok(()),
    }
}

/// Raises the limit of open files as far as it is needed and allowed, and sets aside what the server needs itself: a
/// client that takes the descriptor of a log file would have writes refused. Returns how many clients there may be.
pub(super) fn set_files_aside(config: &Config) -> Result<u32, Failure> {
    let asked = config.max_connections;
    let of_admin = if config.admin_port == 0 { 0 } else { http::FILES };
    let own = FILES_OF_PROCESS
        + of_admin
        + REFUSED_AT_ONCE_MAX as u64
        + config.shard_count() as u64 * FILES_PER_SHARD;
    let wanted = own + u64::from(asked);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted));
        // Where it stays as it is, fewer clients are served.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum });
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if limit <= own {
        return Err(Failure::OpenFiles { limit, needed: own + 1 });
    }
    let clients = asked.min(u32::try_from(limit - own).unwrap_or(u32::MAX));
    if clients < asked && asked == CONNECTIONS_MAX {
        tracing::info!(clients, limit, "max-connections is as many as the limit of open files allows");
    } else if clients < asked {
        tracing::warn!(
            clients,
            asked,
            limit,
            own,
            wanted,
            remedy = "raise it to what is wanted: ulimit -n, LimitNOFILE= of systemd, --ulimit nofile= of a container",
            "max-connections is lowered to what the limit of open files allows, without the server's own"
        );
    }
    Ok(clients)
}

/// Chooses by what the kernel is asked: as `--io` says, or by what the system allows.
pub(super) fn choose_backend(config: &Config) -> Result<Backend, Failure> {
    if config.io == Io::Epoll {
        return expect_epoll().map(|()| Backend::Epoll);
    }
    let refused = raise_locked_memory(config).and_then(|()| probe_io_uring(config)).err();
    let refused = refused.or_else(|| (config.io == Io::Auto).then(|| expect_locked_memory(config).err())?);
    match refused {
        None => Ok(Backend::IoUring),
        Some(cause) if config.io == Io::Auto => {
            tracing::warn!(
                error = %cause,
                remedy = "allow io_uring as the error says, or choose --io epoll",
                "io_uring cannot be used, epoll takes its place: as safe, at up to a tenth more CPU for each command"
            );
            expect_epoll().map(|()| Backend::Epoll)
        }
        Some(failure) => Err(failure),
    }
}

/// Finds out whether the system calls are allowed that the workers make on epoll.
fn expect_epoll() -> Result<(), Failure> {
    let created = epoll::create(epoll::CreateFlags::CLOEXEC);
    expect_allowed(
        "epoll_create1",
        "tells which clients have sent something",
        created.as_ref().err().copied(),
    )?;
    let probe = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let (Ok(epoll), Ok(probe)) = (created, probe) else { return Ok(()) }; // What is lacking there the workers tell.
    let added = epoll::add(&epoll, &probe, epoll::EventData::new_u64(0), epoll::EventFlags::IN);
    expect_allowed("epoll_ctl", "tells which clients have sent something", added.err())?;
    let mut events = Vec::with_capacity(1);
    let waited = epoll::wait(&epoll, spare_capacity(&mut events), Some(&Timespec::default()));
    expect_allowed("epoll_pwait", "tells which clients have sent something", waited.err())?;
    // It is no socket: where these are allowed they fail in another way.
    let accepted = accept_with(&probe, SocketFlags::CLOEXEC);
    expect_allowed("accept4", "accepts connections", accepted.err())?;
    let received = recv(&probe, &mut [0; 1], RecvFlags::DONTWAIT);
    expect_allowed("recvfrom", "receives requests", received.err())?;
    expect_allowed("sendto", "sends replies", send(&probe, &[0], SendFlags::DONTWAIT).err())
}

fn raise_locked_memory(config: &Config) -> Result<(), Failure> {
    let Rlimit { current, maximum } = getrlimit(Resource::Memlock);
    if current != maximum {
        // The soft limit is the one that counts; where it stays low, the check below tells.
        let _ = setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum });
    }
    // Whether more is needed for all shards depends on the kernel and on the right to lock memory beyond the limit:
    // that shows when their rings are made, before anything is read.
    match getrlimit(Resource::Memlock).current {
        Some(limit) if limit < MEMLOCK_MIN_BYTES => {
            Err(Failure::Memlock { limit, needed: pinned_bytes(config) })
        }
        _ => Ok(()),
    }
}

/// Finds out whether rings can be made and used before an executor panics for want of them.
fn probe_io_uring(config: &Config) -> Result<(), Failure> {
    Backend::IoUring.probe().map_err(|error| ring_failure(error, config))
}

/// Estimates whether the rings of all shards can be made, besides what other processes of this user have locked.
fn expect_locked_memory(config: &Config) -> Result<(), Failure> {
    let Some(limit) = getrlimit(Resource::Memlock).current else { return Ok(()) };
    let needed = if kernel_counts_rings() {
        pinned_bytes(config)
    } else {
        config.shard_count() as u64 * EXECUTOR_PINNED_BYTES
    };
    let is_exempt = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if limit < needed && !is_exempt { Err(Failure::Memlock { limit, needed }) } else { Ok(()) }
}

/// Since Linux 6.14 the queues of rings count as locked memory.
fn kernel_counts_rings() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(14))
}

/// Why a ring could not be made, where the kernel allows it in principle.
pub(super) fn ring_failure(error: std::io::Error, config: &Config) -> Failure {
    match (error.raw_os_error(), getrlimit(Resource::Memlock).current) {
        (Some(libc::ENOMEM), Some(limit)) => Failure::Memlock { limit, needed: pinned_bytes(config) },
        _ => Failure::IoUring(error),
    }
}

/// What all workers pin of the memory that a user may lock, and the probe, which the kernel counts for a while longer.
fn pinned_bytes(config: &Config) -> u64 {
    let shards = config.shard_count() as u64;
    net::PINNED_BYTES + shards * (net::PINNED_BYTES + EXECUTOR_PINNED_BYTES)
}
