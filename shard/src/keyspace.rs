//! The keys of a shard: an extendible hash table that never stops to grow or to shrink.
//!
//! A directory, indexed by the top bits of a key's hash, names small tables, the segments. A full segment is
//! split in two, a sparse one is merged with its buddy: one segment's work, never the whole table's. When the
//! directory doubles, only numbers of four bytes are copied.
//!
//! ```text
//! hash of a key, 32 bits:   [ directory index: depth bits | ............ ]
//! word in a segment:        hash:32  handle:32       the handle names the entry's slot in the arena
//! ```
//!
//! Since a word carries the hash, splits, merges and walks touch no entry, and a look-up touches the entry of
//! another key only if all 32 bits agree. A walk goes through the hash space in order and ends each step between
//! two hashes, so that its position means the same whatever was split or merged meanwhile.
//!
//! The keyspace knows deadlines but not the time: whether a key has expired is for its user to say. It
//! knows no command and no log.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;
use hashbrown::HashTable;

use crate::arena::{Arena, Handle, Moved};
use crate::entry::{self, Entry};
use crate::expiry::Expiry;

/// A segment with this many words, all that 1024 buckets may hold, is split.
const SEGMENT_LEN_MAX: usize = 896;
const SEGMENT_BUCKETS: usize = 1024;
/// A segment that lost its free buckets to removals is split from this many words on, else rebuilt.
const SPLIT_LEN_MIN: usize = 768;
/// Two buddies with at most this many words together are merged.
const MERGE_LEN_MAX: usize = 512;
/// Whether a segment has become sparse is looked at each time its length passes a multiple of this.
const SPARSE_CHECK_STEP: usize = 64;
/// Segments of this depth are not split any more: their words agree in too many bits.
const DEPTH_MAX: u32 = 28;
/// The first position behind the hash space.
const POSITION_END: u64 = 1 << 32;

/// A key and its hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe<'k> {
    pub(crate) key: &'k [u8],
    hash: u32,
}

/// An entry that was found; valid until the keyspace changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    hash: u32,
    handle: Handle,
}

/// Keys, values and deadlines.
#[derive(Debug)]
pub(crate) struct Keyspace {
    hasher: RandomState,
    /// The segment of every value of the top `depth` bits of a hash.
    directory: Vec<u32>,
    depth: u32,
    segments: Vec<Segment>,
    /// Segments that are in no use.
    free_segments: Vec<u32>,
    /// The number of segments as deep as the directory.
    deepest: usize,
    arena: Arena,
    expiry: Expiry,
    len: usize,
    /// Allocations of the segments' tables.
    table_bytes: usize,
}

#[derive(Debug)]
struct Segment {
    words: HashTable<u64>,
    /// The number of top bits of the hash that all words have in common.
    depth: u32,
}

impl Keyspace {
    /// An empty keyspace that hashes with these secret seeds.
    pub(crate) fn new(seeds: [u64; 4]) -> Self {
        Self::with_hasher(RandomState::with_seeds(seeds[0], seeds[1], seeds[2], seeds[3]))
    }

    fn with_hasher(hasher: RandomState) -> Self {
        Keyspace {
            hasher,
            directory: vec![0],
            depth: 0,
            segments: vec![Segment { words: HashTable::new(), depth: 0 }],
            free_segments: Vec::new(),
            deepest: 1,
            arena: Arena::new(),
            expiry: Expiry::default(),
            len: 0,
            table_bytes: 0,
        }
    }

    /// An empty keyspace takes the place of this one, which is returned.
    pub(crate) fn take(&mut self) -> Keyspace {
        let empty = Self::with_hasher(self.hasher.clone());
        std::mem::replace(self, empty)
    }

    /// Gives back a bounded part of the memory of a keyspace that was taken; whether some is left.
    pub(crate) fn dismantle(&mut self) -> bool {
        self.arena.dismantle() || self.expiry.dismantle() || self.segments.pop().is_some()
    }

    /// The number of keys, those that have expired but were not yet removed among them.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The number of keys with a deadline.
    pub(crate) fn deadline_count(&self) -> usize {
        self.expiry.len()
    }

    /// The memory that the keyspace holds, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.arena.memory_bytes()
            + self.expiry.memory_bytes()
            + self.table_bytes
            + self.directory.capacity() * size_of::<u32>()
            + self.segments.capacity() * size_of::<Segment>()
    }

    /// Hashes a key.
    #[inline]
    pub(crate) fn probe<'k>(&self, key: &'k [u8]) -> Probe<'k> {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        Probe { key, hash: (hasher.finish() >> 32) as u32 }
    }

    /// Finds a key.
    #[inline]
    pub(crate) fn find(&self, probe: Probe<'_>) -> Option<Found> {
        let words = &self.segments[self.segment_id(probe.hash)].words;
        let is_key = |word: &u64| {
            hash_of(*word) == probe.hash && Entry::of(self.arena.slot(handle_of(*word))).key() == probe.key
        };
        let word = words.find(bucket_hash(probe.hash), is_key)?;
        Some(Found { hash: probe.hash, handle: handle_of(*word) })
    }

    /// Reads an entry that was found.
    #[inline]
    pub(crate) fn entry(&self, found: Found) -> Entry<'_> {
        Entry::of(self.arena.slot(found.handle))
    }

    /// Adds a key that is not there.
    pub(crate) fn insert(&mut self, probe: Probe<'_>, value: &[u8], deadline_ms: Option<u64>) {
        let len = entry::entry_len(probe.key.len(), value.len(), deadline_ms);
        let handle = self.arena.alloc(len);
        let slot = self.arena.slot_mut(handle);
        entry::write_key(slot, probe.key);
        entry::frame(slot, len, deadline_ms);
        entry::value_mut(slot).copy_from_slice(value);
        self.insert_word(word(probe.hash, handle));
        self.len += 1;
        if let Some(deadline_ms) = deadline_ms {
            self.expiry.insert(deadline_ms, probe.hash);
        }
    }

    /// Gives an entry another value and deadline.
    #[inline]
    pub(crate) fn set_value(&mut self, found: Found, value: &[u8], deadline_ms: Option<u64>) {
        let entry = self.entry(found);
        let (body_len, before) = (entry.body_len(), entry.deadline_ms());
        let len = body_len + entry::entry_len(0, value.len(), deadline_ms) - entry::body_len(0);
        let found = self.resize(found, len, body_len, 0);
        let slot = self.arena.slot_mut(found.handle);
        entry::frame(slot, len, deadline_ms);
        entry::value_mut(slot).copy_from_slice(value);
        self.reindex(found.hash, before, deadline_ms);
    }

    /// Gives an entry another deadline.
    pub(crate) fn set_deadline(&mut self, found: Found, deadline_ms: Option<u64>) {
        let entry = self.entry(found);
        let before = entry.deadline_ms();
        let keep = entry.body_len() + entry.value().len();
        let len = entry::entry_len(entry.key().len(), entry.value().len(), deadline_ms);
        let found = self.resize(found, len, keep, 0);
        entry::frame(self.arena.slot_mut(found.handle), len, deadline_ms);
        self.reindex(found.hash, before, deadline_ms);
    }

    /// Writes `bytes` at `offset` of an entry's value, which grows, filled with zeros, where needed.
    pub(crate) fn splice(&mut self, found: Found, offset: usize, bytes: &[u8]) {
        let entry = self.entry(found);
        let (deadline_ms, before) = (entry.deadline_ms(), entry.value().len());
        let keep = entry.body_len() + before;
        let len = entry::entry_len(entry.key().len(), before.max(offset + bytes.len()), deadline_ms);
        let spare = if offset + bytes.len() > before { len / 8 } else { 0 };
        let found = self.resize(found, len, keep, spare);
        let slot = self.arena.slot_mut(found.handle);
        entry::frame(slot, len, deadline_ms);
        let value = entry::value_mut(slot);
        if offset > before {
            value[before..offset].fill(0);
        }
        value[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Removes an entry.
    pub(crate) fn remove(&mut self, found: Found) {
        let deadline_ms = self.entry(found).deadline_ms();
        let id = self.segment_id(found.hash);
        let words = &mut self.segments[id].words;
        let target = word(found.hash, found.handle);
        let occupied = words.find_entry(bucket_hash(found.hash), |word| *word == target);
        occupied.expect("a found entry has a word").remove();
        let segment_len = words.len();
        self.len -= 1;
        let moved = self.arena.free(found.handle);
        self.relocate(moved);
        self.reindex(found.hash, deadline_ms, None);
        if segment_len.is_multiple_of(SPARSE_CHECK_STEP) {
            self.shrink(found.hash);
        }
    }

    /// The earliest deadline of all keys.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.expiry.first().map(|(deadline_ms, _)| deadline_ms)
    }

    /// A key with the earliest deadline.
    pub(crate) fn next_due(&self) -> Option<Found> {
        let (deadline_ms, hash) = self.expiry.first()?;
        let due = self.with_deadline(hash, deadline_ms);
        Some(due.expect("a pair of the index stands for a key"))
    }

    /// Visits the entries from `position` on, in steps through the hash space, until `at_least` entries were
    /// visited. Returns the position at which to go on, `None` at the end. Positions lie below 2^32.
    ///
    /// An entry that stays from the first step of a walk to its last is visited exactly once. A step may visit
    /// more entries than asked for only where keys agree in 32 bits of their hash.
    pub(crate) fn walk(
        &self,
        position: u64,
        at_least: usize,
        mut visit: impl FnMut(Entry<'_>),
    ) -> Option<u64> {
        let mut position = position;
        let mut missing = at_least.max(1);
        let mut words = Vec::new();
        while missing > 0 && position < POSITION_END {
            let segment = &self.segments[self.segment_id(position as u32)];
            let span = POSITION_END >> segment.depth;
            let mut end = (position | (span - 1)) + 1;
            words.clear();
            words.extend(segment.words.iter().filter(|word| **word >> 32 >= position));
            if words.len() > missing {
                // Words are ordered by their hash, since it stands in their upper half.
                let (_, &mut last, _) = words.select_nth_unstable(missing - 1);
                end = u64::from(hash_of(last)) + 1;
                words.retain(|word| *word >> 32 < end);
            }
            words.iter().for_each(|word| visit(Entry::of(self.arena.slot(handle_of(*word)))));
            missing = missing.saturating_sub(words.len());
            position = end;
        }
        (position < POSITION_END).then_some(position)
    }

    #[inline]
    fn segment_id(&self, hash: u32) -> usize {
        self.directory[(u64::from(hash) >> (32 - self.depth)) as usize] as usize
    }

    /// The directory's entries that name the segment of this hash.
    fn directory_range(&self, hash: u32, depth: u32) -> std::ops::Range<usize> {
        let count = 1 << (self.depth - depth);
        let start = (u64::from(hash) >> (32 - self.depth)) as usize & !(count - 1);
        start..start + count
    }

    fn resize(&mut self, found: Found, len: usize, keep: usize, spare: usize) -> Found {
        let (handle, moved) = self.arena.resize(found.handle, len, keep, spare);
        if handle != found.handle {
            self.rename(found.hash, found.handle, handle);
            self.relocate(moved);
        }
        Found { hash: found.hash, handle }
    }

    fn relocate(&mut self, moved: Option<Moved>) {
        if let Some(Moved { from, to }) = moved {
            let hash = self.probe(Entry::of(self.arena.slot(to)).key()).hash;
            self.rename(hash, from, to);
        }
    }

    fn rename(&mut self, hash: u32, from: Handle, to: Handle) {
        let id = self.segment_id(hash);
        let old = word(hash, from);
        let found = self.segments[id].words.find_mut(bucket_hash(hash), |word| *word == old);
        *found.expect("every slot has a word") = word(hash, to);
    }

    fn with_deadline(&self, hash: u32, deadline_ms: u64) -> Option<Found> {
        let words = &self.segments[self.segment_id(hash)].words;
        let found = words.find(bucket_hash(hash), |word| {
            hash_of(*word) == hash
                && Entry::of(self.arena.slot(handle_of(*word))).deadline_ms() == Some(deadline_ms)
        });
        found.map(|word| Found { hash, handle: handle_of(*word) })
    }

    /// Keeps the expiry index exact, after a key of this hash changed its deadline.
    #[inline]
    fn reindex(&mut self, hash: u32, before: Option<u64>, after: Option<u64>) {
        if before == after {
            return;
        }
        if let Some(deadline_ms) = before
            && self.with_deadline(hash, deadline_ms).is_none()
        {
            self.expiry.remove(deadline_ms, hash);
        }
        if let Some(deadline_ms) = after {
            self.expiry.insert(deadline_ms, hash);
        }
    }

    fn insert_word(&mut self, word: u64) {
        let hash = hash_of(word);
        loop {
            let id = self.segment_id(hash);
            let Segment { words, depth } = &mut self.segments[id];
            let len = words.len();
            if words.capacity() > len {
                words.insert_unique(bucket_hash(hash), word, rehash);
                return;
            }
            let before = words.allocation_size();
            if words.num_buckets() < SEGMENT_BUCKETS || *depth == DEPTH_MAX {
                words.reserve(1, rehash);
            } else if len < SPLIT_LEN_MIN {
                *words = rebuilt(words.drain());
            } else {
                self.split(hash);
                continue;
            }
            self.table_bytes = self.table_bytes - before + words.allocation_size();
        }
    }

    fn split(&mut self, hash: u32) {
        let id = self.segment_id(hash);
        let depth = self.segments[id].depth + 1;
        if depth > self.depth {
            self.directory = self.directory.iter().flat_map(|id| [*id, *id]).collect();
            self.depth = depth;
            self.deepest = 0;
        }
        let range = self.directory_range(hash, depth - 1);
        let middle = range.start + range.len() / 2;
        let old = std::mem::take(&mut self.segments[id].words);
        let bit = 1 << (32 - depth);
        let (high, low): (Vec<u64>, Vec<u64>) = old.iter().partition(|word| hash_of(**word) & bit != 0);
        let (high, low) = (rebuilt(high), rebuilt(low));
        self.table_bytes += high.allocation_size() + low.allocation_size();
        self.table_bytes -= old.allocation_size();
        self.segments[id] = Segment { words: low, depth };
        let new_id = self.add_segment(Segment { words: high, depth });
        self.directory[middle..range.end].fill(new_id);
        if depth == self.depth {
            self.deepest += 2;
        }
    }

    fn add_segment(&mut self, segment: Segment) -> u32 {
        if let Some(id) = self.free_segments.pop() {
            self.segments[id as usize] = segment;
            return id;
        }
        self.segments.push(segment);
        self.segments.len() as u32 - 1
    }

    /// Gives back the memory of segments around this hash that have become sparse.
    fn shrink(&mut self, hash: u32) {
        while self.merge(hash) {}
        let Segment { words, depth: 0 } = &mut self.segments[self.directory[0] as usize] else { return };
        let before = words.allocation_size();
        if words.len() <= words.capacity() / 8 {
            words.shrink_to(2 * words.len(), rehash);
        }
        self.table_bytes = self.table_bytes - before + words.allocation_size();
    }

    /// Merges the segment of this hash with its buddy if both are sparse; whether it did.
    fn merge(&mut self, hash: u32) -> bool {
        let id = self.segment_id(hash);
        let Segment { words, depth } = &self.segments[id];
        let (len, depth) = (words.len(), *depth);
        if depth == 0 {
            return false;
        }
        let buddy_id = self.segment_id(hash ^ (1 << (32 - depth)));
        let buddy = &mut self.segments[buddy_id];
        if buddy.depth != depth || buddy.words.len() + len > MERGE_LEN_MAX {
            return false;
        }
        let moving = std::mem::take(&mut buddy.words);
        self.table_bytes -= moving.allocation_size();
        self.free_segments.push(buddy_id as u32);
        self.segments[id].depth = depth - 1;
        let range = self.directory_range(hash, depth - 1);
        self.directory[range].fill(id as u32);
        if depth == self.depth {
            self.deepest -= 2;
            self.halve_directory();
        }
        moving.into_iter().for_each(|word| self.insert_word(word));
        true
    }

    fn halve_directory(&mut self) {
        while self.deepest == 0 && self.depth > 0 {
            self.directory = self.directory.iter().copied().step_by(2).collect();
            self.depth -= 1;
            let mut ids = self.directory.clone();
            ids.dedup();
            let depth = self.depth;
            self.deepest = ids.iter().filter(|id| self.segments[**id as usize].depth == depth).count();
        }
    }
}

fn word(hash: u32, handle: Handle) -> u64 {
    u64::from(hash) << 32 | u64::from(handle.0)
}

fn hash_of(word: u64) -> u32 {
    (word >> 32) as u32
}

fn handle_of(word: u64) -> Handle {
    Handle(word as u32)
}

/// What a segment's table sees of a hash: its buckets come from the low bits, which the words of a segment do
/// not have in common, its tags from the top bits, into which the product carries all of them.
#[inline]
fn bucket_hash(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn rehash(word: &u64) -> u64 {
    bucket_hash(hash_of(*word))
}

fn rebuilt(words: impl IntoIterator<Item = u64>) -> HashTable<u64> {
    let mut table = HashTable::with_capacity(SEGMENT_LEN_MAX);
    for word in words {
        table.insert_unique(rehash(&word), word, rehash);
    }
    table
}
