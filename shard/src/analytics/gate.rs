//! Which keys the costlier analytics follow: those whose hash lies below a limit, in all their uses. Keeps no
//! keys.
//!
//! To choose keys by their hash, not operations at random, keeps the history of each chosen key whole
//! (Waldspurger, Park, Garthwaite, Ahmad, "Efficient MRC Construction with SHARDS", FAST 2015). All keys are
//! followed at first. The limit halves when their table is full, as in the paper, and also when following
//! them costs more than a share of a period; it doubles again after [`CALM_PERIODS`] with little to do.

/// Length of a period, in milliseconds.
const PERIOD_MS: u64 = 64;
/// After so many periods in a row, 16 seconds, that spent less than a quarter of their share, the limit
/// doubles.
const CALM_PERIODS: u64 = 256;
/// At least one hash of two to this power passes.
const SHIFT_MAX: u32 = 24;

/// Lets the uses of some of the keys pass.
#[derive(Debug)]
pub(super) struct Gate {
    limit: u32,
    /// One hash of two to this power passes.
    shift: u32,
    /// How many uses may pass in a period.
    quota: u32,
    passed: u32,
    period_end_ms: u64,
    calm_periods: u64,
}

impl Gate {
    /// A gate that all keys pass, as long as no more than `quota` uses pass in a period of 64 ms.
    pub(super) fn new(quota: u32) -> Self {
        Gate { limit: u32::MAX, shift: 0, quota, passed: 0, period_end_ms: 0, calm_periods: 0 }
    }

    /// Whether a key with this hash is followed.
    #[inline]
    pub(super) fn passes(&self, hash: u32) -> bool {
        hash <= self.limit
    }

    /// For how many keys a key that passes stands.
    pub(super) fn weight(&self) -> f64 {
        f64::from(1u32 << self.shift)
    }

    /// Counts a use that passed. Whether the limit has halved: keys that do not pass any more are to be
    /// dropped. `roomy` says that twice as many keys would find room.
    pub(super) fn count(&mut self, now_ms: u64, roomy: bool) -> bool {
        if now_ms >= self.period_end_ms {
            let silent_periods = (now_ms - self.period_end_ms) / PERIOD_MS;
            let calm = self.passed < self.quota / 4;
            self.calm_periods = if calm { self.calm_periods + 1 + silent_periods } else { 0 };
            if self.calm_periods >= CALM_PERIODS && roomy && self.shift > 0 {
                self.set_shift(self.shift - 1);
            }
            self.passed = 0;
            self.period_end_ms = now_ms + PERIOD_MS - now_ms % PERIOD_MS;
        }
        self.passed += 1;
        self.passed > self.quota && self.halve()
    }

    /// Halves the limit; `false` if it is as low as it gets.
    pub(super) fn halve(&mut self) -> bool {
        if self.shift == SHIFT_MAX {
            return false;
        }
        self.set_shift(self.shift + 1);
        true
    }

    fn set_shift(&mut self, shift: u32) {
        self.shift = shift;
        self.limit = u32::MAX >> shift;
        (self.calm_periods, self.passed) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses keys of all hashes in turn, `count` a millisecond; how many passed in each of `seconds`.
    fn passed(gate: &mut Gate, from_ms: u64, seconds: u64, count: u64) -> Vec<u64> {
        let mut hash = 0u32;
        let second = |second| {
            let times = (0..1000 * count).map(|number| from_ms + second * 1000 + number / count);
            let mut pass = |now_ms| {
                hash = hash.wrapping_add(0x9e37_79b1);
                let passes = gate.passes(hash);
                if passes {
                    gate.count(now_ms, true);
                }
                u64::from(passes)
            };
            times.map(&mut pass).sum()
        };
        (0..seconds).map(second).collect()
    }

    #[test]
    fn the_load_is_bounded_and_comes_back() {
        let mut gate = Gate::new(64);
        assert_eq!(passed(&mut gate, 0, 2, 1), [1000, 1000]);
        let busy = passed(&mut gate, 2000, 20, 100);
        assert!(busy[1..].iter().all(|passed| *passed <= 1050), "{busy:?}");
        assert!(gate.weight() > 100.0);
        passed(&mut gate, 22_000, 200, 1);
        assert!(gate.weight() <= 4.0, "one of {} passes after the storm", gate.weight());
    }

    #[test]
    fn the_limit_stays_where_no_more_keys_find_room() {
        let mut gate = Gate::new(64);
        assert!(gate.halve());
        (0..100).for_each(|second| assert!(!gate.count(second * 1000, false)));
        assert_eq!(gate.weight(), 2.0);
        assert!(gate.passes(u32::MAX / 2) && !gate.passes(u32::MAX / 2 + 1));
        (0..30).for_each(|_| _ = gate.halve());
        assert!(gate.passes(0) && !gate.passes(1 << 8));
    }
}
