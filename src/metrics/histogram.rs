//! How long things took, in a few fixed buckets.

use std::time::Duration;

/// Where the buckets end, in nanoseconds; what takes longer goes into one more.
pub const BOUNDS_NS: [u64; 13] = [
    1_000,
    10_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// How long things took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many ended within each bucket, and not within the one before.
    pub buckets: [u64; BOUNDS_NS.len() + 1],
    /// How long all of them took together, in nanoseconds.
    pub sum_ns: u64,
}

impl Histogram {
    /// Counts something that took so long.
    #[inline]
    pub fn record(&mut self, took: Duration) {
        self.record_many(took, 1);
    }

    /// Counts so many things that took so long each.
    #[inline]
    pub fn record_many(&mut self, took: Duration, count: u64) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS_NS.partition_point(|bound| *bound < ns)] += count;
        self.sum_ns = self.sum_ns.saturating_add(ns.saturating_mul(count));
    }

    /// How many things were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl std::ops::AddAssign<&Histogram> for Histogram {
    fn add_assign(&mut self, other: &Histogram) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, count)| *sum += count);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_took_as_long_as_its_bound_and_no_longer() {
        let mut histogram = Histogram::default();
        let [first, second, .., last] = BOUNDS_NS;
        for ns in [0, first, first + 1, second, last + 1] {
            histogram.record(Duration::from_nanos(ns));
        }
        histogram.record_many(Duration::from_nanos(last), 3);
        assert_eq!(histogram.buckets, [2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1]);
        assert_eq!(histogram.count(), 8);
        assert_eq!(histogram.sum_ns, first + first + 1 + second + last + 1 + 3 * last);
    }
}
