use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use kvlite::recovery;
use kvlite::slots;
use shard::{Change, Changes, Shard};
use wal::{DataDir, Kind, Log, MemDisk};

use crate::dice::{Dice, Trace, each_seed};
use crate::model::{Content, Model, VALUE_LEN_MAX, key_of_name};
use crate::requests::{Call, Mix};
use crate::worker::content;

const SEGMENT_BYTES: u64 = 2000;
const NOW_MS: u64 = 1_000_000;
/// When every key with a deadline that was given at `NOW_MS` may still be there, and when some are not.
const LATER_MS: u64 = NOW_MS + 3000;

fn path() -> &'static Path {
    Path::new("/data")
}

/// A key of this name that belongs to the shard.
fn key_of(shard: usize, shards: usize, name: &str) -> Vec<u8> {
    let mut keys = (0..).map(|number| format!("{name}:{number}").into_bytes());
    keys.find(|key| slots::owner(key, shards) == shard).expect("every shard owns keys")
}

fn append((shard, log): &mut (Shard, Log<MemDisk>), kind: Kind<'_>, change: &Change<'_>) {
    let mut changes = Changes::default();
    changes.set_keyspace(shard.keyspace_of(0));
    changes.push(change);
    log.append(kind, 1, changes.bytes());
    log.flush().unwrap();
}

/// Adds commands over two shards to the logs: one that is whole, one that a kill cut short, and one whose other part a
/// power cut took, on which the end of the first log builds. Only the first one counts.
fn add_transactions(owners: &mut [(Shard, Log<MemDisk>)], model: &mut Model) {
    let shards = owners.len();
    let mut part = |shard: usize, id: u64, key: &[u8]| {
        let kind = Kind::Transaction { id: id << 10, participants: &[0, 1] };
        append(&mut owners[shard], kind, &Change::Put { key, value: b"value", deadline_ms: None });
    };
    let (one, other) = (key_of(0, shards, "whole"), key_of(1, shards, "whole"));
    part(0, 1, &one);
    part(1, 1, &other);
    model.execute(&Call::new("MSET", &[&one, b"value", &other, b"value"]), NOW_MS);
    part(1, 2, &key_of(1, shards, "cut short"));
    let taken = key_of(0, shards, "taken");
    part(0, 3, &taken);
    let owner = &mut owners[0];
    append(owner, Kind::Batch, &Change::Splice { key: &taken, offset: 1, bytes: b"x" });
    append(owner, Kind::Batch, &Change::Put { key: &one, value: b"lost", deadline_ms: None });
}

/// A data directory with keys in `shards` shards, and what they are.
fn filled(dice: &mut Dice, shards: usize) -> (MemDisk, Model) {
    let disk = MemDisk::default();
    let data = recovery::open_on(disk.clone(), path(), shards as u32, SEGMENT_BYTES).unwrap();
    let mut owners: Vec<_> = (0..shards).map(|index| data.shard(index).recover().unwrap()).collect();
    owners = owners.into_iter().map(|(s, log)| (s.with_value_len_max(VALUE_LEN_MAX), log)).collect();
    let mut model = Model::default();
    let mix = Mix { keys: 60, keys_per_request: 1 };
    let mortal = Call::new("SET", &[b"mortal", b"x", b"PX", b"1000"]);
    for call in (0..300).map(|_| mix.call(dice)).chain([mortal]) {
        let (range, step) = call.row.keys.range(call.args.len(), |at| &call.args[at]);
        let mut keys = range.step_by(step).map(|at| slots::owner(&call.args[at], shards));
        let owner = match (call.row.name, keys.next()) {
            ("SWAPDB", _) => None,
            (_, Some(first)) if keys.all(|other| other == first) => Some(first),
            _ => continue, // Here a request belongs to one shard.
        };
        let expected = model.execute(&call, NOW_MS);
        for (index, (shard, log)) in owners.iter_mut().enumerate() {
            if owner.is_some_and(|owner| owner != index) {
                continue;
            }
            let mut changes = Changes::default();
            assert_eq!(call.run(shard, NOW_MS, &mut changes), expected, "{call}");
            if !changes.is_empty() {
                log.append(Kind::Batch, changes.count() as u32, changes.bytes());
                log.flush().unwrap();
            }
        }
    }
    if shards > 1 {
        add_transactions(&mut owners, &mut model);
    }
    // One was closed, the others were killed.
    let (_, log) = owners.pop().unwrap();
    log.close().unwrap();
    (disk.reboot(), model)
}

/// The number of shards that the manifest names.
fn shards(disk: &MemDisk) -> u32 {
    let directory = DataDir::open(disk.clone(), path(), Duration::ZERO).unwrap();
    directory.layout().expect("a data directory with keys has a layout").shards
}

/// Demands that the shards hold exactly these keys, each where it belongs.
fn expect_whole(disk: &MemDisk, shards: u32, expected: &Content, now_ms: u64) {
    let data = recovery::open_on(disk.clone(), path(), shards, SEGMENT_BYTES).unwrap();
    let mut found = Content::new();
    for index in 0..shards as usize {
        let (shard, _log) = data.shard(index).recover().unwrap();
        for (key, entry) in content(&shard, now_ms) {
            assert_eq!(slots::owner(key_of_name(&key), shards as usize), index, "\"{}\"", key.escape_ascii());
            found.insert(key, entry);
        }
    }
    assert_eq!(found, *expected);
}

/// Starts with `to` shards and stops at every operation, by a kill and by a power cut; demands that all keys are there
/// with the number of shards that counts then, and after another start with `to`. Returns how often the old and the new
/// layout counted.
fn stop_at_every_operation(
    disk: &MemDisk,
    model: &Model,
    to: u32,
    dice: &mut Dice,
    trace: &mut Trace,
) -> [usize; 2] {
    let from = shards(disk);
    let mut seen = [0, 0];
    for stop in 1.. {
        trace.step();
        let disk = disk.fork();
        disk.fail_from(stop, ErrorKind::Other);
        let outcome = recovery::open_on(disk.clone(), path(), to, SEGMENT_BYTES).map(drop);
        let finished = disk.operations() < stop;
        // After a kill everything is there that was written.
        for disk in [disk.fork(), disk.power_cut(dice.roll())] {
            let now = shards(&disk);
            assert!(now == to || now == from && outcome.is_err(), "{now} shards after stop {stop}");
            seen[usize::from(now == to)] += 1;
            expect_whole(&disk, now, &model.live(LATER_MS), LATER_MS);
            // And again, to its end.
            expect_whole(&disk, to, &model.live(NOW_MS), NOW_MS);
            assert_eq!(shards(&disk.power_cut(dice.roll())), to);
        }
        if finished {
            return seen;
        }
    }
    unreachable!("a start ends")
}

#[test]
fn a_stop_while_keys_move_leaves_the_old_or_the_new_layout_whole() {
    let name = "a_stop_while_keys_move_leaves_the_old_or_the_new_layout_whole";
    each_seed(name, 3, |dice, trace| {
        for (from, to) in [(1, 3), (3, 2), (2, 1)] {
            let (disk, model) = filled(dice, from);
            assert!(model.live(LATER_MS).len() < model.live(NOW_MS).len(), "some keys expire");
            let seen = stop_at_every_operation(&disk, &model, to, dice, trace);
            assert!(seen.iter().all(|count| *count > 0), "both layouts occur: {seen:?}");
        }
    });
}

#[test]
fn a_stop_while_what_a_crash_cut_short_is_marked_loses_nothing_else() {
    let name = "a_stop_while_what_a_crash_cut_short_is_marked_loses_nothing_else";
    each_seed(name, 3, |dice, trace| {
        let (disk, model) = filled(dice, 3);
        let [_, starts] = stop_at_every_operation(&disk, &model, 3, dice, trace);
        assert!(starts > 10, "it takes more than {starts} operations");
    });
}
