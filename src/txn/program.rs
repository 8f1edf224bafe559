//! Commands that run as one over several shards: which shards have to do with each of them, which hops that makes, and
//! what the shards' replies amount to.
//!
//! Commands that follow each other run in one hop, whatever shards their keys lie on: each shard runs its own, and its
//! parts of those that several own, in their order, and nobody sees that the shards do not keep step. A command of the
//! server stands between two hops. A hop has a bounded number of commands, so that no shard's turn is long.

use std::collections::BTreeMap;
use std::ops::Range;

use shard::command::{Flags, Merge, Run, Server};
use shard::{OwnedRequest, Reply};

use super::merge::merge_parts;
use super::transaction::{Told, Transaction};
use crate::mesh::{Answer, Hop, Locks, Mesh, RequestId, TransactionId, Watch};
use crate::slots::owner;

/// How many commands a hop runs at most, and after how many arguments it has come to its end.
pub const HOP_COMMANDS_MAX: usize = 256;
/// See [`HOP_COMMANDS_MAX`].
pub const HOP_ARGS_MAX: usize = 2048;

/// Commands that run as one.
pub struct Program {
    /// The commands.
    pub requests: Vec<OwnedRequest>,
    /// They were queued behind `MULTI`; else it is one command.
    pub is_multi: bool,
    transaction: Transaction,
    /// For each command, who runs it.
    places: Vec<Place>,
    /// The commands of the last hop.
    hop: Range<usize>,
}

/// Who runs a command.
enum Place {
    /// The server.
    Server,
    /// The shard of this worker.
    One(usize),
    /// The shards of these workers, each for keys with these numbers.
    Several(Vec<(usize, Vec<usize>)>),
}

/// What comes next.
pub enum Step {
    /// The command of the server with this number.
    Server(usize),
    /// Answers are awaited.
    Awaited,
    /// All has run, and nothing is left to be awaited.
    Over,
}

/// What is locked at the shards, by their workers.
#[derive(Default)]
struct Plan(BTreeMap<usize, Locks>);

impl Plan {
    fn of(&mut self, worker: usize) -> &mut Locks {
        self.0.entry(worker).or_default()
    }

    /// A command is run by this worker.
    fn run(&mut self, worker: usize, request: OwnedRequest) {
        let locks = self.of(worker);
        locks.exclusive |= request.command.has(Flags::WRITE);
        locks.requests.push(request);
    }

    /// Finds out who runs a command.
    fn place(&mut self, request: &OwnedRequest, workers: usize) -> Place {
        if let Run::Server(server) = request.command.run {
            if matches!(server, Server::Backup | Server::Keys | Server::Scan) {
                for worker in 0..workers {
                    let locks = self.of(worker);
                    locks.is_for_backup = server == Server::Backup;
                    locks.others.push(OwnedRequest::of_keys(std::iter::empty()));
                }
            }
            return Place::Server;
        }
        let mut keys_of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, key) in request.request().keys().enumerate() {
            keys_of.entry(owner(key, workers)).or_default().push(number);
        }
        if let (1, Some((worker, _))) = (keys_of.len(), keys_of.first_key_value()) {
            self.run(*worker, request.clone());
            return Place::One(*worker);
        }
        if keys_of.is_empty() {
            let all = (0..workers).map(|worker| (worker, Vec::new()));
            all.clone().for_each(|(worker, _)| self.run(worker, request.clone()));
            return Place::Several(all.collect());
        }
        keys_of.iter().for_each(|(worker, numbers)| self.run(*worker, request.part(numbers)));
        Place::Several(keys_of.into_iter().collect())
    }
}

impl Program {
    /// Locks what these commands need. None of them runs unless what is watched is as it was.
    pub fn begin(
        id: TransactionId,
        (requests, is_multi): (Vec<OwnedRequest>, bool),
        watches: Vec<Watch>,
        request_id: RequestId,
        mesh: &mut Mesh,
    ) -> Program {
        let (mut plan, workers) = (Plan::default(), mesh.worker_count());
        let places: Vec<Place> = requests.iter().map(|request| plan.place(request, workers)).collect();
        for watch in watches {
            plan.of(owner(&watch.key, workers)).watches.push(watch);
        }
        for locks in plan.0.values_mut().filter(|locks| !locks.watches.is_empty()) {
            let keys = locks.watches.iter().map(|watch| &*watch.key);
            locks.others.push(OwnedRequest::of_keys(keys));
        }
        let only_reads = !plan.0.values().any(|locks| locks.exclusive);
        let mut hop = 0..0;
        if only_reads && hop_end(&places, &requests, 0) == requests.len() {
            plan.0.values_mut().for_each(|locks| locks.runs_at_once = true);
            hop = 0..requests.len();
        }
        let transaction = Transaction::begin(id, plan.0.into_iter(), request_id, mesh);
        Program { requests, is_multi, transaction, places, hop }
    }

    /// Its locks and hops.
    pub fn transaction(&mut self) -> &mut Transaction {
        &mut self.transaction
    }

    /// The workers whose answers are awaited.
    pub fn unanswered(&self) -> Vec<usize> {
        self.transaction.unanswered()
    }

    /// The first command; the only one where they were not queued.
    pub fn first(&self) -> &OwnedRequest {
        &self.requests[0]
    }

    /// Whether it locks the shards for a copy of them.
    pub fn is_of_backup(&self) -> bool {
        !self.is_multi && matches!(self.first().command.run, Run::Server(Server::Backup))
    }

    /// Takes a shard's answer. Tells what has come to its end with it, if anything has.
    pub fn answer(&mut self, worker: usize, answer: Answer, id: RequestId, mesh: &mut Mesh) -> Option<Told> {
        self.transaction.answer(worker, answer, id, mesh)
    }

    /// The commands of the hop that has run, by their numbers, with their replies.
    pub fn take_replies(&mut self) -> impl Iterator<Item = (usize, Reply<'static>)> {
        let end = self.hop.end;
        let hop = std::mem::replace(&mut self.hop, end..end);
        let Program { requests, transaction, places, .. } = self;
        hop.map(|number| (number, reply(&requests[number], &places[number], transaction)))
    }

    /// Goes on behind the last hop or the last command of the server. `record` is an id for the log.
    pub fn step(&mut self, record: TransactionId, request_id: RequestId, mesh: &mut Mesh) -> Step {
        let start = self.hop.end;
        if matches!(self.places.get(start), Some(Place::Server)) {
            self.hop = start + 1..start + 1;
            return Step::Server(start);
        }
        let end = hop_end(&self.places, &self.requests, start);
        let record = Some(record).filter(|_| end == self.places.len() && self.transaction.writes());
        if end == start && record.is_none() {
            self.transaction.end(request_id, mesh);
            return Step::Over;
        }
        self.hop = start..end;
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for place in &self.places[start..end] {
            match place {
                Place::Server => unreachable!("it stands between two hops"),
                Place::One(worker) => *counts.entry(*worker).or_default() += 1,
                Place::Several(parts) => {
                    parts.iter().for_each(|(worker, _)| *counts.entry(*worker).or_default() += 1);
                }
            }
        }
        let hop = |worker| counts.get(&worker).map(|count| Hop::Next(*count));
        let awaits = self.transaction.hop(hop, record, request_id, mesh);
        debug_assert!(awaits, "a hop has commands, or it commits");
        Step::Awaited
    }
}

/// The end of the hop that begins with this command.
fn hop_end(places: &[Place], requests: &[OwnedRequest], start: usize) -> usize {
    let mut args = 0;
    let fits = |(place, request): &(&Place, &OwnedRequest)| {
        let fits = args < HOP_ARGS_MAX && !matches!(place, Place::Server);
        args += request.request().arg_count();
        fits
    };
    let rest = places[start..].iter().zip(&requests[start..]);
    start + rest.take(HOP_COMMANDS_MAX).take_while(fits).count()
}

/// The reply to a command, out of those of its shards.
fn reply(request: &OwnedRequest, place: &Place, transaction: &mut Transaction) -> Reply<'static> {
    let parts = match place {
        Place::Server => unreachable!("no shard runs it"),
        Place::One(worker) => return transaction.take_reply(*worker),
        Place::Several(parts) => parts,
    };
    let merge = match request.command.run {
        Run::Keys(merge) | Run::EveryShard(merge) => merge,
        Run::Key | Run::Server(_) => Merge::AllOk,
    };
    let key_count = request.request().keys().count();
    merge_parts(
        merge,
        key_count,
        parts.iter().map(|(worker, keys)| (keys.clone(), transaction.take_reply(*worker))),
    )
}
