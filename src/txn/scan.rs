//! `SCAN` and `KEYS`: walks over the keys of a database on all shards, one shard after the other.

use std::sync::Arc;

use shard::{Command, Glob, Request};

use crate::mesh::{Call, Mesh, Page, RequestId};
use crate::protocol::Dialect;

/// How many keys one step of `KEYS` visits, and one `SCAN` at most. The shard does not visit them all in one turn.
pub const WALK_KEYS_MAX: usize = 4096;

/// Positions in a shard's keyspace take this many bits of a `SCAN` cursor; the shard's number lies above them.
/// Both fit the 53 bits that clients whose numbers are floating point keep exactly.
const POSITION_BITS: u32 = 40;

/// A walk over the keyspace of all shards, one after the other: a page of it (`SCAN`), or all (`KEYS`).
pub struct Walk {
    all: bool,
    command: &'static Command,
    database: u16,
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
        (request, dialect): (&Request<'_>, Dialect),
        request_id: RequestId,
        mesh: &mut Mesh,
    ) -> Option<Walk> {
        let shard = (cursor >> POSITION_BITS) as usize;
        if shard >= mesh.worker_count() {
            return None;
        }
        let count = count.min(WALK_KEYS_MAX);
        let Request { command, database, .. } = *request;
        let walk = Walk { all: false, command, database, dialect, pattern, count, shard, pages: Vec::new() };
        walk.step(cursor & ((1 << POSITION_BITS) - 1), request_id, mesh);
        Some(walk)
    }

    /// Starts a walk over all keys of the request's database.
    pub fn all(
        pattern: Arc<Glob>,
        (request, dialect): (&Request<'_>, Dialect),
        request_id: RequestId,
        mesh: &mut Mesh,
    ) -> Walk {
        let (pattern, count) = (Some(pattern), WALK_KEYS_MAX);
        let Request { command, database, .. } = *request;
        let walk =
            Walk { all: true, command, database, dialect, pattern, count, shard: 0, pages: Vec::new() };
        walk.step(0, request_id, mesh);
        walk
    }

    /// The command that walks.
    pub fn command(&self) -> &'static Command {
        self.command
    }

    /// The shard whose page is awaited.
    pub fn shard(&self) -> usize {
        self.shard
    }

    fn step(&self, position: u64, request_id: RequestId, mesh: &mut Mesh) {
        let Walk { database, count, dialect, .. } = *self;
        let pattern = self.pattern.clone();
        mesh.to(self.shard).call(request_id, Call::Scan { database, position, count, pattern, dialect });
    }

    /// Takes a page. Returns what was found once the walk has ended.
    pub fn answer(&mut self, page: Page, request_id: RequestId, mesh: &mut Mesh) -> Option<Walked> {
        let next = match page.next {
            Some(position) => Some((self.shard, position)),
            None if self.shard + 1 < mesh.worker_count() => Some((self.shard + 1, 0)),
            None => None,
        };
        // A page of SCAN goes on at the next shard when this one ended before the page was full.
        let crosses = page.next.is_none();
        self.pages.push(page);
        let found: usize = self.pages.iter().map(|page| page.count).sum();
        match next {
            Some((shard, position)) if self.all || crosses && found < self.count => {
                self.shard = shard;
                self.step(position, request_id, mesh);
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
