//! Requests from outside: `kvlite bench`, or `redis-benchmark` as a generator that is not ours.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::Outcome;
use super::server::{Flavour, Server};

/// After this time a generator is ended: the server does not answer any more.
const LOAD_SECONDS_MAX: &str = "600";

/// Who sends the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generator {
    /// `redis-benchmark`; one command, uniform keys, no rate.
    RedisBenchmark,
    /// `kvlite bench`.
    Kvlite,
}

/// One load.
#[derive(Clone, Debug)]
pub struct Load {
    /// Who sends.
    pub generator: Generator,
    /// The CPUs of the generator, as `taskset -c` takes them.
    pub cpus: String,
    /// Its threads. `redis-benchmark` with more than one rounds each run up to the next 250 ms.
    pub threads: usize,
    /// Connections.
    pub clients: u32,
    /// Requests ahead of their replies.
    pub pipeline: u32,
    /// Commands, as `kvlite bench --commands` takes them; for `redis-benchmark` one.
    pub commands: String,
    /// Keys to choose from.
    pub keys: u64,
    /// Bytes of a value, as `kvlite bench --value-size` takes them.
    pub value_size: String,
    /// Further flags of `kvlite bench`.
    pub flags: Vec<String>,
}

/// What one measurement saw.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Requests a second.
    pub ops_per_s: f64,
    /// CPU time of the server for each request.
    pub cpu_us_per_op: f64,
    /// Latencies.
    pub p50_ms: f64,
    /// Latencies.
    pub p99_ms: f64,
    /// Latencies; `redis-benchmark` does not tell.
    pub p999_ms: Option<f64>,
    /// Latencies; `redis-benchmark` does not tell.
    pub max_ms: Option<f64>,
    /// Requests that were due and could not be sent, as a part of all.
    pub unsent: f64,
}

impl Load {
    /// Half reads and half writes without a pipeline, by `kvlite bench` on these CPUs.
    pub fn new(cpus: &str, keys: u64, value_size: &str) -> Load {
        Load {
            generator: Generator::Kvlite,
            cpus: cpus.to_owned(),
            threads: 1,
            clients: 50,
            pipeline: 1,
            commands: "get:1,set:1".to_owned(),
            keys,
            value_size: value_size.to_owned(),
            flags: Vec::new(),
        }
    }

    /// With further flags of `kvlite bench`.
    pub fn with(mut self, flags: &[&str]) -> Load {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// Sets every key, and checks that they are all there.
    pub fn fill(&self, server: &Server) -> Outcome<()> {
        self.clone().with(&["--fill", "--requests", "0"]).run(server)?;
        let count = server.key_count()?;
        let is_whole = count == self.keys;
        if is_whole {
            Ok(())
        } else {
            Err(format!("{} holds {count} of {} keys", server.name, self.keys).into())
        }
    }

    /// Loads a server with this many requests, as fast as it answers.
    pub fn measure(&self, server: &Server, requests: u64) -> Outcome<Sample> {
        let load = Load { flags: Vec::new(), ..self.clone() };
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        load.with(&["--requests", &requests.to_string()]).with(&flags).run(server)
    }

    /// Loads a server at a rate, for so many seconds.
    pub fn measure_at(&self, server: &Server, rate: u64, seconds: u64) -> Outcome<Sample> {
        let (rate, duration) = (rate.to_string(), format!("{seconds}s"));
        self.clone().with(&["--rate", &rate, "--duration", &duration]).run(server)
    }

    fn run(&self, server: &Server) -> Outcome<Sample> {
        let before = server.cpu_seconds()?;
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", LOAD_SECONDS_MAX, "taskset", "-c", &self.cpus]);
        match self.generator {
            Generator::RedisBenchmark => self.redis_benchmark(server, &mut command),
            Generator::Kvlite => self.kvlite_bench(server, &mut command),
        }
        let output = command.stdin(Stdio::null()).output()?;
        let cpu_seconds = server.cpu_seconds()? - before;
        let text = String::from_utf8_lossy(&output.stdout);
        let sample = match self.generator {
            Generator::RedisBenchmark => csv_sample(&text, cpu_seconds, self.requests()),
            Generator::Kvlite => json_sample(&text, cpu_seconds),
        };
        match sample {
            Some(sample) if output.status.success() => Ok(sample),
            _ => {
                let (errors, status) = (String::from_utf8_lossy(&output.stderr), output.status);
                Err(format!("{}: {command:?} ended with {status}\n{text}\n{errors}", server.name).into())
            }
        }
    }

    fn kvlite_bench(&self, server: &Server, command: &mut Command) {
        command.args([env!("CARGO_BIN_EXE_kvlite"), "bench", "--json", "--host", "127.0.0.1"]);
        let protocol = if server.flavour == Flavour::Memcached { "memcached" } else { "resp" };
        for (flag, value) in [
            ("--port", server.port.to_string()),
            ("--protocol", protocol.to_owned()),
            ("--threads", self.threads.to_string()),
            ("--clients", self.clients.to_string()),
            ("--pipeline", self.pipeline.to_string()),
            ("--commands", self.commands.clone()),
            ("--keys", self.keys.to_string()),
            ("--value-size", self.value_size.clone()),
            ("--timeout", "60s".to_owned()),
        ] {
            command.args([flag, &value]);
        }
        command.args(&self.flags);
    }

    fn redis_benchmark(&self, server: &Server, command: &mut Command) {
        command.args(["redis-benchmark", "--csv", "-h", "127.0.0.1", "-p", &server.port.to_string()]);
        command.args(["-c", &self.clients.to_string(), "-r", &self.keys.to_string(), "-d", &self.value_size]);
        command.args(["-P", &self.pipeline.to_string(), "-t", &self.commands]);
        command.args(["-n", &self.requests().to_string()]);
        if self.threads > 1 {
            command.args(["--threads", &self.threads.to_string()]);
        }
    }

    /// The number of requests that the flags ask for.
    fn requests(&self) -> u64 {
        let flag = self.flags.iter().position(|flag| flag == "--requests");
        flag.and_then(|index| self.flags.get(index + 1)?.parse().ok()).unwrap_or(0)
    }
}

/// Reads the line that `redis-benchmark --csv` prints below its heading.
fn csv_sample(csv: &str, cpu_seconds: f64, requests: u64) -> Option<Sample> {
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
        p999_ms: None,
        max_ms: None,
        unsent: 0.0,
    })
}

/// Reads the report of `kvlite bench --json`. `None` where replies were errors: they measure nothing.
fn json_sample(json: &str, cpu_seconds: f64) -> Option<Sample> {
    let report: Value = serde_json::from_str(json).ok()?;
    let requests = report["requests"].as_f64()?;
    let unsent = report["unsent"].as_f64()?;
    let latency = |quantile: &str| report["latency_ms"][quantile].as_f64();
    (report["errors"] == 0).then_some(Sample {
        ops_per_s: report["ops_per_s"].as_f64()?,
        cpu_us_per_op: cpu_seconds * 1e6 / requests,
        p50_ms: latency("p50")?,
        p99_ms: latency("p99")?,
        p999_ms: latency("p99.9"),
        max_ms: latency("max"),
        unsent: unsent / (requests + unsent).max(1.0),
    })
}
