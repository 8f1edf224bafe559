//! How far a start is with reading the files back: noted now and then by the threads that read, for clients that ask
//! meanwhile. It reads no file itself.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// The loading of all shards. It is over when the last one is in memory: then all begin to serve.
///
/// Some starts read the files more than once: where there are several shards, to find out which transactions
/// count; where the number of shards has changed, to move the keys. Each time is one step.
#[derive(Debug)]
pub struct Loading {
    steps: usize,
    steps_begun: AtomicUsize,
    /// How many shards the present step reads.
    shards_read: AtomicUsize,
    shards: Box<[Progress]>,
    /// The files of every shard are read back: their logs may be opened.
    is_read: AtomicBool,
    left: AtomicUsize,
    percent_shown: AtomicU8,
    started: Instant,
}

/// How far one shard is in the present step.
#[derive(Debug, Default)]
struct Progress {
    read_bytes: AtomicU64,
    total_bytes: AtomicU64,
    keys: AtomicU64,
}

/// How far all shards are in the present step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Its number, from 1 on.
    pub step: usize,
    /// Bytes of files that were read, unused room included.
    pub read_bytes: u64,
    /// Bytes of all files, as far as they were looked at.
    pub total_bytes: u64,
    /// Keys in memory.
    pub keys: u64,
}

impl Loading {
    /// Nothing is read yet. `steps` steps are to come, the last of which brings `shards` shards into memory; no
    /// other reads more than `shards_max`.
    pub fn new(steps: usize, shards: usize, shards_max: usize) -> Loading {
        Loading {
            steps,
            steps_begun: AtomicUsize::new(0),
            shards_read: AtomicUsize::new(shards),
            shards: (0..shards_max.max(shards)).map(|_| Progress::default()).collect(),
            is_read: AtomicBool::new(false),
            left: AtomicUsize::new(shards),
            percent_shown: AtomicU8::new(0),
            started: Instant::now(),
        }
    }

    /// Begins a step that reads `shards` shards; the one before is done.
    pub fn begin_step(&self, shards: usize) {
        self.shards.iter().for_each(|shard| shard.note(0, 0, 0));
        self.shards_read.store(shards, Ordering::Relaxed);
        self.steps_begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that so many bytes of a shard's files are read, of how many, and that they gave so many keys.
    pub fn note(&self, shard_index: usize, read_bytes: u64, total_bytes: u64, keys: usize) {
        self.shards[shard_index].note(read_bytes, total_bytes, keys);
    }

    /// Notes that the files of every shard are read back and found sound. None of them is changed before.
    pub fn open_logs(&self) {
        self.is_read.store(true, Ordering::Release);
    }

    /// Whether they are.
    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Acquire)
    }

    /// Notes that a shard is in memory. Returns whether it was the last.
    pub fn finish(&self, shard_index: usize, keys: usize) -> bool {
        let shard = &self.shards[shard_index];
        let total_bytes = shard.total_bytes.load(Ordering::Relaxed);
        shard.note(total_bytes, total_bytes, keys);
        // A thread that learns that nothing is left finds every worker with its shard.
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether every shard is in memory.
    pub fn is_over(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// The keys of a shard that are in memory.
    pub fn keys(&self, shard_index: usize) -> u64 {
        self.shards[shard_index].keys.load(Ordering::Relaxed)
    }

    /// How far the present step is.
    pub fn extent(&self) -> Extent {
        let none = Extent { step: self.steps_begun.load(Ordering::Relaxed), ..Extent::default() };
        self.shards.iter().fold(none, |sum, shard| Extent {
            read_bytes: sum.read_bytes + shard.read_bytes.load(Ordering::Relaxed),
            total_bytes: sum.total_bytes + shard.total_bytes.load(Ordering::Relaxed),
            keys: sum.keys + shard.keys.load(Ordering::Relaxed),
            ..sum
        })
    }

    /// How far the whole start is, in percent; it never goes back, and stays below 100, since what is whole is no
    /// longer asked about.
    pub fn percent(&self) -> u8 {
        let of_shards: f64 = self.shards.iter().map(Progress::fraction).sum();
        let of_step = (of_shards / self.shards_read.load(Ordering::Relaxed) as f64).min(1.0);
        let steps_done = self.steps_begun.load(Ordering::Relaxed).saturating_sub(1);
        let percent = ((steps_done as f64 + of_step) / self.steps as f64 * 100.0).min(99.0) as u8;
        percent.max(self.percent_shown.fetch_max(percent, Ordering::Relaxed))
    }

    /// How many seconds are left if it goes on as it went so far.
    pub fn seconds_left(&self) -> u64 {
        let percent = u64::from(self.percent().max(1));
        self.started.elapsed().as_secs() * (100 - percent) / percent
    }
}

impl Progress {
    fn fraction(&self) -> f64 {
        let total_bytes = self.total_bytes.load(Ordering::Relaxed).max(1);
        (self.read_bytes.load(Ordering::Relaxed) as f64 / total_bytes as f64).min(1.0)
    }

    fn note(&self, read_bytes: u64, total_bytes: u64, keys: usize) {
        self.read_bytes.store(read_bytes, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.keys.store(keys as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_of_all_steps_and_never_whole_before_the_end() {
        let loading = Loading::new(2, 2, 3);
        assert_eq!((loading.percent(), loading.is_over()), (0, false));
        loading.begin_step(3);
        loading.note(2, 150, 200, 0);
        assert_eq!(loading.percent(), 12);
        loading.begin_step(2);
        assert_eq!(loading.percent(), 50);
        loading.note(0, 50, 100, 5);
        loading.note(1, 30, 300, 3);
        let expected = Extent { step: 2, read_bytes: 80, total_bytes: 400, keys: 8 };
        assert_eq!((loading.extent(), loading.percent()), (expected, 65));
        loading.note(0, 0, 100, 5);
        assert_eq!(loading.percent(), 65, "it never goes back");
        assert!(!loading.finish(1, 4));
        assert_eq!((loading.percent(), loading.is_over()), (75, false));
        loading.note(0, 100, 100, 9);
        assert_eq!((loading.percent(), loading.is_over()), (99, false));
        assert!(loading.finish(0, 9), "the last one ends it");
        assert!(loading.is_over());
    }
}
