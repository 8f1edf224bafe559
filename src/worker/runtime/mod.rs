//! A worker's shard, its log, and what is under way on them: requests that wait for locks, parts of transactions, and
//! work that takes several turns. Clients are not known here; answers go to the workers that asked, this one among
//! them.

mod large_values;
mod loaded;
mod long_reads;
mod parts;
mod settling;

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shard::analytics::query::{Query, Question};
use shard::combine::Terms;
use shard::command::{Flags, Run};
use shard::{
    AutoTtl, Changes, Clocks, Error, Event, EventClasses, Mark, OwnedRequest, Reply, Request, Scan, Shard,
};
use wal::{Log, Note, OsDisk};

use super::turn::{Now, Turn};
use crate::client::reply::write_reply;
use crate::clock::{Followed, Reading, ShardClock};
use crate::config::{Config, SyncMode};
use crate::durability::commit_delay::CommitSiblings;
use crate::durability::journal::{Journal, Outcome};
use crate::durability::snapshotter::Snapshotter;
use crate::failure::Failure;
use crate::mesh::{Answer, Asker, CommandList, Mesh, Page, RequestId, Tracks, TransactionId};
use crate::metrics::Report;
use crate::net::Net;
use crate::pubsub::tracked::{Tracked, Tracker};
use crate::shared::Shared;
use crate::slots::SHARDS_MAX;
use crate::txn::id::transaction_id;
use crate::txn::locks::{LockKeys, LockTable, Waiter};
use crate::txn::watch::WatchTable;
use crate::{protocol, recovery};
use large_values::Stagings;
use loaded::Loaded;
use long_reads::LongReads;
use parts::Behind;
use settling::Settling;

pub(super) use large_values::is_staged;
pub(super) use long_reads::is_long_read;
pub(super) use parts::{Prepared, REPLIES_BYTES_MAX};

/// How many due keys one turn removes. Each costs a microsecond or two where millions are due and none is cached; a
/// client without a pipeline is served once a turn.
const EXPIRED_PER_TURN_MAX: usize = 64;

/// How many steps, of some microseconds each, one turn takes to free dropped keyspaces.
const LAZY_FREE_STEPS_PER_TURN: usize = 16;

/// How many keys one turn visits to answer a question about the use of keys.
const QUERY_KEYS_PER_TURN: usize = 512;

/// How many steps one turn takes for `SCAN` and `KEYS`, of all clients together: a tenth of a millisecond, in which it
/// visits 512 keys at most, and fewer where they are long or hard to compare.
const WALK_STEPS_PER_TURN: usize = 64 << 10;

/// By so much a wall clock has to be set for a line in the server's log: one that is only corrected is not worth it.
const TOLD_STEP_MS: u64 = 1000;

/// In the mode `always`, what arrives during a sync waits for more where turns serve fewer commands than this and
/// several clients wait.
const GATHERING_COMMANDS_MAX: u64 = 16;

/// How long `everysec` leaves data unsynced.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// A worker's shard, its log, and what is under way on them.
pub(super) struct ShardRuntime {
    index: usize,
    shard: Shard,
    /// Empty while the shard is being read back.
    journal: Loaded<Journal>,
    snapshotter: Snapshotter,
    locks: LockTable<Deferred>,
    /// The locked or waiting parts of transactions.
    prepared: HashMap<TransactionId, Prepared>,
    /// The keys that clients watch.
    watched: WatchTable,
    /// Answers about all keys that show what transactions have not brought to the log yet.
    behind: Vec<Behind>,
    /// The time of the last transaction id that was made or met; see [`Shared::id_time_us`].
    last_id_us: u64,
    /// The snapshotter stands in line at the lock table, for a quiescent point.
    awaits_quiescence: bool,
    settling: Settling,
    /// Requests that got their locks, from the first script among them on.
    granted: VecDeque<Granted>,
    /// Questions about the use of keys; the first one is being answered. Each client has one at most.
    queries: VecDeque<Asked>,
    /// Walks of `SCAN` and `KEYS`, which take turns. Each client has one at most.
    walks: VecDeque<Walking>,
    /// Reads of very many keys.
    long_reads: LongReads,
    /// Commands that wait until their large values are written.
    stagings: Stagings,
    /// Expired keys are left to be removed.
    expiring: bool,
    /// Which change of the rules for TTLs counts here.
    auto_ttl_version: u64,
    /// In the mode `always`: whose commands wait for syncs.
    siblings: CommitSiblings,
    last_sync: Instant,
    /// Which clients keep copies of which keys.
    tracked: Tracked,
    /// What has happened to keys and is yet to be told, behind which there are the shard's own events.
    events: Vec<Happened>,
    /// What became of frames that were written in this turn, for its clients.
    outcomes: Vec<Outcome>,
}

/// What waits for locks.
enum Deferred {
    /// A command on one shard.
    Request { asker: Asker, request: OwnedRequest },
    /// Commands that run as one on this shard.
    List { asker: Asker, list: Box<CommandList> },
    /// A part of a transaction; see [`ShardRuntime::prepared`].
    Part(TransactionId),
    /// The snapshotter, for a moment without transactions.
    Snapshotter,
}

/// What got its locks.
pub(super) enum Granted {
    /// A request.
    Request(Asker, OwnedRequest),
    /// Commands that run as one.
    List(Asker, Box<CommandList>),
    /// A part of a transaction.
    Part(TransactionId),
    /// The snapshotter.
    Snapshotter,
}

/// A question about the use of keys, and its asker.
struct Asked {
    asker: (usize, RequestId),
    query: Query,
}

/// A part of a walk over the shard's keys, on its way.
struct Walking {
    asker: Asker,
    scan: Scan,
    /// How many keys are still to be visited, about.
    keys_left: usize,
    /// What was found.
    page: Page,
}

/// Something that has happened to a key.
pub(super) struct Happened {
    pub event: Event,
    /// The client that has done it, where that does not want to be told.
    pub by: Option<Tracker>,
    /// The clients that had read the key, where it was changed.
    pub readers: Vec<Tracker>,
}

/// A request that was executed.
pub(super) struct Executed<'s> {
    pub reply: Reply<'s>,
    /// The frame that the reply depends on.
    pub seq: u64,
    /// The journal, which knows whether the reply has to wait for that.
    pub journal: &'s mut Journal,
    /// Whose commands wait for syncs.
    pub siblings: &'s mut CommitSiblings,
}

/// Whether a request locks its keys for itself alone.
fn locks_alone(request: &Request<'_>) -> bool {
    request.command.has(Flags::WRITE) || request.command.has(Flags::MAY_WRITE)
}

/// Answers a request that ran, as soon as the frame that the reply depends on allows.
pub(super) fn give(
    journal: &mut Journal,
    seq: u64,
    asker: Asker,
    mesh: &mut Mesh,
    reply: &Reply<'_>,
    request: &Request<'_>,
) {
    match reply {
        Reply::Error(error) => {
            journal.answer(seq, asker.worker, asker.request_id, Answer::Failed(error.clone()), mesh);
        }
        reply => {
            journal.answer_bytes(seq, asker.id(), mesh, |out| {
                write_reply(reply, request, asker.dialect, out);
            });
        }
    }
}

impl ShardRuntime {
    /// Until its keys are read, an empty shard stands in for it, and keeps what is set meanwhile. `wakeup` makes the
    /// worker take a turn.
    ///
    /// # Errors
    /// When there can be no other thread.
    pub(super) fn new(index: usize, config: &Config, wakeup: OwnedFd) -> std::io::Result<ShardRuntime> {
        let mut shard = Shard::new(recovery::random_seeds());
        shard.set_auto_ttl(Arc::new(config.auto_ttl.clone().unwrap_or_default()));
        Ok(ShardRuntime {
            index,
            shard,
            journal: Loaded::not_yet(),
            snapshotter: Snapshotter::new(config, wakeup)?,
            locks: LockTable::new(recovery::random_seeds()),
            prepared: HashMap::new(),
            watched: WatchTable::default(),
            behind: Vec::new(),
            last_id_us: 0,
            awaits_quiescence: false,
            settling: Settling::default(),
            granted: VecDeque::new(),
            queries: VecDeque::new(),
            walks: VecDeque::new(),
            long_reads: LongReads::new(),
            stagings: Stagings::new(),
            expiring: false,
            auto_ttl_version: 0,
            siblings: CommitSiblings::default(),
            last_sync: Instant::now(),
            tracked: Tracked::default(),
            events: Vec::new(),
            outcomes: Vec::new(),
        })
    }

    /// Takes the shard that was read back, and what an earlier process has left in its note.
    pub(super) fn take_up(&mut self, mut shard: Shard, note: Option<&Note<OsDisk>>) {
        if let Some(note) = note {
            self.snapshotter.take_up(note, &mut shard);
        }
        shard.set_auto_ttl(self.shard.auto_ttl().clone());
        self.shard = shard;
    }

    /// Opens the log that was read back.
    pub(super) fn open_log(&mut self, log: Log<OsDisk>, shared: &Shared) {
        self.journal.set(Journal::new(self.index, log, &shared.config));
        shared.shard_loaded(self.index, self.shard.key_count());
    }

    /// The shard, whose clock begins to go.
    pub(super) fn shard_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }

    /// What the log last said of the clocks, if it did.
    pub(super) fn clocks(&self) -> Option<Clocks> {
        self.shard.clocks()
    }

    /// Which TTL keys get that are written without one.
    pub(super) fn auto_ttl(&self) -> &Arc<AutoTtl> {
        self.shard.auto_ttl()
    }

    /// From now on events of these classes are gathered.
    #[inline]
    pub(super) fn want_events(&mut self, classes: EventClasses) {
        self.shard.want_events(classes);
    }

    /// From now on clients keep copies of so many keys at most; 0 for no limit.
    #[inline]
    pub(super) fn bound_tracked(&mut self, keys_max: usize) {
        self.tracked.keys_max = keys_max;
    }

    /// How many keys clients keep copies of, and how many copies.
    pub(super) fn tracked_counts(&self) -> [usize; 2] {
        self.tracked.counts()
    }

    /// Whether anything has happened to keys that is yet to be told.
    #[inline]
    pub(super) fn has_events(&self) -> bool {
        self.shard.has_events() || !self.events.is_empty()
    }

    /// What has happened since the last call.
    pub(super) fn take_events(&mut self) -> Vec<Happened> {
        self.gather_events(None);
        std::mem::take(&mut self.events)
    }

    /// What has happened since this was called last was done by this client, which does not want to be told; or by
    /// others. Who keeps copies of keys from now on has read what they are now.
    pub(super) fn gather_events(&mut self, by: Option<Tracker>) {
        for event in self.shard.take_events() {
            let readers = match &event {
                Event::Changed(key) => self.tracked.take(key),
                Event::Named(..) => Vec::new(),
                Event::Cleared => {
                    self.tracked.clear();
                    Vec::new()
                }
            };
            self.events.push(Happened { event, by, readers });
        }
    }

    /// Notes what a request was for a client that keeps copies of keys.
    pub(super) fn note_tracked(&mut self, tracker: Tracker, tracks: Tracks, request: &Request<'_>) {
        self.gather_events(tracks.own_changes.then_some(tracker));
        if tracks.reads && !request.command.has(Flags::WRITE) {
            request.keys().for_each(|key| self.remember(key, tracker));
        }
    }

    /// Notes that a client keeps a copy of a key.
    pub(super) fn remember(&mut self, key: &[u8], tracker: Tracker) {
        if let Some(victim) = self.tracked.remember(key, tracker) {
            let readers = self.tracked.take(&victim);
            self.events.push(Happened { event: Event::Changed(victim[..].into()), by: None, readers });
        }
    }

    /// Reads ahead for requests on these keys of a database.
    #[inline]
    pub(super) fn prefetch<'k>(&self, database: u16, keys: impl Iterator<Item = &'k [u8]>) {
        self.shard.prefetch(database, keys);
    }

    /// Whether another thread works on the log, and will wake the worker by its executor.
    pub(super) fn awaits_threads(&self) -> bool {
        self.snapshotter.is_busy() || self.journal.get().is_none()
    }

    /// Whether a sync or other blocking work is under way, whose end the end of the server waits for.
    pub(super) fn is_busy(&self) -> bool {
        self.snapshotter.is_busy() || self.journal.get().is_some_and(Journal::awaits_sync)
    }

    /// Ends the log, if there is one.
    ///
    /// # Errors
    /// [`Failure::Log`].
    pub(super) fn close(self) -> Result<(), Failure> {
        // A server that is told to stop while it is loading ends without an end of its workers.
        let Some(journal) = self.journal.into_inner() else { return Ok(()) };
        journal.close().map_err(|error| Failure::log(self.index, error))
    }

    // ---- requests ----

    /// Runs a request on the shard. This is the one place where requests of clients meet the journal.
    #[inline]
    pub(super) fn execute<'s>(
        &'s mut self,
        request: &Request<'_>,
        now: Now,
        mesh: &mut Mesh,
    ) -> Executed<'s> {
        self.settle_long_reads(request, now, mesh);
        let ShardRuntime { shard, journal, siblings, watched, .. } = self;
        let journal = &mut **journal;
        journal.bound_frame();
        let before = journal.changes.mark();
        let reply = shard.execute(request, now.now_ms, &mut journal.changes);
        let has_changed = journal.changes.mark() != before;
        if has_changed && !watched.is_empty() {
            journal.changes.touched_from(before).for_each(|touched| watched.raise(touched));
        }
        let seq = journal.frame_behind(request, has_changed);
        Executed { reply, seq, journal, siblings }
    }

    /// What changes from now on until the script ends is one frame, or a part of one.
    pub(super) fn begin_script(&mut self) -> Mark {
        self.journal.bound_frame();
        self.journal.changes.mark()
    }

    /// Runs a command of a script, whose changes go into a list of their own, if there is one.
    pub(super) fn execute_in_script<'s>(
        &'s mut self,
        request: &Request<'_>,
        now: Now,
        mesh: &mut Mesh,
        own: Option<&mut Changes>,
    ) -> Executed<'s> {
        self.settle_long_reads(request, now, mesh);
        let ShardRuntime { shard, journal, siblings, watched, .. } = self;
        let journal = &mut **journal;
        let is_own = own.is_some();
        let changes = own.unwrap_or(&mut journal.changes);
        let before = changes.mark();
        let reply = shard.execute(request, now.now_ms, changes);
        let has_changed = changes.mark() != before;
        if has_changed && !watched.is_empty() {
            changes.touched_from(before).for_each(|touched| watched.raise(touched));
        }
        let seq = journal.frame_behind(request, has_changed && !is_own);
        Executed { reply, seq, journal, siblings }
    }

    /// How many bytes the frame has that a script's changes are to be in: those of the list of its own, if there is one.
    pub(super) fn script_change_bytes(&self, own: Option<&Changes>) -> usize {
        own.unwrap_or(&self.journal.changes).payload_len()
    }

    /// Takes the changes of a script out of those of the turn, which can be written then.
    pub(super) fn split_changes(&mut self, mark: Mark) -> Changes {
        self.journal.changes.split_off(mark)
    }

    /// The changes of a script were dropped, since the server stops: nothing may come upon them.
    pub(super) fn note_cut(&mut self) {
        self.journal.note_cut();
    }

    /// Takes the changes of a script that has ended. Returns the frame that its reply depends on.
    pub(super) fn adopt(&mut self, changes: Changes) -> u64 {
        self.journal.adopt(changes)
    }

    /// Answers a script that has run, as soon as the frame that the reply depends on allows.
    pub(super) fn give_reply(
        &mut self,
        seq: u64,
        asker: Asker,
        mesh: &mut Mesh,
        reply: &Reply<'_>,
        request: &Request<'_>,
    ) {
        give(&mut self.journal, seq, asker, mesh, reply, request);
    }

    /// The next request that got its locks and has not run.
    pub(super) fn next_granted(&mut self) -> Option<Granted> {
        self.granted.pop_front()
    }

    /// Runs a request whose reply has to outlive the turn, or is one of several parts.
    pub(super) fn execute_part(
        &mut self,
        request: &Request<'_>,
        now: Now,
        mesh: &mut Mesh,
    ) -> (Reply<'static>, u64) {
        let Executed { reply, seq, .. } = self.execute(request, now, mesh);
        (reply.into_owned(), seq)
    }

    /// The error for a command that writes, while the log takes no changes.
    #[inline]
    pub(super) fn refusal(&self, request: &Request<'_>) -> Option<Error> {
        if request.command.has(Flags::WRITE) { self.journal.refusal() } else { None }
    }

    /// Whether a request has to wait for a transaction.
    #[inline]
    pub(super) fn has_to_wait(&self, request: &Request<'_>) -> bool {
        !self.locks.is_idle() && self.conflicts(request)
    }

    fn conflicts(&self, request: &Request<'_>) -> bool {
        let exclusive = locks_alone(request);
        if request.command.run == Run::Script && request.keys().next().is_none() {
            return true; // It may use any key of the shard.
        }
        if matches!(request.command.run, Run::EveryShard(..)) {
            // It must not overtake what its client has sent before, nor see what is not in the log yet.
            return true;
        }
        self.locks.conflicts(request.keys().map(|key| self.locks.hash(key)), exclusive)
    }

    /// Has a request wait for a transaction.
    pub(super) fn defer(&mut self, asker: Asker, request: &Request<'_>) {
        let (keys, exclusive) = self.locks_of(request);
        let payload = Deferred::Request { asker, request: OwnedRequest::new(request) };
        self.locks.wait(Waiter { keys, exclusive, payload, lock_for: None });
    }

    /// What a request locks, and whether for itself alone.
    pub(super) fn locks_of(&self, request: &Request<'_>) -> (LockKeys, bool) {
        let keys = match request.command.keys.any() && request.keys().next().is_some() {
            true => LockKeys::Each(request.keys().map(|key| self.locks.hash(key)).collect()),
            false => LockKeys::Whole,
        };
        (keys, locks_alone(request))
    }

    /// Runs a request for a worker, now or as soon as no transaction has its keys.
    pub(super) fn take(&mut self, asker: Asker, request: &Request<'_>, turn: &mut Turn<'_>) {
        if let Some(error) = self.refusal(request) {
            turn.mesh.to(asker.worker).answer(asker.request_id, Answer::Rejected(error));
        } else if self.has_to_wait(request) {
            self.defer(asker, request);
        } else {
            self.run_for(asker, request, turn);
        }
    }

    /// As [`ShardRuntime::take`], for a request with a large argument.
    pub(super) fn take_large(&mut self, asker: Asker, request: OwnedRequest, turn: &mut Turn<'_>) {
        if is_staged(&request.request()) && self.refusal(&request.request()).is_none() {
            self.stage(asker, request);
        } else {
            self.take(asker, &request.request(), turn);
        }
    }

    /// Runs a request for a worker.
    pub(super) fn run_for(&mut self, asker: Asker, request: &Request<'_>, turn: &mut Turn<'_>) {
        if is_long_read(request) {
            return self.begin_long_read(asker, request);
        }
        if !asker.tracks.any() {
            return self.run_at_once(asker, request, turn);
        }
        self.gather_events(None);
        self.run_at_once(asker, request, turn);
        self.note_tracked((asker.worker, asker.request_id.socket), asker.tracks, request);
    }

    fn run_at_once(&mut self, asker: Asker, request: &Request<'_>, turn: &mut Turn<'_>) {
        if let Some(error) = self.refusal(request) {
            return turn.mesh.to(asker.worker).answer(asker.request_id, Answer::Rejected(error));
        }
        let Executed { reply, seq, journal, .. } = self.execute(request, turn.now, turn.mesh);
        if let Some(value) = protocol::lone_value(&reply, asker.dialect)
            && !journal.holds_back(seq)
        {
            return turn.mesh.to(asker.worker).answer(asker.request_id, Answer::Value(value.clone()));
        }
        give(journal, seq, asker, turn.mesh, &reply, request);
    }

    /// What is true for a command that combines what keys hold, of several shards.
    pub(super) fn terms(&self, now: Now) -> Terms {
        self.shard.terms(now.now_ms)
    }

    /// Whether an answer that depends on this frame has to wait. Its client is then counted among those that wait.
    pub(super) fn holds_back(&mut self, seq: u64, counted_in: &mut u32, is_alone: bool) -> bool {
        let holds_back = self.journal.holds_back(seq);
        if holds_back {
            self.siblings.note(counted_in, is_alone);
        }
        holds_back
    }

    /// Gives an answer as soon as the frame that it depends on allows.
    pub(super) fn answer_bytes(&mut self, seq: u64, asker: Asker, bytes: &[u8], mesh: &mut Mesh) {
        self.journal.answer_bytes(seq, asker.id(), mesh, |out| out.extend_from_slice(bytes));
    }

    /// Begins to answer a question about the use of keys.
    pub(super) fn ask(&mut self, asker: (usize, RequestId), question: Question, now: Now) {
        let query = self.shard.ask(question, self.index, now.now_ms);
        let query = query.expect("questions are asked only where something is counted");
        self.queries.push_back(Asked { asker, query });
    }

    /// Begins a walk over about so many keys.
    pub(super) fn begin_walk(&mut self, asker: Asker, scan: Scan, keys: usize) {
        self.walks.push_back(Walking { asker, scan, keys_left: keys, page: Page::default() });
    }

    /// Ends what was asked for under this id, as far as it is still under way.
    pub(super) fn forget(&mut self, asker: (usize, RequestId), mesh: &mut Mesh) {
        let (origin, request_id) = asker;
        if let Some(at) = self.walks.iter().position(|walk| walk.asker.id() == asker) {
            self.walks.remove(at);
            mesh.to(origin).answer(request_id, Answer::Page(Box::default()));
        }
        if let Some(at) = self.queries.iter().position(|asked| asked.asker == asker) {
            self.queries.remove(at);
            mesh.to(origin).answer(request_id, Answer::QueryResult(Box::default()));
        }
        if self.unstage(asker) || self.drop_long_read(asker) {
            mesh.to(origin).answer_bytes(request_id, |_| {});
        }
    }

    /// Which TTL keys get that are written without one, unless newer rules have come already.
    pub(super) fn set_auto_ttl(&mut self, auto_ttl: Arc<AutoTtl>, version: u64) {
        if version > self.auto_ttl_version {
            self.auto_ttl_version = version;
            self.shard.set_auto_ttl(auto_ttl);
        }
    }

    /// An id for a transaction that this worker leads.
    pub(super) fn next_id(&mut self, shared: &Shared) -> TransactionId {
        self.last_id_us = shared.id_time_us().max(self.last_id_us + 1);
        transaction_id(self.last_id_us, self.index)
    }

    // ---- the log ----

    /// Writes the log, if there is one yet: what this turn has answered so far leaves only if that succeeds. The other
    /// workers know how far it is before any answer leaves that depends on it.
    pub(super) fn write_log(&mut self, turn: &mut Turn<'_>) {
        if self.journal.get().is_some() {
            let outcome = self.journal.write(turn.net, turn.mesh);
            let log = &self.journal.log;
            turn.shared.note_log(self.index, log.written_seq(), log.durable_seq());
            if outcome != Outcome::AsBefore {
                self.outcomes.push(outcome);
            }
        }
    }

    /// Whether this turn's changes may wait for later ones before they are written.
    pub(super) fn gathers(&self) -> bool {
        self.journal.gathers()
    }

    /// In the mode `always`, before a turn: expects commit siblings. Returns whether what arrives during the next sync
    /// gathers, given that the turns before have `served` so many commands: where each packet brings one command, most
    /// of a turn's cost is that it happens at all.
    pub(super) fn expect_siblings(&mut self, served: u64, now: Now) -> bool {
        let gathers = served < GATHERING_COMMANDS_MAX && self.journal.awaiting_sync() > 1;
        self.journal.expect_siblings(self.siblings.expected(now.uptime_us));
        gathers
    }

    /// How many more commands the next sync waits for, and for how long, if it does.
    pub(super) fn awaited_siblings(&self) -> Option<(usize, Duration)> {
        self.journal.get().and_then(Journal::awaited_siblings)
    }

    /// Takes the end of the sync of one file.
    pub(super) fn on_synced(&mut self, result: std::io::Result<()>, net: &mut Net, mesh: &mut Mesh) {
        self.journal.on_synced(result, net, mesh);
    }

    /// A worker has synced its log for a snapshot of this shard, or could not.
    pub(super) fn on_peer_synced(&mut self, synced: bool, mesh: &mut Mesh) {
        self.snapshotter.on_synced(synced, &self.journal.log, mesh);
    }

    /// Answers when everything acknowledged so far is on disk.
    pub(super) fn sync_for(&mut self, origin: usize, request_id: RequestId, turn: &mut Turn<'_>) {
        self.write_log(turn);
        self.journal.answer_synced(origin, request_id, turn.net, turn.mesh);
    }

    /// Asks for a snapshot; the worker that asks is answered, or nothing is.
    pub(super) fn compact(&mut self, asker: Option<(usize, RequestId)>) {
        match asker {
            Some((origin, request_id)) => self.snapshotter.ask(origin, request_id),
            None => self.snapshotter.ask_unheard(),
        }
    }

    /// Looks whether the disk has taken too long, `passed` after the last look. Returns the error for clients whose
    /// replies show what could not be written, if they are given up.
    pub(super) fn watch_disk(&mut self, passed: Duration, shared: &Shared, mesh: &mut Mesh) -> Option<Error> {
        self.journal.get()?;
        let are_given_up = self.journal.watch(passed, mesh);
        shared.note_disk(self.index, self.journal.is_failing());
        are_given_up.then(|| self.journal.not_on_disk())
    }

    /// Takes note of the last second.
    pub(super) fn note_second(&mut self, now: Now, latency_us: Option<f64>) {
        self.shard.note_second(now.now_ms, latency_us);
    }

    /// What became of the frames that were written, in order.
    pub(super) fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// Begins the sync of a second, in the mode `everysec`.
    pub(super) fn sync_each_second(&mut self, config: &Config, net: &mut Net) {
        let everysec = config.sync_mode == SyncMode::EverySecond;
        if everysec && self.journal.get().is_some() && self.last_sync.elapsed() >= SYNC_INTERVAL {
            self.last_sync = Instant::now();
            self.journal.begin_sync(net);
        }
    }

    /// Notices that the wall clock was set, or that the machine was suspended.
    pub(super) fn follow_clocks(&mut self, clock: &mut ShardClock, started: Instant) {
        let Some(reading) = Reading::take(started) else { return };
        if self.journal.fault().is_some() || self.has_unlogged_parts() {
            return; // The log has to tell of it.
        }
        match clock.follow(reading, &mut self.shard, &mut self.journal.changes) {
            Followed::AsBefore => {}
            Followed::Set { by_ms } if by_ms.unsigned_abs() < TOLD_STEP_MS => {}
            Followed::Set { by_ms } => {
                tracing::warn!(shard = self.index, by_ms, "the wall clock was set; TTLs run on as before");
            }
            Followed::Later => self.expiring = true,
        }
    }

    /// Has the log tell what the clocks show, and which keys have expired. What a transaction has given another deadline
    /// has in the log the one from before: until that is written, the log would take it for expired.
    pub(super) fn log_clocks(&mut self, clock: &mut ShardClock, now: Now) {
        if self.journal.fault().is_none() && !self.has_unlogged_parts() {
            clock.log(now.uptime_us, &self.shard, &mut self.journal.changes);
        }
    }

    // ---- work that takes several turns ----

    /// Expired keys are to be removed.
    pub(super) fn begin_to_expire(&mut self) {
        self.expiring = true;
    }

    /// Whether the work that no client waits for has come to its end, now that the server stops.
    pub(super) fn has_ended_background(&self) -> bool {
        self.snapshotter.has_left_last_note()
    }

    /// One slice of each kind of work that no client waits for. Returns whether more is left.
    pub(super) fn background(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.expiring {
            let removed = self.shard.expire(turn.now.now_ms, EXPIRED_PER_TURN_MAX);
            self.expiring = removed == EXPIRED_PER_TURN_MAX;
        }
        let freeing = self.shard.reclaim(LAZY_FREE_STEPS_PER_TURN);
        let (walking, querying) = (self.walk(turn.now, turn.mesh), self.query(turn.mesh));
        let (staging, reading) = (self.go_on_staging(turn), self.go_on_long_reads(turn.now, turn.mesh));
        if self.snapshotter.is_compacting() {
            // A snapshot counts the frames so far: whatever its slices show must be in one of them.
            self.journal.seal();
        }
        let ShardRuntime { snapshotter, shard, journal, .. } = self;
        let (is_stopping, uptime_us) = (turn.shared.stopping(), turn.now.uptime_us);
        snapshotter.step(is_stopping, uptime_us, turn.clock, shard, journal, turn.mesh);
        if self.snapshotter.waits_for_quiescence() && !self.awaits_quiescence {
            if self.locks.is_idle() {
                self.on_quiescence(turn);
            } else {
                self.awaits_quiescence = true;
                let (keys, payload) = (LockKeys::Whole, Deferred::Snapshotter);
                self.locks.wait(Waiter { keys, exclusive: true, payload, lock_for: None });
            }
        }
        let snapshotting = self.snapshotter.is_writing();
        self.expiring || freeing || walking || querying || staging || reading || snapshotting
    }

    /// No transaction has a lock here: what the snapshotter waits for.
    pub(super) fn on_quiescence(&mut self, turn: &mut Turn<'_>) {
        self.awaits_quiescence = false;
        self.journal.seal();
        let now_us = turn.shared.id_time_us().max(self.last_id_us);
        let now_id = transaction_id(now_us, SHARDS_MAX - 1);
        let clocks = turn.clock.clocks(turn.now.uptime_us);
        self.snapshotter.on_quiescence(now_id, clocks, &mut self.journal.log, turn.mesh);
    }

    /// Goes on with the walks of `SCAN` and `KEYS`, as far as a turn's share goes. Returns whether any is left.
    fn walk(&mut self, now: Now, mesh: &mut Mesh) -> bool {
        let mut steps = WALK_STEPS_PER_TURN;
        while steps > 0 {
            let Some(mut walk) = self.walks.pop_front() else { return false };
            let Walking { asker, scan, keys_left, page } = &mut walk;
            let visited = self.shard.scan(scan, *keys_left, &mut steps, now.now_ms, |key| {
                protocol::write_item(&Reply::bytes(key), asker.dialect, &mut page.items);
                page.count += 1;
            });
            *keys_left = keys_left.saturating_sub(visited);
            if !scan.is_decided() || *keys_left > 0 && scan.position().is_some() {
                self.walks.push_back(walk);
            } else {
                page.next = scan.position();
                let page = Answer::Page(Box::new(walk.page));
                self.answer_about_all(walk.asker.id(), page, mesh);
            }
        }
        !self.walks.is_empty()
    }

    /// Goes on with the first question. Returns whether questions are left.
    fn query(&mut self, mesh: &mut Mesh) -> bool {
        let Some(Asked { asker, query }) = self.queries.front_mut() else { return false };
        if let Some(result) = self.shard.advance(query, QUERY_KEYS_PER_TURN) {
            let (asker, answer) = (*asker, Answer::QueryResult(Box::new(result)));
            self.queries.pop_front();
            self.answer_about_all(asker, answer, mesh);
        }
        !self.queries.is_empty()
    }

    /// What there is to count here, but for what takes long to find out.
    pub(super) fn report(&self, clock: &ShardClock, now: Now, shared: &Shared) -> Report {
        let saved_ms = self.snapshotter.saved_ms().unwrap_or_else(|| clock.now_ms(0));
        let saved_s = Some(clock.unix_ms(saved_ms) / 1000);
        let Some(journal) = self.journal.get() else {
            let shard = shard::Stats { keys: shared.loading.keys(self.index), ..Default::default() };
            return Report { saved_s, shard, ..Report::default() };
        };
        let log = &journal.log;
        let log_fill = self.snapshotter.policy().fill(log);
        let of_shard = |cause: &Arc<str>| format!("shard {}: {cause}", self.index).into();
        let (syncs, sync_failures) = journal.syncs();
        Report {
            wal_size_bytes: log.size_bytes() + log.snapshot().map_or(0, |snapshot| snapshot.bytes),
            log_size_bytes: log.size_bytes(),
            wal_entries: log.entries(),
            needs_compaction: self.snapshotter.is_compacting() || log_fill > 1.0,
            log_fill,
            wal_fault: journal.fault().map(of_shard),
            wal_remedy: journal.fault_remedy(),
            refusing: journal.fault().is_some().into(),
            snapshot_fault: self.snapshotter.failure().map(of_shard),
            compacting: self.snapshotter.is_compacting(),
            saved_s,
            shard: self.shard.counters(),
            databases: self.shard.databases(now.now_ms).collect(),
            syncs: *syncs,
            sync_failures,
            snapshots: self.snapshotter.counts(),
            watched: self.shard.watched(now.now_ms),
            ..Report::default()
        }
    }

    /// The same with all there is, for a client that asks.
    pub(super) fn whole_report(&self, clock: &ShardClock, now: Now, shared: &Shared) -> Report {
        let mut report = self.report(clock, now, shared);
        if self.journal.get().is_some() {
            report.shard = self.shard.stats();
            report.outlook = self.snapshotter.policy().outlook(clock.unix_ms(now.now_ms)).map(Box::new);
        }
        report
    }

    /// How many walks are under way, and how many keys they have found so far.
    #[cfg(test)]
    pub(super) fn walks(&self) -> (usize, usize) {
        (self.walks.len(), self.walks.iter().map(|walk| walk.page.count).sum())
    }

    #[cfg(test)]
    pub(super) fn key_count(&self) -> usize {
        self.shard.key_count()
    }

    #[cfg(test)]
    pub(super) fn staging_count(&self) -> usize {
        self.stagings.len()
    }

    /// How many reads of very many keys are under way, and how many of them have come to this key.
    #[cfg(test)]
    pub(super) fn long_reads(&self, key: &[u8]) -> (usize, usize) {
        let seen = self.long_reads.iter().filter(|read| read.has_seen(key));
        (self.long_reads.len(), seen.count())
    }

    #[cfg(test)]
    pub(super) fn query_count(&self) -> usize {
        self.queries.len()
    }
}
