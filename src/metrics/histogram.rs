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

    /// Within how many nanoseconds this share of all ended, as far as the buckets tell: within one of them, things
    /// are taken to lie evenly. 0 where there are none.
    pub fn quantile_ns(&self, share: f64) -> f64 {
        let wanted = share * self.count() as f64;
        let (mut below, mut from) = (0.0, 0.0);
        for (place, in_bucket) in self.buckets.iter().enumerate() {
            let Some(to) = BOUNDS_NS.get(place).map(|bound| *bound as f64) else { break };
            if *in_bucket > 0 && below + *in_bucket as f64 >= wanted {
                return from + (to - from) * (wanted - below) / *in_bucket as f64;
            }
            (below, from) = (below + *in_bucket as f64, to);
        }
        if self.count() > 0 { from } else { 0.0 }
    }

    /// Takes away what was counted up to then.
    pub fn subtract(&mut self, earlier: &Histogram) {
        self.buckets.iter_mut().zip(earlier.buckets).for_each(|(now, then)| *now = now.saturating_sub(then));
        self.sum_ns = self.sum_ns.saturating_sub(earlier.sum_ns);
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
    fn a_quantile_lies_within_the_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile_ns(0.5), 0.0);
        histogram.record_many(Duration::from_nanos(20_000), 100); // From 10 to 50 us.
        assert_eq!(histogram.quantile_ns(0.5), 30_000.0);
        histogram.record_many(Duration::from_mins(1), 100);
        assert_eq!(histogram.quantile_ns(0.25), 30_000.0);
        assert_eq!(histogram.quantile_ns(0.99), 10_000_000_000.0, "as far as it is told");
    }

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
