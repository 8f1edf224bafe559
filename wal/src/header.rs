//! The header that every segment and snapshot begins with, and the names of these files.

use std::path::{Path, PathBuf};

use crate::Error;

/// The format version that is written, and the newest that is read.
pub const FORMAT_VERSION: u32 = 2;
/// The same for the file `synced`.
pub(crate) const SYNCED_VERSION: u32 = 3;

pub(crate) const FILE_HEADER_BYTES: usize = 48;
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"KVLITLOG";
pub(crate) const SNAPSHOT_MAGIC: [u8; 8] = *b"KVLITSNP";
pub(crate) const SYNCED_MAGIC: [u8; 8] = *b"KVLITSYN";
pub(crate) const SYNCED_NAME: &str = "synced";
pub(crate) const SPARE_NAME: &str = "spare";
pub(crate) const RESERVE_NAME: &str = "reserve";
pub(crate) const STAGED_NAME: &str = "staged";
pub(crate) const SNAPSHOT_TMP_NAME: &str = "snapshot.tmp";
pub(crate) const SEGMENT_SUFFIX: &str = ".log";
pub(crate) const SNAPSHOT_SUFFIX: &str = ".snapshot";
pub(crate) const CUT_SUFFIX: &str = ".cut";

/// No sequence number and no generation is greater: what follows one is always a number.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

/// Which shard a directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The shard's index, below `shard_count`.
    pub shard_index: u32,
    /// The number of shards of the layout.
    pub shard_count: u32,
    /// A random number of the layout, by which its files are told from those of another server; 0 in a layout of an
    /// older version.
    pub tag: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub generation: u64,
    pub first_seq: u64,
    pub synced_seq: u64,
}

impl FileHeader {
    pub fn encode(&self, magic: [u8; 8], place: Place) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&magic);
        bytes[8..12].copy_from_slice(&newest_version(magic).to_le_bytes());
        let number = |number| u16::try_from(number).expect("a layout has at most 65,535 shards");
        bytes[12..14].copy_from_slice(&number(place.shard_index).to_le_bytes());
        bytes[14..16].copy_from_slice(&number(place.shard_count).to_le_bytes());
        bytes[16..20].copy_from_slice(&place.tag.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.generation.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[36..44].copy_from_slice(&self.synced_seq.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..44]);
        bytes[44..48].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header that these bytes are, or `None` when they are none.
    ///
    /// # Errors
    /// [`Error::NewerVersion`], [`Error::WrongShard`], [`Error::OtherLayout`].
    pub fn decode(
        bytes: &[u8],
        magic: [u8; 8],
        place: Place,
        path: &Path,
    ) -> Result<Option<FileHeader>, Error> {
        let Some((header, found)) = FileHeader::decode_any(bytes, magic, path)? else { return Ok(None) };
        if found == place {
            return Ok(Some(header));
        }
        let path = path.to_owned();
        if found.tag != place.tag {
            return Err(Error::OtherLayout { path, expected: place.tag, found: found.tag });
        }
        let expected = (place.shard_index, place.shard_count);
        let found = (found.shard_index, found.shard_count);
        Err(Error::WrongShard { path, expected, found })
    }

    /// The header that these bytes are, whichever shard's it is, or `None` when they are none.
    ///
    /// # Errors
    /// [`Error::NewerVersion`].
    pub fn decode_any(
        bytes: &[u8],
        magic: [u8; 8],
        path: &Path,
    ) -> Result<Option<(FileHeader, Place)>, Error> {
        let Some(bytes) = bytes.first_chunk::<FILE_HEADER_BYTES>() else { return Ok(None) };
        if bytes[..8] != magic {
            return Ok(None);
        }
        // Every version keeps these 48 bytes and their checksum: a damaged version is not taken for a newer one.
        if crc32fast::hash(&bytes[..44]) != u32_at(bytes, 44) {
            return Ok(None);
        }
        let (version, supported) = (u32_at(bytes, 8), newest_version(magic));
        if version > supported {
            return Err(Error::NewerVersion { path: path.to_owned(), found: version, supported });
        }
        let place = match version < place_version(magic) {
            true => Place { shard_index: u32_at(bytes, 12), shard_count: u32_at(bytes, 16), tag: 0 },
            false => {
                let [shard_index, shard_count] = [12, 14].map(|offset| u32::from(u16_at(bytes, offset)));
                Place { shard_index, shard_count, tag: u32_at(bytes, 16) }
            }
        };
        let [generation, first_seq, synced_seq] = [20, 28, 36].map(|offset| u64_at(bytes, offset));
        if generation.max(first_seq).max(synced_seq) > NUMBER_MAX {
            return Ok(None);
        }
        Ok(Some((FileHeader { generation, first_seq, synced_seq }, place)))
    }
}

/// The format version of such a file that is written, and the newest that is read.
fn newest_version(magic: [u8; 8]) -> u32 {
    if magic == SYNCED_MAGIC { SYNCED_VERSION } else { FORMAT_VERSION }
}

/// The format version from which on such a file tells the tag of its layout.
fn place_version(magic: [u8; 8]) -> u32 {
    if magic == SYNCED_MAGIC { 3 } else { 2 }
}

pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(*bytes[offset..].first_chunk().expect("the caller checked the length"))
}

#[inline]
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(*bytes[offset..].first_chunk().expect("the caller checked the length"))
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(*bytes[offset..].first_chunk().expect("the caller checked the length"))
}

pub(crate) fn numbered(directory: &Path, number: u64, suffix: &str) -> PathBuf {
    directory.join(format!("{number:020}{suffix}"))
}

/// The number in a name that [`numbered`] made.
pub(crate) fn number_of(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|number| *number <= NUMBER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { shard_index: 2, shard_count: 3, tag: 0x0d0c_0b0a };
    const HEADER: FileHeader = FileHeader { generation: 0x0102, first_seq: 7, synced_seq: 5 };
    const GOLDEN: &[u8; FILE_HEADER_BYTES] = b"KVLITLOG\x02\0\0\0\x02\0\x03\0\x0a\x0b\x0c\x0d\
        \x02\x01\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0";

    fn decode(bytes: &[u8]) -> Result<Option<FileHeader>, Error> {
        FileHeader::decode(bytes, SEGMENT_MAGIC, PLACE, Path::new("f"))
    }

    #[test]
    fn the_header_is_the_one_that_is_drawn() {
        let bytes = HEADER.encode(SEGMENT_MAGIC, PLACE);
        assert_eq!(bytes[..44], GOLDEN[..44]);
        assert_eq!(u32_at(&bytes, 44), 0x00bf_0fb6);
        assert_eq!(decode(&bytes).unwrap(), Some(HEADER));
    }

    #[test]
    fn a_flipped_bit_never_gives_another_header() {
        let good = HEADER.encode(SEGMENT_MAGIC, PLACE);
        for bit in 0..FILE_HEADER_BYTES * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes).unwrap(), None, "bit {bit}");
        }
    }

    #[test]
    fn a_header_of_another_shard_or_of_a_newer_version_is_refused() {
        let other = Place { shard_index: 1, ..PLACE };
        let found = decode(&HEADER.encode(SEGMENT_MAGIC, other));
        assert!(matches!(found, Err(Error::WrongShard { expected: (2, 3), found: (1, 3), .. })));
        let mut bytes = HEADER.encode(SEGMENT_MAGIC, PLACE);
        bytes[8] = 3;
        assert_eq!(decode(&bytes).unwrap(), None, "a flipped version is damage, and not a newer file");
        let crc = crc32fast::hash(&bytes[..44]);
        bytes[44..].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(decode(&bytes), Err(Error::NewerVersion { found: 3, supported: 2, .. })));
    }

    #[test]
    fn only_names_that_were_made_here_have_a_number() {
        let name = numbered(Path::new(""), 42, SEGMENT_SUFFIX);
        assert_eq!(number_of(name.to_str().unwrap(), SEGMENT_SUFFIX), Some(42));
        for name in ["42.log", "+0000000000000000042.log", "spare", "99999999999999999999.log"] {
            assert_eq!(number_of(name, SEGMENT_SUFFIX), None, "{name}");
        }
    }
}
