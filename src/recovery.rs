//! From the data directory back into shards, and from one number of shards to another.
//!
//! A transaction over several shards leaves a frame with its id in the log of each. Its keys stay locked until
//! every shard has written its frame, so a transaction that a crash cut short was seen by nobody, and nothing
//! in any log builds on it: recovery leaves it out everywhere. It was cut short if a participant has no frame of
//! it, unless that participant's snapshot was begun after the transaction: a snapshot begins and ends only while no
//! transaction has a lock on the shard, so that all of which it shows anything are written everywhere. For that
//! comparison ids carry the time ([`transaction_id`]), and two frames without participants exist: in a snapshot the id is the time at which it was
//! begun; in a log it names a transaction that an earlier recovery left out, and that stays left out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shard::{Change, Changes, Shard};
use wal::{DataDir, Kind, Layout, Log, OsDisk, Place, Record, SnapshotWriter};

use crate::config::Config;
use crate::mail::TransactionId;
use crate::router;
use crate::server::Failure;

/// How long the lock of the data directory is waited for: after a kill, the kernel still finishes what the killed
/// process had submitted, and holds its files meanwhile.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// How many keys are moved between shards at a time.
const MOVE_KEYS: usize = 1024;

/// How many bytes of changes are gathered into one frame of a moved shard, about.
const MOVE_FRAME_BYTES: usize = 64 * 1024;

/// The locked data directory, with a layout for the number of shards that the server has.
pub struct Data {
    /// Holds the lock.
    _directory: DataDir<OsDisk>,
    layout: Layout,
    segment_bytes: u64,
    cut_short: Arc<HashSet<TransactionId>>,
    last_id: TransactionId,
}

/// Where one shard's files are.
pub struct ShardData {
    directory: PathBuf,
    place: Place,
    segment_bytes: u64,
    cut_short: Arc<HashSet<TransactionId>>,
}

/// The id of a transaction whose parts are run at this time by this worker: `micros:54 worker:10`. The time is in
/// microseconds since the Unix epoch; a worker never uses the same one twice.
pub fn transaction_id(micros: u64, worker: usize) -> TransactionId {
    micros << 10 | worker as u64
}

/// The time in an id.
pub fn id_micros(id: TransactionId) -> u64 {
    id >> 10
}

impl Data {
    /// The place of one shard.
    pub fn shard(&self, index: usize) -> ShardData {
        ShardData::new(&self.layout, index, self.segment_bytes, &self.cut_short)
    }

    /// The time in the greatest id of a transaction or a snapshot in the files; 0 where there is none.
    pub fn last_id_us(&self) -> u64 {
        id_micros(self.last_id)
    }
}

/// Locks the data directory. If it was last used with another number of shards, its keys are moved first: the new
/// layout is written beside the old one and takes its place in one step, so that a crash leaves one of both whole.
///
/// # Errors
/// [`Failure::Log`], [`Failure::Replay`]; the directory is as it was.
pub fn open(config: &Config) -> Result<Data, Failure> {
    let failed = |error| Failure::Log { shard: None, error };
    let shards = config.shard_count() as u32;
    let segment_bytes = config.wal_segment_size;
    let mut directory = DataDir::open(OsDisk, &config.wal_path, LOCK_WAIT).map_err(failed)?;
    let layout = match directory.layout().cloned() {
        Some(layout) if layout.shards == shards => layout,
        old => {
            let new = directory.create_layout(shards).map_err(failed)?;
            if let Some(old) = &old {
                tracing::info!(from = old.shards, to = shards, "moving keys to another number of shards");
                move_keys(old, &new, segment_bytes)?;
            }
            directory.activate(new.clone()).map_err(failed)?;
            new
        }
    };
    let (cut_short, last_id) = cut_short(&layout)?;
    Ok(Data { _directory: directory, layout, segment_bytes, cut_short, last_id })
}

impl ShardData {
    fn new(
        layout: &Layout,
        index: usize,
        segment_bytes: u64,
        cut_short: &Arc<HashSet<TransactionId>>,
    ) -> ShardData {
        let place = Place { shard_index: index as u32, shard_count: layout.shards };
        let directory = layout.shard_dir(place.shard_index);
        ShardData { directory, place, segment_bytes, cut_short: cut_short.clone() }
    }

    /// The shard as its snapshot and log tell, and the log, open for what follows. Blocks.
    ///
    /// # Errors
    /// [`Failure::Log`], [`Failure::Replay`].
    pub fn recover(&self) -> Result<(Shard, Log<OsDisk>), Failure> {
        let index = self.place.shard_index as usize;
        let started = Instant::now();
        let mut shard = Shard::new(random_seeds());
        // Transactions that are left out, and whether the log says so already.
        let mut left_out = BTreeMap::new();
        let apply = |record: Record<'_>| {
            if let Kind::Transaction { id, participants } = record.kind
                && self.cut_short.contains(&id)
            {
                *left_out.entry(id).or_insert(false) |= participants.is_empty();
                return Ok(());
            }
            for change in shard::decode(record.payload) {
                let replay = |error| Replay::Malformed { seq: record.seq, error };
                shard.apply(&change.map_err(replay)?);
            }
            Ok(())
        };
        let recovered = Log::recover(&OsDisk, &self.directory, self.place, self.segment_bytes, apply);
        let (mut log, recovered) = recovered.map_err(|error| match error {
            Replay::Log(error) => Failure::log(index, error),
            Replay::Malformed { seq, error } => Failure::Replay { shard: index, seq, error },
        })?;
        if let Some(cut) = &recovered.cut {
            tracing::warn!(
                shard = index,
                file = %cut.path.display(),
                offset = cut.offset,
                bytes = cut.bytes,
                "the end of the log was torn, as a crash leaves it; it was cut there"
            );
        }
        if !left_out.is_empty() {
            tracing::warn!(
                shard = index,
                transactions = left_out.len(),
                "commands over several shards, which a crash cut short before they were acknowledged, were left out"
            );
            for (id, _) in left_out.iter().filter(|(_, said)| !**said) {
                log.append(Kind::Transaction { id: *id, participants: &[] }, 0, &[]);
            }
            log.sync().map_err(|error| Failure::log(index, error))?;
        }
        tracing::info!(
            shard = index,
            keys = shard.key_count(),
            frames = recovered.snapshot_frames + recovered.log_frames,
            ms = started.elapsed().as_millis() as u64,
            "recovered"
        );
        Ok((shard, log))
    }
}

enum Replay {
    Log(wal::Error),
    Malformed { seq: u64, error: shard::MalformedChange },
}

impl From<wal::Error> for Replay {
    fn from(error: wal::Error) -> Replay {
        Replay::Log(error)
    }
}

/// What one shard's files tell about transactions.
#[derive(Default)]
struct Traces {
    /// The participants of each transaction that has a frame in the log.
    parts: HashMap<TransactionId, Box<[u32]>>,
    /// When the snapshot was begun, as an id.
    snapshot_begun: TransactionId,
    /// Transactions that were left out before.
    left_out: Vec<TransactionId>,
}

/// The transactions that a crash cut short, and the greatest id of all.
fn cut_short(layout: &Layout) -> Result<(Arc<HashSet<TransactionId>>, TransactionId), Failure> {
    if layout.shards == 1 {
        return Ok((Arc::default(), 0)); // There is nothing to compare, and never will be in this layout.
    }
    let traces: Vec<Traces> = std::thread::scope(|scope| {
        let trace = |index| scope.spawn(move || trace(layout, index));
        let threads: Vec<_> = (0..layout.shards).map(trace).collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("a panic ends the process"));
        joined.collect::<Result<_, _>>()
    })?;
    let mut cut_short: HashSet<_> =
        traces.iter().flat_map(|traces| traces.left_out.iter().copied()).collect();
    for (id, participants) in traces.iter().flat_map(|traces| &traces.parts) {
        let lacks = |participant: &u32| {
            let traces = traces.get(*participant as usize);
            traces.is_none_or(|traces| !traces.parts.contains_key(id) && traces.snapshot_begun < *id)
        };
        if participants.iter().any(lacks) {
            cut_short.insert(*id);
        }
    }
    let last_ids = traces
        .iter()
        .map(|traces| traces.parts.keys().copied().max().unwrap_or(0).max(traces.snapshot_begun));
    let last_id = last_ids.max().unwrap_or(0);
    Ok((Arc::new(cut_short), last_id))
}

fn trace(layout: &Layout, shard_index: u32) -> Result<Traces, Failure> {
    let place = Place { shard_index, shard_count: layout.shards };
    let mut traces = Traces::default();
    let note = |record: Record<'_>| {
        if let Kind::Transaction { id, participants } = record.kind {
            match (participants, record.in_snapshot) {
                ([], true) => traces.snapshot_begun = id,
                ([], false) => traces.left_out.push(id),
                _ => drop(traces.parts.insert(id, participants.into())),
            }
        }
        Ok(())
    };
    let checked = wal::check(&OsDisk, &layout.shard_dir(shard_index), place, note);
    checked.map_err(|error| Failure::log(shard_index as usize, error))?;
    Ok(traces)
}

/// Seeds that nobody outside can know, from the randomness with which the standard library seeds its maps.
pub(crate) fn random_seeds() -> [u64; 4] {
    std::array::from_fn(|index| RandomState::new().hash_one(index))
}

/// Writes every key of the old layout into the shard of the new one that owns it. One old shard is in memory at a
/// time.
fn move_keys(old: &Layout, new: &Layout, segment_bytes: u64) -> Result<(), Failure> {
    let failed = |shard: usize| move |error| Failure::log(shard, error);
    let (cut_short, _) = cut_short(old)?;
    let shards = new.shards as usize;
    let mut targets = Vec::with_capacity(shards);
    for index in 0..shards {
        let place = Place { shard_index: index as u32, shard_count: new.shards };
        let directory = new.shard_dir(place.shard_index);
        let writer = SnapshotWriter::create(&OsDisk, &directory, place).map_err(failed(index))?;
        targets.push(Target { writer, changes: Changes::default() });
    }
    for index in 0..old.shards as usize {
        let (shard, _log) = ShardData::new(old, index, segment_bytes, &cut_short).recover()?;
        let mut position = Some(0);
        while let Some(from) = position {
            let mut moved = Ok(());
            // Time 0: what has expired meanwhile moves too, and expires in its new shard.
            position = shard.walk(from, MOVE_KEYS, 0, |key, value, deadline_ms| {
                if moved.is_ok() {
                    let owner = router::owner(key, shards);
                    moved =
                        targets[owner].put(&Change::Put { key, value, deadline_ms }).map_err(failed(owner));
                }
            });
            moved?;
        }
    }
    for (index, mut target) in targets.into_iter().enumerate() {
        target.flush().and_then(|()| target.writer.finish()).map_err(failed(index))?;
    }
    Ok(())
}

struct Target {
    writer: SnapshotWriter<OsDisk>,
    changes: Changes,
}

impl Target {
    fn put(&mut self, change: &Change<'_>) -> Result<(), wal::Error> {
        self.changes.push(change);
        if self.changes.bytes().len() >= MOVE_FRAME_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), wal::Error> {
        if !self.changes.is_empty() {
            self.writer.append(Kind::Batch, self.changes.count() as u32, self.changes.bytes())?;
            self.changes.clear(MOVE_FRAME_BYTES);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT_BYTES: u64 = 1 << 20;

    #[test]
    fn a_transaction_that_was_cut_short_is_noted_once() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(OsDisk, directory.path(), LOCK_WAIT).unwrap();
        let layout = data.create_layout(2).unwrap();
        let recover = || ShardData::new(&layout, 0, SEGMENT_BYTES, &cut_short(&layout).unwrap().0).recover();
        let (_, mut log) = recover().unwrap();
        let mut changes = Changes::default();
        changes.push(&Change::Put { key: b"half", value: b"1", deadline_ms: None });
        log.append(Kind::Transaction { id: 7 << 10, participants: &[0, 1] }, 1, changes.bytes());
        log.sync().unwrap();
        drop(log);
        let next_seqs: Vec<u64> = (0..3)
            .map(|_| {
                let (shard, log) = recover().unwrap();
                assert_eq!(shard.key_count(), 0);
                log.next_seq()
            })
            .collect();
        assert_eq!(next_seqs, [3, 3, 3], "the transaction, then one note of it");
    }
}
