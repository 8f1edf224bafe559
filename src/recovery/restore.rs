//! One shard's files, read back into memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use shard::Shard;
use wal::{Disk, Layout, Log, Note, OsDisk, Place, Record, Replayed};

use super::in_doubt::Resolution;
use super::seeds::random_seeds;
use crate::failure::Failure;

/// After how many bytes recovery pauses again, for others to have their turn.
const PAUSE_BYTES: u64 = 64 * 1024;

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

/// Tells where frames are kept that do not count any more.
pub(super) fn warn_kept(shard: usize, kept: &[PathBuf]) {
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
