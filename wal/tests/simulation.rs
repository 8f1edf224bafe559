//! The log on a simulated disk that fails and loses power at any moment, against a model.
//!
//! The state is a small map: key -> sequence number of the last frame that wrote it. After a power cut the
//! recovered map has to be the model's map after some frame between the last durable and the last appended
//! one, and recovery never refuses: nothing was damaged.
//!
//! Each run takes the same seeds as the one before, and as many fresh ones, from a number on that it prints. A failure
//! prints its seed, and `KVLITE_SIM_SEED=<seed>` repeats it. `KVLITE_SIM_SEEDS=<count>` takes so many seeds in place
//! of the usual number, of either sort.

// Clippy takes only functions marked as tests for tests; this whole file is one.
#![allow(clippy::unwrap_used)]

use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use wal::{
    DataDir, Disk, DiskFile, Error, Kind, Log, MemDisk, Obsolete, Place, Snapshot, SnapshotWriter, SyncTicket,
};

const TAG: u32 = 7;
const PLACE: Place = Place { shard_index: 0, shard_count: 1, tag: TAG };
const KEYS: u64 = 8;
/// A key and a sequence number; padding may follow.
const CHANGE_BYTES: usize = 16;
/// How many seeds a usual run takes, of those that are always the same and of fresh ones.
const SEEDS: u64 = 1000;
/// Fresh seeds, so that each run sees lives that no run has seen.
static FRESH_SEED: LazyLock<u64> = LazyLock::new(|| {
    let seed = RandomState::new().hash_one(()) >> 1;
    // The test harness shows what `println` writes only when a test fails; one that hangs is to be repeated, too.
    writeln!(std::io::stderr(), "fresh seeds: from {seed} on").expect("stderr is open");
    seed
});

/// The sequence number of each key's last change; 0 where there is none.
type Map = [u64; KEYS as usize];

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
    payload.resize(CHANGE_BYTES + padding as usize, 0xee);
    payload
}

fn apply(map: &mut Map, payload: &[u8]) {
    let number = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
    // Replaying an older frame onto a newer state is harmless, as it is in the real thing at the end of a
    // replay.
    map[number(0) as usize] = number(8);
}

fn recover(disk: &MemDisk, segment_bytes: u64) -> Result<(Log<MemDisk>, Map), Error> {
    let mut map = Map::default();
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
        self.history.push(self.map);
    }

    /// Appends a frame whose end was written before, sometimes with others before it meanwhile.
    fn append_staged(&mut self, dice: &mut Dice) -> Result<(), Error> {
        let (key, padding) = (dice.below(KEYS), 1 + dice.below(600));
        let part = Bytes::from(change(0, 0, padding).split_off(CHANGE_BYTES));
        let mut staged = self.log.stage(CHANGE_BYTES, part)?;
        while !staged.step(1 + dice.below(400) as usize)? {
            if dice.below(4) == 0 {
                self.append(dice);
                self.log.flush()?;
            }
        }
        let payload = change(key, self.log.next_seq(), 0);
        self.log.append_staged(staged, 1, &payload);
        apply(&mut self.map, &payload);
        self.history.push(self.map);
        Ok(())
    }

    fn turn(&mut self, dice: &mut Dice) -> Result<(), Error> {
        match dice.below(18) {
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
            13..16 => self.snapshot_turn()?,
            16 => self.log.reserve()?,
            17 => self.append_staged(dice)?,
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
            let seq = self.map[key as usize];
            if seq > 0 {
                writer.append(Kind::Batch, 1, &change(key, seq, 0))?;
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

/// Says how to repeat a run that panics.
struct Repeat(&'static str, u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Repeat(test, seed) = self;
            eprintln!("again: KVLITE_SIM_SEED={seed} cargo test -p wal --test simulation {test}");
        }
    }
}

fn each_seed(test: &'static str, run: impl Fn(u64)) {
    let number =
        |name| std::env::var(name).ok().map(|text| text.parse().expect("a number in the environment"));
    let run = |seed| {
        let _repeat = Repeat(test, seed);
        run(seed);
    };
    if let Some(seed) = number("KVLITE_SIM_SEED") {
        return run(seed);
    }
    let count = number("KVLITE_SIM_SEEDS").unwrap_or(SEEDS);
    (0..count).chain(*FRESH_SEED..*FRESH_SEED + count).for_each(run);
}

/// Several lives of a log with a power cut between them.
fn simulate(seed: u64, failures: bool) {
    let mut dice = Dice(seed);
    let mut disk = new_disk();
    let segment_bytes = [300, 1000, 3000][dice.below(3) as usize];
    let fills = dice.below(2) == 0;
    let (log, map) = recover(&disk, segment_bytes).unwrap();
    let mut owner = Owner::new(log, map, vec![map]);
    for life in 0..6 {
        if fills {
            owner.log.fill_segments();
        }
        for _ in 0..dice.below(200) {
            if failures && dice.below(40) == 0 {
                disk.fail_once(1 + dice.below(4), ErrorKind::StorageFull);
            }
            let outcome = owner.turn(&mut dice);
            assert!(failures || outcome.is_ok(), "seed {seed}, life {life}: {outcome:?}");
            owner.note_durable();
        }
        // Killing the process loses nothing that was written; only a power cut does. What comes in the middle of a
        // recovery loses no more.
        let mut durable_seq = owner.log.written_seq();
        let interrupted = dice.below(2);
        for ending in 0..=interrupted {
            if ending > 0 {
                disk.fail_from(1 + dice.below(12), ErrorKind::Other);
                if let Ok((log, _)) = recover(&disk, segment_bytes) {
                    owner.durable_seq = log.durable_seq();
                }
            }
            if dice.below(2) == 0 {
                disk.heal();
            } else {
                disk = disk.power_cut(dice.below(u64::MAX));
                durable_seq = owner.durable_seq;
            }
        }
        let history = owner.history;
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
    each_seed("a_power_cut_at_any_moment", |seed| simulate(seed, false));
}

#[test]
fn failing_writes_and_syncs_lose_nothing_durable() {
    each_seed("failing_writes_and_syncs", |seed| simulate(seed, true));
}

/// One scripted life, up to the first error; returns what is durable and how many snapshots were retired.
fn scripted(disk: &MemDisk, history: &mut Vec<Map>) -> (u64, Result<(), Error>) {
    let mut durable_seq = 0;
    let mut run = || {
        let (log, map) = recover(disk, 600)?;
        history.push(map);
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
            let wanted = history.get(last_seq as usize).or(history.last()).copied().unwrap_or_default();
            assert_eq!(map, wanted, "stop {stop}, seed {seed}, frame {last_seq}");
        }
    }
}

#[test]
fn a_power_cut_before_every_single_operation_of_a_recovery_after_a_kill_loses_nothing_durable() {
    let disk = new_disk();
    scripted(&disk, &mut Vec::new()).1.unwrap();
    for stop in 1..=disk.operations() {
        let killed = new_disk();
        killed.fail_from(stop, ErrorKind::Other);
        let (durable_seq, _) = scripted(&killed, &mut Vec::new());
        killed.heal();
        for recovery_stop in 1.. {
            let mut finished = false;
            for seed in 0..4 {
                let disk = killed.fork();
                disk.fail_from(recovery_stop, ErrorKind::Other);
                finished = recover(&disk, 600).is_ok_and(|_| disk.operations() < recovery_stop);
                let context = format!("stop {stop}, then {recovery_stop}, seed {seed}");
                let (log, _) =
                    recover(&disk.power_cut(seed), 600).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert!(log.next_seq() > durable_seq, "{context}");
            }
            if finished {
                break;
            }
        }
    }
}

/// Creates a layout in which each shard has a snapshot, and makes it the one that counts.
fn fill_layout(disk: &MemDisk, data_dir: &mut DataDir<MemDisk>, shards: u32) -> Result<(), Error> {
    let layout = data_dir.create_layout(shards, TAG)?;
    for shard_index in 0..shards {
        let place = Place { shard_index, shard_count: shards, tag: TAG };
        let mut writer = SnapshotWriter::create(disk, &layout.shard_dir(shard_index), place)?;
        writer.append(Kind::Batch, 1, &[shards as u8; 20])?;
        writer.finish()?;
    }
    data_dir.activate(layout)
}

fn open_data(disk: &MemDisk) -> Result<DataDir<MemDisk>, Error> {
    DataDir::open(disk.clone(), Path::new("/data"), std::time::Duration::ZERO)
}

#[test]
fn a_power_cut_while_a_directory_is_opened_after_a_kill_leaves_a_layout() {
    let old = MemDisk::default();
    fill_layout(&old, &mut open_data(&old).unwrap(), 2).unwrap();
    for stop in 1.. {
        let killed = old.fork();
        let mut data_dir = open_data(&killed).unwrap();
        killed.fail_from(stop, ErrorKind::Other);
        let finished = fill_layout(&killed, &mut data_dir, 3).is_ok() && killed.operations() < stop;
        killed.heal();
        drop(data_dir);
        for open_stop in 1..8 {
            for seed in 0..16 {
                let disk = killed.fork();
                disk.fail_from(open_stop, ErrorKind::Other);
                let _ = open_data(&disk).and_then(|data_dir| data_dir.remove_leftovers());
                let data_dir = open_data(&disk.power_cut(seed))
                    .unwrap_or_else(|error| panic!("stop {stop}, then {open_stop}, seed {seed}: {error}"));
                assert!(data_dir.layout().is_some(), "stop {stop}, then {open_stop}, seed {seed}");
            }
        }
        if finished {
            break;
        }
    }
}

#[test]
fn a_crash_before_every_single_operation_of_a_new_layout_leaves_the_old_or_the_new_one() {
    let old = MemDisk::default();
    fill_layout(&old, &mut open_data(&old).unwrap(), 2).unwrap();
    let mut seen = [0; 2];
    for stop in 1.. {
        let mut finished = false;
        for seed in 0..6 {
            let disk = old.fork();
            let mut data_dir = open_data(&disk).unwrap();
            disk.fail_from(stop, ErrorKind::Other);
            let outcome = fill_layout(&disk, &mut data_dir, 3);
            finished = outcome.is_ok() && disk.operations() < stop;
            let disk = disk.power_cut(seed);
            let data_dir =
                open_data(&disk).unwrap_or_else(|error| panic!("stop {stop}, seed {seed}: {error}"));
            data_dir.remove_leftovers().unwrap();
            let layout = data_dir.layout().expect("the directory was never empty").clone();
            assert!(outcome.is_err() || layout.shards == 3, "stop {stop}, seed {seed}");
            seen[layout.shards as usize - 2] += 1;
            for shard_index in 0..layout.shards {
                let place = Place { shard_index, shard_count: layout.shards, tag: TAG };
                let mut replayed = Vec::new();
                Log::recover(&disk, &layout.shard_dir(shard_index), place, 4096, |record| {
                    replayed.push(record.payload.to_vec());
                    Ok::<_, Error>(())
                })
                .unwrap_or_else(|error| panic!("stop {stop}, seed {seed}: {error}"));
                assert_eq!(replayed, [[layout.shards as u8; 20]], "stop {stop}, seed {seed}");
            }
            let names = disk.list(Path::new("/data")).unwrap();
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
