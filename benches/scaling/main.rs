//! How kvlite scales with its cores: 1, 2, 4, ... shards, with keys of the shard that serves the connection (local),
//! of the others (remote), and of all. In process, over sockets, and by a model for more cores than there are.
//!
//! The load generator takes cores, too: those that are left, or all of them when the server has them all. So
//! the efficiency is that of the server's CPU time: operations for each CPU second with one shard count as 1.
//!
//! `make bench-scaling ARGS=--help` shows the options.

#[path = "../harness/mod.rs"]
mod harness;
mod mesh;
mod model;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use kvlite::config::usable_cpus;

use harness::load::{Load, Sample};
use harness::report::{Report, median, ratio};
use harness::server::{Contender, DataDir, Server};
use harness::{Common, Outcome, plot};
use mesh::Place;
use model::Costs;

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

/// Shards over which commands with ten keys are measured; past the cores there are, shards share them.
const MANY_KEYS_SHARDS: [usize; 3] = [2, 4, 8];

/// A low load: a few clients without pipelines.
const FEW_CLIENTS: u32 = 4;
/// Requests a second that leave the cores idle for most of the time; a few clients alone keep them busy.
const LOW_RATE: &str = "10000";

/// How long shards spin before they sleep.
const SPINS_US: [u32; 3] = [0, 20, 100];

/// For how long a server without load is watched.
const IDLE: Duration = Duration::from_secs(2);

/// The sizes of messages in process, in requests.
const BATCHES: [usize; 5] = [1, 4, 16, 64, 256];

/// A server, and one load on it.
struct Case {
    table: Table,
    /// What tells it from the others of its table.
    label: String,
    shards: usize,
    server: usize,
    load: Load,
}

/// In which table a case stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    /// By the number of shards; with pipelines of this length.
    Scaling(u32),
    ManyKeys,
    LowLoad,
    Spin,
}

/// The servers, and the loads on them.
#[derive(Default)]
struct Plan {
    servers: Vec<Server>,
    cases: Vec<Case>,
    /// The servers of [`SPINS_US`].
    spinning: Vec<usize>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    harness::run("bench-scaling", &options.common, || run(&options))
}

fn run(options: &Options) -> Outcome<()> {
    let cpus = usable_cpus();
    let notes = [
        "Load: `kvlite bench`, half GET and half SET unless a table says otherwise, 200,000 keys, values of 16 bytes",
        "Efficiency: operations for each CPU second of the server, by those of one shard; a core whose time \
         it takes whole would serve that many",
        "kvlite: with its defaults, log synced every second",
    ];
    let complete = options.shards_max.is_none();
    let title = "kvlite with more and more cores";
    let mut report = Report::new("scaling", title, &options.common, complete, &[], &notes)?;
    let costs = in_process(cpus.len(), options, &mut report)?;
    let dir = DataDir::create()?;
    let plan = plan(&cpus, options, &dir)?;
    let samples = measure(&plan, options)?;
    for pipeline in PIPELINES {
        scaling_table(pipeline, &plan, &samples, &mut report)?;
    }
    many_keys_table(&plan, &samples, cpus.len(), &mut report);
    low_load_table(&plan, &samples, &mut report);
    spin_table(&plan, &samples, &mut report)?;
    if let Some(costs) = costs {
        prediction(&costs, &plan, &samples, &mut report)?;
    }
    report.finish()
}

/// Measures commands without sockets: local ones, and remote ones in messages of several sizes. Needs two cores.
fn in_process(cpus: usize, options: &Options, report: &mut Report) -> Outcome<Option<Costs>> {
    if cpus < 2 {
        return Ok(None);
    }
    let time = Duration::from_millis(if options.common.quick { 300 } else { 1000 });
    let (mut local, mut remote) = (Vec::new(), vec![Vec::new(); BATCHES.len()]);
    for round in 0..options.common.rounds() {
        local.push(mesh::cpu_us_per_command(2, Place::Local, 64, time)?);
        for (index, batch) in BATCHES.into_iter().enumerate() {
            remote[index].push(mesh::cpu_us_per_command(2, Place::Remote, batch, time)?);
        }
        let text: Vec<_> = remote.iter().map(|us| format!("{:.3}", us[round])).collect();
        eprintln!("round {}: local {:.3} us, remote {} us", round + 1, local[round], text.join(" "));
    }
    let medians: Vec<f64> = remote.into_iter().map(median).collect();
    let costs = Costs::of(median(local), &BATCHES, &medians);
    let row = |keys: &str, batch: String, us: f64| {
        let efficiency = costs.local_us / us;
        vec![
            keys.to_owned(),
            batch,
            format!("{us:.3}"),
            format!("{:.0}", 1e6 / us),
            format!("{efficiency:.2}"),
        ]
    };
    let mut rows = vec![row("local", String::new(), costs.local_us)];
    rows.extend(BATCHES.iter().zip(&medians).map(|(batch, us)| row("remote", batch.to_string(), *us)));
    report.section(
        "In process",
        &format!(
            "Two shards on two threads, half GET and half SET, without sockets, log and sleep. A remote command \
             costs {:.3} us more than a local one, and each message with its answer {:.3} us (least squares over \
             the sizes).",
            costs.remote_us, costs.message_us
        ),
    );
    let columns = ["keys", "requests in a message", "CPU us/op", "ops per CPU second", "efficiency"];
    report.table(&columns, &rows);
    Ok(Some(costs))
}

/// Starts the servers, fills and pauses them.
fn plan(cpus: &[usize], options: &Options, dir: &DataDir) -> Outcome<Plan> {
    let mut plan = Plan::default();
    let list = |cpus: &[usize]| cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let all = Load { threads: cpus.len(), ..Load::new(&list(cpus), KEYS, "16") };
    let start = |plan: &mut Plan, shards: usize, cpus: &[usize], flags: &[&str]| -> Outcome<usize> {
        let name = format!("{} shards {}", shards, plan.servers.len());
        let contender = Contender::kvlite(&name, &options.common.kvlite_binary, "everysec", &list(cpus));
        let contender = contender.with(&["--shards", &shards.to_string()]).with(flags);
        let server = Server::start(&contender, &dir.of(&name))?;
        all.fill(&server)?;
        server.pause()?;
        plan.servers.push(server);
        Ok(plan.servers.len() - 1)
    };
    let most = options.shards_max.unwrap_or(cpus.len());
    for shards in std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|count| *count <= most) {
        let own = &cpus[..shards.min(cpus.len())];
        let left = if own.len() < cpus.len() { &cpus[own.len()..] } else { own };
        let server = start(&mut plan, shards, own, &[])?;
        let load = Load { threads: left.len(), clients: 50 * shards as u32, cpus: list(left), ..all.clone() };
        let localities: &[&str] = if shards == 1 { &["local"] } else { &["local", "any", "remote"] };
        for (pipeline, locality) in PIPELINES.into_iter().flat_map(|p| localities.iter().map(move |l| (p, l)))
        {
            let load = Load { pipeline, ..load.clone().with(&["--locality", locality]) };
            let label = (*locality).to_owned();
            plan.cases.push(Case { table: Table::Scaling(pipeline), label, shards, server, load });
        }
    }
    for shards in MANY_KEYS_SHARDS {
        let server = start(&mut plan, shards, cpus, &[])?;
        for command in ["mget", "mset"] {
            let load = Load { commands: command.to_owned(), ..all.clone() };
            let label = command.to_uppercase();
            plan.cases.push(Case { table: Table::ManyKeys, label, shards, server, load });
        }
    }
    let few = Load { clients: FEW_CLIENTS, threads: 1, ..all.clone() };
    let shards = cpus.len().min(2);
    let single = start(&mut plan, 1, cpus, &[])?;
    let several = start(&mut plan, shards, cpus, &[])?;
    let low = few.clone().with(&["--rate", LOW_RATE]);
    for (label, load) in [(LOW_RATE, &low), ("as they are answered", &few)] {
        for (shards, server) in [(1, single), (shards, several)] {
            let (label, load) = (label.to_owned(), load.clone());
            plan.cases.push(Case { table: Table::LowLoad, label, shards, server, load });
        }
    }
    for spin_us in SPINS_US {
        let server = start(&mut plan, shards, cpus, &["--spin-us", &spin_us.to_string()])?;
        plan.spinning.push(server);
        for load in [&low, &few, &all] {
            let label = spin_us.to_string();
            plan.cases.push(Case { table: Table::Spin, label, shards, server, load: load.clone() });
        }
    }
    Ok(plan)
}

/// The samples of each case, one a round; the cases in turns.
fn measure(plan: &Plan, options: &Options) -> Outcome<Vec<Vec<Sample>>> {
    let Plan { servers, cases, .. } = plan;
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
                "round {}: {} shards, {} {}, {} clients, P={}: {:.0} ops/s {:.2} us CPU/op",
                round + 1,
                cases[at].shards,
                cases[at].load.commands,
                cases[at].label,
                cases[at].load.clients,
                cases[at].load.pipeline,
                sample.ops_per_s,
                sample.cpu_us_per_op
            );
            samples[at].push(sample);
        }
    }
    Ok(samples)
}

/// The cases of a table, with their samples.
fn of<'a>(
    table: Table,
    plan: &'a Plan,
    samples: &'a [Vec<Sample>],
) -> impl Iterator<Item = (&'a Case, &'a [Sample])> {
    let all = plan.cases.iter().zip(samples.iter().map(Vec::as_slice));
    all.filter(move |(case, _)| case.table == table)
}

fn each(samples: &[Sample], field: fn(&Sample) -> f64) -> Vec<f64> {
    samples.iter().map(field).collect()
}

fn cpu(samples: &[Sample]) -> Vec<f64> {
    each(samples, |sample| sample.cpu_us_per_op)
}

/// The median of a figure, with so many digits.
fn middle(samples: &[Sample], digits: usize, field: fn(&Sample) -> f64) -> String {
    format!("{:.digits$}", median(each(samples, field)))
}

fn scaling_table(pipeline: u32, plan: &Plan, samples: &[Vec<Sample>], report: &mut Report) -> Outcome<()> {
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    let table = Table::Scaling(pipeline);
    let Some((_, single)) = of(table, plan, samples).next() else { return Ok(()) };
    for (case, samples) in of(table, plan, samples) {
        let per_cpu_second = 1e6 / median(cpu(samples));
        rows.push(vec![
            case.shards.to_string(),
            case.label.clone(),
            middle(samples, 0, |sample| sample.ops_per_s),
            middle(samples, 2, |sample| sample.cpu_us_per_op),
            format!("{per_cpu_second:.0}"),
            ratio(&cpu(single), &cpu(samples)),
            middle(samples, 2, |sample| sample.p99_ms),
        ]);
        groups.push((format!("{} {}", case.shards, case.label), vec![per_cpu_second]));
    }
    report.section(
        &format!("Over sockets, P={pipeline}"),
        "50 clients for each shard. Local: keys of the shard that serves the connection. The load runs on the CPUs \
         that are left, or on those of the server where it has them all.",
    );
    let columns = ["shards", "keys", "ops/s", "CPU us/op", "ops per CPU second", "efficiency", "p99 ms"];
    report.table(&columns, &rows);
    if let Some(path) = report.plot_path(&format!("scaling-p{pipeline}")) {
        let title = format!("Operations for each CPU second, P={pipeline}");
        plot::bars(&path, &title, "operations", &["kvlite"], &groups)?;
        report.image(&title, &path);
    }
    Ok(())
}

fn many_keys_table(plan: &Plan, samples: &[Vec<Sample>], cpus: usize, report: &mut Report) {
    let rows = of(Table::ManyKeys, plan, samples).map(|(case, samples)| {
        vec![
            format!("{}{}", case.shards, if case.shards > cpus { " (oversubscribed)" } else { "" }),
            case.label.clone(),
            middle(samples, 0, |sample| sample.ops_per_s),
            middle(samples, 2, |sample| sample.cpu_us_per_op),
            middle(samples, 2, |sample| sample.p50_ms),
            middle(samples, 2, |sample| sample.p99_ms),
        ]
    });
    let rows: Vec<_> = rows.collect();
    report.section(
        "Ten keys in one command",
        "50 clients, P=1; server and load on all CPUs. With more shards than CPUs, shards share them: their \
         messages then wait for the scheduler.",
    );
    report.table(&["shards", "command", "ops/s", "CPU us/op", "p50 ms", "p99 ms"], &rows);
}

fn low_load_table(plan: &Plan, samples: &[Vec<Sample>], report: &mut Report) {
    let p50 = |samples: &[Sample]| each(samples, |sample| sample.p50_ms);
    let mut rows = Vec::new();
    for pair in of(Table::LowLoad, plan, samples).collect::<Vec<_>>().chunks(2) {
        for (case, samples) in pair {
            rows.push(vec![
                case.label.clone(),
                case.shards.to_string(),
                middle(samples, 3, |sample| sample.p50_ms),
                middle(samples, 3, |sample| sample.p99_ms),
                middle(samples, 2, |sample| sample.cpu_us_per_op),
                ratio(&p50(samples), &p50(pair[0].1)),
            ]);
        }
    }
    let text = format!(
        "{FEW_CLIENTS} clients, P=1, keys of all shards; server and load on all CPUs. At a fixed rate, and with each \
         request sent once the one before it is answered, which keeps both CPUs busy."
    );
    report.section("Latency at a low load", &text);
    let columns = ["requests/s", "shards", "p50 ms", "p99 ms", "CPU us/op", "p50 by that of one shard"];
    report.table(&columns, &rows);
}

fn spin_table(plan: &Plan, samples: &[Vec<Sample>], report: &mut Report) -> Outcome<()> {
    let mut rows = Vec::new();
    let cases: Vec<_> = of(Table::Spin, plan, samples).collect();
    for (loads, server) in cases.chunks(3).zip(&plan.spinning) {
        let server = &plan.servers[*server];
        let [(case, low), (_, few), (_, many)] = loads else { unreachable!("three loads for each server") };
        server.resume()?;
        let before = server.cpu_seconds()?;
        thread::sleep(IDLE);
        let idle = (server.cpu_seconds()? - before) / IDLE.as_secs_f64();
        server.pause()?;
        rows.push(vec![
            case.label.clone(),
            middle(low, 3, |sample| sample.p50_ms),
            middle(low, 2, |sample| sample.cpu_us_per_op),
            middle(few, 3, |sample| sample.p50_ms),
            middle(few, 2, |sample| sample.cpu_us_per_op),
            middle(many, 3, |sample| sample.p50_ms),
            middle(many, 2, |sample| sample.cpu_us_per_op),
            format!("{:.1} %", idle * 100.0),
        ]);
    }
    let text = format!(
        "Two shards; {FEW_CLIENTS} clients with {LOW_RATE} requests a second, {FEW_CLIENTS} and 50 that send each request \
         once the one before it is answered; P=1, keys of all shards; server and load on all CPUs; \
         spinning shards give way to the load. Without load: CPU time of the server by one core's."
    );
    report.section("--spin-us", &text);
    let columns = [
        "us",
        "low load: p50 ms",
        "CPU us/op",
        "4 clients: p50 ms",
        "CPU us/op",
        "50 clients: p50 ms",
        "CPU us/op",
        "without load",
    ];
    report.table(&columns, &rows);
    Ok(())
}

/// What more cores would do: the cost of one shard over sockets, with that of messages in process on top.
fn prediction(costs: &Costs, plan: &Plan, samples: &[Vec<Sample>], report: &mut Report) -> Outcome<()> {
    let table = Table::Scaling(16);
    let figure = |shards, keys| {
        let mut cases = of(table, plan, samples);
        let case = cases.find(|(case, _)| case.shards == shards && case.label == keys);
        case.map(|(_, samples)| median(cpu(samples)))
    };
    let Some(single_us) = figure(1, "local") else { return Ok(()) };
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    for shards in model::SHARDS {
        let mut row = vec![shards.to_string()];
        let mut efficiencies = Vec::new();
        for turn in model::COMMANDS_PER_TURN {
            let us = costs.cpu_us_per_command(single_us, shards, turn);
            efficiencies.push(single_us / us);
            row.extend([format!("{:.1}", shards as f64 / us), format!("{:.2}", single_us / us)]);
        }
        rows.push(row);
        groups.push((shards.to_string(), efficiencies));
    }
    let held = figure(2, "any").map_or_else(String::new, |measured_us| {
        let predicted_us = costs.cpu_us_per_command(single_us, 2, 64.0);
        format!(
            " Held against the two shards that were measured, with 64 commands in a turn: {predicted_us:.2} us \
             predicted, {measured_us:.2} us measured; what is missing is that shards sleep and are woken."
        )
    });
    let text = format!(
        "A prediction, not a measurement. A command costs what it costs one shard with P=16 over sockets \
         ({single_us:.2} us), those whose key lives elsewhere {:.3} us more, and each message with its answer \
         {:.3} us, both as measured in process. A turn's commands go to all shards alike, so that with more shards \
         each message carries fewer of them. Every core is taken to be busy and as fast as these; memory, network \
         and waking are not in it.{held}",
        costs.remote_us, costs.message_us
    );
    report.section("Prediction for more cores", &text);
    let columns = model::COMMANDS_PER_TURN.map(|turn| format!("Mops/s, {turn} commands a turn"));
    let columns: Vec<&str> = std::iter::once("cores")
        .chain(columns.iter().flat_map(|column| [column.as_str(), "efficiency"]))
        .collect();
    report.table(&columns, &rows);
    if let Some(path) = report.plot_path("scaling-prediction") {
        let title = "Predicted efficiency, P=16, keys of all shards";
        let series = model::COMMANDS_PER_TURN.map(|turn| format!("{turn} commands a turn"));
        plot::bars(&path, title, "", &series.each_ref().map(String::as_str), &groups)?;
        report.image(title, &path);
    }
    Ok(())
}
