//! From the data directory back into shards, and from one number of shards to another.
//!
//! What counts after a crash is for [`crate::verdict`] to say; here it is carried out.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shard::{Change, Changes, Shard};
use wal::{DataDir, Disk, Kind, Layout, Log, OsDisk, Place, Record, SnapshotWriter};

use crate::config::Config;
use crate::router;
use crate::server::Failure;
use crate::verdict::{self, Verdict};
use crate::worker::wall_clock_us;

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
    verdict: Arc<Verdict>,
}

/// Where one shard's files are.
pub struct ShardData<D: Disk = OsDisk> {
    disk: D,
    directory: PathBuf,
    place: Place,
    segment_bytes: u64,
    verdict: Arc<Verdict>,
}

impl<D: Disk> Data<D> {
    /// The place of one shard.
    pub fn shard(&self, index: usize) -> ShardData<D> {
        ShardData::new(&self.disk, &self.layout, index, self.segment_bytes, &self.verdict)
    }

    /// The time in the greatest id of a transaction or a snapshot in the files; 0 where there is none.
    pub fn last_id_us(&self) -> u64 {
        verdict::id_micros(self.verdict.last_id)
    }

    /// Makes the logs say what the verdict says. First every log is marked with the transactions that do not count:
    /// after a crash from then on the same verdict is reached. Then the logs that end early are replaced by
    /// snapshots, so that what follows is not mistaken for part of what was cut.
    fn carry_out(self) -> Result<Data<D>, Failure> {
        for (index, ids) in self.verdict.unmarked.iter().enumerate().filter(|(_, ids)| !ids.is_empty()) {
            tracing::warn!(
                shard = index,
                transactions = ids.len(),
                "commands over several shards that a crash cut short were left out"
            );
            let (_, mut log) = self.shard(index).recover()?;
            for id in ids {
                log.append(Kind::Transaction { id: *id, participants: &[] }, 0, &[]);
            }
            log.sync().map_err(|error| Failure::log(index, error))?;
        }
        for (index, cut) in self.verdict.cuts.iter().enumerate() {
            let Some(seq) = cut else { continue };
            let (shard, mut log) = self.shard(index).recover()?;
            let lost = log.next_seq() - seq;
            tracing::warn!(
                shard = index,
                frames = lost,
                "the end of the log builds on what another shard lost in a power cut; it was cut off"
            );
            replace_by_snapshot(&shard, &mut log, self.verdict.last_id)
                .map_err(|error| Failure::log(index, error))?;
        }
        let Verdict { left_out, last_id, .. } = &*self.verdict;
        let verdict = Verdict { left_out: left_out.clone(), last_id: *last_id, ..Verdict::default() };
        Ok(Data { verdict: Arc::new(verdict), ..self })
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
    let verdict = Arc::new(verdict::reach(&disk, &layout)?);
    let data = Data { _directory: directory, disk, layout, segment_bytes, verdict };
    if data.verdict.is_news() { data.carry_out() } else { Ok(data) }
}

impl<D: Disk> ShardData<D> {
    fn new(
        disk: &D,
        layout: &Layout,
        index: usize,
        segment_bytes: u64,
        verdict: &Arc<Verdict>,
    ) -> ShardData<D> {
        let place = Place { shard_index: index as u32, shard_count: layout.shards };
        let directory = layout.shard_dir(place.shard_index);
        ShardData { disk: disk.clone(), directory, place, segment_bytes, verdict: verdict.clone() }
    }

    /// The shard as its snapshot and log tell, and the log, open for what follows. Blocks.
    ///
    /// # Errors
    /// [`Failure::Log`], [`Failure::Replay`].
    pub fn recover(&self) -> Result<(Shard, Log<D>), Failure> {
        let index = self.place.shard_index as usize;
        let started = Instant::now();
        let mut shard = Shard::new(random_seeds());
        let apply = |record: Record<'_>| {
            if !self.verdict.counts(self.place.shard_index, &record) {
                return Ok(());
            }
            for change in shard::decode(record.payload) {
                let replay = |error| Replay::Malformed { seq: record.seq, error };
                shard.apply(&change.map_err(replay)?);
            }
            Ok(())
        };
        let recovered = Log::recover(&self.disk, &self.directory, self.place, self.segment_bytes, apply);
        let (log, recovered) = recovered.map_err(|error| match error {
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

/// Writes a snapshot of the whole shard in place of its log. `last_id` is not below the id of any transaction that
/// the shard has a part of. Blocks.
fn replace_by_snapshot<D: Disk>(shard: &Shard, log: &mut Log<D>, last_id: u64) -> Result<(), wal::Error> {
    let mut writer = log.begin_snapshot()?;
    let id = verdict::snapshot_id(wall_clock_us(), last_id);
    writer.append(Kind::Transaction { id, participants: &[] }, 0, &[])?;
    let mut target = Target { writer, changes: Changes::default() };
    write_all(shard, |change| target.put(change))?;
    target.flush()?;
    let mut ending = log.end_snapshot(target.writer)?;
    log.sync()?;
    log.cover(&mut ending)?;
    let snapshot = ending.finish().map_err(|failed| log.fail_snapshot(failed))?;
    log.retire(&snapshot).clear().map(drop)
}

/// Puts every key of a shard, expired ones too: they expire where they are put.
fn write_all<E>(shard: &Shard, mut put: impl FnMut(&Change<'_>) -> Result<(), E>) -> Result<(), E> {
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
    Ok(())
}

/// Seeds that nobody outside can know, from the randomness with which the standard library seeds its maps.
pub(crate) fn random_seeds() -> [u64; 4] {
    std::array::from_fn(|index| RandomState::new().hash_one(index))
}

/// Writes every key of the old layout into the shard of the new one that owns it. One old shard is in memory at a
/// time.
fn move_keys<D: Disk>(disk: &D, old: &Layout, new: &Layout, segment_bytes: u64) -> Result<(), Failure> {
    let failed = |shard: usize| move |error| Failure::log(shard, error);
    let verdict = Arc::new(verdict::reach(disk, old)?);
    let shards = new.shards as usize;
    let mut targets = Vec::with_capacity(shards);
    for index in 0..shards {
        let place = Place { shard_index: index as u32, shard_count: new.shards };
        let directory = new.shard_dir(place.shard_index);
        let writer = SnapshotWriter::create(disk, &directory, place).map_err(failed(index))?;
        targets.push(Target { writer, changes: Changes::default() });
    }
    for index in 0..old.shards as usize {
        let (shard, _log) = ShardData::new(disk, old, index, segment_bytes, &verdict).recover()?;
        write_all(&shard, |change| {
            let owner = router::owner(change.key().unwrap_or_default(), shards);
            targets[owner].put(change).map_err(failed(owner))
        })?;
    }
    for (index, mut target) in targets.into_iter().enumerate() {
        target.flush().and_then(|()| target.writer.finish()).map_err(failed(index))?;
    }
    Ok(())
}

struct Target<D: Disk> {
    writer: SnapshotWriter<D>,
    changes: Changes,
}

impl<D: Disk> Target<D> {
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
        let open = || open_on(OsDisk, directory.path(), 2, SEGMENT_BYTES).unwrap();
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
