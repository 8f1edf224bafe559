//! The counters of one worker, and their sum over all.

use shard::Stats;

/// What one worker has counted since it started, and how much it holds now.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Keys in the keyspace, expired ones that are not removed yet included.
    pub keys: u64,
    /// Keys with a time to live.
    pub keys_with_ttl: u64,
    /// Bytes that the keyspace occupies.
    pub memory_bytes: u64,
    /// Bytes of log that a restart would replay.
    pub wal_size_bytes: u64,
    /// Changes in that log.
    pub wal_entries: u64,
    /// Whether the log is long enough to be compacted, or is being compacted.
    pub needs_compaction: bool,
    /// Commands run.
    pub commands: u64,
    /// Times that the active expiry looked for due keys.
    pub ttl_checks: u64,
    /// What the shard counted.
    pub shard: Stats,
}

impl Report {
    /// Adds another worker's report.
    pub fn add(&mut self, other: &Report) {
        let Report {
            keys,
            keys_with_ttl,
            memory_bytes,
            wal_size_bytes,
            wal_entries,
            needs_compaction,
            commands,
            ttl_checks,
            shard,
        } = other;
        self.keys += keys;
        self.keys_with_ttl += keys_with_ttl;
        self.memory_bytes += memory_bytes;
        self.wal_size_bytes += wal_size_bytes;
        self.wal_entries += wal_entries;
        self.needs_compaction |= needs_compaction;
        self.commands += commands;
        self.ttl_checks += ttl_checks;
        self.shard.add(shard);
    }
}
