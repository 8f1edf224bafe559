//! What other workers ask of this worker's shard, and how it takes part in their transactions. Each call is answered
//! by mail; clients are not known here.

use shard::command::{Access, Run};
use shard::{Dialect, Error, LockKeys, OwnedRequest, Reply, Request, Scan, Waiter};
use wal::Kind;

use super::large_values::is_staged;
use super::long_reads::is_long_read;
use super::serve::READ_AHEAD_MAX;
use super::{Asked, Deferred, Prepared, Walking, Worker};
use crate::client::reply::write_reply;
use crate::durability::journal::printable;
use crate::mesh::{Answer, Call, Mail, Page, Still, Token, TransactionId};
use crate::protocol;
use crate::txn::id::id_micros;

/// How many steps one turn takes for `SCAN` and `KEYS`, whoever asks: a tenth of a millisecond, in which it visits 512
/// keys at most, and fewer where they are long or hard to compare.
const WALK_STEPS_PER_TURN: usize = 64 << 10;

impl Worker {
    /// Takes a message in. Returns whether it asked for anything.
    pub(super) fn on_mail(&mut self, from: usize, mut mail: Box<Mail>) -> bool {
        for newcomer in mail.take_newcomers() {
            self.welcome(newcomer);
        }
        let mut calls = mail.take_calls();
        let asks = !calls.is_empty();
        let mut rest = calls.drain(..);
        while !rest.as_slice().is_empty() {
            self.shard.warm(mail.first_args(rest.as_slice().iter().take(READ_AHEAD_MAX)));
            for (token, call) in rest.by_ref().take(READ_AHEAD_MAX) {
                self.on_call(from, token, call, &mail);
            }
        }
        drop(rest);
        let mut answers = mail.take_answers();
        for (token, answer) in answers.drain(..) {
            self.on_answer(from, token, answer, &mail);
        }
        mail.take_back(calls, answers);
        self.post.recycle(mail);
        asks
    }

    fn on_call(&mut self, from: usize, token: Token, call: Call, mail: &Mail) {
        match call {
            Call::Run { command, dialect, args } => {
                let request = mail.request(command, dialect, args);
                if self.locks.is_idle() || !self.conflicts(&request) {
                    self.run_for(from, token, &request);
                } else {
                    self.defer(from, token, &request);
                }
            }
            Call::RunLarge(request) if is_staged(&request.request()) => self.stage(from, token, request),
            Call::RunLarge(request) => {
                let request = request.request();
                if self.locks.is_idle() || !self.conflicts(&request) {
                    self.run_for(from, token, &request);
                } else {
                    self.defer(from, token, &request);
                }
            }
            Call::RunPart { command, args } => {
                let request = mail.request(command, Dialect::Resp3, args);
                let (reply, seq) = self.execute(&request);
                self.journal.answer(seq, from, token, Answer::Part(reply), &mut self.post);
            }
            Call::Lock { transaction, wait, command, args, participants } => {
                let request = OwnedRequest::new(&mail.request(command, Dialect::Resp3, args));
                let part = Prepared { origin: from, token, request, participants };
                self.lock_part(transaction, wait, part);
            }
            Call::Commit { transaction, record } => {
                let part = self.prepared.remove(&transaction).expect("a part is committed once");
                self.last_id_us = self.last_id_us.max(id_micros(record));
                let (reply, seq) = self.run_part(record, &part);
                self.journal.answer(seq, from, token, Answer::Committed(reply), &mut self.post);
            }
            Call::Release(transaction) => {
                self.prepared.remove(&transaction);
                self.unlock(transaction);
            }
            Call::Scan { position, count, pattern, dialect } => {
                let (scan, page) = (Scan::new(position, pattern), Page::default());
                self.walks.push_back(Walking { origin: from, token, dialect, scan, keys_left: count, page });
            }
            Call::Ask(question) => {
                let inquiry = self.shard.ask(question, self.index, self.now_ms);
                let inquiry = inquiry.expect("questions are asked only where something is counted");
                self.inquiries.push_back(Asked { origin: from, token, inquiry });
            }
            Call::Forget => self.forget(from, token),
            Call::SetAutoTtl { auto_ttl, version } => {
                if version > self.auto_ttl_version {
                    self.auto_ttl_version = version;
                    self.shard.set_auto_ttl(auto_ttl);
                }
                self.post.to(from).answer(token, Answer::Part(Reply::Ok));
            }
            Call::Report => {
                let report = self.report();
                self.post.to(from).answer(token, Answer::Report(Box::new(report)));
            }
            Call::Clients => {
                let clients = Reply::Text(self.client_list());
                self.post.to(from).answer(token, Answer::Part(clients));
            }
            Call::Sync => {
                self.write_log();
                self.journal.answer_synced(from, token, &mut self.net, &mut self.post);
            }
            Call::Compact => self.upkeep.ask(from, token),
            Call::CompactUnheard => self.upkeep.ask_unheard(),
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
                self.journal.answer(seq, walk.origin, walk.token, page, &mut self.post);
            }
        }
        !self.walks.is_empty()
    }

    /// Ends what was asked for under this token, as far as it is still under way.
    fn forget(&mut self, origin: usize, token: Token) {
        let asker = (origin, token);
        if let Some(at) = self.walks.iter().position(|walk| (walk.origin, walk.token) == asker) {
            self.walks.remove(at);
            self.post.to(origin).answer(token, Answer::Page(Box::default()));
        }
        if let Some(at) = self.inquiries.iter().position(|asked| (asked.origin, asked.token) == asker) {
            self.inquiries.remove(at);
            self.post.to(origin).answer(token, Answer::Findings(Box::default()));
        }
        if self.unstage(asker) || self.drop_reading(asker) {
            self.post.to(origin).answer_bytes(token, |_| {});
        }
    }

    pub(super) fn run_for(&mut self, origin: usize, token: Token, request: &Request<'_>) {
        let refusal = self.refusal(request);
        if is_long_read(request) {
            return self.begin_reading(origin, token, request);
        }
        if refusal.is_none() {
            self.settle_readings(request);
        }
        let Worker { shard, journal, post, now_ms, .. } = self;
        if let Some(error) = refusal {
            return post.to(origin).answer(token, Answer::Failed(error));
        }
        let journal = &mut **journal;
        journal.bound_frame();
        let changes_before = journal.changes.count();
        let reply = shard.execute(request, *now_ms, &mut journal.changes);
        let seq = journal.frame_behind(request, journal.changes.count() != changes_before);
        let asker = (origin, token);
        if let Some(value) = protocol::lone_value(&reply, request.dialect)
            && !journal.holds_back(seq)
        {
            return post.to(origin).answer(token, Answer::Value(value.clone()));
        }
        journal.answer_bytes(seq, asker, post, |out| write_reply(&reply, request, out));
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
            self.post.to(part.origin).answer(part.token, Answer::Refused);
        }
    }

    /// Tells that a part holds its locks, or that it cannot be run. A part that only reads does so now.
    fn locked(&mut self, transaction: TransactionId) {
        let part = &self.prepared[&transaction];
        let (origin, token) = (part.origin, part.token);
        if part.request.request().command.access == Access::Write {
            let refusal = self.journal.refusal().map(|error| Answer::Part(Reply::Error(error)));
            self.post.to(origin).answer(token, refusal.unwrap_or(Answer::Locked));
            return;
        }
        if let Run::Server(_) = part.request.request().command.run {
            let still = self.still();
            self.post.to(origin).answer(token, still);
            return;
        }
        let request = part.request.clone();
        let (reply, seq) = self.execute(&request.request());
        self.journal.answer(seq, origin, token, Answer::Part(reply), &mut self.post);
    }

    /// How this shard is, for a backup; it is locked, and stays so until all shards are.
    fn still(&mut self) -> Answer {
        self.write_log();
        let log = &mut self.journal.log;
        if let Some(error) = log.displaced() {
            let cause = printable(&error.to_string());
            return Answer::Part(Reply::Error(Error::BackupFailed { cause }));
        }
        if log.buffered_bytes() == 0 && !log.needs_snapshot() {
            let (image, keys) = (log.image(), self.shard.key_count() as u64);
            return Answer::Still(Box::new(Still { image, keys }));
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
                Deferred::Request { origin, token, request } => {
                    self.run_for(origin, token, &request.request());
                }
                Deferred::Part(transaction) => self.locked(transaction),
                Deferred::Upkeep => self.on_lull(),
            }
        }
    }
}
