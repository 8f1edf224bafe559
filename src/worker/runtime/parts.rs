//! How a shard takes part in transactions: it locks the keys of its part, runs it, and unlocks.

use std::sync::Arc;

use shard::command::{Flags, Run};
use shard::{Error, OwnedRequest, Reply, Request};
use wal::Kind;

use super::{Deferred, Granted, ShardRuntime};
use crate::logging::printable;
use crate::mesh::{Answer, RequestId, ShardImage, TransactionId};
use crate::txn::id::id_micros;
use crate::txn::locks::Waiter;
use crate::worker::turn::Turn;

/// A part of a transaction at the shard that holds its keys.
pub(in crate::worker) struct Prepared {
    pub origin: usize,
    pub request_id: RequestId,
    pub request: OwnedRequest,
    pub participants: Arc<[u32]>,
}

impl ShardRuntime {
    /// Locks the keys of a part. Where they are not free, the part waits for them or, unless it is to `wait`, is
    /// refused.
    pub(in crate::worker) fn lock_part(
        &mut self,
        transaction: TransactionId,
        wait: bool,
        part: Prepared,
        turn: &mut Turn<'_>,
    ) {
        let (keys, exclusive) = self.locks_of(&part.request.request());
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

    /// Tells that a part holds its locks, or that it cannot be run. A part that only reads does so now.
    fn locked(&mut self, transaction: TransactionId, turn: &mut Turn<'_>) {
        let part = &self.prepared[&transaction];
        let (origin, request_id) = (part.origin, part.request_id);
        if part.request.command.has(Flags::WRITE) {
            let refusal = self.journal.refusal().map(|error| Answer::Part(Reply::Error(error)));
            turn.mesh.to(origin).answer(request_id, refusal.unwrap_or(Answer::Locked));
            return;
        }
        if let Run::Server(_) = part.request.command.run {
            let image = self.image(turn);
            turn.mesh.to(origin).answer(request_id, image);
            return;
        }
        let request = part.request.clone();
        self.run_part_for(origin, request_id, &request.request(), turn);
    }

    /// Runs a part of a command, and answers it once the log allows.
    pub(in crate::worker) fn run_part_for(
        &mut self,
        origin: usize,
        request_id: RequestId,
        request: &Request<'_>,
        turn: &mut Turn<'_>,
    ) {
        let (reply, seq) = self.execute_part(request, turn.now, turn.mesh);
        self.journal.answer(seq, origin, request_id, Answer::Part(reply), turn.mesh);
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

    /// Runs a locked part under this id of the log, and answers it once the log allows.
    pub(in crate::worker) fn commit(
        &mut self,
        transaction: TransactionId,
        record: TransactionId,
        asker: (usize, RequestId),
        turn: &mut Turn<'_>,
    ) {
        let part = self.prepared.remove(&transaction).expect("a part is committed once");
        self.last_id_us = self.last_id_us.max(id_micros(record));
        self.journal.seal();
        let (reply, _) = self.execute_part(&part.request.request(), turn.now, turn.mesh);
        // A part that changes nothing is logged too: to recovery, a part without a frame was cut short.
        let seq = self.journal.append(Kind::Transaction { id: record, participants: &part.participants });
        self.journal.answer(seq, asker.0, asker.1, Answer::Committed(reply), turn.mesh);
    }

    /// Gives back what a transaction has locked, and goes on with what has waited for it.
    pub(in crate::worker) fn release(&mut self, transaction: TransactionId, turn: &mut Turn<'_>) {
        self.prepared.remove(&transaction);
        let mut granted = Vec::new();
        self.locks.release(transaction, &mut granted);
        for deferred in granted {
            match deferred {
                // A script needs the whole worker; what stands behind it runs behind it.
                Deferred::Request { asker, request }
                    if request.command.run == Run::Script || !self.granted.is_empty() =>
                {
                    self.granted.push_back(Granted { asker, request });
                }
                Deferred::Request { asker, request } => self.run_for(asker, &request.request(), turn),
                Deferred::Part(transaction) => self.locked(transaction, turn),
                Deferred::Snapshotter => self.on_quiescence(turn),
            }
        }
    }
}
