//! What a shard knows about the use of its keys.
//!
//! Every access is counted with the key itself, exactly (`entry::Usage`). Everything else has a fixed size,
//! whatever the number of keys, and sees a sample in two ways: of all accesses, every one while there are few
//! of them and one of [`SAMPLED_ONE_OF`] beyond [`OBSERVED_A_SECOND`], each for as many as it stands for; and
//! of some keys, chosen by their hash, every access.
//!
//! In reading order:
//!
//! - [`Analytics`] the accesses of one shard
//! - `query` what can be asked of it, and how the answers of several shards become one
//! - `hot` the keys that are used most
//! - `classes` kinds of keys, learnt from their names
//! - `intervals` how long keys rest between two uses, and the TTL that follows
//! - `reuse` the hit ratio to expect with more or less memory
//! - `gate` which keys the last two follow
//! - `load` the measured load over the hours of the week, and its forecast
//! - `anomalies` which series have left what is normal for them
//! - `kept` what survives a restart
//!
//! It changes no key, and nothing of it is logged.

pub mod anomalies;
pub mod class_id;
pub mod classes;
mod gate;
pub mod hot;

pub mod intervals;
mod kept;
pub mod load;
pub mod query;
pub mod reuse;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::clock;
use crate::stats::Stats;
use crate::store::entry::{Entry, Usage};
use crate::store::keyspace::{Found, Keyspace, Probe, TABLE_BYTES_A_KEY};

use anomalies::{Detector, Measure, SeriesId, Watched};
use class_id::{ClassId, OTHER_ID};
use classes::Classes;
use hot::{By, Counted, Observation, TopKeys, Touch};
use intervals::{Histogram, Histories, Tracker};
use reuse::MissRatio;

/// So many accesses of a second are all observed.
pub const OBSERVED_A_SECOND: u32 = 1 << 13;
/// Of the others, one of so many, on average.
pub const SAMPLED_ONE_OF: u32 = 64;

/// So many of the hottest keys, and of the busiest classes, are watched for anomalies.
const WATCHED_KEYS: usize = 16;
const WATCHED_CLASSES: usize = 16;
/// For so long after the start, a key that becomes hot is nothing new.
const WARM_UP_MS: u64 = 120_000;
/// A ratio of fewer operations than this, in a second, says nothing.
const RATIO_OPERATIONS_MIN: u64 = 10;

/// A key with at least so many rests is told from its class.
const OWN_RESTS_MIN: u64 = 100;

/// The curve of the hit ratio forgets half of what it knows after so long.
const AGING_MS: u64 = 3_600_000;

/// How the keys of a shard are used.
#[derive(Debug)]
pub struct Analytics {
    /// The times of usages count from here.
    epoch_ms: u64,
    /// Since when accesses are counted: the start, or the last time that everything was forgotten.
    since_ms: u64,
    /// For how long those were counted, before the start, that the classes know of.
    earlier_ms: u64,
    now_ms: u64,
    now_s: u32,
    /// How far the wall clock is ahead of the server's time.
    wall_ahead_ms: i64,
    /// Accesses until the next one that is observed.
    countdown: u32,
    /// Commands work in the database whose keys' use is followed. In others an access is counted with its key alone.
    follows: bool,
    /// How many accesses the next observation stands for.
    weight: u32,
    /// How many accesses of this second are still all observed.
    budget: u32,
    random: u32,
    top: TopKeys,
    classes: Classes,
    tracker: Tracker,
    histories: Histories,
    reuse: MissRatio,
    detector: Detector,
    watch: Watch,
    next_aging_ms: u64,
}

/// What the anomalies are found in: counters as they were a second ago.
#[derive(Debug, Default)]
struct Watch {
    at_ms: u64,
    stats: Stats,
    /// Reads and writes of the watched keys.
    keys: HashMap<Vec<u8>, u64>,
    /// The same of the watched classes.
    classes: HashMap<ClassId, u64>,
    /// The least rate of the watched keys.
    rate_min: f64,
}

/// What is known of a key besides the counters of its entry.
pub(crate) struct OfKey {
    /// The name of its class.
    pub(crate) class: Vec<u8>,
    /// Reads and writes per second of late, of keys among the most used.
    pub(crate) rate: Option<f64>,
    /// Times between two uses, in milliseconds: of the key itself if it is used much, else of the keys of its
    /// class.
    pub(crate) interval_p50_ms: Option<u64>,
    pub(crate) interval_p99_ms: Option<u64>,
    /// Whether they are those of the key itself.
    pub(crate) has_history: bool,
}

/// What was done with a key.
struct Access<'k> {
    key: &'k [u8],
    hash: u32,
    touch: Touch,
    value_len: usize,
    deadline_ms: Option<u64>,
    /// How long the key had rested, if it is there and was used before.
    rest_s: Option<u32>,
    /// How it has been used, this access included, if it is there.
    usage: Option<Usage>,
}

impl Analytics {
    /// Nothing counted yet.
    pub(crate) fn new(now_ms: u64) -> Self {
        Analytics {
            epoch_ms: now_ms,
            since_ms: now_ms,
            earlier_ms: 0,
            now_ms,
            now_s: 0,
            wall_ahead_ms: 0,
            countdown: 1,
            follows: true,
            weight: 1,
            budget: OBSERVED_A_SECOND,
            random: 0x9e37_79b9,
            top: TopKeys::default(),
            classes: Classes::default(),
            tracker: Tracker::default(),
            histories: Histories::default(),
            reuse: MissRatio::default(),
            detector: Detector::default(),
            watch: Watch { at_ms: now_ms, ..Watch::default() },
            next_aging_ms: now_ms + AGING_MS,
        }
    }

    /// The time at which all begins, in place of that of [`Analytics::new`]. Nothing was counted yet.
    pub(crate) fn start(&mut self, now_ms: u64) {
        (self.epoch_ms, self.since_ms, self.now_ms, self.watch.at_ms) = (now_ms, now_ms, now_ms, now_ms);
        self.next_aging_ms = now_ms + AGING_MS;
    }

    /// From now on the wall clock is so far ahead of the server's time.
    pub(crate) fn set_wall_ahead(&mut self, wall_ahead_ms: i64) {
        self.wall_ahead_ms = wall_ahead_ms;
        self.detector.set_wall_ahead(wall_ahead_ms);
    }

    /// Whether the accesses that come are to keys whose use is followed.
    pub(crate) fn follow(&mut self, follows: bool) {
        self.follows = follows;
    }

    /// The time of the accesses that follow.
    #[inline]
    pub(crate) fn set_time(&mut self, now_ms: u64) {
        if now_ms != self.now_ms {
            self.now_ms = now_ms;
            let now_s = (now_ms.saturating_sub(self.epoch_ms) / 1000).min(u64::from(Usage::MAX)) as u32;
            if now_s != self.now_s {
                self.now_s = now_s;
                self.budget = OBSERVED_A_SECOND;
            }
        }
    }

    /// A command has read a key, or would have.
    #[inline]
    pub(crate) fn on_read(&mut self, probe: Probe<'_>, found: Option<Found>, keyspace: &mut Keyspace) {
        let rest_s = found.and_then(|found| keyspace.count_read(found, self.now_s));
        if self.is_observed(probe.hash) {
            let entry = found.map(|found| keyspace.entry(found));
            self.observe(&Access {
                key: probe.key,
                hash: probe.hash,
                touch: if found.is_some() { Touch::Read } else { Touch::Miss },
                value_len: entry.map_or(0, |entry| entry.value().len()),
                deadline_ms: entry.and_then(Entry::deadline_ms),
                rest_s,
                usage: entry.and_then(Entry::usage),
            });
        }
    }

    /// A command is about to give a key that is there this value and deadline.
    #[inline]
    pub(crate) fn on_write(
        &mut self,
        key: &[u8],
        found: Found,
        value_len: usize,
        deadline_ms: Option<u64>,
        keyspace: &mut Keyspace,
    ) {
        let rest_s = keyspace.count_write(found, self.now_s);
        if self.is_observed(found.hash) {
            let (hash, touch, usage) = (found.hash, Touch::Write, keyspace.entry(found).usage());
            self.observe(&Access { key, hash, touch, value_len, deadline_ms, rest_s, usage });
        }
    }

    /// A command is about to make a key. Returns the first count of its use.
    #[inline]
    pub(crate) fn on_insert(
        &mut self,
        probe: Probe<'_>,
        value_len: usize,
        deadline_ms: Option<u64>,
    ) -> Usage {
        let created = Usage::created(self.now_s);
        if self.is_observed(probe.hash) {
            let Probe { key, hash } = probe;
            let (touch, rest_s, usage) = (Touch::Write, None, Some(created));
            self.observe(&Access { key, hash, touch, value_len, deadline_ms, rest_s, usage });
        }
        created
    }

    /// A command is about to remove a key.
    #[inline]
    pub(crate) fn on_remove(&mut self, key: &[u8], hash: u32) {
        if self.is_observed(hash) {
            if !self.follows {
                return self.pass_over();
            }
            if self.countdown == 0 {
                let (touch, weight) = (Touch::Write, self.weight);
                let seen = Observation { key, hash, touch, bytes: 0, weight, counted: None };
                self.top.observe(&seen, self.now_ms);
                self.choose_next();
            }
            self.tracker.remove(hash);
            self.reuse.remove(hash);
        }
    }

    /// Every key was removed.
    pub(crate) fn on_clear(&mut self) {
        self.top.clear();
        self.classes.clear();
        self.tracker.clear();
        self.histories.clear();
        self.reuse.clear();
        self.watch.keys.clear();
        self.watch.classes.clear();
        (self.since_ms, self.earlier_ms) = (self.now_ms, 0);
    }

    /// What is worth keeping over a restart.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        kept::to_bytes(&self.classes, self.classes_watched_ms())
    }

    /// Takes what [`Analytics::to_bytes`] gave an earlier process; `false`, and nothing is changed, for other
    /// bytes. What the classes have counted by now is lost: to be called at the start.
    pub(crate) fn restore(&mut self, bytes: &[u8]) -> bool {
        let Some((classes, earlier_ms)) = kept::from_bytes(bytes) else { return false };
        (self.classes, self.earlier_ms) = (classes, earlier_ms);
        true
    }

    /// Forgets everything but what is counted with the keys.
    pub(crate) fn reset(&mut self, stats: Stats) {
        self.on_clear();
        self.reuse.reset(stats.hits, stats.misses);
        self.detector = Detector::default();
        self.detector.set_wall_ahead(self.wall_ahead_ms);
    }

    /// Takes note of the last second. To be called about once a second. `latency_us` is how long requests
    /// took lately, if there were any.
    pub(crate) fn on_second(&mut self, stats: Stats, latency_us: Option<f64>, keyspace: &Keyspace) {
        let now_ms = self.now_ms;
        if now_ms >= self.next_aging_ms {
            self.next_aging_ms = now_ms + AGING_MS;
            self.reuse.age(stats.hits, stats.misses);
        }
        let seconds = now_ms.saturating_sub(self.watch.at_ms) as f64 / 1000.0;
        if seconds <= 0.0 {
            return;
        }
        let before = std::mem::replace(&mut self.watch.stats, stats);
        self.watch.at_ms = now_ms;
        let mut observe = |measure, value| self.detector.observe(SeriesId::shard(measure), value, now_ms);
        let (reads, writes) = (stats.reads - before.reads, stats.writes - before.writes);
        let (hits, misses) = (stats.hits - before.hits, stats.misses - before.misses);
        observe(Measure::Rate, (reads + writes) as f64 / seconds);
        if hits + misses >= RATIO_OPERATIONS_MIN {
            observe(Measure::MissRatio, misses as f64 / (hits + misses) as f64);
        }
        if reads + writes >= RATIO_OPERATIONS_MIN {
            observe(Measure::WriteRatio, writes as f64 / (reads + writes) as f64);
        }
        if let Some(latency_us) = latency_us {
            observe(Measure::LatencyUs, latency_us);
        }
        let growth = stats.memory_bytes as f64 - before.memory_bytes as f64;
        observe(Measure::MemoryGrowth, growth / seconds);
        self.watch_keys(seconds, keyspace);
        self.watch_classes(seconds);
    }

    fn watch_keys(&mut self, seconds: f64, keyspace: &Keyspace) {
        let is_warm = self.now_ms > self.epoch_ms + WARM_UP_MS;
        let mut counts = HashMap::with_capacity(WATCHED_KEYS);
        let mut rate_min = f64::INFINITY;
        for hot in self.top.top(WATCHED_KEYS, By::Operations, self.now_ms) {
            let Some(found) = keyspace.find(keyspace.probe(&hot.key)) else { continue };
            let Some(usage) = keyspace.entry(found).usage() else { continue };
            let count = u64::from(usage.reads) + u64::from(usage.writes);
            let id = SeriesId::key(Measure::Rate, &hot.key);
            match self.watch.keys.get(&hot.key) {
                Some(before) => {
                    let rate = count.saturating_sub(*before) as f64 / seconds;
                    rate_min = rate_min.min(rate);
                    self.detector.observe(id, rate, self.now_ms);
                }
                None if is_warm => self.detector.introduce(id, self.watch.rate_min, self.now_ms),
                None => {}
            }
            counts.insert(hot.key, count);
        }
        self.watch.keys = counts;
        self.watch.rate_min = if rate_min.is_finite() { rate_min } else { 0.0 };
    }

    fn watch_classes(&mut self, seconds: f64) {
        let mut busiest: Vec<_> =
            self.classes.iter().map(|(id, class)| (class.reads + class.writes, id, &class.name)).collect();
        busiest.sort_unstable_by_key(|(count, id, _)| (std::cmp::Reverse(*count), *id));
        busiest.truncate(WATCHED_CLASSES);
        let mut counts = HashMap::with_capacity(WATCHED_CLASSES);
        for (count, id, name) in busiest {
            if let Some(before) = self.watch.classes.get(&id) {
                let rate = count.saturating_sub(*before) as f64 / seconds;
                self.detector.observe(SeriesId::class(Measure::Rate, name), rate, self.now_ms);
            }
            counts.insert(id, count);
        }
        self.watch.classes = counts;
    }

    /// The series that are followed for anomalies, and what they show now.
    pub(crate) fn watched(&self, now_ms: u64) -> Watched {
        self.detector.watched(now_ms)
    }

    /// The memory that is held, in bytes, without the counters of the keys.
    pub fn memory_bytes(&self) -> usize {
        self.top.memory_bytes()
            + self.classes.memory_bytes()
            + self.tracker.memory_bytes()
            + self.histories.memory_bytes()
            + self.reuse.memory_bytes()
            + self.detector.memory_bytes()
            + size_of::<Self>()
    }

    /// What is known of a key besides the counters of its entry.
    pub(crate) fn of_key(&self, key: &[u8], hash: u32) -> OfKey {
        let class = self.classes.class(self.classes.find(key));
        let own = self.histories.closed(hash).filter(|own| own.observations() >= OWN_RESTS_MIN);
        let rests: &Histogram = own.unwrap_or(&class.intervals);
        let hot = self.top.find(hash, key, self.now_ms);
        // Faded counts of a steady rate approach what this window holds.
        let half_lives = self.watched_ms() as f64 / hot::HALF_LIFE_MS as f64;
        let window_s =
            hot::HALF_LIFE_MS as f64 / 1000.0 / std::f64::consts::LN_2 * (1.0 - (-half_lives).exp2());
        let rate = hot.filter(|_| window_s >= 1.0).map(|hot| (hot.reads + hot.writes) / window_s);
        OfKey {
            class: class.name.clone(),
            rate,
            interval_p50_ms: rests.quantile(0.5),
            interval_p99_ms: rests.quantile(0.99),
            has_history: own.is_some(),
        }
    }

    /// For how many seconds a key has rested whose usage has this last access.
    pub(crate) fn idle_s(&self, last_access_s: u32) -> u32 {
        self.now_s.saturating_sub(last_access_s)
    }

    /// The moment, in milliseconds since the Unix epoch, that a time of a usage means, as the wall clock goes now.
    pub(crate) fn unix_ms(&self, seconds: u32) -> u64 {
        (self.epoch_ms + u64::from(seconds) * 1000).saturating_add_signed(self.wall_ahead_ms)
    }

    /// Whether a deadline has come.
    pub(crate) fn has_come(&self, deadline_ms: u64) -> bool {
        clock::due_ms(deadline_ms, self.wall_ahead_ms) <= self.now_ms
    }

    /// For how long accesses have been counted, in milliseconds.
    fn watched_ms(&self) -> u64 {
        self.now_ms.saturating_sub(self.since_ms)
    }

    /// The same for those that the classes know of, some from before the start.
    fn classes_watched_ms(&self) -> u64 {
        self.watched_ms().saturating_add(self.earlier_ms)
    }

    /// Whether the access that happens now is observed; if so, [`Analytics::observe`] has to follow.
    #[inline]
    fn is_observed(&mut self, hash: u32) -> bool {
        self.countdown -= 1;
        self.countdown == 0 || self.tracker.tracks(hash) || self.reuse.samples(hash)
    }

    #[cold]
    #[inline(never)]
    fn observe(&mut self, access: &Access<'_>) {
        if !self.follows {
            return self.pass_over();
        }
        let Access { key, hash, touch, value_len, deadline_ms, .. } = *access;
        let deadline_ms = deadline_ms.map(|deadline_ms| clock::due_ms(deadline_ms, self.wall_ahead_ms));
        let now_ms = self.now_ms;
        // A use that is neither sampled nor tracked is here for the curve, which knows no classes.
        let id = match self.countdown {
            0 => self.classes.learn(key),
            _ if self.tracker.tracks(hash) => self.classes.find(key),
            _ => OTHER_ID,
        };
        self.observe_rest(access, id);
        if self.countdown == 0 {
            let weight = self.weight;
            let counted = access.usage.map(|Usage { reads, writes, created_s: created, .. }| Counted {
                reads,
                writes,
                created,
            });
            self.top.observe(&Observation { key, hash, touch, bytes: value_len, weight, counted }, now_ms);
            let class = self.classes.class_mut(id);
            match touch {
                Touch::Read => class.hits += u64::from(weight),
                Touch::Miss => class.misses += u64::from(weight),
                Touch::Write => class.writes += u64::from(weight),
            }
            class.reads += if touch == Touch::Write { 0 } else { u64::from(weight) };
            if let (Touch::Write, Some(deadline_ms)) = (touch, deadline_ms) {
                class.ttls.record(deadline_ms.saturating_sub(now_ms), weight);
            }
            self.choose_next();
        }
        if self.reuse.samples(hash) {
            let bytes = footprint_bytes(key.len(), value_len, deadline_ms);
            match touch {
                Touch::Read => self.reuse.read(hash, Some(bytes), now_ms),
                Touch::Miss => self.reuse.read(hash, None, now_ms),
                Touch::Write => self.reuse.write(hash, bytes, deadline_ms, now_ms),
            }
        }
    }

    /// An access that would be observed is to a key whose use is not followed.
    fn pass_over(&mut self) {
        if self.countdown == 0 {
            self.choose_next();
        }
    }

    /// Takes note of how long the key of an access had rested. A key that is there knows it itself, in
    /// seconds, and one access of a sample stands for all; of a key that was there before, only the tracker
    /// knows.
    fn observe_rest(&mut self, access: &Access<'_>, id: ClassId) {
        let Access { hash, rest_s, .. } = *access;
        let tracks = self.tracker.tracks(hash);
        let tracked_ms = tracks.then(|| self.tracker.touch(hash, id, self.now_ms)).flatten();
        let (ms, weight) = match (rest_s, tracked_ms) {
            (Some(_), _) if self.countdown > 0 => return,
            (Some(rest_s), _) => (tracked_ms.unwrap_or(u64::from(rest_s) * 1000), self.weight),
            (None, Some(ms)) => (ms, self.tracker.weight()),
            (None, None) => return,
        };
        self.classes.class_mut(id).intervals.record(ms, weight);
        self.histories.record(hash, ms, weight);
    }

    /// Chooses the next access that is observed.
    fn choose_next(&mut self) {
        if self.budget > 0 {
            self.budget -= 1;
            (self.countdown, self.weight) = (1, 1);
            return;
        }
        // Xorshift: a sample at equal distances would miss what happens at the same ones.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.countdown = 1 + self.random % (2 * SAMPLED_ONE_OF - 1);
        self.weight = SAMPLED_ONE_OF;
    }
}

/// The memory of a key, in bytes, its share of the tables included.
fn footprint_bytes(key_len: usize, value_len: usize, deadline_ms: Option<u64>) -> usize {
    crate::store::entry::entry_len(crate::store::entry::body_len(key_len, true), value_len, deadline_ms)
        + TABLE_BYTES_A_KEY
}
