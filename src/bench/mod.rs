//! `kvlite bench`: a load generator for kvlite, memcached, and every server that speaks the Redis protocol.
//!
//! Each thread drives its connections with a network of its own, the one that the server has, so that
//! the generator does not end before the server does. Every run has an end: a number of requests, a time, and
//! a time without any reply after which the server counts as gone. It starts no server and touches no file.

mod connect;
mod generator;
mod options;
mod replies;
mod report;
mod requests;
mod schedule;

use std::ffi::OsString;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};
use std::{fmt, io};

use indicatif::{ProgressBar, ProgressStyle};

use crate::config::Io;
use crate::net::Backend;
use generator::{Connection, Generator, Plan, Shared, Tally};
use replies::Malformed;
use requests::{Keys, RequestWriter};
use schedule::Schedule;

pub use options::Options;
pub use report::Report;

/// How many requests a connection has under way while keys are filled in, and how many bytes at most.
const FILL_PIPELINE: usize = 100;
const FILL_BYTES_MAX: usize = 1024 * 1024;

/// How long filling in may take.
const FILL_DURATION_MAX: Duration = Duration::from_hours(1);

/// How often the progress line is written anew.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Why there is no result.
#[derive(Debug)]
pub enum Failure {
    /// The server cannot be reached.
    Connect {
        /// Its address, or the path of its socket.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// The server greeted with something else than the text protocol does; its first line.
    Greeting(String),
    /// The server answers `PING` with something else than the Redis protocol does; what that was.
    NotPong(String),
    /// The server does not tell which shard serves a connection; what it said instead.
    NoShards(String),
    /// No key lives where it is asked for.
    NoSuchKeys,
    /// The server closed a connection.
    Closed(Option<io::Error>),
    /// The server sent what is no reply.
    Malformed(Malformed),
    /// The server sent a reply that was not asked for.
    Unasked,
    /// The server sent nothing for this time, though replies are due.
    Silent(Duration),
    /// Another thread has failed.
    Stopped,
    /// The system refuses io_uring, or a thread.
    System(crate::failure::Failure),
    /// The network failed.
    Network(io::Error),
}

impl Failure {
    /// A network that could not be made.
    fn no_network(backend: Backend, error: io::Error) -> Failure {
        Failure::System(match backend {
            Backend::IoUring => crate::failure::Failure::IoUring(error),
            Backend::Epoll => crate::failure::Failure::from_start(error, crate::failure::Failure::Network),
        })
    }

    /// The status with which the process exits.
    pub fn exit_status(&self) -> i32 {
        match self {
            Failure::System(failure) => failure.exit_status(),
            _ => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connect { address, error } => write!(f, "cannot connect to {address}: {error}"),
            Failure::Greeting(line) => write!(
                f,
                "the server greets with '{}' instead of the text protocol's +OK; choose --protocol resp?",
                line.escape_debug()
            ),
            Failure::NotPong(said) => write!(
                f,
                "the server answers PING with '{}' instead of the Redis protocol's +PONG; choose --protocol text?",
                said.escape_debug()
            ),
            Failure::NoShards(said) => write!(
                f,
                "--locality needs a server that tells its shards, as kvlite does: '{}'",
                said.escape_debug()
            ),
            Failure::NoSuchKeys => write!(f, "--locality: a shard has no keys, or there is only one shard"),
            Failure::Closed(None) => write!(f, "the server closed a connection"),
            Failure::Closed(Some(error)) => write!(f, "a connection broke: {error}"),
            Failure::Malformed(malformed) => write!(f, "the server's answer cannot be read: {malformed}"),
            Failure::Unasked => write!(f, "the server sent a reply that no request asked for"),
            Failure::Silent(timeout) => write!(f, "the server has not answered for {timeout:?} (--timeout)"),
            Failure::Stopped => write!(f, "stopped, because another thread failed"),
            Failure::System(failure) => write!(f, "{failure}"),
            Failure::Network(error) => write!(f, "the network failed: {error}"),
        }
    }
}

impl std::error::Error for Failure {}

/// The whole program behind `kvlite bench`: `args` begin with its name. Prints the result, and returns the
/// status with which the process exits.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    let options = match Options::from_args(args) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    let json = options.json;
    let shown = match run(options) {
        Ok(report) if json => format!("{}\n", report.json()),
        Ok(report) => report.to_string(),
        Err(failure) => {
            eprintln!("kvlite bench: {failure}");
            return failure.exit_status();
        }
    };
    match io::stdout().write_all(shown.as_bytes()) {
        // A reader that has seen enough is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("kvlite bench: cannot write to standard output: {error}");
            1
        }
        _ => 0,
    }
}

/// Fills in the keys if that is asked for, then measures.
///
/// # Errors
/// The server cannot be reached, closes a connection, sends no replies; or the system refuses io_uring or threads.
pub fn run(options: Options) -> Result<Report, Failure> {
    let options = Arc::new(options);
    let backend = choose_backend(options.io);
    let shards = connect::shard_count(&options)?;
    let keys = Arc::new(Keys::new(&options, shards).ok_or(Failure::NoSuchKeys)?);
    if options.fill {
        let room = FILL_BYTES_MAX / (options.value_bytes_max() as usize + 64);
        let plan = Plan::Fill(options.keys);
        let tally = drive(&options, backend, &keys, plan, room.clamp(1, FILL_PIPELINE), FILL_DURATION_MAX)?;
        if let (Some((text, count)), true) = (tally.errors.iter().next(), options.requests_max() > 0) {
            eprintln!("kvlite bench: {count} keys were not set: {text}");
        }
        if options.requests_max() == 0 {
            return Ok(Report::new(&options, backend, plan, &tally));
        }
    }
    let (duration, requests_max) = (options.duration_max(), options.requests_max());
    let plan = match options.rate {
        None => Plan::Closed(requests_max),
        Some(rate) => Plan::Open(Schedule::new(rate, options.clients.into(), duration, requests_max)),
    };
    let tally = drive(&options, backend, &keys, plan, options.pipeline as usize, duration)?;
    Ok(Report::new(&options, backend, plan, &tally))
}

/// The backend that is asked for, or that the system allows.
fn choose_backend(io: Io) -> Backend {
    match io {
        Io::Auto => match Backend::IoUring.probe() {
            Ok(()) => Backend::IoUring,
            Err(error) => {
                eprintln!(
                    "kvlite bench: io_uring cannot be used ({error}), epoll takes its place: the load generator \
                     takes more CPU, and may be the limit sooner"
                );
                Backend::Epoll
            }
        },
        Io::IoUring => Backend::IoUring,
        Io::Epoll => Backend::Epoll,
    }
}

/// Lets all threads work through a plan, and shows the progress.
fn drive(
    options: &Arc<Options>,
    backend: Backend,
    keys: &Arc<Keys>,
    plan: Plan,
    pipeline: usize,
    duration: Duration,
) -> Result<Tally, Failure> {
    let threads = options.threads as usize;
    let mut connections: Vec<Vec<Connection>> = (0..threads).map(|_| Vec::new()).collect();
    for client in 0..options.clients as usize {
        connections[client % threads].push(connect::connect(options)?);
    }
    let shared = Shared {
        backend,
        plan,
        pipeline,
        duration,
        timeout: options.timeout,
        next_number: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let (ready, all_ready) = mpsc::channel::<()>();
    let start = OnceLock::new();
    let (results, finished) = mpsc::channel();
    std::thread::scope(|scope| {
        for (thread, connections) in connections.into_iter().enumerate() {
            let (shared, ready, start, result_of) = (&shared, ready.clone(), &start, results.clone());
            let writer = RequestWriter::new(options.clone(), keys.clone(), thread as u64);
            let work = move || {
                let generator = Generator::new(shared, options.clone(), writer, thread as u64, connections);
                drop(ready);
                let start = *start.wait();
                let result = generator.and_then(|generator| generator.run(start));
                shared.stop.fetch_or(result.is_err(), Ordering::Relaxed);
                // The receiver stays until all threads have reported.
                let _ = result_of.send(result);
            };
            if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, work) {
                shared.stop.store(true, Ordering::Relaxed);
                let _ = results.send(Err(Failure::System(crate::failure::Failure::Thread(error))));
                break;
            }
        }
        drop((results, ready));
        let _ = all_ready.recv(); // Nothing is sent: this waits until no thread is getting ready any more.
        start.get_or_init(Instant::now);
        collect(&shared, &finished)
    })
}

/// Gathers what the threads counted. The failure that is returned is the first one, not that of a thread that
/// was stopped because of it.
fn collect(shared: &Shared, finished: &mpsc::Receiver<Result<Tally, Failure>>) -> Result<Tally, Failure> {
    let progress = Progress::new(shared.plan);
    let mut total = Ok(Tally::new());
    loop {
        match finished.recv_timeout(PROGRESS_INTERVAL) {
            Ok(Ok(tally)) => {
                if let Ok(total) = &mut total {
                    total.add(&tally);
                }
            }
            Ok(Err(failure)) => {
                if matches!(total, Ok(_) | Err(Failure::Stopped)) {
                    total = Err(failure);
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => progress.show(shared.answered.load(Ordering::Relaxed)),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    progress.bar.finish_and_clear();
    total
}

/// The line on a terminal that tells how far a run is; nothing where standard error is no terminal.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(plan: Plan) -> Progress {
        let bar = ProgressBar::new_spinner();
        let verb = if matches!(plan, Plan::Fill(_)) { "filling" } else { "measuring" };
        let style = ProgressStyle::with_template("{prefix} {elapsed} {human_pos} requests, {per_sec}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_prefix(verb);
        Progress { bar }
    }

    fn show(&self, answered: u64) {
        self.bar.set_position(answered);
    }
}
