//! Frames: how one is written into a buffer, sealed, and read back from a file one by one.
//!
//! This module never decides whether a bad frame is a torn end or damage.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::header::{NUMBER_MAX, u16_at, u32_at, u64_at};
use crate::{DiskFile, Error, Fault};

/// The largest body of a frame in bytes: its payload and, for a transaction, its id and participants.
pub const FRAME_BODY_BYTES_MAX: usize = 1 << 31;

pub(crate) const FRAME_HEADER_BYTES: usize = 40;
const READ_BYTES: usize = 256 << 10;
/// A buffer that one huge frame made larger than this is given back after it.
const BUFFER_KEEP_BYTES: usize = 8 << 20;

const BATCH: u8 = 0;
const TRANSACTION: u8 = 1;
const MARK: u8 = 2;
const TRAILER: u8 = 3;

/// What a frame is for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Changes of this shard alone.
    Batch,
    /// This shard's part of a transaction, which counts only if every participant has its part.
    Transaction {
        /// The transaction's id, the same in all parts.
        id: u64,
        /// The indexes of all shards with a part; at most 65,535.
        participants: &'a [u32],
    },
}

/// What a frame is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Payload(Kind<'a>),
    Mark,
    Trailer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub seq: u64,
    pub crc: u32,
    pub entries: u32,
    pub content: Content<'a>,
    pub synced_seq: u64,
    /// The body without a transaction's id and participants.
    pub payload: &'a [u8],
    /// The whole frame as it stands in the file.
    pub bytes: &'a [u8],
}

/// The fixed part of a frame, as it stands in the file; nothing of it is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHeader {
    pub crc: u32,
    pub body_bytes: u32,
    pub seq: u64,
    pub generation: u64,
    pub synced_seq: u64,
    pub entries: u32,
    pub kind: u8,
    pub zero: u8,
    pub participants: u16,
}

impl FrameHeader {
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> FrameHeader {
        FrameHeader {
            crc: u32_at(bytes, 0),
            body_bytes: u32_at(bytes, 4),
            seq: u64_at(bytes, 8),
            generation: u64_at(bytes, 16),
            synced_seq: u64_at(bytes, 24),
            entries: u32_at(bytes, 32),
            kind: bytes[36],
            zero: bytes[37],
            participants: u16_at(bytes, 38),
        }
    }

    /// Whether kind, participants, length and numbers can be those of a frame; the checksum is another matter.
    pub fn is_plausible(&self) -> bool {
        let body_bytes = self.body_bytes as usize;
        let shape = match self.kind {
            TRANSACTION => body_bytes >= transaction_bytes(self.participants),
            BATCH | MARK | TRAILER => self.participants == 0,
            _ => false,
        };
        let numbers = self.seq.max(self.synced_seq) <= NUMBER_MAX;
        shape && numbers && self.zero == 0 && body_bytes <= FRAME_BODY_BYTES_MAX
    }

    pub fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.body_bytes)
    }
}

/// Bytes of a transaction's id and participants.
fn transaction_bytes(participants: u16) -> usize {
    8 + 4 * usize::from(participants)
}

/// A part of a payload that stands elsewhere in memory, and the offset in the buffer of frames at which it belongs. No
/// part is empty.
pub(crate) type Part = (usize, Bytes);

/// Adds a frame to `buffer`, but for the `parts_bytes` bytes of those parts of its payload that stand elsewhere. It
/// becomes good when it is sealed.
///
/// # Panics
/// When the body is larger than [`FRAME_BODY_BYTES_MAX`] or there are more than 65,535 participants.
pub(crate) fn put(
    buffer: &mut Vec<u8>,
    seq: u64,
    content: Content<'_>,
    entries: u32,
    payload: &[u8],
    parts_bytes: usize,
) {
    let (kind, id, participants): (u8, Option<u64>, &[u32]) = match content {
        Content::Payload(Kind::Batch) => (BATCH, None, &[]),
        Content::Payload(Kind::Transaction { id, participants }) => (TRANSACTION, Some(id), participants),
        Content::Mark => (MARK, None, &[]),
        Content::Trailer => (TRAILER, None, &[]),
    };
    let count = u16::try_from(participants.len()).expect("a transaction has at most 65,535 participants");
    let in_buffer = payload.len() + id.map_or(0, |_| transaction_bytes(count));
    let body_bytes = in_buffer + parts_bytes;
    assert!(body_bytes <= FRAME_BODY_BYTES_MAX, "the owner bounds the size of a frame");
    let mut header = [0; FRAME_HEADER_BYTES];
    header[4..8].copy_from_slice(&(body_bytes as u32).to_le_bytes());
    header[8..16].copy_from_slice(&seq.to_le_bytes());
    header[32..36].copy_from_slice(&entries.to_le_bytes());
    header[36] = kind;
    header[38..40].copy_from_slice(&count.to_le_bytes());
    buffer.reserve(FRAME_HEADER_BYTES + in_buffer);
    buffer.extend_from_slice(&header);
    if let Some(id) = id {
        buffer.extend_from_slice(&id.to_le_bytes());
        participants.iter().for_each(|shard| buffer.extend_from_slice(&shard.to_le_bytes()));
    }
    buffer.extend_from_slice(payload);
}

/// Stamps the frames in `buffer` from `start` on, which [`put`] made, with generation, synced sequence number and
/// checksum. A frame that was sealed before may be sealed again.
pub(crate) fn seal(
    buffer: &mut [u8],
    mut start: usize,
    mut parts: &[Part],
    generation: u64,
    synced_seq: u64,
    mut each_crc: impl FnMut(u32),
) {
    while start < buffer.len() {
        stamp(&mut buffer[start..], generation, synced_seq);
        let (end, own_parts) = extent(buffer, start, &mut parts);
        let crc = match own_parts {
            [] => crc32fast::hash(&buffer[start + 4..end]),
            _ => {
                let mut hasher = crc32fast::Hasher::new();
                pieces(&buffer[..end], start + 4, own_parts).for_each(|piece| hasher.update(piece));
                hasher.finalize()
            }
        };
        buffer[start..start + 4].copy_from_slice(&crc.to_le_bytes());
        each_crc(crc);
        start = end;
    }
}

/// Seals the only frame in `buffer`, from `start` on, which ends with a part whose checksum is known. Returns the
/// frame's checksum.
pub(crate) fn seal_staged(
    buffer: &mut [u8],
    start: usize,
    part_crc: &crc32fast::Hasher,
    generation: u64,
    synced_seq: u64,
) -> u32 {
    stamp(&mut buffer[start..], generation, synced_seq);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&buffer[start + 4..]);
    hasher.combine(part_crc);
    let crc = hasher.finalize();
    buffer[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    crc
}

fn stamp(frame: &mut [u8], generation: u64, synced_seq: u64) {
    frame[16..24].copy_from_slice(&generation.to_le_bytes());
    frame[24..32].copy_from_slice(&synced_seq.to_le_bytes());
}

/// Where the frame at `start` ends in the buffer. Its parts are taken from the front of `parts` and returned.
#[inline]
fn extent<'p>(buffer: &[u8], start: usize, parts: &mut &'p [Part]) -> (usize, &'p [Part]) {
    let mut left = u32_at(&buffer[start..], 4) as usize;
    let mut end = start + FRAME_HEADER_BYTES;
    if parts.is_empty() {
        return (end + left, &[]);
    }
    let mut count = 0;
    // The next frame's parts belong behind its header.
    while let Some((at, part)) = parts.get(count).filter(|(at, _)| at - end < left) {
        left -= at - end + part.len();
        end = *at;
        count += 1;
    }
    let (own_parts, others) = parts.split_at(count);
    *parts = others;
    (end + left, own_parts)
}

/// The bytes of `buffer` from `start` on, with `parts` where they belong.
pub(crate) fn pieces<'a>(
    buffer: &'a [u8],
    start: usize,
    parts: &'a [Part],
) -> impl Iterator<Item = &'a [u8]> {
    let mut from = start;
    let last = parts.last().map_or(start, |(at, _)| *at);
    let before_last = parts.iter().flat_map(move |(at, part)| {
        let before = &buffer[from..*at];
        from = *at;
        [before, part]
    });
    before_last.chain([&buffer[last..]]).filter(|piece| !piece.is_empty())
}

/// The sequence numbers and payloads of the frames in `buffer` from `start` on, which [`put`] made.
pub(crate) fn payloads<'a>(
    buffer: &'a [u8],
    mut start: usize,
    mut parts: &'a [Part],
) -> impl Iterator<Item = (u64, Cow<'a, [u8]>)> {
    std::iter::from_fn(move || {
        let header = FrameHeader::decode(buffer.get(start..)?.first_chunk()?);
        let (end, own_parts) = extent(buffer, start, &mut parts);
        let before = if header.kind == TRANSACTION { transaction_bytes(header.participants) } else { 0 };
        let body = start + FRAME_HEADER_BYTES + before;
        start = end;
        let payload = match own_parts {
            [] => Cow::Borrowed(&buffer[body..end]),
            _ => pieces(&buffer[..end], body, own_parts).collect::<Vec<_>>().concat().into(),
        };
        Some((header.seq, payload))
    })
}

/// Reads the frames of one file in order, with a buffer that grows only to the size of a frame that fits the
/// file and has the generation and sequence number that are due.
#[derive(Debug)]
pub(crate) struct FrameReader<F> {
    file: F,
    path: PathBuf,
    file_bytes: u64,
    /// Offset in the file of `buffer[start]`.
    offset: u64,
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    participants: Vec<u32>,
}

impl<F: DiskFile> FrameReader<F> {
    pub fn new(file: F, path: &Path, offset: u64) -> Result<FrameReader<F>, Error> {
        let file_bytes = file.len().map_err(Error::io("measure", path))?;
        Ok(FrameReader {
            file,
            path: path.to_owned(),
            file_bytes,
            offset,
            buffer: Vec::new(),
            start: 0,
            filled: 0,
            participants: Vec::new(),
        })
    }

    /// Offset of the next frame in the file, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The next `count` bytes as they are, or as many as the file has.
    pub fn peek(&mut self, count: usize) -> Result<&[u8], Error> {
        if self.filled - self.start < count {
            self.fill(count)?;
        }
        let available = count.min(self.filled - self.start);
        Ok(&self.buffer[self.start..self.start + available])
    }

    /// All bytes that are in memory: at least `least`, unless the file has fewer.
    fn window(&mut self, least: usize) -> Result<&[u8], Error> {
        self.peek(least)?;
        Ok(&self.buffer[self.start..self.filled])
    }

    /// Steps over bytes that were peeked at.
    pub fn skip(&mut self, count: usize) {
        assert!(count <= self.filled - self.start, "only bytes that were peeked at are skipped");
        self.start += count;
        self.offset += count as u64;
    }

    /// The next frame, if it is good and has this generation and sequence number; otherwise what is there.
    /// After a fault the reader stays where it is.
    pub fn next(&mut self, generation: u64, seq: u64) -> Result<Result<Frame<'_>, Fault>, Error> {
        self.give_back();
        let Some(bytes) = self.peek(FRAME_HEADER_BYTES)?.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(Err(Fault::End));
        };
        if *bytes == [0; FRAME_HEADER_BYTES] {
            return Ok(Err(Fault::Empty));
        }
        let header = FrameHeader::decode(bytes);
        if header.generation != generation {
            return Ok(Err(Fault::Generation { expected: generation, found: header.generation }));
        }
        if header.seq != seq {
            return Ok(Err(Fault::Sequence { expected: seq, found: header.seq }));
        }
        if !header.is_plausible() {
            return Ok(Err(Fault::Kind { found: header.kind }));
        }
        if header.frame_bytes() > self.file_bytes.saturating_sub(self.offset) {
            return Ok(Err(Fault::End));
        }
        let frame_bytes = header.frame_bytes() as usize;
        let frame = self.peek(frame_bytes)?;
        if frame.len() < frame_bytes {
            return Ok(Err(Fault::End));
        }
        let crc = crc32fast::hash(&frame[4..]);
        if crc != header.crc {
            return Ok(Err(Fault::Checksum { expected: crc, found: header.crc }));
        }
        self.skip(frame_bytes);
        let bytes = &self.buffer[self.start - frame_bytes..self.start];
        let (content, payload) = open_body(&header, &bytes[FRAME_HEADER_BYTES..], &mut self.participants);
        let FrameHeader { entries, synced_seq, .. } = header;
        Ok(Ok(Frame { seq, crc, entries, content, synced_seq, payload, bytes }))
    }

    fn give_back(&mut self) {
        if self.buffer.len() > BUFFER_KEEP_BYTES && self.filled - self.start <= READ_BYTES {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.start = 0;
            self.buffer.truncate(READ_BYTES);
            self.buffer.shrink_to_fit();
        }
    }

    fn fill(&mut self, count: usize) -> Result<(), Error> {
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        let rest = usize::try_from(self.file_bytes.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let room = count.max(READ_BYTES).min(rest);
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        while self.filled < count {
            let at = self.offset + self.filled as u64;
            let read = self.file.read_at(&mut self.buffer[self.filled..], at);
            match read.map_err(Error::io("read", &self.path))? {
                0 => break,
                read => self.filled += read,
            }
        }
        Ok(())
    }
}

fn open_body<'a>(header: &FrameHeader, body: &'a [u8], shards: &'a mut Vec<u32>) -> (Content<'a>, &'a [u8]) {
    match header.kind {
        TRANSACTION => {
            let (prefix, payload) = body.split_at(transaction_bytes(header.participants));
            shards.clear();
            shards.extend(prefix[8..].chunks_exact(4).map(|shard| u32_at(shard, 0)));
            let kind = Kind::Transaction { id: u64_at(prefix, 0), participants: shards };
            (Content::Payload(kind), payload)
        }
        MARK => (Content::Mark, body),
        TRAILER => (Content::Trailer, body),
        _ => (Content::Payload(Kind::Batch), body),
    }
}

/// What a search behind the end of the log found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Remains {
    /// Good frames.
    pub frames: u64,
    /// The highest sequence number of which one of them says that it was synced.
    pub synced_seq: u64,
    /// The highest sequence number of them; 0 where there is none.
    pub last_seq: u64,
    /// Where the last of them ends, in bytes from the start of the file.
    pub end: u64,
    /// Where the last byte that is not zero ends.
    pub nonzero_end: u64,
}

/// Searches everything from `offset` on, at every byte, for good frames of this generation with sequence
/// number `seq` or higher.
pub(crate) fn search<F: DiskFile>(
    file: &F,
    path: &Path,
    offset: u64,
    generation: u64,
    seq: u64,
) -> Result<Remains, Error> {
    let mut reader = FrameReader::new(file.clone(), path, offset)?;
    let mut remains = Remains { end: offset, nonzero_end: offset, ..Remains::default() };
    loop {
        let (at, file_bytes) = (reader.offset(), reader.file_bytes());
        let window = reader.window(FRAME_HEADER_BYTES)?;
        let only_zeros = window.iter().fold(0, |all, byte| all | byte) == 0;
        if !only_zeros && let Some(last) = window.iter().rposition(|byte| *byte != 0) {
            remains.nonzero_end = remains.nonzero_end.max(at + last as u64 + 1);
        }
        if window.len() < FRAME_HEADER_BYTES {
            return Ok(remains);
        }
        let behind_last = window.len() - FRAME_HEADER_BYTES + 1;
        // A frame's header is never all zeros.
        let places = if only_zeros { &[] } else { window };
        let candidate = places.windows(FRAME_HEADER_BYTES).enumerate().find_map(|(index, bytes)| {
            let header = candidate(bytes.first_chunk()?, generation, seq)?;
            (header.frame_bytes() <= file_bytes.saturating_sub(at + index as u64)).then_some((index, header))
        });
        let Some((index, header)) = candidate else {
            reader.skip(behind_last);
            continue;
        };
        let (start, buffered) = (at + index as u64, window.len() as u64);
        if !checksum_fits(file, path, start, &header)? {
            reader.skip(index + 1);
            continue;
        }
        remains.frames += 1;
        remains.synced_seq = remains.synced_seq.max(header.synced_seq);
        remains.last_seq = remains.last_seq.max(header.seq);
        remains.end = start + header.frame_bytes();
        remains.nonzero_end = remains.nonzero_end.max(remains.end);
        if remains.end - at <= buffered {
            reader.skip((remains.end - at) as usize);
        } else {
            reader = FrameReader::new(file.clone(), path, remains.end)?;
        }
    }
}

/// Goes on to the next good frame whose offset and header are accepted; returns its header, with the reader
/// before it, or `None` at the end of the file.
pub(crate) fn find<F: DiskFile>(
    reader: &mut FrameReader<F>,
    accept: impl Fn(u64, &FrameHeader) -> bool,
) -> Result<Option<FrameHeader>, Error> {
    loop {
        let (at, file_bytes) = (reader.offset(), reader.file_bytes());
        let window = reader.window(FRAME_HEADER_BYTES)?;
        if window.len() < FRAME_HEADER_BYTES {
            return Ok(None);
        }
        let behind_last = window.len() - FRAME_HEADER_BYTES + 1;
        let only_zeros = window.iter().fold(0, |all, byte| all | byte) == 0;
        let places = if only_zeros { &[] } else { window };
        let candidate = places.windows(FRAME_HEADER_BYTES).enumerate().find_map(|(index, bytes)| {
            let header = FrameHeader::decode(bytes.first_chunk()?);
            let start = at + index as u64;
            let fits = header.is_plausible() && header.frame_bytes() <= file_bytes.saturating_sub(start);
            (fits && header.seq > header.synced_seq && accept(start, &header)).then_some((index, header))
        });
        let Some((index, header)) = candidate else {
            reader.skip(behind_last);
            continue;
        };
        reader.skip(index);
        if checksum_fits(&reader.file, &reader.path, reader.offset, &header)? {
            return Ok(Some(header));
        }
        reader.skip(1);
    }
}

/// The header that these bytes may be. The cheap tests come first: this runs for every byte of a segment's
/// rest.
fn candidate(bytes: &[u8; FRAME_HEADER_BYTES], generation: u64, seq: u64) -> Option<FrameHeader> {
    if u64_at(bytes, 16) != generation || u64_at(bytes, 8) < seq {
        return None;
    }
    let header = FrameHeader::decode(bytes);
    (header.is_plausible() && header.synced_seq < header.seq).then_some(header)
}

fn checksum_fits<F: DiskFile>(
    file: &F,
    path: &Path,
    offset: u64,
    header: &FrameHeader,
) -> Result<bool, Error> {
    let mut crc = crc32fast::Hasher::new();
    let mut piece = vec![0; READ_BYTES.min(header.frame_bytes() as usize)];
    let mut at = offset + 4;
    let end = offset + header.frame_bytes();
    while at < end {
        let count = piece.len().min((end - at) as usize);
        match file.read_at(&mut piece[..count], at).map_err(Error::io("read", path))? {
            0 => return Ok(false),
            read => {
                crc.update(&piece[..read]);
                at += read as u64;
            }
        }
    }
    Ok(crc.finalize() == header.crc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Disk, MemDisk};

    const PATH: &str = "/f";

    fn reader(bytes: &[u8]) -> FrameReader<crate::MemFile> {
        let disk = MemDisk::default();
        disk.damage(Path::new(PATH), bytes);
        FrameReader::new(disk.open(Path::new(PATH)).unwrap(), Path::new(PATH), 0).unwrap()
    }

    fn two_frames() -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, 7, Content::Payload(Kind::Batch), 2, b"abc", 0);
        let kind = Kind::Transaction { id: 0x0908, participants: &[1, 3] };
        put(&mut bytes, 8, Content::Payload(kind), 1, b"xy", 0);
        seal(&mut bytes, 0, &[], 5, 6, |_| ());
        bytes
    }

    #[test]
    fn a_frame_is_the_one_that_is_drawn() {
        let bytes = two_frames();
        let batch = b"\x03\0\0\0\x07\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0abc";
        let transaction = b"\x12\0\0\0\x08\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x01\0\0\0\
            \x01\0\x02\0\x08\x09\0\0\0\0\0\0\x01\0\0\0\x03\0\0\0xy";
        assert_eq!(&bytes[4..43], batch);
        assert_eq!(&bytes[47..], transaction);
        assert_eq!(u32_at(&bytes, 0), 0x5038df66);
        assert_eq!(u32_at(&bytes, 43), 0xae28b922);
    }

    #[test]
    fn parts_that_stand_elsewhere_are_part_of_their_frames() {
        let kind = Kind::Transaction { id: 3, participants: &[0, 1] };
        // Each payload, cut where parts are taken out.
        let payloads: [(Kind<'_>, &[&[u8]]); 4] = [
            (Kind::Batch, &[b"", b"part", b"", b"another", b"between", b"third"]),
            (Kind::Batch, &[b"no part"]),
            (kind, &[b"head", b"part", b"tail"]),
            (Kind::Batch, &[b"", b"part"]),
        ];
        let (mut whole, mut buffer, mut parts) = (Vec::new(), vec![0xee; 9], Vec::new());
        for (seq, (kind, cut)) in payloads.iter().enumerate() {
            let content = Content::Payload(*kind);
            put(&mut whole, seq as u64, content, 1, &cut.concat(), 0);
            let in_buffer: Vec<u8> = cut.iter().step_by(2).flat_map(|piece| piece.to_vec()).collect();
            let elsewhere = || cut.iter().skip(1).step_by(2);
            let parts_bytes = elsewhere().map(|part| part.len()).sum();
            put(&mut buffer, seq as u64, content, 1, &in_buffer, parts_bytes);
            let mut at = buffer.len() - in_buffer.len();
            for (before, part) in cut.iter().step_by(2).zip(elsewhere()) {
                at += before.len();
                parts.push((at, Bytes::from_static(part)));
            }
        }
        seal(&mut whole, 0, &[], 5, 6, |_| ());
        seal(&mut buffer, 9, &parts, 5, 6, |_| ());
        assert_eq!(pieces(&buffer, 9, &parts).collect::<Vec<_>>().concat(), whole);
        assert!(pieces(&buffer, 9, &parts).all(|piece| !piece.is_empty()));
        let read: Vec<_> =
            super::payloads(&buffer, 9, &parts).map(|(seq, it)| (seq, it.into_owned())).collect();
        let expected = payloads.iter().enumerate().map(|(seq, (_, cut))| (seq as u64, cut.concat()));
        assert_eq!(read, expected.collect::<Vec<_>>());
    }

    #[test]
    fn frames_are_read_back_as_they_were_put() {
        let bytes = two_frames();
        let mut reader = reader(&bytes);
        let frame = reader.next(5, 7).unwrap().unwrap();
        assert_eq!(
            (frame.content, frame.entries, frame.payload),
            (Content::Payload(Kind::Batch), 2, &b"abc"[..])
        );
        let frame = reader.next(5, 8).unwrap().unwrap();
        let kind = Kind::Transaction { id: 0x0908, participants: &[1, 3] };
        assert_eq!((frame.content, frame.entries, frame.payload), (Content::Payload(kind), 1, &b"xy"[..]));
        assert_eq!(reader.next(5, 9).unwrap(), Err(Fault::End));
    }

    #[test]
    fn a_frame_of_another_generation_or_place_in_the_sequence_is_not_taken() {
        let mut reader = reader(&two_frames());
        assert_eq!(reader.next(6, 7).unwrap(), Err(Fault::Generation { expected: 6, found: 5 }));
        assert_eq!(reader.next(5, 8).unwrap(), Err(Fault::Sequence { expected: 8, found: 7 }));
        assert!(reader.next(5, 7).unwrap().is_ok(), "a fault moves nothing");
    }

    #[test]
    fn a_flipped_bit_never_gives_another_frame() {
        let good = two_frames();
        for bit in 0..43 * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(reader(&bytes).next(5, 7).unwrap().is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_length_that_the_file_does_not_have_is_not_believed() {
        let mut bytes = two_frames();
        bytes[4..8].copy_from_slice(&(FRAME_BODY_BYTES_MAX as u32).to_le_bytes());
        let mut reader = reader(&bytes);
        assert_eq!(reader.next(5, 7).unwrap(), Err(Fault::End));
        assert!(reader.buffer.len() <= READ_BYTES);
    }

    #[test]
    fn a_huge_frame_is_read_and_its_memory_given_back() {
        let payload = vec![7; 2 * BUFFER_KEEP_BYTES];
        let mut bytes = Vec::new();
        put(&mut bytes, 1, Content::Payload(Kind::Batch), 1, &payload, 0);
        put(&mut bytes, 2, Content::Payload(Kind::Batch), 1, b"small", 0);
        seal(&mut bytes, 0, &[], 1, 0, |_| ());
        let mut reader = reader(&bytes);
        assert_eq!(reader.next(1, 1).unwrap().unwrap().payload, payload);
        assert_eq!(reader.next(1, 2).unwrap().unwrap().payload, b"small");
        assert!(reader.buffer.capacity() <= BUFFER_KEEP_BYTES);
    }

    #[test]
    fn the_search_finds_good_frames_at_any_offset_and_no_stale_ones() {
        let frames = two_frames();
        for shift in [0, 1, 13, 39, 40, 41, READ_BYTES - 20, READ_BYTES + 1] {
            let mut bytes = vec![0; shift];
            bytes.extend_from_slice(&frames);
            bytes.extend_from_slice(&[0; 100]);
            let disk = MemDisk::default();
            disk.damage(Path::new(PATH), &bytes);
            let file = disk.open(Path::new(PATH)).unwrap();
            let remains = search(&file, Path::new(PATH), 0, 5, 8).unwrap();
            assert_eq!((remains.frames, remains.synced_seq), (1, 6), "shift {shift}");
            assert_eq!(remains.end as usize, shift + frames.len(), "shift {shift}");
            assert_eq!(search(&file, Path::new(PATH), 0, 4, 7).unwrap().frames, 0, "shift {shift}");
            assert_eq!(search(&file, Path::new(PATH), 0, 5, 9).unwrap().frames, 0, "shift {shift}");
        }
    }
}
