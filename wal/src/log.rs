//! The log of one shard while it runs: append, flush, rotate, sync, snapshot.
//!
//! It owns the segments from the snapshot's position on. It never reads them back, and it never syncs by
//! itself: its owner decides when, and where the waiting is done.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::frame::{self, Content, Part};
use crate::header::{
    FILE_HEADER_BYTES, FileHeader, SEGMENT_MAGIC, SEGMENT_SUFFIX, SNAPSHOT_TMP_NAME, STAGED_NAME, numbered,
};
use crate::recovery::{self, Record, Recovered, Replayed};
use crate::segment::{BLOCK_BYTES, Segment};
use crate::snapshot::Snapshot;
use crate::sync::{SyncTicket, sync_directory};
use crate::synced::{Synced, Witness};
use crate::{
    BootId, Disk, DiskFile, Error, FailedSnapshot, Image, Kind, Note, Obsolete, Place, Preparation,
    SnapshotEnd, SnapshotWriter, Spare, Staged, synced,
};

/// A buffer that one huge batch made larger than this is given back after it.
const BUFFER_KEEP_BYTES: usize = 4 << 20;
/// The first segment after a start has this size at most; each that follows a full one is twice as large, up to the
/// size that is asked for. So what an idle log takes of the disk ahead of need is small, whatever that size is.
const FIRST_SEGMENT_BYTES: u64 = 4 << 20;

/// The log of one shard.
#[derive(Debug)]
pub struct Log<D: Disk> {
    disk: D,
    directory: Arc<Path>,
    directory_file: D::File,
    place: Place,
    segment_bytes: u64,
    /// The size of the next segment.
    next_bytes: u64,
    /// See [`Self::fill_segments`].
    fills: bool,
    /// Room for a file header, then the frames that were appended and not yet flushed.
    buffer: Vec<u8>,
    /// Parts of these frames that stand elsewhere, in order.
    parts: Vec<Part>,
    parts_bytes: usize,
    buffered_entries: u64,
    next_seq: u64,
    written_seq: u64,
    durable_seq: u64,
    next_generation: u64,
    current: Option<Current<D::File>>,
    /// Segments that are not written any more, oldest first.
    closed: VecDeque<Segment<D::File>>,
    snapshot: Option<Snapshot>,
    spare: Option<Spare<D>>,
    /// A spare for when there is none, allocated in a hurry.
    reserve: Option<Spare<D>>,
    preparing: Weak<()>,
    /// Held by every image.
    images: Weak<()>,
    /// The names of segments up to this generation are on disk.
    named_generation: u64,
    sync_failures: u64,
    /// After a failed sync: only a snapshot at this position or later makes the log durable again.
    distrusted_before: Option<u64>,
    wrote_since_open: bool,
    settled_seq: u64,
    /// What is known of the log beside it, as it was written last.
    synced: Synced,
    synced_writer: synced::Writer,
    /// The last frame that was written, if there is one in the log.
    last_written: Option<Witness>,
    /// What becomes the witness once it is settled.
    next_witness: Option<Witness>,
    /// The run of the machine from which on nothing can be missing of what was written.
    boot: Option<BootId>,
}

#[derive(Debug)]
struct Current<F> {
    segment: Segment<F>,
    file: F,
    offset: u64,
    /// A write failed: what stands behind `offset` is unknown.
    broken: bool,
    /// Its room was only allocated: what is not used of it is given back when the segment ends before it is full.
    is_sparse: bool,
}

impl<D: Disk> Log<D> {
    /// The note beside this log.
    pub fn note(&self) -> Note<D> {
        Note::new(&self.disk, &self.directory, self.place)
    }

    /// Replays the snapshot and the log in `directory` in order, then opens the log for appending.
    ///
    /// As [`replay`](crate::replay) and then [`Log::open`], for one whose opening depends on no other log.
    ///
    /// # Errors
    /// As there.
    pub fn recover<E: From<Error>>(
        disk: &D,
        directory: &Path,
        place: Place,
        segment_bytes: u64,
        on_record: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(Log<D>, Recovered), E> {
        let replayed = recovery::replay(disk, directory, place, on_record)?;
        let recovered = replayed.recovered.clone();
        Ok((Log::open(replayed, segment_bytes)?, recovered))
    }

    /// Opens a log that was read back for appending: a torn end is cut, what a crash left behind is removed, and all
    /// that was replayed is made durable. `segment_bytes` is the size of new segments, once some are full. Blocks.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(replayed: Replayed<D>, segment_bytes: u64) -> Result<Log<D>, Error> {
        recovery::settle(&replayed)?;
        let Replayed { disk, directory, place, recovered, .. } = replayed;
        let directory_file = disk.open_dir(&directory).map_err(Error::io("open", &directory))?;
        let last_seq = recovered.next_seq - 1;
        let mut log = Log {
            disk,
            directory: directory.into(),
            directory_file,
            place,
            segment_bytes,
            next_bytes: segment_bytes.min(FIRST_SEGMENT_BYTES),
            fills: false,
            buffer: vec![0; FILE_HEADER_BYTES],
            parts: Vec::new(),
            parts_bytes: 0,
            buffered_entries: 0,
            next_seq: last_seq + 1,
            written_seq: last_seq,
            durable_seq: last_seq,
            next_generation: replayed.newest_generation + 1,
            current: None,
            closed: replayed.segments.into(),
            snapshot: replayed.snapshot,
            spare: None,
            reserve: None,
            preparing: Weak::new(),
            images: Weak::new(),
            named_generation: replayed.newest_generation,
            sync_failures: 0,
            distrusted_before: None,
            wrote_since_open: false,
            settled_seq: recovered.settled_seq,
            synced: replayed.synced,
            synced_writer: synced::Writer::new(recovered.lacking_synced.as_deref()),
            last_written: replayed.last_frame,
            next_witness: replayed.last_frame,
            boot: replayed.synced.boot,
        };
        log.synced = Synced { stamp: log.synced.stamp + 1, ..log.progress() };
        let _ = log.synced_writer.write(&log.disk, &log.directory, place, &log.synced);
        Ok(log)
    }

    /// Adds a frame with `entries` changes to the buffer and returns its sequence number. No I/O.
    ///
    /// # Panics
    /// When the body is larger than [`FRAME_BODY_BYTES_MAX`](crate::FRAME_BODY_BYTES_MAX), or a transaction
    /// has more than 65,535 participants.
    pub fn append(&mut self, kind: Kind<'_>, entries: u32, payload: &[u8]) -> u64 {
        self.put(Content::Payload(kind), entries, payload, &[])
    }

    /// As [`Self::append`], for a payload of which some parts stand elsewhere: each with the offset in `payload` at
    /// which it belongs, in order. They are not copied, and must not be empty.
    ///
    /// # Panics
    /// As [`Self::append`].
    pub fn append_parts(
        &mut self,
        kind: Kind<'_>,
        entries: u32,
        payload: &[u8],
        parts: &[(usize, Bytes)],
    ) -> u64 {
        self.put(Content::Payload(kind), entries, payload, parts)
    }

    /// Begins to write the end of a payload of which `before_bytes` bytes stand before it. Frames are appended and
    /// written meanwhile.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn stage(&self, before_bytes: usize, part: Bytes) -> Result<Staged<D>, Error> {
        Staged::begin(&self.disk, &self.directory, self.segment_bytes, before_bytes, part)
    }

    /// Adds a frame with `entries` changes whose payload ends with a part that was staged, `payload` standing before
    /// it. It is handed to the system at once where no other frame is waiting; where it cannot be, it waits for
    /// [`Self::flush`] as all frames do, and the file is to be [given up](Self::give_up_staged). Returns whether the
    /// file is a part of the log now.
    ///
    /// # Panics
    /// As [`Self::append`].
    pub fn append_staged(&mut self, staged: Staged<D>, entries: u32, payload: &[u8]) -> bool {
        let fits = staged.is_complete() && payload.len() == staged.before_bytes && self.buffered_bytes() == 0;
        self.append_parts(Kind::Batch, entries, payload, &[(payload.len(), staged.part.clone())]);
        // What went wrong is found again by the next flush, which does not need the file.
        fits && self.flush_staged(staged).is_ok()
    }

    /// Work that removes the file of a staged part that is not used. Nothing is to be staged before it is done.
    pub fn give_up_staged(&self) -> Obsolete<D> {
        self.give_up(STAGED_NAME)
    }

    fn give_up(&self, name: &str) -> Obsolete<D> {
        let files = vec![self.directory.join(name)];
        Obsolete { disk: self.disk.clone(), notes: Vec::new(), files, recycled: None, images: Weak::new() }
    }

    fn flush_staged(&mut self, staged: Staged<D>) -> Result<(), Error> {
        let generation = self.next_generation;
        self.next_generation += 1;
        self.put_file_header(generation);
        let crc = frame::seal_staged(
            &mut self.buffer,
            FILE_HEADER_BYTES,
            &staged.crc,
            generation,
            self.durable_seq,
        );
        staged.file.write_all_at(&self.buffer, 0).map_err(Error::io("write", &staged.path))?;
        let path = numbered(&self.directory, generation, SEGMENT_SUFFIX);
        // Whole before it has the name of a segment.
        self.disk.rename(&staged.path, &path).map_err(Error::io("rename", &staged.path))?;
        let segment = self.empty_segment(generation, path, staged.file_bytes);
        self.close_current();
        self.current =
            Some(Current { segment, file: staged.file, offset: 0, broken: false, is_sparse: true });
        self.note_written((self.buffer.len() + self.parts_bytes) as u64, crc);
        Ok(())
    }

    /// Hands all buffered frames to the system, in one write, and returns the last sequence number written.
    ///
    /// # Errors
    /// [`Error::Io`]: the frames stay in the buffer, and the next call writes them to a fresh segment.
    /// Until that succeeds none of them may be acknowledged.
    pub fn flush(&mut self) -> Result<u64, Error> {
        let frames_bytes = self.buffered_bytes();
        if frames_bytes == 0 {
            return Ok(self.written_seq);
        }
        let fits = self.current.as_ref().is_some_and(|current| {
            !current.broken && current.offset + frames_bytes as u64 <= current.segment.file_bytes
        });
        if !fits {
            let is_full = self.current.as_ref().is_some_and(|current| !current.broken);
            let next = self.open_segment(frames_bytes)?;
            if is_full {
                self.next_bytes = self.segment_bytes.min(2 * self.next_bytes);
            }
            self.close_current();
            self.current = Some(next);
        }
        let current = self.current.as_mut().expect("a segment was opened above");
        let (generation, synced_seq) = (current.segment.generation, self.durable_seq);
        let mut last_crc = 0;
        let each_crc = |crc| last_crc = crc;
        frame::seal(&mut self.buffer, FILE_HEADER_BYTES, &self.parts, generation, synced_seq, each_crc);
        let (from, at) = if fits { (FILE_HEADER_BYTES, current.offset) } else { (0, 0) };
        let written = if self.parts.is_empty() {
            current.file.write_all_at(&self.buffer[from..], at)
        } else {
            let pieces = frame::pieces(&self.buffer, from, &self.parts);
            current.file.write_pieces_at(&mut pieces.map(IoSlice::new).collect::<Vec<_>>(), at)
        };
        if let Err(error) = written {
            current.broken = true;
            return Err(Error::io("write", &current.segment.path)(error));
        }
        self.note_written(at + (self.buffer.len() - from + self.parts_bytes) as u64, last_crc);
        Ok(self.written_seq)
    }

    /// All buffered frames are written to the current segment, up to this offset; the last one has this checksum.
    #[inline]
    fn note_written(&mut self, offset: u64, last_crc: u32) {
        let frames_bytes = self.buffered_bytes() as u64;
        let current = self.current.as_mut().expect("it was written to");
        current.offset = offset;
        current.segment.bytes += frames_bytes;
        current.segment.entries += self.buffered_entries;
        current.segment.last_seq = self.next_seq - 1;
        self.buffer.truncate(FILE_HEADER_BYTES);
        self.buffer.shrink_to(BUFFER_KEEP_BYTES);
        if self.parts_bytes > 0 {
            self.parts.clear();
            self.parts_bytes = 0;
        }
        self.buffered_entries = 0;
        self.written_seq = self.next_seq - 1;
        self.last_written = Some(Witness { seq: self.written_seq, crc: last_crc });
        self.wrote_since_open = true;
    }

    /// Bytes that wait for [`Self::flush`].
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len() - FILE_HEADER_BYTES + self.parts_bytes
    }

    /// The frames that wait for [`Self::flush`], oldest first: the sequence number and the payload of each.
    pub fn buffered(&self) -> impl Iterator<Item = (u64, Cow<'_, [u8]>)> {
        frame::payloads(&self.buffer, FILE_HEADER_BYTES, &self.parts)
    }

    /// How many bytes of frames have a place on disk already: in the current segment, or in the next one.
    pub fn room_bytes(&self) -> u64 {
        let current = self.current.as_ref().filter(|current| !current.broken);
        let left = current.map_or(0, |current| current.segment.file_bytes - current.offset);
        let spares = self.spare.iter().chain(&self.reserve).map(|spare| spare.file_bytes);
        left.max(spares.max().unwrap_or(0))
    }

    /// From now on every segment is filled before frames are written to it, so that their syncs change no metadata: for
    /// an owner whose answers wait for syncs. Where no spare is ready a segment is small then, and one that a large
    /// frame has for itself is filled by that frame. What is staged is written once all the same, and what follows it
    /// in its segment goes into room that was only allocated.
    pub fn fill_segments(&mut self) {
        self.fills = true;
        for segment in &mut self.closed {
            segment.file_bytes = 0; // How much of it is filled is not known: it is not recycled.
        }
    }

    /// Makes the next segment, unless there is one: for an owner that wants to know before the current one is full
    /// whether there will be another. Blocks as long as a rotation without a spare does, which is not long.
    ///
    /// # Errors
    /// [`Error::Io`]; it can be repeated.
    pub fn reserve(&mut self) -> Result<(), Error> {
        if self.spare.is_none() && self.reserve.is_none() {
            let file_bytes =
                if self.fills { self.next_bytes.min(FIRST_SEGMENT_BYTES) } else { self.next_bytes };
            self.reserve = Some(Spare::reserve(&self.disk, &self.directory, file_bytes, self.fills)?);
        }
        Ok(())
    }

    /// The sequence number of the next frame.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Frames up to this sequence number survive a crash of the process.
    pub fn written_seq(&self) -> u64 {
        self.written_seq
    }

    /// Frames up to this sequence number survive a power cut.
    pub fn durable_seq(&self) -> u64 {
        self.durable_seq
    }

    /// What has to be synced to make all written frames durable; `None` when they are, or when a sync has
    /// failed and only a snapshot helps ([`Self::needs_snapshot`]).
    ///
    /// Frames may be appended and flushed meanwhile. Sync one ticket after the other: of two syncs side by side the
    /// system tells one that it could not write, and the other that all is well.
    pub fn begin_sync(&self) -> Option<SyncTicket<D>> {
        if self.durable_seq == self.written_seq || self.needs_snapshot() {
            return None;
        }
        Some(self.ticket(self.durable_seq + 1))
    }

    /// Notes that the ticket's files are synced. Returns [`Self::durable_seq`].
    pub fn finish_sync(&mut self, ticket: &SyncTicket<D>) -> u64 {
        // After a failure the system may report success for what it has thrown away.
        if ticket.sync_failures == self.sync_failures {
            self.named_generation = self.named_generation.max(ticket.covers_generation);
            self.advance_durable(ticket.covers_seq);
            if ticket.directory.is_some() {
                self.note_synced();
            }
        }
        self.durable_seq
    }

    /// Notes that syncing one of a ticket's files failed. The frames that were not durable may be lost on
    /// disk, whatever later syncs say: writing goes on in a fresh segment, and [`Self::durable_seq`] stands
    /// still until a snapshot that is begun from now on is retired into the log.
    ///
    /// That holds for a ticket of long ago too: the system tells of a failure once, and what its files hold by now
    /// may be other frames, of a segment that was recycled, which no later sync would bring to disk.
    pub fn fail_sync(&mut self) {
        self.sync_failures += 1;
        self.close_current();
        self.distrusted_before = Some(self.written_seq + 1);
        self.note_synced();
    }

    /// Whether a sync has failed, so that only a new snapshot makes the log durable again.
    pub fn needs_snapshot(&self) -> bool {
        self.distrusted_before.is_some()
    }

    /// Flushes and syncs. Blocks.
    ///
    /// # Errors
    /// [`Error::Io`]; after a failed sync as [`Self::fail_sync`]. [`Error::SyncFailedBefore`] from then on.
    pub fn sync(&mut self) -> Result<u64, Error> {
        self.flush()?;
        if self.needs_snapshot() {
            return Err(Error::SyncFailedBefore { directory: self.directory.to_path_buf() });
        }
        if let Some(ticket) = self.begin_sync() {
            if let Err(error) = ticket.run() {
                self.fail_sync();
                return Err(error);
            }
            self.finish_sync(&ticket);
        }
        Ok(self.durable_seq)
    }

    /// Flushes, syncs and writes a closing mark, which lets the next recovery tell a damaged end of the log
    /// from a torn one. Blocks. A log that is dropped without it is in order too.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub fn close(mut self) -> Result<(), Error> {
        let _ = self.disk.expect_lock(); // Where it is another's by now, nothing is noted there.
        self.sync()?;
        if self.wrote_since_open {
            self.put(Content::Mark, 0, &[], &[]);
            self.sync()?;
            self.note_synced();
        }
        Ok(())
    }

    /// Work that makes the next segment ready, when none is ready or being made. Without it a rotation
    /// allocates a segment itself, which is quick, but the syncs in it are slower.
    pub fn prepare(&mut self) -> Option<Preparation<D>> {
        let turn = self.spare_turn()?;
        Some(Preparation::new(self.disk.clone(), &self.directory, self.next_bytes, turn))
    }

    /// Takes a file that was prepared or recycled for the next rotation.
    pub fn adopt(&mut self, spare: Spare<D>) {
        self.spare = Some(spare);
    }

    /// Begins a snapshot: every frame up to now will be obsolete when it is done.
    ///
    /// Add the whole state to it while the log goes on; an entry may show any state between now and
    /// [`Self::end_snapshot`]. One at a time: a second one takes the first one's temporary name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin_snapshot(&mut self) -> Result<SnapshotWriter<D>, Error> {
        self.flush()?;
        self.close_current();
        let generation = self.next_generation;
        self.next_generation += 1;
        let (position, failures) = (self.next_seq, Some(self.sync_failures));
        SnapshotWriter::begin(&self.disk, &self.directory, self.place, position, generation, failures)
    }

    /// Ends a snapshot after its last entry was taken and before a later frame is appended. It may be finished
    /// once [`Self::cover`] allows it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::SnapshotOvertaken`] when a sync failed meanwhile.
    pub fn end_snapshot(&mut self, writer: SnapshotWriter<D>) -> Result<SnapshotEnd<D>, Error> {
        self.flush()?;
        self.overtaken(&writer)?;
        // After a failed sync no frame is synced but by the snapshot itself.
        let ticket = self.needs_snapshot().then(|| self.ticket(writer.position()));
        Ok(writer.end(self.next_seq, ticket))
    }

    /// Whether the frames are on disk whose effects the snapshot may show, so that it can be finished; if not, they
    /// have to be synced first as all frames are, from [`Self::begin_sync`] to [`Self::finish_sync`]. A sync of its
    /// own, beside that one, would prove nothing: the system tells one of both that it could not write.
    ///
    /// # Errors
    /// [`Error::SnapshotOvertaken`] when a sync failed meanwhile.
    pub fn cover(&self, ending: &mut SnapshotEnd<D>) -> Result<bool, Error> {
        self.overtaken(&ending.writer)?;
        ending.is_covered = self.needs_snapshot() || self.durable_seq + 1 >= ending.log_end;
        Ok(ending.is_covered)
    }

    /// Ends a snapshot as [`Self::end_snapshot`] does, and finishes it. Blocks.
    ///
    /// # Errors
    /// As [`Self::end_snapshot`] and [`Self::sync`], or [`Error::Io`]: the log goes on without this snapshot.
    pub fn finish_snapshot(&mut self, writer: SnapshotWriter<D>) -> Result<Snapshot, Error> {
        let mut ending = self.end_snapshot(writer)?;
        if !self.needs_snapshot() {
            self.sync()?;
        }
        self.cover(&mut ending)?;
        ending.finish().map_err(|failed| self.fail_snapshot(failed))
    }

    fn overtaken(&self, writer: &SnapshotWriter<D>) -> Result<(), Error> {
        match self.distrusted_before {
            Some(seq) if writer.position() < seq => {
                Err(Error::SnapshotOvertaken { path: writer.path().to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Looks whether the data directory is still at its place, as [`Disk::expect_lock`]. Blocks; it may run on any
    /// thread.
    pub fn look_for_place(&self) -> impl FnOnce() + Send + use<D> {
        let disk = self.disk.clone();
        move || drop(disk.expect_lock())
    }

    /// Why no file is made, renamed or removed now: the data directory was found not to be at its place.
    pub fn displaced(&self) -> Option<Error> {
        self.disk.displaced_lock().map(|path| Error::Displaced { path })
    }

    /// Notes that a snapshot could not be completed, and tells why. Its frames count as before, unless
    /// syncing them was what failed: then as after [`Self::fail_sync`].
    pub fn fail_snapshot(&mut self, failed: FailedSnapshot) -> Error {
        if failed.is_sync_failed {
            self.fail_sync();
        }
        failed.error
    }

    /// Work that removes what a snapshot has left that was dropped, or failed, before it had its name. No other one is
    /// to be begun before it is done.
    pub fn give_up_snapshot(&self) -> Obsolete<D> {
        self.give_up(SNAPSHOT_TMP_NAME)
    }

    /// Replaces everything before the snapshot's position by the snapshot; the returned work removes the
    /// files.
    pub fn retire(&mut self, snapshot: &Snapshot) -> Obsolete<D> {
        if self.distrusted_before.is_some_and(|seq| seq <= snapshot.position) {
            self.distrusted_before = None;
        }
        if snapshot.failures == self.sync_failures {
            self.advance_durable(snapshot.log_end - 1);
        }
        let mut files = Vec::new();
        let mut recycled = None;
        while let Some(segment) = self.closed.pop_front_if(|segment| segment.first_seq < snapshot.position) {
            let suits = recycled.is_none() && segment.file_bytes == self.next_bytes;
            match suits.then(|| self.spare_turn()).flatten() {
                Some(turn) => recycled = Some((segment.path, segment.file_bytes, turn)),
                None => files.push(segment.path),
            }
        }
        let before = self.snapshot.replace(snapshot.clone());
        files.extend(before.map(|before| before.path).filter(|path| *path != snapshot.path));
        self.note_synced();
        let notes = synced::paths(&self.directory);
        Obsolete { disk: self.disk.clone(), notes, files, recycled, images: self.images.clone() }
    }

    /// The files of the log as it is now, for a copy of it; buffered frames do not count. After a failed sync they
    /// may lack what was written: see [`Self::needs_snapshot`].
    pub fn image(&mut self) -> Image {
        let hold = self.images.upgrade().unwrap_or_default();
        self.images = Arc::downgrade(&hold);
        Image::new(self.place, self.snapshot.as_ref(), self.segments(), self.written_seq + 1, hold)
    }

    /// How many files that are not written any more are open because they are not synced.
    pub fn unsynced_files(&self) -> usize {
        self.closed.iter().rev().take_while(|segment| segment.file.is_some()).count()
    }

    /// Copies the files of the log, of which the frames from `seq` on are to be cut: so they can be put back by hand.
    /// Blocks.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn copy_aside(&self, seq: u64) -> Result<Vec<PathBuf>, Error> {
        let snapshot = self.snapshot.iter().map(|snapshot| &snapshot.path);
        let mut kept = Vec::new();
        for path in snapshot.chain(self.segments().map(|segment| &segment.path)) {
            kept.push(recovery::cut_path(path, seq));
            recovery::copy(&self.disk, path, &kept[kept.len() - 1])?;
        }
        sync_directory(&self.disk, &self.directory)?;
        Ok(kept)
    }

    /// Bytes of the frames that a recovery would replay after the snapshot; buffered ones do not count.
    pub fn size_bytes(&self) -> u64 {
        self.segments().map(|segment| segment.bytes).sum()
    }

    /// Entries in the frames that a recovery would replay after the snapshot; buffered ones do not count.
    pub fn entries(&self) -> u64 {
        self.segments().map(|segment| segment.entries).sum()
    }

    /// The snapshot that recovery would start from.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// Notes that every part of the transactions up to this frame is on disk, on every shard, and so are the frames. A
    /// start may demand them from now on, whatever it finds of other shards.
    pub fn settle(&mut self, seq: u64) {
        assert!(seq <= self.durable_seq, "frame {seq} is not on disk");
        self.settled_seq = self.settled_seq.max(seq);
    }

    /// Writes down beside the log how far it is, if that has changed since it was written last. What cannot be written
    /// down is only not known later. Its owner calls this about as often as what is not known yet may be mistaken for
    /// the torn end of a crash, and not before everything is done that follows from what all logs were found to hold.
    pub fn note_progress(&mut self) {
        self.boot = self.disk.boot();
        let stamp = self.synced.stamp;
        if (Synced { stamp, ..self.progress() }) != self.synced {
            self.note_synced();
        }
    }

    fn note_synced(&mut self) {
        if self.next_witness.is_none_or(|next| next.seq <= self.settled_seq) {
            self.synced.witness = self.next_witness.or(self.synced.witness);
            self.next_witness = self.last_written;
        }
        self.synced = Synced { stamp: self.synced.stamp + 1, ..self.progress() };
        let _ = self.synced_writer.write_at_once(&self.disk, &self.directory, self.place, &self.synced);
    }

    /// What can be known of the log now, but for how often it was noted.
    fn progress(&self) -> Synced {
        let synced_seq = self.durable_seq;
        let newest = self.segments().filter(|segment| segment.first_seq <= synced_seq).last();
        let (generation, first_seq) = newest.map_or((0, 0), |it| (it.generation, it.first_seq));
        Synced {
            header: FileHeader { generation, first_seq, synced_seq },
            stamp: 0,
            written_seq: self.written_seq,
            settled_seq: self.settled_seq,
            snapshot: self.snapshot.as_ref().map_or(0, |snapshot| snapshot.position),
            // After a failed sync the system may forget what it was given.
            boot: self.boot.filter(|_| !self.needs_snapshot()),
            witness: self.synced.witness,
        }
    }

    fn put(&mut self, content: Content<'_>, entries: u32, payload: &[u8], parts: &[Part]) -> u64 {
        let seq = self.next_seq;
        let parts_bytes = parts.iter().map(|(_, part)| part.len()).sum();
        frame::put(&mut self.buffer, seq, content, entries, payload, parts_bytes);
        if parts_bytes > 0 {
            let start = self.buffer.len() - payload.len();
            self.parts.extend(parts.iter().map(|(at, part)| (start + at, part.clone())));
            self.parts_bytes += parts_bytes;
        }
        self.buffered_entries += u64::from(entries);
        self.next_seq += 1;
        seq
    }

    fn segments(&self) -> impl Iterator<Item = &Segment<D::File>> {
        self.closed.iter().chain(self.current.as_ref().map(|current| &current.segment))
    }

    /// The right to make a spare, unless there is one or that right is taken.
    fn spare_turn(&mut self) -> Option<Arc<()>> {
        if self.preparing.strong_count() > 0 {
            return None;
        }
        let turn = Arc::new(());
        self.preparing = Arc::downgrade(&turn);
        Some(turn)
    }

    fn open_segment(&mut self, frames_bytes: usize) -> Result<Current<D::File>, Error> {
        let generation = self.next_generation;
        let path = numbered(&self.directory, generation, SEGMENT_SUFFIX);
        let needed = (FILE_HEADER_BYTES + frames_bytes) as u64;
        // A generation is used once, whatever becomes of the file.
        self.next_generation += 1;
        let fits = |spare: &mut Spare<D>| needed <= spare.file_bytes;
        let spare = self.spare.take_if(fits).or_else(|| self.reserve.take_if(fits));
        let (file, file_bytes) = match spare {
            Some(spare) => {
                self.disk.rename(&spare.path, &path).map_err(Error::io("rename", &spare.path))?;
                (spare.file, spare.file_bytes)
            }
            None => {
                let usual = self.next_bytes.max(needed.next_power_of_two()).min(self.segment_bytes);
                let usual = if self.fills { 0 } else { usual };
                let file_bytes = if needed <= usual { usual } else { needed.next_multiple_of(BLOCK_BYTES) };
                let file = self.disk.create(&path).map_err(Error::io("create", &path))?;
                if let Err(error) = file.allocate(file_bytes) {
                    // An empty file left behind means nothing to recovery; it is removed there at the latest.
                    let _ = self.disk.remove_file(&path);
                    return Err(Error::io("allocate", &path)(error));
                }
                (file, file_bytes)
            }
        };
        self.put_file_header(generation);
        let segment = self.empty_segment(generation, path, file_bytes);
        Ok(Current { segment, file, offset: 0, broken: false, is_sparse: false })
    }

    /// Puts the header of a segment that begins with the buffered frames before them.
    fn put_file_header(&mut self, generation: u64) {
        let header = FileHeader { generation, first_seq: self.written_seq + 1, synced_seq: self.durable_seq };
        self.buffer[..FILE_HEADER_BYTES].copy_from_slice(&header.encode(SEGMENT_MAGIC, self.place));
    }

    /// A segment without frames that follows those that are written.
    fn empty_segment(&self, generation: u64, path: PathBuf, file_bytes: u64) -> Segment<D::File> {
        let (first_seq, last_seq) = (self.written_seq + 1, self.written_seq);
        Segment { generation, path, file: None, first_seq, last_seq, bytes: 0, entries: 0, file_bytes }
    }

    fn close_current(&mut self) {
        let Some(current) = self.current.take() else { return };
        let mut segment = current.segment;
        if segment.last_seq < segment.first_seq {
            // Its first write failed. What it holds is written again elsewhere under a higher generation,
            // which recovery prefers should the file remain.
            let _ = self.disk.remove_file(&segment.path);
            return;
        }
        if current.broken {
            // What stands behind the last good frame is unknown: such a file is never recycled.
            segment.file_bytes = 0;
        } else if current.is_sparse && current.file.truncate(current.offset).is_ok() {
            segment.file_bytes = current.offset;
        }
        segment.file = Some(current.file);
        self.closed.push_back(segment);
    }

    fn ticket(&self, from_seq: u64) -> SyncTicket<D> {
        let closed = self.closed.iter().filter(|segment| segment.last_seq >= from_seq);
        let mut files: Vec<_> = closed.filter_map(|segment| segment.file.clone()).collect();
        let current = self.current.as_ref().filter(|current| current.segment.last_seq >= from_seq);
        files.extend(current.map(|current| current.file.clone()));
        let newest = self.segments().last().map_or(0, |segment| segment.generation);
        SyncTicket {
            files,
            directory: (newest > self.named_generation).then(|| self.directory_file.clone()),
            covers_seq: self.written_seq,
            covers_generation: newest,
            sync_failures: self.sync_failures,
            path: Arc::clone(&self.directory),
        }
    }

    fn advance_durable(&mut self, seq: u64) {
        self.durable_seq = self.durable_seq.max(seq);
        for segment in self.closed.iter_mut().filter(|segment| segment.last_seq <= self.durable_seq) {
            segment.file = None;
        }
    }
}
