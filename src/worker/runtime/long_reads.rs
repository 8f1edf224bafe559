//! Reads of very many keys of this worker's shard (`MGET`, `EXISTS`): some keys in each turn, and all as of one moment.
//!
//! That moment is the last one: until then nothing of what was read may change, but for keys that expire. A command
//! that is about to change one of these keys has the read come to its end before it runs: to its last key, or, where
//! too many are left for one turn, to an error. Keys are known by their hash: that two share one ends a read early, at
//! worst. Its client runs no other command meanwhile.

use std::collections::VecDeque;

use ahash::RandomState;
use shard::command::{Flags, Merge, Run};
use shard::{Error, OwnedRequest, Reply, Request};

use super::{Executed, ShardRuntime, give};
use crate::mesh::{Asker, Mesh, RequestId};
use crate::protocol::{self, REQUEST_BYTES_MAX};
use crate::worker::turn::Now;

/// Up to so many keys are read at once: a millisecond.
pub(super) const KEYS_AT_ONCE_MAX: usize = 4096;

/// How many keys a turn reads, and how many bytes of the reply it writes, about. After so many keys it looks.
const KEYS_PER_TURN: usize = 512;
const BYTES_PER_TURN: usize = 256 << 10;
const KEYS_PER_LOOK: usize = 32;

/// The most bytes of a reply: naming a key takes fewer bytes than showing its value.
const REPLY_BYTES_MAX: usize = REQUEST_BYTES_MAX;

/// How many keys, and about how many bytes, all reads together may have left that a command has come to their end: some
/// twenty milliseconds. The others end with an error.
const KEYS_TO_END_MAX: usize = 64 << 10;
const BYTES_TO_END_MAX: usize = 64 << 20;

/// How many hashes the keys that were read are told apart by: so many for each key, and at most.
const HASHES_PER_KEY: usize = 16;
const HASHES_MAX: usize = 1 << 26;

/// Reads that are under way; they take turns. Each client has one at most.
pub(super) type LongReads = VecDeque<LongRead>;

/// A read on its way.
pub(super) struct LongRead {
    asker: Asker,
    request: OwnedRequest,
    /// How many of its keys were read.
    read: usize,
    /// The hashes of those, a bit each.
    seen: Box<[u64]>,
    hasher: RandomState,
    /// The frame that the reply depends on.
    seq: u64,
    /// The reply so far: the sum, or the items.
    sum: i64,
    items: Vec<u8>,
    error: Option<Error>,
}

/// Whether a request reads so many keys that it takes several turns.
#[inline]
pub(in crate::worker) fn is_long_read(request: &Request<'_>) -> bool {
    request.arg_count() > KEYS_AT_ONCE_MAX
        && request.command.has(Flags::READONLY)
        && matches!(request.command.run, Run::Keys(..))
}

impl LongRead {
    fn new(asker: Asker, request: &Request<'_>) -> LongRead {
        let mut items = Vec::new();
        if let Run::Keys(Merge::ByKey) = request.command.run {
            protocol::begin_list(request.arg_count(), asker.dialect, &mut items);
        }
        let hashes = (request.arg_count() * HASHES_PER_KEY).min(HASHES_MAX);
        LongRead {
            asker,
            request: OwnedRequest::new(request),
            read: 0,
            seen: vec![0; hashes.div_ceil(64)].into(),
            hasher: RandomState::new(),
            seq: 0,
            sum: 0,
            items,
            error: None,
        }
    }

    fn left(&self) -> usize {
        self.request.request().arg_count() - self.read
    }

    fn is_over(&self) -> bool {
        self.error.is_some() || self.left() == 0
    }

    /// The place of a key's bit in so many words.
    fn bit(hasher: &RandomState, words: usize, key: &[u8]) -> (usize, u64) {
        let hash = hasher.hash_one(key) as usize % (words * 64);
        (hash / 64, 1 << (hash % 64))
    }

    pub(in crate::worker) fn has_seen(&self, key: &[u8]) -> bool {
        let (word, bit) = LongRead::bit(&self.hasher, self.seen.len(), key);
        self.seen[word] & bit != 0
    }
}

impl ShardRuntime {
    pub(in crate::worker) fn begin_long_read(&mut self, asker: Asker, request: &Request<'_>) {
        self.long_reads.push_back(LongRead::new(asker, request));
    }

    /// Drops a read of this worker's client. Returns whether it was still under way.
    pub(in crate::worker) fn drop_long_read(&mut self, asker: (usize, RequestId)) -> bool {
        let at = self.long_reads.iter().position(|reading| reading.asker.id() == asker);
        at.and_then(|at| self.long_reads.remove(at)).is_some()
    }

    /// Goes on with the first read. Returns whether any is left.
    pub(in crate::worker) fn go_on_long_reads(&mut self, now: Now, mesh: &mut Mesh) -> bool {
        let Some(mut reading) = self.long_reads.pop_front() else { return false };
        let end = (reading.read + KEYS_PER_TURN, reading.items.len() + BYTES_PER_TURN);
        while !reading.is_over() && reading.read < end.0 && reading.items.len() < end.1 {
            self.read_on(&mut reading, now, mesh);
        }
        if reading.is_over() {
            self.answer_long_read(reading, mesh);
        } else {
            self.long_reads.push_back(reading);
        }
        !self.long_reads.is_empty()
    }

    /// Has those reads come to their end that a request would change something of.
    #[inline]
    pub(super) fn settle_long_reads(&mut self, request: &Request<'_>, now: Now, mesh: &mut Mesh) {
        if !self.long_reads.is_empty() && request.command.has(Flags::WRITE) {
            self.settle_long_reads_of(request, now, mesh);
        }
    }

    /// As [`Self::settle_long_reads`], whose keys something else is about to change than the request.
    pub(super) fn settle_changed_reads(&mut self, request: &Request<'_>, now: Now, mesh: &mut Mesh) {
        if !self.long_reads.is_empty() {
            self.settle_long_reads_of(request, now, mesh);
        }
    }

    #[cold]
    fn settle_long_reads_of(&mut self, request: &Request<'_>, now: Now, mesh: &mut Mesh) {
        let (mut keys_left, mut bytes_left) = (KEYS_TO_END_MAX, BYTES_TO_END_MAX);
        for _ in 0..self.long_reads.len() {
            let mut reading = self.long_reads.pop_front().expect("there are as many as were counted");
            // Without keys it changes all of them.
            if request.command.keys.any() && !request.keys().any(|key| reading.has_seen(key)) {
                self.long_reads.push_back(reading);
                continue;
            }
            while !reading.is_over() {
                if reading.left() > keys_left || bytes_left == 0 {
                    reading.error = Some(Error::Unavailable(
                        "a key changed while very many were read: ask for fewer at a time",
                    ));
                    break;
                }
                let before = (reading.read, reading.items.len());
                self.read_on(&mut reading, now, mesh);
                keys_left -= reading.read - before.0;
                bytes_left = bytes_left.saturating_sub(reading.items.len() - before.1);
            }
            self.answer_long_read(reading, mesh);
        }
    }

    /// Reads the next keys.
    fn read_on(&mut self, reading: &mut LongRead, now: Now, mesh: &mut Mesh) {
        let LongRead { asker, request, read, seen, hasher, seq, sum, items, error, .. } = reading;
        let request = request.request();
        let keys = request.args_from(*read, KEYS_PER_LOOK);
        *read += keys.arg_count();
        for key in keys.args() {
            let (word, bit) = LongRead::bit(hasher, seen.len(), key);
            seen[word] |= bit;
        }
        let Executed { reply, seq: seq_of_keys, .. } = self.execute(&keys, now, mesh);
        match reply {
            Reply::Integer(count) => *sum += count,
            Reply::Array(values) => {
                values.iter().for_each(|value| protocol::write_item(value, asker.dialect, items));
            }
            Reply::Error(refused) => *error = Some(refused),
            _ => unreachable!("a read of several keys is answered by a sum or by items"),
        }
        if items.len() > REPLY_BYTES_MAX {
            *error = Some(Error::ReplyTooLarge { limit: REPLY_BYTES_MAX });
        }
        *seq = (*seq).max(seq_of_keys);
    }

    fn answer_long_read(&mut self, reading: LongRead, mesh: &mut Mesh) {
        let LongRead { asker, request, seq, sum, items, error, .. } = reading;
        let request = request.request();
        self.note_tracked((asker.worker, asker.request_id.socket), asker.tracks, &request);
        match (error, request.command.run) {
            (Some(error), _) => give(&mut self.journal, seq, asker, mesh, &Reply::Error(error), &request),
            (None, Run::Keys(Merge::ByKey)) => {
                self.journal.answer_bytes(seq, asker.id(), mesh, |out| out.extend_from_slice(&items));
            }
            (None, _) => give(&mut self.journal, seq, asker, mesh, &Reply::Integer(sum), &request),
        }
    }
}
