//! Commands on values that are strings.

use super::deadline::{TimeUnit, deadline_of};
use crate::combine::{Combined, Deadline, Effect, Held, Terms};
use crate::command::row::{Row, combining, on_shard};
use crate::command::spec::{Command, Flags, Group, Keys, Merge, Run};
use crate::context::Context;
use crate::error::Error;
use crate::events::EventClasses;
use crate::integer;
use crate::reply::Reply;
use crate::request::Request;
use crate::room::has_room_for;

/// The most bytes of values in one reply: to name a large value takes a few bytes, to show it that many.
const REPLY_BYTES_MAX: usize = 1 << 30;

const READ: Command =
    Command { group: Group::String, flags: Flags::READONLY.with(Flags::FAST), ..Command::OF_KEY };
const WRITE: Command = Command { flags: Flags::WRITE.with(Flags::DENYOOM), ..READ };
const FAST_WRITE: Flags = WRITE.flags.with(Flags::FAST);

#[rustfmt::skip] // A row is a paragraph.
pub(super) const ROWS: &[Row] = &[
    on_shard(append, Command {
        name: "APPEND", args_min: 2, args_max: 2, flags: FAST_WRITE, rest_of_line: Some(1),
        needs: "key and value", usage: "key value",
        summary: "Appends bytes to the value of a key and returns the new length",
        example: "SET greeting hello\nAPPEND greeting \", world\"\nGET greeting",
        complexity: "O(n), n bytes of the new value",
        ..WRITE
    }),
    on_shard(get, Command {
        name: "GET", summary: "Returns the value of a key",
        example: "SET greeting hello\nGET greeting\nGET nothing", complexity: "O(1)",
        ..READ
    }),
    on_shard(delifeq, Command {
        name: "DELIFEQ", args_min: 2, args_max: 2, flags: Flags::WRITE.with(Flags::FAST), rest_of_line: Some(1),
        needs: "key and value", usage: "key value",
        summary: "Removes a key if it has this value",
        example: "SET lock mine\nDELIFEQ lock theirs\nDELIFEQ lock mine", complexity: "O(n), n bytes of the value",
        ..READ
    }),
    on_shard(getdel, Command {
        name: "GETDEL", flags: Flags::WRITE.with(Flags::FAST),
        summary: "Returns the value of a key and removes the key",
        example: "SET greeting hello\nGETDEL greeting\nGETDEL greeting", complexity: "O(1)",
        ..READ
    }),
    on_shard(getex, Command {
        name: "GETEX", args_max: Command::MANY, flags: Flags::WRITE.with(Flags::FAST),
        usage: "key [EX seconds | PX milliseconds | EXAT seconds | PXAT milliseconds | PERSIST]",
        summary: "Returns the value of a key and changes its TTL",
        example: "SET greeting hello\nGETEX greeting EX 60\nTTL greeting", complexity: "O(1)",
        ..READ
    }),
    on_shard(getrange, Command {
        name: "GETRANGE", args_min: 3, args_max: 3, flags: Flags::READONLY, needs: "key, start and end",
        usage: "key start end",
        summary: "Returns a part of the value of a key; negative indexes count from its end",
        example: "SET greeting hello\nGETRANGE greeting 1 3\nGETRANGE greeting -2 -1",
        complexity: "O(n), n bytes returned",
        ..READ
    }),
    on_shard(getset, Command {
        name: "GETSET", args_min: 2, args_max: 2, flags: FAST_WRITE.with(Flags::STORES_ARG), rest_of_line: Some(1),
        needs: "key and value", usage: "key value",
        summary: "Sets the value of a key, takes away its TTL, and returns the value before",
        example: "SET greeting hello\nGETSET greeting hi\nGET greeting", complexity: "O(1)",
        ..WRITE
    }),
    on_shard(mget, Command {
        name: "MGET", args_max: Command::MANY, keys: Keys::ALL, flags: READ.flags.with(Flags::LISTS),
        run: Run::Keys(Merge::ByKey), needs: "at least one key", usage: "key [key ...]",
        summary: "Returns the values of keys, all of the same moment",
        example: "MSET a 1 b 2\nMGET a b nothing", complexity: "O(n), n keys named",
        ..READ
    }),
    on_shard(mset, Command {
        name: "MSET", args_min: 2, args_max: Command::MANY, keys: Keys::PAIRS, flags: WRITE.flags.with(Flags::LISTS),
        run: Run::Keys(Merge::AllOk), needs: "key value pairs", usage: "key value [key value ...]",
        summary: "Sets keys, all at the same moment",
        example: "MSET a 1 b 2\nMGET a b", complexity: "O(n), n keys named",
        ..WRITE
    }),
    combining(msetex, Command {
        name: "MSETEX", args_min: 3, args_max: Command::MANY, keys: Keys::NumberedPairs { at: 0 },
        flags: WRITE.flags.with(Flags::LISTS), needs: "number of keys, and key value pairs",
        usage: "numkeys key value [key value ...] [NX | XX] [EX seconds | PX milliseconds | EXAT seconds | PXAT milliseconds | KEEPTTL]",
        summary: "Sets keys with a TTL, all at the same moment, if all of them exist, or none does",
        example: "MSETEX 2 a 1 b 2 EX 60\nMSETEX 2 b 3 c 4 NX\nMGET a b c\nTTL a", complexity: "O(n), n keys named",
        ..WRITE
    }),
    combining(msetnx, Command {
        name: "MSETNX", args_min: 2, args_max: Command::MANY, keys: Keys::PAIRS, flags: WRITE.flags.with(Flags::LISTS),
        needs: "key value pairs", usage: "key value [key value ...]",
        summary: "Sets keys, all at the same moment, if none of them exists",
        example: "MSETNX a 1 b 2\nMSETNX b 3 c 4\nMGET a b c", complexity: "O(n), n keys named",
        ..WRITE
    }),
    on_shard(psetex, Command {
        name: "PSETEX", args_min: 3, args_max: 3, flags: WRITE.flags.with(Flags::STORES_ARG), rest_of_line: Some(2),
        needs: "key, milliseconds and value", usage: "key milliseconds value",
        summary: "Sets the value of a key with a TTL in milliseconds",
        example: "PSETEX greeting 60000 hello\nTTL greeting", complexity: "O(1)",
        ..WRITE
    }),
    on_shard(set, Command {
        name: "SET", args_min: 2, args_max: Command::MANY, flags: WRITE.flags.with(Flags::STORES_ARG),
        rest_of_line: Some(1), needs: "key and value",
        usage: "key value [NX | XX | IFEQ value] [GET] [EX seconds | PX milliseconds | EXAT seconds | PXAT milliseconds | KEEPTTL]",
        summary: "Sets the value of a key",
        example: "SET greeting hello\nGET greeting\nresp: SET greeting hi XX GET EX 60\nresp: TTL greeting\nresp: SET greeting hallo NX\nresp: SET greeting hey IFEQ hi",
        complexity: "O(1)",
        ..WRITE
    }),
    on_shard(setex, Command {
        name: "SETEX", args_min: 3, args_max: 3, flags: WRITE.flags.with(Flags::STORES_ARG), rest_of_line: Some(2),
        needs: "key, seconds and value", usage: "key seconds value",
        summary: "Sets the value of a key with a TTL in seconds",
        example: "SETEX greeting 60 hello\nTTL greeting", complexity: "O(1)",
        ..WRITE
    }),
    on_shard(setnx, Command {
        name: "SETNX", args_min: 2, args_max: 2, flags: FAST_WRITE.with(Flags::STORES_ARG), rest_of_line: Some(1),
        needs: "key and value", usage: "key value",
        summary: "Sets the value of a key that does not exist yet",
        example: "SETNX greeting hello\nSETNX greeting hallo\nGET greeting", complexity: "O(1)",
        ..WRITE
    }),
    on_shard(setrange, Command {
        name: "SETRANGE", args_min: 3, args_max: 3, rest_of_line: Some(2), needs: "key, offset and value",
        usage: "key offset value",
        summary: "Overwrites a part of the value of a key, which grows where needed, and returns its length",
        example: "SET greeting hello\nSETRANGE greeting 1 a\nGET greeting",
        complexity: "O(n), n bytes of the new value",
        ..WRITE
    }),
    on_shard(strlen, Command {
        name: "STRLEN", summary: "Returns the length of the value of a key in bytes",
        example: "SET greeting hello\nSTRLEN greeting", complexity: "O(1)",
        ..READ
    }),
    on_shard(getrange, Command {
        name: "SUBSTR", args_min: 3, args_max: 3, flags: Flags::READONLY, needs: "key, start and end",
        usage: "key start end",
        summary: "Does what GETRANGE does, by its old name",
        example: "SET greeting hello\nSUBSTR greeting 0 1", complexity: "O(n), n bytes returned",
        ..READ
    }),
];

/// `GET key`.
fn get<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    Ok(match context.look_up_string(request.arg(0))? {
        Some(found) => context.into_reply(found),
        None => Reply::Nil,
    })
}

/// `GETDEL key`.
fn getdel<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let key = request.arg(0);
    let Some(found) = context.look_up_string(key)? else { return Ok(Reply::Nil) };
    let value = context.kept(found)?;
    context.remove(found, key);
    context.notify(EventClasses::GENERIC, "del", key);
    Ok(value)
}

/// `GETSET key value`.
fn getset<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let (key, value) = (request.arg(0), request.arg(1));
    context.check_value_len(value.len())?;
    let found = context.look_up_string(key)?;
    let old = found.map(|found| context.kept(found)).transpose()?;
    context.put_arg(found, key, (request, 1), None);
    context.notify(EventClasses::STRING, "set", key);
    Ok(old.unwrap_or(Reply::Nil))
}

/// `GETEX key [option ...]`, with the times EX, PX, EXAT and PXAT, and PERSIST. A moment that has passed removes the
/// key.
fn getex<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let key = request.arg(0);
    let change = TtlChange::parse(request)?;
    let Some(found) = context.look_up_string(key)? else { return Ok(Reply::Nil) };
    let deadline_ms = match change {
        TtlChange::None => return Ok(context.into_reply(found)),
        TtlChange::Persist if context.deadline_ms(found).is_none() => return Ok(context.into_reply(found)),
        TtlChange::Persist => None,
        TtlChange::Time(unit, amount) => Some(deadline_of(request, unit, amount, context.now_ms())?),
    };
    if deadline_ms.is_some_and(|deadline_ms| context.due_ms(deadline_ms) <= context.now_ms()) {
        let value = context.kept(found)?;
        context.remove(found, key);
        context.notify(EventClasses::GENERIC, "del", key);
        return Ok(value);
    }
    let found = context.set_string_deadline(found, key, deadline_ms)?;
    let event = if deadline_ms.is_some() { "expire" } else { "persist" };
    context.notify(EventClasses::GENERIC, event, key);
    Ok(context.into_reply(found))
}

/// What GETEX does to the TTL.
enum TtlChange<'a> {
    None,
    Persist,
    Time(TimeUnit, &'a [u8]),
}

impl<'a> TtlChange<'a> {
    fn parse(request: &Request<'a>) -> Result<Self, Error> {
        let mut change = TtlChange::None;
        let mut args = request.args().skip(1);
        while let Some(arg) = args.next() {
            change = match (TimeUnit::of_option(arg), change) {
                (Some(unit), TtlChange::None) => TtlChange::Time(unit, args.next().ok_or(Error::Syntax)?),
                (Some(unit), TtlChange::Time(same, _)) if unit == same => {
                    TtlChange::Time(unit, args.next().ok_or(Error::Syntax)?)
                }
                (None, TtlChange::None | TtlChange::Persist) if arg.eq_ignore_ascii_case(b"PERSIST") => {
                    TtlChange::Persist
                }
                _ => return Err(Error::Syntax),
            };
        }
        Ok(change)
    }
}

/// `GETRANGE key start end`, also as `SUBSTR`: the bytes from one index to the other, both included.
fn getrange<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let (start, end) = (request.integer(1)?, request.integer(2)?);
    let found = context.look_up_string(request.arg(0))?;
    let value = found.map_or(&b""[..], |found| context.into_string(found));
    // As Redis has it: what lies before the value counts as its first byte, but not if both do in the wrong order.
    let index = |index: i64| match usize::try_from(index) {
        Ok(index) => index,
        Err(_) => value.len().saturating_sub(usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX)),
    };
    let past_end = index(end).saturating_add(1).min(value.len());
    let is_empty = end < start && end < 0 && start < 0;
    Ok(Reply::bytes(if is_empty { b"" } else { value.get(index(start)..past_end).unwrap_or_default() }))
}

/// `STRLEN key`.
fn strlen<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let found = context.look_up_string(request.arg(0))?;
    Ok(Reply::count(found.map_or(0, |found| context.into_string(found).len())))
}

/// `MGET key [key ...]`.
fn mget<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    // Removing an expired key moves other entries, so all of them go before any place is noted.
    for key in request.keys() {
        context.look_up(key);
    }
    let (mut values, mut bytes) = (Vec::with_capacity(request.arg_count()), 0);
    for value in context.into_strings(request.keys()) {
        bytes += value.as_ref().map_or(0, Reply::value_len);
        if bytes > REPLY_BYTES_MAX {
            return Err(Error::ReplyTooLarge { limit: REPLY_BYTES_MAX });
        }
        values.push(value.unwrap_or(Reply::Nil));
    }
    Ok(Reply::Array(values))
}

/// `SET key value [option ...]`, with the conditions NX, XX and IFEQ, the reply GET, and the times EX, PX, EXAT,
/// PXAT and KEEPTTL.
fn set<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let (key, value) = (request.arg(0), request.arg(1));
    if request.arg_count() == 2 {
        context.check_value_len(value.len())?;
        let found = context.find(key);
        context.put_arg(found, key, (request, 1), None);
        context.notify(EventClasses::STRING, "set", key);
        return Ok(Reply::Ok);
    }
    let options = SetOptions::parse(request, 2, context.now_ms())?;
    context.check_value_len(value.len())?;
    let (found, old) = match options.get {
        false => (context.find(key), None),
        true => {
            let found = context.look_up_string(key)?;
            let old = found.map(|found| context.kept(found)).transpose()?;
            (found.map(Into::into), Some(old.unwrap_or(Reply::Nil)))
        }
    };
    let is_met = match options.condition {
        Condition::None => true,
        Condition::New => found.is_none(),
        Condition::Present => found.is_some(),
        Condition::Equal(value) => has_value(&mut context, key, value)?,
    };
    if !is_met {
        return Ok(old.unwrap_or(Reply::Nil));
    }
    let deadline_ms = match found {
        Some(found) if options.keep_deadline => context.deadline_ms(found),
        _ => options.deadline_ms,
    };
    context.put_arg(found, key, (request, 1), deadline_ms);
    context.notify(EventClasses::STRING, "set", key);
    if options.deadline_ms.is_some() {
        context.notify(EventClasses::GENERIC, "expire", key);
    }
    Ok(old.unwrap_or(Reply::Ok))
}

/// `DELIFEQ key value`, of Valkey 9.
fn delifeq<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let key = request.arg(0);
    let Some(found) = context.find_string(key)? else { return Ok(Reply::Integer(0)) };
    let is_equal = context.string(found) == request.arg(1);
    if is_equal {
        context.remove(found, key);
        context.notify(EventClasses::GENERIC, "del", key);
    }
    Ok(Reply::one_or_zero(is_equal))
}

/// Whether a key has this value.
fn has_value(context: &mut Context<'_, '_>, key: &[u8], value: &[u8]) -> Result<bool, Error> {
    Ok(context.find_string(key)?.is_some_and(|found| context.string(found) == value))
}

/// Under which condition SET sets anything.
#[derive(Clone, Copy, Default)]
enum Condition<'a> {
    #[default]
    None,
    /// NX: the key does not exist.
    New,
    /// XX: the key exists.
    Present,
    /// IFEQ, of Valkey 8.1: the key has this value.
    Equal(&'a [u8]),
}

/// What stands behind the value of SET.
#[derive(Default)]
struct SetOptions<'a> {
    condition: Condition<'a>,
    get: bool,
    keep_deadline: bool,
    deadline_ms: Option<u64>,
}

impl<'a> SetOptions<'a> {
    /// The options from argument `first` on.
    fn parse(request: &Request<'a>, first: usize, now_ms: u64) -> Result<Self, Error> {
        let mut options = SetOptions::default();
        let mut time: Option<(TimeUnit, &[u8])> = None;
        let mut args = request.args().skip(first);
        while let Some(arg) = args.next() {
            let is = |name: &str| arg.eq_ignore_ascii_case(name.as_bytes());
            if is("NX") && matches!(options.condition, Condition::None | Condition::New) {
                options.condition = Condition::New;
            } else if is("XX") && matches!(options.condition, Condition::None | Condition::Present) {
                options.condition = Condition::Present;
            } else if is("IFEQ") && matches!(options.condition, Condition::None) {
                options.condition = Condition::Equal(args.next().ok_or(Error::Syntax)?);
            } else if is("GET") {
                options.get = true;
            } else if is("KEEPTTL") && time.is_none() {
                options.keep_deadline = true;
            } else if let Some(unit) = TimeUnit::of_option(arg)
                && !options.keep_deadline
                && time.is_none_or(|(other, _)| other == unit)
            {
                time = Some((unit, args.next().ok_or(Error::Syntax)?));
            } else {
                return Err(Error::Syntax);
            }
        }
        if let Some((unit, amount)) = time {
            options.deadline_ms = Some(deadline_of(request, unit, amount, now_ms)?);
        }
        Ok(options)
    }
}

/// `SETNX key value`.
fn setnx<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let (key, value) = (request.arg(0), request.arg(1));
    context.check_value_len(value.len())?;
    let found = context.find(key);
    if found.is_none() {
        context.put_arg(found, key, (request, 1), None);
        context.notify(EventClasses::STRING, "set", key);
    }
    Ok(Reply::one_or_zero(found.is_none()))
}

/// `SETEX key seconds value`.
fn setex<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    set_with_ttl(context, request, TimeUnit::Seconds)
}

/// `PSETEX key milliseconds value`.
fn psetex<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    set_with_ttl(context, request, TimeUnit::Milliseconds)
}

fn set_with_ttl<'s>(
    mut context: Context<'s, '_>,
    request: &Request<'_>,
    unit: TimeUnit,
) -> Result<Reply<'s>, Error> {
    let (key, value) = (request.arg(0), request.arg(2));
    let deadline_ms = deadline_of(request, unit, request.arg(1), context.now_ms())?;
    context.check_value_len(value.len())?;
    let found = context.find(key);
    context.put_arg(found, key, (request, 2), Some(deadline_ms));
    context.notify(EventClasses::STRING, "set", key);
    context.notify(EventClasses::GENERIC, "expire", key);
    Ok(Reply::Ok)
}

/// `MSET key value [key value ...]`. The last value of a key that is named twice counts.
fn mset<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    if !request.arg_count().is_multiple_of(2) {
        return Err(Error::WrongArity(request.command));
    }
    request.args().skip(1).step_by(2).try_for_each(|value| context.check_value_len(value.len()))?;
    for (pair, key) in request.keys().enumerate() {
        let found = context.find(key);
        context.put_arg(found, key, (request, 2 * pair + 1), None);
        context.notify(EventClasses::STRING, "set", key);
    }
    Ok(Reply::Ok)
}

/// `MSETEX numkeys key value [key value ...] [option ...]`, of Valkey 9.1: with the options of SET but GET and IFEQ.
fn msetex(request: &Request<'_>, held: &[Option<Held<'_>>], terms: &Terms) -> Result<Combined, Error> {
    let count = integer::parse(request.arg(0)).filter(|count| (1..=i64::from(i32::MAX)).contains(count));
    if count.is_none() {
        return Err(Error::OutOfRange("invalid numkeys value or out of range"));
    }
    if held.is_empty() {
        return Err(Error::Syntax);
    }
    let options = SetOptions::parse(request, 1 + 2 * held.len(), terms.now_ms)?;
    if options.get || matches!(options.condition, Condition::Equal(_)) {
        return Err(Error::Syntax);
    }
    (0..held.len()).try_for_each(|key| terms.check_value_len(request.arg(2 * key + 2).len()))?;
    let is_met = match options.condition {
        Condition::New => held.iter().all(Option::is_none),
        Condition::Present => held.iter().all(Option::is_some),
        Condition::None | Condition::Equal(_) => true,
    };
    if !is_met {
        return Ok(Reply::Integer(0).into());
    }
    let deadline = if options.keep_deadline { Deadline::Kept } else { Deadline::At(options.deadline_ms) };
    let is_due = options.deadline_ms.is_some_and(|deadline_ms| terms.is_due(deadline_ms));
    let effects = (0..held.len()).map(|key| match is_due {
        true => Effect::remove(key),
        false => Effect::put(key, request.arg_bytes(2 * key + 2), deadline),
    });
    Ok(Combined { reply: Reply::Integer(1), effects: effects.collect() })
}

/// `MSETNX key value [key value ...]`. The last value of a key that is named twice counts.
fn msetnx(request: &Request<'_>, held: &[Option<Held<'_>>], terms: &Terms) -> Result<Combined, Error> {
    if !request.arg_count().is_multiple_of(2) {
        return Err(Error::WrongArity(request.command));
    }
    request.args().skip(1).step_by(2).try_for_each(|value| terms.check_value_len(value.len()))?;
    if held.iter().any(Option::is_some) {
        return Ok(Reply::Integer(0).into());
    }
    let effects =
        (0..held.len()).map(|key| Effect::put(key, request.arg_bytes(2 * key + 1), Deadline::At(None)));
    Ok(Combined { reply: Reply::Integer(1), effects: effects.collect() })
}

/// `SETRANGE key offset value`. The log gets the new bytes only, and the key keeps its deadline.
fn setrange<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let (key, offset, bytes) = (request.arg(0), request.integer(1)?, request.arg(2));
    let offset = usize::try_from(offset).map_err(|_| Error::OutOfRange("offset is out of range"))?;
    let found = context.find_string(key)?;
    let before = found.map_or(0, |found| context.string(found).len());
    if bytes.is_empty() {
        return Ok(Reply::count(before));
    }
    let end = offset.saturating_add(bytes.len());
    context.check_value_len(end)?;
    let len = before.max(end);
    // The new value, and the old one until it is copied there; or only the bytes in the log.
    let is_copied = end > before || found.is_some_and(|found| context.is_shared(found));
    if !has_room_for(if is_copied { 2 * len } else { bytes.len() }) {
        return Err(Error::OutOfMemory);
    }
    match found {
        None if offset == 0 => context.put_arg(found, key, (request, 2), None),
        _ => context.splice(found, key, offset, bytes),
    }
    context.notify(EventClasses::STRING, "setrange", key);
    Ok(Reply::count(len))
}

/// `APPEND key value`. The log gets the new bytes only, and the key keeps its deadline.
fn append<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let (key, bytes) = (request.arg(0), request.arg(1));
    let found = context.find_string(key)?;
    let before = found.map_or(0, |found| context.string(found).len());
    context.check_value_len(before + bytes.len())?;
    // The grown value, and the old one until it is copied there.
    if !has_room_for(2 * (before + bytes.len())) {
        return Err(Error::OutOfMemory);
    }
    match found {
        Some(_) if bytes.is_empty() => {}
        Some(_) => context.splice(found, key, before, bytes),
        None => context.put_arg(found, key, (request, 1), None),
    }
    context.notify(EventClasses::STRING, "append", key);
    Ok(Reply::count(before + bytes.len()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::clock::deadline_by_wall_clock;
    use crate::commands::transcript;
    use crate::request::SHARED_LEN_MIN;
    use crate::{Changes, Reply, Request, Shard, Span, command};

    #[test]
    fn get_returns_the_value_and_nil_without_one() {
        transcript::run(
            r#"> GET a
               nil
               > SET a "x y"
               OK
               ! put a=x y
               > GET a
               "x y"
               > get a
               "x y"
               > SET "" ""
               OK
               > GET ""
               ""
               "#,
        );
    }

    #[test]
    fn get_finds_no_expired_key() {
        transcript::run(
            r#"> SETEX a 1 x
               OK
               @ 1999
               > GET a
               "x"
               @ 2000
               > GET a
               nil
               !
               @ 1000
               > GET a
               nil"#,
        );
    }

    #[test]
    fn getdel_answers_what_it_removes() {
        transcript::run(
            r#"> GETDEL a
               nil
               !
               > SETEX a 1 x
               OK
               > GETDEL a
               "x"
               ! remove a
               > SETEX a 1 x
               OK
               @ 2000
               > GETDEL a
               nil
               !"#,
        );
    }

    #[test]
    fn getex_changes_the_deadline_of_what_it_answers() {
        transcript::run(
            r#"> GETEX a
               nil
               > GETEX a EX 0
               nil
               > SET a x
               OK
               > GETEX a
               "x"
               !
               > GETEX a persist
               "x"
               !
               > GETEX a ex 10
               "x"
               ! deadline a until 11000
               > GETEX a
               "x"
               !
               > PTTL a
               10000
               > GETEX a PX 5
               "x"
               ! deadline a until 1005
               > GETEX a PXAT 9000
               "x"
               ! put a=x until 9000 by the wall clock
               > PTTL a
               8000
               > GETEX a PERSIST
               "x"
               ! deadline a
               > GETEX a EXAT 1
               "x"
               ! remove a
               > EXISTS a
               0"#,
        );
    }

    /// A shard in which `a` is a value that shares the memory of its request.
    fn shard_with_shared_value() -> (Shard, Vec<u8>) {
        let value = vec![b'x'; SHARED_LEN_MIN];
        let memory = Bytes::from([b"a", &value[..]].concat());
        let spans = [Span { start: 0, len: 1 }, Span { start: 1, len: value.len() as u32 }];
        let mut shard = Shard::new([1, 2, 3, 4]);
        let set = Request::in_memory(command::find(b"SET").unwrap(), &memory, &spans);
        assert_eq!(shard.execute(&set, 1000, &mut Changes::default()), Reply::Ok);
        (shard, value)
    }

    fn execute<'s>(shard: &'s mut Shard, request: &str, changes: &mut Changes) -> Reply<'s> {
        let words: Vec<_> = request.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        transcript::execute(shard, &words, 1000, changes)
    }

    #[test]
    fn a_deadline_by_the_wall_clock_copies_no_shared_value_to_the_log() {
        let (mut shard, value) = shard_with_shared_value();
        for (request, deadline_ms) in [("GETEX a EXAT 9", 9000), ("GETEX a PXAT 9001", 9001)] {
            let mut changes = Changes::default();
            let reply = execute(&mut shard, request, &mut changes);
            let Reply::Shared(shown) = reply else { panic!("{reply:?}") };
            assert_eq!(**shown, value);
            let [(offset, logged)] = changes.shared() else { panic!("{request} logs one shared value") };
            assert_eq!((*offset, logged.as_ptr()), (Changes::put_head_bytes(b"a", 0), shown.as_ptr()));
            let deadline_ms = Some(deadline_by_wall_clock(deadline_ms));
            assert_eq!(transcript::content(&shard, 1000), [(b"a".to_vec(), value.clone(), deadline_ms)]);
        }
    }

    #[test]
    fn a_deadline_by_the_wall_clock_logs_a_spliced_value_as_it_is_now() {
        let (mut shard, mut value) = shard_with_shared_value();
        execute(&mut shard, "SETRANGE a 1 yz", &mut Changes::default());
        value[1..3].copy_from_slice(b"yz");
        let mut changes = Changes::default();
        let reply = execute(&mut shard, "GETEX a EXAT 9", &mut changes);
        assert!(matches!(&reply, Reply::Shared(shown) if ***shown == value), "{reply:?}");
        // However many deadlines it gets, the memory holds it once.
        assert_eq!(execute(&mut shard, "EXPIREAT a 10", &mut changes), Reply::Integer(1));
        assert_eq!(changes.count(), 2);
        let [(_, first), (_, second)] = changes.shared() else { panic!("{:?}", changes.shared().len()) };
        assert_eq!((first, first.as_ptr()), (second, second.as_ptr()));
        assert_eq!(first, &value);
        let deadline_ms = Some(deadline_by_wall_clock(10_000));
        assert_eq!(transcript::content(&shard, 1000), [(b"a".to_vec(), value, deadline_ms)]);
    }

    #[test]
    fn a_shared_value_that_is_answered_and_then_gone_is_not_copied() {
        for request in ["GETDEL a", "GETEX a EXAT 1", "SET a 1 GET"] {
            let (mut shard, value) = shard_with_shared_value();
            let Reply::Shared(before) = execute(&mut shard, "GET a", &mut Changes::default()).into_owned()
            else {
                panic!("it is shared");
            };
            let reply = execute(&mut shard, request, &mut Changes::default());
            let Reply::Shared(shown) = reply else { panic!("{request}: {reply:?}") };
            assert_eq!((shown.as_ptr(), &shown[..]), (before.as_ptr(), &value[..]));
        }
    }

    #[test]
    fn getex_refuses_options_as_redis_does() {
        for (options, refusal) in [
            ("EX", "Syntax"),
            ("EX 1 PX 1", "Syntax"),
            ("EX 1 PERSIST", "Syntax"),
            ("PERSIST EX 1", "Syntax"),
            ("KEEPTTL", "Syntax"),
            ("NX", "Syntax"),
            ("EX x", "ExpireNotAnInteger"),
            ("EX 0", "InvalidExpire GETEX"),
            ("PXAT -1", "InvalidExpire GETEX"),
            ("EX 9223372036854775", "InvalidExpire GETEX"),
        ] {
            transcript::run(&format!("> SET a 1\nOK\n> GETEX a {options}\n{refusal}\n!\n> PTTL a\n-1"));
        }
        transcript::run("> SET a 1\nOK\n> GETEX a EX 1 EX 2\n\"1\"\n! deadline a until 3000");
    }

    #[test]
    fn getrange_shows_a_part() {
        let transcript = "> SET a Hello\nOK\n".to_owned();
        let parts = [
            ("0 -1", "Hello"),
            ("1 3", "ell"),
            ("-3 -2", "ll"),
            ("-9 0", "H"),
            ("3 99", "lo"),
            ("4 3", ""),
            ("-1 -2", ""),
            ("-8 -9", ""),
            ("-9 -8", "H"),
            ("5 9", ""),
            ("9223372036854775807 9223372036854775807", ""),
            ("-9223372036854775808 9223372036854775807", "Hello"),
        ];
        let asked = parts.map(|(range, part)| format!("> GETRANGE a {range}\n{part:?}\n!\n"));
        transcript::run(&(transcript + &asked.concat()));
        transcript::run(
            "> GETRANGE nope 0 -1
             \"\"
             > EXISTS nope
             0
             > GETRANGE nope x 1
             NotAnInteger
             > GETRANGE nope 1 1.0
             NotAnInteger",
        );
    }

    #[test]
    fn strlen_creates_nothing() {
        transcript::run(
            "> STRLEN nope
             0
             > SET a abc
             OK
             > STRLEN a
             3
             > DBSIZE
             1",
        );
    }

    #[test]
    fn mget_answers_in_order_of_its_keys() {
        transcript::run(
            r#"> MSET a 1 b 2
               OK
               > SETEX c 1 3
               OK
               > MGET b nope a b c
               "2" nil "1" "2" "3"
               @ 2000
               > MGET c a c b
               nil "1" nil "2"
               > DBSIZE
               2"#,
        );
    }

    #[test]
    fn mset_needs_pairs_and_the_last_of_equal_keys_counts() {
        transcript::run(
            r#"> MSET a 1 a 2
               OK
               ! put a=1, put a=2
               > GET a
               "2"
               > SETEX a 9 x
               OK
               > MSET a 3
               OK
               > TTL a
               -1"#,
        );
    }

    #[test]
    fn set_replaces_value_and_deadline() {
        transcript::run(
            r#"> SET a 1 EX 10
               OK
               ! put a=1 until 11000
               > SET a 2 PX 7
               OK
               ! put a=2 until 1007
               > SET a 2 KEEPTTL
               OK
               ! put a=2 until 1007
               > SET a 3 EXAT 20
               OK
               ! put a=3 until 20000 by the wall clock
               > SET a 4 pxat 5000
               OK
               ! put a=4 until 5000 by the wall clock
               > SET a 5
               OK
               ! put a=5
               > TTL a
               -1
               > SET b x KEEPTTL
               OK
               ! put b=x"#,
        );
    }

    #[test]
    fn set_on_condition_says_nil_when_it_does_nothing() {
        transcript::run(
            r#"> SET a 1 XX
               nil
               !
               > SET a 1 NX
               OK
               > SET a 2 NX
               nil
               !
               > SET a 2 XX EX 5
               OK
               ! put a=2 until 6000
               @ 6000
               > SET a 3 XX
               nil
               > SET a 3 nx
               OK"#,
        );
    }

    #[test]
    fn set_with_get_answers_the_old_value() {
        transcript::run(
            r#"> SET a 1 GET
               nil
               ! put a=1
               > SET a 2 GET
               "1"
               > SET a 3 NX GET
               "2"
               !
               > SET b 3 XX GET
               nil
               !
               > SET b 3 NX GET
               nil
               ! put b=3"#,
        );
    }

    #[test]
    fn set_in_the_past_leaves_no_key() {
        transcript::run(
            r#"> SET a 1
               OK
               > SET a 2 PXAT 1000
               OK
               > GET a
               nil"#,
        );
    }

    #[test]
    fn set_refuses_options_as_redis_does() {
        for (options, refusal) in [
            ("EX", "Syntax"),
            ("NX XX", "Syntax"),
            ("EX 1 PX 1", "Syntax"),
            ("EX 1 KEEPTTL", "Syntax"),
            ("KEEPTTL EX 1", "Syntax"),
            ("EX 0 FOO", "Syntax"),
            ("PERSIST", "Syntax"),
            ("EX x", "ExpireNotAnInteger"),
            ("EX 1.5", "ExpireNotAnInteger"),
            ("EX 0", "InvalidExpire SET"),
            ("PX -1", "InvalidExpire SET"),
            ("EXAT -1", "InvalidExpire SET"),
            ("EX 9223372036854775", "InvalidExpire SET"),
            ("EX 9223372036854775807", "InvalidExpire SET"),
            ("PX 9223372036854775807", "InvalidExpire SET"),
            ("EXAT 9223372036854775807", "InvalidExpire SET"),
        ] {
            transcript::run(&format!("> SET a 1\nOK\n> SET a 2 {options}\n{refusal}\n!\n> GET a\n\"1\""));
        }
        transcript::run("> SET a 1 EX 1 EX 2\nOK\n! put a=1 until 3000\n> SET a 1 NX NX\nnil");
    }

    #[test]
    fn setex_sets_value_and_deadline_at_once() {
        transcript::run(
            r#"> SETEX a 10 x
               OK
               ! put a=x until 11000
               > SETEX a 0 y
               InvalidExpire SETEX
               !
               > SETEX a -1 y
               InvalidExpire SETEX
               > SETEX a ten y
               ExpireNotAnInteger
               > SETEX a 9223372036854775807 y
               InvalidExpire SETEX
               > GET a
               "x"
               "#,
        );
    }

    #[test]
    fn psetex_takes_milliseconds() {
        transcript::run(
            "> PSETEX a 1500 x
             OK
             ! put a=x until 2500
             > PTTL a
             1500
             > PSETEX a 0 y
             InvalidExpire PSETEX
             > PSETEX a 9223372036854775807 y
             InvalidExpire PSETEX
             > PSETEX a ten y
             ExpireNotAnInteger
             !
             @ 2500
             > GET a
             nil",
        );
    }

    #[test]
    fn setnx_never_overwrites() {
        transcript::run(
            r#"> SETNX a 1
               1
               > SETNX a 2
               0
               !
               > GET a
               "1"
               "#,
        );
    }

    #[test]
    fn append_logs_only_the_new_bytes() {
        transcript::run(
            r#"> APPEND a ab
               2
               ! put a=ab
               > EXPIRE a 1
               1
               > APPEND a cd
               4
               ! splice a@2=cd
               > APPEND a ""
               4
               !
               > GET a
               "abcd"
               > PTTL a
               1000
               @ 2000
               > APPEND a x
               1
               ! put a=x
               > TTL a
               -1
               > APPEND b ""
               0
               ! put b="#,
        );
    }

    #[test]
    fn setrange_logs_only_the_new_bytes() {
        transcript::run(
            "> SETRANGE a 0 \"\"
             0
             !
             > SETRANGE a 0 Hello
             5
             ! put a=Hello
             > EXPIRE a 1
             1
             > SETRANGE a 1 ipp
             5
             ! splice a@1=ipp
             > SETRANGE a 9 \"\"
             5
             !
             > GET a
             \"Hippo\"
             > SETRANGE a 7 x
             8
             ! splice a@7=x
             > GET a
             \"Hippo\\0\\0x\"
             > PTTL a
             1000
             > SETRANGE b 2 x
             3
             ! put b=, splice b@2=x
             > GET b
             \"\\0\\0x\"
             > SETRANGE c -1 x
             OutOfRange(\"offset is out of range\")
             > SETRANGE c 1.0 x
             NotAnInteger
             > SETRANGE c 65536 x
             ValueTooLarge { limit: 65536 }
             > SETRANGE c 9223372036854775807 x
             ValueTooLarge { limit: 65536 }
             > SETRANGE c 9223372036854775807 \"\"
             0
             > SETRANGE c 65535 x
             65536
             > DEL c
             1",
        );
    }

    #[test]
    fn a_value_never_grows_past_its_limit() {
        let half = "x".repeat(1 << 15);
        let refused = "ValueTooLarge { limit: 65536 }";
        transcript::run(&format!(
            "> SET a {half}
             OK
             > APPEND a {half}
             65536
             > APPEND a x
             {refused}
             !
             > SET a {half}{half}x
             {refused}
             > SETNX b {half}{half}x
             {refused}
             > SETEX b 1 {half}{half}x
             {refused}
             > MSET b 1 c {half}{half}x
             {refused}
             > DBSIZE
             1
             > STRLEN a
             65536",
        ));
    }

    #[test]
    fn a_value_is_replaced_or_removed_if_it_is_the_one_that_is_named() {
        transcript::run(
            r#"> SET a 2 IFEQ 1
               nil
               !
               > SET a 1
               OK
               > SET a 2 IFEQ 3 GET
               "1"
               !
               > SET a 2 ifeq 1 EX 10
               OK
               ! put a=2 until 11000
               > SET a 3 GET IFEQ 2
               "2"
               > SET a 3 IFEQ 2 NX
               Syntax
               > SET a 3 XX IFEQ 3
               Syntax
               > SET a 3 IFEQ
               Syntax
               > SET a 3 IFEQ 3 IFEQ 3
               Syntax
               !
               > DELIFEQ a 2
               0
               !
               > DELIFEQ a 3
               1
               ! remove a
               > DELIFEQ a 3
               0"#,
        );
    }

    #[test]
    fn getset_takes_the_ttl_away() {
        transcript::run(
            r#"> GETSET a 1
               nil
               ! put a=1
               > EXPIRE a 10
               1
               > GETSET a 2
               "1"
               ! put a=2
               > TTL a
               -1
               > SUBSTR a 0 -1
               "2""#,
        );
    }

    #[test]
    fn msetnx_sets_all_keys_or_none() {
        transcript::run(
            r#"> MSETNX a 1 b 2 a 3
               1
               ! put a=1, put b=2, put a=3
               > MSETNX c 1 b 2
               0
               !
               > EXISTS c
               0
               > MGET a b
               "3" "2""#,
        );
    }

    #[test]
    fn msetex_sets_keys_with_one_deadline() {
        transcript::run(
            r#"> MSETEX 2 a 1 b 2 EX 1
               1
               ! put a=1 until 2000, put b=2 until 2000
               > MSETEX 2 b 3 c 4 NX
               0
               !
               > MSETEX 2 b 3 c 4 XX
               0
               !
               > MSETEX 2 a 3 c 4 KEEPTTL
               1
               > PTTL a
               1000
               > MSETEX 1 a 5 PXAT 1 XX
               1
               ! remove a
               > MSETEX 2 nx 1 ex 2
               1
               ! put nx=1, put ex=2
               > MSETEX 2 a 1
               Syntax
               > MSETEX 1 a 1 GET
               Syntax
               > MSETEX 1 a 1 IFEQ 1
               Syntax
               > MSETEX 0 a 1
               OutOfRange("invalid numkeys value or out of range")
               > MSETEX 2147483648 a 1
               OutOfRange("invalid numkeys value or out of range")
               > MSETEX 1 a 1 EX 0
               InvalidExpire MSETEX"#,
        );
    }
}
