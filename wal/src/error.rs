//! What can go wrong with the log files. A variant names the fault and carries the evidence.
//!
//! The texts never say what to do about it: that is for those to say who offer it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Why the log files could not be opened, read or written.
#[derive(Debug)]
pub enum Error {
    /// The operating system refused an operation.
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process holds the data directory.
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The locked data directory is not at its path any more, or its lock file is not.
    Displaced {
        /// Where the lock file has to be.
        path: PathBuf,
    },
    /// The data directory was begun by what copies data there, and not completed.
    Unfinished {
        /// The file that says so.
        path: PathBuf,
    },
    /// There are log files, but no manifest says which of them count.
    MissingManifest {
        /// Where the manifest has to be.
        path: PathBuf,
        /// The first log file or snapshot that was found.
        found: PathBuf,
    },
    /// The manifest is not as it was written.
    DamagedManifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        fault: ManifestFault,
    },
    /// A directory that the manifest names does not exist.
    MissingDirectory {
        /// The missing directory.
        path: PathBuf,
    },
    /// What has to be known of a shard's log is in neither of the two places that tell it.
    MissingSynced {
        /// The file `synced` of the shard.
        path: PathBuf,
        /// The file that has it a second time.
        copy: PathBuf,
    },
    /// A layout that was in use is newer than the one that the manifest names.
    NewerLayout {
        /// The newer layout.
        path: PathBuf,
        /// The one that the manifest names.
        named: PathBuf,
    },
    /// The snapshot without which the log is not whole does not exist.
    MissingSnapshot {
        /// The shard's directory.
        directory: PathBuf,
        /// The number in its name; a later one would do.
        position: u64,
        /// The newest one that exists.
        newest: Option<PathBuf>,
    },
    /// A file was written by a newer version of the program.
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest format version that this program reads.
        supported: u32,
    },
    /// A file belongs to another shard, or to a layout with another number of shards.
    WrongShard {
        /// The file.
        path: PathBuf,
        /// The shard index and shard count that its place demands.
        expected: (u32, u32),
        /// The shard index and shard count that it states.
        found: (u32, u32),
    },
    /// A file belongs to another layout: of another server, or of this one at another time.
    OtherLayout {
        /// The file.
        path: PathBuf,
        /// The tag of the layout that it lies in.
        expected: u32,
        /// The tag that it states.
        found: u32,
    },
    /// A frame is whole and not the one that was written here: its file is of a copy of the log that went on.
    OtherFrame {
        /// The segment.
        path: PathBuf,
        /// The frame's sequence number.
        seq: u64,
        /// The frame's checksum as it was noted beside the log.
        expected: u32,
        /// The one that it has.
        found: u32,
    },
    /// A copy of a log lacks frames of it: its files were not readable as they were written.
    IncompleteCopy {
        /// The copy's directory.
        directory: PathBuf,
        /// The last frame of the log.
        expected: u64,
        /// The last frame of the copy.
        found: u64,
    },
    /// A note is not as it was written.
    DamagedNote {
        /// The note.
        path: PathBuf,
        /// How many bytes of it there are.
        found_bytes: usize,
    },
    /// A frame that was on disk once is not readable any more.
    DamagedFrame {
        /// The segment.
        path: PathBuf,
        /// Offset of the frame in the segment, in bytes.
        offset: u64,
        /// The frame's sequence number; the frames before it are good.
        seq: u64,
        /// What was found instead.
        fault: Fault,
        /// What says that the frame had been there.
        proof: Proof,
    },
    /// Frames that were on disk once are in no segment: a segment is missing.
    MissingFrames {
        /// The shard's directory.
        directory: PathBuf,
        /// The first sequence number that is missing.
        seq: u64,
        /// The next segment that exists, and its first sequence number.
        next: Option<(PathBuf, u64)>,
        /// What says that the frames had been there.
        proof: Proof,
    },
    /// A snapshot is not as it was written, or has no trailer.
    DamagedSnapshot {
        /// The snapshot.
        path: PathBuf,
        /// Where reading had to end, in bytes from its start.
        offset: u64,
        /// What was found there.
        fault: Fault,
    },
    /// A sync failed earlier: what was written before may be lost on disk, and only a snapshot makes the log
    /// durable again.
    SyncFailedBefore {
        /// The shard's directory.
        directory: PathBuf,
    },
    /// A sync failed after this snapshot was begun: it cannot be completed. Begin another one.
    SnapshotOvertaken {
        /// The unfinished snapshot.
        path: PathBuf,
    },
}

/// What says that a frame had been there, so that it is damaged or missing, and not the torn end of a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// All frames up to this one had been synced: says a later frame, segment or snapshot, or the file `synced`.
    Synced(u64),
    /// All frames up to this one had been written in this run of the machine, which takes back nothing: says a whole
    /// frame behind it, or the file `synced`.
    Written(u64),
}

/// What is wrong with a file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence<'a> {
    /// The file, or the directory that lacks one.
    pub path: &'a Path,
    /// Where in the file, in bytes from its start; `None` when it is about the whole of it.
    pub offset: Option<u64>,
    /// What has to be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// What was found where a good frame had to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The header of the file itself is not readable.
    FileHeader,
    /// The file ends within the frame, or before it.
    End,
    /// Zeros.
    Empty,
    /// A frame of another generation.
    Generation {
        /// The generation of the file.
        expected: u64,
        /// The generation in the frame.
        found: u64,
    },
    /// A frame with another sequence number.
    Sequence {
        /// The sequence number that is next.
        expected: u64,
        /// The one in the frame.
        found: u64,
    },
    /// A kind of frame that does not exist, or not here.
    Kind {
        /// The kind.
        found: u8,
    },
    /// The checksum does not fit the bytes.
    Checksum {
        /// The checksum of the bytes.
        expected: u32,
        /// The checksum in the frame.
        found: u32,
    },
    /// The trailer counts other frames or entries than there are.
    Trailer,
    /// Bytes follow the trailer.
    Surplus,
}

/// What is wrong with a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestFault {
    /// The text does not have the lines of a manifest.
    Syntax,
    /// The checksum line does not fit the lines above it.
    Checksum {
        /// The checksum of the lines.
        expected: u32,
        /// The one in the file.
        found: u32,
    },
}

impl Error {
    /// What the system said when this was done to this file.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { action, path: path.to_owned(), source }
    }

    /// What is wrong with the files; `None` when nothing is, and the system refused an operation on them.
    pub fn evidence(&self) -> Option<Evidence<'_>> {
        let (path, offset, expected, found) = self.of_content().or_else(|| self.of_absence())?;
        Some(Evidence { path, offset, expected, found })
    }

    /// As [`Error::evidence`], where a file or a part of it is missing.
    fn of_absence(&self) -> Option<(&Path, Option<u64>, String, String)> {
        Some(match self {
            Error::Unfinished { path } => (
                path,
                None,
                "a data directory that was completed, without this file".to_owned(),
                "one that was begun, by a repair or a backup".to_owned(),
            ),
            Error::MissingManifest { path, found } => (
                path,
                None,
                format!("a manifest, since {} exists", found.display()),
                "no such file".to_owned(),
            ),
            Error::MissingDirectory { path } => (
                path,
                None,
                "a directory, since the manifest names it".to_owned(),
                "no such directory".to_owned(),
            ),
            Error::MissingSynced { path, copy } => (
                path,
                None,
                format!("what is known of the log, here or in {}", copy.display()),
                "neither is whole".to_owned(),
            ),
            Error::NewerLayout { path, named } => (
                path,
                None,
                format!("no newer layout than {}, which the manifest names", named.display()),
                "one that was in use".to_owned(),
            ),
            Error::MissingSnapshot { directory, position, newest } => (
                directory,
                None,
                format!("the snapshot {position:020}.snapshot or a later one"),
                match newest {
                    Some(newest) => format!("{} as the newest", newest.display()),
                    None => "no snapshot".to_owned(),
                },
            ),
            Error::MissingFrames { directory, seq, next, .. } => {
                let found = match next {
                    Some((path, first)) => format!("{}, which begins with frame {first}", path.display()),
                    None => "the end of the log".to_owned(),
                };
                (directory, None, format!("a segment with frame {seq} of the log"), found)
            }
            _ => return None,
        })
    }

    /// As [`Error::evidence`], where a file is not as it should be.
    fn of_content(&self) -> Option<(&Path, Option<u64>, String, String)> {
        let of_shard = |(index, count): &(u32, u32)| format!("a file of shard {index} of {count}");
        Some(match self {
            Error::DamagedManifest { path, fault: ManifestFault::Syntax } => {
                (path, None, "the lines of a manifest".to_owned(), "another text".to_owned())
            }
            Error::DamagedManifest { path, fault: ManifestFault::Checksum { expected, found } } => {
                (path, None, format!("the checksum {expected:08x}"), format!("{found:08x}"))
            }
            Error::NewerVersion { path, found, supported } => {
                (path, None, format!("format version {supported} or lower"), format!("version {found}"))
            }
            Error::DamagedNote { path, found_bytes } => {
                (path, None, "a note with its checksum".to_owned(), format!("{found_bytes} other bytes"))
            }
            Error::WrongShard { path, expected, found } => (path, None, of_shard(expected), of_shard(found)),
            Error::OtherLayout { path, expected, found } => (
                path,
                None,
                format!("a file of this data directory, with the tag {expected:08x}"),
                format!("one of another, with the tag {found:08x}"),
            ),
            Error::OtherFrame { path, seq, expected, found } => (
                path,
                None,
                format!("frame {seq} of the log as it was written, with the checksum {expected:08x}"),
                format!("that of a copy that went on, with {found:08x}"),
            ),
            Error::DamagedFrame { path, offset, seq, fault, .. } => {
                (path, Some(*offset), format!("frame {seq} of the log"), fault.to_string())
            }
            Error::DamagedSnapshot { path, offset, fault } => {
                (path, Some(*offset), "the next frame of a whole snapshot".to_owned(), fault.to_string())
            }
            Error::Io { .. }
            | Error::Locked { .. }
            | Error::Displaced { .. }
            | Error::IncompleteCopy { .. }
            | Error::SyncFailedBefore { .. }
            | Error::SnapshotOvertaken { .. }
            | Error::MissingDirectory { .. }
            | Error::MissingFrames { .. }
            | Error::MissingManifest { .. }
            | Error::MissingSnapshot { .. }
            | Error::MissingSynced { .. }
            | Error::NewerLayout { .. }
            | Error::Unfinished { .. } => return None,
        })
    }

    /// Whether a file may be as it was written, and this process must not look.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Whether the process, or the system, has no descriptor left.
    pub fn is_out_of_files(&self) -> bool {
        let Error::Io { source, .. } = self else { return false };
        matches!(Errno::from_io_error(source), Some(Errno::MFILE | Errno::NFILE))
    }

    /// Whether a file would be larger than the process, or the file system, allows.
    pub fn is_file_too_large(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::FileTooLarge)
    }

    /// Whether the disk, or the quota on it, is full: space that returns ends this error.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Error::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Evidence { path, offset, expected, found }) = self.evidence() {
            write!(f, "{}", path.display())?;
            if let Some(offset) = offset {
                write!(f, " at byte {offset}")?;
            }
            write!(f, ": expected {expected}, found {found}")?;
        }
        match self {
            Error::Io { action, path, source } => write!(f, "cannot {action} {}: {source}", path.display()),
            Error::Locked { path } => {
                write!(f, "{} is locked: another server uses this data directory", path.display())
            }
            Error::Displaced { path } => write!(
                f,
                "{} is not the file that this server has locked: the data directory, or this file in it, was moved, \
                 removed or replaced",
                path.display()
            ),
            Error::DamagedFrame { proof, .. } | Error::MissingFrames { proof, .. } => {
                write!(f, "; what is before it is good, and {proof}")
            }
            Error::IncompleteCopy { directory, expected, found } => write!(
                f,
                "the copy in {} ends with frame {found} instead of {expected}; check the disk that holds the log",
                directory.display()
            ),
            Error::SyncFailedBefore { directory } => write!(
                f,
                "the log in {} is not durable: a sync failed, and no snapshot was completed since",
                directory.display()
            ),
            Error::SnapshotOvertaken { path } => {
                write!(f, "{} cannot be completed: a sync failed after it was begun", path.display())
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proof::Synced(seq) => write!(f, "all up to frame {seq} had been on disk"),
            Proof::Written(seq) => {
                write!(f, "all up to frame {seq} had been written since the machine was started")
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Fault::FileHeader => write!(f, "an unreadable file header"),
            Fault::End => write!(f, "the end of the file"),
            Fault::Empty => write!(f, "zeros"),
            Fault::Generation { expected, found } => {
                write!(f, "a frame of generation {found} instead of {expected}")
            }
            Fault::Sequence { expected, found } => write!(f, "frame {found} instead of {expected}"),
            Fault::Kind { found } => write!(f, "a frame of the unknown kind {found}"),
            Fault::Checksum { expected, found } => {
                write!(f, "the checksum {found:08x} instead of {expected:08x}")
            }
            Fault::Trailer => write!(f, "a trailer that does not fit the frames"),
            Fault::Surplus => write!(f, "bytes behind the trailer"),
        }
    }
}
