//! The operating system's files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::{Disk, DiskFile};
use crate::{BootId, Error};

/// How many bytes of a removed file are given back at a time, and how long others have the processor in between.
const REMOVED_PIECE_BYTES: u64 = 4 << 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(2);

/// How many pieces Linux takes in one write.
const PIECES_MAX: usize = 1024;

/// The file system of the operating system.
#[derive(Clone, Debug, Default)]
pub struct OsDisk {
    boot: Option<BootId>,
    locked: Arc<Locked>,
}

/// The file that was locked last.
#[derive(Debug, Default)]
struct Locked {
    file: Mutex<Option<LockedFile>>,
    /// It was found not to have its name.
    is_displaced: AtomicBool,
}

#[derive(Debug)]
struct LockedFile {
    path: PathBuf,
    /// Its device and its inode.
    identity: (u64, u64),
    /// The directory that it is in, open: whatever becomes of that directory's name, its files are reached by this
    /// path.
    directory: Option<(File, PathBuf)>,
}

impl LockedFile {
    fn new(path: &Path, file: &File) -> io::Result<LockedFile> {
        let locked = identity(&file.metadata()?);
        // Without /proc the names have to do.
        let directory = path.parent().zip(path.file_name()).and_then(|(directory, name)| {
            let opened = File::open(directory).ok()?;
            let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
            let found = fs::metadata(by_descriptor.join(name)).ok()?;
            (identity(&found) == locked).then_some((opened, by_descriptor))
        });
        Ok(LockedFile { path: path.to_owned(), identity: locked, directory })
    }

    /// The path by which a file in the directory is reached.
    fn reach(&self, path: &Path) -> Option<PathBuf> {
        let (_, by_descriptor) = self.directory.as_ref()?;
        Some(by_descriptor.join(path.strip_prefix(self.path.parent()?).ok()?))
    }
}

impl OsDisk {
    /// Used in this run of the machine. By default that is not known, and any earlier process may have been in another.
    pub fn in_boot(boot: Option<BootId>) -> OsDisk {
        OsDisk { boot, locked: Arc::default() }
    }

    fn locked_file(&self) -> MutexGuard<'_, Option<LockedFile>> {
        self.locked.file.lock().expect("nothing panics with it")
    }

    /// The path by which a file is reached.
    fn reach(&self, path: &Path) -> PathBuf {
        self.locked_file().as_ref().and_then(|file| file.reach(path)).unwrap_or_else(|| path.to_owned())
    }

    fn expect_names(&self) -> io::Result<()> {
        match self.locked.is_displaced.load(Ordering::Relaxed) {
            true => Err(io::Error::other("the data directory is not at its place")),
            false => Ok(()),
        }
    }
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Disk for OsDisk {
    type File = Arc<File>;
    type Lock = File;

    fn boot(&self) -> Option<BootId> {
        self.boot
    }

    fn open(&self, path: &Path) -> io::Result<Arc<File>> {
        open_file(OpenOptions::new().read(true).write(true), &self.reach(path)).map(Arc::new)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<File>> {
        self.expect_names()?;
        open_file(own_file().truncate(true), &self.reach(path)).map(Arc::new)
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Arc<File>> {
        self.expect_names()?;
        open_file(own_file().truncate(false), &self.reach(path)).map(Arc::new)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<File>> {
        File::open(self.reach(path)).map(Arc::new)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.expect_names()?;
        fs::create_dir_all(self.reach(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.reach(path))? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.expect_names()?;
        fs::rename(self.reach(from), self.reach(to))
    }

    /// A file that is gone gives its blocks and its cached pages back piece by piece: at once, that would take the
    /// processor for tens of milliseconds where the file is large. One that has another name keeps all of them.
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.expect_names()?;
        let path = self.reach(path);
        let file = open_file(OpenOptions::new().write(true), &path);
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
        self.expect_names()?;
        fs::remove_dir_all(self.reach(path))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<File>> {
        let file = open_file(own_file().truncate(false), path)?;
        match file.try_lock() {
            Ok(()) => {
                *self.locked_file() = Some(LockedFile::new(path, &file)?);
                Ok(Some(file))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn expect_lock(&self) -> Result<(), Error> {
        let locked = self.locked_file().as_ref().map(|file| (file.path.clone(), file.identity));
        let Some((path, locked)) = locked else { return Ok(()) };
        let is_displaced = match fs::metadata(&path) {
            Ok(found) => identity(&found) != locked,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                true
            }
            Err(error) => return Err(Error::io("look for", &path)(error)),
        };
        self.locked.is_displaced.store(is_displaced, Ordering::Relaxed);
        if is_displaced { Err(Error::Displaced { path }) } else { Ok(()) }
    }

    fn displaced_lock(&self) -> Option<PathBuf> {
        self.expect_names().err()?;
        self.locked_file().as_ref().map(|file| file.path.clone())
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
    fn without_the_file_that_was_locked_no_name_is_made_or_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("data")).unwrap();
        let disk = OsDisk::default();
        disk.expect_lock().unwrap();
        let _lock = disk.try_lock(&path("data/LOCK")).unwrap().unwrap();
        let log = disk.create(&path("data/log")).unwrap();
        disk.expect_lock().unwrap();

        fs::rename(path("data"), path("moved")).unwrap();
        let put_another = || {
            fs::create_dir(path("data")).unwrap();
            fs::write(path("data/LOCK"), "").unwrap();
            fs::write(path("data/log"), "another's").unwrap();
        };
        put_another();
        // Before it was looked, only what was locked is reached.
        disk.create(&path("data/log")).unwrap().write_all_at(b"old", 0).unwrap();
        disk.rename(&path("data/log"), &path("data/renamed")).unwrap();
        assert_eq!(disk.list(&path("data")).unwrap(), ["LOCK", "renamed"]);
        disk.rename(&path("data/renamed"), &path("data/log")).unwrap();
        let put_none = || fs::remove_dir_all(path("data")).unwrap();
        let steps: [&dyn Fn(); 3] = [&|| {}, &put_none, &put_another];
        for step in steps {
            step();
            let error = disk.clone().expect_lock().unwrap_err();
            assert!(matches!(error, Error::Displaced { path: lock } if lock == path("data/LOCK")));
            assert_eq!(disk.displaced_lock(), Some(path("data/LOCK")));
            assert!(disk.create(&path("data/log")).is_err());
            assert!(disk.open_or_create(&path("data/new")).is_err());
            assert!(disk.create_dir_all(&path("data/new")).is_err());
            assert!(disk.rename(&path("data/log"), &path("data/new")).is_err());
            assert!(disk.remove_file(&path("data/log")).is_err());
            assert!(disk.remove_dir_all(&path("data")).is_err());
            log.write_all_at(b"own", 0).unwrap();
        }
        assert_eq!(fs::read_to_string(path("data/log")).unwrap(), "another's");
        assert_eq!(fs::read_to_string(path("moved/log")).unwrap(), "own");

        fs::remove_dir_all(path("data")).unwrap();
        fs::rename(path("moved"), path("data")).unwrap();
        disk.expect_lock().unwrap();
        assert_eq!(disk.displaced_lock(), None);
        disk.remove_file(&path("data/log")).unwrap();
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
