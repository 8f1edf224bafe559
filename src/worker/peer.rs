//! What other workers ask of this worker's shard, and how it takes part in their transactions. Each call is answered
//! by a batch; clients are not known here.

use shard::command::{Access, Run};
use shard::{Dialect, Error, LockKeys, OwnedRequest, Reply, Request, Scan, Waiter};
use wal::Kind;

use super::large_values::is_staged;
use super::long_reads::is_long_read;
use super::serve::READ_AHEAD_MAX;
use super::{Asked, Deferred, Prepared, Walking, Worker};
use crate::client::reply::write_reply;
use crate::durability::journal::printable;
use crate::mesh::{Answer, Batch, Call, Page, RequestId, ShardImage, TransactionId};
use crate::protocol;
use crate::txn::id::id_micros;

/// How many steps one turn takes for `SCAN` and `KEYS`, whoever asks: a tenth of a millisecond, in which it visits 512
/// keys at most, and fewer where they are long or hard to compare.
const WALK_STEPS_PER_TURN: usize = 64 << 10;

impl Worker {
    /// Takes a message in. Returns whether it asked for anything.
    pub(super) fn on_batch(&mut self, from: usize, mut batch: Box<Batch>) -> bool {
        for accepted in batch.take_accepted() {
            self.welcome(accepted);
        }
        let mut calls = batch.take_calls();
        let asks = !calls.is_empty();
        let mut rest = calls.drain(..);
        while !rest.as_slice().is_empty() {
            self.shard.warm(batch.first_args(rest.as_slice().iter().take(READ_AHEAD_MAX)));
            for (request_id, call) in rest.by_ref().take(READ_AHEAD_MAX) {
                self.on_call(from, request_id, call, &batch);
            }
        }
        drop(rest);
        let mut answers = batch.take_answers();
        for (request_id, answer) in answers.drain(..) {
            self.on_answer(from, request_id, answer, &batch);
        }
        batch.take_back(calls, answers);
        self.mesh.recycle(batch);
        asks
    }

    fn on_call(&mut self, from: usize, request_id: RequestId, call: Call, batch: &Batch) {
        match call {
            Call::Run { command, dialect, args } => {
                let request = batch.request(command, dialect, args);
                if self.locks.is_idle() || !self.conflicts(&request) {
                    self.run_for(from, request_id, &request);
                } else {
                    self.defer(from, request_id, &request);
                }
            }
            Call::RunLarge(request) if is_staged(&request.request()) => self.stage(from, request_id, request),
            Call::RunLarge(request) => {
                let request = request.request();
                if self.locks.is_idle() || !self.conflicts(&request) {
                    self.run_for(from, request_id, &request);
                } else {
                    self.defer(from, request_id, &request);
                }
            }
            Call::RunPart { command, args } => {
                let request = batch.request(command, Dialect::Resp3, args);
                let (reply, seq) = self.execute(&request);
                self.journal.answer(seq, from, request_id, Answer::Part(reply), &mut self.mesh);
            }
            Call::Lock { transaction, wait, command, args, participants } => {
                let request = OwnedRequest::new(&batch.request(command, Dialect::Resp3, args));
                let part = Prepared { origin: from, request_id, request, participants };
                self.lock_part(transaction, wait, part);
            }
            Call::Commit { transaction, record } => {
                let part = self.prepared.remove(&transaction).expect("a part is committed once");
                self.last_id_us = self.last_id_us.max(id_micros(record));
                let (reply, seq) = self.run_part(record, &part);
                self.journal.answer(seq, from, request_id, Answer::Committed(reply), &mut self.mesh);
            }
            Call::Release(transaction) => {
                self.prepared.remove(&transaction);
                self.unlock(transaction);
            }
            Call::Scan { position, count, pattern, dialect } => {
                let (scan, page) = (Scan::new(position, pattern), Page::default());
                self.walks.push_back(Walking {
                    origin: from,
                    request_id,
                    dialect,
                    scan,
                    keys_left: count,
                    page,
                });
            }
            Call::Ask(question) => {
                let inquiry = self.shard.ask(question, self.index, self.now_ms);
                let inquiry = inquiry.expect("questions are asked only where something is counted");
                self.inquiries.push_back(Asked { origin: from, request_id, inquiry });
            }
            Call::Forget => self.forget(from, request_id),
            Call::SetAutoTtl { auto_ttl, version } => {
                if version > self.auto_ttl_version {
                    self.auto_ttl_version = version;
                    self.shard.set_auto_ttl(auto_ttl);
                }
                self.mesh.to(from).answer(request_id, Answer::Part(Reply::Ok));
            }
            Call::Report => {
                let report = self.report();
                self.mesh.to(from).answer(request_id, Answer::Report(Box::new(report)));
            }
            Call::Clients => {
                let clients = Reply::Text(self.client_list());
                self.mesh.to(from).answer(request_id, Answer::Part(clients));
            }
            Call::Sync => {
                self.write_log();
                self.journal.answer_synced(from, request_id, &mut self.net, &mut self.mesh);
            }
            Call::Compact => self.snapshotter.ask(from, request_id),
            Call::CompactUnheard => self.snapshotter.ask_unheard(),
        }
    }

    /// Goes on with the walks of `SCAN` and `KEYS`, as far as a turn's share goes. Returns whether any is left.
    pub(super) fn walk(&mut self) -> bool {
        let mut steps = WALK_STEPS_PER_TURN;
        while steps > 0 {
            let Some(mut walk) = self.walks.pop_front() else { return false };
            let Walking { dialect, scan, keys_left, page, .. } = &mut walk;
            let visited = self.shard.scan(scan, *keys_left, &mut steps, self.now_ms, |key| {
                protocol::write_item(&Reply::bytes(key), *dialect, &mut page.items);
                page.count += 1;
            });
            *keys_left = keys_left.saturating_sub(visited);
            if !scan.is_decided() || *keys_left > 0 && scan.position().is_some() {
                self.walks.push_back(walk);
            } else {
                page.next = scan.position();
                let seq = self.journal.frame_behind_all();
                let page = Answer::Page(Box::new(walk.page));
                self.journal.answer(seq, walk.origin, walk.request_id, page, &mut self.mesh);
            }
        }
        !self.walks.is_empty()
    }

    /// Ends what was asked for under this id, as far as it is still under way.
    fn forget(&mut self, origin: usize, request_id: RequestId) {
        let asker = (origin, request_id);
        if let Some(at) = self.walks.iter().position(|walk| (walk.origin, walk.request_id) == asker) {
            self.walks.remove(at);
            self.mesh.to(origin).answer(request_id, Answer::Page(Box::default()));
        }
        if let Some(at) = self.inquiries.iter().position(|asked| (asked.origin, asked.request_id) == asker) {
            self.inquiries.remove(at);
            self.mesh.to(origin).answer(request_id, Answer::Findings(Box::default()));
        }
        if self.unstage(asker) || self.drop_reading(asker) {
            self.mesh.to(origin).answer_bytes(request_id, |_| {});
        }
    }

    pub(super) fn run_for(&mut self, origin: usize, request_id: RequestId, request: &Request<'_>) {
        let refusal = self.refusal(request);
        if is_long_read(request) {
            return self.begin_reading(origin, request_id, request);
        }
        if refusal.is_none() {
            self.settle_readings(request);
        }
        let Worker { shard, journal, mesh, now_ms, .. } = self;
        if let Some(error) = refusal {
            return mesh.to(origin).answer(request_id, Answer::Failed(error));
        }
        let journal = &mut **journal;
        journal.bound_frame();
        let changes_before = journal.changes.count();
        let reply = shard.execute(request, *now_ms, &mut journal.changes);
        let seq = journal.frame_behind(request, journal.changes.count() != changes_before);
        let asker = (origin, request_id);
        if let Some(value) = protocol::lone_value(&reply, request.dialect)
            && !journal.holds_back(seq)
        {
            return mesh.to(origin).answer(request_id, Answer::Value(value.clone()));
        }
        journal.answer_bytes(seq, asker, mesh, |out| write_reply(&reply, request, out));
    }

    /// Runs a request; returns its reply, and the frame that it depends on.
    pub(super) fn execute(&mut self, request: &Request<'_>) -> (Reply<'static>, u64) {
        self.settle_readings(request);
        let journal = &mut *self.journal;
        journal.bound_frame();
        let changes_before = journal.changes.count();
        let reply = self.shard.execute(request, self.now_ms, &mut journal.changes).into_owned();
        let seq = journal.frame_behind(request, journal.changes.count() != changes_before);
        (reply, seq)
    }

    // ---- transactions, at the shards that take part ----

    fn lock_part(&mut self, transaction: TransactionId, wait: bool, part: Prepared) {
        let (keys, exclusive) = self.locks_of(&part.request.request());
        if self.locks.try_lock(transaction, keys.clone(), exclusive) {
            self.prepared.insert(transaction, part);
            self.locked(transaction);
        } else if wait {
            let payload = Deferred::Part(transaction);
            self.locks.wait(Waiter { keys, exclusive, payload, lock_for: Some(transaction) });
            self.prepared.insert(transaction, part);
        } else {
            self.mesh.to(part.origin).answer(part.request_id, Answer::Refused);
        }
    }

    /// Tells that a part holds its locks, or that it cannot be run. A part that only reads does so now.
    fn locked(&mut self, transaction: TransactionId) {
        let part = &self.prepared[&transaction];
        let (origin, request_id) = (part.origin, part.request_id);
        if part.request.request().command.access == Access::Write {
            let refusal = self.journal.refusal().map(|error| Answer::Part(Reply::Error(error)));
            self.mesh.to(origin).answer(request_id, refusal.unwrap_or(Answer::Locked));
            return;
        }
        if let Run::Server(_) = part.request.request().command.run {
            let image = self.image();
            self.mesh.to(origin).answer(request_id, image);
            return;
        }
        let request = part.request.clone();
        let (reply, seq) = self.execute(&request.request());
        self.journal.answer(seq, origin, request_id, Answer::Part(reply), &mut self.mesh);
    }

    /// How this shard is, for a backup; it is locked, and stays so until all shards are.
    fn image(&mut self) -> Answer {
        self.write_log();
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

    fn run_part(&mut self, record: TransactionId, part: &Prepared) -> (Reply<'static>, u64) {
        self.journal.seal();
        let (reply, _) = self.execute(&part.request.request());
        // A part that changes nothing is logged too: to recovery, a part without a frame was cut short.
        let seq = self.journal.append(Kind::Transaction { id: record, participants: &part.participants });
        (reply, seq)
    }

    /// What a request locks, and whether for itself alone.
    pub(super) fn locks_of(&self, request: &Request<'_>) -> (LockKeys, bool) {
        let keys = match request.command.keys.any {
            true => LockKeys::Each(request.keys().map(|key| self.locks.hash(key)).collect()),
            false => LockKeys::Whole,
        };
        (keys, request.command.access == Access::Write)
    }

    fn unlock(&mut self, transaction: TransactionId) {
        let mut granted = Vec::new();
        self.locks.release(transaction, &mut granted);
        for deferred in granted {
            match deferred {
                Deferred::Request { origin, request_id, request } => {
                    self.run_for(origin, request_id, &request.request());
                }
                Deferred::Part(transaction) => self.locked(transaction),
                Deferred::Snapshotter => self.on_quiescence(),
            }
        }
    }
}
