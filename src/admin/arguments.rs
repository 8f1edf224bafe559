//! The arguments of a command as `COMMAND DOCS` lists them, read out of its usage: `key value [NX | XX] [EX seconds]`.
//!
//! A word in capitals is written as it stands; one in small letters names a value. Brackets hold what may be left out, a
//! bar stands between alternatives, and three points behind what may come again.

use std::borrow::Cow;

use shard::{Command, Reply};

/// An argument.
#[derive(Clone, Debug, PartialEq)]
struct Argument {
    name: String,
    kind: Kind,
    /// The word in capitals before it.
    token: Option<String>,
    is_optional: bool,
    is_multiple: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// A value, of the type that its name tells.
    Value,
    /// Nothing but its token.
    Token,
    Block(Vec<Argument>),
    OneOf(Vec<Argument>),
}

impl Argument {
    fn new(name: &str, kind: Kind, token: Option<&str>) -> Argument {
        let name = name.to_ascii_lowercase();
        Argument { name, kind, token: token.map(str::to_owned), is_optional: false, is_multiple: false }
    }

    /// One for all of these.
    fn of_all(mut all: Vec<Argument>) -> Option<Argument> {
        match all.len() {
            0 | 1 => all.pop(),
            _ => {
                let name = all[0].name.clone();
                Some(Argument::new(&name, Kind::Block(all), None))
            }
        }
    }

    fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Token => "pure-token",
            Kind::Block(_) => "block",
            Kind::OneOf(_) => "oneof",
            Kind::Value => match self.name.as_str() {
                name if name.ends_with("key") || name == "destination" => "key",
                "pattern" => "pattern",
                "seconds" | "milliseconds" | "count" | "offset" | "start" | "end" | "increment"
                | "decrement" | "cursor" | "timeout" | "index" | "numkeys" | "bit" => "integer",
                "unix-time-seconds" | "unix-time-milliseconds" => "unix-time",
                _ => "string",
            },
        }
    }

    fn shown(&self) -> Reply<'static> {
        let mut fields = vec![("name".into(), text(&self.name)), ("type".into(), text(self.type_name()))];
        if self.type_name() == "key" {
            fields.push(("key_spec_index".into(), Reply::Integer(0)));
        }
        if let Some(token) = &self.token {
            fields.push(("token".into(), text(token)));
        }
        let flags = [("optional", self.is_optional), ("multiple", self.is_multiple)];
        let flags: Vec<_> =
            flags.into_iter().filter(|(_, is)| *is).map(|(flag, _)| Reply::Simple(flag)).collect();
        if !flags.is_empty() {
            fields.push(("flags".into(), Reply::Set(flags)));
        }
        if let Kind::Block(inner) | Kind::OneOf(inner) = &self.kind {
            fields.push(("arguments".into(), list(inner)));
        }
        Reply::Map(fields)
    }
}

fn text(text: &str) -> Reply<'static> {
    Reply::Bulk(Cow::Owned(text.as_bytes().to_vec()))
}

fn list(arguments: &[Argument]) -> Reply<'static> {
    Reply::Array(arguments.iter().map(Argument::shown).collect())
}

/// The arguments of a command.
pub(super) fn shown(row: &Command) -> Reply<'static> {
    list(&read(row.usage))
}

fn read(usage: &str) -> Vec<Argument> {
    let spaced: String =
        usage.chars().flat_map(|c| if "[]|".contains(c) { vec![' ', c, ' '] } else { vec![c] }).collect();
    let words: Vec<&str> = spaced.split_whitespace().collect();
    read_until_end(&mut words.iter().copied().peekable())
}

/// Reads up to the end, or to the bracket that closes.
fn read_until_end<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Vec<Argument> {
    let is_token = |word: &str| {
        word.chars().any(|c| c.is_ascii_uppercase()) && !word.chars().any(|c| c.is_ascii_lowercase())
    };
    let (mut alternatives, mut sequence): (Vec<Vec<Argument>>, Vec<Argument>) = (Vec::new(), Vec::new());
    while let Some(word) = words.next() {
        match word {
            "]" => break,
            "|" => alternatives.push(std::mem::take(&mut sequence)),
            "..." => {
                if let Some(all) = Argument::of_all(std::mem::take(&mut sequence)) {
                    sequence.push(Argument { is_multiple: true, ..all });
                }
            }
            "[" => {
                let inner = read_until_end(words);
                let Some(inner) = Argument::of_all(inner) else { continue };
                // `key [key ...]`: one argument that comes once at least.
                let same = |argument: &Argument| argument.name == inner.name && argument.kind == inner.kind;
                let block = match &inner.kind {
                    Kind::Block(parts) if inner.is_multiple && sequence.ends_with(parts) => Some(parts.len()),
                    _ => None,
                };
                match (block, sequence.last_mut()) {
                    (Some(len), _) => {
                        sequence.truncate(sequence.len() - len);
                        sequence.push(inner);
                    }
                    (None, Some(last)) if inner.is_multiple && same(last) => last.is_multiple = true,
                    _ => sequence.push(Argument { is_optional: true, ..inner }),
                }
            }
            word if is_token(word) => match words.peek() {
                Some(value) if !is_token(value) && !["]", "|", "[", "..."].contains(value) => {
                    sequence.push(Argument::new(value, Kind::Value, Some(word)));
                    words.next();
                }
                _ => sequence.push(Argument::new(word, Kind::Token, Some(word))),
            },
            word => sequence.push(Argument::new(word, Kind::Value, None)),
        }
    }
    if alternatives.is_empty() {
        return sequence;
    }
    alternatives.push(sequence);
    let all: Vec<Argument> = alternatives.into_iter().filter_map(Argument::of_all).collect();
    let name = all.first().map_or(String::new(), |first| first.name.clone());
    vec![Argument::new(&name, Kind::OneOf(all), None)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As they are read, in short: `?` for optional, `*` for several, the token before a colon.
    fn short(arguments: &[Argument]) -> String {
        let one = |it: &Argument| {
            let inner = match &it.kind {
                Kind::Value => it.name.clone(),
                Kind::Token => String::new(),
                Kind::Block(all) => format!("({})", short(all)),
                Kind::OneOf(all) => format!("<{}>", short(all)),
            };
            let token = it.token.as_ref().map_or(String::new(), |token| format!("{token}:"));
            let marks = [("?", it.is_optional), ("*", it.is_multiple)];
            let marks: String = marks.into_iter().filter(|(_, is)| *is).map(|(mark, _)| mark).collect();
            format!("{token}{inner}{marks}")
        };
        arguments.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn arguments_are_read_out_of_the_usage() {
        for (usage, read_as) in [
            ("", ""),
            ("key value", "key value"),
            ("key [key ...]", "key*"),
            ("key value [key value ...]", "(key value)*"),
            ("[name ...]", "name?*"),
            ("[NX | XX]", "<NX: XX:>?"),
            (
                "key value [NX | IFEQ comparison] [GET] [EX seconds | KEEPTTL]",
                "key value <NX: IFEQ:comparison>? GET:? <EX:seconds KEEPTTL:>?",
            ),
            ("cursor [MATCH pattern] [COUNT count]", "cursor MATCH:pattern? COUNT:count?"),
            ("key [start end [BYTE | BIT]]", "key (start end <BYTE: BIT:>?)?"),
        ] {
            assert_eq!(short(&read(usage)), read_as, "{usage}");
        }
    }

    #[test]
    fn keys_and_numbers_are_told_by_their_names() {
        let types: Vec<_> =
            read("key seconds newkey pattern value").iter().map(Argument::type_name).collect();
        assert_eq!(types, ["key", "integer", "key", "pattern", "string"]);
    }
}
