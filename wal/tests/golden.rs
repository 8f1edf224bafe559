//! The format in whole files: what is written today is, byte for byte, what `golden/version-3` holds, and what every
//! version's directory holds is read. A newer format gets a directory of its own, and the older ones stay: old files
//! are read for ever. The number is that of the manifest.

// Clippy takes only functions marked as tests for tests; this whole file is one.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wal::{DataDir, Error, Kind, Layout, Log, OsDisk, ReadOnlyDisk};

const SEGMENT_BYTES: u64 = 256;
const TAG: u32 = 0x0d0c_0b0a;
/// Changes as kvlite encodes them: a dump of these files shows records.
const PUT_A: &[u8] = b"\x01\x01\0\0\0a\0\0\0\0\0\0\0\0\x01\0\0\0\x31";
const PUT_B: &[u8] = b"\x01\x01\0\0\0b\0\xe0\x7f\xf7\xa3\x03\0\0\x02\0\0\0\xff\x0a";
const SPLICE_A: &[u8] = b"\x02\x01\0\0\0a\x01\0\0\0\x02\0\0\0\x32\x33";
const REMOVE_C: &[u8] = b"\x04\x01\0\0\0c";

fn golden(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/version-{version}"))
}

fn open(layout: &Layout, shard_index: u32) -> Log<OsDisk> {
    let directory = layout.shard_dir(shard_index);
    let boot = "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap();
    Log::recover(&OsDisk::in_boot(Some(boot)), &directory, layout.place(shard_index), SEGMENT_BYTES, |_| {
        Ok::<_, Error>(())
    })
    .unwrap()
    .0
}

/// Every kind of file and frame: a log that was closed behind a snapshot, in a recycled segment and a fresh
/// one, and one that a kill ended.
fn write(path: &Path) {
    let mut directory = DataDir::open(OsDisk::default(), path, Duration::ZERO).unwrap();
    let layout = directory.create_layout(2, TAG).unwrap();
    directory.activate(layout.clone()).unwrap();

    let mut log = open(&layout, 0);
    for payload in [PUT_B, REMOVE_C, PUT_B] {
        log.append(Kind::Batch, 1, payload);
        log.flush().unwrap();
    }
    let mut writer = log.begin_snapshot().unwrap();
    writer.append(Kind::Transaction { id: 5 << 10 | 1023, participants: &[] }, 0, &[]).unwrap();
    writer.append(Kind::Batch, 2, &[PUT_A, PUT_B].concat()).unwrap();
    let snapshot = log.finish_snapshot(writer).unwrap();
    let spare = log.retire(&snapshot).clear().unwrap();
    log.adopt(spare.expect("the first segment is recycled"));
    log.append(Kind::Transaction { id: 7 << 10 | 1, participants: &[0, 1] }, 1, SPLICE_A);
    log.sync().unwrap();
    log.append(Kind::Batch, 2, &[PUT_B, REMOVE_C].concat());
    log.flush().unwrap();
    log.append(Kind::Batch, 1, b"\x05");
    log.flush().unwrap();
    log.close().unwrap();

    let mut log = open(&layout, 1);
    log.note_progress();
    log.append(Kind::Transaction { id: 7 << 10 | 1, participants: &[0, 1] }, 1, PUT_B);
    log.sync().unwrap();
    log.note_progress();
    log.settle(1);
    log.append(Kind::Batch, 1, REMOVE_C);
    log.flush().unwrap();
    log.note_progress();
}

/// The files below a directory, by their names in it, without those that hold nothing.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut files, mut directories) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if !path.ends_with("LOCK") {
                files.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn what_is_written_today_is_version_3_byte_for_byte() {
    let written = tempfile::tempdir().unwrap();
    write(written.path());
    let (found, expected) = (files(written.path()), files(&golden(3)));
    let names: Vec<_> = expected.keys().collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), names);
    for (name, found) in &found {
        let expected = &expected[name];
        let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
        assert_eq!((differs, found.len()), (None, expected.len()), "first difference in {}", name.display());
    }
}

#[test]
fn all_versions_are_read() {
    (1..=3).for_each(is_read);
}

fn is_read(version: u32) {
    let directory = DataDir::inspect(ReadOnlyDisk::default(), &golden(version), Duration::ZERO).unwrap();
    let layout = directory.layout.unwrap().unwrap();
    let mut found = Vec::new();
    for shard in 0..layout.shards {
        let read =
            wal::check(&ReadOnlyDisk::default(), &layout.shard_dir(shard), layout.place(shard), |record| {
                let kind = match record.kind {
                    Kind::Batch => "batch".to_owned(),
                    Kind::Transaction { id, participants } => format!("{id} of {participants:?}"),
                };
                let file = if record.in_snapshot { "snapshot" } else { "log" };
                found.push((format!("{shard} {file} {} {kind}", record.seq), record.payload.to_vec()));
                Ok::<_, Error>(())
            });
        assert_eq!(read.unwrap().cut, None);
    }
    let expected: [(&str, &[u8]); 7] = [
        ("0 snapshot 1 6143 of []", b""),
        ("0 snapshot 2 batch", &[PUT_A, PUT_B].concat()),
        ("0 log 4 7169 of [0, 1]", SPLICE_A),
        ("0 log 5 batch", &[PUT_B, REMOVE_C].concat()),
        ("0 log 6 batch", b"\x05"),
        ("1 log 1 7169 of [0, 1]", PUT_B),
        ("1 log 2 batch", REMOVE_C),
    ];
    assert_eq!(found, expected.map(|(what, payload)| (what.to_owned(), payload.to_vec())));
}
