use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use shard::{Change, Changes, Reply, Shard};
use wal::{
    Disk, DiskFile, Error, Kind, Log, MemDisk, Obsolete, Place, Preparation, SnapshotEnd, SnapshotWriter,
    SyncTicket,
};

use crate::dice::Dice;
use crate::model::{Content, Model, VALUE_LEN_MAX, due, name};
use crate::requests::{Call, Mix};

pub const PLACE: Place = Place { shard_index: 0, shard_count: 1, tag: 0 };

/// Where the shard's files are.
pub fn directory() -> &'static Path {
    Path::new("/shard")
}

/// A disk with an empty directory for a shard.
pub fn new_disk() -> MemDisk {
    let disk = MemDisk::default();
    disk.create_dir_all(directory()).unwrap();
    disk.open_dir(Path::new("/")).unwrap().sync_all().unwrap();
    disk
}

/// What a simulated worker is like.
#[derive(Clone, Copy)]
pub struct Habits {
    pub mix: Mix,
    /// The size of a log segment.
    pub segment_bytes: u64,
    /// How many keys a slice of a snapshot visits at most, and about how many bytes go into one of its
    /// frames.
    pub slice_keys: usize,
    pub snapshot_frame_bytes: usize,
    /// Whether every turn is synced, as in the sync mode `always`.
    pub always: bool,
}

/// The state after each frame of the log, from the last one that is known to be durable on.
pub struct History {
    first_seq: u64,
    states: VecDeque<Model>,
}

impl History {
    /// A log whose last frame was `seq`.
    pub fn new(seq: u64, state: Model) -> History {
        History { first_seq: seq, states: VecDeque::from([state]) }
    }

    pub fn state(&self, seq: u64) -> &Model {
        &self.states[(seq - self.first_seq) as usize]
    }

    /// The newest frame.
    pub fn last_seq(&self) -> u64 {
        self.first_seq + self.states.len() as u64 - 1
    }

    pub fn push(&mut self, state: Model) {
        self.states.push_back(state);
    }

    fn forget_before(&mut self, seq: u64) {
        while self.first_seq < seq {
            self.states.pop_front();
            self.first_seq += 1;
        }
    }
}

/// How far the snapshotter is.
enum Stage {
    Idle,
    Writing { writer: SnapshotWriter<MemDisk>, position: u64, changes: Changes },
    Ending(SnapshotEnd<MemDisk>),
    Clearing(Obsolete<MemDisk>),
}

/// A client's walk through the keyspace that is under way.
struct Walk {
    position: u64,
    /// The keys that have been there ever since it began.
    staying: BTreeSet<Vec<u8>>,
    seen: BTreeMap<Vec<u8>, usize>,
}

/// A shard and its log, as a worker of the server holds them, and the model beside them.
pub struct Worker {
    pub now_ms: u64,
    pub history: History,
    pub log: Log<MemDisk>,
    habits: Habits,
    shard: Shard,
    model: Model,
    changes: Changes,
    transactions: u64,
    sync: Option<SyncTicket<MemDisk>>,
    preparation: Option<Preparation<MemDisk>>,
    stage: Stage,
    walk: Option<Walk>,
    /// Snapshots that replaced a part of the log.
    pub snapshots: usize,
}

impl Worker {
    /// The shard as its files tell, which has to be the state after the last frame that is found. That frame
    /// is none before `durable_seq`; `history` is what was, `seed` what the keys are hashed with.
    pub fn recover(
        disk: &MemDisk,
        habits: Habits,
        history: &History,
        durable_seq: u64,
        now_ms: u64,
        seed: u64,
    ) -> Result<Worker, Error> {
        let (shard, log) = recover(disk, habits.segment_bytes, seed)?;
        let last_seq = log.next_seq() - 1;
        let newest = history.last_seq();
        assert!(
            (durable_seq..=newest).contains(&last_seq),
            "recovered up to frame {last_seq}; {durable_seq} is durable, {newest} was the last"
        );
        let mut shard = shard.with_value_len_max(VALUE_LEN_MAX);
        let expected = history.state(last_seq).live(now_ms);
        expect_content(&mut shard, &expected, now_ms, last_seq);
        let model = Model::new(expected);
        Ok(Worker {
            now_ms,
            history: History::new(last_seq, model.clone()),
            log,
            habits,
            shard,
            model,
            changes: Changes::default(),
            transactions: 0,
            sync: None,
            preparation: None,
            stage: Stage::Idle,
            walk: None,
            snapshots: 0,
        })
    }

    /// The first life of a shard.
    pub fn new(disk: &MemDisk, habits: Habits, now_ms: u64, seed: u64) -> Worker {
        let history = History::new(0, Model::default());
        Worker::recover(disk, habits, &history, 0, now_ms, seed).unwrap()
    }

    /// One turn: some requests, what they changed into the log, a step of the snapshotter, syncs. The error is the last of
    /// several that the disk made; a worker goes on after it.
    pub fn turn(&mut self, dice: &mut Dice) -> Result<(), Error> {
        self.pass_time(dice);
        for _ in 0..dice.below(5) {
            if dice.one_in(12) {
                self.log_changes(Kind::Batch);
                self.request(dice);
                self.transactions += 1;
                let participants = &[PLACE.shard_index];
                self.log_changes(Kind::Transaction { id: self.transactions, participants });
            } else {
                self.request(dice);
            }
        }
        // Changes go into the log before a slice of a snapshot shows them, or it would show what can still be
        // lost.
        self.log_changes(Kind::Batch);
        if dice.one_in(3) {
            self.walk_slice(dice);
        }
        let stepped = self.step_snapshot(dice);
        let written = match self.habits.always {
            true => self.log.sync().map(drop),
            false => self.log.flush().map(drop),
        };
        let synced = self.sync(dice);
        self.history.forget_before(self.log.durable_seq().min(self.history.last_seq()));
        stepped.and(written).and(synced)
    }

    /// Closes the log in order; whether that came to its end, the state is that of the history's last frame.
    pub fn close(mut self) -> (History, Result<(), Error>) {
        self.history.push(self.model.clone()); // The closing mark takes a number and changes nothing.
        (self.history, self.log.close())
    }

    fn pass_time(&mut self, dice: &mut Dice) {
        self.now_ms += match dice.below(20) {
            0 => dice.below(4000) as u64,
            1..4 => 0,
            // Exactly at a deadline the key is gone.
            4 => self
                .model
                .next_deadline_ms(self.now_ms)
                .map_or(0, |at| at.min(self.now_ms + 5000) - self.now_ms),
            _ => dice.below(40) as u64,
        };
        self.note_changed_keys();
        if dice.one_in(4) {
            let keys_max = 1 + dice.below(30);
            if self.shard.expire(self.now_ms, keys_max) < keys_max {
                self.model.sweep(self.now_ms);
                assert_eq!(self.shard.key_count(), self.model.count(), "keys after expiry");
            }
        }
        self.shard.reclaim(dice.below(4));
    }

    fn request(&mut self, dice: &mut Dice) {
        let call = self.habits.mix.call(dice);
        self.execute(&call);
    }

    /// Runs a request on the shard and on the model, which have to agree.
    pub fn execute(&mut self, call: &Call) {
        let reply = call.run(&mut self.shard, self.now_ms, &mut self.changes);
        let expected = self.model.execute(call, self.now_ms);
        if call.row.name == "SWAPDB" {
            self.walk = None; // Its keys have other names from now on.
        }
        match (&reply, &expected) {
            // Keys that have expired count as long as they are in the way.
            (Reply::Integer(count), Reply::Integer(live)) if call.row.name == "DBSIZE" => {
                let all = self.model.count() as i64;
                assert!((*live..=all).contains(count), "{call}: {count} instead of {live} to {all}");
            }
            _ => assert_eq!(reply, expected, "{call} at {} ms", self.now_ms),
        }
        self.note_changed_keys();
    }

    /// Puts the changes so far into a frame.
    pub fn log_changes(&mut self, kind: Kind<'_>) {
        if !self.changes.is_empty() {
            let seq = self.log.append(kind, self.changes.count() as u32, self.changes.bytes());
            self.changes.clear(0);
            self.history.push(self.model.clone());
            assert_eq!(seq, self.history.last_seq(), "frames are numbered without gaps");
        }
    }

    /// A step of a sync; several turns may lie between its begin and its end.
    fn sync(&mut self, dice: &mut Dice) -> Result<(), Error> {
        if self.sync.is_none() && dice.one_in(6) {
            self.sync = self.log.begin_sync();
        } else if dice.one_in(3)
            && let Some(ticket) = self.sync.take()
        {
            if let Err(error) = ticket.run() {
                self.log.fail_sync();
                return Err(error);
            }
            let durable_seq = self.log.finish_sync(&ticket);
            assert!(durable_seq <= self.log.written_seq(), "only what was written is durable");
        }
        Ok(())
    }

    /// A step of what keeps the log in shape.
    fn step_snapshot(&mut self, dice: &mut Dice) -> Result<(), Error> {
        if self.preparation.is_none() && dice.one_in(10) {
            self.preparation = self.log.prepare();
        } else if dice.one_in(4)
            && let Some(preparation) = self.preparation.take()
        {
            self.log.adopt(preparation.run()?);
        }
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle if dice.one_in(12) => {
                let writer = self.log.begin_snapshot()?;
                self.stage = Stage::Writing { writer, position: 0, changes: Changes::default() };
            }
            Stage::Writing { writer, position, changes } if dice.one_in(2) => {
                self.snapshot_slice(writer, position, changes, dice)?;
            }
            Stage::Ending(mut ending) if dice.one_in(2) => {
                if !self.log.cover(&mut ending)? {
                    self.stage = Stage::Ending(ending);
                    return Ok(());
                }
                let snapshot = ending.finish().map_err(|failed| self.log.fail_snapshot(failed))?;
                self.stage = Stage::Clearing(self.log.retire(&snapshot));
                self.snapshots += 1;
            }
            Stage::Clearing(obsolete) if dice.one_in(2) => {
                if let Some(spare) = obsolete.clear()? {
                    self.log.adopt(spare);
                }
            }
            stage => self.stage = stage,
        }
        Ok(())
    }

    fn snapshot_slice(
        &mut self,
        mut writer: SnapshotWriter<MemDisk>,
        position: u64,
        mut changes: Changes,
        dice: &mut Dice,
    ) -> Result<(), Error> {
        let at_least = 1 + dice.below(self.habits.slice_keys);
        let mut written = Ok(());
        if position == 0 {
            self.shard.tell_databases(&mut changes);
        }
        let next = self.shard.walk(position, at_least, self.now_ms, |keyspace, key, value, deadline_ms| {
            changes.set_keyspace(keyspace);
            changes.push(&Change::Put { key, value, deadline_ms });
            if changes.bytes().len() >= self.habits.snapshot_frame_bytes && written.is_ok() {
                written = append(&mut writer, &mut changes);
            }
        });
        written?;
        self.stage = match next {
            Some(position) => Stage::Writing { writer, position, changes },
            None => {
                append(&mut writer, &mut changes)?;
                Stage::Ending(self.log.end_snapshot(writer)?)
            }
        };
        Ok(())
    }

    /// A whole snapshot, and what it replaces cleared away; returns the last frame whose effects it may show.
    pub fn snapshot(&mut self, dice: &mut Dice) -> u64 {
        let writer = self.log.begin_snapshot().unwrap();
        self.stage = Stage::Writing { writer, position: 0, changes: Changes::default() };
        while let Stage::Writing { writer, position, changes } =
            std::mem::replace(&mut self.stage, Stage::Idle)
        {
            self.snapshot_slice(writer, position, changes, dice).unwrap();
            if !matches!(self.stage, Stage::Writing { .. }) {
                break;
            }
            self.request(dice);
            self.log_changes(Kind::Batch);
            self.log.flush().unwrap();
        }
        let Stage::Ending(mut ending) = std::mem::replace(&mut self.stage, Stage::Idle) else {
            panic!("a snapshot ends after its last slice");
        };
        let last_seq = self.history.last_seq();
        self.log.sync().unwrap();
        assert!(self.log.cover(&mut ending).unwrap());
        let snapshot = ending.finish().unwrap();
        if let Some(spare) = self.log.retire(&snapshot).clear().unwrap() {
            self.log.adopt(spare);
        }
        last_seq
    }

    /// A client's walk goes on, or another one begins: it shows keys that are there, and each that stays
    /// once.
    fn walk_slice(&mut self, dice: &mut Dice) {
        let staying = || self.model.live(self.now_ms).into_keys().collect();
        let begin = || Walk { position: 0, staying: staying(), seen: BTreeMap::new() };
        let mut walk = self.walk.take().unwrap_or_else(begin);
        let at_least = dice.below(self.habits.slice_keys);
        let next =
            self.shard.walk(walk.position, at_least, self.now_ms, |keyspace, key, value, deadline_ms| {
                let key = &name(self.shard.database_of(keyspace), key)[..];
                let entry = self.model.find(key, self.now_ms);
                let shown = (value.to_vec(), deadline_ms);
                assert_eq!(entry, Some(&shown), "the walk shows \"{}\"", key.escape_ascii());
                *walk.seen.entry(key.to_vec()).or_default() += 1;
            });
        match next {
            Some(position) => self.walk = Some(Walk { position, ..walk }),
            None => {
                for key in &walk.staying {
                    let times = walk.seen.get(key);
                    assert_eq!(times, Some(&1), "\"{}\" stayed while a walk went by", key.escape_ascii());
                }
            }
        }
    }

    /// A key that was not there for a moment did not stay.
    fn note_changed_keys(&mut self) {
        if let Some(walk) = &mut self.walk {
            walk.staying.retain(|key| self.model.find(key, self.now_ms).is_some());
        }
    }
}

fn append(writer: &mut SnapshotWriter<MemDisk>, changes: &mut Changes) -> Result<(), Error> {
    if !changes.is_empty() {
        writer.append(Kind::Batch, changes.count() as u32, changes.bytes())?;
        changes.clear(0);
    }
    Ok(())
}

/// Snapshot and log into an empty shard, as the server does it.
pub fn recover(disk: &MemDisk, segment_bytes: u64, seed: u64) -> Result<(Shard, Log<MemDisk>), Error> {
    let mut shard = Shard::new([seed, 1, 2, 3]);
    let (log, _) = Log::recover(disk, directory(), PLACE, segment_bytes, |record| {
        let mut entries = 0;
        shard.apply(&Change::Keyspace(0));
        for change in shard::decode(record.payload) {
            let change = change.expect("a frame that is good holds changes");
            shard.apply(&change);
            entries += u32::from(!matches!(change, Change::Keyspace(_)));
        }
        assert_eq!(record.entries, entries, "entries of frame {}", record.seq);
        Ok::<_, Error>(())
    })?;
    Ok((shard, log))
}

/// Demands that a shard holds exactly these keys, and that background expiry leaves nothing else.
pub fn expect_content(shard: &mut Shard, expected: &Content, now_ms: u64, seq: u64) {
    assert_eq!(content(shard, now_ms), *expected, "the state after frame {seq} at {now_ms} ms");
    shard.expire(now_ms, usize::MAX);
    assert_eq!(shard.key_count(), expected.len(), "expired keys are gone");
    let next = expected.values().filter_map(|(_, deadline_ms)| deadline_ms.map(due)).min();
    assert_eq!(shard.next_deadline_ms(), next, "the next key to expire");
}

/// The keys that exist.
pub fn content(shard: &Shard, now_ms: u64) -> Content {
    let mut content = Content::new();
    let end = shard.walk(0, usize::MAX, now_ms, |keyspace, key, value, deadline_ms| {
        let key = name(shard.database_of(keyspace), key);
        let before = content.insert(key.clone(), (value.to_vec(), deadline_ms));
        assert_eq!(before, None, "\"{}\" is shown once", key.escape_ascii());
    });
    assert_eq!(end, None);
    content
}
