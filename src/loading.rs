//! How far the shards are with reading their files back: noted now and then by the threads that read, for
//! whoever asks meanwhile. It reads no file itself.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The loading of all shards. It is over when the last one is in memory: then all begin to serve.
#[derive(Debug)]
pub struct Loading {
    shards: Box<[Progress]>,
    left: AtomicUsize,
}

/// How far one shard is.
#[derive(Debug, Default)]
pub struct Progress {
    read_bytes: AtomicU64,
    total_bytes: AtomicU64,
    keys: AtomicU64,
}

/// How far all shards are together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of files that were read, unused room included.
    pub read_bytes: u64,
    /// Bytes of all files, as far as they were looked at.
    pub total_bytes: u64,
    /// Keys in memory.
    pub keys: u64,
}

impl Loading {
    /// `shard_count` shards of which nothing is read yet.
    pub fn new(shard_count: usize) -> Loading {
        let shards = (0..shard_count).map(|_| Progress::default()).collect();
        Loading { shards, left: AtomicUsize::new(shard_count) }
    }

    /// Where the progress of one shard is noted.
    pub fn shard(&self, index: usize) -> &Progress {
        &self.shards[index]
    }

    /// Notes that a shard is in memory. Returns whether it was the last.
    pub fn finish(&self, index: usize) -> bool {
        let Progress { read_bytes, total_bytes, .. } = &self.shards[index];
        read_bytes.store(total_bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        // Whoever learns that nothing is left finds every worker with its shard.
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether every shard is in memory.
    pub fn is_over(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// How far it is.
    pub fn extent(&self) -> Extent {
        self.shards.iter().fold(Extent::default(), |sum, shard| Extent {
            read_bytes: sum.read_bytes + shard.read_bytes.load(Ordering::Relaxed),
            total_bytes: sum.total_bytes + shard.total_bytes.load(Ordering::Relaxed),
            keys: sum.keys + shard.keys.load(Ordering::Relaxed),
        })
    }
}

impl Progress {
    /// Notes that `read_bytes` of `total_bytes` were read, and that they gave so many keys.
    pub fn note(&self, read_bytes: u64, total_bytes: u64, keys: usize) {
        self.read_bytes.store(read_bytes, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.keys.store(keys as u64, Ordering::Relaxed);
    }
}

impl Extent {
    /// The part that was read, in whole percent; below 100, since what is whole is no longer asked about.
    pub fn percent(&self) -> u8 {
        let percent = u128::from(self.read_bytes) * 100 / u128::from(self.total_bytes.max(1));
        percent.min(99) as u8
    }
}

/// What a worker has from the moment on at which its shard is in memory. Until then nobody may ask for it: no
/// command on keys runs before every shard is there.
#[derive(Debug)]
pub struct Loaded<T>(Option<T>);

impl<T> Loaded<T> {
    /// Not there yet.
    pub fn not_yet() -> Loaded<T> {
        Loaded(None)
    }

    /// There from now on.
    pub fn set(&mut self, value: T) {
        self.0 = Some(value);
    }

    /// What is there, if it is.
    pub fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }

    /// Takes it out, if it is there.
    pub fn into_inner(self) -> Option<T> {
        self.0
    }
}

const TOO_EARLY: &str = "nothing is asked of a shard that is not loaded";

impl<T> Deref for Loaded<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_ref().expect(TOO_EARLY)
    }
}

impl<T> DerefMut for Loaded<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(TOO_EARLY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_of_all_bytes_and_never_whole_before_the_end() {
        let loading = Loading::new(2);
        assert_eq!((loading.extent().percent(), loading.is_over()), (0, false));
        loading.shard(0).note(50, 100, 5);
        loading.shard(1).note(30, 300, 3);
        assert_eq!(loading.extent(), Extent { read_bytes: 80, total_bytes: 400, keys: 8 });
        assert_eq!(loading.extent().percent(), 20);
        assert!(!loading.finish(1));
        assert_eq!((loading.extent().percent(), loading.is_over()), (87, false));
        loading.shard(0).note(100, 100, 9);
        assert_eq!((loading.extent().percent(), loading.is_over()), (99, false));
        assert!(loading.finish(0), "the last one ends it");
        assert!(loading.is_over());
    }
}
