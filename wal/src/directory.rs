//! The data directory: its lock, its manifest, its layouts.
//!
//! A layout is one directory per shard. The manifest names the only layout that counts; a new one is filled
//! beside it and takes its place in one step. This module never looks into a log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk::names_in;
use crate::header::{CUT_SUFFIX, SEGMENT_SUFFIX, SNAPSHOT_SUFFIX, SYNCED_NAME};
use crate::layout::{Layout, MANIFEST_VERSION, layout_id, layout_of_slots};
use crate::sync::sync_directory;
use crate::{Disk, DiskFile, Error, ManifestFault, recovery, salvage, synced};

const LOCK_NAME: &str = "LOCK";
const MANIFEST_NAME: &str = "MANIFEST";
const MANIFEST_TMP_NAME: &str = "MANIFEST.tmp";
/// Lies in a directory that is being filled with data that exists elsewhere, from before its first file until it
/// counts.
const UNFINISHED_NAME: &str = "UNFINISHED";
/// A manifest that is larger is none.
const MANIFEST_BYTES_MAX: usize = 4096;
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// A data directory that this process has locked.
#[derive(Debug)]
pub struct DataDir<D: Disk> {
    disk: D,
    path: PathBuf,
    layout: Option<Layout>,
    /// It was [begun](Self::begin) and is not complete.
    is_unfinished: bool,
    _lock: D::Lock,
}

/// Whether this is a data directory that was [begun](DataDir::begin) and not completed. Blocks.
pub fn is_unfinished(path: &Path) -> bool {
    path.join(UNFINISHED_NAME).exists()
}

/// A data directory that is read and left as it is. While this lives, no other process locks it.
#[derive(Debug)]
pub struct Inspection<D: Disk> {
    directory: DataDir<D>,
    /// The layout that the manifest names; `None` in a directory without one and without a log file. The
    /// shards' directories need not exist.
    pub layout: Result<Option<Layout>, Error>,
}

impl<D: Disk> DataDir<D> {
    /// Locks the directory, which is created if it is missing, and reads the manifest.
    ///
    /// A held lock is tried again for `lock_wait`: after a kill the kernel releases it only when the dead
    /// process's last operations are over. Blocks that long at most, and for the disk.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::MissingManifest`], [`Error::DamagedManifest`], [`Error::NewerVersion`],
    /// [`Error::MissingDirectory`], [`Error::MissingSynced`], [`Error::NewerLayout`], [`Error::Unfinished`],
    /// [`Error::Io`]. A directory with log files and no manifest is never taken for an empty one.
    pub fn open(disk: D, path: &Path, lock_wait: Duration) -> Result<DataDir<D>, Error> {
        create(&disk, path)?;
        let lock = lock(&disk, &path.join(LOCK_NAME), lock_wait)?;
        let mut data_dir =
            DataDir { disk, path: path.to_owned(), layout: None, is_unfinished: false, _lock: lock };
        data_dir.layout = data_dir.named_layout()?;
        if let Some(layout) = &data_dir.layout {
            data_dir.expect_directories(layout)?;
            for shard_index in 0..layout.shards {
                layout.expect_synced(&data_dir.disk, shard_index)?;
            }
        }
        Ok(data_dir)
    }

    /// Locks a directory that is empty, or is created, to be filled with data that exists elsewhere. Until
    /// [`Self::activate`] has ended it is refused, since a server on it would find less. Blocks as [`Self::open`].
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Io`].
    pub fn begin(disk: D, path: &Path, lock_wait: Duration) -> Result<DataDir<D>, Error> {
        create(&disk, path)?;
        let unfinished = path.join(UNFINISHED_NAME);
        disk.create(&unfinished).map_err(Error::io("create", &unfinished))?;
        sync_directory(&disk, path)?;
        // Where the lock is held the file stays: the process that fills this directory may have made it.
        let lock = lock(&disk, &path.join(LOCK_NAME), lock_wait)?;
        Ok(DataDir { disk, path: path.to_owned(), layout: None, is_unfinished: true, _lock: lock })
    }

    /// Locks the directory as [`Self::open`] does and reads the manifest; creates and removes nothing,
    /// unless the disk creates the file of the lock. What is wrong with the manifest is part of what was
    /// found.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Io`].
    pub fn inspect(disk: D, path: &Path, lock_wait: Duration) -> Result<Inspection<D>, Error> {
        disk.list(path).map_err(Error::io("list", path))?;
        let lock = lock(&disk, &path.join(LOCK_NAME), lock_wait)?;
        let directory =
            DataDir { disk, path: path.to_owned(), layout: None, is_unfinished: false, _lock: lock };
        let layout = directory.named_layout();
        Ok(Inspection { directory, layout })
    }

    /// The layout that counts; `None` in a new directory.
    pub fn layout(&self) -> Option<&Layout> {
        self.layout.as_ref()
    }

    /// Creates the directories of a new layout beside the present one. It does not count before
    /// [`Self::activate`]; until then it is one of the [leftovers](Self::remove_leftovers). `tag` is to be random:
    /// see [`Place::tag`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create_layout(&self, shards: u32, tag: u32) -> Result<Layout, Error> {
        let names = self.names()?;
        let ids = names.iter().filter_map(|name| layout_id(name).or_else(|| layout_of_slots(name)));
        let newest = ids.max().unwrap_or(0);
        let layout = Layout::new(&self.path, newest + 1, shards, tag);
        for shard_index in 0..shards {
            let path = layout.shard_dir(shard_index);
            self.disk.create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        sync_directory(&self.disk, &layout.path)?;
        sync_directory(&self.disk, &self.path)?;
        Ok(layout)
    }

    /// Makes `layout` the one that counts, durably and in one step, and removes all others.
    ///
    /// # Errors
    /// [`Error::Io`] when the switch failed; after it, the next [`Self::open`] tells which layout counts.
    /// Layouts that could not be removed are left to [`Self::remove_leftovers`].
    pub fn activate(&mut self, layout: Layout) -> Result<(), Error> {
        synced::begin(&self.disk, &layout)?;
        let path = self.path.join(MANIFEST_NAME);
        let tmp = self.path.join(MANIFEST_TMP_NAME);
        let file = self.disk.create(&tmp).map_err(Error::io("create", &tmp))?;
        file.write_all_at(manifest_text(&layout).as_bytes(), 0).map_err(Error::io("write", &tmp))?;
        file.sync_data().map_err(Error::io("sync", &tmp))?;
        self.disk.rename(&tmp, &path).map_err(Error::io("rename", &tmp))?;
        sync_directory(&self.disk, &self.path)?;
        if self.is_unfinished {
            let unfinished = self.path.join(UNFINISHED_NAME);
            self.disk.remove_file(&unfinished).map_err(Error::io("remove", &unfinished))?;
            sync_directory(&self.disk, &self.path)?;
            self.is_unfinished = false;
        }
        self.layout = Some(Layout { version: MANIFEST_VERSION, ..layout });
        // The switch is done; what cannot be removed now does no harm.
        let _ = self.remove_leftovers();
        Ok(())
    }

    /// Writes what a layout of an older version lacks; its logs are as they were.
    ///
    /// # Errors
    /// As [`Self::activate`].
    pub fn upgrade(&mut self) -> Result<(), Error> {
        match self.layout.clone() {
            Some(layout) if layout.version < MANIFEST_VERSION => self.activate(layout),
            _ => Ok(()),
        }
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        self.disk.list(&self.path).map_err(Error::io("list", &self.path))
    }

    fn named_layout(&self) -> Result<Option<Layout>, Error> {
        let names = self.names()?;
        if names.iter().any(|name| name == UNFINISHED_NAME) {
            return Err(Error::Unfinished { path: self.path.join(UNFINISHED_NAME) });
        }
        if names.iter().any(|name| name == MANIFEST_NAME) {
            let layout = self.read_manifest()?;
            self.expect_no_newer(&layout, &names)?;
            return Ok(Some(layout));
        }
        self.expect_no_log(&names)?;
        Ok(None)
    }

    fn read_manifest(&self) -> Result<Layout, Error> {
        let path = self.path.join(MANIFEST_NAME);
        let file = self.disk.open(&path).map_err(Error::io("open", &path))?;
        let mut bytes = vec![0; MANIFEST_BYTES_MAX];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], filled as u64).map_err(Error::io("read", &path))? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        let (version, id, shards, tag) = parse_manifest(&bytes, &path)?;
        Ok(Layout { version, ..Layout::new(&self.path, id, shards, tag) })
    }

    fn expect_directories(&self, layout: &Layout) -> Result<(), Error> {
        for shard_index in 0..layout.shards {
            let path = layout.shard_dir(shard_index);
            match self.disk.open_dir(&path) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Error::MissingDirectory { path });
                }
                Err(error) => return Err(Error::io("open", &path)(error)),
            }
        }
        Ok(())
    }

    /// A layout gets segments only once the manifest names it: one of a higher number that has any shows that the
    /// manifest is an old copy.
    fn expect_no_newer(&self, named: &Layout, names: &[String]) -> Result<(), Error> {
        for id in names.iter().filter_map(|name| layout_id(name)).filter(|id| *id > named.id) {
            let newer = Layout::new(&self.path, id, 0, 0).path;
            if salvage::traces(&self.disk, &newer)?.segments > 0 {
                return Err(Error::NewerLayout { path: newer, named: named.path.clone() });
            }
        }
        Ok(())
    }

    fn expect_no_log(&self, names: &[String]) -> Result<(), Error> {
        for layout in names.iter().filter(|name| layout_id(name).is_some()) {
            let layout = self.path.join(layout);
            for shard in names_in(&self.disk, &layout)? {
                let shard = layout.join(shard);
                let files = names_in(&self.disk, &shard)?;
                let is_log =
                    |name: &&String| name.ends_with(SEGMENT_SUFFIX) || name.ends_with(SNAPSHOT_SUFFIX);
                if let Some(name) = files.iter().find(is_log) {
                    let path = self.path.join(MANIFEST_NAME);
                    return Err(Error::MissingManifest { path, found: shard.join(name) });
                }
                if files.iter().any(|name| name == SYNCED_NAME) {
                    self.expect_no_data_in(shard.join(SYNCED_NAME))?;
                }
            }
        }
        let slots = names.iter().filter(|name| layout_of_slots(name).is_some());
        slots.map(|name| self.path.join(name)).try_for_each(|path| self.expect_no_data_in(path))
    }

    /// Refuses a file that tells of the data of a log where no manifest does.
    fn expect_no_data_in(&self, found: PathBuf) -> Result<(), Error> {
        if synced::slots_know_data(&self.disk, &found)? {
            return Err(Error::MissingManifest { path: self.path.join(MANIFEST_NAME), found });
        }
        Ok(())
    }

    /// Moves what starts have cut off the logs of a layout out of its directory, which is to be removed.
    fn save_cut(&self, layout: &str) -> Result<(), Error> {
        let directory = self.path.join(layout);
        for shard in names_in(&self.disk, &directory)? {
            let from = directory.join(&shard);
            for name in names_in(&self.disk, &from)? {
                if name.ends_with(CUT_SUFFIX) {
                    let (from, to) = (from.join(&name), self.path.join(format!("{layout}.{shard}.{name}")));
                    self.disk.rename(&from, &to).map_err(Error::io("rename", &from))?;
                }
            }
        }
        sync_directory(&self.disk, &self.path)
    }

    /// Removes what earlier starts have cut off logs and kept aside. Returns how many files that were.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn discard_cut(&self) -> Result<usize, Error> {
        let shards = self.layout.iter().flat_map(|it| (0..it.shards).map(|index| it.shard_dir(index)));
        let mut count = 0;
        for directory in shards.chain([self.path.clone()]) {
            count += recovery::discard_cut(&self.disk, &directory)?;
        }
        Ok(count)
    }

    /// Removes what an unfinished change of the layout left behind: not before the layout that counts is read and found
    /// sound.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove_leftovers(&self) -> Result<(), Error> {
        // The name of the manifest may not be on disk yet, if its writer died just then: it goes before what it
        // replaces.
        sync_directory(&self.disk, &self.path)?;
        let current = self.layout.as_ref().map(|layout| layout.id);
        for name in self.names()? {
            let path = self.path.join(&name);
            let is_of_other = |id: Option<u64>| id.is_some_and(|id| Some(id) != current);
            if name == MANIFEST_TMP_NAME || is_of_other(layout_of_slots(&name)) {
                self.disk.remove_file(&path).map_err(Error::io("remove", &path))?;
            } else if is_of_other(layout_id(&name)) {
                self.save_cut(&name)?;
                self.disk.remove_dir_all(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

impl<D: Disk> Inspection<D> {
    /// Whether a manifest is of another directory: the layout that it names does not exist, or its files say that they
    /// are of another one.
    ///
    /// # Errors
    /// [`Error::NewerVersion`], [`Error::Io`].
    pub fn is_foreign(&self, named: &Layout) -> Result<bool, Error> {
        let traces = salvage::traces(&self.directory.disk, &named.path);
        match traces {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(true),
            traces => {
                let places = traces?.places;
                Ok(!places.is_empty() && !places.contains(&(named.shards, named.tag)))
            }
        }
    }

    /// The layout that most likely counts, by the files alone: for a manifest that is missing or damaged.
    /// `None` when no layout has a log file or a snapshot.
    ///
    /// A new layout is filled with snapshots while the older one is whole, and gets segments only once it
    /// counts. The newest one with a segment, or with a snapshot in each of its shards, is therefore whole.
    ///
    /// # Errors
    /// [`Error::NewerVersion`], [`Error::Io`].
    pub fn likely_layout(&self) -> Result<Option<Layout>, Error> {
        let root = &self.directory.path;
        let mut ids: Vec<u64> = self.directory.names()?.iter().filter_map(|name| layout_id(name)).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        let mut fallback = None;
        for id in ids {
            let traces = salvage::traces(&self.directory.disk, &Layout::new(root, id, 0, 0).path)?;
            let layout = Layout::new(root, id, traces.shards, traces.tag);
            if traces.segments > 0 || (traces.shards > 0 && traces.shards_with_snapshot == traces.shards) {
                return Ok(Some(layout));
            }
            if traces.shards_with_snapshot > 0 {
                fallback = fallback.or(Some(layout));
            }
        }
        Ok(fallback)
    }
}

/// Creates the directory if it is missing.
fn create<D: Disk>(disk: &D, path: &Path) -> Result<(), Error> {
    disk.create_dir_all(path).map_err(Error::io("create", path))?;
    let Some(parent) = path.parent() else { return Ok(()) };
    sync_directory(disk, if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

fn lock<D: Disk>(disk: &D, path: &Path, wait: Duration) -> Result<D::Lock, Error> {
    let mut waited = Duration::ZERO;
    loop {
        if let Some(lock) = disk.try_lock(path).map_err(Error::io("lock", path))? {
            return Ok(lock);
        }
        if waited >= wait {
            return Err(Error::Locked { path: path.to_owned() });
        }
        std::thread::sleep(LOCK_RETRY);
        waited += LOCK_RETRY;
    }
}

fn manifest_text(layout: &Layout) -> String {
    let Layout { id, shards, tag, .. } = layout;
    let lines = format!("kvlite manifest {MANIFEST_VERSION}\nlayout {id}\nshards {shards}\ntag {tag:08x}\n");
    let crc = crc32fast::hash(lines.as_bytes());
    format!("{lines}crc32 {crc:08x}\n")
}

/// Version, layout, shards and tag.
fn parse_manifest(bytes: &[u8], path: &Path) -> Result<(u32, u64, u32, u32), Error> {
    let damaged = |fault| Error::DamagedManifest { path: path.to_owned(), fault };
    let syntax = || damaged(ManifestFault::Syntax);
    let text = std::str::from_utf8(bytes).map_err(|_| syntax())?;
    let mut lines = text.split_inclusive('\n');
    let mut value = |name: &str| {
        let line = lines.next()?.strip_suffix('\n')?;
        line.strip_prefix(name)?.strip_prefix(' ')
    };
    let version: u32 = value("kvlite manifest").and_then(|text| text.parse().ok()).ok_or_else(syntax)?;
    // Every version ends with the checksum of what is before it: a damaged version is not taken for a newer one.
    let (covered, crc_text) =
        text.strip_suffix('\n').and_then(|text| text.rsplit_once("crc32 ")).ok_or_else(syntax)?;
    let found = u32::from_str_radix(crc_text, 16).ok().filter(|crc| format!("{crc:08x}") == crc_text);
    let found = found.ok_or_else(syntax)?;
    let expected = crc32fast::hash(covered.as_bytes());
    if expected != found {
        return Err(damaged(ManifestFault::Checksum { expected, found }));
    }
    if version == 0 || version > MANIFEST_VERSION {
        let path = path.to_owned();
        return Err(Error::NewerVersion { path, found: version, supported: MANIFEST_VERSION });
    }
    let id = value("layout").and_then(|text| text.parse().ok()).ok_or_else(syntax)?;
    let shards = value("shards").and_then(|text| text.parse().ok()).filter(|shards| *shards > 0);
    let shards: u16 = shards.ok_or_else(syntax)?;
    let tag = match version {
        1 | 2 => 0,
        _ => value("tag").and_then(|text| u32::from_str_radix(text, 16).ok()).ok_or_else(syntax)?,
    };
    if value("crc32") != Some(crc_text) {
        return Err(syntax());
    }
    Ok((version, id, shards.into(), tag))
}
