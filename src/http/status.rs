//! How the server is, without asking a worker: from what workers have published, and from what is
//! found wrong with their threads.

use std::sync::Arc;

use crate::admin::info::health_json;
use crate::metrics::Report;
use crate::shared::Shared;

/// How the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Healthy,
    Loading,
    /// It serves everything, but snapshots fail, and the log grows.
    Unsaved,
    /// It does not serve everything.
    Degraded,
    Stopping,
    /// A worker does not come to the end of its turn.
    Stuck,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::Healthy => "healthy",
            Status::Loading => "loading",
            Status::Unsaved | Status::Degraded => "degraded",
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
        matches!(self, Status::Healthy | Status::Unsaved)
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

/// How the server is, and the same as JSON.
pub(super) fn tell(shared: &Shared) -> (Status, String) {
    let mut report = sum(shared);
    let status = judge(shared, &mut report);
    (status, health_json(shared, status.name(), &report))
}

/// How the server is, given what its workers report; one that hangs in its disk adds its fault to that.
pub(super) fn judge(shared: &Shared, report: &mut Report) -> Status {
    let verdict = shared.verdict();
    if let Some(shard) = verdict.hung {
        report.wal_fault.get_or_insert_with(|| Arc::from(format!("shard {shard}: its disk hangs")));
    }
    if let Some(stuck) = verdict.stuck {
        report.wal_fault.get_or_insert_with(|| Arc::from(stuck.to_string()));
    }
    match (&report.wal_fault, &report.snapshot_fault) {
        _ if shared.stopping() => Status::Stopping,
        _ if verdict.stuck.is_some() => Status::Stuck,
        _ if !shared.loading.is_over() => Status::Loading,
        (Some(_), _) => Status::Degraded,
        (None, Some(_)) => Status::Unsaved,
        (None, None) => Status::Healthy,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::Config;
    use crate::net::Backend;
    use crate::recovery;
    use crate::shared::verdict::{Stuck, Verdict};

    /// A server of one shard that loads.
    fn shared() -> (Shared, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let config =
            Config::parse_from_args(["kvlite", "--wal-path", path, "--shards", "1"], vec![0]).unwrap();
        let found = recovery::lock(&config).unwrap();
        let shared = Shared::new(config, Backend::of_test(), None, Instant::now(), found.loading());
        (shared, directory)
    }

    #[test]
    fn a_server_that_loads_is_alive_and_not_ready() {
        let (shared, _directory) = shared();
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
        let (shared, _directory) = shared();
        shared.shard_loaded(0, 0);
        shared
            .publish(0, Report { wal_fault: Some("shard 0: the disk is full".into()), ..Report::default() });
        let (status, json) = tell(&shared);
        assert_eq!(status, Status::Degraded);
        assert!(json.contains("\"wal_error\":\"shard 0: the disk is full\""), "{json}");
        assert!(status.is_alive() && !status.is_well() && !status.is_ready());
    }

    #[test]
    fn a_server_that_serves_everything_is_ready_though_its_log_grows() {
        let (shared, _directory) = shared();
        shared.shard_loaded(0, 0);
        let snapshot_fault = Some("shard 0: no room for a snapshot".into());
        shared.publish(0, Report { snapshot_fault, ..Report::default() });
        let (status, json) = tell(&shared);
        assert!(json.starts_with("{\"status\":\"degraded\"") && json.contains("no room"), "{json}");
        assert!(status.is_alive() && status.is_ready() && !status.is_well());
    }

    #[test]
    fn a_worker_that_waits_for_its_disk_is_no_reason_for_a_restart_and_one_that_is_stuck_is() {
        let (shared, _directory) = shared();
        shared.shard_loaded(0, 0);
        shared.note_verdict(Verdict { stuck: None, hung: Some(0) });
        let (status, json) = tell(&shared);
        assert_eq!(status, Status::Degraded);
        assert!(json.contains("\"wal_error\":\"shard 0: its disk hangs\""), "{json}");
        let stuck = Stuck { shard: 0, computes: true, since: Duration::from_secs(61) };
        shared.note_verdict(Verdict { stuck: Some(stuck), hung: None });
        let (status, json) = tell(&shared);
        assert_eq!(status, Status::Stuck);
        assert!(json.contains("shard 0 has computed for 61s in one turn") && !status.is_alive(), "{json}");
        shared.note_verdict(Verdict::default());
        assert_eq!(tell(&shared).0, Status::Healthy);
    }
}
