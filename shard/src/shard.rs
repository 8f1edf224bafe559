//! One shard: its keyspaces, and when a key counts as expired. Commands read and write it through the
//! functions here; recovery, snapshots and background work have theirs.

use std::sync::Arc;

use crate::analytics::Analytics;
use crate::analytics::anomalies::Watched;
use crate::analytics::query::{Query, QueryResult, Question};
use crate::auto_ttl::AutoTtl;
use crate::change::{Change, Changes, MalformedChange, VALUE_LEN_MAX, decode};
use crate::clock::Clocks;
use crate::combine::{Effect, Held, Terms};
use crate::command::spec::Flags;
use crate::command::table;
use crate::context::{Context, Parts};
use crate::databases::{DATABASES_DEFAULT, DATABASES_MAX, Databases};
use crate::error::Error;
use crate::events::{Event, EventClasses};
use crate::reply::Reply;
use crate::request::Request;
use crate::scan::{KEY_STEPS, Scan};
use crate::stats::{DatabaseStats, Stats};
use crate::store::entry::Usage;
use crate::store::keyspace::Keyspace;

/// So many keys that are due are looked up ahead of their removal.
const EXPIRED_AHEAD: usize = 32;

/// A random key is one of so many neighbours: keys do not lie at equal distances.
const RANDOM_KEYS: usize = 16;

/// How many steps a search for a random key takes: some thousands of keys.
const RANDOM_KEY_STEPS: usize = 64 << 10;
/// A position within a keyspace takes so many bits of that of a walk; the keyspace's number lies above them.
const POSITION_BITS: u32 = 32;

/// The keys of one shard, and what can be done with them.
#[derive(Debug)]
pub struct Shard {
    /// What its commands work on.
    parts: Parts,
    /// What the log last said of the clocks.
    clocks: Option<Clocks>,
}

impl Shard {
    /// An empty shard. The seeds have to be random and secret, so that no client can choose keys that collide.
    pub fn new(seeds: [u64; 4]) -> Self {
        Shard {
            parts: Parts {
                keyspace: Keyspace::new(seeds),
                database: 0,
                databases: Databases::new(DATABASES_DEFAULT),
                lazy_free: Vec::new(),
                stats: Stats::default(),
                analytics: None,
                auto_ttl: Arc::default(),
                now_ms: 0,
                wall_ahead_ms: 0,
                event_classes: EventClasses::default(),
                events: Vec::new(),
                value_len_max: VALUE_LEN_MAX,
            },
            clocks: None,
        }
    }

    /// The same shard with another limit for the length of a value, in bytes; at most [`VALUE_LEN_MAX`].
    #[must_use]
    pub fn with_value_len_max(mut self, value_len_max: usize) -> Self {
        self.parts.value_len_max = value_len_max.min(VALUE_LEN_MAX);
        self
    }

    /// The same shard with so many databases, at most [`DATABASES_MAX`].
    #[must_use]
    pub fn with_databases(mut self, count: u16) -> Self {
        self.parts.databases.count = count.min(DATABASES_MAX);
        self
    }

    /// The same shard, which counts from `now_ms` on how its keys are used. It has to be empty.
    #[must_use]
    pub fn with_analytics(mut self, now_ms: u64) -> Self {
        assert_eq!(self.key_count(), 0, "a key without counters would never get any");
        self.parts.analytics = Some(Box::new(Analytics::new(now_ms)));
        self
    }

    /// The server's time is `now_ms` when the first request comes, in place of what [`Shard::with_analytics`] was
    /// told.
    pub fn start_counting(&mut self, now_ms: u64) {
        if let Some(analytics) = &mut self.parts.analytics {
            analytics.start(now_ms);
        }
    }

    /// From now on the wall clock is so far ahead of the server's time. Before it is set back, [`Shard::expire`] has to
    /// remove what is due: a key that has expired does not come back.
    pub fn set_wall_ahead(&mut self, wall_ahead_ms: i64) {
        self.parts.wall_ahead_ms = wall_ahead_ms;
        if let Some(analytics) = &mut self.parts.analytics {
            analytics.set_wall_ahead(wall_ahead_ms);
        }
    }

    /// What the log said last of the clocks, if it did.
    pub fn clocks(&self) -> Option<Clocks> {
        self.clocks
    }

    /// Runs one request on this shard's keys at `now_ms` of the server's time. What it changed
    /// is added to `changes`; an error changes nothing. A key whose deadline is `now_ms` or earlier does not
    /// exist.
    ///
    /// # Panics
    /// If the command is one that the server answers itself.
    #[inline]
    pub fn execute<'s>(&'s mut self, request: &Request<'_>, now_ms: u64, changes: &mut Changes) -> Reply<'s> {
        let parts = &mut self.parts;
        if request.command.has(Flags::WRITE) {
            parts.stats.writes += 1;
        } else {
            parts.stats.reads += 1;
        }
        parts.begin(request.database, now_ms);
        changes.set_keyspace(parts.databases.working);
        table::function(request.command)(Context::new(parts, changes), request).into()
    }

    /// What some keys of a database hold at `now_ms`, in their order, for a command that combines it with what other shards' keys
    /// hold. It counts as one read of the shard and as one of each key, as a `GET` does.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]: there is no memory for a copy. Values that are shared are not copied.
    pub fn fetch<'k>(
        &mut self,
        database: u16,
        keys: impl Iterator<Item = &'k [u8]> + Clone,
        now_ms: u64,
    ) -> Result<Vec<Option<Held<'static>>>, Error> {
        let parts = &mut self.parts;
        parts.stats.reads += 1;
        parts.begin(database, now_ms);
        parts.look_up_all(keys.clone());
        keys.map(|key| parts.held(database, key).map(|held| held.to_owned()).transpose()).collect()
    }

    /// Does what a command has found out that combined what keys hold: the effects on those that this shard owns,
    /// in this database. `key` tells the name of the key with a number. What changes is added to `changes`, as by a `SET` or a `DEL`.
    pub fn apply_effects<'k>(
        &mut self,
        database: u16,
        effects: impl IntoIterator<Item = Effect>,
        key: impl Fn(usize) -> &'k [u8],
        now_ms: u64,
        changes: &mut Changes,
    ) {
        let parts = &mut self.parts;
        parts.stats.writes += 1;
        parts.begin(database, now_ms);
        changes.set_keyspace(parts.databases.working);
        for effect in effects {
            parts.take_effect(key(effect.key), effect, changes);
        }
    }

    /// What is true for a command that combines what keys hold, at `now_ms`.
    pub fn terms(&self, now_ms: u64) -> Terms {
        Terms { now_ms, ..self.parts.terms() }
    }

    /// Reads ahead for requests on these keys of a database, up to 64, that will be executed soon. Changes and counts
    /// nothing.
    ///
    /// A look-up waits for memory two or three times, one after the other; here the waits of several keys
    /// overlap. It pays where the keys do not fit into the processor's caches.
    pub fn prefetch<'k>(&self, database: u16, keys: impl Iterator<Item = &'k [u8]>) {
        if let Some(keyspace) = self.parts.keys_of(database) {
            keyspace.prefetch(keys);
        }
    }

    /// Applies the changes of a frame of the log, as [`Shard::apply`] does.
    ///
    /// # Errors
    /// The payload is not a run of changes; those before the fault were applied.
    pub fn apply_frame(&mut self, payload: &[u8]) -> Result<(), MalformedChange> {
        self.apply(&Change::Keyspace(0));
        decode(payload).try_for_each(|change| change.map(|change| self.apply(&change)))
    }

    /// Applies a change of the log, in recovery. Nothing expires here: later changes may refer to a key whose
    /// deadline has passed meanwhile; [`Shard::expire`] removes such keys afterwards.
    ///
    /// Applying a change twice, or onto a newer state, does no harm if all later changes follow. For that a
    /// splice or a deadline of a key that does not exist changes nothing: the key was removed, or expired,
    /// after that change, and neither may come back.
    ///
    /// Before the changes of a frame comes a [`Change::Keyspace`] of number 0, which is what they begin in.
    pub fn apply(&mut self, change: &Change<'_>) {
        let Some(key) = change.key() else { return self.apply_to_all(change) };
        let probe = self.parts.keyspace.probe(key);
        let found = self.parts.keyspace.find(probe);
        match (*change, found) {
            (Change::Put { value, deadline_ms, .. }, Some(found)) => {
                self.parts.keyspace.set_value(found, value, deadline_ms);
            }
            (Change::Put { value, deadline_ms, .. }, None) => {
                let unused = self.parts.analytics.is_some().then(Usage::default);
                self.parts.keyspace.insert(probe, value, deadline_ms, unused);
            }
            (Change::Splice { offset, bytes, .. }, Some(found)) => {
                self.parts.keyspace.splice(found, offset as usize, bytes);
            }
            (Change::Deadline { deadline_ms, .. }, Some(found)) => {
                self.parts.keyspace.set_deadline(found, deadline_ms);
            }
            (Change::Remove { .. }, Some(found)) => self.parts.keyspace.remove(found),
            (_, None) => {}
            (
                Change::Clear
                | Change::Clocks(_)
                | Change::Keyspace(_)
                | Change::ClearKeyspace
                | Change::Databases(_),
                _,
            ) => unreachable!("they have no key"),
        }
    }

    /// As [`Shard::apply`], for a change that is of no single key.
    fn apply_to_all(&mut self, change: &Change<'_>) {
        let parts = &mut self.parts;
        match change {
            Change::Clocks(clocks) => self.apply_clocks(*clocks),
            Change::Keyspace(number) => parts.work_in_keyspace(*number),
            Change::ClearKeyspace => parts.free_lazily(),
            Change::Databases(numbers) => {
                parts.databases.set_keyspaces(numbers.iter());
                parts.on_databases_changed();
            }
            _ => parts.free_all_lazily(),
        }
    }

    /// What was due by these clocks had expired, and stays away whatever the clocks show now.
    fn apply_clocks(&mut self, clocks: Clocks) {
        self.clocks = Some(clocks);
        for (_, keyspace) in self.parts.keyspaces_mut() {
            while let Some(due) = keyspace.next_due(clocks.now_ms, clocks.wall_ms) {
                keyspace.remove(due);
            }
        }
    }

    /// Removes keys whose deadline has come at `now_ms`, at most `keys_max` of them, of a database earliest first;
    /// returns how many. Fewer than `keys_max` means that no expired key is left. The log learns of it by
    /// [`Change::Clocks`].
    pub fn expire(&mut self, now_ms: u64, keys_max: usize) -> usize {
        let wall_ms = now_ms.saturating_add_signed(self.parts.wall_ahead_ms);
        let is_told = self.parts.tells_of_expired();
        let (mut removed, mut told) = (0, Vec::new());
        for (number, keyspace) in self.parts.keyspaces_mut() {
            let before = removed;
            while removed < keys_max {
                if (removed - before).is_multiple_of(EXPIRED_AHEAD) {
                    keyspace.prefetch_due(now_ms, wall_ms, EXPIRED_AHEAD.min(keys_max - removed));
                }
                let Some(due) = keyspace.next_due(now_ms, wall_ms) else { break };
                if is_told {
                    told.push((number, keyspace.entry(due).key().into()));
                }
                keyspace.remove(due);
                removed += 1;
            }
        }
        for (number, key) in told {
            self.parts.tell_expired(self.parts.databases.database(number), key);
        }
        self.parts.stats.ttl_checks += removed as u64;
        self.parts.stats.ttl_expired += removed as u64;
        removed
    }

    /// When the first key expires as the wall clock goes now; before that time [`Shard::expire`] has nothing to do.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let deadlines = self.parts.keyspaces().flat_map(|(_, keyspace)| keyspace.next_deadlines_ms());
        deadlines.map(|deadline_ms| self.parts.due_ms(deadline_ms)).min()
    }

    /// How many keys have expired.
    pub fn expired_count(&self) -> u64 {
        self.parts.stats.ttl_expired
    }

    /// Frees memory of cleared keyspaces, in `steps_max` steps of some microseconds each; whether more is
    /// left.
    pub fn reclaim(&mut self, steps_max: usize) -> bool {
        for _ in 0..steps_max {
            let Some(keyspace) = self.parts.lazy_free.last_mut() else { return false };
            if !keyspace.dismantle() {
                self.parts.lazy_free.pop();
            }
        }
        !self.parts.lazy_free.is_empty()
    }

    /// Visits the numbers of keyspaces, and the keys in them, values and deadlines, from `position` (at first 0) on until
    /// `at_least` were seen. Returns the position at which to go on, `None` at the end. Keys that expired are left out.
    ///
    /// A key that stays during the whole walk is visited exactly once, whatever else changes between steps.
    pub fn walk(
        &self,
        position: u64,
        at_least: usize,
        now_ms: u64,
        mut visit: impl FnMut(u16, &[u8], &[u8], Option<u64>),
    ) -> Option<u64> {
        let mut position = Some(position);
        let mut missing = at_least.max(1);
        while missing > 0
            && let Some(at) = position
        {
            let (number, within) = ((at >> POSITION_BITS) as u16, at & ((1 << POSITION_BITS) - 1));
            let keyspace = self.parts.keyspace_of(number);
            let next = keyspace.and_then(|keyspace| {
                keyspace.walk(within, missing, |entry| {
                    missing = missing.saturating_sub(1);
                    let deadline_ms = entry.deadline_ms();
                    if deadline_ms.is_none_or(|deadline_ms| self.parts.due_ms(deadline_ms) > now_ms) {
                        visit(number, entry.key(), entry.value(), deadline_ms);
                    }
                })
            });
            position = next.map(|within| u64::from(number) << POSITION_BITS | within).or_else(|| {
                let later = self.parts.keyspaces().map(|(later, _)| later).filter(|later| *later > number);
                later.min().map(|later| u64::from(later) << POSITION_BITS)
            });
        }
        position
    }

    /// The number of the database that the keyspace of this number is.
    pub fn database_of(&self, keyspace: u16) -> u16 {
        self.parts.databases.database(keyspace)
    }

    /// The number of the keyspace that a database is.
    pub fn keyspace_of(&self, database: u16) -> u16 {
        self.parts.databases.keyspace(database)
    }

    /// The number of the last database that has a key; `None` where there is no key.
    pub fn last_database(&self) -> Option<u16> {
        self.databases(0).map(|database| database.number).max()
    }

    /// The databases that have keys, in no order, and what there is in them at `now_ms`.
    pub fn databases(&self, now_ms: u64) -> impl Iterator<Item = DatabaseStats> {
        let wall_ms = now_ms.saturating_add_signed(self.parts.wall_ahead_ms);
        let used = self.parts.keyspaces().filter(|(_, keyspace)| keyspace.len() > 0);
        used.map(move |(number, keyspace)| DatabaseStats {
            number: self.parts.databases.database(number),
            keys: keyspace.len() as u64,
            keys_with_deadline: keyspace.deadline_count() as u64,
            time_left_ms: keyspace.time_left_ms(now_ms, wall_ms),
        })
    }

    /// Adds to `changes` which keyspaces the databases are, unless every one is that of its own number.
    pub fn tell_databases(&self, changes: &mut Changes) {
        let keyspaces = self.parts.databases.keyspaces();
        if !keyspaces.iter().enumerate().all(|(database, number)| database == usize::from(*number)) {
            changes.push_databases(keyspaces);
        }
    }

    /// Whether a key of a database exists at `now_ms`. Counts nothing.
    pub fn exists(&self, database: u16, key: &[u8], now_ms: u64) -> bool {
        self.peek_in(database, key, now_ms).is_some()
    }

    /// The value and the deadline of a key of database 0 at `now_ms`. Counts nothing.
    pub fn peek(&self, key: &[u8], now_ms: u64) -> Option<(&[u8], Option<u64>)> {
        self.peek_in(0, key, now_ms)
    }

    fn peek_in(&self, database: u16, key: &[u8], now_ms: u64) -> Option<(&[u8], Option<u64>)> {
        let keyspace = self.parts.keys_of(database)?;
        let entry = keyspace.entry(keyspace.find(keyspace.probe(key))?);
        let is_due = entry.deadline_ms().is_some_and(|deadline_ms| self.parts.due_ms(deadline_ms) <= now_ms);
        (!is_due).then(|| (entry.value(), entry.deadline_ms()))
    }

    /// Goes on with a walk, and shows the keys that match its pattern: visits about `keys_max` of them, or fewer where
    /// the steps, of a nanosecond or two each, are used up before. Returns how many. A walk that [is not
    /// decided](Scan::is_decided) has to be gone on with, if only with a `keys_max` of 0.
    pub fn scan(
        &self,
        scan: &mut Scan,
        keys_max: usize,
        steps: &mut usize,
        now_ms: u64,
        mut emit: impl FnMut(&[u8]),
    ) -> usize {
        if !scan.is_decided() {
            scan.decide(steps, &mut emit);
        }
        let Some(from) = scan.position.filter(|_| keys_max > 0 && *steps > 0) else { return 0 };
        let Some(keyspace) = self.parts.keys_of(scan.database) else {
            scan.position = None; // It has no key.
            return 0;
        };
        let mut visited = 0;
        scan.position = keyspace.walk_while(from, keys_max, |entry| {
            visited += 1;
            if entry.deadline_ms().is_none_or(|deadline_ms| self.parts.due_ms(deadline_ms) > now_ms) {
                scan.take(entry.key(), steps, &mut emit);
            } else {
                *steps = steps.saturating_sub(KEY_STEPS);
            }
            *steps > 0
        });
        visited
    }

    /// From now on events of these classes are gathered.
    #[inline]
    pub fn want_events(&mut self, classes: EventClasses) {
        self.parts.event_classes = classes;
    }

    /// Whether there are events that were not taken.
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.parts.events.is_empty()
    }

    /// What has happened since the last call, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.parts.events)
    }

    /// Which TTL keys get from now on that are written without one.
    pub fn set_auto_ttl(&mut self, auto_ttl: Arc<AutoTtl>) {
        self.parts.auto_ttl = auto_ttl;
    }

    /// Which TTL keys get that are written without one.
    pub fn auto_ttl(&self) -> &Arc<AutoTtl> {
        &self.parts.auto_ttl
    }

    /// Begins to answer a question about the use of keys, at `now_ms`; [`Shard::advance`] goes on. `shard` is the
    /// number by which the result names this shard. `None` where nothing is counted.
    pub fn ask(&mut self, question: Question, shard: usize, now_ms: u64) -> Option<Query> {
        let stats = self.stats();
        let mut analytics = self.parts.analytics.take()?;
        analytics.set_time(now_ms);
        let query = Query::begin(question, &mut analytics, self.parts.analysed(), stats, shard);
        self.parts.analytics = Some(analytics);
        Some(query)
    }

    /// Goes on with a query that this shard has begun: visits about `keys_max` keys. Returns what was found
    /// once there are no more to visit.
    pub fn advance(&self, query: &mut Query, keys_max: usize) -> Option<QueryResult> {
        let analytics =
            self.parts.analytics.as_deref().expect("a query begins only where something is counted");
        query.advance(keys_max, analytics, self.parts.analysed())
    }

    /// Takes note of the last second, for what is found out over time. To be called about once a second;
    /// `latency_us` is how long requests took lately, if there were any.
    pub fn note_second(&mut self, now_ms: u64, latency_us: Option<f64>) {
        let stats = self.counters();
        if let Some(mut analytics) = self.parts.analytics.take() {
            analytics.set_time(now_ms);
            analytics.on_second(stats, latency_us, self.parts.analysed());
            self.parts.analytics = Some(analytics);
        }
    }

    /// The series that are followed for anomalies, and what they show now; nothing where nothing is counted.
    pub fn watched(&self, now_ms: u64) -> Watched {
        self.parts.analytics.as_ref().map(|analytics| analytics.watched(now_ms)).unwrap_or_default()
    }

    /// What is known of the use of keys and worth keeping over a restart; `None` where nothing is counted.
    pub fn analytics_to_keep(&self) -> Option<Vec<u8>> {
        self.parts.analytics.as_ref().map(|analytics| analytics.to_bytes())
    }

    /// Takes what [`Shard::analytics_to_keep`] gave an earlier process. To be called before the first request.
    /// `false` if these bytes are none of it; then nothing is changed.
    pub fn restore_analytics(&mut self, kept: &[u8]) -> bool {
        self.parts.analytics.as_mut().is_none_or(|analytics| analytics.restore(kept))
    }

    /// A key of a database that exists at `now_ms`, chosen by a random number, each with about the same chance; and how
    /// many keys it is one of. `None` if there is none, or where very many beside it have expired.
    pub fn random_key(&self, database: u16, random: u64, now_ms: u64) -> Option<(Vec<u8>, usize)> {
        let (mut keys, mut steps) = (Vec::new(), RANDOM_KEY_STEPS);
        for start in [random >> u32::BITS, 0] {
            let mut scan = Scan::new(database, start, None);
            while scan.position().is_some() && keys.len() < RANDOM_KEYS && steps > 0 {
                let missing = RANDOM_KEYS - keys.len();
                self.scan(&mut scan, missing, &mut steps, now_ms, |key| {
                    if !keys.iter().any(|found| found == key) {
                        keys.push(key.to_vec());
                    }
                });
            }
        }
        let chosen = (random as u32 as usize).checked_rem(keys.len())?;
        Some((keys.swap_remove(chosen), self.parts.keys_of(database)?.len()))
    }

    /// The number of keys of all databases, those that have expired but were not yet removed among them.
    pub fn key_count(&self) -> usize {
        self.parts.keyspaces().map(|(_, keyspace)| keyspace.len()).sum()
    }

    /// The memory of the keys, their tables and indexes, in bytes, as the allocator was asked for it.
    pub fn memory_bytes(&self) -> usize {
        self.parts.keyspaces().map(|(_, keyspace)| keyspace.memory_bytes()).sum::<usize>()
            + self.parts.lazy_free.iter().map(Keyspace::memory_bytes).sum::<usize>()
    }

    /// How many requests were executed.
    pub fn operations(&self) -> u64 {
        self.parts.stats.reads + self.parts.stats.writes
    }

    /// The counters, and the memory of the analytics, which takes milliseconds to count.
    pub fn stats(&self) -> Stats {
        Stats {
            analytics_memory_bytes: self.parts.analytics.as_ref().map_or(0, |it| it.memory_bytes() as u64),
            ..self.counters()
        }
    }

    /// The counters, without the memory of the analytics.
    pub fn counters(&self) -> Stats {
        Stats {
            keys: self.key_count() as u64,
            keys_with_deadline: (self.parts.keyspaces())
                .map(|(_, keyspace)| keyspace.deadline_count() as u64)
                .sum(),
            memory_bytes: self.memory_bytes() as u64,
            ..self.parts.stats
        }
    }
}

#[cfg(test)]
impl Shard {
    /// The keys, for tests that look at entries.
    pub(crate) fn keyspace(&self) -> &Keyspace {
        &self.parts.keyspace
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::clock;
    use crate::commands::transcript;

    fn shard_of(count: u32) -> Shard {
        let mut shard = Shard::new([1, 2, 3, 4]);
        for number in 0..count {
            let deadline_ms = (number % 3 == 0).then(|| u64::from(number) + 1);
            let (key, value) = (number.to_string(), [b'v'; 40]);
            shard.apply(&Change::Put { key: key.as_bytes(), value: &value, deadline_ms });
        }
        shard
    }

    #[test]
    fn expiring_removes_what_is_due_and_nothing_else() {
        let mut shard = shard_of(3000);
        assert_eq!(shard.next_deadline_ms(), Some(1));
        assert_eq!(shard.expire(0, 100), 0);
        assert_eq!(shard.expire(1500, 100), 100);
        assert_eq!(shard.next_deadline_ms(), Some(301));
        assert_eq!(shard.expire(1500, usize::MAX), 400);
        assert_eq!(shard.next_deadline_ms(), Some(1501));
        assert_eq!((shard.key_count(), shard.stats().keys_with_deadline), (2500, 500));
        assert_eq!((shard.stats().ttl_expired, shard.stats().ttl_checks), (500, 500));
        assert_eq!(transcript::content(&shard, 0).iter().filter_map(|(_, _, ms)| *ms).min(), Some(1501));
    }

    #[test]
    fn clearing_keeps_the_memory_until_it_is_reclaimed() {
        let mut shard = shard_of(5000);
        let before = shard.memory_bytes();
        shard.apply(&Change::Clear);
        assert_eq!(shard.key_count(), 0);
        assert!(shard.memory_bytes() >= before);
        let mut steps = 0;
        while shard.reclaim(1) {
            steps += 1;
        }
        assert!(steps > 10, "memory came back in {steps} steps");
        assert!(shard.memory_bytes() < 1000);
        assert!(!shard.reclaim(1));
    }

    #[test]
    fn scanning_shows_live_keys_that_match() {
        let shard = shard_of(1000);
        let mut keys = Vec::new();
        let mut scan = Scan::new(0, 0, Some(Arc::new(crate::Glob::new(b"*7").unwrap())));
        while scan.position().is_some() {
            assert!(shard.scan(&mut scan, 10, &mut { usize::MAX }, 500, |key| keys.push(key.to_vec())) < 20);
            assert!(scan.is_decided());
        }
        let number = |key: &[u8]| std::str::from_utf8(key).unwrap().parse::<u32>().unwrap();
        let mut numbers: Vec<_> = keys.iter().map(|key| number(key)).collect();
        numbers.sort_unstable();
        let expected = (0..1000).filter(|n| n % 10 == 7 && (n % 3 != 0 || n + 1 > 500));
        assert_eq!(numbers, expected.collect::<Vec<_>>());
    }

    #[test]
    fn what_goes_by_the_wall_clock_is_seen_and_expires_by_it() {
        let mut shard = shard_of(0);
        for (key, deadline_ms) in
            [(&b"own"[..], 1000), (b"wall", clock::deadline_by_wall_clock(1000)), (b"own2", 9000)]
        {
            shard.apply(&Change::Put { key, value: b"v", deadline_ms: Some(deadline_ms) });
        }
        let seen = |shard: &Shard, now_ms| {
            let (mut scan, mut keys) = (Scan::new(0, 0, None), Vec::new());
            while scan.position().is_some() {
                shard.scan(&mut scan, 10, &mut { usize::MAX }, now_ms, |key| keys.push(key.to_vec()));
            }
            keys.sort();
            let walked = transcript::content(shard, now_ms).into_iter().map(|(key, _, _)| key);
            assert!(walked.eq(keys.iter().cloned()));
            String::from_utf8(keys.join(&b' ')).unwrap()
        };
        assert_eq!(seen(&shard, 999), "own own2 wall");
        shard.set_wall_ahead(-5000);
        assert_eq!((seen(&shard, 1000), shard.next_deadline_ms()), ("own2 wall".into(), Some(1000)));
        assert_eq!((shard.expire(1000, 9), shard.next_deadline_ms()), (1, Some(6000)));
        shard.set_wall_ahead(500);
        assert_eq!((seen(&shard, 499), seen(&shard, 500)), ("own2 wall".into(), "own2".into()));
        assert_eq!((shard.expire(500, 9), shard.expire(9000, 9)), (1, 1));
    }

    #[test]
    fn a_slice_of_a_scan_takes_a_bounded_number_of_steps_however_long_pattern_and_keys_are() {
        const STEPS: usize = 1000;
        let mut shard = shard_of(100);
        let long = |end: &str| ["a".repeat(3000).as_bytes(), end.as_bytes()].concat();
        for key in [long("b"), long("c")] {
            shard.apply(&Change::Put { key: &key, value: b"v", deadline_ms: None });
        }
        let pattern = ["*".as_bytes(), &long("b")[1000..]].concat();
        let mut scan = Scan::new(0, 0, Some(Arc::new(crate::Glob::new(&pattern).unwrap())));
        let (mut found, mut slices, mut visited) = (Vec::new(), 0, 0);
        while scan.position().is_some() || !scan.is_decided() {
            let mut steps = STEPS;
            let seen = shard.scan(&mut scan, usize::MAX, &mut steps, 0, |key| found.push(key.to_vec()));
            assert!(seen <= STEPS / KEY_STEPS + 1, "{seen} keys in {STEPS} steps");
            (slices, visited) = (slices + 1, visited + seen);
        }
        assert_eq!((found, visited), (vec![long("b")], 102));
        // Each of the long keys is compared with two thirds of itself at each of a third of its places.
        assert!(slices > 2 * 2000 * 1000 / STEPS, "{slices} slices");
    }

    #[test]
    fn requests_hits_and_misses_are_counted() {
        let mut shard = shard_of(2);
        for request in ["GET 1", "GET nope", "EXISTS 1 1 nope", "SET a b", "DEL nope"] {
            let words: Vec<_> = request.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            transcript::execute(&mut shard, &words, 0, &mut Changes::default());
        }
        let stats = shard.stats();
        assert_eq!((stats.reads, stats.writes, stats.hits, stats.misses), (3, 2, 3, 2));
        let mut sum = stats;
        sum += stats;
        assert_eq!((sum.reads, sum.keys), (6, 2 * stats.keys));
    }

    #[test]
    fn reading_ahead_changes_nothing() {
        let shard = shard_of(1000);
        let (stats, content) = (shard.stats(), transcript::content(&shard, 0));
        let keys: Vec<_> = (950..1050).map(|number: u32| number.to_string()).collect();
        shard.prefetch(0, keys.iter().map(String::as_bytes));
        shard.prefetch(0, std::iter::empty());
        assert_eq!((shard.stats(), transcript::content(&shard, 0)), (stats, content));
    }

    #[test]
    fn keys_that_are_written_without_a_time_to_live_get_that_of_their_rule() {
        let rule = |pattern: &[u8], ttl_ms| crate::auto_ttl::Rule::new(pattern, ttl_ms).unwrap();
        let mut shard = shard_of(0);
        shard.set_auto_ttl(Arc::new(AutoTtl::new(vec![rule(b"s:*", 100)])));
        let mut log = Changes::default();
        for request in [
            "SET s:1 a",
            "SET s:2 a PX 500",
            "SET u:1 a",
            "SETNX s:3 a",
            "MSET s:4 a u:2 a",
            "INCR s:5",
            "APPEND s:6 a",
            "SET s:7 a PX 700",
            "APPEND s:7 b",
            "SET s:8 a KEEPTTL",
            "SET s:9 a PX 9",
            "PERSIST s:9",
        ] {
            let words: Vec<_> = request.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            transcript::execute(&mut shard, &words, 1000, &mut log);
        }
        let mut recovered = shard_of(0);
        decode(log.bytes()).for_each(|change| recovered.apply(&change.unwrap()));
        for shard in [&shard, &recovered] {
            let content = transcript::content(shard, 1000);
            let deadlines =
                content.iter().map(|(key, _, ms)| (String::from_utf8_lossy(key).into_owned(), *ms));
            let deadlines: BTreeMap<_, _> = deadlines.collect();
            for key in ["s:1", "s:3", "s:4", "s:5", "s:6", "s:8"] {
                assert_eq!(deadlines[key], Some(1100), "{key}");
            }
            assert_eq!((deadlines["s:2"], deadlines["s:7"]), (Some(1500), Some(1700)));
            assert_eq!((deadlines["u:1"], deadlines["u:2"], deadlines["s:9"]), (None, None, None));
        }
    }

    #[test]
    fn what_shards_hold_is_combined_by_the_same_function() {
        let requests: [&[&str]; 6] = [
            &["RENAME", "a", "b"],
            &["COPY", "b", "a"],
            &["BITOP", "XOR", "c", "a", "b"],
            &["MSETNX", "d", "1", "e", "2"],
            &["MSETNX", "d", "1", "f", "2"],
            &["RENAME", "f", "a"],
        ];
        let (mut one, mut several) = (shard_of(0), shard_of(0));
        for shard in [&mut one, &mut several] {
            shard.apply(&Change::Put { key: b"a", value: b"x", deadline_ms: Some(5000) });
            shard.apply(&Change::Put { key: b"c", value: b"x", deadline_ms: Some(500) });
        }
        for words in requests {
            let words: Vec<_> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
            let mut logs = [Changes::default(), Changes::default()];
            let reply = transcript::execute(&mut one, &words, 1000, &mut logs[0]).into_owned();
            let buffer = words.concat();
            let mut start = 0;
            let span = |word: &Vec<u8>| {
                let span = crate::Span { start, len: word.len() as u32 };
                start += span.len;
                span
            };
            let spans: Vec<_> = words.iter().map(span).collect();
            let request = Request::new(crate::command::find(&words[0]).unwrap(), &buffer, &spans[1..]);
            let held = several.fetch(0, request.keys(), 1000).unwrap();
            let combined = crate::command::combine(&request, &held, &several.terms(1000));
            let keys: Vec<_> = request.keys().collect();
            match combined {
                Err(error) => assert_eq!(reply, Reply::Error(error)),
                Ok(combined) => {
                    assert_eq!(reply, combined.reply);
                    several.apply_effects(0, combined.effects, |key| keys[key], 1000, &mut logs[1]);
                }
            }
            assert_eq!(logs[0].bytes(), logs[1].bytes());
            assert_eq!(transcript::content(&one, 1000), transcript::content(&several, 1000));
        }
        assert_eq!(one.stats().hits, several.stats().hits);
    }

    #[test]
    fn random_keys_are_those_that_exist() {
        let shard = shard_of(30);
        let number = |(key, count): (Vec<u8>, usize)| {
            assert_eq!(count, 30);
            String::from_utf8(key).unwrap().parse::<u32>().unwrap()
        };
        let mut seen = BTreeMap::new();
        let mut random = 1_u64;
        for _ in 0..6000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mixed = random ^ random >> 32;
            *seen.entry(number(shard.random_key(0, mixed, 15).unwrap())).or_insert(0) += 1;
        }
        // A third of the keys has deadlines, of which those up to 15 have come.
        let expected: Vec<_> = (0..30).filter(|n| n % 3 != 0 || n + 1 > 15).collect();
        assert_eq!(seen.keys().copied().collect::<Vec<_>>(), expected);
        assert!(seen.values().all(|times| *times > 30), "each has its chance: {seen:?}");
        assert_eq!(shard_of(0).random_key(0, 7, 0), None);
        assert_eq!(shard.random_key(1, 7, 0), None);
    }

    #[test]
    fn a_splice_never_brings_a_removed_key_back() {
        let mut shard = Shard::new([1, 2, 3, 4]);
        shard.apply(&Change::Splice { key: b"k", offset: 1, bytes: b"x" });
        shard.apply(&Change::Deadline { key: b"k", deadline_ms: None });
        assert_eq!(shard.key_count(), 0);
    }

    #[test]
    fn a_splice_past_the_end_fills_with_zeros() {
        let mut shard = Shard::new([1, 2, 3, 4]);
        shard.apply(&Change::Put { key: b"k", value: b"abcdef", deadline_ms: Some(7) });
        shard.apply(&Change::Put { key: b"k", value: b"a", deadline_ms: Some(7) });
        shard.apply(&Change::Splice { key: b"k", offset: 4, bytes: b"x" });
        assert_eq!(transcript::content(&shard, 0), [(b"k".to_vec(), b"a\0\0\0x".to_vec(), Some(7))]);
    }

    /// A request in numbers: command, key, argument.
    fn requests() -> impl Strategy<Value = Vec<(u8, u8, u16)>> {
        proptest::collection::vec((0..9u8, 0..12u8, 0..2000u16), 1..120)
    }

    fn request_words((command, key, argument): (u8, u8, u16)) -> Vec<Vec<u8>> {
        let (key, argument) = (format!("k{key}"), argument.to_string());
        let long = "x".repeat(argument.parse().unwrap());
        let words: &[&str] = match command {
            0 => &["SET", &key, &argument],
            1 => &["SET", &key, &long, "PX", "300"],
            2 => &["APPEND", &key, &argument],
            3 => &["APPEND", &key, &long],
            4 => &["INCRBY", &key, &argument],
            5 => &["DEL", &key],
            6 => &["EXPIRE", &key, "1"],
            7 => &["PERSIST", &key],
            _ => &["GET", &key],
        };
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    proptest! {
        /// A snapshot that is written while requests go on, with the log from its begin on, gives the same
        /// keys.
        #[test]
        fn a_snapshot_and_the_log_behind_it_give_the_state(
            requests in requests(), begin: usize, step in 1..9usize,
        ) {
            let mut shard = Shard::new([1, 2, 3, 4]);
            let mut recovered = Shard::new([5, 6, 7, 8]);
            let begin = begin % requests.len();
            let mut log = Changes::default();
            let mut position = Some(0);
            let mut now_ms = 1000;
            for (index, request) in requests.iter().enumerate() {
                now_ms += 50;
                let mut unlogged = Changes::default();
                let changes = if index < begin { &mut unlogged } else { &mut log };
                transcript::execute(&mut shard, &request_words(*request), now_ms, changes);
                if let Some(from) = position.filter(|_| index >= begin) {
                    position = shard.walk(from, step, now_ms, |_, key, value, deadline_ms| {
                        recovered.apply(&Change::Put { key, value, deadline_ms });
                    });
                }
            }
            while let Some(from) = position {
                position = shard.walk(from, step, now_ms, |_, key, value, deadline_ms| {
                    recovered.apply(&Change::Put { key, value, deadline_ms });
                });
            }
            decode(log.bytes()).for_each(|change| recovered.apply(&change.unwrap()));
            prop_assert_eq!(transcript::content(&recovered, now_ms), transcript::content(&shard, now_ms));
            decode(log.bytes()).for_each(|change| recovered.apply(&change.unwrap()));
            prop_assert_eq!(transcript::content(&recovered, now_ms), transcript::content(&shard, now_ms));
            let live = transcript::content(&recovered, now_ms).len();
            recovered.expire(now_ms, usize::MAX);
            prop_assert_eq!(recovered.key_count(), live);
        }

        /// What requests do agrees with a map of values and deadlines.
        #[test]
        fn requests_agree_with_a_map(requests in requests()) {
            let mut shard = Shard::new([1, 2, 3, 4]);
            let mut model: BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)> = BTreeMap::new();
            let mut now_ms = 1000;
            for request in requests {
                now_ms += 50;
                model.retain(|_, (_, deadline_ms)| deadline_ms.is_none_or(|ms| ms > now_ms));
                let words = request_words(request);
                let (key, argument) = (words[1].clone(), words.get(2).cloned().unwrap_or_default());
                transcript::execute(&mut shard, &words, now_ms, &mut Changes::default());
                match request.0 {
                    0 => drop(model.insert(key, (argument, None))),
                    1 => drop(model.insert(key, (argument, Some(now_ms + 300)))),
                    2 | 3 => model.entry(key).or_default().0.extend(argument),
                    4 => {
                        let (value, _) = model.entry(key).or_insert((b"0".to_vec(), None));
                        let sum = crate::integer::parse(value).and_then(|n| n.checked_add(request.2.into()));
                        *value = sum.map_or(value.clone(), |sum| sum.to_string().into_bytes());
                    }
                    5 => drop(model.remove(&key)),
                    6 | 7 => {
                        if let Some((_, deadline_ms)) = model.get_mut(&key) {
                            *deadline_ms = (request.0 == 6).then_some(now_ms + 1000);
                        }
                    }
                    _ => {}
                }
                let expected: Vec<_> = model.iter().map(|(k, (v, ms))| (k.clone(), v.clone(), *ms)).collect();
                prop_assert_eq!(transcript::content(&shard, now_ms), expected);
            }
        }
    }
}
