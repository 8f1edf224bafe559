//! Which shards own a request, and the commands that involve several of them: split, merge, transactions.
//!
//! A key belongs to one of 16,384 hash slots, as in Redis Cluster, and each shard owns a run of slots.
//!
//! A write over several shards is a transaction: it locks its keys everywhere, runs everywhere, and unlocks when
//! every shard has written its part to the log; whoever asks for one of its keys meanwhile waits at that key's
//! shard. So no reader sees half of it, and nobody sees what a crash may still take back. First all
//! locks are asked for at once, and a shard that would have to wait refuses. After a refusal everything is given
//! back, and the locks are asked for again one shard at a time in ascending order, and waited for: transactions
//! that wait for each other all climb in the same order, so they cannot deadlock, and shards grant in the order of
//! arrival, so they do not starve. A read over several shards does the same and reads as it locks.
//!
//! The jobs here keep the state of such a command at the worker of the client that asked. They do no I/O: they
//! put calls into the [`Post`] and are told the answers.

use std::sync::Arc;

use bytes::Bytes;
use shard::analytics::inquiry::Findings;
use shard::command::{Access, Keys, Merge, Run};
use shard::{Command, Dialect, Glob, Reply, Request, Span};

use crate::backup::Still;
use crate::mail::{Answer, Call, Page, Post, Token, TransactionId};
use crate::report::Report;
use crate::worker::Listing;

/// The number of hash slots.
pub const SLOTS: usize = 16_384;

/// The greatest number of shards: answers and log frames name a shard in 16 bits, cursors in 12.
pub const SHARDS_MAX: usize = 1024;

/// How many keys one step of `KEYS` visits, and one `SCAN` at most. The shard does not visit them all in one turn.
pub const WALK_KEYS_MAX: usize = 4096;

/// Positions in a shard's keyspace take this many bits of a `SCAN` cursor; the shard's number lies above them.
/// Both fit the 53 bits that clients whose numbers are floating point keep exactly.
const POSITION_BITS: u32 = 40;

/// CRC16 in the variant of Redis Cluster, with the tables that take 16 bytes at a step: every key is hashed.
static CRC: crc::Crc<u16, crc::Table<16>> = crc::Crc::<u16, crc::Table<16>>::new(&crc::CRC_16_XMODEM);

/// The hash slot of a key. Only what stands between the first `{` and the next `}` counts, if anything does, so
/// that keys with the same tag live together.
pub fn slot(key: &[u8]) -> usize {
    usize::from(CRC.checksum(hash_tag(key))) % SLOTS
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let behind = &key[open + 1..];
    match behind.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(close) => &behind[..close],
    }
}

/// The shard, of `shards`, that owns a key.
pub fn owner(key: &[u8], shards: usize) -> usize {
    if shards == 1 { 0 } else { slot(key) * shards / SLOTS }
}

/// Who runs a request with keys.
pub enum Route {
    /// One shard owns all of its keys.
    One(usize),
    /// Several shards own keys of it.
    Several,
}

/// Who runs a request with keys.
pub fn route(request: &Request<'_>, shards: usize) -> Route {
    if shards == 1 {
        return Route::One(0);
    }
    let mut owners = request.keys().map(|key| owner(key, shards));
    let first = owners.next().expect("the arity demands a key");
    if owners.all(|other| other == first) { Route::One(first) } else { Route::Several }
}

/// A request that owns its arguments, or shares their memory.
#[derive(Clone, Debug)]
pub struct OwnedRequest {
    command: &'static Command,
    dialect: Dialect,
    memory: Bytes,
    args: Vec<Span>,
}

impl OwnedRequest {
    /// Copies a request, unless it is one large argument whose memory can be shared.
    pub fn new(request: &Request<'_>) -> OwnedRequest {
        let Request { command, dialect, .. } = *request;
        if let Some((memory, args)) = request.memory() {
            return OwnedRequest { command, dialect, memory: memory.clone(), args: args.to_vec() };
        }
        let (buffer, args) = request.to_parts();
        OwnedRequest { command, dialect, memory: buffer.into(), args }
    }

    /// The request.
    pub fn request(&self) -> Request<'_> {
        Request::in_memory(self.command, self.dialect, &self.memory, &self.args)
    }
}

/// A command in progress that involves several shards or several steps. Its client runs nothing else meanwhile.
pub enum Job {
    /// A multi-shard command.
    Transaction(Transaction),
    /// One answer from every worker.
    Gather(Gather),
    /// `SCAN` or `KEYS`.
    Walk(Walk),
    /// A description of very many things, which asks no other worker.
    Listing(Listing),
    /// `BACKUP`, once the shards have told how they are: they are being copied.
    Backup(OwnedRequest),
}

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
    still: Option<Still>,
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
    pub fn begin(id: TransactionId, request: &Request<'_>, token: Token, post: &mut Post) -> Transaction {
        let workers = post.worker_count();
        let mut keys_of: Vec<Vec<usize>> = vec![Vec::new(); workers];
        for (number, key) in request.keys().enumerate() {
            keys_of[owner(key, workers)].push(number);
        }
        let everywhere = !request.command.keys.any;
        let parts: Vec<Part> = (keys_of.into_iter().enumerate())
            .filter(|(_, keys)| everywhere || !keys.is_empty())
            .map(|(worker, keys)| Part { worker, keys, locked: false, reply: None, still: None })
            .collect();
        let participants = parts.iter().map(|part| part.worker as u32).collect();
        let request = OwnedRequest::new(request);
        let unanswered = parts.len();
        let phase = Phase::Together;
        let transaction =
            Transaction { id, request, parts, participants, phase, unanswered, is_given_up: false };
        (0..transaction.parts.len()).for_each(|part| transaction.lock(part, token, post));
        transaction
    }

    fn lock(&self, part: usize, token: Token, post: &mut Post) {
        let Part { worker, keys, .. } = &self.parts[part];
        let request = self.request.request();
        let Keys { first, step, any } = request.command.keys;
        let mail = post.to(*worker);
        let args = if any {
            let groups = keys.iter().map(|key| first + key * step..first + (key + 1) * step);
            mail.args(groups.flatten().map(|index| request.arg(index)))
        } else {
            mail.args(request.args())
        };
        let call = Call::Lock {
            transaction: self.id,
            wait: self.phase != Phase::Together,
            command: request.command,
            args,
            participants: self.participants.clone(),
        };
        mail.call(token, call);
    }

    /// Takes a participant's answer. Returns the reply of the whole command once it is known. `record` is the id
    /// for the log, should the parts be run now.
    pub fn answer(
        &mut self,
        worker: usize,
        answer: Answer,
        record: TransactionId,
        token: Token,
        post: &mut Post,
    ) -> Option<Reply<'static>> {
        let part = self.parts.iter_mut().find(|part| part.worker == worker);
        let part = part.expect("only participants answer");
        match answer {
            Answer::Locked => part.locked = true,
            Answer::Part(reply) | Answer::Committed(reply) => {
                part.locked = true;
                part.reply = Some(reply);
            }
            Answer::Still(still) => {
                part.locked = true;
                part.reply = Some(Reply::Ok);
                part.still = Some(*still);
            }
            Answer::Refused => {}
            _ => unreachable!("no other answer belongs to a transaction"),
        }
        self.unanswered -= 1;
        if self.unanswered > 0 {
            return None;
        }
        if self.is_given_up && self.phase != Phase::Running {
            self.release(token, post);
            return Some(Reply::Nil);
        }
        // Before any part has run, an error can only be a shard's word that it takes no writes.
        let refusal = self.parts.iter().find_map(|part| match &part.reply {
            Some(Reply::Error(error)) if self.phase != Phase::Running => Some(error.clone()),
            _ => None,
        });
        if let Some(error) = refusal {
            self.release(token, post);
            return Some(Reply::Error(error));
        }
        match self.phase {
            Phase::Together if self.parts.iter().any(|part| !part.locked) => {
                self.release(token, post);
                self.take_stills();
                self.ascend(0, token, post);
                None
            }
            Phase::Ascending(at) if at + 1 < self.parts.len() => {
                self.ascend(at + 1, token, post);
                None
            }
            Phase::Together | Phase::Ascending(_) if self.request.command.access == Access::Write => {
                self.phase = Phase::Running;
                self.unanswered = self.parts.len();
                for part in &self.parts {
                    post.to(part.worker).call(token, Call::Commit { transaction: self.id, record });
                }
                None
            }
            Phase::Together | Phase::Ascending(_) | Phase::Running => {
                self.release(token, post);
                Some(self.merge())
            }
        }
    }

    /// How the shards were while all of them were locked, in their order, for a backup.
    pub fn take_stills(&mut self) -> Vec<Still> {
        self.parts.iter_mut().filter_map(|part| part.still.take()).collect()
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

    /// Its client waits no more: where no part has run yet, none runs. What has run keeps its locks until it is safe.
    pub fn give_up(&mut self) {
        self.is_given_up = true;
    }

    fn ascend(&mut self, part: usize, token: Token, post: &mut Post) {
        self.phase = Phase::Ascending(part);
        self.unanswered = 1;
        self.lock(part, token, post);
    }

    fn release(&mut self, token: Token, post: &mut Post) {
        for part in self.parts.iter_mut().filter(|part| part.locked) {
            part.locked = false;
            post.to(part.worker).call(token, Call::Release(self.id));
        }
    }

    fn merge(&mut self) -> Reply<'static> {
        let merge = match self.request.command.run {
            Run::Keys(_, merge) | Run::EveryShard(_, merge) => merge,
            Run::Key(_) | Run::Server(_) => Merge::AllOk,
        };
        let key_count = self.request.request().keys().count();
        let replies = self
            .parts
            .iter_mut()
            .map(|part| (std::mem::take(&mut part.keys), part.reply.take().expect("every part has run")));
        merge_parts(merge, key_count, replies)
    }
}

/// One reply out of the replies of parts, each with the numbers of the keys it is about.
fn merge_parts(
    merge: Merge,
    key_count: usize,
    parts: impl Iterator<Item = (Vec<usize>, Reply<'static>)>,
) -> Reply<'static> {
    let mut sum = 0;
    let mut by_key = vec![Reply::Nil; if merge == Merge::ByKey { key_count } else { 0 }];
    for (keys, reply) in parts {
        match reply {
            Reply::Error(error) => return Reply::Error(error),
            Reply::Integer(n) => sum += n,
            Reply::Array(items) => keys.into_iter().zip(items).for_each(|(key, item)| by_key[key] = item),
            _ => {}
        }
    }
    match merge {
        Merge::Sum => Reply::Integer(sum),
        Merge::ByKey => Reply::Array(by_key),
        Merge::AllOk => Reply::Ok,
    }
}

/// One answer from every worker, gathered.
pub struct Gather {
    /// The command that asked, with its arguments.
    pub request: OwnedRequest,
    /// The sum of the reports, where reports were asked for.
    pub report: Box<Report>,
    /// What each shard has found, where that was asked for.
    pub findings: Vec<Findings>,
    /// What the client is answered once all is done, where that is known.
    pub then: Option<Reply<'static>>,
    /// Until when the client waits, in milliseconds from the start of the server; none for no end.
    pub deadline_ms: Option<u64>,
    parts: Vec<Reply<'static>>,
    asks_for_reports: bool,
    /// The workers that have not answered.
    unanswered: Vec<usize>,
}

impl Gather {
    /// Puts one call to each of these workers.
    pub fn begin(
        workers: Vec<usize>,
        request: &Request<'_>,
        token: Token,
        post: &mut Post,
        call: impl Fn(&mut crate::mail::Mail) -> Call,
    ) -> Gather {
        let mut asks_for_reports = false;
        for worker in &workers {
            let mail = post.to(*worker);
            let call = call(mail);
            asks_for_reports = matches!(call, Call::Report);
            mail.call(token, call);
        }
        Gather {
            request: OwnedRequest::new(request),
            report: Box::default(),
            findings: Vec::new(),
            then: None,
            deadline_ms: None,
            parts: Vec::new(),
            asks_for_reports,
            unanswered: workers,
        }
    }

    /// Takes a worker's answer. Returns whether it was the last.
    pub fn answer(&mut self, from: usize, answer: Answer) -> bool {
        match answer {
            Answer::Part(reply) => self.parts.push(reply),
            Answer::Report(report) => self.report.add(&report),
            Answer::Findings(findings) => self.findings.push(*findings),
            _ => unreachable!("no other answer is gathered"),
        }
        self.unanswered.retain(|worker| *worker != from);
        self.unanswered.is_empty()
    }

    /// Whether it was asked how the keys are used: nothing but the reply comes of it, and it may take long.
    pub fn is_of_findings(&self) -> bool {
        matches!(self.request.command.run, Run::Server(shard::command::Server::Analytics))
            && self.then.is_none()
    }

    /// Whether reports were asked for, of which some are better than none.
    pub fn is_of_reports(&self) -> bool {
        self.asks_for_reports
    }

    /// The workers that have not answered.
    pub fn unanswered(&self) -> &[usize] {
        &self.unanswered
    }

    /// The texts of all workers as one.
    pub fn text(&mut self) -> Reply<'static> {
        let texts = self.parts.drain(..).map(|part| match part {
            Reply::Text(text) => text,
            other => unreachable!("{other:?} is no text"),
        });
        Reply::Text(texts.collect())
    }

    /// The merged reply.
    pub fn merge(&mut self, merge: Merge) -> Reply<'static> {
        merge_parts(merge, 0, self.parts.drain(..).map(|reply| (Vec::new(), reply)))
    }
}

/// A walk over the keyspace of all shards, one after the other: a page of it (`SCAN`), or all (`KEYS`).
pub struct Walk {
    all: bool,
    dialect: Dialect,
    pattern: Option<Arc<Glob>>,
    count: usize,
    shard: usize,
    pages: Vec<Page>,
}

/// What a walk found.
pub struct Walked {
    /// The keys, rendered as list items, in pieces.
    pub items: Vec<Vec<u8>>,
    /// How many keys.
    pub count: usize,
    /// Where `SCAN` goes on; 0 at the end.
    pub cursor: u64,
}

impl Walk {
    /// Starts a page at `cursor`, which visits about `count` keys.
    pub fn page(
        cursor: u64,
        count: usize,
        pattern: Option<Arc<Glob>>,
        dialect: Dialect,
        token: Token,
        post: &mut Post,
    ) -> Option<Walk> {
        let shard = (cursor >> POSITION_BITS) as usize;
        if shard >= post.worker_count() {
            return None;
        }
        let count = count.min(WALK_KEYS_MAX);
        let walk = Walk { all: false, dialect, pattern, count, shard, pages: Vec::new() };
        walk.step(cursor & ((1 << POSITION_BITS) - 1), token, post);
        Some(walk)
    }

    /// Starts a walk over all keys.
    pub fn all(pattern: Arc<Glob>, dialect: Dialect, token: Token, post: &mut Post) -> Walk {
        let pattern = Some(pattern);
        let walk = Walk { all: true, dialect, pattern, count: WALK_KEYS_MAX, shard: 0, pages: Vec::new() };
        walk.step(0, token, post);
        walk
    }

    /// The shard whose page is awaited.
    pub fn shard(&self) -> usize {
        self.shard
    }

    fn step(&self, position: u64, token: Token, post: &mut Post) {
        let (pattern, count, dialect) = (self.pattern.clone(), self.count, self.dialect);
        post.to(self.shard).call(token, Call::Scan { position, count, pattern, dialect });
    }

    /// Takes a page. Returns what was found once the walk has ended.
    pub fn answer(&mut self, page: Page, token: Token, post: &mut Post) -> Option<Walked> {
        let next = match page.next {
            Some(position) => Some((self.shard, position)),
            None if self.shard + 1 < post.worker_count() => Some((self.shard + 1, 0)),
            None => None,
        };
        // A page of SCAN goes on at the next shard when this one ended before the page was full.
        let crosses = page.next.is_none();
        self.pages.push(page);
        let found: usize = self.pages.iter().map(|page| page.count).sum();
        match next {
            Some((shard, position)) if self.all || crosses && found < self.count => {
                self.shard = shard;
                self.step(position, token, post);
                None
            }
            _ => Some(Walked {
                count: found,
                items: self.pages.drain(..).map(|page| page.items).collect(),
                cursor: next.map_or(0, |(shard, position)| (shard as u64) << POSITION_BITS | position),
            }),
        }
    }

    /// Whether the whole keyspace is walked.
    pub fn is_all(&self) -> bool {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // Figures that `CLUSTER KEYSLOT` of Redis gives.
        for (key, expected) in [("123456789", 12739), ("foo", 12182), ("", 0), ("hello", 866)] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn keys_with_the_same_tag_share_a_slot() {
        for (key, tag) in [
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo{bar", "foo{bar"),
        ] {
            assert_eq!(hash_tag(key.as_bytes()), tag.as_bytes(), "{key}");
        }
    }

    #[test]
    fn every_shard_owns_slots_and_no_other_exists() {
        for shards in [1, 2, 3, 5, 7, 64, SHARDS_MAX] {
            let mut seen = vec![0; shards];
            (0..100_000).for_each(|n: u32| seen[owner(&n.to_le_bytes(), shards)] += 1);
            assert!(seen.iter().all(|keys| *keys > 0), "{shards} shards");
        }
    }
}
