//! What a client wants to be told of the keys that it keeps copies of.

use bytes::Bytes;

use crate::mesh::Tracks;
use crate::net::SocketId;

/// A client that keeps copies of what it reads, and is told when they are out of date.
#[derive(Clone, Debug, Default)]
pub struct Tracking {
    /// It is told of all keys with these prefixes, whatever it has read.
    pub broadcasts: bool,
    /// Those prefixes; an empty one for all keys.
    pub prefixes: Vec<Bytes>,
    /// What it reads counts only behind `CLIENT CACHING YES`, or unless behind `CLIENT CACHING NO`.
    pub opt_in: bool,
    /// See there.
    pub opt_out: bool,
    /// What `CLIENT CACHING` has said about the next command.
    pub is_caching: bool,
    /// It is not told of its own changes.
    pub no_loop: bool,
    /// Another client is told in its place.
    pub redirect: Option<Redirect>,
    /// That client is gone.
    pub is_broken: bool,
}

/// The client that is told in place of another one.
#[derive(Clone, Copy, Debug)]
pub struct Redirect {
    /// Its number.
    pub client_id: i64,
    /// Its worker and its socket there.
    pub place: (usize, SocketId),
}

impl Tracking {
    /// What shards have to note of its next command.
    pub fn tracks(&self) -> Tracks {
        let reads = if self.opt_out { !self.is_caching } else { !self.opt_in || self.is_caching };
        Tracks { reads: reads && !self.broadcasts, own_changes: self.no_loop }
    }

    /// What is true of it, as `CLIENT TRACKINGINFO` tells it.
    pub fn flags(&self) -> Vec<&'static str> {
        let flags = [
            (true, "on"),
            (self.broadcasts, "bcast"),
            (self.opt_in, "optin"),
            (self.opt_in && self.is_caching, "caching-yes"),
            (self.opt_out, "optout"),
            (self.opt_out && self.is_caching, "caching-no"),
            (self.no_loop, "noloop"),
            (self.is_broken, "broken_redirect"),
        ];
        flags.into_iter().filter(|(is, _)| *is).map(|(_, flag)| flag).collect()
    }
}
