//! Commands on deadlines.

use super::deadline::{TimeUnit, time_argument};
use crate::command::row::{Row, on_shard};
use crate::command::spec::{Command, Flags};
use crate::context::Context;
use crate::error::Error;
use crate::events::EventClasses;
use crate::reply::Reply;
use crate::request::Request;

const READ: Flags = Flags::READONLY.with(Flags::FAST);
const WRITE: Flags = Flags::WRITE.with(Flags::FAST);

#[rustfmt::skip] // A row is a paragraph.
pub(super) const ROWS: &[Row] = &[
    on_shard(expire, Command {
        name: "EXPIRE", args_min: 2, args_max: Command::MANY, flags: WRITE, positive_arg: Some(1),
        needs: "key and seconds", usage: "key seconds [NX | XX | GT | LT]",
        summary: "Sets the TTL of a key in seconds",
        example: "SET greeting hello\nEXPIRE greeting 60\nEXPIRE greeting 30 GT\nTTL greeting",
        complexity: "O(1)",
        ..Command::OF_KEY
    }),
    on_shard(expireat, Command {
        name: "EXPIREAT", args_min: 2, args_max: Command::MANY, flags: WRITE, positive_arg: Some(1),
        needs: "key and Unix time in seconds", usage: "key unix-seconds [NX | XX | GT | LT]",
        summary: "Sets the deadline of a key, in seconds since the Unix epoch",
        example: "SET greeting hello\nEXPIREAT greeting 4102444800\nEXPIRETIME greeting", complexity: "O(1)",
        ..Command::OF_KEY
    }),
    on_shard(expiretime, Command {
        name: "EXPIRETIME", flags: READ,
        summary: "Returns the deadline of a key, in seconds since the Unix epoch",
        example: "SET greeting hello\nEXPIRETIME greeting\nEXPIREAT greeting 4102444800\nEXPIRETIME greeting", complexity: "O(1)",
        ..Command::OF_KEY
    }),
    on_shard(persist, Command {
        name: "PERSIST", flags: WRITE,
        summary: "Removes the TTL of a key",
        example: "SETEX greeting 60 hello\nPERSIST greeting\nTTL greeting", complexity: "O(1)",
        ..Command::OF_KEY
    }),
    on_shard(pexpire, Command {
        name: "PEXPIRE", args_min: 2, args_max: Command::MANY, flags: WRITE, positive_arg: Some(1),
        needs: "key and milliseconds", usage: "key milliseconds [NX | XX | GT | LT]",
        summary: "Sets the TTL of a key in milliseconds",
        example: "SET greeting hello\nPEXPIRE greeting 60000\nTTL greeting", complexity: "O(1)",
        ..Command::OF_KEY
    }),
    on_shard(pexpireat, Command {
        name: "PEXPIREAT", args_min: 2, args_max: Command::MANY, flags: WRITE, positive_arg: Some(1),
        needs: "key and Unix time in milliseconds", usage: "key unix-milliseconds [NX | XX | GT | LT]",
        summary: "Sets the deadline of a key, in milliseconds since the Unix epoch",
        example: "SET greeting hello\nPEXPIREAT greeting 4102444800000\nPEXPIRETIME greeting", complexity: "O(1)",
        ..Command::OF_KEY
    }),
    on_shard(pexpiretime, Command {
        name: "PEXPIRETIME", flags: READ,
        summary: "Returns the deadline of a key, in milliseconds since the Unix epoch",
        example: "SET greeting hello\nPEXPIRETIME greeting\nPEXPIREAT greeting 4102444800000\nPEXPIRETIME greeting", complexity: "O(1)",
        ..Command::OF_KEY
    }),
    on_shard(pttl, Command {
        name: "PTTL", flags: READ,
        summary: "Returns the TTL of a key in milliseconds",
        example: "SETEX greeting 60 hello\nPTTL greeting\nPTTL nothing", complexity: "O(1)",
        ..Command::OF_KEY
    }),
    on_shard(ttl, Command {
        name: "TTL", flags: READ,
        summary: "Returns the TTL of a key in seconds",
        example: "SETEX greeting 60 hello\nTTL greeting\nTTL nothing", complexity: "O(1)",
        ..Command::OF_KEY
    }),
];

/// `EXPIRE key seconds [NX | XX | GT | LT]`. A deadline that has passed removes the key.
fn expire<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    set_deadline(context, request, TimeUnit::Seconds)
}

/// `PEXPIRE key milliseconds [NX | XX | GT | LT]`.
fn pexpire<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    set_deadline(context, request, TimeUnit::Milliseconds)
}

/// `EXPIREAT key unix-seconds [NX | XX | GT | LT]`.
fn expireat<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    set_deadline(context, request, TimeUnit::UnixSeconds)
}

/// `PEXPIREAT key unix-milliseconds [NX | XX | GT | LT]`.
fn pexpireat<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    set_deadline(context, request, TimeUnit::UnixMilliseconds)
}

fn set_deadline<'s>(
    mut context: Context<'s, '_>,
    request: &Request<'_>,
    unit: TimeUnit,
) -> Result<Reply<'s>, Error> {
    let (key, now_ms) = (request.arg(0), context.now_ms());
    let condition = ExpireCondition::parse(request.args().skip(2))?;
    let amount = time_argument(request.arg(1))?;
    let deadline_ms = unit.deadline_ms(amount, now_ms).ok_or(Error::InvalidExpire(request.command))?;
    let Some(found) = context.find(key) else { return Ok(Reply::Integer(0)) };
    let deadline_ms = unit.by_its_clock(u64::try_from(deadline_ms).unwrap_or(0));
    let due_ms = context.due_ms(deadline_ms);
    let before_ms = context.deadline_ms(found).map(|before_ms| context.due_ms(before_ms));
    if !condition.holds(before_ms, due_ms) {
        return Ok(Reply::Integer(0));
    }
    if due_ms <= now_ms {
        context.remove(found, key);
        context.notify(EventClasses::GENERIC, "del", key);
    } else {
        context.set_deadline(found, key, Some(deadline_ms))?;
        context.notify(EventClasses::GENERIC, "expire", key);
    }
    Ok(Reply::Integer(1))
}

/// On what deadline, before and after, EXPIRE insists.
#[derive(Default)]
struct ExpireCondition {
    none_before: bool,
    some_before: bool,
    later: bool,
    earlier: bool,
}

impl ExpireCondition {
    fn parse<'a>(options: impl Iterator<Item = &'a [u8]>) -> Result<Self, Error> {
        let mut condition = ExpireCondition::default();
        for option in options {
            let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            if is("NX") {
                condition.none_before = true;
            } else if is("XX") {
                condition.some_before = true;
            } else if is("GT") {
                condition.later = true;
            } else if is("LT") {
                condition.earlier = true;
            } else {
                return Err(Error::UnsupportedOption(option.into()));
            }
        }
        if condition.none_before && (condition.some_before || condition.later || condition.earlier) {
            return Err(Error::IncompatibleOptions("NX and XX, GT or LT"));
        }
        if condition.later && condition.earlier {
            return Err(Error::IncompatibleOptions("GT and LT"));
        }
        Ok(condition)
    }

    /// A key without a deadline counts as one whose deadline never comes.
    fn holds(&self, before: Option<u64>, after: u64) -> bool {
        let fits_later = !self.later || before.is_some_and(|before| after > before);
        let fits_earlier = !self.earlier || before.is_none_or(|before| after < before);
        let fits_presence = match before {
            Some(_) => !self.none_before,
            None => !self.some_before,
        };
        fits_presence && fits_later && fits_earlier
    }
}

/// `PERSIST key`.
fn persist<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let key = request.arg(0);
    match context.find(key) {
        Some(found) if context.deadline_ms(found).is_some() => {
            context.set_deadline(found, key, None)?;
            context.notify(EventClasses::GENERIC, "persist", key);
            Ok(Reply::Integer(1))
        }
        _ => Ok(Reply::Integer(0)),
    }
}

/// `TTL key`: to the nearest second.
fn ttl<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    Ok(Reply::Integer(match ttl_ms(context, request.arg(0)) {
        ms @ ..0 => ms,
        ms => ms.saturating_add(500) / 1000,
    }))
}

/// `PTTL key`.
fn pttl<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    Ok(Reply::Integer(ttl_ms(context, request.arg(0))))
}

/// `EXPIRETIME key`: to the nearest second.
fn expiretime<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    Ok(Reply::Integer(match moment_ms(context, request.arg(0)) {
        ms @ ..0 => ms,
        ms => ms.saturating_add(500) / 1000,
    }))
}

/// `PEXPIRETIME key`.
fn pexpiretime<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    Ok(Reply::Integer(moment_ms(context, request.arg(0))))
}

/// The moment of the deadline in milliseconds since the Unix epoch, as the wall clock goes now; -1 if there is none, -2
/// if there is no key.
fn moment_ms(mut context: Context<'_, '_>, key: &[u8]) -> i64 {
    let Some(found) = context.look_up(key) else { return -2 };
    match context.deadline_ms(found) {
        Some(deadline_ms) => i64::try_from(context.unix_ms(deadline_ms)).unwrap_or(i64::MAX),
        None => -1,
    }
}

/// Milliseconds until the deadline; -1 if there is none, -2 if there is no key.
fn ttl_ms(mut context: Context<'_, '_>, key: &[u8]) -> i64 {
    let Some(found) = context.look_up(key) else { return -2 };
    match context.deadline_ms(found) {
        Some(deadline_ms) => {
            i64::try_from(context.due_ms(deadline_ms) - context.now_ms()).unwrap_or(i64::MAX)
        }
        None => -1,
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::transcript;

    #[test]
    fn expire_sets_a_deadline_on_a_key_that_exists() {
        transcript::run(
            "> EXPIRE a 10
             0
             !
             > SET a x
             OK
             > EXPIRE a 10
             1
             ! deadline a until 11000
             > TTL a
             10
             @ 11000
             > EXPIRE a 10
             0",
        );
    }

    #[test]
    fn expire_in_the_past_removes_the_key() {
        for seconds in ["0", "-1", "-9223372036854775"] {
            transcript::run(&format!("> SET a x\nOK\n> EXPIRE a {seconds}\n1\n! remove a\n> EXISTS a\n0"));
        }
    }

    #[test]
    fn expire_holds_to_its_conditions() {
        transcript::run(
            "> SET a x
             OK
             > EXPIRE a 10 XX
             0
             > EXPIRE a 10 GT
             0
             > EXPIRE a 10 nx
             1
             > EXPIRE a 20 NX
             0
             > EXPIRE a 10 GT
             0
             > EXPIRE a 11 GT
             1
             > EXPIRE a 11 LT
             0
             > EXPIRE a 5 XX LT
             1
             > TTL a
             5
             > EXPIRE a -1 GT
             0
             > EXPIRE a -1 LT
             1
             ! remove a
             > SET a x
             OK
             > EXPIRE a 100 LT
             1
             ! deadline a until 101000",
        );
    }

    #[test]
    fn expire_refuses_what_redis_refuses() {
        for (arguments, refusal) in [
            ("x", "ExpireNotAnInteger"),
            ("9223372036854775807", "InvalidExpire EXPIRE"),
            ("9223372036854775", "InvalidExpire EXPIRE"),
            ("-9223372036854775807", "InvalidExpire EXPIRE"),
            ("x NX XX", "IncompatibleOptions(\"NX and XX, GT or LT\")"),
            ("1 NX LT", "IncompatibleOptions(\"NX and XX, GT or LT\")"),
            ("1 LT GT", "IncompatibleOptions(\"GT and LT\")"),
            ("x AB", "UnsupportedOption([65, 66])"),
        ] {
            transcript::run(&format!("> SET a 1\nOK\n> EXPIRE a {arguments}\n{refusal}\n!\n> TTL a\n-1"));
        }
    }

    #[test]
    fn every_unit_of_time_sets_a_deadline() {
        transcript::run(
            "> SET a x
             OK
             > PEXPIRE a 1500
             1
             ! deadline a until 2500
             > PEXPIRE a 1400 GT
             0
             !
             > PTTL a
             1500
             > EXPIREAT a 9 GT
             1
             ! put a=x until 9000 by the wall clock
             > PEXPIREAT a 8999 LT
             1
             ! put a=x until 8999 by the wall clock
             > PEXPIREAT a 9000 NX
             0
             > PEXPIREAT a ten
             ExpireNotAnInteger
             > EXPIREAT a 9223372036854776
             InvalidExpire EXPIREAT
             > PEXPIREAT a 1000
             1
             ! remove a
             > SET a x
             OK
             > EXPIREAT a -5
             1
             ! remove a",
        );
    }

    #[test]
    fn the_moment_of_a_deadline_is_told_by_the_wall_clock() {
        transcript::run(
            "> EXPIRETIME a
             -2
             > SET a x
             OK
             > PEXPIRETIME a
             -1
             > PEXPIREAT a 5499
             1
             > EXPIRETIME a
             5
             > PEXPIRETIME a
             5499
             > PEXPIRE a 600
             1
             > PEXPIRETIME a
             1600
             > EXPIRETIME a
             2
             ~ 3000
             > PEXPIRETIME a
             4600",
        );
    }

    #[test]
    fn persist_removes_a_deadline() {
        transcript::run(
            "> SETEX a 10 x
             OK
             > PERSIST a
             1
             ! deadline a
             > PERSIST a
             0
             !
             > PERSIST nope
             0
             > TTL a
             -1
             > SETEX a 1 x
             OK
             @ 2000
             > PERSIST a
             0
             !",
        );
    }

    #[test]
    fn times_to_live_run_on_when_the_wall_clock_is_set_and_moments_follow_it() {
        transcript::run(
            "> SET lock x PX 1500
             OK
             ! put lock=x until 2500
             > SET at x PXAT 2500
             OK
             ! put at=x until 2500 by the wall clock
             ~ -3600000
             > PTTL lock
             1500
             > PTTL at
             3601500
             > EXPIRE at 3600 GT
             0
             > EXPIRE at 3602 GT
             1
             ! deadline at until 3603000
             @ 2500
             > GET lock
             nil
             > GET at
             \"x\"
             ~ 31536000000
             > SET lock x PX 1500
             OK
             ! put lock=x until 4000
             > SET at x EXAT 31536003
             OK
             > PTTL at
             500
             > SET at y KEEPTTL
             OK
             ! put at=y until 31536003000 by the wall clock
             @ 3000
             > GET at
             nil
             ~ 0
             > GET at
             nil
             > PTTL lock
             1000
             @ 4000
             > GET lock
             nil",
        );
    }

    #[test]
    fn ttl_rounds_to_the_nearest_second() {
        transcript::run(
            "> TTL a
             -2
             > PTTL a
             -2
             > SET a x PX 1499
             OK
             > TTL a
             1
             > PTTL a
             1499
             > SET a x PX 1500
             OK
             > TTL a
             2
             > SET a x PX 499
             OK
             > TTL a
             0
             > SET a x
             OK
             > TTL a
             -1
             > PTTL a
             -1",
        );
    }
}
