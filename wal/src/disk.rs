//! What the log needs from a disk: positional reads and writes, syncs, names.
//!
//! This module owns the [`Disk`] trait and nothing else; it never knows what a file contains. Its
//! implementors: [`OsDisk`] on the operating system's files, [`ReadOnlyDisk`] on the same files for those who
//! must not change them, and [`MemDisk`] for tests and simulations.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use crate::{BootId, Error};

mod mem;
mod os;
mod read_only;

pub use mem::{MemDisk, MemFile};
pub use os::OsDisk;
pub use read_only::ReadOnlyDisk;

/// A place for files. Every operation blocks; a handle is cheap to clone.
///
/// What is written survives the end of the process at once, and a power cut only after
/// [`DiskFile::sync_data`] on the file and [`DiskFile::sync_all`] on the directory that names it.
pub trait Disk: Clone + Debug + Send + Sync + 'static {
    /// An open file or directory.
    type File: DiskFile;
    /// A lock on a file, which is released when this value is dropped or the process ends.
    type Lock: Debug + Send + 'static;

    /// The run of the machine in which the disk is used now; `None` where that is not known. What was written within
    /// one run is there for its whole length, synced or not.
    fn boot(&self) -> Option<BootId>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Creates an empty file for reading and writing; a file that already has this name is emptied.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file for reading and writing, and creates it, empty, if it is missing.
    fn open_or_create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a directory, so that its names can be synced.
    fn open_dir(&self, path: &Path) -> io::Result<Self::File>;
    /// Creates a directory and its missing parents; an existing one is left as it is.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted. Names that are not UTF-8 are left out: the log makes none.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Renames a file within its directory, atomically; the target is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with all that is in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Locks a file, which is created if it is missing; `None` when another process holds the lock.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Self::Lock>>;
    /// Demands that the file that was locked last still has its name. From when that was found not to be so until it is
    /// found to be so again, this disk and its clones create, rename and remove nothing: the names may be another
    /// process's by now. Disks whose names no other process changes need not look.
    ///
    /// # Errors
    /// [`Error::Displaced`]; [`Error::Io`] where it cannot be told.
    fn expect_lock(&self) -> Result<(), Error> {
        Ok(())
    }
    /// The path of the file that was locked last, while it was found not to have that name. Does not wait.
    fn displaced_lock(&self) -> Option<PathBuf> {
        None
    }
}

/// An open file. Clones are the same open file.
pub trait DiskFile: Clone + Debug + Send + 'static {
    /// Reads at most `bytes.len()` bytes at `offset`; 0 at the end of the file.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes at `offset`, in one system call where the system takes them in one.
    /// After an error any part of them may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Writes all pieces, one behind the other, at `offset`, in as few system calls as the system takes.
    /// After an error any part of them may have been written.
    fn write_pieces_at(&self, pieces: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        for piece in pieces {
            self.write_all_at(piece, offset)?;
            offset += piece.len() as u64;
        }
        Ok(())
    }
    /// The length of the file in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Gives the file at least this length and reserves the space, so that later writes below it cannot
    /// run out of space. The new part reads as zeros.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Cuts the file to this length.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Waits until the file's bytes and length are on disk. After an error, what was written since the
    /// last success may be lost, whatever a later call says.
    fn sync_data(&self) -> io::Result<()>;
    /// As [`Self::sync_data`], and with all metadata; on a directory: its names.
    fn sync_all(&self) -> io::Result<()>;
}

/// The names in a directory; none in what is no directory, which another program has put there.
pub(crate) fn names_in<D: Disk>(disk: &D, path: &Path) -> Result<Vec<String>, Error> {
    match disk.list(path) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
        listed => listed.map_err(Error::io("list", path)),
    }
}
