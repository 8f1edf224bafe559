//! Streams of uses of keys: generated ones, and a trace. The same seed gives the same stream.
//!
//! Generated streams are synthetic. Their popularity is Zipf's; where they name a cluster of Twitter's,
//! exponent, sizes, TTLs and the share of writes are its published ones (Yang, Yue, Rashmi, "A Large Scale
//! Analysis of Hundreds of In-memory Cache Clusters at Twitter", OSDI 2020; table in twitter/cache-trace,
//! CC-BY). Order, times and the spread of sizes are made up: independent draws, an even rate, sizes
//! exponentially distributed around the mean.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

/// A `SplitMix64` generator (Steele, Lea, Flood, 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// Evenly from 0 to below 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn mixed(state: u64) -> u64 {
    let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The hash of a key, as evenly spread as the one of the keyspace.
pub fn hash(key: u32) -> u32 {
    (mixed(u64::from(key) + 0x1234_5678_9abc) >> 32) as u32
}

/// A property of a key, evenly from 0 to below 1, always the same for the same key.
pub fn trait_of(key: u32) -> f64 {
    (mixed(u64::from(key) ^ 0xfeed_0000_0000) >> 11) as f64 / (1u64 << 53) as f64
}

/// One use of a key.
#[derive(Clone, Copy)]
pub struct Use {
    pub key: u32,
    pub now_ms: u64,
    pub writes: bool,
}

/// What a generated stream is like.
#[derive(Clone, Copy)]
pub struct Load {
    pub name: &'static str,
    pub keys: u32,
    pub exponent: f64,
    /// So many uses apart, one of the popular keys is replaced by a new one; 0: never.
    pub churn: u32,
    pub a_second: u64,
    /// The share of uses that write. Others read.
    pub writes: f64,
    pub value_len: f64,
    /// TTLs in seconds, with their shares. The rest has none.
    pub ttls: &'static [(u64, f64)],
}

impl Load {
    /// Keys of this many, by Zipf's law with this exponent, at 20 thousand a second: reads, small values, no
    /// TTL.
    pub const fn zipf(name: &'static str, keys: u32, exponent: f64) -> Load {
        Load { name, keys, exponent, churn: 0, a_second: 20_000, writes: 0.0, value_len: 100.0, ttls: &[] }
    }

    /// The memory that a key of this load takes.
    pub fn bytes(&self, key: u32) -> usize {
        48 + (-self.value_len * (1.0 - trait_of(key)).ln()) as usize
    }

    /// The TTL of a key of this load, in milliseconds.
    pub fn ttl_ms(&self, key: u32) -> Option<u64> {
        let mut place = trait_of(key.wrapping_mul(0x9e37_79b1));
        for (seconds, share) in self.ttls {
            if place < *share {
                return Some(seconds * 1000);
            }
            place -= share;
        }
        None
    }

    /// `count` uses.
    pub fn stream(self, seed: u64, count: u64) -> impl Iterator<Item = Use> {
        let mut sum = 0.0;
        let weight = |rank| (f64::from(rank) + 1.0).powf(-self.exponent);
        let cumulative: Vec<f64> = (0..self.keys).map(|rank| (sum += weight(rank), sum).1).collect();
        let mut names: Vec<u32> = (0..self.keys).collect();
        let (mut random, mut fresh) = (Random::new(seed), self.keys);
        (0..count).map(move |number| {
            if self.churn > 0 && number % u64::from(self.churn) == 0 {
                let rank = random.below(u64::from(self.keys.min(2000))) as usize;
                names[rank] = fresh;
                fresh += 1;
            }
            let place = random.share() * sum;
            let rank = cumulative.partition_point(|up_to| *up_to <= place).min(names.len() - 1);
            let writes = random.share() < self.writes;
            Use { key: names[rank], now_ms: 1_000_000 + number * 1000 / self.a_second, writes }
        })
    }
}

/// The folder that the environment variable `TRACES` names: real traces, which are not part of the
/// repository.
pub fn traces() -> Option<PathBuf> {
    std::env::var_os("TRACES").map(PathBuf::from)
}

/// Reads of the blocks of `OLTP.lis.zst` in [`traces`], a thousand a second, if it is there: a line for each
/// request, with its first block and the number of blocks. An OLTP system's file accesses, from the paper on
/// ARC (Megiddo, Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST 2003), as kept in
/// moka-rs/cache-trace. It has no times.
pub fn oltp() -> Option<Vec<Use>> {
    let path = traces()?.join("OLTP.lis.zst");
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = ruzstd::decoding::StreamingDecoder::new(file).expect("a zstd file");
    let mut uses = Vec::new();
    for line in BufReader::new(text).lines() {
        let line = line.expect("text");
        let mut fields = line.split(' ').map(|field| field.parse::<u32>().expect("numbers"));
        let (first, count) = (fields.next().expect("a block"), fields.next().expect("a number of blocks"));
        for key in first..first + count {
            uses.push(Use { key, now_ms: 1_000_000 + uses.len() as u64, writes: false });
        }
    }
    Some(uses)
}
