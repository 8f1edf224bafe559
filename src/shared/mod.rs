//! What all threads of the server know.

pub mod backups;
pub mod control;
pub mod long_scripts;
pub mod progress;
pub mod verdict;

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use shard::Clocks;
use wal::OsDisk;

use crate::clock::{self, Clock, Reading};
use crate::config::parameters::Settings;
use crate::config::{Boot, Config, size_text, value_name};
use crate::metrics::Report;
use crate::net::Backend;
use crate::scripting::libraries::Libraries;
use backups::Backups;
use control::Control;
use long_scripts::LongScripts;
use progress::Loading;
use verdict::{LastVerdict, Verdict};

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
    /// The options, as they were at the start.
    pub config: Config,
    /// Those that change while the server runs.
    pub settings: Settings,
    /// By what the kernel is asked.
    pub io: Backend,
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
    /// What clients order for all workers.
    pub control: Control,
    /// Clients connected now.
    pub connections: Gauge,
    /// Clients that ever connected.
    pub clients_accepted: Gauge,
    /// Clients that were one too many.
    pub connections_refused: Gauge,
    /// Changes of the rules for TTLs, by any worker.
    pub auto_ttl_versions: Gauge,
    /// Scripts that take long.
    pub(crate) long_scripts: LongScripts,
    /// The disk of the data directory, and the libraries of functions that were found there.
    pub(crate) found_libraries: OnceLock<(OsDisk, Arc<Libraries>)>,
    /// Workers with nothing left to do at the end.
    pub drained: Gauge,
    /// The time of transaction ids when the server started; known once the logs were looked at.
    id_base_us: OnceLock<u64>,
    stopping: AtomicBool,
    pulses: Box<[Pulse]>,
    /// What each worker has counted, as it told last.
    published: Box<[Mutex<Option<Arc<Published>>>]>,
    /// The most memory that was in use, as far as it was looked at.
    peak_memory_bytes: AtomicU64,
    /// What names this run of the server, and its history: 160 random bits each, as Redis has it.
    run_ids: [String; 2],
    /// What `INFO` leaves out since `CONFIG RESETSTAT`.
    left_out: Mutex<Option<Arc<LeftOut>>>,
    /// How long the start took.
    ready_after: OnceLock<Duration>,
    /// What is wrong with the workers' threads.
    verdict: LastVerdict,
}

/// What a worker has counted.
#[derive(Debug)]
pub struct Published {
    /// When it told, in milliseconds from the start of the server.
    pub at_ms: u64,
    /// What.
    pub report: Report,
}

/// What was counted before `CONFIG RESETSTAT`. The counters themselves only grow: others watch them, too.
#[derive(Debug)]
pub struct LeftOut {
    /// By all workers.
    pub report: Report,
    /// Clients that had connected.
    pub clients_accepted: usize,
    /// Clients that had been one too many.
    pub connections_refused: usize,
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
    pub(crate) fn new(
        config: Config,
        io: Backend,
        resp_port: Option<u16>,
        started: Instant,
        loading: Loading,
    ) -> Shared {
        let pulses: Box<[Pulse]> = (0..config.shard_count()).map(|_| Pulse::default()).collect();
        let control = Control::new(config.shard_count());
        Shared {
            long_scripts: LongScripts::new(config.shard_count()),
            settings: Settings::new(&config),
            config,
            io,
            resp_port,
            started,
            clock: SharedClock::default(),
            loading,
            backups: Backups::default(),
            control,
            connections: Gauge::default(),
            clients_accepted: Gauge::default(),
            connections_refused: Gauge::default(),
            auto_ttl_versions: Gauge::default(),
            found_libraries: OnceLock::new(),
            drained: Gauge::default(),
            id_base_us: OnceLock::new(),
            stopping: AtomicBool::new(false),
            published: pulses.iter().map(|_| Mutex::default()).collect(),
            pulses,
            peak_memory_bytes: AtomicU64::new(0),
            run_ids: std::array::from_fn(|_| random_id()),
            left_out: Mutex::default(),
            ready_after: OnceLock::new(),
            verdict: LastVerdict::default(),
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

    /// The thread of a worker, as the system numbers it; 0 before that has begun.
    pub fn thread(&self, worker: usize) -> i32 {
        self.pulses[worker].thread.load(Ordering::Relaxed)
    }

    /// Whether the thread of a worker waits in a system call. One that runs, waits for a CPU or was stopped does not.
    /// Where the system does not tell, it is taken to.
    pub fn waits_in_system_call(&self, worker: usize) -> bool {
        let thread = self.thread(worker);
        let stat = std::fs::read(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
        // The state stands behind the thread's name, which is in parentheses.
        let state = stat.rsplit(|byte| *byte == b')').next().and_then(|rest| rest.get(1));
        !matches!(state, Some(b'R' | b'T' | b't'))
    }

    /// Whether the disk of a worker fails.
    pub fn disk_fails(&self, worker: usize) -> bool {
        self.pulses[worker].disk_fails.load(Ordering::Relaxed)
    }

    /// Tells what a worker has counted. It never waits: while its last report is being looked at, this one is dropped.
    pub fn publish(&self, worker: usize, report: Report) {
        if let Ok(mut last) = self.published[worker].try_lock() {
            let at_ms = self.started.elapsed().as_millis() as u64;
            *last = Some(Arc::new(Published { at_ms, report }));
        }
    }

    /// What each worker has counted, as it told last; `None` of those that have not told anything yet.
    pub fn published(&self) -> Vec<Option<Arc<Published>>> {
        self.published.iter().map(|last| last.lock().expect("no thread panics here").clone()).collect()
    }

    /// Notes how much memory is in use; returns the most that was.
    pub fn peak_memory(&self, used_bytes: u64) -> u64 {
        self.peak_memory_bytes.fetch_max(used_bytes, Ordering::Relaxed).max(used_bytes)
    }

    /// The name of this run of the server.
    pub fn run_id(&self) -> &str {
        &self.run_ids[0]
    }

    /// The name of the history of its data, which no replica follows.
    pub fn replication_id(&self) -> &str {
        &self.run_ids[1]
    }

    /// Has `INFO` leave out what was counted up to now.
    pub fn leave_out(&self, report: Report) {
        let left_out = LeftOut {
            report,
            clients_accepted: self.clients_accepted.count(),
            connections_refused: self.connections_refused.count(),
        };
        *self.left_out.lock().expect("no thread panics here") = Some(Arc::new(left_out));
    }

    /// What `INFO` leaves out.
    pub fn left_out(&self) -> Option<Arc<LeftOut>> {
        self.left_out.lock().expect("no thread panics here").clone()
    }

    /// What was found wrong with the workers' threads, where they are watched.
    pub fn verdict(&self) -> Verdict {
        self.verdict.get()
    }

    /// The same as soon as they are looked at again, or after this time.
    pub fn next_verdict(&self, patience: Duration) -> Verdict {
        self.verdict.next(patience)
    }

    /// Notes what is found wrong with the workers' threads.
    pub fn note_verdict(&self, verdict: Verdict) {
        self.verdict.set(verdict);
    }

    /// How long the start took, once it is over.
    pub fn ready_after(&self) -> Option<Duration> {
        self.ready_after.get().copied()
    }

    /// Notes that a worker has its shard. With the last one the server is ready, and says so.
    pub(crate) fn shard_loaded(&self, index: usize, keys: usize) {
        if self.loading.finish(index, keys) {
            self.ready_after.get_or_init(|| self.started.elapsed());
            announce(self);
        }
    }

    /// Tells all that the server is to end. Returns whether they knew.
    pub fn stop(&self) -> bool {
        self.stopping.swap(true, Ordering::Relaxed)
    }

    /// Whether the server is to end.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Ids of transactions begin after this time, which no id in the logs reaches. To be set once, before any runs.
    pub(crate) fn set_id_base(&self, id_base_us: u64) {
        self.id_base_us.set(id_base_us).expect("it is set once");
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

    /// That clock, once the data is loaded, as it was then.
    pub fn resumed(&self) -> Option<Clock> {
        self.clock.get().copied()
    }

    /// The clock that goes on from what all logs tell.
    pub fn resume(&self, started: Instant, boot: Boot) -> Clock {
        *self.clock.get_or_init(|| {
            let last = *self.last.lock().expect("no worker panics here");
            Clock::resume(last, clock::name_of_boot(boot.id()), Reading::take_at_start(started))
        })
    }
}

/// 40 hexadecimal digits that no other run has, from the randomness with which the standard library seeds its maps.
fn random_id() -> String {
    let words: String = (0..3).map(|index| format!("{:016x}", RandomState::new().hash_one(index))).collect();
    words[..40].to_owned()
}

/// Where a browser finds the page of the admin port.
fn page_url(config: &Config) -> String {
    let host = match config.admin_host() {
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    };
    if config.admin_port == 0 { "off".to_owned() } else { format!("http://{host}:{}/", config.admin_port) }
}

/// The CPUs that there are, and what limits their use.
fn cpus_text(config: &Config) -> String {
    let usable = config.cpus().len();
    let of_all = match config.machine().cpus {
        0 => String::new(),
        all => format!(" of {all}"),
    };
    let quota = config.machine().cpu_quota;
    let quota = quota.map(|quota| format!(", {} allows {:.2}", quota.file, quota.cpus)).unwrap_or_default();
    format!("{usable}{of_all}{quota}")
}

fn announce(shared: &Shared) {
    let config = &shared.config;
    let address = |port: u16| if port == 0 { "off".to_owned() } else { format!("{}:{port}", config.host) };
    let shown =
        |path: &Option<PathBuf>| path.as_ref().map_or("off".to_owned(), |path| path.display().to_string());
    tracing::info!(
        version = %env!("CARGO_PKG_VERSION"),
        text = %address(config.port),
        resp = %address(shared.resp_port.unwrap_or(0)),
        unix = %shown(&config.unix_socket),
        admin = %page_url(config),
        shards = config.shard_count(),
        cpus = cpus_text(config),
        memory_limit = %config.machine().memory_limit_bytes.map_or("none".to_owned(), size_text),
        io = %shared.io,
        path = %config.wal_path.display(),
        sync = %value_name(config.sync_mode),
        ms = shared.started.elapsed().as_millis() as u64,
        "kvlite is ready"
    );
}
