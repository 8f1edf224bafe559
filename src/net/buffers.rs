//! The buffers that the kernel receives into, shared by all sockets of one ring.
//!
//! Contract: a buffer belongs to the kernel from `give` until a receive completion names it, and to one
//! [`Filled`] from then until that is dropped. No Rust reference is formed to a buffer the kernel owns.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// How many bytes one receive delivers at most.
pub const CHUNK_BYTES: usize = 16 * 1024;

/// How many chunks one ring has. A power of two, as the kernel demands.
pub const CHUNK_COUNT: u16 = 256;

const PAGE_BYTES: usize = 4096;

pub(super) struct Buffers {
    /// `CHUNK_COUNT` buffers of `CHUNK_BYTES`, back to back.
    data: NonNull<u8>,
    /// The ring in which the kernel finds free buffers: `CHUNK_COUNT` entries; the tail lies in the first.
    ring: NonNull<BufRingEntry>,
    tail: Cell<u16>,
    free_count: Cell<u16>,
}

fn data_layout() -> Layout {
    Layout::from_size_align(usize::from(CHUNK_COUNT) * CHUNK_BYTES, PAGE_BYTES).expect("constant and small")
}

fn ring_layout() -> Layout {
    Layout::from_size_align(usize::from(CHUNK_COUNT) * size_of::<BufRingEntry>(), PAGE_BYTES)
        .expect("constant and small")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: both layouts have a size above zero.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

impl Buffers {
    /// All buffers, free and visible to the kernel once [`Buffers::ring_address`] is registered.
    pub(super) fn new() -> Rc<Buffers> {
        let buffers = Rc::new(Buffers {
            data: allocate(data_layout()),
            ring: allocate(ring_layout()).cast(),
            tail: Cell::new(0),
            free_count: Cell::new(0),
        });
        (0..CHUNK_COUNT).for_each(|id| buffers.give(id));
        buffers
    }

    /// The address to register with the kernel.
    pub(super) fn ring_address(&self) -> u64 {
        self.ring.as_ptr() as u64
    }

    /// How many buffers the kernel may still fill.
    pub(super) fn free_count(&self) -> u16 {
        self.free_count.get()
    }

    /// Takes over buffer `id`, of which the kernel filled `len` bytes.
    ///
    /// # Safety
    /// A receive completion must just have handed this buffer over, with this length, and this must be the
    /// only chunk made of it.
    pub(super) unsafe fn take(self: &Rc<Self>, id: u16, len: u32) -> Filled {
        debug_assert!(id < CHUNK_COUNT && len as usize <= CHUNK_BYTES);
        self.free_count.set(self.free_count.get() - 1);
        Filled { buffers: self.clone(), id, len }
    }

    /// Hands buffer `id` to the kernel.
    fn give(&self, id: u16) {
        let tail = self.tail.get();
        // SAFETY: 1. the index is below CHUNK_COUNT, so the entry lies in the ring's allocation; 2. entries
        // behind the published tail belong to user space; 3. the offset into the data lies inside it.
        unsafe {
            let entry = &mut *self.ring.as_ptr().add(usize::from(tail & (CHUNK_COUNT - 1)));
            entry.set_addr(self.data.as_ptr().add(usize::from(id) * CHUNK_BYTES) as u64);
            entry.set_len(CHUNK_BYTES as u32);
            entry.set_bid(id);
        }
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        self.free_count.set(self.free_count.get() + 1);
        // SAFETY: the tail field lies in the first entry, which is allocated and initialised; the kernel
        // reads it concurrently, so it is written as an atomic, after the entry.
        unsafe {
            let shared = BufRingEntry::tail(self.ring.as_ptr()).cast::<AtomicU16>();
            (*shared).store(tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with these layouts. `Net` drops its share only after every operation on
        // its ring has ended, and chunks hold the other shares, so that neither the kernel nor another thread
        // uses the memory.
        unsafe {
            dealloc(self.data.as_ptr(), data_layout());
            dealloc(self.ring.as_ptr().cast(), ring_layout());
        }
    }
}

/// Received bytes in a buffer of the kernel's pool, which goes back to the pool when the chunk is dropped.
/// Chunks are few ([`CHUNK_COUNT`] a ring): copy what has to stay.
pub struct Filled {
    buffers: Rc<Buffers>,
    id: u16,
    len: u32,
}

impl Deref for Filled {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the chunk owns this buffer until it is dropped, and the kernel filled `len` bytes of it.
        unsafe {
            let start = self.buffers.data.as_ptr().add(usize::from(self.id) * CHUNK_BYTES);
            std::slice::from_raw_parts(start, self.len as usize)
        }
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        self.buffers.give(self.id);
    }
}
