//! The keys of a file that tells of changes, put together in memory before any of them leaves: what was removed later
//! is never sent, and a file that counts up a key does so from its own value.
//!
//! Nothing expires meanwhile. In Redis nothing does while it reads such a file either: the file says itself which keys
//! have gone.
//!
//! A key whose value cannot be told here, since it is no string or a command changed it that is not known, stays in its
//! keyspace without a value: it is renamed, moved, removed and overwritten as all others are, and never handed on.

use std::collections::{BTreeMap, HashMap};

use shard::clock::{deadline_by_wall_clock, unix_deadline_ms};
use shard::command::{Flags, Group, Run, find};
use shard::{Change, Changes, Reply, Request, Shard, Span};

use crate::protocol::{self, Dialect, check_arity};
use crate::recovery::random_seeds;

use super::report::LeftOut;

/// So many keys are handed on in a step.
const STEP_KEYS: usize = 1024;

/// What gives a key its value, whatever it was before.
const OVERWRITES: [&str; 9] =
    ["BITOP", "GETSET", "MSET", "MSETEX", "PSETEX", "RESTORE", "SET", "SETEX", "SETNX"];

/// What does not look at a value.
const PASSES_VALUE_OVER: [&str; 11] = [
    "DEL",
    "DELETE",
    "EXPIRE",
    "EXPIREAT",
    "GETDEL",
    "GETEX",
    "MDEL",
    "PERSIST",
    "PEXPIRE",
    "PEXPIREAT",
    "UNLINK",
];

/// The keys of all databases of a file.
pub struct Databases {
    by_number: BTreeMap<u64, Keyspace>,
    now_ms: u64,
}

impl Databases {
    /// No keys; see [`Keyspace::new`].
    pub fn new(now_ms: u64) -> Databases {
        Databases { by_number: BTreeMap::new(), now_ms }
    }

    /// The keys of one database.
    pub fn of(&mut self, db: u64) -> &mut Keyspace {
        self.by_number.entry(db).or_insert_with(|| Keyspace::new(self.now_ms))
    }

    /// Every database in which something was.
    pub fn all(&self) -> impl Iterator<Item = (u64, &Keyspace)> {
        self.by_number.iter().map(|(db, keyspace)| (*db, keyspace))
    }

    /// Removes all keys.
    pub fn clear(&mut self) {
        self.by_number.clear();
    }

    /// Each of two databases gets the keys of the other.
    pub fn swap(&mut self, one: u64, other: u64) {
        let (first, second) = (self.by_number.remove(&one), self.by_number.remove(&other));
        self.by_number.extend(first.map(|keyspace| (other, keyspace)));
        self.by_number.extend(second.map(|keyspace| (one, keyspace)));
    }

    /// Gives a key of a database all that another one has, whatever it was; whether that one exists.
    pub fn copy(&mut self, from: (u64, &[u8]), to: (u64, &[u8])) -> bool {
        let source = self.of(from.0);
        let reason = source.reason(from.1).cloned();
        let Some((value, deadline_ms)) = source.shard.peek(from.1, 0) else { return false };
        let (value, deadline_ms) = (value.to_vec(), deadline_ms.map(unix_ms));
        let target = self.of(to.0);
        target.put(to.1, &value, deadline_ms);
        if let Some(reason) = reason {
            target.leave_out(to.1, reason);
        }
        true
    }
}

/// The keys of a database.
pub struct Keyspace {
    shard: Shard,
    changes: Changes,
    now_ms: u64,
    /// Keys without a value: as what they are told of, `None` where that was done. Some of them may be gone.
    valueless: HashMap<Vec<u8>, Option<LeftOut>>,
}

/// What has become of a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has run, or changes nothing.
    Done,
    /// It is not known.
    Unknown,
    /// It failed, with this error.
    Refused(String),
}

impl Keyspace {
    /// No keys, at this moment: TTLs that a file gives without a moment begin at it.
    pub fn new(now_ms: u64) -> Keyspace {
        let mut shard = Shard::new(random_seeds());
        // So far behind that no deadline by the wall clock comes, and none is taken for one that has.
        shard.set_wall_ahead(-(now_ms as i64));
        Keyspace { shard, changes: Changes::default(), now_ms, valueless: HashMap::new() }
    }

    /// Sets a key, whatever it was.
    pub fn put(&mut self, key: &[u8], value: &[u8], deadline_unix_ms: Option<u64>) {
        let deadline_ms = deadline_unix_ms.map(deadline_by_wall_clock);
        self.shard.apply(&Change::Put { key, value, deadline_ms });
        self.valueless.remove(key);
    }

    /// What a key holds is not known from now on; it exists. It is to be told of as this, unless that was done.
    pub fn leave_out(&mut self, key: &[u8], as_what: Option<LeftOut>) {
        if self.shard.peek(key, 0).is_none() {
            self.put(key, b"", None);
        }
        self.valueless.entry(key.to_vec()).or_insert(as_what);
    }

    /// Of a key without a value as what it is to be told of, if that was not done.
    pub fn reason(&self, key: &[u8]) -> Option<&Option<LeftOut>> {
        self.valueless.get(key)
    }

    /// Removes a key; whether there was one.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let count = self.shard.key_count();
        self.shard.apply(&Change::Remove { key });
        self.shard.key_count() < count
    }

    /// Removes all keys.
    pub fn clear(&mut self) {
        *self = Keyspace::new(self.now_ms);
    }

    /// Runs a command whose name is the first of these parts of `buffer`.
    pub fn run(&mut self, buffer: &[u8], words: &[Span]) -> Outcome {
        let [name, args @ ..] = words else { return Outcome::Done };
        let name = name.of(buffer).to_ascii_uppercase();
        // Redis writes MSETNX down where it has set the keys, which did not exist before.
        let known = if name == b"MSETNX" { b"MSET" } else { &*name };
        let Some(command) = find(known) else { return Outcome::Unknown };
        if command.group == Group::Scripting {
            return Outcome::Unknown; // What a script did is not known, and libraries are not taken.
        }
        if !command.has(Flags::WRITE) || matches!(command.run, Run::Server(_)) {
            return Outcome::Done;
        }
        if let Err(error) = check_arity(command, args.len()) {
            return refused(error);
        }
        let request = Request::new(command, buffer, args);
        let overwrites = OVERWRITES.contains(&command.name);
        if !self.valueless.is_empty() {
            let Keyspace { shard, valueless, .. } = &mut *self;
            for key in request.keys().filter(|key| shard.peek(key, 0).is_none()) {
                valueless.remove(key);
            }
            let without_value: Vec<&[u8]> =
                request.keys().filter(|key| valueless.contains_key(*key)).collect();
            let is_read = |key: &[u8]| valueless.contains_key(key);
            if command.name == "BITOP" && request.keys().skip(1).any(is_read)
                || command.run == Run::Combine && !overwrites && request.keys().any(is_read)
            {
                return Outcome::Unknown;
            }
            if !without_value.is_empty() && !overwrites && !PASSES_VALUE_OVER.contains(&command.name) {
                return Outcome::Done; // Whatever it makes of the value, that is not known either.
            }
            // The file holds what was done: the key did not exist then, removed by a command that is not known.
            let if_none = |arg: &[u8]| arg.eq_ignore_ascii_case(b"NX");
            let options_from = match command.name {
                "SET" => 2,
                "MSETEX" => 1 + 2 * request.keys().count(),
                _ => request.arg_count(),
            };
            if matches!(command.name, "SETNX" | "RESTORE") || request.args().skip(options_from).any(if_none) {
                for key in without_value {
                    self.remove(key);
                }
            }
        }
        self.changes.clear(0);
        match self.shard.execute(&request, self.now_ms, &mut self.changes) {
            Reply::Error(_) if command.name == "RESTORE" => return Outcome::Unknown,
            Reply::Error(error) => return refused(error),
            _ => {}
        }
        if overwrites && !self.changes.is_empty() && !self.valueless.is_empty() {
            for key in request.keys() {
                self.valueless.remove(key);
            }
        }
        Outcome::Done
    }

    /// How many keys have a value.
    pub fn count(&self) -> u64 {
        let mut keys = 0;
        let counted = self.each(|key, _, _| {
            keys += u64::from(!self.valueless.contains_key(key));
            Ok::<_, std::convert::Infallible>(())
        });
        let Ok(()) = counted;
        keys
    }

    /// Hands on every key, also [those without a value](Keyspace::reason), with its deadline in milliseconds since the
    /// Unix epoch.
    ///
    /// # Errors
    /// The first of `on_key`.
    pub fn each<E>(
        &self,
        mut on_key: impl FnMut(&[u8], &[u8], Option<u64>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut position = Some(0);
        while let Some(from) = position {
            let mut done = Ok(());
            position = self.shard.walk(from, STEP_KEYS, 0, |_, key, value, deadline_ms| {
                if done.is_ok() {
                    done = on_key(key, value, deadline_ms.map(unix_ms));
                }
            });
            done?;
        }
        Ok(())
    }
}

/// A deadline of the shard, whose own time is that of the wall clock.
fn unix_ms(deadline_ms: u64) -> u64 {
    unix_deadline_ms(deadline_ms).unwrap_or(deadline_ms)
}

fn refused(error: shard::Error) -> Outcome {
    let mut text = Vec::new();
    protocol::write_error(error, Dialect::Resp2, &mut text);
    Outcome::Refused(String::from_utf8_lossy(text.trim_ascii()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn run(keyspace: &mut Keyspace, line: &str) -> Outcome {
        let (mut buffer, mut words) = (Vec::new(), Vec::new());
        for word in line.split(' ') {
            words.push(Span { start: buffer.len() as u32, len: word.len() as u32 });
            buffer.extend_from_slice(word.as_bytes());
        }
        keyspace.run(&buffer, &words)
    }

    fn keys(keyspace: &Keyspace) -> Vec<String> {
        let mut keys = Vec::new();
        let listed = keyspace.each(|key, value, deadline| {
            let deadline = deadline.map_or(String::new(), |deadline| format!(" {deadline}"));
            keys.push(format!("{}={}{deadline}", key.escape_ascii(), value.escape_ascii()));
            Ok::<_, ()>(())
        });
        listed.unwrap();
        keys.sort();
        keys
    }

    #[test]
    fn commands_build_on_what_the_file_says_itself() {
        let mut keyspace = Keyspace::new(NOW_MS);
        for line in [
            "SET gone 1",
            "FLUSHALL",
            "SET n 1",
            "INCR n",
            "APPEND n 3",
            "SET past x PXAT 5",
            "PERSIST past",
            "SET later x PXAT 9000000000000",
            "SET s x",
            "PEXPIREAT s 7",
            "EXPIREAT s 9",
            "SETEX counted 10 x",
            "MSETNX a 1 b 2",
            "UNLINK a",
            "select 0",
            "GET n",
        ] {
            assert_eq!(run(&mut keyspace, line), Outcome::Done, "{line}");
        }
        let counted = format!("counted=x {}", NOW_MS + 10_000);
        assert_eq!(keys(&keyspace), ["b=2", &counted, "later=x 9000000000000", "n=23", "past=x", "s=x 9000"]);
        assert_eq!(run(&mut keyspace, "HSET h f v"), Outcome::Unknown);
        assert!(matches!(run(&mut keyspace, "SET a"), Outcome::Refused(_)));
        assert!(matches!(run(&mut keyspace, "INCR s"), Outcome::Refused(_)));
        assert!(keyspace.remove(b"n") && !keyspace.remove(b"n"));
        keyspace.clear();
        assert_eq!(keys(&keyspace), [""; 0]);
    }
}
