//! The file of the libraries, which keeps them over restarts.
//!
//! ```text
//! <data directory>/functions
//!
//!   0  magic        8   "KVLITFUN"
//!   8  version      4   1
//!  12  body bytes   4
//!  16  crc          4   CRC-32 (IEEE) of all other bytes
//!  20  body             JSON: a list of libraries, each with its name, its code in base64, and its functions
//! ```
//!
//! Integers are little-endian. Every version keeps these 20 bytes and their checksum: a damaged version is not taken for
//! a newer one. A new file takes the place of the old one in one step, once it is on disk.

use std::io::{self, ErrorKind};
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use wal::{Disk, DiskFile, Error};

use super::libraries::{FunctionInfo, Libraries, Library};

const NAME: &str = "functions";
const TMP_NAME: &str = "functions.tmp";
const MAGIC: [u8; 8] = *b"KVLITFUN";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 20;

/// The most bytes of the body: as many as a request has, in base64.
const BODY_BYTES_MAX: u64 = 1 << 31;

static CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

#[derive(Serialize, Deserialize)]
struct KeptLibrary {
    name: String,
    code: String,
    functions: Vec<KeptFunction>,
}

#[derive(Serialize, Deserialize)]
struct KeptFunction {
    name: String,
    description: Option<String>,
    flags: Vec<String>,
}

/// Replaces the file in this directory. Blocks.
///
/// # Errors
/// [`Error::Io`], [`Error::Displaced`]: the old file stays.
pub fn write<D: Disk>(disk: &D, directory: &Path, libraries: &Libraries) -> Result<(), Error> {
    let kept: Vec<_> = libraries
        .iter()
        .map(|library| KeptLibrary {
            name: library.name.clone(),
            code: BASE64_STANDARD.encode(&library.code),
            functions: library
                .functions
                .iter()
                .map(|info| KeptFunction {
                    name: info.name.clone(),
                    description: info.description.clone(),
                    flags: info.flags().map(str::to_owned).collect(),
                })
                .collect(),
        })
        .collect();
    let tmp = directory.join(TMP_NAME);
    let body = serde_json::to_vec(&kept).map_err(io::Error::from).map_err(Error::io("write", &tmp))?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    for number in [VERSION, body.len() as u32, 0] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&body);
    let crc = checksum(&bytes);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    disk.expect_lock()?;
    let file = disk.create(&tmp).map_err(Error::io("create", &tmp))?;
    file.write_all_at(&bytes, 0).map_err(Error::io("write", &tmp))?;
    file.sync_data().map_err(Error::io("sync", &tmp))?;
    let path = directory.join(NAME);
    disk.rename(&tmp, &path).map_err(Error::io("rename", &tmp))?;
    let names = disk.open_dir(directory).map_err(Error::io("open", directory))?;
    names.sync_all().map_err(Error::io("sync", directory))
}

/// The libraries of the file in this directory; none where there is no file. Blocks.
///
/// # Errors
/// [`Error::NewerVersion`]; [`Error::Io`] for a file that is damaged, too.
pub fn read<D: Disk>(disk: &D, directory: &Path) -> Result<Libraries, Error> {
    let path = directory.join(NAME);
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Libraries::default()),
        Err(error) => return Err(Error::io("open", &path)(error)),
    };
    let len = file.len().map_err(Error::io("measure", &path))?;
    let mut bytes = vec![0; len.min(HEADER_BYTES as u64 + BODY_BYTES_MAX) as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64).map_err(Error::io("read", &path))? {
            0 => break,
            read => filled += read,
        }
    }
    let number = |at: usize| bytes.get(at..at + 4).map(|it| u32::from_le_bytes([it[0], it[1], it[2], it[3]]));
    let body = bytes.get(HEADER_BYTES..).filter(|body| {
        bytes.starts_with(&MAGIC)
            && number(12) == Some(body.len() as u32)
            && number(16) == Some(checksum(&bytes))
    });
    if let Some(found) = number(8).filter(|version| body.is_some() && *version > VERSION) {
        return Err(Error::NewerVersion { path, found, supported: VERSION });
    }
    body.and_then(parsed).ok_or_else(|| {
        let text = "the libraries of functions are damaged; take the file from a backup, or remove it to start without them";
        Error::io("read", &path)(io::Error::new(ErrorKind::InvalidData, text))
    })
}

/// Of all bytes of a file but those that hold it.
fn checksum(file: &[u8]) -> u32 {
    let mut crc = CRC.digest();
    crc.update(&file[..HEADER_BYTES - 4]);
    crc.update(&file[HEADER_BYTES..]);
    crc.finalize()
}

fn parsed(body: &[u8]) -> Option<Libraries> {
    let kept: Vec<KeptLibrary> = serde_json::from_slice(body).ok()?;
    let libraries = kept.into_iter().map(|library| {
        let functions =
            library.functions.into_iter().map(|it| FunctionInfo::new(it.name, it.description, &it.flags));
        Some(Library {
            name: library.name,
            code: BASE64_STANDARD.decode(library.code).ok()?.into(),
            functions: functions.collect::<Option<_>>()?,
        })
    });
    Libraries::of(libraries.collect::<Option<Vec<_>>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wal::MemDisk;

    fn libraries() -> Libraries {
        let info =
            FunctionInfo::new("visit".into(), Some("counts".into()), &["no-writes".to_owned()]).unwrap();
        let library =
            Library { name: "shop".into(), code: b"#!lua name=shop\n\xff"[..].into(), functions: vec![info] };
        Libraries::of(vec![library]).unwrap()
    }

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_refused() {
        let (disk, directory) = (MemDisk::default(), Path::new("/d"));
        disk.create_dir_all(directory).unwrap();
        assert_eq!(read(&disk, directory).unwrap().library_count(), 0);
        write(&disk, directory, &libraries()).unwrap();
        let found = read(&disk, directory).unwrap();
        assert_eq!(found.codes().collect::<Vec<_>>(), [b"#!lua name=shop\n\xff"]);
        assert!(found.function(b"VISIT").unwrap().1.is_read_only());
        let path = directory.join(NAME);
        let bytes = {
            let file = disk.open(&path).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_at(&mut bytes, 0).unwrap();
            bytes
        };
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0x55;
            disk.create(&path).unwrap().write_all_at(&other, 0).unwrap();
            let error = read(&disk, directory).unwrap_err();
            assert!(error.to_string().contains("are damaged"), "byte {at}: {error}");
        }
        let mut newer = bytes.clone();
        newer[8] += 1;
        let crc = checksum(&newer);
        newer[16..20].copy_from_slice(&crc.to_le_bytes());
        disk.create(&path).unwrap().write_all_at(&newer, 0).unwrap();
        assert!(matches!(read(&disk, directory), Err(Error::NewerVersion { found: 2, supported: 1, .. })));
        disk.create(&path).unwrap().write_all_at(&bytes[..bytes.len() - 1], 0).unwrap();
        assert!(read(&disk, directory).is_err());
    }
}
