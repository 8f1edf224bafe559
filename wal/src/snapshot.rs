//! Snapshots: writing one beside the running log, and reading one back.
//!
//! A snapshot does not exist before it has its name, and it gets its name only when it and the frames whose
//! effects it may show are on disk. This module never decides which log files a snapshot makes obsolete.

use std::path::{Path, PathBuf};

use crate::frame::{self, Content, Frame, FrameReader};
use crate::header::{
    FILE_HEADER_BYTES, FileHeader, NUMBER_MAX, SNAPSHOT_MAGIC, SNAPSHOT_SUFFIX, SNAPSHOT_TMP_NAME, numbered,
    u32_at, u64_at,
};
use crate::sync::{SyncTicket, sync_directory};
use crate::{Disk, DiskFile, Error, Fault, Kind, Place};

/// Frames are handed to the system in pieces of about this size.
const WRITE_BYTES: usize = 256 << 10;
const TRAILER_BYTES: usize = 28;

/// A snapshot that is being written under a temporary name. Dropping it gives it up; what is left of it is for
/// [`Log::give_up_snapshot`](crate::Log::give_up_snapshot) to remove, or for recovery.
#[derive(Debug)]
pub struct SnapshotWriter<D: Disk> {
    disk: D,
    directory: PathBuf,
    path: PathBuf,
    file: D::File,
    position: u64,
    generation: u64,
    /// The count of sync failures of the log when this was begun; `None` when there is no log.
    failures: Option<u64>,
    buffer: Vec<u8>,
    written: u64,
    frames: u64,
    entries: u64,
    crc: crc32fast::Hasher,
}

/// A snapshot whose last entry was taken; it remains to be synced and named.
#[derive(Debug)]
pub struct SnapshotEnd<D: Disk> {
    pub(crate) writer: SnapshotWriter<D>,
    pub(crate) log_end: u64,
    /// The frames to be synced, when a sync has failed before and no other one brings frames to disk.
    ticket: Option<SyncTicket<D>>,
    /// The frames whose effects it may show are on disk, or `ticket` brings them there.
    pub(crate) is_covered: bool,
}

/// A snapshot that could not be completed. [`Log::fail_snapshot`](crate::Log::fail_snapshot) takes it and
/// tells why: when the frames of the log could not be synced, the log has to know.
#[derive(Debug)]
#[must_use]
pub struct FailedSnapshot {
    pub(crate) error: Error,
    /// The sync of the log's frames is what failed.
    pub(crate) is_sync_failed: bool,
}

/// A snapshot that is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The file.
    pub path: PathBuf,
    /// The log has to be replayed from this sequence number on.
    pub position: u64,
    /// The sequence number that was next in the log when the last entry was taken.
    pub log_end: u64,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Number of frames.
    pub frames: u64,
    /// Number of entries in them.
    pub entries: u64,
    pub(crate) failures: u64,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Begins a snapshot in a fresh shard directory, from which a new log can start: for a new layout.
    /// Ends with [`Self::finish`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(disk: &D, directory: &Path, place: Place) -> Result<SnapshotWriter<D>, Error> {
        SnapshotWriter::begin(disk, directory, place, 1, 1, None)
    }

    pub(crate) fn begin(
        disk: &D,
        directory: &Path,
        place: Place,
        position: u64,
        generation: u64,
        failures: Option<u64>,
    ) -> Result<SnapshotWriter<D>, Error> {
        let path = directory.join(SNAPSHOT_TMP_NAME);
        let file = disk.create(&path).map_err(Error::io("create", &path))?;
        let header = FileHeader { generation, first_seq: position, synced_seq: 0 };
        let mut buffer = Vec::with_capacity(WRITE_BYTES + (WRITE_BYTES >> 2));
        buffer.extend_from_slice(&header.encode(SNAPSHOT_MAGIC, place));
        Ok(SnapshotWriter {
            disk: disk.clone(),
            directory: directory.to_owned(),
            path,
            file,
            position,
            generation,
            failures,
            buffer,
            written: 0,
            frames: 0,
            entries: 0,
            crc: crc32fast::Hasher::new(),
        })
    }

    /// Adds a frame with `entries` changes. Writes to the system's cache when enough has gathered; never
    /// syncs.
    ///
    /// A part of a transaction may be added with an empty payload: it tells recovery that this shard has
    /// its part.
    ///
    /// # Errors
    /// [`Error::Io`]; then the snapshot has to be given up.
    ///
    /// # Panics
    /// When the frame is larger than [`FRAME_BODY_BYTES_MAX`](crate::FRAME_BODY_BYTES_MAX).
    pub fn append(&mut self, kind: Kind<'_>, entries: u32, payload: &[u8]) -> Result<(), Error> {
        self.entries += u64::from(entries);
        self.put(Content::Payload(kind), entries, payload);
        if self.buffer.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    /// The bytes that were added so far, with headers.
    pub fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// The file, so that its owner can sync it now and then and spare [`SnapshotEnd::finish`] one long sync.
    pub fn file(&self) -> &D::File {
        &self.file
    }

    /// Ends a snapshot that has no log beside it: syncs and names it. Blocks.
    ///
    /// # Errors
    /// [`Error::Io`]; then the snapshot does not exist.
    ///
    /// # Panics
    /// When a log began this snapshot: then [`Log::end_snapshot`](crate::Log::end_snapshot) ends it.
    pub fn finish(self) -> Result<Snapshot, Error> {
        assert!(self.failures.is_none(), "a snapshot beside a log ends with Log::end_snapshot");
        let log_end = self.position;
        let ending = SnapshotEnd { is_covered: true, ..self.end(log_end, None) };
        ending.finish().map_err(|failed| failed.error)
    }

    pub(crate) fn end(self, log_end: u64, ticket: Option<SyncTicket<D>>) -> SnapshotEnd<D> {
        SnapshotEnd { writer: self, log_end, ticket, is_covered: false }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn put(&mut self, content: Content<'_>, entries: u32, payload: &[u8]) {
        self.frames += 1;
        let start = self.buffer.len();
        frame::put(&mut self.buffer, self.frames, content, entries, payload, 0);
        let crc = &mut self.crc;
        frame::seal(&mut self.buffer, start, &[], self.generation, 0, |sum| crc.update(&sum.to_le_bytes()));
    }

    fn write(&mut self) -> Result<(), Error> {
        self.file.write_all_at(&self.buffer, self.written).map_err(Error::io("write", &self.path))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(4 * WRITE_BYTES);
        Ok(())
    }

    fn complete(mut self, log_end: u64) -> Result<Snapshot, Error> {
        let (frames, entries) = (self.frames, self.entries);
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..8].copy_from_slice(&frames.to_le_bytes());
        trailer[8..16].copy_from_slice(&entries.to_le_bytes());
        trailer[16..24].copy_from_slice(&log_end.to_le_bytes());
        trailer[24..].copy_from_slice(&self.crc.clone().finalize().to_le_bytes());
        self.put(Content::Trailer, 0, &trailer);
        self.write()?;
        self.file.sync_data().map_err(Error::io("sync", &self.path))?;
        let path = numbered(&self.directory, self.position, SNAPSHOT_SUFFIX);
        self.disk.expect_lock()?;
        self.disk.rename(&self.path, &path).map_err(Error::io("rename", &self.path))?;
        sync_directory(&self.disk, &self.directory)?;
        Ok(Snapshot {
            path,
            position: self.position,
            log_end,
            bytes: self.written,
            frames,
            entries,
            failures: self.failures.unwrap_or(0),
        })
    }
}

impl<D: Disk> SnapshotEnd<D> {
    /// Syncs the snapshot and names it. Blocks for as long as the disk needs; it may run on any thread.
    ///
    /// # Errors
    /// [`FailedSnapshot`]: the log goes on without this snapshot.
    ///
    /// # Panics
    /// Before [`Log::cover`](crate::Log::cover) has allowed it.
    pub fn finish(self) -> Result<Snapshot, FailedSnapshot> {
        let SnapshotEnd { writer, log_end, ticket, is_covered } = self;
        assert!(is_covered, "a snapshot counts only when the frames are on disk whose effects it may show");
        if let Some(ticket) = ticket
            && let Err(error) = ticket.run()
        {
            return Err(FailedSnapshot { error, is_sync_failed: true });
        }
        writer.complete(log_end).map_err(|error| FailedSnapshot { error, is_sync_failed: false })
    }
}

/// A snapshot that is being read back, from its first to its last frame. A frame is handed on before what follows it is
/// looked at: after an error nothing of it counts.
#[derive(Debug)]
pub(crate) struct Reading<F> {
    reader: FrameReader<F>,
    path: PathBuf,
    position: u64,
    generation: u64,
    /// Of the checksums of the frames so far.
    crc: crc32fast::Hasher,
    frames: u64,
    entries: u64,
}

/// What comes next in a snapshot.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    /// A frame, and its offset in the file.
    Frame(Frame<'a>, u64),
    /// The snapshot is whole; nothing comes any more.
    End(Snapshot),
}

impl<F: DiskFile> Reading<F> {
    /// Reads the file's header.
    ///
    /// # Errors
    /// [`Error::DamagedSnapshot`], those of a header, [`Error::Io`].
    pub fn open<D: Disk<File = F>>(
        disk: &D,
        path: &Path,
        position: u64,
        place: Place,
    ) -> Result<Reading<F>, Error> {
        let file = disk.open(path).map_err(Error::io("open", path))?;
        let mut reader = FrameReader::new(file, path, 0)?;
        let header = FileHeader::decode(reader.peek(FILE_HEADER_BYTES)?, SNAPSHOT_MAGIC, place, path)?;
        let header = header.filter(|header| header.first_seq == position && position > 0);
        let header = header.ok_or_else(|| damaged(path, 0, Fault::FileHeader))?;
        reader.skip(FILE_HEADER_BYTES);
        Ok(Reading {
            reader,
            path: path.to_owned(),
            position,
            generation: header.generation,
            crc: crc32fast::Hasher::new(),
            frames: 0,
            entries: 0,
        })
    }

    /// The generation of the file.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The bytes that were read so far.
    pub fn read_bytes(&self) -> u64 {
        self.reader.offset()
    }

    /// The next frame with a payload, or the end.
    ///
    /// # Errors
    /// [`Error::DamagedSnapshot`], [`Error::Io`].
    pub fn next(&mut self) -> Result<Next<'_>, Error> {
        let Reading { reader, path, position, generation, crc, frames, entries } = self;
        let (offset, file_bytes) = (reader.offset(), reader.file_bytes());
        let frame = reader.next(*generation, *frames + 1)?.map_err(|fault| damaged(path, offset, fault))?;
        match frame.content {
            Content::Payload(_) => {
                *frames += 1;
                *entries += u64::from(frame.entries);
                crc.update(&frame.crc.to_le_bytes());
                Ok(Next::Frame(frame, offset))
            }
            Content::Mark => Err(damaged(path, offset, Fault::Kind { found: 2 })),
            Content::Trailer => {
                let trailer = frame.payload.first_chunk::<TRAILER_BYTES>();
                let fits = |trailer: &&[u8; TRAILER_BYTES]| {
                    frame.payload.len() == TRAILER_BYTES
                        && u64_at(*trailer, 0) == *frames
                        && u64_at(*trailer, 8) == *entries
                        && (*position..=NUMBER_MAX).contains(&u64_at(*trailer, 16))
                        && u32_at(*trailer, 24) == crc.clone().finalize()
                };
                let trailer = trailer.filter(fits).ok_or_else(|| damaged(path, offset, Fault::Trailer))?;
                let end = offset + frame.bytes.len() as u64;
                if end != file_bytes {
                    return Err(damaged(path, end, Fault::Surplus));
                }
                Ok(Next::End(Snapshot {
                    path: path.clone(),
                    position: *position,
                    log_end: u64_at(trailer, 16),
                    bytes: file_bytes,
                    frames: *frames,
                    entries: *entries,
                    failures: 0,
                }))
            }
        }
    }

    /// Reads the rest.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn check(mut self) -> Result<Snapshot, Error> {
        loop {
            if let Next::End(snapshot) = self.next()? {
                return Ok(snapshot);
            }
        }
    }
}

fn damaged(path: &Path, offset: u64, fault: Fault) -> Error {
    Error::DamagedSnapshot { path: path.to_owned(), offset, fault }
}
