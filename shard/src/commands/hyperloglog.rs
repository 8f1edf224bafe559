//! Commands on values that count distinct elements; see [`hyperloglog`](crate::hyperloglog).

use crate::combine::{Combined, Deadline, Effect, Held, Terms};
use crate::command::row::{Row, combining, on_server, on_shard};
use crate::command::spec::{Command, Flags, Group, Keys, Server};
use crate::context::Context;
use crate::error::Error;
use crate::events::EventClasses;
use crate::hyperloglog::{self, Hyperloglog};
use crate::reply::Reply;
use crate::request::Request;

const OF_KEY: Command = Command { group: Group::Hyperloglog, ..Command::OF_KEY };
const WRITE: Flags = Flags::WRITE.with(Flags::DENYOOM);

#[rustfmt::skip] // A row is a paragraph.
pub(super) const ROWS: &[Row] = &[
    on_shard(pfadd, Command {
        name: "PFADD", args_max: Command::MANY, flags: WRITE.with(Flags::FAST).with(Flags::LISTS),
        usage: "key [element ...]",
        summary: "Adds elements to those that a key counts, and tells whether its count has changed",
        example: "PFADD visitors ada bob eve\nPFADD visitors ada\nPFCOUNT visitors", complexity: "O(n), n elements",
        ..OF_KEY
    }),
    combining(pfcount, Command {
        name: "PFCOUNT", args_max: Command::MANY, keys: Keys::ALL,
        flags: Flags::WRITE.with(Flags::SHOWN_AS_READ).with(Flags::LISTS), usage: "key [key ...]",
        summary: "Tells how many distinct elements were added to keys, to within a percent or two",
        example: "PFADD monday ada bob\nPFADD tuesday bob eve\nPFCOUNT monday\nPFCOUNT monday tuesday",
        complexity: "O(n), n keys; O(1) for one key that has not changed since",
        ..OF_KEY
    }),
    on_shard(pfdebug, Command {
        name: "PFDEBUG", args_min: 2, args_max: 2, keys: Keys::Range { first: 1, last: 1, step: 1 },
        flags: WRITE.with(Flags::ADMIN), needs: "DECODE, ENCODING, GETREG or TODENSE, and a key",
        usage: "DECODE | ENCODING | GETREG | TODENSE key",
        summary: "Shows how a key counts distinct elements, or makes it use its longer form",
        example: "PFADD visitors ada\nPFDEBUG DECODE visitors\nPFDEBUG TODENSE visitors\nPFDEBUG ENCODING visitors",
        complexity: "O(1), with large factors",
        ..OF_KEY
    }),
    combining(pfmerge, Command {
        name: "PFMERGE", args_max: Command::MANY, keys: Keys::ALL, flags: WRITE.with(Flags::LISTS),
        usage: "destkey [sourcekey ...]",
        summary: "Adds to those that a key counts the elements of other keys",
        example: "PFADD monday ada bob\nPFADD tuesday bob eve\nPFMERGE week monday tuesday\nPFCOUNT week",
        complexity: "O(n), n keys",
        ..OF_KEY
    }),
    on_server(Command {
        name: "PFSELFTEST", flags: Flags::ADMIN,
        summary: "Tests whether distinct elements are counted as they should be",
        example: "PFSELFTEST", complexity: "O(1), some milliseconds",
        ..Command::of_server(Server::Pfselftest, Group::Hyperloglog)
    }),
];

/// `PFADD key [element ...]`. The log gets the bytes that have changed.
fn pfadd<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let key = request.arg(0);
    let found = context.find_string(key)?;
    let mut value = match found {
        None => Hyperloglog::new(),
        Some(found) => Hyperloglog::of(context.string(found))?,
    };
    let mut has_changed = found.is_none();
    for element in request.args().skip(1) {
        has_changed |= value.add(element)?;
    }
    if has_changed {
        value.make_stale();
        context.rewrite(found, key, value.as_bytes());
        context.notify(EventClasses::STRING, "pfadd", key);
    }
    Ok(Reply::one_or_zero(has_changed))
}

/// `PFCOUNT key [key ...]`. What was counted of a single key is noted in its value.
fn pfcount(_: &Request<'_>, held: &[Option<Held<'_>>], _terms: &Terms) -> Result<Combined, Error> {
    let shown = |count: u64| Reply::Integer(count as i64);
    if let [held] = held {
        let Some(held) = held else { return Ok(Reply::Integer(0).into()) };
        let mut value = Hyperloglog::of(held.value())?;
        if let Some(count) = hyperloglog::known_count(value.as_bytes()) {
            return Ok(shown(count).into());
        }
        let count = hyperloglog::count(value.as_bytes())?;
        value.set_count(count);
        let effect = Effect::put(0, value.into_bytes().into(), Deadline::Kept);
        let effects = vec![effect.told_as(EventClasses::default(), "")]; // No client is told.
        return Ok(Combined { reply: shown(count), effects });
    }
    let mut registers = [0; _];
    for held in held.iter().flatten() {
        hyperloglog::check(held.value())?;
        hyperloglog::merge(held.value(), &mut registers)?;
    }
    Ok(shown(hyperloglog::estimate(&registers)).into())
}

/// `PFMERGE destkey [sourcekey ...]`. The destination counts what it did, too.
fn pfmerge(_: &Request<'_>, held: &[Option<Held<'_>>], _terms: &Terms) -> Result<Combined, Error> {
    let mut registers = [0; _];
    let mut is_dense = false;
    for held in held.iter().flatten() {
        let value = Hyperloglog::of(held.value())?;
        is_dense |= value.is_dense();
        hyperloglog::merge(value.as_bytes(), &mut registers)?;
    }
    let mut merged = match &held[0] {
        None => Hyperloglog::new(),
        Some(held) => Hyperloglog::of(held.value())?,
    };
    if is_dense {
        merged.make_dense()?;
    }
    merged.raise_all(&registers)?;
    merged.make_stale();
    let effect = Effect::put(0, merged.into_bytes().into(), Deadline::Kept);
    let effects = vec![effect.told_as(EventClasses::STRING, "pfadd")];
    Ok(Combined { reply: Reply::Ok, effects })
}

/// `PFDEBUG DECODE | ENCODING | GETREG | TODENSE key`. To show the registers makes the value dense, as in Redis.
fn pfdebug<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let (subcommand, key) = (request.arg(0), request.arg(1));
    let found = context.find_string(key)?;
    let found = found.ok_or(Error::Unavailable("The specified key does not exist"))?;
    let mut value = Hyperloglog::of(context.string(found))?;
    let was_dense = value.is_dense();
    let is = |name: &str| subcommand.eq_ignore_ascii_case(name.as_bytes());
    let reply = if is("GETREG") {
        value.make_dense()?;
        Reply::Array(value.registers()?.iter().map(|register| Reply::Integer((*register).into())).collect())
    } else if is("DECODE") {
        let runs = value.shown_runs().ok_or(Error::Unavailable("HLL encoding is not sparse"))?;
        Reply::Bulk(runs.into_bytes().into())
    } else if is("ENCODING") {
        Reply::Simple(if was_dense { "dense" } else { "sparse" })
    } else if is("TODENSE") {
        value.make_dense()?;
        Reply::one_or_zero(!was_dense)
    } else {
        return Err(Error::UnknownPfdebug(subcommand.into()));
    };
    if value.is_dense() != was_dense {
        context.rewrite(Some(found), key, value.as_bytes());
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use crate::commands::transcript;
    use crate::{Changes, Shard};

    #[test]
    fn elements_are_counted() {
        transcript::run(
            r#"> PFCOUNT a
               0
               !
               > PFADD a
               1
               > PFADD a
               0
               !
               > EXPIRE a 9
               1
               > PFADD a x y z
               1
               > PFADD a z
               0
               !
               > PFDEBUG DECODE a
               "Z:8581 v:1,1 Z:6350 v:3,1 Z:1441 v:2,1 z:9"
               > PFCOUNT a
               3
               > PFCOUNT a
               3
               !
               > PFADD b z zz
               1
               > PFCOUNT a b c
               4
               !
               > PFMERGE a b
               OK
               > PFCOUNT a
               4
               > TTL a
               9
               > SET c x
               OK
               > PFADD c x
               NotAHyperloglog
               > PFCOUNT a c
               NotAHyperloglog
               > PFMERGE a c
               NotAHyperloglog
               > PFDEBUG ENCODING c
               NotAHyperloglog
               > PFDEBUG ENCODING d
               Unavailable("The specified key does not exist")
               > PFDEBUG NOPE a
               UnknownPfdebug([78, 79, 80, 69])
               > PFDEBUG TODENSE a
               1
               > PFDEBUG TODENSE a
               0
               !
               > PFDEBUG DECODE a
               Unavailable("HLL encoding is not sparse")
               > PFMERGE e a
               OK
               > PFDEBUG ENCODING e
               dense"#,
        );
    }

    #[test]
    fn the_log_gets_what_has_changed_of_a_long_value() {
        let mut shard = Shard::new([1, 2, 3, 4]);
        let mut logged = |request: &str| {
            let words: Vec<_> = request.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            let mut changes = Changes::default();
            transcript::execute(&mut shard, &words, 1000, &mut changes);
            changes.bytes().len()
        };
        logged("PFADD a x");
        assert!(logged("PFDEBUG TODENSE a") > 12_000);
        for request in ["PFADD a y", "PFCOUNT a", "PFADD a z", "PFCOUNT a"] {
            assert!((1..200).contains(&logged(request)), "{request}");
        }
    }
}
