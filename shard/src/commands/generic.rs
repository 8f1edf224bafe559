//! Commands on keys, whatever their values are.

use crate::combine::{Combined, Deadline, Effect, Held, Terms};
use crate::command::row::{Row, combining, container, on_server, on_shard};
use crate::command::spec::{Command, Flags, Group, Keys, Merge, Run, Server, TextForm};
use crate::context::Context;
use crate::databases::parse_database;
use crate::error::Error;
use crate::events::EventClasses;
use crate::integer;
use crate::reply::Reply;
use crate::request::Request;

/// The longest value that Redis keeps together with its header.
const EMBEDDED_LEN_MAX: usize = 44;

const OF_KEYS: Command = Command {
    args_max: Command::MANY,
    keys: Keys::ALL,
    run: Run::Keys(Merge::Sum),
    usage: "key [key ...]",
    ..Command::OF_KEY
};
const OF_TWO_KEYS: Command = Command {
    args_min: 2,
    args_max: 2,
    keys: Keys::Range { first: 0, last: 1, step: 1 },
    needs: "two keys",
    usage: "key newkey",
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
    combining(copy, Command {
        name: "COPY", args_max: Command::MANY,
        flags: Flags::WRITE.with(Flags::DENYOOM).with(Flags::NAMES_DATABASE),
        usage: "source destination [DB index] [REPLACE]",
        summary: "Gives a key the value and the TTL of another one, unless it exists",
        example: "MSET a 1 b 2\nCOPY a c\nCOPY a b\nCOPY a b REPLACE\nMGET a b c", complexity: "O(n), n bytes of the value",
        ..OF_TWO_KEYS
    }),
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
    on_shard(move_key, Command {
        name: "MOVE", args_min: 2, args_max: 2, flags: Flags::WRITE.with(Flags::FAST),
        needs: "key and database index", usage: "key index",
        summary: "Gives a key to another database, unless that has it",
        example: "SET greeting hello\nMOVE greeting 1\nGET greeting\nSELECT 1\nGET greeting",
        complexity: "O(1), and a copy of the value",
        ..Command::OF_KEY
    }),
    container(Command {
        name: "OBJECT", needs: "ENCODING, FREQ, IDLETIME or REFCOUNT, and a key",
        summary: "Tells how a value is kept, or for how long it has not been used",
        ..Command::container(Group::Generic)
    }, &[
        on_shard(object_encoding, Command {
            name: "ENCODING", flags: Flags::READONLY,
            summary: "Tells as what Redis would keep a new value like that of the key",
            example: "SET greeting hello\nOBJECT ENCODING greeting\nSET visits 42\nOBJECT ENCODING visits", complexity: "O(1)",
            ..Command::OF_KEY
        }),
        on_shard(object_freq, Command {
            name: "FREQ", flags: Flags::READONLY,
            summary: "Is refused: ANALYZE tells how a key is used",
            example: "SET greeting hello\nOBJECT FREQ greeting", complexity: "O(1)",
            ..Command::OF_KEY
        }),
        on_shard(object_idletime, Command {
            name: "IDLETIME", flags: Flags::READONLY,
            summary: "Tells for how many seconds a key has not been used",
            example: "SET greeting hello\nOBJECT IDLETIME greeting", complexity: "O(1)",
            ..Command::OF_KEY
        }),
        on_shard(object_refcount, Command {
            name: "REFCOUNT", flags: Flags::READONLY,
            summary: "Returns 1 for a key that exists",
            example: "SET greeting hello\nOBJECT REFCOUNT greeting", complexity: "O(1)",
            ..Command::OF_KEY
        }),
    ]),
    on_server(Command {
        name: "RANDOMKEY", flags: Flags::READONLY,
        summary: "Returns a key, each with about the same chance",
        example: "SET greeting hello\nRANDOMKEY", complexity: "O(1)",
        ..Command::of_server(Server::Randomkey, Group::Generic)
    }),
    combining(rename, Command {
        name: "RENAME", flags: Flags::WRITE,
        summary: "Gives a key another name, in place of any key that had it",
        example: "SET a 1\nRENAME a b\nGET b\nRENAME a b", complexity: "O(n), n bytes of the value",
        ..OF_TWO_KEYS
    }),
    combining(renamenx, Command {
        name: "RENAMENX", flags: Flags::WRITE.with(Flags::FAST),
        summary: "Gives a key another name, unless a key has it",
        example: "MSET a 1 b 2\nRENAMENX a b\nRENAMENX a c", complexity: "O(n), n bytes of the value",
        ..OF_TWO_KEYS
    }),
    on_server(Command {
        name: "SCAN", args_min: 1, args_max: Command::MANY, flags: Flags::READONLY, needs: "cursor",
        usage: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
        summary: "Returns some keys and the cursor at which to go on",
        example: "MSET user:1 ada cart:1 book\nSCAN 0 MATCH user:* COUNT 100",
        complexity: "O(n), n the COUNT; a whole walk O(n), n keys in all",
        ..Command::of_server(Server::Scan, Group::Generic)
    }),
    on_shard(exists, Command {
        name: "TOUCH", flags: Flags::READONLY.with(Flags::FAST).with(Flags::LISTS),
        summary: "Uses keys, without a look at their values, and returns how many exist",
        example: "MSET a 1 b 2\nTOUCH a b nothing", complexity: "O(n), n keys",
        ..OF_KEYS
    }),
    on_shard(kind, Command {
        name: "TYPE", flags: Flags::READONLY.with(Flags::FAST),
        summary: "Returns of which kind the value of a key is",
        example: "SET greeting hello\nTYPE greeting\nTYPE nothing", complexity: "O(1)",
        ..Command::OF_KEY
    }),
    on_shard(del, Command {
        name: "UNLINK", flags: DEL.flags.with(Flags::FAST), text_form: TextForm::OkOrNotFound,
        example: "SET greeting hello\nUNLINK greeting\nUNLINK greeting", complexity: "O(n), n keys",
        ..DEL
    }),
    on_server(Command {
        name: "WAITAOF", args_min: 3, args_max: 3, flags: Flags::NOSCRIPT,
        needs: "numlocal, numreplicas and timeout", usage: "numlocal numreplicas timeout",
        summary: "Returns once everything acknowledged before it is on disk, or the timeout in milliseconds is over",
        example: "SET greeting hello\nWAITAOF 1 0 0", complexity: "O(1), and a wait for the disk",
        ..Command::of_server(Server::Waitaof, Group::Generic)
    }),
];

/// `DEL key [key ...]`, also as `DELETE`, `MDEL` and `UNLINK`.
fn del<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let mut removed = 0;
    for key in request.keys() {
        if let Some(found) = context.find(key) {
            context.remove(found, key);
            context.notify(EventClasses::GENERIC, "del", key);
            removed += 1;
        }
    }
    Ok(Reply::Integer(removed))
}

/// `RENAME key newkey`. The TTL goes with the value.
fn rename(request: &Request<'_>, held: &[Option<Held<'_>>], _terms: &Terms) -> Result<Combined, Error> {
    let source = held[0].as_ref().ok_or(Error::NoSuchKey)?;
    if request.arg(0) == request.arg(1) {
        return Ok(Reply::Ok.into());
    }
    let effects = renamed(source)?;
    Ok(Combined { reply: Reply::Ok, effects })
}

/// `RENAMENX key newkey`.
fn renamenx(_: &Request<'_>, held: &[Option<Held<'_>>], _terms: &Terms) -> Result<Combined, Error> {
    let source = held[0].as_ref().ok_or(Error::NoSuchKey)?;
    if held[1].is_some() {
        return Ok(Reply::Integer(0).into());
    }
    let effects = renamed(source)?;
    Ok(Combined { reply: Reply::Integer(1), effects })
}

/// `COPY source destination [DB index] [REPLACE]`.
fn copy(request: &Request<'_>, held: &[Option<Held<'_>>], terms: &Terms) -> Result<Combined, Error> {
    let (mut replaces, mut database) = (false, request.database);
    let mut args = request.args().skip(2);
    while let Some(arg) = args.next() {
        if arg.eq_ignore_ascii_case(b"REPLACE") {
            replaces = true;
        } else if arg.eq_ignore_ascii_case(b"DB") {
            database = parse_database(args.next().ok_or(Error::Syntax)?, terms.databases)?;
        } else {
            return Err(Error::Syntax);
        }
    }
    if request.arg(0) == request.arg(1) && database == request.database {
        return Err(Error::Unavailable("source and destination objects are the same"));
    }
    let Some(source) = held[0].as_ref().filter(|_| replaces || held[1].is_none()) else {
        return Ok(Reply::Integer(0).into());
    };
    Ok(Combined {
        reply: Reply::Integer(1),
        effects: vec![put_copy(source)?.told_as(EventClasses::GENERIC, "copy_to")],
    })
}

/// The first key is gone, and the second one has what it held.
fn renamed(source: &Held<'_>) -> Result<Vec<Effect>, Error> {
    let put = put_copy(source)?.told_as(EventClasses::GENERIC, "rename_to");
    Ok(vec![Effect::remove(0).told_as(EventClasses::GENERIC, "rename_from"), put])
}

/// The second key gets the value and the deadline of the first one.
fn put_copy(source: &Held<'_>) -> Result<Effect, Error> {
    Ok(Effect::put(1, source.to_bytes()?, Deadline::At(source.deadline_ms)))
}

/// `EXISTS key [key ...]`, also as `TOUCH`; a key that is named twice counts twice.
fn exists<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    Ok(Reply::count(request.keys().filter(|key| context.look_up(key).is_some()).count()))
}

/// `MOVE key index`.
fn move_key<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let (key, database) = (request.arg(0), parse_database(request.arg(1), context.database_count())?);
    if database == context.database() {
        return Err(Error::Unavailable("source and destination objects are the same"));
    }
    let Some(found) = context.find(key) else { return Ok(Reply::Integer(0)) };
    let is_moved = context.move_to(found, key, database)?;
    if is_moved {
        let home = context.database();
        context.notify(EventClasses::GENERIC, "move_from", key);
        context.work_in(database);
        context.notify(EventClasses::GENERIC, "move_to", key);
        context.work_in(home);
    }
    Ok(Reply::Integer(is_moved.into()))
}

/// `OBJECT ENCODING key`, by the rules of Redis for a value that is set as a whole. It does not count as a use.
fn object_encoding<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let Some(found) = context.find_string(request.arg(0))? else { return Ok(Reply::Nil) };
    let value = context.string(found);
    Ok(Reply::bytes(match value.len() {
        _ if integer::parse(value).is_some() => b"int",
        0..=EMBEDDED_LEN_MAX => b"embstr",
        _ => b"raw",
    }))
}

/// `OBJECT FREQ key`.
fn object_freq<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    match context.find(request.arg(0)) {
        Some(_) => Err(Error::Unavailable(
            "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
             between policies at runtime LRU and LFU data will take some time to adjust.",
        )),
        None => Ok(Reply::Nil),
    }
}

/// `OBJECT IDLETIME key`. It does not count as a use.
fn object_idletime<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let Some(found) = context.find(request.arg(0)) else { return Ok(Reply::Nil) };
    let analytics = context.analytics().ok_or(Error::AnalyticsOff)?;
    Ok(Reply::Integer(analytics.idle_s(context.usage(found).last_access_s).into()))
}

/// `OBJECT REFCOUNT key`: no two keys have the same value in common.
fn object_refcount<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    Ok(context.find(request.arg(0)).map_or(Reply::Nil, |_| Reply::Integer(1)))
}

/// `TYPE key`. It does not count as a use of the key.
fn kind<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let key = request.arg(0);
    let is_there = context.find(key).is_some();
    if !is_there {
        context.notify(EventClasses::MISS, "keymiss", key);
    }
    Ok(Reply::Simple(if is_there { "string" } else { "none" }))
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
    fn keys_are_unlinked_touched_and_told_by_their_kind() {
        transcript::run(
            "> MSET a 1 b 2
             OK
             > TOUCH a a nope
             2
             > TYPE a
             string
             > UNLINK a nope
             1
             ! remove a
             > TYPE a
             none",
        );
    }

    #[test]
    fn a_key_is_moved_with_its_deadline_where_there_is_none() {
        transcript::run(
            "> SET a 1 PX 5000
             OK
             > MOVE a 1
             1
             ! keyspace 1, put a=1 until 6000, keyspace 0, remove a
             > MOVE a 1
             0
             !
             > SET a 2
             OK
             > MOVE a 1
             0
             !
             = 1
             > PTTL a
             5000
             @ 6000
             = 0
             > MOVE a 1
             1
             > DBSIZE
             0
             = 1
             > GET a
             \"2\"
             > MOVE a 1
             Unavailable(\"source and destination objects are the same\")
             > MOVE a x
             InvalidDbIndex
             > MOVE a -1
             DbIndexOutOfRange
             > MOVE a 16
             DbIndexOutOfRange
             > MOVE a 2147483648
             OutOfRange(\"value is out of range, value must between -2147483648 and 2147483647\")
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

    #[test]
    fn a_key_gets_another_name_with_its_ttl() {
        transcript::run(
            r#"> RENAME a b
               NoSuchKey
               > SET a 1 PXAT 9000
               OK
               > SET b 2
               OK
               > RENAMENX a b
               0
               !
               > RENAME a b
               OK
               ! remove a, put b=1 until 9000 by the wall clock
               > RENAME b b
               OK
               !
               > RENAMENX b b
               0
               > RENAMENX b a
               1
               ! remove b, put a=1 until 9000 by the wall clock
               > PTTL a
               8000
               @ 9000
               > RENAME a b
               NoSuchKey
               > RENAME a a
               NoSuchKey"#,
        );
    }

    #[test]
    fn a_key_is_copied_with_its_ttl() {
        transcript::run(
            r#"> COPY a b
               0
               > SETEX a 1 x
               OK
               > COPY a b
               1
               ! put b=x until 2000
               > SET a y
               OK
               > COPY a b
               0
               !
               > COPY a b DB 0 REPLACE
               1
               ! put b=y
               > COPY a b DB x
               InvalidDbIndex
               > COPY a b DB 16
               DbIndexOutOfRange
               > COPY a b DB -1
               DbIndexOutOfRange
               > COPY a b DB
               Syntax
               > COPY a a DB 0
               Unavailable("source and destination objects are the same")
               !
               > COPY a b DB 0 replace db 1
               1
               ! keyspace 1, put b=y
               > COPY a a DB 1
               1
               ! keyspace 1, put a=y
               > SETEX a 1 z
               OK
               > COPY a a DB 1
               0
               !
               > COPY a a REPLACE DB 1
               1
               ! keyspace 1, put a=z until 2000
               > GET b
               "y"
               = 1
               > GET a
               "z"
               > PTTL a
               1000
               > COPY a b
               0
               > COPY a c DB 0
               1
               ! put c=z until 2000
               @ 2000
               > COPY a c DB 0 REPLACE
               0
               > COPY b a DB 1
               1
               ! keyspace 1, put a=y"#,
        );
    }
}
