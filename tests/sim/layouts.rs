use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use kvlite::recovery;
use kvlite::router;
use shard::Changes;
use wal::{DataDir, Kind, MemDisk};

use crate::dice::{Dice, Trace, each_seed};
use crate::model::{Content, Model, VALUE_LEN_MAX};
use crate::requests::{Call, Mix};
use crate::worker::content;

const SEGMENT_BYTES: u64 = 2000;
const NOW_MS: u64 = 1_000_000;
/// When every key with a deadline that was given at `NOW_MS` may still be there, and when some are not.
const LATER_MS: u64 = NOW_MS + 3000;

fn path() -> &'static Path {
    Path::new("/data")
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
        if !call.row.keys.any || call.row.name == "MSET" && call.args.len() > 2 {
            continue; // Here a request belongs to one shard.
        }
        let (shard, log) = &mut owners[router::owner(&call.args[0], shards)];
        let mut changes = Changes::default();
        let reply = call.run(shard, NOW_MS, &mut changes);
        assert_eq!(reply, model.execute(&call, NOW_MS), "{call}");
        if !changes.is_empty() {
            log.append(Kind::Batch, changes.count() as u32, changes.bytes());
            log.flush().unwrap();
        }
    }
    // One was closed, the others were killed.
    let (_, log) = owners.pop().unwrap();
    log.close().unwrap();
    (disk, model)
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
            assert_eq!(router::owner(&key, shards as usize), index, "\"{}\"", key.escape_ascii());
            found.insert(key, entry);
        }
    }
    assert_eq!(found, *expected);
}

/// Moves keys while the power is cut at every operation; returns how often the old and the new layout was
/// there.
fn cut_at_every_operation(disk: &MemDisk, model: &Model, to: u32, dice: &mut Dice, trace: &mut Trace) {
    let from = shards(disk);
    let mut seen = [0, 0];
    for stop in 1.. {
        trace.step();
        let disk = disk.fork();
        disk.fail_from(stop, ErrorKind::Other);
        let outcome = recovery::open_on(disk.clone(), path(), to, SEGMENT_BYTES).map(drop);
        let finished = disk.operations() < stop;
        let disk = disk.power_cut(dice.roll());
        let now = shards(&disk);
        assert!(now == to || now == from && outcome.is_err(), "{now} shards after stop {stop}");
        seen[usize::from(now == to)] += 1;
        expect_whole(&disk, now, &model.live(LATER_MS), LATER_MS);
        // And again, to its end.
        expect_whole(&disk, to, &model.live(NOW_MS), NOW_MS);
        assert_eq!(shards(&disk.power_cut(dice.roll())), to);
        if finished {
            break;
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "both layouts occur: {seen:?}");
}

#[test]
fn a_power_cut_while_keys_move_leaves_the_old_or_the_new_layout_whole() {
    let name = "a_power_cut_while_keys_move_leaves_the_old_or_the_new_layout_whole";
    each_seed(name, 3, |dice, trace| {
        for (from, to) in [(1, 3), (3, 2), (2, 1)] {
            let (disk, model) = filled(dice, from);
            assert!(model.live(LATER_MS).len() < model.live(NOW_MS).len(), "some keys expire");
            cut_at_every_operation(&disk, &model, to, dice, trace);
        }
    });
}
