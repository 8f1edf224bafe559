//! A command over several shards that is atomic for readers, at the worker of the client that asked.

use std::sync::Arc;

use shard::command::{Flags, Merge, Run};
use shard::{OwnedRequest, Reply, Request};

use super::merge::merge_parts;
use crate::mesh::{Answer, Call, Mesh, RequestId, ShardImage, TransactionId};
use crate::slots::owner;

/// A command over several shards that is atomic for readers.
pub struct Transaction {
    id: TransactionId,
    /// The whole command.
    pub request: OwnedRequest,
    parts: Vec<Part>,
    participants: Arc<[u32]>,
    phase: Phase,
    unanswered: usize,
    /// Its client waits no more.
    is_given_up: bool,
}

struct Part {
    worker: usize,
    /// Which of the request's keys it holds, by their number.
    keys: Vec<usize>,
    locked: bool,
    reply: Option<Reply<'static>>,
    image: Option<ShardImage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// All locks are asked for at once.
    Together,
    /// The locks are asked for in ascending order of shards; that of this part is awaited.
    Ascending(usize),
    /// Every part runs.
    Running,
}

impl Transaction {
    /// Starts `request`, whose keys several shards own, or that concerns every shard.
    pub fn begin(
        id: TransactionId,
        request: &Request<'_>,
        request_id: RequestId,
        mesh: &mut Mesh,
    ) -> Transaction {
        let workers = mesh.worker_count();
        let mut keys_of: Vec<Vec<usize>> = vec![Vec::new(); workers];
        for (number, key) in request.keys().enumerate() {
            keys_of[owner(key, workers)].push(number);
        }
        let everywhere = !request.command.keys.any();
        let parts: Vec<Part> = (keys_of.into_iter().enumerate())
            .filter(|(_, keys)| everywhere || !keys.is_empty())
            .map(|(worker, keys)| Part { worker, keys, locked: false, reply: None, image: None })
            .collect();
        let participants = parts.iter().map(|part| part.worker as u32).collect();
        let request = OwnedRequest::new(request);
        let unanswered = parts.len();
        let phase = Phase::Together;
        let transaction =
            Transaction { id, request, parts, participants, phase, unanswered, is_given_up: false };
        (0..transaction.parts.len()).for_each(|part| transaction.lock(part, request_id, mesh));
        transaction
    }

    fn lock(&self, part: usize, request_id: RequestId, mesh: &mut Mesh) {
        let Part { worker, keys, .. } = &self.parts[part];
        let request = self.request.request();
        let spec = request.command.keys;
        let batch = mesh.to(*worker);
        let args = if spec.any() {
            let parts = keys.iter().map(|number| spec.part(*number));
            batch.args(request.database, parts.flatten().map(|index| request.arg(index)))
        } else {
            batch.args(request.database, request.args())
        };
        let call = Call::Lock {
            transaction: self.id,
            wait: self.phase != Phase::Together,
            command: request.command,
            args,
            participants: self.participants.clone(),
        };
        batch.call(request_id, call);
    }

    /// Takes a participant's answer. Returns the reply of the whole command once it is known. `record` is the id
    /// for the log, should the parts be run now.
    pub fn answer(
        &mut self,
        worker: usize,
        answer: Answer,
        record: TransactionId,
        request_id: RequestId,
        mesh: &mut Mesh,
    ) -> Option<Reply<'static>> {
        let part = self.parts.iter_mut().find(|part| part.worker == worker);
        let part = part.expect("only participants answer");
        match answer {
            Answer::Locked => part.locked = true,
            Answer::Part(reply) | Answer::Committed(reply) => {
                part.locked = true;
                part.reply = Some(reply);
            }
            Answer::Image(image) => {
                part.locked = true;
                part.reply = Some(Reply::Ok);
                part.image = Some(*image);
            }
            Answer::Refused => {}
            _ => unreachable!("no other answer belongs to a transaction"),
        }
        self.unanswered -= 1;
        if self.unanswered > 0 {
            return None;
        }
        if self.is_given_up && self.phase != Phase::Running {
            self.release(request_id, mesh);
            return Some(Reply::Nil);
        }
        // Before any part has run, an error can only be a shard's word that it takes no writes.
        let refusal = self.parts.iter().find_map(|part| match &part.reply {
            Some(Reply::Error(error)) if self.phase != Phase::Running => Some(error.clone()),
            _ => None,
        });
        if let Some(error) = refusal {
            self.release(request_id, mesh);
            return Some(Reply::Error(error));
        }
        match self.phase {
            Phase::Together if self.parts.iter().any(|part| !part.locked) => {
                self.release(request_id, mesh);
                self.take_images();
                self.ascend(0, request_id, mesh);
                None
            }
            Phase::Ascending(at) if at + 1 < self.parts.len() => {
                self.ascend(at + 1, request_id, mesh);
                None
            }
            Phase::Together | Phase::Ascending(_) if self.request.command.has(Flags::WRITE) => {
                self.phase = Phase::Running;
                self.unanswered = self.parts.len();
                for part in &self.parts {
                    mesh.to(part.worker).call(request_id, Call::Commit { transaction: self.id, record });
                }
                None
            }
            Phase::Together | Phase::Ascending(_) | Phase::Running => {
                self.release(request_id, mesh);
                Some(self.merge())
            }
        }
    }

    /// How the shards were while all of them were locked, in their order, for a backup.
    pub fn take_images(&mut self) -> Vec<ShardImage> {
        self.parts.iter_mut().filter_map(|part| part.image.take()).collect()
    }

    /// The shards whose answers are awaited, as far as that can be told.
    pub fn unanswered(&self) -> Vec<usize> {
        let awaited = |part: &&Part| match self.phase {
            Phase::Together => !part.locked,
            Phase::Ascending(at) => self.parts[at].worker == part.worker,
            Phase::Running => part.reply.is_none(),
        };
        self.parts.iter().filter(awaited).map(|part| part.worker).collect()
    }

    /// Whether it locks the shards for a copy of them.
    pub fn is_of_backup(&self) -> bool {
        matches!(self.request.command.run, Run::Server(_))
    }

    /// Whether its error is a shard's word that it takes no writes: no part has run.
    pub fn is_refused(&self) -> bool {
        self.phase != Phase::Running && self.request.command.has(Flags::WRITE)
    }

    /// Its client waits no more: where no part has run yet, none runs. What has run keeps its locks until it is safe.
    pub fn give_up(&mut self) {
        self.is_given_up = true;
    }

    fn ascend(&mut self, part: usize, request_id: RequestId, mesh: &mut Mesh) {
        self.phase = Phase::Ascending(part);
        self.unanswered = 1;
        self.lock(part, request_id, mesh);
    }

    fn release(&mut self, request_id: RequestId, mesh: &mut Mesh) {
        for part in self.parts.iter_mut().filter(|part| part.locked) {
            part.locked = false;
            mesh.to(part.worker).call(request_id, Call::Release(self.id));
        }
    }

    fn merge(&mut self) -> Reply<'static> {
        let merge = match self.request.command.run {
            Run::Keys(merge) | Run::EveryShard(merge) => merge,
            Run::Key | Run::Combine | Run::Server(_) => Merge::AllOk,
        };
        let key_count = self.request.request().keys().count();
        let replies = self
            .parts
            .iter_mut()
            .map(|part| (std::mem::take(&mut part.keys), part.reply.take().expect("every part has run")));
        merge_parts(merge, key_count, replies)
    }
}
