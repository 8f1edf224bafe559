//! What has to be synced, apart from who waits for it.

use std::path::Path;
use std::sync::Arc;

use crate::{Disk, DiskFile, Error};

/// Files to sync, and the sequence number up to which the log is durable when that is done.
///
/// Either [`Self::run`] it on a thread that may wait, or sync the [`files`](Self::files) and the
/// [`directory`](Self::directory) by other means. Then tell the log: [`Log::finish_sync`](crate::Log::finish_sync) or
/// [`Log::fail_sync`](crate::Log::fail_sync).
#[derive(Debug)]
pub struct SyncTicket<D: Disk> {
    pub(crate) files: Vec<D::File>,
    pub(crate) directory: Option<D::File>,
    pub(crate) covers_seq: u64,
    pub(crate) covers_generation: u64,
    /// How many syncs had failed when this was begun.
    pub(crate) sync_failures: u64,
    pub(crate) path: Arc<Path>,
}

impl<D: Disk> SyncTicket<D> {
    /// The segments whose data has to be synced (`fdatasync`).
    pub fn files(&self) -> &[D::File] {
        &self.files
    }

    /// The directory, when a new segment's name has to be synced too (`fsync`; once per segment).
    pub fn directory(&self) -> Option<&D::File> {
        self.directory.as_ref()
    }

    /// The sequence number up to which frames are durable after the sync.
    pub fn covers_seq(&self) -> u64 {
        self.covers_seq
    }

    /// Syncs all of it. Blocks.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn run(&self) -> Result<(), Error> {
        for file in &self.files {
            file.sync_data().map_err(Error::io("sync a segment in", &self.path))?;
        }
        match &self.directory {
            Some(directory) => directory.sync_all().map_err(Error::io("sync", &self.path)),
            None => Ok(()),
        }
    }
}

/// Brings the names in a directory to disk.
pub(crate) fn sync_directory<D: Disk>(disk: &D, path: &Path) -> Result<(), Error> {
    let directory = disk.open_dir(path).map_err(Error::io("open", path))?;
    directory.sync_all().map_err(Error::io("sync", path))
}
