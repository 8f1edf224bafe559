//! Transcripts for the tests of commands: requests and the replies that they must get, line by line.
//!
//! ```text
//! > SET k "a b"        a request; words may be quoted
//! OK                   its reply, as `shown` writes it
//! @ 1500               the time is 1500 ms from here on
//! = 1                  the requests run in database 1 from here on
//! ~ -500               the wall clock is half a second behind that time from here on
//! ! put k=a b          the changes of the last request, in full
//! ```
//!
//! Whatever a transcript does, its changes applied to an empty shard must give the same keys.

use crate::clock::unix_deadline_ms;
use crate::{Change, Changes, Reply, Request, Shard, Span, command, decode};

/// Runs a transcript against an empty shard.
pub(crate) fn run(transcript: &str) {
    let mut shard = Shard::new([1, 2, 3, 4]).with_value_len_max(1 << 16);
    let mut replica = Shard::new([5, 6, 7, 8]);
    let (mut now_ms, mut latest_ms, mut database) = (1000, 1000, 0);
    let (mut reply, mut effects) = (String::new(), String::new());
    for (line, text) in transcript.lines().map(str::trim).enumerate().filter(|(_, text)| !text.is_empty()) {
        if let Some(time) = text.strip_prefix("@ ") {
            now_ms = time.parse().unwrap();
            latest_ms = now_ms.max(latest_ms);
        } else if let Some(number) = text.strip_prefix("= ") {
            database = number.parse().unwrap();
        } else if let Some(wall_ahead_ms) = text.strip_prefix("~ ") {
            // As the caller that sets it has to.
            shard.expire(now_ms, usize::MAX);
            replica.expire(now_ms, usize::MAX);
            shard.set_wall_ahead(wall_ahead_ms.parse().unwrap());
            replica.set_wall_ahead(wall_ahead_ms.parse().unwrap());
        } else if let Some(expected) = text.strip_prefix('!') {
            assert_eq!(effects, expected.trim(), "changes of the request before line {line}");
        } else if let Some(request) = text.strip_prefix("> ") {
            let mut changes = Changes::default();
            reply = shown(&execute_in(database, &mut shard, &words(request), now_ms, &mut changes));
            replica.apply(&Change::Keyspace(0));
            let changes: Vec<_> = decode(changes.bytes()).map(Result::unwrap).collect();
            changes.iter().for_each(|change| replica.apply(change));
            effects = changes.iter().map(effect).collect::<Vec<_>>().join(", ");
        } else {
            assert_eq!(reply, text, "reply to the request before line {line}");
        }
    }
    assert_eq!(content(&replica, latest_ms), content(&shard, latest_ms));
}

/// Runs one request in database 0.
pub(crate) fn execute<'s>(
    shard: &'s mut Shard,
    words: &[Vec<u8>],
    now_ms: u64,
    changes: &mut Changes,
) -> Reply<'s> {
    execute_in(0, shard, words, now_ms, changes)
}

/// Runs one request in this database.
pub(crate) fn execute_in<'s>(
    database: u16,
    shard: &'s mut Shard,
    words: &[Vec<u8>],
    now_ms: u64,
    changes: &mut Changes,
) -> Reply<'s> {
    let row = command::find(&words[0]).expect("a command of the table");
    assert!((row.args_min..=row.args_max).contains(&(words.len() - 1)), "arity of {}", row.name);
    let buffer = words.concat();
    let mut spans = Vec::new();
    let mut start = 0;
    for word in words {
        spans.push(Span { start: start as u32, len: word.len() as u32 });
        start += word.len();
    }
    shard.execute(&Request::new(row, &buffer, &spans[1..]).in_database(database), now_ms, changes)
}

/// All live keys with their values and deadlines, sorted; those of other databases than 0 behind the name of theirs.
pub(crate) fn content(shard: &Shard, now_ms: u64) -> Vec<(Vec<u8>, Vec<u8>, Option<u64>)> {
    let mut content = Vec::new();
    shard.walk(0, usize::MAX, now_ms, |keyspace, key, value, deadline_ms| {
        let name = match shard.database_of(keyspace) {
            0 => key.to_vec(),
            database => [format!("db{database} ").as_bytes(), key].concat(),
        };
        content.push((name, value.to_vec(), deadline_ms));
    });
    content.sort();
    content
}

fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (word, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').expect("a closing quote"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.as_bytes().to_vec());
        rest = behind.trim_start();
    }
    words
}

fn shown(reply: &Reply<'_>) -> String {
    match reply {
        Reply::Ok => "OK".to_owned(),
        Reply::Simple(text) => (*text).to_owned(),
        Reply::Integer(number) => number.to_string(),
        Reply::Bulk(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Reply::Nil | Reply::NilArray => "nil".to_owned(),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            items.iter().map(shown).collect::<Vec<_>>().join(" ")
        }
        Reply::Error(crate::Error::InvalidExpire(row)) => format!("InvalidExpire {}", row.name),
        Reply::Error(error) => format!("{error:?}"),
        Reply::Map(fields) => fields
            .iter()
            .map(|(name, value)| format!("{name}: {}", shown(value)))
            .collect::<Vec<_>>()
            .join(", "),
        other => panic!("no command of a shard answers {other:?}"),
    }
}

fn effect(change: &Change<'_>) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let moment = |deadline_ms| {
        let unix_ms = unix_deadline_ms(deadline_ms);
        unix_ms
            .map_or(format!(" until {deadline_ms}"), |unix_ms| format!(" until {unix_ms} by the wall clock"))
    };
    let until = |deadline_ms: Option<u64>| deadline_ms.map_or(String::new(), moment);
    match *change {
        Change::Put { key, value, deadline_ms } => {
            format!("put {}={}{}", text(key), text(value), until(deadline_ms))
        }
        Change::Splice { key, offset, bytes } => format!("splice {}@{offset}={}", text(key), text(bytes)),
        Change::Deadline { key, deadline_ms } => format!("deadline {}{}", text(key), until(deadline_ms)),
        Change::Remove { key } => format!("remove {}", text(key)),
        Change::Clear => "clear".to_owned(),
        Change::Keyspace(number) => format!("keyspace {number}"),
        Change::ClearKeyspace => "clear keyspace".to_owned(),
        Change::Databases(keyspaces) => {
            let numbers: Vec<_> = keyspaces.iter().map(|number| number.to_string()).collect();
            format!("databases {}", numbers.join(" "))
        }
        Change::Clocks(clocks) => format!("{clocks:?}"),
    }
}
