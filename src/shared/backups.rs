//! How backups go.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use shard::Error;

/// How the backup goes that is being made, and how the last one went; for clients that ask.
#[derive(Debug, Default)]
pub struct Backups {
    running: AtomicBool,
    copied_bytes: AtomicU64,
    total_bytes: AtomicU64,
    last_ms: AtomicU64,
    last_failed: AtomicBool,
}

impl Backups {
    /// How much of a backup is copied, in percent, if one is being made.
    pub fn percent(&self) -> Option<u64> {
        let copied = u128::from(self.copied_bytes.load(Ordering::Relaxed));
        let total = u128::from(self.total_bytes.load(Ordering::Relaxed).max(1));
        self.running.load(Ordering::Relaxed).then_some((copied * 100 / total).min(100) as u64)
    }

    /// When the last complete backup since the start was complete, in the server's time, if there is one.
    pub fn last_ms(&self) -> Option<u64> {
        Some(self.last_ms.load(Ordering::Relaxed)).filter(|ms| *ms != 0)
    }

    /// Whether the last backup that was begun has failed.
    pub fn last_failed(&self) -> bool {
        self.last_failed.load(Ordering::Relaxed)
    }

    /// Takes the right to make a backup, which only one has.
    ///
    /// # Errors
    /// When it is taken.
    pub fn begin(&self) -> Result<(), Error> {
        match self.running.swap(true, Ordering::Acquire) {
            true => Err(Error::Unavailable("a backup is being made already")),
            false => Ok(()),
        }
    }

    /// Notes how much there is to copy.
    pub fn begin_copying(&self, total_bytes: u64) {
        self.copied_bytes.store(0, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
    }

    /// Notes that so many more bytes are copied; returns how many are.
    pub fn note_copied(&self, bytes: u64) -> u64 {
        self.copied_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    /// Gives it back, `now_ms` being the server's time.
    pub fn end(&self, has_failed: bool, now_ms: u64) {
        self.last_failed.store(has_failed, Ordering::Relaxed);
        if !has_failed {
            self.last_ms.store(now_ms, Ordering::Relaxed);
        }
        self.running.store(false, Ordering::Release);
    }
}
