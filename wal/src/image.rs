//! Copying a log as it was at one moment, while it goes on.
//!
//! What is copied is what a process that was killed at that moment would leave: the snapshot, and the segments up to
//! the last frame that was written. None of it is changed by the log that goes on, and [`Obsolete`](crate::Obsolete)
//! files wait for their removal until no image needs them. This module never looks at a live log.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::header::{FILE_HEADER_BYTES, FileHeader, SEGMENT_MAGIC, SNAPSHOT_MAGIC, SNAPSHOT_SUFFIX};
use crate::segment::Segment;
use crate::sync::sync_directory;
use crate::synced::Synced;
use crate::{DataDir, Disk, DiskFile, Error, Place, Snapshot, recovery, synced};

/// A file is copied in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;
/// After this many bytes of a file its copy is synced, so that no single sync is long.
const SYNC_BYTES: u64 = 32 << 20;

/// The files from which a log as it was at one moment can be read back.
#[derive(Debug)]
pub struct Image {
    place: Place,
    /// Each with the number of bytes that count.
    files: Vec<(PathBuf, u64)>,
    next_seq: u64,
    /// The generation of the newest segment, and its first frame.
    newest: (u64, u64),
    /// The position of the snapshot; 0 for none.
    snapshot: u64,
    /// Keeps the files from being removed.
    _hold: Arc<()>,
}

impl Image {
    pub(crate) fn new<'a, F: 'a>(
        place: Place,
        snapshot: Option<&Snapshot>,
        segments: impl Iterator<Item = &'a Segment<F>>,
        next_seq: u64,
        hold: Arc<()>,
    ) -> Image {
        let mut files: Vec<_> = snapshot.map(|it| (it.path.clone(), it.bytes)).into_iter().collect();
        let (mut newest, position) = ((0, 0), snapshot.map_or(0, |it| it.position));
        for segment in segments.filter(|segment| segment.last_seq >= segment.first_seq) {
            files.push((segment.path.clone(), FILE_HEADER_BYTES as u64 + segment.bytes));
            newest = (segment.generation, segment.first_seq);
        }
        Image { place, files, next_seq, newest, snapshot: position, _hold: hold }
    }

    /// How many bytes [`copy_images`] copies of it.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Copies and syncs all of it. The copies state the place that they get.
    fn copy<E: From<Error>>(
        &self,
        source: &impl Disk,
        target: &impl Disk,
        directory: &Path,
        place: Place,
        on_piece: &mut impl FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer = vec![0; PIECE_BYTES];
        for (from_path, bytes) in &self.files {
            let to_path = directory.join(from_path.file_name().expect("a file of the log has a name"));
            let from = source.open(from_path).map_err(Error::io("open", from_path))?;
            let to = target.create(&to_path).map_err(Error::io("create", &to_path))?;
            let magic = if from_path.extension() == Some(OsStr::new(&SNAPSHOT_SUFFIX[1..])) {
                SNAPSHOT_MAGIC
            } else {
                SEGMENT_MAGIC
            };
            let (mut done, mut unsynced) = (0, 0);
            while done < *bytes {
                let piece = PIECE_BYTES.min((bytes - done) as usize);
                let read = from.read_at(&mut buffer[..piece], done).map_err(Error::io("read", from_path))?;
                if read == 0 {
                    break; // What is missing is found when the copy is read back.
                }
                if let (0, Some(header)) =
                    (done, FileHeader::decode(&buffer[..read], magic, self.place, from_path)?)
                {
                    buffer[..FILE_HEADER_BYTES].copy_from_slice(&header.encode(magic, place));
                }
                to.write_all_at(&buffer[..read], done).map_err(Error::io("write", &to_path))?;
                done += read as u64;
                unsynced += read as u64;
                if unsynced >= SYNC_BYTES || done == *bytes {
                    to.sync_data().map_err(Error::io("sync", &to_path))?;
                    unsynced = 0;
                }
                on_piece(read as u64)?;
            }
        }
        sync_directory(target, directory)?;
        Ok(())
    }

    /// Reads a copy back and demands all frames of it.
    fn verify<D: Disk>(&self, disk: &D, directory: &Path, place: Place) -> Result<(), Error> {
        let found = recovery::check(disk, directory, place, |_| Ok::<(), Error>(()))?;
        if found.next_seq == self.next_seq && found.cut.is_none() {
            return Ok(());
        }
        let (expected, found) = (self.next_seq - 1, found.next_seq - 1);
        Err(Error::IncompleteCopy { directory: directory.to_owned(), expected, found })
    }
}

/// Makes a data directory on the disk `target` out of the images of all shards, in order, whose files are on `source`:
/// `path` is created, or empty. Its layout gets this tag, which is to be random: what goes on from the copy is told
/// from what goes on from the original. It counts as one, durably, only when this returns; before that nothing opens
/// it.
/// `on_piece` is told the bytes of every piece, and can end it. Blocks for as long as it takes.
///
/// # Errors
/// Those of [`DataDir::begin`]; [`Error::Io`]; damage of the files, which were read back; what `on_piece` returned.
/// Then what there is of the copy is for the caller to remove.
pub fn copy_images<D: Disk, E: From<Error>>(
    source: &impl Disk,
    target: &D,
    images: Vec<Image>,
    path: &Path,
    tag: u32,
    mut on_piece: impl FnMut(u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut directory = DataDir::begin(target.clone(), path, std::time::Duration::ZERO)?;
    let layout = directory.create_layout(images.len() as u32, tag)?;
    for image in images {
        let shard_index = image.place.shard_index;
        let (shard_dir, place) = (layout.shard_dir(shard_index), layout.place(shard_index));
        image.copy(source, target, &shard_dir, place, &mut on_piece)?;
        image.verify(target, &shard_dir, place)?;
        let ((generation, first_seq), seq) = (image.newest, image.next_seq - 1);
        let header = FileHeader { generation, first_seq, synced_seq: seq };
        let snapshot = image.snapshot;
        let known =
            Synced { header, stamp: 1, written_seq: seq, settled_seq: seq, snapshot, ..Synced::default() };
        synced::Writer::default()
            .write(target, &shard_dir, place, &known)
            .map_err(Error::io("write", &shard_dir))?;
    }
    directory.activate(layout)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Duration;

    use super::*;
    use crate::{Kind, Log, MemDisk, Obsolete};

    const SHARDS: u32 = 2;
    const SEGMENT_BYTES: u64 = 4096;

    const TAG: u32 = 7;
    const COPY_TAG: u32 = 8;

    fn place(shard_index: u32) -> Place {
        Place { shard_index, shard_count: SHARDS, tag: TAG }
    }

    fn open(disk: &MemDisk, path: &str) -> Result<DataDir<MemDisk>, Error> {
        DataDir::open(disk.clone(), Path::new(path), Duration::ZERO)
    }

    fn append(log: &mut Log<MemDisk>, frames: usize) {
        for _ in 0..frames {
            log.append(Kind::Batch, 1, &log.next_seq().to_le_bytes().repeat(20));
            log.flush().unwrap();
        }
    }

    fn replace(log: &mut Log<MemDisk>) -> Obsolete<MemDisk> {
        let mut writer = log.begin_snapshot().unwrap();
        writer.append(Kind::Batch, 1, b"snapshot").unwrap();
        let snapshot = log.finish_snapshot(writer).unwrap();
        log.retire(&snapshot)
    }

    /// What a log replays: sequence numbers, 0 for frames of the snapshot, and payloads.
    type Frames = Vec<(u64, Vec<u8>)>;

    fn replayed(disk: &MemDisk, layout: &crate::Layout, shard_index: u32) -> Frames {
        let mut found = Vec::new();
        let directory = layout.shard_dir(shard_index);
        let checked = recovery::check(disk, &directory, layout.place(shard_index), |record| {
            found.push((if record.in_snapshot { 0 } else { record.seq }, record.payload.to_vec()));
            Ok::<(), Error>(())
        });
        assert_eq!(checked.unwrap().cut, None);
        found
    }

    /// Two logs with snapshots and several segments: the data directory, and what it replays.
    fn filled() -> (MemDisk, Vec<Frames>) {
        let disk = MemDisk::default();
        let mut data = open(&disk, "/data").unwrap();
        let layout = data.create_layout(SHARDS, TAG).unwrap();
        for shard_index in 0..SHARDS {
            let directory = layout.shard_dir(shard_index);
            let recovered =
                Log::recover::<Error>(&disk, &directory, place(shard_index), SEGMENT_BYTES, |_| Ok(()));
            let (mut log, _) = recovered.unwrap();
            append(&mut log, 30);
            replace(&mut log).clear().unwrap();
            append(&mut log, 50 + shard_index as usize);
        }
        data.activate(layout.clone()).unwrap();
        let found = (0..SHARDS).map(|shard_index| replayed(&disk, &layout, shard_index)).collect();
        (disk, found)
    }

    /// Takes images of both logs, which then go on, and even get another snapshot.
    fn images_of_what_goes_on(disk: &MemDisk) -> (Vec<Image>, Vec<Obsolete<MemDisk>>) {
        let layout = open(disk, "/data").unwrap().layout().unwrap().clone();
        let take = |shard_index| {
            let directory = layout.shard_dir(shard_index);
            let recovered =
                Log::recover::<Error>(disk, &directory, place(shard_index), SEGMENT_BYTES, |_| Ok(()));
            let (mut log, _) = recovered.unwrap();
            append(&mut log, 1);
            let image = log.image();
            append(&mut log, 40);
            let obsolete = replace(&mut log);
            assert!(obsolete.is_needed(), "the image needs the files");
            append(&mut log, 10);
            (image, obsolete)
        };
        (0..SHARDS).map(take).unzip()
    }

    #[test]
    fn a_copy_counts_when_it_is_complete_and_not_before_wherever_the_power_is_cut() {
        let (filled, mut expected) = filled();
        for frames in &mut expected {
            let seq = frames[frames.len() - 1].0 + 1;
            frames.push((seq, seq.to_le_bytes().repeat(20)));
        }
        let mut counted = [0, 0];
        for stop in 1.. {
            let disk = filled.fork();
            let (images, _obsolete) = images_of_what_goes_on(&disk);
            let before = disk.operations();
            disk.fail_from(stop, ErrorKind::StorageFull);
            let outcome =
                copy_images::<_, Error>(&disk, &disk, images, Path::new("/copy"), COPY_TAG, |_| Ok(()));
            let finished = disk.operations() - before < stop;
            assert!(outcome.is_ok() || !finished, "{outcome:?}");
            let disk = disk.power_cut(stop);
            let layout = open(&disk, "/copy").ok().and_then(|copy| copy.layout().cloned());
            counted[usize::from(layout.is_some())] += 1;
            match layout {
                Some(layout) => {
                    let found: Vec<_> = (0..SHARDS).map(|shard| replayed(&disk, &layout, shard)).collect();
                    assert!(found == expected, "stop {stop}");
                }
                None => assert!(outcome.is_err(), "stop {stop}: what is complete counts"),
            }
            if finished {
                break;
            }
        }
        assert!(counted.iter().all(|count| *count > 0), "{counted:?}");
    }

    #[test]
    fn obsolete_files_are_needed_as_long_as_there_is_an_image() {
        let (disk, _) = filled();
        let (mut images, obsolete) = images_of_what_goes_on(&disk);
        images.pop();
        let needed: Vec<bool> = obsolete.iter().map(Obsolete::is_needed).collect();
        assert_eq!(needed, [true, false], "each log has its own");
        images.pop();
        assert!(!obsolete[0].is_needed());
    }

    #[test]
    fn a_file_that_lacks_frames_is_found_when_the_copy_is_read_back() {
        let (disk, _) = filled();
        let (images, _obsolete) = images_of_what_goes_on(&disk);
        let (path, bytes) = images[1].files.last().unwrap();
        disk.open(path).unwrap().write_all_at(&[0; 60], bytes - 60).unwrap();
        let expected = images[1].next_seq - 1;
        let error = copy_images::<_, Error>(&disk, &disk, images, Path::new("/copy"), COPY_TAG, |_| Ok(()))
            .unwrap_err();
        assert!(
            matches!(error, Error::IncompleteCopy { expected: e, found, .. } if e == expected && found == e - 1),
            "{error}"
        );
        assert!(open(&disk, "/copy").is_err());
    }

    #[test]
    fn the_caller_that_is_told_of_the_pieces_can_end_it() {
        let (disk, _) = filled();
        let (images, _obsolete) = images_of_what_goes_on(&disk);
        let total: u64 = images.iter().map(Image::bytes).sum();
        let mut told = 0;
        copy_images::<_, Error>(&disk, &disk, images, Path::new("/copy"), COPY_TAG, |bytes| {
            told += bytes;
            Ok(())
        })
        .unwrap();
        assert_eq!(told, total);
        let (images, _obsolete) = images_of_what_goes_on(&disk);
        let path = Path::new("/copy-2");
        let end = |_| Err(Error::Locked { path: path.to_owned() });
        assert!(matches!(copy_images(&disk, &disk, images, path, COPY_TAG, end), Err(Error::Locked { .. })));
    }
}
