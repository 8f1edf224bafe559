//! Slots of bytes, packed without gaps: the memory of the entries.
//!
//! Slots of up to [`SMALL_MAX`] bytes lie in pages; a page holds slots of one size class (a multiple of 8
//! bytes). A slot that is freed is filled at once with the last slot of its class, so that a class never has
//! holes: memory is what the entries need, however often their sizes change, and comes back page by page
//! when they go. Longer slots are allocations of their own. A slot is named by a [`Handle`] of four bytes.
//! The arena never looks into a slot.

use super::entry::{ENTRY_LEN_MIN, SLACK_MAX};

/// The longest slot that lies in a page, in bytes.
const SMALL_MAX: usize = 1024;
const CLASS_STEP: usize = 8;
const CLASS_MIN: usize = 2;
const CLASS_COUNT: usize = SMALL_MAX / CLASS_STEP + 1;
const PAGE_LEN: usize = 64 << 10;
/// The first page of a class starts this small, so that an empty server stays small.
const PAGE_LEN_FIRST: usize = 512;
const SLOT_BITS: u32 = 12;
const LARGE: u32 = 1 << 31;
/// 32 GiB of pages a shard; beyond it small slots are allocations of their own, too.
const PAGE_COUNT_MAX: usize = (LARGE >> SLOT_BITS) as usize;

const _: () = assert!(CLASS_STEP - 1 <= SLACK_MAX && CLASS_MIN * CLASS_STEP - ENTRY_LEN_MIN <= SLACK_MAX);
const _: () = assert!(PAGE_LEN / (CLASS_MIN * CLASS_STEP) <= 1 << SLOT_BITS);

/// Names a slot until that slot is freed, resized or moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle(pub(crate) u32);

/// The slot that had the handle `from` has the handle `to` now.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Moved {
    pub(crate) from: Handle,
    pub(crate) to: Handle,
}

/// All slots of a keyspace.
#[derive(Debug)]
pub(crate) struct Arena {
    pages: Vec<Page>,
    /// Pages without memory, to be used again.
    free_pages: Vec<u32>,
    /// The memory of the page that was emptied last: a class at the edge of a page does not thrash.
    spare: Vec<u8>,
    /// Of every class its pages, all full but the last.
    classes: [Vec<u32>; CLASS_COUNT],
    large: Vec<Vec<u8>>,
    /// Capacity of all pages and large slots.
    capacity_bytes: usize,
    page_count_max: usize,
}

#[derive(Debug, Default)]
struct Page {
    /// As many slots as are in use, back to back.
    bytes: Vec<u8>,
    slot_len: usize,
}

impl Arena {
    pub(crate) fn new() -> Self {
        Arena {
            pages: Vec::new(),
            free_pages: Vec::new(),
            spare: Vec::new(),
            classes: [const { Vec::new() }; CLASS_COUNT],
            large: Vec::new(),
            capacity_bytes: 0,
            page_count_max: PAGE_COUNT_MAX,
        }
    }

    /// The memory that the arena holds, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.capacity_bytes
            + self.pages.capacity() * size_of::<Page>()
            + self.large.capacity() * size_of::<Vec<u8>>()
    }

    /// The bytes of a slot: as many as were asked for, and up to [`SLACK_MAX`] more.
    #[inline]
    pub(crate) fn slot(&self, handle: Handle) -> &[u8] {
        if handle.0 & LARGE != 0 {
            return &self.large[(handle.0 & !LARGE) as usize];
        }
        let page = &self.pages[(handle.0 >> SLOT_BITS) as usize];
        let start = slot_index(handle) * page.slot_len;
        &page.bytes[start..start + page.slot_len]
    }

    /// As [`Arena::slot`], for writing.
    #[inline]
    pub(crate) fn slot_mut(&mut self, handle: Handle) -> &mut [u8] {
        if handle.0 & LARGE != 0 {
            return &mut self.large[(handle.0 & !LARGE) as usize];
        }
        let page = &mut self.pages[(handle.0 >> SLOT_BITS) as usize];
        let start = slot_index(handle) * page.slot_len;
        &mut page.bytes[start..start + page.slot_len]
    }

    /// A new slot for `len` bytes, which are zero.
    pub(crate) fn alloc(&mut self, len: usize) -> Handle {
        if len > SMALL_MAX {
            return self.alloc_large(len, 0);
        }
        let class = class_of(len);
        let slot_len = class * CLASS_STEP;
        let page_id = match self.classes[class].last() {
            Some(&id) if self.pages[id as usize].bytes.len() + slot_len <= PAGE_LEN => id,
            _ => match self.add_page(class) {
                Some(id) => id,
                None => return self.alloc_large(len, 0),
            },
        };
        let page = &mut self.pages[page_id as usize];
        let start = page.bytes.len();
        if page.bytes.capacity() < start + slot_len {
            let before = page.bytes.capacity();
            let wanted = (2 * before).max(PAGE_LEN_FIRST.max(slot_len)).min(PAGE_LEN);
            page.bytes.reserve_exact(wanted - start);
            self.capacity_bytes += page.bytes.capacity() - before;
        }
        page.bytes.resize(start + slot_len, 0);
        Handle(page_id << SLOT_BITS | (start / slot_len) as u32)
    }

    /// Frees a slot. The slot that took its place, if any, has a new handle.
    pub(crate) fn free(&mut self, handle: Handle) -> Option<Moved> {
        if handle.0 & LARGE != 0 {
            let freed = self.large.swap_remove((handle.0 & !LARGE) as usize);
            self.capacity_bytes -= freed.capacity();
            let last = Handle(LARGE | self.large.len() as u32);
            return (last != handle).then_some(Moved { from: last, to: handle });
        }
        let page_id = (handle.0 >> SLOT_BITS) as usize;
        let slot_len = self.pages[page_id].slot_len;
        let class = &self.classes[slot_len / CLASS_STEP];
        let last_id = *class.last().expect("a class with a slot has a page") as usize;
        let last_start = self.pages[last_id].bytes.len() - slot_len;
        let last = Handle((last_id as u32) << SLOT_BITS | (last_start / slot_len) as u32);
        if last_id == page_id {
            let start = slot_index(handle) * slot_len;
            self.pages[page_id].bytes.copy_within(last_start.., start);
        } else {
            let pages = self.pages.get_disjoint_mut([page_id, last_id]);
            let [to, from] = pages.expect("two different pages of the arena");
            to.bytes[slot_index(handle) * slot_len..][..slot_len].copy_from_slice(&from.bytes[last_start..]);
        }
        self.pages[last_id].bytes.truncate(last_start);
        if last_start == 0 {
            self.remove_page(slot_len / CLASS_STEP, last_id);
        }
        (last != handle).then_some(Moved { from: last, to: handle })
    }

    /// Makes room for `len` bytes in the slot, of which the first `keep` keep their content. The slot may get
    /// another handle, and its old place another slot. A large slot gets room for `spare` more bytes, so that
    /// repeated growth copies it seldom.
    #[inline]
    pub(crate) fn resize(
        &mut self,
        handle: Handle,
        len: usize,
        keep: usize,
        spare: usize,
    ) -> (Handle, Option<Moved>) {
        if handle.0 & LARGE == 0 {
            let slot_len = self.pages[(handle.0 >> SLOT_BITS) as usize].slot_len;
            if class_of(len) * CLASS_STEP == slot_len {
                return (handle, None);
            }
        } else if len > SMALL_MAX {
            self.resize_large((handle.0 & !LARGE) as usize, len, keep, spare);
            return (handle, None);
        }
        let new = if len > SMALL_MAX { self.alloc_large(len, spare) } else { self.alloc(len) };
        self.copy(handle, new, keep);
        let moved = self.free(handle);
        match moved {
            // Only a large slot can be followed by the slot just made: both are in the same list.
            Some(moved) if moved.from == new => (moved.to, None),
            moved => (new, moved),
        }
    }

    /// Gives back a bounded part of the memory of an arena that is not used any more; whether some is left.
    pub(crate) fn dismantle(&mut self) -> bool {
        self.large.pop().is_some() || self.pages.pop().is_some()
    }

    fn alloc_large(&mut self, len: usize, spare: usize) -> Handle {
        let mut bytes = if spare == 0 { vec![0; len] } else { Vec::with_capacity(len + spare) };
        bytes.resize(len, 0);
        self.capacity_bytes += bytes.capacity();
        let index = u32::try_from(self.large.len()).ok().filter(|index| index & LARGE == 0);
        self.large.push(bytes);
        Handle(LARGE | index.expect("memory ends before the large slots of a shard do"))
    }

    fn resize_large(&mut self, index: usize, len: usize, keep: usize, spare: usize) {
        let bytes = &mut self.large[index];
        let before = bytes.capacity();
        if len > before {
            bytes.truncate(keep);
            bytes.reserve_exact(len + spare - keep);
        } else if len < before - before / 4 {
            bytes.truncate(len);
            bytes.shrink_to(len + spare);
        }
        bytes.resize(len, 0);
        self.capacity_bytes = self.capacity_bytes - before + bytes.capacity();
    }

    fn copy(&mut self, from: Handle, to: Handle, keep: usize) {
        if (from.0 | to.0) & LARGE == 0 {
            let ids = [from, to].map(|handle| (handle.0 >> SLOT_BITS) as usize);
            let pages = self.pages.get_disjoint_mut(ids).expect("another class is another page");
            let [from_page, to_page] = pages;
            let source = &from_page.bytes[slot_index(from) * from_page.slot_len..][..keep];
            to_page.bytes[slot_index(to) * to_page.slot_len..][..keep].copy_from_slice(source);
        } else {
            let kept = self.slot(from)[..keep].to_vec();
            self.slot_mut(to)[..keep].copy_from_slice(&kept);
        }
    }

    fn add_page(&mut self, class: usize) -> Option<u32> {
        let mut bytes = std::mem::take(&mut self.spare);
        if bytes.capacity() == 0 && !self.classes[class].is_empty() {
            bytes.reserve_exact(PAGE_LEN);
            self.capacity_bytes += bytes.capacity();
        }
        let page = Page { bytes, slot_len: class * CLASS_STEP };
        let id = match self.free_pages.pop() {
            Some(id) => {
                self.pages[id as usize] = page;
                id
            }
            None if self.pages.len() == self.page_count_max => {
                self.spare = page.bytes;
                return None;
            }
            None => {
                self.pages.push(page);
                self.pages.len() as u32 - 1
            }
        };
        self.classes[class].push(id);
        Some(id)
    }

    fn remove_page(&mut self, class: usize, id: usize) {
        self.classes[class].pop();
        self.free_pages.push(id as u32);
        let bytes = std::mem::take(&mut self.pages[id].bytes);
        let freed = std::mem::replace(&mut self.spare, bytes);
        self.capacity_bytes -= freed.capacity();
    }
}

fn slot_index(handle: Handle) -> usize {
    (handle.0 & ((1 << SLOT_BITS) - 1)) as usize
}

fn class_of(len: usize) -> usize {
    len.div_ceil(CLASS_STEP).max(CLASS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Arena {
        /// Asserts what has to be true between two operations; the number of slots.
        pub(crate) fn check(&self) -> usize {
            let mut count = self.large.len();
            for (class, ids) in self.classes.iter().enumerate() {
                for (index, id) in ids.iter().enumerate() {
                    let page = &self.pages[*id as usize];
                    assert_eq!(page.slot_len, class * CLASS_STEP);
                    let slots = page.bytes.len() / page.slot_len;
                    let full = index + 1 == ids.len() || slots == PAGE_LEN / page.slot_len;
                    assert!(slots > 0 && full, "only the last page of a class may have room");
                    count += slots;
                }
            }
            let used: usize = self.classes.iter().map(Vec::len).sum();
            assert_eq!(used + self.free_pages.len(), self.pages.len());
            let pages = self.pages.iter().map(|page| page.bytes.capacity()).sum::<usize>();
            let large = self.large.iter().map(Vec::capacity).sum::<usize>();
            assert_eq!(self.capacity_bytes, pages + large + self.spare.capacity());
            count
        }
    }

    #[test]
    fn slots_of_every_length_hold_what_was_asked_for() {
        let mut arena = Arena::new();
        for len in 2..2 * SMALL_MAX {
            let handle = arena.alloc(len);
            let slot = arena.slot_mut(handle);
            assert!((len..=len + SLACK_MAX).contains(&slot.len()));
            assert!(slot.iter().all(|byte| *byte == 0));
            slot.fill(0xff);
        }
        arena.check();
    }

    #[test]
    fn a_class_has_no_holes_and_gives_its_pages_back() {
        let mut arena = Arena::new();
        let mut slots: Vec<(Handle, u32)> = (0..5000).map(|number| (arena.alloc(80), number)).collect();
        for (handle, number) in &slots {
            arena.slot_mut(*handle)[..4].copy_from_slice(&number.to_le_bytes());
        }
        let full_bytes = arena.capacity_bytes;
        let mut turn = 0;
        while !slots.is_empty() {
            turn = (turn * 31 + 7) % slots.len();
            let (freed, _) = slots.swap_remove(turn);
            if let Some(Moved { from, to }) = arena.free(freed) {
                slots.iter_mut().find(|(handle, _)| *handle == from).unwrap().0 = to;
            }
            for (handle, number) in slots.iter().step_by(97) {
                assert_eq!(arena.slot(*handle)[..4], number.to_le_bytes());
            }
            assert_eq!(arena.check(), slots.len());
        }
        assert!(full_bytes > 5000 * 80 && arena.capacity_bytes <= PAGE_LEN);
    }

    #[test]
    fn without_pages_small_slots_are_allocations_of_their_own() {
        let mut arena = Arena { page_count_max: 1, ..Arena::new() };
        let small = arena.alloc(20);
        let mut slots: Vec<(Handle, u8)> = (0..9).map(|fill| (arena.alloc(100), fill)).collect();
        slots.iter().for_each(|(handle, fill)| arena.slot_mut(*handle)[..50].fill(*fill));
        for turn in 0..200 {
            let (handle, _) = slots[turn % 9];
            let (resized, moved) = arena.resize(handle, 50 + turn * 13 % 150, 50, 0);
            slots[turn % 9].0 = resized;
            if let Some(Moved { from, to }) = moved {
                slots.iter_mut().find(|(handle, _)| *handle == from).unwrap().0 = to;
            }
            assert!(slots.iter().all(|(handle, fill)| arena.slot(*handle)[..50] == [*fill; 50]));
            assert_eq!(arena.check(), 10);
        }
        assert_eq!(arena.slot(small).len(), 24);
    }

    #[test]
    fn growing_bit_by_bit_copies_a_large_slot_seldom() {
        let mut arena = Arena::new();
        let mut handle = arena.alloc(10);
        let (mut moves, mut address) = (0, arena.slot(handle).as_ptr());
        for len in 11..200_000 {
            (handle, _) = arena.resize(handle, len, len - 1, len / 8);
            moves += usize::from(arena.slot(handle).as_ptr() != address);
            address = arena.slot(handle).as_ptr();
        }
        arena.check();
        assert!(moves < 250, "{moves} copies");
        assert!(arena.capacity_bytes < 200_000 + 200_000 / 8 + PAGE_LEN * 2);
    }
}
