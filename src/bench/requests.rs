//! Requests: which command comes next, on which keys, with which values, and its bytes in either protocol.
//! All choices follow from the seed.

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use super::options::{Kind, Locality, Options, Protocol, SizeRange};
use crate::slots;

/// Digits of a key's number, as in the keys of redis-benchmark.
const KEY_DIGITS: usize = 12;

/// How many places values begin at: so many different values of one size there are.
const VALUE_STARTS: u32 = 4096;

/// Draws keys: number 0 is the most frequent one under a Zipf distribution.
#[derive(Clone, Debug)]
enum Draw {
    Uniform(u64),
    Zipf(Zipf<f64>),
}

impl Draw {
    fn new(count: u64, exponent: f64) -> Draw {
        match Zipf::new(count as f64, exponent) {
            Ok(zipf) if exponent > 0.0 => Draw::Zipf(zipf),
            _ => Draw::Uniform(count.max(1)),
        }
    }

    fn next(&self, random: &mut SmallRng) -> u64 {
        match self {
            Draw::Uniform(count) => random.random_range(0..*count),
            Draw::Zipf(zipf) => zipf.sample(random) as u64 - 1, // Counts from 1.
        }
    }
}

/// The keys to choose from, shared by all threads.
#[derive(Debug)]
pub struct Keys {
    any: Draw,
    /// The numbers of the keys that each shard owns, where the choice depends on that.
    owned: Vec<(Vec<u32>, Draw)>,
    locality: Locality,
}

impl Keys {
    /// The keys that the options ask for, on a server with this many shards. Returns `None` where a shard has
    /// no key, or is the only one and remote keys are asked for.
    pub fn new(options: &Options, shards: usize) -> Option<Keys> {
        let any = Draw::new(options.keys, options.zipf);
        let mut owned: Vec<Vec<u32>> = Vec::new();
        if options.locality != Locality::Any {
            owned.resize(shards, Vec::new());
            let mut name = Vec::new();
            for number in 0..options.keys {
                name.clear();
                push_key(b"key:", number, &mut name);
                owned[slots::owner(&name, shards)].push(number as u32); // At most 10^9 keys.
            }
            if owned.iter().any(Vec::is_empty) || (shards == 1 && options.locality == Locality::Remote) {
                return None;
            }
        }
        let with_draw = |keys: Vec<u32>| {
            let draw = Draw::new(keys.len() as u64, options.zipf);
            (keys, draw)
        };
        Some(Keys { any, owned: owned.into_iter().map(with_draw).collect(), locality: options.locality })
    }

    /// The number of a key for a connection that this shard serves.
    fn next(&self, shard: usize, random: &mut SmallRng) -> u64 {
        let owner = match self.locality {
            Locality::Any => return self.any.next(random),
            Locality::Local => shard,
            Locality::Remote => (shard + random.random_range(1..self.owned.len())) % self.owned.len(),
        };
        let (keys, draw) = &self.owned[owner];
        keys[draw.next(random) as usize].into()
    }
}

/// Writes the requests of one thread.
pub struct RequestWriter {
    options: Arc<Options>,
    keys: Arc<Keys>,
    random: SmallRng,
    /// Letters and digits; every value is a piece of them.
    pool: Vec<u8>,
    ttl: Option<String>,
}

impl RequestWriter {
    /// For the thread with this number.
    pub fn new(options: Arc<Options>, keys: Arc<Keys>, thread: u64) -> RequestWriter {
        let mut random =
            SmallRng::seed_from_u64(options.seed.wrapping_add(thread.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let pool_bytes = options.value_bytes_max() + VALUE_STARTS;
        let pool = (0..pool_bytes).map(|_| random.random_range(b'a'..=b'z')).collect();
        let ttl = options.ttl.map(|seconds| seconds.to_string());
        RequestWriter { options, keys, random, pool, ttl }
    }

    /// Appends the next request of a connection that this shard serves; returns its command.
    pub fn write_next(&mut self, shard: usize, out: &mut Vec<u8>) -> Kind {
        let commands = &self.options.commands;
        let drawn = if commands.total() == 1 { 0 } else { self.random.random_range(0..commands.total()) };
        let kind = commands.at(drawn);
        match kind {
            Kind::Get => {
                self.begin("GET", 1, out);
                self.push_next_key(b"key:", shard, out);
            }
            Kind::Set => {
                let number = self.keys.next(shard, &mut self.random);
                self.write_set(number, out);
                return kind;
            }
            Kind::Incr => {
                self.begin("INCR", 1, out);
                self.push_next_key(b"counter:", shard, out);
            }
            Kind::Mget => {
                self.begin("MGET", self.options.batch as usize, out);
                for _ in 0..self.options.batch {
                    self.push_next_key(b"key:", shard, out);
                }
            }
            Kind::Mset => {
                self.begin("MSET", 2 * self.options.batch as usize, out);
                for _ in 0..self.options.batch {
                    self.push_next_key(b"key:", shard, out);
                    self.push_value(out);
                }
            }
        }
        self.end(out);
        kind
    }

    /// Appends a request that sets the key of this number.
    pub fn write_set(&mut self, number: u64, out: &mut Vec<u8>) {
        let ttl = self.ttl.take();
        match (&ttl, self.options.protocol) {
            (Some(seconds), Protocol::Text) => {
                self.begin("SETEX", 3, out);
                self.push_numbered(b"key:", number, out);
                self.push_word(seconds.as_bytes(), out);
                self.push_value(out);
            }
            (Some(seconds), Protocol::Resp) => {
                self.begin("SET", 4, out);
                self.push_numbered(b"key:", number, out);
                self.push_value(out);
                self.push_word(b"EX", out);
                self.push_word(seconds.as_bytes(), out);
            }
            (_, Protocol::Memcached) => {
                self.begin("SET", 2, out);
                self.push_numbered(b"key:", number, out);
                out.extend_from_slice(b" 0 ");
                out.extend_from_slice(ttl.as_deref().unwrap_or("0").as_bytes());
                self.push_value(out);
            }
            (None, _) => {
                self.begin("SET", 2, out);
                self.push_numbered(b"key:", number, out);
                self.push_value(out);
            }
        }
        self.ttl = ttl;
        self.end(out);
    }

    fn begin(&self, name: &str, args: usize, out: &mut Vec<u8>) {
        match self.options.protocol {
            Protocol::Resp => {
                push_length(b'*', args + 1, out);
                self.push_word(name.as_bytes(), out);
            }
            Protocol::Text => out.extend_from_slice(name.as_bytes()),
            Protocol::Memcached if name == "MGET" => out.extend_from_slice(b"get"),
            Protocol::Memcached => out.extend(name.bytes().map(|byte| byte.to_ascii_lowercase())),
        }
    }

    fn push_next_key(&mut self, prefix: &[u8], shard: usize, out: &mut Vec<u8>) {
        let number = self.keys.next(shard, &mut self.random);
        self.push_numbered(prefix, number, out);
    }

    fn push_numbered(&self, prefix: &[u8], number: u64, out: &mut Vec<u8>) {
        match self.options.protocol {
            Protocol::Resp => {
                push_length(b'$', prefix.len() + KEY_DIGITS, out);
                push_key(prefix, number, out);
                out.extend_from_slice(b"\r\n");
            }
            Protocol::Text | Protocol::Memcached => {
                out.push(b' ');
                push_key(prefix, number, out);
            }
        }
    }

    fn push_value(&mut self, out: &mut Vec<u8>) {
        let sizes = &self.options.value_size;
        let drawn = if sizes.total() == 1 { 0 } else { self.random.random_range(0..sizes.total()) };
        let SizeRange { least, most } = sizes.at(drawn);
        let size = if least == most { least } else { self.random.random_range(least..=most) };
        let start = self.random.random_range(0..VALUE_STARTS) as usize;
        self.push_word(&self.pool[start..start + size as usize], out);
    }

    fn push_word(&self, word: &[u8], out: &mut Vec<u8>) {
        match self.options.protocol {
            Protocol::Resp => {
                push_length(b'$', word.len(), out);
                out.extend_from_slice(word);
                out.extend_from_slice(b"\r\n");
            }
            Protocol::Memcached => {
                push_length(b' ', word.len(), out);
                out.extend_from_slice(word);
            }
            Protocol::Text if word.is_empty() => out.extend_from_slice(b" \"\""),
            Protocol::Text => {
                out.push(b' ');
                out.extend_from_slice(word);
            }
        }
    }

    fn end(&self, out: &mut Vec<u8>) {
        match self.options.protocol {
            Protocol::Resp => {}
            Protocol::Text => out.push(b'\n'),
            Protocol::Memcached => out.extend_from_slice(b"\r\n"),
        }
    }
}

fn push_length(kind: u8, length: usize, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn push_key(prefix: &[u8], number: u64, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number).as_bytes();
    out.extend_from_slice(prefix);
    out.extend_from_slice(&[b'0'; KEY_DIGITS][digits.len()..]);
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &str) -> Options {
        Options::from_args(std::iter::once("kvlite bench").chain(args.split_whitespace())).unwrap()
    }

    fn writer(args: &str, shards: usize) -> RequestWriter {
        let options = options(args);
        let keys = Keys::new(&options, shards).expect("every shard has keys");
        RequestWriter::new(Arc::new(options), Arc::new(keys), 0)
    }

    /// The next request, without its value.
    fn written(args: &str) -> String {
        let mut out = Vec::new();
        writer(args, 1).write_next(0, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn requests_in_resp() {
        assert_eq!(written("--keys 1 --commands get"), "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000000\r\n");
        assert_eq!(
            written("--keys 1 --commands incr"),
            "*2\r\n$4\r\nINCR\r\n$20\r\ncounter:000000000000\r\n"
        );
        assert_eq!(
            written("--keys 1 --commands set --value-size 0 --ttl 60"),
            "*5\r\n$3\r\nSET\r\n$16\r\nkey:000000000000\r\n$0\r\n\r\n$2\r\nEX\r\n$2\r\n60\r\n"
        );
        assert_eq!(
            written("--keys 1 --commands mset --batch 2 --value-size 0"),
            "*5\r\n$4\r\nMSET\r\n$16\r\nkey:000000000000\r\n$0\r\n\r\n$16\r\nkey:000000000000\r\n$0\r\n\r\n"
        );
    }

    #[test]
    fn requests_in_text() {
        let text = |args: &str| written(&format!("--protocol text --keys 1 --value-size 0 {args}"));
        assert_eq!(text("--commands mget --batch 2"), "MGET key:000000000000 key:000000000000\n");
        assert_eq!(text("--commands set"), "SET key:000000000000 \"\"\n");
        assert_eq!(text("--commands set --ttl 60"), "SETEX key:000000000000 60 \"\"\n");
    }

    #[test]
    fn requests_to_memcached() {
        let request = |args: &str| written(&format!("--protocol memcached --keys 1 --value-size 0 {args}"));
        assert_eq!(request("--commands get"), "get key:000000000000\r\n");
        assert_eq!(request("--commands mget --batch 2"), "get key:000000000000 key:000000000000\r\n");
        assert_eq!(request("--commands set"), "set key:000000000000 0 0 0\r\n\r\n");
        assert_eq!(request("--commands set --ttl 60"), "set key:000000000000 0 60 0\r\n\r\n");
    }

    #[test]
    fn the_same_seed_gives_the_same_requests() {
        let requests = |args: &str| {
            let (mut writer, mut out) = (writer(args, 1), Vec::new());
            for _ in 0..100 {
                writer.write_next(0, &mut out);
            }
            out
        };
        let args = "--commands get:1,set:1 --value-size 0-64 --zipf 0.99";
        assert_eq!(requests(args), requests(args));
        assert_ne!(requests(args), requests(&format!("{args} --seed 2")));
    }

    #[test]
    fn values_have_every_size_of_their_range_and_no_other() {
        let (mut writer, mut seen) = (writer("--value-size 3-5,9", 1), [0; 12]);
        for _ in 0..1000 {
            let mut out = Vec::new();
            writer.push_value(&mut out);
            seen[out.len() - "$0\r\n\r\n".len()] += 1;
        }
        let sizes: Vec<_> = (0..seen.len()).filter(|size| seen[*size] > 0).collect();
        assert_eq!(sizes, [3, 4, 5, 9]);
        assert!((400..600).contains(&seen[9]), "half of them: {}", seen[9]);
    }

    #[test]
    fn zipf_keys_have_the_frequencies_of_their_ranks() {
        const KEYS: usize = 1000;
        const DRAWS: u64 = 400_000;
        for exponent in [0.0, 0.5, 0.99, 1.0, 1.5] {
            let draw = Draw::new(KEYS as u64, exponent);
            let mut random = SmallRng::seed_from_u64(7);
            let mut seen = vec![0u64; KEYS];
            for _ in 0..DRAWS {
                seen[draw.next(&mut random) as usize] += 1;
            }
            let weight = |rank: usize| (rank as f64 + 1.0).powf(-exponent);
            let sum: f64 = (0..KEYS).map(weight).sum();
            for range in [0..1, 1..2, 2..10, 10..100, 100..500, 500..1000] {
                let expected = DRAWS as f64 * range.clone().map(weight).sum::<f64>() / sum;
                let actual = seen[range.clone()].iter().sum::<u64>() as f64;
                // Six standard deviations.
                let slack = 6.0 * expected.sqrt();
                assert!((actual - expected).abs() < slack, "{exponent} {range:?}: {actual}, not {expected}");
            }
        }
    }

    #[test]
    fn local_and_remote_keys_live_where_they_should() {
        for (locality, is_local) in [("local", true), ("remote", false)] {
            let args = format!("--commands get --keys 500 --locality {locality}");
            let mut writer = writer(&args, 3);
            for number in 0..600 {
                let mut out = Vec::new();
                writer.write_next(number % 3, &mut out);
                let key = &out[out.len() - 18..out.len() - 2];
                assert_eq!(slots::owner(key, 3) == number % 3, is_local, "{}", key.escape_ascii());
            }
        }
        assert!(Keys::new(&options("--locality remote"), 1).is_none(), "there is no other shard");
        assert!(Keys::new(&options("--locality local --keys 2"), 3).is_none(), "a shard has no key");
    }
}
