//! The operating system's files, for those who look at a directory and must leave it as it is.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use super::{Disk, OsDisk};

/// The file system of the operating system without any way to change it: files are opened for reading, and
/// everything that creates, renames or removes is refused. Read-only file systems and files of other users
/// will do.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnlyDisk;

impl Disk for ReadOnlyDisk {
    type File = Arc<File>;
    /// `None` when there is no such file, so that nobody can hold its lock.
    type Lock = Option<File>;

    fn open(&self, path: &Path) -> io::Result<Arc<File>> {
        File::open(path).map(Arc::new)
    }

    fn create(&self, _path: &Path) -> io::Result<Arc<File>> {
        Err(refused())
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<File>> {
        OsDisk.open_dir(path)
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(path)
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove_file(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove_dir_all(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Option<File>>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(None)),
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Some(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn refused() -> io::Error {
    ErrorKind::ReadOnlyFilesystem.into()
}
