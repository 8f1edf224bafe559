//! The buffers that the epoll backend receives into: each is taken from the pool and goes back when its chunk is
//! dropped. The one that came back last is the next: its memory is in the cache.

use std::cell::RefCell;
use std::io;
use std::ops::Deref;
use std::rc::Rc;

use super::buffers::{CHUNK_BYTES, CHUNK_COUNT};

pub(super) struct Pool(RefCell<Free>);

struct Free {
    buffers: Vec<Box<[u8]>>,
    /// How many were never used and have no memory.
    unmade: usize,
}

impl Pool {
    pub fn new() -> Rc<Pool> {
        Rc::new(Pool(RefCell::new(Free { buffers: Vec::new(), unmade: CHUNK_COUNT.into() })))
    }

    /// How many buffers are free.
    pub fn free_count(&self) -> usize {
        let free = self.0.borrow();
        free.buffers.len() + free.unmade
    }

    /// Has `read` fill a free buffer, of which there must be one. Nothing that was read is no chunk.
    pub fn fill(
        self: &Rc<Self>,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Option<PooledChunk>> {
        let mut buffer = self.take();
        match read(&mut buffer) {
            Ok(len) if len > 0 => Ok(Some(PooledChunk { pool: self.clone(), buffer, len })),
            other => {
                self.0.borrow_mut().buffers.push(buffer);
                other.map(|_| None)
            }
        }
    }

    fn take(&self) -> Box<[u8]> {
        let mut free = self.0.borrow_mut();
        free.buffers.pop().unwrap_or_else(|| {
            free.unmade -= 1;
            vec![0; CHUNK_BYTES].into()
        })
    }
}

/// Received bytes in a buffer of the pool.
pub struct PooledChunk {
    pool: Rc<Pool>,
    buffer: Box<[u8]>,
    len: usize,
}

impl Deref for PooledChunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for PooledChunk {
    fn drop(&mut self) {
        self.pool.0.borrow_mut().buffers.push(std::mem::take(&mut self.buffer));
    }
}
