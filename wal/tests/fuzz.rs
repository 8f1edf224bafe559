//! Files that hold anything: arbitrary bytes, frames whose headers lie under a good checksum, and real files
//! with damage in several places. Reading them never panics and never takes memory that the files do not
//! justify; no frame comes out that never was, and no good frame before a damage is lost.
//!
//! `PROPTEST_CASES=N` runs that many cases of each; a failure prints the smallest one that it finds.

// Clippy takes only functions marked as tests for tests; this whole file is one.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use peak_alloc::PeakAlloc;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use wal::{Disk, Error, Kind, Log, MemDisk, Place, Salvage, Salvaged};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const PLACE: Place = Place { shard_index: 0, shard_count: 2, tag: 0 };
const SEGMENT_BYTES: u64 = 600;
const FILE_HEADER_BYTES: usize = 48;
const FRAME_HEADER_BYTES: usize = 40;
/// What all cases that run at a time may take: their files have some kilobytes, and a read buffer 256 KiB.
const MEMORY_BYTES_MAX: usize = 64 << 20;

fn dir() -> &'static Path {
    Path::new("/shard")
}

/// A record as it was handed on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    in_snapshot: bool,
    seq: u64,
    transaction: Option<(u64, Vec<u32>)>,
    payload: Vec<u8>,
}

impl Seen {
    fn of(record: &wal::Record<'_>) -> Seen {
        assert!(record.read_bytes <= record.total_bytes);
        let transaction = match record.kind {
            Kind::Batch => None,
            Kind::Transaction { id, participants } => Some((id, participants.to_vec())),
        };
        let (in_snapshot, seq, payload) = (record.in_snapshot, record.seq, record.payload.to_vec());
        Seen { in_snapshot, seq, transaction, payload }
    }
}

fn check(disk: &MemDisk) -> (Vec<Seen>, Result<wal::Recovered, Error>) {
    let mut seen = Vec::new();
    let checked = wal::check(disk, dir(), PLACE, |record| {
        seen.push(Seen::of(&record));
        Ok(())
    });
    (seen, checked)
}

fn salvage(disk: &MemDisk) -> Result<(Vec<Seen>, usize), Error> {
    let salvage = Salvage::plan(disk, dir(), PLACE)?;
    let mut seen = Vec::new();
    salvage.replay(|salvaged| {
        if let Salvaged::Record(record) = salvaged {
            seen.push(Seen::of(&record));
        }
        Ok::<_, Error>(())
    })?;
    let texts: Vec<String> = salvage.losses().iter().map(ToString::to_string).collect();
    assert!(texts.iter().all(|text| !text.is_empty()));
    Ok((seen, texts.len()))
}

/// Reads a directory in every way, changes it as a start does, and goes on writing.
fn drive(disk: &MemDisk) -> Result<(), TestCaseError> {
    let before = disk.operations();
    let (seen, checked) = check(disk);
    let salvaged = salvage(disk);
    prop_assert_eq!(disk.operations(), before, "looking changes nothing");
    match checked {
        Ok(recovered) => {
            match salvaged {
                // It may keep more: a good frame in a file without a header, which a start cuts with the torn
                // end.
                Ok((salvaged, _)) => prop_assert!(salvaged.starts_with(&seen), "{:?}, {:?}", salvaged, seen),
                // A start does not look at a snapshot that is not the newest.
                Err(Error::NewerVersion { .. }) => {}
                Err(error) => prop_assert!(false, "what can be read can be salvaged: {}", error),
            }
            goes_on(disk, &seen, recovered.next_seq)?;
        }
        Err(error) => {
            prop_assert!(error.evidence().is_some(), "{}", error);
            prop_assert!(Log::recover(disk, dir(), PLACE, SEGMENT_BYTES, |_| Ok::<_, Error>(())).is_err());
            prop_assert_eq!(disk.operations(), before, "a start that is refused changes nothing");
        }
    }
    prop_assert!(MEMORY.peak_usage() < MEMORY_BYTES_MAX, "{} bytes of memory", MEMORY.peak_usage());
    Ok(())
}

/// A start on what was read finds the same, and so does the next one, with what was written in between.
fn goes_on(disk: &MemDisk, seen: &[Seen], next_seq: u64) -> Result<(), TestCaseError> {
    let (mut log, _) = Log::recover(disk, dir(), PLACE, SEGMENT_BYTES, |_| Ok::<_, Error>(())).unwrap();
    prop_assert_eq!(log.append(Kind::Batch, 1, b"next"), next_seq);
    log.close().unwrap();
    let (again, checked) = check(disk);
    prop_assert_eq!(checked.unwrap().cut, None);
    let (last, before) = again.split_last().unwrap();
    prop_assert_eq!(before, seen);
    prop_assert_eq!((last.seq, last.payload.as_slice()), (next_seq, b"next".as_slice()));
    Ok(())
}

fn new_disk() -> MemDisk {
    let disk = MemDisk::default();
    disk.create_dir_all(dir()).unwrap();
    disk
}

// ---- files that are made up ----

/// Numbers that fit, and numbers that no sum survives.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..6u64, 1 => Just(u64::MAX), 1 => Just(1 << 61), 1 => any::<u64>()]
}

fn file_header(magic: &[u8; 8], numbers: [u64; 3], place: (u32, u32)) -> Vec<u8> {
    let mut bytes =
        [&magic[..], &1u32.to_le_bytes(), &place.0.to_le_bytes(), &place.1.to_le_bytes()].concat();
    numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

prop_compose! {
    /// A frame of which every field may lie, the checksum apart.
    fn frame()(
        numbers in [number(), number(), number()],
        entries in prop_oneof![0..3u32, Just(u32::MAX)],
        kind in 0..5u8,
        zero in prop_oneof![9 => Just(0u8), 1 => any::<u8>()],
        participants in prop_oneof![5 => Just(0u16), 2 => 0..3u16, 1 => Just(u16::MAX)],
        body in vec(any::<u8>(), 0..40),
        counts in [number(), number(), number()],
        body_bytes in prop_oneof![9 => Just(None), 1 => any::<u32>().prop_map(Some)],
    ) -> Vec<u8> {
        // What looks like a trailer's counts stands first, for snapshots.
        let counted = counts.iter().flat_map(|count| count.to_le_bytes());
        let mut body = if kind == 3 { counted.collect() } else { body };
        if kind == 3 {
            body.extend_from_slice(&crc32fast::hash(&[]).to_le_bytes());
        }
        let mut frame = body_bytes.unwrap_or(body.len() as u32).to_le_bytes().to_vec();
        numbers.iter().for_each(|number| frame.extend_from_slice(&number.to_le_bytes()));
        frame.extend_from_slice(&entries.to_le_bytes());
        frame.extend_from_slice(&[kind, zero]);
        frame.extend_from_slice(&participants.to_le_bytes());
        frame.extend_from_slice(&body);
        [&crc32fast::hash(&frame).to_le_bytes()[..], &frame].concat()
    }
}

fn made_up_file() -> impl Strategy<Value = (String, Vec<u8>)> {
    let name = (number(), select(vec![".log", ".log", ".snapshot"]));
    let magic = select(vec![b"KVLITLOG", b"KVLITLOG", b"KVLITSNP"]);
    let place = prop_oneof![9 => Just((0, 2)), 1 => any::<(u32, u32)>()];
    let header = (magic, [number(), number(), number()], place)
        .prop_map(|(magic, numbers, place)| file_header(magic, numbers, place));
    let bytes = || vec(any::<u8>(), 0..200);
    let structured = (header, vec(prop_oneof![4 => frame().boxed(), 1 => bytes().boxed()], 0..8))
        .prop_map(|(header, parts)| [header, parts.concat()].concat());
    let contents = prop_oneof![4 => structured.boxed(), 1 => bytes().boxed()];
    (name, contents).prop_map(|((number, suffix), contents)| (format!("{number:020}{suffix}"), contents))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn files_that_hold_anything_are_read_or_refused(files in vec(made_up_file(), 0..5)) {
        let disk = new_disk();
        for (name, bytes) in files {
            disk.damage(&dir().join(name), &bytes);
        }
        drive(&disk)?;
    }
}

// ---- real files, damaged ----

/// A frame of a real file: where it stands, and what it hands on; `None` for a mark or a trailer.
#[derive(Debug)]
struct Real {
    path: PathBuf,
    bytes: Range<usize>,
    seen: Option<Seen>,
}

/// What a log left that synced every frame and was closed: all of it is known to be on disk.
fn real(frames: &[(usize, bool)], snapshot_after: usize) -> MemDisk {
    let disk = new_disk();
    let mut log = Log::recover(&disk, dir(), PLACE, SEGMENT_BYTES, |_| Ok::<_, Error>(())).unwrap().0;
    for (index, (payload_bytes, is_transaction)) in frames.iter().enumerate() {
        if index == snapshot_after {
            let mut writer = log.begin_snapshot().unwrap();
            for number in 0..4u8 {
                writer.append(Kind::Batch, 1, &[number; 30]).unwrap();
            }
            let snapshot = log.finish_snapshot(writer).unwrap();
            log.retire(&snapshot).clear().unwrap().into_iter().for_each(|spare| log.adopt(spare));
        }
        let payload = payload(index, *payload_bytes);
        let kind = match is_transaction {
            true => Kind::Transaction { id: index as u64, participants: &[0, 1] },
            false => Kind::Batch,
        };
        log.append(kind, 1, &payload);
        log.sync().unwrap();
    }
    log.close().unwrap();
    disk
}

fn payload(index: usize, payload_bytes: usize) -> Vec<u8> {
    vec![index as u8 | 0x80; payload_bytes]
}

/// Whether a record says what a frame or a snapshot of [`real`] said at some time.
fn was_written(seen: &Seen, frames: &[(usize, bool)]) -> bool {
    frames.iter().enumerate().any(|(index, (payload_bytes, is_transaction))| {
        let transaction = is_transaction.then(|| (index as u64, vec![0, 1]));
        seen.payload == payload(index, *payload_bytes) && seen.transaction == transaction
    }) || (0..4).any(|number| seen.payload == [number; 30] && seen.transaction.is_none())
}

/// All frames that count, by what the files say; the damage comes later.
fn frames_of(disk: &MemDisk) -> Vec<Real> {
    let (seen, checked) = check(disk);
    checked.unwrap();
    let mut found = Vec::new();
    for path in files(disk) {
        let bytes = disk.read(&path).unwrap();
        let u64_at = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        let generation = u64_at(20);
        let mut at = FILE_HEADER_BYTES;
        while at + FRAME_HEADER_BYTES <= bytes.len() && u64_at(at + 16) == generation {
            let body_bytes = u32::from_le_bytes(*bytes[at + 4..].first_chunk().unwrap()) as usize;
            let (seq, end) = (u64_at(at + 8), at + FRAME_HEADER_BYTES + body_bytes);
            let in_snapshot = path.extension().is_some_and(|extension| extension == "snapshot");
            let is_it = |seen: &&Seen| (seen.in_snapshot, seen.seq) == (in_snapshot, seq);
            found.push(Real { path: path.clone(), bytes: at..end, seen: seen.iter().find(is_it).cloned() });
            at = end;
        }
    }
    assert_eq!(found.iter().filter(|frame| frame.seen.is_some()).count(), seen.len());
    found
}

fn files(disk: &MemDisk) -> Vec<PathBuf> {
    let names = disk.list(dir()).unwrap().into_iter();
    names
        .filter(|name| name.ends_with(".log") || name.ends_with(".snapshot"))
        .map(|name| dir().join(name))
        .collect()
}

fn contents(disk: &MemDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    files(disk).into_iter().map(|path| (path.clone(), disk.read(&path).unwrap())).collect()
}

/// Something that happens to the bytes of a file; they stay where they are.
#[derive(Clone, Debug)]
enum Damage {
    Flip { file: Index, at: Index, bit: u8 },
    Fill { file: Index, at: Index, with: Vec<u8> },
    Zero { file: Index, at: Index, count: usize },
    Cut { file: Index, at: Index },
    Remove { file: Index },
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = || (any::<Index>(), any::<Index>());
    let bytes = || vec(any::<u8>(), 1..90);
    prop_oneof![
        4 => (place(), 0..8u8).prop_map(|((file, at), bit)| Damage::Flip { file, at, bit }),
        2 => (place(), bytes()).prop_map(|(at, with)| Damage::Fill { file: at.0, at: at.1, with }),
        2 => (place(), 1..200usize).prop_map(|((file, at), count)| Damage::Zero { file, at, count }),
        1 => place().prop_map(|(file, at)| Damage::Cut { file, at }),
        1 => any::<Index>().prop_map(|file| Damage::Remove { file }),
    ]
}

impl Damage {
    fn apply(&self, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
        let (Damage::Flip { file, .. }
        | Damage::Fill { file, .. }
        | Damage::Zero { file, .. }
        | Damage::Cut { file, .. }
        | Damage::Remove { file }) = self;
        if files.is_empty() {
            return;
        }
        let paths: Vec<PathBuf> = files.keys().cloned().collect();
        let path = file.get(&paths).clone();
        let bytes = files.get_mut(&path).expect("it is one of them");
        if bytes.is_empty() {
            return;
        }
        match self {
            Damage::Flip { at, bit, .. } => *at.get_mut(bytes) ^= 1 << bit,
            Damage::Fill { at, with, .. } => {
                let at = at.index(bytes.len());
                bytes[at..].iter_mut().zip(with).for_each(|(byte, with)| *byte = *with);
            }
            Damage::Zero { at, count, .. } => {
                let at = at.index(bytes.len());
                bytes[at..].iter_mut().take(*count).for_each(|byte| *byte = 0);
            }
            Damage::Cut { at, .. } => bytes.truncate(at.index(bytes.len())),
            Damage::Remove { .. } => drop(files.remove(&path)),
        }
    }
}

/// Something that moves bytes to where they do not belong.
#[derive(Clone, Debug)]
enum Shift {
    Insert { file: Index, at: Index, what: Vec<u8> },
    Delete { file: Index, at: Index, count: usize },
    Copy { from: (Index, Index), to: (Index, Index), count: usize },
    Rename { file: Index, to: String },
}

fn shift() -> impl Strategy<Value = Shift> {
    let place = || (any::<Index>(), any::<Index>());
    let name = (0..9u64, select(vec![".log", ".snapshot"]))
        .prop_map(|(number, suffix)| format!("{number:020}{suffix}"));
    prop_oneof![
        (place(), vec(any::<u8>(), 1..90)).prop_map(|((file, at), what)| Shift::Insert { file, at, what }),
        (place(), 1..200usize).prop_map(|((file, at), count)| Shift::Delete { file, at, count }),
        (place(), place(), 1..300usize).prop_map(|(from, to, count)| Shift::Copy { from, to, count }),
        (any::<Index>(), name).prop_map(|(file, to)| Shift::Rename { file, to }),
    ]
}

impl Shift {
    fn apply(&self, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
        let paths: Vec<PathBuf> = files.keys().cloned().collect();
        let of = |index: &Index| index.get(&paths).clone();
        match self {
            Shift::Insert { file, at, what } => {
                let bytes = files.get_mut(&of(file)).unwrap();
                let at = at.index(bytes.len() + 1);
                bytes.splice(at..at, what.iter().copied());
            }
            Shift::Delete { file, at, count } => {
                let bytes = files.get_mut(&of(file)).unwrap();
                let at = at.index(bytes.len() + 1);
                bytes.drain(at..bytes.len().min(at + count));
            }
            Shift::Copy { from: (file, at), to: (target, target_at), count } => {
                let bytes = &files[&of(file)];
                let at = at.index(bytes.len() + 1);
                let copied = bytes[at..bytes.len().min(at + count)].to_vec();
                let target = of(target);
                let bytes = files.get_mut(&target).unwrap();
                let at = target_at.index(bytes.len() + 1);
                bytes[at..].iter_mut().zip(copied).for_each(|(byte, copied)| *byte = copied);
            }
            Shift::Rename { file, to } => {
                let bytes = files[&of(file)].clone();
                files.insert(dir().join(to), bytes);
            }
        }
    }
}

/// Puts other files in place of those of a disk.
fn replaced(disk: &MemDisk, after: &BTreeMap<PathBuf, Vec<u8>>) -> MemDisk {
    let fork = disk.fork();
    files(disk)
        .iter()
        .filter(|path| !after.contains_key(*path))
        .for_each(|path| fork.remove_file(path).unwrap());
    after.iter().for_each(|(path, bytes)| fork.damage(path, bytes));
    fork
}

fn some_frames() -> impl Strategy<Value = (Vec<(usize, bool)>, usize)> {
    (vec((0..90usize, any::<bool>()), 4..24), 0..24usize)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Every frame of the log whose bytes are all there comes out of a salvage, except behind a segment or a
    /// snapshot that is gone as a whole.
    #[test]
    fn a_frame_that_is_whole_is_salvaged(
        (frames, snapshot_after) in some_frames(),
        damages in vec(damage(), 1..5),
    ) {
        let disk = real(&frames, snapshot_after);
        let known = frames_of(&disk);
        let mut after = contents(&disk);
        let before = after.clone();
        damages.iter().for_each(|damage| damage.apply(&mut after));
        let damaged = replaced(&disk, &after);
        drive(&damaged.fork())?;

        let Ok((salvaged, losses)) = salvage(&damaged) else {
            // A damaged version that no checksum gives away is taken for a newer one.
            return Ok(());
        };
        prop_assert!(losses == 0 || check(&damaged).1.is_err(), "what a start finds no fault with is whole");
        let salvaged: BTreeSet<_> = salvaged.into_iter().collect();
        let all: BTreeSet<_> = known.iter().filter_map(|frame| frame.seen.clone()).collect();
        prop_assert!(salvaged.is_subset(&all), "{:?} never was", salvaged.difference(&all).next());
        for frame in &known {
            let Some(seen) = &frame.seen else { continue };
            let bytes = after.get(&frame.path).and_then(|bytes| bytes.get(frame.bytes.clone()));
            let is_whole = bytes == before[&frame.path].get(frame.bytes.clone());
            prop_assert!(!is_whole || salvaged.contains(seen), "{:?} is lost", frame);
        }
    }

    /// Whatever stands where: no record comes out that never was.
    #[test]
    fn bytes_in_the_wrong_place_are_not_taken_for_others(
        (frames, snapshot_after) in some_frames(),
        damages in vec(damage(), 0..3),
        shifts in vec(shift(), 1..4),
    ) {
        let disk = real(&frames, snapshot_after);
        let all: BTreeSet<_> = frames_of(&disk).into_iter().filter_map(|frame| frame.seen).collect();
        let mut after = contents(&disk);
        shifts.iter().for_each(|shift| shift.apply(&mut after));
        damages.iter().for_each(|damage| damage.apply(&mut after));
        let damaged = replaced(&disk, &after);
        let (seen, _) = check(&damaged);
        prop_assert!(seen.iter().all(|seen| all.contains(seen)));
        if let Ok((salvaged, _)) = salvage(&damaged) {
            // A file under another name may be read as another kind of file, or show frames of its earlier
            // life: its records were written once, in another place.
            let misnamed = shifts.iter().any(|shift| matches!(shift, Shift::Rename { .. }));
            let is_real = |seen: &Seen| all.contains(seen) || misnamed && was_written(seen, &frames);
            prop_assert!(salvaged.iter().all(is_real));
        }
        drive(&damaged)?;
    }
}
