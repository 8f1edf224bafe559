//! From the data directory back into shards, and from one number of shards to another.
//!
//! What counts after a crash is for [`crate::recovery::in_doubt`] to say; here it is carried out.

pub(crate) mod in_doubt;
mod reshard;
mod resolve;
mod restore;
mod rewrite;
mod seeds;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wal::{DataDir, Disk, Layout, OsDisk};

use crate::config::Config;
use crate::failure::Failure;
use crate::shared::progress::Loading;
use crate::txn::id::id_micros;
use in_doubt::Resolution;
use reshard::move_layout;
use resolve::resolve;

pub(crate) use restore::{ReplayError, apply};
pub use restore::{Restoring, ShardData};
pub(crate) use rewrite::{Target, write_all};
pub(crate) use seeds::{random_seeds, random_tag};

/// How long the lock of the data directory is waited for: after a kill, the kernel still finishes what the killed
/// process had submitted, and holds its files meanwhile.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The files of the Go kvlite in its data directory.
pub const GO_NAMES: [&str; 2] = ["kvlite.snapshot", "kvlite.wal"];

/// The locked data directory, with a layout for the number of shards that the server has.
pub struct Data<D: Disk = OsDisk> {
    /// It holds the lock.
    directory: DataDir<D>,
    disk: D,
    layout: Layout,
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
/// [`Failure::Log`]; [`Failure::GoData`], so that no user takes a server without keys for theirs.
pub fn lock(config: &Config) -> Result<Found, Failure> {
    let holds = |name: &str| config.wal_path.join(name).exists();
    if GO_NAMES.into_iter().any(holds) && !holds("MANIFEST") {
        return Err(Failure::GoData { path: config.wal_path.clone() });
    }
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
            tracing::warn!(
                path = %path.display(),
                ms = LOCK_WAIT.as_millis() as u64,
                "waiting for the data directory, which another server uses or has just left; --wal-path names \
                 another one"
            );
            directory = DataDir::open(disk.clone(), path, LOCK_WAIT);
        }
        let directory = directory.map_err(|error| Failure::Log { shard: None, error })?;
        Ok(Found { directory, disk, shards, segment_bytes })
    }

    /// What is to be loaded: [`Found::prepare`] and then [`ShardData::recover`] for every shard.
    pub fn loading(&self) -> Loading {
        let of_resolution = |shards: u32| usize::from(shards > 1);
        let (own, old) = (self.shards, self.directory.layout().map(|layout| layout.shards));
        let moving = old.filter(|old| *old != own).map_or(0, |old| of_resolution(old) + 1);
        let steps = moving + of_resolution(own) + 1;
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
        let resolution = resolve(&disk, &layout, segment_bytes, loading)?;
        let data = Data { directory, disk, layout, segment_bytes, resolution };
        loading.begin_step(shards as usize);
        Ok(data)
    }
}

/// Tells of what is left of a layout that does not count, and could not be removed.
fn warn_leftovers(removed: Result<(), wal::Error>) {
    if let Err(error) = removed {
        tracing::warn!(%error, "something is left of an unfinished change of the number of shards");
    }
}
