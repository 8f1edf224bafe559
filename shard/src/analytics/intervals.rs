//! How long keys rest between two uses, and the TTL that follows: [`Tracker`] and [`Histories`] measure,
//! [`Histogram`] counts, [`suggest`] concludes.
//!
//! Lengths of time are counted in buckets with four steps a doubling, as HdrHistogram does (Tene, 2012): a
//! length is known to a quarter, in half a kilobyte. The time between two uses of a key is *closed*; the time
//! since its last use is *open*: that the next use will come after longer, or never, is all that is known of
//! it. To leave open ones out would make rests look short, since long ones are more often open. They count as
//! censored: the share of rests that are over after a time is estimated by life tables (Cutler and Ederer,
//! "Maximum Utilization of the Life Table Method in Analyzing Survival", 1958), the form that the
//! product-limit estimator of Kaplan and Meier, 1958, takes for bucketed times: a rest that is open in a
//! bucket was at risk of ending there for half of it.
//!
//! Closed rests are to be recorded from two sources, none of them twice. A key that stands knows when it was
//! used last: each use that is sampled gives a rest, with the weight of the sample. A key that is gone,
//! because it expired or was evicted, does not: if it is tracked, [`Tracker::touch`] gives the rest, with
//! [`Tracker::weight`]. To record what the tracker gives and nothing else would be simpler, but by chance the
//! tracked keys lack some of the most used ones, or have too many of them, and these have most of the short
//! rests.
//!
//! A suggested TTL counts from the last use. It keeps what it promises where each use renews it (`GETEX`,
//! `EXPIRE`); where only writes do, the share of hits is smaller, and the more so the more often a key is
//! read in its TTL.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::class_id::ClassId;
use super::gate::Gate;
use crate::error::InsufficientData;
use crate::integer::take;

/// Buckets of a histogram: one for each millisecond below 8, then four for each doubling, up to 2^32 ms.
pub const BUCKETS: usize = 124;

/// Keys that are tracked at most: what 8192 buckets hold.
const TRACKED_MAX: usize = 7168;
/// Uses of tracked keys in 64 ms from which on fewer keys are tracked: 8 thousand a second.
const TRACK_QUOTA: u32 = 512;
/// When the table is full, keys that rested for longer than this, two days, make room first.
const REST_KEPT_MS: u64 = 2 * 24 * 3600 * 1000;
/// Sets of keys with a history of their own, and keys in a set.
const HISTORY_SETS: usize = 64;
const HISTORY_WAYS: usize = 8;
/// Half of the width that the expected hit ratio may be wrong by through chance, at 95 % confidence.
const RATIO_ERROR_MAX: f64 = 0.02;
/// Observations that have to lie beyond a suggested TTL.
const BEYOND_MIN: f64 = 2.0;
/// Keys have to be watched for so many times the suggested TTL: else many open rests are not long enough to tell
/// those that will end from those that never will.
const WATCHED_TTLS_MIN: f64 = 8.0;

/// How often each length of time was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u32; BUCKETS],
    /// The number of times that something was counted.
    observations: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [0; BUCKETS], observations: 0 }
    }
}

impl Histogram {
    /// Counts a length of time, in milliseconds, `weight` times.
    pub fn record(&mut self, ms: u64, weight: u32) {
        let bucket = bucket(ms);
        if self.counts[bucket].checked_add(weight).is_none() {
            self.halve();
        }
        self.counts[bucket] = self.counts[bucket].saturating_add(weight);
        self.observations += 1;
    }

    /// Makes everything counted so far count half.
    pub fn halve(&mut self) {
        self.counts.iter_mut().for_each(|count| *count /= 2);
        self.observations /= 2;
    }

    /// Adds the counts of another one.
    pub fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
        self.observations += other.observations;
    }

    /// Writes it as it is drawn in `kept`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let used = || (0..).zip(self.counts).filter(|(_, count)| *count > 0);
        out.extend_from_slice(&self.observations.to_le_bytes());
        out.push(used().count() as u8);
        for (bucket, count) in used() {
            out.push(bucket);
            out.extend_from_slice(&count.to_le_bytes());
        }
    }

    /// Reads what [`Histogram::write`] has written; `None` for other bytes.
    pub(super) fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut histogram =
            Histogram { observations: take(bytes).map(u64::from_le_bytes)?, ..Self::default() };
        let [used] = take(bytes)?;
        for _ in 0..used {
            let [bucket] = take(bytes)?;
            *histogram.counts.get_mut(usize::from(bucket))? = take(bytes).map(u32::from_le_bytes)?;
        }
        Some(histogram)
    }

    /// The number of observations.
    pub fn observations(&self) -> u64 {
        self.observations
    }

    /// The sum of their weights.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// The length, in milliseconds, that the share `quantile` of all does not exceed; `None` if nothing was
    /// counted. It is too high by at most a quarter, and not too low.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0;
        let reached = |bucket: &usize| {
            below += u64::from(self.counts[*bucket]);
            below >= rank
        };
        (0..BUCKETS).find(reached).map(|bucket| bucket_start(bucket + 1) - 1)
    }
}

/// The bucket of a length of time.
fn bucket(ms: u64) -> usize {
    if ms < 8 {
        return ms as usize;
    }
    let octave = ms.ilog2();
    let quarter = (ms >> (octave - 2)) as usize & 3;
    (8 + (octave as usize - 3) * 4 + quarter).min(BUCKETS - 1)
}

/// The shortest length in a bucket, in milliseconds.
fn bucket_start(bucket: usize) -> u64 {
    if bucket < 8 {
        return bucket as u64;
    }
    let (octave, quarter) = ((bucket - 8) / 4 + 3, (bucket - 8) % 4);
    (4 + quarter as u64) << (octave - 2)
}

/// When each of a sample of the keys was used last.
#[derive(Debug)]
pub struct Tracker {
    gate: Gate,
    keys: HashTable<Tracked>,
}

#[derive(Debug)]
struct Tracked {
    /// Two keys with the same hash count as one.
    hash: u32,
    class: ClassId,
    used_ms: u64,
}

impl Default for Tracker {
    fn default() -> Self {
        Tracker { gate: Gate::new(TRACK_QUOTA), keys: HashTable::new() }
    }
}

impl Tracker {
    /// Whether the uses of a key with this hash are to be told to [`Tracker::touch`]. The hash has to be
    /// evenly spread over all of its bits.
    #[inline]
    pub fn tracks(&self, hash: u32) -> bool {
        self.gate.passes(hash)
    }

    /// A tracked key of this class was used: how long ago it was used before, in milliseconds, if that is
    /// known.
    pub fn touch(&mut self, hash: u32, class: ClassId, now_ms: u64) -> Option<u64> {
        if self.gate.count(now_ms, self.keys.len() < TRACKED_MAX / 3) {
            self.drop_what_passes_no_more();
        }
        if self.keys.len() == TRACKED_MAX {
            self.make_room(now_ms);
        }
        if !self.gate.passes(hash) {
            return None;
        }
        match self.keys.entry(spread(hash), |key| key.hash == hash, |key| spread(key.hash)) {
            Entry::Occupied(key) => {
                let key = key.into_mut();
                let before_ms = std::mem::replace(&mut key.used_ms, now_ms);
                key.class = class;
                Some(now_ms.saturating_sub(before_ms))
            }
            Entry::Vacant(place) => {
                place.insert(Tracked { hash, class, used_ms: now_ms });
                None
            }
        }
    }

    /// For how many keys a tracked key stands, and for how many rests one that [`Tracker::touch`] returns.
    pub fn weight(&self) -> u32 {
        self.gate.weight() as u32
    }

    /// A key was removed on purpose: what comes after is no re-access. Not to be told when a key expires or
    /// is evicted, since the next access shows that it rested for longer.
    pub fn remove(&mut self, hash: u32) {
        if let Ok(key) = self.keys.find_entry(spread(hash), |key| key.hash == hash) {
            key.remove();
        }
    }

    /// Forgets all keys.
    pub fn clear(&mut self) {
        *self = Tracker::default();
    }

    /// The open rests of the tracked keys of a class, or of all.
    pub fn open(&self, class: Option<ClassId>, now_ms: u64) -> Histogram {
        let mut open = Histogram::default();
        for key in self.keys.iter().filter(|key| class.is_none_or(|class| class == key.class)) {
            open.record(now_ms.saturating_sub(key.used_ms), self.weight());
        }
        open
    }

    /// The memory that is held, in bytes. At most 300 KiB.
    pub fn memory_bytes(&self) -> usize {
        self.keys.allocation_size()
    }

    /// Forgets keys that rested for very long, else half of all. Either way at least one.
    fn make_room(&mut self, now_ms: u64) {
        self.keys.retain(|key| now_ms.saturating_sub(key.used_ms) <= REST_KEPT_MS);
        while self.keys.len() > TRACKED_MAX * 7 / 8 && self.gate.halve() {
            self.drop_what_passes_no_more();
        }
    }

    fn drop_what_passes_no_more(&mut self) {
        self.keys.retain(|key| self.gate.passes(key.hash));
    }
}

/// The bits of a sample's hashes differ in the lower half only, where the table looks at the upper ones, too.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Histograms of single keys: of those that are used most. They stay when a key goes, for when it comes
/// again.
///
/// The keys are found by counting up and down in sets (Misra and Gries, "Finding Repeated Elements", 1982): a
/// key that finds its set full costs the least used one of the set a point, and takes its place when it has
/// none left.
#[derive(Debug)]
pub struct Histories {
    sets: Vec<[Option<Box<History>>; HISTORY_WAYS]>,
}

#[derive(Clone, Debug)]
struct History {
    hash: u32,
    points: u32,
    rests: Histogram,
}

impl Default for Histories {
    fn default() -> Self {
        Histories { sets: vec![[const { None }; HISTORY_WAYS]; HISTORY_SETS] }
    }
}

impl Histories {
    /// A key was used, `ms` milliseconds after the last time, `weight` times.
    pub fn record(&mut self, hash: u32, ms: u64, weight: u32) {
        let set = &mut self.sets[hash as usize % HISTORY_SETS];
        if let Some(history) = set.iter_mut().flatten().find(|history| history.hash == hash) {
            history.points = history.points.saturating_add(1);
            history.rests.record(ms, weight);
            return;
        }
        let points = |place: &&mut Option<Box<History>>| place.as_ref().map_or(0, |history| history.points);
        let place = set.iter_mut().min_by_key(points).expect("a set has places");
        match place {
            Some(history) if history.points > 0 => history.points -= 1,
            place => {
                let mut rests = Histogram::default();
                rests.record(ms, weight);
                // The memory of the key that loses its place serves the next one.
                let new = History { hash, points: 1, rests };
                match place {
                    Some(history) => **history = new,
                    None => *place = Some(Box::new(new)),
                }
            }
        }
    }

    /// The closed rests of a key, if it has a history.
    pub fn closed(&self, hash: u32) -> Option<&Histogram> {
        let set = &self.sets[hash as usize % HISTORY_SETS];
        set.iter().flatten().find(|history| history.hash == hash).map(|history| &history.rests)
    }

    /// Forgets all keys.
    pub fn clear(&mut self) {
        *self = Histories::default();
    }

    /// The memory that is held, in bytes. At most 300 KiB.
    pub fn memory_bytes(&self) -> usize {
        let histories = self.sets.iter().flatten().flatten().count();
        histories * size_of::<History>() + size_of_val(&self.sets[..])
    }
}

/// A TTL, and what is to be expected of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suggestion {
    /// The TTL, in seconds, counted from the last use.
    pub ttl_s: u64,
    /// The share of re-accesses that will still find the key.
    pub expected_hit_ratio: f64,
    /// The number of re-accesses that this was learnt from.
    pub observations: u64,
    /// The share of keys that have rested for longer by now: the TTL would have removed them.
    pub idle_share: f64,
}

/// The shortest TTL, in whole seconds, that keeps the share `target` of re-accesses hits, by the closed and
/// the open rests of a key or a class that was watched for `watched_ms`.
///
/// # Errors
/// If the data is too short to say.
pub fn suggest(
    closed: &Histogram,
    open: &Histogram,
    target: f64,
    watched_ms: u64,
) -> Result<Suggestion, InsufficientData> {
    if !(target > 0.0 && target < 1.0) {
        return Err(InsufficientData::Target);
    }
    let (needed, have) = (observations_needed(target), closed.observations());
    if have < needed {
        return Err(InsufficientData::FewObservations { needed, have });
    }
    let over = LifeTable::new(closed, open);
    let ttl_s = over.time_ms(target).div_ceil(1000).max(1);
    let needed_s = (ttl_s as f64 * WATCHED_TTLS_MIN).ceil() as u64;
    if watched_ms < needed_s * 1000 {
        return Err(InsufficientData::ShortTime { needed_s, have_s: watched_ms / 1000 });
    }
    let beyond: u64 = (bucket(ttl_s * 1000)..BUCKETS).map(|bucket| u64::from(open.counts[bucket])).sum();
    Ok(Suggestion {
        ttl_s,
        expected_hit_ratio: over.share(ttl_s * 1000),
        observations: have,
        idle_share: beyond as f64 / open.count().max(1) as f64,
    })
}

/// So many that a share near `target` is known well enough, and that some lie beyond it.
fn observations_needed(target: f64) -> u64 {
    let by_chance = (1.96 / RATIO_ERROR_MAX).powi(2) * target * (1.0 - target);
    by_chance.max(BEYOND_MIN / (1.0 - target)).ceil() as u64
}

/// The share of rests that are over at the start of each bucket, of those that ever end.
struct LifeTable {
    over: [f64; BUCKETS + 1],
}

impl LifeTable {
    fn new(closed: &Histogram, open: &Histogram) -> Self {
        let mut at_risk = (closed.count() + open.count()) as f64;
        let (mut resting, mut over) = (1.0, [0.0; BUCKETS + 1]);
        for bucket in 0..BUCKETS {
            let (ended, left) = (f64::from(closed.counts[bucket]), f64::from(open.counts[bucket]));
            if ended > 0.0 {
                resting *= 1.0 - ended / (at_risk - left / 2.0).max(ended);
            }
            at_risk -= ended + left;
            over[bucket + 1] = 1.0 - resting;
        }
        let ever = over[BUCKETS].max(f64::MIN_POSITIVE);
        over.iter_mut().for_each(|share| *share /= ever);
        LifeTable { over }
    }

    /// The shortest time after which a share of the rests is over.
    fn time_ms(&self, share: f64) -> u64 {
        let bucket = (0..BUCKETS).find(|bucket| self.over[bucket + 1] >= share).unwrap_or(BUCKETS - 1);
        let (start, end) = (bucket_start(bucket), bucket_start(bucket + 1));
        let (below, above) = (self.over[bucket], self.over[bucket + 1]);
        let part = if above > below { (share - below) / (above - below) } else { 1.0 };
        start + ((end - start) as f64 * part.clamp(0.0, 1.0)).ceil() as u64
    }

    /// The share of rests that are over after a time.
    fn share(&self, ms: u64) -> f64 {
        let bucket = bucket(ms);
        let (start, end) = (bucket_start(bucket), bucket_start(bucket + 1));
        let part = (ms - start) as f64 / (end - start) as f64;
        self.over[bucket] + (self.over[bucket + 1] - self.over[bucket]) * part.min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analytics::class_id::OTHER_ID;

    /// A hash that is spread as the keyspace's are.
    fn hash(number: u32) -> u32 {
        (spread(number + 1) >> 32) as u32
    }

    #[test]
    fn rests_that_are_still_open_make_rests_longer() {
        let (mut closed, mut open) = (Histogram::default(), Histogram::default());
        for _ in 0..2000 {
            closed.record(10_000, 1);
            closed.record(100_000, 1);
        }
        let ttl_s = |open: &Histogram| suggest(&closed, open, 0.4, 10_000_000).unwrap().ttl_s;
        assert!((9..=13).contains(&ttl_s(&open)), "half of the rests are over by then: {}", ttl_s(&open));
        // Of all that began, a quarter is over by then, and the rest goes on.
        (0..4000).for_each(|_| open.record(50_000, 1));
        assert!((85..=125).contains(&ttl_s(&open)), "{}", ttl_s(&open));
    }

    #[test]
    fn buckets_follow_each_other_in_steps_of_a_quarter() {
        let mut bucket_before = 0;
        for ms in (0..100_000).chain((17..33).map(|bits| (1 << bits) - 1)).chain([u64::MAX]) {
            let bucket = bucket(ms);
            assert!(bucket >= bucket_before);
            assert!(bucket_start(bucket) <= ms);
            assert!(ms < bucket_start(bucket + 1) || bucket == BUCKETS - 1);
            assert!(bucket_start(bucket + 1) - bucket_start(bucket) <= 1.max(ms / 4));
            bucket_before = bucket;
        }
        assert_eq!((bucket_start(BUCKETS), bucket_before), (1 << 32, BUCKETS - 1));
    }

    proptest! {
        #[test]
        fn quantiles_are_at_most_a_quarter_too_high(
            mut lengths in proptest::collection::vec(0..10_000_000u64, 1..200),
            quantile in 0.0..1.0f64,
        ) {
            let mut histogram = Histogram::default();
            lengths.iter().for_each(|ms| histogram.record(*ms, 3));
            lengths.sort_unstable();
            let exact = lengths[((quantile * lengths.len() as f64).ceil() as usize).max(1) - 1];
            let estimate = histogram.quantile(quantile).unwrap();
            prop_assert!(exact <= estimate && estimate <= exact + exact / 4, "{} for {}", estimate, exact);
            prop_assert_eq!(histogram.observations(), lengths.len() as u64);
            prop_assert_eq!(histogram.count(), 3 * lengths.len() as u64);
        }
    }

    #[test]
    fn counts_never_overflow() {
        let mut histogram = Histogram::default();
        (0..5).for_each(|_| histogram.record(1, u32::MAX / 2));
        histogram.record(1000, 1 << 20);
        assert_eq!(histogram.quantile(0.5), Some(1));
        assert!(histogram.quantile(1.0) >= Some(1000));
        let mut sum = histogram.clone();
        (0..3).for_each(|_| sum.add(&histogram));
        assert_eq!(sum.quantile(0.5), Some(1));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn rests_close_when_a_key_is_used_again_and_stay_open_otherwise() {
        let mut tracker = Tracker::default();
        assert_eq!(tracker.touch(hash(1), OTHER_ID, 1000), None);
        assert_eq!(tracker.touch(hash(2), OTHER_ID, 1500), None);
        assert_eq!(tracker.touch(hash(1), OTHER_ID, 3000), Some(2000));
        let open = tracker.open(Some(OTHER_ID), 4000);
        assert_eq!((open.count(), open.quantile(1.0)), (2, Some(2559)));
        tracker.remove(hash(1));
        assert_eq!(tracker.touch(hash(1), OTHER_ID, 5000), None);
        tracker.clear();
        assert_eq!(tracker.open(None, 9000).count(), 0);
    }

    #[test]
    fn tracked_keys_are_bounded_and_stand_for_all() {
        let (mut tracker, count) = (Tracker::default(), 200_000);
        for number in 0..count {
            if tracker.tracks(hash(number)) {
                tracker.touch(hash(number), OTHER_ID, u64::from(number) / 10);
            }
            assert!(tracker.keys.len() <= TRACKED_MAX);
        }
        assert!(tracker.memory_bytes() <= 300 << 10, "{} bytes", tracker.memory_bytes());
        let estimate = tracker.open(None, 20_000).count() as f64;
        assert!((estimate / f64::from(count) - 1.0).abs() < 0.1, "{estimate} of {count} keys");
    }

    #[test]
    fn keys_that_rest_for_days_make_room_for_others() {
        let mut tracker = Tracker::default();
        for day in 0..40 {
            for number in 0..3000 {
                let now_ms = (day * 3000 + u64::from(number)) * 28_800;
                tracker.touch(hash(day as u32 * 3000 + number), OTHER_ID, now_ms);
            }
        }
        assert_eq!(tracker.weight(), 1, "all keys of two days find room");
    }

    #[test]
    fn keys_that_are_used_most_have_histories() {
        let mut histories = Histories::default();
        for round in 0..200 {
            for number in 0..60 {
                histories.record(hash(number % 20), 1000 * u64::from(number % 20), 1);
            }
            for number in 0..500 {
                histories.record(hash(1000 + round * 500 + number), 1, 1);
            }
        }
        for number in 0..20 {
            let history = histories.closed(hash(number)).expect("it is used most");
            assert!(
                history.quantile(0.5).unwrap().abs_diff(1000 * u64::from(number)) <= 250 * u64::from(number)
            );
            assert!(history.observations() >= 500);
        }
        assert!(histories.memory_bytes() <= 300 << 10, "{} bytes", histories.memory_bytes());
        histories.clear();
        assert!(histories.closed(hash(1)).is_none());
    }

    #[test]
    fn what_is_too_little_is_refused() {
        let mut closed = Histogram::default();
        let open = Histogram::default();
        let ask = |closed: &Histogram, target, watched_ms| suggest(closed, &open, target, watched_ms);
        assert_eq!(ask(&closed, 0.99, 0), Err(InsufficientData::FewObservations { needed: 200, have: 0 }));
        assert_eq!(ask(&closed, 0.9, 0), Err(InsufficientData::FewObservations { needed: 865, have: 0 }));
        for target in [0.0, 1.0, -1.0, f64::NAN] {
            assert_eq!(ask(&closed, target, 0), Err(InsufficientData::Target));
        }
        (0..1000).for_each(|_| closed.record(20_000, 1));
        let Err(InsufficientData::ShortTime { needed_s, have_s: 50 }) = ask(&closed, 0.99, 50_000) else {
            panic!("50 seconds are too short");
        };
        assert!((150..200).contains(&needed_s), "{needed_s} s");
        assert!(ask(&closed, 0.99, 1000 * needed_s).is_ok());
    }

    #[test]
    fn the_suggestion_is_the_shortest_that_reaches_the_target() {
        let (mut closed, mut open) = (Histogram::default(), Histogram::default());
        (0..3000).for_each(|tenths| closed.record(tenths % 1000 * 100 + 99, 1));
        (0..3).for_each(|_| open.record(500, 1));
        open.record(1_000_000, 1);
        for (target, ttl_s) in [(0.5, 50), (0.9, 90), (0.95, 95)] {
            let suggestion = suggest(&closed, &open, target, 10_000_000).unwrap();
            assert!(suggestion.ttl_s.abs_diff(ttl_s) <= 2, "{suggestion:?} for {target}");
            assert!(suggestion.expected_hit_ratio >= target && suggestion.expected_hit_ratio < target + 0.03);
            assert_eq!((suggestion.observations, suggestion.idle_share), (3000, 0.25));
        }
    }

    /// Half of the keys are used every 2 s, half every 60 s; they are watched from one moment on for 300 s.
    #[test]
    fn open_rests_make_up_for_a_short_time() {
        let (mut closed, mut open, mut all) = (Histogram::default(), Histogram::default(), [0u32; 2]);
        let end_ms = 300_000;
        for number in 0..2000u64 {
            // Every rest is drawn anew, so that one of 60 s is often cut off by the end.
            let mut used_ms = number % 1000;
            let mut draw = number;
            loop {
                draw = draw.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(number | 1);
                let is_long = draw >> 63 == 1;
                let rest_ms = if is_long { 100_000 } else { 2000 };
                all[usize::from(is_long)] += 1;
                if used_ms + rest_ms > end_ms {
                    open.record(end_ms - used_ms, 1);
                    break;
                }
                closed.record(rest_ms, 1);
                used_ms += rest_ms;
            }
        }
        let share_short = f64::from(all[0]) / f64::from(all[0] + all[1]);
        let with = LifeTable::new(&closed, &open).share(50_000);
        let without = LifeTable::new(&closed, &Histogram::default()).share(50_000);
        assert!((with - share_short).abs() < 0.02, "{with} for {share_short}");
        assert!(without - share_short > 0.05, "{without} for {share_short}");
    }
}
