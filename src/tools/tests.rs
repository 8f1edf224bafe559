//! The tools on real directories, sound and with every kind of damage.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser as _;
use shard::Changes;
use tempfile::TempDir;
use wal::{Log, OsDisk};

use super::*;
use crate::protocol::{Listener, Parsed, Parser};
use crate::recovery::{self, ShardData};
use crate::slots;
use crate::txn::id::transaction_id;

const SEGMENT_BYTES: u64 = 4096;
const SHARDS: u32 = 2;
/// A deadline that no test lives to see.
const FAR_MS: u64 = 4_000_000_000_000;

/// Keys with their values and deadlines.
type State = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

/// A data directory in the making.
struct Directory {
    temporary: TempDir,
}

/// One shard of it, open for writing.
struct Writer {
    log: Log<OsDisk>,
    shard: shard::Shard,
}

impl Writer {
    fn open(data: &ShardData) -> Writer {
        let (shard, log) = data.recover().unwrap();
        Writer { log, shard }
    }

    fn write(&mut self, kind: wal::Kind<'_>, changes: &[shard::Change<'_>]) {
        let mut encoded = Changes::default();
        for change in changes {
            self.shard.apply(change);
            encoded.push(change);
        }
        self.log.append(kind, encoded.count() as u32, encoded.bytes());
        self.log.flush().unwrap();
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.write(wal::Kind::Batch, &[shard::Change::Put { key, value, deadline_ms: None }]);
    }

    fn splice(&mut self, key: &[u8], offset: u32, bytes: &[u8]) {
        self.write(wal::Kind::Batch, &[shard::Change::Splice { key, offset, bytes }]);
    }

    /// A snapshot with a frame for each key.
    fn snapshot(&mut self) {
        let mut writer = self.log.begin_snapshot().unwrap();
        writer.append(wal::Kind::Transaction { id: 1, participants: &[] }, 0, &[]).unwrap();
        for (key, (value, deadline_ms)) in state_of(&self.shard) {
            let mut changes = Changes::default();
            changes.push(&shard::Change::Put { key: &key, value: &value, deadline_ms });
            writer.append(wal::Kind::Batch, 1, changes.bytes()).unwrap();
        }
        let snapshot = self.log.finish_snapshot(writer).unwrap();
        self.log.retire(&snapshot).clear().unwrap();
    }
}

fn state_of(shard: &shard::Shard) -> State {
    let mut state = State::new();
    let mut position = Some(0);
    while let Some(from) = position {
        position = shard.walk(from, 100, 0, |_, key, value, deadline_ms| {
            state.insert(key.to_vec(), (value.to_vec(), deadline_ms));
        });
    }
    state
}

/// A key of this shard.
fn key(shard: usize, number: usize) -> Vec<u8> {
    let names = (0..).map(|salt| format!("key-{number}-{salt}").into_bytes());
    names.into_iter().find(|key| slots::owner(key, SHARDS as usize) == shard).expect("every shard has keys")
}

fn value(number: usize) -> Vec<u8> {
    format!("value-of-{number}-").into_bytes().repeat(4)
}

impl Directory {
    fn empty() -> Directory {
        Directory { temporary: tempfile::tempdir().unwrap() }
    }

    /// Both shards with a snapshot of keys 0 to 9 and a log of several segments with keys 10 to 89.
    fn filled() -> Directory {
        let directory = Directory::empty();
        directory.write(|shards| {
            for (index, writer) in shards.iter_mut().enumerate() {
                (0..10).for_each(|number| writer.put(&key(index, number), &value(number)));
                writer.snapshot();
                (10..90).for_each(|number| writer.put(&key(index, number), &value(number)));
            }
        });
        directory
    }

    fn path(&self) -> PathBuf {
        self.temporary.path().join("data")
    }

    fn to(&self) -> PathBuf {
        self.temporary.path().join("new")
    }

    /// Writes to the shards, then closes their logs as a shutdown does.
    fn write(&self, write: impl FnOnce(&mut [Writer])) {
        let data = recovery::open_on(OsDisk::default(), &self.path(), SHARDS, SEGMENT_BYTES).unwrap();
        let mut shards: Vec<_> = (0..SHARDS as usize).map(|index| Writer::open(&data.shard(index))).collect();
        write(&mut shards);
        shards.into_iter().for_each(|writer| writer.log.close().unwrap());
    }

    /// The files of a shard, by name.
    fn files(&self, shard: usize, suffix: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path().join(format!("layout-1/shard-{shard}"))).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = paths.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
        files.sort();
        files
    }

    /// Flips a bit of these bytes, wherever in the shard's files they stand; says where.
    fn damage(&self, shard: usize, suffix: &str, needle: &[u8]) -> (PathBuf, usize) {
        for path in self.files(shard, suffix) {
            let mut bytes = fs::read(&path).unwrap();
            if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
                bytes[at + needle.len() - 1] ^= 1;
                fs::write(&path, bytes).unwrap();
                return (path, at);
            }
        }
        panic!("{} is in no {suffix} file", needle.escape_ascii());
    }

    fn check(&self) -> (Finding, String) {
        run("check", &[self.path().to_str().unwrap()]).unwrap()
    }

    fn check_json(&self) -> (Finding, serde_json::Value) {
        let (resolution, text) = run("check", &[self.path().to_str().unwrap(), "--json"]).unwrap();
        (resolution, serde_json::from_str(&text).unwrap())
    }

    fn repair(&self) -> Result<(Finding, String), ToolError> {
        run("repair", &[self.path().to_str().unwrap(), "--to", self.to().to_str().unwrap()])
    }

    fn dump(&self, flags: &[&str]) -> Result<(Finding, String), ToolError> {
        let path = self.path();
        run("dump", &[&[path.to_str().unwrap()], flags].concat())
    }
}

/// Runs a tool; what it prints.
fn run(tool: &str, args: &[&str]) -> Result<(Finding, String), ToolError> {
    let line = CommandLine::try_parse_from([&["kvlite", tool], args].concat()).unwrap();
    let mut out = Vec::new();
    let resolution = line.tool.run_to(&mut out)?;
    Ok((resolution, String::from_utf8(out).unwrap()))
}

/// What a server would find in a directory, or why it refuses to start. Works on a copy.
fn recovered(path: &Path) -> Result<State, Failure> {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(path, copy.path());
    let data = recovery::open_on(OsDisk::default(), copy.path(), SHARDS, SEGMENT_BYTES)?;
    let mut state = State::new();
    for index in 0..SHARDS as usize {
        let (shard, _log) = data.shard(index).recover()?;
        for (key, record) in state_of(&shard) {
            assert_eq!(slots::owner(&key, SHARDS as usize), index, "every key is in the shard that owns it");
            state.insert(key, record);
        }
    }
    Ok(state)
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

/// Every file below a directory with its bytes.
fn content(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.insert(path.clone(), Vec::new());
            files.extend(content(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

/// All keys that [`Directory::filled`] writes, without those numbers of one shard.
fn filled_state(shard_without: usize, without: &[usize]) -> State {
    let mut state = State::new();
    for shard in 0..SHARDS as usize {
        for number in (0..90).filter(|number| shard != shard_without || !without.contains(number)) {
            state.insert(key(shard, number), (value(number), None));
        }
    }
    state
}

/// The value of a key of a shard, with enough around it to be found in one place.
fn needle(number: usize) -> Vec<u8> {
    value(number)[..12 + number.to_string().len()].to_vec()
}

#[test]
fn a_sound_directory_is_sound_and_stays_as_it_is() {
    let directory = Directory::filled();
    let before = content(&directory.path());
    let (resolution, text) = directory.check();
    assert_eq!(resolution, Finding::Sound, "{text}");
    assert!(text.contains("shard 1: sound\n") && text.contains("is sound\n"), "{text}");
    assert!(text.contains("10 entries") && text.contains("80 changes"), "{text}");
    let (_, json) = directory.check_json();
    assert_eq!((&json["sound"], &json["shards"][1]["log"]["changes"]), (&true.into(), &80.into()));
    assert_eq!(json["total"]["snapshot_entries"], 20);
    assert_eq!((&json["shards"][0]["damage"], &json["manifest_damage"]), (&().into(), &().into()));
    directory.dump(&[]).unwrap();
    let (resolution, text) = directory.repair().unwrap();
    assert_eq!(resolution, Finding::Sound, "{text}");
    assert!(text.contains("kept 180 keys in 2 shards"), "{text}");
    assert_eq!(content(&directory.path()), before, "no tool changes a directory");
    assert_eq!(recovered(&directory.to()).unwrap(), filled_state(0, &[]));
}

#[test]
fn a_directory_without_its_lock_file_is_checked_and_left_alone() {
    let directory = Directory::filled();
    fs::remove_file(directory.path().join("LOCK")).unwrap();
    let before = content(&directory.path());
    assert_eq!(directory.check().0, Finding::Sound);
    assert_eq!(content(&directory.path()), before, "not even a lock file is made");
}

#[test]
fn a_torn_end_is_no_damage() {
    let directory = Directory::filled();
    let data = recovery::open_on(OsDisk::default(), &directory.path(), SHARDS, SEGMENT_BYTES).unwrap();
    let mut writer = Writer::open(&data.shard(1));
    writer.put(&key(1, 90), b"synced");
    writer.log.sync().unwrap();
    writer.put(&key(1, 91), b"not-synced");
    drop((writer, data));
    directory.damage(1, ".log", b"not-synced");
    let (resolution, text) = directory.check();
    assert_eq!(resolution, Finding::Sound, "{text}");
    assert!(text.contains("torn end") && text.contains("a start cuts it off"), "{text}");
    let (resolution, text) = directory.repair().unwrap();
    assert_eq!(resolution, Finding::Sound, "{text}");
    let mut wanted = filled_state(0, &[]);
    wanted.insert(key(1, 90), (b"synced".to_vec(), None));
    assert_eq!(recovered(&directory.to()).unwrap(), wanted);
    assert_eq!(recovered(&directory.path()).unwrap(), wanted, "repair and recovery agree");
}

/// Demands of a damaged directory: recovery refuses it, check tells these texts, repair keeps this state, and
/// nothing of the directory changes.
fn expect(directory: &Directory, texts: &[&str], kept: &State) -> String {
    let before = content(&directory.path());
    assert!(recovered(&directory.path()).is_err(), "a server refuses to start");
    let (resolution, text) = directory.check();
    assert_eq!(resolution, Finding::Damaged, "{text}");
    for part in texts {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let (resolution, json) = directory.check_json();
    assert_eq!((resolution, &json["sound"]), (Finding::Damaged, &false.into()));
    assert!(matches!(directory.dump(&[]), Err(ToolError::Failure(_))), "nothing is dumped of it");
    let (_, text) = directory.repair().unwrap();
    let found = recovered(&directory.to()).unwrap();
    let missing: Vec<_> =
        kept.keys().filter(|key| !found.contains_key(*key)).map(|key| key.escape_ascii()).collect();
    assert!(found == *kept, "{} keys instead of {}, without {missing:?}:\n{text}", found.len(), kept.len());
    assert_eq!(content(&directory.path()), before, "no tool changes a directory");
    let (resolution, _) = run("check", &[directory.to().to_str().unwrap()]).unwrap();
    assert_eq!(resolution, Finding::Sound);
    text
}

#[test]
fn a_flipped_bit_in_a_synced_frame_loses_that_frame() {
    let directory = Directory::filled();
    let (path, _) = directory.damage(1, ".log", &needle(40));
    let json = directory.check_json().1;
    let damage = &json["shards"][1]["damage"];
    assert_eq!(damage["file"], path.to_str().unwrap());
    assert!(damage["offset"].is_u64() && damage["found"].as_str().unwrap().contains("checksum"), "{damage}");
    assert!(damage["expected"].as_str().unwrap().starts_with("frame "), "{damage}");
    let texts = ["shard 0: sound\n", "shard 1: DAMAGED", "kvlite repair", "1 of 2 shards", "lost: frame "];
    let text = expect(&directory, &texts, &filled_state(1, &[40]));
    assert!(text.contains("shard 0: kept 90 keys, lost nothing\nshard 1: kept 89 keys\n"), "{text}");
    assert!(text.contains("of the log, 1 change: ") && text.contains(path.to_str().unwrap()), "{text}");
}

#[test]
fn every_damaged_frame_of_a_shard_is_reported() {
    let directory = Directory::filled();
    directory.damage(1, ".log", &needle(20));
    directory.damage(1, ".log", &needle(70));
    directory.damage(0, ".log", &needle(30));
    let mut kept = filled_state(1, &[20, 70]);
    kept.remove(&key(0, 30));
    let text = expect(&directory, &["2 of 2 shards"], &kept);
    assert_eq!(text.matches("  lost: frame").count(), 3, "{text}");
}

#[test]
fn a_missing_segment_loses_its_frames() {
    let directory = Directory::filled();
    let segments = directory.files(0, ".log");
    assert!(segments.len() > 2);
    let bytes = fs::read(&segments[1]).unwrap();
    let is_in = |number: &usize| bytes.windows(needle(*number).len()).any(|window| window == needle(*number));
    let lost: Vec<usize> = (10..90).filter(is_in).collect();
    assert!(!lost.is_empty() && lost.len() < 80);
    fs::remove_file(&segments[1]).unwrap();
    let text = expect(&directory, &["which begins with frame", "an unknown number"], &filled_state(0, &lost));
    assert!(text.contains("no file in "), "{text}");
}

#[test]
fn a_damaged_snapshot_keeps_its_good_frames() {
    let directory = Directory::filled();
    directory.damage(0, ".snapshot", &needle(5));
    let text = expect(&directory, &["a whole snapshot", "shard 1: sound"], &filled_state(0, &[5]));
    assert!(text.contains("of the snapshot, 1 change:"), "{text}");
}

#[test]
fn a_truncated_snapshot_keeps_what_is_there() {
    let directory = Directory::filled();
    let path = directory.files(0, ".snapshot").remove(0);
    let bytes = fs::read(&path).unwrap();
    // Frames stand in the order of the walk: whole values before the cut are kept.
    let cut = bytes.len() / 2;
    fs::write(&path, &bytes[..cut]).unwrap();
    let is_lost = |number: &usize| {
        let value = value(*number);
        !bytes[..cut].windows(value.len()).any(|window| window == value)
    };
    let lost: Vec<usize> = (0..10).filter(is_lost).collect();
    assert!(!lost.is_empty() && lost.len() < 10);
    let text = expect(&directory, &["found: the end of the file"], &filled_state(0, &lost));
    assert!(text.contains("on, an unknown number of changes"), "{text}");
}

#[test]
fn without_a_manifest_the_files_tell_the_layout() {
    let directory = Directory::filled();
    fs::remove_file(directory.path().join("MANIFEST")).unwrap();
    let text =
        expect(&directory, &["manifest: DAMAGED", "MANIFEST", "shard 1: sound"], &filled_state(0, &[]));
    assert!(text.contains("layout 1, 2 shards"), "{text}");
}

#[test]
fn a_damaged_manifest_is_as_good_as_none() {
    let directory = Directory::filled();
    let path = directory.path().join("MANIFEST");
    let text = fs::read_to_string(&path).unwrap().replace("shards 2", "shards 3");
    fs::write(&path, text).unwrap();
    expect(&directory, &["manifest: DAMAGED", "expected: the checksum "], &filled_state(0, &[]));
}

#[test]
fn an_unfinished_layout_is_not_taken_for_the_one_that_counts() {
    let directory = Directory::filled();
    fs::remove_file(directory.path().join("MANIFEST")).unwrap();
    let unfinished = directory.path().join("layout-2");
    fs::create_dir_all(unfinished.join("shard-0")).unwrap();
    fs::create_dir_all(unfinished.join("shard-1")).unwrap();
    let snapshot = directory.files(0, ".snapshot").remove(0);
    fs::copy(&snapshot, unfinished.join("shard-0/00000000000000000001.snapshot")).unwrap();
    expect(&directory, &["layout 1, 2 shards"], &filled_state(0, &[]));
}

#[test]
fn a_missing_shard_loses_its_keys() {
    let directory = Directory::filled();
    fs::remove_dir_all(directory.path().join("layout-1/shard-1")).unwrap();
    let all: Vec<usize> = (0..90).collect();
    let text = expect(&directory, &["shard 0: sound", "no such directory"], &filled_state(1, &all));
    assert!(text.contains("lost: all of "), "{text}");
}

#[test]
fn a_file_of_another_shard_is_named_and_not_read() {
    let directory = Directory::filled();
    let from = directory.files(0, ".log").pop().unwrap();
    let to = directory.path().join("layout-1/shard-1/00000000000000009999.log");
    fs::copy(&from, &to).unwrap();
    let texts = ["expected: a file of shard 1 of 2", "found: a file of shard 0 of 2", "lost: "];
    let text = expect(&directory, &texts, &filled_state(0, &[]));
    assert!(text.contains("belongs to shard 0 of 2"), "{text}");
}

#[test]
fn the_manifest_of_another_directory_takes_nothing_from_a_repair() {
    let (directory, other) = (Directory::filled(), Directory::filled());
    fs::copy(other.path().join("MANIFEST"), directory.path().join("MANIFEST")).unwrap();
    let text = expect(&directory, &["one of another, with the tag"], &filled_state(0, &[]));
    assert!(text.contains("MANIFEST is of another data directory"), "{text}");
}

#[test]
fn a_file_of_another_shard_whose_header_is_damaged_gives_none_of_its_keys() {
    let directory = Directory::filled();
    let [from, to] = [0, 1].map(|shard| directory.files(shard, ".snapshot").remove(0));
    let mut bytes = fs::read(from).unwrap();
    bytes[12] ^= 1;
    fs::write(&to, bytes).unwrap();
    let (finding, text) = directory.repair().unwrap();
    assert_eq!(finding, Finding::Damaged);
    assert!(text.contains("changes of keys that belong to other shards"), "{text}");
    // Whatever is kept is what it was.
    let (kept, all) = (recovered(&directory.to()).unwrap(), filled_state(0, &[]));
    assert!(kept.len() > 80 && kept.iter().all(|(key, value)| all[key] == *value), "{}", kept.len());
}

#[test]
fn a_newer_version_is_left_to_a_newer_program() {
    let directory = Directory::filled();
    let path = directory.files(1, ".log").pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 7;
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&bytes[..44]);
    bytes[44..48].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let (resolution, text) = directory.check();
    assert_eq!(resolution, Finding::Damaged);
    assert!(text.contains("found: version 7") && text.contains("start a newer kvlite"), "{text}");
    let refused = directory.repair().unwrap_err();
    assert!(matches!(&refused, ToolError::Failure(Failure::Log { .. })), "{refused}");
    assert!(!directory.to().exists(), "nothing was begun");
}

#[test]
fn a_frame_that_holds_something_else_is_damage() {
    let directory = Directory::filled();
    directory.write(|shards| {
        shards[0].log.append(wal::Kind::Batch, 1, b"no change");
        shards[0].put(&key(0, 90), b"behind it");
    });
    let mut kept = filled_state(0, &[]);
    kept.insert(key(0, 90), (b"behind it".to_vec(), None));
    let text = expect(&directory, &["expected: changes in frame", "malformed change"], &kept);
    assert!(text.contains("lost: changes in frame"), "{text}");
}

#[test]
fn behind_lost_frames_no_value_comes_out_that_never_was() {
    let directory = Directory::filled();
    let [stale, whole, gone] = [key(0, 1), key(0, 91), key(0, 92)];
    directory.write(|shards| {
        shards[0].put(&whole, b"abc");
        shards[0].put(&stale, b"needle-in-lost-frame");
        shards[0].splice(&stale, 20, b"-and-its-end");
        shards[0].put(&whole, b"xyz");
        shards[0].splice(&whole, 3, b"123");
        shards[0].splice(&gone, 0, b"never there");
    });
    directory.damage(0, ".log", b"needle-in-lost-frame");
    let mut kept = filled_state(0, &[]);
    kept.insert(whole.clone(), (b"xyz123".to_vec(), None));
    let text = expect(&directory, &[], &kept);
    assert!(text.contains("left out: 2 changes to a part of a value"), "{text}");
    assert!(text.contains("have older values"), "{text}");
}

#[test]
fn transactions_are_kept_or_aborted_as_recovery_does_and_lost_parts_are_said() {
    let directory = Directory::filled();
    let id = |number| transaction_id(number, 0);
    let part = |writer: &mut Writer, number: u64, key: &[u8], value: &[u8]| {
        let put = shard::Change::Put { key, value, deadline_ms: None };
        writer.write(wal::Kind::Transaction { id: id(number), participants: &[0, 1] }, &[put]);
    };
    directory.write(|shards| {
        part(&mut shards[0], 10, &key(0, 91), b"whole-left");
        part(&mut shards[1], 10, &key(1, 91), b"whole-right");
        part(&mut shards[1], 11, &key(1, 92), b"cut-short");
    });
    let (resolution, text) = directory.check();
    assert_eq!(resolution, Finding::Sound);
    assert!(text.contains("1 commands over several shards were cut short"), "{text}");

    directory.damage(0, ".log", b"whole-left");
    let mut kept = filled_state(0, &[]);
    kept.insert(key(1, 91), (b"whole-right".to_vec(), None));
    // Whether the other one was cut short cannot be told any more: the frame that is lost may be its part.
    kept.insert(key(1, 92), (b"cut-short".to_vec(), None));
    let text = expect(&directory, &[], &kept);
    assert!(text.contains("2 commands over several shards are kept in part"), "{text}");
}

#[test]
fn what_builds_on_a_lost_part_is_told_and_left_out_as_a_start_does() {
    let directory = Directory::filled();
    directory.write(|shards| {
        let put = shard::Change::Put { key: &key(1, 91), value: b"part", deadline_ms: None };
        let kind = wal::Kind::Transaction { id: transaction_id(11, 0), participants: &[0, 1] };
        shards[1].write(kind, &[put]);
        shards[1].put(&key(1, 92), b"kept");
        shards[1].put(&key(1, 91), b"builds-on-it");
        shards[1].put(&key(1, 93), b"behind-it");
    });
    let mut kept = filled_state(0, &[]);
    kept.insert(key(1, 92), (b"kept".to_vec(), None));
    let (finding, text) = directory.check();
    assert_eq!(finding, Finding::Sound);
    assert!(text.contains("3 frames build on what another shard lost"), "{text}");
    assert!(text.contains("1 commands over several shards were cut short"), "{text}");
    let json = directory.check_json().1;
    assert_eq!((&json["shards"][0]["lost_ground"], &json["transactions_aborted"]), (&().into(), &1.into()));
    assert_eq!(json["shards"][1]["lost_ground"]["frames"], 3, "the mark of the close is one");
    let (_, dump) = directory.dump(&[]).unwrap();
    assert_eq!(dump.lines().count(), kept.len());
    let (_, log) = directory.dump(&["--log"]).unwrap();
    assert_eq!(log.matches("does not count").count(), 3, "the part, and what is cut");
    let (finding, text) = directory.repair().unwrap();
    assert_eq!(finding, Finding::Sound);
    assert!(text.contains("build on what another shard lost"), "{text}");
    assert_eq!(recovered(&directory.to()).unwrap(), kept);
    assert_eq!(recovered(&directory.path()).unwrap(), kept, "repair and recovery agree");
}

#[test]
fn what_was_cut_and_kept_aside_is_brought_back_by_a_repair() {
    let directory = Directory::filled();
    let other = directory.path().join("layout-1/shard-1");
    let good = directory.temporary.path().join("good");
    let data = recovery::open_on(OsDisk::default(), &directory.path(), SHARDS, SEGMENT_BYTES).unwrap();
    let mut shards = [0, 1].map(|index| Writer::open(&data.shard(index)));
    let without = directory.temporary.path().join("without");
    copy_dir(&other, &without);
    let kind = wal::Kind::Transaction { id: transaction_id(11, 0), participants: &[0, 1] };
    for (shard, writer) in shards.iter_mut().enumerate() {
        writer.write(kind, &[shard::Change::Put { key: &key(shard, 91), value: b"part", deadline_ms: None }]);
    }
    shards[0].splice(&key(0, 91), 4, b"-and-more");
    drop((shards, data));
    // The machine ended, and the newest segment of one shard lacks its last frame, as a power cut can leave it.
    fs::rename(&other, &good).unwrap();
    fs::rename(without, &other).unwrap();
    let started = recovery::open_on(OsDisk::default(), &directory.path(), SHARDS, SEGMENT_BYTES).unwrap();
    drop([0, 1].map(|index| started.shard(index).recover().unwrap()));
    drop(started);
    assert_eq!(recovered(&directory.path()).unwrap(), filled_state(0, &[]));

    // The good files turn up: in a copy, what was kept aside gets its names back.
    fs::remove_dir_all(&other).unwrap();
    fs::rename(&good, &other).unwrap();
    let kept = directory.files(0, ".cut");
    assert!(!kept.is_empty());
    for path in [".log", ".snapshot"].iter().flat_map(|suffix| directory.files(0, suffix)) {
        fs::remove_file(path).unwrap();
    }
    for path in kept {
        fs::rename(&path, path.with_extension("").with_extension("")).unwrap();
    }
    let (_, text) = directory.repair().unwrap();
    let mut all = filled_state(0, &[]);
    all.insert(key(0, 91), (b"part-and-more".to_vec(), None));
    all.insert(key(1, 91), (b"part".to_vec(), None));
    assert!(recovered(&directory.to()).unwrap() == all, "{text}");
}

#[test]
fn what_was_aborted_is_brought_back_by_a_repair_that_is_told_so() {
    let directory = Directory::filled();
    let other = directory.path().join("layout-1/shard-1");
    let [good, without] = ["good", "without"].map(|name| directory.temporary.path().join(name));
    let data = recovery::open_on(OsDisk::default(), &directory.path(), SHARDS, SEGMENT_BYTES).unwrap();
    let mut shards = [0, 1].map(|index| Writer::open(&data.shard(index)));
    copy_dir(&other, &without);
    let kind = wal::Kind::Transaction { id: transaction_id(11, 0), participants: &[0, 1] };
    for (shard, writer) in shards.iter_mut().enumerate() {
        writer.write(kind, &[shard::Change::Put { key: &key(shard, 91), value: b"part", deadline_ms: None }]);
    }
    drop((shards, data));
    // A start without the part of one shard leaves the command out; then the good files turn up.
    fs::rename(&other, &good).unwrap();
    fs::rename(without, &other).unwrap();
    drop(recovery::open_on(OsDisk::default(), &directory.path(), SHARDS, SEGMENT_BYTES).unwrap());
    fs::remove_dir_all(&other).unwrap();
    fs::rename(&good, &other).unwrap();

    let (_, text) = directory.repair().unwrap();
    assert!(text.contains("1 commands over several shards were cut short"), "{text}");
    assert!(recovered(&directory.to()).unwrap() == filled_state(0, &[]), "{text}");
    fs::remove_dir_all(directory.to()).unwrap();
    let (from, to) = (directory.path(), directory.to());
    let args = [from.to_str().unwrap(), "--to", to.to_str().unwrap(), "--with-aborted"];
    let (finding, text) = run("repair", &args).unwrap();
    assert_eq!(finding, Finding::Sound, "{text}");
    let mut all = filled_state(0, &[]);
    (0..2).for_each(|shard| drop(all.insert(key(shard, 91), (b"part".to_vec(), None))));
    assert!(recovered(&to).unwrap() == all, "{text}");
}

#[test]
fn a_dump_is_imported_through_the_text_protocol() {
    let directory = Directory::empty();
    let long = value(7).repeat(12_000);
    let odd: Vec<u8> = (0..=255).collect();
    let texts: [&[u8]; 8] = [
        b"",
        b" ",
        b"plain",
        b"\"quoted\"",
        b"back\\slash",
        odd.as_slice(),
        "größer €\u{85}".as_bytes(),
        &long,
    ];
    directory.write(|shards| {
        for text in texts {
            let name = if text.len() > 1000 { b"long" } else { text };
            let owner = &mut shards[slots::owner(name, SHARDS as usize)];
            owner.put(name, text);
        }
        let timed: [(&[u8], &[u8], u64); 3] =
            [(b"timed", b"soon", FAR_MS), (b"long-timed", &long, FAR_MS), (b"expired", b"gone", 1)];
        for (key, value, deadline) in timed {
            let put = shard::Change::Put { key, value, deadline_ms: Some(deadline) };
            shards[slots::owner(key, SHARDS as usize)].write(wal::Kind::Batch, &[put]);
        }
    });
    let (_, dump) = directory.dump(&[]).unwrap();
    assert!(dump.lines().all(|line| !line.chars().any(char::is_control)), "a dump is readable");
    assert!(dump.contains("SET plain \"plain\"\n") && dump.contains("größer €"), "{}", &dump[..400]);
    let imported = import(&dump);
    let mut wanted = recovered(&directory.path()).unwrap();
    wanted.remove(b"expired".as_slice()).unwrap();
    assert_eq!(imported.len(), wanted.len());
    for (key, (value, deadline_ms)) in &imported {
        let (wanted, wanted_ms) = &wanted[key];
        assert_eq!(value, wanted, "{}", key.escape_ascii());
        // Text has seconds from now on.
        assert_eq!(deadline_ms.is_some(), wanted_ms.is_some(), "{}", key.escape_ascii());
        assert!(deadline_ms.is_none_or(|at| at.abs_diff(FAR_MS) < 60_000), "{deadline_ms:?}");
    }
}

/// Runs the lines of a dump on one shard.
fn import(dump: &str) -> State {
    let mut shard = shard::Shard::new([1, 2, 3, 4]);
    let mut changes = Changes::default();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let mut parser = Parser::new(Listener::Text { resp_port: None });
    let mut rest = dump.as_bytes();
    while !rest.is_empty() {
        let Parsed::Request { consumed, .. } = parser.parse(rest).unwrap() else { panic!("no whole line") };
        let command = parser.command().unwrap();
        let reply = shard.execute(&parser.request(rest, command), now_ms, &mut changes);
        assert!(!matches!(reply, shard::Reply::Error(_)), "{reply:?}");
        rest = &rest[consumed..];
    }
    state_of(&shard)
}

#[test]
fn a_key_that_fits_no_line_is_refused_as_text_and_dumped_as_json() {
    let directory = Directory::empty();
    let key = vec![0; 200_000];
    directory.write(|shards| shards[slots::owner(&key, SHARDS as usize)].put(&key, b"v"));
    assert!(matches!(directory.dump(&[]), Err(ToolError::KeyTooLong { bytes: 200_000 })));
    assert_eq!(directory.dump(&["--json"]).unwrap().0, Finding::Sound);
}

#[test]
fn json_has_one_exact_record_a_line() {
    let directory = Directory::empty();
    directory.write(|shards| {
        let mut put = |key: &[u8], value: &[u8], deadline_ms| {
            let put = shard::Change::Put { key, value, deadline_ms };
            shards[slots::owner(key, SHARDS as usize)].write(wal::Kind::Batch, &[put]);
        };
        put(b"text", "größer".as_bytes(), Some(FAR_MS));
        put(b"\xff\0", b"\xfe", None);
    });
    let (_, dump) = directory.dump(&["--json"]).unwrap();
    let mut lines: Vec<&str> = dump.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            r#"{"key":"text","value":"größer","deadline_ms":4000000000000}"#,
            r#"{"key_base64":"/wA=","value_base64":"/g==","deadline_ms":null}"#,
        ]
    );
}

#[test]
fn keys_are_dumped_and_kept_with_their_databases() {
    let directory = Directory::empty();
    directory.write(|shards| {
        for (index, writer) in shards.iter_mut().enumerate() {
            let key = key(index, 1);
            let mut in_databases = |changes: &[shard::Change<'_>]| writer.write(wal::Kind::Batch, changes);
            let put = |value| shard::Change::Put { key: &key, value, deadline_ms: None };
            in_databases(&[put(b"0"), shard::Change::Keyspace(2), put(b"2")]);
            // As SWAPDB 0 1 makes them.
            let mut swapped = Changes::default();
            let mut swaps = shard::Shard::new([0; 4]);
            let swapdb = shard::command::find(b"SWAPDB").unwrap();
            let spans = [shard::Span { start: 0, len: 1 }, shard::Span { start: 1, len: 1 }];
            swaps.execute(&shard::Request::new(swapdb, b"01", &spans), 0, &mut swapped);
            let swap = shard::decode(swapped.bytes()).next().unwrap().unwrap();
            in_databases(&[swap]);
        }
    });
    let (_, text) = directory.dump(&[]).unwrap();
    let name = |index| String::from_utf8(key(index, 1)).unwrap();
    assert!(text.starts_with(&format!("SELECT 1\nSET {} \"0\"\nSELECT 2\nSET {} \"2\"\n", name(0), name(0))));
    assert_eq!((text.lines().count(), text.matches("SELECT").count()), (8, 4), "{text}");
    let (_, json) = directory.dump(&["--json"]).unwrap();
    let line = format!(r#"{{"database":1,"key":"{}","value":"0","deadline_ms":null}}"#, name(1));
    assert!(json.lines().any(|it| it == line), "{json}");
    let (_, log) = directory.dump(&["--log"]).unwrap();
    assert!(log.contains("\n  databases are keyspaces 1 0\n") && log.contains("\n  keyspace 2\n"), "{log}");
    let (_, log) = directory.dump(&["--log", "--json"]).unwrap();
    assert!(log.contains(r#"{"change":"databases","keyspaces":[1,0]}"#), "{log}");
    assert!(log.contains(r#"{"change":"keyspace","number":2}"#), "{log}");
}

#[test]
fn the_log_is_dumped_frame_by_frame_up_to_the_damage() {
    let directory = Directory::filled();
    let (_, text) = directory.dump(&["--log"]).unwrap();
    assert_eq!(text.matches("\n  put key-").count(), 180);
    assert!(text.contains("shard 1 snapshot frame 1 begun at 1, 0 changes\n"), "{text}");
    let (_, json) = directory.dump(&["--log", "--json"]).unwrap();
    let frames: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(frames.iter().any(|frame| frame["seq"] == 20 && frame["changes"][0]["change"] == "put"));
    directory.damage(0, ".log", &needle(40));
    let (resolution, text) = directory.dump(&["--log"]).unwrap();
    assert_eq!(resolution, Finding::Damaged);
    assert_eq!(text.matches("\n  put key-").count(), 40 + 90, "shard 0 up to the damage, and all of shard 1");
}

#[test]
fn no_frame_is_told_not_to_count_where_a_start_is_refused() {
    let directory = Directory::filled();
    directory.write(|shards| {
        let put = shard::Change::Put { key: &key(0, 91), value: b"part", deadline_ms: None };
        let kind = wal::Kind::Transaction { id: transaction_id(11, 0), participants: &[0, 1] };
        shards[0].write(kind, &[put]);
        shards[0].log.sync().unwrap();
        let seq = shards[0].log.written_seq();
        shards[0].log.settle(seq);
    });
    assert!(matches!(directory.dump(&[]), Err(ToolError::Failure(Failure::Contradiction(_)))));
    let (_, log) = directory.dump(&["--log"]).unwrap();
    assert!(log.contains("\"part\"") && !log.contains("does not count"), "{log}");
}

#[test]
fn what_is_alive_is_told_by_the_newest_clocks_of_all_shards() {
    let directory = Directory::empty();
    directory.write(|shards| {
        // The wall clock has gone back since, so the time goes on from what they showed.
        for (writer, now_ms) in shards.iter_mut().zip([5000, 1000]) {
            let clocks = shard::Clocks { now_ms, wall_ms: 7_000_000_000_000, boot: 0, booted_ms: 0 };
            writer.write(wal::Kind::Batch, &[shard::Change::Clocks(clocks)]);
        }
        for (number, deadline_ms) in [3000, 1_000_000].into_iter().enumerate() {
            let (key, deadline_ms) = (key(1, number), Some(deadline_ms));
            let put = shard::Change::Put { key: &key, value: b"value", deadline_ms };
            shards[1].write(wal::Kind::Batch, &[put]);
        }
    });
    let (_, dump) = directory.dump(&[]).unwrap();
    assert_eq!(dump, format!("SETEX {} 995 \"value\"\n", key(1, 1).escape_ascii()));
}

/// The files that guard the format, down to the changes in the frames.
#[test]
fn files_of_version_1_are_read_down_to_their_changes() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("wal/tests/golden/version-1");
    let (finding, dump) = run("dump", &[golden.to_str().unwrap(), "--log"]).unwrap();
    assert_eq!(finding, Finding::Sound);
    let expected = "\
shard 0 snapshot frame 1 begun at 6143, 0 changes
shard 0 snapshot frame 2 batch, 2 changes
  put a \"1\"
  put b \"\\xff\\n\" deadline_ms 4002766905344
shard 0 log frame 4 transaction 7169 of [0, 1], 1 change
  splice a 1 \"23\"
shard 0 log frame 5 batch, 2 changes
  put b \"\\xff\\n\" deadline_ms 4002766905344
  remove c
shard 0 log frame 6 batch, 1 change
  clear
shard 1 log frame 1 transaction 7169 of [0, 1], 1 change
  put b \"\\xff\\n\" deadline_ms 4002766905344
shard 1 log frame 2 batch, 1 change
  remove c
";
    assert_eq!(dump, expected);
}

#[test]
fn a_directory_in_use_is_refused() {
    let directory = Directory::filled();
    let in_use = recovery::open_on(OsDisk::default(), &directory.path(), SHARDS, SEGMENT_BYTES).unwrap();
    let path = directory.path();
    let (path, to) = (path.to_str().unwrap(), directory.to());
    for (tool, args) in [
        ("check", vec![path]),
        ("dump", vec![path]),
        ("dump", vec![path, "--log"]),
        ("repair", vec![path, "--to", to.to_str().unwrap()]),
    ] {
        let error = run(tool, &args).unwrap_err();
        assert!(matches!(error, ToolError::Running { .. }), "{tool}: {error}");
        assert!(error.to_string().contains("a server is running on"), "{error}");
    }
    drop(in_use);
    assert_eq!(directory.check().0, Finding::Sound);
}

#[test]
fn repair_writes_only_where_nothing_is() {
    let directory = Directory::filled();
    fs::create_dir(directory.to()).unwrap();
    assert_eq!(directory.repair().unwrap().0, Finding::Sound, "an empty directory will do");
    assert!(matches!(directory.repair(), Err(ToolError::TargetNotEmpty { .. })));
    let path = directory.path();
    let before = content(&path);
    let inside = path.join("layout-1/../deep/new");
    let refused = run("repair", &[path.to_str().unwrap(), "--to", inside.to_str().unwrap()]);
    assert!(matches!(refused, Err(ToolError::TargetInside { .. })), "{refused:?}");
    assert_eq!(content(&path), before);
}

#[test]
fn what_a_repair_that_was_cut_short_left_is_refused_by_all() {
    let directory = Directory::filled();
    let to = directory.to();
    // As if it had been killed just before its end.
    drop(DataDir::begin(OsDisk::default(), &to, LOCK_WAIT).unwrap().create_layout(SHARDS, 7).unwrap());
    let started = recovery::open_on(OsDisk::default(), &to, SHARDS, SEGMENT_BYTES);
    let text = started.err().unwrap().to_string();
    assert!(text.contains("/UNFINISHED: expected a data directory that was completed"), "{text}");
    assert!(text.contains("remove the directory, and repeat the repair or the backup"), "{text}");
    let (resolution, text) = run("check", &[to.to_str().unwrap()]).unwrap();
    assert!(resolution == Finding::Damaged && text.contains("UNFINISHED"), "{text}");
    let error = run("repair", &[to.to_str().unwrap(), "--to", "elsewhere"]).unwrap_err();
    assert!(error.to_string().contains("/UNFINISHED: expected"), "{error}");
    let error = directory.repair().unwrap_err();
    assert!(error.to_string().contains("is incomplete: a repair is filling it, or was cut short"), "{error}");
    fs::remove_dir_all(&to).unwrap();
    assert_eq!(directory.repair().unwrap().0, Finding::Sound);
    assert_eq!(recovered(&to).unwrap(), filled_state(0, &[]));
}

#[test]
fn what_is_no_data_directory_is_said_to_be_none() {
    let directory = Directory::empty();
    let missing = run("check", &[directory.path().to_str().unwrap()]).unwrap_err();
    assert!(missing.to_string().contains("cannot list"), "{missing}");
    assert!(!directory.path().exists(), "looking creates nothing");
    fs::create_dir(directory.path()).unwrap();
    let check = run("check", &[directory.path().to_str().unwrap()]);
    assert!(matches!(check, Err(ToolError::NoData { .. })));
    assert!(matches!(directory.dump(&[]), Err(ToolError::NoData { .. })));
    assert!(matches!(directory.repair(), Err(ToolError::NoData { .. })));
}
