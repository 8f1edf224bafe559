//! The log and its directory against files that are cut, damaged, missing, stale or locked.

// Clippy takes only functions marked as tests for tests; this whole file is one.
#![allow(clippy::unwrap_used)]

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

// The directory

const NO_WAIT: Duration = Duration::ZERO;

fn data() -> &'static Path {
    Path::new("/data")
}

fn open_data(disk: &MemDisk) -> Result<DataDir<MemDisk>, Error> {
    DataDir::open(disk.clone(), data(), NO_WAIT)
}

#[test]
fn a_new_layout_counts_once_it_is_active() {
    let disk = MemDisk::default();
    let mut data_dir = open_data(&disk).unwrap();
    assert_eq!(data_dir.layout(), None);
    let first = data_dir.create_layout(2, TAG).unwrap();
    data_dir.activate(first.clone()).unwrap();
    let second = data_dir.create_layout(3, TAG).unwrap();
    assert_eq!((first.id, second.id), (1, 2));
    let place = Place { shard_index: 2, shard_count: 3, tag: TAG };
    let mut writer = SnapshotWriter::create(&disk, &second.shard_dir(2), place).unwrap();
    writer.append(Kind::Batch, 1, b"moved").unwrap();
    writer.finish().unwrap();
    drop(data_dir);

    let mut data_dir = open_data(&disk).unwrap();
    assert_eq!(data_dir.layout(), Some(&first));
    assert!(
        disk.open_dir(&second.shard_dir(2)).is_ok(),
        "nothing is removed before the layout that counts is read"
    );
    data_dir.remove_leftovers().unwrap();
    assert!(disk.open_dir(&second.shard_dir(2)).is_err(), "an unfinished layout is removed");
    let second = data_dir.create_layout(3, TAG).unwrap();
    let mut writer = SnapshotWriter::create(&disk, &second.shard_dir(2), place).unwrap();
    writer.append(Kind::Batch, 1, b"moved").unwrap();
    writer.finish().unwrap();
    data_dir.activate(second.clone()).unwrap();
    assert!(disk.open_dir(&first.shard_dir(0)).is_err(), "the old layout is removed");
    drop(data_dir);

    let data_dir = open_data(&disk).unwrap();
    assert_eq!(data_dir.layout(), Some(&second));
    let mut replay = Vec::new();
    let (mut log, recovered) = Log::recover(&disk, &second.shard_dir(2), place, 4096, |record| {
        replay.extend_from_slice(record.payload);
        Ok::<_, Error>(())
    })
    .unwrap();
    assert_eq!((replay.as_slice(), recovered.next_seq), (&b"moved"[..], 1));
    assert_eq!(log.append(Kind::Batch, 1, b"next"), 1);
    log.close().unwrap();
}

#[test]
fn a_directory_that_is_being_filled_is_refused_until_it_is_complete() {
    let fill = |disk: &MemDisk| {
        let mut data_dir = DataDir::begin(disk.clone(), data(), NO_WAIT)?;
        let layout = data_dir.create_layout(1, TAG)?;
        let mut writer = SnapshotWriter::create(disk, &layout.shard_dir(0), layout.place(0))?;
        writer.append(Kind::Batch, 1, b"salvaged")?;
        writer.finish()?;
        data_dir.activate(layout)
    };
    let mut counted = [0, 0];
    for stop in 1.. {
        let disk = MemDisk::default();
        disk.fail_from(stop, std::io::ErrorKind::StorageFull);
        let filled = fill(&disk);
        for left in [disk.fork(), disk.power_cut(stop)] {
            left.heal();
            // Nothing tells a directory without any file from a new one.
            if left.list(data()).is_ok_and(|names| !names.is_empty()) {
                let opened = open_data(&left);
                counted[usize::from(opened.is_ok())] += 1;
                match opened {
                    Ok(opened) => {
                        assert!(opened.layout().is_some(), "stop {stop}: it is taken for a new one");
                    }
                    Err(error) => assert!(matches!(error, Error::Unfinished { .. }), "stop {stop}: {error}"),
                }
            }
        }
        if filled.is_ok() {
            break;
        }
    }
    assert!(counted.iter().all(|count| *count > 0), "{counted:?}");
}

#[test]
fn the_manifest_is_the_one_that_is_drawn_and_no_damage_passes() {
    let disk = MemDisk::default();
    let mut data_dir = open_data(&disk).unwrap();
    let layout = data_dir.create_layout(4, TAG).unwrap();
    data_dir.activate(layout).unwrap();
    drop(data_dir);
    let path = data().join("MANIFEST");
    let good = disk.read(&path).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&good),
        "kvlite manifest 3\nlayout 1\nshards 4\ntag 0a0b0c0d\ncrc32 e291bd12\n"
    );
    for bit in 0..good.len() * 8 {
        let disk = disk.fork();
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        disk.damage(&path, &bytes);
        assert!(matches!(open_data(&disk), Err(Error::DamagedManifest { .. })), "bit {bit}");
    }
    for len in 0..good.len() {
        let disk = disk.fork();
        disk.damage(&path, &good[..len]);
        assert!(matches!(open_data(&disk), Err(Error::DamagedManifest { .. })), "cut at {len}");
    }
    for shards in ["0", "65536", "4000000000", "-1"] {
        let disk = disk.fork();
        let lines = format!("kvlite manifest 3\nlayout 1\nshards {shards}\ntag 0a0b0c0d\n");
        let crc = crc32fast::hash(lines.as_bytes());
        disk.damage(&path, format!("{lines}crc32 {crc:08x}\n").as_bytes());
        assert!(matches!(open_data(&disk), Err(Error::DamagedManifest { .. })), "{shards} shards");
    }
    disk.damage(&path, b"kvlite manifest 4\nwhatever it says\ncrc32 eb70095a\n");
    assert!(matches!(open_data(&disk), Err(Error::NewerVersion { found: 4, supported: 3, .. })));
}

#[test]
fn log_files_without_a_manifest_are_never_taken_for_an_empty_directory() {
    let disk = MemDisk::default();
    let mut data_dir = open_data(&disk).unwrap();
    let layout = data_dir.create_layout(1, TAG).unwrap();
    drop(data_dir);
    assert_eq!(open_data(&disk).unwrap().layout(), None, "empty directories are an unfinished start");

    data_dir = open_data(&disk).unwrap();
    let layout = data_dir.create_layout(layout.shards, TAG).unwrap();
    data_dir.activate(layout.clone()).unwrap();
    let place = Place { shard_index: 0, shard_count: 1, tag: TAG };
    let (mut log, _) =
        Log::recover(&disk, &layout.shard_dir(0), place, 4096, |_| Ok::<_, Error>(())).unwrap();
    log.append(Kind::Batch, 1, b"x");
    log.close().unwrap();
    drop(data_dir);
    disk.remove_file(&data().join("MANIFEST")).unwrap();
    match open_data(&disk).unwrap_err() {
        Error::MissingManifest { path, found } => {
            assert!(found.starts_with(layout.shard_dir(0)));
            for path in [path, found, layout.shard_dir(0)] {
                assert_eq!(wal::data_dir_of(&path), Some(data()), "{}", path.display());
            }
        }
        error => panic!("{error}"),
    }
    assert!(disk.open_dir(&layout.shard_dir(0)).is_ok(), "nothing is removed");
}

/// A data directory with a log of three frames in each of two shards.
fn two_logs() -> (MemDisk, wal::Layout) {
    two_logs_of(TAG)
}

fn two_logs_of(tag: u32) -> (MemDisk, wal::Layout) {
    let disk = MemDisk::default();
    let mut data_dir = open_data(&disk).unwrap();
    let layout = data_dir.create_layout(2, tag).unwrap();
    data_dir.activate(layout.clone()).unwrap();
    for shard_index in 0..2 {
        let place = layout.place(shard_index);
        let directory = layout.shard_dir(shard_index);
        let (mut log, _) = Log::recover(&disk, &directory, place, 4096, |_| Ok::<_, Error>(())).unwrap();
        write(&mut log, 3);
        log.close().unwrap();
    }
    (disk, layout)
}

#[test]
fn what_is_known_of_a_log_without_a_manifest_is_never_taken_for_an_empty_directory() {
    let (disk, layout) = two_logs();
    let own = layout.shard_dir(0);
    disk.remove_file(&data().join("MANIFEST")).unwrap();
    for directory in [&own, &layout.shard_dir(1)] {
        for name in disk.list(directory).unwrap().iter().filter(|name| name.ends_with(".log")) {
            disk.remove_file(&directory.join(name)).unwrap();
        }
    }
    for left in [own.join("synced"), layout.shard_dir(1).join("synced"), data().join("layout-1.synced")] {
        let error = open_data(&disk).unwrap_err();
        assert!(matches!(&error, Error::MissingManifest { found, .. } if *found == left), "{error}");
        disk.remove_file(&left).unwrap();
    }
    assert_eq!(open_data(&disk).unwrap().layout(), None, "nothing tells of any data");
}

/// How many records each shard has, as a start reads them, or why it does not; and whether a note of it was lacking.
fn start(disk: &MemDisk, layout: &wal::Layout) -> Result<Vec<(usize, bool)>, Error> {
    open_data(disk)?;
    let each = (0..layout.shards).map(|shard_index| {
        let mut records = 0;
        let (_, recovered) =
            Log::recover(disk, &layout.shard_dir(shard_index), layout.place(shard_index), 4096, |_| {
                records += 1;
                Ok::<_, Error>(())
            })?;
        Ok((records, recovered.lacking_synced.is_some()))
    });
    each.collect()
}

#[test]
fn one_of_the_two_places_that_tell_of_a_log_will_do_and_the_other_is_written_again() {
    let (disk, layout) = two_logs();
    let own = layout.shard_dir(1).join("synced");
    let slots = data().join("layout-1.synced");
    for (path, lacking) in [(&own, [false, true]), (&slots, [true, true])] {
        let damages: [&dyn Fn(&MemDisk); 3] =
            [&|disk| disk.remove_file(path).unwrap(), &|disk| disk.damage(path, b""), &|disk| {
                disk.damage(path, &vec![0; disk.read(path).unwrap().len()]);
            }];
        for (index, damage) in damages.iter().enumerate() {
            let disk = disk.fork();
            damage(&disk);
            let what = format!("damage {index} of {}", path.display());
            assert_eq!(start(&disk, &layout).unwrap(), [(3, lacking[0]), (3, lacking[1])], "{what}");
            assert_eq!(start(&disk, &layout).unwrap(), [(3, false), (3, false)], "{what}, again");
        }
        // Each of both tells that the log is missing.
        let disk = disk.fork();
        disk.remove_file(path).unwrap();
        disk.remove_file(&layout.shard_dir(1).join("00000000000000000001.log")).unwrap();
        assert!(matches!(start(&disk, &layout), Err(Error::MissingFrames { seq: 1, .. })));
    }
    disk.remove_file(&own).unwrap();
    disk.remove_file(&slots).unwrap();
    for _ in 0..2 {
        assert!(
            matches!(start(&disk, &layout), Err(Error::MissingSynced { path, copy }) if (&path, &copy) == (&own, &slots))
        );
    }
}

/// Other programs' files among the directories harm nothing, and do not stay where a layout is removed.
#[test]
fn a_stray_file_where_directories_belong_does_no_harm() {
    let (disk, layout) = two_logs();
    disk.create_dir_all(Path::new("/data/layout-7")).unwrap();
    for path in ["/data/layout-1/.DS_Store", "/data/layout-7/notes.txt", "/data/layout-9"] {
        disk.damage(Path::new(path), b"x");
    }
    start(&disk, &layout).unwrap();
    let mut data_dir = open_data(&disk).unwrap();
    let second = data_dir.create_layout(1, TAG).unwrap();
    data_dir.activate(second.clone()).unwrap();
    drop(data_dir);
    assert_eq!(open_data(&disk).unwrap().layout(), Some(&second));
    assert!(disk.open_dir(&layout.shard_dir(0)).is_err(), "the old layout is removed");
}

/// Puts files of one disk on another one, under the same names.
fn transplant<'p>(from: &MemDisk, to: &MemDisk, paths: impl IntoIterator<Item = &'p PathBuf>) {
    paths.into_iter().for_each(|path| to.damage(path, &from.read(path).unwrap()));
}

#[test]
fn files_of_another_data_directory_are_refused() {
    let ((disk, layout), (other, _)) = (two_logs(), two_logs_of(TAG + 1));
    let directory = layout.shard_dir(1);
    let segment = directory.join("00000000000000000001.log");
    let (own, slots) = (directory.join("synced"), data().join("layout-1.synced"));
    for taken in [vec![&segment], vec![&segment, &own], vec![&segment, &slots], vec![&own, &slots]] {
        let disk = disk.fork();
        transplant(&other, &disk, taken.iter().copied());
        let error = start(&disk, &layout).unwrap_err();
        let (expected, found) = (TAG, TAG + 1);
        assert!(
            matches!(&error, Error::OtherLayout { path, expected: e, found: f }
                if taken.contains(&path) && (*e, *f) == (expected, found)),
            "{taken:?}: {error}"
        );
        let salvage = Salvage::plan(&disk, &directory, layout.place(1)).unwrap();
        let is_named = |loss: &Loss| matches!(loss, Loss::OtherLayout { path, .. } if *path == segment);
        assert_eq!(
            salvage.losses().iter().any(is_named),
            taken.contains(&&segment),
            "{:?}",
            salvage.losses()
        );
    }
    // What is known of the log is known from the other place as well.
    transplant(&other, &disk, [&own]);
    assert_eq!(start(&disk, &layout).unwrap(), [(3, false), (3, true)]);
}

/// Both were one directory, and have the same tag.
#[test]
fn files_of_a_copy_that_went_on_are_refused() {
    let (disk, layout) = two_logs();
    let copy = disk.fork();
    let directory = layout.shard_dir(1);
    for (disk, payload) in [(&disk, b"original"), (&copy, b"the copy")] {
        let (mut log, _) =
            Log::recover(disk, &directory, layout.place(1), 4096, |_| Ok::<_, Error>(())).unwrap();
        for _ in 0..3 {
            log.append(Kind::Batch, 1, payload);
            let durable_seq = log.sync().unwrap();
            log.settle(durable_seq);
            log.note_progress();
        }
        log.close().unwrap();
    }
    let names = disk.list(&directory).unwrap();
    let newest: PathBuf = directory.join(names.iter().rfind(|name| name.ends_with(".log")).unwrap());
    let all: Vec<_> = copy.list(&directory).unwrap().iter().map(|name| directory.join(name)).collect();
    for taken in [vec![newest.clone()], all] {
        let disk = disk.fork();
        transplant(&copy, &disk, &taken);
        let error = start(&disk, &layout).unwrap_err();
        assert!(matches!(&error, Error::OtherFrame { path, .. } if *path == newest), "{taken:?}: {error}");
        let salvage = Salvage::plan(&disk, &directory, layout.place(1)).unwrap();
        let is_named = |loss: &Loss| matches!(loss, Loss::OtherFrame { path, .. } if *path == newest);
        assert!(salvage.losses().iter().any(is_named), "{:?}", salvage.losses());
    }
    // Each of both is sound.
    assert!(start(&disk, &layout).is_ok() && start(&copy, &layout).is_ok());
}

/// That it is there is on disk before what it replaces is gone.
#[test]
fn a_missing_snapshot_is_missed_also_after_a_power_cut() {
    for seed in 0..32 {
        let (disk, layout) = two_logs();
        let directory = layout.shard_dir(1);
        let (mut log, _) =
            Log::recover(&disk, &directory, layout.place(1), 4096, |_| Ok::<_, Error>(())).unwrap();
        write(&mut log, 3);
        let mut writer = log.begin_snapshot().unwrap();
        writer.append(Kind::Batch, 1, b"all").unwrap();
        let snapshot = log.finish_snapshot(writer).unwrap();
        log.retire(&snapshot).clear().unwrap();
        let disk = disk.power_cut(seed);
        disk.remove_file(&snapshot.path).unwrap();
        let error = start(&disk, &layout).unwrap_err();
        assert!(matches!(&error, Error::MissingSnapshot { .. }), "seed {seed}: {error}");
    }
}

/// There may be more segments than the process may open files.
#[test]
fn a_replay_has_few_files_open() {
    let directory = tempfile::tempdir().unwrap();
    let disk = OsDisk::default();
    let (mut log, _, _) = try_open(&disk, directory.path(), 256).unwrap();
    for _ in 0..100 {
        log.append(Kind::Batch, 1, &[7; 100]);
        log.flush().unwrap();
    }
    log.close().unwrap();
    let segments = disk.list(directory.path()).unwrap().iter().filter(|name| name.ends_with(".log")).count();
    let open_files = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
        targets.filter(|target| target.starts_with(directory.path())).count()
    };
    let mut open_max = 0;
    wal::check(&disk, directory.path(), PLACE, |_| {
        open_max = open_max.max(open_files());
        Ok::<_, Error>(())
    })
    .unwrap();
    assert!(segments >= 50 && (1..=2).contains(&open_max), "{open_max} open files, {segments} segments");
}

/// What a start would have to remove or to write over, and cannot.
#[test]
fn a_directory_under_the_name_of_a_file_is_refused() {
    for name in ["spare", "reserve", "staged", "snapshot.tmp", "synced", "00000000000000000009.log"] {
        let (disk, layout) = two_logs();
        let path = layout.shard_dir(1).join(name);
        if disk.open(&path).is_ok() {
            disk.remove_file(&path).unwrap();
        }
        disk.create_dir_all(&path).unwrap();
        let error = start(&disk, &layout).unwrap_err();
        assert!(matches!(&error, Error::Io { path: named, .. } if *named == path), "{name}: {error}");
    }
}

#[test]
fn an_emptied_or_older_directory_of_a_shard_is_refused() {
    let (disk, layout) = two_logs();
    let directory = layout.shard_dir(1);
    let names = disk.list(&directory).unwrap();
    let older: Vec<_> =
        names.iter().map(|name| (directory.join(name), disk.read(&directory.join(name)).unwrap())).collect();
    let (mut log, _) =
        Log::recover(&disk, &directory, layout.place(1), 4096, |_| Ok::<_, Error>(())).unwrap();
    write(&mut log, 2);
    log.close().unwrap();
    for name in disk.list(&directory).unwrap() {
        disk.remove_file(&directory.join(name)).unwrap();
    }
    assert!(matches!(start(&disk, &layout), Err(Error::MissingFrames { seq: 1, .. })));
    for (path, bytes) in older {
        disk.damage(&path, &bytes);
    }
    assert!(matches!(
        start(&disk, &layout),
        Err(Error::DamagedFrame { seq: 5, .. } | Error::MissingFrames { seq: 5, .. })
    ));
}

#[test]
fn a_manifest_that_names_an_older_layout_than_the_one_in_use_is_refused() {
    let (disk, first) = two_logs();
    let manifest = data().join("MANIFEST");
    let older = disk.read(&manifest).unwrap();
    let mut data_dir = open_data(&disk).unwrap();
    let second = data_dir.create_layout(1, TAG).unwrap();
    data_dir.activate(second.clone()).unwrap();
    drop(data_dir);
    let (mut log, _) =
        Log::recover(&disk, &second.shard_dir(0), second.place(0), 4096, |_| Ok::<_, Error>(())).unwrap();
    write(&mut log, 1);
    drop(log);
    disk.damage(&manifest, &older);
    for shard_index in 0..2 {
        disk.create_dir_all(&first.shard_dir(shard_index)).unwrap();
    }
    assert!(matches!(open_data(&disk), Err(Error::NewerLayout { .. })));
    assert!(disk.open_dir(&second.shard_dir(0)).is_ok(), "nothing is removed");
}

#[test]
fn a_directory_that_the_manifest_names_has_to_exist() {
    let disk = MemDisk::default();
    let mut data_dir = open_data(&disk).unwrap();
    let layout = data_dir.create_layout(2, TAG).unwrap();
    data_dir.activate(layout.clone()).unwrap();
    drop(data_dir);
    disk.remove_dir_all(&layout.shard_dir(1)).unwrap();
    assert!(matches!(open_data(&disk), Err(Error::MissingDirectory { path }) if path == layout.shard_dir(1)));
}

#[test]
fn two_owners_never_share_a_directory() {
    let disk = MemDisk::default();
    let first = open_data(&disk).unwrap();
    let error = open_data(&disk).unwrap_err();
    assert!(matches!(&error, Error::Locked { path } if *path == data().join("LOCK")), "{error}");
    drop(first);
    open_data(&disk).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/data");
    let first = DataDir::open(OsDisk::default(), &path, NO_WAIT).unwrap();
    assert!(matches!(
        DataDir::open(OsDisk::default(), &path, Duration::from_millis(40)),
        Err(Error::Locked { .. })
    ));
    drop(first);
    DataDir::open(OsDisk::default(), &path, NO_WAIT).unwrap();
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
