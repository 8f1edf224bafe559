//! The error of the miss-ratio curve, against LRU caches that are simulated exactly.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use shard::analytics::reuse::{self, MissRatio};

use crate::streams::{self, Load, Use, hash};
use crate::{Extent, Section};

/// The mean absolute error that a curve may have, and that of a short version, which sees few reads.
const MEAN_ERROR_MAX: f64 = 0.01;
const SHORT_MEAN_ERROR_MAX: f64 = 0.03;

/// How good one run was.
struct Quality {
    /// The most memory that the keys took, in bytes.
    footprint: u64,
    /// The hit ratio of the simulated cache at a quarter of it, and the estimate.
    exact_quarter: f64,
    estimated_quarter: f64,
    /// The mean and the largest absolute error over all sizes.
    mean_error: f64,
    max_error: f64,
    /// The memory that the estimate took, in bytes, over all shards.
    memory_bytes: usize,
}

/// Sizes that are compared, as parts of the footprint.
const SIZES: [f64; 12] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5, 0.65, 0.8, 1.0];

const DAY: u64 = 24 * 3600;
const TWITTER_4: &[(u64, f64)] =
    &[(60, 0.39), (300, 0.24), (3600, 0.13), (600, 0.12), (4 * 3600, 0.09), (DAY, 0.03)];
const TWITTER_29: &[(u64, f64)] = &[(3600, 0.67), (7200, 0.33)];
const SIZED: Load = Load { value_len: 500.0, ..Load::zipf("", 0, 0.0) };

const LOADS: [Load; 7] = [
    Load { name: "Zipf 0.6", exponent: 0.6, ..SIZED },
    Load { name: "Zipf 0.9", exponent: 0.9, ..SIZED },
    Load { name: "Zipf 1.2", exponent: 1.2, ..SIZED },
    Load { name: "Zipf 0.9, churn, 5 % writes", exponent: 0.9, churn: 100, writes: 0.05, ..SIZED },
    Load { name: "Zipf 0.9, a third with a TTL of 60 s", exponent: 0.9, ttls: &[(60, 0.33)], ..SIZED },
    Load {
        name: "as Twitter's cluster 4",
        exponent: 1.1004,
        churn: 100,
        a_second: 5260,
        writes: 0.07,
        value_len: 2439.0,
        ttls: TWITTER_4,
        ..SIZED
    },
    Load {
        name: "as Twitter's cluster 29",
        exponent: 1.2323,
        churn: 100,
        a_second: 1073,
        writes: 0.13,
        value_len: 799.0,
        ttls: TWITTER_29,
        ..SIZED
    },
];

/// Blocks of a trace: one size, no TTL.
const BLOCKS: Load = Load { value_len: 0.0, ..SIZED };

/// The table, and the targets that were missed.
pub fn section(extent: Extent) -> Section {
    let (keys, count) = if extent == Extent::Full { (500_000, 2_000_000) } else { (10_000, 20_000) };
    let mut text = format!(
        "## CACHE-ADVICE: the hit ratio with other memory\n\n\
         {keys} keys by Zipf's law and {count} uses, synthetic, of a client that writes what it misses. \
         Churn replaces one of the 2000 most popular every 100 uses. Held against LRU caches of {} sizes \
         from 0.5 % to 100 % of all keys' memory, simulated exactly, with TTLs. Target: a mean absolute \
         error of at most {MEAN_ERROR_MAX}.\n\n\
         | load | shards | MiB of keys | hit ratio at 1/4 | estimate | mean error | largest error | KiB |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        SIZES.len()
    );
    let mut missed = Vec::new();
    let mut row = |name: &str, load: &Load, uses: &[Use], shards: usize| {
        let quality = measure(load, uses, shards);
        let line = format!(
            "| {name} | {shards} | {:.1} | {:.3} | {:.3} | {:.4} | {:.4} | {} |",
            quality.footprint as f64 / f64::from(1 << 20),
            quality.exact_quarter,
            quality.estimated_quarter,
            quality.mean_error,
            quality.max_error,
            quality.memory_bytes >> 10,
        );
        let error_max = if extent == Extent::Full { MEAN_ERROR_MAX } else { SHORT_MEAN_ERROR_MAX };
        if quality.mean_error > error_max {
            missed.push(line.clone());
        }
        text.push_str(&line);
        text.push('\n');
    };
    for load in LOADS.into_iter().take(if extent == Extent::Full { LOADS.len() } else { 5 }) {
        let load = Load { keys, ..load };
        let uses: Vec<_> = load.stream(1, count).collect();
        row(load.name, &load, &uses, 1);
    }
    if let Some(uses) = streams::oltp().filter(|_| extent == Extent::Full) {
        row("OLTP trace (real)", &BLOCKS, &uses, 1);
        row("OLTP trace (real)", &BLOCKS, &uses, 4);
    }
    Section { text, missed }
}

/// An LRU cache in which keys expire, by bytes.
struct Lru {
    capacity: u64,
    bytes: u64,
    peak: u64,
    entries: HashMap<u32, Entry>,
    /// Keys by the number of their last use.
    order: BinaryHeap<Reverse<(u64, u32)>>,
    deadlines: BinaryHeap<Reverse<(u64, u32)>>,
    clock: u64,
    reads: u64,
    hits: u64,
}

struct Entry {
    bytes: u64,
    used: u64,
    deadline_ms: u64,
}

impl Lru {
    fn new(capacity: u64) -> Self {
        Lru {
            capacity,
            bytes: 0,
            peak: 0,
            entries: HashMap::new(),
            order: BinaryHeap::new(),
            deadlines: BinaryHeap::new(),
            clock: 0,
            reads: 0,
            hits: 0,
        }
    }

    /// A read, and a write if it missed, or a write. Whether it was a hit, and whether it wrote.
    fn take(&mut self, load: &Load, used: Use) -> (bool, bool) {
        self.expire(used.now_ms);
        self.clock += 1;
        let hit = self.entries.contains_key(&used.key);
        if !used.writes {
            self.reads += 1;
            self.hits += u64::from(hit);
        }
        let writes = used.writes || !hit;
        if writes {
            self.forget(used.key);
            let deadline_ms = load.ttl_ms(used.key).map_or(u64::MAX, |ttl_ms| used.now_ms + ttl_ms);
            let bytes = load.bytes(used.key) as u64;
            self.entries.insert(used.key, Entry { bytes, used: self.clock, deadline_ms });
            self.bytes += bytes;
            if deadline_ms < u64::MAX {
                self.deadlines.push(Reverse((deadline_ms, used.key)));
            }
        } else if let Some(entry) = self.entries.get_mut(&used.key) {
            entry.used = self.clock;
        }
        if self.capacity < u64::MAX {
            self.order.push(Reverse((self.clock, used.key)));
        }
        while self.bytes > self.capacity {
            let Reverse((clock, key)) = self.order.pop().expect("what takes bytes has an order");
            if self.entries.get(&key).is_some_and(|entry| entry.used == clock) {
                self.forget(key);
            }
        }
        self.peak = self.peak.max(self.bytes);
        (hit, writes)
    }

    fn expire(&mut self, now_ms: u64) {
        while let Some(Reverse((deadline_ms, key))) = self.deadlines.peek().copied()
            && deadline_ms <= now_ms
        {
            self.deadlines.pop();
            if self.entries.get(&key).is_some_and(|entry| entry.deadline_ms == deadline_ms) {
                self.forget(key);
            }
        }
    }

    fn forget(&mut self, key: u32) {
        if let Some(entry) = self.entries.remove(&key) {
            self.bytes -= entry.bytes;
        }
    }

    fn hit_ratio(&self) -> f64 {
        self.hits as f64 / self.reads as f64
    }
}

/// Runs a stream against a store without a memory limit, whose shards are watched, and against caches of all
/// sizes.
fn measure(load: &Load, uses: &[Use], shards: usize) -> Quality {
    let mut watched: Vec<(MissRatio, u64, u64)> = (0..shards).map(|_| (MissRatio::default(), 0, 0)).collect();
    let mut store = Lru::new(u64::MAX);
    for used in uses {
        let shard = (used.key.wrapping_mul(0x85eb_ca6b) >> 16) as usize % shards;
        let (miss_ratio, hits, misses) = &mut watched[shard];
        let (hit, wrote) = store.take(load, *used);
        let (hash, bytes) = (hash(used.key), load.bytes(used.key));
        if !used.writes {
            *hits += u64::from(hit);
            *misses += u64::from(!hit);
        }
        if miss_ratio.samples(hash) {
            if !used.writes {
                miss_ratio.read(hash, hit.then_some(bytes), used.now_ms);
            }
            if wrote {
                let deadline_ms = load.ttl_ms(used.key).map(|ttl_ms| used.now_ms + ttl_ms);
                miss_ratio.write(hash, bytes, deadline_ms, used.now_ms);
            }
        }
    }
    let memory_bytes = watched.iter().map(|(miss_ratio, ..)| miss_ratio.memory_bytes()).sum();
    let curves: Vec<_> =
        watched.iter().map(|(miss_ratio, hits, misses)| miss_ratio.curve(*hits, *misses)).collect();
    let footprint = store.peak;
    let mut quality = Quality {
        footprint,
        exact_quarter: 0.0,
        estimated_quarter: 0.0,
        mean_error: 0.0,
        max_error: 0.0,
        memory_bytes,
    };
    for part in SIZES {
        let capacity = (footprint as f64 * part) as u64;
        let mut cache = Lru::new(capacity);
        uses.iter().for_each(|used| _ = cache.take(load, *used));
        let estimate = reuse::hit_ratio(&curves, capacity).expect("there were reads enough");
        let error = (estimate - cache.hit_ratio()).abs();
        quality.mean_error += error / SIZES.len() as f64;
        quality.max_error = quality.max_error.max(error);
        if part == 0.25 {
            (quality.exact_quarter, quality.estimated_quarter) = (cache.hit_ratio(), estimate);
        }
    }
    quality
}
