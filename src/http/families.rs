//! Which metrics there are, and where their values come from. `docs/metrics.md` has the same list for those who read
//! them; a test compares the two.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shard::analytics::anomalies::{Measure, Scope};

use super::exposition::{Format, Kind, Page};
use super::status::{self, Status};
use crate::clock::Clock;
use crate::metrics::Report;
use crate::metrics::errors::KINDS;
use crate::shared::{Published, Shared};
use crate::{logging, process};

use Kind::{Counter, Gauge, Histogram};

/// A page with all metrics of a server that started at this Unix time.
pub(super) fn page(shared: &Shared, started_s: f64, format: Format) -> String {
    let mut page = Page::new(format);
    let published = shared.published();
    let mut sum = Report::default();
    published.iter().flatten().for_each(|published| sum.add(&published.report));
    server(&mut page, shared, &mut sum);
    shards(&mut page, shared, &published);
    commands(&mut page, &sum);
    backups(&mut page, shared);
    clients(&mut page, shared);
    anomalies(&mut page, &sum);
    page.begin("kvlite_log_lines_dropped_total", Counter, "Lines of the server's own log that nothing took.")
        .sample(&[], logging::dropped_lines());
    the_process(&mut page, started_s);
    page.end()
}

fn server(page: &mut Page, shared: &Shared, sum: &mut Report) {
    // What a build or a start has chosen once and for all is told here, as labels of this one metric.
    page.begin("kvlite_build_info", Gauge, "The build that runs; always 1.")
        .sample(&[("version", &env!("CARGO_PKG_VERSION")), ("io_backend", &shared.io)], 1);
    let status = status::judge(shared, sum);
    let is_loading = !shared.loading.is_over();
    let mut gauge = |name, help, value: f64| page.begin(name, Gauge, help).sample(&[], value);
    gauge("kvlite_uptime_seconds", "Time since the start.", shared.started.elapsed().as_secs_f64());
    gauge(
        "kvlite_ready",
        "Whether everything is served: not while loading or stopping, nor while a disk fails or hangs.",
        flag(status.is_ready()),
    );
    gauge("kvlite_healthy", "Whether nothing is wrong.", flag(status == Status::Healthy));
    gauge("kvlite_loading", "Whether the data is being read back.", flag(is_loading));
    let loaded = if is_loading { f64::from(shared.loading.percent()) / 100.0 } else { 1.0 };
    gauge("kvlite_loading_ratio", "How much of the data is read back.", loaded);
    if let Some(took) = shared.ready_after() {
        gauge("kvlite_recovery_duration_seconds", "How long the start took.", took.as_secs_f64());
    }
    let extent = shared.loading.extent();
    gauge("kvlite_recovery_bytes", "Bytes of files that the start has read.", extent.read_bytes as f64);
    gauge("kvlite_recovery_keys", "Keys that the start has found.", extent.keys as f64);
}

/// A value of a shard by what its worker has published.
type OfShard = fn(&Report) -> f64;

/// The metrics that are one number of each shard.
const OF_SHARDS: &[(&str, Kind, &str, OfShard)] = &[
    ("kvlite_keys", Gauge, "Keys, with those that have expired and are not removed yet.", |it| {
        it.shard.keys as f64
    }),
    ("kvlite_keys_with_ttl", Gauge, "Keys with a TTL.", |it| it.shard.keys_with_deadline as f64),
    ("kvlite_memory_bytes", Gauge, "Memory of keys and values.", |it| it.shard.memory_bytes as f64),
    ("kvlite_requests_total", Counter, "Requests taken from clients.", |it| it.traffic.requests as f64),
    ("kvlite_forwarded_requests_total", Counter, "Requests sent to the shard of their key.", |it| {
        it.traffic.forwarded as f64
    }),
    ("kvlite_reads_total", Counter, "Executions that read.", |it| it.shard.reads as f64),
    ("kvlite_writes_total", Counter, "Executions that may write.", |it| it.shard.writes as f64),
    ("kvlite_hits_total", Counter, "Keys that reads have found.", |it| it.shard.hits as f64),
    ("kvlite_misses_total", Counter, "Keys that reads have not found.", |it| it.shard.misses as f64),
    ("kvlite_expired_keys_total", Counter, "Keys removed because their TTL was over.", |it| {
        it.shard.ttl_expired as f64
    }),
    (
        "kvlite_expiry_checks_total",
        Counter,
        "Deadlines that the search for expired keys has looked at.",
        |it| it.shard.ttl_checks as f64,
    ),
    ("kvlite_received_bytes_total", Counter, "Bytes from clients.", |it| it.traffic.received_bytes as f64),
    ("kvlite_sent_bytes_total", Counter, "Bytes to clients.", |it| it.traffic.sent_bytes as f64),
    (
        "kvlite_clients_paused",
        Gauge,
        "Clients that are not read from, mostly because they do not read.",
        |it| it.traffic.paused as f64,
    ),
    ("kvlite_batches_total", Counter, "Batches of requests and answers sent to other shards.", |it| {
        it.batches as f64
    }),
    ("kvlite_log_bytes", Gauge, "Bytes that a restart would read.", |it| it.wal_size_bytes as f64),
    ("kvlite_log_entries", Gauge, "Changes in the log behind the snapshot.", |it| it.wal_entries as f64),
    (
        "kvlite_log_fill_ratio",
        Gauge,
        "Length of the log in terms of the limit that it is closest to.",
        |it| it.log_fill,
    ),
    ("kvlite_log_fault", Gauge, "Whether writes are refused.", |it| flag(it.wal_fault.is_some())),
    ("kvlite_sync_failures_total", Counter, "Syncs of the log that failed.", |it| it.sync_failures as f64),
    ("kvlite_snapshot_running", Gauge, "Whether a snapshot is asked for or being written.", |it| {
        flag(it.compacting)
    }),
    ("kvlite_snapshots_total", Counter, "Snapshots written.", |it| it.snapshots.written as f64),
    ("kvlite_snapshot_failures_total", Counter, "Snapshots given up.", |it| it.snapshots.failed as f64),
    ("kvlite_snapshot_fault", Gauge, "Whether the last snapshot failed.", |it| {
        flag(it.snapshot_fault.is_some())
    }),
    (
        "kvlite_snapshot_last_success_timestamp_seconds",
        Gauge,
        "Time of the last snapshot, or of the start.",
        |it| it.saved_s.unwrap_or_default() as f64,
    ),
    ("kvlite_analytics_tracked_series", Gauge, "Series that are followed for anomalies.", |it| {
        it.watched.series as f64
    }),
];

fn shards(page: &mut Page, shared: &Shared, published: &[Option<Arc<Published>>]) {
    let told = || (0..).zip(published).filter_map(|(shard, it)| Some((shard, &**it.as_ref()?)));
    let now_ms = shared.started.elapsed().as_millis() as u64;
    let mut ages = page.begin("kvlite_shard_report_age_seconds", Gauge, "Age of what is told of the shard.");
    for (shard, it) in (0..).zip(published) {
        let at_ms = it.as_ref().map_or(0, |it| it.at_ms);
        ages.sample(&[("shard", &shard)], now_ms.saturating_sub(at_ms) as f64 / 1000.0);
    }
    let mut ages =
        page.begin("kvlite_shard_turn_age_seconds", Gauge, "Time since the last turn of the thread began.");
    for shard in 0..published.len() {
        ages.sample(&[("shard", &shard)], now_ms.saturating_sub(shared.turn_began_ms(shard)) as f64 / 1000.0);
    }
    for (name, kind, help, value) in OF_SHARDS {
        let mut family = page.begin(name, *kind, help);
        for (shard, it) in told() {
            family.sample(&[("shard", &shard as &dyn std::fmt::Display)], value(&it.report));
        }
    }
    let mut frames =
        page.begin("kvlite_log_written_frame", Gauge, "Number of the last frame that the system has.");
    for (shard, _) in told() {
        frames.sample(&[("shard", &shard)], shared.log_progress(shard).0);
    }
    let mut frames =
        page.begin("kvlite_log_durable_frame", Gauge, "Number of the last frame that is on disk.");
    for (shard, _) in told() {
        frames.sample(&[("shard", &shard)], shared.log_progress(shard).1);
    }
    let mut turns =
        page.begin("kvlite_turn_duration_seconds", Histogram, "Turns that found something to do.");
    for (shard, it) in told() {
        turns.histogram(&[("shard", &shard)], &it.report.turns);
    }
    let mut syncs = page.begin("kvlite_sync_duration_seconds", Histogram, "Syncs of the log.");
    for (shard, it) in told() {
        syncs.histogram(&[("shard", &shard)], &it.report.syncs);
    }
    let name = "kvlite_snapshot_last_duration_seconds";
    let mut durations = page.begin(name, Gauge, "How long the last snapshot took.");
    for (shard, it) in told() {
        if let Some(ms) = it.report.snapshots.last_ms {
            durations.sample(&[("shard", &shard)], ms as f64 / 1000.0);
        }
    }
}

fn commands(page: &mut Page, sum: &Report) {
    let called: Vec<_> = sum.traffic.calls.called().map(|it| (it.0.full_name(), it)).collect();
    // No difference to those refused: another worker tells of them, not at the same moment, and it would go back.
    let help = "Requests of each command, refused ones included.";
    let mut family = page.begin("kvlite_commands_total", Counter, help);
    for (name, (_, taken, _)) in &called {
        family.sample(&[("command", name)], taken);
    }
    let name = "kvlite_commands_rejected_total";
    let mut family = page.begin(name, Counter, "Requests that were refused before they ran.");
    for (name, (command, ..)) in &called {
        family.sample(&[("command", name)], sum.errors.of(command).0);
    }
    let name = "kvlite_commands_failed_total";
    let mut family = page.begin(name, Counter, "Requests that ran and were answered with an error.");
    for (name, (command, ..)) in &called {
        family.sample(&[("command", name)], sum.errors.of(command).1);
    }
    let help = "Time from when a request is taken to when its reply is complete, by a sample.";
    let mut family = page.begin("kvlite_command_duration_seconds", Histogram, help);
    for (name, (_, _, took)) in &called {
        family.histogram(&[("command", name)], took);
    }
    let mut family =
        page.begin("kvlite_errors_total", Counter, "Errors that clients were answered, by first word.");
    for (kind, count) in KINDS.iter().zip(sum.errors.kinds) {
        family.sample(&[("kind", kind)], count);
    }
}

fn backups(page: &mut Page, shared: &Shared) {
    let backups = &shared.backups;
    let percent = backups.percent();
    let mut gauge = |name, help, value: f64| page.begin(name, Gauge, help).sample(&[], value);
    gauge("kvlite_backup_running", "Whether a backup is made.", flag(percent.is_some()));
    gauge("kvlite_backup_ratio", "How much of the backup is copied.", percent.unwrap_or(0) as f64 / 100.0);
    gauge("kvlite_backup_fault", "Whether the last backup failed.", flag(backups.last_failed()));
    let clock: Option<Clock> = shared.clock.resumed();
    if let Some((ms, clock)) = backups.last_ms().zip(clock) {
        let name = "kvlite_backup_last_success_timestamp_seconds";
        gauge(name, "Time of the last complete backup.", clock.unix_ms(ms) as f64 / 1000.0);
    }
}

fn clients(page: &mut Page, shared: &Shared) {
    page.begin("kvlite_clients_connected", Gauge, "Clients.").sample(&[], shared.connections.count());
    page.begin("kvlite_clients_limit", Gauge, "Clients that there may be.")
        .sample(&[], shared.settings.max_connections.load(Ordering::Relaxed) as u32);
    page.begin("kvlite_clients_accepted_total", Counter, "Connections accepted, refused ones included.")
        .sample(&[], shared.clients_accepted.count());
    page.begin("kvlite_clients_refused_total", Counter, "Connections that were one too many.")
        .sample(&[], shared.connections_refused.count());
}

fn anomalies(page: &mut Page, sum: &Report) {
    let mut family = page.begin("kvlite_analytics_anomalies", Gauge, "Series that are not as usual now.");
    for (scope, counts) in Scope::ALL.into_iter().zip(sum.watched.anomalies) {
        for (measure, count) in Measure::ALL.into_iter().zip(counts) {
            family.sample(&[("scope", &scope.name()), ("measure", &measure.name())], count);
        }
    }
}

/// The names that all programs with metrics give these.
fn the_process(page: &mut Page, started_s: f64) {
    let mut gauge = |name, help, value: f64| page.begin(name, Gauge, help).sample(&[], value);
    gauge("process_start_time_seconds", "Time of the start.", started_s);
    if let Some(usage) = process::usage() {
        gauge("process_resident_memory_bytes", "Resident memory.", usage.resident_bytes as f64);
        gauge("process_virtual_memory_bytes", "Address space.", usage.virtual_bytes as f64);
        gauge("process_threads", "Threads.", usage.threads as f64);
        page.begin("process_cpu_seconds_total", Counter, "CPU time.")
            .sample(&[], usage.user_s + usage.system_s);
    }
    let mut gauge = |name, help, value: f64| page.begin(name, Gauge, help).sample(&[], value);
    if let Some(count) = process::open_files() {
        gauge("process_open_fds", "Open files.", count as f64);
    }
    if let Some(limit) = process::open_files_max() {
        gauge("process_max_fds", "Limit of open files.", limit as f64);
    }
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}
