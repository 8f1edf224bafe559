//! Reading a shard's directory back: the newest snapshot, then the log; and where the log ends.
//!
//! A [`Replay`] is driven by its owner and only reads. [`settle()`] then cuts, removes and syncs, so that the directory
//! holds exactly what was replayed; whole frames that are cut are kept aside. The rule for torn and damaged ends is in
//! the crate's documentation.

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
use crate::synced::{Synced, Witness, Witnesses};
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
    let mut replay = Replay::open(disk, directory, place)?;
    while replay.step(u64::MAX, &mut on_record)? {}
    Ok(replay.finish()?)
}

/// A shard's directory on its way to be [`Replayed`], as far as its owner lets it go on. It changes nothing.
///
/// ```text
/// let mut replay = Replay::open(disk, directory, place)?;
/// while replay.step(bytes, &mut on_record)? { /* other work */ }
/// let replayed = replay.finish()?;
/// ```
#[derive(Debug)]
pub struct Replay<D: Disk> {
    disk: D,
    directory: PathBuf,
    place: Place,
    /// What is known of the log, and what is wrong with the places that tell it.
    known: Synced,
    witnesses: Witnesses,
    lacking_synced: Option<PathBuf>,
    is_same_boot: bool,
    stage: Stage<D::File>,
    /// Of the files that are read.
    read_bytes: u64,
    total_bytes: u64,
    /// The snapshot, once it is read, and the sequence number from which the log goes on after it.
    snapshot: Option<Snapshot>,
    position: u64,
    /// Segments by generation, whose frames follow the snapshot's position.
    chain: Vec<Found>,
    /// The first of them, with their frames, as far as they are read.
    segments: Vec<Segment<D::File>>,
    next_seq: u64,
    newest_generation: u64,
    last_frame: Option<Witness>,
    /// Frames up to this one were synced, as the snapshot and the file `synced` say, and as the frames say as well.
    synced_seq: u64,
    proven_seq: u64,
    /// Files whose header is not that of their name.
    strays: Vec<Found>,
    /// Files that the snapshot replaces, and unfinished ones.
    obsolete: Vec<PathBuf>,
}

/// What is read next.
#[derive(Debug)]
enum Stage<F> {
    Snapshot(snapshot::Reading<F>),
    /// The segment behind those that are read.
    Segment(SegmentReading<F>),
    /// The log ends in the last segment; `None` where there is no segment.
    End(Option<End>),
}

/// A segment that is being read.
#[derive(Debug)]
struct SegmentReading<F> {
    reader: FrameReader<F>,
    first_seq: u64,
    entries: u64,
    /// The first frame of the next segment: this one ends there, whatever bytes follow.
    successor_seq: Option<u64>,
}

impl<D: Disk> Replay<D> {
    /// Looks what files there are, and reads no frame. Blocks.
    ///
    /// # Errors
    /// Damage, [`Error::Io`].
    pub fn open(disk: &D, directory: &Path, place: Place) -> Result<Replay<D>, Error> {
        let Survey { mut snapshots, segments, unfinished, newest_generation, total_bytes } =
            survey(disk, directory, place)?;
        let synced::Found { synced, lacking, witnesses } = synced::read(disk, directory, place)?;
        let known = synced.unwrap_or_default();
        let newest = snapshots.pop();
        if newest.as_ref().map_or(0, |(position, _)| *position) < known.snapshot {
            let (position, newest) = (known.snapshot, newest.map(|(_, path)| path));
            return Err(Error::MissingSnapshot { directory: directory.to_owned(), position, newest });
        }
        let position = newest.as_ref().map_or(1, |(position, _)| *position);
        let (chain, strays): (Vec<_>, Vec<_>) =
            segments.into_iter().partition(|found| found.header.is_some());
        let (chain, before): (Vec<_>, Vec<_>) =
            chain.into_iter().partition(|found| found.first_seq() >= position);
        let paths = before.into_iter().map(|found| found.path);
        let obsolete = paths.chain(snapshots.into_iter().map(|(_, path)| path)).chain(unfinished).collect();
        let mut replay = Replay {
            disk: disk.clone(),
            directory: directory.to_owned(),
            place,
            known,
            witnesses,
            lacking_synced: lacking,
            is_same_boot: known.boot.is_some() && known.boot == disk.boot(),
            stage: Stage::End(None),
            read_bytes: 0,
            total_bytes,
            snapshot: None,
            position,
            chain,
            segments: Vec::new(),
            next_seq: position,
            newest_generation,
            last_frame: None,
            synced_seq: known.header.synced_seq,
            proven_seq: known.header.synced_seq,
            strays,
            obsolete,
        };
        replay.stage = match newest {
            Some((_, path)) => Stage::Snapshot(snapshot::Reading::open(disk, &path, position, place)?),
            None => replay.next_segment()?,
        };
        Ok(replay)
    }

    /// Reads on, until `bytes` more of the files are read: up to the end of a frame, and one frame at least.
    /// `on_record` sees the snapshot's frames and then the log's; memory is bounded by the largest frame. Returns
    /// whether anything may be left. Blocks.
    ///
    /// # Errors
    /// Damage, [`Error::Io`], or what `on_record` returned; then it is not to be called again.
    pub fn step<E: From<Error>>(
        &mut self,
        bytes: u64,
        mut on_record: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let stop_at = self.read_bytes().saturating_add(bytes.max(1));
        while self.read_bytes() < stop_at {
            match &mut self.stage {
                Stage::Snapshot(reading) => match reading.next()? {
                    snapshot::Next::Frame(frame, offset) => {
                        if let Some(record) = record_of(&frame, true, offset, self.total_bytes) {
                            on_record(record)?;
                        }
                    }
                    snapshot::Next::End(found) => {
                        self.newest_generation = self.newest_generation.max(reading.generation());
                        self.read_bytes = found.bytes;
                        self.synced_seq = self.synced_seq.max(found.log_end - 1);
                        self.proven_seq = self.synced_seq;
                        self.snapshot = Some(found);
                        self.stage = self.next_segment()?;
                    }
                },
                Stage::Segment(_) => self.step_in_segment(&mut on_record)?,
                Stage::End(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Reads the next frame of a segment, or finds that it has no more.
    fn step_in_segment<E: From<Error>>(
        &mut self,
        on_record: &mut impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Stage::Segment(reading) = &mut self.stage else { unreachable!("a segment is being read") };
        let found = &self.chain[self.segments.len()];
        let offset = reading.reader.offset();
        if reading.successor_seq == Some(self.next_seq) {
            self.end_segment();
            self.stage = self.next_segment()?;
            return Ok(());
        }
        let frame = match reading.reader.next(found.generation, self.next_seq)? {
            Ok(frame) => frame,
            Err(fault) => {
                let torn = reading.reader.peek(FRAME_HEADER_BYTES)?.first_chunk().map(FrameHeader::decode);
                let torn = torn.filter(|header| header.generation == found.generation);
                self.end_segment();
                self.stage = Stage::End(Some(End { offset, fault, torn }));
                return Ok(());
            }
        };
        self.next_seq += 1;
        reading.entries += u64::from(frame.entries);
        self.proven_seq = self.proven_seq.max(frame.synced_seq);
        if let Some(expected) = self.witnesses.contradict(frame.seq, frame.crc) {
            let (path, seq, found) = (found.path.clone(), frame.seq, frame.crc);
            return Err(Error::OtherFrame { path, seq, expected, found }.into());
        }
        self.last_frame = Some(Witness { seq: frame.seq, crc: frame.crc });
        let record = record_of(&frame, false, self.read_bytes + offset, self.total_bytes);
        record.map_or(Ok(()), on_record)
    }

    /// The segment that is being read has no more frames.
    fn end_segment(&mut self) {
        let Stage::Segment(reading) = &self.stage else { unreachable!("a segment is being read") };
        let found = &self.chain[self.segments.len()];
        self.segments.push(Segment {
            generation: found.generation,
            path: found.path.clone(),
            file: None,
            first_seq: reading.first_seq,
            last_seq: self.next_seq - 1,
            bytes: reading.reader.offset() - FILE_HEADER_BYTES as u64,
            entries: reading.entries,
            file_bytes: found.file_bytes,
        });
        self.read_bytes += found.file_bytes;
    }

    /// Opens the segment in which the log goes on.
    fn next_segment(&self) -> Result<Stage<D::File>, Error> {
        let mut left = self.chain[self.segments.len()..].iter();
        let Some(found) = left.next().filter(|found| found.first_seq() == self.next_seq) else {
            return Ok(Stage::End(None));
        };
        let reader = FrameReader::new(found.open(&self.disk)?, &found.path, FILE_HEADER_BYTES as u64)?;
        let (first_seq, successor_seq) = (self.next_seq, left.next().map(Found::first_seq));
        Ok(Stage::Segment(SegmentReading { reader, first_seq, entries: 0, successor_seq }))
    }

    /// Bytes of files that were read, unused room included.
    pub fn read_bytes(&self) -> u64 {
        match &self.stage {
            Stage::Snapshot(reading) => reading.read_bytes(),
            Stage::Segment(reading) => self.read_bytes + reading.reader.offset(),
            Stage::End(_) => self.read_bytes,
        }
    }

    /// Bytes of all files, unused room included.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Finds out what stands behind the end of the log, of which it reads everything: torn, or damaged. Blocks.
    ///
    /// # Errors
    /// Damage, [`Error::Io`].
    ///
    /// # Panics
    /// When [`Self::step`] has not come to the end.
    pub fn finish(self) -> Result<Replayed<D>, Error> {
        let Replay { known, snapshot, position, mut chain, mut segments, strays, obsolete, next_seq, .. } =
            self;
        let Stage::End(end) = self.stage else { panic!("the log was not read to its end") };
        let written_seq = if self.is_same_boot { known.written_seq } else { 0 };
        let dropped = chain.split_off(segments.len());
        let rest = Rest {
            disk: &self.disk,
            directory: &self.directory,
            last: chain.last().zip(end),
            dropped: &dropped,
            strays: &strays,
            synced: known.header,
            is_same_boot: self.is_same_boot,
        };
        // Of what was only written, nothing is known to be on disk.
        let cut = rest.judge(next_seq, self.synced_seq, written_seq)?;
        let aside: Vec<_> =
            cut.iter().flat_map(|cut| cut.kept.iter()).map(|kept| (uncut(kept), kept.clone())).collect();
        // The newest go first: should only some of the removals reach the disk, no gap appears before their end.
        let mut leftovers: Vec<_> = dropped.into_iter().rev().chain(strays).map(|found| found.path).collect();
        leftovers.extend(segments.pop_if(|last| last.bytes == 0).map(|empty| empty.path));
        leftovers.extend(obsolete);
        // Behind an empty segment, too: a write may have failed here that was to be repeated there, and left whole
        // frames.
        if let Some(last) = segments.last_mut() {
            last.file_bytes = FILE_HEADER_BYTES as u64 + last.bytes;
        }
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
            is_same_boot: self.is_same_boot,
            lacking_synced: self.lacking_synced,
        };
        Ok(Replayed {
            recovered,
            disk: self.disk,
            directory: self.directory,
            place: self.place,
            segments,
            snapshot,
            newest_generation: self.newest_generation,
            synced: known,
            last_frame: self.last_frame,
            proven_seq: self.proven_seq,
            aside,
            leftovers,
        })
    }
}

/// The record that a frame is, unless it holds no changes.
fn record_of<'a>(
    frame: &Frame<'a>,
    in_snapshot: bool,
    read_bytes: u64,
    total_bytes: u64,
) -> Option<Record<'a>> {
    let Content::Payload(kind) = frame.content else { return None };
    let Frame { seq, entries, payload, .. } = *frame;
    Some(Record { seq, kind, entries, payload, in_snapshot, read_bytes, total_bytes })
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
