//! Where a log ends: torn, as a crash leaves it, or damaged. The rule is in the crate's documentation.

use std::path::{Path, PathBuf};

use crate::frame::{self, FRAME_HEADER_BYTES, FrameHeader, Remains};
use crate::header::{CUT_SUFFIX, FileHeader};
use crate::{Disk, Error, Fault, Proof};

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

/// A segment file as it was found. It is not kept open: there may be more of them than descriptors.
#[derive(Debug)]
pub(crate) struct Found {
    pub generation: u64,
    pub path: PathBuf,
    pub file_bytes: u64,
    pub header: Option<FileHeader>,
}

/// Where the log ends in its last segment, and what stands there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub offset: u64,
    pub fault: Fault,
    pub torn: Option<FrameHeader>,
}

impl Found {
    /// The first frame that its header promises; 0 where there is no header.
    pub fn first_seq(&self) -> u64 {
        self.header.map_or(0, |header| header.first_seq)
    }

    pub fn open<D: Disk>(&self, disk: &D) -> Result<D::File, Error> {
        disk.open(&self.path).map_err(Error::io("open", &self.path))
    }
}

/// Everything behind the end of the log.
#[derive(Debug)]
pub(crate) struct Rest<'a, D> {
    pub disk: &'a D,
    pub directory: &'a Path,
    /// The last segment with a place in the log; `None` when there is no segment.
    pub last: Option<(&'a Found, End)>,
    /// Segments behind the end.
    pub dropped: &'a [Found],
    /// Files whose header is not that of their name: never used, or torn, or damaged.
    pub strays: &'a [Found],
    pub synced: FileHeader,
    pub is_same_boot: bool,
}

impl<D: Disk> Rest<'_, D> {
    /// Whether the log is torn at frame `seq`, which is cut, or damaged there, which is refused.
    /// `synced_seq` is what the snapshot and the file `synced` say was synced, `written_seq` what the latter says was
    /// written in this run of the machine.
    pub fn judge(&self, seq: u64, synced_seq: u64, written_seq: u64) -> Result<Option<Cut>, Error> {
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

/// The name under which a file of the log is kept whose frames from `seq` on are cut.
pub(crate) fn cut_path(path: &Path, seq: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{seq}{CUT_SUFFIX}"));
    name.into()
}

/// The file that [`cut_path`] was made of.
pub(crate) fn uncut(path: &Path) -> PathBuf {
    path.with_extension("").with_extension("")
}
