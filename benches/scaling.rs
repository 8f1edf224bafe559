//! How kvlite scales with its cores: 1, 2, 4, ... shards, each on a core of its own, with keys of the shard
//! that serves the connection (local), of the others (remote), and of all.
//!
//! The load generator takes cores, too: those that are left, or all of them when the server has them all. So
//! the efficiency is that of the server's CPU time: operations for each CPU second with one shard count as 1.
//!
//! `make bench-scaling ARGS=--help` shows the options.

mod harness;

use std::process::ExitCode;

use clap::Parser;
use kvlite::config::usable_cpus;

use harness::load::{Load, Sample};
use harness::report::{Report, median, ratio};
use harness::server::{Contender, DataDir, Server};
use harness::{Common, Outcome, plot};

/// Measures kvlite with 1, 2, 4, ... shards, in turns, and prints a Markdown table
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Options {
    #[command(flatten)]
    common: Common,
    /// Most shards [default: as many as CPUs]
    #[arg(long, value_name = "N")]
    shards_max: Option<usize>,
}

const KEYS: u64 = 200_000;
const PIPELINES: [u32; 2] = [1, 16];
const REQUESTS: std::ops::RangeInclusive<u64> = 10_000..=50_000_000;

/// A server, and one load on it.
struct Case {
    server: usize,
    shards: usize,
    locality: &'static str,
    load: Load,
}

fn main() -> ExitCode {
    let options = Options::parse();
    harness::run("bench-scaling", &options.common, || run(&options))
}

fn run(options: &Options) -> Outcome<()> {
    let cpus = usable_cpus();
    let most = options.shards_max.unwrap_or(cpus.len());
    let counts: Vec<usize> =
        std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|count| *count <= most).collect();
    let notes = [
        "Load: `kvlite bench`, half GET and half SET, 50 clients for each shard, 200,000 keys, values of 16 \
         bytes; on the CPUs that are left, or on those of the server where it has them all",
        "Efficiency: operations for each CPU second of the server, by those of one shard; a core whose time \
         it takes whole would serve that many",
        "kvlite: with its defaults, log synced every second",
    ];
    let complete = options.shards_max.is_none();
    let mut report =
        Report::new("scaling", "kvlite with more and more cores", &options.common, complete, &[], &notes)?;
    let dir = DataDir::create()?;
    let (mut servers, mut cases) = (Vec::new(), Vec::new());
    for count in counts {
        let list = |cpus: &[usize]| cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let own = &cpus[..count.min(cpus.len())];
        let left = if own.len() < cpus.len() { &cpus[own.len()..] } else { own };
        let name = format!("{count} shards");
        let contender = Contender::kvlite(&name, &options.common.kvlite_binary, "everysec", &list(own));
        let server = Server::start(&contender.with(&["--shards", &count.to_string()]), &dir.of(&name))?;
        let load =
            Load { threads: left.len(), clients: 50 * count as u32, ..Load::new(&list(left), KEYS, "16") };
        load.fill(&server)?;
        server.pause()?;
        for pipeline in PIPELINES {
            let localities: &[&str] = if count == 1 { &["local"] } else { &["local", "any", "remote"] };
            for locality in localities {
                let load = Load { pipeline, ..load.clone().with(&["--locality", locality]) };
                cases.push(Case { server: servers.len(), shards: count, locality, load });
            }
        }
        servers.push(server);
    }
    let samples = measure(&cases, &servers, options)?;
    write(&cases, &samples, &mut report)?;
    report.finish()
}

/// The samples of each case, one a round; the cases in turns.
fn measure(cases: &[Case], servers: &[Server], options: &Options) -> Outcome<Vec<Vec<Sample>>> {
    let seconds = if options.common.quick { 0.5 } else { 3.0 };
    let one = |case: &Case, requests| {
        servers[case.server].resume()?;
        let sample = case.load.measure(&servers[case.server], requests);
        servers[case.server].pause()?;
        sample
    };
    let mut requests = Vec::new();
    for case in cases {
        let trial = one(case, 10_000 * u64::from(case.load.pipeline))?;
        requests.push(((trial.ops_per_s * seconds) as u64).clamp(*REQUESTS.start(), *REQUESTS.end()));
    }
    let mut samples = vec![Vec::new(); cases.len()];
    for round in 0..options.common.rounds() {
        for turn in 0..cases.len() {
            let at = (turn + round) % cases.len();
            let sample = one(&cases[at], requests[at])?;
            eprintln!(
                "round {}: {} shards, {}, P={}: {:.0} ops/s {:.2} us CPU/op",
                round + 1,
                cases[at].shards,
                cases[at].locality,
                cases[at].load.pipeline,
                sample.ops_per_s,
                sample.cpu_us_per_op
            );
            samples[at].push(sample);
        }
    }
    Ok(samples)
}

fn write(cases: &[Case], samples: &[Vec<Sample>], report: &mut Report) -> Outcome<()> {
    let cpu = |samples: &[Sample]| samples.iter().map(|sample| sample.cpu_us_per_op).collect::<Vec<_>>();
    let rate = |samples: &[Sample]| samples.iter().map(|sample| sample.ops_per_s).collect::<Vec<_>>();
    for pipeline in PIPELINES {
        let (mut rows, mut groups) = (Vec::new(), Vec::new());
        let measured = || cases.iter().zip(samples).filter(|(case, _)| case.load.pipeline == pipeline);
        let Some((_, single)) = measured().next() else { continue };
        for (case, samples) in measured() {
            let per_cpu_second = 1e6 / median(cpu(samples));
            rows.push(vec![
                case.shards.to_string(),
                case.locality.to_owned(),
                format!("{:.0}", median(rate(samples))),
                format!("{:.2}", median(cpu(samples))),
                format!("{per_cpu_second:.0}"),
                ratio(&cpu(single), &cpu(samples)),
                format!("{:.2}", median(samples.iter().map(|sample| sample.p99_ms).collect())),
            ]);
            groups.push((format!("{} {}", case.shards, case.locality), vec![per_cpu_second]));
        }
        report.section(&format!("P={pipeline}"), "Local: keys of the shard that serves the connection.");
        report.table(
            &["shards", "keys", "ops/s", "CPU us/op", "ops per CPU second", "efficiency", "p99 ms"],
            &rows,
        );
        if let Some(path) = report.plot_path(&format!("scaling-p{pipeline}")) {
            let title = format!("Operations for each CPU second, P={pipeline}");
            plot::bars(&path, &title, "operations", &["kvlite"], &groups)?;
            report.image(&title, &path);
        }
    }
    Ok(())
}
