//! The process: limits, listeners, one worker per core, signals, and the end.
//!
//! It starts the workers and waits; it is never on the way of a command.

use std::collections::HashSet;
use std::fmt;
use std::io::ErrorKind;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement, PoolPlacement};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};
use rustix::thread::{sched_getaffinity, sched_setaffinity};
use shard::Clocks;
use wal::{Disk, OsDisk};

use crate::backup::Backups;
use crate::clock::{self, Clock, Reading, wall_clock_us};
use crate::config::{Boot, CONNECTIONS_MAX, Config};
use crate::connection::Door;
use crate::journal::UNSYNCED_FILES_MAX;
use crate::loading::Loading;
use crate::logging;
use crate::mail::{Post, QUEUE_CAPACITY};
use crate::net::{self, ACCEPTS_AT_ONCE, Doorbell, Net};
use crate::recovery;
use crate::signals;
use crate::verdict::{self, ID_MICROS_MAX};
use crate::worker::{REFUSED_AT_ONCE_MAX, ShardFiles, Worker};

/// What an executor pins for its own file I/O; sockets have the network ring's buffers.
const EXECUTOR_IO_BYTES: usize = 64 * 1024;

/// The least locked memory with which an executor starts.
const MEMLOCK_MIN_BYTES: u64 = 512 * 1024;

/// What an executor pins: its buffers, registered with each of its three rings, and on kernels that count them the
/// queues of these.
const EXECUTOR_PINNED_BYTES: u64 = 3 * EXECUTOR_IO_BYTES as u64 + (48 << 10);

/// Descriptors that are set aside before any client gets one. For the process: the standard ones, the lock, signals, a
/// backup, listeners, and the connections that the kernel has accepted there and nobody has looked at.
const FILES_OF_PROCESS: u64 = 32 + LISTENERS_USUAL * (1 + ACCEPTS_AT_ONCE as u64);
/// Two ports on two addresses, and a Unix socket.
const LISTENERS_USUAL: u64 = 5;
/// For each shard: rings and wake-ups, its directory, the files of its log and its snapshot.
const FILES_PER_SHARD: u64 = 24 + UNSYNCED_FILES_MAX as u64;

/// How long an address that is in use is tried again, and how often.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
const BIND_RETRY: Duration = Duration::from_millis(20);

/// A worker that begins no turn for so long is woken.
const STANDSTILL: Duration = Duration::from_millis(500);

/// How often it is looked whether the data directory is still at its place.
const PLACE_INTERVAL: Duration = Duration::from_secs(1);

/// How often the progress of loading is logged.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

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
    /// A log builds on what another log lacks, which no crash can have taken.
    Contradiction(verdict::Contradiction),
    /// A log frame holds something other than changes.
    Replay {
        /// The shard.
        shard: usize,
        /// The frame.
        seq: u64,
        /// Why.
        error: shard::MalformedChange,
    },
    /// The network ring failed.
    NetworkRing(std::io::Error),
    /// A worker could not be started.
    Executor(String),
    /// Signals cannot be awaited.
    Signals(std::io::Error),
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
                let flag = if is_the_port || *flag == UNIX_SOCKET { flag } else { "--host" };
                write!(f, "cannot listen on {address}: {error}; choose another with {flag}")
            }
            Failure::Log { shard, error } => {
                if let Some(shard) = shard {
                    write!(f, "shard {shard}: ")?;
                }
                write!(f, "{error}")?;
                if let wal::Error::Locked { .. } = error {
                    write!(f, "; stop it, or choose another directory with --wal-path")?;
                }
                if let wal::Error::Displaced { .. } = error {
                    write!(f, "; what was acknowledged is where it is now, if it still exists")?;
                }
                let Some((remedy, directory)) = damage_remedy(error) else { return Ok(()) };
                write!(f, "; {remedy}; `kvlite check {}` tells more", directory.display())
            }
            Failure::Contradiction(contradiction) => write!(f, "{contradiction}"),
            Failure::Replay { shard, seq, error } => {
                write!(f, "shard {shard}: frame {seq} of the log: {error}; it was written by something else")
            }
            Failure::NetworkRing(error) => write!(f, "the network ring failed: {error}"),
            Failure::Executor(error) => write!(f, "cannot start a worker: {error}"),
            Failure::Signals(error) => write!(f, "cannot await signals: {error}"),
        }
    }
}

impl std::error::Error for Failure {}

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

/// A number that all workers count together.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more; returns the number with it.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// One more.
    pub fn add(&self) {
        self.next();
    }

    /// One less.
    pub fn remove(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The number now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed) as usize
    }
}

/// What all workers know. None of it is on the way of a command.
#[derive(Debug)]
pub struct Shared {
    /// The options.
    pub config: Config,
    /// The port on which RESP is really spoken.
    pub resp_port: Option<u16>,
    /// When the server started.
    pub started: Instant,
    /// What time it is, once the data is loaded.
    pub(crate) clock: SharedClock,
    /// How far the shards are with reading their files back.
    pub loading: Loading,
    /// How backups go.
    pub(crate) backups: Backups,
    /// Clients connected now.
    pub connections: Gauge,
    /// Clients that ever connected.
    pub clients_accepted: Gauge,
    /// Clients that were one too many.
    pub connections_refused: Gauge,
    /// Changes of the rules for times to live, by whichever worker.
    pub auto_ttl_versions: Gauge,
    /// Workers with nothing left to do at the end.
    pub drained: Gauge,
    /// The time of transaction ids when the server started; known once the logs were looked at.
    id_base_us: OnceLock<u64>,
    stopping: AtomicBool,
    pulses: Box<[Pulse]>,
}

/// How a worker is, as the others see it. Each has a cache line: it is written with every turn.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Pulse {
    /// When it began its last turn, in milliseconds from the start of the server.
    turn_began_ms: AtomicU64,
    /// Its thread, as the system numbers it; 0 before that has begun.
    thread: AtomicI32,
    /// Its disk fails.
    disk_fails: AtomicBool,
    /// Up to which frame its log was handed to the system, and up to which it is on disk.
    written_seq: AtomicU64,
    durable_seq: AtomicU64,
}

impl Shared {
    /// What is known when the server starts.
    pub(crate) fn new(config: Config, resp_port: Option<u16>, started: Instant, loading: Loading) -> Shared {
        let pulses = (0..config.shard_count()).map(|_| Pulse::default()).collect();
        Shared {
            config,
            resp_port,
            started,
            clock: SharedClock::default(),
            loading,
            backups: Backups::default(),
            connections: Gauge::default(),
            clients_accepted: Gauge::default(),
            connections_refused: Gauge::default(),
            auto_ttl_versions: Gauge::default(),
            drained: Gauge::default(),
            id_base_us: OnceLock::new(),
            stopping: AtomicBool::new(false),
            pulses,
        }
    }

    /// Notes that a worker begins a turn.
    #[inline]
    pub fn beat(&self, worker: usize, now_ms: u64) {
        self.pulses[worker].turn_began_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Notes whether the disk of a worker fails.
    pub fn note_disk(&self, worker: usize, fails: bool) {
        self.pulses[worker].disk_fails.store(fails, Ordering::Relaxed);
    }

    /// Notes how far the log of a worker is, before any answer leaves that depends on it.
    #[inline]
    pub fn note_log(&self, worker: usize, written_seq: u64, durable_seq: u64) {
        self.pulses[worker].written_seq.store(written_seq, Ordering::Release);
        self.pulses[worker].durable_seq.store(durable_seq, Ordering::Release);
    }

    /// How far the log of a worker is: written, and on disk.
    pub fn log_progress(&self, worker: usize) -> (u64, u64) {
        let pulse = &self.pulses[worker];
        (pulse.written_seq.load(Ordering::Acquire), pulse.durable_seq.load(Ordering::Acquire))
    }

    /// When a worker began the turn that it is in, or its last one, in milliseconds from the start of the server.
    pub fn turn_began_ms(&self, worker: usize) -> u64 {
        self.pulses[worker].turn_began_ms.load(Ordering::Relaxed)
    }

    /// Notes that this thread is that of a worker.
    pub fn note_thread(&self, worker: usize) {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        self.pulses[worker].thread.store(thread, Ordering::Relaxed);
    }

    /// Whether the thread of a worker waits in a system call. One that runs, waits for a CPU or was stopped does not.
    /// Where the system does not tell, it is taken to.
    pub fn waits_in_system_call(&self, worker: usize) -> bool {
        let thread = self.pulses[worker].thread.load(Ordering::Relaxed);
        let stat = std::fs::read(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
        // The state stands behind the thread's name, which is in parentheses.
        let state = stat.rsplit(|byte| *byte == b')').next().and_then(|rest| rest.get(1));
        !matches!(state, Some(b'R' | b'T' | b't'))
    }

    /// Whether the disk of a worker fails.
    pub fn disk_fails(&self, worker: usize) -> bool {
        self.pulses[worker].disk_fails.load(Ordering::Relaxed)
    }

    /// Notes that a worker has its shard. With the last one the server is ready, and says so.
    pub(crate) fn shard_loaded(&self, index: usize, keys: usize) {
        if self.loading.finish(index, keys) {
            announce(self);
        }
    }

    /// Whether the server is to end.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The time for ids of transactions and snapshots, in microseconds since the Unix epoch. All workers share it,
    /// and it never goes back, not over restarts either, whatever becomes of the clock.
    pub fn id_time_us(&self) -> u64 {
        let base_us = self.id_base_us.get().expect("no transaction runs before the data is loaded");
        base_us + self.started.elapsed().as_micros() as u64
    }
}

/// The clock with which all workers begin: what happens on one shard and then on another has to be in order there, too.
#[derive(Debug, Default)]
pub(crate) struct SharedClock {
    /// The newest of what the logs tell.
    last: Mutex<Option<Clocks>>,
    clock: OnceLock<Clock>,
}

impl SharedClock {
    /// Takes what the log of a shard tells.
    pub fn learn(&self, clocks: Option<Clocks>) {
        let mut last = self.last.lock().expect("no worker panics here");
        *last = last.into_iter().chain(clocks).max_by_key(|clocks| clocks.now_ms);
    }

    /// The clock that goes on from what all logs tell.
    pub fn resume(&self, started: Instant, boot: Boot) -> Clock {
        *self.clock.get_or_init(|| {
            let last = *self.last.lock().expect("no worker panics here");
            Clock::resume(last, clock::name_of_boot(boot.id()), Reading::take_at_start(started))
        })
    }
}

/// The server as far as signals are concerned: what there is to stop, as the start goes on.
#[derive(Default)]
struct Stoppable {
    /// The file of the Unix socket that is listened on.
    unix_socket: OnceLock<SocketFile>,
    running: OnceLock<Running>,
}

struct Running {
    shared: Arc<Shared>,
    /// Where the workers are woken.
    wakeups: Vec<OwnedFd>,
}

impl Stoppable {
    fn remove_unix_socket(&self) {
        if let Some(file) = self.unix_socket.get() {
            file.remove();
        }
    }
}

/// The file of a Unix socket as it was bound. Meanwhile another server may have put its own in its place.
struct SocketFile {
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
    fn remove(&self) {
        let (Ok(own), Ok(found)) = (rustix::fs::fstat(&self.file), rustix::fs::lstat(&self.path)) else {
            return;
        };
        if (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino) {
            let _ = std::fs::remove_file(&self.path); // Gone already is as good.
        }
    }
}

/// What a worker tells when it can be woken.
pub(crate) struct Ready {
    doorbell: Doorbell,
    wakeup: OwnedFd,
    waker: Waker,
}

pub(crate) enum Report {
    Ready(usize, Ready),
    /// The files of a shard are read back and found sound.
    Read,
    Ended(Result<(), Failure>),
    /// This worker has no executor; its thread ends with the reason.
    Unbegun(usize),
}

/// What the workers report; while it is waited for, those that stand still are woken.
///
/// A worker whose thread gets no CPU just when its executor looks for work parks with that work undone (glommio 0.9:
/// `run_task_queues` returns as if there were none), and where no timer of its own is under way it sleeps for ever. A
/// wake from another thread ends that. Idle workers take a turn with each tick, so none is woken but for this, for a
/// long turn, or for a thread that waits for its CPU, which it does not harm.
struct FromWorkers<'a> {
    shared: &'a Shared,
    reports: mpsc::Receiver<Report>,
    /// Never dropped: with its executor gone, nobody is left to whom the last one could be given back.
    wakers: Vec<ManuallyDrop<Waker>>,
}

impl FromWorkers<'_> {
    /// The next report. Waits for it.
    fn next(&self) -> Report {
        loop {
            match self.reports.recv_timeout(STANDSTILL) {
                Ok(report) => return report,
                Err(mpsc::RecvTimeoutError::Timeout) => self.wake_those_that_stand_still(),
                Err(mpsc::RecvTimeoutError::Disconnected) => panic!("each worker reports its end"),
            }
        }
    }

    fn wake_those_that_stand_still(&self) {
        let now_ms = self.shared.started.elapsed().as_millis() as u64;
        for (worker, waker) in self.wakers.iter().enumerate() {
            let since_ms = now_ms.saturating_sub(self.shared.turn_began_ms(worker));
            if u128::from(since_ms) > STANDSTILL.as_millis() {
                waker.wake_by_ref();
            }
        }
    }
}

/// Where a worker reports. Dropped before its work has begun, it reports that.
struct Reports {
    index: usize,
    to_server: Option<mpsc::Sender<Report>>,
}

impl Reports {
    fn begin(mut self) -> mpsc::Sender<Report> {
        self.to_server.take().expect("it begins once")
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        if let Some(to_server) = self.to_server.take() {
            let _ = to_server.send(Report::Unbegun(self.index)); // Nobody listens any more: the process is ending.
        }
    }
}

/// Serves until a signal ends it; see [`signals`].
///
/// # Errors
/// Why it did not start, or had to end; see [`Failure::exit_status`].
pub fn run(mut config: Config) -> Result<(), Failure> {
    let started = Instant::now();
    exit_on_panic();
    config.ignored_variables().iter().for_each(|variable| tracing::warn!("{variable}"));
    let stoppable = stop_on_signal()?;
    expect_system_calls(&mut config)?;
    config.max_connections = set_files_aside(&config)?;
    raise_locked_memory(&config)?;
    probe_io_uring(&config)?;
    let found = recovery::lock(&config)?;
    let Listeners { sockets, resp_port, socket_file } = listen(&config)?;
    if let Some(file) = socket_file {
        stoppable.unix_socket.get_or_init(|| file);
    }
    let shared = Arc::new(Shared::new(config, resp_port, started, found.loading()));
    let result = serve(&shared, found, sockets, &stoppable.running);
    stoppable.remove_unix_socket();
    logging::flush(); // The last line needs room.
    if result.is_ok() {
        tracing::info!("stopped; everything acknowledged is on disk");
    }
    result
}

fn serve(
    shared: &Arc<Shared>,
    found: recovery::Found,
    listeners: Vec<(OwnedFd, Door)>,
    running: &OnceLock<Running>,
) -> Result<(), Failure> {
    let shards = shared.config.shard_count();
    let (reports, received) = mpsc::channel();
    let mut from_workers = FromWorkers { shared, reports: received, wakers: Vec::new() };
    let mut starts = Vec::new();
    let mut shard_data = Vec::new();
    let mut listeners = Some(listeners);
    let mut executors = Vec::new();
    for (index, post) in Post::mesh(shards, QUEUE_CAPACITY).into_iter().enumerate() {
        let (start, started) = mpsc::channel();
        starts.push(start);
        let (sender, data) = mpsc::channel();
        shard_data.push(sender);
        let listeners = listeners.take().unwrap_or_default(); // The first worker accepts for all.
        let inlets = Inlets { listeners, start: started, data };
        let reports = Reports { index, to_server: Some(reports.clone()) };
        executors.push(spawn_worker(shared.clone(), post, inlets, reports)?);
    }
    let mut ready: Vec<Option<Ready>> = (0..shards).map(|_| None).collect();
    while ready.iter().any(Option::is_none) {
        match from_workers.next() {
            Report::Ready(worker, its) => ready[worker] = Some(its),
            Report::Read => unreachable!("no worker knows its files yet"),
            Report::Ended(result) => return result,
            Report::Unbegun(worker) => {
                let ended = executors.swap_remove(worker).join();
                return ended.map_err(|error| executor_failure(error, &shared.config));
            }
        }
    }
    let ready: Vec<Ready> = ready.into_iter().flatten().collect();
    let doorbells: Arc<[Doorbell]> = ready.iter().map(|ready| ready.doorbell.clone()).collect();
    let (wakeups, wakers) = ready.into_iter().map(|it| (it.wakeup, ManuallyDrop::new(it.waker))).unzip();
    from_workers.wakers = wakers;
    let running = running.get_or_init(|| Running { shared: shared.clone(), wakeups });
    for start in &starts {
        let _ = start.send(doorbells.clone()); // A worker that has ended says so by its report.
    }
    log_progress(shared.clone())?;
    let mut data = found.prepare(&shared.loading)?;
    watch_place(data.disk().clone())?;
    let id_base_us = wall_clock_us().min(ID_MICROS_MAX).max(data.last_id_us() + 1);
    let _ = shared.id_base_us.set(id_base_us); // It is set only here.
    for (index, sender) in shard_data.iter().enumerate() {
        let _ = sender.send(data.shard(index)); // As above.
        Net::unpark(running.wakeups[index].as_fd());
    }
    let mut unread = shards;
    while unread > 0 {
        match from_workers.next() {
            Report::Read => unread -= 1,
            Report::Ready(..) | Report::Unbegun(_) => {}
            Report::Ended(result) => return result,
        }
    }
    data.settle(shared.config.discard_cut)?;
    shared.loading.open_logs();
    running.wakeups.iter().for_each(|wakeup| Net::unpark(wakeup.as_fd()));
    (0..shards).try_for_each(|_| {
        loop {
            if let Report::Ended(result) = from_workers.next() {
                break result;
            }
        }
    })?;
    data.disk().expect_lock().map_err(|error| Failure::Log { shard: None, error })
}

/// Looks now and then whether the data directory is still at its place, for all that use this disk. The thread does
/// nothing else: no client waits for it where the disk hangs.
fn watch_place(disk: OsDisk) -> Result<(), Failure> {
    let work = move || {
        loop {
            std::thread::sleep(PLACE_INTERVAL);
            let _ = disk.expect_lock(); // The shards find out, and tell.
        }
    };
    let thread = std::thread::Builder::new().name("kvlite-place".to_owned()).spawn(work);
    thread.map(drop).map_err(Failure::Thread)
}

/// Logs now and then how far the loading is, until it is over.
fn log_progress(shared: Arc<Shared>) -> Result<(), Failure> {
    let work = move || {
        let loading = &shared.loading;
        let mut before = loading.extent();
        loop {
            std::thread::sleep(PROGRESS_INTERVAL);
            if loading.is_over() {
                break;
            }
            let now = loading.extent();
            let read_before = if now.step == before.step { before.read_bytes } else { 0 };
            let bytes = now.read_bytes.saturating_sub(read_before);
            let bytes_per_second = bytes / PROGRESS_INTERVAL.as_secs();
            tracing::info!(percent = loading.percent(), keys = now.keys, bytes_per_second, "loading");
            before = now;
        }
    };
    let thread = std::thread::Builder::new().name("kvlite-progress".to_owned()).spawn(work);
    thread.map(drop).map_err(Failure::Thread)
}

/// What a worker is given when it begins and later.
struct Inlets {
    listeners: Vec<(OwnedFd, Door)>,
    /// By which doorbells its peers are woken.
    start: mpsc::Receiver<Arc<[Doorbell]>>,
    /// Where its shard is, once that is known.
    data: mpsc::Receiver<recovery::ShardData>,
}

fn spawn_worker(
    shared: Arc<Shared>,
    post: Post,
    inlets: Inlets,
    reports: Reports,
) -> Result<ExecutorJoinHandle<()>, Failure> {
    let index = reports.index;
    let config = shared.config.clone();
    let placement = shared.config.cpu_of(index).map_or(Placement::Unbound, Placement::Fixed);
    let work = move || async move {
        let reports = reports.begin();
        let result = work(index, shared, post, inlets, &reports).await;
        let _ = reports.send(Report::Ended(result)); // Nobody listens any more: the process is ending.
    };
    let executor = LocalExecutorBuilder::new(placement)
        .name(&format!("kvlite-{index}"))
        .io_memory(EXECUTOR_IO_BYTES)
        .blocking_thread_pool_placement(PoolPlacement::Custom(Vec::new())) // No helper: the upkeep has its own.
        .spawn(work);
    executor.map_err(|error| executor_failure(error, &config))
}

fn executor_failure(error: GlommioError<()>, config: &Config) -> Failure {
    match error {
        GlommioError::IoError(error) if error.raw_os_error().is_some() => {
            Failure::from_start(error, |error| ring_failure(error, config))
        }
        error => Failure::Executor(error.to_string()),
    }
}

/// Why a ring could not be made, where the kernel allows it in principle.
fn ring_failure(error: std::io::Error, config: &Config) -> Failure {
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

async fn work(
    index: usize,
    shared: Arc<Shared>,
    mut post: Post,
    inlets: Inlets,
    reports: &mpsc::Sender<Report>,
) -> Result<(), Failure> {
    let Inlets { listeners, start, data } = inlets;
    let net = Net::new().map_err(|error| ring_failure(error, &shared.config))?;
    let wakeup = net.wakeup().try_clone_to_owned().map_err(Failure::NetworkRing)?;
    let waker = std::future::poll_fn(|context| Poll::Ready(context.waker().clone())).await;
    let _ = reports.send(Report::Ready(index, Ready { doorbell: net.doorbell(), wakeup, waker }));
    // Nothing is served yet, so this thread may wait for the others.
    let Ok(doorbells) = start.recv() else { return Ok(()) };
    post.connect(&doorbells);
    shared.note_thread(index);
    let files = ShardFiles { data, read: reports.clone() };
    let worker = Worker::new(index, shared, net, post, files);
    let mut worker = worker.map_err(|error| Failure::from_start(error, Failure::NetworkRing))?;
    worker.accept_at(listeners);
    worker.run().await
}

/// A worker that panics would leave a server without one of its shards: the process ends instead.
fn exit_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        logging::flush(); // What follows needs room among the lines that wait.
        tracing::error!("kvlite has a defect and ends: {panic}");
        let backtrace = std::backtrace::Backtrace::force_capture().to_string();
        backtrace.lines().for_each(|line| tracing::error!("{line}"));
        logging::exit(70); // EX_SOFTWARE
    }));
}

/// Finds out whether system calls are allowed whose failures later would not tell their names. Where threads cannot be
/// bound to CPUs they are not, unless `--cpus` asks for it.
fn expect_system_calls(config: &mut Config) -> Result<(), Failure> {
    // These limits contradict each other: where the call is allowed it fails in another way, and changes nothing.
    let limits = prlimit(None, Resource::Nofile, Rlimit { current: Some(1), maximum: Some(0) });
    expect_allowed("prlimit64", "tells the limits of the process", limits.err())?;
    expect_allowed("eventfd2", "wakes threads", eventfd(0, EventfdFlags::CLOEXEC).err())?;
    if config.cpu_of(0).is_some() {
        let bound = sched_getaffinity(None).and_then(|cpus| sched_setaffinity(None, &cpus));
        let effect =
            if config.cpus_are_explicit() { "binds shards to --cpus" } else { "binds shards to CPUs" };
        match expect_allowed("sched_setaffinity", effect, bound.err()) {
            Err(failure) if config.cpus_are_explicit() => return Err(failure),
            Err(failure) => {
                tracing::warn!("shards are not bound to CPUs: {failure}");
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
fn set_files_aside(config: &Config) -> Result<u32, Failure> {
    let asked = config.max_connections;
    let own = FILES_OF_PROCESS + REFUSED_AT_ONCE_MAX as u64 + config.shard_count() as u64 * FILES_PER_SHARD;
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
        tracing::info!("max-connections is {clients}, as many as the limit of open files ({limit}) allows");
    } else if clients < asked {
        tracing::warn!(
            "max-connections is {clients} and not {asked}: the limit of open files is {limit}, and {own} are set \
             aside for the log, snapshots and the like; raise it to {wanted}: ulimit -n, LimitNOFILE= of systemd, \
             --ulimit nofile= of a container"
        );
    }
    Ok(clients)
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
    let probed = Net::new().and_then(|mut net| net.wait(Duration::ZERO));
    probed.map_err(|error| ring_failure(error, config))
}

/// The sockets that are listened on, and the port of RESP if it is spoken over TCP.
struct Listeners {
    sockets: Vec<(OwnedFd, Door)>,
    resp_port: Option<u16>,
    socket_file: Option<SocketFile>,
}

fn listen(config: &Config) -> Result<Listeners, Failure> {
    let tcp = |port: u16, flag, door: Door| {
        let address = format!("{}:{port}", config.host);
        let sockets = bind_with_patience(|| net::bind_tcp(&config.host, port));
        let sockets = sockets.map_err(|error| Failure::Listen { address, flag, error })?;
        Ok(sockets.into_iter().map(move |(socket, _)| (socket, door)))
    };
    let mut listeners = Listeners { sockets: Vec::new(), resp_port: None, socket_file: None };
    if config.port != 0 {
        listeners.sockets.extend(tcp(config.port, "--port", Door::Text)?);
    }
    let has_others = config.port != 0 || config.unix_socket.is_some();
    let is_needed = |failure: &Failure| {
        let is_taken =
            matches!(failure, Failure::Listen { error, .. } if error.kind() == ErrorKind::AddrInUse);
        config.resp_port_is_explicit() || !is_taken || !has_others
    };
    if config.resp_port != 0 {
        match tcp(config.resp_port, "--resp-port", Door::Resp) {
            Ok(sockets) => {
                listeners.sockets.extend(sockets);
                listeners.resp_port = Some(config.resp_port);
            }
            Err(failure) if is_needed(&failure) => return Err(failure),
            Err(failure) => tracing::warn!("{failure}; serving without RESP over TCP"),
        }
    }
    if let Some(path) = &config.unix_socket {
        let failed =
            |error| Failure::Listen { address: path.display().to_string(), flag: UNIX_SOCKET, error };
        let bound = bind_with_patience(|| net::bind_unix(path));
        let (socket, file) =
            bound.and_then(|socket| Ok((socket, SocketFile::open(path)?))).map_err(failed)?;
        listeners.sockets.push((socket, Door::Unix));
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

/// Ends the server at a signal that is to end it; at a second one, at once. Before it runs or while it is loading the
/// first one ends it at once too: nothing was acknowledged, and a start that is cut short leaves the files whole. Other
/// signals that would end the process are ignored, and logged when they come for the first time.
fn stop_on_signal() -> Result<Arc<Stoppable>, Failure> {
    let stoppable: Arc<Stoppable> = Arc::default();
    let stopped = stoppable.clone();
    let mut signals = signals::awaited().map_err(Failure::Signals)?;
    let wait = move || {
        let mut ignored = HashSet::new();
        for signal in signals.forever() {
            let name = signals::name(signal);
            if !signals::ENDING.contains(&signal) {
                if ignored.insert(signal) {
                    tracing::warn!("{name} changes nothing and is ignored, further ones without a word");
                }
                continue;
            }
            let loaded = stopped.running.get().filter(|running| running.shared.loading.is_over());
            let Some(Running { shared, wakeups }) = loaded else {
                tracing::info!("stopped by {name} before the data was loaded");
                stopped.remove_unix_socket();
                logging::exit(0)
            };
            if shared.stopping.swap(true, Ordering::Relaxed) {
                tracing::warn!("stopped at once by a second signal, {name}");
                stopped.remove_unix_socket();
                logging::exit(128 + signal);
            }
            tracing::info!("stopping at {name}; a second signal ends at once");
            wakeups.iter().for_each(|wakeup| Net::unpark(wakeup.as_fd()));
        }
    };
    let thread = std::thread::Builder::new().name("kvlite-signals".to_owned()).spawn(wait);
    thread.map(|_| stoppable).map_err(Failure::Thread)
}

fn announce(shared: &Shared) {
    let config = &shared.config;
    let address = |port: u16| if port == 0 { "off".to_owned() } else { format!("{}:{port}", config.host) };
    let shown =
        |path: &Option<PathBuf>| path.as_ref().map_or("off".to_owned(), |path| path.display().to_string());
    tracing::info!(
        text = address(config.port),
        resp = address(shared.resp_port.unwrap_or(0)),
        unix = shown(&config.unix_socket),
        shards = config.shard_count(),
        data = %config.wal_path.display(),
        sync = ?config.sync_mode,
        started_ms = shared.started.elapsed().as_millis() as u64,
        "kvlite {} is ready",
        env!("CARGO_PKG_VERSION"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set in the process that is to panic.
    const PANIC: &str = "KVLITE_TEST_PANIC_IN_WORKER";

    #[test]
    fn a_panic_in_a_worker_ends_the_process_once_its_lines_are_written() {
        if std::env::var_os(PANIC).is_some() {
            let config =
                <Config as clap::Parser>::try_parse_from(["kvlite"]).expect("the defaults are valid");
            logging::init(&config).expect("the log's thread starts");
            exit_on_panic();
            let worker = LocalExecutorBuilder::default().spawn(|| async {
                glommio::spawn_local(async { panic!("a defect\n\x1b[31mof a client") }).detach();
                std::future::pending::<()>().await;
            });
            let _ = worker.expect("an executor starts").join();
            logging::exit(0); // Reached only when the panic ended the executor alone.
        }
        let name = "server::tests::a_panic_in_a_worker_ends_the_process_once_its_lines_are_written";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let ended = child.args([name, "--exact", "--nocapture"]).env(PANIC, "1").output().unwrap();
        assert_eq!(ended.status.code(), Some(70), "{ended:?}");
        let log = String::from_utf8(ended.stderr).unwrap();
        let first = log.lines().next().unwrap_or_default();
        assert!(first.ends_with("a defect\\n\\u{1b}[31mof a client"), "{log}");
        assert!(log.lines().count() > 5 && log.ends_with('\n'), "no backtrace: {log}");
        assert!(log.lines().all(|line| line.contains(" ERROR ")), "a line without an origin: {log}");
    }
}
