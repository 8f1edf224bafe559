//! The large end of a frame's payload, written piece by piece before its frame exists, while the log goes on.
//!
//! It owns a file of its own. When the frame is appended only its head is missing, and the file becomes the next
//! segment. A staged part that is not used leaves its file behind, for
//! [`Log::give_up_staged`](crate::Log::give_up_staged) to remove, or the next start.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::frame::FRAME_HEADER_BYTES;
use crate::header::{FILE_HEADER_BYTES, STAGED_NAME};
use crate::segment::BLOCK_BYTES;
use crate::{Disk, DiskFile, Error};

/// A part of a payload on its way to the disk. There is one at a time.
#[derive(Debug)]
pub struct Staged<D: Disk> {
    pub(crate) path: PathBuf,
    pub(crate) file: D::File,
    pub(crate) file_bytes: u64,
    /// How many bytes of the payload stand before the part.
    pub(crate) before_bytes: usize,
    pub(crate) part: Bytes,
    written: usize,
    /// Of what is written.
    pub(crate) crc: crc32fast::Hasher,
}

impl<D: Disk> Staged<D> {
    pub(crate) fn begin(
        disk: &D,
        directory: &Path,
        segment_bytes: u64,
        before_bytes: usize,
        part: Bytes,
    ) -> Result<Staged<D>, Error> {
        let path = directory.join(STAGED_NAME);
        let needed = (FILE_HEADER_BYTES + FRAME_HEADER_BYTES + before_bytes + part.len()) as u64;
        let file_bytes = segment_bytes.max(needed.next_multiple_of(BLOCK_BYTES));
        let file = disk.create(&path).map_err(Error::io("create", &path))?;
        if let Err(error) = file.allocate(file_bytes) {
            let _ = disk.remove_file(&path);
            return Err(Error::io("allocate", &path)(error));
        }
        let (written, crc) = (0, crc32fast::Hasher::new());
        Ok(Staged { path, file, file_bytes, before_bytes, part, written, crc })
    }

    /// Hands at most `bytes_max` more bytes to the system; returns whether that were all.
    ///
    /// # Errors
    /// [`Error::Io`]; the step can be repeated.
    pub fn step(&mut self, bytes_max: usize) -> Result<bool, Error> {
        let end = self.part.len().min(self.written.saturating_add(bytes_max));
        let piece = &self.part[self.written..end];
        let at = FILE_HEADER_BYTES + FRAME_HEADER_BYTES + self.before_bytes + self.written;
        self.file.write_all_at(piece, at as u64).map_err(Error::io("write", &self.path))?;
        self.crc.update(piece);
        self.written = end;
        Ok(self.is_complete())
    }

    /// The part.
    pub fn part(&self) -> &Bytes {
        &self.part
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.written == self.part.len()
    }
}
