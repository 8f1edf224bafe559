//! Reading a shard's directory back: the newest snapshot, then the log; and where the log ends.
//!
//! [`replay`] only reads. [`settle()`] then cuts, removes and syncs, so that the directory holds exactly what
//! was replayed; whole frames that are cut are kept aside. The rule for torn and damaged ends is in the crate's
//! documentation.

mod end;
mod settle;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::frame::{Content, FRAME_HEADER_BYTES, Frame, FrameHeader, FrameReader};
use crate::header::{
    FILE_HEADER_BYTES, FileHeader, RESERVE_NAME, SEGMENT_MAGIC, SEGMENT_SUFFIX, SNAPSHOT_SUFFIX,
    SNAPSHOT_TMP_NAME, SPARE_NAME, STAGED_NAME, number_of,
};
use crate::segment::Segment;
use crate::snapshot::{self, Snapshot};
use crate::synced::{Synced, Witness};
use crate::{Disk, DiskFile, Error, Kind, Place, synced};
use end::{End, Found, Rest, uncut};

pub use end::Cut;
pub(crate) use end::cut_path;
pub use settle::discard_cut;
pub(crate) use settle::{copy, settle};

/// A frame that is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its sequence number; frames of a snapshot have their own, from 1 on.
    pub seq: u64,
    /// Batch, or part of a transaction.
    pub kind: Kind<'a>,
    /// The number of changes in the payload.
    pub entries: u32,
    /// What was appended.
    pub payload: &'a [u8],
    /// Whether it is from the snapshot.
    pub in_snapshot: bool,
    /// Bytes of files before this frame, unused room included: for showing progress.
    pub read_bytes: u64,
    /// Bytes of all files, unused room included.
    pub total_bytes: u64,
}

/// What a replay found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The sequence number of the next frame.
    pub next_seq: u64,
    /// The snapshot that the log goes on from, if there is one.
    pub snapshot: Option<Snapshot>,
    /// Segments with frames that were replayed.
    pub segments: u64,
    /// Bytes of those frames.
    pub log_bytes: u64,
    /// Frames in the snapshot.
    pub snapshot_frames: u64,
    /// Frames that were replayed from the log.
    pub log_frames: u64,
    /// The torn end that is cut, if there is any.
    pub cut: Option<Cut>,
    /// Frames up to this one, and every part of the transactions among them on other shards, had been on disk.
    pub settled_seq: u64,
    /// The log was last written in this run of the machine: nothing but its very last write can be missing.
    pub is_same_boot: bool,
    /// One of the two places that tell what is known of the log is missing or damaged; it is written again.
    pub lacking_synced: Option<PathBuf>,
}

/// A log that was read back: what counts, and what has to be done to the files, of which none was changed.
/// [`Log::open`](crate::Log::open) goes on with it.
#[derive(Debug)]
pub struct Replayed<D: Disk> {
    /// What was found.
    pub recovered: Recovered,
    pub(crate) disk: D,
    pub(crate) directory: PathBuf,
    pub(crate) place: Place,
    pub(crate) segments: Vec<Segment<D::File>>,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) newest_generation: u64,
    /// What was known of the log.
    pub(crate) synced: Synced,
    /// The last frame of the log, if there is one.
    pub(crate) last_frame: Option<Witness>,
    /// Frames up to this one say of each other, or the snapshot or the file `synced` says, that they are on disk.
    proven_seq: u64,
    /// Segments with whole frames that are cut, and the names under which they are kept aside.
    aside: Vec<(PathBuf, PathBuf)>,
    /// Files without a place in the log, in the order in which they have to go.
    leftovers: Vec<PathBuf>,
}

/// Reads a shard's directory as [`Log::recover`](crate::Log::recover) does and changes nothing.
///
/// # Errors
/// As there.
pub fn check<D: Disk, E: From<Error>>(
    disk: &D,
    directory: &Path,
    place: Place,
    on_record: impl FnMut(Record<'_>) -> Result<(), E>,
) -> Result<Recovered, E> {
    Ok(replay(disk, directory, place, on_record)?.recovered)
}

/// Reads a shard's directory: the snapshot and the log, in order. `on_record` sees the snapshot's frames and then the
/// log's; memory is bounded by the largest frame. Changes nothing. Blocks.
///
/// # Errors
/// Damage, [`Error::Io`], or what `on_record` returned.
pub fn replay<D: Disk, E: From<Error>>(
    disk: &D,
    directory: &Path,
    place: Place,
    mut on_record: impl FnMut(Record<'_>) -> Result<(), E>,
) -> Result<Replayed<D>, E> {
    let mut survey = survey(disk, directory, place)?;
    let synced::Found { synced, lacking: lacking_synced, witnesses } = synced::read(disk, directory, place)?;
    let known = synced.unwrap_or_default();
    let is_same_boot = known.boot.is_some() && known.boot == disk.boot();
    let newest = survey.snapshots.last();
    if newest.map_or(0, |(position, _)| *position) < known.snapshot {
        let (position, newest) = (known.snapshot, newest.map(|(_, path)| path.clone()));
        return Err(Error::MissingSnapshot { directory: directory.to_owned(), position, newest }.into());
    }
    let mut read_bytes = 0;
    let mut snapshot = None;
    if let Some((position, path)) = survey.snapshots.pop() {
        let (found, generation) = snapshot::replay(disk, &path, position, place, |frame, read_bytes| {
            let Content::Payload(kind) = frame.content else { return Ok(()) };
            let (seq, entries, payload) = (frame.seq, frame.entries, frame.payload);
            let total_bytes = survey.total_bytes;
            on_record(Record { seq, kind, entries, payload, in_snapshot: true, read_bytes, total_bytes })
        })?;
        read_bytes = found.bytes;
        survey.newest_generation = survey.newest_generation.max(generation);
        snapshot = Some(found);
    }
    let (position, log_end) = snapshot.as_ref().map_or((1, 1), |found| (found.position, found.log_end));
    // Of what was only written, nothing is known to be on disk.
    let synced_seq = known.header.synced_seq.max(log_end - 1);
    let written_seq = if is_same_boot { known.written_seq } else { 0 };

    let (chain, strays) = survey.segments.into_iter().partition::<Vec<_>, _>(|found| found.header.is_some());
    let first_seq = |found: &Found| found.header.map_or(0, |header| header.first_seq);
    let (mut chain, obsolete) =
        chain.into_iter().partition::<Vec<_>, _>(|found| first_seq(found) >= position);

    let mut next_seq = position;
    let mut proven_seq = synced_seq;
    let mut last_frame = None;
    let mut segments: Vec<Segment<D::File>> = Vec::new();
    let mut end = None;
    while end.is_none() && segments.len() < chain.len() && first_seq(&chain[segments.len()]) == next_seq {
        let found = &chain[segments.len()];
        let successor_seq = chain.get(segments.len() + 1).map(first_seq);
        let (segment, its_end) = found.replay(disk, next_seq, successor_seq, |frame, offset| {
            proven_seq = proven_seq.max(frame.synced_seq);
            if let Some(expected) = witnesses.contradict(frame.seq, frame.crc) {
                let (path, seq, found) = (found.path.clone(), frame.seq, frame.crc);
                return Err(Error::OtherFrame { path, seq, expected, found }.into());
            }
            last_frame = Some(Witness { seq: frame.seq, crc: frame.crc });
            let Content::Payload(kind) = frame.content else { return Ok(()) };
            let (seq, entries, payload) = (frame.seq, frame.entries, frame.payload);
            let (read_bytes, total_bytes) = (read_bytes + offset, survey.total_bytes);
            on_record(Record { seq, kind, entries, payload, in_snapshot: false, read_bytes, total_bytes })
        })?;
        read_bytes += found.file_bytes;
        next_seq = segment.last_seq + 1;
        segments.push(segment);
        end = its_end;
    }

    let dropped = chain.split_off(segments.len());
    let rest = Rest {
        disk,
        directory,
        last: chain.last().zip(end),
        dropped: &dropped,
        strays: &strays,
        synced: known.header,
        is_same_boot,
    };
    let cut = rest.judge(next_seq, synced_seq, written_seq)?;
    let aside: Vec<_> =
        cut.iter().flat_map(|cut| cut.kept.iter()).map(|kept| (uncut(kept), kept.clone())).collect();
    // The newest go first: should only some of the removals reach the disk, no gap appears before their end.
    let mut leftovers: Vec<_> = dropped.into_iter().rev().map(|found| found.path).collect();
    leftovers.extend(strays.into_iter().chain(obsolete).map(|found| found.path));
    leftovers.extend(segments.pop_if(|last| last.bytes == 0).map(|empty| empty.path));
    // Behind an empty segment, too: a write may have failed here that was to be repeated there, and left whole frames.
    if let Some(last) = segments.last_mut() {
        last.file_bytes = FILE_HEADER_BYTES as u64 + last.bytes;
    }
    leftovers.extend(survey.snapshots.into_iter().map(|(_, path)| path));
    leftovers.extend(survey.unfinished);
    leftovers.retain(|path| aside.iter().all(|(from, _)| from != path));
    let recovered = Recovered {
        next_seq,
        snapshot: snapshot.clone(),
        segments: segments.len() as u64,
        log_bytes: segments.iter().map(|segment| segment.bytes).sum(),
        snapshot_frames: snapshot.as_ref().map_or(0, |found| found.frames),
        log_frames: next_seq - position,
        cut,
        settled_seq: known.settled_seq,
        is_same_boot,
        lacking_synced,
    };
    Ok(Replayed {
        recovered,
        disk: disk.clone(),
        directory: directory.to_owned(),
        place,
        segments,
        snapshot,
        newest_generation: survey.newest_generation,
        synced: known,
        last_frame,
        proven_seq,
        aside,
        leftovers,
    })
}

#[derive(Debug)]
struct Survey {
    /// By position.
    snapshots: Vec<(u64, PathBuf)>,
    /// By generation.
    segments: Vec<Found>,
    unfinished: Vec<PathBuf>,
    newest_generation: u64,
    total_bytes: u64,
}

fn survey<D: Disk>(disk: &D, directory: &Path, place: Place) -> Result<Survey, Error> {
    let mut survey = Survey {
        snapshots: Vec::new(),
        segments: Vec::new(),
        unfinished: Vec::new(),
        newest_generation: 0,
        total_bytes: 0,
    };
    for name in disk.list(directory).map_err(Error::io("list", directory))? {
        let path = directory.join(&name);
        if [SPARE_NAME, RESERVE_NAME, STAGED_NAME, SNAPSHOT_TMP_NAME].contains(&&*name) {
            if disk.list(&path).is_ok() {
                return Err(Error::io("replace", &path)(ErrorKind::IsADirectory.into()));
            }
            survey.unfinished.push(path);
        } else if let Some(position) = number_of(&name, SNAPSHOT_SUFFIX) {
            survey.snapshots.push((position, path));
        } else if let Some(generation) = number_of(&name, SEGMENT_SUFFIX) {
            let file = disk.open(&path).map_err(Error::io("open", &path))?;
            let file_bytes = file.len().map_err(Error::io("measure", &path))?;
            let mut bytes = [0; FILE_HEADER_BYTES];
            let read = file.read_at(&mut bytes, 0).map_err(Error::io("read", &path))?;
            let header = FileHeader::decode(&bytes[..read], SEGMENT_MAGIC, place, &path)?;
            let header = header.filter(|header| header.generation == generation);
            survey.newest_generation = survey.newest_generation.max(generation);
            survey.total_bytes += file_bytes;
            survey.segments.push(Found { generation, path, file_bytes, header });
        }
    }
    if let Some((_, path)) = survey.snapshots.last() {
        let file = disk.open(path).map_err(Error::io("open", path))?;
        survey.total_bytes += file.len().map_err(Error::io("measure", path))?;
    }
    Ok(survey)
}

impl Found {
    /// Reads the frames from `first_seq` up to the first frame of the next segment, or to the end of the log.
    fn replay<D: Disk, E: From<Error>>(
        &self,
        disk: &D,
        first_seq: u64,
        successor_seq: Option<u64>,
        mut on_frame: impl FnMut(Frame<'_>, u64) -> Result<(), E>,
    ) -> Result<(Segment<D::File>, Option<End>), E> {
        let mut reader = FrameReader::new(self.open(disk)?, &self.path, FILE_HEADER_BYTES as u64)?;
        let mut next_seq = first_seq;
        let mut entries = 0;
        let end = loop {
            let offset = reader.offset();
            if successor_seq == Some(next_seq) {
                break None;
            }
            match reader.next(self.generation, next_seq)? {
                Ok(frame) => {
                    next_seq += 1;
                    entries += u64::from(frame.entries);
                    on_frame(frame, offset)?;
                }
                Err(fault) => {
                    let torn = reader.peek(FRAME_HEADER_BYTES)?.first_chunk().map(FrameHeader::decode);
                    let torn = torn.filter(|header| header.generation == self.generation);
                    break Some(End { offset, fault, torn });
                }
            }
        };
        let segment = Segment {
            generation: self.generation,
            path: self.path.clone(),
            file: None,
            first_seq,
            last_seq: next_seq - 1,
            bytes: reader.offset() - FILE_HEADER_BYTES as u64,
            entries,
            file_bytes: self.file_bytes,
        };
        Ok((segment, end))
    }
}
