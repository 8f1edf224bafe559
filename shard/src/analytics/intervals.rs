//! How long keys rest between two uses, and the TTL that follows: [`Histogram`], [`Tracker`], [`suggest`].

use super::classes::ClassId;

/// Buckets of a histogram: one for each millisecond below 8, then four for each doubling, up to 2^32 ms.
pub const BUCKETS: usize = 124;

/// How often each length of time was seen, in steps of at most a quarter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u32; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [0; BUCKETS] }
    }
}

impl Histogram {
    /// Counts a length of time, in milliseconds.
    pub fn record(&mut self, ms: u64, weight: u32) {
        let count = &mut self.counts[bucket(ms)];
        match count.checked_add(weight) {
            Some(sum) => *count = sum,
            None => self.halve(),
        }
    }

    /// Makes everything counted so far count half.
    pub fn halve(&mut self) {
        self.counts.iter_mut().for_each(|count| *count /= 2);
    }

    /// Adds the counts of another one.
    pub fn add(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
    }

    /// The number of lengths that were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// The length, in milliseconds, that the share `quantile` of all stays below or at; `None` if nothing was counted.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0;
        (0..BUCKETS)
            .find(|index| {
                below += u64::from(self.counts[*index]);
                below >= rank
            })
            .map(|index| bucket_end(index) - 1)
    }
}

fn bucket(ms: u64) -> usize {
    if ms < 8 {
        return ms as usize;
    }
    let octave = ms.ilog2() as usize;
    let quarter = (ms >> (octave - 2)) as usize & 3;
    (8 + (octave - 3) * 4 + quarter).min(BUCKETS - 1)
}

/// The first length that no longer belongs to the bucket.
fn bucket_end(index: usize) -> u64 {
    let next = index + 1;
    if next <= 8 {
        return next as u64;
    }
    let (octave, quarter) = ((next - 8) / 4 + 3, (next - 8) % 4);
    (4 + quarter as u64) << (octave - 2)
}

/// When each of a sample of the keys was used last.
#[derive(Debug, Default)]
pub struct Tracker {}

impl Tracker {
    /// Whether the uses of a key with this hash are to be told to [`Tracker::touch`].
    #[inline]
    pub fn tracks(&self, _hash: u32) -> bool {
        false
    }

    /// A tracked key was used: how long ago it was used before, in milliseconds.
    pub fn touch(&mut self, _hash: u32, _class: ClassId, _now_ms: u64) -> Option<u64> {
        None
    }

    /// A key was removed on purpose. That it expired or was evicted is not to be told.
    pub fn remove(&mut self, _hash: u32) {}

    /// Forgets all keys.
    pub fn clear(&mut self) {}

    /// How long ago the tracked keys of this class, or all of them, were used last.
    pub fn open(&self, _class: Option<ClassId>, _now_ms: u64) -> Histogram {
        Histogram::default()
    }

    /// The memory that is held, in bytes. At most 256 KiB.
    pub fn memory_bytes(&self) -> usize {
        0
    }
}

/// A TTL, and what is to be expected of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suggestion {
    /// The TTL, in seconds.
    pub ttl_s: u64,
    /// The share of re-accesses that will still find the key.
    pub expected_hit_ratio: f64,
    /// The number of re-accesses that this was learnt from.
    pub observations: u64,
    /// The share of keys that have rested longer by now, whose memory the TTL would give back.
    pub idle_share: f64,
}

/// Why no TTL can be suggested.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refusal {
    /// Too few re-accesses were seen.
    FewObservations {
        /// How many it takes.
        needed: u64,
        /// How many there are.
        have: u64,
    },
    /// The TTL would be long in comparison with the time that was watched.
    ShortTime {
        /// How many seconds it takes at least.
        needed_s: u64,
        /// How many seconds were watched.
        have_s: u64,
    },
    /// The target is not above 0 and below 1.
    Target,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::FewObservations { needed, have } => {
                write!(f, "{have} re-accesses were seen, {needed} are needed")
            }
            Refusal::ShortTime { needed_s, have_s } => {
                write!(f, "{have_s} seconds were watched, {needed_s} are needed")
            }
            Refusal::Target => write!(f, "the target is not between 0 and 1"),
        }
    }
}

/// The shortest TTL, counted from the last use, that keeps the share `target` of re-accesses hits.
///
/// # Errors
/// If the data is too short to say.
pub fn suggest(
    _closed: &Histogram,
    _open: &Histogram,
    _target: f64,
    _watched_ms: u64,
) -> Result<Suggestion, Refusal> {
    Err(Refusal::FewObservations { needed: 1, have: 0 })
}
