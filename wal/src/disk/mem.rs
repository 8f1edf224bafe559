//! A disk in memory, for tests and simulations: deterministic, with power cuts and failing operations.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile};
use crate::BootId;

/// A disk in memory, for tests and simulations. Clones share the same disk.
///
/// It keeps apart what was written and what was synced: [`MemDisk::power_cut`] forgets any part of what was
/// not synced, file contents (in sectors of 512 bytes, in any order) as well as names. Operations that change
/// something are counted and can be made to fail. The same calls with the same seeds give the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
    /// Handles of an earlier power cycle are dead.
    cycle: u64,
}

/// An open file or directory of a [`MemDisk`].
#[derive(Clone, Debug)]
pub struct MemFile {
    disk: MemDisk,
    node: Node,
    path: PathBuf,
}

/// A lock held on a [`MemDisk`].
#[derive(Debug)]
pub struct MemLock {
    disk: MemDisk,
    path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Directory,
    File(u64),
}

/// By the whole path, whose bytes are compared at once: a simulation spends much of its time here.
type Names = BTreeMap<OsString, Node>;

#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, Node),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, Node),
}

#[derive(Clone, Debug)]
enum DataChange {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Clone, Debug, Default)]
struct Contents {
    live: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<DataChange>,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    at_operation: u64,
    kind: io::ErrorKind,
    lasting: bool,
}

#[derive(Debug, Default)]
struct State {
    cycle: u64,
    /// In which run of the machine the disk is used; a fork is used in the same one.
    boot: u64,
    names: Names,
    synced_names: Names,
    unsynced_names: Vec<NameChange>,
    files: HashMap<u64, Contents>,
    files_created: u64,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    failure: Option<Failure>,
}

const SECTOR_BYTES: usize = 512;

impl MemDisk {
    /// The disk as it is after a power cut now; all earlier handles of it, and their files, are dead.
    ///
    /// What was synced is there. Of what was not, the seed picks: nothing, everything, the oldest part of
    /// it, or any part of it.
    pub fn power_cut(&self, seed: u64) -> MemDisk {
        let mut state = self.lock();
        let mut dice = Dice(seed);
        let names = std::mem::take(&mut state.unsynced_names);
        let keep = dice.choose_of(names.len());
        for (change, keep) in names.into_iter().zip(keep) {
            if keep {
                apply_name(&mut state.synced_names, &change);
            }
        }
        state.names = state.synced_names.clone();
        let mut ids: Vec<_> = state.files.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let contents = state.files.get_mut(&id).expect("the id is from the same map");
            let changes: Vec<_> = contents.unsynced.drain(..).flat_map(sectors).collect();
            let keep = dice.choose_of(changes.len());
            for (change, keep) in changes.iter().zip(keep) {
                if keep {
                    apply_data(&mut contents.synced, change);
                }
            }
            contents.live.clone_from(&contents.synced);
        }
        state.locks.clear();
        state.failure = None;
        state.cycle += 1;
        state.boot += 1;
        MemDisk { state: Arc::clone(&self.state), cycle: state.cycle }
    }

    /// A second, independent disk that is now in the same state as this one, what was not synced included; nothing on
    /// it fails.
    pub fn fork(&self) -> MemDisk {
        let state = self.lock();
        let copy = State {
            names: state.names.clone(),
            synced_names: state.synced_names.clone(),
            unsynced_names: state.unsynced_names.clone(),
            files: state.files.clone(),
            files_created: state.files_created,
            boot: state.boot,
            ..State::default()
        };
        MemDisk { state: Arc::new(Mutex::new(copy)), cycle: 0 }
    }

    /// As [`Self::fork`], in another run of the machine: all that was written is on disk, and nothing shows that it
    /// had to be.
    pub fn reboot(&self) -> MemDisk {
        let disk = self.fork();
        let mut state = disk.lock();
        state.boot += 1;
        state.unsynced_names.clear();
        state.synced_names = state.names.clone();
        for contents in state.files.values_mut() {
            contents.unsynced.clear();
            contents.synced.clone_from(&contents.live);
        }
        drop(state);
        disk
    }

    /// The number of operations so far that change something; a sync is one.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Lets the `n`-th operation from now that changes something fail; 1 is the next.
    ///
    /// A write that fails has written its first half. After a sync that fails, what it should have synced is
    /// lost at the next power cut, even when a later sync succeeds.
    pub fn fail_once(&self, n: u64, kind: io::ErrorKind) {
        self.fail(n, kind, false);
    }

    /// Lets the `n`-th operation from now that changes something fail, and all after it until
    /// [`Self::heal`] or a power cut.
    pub fn fail_from(&self, n: u64, kind: io::ErrorKind) {
        self.fail(n, kind, true);
    }

    /// Ends all failures.
    pub fn heal(&self) {
        self.lock().failure = None;
    }

    /// The bytes of a file.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.live()?;
        let id = state.file(path)?;
        Ok(state.files[&id].live.clone())
    }

    /// Replaces the bytes of an existing or new file, as damage done from outside: the bytes are at once
    /// on disk, and the operation is not counted.
    pub fn damage(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.lock();
        let id = state.file(path).unwrap_or_else(|_| {
            state.files_created += 1;
            state.files_created
        });
        state.names.insert(path.into(), Node::File(id));
        state.synced_names.insert(path.into(), Node::File(id));
        let (live, synced) = (bytes.to_vec(), bytes.to_vec());
        state.files.insert(id, Contents { live, synced, unsynced: Vec::new() });
    }

    fn fail(&self, n: u64, kind: io::ErrorKind, lasting: bool) {
        let mut state = self.lock();
        state.failure = Some(Failure { at_operation: state.operations + n, kind, lasting });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no operation on the simulated disk panics")
    }

    fn live(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.cycle == self.cycle { Ok(state) } else { Err(io::Error::other("the power was cut")) }
    }

    /// Counts one operation that changes something; the error is the failure that was ordered for it.
    fn changing(&self) -> io::Result<(MutexGuard<'_, State>, Option<io::Error>)> {
        let mut state = self.live()?;
        state.operations += 1;
        let operation = state.operations;
        let due = state.failure.filter(|failure| match failure.lasting {
            true => failure.at_operation <= operation,
            false => failure.at_operation == operation,
        });
        Ok((state, due.map(|failure| io::Error::new(failure.kind, "ordered by the simulation"))))
    }

    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        match self.changing()? {
            (state, None) => Ok(state),
            (_, Some(failure)) => Err(failure),
        }
    }
}

impl Disk for MemDisk {
    type File = MemFile;
    type Lock = MemLock;

    fn boot(&self) -> Option<BootId> {
        BootId::of_bytes(u128::from(self.lock().boot + 1).to_be_bytes())
    }

    fn open(&self, path: &Path) -> io::Result<MemFile> {
        let id = self.live()?.file(path)?;
        Ok(MemFile { disk: self.clone(), node: Node::File(id), path: path.to_owned() })
    }

    fn create(&self, path: &Path) -> io::Result<MemFile> {
        let mut state = self.change()?;
        state.parent(path)?;
        let id = if let Ok(id) = state.file(path) {
            let contents = state.files.get_mut(&id).expect("a named file has contents");
            contents.change(DataChange::Length(0));
            id
        } else {
            state.files_created += 1;
            let id = state.files_created;
            state.files.insert(id, Contents::default());
            state.change_names(NameChange::Link(path.to_owned(), Node::File(id)));
            id
        };
        Ok(MemFile { disk: self.clone(), node: Node::File(id), path: path.to_owned() })
    }

    fn open_or_create(&self, path: &Path) -> io::Result<MemFile> {
        match self.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(path),
            opened => opened,
        }
    }

    fn open_dir(&self, path: &Path) -> io::Result<MemFile> {
        self.live()?.directory(path)?;
        Ok(MemFile { disk: self.clone(), node: Node::Directory, path: path.to_owned() })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        let mut missing: Vec<_> = path.ancestors().filter(|path| !is_root(path)).collect();
        missing.retain(|path| !state.names.contains_key(path.as_os_str()));
        for path in missing.into_iter().rev() {
            state.change_names(NameChange::Link(path.to_owned(), Node::Directory));
        }
        state.directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.live()?;
        state.directory(path)?;
        Ok(state.names.keys().filter_map(|name| name_in(path, name).map(str::to_owned)).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        let id = state.file(from)?;
        state.parent(to)?;
        state.change_names(NameChange::Rename(from.to_owned(), to.to_owned(), Node::File(id)));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        state.file(path)?;
        state.change_names(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        state.directory(path)?;
        let inside: Vec<_> =
            state.names.keys().map(PathBuf::from).filter(|name| name.starts_with(path)).collect();
        for name in inside.into_iter().rev() {
            state.change_names(NameChange::Unlink(name));
        }
        Ok(())
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<MemLock>> {
        let mut state = self.live()?;
        state.parent(path)?;
        let free = state.locks.insert(path.to_owned());
        drop(state);
        Ok(free.then(|| MemLock { disk: self.clone(), path: path.to_owned() }))
    }
}

impl Drop for MemLock {
    fn drop(&mut self) {
        if let Ok(mut state) = self.disk.live() {
            state.locks.remove(&self.path);
        }
    }
}

impl MemFile {
    fn contents<'s>(&self, state: &'s mut State) -> io::Result<&'s mut Contents> {
        match self.node {
            Node::Directory => Err(io::ErrorKind::IsADirectory.into()),
            Node::File(id) => Ok(state.files.get_mut(&id).expect("files are never forgotten")),
        }
    }
}

impl DiskFile for MemFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.live()?;
        let live = &self.contents(&mut state)?.live;
        let from = live.len().min(offset as usize);
        let count = bytes.len().min(live.len() - from);
        bytes[..count].copy_from_slice(&live[from..from + count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut state, failure) = self.disk.changing()?;
        let written = if failure.is_some() { &bytes[..bytes.len() / 2] } else { bytes };
        self.contents(&mut state)?.change(DataChange::Write(offset as usize, written.to_vec()));
        failure.map_or(Ok(()), Err)
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.live()?;
        Ok(self.contents(&mut state)?.live.len() as u64)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.change()?;
        let contents = self.contents(&mut state)?;
        if (contents.live.len() as u64) < len {
            contents.change(DataChange::Length(len as usize));
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.change()?;
        self.contents(&mut state)?.change(DataChange::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut state, failure) = self.disk.changing()?;
        let contents = self.contents(&mut state)?;
        let unsynced = std::mem::take(&mut contents.unsynced);
        if let Some(failure) = failure {
            return Err(failure);
        }
        unsynced.iter().for_each(|change| apply_data(&mut contents.synced, change));
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        if self.node != Node::Directory {
            return self.sync_data();
        }
        let mut state = self.disk.change()?;
        let State { unsynced_names, synced_names, .. } = &mut *state;
        unsynced_names.retain(|change| {
            let name = match change {
                NameChange::Link(name, _) | NameChange::Unlink(name) | NameChange::Rename(_, name, _) => name,
            };
            let here = name_in(&self.path, name.as_os_str()).is_some();
            if here {
                apply_name(synced_names, change);
            }
            !here
        });
        Ok(())
    }
}

impl State {
    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path.as_os_str()) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn directory(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path.as_os_str()) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None if is_root(path) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn parent(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |parent| self.directory(parent))
    }

    fn change_names(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.unsynced_names.push(change);
    }
}

impl Contents {
    fn change(&mut self, change: DataChange) {
        apply_data(&mut self.live, &change);
        self.unsynced.push(change);
    }
}

fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty() || path == Path::new("/")
}

/// The name that a path has in this directory, if it is there.
fn name_in<'n>(directory: &Path, path: &'n OsStr) -> Option<&'n str> {
    let inside = path.as_bytes().strip_prefix(directory.as_os_str().as_bytes())?;
    let name = if is_root(directory) { inside } else { inside.strip_prefix(b"/")? };
    std::str::from_utf8(name).ok().filter(|name| !name.is_empty() && !name.contains('/'))
}

fn apply_name(names: &mut Names, change: &NameChange) {
    match change {
        NameChange::Link(path, node) => {
            names.insert(path.into(), *node);
        }
        NameChange::Unlink(path) => {
            names.remove(path.as_os_str());
        }
        NameChange::Rename(from, to, node) => {
            if names.get(from.as_os_str()) == Some(node) {
                names.remove(from.as_os_str());
            }
            names.insert(to.into(), *node);
        }
    }
}

fn apply_data(bytes: &mut Vec<u8>, change: &DataChange) {
    match change {
        DataChange::Write(offset, written) => {
            let end = offset + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(written);
        }
        DataChange::Length(len) => bytes.resize(*len, 0),
    }
}

/// A write reaches the disk sector by sector.
fn sectors(change: DataChange) -> Vec<DataChange> {
    let DataChange::Write(mut offset, bytes) = change else { return vec![change] };
    let mut rest = bytes.as_slice();
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(rest.len().min(SECTOR_BYTES - offset % SECTOR_BYTES));
        parts.push(DataChange::Write(offset, part.to_vec()));
        offset += part.len();
        rest = behind;
    }
    parts
}

/// Splitmix64: a small generator with a published reference (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Which of `count` changes reached the disk.
    fn choose_of(&mut self, count: usize) -> Vec<bool> {
        let mode = self.roll() % 4;
        let prefix = self.roll() as usize % (count + 1);
        (0..count)
            .map(|index| match mode {
                0 => false,
                1 => true,
                2 => index < prefix,
                _ => self.roll().is_multiple_of(2),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with_directory() -> (MemDisk, MemFile) {
        let disk = MemDisk::default();
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk.open_dir(Path::new("/")).unwrap().sync_all().unwrap();
        let directory = disk.open_dir(Path::new("/d")).unwrap();
        (disk, directory)
    }

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_forgets_some_of_the_rest() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..64 {
            let (disk, directory) = disk_with_directory();
            let file = disk.create(Path::new("/d/a")).unwrap();
            file.write_all_at(b"synced", 0).unwrap();
            file.sync_data().unwrap();
            directory.sync_all().unwrap();
            file.write_all_at(b"!", 6).unwrap();
            disk.rename(Path::new("/d/a"), Path::new("/d/b")).unwrap();
            let after = disk.power_cut(seed);
            let names = after.list(Path::new("/d")).unwrap();
            assert_eq!(names.len(), 1, "seed {seed}");
            let bytes = after.read(&Path::new("/d").join(&names[0])).unwrap();
            assert!(bytes.starts_with(b"synced"), "seed {seed}");
            assert!(file.len().is_err() && disk.list(Path::new("/d")).is_err(), "old handles are dead");
            outcomes.insert((names[0].clone(), bytes));
        }
        assert_eq!(outcomes.len(), 4, "each unsynced change is sometimes kept and sometimes lost");
    }

    #[test]
    fn after_a_failed_sync_a_later_one_brings_nothing_back() {
        let (disk, directory) = disk_with_directory();
        let file = disk.create(Path::new("/d/a")).unwrap();
        directory.sync_all().unwrap();
        file.write_all_at(b"lost", 0).unwrap();
        disk.fail_once(1, io::ErrorKind::StorageFull);
        assert_eq!(file.sync_data().unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.sync_data().unwrap();
        assert_eq!(disk.read(Path::new("/d/a")).unwrap(), b"lost", "the running system still sees it");
        assert_eq!(disk.power_cut(1).read(Path::new("/d/a")).unwrap(), b"");
    }

    #[test]
    fn a_lasting_failure_ends_when_it_is_healed() {
        let (disk, _) = disk_with_directory();
        disk.fail_from(2, io::ErrorKind::StorageFull);
        disk.create(Path::new("/d/a")).unwrap();
        assert!(disk.create(Path::new("/d/b")).is_err());
        assert!(disk.create(Path::new("/d/c")).is_err());
        disk.heal();
        disk.create(Path::new("/d/c")).unwrap();
        assert_eq!(disk.list(Path::new("/d")).unwrap(), ["a", "c"]);
    }
}
