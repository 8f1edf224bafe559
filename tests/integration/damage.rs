//! Every kind of damage to a data directory that a real server has written: what a start says of it, what
//! `kvlite check` says, and what `kvlite repair` brings back.
//!
//! A key is written once, in a frame of its own: what a damage may take is known key by key.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::process::{Ended, Server, command, free_ports, run_to_end, within_deadline};

const SHARDS: usize = 2;
const SEGMENT_BYTES: &str = "65536";
/// Keys that the snapshots hold, and keys that the logs hold.
const KEYS: Range<usize> = 0..700;
const KEYS_IN_SNAPSHOTS: usize = 300;
/// A key that is written just before the server is killed.
const LAST_KEY: usize = 999;

const FILE_HEADER_BYTES: usize = 48;
const FRAME_HEADER_BYTES: usize = 40;
const VERSION_AT: usize = 8;
const TAG_AT: usize = 16;

/// What a start says of a damage.
enum Start {
    /// It serves, and cuts the torn end here.
    Cuts { file: PathBuf, offset: usize, bytes: usize },
    /// It serves as if nothing was.
    Serves,
    /// It serves, and writes this file again.
    Heals { file: PathBuf },
    /// It ends with this.
    Refuses {
        file: PathBuf,
        offset: Option<usize>,
        expected: String,
        found: &'static str,
        remedy: &'static str,
    },
}

/// What has to become of a damaged directory.
struct Outcome {
    start: Start,
    /// The keys that a start or a repair cannot bring back.
    lost: BTreeSet<usize>,
    /// Whether there is a repair.
    repairable: bool,
}

struct Case {
    name: &'static str,
    damage: fn(&Directory) -> Outcome,
}

const CASES: &[Case] = &[
    Case { name: "no damage", damage: |_| Outcome::harmless(Start::Serves) },
    Case { name: "stale frames behind the end, as in a recycled segment", damage: stale_frames },
    Case { name: "a torn end", damage: torn_end },
    Case { name: "an end of zeros", damage: zeroed_end },
    Case {
        name: "a bit of a value in the log",
        damage: |directory| flip(directory, FRAME_HEADER_BYTES + 30, "the checksum"),
    },
    Case { name: "a bit of a frame's length", damage: |directory| flip(directory, 6, "the end of the file") },
    Case { name: "a bit of a frame's number", damage: |directory| flip(directory, 9, "frame ") },
    Case {
        name: "a bit of a frame's generation",
        damage: |directory| flip(directory, 16, "a frame of generation "),
    },
    Case { name: "a frame of zeros", damage: zeroed_frame },
    Case { name: "a bit of a segment's header", damage: segment_header },
    Case { name: "a bit of a segment's version", damage: segment_version },
    Case { name: "a segment cut short", damage: cut_segment },
    Case { name: "a missing segment", damage: missing_segment },
    Case { name: "a missing newest segment", damage: missing_newest_segment },
    Case { name: "a newest segment cut after the last frame that was noted", damage: cut_newest_segment },
    Case { name: "a bit of a frame before a good one, never synced", damage: flip_before_a_good_one },
    Case { name: "a segment twice", damage: segment_twice },
    Case { name: "a segment over another", damage: segment_over_another },
    Case { name: "a segment of another shard", damage: segment_of_another_shard },
    Case { name: "a segment of another server", damage: segment_of_another_server },
    Case { name: "a bit of a snapshot", damage: snapshot_frame },
    Case { name: "a bit of a snapshot's last frame", damage: snapshot_last_frame },
    Case { name: "a bit of a snapshot's trailer", damage: snapshot_trailer },
    Case { name: "a snapshot cut short", damage: cut_snapshot },
    Case { name: "a missing snapshot", damage: missing_snapshot },
    Case { name: "a snapshot twice", damage: snapshot_twice },
    Case { name: "a missing manifest", damage: missing_manifest },
    Case { name: "a bit of the manifest", damage: manifest },
    Case { name: "a missing directory of a shard", damage: missing_shard },
    Case { name: "an emptied directory of a shard", damage: emptied_shard },
    Case { name: "one file synced missing", damage: missing_synced },
    Case { name: "a bit of one file synced", damage: synced_bit },
    Case { name: "both files synced missing", damage: missing_both_synced },
    Case { name: "a newer segment", damage: |directory| newer(directory, ".log") },
    Case { name: "a newer snapshot", damage: |directory| newer(directory, ".snapshot") },
    Case { name: "a newer manifest", damage: newer_manifest },
];

#[test]
fn every_damage_is_told_and_what_is_readable_comes_back() {
    let written = Directory::written();
    let fails = |case: &&Case| {
        println!("\n{}", case.name);
        let judge = || {
            let directory = written.copy();
            let outcome = (case.damage)(&directory);
            expect_check(&directory, &outcome);
            expect_repair(&directory, &outcome);
            expect_start(&directory, &outcome);
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(judge)).is_err()
    };
    let failed: Vec<_> = CASES.iter().filter(fails).map(|case| case.name).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// A new layout begins with snapshots behind which its logs look whole.
#[test]
fn a_missing_snapshot_is_missed_after_a_move_and_after_a_repair() {
    let directory = Directory::written();
    let path = directory.path();
    let mut server = directory.server(&[]);
    server.restart(3);
    assert!(server.terminate().success());
    server.restart(SHARDS);
    assert!(server.terminate().success());
    let repaired = directory.root.path().join("repaired");
    let ended = run(&["repair", path.to_str().unwrap(), "--to", repaired.to_str().unwrap()]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    for (path, layout) in [(path, "layout-3"), (repaired, "layout-1")] {
        let moved = Directory { root: TempDir::with_prefix("kvlite-test-").unwrap() };
        copy_all(&path, &moved.path());
        drop(moved.expect_served(&BTreeSet::new()));
        let shard = moved.path().join(layout).join("shard-0");
        let snapshot = shard.join("00000000000000000001.snapshot");
        fs::rename(&snapshot, moved.root.path().join("aside")).unwrap();
        let (check, start) = (run(&["check", moved.path().to_str().unwrap()]), moved.start_in_vain());
        for (ended, damaged) in [(&check, "DAMAGED"), (&start, "expected the snapshot ")] {
            assert_eq!(ended.status.code(), Some(1), "{ended:?}");
            assert!(ended.output.contains(damaged), "{ended:?}");
            assert!(ended.output.contains(shard.to_str().unwrap()), "{ended:?}");
        }
        let again = moved.root.path().join("again");
        let repair = run(&["repair", moved.path().to_str().unwrap(), "--to", again.to_str().unwrap()]);
        assert_eq!(repair.status.code(), Some(1), "{repair:?}");
        assert!(repair.output.contains("  lost: all that was set before frame 1 "), "{repair:?}");
        fs::rename(moved.root.path().join("aside"), snapshot).unwrap();
        drop(moved.expect_served(&BTreeSet::new()));
    }
}

/// One damaged file does not take away what other shards have.
#[test]
fn a_shard_that_lacks_its_part_of_commands_over_shards_is_refused_and_the_others_stay() {
    let directory = Directory::written();
    let mut server = directory.server(&["--sync-mode", "no"]);
    server.restart(SHARDS);
    let mut text = server.text();
    let pair = |number: usize| (format!("pair-{number}"), format!("riap-{}", number * 31));
    for number in 0..200 {
        let (one, other) = pair(number);
        assert_eq!(text.ask_one(&format!("MSET {one} {number} {other} {number}")), "+OK");
        assert_eq!(text.ask_one(&format!("APPEND {one} x")), (number.to_string().len() + 1).to_string());
    }
    drop(text);
    server.kill9();
    let newest = directory.files(1, ".log").pop().unwrap();
    let whole = fs::read(&newest).unwrap();
    let frame = frames(&newest).remove(3);
    fs::File::options().write(true).open(&newest).unwrap().set_len(frame.offset as u64).unwrap();
    let before = content(&directory.path());
    let check = run(&["check", directory.path().to_str().unwrap()]);
    for (ended, said) in [(check, "DAMAGED: 1 of 2 shards"), (directory.start_in_vain(), "shard 1: ")] {
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.output.contains(said), "{ended:?}");
    }
    assert_eq!(content(&directory.path()), before, "a start that is refused changes nothing");
    fs::write(&newest, whole).unwrap();
    server.restart(SHARDS);
    let mut text = server.text();
    for number in 0..200 {
        let (one, other) = pair(number);
        assert_eq!(text.ask_one(&format!("GET {one}")), format!("{number}x"));
        assert_eq!(text.ask_one(&format!("GET {other}")), number.to_string());
    }
}

// ---- damages ----

/// What a segment has behind its end after it was recycled: frames of its earlier life.
fn stale_frames(directory: &Directory) -> Outcome {
    let segments = directory.files(0, ".log");
    let (old, newest) = (fs::read(&segments[0]).unwrap(), &segments[segments.len() - 1]);
    let (stale, last) = (&frames(&segments[0])[..3], frames(newest).pop().unwrap());
    overwrite(newest, last.end, &old[stale[0].offset..stale[2].end]);
    Outcome::harmless(Start::Serves)
}

/// A server that died with its machine has left a frame of which nothing says that it was synced.
fn last_frame(directory: &Directory) -> Frame {
    let mut server =
        directory.server(&["--sync-mode", "no", "--boot-id", "00000000000000000000000000000001"]);
    server.restart(SHARDS);
    assert_eq!(server.text().ask_one(&set(LAST_KEY)), "+OK");
    server.kill9();
    directory.frame_of(LAST_KEY, ".log")
}

/// What was written down of a log, be it synced or not, is demanded.
fn cut_newest_segment(directory: &Directory) -> Outcome {
    let mut server = directory.server(&["--sync-mode", "no"]);
    server.restart(SHARDS);
    assert_eq!(server.text().ask_one(&set(LAST_KEY)), "+OK");
    let frame = directory.frame_of(LAST_KEY, ".log");
    let synced = frame.path.with_file_name("synced");
    let written_seq = || u64::from_le_bytes(*fs::read(&synced).unwrap()[56..].first_chunk().unwrap());
    assert!(
        within_deadline(|| written_seq() >= frame.seq),
        "it is never noted that frame {} is there",
        frame.seq
    );
    server.kill9();
    fs::File::options().write(true).open(&frame.path).unwrap().set_len(frame.offset as u64).unwrap();
    Outcome::of_frame(Frame { keys: BTreeSet::new(), ..frame }, "the end of the file")
}

/// A process that was killed has lost nothing that it has written, synced or not.
fn flip_before_a_good_one(directory: &Directory) -> Outcome {
    let mut server = directory.server(&["--sync-mode", "no"]);
    server.restart(SHARDS);
    let mut text = server.text();
    assert_eq!(text.ask_one(&set(LAST_KEY)), "+OK");
    assert_eq!(text.ask_one(&format!("DEL {}", name(LAST_KEY))), "+OK");
    drop(text);
    server.kill9();
    let frame = directory.frame_of(LAST_KEY, ".log");
    flip_at(&frame.path, frame.offset + FRAME_HEADER_BYTES + 30);
    Outcome::of_frame(Frame { keys: BTreeSet::new(), ..frame }, "the checksum")
}

fn torn_end(directory: &Directory) -> Outcome {
    let frame = last_frame(directory);
    fs::File::options().write(true).open(&frame.path).unwrap().set_len(frame.offset as u64 + 100).unwrap();
    Outcome::harmless(Start::Cuts { file: frame.path, offset: frame.offset, bytes: 100 })
}

fn zeroed_end(directory: &Directory) -> Outcome {
    let frame = last_frame(directory);
    overwrite(&frame.path, frame.offset + 100, &vec![0; frame.end - frame.offset - 100]);
    Outcome::harmless(Start::Cuts { file: frame.path, offset: frame.offset, bytes: 100 })
}

/// A key in the middle of the log.
const A_KEY: usize = KEYS_IN_SNAPSHOTS + 150;

/// Flips a bit of the frame of a key.
fn flip(directory: &Directory, at: usize, found: &'static str) -> Outcome {
    let frame = directory.frame_of(A_KEY, ".log");
    flip_at(&frame.path, frame.offset + at);
    Outcome::of_frame(frame, found)
}

fn zeroed_frame(directory: &Directory) -> Outcome {
    let frame = directory.frame_of(A_KEY, ".log");
    overwrite(&frame.path, frame.offset, &vec![0; frame.end - frame.offset]);
    Outcome::of_frame(frame, "zeros")
}

/// A segment in the middle of its log, with frames in it.
fn a_segment(directory: &Directory) -> (usize, PathBuf, Vec<Frame>) {
    let shard = directory.shard_of(A_KEY);
    let segments = directory.files(shard, ".log");
    assert!(segments.len() > 3, "the log has several segments: {segments:?}");
    let frames = frames(&segments[1]);
    assert!(!frames.is_empty());
    (shard, segments[1].clone(), frames)
}

fn keys_of(frames: &[Frame]) -> BTreeSet<usize> {
    frames.iter().flat_map(|frame| frame.keys.iter().copied()).collect()
}

/// The frames know their generation: none is lost with the file's header.
fn segment_header(directory: &Directory) -> Outcome {
    let (_, file, frames) = a_segment(directory);
    flip_at(&file, 30);
    let expected = format!("frame {} of the log", frames[0].seq);
    Outcome::refused(Some((file, 0)), &expected, "an unreadable file header", BTreeSet::new())
}

fn segment_version(directory: &Directory) -> Outcome {
    let (_, file, frames) = a_segment(directory);
    flip_at(&file, VERSION_AT);
    let expected = format!("frame {} of the log", frames[0].seq);
    Outcome::refused(Some((file, 0)), &expected, "an unreadable file header", BTreeSet::new())
}

fn cut_segment(directory: &Directory) -> Outcome {
    let (_, file, mut frames) = a_segment(directory);
    let lost = frames.split_off(frames.len() / 2);
    fs::File::options().write(true).open(&file).unwrap().set_len(lost[0].offset as u64 + 60).unwrap();
    let expected = format!("frame {} of the log", lost[0].seq);
    Outcome::refused(Some((file, lost[0].offset)), &expected, "the end of the file", keys_of(&lost))
}

fn missing_segment(directory: &Directory) -> Outcome {
    let (shard, file, frames) = a_segment(directory);
    fs::remove_file(&file).unwrap();
    Outcome::lacks(directory, shard, frames[0].seq, &frames)
}

/// Nothing comes after it, but the file `synced` says that it was there.
fn missing_newest_segment(directory: &Directory) -> Outcome {
    let shard = directory.shard_of(A_KEY);
    let newest = directory.files(shard, ".log").pop().unwrap();
    let frames = frames(&newest);
    fs::remove_file(newest).unwrap();
    let outcome = Outcome::lacks(directory, shard, frames[0].seq, &frames);
    outcome.and_finds("the end of the log")
}

/// A copy has the generation of the original in it, and not that of its name: it has no place in the log.
fn segment_twice(directory: &Directory) -> Outcome {
    let (_, file, _) = a_segment(directory);
    fs::copy(&file, file.with_file_name("00000000000000009999.log")).unwrap();
    Outcome::harmless(Start::Serves)
}

fn segment_over_another(directory: &Directory) -> Outcome {
    let (shard, file, frames) = a_segment(directory);
    fs::copy(&directory.files(shard, ".log")[2], &file).unwrap();
    Outcome::lacks(directory, shard, frames[0].seq, &frames)
}

fn segment_of_another_shard(directory: &Directory) -> Outcome {
    let (shard, file, _) = a_segment(directory);
    let other = directory.files(1 - shard, ".log").remove(1);
    let moved = file.with_file_name("00000000000000009999.log");
    fs::copy(other, &moved).unwrap();
    let (expected, found) = match shard {
        0 => ("a file of shard 0 of 2", "a file of shard 1 of 2"),
        _ => ("a file of shard 1 of 2", "a file of shard 0 of 2"),
    };
    let start = Start::Refuses {
        file: moved,
        offset: None,
        expected: expected.to_owned(),
        found,
        remedy: "move it to the directory of its shard",
    };
    Outcome { start, lost: BTreeSet::new(), repairable: true }
}

/// As it would be, had another server written it.
fn segment_of_another_server(directory: &Directory) -> Outcome {
    let (_, file, frames) = a_segment(directory);
    let mut bytes = fs::read(&file).unwrap();
    let tag = u32::from_le_bytes(*bytes[TAG_AT..].first_chunk().unwrap());
    bytes[TAG_AT..TAG_AT + 4].copy_from_slice(&(!tag).to_le_bytes());
    put_header_crc(&mut bytes);
    fs::write(&file, bytes).unwrap();
    let expected = format!("a file of this data directory, with the tag {tag:08x}");
    let found = "one of another, with the tag ";
    let remedy = "kvlite repair ";
    let start = Start::Refuses { file, offset: None, expected, found, remedy };
    Outcome { start, lost: keys_of(&frames), repairable: true }
}

fn put_header_crc(bytes: &mut [u8]) {
    let crc = crc32(&bytes[..FILE_HEADER_BYTES - 4]);
    bytes[FILE_HEADER_BYTES - 4..FILE_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// The snapshot of the first shard and a frame in its middle.
fn a_snapshot(directory: &Directory) -> (PathBuf, Vec<Frame>) {
    let file = directory.files(0, ".snapshot").remove(0);
    let frames = frames(&file);
    assert!(frames.len() > 3, "a snapshot has several frames");
    (file, frames)
}

fn snapshot_frame(directory: &Directory) -> Outcome {
    let (file, frames) = a_snapshot(directory);
    let frame = &frames[1];
    assert!(!frame.keys.is_empty());
    flip_at(&file, frame.offset + FRAME_HEADER_BYTES + 100);
    Outcome::of_snapshot(file, frame.offset, "the checksum", frame.keys.clone())
}

/// The scan comes to the trailer with this frame still missing.
fn snapshot_last_frame(directory: &Directory) -> Outcome {
    let (file, frames) = a_snapshot(directory);
    let frame = &frames[frames.len() - 2];
    assert!(!frame.keys.is_empty());
    flip_at(&file, frame.offset + FRAME_HEADER_BYTES + 100);
    Outcome::of_snapshot(file, frame.offset, "the checksum", frame.keys.clone())
}

fn snapshot_trailer(directory: &Directory) -> Outcome {
    let (file, frames) = a_snapshot(directory);
    let trailer = &frames[frames.len() - 1];
    flip_at(&file, trailer.offset + FRAME_HEADER_BYTES);
    Outcome::of_snapshot(file, trailer.offset, "the checksum", BTreeSet::new())
}

fn cut_snapshot(directory: &Directory) -> Outcome {
    let (file, mut frames) = a_snapshot(directory);
    let lost = frames.split_off(2);
    fs::File::options().write(true).open(&file).unwrap().set_len(lost[0].offset as u64 + 60).unwrap();
    Outcome::of_snapshot(file, lost[0].offset, "the end of the file", keys_of(&lost))
}

fn missing_snapshot(directory: &Directory) -> Outcome {
    let (file, frames) = a_snapshot(directory);
    fs::remove_file(&file).unwrap();
    Outcome::lacks_snapshot(directory, 0, &file, keys_of(&frames))
}

/// The newest snapshot counts, and this one does not fit its name. The older one is whole.
fn snapshot_twice(directory: &Directory) -> Outcome {
    let (file, _) = a_snapshot(directory);
    let copy = file.with_file_name("00000000000000009999.snapshot");
    fs::copy(&file, &copy).unwrap();
    Outcome::of_snapshot(copy, 0, "an unreadable file header", BTreeSet::new())
}

fn missing_manifest(directory: &Directory) -> Outcome {
    let file = directory.path().join("MANIFEST");
    fs::remove_file(&file).unwrap();
    Outcome::of_manifest(file, "a manifest, since ", "no such file")
}

fn manifest(directory: &Directory) -> Outcome {
    let file = directory.path().join("MANIFEST");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("shards 2", "shards 3")).unwrap();
    Outcome::of_manifest(file, "the checksum ", "")
}

fn missing_shard(directory: &Directory) -> Outcome {
    let shard = directory.path().join("layout-1/shard-1");
    let lost = KEYS.filter(|key| directory.shard_of(*key) == 1).collect();
    fs::remove_dir_all(&shard).unwrap();
    let mut outcome =
        Outcome::of_manifest(shard, "a directory, since the manifest names it", "no such directory");
    outcome.lost = lost;
    outcome
}

fn emptied_shard(directory: &Directory) -> Outcome {
    let snapshot = directory.files(1, ".snapshot").remove(0);
    let lost = KEYS.filter(|key| directory.shard_of(*key) == 1).collect();
    for file in directory.files(1, "") {
        fs::remove_file(file).unwrap();
    }
    Outcome::lacks_snapshot(directory, 1, &snapshot, lost)
}

fn missing_synced(directory: &Directory) -> Outcome {
    let file = directory.shard(1).join("synced");
    fs::remove_file(&file).unwrap();
    Outcome::harmless(Start::Heals { file })
}

fn synced_bit(directory: &Directory) -> Outcome {
    let file = directory.shard(0).join("synced");
    flip_at(&file, 60);
    Outcome::harmless(Start::Heals { file })
}

fn missing_both_synced(directory: &Directory) -> Outcome {
    let file = directory.shard(1).join("synced");
    fs::remove_file(&file).unwrap();
    fs::remove_file(directory.path().join("layout-1.synced")).unwrap();
    Outcome::of_manifest(file, "what is known of the log, here or in ", "neither is whole")
}

fn newer(directory: &Directory, suffix: &str) -> Outcome {
    let file = directory.files(1, suffix).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[VERSION_AT] += 1;
    put_header_crc(&mut bytes);
    fs::write(&file, bytes).unwrap();
    Outcome::of_newer(file, 2)
}

fn newer_manifest(directory: &Directory) -> Outcome {
    let file = directory.path().join("MANIFEST");
    let text = "kvlite manifest 4\nand what else it says\n";
    fs::write(&file, format!("{text}crc32 {:08x}\n", crc32(text.as_bytes()))).unwrap();
    Outcome::of_newer(file, 3)
}

// ---- outcomes ----

impl Outcome {
    fn harmless(start: Start) -> Outcome {
        Outcome { start, lost: BTreeSet::new(), repairable: true }
    }

    /// A refusal at a place in a file.
    fn refused(
        at: Option<(PathBuf, usize)>,
        expected: &str,
        found: &'static str,
        lost: BTreeSet<usize>,
    ) -> Outcome {
        let (file, offset) = at.unzip();
        let (file, expected) = (file.unwrap_or_default(), expected.to_owned());
        let start = Start::Refuses { file, offset, expected, found, remedy: "kvlite repair " };
        Outcome { start, lost, repairable: true }
    }

    /// The same with another finding.
    fn and_finds(mut self, other: &'static str) -> Outcome {
        let Start::Refuses { found, .. } = &mut self.start else { unreachable!("nothing is found") };
        *found = other;
        self
    }

    fn of_frame(frame: Frame, found: &'static str) -> Outcome {
        let expected = format!("frame {} of the log", frame.seq);
        Outcome::refused(Some((frame.path, frame.offset)), &expected, found, frame.keys)
    }

    fn of_snapshot(file: PathBuf, offset: usize, found: &'static str, lost: BTreeSet<usize>) -> Outcome {
        Outcome::refused(Some((file, offset)), "the next frame of a whole snapshot", found, lost)
    }

    /// A shard that lacks these frames as a whole.
    fn lacks(directory: &Directory, shard: usize, seq: u64, frames: &[Frame]) -> Outcome {
        let expected = format!("a segment with frame {seq} of the log");
        let start = Start::Refuses {
            file: directory.shard(shard),
            offset: None,
            expected,
            found: ".log, which begins with frame ",
            remedy: "kvlite repair ",
        };
        Outcome { start, lost: keys_of(frames), repairable: true }
    }

    fn lacks_snapshot(directory: &Directory, shard: usize, file: &Path, lost: BTreeSet<usize>) -> Outcome {
        let expected = format!("the snapshot {} or a later one", file.file_name().unwrap().display());
        let start = Start::Refuses {
            file: directory.shard(shard),
            offset: None,
            expected,
            found: "no snapshot",
            remedy: "kvlite repair ",
        };
        Outcome { start, lost, repairable: true }
    }

    fn of_manifest(file: PathBuf, expected: &str, found: &'static str) -> Outcome {
        let expected = expected.to_owned();
        let start = Start::Refuses { file, offset: None, expected, found, remedy: "kvlite repair " };
        Outcome { start, lost: BTreeSet::new(), repairable: true }
    }

    fn of_newer(file: PathBuf, supported: u32) -> Outcome {
        let expected = format!("format version {supported} or lower");
        let (found, remedy) =
            (if supported == 2 { "version 3" } else { "version 4" }, "start a newer kvlite");
        let start = Start::Refuses { file, offset: None, expected, found, remedy };
        Outcome { start, lost: BTreeSet::new(), repairable: false }
    }
}

fn expect_start(directory: &Directory, outcome: &Outcome) {
    let before = content(&directory.path());
    match &outcome.start {
        Start::Refuses { file, offset, expected, found, remedy } => {
            let ended = directory.start_in_vain();
            assert_eq!(ended.status.code(), Some(1), "{ended:?}");
            let place = offset.map_or(String::new(), |offset| format!(" at byte {offset}"));
            let start = format!("{}{place}: expected {expected}", file.display());
            let more = format!("`kvlite check {}` tells more", directory.path().display());
            for part in [start.as_str(), ", found ", found, remedy, &more] {
                assert!(ended.output.contains(part), "the start does not say {part:?}:\n{}", ended.output);
            }
            assert_eq!(content(&directory.path()), before, "a start that is refused changes nothing");
        }
        Start::Serves => {
            let server = directory.expect_served(&outcome.lost);
            assert!(!server.log.text().contains("WARN"), "{}", server.log.text());
        }
        Start::Heals { file } => {
            let server = directory.expect_served(&outcome.lost);
            let text = server.log.text();
            let warnings: Vec<&str> = text.lines().filter(|line| line.contains("WARN")).collect();
            let [warning] = warnings[..] else { panic!("one warning: {text}") };
            assert!(warning.contains(&format!("{}", file.display())), "{warning}");
            let server = directory.expect_served(&outcome.lost);
            assert!(!server.log.text().contains("WARN"), "it is written once: {}", server.log.text());
        }
        Start::Cuts { file, offset, bytes } => {
            let server = directory.expect_served(&outcome.lost);
            let text = server.log.text();
            let warnings: Vec<&str> = text.lines().filter(|line| line.contains("WARN")).collect();
            let [warning] = warnings[..] else { panic!("one warning: {text}") };
            for part in [format!("{}", file.display()), format!("offset={offset} "), format!("bytes={bytes}")]
            {
                assert!(warning.contains(&part), "the warning does not say {part:?}: {warning}");
            }
            drop(server);
            let server = directory.expect_served(&outcome.lost);
            assert!(!server.log.text().contains("WARN"), "it is cut once: {}", server.log.text());
        }
    }
}

fn expect_check(directory: &Directory, outcome: &Outcome) {
    let before = content(&directory.path());
    let path = directory.path();
    let text = run(&["check", path.to_str().unwrap()]);
    let json = run(&["check", path.to_str().unwrap(), "--json"]);
    assert_eq!(text.status, json.status);
    let report: serde_json::Value = serde_json::from_str(&json.output).expect(&json.output);
    let of_shards = report["shards"].as_array().unwrap().iter();
    match &outcome.start {
        Start::Refuses { file, offset, expected, found, remedy } => {
            assert_eq!((text.status.code(), &report["sound"]), (Some(1), &false.into()), "{text:?}");
            let damages = of_shards.map(|shard| &shard["damage"]).chain([&report["manifest_damage"]]);
            let damages: Vec<_> = damages.filter(|damage| !damage.is_null()).collect();
            let [damage] = damages[..] else { panic!("one damage: {damages:?}") };
            assert_eq!(damage["file"], file.to_str().unwrap());
            assert_eq!(damage["offset"], serde_json::json!(offset));
            let (file, said) = (file.to_str().unwrap(), |field: &str| damage[field].as_str().unwrap());
            assert!(said("expected").starts_with(expected), "{damage}");
            assert!(said("found").contains(found), "{damage}");
            assert!(said("what_to_do").contains(remedy), "{damage}");
            for part in [file, said("expected"), said("found"), said("what_to_do"), " is DAMAGED"] {
                assert!(text.output.contains(part), "the text does not say {part:?}:\n{}", text.output);
            }
        }
        start => {
            assert_eq!((text.status.code(), &report["sound"]), (Some(0), &true.into()), "{text:?}");
            let torn: Vec<_> =
                of_shards.map(|shard| &shard["torn_end"]).filter(|end| !end.is_null()).collect();
            if let Start::Cuts { file, offset, bytes } = start {
                let end = serde_json::json!({ "file": file, "offset": offset, "bytes": bytes, "frames": 0 });
                assert_eq!(torn, [&end]);
                assert!(text.output.contains("torn end"), "{}", text.output);
            } else {
                assert!(torn.is_empty() && text.output.ends_with(" is sound\n"), "{torn:?}");
            }
        }
    }
    assert_eq!(content(&path), before, "a check changes nothing");
}

fn expect_repair(directory: &Directory, outcome: &Outcome) {
    let before = content(&directory.path());
    let (path, new) = (directory.path(), directory.root.path().join("new"));
    let ended = run(&["repair", path.to_str().unwrap(), "--to", new.to_str().unwrap()]);
    assert_eq!(content(&path), before, "a repair changes nothing");
    if !outcome.repairable {
        assert_eq!(ended.status.code(), Some(3), "{ended:?}");
        assert!(ended.output.contains("start a newer kvlite") && !new.exists(), "{ended:?}");
        return;
    }
    let says_lost = ended.output.contains("  lost: ");
    assert_eq!(ended.status.code(), Some(i32::from(says_lost)), "{ended:?}");
    assert!(says_lost || outcome.lost.is_empty(), "{ended:?}");
    let kept = format!("kept {} keys in 2 shards", KEYS.len() - outcome.lost.len());
    assert!(ended.output.contains(&kept), "{kept} is not said:\n{}", ended.output);
    assert_eq!(run(&["check", new.to_str().unwrap()]).status.code(), Some(0));
    let repaired = Directory { root: TempDir::with_prefix("kvlite-test-").unwrap() };
    fs::rename(new, repaired.path()).unwrap();
    repaired.expect_served(&outcome.lost);
}

// ---- directories ----

struct Directory {
    root: TempDir,
}

/// A good frame of a file.
#[derive(Clone)]
struct Frame {
    path: PathBuf,
    offset: usize,
    end: usize,
    seq: u64,
    keys: BTreeSet<usize>,
}

fn name(key: usize) -> String {
    format!("key-{key:04}")
}

fn value(key: usize) -> String {
    format!("value-{key}-").repeat(100)
}

fn set(key: usize) -> String {
    format!("SET {} \"{}\"", name(key), value(key))
}

fn run(args: &[&str]) -> Ended {
    let mut command = command();
    command.args(args);
    run_to_end(command)
}

impl Directory {
    /// What a server has written and closed: snapshots, and logs of several segments of which some are
    /// recycled.
    fn written() -> Directory {
        let directory = Directory { root: TempDir::with_prefix("kvlite-test-").unwrap() };
        let mut server = directory.server(&[]);
        server.restart(SHARDS);
        let mut text = server.text();
        for key in KEYS {
            if key == KEYS_IN_SNAPSHOTS {
                assert_eq!(text.ask_one("COMPACT"), "+OK");
            }
            assert_eq!(text.ask_one(&set(key)), "+OK");
        }
        drop(text);
        assert!(server.terminate().success());
        directory
    }

    fn copy(&self) -> Directory {
        let copy = Directory { root: TempDir::with_prefix("kvlite-test-").unwrap() };
        copy_all(&self.path(), &copy.path());
        copy
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn shard(&self, shard: usize) -> PathBuf {
        self.path().join(format!("layout-1/shard-{shard}"))
    }

    fn files(&self, shard: usize, suffix: &str) -> Vec<PathBuf> {
        let names = fs::read_dir(self.shard(shard)).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = names.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
        files.sort();
        files
    }

    fn frame_of(&self, key: usize, suffix: &str) -> Frame {
        let files = (0..SHARDS).flat_map(|shard| self.files(shard, suffix));
        let mut frames = files.flat_map(|file| frames(&file));
        frames.find(|frame| frame.keys.contains(&key)).expect("every key is in a frame")
    }

    fn shard_of(&self, key: usize) -> usize {
        let suffix = if key < KEYS_IN_SNAPSHOTS { ".snapshot" } else { ".log" };
        (0..SHARDS).find(|shard| self.frame_of(key, suffix).path.starts_with(self.shard(*shard))).unwrap()
    }

    fn server(&self, flags: &[&str]) -> Server {
        Server::stopped(Some(&self.path()), &[&["--wal-segment-size", SEGMENT_BYTES], flags].concat())
    }

    /// Starts a server that is expected to end by itself.
    fn start_in_vain(&self) -> Ended {
        let (port, resp_port) = free_ports();
        let mut command = command();
        command.args([
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--resp-port",
            &resp_port.to_string(),
        ]);
        command.args(["--shards", &SHARDS.to_string(), "--wal-path"]).arg(self.path());
        run_to_end(command)
    }

    /// Starts a server and demands every key that is not lost, with its value, and no other.
    fn expect_served(&self, lost: &BTreeSet<usize>) -> Server {
        let mut server = self.server(&[]);
        server.restart(SHARDS);
        let keys: Vec<usize> = KEYS.chain([LAST_KEY]).collect();
        let names: Vec<String> = keys.iter().copied().map(name).collect();
        let found = server.text().ask(&format!("MGET {}", names.join(" ")));
        assert_eq!(found.len(), keys.len());
        for (key, found) in keys.into_iter().zip(found) {
            let is_lost = lost.contains(&key) || key == LAST_KEY;
            let expected = if is_lost { "(nil)".to_owned() } else { value(key) };
            assert!(found == expected, "{} is {found:.40}, not {expected:.40}", name(key));
        }
        server.kill9();
        server
    }
}

/// The frames of a segment or a snapshot, up to the first one that is stale or missing.
fn frames(path: &Path) -> Vec<Frame> {
    let bytes = fs::read(path).unwrap();
    let u32_at = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap()) as usize;
    let u64_at = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    let generation = u64_at(20);
    let (mut frames, mut offset) = (Vec::<Frame>::new(), FILE_HEADER_BYTES);
    while offset + FRAME_HEADER_BYTES <= bytes.len() && u64_at(offset + 16) == generation {
        let (seq, end) = (u64_at(offset + 8), offset + FRAME_HEADER_BYTES + u32_at(offset + 4));
        let keys = bytes[offset..end].windows(8).filter(|window| window.starts_with(b"key-"));
        let keys = keys.map(|name| str::from_utf8(&name[4..]).unwrap().parse().unwrap()).collect();
        frames.push(Frame { path: path.to_owned(), offset, end, seq, keys });
        offset = end;
    }
    frames
}

fn crc32(bytes: &[u8]) -> u32 {
    crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(bytes)
}

fn overwrite(path: &Path, at: usize, with: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at..at + with.len()].copy_from_slice(with);
    fs::write(path, bytes).unwrap();
}

fn flip_at(path: &Path, at: usize) {
    let byte = fs::read(path).unwrap()[at];
    overwrite(path, at, &[byte ^ 0x40]);
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_all(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

/// Every file below a directory with its bytes.
fn content(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files.extend(content(&path));
        } else {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    files
}
