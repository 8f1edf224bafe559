//! The log on a real file: frames appended and flushed, synced, and read back in recovery.
//!
//! The files lie in the build directory, so that its file system is measured and not one in memory. Each
//! sample starts an empty log, whose files vanish behind it; its first frame, which pays for the first segment,
//! is not measured, later segments are.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;
use wal::{Error, Kind, Log, OsDisk, Place};

const SEGMENT_BYTES: u64 = 64 << 20;
/// Payload bytes of the log that recovery reads.
const RECOVERY_BYTES: usize = 100_000_000;

fn directory() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory takes files")
}

/// The log in `path`, and the payload bytes that were read from it.
fn open(path: &Path) -> (Log<OsDisk>, usize) {
    let place = Place { shard_index: 0, shard_count: 1, tag: 0 };
    let mut read_bytes = 0;
    let opened = Log::recover(&OsDisk::default(), path, place, SEGMENT_BYTES, |record| {
        read_bytes += black_box(record.payload).len();
        Ok::<_, Error>(())
    });
    (opened.expect("the log is in order").0, read_bytes)
}

fn append_and_flush(log: &mut Log<OsDisk>, payload: &[u8]) {
    log.append(Kind::Batch, 1, black_box(payload));
    log.flush().expect("the disk takes the frames");
}

fn append_and_sync(log: &mut Log<OsDisk>, payload: &[u8]) {
    log.append(Kind::Batch, 1, black_box(payload));
    log.sync().expect("the disk takes the frames");
}

fn append(criterion: &mut Criterion) {
    type Step = fn(&mut Log<OsDisk>, &[u8]);
    let steps: [(&str, Step, usize); 4] = [
        ("append and flush", append_and_flush, 100),
        ("append and flush", append_and_flush, 4 << 10),
        ("append and flush", append_and_flush, 64 << 10),
        ("append and sync", append_and_sync, 100),
    ];
    let mut group = criterion.benchmark_group("log");
    for (name, step, payload_bytes) in steps {
        let payload = vec![7; payload_bytes];
        group.throughput(Throughput::Bytes(payload_bytes as u64));
        group.bench_function(format!("{name} {}", shown(payload_bytes)), |bencher| {
            bencher.iter_custom(|iterations| {
                let directory = directory();
                let (mut log, _) = open(directory.path());
                append_and_flush(&mut log, &payload);
                let start = Instant::now();
                for _ in 0..iterations {
                    step(&mut log, &payload);
                }
                start.elapsed()
            });
        });
    }
    group.finish();
}

fn recover(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log");
    group.sample_size(10);
    for payload_bytes in [100, 4 << 10] {
        let directory = directory();
        let (mut log, _) = open(directory.path());
        let payload = vec![7; payload_bytes];
        let frame_count = RECOVERY_BYTES / payload_bytes;
        for _ in 0..frame_count {
            log.append(Kind::Batch, 1, &payload);
            if log.buffered_bytes() > 1 << 20 {
                log.flush().expect("the disk takes the frames");
            }
        }
        log.close().expect("the disk takes the frames");
        group.throughput(Throughput::Bytes((frame_count * payload_bytes) as u64));
        group.bench_function(format!("recover 100 MB in frames of {}", shown(payload_bytes)), |bencher| {
            bencher.iter(|| {
                let (_, read_bytes) = open(directory.path());
                assert_eq!(read_bytes, frame_count * payload_bytes);
            });
        });
    }
    group.finish();
}

fn shown(bytes: usize) -> String {
    if bytes < 1 << 10 { format!("{bytes} B") } else { format!("{} KiB", bytes >> 10) }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1500));
    targets = append, recover
}
criterion_main!(benches);
