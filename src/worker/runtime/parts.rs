//! How a shard takes part in transactions: it locks the keys of its part, runs it hop by hop, and unlocks. And how it runs
//! commands as one whose keys are all its own, without a hop.
//!
//! What the hops change gathers apart from the changes of others, and becomes one frame with the last one.

use std::sync::Arc;

use shard::combine::Effect;
use shard::command::Run;
use shard::{Changes, Error, Mark, OwnedRequest, Reply, Request};
use wal::Kind;

use super::{Deferred, Granted, ShardRuntime};
use crate::client::reply::write_counted;
use crate::logging::printable;
use crate::mesh::{
    Answer, Asker, CommandList, Hop, Locks, Mesh, RequestId, ShardImage, TransactionId, Watch,
};
use crate::protocol::{self, REQUEST_BYTES_MAX};
use crate::txn::id::id_micros;
use crate::txn::locks::{LockKeys, Waiter};
use crate::txn::program::{CHANGE_BYTES_MAX, changes_too_much};
use crate::worker::turn::{Now, Turn};

/// Of more keys than this a transaction locks the whole shard: to lock each would take longer than a turn should.
const LOCKED_KEYS_MAX: usize = 4096;

/// The most bytes of the replies of commands that run as one.
pub(in crate::worker) const REPLIES_BYTES_MAX: usize = REQUEST_BYTES_MAX;

/// A part of a transaction at the shard that holds its keys.
pub(in crate::worker) struct Prepared {
    origin: usize,
    request_id: RequestId,
    locks: Arc<Locks>,
    /// The next of its requests that is to run.
    next: usize,
    /// What it has changed so far.
    changes: Changes,
}

/// An answer that shows changes of transactions that are not in the log yet.
pub(super) struct Behind {
    transactions: Vec<TransactionId>,
    asker: (usize, RequestId),
    answer: Answer,
}

impl Prepared {
    pub(in crate::worker) fn new(origin: usize, request_id: RequestId, locks: Arc<Locks>) -> Prepared {
        Prepared { origin, request_id, locks, next: 0, changes: Changes::default() }
    }
}

/// The keys of all these requests.
fn keys_of<'r>(requests: impl Iterator<Item = &'r OwnedRequest> + Clone) -> impl Iterator<Item = &'r [u8]> {
    requests.flat_map(|request| request.request().keys())
}

impl ShardRuntime {
    /// What locks these requests take: all their keys, or the whole shard where one of them has none.
    fn lock_keys<'r>(&self, requests: impl Iterator<Item = &'r OwnedRequest> + Clone) -> LockKeys {
        let is_of_all = |request: &OwnedRequest| request.request().keys().next().is_none();
        if requests.clone().any(is_of_all) || keys_of(requests.clone()).nth(LOCKED_KEYS_MAX).is_some() {
            return LockKeys::Whole;
        }
        LockKeys::Each(keys_of(requests).map(|key| self.locks.hash(key)).collect())
    }

    // ---- parts of transactions ----

    /// Locks the keys of a part. Where they are not free, the part waits for them or, unless it is to `wait`, is
    /// refused.
    pub(in crate::worker) fn lock_part(
        &mut self,
        transaction: TransactionId,
        wait: bool,
        part: Prepared,
        turn: &mut Turn<'_>,
    ) {
        let Locks { requests, others, exclusive, .. } = &*part.locks;
        let (keys, exclusive) = (self.lock_keys(requests.iter().chain(others)), *exclusive);
        if self.locks.try_lock(transaction, keys.clone(), exclusive) {
            self.prepared.insert(transaction, part);
            self.locked(transaction, turn);
        } else if wait {
            let payload = Deferred::Part(transaction);
            self.locks.wait(Waiter { keys, exclusive, payload, lock_for: Some(transaction) });
            self.prepared.insert(transaction, part);
        } else {
            turn.mesh.to(part.origin).answer(part.request_id, Answer::Refused);
        }
    }

    /// Tells that a part holds its locks, or that it cannot be run. A part that only reads may do so now.
    pub(in crate::worker) fn locked(&mut self, transaction: TransactionId, turn: &mut Turn<'_>) {
        let part = &self.prepared[&transaction];
        let (origin, request_id, locks) = (part.origin, part.request_id, part.locks.clone());
        if locks.exclusive
            && let Some(error) = self.journal.refusal()
        {
            return turn.mesh.to(origin).answer(request_id, Answer::Part(Reply::Error(error)));
        }
        if self.have_changed(&locks.watches, turn.now) {
            let seq = self.journal.frame_behind_all();
            return self.journal.answer(seq, origin, request_id, Answer::Changed, turn.mesh);
        }
        if locks.is_for_backup {
            let image = self.image(turn);
            return turn.mesh.to(origin).answer(request_id, image);
        }
        if locks.runs_at_once {
            return self.hop(transaction, Hop::Next(locks.requests.len()), None, (origin, request_id), turn);
        }
        turn.mesh.to(origin).answer(request_id, Answer::Locked);
    }

    /// Runs a part of a command, and answers it once the log allows.
    pub(in crate::worker) fn run_part_for(
        &mut self,
        origin: usize,
        request_id: RequestId,
        request: &Request<'_>,
        turn: &mut Turn<'_>,
    ) {
        let (reply, _) = self.execute_part(request, turn.now, turn.mesh);
        self.answer_about_all((origin, request_id), Answer::Part(reply), turn.mesh);
    }

    /// How this shard is, for a backup; it is locked, and stays so until all shards are.
    fn image(&mut self, turn: &mut Turn<'_>) -> Answer {
        self.write_log(turn);
        let log = &mut self.journal.log;
        if let Some(error) = log.displaced() {
            let cause = printable(&error.to_string());
            return Answer::Part(Reply::Error(Error::BackupFailed { cause }));
        }
        if log.buffered_bytes() == 0 && !log.needs_snapshot() {
            let (image, keys) = (log.image(), self.shard.key_count() as u64);
            return Answer::Image(Box::new(ShardImage { image, keys }));
        }
        let error = self.journal.refusal().expect("writes are refused while the log lacks any");
        Answer::Part(Reply::Error(error))
    }

    /// Runs a hop of a part that has its locks. With the last one of a transaction, what it has changed goes to the log
    /// under `record`, and the answer waits for that.
    pub(in crate::worker) fn hop(
        &mut self,
        transaction: TransactionId,
        hop: Hop,
        record: Option<TransactionId>,
        (origin, request_id): (usize, RequestId),
        turn: &mut Turn<'_>,
    ) {
        let mut part =
            self.prepared.remove(&transaction).expect("a part stays until its locks are given back");
        let mut run = (Vec::new(), 0);
        match hop {
            Hop::Fetch(request) => {
                let held =
                    self.shard.fetch(request.request().database, request.request().keys(), turn.now.now_ms);
                if part.locks.tracks.reads {
                    self.gather_events(None);
                    request.request().keys().for_each(|key| self.remember(key, (origin, request_id.socket)));
                }
                // What changes something later shows this by its own frame.
                let seq = self.journal.frame_behind(&request.request(), false);
                let seq = if part.locks.exclusive { 0 } else { seq };
                let held = Answer::Held { held, changes_bytes: part.changes.payload_len() };
                self.prepared.insert(transaction, part);
                return self.journal.answer(seq, origin, request_id, held, turn.mesh);
            }
            Hop::Apply(request, effects) => self.apply_in(&mut part, &request, effects, turn),
            Hop::Next(count) => {
                let locks = part.locks.clone();
                let first = part.next;
                part.next += count;
                for request in &locks.requests[first..first + count] {
                    self.run_in(&mut part, request, &mut run, turn);
                }
            }
        }
        let (replies, seq) = run;
        match record {
            Some(record) => {
                let seq = self.commit(record, &mut part);
                self.settle_behind(transaction, turn.mesh);
                self.journal.answer(seq, origin, request_id, Answer::Committed(replies), turn.mesh);
            }
            // What it shows is in the log before the frame that it will commit.
            None if part.locks.exclusive => {
                turn.mesh.to(origin).answer(request_id, Answer::Ran(replies));
            }
            None => self.journal.answer(seq, origin, request_id, Answer::Ran(replies), turn.mesh),
        }
        self.prepared.insert(transaction, part);
    }

    /// Has effects on keys of a part.
    fn apply_in(
        &mut self,
        part: &mut Prepared,
        request: &OwnedRequest,
        effects: Vec<Effect>,
        turn: &mut Turn<'_>,
    ) {
        let request = request.request();
        self.settle_changed_reads(&request, turn.now, turn.mesh);
        let keys: Vec<&[u8]> = request.keys().collect();
        self.shard.apply_effects(
            request.database,
            effects,
            |key| keys[key],
            turn.now.now_ms,
            &mut part.changes,
        );
    }

    /// Runs one request of a part. Adds its reply, and notes the frame that it depends on.
    fn run_in(
        &mut self,
        part: &mut Prepared,
        request: &OwnedRequest,
        (replies, seq): &mut (Vec<Reply<'static>>, u64),
        turn: &mut Turn<'_>,
    ) {
        let request = request.request();
        if part.changes.payload_len() > CHANGE_BYTES_MAX {
            return replies.push(Reply::Error(changes_too_much()));
        }
        self.settle_long_reads(&request, turn.now, turn.mesh);
        let tracks = part.locks.tracks;
        if tracks.any() {
            self.gather_events(None);
        }
        let reply = self.shard.execute(&request, turn.now.now_ms, &mut part.changes);
        replies.push(reply.into_owned());
        if tracks.any() {
            self.note_tracked((part.origin, part.request_id.socket), tracks, &request);
        }
        *seq = (*seq).max(self.journal.frame_behind(&request, false));
    }

    /// Brings to the log what a part has changed. Returns the frame that holds it.
    fn commit(&mut self, record: TransactionId, part: &mut Prepared) -> u64 {
        self.last_id_us = self.last_id_us.max(id_micros(record));
        if !self.watched.is_empty() {
            part.changes.touched_from(Mark::default()).for_each(|touched| self.watched.raise(touched));
        }
        // A part that changes nothing is logged too: to recovery, a part without a frame was cut short.
        match &*part.locks.writers {
            [_] if part.changes.is_empty() => self.journal.frame_behind_all(),
            [_] => self.journal.append_changes(Kind::Batch, &mut part.changes),
            participants => {
                let kind = Kind::Transaction { id: record, participants };
                self.journal.append_changes(kind, &mut part.changes)
            }
        }
    }

    /// Whether transactions have changed something that is not in the log yet.
    pub(super) fn has_unlogged_parts(&self) -> bool {
        self.prepared.values().any(|part| !part.changes.is_empty())
    }

    /// Gives back what a transaction has locked, and goes on with what has waited for it.
    pub(in crate::worker) fn release(&mut self, transaction: TransactionId, turn: &mut Turn<'_>) {
        if let Some(part) = self.prepared.remove(&transaction) {
            debug_assert!(part.changes.is_empty(), "what has changed something is committed");
        }
        let mut granted = Vec::new();
        self.locks.release(transaction, &mut granted);
        for deferred in granted {
            match deferred {
                // A script needs the whole worker; what stands behind it runs behind it.
                Deferred::Request { asker, request }
                    if request.command.run == Run::Script || !self.granted.is_empty() =>
                {
                    self.granted.push_back(Granted::Request(asker, request));
                }
                Deferred::Request { asker, request } => self.run_for(asker, &request.request(), turn),
                Deferred::List { asker, list } if !self.granted.is_empty() => {
                    self.granted.push_back(Granted::List(asker, list));
                }
                Deferred::List { asker, list } => self.run_list_for(asker, &list, turn),
                Deferred::Part(transaction) if !self.granted.is_empty() => {
                    self.granted.push_back(Granted::Part(transaction));
                }
                Deferred::Part(transaction) => self.locked(transaction, turn),
                Deferred::Snapshotter if !self.granted.is_empty() => {
                    self.granted.push_back(Granted::Snapshotter);
                }
                Deferred::Snapshotter => self.on_quiescence(turn),
            }
        }
    }

    // ---- commands that run as one here ----

    /// The error for commands that run as one, while the log takes no changes.
    pub(in crate::worker) fn refusal_of_list(&self, list: &CommandList) -> Option<Error> {
        let refusal = if list.writes { self.journal.refusal() } else { None };
        refusal.map(|error| Error::ExecAbortedBy(Box::new(error)))
    }

    /// Whether commands that run as one have to wait for a transaction.
    pub(in crate::worker) fn list_has_to_wait(&self, list: &CommandList) -> bool {
        if self.locks.is_idle() {
            return false;
        }
        match self.lock_keys(list.requests.iter()) {
            LockKeys::Whole => true,
            LockKeys::Each(keys) => self.locks.conflicts(keys.into_iter(), list.writes),
        }
    }

    /// Has commands that run as one wait for a transaction.
    pub(in crate::worker) fn defer_list(&mut self, asker: Asker, list: Box<CommandList>) {
        let (keys, exclusive) = (self.lock_keys(list.requests.iter()), list.writes);
        let payload = Deferred::List { asker, list };
        self.locks.wait(Waiter { keys, exclusive, payload, lock_for: None });
    }

    /// Runs commands as one for a worker, now or as soon as no transaction has their keys.
    pub(in crate::worker) fn take_list(&mut self, asker: Asker, list: Box<CommandList>, turn: &mut Turn<'_>) {
        if self.list_has_to_wait(&list) {
            self.defer_list(asker, list);
        } else {
            self.run_list_for(asker, &list, turn);
        }
    }

    pub(in crate::worker) fn run_list_for(&mut self, asker: Asker, list: &CommandList, turn: &mut Turn<'_>) {
        if let Some(error) = self.refusal_of_list(list) {
            self.forget_watches(&list.watches);
            return turn.mesh.to(asker.worker).answer(asker.request_id, Answer::Rejected(error));
        }
        let mut out = Vec::new();
        let seq = self.execute_list(list, asker, &mut out, turn.now, turn.mesh);
        self.journal.answer_bytes(seq, asker.id(), turn.mesh, |answer| answer.extend_from_slice(&out));
    }

    /// Runs commands as one, and writes the list of their replies. Returns the frame that these depend on. Their changes
    /// are in one frame.
    pub(in crate::worker) fn execute_list(
        &mut self,
        list: &CommandList,
        asker: Asker,
        out: &mut Vec<u8>,
        now: Now,
        mesh: &mut Mesh,
    ) -> u64 {
        let have_changed = self.have_changed(&list.watches, now);
        self.forget_watches(&list.watches);
        if have_changed {
            protocol::write_item(&Reply::NilArray, asker.dialect, out);
            return self.journal.frame_behind_all();
        }
        if asker.tracks.any() {
            self.gather_events(None);
        }
        self.journal.bound_frame();
        protocol::begin_list(list.requests.len(), asker.dialect, out);
        let (before_bytes, mut seq) = (self.journal.changes.payload_len(), 0);
        for request in &list.requests {
            let request = request.request();
            self.settle_long_reads(&request, now, mesh);
            let journal = &mut *self.journal;
            let mark = journal.changes.mark();
            let reply = if journal.changes.payload_len() - before_bytes > CHANGE_BYTES_MAX {
                Reply::Error(changes_too_much())
            } else {
                self.shard.execute(&request, now.now_ms, &mut journal.changes)
            };
            write_counted(&reply, &request, asker.dialect, REPLIES_BYTES_MAX, out);
            let has_changed = journal.changes.mark() != mark;
            seq = seq.max(journal.frame_behind(&request, has_changed));
            if has_changed && !self.watched.is_empty() {
                journal.changes.touched_from(mark).for_each(|touched| self.watched.raise(touched));
            }
            if asker.tracks.any() {
                self.note_tracked((asker.worker, asker.request_id.socket), asker.tracks, &request);
            }
        }
        seq
    }

    // ---- watched keys ----

    /// One more client watches these keys.
    ///
    /// # Errors
    /// Too many are watched; none of these is.
    pub(in crate::worker) fn watch(
        &mut self,
        keys: Vec<(u16, Box<[u8]>)>,
        now: Now,
    ) -> Result<Vec<Watch>, Error> {
        let mut watches = Vec::with_capacity(keys.len());
        for (database, key) in keys {
            let exists = self.shard.exists(database, &key, now.now_ms);
            match self.watched.watch(database, self.shard.keyspace_of(database), key, exists) {
                Ok(watch) => watches.push(watch),
                Err(error) => {
                    self.forget_watches(&watches);
                    return Err(error);
                }
            }
        }
        Ok(watches)
    }

    /// A client watches these keys no more.
    pub(in crate::worker) fn forget_watches(&mut self, watches: &[Watch]) {
        watches.iter().for_each(|watch| self.watched.forget(watch));
    }

    fn have_changed(&self, watches: &[Watch], now: Now) -> bool {
        let exists =
            |watch: &Watch| watch.existed && self.shard.exists(watch.database, &watch.key, now.now_ms);
        watches.iter().any(|watch| self.watched.has_changed(watch, exists(watch)))
    }

    // ---- answers about all keys ----

    /// Gives an answer that shows all keys, as soon as the log allows: those that transactions have changed and not yet
    /// brought to the log among them, but for the asker's own transaction.
    pub(super) fn answer_about_all(&mut self, asker: (usize, RequestId), answer: Answer, mesh: &mut Mesh) {
        let open = self
            .prepared
            .iter()
            .filter(|(_, part)| !part.changes.is_empty() && (part.origin, part.request_id) != asker);
        let transactions: Vec<TransactionId> = open.map(|(id, _)| *id).collect();
        if transactions.is_empty() {
            let seq = self.journal.frame_behind_all();
            return self.journal.answer(seq, asker.0, asker.1, answer, mesh);
        }
        self.behind.push(Behind { transactions, asker, answer });
    }

    /// The changes of a transaction are in the log.
    fn settle_behind(&mut self, transaction: TransactionId, mesh: &mut Mesh) {
        if self.behind.is_empty() {
            return;
        }
        let seq = self.journal.frame_behind_all();
        for mut behind in std::mem::take(&mut self.behind) {
            behind.transactions.retain(|id| *id != transaction);
            if behind.transactions.is_empty() {
                self.journal.answer(seq, behind.asker.0, behind.asker.1, behind.answer, mesh);
            } else {
                self.behind.push(behind);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shard::{Change, command, decode};

    use super::*;
    use crate::mesh::Tracks;
    use crate::protocol::Dialect;
    use crate::worker::Worker;
    use crate::worker::tests::with_worker;

    fn request(words: &[&str]) -> OwnedRequest {
        let row = command::find(words[0].as_bytes()).expect("a command");
        OwnedRequest::of_args(row, 0, words[1..].iter().map(|word| word.as_bytes()))
    }

    /// Has a part ask for its locks that runs these commands and has the shard for itself meanwhile.
    fn lock(worker: &mut Worker, id: TransactionId, requests: Vec<OwnedRequest>, watches: Vec<Watch>) {
        let writers = Arc::from([0]);
        let locks = Locks { requests, watches, exclusive: true, writers, ..Locks::default() };
        let part = Prepared::new(0, RequestId::NONE, Arc::new(locks));
        let (runtime, mut turn) = worker.runtime_and_turn();
        runtime.lock_part(id, true, part, &mut turn);
    }

    fn hop(worker: &mut Worker, id: TransactionId, count: usize, record: Option<TransactionId>) {
        let (runtime, mut turn) = worker.runtime_and_turn();
        runtime.hop(id, Hop::Next(count), record, (0, RequestId::NONE), &mut turn);
    }

    fn run(worker: &mut Worker, words: &[&str]) {
        let (runtime, turn) = worker.runtime_and_turn();
        runtime.execute_part(&request(words).request(), turn.now, turn.mesh);
    }

    /// Whether the log is about to tell what the clocks show.
    fn tells_clocks(worker: &mut Worker) -> bool {
        worker.log_clocks();
        let changes = worker.runtime.journal.changes.bytes();
        decode(changes).any(|change| matches!(change, Ok(Change::Clocks(_))))
    }

    #[test]
    fn the_log_takes_no_key_for_expired_that_an_open_transaction_has_persisted() {
        with_worker(|worker| {
            worker.turn().unwrap(); // It tells the clocks of the start.
            run(worker, &["SET", "k", "v", "PX", "1000000"]);
            run(worker, &["SET", "other", "v", "PX", "1000000"]);
            lock(worker, 1, vec![request(&["PERSIST", "k"])], Vec::new());
            hop(worker, 1, 1, None);
            worker.clock.pass(2_000_000);
            let now_ms = worker.clock.now().now_ms + 2_000_000;
            assert_eq!(worker.runtime.shard.expire(now_ms, 10), 1, "the other key");
            assert!(!tells_clocks(worker));
            hop(worker, 1, 0, Some(2));
            assert!(tells_clocks(worker));
        });
    }

    #[test]
    fn a_part_that_waits_behind_a_script_looks_at_its_watches_when_that_has_run() {
        with_worker(|worker| {
            lock(worker, 1, vec![request(&["SET", "k", "1"])], Vec::new());
            let script = request(&["EVAL", "redis.call('SET', KEYS[1], 'x')", "1", "k"]);
            let id = RequestId { sequence: 0, ..RequestId::NONE };
            let asker =
                Asker { worker: 0, request_id: id, dialect: Dialect::Resp2, tracks: Tracks::default() };
            worker.runtime.defer(asker, &script.request());
            let now = worker.clock.now();
            let watches = worker.runtime.watch(vec![(0, Box::from(*b"k"))], now).unwrap();
            lock(worker, 2, vec![request(&["SET", "k", "2"])], watches);
            worker.mesh.to(0).take_answers();
            let (runtime, mut turn) = worker.runtime_and_turn();
            runtime.release(1, &mut turn);
            worker.run_granted();
            let answers = worker.mesh.to(0).take_answers();
            let told: Vec<_> = answers.iter().filter(|(id, _)| *id == RequestId::NONE).collect();
            assert!(matches!(&told[..], [(_, Answer::Changed)]), "{told:?}");
        });
    }
}
