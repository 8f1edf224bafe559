//! A whole shard written as a snapshot.

use shard::{Change, Changes, Shard};
use wal::{Disk, Kind, Layout, Log, SnapshotWriter};

use crate::clock::wall_clock_us;
use crate::txn::id::{ID_MICROS_MAX, snapshot_id};

/// How many keys are moved between shards at a time.
const MOVE_KEYS: usize = 1024;

/// How many bytes of changes are gathered into one frame of a moved shard, about.
const MOVE_FRAME_BYTES: usize = 64 * 1024;

/// Puts every key of a shard, with the number of its database, expired ones too: they expire where they are put. What the
/// clocks showed comes last.
pub(crate) fn write_all<E>(
    shard: &Shard,
    mut put: impl FnMut(u16, &Change<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut position = Some(0);
    while let Some(from) = position {
        let mut done = Ok(());
        position = shard.walk(from, MOVE_KEYS, 0, |keyspace, key, value, deadline_ms| {
            if done.is_ok() {
                done = put(shard.database_of(keyspace), &Change::Put { key, value, deadline_ms });
            }
        });
        done?;
    }
    shard.clocks().map_or(Ok(()), |clocks| put(0, &Change::Clocks(clocks)))
}

/// Writes a snapshot of the whole shard in place of its log. `last_id` is not below the id of any transaction that the
/// shard has a part of. Blocks.
pub(super) fn replace_by_snapshot<D: Disk>(
    shard: &Shard,
    log: &mut Log<D>,
    last_id: u64,
) -> Result<(), wal::Error> {
    let mut writer = log.begin_snapshot()?;
    let id = snapshot_id(wall_clock_us().min(ID_MICROS_MAX), last_id);
    writer.append(Kind::Transaction { id, participants: &[] }, 0, &[])?;
    let mut target = Target { writer, changes: Changes::default() };
    write_all(shard, |database, change| target.put(database, change))?;
    target.flush()?;
    let snapshot = log.finish_snapshot(target.writer)?;
    log.retire(&snapshot).clear().map(drop)
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

    /// Adds a change of a key of this database, whose keyspace gets the same number.
    pub(crate) fn put(&mut self, database: u16, change: &Change<'_>) -> Result<(), wal::Error> {
        self.changes.set_keyspace(database);
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
