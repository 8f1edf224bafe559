//! What a run found, as a text for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::generator::{Plan, Tally};
use super::options::Options;
use crate::net::Backend;

/// Percentiles that are shown.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Report {
    io: Backend,
    clients: u32,
    threads: u32,
    pipeline: u32,
    /// Requests a second that were asked for.
    rate: Option<u64>,
    /// Requests that were answered.
    pub requests: u64,
    /// Requests that were due, and could not be sent because earlier ones were not answered.
    pub unsent: u64,
    /// From the start to the last reply.
    pub seconds: f64,
    /// Replies that said that there is no such key.
    pub missing: u64,
    /// Replies that were errors, by their text.
    pub errors: BTreeMap<String, u64>,
    commands: BTreeMap<String, u64>,
    latency: Latency,
    service_time: Option<Latency>,
}

/// A distribution of times, in milliseconds.
#[derive(Clone, Debug)]
struct Latency {
    mean: f64,
    quantiles: [f64; QUANTILES.len()],
    max: f64,
}

impl Latency {
    fn new(histogram: &Histogram<u64>) -> Latency {
        let ms = |ns: u64| ns as f64 / 1e6;
        Latency {
            mean: histogram.mean() / 1e6,
            quantiles: QUANTILES.map(|(_, quantile)| ms(histogram.value_at_quantile(quantile))),
            max: ms(histogram.max()),
        }
    }

    fn json(&self) -> Value {
        let mut object = json!({ "mean": self.mean, "max": self.max });
        for ((name, _), value) in QUANTILES.iter().zip(self.quantiles) {
            object[*name] = json!(value);
        }
        object
    }

    fn row(&self) -> String {
        let mut row = format!("mean {:.3}", self.mean);
        for ((name, _), value) in QUANTILES.iter().zip(self.quantiles) {
            row.push_str(&format!(", {name} {value:.3}"));
        }
        row + &format!(", max {:.3}", self.max)
    }
}

impl Report {
    pub(super) fn new(options: &Options, io: Backend, plan: Plan, tally: &Tally) -> Report {
        let name = |kind: &super::options::Kind| {
            kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
        };
        Report {
            io,
            clients: options.clients,
            threads: options.threads,
            pipeline: options.pipeline,
            rate: matches!(plan, Plan::Open(_)).then_some(options.rate).flatten(),
            requests: tally.answered,
            unsent: match plan {
                Plan::Open(schedule) => schedule.count - tally.answered,
                Plan::Fill(_) | Plan::Closed(_) => 0,
            },
            seconds: tally.ended_ns as f64 / 1e9,
            missing: tally.missing,
            errors: tally.errors.clone(),
            commands: tally.commands.iter().map(|(kind, count)| (name(kind), *count)).collect(),
            latency: Latency::new(&tally.latency),
            service_time: matches!(plan, Plan::Open(_)).then(|| Latency::new(&tally.service_time)),
        }
    }

    /// Requests a second.
    pub fn ops_per_s(&self) -> f64 {
        if self.seconds > 0.0 { self.requests as f64 / self.seconds } else { 0.0 }
    }

    /// As one line of JSON. Times are in milliseconds.
    pub fn json(&self) -> String {
        let error_count: u64 = self.errors.values().sum();
        let mut object = json!({
            "io": self.io.to_string(),
            "clients": self.clients,
            "threads": self.threads,
            "pipeline": self.pipeline,
            "rate": self.rate,
            "requests": self.requests,
            "unsent": self.unsent,
            "seconds": self.seconds,
            "ops_per_s": self.ops_per_s(),
            "commands": self.commands,
            "missing": self.missing,
            "errors": error_count,
            "error_texts": self.errors,
            "latency_ms": self.latency.json(),
        });
        if let Some(service_time) = &self.service_time {
            object["service_time_ms"] = service_time.json();
        }
        object.to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { io, clients, threads, pipeline, requests, seconds, .. } = self;
        let commands: Vec<_> = self.commands.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(f, "{clients} clients, {threads} threads, {pipeline} requests in a pipeline, by {io}")?;
        writeln!(f, "requests    {requests} in {seconds:.2} s: {}", commands.join(", "))?;
        match self.rate {
            None => writeln!(f, "throughput  {:.0} requests/s", self.ops_per_s())?,
            Some(rate) => {
                writeln!(f, "throughput  {:.0} requests/s of {rate} requests/s asked for", self.ops_per_s())?;
            }
        }
        writeln!(f, "latency ms  {}", self.latency.row())?;
        if let Some(service_time) = &self.service_time {
            writeln!(
                f,
                "            counted from the times at which the requests were due; once sent they took"
            )?;
            writeln!(f, "            {}", service_time.row())?;
        }
        if self.unsent > 0 {
            writeln!(f, "unsent      {} requests were due, but the server did not keep up", self.unsent)?;
        }
        if self.missing > 0 {
            writeln!(f, "missing     {} replies found no key", self.missing)?;
        }
        let error_count: u64 = self.errors.values().sum();
        writeln!(f, "errors      {error_count}")?;
        for (text, count) in &self.errors {
            writeln!(f, "            {count} x {}", text.escape_debug())?;
        }
        Ok(())
    }
}
