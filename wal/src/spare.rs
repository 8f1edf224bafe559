//! Work on files beside the log: preparing the next segment, clearing away obsolete ones.
//!
//! Everything here may run on another thread than the log's owner. Nothing here touches a file with frames
//! that still count.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use crate::header::{RESERVE_NAME, SPARE_NAME};
use crate::{Disk, DiskFile, Error, synced};

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
const STEP_BYTES: u64 = 1 << 20;

/// The right to make the file named `spare`; the log hands it out once at a time.
pub(crate) type Turn = Arc<()>;

/// A zero-filled file that is being made, so that a later rotation of the log finds a segment ready whose
/// syncs change no metadata.
///
/// Use it up in [`Self::step`]s or with [`Self::run`], then give the outcome to
/// [`Log::adopt`](crate::Log::adopt). Dropping it gives it up.
#[derive(Debug)]
pub struct Preparation<D: Disk> {
    disk: D,
    path: PathBuf,
    file: Option<D::File>,
    file_bytes: u64,
    /// From here on it is still to be filled.
    filled: u64,
    turn: Turn,
}

/// A file that is ready to become the next segment.
#[derive(Debug)]
pub struct Spare<D: Disk> {
    pub(crate) file: D::File,
    pub(crate) path: PathBuf,
    pub(crate) file_bytes: u64,
    _turn: Turn,
}

impl<D: Disk> Spare<D> {
    /// A segment that is allocated, and filled where that is asked for, but not synced: quickly made, and slower to
    /// sync, at least once. Its name is not that of a prepared one, which may be in the making.
    pub(crate) fn reserve(
        disk: &D,
        directory: &Path,
        file_bytes: u64,
        is_filled: bool,
    ) -> Result<Spare<D>, Error> {
        let path = directory.join(RESERVE_NAME);
        let file = disk.create(&path).map_err(Error::io("create", &path))?;
        let filled = if is_filled { 0..file_bytes } else { 0..0 };
        let made = file.allocate(file_bytes).map_err(Error::io("allocate", &path));
        if let Err(error) = made.and_then(|()| fill(&file, filled).map_err(Error::io("write", &path))) {
            // What is left behind is emptied by the next try, and removed by the next start.
            let _ = disk.remove_file(&path);
            return Err(error);
        }
        Ok(Spare { file, path, file_bytes, _turn: Turn::default() })
    }
}

/// Writes zeros.
fn fill<F: DiskFile>(file: &F, range: Range<u64>) -> io::Result<()> {
    for at in range.clone().step_by(ZEROS.len()) {
        let count = ZEROS.len().min((range.end - at) as usize);
        file.write_all_at(&ZEROS[..count], at)?;
    }
    Ok(())
}

impl<D: Disk> Preparation<D> {
    pub(crate) fn new(disk: D, directory: &Path, file_bytes: u64, turn: Turn) -> Preparation<D> {
        let path = directory.join(SPARE_NAME);
        Preparation { disk, path, file: None, file_bytes, filled: 0, turn }
    }

    /// How large the file becomes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Only allocates the file. It is made in no time, and what is written to it is written once, not twice; its
    /// syncs are slower.
    #[must_use]
    pub fn unfilled(mut self) -> Self {
        self.filled = self.file_bytes;
        self
    }

    /// Fills and syncs about `bytes_budget` more bytes; returns whether the file is complete. Blocks for
    /// the sync.
    ///
    /// # Errors
    /// [`Error::Io`]; the step can be repeated.
    pub fn step(&mut self, bytes_budget: u64) -> Result<bool, Error> {
        let file = match &self.file {
            Some(file) => file,
            None => {
                let file = self.disk.create(&self.path).map_err(Error::io("create", &self.path))?;
                file.allocate(self.file_bytes).map_err(Error::io("allocate", &self.path))?;
                self.file.insert(file)
            }
        };
        let end = self.file_bytes.min(self.filled + bytes_budget.max(1));
        fill(file, self.filled..end).map_err(Error::io("write", &self.path))?;
        file.sync_data().map_err(Error::io("sync", &self.path))?;
        self.filled = end;
        Ok(self.filled == self.file_bytes)
    }

    /// Completes the file. Blocks.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Displaced`]; then the preparation is given up, and the file removed: what it takes of a
    /// disk that is nearly full is needed elsewhere.
    pub fn run(mut self) -> Result<Spare<D>, Error> {
        self.disk.expect_lock()?;
        loop {
            match self.step(STEP_BYTES) {
                Ok(true) => return Ok(self.finish()),
                Ok(false) => {}
                Err(error) => {
                    // Where it cannot be removed either, the next preparation takes its place.
                    let _ = self.disk.remove_file(&self.path);
                    return Err(error);
                }
            }
        }
    }

    /// The complete file.
    ///
    /// # Panics
    /// When the last [`Self::step`] did not return true.
    pub fn finish(self) -> Spare<D> {
        assert!(self.filled == self.file_bytes, "a spare is used only when it is complete");
        let file = self.file.expect("a filled file is open");
        Spare { file, path: self.path, file_bytes: self.file_bytes, _turn: self.turn }
    }
}

/// Files that do not count: those that a newer snapshot replaces, or a file in the making that was given up. They may
/// be left in place too: recovery ignores and removes them.
#[derive(Debug)]
pub struct Obsolete<D: Disk> {
    pub(crate) disk: D,
    /// Where it is noted what the log consists of without them: that is on disk before they go.
    pub(crate) notes: Vec<PathBuf>,
    pub(crate) files: Vec<PathBuf>,
    /// The file among them that becomes the spare, and its length in bytes.
    pub(crate) recycled: Option<(PathBuf, u64, Turn)>,
    /// Held by every image of the log.
    pub(crate) images: Weak<()>,
}

impl<D: Disk> Obsolete<D> {
    /// Whether an [`Image`](crate::Image) may still need the files: until then they are not to be cleared away.
    pub fn is_needed(&self) -> bool {
        self.images.strong_count() > 0
    }

    /// Removes the files that are there; one may be recycled and is returned for [`Log::adopt`](crate::Log::adopt).
    /// Blocks: unlinking large files takes milliseconds.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Displaced`]; then some files are left for the next recovery to remove.
    pub fn clear(self) -> Result<Option<Spare<D>>, Error> {
        self.disk.expect_lock()?;
        for path in &self.notes {
            synced::sync_file(&self.disk, path)?;
        }
        for path in &self.files {
            match self.disk.remove_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(Error::io("remove", path))?,
            }
        }
        let Some((from, file_bytes, turn)) = self.recycled else { return Ok(None) };
        let path = from.with_file_name(SPARE_NAME);
        self.disk.rename(&from, &path).map_err(Error::io("rename", &from))?;
        let file = self.disk.open(&path).map_err(Error::io("open", &path))?;
        Ok(Some(Spare { file, path, file_bytes, _turn: turn }))
    }
}
