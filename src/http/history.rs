//! The load of the last hour, shard by shard. It is noted always, from what workers publish; its room is bounded.

use std::collections::VecDeque;
use std::time::Duration;

use crate::shared::Shared;

/// How often it is noted.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// How many times are kept: those of an hour, and the one before.
const SAMPLES_MAX: usize = 361;

/// The load of the last hour.
#[derive(Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
}

/// What was known at one time.
struct Sample {
    /// When, in milliseconds from the start of the server.
    at_ms: u64,
    /// Of each shard, when it told and how often it had read and written by then.
    shards: Box<[(u64, u64)]>,
}

/// The load of one shard: when, in milliseconds from the start of the server, and reads and writes per second up to
/// then.
pub(super) type Rates = Vec<(u64, f64)>;

impl History {
    /// Takes note of now.
    pub fn note(&mut self, shared: &Shared) {
        let at_ms = shared.started.elapsed().as_millis() as u64;
        let told = shared.published().into_iter();
        let shards = told
            .map(|it| it.map_or((0, 0), |it| (it.at_ms, it.report.shard.reads + it.report.shard.writes)))
            .collect();
        self.add(Sample { at_ms, shards });
    }

    fn add(&mut self, sample: Sample) {
        self.samples.push_back(sample);
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
    }

    /// The load of each shard, the oldest first.
    pub fn rates(&self) -> Vec<Rates> {
        let shards = self.samples.back().map_or(0, |last| last.shards.len());
        let between = self.samples.iter().zip(self.samples.iter().skip(1));
        let rate = |shard: usize| {
            between.clone().map(move |(from, to)| {
                let ((from_ms, before), (to_ms, after)) = (from.shards[shard], to.shards[shard]);
                // A shard that has told nothing meanwhile has done nothing, as far as is known.
                let done = after.saturating_sub(before) as f64;
                (to.at_ms, done * 1000.0 / to_ms.saturating_sub(from_ms).max(1) as f64)
            })
        };
        (0..shards).map(|shard| rate(shard).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_that_has_passed_and_an_hour_is_kept() {
        let mut history = History::default();
        for index in 0..500 {
            let at_ms = index * 10_000;
            let hangs_from = 490_u64.min(index);
            history.add(Sample {
                at_ms,
                shards: [(at_ms, index * 1000), (hangs_from * 10_000, hangs_from * 20)].into(),
            });
        }
        let rates = history.rates();
        assert_eq!(rates.iter().map(Vec::len).collect::<Vec<_>>(), [360, 360]);
        assert_eq!(rates[0].first(), Some(&(1_400_000, 100.0)));
        assert_eq!((rates[1][340], rates[1].last()), ((4_800_000, 2.0), Some(&(4_990_000, 0.0))));
    }
}
