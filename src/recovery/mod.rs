//! From the data directory back into shards, and from one number of shards to another.
//!
//! What counts after a crash is for [`crate::recovery::in_doubt`] to say; here it is carried out.

pub(crate) mod in_doubt;

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shard::{Change, Changes, Clocks, Shard};
use wal::{DataDir, Disk, Kind, Layout, Log, Note, OsDisk, Place, Record, Replayed, SnapshotWriter};

use crate::clock::wall_clock_us;
use crate::config::Config;
use crate::failure::Failure;
use crate::shared::progress::Loading;
use crate::slots;
use crate::txn::id::{ID_MICROS_MAX, id_micros, snapshot_id};
use in_doubt::Resolution;

/// How long the lock of the data directory is waited for: after a kill, the kernel still finishes what the killed
/// process had submitted, and holds its files meanwhile.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// How many keys are moved between shards at a time.
const MOVE_KEYS: usize = 1024;

/// How many bytes of changes are gathered into one frame of a moved shard, about.
const MOVE_FRAME_BYTES: usize = 64 * 1024;

/// After how many bytes recovery pauses again, for others to have their turn.
const PAUSE_BYTES: u64 = 64 * 1024;

/// The locked data directory, with a layout for the number of shards that the server has.
pub struct Data<D: Disk = OsDisk> {
    /// It holds the lock.
    directory: DataDir<D>,
    disk: D,
    layout: Layout,
    segment_bytes: u64,
    resolution: Arc<Resolution>,
}

/// Where one shard's files are.
pub struct ShardData<D: Disk = OsDisk> {
    disk: D,
    directory: PathBuf,
    place: Place,
    segment_bytes: u64,
    resolution: Arc<Resolution>,
}

impl<D: Disk> Data<D> {
    /// The place of one shard.
    pub fn shard(&self, index: usize) -> ShardData<D> {
        ShardData::new(&self.disk, &self.layout, index, self.segment_bytes, &self.resolution)
    }

    /// The disk that the directory was locked on.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The time in the greatest id of a transaction or a snapshot in the files; 0 where there is none.
    pub fn last_id_us(&self) -> u64 {
        id_micros(self.resolution.last_id)
    }

    /// Removes what an unfinished change of the layout left behind, gives an older layout what it lacks, and, if
    /// wanted, removes what earlier starts cut off the logs: once all shards are read, and no log is open yet.
    ///
    /// # Errors
    /// [`Failure::Log`].
    pub fn settle(&mut self, discards_cut: bool) -> Result<(), Failure> {
        warn_leftovers(self.directory.remove_leftovers());
        self.directory.upgrade().map_err(|error| Failure::Log { shard: None, error })?;
        if discards_cut {
            let files = self.directory.discard_cut().map_err(|error| Failure::Log { shard: None, error })?;
            tracing::info!(files, "discarded what earlier starts had cut off the logs");
        }
        Ok(())
    }
}

/// The locked data directory as the last server left it.
pub struct Found<D: Disk = OsDisk> {
    directory: DataDir<D>,
    disk: D,
    shards: u32,
    segment_bytes: u64,
}

/// Locks the data directory, and reads nothing of the logs in it yet.
///
/// # Errors
/// [`Failure::Log`].
pub fn lock(config: &Config) -> Result<Found, Failure> {
    let disk = OsDisk::in_boot(config.boot.id());
    Found::lock(disk, &config.wal_path, config.shard_count() as u32, config.wal_segment_size)
}

/// Locks the data directory on any disk, and makes it ready for `shards` shards, as [`Found::prepare`] does. New log
/// segments have `segment_bytes`.
///
/// # Errors
/// As there.
pub fn open_on<D: Disk>(disk: D, path: &Path, shards: u32, segment_bytes: u64) -> Result<Data<D>, Failure> {
    let found = Found::lock(disk, path, shards, segment_bytes)?;
    let loading = found.loading();
    let mut data = found.prepare(&loading)?;
    data.settle(false)?;
    Ok(data)
}

impl<D: Disk> Found<D> {
    fn lock(disk: D, path: &Path, shards: u32, segment_bytes: u64) -> Result<Found<D>, Failure> {
        let mut directory = DataDir::open(disk.clone(), path, Duration::ZERO);
        if let Err(wal::Error::Locked { .. }) = directory {
            let patience = LOCK_WAIT.as_secs();
            tracing::warn!(
                "waiting up to {patience} s for the data directory {}, which another server uses or has just \
                 left; --wal-path names another one",
                path.display()
            );
            directory = DataDir::open(disk.clone(), path, LOCK_WAIT);
        }
        let directory = directory.map_err(|error| Failure::Log { shard: None, error })?;
        Ok(Found { directory, disk, shards, segment_bytes })
    }

    /// What is to be loaded: [`Found::prepare`] and then [`ShardData::recover`] for every shard.
    pub fn loading(&self) -> Loading {
        let of_verdict = |shards: u32| usize::from(shards > 1);
        let (own, old) = (self.shards, self.directory.layout().map(|layout| layout.shards));
        let moving = old.filter(|old| *old != own).map_or(0, |old| of_verdict(old) + 1);
        let steps = moving + of_verdict(own) + 1;
        Loading::new(steps, own as usize, old.unwrap_or(own) as usize)
    }

    /// Finds out what counts. If the directory was last used with another number of shards, its keys are moved first:
    /// the new layout is written beside the old one and takes its place in one step, so that a crash leaves one of
    /// both whole. Blocks.
    ///
    /// # Errors
    /// [`Failure::Log`], [`Failure::Replay`]; the directory is as it was.
    pub fn prepare(self, loading: &Loading) -> Result<Data<D>, Failure> {
        let failed = |error| Failure::Log { shard: None, error };
        let Found { mut directory, disk, shards, segment_bytes } = self;
        let layout = match directory.layout().cloned() {
            Some(layout) if layout.shards == shards => layout,
            Some(old) => {
                tracing::info!(from = old.shards, to = shards, "moving keys to another number of shards");
                move_layout(&mut directory, &disk, &old, shards, segment_bytes, loading)?
            }
            None => {
                let new = directory.create_layout(shards, random_tag()).map_err(failed)?;
                directory.activate(new.clone()).map_err(failed)?;
                new
            }
        };
        let resolution = judge(&disk, &layout, segment_bytes, loading)?;
        let data = Data { directory, disk, layout, segment_bytes, resolution };
        loading.begin_step(shards as usize);
        Ok(data)
    }
}

impl<D: Disk> ShardData<D> {
    fn new(
        disk: &D,
        layout: &Layout,
        index: usize,
        segment_bytes: u64,
        resolution: &Arc<Resolution>,
    ) -> ShardData<D> {
        let place = layout.place(index as u32);
        let directory = layout.shard_dir(place.shard_index);
        ShardData { disk: disk.clone(), directory, place, segment_bytes, resolution: resolution.clone() }
    }

    /// The note beside the log.
    pub fn note(&self) -> Note<D> {
        Note::new(&self.disk, &self.directory, self.place)
    }

    /// The shard as its snapshot and log tell, and the log, open for what follows. Blocks.
    ///
    /// # Errors
    /// [`Failure::Log`], [`Failure::Replay`].
    pub fn recover(&self) -> Result<(Shard, Log<D>), Failure> {
        let (shard, replayed) = self.read(Shard::new(random_seeds()), |_, _| {})?;
        Ok((shard, self.open(replayed)?))
    }

    /// The log that was [read](ShardData::read), open for what follows. Until this, no file of the shard is changed: it
    /// waits until every shard is read. Blocks.
    ///
    /// # Errors
    /// [`Failure::Log`].
    pub fn open(&self, replayed: Replayed<D>) -> Result<Log<D>, Failure> {
        let index = self.place.shard_index as usize;
        if let Some(cut) = &replayed.recovered.cut {
            tracing::warn!(
                shard = index,
                file = %cut.path.display(),
                offset = cut.offset,
                bytes = cut.bytes,
                "the end of the log was torn, as a crash leaves it; it is cut there"
            );
            warn_kept(index, &cut.kept);
        }
        if let Some(path) = &replayed.recovered.lacking_synced {
            tracing::warn!(
                shard = index,
                file = %path.display(),
                "missing or damaged; it has a copy, and is written again"
            );
        }
        Log::open(replayed, self.segment_bytes).map_err(|error| Failure::log(index, error))
    }

    /// The shard as its snapshot and log tell, put into an empty one; calls `pause` now and then, with the record that
    /// follows and the number of keys so far. Changes nothing. Blocks.
    ///
    /// # Errors
    /// [`Failure::Log`], [`Failure::Replay`].
    pub fn read(
        &self,
        mut shard: Shard,
        mut pause: impl FnMut(&Record<'_>, usize),
    ) -> Result<(Shard, Replayed<D>), Failure> {
        let index = self.place.shard_index as usize;
        let started = Instant::now();
        let mut next_pause_bytes = 0;
        let apply = |record: Record<'_>| {
            if record.read_bytes >= next_pause_bytes {
                next_pause_bytes = record.read_bytes + PAUSE_BYTES;
                pause(&record, shard.key_count());
            }
            if self.resolution.counts(self.place.shard_index, &record) {
                apply(&mut shard, &record)
            } else {
                Ok(())
            }
        };
        let replayed = wal::replay(&self.disk, &self.directory, self.place, apply);
        let replayed = replayed.map_err(|error| error.of_shard(index))?;
        let recovered = &replayed.recovered;
        tracing::info!(
            shard = index,
            keys = shard.key_count(),
            frames = recovered.snapshot_frames + recovered.log_frames,
            ms = started.elapsed().as_millis() as u64,
            "recovered"
        );
        Ok((shard, replayed))
    }
}

/// Tells of what is left of a layout that does not count, and could not be removed.
fn warn_leftovers(removed: Result<(), wal::Error>) {
    if let Err(error) = removed {
        tracing::warn!("of an unfinished change of the number of shards something is left: {error}");
    }
}

/// Tells where frames are kept that do not count any more.
fn warn_kept(shard: usize, kept: &[PathBuf]) {
    for file in kept {
        tracing::warn!(
            shard,
            file = %file.display(),
            "whole frames were cut; they are kept here as they were, until a start with --discard-cut"
        );
    }
}

/// Why records could not be replayed.
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

impl From<wal::Error> for Replay {
    fn from(error: wal::Error) -> Replay {
        Replay::Log(error)
    }
}

/// Applies the changes of a record.
pub(crate) fn apply(shard: &mut Shard, record: &Record<'_>) -> Result<(), Replay> {
    for change in shard::decode(record.payload) {
        shard.apply(&change.map_err(|error| Replay::Malformed { seq: record.seq, error })?);
    }
    Ok(())
}

/// Writes a snapshot of the whole shard in place of its log. `last_id` is not below the id of any transaction that the
/// shard has a part of. Blocks.
fn replace_by_snapshot<D: Disk>(shard: &Shard, log: &mut Log<D>, last_id: u64) -> Result<(), wal::Error> {
    let mut writer = log.begin_snapshot()?;
    let id = snapshot_id(wall_clock_us().min(ID_MICROS_MAX), last_id);
    writer.append(Kind::Transaction { id, participants: &[] }, 0, &[])?;
    let mut target = Target { writer, changes: Changes::default() };
    write_all(shard, |change| target.put(change))?;
    target.flush()?;
    let snapshot = log.finish_snapshot(target.writer)?;
    log.retire(&snapshot).clear().map(drop)
}

/// Puts every key of a shard, expired ones too: they expire where they are put. What the clocks showed comes last.
pub(crate) fn write_all<E>(
    shard: &Shard,
    mut put: impl FnMut(&Change<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut position = Some(0);
    while let Some(from) = position {
        let mut done = Ok(());
        position = shard.walk(from, MOVE_KEYS, 0, |key, value, deadline_ms| {
            if done.is_ok() {
                done = put(&Change::Put { key, value, deadline_ms });
            }
        });
        done?;
    }
    shard.clocks().map_or(Ok(()), |clocks| put(&Change::Clocks(clocks)))
}

/// Seeds that nobody outside can know, from the randomness with which the standard library seeds its maps.
pub(crate) fn random_seeds() -> [u64; 4] {
    std::array::from_fn(|index| RandomState::new().hash_one(index))
}

/// A tag for a new layout; see [`wal::Place::tag`].
pub(crate) fn random_tag() -> u32 {
    RandomState::new().hash_one(()) as u32 | 1
}

/// Finds out what counts of a layout's logs, and makes them say it. All of them are read before any is changed.
fn judge<D: Disk>(
    disk: &D,
    layout: &Layout,
    segment_bytes: u64,
    loading: &Loading,
) -> Result<Arc<Resolution>, Failure> {
    let resolution = in_doubt::reach_noting(disk, layout, loading)?.accept(layout)?;
    if !resolution.is_news() {
        return Ok(Arc::new(resolution));
    }
    for index in 0..layout.shards {
        expect_changes(disk, layout, index)?;
    }
    carry_out(disk, layout, segment_bytes, resolution).map(Arc::new)
}

/// Demands that every frame of a shard can be replayed.
fn expect_changes<D: Disk>(disk: &D, layout: &Layout, index: u32) -> Result<(), Failure> {
    let read = wal::check(disk, &layout.shard_dir(index), layout.place(index), |record| {
        let malformed = |error| Replay::Malformed { seq: record.seq, error };
        shard::decode(record.payload).try_for_each(|change| change.map(drop).map_err(malformed))
    });
    read.map(drop).map_err(|error| error.of_shard(index as usize))
}

/// Makes the logs say what the resolution says. First every log is marked with the transactions that do not count: after a
/// crash from then on the same resolution is reached. Then the logs that end early are replaced by snapshots, so that what
/// follows is not mistaken for part of what was cut.
fn carry_out<D: Disk>(
    disk: &D,
    layout: &Layout,
    segment_bytes: u64,
    resolution: Resolution,
) -> Result<Resolution, Failure> {
    let resolution = Arc::new(resolution);
    let shard = |index| ShardData::new(disk, layout, index, segment_bytes, &resolution);
    let truncations =
        || resolution.truncations.iter().enumerate().filter_map(|(index, cut)| Some((index, (*cut)?)));
    // Before anything is marked, so that what is kept may count once the lost parts turn up.
    for (index, seq) in truncations() {
        let (_, log) = shard(index).recover()?;
        let kept = log.copy_aside(seq).map_err(|error| Failure::log(index, error))?;
        warn_kept(index, &kept);
    }
    for (index, ids) in resolution.unmarked.iter().enumerate().filter(|(_, ids)| !ids.is_empty()) {
        tracing::warn!(
            shard = index,
            transactions = ids.len(),
            "commands over several shards that a crash cut short were left out"
        );
        let (_, mut log) = shard(index).recover()?;
        for id in ids {
            log.append(Kind::Transaction { id: *id, participants: &[] }, 0, &[]);
        }
        log.sync().map_err(|error| Failure::log(index, error))?;
    }
    for (index, seq) in truncations() {
        let (shard, mut log) = shard(index).recover()?;
        let lost = log.next_seq() - seq;
        tracing::warn!(
            shard = index,
            frames = lost,
            "the end of the log builds on what another shard lost in a power cut; it is cut off"
        );
        replace_by_snapshot(&shard, &mut log, resolution.last_id)
            .map_err(|error| Failure::log(index, error))?;
    }
    Ok(Resolution {
        aborted: resolution.aborted.clone(),
        last_id: resolution.last_id,
        ..Resolution::default()
    })
}

/// Moves all keys to a new layout with another number of shards, which then counts. A crash, or a failure, leaves the
/// old one.
fn move_layout<D: Disk>(
    directory: &mut DataDir<D>,
    disk: &D,
    old: &Layout,
    shards: u32,
    segment_bytes: u64,
    loading: &Loading,
) -> Result<Layout, Failure> {
    let failed = |error| Failure::Log { shard: None, error };
    let resolution = judge(disk, old, segment_bytes, loading)?;
    if old.shards == 1 {
        // There was nothing to compare, so it was not read yet.
        expect_changes(disk, old, 0)?;
    }
    // What an earlier move left behind may take the room that this one needs.
    warn_leftovers(directory.remove_leftovers());
    let new = directory.create_layout(shards, random_tag()).map_err(failed)?;
    let moved = move_keys(disk, old, &new, segment_bytes, &resolution, loading)
        .and_then(|()| directory.activate(new.clone()).map_err(failed));
    if let Err(failure) = moved {
        let _ = directory.remove_leftovers(); // Or the next start does it.
        return Err(failure);
    }
    Ok(new)
}

/// Writes every key of the old layout into the shard of the new one that owns it. One old shard is in memory at a
/// time.
fn move_keys<D: Disk>(
    disk: &D,
    old: &Layout,
    new: &Layout,
    segment_bytes: u64,
    resolution: &Arc<Resolution>,
    loading: &Loading,
) -> Result<(), Failure> {
    let failed = |shard: usize| move |error| Failure::log(shard, error);
    loading.begin_step(old.shards as usize);
    let shards = new.shards as usize;
    let mut targets = Vec::with_capacity(shards);
    for index in 0..shards {
        targets.push(Target::create(disk, new, index).map_err(failed(index))?);
    }
    let mut newest: Option<Clocks> = None;
    let mut torn = Vec::new();
    for index in 0..old.shards as usize {
        let data = ShardData::new(disk, old, index, segment_bytes, resolution);
        let (shard, replayed) = data.read(Shard::new(random_seeds()), |record, keys| {
            loading.note(index, record, keys);
        })?;
        write_all(&shard, |change| {
            if let Change::Clocks(clocks) = *change {
                newest = newest.into_iter().chain([clocks]).max_by_key(|clocks| clocks.now_ms);
                return Ok(());
            }
            let owner = slots::owner(change.key().unwrap_or_default(), shards);
            targets[owner].put(change).map_err(failed(owner))
        })?;
        if replayed.recovered.cut.is_some() {
            torn.push((data, replayed));
        }
    }
    for (index, mut target) in targets.into_iter().enumerate() {
        let told = newest.map_or(Ok(()), |clocks| target.put(&Change::Clocks(clocks)));
        told.map_err(failed(index))?;
        target.finish().map_err(failed(index))?;
    }
    // What is cut is told and kept aside here as well.
    torn.into_iter().try_for_each(|(data, replayed)| data.open(replayed).map(drop))
}

/// A snapshot while keys are written into it.
pub(crate) struct Target<D: Disk> {
    writer: SnapshotWriter<D>,
    changes: Changes,
}

impl<D: Disk> Target<D> {
    /// Begins the snapshot with which a shard of a new layout starts.
    pub(crate) fn create(disk: &D, layout: &Layout, index: usize) -> Result<Target<D>, wal::Error> {
        let place = layout.place(index as u32);
        let writer = SnapshotWriter::create(disk, &layout.shard_dir(place.shard_index), place)?;
        Ok(Target { writer, changes: Changes::default() })
    }

    /// Syncs and names it.
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

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT_BYTES: u64 = 1 << 20;

    #[test]
    fn a_transaction_that_was_cut_short_is_noted_once() {
        let directory = tempfile::tempdir().unwrap();
        let open = || open_on(OsDisk::default(), directory.path(), 2, SEGMENT_BYTES).unwrap();
        let (_, mut log) = open().shard(0).recover().unwrap();
        let mut changes = Changes::default();
        changes.push(&Change::Put { key: b"half", value: b"1", deadline_ms: None });
        log.append(Kind::Transaction { id: 7 << 10, participants: &[0, 1] }, 1, changes.bytes());
        log.sync().unwrap();
        drop(log);
        let next_seqs: Vec<u64> = (0..3)
            .map(|_| {
                let (shard, log) = open().shard(0).recover().unwrap();
                assert_eq!(shard.key_count(), 0);
                log.next_seq()
            })
            .collect();
        assert_eq!(next_seqs, [3, 3, 3], "the transaction, then one note of it");
    }
}
