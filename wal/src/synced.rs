//! The file `synced` beside a log: up to where the log is on disk for certain. Without it, the newest segment could go missing as
//! a whole and nothing would tell.
//!
//! It is written once for each segment, as soon as the segment's name and first frames are on disk; when a log is
//! opened; and when it is closed. It is not synced itself: an older one, or none, promises less and nothing wrong.

use std::io;
use std::path::Path;

use crate::header::{FILE_HEADER_BYTES, FileHeader, SYNCED_MAGIC, SYNCED_NAME};
use crate::{Disk, DiskFile, Error, Place};

/// Notes that the frames up to the synced one are on disk, and what their newest segment is.
///
/// # Errors
/// As the disk; then the file is as it was, or is gone.
pub(crate) fn write<D: Disk>(disk: &D, directory: &Path, place: Place, header: FileHeader) -> io::Result<()> {
    let path = directory.join(SYNCED_NAME);
    let file = match disk.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(&path)?,
        opened => opened?,
    };
    file.write_all_at(&header.encode(SYNCED_MAGIC, place), 0)
}

/// What the file says; nothing but zeros when there is none, or none that is whole.
///
/// # Errors
/// [`Error::Io`], [`Error::NewerVersion`], [`Error::WrongShard`].
pub(crate) fn read<D: Disk>(disk: &D, directory: &Path, place: Place) -> Result<FileHeader, Error> {
    let path = directory.join(SYNCED_NAME);
    let file = match disk.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(FileHeader::default()),
        opened => opened.map_err(Error::io("open", &path))?,
    };
    let mut bytes = [0; FILE_HEADER_BYTES];
    let read = file.read_at(&mut bytes, 0).map_err(Error::io("read", &path))?;
    Ok(FileHeader::decode(&bytes[..read], SYNCED_MAGIC, place, &path)?.unwrap_or_default())
}
