//! How much memory keys take: kvlite against Redis, with and without TTLs, for three sizes of
//! values; after values of other sizes have replaced them again and again; and after everything was removed.
//!
//! `make bench-memory ARGS=--help` shows the options.

mod harness;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use kvlite::config::usable_cpus;

use harness::load::Load;
use harness::report::{Report, median, ratio};
use harness::server::{Contender, DataDir, Server};
use harness::{Common, Outcome, plot};

/// Compares the memory of kvlite and redis-server, and prints Markdown tables
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Keys, e.g. 10000000 [default: 1000000, with --quick 100000]
    #[arg(long, value_name = "N")]
    keys: Option<u64>,
}

const KEY_BYTES: u64 = 16;
const VALUE_BYTES: [u64; 3] = [16, 64, 256];
const TTL_SECONDS: &str = "86400";

/// Values that replace others have sizes in this range.
const OVERWRITE_BYTES: std::ops::RangeInclusive<u64> = 16..=512;
const OVERWRITE_ROUNDS: usize = 10;

/// How long memory that was freed may take to go back to the system, and how long it has to stay the same to
/// count as having gone.
const SETTLE_MAX: Duration = Duration::from_secs(30);
const SETTLE_STABLE: Duration = Duration::from_secs(3);

/// What one fresh server needed.
#[derive(Clone, Copy)]
struct Sample {
    resident_bytes: f64,
    bytes_per_key: f64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    harness::run("bench-memory", &options.common, || run(&options))
}

fn run(options: &Options) -> Outcome<()> {
    let keys = options.keys.unwrap_or(if options.common.quick { 100_000 } else { 1_000_000 });
    let &[first, second, ..] = usable_cpus().as_slice() else {
        return Err("this needs two CPUs: one for the server, one for the load".into());
    };
    let cpu = first.to_string();
    let contenders = [
        Contender::kvlite("kvlite", &options.common.kvlite_binary, "everysec", &cpu),
        Contender::redis("Redis", None, &cpu),
    ];
    let notes = [
        &*format!("{keys} keys of {KEY_BYTES} bytes, each server on one core, fresh for every figure"),
        "Resident memory as in `/proc/PID/status`; bytes per key: its growth since the server was empty",
        "kvlite: with its defaults, log and analytics on; Redis: without AOF, which is its smallest form",
    ];
    let complete = options.keys.is_none();
    let title = "The memory of kvlite and Redis";
    let mut report = Report::new("memory", title, &options.common, complete, &["redis-server"], &notes)?;
    write_sizes(&contenders, keys, &second.to_string(), options, &mut report)?;
    write_lives(&contenders, keys, &second.to_string(), options, &mut report)?;
    report.finish()
}

fn write_sizes(
    contenders: &[Contender; 2],
    keys: u64,
    load_cpu: &str,
    options: &Options,
    report: &mut Report,
) -> Outcome<()> {
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    for with_ttl in [false, true] {
        for value_bytes in VALUE_BYTES {
            let load = Load::new(load_cpu, keys, &value_bytes.to_string());
            let load = if with_ttl { load.with(&["--ttl", TTL_SECONDS]) } else { load };
            let mut samples = [Vec::new(), Vec::new()];
            for round in 0..options.common.rounds() {
                for (contender, samples) in contenders.iter().zip(&mut samples) {
                    let sample = fill_fresh(contender, &load)?;
                    let ttl = if with_ttl { ", with TTL" } else { "" };
                    let per_key = sample.bytes_per_key;
                    let name = &contender.name;
                    eprintln!(
                        "{value_bytes} bytes{ttl}, round {}: {name} {per_key:.1} bytes per key",
                        round + 1
                    );
                    samples.push(sample);
                }
            }
            let per_key = samples.each_ref().map(|s| s.iter().map(|s| s.bytes_per_key).collect::<Vec<_>>());
            let resident = samples.each_ref().map(|s| s.iter().map(|s| s.resident_bytes).collect::<Vec<_>>());
            for (index, contender) in contenders.iter().enumerate() {
                rows.push(vec![
                    value_bytes.to_string(),
                    if with_ttl { "yes" } else { "no" }.to_owned(),
                    contender.name.clone(),
                    format!("{:.1}", median(resident[index].clone()) / 1e6),
                    format!("{:.1}", median(per_key[index].clone())),
                    if index == 0 { String::new() } else { ratio(&per_key[0], &per_key[index]) },
                    if index == 0 { String::new() } else { ratio(&resident[0], &resident[index]) },
                ]);
            }
            let name = format!("{value_bytes} B{}", if with_ttl { ", TTL" } else { "" });
            groups.push((name, per_key.map(median).to_vec()));
        }
    }
    report.section("Keys and values", "");
    report.table(
        &[
            "value bytes",
            "TTL",
            "server",
            "resident MB",
            "bytes per key",
            "ratio of bytes per key",
            "ratio of resident",
        ],
        &rows,
    );
    if let Some(path) = report.plot_path("memory") {
        plot::bars(&path, "Memory per key of 16 bytes", "bytes", &["kvlite", "Redis"], &groups)?;
        report.image("Memory per key", &path);
    }
    Ok(())
}

fn fill_fresh(contender: &Contender, load: &Load) -> Outcome<Sample> {
    let dir = DataDir::create()?;
    let server = Server::start(contender, &dir.of(&contender.name))?;
    let empty = server.resident_bytes()?;
    load.fill(&server)?;
    let resident = server.resident_bytes()?;
    let bytes_per_key = (resident as f64 - empty as f64) / load.keys as f64;
    Ok(Sample { resident_bytes: resident as f64, bytes_per_key })
}

/// Overwrites all keys again and again with values of random sizes, and removes them at the end.
fn write_lives(
    contenders: &[Contender; 2],
    keys: u64,
    load_cpu: &str,
    options: &Options,
    report: &mut Report,
) -> Outcome<()> {
    let sizes = format!("{}-{}", OVERWRITE_BYTES.start(), OVERWRITE_BYTES.end());
    let average = (OVERWRITE_BYTES.start() + OVERWRITE_BYTES.end()) as f64 / 2.0;
    let live_bytes = keys as f64 * (KEY_BYTES as f64 + average);
    let load = Load { pipeline: 16, commands: "set".to_owned(), ..Load::new(load_cpu, keys, &sizes) };
    let mut figures = [[Vec::new(), Vec::new(), Vec::new()], [Vec::new(), Vec::new(), Vec::new()]];
    for _ in 0..options.common.rounds() {
        for (contender, figures) in contenders.iter().zip(&mut figures) {
            let dir = DataDir::create()?;
            let server = Server::start(contender, &dir.of(&contender.name))?;
            let empty = server.resident_bytes()? as f64;
            load.fill(&server)?;
            figures[0].push(server.resident_bytes()? as f64 / live_bytes);
            for round in 0..OVERWRITE_ROUNDS {
                // Another seed each time, or every key would get the size again that it has.
                load.clone().with(&["--seed", &(round + 2).to_string()]).measure(&server, keys)?;
            }
            figures[1].push(server.resident_bytes()? as f64 / live_bytes);
            server.ask(if contender.is_kvlite() { "CLEAR" } else { "FLUSHALL" })?;
            figures[2].push(settled_bytes(&server)? - empty);
            eprintln!("{}: {OVERWRITE_ROUNDS} times overwritten, then removed", contender.name);
        }
    }
    let mut rows = Vec::new();
    for (index, contender) in contenders.iter().enumerate() {
        let shown =
            |column: usize, unit: f64| format!("{:.2}", median(figures[index][column].clone()) / unit);
        let ratio_to = |column: usize| {
            if index == 0 { String::new() } else { ratio(&figures[0][column], &figures[index][column]) }
        };
        rows.push(vec![
            contender.name.clone(),
            shown(0, 1.0),
            shown(1, 1.0),
            ratio_to(1),
            shown(2, 1e6),
            ratio_to(2),
        ]);
    }
    let text = format!(
        "Values of {sizes} bytes, all sizes alike: {:.1} MB of keys and values are live. Resident memory by \
         live bytes, after filling in and after as many writes to random keys as there are keys, \
         {OVERWRITE_ROUNDS} times; and what is resident above the empty server after CLEAR or \
         FLUSHALL, once that changes no more.",
        live_bytes / 1e6
    );
    report.section("Overwritten, and removed", &text);
    report.table(
        &[
            "server",
            "filled in",
            "overwritten",
            "ratio of overwritten",
            "MB left after CLEAR",
            "ratio of left",
        ],
        &rows,
    );
    Ok(())
}

/// What is resident once it has not changed for a while.
fn settled_bytes(server: &Server) -> Outcome<f64> {
    let start = Instant::now();
    let (mut bytes, mut since) = (server.resident_bytes()?, Instant::now());
    while since.elapsed() < SETTLE_STABLE && start.elapsed() < SETTLE_MAX {
        std::thread::sleep(Duration::from_millis(100));
        let now = server.resident_bytes()?;
        if now != bytes {
            (bytes, since) = (now, Instant::now());
        }
    }
    Ok(bytes as f64)
}
