//! The process: limits, listeners, one worker per core, signals, and the end.
//!
//! It starts the workers and waits; it is never on the way of a command.

mod limits;
mod listeners;
mod notify;
mod signals;
mod stuck_workers;

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock, mpsc};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use glommio::{GlommioError, LocalExecutorBuilder, Placement, PoolPlacement};
use rustix::thread::{CpuSet, sched_setaffinity};
use wal::{Disk, OsDisk};

use crate::clock::wall_clock_us;
use crate::config::{Config, IgnoredVariable};
use crate::failure::Failure;
use crate::http::password::Password;
use crate::machine::Machine;
use crate::mesh::{Mesh, QUEUE_CAPACITY};
use crate::net::listener::Endpoint;
use crate::net::{self, Backend, Doorbell, Net};
use crate::shared::Shared;
use crate::txn::id::ID_MICROS_MAX;
use crate::worker::{Ready, ShardFiles, Worker, WorkerReport};
use crate::{http, logging, recovery, scripting};
use limits::{EXECUTOR_IO_BYTES, ring_failure};
use listeners::Listeners;
use signals::{Running, Stoppable};

/// A worker that begins no turn for so long is woken.
const STANDSTILL: Duration = Duration::from_millis(500);

/// How often it is looked whether the data directory is still at its place.
const PLACE_INTERVAL: Duration = Duration::from_secs(1);

/// The stack of a worker's thread, in bytes. Lua's matcher of patterns needs much of it; memory is taken for what is
/// used only.
const WORKER_STACK_BYTES: usize = 64 << 20;

/// How often the progress of loading is logged.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// What the workers report; while it is waited for, those that stand still are woken.
///
/// A worker whose thread gets no CPU just when its executor looks for work parks with that work undone (glommio 0.9:
/// `run_task_queues` returns as if there were none), and where no timer of its own is under way it sleeps for ever. A
/// wake from another thread ends that. Idle workers take a turn with each tick, so none is woken but for this, for a
/// long turn, or for a thread that waits for its CPU, which it does not harm.
struct FromWorkers<'a> {
    shared: &'a Shared,
    reports: mpsc::Receiver<WorkerReport>,
    /// Never dropped: once its executor is gone, the last one could not be given back.
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
            let _ = to_server.send(WorkerReport::Unbegun(self.index)); // Not heard while the process is ending.
        }
    }
}

/// Serves until a signal ends it.
///
/// # Errors
/// Why it did not start, or had to end; see [`Failure::exit_status`].
pub fn run(mut config: Config) -> Result<(), Failure> {
    let started = Instant::now();
    exit_on_panic();
    for IgnoredVariable { name, value } in config.ignored_variables() {
        tracing::warn!(
            variable = %name,
            value = %value,
            remedy = "Kubernetes sets it for a Service of that name, unless enableServiceLinks is false",
            "a variable is ignored: no option takes a value with a scheme"
        );
    }
    if let names @ [_, ..] = &Config::unknown_variables()[..] {
        tracing::warn!(
            variables = %names.join(" "),
            "variables change nothing: no option has such a name; kvlite --help shows the names"
        );
    }
    if let flags @ [_, ..] = config.single_dash_flags() {
        tracing::warn!(flags = %flags.join(" "), "flags are given with one dash: give them with two");
    }
    config.run_on(Machine::of_this_process());
    let stoppable: Arc<Stoppable> = signals::stop_on_signal()?;
    limits::expect_system_calls(&mut config)?;
    config.max_connections = limits::set_files_aside(&config)?;
    let backend = limits::choose_backend(&config)?;
    let password = config.admin_password_file.as_deref().map(Password::read).transpose()?;
    let found = recovery::lock(&config)?;
    let Listeners { sockets, resp_port, socket_file, admin } = listeners::listen(&config)?;
    if let Some(file) = socket_file {
        stoppable.unix_socket.get_or_init(|| file);
    }
    let shared = Arc::new(Shared::new(config, backend, resp_port, started, found.loading()));
    let watchdog = notify::watchdog();
    stuck_workers::judge_workers(shared.clone(), watchdog)?;
    let insiders = http::serve(admin, shared.clone(), password)?;
    notify::tell_service_manager(shared.clone())?;
    let result = serve(&shared, found, Sockets { listeners: sockets, insiders }, &stoppable.running);
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
    sockets: Sockets,
    running: &OnceLock<Running>,
) -> Result<(), Failure> {
    let shards = shared.config.shard_count();
    let (reports, received) = mpsc::channel();
    let mut from_workers = FromWorkers { shared, reports: received, wakers: Vec::new() };
    let mut starts = Vec::new();
    let mut shard_data = Vec::new();
    let mut sockets = Some(sockets);
    let mut executors = Vec::new();
    for (index, mesh) in Mesh::connect_all(shards, QUEUE_CAPACITY).into_iter().enumerate() {
        let (start, started) = mpsc::channel();
        starts.push(start);
        let (sender, data) = mpsc::channel();
        shard_data.push(sender);
        let sockets = sockets.take().unwrap_or_default(); // The first worker accepts for all.
        let inlets = Inlets { sockets, start: started, data };
        let reports = Reports { index, to_server: Some(reports.clone()) };
        executors.push(spawn_worker(shared.clone(), mesh, inlets, reports)?);
    }
    let Some(ready) = await_ready(&from_workers, executors)? else { return Ok(()) };
    let doorbells: Arc<[Doorbell]> = ready.iter().map(|ready| ready.doorbell.clone()).collect();
    let (wakeups, wakers) = ready.into_iter().map(|it| (it.wakeup, ManuallyDrop::new(it.waker))).unzip();
    from_workers.wakers = wakers;
    let running = running.get_or_init(|| Running { shared: shared.clone(), wakeups });
    for start in &starts {
        let _ = start.send(doorbells.clone()); // A worker that has ended says so by its report.
    }
    log_progress(shared.clone())?;
    let loaded = load(found, &from_workers, &shard_data, &running.wakeups)?;
    let Some(data) = loaded else { return Ok(()) };
    (0..shards).try_for_each(|_| {
        loop {
            if let WorkerReport::Ended(result) = from_workers.next() {
                break result;
            }
        }
    })?;
    data.disk().expect_lock().map_err(|error| Failure::Log { shard: None, error })
}

/// Waits until every worker can be woken. `None` when one of them has ended in order.
fn await_ready(
    from_workers: &FromWorkers<'_>,
    mut executors: Vec<Executor>,
) -> Result<Option<Vec<Ready>>, Failure> {
    let mut ready: Vec<Option<Ready>> = executors.iter().map(|_| None).collect();
    while ready.iter().any(Option::is_none) {
        match from_workers.next() {
            WorkerReport::Ready(worker, its) => ready[worker] = Some(its),
            WorkerReport::Read => unreachable!("no worker knows its files yet"),
            WorkerReport::Ended(result) => return result.map(|()| None),
            WorkerReport::Unbegun(worker) => {
                let ended = executors.swap_remove(worker).join().expect("a panic ends the process");
                let failure = |error| executor_failure(error, &from_workers.shared.config);
                return ended.map(|()| None).map_err(failure);
            }
        }
    }
    Ok(Some(ready.into_iter().flatten().collect()))
}

/// Finds out what counts, has every worker read its shard back, and then lets all of them open their logs. `None` when
/// one of them has ended in order.
fn load(
    found: recovery::Found,
    from_workers: &FromWorkers<'_>,
    shard_data: &[mpsc::Sender<recovery::ShardData>],
    wakeups: &[OwnedFd],
) -> Result<Option<recovery::Data>, Failure> {
    let shared = from_workers.shared;
    let mut data = found.prepare(&shared.loading)?;
    watch_place(data.disk().clone())?;
    let libraries = scripting::file::read(data.disk(), &shared.config.wal_path);
    let libraries = libraries.map_err(|error| Failure::Log { shard: None, error })?;
    let found = (data.disk().clone(), Arc::new(libraries));
    shared.found_libraries.set(found).expect("they are looked for once");
    let id_base_us = wall_clock_us().min(ID_MICROS_MAX).max(data.last_id_us() + 1);
    shared.set_id_base(id_base_us);
    for (index, sender) in shard_data.iter().enumerate() {
        let _ = sender.send(data.shard(index)); // A worker that has ended says so by its report.
        net::unpark(wakeups[index].as_fd());
    }
    let mut unread = shard_data.len();
    while unread > 0 {
        match from_workers.next() {
            WorkerReport::Read => unread -= 1,
            WorkerReport::Ready(..) | WorkerReport::Unbegun(_) => {}
            WorkerReport::Ended(result) => return result.map(|()| None),
        }
    }
    data.settle(shared.config.discard_cut)?;
    shared.loading.open_logs();
    wakeups.iter().for_each(|wakeup| net::unpark(wakeup.as_fd()));
    Ok(Some(data))
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

/// Where clients come from.
#[derive(Default)]
struct Sockets {
    listeners: Vec<(OwnedFd, Endpoint)>,
    /// Connections whose other ends this process holds.
    insiders: Vec<OwnedFd>,
}

/// What a worker is given when it begins and later.
struct Inlets {
    sockets: Sockets,
    /// By which doorbells its peers are woken.
    start: mpsc::Receiver<Arc<[Doorbell]>>,
    /// Where its shard is, once that is known.
    data: mpsc::Receiver<recovery::ShardData>,
}

/// The thread of a worker, which may fail before the worker begins.
type Executor = std::thread::JoinHandle<Result<(), GlommioError<()>>>;

/// Starts the thread of a worker.
fn spawn_worker(
    shared: Arc<Shared>,
    mesh: Mesh,
    inlets: Inlets,
    reports: Reports,
) -> Result<Executor, Failure> {
    let index = reports.index;
    let (backend, config) = (shared.io, shared.config.clone());
    let cpu = config.cpu_of(index);
    let work = move || async move {
        let reports = reports.begin();
        let result = work(index, shared, mesh, inlets, &reports).await;
        let _ = reports.send(WorkerReport::Ended(result)); // Not heard while the process is ending.
    };
    let on_thread = move || {
        if backend == Backend::Epoll {
            bind(cpu);
            futures_lite::future::block_on(work());
            return Ok(());
        }
        let executor = LocalExecutorBuilder::new(cpu.map_or(Placement::Unbound, Placement::Fixed))
            .io_memory(EXECUTOR_IO_BYTES)
            .blocking_thread_pool_placement(PoolPlacement::Custom(Vec::new())) // No helper: the snapshotter has its own.
            .make()?;
        executor.run(work());
        Ok(())
    };
    let thread = std::thread::Builder::new().name(format!("kvlite-{index}")).stack_size(WORKER_STACK_BYTES);
    thread.spawn(on_thread).map_err(Failure::Thread)
}

/// Binds this thread to a CPU. Whether that is allowed was found out before; where it fails all the same, the worker
/// runs on any.
fn bind(cpu: Option<usize>) {
    if let Some(cpu) = cpu {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        let _ = sched_setaffinity(None, &cpus);
    }
}

fn executor_failure(error: GlommioError<()>, config: &Config) -> Failure {
    match error {
        GlommioError::IoError(error) if error.raw_os_error().is_some() => {
            Failure::from_start(error, |error| ring_failure(error, config))
        }
        error => Failure::Executor(error.to_string()),
    }
}

fn network_failure(error: std::io::Error, shared: &Shared) -> Failure {
    match shared.io {
        Backend::IoUring => ring_failure(error, &shared.config),
        Backend::Epoll => Failure::from_start(error, Failure::Network),
    }
}

async fn work(
    index: usize,
    shared: Arc<Shared>,
    mut mesh: Mesh,
    inlets: Inlets,
    reports: &mpsc::Sender<WorkerReport>,
) -> Result<(), Failure> {
    let Inlets { sockets, start, data } = inlets;
    let net = Net::new(shared.io).map_err(|error| network_failure(error, &shared))?;
    let wakeup = net.wakeup().try_clone_to_owned().map_err(Failure::Network)?;
    let waker = std::future::poll_fn(|context| Poll::Ready(context.waker().clone())).await;
    let _ = reports.send(WorkerReport::Ready(index, Ready { doorbell: net.doorbell(), wakeup, waker }));
    // Nothing is served yet, so this thread may wait for the others.
    let Ok(doorbells) = start.recv() else { return Ok(()) };
    mesh.connect(&doorbells);
    shared.note_thread(index);
    let files = ShardFiles { data, read: reports.clone() };
    let worker = Worker::new(index, shared, net, mesh, files);
    let mut worker = worker.map_err(|error| Failure::from_start(error, Failure::Network))?;
    worker.accept_at(sockets.listeners, sockets.insiders);
    worker.run().await
}

/// A worker that panics would leave a server without one of its shards: the process ends instead. That of the admin
/// port costs an answer.
fn exit_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        if std::thread::current().name() == Some(http::THREAD) {
            return tracing::error!(panic = %panic, "kvlite has a defect in its admin port, and goes on");
        }
        logging::flush(); // What follows needs room among the lines that wait.
        tracing::error!(panic = %panic, "kvlite has a defect and ends");
        let backtrace = std::backtrace::Backtrace::force_capture().to_string();
        backtrace.lines().for_each(|line| tracing::error!(line = %line, "backtrace"));
        logging::exit(70); // EX_SOFTWARE
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set in the process that is to panic.
    const PANIC: &str = "KVLITE_TEST_PANIC_IN_WORKER";

    #[test]
    fn a_panic_ends_the_process_once_its_lines_are_written_but_for_one_in_the_admin_port() {
        if std::env::var_os(PANIC).is_some() {
            let config =
                <Config as clap::Parser>::try_parse_from(["kvlite"]).expect("the defaults are valid");
            logging::init(&config).expect("the log's thread starts");
            exit_on_panic();
            let admin = std::thread::Builder::new().name(http::THREAD.to_owned());
            assert!(admin.spawn(|| panic!("a defect of the admin port")).unwrap().join().is_err());
            let worker = LocalExecutorBuilder::default().spawn(|| async {
                glommio::spawn_local(async { panic!("a defect\n\x1b[31mof a client") }).detach();
                std::future::pending::<()>().await;
            });
            let _ = worker.expect("an executor starts").join();
            logging::exit(0); // Reached only when the panic ended the executor alone.
        }
        let name = "server::tests::a_panic_ends_the_process_once_its_lines_are_written_but_for_one_in_the_admin_port";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let ended = child.args([name, "--exact", "--nocapture"]).env(PANIC, "1").output().unwrap();
        assert_eq!(ended.status.code(), Some(70), "{ended:?}");
        let log = String::from_utf8(ended.stderr).unwrap();
        let mut lines = log.lines();
        let admin = lines.next().unwrap_or_default();
        assert!(
            admin.contains("in its admin port, and goes on ") && admin.ends_with("of the admin port"),
            "{log}"
        );
        let first = lines.next().unwrap_or_default();
        assert!(first.ends_with("a defect\\n\\u{1b}[31mof a client"), "{log}");
        assert!(log.lines().count() > 5 && log.ends_with('\n'), "no backtrace: {log}");
        assert!(log.lines().all(|line| line.contains(" ERROR ")), "a line without an origin: {log}");
    }
}
