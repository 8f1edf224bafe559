//! What a client has said of itself and how it wants to be answered: the state that `HELLO`, `CLIENT`, `MULTI` and
//! `RESET` change.

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
    /// The number of the database that it has selected.
    pub database: u16,
    /// It has sent `MULTI`, which is unknown: no command of it runs up to `EXEC`, `DISCARD` or `RESET`.
    pub is_in_multi: bool,
    first_dialect: Dialect,
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
            database: 0,
            is_in_multi: false,
            first_dialect: dialect,
        }
    }

    /// Takes back what it has said about itself and how it wants to be answered.
    pub fn reset(&mut self) {
        self.dialect = self.first_dialect;
        self.name.clear();
        self.database = 0;
        self.is_in_multi = false;
    }
}
