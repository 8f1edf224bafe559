//! What caches, limiters and locks ask for, kvlite against Redis in turns: transactions, a script, messages to many
//! subscribers, parts of values. All servers are started first; the ones that are not measured are paused.
//!
//! `redis-benchmark` sends no transaction, so the load is this program's own, the same for both: one thread that writes a
//! batch to each of its connections and then reads the replies of each. `make bench-features ARGS=--help` shows the
//! options.

mod harness;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use kvlite::config::usable_cpus;
use rustix::event::epoll;
use rustix::thread::{CpuSet, sched_setaffinity};

use harness::report::{Report, median, ratio};
use harness::server::{Contender, DataDir, Server, is_redis};
use harness::{Common, Outcome};

/// Compares kvlite with redis-server at transactions, scripts, messages and parts of values, and prints Markdown tables
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Only rows whose name holds one of these words, e.g. "MULTI,PUBLISH to 100 P=1"
    #[arg(long, value_delimiter = ',', value_name = "WORDS")]
    only: Vec<String>,
}

const CONNECTIONS: usize = 50;
const KEYS: u64 = 10_000;
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// What a limiter of requests asks for.
const LIMITER: &str = "local n = redis.call('INCR', KEYS[1]) if n == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end return n";

/// One thing to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    /// A transaction of ten increments, of keys that lie together or anywhere.
    Multi {
        together: bool,
    },
    Limiter,
    /// A message that so many get.
    Publish(usize),
    GetRange,
    SetRange,
    BitCount,
}

impl Job {
    fn name(self) -> String {
        match self {
            Job::Multi { together: true } => "MULTI of ten INCRs".to_owned(),
            Job::Multi { together: false } => "MULTI of ten INCRs, any keys".to_owned(),
            Job::Limiter => "EVALSHA of a limiter".to_owned(),
            Job::Publish(subscribers) => format!("PUBLISH to {subscribers}"),
            Job::GetRange => "GETRANGE".to_owned(),
            Job::SetRange => "SETRANGE".to_owned(),
            Job::BitCount => "BITCOUNT of 1 KiB".to_owned(),
        }
    }

    fn subscribers(self) -> usize {
        if let Job::Publish(subscribers) = self { subscribers } else { 0 }
    }

    /// The lines of the replies to one of it.
    fn lines(self) -> usize {
        match self {
            Job::Multi { .. } => 1 + 10 + 1 + 10,
            Job::GetRange => 2,
            _ => 1,
        }
    }

    /// Appends the requests of one of it; `next` gives random numbers.
    fn write(self, out: &mut Vec<u8>, digest: &str, next: &mut impl FnMut() -> u64) {
        let key = format!("key:{:012}", next() % KEYS);
        match self {
            Job::Multi { together } => {
                request(out, &["MULTI"]);
                for index in 0..10 {
                    let counter = if together {
                        format!("{{{key}}}{index}")
                    } else {
                        format!("counter:{}", next() % KEYS)
                    };
                    request(out, &["INCR", &counter]);
                }
                request(out, &["EXEC"]);
            }
            Job::Limiter => request(out, &["EVALSHA", digest, "1", &format!("limit:{key}"), "60"]),
            Job::Publish(_) => request(out, &["PUBLISH", "news", "sixteen bytes it"]),
            Job::GetRange => request(out, &["GETRANGE", &key, "100", "131"]),
            Job::SetRange => request(out, &["SETRANGE", &key, "100", "sixteen bytes it"]),
            Job::BitCount => request(out, &["BITCOUNT", &key]),
        }
    }
}

fn request(out: &mut Vec<u8>, words: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

struct Setting {
    name: &'static str,
    text: String,
    jobs: Vec<Job>,
    contenders: Vec<Contender>,
}

/// What one measurement saw.
#[derive(Clone, Copy)]
struct Sample {
    ops_per_s: f64,
    cpu_us_per_op: f64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    harness::run("bench-features", &options.common, || run(&options))
}

fn run(options: &Options) -> Outcome<()> {
    let &[server_cpu, load_cpu, ..] = usable_cpus().as_slice() else {
        return Err("this needs two CPUs: one for the server, one for the load".into());
    };
    let notes = [
        &*format!("Load: {CONNECTIONS} connections, {KEYS} keys with values of 1 KiB; messages of 16 bytes"),
        "kvlite: with its defaults, analytics on, log synced every second; Redis: with and without its append-only file",
        "An operation is a whole transaction, or one request",
    ];
    let complete = options.only.is_empty() && !is_redis(&options.common.kvlite_binary);
    let mut report = Report::new(
        "features",
        "Transactions, scripts and messages: kvlite against Redis",
        &options.common,
        complete,
        &["redis-server"],
        &notes,
    )?;
    let mut only_load = CpuSet::new();
    for setting in settings(options, server_cpu, load_cpu) {
        only_load.set(load_cpu);
        let rows: Vec<(Job, usize)> = setting.jobs.iter().flat_map(|job| [(*job, 16), (*job, 1)]).collect();
        let chosen = |(job, depth): &(Job, usize)| {
            let name = format!("{} {} P={depth}", setting.name, job.name());
            options.only.is_empty() || options.only.iter().any(|words| name.contains(words.as_str()))
        };
        let rows: Vec<(Job, usize)> = rows.into_iter().filter(chosen).collect();
        if !rows.is_empty() {
            sched_setaffinity(None, &only_load)?;
            measure_setting(&setting, &rows, options, &mut report)?;
        }
    }
    report.finish()
}

fn settings(options: &Options, server_cpu: usize, load_cpu: usize) -> Vec<Setting> {
    let (one, both) = (server_cpu.to_string(), format!("{server_cpu},{load_cpu}"));
    // A Redis in the place of kvlite takes its own flags.
    let is_kvlite = !is_redis(&options.common.kvlite_binary);
    let many: &[&str] = &[if is_kvlite { "--max-connections" } else { "--maxclients" }, "15000"];
    let two: &[&str] = if is_kvlite { &["--shards", "2"] } else { &[] };
    let kvlite = |name, cpus: &str| {
        Contender::kvlite(name, &options.common.kvlite_binary, "everysec", cpus).with(many)
    };
    let redis = |name, sync, cpus: &str| Contender::redis(name, sync, cpus).with(&["--maxclients", "15000"]);
    let one_core = Setting {
        name: "one core",
        text: format!("Server on CPU {server_cpu}, load on CPU {load_cpu}."),
        jobs: vec![
            Job::Multi { together: true },
            Job::Limiter,
            Job::Publish(1),
            Job::Publish(100),
            Job::Publish(10_000),
            Job::GetRange,
            Job::SetRange,
            Job::BitCount,
        ],
        contenders: vec![
            kvlite("kvlite", &one),
            redis("Redis", None, &one),
            redis("Redis AOF", Some("everysec"), &one),
        ],
    };
    let two_shards = Setting {
        name: "two shards",
        text: format!(
            "Servers on CPUs {both}, load on CPU {load_cpu} with them: keys of a transaction lie on both shards."
        ),
        jobs: vec![Job::Multi { together: false }, Job::Multi { together: true }],
        contenders: vec![kvlite("kvlite", &both).with(two), redis("Redis", None, &both)],
    };
    vec![one_core, two_shards]
}

fn measure_setting(
    setting: &Setting,
    rows: &[(Job, usize)],
    options: &Options,
    report: &mut Report,
) -> Outcome<()> {
    let dir = DataDir::create()?;
    let mut servers = Vec::new();
    for contender in &setting.contenders {
        let server = Server::start(contender, &dir.of(&contender.name))?;
        let digest = fill(&server)?;
        server.pause()?;
        servers.push((server, digest));
    }
    let time = Duration::from_millis(if options.common.quick { 300 } else { 2500 });
    let mut lines = Vec::new();
    for (job, depth) in rows {
        let mut samples = vec![Vec::new(); servers.len()];
        for round in 0..options.common.rounds() {
            for turn in 0..servers.len() {
                let at = (turn + round) % servers.len(); // No server always follows the same one.
                let (server, digest) = &servers[at];
                server.resume()?;
                let sample = measure(server, digest, *job, *depth, time)?;
                server.pause()?;
                eprintln!(
                    "{} P={depth}, round {}: {:<10} {:>9.0} ops/s {:>8.2} us CPU/op",
                    job.name(),
                    round + 1,
                    server.name,
                    sample.ops_per_s,
                    sample.cpu_us_per_op
                );
                samples[at].push(sample);
            }
        }
        let all = |at: usize, field: fn(&Sample) -> f64| samples[at].iter().map(field).collect::<Vec<_>>();
        for (at, (server, _)) in servers.iter().enumerate() {
            let compared =
                |field| if at == 0 { String::new() } else { ratio(&all(0, field), &all(at, field)) };
            lines.push(vec![
                job.name(),
                depth.to_string(),
                server.name.clone(),
                format!("{:.0}", median(all(at, |s| s.ops_per_s))),
                format!("{:.2}", median(all(at, |s| s.cpu_us_per_op))),
                compared(|s| s.ops_per_s),
                compared(|s| s.cpu_us_per_op),
            ]);
        }
    }
    report.section(setting.name, &setting.text);
    report.table(&["job", "P", "server", "ops/s", "CPU us/op", "ratio of ops/s", "ratio of CPU/op"], &lines);
    Ok(())
}

/// Sets the values that jobs ask parts of, and loads the limiter; its digest, or nothing where there are no scripts.
fn fill(server: &Server) -> Outcome<String> {
    let mut client = Client::connect(server.port)?;
    let value = "x".repeat(1024);
    for first in (0..KEYS).step_by(500) {
        let mut batch = Vec::new();
        for key in first..first + 500 {
            request(&mut batch, &["SET", &format!("key:{key:012}"), &value]);
        }
        client.stream.write_all(&batch)?;
        client.read_lines(500)?;
    }
    let answer = server.ask(&format!("SCRIPT LOAD \"{LIMITER}\""))?;
    Ok(answer.lines().find(|line| line.len() == 40).unwrap_or_default().to_owned())
}

/// Asks for the same job for some time.
fn measure(server: &Server, digest: &str, job: Job, depth: usize, time: Duration) -> Outcome<Sample> {
    let subscribers = Subscribers::connect(server.port, job.subscribers())?;
    let mut clients = (0..CONNECTIONS).map(|_| Client::connect(server.port)).collect::<Outcome<Vec<_>>>()?;
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        // Marsaglia's xorshift: the same keys for each server.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let before = server.cpu_seconds()?;
    let start = Instant::now();
    let (mut done, mut batch) = (0_u64, Vec::new());
    while start.elapsed() < time {
        // Messages to many take long: the fewer are under way the sooner the measurement ends.
        let under_way = if job.subscribers() > 1_000 { 1 } else { clients.len() };
        for client in &mut clients[..under_way] {
            batch.clear();
            for _ in 0..depth {
                job.write(&mut batch, digest, &mut next);
            }
            client.stream.write_all(&batch)?;
        }
        for client in &mut clients[..under_way] {
            client.read_lines(depth * job.lines())?;
        }
        done += (under_way * depth) as u64;
    }
    // A message counts once it has come to all.
    subscribers.wait_for(done)?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu_seconds = server.cpu_seconds()? - before;
    Ok(Sample { ops_per_s: done as f64 / seconds, cpu_us_per_op: cpu_seconds * 1e6 / done as f64 })
}

/// One connection whose replies are counted in lines.
struct Client {
    stream: TcpStream,
    piece: Vec<u8>,
}

impl Client {
    fn connect(port: u16) -> Outcome<Client> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        Ok(Client { stream, piece: vec![0; 64 << 10] })
    }

    /// Reads replies of so many lines. An error where one of them is an error: it measures nothing.
    fn read_lines(&mut self, mut lines: usize) -> Outcome<()> {
        let mut begins_line = true;
        while lines > 0 {
            let count = match self.stream.read(&mut self.piece) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            let piece = &self.piece[..count];
            let is_error =
                begins_line && piece.first() == Some(&b'-') || piece.windows(2).any(|two| two == b"\n-");
            if count == 0 || is_error {
                return Err(format!("the server answered {}", piece[..count.min(200)].escape_ascii()).into());
            }
            lines = lines.saturating_sub(memchr::memchr_iter(b'\n', piece).count());
            begins_line = piece.last() == Some(&b'\n');
        }
        Ok(())
    }
}

/// Those who get the messages, and a thread that reads them.
struct Subscribers {
    count: u64,
    bytes: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    reader: Option<thread::JoinHandle<()>>,
}

/// `*3`, `message`, `news` and the message.
const MESSAGE_BYTES: u64 = (4 + 4 + 9 + 4 + 6 + 5 + 18) as u64;

impl Subscribers {
    fn connect(port: u16, count: usize) -> Outcome<Subscribers> {
        let (bytes, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut streams = Vec::new();
        for index in 0..count {
            let mut client = Client::connect(port)?;
            client.stream.write_all(b"SUBSCRIBE news\r\n")?;
            client.read_lines(6)?;
            client.stream.set_nonblocking(true)?;
            epoll::add(
                &poll,
                &client.stream,
                epoll::EventData::new_u64(index as u64),
                epoll::EventFlags::IN,
            )?;
            streams.push(client.stream);
        }
        let (counted, is_over) = (Arc::clone(&bytes), Arc::clone(&ends));
        let reader = (count > 0).then(|| {
            thread::spawn(move || {
                let mut events = Vec::with_capacity(1024);
                let mut piece = vec![0; 64 << 10];
                while !is_over.load(Ordering::Relaxed) {
                    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                    events.clear();
                    if epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout))
                        .is_err()
                    {
                        continue; // It was interrupted.
                    }
                    for event in &events {
                        if let Ok(count) = streams[event.data.u64() as usize].read(&mut piece) {
                            counted.fetch_add(count as u64, Ordering::Relaxed);
                        }
                    }
                }
            })
        });
        Ok(Subscribers { count: count as u64, bytes, ends, reader })
    }

    /// Waits until all have got so many messages.
    fn wait_for(&self, messages: u64) -> Outcome<()> {
        let (wanted, start) = (messages * self.count * MESSAGE_BYTES, Instant::now());
        while self.bytes.load(Ordering::Relaxed) < wanted {
            if start.elapsed() > SILENCE_MAX {
                return Err(format!(
                    "{} of {wanted} bytes of messages came",
                    self.bytes.load(Ordering::Relaxed)
                )
                .into());
            }
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
