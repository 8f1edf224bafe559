//! Files beneath one open directory, whatever becomes of its name, and of the names beneath it, meanwhile.
//!
//! The kernel resolves each path from the open directory on and refuses one that leads out (`openat2` with
//! `RESOLVE_BENEATH`). Where a sandbox forbids that, nothing is done: there is no way that is less safe.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use wal::{BootId, Disk};

/// New files and directories; the mask of the process takes from these rights what it does from any.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);

/// Links whose targets lie beneath the directory as well may be a part of paths that a client names.
const INNER_LINKS: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// No backup holds a link.
const NO_LINKS: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// So often a path is resolved at most. The kernel asks for another try where it goes up on its way (`..` in a link)
/// and something was renamed meanwhile, anywhere on the machine.
const TRIES_MAX: usize = 100;

/// An open directory, as a disk that holds nothing else. Paths on it begin with the path of the directory, which is
/// never looked up again.
#[derive(Clone, Debug)]
pub struct Beneath {
    directory: Arc<OwnedFd>,
    path: Arc<Path>,
}

impl Beneath {
    /// The directory at a path that is trusted.
    pub fn root(path: &Path) -> io::Result<Beneath> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Beneath { directory: Arc::new(directory), path: path.into() })
    }

    /// A directory beneath this one, by its path from here.
    pub fn descend(&self, relative: &Path) -> io::Result<Beneath> {
        let directory = self.open_at(relative, OFlags::RDONLY | OFlags::DIRECTORY, INNER_LINKS)?;
        Ok(Beneath { directory: Arc::new(directory), path: self.path.join(relative).into() })
    }

    /// Its path as it was when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a directory in this one, unless the name is taken.
    pub fn create_dir(&self, name: &OsStr) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.directory, name, DIRECTORY_MODE) {
            Err(Errno::EXIST) | Ok(()) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether this directory is `other`, or lies beneath it.
    pub fn lies_in(&self, other: &Path) -> io::Result<bool> {
        let other = File::open(other)?;
        let identity = |directory: &OwnedFd| rustix::fs::fstat(directory).map(|it| (it.st_dev, it.st_ino));
        let other = identity(&other.into())?;
        let mut directory = self.directory.try_clone()?;
        loop {
            let here = identity(&directory)?;
            if here == other {
                return Ok(true);
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            directory = rustix::fs::openat(&directory, "..", flags, Mode::empty())?;
            if identity(&directory)? == here {
                return Ok(false); // It is the root of the file system.
            }
        }
    }

    /// Whether a name in this directory is free, or that of an empty directory.
    pub fn is_free(&self, name: &OsStr) -> io::Result<bool> {
        match rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(true),
            Err(errno) => Err(errno.into()),
            Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::Directory => Ok(false),
            Ok(_) => Ok(self.list(&self.path.join(name))?.is_empty()),
        }
    }

    /// How many bytes are free on the disk.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::fstatvfs(&self.directory)?;
        Ok(disk.f_bavail * disk.f_frsize)
    }

    /// Waits until the names in this directory are on disk.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.directory)?)
    }

    fn open_at(&self, relative: &Path, flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let mode = if flags.contains(OFlags::CREATE) { FILE_MODE } else { Mode::empty() };
        let mut tries = 1;
        loop {
            match rustix::fs::openat2(&self.directory, relative, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN) if tries < TRIES_MAX => tries += 1,
                opened => return Ok(opened?),
            }
        }
    }

    fn open_file(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        self.open_at(self.relative(path), flags, NO_LINKS).map(File::from)
    }

    fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.path).expect("paths on this disk begin with that of its directory")
    }

    /// The open parent of what is at this path, and its name there.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let relative = self.relative(path);
        let (Some(parent), Some(name)) = (relative.parent(), relative.file_name()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        Ok((self.open_at(parent, OFlags::RDONLY | OFlags::DIRECTORY, NO_LINKS)?, name))
    }
}

impl Disk for Beneath {
    type File = Arc<File>;
    type Lock = File;

    /// Nothing is read back here but what was just written.
    fn boot(&self) -> Option<BootId> {
        None
    }

    fn open(&self, path: &Path) -> io::Result<Arc<File>> {
        self.open_file(path, OFlags::RDWR).map(Arc::new)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<File>> {
        self.open_file(path, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC).map(Arc::new)
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Arc<File>> {
        self.open_file(path, OFlags::RDWR | OFlags::CREATE).map(Arc::new)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<File>> {
        self.open_file(path, OFlags::RDONLY | OFlags::DIRECTORY).map(Arc::new)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut made = PathBuf::from(&*self.path);
        for name in self.relative(path) {
            made.push(name);
            let (parent, name) = self.parent(&made)?;
            match rustix::fs::mkdirat(parent, name, DIRECTORY_MODE) {
                Err(Errno::EXIST) | Ok(()) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::new(self.open_file(path, OFlags::RDONLY | OFlags::DIRECTORY)?)? {
            names.extend(entry?.file_name().to_str().map(str::to_owned));
        }
        names.retain(|name| name != "." && name != "..");
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((from, from_name), (to, to_name)) = (self.parent(from)?, self.parent(to)?);
        Ok(rustix::fs::renameat(from, from_name, to, to_name)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let found = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Symlink => Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?),
            _ => remove_directory(&parent, name),
        }
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<File>> {
        let file = self.open_file(path, OFlags::RDWR | OFlags::CREATE)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Removes the directory of this name with all that is in it. No link is followed: it is removed itself.
fn remove_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_directory(&directory, name)?,
            removed => removed?,
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}
