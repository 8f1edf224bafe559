//! The log and its directory against files that are cut, damaged, missing, stale or locked. This file asks the log,
//! `directory.rs` the data directory that it is in.

// Clippy takes only functions marked as tests for tests; this whole file is one.
#![allow(clippy::unwrap_used)]

mod directory;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::SeekFrom;
use wal::{
    DataDir, Disk, DiskFile, Error, Fault, Kind, Log, Loss, MemDisk, OsDisk, Place, Proof, Recovered,
    Salvage, SnapshotWriter,
};

const TAG: u32 = 0x0a0b_0c0d;
const PLACE: Place = Place { shard_index: 1, shard_count: 4, tag: TAG };
const HEADER: usize = 48;
const FRAME: usize = 40;

/// What a replay handed on: the sequence number, 0 for a snapshot's frames, and the payload.
type Replay = Vec<(u64, Vec<u8>)>;

fn dir() -> PathBuf {
    PathBuf::from("/shard")
}

fn empty_disk() -> MemDisk {
    let disk = MemDisk::default();
    disk.create_dir_all(&dir()).unwrap();
    disk.open_dir(Path::new("/")).unwrap().sync_all().unwrap();
    disk
}

fn try_open<D: Disk>(disk: &D, dir: &Path, segment_bytes: u64) -> Result<(Log<D>, Recovered, Replay), Error> {
    let mut replay = Replay::new();
    let (log, recovered) = Log::recover(disk, dir, PLACE, segment_bytes, |record| {
        let seq = if record.in_snapshot { 0 } else { record.seq };
        assert!(record.read_bytes <= record.total_bytes);
        replay.push((seq, record.payload.to_vec()));
        Ok::<_, Error>(())
    })?;
    Ok((log, recovered, replay))
}

fn open(disk: &MemDisk, segment_bytes: u64) -> (Log<MemDisk>, Recovered, Replay) {
    try_open(disk, &dir(), segment_bytes).unwrap()
}

fn refused(disk: &MemDisk) -> Error {
    let before = disk.operations();
    let error = try_open(disk, &dir(), 4096).expect_err("the damage is found");
    assert_eq!(disk.operations(), before, "a refused directory is left as it is");
    error
}

fn payload(seq: u64) -> Vec<u8> {
    vec![seq as u8 | 0x80; 1 + seq as usize % 7]
}

fn write(log: &mut Log<MemDisk>, count: u64) {
    for _ in 0..count {
        let seq = log.append(Kind::Batch, 1, &payload(log.next_seq()));
        assert_eq!(log.flush().unwrap(), seq);
    }
}

fn expect_frames(replay: &Replay, first: u64, last: u64) {
    let wanted: Replay = (first..=last).map(|seq| (seq, payload(seq))).collect();
    assert_eq!(*replay, wanted);
}

fn files(disk: &MemDisk, suffix: &str) -> Vec<PathBuf> {
    let names = disk.list(&dir()).unwrap();
    names.iter().filter(|name| name.ends_with(suffix)).map(|name| dir().join(name)).collect()
}

/// Writes a snapshot with one frame and puts it into effect.
fn take_snapshot(log: &mut Log<MemDisk>, text: &[u8]) {
    let mut writer = log.begin_snapshot().unwrap();
    writer.append(Kind::Batch, 3, text).unwrap();
    let snapshot = log.finish_snapshot(writer).unwrap();
    let obsolete = log.retire(&snapshot);
    if let Some(spare) = obsolete.clear().unwrap() {
        log.adopt(spare);
    }
}

// Round trips

#[test]
fn what_was_flushed_is_replayed_over_several_segments() {
    let disk = empty_disk();
    let (mut log, recovered, replay) = open(&disk, 256);
    assert_eq!((recovered, replay), (Recovered { next_seq: 1, ..Recovered::default() }, vec![]));
    write(&mut log, 20);
    assert!(files(&disk, ".log").len() > 3);
    assert_eq!(log.entries(), 20);
    let size_bytes = log.size_bytes();
    drop(log);
    let (log, recovered, replay) = open(&disk, 256);
    expect_frames(&replay, 1, 20);
    assert_eq!((recovered.next_seq, recovered.log_frames, recovered.cut), (21, 20, None));
    assert_eq!((log.durable_seq(), log.size_bytes(), log.entries()), (20, size_bytes, 20));
}

#[test]
fn a_replay_reads_no_further_than_each_step_lets_it() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 1024);
    write(&mut log, 10);
    take_snapshot(&mut log, b"state");
    write(&mut log, 40);
    drop(log);
    let (_, whole, records) = open(&disk, 1024);
    for step_bytes in [0, 1, 100, 1 << 20, u64::MAX] {
        let mut replay = wal::Replay::open(&disk, &dir(), PLACE).unwrap();
        let (mut read, mut steps) = (Replay::new(), 0);
        loop {
            let (before, from) = (read.len(), replay.read_bytes());
            let goes_on = replay.step(step_bytes, |record| {
                assert!(record.read_bytes >= from && record.read_bytes - from < step_bytes.max(1));
                read.push((if record.in_snapshot { 0 } else { record.seq }, record.payload.to_vec()));
                Ok::<_, Error>(())
            });
            assert!(step_bytes > 1 || read.len() <= before + 1, "one frame is the least");
            if !goes_on.unwrap() {
                break;
            }
            steps += 1;
        }
        assert_eq!((replay.read_bytes(), &read), (replay.total_bytes(), &records), "{step_bytes} a step");
        assert!(step_bytes > 100 || steps >= 10, "{steps} steps of {step_bytes}");
        assert_eq!(replay.finish().unwrap().recovered, whole);
    }
}

#[test]
fn the_kind_and_the_participants_of_a_frame_are_replayed() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    log.append(Kind::Transaction { id: 77, participants: &[0, 1, 3] }, 2, b"part");
    log.append(Kind::Batch, 5, b"");
    log.close().unwrap();
    let mut seen = 0;
    wal::check(&disk, &dir(), PLACE, |record| {
        seen += 1;
        match record.seq {
            1 => assert_eq!(record.kind, Kind::Transaction { id: 77, participants: &[0, 1, 3] }),
            _ => assert_eq!((record.kind, record.entries, record.payload), (Kind::Batch, 5, &b""[..])),
        }
        Ok::<_, Error>(())
    })
    .unwrap();
    assert_eq!(seen, 2, "the closing mark is not handed on");
}

#[test]
fn a_batch_larger_than_a_segment_gets_a_segment_of_its_own() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 512);
    write(&mut log, 3);
    let big = vec![0x5a; 100_000];
    log.append(Kind::Batch, 1, &big);
    log.flush().unwrap();
    let seq = log.append(Kind::Batch, 1, &payload(5));
    assert_eq!(log.flush().unwrap(), seq);
    let (.., replay) = open(&disk, 512);
    assert_eq!(replay.len(), 5);
    assert_eq!((&replay[3], &replay[4]), (&(4, big), &(5, payload(5))));
}

/// Frames with parts that stand elsewhere: more of them than one write of the system takes.
fn append_parts<D: Disk>(log: &mut Log<D>) -> Replay {
    let mut expected = Replay::new();
    for number in 0..1500 {
        let part = Bytes::from(vec![number as u8; 100 + number % 3]);
        let (kind, parts) = match number % 3 {
            0 => (Kind::Batch, vec![(0, part.clone()), (0, part.clone())]),
            1 => (Kind::Transaction { id: 9, participants: &[1, 2] }, vec![(7, part.clone())]),
            _ => (Kind::Batch, vec![]),
        };
        let seq = log.append_parts(kind, 1, b"payload", &parts);
        let [before, behind] = match number % 3 {
            0 => [part.repeat(2), b"payload".to_vec()],
            1 => [b"payload".to_vec(), part.to_vec()],
            _ => [b"payload".to_vec(), vec![]],
        };
        expected.push((seq, [before, behind].concat()));
    }
    expected
}

#[test]
fn parts_that_stand_elsewhere_are_replayed_in_their_place() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4 << 20);
    let mut expected = append_parts(&mut log);
    let buffered: Replay = log.buffered().map(|(seq, payload)| (seq, payload.into_owned())).collect();
    assert_eq!(buffered, expected);
    // A write that fails leaves them in the buffer.
    disk.fail_once(50, std::io::ErrorKind::Other);
    log.flush().unwrap_err();
    assert!(log.buffered_bytes() > 150_000);
    log.flush().unwrap();
    assert_eq!(log.buffered_bytes(), 0);
    let size_bytes = log.size_bytes();
    expected.extend(append_parts(&mut log));
    log.flush().unwrap();
    assert_eq!(log.size_bytes(), 2 * size_bytes);
    drop(log);
    assert!(open(&disk, 4 << 20).2 == expected);

    let directory = tempfile::tempdir().unwrap();
    let (mut log, ..) = try_open(&OsDisk::default(), directory.path(), 4 << 20).unwrap();
    let expected = append_parts(&mut log);
    log.sync().unwrap();
    assert_eq!(log.size_bytes(), size_bytes);
    drop(log);
    assert!(try_open(&OsDisk::default(), directory.path(), 4 << 20).unwrap().2 == expected);
}

/// Appends a frame whose payload ends with `part`, staged in pieces while other frames are written.
fn append_staged(log: &mut Log<MemDisk>, part: &Bytes) {
    let Ok(mut staged) = log.stage(4, part.clone()) else {
        log.append_parts(Kind::Batch, 1, b"head", &[(4, part.clone())]);
        return;
    };
    while matches!(staged.step(300), Ok(false)) {
        log.append(Kind::Batch, 1, &payload(log.next_seq()));
        let _ = log.flush();
    }
    log.append_staged(staged, 1, b"head");
}

/// What is replayed after `append_staged` and three more frames, which is what they give.
fn expect_staged(replay: &Replay, part: &[u8]) {
    let at = replay.len() - 4;
    expect_frames(&replay[..at].to_vec(), 1, at as u64);
    assert_eq!(replay[at], (at as u64 + 1, [b"head", part].concat()));
    expect_frames(&replay[at + 1..].to_vec(), at as u64 + 2, replay.len() as u64);
}

#[test]
fn a_staged_part_costs_its_frame_one_small_write() {
    let part = Bytes::from((0..1000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    for segment_bytes in [512, 16 << 10] {
        let disk = empty_disk();
        let (mut log, ..) = open(&disk, segment_bytes);
        write(&mut log, 2);
        append_staged(&mut log, &part);
        assert_eq!((log.buffered_bytes(), log.written_seq()), (0, log.next_seq() - 1), "it is written");
        let segment = files(&disk, ".log").pop().unwrap();
        write(&mut log, 3);
        let size_bytes = log.size_bytes();
        append_staged(&mut log, &part);
        let ended = disk.read(&segment).unwrap().len();
        assert!(ended < 5000, "{ended} bytes: its room is given back");
        assert!(log.size_bytes() > size_bytes + part.len() as u64);
        drop(log);
        let (log, _, replay) = open(&disk, segment_bytes);
        assert!(files(&disk, "staged").is_empty());
        assert!((1..log.next_seq()).eq(replay.iter().map(|(seq, _)| *seq)));
        let staged = replay.iter().filter(|(_, payload)| *payload == [b"head", &*part].concat());
        assert_eq!((staged.count(), replay.last().unwrap().1.len()), (2, 4 + part.len()));
    }
}

#[test]
fn a_staged_part_survives_failures_and_power_cuts_as_other_frames_do() {
    let part = Bytes::from((0..1000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    for failing in 0..40 {
        let disk = empty_disk();
        let (mut log, ..) = open(&disk, 16 << 10);
        write(&mut log, 2);
        log.sync().unwrap();
        if failing > 0 {
            disk.fail_once(failing, std::io::ErrorKind::Other);
        }
        append_staged(&mut log, &part);
        // What could not be written is written again, as a whole.
        log.flush().or_else(|_| log.flush()).unwrap();
        for _ in 0..3 {
            log.append(Kind::Batch, 1, &payload(log.next_seq()));
            log.flush().or_else(|_| log.flush()).unwrap();
        }
        expect_staged(&open(&disk.fork(), 16 << 10).2, &part);
        if log.sync().is_ok() {
            expect_staged(&open(&disk.power_cut(failing), 16 << 10).2, &part);
        }
    }
}

#[test]
fn nothing_is_left_of_a_staged_part_or_a_snapshot_that_was_given_up() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 16 << 10);
    write(&mut log, 2);
    let mut staged = log.stage(4, Bytes::from(vec![7; 1000])).unwrap();
    staged.step(300).unwrap();
    assert!(!log.append_staged(staged, 1, b"head"), "it is not complete");
    let mut writer = log.begin_snapshot().unwrap();
    writer.append(Kind::Batch, 1, b"half").unwrap();
    disk.fail_once(1, std::io::ErrorKind::StorageFull);
    log.finish_snapshot(writer).unwrap_err();
    assert_eq!((files(&disk, "staged").len(), files(&disk, "snapshot.tmp").len()), (1, 1));
    for given_up in [log.give_up_staged(), log.give_up_snapshot(), log.give_up_snapshot()] {
        assert!(given_up.clear().unwrap().is_none());
    }
    assert!(files(&disk, "staged").is_empty() && files(&disk, "snapshot.tmp").is_empty());
    let (.., replay) = open(&disk, 16 << 10);
    assert_eq!(replay.last().unwrap().1, [&b"head"[..], &[7; 1000]].concat());
}

#[test]
fn a_power_cut_takes_a_staged_frame_whole_or_not_at_all() {
    let part = Bytes::from((0..1000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    let mut torn = 0;
    for seed in 0..300 {
        let disk = empty_disk();
        let (mut log, ..) = open(&disk, 16 << 10);
        write(&mut log, 2);
        log.sync().unwrap();
        append_staged(&mut log, &part);
        let is_synced = seed % 3 == 0;
        if is_synced {
            log.sync().unwrap();
        }
        write(&mut log, seed % 4);
        let (mut log, _, replay) = open(&disk.power_cut(seed), 16 << 10);
        assert!(replay.len() >= 2, "what was synced is there");
        let whole = replay.iter().find(|(_, payload)| payload.len() > 10);
        assert!(whole.is_none_or(|(_, payload)| *payload == [b"head", &*part].concat()), "seed {seed}");
        assert!(whole.is_some() || !is_synced, "seed {seed}");
        torn += usize::from(whole.is_none());
        write(&mut log, 2);
    }
    assert!(torn > 20, "{torn}");
}

#[test]
fn a_flush_costs_one_write_and_a_sync_one_sync() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 64 << 10);
    write(&mut log, 1);
    log.sync().unwrap();
    let before = disk.operations();
    for _ in 0..10 {
        log.append(Kind::Batch, 1, b"one");
        log.append(Kind::Batch, 1, b"two");
        log.flush().unwrap();
    }
    assert_eq!(disk.operations() - before, 10);
    let ticket = log.begin_sync().unwrap();
    assert_eq!((ticket.files().len(), ticket.directory().is_some()), (1, false));
    assert_eq!(log.durable_seq(), 1);
    ticket.run().unwrap();
    assert_eq!(log.finish_sync(&ticket), 21);
    assert!(log.begin_sync().is_none());
    assert_eq!(disk.operations() - before, 11);
}

#[test]
fn a_prepared_spare_becomes_the_next_segment() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 200_000);
    let mut preparation = log.prepare().unwrap();
    assert!(log.prepare().is_none(), "one is at it");
    let mut steps = 1;
    while !preparation.step(50_000).unwrap() {
        steps += 1;
    }
    assert_eq!(steps, 4);
    log.adopt(preparation.finish());
    assert!(log.prepare().is_none(), "one is ready");
    write(&mut log, 1);
    assert_eq!(files(&disk, "spare"), [] as [PathBuf; 0]);
    assert_eq!(disk.read(&files(&disk, ".log")[0]).unwrap().len(), 200_000);
    assert!(log.prepare().is_some(), "the spare is used up");
    drop(log);
    expect_frames(&open(&disk, 200_000).2, 1, 1);
}

#[test]
fn an_unfilled_spare_is_ready_in_one_step_and_is_written_once() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 200_000);
    let before = disk.operations();
    let mut preparation = log.prepare().unwrap().unfilled();
    assert!(preparation.step(1).unwrap());
    assert_eq!(disk.operations() - before, 3, "created, allocated, synced");
    log.adopt(preparation.finish());
    write(&mut log, 1);
    assert_eq!(disk.read(&files(&disk, ".log")[0]).unwrap().len(), 200_000);
    drop(log);
    expect_frames(&open(&disk, 200_000).2, 1, 1);
}

#[test]
fn a_log_on_the_real_disk_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, ..) = try_open(&OsDisk::default(), directory.path(), 1 << 20).unwrap();
    let spare = log.prepare().unwrap().run().unwrap();
    log.adopt(spare);
    for number in 0..200u32 {
        log.append(Kind::Batch, 1, &number.to_le_bytes().repeat(5000));
        log.flush().unwrap();
    }
    log.sync().unwrap();
    let mut writer = log.begin_snapshot().unwrap();
    for _ in 0..100 {
        writer.append(Kind::Batch, 1, &[7; 10_000]).unwrap();
    }
    let snapshot = log.finish_snapshot(writer).unwrap();
    let spare = log.retire(&snapshot).clear().unwrap().expect("a segment is recycled");
    log.adopt(spare);
    log.append(Kind::Batch, 1, b"tail");
    log.close().unwrap();
    let (log, recovered, replay) = try_open(&OsDisk::default(), directory.path(), 1 << 20).unwrap();
    assert_eq!((recovered.snapshot_frames, recovered.log_frames, recovered.cut), (100, 2, None));
    assert_eq!(replay[100], (201, b"tail".to_vec()));
    assert_eq!(log.snapshot().unwrap().bytes, snapshot.bytes);
}

// Torn ends

#[test]
fn a_log_cut_at_any_byte_gives_the_whole_frames_before_it_and_goes_on() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    write(&mut log, 6);
    drop(log);
    let path = files(&disk, ".log").remove(0);
    let bytes = disk.read(&path).unwrap();
    let ends: Vec<usize> = (1..=6)
        .scan(HEADER, |end, seq| {
            *end += FRAME + payload(seq).len();
            Some(*end)
        })
        .collect();
    for zero_filled in [false, true] {
        for cut in 0..=ends[5] {
            let disk = disk.fork();
            let mut torn = bytes[..cut].to_vec();
            torn.resize(if zero_filled { bytes.len() } else { cut }, 0);
            disk.damage(&path, &torn);
            let (mut log, recovered, replay) = open(&disk, 4096);
            let whole = ends.iter().filter(|end| **end <= cut).count() as u64;
            expect_frames(&replay, 1, whole);
            let good_bytes = if whole == 0 { HEADER } else { ends[whole as usize - 1] };
            let torn_bytes = recovered.cut.map_or(0, |cut| cut.bytes);
            assert!(torn_bytes as usize <= cut.saturating_sub(good_bytes), "cut at {cut}");
            assert_eq!(torn_bytes > 0, cut > good_bytes, "cut at {cut}");
            write(&mut log, 3);
            drop(log);
            expect_frames(&open(&disk, 4096).2, 1, whole + 3);
        }
    }
}

#[test]
fn every_flipped_bit_is_found_or_touches_only_what_was_not_synced() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 256);
    for _ in 0..6 {
        write(&mut log, 1);
        log.sync().unwrap();
    }
    // Frame 7 says that 6 is synced; nothing says so of 7.
    write(&mut log, 1);
    drop(log);
    for path in files(&disk, ".log") {
        let good = disk.read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let disk = disk.fork();
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            disk.damage(&path, &bytes);
            match try_open(&disk, &dir(), 256) {
                Ok((.., replay)) => {
                    assert!(replay.len() >= 6, "bit {bit} of {}", path.display());
                    expect_frames(&replay, 1, replay.len() as u64);
                }
                Err(Error::DamagedFrame { .. } | Error::MissingFrames { .. }) => {}
                Err(error) => panic!("bit {bit} of {}: {error}", path.display()),
            }
        }
    }
}

#[test]
fn a_closed_log_shows_damage_even_in_its_last_frame() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    write(&mut log, 3);
    log.close().unwrap();
    let path = files(&disk, ".log").remove(0);
    let mut bytes = disk.read(&path).unwrap();
    let offset = HEADER + 2 * FRAME + payload(1).len() + payload(2).len();
    bytes[offset + FRAME] ^= 1;
    disk.damage(&path, &bytes);
    match refused(&disk) {
        Error::DamagedFrame {
            path: found,
            offset: at,
            seq,
            fault: Fault::Checksum { .. },
            proof: Proof::Synced(synced_seq),
        } => {
            assert_eq!((found, at as usize, seq, synced_seq), (path, offset, 3, 4), "the mark counts");
        }
        error => panic!("{error}"),
    }
}

#[test]
fn good_frames_behind_an_unsynced_tear_are_cut_and_counted() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 256);
    write(&mut log, 12);
    assert!(files(&disk, ".log").len() > 2);
    drop(log);
    let path = files(&disk, ".log").remove(0);
    let mut bytes = disk.read(&path).unwrap();
    bytes[HEADER + FRAME + payload(1).len() + 20] ^= 1;
    disk.damage(&path, &bytes);
    let segments: Vec<_> =
        files(&disk, ".log").iter().map(|path| (path.clone(), disk.read(path).unwrap())).collect();
    let disk = disk.reboot();
    let (mut log, recovered, replay) = open(&disk, 256);
    expect_frames(&replay, 1, 1);
    let cut = recovered.cut.unwrap();
    assert_eq!((cut.seq, cut.frames, &cut.path), (2, 10, &path));
    assert_eq!(disk.read(&path).unwrap().len() as u64, cut.offset);
    // What is cut is kept aside as it was, until it is discarded.
    assert_eq!(files(&disk, ".cut"), cut.kept);
    for ((path, bytes), kept) in segments.iter().zip(&cut.kept) {
        assert_eq!(*kept, PathBuf::from(format!("{}.2.cut", path.display())));
        assert!(disk.read(kept).unwrap() == *bytes, "{}", kept.display());
    }
    write(&mut log, 2);
    drop(log);
    let (_, recovered, replay) = open(&disk, 256);
    expect_frames(&replay, 1, 3);
    assert_eq!((recovered.cut, files(&disk, ".cut").len()), (None, segments.len()));
    assert_eq!(wal::discard_cut(&disk, &dir()).unwrap(), segments.len());
    assert!(files(&disk, ".cut").is_empty());
}

/// Everything that a process has written is there as long as the machine runs, whatever was synced.
#[test]
fn good_frames_behind_a_bad_one_are_damage_while_the_machine_runs() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 256);
    log.note_progress();
    write(&mut log, 12);
    drop(log);
    for (index, path) in files(&disk, ".log").into_iter().enumerate() {
        let disk = disk.fork();
        let mut bytes = disk.read(&path).unwrap();
        bytes[HEADER + FRAME] ^= 1;
        disk.damage(&path, &bytes);
        let error = refused(&disk);
        assert!(matches!(error, Error::DamagedFrame { proof: Proof::Written(12), .. }), "{index}: {error}");
        assert!(error.to_string().contains("since the machine was started"), "{error}");
        // A power cut can have done that.
        assert!(open(&disk.reboot(), 256).1.cut.is_some(), "{index}");
    }
}

#[test]
fn only_the_very_last_write_is_taken_for_torn_while_the_machine_runs() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    log.note_progress();
    write(&mut log, 5);
    drop(log);
    let path = files(&disk, ".log").remove(0);
    let whole = disk.read(&path).unwrap();
    let end = HEADER + (1..=5).map(|seq| FRAME + payload(seq).len()).sum::<usize>();
    disk.damage(&path, &whole[..end - 1]);
    let (_, recovered, replay) = open(&disk, 4096);
    expect_frames(&replay, 1, 4);
    assert_eq!(recovered.cut.map(|cut| (cut.seq, cut.frames, cut.kept)), Some((5, 0, vec![])));
}

/// What was written down beside the log is demanded, be it synced or not; not so after a power cut.
#[test]
fn frames_that_were_noted_are_missed() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    write(&mut log, 3);
    log.note_progress();
    let operations = disk.operations();
    log.note_progress();
    assert_eq!(disk.operations(), operations, "nothing has changed since");
    write(&mut log, 1);
    drop(log);
    let path = files(&disk, ".log").remove(0);
    let whole = disk.read(&path).unwrap();
    let ends: Vec<usize> = (0..=4)
        .map(|last| HEADER + (1..=last).map(|seq| FRAME + payload(seq).len()).sum::<usize>())
        .collect();
    for last in 0..3 {
        let disk = disk.fork();
        disk.damage(&path, &whole[..ends[last]]);
        let error = refused(&disk);
        assert!(matches!(error, Error::DamagedFrame { proof: Proof::Written(3), .. }), "{last}: {error}");
        expect_frames(&open(&disk.reboot(), 4096).2, 1, last as u64);
    }
    disk.damage(&path, &whole[..ends[3]]);
    expect_frames(&open(&disk, 4096).2, 1, 3);
}

#[test]
fn after_a_failed_sync_what_was_written_is_not_demanded() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 256);
    write(&mut log, 2);
    log.sync().unwrap();
    write(&mut log, 9);
    log.note_progress();
    log.begin_sync().unwrap();
    log.fail_sync();
    drop(log);
    let path = files(&disk, ".log").remove(1);
    disk.damage(&path, &[0; 256]);
    let (_, recovered, replay) = open(&disk, 256);
    assert!(!recovered.is_same_boot);
    expect_frames(&replay, 1, replay.len() as u64);
    assert!((2..9).contains(&replay.len()));
}

#[test]
fn a_snapshot_that_was_in_use_is_missed() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    take_snapshot(&mut log, b"of an empty log");
    write(&mut log, 2);
    drop(log);
    for disk in [disk.fork(), disk.reboot()] {
        disk.remove_file(&files(&disk, ".snapshot")[0]).unwrap();
        assert!(matches!(refused(&disk), Error::MissingSnapshot { position: 1, newest: None, .. }));
    }
}

#[test]
fn stale_frames_of_a_recycled_segment_are_not_replayed() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 512);
    // Frames of one length, so that the stale ones begin exactly where the live ones end.
    for _ in 0..9 {
        log.append(Kind::Batch, 1, b"same");
        log.flush().unwrap();
    }
    take_snapshot(&mut log, b"all");
    assert_eq!(files(&disk, "spare").len(), 1);
    log.append(Kind::Batch, 1, b"next");
    log.sync().unwrap();
    assert_eq!(files(&disk, "spare").len(), 0, "the segment is in use again");
    assert_eq!(disk.read(&files(&disk, ".log")[0]).unwrap()[HEADER + 2 * FRAME + 4..][..4], *b"same");
    let (_, recovered, replay) = open(&disk, 512);
    assert_eq!(replay, [(0, b"all".to_vec()), (10, b"next".to_vec())]);
    assert_eq!(recovered.cut, None);
}

// Damage

#[test]
fn a_missing_segment_is_named() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 256);
    for _ in 0..12 {
        write(&mut log, 1);
        log.sync().unwrap();
    }
    drop(log);
    let segments = files(&disk, ".log");
    for missing in 0..segments.len() {
        let disk = disk.fork();
        disk.remove_file(&segments[missing]).unwrap();
        match refused(&disk) {
            Error::MissingFrames { directory, next, seq, proof: Proof::Synced(synced_seq) } => {
                assert_eq!((directory, next.as_ref().map(|it| &it.0)), (dir(), segments.get(missing + 1)));
                assert!(next.is_none_or(|(_, first)| seq < first) && seq <= synced_seq);
            }
            error => panic!("{error}"),
        }
    }
}

/// After a snapshot there is no segment before it that could tell; nor when there is nothing at all.
#[test]
fn the_only_segment_and_the_only_snapshot_are_missed() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    write(&mut log, 2);
    take_snapshot(&mut log, b"state");
    write(&mut log, 1);
    log.sync().unwrap();
    drop(log);
    let (segments, snapshots) = (files(&disk, ".log"), files(&disk, ".snapshot"));
    assert_eq!((segments.len(), snapshots.len()), (1, 1));
    disk.remove_file(&segments[0]).unwrap();
    assert!(matches!(
        refused(&disk),
        Error::MissingFrames { seq: 3, proof: Proof::Synced(3), next: None, .. }
    ));
    disk.remove_file(&snapshots[0]).unwrap();
    assert!(matches!(refused(&disk), Error::MissingSnapshot { position: 3, newest: None, .. }));
}

#[test]
fn an_opened_log_is_missed_before_it_is_written_again() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    write(&mut log, 2);
    drop(log);
    open(&disk, 4096);
    disk.remove_file(&files(&disk, ".log")[0]).unwrap();
    assert!(matches!(
        refused(&disk),
        Error::MissingFrames { seq: 1, proof: Proof::Synced(2), next: None, .. }
    ));
}

#[test]
fn a_file_synced_that_is_not_whole_promises_nothing() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    write(&mut log, 2);
    log.sync().unwrap();
    drop(log);
    let synced = dir().join("synced");
    let good = disk.read(&synced).unwrap();
    disk.remove_file(&files(&disk, ".log")[0]).unwrap();
    for bit in 0..good.len() * 8 {
        let disk = disk.fork();
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        disk.damage(&synced, &bytes);
        match try_open(&disk, &dir(), 4096) {
            Ok((.., replay)) => assert_eq!(replay, [], "bit {bit}"),
            Err(error) => panic!("bit {bit}: {error}"),
        }
    }
}

#[test]
fn any_damage_to_a_snapshot_is_found() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 256);
    write(&mut log, 2);
    take_snapshot(&mut log, b"state");
    write(&mut log, 2);
    drop(log);
    let path = files(&disk, ".snapshot").remove(0);
    let good = disk.read(&path).unwrap();
    let find = |bytes: &[u8], what: &str| {
        let disk = disk.fork();
        disk.damage(&path, bytes);
        match refused(&disk) {
            Error::DamagedSnapshot { path: found, .. } => assert_eq!(found, path),
            error => panic!("{what}: {error}"),
        }
    };
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        find(&bytes, "flip");
    }
    for len in 0..good.len() {
        find(&good[..len], "cut");
    }
    find(&[&good[..], b"\0"].concat(), "surplus");
}

#[test]
fn a_log_that_ends_before_what_the_snapshot_shows_is_refused() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    let writer = log.begin_snapshot().unwrap();
    write(&mut log, 5);
    let mut ending = log.end_snapshot(writer).unwrap();
    assert!(!log.cover(&mut ending).unwrap(), "the frames that it shows are not on disk");
    log.sync().unwrap();
    assert!(log.cover(&mut ending).unwrap());
    ending.finish().unwrap();
    drop(log);
    expect_frames(&open(&disk, 4096).2, 1, 5);
    let path = files(&disk, ".log").remove(0);
    let bytes = disk.read(&path).unwrap();
    disk.damage(&path, &bytes[..HEADER + FRAME + payload(1).len()]);
    assert!(matches!(refused(&disk), Error::DamagedFrame { seq: 2, proof: Proof::Synced(5), .. }));
    disk.remove_file(&path).unwrap();
    assert!(matches!(
        refused(&disk),
        Error::MissingFrames { seq: 1, proof: Proof::Synced(5), next: None, .. }
    ));
}

#[test]
fn a_directory_of_another_shard_is_refused() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    write(&mut log, 1);
    let other = Place { shard_index: 2, ..PLACE };
    let found = wal::check(&disk, &dir(), other, |_| Ok::<_, Error>(()));
    assert!(matches!(found, Err(Error::WrongShard { expected: (2, 4), found: (1, 4), .. })));
}

#[test]
fn a_refusal_names_the_place_what_had_to_be_there_and_what_is() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    write(&mut log, 3);
    log.close().unwrap();
    let path = files(&disk, ".log").remove(0);
    let mut bytes = disk.read(&path).unwrap();
    bytes[HEADER + FRAME] ^= 1;
    disk.damage(&path, &bytes);
    let text = refused(&disk).to_string();
    for part in ["/shard/00000000000000000001.log at byte 48:", "expected frame 1", "found the checksum"] {
        assert!(text.contains(part), "{part} in: {text}");
    }
}

// Failing disks

#[test]
fn a_failed_write_is_repeated_in_a_fresh_segment() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    write(&mut log, 3);
    log.append(Kind::Batch, 1, &payload(4));
    log.append(Kind::Batch, 1, &payload(5));
    disk.fail_from(1, std::io::ErrorKind::StorageFull);
    for _ in 0..3 {
        assert!(log.flush().unwrap_err().is_disk_full());
        assert_eq!(log.written_seq(), 3);
    }
    disk.heal();
    assert_eq!(log.flush().unwrap(), 5);
    write(&mut log, 1);
    log.close().unwrap();
    let (_, recovered, replay) = open(&disk, 4096);
    expect_frames(&replay, 1, 6);
    assert_eq!(recovered.cut, None);
}

#[test]
fn a_snapshot_is_overtaken_by_a_sync_that_fails_before_it_ends() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    let writer = log.begin_snapshot().unwrap();
    write(&mut log, 2);
    let mut ending = log.end_snapshot(writer).unwrap();
    assert!(!log.cover(&mut ending).unwrap());
    let ticket = log.begin_sync().unwrap();
    disk.fail_once(1, std::io::ErrorKind::Other);
    assert!(ticket.run().is_err());
    // The system has told of its failure once: a second sync by the snapshot itself would succeed.
    log.fail_sync();
    assert!(matches!(log.cover(&mut ending), Err(Error::SnapshotOvertaken { .. })));
}

#[test]
fn after_a_failed_sync_only_a_snapshot_makes_the_log_durable_again() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    write(&mut log, 2);
    log.sync().unwrap();
    write(&mut log, 2);
    let overtaken = log.begin_snapshot().unwrap();
    write(&mut log, 1);
    let (failing, other) = (log.begin_sync().unwrap(), log.begin_sync().unwrap());
    disk.fail_once(1, std::io::ErrorKind::Other);
    assert!(failing.run().is_err());
    log.fail_sync();
    other.run().unwrap();
    assert_eq!(log.finish_sync(&other), 2, "a sync that was under way proves nothing");
    assert!(log.begin_sync().is_none() && log.needs_snapshot());
    assert!(matches!(log.sync(), Err(Error::SyncFailedBefore { .. })));
    assert!(matches!(log.end_snapshot(overtaken), Err(Error::SnapshotOvertaken { .. })));
    write(&mut log, 1);
    assert_eq!(log.written_seq(), 6);
    take_snapshot(&mut log, b"everything");
    assert_eq!((log.durable_seq(), log.needs_snapshot()), (6, false));
    write(&mut log, 1);
    assert_eq!(log.sync().unwrap(), 7);
    for seed in 0..8 {
        let (.., replay) = open(&disk.fork().power_cut(seed), 4096);
        assert_eq!(replay, [(0, b"everything".to_vec()), (7, payload(7))]);
    }
}

#[test]
fn a_frame_whose_write_failed_never_comes_back_under_later_ones() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    write(&mut log, 1);
    log.sync().unwrap();
    // The half that is written is one whole frame; of the second try, in a fresh segment, the file header is.
    log.append(Kind::Batch, 1, b"gone");
    log.append(Kind::Batch, 1, b"gone");
    disk.fail_once(1, std::io::ErrorKind::Other);
    log.flush().unwrap_err();
    disk.fail_once(3, std::io::ErrorKind::Other);
    log.flush().unwrap_err();
    drop(log);

    let (mut log, recovered, _) = open(&disk, 4096);
    assert_eq!(recovered.next_seq, 2);
    write(&mut log, 1);
    let _ends_the_segment = log.begin_snapshot().unwrap();
    write(&mut log, 1);
    let mut outcomes = [0; 4];
    for seed in 0..300 {
        let (.., replay) = open(&disk.fork().power_cut(seed), 4096);
        expect_frames(&replay, 1, replay.len() as u64);
        outcomes[replay.len()] += 1;
    }
    assert!(outcomes[1..].iter().all(|count| *count > 0), "{outcomes:?}");
}

#[test]
fn a_sync_that_fails_late_counts_for_whatever_its_files_hold_by_then() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    write(&mut log, 1);
    let late = log.begin_sync().unwrap();
    let failing = log.begin_sync().unwrap();
    disk.fail_once(1, std::io::ErrorKind::Other);
    assert!(failing.run().is_err());
    log.fail_sync();
    // The snapshot makes up for that failure, and the segment begins its second life.
    take_snapshot(&mut log, b"one");
    write(&mut log, 1);
    assert_eq!(files(&disk, ".log").len(), 1, "the segment is recycled");
    // What the segment holds now is what this sync did not bring to disk, and no other one is told.
    disk.fail_once(1, std::io::ErrorKind::Other);
    assert!(late.run().is_err());
    log.fail_sync();
    assert!(matches!(log.sync(), Err(Error::SyncFailedBefore { .. })));
    take_snapshot(&mut log, b"two");
    write(&mut log, 1);
    assert_eq!(log.sync().unwrap(), 3);
    for seed in 0..8 {
        let (.., replay) = open(&disk.fork().power_cut(seed), 4096);
        assert_eq!(replay, [(0, b"two".to_vec()), (3, payload(3))]);
    }
}

#[test]
fn the_length_of_a_snapshot_in_progress_is_known_and_its_file_can_be_synced() {
    let disk = empty_disk();
    let (mut log, ..) = open(&disk, 4096);
    let mut writer = log.begin_snapshot().unwrap();
    writer.append(Kind::Batch, 1, &[1; 300_000]).unwrap();
    assert_eq!(writer.bytes() as usize, HEADER + FRAME + 300_000);
    assert_eq!(writer.file().len().unwrap(), writer.bytes(), "a large buffer is written at once");
    writer.file().sync_data().unwrap();
    drop(writer);
    drop(log);
    open(&disk, 4096);
    assert_eq!(disk.list(&dir()).unwrap(), ["synced"], "an abandoned snapshot leaves nothing");
}

/// How many bytes from the start of a file on have been written, and not only allocated.
fn filled_bytes(path: &Path) -> u64 {
    let file = std::fs::File::open(path).unwrap();
    match rustix::fs::seek(&file, SeekFrom::Data(0)) {
        Ok(0) => rustix::fs::seek(&file, SeekFrom::Hole(0)).unwrap(),
        Ok(_) | Err(rustix::io::Errno::NXIO) => 0,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

#[test]
fn a_log_that_fills_its_segments_writes_no_frame_into_room_that_is_only_allocated() {
    const MIB: u64 = 1 << 20;
    let root = tempfile::tempdir().unwrap();
    let segments = || {
        let files = std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut segments: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|it| it == "log")).collect();
        segments.sort();
        segments
    };
    let expect_filled = |what: &str| {
        for path in segments() {
            assert_eq!(filled_bytes(&path), path.metadata().unwrap().len(), "{what}: {}", path.display());
        }
    };
    let reserve = root.path().join("reserve");
    {
        let (mut log, ..) = try_open(&OsDisk::default(), root.path(), MIB).unwrap();
        log.reserve().unwrap();
        assert_eq!(filled_bytes(&reserve), 0, "usually it is allocated, and this file system tells so");
        log.append(Kind::Batch, 1, b"first");
        log.flush().unwrap();
        assert!(filled_bytes(&segments()[0]) < MIB);
    }
    let (mut log, ..) = try_open(&OsDisk::default(), root.path(), MIB).unwrap();
    log.fill_segments();
    // The old segment has the usual size, and what of it is filled is not known.
    let writer = log.begin_snapshot().unwrap();
    let snapshot = log.finish_snapshot(writer).unwrap();
    assert!(log.retire(&snapshot).clear().unwrap().is_none(), "it is not recycled");
    // No spare is ever ready.
    log.reserve().unwrap();
    assert_eq!(filled_bytes(&reserve), MIB);
    for bytes in [100, MIB / 2, MIB / 2, MIB / 2, 3 * MIB, 100, MIB - 1000] {
        log.append(Kind::Batch, 1, &vec![1; bytes as usize]);
        log.sync().unwrap();
        expect_filled(&format!("a frame of {bytes} bytes"));
        log.reserve().unwrap();
    }
    assert!(segments().len() > 3, "they are used in turn: {:?}", segments());
}

#[test]
fn segments_ahead_of_need_follow_use() {
    const MIB: u64 = 1 << 20;
    let root = tempfile::tempdir().unwrap();
    let taken = || -> Vec<u64> {
        let files = std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap());
        let named = files.filter(|file| file.file_name() == "spare" || file.file_name() == "reserve");
        named.map(|file| file.metadata().unwrap().len() / MIB).collect()
    };
    let newest = || {
        let files = std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap());
        let segments = files.filter(|file| file.file_name().to_string_lossy().ends_with(".log"));
        segments.max_by_key(std::fs::DirEntry::file_name).unwrap().metadata().unwrap().len() / MIB
    };
    for start in 0..2 {
        let (mut log, ..) = try_open(&OsDisk::default(), root.path(), 64 * MIB).unwrap();
        log.reserve().unwrap();
        let spare = log.prepare().unwrap().run().unwrap();
        log.adopt(spare);
        assert_eq!(taken(), [4, 4], "what an idle log takes, start {start}");
        let mut sizes = Vec::new();
        for _ in 0..200 {
            log.append(Kind::Batch, 1, &vec![1; MIB as usize]);
            log.flush().unwrap();
            if sizes.last() != Some(&newest()) {
                sizes.push(newest());
            }
            if let Some(preparation) = log.prepare() {
                log.adopt(preparation.unfilled().run().unwrap());
            }
        }
        // The reserve that was made at the start is used up only when no spare is there.
        assert_eq!(sizes, [4, 8, 16, 32, 64], "start {start}");
        log.close().unwrap();
    }
    // A large frame has a segment that holds it, and no more than is asked for.
    let (mut log, ..) = try_open(&OsDisk::default(), root.path(), 64 * MIB).unwrap();
    log.append(Kind::Batch, 1, &vec![1; 20 * MIB as usize]);
    log.flush().unwrap();
    assert_eq!(newest(), 32);
}
