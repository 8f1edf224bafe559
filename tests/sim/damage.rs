use std::path::{Path, PathBuf};

use wal::{Disk, Error, MemDisk};

use crate::dice::{Dice, each_seed};
use crate::requests::Mix;
use crate::worker::{Habits, History, Worker, content, directory, new_disk, recover};

const FILE_HEADER_BYTES: usize = 48;
const FRAME_HEADER_BYTES: usize = 40;
const HASH_SEED: u64 = 1;

fn habits(segment_bytes: u64) -> Habits {
    let mix = Mix { keys: 7, keys_per_request: 2 };
    Habits { mix, segment_bytes, slice_keys: 3, snapshot_frame_bytes: 60, always: false }
}

/// What a small run of a worker left.
struct Run {
    disk: MemDisk,
    habits: Habits,
    history: History,
    now_ms: u64,
    /// Frames up to this one were on disk, as a snapshot says.
    promised_seq: u64,
}

/// Some short turns without a sync, with a snapshot among them if asked for; then a kill.
fn small_run(dice: &mut Dice, segment_bytes: u64, frames: u64, with_snapshot: bool) -> Run {
    let disk = new_disk();
    let habits = habits(segment_bytes);
    let mut worker = Worker::new(&disk, habits, 1_000_000, HASH_SEED);
    worker.log.note_progress();
    let mut promised_seq = 0;
    if with_snapshot {
        write_frames(&mut worker, dice, frames);
        promised_seq = worker.snapshot(dice);
    }
    write_frames(&mut worker, dice, frames);
    let (now_ms, history) = (worker.now_ms, worker.history);
    Run { disk, habits, history, now_ms, promised_seq }
}

/// The same after another start of the machine, which may have taken back what was not synced.
fn rebooted(run: Run) -> Run {
    Run { disk: run.disk.reboot(), ..run }
}

fn write_frames(worker: &mut Worker, dice: &mut Dice, count: u64) {
    let end = worker.history.last_seq() + count;
    while worker.history.last_seq() < end {
        let call = worker_call(dice);
        worker.execute(&call);
        worker.log_changes(wal::Kind::Batch);
        worker.log.flush().unwrap();
    }
}

/// A request with little in it.
fn worker_call(dice: &mut Dice) -> crate::requests::Call {
    loop {
        let call = habits(0).mix.call(dice);
        if call.args.iter().map(Vec::len).sum::<usize>() < 40 {
            return call;
        }
    }
}

/// A log segment: its file, its bytes, and the ends of its frames with their sequence numbers.
type Segment = (PathBuf, Vec<u8>, Vec<(usize, u64)>);

/// The log segments in order.
fn segments(disk: &MemDisk) -> Vec<Segment> {
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let names = disk.list(directory()).unwrap();
    let mut next_seq = None;
    let paths = names.iter().filter(|name| name.ends_with(".log")).map(|name| directory().join(name));
    let read = |path: PathBuf| {
        let bytes = disk.read(&path).unwrap();
        let (mut at, mut ends) = (FILE_HEADER_BYTES, Vec::new());
        while let Some(header) = bytes.get(at..at + FRAME_HEADER_BYTES) {
            let (len, seq) = (number(&header[4..8]) as usize, number(&header[8..16]));
            if len == 0 || next_seq.is_some_and(|next| next != seq) {
                break;
            }
            next_seq = Some(seq + 1);
            at += FRAME_HEADER_BYTES + len;
            ends.push((at, seq));
        }
        (path, bytes, ends)
    };
    paths.map(read).collect()
}

/// Cuts the log of a run at every byte, in every way that a file may end there.
fn cut_everywhere(run: &Run, dice: &mut Dice) {
    let segments = segments(&run.disk);
    let first_seq = segments[0].2[0].1;
    let mut whole_seq = first_seq - 1;
    for (index, (path, bytes, ends)) in segments.iter().enumerate() {
        let before_seq = ends.first().map_or(whole_seq, |(_, seq)| seq - 1);
        // Behind the last frame of a segment there is nothing to cut.
        for cut in 0..=ends.last().map_or(0, |(end, _)| *end) {
            let disk = run.disk.fork();
            segments[index + 1..].iter().for_each(|(path, ..)| disk.remove_file(path).unwrap());
            let mut left = bytes[..cut].to_vec();
            match dice.below(3) {
                0 => {}
                1 if cut >= FILE_HEADER_BYTES => left.resize(bytes.len(), 0xa5),
                _ => left.resize(bytes.len(), 0),
            }
            disk.damage(path, &left);
            // The zeros that a frame ends with may be there again.
            let is_whole = |end: usize| left.get(..end) == Some(&bytes[..end]);
            let whole = ends.iter().filter(|(end, _)| is_whole(*end)).map(|(_, seq)| *seq);
            whole_seq = whole.max().unwrap_or(before_seq);
            expect_whole_frames(run, &disk, whole_seq, dice, &format!("{} cut at {cut}", path.display()));
        }
    }
    assert_eq!(whole_seq, run.history.last_seq(), "the last cut cuts nothing");
}

/// Demands the state after frame `whole_seq`; then writing goes on, and recovery follows.
fn expect_whole_frames(run: &Run, disk: &MemDisk, whole_seq: u64, dice: &mut Dice, what: &str) {
    let Run { habits, history, now_ms, promised_seq, .. } = run;
    if whole_seq < *promised_seq {
        expect_refusal(&recover(disk, habits.segment_bytes, HASH_SEED).map(drop).unwrap_err(), what);
        return;
    }
    let (shard, log) = recover(disk, habits.segment_bytes, HASH_SEED).expect(what);
    assert_eq!(log.next_seq() - 1, whole_seq, "{what}");
    assert_eq!(content(&shard, *now_ms), history.state(whole_seq).live(*now_ms), "{what}");
    drop(log);
    let mut worker = Worker::recover(disk, *habits, history, whole_seq, *now_ms, HASH_SEED).expect(what);
    write_frames(&mut worker, dice, 2);
    let (history, now_ms, written_seq) = (worker.history, worker.now_ms, worker.log.written_seq());
    let worker = Worker::recover(disk, *habits, &history, written_seq, now_ms, HASH_SEED).expect(what);
    assert_eq!(worker.history.last_seq(), written_seq, "{what}");
}

/// A refusal names the file or the directory.
fn expect_refusal(error: &Error, what: &str) {
    let named: &Path = match error {
        Error::DamagedFrame { path, .. }
        | Error::DamagedSnapshot { path, .. }
        | Error::NewerVersion { path, .. }
        | Error::WrongShard { path, .. }
        | Error::MissingFrames { directory: path, .. } => path,
        error => panic!("{what}: {error:?}"),
    };
    assert!(named.starts_with(directory()), "{what}: {error}");
    assert!(error.to_string().contains(named.to_str().unwrap()), "{what}: {error}");
}

/// Flips every `stride`-th bit of every file; `certain_seq` is the last frame of which the files say that it
/// was synced, in more than one place. Returns how many flips are refused, and how many cut frames off.
fn flip_bits(run: &Run, stride: usize, offset: usize, certain_seq: u64) -> (usize, usize) {
    let (mut refused, mut cut) = (0, 0);
    for name in run.disk.list(directory()).unwrap() {
        let path = directory().join(name);
        let good = run.disk.read(&path).unwrap();
        let disk = run.disk.fork();
        for bit in (offset % stride..good.len() * 8).step_by(stride) {
            let what = format!("bit {bit} of {}", path.display());
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            disk.damage(&path, &bytes);
            // A check changes nothing, so the next flip needs no new disk.
            let mut shard = shard::Shard::new([HASH_SEED; 4]);
            let checked = wal::check(&disk, directory(), crate::worker::PLACE, |record| {
                shard.apply_frame(record.payload).expect("whole changes");
                Ok::<_, Error>(())
            });
            match checked {
                Err(error) => {
                    expect_refusal(&error, &what);
                    refused += 1;
                }
                Ok(recovered) => {
                    let last_seq = recovered.next_seq - 1;
                    assert!(last_seq >= certain_seq, "{what}: frame {last_seq} of {certain_seq}");
                    let state = run.history.state(last_seq).live(run.now_ms);
                    assert_eq!(content(&shard, run.now_ms), state, "{what}");
                    cut += usize::from(last_seq < run.history.last_seq());
                }
            }
        }
        disk.damage(&path, &good);
    }
    (refused, cut)
}

#[test]
fn a_log_that_is_cut_at_any_byte_holds_the_whole_frames_before_it() {
    let name = "a_log_that_is_cut_at_any_byte_holds_the_whole_frames_before_it";
    each_seed(name, 2, |dice, trace| {
        for with_snapshot in [false, true] {
            trace.step();
            let mut runs = (8..20).map(|frames| small_run(dice, 400, frames, with_snapshot));
            let run = runs.find(|run| segments(&run.disk).len() > 1).expect("20 frames need two segments");
            drop(runs);
            cut_everywhere(&rebooted(run), dice);
        }
    });
}

#[test]
fn a_flipped_bit_is_refused_or_cuts_the_log_before_it() {
    each_seed("a_flipped_bit_is_refused_or_cuts_the_log_before_it", 1, |dice, trace| {
        for (segment_bytes, frames, with_snapshot) in [(400, 6, true), (2000, 40, false)] {
            trace.step();
            let run = small_run(dice, segment_bytes, frames, with_snapshot);
            let stride = if with_snapshot { 1 } else { 31 };
            // While the machine runs, only the very last write may be torn.
            let last_seq = run.history.last_seq();
            let (refused, cut) = flip_bits(&run, stride, dice.below(stride), last_seq - 1);
            assert!(refused > 0 && cut > 0, "both outcomes occur: {refused} refused, {cut} cut");
            let run = rebooted(run);
            let (refused, cut) = flip_bits(&run, stride, dice.below(stride), run.promised_seq);
            assert!(cut > 0 && (refused > 0) == with_snapshot, "{refused} refused, {cut} cut");
        }
    });
}

#[test]
fn a_flipped_bit_in_a_log_that_was_closed_loses_nothing_silently() {
    each_seed("a_flipped_bit_in_a_log_that_was_closed_loses_nothing_silently", 1, |dice, trace| {
        trace.step();
        let run = small_run(dice, 1500, 6, false);
        let last_seq = run.history.last_seq();
        let Run { disk, habits, history, now_ms, .. } = run;
        let worker = Worker::recover(&disk, habits, &history, last_seq, now_ms, HASH_SEED).unwrap();
        let mut worker = worker;
        write_frames(&mut worker, dice, 4);
        let last_seq = worker.history.last_seq();
        let (history, closed) = worker.close();
        closed.unwrap();
        let run = Run { disk, habits, history, now_ms, promised_seq: 0 };
        let (refused, cut) = flip_bits(&run, 1, 0, last_seq);
        assert!(refused > 0 && cut == 0, "all that counts is refused: {refused} refused, {cut} cut");
    });
}
