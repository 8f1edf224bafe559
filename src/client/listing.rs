//! A description of very many things, on its way.

use shard::command::{Command, Run, Server};
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
    /// Of each option the name by which it is shown, if it is.
    Options(Vec<Option<String>>),
}

impl Listing {
    /// Begins one, if a request is of this kind and names so many things that it takes more than a turn.
    pub(crate) fn of(request: &Request<'_>, client: &mut Client) -> Option<Listing> {
        if request.arg_count() <= NAMES_PER_TURN {
            return None;
        }
        let found = match request.command.run {
            Run::Server(Server::CommandInfo) => Found::Infos,
            Run::Server(Server::CommandDocs) => Found::Docs(Vec::new()),
            Run::Server(Server::ConfigGet) => Found::Options(Vec::new()),
            _ => return None,
        };
        if let Found::Infos = found {
            client.replies.hold_messages();
            client.replies.now(|out| protocol::begin_list(request.arg_count(), client.session.dialect, out));
        }
        Some(Listing { request: OwnedRequest::new(request), next: 0, found })
    }
}
