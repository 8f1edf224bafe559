//! `DUMP` and `RESTORE`: a value by itself, to be kept elsewhere or brought to another server, also of Redis.

use crate::clock::deadline_by_wall_clock;
use crate::command::row::{Row, on_shard};
use crate::command::spec::{Command, Flags};
use crate::context::Context;
use crate::error::Error;
use crate::events::EventClasses;
use crate::integer;
use crate::payload;
use crate::reply::Reply;
use crate::request::Request;
use crate::room::has_room_for;

const RESTORE: Command = Command {
    args_min: 3,
    args_max: Command::MANY,
    needs: "key, TTL and payload",
    usage: "key ttl payload [REPLACE] [ABSTTL] [IDLETIME seconds | FREQ frequency]",
    summary: "Makes a key out of what DUMP returned, here or on a server of Redis",
    complexity: "O(n), n bytes of the value",
    flags: Flags::WRITE.with(Flags::DENYOOM),
    ..Command::OF_KEY
};

#[rustfmt::skip] // A row is a paragraph.
pub(super) const ROWS: &[Row] = &[
    on_shard(dump, Command {
        name: "DUMP", flags: Flags::READONLY,
        summary: "Returns the value of a key with a checksum, in the form of Redis, for RESTORE",
        example: "DUMP nothing", complexity: "O(n), n bytes of the value",
        ..Command::OF_KEY
    }),
    on_shard(restore, Command {
        name: "RESTORE",
        example: "SET greeting hello\nRESTORE greeting 0 x\nRESTORE greetings 0 x",
        ..RESTORE
    }),
];

/// `DUMP key`.
fn dump<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let Some(found) = context.look_up_string(request.arg(0))? else { return Ok(Reply::Nil) };
    let value = context.string(found);
    if !has_room_for(value.len() + payload::OVERHEAD_BYTES_MAX) {
        return Err(Error::OutOfMemory);
    }
    Ok(Reply::Bulk(payload::of_string(value).into()))
}

/// `RESTORE key ttl payload [option ...]`. A TTL of 0 is none; one that has passed removes the key that is replaced.
fn restore<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let key = request.arg(0);
    let Options { replaces, is_moment } = Options::parse(request)?;
    let found = context.find(key);
    if found.is_some() && !replaces {
        return Err(Error::BusyKey);
    }
    let ttl_ms = request.integer(1)?;
    let ttl_ms = u64::try_from(ttl_ms).map_err(|_| Error::OutOfRange("Invalid TTL value, must be >= 0"))?;
    let value = payload::string(request.arg(2), context.value_len_max())?;
    let deadline_ms = match ttl_ms {
        0 => None,
        _ if is_moment => Some(deadline_by_wall_clock(ttl_ms)),
        _ => Some(context.now_ms().saturating_add(ttl_ms).min(i64::MAX as u64)),
    };
    if deadline_ms.is_some_and(|deadline_ms| context.due_ms(deadline_ms) <= context.now_ms()) {
        if let Some(found) = found {
            context.remove(found, key);
            context.notify(EventClasses::GENERIC, "del", key);
        }
        return Ok(Reply::Ok);
    }
    context.put(found, key, &value, deadline_ms);
    context.notify(EventClasses::GENERIC, "restore", key);
    Ok(Reply::Ok)
}

/// What stands behind the payload.
#[derive(Default)]
struct Options {
    replaces: bool,
    /// The TTL is a moment of the wall clock.
    is_moment: bool,
}

impl Options {
    fn parse(request: &Request<'_>) -> Result<Options, Error> {
        let mut options = Options::default();
        let (mut has_idle_time, mut has_frequency) = (false, false);
        let mut args = request.args().skip(3);
        while let Some(arg) = args.next() {
            let is = |name: &str| arg.eq_ignore_ascii_case(name.as_bytes());
            let number =
                |arg: Option<&[u8]>| integer::parse(arg.ok_or(Error::Syntax)?).ok_or(Error::NotAnInteger);
            if is("REPLACE") {
                options.replaces = true;
            } else if is("ABSTTL") {
                options.is_moment = true;
            } else if is("IDLETIME") && !has_frequency {
                has_idle_time = true;
                if number(args.next())? < 0 {
                    return Err(Error::OutOfRange("Invalid IDLETIME value, must be >= 0"));
                }
            } else if is("FREQ") && !has_idle_time {
                has_frequency = true;
                if !(0..=255).contains(&number(args.next())?) {
                    return Err(Error::OutOfRange("Invalid FREQ value, must be >= 0 and <= 255"));
                }
            } else {
                return Err(Error::Syntax);
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::transcript;
    use crate::{Changes, Error, Reply, Shard};

    fn run(shard: &mut Shard, words: &[&[u8]], now_ms: u64, changes: &mut Changes) -> Reply<'static> {
        let words: Vec<_> = words.iter().map(|word| word.to_vec()).collect();
        transcript::execute(shard, &words, now_ms, changes).into_owned()
    }

    #[test]
    fn a_key_is_restored_from_its_dump() {
        let (mut shard, mut changes) = (Shard::new([1, 2, 3, 4]), Changes::default());
        let run =
            |shard: &mut Shard, words: &[&[u8]], changes: &mut Changes| run(shard, words, 1000, changes);
        run(&mut shard, &[b"SETEX", b"a", b"9", b"some value"], &mut changes);
        let Reply::Bulk(payload) = run(&mut shard, &[b"DUMP", b"a"], &mut changes) else {
            panic!("no payload")
        };
        let restored = run(&mut shard, &[b"RESTORE", b"a", b"0", &payload], &mut changes);
        assert_eq!(restored, Reply::Error(Error::BusyKey));
        for (key, ttl, option, deadline_ms) in [
            (&b"b"[..], &b"0"[..], &b"REPLACE"[..], None),
            (b"a", b"0", b"replace", None),
            (b"c", b"500", b"REPLACE", Some(1500)),
            (b"d", b"1500", b"ABSTTL", Some(crate::clock::deadline_by_wall_clock(1500))),
        ] {
            let restored = run(&mut shard, &[b"RESTORE", key, ttl, &payload, option], &mut changes);
            assert_eq!(restored, Reply::Ok);
            assert_eq!(shard.peek(key, 1000), Some((&b"some value"[..], deadline_ms)));
        }
        // A moment that has passed removes the key that is replaced.
        assert_eq!(
            run(&mut shard, &[b"RESTORE", b"a", b"9", &payload, b"ABSTTL", b"REPLACE"], &mut changes),
            Reply::Ok
        );
        assert_eq!(shard.peek(b"a", 1000), None);
    }

    #[test]
    fn options_of_restore_are_looked_at_before_the_key_and_the_payload() {
        transcript::run(
            r#"> RESTORE a 0 x FREQ 256
               OutOfRange("Invalid FREQ value, must be >= 0 and <= 255")
               > RESTORE a 0 x IDLETIME -1
               OutOfRange("Invalid IDLETIME value, must be >= 0")
               > RESTORE a 0 x IDLETIME 1 FREQ 1
               Syntax
               > RESTORE a 0 x FREQ
               Syntax
               > RESTORE a 0 x FREQ x
               NotAnInteger
               > RESTORE a -1 x
               OutOfRange("Invalid TTL value, must be >= 0")
               > RESTORE a x x
               NotAnInteger
               > RESTORE a 0 x FREQ 1 REPLACE
               WrongPayload
               > SET a 1
               OK
               > RESTORE a -1 x
               BusyKey
               > DUMP nope
               nil"#,
        );
    }
}
