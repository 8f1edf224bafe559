//! How the server is, without asking a worker: from what workers have published and when they took their last turns.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::info::health_json;
use crate::metrics::Report;
use crate::shared::Shared;

/// A thread that has been in one turn for so long and does not wait in the system is taken to compute for ever.
const STUCK: Duration = Duration::from_secs(60);

/// How the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Healthy,
    Loading,
    /// It serves, but not all.
    Degraded,
    Stopping,
    /// A worker computes without an end.
    Stuck,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::Healthy => "healthy",
            Status::Loading => "loading",
            Status::Degraded => "degraded",
            Status::Stopping => "stopping",
            Status::Stuck => "stuck",
        }
    }

    /// Whether a restart would not help: neither with data that has to be read, nor with a disk that fails.
    pub fn is_alive(self) -> bool {
        self != Status::Stuck
    }

    /// Whether clients are to be sent here.
    pub fn is_ready(self) -> bool {
        self == Status::Healthy
    }

    /// Whether there is nothing to look after.
    pub fn is_well(self) -> bool {
        matches!(self, Status::Healthy | Status::Loading)
    }
}

/// The sum of what all workers have published.
pub(super) fn sum(shared: &Shared) -> Report {
    let mut sum = Report::default();
    shared.published().iter().flatten().for_each(|published| sum.add(&published.report));
    sum
}

/// How long a worker has been in its turn, or idle since its last one: an idle one begins a turn with each tick.
pub(super) fn turn_age(shared: &Shared, worker: usize) -> Duration {
    shared.started.elapsed().saturating_sub(Duration::from_millis(shared.turn_began_ms(worker)))
}

/// How the server is, and the same as JSON.
pub(super) fn tell(shared: &Shared) -> (Status, String) {
    let mut report = sum(shared);
    let status = judge(shared, &mut report);
    (status, health_json(shared, status.name(), &report))
}

/// How the server is, given what its workers report; a worker that stands still adds its fault to that.
pub(super) fn judge(shared: &Shared, report: &mut Report) -> Status {
    if shared.stopping() {
        return Status::Stopping;
    }
    for worker in 0..shared.config.shard_count() {
        let age = turn_age(shared, worker);
        if age <= shared.config.disk_timeout.min(STUCK) {
            continue;
        }
        let waits = shared.waits_in_system_call(worker);
        if age > shared.config.disk_timeout {
            let cause = if waits { "its disk hangs" } else { "its thread does not get on" };
            report.wal_fault.get_or_insert_with(|| Arc::from(format!("shard {worker}: {cause}")));
        }
        if age > STUCK && !waits {
            return Status::Stuck;
        }
    }
    match (&report.wal_fault, &report.snapshot_fault) {
        _ if !shared.loading.is_over() => Status::Loading,
        (None, None) => Status::Healthy,
        _ => Status::Degraded,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::Config;
    use crate::net::Backend;
    use crate::recovery;

    /// A server of one shard, which has loaded and started so long ago.
    fn shared(ago: Duration) -> (Shared, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let config =
            Config::parse_from_args(["kvlite", "--wal-path", path, "--shards", "1"], vec![0]).unwrap();
        let found = recovery::lock(&config).unwrap();
        let shared = Shared::new(config, Backend::of_test(), None, Instant::now() - ago, found.loading());
        (shared, directory)
    }

    #[test]
    fn a_server_that_loads_is_alive_and_not_ready() {
        let (shared, _directory) = shared(Duration::ZERO);
        let (status, json) = tell(&shared);
        assert_eq!(status, Status::Loading);
        assert!(
            json.starts_with("{\"status\":\"loading\"") && json.contains("\"loading_percent\":0"),
            "{json}"
        );
        assert!(status.is_alive() && status.is_well() && !status.is_ready());
        shared.shard_loaded(0, 0);
        assert_eq!(tell(&shared).0, Status::Healthy);
        assert!(Status::Healthy.is_alive() && Status::Healthy.is_well() && Status::Healthy.is_ready());
        shared.stop();
        let (status, json) = tell(&shared);
        assert_eq!(status, Status::Stopping);
        assert!(json.contains("\"status\":\"stopping\""), "{json}");
        assert!(status.is_alive() && !status.is_well() && !status.is_ready());
    }

    #[test]
    fn a_fault_that_a_worker_tells_makes_it_degraded() {
        let (shared, _directory) = shared(Duration::ZERO);
        shared.shard_loaded(0, 0);
        shared
            .publish(0, Report { wal_fault: Some("shard 0: the disk is full".into()), ..Report::default() });
        let (status, json) = tell(&shared);
        assert_eq!(status, Status::Degraded);
        assert!(json.contains("\"wal_error\":\"shard 0: the disk is full\""), "{json}");
        assert!(status.is_alive() && !status.is_well() && !status.is_ready());
    }

    #[test]
    fn a_worker_that_waits_for_its_disk_is_no_reason_for_a_restart_and_one_that_computes_for_ever_is() {
        let (shared, _directory) = shared(STUCK + Duration::from_secs(1));
        shared.shard_loaded(0, 0);
        // No thread is known, which counts as waiting.
        let (status, json) = tell(&shared);
        assert_eq!(status, Status::Degraded);
        assert!(json.contains("\"wal_error\":\"shard 0: its disk hangs\""), "{json}");
        shared.note_thread(0); // This one, which computes.
        let (status, json) = tell(&shared);
        assert_eq!(status, Status::Stuck);
        assert!(json.contains("its thread does not get on") && !status.is_alive(), "{json}");
        shared.beat(0, shared.started.elapsed().as_millis() as u64);
        assert_eq!(tell(&shared).0, Status::Healthy);
    }
}
