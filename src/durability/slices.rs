//! A snapshot while it is written: the keyspaces are walked in slices, one a turn.

use shard::{Change, Changes, Shard};
use wal::{Disk, Kind, OsDisk, SnapshotWriter};

/// How many keys one slice visits at most. A slice that was larger than a frame is followed by one of fewer keys, so
/// that large values do not make long turns.
const SLICE_KEYS_MAX: usize = 256;

/// After so many bytes the walk pauses until they are on disk.
const SYNC_BYTES: u64 = 8 * 1024 * 1024;

/// How many bytes of changes are gathered into one frame, about.
const FRAME_BYTES: usize = 64 * 1024;

/// A snapshot of which some slices are written.
pub(super) struct Slices {
    writer: SnapshotWriter<OsDisk>,
    /// Where the walk goes on.
    position: u64,
    /// Of the frame that is being gathered.
    changes: Changes,
    /// How many keys the next slice visits.
    slice_keys: usize,
    /// How many bytes were synced, or will be when the sync under way ends.
    synced_bytes: u64,
    is_syncing: bool,
}

/// What follows a slice.
pub(super) enum AfterSlice {
    /// The next slice.
    Slice,
    /// This file is to be synced before the next slice; [`Slices::on_synced`] tells that it is.
    Sync(<OsDisk as Disk>::File),
    /// Nothing: it was the last one.
    End,
}

impl Slices {
    pub fn new(writer: SnapshotWriter<OsDisk>) -> Slices {
        Slices {
            writer,
            position: 0,
            changes: Changes::default(),
            slice_keys: SLICE_KEYS_MAX,
            synced_bytes: 0,
            is_syncing: false,
        }
    }

    /// Whether the next slice can be written at once.
    pub fn is_ready(&self) -> bool {
        !self.is_syncing
    }

    /// What was written so far is synced.
    pub fn on_synced(&mut self) {
        self.is_syncing = false;
    }

    /// Writes the next slice.
    ///
    /// # Errors
    /// [`wal::Error::Io`]: the snapshot is to be given up.
    pub fn write_next(&mut self, now_ms: u64, shard: &Shard) -> Result<AfterSlice, wal::Error> {
        let Slices { writer, position, changes, slice_keys, synced_bytes, is_syncing } = self;
        let (mut written, mut bytes) = (Ok(()), 0);
        if *position == 0 {
            shard.tell_databases(changes);
        }
        let next = shard.walk(*position, *slice_keys, now_ms, |keyspace, key, value, deadline_ms| {
            changes.set_keyspace(keyspace);
            bytes += key.len() + value.len();
            changes.push(&Change::Put { key, value, deadline_ms });
            if changes.bytes().len() >= FRAME_BYTES && written.is_ok() {
                written = append(writer, changes);
            }
        });
        written?;
        *slice_keys = (*slice_keys * FRAME_BYTES / bytes.max(1)).clamp(1, SLICE_KEYS_MAX);
        let Some(next) = next else {
            append(writer, changes)?;
            return Ok(AfterSlice::End);
        };
        *position = next;
        if writer.bytes() < *synced_bytes + SYNC_BYTES {
            return Ok(AfterSlice::Slice);
        }
        (*synced_bytes, *is_syncing) = (writer.bytes(), true);
        Ok(AfterSlice::Sync(writer.file().clone()))
    }

    /// The snapshot with all that was written.
    pub fn into_writer(self) -> SnapshotWriter<OsDisk> {
        self.writer
    }
}

fn append(writer: &mut SnapshotWriter<OsDisk>, changes: &mut Changes) -> Result<(), wal::Error> {
    if !changes.is_empty() {
        writer.append(Kind::Batch, changes.count() as u32, changes.bytes())?;
        changes.clear(2 * FRAME_BYTES);
    }
    Ok(())
}
