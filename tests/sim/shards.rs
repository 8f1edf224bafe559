use std::collections::BTreeMap;
use std::error::Error;
use std::io::ErrorKind;
use std::path::Path;

use kvlite::{recovery, slots};
use shard::{Change, Changes, Shard};
use wal::{Kind, Log, MemDisk};

use crate::dice::{Dice, Trace, each_seed};
use crate::worker::content;

const SEGMENT_BYTES: u64 = 700;
const NOW_MS: u64 = 1_000_000;

/// The number of shards at first, and after the keys have moved.
const SHARDS: usize = 2;
const SHARDS_LATER: usize = 3;

/// Steps with each number of shards.
const STEPS: u64 = 14;

/// The steps that a key may be at.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    safe: u64,
    sent: u64,
}

/// What the clients of a run know.
#[derive(Default)]
struct Known {
    keys: BTreeMap<String, Bounds>,
    /// The changes of the steps that wait for a sync, or for the end of the process.
    written: Vec<(String, u64)>,
}

impl Known {
    fn send(&mut self, key: &str, step: u64) {
        self.keys.entry(key.to_owned()).or_default().sent = step;
    }

    fn write(&mut self, key: &str, step: u64) {
        self.written.push((key.to_owned(), step));
    }

    /// What was written is safe, from a power cut or from a kill.
    fn make_safe(&mut self) {
        for (key, step) in self.written.drain(..) {
            let safe = &mut self.keys.get_mut(&key).expect("what is written was sent").safe;
            *safe = step.max(*safe);
        }
    }
}

/// The shards of a server, written to as its workers write.
struct Server {
    owners: Vec<(Shard, Log<MemDisk>)>,
    _data: recovery::Data<MemDisk>,
}

type Outcome = Result<(), Box<dyn Error>>;

impl Server {
    fn start(disk: &MemDisk, shards: usize) -> Result<Server, Box<dyn Error>> {
        let data = recovery::open_on(disk.clone(), Path::new("/data"), shards as u32, SEGMENT_BYTES)?;
        let owners = (0..shards).map(|index| data.shard(index).recover()).collect::<Result<_, _>>()?;
        Ok(Server { owners, _data: data })
    }

    fn set(&mut self, owner: usize, kind: Kind<'_>, key: &str, step: u64) -> Outcome {
        // Values of different lengths, so that frames end anywhere.
        let value = format!("{step}:{}", ".".repeat((step * 37 % 90) as usize));
        let (shard, log) = &mut self.owners[owner];
        let mut changes = Changes::default();
        changes.push(&Change::Put { key: key.as_bytes(), value: value.as_bytes(), deadline_ms: None });
        shard.apply_frame(changes.bytes()).expect("it was just made");
        log.append(kind, 1, changes.bytes());
        log.flush()?;
        Ok(())
    }

    fn sync(&mut self) -> Outcome {
        self.owners.iter_mut().try_for_each(|(_, log)| log.sync().map(drop))?;
        Ok(())
    }

    /// A snapshot of one shard takes the place of its log, as the snapshotter does it.
    fn compact(&mut self, owner: usize, now_id: u64) -> Outcome {
        let (shard, log) = &mut self.owners[owner];
        let mut writer = log.begin_snapshot()?;
        writer.append(Kind::Transaction { id: now_id, participants: &[] }, 0, &[])?;
        let mut changes = Changes::default();
        shard.walk(0, usize::MAX, NOW_MS, |_, key, value, deadline_ms| {
            changes.push(&Change::Put { key, value, deadline_ms });
        });
        writer.append(Kind::Batch, changes.count() as u32, changes.bytes())?;
        let mut ending = log.end_snapshot(writer)?;
        self.sync()?;
        let log = &mut self.owners[owner].1;
        assert!(log.cover(&mut ending)?);
        let snapshot = ending.finish().map_err(|failed| log.fail_snapshot(failed))?;
        if let Some(spare) = log.retire(&snapshot).clear()? {
            log.adopt(spare);
        }
        Ok(())
    }

    fn prepare(&mut self, owner: usize) -> Outcome {
        let log = &mut self.owners[owner].1;
        if let Some(preparation) = log.prepare() {
            log.adopt(preparation.run()?);
        }
        Ok(())
    }
}

/// A key that this shard owns, of so many.
fn key(name: &str, owner: usize, shards: usize) -> String {
    let named = |number: u32| format!("{name}{{{number}}}");
    (0..).map(named).find(|key| slots::owner(key.as_bytes(), shards) == owner).expect("numbers are endless")
}

/// The keys of a pair, on different shards whatever their number.
fn pair(number: u64) -> [String; 2] {
    [0, 1].map(|end| {
        let name = format!("pair{number}:");
        let on = |key: &String| {
            let owner = |shards| slots::owner(key.as_bytes(), shards);
            if end == 0 { owner(SHARDS_LATER) == 0 } else { owner(SHARDS_LATER) == SHARDS_LATER - 1 }
        };
        (0..).map(|tag| format!("{name}{{{tag}}}")).find(on).expect("numbers are endless")
    })
}

/// The script of a run, up to its first error: single keys, commands over two shards, segments made ready and changed,
/// snapshots of either shard, a restart with more shards, and all of it again. Every step is synced if `always`, else
/// some are.
fn scripted(disk: &MemDisk, always: bool, known: &mut Known) -> Outcome {
    for (round, shards) in [SHARDS, SHARDS_LATER].into_iter().enumerate() {
        let mut server = Server::start(disk, shards)?;
        known.make_safe(); // What a start has read, it has synced.
        for step in (1..=STEPS).map(|step| round as u64 * STEPS + step) {
            if step % 3 == 0 {
                let keys = pair(step / 3 % 2);
                let owners = keys.each_ref().map(|key| slots::owner(key.as_bytes(), shards));
                let participants = &owners.map(|owner| owner as u32);
                keys.iter().for_each(|key| known.send(key, step));
                for (key, owner) in keys.iter().zip(owners) {
                    server.set(owner, Kind::Transaction { id: step << 10, participants }, key, step)?;
                }
                keys.iter().for_each(|key| known.write(key, step));
            } else {
                let owner = step as usize % shards;
                let key = key("single", owner, shards);
                known.send(&key, step);
                server.set(owner, Kind::Batch, &key, step)?;
                known.write(&key, step);
            }
            if always || step % 5 == 0 {
                server.sync()?;
                known.make_safe();
            }
            match step % 7 {
                2 => server.prepare(step as usize % shards)?,
                4 => {
                    server.compact(step as usize % shards, (step << 10) + 1)?;
                    known.make_safe(); // Every log was synced for it.
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// What the shards hold, by key: the step of its value.
fn held(server: &Server) -> BTreeMap<String, u64> {
    let mut held = BTreeMap::new();
    for (index, (shard, _)) in server.owners.iter().enumerate() {
        for (key, (value, _)) in content(shard, NOW_MS) {
            assert_eq!(slots::owner(&key, server.owners.len()), index, "a key lies where it belongs");
            let step = String::from_utf8(value).unwrap().split_once(':').unwrap().0.parse().unwrap();
            held.insert(String::from_utf8(key).unwrap(), step);
        }
    }
    held
}

/// Starts a server on what a crash has left, twice, the second time with another number of shards.
fn expect_known(disk: &MemDisk, known: &Known, what: &str) {
    let mut first = None;
    for shards in [SHARDS, SHARDS_LATER] {
        let server =
            Server::start(disk, shards).unwrap_or_else(|error| panic!("{what}, {shards} shards: {error}"));
        let held = held(&server);
        for (key, Bounds { safe, sent }) in &known.keys {
            let step = held.get(key).copied().unwrap_or(0);
            assert!((*safe..=*sent).contains(&step), "{what}: {key} is at step {step}, not {safe} to {sent}");
        }
        for number in 0..2 {
            let [left, right] = pair(number).map(|key| held.get(&key).copied());
            assert_eq!(left, right, "{what}, {shards} shards: half of a pair is there");
        }
        assert_eq!(*first.get_or_insert(held.clone()), held, "{what}: a restart serves something else");
    }
}

fn crash_at_every_operation(dice: &mut Dice, trace: &mut Trace, always: bool) {
    let disk = MemDisk::default();
    scripted(&disk, always, &mut Known::default()).unwrap();
    let operations = disk.operations();
    assert!(operations > 150, "the script has only {operations} operations");
    for stop in 1..=operations {
        trace.step();
        for power in [false, true] {
            let disk = MemDisk::default();
            disk.fail_from(stop, ErrorKind::Other);
            let mut known = Known::default();
            // The last two operations write down that all is on disk: that they fail need not be told.
            let fails = scripted(&disk, always, &mut known).is_err();
            assert!(fails || stop + 1 >= operations, "operation {stop} of {operations} fails");
            let what = format!("crash at operation {stop}, power cut: {power}");
            let mut left = if power {
                disk.power_cut(dice.roll())
            } else {
                known.make_safe();
                disk.fork()
            };
            if dice.one_in(2) {
                // The start after the crash comes to a crash as well.
                left.fail_from(1 + dice.below(12) as u64, ErrorKind::Other);
                drop(Server::start(&left, *dice.pick(&[SHARDS, SHARDS_LATER])));
                left = if power { left.power_cut(dice.roll()) } else { left.fork() };
            }
            expect_known(&left, &known, &what);
        }
    }
}

#[test]
fn a_crash_at_every_operation_leaves_whole_commands_over_shards_and_all_that_was_synced() {
    let name = "a_crash_at_every_operation_leaves_whole_commands_over_shards_and_all_that_was_synced";
    each_seed(name, 1, |dice, trace| crash_at_every_operation(dice, trace, true));
}

#[test]
fn a_crash_at_every_operation_leaves_whole_commands_over_shards_where_little_is_synced() {
    let name = "a_crash_at_every_operation_leaves_whole_commands_over_shards_where_little_is_synced";
    each_seed(name, 1, |dice, trace| crash_at_every_operation(dice, trace, false));
}
