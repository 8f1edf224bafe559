//! Making a shard's directory hold exactly what was replayed; whole frames that are cut are kept aside.

use std::path::Path;

use super::Replayed;
use crate::frame::FrameReader;
use crate::header::{CUT_SUFFIX, FILE_HEADER_BYTES};
use crate::segment::Segment;
use crate::sync::sync_directory;
use crate::{Disk, DiskFile, Error, Proof};

/// Files are copied in pieces of this size.
const COPY_BYTES: usize = 1 << 20;

/// Makes the files be what was replayed, durably. A crash in between is as good as one before.
pub(crate) fn settle<D: Disk>(replayed: &Replayed<D>) -> Result<(), Error> {
    let (disk, directory) = (&replayed.disk, &replayed.directory);
    // The last segment with a place in the log is copied, since its good part stays; the others are renamed.
    for (from, to) in &replayed.aside {
        match replayed.segments.iter().any(|segment| segment.path == *from) {
            true => copy(disk, from, to)?,
            false => disk.rename(from, to).map_err(Error::io("rename", from))?,
        }
    }
    // The snapshot's name may not be on disk yet, if its writer died just then: it goes before what it replaces.
    sync_directory(disk, directory)?;
    for path in &replayed.leftovers {
        disk.remove_file(path).map_err(Error::io("remove", path))?;
    }
    sync_directory(disk, directory)?;
    for segment in &replayed.segments {
        let file = disk.open(&segment.path).map_err(Error::io("open", &segment.path))?;
        if segment.file_bytes < file.len().map_err(Error::io("measure", &segment.path))? {
            file.truncate(segment.file_bytes).map_err(Error::io("cut", &segment.path))?;
        }
        if segment.last_seq > replayed.proven_seq {
            write_again(&file, segment, replayed.proven_seq)?;
        }
        file.sync_data().map_err(Error::io("sync", &segment.path))?;
    }
    Ok(())
}

/// Copies a file and syncs the copy. A copy that fails is removed.
pub(crate) fn copy<D: Disk>(disk: &D, from: &Path, to: &Path) -> Result<(), Error> {
    let copied = copy_bytes(disk, from, to);
    if copied.is_err() {
        let _ = disk.remove_file(to);
    }
    copied
}

fn copy_bytes<D: Disk>(disk: &D, from: &Path, to: &Path) -> Result<(), Error> {
    let source = disk.open(from).map_err(Error::io("open", from))?;
    let target = disk.create(to).map_err(Error::io("create", to))?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    loop {
        let read = source.read_at(&mut buffer, at).map_err(Error::io("read", from))?;
        if read == 0 {
            return target.sync_data().map_err(Error::io("sync", to));
        }
        target.write_all_at(&buffer[..read], at).map_err(Error::io("write", to))?;
        at += read as u64;
    }
}

/// Removes what earlier starts have cut off the logs of a shard and kept aside. Returns how many files that were.
///
/// # Errors
/// [`Error::Io`].
pub fn discard_cut<D: Disk>(disk: &D, directory: &Path) -> Result<usize, Error> {
    let names = disk.list(directory).map_err(Error::io("list", directory))?;
    let kept = names.iter().filter(|name| name.ends_with(CUT_SUFFIX)).map(|name| directory.join(name));
    let mut count = 0;
    for path in kept {
        disk.remove_file(&path).map_err(Error::io("remove", &path))?;
        count += 1;
    }
    if count > 0 {
        sync_directory(disk, directory)?;
    }
    Ok(count)
}

/// Writes the frames after `proven_seq` once more, as they are. If a sync of them failed before the last
/// process died, the system still shows them but may have given up writing them; only then would a sync
/// prove nothing.
fn write_again<F: DiskFile>(file: &F, segment: &Segment<F>, proven_seq: u64) -> Result<(), Error> {
    let mut reader = FrameReader::new(file.clone(), &segment.path, 0)?;
    let header = reader.peek(FILE_HEADER_BYTES)?;
    file.write_all_at(header, 0).map_err(Error::io("write", &segment.path))?;
    reader.skip(FILE_HEADER_BYTES);
    for seq in segment.first_seq..=segment.last_seq {
        let offset = reader.offset();
        match reader.next(segment.generation, seq)? {
            Ok(frame) if seq > proven_seq => {
                file.write_all_at(frame.bytes, offset).map_err(Error::io("write", &segment.path))?;
            }
            Ok(_) => {}
            Err(fault) => {
                let path = segment.path.clone();
                return Err(Error::DamagedFrame {
                    path,
                    offset,
                    seq,
                    fault,
                    proof: Proof::Written(segment.last_seq),
                });
            }
        }
    }
    Ok(())
}
