use std::io::ErrorKind;

use wal::MemDisk;

use crate::dice::{Dice, Trace, each_seed};
use crate::requests::Mix;
use crate::worker::{Habits, History, Worker, new_disk};

const EPOCH_MS: u64 = 1_000_000;

/// How the lives of one run may end.
#[derive(Clone, Copy)]
struct Fate {
    closes: bool,
    kills: bool,
    power_cuts: bool,
    /// Operations of the disk fail now and then, in recovery too.
    failures: bool,
}

fn habits(dice: &mut Dice) -> Habits {
    let many = dice.one_in(16);
    Habits {
        mix: match many {
            true => Mix { keys: 1500, keys_per_request: 200 },
            false => Mix { keys: 4 + dice.below(30), keys_per_request: 4 },
        },
        segment_bytes: *dice.pick(&[500, 1500, 4000, 1 << 16]),
        slice_keys: if many { 300 } else { 1 + dice.below(12) },
        snapshot_frame_bytes: *dice.pick(&[1, 200, 1000]),
        always: dice.one_in(4),
    }
}

/// Several lives of a worker. What each one leaves has to be there in the next, at a later time.
fn live(dice: &mut Dice, trace: &mut Trace, fate: Fate) {
    let habits = habits(dice);
    let mut disk = new_disk();
    let mut worker = Worker::new(&disk, habits, EPOCH_MS, dice.roll());
    let turns_max = if habits.mix.keys > 1000 { 40 } else { 120 };
    for _ in 0..5 {
        for _ in 0..dice.below(turns_max) {
            trace.step();
            if fate.failures && dice.one_in(20) {
                disk.fail_once(1 + dice.below(5) as u64, ErrorKind::StorageFull);
            }
            let snapshots = worker.snapshots;
            let outcome = worker.turn(dice);
            assert!(fate.failures || outcome.is_ok(), "{outcome:?}");
            if habits.always && outcome.is_ok() {
                assert_eq!(worker.log.durable_seq(), worker.history.last_seq(), "a turn is synced");
            }
            // What a snapshot shows and the log has lost is seen only soon after it.
            if worker.snapshots > snapshots && dice.one_in(2) {
                break;
            }
        }
        worker = next_life(dice, &mut disk, worker, habits, fate);
    }
}

/// Ends a life in one of the ways that fate allows, and begins the next.
fn next_life(dice: &mut Dice, disk: &mut MemDisk, worker: Worker, habits: Habits, fate: Fate) -> Worker {
    let now_ms = worker.now_ms + if dice.one_in(2) { 0 } else { dice.below(9000) as u64 };
    let (durable_seq, written_seq) = (worker.log.durable_seq(), worker.log.written_seq());
    let mut ends = Vec::new();
    ends.extend(fate.closes.then_some(End::Close));
    ends.extend(fate.kills.then_some(End::Kill));
    ends.extend(fate.power_cuts.then_some(End::PowerCut));
    let mut cut = false;
    let (history, floor) = match dice.pick(&ends) {
        End::Close => {
            let (history, outcome) = worker.close();
            assert!(fate.failures || outcome.is_ok(), "{outcome:?}");
            cut = outcome.is_ok() && fate.power_cuts;
            let floor = if outcome.is_ok() { history.last_seq() - 1 } else { written_seq };
            (history, floor)
        }
        End::Kill => (worker.history, written_seq),
        End::PowerCut => {
            cut = true;
            (worker.history, durable_seq)
        }
    };
    disk.heal();
    if cut {
        *disk = disk.power_cut(dice.roll());
    }
    if fate.failures && dice.one_in(2) {
        interrupt_recovery(dice, disk, habits, &history, floor, now_ms);
        if cut {
            *disk = disk.power_cut(dice.roll());
        }
    }
    Worker::recover(disk, habits, &history, floor, now_ms, dice.roll()).unwrap()
}

enum End {
    /// In order. After that a power cut loses nothing either.
    Close,
    /// Everything written is kept, whether it was synced or not.
    Kill,
    /// What was not synced is forgotten in part.
    PowerCut,
}

/// A recovery during which the disk begins to fail, and which may not have come to its end.
fn interrupt_recovery(
    dice: &mut Dice,
    disk: &MemDisk,
    habits: Habits,
    history: &History,
    floor: u64,
    now_ms: u64,
) {
    disk.fail_from(1 + dice.below(6) as u64, ErrorKind::Other);
    drop(Worker::recover(disk, habits, history, floor, now_ms, dice.roll()));
    disk.heal();
}

#[test]
fn a_closed_shard_comes_back_as_it_was() {
    let fate = Fate { closes: true, kills: false, power_cuts: false, failures: false };
    each_seed("a_closed_shard_comes_back_as_it_was", 20, |dice, trace| live(dice, trace, fate));
}

#[test]
fn a_killed_worker_loses_nothing_that_was_written() {
    let fate = Fate { closes: false, kills: true, power_cuts: false, failures: false };
    each_seed("a_killed_worker_loses_nothing_that_was_written", 30, |dice, trace| live(dice, trace, fate));
}

#[test]
fn a_power_cut_leaves_what_was_durable_and_whole_turns() {
    let fate = Fate { closes: true, kills: true, power_cuts: true, failures: false };
    each_seed("a_power_cut_leaves_what_was_durable_and_whole_turns", 60, |dice, trace| {
        live(dice, trace, fate);
    });
}

#[test]
fn a_failing_disk_loses_nothing_durable() {
    let fate = Fate { closes: true, kills: true, power_cuts: true, failures: true };
    each_seed("a_failing_disk_loses_nothing_durable", 80, |dice, trace| live(dice, trace, fate));
}
