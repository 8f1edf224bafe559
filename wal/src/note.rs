//! A note beside the log of a shard: bytes that are worth keeping over a restart and that are not missed when they
//! are lost. Nothing that a client was told depends on it. This module never looks into them, and nothing else
//! looks at its file.
//!
//! ```text
//! <layout>/shard-<index>/analytics
//!
//!   0  magic        8   "KVLITNTE"
//!   8  version      4   2
//!  12  body bytes   4
//!  16  crc          4   CRC-32 (IEEE) of the body
//!  20  shard index  4   from here on version 1 has the body
//!  24  shard count  4
//!  28  body
//! ```
//!
//! Integers are little-endian. A note of another shard is none. A new note takes the place of the old one in one step,
//! once it is on disk.

use std::path::{Path, PathBuf};

use crate::header::u32_at;
use crate::{Disk, DiskFile, Error, Place};

const NAME: &str = "analytics";
const TMP_NAME: &str = "analytics.tmp";
const MAGIC: [u8; 8] = *b"KVLITNTE";
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 28;
const HEADER_BYTES_V1: usize = 20;

/// A longer body is refused: its writer has lost the measure.
pub const NOTE_BYTES_MAX: usize = 1 << 20;

/// Where the note of one shard is kept. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Note<D: Disk> {
    disk: D,
    path: PathBuf,
    place: Place,
}

impl<D: Disk> Note<D> {
    /// In the directory of the shard.
    pub fn new(disk: &D, directory: &Path, place: Place) -> Note<D> {
        Note { disk: disk.clone(), path: directory.join(NAME), place }
    }

    /// Replaces the note. Blocks.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Displaced`]: the old note stays, and nothing is left of the new one.
    ///
    /// # Panics
    /// If there are more than [`NOTE_BYTES_MAX`] bytes.
    pub fn write(&self, body: &[u8]) -> Result<(), Error> {
        assert!(body.len() <= NOTE_BYTES_MAX, "a note of {} bytes", body.len());
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
        bytes.extend_from_slice(&self.place.shard_index.to_le_bytes());
        bytes.extend_from_slice(&self.place.shard_count.to_le_bytes());
        bytes.extend_from_slice(body);
        self.disk.expect_lock()?;
        let tmp = self.path.with_file_name(TMP_NAME);
        let written = self.write_at(&tmp, &bytes);
        if written.is_err() {
            let _ = self.disk.remove_file(&tmp);
        }
        written
    }

    fn write_at(&self, tmp: &Path, bytes: &[u8]) -> Result<(), Error> {
        let file = self.disk.create(tmp).map_err(Error::io("create", tmp))?;
        file.write_all_at(bytes, 0).map_err(Error::io("write", tmp))?;
        file.sync_data().map_err(Error::io("sync", tmp))?;
        self.disk.rename(tmp, &self.path).map_err(Error::io("rename", tmp))
    }

    /// The bytes that were written last; `None` where there are none. Blocks.
    ///
    /// # Errors
    /// [`Error::DamagedNote`], [`Error::WrongShard`], [`Error::NewerVersion`], [`Error::Io`].
    pub fn read(&self) -> Result<Option<Vec<u8>>, Error> {
        let file = match self.disk.open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &self.path)(error)),
        };
        let len = file.len().map_err(Error::io("measure", &self.path))?;
        let mut bytes = vec![0; len.min((HEADER_BYTES + NOTE_BYTES_MAX + 1) as u64) as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], filled as u64).map_err(Error::io("read", &self.path))? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        let body = self.body(&bytes)?.to_vec();
        Ok(Some(body))
    }

    fn body<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let damaged = || Error::DamagedNote { path: self.path.clone(), found_bytes: bytes.len() };
        let (header, body) = bytes.split_at_checked(HEADER_BYTES_V1).ok_or_else(damaged)?;
        if header[..8] != MAGIC {
            return Err(damaged());
        }
        let version = u32_at(header, 8);
        if version > VERSION {
            return Err(Error::NewerVersion { path: self.path.clone(), found: version, supported: VERSION });
        }
        let (place, body) = if version == 1 {
            (self.place, body)
        } else {
            let (place, body) = body.split_at_checked(HEADER_BYTES - HEADER_BYTES_V1).ok_or_else(damaged)?;
            (Place { shard_index: u32_at(place, 0), shard_count: u32_at(place, 4), ..self.place }, body)
        };
        if u32_at(header, 12) as usize != body.len() || u32_at(header, 16) != crc32fast::hash(body) {
            return Err(damaged());
        }
        if place != self.place {
            let of = |place: Place| (place.shard_index, place.shard_count);
            let path = self.path.clone();
            return Err(Error::WrongShard { path, expected: of(self.place), found: of(place) });
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemDisk;

    const PLACE: Place = Place { shard_index: 2, shard_count: 3, tag: 0 };

    fn put(disk: &MemDisk, bytes: &[u8]) {
        disk.create(Path::new("/s/analytics")).unwrap().write_all_at(bytes, 0).unwrap();
    }

    fn note() -> (MemDisk, Note<MemDisk>) {
        let disk = MemDisk::default();
        disk.create_dir_all(Path::new("/s")).unwrap();
        let note = Note::new(&disk, Path::new("/s"), PLACE);
        (disk, note)
    }

    #[test]
    fn the_newest_note_is_read_back() {
        let (disk, note) = note();
        assert_eq!(note.read().unwrap(), None);
        for body in [&b"a longer one"[..], b"", b"short"] {
            note.write(body).unwrap();
            assert_eq!(note.read().unwrap().as_deref(), Some(body));
        }
        assert_eq!(disk.list(Path::new("/s")).unwrap(), ["analytics"]);
    }

    #[test]
    fn the_bytes_are_those_that_are_drawn_and_no_others_are_read() {
        let (disk, note) = note();
        let golden = b"KVLITNTE\x02\0\0\0\x03\0\0\0\xc2\x41\x24\x35\x02\0\0\0\x03\0\0\0abc";
        put(&disk, golden);
        assert_eq!(note.read().unwrap().as_deref(), Some(&b"abc"[..]));
        note.write(b"abc").unwrap();
        let mut written = [0; 64];
        let len = disk.open(Path::new("/s/analytics")).unwrap().read_at(&mut written, 0).unwrap();
        assert_eq!(&written[..len], golden);
        put(&disk, b"KVLITNTE\x01\0\0\0\x03\0\0\0\xc2\x41\x24\x35abc");
        assert_eq!(note.read().unwrap().as_deref(), Some(&b"abc"[..]), "version 1 is read");
        for index in 0..golden.len() {
            let mut changed = *golden;
            changed[index] ^= 0x40;
            put(&disk, &changed);
            let read = note.read();
            let is_told = match index {
                8..12 => matches!(read, Err(Error::NewerVersion { .. })),
                20..28 => matches!(read, Err(Error::WrongShard { .. })),
                _ => matches!(read, Err(Error::DamagedNote { .. })),
            };
            assert!(is_told, "byte {index}: {read:?}");
            put(&disk, &golden[..index]);
            assert!(matches!(note.read(), Err(Error::DamagedNote { .. })), "{index} bytes");
        }
    }
}
