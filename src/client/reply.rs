//! How replies are rendered into a client's place. Errors are counted here, wherever they come from.

use shard::{Command, Error, PROBED_BYTES_MIN, Reply, Request, has_room_for};

use super::Client;
use super::replies::Sent;
use crate::mesh::RequestId;
use crate::metrics::errors;
use crate::protocol::{self, Dialect, ProtocolError};

/// Under which name a job's calls are answered: a client has one job at a time.
pub(crate) fn job_id(client: &Client) -> RequestId {
    RequestId { socket: client.socket, sequence: client.replies.next_sequence() }
}

pub(crate) fn answer(client: &mut Client, request: &Request<'_>, reply: &Reply<'_>) {
    let dialect = client.session.dialect;
    match protocol::lone_value(reply, dialect) {
        Some(value) if client.replies.all_in() => {
            client.replies.now(|out| protocol::begin_value(value, out));
            client.replies.now_sealed([value.clone()]);
            client.replies.now(|out| out.extend_from_slice(protocol::VALUE_END));
        }
        _ if lacks_room(reply, client.replies.size_bytes()) => {
            fail(client, request.command, Error::OutOfMemory);
        }
        _ => match reply {
            Reply::Error(error) => fail(client, request.command, error.clone()),
            reply => client.replies.now(|out| write_reply(reply, request, dialect, out)),
        },
    }
}

/// Whether there is no memory for a reply with large values behind so many bytes of others.
fn lacks_room(reply: &Reply<'_>, before_bytes: usize) -> bool {
    let value_bytes = match reply {
        Reply::Bulk(bytes) => bytes.len(),
        Reply::Shared(bytes) => bytes.len(),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            items.iter().map(|item| if let Reply::Shared(value) = item { value.len() } else { 0 }).sum()
        }
        _ => 0,
    };
    value_bytes >= PROBED_BYTES_MIN && !has_room_for(2 * (before_bytes + value_bytes))
}

/// Renders a reply that is no error.
pub(crate) fn write_reply(reply: &Reply<'_>, request: &Request<'_>, dialect: Dialect, out: &mut Vec<u8>) {
    debug_assert!(!matches!(reply, Reply::Error(_)), "errors are counted where their clients are");
    protocol::write_reply(reply, Some(request.command), request.arg_count(), dialect, out);
}

/// Renders a reply behind others that leave with it, which have so many bytes at most together.
pub(crate) fn write_counted(
    reply: &Reply<'_>,
    request: &Request<'_>,
    dialect: Dialect,
    bytes_max: usize,
    out: &mut Vec<u8>,
) {
    let error = match reply {
        Reply::Error(error) => error.clone(),
        _ if out.len() > bytes_max => Error::ReplyTooLarge { limit: bytes_max },
        _ if lacks_room(reply, out.len()) => Error::OutOfMemory,
        reply => return write_reply(reply, request, dialect, out),
    };
    errors::note_failed(request.command);
    write_error(error, dialect, out);
}

/// Renders an error that no request of a known command ends with, or one that is counted for its command elsewhere.
pub(crate) fn write_error(error: Error, dialect: Dialect, out: &mut Vec<u8>) {
    errors::note_kind(errors::kind(&error));
    protocol::write_error(error, dialect, out);
}

/// Renders what a client is told that does not speak the protocol.
pub(crate) fn write_protocol_error(error: ProtocolError, dialect: Dialect, out: &mut Vec<u8>) {
    match error {
        ProtocolError::Http => {} // It is told nothing.
        ProtocolError::OutOfMemory => errors::note_kind(errors::kind(&Error::OutOfMemory)),
        _ => errors::note_kind("ERR"),
    }
    error.write(dialect, out);
}

/// As [`write_error`], in the next place.
pub(crate) fn answer_error(client: &mut Client, error: Error) {
    let dialect = client.session.dialect;
    client.replies.now(|out| write_error(error, dialect, out));
}

/// Answers a request of this command that is refused before it runs.
pub(crate) fn reject(client: &mut Client, command: &Command, error: Error) {
    errors::note_rejected(command);
    answer_error(client, error);
}

/// Answers a request of this command that ran, or may have run.
pub(crate) fn fail(client: &mut Client, command: &Command, error: Error) {
    errors::note_failed(command);
    answer_error(client, error);
}

/// Answers the request with this number with an error, unless it was given up; `note` counts it for its command.
pub(crate) fn fill_error(client: &mut Client, sequence: u32, error: Error, note: fn(&Command)) -> Sent {
    if let Some(command) = client.replies.awaiting(sequence) {
        note(command);
    }
    let dialect = client.session.dialect;
    client.replies.fill(sequence, |out| write_error(error, dialect, out))
}

#[cfg(test)]
mod tests {
    use shard::command;

    use super::*;

    #[test]
    fn errors_are_counted_under_the_word_that_they_begin_with() {
        let get = command::find(b"GET").unwrap();
        for error in [
            Error::ExecAborted,
            Error::ExecAbortedBy(Box::new(Error::Syntax)),
            Error::Loading { percent: 1 },
            Error::WritesRefused { cause: "full".into(), remedy: "free space" },
            Error::NotOnDisk { cause: "full".into() },
            Error::NoProtocol,
            Error::OutOfMemory,
            Error::Syntax,
            Error::WrongArity(get),
        ] {
            let mut text = Vec::new();
            protocol::write_error(error.clone(), Dialect::Resp2, &mut text);
            let kind = errors::kind(&error);
            assert!(text.starts_with(format!("-{kind} ").as_bytes()), "{kind}: {}", text.escape_ascii());
        }
        // A word that errors begin to use has to become a kind.
        for text in include_str!("../protocol/resp.rs").split("\"-").skip(1) {
            let word: String = text.chars().take_while(char::is_ascii_uppercase).collect();
            assert!(word.is_empty() || errors::KINDS.contains(&&*word), "{word} is no kind of errors");
        }
    }
}
