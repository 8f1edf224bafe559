//! From the data directory back into shards, and from one number of shards to another.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shard::{Change, Changes, Shard};
use wal::{DataDir, Disk, Kind, Layout, Log, OsDisk, Place, Record, SnapshotWriter};

use crate::config::Config;
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
}

/// Where one shard's files are.
pub struct ShardData<D: Disk = OsDisk> {
    disk: D,
    directory: PathBuf,
    place: Place,
    segment_bytes: u64,
}

impl<D: Disk> Data<D> {
    /// The place of one shard.
    pub fn shard(&self, index: usize) -> ShardData<D> {
        ShardData::new(&self.disk, &self.layout, index, self.segment_bytes)
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
    Ok(Data { _directory: directory, disk, layout, segment_bytes })
}

impl<D: Disk> ShardData<D> {
    fn new(disk: &D, layout: &Layout, index: usize, segment_bytes: u64) -> ShardData<D> {
        let place = Place { shard_index: index as u32, shard_count: layout.shards };
        let directory = layout.shard_dir(place.shard_index);
        ShardData { disk: disk.clone(), directory, place, segment_bytes }
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

/// Seeds that nobody outside can know, from the randomness with which the standard library seeds its maps.
fn random_seeds() -> [u64; 4] {
    std::array::from_fn(|index| RandomState::new().hash_one(index))
}

/// Writes every key of the old layout into the shard of the new one that owns it. One old shard is in memory at a
/// time.
fn move_keys<D: Disk>(disk: &D, old: &Layout, new: &Layout, segment_bytes: u64) -> Result<(), Failure> {
    let failed = |shard: usize| move |error| Failure::log(shard, error);
    let shards = new.shards as usize;
    let mut targets = Vec::with_capacity(shards);
    for index in 0..shards {
        let place = Place { shard_index: index as u32, shard_count: new.shards };
        let directory = new.shard_dir(place.shard_index);
        let writer = SnapshotWriter::create(disk, &directory, place).map_err(failed(index))?;
        targets.push(Target { writer, changes: Changes::default() });
    }
    for index in 0..old.shards as usize {
        let (shard, _log) = ShardData::new(disk, old, index, segment_bytes).recover()?;
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
