//! A question at one shard: what is answered at once, and the walk over the keys for the rest, in slices.

use std::collections::HashMap;

use super::question::{COUNT_MAX, Question, Subject};
use super::result::{Cold, Hot, Intervals, Prefix, QueryResult, Status};
use crate::analytics::Analytics;
use crate::analytics::class_id::ClassId;
use crate::analytics::classes::Class;
use crate::analytics::hot::By;
use crate::analytics::intervals::Histogram;
use crate::scan::{KEY_STEPS, steps_of};
use crate::stats::Stats;
use crate::store::entry::Entry;
use crate::store::keyspace::Keyspace;

/// A question at one shard, and how far it is answered.
#[derive(Debug)]
pub struct Query {
    question: Question,
    /// Where the walk over the keys goes on; `None`: no more keys are needed.
    position: Option<u64>,
    /// Keys and bytes of the classes.
    sizes: HashMap<ClassId, (u64, u64)>,
    result: QueryResult,
}

impl Query {
    /// Begins to answer.
    pub(crate) fn begin(
        question: Question,
        analytics: &mut Analytics,
        keyspace: &Keyspace,
        stats: Stats,
        shard: usize,
    ) -> Query {
        let mut result = QueryResult::default();
        let walks = match &question {
            Question::Hot { count, by, total: false, .. } => {
                result.hot = hot_of_late(*count, *by, analytics, keyspace);
                false
            }
            Question::Hot { .. } | Question::Cold { .. } | Question::Prefixes { .. } => true,
            Question::Ttl { explain, .. } => {
                result.intervals = intervals(&question, analytics, keyspace);
                *explain
            }
            Question::Cache => {
                result.curves.push(analytics.reuse.curve(stats.hits, stats.misses));
                result.memory_bytes = keyspace.memory_bytes() as u64;
                (result.hits, result.lookups) = (stats.hits, stats.hits + stats.misses);
                false
            }
            Question::Anomalies => {
                let found = analytics.detector.findings(analytics.now_ms);
                result.anomalies = found.into_iter().map(|finding| (shard, finding)).collect();
                false
            }
            Question::Status => {
                result.status = Status::of(analytics);
                false
            }
            Question::Reset => {
                analytics.reset(stats);
                false
            }
        };
        Query { question, position: walks.then_some(0), sizes: HashMap::new(), result }
    }

    /// Visits about `keys_max` keys more, fewer if they are long. Returns the result once there are no more to visit.
    pub(crate) fn advance(
        &mut self,
        keys_max: usize,
        analytics: &Analytics,
        keyspace: &Keyspace,
    ) -> Option<QueryResult> {
        let Query { question, position, sizes, result } = self;
        if let Some(from) = *position {
            let mut steps = keys_max * KEY_STEPS;
            *position = keyspace.walk_while(from, keys_max, |entry| {
                steps = steps.saturating_sub(steps_of(entry.key()));
                let goes_on = steps > 0;
                let Some(usage) = entry.usage() else { return goes_on };
                if entry.deadline_ms().is_some_and(|deadline_ms| analytics.has_come(deadline_ms)) {
                    return goes_on;
                }
                let bytes = entry.key().len() + entry.value().len();
                match question {
                    Question::Hot { by, .. } => {
                        let (reads, writes) = (u64::from(usage.reads), u64::from(usage.writes));
                        let key = || entry.key().to_vec();
                        let hot = |key| Hot { key, reads, writes, ..Hot::default() };
                        let rank = hot(Vec::new()).rank(*by, true);
                        if rank > result.floor {
                            result.hot.push(hot(key()));
                        }
                    }
                    Question::Cold { idle_s, .. } => {
                        let idle = analytics.now_s.saturating_sub(usage.last_access_s);
                        if idle >= *idle_s && bytes as f64 > result.floor {
                            let key = entry.key().to_vec();
                            result.cold.push(Cold { key, bytes: bytes as u64, idle_s: idle });
                        }
                    }
                    _ => {
                        let (keys, sum) = sizes.entry(analytics.classes.find(entry.key())).or_default();
                        *keys += 1;
                        *sum += bytes as u64;
                    }
                }
                goes_on
            });
            result.prune(question);
        }
        if self.position.is_some() { None } else { Some(self.end(analytics)) }
    }

    /// The result, once all keys that are needed were visited.
    fn end(&mut self, analytics: &Analytics) -> QueryResult {
        let Query { question, sizes, result, .. } = self;
        let classes = || {
            analytics.classes.iter().map(|(id, class)| {
                let (keys, bytes) = sizes.get(&id).copied().unwrap_or_default();
                Prefix { class: class.clone(), keys, bytes }
            })
        };
        match question {
            Question::Prefixes { .. } => result.prefixes = classes().collect(),
            Question::Ttl { subject: Subject::Class(_), .. } => {
                result.prefixes = classes().filter(|prefix| question.is_about(&prefix.class)).collect();
            }
            Question::Ttl { subject: Subject::Key(key), .. } => {
                let id = analytics.classes.find(key);
                let name = &analytics.classes.class(id).name;
                result.prefixes = classes().filter(|prefix| prefix.class.name == *name).collect();
            }
            _ => {}
        }
        std::mem::take(result)
    }
}

/// The hottest keys of late that exist or are looked for, with what their entries have counted.
fn hot_of_late(count: usize, by: By, analytics: &Analytics, keyspace: &Keyspace) -> Vec<Hot> {
    let mut found = Vec::new();
    // Keys that are gone are passed over; there may be any number of them.
    for hot in analytics.top.top(COUNT_MAX, by, analytics.now_ms) {
        if found.len() == count {
            break;
        }
        let entry = keyspace.find(keyspace.probe(&hot.key)).map(|found| keyspace.entry(found));
        let entry = entry.filter(|entry| !entry.deadline_ms().is_some_and(|ms| analytics.has_come(ms)));
        let usage = entry.and_then(Entry::usage);
        let is_cut = hot.key.len() < hot.key_len;
        let (reads, writes) = match usage {
            Some(usage) => (u64::from(usage.reads), u64::from(usage.writes)),
            None if is_cut => (hot.reads.round() as u64, hot.writes.round() as u64),
            None if hot.misses < 0.5 => continue,
            None => (0, 0),
        };
        let exists = entry.is_some() || is_cut;
        found.push(Hot { key: hot.key.clone(), reads, writes, is_missing: !exists, of_late: Some(hot) });
    }
    found
}

fn intervals(question: &Question, analytics: &Analytics, keyspace: &Keyspace) -> Vec<Intervals> {
    let of = |id: ClassId, class: &Class| Intervals {
        class: class.name.clone(),
        of_key: false,
        closed: class.intervals.clone(),
        open: analytics.tracker.open(Some(id), analytics.now_ms),
        watched_ms: analytics.classes_watched_ms(),
        bytes: 0,
    };
    match question {
        Question::Ttl { subject: Subject::Key(key), .. } => {
            let id = analytics.classes.find(key);
            let of_class = of(id, analytics.classes.class(id));
            let probe = keyspace.probe(key);
            let Some(closed) = analytics.histories.closed(probe.hash) else { return vec![of_class] };
            let entry = keyspace.find(probe).map(|found| keyspace.entry(found));
            let mut open = Histogram::default();
            if let Some(usage) = entry.and_then(Entry::usage) {
                open.record(u64::from(analytics.idle_s(usage.last_access_s)) * 1000, 1);
            }
            let class = of_class.class.clone();
            let (closed, watched_ms) = (closed.clone(), analytics.watched_ms());
            let bytes = entry.map_or(0, |entry| key.len() + entry.value().len()) as u64;
            vec![Intervals { class, of_key: true, closed, open, watched_ms, bytes }, of_class]
        }
        _ => {
            let classes = analytics.classes.iter().filter(|(_, class)| question.is_about(class));
            classes.map(|(id, class)| of(id, class)).collect()
        }
    }
}
