//! The keys of a shard that are used most, of late: [`TopKeys`].
//!
//! A key's use fades: it counts half after [`HALF_LIFE_MS`], a quarter after twice that. What is reported as
//! 150 reads is thus the number of reads, each weighted by its age; of a steady rate, some 87 seconds' worth.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data
//! Streams", ICDT 2005) in sets, as a processor's cache has them: the hash of a key selects a set of [`WAYS`]
//! counters, and a key that has none takes over the smallest of the set, with its count as the error. Every
//! set is an instance of Space-Saving for its part of the keys, so that the bounds are kept, and all that an
//! observation touches is two or three lines of memory; no order is kept between them. Fading is forward
//! decay (Cormode, Shkapenyuk, Srivastava, Xu, "Forward Decay: A Practical Time Decay Model for Streaming
//! Systems", ICDE 2009): later observations weigh more, so that no counter has to be touched for getting
//! older.
//!
//! The bound: a key was observed at least as often as it says and at most [`HotKey::error`] times more.
//! Errors fade, too, so that those of keys that stay among the hottest vanish. The bound is about
//! observations. Where the caller observes one operation of several at random, with a weight, it says how often
//! the key was used in all ([`Counted`]), if it knows: what happened between two observations is then counted
//! exactly, and only what was before the first and after the last one is uncertain, by about the weight each. Else
//! counts are uncertain by about `sqrt(count * weight)`.
//!
//! By bytes there is a second, smaller table, since a key may move the most bytes with few operations.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::store::entry::Usage;

/// After this time, in milliseconds, an observation counts half.
pub const HALF_LIFE_MS: u64 = 60_000;
/// Keys are kept up to this length, in bytes; of longer ones the beginning is.
pub const KEY_LEN_MAX: usize = 256;

/// Counters in a set.
const WAYS: usize = 16;
/// Sets of the table that counts operations: room for 16384 keys.
const OPERATION_SETS: usize = 1024;
/// Sets of the table that counts bytes: room for 2048 keys.
const BYTE_SETS: usize = 128;
/// The weight of later observations may grow by two to this power; then all counts are scaled down.
const HALF_LIVES_MAX: f64 = 64.0;

/// What was done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It was read.
    Read,
    /// It was written, or removed.
    Write,
    /// It was looked for in vain.
    Miss,
}

/// What [`TopKeys::top`] ranks by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Reads, writes and misses together.
    Operations,
    /// Reads that found the key.
    Reads,
    /// Writes.
    Writes,
    /// Bytes of the values that were read and written.
    Bytes,
}

/// How often a key was used since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Reads.
    pub reads: u32,
    /// Writes.
    pub writes: u32,
    /// When it was made, in any unit: of a key that was made anew, earlier counts say nothing.
    pub created: u32,
}

/// One operation on a key.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'k> {
    /// The key.
    pub key: &'k [u8],
    /// Any hash of the key, always the same one.
    pub hash: u32,
    /// What was done.
    pub touch: Touch,
    /// The length of the value, in bytes.
    pub bytes: usize,
    /// For how many of its like it stands.
    pub weight: u32,
    /// How often the key was used, this operation included, where that is known for certain.
    pub counted: Option<Counted>,
}

/// A key that is used much. All counts are of late, and faded.
#[derive(Clone, Debug, PartialEq)]
pub struct HotKey {
    /// The key, at most [`KEY_LEN_MAX`] bytes of it.
    pub key: Vec<u8>,
    /// The length of the whole key, in bytes.
    pub key_len: usize,
    /// Reads that found it.
    pub reads: f64,
    /// Writes.
    pub writes: f64,
    /// Reads that did not find it.
    pub misses: f64,
    /// Bytes of the values that were read and written.
    pub bytes: f64,
    /// What was ranked by may be larger than it says by at most this: operations, or bytes when ranked by
    /// them.
    pub error: f64,
}

/// The most used keys of one shard.
#[derive(Debug)]
pub struct TopKeys {
    operations: Table,
    bytes: Table,
    /// Observations of this time have the weight one.
    landmark_ms: u64,
    /// The time of the last observation, and what it weighs.
    now_ms: u64,
    growth: f64,
}

#[derive(Debug)]
struct Table {
    /// The hash of each counter's key.
    tags: Vec<[u32; WAYS]>,
    /// The counts of Space-Saving, never below what the keys had. Zero: the counter is free.
    scores: Vec<[f64; WAYS]>,
    counters: Vec<Counter>,
}

#[derive(Clone, Debug, Default)]
struct Counter {
    /// The score that was taken over.
    error: f64,
    reads: f64,
    writes: f64,
    misses: f64,
    bytes: f64,
    /// How often the key was used up to the last observation.
    counted: Option<Counted>,
    key_len: usize,
    key: Vec<u8>,
}

impl Default for TopKeys {
    fn default() -> Self {
        TopKeys {
            operations: Table::new(OPERATION_SETS),
            bytes: Table::new(BYTE_SETS),
            landmark_ms: 0,
            now_ms: 0,
            growth: 1.0,
        }
    }
}

impl TopKeys {
    /// Counts an operation at `now_ms`. Time that goes backwards stands still.
    pub fn observe(&mut self, seen: &Observation<'_>, now_ms: u64) {
        self.advance(now_ms);
        self.operations.observe(seen, self.growth, |count, _| count);
        if seen.bytes > 0 {
            self.bytes.observe(seen, self.growth, |_, bytes| bytes);
        }
    }

    /// The `count` most used keys at `now_ms`, the most used first.
    pub fn top(&self, count: usize, by: By, now_ms: u64) -> Vec<HotKey> {
        let table = if by == By::Bytes { &self.bytes } else { &self.operations };
        let rank = |counter: &Counter| match by {
            By::Operations => counter.reads + counter.writes + counter.misses,
            By::Bytes => counter.bytes,
            By::Reads => counter.reads,
            By::Writes => counter.writes,
        };
        // A score bounds what a counter ranks by, and all scores lie together: of thousands of counters, whose memory
        // is cold once a second, only those are read that may rank.
        let scores = table.scores.as_flattened().iter().enumerate().filter(|(_, score)| **score > 0.0);
        let mut by_score: BinaryHeap<_> = scores.map(|(index, score)| (score.to_bits(), index)).collect();
        let mut highest = BinaryHeap::new();
        let mut ranked = Vec::new();
        while let Some((bound, index)) = by_score.pop() {
            if highest.len() == count && highest.peek().is_none_or(|Reverse(least)| *least > bound) {
                break;
            }
            let counter = &table.counters[index];
            let rank = rank(counter);
            if rank > 0.0 {
                ranked.push((rank, counter));
                highest.push(Reverse(rank.to_bits()));
                if highest.len() > count {
                    highest.pop();
                }
            }
        }
        ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.key.cmp(&b.1.key)));
        ranked.truncate(count);
        let fade = 1.0 / growth(now_ms.max(self.now_ms).saturating_sub(self.landmark_ms));
        ranked.into_iter().map(|(_, counter)| counter.report(fade)).collect()
    }

    /// What is known of one key at `now_ms`, if it is among the most used by operations.
    pub fn find(&self, hash: u32, key: &[u8], now_ms: u64) -> Option<HotKey> {
        let index = self.operations.find(hash, key)?;
        let fade = 1.0 / growth(now_ms.max(self.now_ms).saturating_sub(self.landmark_ms));
        Some(self.operations.counters[index].report(fade))
    }

    /// Forgets a key.
    pub fn remove(&mut self, hash: u32, key: &[u8]) {
        self.operations.remove(hash, key);
        self.bytes.remove(hash, key);
    }

    /// Forgets all keys.
    pub fn clear(&mut self) {
        *self = TopKeys::default();
    }

    /// The memory that is held, in bytes. At most 7 MiB.
    pub fn memory_bytes(&self) -> usize {
        self.operations.memory_bytes() + self.bytes.memory_bytes()
    }

    fn advance(&mut self, now_ms: u64) {
        if now_ms <= self.now_ms {
            return;
        }
        let age = (now_ms - self.landmark_ms) as f64 / HALF_LIFE_MS as f64;
        if age > HALF_LIVES_MAX || self.now_ms == 0 {
            let fade = 1.0 / growth(now_ms - self.landmark_ms);
            self.operations.scale(fade);
            self.bytes.scale(fade);
            self.landmark_ms = now_ms;
        }
        self.now_ms = now_ms;
        self.growth = growth(now_ms - self.landmark_ms);
    }
}

/// What an observation weighs, this long after the landmark.
fn growth(age_ms: u64) -> f64 {
    (age_ms as f64 / HALF_LIFE_MS as f64).exp2()
}

impl Table {
    fn new(sets: usize) -> Self {
        Table {
            tags: vec![[0; WAYS]; sets],
            scores: vec![[0.0; WAYS]; sets],
            counters: vec![Counter::default(); sets * WAYS],
        }
    }

    /// Counts an operation, and those that were not observed since the last one. `score` chooses between the number
    /// of operations and of bytes.
    fn observe(&mut self, seen: &Observation<'_>, growth: f64, score: impl Fn(f64, f64) -> f64) {
        let Observation { key, hash, touch, bytes, weight, counted } = *seen;
        let index = self.find(hash, key).unwrap_or_else(|| self.take_over(hash, key));
        let counter = &mut self.counters[index];
        let exact = counter.counted.zip(counted).and_then(|(before, now)| now.since(before));
        counter.counted = counted.or(counter.counted);
        let (reads, writes, misses) = match (exact, touch) {
            (Some((reads, writes)), _) => (reads, writes, 0),
            (None, Touch::Read) => (weight, 0, 0),
            (None, Touch::Write) => (0, weight, 0),
            (None, Touch::Miss) => (0, 0, weight),
        };
        let scaled = |count: u32| f64::from(count) * growth;
        let count = scaled(reads) + scaled(writes) + scaled(misses);
        let bytes = bytes as f64 * count;
        counter.reads += scaled(reads);
        counter.writes += scaled(writes);
        counter.misses += scaled(misses);
        counter.bytes += bytes;
        self.scores[index / WAYS][index % WAYS] += score(count, bytes);
    }

    fn find(&self, hash: u32, key: &[u8]) -> Option<usize> {
        let set = self.set(hash);
        let first = set * WAYS;
        let ways = self.tags[set].iter().enumerate().filter(|(_, tag)| **tag == hash);
        let used = ways.filter(|(way, _)| self.scores[set][*way] > 0.0);
        used.map(|(way, _)| first + way).find(|index| self.counters[*index].is_of(key))
    }

    /// Gives the smallest counter of the set to this key.
    fn take_over(&mut self, hash: u32, key: &[u8]) -> usize {
        let set = self.set(hash);
        let first = set * WAYS;
        let scores = &self.scores[set];
        let way = (1..WAYS).fold(0, |least, way| if scores[way] < scores[least] { way } else { least });
        let score = scores[way];
        self.tags[set][way] = hash;
        let counter = &mut self.counters[first + way];
        let mut name = std::mem::take(&mut counter.key);
        name.clear();
        name.extend_from_slice(&key[..key.len().min(KEY_LEN_MAX)]);
        *counter = Counter { error: score, key: name, key_len: key.len(), ..Counter::default() };
        first + way
    }

    fn remove(&mut self, hash: u32, key: &[u8]) {
        if let Some(index) = self.find(hash, key) {
            self.counters[index] = Counter::default();
            self.scores[index / WAYS][index % WAYS] = 0.0;
        }
    }

    fn scale(&mut self, factor: f64) {
        self.scores.as_flattened_mut().iter_mut().for_each(|score| *score *= factor);
        for counter in &mut self.counters {
            counter.error *= factor;
            counter.reads *= factor;
            counter.writes *= factor;
            counter.misses *= factor;
            counter.bytes *= factor;
        }
    }

    fn memory_bytes(&self) -> usize {
        let names: usize = self.counters.iter().map(|counter| counter.key.capacity()).sum();
        names + size_of_val(&self.tags[..]) + size_of_val(&self.scores[..]) + size_of_val(&self.counters[..])
    }

    fn set(&self, hash: u32) -> usize {
        // The bits of the hash that the sampling of keys does not look at.
        hash as usize % self.tags.len()
    }
}

impl Counted {
    /// Reads and writes since `before`; `None` if these counts do not tell.
    fn since(self, before: Counted) -> Option<(u32, u32)> {
        let is_same = self.created == before.created && self.reads.max(self.writes) < Usage::MAX;
        let reads = self.reads.checked_sub(before.reads).filter(|_| is_same)?;
        Some((reads, self.writes.checked_sub(before.writes)?))
    }
}

impl Counter {
    fn is_of(&self, key: &[u8]) -> bool {
        self.key_len == key.len() && key.starts_with(&self.key)
    }

    fn report(&self, fade: f64) -> HotKey {
        HotKey {
            key: self.key.clone(),
            key_len: self.key_len,
            reads: self.reads * fade,
            writes: self.writes * fade,
            misses: self.misses * fade,
            bytes: self.bytes * fade,
            error: self.error * fade,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// An operation of which nothing is known but itself.
    fn seen(hash: u32, key: &[u8], touch: Touch, bytes: usize, weight: u32) -> Observation<'_> {
        Observation { key, hash, touch, bytes, weight, counted: None }
    }

    #[test]
    fn the_most_used_come_first_and_fade() {
        let mut top = TopKeys::default();
        for time in 0..100 {
            top.observe(&seen(1, b"often", Touch::Read, 10, 1), 1000 + time);
            if time % 2 == 0 {
                top.observe(&seen(2, b"seldom", Touch::Write, 1000, 1), 1000 + time);
            }
        }
        top.observe(&seen(3, b"nowhere", Touch::Miss, 0, 1), 1100);
        let names = |by| top.top(9, by, 1100).into_iter().map(|hot| hot.key).collect::<Vec<_>>();
        assert_eq!(names(By::Operations), [&b"often"[..], b"seldom", b"nowhere"]);
        assert_eq!(names(By::Reads), [b"often"]);
        assert_eq!(names(By::Writes), [b"seldom"]);
        assert_eq!(names(By::Bytes), [&b"seldom"[..], b"often"]);
        let later = &top.top(1, By::Operations, 1100 + HALF_LIFE_MS)[0];
        assert!((later.reads - 50.0).abs() < 0.1, "{} reads are left", later.reads);
        assert_eq!(top.find(1, b"often", 1100 + HALF_LIFE_MS).as_ref(), Some(later));
        assert_eq!(top.find(1, b"another", 1100), None);
    }

    #[test]
    fn fewer_than_all_are_the_first_of_all() {
        let mut top = TopKeys::default();
        for number in 0..500 {
            let key = format!("key:{number}");
            // Many are used as often as others: their names decide.
            top.observe(&seen(number, key.as_bytes(), Touch::Read, 10, 1 + number * 7 % 50), 1000);
        }
        let all = top.top(500, By::Operations, 1000);
        assert!(all.len() > 400 && all.is_sorted_by(|a, b| a.reads >= b.reads));
        for count in [0, 1, 16, all.len() - 1, all.len(), all.len() + 1] {
            assert_eq!(top.top(count, By::Operations, 1000), all[..count.min(all.len())]);
        }
    }

    #[test]
    fn between_two_observations_of_a_sample_nothing_is_estimated() {
        let mut top = TopKeys::default();
        let mut used = |reads, writes, created, weight| {
            let touch = if writes > 1 { Touch::Write } else { Touch::Read };
            let counted = Some(Counted { reads, writes, created });
            top.observe(&Observation { counted, ..seen(1, b"key", touch, 10, weight) }, 1000);
            let hot = &top.top(1, By::Operations, 1000)[0];
            let of_bytes = &top.top(1, By::Bytes, 1000)[0];
            assert_eq!((hot.reads, hot.writes, hot.bytes), (of_bytes.reads, of_bytes.writes, of_bytes.bytes));
            (hot.reads, hot.writes, hot.bytes)
        };
        assert_eq!(used(5000, 1, 7, 64), (64.0, 0.0, 640.0), "what was before is not known");
        assert_eq!(used(5100, 1, 7, 64), (164.0, 0.0, 1640.0));
        assert_eq!(used(5101, 9, 7, 64), (165.0, 8.0, 1730.0));
        // The key was made anew: these counts are none of the earlier key's.
        assert_eq!(used(6000, 20, 8, 64), (165.0, 72.0, 2370.0));
        assert_eq!(used(3, 1, 8, 64), (229.0, 72.0, 3010.0), "made anew in the same second");
        assert_eq!(used(Usage::MAX, 1, 8, 64), (293.0, 72.0, 3650.0), "counts end somewhere");
    }

    #[test]
    fn fading_lasts_for_any_time() {
        let mut top = TopKeys::default();
        for hour in 1..2000 {
            top.observe(&seen(1, b"hourly", Touch::Read, 1, 5), hour * 3_600_000);
        }
        let hot = &top.top(1, By::Operations, 1999 * 3_600_000)[0];
        assert!((hot.reads - 5.0).abs() < 1e-9, "{} reads", hot.reads);
        top.observe(&seen(1, b"hourly", Touch::Read, 1, 1), 5);
        assert!((top.top(1, By::Reads, 5)[0].reads - 6.0).abs() < 1e-9, "time that goes back stands still");
    }

    #[test]
    fn keys_that_are_removed_are_forgotten() {
        let mut top = TopKeys::default();
        top.observe(&seen(1, b"one", Touch::Read, 1, 1), 1000);
        top.observe(&seen(1, b"same hash", Touch::Read, 1, 1), 1000);
        top.remove(1, b"one");
        top.remove(1, b"unknown");
        assert_eq!(top.top(9, By::Operations, 1000).len(), 1);
        assert_eq!(top.top(9, By::Bytes, 1000)[0].key, b"same hash");
        top.clear();
        assert_eq!(top.top(9, By::Operations, 1000), []);
    }

    #[test]
    fn memory_is_bounded_whatever_the_keys() {
        let mut top = TopKeys::default();
        let mut key = vec![b'k'; 4 * KEY_LEN_MAX];
        for number in 0..100_000u32 {
            key[..4].copy_from_slice(&number.to_le_bytes());
            top.observe(&seen(number.wrapping_mul(0x9e37_79b1), &key, Touch::Write, 1 << 20, 1), 1000);
        }
        assert!(top.memory_bytes() <= 7 << 20, "{} bytes", top.memory_bytes());
        let hot = &top.top(1, By::Operations, 1000)[0];
        assert_eq!((hot.key.len(), hot.key_len), (KEY_LEN_MAX, 4 * KEY_LEN_MAX));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Few sets, many keys with uneven shares, removals: what is counted lies within the bounds that are
        /// stated.
        #[test]
        fn exact_counts_lie_within_the_bounds(
            uses in proptest::collection::vec((0..200u32, 0..200u32, 1..4u32, 0..5000u64), 1..500),
        ) {
            let mut top = TopKeys { operations: Table::new(2), bytes: Table::new(1), ..TopKeys::default() };
            let (mut exact, mut now_ms) = (BTreeMap::new(), 1_000_000u64);
            for (one, other, weight, pause_ms) in uses {
                now_ms += pause_ms;
                let key = one.min(other);
                let name = key.to_le_bytes();
                let (operations, bytes): &mut (Vec<_>, Vec<_>) = exact.entry(name.to_vec()).or_default();
                operations.push((now_ms, f64::from(weight)));
                bytes.push((now_ms, f64::from(weight) * f64::from(other)));
                let touch = [Touch::Read, Touch::Write, Touch::Miss][key as usize % 3];
                top.observe(&seen(key.wrapping_mul(0x9e37_79b1), &name, touch, other as usize, weight), now_ms);
            }
            let faded = |uses: &[(u64, f64)]| -> f64 {
                uses.iter().map(|(at_ms, count)| count / growth(now_ms - at_ms)).sum()
            };
            for by in [By::Operations, By::Reads, By::Writes, By::Bytes] {
                let (all, few) = (top.top(usize::MAX, by, now_ms), top.top(3, by, now_ms));
                prop_assert_eq!(&all[..few.len()], &few[..]);
                prop_assert_eq!(few.len(), all.len().min(3));
            }
            let mut named = 0.0;
            for hot in top.top(usize::MAX, By::Operations, now_ms) {
                let truth = faded(&exact[&hot.key].0);
                let low = hot.reads + hot.writes + hot.misses;
                prop_assert!(low <= truth * 1.000_001 && truth <= (low + hot.error) * 1.000_001);
                named += low + hot.error;
            }
            let all: f64 = exact.values().map(|(operations, _)| faded(operations)).sum();
            prop_assert!((named / all - 1.0).abs() < 1e-6, "Space-Saving counts every use once");
            for hot in top.top(usize::MAX, By::Bytes, now_ms) {
                let truth = faded(&exact[&hot.key].1);
                prop_assert!(hot.bytes <= truth * 1.000_001 && truth <= (hot.bytes + hot.error) * 1.000_001);
            }
        }
    }
}
