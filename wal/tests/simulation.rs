//! The log on a simulated disk that fails and loses power at any moment, against a model.
//!
//! The state is a small map: key -> sequence number of the last frame that wrote it. After a power cut the
//! recovered map has to be the model's map after some frame between the last durable and the last appended
//! one, and recovery never refuses: nothing was damaged.

// Clippy takes only functions marked as tests for tests; this whole file is one.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use wal::{
    DataDir, Disk, DiskFile, Error, Kind, Log, MemDisk, Obsolete, Place, Snapshot, SnapshotWriter, SyncTicket,
};

const PLACE: Place = Place { shard_index: 0, shard_count: 1 };
const KEYS: u64 = 8;
/// How many seeds a usual run takes; `KVLITE_SIM_SEEDS` in the environment asks for others.
const SEEDS: u64 = 1000;

type Map = BTreeMap<u64, u64>;

/// Splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

fn dir() -> &'static Path {
    Path::new("/shard")
}

fn new_disk() -> MemDisk {
    let disk = MemDisk::default();
    disk.create_dir_all(dir()).unwrap();
    disk.open_dir(Path::new("/")).unwrap().sync_all().unwrap();
    disk
}

fn change(key: u64, seq: u64, padding: u64) -> Vec<u8> {
    let mut payload = [key.to_le_bytes(), seq.to_le_bytes()].concat();
    payload.resize(16 + padding as usize, 0xee);
    payload
}

fn apply(map: &mut Map, payload: &[u8]) {
    let number = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
    let last = map.entry(number(0)).or_default();
    // Replaying an older frame onto a newer state is harmless, as it is in the real thing at the end of a
    // replay.
    *last = number(8);
}

fn recover(disk: &MemDisk, segment_bytes: u64) -> Result<(Log<MemDisk>, Map), Error> {
    let mut map = Map::new();
    let (log, _) = Log::recover(disk, dir(), PLACE, segment_bytes, |record| {
        apply(&mut map, record.payload);
        Ok::<_, Error>(())
    })?;
    Ok((log, map))
}

/// One owner of the log: what it holds, and what it believes.
struct Owner {
    log: Log<MemDisk>,
    map: Map,
    /// The map after each frame; the index is the sequence number.
    history: Vec<Map>,
    /// What was reported durable.
    durable_seq: u64,
    tickets: Vec<SyncTicket<MemDisk>>,
    writer: Option<(SnapshotWriter<MemDisk>, u64)>,
    snapshot: Option<Snapshot>,
    obsolete: Vec<Obsolete<MemDisk>>,
}

impl Owner {
    fn new(log: Log<MemDisk>, map: Map, mut history: Vec<Map>) -> Owner {
        history.truncate(log.next_seq() as usize);
        let durable_seq = log.durable_seq();
        Owner {
            log,
            map,
            history,
            durable_seq,
            tickets: Vec::new(),
            writer: None,
            snapshot: None,
            obsolete: Vec::new(),
        }
    }

    fn append(&mut self, dice: &mut Dice) {
        let key = dice.below(KEYS);
        let payload = change(key, self.log.next_seq(), dice.below(3) * dice.below(300));
        self.log.append(Kind::Batch, 1, &payload);
        apply(&mut self.map, &payload);
        self.history.push(self.map.clone());
    }

    fn turn(&mut self, dice: &mut Dice) -> Result<(), Error> {
        match dice.below(16) {
            0..4 => self.append(dice),
            4..8 => drop(self.log.flush()?),
            8 => self.tickets.extend(self.log.begin_sync()),
            9 | 10 if !self.tickets.is_empty() => {
                let ticket = self.tickets.swap_remove(dice.below(self.tickets.len() as u64) as usize);
                if let Err(error) = ticket.run() {
                    self.log.fail_sync();
                    return Err(error);
                }
                self.log.finish_sync(&ticket);
            }
            11 => {
                if let Some(preparation) = self.log.prepare() {
                    let is_filled = dice.below(2) == 0;
                    let preparation = if is_filled { preparation } else { preparation.unfilled() };
                    self.log.adopt(preparation.run()?);
                }
            }
            12 if !self.obsolete.is_empty() => {
                let obsolete = self.obsolete.swap_remove(dice.below(self.obsolete.len() as u64) as usize);
                if let Some(spare) = obsolete.clear()? {
                    self.log.adopt(spare);
                }
            }
            13.. => self.snapshot_turn()?,
            _ => self.log.note_progress(),
        }
        Ok(())
    }

    /// One step of a snapshot: begin, one key after the other, end, retire.
    fn snapshot_turn(&mut self) -> Result<(), Error> {
        if let Some(snapshot) = self.snapshot.take() {
            let obsolete = self.log.retire(&snapshot);
            self.obsolete.push(obsolete);
            return Ok(());
        }
        let Some((mut writer, key)) = self.writer.take() else {
            self.writer = Some((self.log.begin_snapshot()?, 0));
            return Ok(());
        };
        if key < KEYS {
            if let Some(seq) = self.map.get(&key) {
                writer.append(Kind::Batch, 1, &change(key, *seq, 0))?;
            }
            self.writer = Some((writer, key + 1));
            return Ok(());
        }
        self.snapshot = Some(self.log.finish_snapshot(writer)?);
        Ok(())
    }

    fn note_durable(&mut self) {
        assert!(self.log.durable_seq() <= self.log.written_seq());
        assert!(self.durable_seq <= self.log.durable_seq());
        self.durable_seq = self.log.durable_seq();
    }
}

fn seeds() -> u64 {
    std::env::var("KVLITE_SIM_SEEDS")
        .map_or(SEEDS, |seeds| seeds.parse().expect("KVLITE_SIM_SEEDS is a number"))
}

/// Several lives of a log with a power cut between them.
fn simulate(seed: u64, failures: bool) {
    let mut dice = Dice(seed);
    let mut disk = new_disk();
    let segment_bytes = [300, 1000, 3000][dice.below(3) as usize];
    let (log, map) = recover(&disk, segment_bytes).unwrap();
    let mut owner = Owner::new(log, map.clone(), vec![map]);
    for life in 0..6 {
        for _ in 0..dice.below(200) {
            if failures && dice.below(40) == 0 {
                disk.fail_once(1 + dice.below(4), ErrorKind::StorageFull);
            }
            let outcome = owner.turn(&mut dice);
            assert!(failures || outcome.is_ok(), "seed {seed}, life {life}: {outcome:?}");
            owner.note_durable();
        }
        // Killing the process loses nothing that was written; only a power cut does.
        let killed = dice.below(2) == 0;
        let durable_seq = if killed { owner.log.written_seq() } else { owner.durable_seq };
        let history = owner.history;
        if killed {
            disk.heal();
        } else {
            disk = disk.power_cut(dice.below(u64::MAX));
        }
        // A crash in the middle of the recovery, and another power cut, change nothing.
        if !killed && dice.below(2) == 0 {
            disk.fail_from(1 + dice.below(6), ErrorKind::Other);
            let _ = recover(&disk, segment_bytes);
            disk = disk.power_cut(dice.below(u64::MAX));
        }
        let (log, map) = match recover(&disk, segment_bytes) {
            Ok(recovered) => recovered,
            Err(error) => panic!("seed {seed}, life {life}, durable {durable_seq}: {error}"),
        };
        let last_seq = log.next_seq() - 1;
        assert!(last_seq >= durable_seq, "seed {seed}, life {life}: {last_seq} of {durable_seq} are left");
        assert_eq!(map, history[last_seq as usize], "seed {seed}, life {life}, frame {last_seq}");
        owner = Owner::new(log, map, history);
    }
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_durable() {
    (0..seeds()).for_each(|seed| simulate(seed, false));
}

#[test]
fn failing_writes_and_syncs_lose_nothing_durable() {
    (0..seeds()).for_each(|seed| simulate(seed, true));
}

/// One scripted life, up to the first error; returns what is durable and how many snapshots were retired.
fn scripted(disk: &MemDisk, history: &mut Vec<Map>) -> (u64, Result<(), Error>) {
    let mut durable_seq = 0;
    let mut run = || {
        let (log, map) = recover(disk, 600)?;
        history.push(map.clone());
        let mut owner = Owner::new(log, map, std::mem::take(history));
        let mut dice = Dice(1);
        for _round in 0..3 {
            for _ in 0..12 {
                owner.append(&mut dice);
                let outcome = owner.log.flush();
                history.clone_from(&owner.history);
                outcome?;
            }
            durable_seq = owner.log.sync()?;
            let mut more = true;
            while more {
                owner.append(&mut dice);
                history.clone_from(&owner.history);
                owner.snapshot_turn()?;
                more = owner.obsolete.is_empty();
                durable_seq = owner.log.durable_seq();
            }
            if let Some(spare) = owner.obsolete.remove(0).clear()? {
                owner.log.adopt(spare);
            }
        }
        owner.log.close()
    };
    let outcome = run();
    (durable_seq, outcome)
}

#[test]
fn a_crash_before_every_single_operation_of_a_snapshot_loses_nothing_durable() {
    let disk = new_disk();
    scripted(&disk, &mut Vec::new()).1.unwrap();
    let operations = disk.operations();
    assert!(operations > 80);
    for stop in 1..=operations {
        for seed in 0..6 {
            let disk = new_disk();
            disk.fail_from(stop, ErrorKind::Other);
            let mut history = Vec::new();
            let (durable_seq, _) = scripted(&disk, &mut history);
            let disk = disk.power_cut(seed);
            let (log, map) =
                recover(&disk, 600).unwrap_or_else(|error| panic!("stop {stop}, seed {seed}: {error}"));
            let last_seq = log.next_seq() - 1;
            assert!(last_seq >= durable_seq, "stop {stop}, seed {seed}");
            // The closing mark is a frame without a change.
            let wanted = history.get(last_seq as usize).or(history.last()).cloned().unwrap_or_default();
            assert_eq!(map, wanted, "stop {stop}, seed {seed}, frame {last_seq}");
        }
    }
}

#[test]
fn a_crash_before_every_single_operation_of_a_new_layout_leaves_the_old_or_the_new_one() {
    let data = Path::new("/data");
    let open = |disk: &MemDisk| DataDir::open(disk.clone(), data, std::time::Duration::ZERO);
    let fill = |disk: &MemDisk, data_dir: &mut DataDir<MemDisk>, shards: u32| -> Result<(), Error> {
        let layout = data_dir.create_layout(shards)?;
        for shard_index in 0..shards {
            let place = Place { shard_index, shard_count: shards };
            let mut writer = SnapshotWriter::create(disk, &layout.shard_dir(shard_index), place)?;
            writer.append(Kind::Batch, 1, &[shards as u8; 20])?;
            writer.finish()?;
        }
        data_dir.activate(layout)
    };
    let old = MemDisk::default();
    let mut data_dir = open(&old).unwrap();
    fill(&old, &mut data_dir, 2).unwrap();
    drop(data_dir);
    let mut seen = [0; 2];
    for stop in 1.. {
        let mut finished = false;
        for seed in 0..6 {
            let disk = old.fork();
            let mut data_dir = open(&disk).unwrap();
            disk.fail_from(stop, ErrorKind::Other);
            let outcome = fill(&disk, &mut data_dir, 3);
            finished = outcome.is_ok() && disk.operations() < stop;
            let disk = disk.power_cut(seed);
            let data_dir = open(&disk).unwrap_or_else(|error| panic!("stop {stop}, seed {seed}: {error}"));
            data_dir.remove_leftovers().unwrap();
            let layout = data_dir.layout().expect("the directory was never empty").clone();
            assert!(outcome.is_err() || layout.shards == 3, "stop {stop}, seed {seed}");
            seen[layout.shards as usize - 2] += 1;
            for shard_index in 0..layout.shards {
                let place = Place { shard_index, shard_count: layout.shards };
                let mut replayed = Vec::new();
                Log::recover(&disk, &layout.shard_dir(shard_index), place, 4096, |record| {
                    replayed.push(record.payload.to_vec());
                    Ok::<_, Error>(())
                })
                .unwrap_or_else(|error| panic!("stop {stop}, seed {seed}: {error}"));
                assert_eq!(replayed, [[layout.shards as u8; 20]], "stop {stop}, seed {seed}");
            }
            let names = disk.list(data).unwrap();
            let id = layout.id;
            assert_eq!(
                names,
                [
                    "LOCK".to_owned(),
                    "MANIFEST".to_owned(),
                    format!("layout-{id}"),
                    format!("layout-{id}.synced")
                ][1..]
            );
        }
        if finished {
            break;
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "both outcomes occur: {seen:?}");
}
