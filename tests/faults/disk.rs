//! A disk that fails on command: a file system of this process (FUSE) that passes on to a directory what no fault
//! keeps from it.
//!
//! It knows what was not synced: when a sync fails, and when the power is cut, the directory below loses it, as the
//! disk would; a process that has the file open still sees it in the system's cache. Names reach the disk at once.
//! It knows no server. LD_PRELOAD would not do in its place: a sync goes through io_uring, past every library.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::FallocateFlags;
use tempfile::TempDir;

/// The kernel asks again each time.
const TTL: Duration = Duration::ZERO;

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A file gets a name.
    Create,
    /// Bytes are written.
    Write,
    /// A file is synced, or a directory.
    Sync,
    /// Space is reserved.
    Allocate,
    /// A file gets another name.
    Rename,
    /// A file loses its name.
    Remove,
}

impl Operation {
    /// Everything that changes the disk: what a file system that was mounted again read-only refuses.
    pub const ALL: [Operation; 6] = [
        Operation::Create,
        Operation::Write,
        Operation::Sync,
        Operation::Allocate,
        Operation::Rename,
        Operation::Remove,
    ];
}

/// How it fails.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// With an error. A sync that fails loses what it should have brought to the disk.
    Error(Errno),
    /// A write takes half of the bytes, and says so.
    Short,
    /// A write or a sync goes on when the faults end.
    Hang,
    /// Half of a write reaches the disk; it goes on with the rest when the faults end.
    Torn,
}

/// A mounted disk.
pub struct Disk {
    state: Arc<Mutex<State>>,
    session: Option<BackgroundSession>,
    directory: TempDir,
}

impl Disk {
    /// An empty disk, or why there can be none here.
    pub fn mount() -> Result<Disk, String> {
        let directory = TempDir::with_prefix("kvlite-faults-").expect("the temporary directory is writable");
        let (below, mount) = (directory.path().join("below"), directory.path().join("mount"));
        fs::create_dir(&below).expect("it is empty");
        fs::create_dir(&mount).expect("it is empty");
        let root = INodeNo::ROOT.0;
        let state = Arc::new(Mutex::new(State {
            below,
            paths: HashMap::from([(root, PathBuf::new())]),
            inodes: HashMap::from([(PathBuf::new(), root)]),
            last_number: root,
            open: HashMap::new(),
            unsynced: HashMap::new(),
            faults: Vec::new(),
            hanging: Vec::new(),
            met: 0,
        }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("kvlite-faults".to_owned())];
        let session = fuser::spawn_mount(Passthrough(state.clone()), &mount, &config);
        let session = session.map_err(|error| format!("FUSE cannot be mounted here: {error}"))?;
        Ok(Disk { state, session: Some(session), directory })
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mount")
    }

    /// The directory that holds what is on the disk.
    pub fn below(&self) -> PathBuf {
        self.directory.path().join("below")
    }

    /// From now on these operations on paths that contain `part` fail in this way.
    pub fn fail(&self, operations: &[Operation], part: &str, fault: Fault) {
        let mut state = self.lock();
        state.faults.extend(operations.iter().map(|operation| (*operation, part.to_owned(), fault)));
    }

    /// Ends all faults; what hangs goes on.
    pub fn heal(&self) {
        self.end_faults(HangEnd::GoesOn);
    }

    /// Ends all faults; what hangs fails.
    pub fn fail_hanging(&self) {
        self.end_faults(HangEnd::Fails);
    }

    /// Ends all faults; what hangs is never done, as it is not waited for any more.
    pub fn abandon(&self) {
        self.end_faults(HangEnd::Abandoned);
    }

    /// How many operations have met a fault.
    pub fn met(&self) -> usize {
        self.lock().met
    }

    /// How many operations hang now.
    pub fn hanging(&self) -> usize {
        self.lock().hanging.len()
    }

    /// How many files of this name have bytes, all of them synced.
    pub fn synced_files(&self, name: &str) -> usize {
        let state = self.lock();
        let is_synced = |inode| state.unsynced.get(inode).is_none_or(Vec::is_empty);
        let has_bytes = |path: &Path| fs::metadata(state.below.join(path)).is_ok_and(|it| it.len() > 0);
        let named = state.inodes.iter().filter(|(path, _)| path.ends_with(name));
        named.filter(|(path, inode)| is_synced(inode) && has_bytes(path)).count()
    }

    /// The directory below loses what was not synced. The disk is not used any more.
    pub fn cut_power(&self) {
        let mut state = self.lock();
        for (_, changes) in std::mem::take(&mut state.unsynced) {
            lose(changes);
        }
    }

    fn end_faults(&self, how: HangEnd) {
        let mut state = self.lock();
        state.faults.clear();
        for end in std::mem::take(&mut state.hanging) {
            end(&mut state, how);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no operation panics")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.heal();
        drop(self.session.take());
        if std::thread::panicking() {
            self.directory.disable_cleanup(true);
            println!("kept for inspection: {}", self.below().display());
        }
    }
}

/// How an operation that hangs comes to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HangEnd {
    GoesOn,
    Fails,
    Abandoned,
}

/// An operation that hangs.
type Hanging = Box<dyn FnOnce(&mut State, HangEnd) + Send>;

struct State {
    below: PathBuf,
    /// Paths from the root of the disk. A number is never used again.
    paths: HashMap<u64, PathBuf>,
    inodes: HashMap<PathBuf, u64>,
    last_number: u64,
    /// Open files, by handle, with their inodes.
    open: HashMap<u64, (u64, Arc<File>)>,
    /// By inode.
    unsynced: HashMap<u64, Vec<Change>>,
    faults: Vec<(Operation, String, Fault)>,
    hanging: Vec<Hanging>,
    met: usize,
}

/// What a change that is not synced has replaced.
struct Change {
    file: Arc<File>,
    len: u64,
    offset: u64,
    bytes: Vec<u8>,
}

/// Takes changes back, the last one first.
fn lose(changes: Vec<Change>) {
    for Change { file, len, offset, bytes } in changes.into_iter().rev() {
        let undone = file.set_len(len).and_then(|()| file.write_all_at(&bytes, offset));
        undone.expect("the directory below is well");
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn path(&self, inode: INodeNo) -> Result<PathBuf, Errno> {
        self.paths.get(&inode.0).cloned().ok_or(Errno::ENOENT)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Result<PathBuf, Errno> {
        Ok(self.path(parent)?.join(name))
    }

    /// The fault that an operation on this path meets.
    fn fault(&mut self, operation: Operation, path: &Path) -> Option<Fault> {
        let path = path.to_string_lossy();
        let meets =
            |(it, part, _): &&(Operation, String, Fault)| *it == operation && path.contains(part.as_str());
        let fault = self.faults.iter().find(meets).map(|(.., fault)| *fault);
        self.met += usize::from(fault.is_some());
        fault
    }

    /// The error that an operation meets which cannot hang.
    fn refuse(&mut self, operation: Operation, path: &Path) -> Result<(), Errno> {
        match self.fault(operation, path) {
            Some(Fault::Error(errno)) => Err(errno),
            _ => Ok(()),
        }
    }

    fn attributes(&mut self, path: &Path) -> Result<FileAttr, Errno> {
        let metadata = fs::symlink_metadata(self.below.join(path))?;
        let inode = match self.inodes.get(path) {
            Some(inode) => *inode,
            None => {
                let inode = self.number();
                self.inodes.insert(path.to_owned(), inode);
                self.paths.insert(inode, path.to_owned());
                inode
            }
        };
        Ok(attributes_of(inode, &metadata))
    }

    fn file(&self, handle: FileHandle) -> Result<(u64, Arc<File>), Errno> {
        self.open.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn opened(&mut self, path: &Path, file: File) -> Result<(FileAttr, FileHandle), Errno> {
        let attributes = self.attributes(path)?;
        let handle = self.number();
        self.open.insert(handle, (attributes.ino.0, Arc::new(file)));
        Ok((attributes, FileHandle(handle)))
    }

    /// Remembers what a change of the bytes from `offset` on is about to replace.
    fn note(&mut self, inode: u64, file: &Arc<File>, offset: u64, count: usize) -> io::Result<()> {
        let len = file.metadata()?.len();
        let mut bytes = vec![0; count.min(len.saturating_sub(offset) as usize)];
        file.read_exact_at(&mut bytes, offset)?;
        self.unsynced.entry(inode).or_default().push(Change { file: file.clone(), len, offset, bytes });
        Ok(())
    }

    fn write(&mut self, inode: u64, file: &Arc<File>, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.note(inode, file, offset, bytes.len())?;
        Ok(file.write_all_at(bytes, offset)?)
    }

    fn resize(&mut self, inode: u64, file: &Arc<File>, len: u64) -> Result<(), Errno> {
        let before = file.metadata()?.len();
        self.note(inode, file, len.min(before), before.saturating_sub(len) as usize)?;
        Ok(file.set_len(len)?)
    }

    /// The first `count` changes are on disk.
    fn synced(&mut self, inode: u64, count: usize) {
        if let Some(changes) = self.unsynced.get_mut(&inode) {
            changes.drain(..count.min(changes.len()));
        }
    }

    fn sync(&mut self, inode: u64, path: &Path, reply: ReplyEmpty) {
        let count = self.unsynced.get(&inode).map_or(0, Vec::len);
        match self.fault(Operation::Sync, path) {
            Some(Fault::Error(errno)) => {
                lose(self.unsynced.remove(&inode).unwrap_or_default());
                reply.error(errno);
            }
            Some(Fault::Hang) => self.hanging.push(Box::new(move |state, how| {
                match how {
                    HangEnd::GoesOn => {
                        state.synced(inode, count);
                        return reply.ok();
                    }
                    HangEnd::Fails => lose(state.unsynced.remove(&inode).unwrap_or_default()),
                    HangEnd::Abandoned => {}
                }
                reply.error(Errno::EIO);
            })),
            Some(Fault::Short | Fault::Torn) | None => {
                self.synced(inode, count);
                reply.ok();
            }
        }
    }
}

fn attributes_of(inode: u64, metadata: &Metadata) -> FileAttr {
    let time = |seconds: i64, nanos: i64| UNIX_EPOCH + Duration::new(seconds as u64, nanos as u32);
    FileAttr {
        ino: INodeNo(inode),
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: if metadata.is_dir() { FileType::Directory } else { FileType::RegularFile },
        perm: (metadata.permissions().mode() & 0o7777) as u16,
        nlink: metadata.nlink() as u32,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Answers with what was done, or with the error.
fn give<R, T>(reply: R, done: Result<T, Errno>, ok: impl FnOnce(R, T), failed: impl FnOnce(R, Errno)) {
    match done {
        Ok(value) => ok(reply, value),
        Err(errno) => failed(reply, errno),
    }
}

struct Passthrough(Arc<Mutex<State>>);

impl Passthrough {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no operation panics")
    }

    /// Runs an operation on a name.
    fn on_name<T>(
        &self,
        (operation, parent, name): (Operation, INodeNo, &OsStr),
        run: impl FnOnce(&mut State, &Path, &Path) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut state = self.state();
        let path = state.child(parent, name)?;
        state.refuse(operation, &path)?;
        let below = state.below.join(&path);
        run(&mut state, &path, &below)
    }
}

impl Filesystem for Passthrough {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.state();
        let found = state.child(parent, name).and_then(|path| state.attributes(&path));
        give(reply, found, |it, attr| it.entry(&TTL, &attr, Generation(0)), ReplyEntry::error);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let mut state = self.state();
        let found = match handle.and_then(|handle| state.file(handle).ok()) {
            Some((inode, file)) => {
                file.metadata().map(|metadata| attributes_of(inode, &metadata)).map_err(Into::into)
            }
            None => state.path(inode).and_then(|path| state.attributes(&path)),
        };
        give(reply, found, |it, attr| it.attr(&TTL, &attr), ReplyAttr::error);
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state();
        let set = state.path(inode).and_then(|path| {
            if let Some(len) = size {
                state.refuse(Operation::Allocate, &path)?;
                let file = match handle.and_then(|handle| state.file(handle).ok()) {
                    Some((_, file)) => file,
                    None => {
                        Arc::new(OpenOptions::new().read(true).write(true).open(state.below.join(&path))?)
                    }
                };
                state.resize(inode.0, &file, len)?;
                return Ok(attributes_of(inode.0, &file.metadata()?));
            }
            state.attributes(&path)
        });
        give(reply, set, |it, attr| it.attr(&TTL, &attr), ReplyAttr::error);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let made = self.on_name((Operation::Create, parent, name), |state, path, below| {
            fs::create_dir(below)?;
            state.attributes(path)
        });
        give(reply, made, |it, attr| it.entry(&TTL, &attr, Generation(0)), ReplyEntry::error);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.on_name((Operation::Remove, parent, name), |state, path, below| {
            state.inodes.remove(path);
            Ok(fs::remove_file(below)?)
        });
        give(reply, removed, |it, ()| it.ok(), ReplyEmpty::error);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.on_name((Operation::Remove, parent, name), |state, path, below| {
            state.inodes.remove(path);
            Ok(fs::remove_dir(below)?)
        });
        give(reply, removed, |it, ()| it.ok(), ReplyEmpty::error);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.on_name((Operation::Rename, parent, name), |state, path, below| {
            let to = state.child(new_parent, new_name)?;
            fs::rename(below, state.below.join(&to))?;
            if let Some(inode) = state.inodes.remove(path) {
                state.paths.insert(inode, to.clone());
                state.inodes.insert(to, inode);
            }
            Ok(())
        });
        give(reply, renamed, |it, ()| it.ok(), ReplyEmpty::error);
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut state = self.state();
        let opened = state.path(inode).and_then(|path| {
            let file = OpenOptions::new().read(true).write(true).open(state.below.join(&path))?;
            state.opened(&path, file)
        });
        give(reply, opened, |it, (_, handle)| it.opened(handle, FopenFlags::empty()), ReplyOpen::error);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let made = self.on_name((Operation::Create, parent, name), |state, path, below| {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(below)?;
            state.opened(path, file)
        });
        let created = |it: ReplyCreate, (attr, handle)| {
            it.created(&TTL, &attr, Generation(0), handle, FopenFlags::empty());
        };
        give(reply, made, created, ReplyCreate::error);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.state().file(handle).and_then(|(_, file)| {
            let mut bytes = vec![0; size as usize];
            let mut count = 0;
            while count < bytes.len() {
                match file.read_at(&mut bytes[count..], offset + count as u64)? {
                    0 => break,
                    more => count += more,
                }
            }
            bytes.truncate(count);
            Ok(bytes)
        });
        give(reply, read, |it, bytes| it.data(&bytes), ReplyData::error);
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.state();
        let (path, file) = match (state.path(inode), state.file(handle)) {
            (Ok(path), Ok((_, file))) => (path, file),
            (Err(errno), _) | (_, Err(errno)) => return reply.error(errno),
        };
        let half = data.len().div_ceil(2);
        let (now, later) = match state.fault(Operation::Write, &path) {
            Some(Fault::Error(errno)) => return reply.error(errno),
            Some(Fault::Short) => (&data[..half], None),
            Some(Fault::Hang) => (&data[..0], Some(data)),
            Some(Fault::Torn) => (&data[..half], Some(&data[half..])),
            None => (data, None),
        };
        let written = state.write(inode.0, &file, offset, now).map(|()| now.len());
        let (Some(later), Ok(_)) = (later, &written) else {
            return give(reply, written, |it, count| it.written(count as u32), ReplyWrite::error);
        };
        let (later, offset, count) = (later.to_vec(), offset + now.len() as u64, data.len() as u32);
        state.hanging.push(Box::new(move |state, how| {
            let written = match how {
                HangEnd::GoesOn => state.write(inode.0, &file, offset, &later),
                HangEnd::Fails | HangEnd::Abandoned => Err(Errno::EIO),
            };
            give(reply, written, |it, ()| it.written(count), ReplyWrite::error);
        }));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.state().open.remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.state();
        match state.path(inode) {
            Ok(path) => state.sync(inode.0, &path, reply),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsyncdir(&self, request: &Request, inode: INodeNo, handle: FileHandle, all: bool, reply: ReplyEmpty) {
        self.fsync(request, inode, handle, all, reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        let mut state = self.state();
        let allocated = state.path(inode).and_then(|path| {
            state.refuse(Operation::Allocate, &path)?;
            let (_, file) = state.file(handle)?;
            state.note(inode.0, &file, 0, 0)?;
            rustix::fs::fallocate(&*file, FallocateFlags::empty(), offset, len).map_err(io::Error::from)?;
            Ok(())
        });
        give(reply, allocated, |it, ()| it.ok(), ReplyEmpty::error);
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut state = self.state();
        let listed = state.path(inode).and_then(|path| {
            let mut entries =
                vec![(inode, FileType::Directory, ".".into()), (inode, FileType::Directory, "..".into())];
            for entry in fs::read_dir(state.below.join(&path))? {
                let name = entry?.file_name();
                let attributes = state.attributes(&path.join(&name))?;
                entries.push((attributes.ino, attributes.kind, name));
            }
            Ok(entries)
        });
        match listed {
            Err(errno) => reply.error(errno),
            Ok(entries) => {
                let numbered = entries.into_iter().enumerate().skip(offset as usize);
                for (index, (inode, kind, name)) in numbered {
                    if reply.add(inode, index as u64 + 1, kind, name) {
                        break; // The buffer is full.
                    }
                }
                reply.ok();
            }
        }
    }
}
