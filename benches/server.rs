//! The whole server against Redis, measured from outside: throughput, latency, CPU time per operation.
//!
//! Starts the release binary of kvlite and `redis-server` on free loopback ports, lets `redis-benchmark` load
//! them in turns, and prints a Markdown table. A figure is the median over the rounds; a ratio is the median
//! of the ratios of single rounds, so that a machine that slows down meanwhile slows both sides. All servers
//! of a setting are started first; the ones that are not measured are stopped with SIGSTOP and cost nothing.
//! Never measures without a peer, and leaves no process and no data behind.
//!
//! `cargo bench --bench server -- --help` shows the options.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use kvlite::config::usable_cpus;
use rustix::process::{Pid, Signal, kill_process};

/// Compares the release build of kvlite with redis-server, in turns, and prints a Markdown table
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Options {
    /// Rounds; each measures every server once [default: 5, with --quick 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Measure for half a second instead of two and a half: for a first look, not for figures to keep
    #[arg(long)]
    quick: bool,
    /// Only rows whose name holds one of these words, e.g. "two cores,P=16 GET"
    #[arg(long, value_delimiter = ',', value_name = "WORDS")]
    only: Vec<String>,
    /// Commands to measure: get, set, incr, mset
    #[arg(long, value_delimiter = ',', default_value = "get,set", value_name = "COMMANDS")]
    commands: Vec<Load>,
    /// Server to measure as kvlite; one named redis-server or valkey-server is started the way Redis is
    #[arg(long, default_value = env!("CARGO_BIN_EXE_kvlite"), value_name = "PATH")]
    kvlite_binary: PathBuf,
    /// File to write the table to [default: benches/results/server.md for complete runs, else none]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What `cargo bench` passes to every benchmark; `cargo test --all-targets` does not
    #[arg(long, hide = true)]
    bench: bool,
}

/// A command of `redis-benchmark -t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Load {
    Get,
    Set,
    Incr,
    Mset,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Load::Get => "GET",
            Load::Set => "SET",
            Load::Incr => "INCR",
            Load::Mset => "MSET (10 keys)",
        }
    }
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const CLIENTS: u32 = 50;
const KEYS: u32 = 100_000;
const VALUE_BYTES: usize = 16;
const PIPELINES: [u32; 2] = [1, 16];
/// Bounds of the number of requests in one measurement.
const REQUESTS: std::ops::RangeInclusive<u64> = 10_000..=20_000_000;
const START_DEADLINE: Duration = Duration::from_secs(20);
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// After this time `redis-benchmark` is killed: the server does not answer any more.
const LOAD_SECONDS_MAX: &str = "120";

/// Which CPUs the server and the load generator share or do not share.
struct Setting {
    name: &'static str,
    server_cpus: String,
    load_cpus: String,
    load_threads: u32,
    /// The generator notices only every 250 ms that its threads are done: longer runs make that small.
    seconds_factor: f64,
    /// Whether only commands that write are measured.
    writes_only: bool,
    /// The first is kvlite; the others are what it is compared with.
    contenders: Vec<Contender>,
}

/// A server as it is to be started.
#[derive(Clone)]
struct Contender {
    name: &'static str,
    binary: PathBuf,
    flavour: Flavour,
}

/// Whose flags a server takes, and when its log is synced: `always` or `everysec`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flavour {
    Kvlite { sync: &'static str, analytics: bool },
    Redis { appendfsync: Option<&'static str> },
}

/// A running server. Dropping it ends the process.
struct Server {
    name: &'static str,
    child: Child,
    port: u16,
}

/// What one measurement saw.
#[derive(Clone, Copy, Debug)]
struct Sample {
    ops_per_s: f64,
    cpu_us_per_op: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// One server's samples for one row, a sample a round.
struct Measured {
    server: &'static str,
    samples: Vec<Sample>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        eprintln!("server benchmark: nothing is measured without --bench, which `cargo bench` passes");
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server benchmark: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Outcome<()> {
    let settings = settings(options)?;
    if settings.iter().all(|setting| rows(setting, options).next().is_none()) {
        return Err("no row has a name with these words; one is called \"one core P=16 GET\"".into());
    }
    let mut report = heading(options)?;
    for setting in &settings {
        let wanted: Vec<_> = rows(setting, options).collect();
        if !wanted.is_empty() {
            measure_setting(setting, &wanted, options, &mut report)?;
        }
    }
    println!("\n{report}");
    let is_complete = !options.quick && options.only.is_empty() && !is_redis(&options.kvlite_binary);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results/server.md");
    if let Some(path) = options.output.clone().or(is_complete.then_some(kept)) {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::write(&path, report)?;
        eprintln!("written to {}", path.display());
    }
    Ok(())
}

fn settings(options: &Options) -> Outcome<[Setting; 4]> {
    let &[first, second, ..] = usable_cpus().as_slice() else {
        return Err("this needs two CPUs: one for the server, one for the load".into());
    };
    let kvlite = |sync| Contender {
        name: "kvlite",
        binary: options.kvlite_binary.clone(),
        flavour: if is_redis(&options.kvlite_binary) {
            Flavour::Redis { appendfsync: Some(sync) }
        } else {
            Flavour::Kvlite { sync, analytics: true }
        },
    };
    let uncounted = Contender {
        name: "analytics off",
        flavour: match kvlite("everysec").flavour {
            Flavour::Kvlite { sync, .. } => Flavour::Kvlite { sync, analytics: false },
            redis @ Flavour::Redis { .. } => redis,
        },
        ..kvlite("everysec")
    };
    let redis = |name, appendfsync| Contender {
        name,
        binary: "redis-server".into(),
        flavour: Flavour::Redis { appendfsync },
    };
    let contenders = || vec![kvlite("everysec"), redis("Redis", None), redis("Redis AOF", Some("everysec"))];
    let one_core = Setting {
        name: "one core",
        server_cpus: first.to_string(),
        load_cpus: second.to_string(),
        load_threads: 0,
        seconds_factor: 1.0,
        writes_only: false,
        contenders: contenders(),
    };
    let two_cores = Setting {
        name: "two cores",
        server_cpus: format!("{first},{second}"),
        load_cpus: format!("{first},{second}"),
        load_threads: 2,
        seconds_factor: 2.0,
        writes_only: false,
        contenders: contenders(),
    };
    let synced = Setting {
        name: "one core, every write synced",
        server_cpus: first.to_string(),
        load_cpus: second.to_string(),
        load_threads: 0,
        seconds_factor: 1.0,
        writes_only: true,
        contenders: vec![kvlite("always"), redis("Redis AOF", Some("always"))],
    };
    let analytics = Setting {
        name: "one core, analytics on and off",
        server_cpus: first.to_string(),
        load_cpus: second.to_string(),
        load_threads: 0,
        seconds_factor: 1.0,
        writes_only: false,
        contenders: vec![kvlite("everysec"), uncounted],
    };
    Ok([one_core, two_cores, synced, analytics])
}

fn is_redis(binary: &Path) -> bool {
    binary.file_name().is_some_and(|name| name == "redis-server" || name == "valkey-server")
}

/// The pipeline depths and commands of a setting that the options ask for.
fn rows<'a>(setting: &'a Setting, options: &'a Options) -> impl Iterator<Item = (u32, Load)> + 'a {
    let all = PIPELINES.into_iter().flat_map(|p| options.commands.iter().map(move |load| (p, *load)));
    all.filter(|(pipeline, load)| {
        let name = row_name(setting, *pipeline, *load);
        let is_measured = !(setting.writes_only && *load == Load::Get);
        is_measured
            && (options.only.is_empty() || options.only.iter().any(|words| name.contains(words.as_str())))
    })
}

fn row_name(setting: &Setting, pipeline: u32, load: Load) -> String {
    format!("{} P={pipeline} {}", setting.name, load.name())
}

/// Measures the rows of one setting, all servers in turns, and appends its table to the report.
fn measure_setting(
    setting: &Setting,
    rows: &[(u32, Load)],
    options: &Options,
    report: &mut String,
) -> Outcome<()> {
    let dir = DataDir::create()?;
    let start = |contender| Server::start(contender, setting, &dir.0);
    let servers = setting.contenders.iter().map(start).collect::<Outcome<Vec<_>>>()?;
    let rounds = options.rounds.unwrap_or(if options.quick { 2 } else { 5 }) as usize;
    let seconds = setting.seconds_factor * if options.quick { 0.5 } else { 2.5 };
    for (index, (pipeline, load)) in rows.iter().copied().enumerate() {
        let name = row_name(setting, pipeline, load);
        let mut measured: Vec<Measured> =
            servers.iter().map(|server| Measured { server: server.name, samples: Vec::new() }).collect();
        let mut requests = Vec::new();
        for server in &servers {
            let trial = server.measure(setting, pipeline, load, 20_000 * u64::from(pipeline.min(8)))?;
            let count = (trial.ops_per_s * seconds) as u64;
            requests.push(count.clamp(*REQUESTS.start(), *REQUESTS.end()));
        }
        for round in 0..rounds {
            for turn in 0..servers.len() {
                let at = (turn + round) % servers.len(); // Nobody always follows the same server.
                let sample = servers[at].measure(setting, pipeline, load, requests[at])?;
                eprintln!(
                    "{name}, round {}/{rounds}: {:<13} {:>9.0} ops/s {:>6.2} us CPU/op",
                    round + 1,
                    servers[at].name,
                    sample.ops_per_s,
                    sample.cpu_us_per_op
                );
                measured[at].samples.push(sample);
            }
        }
        if index == 0 {
            write_table_heading(setting, report)?;
        }
        write_rows(pipeline, load, &measured, report)?;
    }
    Ok(())
}

impl Server {
    /// Starts a server on its CPUs and a free port, waits until it answers, fills in all keys, and stops it.
    fn start(contender: &Contender, setting: &Setting, dir: &Path) -> Outcome<Server> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let dir = dir.join(contender.name.replace(' ', "-"));
        fs::create_dir(&dir)?;
        let log_path = dir.join("server.log");
        let log = File::create(&log_path)?;
        // Ended with this process whatever happens to it, even while stopped; pinned as a whole.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "taskset", "-c", &setting.server_cpus]);
        command.arg(&contender.binary);
        match contender.flavour {
            Flavour::Kvlite { sync, analytics } => {
                command.args(["--host", "127.0.0.1", "--port", "0", "--resp-port", &port.to_string()]);
                command.args(["--sync-mode", sync, "--wal-path"]).arg(&dir);
                command.arg(format!("--enable-analytics={analytics}"));
            }
            Flavour::Redis { appendfsync } => {
                command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"]);
                command.arg(&dir).args(["--appendonly", if appendfsync.is_some() { "yes" } else { "no" }]);
                command.args(["--appendfsync", appendfsync.unwrap_or("no")]);
                command.args(["--auto-aof-rewrite-percentage", "0"]);
            }
        }
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut server = Server { name: contender.name, child, port };
        match server.wait_until_it_answers().and_then(|()| server.fill()) {
            Ok(()) => {
                server.signal(Signal::STOP)?;
                Ok(server)
            }
            Err(error) => {
                let log = fs::read_to_string(&log_path).unwrap_or_default();
                Err(format!("{} did not start: {error}\n{log}", contender.name).into())
            }
        }
    }

    fn wait_until_it_answers(&mut self) -> Outcome<()> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("it ended with {status}").into());
            }
            match self.ask("DBSIZE\r\n", ":0") {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Sends one inline command and expects this reply.
    fn ask(&self, command: &str, expected: &str) -> Outcome<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(command.as_bytes())?;
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply)?;
        let is_expected = reply.trim_end() == expected;
        if is_expected { Ok(()) } else { Err(format!("{command:?} was answered with {reply:?}").into()) }
    }

    /// Sets every key that `redis-benchmark -r` can ask for, so that every GET finds its value.
    fn fill(&self) -> Outcome<()> {
        const BATCH: u32 = 1_000;
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let (mut replies, mut requests) = (BufReader::new(stream.try_clone()?), stream);
        let value = "x".repeat(VALUE_BYTES);
        for first in (0..KEYS).step_by(BATCH as usize) {
            let mut batch = String::new();
            for key in first..first + BATCH {
                write!(batch, "*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${VALUE_BYTES}\r\n{value}\r\n")?;
            }
            requests.write_all(batch.as_bytes())?;
            for _ in 0..BATCH {
                let mut reply = String::new();
                replies.read_line(&mut reply)?;
                if reply != "+OK\r\n" {
                    return Err(format!("SET was answered with {reply:?}").into());
                }
            }
        }
        self.ask("DBSIZE\r\n", &format!(":{KEYS}"))
    }

    /// Lets the server run for this many requests.
    fn measure(&self, setting: &Setting, pipeline: u32, load: Load, requests: u64) -> Outcome<Sample> {
        self.signal(Signal::CONT)?;
        let before = self.cpu_seconds()?;
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", LOAD_SECONDS_MAX, "taskset", "-c", &setting.load_cpus]);
        command.args(["redis-benchmark", "--csv", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command.args(["-c", &CLIENTS.to_string(), "-r", &KEYS.to_string(), "-d", &VALUE_BYTES.to_string()]);
        command.args(["-P", &pipeline.to_string(), "-n", &requests.to_string()]);
        command.args(["-t", &load.name().split(' ').next().unwrap_or_default().to_lowercase()]);
        if setting.load_threads > 0 {
            command.args(["--threads", &setting.load_threads.to_string()]);
        }
        let output = command.stdin(Stdio::null()).output()?;
        let cpu_seconds = self.cpu_seconds()? - before;
        self.signal(Signal::STOP)?;
        let text = String::from_utf8_lossy(&output.stdout);
        match sample(&text, cpu_seconds, requests) {
            Some(sample) if output.status.success() => Ok(sample),
            _ => {
                let errors = String::from_utf8_lossy(&output.stderr);
                let name = row_name(setting, pipeline, load);
                let status = output.status;
                Err(format!("{name}, {}: redis-benchmark: {status}\n{text}\n{errors}", self.name).into())
            }
        }
    }

    /// CPU time of all threads so far, those that have ended included: user and system time of
    /// `/proc/PID/stat`, in steps of 10 ms.
    fn cpu_seconds(&self) -> Outcome<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let behind_name = stat.rsplit_once(") ").ok_or("/proc/PID/stat has no name")?.1;
        // utime and stime are the fields 14 and 15, counted from 1; the name is field 2.
        let ticks = behind_name.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    fn signal(&self, signal: Signal) -> Outcome<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A process that has ended already takes no signal, and then there is nothing left to do.
        let asked = self.signal(Signal::CONT).and_then(|()| self.signal(Signal::TERM));
        let deadline = Instant::now() + STOP_DEADLINE;
        while asked.is_ok() && Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _already_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A directory for the servers' files, on the disk that the build is on; removed when dropped.
struct DataDir(PathBuf);

impl DataDir {
    fn create() -> Outcome<DataDir> {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-server-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(DataDir(path))
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}

/// Reads the line that `redis-benchmark --csv` prints below its heading.
fn sample(csv: &str, cpu_seconds: f64, requests: u64) -> Option<Sample> {
    let cells =
        |line: &str| line.split(',').map(|cell| cell.trim_matches('"').to_owned()).collect::<Vec<_>>();
    let mut lines = csv.lines().skip_while(|line| !line.starts_with("\"test\""));
    let heading = cells(lines.next()?);
    let values = cells(lines.next()?);
    let value = |name: &str| values.get(heading.iter().position(|cell| cell == name)?)?.parse::<f64>().ok();
    Some(Sample {
        ops_per_s: value("rps")?,
        cpu_us_per_op: cpu_seconds * 1e6 / requests as f64,
        p50_ms: value("p50_latency_ms")?,
        p99_ms: value("p99_latency_ms")?,
    })
}

fn heading(options: &Options) -> Outcome<String> {
    let rounds = options.rounds.unwrap_or(if options.quick { 2 } else { 5 });
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let command = ["cargo bench --bench server --", &args.join(" ")].join(" ");
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let load = fs::read_to_string("/proc/loadavg")?;
    let mut text = String::new();
    writeln!(text, "# kvlite against Redis\n")?;
    writeln!(text, "- Command: `{}`", command.trim_end_matches([' ', '-']))?;
    writeln!(text, "- Day: {}", printed("date", &["-u", "+%F"])?)?;
    writeln!(
        text,
        "- Machine: {}, {} usable CPUs",
        model.trim_matches([' ', ':', '\t']),
        usable_cpus().len()
    )?;
    writeln!(text, "- Kernel: {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim())?;
    writeln!(text, "- Load average before: {}", load.split(' ').take(3).collect::<Vec<_>>().join(" "))?;
    let kvlite = printed(&options.kvlite_binary.display().to_string(), &["--version"])?;
    let commit = printed("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(|_| "unknown".to_owned());
    writeln!(text, "- kvlite: {kvlite}, commit {commit}, with its defaults, log synced every second")?;
    writeln!(text, "- Redis: {}", printed("redis-server", &["--version"])?)?;
    writeln!(text, "- Redis AOF: with `appendonly yes`, `appendfsync everysec`, and without rewrites")?;
    writeln!(
        text,
        "- Every write synced: kvlite with `--sync-mode always`, Redis with `appendfsync always`"
    )?;
    writeln!(
        text,
        "- Load: `redis-benchmark`, {CLIENTS} clients, {KEYS} keys, all set, values of {VALUE_BYTES} bytes"
    )?;
    writeln!(
        text,
        "- Figures: medians of {rounds} rounds in turns; a ratio is kvlite's figure by the other's, the \
         median of the rounds (least to greatest)"
    )?;
    writeln!(
        text,
        "- At P=1 the core of `redis-benchmark` can be the limit: CPU per operation tells more than ops/s"
    )?;
    Ok(text)
}

/// The first line that a program prints.
fn printed(program: &str, args: &[&str]) -> Outcome<String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} ended with {}", output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}

fn write_table_heading(setting: &Setting, report: &mut String) -> Outcome<()> {
    let Setting { name, server_cpus, load_cpus, .. } = setting;
    writeln!(report, "\n## Server on {name}: CPU {server_cpus}; load on CPU {load_cpus}\n")?;
    if setting.load_threads > 0 {
        let threads = setting.load_threads;
        writeln!(report, "`redis-benchmark --threads {threads}` rounds each run up to the next 250 ms.\n")?;
    }
    writeln!(
        report,
        "| command | P | server | ops/s | CPU us/op | p50 ms | p99 ms | ratio of ops/s | ratio of CPU/op |"
    )?;
    writeln!(report, "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
    Ok(())
}

fn write_rows(pipeline: u32, load: Load, measured: &[Measured], report: &mut String) -> Outcome<()> {
    let kvlite = &measured[0].samples;
    for (index, Measured { server, samples }) in measured.iter().enumerate() {
        let of = |field: fn(&Sample) -> f64| median(samples.iter().map(field).collect());
        let ratio = |field: fn(&Sample) -> f64| {
            let ratios: Vec<f64> = kvlite.iter().zip(samples).map(|(k, s)| field(k) / field(s)).collect();
            let (least, greatest) =
                ratios.iter().fold((f64::MAX, f64::MIN), |(l, g), r| (l.min(*r), g.max(*r)));
            if index == 0 {
                return String::new();
            }
            format!("{:.2} ({least:.2} to {greatest:.2})", median(ratios))
        };
        writeln!(
            report,
            "| {} | {pipeline} | {server} | {:.0} | {:.2} | {:.2} | {:.2} | {} | {} |",
            load.name(),
            of(|s| s.ops_per_s),
            of(|s| s.cpu_us_per_op),
            of(|s| s.p50_ms),
            of(|s| s.p99_ms),
            ratio(|s| s.ops_per_s),
            ratio(|s| s.cpu_us_per_op),
        )?;
    }
    Ok(())
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
}
