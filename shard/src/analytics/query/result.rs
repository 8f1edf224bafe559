//! What shards have found, and how the results of several become one.

use super::question::Question;
use crate::analytics::Analytics;
use crate::analytics::anomalies::Finding;
use crate::analytics::classes::Class;
use crate::analytics::hot::{By, HotKey};
use crate::analytics::intervals::Histogram;
use crate::analytics::reuse::Curve;

/// What one shard, or several, have found. Only the fields that the question is about are filled.
#[derive(Debug, Default)]
pub struct QueryResult {
    pub(super) hot: Vec<Hot>,
    pub(super) cold: Vec<Cold>,
    /// What ranks no higher than this is not among those asked for.
    pub(super) floor: f64,
    pub(super) prefixes: Vec<Prefix>,
    pub(super) intervals: Vec<Intervals>,
    pub(super) curves: Vec<Curve>,
    pub(super) memory_bytes: u64,
    pub(super) hits: u64,
    pub(super) lookups: u64,
    pub(super) anomalies: Vec<(usize, Finding)>,
    pub(super) status: Status,
}

#[derive(Debug, Default)]
pub(super) struct Hot {
    pub(super) key: Vec<u8>,
    pub(super) reads: u64,
    pub(super) writes: u64,
    /// No such key exists: it is looked for in vain.
    pub(super) is_missing: bool,
    pub(super) of_late: Option<HotKey>,
}

#[derive(Debug)]
pub(super) struct Cold {
    pub(super) key: Vec<u8>,
    pub(super) bytes: u64,
    pub(super) idle_s: u32,
}

#[derive(Debug)]
pub(super) struct Prefix {
    pub(super) class: Class,
    pub(super) keys: u64,
    pub(super) bytes: u64,
}

/// How long the keys of a class, or one of them, rest between two uses.
#[derive(Debug)]
pub(super) struct Intervals {
    pub(super) class: Vec<u8>,
    /// Whether it is about the key that was asked for alone.
    pub(super) of_key: bool,
    pub(super) closed: Histogram,
    pub(super) open: Histogram,
    pub(super) watched_ms: u64,
    /// The size of the key and its value; of a class, the walk finds it out.
    pub(super) bytes: u64,
}

/// How much is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Status {
    pub(super) memory_bytes: u64,
    pub(super) classes: u64,
    pub(super) series: u64,
    pub(super) series_ready: u64,
    pub(super) watched_ms: u64,
}

impl Status {
    pub(super) fn of(analytics: &Analytics) -> Status {
        let (series, series_ready) = analytics.detector.series_counts();
        Status {
            memory_bytes: analytics.memory_bytes() as u64,
            classes: analytics.classes.iter().count() as u64,
            series: series as u64,
            series_ready: series_ready as u64,
            watched_ms: analytics.watched_ms(),
        }
    }
}

impl Hot {
    pub(super) fn rank(&self, by: By, total: bool) -> f64 {
        match (&self.of_late, total, by) {
            (Some(hot), false, By::Operations) => hot.reads + hot.writes + hot.misses,
            (Some(hot), false, By::Reads) => hot.reads,
            (Some(hot), false, By::Writes) => hot.writes,
            (Some(hot), false, By::Bytes) => hot.bytes,
            (_, _, By::Reads) => self.reads as f64,
            (_, _, By::Writes) => self.writes as f64,
            (_, _, By::Operations | By::Bytes) => (self.reads + self.writes) as f64,
        }
    }
}

impl QueryResult {
    /// Adds what another shard has found.
    pub fn add(&mut self, other: QueryResult, question: &Question) {
        self.hot.extend(other.hot);
        self.cold.extend(other.cold);
        for prefix in other.prefixes {
            match self.prefixes.iter_mut().find(|known| known.class.name == prefix.class.name) {
                Some(known) => {
                    known.class.add(&prefix.class);
                    known.keys += prefix.keys;
                    known.bytes += prefix.bytes;
                }
                None => self.prefixes.push(prefix),
            }
        }
        for intervals in other.intervals {
            let same =
                |known: &&mut Intervals| known.class == intervals.class && known.of_key == intervals.of_key;
            match self.intervals.iter_mut().find(same) {
                Some(known) => {
                    known.closed.add(&intervals.closed);
                    known.open.add(&intervals.open);
                    known.watched_ms = known.watched_ms.min(intervals.watched_ms);
                }
                None => self.intervals.push(intervals),
            }
        }
        self.curves.extend(other.curves);
        self.memory_bytes += other.memory_bytes;
        self.hits += other.hits;
        self.lookups += other.lookups;
        self.anomalies.extend(other.anomalies);
        self.status.memory_bytes += other.status.memory_bytes;
        self.status.classes += other.status.classes;
        self.status.series += other.status.series;
        self.status.series_ready += other.status.series_ready;
        self.status.watched_ms = self.status.watched_ms.max(other.status.watched_ms);
        self.prune(question);
    }

    /// Drops what is not among those asked for, once there is much of it.
    pub(super) fn prune(&mut self, question: &Question) {
        match *question {
            Question::Hot { count, by, total, .. } => {
                let rank = |hot: &Hot| hot.rank(by, total);
                self.floor = keep_best(&mut self.hot, count, rank, |hot| &hot.key).unwrap_or(self.floor);
            }
            Question::Cold { count, .. } => {
                let rank = |cold: &Cold| cold.bytes as f64;
                self.floor = keep_best(&mut self.cold, count, rank, |cold| &cold.key).unwrap_or(self.floor);
            }
            _ => {}
        }
    }
}

/// Keeps about the `count` best once there are twice as many; the rank of the last one kept, if it did.
fn keep_best<T>(
    items: &mut Vec<T>,
    count: usize,
    rank: impl Fn(&T) -> f64,
    key: impl Fn(&T) -> &Vec<u8>,
) -> Option<f64> {
    items.sort_by(|a, b| rank(b).total_cmp(&rank(a)).then_with(|| key(a).cmp(key(b))));
    items.truncate(count);
    (items.len() == count).then(|| items.last().map_or(0.0, &rank))
}
