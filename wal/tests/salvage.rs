//! Salvaging a damaged shard's directory: what is kept is what was written, and the rest is said to be lost.

// Clippy takes only functions marked as tests for tests; this whole file is one.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wal::{Disk, DiskFile, Error, Kind, Log, Loss, MemDisk, Place, Salvage, Salvaged};

const PLACE: Place = Place { shard_index: 1, shard_count: 4, tag: 0 };
const SEGMENT_BYTES: u64 = 512;
const HEADER: usize = 48;

fn dir() -> &'static Path {
    Path::new("/shard")
}

fn payload(seq: u64) -> Vec<u8> {
    vec![seq as u8 | 0x80; 1 + seq as usize % 7]
}

fn try_open(disk: &MemDisk) -> Result<Log<MemDisk>, Error> {
    Ok(Log::recover(disk, dir(), PLACE, SEGMENT_BYTES, |_| Ok::<_, Error>(()))?.0)
}

/// A log of so many frames, each with one entry, all on disk.
fn disk_with(frames: u64) -> MemDisk {
    let disk = MemDisk::default();
    disk.create_dir_all(dir()).unwrap();
    let mut log = try_open(&disk).unwrap();
    for seq in 1..=frames {
        log.append(Kind::Batch, 1, &payload(seq));
        log.flush().unwrap();
    }
    log.close().unwrap();
    disk
}

fn files(disk: &MemDisk, suffix: &str) -> Vec<PathBuf> {
    let names = disk.list(dir()).unwrap();
    names.iter().filter(|name| name.ends_with(suffix)).map(|name| dir().join(name)).collect()
}

/// What a salvage handed on: payloads by sequence number, and where gaps are, by the number before them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kept {
    snapshot: Vec<Vec<u8>>,
    log: BTreeMap<u64, Vec<u8>>,
    gaps: Vec<u64>,
}

fn salvage(disk: &MemDisk) -> (Kept, Vec<Loss>) {
    let plan = Salvage::plan(disk, dir(), PLACE).unwrap();
    let mut kept = Kept::default();
    plan.replay(|salvaged| {
        match salvaged {
            Salvaged::Gap => kept.gaps.push(kept.log.keys().last().copied().unwrap_or(0)),
            Salvaged::Record(record) if record.in_snapshot => kept.snapshot.push(record.payload.to_vec()),
            Salvaged::Record(record) => {
                assert!(record.read_bytes <= record.total_bytes);
                let last = kept.log.last_key_value().map_or(0, |(seq, _)| *seq);
                assert!(record.seq > last, "frame {} follows {last}", record.seq);
                kept.log.insert(record.seq, record.payload.to_vec());
            }
        }
        Ok::<_, Error>(())
    })
    .unwrap();
    let readable = plan.readable();
    assert_eq!(readable.snapshot_frames, kept.snapshot.len() as u64);
    assert!(readable.segments <= files(disk, ".log").len() as u64, "{readable:?}");
    (kept, plan.losses().to_vec())
}

/// Sequence numbers of lost frames of the log.
fn lost(losses: &[Loss]) -> Vec<u64> {
    let range = |loss: &Loss| match loss {
        Loss::Frames { in_snapshot: false, first_seq, last_seq: Some(last_seq), .. } => {
            *first_seq..=*last_seq
        }
        other => panic!("{other}"),
    };
    losses.iter().flat_map(range).collect()
}

fn flip(disk: &MemDisk, path: &Path, bit: usize) {
    let mut bytes = disk.read(path).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    disk.damage(path, &bytes);
}

/// Where the frame with this number begins, in which file.
fn frame_at(disk: &MemDisk, seq: u64) -> (PathBuf, usize, usize) {
    for path in files(disk, ".log") {
        let bytes = disk.read(&path).unwrap();
        let mut at = HEADER;
        while at + 40 <= bytes.len() {
            let len = u32::from_le_bytes(*bytes[at + 4..].first_chunk().unwrap()) as usize;
            let found = u64::from_le_bytes(*bytes[at + 8..].first_chunk().unwrap());
            if found == seq {
                return (path, at, at + 40 + len);
            }
            if found == 0 {
                break;
            }
            at += 40 + len;
        }
    }
    panic!("there is no frame {seq}");
}

#[test]
fn of_a_sound_log_everything_is_kept() {
    let (kept, losses) = salvage(&disk_with(30));
    assert_eq!(losses, []);
    assert_eq!(kept.log, (1..=30).map(|seq| (seq, payload(seq))).collect());
    assert_eq!((kept.gaps, kept.snapshot), (vec![], Vec::<Vec<u8>>::new()));
}

#[test]
fn whichever_bit_is_flipped_at_most_its_frame_is_lost_and_that_is_said() {
    let disk = disk_with(24);
    let all: BTreeMap<_, _> = (1..=24).map(|seq| (seq, payload(seq))).collect();
    let segments = files(&disk, ".log");
    assert!(segments.len() > 2, "several segments, {}", segments.len());
    for path in segments {
        for bit in 0..disk.read(&path).unwrap().len() * 8 {
            let fork = disk.fork();
            flip(&fork, &path, bit);
            // A version that is only damaged is no newer version; every other bit leads to a plan as well.
            let (kept, losses) = salvage(&fork);
            let what = format!("bit {bit} of {}: {losses:?}", path.display());
            let lost: Vec<u64> = lost(&losses).into_iter().filter(|seq| *seq <= 24).collect();
            assert!(lost.len() <= 1, "{what}");
            for (seq, payload) in &all {
                match kept.log.get(seq) {
                    Some(found) => assert!(found == payload && !lost.contains(seq), "{seq}, {what}"),
                    // What nothing says was on disk is the torn end, as in recovery.
                    None => assert!(lost.contains(seq) || *seq == 24, "{seq}, {what}"),
                }
            }
            assert!(kept.log.len() + 1 >= all.len(), "{what}");
        }
    }
}

#[test]
fn a_loss_names_the_bytes_the_frames_and_the_entries() {
    let disk = disk_with(24);
    let (path, start, end) = frame_at(&disk, 7);
    flip(&disk, &path, (end - 1) * 8);
    assert!(try_open(&disk).is_err(), "recovery refuses what is salvaged");
    let (kept, losses) = salvage(&disk);
    assert_eq!(kept.gaps, [6]);
    let [Loss::Frames { first_seq: 7, last_seq: Some(7), entries: Some(1), causes, .. }] = &losses[..] else {
        panic!("{losses:?}");
    };
    assert_eq!(causes.len(), 1);
    assert_eq!((&causes[0].path, causes[0].bytes.clone()), (&path, start as u64..end as u64));
}

#[test]
fn a_damaged_length_is_skipped_by_looking_for_the_next_frame() {
    let disk = disk_with(24);
    let (path, start, _) = frame_at(&disk, 7);
    let (same, _, end) = frame_at(&disk, 8);
    assert_eq!(path, same, "both stand in one segment");
    let mut bytes = disk.read(&path).unwrap();
    bytes[start..end].fill(0xee);
    disk.damage(&path, &bytes);
    let (kept, losses) = salvage(&disk);
    assert_eq!((lost(&losses), kept.log.len()), (vec![7, 8], 22));
}

#[test]
fn a_missing_segment_is_a_loss_of_its_frames() {
    let disk = disk_with(24);
    let segments = files(&disk, ".log");
    let (_, before) = (disk.remove_file(&segments[1]).unwrap(), segments.len());
    let (kept, losses) = salvage(&disk);
    let lost = lost(&losses);
    assert!(before > 2 && !lost.is_empty());
    assert_eq!(lost.len() + kept.log.len(), 24);
    assert_eq!(kept.gaps, [lost[0] - 1]);
    assert!(matches!(&losses[..], [Loss::Frames { causes, .. }] if causes.is_empty()), "{losses:?}");
}

#[test]
fn a_missing_newest_segment_is_a_loss_of_its_frames() {
    let disk = disk_with(24);
    disk.remove_file(files(&disk, ".log").last().unwrap()).unwrap();
    let (kept, losses) = salvage(&disk);
    let lost = lost(&losses);
    assert_eq!(*lost.last().unwrap(), 25, "the mark of the end is one of them");
    assert_eq!(lost.len() + kept.log.len(), 25);
    assert!(matches!(&losses[..], [Loss::Frames { causes, .. }] if causes.is_empty()), "{losses:?}");
}

#[test]
fn a_value_that_looks_like_a_frame_far_ahead_is_not_taken_for_one() {
    // The image of a frame with a high sequence number, made by another log of the same generation.
    let other = disk_with(60);
    let image = |seq| {
        let (path, start, end) = frame_at(&other, seq);
        (path.clone(), other.read(&path).unwrap()[start..end].to_vec())
    };
    let disk = MemDisk::default();
    disk.create_dir_all(dir()).unwrap();
    let mut log = try_open(&disk).unwrap();
    let (path, forged) = image(8);
    assert_eq!(path, files(&other, ".log")[0], "the forged frame has the generation of the first segment");
    log.append(Kind::Batch, 1, &forged);
    log.append(Kind::Batch, 1, &payload(2));
    log.close().unwrap();
    let (path, start, _) = frame_at(&disk, 1);
    flip(&disk, &path, (start + 7) * 8); // The length, so that the search begins within the value.
    let (kept, losses) = salvage(&disk);
    assert_eq!((kept.log, lost(&losses)), (BTreeMap::from([(2, payload(2))]), vec![1]));
}

#[test]
fn the_good_frames_of_a_damaged_snapshot_are_kept() {
    let disk = disk_with(10);
    let mut log = try_open(&disk).unwrap();
    let mut writer = log.begin_snapshot().unwrap();
    for frame in 0..5u8 {
        writer.append(Kind::Batch, 2, &[frame; 20]).unwrap();
    }
    let snapshot = log.finish_snapshot(writer).unwrap();
    log.retire(&snapshot).clear().unwrap();
    let next = log.next_seq();
    log.append(Kind::Batch, 1, b"after");
    log.close().unwrap();
    let whole = disk.read(&snapshot.path).unwrap();

    // A damaged frame in the middle: the trailer tells how much is lost.
    let mut bytes = whole.clone();
    bytes[HEADER + 2 * 60 + 45] ^= 1;
    disk.damage(&snapshot.path, &bytes);
    let (kept, losses) = salvage(&disk);
    assert_eq!(kept.snapshot, [0, 1, 3, 4].map(|frame| vec![frame; 20]));
    assert_eq!(kept.log, BTreeMap::from([(next, b"after".to_vec())]));
    let [Loss::Frames { in_snapshot: true, first_seq: 3, last_seq: Some(3), entries: Some(2), .. }] =
        &losses[..]
    else {
        panic!("{losses:?}");
    };

    // The last frame, right before the trailer.
    let mut bytes = whole.clone();
    bytes[HEADER + 4 * 60 + 45] ^= 1;
    disk.damage(&snapshot.path, &bytes);
    let (kept, losses) = salvage(&disk);
    assert_eq!(kept.snapshot, [0, 1, 2, 3].map(|frame| vec![frame; 20]));
    let [Loss::Frames { in_snapshot: true, first_seq: 5, last_seq: Some(5), entries: Some(2), .. }] =
        &losses[..]
    else {
        panic!("{losses:?}");
    };

    // No snapshot at all: what is behind it is readable.
    disk.remove_file(&snapshot.path).unwrap();
    let (kept, losses) = salvage(&disk);
    assert_eq!((kept.snapshot.len(), kept.log.len(), kept.gaps), (0, 1, vec![0]));
    assert_eq!(losses, [Loss::Snapshot { path: dir().to_owned(), position: next }]);

    // A truncated file: nothing tells how much is lost.
    disk.damage(&snapshot.path, &whole[..HEADER + 2 * 60 + 30]);
    let (kept, losses) = salvage(&disk);
    assert_eq!((kept.snapshot.len(), kept.log.len()), (2, 1));
    let [Loss::Frames { in_snapshot: true, first_seq: 3, last_seq: None, entries: None, .. }] = &losses[..]
    else {
        panic!("{losses:?}");
    };

    // A damaged file header: the frames know their generation.
    let mut bytes = whole;
    bytes[30] ^= 1;
    disk.damage(&snapshot.path, &bytes);
    let (kept, losses) = salvage(&disk);
    assert_eq!((kept.snapshot.len(), kept.log.len(), losses), (5, 1, vec![]));
}

#[test]
fn files_of_other_shards_and_newer_versions_are_not_read() {
    let disk = disk_with(24);
    let segments = files(&disk, ".log");
    let other = Place { shard_index: 2, ..PLACE };
    let plan = Salvage::plan(&disk, dir(), other).unwrap();
    assert_eq!(plan.losses().len(), segments.len());
    let is_other = |loss: &Loss| matches!(loss, Loss::OtherShard { found: (1, 4), .. });
    assert!(plan.losses().iter().all(is_other), "{:?}", plan.losses());

    let mut bytes = disk.read(&segments[0]).unwrap();
    bytes[8] = 9;
    let crc = crc32fast::hash(&bytes[..44]);
    bytes[44..48].copy_from_slice(&crc.to_le_bytes());
    disk.damage(&segments[0], &bytes);
    assert!(matches!(Salvage::plan(&disk, dir(), PLACE), Err(Error::NewerVersion { found: 9, .. })));
}

#[test]
fn a_missing_directory_is_a_loss() {
    let disk = MemDisk::default();
    let plan = Salvage::plan(&disk, dir(), PLACE).unwrap();
    assert_eq!(plan.losses(), [Loss::Directory { path: dir().to_owned() }]);
}

#[test]
fn a_torn_end_behind_a_damage_stays_the_end() {
    let disk = disk_with(12);
    let mut log = try_open(&disk).unwrap();
    log.note_progress();
    for seq in [14, 15, 16] {
        log.append(Kind::Batch, 1, &payload(seq)); // 13 is the mark of the close.
        log.flush().unwrap();
    }
    drop(log);
    let (path, start, _) = frame_at(&disk, 15);
    flip(&disk, &path, (start + 41) * 8);
    let (path, start, _) = frame_at(&disk, 3);
    flip(&disk, &path, (start + 41) * 8);
    let (kept, losses) = salvage(&disk);
    assert_eq!(lost(&losses), [3, 15], "while the machine runs, no power cut can have torn it");
    assert_eq!(kept.log.keys().last(), Some(&16));
    let (kept, losses) = salvage(&disk.reboot());
    assert_eq!(lost(&losses), [3]);
    assert_eq!(kept.log.keys().last(), Some(&14), "nothing says that 15 was on disk: the log ends there");
    let file = disk.open(&path).unwrap();
    assert!(!file.is_empty().unwrap());
}
