//! The process: limits, listeners, one worker per core, signals, and the end.
//!
//! It starts the workers and waits; it is never on the way of a command.

mod signals;

use std::collections::HashSet;
use std::io::ErrorKind;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement, PoolPlacement};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};
use rustix::thread::{sched_getaffinity, sched_setaffinity};
use wal::{Disk, OsDisk};

use crate::clock::wall_clock_us;
use crate::config::{CONNECTIONS_MAX, Config};
use crate::durability::journal::UNSYNCED_FILES_MAX;
use crate::failure::Failure;
use crate::mesh::{Mesh, QUEUE_CAPACITY};
use crate::net::listener::Endpoint;
use crate::net::{self, ACCEPTS_AT_ONCE, Doorbell, Net};
use crate::shared::Shared;
use crate::txn::id::ID_MICROS_MAX;
use crate::worker::{REFUSED_AT_ONCE_MAX, Ready, ShardFiles, Worker, WorkerReport};
use crate::{logging, recovery};

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

/// What the workers report; while it is waited for, those that stand still are woken.
///
/// A worker whose thread gets no CPU just when its executor looks for work parks with that work undone (glommio 0.9:
/// `run_task_queues` returns as if there were none), and where no timer of its own is under way it sleeps for ever. A
/// wake from another thread ends that. Idle workers take a turn with each tick, so none is woken but for this, for a
/// long turn, or for a thread that waits for its CPU, which it does not harm.
struct FromWorkers<'a> {
    shared: &'a Shared,
    reports: mpsc::Receiver<WorkerReport>,
    /// Never dropped: with its executor gone, nobody is left to whom the last one could be given back.
    wakers: Vec<ManuallyDrop<Waker>>,
}

impl FromWorkers<'_> {
    /// The next report. Waits for it.
    fn next(&self) -> WorkerReport {
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
    to_server: Option<mpsc::Sender<WorkerReport>>,
}

impl Reports {
    fn begin(mut self) -> mpsc::Sender<WorkerReport> {
        self.to_server.take().expect("it begins once")
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        if let Some(to_server) = self.to_server.take() {
            let _ = to_server.send(WorkerReport::Unbegun(self.index)); // Nobody listens any more: the process is ending.
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
    listeners: Vec<(OwnedFd, Endpoint)>,
    running: &OnceLock<Running>,
) -> Result<(), Failure> {
    let shards = shared.config.shard_count();
    let (reports, received) = mpsc::channel();
    let mut from_workers = FromWorkers { shared, reports: received, wakers: Vec::new() };
    let mut starts = Vec::new();
    let mut shard_data = Vec::new();
    let mut listeners = Some(listeners);
    let mut executors = Vec::new();
    for (index, mesh) in Mesh::connect_all(shards, QUEUE_CAPACITY).into_iter().enumerate() {
        let (start, started) = mpsc::channel();
        starts.push(start);
        let (sender, data) = mpsc::channel();
        shard_data.push(sender);
        let listeners = listeners.take().unwrap_or_default(); // The first worker accepts for all.
        let inlets = Inlets { listeners, start: started, data };
        let reports = Reports { index, to_server: Some(reports.clone()) };
        executors.push(spawn_worker(shared.clone(), mesh, inlets, reports)?);
    }
    let mut ready: Vec<Option<Ready>> = (0..shards).map(|_| None).collect();
    while ready.iter().any(Option::is_none) {
        match from_workers.next() {
            WorkerReport::Ready(worker, its) => ready[worker] = Some(its),
            WorkerReport::Read => unreachable!("no worker knows its files yet"),
            WorkerReport::Ended(result) => return result,
            WorkerReport::Unbegun(worker) => {
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
    shared.set_id_base(id_base_us);
    for (index, sender) in shard_data.iter().enumerate() {
        let _ = sender.send(data.shard(index)); // As above.
        Net::unpark(running.wakeups[index].as_fd());
    }
    let mut unread = shards;
    while unread > 0 {
        match from_workers.next() {
            WorkerReport::Read => unread -= 1,
            WorkerReport::Ready(..) | WorkerReport::Unbegun(_) => {}
            WorkerReport::Ended(result) => return result,
        }
    }
    data.settle(shared.config.discard_cut)?;
    shared.loading.open_logs();
    running.wakeups.iter().for_each(|wakeup| Net::unpark(wakeup.as_fd()));
    (0..shards).try_for_each(|_| {
        loop {
            if let WorkerReport::Ended(result) = from_workers.next() {
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
    listeners: Vec<(OwnedFd, Endpoint)>,
    /// By which doorbells its peers are woken.
    start: mpsc::Receiver<Arc<[Doorbell]>>,
    /// Where its shard is, once that is known.
    data: mpsc::Receiver<recovery::ShardData>,
}

fn spawn_worker(
    shared: Arc<Shared>,
    mesh: Mesh,
    inlets: Inlets,
    reports: Reports,
) -> Result<ExecutorJoinHandle<()>, Failure> {
    let index = reports.index;
    let config = shared.config.clone();
    let placement = shared.config.cpu_of(index).map_or(Placement::Unbound, Placement::Fixed);
    let work = move || async move {
        let reports = reports.begin();
        let result = work(index, shared, mesh, inlets, &reports).await;
        let _ = reports.send(WorkerReport::Ended(result)); // Nobody listens any more: the process is ending.
    };
    let executor = LocalExecutorBuilder::new(placement)
        .name(&format!("kvlite-{index}"))
        .io_memory(EXECUTOR_IO_BYTES)
        .blocking_thread_pool_placement(PoolPlacement::Custom(Vec::new())) // No helper: the snapshotter has its own.
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
    mut mesh: Mesh,
    inlets: Inlets,
    reports: &mpsc::Sender<WorkerReport>,
) -> Result<(), Failure> {
    let Inlets { listeners, start, data } = inlets;
    let net = Net::new().map_err(|error| ring_failure(error, &shared.config))?;
    let wakeup = net.wakeup().try_clone_to_owned().map_err(Failure::NetworkRing)?;
    let waker = std::future::poll_fn(|context| Poll::Ready(context.waker().clone())).await;
    let _ = reports.send(WorkerReport::Ready(index, Ready { doorbell: net.doorbell(), wakeup, waker }));
    // Nothing is served yet, so this thread may wait for the others.
    let Ok(doorbells) = start.recv() else { return Ok(()) };
    mesh.connect(&doorbells);
    shared.note_thread(index);
    let files = ShardFiles { data, read: reports.clone() };
    let worker = Worker::new(index, shared, net, mesh, files);
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
    sockets: Vec<(OwnedFd, Endpoint)>,
    resp_port: Option<u16>,
    socket_file: Option<SocketFile>,
}

fn listen(config: &Config) -> Result<Listeners, Failure> {
    let tcp = |port: u16, flag, endpoint: Endpoint| {
        let address = format!("{}:{port}", config.host);
        let sockets = bind_with_patience(|| net::bind_tcp(&config.host, port));
        let sockets = sockets.map_err(|error| Failure::Listen { address, flag, error })?;
        Ok(sockets.into_iter().map(move |(socket, _)| (socket, endpoint)))
    };
    let mut listeners = Listeners { sockets: Vec::new(), resp_port: None, socket_file: None };
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
            Err(failure) => tracing::warn!("{failure}; serving without RESP over TCP"),
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
            if shared.stop() {
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
