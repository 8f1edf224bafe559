//! What the server says of itself: `INFO`, `STATS`, `HEALTH`.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use shard::{DatabaseStats, Reply, Request};

use super::{About, REDIS_VERSION};
use crate::clock::Clock;
use crate::metrics::errors::KINDS;
use crate::metrics::{Report, Traffic};
use crate::process;
use crate::shared::Shared;
use crate::txn::gather::Gather;

pub(super) fn text_info(about: &About<'_>, gather: &Gather) -> Reply<'static> {
    fields([
        ("keys", gather.report.shard.keys),
        ("connections", about.shared.connections.count() as u64),
        ("wal_size", gather.report.wal_size_bytes),
    ])
}

pub(super) fn stats(about: &About<'_>, gather: &Gather) -> Reply<'static> {
    let report = &gather.report;
    let mut reply = fields([
        ("keys", report.shard.keys),
        ("connections", about.shared.connections.count() as u64),
        ("wal_size", report.wal_size_bytes),
        ("wal_entries", report.wal_entries),
    ]);
    let more = fields([
        ("ttl_expired", report.shard.ttl_expired),
        ("ttl_checks", report.shard.ttl_checks),
        ("reads", report.shard.reads),
        ("writes", report.shard.writes),
        ("hits", report.shard.hits),
        ("misses", report.shard.misses),
        ("commands", report.traffic.requests),
        ("keys_with_ttl", report.shard.keys_with_deadline),
        ("memory_bytes", report.shard.memory_bytes),
        ("analytics_memory_bytes", report.shard.analytics_memory_bytes),
        ("shards", about.workers as u64),
        ("uptime_seconds", about.shared.started.elapsed().as_secs()),
    ]);
    let (Reply::Map(fields), Reply::Map(more)) = (&mut reply, more) else {
        unreachable!("both were made as maps");
    };
    fields.push(("needs_compaction".into(), Reply::Bool(report.needs_compaction)));
    fields.extend(more);
    fields.push(("wal_healthy".into(), Reply::Bool(report.wal_fault.is_none())));
    fields.push(("snapshot_healthy".into(), Reply::Bool(report.snapshot_fault.is_none())));
    reply
}

pub(super) fn health(about: &About<'_>, gather: &Gather) -> Reply<'static> {
    let report = &gather.report;
    let status = match (&report.wal_fault, &report.snapshot_fault) {
        _ if !about.shared.loading.is_over() => "loading",
        (None, None) => "healthy",
        _ => "degraded",
    };
    Reply::Bulk(Cow::Owned(health_json(about.shared, status, report).into_bytes()))
}

/// How the server is, as JSON: its status, and what all shards together report.
pub(crate) fn health_json(shared: &Shared, status: &str, report: &Report) -> String {
    let loading = &shared.loading;
    let error = |name: &str, fault: &Option<Arc<str>>| {
        let cause = fault.as_deref();
        cause.map(|cause| format!(",\"{name}\":{}", json_string(cause))).unwrap_or_default()
    };
    let percent = (!loading.is_over()).then(|| format!(",\"loading_percent\":{}", loading.percent()));
    format!(
        "{{\"status\":\"{status}\",\"keys\":{},\"connections\":{},\"wal_size\":{},\"wal_healthy\":{}{},\
         \"snapshot_healthy\":{}{},\"needs_compaction\":{},\"shards\":{},\"io_backend\":\"{}\",\"uptime_seconds\":{}{}}}",
        report.shard.keys,
        shared.connections.count(),
        report.wal_size_bytes,
        report.wal_fault.is_none(),
        error("wal_error", &report.wal_fault),
        report.snapshot_fault.is_none(),
        error("snapshot_error", &report.snapshot_fault),
        report.needs_compaction,
        shared.config.shard_count(),
        shared.io,
        shared.started.elapsed().as_secs(),
        percent.unwrap_or_default(),
    )
}

/// The lines of a section of `INFO`.
type Lines = Vec<(&'static str, String)>;

pub(super) fn info(about: &About<'_>, request: &Request<'_>, gather: &Gather) -> Reply<'static> {
    let asked = |name: &str, is_default: bool| {
        let mut asked = request.args().peekable();
        (asked.peek().is_none() && is_default)
            || asked.any(|arg| {
                let is = |name: &str| arg.eq_ignore_ascii_case(name.as_bytes());
                is(name) || is("all") || is("everything") || (is("default") && is_default)
            })
    };
    Reply::Text(info_text(about.shared, Some(about.clock), &gather.report, asked))
}

/// The sections of `INFO` that are asked for, by their names and by whether they belong to those that are shown unless
/// asked otherwise. Without a clock no time is known that a worker has noted.
pub(crate) fn info_text(
    shared: &Shared,
    clock: Option<&Clock>,
    report: &Report,
    asked: impl Fn(&str, bool) -> bool,
) -> String {
    const DEFAULT: bool = true;
    let sections = [
        ("Server", DEFAULT, section(server(shared))),
        ("Clients", DEFAULT, section(clients(shared, report))),
        ("Memory", DEFAULT, section(memory(shared, report))),
        ("Persistence", DEFAULT, section(persistence(shared, clock, report))),
        ("Stats", DEFAULT, section(counters(shared, report))),
        ("Replication", DEFAULT, section(replication())),
        ("CPU", DEFAULT, section(cpu())),
        ("Commandstats", !DEFAULT, command_stats(report)),
        ("Latencystats", !DEFAULT, latency_stats(report)),
        ("Shards", !DEFAULT, shards(shared)),
        ("Errorstats", DEFAULT, error_stats(report)),
        ("Keyspace", DEFAULT, keyspace(report)),
    ];
    let mut text = String::new();
    for (name, _, lines) in sections.iter().filter(|(name, is_default, _)| asked(name, *is_default)) {
        let separator = if text.is_empty() { "" } else { "\r\n" };
        let _ = write!(text, "{separator}# {name}\r\n{lines}"); // Writing to a string cannot fail.
    }
    text
}

fn section(lines: Lines) -> String {
    lines.into_iter().map(|(field, value)| format!("{field}:{value}\r\n")).collect()
}

fn server(shared: &Shared) -> Lines {
    let uptime = shared.started.elapsed().as_secs();
    let config = &shared.config;
    vec![
        ("redis_version", REDIS_VERSION.to_owned()),
        ("redis_mode", "standalone".to_owned()),
        ("kvlite_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("process_id", std::process::id().to_string()),
        ("tcp_port", shared.resp_port.unwrap_or(0).to_string()),
        ("io_backend", shared.io.to_string()),
        ("text_port", config.port.to_string()),
        ("shards", config.shard_count().to_string()),
        ("shards_set_by", config.shards_set_by().to_owned()),
        ("cpus", config.cpus().len().to_string()),
        (
            "cpu_quota",
            config.machine().cpu_quota.map_or("none".to_owned(), |quota| format!("{:.2}", quota.cpus)),
        ),
        ("uptime_in_seconds", uptime.to_string()),
        ("uptime_in_days", (uptime / 86_400).to_string()),
    ]
}

fn clients(shared: &Shared, report: &Report) -> Lines {
    vec![
        ("connected_clients", shared.connections.count().to_string()),
        ("maxclients", shared.config.max_connections.to_string()),
        ("paused_clients", report.traffic.paused.to_string()),
    ]
}

fn memory(shared: &Shared, report: &Report) -> Lines {
    let machine = shared.config.machine();
    let mut lines = vec![("used_memory", report.shard.memory_bytes.to_string())];
    lines.extend(process::usage().map(|usage| ("used_memory_rss", usage.resident_bytes.to_string())));
    lines.extend([
        ("total_system_memory", machine.memory_bytes.to_string()),
        ("cgroup_memory_limit", machine.memory_limit_bytes.unwrap_or(0).to_string()), // As below: 0 is none.
        ("maxmemory", "0".to_owned()),
    ]);
    lines
}

fn counters(shared: &Shared, report: &Report) -> Lines {
    let Traffic { requests, requests_per_second, received_bytes, sent_bytes, .. } = &report.traffic;
    vec![
        ("total_connections_received", shared.clients_accepted.count().to_string()),
        ("rejected_connections", shared.connections_refused.count().to_string()),
        ("total_commands_processed", requests.to_string()),
        ("instantaneous_ops_per_sec", requests_per_second.to_string()),
        ("total_net_input_bytes", received_bytes.to_string()),
        ("total_net_output_bytes", sent_bytes.to_string()),
        ("expired_keys", report.shard.ttl_expired.to_string()),
        ("evicted_keys", "0".to_owned()),
        ("keyspace_hits", report.shard.hits.to_string()),
        ("keyspace_misses", report.shard.misses.to_string()),
        ("total_error_replies", report.errors.kinds.iter().sum::<u64>().to_string()),
    ]
}

fn replication() -> Lines {
    vec![("role", "master".to_owned()), ("connected_slaves", "0".to_owned())]
}

fn cpu() -> Lines {
    let Some(usage) = process::usage() else { return vec![] };
    vec![
        ("used_cpu_sys", format!("{:.6}", usage.system_s)),
        ("used_cpu_user", format!("{:.6}", usage.user_s)),
    ]
}

/// A line for each command that was called, refused calls included. Its time is that of the measured calls, each of which stands for those
/// since the last one.
fn command_stats(report: &Report) -> String {
    let lines = report.traffic.calls.called().map(|(command, calls, took)| {
        let (rejected, failed) = report.errors.of(command);
        let us = took.sum_ns / 1000;
        let us_per_call = took.sum_ns as f64 / 1000.0 / took.count().max(1) as f64;
        format!(
            "cmdstat_{}:calls={calls},usec={us},usec_per_call={us_per_call:.2},rejected_calls={rejected},\
             failed_calls={failed}\r\n",
            command.full_name()
        )
    });
    lines.collect()
}

/// Of each command that was called, in microseconds, within how long half of its calls ended, and nearly all.
fn latency_stats(report: &Report) -> String {
    let lines =
        report.traffic.calls.called().filter(|(_, _, took)| took.count() > 0).map(|(command, _, took)| {
            let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| took.quantile_ns(share) / 1000.0);
            format!(
                "latency_percentiles_usec_{}:p50={p50:.3},p99={p99:.3},p99.9={p999:.3}\r\n",
                command.full_name()
            )
        });
    lines.collect()
}

/// A line for each shard, as its worker has told last.
fn shards(shared: &Shared) -> String {
    let now_ms = shared.started.elapsed().as_millis() as u64;
    let untold = Report::default();
    let lines = shared.published().into_iter().enumerate().map(|(shard, told)| {
        let turn_age_ms = now_ms.saturating_sub(shared.turn_began_ms(shard));
        let told = told.as_ref().map_or(&untold, |it| &it.report);
        let Report { shard: stats, traffic, turns, .. } = told;
        format!(
            "shard{shard}:keys={},memory={},reads={},writes={},requests={},busy_usec={},wal_size={},\
             turn_age_ms={turn_age_ms}\r\n",
            stats.keys,
            stats.memory_bytes,
            stats.reads,
            stats.writes,
            traffic.requests,
            turns.sum_ns / 1000,
            told.wal_size_bytes,
        )
    });
    lines.collect()
}

fn error_stats(report: &Report) -> String {
    let kinds = KINDS.iter().zip(report.errors.kinds).filter(|(_, count)| *count > 0);
    kinds.map(|(kind, count)| format!("errorstat_{kind}:count={count}\r\n")).collect()
}

/// A line for each database that has keys.
fn keyspace(report: &Report) -> String {
    let mut databases = report.databases.clone();
    databases.sort_unstable_by_key(|database| database.number);
    let lines = databases.iter().map(|DatabaseStats { number, keys, keys_with_deadline, time_left_ms }| {
        let average_ms = time_left_ms / u128::from((*keys_with_deadline).max(1));
        format!("db{number}:keys={keys},expires={keys_with_deadline},avg_ttl={average_ms}\r\n")
    });
    lines.collect()
}

fn persistence(shared: &Shared, clock: Option<&Clock>, report: &Report) -> Lines {
    let unix_s = |ms: u64| clock.map_or(0, |clock| clock.unix_ms(ms) / 1000);
    let flag = |is: bool| u8::from(is).to_string();
    let status = |fault: &Option<Arc<str>>| if fault.is_none() { "ok" } else { "err" }.to_owned();
    let loading = &shared.loading;
    let is_loading = !loading.is_over();
    let mut lines = vec![
        ("loading", flag(is_loading)),
        ("rdb_bgsave_in_progress", flag(report.compacting)),
        ("rdb_last_bgsave_status", status(&report.snapshot_fault)),
        ("rdb_last_save_time", report.saved_s.unwrap_or_default().to_string()),
        ("aof_enabled", "1".to_owned()),
        ("aof_rewrite_in_progress", flag(report.compacting)),
        ("aof_last_bgrewrite_status", status(&report.snapshot_fault)),
        ("aof_last_write_status", status(&report.wal_fault)),
        ("wal_error", report.wal_fault.as_deref().unwrap_or_default().to_owned()),
        ("snapshot_error", report.snapshot_fault.as_deref().unwrap_or_default().to_owned()),
        ("wal_size", report.wal_size_bytes.to_string()),
        ("wal_entries", report.wal_entries.to_string()),
        ("wal_needs_compaction", flag(report.needs_compaction)),
        ("wal_fill", format!("{:.4}", report.log_fill)),
    ];
    let backups = &shared.backups;
    let percent = backups.percent();
    lines.extend([
        ("backup_in_progress", flag(percent.is_some())),
        ("backup_last_status", if backups.last_failed() { "err" } else { "ok" }.to_owned()),
        ("backup_last_time", backups.last_ms().map_or(0, unix_s).to_string()),
    ]);
    lines.extend(percent.map(|percent| ("backup_percent", percent.to_string())));
    if is_loading {
        let extent = loading.extent();
        lines.extend([
            ("loading_start_time", clock.map_or(0, |clock| unix_s(clock.now_ms(0))).to_string()),
            ("loading_total_bytes", extent.total_bytes.to_string()),
            ("loading_loaded_bytes", extent.read_bytes.to_string()),
            ("loading_loaded_perc", format!("{}.00", loading.percent())),
            ("loading_eta_seconds", loading.seconds_left().to_string()),
        ]);
    }
    lines
}

fn fields<const N: usize>(fields: [(&'static str, u64); N]) -> Reply<'static> {
    Reply::Map(fields.into_iter().map(|(name, n)| (name.into(), Reply::Integer(n as i64))).collect())
}

/// A text without control characters, as a string of JSON.
fn json_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
