//! Commands on keys, whatever their values are.

use crate::command::row::{Row, on_server, on_shard};
use crate::command::spec::{Command, Flags, Group, Keys, Merge, Run, Server, TextForm};
use crate::context::Context;
use crate::error::Error;
use crate::reply::Reply;
use crate::request::Request;

const OF_KEYS: Command = Command {
    args_max: Command::MANY,
    keys: Keys::ALL,
    run: Run::Keys(Merge::Sum),
    usage: "key [key ...]",
    ..Command::OF_KEY
};
const DEL: Command = Command {
    name: "DEL",
    flags: Flags::WRITE.with(Flags::LISTS),
    summary: "Removes keys and returns how many there were",
    ..OF_KEYS
};

#[rustfmt::skip] // A row is a paragraph.
pub(super) const ROWS: &[Row] = &[
    on_shard(del, Command {
        name: "DEL", text_form: TextForm::OkOrNotFound,
        example: "MSET a 1 b 2\nDEL a b nothing\nDEL nothing", complexity: "O(n), n keys named",
        ..DEL
    }),
    on_shard(del, Command {
        name: "DELETE", text_form: TextForm::OkOrNotFound,
        example: "MSET a 1 b 2\nDELETE a\nDELETE nothing", complexity: "O(n), n keys named",
        ..DEL
    }),
    on_shard(del, Command {
        name: "MDEL", needs: "at least one key",
        example: "MSET a 1 b 2\nMDEL a b nothing", complexity: "O(n), n keys named",
        ..DEL
    }),
    on_shard(exists, Command {
        name: "EXISTS", flags: Flags::READONLY.with(Flags::FAST).with(Flags::LISTS),
        summary: "Returns how many of the keys exist",
        example: "MSET a 1 b 2\nEXISTS a b nothing", complexity: "O(n), n keys named",
        ..OF_KEYS
    }),
    on_server(Command {
        name: "KEYS", args_min: 1, args_max: 1, flags: Flags::READONLY, needs: "pattern", usage: "pattern",
        summary: "Returns the keys that match a glob pattern",
        example: "MSET user:1 ada cart:1 book\nKEYS user:*", complexity: "O(n), n keys in all",
        ..Command::of_server(Server::Keys, Group::Generic)
    }),
    on_server(Command {
        name: "SCAN", args_min: 1, args_max: Command::MANY, flags: Flags::READONLY, needs: "cursor",
        usage: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
        summary: "Returns some keys and the cursor at which to go on",
        example: "MSET user:1 ada cart:1 book\nSCAN 0 MATCH user:* COUNT 100",
        complexity: "O(n), n the COUNT; a whole walk O(n), n keys in all",
        ..Command::of_server(Server::Scan, Group::Generic)
    }),
    on_server(Command {
        name: "WAITAOF", args_min: 3, args_max: 3, flags: Flags::NOSCRIPT,
        needs: "numlocal, numreplicas and timeout", usage: "numlocal numreplicas timeout",
        summary: "Returns once everything acknowledged before it is on disk, or the timeout in milliseconds is over",
        example: "SET greeting hello\nWAITAOF 1 0 0", complexity: "O(1), and a wait for the disk",
        ..Command::of_server(Server::Waitaof, Group::Generic)
    }),
];

/// `DEL key [key ...]`, also as `DELETE` and `MDEL`.
fn del<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let mut removed = 0;
    for key in request.keys() {
        if let Some(found) = context.find(key) {
            context.remove(found, key);
            removed += 1;
        }
    }
    Ok(Reply::Integer(removed))
}

/// `EXISTS key [key ...]`; a key that is named twice counts twice.
fn exists<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    Ok(Reply::count(request.keys().filter(|key| context.look_up(key).is_some()).count()))
}

#[cfg(test)]
mod tests {
    use crate::commands::transcript;

    #[test]
    fn del_counts_the_keys_that_there_were() {
        transcript::run(
            "> MSET a 1 b 2 c 3
             OK
             > DEL a nope b a
             2
             ! remove a, remove b
             > DELETE nope
             0
             !
             > MDEL c
             1
             > DBSIZE
             0",
        );
    }

    #[test]
    fn del_of_an_expired_key_finds_nothing() {
        transcript::run(
            "> SETEX a 1 x
             OK
             @ 2000
             > DEL a
             0
             !",
        );
    }

    #[test]
    fn exists_counts_repeated_keys() {
        transcript::run(
            "> SET a 1
             OK
             > EXISTS a a nope
             2",
        );
    }
}
