//! One shard's files, read back into memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use shard::Shard;
use wal::{Disk, Layout, Log, Note, OsDisk, Place, Record, Replayed};

use super::in_doubt::Resolution;
use super::seeds::random_seeds;
use crate::failure::Failure;
use crate::shared::progress::Loading;

/// How many bytes of files one step reads, about: a worker takes a turn between two steps.
pub(super) const STEP_BYTES: u64 = 64 * 1024;

/// Where one shard's files are.
pub struct ShardData<D: Disk = OsDisk> {
    disk: D,
    directory: PathBuf,
    place: Place,
    segment_bytes: u64,
    resolution: Arc<Resolution>,
}

impl<D: Disk> ShardData<D> {
    pub(super) fn new(
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
        let mut restoring = self.restore(Shard::new(random_seeds()))?;
        while restoring.step()? {}
        let (shard, replayed) = restoring.finish()?;
        Ok((shard, self.open(replayed)?))
    }

    /// Begins to put into an empty shard what the snapshot and the log tell. Blocks.
    ///
    /// # Errors
    /// [`Failure::Log`].
    pub fn restore(&self, shard: Shard) -> Result<Restoring<D>, Failure> {
        let place = self.place;
        let replay = wal::Replay::open(&self.disk, &self.directory, place);
        let replay = replay.map_err(|error| Failure::log(place.shard_index as usize, error))?;
        Ok(Restoring { shard, replay, place, resolution: self.resolution.clone(), started: Instant::now() })
    }

    /// The log that was [read back](ShardData::restore), open for what follows. Until this, no file of the shard is
    /// changed: it waits until every shard is read. Blocks.
    ///
    /// # Errors
    /// [`Failure::Log`].
    pub fn open(&self, replayed: Replayed<D>) -> Result<Log<D>, Failure> {
        let index = self.place.shard_index as usize;
        if let Some(cut) = &replayed.recovered.cut {
            tracing::warn!(
                shard = index,
                path = %cut.path.display(),
                offset = cut.offset,
                bytes = cut.bytes,
                "the end of the log was torn, as a crash leaves it; it is cut there"
            );
            warn_kept(index, &cut.kept);
        }
        if let Some(path) = &replayed.recovered.lacking_synced {
            tracing::warn!(
                shard = index,
                path = %path.display(),
                "a file is missing or damaged; it has a copy, and is written again"
            );
        }
        Log::open(replayed, self.segment_bytes).map_err(|error| Failure::log(index, error))
    }
}

/// A shard on its way into memory, as far as it is let go on. It changes no file.
pub struct Restoring<D: Disk = OsDisk> {
    shard: Shard,
    replay: wal::Replay<D>,
    place: Place,
    resolution: Arc<Resolution>,
    started: Instant,
}

impl<D: Disk> Restoring<D> {
    /// Reads on for a moment. Returns whether anything is left. Blocks for as long as the disk needs.
    ///
    /// # Errors
    /// [`Failure::Log`], [`Failure::Replay`].
    pub fn step(&mut self) -> Result<bool, Failure> {
        let Restoring { shard, replay, place, resolution, .. } = self;
        let goes_on = replay.step(STEP_BYTES, |record| match resolution.counts(place.shard_index, &record) {
            true => apply(shard, &record),
            false => Ok(()),
        });
        goes_on.map_err(|error: ReplayError| error.of_shard(self.place.shard_index as usize))
    }

    /// Notes how far it is.
    pub fn note(&self, loading: &Loading) {
        let (read_bytes, total_bytes) = (self.replay.read_bytes(), self.replay.total_bytes());
        loading.note(self.place.shard_index as usize, read_bytes, total_bytes, self.shard.key_count());
    }

    /// The shard, and its log, which waits to be [opened](ShardData::open). Blocks.
    ///
    /// # Errors
    /// [`Failure::Log`].
    ///
    /// # Panics
    /// When [`Self::step`] has left anything.
    pub fn finish(self) -> Result<(Shard, Replayed<D>), Failure> {
        let index = self.place.shard_index as usize;
        let replayed = self.replay.finish().map_err(|error| Failure::log(index, error))?;
        let recovered = &replayed.recovered;
        tracing::info!(
            shard = index,
            keys = self.shard.key_count(),
            frames = recovered.snapshot_frames + recovered.log_frames,
            ms = self.started.elapsed().as_millis() as u64,
            "recovered"
        );
        Ok((self.shard, replayed))
    }
}

/// Tells where frames are kept that do not count any more.
pub(super) fn warn_kept(shard: usize, kept: &[PathBuf]) {
    for file in kept {
        tracing::warn!(
            shard,
            path = %file.display(),
            "whole frames were cut; they are kept here as they were, until a start with --discard-cut"
        );
    }
}

/// Why records could not be replayed.
#[derive(Debug)]
pub(crate) enum ReplayError {
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

impl ReplayError {
    pub(crate) fn of_shard(self, shard: usize) -> Failure {
        match self {
            ReplayError::Log(error) => Failure::log(shard, error),
            ReplayError::Malformed { seq, error } => Failure::Replay { shard, seq, error },
        }
    }
}

impl From<wal::Error> for ReplayError {
    fn from(error: wal::Error) -> ReplayError {
        ReplayError::Log(error)
    }
}

/// Applies the changes of a record.
pub(crate) fn apply(shard: &mut Shard, record: &Record<'_>) -> Result<(), ReplayError> {
    let applied = shard.apply_frame(record.payload);
    applied.map_err(|error| ReplayError::Malformed { seq: record.seq, error })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use shard::{Change, Changes};
    use wal::{Kind, MemDisk};

    use super::*;
    use crate::recovery::open_on;

    #[test]
    fn a_shard_is_restored_in_steps_of_bounded_size_and_each_shows_how_far_it_is() {
        const KEYS: usize = 2000;
        let (disk, path) = (MemDisk::default(), Path::new("/data"));
        let data = open_on(disk.clone(), path, 1, 1 << 20).unwrap();
        let (_, mut log) = data.shard(0).recover().unwrap();
        for number in 0..KEYS {
            let mut changes = Changes::default();
            let (key, value) = (number.to_le_bytes(), [7; 1000]);
            changes.push(&Change::Put { key: &key, value: &value, deadline_ms: None });
            log.append(Kind::Batch, 1, changes.bytes());
            log.flush().unwrap();
        }
        drop((data, log));

        let data = open_on(disk, path, 1, 1 << 20).unwrap().shard(0);
        let loading = Loading::new(1, 1, 1);
        let mut restoring = data.restore(Shard::new([0; 4])).unwrap();
        let mut before = loading.extent();
        while restoring.step().unwrap() {
            restoring.note(&loading);
            let now = loading.extent();
            assert!(now.keys - before.keys <= STEP_BYTES / 1000, "{before:?}, then {now:?}");
            assert!(now.read_bytes > before.read_bytes && now.read_bytes <= now.total_bytes);
            before = now;
        }
        let (shard, replayed) = restoring.finish().unwrap();
        assert_eq!((shard.key_count(), replayed.recovered.log_frames), (KEYS, KEYS as u64));
        assert!(before.keys > KEYS as u64 / 2, "{before:?}");
    }
}
