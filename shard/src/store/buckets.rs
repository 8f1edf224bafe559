//! Hashes and the handles that they stand for, in buckets of one cache line each: to look a hash up is to wait for
//! one line.
//!
//! The low bits of a hash name the bucket it belongs to; where that is full, the next one that is not takes it.
//! A bucket is filled from its front, so that its last place tells whether it is full and the search goes on. A
//! removal fills the gap with what had to go further, so that no gap is ever left in a search's way (Knuth, "The Art of
//! Computer Programming", volume 3, section 6.4, algorithm R, for buckets of several places).
//!
//! Hashes may agree; handles are all different.

use wide::u32x8;

use super::arena::Handle;

/// Hashes and handles that fill a cache line.
const BUCKET_LEN: usize = 8;
/// In how many places of a bucket something may stand, on average.
const BUCKET_LEN_MEAN_MAX: usize = 7;

/// Nothing stands in this place. The arena has no such handle: memory ends long before.
const FREE: Handle = Handle(u32::MAX);

/// A table of hashes and handles. It has room for a fixed number of them, until it is made anew.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    /// As many as a power of two, or none.
    buckets: Vec<Bucket>,
    len: usize,
}

#[derive(Clone, Debug)]
#[repr(align(64))]
struct Bucket {
    hashes: [u32; BUCKET_LEN],
    handles: [Handle; BUCKET_LEN],
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Bucket {
    const EMPTY: Bucket = Bucket { hashes: [0; BUCKET_LEN], handles: [FREE; BUCKET_LEN] };

    #[inline]
    fn is_full(&self) -> bool {
        self.handles[BUCKET_LEN - 1] != FREE
    }

    fn len(&self) -> usize {
        self.handles.iter().position(|handle| *handle == FREE).unwrap_or(BUCKET_LEN)
    }

    /// The places with this hash, each a bit; free places may be among them.
    #[inline]
    fn places_of(&self, hash: u32) -> u32 {
        u32x8::new(self.hashes).simd_eq(u32x8::splat(hash)).to_bitmask()
    }
}

impl Buckets {
    /// An empty table with room for `len` hashes.
    pub(crate) fn with_room(len: usize) -> Self {
        let count = len.div_ceil(BUCKET_LEN_MEAN_MAX).next_power_of_two();
        let count = if len == 0 { 0 } else { count };
        Buckets { buckets: vec![Bucket::EMPTY; count], len: 0 }
    }

    /// How many hashes there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many there may be.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.buckets.len() * BUCKET_LEN_MEAN_MAX
    }

    /// Its memory, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    /// Something in the line in which a hash most likely stands; once it was read, [`Buckets::find`] need not wait.
    #[inline]
    pub(crate) fn line(&self, hash: u32) -> Option<&u32> {
        self.buckets.get(self.home(hash)).map(|bucket| &bucket.hashes[0])
    }

    /// The first handle with this hash that is the right one.
    #[inline]
    pub(crate) fn find(&self, hash: u32, is_right: impl FnMut(Handle) -> bool) -> Option<Handle> {
        self.place(hash, is_right).map(|(at, place)| self.buckets[at].handles[place])
    }

    /// Gives what stands there as `from` another handle. It has to be there.
    pub(crate) fn rename(&mut self, hash: u32, from: Handle, to: Handle) {
        let (at, place) = self.place(hash, |handle| handle == from).expect("the handle is there");
        self.buckets[at].handles[place] = to;
    }

    /// Adds a hash. There has to be room.
    pub(crate) fn insert(&mut self, hash: u32, handle: Handle) {
        debug_assert!(self.len < self.room() && handle != FREE);
        let mut at = self.home(hash);
        while self.buckets[at].is_full() {
            at = self.next(at);
        }
        self.set(at, self.buckets[at].len(), (hash, handle));
        self.len += 1;
    }

    /// Removes a hash. It has to be there.
    pub(crate) fn remove(&mut self, hash: u32, handle: Handle) {
        let place = self.place(hash, |other| other == handle);
        let (mut gap_at, mut gap_place) = place.expect("the handle is there");
        self.len -= 1;
        // Searches went on from a full bucket, and would not from one with a gap.
        while self.buckets[gap_at].is_full()
            && let Some((at, place)) = self.beyond(gap_at)
        {
            self.set(gap_at, gap_place, (self.buckets[at].hashes[place], self.buckets[at].handles[place]));
            (gap_at, gap_place) = (at, place);
        }
        let bucket = &mut self.buckets[gap_at];
        let last = bucket.len() - 1;
        (bucket.hashes[gap_place], bucket.handles[gap_place]) = (bucket.hashes[last], bucket.handles[last]);
        bucket.handles[last] = FREE;
    }

    /// All hashes and handles.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Handle)> {
        let places = self.buckets.iter().flat_map(|bucket| bucket.hashes.into_iter().zip(bucket.handles));
        places.filter(|(_, handle)| *handle != FREE)
    }

    /// Something that stands behind a full bucket only because that is full.
    fn beyond(&self, full: usize) -> Option<(usize, usize)> {
        let mut at = full;
        loop {
            at = self.next(at);
            let bucket = &self.buckets[at];
            let mask = self.buckets.len() - 1;
            let distance = at.wrapping_sub(full) & mask;
            let has_passed = |hash: u32| at.wrapping_sub(self.home(hash)) & mask >= distance;
            let mut places = bucket.hashes[..bucket.len()].iter();
            if let Some(place) = places.position(|hash| has_passed(*hash)) {
                return Some((at, place));
            }
            if !bucket.is_full() {
                return None;
            }
        }
    }

    #[inline]
    fn place(&self, hash: u32, mut is_right: impl FnMut(Handle) -> bool) -> Option<(usize, usize)> {
        let mut at = self.home(hash);
        loop {
            let bucket = self.buckets.get(at)?;
            let mut places = bucket.places_of(hash);
            while places != 0 {
                let place = places.trailing_zeros() as usize;
                let handle = bucket.handles[place];
                if handle != FREE && is_right(handle) {
                    return Some((at, place));
                }
                places &= places - 1;
            }
            if !bucket.is_full() {
                return None;
            }
            at = self.next(at);
        }
    }

    fn set(&mut self, at: usize, place: usize, (hash, handle): (u32, Handle)) {
        self.buckets[at].hashes[place] = hash;
        self.buckets[at].handles[place] = handle;
    }

    /// The bucket to which a hash belongs; beyond all of them if there are none.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        hash as usize & self.buckets.len().wrapping_sub(1)
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.buckets.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_table_takes_no_memory_and_finds_nothing() {
        let table = Buckets::with_room(0);
        assert_eq!((table.room(), table.memory_bytes(), table.len()), (0, 0, 0));
        assert_eq!((table.find(0, |_| true), table.find(u32::MAX, |_| true)), (None, None));
        assert_eq!((Buckets::with_room(1).room(), Buckets::with_room(8).room()), (7, 14));
    }

    proptest! {
        /// Hashes that mostly belong to the same few buckets, so that these overflow, around the end as well.
        #[test]
        fn a_table_agrees_with_a_set(steps in proptest::collection::vec((0..3u8, 0..6u32, any::<u8>()), 1..300)) {
            let mut table = Buckets::with_room(56);
            let mut model = BTreeSet::new();
            let mut next = 0;
            for (step, number, choice) in steps {
                if step > 0 && table.len() < table.room() {
                    let hash = [6, 7, 7, 15, 0, 3][number as usize];
                    table.insert(hash, Handle(next));
                    model.insert((hash, next));
                    next += 1;
                } else if let Some(&(hash, number)) = model.iter().nth(choice as usize % model.len().max(1)) {
                    if choice.is_multiple_of(2) {
                        table.remove(hash, Handle(number));
                    } else {
                        table.rename(hash, Handle(number), Handle(next));
                        model.insert((hash, next));
                        next += 1;
                    }
                    model.remove(&(hash, number));
                }
                for &(hash, number) in &model {
                    prop_assert_eq!(table.find(hash, |handle| handle.0 == number), Some(Handle(number)));
                }
                let found: BTreeSet<_> = table.iter().map(|(hash, handle)| (hash, handle.0)).collect();
                prop_assert_eq!(&found, &model);
                prop_assert_eq!((table.len(), table.find(1, |_| true)), (model.len(), None));
            }
        }
    }
}
