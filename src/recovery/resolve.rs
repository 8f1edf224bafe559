//! Making the logs say what counts of them.

use std::sync::Arc;

use wal::{Disk, Kind, Layout};

use super::in_doubt::{self, Resolution};
use super::restore::{ReplayError, ShardData, warn_kept};
use super::rewrite::replace_by_snapshot;
use crate::failure::Failure;
use crate::shared::progress::Loading;

/// Finds out what counts of a layout's logs, and makes them say it. All of them are read before any is changed.
pub(super) fn resolve<D: Disk>(
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
pub(super) fn expect_changes<D: Disk>(disk: &D, layout: &Layout, index: u32) -> Result<(), Failure> {
    let read = wal::check(disk, &layout.shard_dir(index), layout.place(index), |record| {
        let malformed = |error| ReplayError::Malformed { seq: record.seq, error };
        shard::decode(record.payload).try_for_each(|change| change.map(drop).map_err(malformed))
    });
    read.map(drop).map_err(|error| error.of_shard(index as usize))
}

/// Makes the logs say what the resolution says. First every log is marked with the transactions that do not count:
/// after a crash from then on the same resolution is reached. Then the logs that end early are replaced by snapshots,
/// so that what follows is not mistaken for part of what was truncated.
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
            "commands over several shards that a crash cut short are aborted"
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

#[cfg(test)]
mod tests {
    use shard::{Change, Changes};
    use wal::OsDisk;

    use super::*;
    use crate::recovery::open_on;

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
