//! The hit ratio to expect with more or less memory: [`MissRatio`] measures, [`hit_ratio`] answers.
//!
//! SHARDS (Waldspurger, Park, Garthwaite, Ahmad, "Efficient MRC Construction with SHARDS", FAST 2015) in its
//! fixed-size variant: of the keys, those whose hash lies below a limit are followed, and the limit falls so
//! that their number is bounded. A read of a followed key has a reuse distance: the bytes of all followed
//! keys used since its last use, divided by the share of keys that are followed. It would hit in an LRU cache
//! of that size or larger. Sizes are those at the time of the read; a key whose deadline has passed, or that
//! was removed, takes no memory and does not hit at any size.
//!
//! ```text
//! position    0 .. next, in the order of the last use; bytes[position], 0 where no key is
//! blocks      sums of BLOCK_LEN positions each
//! distance    bytes of the rest of the key's block + blocks behind it
//! ```
//!
//! The adjustment of the paper, SHARDS_adj, corrects for hot keys that the sample has or lacks by chance: it
//! adds the difference between the reads there were and the reads that the sample stands for to the shortest
//! distance. Here the hits and the misses of the shard are known, and each is adjusted by its own number.

use hashbrown::HashTable;

use super::gate::Gate;

/// Keys that are followed at most.
const KEYS_MAX: usize = 8192;
/// Positions in the order of use; when they are spent, the keys move together.
const POSITIONS: usize = 4 * KEYS_MAX;
const BLOCK_LEN: usize = 128;
/// Uses of followed keys in 64 ms from which on fewer keys are followed: 16 thousand a second.
const QUOTA: u32 = 1024;
/// So many followed keys are looked at with each use, whether they have expired.
const SWEEP: usize = 8;
/// Buckets of distances, in bytes: eight steps a doubling, up to 2^48.
const BUCKETS: usize = 48 * 8;
/// Below this number of followed reads nothing is concluded.
const READS_MIN: u64 = 1000;
/// A key without a deadline.
const NEVER: u64 = u64::MAX;

/// Follows a sample of the keys of one shard.
#[derive(Debug)]
pub struct MissRatio {
    gate: Gate,
    keys: Vec<Followed>,
    /// Indexes into `keys`, by hash.
    index: HashTable<u32>,
    order: Order,
    /// The key that is looked at next.
    sweep: usize,
    counts: Box<Counts>,
    /// The shard's hits and misses: as they were when aged last, and what is left of those before.
    aged: [u64; 2],
    faded: [f64; 2],
}

/// A followed key. Two keys with the same hash count as one.
#[derive(Clone, Copy, Debug)]
struct Followed {
    hash: u32,
    position: u32,
    deadline_ms: u64,
}

/// The order in which the followed keys were used last, and their bytes.
#[derive(Debug)]
struct Order {
    /// The bytes of the key at each position; less than 4 GiB.
    bytes: Vec<u32>,
    blocks: Vec<u64>,
    /// The index of the key at each position that has one.
    keys: Vec<u32>,
    next: usize,
}

/// Weighted counts of reads.
#[derive(Clone, Debug)]
struct Counts {
    /// Reads that found the key in the shard, by their distance.
    hits: [f64; BUCKETS],
    /// Reads that did not, of keys that were evicted and are still followed.
    ghosts: [f64; BUCKETS],
    hits_sum: f64,
    misses_sum: f64,
    /// Reads that found a key which was not followed yet.
    unknown_sum: f64,
    /// The number of all followed reads, not weighted.
    reads: u64,
}

/// What a shard knows of its hit ratio in relation to its memory.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Hits at distances up to that of each bucket.
    hits: Vec<f64>,
    reads: f64,
    known: bool,
}

impl Default for MissRatio {
    fn default() -> Self {
        MissRatio {
            gate: Gate::new(QUOTA),
            keys: Vec::new(),
            index: HashTable::new(),
            order: Order::new(),
            sweep: 0,
            counts: Box::new(Counts::new()),
            aged: [0; 2],
            faded: [0.0; 2],
        }
    }
}

impl MissRatio {
    /// Whether what happens to a key with this hash is to be told to the functions below. The hash has to be
    /// evenly spread over all of its bits.
    #[inline]
    pub fn samples(&self, hash: u32) -> bool {
        self.gate.passes(hash)
    }

    /// A sampled key was read: it was there and takes `bytes` bytes of memory, or it was not.
    pub fn read(&mut self, hash: u32, bytes: Option<usize>, now_ms: u64) {
        if !self.begin(hash, now_ms) {
            return;
        }
        let weight = self.gate.weight();
        self.counts.reads += 1;
        match (self.find(hash), bytes) {
            (Some(index), _) => {
                let position = self.keys[index].position as usize;
                let own = self.order.bytes[position];
                let distance = self.order.bytes_after(position) as f64 * weight + f64::from(own);
                self.counts.record(bytes.is_some(), distance, weight);
                self.order.take(position);
                self.place(index, bytes.unwrap_or(own as usize));
            }
            (None, Some(bytes)) => {
                // The shard had the key before it was followed: a hit, at a distance that is not known.
                self.counts.unknown_sum += weight;
                self.follow(hash, bytes, NEVER);
            }
            (None, None) => self.counts.misses_sum += weight,
        }
    }

    /// A sampled key was written: it takes `bytes` bytes of memory and has this deadline from now on.
    pub fn write(&mut self, hash: u32, bytes: usize, deadline_ms: Option<u64>, now_ms: u64) {
        if !self.begin(hash, now_ms) {
            return;
        }
        let deadline_ms = deadline_ms.unwrap_or(NEVER);
        match self.find(hash) {
            Some(index) => {
                self.keys[index].deadline_ms = deadline_ms;
                self.order.take(self.keys[index].position as usize);
                self.place(index, bytes);
            }
            None => self.follow(hash, bytes, deadline_ms),
        }
    }

    /// A sampled key was removed on purpose. Not to be told when a key expires, which is known from its
    /// deadline, nor when it is evicted, since it would not be if there were more memory.
    pub fn remove(&mut self, hash: u32) {
        if let Some(index) = self.find(hash) {
            self.drop_key(index);
        }
    }

    /// Forgets all keys, as when the shard is cleared. What was counted stays.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.index.clear();
        self.order = Order::new();
    }

    /// Begins anew; `hits` and `misses` are the shard's until now.
    pub fn reset(&mut self, hits: u64, misses: u64) {
        *self = MissRatio { aged: [hits, misses], ..MissRatio::default() };
    }

    /// Makes everything counted so far count half; `hits` and `misses` are the shard's until now. To be
    /// called once an hour, say: the answer then follows changes within hours.
    pub fn age(&mut self, hits: u64, misses: u64) {
        self.faded = self.totals(hits, misses).map(|total| total / 2.0);
        self.aged = [hits, misses];
        self.counts.halve();
    }

    /// What is known now; `hits` and `misses` are the shard's until now, those of all keys.
    pub fn curve(&self, hits: u64, misses: u64) -> Curve {
        let [hits, misses] = self.totals(hits, misses);
        let counts = &self.counts;
        let hits = (hits - counts.unknown_sum).max(0.0);
        let missed = misses / counts.misses_sum.max(1.0);
        let mut sum = hits - counts.hits_sum;
        let at = |(near, ghost): (&f64, &f64)| {
            sum += near + ghost * missed;
            sum.clamp(0.0, hits + misses)
        };
        let hits_at = counts.hits.iter().zip(&counts.ghosts).map(at).collect();
        Curve { hits: hits_at, reads: hits + misses, known: counts.reads >= READS_MIN }
    }

    /// The memory that is held, in bytes. At most 1 MiB.
    pub fn memory_bytes(&self) -> usize {
        self.keys.capacity() * size_of::<Followed>()
            + self.index.allocation_size()
            + self.order.memory_bytes()
            + size_of::<Counts>()
    }

    /// The shard's hits and misses, the older ones faded.
    fn totals(&self, hits: u64, misses: u64) -> [f64; 2] {
        let [aged_hits, aged_misses] = self.aged;
        let since = [hits.saturating_sub(aged_hits), misses.saturating_sub(aged_misses)];
        [self.faded[0] + since[0] as f64, self.faded[1] + since[1] as f64]
    }

    /// Before every use of a key: keeps all bounds, and drops keys that have expired, this one among them.
    /// Whether the key is still sampled.
    fn begin(&mut self, hash: u32, now_ms: u64) -> bool {
        if self.gate.count(now_ms, self.keys.len() < KEYS_MAX / 3) {
            self.drop_what_passes_no_more();
        }
        while self.keys.len() == KEYS_MAX && self.gate.halve() {
            self.drop_what_passes_no_more();
        }
        if self.order.next == POSITIONS {
            self.order.pack(&mut self.keys);
        }
        for _ in 0..SWEEP.min(self.keys.len()) {
            self.sweep = if self.sweep + 1 < self.keys.len() { self.sweep + 1 } else { 0 };
            if self.keys[self.sweep].deadline_ms <= now_ms {
                self.drop_key(self.sweep);
            }
        }
        if let Some(index) = self.find(hash)
            && self.keys[index].deadline_ms <= now_ms
        {
            self.drop_key(index);
        }
        self.gate.passes(hash)
    }

    fn find(&self, hash: u32) -> Option<usize> {
        let index = self.index.find(spread(hash), |index| self.keys[*index as usize].hash == hash);
        index.map(|index| *index as usize)
    }

    fn follow(&mut self, hash: u32, bytes: usize, deadline_ms: u64) {
        let index = self.keys.len();
        self.keys.push(Followed { hash, position: 0, deadline_ms });
        let keys = &self.keys;
        self.index.insert_unique(spread(hash), index as u32, |index| spread(keys[*index as usize].hash));
        self.place(index, bytes);
    }

    /// Makes a key, which has no position, the one that was used last.
    fn place(&mut self, index: usize, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.keys[index].position = self.order.push(index as u32, bytes);
    }

    /// Follows a key no more. The last one takes its index.
    fn drop_key(&mut self, index: usize) {
        let Followed { hash, position, .. } = self.keys.swap_remove(index);
        self.order.take(position as usize);
        let slot = self.index.find_entry(spread(hash), |other| *other as usize == index);
        slot.expect("every key is in the index").remove();
        if let Some(moved) = self.keys.get(index) {
            let last = self.keys.len() as u32;
            let slot = self.index.find_mut(spread(moved.hash), |other| *other == last);
            *slot.expect("every key is in the index") = index as u32;
            self.order.keys[moved.position as usize] = index as u32;
        }
    }

    fn drop_what_passes_no_more(&mut self) {
        for index in (0..self.keys.len()).rev() {
            if !self.gate.passes(self.keys[index].hash) {
                self.drop_key(index);
            }
        }
    }
}

impl Order {
    fn new() -> Self {
        Order {
            bytes: vec![0; POSITIONS],
            blocks: vec![0; POSITIONS / BLOCK_LEN],
            keys: vec![0; POSITIONS],
            next: 0,
        }
    }

    /// Puts a key at the end; returns its position. There has to be one left.
    fn push(&mut self, key: u32, bytes: u32) -> u32 {
        let position = self.next;
        self.next += 1;
        self.bytes[position] = bytes;
        self.keys[position] = key;
        self.blocks[position / BLOCK_LEN] += u64::from(bytes);
        position as u32
    }

    /// Empties a position.
    fn take(&mut self, position: usize) {
        let bytes = std::mem::take(&mut self.bytes[position]);
        self.blocks[position / BLOCK_LEN] -= u64::from(bytes);
    }

    /// The bytes of all keys that were used after the one at this position.
    fn bytes_after(&self, position: usize) -> u64 {
        let block = position / BLOCK_LEN;
        let rest = &self.bytes[position + 1..(block + 1) * BLOCK_LEN];
        let behind = &self.blocks[block + 1..self.next.div_ceil(BLOCK_LEN).max(block + 1)];
        rest.iter().map(|bytes| u64::from(*bytes)).sum::<u64>() + behind.iter().sum::<u64>()
    }

    /// Moves the keys together, in their order, so that positions become free.
    fn pack(&mut self, keys: &mut [Followed]) {
        let before = std::mem::replace(self, Order::new());
        for (position, index) in before.keys.iter().enumerate() {
            let key = keys.get_mut(*index as usize);
            if let Some(key) = key.filter(|key| key.position as usize == position) {
                key.position = self.push(*index, before.bytes[position]);
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        (self.bytes.len() + self.keys.len()) * size_of::<u32>() + self.blocks.len() * size_of::<u64>()
    }
}

impl Counts {
    fn new() -> Self {
        Counts {
            hits: [0.0; BUCKETS],
            ghosts: [0.0; BUCKETS],
            hits_sum: 0.0,
            misses_sum: 0.0,
            unknown_sum: 0.0,
            reads: 0,
        }
    }

    fn record(&mut self, hit: bool, distance: f64, weight: f64) {
        if hit {
            self.hits[bucket(distance)] += weight;
            self.hits_sum += weight;
        } else {
            self.ghosts[bucket(distance)] += weight;
            self.misses_sum += weight;
        }
    }

    fn halve(&mut self) {
        self.hits.iter_mut().chain(&mut self.ghosts).for_each(|count| *count /= 2.0);
        self.hits_sum /= 2.0;
        self.misses_sum /= 2.0;
        self.unknown_sum /= 2.0;
        self.reads /= 2;
    }
}

fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The bucket of a distance in bytes.
fn bucket(distance: f64) -> usize {
    place(distance) as usize
}

/// Where a distance lies among the buckets.
fn place(distance: f64) -> f64 {
    (distance.max(1.0).log2() * 8.0).min(BUCKETS as f64 - 1.0)
}

/// The share of reads that would hit if the shards of these curves had `bytes` bytes of memory for keys
/// together, in equal parts; `None` if too little is known.
pub fn hit_ratio(curves: &[Curve], bytes: u64) -> Option<f64> {
    let place = place(bytes as f64 / curves.len() as f64);
    let (bucket, part) = (place as usize, place.fract());
    let at = |curve: &Curve| {
        let below = if bucket == 0 { 0.0 } else { curve.hits[bucket - 1] };
        below + (curve.hits[bucket] - below) * part
    };
    let reads: f64 = curves.iter().map(|curve| curve.reads).sum();
    let known = curves.iter().any(|curve| curve.known);
    (known && reads > 0.0).then(|| curves.iter().map(at).sum::<f64>() / reads)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A hash that is spread as the keyspace's are.
    fn hash(number: u32) -> u32 {
        (spread(number + 1) >> 32) as u32
    }

    /// Tells of a key that a client looks for, and sets if it is not there.
    fn look_aside(watched: &mut MissRatio, key: u32, is_there: bool, deadline_ms: Option<u64>, now_ms: u64) {
        if watched.samples(hash(key)) {
            watched.read(hash(key), is_there.then_some(100), now_ms);
            if !is_there {
                watched.write(hash(key), 100, deadline_ms, now_ms);
            }
        }
    }

    /// Goes around `keys` keys, 100 bytes each, `rounds` times. The first round misses.
    fn around(watched: &mut MissRatio, keys: u32, rounds: u32) -> Curve {
        for round in 0..rounds {
            for key in 0..keys {
                look_aside(watched, key, round > 0, None, u64::from(round * keys + key));
            }
        }
        watched.curve(u64::from(keys * (rounds - 1)), u64::from(keys))
    }

    #[test]
    fn a_cycle_hits_when_all_of_it_fits_and_never_before() {
        for (keys, tolerance) in [(1000, 0.1), (50_000, 0.15)] {
            let curve = [around(&mut MissRatio::default(), keys, 5)];
            let size = |part: f64| (f64::from(keys) * 100.0 * part) as u64;
            assert_eq!(hit_ratio(&curve, size(1.0 - tolerance)).map(|ratio| ratio < 0.01), Some(true));
            assert_eq!(hit_ratio(&curve, size(1.0 + tolerance)).map(|ratio| ratio > 0.79), Some(true));
        }
    }

    #[test]
    fn shards_share_the_memory_evenly() {
        let curves = [500, 1000, 1000, 1500].map(|keys| around(&mut MissRatio::default(), keys, 5));
        let reads = 5.0 * 4000.0;
        for (kilobytes, fitting) in [(150, 0.0), (250, 500.0), (480, 2500.0), (800, 4000.0)] {
            let ratio = hit_ratio(&curves, kilobytes * 1000).unwrap();
            assert!((ratio - fitting * 4.0 / reads).abs() < 0.01, "{ratio} with {kilobytes} kB");
        }
    }

    #[test]
    fn keys_that_expired_or_were_removed_take_no_memory_and_do_not_hit() {
        let mut watched = MissRatio::default();
        let mut reads = 0;
        for round in 0..20u64 {
            for key in 0..100 {
                look_aside(&mut watched, key, round > 0, None, round * 10);
                reads += 1;
            }
            // Ten times as many, which are gone before the next round.
            for key in 1000..2000 {
                look_aside(&mut watched, key, false, (key % 2 == 0).then_some(round * 10 + 5), round * 10);
                reads += 1;
            }
            (1000..2000).filter(|key| key % 2 == 1).for_each(|key| watched.remove(hash(key)));
        }
        let curve = [watched.curve(19 * 100, reads - 19 * 100)];
        let hits = hit_ratio(&curve, 100 * 1150).unwrap() * reads as f64;
        assert!((hits - 1900.0).abs() < 1.0, "{hits} hits with room for all");
        assert!(hit_ratio(&curve, 1 << 40).unwrap() * (reads as f64) < 1901.0);
    }

    #[test]
    fn little_is_no_knowledge_and_old_knowledge_fades() {
        assert_eq!(hit_ratio(&[], 1000), None);
        assert_eq!(hit_ratio(&[MissRatio::default().curve(0, 0)], 1000), None);
        let mut watched = MissRatio::default();
        around(&mut watched, 1000, 11);
        let ratio = |watched: &MissRatio, misses| hit_ratio(&[watched.curve(10_000, misses)], 1 << 30);
        assert!((ratio(&watched, 1000).unwrap() - 10.0 / 11.0).abs() < 1e-9);
        watched.age(10_000, 1000);
        watched.clear();
        (5000..10_500).for_each(|key| watched.read(hash(key), None, 50_000));
        assert!((ratio(&watched, 6500).unwrap() - 5.0 / 11.0).abs() < 1e-9);
        watched.reset(10_000, 6500);
        assert_eq!(ratio(&watched, 6500), None);
        (0..1000).for_each(|key| watched.read(hash(key), None, 60_000 + u64::from(key)));
        assert_eq!(ratio(&watched, 7500), Some(0.0));
        watched.age(10_000, 7500);
        assert_eq!(ratio(&watched, 7500), None);
    }

    #[test]
    fn memory_and_keys_are_bounded() {
        let mut watched = MissRatio::default();
        for number in 0..300_000u32 {
            look_aside(&mut watched, number, false, None, u64::from(number) / 100);
            assert!(watched.keys.len() <= KEYS_MAX);
        }
        assert!(watched.memory_bytes() <= 1 << 20, "{} bytes", watched.memory_bytes());
        assert!(watched.gate.weight() >= 32.0);
        check(&watched);
    }

    /// Every key has an entry of the index, and a position; blocks are sums; no other position has bytes.
    fn check(watched: &MissRatio) {
        assert_eq!(watched.index.len(), watched.keys.len());
        let mut sum = 0;
        for (index, key) in watched.keys.iter().enumerate() {
            assert_eq!(watched.find(key.hash), Some(index));
            assert_eq!(watched.order.keys[key.position as usize] as usize, index);
            sum += u64::from(watched.order.bytes[key.position as usize]);
        }
        for (block, bytes) in watched.order.blocks.iter().zip(watched.order.bytes.chunks(BLOCK_LEN)) {
            assert_eq!(*block, bytes.iter().map(|bytes| u64::from(*bytes)).sum::<u64>());
        }
        assert_eq!(sum, watched.order.blocks.iter().sum::<u64>());
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Read(u32),
        Write(u32, u32, Option<u64>),
        Remove(u32),
        Pack,
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let key = 0..30u32;
        prop_oneof![
            5 => key.clone().prop_map(Operation::Read),
            3 => (key.clone(), 1..5000u32, proptest::option::of(1..60u64))
                .prop_map(|(key, bytes, ttl)| Operation::Write(key, bytes, ttl)),
            1 => key.prop_map(Operation::Remove),
            1 => Just(Operation::Pack),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// As long as all keys are followed, distances are those of a plain list of keys.
        #[test]
        fn distances_agree_with_a_list(operations in proptest::collection::vec(operation(), 1..300)) {
            let mut watched = MissRatio::default();
            let mut list: Vec<(u32, u32, u64)> = Vec::new(); // The one used last stands last.
            let mut hits = [0.0; BUCKETS];
            for (time, operation) in operations.into_iter().enumerate() {
                let now_ms = 1000 + time as u64;
                list.retain(|(_, _, deadline_ms)| *deadline_ms > now_ms);
                match operation {
                    Operation::Read(key) => {
                        let at = list.iter().position(|(other, ..)| *other == key);
                        watched.read(hash(key), at.map(|at| list[at].1 as usize), now_ms);
                        if let Some(at) = at {
                            let distance: u32 = list[at..].iter().map(|(_, bytes, _)| bytes).sum();
                            hits[bucket(f64::from(distance))] += 1.0;
                            let used = list.remove(at);
                            list.push(used);
                        }
                    }
                    Operation::Write(key, bytes, ttl) => {
                        let deadline_ms = ttl.map(|ttl| now_ms + ttl);
                        watched.write(hash(key), bytes as usize, deadline_ms, now_ms);
                        list.retain(|(other, ..)| *other != key);
                        list.push((key, bytes, deadline_ms.unwrap_or(NEVER)));
                    }
                    Operation::Remove(key) => {
                        watched.remove(hash(key));
                        list.retain(|(other, ..)| *other != key);
                    }
                    Operation::Pack => watched.order.pack(&mut watched.keys),
                }
            }
            check(&watched);
            // Expired keys are looked for 8 at a time, so that a distance may be too long for a while.
            prop_assert_eq!(watched.counts.hits_sum, hits.iter().sum::<f64>());
            let mut ahead = 0.0;
            for (exact, measured) in hits.iter().zip(&watched.counts.hits) {
                ahead += exact - measured;
                prop_assert!(ahead >= 0.0, "no distance is too short");
            }
        }
    }
}
