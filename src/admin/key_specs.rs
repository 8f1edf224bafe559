//! Where the keys of a command stand and what it does with them, as `COMMAND INFO` and `COMMAND GETKEYSANDFLAGS` say it.
//!
//! Of a command that Redis or Valkey has this is known; of kvlite's own it follows from its row.

use std::borrow::Cow;

use shard::command::{Flags, Keys};
use shard::{Command, Reply, Request, parse_integer};

use super::vocabulary::known;

/// One specification.
struct Spec<'a> {
    flags: Vec<&'static str>,
    begin: Begin<'a>,
    find: Find,
}

/// Where the search begins. Indexes count the names of the command and of its container.
enum Begin<'a> {
    Index(i64),
    /// Behind this word, which is looked for from an index on, or, if that is negative, from the end backwards.
    Keyword(&'a str, i64),
    Unknown,
}

/// How keys are found from there.
enum Find {
    Range { last: i64, step: i64, limit: i64 },
    Numbered { number: i64, first: i64, step: i64 },
    Unknown,
}

/// The flags that Redis has for keys.
const FLAGS: [&str; 11] = [
    "RO",
    "RW",
    "OW",
    "RM",
    "access",
    "update",
    "insert",
    "delete",
    "not_key",
    "incomplete",
    "variable_flags",
];

fn number(text: Option<&str>) -> i64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl<'a> Spec<'a> {
    /// Reads one of [`Known::key_specs`](super::vocabulary::Known::key_specs).
    fn read(text: &'a str) -> Spec<'a> {
        let mut words = text.split(' ');
        let flags = words.next().unwrap_or_default().split(',');
        let flags = flags.filter_map(|flag| FLAGS.into_iter().find(|known| *known == flag)).collect();
        let begin = match words.next().unwrap_or("?").split_once('@') {
            Some((word, from)) => Begin::Keyword(word, number(Some(from))),
            None => match text.split(' ').nth(1).and_then(|index| index.parse().ok()) {
                Some(index) => Begin::Index(index),
                None => Begin::Unknown,
            },
        };
        let find = words.next().unwrap_or("?");
        let [one, two, three] = [0; 3].map(|_| number(words.next()));
        let find = match find {
            "range" => Find::Range { last: one, step: two, limit: three },
            "keynum" => Find::Numbered { number: one, first: two, step: three },
            _ => Find::Unknown,
        };
        Spec { flags, begin, find }
    }

    /// That of a command which has none of its own.
    fn of(row: &Command) -> Option<Spec<'static>> {
        let names = if row.container.is_some() { 2 } else { 1 };
        let flags = if row.has(Flags::WRITE) { vec!["RW", "access", "update"] } else { vec!["RO", "access"] };
        let (begin, find) = match row.keys {
            Keys::None => return None,
            Keys::Range { first, last, step } => {
                let last = if last < 0 { last as i64 } else { last as i64 - first as i64 };
                (first, Find::Range { last, step: step as i64, limit: 0 })
            }
            Keys::Numbered { at } => (at, Find::Numbered { number: 0, first: 1, step: 1 }),
            Keys::NumberedPairs { at } => (at, Find::Numbered { number: 0, first: 1, step: 2 }),
        };
        Some(Spec { flags, begin: Begin::Index(begin as i64 + names), find })
    }

    /// The places of the keys among these words, the first of which is the command's name.
    fn places(&self, words: &[&[u8]]) -> Vec<usize> {
        let count = words.len() as i64;
        let begin = match self.begin {
            Begin::Index(index) => index,
            Begin::Keyword(word, from) => {
                let is_it = |place: &usize| words[*place].eq_ignore_ascii_case(word.as_bytes());
                let found = match from {
                    0.. => (from as usize..words.len()).find(is_it),
                    _ => (1..(count + from + 1).max(1) as usize).rev().find(is_it),
                };
                let Some(found) = found else { return Vec::new() };
                found as i64 + 1
            }
            Begin::Unknown => return Vec::new(),
        };
        let (first, end, step) = match self.find {
            Find::Range { last, step, limit } => {
                let last = match last {
                    0.. => begin + last,
                    -1 if limit > 1 => begin + (count - begin) / limit - 1,
                    _ => count + last,
                };
                (begin, last + 1, step)
            }
            Find::Numbered { number, first, step } => {
                let said = words.get((begin + number) as usize).and_then(|said| parse_integer(said));
                let keys = said.filter(|keys| (0..count).contains(keys)).unwrap_or(0);
                (begin + first, begin + first + keys * step, step)
            }
            Find::Unknown => return Vec::new(),
        };
        let places = (first..end.min(count)).step_by(step.max(1) as usize);
        places.filter_map(|place| usize::try_from(place).ok()).collect()
    }

    fn shown(&self) -> Reply<'static> {
        let part = |kind: &'static str, spec: Vec<(Cow<'static, str>, Reply<'static>)>| {
            Reply::Map(vec![("type".into(), bulk(kind)), ("spec".into(), Reply::Map(spec))])
        };
        let begin = match self.begin {
            Begin::Index(index) => part("index", vec![("index".into(), Reply::Integer(index))]),
            Begin::Keyword(word, from) => part(
                "keyword",
                vec![("keyword".into(), bulk(word)), ("startfrom".into(), Reply::Integer(from))],
            ),
            Begin::Unknown => part("unknown", Vec::new()),
        };
        let numbers = |names: [&'static str; 3], numbers: [i64; 3]| {
            names.into_iter().zip(numbers).map(|(name, n)| (name.into(), Reply::Integer(n))).collect()
        };
        let find = match self.find {
            Find::Range { last, step, limit } => {
                part("range", numbers(["lastkey", "keystep", "limit"], [last, step, limit]))
            }
            Find::Numbered { number, first, step } => {
                part("keynum", numbers(["keynumidx", "firstkey", "keystep"], [number, first, step]))
            }
            Find::Unknown => part("unknown", Vec::new()),
        };
        let flags = Reply::Set(self.flags.iter().map(|flag| Reply::Simple(flag)).collect());
        Reply::Map(vec![("flags".into(), flags), ("begin_search".into(), begin), ("find_keys".into(), find)])
    }
}

fn bulk(text: &str) -> Reply<'static> {
    Reply::Bulk(Cow::Owned(text.as_bytes().to_vec()))
}

fn specs_of(row: &Command) -> Vec<Spec<'static>> {
    let texts = known(&row.full_name()).map_or("", |known| known.key_specs);
    match texts {
        "" => Spec::of(row).into_iter().collect(),
        texts => texts.split("; ").map(Spec::read).collect(),
    }
}

/// The specifications of a command, as `COMMAND INFO` shows them.
pub(super) fn shown(row: &Command) -> Reply<'static> {
    Reply::Set(specs_of(row).iter().map(Spec::shown).collect())
}

/// First key, last key and step of a command, as `COMMAND INFO` shows them, by the first of its specifications.
pub(super) fn range(row: &Command) -> [i64; 3] {
    match specs_of(row).first() {
        Some(Spec { begin: Begin::Index(first), find: Find::Range { last, step, .. }, .. }) => {
            [*first, if *last < 0 { *last } else { first + last }, *step]
        }
        _ => [0; 3],
    }
}

/// The keys of a request, each with what the command does with it.
pub(super) fn find<'r>(request: &Request<'r>) -> Vec<(&'r [u8], Vec<&'static str>)> {
    let row = request.command;
    let names = row.container.into_iter().chain([row.name]).map(str::as_bytes);
    let words: Vec<&[u8]> = names.chain(request.args()).collect();
    let says = |options: &[&str]| {
        request.args().skip(1).any(|arg| options.iter().any(|it| arg.eq_ignore_ascii_case(it.as_bytes())))
    };
    let args = row.container.map_or(1, |_| 2);
    let mut found = Vec::new();
    for spec in specs_of(row) {
        // What these commands do depends on their options.
        let flags: Vec<&'static str> = match row.name {
            "SET" if says(&["GET"]) => vec!["RW", "access", "update"],
            "SET" => vec!["OW", "update"],
            "BITFIELD" if !says(&["SET", "INCRBY"]) => vec!["RO", "access"],
            _ => spec.flags.iter().copied().filter(|flag| *flag != "variable_flags").collect(),
        };
        let places = spec.places(&words).into_iter().filter(|place| *place >= args);
        found.extend(places.map(|place| (request.arg(place - args), flags.clone())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(spec: &str, words: &str) -> Vec<usize> {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        Spec::read(spec).places(&words)
    }

    #[test]
    fn keys_are_found_as_their_specifications_say() {
        assert_eq!(places("RO,access 1 range 0 1 0", "get a b"), [1]);
        assert_eq!(places("OW,update 1 range -1 2 0", "mset a 1 b 2"), [1, 3]);
        assert_eq!(places("RO,access 3 range -1 1 0", "bitop and d a b"), [3, 4]);
        assert_eq!(places("RW,access,update 2 keynum 0 1 1", "eval x 2 a b c"), [3, 4]);
        assert_eq!(places("RW,access,update 2 keynum 0 1 1", "eval x 9 a"), [0; 0]);
        assert_eq!(places("RO,access STREAMS@1 range -1 1 2", "xread count 1 streams a b 0 0"), [4, 5]);
        assert_eq!(places("RO,access ? ?", "sort a"), [0; 0]);
    }
}
