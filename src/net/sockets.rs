//! The sockets of a backend, by their names, and what both backends know of one.

use std::os::fd::{AsRawFd, OwnedFd};

use super::{Outbound, SocketId};

/// A name comes back only after its index has served so many sockets and one.
pub(super) const GENERATION_MASK: u32 = 0xff_ffff;

/// Sockets by their names.
pub(super) struct Sockets<S> {
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
}

struct Slot<S> {
    generation: u32,
    socket: Option<S>,
}

impl<S> Default for Sockets<S> {
    fn default() -> Sockets<S> {
        Sockets { slots: Vec::new(), free: Vec::new() }
    }
}

impl<S> Sockets<S> {
    pub fn insert(&mut self, socket: S) -> SocketId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, socket: None });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.socket.is_none(), "a free slot has no socket");
        slot.socket = Some(socket);
        SocketId { index, generation: slot.generation }
    }

    #[inline]
    pub fn get(&self, id: SocketId) -> Option<&S> {
        self.slots.get(id.index as usize).filter(|slot| slot.generation == id.generation)?.socket.as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, id: SocketId) -> Option<&mut S> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.socket.as_mut().filter(|_| slot.generation == id.generation)
    }

    /// Takes a socket out, whose name is not known from then on.
    pub fn remove(&mut self, id: SocketId) -> Option<S> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        let socket = slot.socket.take()?;
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        self.free.push(id.index);
        Some(socket)
    }

    pub fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// The names of all sockets.
    pub fn ids(&self) -> Vec<SocketId> {
        let slots = self.slots.iter().zip(0..);
        let taken = slots.filter(|(slot, _)| slot.socket.is_some());
        taken.map(|(slot, index)| SocketId { index, generation: slot.generation }).collect()
    }

    /// The next socket at this index has this generation.
    #[cfg(test)]
    pub fn set_generation(&mut self, index: u32, generation: u32) {
        self.slots[index as usize].generation = generation;
    }
}

/// A send on its way.
#[derive(Debug)]
pub(super) struct Outgoing {
    bytes: Outbound,
    sent: usize,
}

impl Outgoing {
    pub fn new(bytes: Outbound) -> Outgoing {
        Outgoing { bytes, sent: 0 }
    }

    /// What has not left.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// So many more bytes have left.
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
    }

    pub fn is_done(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// The memory for reuse, emptied; a new one where it is shared.
    pub fn into_buffer(self) -> Vec<u8> {
        match self.bytes {
            Outbound::Owned(mut buffer) => {
                buffer.clear();
                buffer
            }
            Outbound::Shared(_) => Vec::new(),
        }
    }
}

/// How many bytes the peer has taken: those it has acknowledged over TCP; over a Unix socket, which has no such count,
/// those of the send on its way that have left.
#[allow(unsafe_code)]
pub(super) fn taken_bytes(socket: &OwnedFd, sending: Option<&Outgoing>) -> Option<u64> {
    /// Where `tcpi_bytes_acked` lies in the kernel's `struct tcp_info`, whose fields keep their places for ever.
    const BYTES_ACKED_AT: usize = 120;
    const WORD: usize = size_of::<u64>();
    let mut info = [0u64; BYTES_ACKED_AT / WORD + 1];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: 1. the kernel writes at most `len` bytes to `info`, which is as long; 2. the descriptor is open.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result == 0 && len as usize == size_of_val(&info) {
        return Some(info[BYTES_ACKED_AT / WORD]);
    }
    sending.map(|sending| sending.sent as u64)
}
