//! The slowest requests: what clients with small requests see at half load while another client has the server do
//! something large. kvlite against Redis, in turns.
//!
//! `make bench-tail ARGS=--help` shows the options.

mod harness;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use kvlite::config::usable_cpus;
use rustix::thread::{CpuSet, sched_setaffinity};

use harness::load::{Load, Sample};
use harness::report::{Report, median, ratio};
use harness::server::{Contender, DataDir, Server};
use harness::{Common, Outcome, plot};

/// Measures the latencies of small requests beside large ones, for kvlite and redis-server, and prints Markdown tables
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Keys [default: 1000000, with --quick 300000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1000..=10_000_000))]
    keys: Option<u64>,
    /// Measure only these cases, by the first words of their names
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<String>,
}

/// What else goes on while the small requests are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Nothing,
    Snapshot,
    Expiry,
    Keys,
    Clear,
    LargeValue,
    Pipeline,
}

/// What was seen while one server had one trouble.
struct Observation {
    sample: Sample,
    /// How long the trouble took, from the other client's view.
    took_ms: f64,
}

const TROUBLES: [Trouble; 7] = [
    Trouble::Nothing,
    Trouble::Snapshot,
    Trouble::Expiry,
    Trouble::Keys,
    Trouble::Clear,
    Trouble::LargeValue,
    Trouble::Pipeline,
];

/// How much slower the slowest of a thousand requests may be than without trouble.
const P999_ABOVE_QUIET_MS_MAX: f64 = 2.0;

/// How many times as slow the slowest of a hundred may be during a snapshot.
const SNAPSHOT_P99_RATIO_MAX: f64 = 2.0;

const VALUE_BYTES: &str = "64";
const LARGE_VALUE_BYTES: usize = 64 << 20;
const PIPELINE_COMMANDS: u64 = 100_000;

/// A log that is compacted only when it is asked for, and one shard.
const KVLITE_FLAGS: [&str; 6] = ["--max-wal-size", "0", "--max-wal-entries", "0", "--shards", "1"];

/// How long the load runs before the trouble begins.
const LEAD: Duration = Duration::from_millis(300);

/// Requests between two looks at the clock while the server is kept warm.
const WARMING_REQUESTS: u64 = 20_000;

/// Keys that will expire are set at least at this rate.
const DOOMED_KEYS_PER_S_MIN: u64 = 100_000;
const EXPIRY_SPREAD_MS: u64 = 1000;

/// How long any trouble may take, and how often it is asked whether it is over.
const TROUBLE_DEADLINE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let options = Options::parse();
    harness::run("bench-tail", &options.common, || run(&options))
}

fn run(options: &Options) -> Outcome<()> {
    let quick = options.common.quick;
    let keys = options.keys.unwrap_or(if quick { 300_000 } else { 1_000_000 });
    let seconds = if quick { 1 } else { 2 };
    let chosen = |trouble: &Trouble| {
        let is_asked_for = |start: &String| trouble.name().to_lowercase().starts_with(&start.to_lowercase());
        *trouble == Trouble::Nothing || options.only.is_empty() || options.only.iter().any(is_asked_for)
    };
    let troubles: Vec<Trouble> = TROUBLES.into_iter().filter(chosen).collect();
    let &[server_cpu, load_cpu, ..] = usable_cpus().as_slice() else {
        return Err("this needs two CPUs: one for the server, one for the load".into());
    };
    let contenders = [
        Contender::kvlite("kvlite", &options.common.kvlite_binary, "everysec", &server_cpu.to_string())
            .with(&KVLITE_FLAGS),
        Contender::redis("Redis", Some("everysec"), &server_cpu.to_string()),
    ];
    let load = Load::new(&load_cpu.to_string(), keys, VALUE_BYTES);
    let dir = DataDir::create()?;
    let (mut servers, mut rate) = (Vec::new(), f64::MAX);
    for contender in &contenders {
        let server = Server::start(contender, &dir.of(&contender.name))?;
        load.fill(&server)?;
        rate = rate.min(load.measure(&server, if quick { 100_000 } else { 300_000 })?.ops_per_s);
        server.pause()?;
        servers.push(server);
    }
    let notes = [
        &*format!(
            "{keys} keys of 16 bytes, values of {VALUE_BYTES}; one core for each server, with what it forks, another \
             for the load and, at the lowest priority, for the client that makes trouble"
        ),
        "kvlite: one shard, log synced every second; Redis: AOF synced every second",
    ];
    let complete = options.keys.is_none() && options.only.is_empty();
    let title = "The slowest requests of kvlite and Redis";
    let mut report = Report::new("tail", title, &options.common, complete, &["redis-server"], &notes)?;
    let half = Half { load, rate: (rate / 2.0) as u64, seconds, cpu: load_cpu };
    let mut observed: Vec<[Vec<Observation>; 2]> = troubles.iter().map(|_| Default::default()).collect();
    for round in 1..=options.common.rounds() {
        for (trouble, observed) in troubles.iter().zip(&mut observed) {
            for (server, observed) in servers.iter().zip(observed) {
                server.resume()?;
                let seen = half.observe(*trouble, server)?;
                server.pause()?;
                eprintln!(
                    "round {round}: {}, {}: p99 {:.2} ms, p99.9 {:.2} ms, took {:.0} ms",
                    trouble.name(),
                    server.name,
                    seen.sample.p99_ms,
                    p999_ms(&seen),
                    seen.took_ms
                );
                observed.push(seen);
            }
        }
    }
    write_table(&troubles, &observed, &half, &mut report);
    if let Some(path) = report.plot_path("tail") {
        let medians = |of: &[Vec<Observation>; 2]| of.iter().map(|all| median_of(all, p999_ms)).collect();
        let groups: Vec<(String, Vec<f64>)> = troubles
            .iter()
            .zip(&observed)
            .map(|(trouble, of)| (trouble.name().to_owned(), medians(of)))
            .collect();
        plot::log_bars(&path, "p99.9 of small requests at half load", "ms", &["kvlite", "Redis"], &groups)?;
        report.image("p99.9 of small requests at half load", &path);
    }
    report.finish()
}

/// The load of small requests.
struct Half {
    load: Load,
    rate: u64,
    seconds: u64,
    /// Where it runs, and the trouble's client with it.
    cpu: usize,
}

impl Half {
    /// Measures one server during one trouble, and leaves it as it was.
    fn observe(&self, trouble: Trouble, server: &Server) -> Outcome<Observation> {
        let keys = self.load.keys;
        if trouble == Trouble::Nothing {
            let sample = self.load.measure_at(server, self.rate, self.seconds)?;
            return Ok(Observation { sample, took_ms: 0.0 });
        }
        let begin_ms = match trouble {
            Trouble::Expiry => {
                let begin_ms = set_doomed_keys(server, keys)?;
                self.keep_warm_until(begin_ms - LEAD.as_millis() as u64, server)?;
                begin_ms
            }
            _ => now_ms() + LEAD.as_millis() as u64,
        };
        sleep_until(begin_ms - LEAD.as_millis() as u64);
        let (sample, took) = thread::scope(|scope| {
            let other = scope.spawn(|| {
                stand_back(self.cpu).map_err(|error| error.to_string())?;
                sleep_until(begin_ms);
                let start = Instant::now();
                trouble.cause(server, keys).map_err(|error| format!("{}: {error}", trouble.name()))?;
                Ok::<_, String>(start.elapsed())
            });
            let sample = self.load.measure_at(server, self.rate, self.seconds);
            (sample, other.join())
        });
        let took = took.map_err(|_| "the thread that makes trouble has failed")??;
        if trouble == Trouble::Clear {
            self.load.fill(server)?;
        }
        Ok(Observation { sample: sample?, took_ms: took.as_secs_f64() * 1e3 })
    }

    /// Loads the server while there is nothing to measure yet: on a virtual machine the memory of an idle process goes
    /// cold within a second, and what is first touched then costs microseconds a page.
    fn keep_warm_until(&self, end_ms: u64, server: &Server) -> Outcome<()> {
        let (mut last_ms, mut now_ms_before) = (0, now_ms());
        while now_ms_before + last_ms * 3 / 2 < end_ms {
            self.load.measure(server, WARMING_REQUESTS)?;
            let now = now_ms();
            (last_ms, now_ms_before) = (now - now_ms_before, now);
        }
        Ok(())
    }
}

impl Trouble {
    fn name(self) -> &'static str {
        match self {
            Trouble::Nothing => "quiet",
            Trouble::Snapshot => "snapshot",
            Trouble::Expiry => "expiry",
            Trouble::Keys => "KEYS",
            Trouble::Clear => "CLEAR",
            Trouble::LargeValue => "64 MiB",
            Trouble::Pipeline => "pipeline",
        }
    }

    /// Makes the trouble, and waits until it is over.
    fn cause(self, server: &Server, keys: u64) -> Outcome<()> {
        match self {
            Trouble::Nothing => Ok(()),
            Trouble::Snapshot => {
                expect(&server.ask("BGSAVE")?, "+")?;
                poll(|| Ok(server.ask_number("INFO persistence", "rdb_bgsave_in_progress:")? == 0))
            }
            Trouble::Expiry => poll(|| Ok(server.key_count()? == keys)),
            Trouble::Keys => {
                let lines = 1 + 2 * keys as usize;
                expect(&exchange(server, b"KEYS *\r\n", Extent::Lines(lines))?, &format!("*{keys}\r\n"))
            }
            // Redis frees beside its clients only what it is asked to.
            Trouble::Clear => expect(&server.ask("FLUSHALL ASYNC")?, "+OK"),
            Trouble::LargeValue => {
                let header = format!("${LARGE_VALUE_BYTES}\r\n");
                let mut request = format!("*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n{header}").into_bytes();
                request.resize(request.len() + LARGE_VALUE_BYTES, b'v');
                request.extend_from_slice(b"\r\n");
                expect(&exchange(server, &request, Extent::Lines(1))?, "+OK")?;
                let reply_bytes = header.len() + LARGE_VALUE_BYTES + 2;
                expect(&exchange(server, b"GET large\r\n", Extent::Bytes(reply_bytes))?, &header)?;
                expect(&server.ask("DEL large")?, ":1")
            }
            Trouble::Pipeline => {
                let keys = (0..PIPELINE_COMMANDS).map(|number| number * 7919 % keys);
                let requests: String = keys.map(|key| format!("SET key:{key:012} pipelined\r\n")).collect();
                let replies =
                    exchange(server, requests.as_bytes(), Extent::Lines(PIPELINE_COMMANDS as usize))?;
                expect(&replies, "+OK")
            }
        }
    }
}

/// Sets as many keys as there are already, all of which expire within a second. Returns when that second begins.
fn set_doomed_keys(server: &Server, keys: u64) -> Outcome<u64> {
    let begin_ms = now_ms() + 1000 * (1 + keys.div_ceil(DOOMED_KEYS_PER_S_MIN));
    let set = |number| {
        let deadline_ms = begin_ms + number % EXPIRY_SPREAD_MS;
        format!("SET doomed:{number:09} doomed PXAT {deadline_ms}\r\n")
    };
    let requests: String = (0..keys).map(set).collect();
    expect(&exchange(server, requests.as_bytes(), Extent::Lines(keys as usize))?, "+OK")?;
    if now_ms() + LEAD.as_millis() as u64 > begin_ms {
        return Err(format!("{}: setting {keys} keys took too long", server.name).into());
    }
    Ok(begin_ms)
}

/// Where an answer ends.
#[derive(Clone, Copy)]
enum Extent {
    Lines(usize),
    Bytes(usize),
}

/// Sends requests and reads the replies at the same time. Returns the first of what was read.
fn exchange(server: &Server, requests: &[u8], extent: Extent) -> Outcome<String> {
    const SHOWN_BYTES: usize = 64;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port))?;
    stream.set_read_timeout(Some(TROUBLE_DEADLINE))?;
    stream.set_write_timeout(Some(TROUBLE_DEADLINE))?;
    let mut sender = stream.try_clone()?;
    thread::scope(|scope| {
        let sending = scope.spawn(move || sender.write_all(requests));
        let (mut shown, mut piece, mut lines, mut bytes) = (Vec::new(), vec![0; 64 << 10], 0, 0);
        while match extent {
            Extent::Lines(count) => lines < count,
            Extent::Bytes(count) => bytes < count,
        } {
            let count = stream.read(&mut piece)?;
            if count == 0 {
                return Err(format!("{} closed the connection", server.name).into());
            }
            bytes += count;
            if let Extent::Lines(_) = extent {
                lines += memchr::memchr_iter(b'\n', &piece[..count]).count();
            }
            let missing = SHOWN_BYTES - shown.len();
            shown.extend_from_slice(&piece[..count.min(missing)]);
        }
        sending.join().map_err(|_| "the thread that sends has failed")??;
        Ok(String::from_utf8_lossy(&shown).into_owned())
    })
}

fn expect(answer: &str, start: &str) -> Outcome<()> {
    if answer.starts_with(start) {
        Ok(())
    } else {
        Err(format!("{start:?} was expected, not {answer:?}").into())
    }
}

fn poll(mut is_over: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
    let start = Instant::now();
    while !is_over()? {
        if start.elapsed() > TROUBLE_DEADLINE {
            return Err(format!("it was not over after {TROUBLE_DEADLINE:?}").into());
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Puts this thread, and those that it starts, behind the load, on the load's CPU.
fn stand_back(cpu: usize) -> Outcome<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus)?;
    // On Linux that of the calling thread.
    rustix::process::setpriority_process(None, 19)?;
    Ok(())
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn sleep_until(time_ms: u64) {
    thread::sleep(Duration::from_millis(time_ms.saturating_sub(now_ms())));
}

fn p999_ms(seen: &Observation) -> f64 {
    seen.sample.p999_ms.unwrap_or(f64::NAN)
}

fn median_of(all: &[Observation], field: impl Fn(&Observation) -> f64) -> f64 {
    median(all.iter().map(field).collect())
}

fn write_table(troubles: &[Trouble], observed: &[[Vec<Observation>; 2]], half: &Half, report: &mut Report) {
    let mut rows = Vec::new();
    for (trouble, observed_now) in troubles.iter().zip(observed) {
        for (index, server) in ["kvlite", "Redis"].into_iter().enumerate() {
            let (all, quiet) = (&observed_now[index], &observed[0][index]);
            let above =
                median(all.iter().zip(quiet).map(|(now, quiet)| p999_ms(now) - p999_ms(quiet)).collect());
            let p99s = |of: &[Observation]| of.iter().map(|seen| seen.sample.p99_ms).collect::<Vec<_>>();
            let is_quiet = *trouble == Trouble::Nothing;
            let unless_quiet = |text: String| if is_quiet { String::new() } else { text };
            let meets = match trouble {
                Trouble::Snapshot => {
                    median_ratio_is_at_most(&p99s(all), &p99s(quiet), SNAPSHOT_P99_RATIO_MAX)
                }
                _ => true,
            };
            let meets = meets && above <= P999_ABOVE_QUIET_MS_MAX;
            rows.push(vec![
                format!("{}, {server}", trouble.name()),
                unless_quiet(format!("{:.0}", median_of(all, |seen| seen.took_ms))),
                format!("{:.3}", median_of(all, |seen| seen.sample.p50_ms)),
                format!("{:.2}", median_of(all, |seen| seen.sample.p99_ms)),
                format!("{:.2}", median_of(all, p999_ms)),
                format!("{:.2}", median_of(all, |seen| seen.sample.max_ms.unwrap_or(f64::NAN))),
                unless_quiet(ratio(&p99s(all), &p99s(quiet))),
                unless_quiet(format!("{above:.2}")),
                unless_quiet(if meets { "met" } else { "missed" }.to_owned()),
            ]);
        }
    }
    let keys = half.load.keys;
    report.section(
        "Small requests beside large ones",
        &format!(
            "{} requests/s, half of what the slower server does, half GET and half SET, from 50 clients, for {} s; \
             latencies count from the time at which a request was due. After {} ms another client asks once for \
             something: \
             snapshot: `BGSAVE`; expiry: {keys} more keys, all of which expire within a second; KEYS: `KEYS *`; \
             CLEAR: `FLUSHALL ASYNC`; 64 MiB: `SET`, `GET` and `DEL` of a value of that size; pipeline: \
             {PIPELINE_COMMANDS} `SET` at once. \
             It took so long: until the client had its answer, for snapshot and expiry until all was done. Target: \
             p99.9 at most {P999_ABOVE_QUIET_MS_MAX} ms above that of the quiet server, and for snapshots p99 at most \
             {SNAPSHOT_P99_RATIO_MAX} times its.",
            half.rate,
            half.seconds,
            LEAD.as_millis(),
        ),
    );
    report.table(
        &[
            "trouble, server",
            "took ms",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "ratio of p99 to quiet",
            "p99.9 above quiet, ms",
            "target",
        ],
        &rows,
    );
}

fn median_ratio_is_at_most(ours: &[f64], others: &[f64], limit: f64) -> bool {
    harness::report::median_ratio(ours, others) <= limit
}
