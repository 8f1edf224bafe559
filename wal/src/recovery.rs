//! Reading a shard's directory back: the newest snapshot, then the log; and where the log ends.
//!
//! [`replay`] only reads. [`settle`] then cuts, removes and syncs, so that the directory holds exactly what
//! was replayed; whole frames that are cut are kept aside. The rule for torn and damaged ends is in the crate's
//! documentation.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::frame::{self, Content, FRAME_HEADER_BYTES, Frame, FrameHeader, FrameReader, Remains};
use crate::header::{
    CUT_SUFFIX, FILE_HEADER_BYTES, FileHeader, RESERVE_NAME, SEGMENT_MAGIC, SEGMENT_SUFFIX, SNAPSHOT_SUFFIX,
    SNAPSHOT_TMP_NAME, SPARE_NAME, STAGED_NAME, number_of,
};
use crate::segment::Segment;
use crate::snapshot::{self, Snapshot};
use crate::sync::sync_directory;
use crate::synced::{Synced, Witness};
use crate::{Disk, DiskFile, Error, Fault, Kind, Place, Proof, synced};

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

/// The torn end of a log: bytes that were written and never synced as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment that ends too early.
    pub path: PathBuf,
    /// Where it is cut, in bytes from its start.
    pub offset: u64,
    /// The sequence number that the first lost frame had.
    pub seq: u64,
    /// The number of bytes that are cut, as far as it can be told, over all segments.
    pub bytes: u64,
    /// Whole frames among them: they were behind the tear.
    pub frames: u64,
    /// Where a start keeps the segments with these frames, as they were found: beside them.
    pub kept: Vec<PathBuf>,
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

/// Files are copied in pieces of this size.
const COPY_BYTES: usize = 1 << 20;

/// A segment file as it was found. It is not kept open: there may be more of them than descriptors.
#[derive(Debug)]
struct Found {
    generation: u64,
    path: PathBuf,
    file_bytes: u64,
    header: Option<FileHeader>,
}

/// Where the log ends in its last segment, and what stands there.
#[derive(Clone, Copy, Debug)]
struct End {
    offset: u64,
    fault: Fault,
    torn: Option<FrameHeader>,
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

/// Makes the files be what was replayed, durably. A crash in between is as good as one before.
pub(crate) fn settle<D: Disk>(replayed: &Replayed<D>) -> Result<(), Error> {
    let (disk, directory) = (&replayed.disk, &replayed.directory);
    // The last segment with a place in the log is copied, since its good part stays; the others are renamed.
    for (from, to) in &replayed.aside {
        match replayed.segments.iter().any(|segment| segment.path == *from) {
            true => copy(disk, from, to)?,
            false => disk.rename(from, to).map_err(Error::io("rename", from))?,
        }
    }
    // The snapshot's name may not be on disk yet, if its writer died just then: it goes before what it replaces.
    sync_directory(disk, directory)?;
    for path in &replayed.leftovers {
        disk.remove_file(path).map_err(Error::io("remove", path))?;
    }
    sync_directory(disk, directory)?;
    for segment in &replayed.segments {
        let file = disk.open(&segment.path).map_err(Error::io("open", &segment.path))?;
        if segment.file_bytes < file.len().map_err(Error::io("measure", &segment.path))? {
            file.truncate(segment.file_bytes).map_err(Error::io("cut", &segment.path))?;
        }
        if segment.last_seq > replayed.proven_seq {
            write_again(&file, segment, replayed.proven_seq)?;
        }
        file.sync_data().map_err(Error::io("sync", &segment.path))?;
    }
    Ok(())
}

/// Copies a file and syncs the copy. A copy that fails is removed.
pub(crate) fn copy<D: Disk>(disk: &D, from: &Path, to: &Path) -> Result<(), Error> {
    let copied = copy_bytes(disk, from, to);
    if copied.is_err() {
        let _ = disk.remove_file(to);
    }
    copied
}

fn copy_bytes<D: Disk>(disk: &D, from: &Path, to: &Path) -> Result<(), Error> {
    let source = disk.open(from).map_err(Error::io("open", from))?;
    let target = disk.create(to).map_err(Error::io("create", to))?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    loop {
        let read = source.read_at(&mut buffer, at).map_err(Error::io("read", from))?;
        if read == 0 {
            return target.sync_data().map_err(Error::io("sync", to));
        }
        target.write_all_at(&buffer[..read], at).map_err(Error::io("write", to))?;
        at += read as u64;
    }
}

/// The name under which a file of the log is kept whose frames from `seq` on are cut.
pub(crate) fn cut_path(path: &Path, seq: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{seq}{CUT_SUFFIX}"));
    name.into()
}

/// The file that [`cut_path`] was made of.
fn uncut(path: &Path) -> PathBuf {
    path.with_extension("").with_extension("")
}

/// Removes what earlier starts have cut off the logs of a shard and kept aside. Returns how many files that were.
///
/// # Errors
/// [`Error::Io`].
pub fn discard_cut<D: Disk>(disk: &D, directory: &Path) -> Result<usize, Error> {
    let names = disk.list(directory).map_err(Error::io("list", directory))?;
    let kept = names.iter().filter(|name| name.ends_with(CUT_SUFFIX)).map(|name| directory.join(name));
    let mut count = 0;
    for path in kept {
        disk.remove_file(&path).map_err(Error::io("remove", &path))?;
        count += 1;
    }
    if count > 0 {
        sync_directory(disk, directory)?;
    }
    Ok(count)
}

/// Writes the frames after `proven_seq` once more, as they are. If a sync of them failed before the last
/// process died, the system still shows them but may have given up writing them; only then would a sync
/// prove nothing.
fn write_again<F: DiskFile>(file: &F, segment: &Segment<F>, proven_seq: u64) -> Result<(), Error> {
    let mut reader = FrameReader::new(file.clone(), &segment.path, 0)?;
    let header = reader.peek(FILE_HEADER_BYTES)?;
    file.write_all_at(header, 0).map_err(Error::io("write", &segment.path))?;
    reader.skip(FILE_HEADER_BYTES);
    for seq in segment.first_seq..=segment.last_seq {
        let offset = reader.offset();
        match reader.next(segment.generation, seq)? {
            Ok(frame) if seq > proven_seq => {
                file.write_all_at(frame.bytes, offset).map_err(Error::io("write", &segment.path))?;
            }
            Ok(_) => {}
            Err(fault) => {
                let path = segment.path.clone();
                return Err(Error::DamagedFrame {
                    path,
                    offset,
                    seq,
                    fault,
                    proof: Proof::Written(segment.last_seq),
                });
            }
        }
    }
    Ok(())
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
    fn open<D: Disk>(&self, disk: &D) -> Result<D::File, Error> {
        disk.open(&self.path).map_err(Error::io("open", &self.path))
    }

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

/// Everything behind the end of the log.
#[derive(Debug)]
struct Rest<'a, D> {
    disk: &'a D,
    directory: &'a Path,
    /// The last segment with a place in the log; `None` when there is no segment.
    last: Option<(&'a Found, End)>,
    /// Segments behind the end.
    dropped: &'a [Found],
    /// Files whose header is not that of their name: never used, or torn, or damaged.
    strays: &'a [Found],
    synced: FileHeader,
    is_same_boot: bool,
}

impl<D: Disk> Rest<'_, D> {
    /// Whether the log is torn at frame `seq`, which is cut, or damaged there, which is refused.
    /// `synced_seq` is what the snapshot and the file `synced` say was synced, `written_seq` what the latter says was
    /// written in this run of the machine.
    fn judge(&self, seq: u64, synced_seq: u64, written_seq: u64) -> Result<Option<Cut>, Error> {
        let search = |found: &Found, offset| {
            frame::search(&found.open(self.disk)?, &found.path, offset, found.generation, seq)
        };
        let behind = match &self.last {
            Some((found, end)) => search(found, end.offset)?,
            None => Remains::default(),
        };
        let mut synced_seq = synced_seq.max(behind.synced_seq);
        let mut last_seq = behind.last_seq;
        let mut kept = Vec::new();
        if let Some((found, _)) = self.last.filter(|_| behind.frames > 0) {
            kept.push(cut_path(&found.path, seq));
        }
        let (mut bytes, mut frames) = (self.torn_bytes(&behind), behind.frames);
        let mut beheaded = None;
        for found in self.dropped.iter().chain(self.strays) {
            let remains = search(found, 0)?;
            let header_seq = found.header.map_or(0, |header| header.synced_seq);
            synced_seq = synced_seq.max(remains.synced_seq).max(header_seq);
            if remains.frames > 0 {
                bytes += remains.end;
                frames += remains.frames;
                last_seq = last_seq.max(remains.last_seq);
                kept.push(cut_path(&found.path, seq));
                if found.header.is_none() {
                    beheaded = beheaded.or(Some(found));
                }
            }
        }
        // While the machine runs, a write takes nothing back of earlier ones, and none stands before its predecessor.
        let written_seq = if self.is_same_boot { written_seq.max(last_seq) } else { 0 };
        let proof = match (synced_seq >= seq, written_seq >= seq) {
            (true, _) => Proof::Synced(synced_seq),
            (false, true) => Proof::Written(written_seq),
            (false, false) => {
                let (path, offset) = match &self.last {
                    Some((found, end)) => (found.path.clone(), end.offset),
                    None => (self.directory.to_owned(), 0),
                };
                return Ok((bytes > 0).then_some(Cut { path, offset, seq, bytes, frames, kept }));
            }
        };
        Err(self.damage(seq, proof, &behind, beheaded))
    }

    fn damage(&self, seq: u64, proof: Proof, behind: &Remains, beheaded: Option<&Found>) -> Error {
        if let Some((found, end)) = &self.last {
            let at_file_end = end.fault == Fault::End && end.torn.is_none();
            let unused = matches!(end.fault, Fault::Empty | Fault::Generation { .. }) || at_file_end;
            let next_is_here = self.dropped.is_empty() && beheaded.is_none() && !self.lacks_newest(seq);
            if !unused || behind.frames > 0 || next_is_here {
                let (path, offset, fault) = (found.path.clone(), end.offset, end.fault);
                return Error::DamagedFrame { path, offset, seq, fault, proof };
            }
        }
        if let Some(found) = beheaded {
            let (path, fault) = (found.path.clone(), Fault::FileHeader);
            return Error::DamagedFrame { path, offset: 0, seq, fault, proof };
        }
        let next = self.dropped.first().and_then(|found| Some((found.path.clone(), found.header?.first_seq)));
        Error::MissingFrames { directory: self.directory.to_owned(), seq, next, proof }
    }

    /// Whether frame `seq` was in the newest segment that `synced` names, and it is not there.
    fn lacks_newest(&self, seq: u64) -> bool {
        let newest = self.last.map_or(0, |(found, _)| found.generation);
        newest < self.synced.generation && self.synced.first_seq <= seq
    }

    /// The bytes behind the end in the last segment that were part of the log. Stale bytes of a recycled
    /// file do not count; a few bytes of a torn header over stale bytes cannot be told from them.
    fn torn_bytes(&self, behind: &Remains) -> u64 {
        let Some((_, end)) = &self.last else { return 0 };
        let nonzero = behind.nonzero_end.saturating_sub(end.offset);
        if behind.frames > 0 {
            return behind.end - end.offset;
        }
        match &end.torn {
            Some(header) => nonzero.min(header.frame_bytes()),
            None if nonzero < FRAME_HEADER_BYTES as u64 => nonzero,
            None => 0,
        }
    }
}
