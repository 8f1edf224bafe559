//! Commands on strings that are numbers.

use std::borrow::Cow;

use crate::command::row::{Row, on_shard};
use crate::command::spec::{Command, Flags, Group};
use crate::context::Context;
use crate::error::Error;
use crate::events::EventClasses;
use crate::integer::{self, Digits};
use crate::long_double::LongDouble;
use crate::reply::Reply;
use crate::request::Request;

const COUNTER: Command = Command {
    group: Group::String,
    flags: Flags::WRITE.with(Flags::DENYOOM).with(Flags::FAST),
    ..Command::OF_KEY
};

#[rustfmt::skip] // A row is a paragraph.
pub(super) const ROWS: &[Row] = &[
    on_shard(decr, Command {
        name: "DECR", summary: "Subtracts one from the integer value of a key",
        example: "SET stock 10\nDECR stock", complexity: "O(1)",
        ..COUNTER
    }),
    on_shard(decrby, Command {
        name: "DECRBY", args_min: 2, args_max: 2, needs: "key and decrement", usage: "key decrement",
        summary: "Subtracts a number from the integer value of a key",
        example: "SET stock 10\nDECRBY stock 3", complexity: "O(1)",
        ..COUNTER
    }),
    on_shard(incr, Command {
        name: "INCR", summary: "Adds one to the integer value of a key",
        example: "INCR visits\nINCR visits", complexity: "O(1)",
        ..COUNTER
    }),
    on_shard(incrby, Command {
        name: "INCRBY", args_min: 2, args_max: 2, needs: "key and increment", usage: "key increment",
        summary: "Adds a number to the integer value of a key",
        example: "INCRBY visits 10\nINCRBY visits -3", complexity: "O(1)",
        ..COUNTER
    }),
    on_shard(incrbyfloat, Command {
        name: "INCRBYFLOAT", args_min: 2, args_max: 2, needs: "key and increment", usage: "key increment",
        summary: "Adds a number to the value of a key, a float",
        example: "SET price 10.50\nINCRBYFLOAT price 0.1", complexity: "O(1)",
        ..COUNTER
    }),
];

/// `INCR key`.
fn incr<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    add(context, request.arg(0), 1)
}

/// `DECR key`.
fn decr<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    add(context, request.arg(0), -1)
}

/// `INCRBY key increment`.
fn incrby<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    add(context, request.arg(0), request.integer(1)?)
}

/// `DECRBY key decrement`.
fn decrby<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let increment = request.integer(1)?.checked_neg().ok_or(Error::DecrementOverflow)?;
    add(context, request.arg(0), increment)
}

/// `INCRBYFLOAT key increment`. The log gets the sum, so that it matters nowhere else how floats are added.
fn incrbyfloat<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let key = request.arg(0);
    let float = |text: &[u8]| LongDouble::parse(text).ok_or(Error::NotAFloat);
    let found = context.find_string(key)?;
    let (before, deadline_ms) = match found {
        Some(found) => {
            let (value, deadline_ms) = context.string_and_deadline_ms(found);
            (float(value)?, deadline_ms)
        }
        None => (LongDouble::ZERO, None),
    };
    let sum = before.checked_add(float(request.arg(1))?).ok_or(Error::NotFinite)?.to_text();
    context.put(found, key, sum.as_bytes(), deadline_ms);
    context.notify(EventClasses::STRING, "incrbyfloat", key);
    Ok(Reply::Bulk(Cow::Owned(sum.into_bytes())))
}

/// Adds to the integer that a value is; a key that is not there counts as 0. The key keeps its deadline.
fn add<'s>(mut context: Context<'s, '_>, key: &[u8], increment: i64) -> Result<Reply<'s>, Error> {
    let found = context.find_string(key)?;
    let (before, deadline_ms) = match found {
        Some(found) => {
            let (value, deadline_ms) = context.string_and_deadline_ms(found);
            (integer::parse(value).ok_or(Error::NotAnInteger)?, deadline_ms)
        }
        None => (0, None),
    };
    let sum = before.checked_add(increment).ok_or(Error::Overflow)?;
    context.put(found, key, Digits::of(sum).as_bytes(), deadline_ms);
    context.notify(EventClasses::STRING, "incrby", key);
    Ok(Reply::Integer(sum))
}

#[cfg(test)]
mod tests {
    use crate::commands::transcript;

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
    fn floats_are_added_and_the_deadline_kept() {
        transcript::run(
            r#"> INCRBYFLOAT a 10.50
               "10.5"
               ! put a=10.5
               > EXPIRE a 9
               1
               > INCRBYFLOAT a 0.1
               "10.6"
               ! put a=10.6 until 10000
               > INCRBYFLOAT a -5e0
               "5.6"
               > INCRBYFLOAT a x
               NotAFloat
               !
               > INCRBYFLOAT a inf
               NotFinite
               !
               > SET a " 1"
               OK
               > INCRBYFLOAT a 1
               NotAFloat
               !
               > SET a 3
               OK
               > INCRBYFLOAT a 1
               "4"
               > INCR a
               5"#,
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
