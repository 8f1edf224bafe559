//! Which transactions count after a crash.
//!
//! A transaction over several shards leaves a frame with its id in the log of each. It counts if every participant
//! has its part: a frame in the log, or a snapshot that was begun after it. Otherwise it was cut short, and it is
//! left out everywhere.
//!
//! - Its keys stay locked until every shard has written its frame. When a process dies, a transaction that was cut
//!   short was seen by nobody, and nothing in any log builds on it.
//! - A power cut may take a participant's frame back although the process had gone on. Then a later frame in another
//!   log may have changed a key of the transaction, and builds on it: that log ends before that frame. What it
//!   loses is not older than what the participant lost. Parts of other transactions may be among it; so the verdict
//!   is reached in rounds, until it holds.
//! - A snapshot never shows a transaction that a crash can take back: it begins and ends only while no transaction
//!   has a lock on its shard, and counts only after the other shards have synced their logs.
//!
//! For the comparison with snapshots ids carry the time, and two kinds of frames have no participants: in a snapshot
//! the id is the time at which it was begun; in a log it names a transaction that was left out before.

use std::collections::{HashMap, HashSet};

use shard::Change;
use wal::{Disk, Kind, Layout, Place, Record};

use crate::mail::TransactionId;
use crate::router::SHARDS_MAX;
use crate::server::Failure;

/// The id of a transaction whose parts are run at this time by this worker: `micros:54 worker:10`. The time is in
/// microseconds since the Unix epoch; a worker never uses the same one twice.
pub fn transaction_id(micros: u64, worker: usize) -> TransactionId {
    micros << 10 | worker as u64
}

/// The time in an id.
pub fn id_micros(id: TransactionId) -> u64 {
    id >> 10
}

/// The id that marks a snapshot which begins at this time: not below that of any transaction of its shard.
pub fn snapshot_id(micros: u64, last_id: TransactionId) -> TransactionId {
    transaction_id(micros.max(id_micros(last_id)), SHARDS_MAX - 1)
}

/// What of the logs counts.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Transactions that do not count.
    pub left_out: HashSet<TransactionId>,
    /// For each shard the first frame that does not count, nor any behind it.
    pub cuts: Vec<Option<u64>>,
    /// For each shard the transactions that it has a part of, that do not count, and whose log does not say so yet.
    pub unmarked: Vec<Vec<TransactionId>>,
    /// No transaction in the logs has a greater id.
    pub last_id: TransactionId,
}

impl Verdict {
    /// Whether frame `record` of shard `shard_index` is applied.
    pub fn counts(&self, shard_index: u32, record: &Record<'_>) -> bool {
        if record.in_snapshot {
            return true;
        }
        let cut = self.cuts.get(shard_index as usize).copied().flatten();
        let left_out = matches!(record.kind, Kind::Transaction { id, .. } if self.left_out.contains(&id));
        !left_out && cut.is_none_or(|cut| record.seq < cut)
    }

    /// Whether the logs do not show it yet.
    pub fn is_news(&self) -> bool {
        self.cuts.iter().any(Option::is_some) || self.unmarked.iter().any(|ids| !ids.is_empty())
    }
}

/// What one shard's files tell about transactions.
#[derive(Default)]
struct Traces {
    /// The parts in the log: sequence number and participants.
    parts: HashMap<TransactionId, (u64, Box<[u32]>)>,
    /// When the snapshot was begun, as an id.
    snapshot_begun: TransactionId,
    /// Transactions that were left out before.
    left_out: HashSet<TransactionId>,
}

/// Reads all logs of a layout and judges.
///
/// # Errors
/// [`Failure::Log`] where a log is damaged.
pub fn reach<D: Disk>(disk: &D, layout: &Layout) -> Result<Verdict, Failure> {
    if layout.shards == 1 {
        return Ok(Verdict::default()); // There is nothing to compare.
    }
    let traces = on_every_shard(layout, |index| trace(disk, layout, index))?;
    let ids = traces.iter().flat_map(|traces| traces.parts.keys().chain([&traces.snapshot_begun]));
    let last_id = ids.copied().max().unwrap_or(0);
    let mut verdict = Verdict { cuts: vec![None; layout.shards as usize], last_id, ..Verdict::default() };
    loop {
        verdict.left_out = left_out(&traces, &verdict.cuts);
        if verdict.left_out.is_empty() {
            return Ok(verdict);
        }
        let verdict_so_far = &verdict;
        let cuts = on_every_shard(layout, |index| first_dependent(disk, layout, index, verdict_so_far))?;
        if cuts == verdict.cuts {
            break;
        }
        verdict.cuts = cuts;
    }
    verdict.unmarked = traces
        .iter()
        .map(|traces| {
            let parts = traces.parts.keys().copied();
            parts.filter(|id| verdict.left_out.contains(id) && !traces.left_out.contains(id)).collect()
        })
        .collect();
    Ok(verdict)
}

/// Runs `work` for every shard, side by side.
fn on_every_shard<T: Send>(
    layout: &Layout,
    work: impl Fn(u32) -> Result<T, Failure> + Sync,
) -> Result<Vec<T>, Failure> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..layout.shards).map(|index| scope.spawn(move || work(index))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a panic ends the process")).collect()
    })
}

fn place(layout: &Layout, shard_index: u32) -> Place {
    Place { shard_index, shard_count: layout.shards }
}

fn trace<D: Disk>(disk: &D, layout: &Layout, shard_index: u32) -> Result<Traces, Failure> {
    let mut traces = Traces::default();
    let note = |record: Record<'_>| {
        if let Kind::Transaction { id, participants } = record.kind {
            match (participants, record.in_snapshot) {
                ([], true) => traces.snapshot_begun = id,
                ([], false) => drop(traces.left_out.insert(id)),
                _ => drop(traces.parts.insert(id, (record.seq, participants.into()))),
            }
        }
        Ok(())
    };
    let checked = wal::check(disk, &layout.shard_dir(shard_index), place(layout, shard_index), note);
    checked.map_err(|error| Failure::log(shard_index as usize, error))?;
    Ok(traces)
}

/// The transactions that do not count when each log ends at its cut.
fn left_out(traces: &[Traces], cuts: &[Option<u64>]) -> HashSet<TransactionId> {
    let has_part = |participant: u32, id: &TransactionId| {
        let participant = participant as usize;
        let (Some(traces), Some(cut)) = (traces.get(participant), cuts.get(participant)) else {
            return false;
        };
        match traces.parts.get(id) {
            Some((seq, _)) => cut.is_none_or(|cut| *seq < cut),
            None => traces.snapshot_begun >= *id,
        }
    };
    let mut left_out: HashSet<_> = traces.iter().flat_map(|traces| traces.left_out.iter().copied()).collect();
    for (id, (_, participants)) in traces.iter().flat_map(|traces| &traces.parts) {
        if !participants.iter().all(|participant| has_part(*participant, id)) {
            left_out.insert(*id);
        }
    }
    left_out
}

/// The first frame of a log that builds on a transaction that does not count: it changes one of its keys.
fn first_dependent<D: Disk>(
    disk: &D,
    layout: &Layout,
    shard_index: u32,
    verdict: &Verdict,
) -> Result<Option<u64>, Failure> {
    let mut touched: HashSet<Box<[u8]>> = HashSet::new();
    let mut all_touched = false;
    let mut cut = None;
    let look = |record: Record<'_>| {
        if record.in_snapshot || cut.is_some() {
            return Ok(());
        }
        let left_out = matches!(record.kind, Kind::Transaction { id, .. } if verdict.left_out.contains(&id));
        // A payload that is not a run of changes is refused when it is replayed.
        for change in shard::decode(record.payload).flatten() {
            match (left_out, change) {
                (true, Change::Clear) => all_touched = true,
                (true, change) => touched.extend(change.key().map(Box::from)),
                (false, change) => {
                    let builds_on = match change.key() {
                        Some(key) => touched.contains(key),
                        None => !touched.is_empty(),
                    };
                    if all_touched || builds_on {
                        cut = Some(record.seq);
                    }
                }
            }
        }
        Ok(())
    };
    let checked = wal::check(disk, &layout.shard_dir(shard_index), place(layout, shard_index), look);
    checked.map_err(|error| Failure::log(shard_index as usize, error))?;
    Ok(cut)
}
