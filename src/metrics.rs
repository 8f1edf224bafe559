//! The counters of one worker, and their sum over all.

use std::sync::Arc;

use shard::Stats;
use shard::analytics::load::Outlook;

/// What one worker has counted since it started, and how much it holds now.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Bytes that a restart would read: the snapshot, and the log behind it.
    pub wal_size_bytes: u64,
    /// Changes in the log behind the snapshot.
    pub wal_entries: u64,
    /// Whether the log is long enough to be compacted, or is being compacted.
    pub needs_compaction: bool,
    /// The length of the log in terms of the limit that it is closest to; of several shards, the longest.
    pub log_fill: f64,
    /// What the load was and will be; none without analytics.
    pub outlook: Option<Box<Outlook>>,
    /// Why the shard refuses writes, if it does; of several shards, one that does.
    pub wal_fault: Option<Arc<str>>,
    /// Why the shard's last snapshot was not written, if it was not; of several shards, one whose was not.
    pub snapshot_fault: Option<Arc<str>>,
    /// Whether a snapshot was asked for or is being written.
    pub compacting: bool,
    /// The Unix time of the last snapshot, or of the start if there was none since, in seconds; in a sum the
    /// earliest.
    pub saved_s: Option<u64>,
    /// Commands run.
    pub commands: u64,
    /// What the shard counted and holds.
    pub shard: Stats,
}

impl Report {
    /// Adds another worker's report.
    pub fn add(&mut self, other: &Report) {
        self.wal_size_bytes += other.wal_size_bytes;
        self.wal_entries += other.wal_entries;
        self.needs_compaction |= other.needs_compaction;
        self.log_fill = self.log_fill.max(other.log_fill);
        match (&mut self.outlook, &other.outlook) {
            (Some(outlook), Some(other)) => **outlook += **other,
            (None, Some(other)) => self.outlook = Some(other.clone()),
            (_, None) => {}
        }
        if self.wal_fault.is_none() {
            self.wal_fault.clone_from(&other.wal_fault);
        }
        if self.snapshot_fault.is_none() {
            self.snapshot_fault.clone_from(&other.snapshot_fault);
        }
        self.compacting |= other.compacting;
        self.saved_s = [self.saved_s, other.saved_s].into_iter().flatten().min();
        self.commands += other.commands;
        self.shard += other.shard;
    }
}
