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
//! - `inquiry` what can be asked of it, and how the answers of several shards become one
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
pub mod classes;
mod gate;
pub mod hot;
pub mod inquiry;
pub mod intervals;
mod kept;
pub mod load;
pub mod reuse;

use std::collections::HashMap;

use crate::Stats;
use crate::entry::{Entry, Usage};
use crate::keyspace::{Found, Keyspace, Probe, TABLE_BYTES_A_KEY};
use anomalies::{Detector, Measure, SeriesId};
use classes::{ClassId, Classes, OTHER_ID};
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
    /// Accesses until the next one that is observed.
    countdown: u32,
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
            countdown: 1,
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

    /// The moment, in milliseconds since the Unix epoch, that a time of a usage means.
    pub(crate) fn unix_ms(&self, seconds: u32) -> u64 {
        self.epoch_ms + u64::from(seconds) * 1000
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
        let Access { key, hash, touch, value_len, deadline_ms, .. } = *access;
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
    crate::entry::entry_len(crate::entry::body_len(key_len, true), value_len, deadline_ms) + TABLE_BYTES_A_KEY
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::inquiry::{Findings, Question};
    use super::*;
    use crate::commands::script;
    use crate::{Changes, Dialect, Reply, Request, Shard, Span, command};

    const EPOCH_MS: u64 = 1_768_473_000_000;

    fn counting() -> Shard {
        Shard::new([1, 2, 3, 4]).with_analytics(EPOCH_MS)
    }

    fn run(shard: &mut Shard, request: &str, now_ms: u64) -> Reply<'static> {
        let words: Vec<_> = request.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        script::execute(shard, Dialect::Resp3, &words, now_ms, &mut Changes::default()).into_owned()
    }

    /// What the shards answer together to a question, asked as a client does.
    fn ask(shards: &mut [Shard], request: &str, now_ms: u64, keys_a_step: usize) -> Reply<'static> {
        let words: Vec<_> = request.split(' ').collect();
        let mut spans = Vec::new();
        let mut start = 0;
        for word in &words {
            spans.push(Span { start: start as u32, len: word.len() as u32 });
            start += word.len();
        }
        let buffer = words.concat().into_bytes();
        let row = command::find(words[0].as_bytes()).expect("a command of the table");
        let request = Request::new(row, Dialect::Resp3, &buffer, &spans[1..]);
        let question = Question::of(&request).unwrap();
        let mut all: Option<Findings> = None;
        for (number, shard) in shards.iter_mut().enumerate() {
            let mut inquiry = shard.ask(question.clone(), number, now_ms).unwrap();
            let found =
                std::iter::from_fn(|| Some(shard.advance(&mut inquiry, keys_a_step))).flatten().next();
            let found = found.expect("a walk ends");
            match &mut all {
                Some(all) => all.add(found, &question),
                None => all = Some(found),
            }
        }
        all.unwrap().reply(&question, Dialect::Resp3)
    }

    fn field(reply: &Reply<'_>, name: &str) -> String {
        let Reply::Map(fields) = reply else { panic!("{reply:?} is no map") };
        match fields.iter().find(|(known, _)| known == name).map(|(_, value)| value) {
            Some(Reply::Integer(number)) => number.to_string(),
            Some(Reply::Bulk(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            Some(Reply::Nil) => "nil".to_owned(),
            other => panic!("{name} is {other:?}"),
        }
    }

    fn column(reply: &Reply<'_>, name: &str) -> Vec<String> {
        let Reply::Array(rows) = reply else { panic!("{reply:?} is no list") };
        rows.iter().map(|row| field(row, name)).collect()
    }

    #[test]
    fn a_key_keeps_its_counters_while_it_exists() {
        let mut shard = counting();
        run(&mut shard, "SET a 1", EPOCH_MS + 2000);
        run(&mut shard, "GET a", EPOCH_MS + 3999);
        run(&mut shard, &format!("SET a {}", "x".repeat(3000)), EPOCH_MS + 4000);
        run(&mut shard, "EXPIRE a 100", EPOCH_MS + 5000);
        run(&mut shard, "STRLEN a", EPOCH_MS + 64_000);
        for _ in 0..2 {
            let reply = run(&mut shard, "ANALYZE a", EPOCH_MS + 65_000);
            let fields = ["reads", "writes", "created", "last_access", "idle", "ttl", "size"];
            let expected = ["2", "3", "2026-01-15T10:30:02Z", "2026-01-15T10:31:04Z", "1", "40", "3000"];
            assert_eq!(fields.map(|name| field(&reply, name)), expected, "to be analyzed is no use");
        }
        assert_eq!(run(&mut shard, "ANALYZE a", EPOCH_MS + 105_000), Reply::Nil);
        run(&mut shard, "SET a 1", EPOCH_MS + 106_000);
        assert_eq!(field(&run(&mut shard, "ANALYZE a", EPOCH_MS + 106_000), "reads"), "0");
    }

    #[test]
    fn keys_of_the_log_count_from_the_start_on() {
        let mut shard = counting();
        shard.apply(&crate::Change::Put { key: b"a", value: b"1", deadline_ms: None });
        run(&mut shard, "GET a", EPOCH_MS + 7000);
        let reply = run(&mut shard, "ANALYZE a", EPOCH_MS + 8000);
        let fields = ["reads", "writes", "created", "last_access"];
        let expected = ["1", "0", "2026-01-15T10:30:00Z", "2026-01-15T10:30:07Z"];
        assert_eq!(fields.map(|name| field(&reply, name)), expected);
    }

    #[test]
    fn shards_answer_together_as_one() {
        let mut shards: Vec<_> = (0..3).map(|_| counting()).collect();
        for number in 0..30 {
            let shard = &mut shards[number % 3];
            run(shard, &format!("SET key:{number} {}", "v".repeat(number)), EPOCH_MS);
            (0..number).for_each(|_| drop(run(shard, &format!("GET key:{number}"), EPOCH_MS + 10_000)));
        }
        let hottest = ["key:29", "key:28", "key:27", "key:26"];
        for request in ["HOTKEYS 4", "HOTKEYS 4 TOTAL", "HOTKEYS 4 BY reads", "HOTKEYS 4 BY bytes"] {
            for keys_a_step in [1, 4, 1000] {
                let reply = ask(&mut shards, request, EPOCH_MS + 11_000, keys_a_step);
                assert_eq!(column(&reply, "key"), hottest, "{request}");
                assert_eq!(column(&reply, "reads"), ["29", "28", "27", "26"], "{request}");
            }
        }
        run(&mut shards[1], "GET key:28", EPOCH_MS + 20_000);
        let cold = ask(&mut shards, "COLDKEYS 10 3", EPOCH_MS + 21_000, 2);
        assert_eq!(column(&cold, "key"), ["key:29", "key:27", "key:26"]);
        assert_eq!(column(&cold, "idle"), ["11", "11", "11"]);
        let prefixes = ask(&mut shards, "PREFIXES 100", EPOCH_MS + 21_000, 2);
        let sum = |name| column(&prefixes, name).iter().map(|n| n.parse::<u64>().unwrap()).sum::<u64>();
        assert_eq!((sum("keys"), sum("reads"), sum("writes")), (30, 436, 30));
        let sizes = (0..30).map(|n| n + "key:".len() as u64 + if n < 10 { 1 } else { 2 });
        assert_eq!(sum("bytes"), sizes.sum::<u64>());
    }

    #[test]
    fn what_is_gone_is_not_listed() {
        let mut shards = [counting()];
        for request in ["SET a 1", "SET b 1 PX 500", "GET a", "GET a", "GET b", "SET c 1"] {
            run(&mut shards[0], request, EPOCH_MS);
        }
        run(&mut shards[0], "DEL a", EPOCH_MS);
        for request in ["HOTKEYS", "HOTKEYS TOTAL", "COLDKEYS 0"] {
            let reply = ask(&mut shards, request, EPOCH_MS + 500, 9);
            assert_eq!(column(&reply, "key"), ["c"], "{request}");
        }
        run(&mut shards[0], "CLEAR", EPOCH_MS + 600);
        run(&mut shards[0], "SET d 1", EPOCH_MS + 600);
        for request in ["HOTKEYS", "HOTKEYS TOTAL", "COLDKEYS 0"] {
            assert_eq!(column(&ask(&mut shards, request, EPOCH_MS + 700, 9), "key"), ["d"], "{request}");
        }
    }

    /// 100 keys are read every 20 s, one of them every second.
    #[test]
    fn a_ttl_is_learnt_from_the_key_where_it_has_a_history_and_else_from_its_class() {
        let mut shard = counting();
        for number in 0..100 {
            run(&mut shard, &format!("SET user:{number} v"), EPOCH_MS);
        }
        let mut now_ms = EPOCH_MS;
        for second in 1..=2000 {
            now_ms = EPOCH_MS + second * 1000;
            run(&mut shard, "GET user:1", now_ms);
            for number in (0..100).filter(|number| number % 20 == second % 20) {
                run(&mut shard, &format!("GET user:{number}"), now_ms);
            }
        }
        let shards = &mut [shard];
        let mut ttl_s = |question: &str| {
            let reply = ask(shards, question, now_ms, 10);
            let number = |name| field(&reply, name).parse::<u64>().unwrap();
            (number("ttl"), field(&reply, "learnt_from"), number("observations"))
        };
        let (ttl, learnt_from, observations) = ttl_s("SUGGEST-TTL user:1 EXPLAIN");
        assert!(
            (1..=2).contains(&ttl) && learnt_from == "key" && observations == 2100,
            "{ttl} {observations}"
        );
        for question in ["SUGGEST-TTL CLASS user:* EXPLAIN", "SUGGEST-TTL user:new EXPLAIN"] {
            let (ttl, learnt_from, observations) = ttl_s(question);
            assert!((20..=25).contains(&ttl) && learnt_from == "class", "{ttl} for {question}");
            assert_eq!(observations, 2000 + 10_000);
        }
        let analyzed = run(&mut shards[0], "ANALYZE user:1", now_ms);
        assert_eq!(field(&analyzed, "interval_p50_ms"), "1023");
    }

    #[test]
    fn the_hit_ratio_to_expect_is_that_of_an_lru_cache() {
        let mut shard = counting();
        let mut now_ms = EPOCH_MS;
        for round in 0..20 {
            for number in 0..1000 {
                now_ms += 1;
                run(&mut shard, &format!("GET key:{number}"), now_ms);
                if round == 0 {
                    run(&mut shard, &format!("SET key:{number} value"), now_ms);
                }
            }
        }
        let Reply::Array(rows) = ask(&mut [shard], "CACHE-ADVICE", now_ms, 10) else { panic!("no list") };
        let hit_ratio = |row: &Reply<'_>| field(row, "hit_ratio").parse::<f64>().unwrap();
        let ratios: Vec<_> = rows.iter().map(hit_ratio).collect();
        assert_eq!(ratios[0], 0.95);
        assert!(
            ratios[1..3].iter().all(|ratio| *ratio < 0.01),
            "{ratios:?}: a cycle that does not fit misses"
        );
        assert!(
            ratios[4..].iter().all(|ratio| (ratio - 0.95).abs() < 0.01),
            "{ratios:?}: and one that fits hits"
        );
    }

    #[test]
    fn a_sample_stands_for_all() {
        let mut shards = [counting()];
        run(&mut shards[0], "SET often 1", EPOCH_MS);
        run(&mut shards[0], "SET seldom 1", EPOCH_MS);
        let mut gets = 0;
        for round in 0..8 * u64::from(OBSERVED_A_SECOND) {
            let key = if round % 4 == 0 { "seldom" } else { "often" };
            gets += u64::from(key == "often");
            run(&mut shards[0], &format!("GET {key}"), EPOCH_MS + 1000);
        }
        let reply = ask(&mut shards, "HOTKEYS 1", EPOCH_MS + 1000, 1);
        let recent: f64 = column(&reply, "recent_reads")[0].parse().unwrap();
        // What was before the first observation that is one of many, and after the last one, is not known.
        assert!((recent - gets as f64).abs() < 256.0, "{recent} of {gets} reads");
        assert_eq!(column(&reply, "reads"), [gets.to_string()], "the key's own counters are exact");
    }

    #[test]
    fn memory_is_bounded_whatever_the_keys() {
        let mut shard = counting();
        for number in 0..50_000u64 {
            let key = format!("{number}:{}:{number}", "k".repeat(number as usize % 700));
            run(&mut shard, &format!("SET {key} 1 PX 100"), EPOCH_MS + number);
            run(&mut shard, &format!("GET {key}"), EPOCH_MS + number);
            shard.expire(EPOCH_MS + number, 9);
            if number % 1000 == 0 {
                shard.note_second(EPOCH_MS + number, Some(100.0));
            }
        }
        let bytes = shard.stats().analytics_memory_bytes;
        assert!(bytes < 16 << 20, "{bytes} bytes");
    }

    #[test]
    fn a_storm_on_a_key_is_an_anomaly_of_that_key() {
        let mut shards = [counting()];
        let mut now_ms = EPOCH_MS;
        run(&mut shards[0], "SET user:42 1", now_ms);
        run(&mut shards[0], "SET user:7 1", now_ms);
        for second in 0..300u64 {
            let reads = if second < 290 { 20 + second % 3 } else { 5000 };
            (0..reads).for_each(|_| drop(run(&mut shards[0], "GET user:42", now_ms)));
            (0..20).for_each(|_| drop(run(&mut shards[0], "GET user:7", now_ms)));
            now_ms += 1000;
            shards[0].note_second(now_ms, Some(80.0));
            if second == 289 {
                assert_eq!(ask(&mut shards, "ANOMALIES", now_ms, 1), Reply::Array(vec![]));
            }
        }
        let reply = ask(&mut shards, "ANOMALIES", now_ms, 1);
        let names = column(&reply, "name");
        assert!(names.iter().any(|name| name == "user:42"), "{reply:?}");
        assert!(!names.iter().any(|name| name == "user:7"), "{reply:?}");
        assert_eq!(column(&reply, "since")[0], timestamp_of(EPOCH_MS + 291_000));
    }

    #[test]
    fn a_key_that_was_removed_on_purpose_has_no_rest_and_no_place_in_a_larger_cache() {
        for is_missed in [false, true] {
            let mut shards = [counting()];
            let mut now_ms = EPOCH_MS;
            for round in 0..1200 {
                let key = format!("page:{}", round % 10);
                run(&mut shards[0], &format!("SET {key} x"), now_ms);
                run(&mut shards[0], &format!("GET {key}"), now_ms + 1000);
                run(&mut shards[0], &format!("DEL {key}"), now_ms + 1000);
                now_ms += 10_000;
                if is_missed {
                    run(&mut shards[0], &format!("GET {key}"), now_ms);
                }
            }
            if is_missed {
                let advice = ask(&mut shards, "CACHE-ADVICE", now_ms, 7);
                let ratios = column(&advice, "hit_ratio");
                assert_eq!(
                    (&*ratios[0], &*ratios[5]),
                    ("0.5", "0.5"),
                    "no memory brings back what was removed"
                );
            } else {
                let prefixes = ask(&mut shards, "PREFIXES", now_ms, 9);
                assert_eq!(column(&prefixes, "interval_p99_ms"), ["1023"], "a second, to a quarter");
            }
        }
    }

    #[test]
    fn clear_and_reset_forget_what_was_learnt() {
        for (request, keeps) in [("ANALYTICS RESET", false), ("CLEAR", true)] {
            let mut shards: Vec<_> = (0..2).map(|_| counting()).collect();
            let mut now_ms = EPOCH_MS;
            for second in 0..1000u64 {
                now_ms += 1000;
                // The shard that answers last has the storm.
                let reads = if (980..990).contains(&second) { 1000 } else { 5 };
                (0..reads).for_each(|_| drop(run(&mut shards[1], "GET user:1", now_ms)));
                for shard in &mut shards {
                    if second == 0 || second % 10 == 9 {
                        run(shard, "SET user:1 x", now_ms);
                        run(shard, "GET user:2", now_ms);
                    }
                    shard.note_second(now_ms, None);
                }
            }
            let known = |shards: &mut [Shard], now_ms| {
                let mut rows = |request| match ask(shards, request, now_ms, 9) {
                    Reply::Array(rows) => rows.len(),
                    other => panic!("{other:?}"),
                };
                let (anomalies, hot) = (rows("ANOMALIES"), rows("HOTKEYS"));
                let advice = column(&ask(shards, "CACHE-ADVICE", now_ms, 9), "hit_ratio")[3] != "nil";
                let ttl = ask(shards, "SUGGEST-TTL user:1", now_ms, 9) != Reply::Nil;
                let class = ask(shards, "SUGGEST-TTL CLASS user:*", now_ms, 9) != Reply::Nil;
                (anomalies > 0, hot > 0, advice, ttl, class)
            };
            assert_eq!(known(&mut shards, now_ms), (true, true, true, true, true));
            let watched = |shards: &mut [Shard], now_ms| {
                field(&ask(shards, "ANALYTICS STATUS", now_ms, 9), "watched_seconds")
            };
            assert_eq!(watched(&mut shards, now_ms), "1000");
            if request == "CLEAR" {
                shards.iter_mut().for_each(|shard| drop(run(shard, "CLEAR", now_ms)));
            } else {
                assert_eq!(ask(&mut shards, request, now_ms, 9), Reply::Ok);
            }
            assert_eq!(watched(&mut shards, now_ms), "0", "{request}");
            // What is not as usual, and how well another memory would have done, is no knowledge of keys.
            let (anomalies, hot, advice, ttl, class) = known(&mut shards, now_ms + 500_000);
            assert_eq!((hot, ttl, class), (false, false, false), "{request}");
            assert_eq!((anomalies, advice), (keeps, keeps), "{request}");
        }
    }

    /// Some sessions are used every 61 seconds, others every 97.
    fn with_sessions(shards: &mut [Shard]) -> u64 {
        let mut now_ms = EPOCH_MS;
        for second in 0..8000u64 {
            now_ms += 1000;
            for key in [second % 97, 200 + second % 61] {
                let number = key as usize % shards.len();
                let request = if second < 97 { "SET session:{} x" } else { "GET session:{}" };
                run(&mut shards[number], &request.replace("{}", &key.to_string()), now_ms);
            }
        }
        now_ms
    }

    #[test]
    fn a_time_to_live_is_suggested_from_the_rests_of_the_class() {
        let mut shards: Vec<_> = (0..2).map(|_| counting()).collect();
        let now_ms = with_sessions(&mut shards);
        let explained = ask(&mut shards, "SUGGEST-TTL CLASS session:* EXPLAIN", now_ms, 7);
        let number = |name| field(&explained, name).parse::<f64>().unwrap();
        // Half of the uses come after 61 seconds, the others after 97: a bucket ends up to a quarter later.
        assert!((97.0..=122.0).contains(&number("ttl")), "{explained:?}");
        assert!(number("expected_hit_ratio") >= 0.99 && number("observations") > 1000.0, "{explained:?}");
        assert_eq!((number("keys"), number("watched_seconds")), (158.0, 8000.0));
        let short = ask(&mut shards, "SUGGEST-TTL CLASS session:* TARGET 0.4", now_ms, 7);
        assert!(matches!(short, Reply::Integer(61..=77)), "{short:?}");
        let of_key = ask(&mut shards, "SUGGEST-TTL session:250 EXPLAIN", now_ms, 7);
        assert_eq!(field(&of_key, "learnt_from"), "class", "its own history is too short: {of_key:?}");
        let mut now_ms = now_ms;
        for _ in 0..100 {
            now_ms += 61_000;
            run(&mut shards[0], "GET session:250", now_ms);
        }
        let of_key = ask(&mut shards, "SUGGEST-TTL session:250 EXPLAIN", now_ms, 7);
        assert_eq!(field(&of_key, "learnt_from"), "key", "{of_key:?}");
        assert!((61..=77).contains(&field(&of_key, "ttl").parse::<u32>().unwrap()), "{of_key:?}");
        let apply = Question::Ttl {
            subject: inquiry::Subject::Class(b"session:*"[..].into()),
            target: 0.99,
            explain: false,
            apply: true,
        };
        let rule = apply.rule_to_apply(&explained).unwrap();
        assert_eq!((&rule.pattern[..], rule.ttl_ms as f64), (&b"session:*"[..], number("ttl") * 1000.0));
    }

    #[test]
    fn keys_that_rest_count_on_whichever_shard_they_are() {
        for idle in [0, 1] {
            let mut shards: Vec<_> = (0..2).map(|_| counting()).collect();
            for round in 0..100u64 {
                for number in 0..100 {
                    // The keys of one shard are used to the end, those of the other for a tenth of the time.
                    if number % 2 != idle || round < 10 {
                        let request = if round == 0 { "SET page:{} x" } else { "GET page:{}" };
                        let request = request.replace("{}", &number.to_string());
                        run(&mut shards[number % 2], &request, EPOCH_MS + round * 10_000);
                    }
                }
            }
            let explained = ask(&mut shards, "SUGGEST-TTL CLASS page:* EXPLAIN", EPOCH_MS + 1_000_000, 7);
            assert_eq!(field(&explained, "idle_share"), "0.5", "{explained:?}");
            assert_eq!(field(&explained, "observations"), (50 * 99 + 50 * 9).to_string());
        }
    }

    #[test]
    fn shards_have_watched_for_as_long_as_the_youngest_of_them() {
        for late in [0, 1] {
            let began_ms = |shard| EPOCH_MS + if shard == late { 900_000 } else { 0 };
            let mut shards: Vec<_> =
                (0..2).map(|shard| Shard::new([1, 2, 3, 4]).with_analytics(began_ms(shard))).collect();
            for (shard, round) in (0..2).flat_map(|shard| (0..1000u64).map(move |round| (shard, round))) {
                let now_ms = EPOCH_MS + round * 1000;
                if now_ms >= began_ms(shard) {
                    run(
                        &mut shards[shard],
                        &format!("SET page:{} x", 2 * (round % 10) as usize + shard),
                        now_ms,
                    );
                }
            }
            let now_ms = EPOCH_MS + 1_000_000;
            let explained = ask(&mut shards, "SUGGEST-TTL CLASS page:* EXPLAIN", now_ms, 7);
            assert_eq!(field(&explained, "watched_seconds"), "100", "{explained:?}");
        }
    }

    #[test]
    fn after_a_clear_no_key_has_rested() {
        let mut shard = counting();
        for time_ms in [EPOCH_MS, EPOCH_MS + 1_000_000] {
            (0..100).for_each(|number| drop(run(&mut shard, &format!("SET page:{number} x"), time_ms)));
            run(&mut shard, "CLEAR", time_ms);
        }
        let now_ms = EPOCH_MS + 1_001_000;
        (0..100).for_each(|number| drop(run(&mut shard, &format!("SET page:{number} x"), now_ms)));
        let prefixes = ask(&mut [shard], "PREFIXES", now_ms, 9);
        assert_eq!(column(&prefixes, "interval_p99_ms"), ["nil"]);
    }

    #[test]
    fn a_key_that_expires_too_early_shows_in_the_rests_of_its_class() {
        let mut shards = [counting()];
        let mut now_ms = EPOCH_MS;
        for _ in 0..400 {
            now_ms += 1000;
            for key in 0..20 {
                run(&mut shards[0], &format!("GET page:{key}"), now_ms + key * 7);
            }
            // The next use comes after 50 seconds, when the key has been gone for 40.
            now_ms += 49_000;
            for key in 0..20 {
                run(&mut shards[0], &format!("SETEX page:{key} 10 x"), now_ms - 49_000 + key * 7);
            }
            shards[0].expire(now_ms, 100);
        }
        let suggested = ask(&mut shards, "SUGGEST-TTL CLASS page:*", now_ms, 7);
        let Reply::Integer(seconds) = suggested else { panic!("{suggested:?}") };
        assert!((50..=64).contains(&seconds), "{seconds} seconds");
    }

    #[test]
    fn more_memory_is_advised_where_it_would_help() {
        let mut shards = [counting()];
        let mut now_ms = EPOCH_MS;
        for round in 0..30_000u64 {
            now_ms += 10;
            let key = round * 7919 % 1000;
            if run(&mut shards[0], &format!("GET page:{key}"), now_ms) == Reply::Nil {
                run(&mut shards[0], &format!("SET page:{key} {}", "v".repeat(100)), now_ms);
            }
        }
        let advice = ask(&mut shards, "CACHE-ADVICE", now_ms, 7);
        assert_eq!(column(&advice, "memory"), ["now", "1/4", "1/2", "1", "2", "4"]);
        let ratios: Vec<f64> = column(&advice, "hit_ratio").iter().map(|it| it.parse().unwrap()).collect();
        // Each key comes again after all others: with less memory it would be gone by then.
        assert!(ratios[0] > 0.95 && ratios[1] < 0.3 && ratios[5] > 0.9, "{ratios:?}");
    }

    fn timestamp_of(ms: u64) -> String {
        crate::timestamp::format(ms)
    }

    /// What a key's counters have to be.
    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    struct Counters {
        reads: u32,
        writes: u32,
        last_access_s: u32,
        created_s: u32,
        deadline_ms: Option<u64>,
    }

    proptest! {
        #[test]
        fn counters_agree_with_a_model(
            requests in proptest::collection::vec((0..9u8, 0..5u8, 0..1500u64), 1..200),
        ) {
            let mut shard = counting();
            let mut model: BTreeMap<String, Counters> = BTreeMap::new();
            let mut now_ms = EPOCH_MS;
            for (command, key, pause_ms) in requests {
                now_ms += pause_ms;
                let now_s = ((now_ms - EPOCH_MS) / 1000) as u32;
                model.retain(|_, counters| counters.deadline_ms.is_none_or(|deadline_ms| deadline_ms > now_ms));
                let key = format!("k{key}");
                let deadline_ms = Some(now_ms + 2000);
                let long = "x".repeat(pause_ms as usize);
                let request = match command {
                    0 => format!("SET {key} {long}"),
                    1 => format!("SET {key} 1 EX 2"),
                    2 => format!("APPEND {key} {long}x"),
                    3 => format!("EXPIRE {key} 2"),
                    4 => format!("DEL {key}"),
                    5 if pause_ms > 1400 => "CLEAR".to_owned(),
                    5 | 6 => format!("GET {key}"),
                    7 => format!("MGET {key} {key}"),
                    _ => format!("SET {key} 1 NX"),
                };
                run(&mut shard, &request, now_ms);
                let known = model.contains_key(&key);
                let unused = Counters { created_s: now_s, ..Counters::default() };
                let mut used = |reads, writes, deadline: Option<Option<u64>>| {
                    let counters = model.entry(key.clone()).or_insert(unused);
                    counters.reads += reads;
                    counters.writes += writes;
                    counters.last_access_s = now_s;
                    counters.deadline_ms = deadline.unwrap_or(counters.deadline_ms);
                };
                match command {
                    0 => used(0, 1, Some(None)),
                    1 => used(0, 1, Some(deadline_ms)),
                    2 => used(0, 1, None),
                    3 if known => used(0, 1, Some(deadline_ms)),
                    4 => drop(model.remove(&key)),
                    5 if pause_ms > 1400 => model.clear(),
                    5 | 6 if known => used(1, 0, None),
                    7 if known => used(2, 0, None),
                    8 if !known => used(0, 1, Some(None)),
                    _ => {}
                }
                let mut counted = BTreeMap::new();
                for number in 0..5 {
                    let key = format!("k{number}");
                    let Some(entry) = shard.peek(key.as_bytes()) else { continue };
                    if entry.deadline_ms().is_some_and(|deadline_ms| deadline_ms <= now_ms) {
                        continue;
                    }
                    let Usage { reads, writes, last_access_s, created_s } = entry.usage().unwrap();
                    let deadline_ms = entry.deadline_ms();
                    counted.insert(key, Counters { reads, writes, last_access_s, created_s, deadline_ms });
                }
                prop_assert_eq!(&counted, &model);
            }
        }
    }
}
