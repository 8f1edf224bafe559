//! What a client has said of itself and how it wants to be answered: the state that `HELLO`, `CLIENT`, `MULTI` and
//! `RESET` change.

use super::multi::{Queue, Watched};
use crate::net::listener::Endpoint;
use crate::protocol::Dialect;

/// The state of a client's session.
pub struct Session {
    /// How it is answered.
    pub dialect: Dialect,
    /// Its name, as it set it.
    pub name: Vec<u8>,
    /// The name of its library and that one's version, as it set them.
    pub library: [Vec<u8>; 2],
    /// What it has queued, if it has sent `MULTI` and neither `EXEC` nor `DISCARD` since.
    pub queue: Option<Box<Queue>>,
    /// The keys that it watches, if it watches any.
    pub watched: Option<Box<Watched>>,
    /// The number of the database that it has selected.
    pub database: u16,
    /// Which of its commands are answered.
    pub replies: ReplyMode,
    /// It is shown the commands of all clients.
    pub monitors: bool,
    /// It is counted among those that are shown them, or about to be.
    pub is_counted_as_monitor: bool,
    /// It is not to be closed for want of memory, as no client is.
    pub no_evict: bool,
    /// Something of this is unusual, so that its commands are looked at more closely before they run.
    pub needs_care: bool,
    first_dialect: Dialect,
}

/// Which commands of a client are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// All of them.
    #[default]
    On,
    /// None of them.
    Off,
    /// All but the next one.
    SkipNext,
    /// All behind the one that has just run.
    Skipped,
}

/// How a client of this endpoint is answered that has not chosen yet.
pub(crate) fn first_dialect(endpoint: Endpoint) -> Dialect {
    if endpoint == Endpoint::Text { Dialect::Text } else { Dialect::Resp2 }
}

impl Session {
    /// That of a client that has said nothing yet.
    pub fn new(endpoint: Endpoint) -> Session {
        let dialect = first_dialect(endpoint);
        Session {
            dialect,
            name: Vec::new(),
            library: Default::default(),
            queue: None,
            watched: None,
            database: 0,
            replies: ReplyMode::On,
            monitors: false,
            is_counted_as_monitor: false,
            no_evict: false,
            needs_care: false,
            first_dialect: dialect,
        }
    }

    /// To be called when something that may be unusual has changed.
    pub fn note_care(&mut self) {
        self.needs_care = self.replies != ReplyMode::On || self.monitors;
    }

    /// Takes back what it has said about itself and how it wants to be answered. What it watches has to be told to the
    /// shards before.
    pub fn reset(&mut self) {
        self.dialect = self.first_dialect;
        self.name.clear();
        self.queue = None;
        self.database = 0;
        self.replies = ReplyMode::On;
        self.monitors = false;
        self.note_care();
    }
}
