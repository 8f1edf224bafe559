//! One shard without its surroundings: single commands on few and on many keys, glob patterns, the command
//! table; and the memory alone, whose waits bound what commands on many keys can take.
//!
//! A measured step is one request whose bytes and spans lie ready; its changes are encoded and dropped. Keys are
//! visited in an order in which no two neighbours share memory, so that among a million of them each look-up
//! pays for the caches that it misses.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use shard::{Change, Changes, Command, Glob, Request, Shard, Span, command};

/// Length of the values, in bytes.
const VALUE_LEN: usize = 64;
/// Keys that are set or removed between two readings of the clock, at most.
const CHUNK_LEN: usize = 4096;
/// A little more than a million, and prime: every stride visits every key.
const MANY: usize = 1_000_003;
/// The distance between keys, or lines, that are visited one after the other; without a factor of their number.
const STRIDE: usize = 618_037;
/// Bytes of the buffer of changes that are kept from one request to the next.
const KEEP_BYTES: usize = 1 << 16;
const NOW_MS: u64 = 1_000;

/// Requests of one command, ready to execute.
struct Requests {
    row: &'static Command,
    /// The value, then all keys.
    buffer: Vec<u8>,
    /// The arguments of all requests.
    spans: Vec<Span>,
    args_each: usize,
}

impl Requests {
    /// One request for each of `count` keys; a value that is not empty follows the key.
    fn new(name: &str, prefix: &str, count: usize, value: &[u8]) -> Self {
        let row = command::find(name.as_bytes()).expect("a command of the table");
        let (mut buffer, mut spans) = (value.to_vec(), Vec::new());
        for index in 0..count {
            let key = key(prefix, index * STRIDE % count);
            spans.push(Span { start: buffer.len() as u32, len: key.len() as u32 });
            buffer.extend_from_slice(key.as_bytes());
            if !value.is_empty() {
                spans.push(Span { start: 0, len: value.len() as u32 });
            }
        }
        Requests { row, buffer, spans, args_each: if value.is_empty() { 1 } else { 2 } }
    }

    fn iter(&self) -> impl Iterator<Item = Request<'_>> + Clone {
        let spans = self.spans.chunks_exact(self.args_each);
        spans.map(|spans| Request::new(self.row, &self.buffer, spans))
    }
}

fn key(prefix: &str, number: usize) -> String {
    format!("{prefix}:{number:08}")
}

fn filled(count: usize, value: &[u8]) -> Shard {
    let mut shard = Shard::new([1, 2, 3, 4]);
    for number in 0..count {
        let key = key("key", number);
        shard.apply(&Change::Put { key: key.as_bytes(), value, deadline_ms: None });
    }
    shard
}

fn run_one(shard: &mut Shard, request: &Request<'_>, changes: &mut Changes) {
    black_box(shard.execute(black_box(request), NOW_MS, changes));
    black_box(changes.bytes());
    changes.clear(KEEP_BYTES);
}

/// Requests that leave the shard as it is, or at least its keys and the sizes of their values: again and again.
fn repeated(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, shard: &mut Shard, requests: &Requests) {
    let mut changes = Changes::default();
    let mut cycle = requests.iter().cycle();
    group.bench_function(name, |bencher| {
        bencher.iter(|| run_one(shard, &cycle.next().expect("a cycle has no end"), &mut changes));
    });
}

/// Requests that can be measured only once before others have put things back, in chunks.
fn undone(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    shard: &mut Shard,
    measured: &Requests,
    undoing: &Requests,
) {
    let mut changes = Changes::default();
    let chunk_len = measured.iter().count().min(CHUNK_LEN); // No key is twice in a chunk.
    let mut chunks = measured.iter().zip(undoing.iter()).cycle();
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let (mut left, mut taken) = (iterations as usize, Duration::ZERO);
            while left > 0 {
                let chunk: Vec<_> = chunks.by_ref().take(left.min(chunk_len)).collect();
                let start = Instant::now();
                for (request, _) in &chunk {
                    run_one(shard, request, &mut changes);
                }
                taken += start.elapsed();
                for (_, request) in &chunk {
                    run_one(shard, request, &mut changes);
                }
                left -= chunk.len();
            }
            taken
        });
    });
}

/// GET as a worker's turn runs it: 64 keys are read ahead, then their requests are executed.
fn read_ahead(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, shard: &mut Shard, requests: &Requests) {
    const BATCH_LEN: usize = 64;
    let mut changes = Changes::default();
    let mut cycle = requests.iter().cycle();
    group.throughput(Throughput::Elements(BATCH_LEN as u64));
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let batch = cycle.clone().take(BATCH_LEN);
            shard.prefetch(0, batch.map(|request| request.arg(0)));
            for request in cycle.by_ref().take(BATCH_LEN) {
                run_one(shard, &request, &mut changes);
            }
        });
    });
}

fn execute(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("execute");
    let value = &[b'v'; VALUE_LEN];
    for (count, size) in [(100, "100 keys"), (MANY, "1 M keys")] {
        let shard = &mut filled(count, value);
        let keys = |command, value| Requests::new(command, "key", count, value);
        let others = |command, value| Requests::new(command, "other", count, value);
        let (get, set, set_new) = (keys("GET", &[]), keys("SET", value), others("SET", value));
        group.throughput(Throughput::Elements(1));
        repeated(&mut group, &format!("GET hit, {size}"), shard, &get);
        repeated(&mut group, &format!("GET miss, {size}"), shard, &others("GET", &[]));
        repeated(&mut group, &format!("SET same size, {size}"), shard, &set);
        undone(&mut group, &format!("SET new, {size}"), shard, &set_new, &others("DEL", &[]));
        undone(&mut group, &format!("DEL, {size}"), shard, &keys("DEL", &[]), &set);
        read_ahead(&mut group, &format!("64 GET hits read ahead, {size}"), shard, &get);
        let numbers = &mut filled(count, b"1000000000");
        group.throughput(Throughput::Elements(1));
        repeated(&mut group, &format!("INCR, {size}"), numbers, &keys("INCR", &[]));
    }
    group.finish();
}

/// Keys, values and deadlines in the order of their hashes, as a snapshot takes them.
fn walk(criterion: &mut Criterion) {
    const STEP: usize = 256;
    let mut group = criterion.benchmark_group("walk");
    group.throughput(Throughput::Elements(STEP as u64));
    for (count, size) in [(10_000, "10,000 keys"), (MANY, "1 M keys")] {
        let shard = filled(count, &[b'v'; VALUE_LEN]);
        let mut position = 0;
        group.bench_function(format!("{STEP} of {size}"), |bencher| {
            bencher.iter(|| {
                let visit = |_, key: &[u8], value: &[u8], _| _ = black_box((key[0], value[0]));
                position = shard.walk(position, STEP, NOW_MS, visit).unwrap_or(0);
            });
        });
    }
    group.finish();
}

/// One read of a line of memory, whose address the read before it told: what a look-up waits for at least, twice.
fn memory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory");
    for (name, bytes) in [("16 KiB", 16 << 10), ("512 KiB", 512 << 10), ("128 MiB", 128 << 20)] {
        let count = bytes / size_of::<Line>();
        let lines: Vec<_> = (0..count).map(|index| Line((index + STRIDE) % count)).collect();
        let mut at = 0;
        group.bench_function(format!("dependent read of {name}"), |bencher| {
            bencher.iter(|| at = lines[at].0);
        });
    }
    group.finish();
}

#[repr(align(64))]
struct Line(usize);

fn glob(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("glob");
    let many_stars = "a*".repeat(40) + "b";
    let many_letters = "a".repeat(64);
    for (name, pattern, text) in [
        ("no star, 12 bytes", "key:00000042", "key:00000042"),
        ("prefix, 12 bytes", "key:*", "key:00000042"),
        ("substring, 12 bytes", "*42*", "key:00000042"),
        ("class, 12 bytes", "key:[0-9]*[24]", "key:00000042"),
        ("40 stars in vain, 64 bytes", &many_stars, &many_letters),
    ] {
        group.bench_function(name, |bencher| {
            let glob = Glob::new(pattern.as_bytes()).expect("it is short");
            bencher.iter(|| black_box(&glob).matches(black_box(text.as_bytes())));
        });
    }
    group.finish();
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find");
    for (name, command) in [("GET", "GET"), ("lower case", "flushall"), ("unknown", "GETSETGET")] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| command::find(black_box(command.as_bytes())));
        });
    }
    let names: Vec<_> = command::TABLE.iter().map(|row| row.name.as_bytes()).collect();
    let mut cycle = names.iter().cycle();
    group.bench_function("every row in turn", |bencher| {
        bencher.iter(|| command::find(black_box(cycle.next().expect("a cycle has no end"))));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1500));
    targets = execute, walk, memory, glob, find
}
criterion_main!(benches);
