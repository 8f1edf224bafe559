//! `DUMP` and `RESTORE`: a value by itself, to be kept elsewhere or brought to another server, also of Redis.

use crate::clock::deadline_by_wall_clock;
use crate::command::row::{Row, on_shard};
use crate::command::spec::{Command, Flags};
use crate::context::Context;
use crate::error::Error;
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
        example: "resp: SET greeting 10\nresp: DUMP greeting\nDUMP nothing", complexity: "O(n), n bytes of the value",
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
        }
        return Ok(Reply::Ok);
    }
    context.put(found, key, &value, deadline_ms);
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
