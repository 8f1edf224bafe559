//! What the server says of itself: `INFO`, `STATS`, `HEALTH`.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use shard::{DatabaseStats, Reply, Request};

use super::memory::Usage;
use super::{About, REDIS_VERSION};
use crate::clock::{Clock, wall_clock_us};
use crate::metrics::errors::KINDS;
use crate::metrics::{Report, Traffic};
use crate::process;
use crate::shared::{LeftOut, Shared};
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

/// How often a worker looks after what is due by the clock; see its turns.
const TICK_MS: u64 = 100;

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
    let mut report = report.clone();
    let left_out = shared.left_out();
    if let Some(left_out) = &left_out {
        report.subtract(&left_out.report);
    }
    let report = &report;
    let sections = [
        ("Server", DEFAULT, section(server(shared))),
        ("Clients", DEFAULT, section(clients(shared, report))),
        ("Memory", DEFAULT, section(memory(shared, report))),
        ("Persistence", DEFAULT, section(persistence(shared, clock, report))),
        ("Stats", DEFAULT, section(counters(shared, left_out.as_deref(), report))),
        ("Replication", DEFAULT, section(replication(shared))),
        ("CPU", DEFAULT, section(cpu())),
        ("Modules", DEFAULT, String::new()),
        ("Commandstats", !DEFAULT, command_stats(report)),
        ("Errorstats", DEFAULT, error_stats(report)),
        ("Latencystats", !DEFAULT, latency_stats(shared, report)),
        ("Shards", !DEFAULT, shards(shared)),
        ("Cluster", DEFAULT, section(vec![("cluster_enabled", "0".to_owned())])),
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
    let unix_us = wall_clock_us();
    let system = rustix::system::uname();
    let os = [system.sysname(), system.release(), system.machine()].map(|part| part.to_string_lossy());
    let executable = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    let file = config.file().map(|file| file.path.display().to_string()).unwrap_or_default();
    vec![
        ("redis_version", REDIS_VERSION.to_owned()),
        ("redis_git_sha1", "00000000".to_owned()),
        ("redis_git_dirty", "0".to_owned()),
        ("redis_build_id", "0".to_owned()),
        ("redis_mode", "standalone".to_owned()),
        ("kvlite_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("os", os.join(" ")),
        ("arch_bits", usize::BITS.to_string()),
        ("monotonic_clock", "POSIX clock_gettime".to_owned()),
        ("multiplexing_api", shared.io.to_string()),
        ("process_id", std::process::id().to_string()),
        ("process_supervised", "no".to_owned()),
        ("run_id", shared.run_id().to_owned()),
        ("tcp_port", shared.resp_port.unwrap_or(0).to_string()),
        ("server_time_usec", unix_us.to_string()),
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
        ("hz", (1000 / TICK_MS).to_string()),
        ("configured_hz", (1000 / TICK_MS).to_string()),
        ("lru_clock", ((unix_us / 1_000_000) & 0xff_ffff).to_string()),
        ("executable", executable),
        ("config_file", file),
        ("io_threads_active", "0".to_owned()),
    ]
}

fn clients(shared: &Shared, report: &Report) -> Lines {
    let [input_max, output_max] = report.traffic.buffered_max;
    vec![
        ("connected_clients", shared.connections.count().to_string()),
        ("cluster_connections", "0".to_owned()),
        ("maxclients", shared.settings.max_connections.load(Ordering::Relaxed).to_string()),
        ("client_recent_max_input_buffer", input_max.to_string()),
        ("client_recent_max_output_buffer", output_max.to_string()),
        ("blocked_clients", report.traffic.blocked.to_string()),
        ("tracking_clients", report.traffic.tracked[0].to_string()),
        ("clients_in_timeout_table", "0".to_owned()),
        ("paused_clients", report.traffic.paused.to_string()),
    ]
}

/// A number of bytes as people read it.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
    let exponent = (bytes.checked_ilog2().unwrap_or(0) as usize / 10).min(UNITS.len() - 1);
    match exponent {
        0 => format!("{bytes}B"),
        _ => format!("{:.2}{}", bytes as f64 / (1_u64 << (10 * exponent)) as f64, UNITS[exponent]),
    }
}

fn memory(shared: &Shared, report: &Report) -> Lines {
    let machine = shared.config.machine();
    let usage = Usage::of(shared, report);
    let mut lines = Vec::new();
    let mut bytes = |field: &'static str, human_field: &'static str, bytes: u64| {
        lines.extend([(field, bytes.to_string()), (human_field, human(bytes))]);
    };
    bytes("used_memory", "used_memory_human", usage.used);
    if let Some(resident) = usage.resident {
        bytes("used_memory_rss", "used_memory_rss_human", resident);
    }
    bytes("used_memory_peak", "used_memory_peak_human", usage.peak);
    bytes("total_system_memory", "total_system_memory_human", machine.memory_bytes);
    bytes("maxmemory", "maxmemory_human", 0);
    let resident = usage.resident.unwrap_or(0);
    let more = resident as i64 - usage.used as i64;
    lines.extend([
        ("used_memory_peak_perc", format!("{:.2}%", usage.peak_percent())),
        ("used_memory_overhead", (usage.used - usage.dataset).to_string()),
        ("used_memory_startup", "0".to_owned()),
        ("used_memory_dataset", usage.dataset.to_string()),
        ("used_memory_dataset_perc", format!("{:.2}%", usage.percent(usage.dataset))),
        ("allocator_allocated", usage.used.to_string()),
        ("allocator_active", resident.to_string()),
        ("allocator_resident", resident.to_string()),
        ("cgroup_memory_limit", machine.memory_limit_bytes.unwrap_or(0).to_string()), // As maxmemory: 0 is none.
        ("maxmemory_policy", "noeviction".to_owned()),
        ("allocator_frag_ratio", format!("{:.2}", usage.resident_share())),
        ("allocator_frag_bytes", more.to_string()),
        ("allocator_rss_ratio", "1.00".to_owned()),
        ("allocator_rss_bytes", "0".to_owned()),
        ("rss_overhead_ratio", "1.00".to_owned()),
        ("rss_overhead_bytes", "0".to_owned()),
        ("mem_fragmentation_ratio", format!("{:.2}", usage.resident_share())),
        ("mem_fragmentation_bytes", more.to_string()),
        ("mem_clients_normal", report.traffic.buffered_bytes.to_string()),
        ("mem_allocator", "jemalloc-5.3.1".to_owned()),
    ]);
    let scripts = &report.scripts;
    let of_scripts = [
        ("used_memory_lua", scripts.lua_bytes),
        ("used_memory_scripts", scripts.scripts_bytes + scripts.libraries_bytes),
        ("used_memory_scripts_eval", scripts.scripts_bytes),
        ("used_memory_functions", scripts.libraries_bytes),
        ("number_of_cached_scripts", scripts.scripts),
        ("number_of_functions", scripts.functions),
        ("number_of_libraries", scripts.libraries),
    ];
    lines.extend(of_scripts.map(|(name, number)| (name, number.to_string())));
    lines.extend(zeros(&[
        "mem_not_counted_for_evict",
        "mem_replication_backlog",
        "mem_total_replication_buffers",
        "mem_clients_slaves",
        "mem_cluster_links",
        "mem_aof_buffer",
        "active_defrag_running",
        "lazyfree_pending_objects",
        "lazyfreed_objects",
    ]));
    lines
}

/// Fields of things that there are none of.
fn zeros(fields: &[&'static str]) -> Lines {
    fields.iter().map(|field| (*field, "0".to_owned())).collect()
}

fn counters(shared: &Shared, left_out: Option<&LeftOut>, report: &Report) -> Lines {
    let Traffic { requests, requests_per_second, received_bytes, sent_bytes, .. } = &report.traffic;
    let [received, sent] =
        report.traffic.bytes_per_second.map(|bytes| format!("{:.2}", bytes as f64 / 1024.0));
    let accepted = shared.clients_accepted.count() - left_out.map_or(0, |it| it.clients_accepted);
    let refused = shared.connections_refused.count() - left_out.map_or(0, |it| it.connections_refused);
    let [channels, patterns, shard_channels, prefixes] =
        report.traffic.subscribed.map(|count| count.to_string());
    let [_, tracked_keys, copies] = report.traffic.tracked.map(|count| count.to_string());
    let mut lines = vec![
        ("pubsub_channels", channels),
        ("pubsub_patterns", patterns),
        ("pubsubshard_channels", shard_channels),
        ("tracking_total_keys", tracked_keys),
        ("tracking_total_items", copies),
        ("tracking_total_prefixes", prefixes),
        ("total_connections_received", accepted.to_string()),
        ("total_commands_processed", requests.to_string()),
        ("instantaneous_ops_per_sec", requests_per_second.to_string()),
        ("total_net_input_bytes", received_bytes.to_string()),
        ("total_net_output_bytes", sent_bytes.to_string()),
        ("instantaneous_input_kbps", received),
        ("instantaneous_output_kbps", sent),
        ("rejected_connections", refused.to_string()),
        ("expired_keys", report.shard.ttl_expired.to_string()),
        ("expired_stale_perc", "0.00".to_owned()),
        ("evicted_keys", "0".to_owned()),
        ("keyspace_hits", report.shard.hits.to_string()),
        ("keyspace_misses", report.shard.misses.to_string()),
        ("total_error_replies", report.errors.kinds.iter().sum::<u64>().to_string()),
        ("total_reads_processed", report.traffic.receives.to_string()),
        ("total_writes_processed", report.traffic.sends.to_string()),
        ("instantaneous_input_repl_kbps", "0.00".to_owned()),
        ("instantaneous_output_repl_kbps", "0.00".to_owned()),
    ];
    lines.extend(zeros(&[
        "total_net_repl_input_bytes",
        "total_net_repl_output_bytes",
        "sync_full",
        "sync_partial_ok",
        "sync_partial_err",
        "expired_time_cap_reached_count",
        "expire_cycle_cpu_milliseconds",
        "evicted_clients",
        "total_eviction_exceeded_time",
        "current_eviction_exceeded_time",
        "latest_fork_usec",
        "total_forks",
        "migrate_cached_sockets",
        "slave_expires_tracked_keys",
        "active_defrag_hits",
        "active_defrag_misses",
        "active_defrag_key_hits",
        "active_defrag_key_misses",
        "total_active_defrag_time",
        "current_active_defrag_time",
        "unexpected_error_replies",
        "dump_payload_sanitizations",
        "io_threaded_reads_processed",
        "io_threaded_writes_processed",
        "reply_buffer_shrinks",
        "reply_buffer_expands",
    ]));
    lines
}

fn replication(shared: &Shared) -> Lines {
    let none = "0".repeat(shared.replication_id().len());
    let mut lines = vec![
        ("role", "master".to_owned()),
        ("connected_slaves", "0".to_owned()),
        ("master_failover_state", "no-failover".to_owned()),
        ("master_replid", shared.replication_id().to_owned()),
        ("master_replid2", none),
        ("master_repl_offset", "0".to_owned()),
        ("second_repl_offset", "-1".to_owned()),
    ];
    lines.extend(zeros(&[
        "repl_backlog_active",
        "repl_backlog_size",
        "repl_backlog_first_byte_offset",
        "repl_backlog_histlen",
    ]));
    lines
}

fn cpu() -> Lines {
    let Some(usage) = process::usage() else { return vec![] };
    let main = process::usage_of_main_thread().unwrap_or_default();
    let seconds = |seconds: f64| format!("{seconds:.6}");
    vec![
        ("used_cpu_sys", seconds(usage.system_s)),
        ("used_cpu_user", seconds(usage.user_s)),
        ("used_cpu_sys_children", seconds(0.0)),
        ("used_cpu_user_children", seconds(0.0)),
        ("used_cpu_sys_main_thread", seconds(main.system_s)),
        ("used_cpu_user_main_thread", seconds(main.user_s)),
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

/// Of each command that was called, in microseconds, within how long the parts of its calls ended that were asked for.
fn latency_stats(shared: &Shared, report: &Report) -> String {
    let percentiles = shared.settings.latency_percentiles();
    let called = report.traffic.calls.called().filter(|(_, _, took)| took.count() > 0);
    let lines = called.map(|(command, _, took)| {
        let parts = percentiles
            .iter()
            .map(|percentile| format!("p{percentile}={:.3}", took.quantile_ns(percentile / 100.0) / 1000.0));
        let parts: Vec<String> = parts.collect();
        format!("latency_percentiles_usec_{}:{}\r\n", command.full_name(), parts.join(","))
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
    let last_snapshot_s = report.snapshots.last_ms.map_or("-1".to_owned(), |ms| (ms / 1000).to_string());
    let under_way_s = if report.compacting { "0" } else { "-1" }.to_owned();
    let mut lines = vec![
        ("loading", flag(is_loading)),
        ("async_loading", "0".to_owned()),
        ("rdb_changes_since_last_save", report.wal_entries.to_string()),
        ("rdb_bgsave_in_progress", flag(report.compacting)),
        ("rdb_last_bgsave_status", status(&report.snapshot_fault)),
        ("rdb_last_save_time", report.saved_s.unwrap_or_default().to_string()),
        ("rdb_last_bgsave_time_sec", last_snapshot_s.clone()),
        ("rdb_current_bgsave_time_sec", under_way_s.clone()),
        ("rdb_saves", report.snapshots.written.to_string()),
        ("rdb_last_load_keys_loaded", loading.extent().keys.to_string()),
        ("aof_enabled", "1".to_owned()),
        ("aof_rewrite_in_progress", flag(report.compacting)),
        ("aof_last_bgrewrite_status", status(&report.snapshot_fault)),
        ("aof_last_write_status", status(&report.wal_fault)),
        ("aof_last_rewrite_time_sec", last_snapshot_s),
        ("aof_current_rewrite_time_sec", under_way_s),
        ("aof_rewrites", report.snapshots.written.to_string()),
        ("aof_current_size", report.wal_size_bytes.to_string()),
        ("aof_base_size", report.wal_size_bytes.saturating_sub(report.log_size_bytes).to_string()),
        ("wal_error", report.wal_fault.as_deref().unwrap_or_default().to_owned()),
        ("snapshot_error", report.snapshot_fault.as_deref().unwrap_or_default().to_owned()),
        ("wal_size", report.wal_size_bytes.to_string()),
        ("wal_entries", report.wal_entries.to_string()),
        ("wal_needs_compaction", flag(report.needs_compaction)),
        ("wal_fill", format!("{:.4}", report.log_fill)),
    ];
    lines.extend([("current_fork_perc", "0.00".to_owned())]);
    lines.extend(zeros(&[
        "current_cow_peak",
        "current_cow_size",
        "current_cow_size_age",
        "current_save_keys_processed",
        "current_save_keys_total",
        "rdb_last_cow_size",
        "rdb_last_load_keys_expired",
        "aof_rewrite_scheduled",
        "aof_rewrites_consecutive_failures",
        "aof_last_cow_size",
        "aof_pending_rewrite",
        "aof_buffer_length",
        "aof_pending_bio_fsync",
        "aof_delayed_fsync",
        "module_fork_in_progress",
        "module_fork_last_cow_size",
    ]));
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
