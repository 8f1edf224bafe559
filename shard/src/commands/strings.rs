//! Commands on values: bytes, and integers written as such.

use super::expiry::{TimeUnit, deadline_of};
use super::{count, integer};
use crate::integer::Digits;
use crate::store::entry::Entry;
use crate::{Changes, Error, Reply, Request, Shard, has_room_for};

/// The most bytes of values in one reply: to name a large value takes a few bytes, to show it that many.
const REPLY_BYTES_MAX: usize = 1 << 30;

/// `GET key`.
#[inline]
pub(crate) fn get<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    _changes: &mut Changes,
) -> Reply<'s> {
    match shard.look_up(request.arg(0), now_ms) {
        Some(found) => shown(shard.entry(found)),
        None => Reply::Nil,
    }
}

/// `STRLEN key`.
pub(crate) fn strlen<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    _changes: &mut Changes,
) -> Reply<'s> {
    let found = shard.look_up(request.arg(0), now_ms);
    Reply::Integer(found.map_or(0, |found| count(shard.entry(found).value().len())))
}

/// `MGET key [key ...]`.
pub(crate) fn mget<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    _changes: &mut Changes,
) -> Reply<'s> {
    // Removing an expired key moves other entries, so all of them go before any place is noted.
    for key in request.keys() {
        shard.look_up(key, now_ms);
    }
    let shard: &'s Shard = shard;
    let (mut values, mut bytes) = (Vec::with_capacity(request.arg_count()), 0);
    for key in request.keys() {
        let entry = shard.peek(key);
        bytes += entry.map_or(0, |entry| entry.value().len());
        if bytes > REPLY_BYTES_MAX {
            return Error::ReplyTooLarge { limit: REPLY_BYTES_MAX }.into();
        }
        values.push(entry.map_or(Reply::Nil, shown));
    }
    Reply::Array(values)
}

#[inline]
fn shown(entry: Entry<'_>) -> Reply<'_> {
    match entry.shared() {
        None => Reply::bytes(entry.value()),
        Some(value) => Reply::Shared(value),
    }
}

/// `SET key value [option ...]`, with the conditions NX and XX, the reply GET, and the times EX, PX, EXAT,
/// PXAT and KEEPTTL.
#[inline]
pub(crate) fn set<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    changes: &mut Changes,
) -> Reply<'s> {
    let (key, value) = (request.arg(0), request.arg(1));
    let options = match SetOptions::parse(request, now_ms) {
        Ok(options) => options,
        Err(error) => return error.into(),
    };
    if value.len() > shard.value_len_max() {
        return too_large(shard);
    }
    let found = if options.get { shard.look_up(key, now_ms) } else { shard.find(key, now_ms) };
    let old = match found {
        Some(found) if options.get => Some(shown(shard.entry(found)).into_owned()),
        None if options.get => Some(Reply::Nil),
        _ => None,
    };
    if found.is_some() && options.only_new || found.is_none() && options.only_present {
        return old.unwrap_or(Reply::Nil);
    }
    let deadline_ms = match found {
        Some(found) if options.keep_deadline => shard.entry(found).deadline_ms(),
        _ => options.deadline_ms,
    };
    shard.put_arg(found, key, (request, 1), deadline_ms, changes);
    old.unwrap_or(Reply::Ok)
}

/// What stands behind the value of SET.
#[derive(Default)]
struct SetOptions {
    only_new: bool,
    only_present: bool,
    get: bool,
    keep_deadline: bool,
    deadline_ms: Option<u64>,
}

impl SetOptions {
    #[inline]
    fn parse(request: &Request<'_>, now_ms: u64) -> Result<Self, Error> {
        if request.arg_count() == 2 { Ok(Self::default()) } else { Self::parse_all(request, now_ms) }
    }

    fn parse_all(request: &Request<'_>, now_ms: u64) -> Result<Self, Error> {
        let mut options = SetOptions::default();
        let mut time: Option<(TimeUnit, &[u8])> = None;
        let mut args = request.args().skip(2);
        while let Some(arg) = args.next() {
            let is = |name: &str| arg.eq_ignore_ascii_case(name.as_bytes());
            let unit = TimeUnit::ALL.into_iter().find(|unit| is(unit.option()));
            if is("NX") && !options.only_present {
                options.only_new = true;
            } else if is("XX") && !options.only_new {
                options.only_present = true;
            } else if is("GET") {
                options.get = true;
            } else if is("KEEPTTL") && time.is_none() {
                options.keep_deadline = true;
            } else if let Some(unit) = unit
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
pub(crate) fn setnx<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    changes: &mut Changes,
) -> Reply<'s> {
    let (key, value) = (request.arg(0), request.arg(1));
    if value.len() > shard.value_len_max() {
        return too_large(shard);
    }
    let found = shard.find(key, now_ms);
    if found.is_none() {
        shard.put_arg(None, key, (request, 1), None, changes);
    }
    Reply::one_or_zero(found.is_none())
}

/// `MSET key value [key value ...]`. The last value of a key that is named twice counts.
pub(crate) fn mset<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    changes: &mut Changes,
) -> Reply<'s> {
    if !request.arg_count().is_multiple_of(2) {
        return Error::WrongArity(request.command).into();
    }
    if request.args().skip(1).step_by(2).any(|value| value.len() > shard.value_len_max()) {
        return too_large(shard);
    }
    for (pair, key) in request.keys().enumerate() {
        let found = shard.find(key, now_ms);
        shard.put_arg(found, key, (request, 2 * pair + 1), None, changes);
    }
    Reply::Ok
}

/// `APPEND key value`. The log gets the new bytes only, and the key keeps its deadline.
pub(crate) fn append<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    changes: &mut Changes,
) -> Reply<'s> {
    let (key, bytes) = (request.arg(0), request.arg(1));
    let found = shard.find(key, now_ms);
    let before = found.map_or(0, |found| shard.entry(found).value().len());
    if before + bytes.len() > shard.value_len_max() {
        return too_large(shard);
    }
    // The grown value, and the old one until it is copied there.
    if !has_room_for(2 * (before + bytes.len())) {
        return Error::OutOfMemory.into();
    }
    match found {
        Some(_) if bytes.is_empty() => {}
        Some(found) => shard.append(found, key, bytes, changes),
        None => shard.put_arg(None, key, (request, 1), None, changes),
    }
    Reply::Integer(count(before + bytes.len()))
}

/// `INCR key`.
pub(crate) fn incr<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    changes: &mut Changes,
) -> Reply<'s> {
    add(shard, request.arg(0), 1, now_ms, changes).into()
}

/// `DECR key`.
pub(crate) fn decr<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    changes: &mut Changes,
) -> Reply<'s> {
    add(shard, request.arg(0), -1, now_ms, changes).into()
}

/// `INCRBY key increment`.
pub(crate) fn incrby<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    changes: &mut Changes,
) -> Reply<'s> {
    let increment = integer(request.arg(1));
    increment.and_then(|increment| add(shard, request.arg(0), increment, now_ms, changes)).into()
}

/// `DECRBY key decrement`.
pub(crate) fn decrby<'s>(
    shard: &'s mut Shard,
    request: &Request<'_>,
    now_ms: u64,
    changes: &mut Changes,
) -> Reply<'s> {
    let increment =
        integer(request.arg(1)).and_then(|decrement| decrement.checked_neg().ok_or(Error::DecrementOverflow));
    increment.and_then(|increment| add(shard, request.arg(0), increment, now_ms, changes)).into()
}

/// Adds to the integer that a value is; a key that is not there counts as 0. The key keeps its deadline.
fn add<'s>(
    shard: &'s mut Shard,
    key: &[u8],
    increment: i64,
    now_ms: u64,
    changes: &mut Changes,
) -> Result<Reply<'s>, Error> {
    let found = shard.find(key, now_ms);
    let (before, deadline_ms) = match found.map(|found| shard.entry(found)) {
        Some(entry) => (integer(entry.value())?, entry.deadline_ms()),
        None => (0, None),
    };
    let sum = before.checked_add(increment).ok_or(Error::Overflow)?;
    shard.put(found, key, Digits::of(sum).as_bytes(), deadline_ms, changes);
    Ok(Reply::Integer(sum))
}

fn too_large<'s>(shard: &Shard) -> Reply<'s> {
    Error::ValueTooLarge { limit: shard.value_len_max() }.into()
}

#[cfg(test)]
mod tests {
    use crate::commands::transcript;

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
    fn counting_keeps_the_deadline() {
        transcript::run(
            r#"> INCR a
               1
               ! put a=1
               > EXPIRE a 9
               1
               > INCRBY a 41
               42
               ! put a=42 until 10000
               > DECRBY a 50
               -8
               > DECR a
               -9
               > GET a
               "-9"
               @ 10000
               > DECR a
               -1
               ! put a=-1"#,
        );
    }

    #[test]
    fn counting_never_wraps() {
        transcript::run(
            r#"> SET a 9223372036854775806
               OK
               > INCR a
               9223372036854775807
               > INCR a
               Overflow
               !
               > INCRBY a 1
               Overflow
               > GET a
               "9223372036854775807"
               > DECRBY a -9223372036854775808
               DecrementOverflow
               > SET a -9223372036854775808
               OK
               > DECR a
               Overflow
               > DECRBY a 1
               Overflow"#,
        );
    }

    #[test]
    fn counting_takes_only_integers() {
        for text in ["", "x", "1 ", " 1", "+1", "01", "1.0", "9223372036854775808"] {
            transcript::run(&format!(
                "> SET a \"{text}\"
                 OK
                 > INCR a
                 NotAnInteger
                 !
                 > INCRBY b \"{text}\"
                 NotAnInteger
                 > DECRBY b \"{text}\"
                 NotAnInteger
                 > EXISTS b
                 0",
            ));
        }
    }
}
