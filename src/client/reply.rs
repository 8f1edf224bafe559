//! How replies are rendered into a client's place. Errors are counted here, wherever they come from.

use shard::{Dialect, Error, PROBED_BYTES_MIN, Reply, Request, has_room_for};

use super::Client;
use crate::mesh::RequestId;
use crate::metrics::errors;
use crate::protocol;

/// Under which name a job's calls are answered: a client has one job at a time.
pub(crate) fn job_id(client: &Client) -> RequestId {
    RequestId { socket: client.socket, sequence: client.replies.next_sequence() }
}

pub(crate) fn answer(client: &mut Client, request: &Request<'_>, reply: &Reply<'_>) {
    match protocol::lone_value(reply, request.dialect) {
        Some(value) if client.replies.all_in() => {
            client.replies.now(|out| protocol::begin_value(value, out));
            client.replies.now_sealed([value.clone()]);
            client.replies.now(|out| out.extend_from_slice(protocol::VALUE_END));
        }
        _ if lacks_room(reply, client.replies.size_bytes()) => answer_error(client, Error::OutOfMemory),
        _ => client.replies.now(|out| write_reply(reply, request, out)),
    }
}

/// Whether there is no memory for a reply with large values behind so many bytes of others.
fn lacks_room(reply: &Reply<'_>, before_bytes: usize) -> bool {
    let value_bytes = match reply {
        Reply::Bulk(bytes) => bytes.len(),
        Reply::Shared(bytes) => bytes.len(),
        Reply::Array(items) => {
            items.iter().map(|item| if let Reply::Shared(value) = item { value.len() } else { 0 }).sum()
        }
        _ => 0,
    };
    value_bytes >= PROBED_BYTES_MIN && !has_room_for(2 * (before_bytes + value_bytes))
}

pub(crate) fn write_reply(reply: &Reply<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    if let Reply::Error(error) = reply {
        errors::note_kind(error);
        errors::note_command(request.command, error);
    }
    protocol::write_reply(reply, Some(request.command), request.arg_count(), request.dialect, out);
}

/// Renders an error that no one request ends with, or one that was counted for its command already.
pub(crate) fn write_error(error: Error, dialect: Dialect, out: &mut Vec<u8>) {
    errors::note_kind(&error);
    protocol::write_error(error, dialect, out);
}

pub(crate) fn answer_error(client: &mut Client, error: Error) {
    let dialect = client.session.dialect;
    client.replies.now(|out| write_error(error, dialect, out));
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
