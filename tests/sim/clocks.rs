use std::collections::BTreeMap;

use kvlite::clock::{Clock, Followed, Reading, ShardClock};
use shard::clock::{due_ms, unix_deadline_ms};
use shard::{Change, Changes, Clocks, Reply, Shard, decode};
use wal::{Kind, Log, MemDisk, SnapshotWriter};

use crate::dice::{Dice, Trace, each_seed};
use crate::requests::Call;
use crate::worker::{new_disk, recover};

const SECOND_US: u64 = 1_000_000;
const HOUR_US: u64 = 3600 * SECOND_US;
const YEAR_US: u64 = 365 * 24 * HOUR_US;
const KEYS: usize = 6;
const SEGMENT_BYTES: u64 = 4000;

/// What the clocks show. The time that elapses is the truth; the wall clock is set to anything.
#[derive(Clone, Copy)]
struct World {
    boot: u64,
    booted_us: u64,
    /// Of the process.
    uptime_us: u64,
    wall_us: u64,
}

impl World {
    fn pass(&mut self, us: u64) {
        self.uptime_us += us;
        self.suspend(us);
    }

    /// Time passes that no process sees.
    fn suspend(&mut self, us: u64) {
        self.booted_us += us;
        self.wall_us += us;
    }

    fn set(&mut self, dice: &mut Dice) {
        let by = *dice.pick(&[SECOND_US, HOUR_US, YEAR_US]);
        self.wall_us = if dice.one_in(2) { self.wall_us + by } else { self.wall_us.saturating_sub(by) };
    }

    fn reading(&self) -> Reading {
        Reading { uptime_us: self.uptime_us, booted_us: self.booted_us, wall_us: self.wall_us }
    }

    fn wall_ms(&self) -> u64 {
        self.wall_us / 1000
    }
}

/// Values and deadlines; those that are gone are gone for good.
#[derive(Clone, Default)]
struct Model(BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>);

impl Model {
    fn sweep(&mut self, now_ms: u64, wall_ms: u64) {
        self.0.retain(|_, (_, deadline_ms)| {
            deadline_ms.is_none_or(|at| unix_deadline_ms(at).map_or(at > now_ms, |at| at > wall_ms))
        });
    }

    /// As recovery applies a frame of the log.
    fn apply(&mut self, changes: &Changes) {
        for change in decode(changes.bytes()) {
            match change.unwrap() {
                Change::Put { key, value, deadline_ms } => {
                    self.0.insert(key.to_vec(), (value.to_vec(), deadline_ms));
                }
                Change::Deadline { key, deadline_ms } => {
                    if let Some(entry) = self.0.get_mut(key) {
                        entry.1 = deadline_ms;
                    }
                }
                Change::Splice { key, bytes, .. } => {
                    if let Some(entry) = self.0.get_mut(key) {
                        entry.0.extend_from_slice(bytes);
                    }
                }
                Change::Remove { key } => drop(self.0.remove(key)),
                Change::Clear => self.0.clear(),
                Change::Keyspace(_) | Change::ClearKeyspace | Change::Databases(_) => {
                    unreachable!("only database 0 is used here")
                }
                Change::Clocks(Clocks { now_ms, wall_ms, .. }) => self.sweep(now_ms, wall_ms),
            }
        }
    }
}

/// A shard in a process.
struct Life {
    shard: Shard,
    log: Log<MemDisk>,
    clock: ShardClock,
    changes: Changes,
    /// What clients have to see.
    model: Model,
    /// What each frame of the log leaves.
    logged: Vec<(u64, Model)>,
    snapshot: Option<(SnapshotWriter<MemDisk>, u64)>,
}

impl Life {
    /// Begins where `before` of the frames says that the log has left off.
    fn begin(disk: &MemDisk, world: &World, before: &[(u64, Model)], seed: u64) -> Life {
        let (mut shard, log) = recover(disk, SEGMENT_BYTES, seed).unwrap();
        let last_seq = log.next_seq() - 1;
        let clock = Clock::resume(shard.clocks(), world.boot, world.reading());
        let clock = ShardClock::start(clock, world.uptime_us, &mut shard);
        let of_log = before.iter().rev().find(|(seq, _)| *seq <= last_seq);
        let mut model = of_log.map(|(_, model)| model.clone()).unwrap_or_default();
        let logged = vec![(last_seq, model.clone())];
        model.sweep(clock.now_ms(world.uptime_us), world.wall_ms());
        let mut life = Life { shard, log, clock, changes: Changes::default(), model, logged, snapshot: None };
        life.clock.log(world.uptime_us, &life.shard, &mut life.changes);
        life.write();
        life
    }

    fn write(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        let seq = self.log.append(Kind::Batch, self.changes.count() as u32, self.changes.bytes());
        let mut model = self.logged.last().unwrap().1.clone();
        model.apply(&self.changes);
        self.logged.push((seq, model));
        self.changes.clear(0);
        self.log.flush().unwrap();
    }

    fn now_ms(&self, world: &World) -> u64 {
        self.clock.now_ms(world.uptime_us)
    }

    fn turn(&mut self, dice: &mut Dice, world: &World) {
        while self.clock.follow(world.reading(), &mut self.shard, &mut self.changes) == Followed::Later {}
        let now_ms = self.now_ms(world);
        self.model.sweep(now_ms, world.wall_ms());
        for _ in 0..dice.below(4) {
            self.request(dice, world);
        }
        if dice.one_in(4) {
            self.shard.expire(now_ms, usize::MAX);
        }
        for key in 0..KEYS {
            self.expect(&[b'k', b'0' + key as u8], world);
        }
        self.clock.log(world.uptime_us, &self.shard, &mut self.changes);
        self.write();
        self.go_on_with_snapshot(dice, world);
        if dice.one_in(5) {
            self.log.sync().unwrap();
        }
    }

    fn request(&mut self, dice: &mut Dice, world: &World) {
        let (now_ms, wall_ms) = (self.now_ms(world), world.wall_ms());
        let key = vec![b'k', b'0' + dice.below(KEYS) as u8];
        let value = dice.roll().to_string().into_bytes();
        let amount = 1 + dice.below(5000) as u64;
        let by_wall = shard::clock::deadline_by_wall_clock(wall_ms + amount);
        let number = |number: u64| number.to_string().into_bytes();
        let old = self.model.0.get(&key).cloned();
        let (name, args, new) = match dice.below(7) {
            0 => ("SET", vec![], Some((value.clone(), None))),
            1 => ("SET", vec![b"PX".to_vec(), number(amount)], Some((value.clone(), Some(now_ms + amount)))),
            2 => (
                "SET",
                vec![b"PXAT".to_vec(), number(wall_ms + amount)],
                Some((value.clone(), Some(by_wall))),
            ),
            3 => (
                "SET",
                vec![b"KEEPTTL".to_vec()],
                Some((value.clone(), old.and_then(|(_, deadline)| deadline))),
            ),
            4 => {
                let (mut bytes, deadline_ms) = old.unwrap_or_default();
                bytes.extend_from_slice(&value);
                ("APPEND", vec![], Some((bytes, deadline_ms)))
            }
            5 => ("EXPIRE", vec![], old.map(|(bytes, _)| (bytes, Some(now_ms + 2000)))),
            _ => ("PERSIST", vec![], old.map(|(bytes, _)| (bytes, None))),
        };
        let first = match name {
            "EXPIRE" => vec![key.clone(), b"2".to_vec()],
            "PERSIST" => vec![key.clone()],
            _ => vec![key.clone(), value],
        };
        let args: Vec<_> = first.into_iter().chain(args).collect();
        let row = shard::command::find(name.as_bytes()).unwrap();
        let call = Call { row, database: 0, args };
        let reply = call.run(&mut self.shard, now_ms, &mut self.changes);
        assert!(!matches!(reply, Reply::Error(_)), "{call}: {reply:?}");
        if let Some(new) = new {
            self.model.0.insert(key, new);
        }
    }

    /// A client sees of the key what it has to see.
    fn expect(&mut self, key: &[u8], world: &World) {
        let (now_ms, wall_ms) = (self.now_ms(world), world.wall_ms());
        let expected = self.model.0.get(key);
        let ttl_ms = match expected.map(|(_, deadline_ms)| *deadline_ms) {
            None => -2,
            Some(None) => -1,
            Some(Some(at)) => match unix_deadline_ms(at) {
                Some(unix_ms) => unix_ms as i64 - wall_ms as i64,
                None => at as i64 - now_ms as i64,
            },
        };
        let shown = Call::new("PTTL", &[key]).run(&mut self.shard, now_ms, &mut self.changes);
        assert_eq!(shown, Reply::Integer(ttl_ms), "{} at {now_ms}, {wall_ms}", key.escape_ascii());
        let shown = Call::new("GET", &[key]).run(&mut self.shard, now_ms, &mut self.changes);
        let expected = expected.map_or(Reply::Nil, |(value, _)| Reply::Bulk(value.into()));
        assert_eq!(shown, expected, "{} at {now_ms}, {wall_ms}", key.escape_ascii());
    }

    fn go_on_with_snapshot(&mut self, dice: &mut Dice, world: &World) {
        match self.snapshot.take() {
            None if dice.one_in(6) => {
                let mut writer = self.log.begin_snapshot().unwrap();
                let mut changes = Changes::default();
                changes.push(&Change::Clocks(self.clock.clocks(world.uptime_us)));
                writer.append(Kind::Batch, 1, changes.bytes()).unwrap();
                self.snapshot = Some((writer, 0));
            }
            None => {}
            Some(snapshot) if dice.one_in(2) => self.snapshot = Some(snapshot),
            Some((mut writer, position)) => {
                let mut changes = Changes::default();
                let now_ms = self.now_ms(world);
                let next = self.shard.walk(position, 1, now_ms, |_, key, value, deadline_ms| {
                    changes.push(&Change::Put { key, value, deadline_ms });
                });
                if !changes.is_empty() {
                    writer.append(Kind::Batch, changes.count() as u32, changes.bytes()).unwrap();
                }
                match next {
                    Some(position) => self.snapshot = Some((writer, position)),
                    None => {
                        let mut ending = self.log.end_snapshot(writer).unwrap();
                        self.log.sync().unwrap();
                        assert!(self.log.cover(&mut ending).unwrap());
                        let snapshot = ending.finish().unwrap();
                        if let Some(spare) = self.log.retire(&snapshot).clear().unwrap() {
                            self.log.adopt(spare);
                        }
                    }
                }
            }
        }
    }
}

/// Ends a life, and begins the next one.
fn next_life(dice: &mut Dice, disk: &mut MemDisk, world: &mut World, life: Life) -> Life {
    let now_ms = life.now_ms(world);
    let Life { log, logged, .. } = life;
    let cut = dice.one_in(3);
    if dice.one_in(2) {
        log.close().unwrap();
    } else {
        drop(log);
    }
    if cut {
        *disk = disk.power_cut(dice.roll());
    }
    let elapsed_us = dice.below(3000) as u64 * 1000;
    world.suspend(elapsed_us);
    let is_set = dice.one_in(2);
    if is_set {
        world.set(dice);
    }
    if cut {
        (world.boot, world.booted_us) = (world.boot + 1, SECOND_US);
    }
    world.uptime_us = 0;
    let next = Life::begin(disk, world, &logged, dice.roll());
    let shown_ms = next.now_ms(world);
    let true_ms = now_ms + elapsed_us / 1000;
    match next.shard.clocks() {
        _ if !cut => assert_eq!(shown_ms, true_ms, "the time goes on by what elapsed"),
        None => {}
        Some(last) => {
            assert!(shown_ms >= last.now_ms, "it never goes back");
            if last.wall_ahead_ms() == world.wall_ms() as i64 - true_ms as i64 {
                assert_eq!(shown_ms, true_ms, "by a wall clock that was not set it goes on rightly");
            }
        }
    }
    next
}

fn live(dice: &mut Dice, trace: &mut Trace) {
    let mut disk = new_disk();
    let mut world = World { boot: 1, booted_us: HOUR_US, uptime_us: 0, wall_us: 50 * YEAR_US };
    let mut life = Life::begin(&disk, &world, &[], dice.roll());
    for _ in 0..5 {
        for _ in 0..dice.below(40) {
            trace.step();
            world.pass(dice.below(800) as u64 * 1000);
            if dice.one_in(12) {
                world.suspend(10_000 + dice.below(5000) as u64 * 1000);
            }
            // What has come by the wall clock has come, though it may be set back before the server looks.
            life.model.sweep(0, world.wall_ms());
            if dice.one_in(6) {
                world.set(dice);
            }
            life.turn(dice, &world);
        }
        life = next_life(dice, &mut disk, &mut world, life);
    }
}

#[test]
fn whatever_the_wall_clock_does_keys_live_as_long_as_they_should() {
    let test = "whatever_the_wall_clock_does_keys_live_as_long_as_they_should";
    each_seed(test, 80, live);
}

#[test]
fn a_glitch_of_the_wall_clock_leaves_nothing_behind() {
    let disk = new_disk();
    let mut world = World { boot: 1, booted_us: HOUR_US, uptime_us: 0, wall_us: 50 * YEAR_US };
    let mut life = Life::begin(&disk, &world, &[], 1);
    let call = |life: &mut Life, world: &World, name: &str, args: &[&[u8]]| {
        life.clock.follow(world.reading(), &mut life.shard, &mut life.changes);
        let now_ms = life.now_ms(world);
        let reply = Call::new(name, args).run(&mut life.shard, now_ms, &mut life.changes);
        life.write();
        reply
    };
    call(&mut life, &world, "SET", &[b"long", b"1", b"EX", b"3600"]);
    world.wall_us += YEAR_US;
    let at = (world.wall_ms() + 1000).to_string();
    call(&mut life, &world, "SET", &[b"at", b"1", b"PXAT", at.as_bytes()]);
    world.pass(SECOND_US);
    assert_eq!(call(&mut life, &world, "GET", &[b"at"]), Reply::Nil);
    assert_eq!(call(&mut life, &world, "SET", &[b"lock", b"1", b"NX", b"PX", b"1500"]), Reply::Ok);
    world.wall_us -= YEAR_US;
    for _ in 0..2 {
        assert_eq!(call(&mut life, &world, "PTTL", &[b"lock"]), Reply::Integer(1500));
        assert_eq!(call(&mut life, &world, "GET", &[b"at"]), Reply::Nil);
        // A restart in the same boot, right away.
        world.uptime_us = 0;
        let Life { log, logged, .. } = life;
        drop(log);
        life = Life::begin(&disk, &world, &logged, 2);
    }
    world.pass(1500 * 1000);
    assert_eq!(call(&mut life, &world, "SET", &[b"lock", b"2", b"NX"]), Reply::Ok);
    assert_eq!(call(&mut life, &world, "PTTL", &[b"long"]), Reply::Integer(3_600_000 - 2500));
    let clocks = life.shard.clocks().unwrap();
    assert_eq!(due_ms(clocks.wall_ms, 0), clocks.now_ms, "the log ends with clocks that agree");
}
