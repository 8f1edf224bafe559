//! The keys of a file that tells of changes, put together in memory before any of them leaves: what was removed later
//! is never sent, and a file that counts up a key does so from its own value.
//!
//! Nothing expires meanwhile. In Redis nothing does while it reads such a file either: the file says itself which keys
//! have gone.

use shard::clock::{deadline_by_wall_clock, unix_deadline_ms};
use shard::command::{Flags, Run, find};
use shard::{Change, Changes, Reply, Request, Shard, Span};

use crate::protocol::{self, Dialect, check_arity};
use crate::recovery::random_seeds;

/// So many keys are handed on in a step.
const STEP_KEYS: usize = 1024;

/// The keys of a file.
pub struct Keyspace {
    shard: Shard,
    changes: Changes,
    now_ms: u64,
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
        Keyspace { shard, changes: Changes::default(), now_ms }
    }

    /// Sets a key, whatever it was.
    pub fn put(&mut self, key: &[u8], value: &[u8], deadline_unix_ms: Option<u64>) {
        let deadline_ms = deadline_unix_ms.map(deadline_by_wall_clock);
        self.shard.apply(&Change::Put { key, value, deadline_ms });
    }

    /// Removes a key; whether there was one.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let count = self.shard.key_count();
        self.shard.apply(&Change::Remove { key });
        self.shard.key_count() < count
    }

    /// Removes all keys.
    pub fn clear(&mut self) {
        self.shard = Keyspace::new(self.now_ms).shard;
    }

    /// Runs a command whose name is the first of these parts of `buffer`.
    pub fn run(&mut self, buffer: &[u8], words: &[Span]) -> Outcome {
        let [name, args @ ..] = words else { return Outcome::Done };
        let name = name.of(buffer).to_ascii_uppercase();
        // Redis writes MSETNX down where it has set the keys, which did not exist before.
        let known = if name == b"MSETNX" { b"MSET" } else { &*name };
        let Some(command) = find(known) else { return Outcome::Unknown };
        if !command.has(Flags::WRITE) || matches!(command.run, Run::Server(_)) {
            return Outcome::Done;
        }
        if let Err(error) = check_arity(command, args.len()) {
            return refused(error);
        }
        let request = Request::new(command, buffer, args);
        self.changes.clear(0);
        match self.shard.execute(&request, self.now_ms, &mut self.changes) {
            Reply::Error(error) => refused(error),
            _ => Outcome::Done,
        }
    }

    /// Hands on every key, with its deadline in milliseconds since the Unix epoch.
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
            position = self.shard.walk(from, STEP_KEYS, 0, |key, value, deadline_ms| {
                if done.is_ok() {
                    let unix_ms =
                        deadline_ms.map(|deadline_ms| unix_deadline_ms(deadline_ms).unwrap_or(deadline_ms));
                    done = on_key(key, value, unix_ms);
                }
            });
            done?;
        }
        Ok(())
    }
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
