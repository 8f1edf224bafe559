//! A description of very many things, on its way.

use shard::command::{self, Command, Server};
use shard::{OwnedRequest, Request};

use super::Client;
use crate::protocol;

/// How many arguments a turn looks at: a tenth of a millisecond.
pub(crate) const NAMES_PER_TURN: usize = 256;

/// A command on its way.
pub struct Listing {
    pub(crate) request: OwnedRequest,
    /// The argument at which to go on.
    pub(crate) next: usize,
    pub(crate) found: Found,
}

/// What is listed, and what was found of it.
pub(crate) enum Found {
    /// An item for each name, which the client has got as far as the names were looked at.
    Infos,
    /// Commands, each once.
    Docs(Vec<&'static Command>),
    /// Of each option, whether a pattern matches it.
    Options(Vec<bool>),
}

impl Listing {
    /// Begins one, if a request is of this kind and names so many things that it takes more than a turn.
    pub(crate) fn of(request: &Request<'_>, client: &mut Client) -> Option<Listing> {
        if request.arg_count() <= NAMES_PER_TURN {
            return None;
        }
        let is = |word: &str| request.arg(0).eq_ignore_ascii_case(word.as_bytes());
        let found = match request.command.run {
            command::Run::Server(Server::Command) if is("INFO") => Found::Infos,
            command::Run::Server(Server::Command) if is("DOCS") => Found::Docs(Vec::new()),
            command::Run::Server(Server::Config) if is("GET") => Found::Options(Vec::new()),
            _ => return None,
        };
        if let Found::Infos = found {
            client.replies.now(|out| protocol::begin_list(request.arg_count() - 1, client.dialect, out));
        }
        Some(Listing { request: OwnedRequest::new(request), next: 1, found })
    }
}
