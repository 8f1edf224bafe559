//! What can still be read of a shard's directory that recovery refuses, and what cannot.
//!
//! Good frames before a damage count, and those behind it where they can be found again safely: where the
//! damaged frame's own length leads to the frame that comes next, or at the first byte at which a frame
//! begins whose checksum, generation and sequence number fit what is due. The rule for torn ends is that of
//! recovery: behind a bad frame of which nothing says that it had been on disk, the log ends.
//!
//! This module never changes a file, and never decides what frames mean that build on lost ones: it says
//! where in the log something is missing.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::disk::names_in;
use crate::frame::{self, Content, FRAME_HEADER_BYTES, Frame, FrameHeader, FrameReader};
use crate::header::{
    FILE_HEADER_BYTES, FileHeader, SEGMENT_MAGIC, SEGMENT_SUFFIX, SNAPSHOT_MAGIC, SNAPSHOT_SUFFIX,
    SYNCED_MAGIC, SYNCED_NAME, number_of, u64_at,
};
use crate::synced::Witnesses;
use crate::{Disk, DiskFile, Error, Fault, Place, Proof, Record, snapshot, synced};

/// The readable part of one shard's directory, found and not yet read for its payloads.
#[derive(Debug)]
pub struct Salvage<D: Disk> {
    sources: Vec<Source<D::File>>,
    steps: Vec<Step>,
    losses: Vec<Loss>,
    readable: Readable,
    total_bytes: u64,
}

/// What a salvage hands on, in order: the snapshot's frames, then the log's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Salvaged<'a> {
    /// A good frame.
    Record(Record<'a>),
    /// Frames of the log are lost here.
    Gap,
}

/// How much is readable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readable {
    /// The snapshot that is used.
    pub snapshot: Option<PathBuf>,
    /// Its good frames.
    pub snapshot_frames: u64,
    /// The entries in them.
    pub snapshot_entries: u64,
    /// Segments with good frames.
    pub segments: u64,
    /// Those frames.
    pub log_frames: u64,
    /// The entries in them.
    pub log_entries: u64,
    /// Their bytes.
    pub log_bytes: u64,
    /// The sequence numbers of the first and of the last of them.
    pub log_seqs: Option<(u64, u64)>,
}

/// Something that cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The whole directory is missing.
    Directory {
        /// Where it has to be.
        path: PathBuf,
    },
    /// What is known of a log is in neither of the two places that tell it, so nothing tells where the log had ended.
    End {
        /// The file `synced`.
        path: PathBuf,
    },
    /// The snapshot that the log goes on from.
    Snapshot {
        /// The shard's directory.
        path: PathBuf,
        /// The number in its name.
        position: u64,
    },
    /// Frames of the snapshot or of the log.
    Frames {
        /// The snapshot, or the shard's directory for frames of the log.
        path: PathBuf,
        /// Whether they are the snapshot's.
        in_snapshot: bool,
        /// The sequence number of the first one.
        first_seq: u64,
        /// The sequence number of the last one; `None` when nothing tells how many there were.
        last_seq: Option<u64>,
        /// The number of entries in them, where it is known.
        entries: Option<u64>,
        /// Where they stood; empty when a file is missing.
        causes: Vec<LossCause>,
    },
    /// A file of another layout, which is not read.
    OtherLayout {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        bytes: u64,
    },
    /// A frame that is whole and not the one that was written here.
    OtherFrame {
        /// The segment.
        path: PathBuf,
        /// The frame's sequence number.
        seq: u64,
    },
    /// A file of another shard, which is not read.
    OtherShard {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        bytes: u64,
        /// The index of its shard, and the number of shards.
        found: (u32, u32),
    },
}

/// Bytes of a file that had to be frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LossCause {
    /// The file.
    pub path: PathBuf,
    /// The bytes, from the start of the file.
    pub bytes: Range<u64>,
    /// What was found at the first of them.
    pub fault: Fault,
}

/// A snapshot or a segment.
#[derive(Debug)]
struct Source<F> {
    path: PathBuf,
    file: F,
    file_bytes: u64,
    generation: u64,
    header: Option<FileHeader>,
}

#[derive(Debug)]
enum Step {
    Run { source: usize, run: Run, from_seq: u64, in_snapshot: bool },
    Gap,
}

/// Good frames back to back.
#[derive(Clone, Debug)]
struct Run {
    offset: u64,
    end: u64,
    first_seq: u64,
    last_seq: u64,
    entries: u64,
    /// The bytes before it that are no good frames.
    hole: Option<Hole>,
}

#[derive(Clone, Debug)]
struct Hole {
    offset: u64,
    fault: Fault,
    /// The entries that the one damaged frame states, whose length was right.
    stated_entries: Option<u64>,
}

/// All runs of one file.
#[derive(Debug, Default)]
struct Scan {
    runs: Vec<Run>,
    /// Where reading ended, and on what, be it before the trailer; `None` when nothing more was due.
    end: Option<(u64, Fault)>,
    /// Up to where frames say that the log was synced.
    synced_seq: u64,
    /// A frame that is not the one that was written here.
    other_frame: Option<u64>,
    trailer: Option<Trailer>,
}

#[derive(Clone, Copy, Debug)]
struct Trailer {
    offset: u64,
    seq: u64,
    entries: u64,
    log_end: u64,
}

impl<D: Disk> Salvage<D> {
    /// Looks for everything readable in a shard's directory. Reads all of it; memory is bounded by the
    /// largest frame.
    ///
    /// # Errors
    /// [`Error::NewerVersion`], since a file that this program cannot read may hold anything; [`Error::Io`].
    pub fn plan(disk: &D, directory: &Path, place: Place) -> Result<Salvage<D>, Error> {
        let mut salvage = Salvage {
            sources: Vec::new(),
            steps: Vec::new(),
            losses: Vec::new(),
            readable: Readable::default(),
            total_bytes: 0,
        };
        let names = match disk.list(directory) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                salvage.losses.push(Loss::Directory { path: directory.to_owned() });
                return Ok(salvage);
            }
            Err(error) => return Err(Error::io("list", directory)(error)),
        };
        let mut snapshots = Vec::new();
        let mut segments = Vec::new();
        for name in names {
            let path = directory.join(&name);
            if let Some(position) = number_of(&name, SNAPSHOT_SUFFIX) {
                let source = salvage.open(disk, path, SNAPSHOT_MAGIC, place)?;
                snapshots.extend(source.map(|source| (position.max(1), source)));
            } else if let Some(generation) = number_of(&name, SEGMENT_SUFFIX) {
                let source = salvage.open(disk, path, SEGMENT_MAGIC, place)?;
                segments.extend(source.map(|source| {
                    let header = source.header.filter(|header| header.generation == generation);
                    Source { generation, header, ..source }
                }));
            }
        }
        let found = match synced::read(disk, directory, place) {
            // It came with files of that shard, which are named.
            Err(Error::WrongShard { .. } | Error::OtherLayout { .. }) => synced::Found::default(),
            read => read?,
        };
        let (known, witnesses) = (found.synced.unwrap_or_default(), found.witnesses);
        let is_same_boot = known.boot.is_some() && known.boot == disk.boot();
        let (mut position, mut promised_seq) = salvage.take_snapshot(disk, place, snapshots, &segments)?;
        let goes_on = |segment: &Source<D::File>| segment.first_seq().is_some_and(|seq| seq < known.snapshot);
        let found = salvage.readable.snapshot.as_ref().map_or(0, |_| position);
        if found < known.snapshot && !segments.iter().any(goes_on) {
            position = known.snapshot;
            salvage.losses.push(Loss::Snapshot { path: directory.to_owned(), position });
            salvage.steps.push(Step::Gap);
        }
        promised_seq = promised_seq.max(known.header.synced_seq);
        if is_same_boot {
            promised_seq = promised_seq.max(known.written_seq);
        }
        salvage.take_log(directory, position, promised_seq, is_same_boot, segments, witnesses)?;
        salvage.total_bytes = salvage.sources.iter().map(|source| source.file_bytes).sum();
        Ok(salvage)
    }

    /// Notes a loss that the files of the shard alone do not show.
    pub fn add_loss(&mut self, loss: Loss) {
        self.losses.push(loss);
    }

    /// What is lost.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// What is readable.
    pub fn readable(&self) -> &Readable {
        &self.readable
    }

    /// Hands on all readable frames in order, and where in the log some are missing.
    ///
    /// # Errors
    /// [`Error::Io`], damage that was not there before, or what `on_salvaged` returned.
    pub fn replay<E: From<Error>>(
        &self,
        mut on_salvaged: impl FnMut(Salvaged<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let total_bytes = self.total_bytes;
        for step in &self.steps {
            let Step::Run { source, run, from_seq, in_snapshot } = step else {
                on_salvaged(Salvaged::Gap)?;
                continue;
            };
            let bytes_before: u64 = self.sources[..*source].iter().map(|source| source.file_bytes).sum();
            let source = &self.sources[*source];
            let mut reader = source.reader(run.offset)?;
            for seq in run.first_seq..=run.last_seq {
                let offset = reader.offset();
                let read_bytes = bytes_before + offset;
                let frame = reader.next(source.generation, seq)?.map_err(|fault| {
                    let path = source.path.clone();
                    Error::DamagedFrame { path, offset, seq, fault, proof: Proof::Written(run.last_seq) }
                })?;
                if let Content::Payload(kind) = frame.content
                    && seq >= *from_seq
                {
                    let (entries, payload, in_snapshot) = (frame.entries, frame.payload, *in_snapshot);
                    let record = Record { seq, kind, entries, payload, in_snapshot, read_bytes, total_bytes };
                    on_salvaged(Salvaged::Record(record))?;
                }
            }
        }
        Ok(())
    }

    /// Opens a file; one of another shard counts as lost.
    fn open(
        &mut self,
        disk: &D,
        path: PathBuf,
        magic: [u8; 8],
        place: Place,
    ) -> Result<Option<Source<D::File>>, Error> {
        let Opened { file, file_bytes, header } = open(disk, &path, magic)?;
        match header {
            Some((_, found)) if found.tag != place.tag => {
                self.losses.push(Loss::OtherLayout { path, bytes: file_bytes });
                Ok(None)
            }
            Some((_, found)) if found != place => {
                let found = (found.shard_index, found.shard_count);
                self.losses.push(Loss::OtherShard { path, bytes: file_bytes, found });
                Ok(None)
            }
            header => {
                let header = header.map(|(header, _)| header);
                let generation = header.map_or(0, |header| header.generation);
                Ok(Some(Source { path, file, file_bytes, generation, header }))
            }
        }
    }

    /// Chooses a snapshot: the newest, or, if that one is damaged, an older one that is whole and from which
    /// the log goes on. Returns where the log has to go on, and up to where it was synced.
    fn take_snapshot(
        &mut self,
        disk: &D,
        place: Place,
        mut snapshots: Vec<(u64, Source<D::File>)>,
        segments: &[Source<D::File>],
    ) -> Result<(u64, u64), Error> {
        for index in (0..snapshots.len()).rev() {
            let (position, source) = &snapshots[index];
            let goes_on = index + 1 == snapshots.len()
                || segments.iter().any(|segment| segment.first_seq() == Some(*position));
            let reading = snapshot::Reading::open(disk, &source.path, *position, place);
            let whole = match reading.and_then(snapshot::Reading::check) {
                Ok(snapshot) if goes_on => snapshot,
                Ok(_) | Err(Error::DamagedSnapshot { .. } | Error::NewerVersion { .. }) => continue,
                Err(error) => return Err(error),
            };
            let (position, source) = snapshots.swap_remove(index);
            let run = Run {
                offset: FILE_HEADER_BYTES as u64,
                end: whole.bytes,
                first_seq: 1,
                last_seq: whole.frames,
                entries: whole.entries,
                hole: None,
            };
            self.keep_snapshot(source, vec![run]);
            return Ok((position, whole.log_end - 1));
        }
        let Some((position, mut source)) = snapshots.pop() else { return Ok((1, 0)) };
        if source.header.is_none() {
            let mut reader = source.reader(FILE_HEADER_BYTES as u64)?;
            let first = frame::find(&mut reader, |_, header| header.synced_seq == 0)?;
            source.generation = first.map_or(0, |header| header.generation);
        }
        let position = source.first_seq().unwrap_or(position).max(1);
        let scan = source.scan(Some(1), 1..u64::MAX, Witnesses::default())?;
        self.lose_of_snapshot(&source, &scan);
        let promised_seq = scan.trailer.map_or(0, |trailer| trailer.log_end.saturating_sub(1));
        self.keep_snapshot(source, scan.runs);
        Ok((position, promised_seq))
    }

    fn keep_snapshot(&mut self, source: Source<D::File>, runs: Vec<Run>) {
        self.readable.snapshot = Some(source.path.clone());
        let index = self.sources.len();
        self.sources.push(source);
        for run in runs {
            self.readable.snapshot_frames += run.last_seq + 1 - run.first_seq;
            self.readable.snapshot_entries += run.entries;
            let from_seq = run.first_seq;
            self.steps.push(Step::Run { source: index, run, from_seq, in_snapshot: true });
        }
    }

    fn lose_of_snapshot(&mut self, source: &Source<D::File>, scan: &Scan) {
        let mut next_seq = 1;
        let mut losses = Vec::new();
        let mut lose = |first_seq, last_seq, entries, bytes, fault| {
            let causes = vec![LossCause { path: source.path.clone(), bytes, fault }];
            let path = source.path.clone();
            losses.push(Loss::Frames { path, in_snapshot: true, first_seq, last_seq, entries, causes });
        };
        for run in &scan.runs {
            if let Some(hole) = run.hole.as_ref().filter(|_| run.first_seq > next_seq) {
                let bytes = hole.offset..run.offset;
                lose(next_seq, Some(run.first_seq - 1), hole.stated_entries, bytes, hole.fault);
            }
            next_seq = run.last_seq + 1;
        }
        if let Some((offset, fault)) = scan.end {
            match scan.trailer {
                Some(trailer) => lose(next_seq, Some(trailer.seq - 1), None, offset..trailer.offset, fault),
                None => lose(next_seq, None, None, offset..source.file_bytes, fault),
            }
        }
        if let ([Loss::Frames { entries, .. }], Some(trailer)) = (losses.as_mut_slice(), scan.trailer) {
            let kept: u64 = scan.runs.iter().map(|run| run.entries).sum();
            *entries = trailer.entries.checked_sub(kept);
        }
        self.losses.append(&mut losses);
    }

    /// Puts the segments' frames from `position` on into one order, and finds what is missing between them.
    fn take_log(
        &mut self,
        directory: &Path,
        position: u64,
        promised_seq: u64,
        is_same_boot: bool,
        mut segments: Vec<Source<D::File>>,
        witnesses: Witnesses,
    ) -> Result<(), Error> {
        segments.retain(|segment| segment.first_seq().is_none_or(|first_seq| first_seq >= position));
        let mut synced_seq = promised_seq;
        let mut scans = Vec::with_capacity(segments.len());
        for (index, segment) in segments.iter().enumerate() {
            let successor_seq = segments[index + 1..].iter().find_map(Source::first_seq);
            let bounds = position..successor_seq.unwrap_or(u64::MAX);
            let scan = segment.scan(segment.first_seq(), bounds, witnesses)?;
            if let Some(seq) = scan.other_frame {
                self.losses.push(Loss::OtherFrame { path: segment.path.clone(), seq });
            }
            let header_seq = segment.header.map_or(0, |header| header.synced_seq);
            synced_seq = synced_seq.max(scan.synced_seq).max(header_seq);
            scans.push(scan);
        }
        let mut order = Order { directory, next_seq: position, causes: Vec::new() };
        let mut is_over = false;
        for (segment, scan) in segments.into_iter().zip(scans) {
            let index = self.sources.len();
            if scan.runs.is_empty() && segment.header.is_none() && !segment.is_empty()? {
                order.blame(&segment, 0..segment.file_bytes, Fault::FileHeader);
            }
            for run in scan.runs {
                if is_over || run.last_seq < order.next_seq {
                    continue;
                }
                if let Some(hole) = &run.hole {
                    order.blame(&segment, hole.offset..run.offset, hole.fault);
                }
                if run.first_seq > order.next_seq {
                    is_over = order.next_seq > synced_seq && !is_same_boot;
                    if is_over {
                        continue;
                    }
                    let stated = run.hole.as_ref().and_then(|hole| hole.stated_entries);
                    self.losses.push(order.loss(run.first_seq - 1, stated));
                    self.steps.push(Step::Gap);
                }
                order.causes.clear();
                self.keep_run(index, run, &mut order.next_seq);
            }
            if let Some((offset, fault)) = scan.end
                && !matches!(fault, Fault::Empty | Fault::Generation { .. } | Fault::FileHeader)
                && offset + FRAME_HEADER_BYTES as u64 <= segment.file_bytes
            {
                order.blame(&segment, offset..segment.damaged_end(offset)?, fault);
            }
            self.sources.push(segment);
        }
        if order.next_seq <= synced_seq {
            self.losses.push(order.loss(synced_seq, None));
            self.steps.push(Step::Gap);
        }
        Ok(())
    }

    fn keep_run(&mut self, source: usize, run: Run, next_seq: &mut u64) {
        let readable = &mut self.readable;
        let last_source = self.steps.iter().rev().find_map(|step| match step {
            Step::Run { source, .. } => Some(*source),
            Step::Gap => None,
        });
        readable.segments += u64::from(last_source != Some(source));
        readable.log_frames += run.last_seq + 1 - run.first_seq.max(*next_seq);
        readable.log_entries += run.entries;
        readable.log_bytes += run.end - run.offset;
        let first_seq = readable.log_seqs.map_or(run.first_seq.max(*next_seq), |(first_seq, _)| first_seq);
        readable.log_seqs = Some((first_seq, run.last_seq));
        let from_seq = std::mem::replace(next_seq, run.last_seq + 1);
        self.steps.push(Step::Run { source, run, from_seq, in_snapshot: false });
    }
}

/// The log while it is put in order.
struct Order<'a> {
    directory: &'a Path,
    next_seq: u64,
    /// What may be the cause of the next loss.
    causes: Vec<LossCause>,
}

impl Order<'_> {
    fn blame<F>(&mut self, source: &Source<F>, bytes: Range<u64>, fault: Fault) {
        self.causes.push(LossCause { path: source.path.clone(), bytes, fault });
    }

    /// The loss of all frames from the next one that is due to this one.
    fn loss(&mut self, last_seq: u64, stated_entries: Option<u64>) -> Loss {
        let is_one_frame = last_seq == self.next_seq && self.causes.len() == 1;
        Loss::Frames {
            path: self.directory.to_owned(),
            in_snapshot: false,
            first_seq: self.next_seq,
            last_seq: Some(last_seq),
            entries: stated_entries.filter(|_| is_one_frame),
            causes: std::mem::take(&mut self.causes),
        }
    }
}

impl Scan {
    /// Adds a frame to the last run, or to a new one behind a hole.
    fn add(&mut self, frame: &Frame<'_>, offset: u64, hole: Option<Hole>) {
        let (seq, entries, end) = (frame.seq, u64::from(frame.entries), offset + frame.bytes.len() as u64);
        self.synced_seq = self.synced_seq.max(frame.synced_seq);
        match self.runs.last_mut() {
            Some(run) if hole.is_none() => {
                (run.end, run.last_seq) = (end, seq);
                run.entries += entries;
            }
            _ => self.runs.push(Run { offset, end, first_seq: seq, last_seq: seq, entries, hole }),
        }
    }
}

impl<F: DiskFile> Source<F> {
    fn first_seq(&self) -> Option<u64> {
        self.header.map(|header| header.first_seq)
    }

    fn reader(&self, offset: u64) -> Result<FrameReader<F>, Error> {
        FrameReader::new(self.file.clone(), &self.path, offset)
    }

    /// Whether the file begins as one that was never used does.
    fn is_empty(&self) -> Result<bool, Error> {
        let mut reader = self.reader(0)?;
        Ok(reader.peek(FILE_HEADER_BYTES)?.iter().all(|byte| *byte == 0))
    }

    /// Where the bytes end that a damaged frame at `offset` left behind, as far as it can be told.
    fn damaged_end(&self, offset: u64) -> Result<u64, Error> {
        let mut reader = self.reader(offset)?;
        let header = reader.peek(FRAME_HEADER_BYTES)?.first_chunk().map(FrameHeader::decode);
        let header = header.filter(|header| header.generation == self.generation && header.is_plausible());
        let end = header.map_or(self.file_bytes, |header| offset + header.frame_bytes());
        Ok(end.min(self.file_bytes))
    }

    /// Finds all good frames with sequence numbers within `bounds`. `due` is the first one, if the file's
    /// header tells it.
    fn scan(&self, mut due: Option<u64>, bounds: Range<u64>, witnesses: Witnesses) -> Result<Scan, Error> {
        let mut reader = self.reader(FILE_HEADER_BYTES as u64)?;
        let mut scan = Scan::default();
        let mut hole = None;
        while due.is_none_or(|seq| seq < bounds.end) {
            let offset = reader.offset();
            let mut fault = Fault::FileHeader;
            if let Some(seq) = due {
                match reader.next(self.generation, seq)? {
                    Ok(frame) if frame.content == Content::Trailer => {
                        let counts = frame.payload.first_chunk::<24>();
                        let trailer = |counts: &[u8; 24]| Trailer {
                            offset,
                            seq,
                            entries: u64_at(counts, 8),
                            log_end: u64_at(counts, 16),
                        };
                        scan.trailer = counts.map(trailer);
                        scan.end = hole.map(|hole: Hole| (hole.offset, hole.fault));
                        return Ok(scan);
                    }
                    Ok(frame) => {
                        if witnesses.contradict(seq, frame.crc).is_some() {
                            scan.other_frame = Some(seq);
                        }
                        scan.add(&frame, offset, hole.take());
                        due = Some(seq + 1);
                        continue;
                    }
                    Err(found) => fault = found,
                }
            }
            let Some((seq, stated_entries)) = self.resync(&mut reader, due, &bounds)? else {
                scan.end = Some((offset, fault));
                break;
            };
            let offset = if due.is_none() { 0 } else { offset };
            hole = Some(Hole { offset, fault, stated_entries });
            due = Some(seq);
        }
        Ok(scan)
    }

    /// Goes on to the next good frame behind a bad one. Returns its sequence number, and how many entries
    /// the bad frame states if it is certain where that one ended.
    fn resync(
        &self,
        reader: &mut FrameReader<F>,
        due: Option<u64>,
        bounds: &Range<u64>,
    ) -> Result<Option<(u64, Option<u64>)>, Error> {
        let offset = reader.offset();
        if let Some(seq) = due
            && seq + 1 < bounds.end
            && let Some(bytes) = reader.peek(FRAME_HEADER_BYTES)?.first_chunk()
        {
            let bad = FrameHeader::decode(bytes);
            if bad.generation == self.generation && bad.seq == seq && bad.is_plausible() {
                let behind = offset + bad.frame_bytes();
                if self.reader(behind)?.next(self.generation, seq + 1)?.is_ok() {
                    *reader = self.reader(behind)?;
                    return Ok(Some((seq + 1, Some(u64::from(bad.entries)))));
                }
            }
        }
        let found = frame::find(reader, |start, header| {
            // Between two frames there is no room for more lost ones than headers fit in.
            let lost_max = (start - offset) / FRAME_HEADER_BYTES as u64;
            let follows = due.is_none_or(|due| header.seq >= due && header.seq - due <= lost_max);
            header.generation == self.generation && bounds.contains(&header.seq) && follows
        })?;
        Ok(found.map(|header| (header.seq, None)))
    }
}

/// What the files of a layout tell about it.
#[derive(Debug, Default)]
pub(crate) struct LayoutTraces {
    /// The number of shards: as most files say, else as many as there are directories.
    pub shards: u32,
    /// As most files say.
    pub tag: u32,
    /// What each file says of both.
    pub places: Vec<(u32, u32)>,
    pub segments: u64,
    pub shards_with_snapshot: u32,
}

pub(crate) fn traces<D: Disk>(disk: &D, layout: &Path) -> Result<LayoutTraces, Error> {
    let mut traces = LayoutTraces::default();
    let mut directories = 0;
    for name in names_in(disk, layout)? {
        let Some(index) = name.strip_prefix("shard-").and_then(|digits| digits.parse::<u32>().ok()) else {
            continue;
        };
        directories = directories.max(index.saturating_add(1));
        let directory = layout.join(&name);
        let mut has_snapshot = false;
        for name in names_in(disk, &directory)? {
            let is_segment = number_of(&name, SEGMENT_SUFFIX).is_some();
            let is_snapshot = number_of(&name, SNAPSHOT_SUFFIX).is_some();
            let magic = match name.as_str() {
                SYNCED_NAME => Some(SYNCED_MAGIC),
                _ if is_segment => Some(SEGMENT_MAGIC),
                _ if is_snapshot => Some(SNAPSHOT_MAGIC),
                _ => None,
            };
            if let Some(magic) = magic {
                let opened = open(disk, &directory.join(&name), magic)?;
                traces.places.extend(opened.header.map(|(_, place)| (place.shard_count, place.tag)));
            }
            traces.segments += u64::from(is_segment);
            has_snapshot |= is_snapshot;
        }
        traces.shards_with_snapshot += u32::from(has_snapshot);
    }
    let votes = |place: &(u32, u32)| traces.places.iter().filter(|other| *other == place).count();
    (traces.shards, traces.tag) = traces.places.iter().copied().max_by_key(votes).unwrap_or((directories, 0));
    Ok(traces)
}

/// A file as it was found.
struct Opened<F> {
    file: F,
    file_bytes: u64,
    /// Its header, if that is readable, and the shard that the header names.
    header: Option<(FileHeader, Place)>,
}

/// Opens a file and reads its header.
fn open<D: Disk>(disk: &D, path: &Path, magic: [u8; 8]) -> Result<Opened<D::File>, Error> {
    let file = disk.open(path).map_err(Error::io("open", path))?;
    let file_bytes = file.len().map_err(Error::io("measure", path))?;
    let mut bytes = [0; FILE_HEADER_BYTES];
    let read = file.read_at(&mut bytes, 0).map_err(Error::io("read", path))?;
    let header = FileHeader::decode_any(&bytes[..read], magic, path)?;
    Ok(Opened { file, file_bytes, header })
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Directory { path } => write!(f, "all of {}, which is missing", path.display()),
            Loss::OtherShard { path, bytes, found } => write!(
                f,
                "{} with {bytes} bytes, which belongs to shard {} of {}: move it there in a copy, and repair \
                 that",
                path.display(),
                found.0,
                found.1
            ),
            Loss::OtherLayout { path, bytes } => write!(
                f,
                "what belongs in place of {} with {bytes} bytes, which is of another data directory",
                path.display()
            ),
            Loss::OtherFrame { path, seq } => write!(
                f,
                "frame {seq} of the log as it was written, and what may differ around it: {} is of a copy that went on",
                path.display()
            ),
            Loss::End { path } => write!(
                f,
                "the end of the log, if it had more than is readable: {} is missing or damaged, and so is its copy",
                path.display()
            ),
            Loss::Snapshot { path, position } => write!(
                f,
                "all that was set before frame {position} of the log: no file in {} is the snapshot \
                 {position:020}.snapshot or a later one",
                path.display()
            ),
            Loss::Frames { path, in_snapshot, first_seq, last_seq, entries, causes } => {
                let of = if *in_snapshot { "snapshot" } else { "log" };
                match last_seq {
                    Some(last_seq) if last_seq == first_seq => write!(f, "frame {first_seq} of the {of}")?,
                    Some(last_seq) => write!(f, "frames {first_seq} to {last_seq} of the {of}")?,
                    None => write!(f, "all from frame {first_seq} of the {of} on")?,
                }
                match entries {
                    Some(1) => write!(f, ", 1 change")?,
                    Some(entries) => write!(f, ", {entries} changes")?,
                    None => write!(f, ", an unknown number of changes")?,
                }
                if causes.is_empty() {
                    return write!(f, ": no file in {} has them", path.display());
                }
                for (index, cause) in causes.iter().enumerate() {
                    let (path, Range { start, end }) = (cause.path.display(), &cause.bytes);
                    let sign = if index == 0 { ':' } else { ';' };
                    write!(f, "{sign} {path}, bytes {start} to {end}: {}", cause.fault)?;
                }
                Ok(())
            }
        }
    }
}
