//! The counters of one worker, and their sum over all.
//!
//! A worker counts in plain numbers of its own, and tells them in a [`Report`]: to clients that ask, and once a second to
//! those that watch the server.

pub mod calls;
pub mod errors;
pub mod histogram;
pub mod scripts;
pub mod slowlog;

use std::sync::Arc;

use shard::analytics::anomalies::Watched;
use shard::analytics::load::Outlook;
use shard::{DatabaseStats, Stats};

use calls::Calls;
use errors::Errors;
use histogram::Histogram;
use scripts::Usage;

/// What a worker counts of its clients' requests.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Requests taken, unknown commands and refused ones included.
    pub requests: u64,
    /// How many of them there were a second ago.
    requests_before: u64,
    /// How many there were in the last second.
    pub requests_per_second: u64,
    /// Requests that were sent to another worker.
    pub forwarded: u64,
    /// Bytes from clients.
    pub received_bytes: u64,
    /// Bytes to clients.
    pub sent_bytes: u64,
    /// How many bytes from clients in the last second, and to them.
    pub bytes_per_second: [u64; 2],
    bytes_before: [u64; 2],
    /// Receives that brought something, and sends that took something.
    pub receives: u64,
    /// See there.
    pub sends: u64,
    /// Bytes of requests that wait to be served, and of replies that wait to leave; only where it is asked for.
    pub buffered_bytes: u64,
    /// The most that waits so of one client, of requests and of replies.
    pub buffered_max: [u64; 2],
    /// Channels, patterns and shard channels that clients of any worker have subscribed to, and prefixes of keys that
    /// clients keep copies of; only where it is asked for.
    pub subscribed: [u64; 4],
    /// Clients that keep copies of keys, keys that they have read, and how many copies that makes; only where it is
    /// asked for.
    pub tracked: [u64; 3],
    /// Clients whose request waits for the end of a pause, or for the disk; only where it is asked for.
    pub blocked: u64,
    /// Clients that are not read from at the moment.
    pub paused: u64,
    /// The calls of each command.
    pub calls: Calls,
}

impl Traffic {
    /// A second has passed.
    pub fn note_second(&mut self) {
        self.requests_per_second = self.requests - self.requests_before;
        self.requests_before = self.requests;
        let bytes = [self.received_bytes, self.sent_bytes];
        self.bytes_per_second = [0, 1].map(|way| bytes[way] - self.bytes_before[way]);
        self.bytes_before = bytes;
        self.calls.note_second();
    }

    fn add(&mut self, other: &Traffic) {
        self.requests += other.requests;
        self.requests_per_second += other.requests_per_second;
        self.forwarded += other.forwarded;
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
        self.bytes_per_second = [0, 1].map(|way| self.bytes_per_second[way] + other.bytes_per_second[way]);
        self.receives += other.receives;
        self.sends += other.sends;
        self.buffered_bytes += other.buffered_bytes;
        self.buffered_max = [0, 1].map(|way| self.buffered_max[way].max(other.buffered_max[way]));
        // Each worker knows those of all.
        self.subscribed = [0, 1, 2, 3].map(|kind| self.subscribed[kind].max(other.subscribed[kind]));
        self.tracked = [0, 1, 2].map(|count| self.tracked[count] + other.tracked[count]);
        self.blocked += other.blocked;
        self.paused += other.paused;
        self.calls += &other.calls;
    }
}

/// What is known of a shard's snapshots since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshots {
    /// How many were written.
    pub written: u64,
    /// How many were given up.
    pub failed: u64,
    /// How long the last one took that was written, in milliseconds; in a sum the longest.
    pub last_ms: Option<u64>,
}

/// What one worker has counted since it started, and how much it holds now.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The scripts and libraries, and the interpreter.
    pub scripts: Usage,
    /// Bytes that a restart would read: the snapshot, and the log behind it.
    pub wal_size_bytes: u64,
    /// Bytes of the log behind the snapshot.
    pub log_size_bytes: u64,
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
    /// What helps against that, so that writes are taken again.
    pub wal_remedy: Option<&'static str>,
    /// How many shards refuse writes.
    pub refusing: u32,
    /// Why the shard's last snapshot was not written, if it was not; of several shards, one whose was not.
    pub snapshot_fault: Option<Arc<str>>,
    /// Whether a snapshot was asked for or is being written.
    pub compacting: bool,
    /// The Unix time of the last snapshot, or of the start if there was none since, in seconds; in a sum the
    /// earliest.
    pub saved_s: Option<u64>,
    /// What the shard counted and holds.
    pub shard: Stats,
    /// The databases that have keys, in no order.
    pub databases: Vec<DatabaseStats>,
    /// The requests of clients.
    pub traffic: Traffic,
    /// The errors that they were answered.
    pub errors: Errors,
    /// Turns of the worker that found something to do.
    pub turns: Histogram,
    /// Batches sent to other workers.
    pub batches: u64,
    /// Syncs of the log.
    pub syncs: Histogram,
    /// Syncs of the log that failed.
    pub sync_failures: u64,
    /// Snapshots.
    pub snapshots: Snapshots,
    /// What is followed for anomalies.
    pub watched: Watched,
}

impl Report {
    /// Takes away what was counted up to then; what there is now stays.
    pub fn subtract(&mut self, earlier: &Report) {
        let take = |now: &mut u64, then: u64| *now = now.saturating_sub(then);
        let (traffic, then) = (&mut self.traffic, &earlier.traffic);
        take(&mut traffic.requests, then.requests);
        take(&mut traffic.forwarded, then.forwarded);
        take(&mut traffic.received_bytes, then.received_bytes);
        take(&mut traffic.sent_bytes, then.sent_bytes);
        take(&mut traffic.receives, then.receives);
        take(&mut traffic.sends, then.sends);
        traffic.calls.subtract(&then.calls);
        self.errors.subtract(&earlier.errors);
        let (shard, then) = (&mut self.shard, &earlier.shard);
        take(&mut shard.reads, then.reads);
        take(&mut shard.writes, then.writes);
        take(&mut shard.hits, then.hits);
        take(&mut shard.misses, then.misses);
        take(&mut shard.ttl_expired, then.ttl_expired);
        take(&mut shard.ttl_checks, then.ttl_checks);
        take(&mut self.snapshots.written, earlier.snapshots.written);
        take(&mut self.snapshots.failed, earlier.snapshots.failed);
    }

    /// Adds another worker's report.
    pub fn add(&mut self, other: &Report) {
        self.wal_size_bytes += other.wal_size_bytes;
        self.scripts.add(&other.scripts);
        self.log_size_bytes += other.log_size_bytes;
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
            self.wal_remedy = other.wal_remedy;
        }
        self.refusing += other.refusing;
        if self.snapshot_fault.is_none() {
            self.snapshot_fault.clone_from(&other.snapshot_fault);
        }
        self.compacting |= other.compacting;
        self.saved_s = [self.saved_s, other.saved_s].into_iter().flatten().min();
        self.shard += other.shard;
        for more in &other.databases {
            match self.databases.iter_mut().find(|it| it.number == more.number) {
                Some(sum) => {
                    sum.keys += more.keys;
                    sum.keys_with_deadline += more.keys_with_deadline;
                    sum.time_left_ms += more.time_left_ms;
                }
                None => self.databases.push(*more),
            }
        }
        self.traffic.add(&other.traffic);
        self.errors += &other.errors;
        self.turns += &other.turns;
        self.batches += other.batches;
        self.syncs += &other.syncs;
        self.sync_failures += other.sync_failures;
        self.snapshots.written += other.snapshots.written;
        self.snapshots.failed += other.snapshots.failed;
        self.snapshots.last_ms = self.snapshots.last_ms.max(other.snapshots.last_ms);
        self.watched += other.watched;
    }
}
