//! What a client has queued behind `MULTI`, and the keys that it watches.

use std::collections::HashMap;

use ahash::RandomState;
use shard::command::{Flags, Run, Server};
use shard::{Error, OwnedRequest, Request, parse_database};

use crate::mesh::{CommandList, Tracks, Watch};
use crate::slots::{Route, owner, route};
use crate::txn::program::{HOP_ARGS_MAX, HOP_COMMANDS_MAX};
use crate::txn::watch::{WATCHED_BYTES_MAX, WATCHED_KEYS_MAX};

/// How many commands a transaction has at most, and how many bytes of them.
pub const QUEUED_COMMANDS_MAX: usize = 256 << 10;
/// See [`QUEUED_COMMANDS_MAX`].
pub const QUEUED_BYTES_MAX: usize = 256 << 20;

/// Commands with at most so many bytes run as one in one turn of a shard, if they are not too many for that.
const LIST_BYTES_MAX: usize = 1 << 20;

/// Who owns keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// There are no keys.
    #[default]
    None,
    /// The shard of this worker.
    One(usize),
    /// Several shards.
    Several,
}

impl Owners {
    /// These and others.
    #[must_use]
    pub fn and(self, other: Owners) -> Owners {
        match (self, other) {
            (Owners::None, one) | (one, Owners::None) => one,
            (Owners::One(one), Owners::One(other)) if one == other => self,
            _ => Owners::Several,
        }
    }
}

/// The commands that a client has queued.
#[derive(Default)]
pub struct Queue {
    requests: Vec<OwnedRequest>,
    bytes: usize,
    args: usize,
    writes: bool,
    owners: Owners,
    /// A command of the server, or one of all shards where there are several, is among them.
    needs_hops: bool,
    /// One was refused, so none will run.
    is_refused: bool,
    /// The database that a `SELECT` among them selects.
    database: Option<u16>,
}

impl Queue {
    /// Adds a command, on a server with so many shards and databases. It will run in the database of the request, unless
    /// another is selected before.
    ///
    /// # Errors
    /// There are too many. None will run.
    pub fn push(&mut self, request: &Request<'_>, shards: usize, databases: u16) -> Result<(), Error> {
        if self.is_refused {
            return Ok(());
        }
        let request = &self.database.map_or(*request, |database| request.in_database(database));
        if request.command.run == Run::Server(Server::Select) {
            self.database = parse_database(request.arg(0), databases).ok().or(self.database);
        }
        let request_bytes: usize = request.args().map(<[u8]>::len).sum();
        self.bytes += request_bytes + size_of::<OwnedRequest>();
        if self.requests.len() == QUEUED_COMMANDS_MAX || self.bytes > QUEUED_BYTES_MAX {
            self.refuse();
            return Err(Error::Unavailable(
                "a transaction has 262144 commands and 256 MiB at most: EXEC will run nothing",
            ));
        }
        self.args += request.arg_count();
        self.writes |= request.command.has(Flags::WRITE);
        match request.command.run {
            Run::EveryShard(_) if shards == 1 => self.owners = self.owners.and(Owners::One(0)),
            Run::EveryShard(_) | Run::Script | Run::Server(_) => self.needs_hops = true,
            _ => {
                let owners = match route(request, shards) {
                    Route::One(worker) => Owners::One(worker),
                    Route::Several => Owners::Several,
                    Route::Any => Owners::None,
                };
                self.owners = self.owners.and(owners);
            }
        }
        self.requests.push(OwnedRequest::new(request));
        Ok(())
    }

    /// A command was refused: none will run, and no memory is wasted on them.
    pub fn refuse(&mut self) {
        *self = Queue { is_refused: true, ..Queue::default() };
    }

    /// Whether a command was refused.
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// How much memory the commands take, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// The commands.
    pub fn requests(&self) -> &[OwnedRequest] {
        &self.requests
    }

    /// The worker whose shard can run all of them as one in one turn, if there is one: it owns all keys, `watched` ones
    /// among them. Where there are no keys it is `own`.
    pub fn lone_owner(&self, watched: Owners, own: usize) -> Option<usize> {
        let is_short = self.requests.len() <= HOP_COMMANDS_MAX
            && self.args <= HOP_ARGS_MAX
            && self.bytes <= LIST_BYTES_MAX;
        match self.owners.and(watched) {
            _ if !is_short || self.needs_hops => None,
            Owners::None => Some(own),
            Owners::One(worker) => Some(worker),
            Owners::Several => None,
        }
    }

    /// The commands, which run only if these keys are as they were.
    pub fn into_list(self, watches: Vec<Watch>, tracks: Tracks) -> CommandList {
        CommandList { requests: self.requests, watches, writes: self.writes, tracks }
    }
}

/// The keys that a client watches.
#[derive(Default)]
pub struct Watched {
    keys: HashMap<(u16, Box<[u8]>), Watch, RandomState>,
    bytes: usize,
    owners: Owners,
}

/// Keys, each with the number of its database.
pub type Keys = Vec<(u16, Box<[u8]>)>;

impl Watched {
    /// Those of the keys of a request that are not watched yet, by the worker that owns them, of so many.
    ///
    /// # Errors
    /// They would be too many. Nothing is changed.
    pub fn new_keys(&self, request: &Request<'_>, shards: usize) -> Result<Vec<(usize, Keys)>, Error> {
        let keys = request.keys().map(|key| (request.database, Box::from(key)));
        let mut keys: Keys = keys.filter(|key| !self.keys.contains_key(key)).collect();
        keys.sort_unstable();
        keys.dedup();
        let bytes: usize = keys.iter().map(|(_, key)| key.len()).sum();
        if self.keys.len() + keys.len() > WATCHED_KEYS_MAX || self.bytes + bytes > WATCHED_BYTES_MAX {
            return Err(Error::Unavailable("a client watches 16384 keys and 4 MiB of them at most"));
        }
        let mut by_owner: Vec<(usize, Keys)> = Vec::new();
        for key in keys {
            let worker = owner(&key.1, shards);
            match by_owner.iter_mut().find(|(owner, _)| *owner == worker) {
                Some((_, keys)) => keys.push(key),
                None => by_owner.push((worker, vec![key])),
            }
        }
        Ok(by_owner)
    }

    /// These keys are watched at this worker.
    pub fn add(&mut self, worker: usize, watches: Vec<Watch>) {
        self.owners = self.owners.and(Owners::One(worker));
        for watch in watches {
            self.bytes += watch.key.len();
            self.keys.insert((watch.database, watch.key.clone()), watch);
        }
    }

    /// Who owns them.
    pub fn owners(&self) -> Owners {
        self.owners
    }

    /// How the keys were.
    pub fn into_watches(self) -> Vec<Watch> {
        self.keys.into_values().collect()
    }
}
