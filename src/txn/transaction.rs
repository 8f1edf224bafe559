//! A transaction over several shards, at the worker of the client that asked: locks, hops, the commit.
//!
//! [`Transaction::begin`] asks for the locks. Once [`Told::Locked`] says that all are held, any number of hops may run,
//! one after the other, each at the shards that have something to do in it ([`Transaction::hop`]), and each decided by
//! what the ones before have replied ([`Transaction::take_reply`]). The last one commits:
//! then each shard that may have been changed writes all that the hops have changed there as one frame. Until that is as
//! safe as the mode demands no other client sees any of it. At the end the locks are given back. What has changed something
//! goes on to its commit, whatever happens to its client: there is no way back.

use std::sync::Arc;

use shard::combine::Held;
use shard::command;
use shard::{Error, OwnedRequest, Reply};

use crate::mesh::{Answer, Call, Hop, Locks, Mesh, RequestId, ShardImage, TransactionId};

/// A transaction that has asked for its locks.
pub struct Transaction {
    id: TransactionId,
    parts: Vec<Part>,
    phase: Phase,
    unanswered: usize,
    /// Its client waits no more.
    is_given_up: bool,
    /// A watched key is not as it was.
    is_stale: bool,
    /// What a shard has answered in place of what was asked.
    fault: Option<Error>,
}

/// A request that names these keys of a database and is not run: what locks or reads keys is told them by it.
pub(super) fn of_keys<'k>(database: u16, keys: impl Iterator<Item = &'k [u8]>) -> OwnedRequest {
    let row = command::find(b"TOUCH").expect("it is in the table");
    OwnedRequest::of_args(row, database, keys)
}

/// A shard of a transaction.
struct Part {
    worker: usize,
    locks: Arc<Locks>,
    is_locked: bool,
    is_awaited: bool,
    /// What the last hop has replied.
    replies: std::vec::IntoIter<Reply<'static>>,
    /// What its keys hold, if the last hop has fetched that.
    held: Option<Result<Vec<Option<Held<'static>>>, Error>>,
    /// How many bytes of changes it held when they were fetched.
    changes_bytes: usize,
    image: Option<ShardImage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// All locks are asked for at once.
    Together,
    /// The locks are asked for in ascending order of shards; that of this part is awaited.
    Ascending(usize),
    /// All locks are held, and no hop runs.
    Locked,
    /// A hop runs.
    Running,
    /// The last hop runs.
    Committing,
    /// The locks are given back.
    Over,
}

/// What the answers of all shards amount to.
pub enum Told {
    /// All locks are held; what [runs at once](Locks::runs_at_once) has run.
    Locked,
    /// The hop has run.
    Ran,
    /// The last hop has run and is in the log, and the locks are given back.
    Committed,
    /// Nothing has run, and nothing will: a shard takes no writes ([`Reply::Error`]), a watched key has changed
    /// ([`Reply::NilArray`]), or the client waits no more ([`Reply::Nil`]).
    Ended(Reply<'static>),
}

impl Transaction {
    /// Asks the shards for locks. These are sorted by the number of their worker.
    pub fn begin(
        id: TransactionId,
        locks: impl Iterator<Item = (usize, Locks)>,
        request_id: RequestId,
        mesh: &mut Mesh,
    ) -> Transaction {
        let mut locks: Vec<(usize, Locks)> = locks.collect();
        debug_assert!(locks.is_sorted_by(|a, b| a.0 < b.0), "all climb in the same order");
        let writers = locks.iter().filter(|(_, locks)| locks.exclusive).map(|(worker, _)| *worker as u32);
        let writers: Arc<[u32]> = writers.collect();
        locks.iter_mut().for_each(|(_, locks)| locks.writers = writers.clone());
        let parts = locks.into_iter().map(|(worker, locks)| Part {
            worker,
            locks: Arc::new(locks),
            is_locked: false,
            is_awaited: false,
            replies: Vec::new().into_iter(),
            held: None,
            changes_bytes: 0,
            image: None,
        });
        let mut transaction = Transaction {
            id,
            parts: parts.collect(),
            phase: Phase::Together,
            unanswered: 0,
            is_given_up: false,
            is_stale: false,
            fault: None,
        };
        (0..transaction.parts.len()).for_each(|part| transaction.lock(part, request_id, mesh));
        if transaction.parts.is_empty() {
            transaction.phase = Phase::Locked;
        }
        transaction
    }

    fn lock(&mut self, part: usize, request_id: RequestId, mesh: &mut Mesh) {
        let wait = self.phase != Phase::Together;
        let part = &mut self.parts[part];
        part.is_awaited = true;
        part.image = None;
        self.unanswered += 1;
        let call = Call::Lock { transaction: self.id, wait, locks: part.locks.clone() };
        mesh.to(part.worker).call(request_id, call);
    }

    /// Whether all locks are held and no hop runs.
    pub fn is_locked(&self) -> bool {
        self.phase == Phase::Locked
    }

    /// Whether it may change anything.
    pub fn writes(&self) -> bool {
        self.parts.iter().any(|part| part.locks.exclusive)
    }

    /// Has the shards do something, of which `hop` says by their numbers what. With `record`, an id for the log, it is
    /// the last hop of the transaction. Returns whether any answer is awaited.
    pub fn hop(
        &mut self,
        hop: impl Fn(usize) -> Option<Hop>,
        record: Option<TransactionId>,
        request_id: RequestId,
        mesh: &mut Mesh,
    ) -> bool {
        debug_assert!(self.is_locked(), "hops follow each other");
        self.phase = if record.is_some() { Phase::Committing } else { Phase::Running };
        for part in &mut self.parts {
            let record = record.filter(|_| part.locks.exclusive);
            let Some(hop) = hop(part.worker).or_else(|| record.map(|_| Hop::Next(0))) else { continue };
            part.is_awaited = true;
            self.unanswered += 1;
            mesh.to(part.worker).call(request_id, Call::Hop { transaction: self.id, hop, record });
        }
        self.unanswered > 0
    }

    /// The last hop had nothing to do at any shard.
    pub fn rest(&mut self) {
        self.phase = Phase::Locked;
    }

    /// The next of the replies of a shard to the last hop; a fault in its place, if the shard has not answered.
    pub fn take_reply(&mut self, worker: usize) -> Reply<'static> {
        let part = self.parts.iter_mut().find(|part| part.worker == worker);
        part.expect("it takes part").replies.next().unwrap_or_else(|| {
            Reply::Error(self.fault.clone().expect("each request of a hop is answered, or it fails"))
        })
    }

    /// What the keys of a shard hold that the last hop has fetched.
    ///
    /// # Errors
    /// The shard has no memory for a copy, or it has not answered.
    pub fn take_held(&mut self, worker: usize) -> Result<Vec<Option<Held<'static>>>, Error> {
        let part = self.parts.iter_mut().find(|part| part.worker == worker);
        part.expect("it takes part")
            .held
            .take()
            .unwrap_or_else(|| Err(self.fault.clone().expect("a hop is answered, or it fails")))
    }

    /// How many bytes of changes of the transaction a shard held when its keys were fetched.
    pub fn changes_bytes(&self, worker: usize) -> usize {
        self.parts.iter().find(|part| part.worker == worker).map_or(0, |part| part.changes_bytes)
    }

    /// What a shard has answered in place of what it was asked: it may have done it or not.
    pub fn fault(&self) -> Option<&Error> {
        self.fault.as_ref()
    }

    /// Takes a shard's answer. Tells what has come to its end with it, if anything has.
    pub fn answer(
        &mut self,
        worker: usize,
        answer: Answer,
        request_id: RequestId,
        mesh: &mut Mesh,
    ) -> Option<Told> {
        let part = self.parts.iter_mut().find(|part| part.worker == worker);
        let part = part.expect("only participants answer");
        part.is_locked |= !matches!(answer, Answer::Refused);
        part.is_awaited = false;
        match answer {
            Answer::Locked | Answer::Refused => {}
            Answer::Ran(replies) | Answer::Committed(replies) => part.replies = replies.into_iter(),
            Answer::Held { held, changes_bytes } => {
                (part.held, part.changes_bytes) = (Some(held), changes_bytes);
            }
            Answer::Changed => self.is_stale = true,
            Answer::Image(image) => part.image = Some(*image),
            Answer::Part(Reply::Error(error)) => {
                self.fault.get_or_insert(error);
            }
            _ => unreachable!("no other answer belongs to a transaction"),
        }
        self.unanswered -= 1;
        if self.unanswered > 0 {
            return None;
        }
        match self.phase {
            Phase::Together | Phase::Ascending(_) => self.on_locks(request_id, mesh),
            Phase::Running => {
                self.phase = Phase::Locked;
                Some(Told::Ran)
            }
            Phase::Committing => {
                self.end(request_id, mesh);
                Some(Told::Committed)
            }
            Phase::Locked | Phase::Over => unreachable!("nothing was asked"),
        }
    }

    /// Takes the answers to all locks that were asked for.
    fn on_locks(&mut self, request_id: RequestId, mesh: &mut Mesh) -> Option<Told> {
        // Before any part has run, an error can only be a shard's word that it takes no writes.
        let end = if self.is_given_up {
            Some(Reply::Nil)
        } else if let Some(error) = &self.fault {
            Some(Reply::Error(error.clone()))
        } else {
            self.is_stale.then_some(Reply::NilArray)
        };
        if let Some(reply) = end {
            self.end(request_id, mesh);
            return Some(Told::Ended(reply));
        }
        let next = match self.phase {
            Phase::Together if self.parts.iter().any(|part| !part.is_locked) => {
                self.release(request_id, mesh);
                0
            }
            Phase::Ascending(at) if at + 1 < self.parts.len() => at + 1,
            _ => {
                self.phase = Phase::Locked;
                return Some(Told::Locked);
            }
        };
        self.phase = Phase::Ascending(next);
        self.lock(next, request_id, mesh);
        None
    }

    /// How the shards were while all of them were locked, in their order, for a backup.
    pub fn take_images(&mut self) -> Vec<ShardImage> {
        self.parts.iter_mut().filter_map(|part| part.image.take()).collect()
    }

    /// The shards whose answers are awaited.
    pub fn unanswered(&self) -> Vec<usize> {
        self.parts.iter().filter(|part| part.is_awaited).map(|part| part.worker).collect()
    }

    /// Its client waits no more: where nothing has run yet, nothing does. What has run keeps its locks until it is safe.
    pub fn give_up(&mut self) {
        self.is_given_up = true;
    }

    /// Gives all locks back: what has changed something has to be committed before. Watched keys are watched no more.
    pub fn end(&mut self, request_id: RequestId, mesh: &mut Mesh) {
        self.phase = Phase::Over;
        self.release(request_id, mesh);
        for part in self.parts.iter().filter(|part| !part.locks.watches.is_empty()) {
            mesh.to(part.worker).call(request_id, Call::Unwatch(part.locks.watches.clone()));
        }
    }

    fn release(&mut self, request_id: RequestId, mesh: &mut Mesh) {
        for part in self.parts.iter_mut().filter(|part| part.is_locked) {
            part.is_locked = false;
            mesh.to(part.worker).call(request_id, Call::Release(self.id));
        }
    }
}
