//! Commands that describe as many things as their arguments name (`COMMAND INFO`, `COMMAND DOCS`, `CONFIG GET`), where
//! these are very many: some in each turn, and none while the client does not take its replies.

use shard::{Reply, command};

use super::About;
use super::command_docs::{command_docs, command_info};
use super::config::{mark_options, shown_options};
use crate::client::Client;
use crate::client::job::Job;
use crate::client::listing::{Found, Listing, NAMES_PER_TURN};
use crate::client::reply::{answer, fail};
use crate::protocol;

/// Goes on with a client's listing, if it has one and takes its replies. Returns whether more can be done in the
/// next turn.
pub(crate) fn go_on(client: &mut Client, about: &About<'_>) -> bool {
    if !matches!(client.job.as_deref(), Some(Job::Listing(_)))
        || client.replies.size_bytes() >= client.limits.reply_bytes
    {
        return false;
    }
    let Some(Job::Listing(mut listing)) = client.job.take().map(|job| *job) else {
        unreachable!("it has just been looked at");
    };
    let Listing { request, next, found } = &mut listing;
    let request = request.request();
    let names = request.args().skip(*next).take(NAMES_PER_TURN);
    *next += names.len();
    let is_over = *next == request.arg_count();
    let dialect = client.session.dialect;
    let reply = match found {
        Found::Infos => {
            client.replies.now(|out| {
                let infos = names.map(|name| command::find_full(name).map_or(Reply::Nil, command_info));
                infos.for_each(|info| protocol::write_item(&info, dialect, out));
            });
            None
        }
        Found::Docs(rows) => {
            for row in names.filter_map(command::find_full) {
                if !rows.contains(&row) {
                    rows.push(row);
                }
            }
            is_over.then(|| command_docs(rows.iter().copied()))
        }
        Found::Options(shown) => {
            if let Err(error) = mark_options(about, names, shown) {
                fail(client, request.command, error);
                return false;
            }
            is_over.then(|| shown_options(about, shown, dialect))
        }
    };
    if let Some(reply) = reply {
        answer(client, &request, &reply);
    }
    if is_over {
        client.replies.release_messages();
    } else {
        client.job = Some(Box::new(Job::Listing(listing)));
    }
    !is_over
}
