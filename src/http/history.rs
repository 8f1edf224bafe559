//! The load of the last hour, shard by shard. It is noted always, from what workers publish; its room is bounded.

use std::collections::VecDeque;
use std::time::Duration;

use crate::shared::{Published, Shared};

/// How often it is noted.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// How many times are kept: those of an hour, and the one before.
const SAMPLES_MAX: usize = 361;

/// Since the last time that was noted, so many milliseconds have to pass before what was done meanwhile is a rate.
const NEWS_MS: u64 = 3000;

/// The load of the last hour.
#[derive(Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
}

/// What was known at one time.
pub(super) struct Sample {
    /// When, in milliseconds from the start of the server.
    at_ms: u64,
    /// Of each shard, when it told and how often it had read and written by then.
    shards: Box<[(u64, u64)]>,
}

/// The load of one shard: when, in milliseconds from the start of the server, and reads and writes per second up to
/// then.
pub(super) type Rates = Vec<(u64, f64)>;

impl Sample {
    /// What is known now.
    pub fn take(shared: &Shared) -> Sample {
        let told = shared.published().into_iter();
        let done = |it: &Published| it.report.shard.reads + it.report.shard.writes;
        let shards = told.map(|it| it.map_or((0, 0), |it| (it.at_ms, done(&it)))).collect();
        Sample { at_ms: shared.started.elapsed().as_millis() as u64, shards }
    }
}

impl History {
    /// Takes note of this.
    pub fn note(&mut self, sample: Sample) {
        self.samples.push_back(sample);
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
    }

    /// The load of each shard up to now, the oldest first.
    pub fn rates(&self, now: &Sample) -> Vec<Rates> {
        let is_new = |last: &Sample| now.at_ms >= last.at_ms + NEWS_MS;
        let newest = self.samples.back().filter(|last| is_new(last)).map(|_| now);
        let samples = self.samples.iter().chain(newest);
        let between = samples.clone().zip(samples.skip(1));
        let rate = |shard: usize| {
            between.clone().map(move |(from, to)| {
                let ((from_ms, before), (to_ms, after)) = (from.shards[shard], to.shards[shard]);
                // A shard that has told nothing meanwhile has done nothing, as far as is known.
                let done = after.saturating_sub(before) as f64;
                (to.at_ms, done * 1000.0 / to_ms.saturating_sub(from_ms).max(1) as f64)
            })
        };
        (0..now.shards.len()).map(|shard| rate(shard).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_that_has_passed_and_an_hour_is_kept() {
        let mut history = History::default();
        let at = |at_ms: u64| {
            let hangs_at_ms = at_ms.min(4_900_000);
            Sample { at_ms, shards: [(at_ms, at_ms / 10), (hangs_at_ms, hangs_at_ms / 500)].into() }
        };
        assert_eq!(history.rates(&at(5000)), [vec![], vec![]]);
        (0..500).for_each(|index| history.note(at(index * 10_000)));
        let rates = history.rates(&at(4_992_000));
        assert_eq!(rates.iter().map(Vec::len).collect::<Vec<_>>(), [360, 360]);
        assert_eq!(rates[0].first(), Some(&(1_400_000, 100.0)));
        assert_eq!((rates[1][340], rates[1].last()), ((4_800_000, 2.0), Some(&(4_990_000, 0.0))));
        let newest = &history.rates(&at(4_994_000))[0][360];
        assert_eq!(newest, &(4_994_000, 100.0), "what was done since is told once it is a rate");
    }
}
