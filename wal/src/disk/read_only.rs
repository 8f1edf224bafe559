//! The operating system's files, for those who look at a directory and must leave it as it is.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use super::os::open_file;
use super::{Disk, OsDisk};
use crate::BootId;

/// The file system of the operating system without any way to change it: files are opened for reading, and
/// everything that creates, renames or removes is refused. Read-only file systems and files of other users
/// will do.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnlyDisk {
    boot: Option<BootId>,
}

impl ReadOnlyDisk {
    /// Used in this run of the machine, as [`OsDisk::in_boot`].
    pub fn in_boot(boot: Option<BootId>) -> ReadOnlyDisk {
        ReadOnlyDisk { boot }
    }
}

impl Disk for ReadOnlyDisk {
    type File = Arc<File>;
    /// `None` when there is no such file, so that no process can hold its lock.
    type Lock = Option<File>;

    fn boot(&self) -> Option<BootId> {
        self.boot
    }

    fn open(&self, path: &Path) -> io::Result<Arc<File>> {
        open_file(OpenOptions::new().read(true), path).map(Arc::new)
    }

    fn create(&self, _path: &Path) -> io::Result<Arc<File>> {
        Err(refused())
    }

    fn open_or_create(&self, _path: &Path) -> io::Result<Arc<File>> {
        Err(refused())
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<File>> {
        OsDisk::default().open_dir(path)
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        OsDisk::default().list(path)
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
        let file = match open_file(OpenOptions::new().read(true), path) {
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
