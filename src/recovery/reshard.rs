//! Moving all keys to another number of shards.

use std::sync::Arc;

use shard::{Change, Clocks, Shard};
use wal::{DataDir, Disk, Layout};

use super::in_doubt::Resolution;
use super::resolve::{expect_changes, resolve};
use super::restore::ShardData;
use super::rewrite::{Target, write_all};
use super::seeds::{random_seeds, random_tag};
use super::warn_leftovers;
use crate::failure::Failure;
use crate::shared::progress::Loading;
use crate::slots;

/// Moves all keys to a new layout with another number of shards, which then counts. A crash, or a failure, leaves the
/// old one.
pub(super) fn move_layout<D: Disk>(
    directory: &mut DataDir<D>,
    disk: &D,
    old: &Layout,
    shards: u32,
    segment_bytes: u64,
    loading: &Loading,
) -> Result<Layout, Failure> {
    let failed = |error| Failure::Log { shard: None, error };
    let resolution = resolve(disk, old, segment_bytes, loading)?;
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
        let mut restoring = data.restore(Shard::new(random_seeds()))?;
        while restoring.step()? {
            restoring.note(loading);
        }
        let (shard, replayed) = restoring.finish()?;
        write_all(&shard, |database, change| {
            if let Change::Clocks(clocks) = *change {
                newest = newest.into_iter().chain([clocks]).max_by_key(|clocks| clocks.now_ms);
                return Ok(());
            }
            let owner = slots::owner(change.key().unwrap_or_default(), shards);
            targets[owner].put(database, change).map_err(failed(owner))
        })?;
        if replayed.recovered.cut.is_some() {
            torn.push((data, replayed));
        }
    }
    for (index, mut target) in targets.into_iter().enumerate() {
        let told = newest.map_or(Ok(()), |clocks| target.put(0, &Change::Clocks(clocks)));
        told.map_err(failed(index))?;
        target.finish().map_err(failed(index))?;
    }
    // What is cut is told and kept aside here as well.
    torn.into_iter().try_for_each(|(data, replayed)| data.open(replayed).map(drop))
}
