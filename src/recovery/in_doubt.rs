//! Which transactions count after a crash.
//!
//! A transaction over several shards leaves a frame with its id in the log of each. It counts if every participant
//! has its part: a frame in the log, or a snapshot that was begun after it. Otherwise it was cut short, and it is
//! aborted: none of its parts is applied.
//!
//! - Its keys stay locked until every shard has written its frame. When a process dies, a transaction that was cut
//!   short was not seen by any client, and nothing in any log builds on it.
//! - A power cut may take a participant's frame back although the process had gone on. Then a later frame in another
//!   log may have changed a key of the transaction, and builds on it: that log ends before that frame. What it
//!   loses is not older than what the participant lost. Parts of other transactions may be among it; so the resolution
//!   is reached in rounds, until it holds.
//! - A snapshot never shows a transaction that a crash can take back: it begins and ends only while no transaction
//!   has a lock on its shard, and counts only after the other shards have synced their logs.
//!
//! For the comparison with snapshots ids carry the time, and two kinds of frames have no participants: in a snapshot
//! the id is the time at which it was begun; in a log it marks a transaction that was aborted before. A start marks
//! the transactions that it aborts before anything else is written: what follows a mark builds on none of them.
//!
//! Only a power cut takes a part back, and only before it was on disk. A log whose part is missing although another log
//! knows that it had been there ([`Standing::settled_seq`]), or although the machine has run ever since, was damaged:
//! then no other log is truncated for its sake, and the start is refused ([`Contradiction`]).
//!
//! Where frames are lost to damage, as repair finds it, a missing part proves nothing: the transaction counts.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use shard::Change;
use wal::{Disk, Kind, Layout, Record, Replay};

use super::restore::STEP_BYTES;
use crate::failure::{Contradiction, Failure};
use crate::mesh::TransactionId;
use crate::shared::progress::Loading;

/// The resolution of what is in doubt: what of the logs counts.
#[derive(Debug, Default)]
pub struct Resolution {
    /// Transactions that do not count.
    pub aborted: HashSet<TransactionId>,
    /// For each shard the first frame that does not count, nor any behind it.
    pub truncations: Vec<Option<u64>>,
    /// For each shard the transactions that it has a part of, that do not count, and whose log does not say so yet.
    pub unmarked: Vec<Vec<TransactionId>>,
    /// No transaction in the logs has a greater id.
    pub last_id: TransactionId,
    /// How many transactions count although a part of them is missing, since damage may have taken it.
    pub in_doubt: usize,
    /// Why none of this can be: then nothing else of it counts.
    pub contradiction: Option<Contradiction>,
}

/// How far the records of a shard can be relied on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// Damage may have taken some of them.
    pub has_lost: bool,
    /// Every part of every transaction up to this frame had been on disk.
    pub settled_seq: u64,
    /// The machine has run ever since they were written.
    pub is_same_boot: bool,
}

impl Resolution {
    /// Whether frame `record` of shard `shard_index` is applied.
    pub fn counts(&self, shard_index: u32, record: &Record<'_>) -> bool {
        if record.in_snapshot {
            return true;
        }
        let end = self.truncations.get(shard_index as usize).copied().flatten();
        let aborted = matches!(record.kind, Kind::Transaction { id, .. } if self.aborted.contains(&id));
        !aborted && end.is_none_or(|end| record.seq < end)
    }

    /// Itself, unless it cannot be.
    ///
    /// # Errors
    /// [`Failure::Contradiction`].
    pub fn accept(self, layout: &Layout) -> Result<Resolution, Failure> {
        match self.contradiction {
            None => Ok(self),
            Some(contradiction) => Err(Failure::Contradiction(contradiction.within(layout))),
        }
    }

    /// Whether the logs do not show it yet.
    pub fn is_news(&self) -> bool {
        self.truncations.iter().any(Option::is_some) || self.unmarked.iter().any(|ids| !ids.is_empty())
    }
}

/// What one shard's files tell about transactions.
#[derive(Default)]
struct Traces {
    /// The parts in the log: sequence number and participants.
    parts: HashMap<TransactionId, (u64, Box<[u32]>)>,
    /// When the snapshot was begun, as an id.
    snapshot_begun: TransactionId,
    /// Transactions that were aborted before.
    aborted: HashSet<TransactionId>,
    standing: Standing,
}

/// What a shard's records are handed to, in order.
pub type OnRecord<'a> = dyn FnMut(Record<'_>) + 'a;

/// Reads all logs of a layout and resolves what is in doubt.
///
/// # Errors
/// [`Failure::Log`] where a log is damaged.
pub fn reach<D: Disk>(disk: &D, layout: &Layout) -> Result<Resolution, Failure> {
    let shards = layout.shards as usize;
    reach_noting(disk, layout, &Loading::new(1, shards, shards))
}

/// As [`reach`]; a step of `loading`, unless there is only one shard.
///
/// # Errors
/// As there.
pub fn reach_noting<D: Disk>(disk: &D, layout: &Layout, loading: &Loading) -> Result<Resolution, Failure> {
    if layout.shards > 1 {
        loading.begin_step(layout.shards as usize);
    }
    reach_by(layout.shards, |shard_index, on_record| {
        let failed = |error| Failure::log(shard_index as usize, error);
        let place = layout.place(shard_index);
        let mut replay = Replay::open(disk, &layout.shard_dir(shard_index), place).map_err(failed)?;
        loop {
            let goes_on = replay.step(STEP_BYTES, |record| {
                on_record(record);
                Ok(())
            });
            loading.note(shard_index as usize, replay.read_bytes(), replay.total_bytes(), 0);
            if !goes_on.map_err(failed)? {
                break;
            }
        }
        let recovered = replay.finish().map_err(failed)?.recovered;
        Ok(Standing {
            has_lost: false,
            settled_seq: recovered.settled_seq,
            is_same_boot: recovered.is_same_boot,
        })
    })
}

/// Resolves what is in doubt by the records that `read` finds of each shard; it tells how far they can be relied on.
/// Every shard is read by a thread of its own, up to once for each round.
///
/// # Errors
/// Those of `read`.
pub fn reach_by(
    shards: u32,
    read: impl Fn(u32, &mut OnRecord<'_>) -> Result<Standing, Failure> + Sync,
) -> Result<Resolution, Failure> {
    if shards == 1 {
        return Ok(Resolution::default()); // There is nothing to compare.
    }
    let traces = on_every_shard(shards, |index| trace(|on_record| read(index, on_record)))?;
    let ids = traces.iter().flat_map(|traces| traces.parts.keys().chain([&traces.snapshot_begun]));
    let last_id = ids.copied().max().unwrap_or(0);
    let mut resolution =
        Resolution { truncations: vec![None; shards as usize], last_id, ..Resolution::default() };
    loop {
        (resolution.aborted, resolution.in_doubt) = aborted(&traces, &resolution.truncations);
        resolution.contradiction = contradiction(&traces, &resolution);
        if resolution.aborted.is_empty() || resolution.contradiction.is_some() {
            return Ok(resolution);
        }
        let so_far = &resolution;
        let truncations = on_every_shard(shards, |index| {
            first_dependent(|on_record| read(index, on_record), &so_far.aborted)
        })?;
        // A truncation only moves towards the log's begin, so this ends. The frame at it may be a part of a
        // transaction, which is aborted from now on: the next look by itself would not end the log there again.
        let earlier =
            |(so_far, found): (&Option<u64>, Option<u64>)| so_far.iter().copied().chain(found).min();
        let truncations: Vec<_> = resolution.truncations.iter().zip(truncations).map(earlier).collect();
        if truncations == resolution.truncations {
            break;
        }
        resolution.truncations = truncations;
    }
    resolution.unmarked = traces
        .iter()
        .map(|traces| {
            let parts = traces.parts.keys().copied();
            parts.filter(|id| resolution.aborted.contains(id) && !traces.aborted.contains(id)).collect()
        })
        .collect();
    Ok(resolution)
}

/// Runs `work` for every shard, side by side.
fn on_every_shard<T: Send>(
    shards: u32,
    work: impl Fn(u32) -> Result<T, Failure> + Sync,
) -> Result<Vec<T>, Failure> {
    std::thread::scope(|scope| {
        let work = &work;
        let start = |index| std::thread::Builder::new().spawn_scoped(scope, move || work(index));
        let threads: Vec<_> = (0..shards).map(start).collect::<Result<_, _>>().map_err(Failure::Thread)?;
        threads.into_iter().map(|thread| thread.join().expect("a panic ends the process")).collect()
    })
}

/// Whether a frame says of a transaction that a start aborted it.
pub fn is_mark(record: &Record<'_>) -> bool {
    !record.in_snapshot && matches!(record.kind, Kind::Transaction { participants: [], .. })
}

fn trace(read: impl FnOnce(&mut OnRecord<'_>) -> Result<Standing, Failure>) -> Result<Traces, Failure> {
    let mut traces = Traces::default();
    traces.standing = read(&mut |record| {
        if let Kind::Transaction { id, participants } = record.kind {
            match (participants, record.in_snapshot) {
                ([], true) => traces.snapshot_begun = id,
                ([], false) => drop(traces.aborted.insert(id)),
                _ => drop(traces.parts.insert(id, (record.seq, participants.into()))),
            }
        }
    })?;
    Ok(traces)
}

/// The transactions that do not count when each log ends at its truncation; and how many count in spite of a missing
/// part.
fn aborted(traces: &[Traces], truncations: &[Option<u64>]) -> (HashSet<TransactionId>, usize) {
    // `None` where damage hides it.
    let has_part = |participant: u32, id: &TransactionId| {
        let participant = participant as usize;
        let (Some(traces), Some(end)) = (traces.get(participant), truncations.get(participant)) else {
            return Some(false);
        };
        match traces.parts.get(id) {
            Some((seq, _)) => Some(end.is_none_or(|end| *seq < end)),
            None if traces.snapshot_begun >= *id => Some(true),
            None => (!traces.standing.has_lost).then_some(false),
        }
    };
    let mut aborted: HashSet<_> = traces.iter().flat_map(|traces| traces.aborted.iter().copied()).collect();
    let mut in_doubt = HashSet::new();
    for (id, (_, participants)) in traces.iter().flat_map(|traces| &traces.parts) {
        let mut found = participants.iter().map(|participant| has_part(*participant, id));
        if found.clone().any(|has_part| has_part == Some(false)) {
            aborted.insert(*id);
        } else if found.any(|has_part| has_part.is_none()) {
            in_doubt.insert(*id);
        }
    }
    let in_doubt = in_doubt.difference(&aborted).count();
    (aborted, in_doubt)
}

/// Where a transaction that does not count had all its parts on disk, or where what builds on one cannot be truncated.
fn contradiction(traces: &[Traces], resolution: &Resolution) -> Option<Contradiction> {
    for (shard, (of, end)) in traces.iter().zip(&resolution.truncations).enumerate() {
        let is_settled = |seq: u64| seq <= of.standing.settled_seq;
        for (id, (seq, participants)) in &of.parts {
            // One that is marked was aborted by a start that knew better.
            if !resolution.aborted.contains(id) || of.aborted.contains(id) {
                continue;
            }
            let Some(lacking) = lacking(traces, resolution, id, participants, traces.len()) else { continue };
            let stays = of.standing.is_same_boot && traces[lacking].standing.is_same_boot;
            let end = end.filter(|end| seq < end && (is_settled(*end) || stays));
            if let Some(seq) = end.or(is_settled(*seq).then_some(*seq)) {
                return Some(Contradiction { shard, seq, lacking, directory: PathBuf::new() });
            }
        }
    }
    None
}

/// The shard for whose sake a transaction does not count: one that lacks its part, and of which it is not known that
/// damage took it. Where a part is only truncated, it is the shard for whose sake that was done. Each truncation
/// follows from an earlier one, of which there is one for each shard at most.
fn lacking(
    traces: &[Traces],
    resolution: &Resolution,
    id: &TransactionId,
    participants: &[u32],
    truncations_max: usize,
) -> Option<usize> {
    let known = || participants.iter().map(|it| *it as usize).filter(|it| *it < traces.len());
    let lacks = |participant: &usize| {
        let of = &traces[*participant];
        !of.standing.has_lost && !of.parts.contains_key(id) && of.snapshot_begun < *id
    };
    let for_whose_sake = |participant: usize| {
        let (of, end) = (&traces[participant], resolution.truncations.get(participant).copied()??);
        let is_truncated = of.parts.get(id).is_some_and(|(seq, _)| *seq >= end);
        let causes = of.parts.iter().filter(|(id, (seq, _))| *seq < end && resolution.aborted.contains(id));
        is_truncated.then_some(causes)?.find_map(|(id, (_, participants))| {
            lacking(traces, resolution, id, participants, truncations_max.checked_sub(1)?)
        })
    };
    known().find(lacks).or_else(|| known().find_map(for_whose_sake))
}

/// The first frame of a log that builds on a transaction that does not count: it changes one of its keys.
fn first_dependent(
    read: impl FnOnce(&mut OnRecord<'_>) -> Result<Standing, Failure>,
    aborted: &HashSet<TransactionId>,
) -> Result<Option<u64>, Failure> {
    let mut touched: HashSet<Box<[u8]>> = HashSet::new();
    let mut all_touched = false;
    let mut end = None;
    read(&mut |record| {
        if record.in_snapshot || end.is_some() {
            return;
        }
        let is_aborted = match record.kind {
            Kind::Batch => false,
            Kind::Transaction { participants: [], .. } => {
                // The process that wrote what follows this mark had aborted what is before it.
                touched.clear();
                all_touched = false;
                return;
            }
            Kind::Transaction { id, .. } => aborted.contains(&id),
        };
        // A payload that is not a run of changes is refused when it is replayed.
        for change in shard::decode(record.payload).flatten() {
            match (is_aborted, change) {
                (_, Change::Clocks(_)) => {}
                (true, Change::Clear) => all_touched = true,
                (true, change) => touched.extend(change.key().map(Box::from)),
                (false, change) => {
                    let builds_on = match change.key() {
                        Some(key) => touched.contains(key),
                        None => !touched.is_empty(),
                    };
                    if all_touched || builds_on {
                        end = Some(record.seq);
                    }
                }
            }
        }
    })?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use shard::Changes;
    use wal::{Log, MemDisk};

    use super::*;
    use crate::recovery::{Data, open_on};

    const SEGMENT_BYTES: u64 = 1 << 20;

    fn open(disk: &MemDisk) -> Data<MemDisk> {
        open_on(disk.clone(), Path::new("/data"), 3, SEGMENT_BYTES).unwrap()
    }

    /// A layout of three shards whose logs `write` fills, after the end of the machine.
    fn written(write: impl FnOnce(&mut [Log<MemDisk>])) -> MemDisk {
        left_by_a_kill(write).reboot()
    }

    fn left_by_a_kill(write: impl FnOnce(&mut [Log<MemDisk>])) -> MemDisk {
        let disk = MemDisk::default();
        let data = open(&disk);
        let mut logs: Vec<_> = (0..3).map(|index| data.shard(index).recover().unwrap().1).collect();
        write(&mut logs);
        for log in &mut logs {
            log.flush().unwrap();
        }
        disk
    }

    fn put(key: &str, value: &str) -> Changes {
        let mut changes = Changes::default();
        changes.push(&Change::Put { key: key.as_bytes(), value: value.as_bytes(), deadline_ms: None });
        changes
    }

    fn splice(key: &str, offset: u32, bytes: &str) -> Changes {
        let mut changes = Changes::default();
        changes.push(&Change::Splice { key: key.as_bytes(), offset, bytes: bytes.as_bytes() });
        changes
    }

    fn alone(log: &mut Log<MemDisk>, changes: &Changes) {
        log.append(Kind::Batch, 1, changes.bytes());
    }

    fn part(log: &mut Log<MemDisk>, id: TransactionId, participants: &[u32], changes: &Changes) {
        log.append(Kind::Transaction { id: id << 10, participants }, 1, changes.bytes());
    }

    /// What the shards hold after a start, as `key=value`, sorted; the same after each of three starts.
    fn held(disk: &MemDisk) -> Vec<String> {
        let starts: Vec<Vec<String>> = (0..3)
            .map(|_| {
                let data = open(disk);
                let mut held = Vec::new();
                for index in 0..3 {
                    let (shard, _log) = data.shard(index).recover().unwrap();
                    shard.walk(0, usize::MAX, 0, |_, key, value, _| {
                        held.push(format!("{}={}", key.escape_ascii(), value.escape_ascii()));
                    });
                }
                held.sort_unstable();
                held
            })
            .collect();
        assert!(starts.iter().all(|held| *held == starts[0]), "every start finds the same: {starts:?}");
        starts.into_iter().next().unwrap()
    }

    /// Why a start is refused; it changes nothing.
    fn refused(disk: &MemDisk) -> Contradiction {
        let before = disk.operations();
        match open_on(disk.clone(), Path::new("/data"), 3, SEGMENT_BYTES) {
            Err(Failure::Contradiction(contradiction)) => {
                // The directory is made and synced, should it be missing.
                assert_eq!(disk.operations() - before, 2);
                contradiction
            }
            Err(failure) => panic!("{failure}"),
            Ok(_) => panic!("the start is not refused"),
        }
    }

    /// Shard 0 builds on a transaction whose other part is missing.
    fn half(logs: &mut [Log<MemDisk>]) {
        alone(&mut logs[0], &put("before", "1"));
        part(&mut logs[0], 1, &[0, 1], &put("left", "1"));
        alone(&mut logs[0], &splice("left", 1, "2"));
        alone(&mut logs[1], &put("other", "1"));
    }

    #[test]
    fn what_was_on_disk_everywhere_is_not_cut_off_for_another_shards_sake() {
        for (settled, seq) in [(1, None), (2, Some(2)), (3, Some(2))] {
            let disk = written(|logs| {
                half(logs);
                logs[0].sync().unwrap();
                logs[0].settle(settled);
                logs[0].note_progress();
            });
            let Some(seq) = seq else {
                assert_eq!(held(&disk), ["before=1", "other=1"], "a power cut can have taken it");
                continue;
            };
            let contradiction = refused(&disk);
            assert_eq!((contradiction.shard, contradiction.seq, contradiction.lacking), (0, seq, 1));
            let text = contradiction.to_string();
            for part in
                ["shard 1: /data/layout-1/shard-1: expected ", "shard 0", "kvlite repair /data --to NEW"]
            {
                assert!(text.contains(part), "{text}");
            }
        }
    }

    #[test]
    fn the_shard_that_lacks_its_part_is_named_and_not_one_that_was_cut_for_its_sake() {
        let disk = written(|logs| {
            part(&mut logs[1], 1, &[1, 2], &put("one", "1"));
            alone(&mut logs[1], &splice("one", 1, "2"));
            part(&mut logs[1], 2, &[0, 1], &put("other", "1"));
            part(&mut logs[0], 2, &[0, 1], &put("another", "1"));
            logs[0].sync().unwrap();
            logs[0].settle(1);
            logs[0].note_progress();
        });
        let Contradiction { shard, seq, lacking, .. } = refused(&disk);
        assert_eq!((shard, seq, lacking), (0, 1, 2));
    }

    #[test]
    fn a_shard_that_has_lost_frames_is_not_blamed_again() {
        let disk = written(|logs| {
            part(&mut logs[0], 1, &[0, 1, 2], &put("left", "1"));
            logs[0].sync().unwrap();
            logs[0].settle(1);
            logs[0].note_progress();
        });
        let layout = wal::DataDir::inspect(disk.clone(), Path::new("/data"), Duration::ZERO).unwrap();
        let layout = layout.layout.unwrap().unwrap();
        let mut blamed = Vec::new();
        loop {
            let resolution = reach_by(3, |index, on_record| {
                let (directory, place) = (layout.shard_dir(index), layout.place(index));
                let found = wal::check(&disk, &directory, place, |record| {
                    on_record(record);
                    Ok::<_, wal::Error>(())
                });
                let (has_lost, settled_seq) =
                    (blamed.contains(&(index as usize)), found.unwrap().settled_seq);
                Ok(Standing { has_lost, settled_seq, is_same_boot: false })
            });
            let Some(contradiction) = resolution.unwrap().contradiction else { break };
            assert!(!blamed.contains(&contradiction.lacking), "{blamed:?}, then {}", contradiction.lacking);
            blamed.push(contradiction.lacking);
        }
        assert_eq!(blamed, [1, 2]);
    }

    #[test]
    fn what_is_kept_aside_stays_when_the_keys_move() {
        let disk = written(half);
        let data = open_on(disk.clone(), Path::new("/data"), 2, SEGMENT_BYTES).unwrap();
        drop(data);
        let kept = Path::new("/data/layout-1.shard-0.00000000000000000001.log.3.cut");
        assert!(disk.read(kept).is_ok(), "{:?}", disk.list(Path::new("/data")));
    }

    #[test]
    fn nothing_is_cut_off_for_another_shards_sake_while_the_machine_runs() {
        let disk = left_by_a_kill(|logs| {
            logs.iter_mut().for_each(Log::note_progress);
            half(logs);
        });
        let Contradiction { shard, seq, lacking, .. } = refused(&disk);
        assert_eq!((shard, seq, lacking), (0, 3, 1));
        assert_eq!(held(&disk.reboot()), ["before=1", "other=1"]);
    }

    #[test]
    fn what_is_cut_off_for_another_shards_sake_is_kept_aside() {
        let disk = written(half);
        let path = Path::new("/data/layout-1/shard-0/00000000000000000001.log");
        let log = disk.read(path).unwrap();
        assert_eq!(held(&disk), ["before=1", "other=1"]);
        let kept = Path::new("/data/layout-1/shard-0/00000000000000000001.log.3.cut");
        assert!(disk.read(kept).unwrap()[..100] == log[..100]);
    }

    #[test]
    fn a_transaction_counts_when_every_participant_has_its_part() {
        let disk = written(|logs| {
            part(&mut logs[0], 1, &[0, 1], &put("a", "1"));
            part(&mut logs[1], 1, &[0, 1], &put("b", "1"));
        });
        assert_eq!(held(&disk), ["a=1", "b=1"]);
    }

    #[test]
    fn one_that_was_cut_short_is_aborted_and_nothing_else() {
        let disk = written(|logs| {
            alone(&mut logs[0], &put("a", "0"));
            part(&mut logs[0], 1, &[0, 1], &put("a", "1"));
            alone(&mut logs[0], &put("other", "2"));
        });
        assert_eq!(held(&disk), ["a=0", "other=2"]);
    }

    #[test]
    fn what_is_written_after_a_transaction_was_aborted_stays() {
        let disk = written(|logs| {
            alone(&mut logs[0], &put("a", "0"));
            part(&mut logs[0], 1, &[0, 1], &put("a", "1"));
        });
        let (_, mut log) = open(&disk).shard(0).recover().unwrap();
        alone(&mut log, &put("a", "2"));
        log.flush().unwrap();
        drop(log);
        assert_eq!(held(&disk), ["a=2"]);
    }

    #[test]
    fn a_log_ends_where_it_builds_on_what_was_lost() {
        let disk = written(|logs| {
            alone(&mut logs[0], &put("a", "long value"));
            part(&mut logs[0], 1, &[0, 1], &put("a", "1"));
            alone(&mut logs[0], &put("before", "kept"));
            alone(&mut logs[0], &splice("a", 1, "x"));
            alone(&mut logs[0], &put("behind", "lost"));
        });
        assert_eq!(held(&disk), ["a=long value", "before=kept"]);
    }

    #[test]
    fn what_a_truncation_takes_from_one_log_is_aborted_in_the_others() {
        let disk = written(|logs| {
            part(&mut logs[0], 1, &[0, 1], &put("a", "1")); // Shard 1 lost its part.
            alone(&mut logs[0], &put("a", "builds on it"));
            part(&mut logs[0], 2, &[0, 2], &put("c", "2"));
            part(&mut logs[2], 2, &[0, 2], &put("d", "2"));
            alone(&mut logs[2], &put("kept", "1"));
            alone(&mut logs[2], &put("d", "builds on it"));
            alone(&mut logs[2], &put("lost", "1"));
        });
        assert_eq!(held(&disk), ["kept=1"]);
    }

    #[test]
    fn a_transaction_that_builds_on_a_lost_one_is_aborted_too() {
        let disk = written(|logs| {
            alone(&mut logs[0], &put("kept", "1"));
            part(&mut logs[0], 1, &[0, 1], &put("a", "1")); // Shard 1 lost its part.
            part(&mut logs[0], 2, &[0, 2], &put("a", "2"));
            part(&mut logs[2], 2, &[0, 2], &put("d", "2"));
        });
        assert_eq!(held(&disk), ["kept=1"]);
    }

    #[test]
    fn clearing_everything_counts_as_a_change_of_every_key() {
        let mut clear = Changes::default();
        clear.push(&Change::Clear);
        let disk = written(|logs| {
            alone(&mut logs[0], &put("a", "0"));
            part(&mut logs[0], 1, &[0, 1, 2], &clear);
            alone(&mut logs[0], &put("b", "builds on it"));
        });
        assert_eq!(held(&disk), ["a=0"]);
    }

    #[test]
    fn a_participant_may_have_its_part_in_a_snapshot_that_was_begun_later() {
        for (begun, expected) in [(9, vec!["a=1", "b=1"]), (3, vec!["b=1"])] {
            let disk = written(|logs| {
                part(&mut logs[0], 5, &[0, 1], &put("a", "1"));
                let mut writer = logs[1].begin_snapshot().unwrap();
                writer.append(Kind::Transaction { id: begun << 10, participants: &[] }, 0, &[]).unwrap();
                writer.append(Kind::Batch, 1, put("b", "1").bytes()).unwrap();
                let snapshot = logs[1].finish_snapshot(writer).unwrap();
                logs[1].retire(&snapshot).clear().unwrap();
            });
            assert_eq!(held(&disk), expected, "a snapshot begun at {begun}");
        }
    }
}
