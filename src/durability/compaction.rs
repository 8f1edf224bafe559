//! When a shard's log is compacted: at a limit, or earlier while the load is low. It only decides.

use shard::analytics::load::{self, LoadProfile, Outlook, Verdict};
use wal::{Log, OsDisk};

use crate::config::Config;

/// From this share of a limit on, a log is compacted when the load is low.
const EARLY_SHARE: f64 = 0.5;

/// How often the load is measured.
const MEASURE_INTERVAL_MS: u64 = 1000;

/// Decides when one shard's log is compacted.
pub struct CompactionPolicy {
    /// The limits of this shard's log; 0 for none.
    entries_max: u64,
    size_bytes_max: u64,
    /// None without analytics.
    load: Option<LoadProfile>,
    next_measurement_ms: u64,
}

/// Whether a log is to be compacted now, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A limit is reached: now, whatever the load.
    LimitReached,
    /// Now, while the load is low.
    LowLoad,
    /// Not yet: the log is short.
    ShortLog,
    /// Only at a limit: nothing is known about the load.
    NoAnalytics,
    /// Only at a limit, or once the load allows it.
    Waits(Verdict),
}

impl Decision {
    /// Whether it is now.
    pub fn is_now(self) -> bool {
        matches!(self, Decision::LimitReached | Decision::LowLoad)
    }

    /// The reason in a word, as `COMPACT WHEN` shows it.
    pub fn reason(self) -> &'static str {
        match self {
            Decision::LimitReached => "limit-reached",
            Decision::LowLoad | Decision::Waits(Verdict::Low) => "low-load",
            Decision::ShortLog => "short-log",
            Decision::NoAnalytics => "no-analytics",
            Decision::Waits(Verdict::TooLittleData) => "too-little-data",
            Decision::Waits(Verdict::LowerAhead) => "lower-load-ahead",
            Decision::Waits(Verdict::AboveForecast) => "above-forecast",
            Decision::Waits(Verdict::Flat) => "flat-load",
        }
    }
}

/// What a log of `fill` times its limit asks for, given the load.
pub fn decide(fill: f64, outlook: Option<&Outlook>) -> Decision {
    if fill > 1.0 {
        return Decision::LimitReached;
    }
    let Some(outlook) = outlook else { return Decision::NoAnalytics };
    match outlook.verdict() {
        _ if fill < EARLY_SHARE => Decision::ShortLog,
        Verdict::Low => Decision::LowLoad,
        verdict => Decision::Waits(verdict),
    }
}

impl CompactionPolicy {
    /// Has measured nothing yet.
    pub fn new(config: &Config) -> CompactionPolicy {
        // The limits are for all shards together.
        let share = |limit: u64| limit.div_ceil(config.shard_count() as u64);
        CompactionPolicy {
            entries_max: share(config.max_wal_entries),
            size_bytes_max: share(config.max_wal_size),
            load: config.enable_analytics.then(LoadProfile::new),
            next_measurement_ms: 0,
        }
    }

    /// Measures the load, if it is time to; `operations` are those that were executed so far, `unix_ms` is what the
    /// wall clock shows.
    pub fn measure(&mut self, operations: impl FnOnce() -> u64, uptime_ms: u64, now_ms: u64, unix_ms: u64) {
        if let Some(load) = &mut self.load
            && uptime_ms >= self.next_measurement_ms
        {
            self.next_measurement_ms = uptime_ms + MEASURE_INTERVAL_MS;
            load.observe(operations(), now_ms, unix_ms);
        }
    }

    /// What is known of the hours of the week, for keeping; none without analytics.
    pub fn load_to_keep(&self) -> Option<[u8; load::BYTES]> {
        self.load.as_ref().map(LoadProfile::to_bytes)
    }

    /// Takes what [`CompactionPolicy::load_to_keep`] gave an earlier process; `false` if these bytes are none of it.
    pub fn restore_load(&mut self, kept: &[u8]) -> bool {
        let Some(load) = &mut self.load else { return true };
        let Some(profile) = LoadProfile::from_bytes(kept) else { return false };
        *load = profile;
        true
    }

    /// The length of the log in terms of the limit that it is closest to; 0 without limits.
    pub fn fill(&self, log: &Log<OsDisk>) -> f64 {
        let share = |now: u64, limit: u64| if limit == 0 { 0.0 } else { now as f64 / limit as f64 };
        share(log.entries(), self.entries_max).max(share(log.size_bytes(), self.size_bytes_max))
    }

    /// What the load was and will be from `unix_ms` on, by the wall clock; none without analytics.
    pub fn outlook(&self, unix_ms: u64) -> Option<Outlook> {
        self.load.as_ref().map(|load| load.outlook(unix_ms))
    }

    /// Whether the log is to be compacted now, and why.
    pub fn decide(&self, log: &Log<OsDisk>, unix_ms: u64) -> Decision {
        decide(self.fill(log), self.outlook(unix_ms).as_ref())
    }
}

#[cfg(test)]
mod tests {
    use shard::analytics::load::AHEAD;

    use super::*;

    #[test]
    fn decisions() {
        let outlook = |now: f32, later: f32, rate: f32, hours_known: usize| {
            let mut forecast = [1000.0; AHEAD];
            (forecast[0], forecast[9]) = (now, later);
            Some(Outlook { rate, hours_known, forecast })
        };
        let (low, high) = (outlook(100.0, 1000.0, 90.0, AHEAD), outlook(1000.0, 100.0, 900.0, AHEAD));
        let (new, busy) = (outlook(100.0, 1000.0, 90.0, 23), outlook(100.0, 1000.0, 900.0, AHEAD));
        let flat = outlook(1000.0, 1000.0, 900.0, AHEAD);
        for (fill, outlook, decision) in [
            // A limit wins, whatever the load.
            (1.01, None, Decision::LimitReached),
            (1.01, high, Decision::LimitReached),
            (1.01, new, Decision::LimitReached),
            // Up to it nothing happens without analytics, or without data.
            (1.0, None, Decision::NoAnalytics),
            (1.0, new, Decision::Waits(Verdict::TooLittleData)),
            // From half of it on, the load decides.
            (1.0, low, Decision::LowLoad),
            (0.5, low, Decision::LowLoad),
            (0.5, high, Decision::Waits(Verdict::LowerAhead)),
            (0.5, busy, Decision::Waits(Verdict::AboveForecast)),
            (0.5, flat, Decision::Waits(Verdict::Flat)),
            (0.49, low, Decision::ShortLog),
            (0.0, high, Decision::ShortLog),
        ] {
            assert_eq!(decide(fill, outlook.as_ref()), decision, "{fill} {outlook:?}");
            let is_now = matches!(decision, Decision::LimitReached | Decision::LowLoad);
            assert_eq!(decision.is_now(), is_now);
        }
    }
}
