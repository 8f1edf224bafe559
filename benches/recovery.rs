//! The way back from disk, and the price of a snapshot: restarts of kvlite on its log and on a snapshot
//! against those of Redis on its AOF and its RDB file; and the latencies under a fixed rate before and during
//! a snapshot.
//!
//! `make bench-recovery ARGS=--help` shows the options.

mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use kvlite::config::usable_cpus;

use harness::load::{Load, Sample};
use harness::report::{Report, median, ratio};
use harness::server::{Contender, DataDir, Server};
use harness::{Common, Outcome, plot};

/// Compares restarts and snapshots of kvlite and redis-server, in turns, and prints Markdown tables
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Keys, several numbers, up to 10000000 [default: 1000000,5000000, with --quick 100000]
    #[arg(long, value_delimiter = ',', value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    keys: Vec<u64>,
    /// Keys while snapshots are written [default: 1000000, with --quick 100000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    snapshot_keys: Option<u64>,
}

const VALUE_BYTES: &str = "64";

/// A log that is not compacted while the benchmark fills it.
const WHOLE_LOG: [&str; 6] = ["--max-wal-size", "0", "--max-wal-entries", "0", "--shards", "1"];

/// A state on disk that a server is started on.
struct Stored {
    name: &'static str,
    contender: Contender,
    dir: PathBuf,
    bytes: u64,
    /// The state that its ratios are about.
    peer: usize,
}

#[derive(Clone, Copy)]
struct Restart {
    seconds: f64,
    cpu_seconds: f64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    harness::run("bench-recovery", &options.common, || run(&options))
}

fn run(options: &Options) -> Outcome<()> {
    let quick = options.common.quick;
    let usual = if quick { vec![100_000] } else { vec![1_000_000, 5_000_000] };
    let counts = if options.keys.is_empty() { usual } else { options.keys.clone() };
    let snapshot_keys = options.snapshot_keys.unwrap_or(if quick { 100_000 } else { 1_000_000 });
    let &[first, second, ..] = usable_cpus().as_slice() else {
        return Err("this needs two CPUs: one for the server, one for the load".into());
    };
    let (server_cpu, load_cpu) = (first.to_string(), second.to_string());
    let notes = [
        "One core each (kvlite with one shard), files in the page cache; keys of 16 bytes, values of 64",
        "A start counts from that of the process to the first answer about its keys",
        "Redis AOF: written command by command, without a rewrite",
    ];
    let complete = options.keys.is_empty() && options.snapshot_keys.is_none();
    let title = "Restarts and snapshots of kvlite and Redis";
    let mut report = Report::new("recovery", title, &options.common, complete, &["redis-server"], &notes)?;
    let mut groups = Vec::new();
    for keys in counts {
        let load = Load::new(&load_cpu, keys, VALUE_BYTES);
        let dir = DataDir::create()?;
        let stored = store(&server_cpu, &load, &dir, options)?;
        let restarts = restart(&stored, keys, options)?;
        write_restarts(&stored, &restarts, keys, &mut report);
        let per_cpu =
            |all: &Vec<Restart>| keys as f64 / median(all.iter().map(|one| one.cpu_seconds).collect());
        groups.push((format!("{keys} keys"), restarts.iter().map(per_cpu).collect()));
    }
    if let Some(path) = report.plot_path("recovery") {
        let series = ["kvlite log", "kvlite snapshot", "Redis AOF", "Redis RDB"];
        plot::bars(&path, "Restart: keys for each CPU second", "keys", &series, &groups)?;
        report.image("Restart: keys for each CPU second", &path);
    }
    write_snapshots(&server_cpu, &load_cpu, snapshot_keys, options, &mut report)?;
    report.finish()
}

/// Has each server write its data in each of its forms, and ends it.
fn store(cpu: &str, load: &Load, dir: &DataDir, options: &Options) -> Outcome<[Stored; 4]> {
    let kvlite =
        || Contender::kvlite("kvlite", &options.common.kvlite_binary, "everysec", cpu).with(&WHOLE_LOG);
    let forms = [
        ("kvlite log", kvlite(), None, 2),
        ("kvlite snapshot", kvlite(), Some("COMPACT"), 3),
        ("Redis AOF", Contender::redis("Redis", Some("everysec"), cpu), None, 2),
        ("Redis RDB", Contender::redis("Redis", None, cpu), Some("SAVE"), 3),
    ];
    let mut stored = Vec::new();
    for (name, contender, command, peer) in forms {
        let dir = dir.of(name);
        let server = Server::start(&contender, &dir)?;
        load.fill(&server)?;
        if let Some(command) = command {
            let answer = server.ask(command)?;
            if !answer.starts_with('+') {
                return Err(format!("{name}: {command} was answered with {answer:?}").into());
            }
        }
        // Log files are made ready in advance: their size is not what they hold.
        let log_bytes = match (contender.is_kvlite(), command) {
            (true, None) => server.ask_number("STATS", "wal_size")?,
            _ => 0,
        };
        server.end()?;
        let bytes = if log_bytes > 0 { log_bytes } else { data_bytes(&dir)? };
        stored.push(Stored { name, contender, dir, bytes, peer });
    }
    stored.try_into().map_err(|_| "four forms".into())
}

/// The bytes of all snapshots, RDB files and append-only files in a directory.
fn data_bytes(dir: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            bytes += data_bytes(&entry.path())?;
        } else if [".snapshot", ".rdb", ".aof"].iter().any(|ending| name.ends_with(ending)) {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// The starts of each state, one a round; the states in turns.
fn restart(stored: &[Stored; 4], keys: u64, options: &Options) -> Outcome<[Vec<Restart>; 4]> {
    let mut restarts = [const { Vec::new() }; 4];
    for round in 0..options.common.rounds() {
        for turn in 0..stored.len() {
            let at = (turn + round) % stored.len();
            let Stored { name, contender, dir, .. } = &stored[at];
            let server = Server::start(contender, dir)?;
            let (seconds, cpu_seconds) = (server.start_seconds, server.cpu_seconds()?);
            let count = server.key_count()?;
            if count != keys {
                return Err(format!("{name}: {count} of {keys} keys came back").into());
            }
            eprintln!("{keys} keys, round {}: {name} {seconds:.2} s, {cpu_seconds:.2} s CPU", round + 1);
            restarts[at].push(Restart { seconds, cpu_seconds });
            server.end()?;
        }
    }
    Ok(restarts)
}

fn write_restarts(stored: &[Stored; 4], restarts: &[Vec<Restart>; 4], keys: u64, report: &mut Report) {
    let all =
        |index: usize, field: fn(&Restart) -> f64| restarts[index].iter().map(field).collect::<Vec<_>>();
    let rows = stored.iter().enumerate().map(|(index, state)| {
        let ratio = |field: fn(&Restart) -> f64| {
            // How many times as fast: the time of the other by that of this one.
            if index == state.peer {
                String::new()
            } else {
                ratio(&all(state.peer, field), &all(index, field))
            }
        };
        vec![
            state.name.to_owned(),
            format!("{:.2}", median(all(index, |one| one.seconds))),
            format!("{:.0}", keys as f64 / median(all(index, |one| one.seconds))),
            format!("{:.0}", keys as f64 / median(all(index, |one| one.cpu_seconds))),
            ratio(|one| one.seconds),
            ratio(|one| one.cpu_seconds),
            format!("{:.1}", state.bytes as f64 / keys as f64),
        ]
    });
    report.section(
        &format!("Restart with {keys} keys"),
        "Ratios: how many times as fast as Redis, its AOF for the log, its RDB file for the snapshot.",
    );
    report.table(
        &[
            "state",
            "seconds",
            "keys/s",
            "keys per CPU second",
            "ratio of keys/s",
            "ratio of keys per CPU second",
            "bytes on disk per key",
        ],
        &rows.collect::<Vec<_>>(),
    );
}

/// The latencies at half of what the slower server can do, before and during snapshots.
fn write_snapshots(
    server_cpu: &str,
    load_cpu: &str,
    keys: u64,
    options: &Options,
    report: &mut Report,
) -> Outcome<()> {
    let dir = DataDir::create()?;
    let contenders = [
        Contender::kvlite("kvlite", &options.common.kvlite_binary, "everysec", server_cpu)
            .with(&["--shards", "1"]),
        Contender::redis("Redis", Some("everysec"), server_cpu),
    ];
    let load = Load::new(load_cpu, keys, VALUE_BYTES);
    let (mut servers, mut rate) = (Vec::new(), f64::MAX);
    for contender in &contenders {
        let server = Server::start(contender, &dir.of(&contender.name))?;
        load.fill(&server)?;
        rate =
            rate.min(load.measure(&server, if options.common.quick { 50_000 } else { 300_000 })?.ops_per_s);
        server.pause()?;
        servers.push(server);
    }
    let rate = (rate / 2.0) as u64;
    let seconds = if options.common.quick { 2 } else { 10 };
    let phases = [
        (0, "none", ""),
        (1, "none", ""),
        (0, "COMPACT", ""),
        (1, "BGSAVE", "rdb_bgsave_in_progress:"),
        (1, "BGREWRITEAOF", "aof_rewrite_in_progress:"),
    ];
    let mut measured = [const { Vec::new() }; 5];
    for round in 0..options.common.rounds() {
        for turn in 0..phases.len() {
            let at = (turn + round) % phases.len();
            let (server, command, busy) = phases[at];
            let server = &servers[server];
            server.resume()?;
            let (sample, count) = measure_phase(server, &load, rate, seconds, command, busy)?;
            server.pause()?;
            eprintln!(
                "round {}: {} {command} ({count}): p99 {:.2} ms, p99.9 {:.2} ms",
                round + 1,
                server.name,
                sample.p99_ms,
                sample.p999_ms.unwrap_or(f64::NAN)
            );
            measured[at].push((sample, count));
        }
    }
    write_phases(&phases, &servers, &measured, keys, rate, seconds, report);
    Ok(())
}

/// Loads a server at a rate, and has it write one snapshot after the other meanwhile. Returns how many it
/// completed.
fn measure_phase(
    server: &Server,
    load: &Load,
    rate: u64,
    seconds: u64,
    command: &str,
    busy: &str,
) -> Outcome<(Sample, usize)> {
    if command == "none" {
        return Ok((load.measure_at(server, rate, seconds)?, 0));
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let snapshots = scope.spawn(|| {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                write_snapshot(server, command, busy).map_err(|error| error.to_string())?;
                count += 1;
            }
            Ok::<usize, String>(count)
        });
        let sample = load.measure_at(server, rate, seconds);
        over.store(true, Ordering::Relaxed);
        let count = snapshots.join().map_err(|_| "the thread that asks for snapshots has failed")??;
        Ok((sample?, count))
    })
}

/// Has a server write a snapshot, and waits until it is done.
fn write_snapshot(server: &Server, command: &str, busy: &str) -> Outcome<()> {
    const DEADLINE: Duration = Duration::from_secs(300);
    let start = Instant::now();
    let answer = server.ask(command)?;
    if !answer.starts_with('+') {
        return Err(format!("{}: {command} was answered with {answer:?}", server.name).into());
    }
    while !busy.is_empty() && server.ask_number("INFO persistence", busy)? != 0 {
        if start.elapsed() > DEADLINE {
            return Err(format!("{}: {command} does not end", server.name).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn write_phases(
    phases: &[(usize, &str, &str)],
    servers: &[Server],
    measured: &[Vec<(Sample, usize)>],
    keys: u64,
    rate: u64,
    seconds: u64,
    report: &mut Report,
) {
    let all =
        |at: usize, field: fn(&Sample) -> f64| measured[at].iter().map(|(s, _)| field(s)).collect::<Vec<_>>();
    let p999 = |sample: &Sample| sample.p999_ms.unwrap_or(f64::NAN);
    let rows = phases.iter().enumerate().map(|(at, (server, command, _))| {
        // Against the same server without a snapshot, which stands at its index.
        let to_quiet = |field: fn(&Sample) -> f64| {
            if *command == "none" { String::new() } else { ratio(&all(at, field), &all(*server, field)) }
        };
        vec![
            format!("{}, {command}", servers[*server].name),
            format!("{:.1}", median(measured[at].iter().map(|(_, count)| *count as f64).collect())),
            format!("{:.3}", median(all(at, |s| s.p50_ms))),
            format!("{:.3}", median(all(at, |s| s.p99_ms))),
            format!("{:.3}", median(all(at, p999))),
            to_quiet(|s| s.p99_ms),
            format!("{:.2}", median(all(at, |s| s.cpu_us_per_op))),
            format!("{:.3}", median(all(at, |s| s.unsent))),
        ]
    });
    let text = format!(
        "{keys} keys; {rate} requests/s, half of what the slower server did, half GET and half SET, from 50 \
         clients for {seconds} s; one snapshot after the other meanwhile. Latencies count from the time at which \
         a request was due. Each server, the process that Redis forks included, has one core. Ratio: to the \
         same server without snapshots."
    );
    report.section("Latency while snapshots are written", &text);
    report.table(
        &[
            "server, snapshot",
            "snapshots",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "ratio of p99",
            "CPU us/op",
            "unsent",
        ],
        &rows.collect::<Vec<_>>(),
    );
}
