//! Commands of the server that describe as many things as their arguments name (`COMMAND INFO`, `COMMAND DOCS`,
//! `CONFIG GET`), where these are very many: some in each turn, and none while the client does not take its replies.

use shard::command::{self};
use shard::{Error, Glob, Reply};

use super::Worker;
use crate::admin::{command_docs, command_info};
use crate::client::Client;
use crate::client::job::Job;
use crate::client::listing::{Found, Listing, NAMES_PER_TURN};
use crate::client::reply::{answer, answer_error};
use crate::config::option_name;
use crate::protocol;

impl Worker {
    /// Goes on with a client's listing, if it has one and takes its replies. Returns whether more can be done in the
    /// next turn.
    pub(super) fn go_on_listing(&mut self, client: &mut Client) -> bool {
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
        let dialect = client.dialect;
        let reply = match found {
            Found::Infos => {
                client.replies.now(|out| {
                    let infos = names.map(|name| command::find(name).map_or(Reply::Nil, command_info));
                    infos.for_each(|info| protocol::write_item(&info, dialect, out));
                });
                None
            }
            Found::Docs(rows) => {
                for row in names.filter_map(command::find) {
                    if !rows.contains(&row) {
                        rows.push(row);
                    }
                }
                is_over.then(|| command_docs(rows))
            }
            Found::Options(shown) => {
                if let Err(error) = self.mark_options(names, shown) {
                    answer_error(client, error);
                    return false;
                }
                is_over.then(|| self.shown_options(shown, dialect))
            }
        };
        if let Some(reply) = reply {
            answer(client, &request, &reply);
        }
        if !is_over {
            client.job = Some(Box::new(Job::Listing(listing)));
        }
        !is_over
    }

    /// Notes which options these patterns match.
    pub(crate) fn mark_options<'a>(
        &self,
        patterns: impl Iterator<Item = &'a [u8]>,
        shown: &mut Vec<bool>,
    ) -> Result<(), Error> {
        let options = self.options();
        shown.resize(options.len(), false);
        for pattern in patterns {
            let glob = Glob::new(&option_name(pattern))?;
            for ((name, _), shown) in options.iter().zip(&mut *shown) {
                *shown |= glob.matches(name.as_bytes());
            }
        }
        Ok(())
    }
}
