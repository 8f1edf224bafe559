//! What differs from Redis on purpose: all of it, each with its reason. docs/compatibility.md says the same to users.

use crate::client::Value;
use crate::compare::{Check, shape};

/// One intended difference.
pub struct Allowed {
    /// Why it differs.
    pub reason: &'static str,
    /// Whether the replies of Redis and kvlite to this request, its words in capitals, differ in this way.
    pub applies: fn(&[String], &Value, &Value) -> bool,
}

/// All of them.
pub const ALLOWED: &[Allowed] = &[
    Allowed {
        reason: "kvlite is another program of another version, with connections of its own",
        applies: |request, redis, kvlite| {
            request[0] == "HELLO" && !matches!(redis, Value::Error(_)) && !matches!(kvlite, Value::Error(_))
        },
    },
    Allowed {
        reason: "each has commands of its own, and options of its own",
        applies: |request, redis, kvlite| {
            let of_all = request[0] == "COMMAND"
                && (request.len() == 1 || request.len() == 2 && request[1] == "INFO")
                || request[0] == "CONFIG" && request[1..].iter().any(|word| word.contains(['*', '[', '?']));
            of_all && shape(redis) == shape(kvlite)
        },
    },
    Allowed {
        reason: "key specifications have no notes in kvlite: they would be other people's sentences",
        applies: |request, redis, kvlite| {
            request[0] == "COMMAND" && Check::Sorted.holds(&without_notes(redis), &without_notes(kvlite))
        },
    },
    Allowed {
        reason: "what an error repeats of a request shows control bytes as blanks, which a terminal cannot take for \
                 more, and does not end at a zero",
        applies: |request, redis, kvlite| match (redis, kvlite) {
            (Value::Error(redis), Value::Error(kvlite)) => {
                let is_odd = |word: &String| word.chars().any(|char| char.is_control() || !char.is_ascii());
                let quoted =
                    |text: &str| text.split_once('\'').map_or(text.len(), |(before, _)| before.len());
                let (one, other) = (&redis[..quoted(redis)], &kvlite[..quoted(kvlite)]);
                request.iter().any(is_odd) && one.trim_end() == other.trim_end()
            }
            _ => false,
        },
    },
    Allowed {
        reason: "an error names a subcommand as the table of commands does, in capitals",
        applies: |_, redis, kvlite| match (redis, kvlite) {
            (Value::Error(redis), Value::Error(kvlite)) => {
                redis.contains("unknown subcommand or wrong number") && redis.eq_ignore_ascii_case(kvlite)
            }
            _ => false,
        },
    },
    Allowed {
        reason: "a number of keys that is none names no keys",
        applies: |request, _, kvlite| {
            request[0] == "COMMAND"
                && request.get(1).is_some_and(|word| word.starts_with("GETKEYS"))
                && request.get(4).is_some_and(|number| number.parse::<i64>().is_err())
                && matches!(kvlite, Value::Array(keys) if keys.is_empty())
        },
    },
    Allowed {
        reason: "the slow log has a bound",
        applies: |request, redis, kvlite| match (redis, kvlite) {
            (Value::Error(redis), Value::Error(kvlite)) => {
                request.iter().any(|word| word == "SLOWLOG-MAX-LEN")
                    && redis.replace("9223372036854775807", "100000") == *kvlite
            }
            _ => false,
        },
    },
    Allowed {
        reason: "the encoding of a string follows from its bytes, in Redis also from the command that made it",
        applies: |request, redis, kvlite| {
            let is_encoding = |value: &Value| ["int", "embstr", "raw"].map(Value::bulk).contains(value);
            request[0] == "OBJECT" && is_encoding(redis) && is_encoding(kvlite)
        },
    },
    Allowed {
        reason: "no value is shared: Redis counts so many references to small integers",
        applies: |request, redis, kvlite| {
            request[0] == "OBJECT"
                && *redis == Value::Integer(i32::MAX.into())
                && *kvlite == Value::Integer(1)
        },
    },
    Allowed {
        reason: "nothing is evicted yet: there is no policy to choose",
        applies: |request, _, kvlite| {
            request.iter().any(|word| word == "MAXMEMORY-POLICY") && matches!(kvlite, Value::Error(_))
        },
    },
    Allowed {
        reason: "of two faults in the options of MEMORY USAGE kvlite names their number first",
        applies: |request, redis, kvlite| {
            request[0] == "MEMORY"
                && matches!((redis, kvlite), (Value::Error(_), Value::Error(_)))
                && request.len() > 5
        },
    },
    Allowed {
        reason: "there is no replication to set up",
        applies: |request, redis, kvlite| {
            request[0] == "REPLICAOF" && matches!((redis, kvlite), (Value::Error(_), Value::Error(_)))
        },
    },
    Allowed {
        reason: "a script sees one shard, or the keys that it names: what asks all shards is refused where there are several",
        applies: |request, _, kvlite| {
            let is_refused =
                matches!(kvlite, Value::Error(text) if text.contains("does not run within a script"));
            request[0].starts_with("EVAL") && is_refused
        },
    },
    Allowed {
        reason: "each has subcommands of its own",
        applies: |request, redis, kvlite| {
            let alone = |reply: &Value| match reply {
                Value::Array(commands) => match &commands[..] {
                    [Value::Array(command)] => Value::Array(command[..command.len().min(9)].to_vec()),
                    _ => reply.clone(),
                },
                _ => reply.clone(),
            };
            let is_info = request[0] == "COMMAND" && request.get(1).is_some_and(|word| word == "INFO");
            is_info && Check::Sorted.holds(&alone(redis), &alone(kvlite))
        },
    },
    Allowed {
        reason: "there is no debugger to switch, so that it may be switched off in a pipeline as well",
        applies: |request, redis, kvlite| {
            let is_said = matches!(redis, Value::Error(text) if text.contains("outside a pipeline"));
            request[0] == "SCRIPT" && is_said && *kvlite == Value::Simple("OK".to_owned())
        },
    },
];

/// A reply without what follows the word `notes` in it.
fn without_notes(value: &Value) -> Value {
    let is_note = |value: &Value| *value == Value::bulk("notes");
    match value {
        Value::Array(items) | Value::Set(items) => {
            let mut kept = Vec::new();
            let mut items = items.iter();
            while let Some(item) = items.next() {
                match is_note(item) {
                    true => drop(items.next()),
                    false => kept.push(without_notes(item)),
                }
            }
            Value::Array(kept)
        }
        Value::Map(pairs) => {
            let kept = pairs.iter().filter(|(key, _)| !is_note(key));
            Value::Map(kept.map(|(key, value)| (key.clone(), without_notes(value))).collect())
        }
        other => other.clone(),
    }
}

/// The reason why these replies differ, if it is on purpose.
pub fn reason(request: &[Vec<u8>], redis: &Value, kvlite: &Value) -> Option<&'static str> {
    let words: Vec<String> =
        request.iter().map(|word| String::from_utf8_lossy(word).to_uppercase()).collect();
    ALLOWED.iter().find(|allowed| (allowed.applies)(&words, redis, kvlite)).map(|allowed| allowed.reason)
}
