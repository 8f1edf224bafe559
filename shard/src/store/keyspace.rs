//! The keys of a shard: an extendible hash table that never stops to grow or to shrink.
//!
//! A directory, indexed by the top bits of a key's hash, names small tables, the segments. A full segment is
//! split in two, a sparse one is merged with its buddy: one segment's work, never the whole table's. When
//! the directory doubles, only numbers of four bytes are copied.
//!
//! ```text
//! hash of a key, 32 bits:   [ directory index: depth bits | ....... | bucket ]
//! in a bucket:              hash:32, handle:32       the handle names the entry's slot in the arena
//! ```
//!
//! Since a bucket holds the hashes, splits, merges and walks touch no entry, and a look-up touches the entry
//! of another key only if all 32 bits agree. A walk goes through the hash space in order and ends each step
//! between two hashes, so that its position means the same whatever was split or merged meanwhile.
//!
//! The keyspace knows deadlines but not the time: whether a key has expired is for its user to say. It knows
//! no command and no log.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;
use bytes::Bytes;

use super::arena::{Arena, Handle, Moved};
use super::buckets::Buckets;
use super::entry::{self, Entry, Usage};
use super::expiry::Expiry;
use super::objects::Objects;

/// A segment with this many keys, all that 128 buckets have room for, is split.
const SEGMENT_LEN_MAX: usize = 896;
/// Two buddies with at most this many keys together are merged.
const MERGE_LEN_MAX: usize = 512;
/// Whether a segment has become sparse is looked at each time its length passes a multiple of this.
const SPARSE_CHECK_STEP: usize = 64;
/// Segments of this depth are not split any more: their hashes agree in too many bits.
const DEPTH_MAX: u32 = 28;
/// The first position behind the hash space.
const POSITION_END: u64 = 1 << 32;

/// What a key costs beyond its entry: its place in a bucket, at the usual load of the segments.
pub(crate) const TABLE_BYTES_A_KEY: usize = 12;

/// The unit in which memory comes into the processor's caches.
const CACHE_LINE_BYTES: usize = 64;

/// At most this many keys are brought into the caches at once.
const PREFETCHED_KEYS_MAX: usize = 64;

/// A key and its hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe<'k> {
    pub(crate) key: &'k [u8],
    pub(crate) hash: u32,
}

/// An entry that was found; valid until the keyspace changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) hash: u32,
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
    /// Values that stand outside of the arena.
    objects: Objects,
    expiry: Expiry,
    len: usize,
    /// Memory of the segments' buckets.
    table_bytes: usize,
}

#[derive(Debug)]
struct Segment {
    buckets: Buckets,
    /// The number of top bits that all its hashes have in common.
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
            segments: vec![Segment { buckets: Buckets::default(), depth: 0 }],
            free_segments: Vec::new(),
            deepest: 1,
            arena: Arena::new(),
            objects: Objects::default(),
            expiry: Expiry::default(),
            len: 0,
            table_bytes: 0,
        }
    }

    /// An empty keyspace that hashes as this one does.
    pub(crate) fn empty(&self) -> Keyspace {
        Self::with_hasher(self.hasher.clone())
    }

    /// An empty keyspace takes the place of this one, which is returned.
    pub(crate) fn take(&mut self) -> Keyspace {
        let empty = self.empty();
        std::mem::replace(self, empty)
    }

    /// Gives back a bounded part of the memory of a keyspace that was taken; whether some is left.
    pub(crate) fn dismantle(&mut self) -> bool {
        // What was allocated last goes first, so that the allocator gives memory back step by step: what lies
        // at the end of its heap would keep all the rest back until one long last step.
        self.directory = Vec::new();
        let (value, pages, segment) = (self.objects.dismantle(), self.arena.dismantle(), self.segments.pop());
        value || pages || segment.is_some() || self.expiry.dismantle()
    }

    /// The number of keys, those that have expired but were not yet removed among them.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The number of keys with a deadline.
    pub(crate) fn deadline_count(&self) -> usize {
        self.expiry.len()
    }

    /// The sum of the times until the deadlines, while the server's time and the wall clock show these.
    pub(crate) fn time_left_ms(&self, now_ms: u64, wall_ms: u64) -> u128 {
        self.expiry.time_left_ms(now_ms, wall_ms)
    }

    /// The memory that the keyspace holds, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.arena.memory_bytes()
            + self.objects.memory_bytes()
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
        self.find_with_deadline(probe).map(|(found, _)| found)
    }

    /// Finds a key, and says its deadline.
    #[inline]
    pub(crate) fn find_with_deadline(&self, probe: Probe<'_>) -> Option<(Found, Option<u64>)> {
        let handle = self.buckets(probe.hash).find(probe.hash, |_| true)?;
        let entry = Entry::of(self.arena.slot(handle));
        if !entry.has_key(probe.key) {
            return self.find_among_equal_hashes(probe);
        }
        Some((Found { hash: probe.hash, handle }, entry.deadline_ms()))
    }

    /// As [`Keyspace::find_with_deadline`], where the first handle with the key's hash is another key's.
    #[cold]
    fn find_among_equal_hashes(&self, probe: Probe<'_>) -> Option<(Found, Option<u64>)> {
        let is_right = |handle| Entry::of(self.arena.slot(handle)).has_key(probe.key);
        let handle = self.buckets(probe.hash).find(probe.hash, is_right)?;
        let found = Found { hash: probe.hash, handle };
        Some((found, self.entry(found).deadline_ms()))
    }

    /// Brings what [`Keyspace::find_with_deadline`] will read of these keys into the processor's caches.
    pub(crate) fn prefetch<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        self.prefetch_hashes(keys.map(|key| self.probe(key).hash));
    }

    /// Brings the next keys that are due, at most `count`, into the processor's caches.
    pub(crate) fn prefetch_due(&self, now_ms: u64, wall_ms: u64, count: usize) {
        self.prefetch_hashes(self.expiry.due(now_ms, wall_ms).map(|(_, hash)| hash).take(count));
    }

    /// Loops whose rounds do not wait for each other, so that the memory serves several keys at once: where their
    /// buckets are, what stands in these, and the entries. Short rounds, so that the processor is in many of them at
    /// once.
    fn prefetch_hashes(&self, hashes: impl Iterator<Item = u32>) {
        let mut wanted = [(0, &0); PREFETCHED_KEYS_MAX];
        let mut count = 0;
        for hash in hashes.take(PREFETCHED_KEYS_MAX) {
            wanted[count] = (hash, self.buckets(hash).line(hash).unwrap_or(&0));
            count += 1;
        }
        let wanted = &wanted[..count];
        std::hint::black_box(wanted.iter().fold(0, |sum, (_, line)| sum ^ **line));
        let mut handles = [Handle(0); PREFETCHED_KEYS_MAX];
        let mut found = 0;
        for (hash, _) in wanted {
            if let Some(handle) = self.buckets(*hash).find(*hash, |_| true) {
                handles[found] = handle;
                found += 1;
            }
        }
        // An entry seldom begins where a line of the cache does: its key and a short value lie in two of them.
        let ends = handles[..found].iter().map(|handle| {
            let slot = self.arena.slot(*handle);
            slot[0] ^ slot[slot.len().min(CACHE_LINE_BYTES) - 1]
        });
        std::hint::black_box(ends.fold(0, |sum, byte| sum ^ byte));
    }

    /// Reads an entry that was found.
    #[inline]
    pub(crate) fn entry(&self, found: Found) -> Entry<'_> {
        self.entry_at(found.handle)
    }

    #[inline(always)] // Each read of a key comes here.
    fn entry_at(&self, handle: Handle) -> Entry<'_> {
        let entry = Entry::of(self.arena.slot(handle));
        if entry.is_object() { self.with_shared_value(entry) } else { entry }
    }

    #[cold]
    fn with_shared_value<'a>(&'a self, entry: Entry<'a>) -> Entry<'a> {
        let number = entry.object_number().expect("its value is an object");
        entry.with_shared(self.objects.value(number))
    }

    /// The memory of an entry that was found, in bytes, with its share of the tables.
    pub(crate) fn footprint_bytes(&self, found: Found) -> usize {
        let slot = self.arena.slot(found.handle);
        let elsewhere_bytes = self.entry(found).shared().map_or(0, |value| value.len() + size_of::<Bytes>());
        slot.len() + elsewhere_bytes + TABLE_BYTES_A_KEY
    }

    /// Adds a key that is not there. Its use is counted if it comes with a first count.
    pub(crate) fn insert(
        &mut self,
        probe: Probe<'_>,
        value: &[u8],
        deadline_ms: Option<u64>,
        usage: Option<Usage>,
    ) -> Found {
        let body_len = entry::body_len(probe.key.len(), usage.is_some());
        let len = entry::entry_len(body_len, value.len(), deadline_ms);
        let handle = self.arena.alloc(len);
        let slot = self.arena.slot_mut(handle);
        entry::write_key(slot, probe.key, usage);
        entry::frame(slot, len, deadline_ms);
        entry::stored_mut(slot).copy_from_slice(value);
        self.insert_handle(probe.hash, handle);
        self.len += 1;
        if let Some(deadline_ms) = deadline_ms {
            self.expiry.insert(deadline_ms, probe.hash);
        }
        Found { hash: probe.hash, handle }
    }

    /// As [`Keyspace::insert`], with a value that is not copied.
    pub(crate) fn insert_shared(
        &mut self,
        probe: Probe<'_>,
        value: Bytes,
        deadline_ms: Option<u64>,
        usage: Option<Usage>,
    ) {
        let number = self.objects.add(value);
        let found = self.insert(probe, &number.to_le_bytes(), deadline_ms, usage);
        entry::set_object(self.arena.slot_mut(found.handle), true);
    }

    /// As [`Keyspace::set_value`], with a value that is not copied.
    pub(crate) fn set_shared(&mut self, found: Found, value: Bytes, deadline_ms: Option<u64>) -> Found {
        let number = self.objects.add(value);
        let found = self.set_value(found, &number.to_le_bytes(), deadline_ms);
        entry::set_object(self.arena.slot_mut(found.handle), true);
        found
    }

    /// Gives an entry another value and deadline. Returns where it lies now.
    #[inline]
    pub(crate) fn set_value(&mut self, found: Found, value: &[u8], deadline_ms: Option<u64>) -> Found {
        let slot = self.arena.slot_mut(found.handle);
        if let Some(number) = Entry::of(slot).object_number() {
            entry::set_object(slot, false);
            self.objects.remove(number);
        }
        let entry = Entry::of(slot);
        let (body_len, before) = (entry.body_len(), entry.deadline_ms());
        if entry.stored().len() == value.len() && before == deadline_ms {
            entry::stored_mut(slot).copy_from_slice(value);
            return found;
        }
        let len = entry::entry_len(body_len, value.len(), deadline_ms);
        let found = self.resize(found, len, body_len, 0);
        let slot = self.arena.slot_mut(found.handle);
        entry::frame(slot, len, deadline_ms);
        entry::stored_mut(slot).copy_from_slice(value);
        self.reindex(found.hash, before, deadline_ms);
        found
    }

    /// Gives an entry another deadline. Returns where it lies now.
    pub(crate) fn set_deadline(&mut self, found: Found, deadline_ms: Option<u64>) -> Found {
        let entry = Entry::of(self.arena.slot(found.handle));
        let before = entry.deadline_ms();
        let keep = entry.body_len() + entry.stored().len();
        let len = entry::entry_len(entry.body_len(), entry.stored().len(), deadline_ms);
        let found = self.resize(found, len, keep, 0);
        entry::frame(self.arena.slot_mut(found.handle), len, deadline_ms);
        self.reindex(found.hash, before, deadline_ms);
        found
    }

    /// Writes `bytes` at `offset` of an entry's value, which grows, filled with zeros, where needed. A value that is
    /// shared is copied first.
    pub(crate) fn splice(&mut self, mut found: Found, offset: usize, bytes: &[u8]) {
        if let Some(value) = self.entry(found).shared().cloned() {
            found = self.set_value(found, &value, self.entry(found).deadline_ms());
        }
        let entry = self.entry(found);
        let (deadline_ms, before) = (entry.deadline_ms(), entry.value().len());
        let keep = entry.body_len() + before;
        let len = entry::entry_len(entry.body_len(), before.max(offset + bytes.len()), deadline_ms);
        let spare = if offset + bytes.len() > before { len / 8 } else { 0 };
        let found = self.resize(found, len, keep, spare);
        let slot = self.arena.slot_mut(found.handle);
        entry::frame(slot, len, deadline_ms);
        let value = entry::stored_mut(slot);
        if offset > before {
            value[before..offset].fill(0);
        }
        value[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Counts a read of an entry that was inserted with a usage. Returns how many seconds it had rested, if
    /// it was used before.
    #[inline]
    pub(crate) fn count_read(&mut self, found: Found, now_s: u32) -> Option<u32> {
        entry::count_read(self.arena.slot_mut(found.handle), now_s)
    }

    /// Counts a write, in the same way.
    #[inline]
    pub(crate) fn count_write(&mut self, found: Found, now_s: u32) -> Option<u32> {
        entry::count_write(self.arena.slot_mut(found.handle), now_s)
    }

    /// Removes an entry.
    pub(crate) fn remove(&mut self, found: Found) {
        let entry = Entry::of(self.arena.slot(found.handle));
        let deadline_ms = entry.deadline_ms();
        if let Some(number) = entry.object_number() {
            self.objects.remove(number);
        }
        let id = self.segment_id(found.hash);
        let buckets = &mut self.segments[id].buckets;
        buckets.remove(found.hash, found.handle);
        let segment_len = buckets.len();
        self.len -= 1;
        let moved = self.arena.free(found.handle);
        self.relocate(moved);
        self.reindex(found.hash, deadline_ms, None);
        if segment_len.is_multiple_of(SPARSE_CHECK_STEP) {
            self.shrink(found.hash);
        }
    }

    /// The earliest deadline by each of the clocks.
    pub(crate) fn next_deadlines_ms(&self) -> impl Iterator<Item = u64> {
        self.expiry.firsts().map(|(deadline_ms, _)| deadline_ms)
    }

    /// A key whose deadline has come while the server's time and the wall clock show these; the earliest first.
    pub(crate) fn next_due(&self, now_ms: u64, wall_ms: u64) -> Option<Found> {
        let (deadline_ms, hash) = self.expiry.due(now_ms, wall_ms).next()?;
        let due = self.with_deadline(hash, deadline_ms);
        Some(due.expect("a pair of the index stands for a key"))
    }

    /// Visits the entries from `position` on, in steps through the hash space, until `at_least` entries were
    /// visited. Returns the position at which to go on, `None` at the end. Positions lie below 2^32.
    ///
    /// An entry that stays from the first step of a walk to its last is visited exactly once. A step may
    /// visit more entries than asked for only where keys agree in 32 bits of their hash.
    pub(crate) fn walk(
        &self,
        position: u64,
        at_least: usize,
        mut visit: impl FnMut(Entry<'_>),
    ) -> Option<u64> {
        self.walk_while(position, at_least, |entry| {
            visit(entry);
            true
        })
    }

    /// As [`Keyspace::walk`], and ends early, behind all keys of the same position, once `visit` returns `false`.
    pub(crate) fn walk_while(
        &self,
        position: u64,
        at_least: usize,
        mut visit: impl FnMut(Entry<'_>) -> bool,
    ) -> Option<u64> {
        let mut position = position;
        let mut missing = at_least.max(1);
        let mut keys = Vec::new();
        while missing > 0 && position < POSITION_END {
            let segment = &self.segments[self.segment_id(position as u32)];
            let span = POSITION_END >> segment.depth;
            let mut end = (position | (span - 1)) + 1;
            keys.clear();
            keys.extend(segment.buckets.iter().filter(|(hash, _)| u64::from(*hash) >= position));
            if keys.len() > missing {
                let (_, (last, _), _) = keys.select_nth_unstable_by_key(missing - 1, |(hash, _)| *hash);
                end = u64::from(*last) + 1;
                keys.retain(|(hash, _)| u64::from(*hash) < end);
            }
            keys.sort_unstable_by_key(|(hash, _)| *hash);
            let mut stopped_at = None;
            for (hash, handle) in &keys {
                if stopped_at.is_some_and(|at| at != *hash) {
                    return Some(u64::from(*hash));
                }
                if !visit(self.entry_at(*handle)) {
                    stopped_at = Some(*hash);
                }
            }
            missing = if stopped_at.is_some() { 0 } else { missing.saturating_sub(keys.len()) };
            position = end;
        }
        (position < POSITION_END).then_some(position)
    }

    /// The buckets in which a hash stands, if it does.
    #[inline]
    fn buckets(&self, hash: u32) -> &Buckets {
        &self.segments[self.segment_id(hash)].buckets
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
        self.segments[id].buckets.rename(hash, from, to);
    }

    fn with_deadline(&self, hash: u32, deadline_ms: u64) -> Option<Found> {
        let is_right = |handle| Entry::of(self.arena.slot(handle)).deadline_ms() == Some(deadline_ms);
        self.buckets(hash).find(hash, is_right).map(|handle| Found { hash, handle })
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

    fn insert_handle(&mut self, hash: u32, handle: Handle) {
        loop {
            let id = self.segment_id(hash);
            let Segment { buckets, depth } = &mut self.segments[id];
            if buckets.len() < buckets.room() {
                buckets.insert(hash, handle);
                return;
            }
            if buckets.room() < SEGMENT_LEN_MAX || *depth == DEPTH_MAX {
                let room = (2 * buckets.room()).max(1);
                self.resize_buckets(id, room);
            } else {
                self.split(hash);
            }
        }
    }

    /// Gives the buckets of a segment room for so many keys.
    fn resize_buckets(&mut self, id: usize, room: usize) {
        let buckets = &mut self.segments[id].buckets;
        let mut resized = Buckets::with_room(room);
        buckets.iter().for_each(|(hash, handle)| resized.insert(hash, handle));
        self.table_bytes = self.table_bytes - buckets.memory_bytes() + resized.memory_bytes();
        *buckets = resized;
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
        let (mut low, mut high) = (Buckets::with_room(SEGMENT_LEN_MAX), Buckets::with_room(SEGMENT_LEN_MAX));
        let old = std::mem::take(&mut self.segments[id].buckets);
        for (hash, handle) in old.iter() {
            let half = if hash & 1 << (32 - depth) == 0 { &mut low } else { &mut high };
            half.insert(hash, handle);
        }
        self.table_bytes += high.memory_bytes() + low.memory_bytes();
        self.table_bytes -= old.memory_bytes();
        self.segments[id] = Segment { buckets: low, depth };
        let new_id = self.add_segment(Segment { buckets: high, depth });
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
        let id = self.directory[0] as usize;
        let Segment { buckets, depth: 0 } = &self.segments[id] else { return };
        let room = 2 * buckets.len();
        if room <= buckets.room() / 4 {
            self.resize_buckets(id, room);
        }
    }

    /// Merges the segment of this hash with its buddy if both are sparse; whether it did.
    fn merge(&mut self, hash: u32) -> bool {
        let id = self.segment_id(hash);
        let Segment { buckets, depth } = &self.segments[id];
        let (len, depth) = (buckets.len(), *depth);
        if depth == 0 {
            return false;
        }
        let buddy_id = self.segment_id(hash ^ (1 << (32 - depth)));
        let buddy = &mut self.segments[buddy_id];
        if buddy.depth != depth || buddy.buckets.len() + len > MERGE_LEN_MAX {
            return false;
        }
        let moving = std::mem::take(&mut buddy.buckets);
        self.table_bytes -= moving.memory_bytes();
        self.free_segments.push(buddy_id as u32);
        self.segments[id].depth = depth - 1;
        let range = self.directory_range(hash, depth - 1);
        self.directory[range].fill(id as u32);
        if depth == self.depth {
            self.deepest -= 2;
            self.halve_directory();
        }
        moving.iter().for_each(|(hash, handle)| self.insert_handle(hash, handle));
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    const SEEDS: [u64; 4] = [1, 2, 3, 4];

    impl Keyspace {
        fn put(&mut self, key: &[u8], value: &[u8], deadline_ms: Option<u64>) {
            let probe = self.probe(key);
            match self.find(probe) {
                Some(found) => self.set_value(found, value, deadline_ms),
                None => self.insert(probe, value, deadline_ms, None),
            };
        }

        fn delete(&mut self, key: &[u8]) -> bool {
            let found = self.find(self.probe(key));
            found.map(|found| self.remove(found)).is_some()
        }

        /// Asserts everything that has to be true between two operations.
        fn check(&self) {
            let mut dues = BTreeSet::new();
            let (mut count, mut table_bytes, mut deepest) = (0, 0, 0);
            let mut shared = BTreeSet::new();
            let mut seen = BTreeSet::new();
            for (index, id) in self.directory.iter().enumerate() {
                let segment = &self.segments[*id as usize];
                let hash = ((index as u64) << (32 - self.depth)) as u32;
                let range = self.directory_range(hash, segment.depth);
                assert!(self.directory[range].iter().all(|other| other == id));
                if !seen.insert(*id) {
                    continue;
                }
                table_bytes += segment.buckets.memory_bytes();
                deepest += usize::from(segment.depth == self.depth);
                for (hash, handle) in segment.buckets.iter() {
                    count += 1;
                    let found = Found { hash, handle };
                    let entry = self.entry(found);
                    let probe = self.probe(entry.key());
                    assert_eq!(probe.hash, found.hash);
                    assert_eq!(self.segment_id(probe.hash), *id as usize);
                    assert_eq!(self.find(probe).map(|found| found.handle), Some(found.handle));
                    let is_new = entry.object_number().is_none_or(|number| shared.insert(number));
                    assert!(is_new && entry.object_number().is_some() == entry.shared().is_some());
                    dues.extend(entry.deadline_ms().map(|ms| (ms, found.hash)));
                }
            }
            self.objects.check(&shared);
            assert_eq!(count, self.len);
            assert_eq!(count, self.arena.check());
            assert_eq!(table_bytes, self.table_bytes);
            assert_eq!(deepest, self.deepest);
            assert_eq!(seen.len() + self.free_segments.len(), self.segments.len());
            assert_eq!(self.expiry.len(), dues.len());
            assert!(self.expiry.due(u64::MAX, u64::MAX).eq(dues.iter().copied()));
        }
    }

    fn key(number: u32) -> Vec<u8> {
        format!("key:{number}").into_bytes()
    }

    #[test]
    fn a_keyspace_grows_and_shrinks_back() {
        let mut keyspace = Keyspace::new(SEEDS);
        let empty_bytes = keyspace.memory_bytes();
        for number in 0..50_000 {
            keyspace.put(&key(number), &number.to_le_bytes(), None);
        }
        keyspace.check();
        assert!(keyspace.depth >= 6);
        let full_bytes = keyspace.memory_bytes();
        for number in 0..50_000 {
            assert!(keyspace.delete(&key(number)));
            if number % 10_000 == 0 {
                keyspace.check();
            }
            if number == 45_000 {
                assert!(keyspace.memory_bytes() < full_bytes / 4);
            }
        }
        keyspace.check();
        assert_eq!((keyspace.depth, keyspace.directory.len()), (0, 1));
        // One page and the directories of pages and segments may stay.
        assert!(keyspace.memory_bytes() < empty_bytes + (100 << 10));
    }

    #[test]
    fn an_entry_of_16_and_64_bytes_takes_at_most_107_bytes() {
        let mut keyspace = Keyspace::new(SEEDS);
        for number in 0..200_000 {
            keyspace.put(format!("key:{number:012}").as_bytes(), &[b'v'; 64], None);
            if number > 100_000 && number % 1000 == 0 {
                assert!(keyspace.memory_bytes() <= 107 * keyspace.len());
            }
        }
    }

    #[test]
    fn churn_at_any_size_neither_grows_tables_nor_loses_keys() {
        for size in [1, 400, 800, 896, 1700] {
            let mut keyspace = Keyspace::new(SEEDS);
            for number in 0..20_000 {
                keyspace.put(&key(number), b"v", Some(u64::from(number)));
                if number >= size {
                    assert!(keyspace.delete(&key(number - size)));
                }
            }
            keyspace.check();
            assert_eq!(keyspace.len(), size as usize);
            let rooms = keyspace.segments.iter().map(|segment| segment.buckets.room());
            assert!(rooms.max() <= Some(SEGMENT_LEN_MAX));
        }
    }

    #[test]
    fn keys_with_equal_hashes_keep_their_own_deadlines() {
        let mut keyspace = Keyspace::new(SEEDS);
        let mut by_hash = HashMap::new();
        let twins = (0..).find_map(|number| {
            let twin = by_hash.insert(keyspace.probe(&key(number)).hash, number)?;
            Some((key(twin), key(number)))
        });
        let (one, other) = twins.expect("32 bits collide among a few hundred thousand keys");
        keyspace.put(&one, b"1", Some(5));
        keyspace.put(&other, b"2", Some(5));
        keyspace.check();
        assert!(keyspace.delete(&one));
        keyspace.check();
        assert!(keyspace.next_deadlines_ms().eq([5]));
        assert!(keyspace.next_due(4, 5).is_none());
        let due = keyspace.next_due(5, 0).unwrap();
        assert_eq!(keyspace.entry(due).key(), other);
        keyspace.put(&one, b"1", Some(5));
        keyspace.put(&other, b"2", None);
        assert_eq!(keyspace.entry(keyspace.next_due(5, 0).unwrap()).key(), one);
        keyspace.check();
        let mut visited = Vec::new();
        let position = u64::from(keyspace.probe(&one).hash);
        keyspace.walk(position, 1, |entry| visited.push(entry.key().to_vec()));
        visited.sort();
        let mut expected = vec![one, other];
        expected.sort();
        assert_eq!(visited, expected, "both are visited in one step");
    }

    #[test]
    fn a_walk_visits_each_staying_key_once_while_the_table_changes() {
        for (staying, start, end, step) in [(2000, 30_000, 0, 7), (2000, 0, 30_000, 5), (100, 0, 0, 1)] {
            let mut keyspace = Keyspace::new(SEEDS);
            (0..staying).for_each(|number| keyspace.put(&key(number), b"stays", None));
            let passing = |number| format!("passing:{number}").into_bytes();
            (0..start).for_each(|number| keyspace.put(&passing(number), b"", None));
            let mut visits: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
            let mut position = Some(0);
            let (mut count, mut steps) = (start, 0);
            while let Some(from) = position {
                position = keyspace.walk(from, step, |entry| {
                    if entry.value() == b"stays" {
                        *visits.entry(entry.key().to_vec()).or_default() += 1;
                    }
                });
                assert!(position.is_none_or(|position| position > from));
                for _ in 0..20 {
                    if count < end {
                        keyspace.put(&passing(count), b"", None);
                        count += 1;
                    } else if count > end {
                        count -= 1;
                        keyspace.delete(&passing(count));
                    }
                }
                steps += 1;
            }
            keyspace.check();
            assert!(steps > staying / step as u32 / 2);
            assert_eq!(visits.len(), staying as usize);
            assert!(visits.values().all(|count| *count == 1));
        }
    }

    #[test]
    fn a_step_of_a_walk_visits_no_more_than_asked_for() {
        let mut keyspace = Keyspace::new(SEEDS);
        (0..10_000).for_each(|number| keyspace.put(&key(number), b"", None));
        let mut position = Some(0);
        while let Some(from) = position {
            let mut visited = 0;
            position = keyspace.walk(from, 10, |_| visited += 1);
            assert!(visited == 10 || (visited < 10 && position.is_none()));
        }
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Put(u32, usize, Option<u64>),
        PutShared(u32, usize, Option<u64>),
        Splice(u32, usize, usize),
        Deadline(u32, Option<u64>),
        Remove(u32),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let key = 0..40u32;
        let len = prop_oneof![0..40usize, 900..1200usize, 0..5000usize];
        let deadline = proptest::option::of(1..4u64);
        prop_oneof![
            4 => (key.clone(), len.clone(), deadline.clone()).prop_map(|(k, l, d)| Operation::Put(k, l, d)),
            3 => (key.clone(), len.clone(), deadline.clone()).prop_map(|(k, l, d)| Operation::PutShared(k, l, d)),
            3 => (key.clone(), 0..2000usize, len).prop_map(|(k, o, l)| Operation::Splice(k, o, l)),
            2 => (key.clone(), deadline).prop_map(|(k, d)| Operation::Deadline(k, d)),
            2 => key.prop_map(Operation::Remove),
        ]
    }

    proptest! {
        #[test]
        fn operations_agree_with_a_map(operations in proptest::collection::vec(operation(), 1..200)) {
            let mut keyspace = Keyspace::new(SEEDS);
            let mut model: BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)> = BTreeMap::new();
            for (index, operation) in operations.into_iter().enumerate() {
                let fill = |len| vec![index as u8; len];
                match operation {
                    Operation::Put(number, len, deadline_ms) => {
                        keyspace.put(&key(number), &fill(len), deadline_ms);
                        model.insert(key(number), (fill(len), deadline_ms));
                    }
                    Operation::PutShared(number, len, deadline_ms) => {
                        let (name, value) = (key(number), Bytes::from(fill(len)));
                        let probe = keyspace.probe(&name);
                        match keyspace.find(probe) {
                            Some(found) => drop(keyspace.set_shared(found, value, deadline_ms)),
                            None => keyspace.insert_shared(probe, value, deadline_ms, None),
                        }
                        model.insert(key(number), (fill(len), deadline_ms));
                    }
                    Operation::Splice(number, offset, len) => {
                        let found = keyspace.find(keyspace.probe(&key(number)));
                        prop_assert_eq!(found.is_some(), model.contains_key(&key(number)));
                        let Some(found) = found else { continue };
                        let (value, _) = model.get_mut(&key(number)).unwrap();
                        keyspace.splice(found, offset, &fill(len));
                        value.resize(value.len().max(offset + len), 0);
                        value[offset..offset + len].fill(index as u8);
                    }
                    Operation::Deadline(number, deadline_ms) => {
                        let Some(found) = keyspace.find(keyspace.probe(&key(number))) else { continue };
                        keyspace.set_deadline(found, deadline_ms);
                        model.get_mut(&key(number)).unwrap().1 = deadline_ms;
                    }
                    Operation::Remove(number) => {
                        prop_assert_eq!(keyspace.delete(&key(number)), model.remove(&key(number)).is_some());
                    }
                }
                keyspace.check();
                let mut content = BTreeMap::new();
                keyspace.walk(0, usize::MAX, |entry| {
                    content.insert(entry.key().to_vec(), (entry.value().to_vec(), entry.deadline_ms()));
                });
                prop_assert_eq!(&content, &model);
            }
        }
    }
}
