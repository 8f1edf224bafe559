//! The operating system's files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::{Disk, DiskFile};
use crate::BootId;

/// How many bytes of a removed file are given back at a time, and how long others have the processor in between.
const REMOVED_PIECE_BYTES: u64 = 4 << 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(2);

/// How many pieces Linux takes in one write.
const PIECES_MAX: usize = 1024;

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk {
    boot: Option<BootId>,
}

impl OsDisk {
    /// Used in this run of the machine. By default that is not known, and any earlier process may have been in another.
    pub fn in_boot(boot: Option<BootId>) -> OsDisk {
        OsDisk { boot }
    }
}

impl Disk for OsDisk {
    type File = Arc<File>;
    type Lock = File;

    fn boot(&self) -> Option<BootId> {
        self.boot
    }

    fn open(&self, path: &Path) -> io::Result<Arc<File>> {
        open_file(OpenOptions::new().read(true).write(true), path).map(Arc::new)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<File>> {
        open_file(own_file().truncate(true), path).map(Arc::new)
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Arc<File>> {
        open_file(own_file().truncate(false), path).map(Arc::new)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<File>> {
        File::open(path).map(Arc::new)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// A file that is gone gives its blocks and its cached pages back piece by piece: at once, that would take the
    /// processor for tens of milliseconds where the file is large. One that has another name keeps all of them.
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let file = open_file(OpenOptions::new().write(true), path);
        fs::remove_file(path)?;
        // What cannot be opened or shortened has still been removed.
        let Ok((file, found)) = file.and_then(|file| file.metadata().map(|found| (file, found))) else {
            return Ok(());
        };
        let mut left = if found.nlink() == 0 { found.len() } else { 0 };
        while left > REMOVED_PIECE_BYTES {
            left -= REMOVED_PIECE_BYTES;
            if file.set_len(left).is_err() {
                break;
            }
            std::thread::sleep(REMOVAL_PAUSE);
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<File>> {
        let file = open_file(own_file().truncate(false), path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// For a file that is written to, and made where it is missing. A link would have another file written to.
fn own_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).custom_flags(OFlags::NOFOLLOW.bits() as i32);
    options
}

/// Opens a regular file. Another kind of file is refused: to open a FIFO would wait for its other end.
pub(super) fn open_file(options: &OpenOptions, path: &Path) -> io::Result<File> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => options.open(path),
    }
}

impl DiskFile for Arc<File> {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match FileExt::read_at(&**self, bytes, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(&**self, bytes, offset)
    }

    fn write_pieces_at(&self, mut pieces: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        while !pieces.is_empty() {
            match rustix::io::pwritev(&**self, &pieces[..pieces.len().min(PIECES_MAX)], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    IoSlice::advance_slices(&mut pieces, count);
                    offset += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&**self, FallocateFlags::empty(), 0, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // Some file systems reserve nothing in advance; there the log finds a full disk when it
                // writes.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    return if DiskFile::len(self)? < len { self.set_len(len) } else { Ok(()) };
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::Mode;

    use super::*;
    use crate::ReadOnlyDisk;

    #[test]
    fn what_is_opened_or_created_is_not_reached_by_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let [victim, link] = ["victim", "link"].map(|name| directory.path().join(name));
        fs::write(&victim, b"another's").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(OsDisk::default().open_or_create(&link).is_err());
        assert!(OsDisk::default().create(&link).is_err());
        assert!(OsDisk::default().try_lock(&link).is_err());
        assert_eq!(fs::read(&victim).unwrap(), b"another's");
    }

    #[test]
    fn a_fifo_in_place_of_a_file_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a fifo");
        let disk = OsDisk::default();
        let attempts: [fn(&Path) -> io::Result<()>; 5] = [
            |path| OsDisk::default().open(path).map(drop),
            |path| OsDisk::default().create(path).map(drop),
            |path| OsDisk::default().open_or_create(path).map(drop),
            |path| ReadOnlyDisk::default().open(path).map(drop),
            |path| ReadOnlyDisk::default().try_lock(path).map(drop),
        ];
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RWXU).unwrap();
        for attempt in attempts {
            assert_eq!(attempt(&path).unwrap_err().to_string(), "it is not a regular file");
        }
        disk.remove_file(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_removed_file_keeps_its_bytes_under_another_name() {
        let directory = tempfile::tempdir().unwrap();
        let [path, copy] = ["a segment", "a copy"].map(|name| directory.path().join(name));
        let bytes = vec![7; 3 * REMOVED_PIECE_BYTES as usize];
        fs::write(&path, &bytes).unwrap();
        fs::hard_link(&path, &copy).unwrap();
        let disk = OsDisk::default();
        disk.remove_file(&path).unwrap();
        assert!(!path.exists());
        assert!(fs::read(&copy).unwrap() == bytes);
        disk.remove_file(&copy).unwrap();
        assert!(!copy.exists());
    }
}
