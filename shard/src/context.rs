//! What a command function gets: the parts of its shard, and where its changes go. It finds keys, reads values, and
//! changes them in such a way that the log, the statistics and the analytics hear of it.
//!
//! A key that was [found](Context::find) has a value of any kind, which may be replaced, given a deadline or removed.
//! To read a value or to change a part of it takes a [`FoundString`], which only [`Context::find_string`] and
//! [`Context::look_up_string`] give.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::analytics::Analytics;
use crate::auto_ttl::AutoTtl;
use crate::change::{Change, Changes};
use crate::clock;
use crate::combine::{Combine, Combined, Deadline, Effect, Held, Outcome, Terms};
use crate::databases::{ANALYSED, Databases};
use crate::error::Error;
use crate::events::{Event, EventClasses};
use crate::reply::Reply;
use crate::request::{Request, SHARED_LEN_MIN};
use crate::room::has_room_for;
use crate::stats::Stats;
use crate::store::entry::{Entry, Usage};
use crate::store::keyspace::{Found, Keyspace, Probe};

/// A value that is rewritten is compared with the one before in pieces of so many bytes.
const REWRITTEN_BYTES: usize = 32;

/// The parts of a shard that commands work on.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The keys of the database in which commands work.
    pub(crate) keyspace: Keyspace,
    /// The number of that database.
    pub(crate) database: u16,
    /// The other databases.
    pub(crate) databases: Databases,
    /// Keyspaces that were cleared; they are freed in the background.
    pub(crate) lazy_free: Vec<Keyspace>,
    pub(crate) stats: Stats,
    /// How the keys are used, where that is counted.
    pub(crate) analytics: Option<Box<Analytics>>,
    pub(crate) auto_ttl: Arc<AutoTtl>,
    /// The server's time of the last request.
    pub(crate) now_ms: u64,
    /// How far the wall clock is ahead of the server's time.
    pub(crate) wall_ahead_ms: i64,
    /// Which events are wanted, and those that have happened.
    pub(crate) event_classes: EventClasses,
    pub(crate) events: Vec<Event>,
    /// The longest value, in bytes.
    pub(crate) value_len_max: usize,
}

/// The surroundings of one command.
#[derive(Debug)]
pub(crate) struct Context<'s, 'c> {
    parts: &'s mut Parts,
    changes: &'c mut Changes,
}

/// A key that exists and whose value is a string.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundString(Found);

impl From<FoundString> for Found {
    #[inline]
    fn from(found: FoundString) -> Found {
        found.0
    }
}

impl<'s, 'c> Context<'s, 'c> {
    #[inline]
    pub(crate) fn new(parts: &'s mut Parts, changes: &'c mut Changes) -> Self {
        Context { parts, changes }
    }

    /// The server's time, in milliseconds.
    #[inline]
    pub(crate) fn now_ms(&self) -> u64 {
        self.parts.now_ms
    }

    /// Something has happened to a key; it is told of if events of this class are wanted.
    #[inline]
    pub(crate) fn notify(&mut self, class: EventClasses, event: &'static str, key: &[u8]) {
        if self.parts.event_classes.has_any(class) {
            self.parts.tell(event, key);
        }
    }

    /// Finds a key that exists; one that has expired is removed.
    #[inline]
    pub(crate) fn find(&mut self, key: &[u8]) -> Option<Found> {
        self.parts.find_probe(self.parts.keyspace.probe(key))
    }

    /// As [`Context::find`], for a command that reads: counts a hit or a miss.
    #[inline]
    pub(crate) fn look_up(&mut self, key: &[u8]) -> Option<Found> {
        self.parts.look_up(key)
    }

    /// As [`Context::find`], for a command on strings.
    ///
    /// # Errors
    /// The value is not a string. Today every value is one.
    #[inline]
    pub(crate) fn find_string(&mut self, key: &[u8]) -> Result<Option<FoundString>, Error> {
        Ok(self.find(key).map(FoundString))
    }

    /// As [`Context::look_up`], for a command on strings.
    ///
    /// # Errors
    /// As [`Context::find_string`].
    #[inline]
    pub(crate) fn look_up_string(&mut self, key: &[u8]) -> Result<Option<FoundString>, Error> {
        Ok(self.look_up(key).map(FoundString))
    }

    /// The bytes of a string.
    #[inline]
    pub(crate) fn string(&self, found: FoundString) -> &[u8] {
        self.parts.keyspace.entry(found.0).value()
    }

    /// The bytes of a string, and the deadline of its key, which is not due yet.
    #[inline]
    pub(crate) fn string_and_deadline_ms(&self, found: FoundString) -> (&[u8], Option<u64>) {
        let entry = self.parts.keyspace.entry(found.0);
        (entry.value(), entry.deadline_ms())
    }

    /// The bytes of a string, which to read is the last thing that the command does.
    pub(crate) fn into_string(self, found: FoundString) -> &'s [u8] {
        let parts: &'s Parts = self.parts;
        parts.keyspace.entry(found.0).value()
    }

    /// A string as a reply, for a command that then changes the key: one that is shared is counted, any other copied.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]: there is no memory for it.
    pub(crate) fn kept(&self, found: FoundString) -> Result<Reply<'static>, Error> {
        let entry = self.parts.keyspace.entry(found.0);
        if entry.shared().is_none() && !has_room_for(entry.value().len()) {
            return Err(Error::OutOfMemory);
        }
        Ok(shown(entry).into_owned())
    }

    /// A string as a reply, which is the last thing that the command does.
    #[inline]
    pub(crate) fn into_reply(self, found: FoundString) -> Reply<'s> {
        let parts: &'s Parts = self.parts;
        shown(parts.keyspace.entry(found.0))
    }

    /// The values of keys that are known not to have expired, read as the last thing that the command does: a string,
    /// or nothing.
    pub(crate) fn into_strings<'k>(
        self,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> impl Iterator<Item = Option<Reply<'s>>> {
        let parts: &'s Parts = self.parts;
        keys.map(move |key| {
            let found = parts.keyspace.find(parts.keyspace.probe(key))?;
            Some(shown(parts.keyspace.entry(found)))
        })
    }

    /// The deadline of a key, which is not due yet.
    #[inline]
    pub(crate) fn deadline_ms(&self, found: impl Into<Found>) -> Option<u64> {
        self.parts.keyspace.entry(found.into()).deadline_ms()
    }

    /// When a deadline comes in the server's time, as the wall clock goes now.
    pub(crate) fn due_ms(&self, deadline_ms: u64) -> u64 {
        self.parts.due_ms(deadline_ms)
    }

    /// The moment of a deadline in milliseconds since the Unix epoch, as the wall clock goes now.
    pub(crate) fn unix_ms(&self, deadline_ms: u64) -> u64 {
        clock::unix_deadline_ms(deadline_ms)
            .unwrap_or_else(|| deadline_ms.saturating_add_signed(self.parts.wall_ahead_ms))
    }

    /// The length of a value, in bytes.
    pub(crate) fn value_len(&self, found: impl Into<Found>) -> usize {
        self.parts.keyspace.entry(found.into()).value().len()
    }

    /// Whether a string would be copied to be changed, because its memory is shared.
    pub(crate) fn is_shared(&self, found: FoundString) -> bool {
        self.parts.keyspace.entry(found.0).shared().is_some()
    }

    /// The memory of a key, in bytes.
    pub(crate) fn footprint_bytes(&self, found: Found) -> usize {
        self.parts.keyspace.footprint_bytes(found)
    }

    /// How a key has been used.
    pub(crate) fn usage(&self, found: Found) -> Usage {
        self.parts.keyspace.entry(found).usage().unwrap_or_default()
    }

    /// How the keys are used, if that is counted.
    pub(crate) fn analytics(&self) -> Option<&Analytics> {
        self.parts.analytics.as_deref()
    }

    /// The number of keys of the database, those that have expired but were not yet removed among them.
    pub(crate) fn key_count(&self) -> usize {
        self.parts.keyspace.len()
    }

    /// The longest value, in bytes.
    pub(crate) fn value_len_max(&self) -> usize {
        self.parts.value_len_max
    }

    /// Whether a value may have so many bytes.
    ///
    /// # Errors
    /// [`Error::ValueTooLarge`]
    #[inline]
    pub(crate) fn check_value_len(&self, len: usize) -> Result<(), Error> {
        let limit = self.parts.value_len_max;
        if len > limit { Err(Error::ValueTooLarge { limit }) } else { Ok(()) }
    }

    /// Gives a key, which was or was not found, a string and a deadline. Without one it gets that of its rule, if it
    /// has one.
    #[inline]
    pub(crate) fn put(
        &mut self,
        found: Option<impl Into<Found>>,
        key: &[u8],
        value: &[u8],
        deadline_ms: Option<u64>,
    ) {
        self.parts.put(found.map(Into::into), key, value, deadline_ms, self.changes);
    }

    /// As [`Context::put`], with an argument of a request, by its number, as the value: it is not copied if it is large
    /// and its memory can be kept.
    #[inline(always)] // It is one comparison before each write.
    pub(crate) fn put_arg(
        &mut self,
        found: Option<impl Into<Found>>,
        key: &[u8],
        (request, index): (&Request<'_>, usize),
        deadline_ms: Option<u64>,
    ) {
        let found = found.map(Into::into);
        match request.shared_arg(index) {
            None => self.parts.put(found, key, request.arg(index), deadline_ms, self.changes),
            Some(value) => self.parts.put_shared(found, key, value, deadline_ms, self.changes),
        }
    }

    /// Writes bytes at an offset of a string, which keeps its deadline and grows, filled with zeros, where needed. A
    /// key that was not found is made. The log gets no more than these bytes.
    pub(crate) fn splice(&mut self, found: Option<FoundString>, key: &[u8], offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        self.parts.note_change(key, found.is_none());
        let found = match found {
            Some(FoundString(found)) => {
                let entry = self.parts.keyspace.entry(found);
                let (len, deadline_ms) = (entry.value().len().max(end), entry.deadline_ms());
                self.parts.count_write(key, found, len, deadline_ms);
                found
            }
            None => {
                let deadline_ms = self.parts.auto_ttl.deadline_ms(key, self.parts.now_ms);
                let (probe, usage) = self.parts.count_insert(key, end, deadline_ms);
                self.changes.push(&Change::Put { key, value: b"", deadline_ms });
                self.parts.keyspace.insert(probe, b"", deadline_ms, usage)
            }
        };
        self.parts.keyspace.splice(found, offset, bytes);
        let offset = u32::try_from(offset).expect("values are bounded below 4 GiB");
        self.changes.push(&Change::Splice { key, offset, bytes });
    }

    /// Gives a key another value that is much like the one it has; it keeps its deadline. The log gets the parts that
    /// differ. A key that was not found is made.
    pub(crate) fn rewrite(&mut self, found: Option<FoundString>, key: &[u8], value: &[u8]) {
        match found {
            Some(FoundString(found)) => self.parts.rewrite(found, key, value, self.changes),
            None => self.parts.put(None, key, value, None, self.changes),
        }
    }

    /// Gives a key another deadline, or takes it away. Returns where it lies now. The log gets a deadline by the wall
    /// clock only together with the value; see [`change`](crate::change).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]: the value would have to be copied to the log, and there is no memory for that. Nothing
    /// has changed then.
    pub(crate) fn set_deadline(
        &mut self,
        found: impl Into<Found>,
        key: &[u8],
        deadline_ms: Option<u64>,
    ) -> Result<Found, Error> {
        let found = found.into();
        let logs_value =
            deadline_ms.is_some_and(|deadline_ms| clock::unix_deadline_ms(deadline_ms).is_some());
        let entry = self.parts.keyspace.entry(found);
        let value_len = entry.value().len();
        if logs_value && entry.shared().is_none() && !has_room_for(value_len) {
            return Err(Error::OutOfMemory);
        }
        // A large value is shared with its changes from now on: many deadlines of one value hold it once.
        let newly_shared = (logs_value && entry.shared().is_none() && value_len >= SHARED_LEN_MIN)
            .then(|| Bytes::copy_from_slice(entry.value()));
        self.parts.count_write(key, found, value_len, deadline_ms);
        self.parts.note_change(key, false);
        let keyspace = &mut self.parts.keyspace;
        let found = match newly_shared {
            Some(value) => keyspace.set_shared(found, value, deadline_ms),
            None => keyspace.set_deadline(found, deadline_ms),
        };
        let entry = self.parts.keyspace.entry(found);
        match entry.shared() {
            _ if !logs_value => self.changes.push(&Change::Deadline { key, deadline_ms }),
            None => self.changes.push(&Change::Put { key, value: entry.value(), deadline_ms }),
            Some(value) => self.changes.push_shared(key, value.clone(), deadline_ms),
        }
        Ok(found)
    }

    /// As [`Context::set_deadline`]: a string stays one.
    ///
    /// # Errors
    /// As [`Context::set_deadline`].
    pub(crate) fn set_string_deadline(
        &mut self,
        found: FoundString,
        key: &[u8],
        deadline_ms: Option<u64>,
    ) -> Result<FoundString, Error> {
        self.set_deadline(found, key, deadline_ms).map(FoundString)
    }

    /// Removes a key.
    pub(crate) fn remove(&mut self, found: impl Into<Found>, key: &[u8]) {
        self.parts.remove(found.into(), key, self.changes);
    }

    /// Runs a command that changes keys by what it reads, all of which lie here.
    pub(crate) fn combine(self, request: &Request<'_>, combine: Combine) -> Result<Reply<'s>, Error> {
        let parts = self.parts;
        // That a key is not there is no event: it may be the one to be made.
        let wanted = parts.event_classes;
        parts.event_classes = wanted.without(EventClasses::MISS);
        for (number, key) in request.keys().enumerate() {
            // Removing one that has expired moves other entries, so all of them are looked up before any is held.
            parts.work_in(request.database_of_key(number));
            parts.look_up(key);
        }
        parts.event_classes = wanted;
        let keys = request.keys().enumerate();
        let held: Vec<_> =
            keys.map(|(number, key)| parts.held(request.database_of_key(number), key)).collect();
        let Combined { reply, effects } = combine(request, &held, &parts.terms())?;
        let keys: Vec<_> = if effects.is_empty() { Vec::new() } else { request.keys().collect() };
        for effect in effects {
            parts.work_in(request.database_of_key(effect.key));
            self.changes.set_keyspace(parts.databases.working);
            parts.take_effect(keys[effect.key], effect, self.changes);
        }
        Ok(reply)
    }

    /// Removes every key of every database, in no time.
    pub(crate) fn clear(&mut self) {
        self.parts.forget_uses();
        self.parts.note_clear();
        self.parts.free_all_lazily();
        self.changes.push(&Change::Clear);
    }

    /// Removes every key of the database, in no time.
    pub(crate) fn clear_database(&mut self) {
        if self.parts.databases.resting().iter().all(|(_, keyspace)| keyspace.len() == 0) {
            return self.clear(); // It is the same, and what earlier versions wrote.
        }
        if self.parts.database == ANALYSED {
            self.parts.forget_uses();
        }
        self.parts.note_clear();
        self.parts.free_lazily();
        self.changes.push(&Change::ClearKeyspace);
    }

    /// The number of the database in which the command works.
    pub(crate) fn database(&self) -> u16 {
        self.parts.database
    }

    /// How many databases there are.
    pub(crate) fn database_count(&self) -> u16 {
        self.parts.databases.count
    }

    /// Has the command work in another database from now on; what it had found before counts no more.
    pub(crate) fn work_in(&mut self, database: u16) {
        self.parts.work_in(database);
        self.changes.set_keyspace(self.parts.databases.working);
    }

    /// Gives each of two databases the keys of the other, in no time.
    pub(crate) fn swap_databases(&mut self, one: u16, other: u16) {
        let parts = &mut *self.parts;
        parts.databases.swap(one, other);
        parts.on_databases_changed();
        if [one, other].contains(&ANALYSED) {
            parts.forget_uses();
        }
        self.changes.push_databases(parts.databases.keyspaces());
    }

    /// Gives a key, which was found and is not there in another database, to that. `false` where that has it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]: there is no memory for a copy of its value. Nothing has changed then.
    pub(crate) fn move_to(&mut self, found: Found, key: &[u8], database: u16) -> Result<bool, Error> {
        let value = self.kept(FoundString(found))?;
        let (deadline_ms, home) = (self.deadline_ms(found), self.parts.database);
        self.work_in(database);
        let is_free = self.find(key).is_none();
        if is_free {
            self.parts.insert(key, value, deadline_ms, self.changes);
        }
        self.work_in(home);
        if is_free {
            self.remove(found, key);
        }
        Ok(is_free)
    }
}

/// A string as a reply.
#[inline]
fn shown(entry: Entry<'_>) -> Reply<'_> {
    match entry.shared() {
        None => Reply::bytes(entry.value()),
        Some(value) => Reply::Shared(Cow::Borrowed(value)),
    }
}

impl Parts {
    /// Has commands work in this database.
    #[inline]
    pub(crate) fn work_in(&mut self, database: u16) {
        if database != self.database {
            self.change_database(database);
        }
    }

    #[cold]
    #[inline(never)]
    fn change_database(&mut self, database: u16) {
        self.work_in_keyspace(self.databases.keyspace(database));
    }

    /// Has commands work in the keyspace of this number.
    pub(crate) fn work_in_keyspace(&mut self, number: u16) {
        if number != self.databases.working {
            self.databases.change(&mut self.keyspace, number);
            self.database = self.databases.database(number);
            self.note_database();
        }
    }

    /// Databases are other keyspaces from now on.
    pub(crate) fn on_databases_changed(&mut self) {
        let Parts { keyspace, database, databases, .. } = self;
        *database = databases.database(databases.working);
        databases.expect(databases.keyspace(ANALYSED), keyspace);
        self.note_database();
    }

    /// Commands work in another database from now on: of one of them the uses of keys are followed.
    fn note_database(&mut self) {
        if let Some(analytics) = &mut self.analytics {
            analytics.follow(self.database == ANALYSED);
        }
    }

    /// The keyspace of this number, if it was ever worked in.
    pub(crate) fn keyspace_of(&self, number: u16) -> Option<&Keyspace> {
        let mut keyspaces = self.keyspaces();
        keyspaces.find_map(|(it, keyspace)| (it == number).then_some(keyspace))
    }

    /// The keys of a database, if it was ever worked in.
    pub(crate) fn keys_of(&self, database: u16) -> Option<&Keyspace> {
        if database == self.database {
            return Some(&self.keyspace);
        }
        self.keyspace_of(self.databases.keyspace(database))
    }

    /// The keys of which the uses are followed.
    pub(crate) fn analysed(&self) -> &Keyspace {
        self.keys_of(ANALYSED).expect("there is always a keyspace for it")
    }

    /// Every keyspace that was ever worked in, with its number.
    pub(crate) fn keyspaces(&self) -> impl Iterator<Item = (u16, &Keyspace)> {
        let resting = self.databases.resting().iter().map(|(number, keyspace)| (*number, keyspace));
        std::iter::once((self.databases.working, &self.keyspace)).chain(resting)
    }

    /// Every keyspace that was ever worked in, with its number, to be changed.
    pub(crate) fn keyspaces_mut(&mut self) -> impl Iterator<Item = (u16, &mut Keyspace)> {
        std::iter::once((self.databases.working, &mut self.keyspace)).chain(self.databases.resting_mut())
    }

    /// Forgets what is known of the use of keys.
    fn forget_uses(&mut self) {
        if let Some(analytics) = &mut self.analytics {
            analytics.on_clear();
        }
    }

    /// Makes a key with a value that was read as a reply.
    fn insert(&mut self, key: &[u8], value: Reply<'static>, deadline_ms: Option<u64>, changes: &mut Changes) {
        let bytes = match &value {
            Reply::Bulk(bytes) => bytes,
            Reply::Shared(value) => &value[..],
            _ => unreachable!("a string is read as one"),
        };
        self.note_change(key, true);
        let (probe, usage) = self.count_insert(key, bytes.len(), deadline_ms);
        match value {
            Reply::Shared(value) => {
                changes.push_shared(key, value.clone().into_owned(), deadline_ms);
                self.keyspace.insert_shared(probe, value.into_owned(), deadline_ms, usage);
            }
            _ => {
                changes.push(&Change::Put { key, value: bytes, deadline_ms });
                self.keyspace.insert(probe, bytes, deadline_ms, usage);
            }
        }
    }

    /// When a deadline comes in the server's time, as the wall clock goes now.
    #[inline]
    pub(crate) fn due_ms(&self, deadline_ms: u64) -> u64 {
        clock::due_ms(deadline_ms, self.wall_ahead_ms)
    }

    /// A command begins in this database at `now_ms`.
    #[inline]
    pub(crate) fn begin(&mut self, database: u16, now_ms: u64) {
        self.now_ms = now_ms;
        self.work_in(database);
        if let Some(analytics) = &mut self.analytics {
            analytics.set_time(now_ms);
        }
    }

    #[inline]
    fn find_probe(&mut self, probe: Probe<'_>) -> Option<Found> {
        let (found, deadline_ms) = self.keyspace.find_with_deadline(probe)?;
        if deadline_ms.is_some_and(|deadline_ms| self.due_ms(deadline_ms) <= self.now_ms) {
            self.remove_expired(found);
            return None;
        }
        Some(found)
    }

    /// A key has expired that a command has come upon.
    #[cold]
    #[inline(never)]
    fn remove_expired(&mut self, found: Found) {
        if self.tells_of_expired() {
            self.tell_expired(self.database, self.keyspace.entry(found).key().into());
        }
        self.keyspace.remove(found);
        self.stats.ttl_expired += 1;
    }

    #[inline]
    fn look_up(&mut self, key: &[u8]) -> Option<Found> {
        let probe = self.keyspace.probe(key);
        let found = self.find_probe(probe);
        match found {
            Some(_) => self.stats.hits += 1,
            None => {
                self.stats.misses += 1;
                if self.event_classes.has_any(EventClasses::MISS) {
                    self.tell("keymiss", key);
                }
            }
        }
        if let Some(analytics) = &mut self.analytics {
            analytics.on_read(probe, found, &mut self.keyspace);
        }
        found
    }

    /// What is true for commands whatever keys hold.
    pub(crate) fn terms(&self) -> Terms {
        let Parts { now_ms, wall_ahead_ms, value_len_max, .. } = *self;
        Terms { now_ms, wall_ahead_ms, value_len_max, databases: self.databases.count }
    }

    /// Looks keys up, as a command that reads them does. Removing one that has expired moves other entries, so all of
    /// them go before any is [held](Parts::held). That one is not there is no event: it may be the one to be made.
    pub(crate) fn look_up_all<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]>) {
        let wanted = self.event_classes;
        self.event_classes = wanted.without(EventClasses::MISS);
        for key in keys {
            self.look_up(key);
        }
        self.event_classes = wanted;
    }

    /// What a key of a database holds that is known not to have expired.
    pub(crate) fn held(&self, database: u16, key: &[u8]) -> Option<Held<'_>> {
        let keyspace = self.keys_of(database)?;
        let entry = keyspace.entry(keyspace.find(keyspace.probe(key))?);
        Some(match entry.shared() {
            None => Held::borrowed(entry.value(), entry.deadline_ms()),
            Some(value) => Held::shared(value, entry.deadline_ms()),
        })
    }

    /// Does to a key what a command has found out.
    pub(crate) fn take_effect(&mut self, key: &[u8], effect: Effect, changes: &mut Changes) {
        let found = self.find_probe(self.keyspace.probe(key));
        let is_nothing = found.is_none() && effect.outcome == Outcome::Removed;
        match effect.outcome {
            Outcome::Put(value, deadline) => {
                let until = match (deadline, found) {
                    (Deadline::Kept, Some(found)) if value.len() < SHARED_LEN_MIN => {
                        return self.rewrite(found, key, &value, changes);
                    }
                    (Deadline::Kept, Some(found)) => {
                        self.or_auto(self.keyspace.entry(found).deadline_ms(), key)
                    }
                    (Deadline::Kept, None) => self.or_auto(None, key),
                    (Deadline::At(deadline_ms), _) => self.or_auto(deadline_ms, key),
                    (Deadline::Exactly(deadline_ms), _) => deadline_ms,
                };
                match value.len() {
                    0..SHARED_LEN_MIN => self.put_until(found, key, &value, until, changes),
                    _ => self.put_shared_until(found, key, value, until, changes),
                }
            }
            Outcome::Removed => {
                if let Some(found) = found {
                    self.remove(found, key, changes);
                }
            }
        }
        let (class, event) = effect.event;
        if !is_nothing && self.event_classes.has_any(class) {
            self.events.push(Event::Named(self.database, event, key.into()));
        }
    }

    fn rewrite(&mut self, found: Found, key: &[u8], value: &[u8], changes: &mut Changes) {
        let entry = self.keyspace.entry(found);
        let (before, deadline_ms) = (entry.value(), entry.deadline_ms());
        if before.len() > value.len() {
            return self.put(Some(found), key, value, deadline_ms, changes);
        }
        let mut differing: Vec<Range<usize>> = Vec::new();
        for start in (0..value.len()).step_by(REWRITTEN_BYTES) {
            let end = value.len().min(start + REWRITTEN_BYTES);
            if before.get(start..end) == Some(&value[start..end]) {
                continue;
            }
            match differing.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => differing.push(start..end),
            }
        }
        self.note_change(key, false);
        self.count_write(key, found, value.len(), deadline_ms);
        // Only the last part may make the value longer, and so move it.
        for Range { start, end } in differing {
            self.keyspace.splice(found, start, &value[start..end]);
            let offset = u32::try_from(start).expect("values are bounded below 4 GiB");
            changes.push(&Change::Splice { key, offset, bytes: &value[start..end] });
        }
    }

    fn remove(&mut self, found: Found, key: &[u8], changes: &mut Changes) {
        if let Some(analytics) = &mut self.analytics {
            analytics.on_remove(key, found.hash);
        }
        self.note_change(key, false);
        self.keyspace.remove(found);
        changes.push(&Change::Remove { key });
    }

    /// The deadline of a key that is set with this one.
    #[inline]
    fn or_auto(&self, deadline_ms: Option<u64>, key: &[u8]) -> Option<u64> {
        deadline_ms.or_else(|| self.auto_ttl.deadline_ms(key, self.now_ms))
    }

    #[inline]
    fn put(
        &mut self,
        found: Option<Found>,
        key: &[u8],
        value: &[u8],
        deadline_ms: Option<u64>,
        changes: &mut Changes,
    ) {
        self.put_until(found, key, value, self.or_auto(deadline_ms, key), changes);
    }

    #[inline]
    fn put_until(
        &mut self,
        found: Option<Found>,
        key: &[u8],
        value: &[u8],
        deadline_ms: Option<u64>,
        changes: &mut Changes,
    ) {
        self.note_change(key, found.is_none());
        match found {
            Some(found) => {
                self.count_write(key, found, value.len(), deadline_ms);
                self.keyspace.set_value(found, value, deadline_ms);
            }
            None => {
                let (probe, usage) = self.count_insert(key, value.len(), deadline_ms);
                self.keyspace.insert(probe, value, deadline_ms, usage);
            }
        }
        changes.push(&Change::Put { key, value, deadline_ms });
    }

    fn put_shared(
        &mut self,
        found: Option<Found>,
        key: &[u8],
        value: Bytes,
        deadline_ms: Option<u64>,
        changes: &mut Changes,
    ) {
        self.put_shared_until(found, key, value, self.or_auto(deadline_ms, key), changes);
    }

    #[inline(never)]
    fn put_shared_until(
        &mut self,
        found: Option<Found>,
        key: &[u8],
        value: Bytes,
        deadline_ms: Option<u64>,
        changes: &mut Changes,
    ) {
        changes.push_shared(key, value.clone(), deadline_ms);
        self.note_change(key, found.is_none());
        match found {
            Some(found) => {
                self.count_write(key, found, value.len(), deadline_ms);
                self.keyspace.set_shared(found, value, deadline_ms);
            }
            None => {
                let (probe, usage) = self.count_insert(key, value.len(), deadline_ms);
                self.keyspace.insert_shared(probe, value, deadline_ms, usage);
            }
        }
    }

    /// A key is changed, or made.
    #[inline]
    pub(crate) fn note_change(&mut self, key: &[u8], is_new: bool) {
        if self.event_classes != EventClasses::default() {
            self.tell_change(key, is_new);
        }
    }

    #[cold]
    fn tell_change(&mut self, key: &[u8], is_new: bool) {
        if is_new && self.event_classes.has_any(EventClasses::NEW) {
            self.events.push(Event::Named(self.database, "new", key.into()));
        }
        if self.event_classes.has_any(EventClasses::CHANGE) {
            self.events.push(Event::Changed(key.into()));
        }
    }

    /// All keys of a database are about to be removed.
    fn note_clear(&mut self) {
        if self.event_classes.has_any(EventClasses::CHANGE) {
            self.events.push(Event::Cleared);
        }
    }

    /// Something has happened to a key of the database that is worked in, which is to be told.
    #[cold]
    #[inline(never)]
    fn tell(&mut self, event: &'static str, key: &[u8]) {
        self.events.push(Event::Named(self.database, event, key.into()));
    }

    /// Whether any client wants to be told of keys that expire.
    #[inline]
    pub(crate) fn tells_of_expired(&self) -> bool {
        self.event_classes.has_any(EventClasses::EXPIRED.with(EventClasses::CHANGE))
    }

    /// A key of this database has expired.
    #[cold]
    pub(crate) fn tell_expired(&mut self, database: u16, key: Box<[u8]>) {
        if self.event_classes.has_any(EventClasses::CHANGE) {
            self.events.push(Event::Changed(key.clone()));
        }
        if self.event_classes.has_any(EventClasses::EXPIRED) {
            self.events.push(Event::Named(database, "expired", key));
        }
    }

    #[inline]
    fn count_write(&mut self, key: &[u8], found: Found, value_len: usize, deadline_ms: Option<u64>) {
        if let Some(analytics) = &mut self.analytics {
            analytics.on_write(key, found, value_len, deadline_ms, &mut self.keyspace);
        }
    }

    #[inline(always)] // What it returns would go through memory.
    fn count_insert<'k>(
        &mut self,
        key: &'k [u8],
        value_len: usize,
        deadline_ms: Option<u64>,
    ) -> (Probe<'k>, Option<Usage>) {
        let probe = self.keyspace.probe(key);
        let analytics = self.analytics.as_mut();
        (probe, analytics.map(|analytics| analytics.on_insert(probe, value_len, deadline_ms)))
    }

    /// Empty keyspaces take the places of all, whose memory is freed in the background.
    pub(crate) fn free_all_lazily(&mut self) {
        self.free_lazily();
        let resting = self.databases.resting_mut().filter(|(_, keyspace)| keyspace.len() > 0);
        self.lazy_free.extend(resting.map(|(_, keyspace)| keyspace.take()));
    }

    /// An empty keyspace takes the place of this one, whose memory is freed in the background.
    pub(crate) fn free_lazily(&mut self) {
        if self.keyspace.len() > 0 {
            self.lazy_free.push(self.keyspace.take());
        }
    }
}
