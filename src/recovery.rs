//! From the data directory back into shards, and from one number of shards to another.
//!
//! A transaction over several shards leaves a frame with its id in the log of each. Its keys stay locked until
//! every shard has written its frame, so a transaction that a crash cut short was seen by nobody, and nothing
//! in any log builds on it: recovery leaves it out everywhere. It was cut short if a participant has no frame of
//! it, unless that participant's snapshot was begun after the transaction: a snapshot begins only when every
//! transaction that the shard has a part of is written everywhere. For that comparison ids carry the time
//! ([`transaction_id`]), and two frames without participants exist: in a snapshot the id is the time at which it was
//! begun; in a log it names a transaction that an earlier recovery left out, and that stays left out.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shard::{Change, Changes, Shard};
use wal::{DataDir, Disk, Kind, Layout, Log, OsDisk, Place, Record, SnapshotWriter};

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
pub struct Data<D: Disk = OsDisk> {
    /// Holds the lock.
    _directory: DataDir<D>,
    disk: D,
    layout: Layout,
    segment_bytes: u64,
    cut_short: Arc<HashSet<TransactionId>>,
}

/// Where one shard's files are.
pub struct ShardData<D: Disk = OsDisk> {
    disk: D,
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

impl<D: Disk> Data<D> {
    /// The place of one shard.
    pub fn shard(&self, index: usize) -> ShardData<D> {
        ShardData::new(&self.disk, &self.layout, index, self.segment_bytes, &self.cut_short)
    }
}

/// Locks the data directory. If it was last used with another number of shards, its keys are moved first: the new
/// layout is written beside the old one and takes its place in one step, so that a crash leaves one of both whole.
///
/// # Errors
/// [`Failure::Log`], [`Failure::Replay`]; the directory is as it was.
pub fn open(config: &Config) -> Result<Data, Failure> {
    open_on(OsDisk, &config.wal_path, config.shard_count() as u32, config.wal_segment_size)
}

/// As [`open`], on any disk. New log segments have `segment_bytes`.
///
/// # Errors
/// As [`open`].
pub fn open_on<D: Disk>(disk: D, path: &Path, shards: u32, segment_bytes: u64) -> Result<Data<D>, Failure> {
    let failed = |error| Failure::Log { shard: None, error };
    let mut directory = DataDir::open(disk.clone(), path, LOCK_WAIT).map_err(failed)?;
    let layout = match directory.layout().cloned() {
        Some(layout) if layout.shards == shards => layout,
        old => {
            let new = directory.create_layout(shards).map_err(failed)?;
            if let Some(old) = &old {
                tracing::info!(from = old.shards, to = shards, "moving keys to another number of shards");
                move_keys(&disk, old, &new, segment_bytes)?;
            }
            directory.activate(new.clone()).map_err(failed)?;
            new
        }
    };
    let cut_short = cut_short(&disk, &layout)?;
    Ok(Data { _directory: directory, disk, layout, segment_bytes, cut_short })
}

impl<D: Disk> ShardData<D> {
    fn new(
        disk: &D,
        layout: &Layout,
        index: usize,
        segment_bytes: u64,
        cut_short: &Arc<HashSet<TransactionId>>,
    ) -> ShardData<D> {
        let place = Place { shard_index: index as u32, shard_count: layout.shards };
        let directory = layout.shard_dir(place.shard_index);
        ShardData { disk: disk.clone(), directory, place, segment_bytes, cut_short: cut_short.clone() }
    }

    /// The shard as its snapshot and log tell, and the log, open for what follows. Blocks.
    ///
    /// # Errors
    /// [`Failure::Log`], [`Failure::Replay`].
    pub fn recover(&self) -> Result<(Shard, Log<D>), Failure> {
        let index = self.place.shard_index as usize;
        let started = Instant::now();
        let mut rebuild = Rebuild::new(&self.cut_short);
        let apply = |record: Record<'_>| rebuild.apply(&record);
        let recovered = Log::recover(&self.disk, &self.directory, self.place, self.segment_bytes, apply);
        let (mut log, recovered) = recovered.map_err(|error| error.of_shard(index))?;
        let Rebuild { shard, left_out, .. } = rebuild;
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
            left_out.iter().for_each(|id| {
                log.append(Kind::Transaction { id: *id, participants: &[] }, 0, &[]);
            });
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

/// Why a record could not be replayed.
#[derive(Debug)]
pub(crate) enum Replay {
    /// The log is not readable.
    Log(wal::Error),
    /// A frame is good, and holds something other than changes.
    Malformed {
        /// The frame.
        seq: u64,
        /// What is wrong.
        error: shard::MalformedChange,
    },
}

impl Replay {
    pub(crate) fn of_shard(self, shard: usize) -> Failure {
        match self {
            Replay::Log(error) => Failure::log(shard, error),
            Replay::Malformed { seq, error } => Failure::Replay { shard, seq, error },
        }
    }
}

/// A shard while its records are replayed into it.
pub(crate) struct Rebuild<'a> {
    /// The shard as the records so far tell.
    pub(crate) shard: Shard,
    /// Transactions with a record that was left out.
    pub(crate) left_out: Vec<TransactionId>,
    cut_short: &'a HashSet<TransactionId>,
}

impl<'a> Rebuild<'a> {
    pub(crate) fn new(cut_short: &'a HashSet<TransactionId>) -> Rebuild<'a> {
        Rebuild { shard: Shard::new(random_seeds()), left_out: Vec::new(), cut_short }
    }

    /// Applies the changes of a record, unless it is part of a transaction that was cut short.
    pub(crate) fn apply(&mut self, record: &Record<'_>) -> Result<(), Replay> {
        if self.leaves_out(record) {
            return Ok(());
        }
        for change in shard::decode(record.payload) {
            let replay = |error| Replay::Malformed { seq: record.seq, error };
            self.shard.apply(&change.map_err(replay)?);
        }
        Ok(())
    }

    /// Whether this record is part of a transaction that was cut short; notes it.
    pub(crate) fn leaves_out(&mut self, record: &Record<'_>) -> bool {
        match record.kind {
            Kind::Transaction { id, .. } if self.cut_short.contains(&id) => {
                self.left_out.push(id);
                true
            }
            _ => false,
        }
    }
}

impl From<wal::Error> for Replay {
    fn from(error: wal::Error) -> Replay {
        Replay::Log(error)
    }
}

/// What one shard's files tell about transactions.
#[derive(Default)]
pub(crate) struct Traces {
    /// The participants of each transaction that has a frame in the log.
    parts: HashMap<TransactionId, Box<[u32]>>,
    /// When the snapshot was begun, as an id.
    snapshot_begun: TransactionId,
    /// Transactions that were left out before.
    left_out: Vec<TransactionId>,
    /// Frames are lost, so that a missing part proves nothing.
    pub(crate) has_gaps: bool,
}

impl Traces {
    /// Notes what one record tells.
    pub(crate) fn note(&mut self, record: &Record<'_>) {
        if let Kind::Transaction { id, participants } = record.kind {
            match (participants, record.in_snapshot) {
                ([], true) => self.snapshot_begun = id,
                ([], false) => self.left_out.push(id),
                _ => drop(self.parts.insert(id, participants.into())),
            }
        }
    }

    /// Whether this shard never wrote its part of a transaction.
    fn lacks(&self, id: TransactionId) -> bool {
        !self.parts.contains_key(&id) && self.snapshot_begun < id
    }
}

/// The transactions that a crash cut short, by the traces of all shards; and how many may be whole or not,
/// because frames are lost that would tell.
pub(crate) fn judge(traces: &[Traces]) -> (HashSet<TransactionId>, usize) {
    let mut cut_short: HashSet<_> =
        traces.iter().flat_map(|traces| traces.left_out.iter().copied()).collect();
    let mut doubtful = HashSet::new();
    for (id, participants) in traces.iter().flat_map(|traces| &traces.parts) {
        let of = |participant: &u32| traces.get(*participant as usize);
        if participants.iter().any(|index| of(index).is_none_or(|its| its.lacks(*id) && !its.has_gaps)) {
            cut_short.insert(*id);
        } else if participants.iter().any(|index| of(index).is_some_and(|its| its.lacks(*id))) {
            doubtful.insert(*id);
        }
    }
    let doubtful = doubtful.difference(&cut_short).count();
    (cut_short, doubtful)
}

/// The transactions that a crash cut short. Reads every shard and changes nothing.
pub(crate) fn cut_short<D: Disk>(disk: &D, layout: &Layout) -> Result<Arc<HashSet<TransactionId>>, Failure> {
    if layout.shards == 1 {
        return Ok(Arc::default()); // There is nothing to compare.
    }
    let traces: Vec<Traces> = std::thread::scope(|scope| {
        let trace = |index| {
            let disk = disk.clone();
            scope.spawn(move || trace(&disk, layout, index))
        };
        let threads: Vec<_> = (0..layout.shards).map(trace).collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("a panic ends the process"));
        joined.collect::<Result<_, _>>()
    })?;
    Ok(Arc::new(judge(&traces).0))
}

fn trace<D: Disk>(disk: &D, layout: &Layout, shard_index: u32) -> Result<Traces, Failure> {
    let place = Place { shard_index, shard_count: layout.shards };
    let mut traces = Traces::default();
    let note = |record: Record<'_>| {
        traces.note(&record);
        Ok(())
    };
    let checked = wal::check(disk, &layout.shard_dir(shard_index), place, note);
    checked.map_err(|error| Failure::log(shard_index as usize, error))?;
    Ok(traces)
}

/// Seeds that nobody outside can know, from the randomness with which the standard library seeds its maps.
pub(crate) fn random_seeds() -> [u64; 4] {
    std::array::from_fn(|index| RandomState::new().hash_one(index))
}

/// Writes every key of the old layout into the shard of the new one that owns it. One old shard is in memory at a
/// time.
fn move_keys<D: Disk>(disk: &D, old: &Layout, new: &Layout, segment_bytes: u64) -> Result<(), Failure> {
    let failed = |shard: usize| move |error| Failure::log(shard, error);
    let cut_short = cut_short(disk, old)?;
    let shards = new.shards as usize;
    let mut targets = Vec::with_capacity(shards);
    for index in 0..shards {
        targets.push(Target::create(disk, new, index).map_err(failed(index))?);
    }
    for index in 0..old.shards as usize {
        let (shard, _log) = ShardData::new(disk, old, index, segment_bytes, &cut_short).recover()?;
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
    for (index, target) in targets.into_iter().enumerate() {
        target.finish().map_err(failed(index))?;
    }
    Ok(())
}

/// A shard of a new layout while keys are written into it.
pub(crate) struct Target<D: Disk> {
    writer: SnapshotWriter<D>,
    changes: Changes,
}

impl<D: Disk> Target<D> {
    pub(crate) fn create(disk: &D, layout: &Layout, index: usize) -> Result<Target<D>, wal::Error> {
        let place = Place { shard_index: index as u32, shard_count: layout.shards };
        let writer = SnapshotWriter::create(disk, &layout.shard_dir(place.shard_index), place)?;
        Ok(Target { writer, changes: Changes::default() })
    }

    /// Syncs and names what was put.
    pub(crate) fn finish(mut self) -> Result<(), wal::Error> {
        self.flush()?;
        self.writer.finish().map(drop)
    }

    pub(crate) fn put(&mut self, change: &Change<'_>) -> Result<(), wal::Error> {
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
