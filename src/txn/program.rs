//! Commands that run as one over several shards: which shards have to do with each of them, which hops that makes, and
//! what the shards' replies amount to.
//!
//! Commands that follow each other run in one hop, whatever shards their keys lie on: each shard runs its own, and its
//! parts of those that several own, in their order, and no client sees that the shards do not keep step. A command of the
//! server stands between two hops. A hop has a bounded number of commands, so that no shard's turn is long.

use std::collections::BTreeMap;
use std::ops::Range;

use shard::combine::{Combined, Effect, Held, Terms};
use shard::command::{self, Flags, Merge, Run, Server};
use shard::{Error, OwnedRequest, Reply, Request};

use super::merge::merge_parts;
use super::transaction::{Told, Transaction, of_keys};
use crate::mesh::{Answer, Hop, Locks, Mesh, RequestId, Tracks, TransactionId, Watch};
use crate::slots::owner;

/// How many commands a hop runs at most, and after how many arguments it has come to its end.
pub const HOP_COMMANDS_MAX: usize = 256;
/// See [`HOP_COMMANDS_MAX`].
pub const HOP_ARGS_MAX: usize = 2048;

/// Behind so many bytes of changes at a shard a transaction runs no more commands: a frame holds less than 2 GiB, and
/// one command may add three quarters of that.
pub const CHANGE_BYTES_MAX: usize = 256 << 20;

/// So many bytes a command may put at one shard that runs on what was fetched: a script may change many keys.
const EFFECTS_BYTES_MAX: usize = 1 << 30;

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
    /// Behind the last hop: how a command goes on that combines what keys hold.
    combining: Option<Combining>,
}

/// How far a command is that combines what keys of several shards hold.
enum Combining {
    /// What they hold is fetched.
    Fetching(usize),
    /// It has its effects. Its reply is known.
    Applying(usize, Reply<'static>),
}

/// Who runs a command.
enum Place {
    /// The server.
    Server,
    /// The shard of this worker.
    One(usize),
    /// The shards of these workers, each for keys with these numbers.
    Several(Vec<(usize, Vec<usize>)>),
    /// This worker, which [combines](Run::Combine) what the shards of these workers hold of the keys with these numbers.
    Combined(Vec<(usize, Vec<usize>)>),
}

/// What comes next.
pub enum Step {
    /// The command of the server with this number.
    Server(usize),
    /// The script with this number, whose keys were [fetched](Program::take_held); [`Program::apply`] goes on.
    Script(usize),
    /// The reply to the command with this number.
    Reply(usize, Reply<'static>),
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

    /// What keys of these workers hold is fetched for a command.
    fn fetch(&mut self, request: &OwnedRequest, keys_of: &BTreeMap<usize, Vec<usize>>) {
        for (worker, numbers) in keys_of {
            let locks = self.of(*worker);
            locks.exclusive |= request.command.has(Flags::WRITE) || request.command.has(Flags::MAY_WRITE);
            locks.others.push(keys_with(request, numbers));
        }
    }

    /// Finds out who runs a command.
    fn place(&mut self, request: &OwnedRequest, own: usize, workers: usize) -> Place {
        if let Run::Server(server) = request.command.run {
            if matches!(server, Server::Backup | Server::Keys | Server::Randomkey | Server::Scan) {
                for worker in 0..workers {
                    let locks = self.of(worker);
                    locks.is_for_backup = server == Server::Backup;
                    locks.others.push(of_keys(0, std::iter::empty()));
                }
            }
            return Place::Server;
        }
        let mut keys_of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, key) in request.request().keys().enumerate() {
            keys_of.entry(owner(key, workers)).or_default().push(number);
        }
        if request.command.run == Run::Script {
            self.fetch(request, &keys_of);
            return Place::Combined(keys_of.into_iter().collect());
        }
        if let (1, Some((worker, _))) = (keys_of.len(), keys_of.first_key_value()) {
            self.run(*worker, request.clone());
            return Place::One(*worker);
        }
        if keys_of.is_empty() && !matches!(request.command.run, Run::EveryShard(_)) {
            self.run(own, request.clone());
            return Place::One(own);
        }
        if keys_of.is_empty() {
            let all = (0..workers).map(|worker| (worker, Vec::new()));
            all.clone().for_each(|(worker, _)| self.run(worker, request.clone()));
            return Place::Several(all.collect());
        }
        if request.command.run == Run::Combine {
            self.fetch(request, &keys_of);
            return Place::Combined(keys_of.into_iter().collect());
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
        tracks: Tracks,
        request_id: RequestId,
        mesh: &mut Mesh,
    ) -> Program {
        let (mut plan, workers) = (Plan::default(), mesh.worker_count());
        let places: Vec<Place> =
            requests.iter().map(|request| plan.place(request, mesh.own(), workers)).collect();
        for watch in watches {
            plan.of(owner(&watch.key, workers)).watches.push(watch);
        }
        for locks in plan.0.values_mut().filter(|locks| !locks.watches.is_empty()) {
            let keys = locks.watches.iter().map(|watch| &*watch.key);
            locks.others.push(of_keys(0, keys));
        }
        plan.0.values_mut().for_each(|locks| locks.tracks = tracks);
        let only_reads = !plan.0.values().any(|locks| locks.exclusive);
        let mut hop = 0..0;
        if only_reads && hop_end(&places, &requests, 0) == requests.len() {
            plan.0.values_mut().for_each(|locks| locks.runs_at_once = true);
            hop = 0..requests.len();
        }
        let transaction = Transaction::begin(id, plan.0.into_iter(), request_id, mesh);
        Program { requests, is_multi, transaction, places, hop, combining: None }
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
        let Program { requests, transaction, places, combining, .. } = self;
        let is_applied = |combining: &mut Combining| matches!(combining, Combining::Applying(..));
        let fault = transaction.fault().cloned();
        let combined = combining.take_if(is_applied).map(|combining| match combining {
            // Where a shard has not answered, it may not have these effects.
            Combining::Applying(number, reply) => (number, fault.map_or(reply, Reply::Error)),
            Combining::Fetching(_) => unreachable!("it has just been looked at"),
        });
        let replies = hop.map(|number| (number, reply(&requests[number], &places[number], transaction)));
        combined.into_iter().chain(replies)
    }

    /// Goes on behind the last hop or the last command of the server. `record` is an id for the log.
    pub fn step(
        &mut self,
        record: TransactionId,
        terms: &Terms,
        request_id: RequestId,
        mesh: &mut Mesh,
    ) -> Step {
        if let Some(Combining::Fetching(number)) = self.combining.take() {
            return self.combine(number, record, terms, request_id, mesh);
        }
        let start = self.hop.end;
        if let Some(Place::Combined(parts)) = self.places.get(start) {
            self.hop = start + 1..start + 1;
            self.combining = Some(Combining::Fetching(start));
            let request = &self.requests[start];
            let hop = |worker| {
                let part = parts.iter().find(|(it, _)| *it == worker);
                part.map(|(_, numbers)| Hop::Fetch(keys_with(request, numbers)))
            };
            if !self.transaction.hop(hop, None, request_id, mesh) {
                self.transaction.rest(); // A script without keys.
                return self.step(record, terms, request_id, mesh);
            }
            return Step::Awaited;
        }
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
                Place::Server | Place::Combined(_) => unreachable!("it stands between two hops"),
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

    /// What the keys of a script hold, in their order.
    ///
    /// # Errors
    /// A shard has no memory for a copy, or it has not answered.
    pub fn take_held(&mut self, number: usize) -> Result<Vec<Option<Held<'static>>>, Error> {
        let Place::Combined(parts) = &self.places[number] else { unreachable!("its keys were fetched") };
        held(&self.requests[number].request(), parts, &mut self.transaction)
    }

    /// Has the effects that follow from what was fetched.
    fn combine(
        &mut self,
        number: usize,
        record: TransactionId,
        terms: &Terms,
        request_id: RequestId,
        mesh: &mut Mesh,
    ) -> Step {
        let Place::Combined(parts) = &self.places[number] else { unreachable!("its keys were fetched") };
        let request = self.requests[number].request();
        if request.command.run == Run::Script {
            return Step::Script(number);
        }
        let held = held(&request, parts, &mut self.transaction);
        let combined = held.and_then(|held| command::combine(&request, &held, terms));
        self.apply(number, combined, record, request_id, mesh)
    }

    /// Has the effects of a command on what was fetched for it.
    pub fn apply(
        &mut self,
        number: usize,
        combined: Result<Combined, Error>,
        record: TransactionId,
        request_id: RequestId,
        mesh: &mut Mesh,
    ) -> Step {
        let Place::Combined(parts) = &self.places[number] else { unreachable!("its keys were fetched") };
        let request = &self.requests[number];
        let combined = combined.map(|combined| (combined.reply, combined.effects));
        let (reply, effects) = match combined {
            Ok((reply, effects)) if !effects.is_empty() => (reply, effects),
            Ok((reply, _)) => return Step::Reply(number, reply),
            Err(error) => return Step::Reply(number, Reply::Error(error)),
        };
        let mut effects_of: BTreeMap<usize, Vec<Effect>> = BTreeMap::new();
        for effect in effects {
            let place = parts.iter().find_map(|(worker, numbers)| {
                Some((*worker, numbers.iter().position(|number| *number == effect.key)?))
            });
            let (worker, key) = place.expect("each key has a shard");
            effects_of.entry(worker).or_default().push(Effect { key, ..effect });
        }
        let is_too_much = |(worker, effects): (&usize, &Vec<Effect>)| {
            let put_bytes: usize = effects.iter().map(Effect::put_bytes).sum();
            put_bytes > EFFECTS_BYTES_MAX || self.transaction.changes_bytes(*worker) > CHANGE_BYTES_MAX
        };
        if effects_of.iter().any(is_too_much) {
            return Step::Reply(number, Reply::Error(changes_too_much()));
        }
        self.combining = Some(Combining::Applying(number, reply));
        let hop = |worker| {
            let (_, numbers) = parts.iter().find(|(it, _)| *it == worker)?;
            let effects = effects_of.get(&worker)?.clone();
            Some(Hop::Apply(keys_with(request, numbers), effects))
        };
        let record = Some(record).filter(|_| number + 1 == self.places.len());
        self.transaction.hop(hop, record, request_id, mesh);
        Step::Awaited
    }
}

/// The error for a command that runs no more, because of the changes before it or its own.
pub fn changes_too_much() -> Error {
    Error::Unavailable(
        "a transaction or a script changes 256 MiB at most, and this command would come behind that; it has not run",
    )
}

/// What the keys of a request hold, which the last hop has fetched, in their order.
fn held(
    request: &Request<'_>,
    parts: &[(usize, Vec<usize>)],
    transaction: &mut Transaction,
) -> Result<Vec<Option<Held<'static>>>, Error> {
    let mut held = vec![None; request.keys().count()];
    for (worker, numbers) in parts {
        for (number, of_key) in numbers.iter().zip(transaction.take_held(*worker)?) {
            held[*number] = of_key;
        }
    }
    Ok(held)
}

/// A request of the keys of another one that have these numbers. Those of one shard are of one database: only of `COPY`
/// the keys, of which there are two, may have one each.
fn keys_with(request: &OwnedRequest, numbers: &[usize]) -> OwnedRequest {
    let keys: Vec<&[u8]> = request.request().keys().collect();
    let database = request.request().database_of_key(numbers[0]);
    of_keys(database, numbers.iter().map(|number| keys[*number]))
}

/// The end of the hop that begins with this command.
fn hop_end(places: &[Place], requests: &[OwnedRequest], start: usize) -> usize {
    let mut args = 0;
    let fits = |(place, request): &(&Place, &OwnedRequest)| {
        let fits = args < HOP_ARGS_MAX && !matches!(place, Place::Server | Place::Combined(_));
        args += request.request().arg_count();
        fits
    };
    let rest = places[start..].iter().zip(&requests[start..]);
    start + rest.take(HOP_COMMANDS_MAX).take_while(fits).count()
}

/// The reply to a command, out of those of its shards.
fn reply(request: &OwnedRequest, place: &Place, transaction: &mut Transaction) -> Reply<'static> {
    let parts = match place {
        Place::Server | Place::Combined(_) => unreachable!("no shard runs it"),
        Place::One(worker) => return transaction.take_reply(*worker),
        Place::Several(parts) => parts,
    };
    let merge = match request.command.run {
        Run::Keys(merge) | Run::EveryShard(merge) => merge,
        Run::Key | Run::Combine | Run::Script | Run::Server(_) => Merge::AllOk,
    };
    let key_count = request.request().keys().count();
    merge_parts(
        merge,
        key_count,
        parts.iter().map(|(worker, keys)| (keys.clone(), transaction.take_reply(*worker))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RequestId = RequestId::NONE;

    /// An `MSETNX` over two shards that has its locks and waits for what its keys hold, and the mesh of the first.
    fn fetching() -> (Program, Mesh) {
        let mut mesh = Mesh::connect_all(2, 64).remove(0);
        let key_of = |worker| {
            let mut keys = (0..).map(|number: u32| number.to_string());
            keys.find(|key| owner(key.as_bytes(), 2) == worker).expect("one of many")
        };
        let row = command::find(b"MSETNX").expect("a command");
        let words = [key_of(0), "v".to_owned(), key_of(1), "v".to_owned()];
        let request = OwnedRequest::of_args(row, 0, words.iter().map(String::as_bytes));
        let requests = (vec![request], false);
        let mut program = Program::begin(1, requests, Vec::new(), Tracks::default(), ID, &mut mesh);
        assert!(program.answer(0, Answer::Locked, ID, &mut mesh).is_none());
        assert!(matches!(program.answer(1, Answer::Locked, ID, &mut mesh), Some(Told::Locked)));
        assert!(matches!(step(&mut program, &mut mesh), Step::Awaited));
        (program, mesh)
    }

    fn step(program: &mut Program, mesh: &mut Mesh) -> Step {
        let terms = Terms { now_ms: 1, wall_ahead_ms: 0, value_len_max: 100, databases: 16 };
        program.step(2, &terms, ID, mesh)
    }

    fn held(changes_bytes: usize) -> Answer {
        Answer::Held { held: Ok(vec![None]), changes_bytes }
    }

    #[test]
    fn a_command_of_which_a_shard_cannot_tell_that_it_is_on_disk_fails() {
        let (mut program, mut mesh) = fetching();
        assert!(program.answer(0, held(0), ID, &mut mesh).is_none());
        assert!(matches!(program.answer(1, held(0), ID, &mut mesh), Some(Told::Ran)));
        assert!(matches!(step(&mut program, &mut mesh), Step::Awaited));
        let error = Error::NotOnDisk { cause: "its disk".into() };
        let failed = Answer::Part(Reply::Error(error.clone()));
        assert!(program.answer(0, failed, ID, &mut mesh).is_none());
        let committed = program.answer(1, Answer::Committed(Vec::new()), ID, &mut mesh);
        assert!(matches!(committed, Some(Told::Committed)));
        let replies: Vec<_> = program.take_replies().collect();
        assert_eq!(replies, [(0, Reply::Error(error))]);
    }

    #[test]
    fn a_command_that_combines_keys_does_not_run_behind_too_many_changes() {
        for (changes_bytes, runs) in [(CHANGE_BYTES_MAX, true), (CHANGE_BYTES_MAX + 1, false)] {
            let (mut program, mut mesh) = fetching();
            assert!(program.answer(0, held(0), ID, &mut mesh).is_none());
            assert!(program.answer(1, held(changes_bytes), ID, &mut mesh).is_some());
            match step(&mut program, &mut mesh) {
                Step::Awaited => assert!(runs),
                Step::Reply(0, reply) => assert!(!runs && reply == Reply::Error(changes_too_much())),
                _ => panic!("it runs, or it is answered"),
            }
        }
    }
}
