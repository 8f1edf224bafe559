//! Scripts: one `request -> reply` a line, in a notation that people read.
//!
//! A RESP request is words, a word in double quotes knows `\"`, `\\`, `\n`, `\r`, `\t`, `\xHH`; its reply is
//!
//! ```text
//! +OK            a simple string                "a\r\n"         a bulk string
//! +"a, b"        the same, of any text
//! -ERR text      an error, to the letter        -"ERR text "    the same, with blanks at its end
//! 7              an integer                     1..9            an integer from 1 to 9
//! nil  nil-array  null                          $-1, *-1 and RESP3's _
//! [a, b]         an array                       {a, b}          an array in any order
//! %[k, v]        a map of RESP3                 ~[a, b]         a set of RESP3
//! >[a, b]        a message of RESP3
//! *              anything                       ...             the rest of an array, a set or a map
//! ~"text"        a bulk or verbatim string that holds the text
//! ```
//!
//! A text request is sent as it stands. Its reply is lines, ` | ` between them, of plain text in which
//! `<..>` stands for any text, `<1..9>` and `<1..>` for an integer, a line `<rest>` for any further lines and
//! a line `<empty>` for an empty one; after `any order: ` the lines may come in any.
//!
//! A request after `eventually ` is repeated until it is answered as written, within the deadline.
//! The line `(closed)` says that the server has closed the connection. `#` starts a comment.

use std::fmt::Write as _;

use crate::client::{Resp, Text, Value};
use crate::process::within_deadline;
use crate::words::quoted;

/// Runs a RESP script over a connection; returns all the lines that differ, which is nothing when it passes.
pub fn run_resp(name: &str, script: &str, client: &mut Resp) -> String {
    let mut failures = String::new();
    for step in steps(script) {
        let Some((request, expected)) = step.exchange else {
            let rest = client.wire.until_closed();
            assert!(rest.is_empty(), "{name}: before it closed, the server sent {}", rest.escape_ascii());
            continue;
        };
        let pattern = Pattern::parse(expected);
        let mut got = client.ask(request);
        if step.eventually && !pattern.matches(&got) {
            within_deadline(|| {
                got = client.ask(request);
                pattern.matches(&got)
            });
        }
        if !pattern.matches(&got) {
            let _ = writeln!(failures, "  {request}\n    expected {expected}\n    got      {got}");
        }
    }
    if failures.is_empty() { failures } else { format!("RESP script {name}:\n{failures}") }
}

/// Runs a text script over a connection; returns all the lines that differ, which is nothing when it passes.
pub fn run_text(name: &str, script: &str, client: &mut Text) -> String {
    let mut failures = String::new();
    let all: Vec<Step> = steps(script).collect();
    for (index, step) in all.iter().enumerate() {
        let Some((request, expected)) = step.exchange else {
            let rest = client.wire.until_closed();
            assert!(rest.is_empty(), "{name}: before it closed, the server sent {}", rest.escape_ascii());
            continue;
        };
        let closes = all.get(index + 1).is_some_and(|next| next.exchange.is_none());
        let mut got = if closes {
            // Nothing after it is answered, so there is no mark to read up to.
            client.wire.send(format!("{request}\n").as_bytes());
            vec![String::from_utf8_lossy(&client.wire.line()).into_owned()]
        } else {
            client.ask(request)
        };
        if step.eventually && !lines_match(expected, &got) {
            within_deadline(|| {
                got = client.ask(request);
                lines_match(expected, &got)
            });
        }
        if !lines_match(expected, &got) {
            let _ =
                writeln!(failures, "  {request}\n    expected {expected}\n    got      {}", got.join(" | "));
        }
    }
    if failures.is_empty() { failures } else { format!("text script {name}:\n{failures}") }
}

struct Step<'a> {
    eventually: bool,
    /// Request and reply; `None`: the connection is closed.
    exchange: Option<(&'a str, &'a str)>,
}

fn steps(script: &str) -> impl Iterator<Item = Step<'_>> {
    script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
        if line == "(closed)" {
            return Step { eventually: false, exchange: None };
        }
        let (request, reply) = line.split_once(" -> ").unwrap_or_else(|| panic!("no ` -> ` in: {line}"));
        let later = request.strip_prefix("eventually ");
        let exchange = Some((later.unwrap_or(request).trim(), reply.trim()));
        Step { eventually: later.is_some(), exchange }
    })
}

/// What a RESP reply is expected to be.
enum Pattern {
    Anything,
    Rest,
    Exactly(Value),
    Between(i64, i64),
    Holding(Vec<u8>),
    Array(Vec<Pattern>),
    AnyOrder(Vec<Pattern>),
    Map(Vec<Pattern>),
    Set(Vec<Pattern>),
    Push(Vec<Pattern>),
}

impl Pattern {
    fn parse(text: &str) -> Pattern {
        let mut rest = text;
        let pattern = Pattern::take(&mut rest, true);
        assert!(rest.is_empty(), "the reply `{text}` has `{rest}` at its end");
        pattern
    }

    fn take(rest: &mut &str, outermost: bool) -> Pattern {
        for (open, close, make) in [
            ("[", ']', Pattern::Array as fn(Vec<Pattern>) -> Pattern),
            ("{", '}', Pattern::AnyOrder),
            ("%[", ']', Pattern::Map),
            ("~[", ']', Pattern::Set),
            (">[", ']', Pattern::Push),
        ] {
            if let Some(inside) = rest.strip_prefix(open) {
                *rest = inside;
                return make(Pattern::take_items(rest, close));
            }
        }
        if rest.starts_with('"') {
            return Pattern::Exactly(Value::Bulk(quoted(rest)));
        }
        if let Some(text) = rest.strip_prefix('~') {
            *rest = text;
            return Pattern::Holding(quoted(rest));
        }
        if rest.starts_with("+\"") {
            *rest = &rest[1..];
            let text = String::from_utf8(quoted(rest)).expect("a line is text");
            return Pattern::Exactly(Value::Simple(text));
        }
        if rest.starts_with("-\"") {
            *rest = &rest[1..];
            let text = String::from_utf8(quoted(rest)).expect("an error is text");
            return Pattern::Exactly(Value::Error(text));
        }
        let end = if outermost { rest.len() } else { rest.find([',', ']', '}']).unwrap_or(rest.len()) };
        let (word, tail) = rest.split_at(end);
        *rest = tail;
        Pattern::word(word)
    }

    fn take_items(rest: &mut &str, close: char) -> Vec<Pattern> {
        let mut items = Vec::new();
        loop {
            *rest = rest.trim_start_matches([' ', ',']);
            if let Some(tail) = rest.strip_prefix(close) {
                *rest = tail;
                return items;
            }
            assert!(!rest.is_empty(), "a list is not closed");
            items.push(Pattern::take(rest, false));
        }
    }

    fn word(word: &str) -> Pattern {
        if let Some((low, high)) = word.split_once("..").filter(|_| word != "...") {
            return Pattern::Between(low.parse().expect("a bound"), high.parse().expect("a bound"));
        }
        if let Ok(number) = word.parse() {
            return Pattern::Exactly(Value::Integer(number));
        }
        match (word, word.split_at(1)) {
            ("*", _) => Pattern::Anything,
            ("...", _) => Pattern::Rest,
            ("nil", _) => Pattern::Exactly(Value::Nil),
            ("nil-array", _) => Pattern::Exactly(Value::NilArray),
            ("null", _) => Pattern::Exactly(Value::Null),
            (_, ("+", text)) => Pattern::Exactly(Value::Simple(text.to_owned())),
            (_, ("-", text)) => Pattern::Exactly(Value::Error(text.to_owned())),
            _ => panic!("not a reply in the notation of the scripts: {word}"),
        }
    }

    fn matches(&self, value: &Value) -> bool {
        match (self, value) {
            (Pattern::Anything, _) => true,
            (Pattern::Exactly(expected), value) => expected == value,
            (Pattern::Between(low, high), Value::Integer(number)) => (low..=high).contains(&number),
            (Pattern::Holding(text), Value::Bulk(bytes) | Value::Verbatim(_, bytes)) => {
                text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
            }
            (Pattern::Array(items), Value::Array(values))
            | (Pattern::Set(items), Value::Set(values))
            | (Pattern::Push(items), Value::Push(values)) => {
                all_match(items, &values.iter().collect::<Vec<_>>())
            }
            (Pattern::Map(items), Value::Map(pairs)) => {
                all_match(items, &pairs.iter().flat_map(|(key, value)| [key, value]).collect::<Vec<_>>())
            }
            (Pattern::AnyOrder(items), Value::Array(values)) => {
                let mut left: Vec<&Value> = values.iter().collect();
                let found = items.iter().all(|item| {
                    left.iter()
                        .position(|value| item.matches(value))
                        .map(|index| left.remove(index))
                        .is_some()
                });
                found && left.is_empty()
            }
            _ => false,
        }
    }
}

fn all_match(items: &[Pattern], values: &[&Value]) -> bool {
    match items {
        [head @ .., Pattern::Rest] => values.len() >= head.len() && all_match(head, &values[..head.len()]),
        _ => items.len() == values.len() && items.iter().zip(values).all(|(item, value)| item.matches(value)),
    }
}

/// Whether the lines of a text reply are as a script writes them.
pub fn lines_match(expected: &str, lines: &[String]) -> bool {
    if let Some(expected) = expected.strip_prefix("any order: ") {
        let mut left: Vec<&String> = lines.iter().collect();
        let found = expected.split(" | ").all(|pattern| {
            left.iter().position(|line| line_matches(pattern, line)).map(|index| left.remove(index)).is_some()
        });
        return found && left.is_empty();
    }
    let patterns: Vec<&str> = expected.split(" | ").collect();
    let (patterns, more) = match patterns.as_slice() {
        [head @ .., "<rest>"] => (head, true),
        all => (all, false),
    };
    (patterns.len() == lines.len() || more && lines.len() >= patterns.len())
        && patterns.iter().zip(lines).all(|(pattern, line)| line_matches(pattern, line))
}

/// Whether one line is as a script writes it.
fn line_matches(pattern: &str, line: &str) -> bool {
    if pattern == "<empty>" {
        return line.is_empty();
    }
    let Some((before, low, high, after)) = first_wildcard(pattern) else { return pattern == line };
    let Some(rest) = line.strip_prefix(before) else { return false };
    if low.is_empty() && high.is_empty() {
        return rest
            .char_indices()
            .map(|(index, _)| index)
            .chain([rest.len()])
            .any(|index| line_matches(after, &rest[index..]));
    }
    let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '-').unwrap_or(rest.len());
    let Ok(number) = rest[..digits].parse::<i128>() else { return false };
    let bound = |text: &str, open: i128| if text.is_empty() { open } else { text.parse().expect("a bound") };
    number >= bound(low, i128::MIN)
        && number <= bound(high, i128::MAX)
        && line_matches(after, &rest[digits..])
}

/// Splits a pattern at its first `<low..high>`.
fn first_wildcard(pattern: &str) -> Option<(&str, &str, &str, &str)> {
    let (open, _) = pattern.match_indices('<').find(|(open, _)| {
        let inside = pattern[open + 1..].split('>').next().unwrap_or_default();
        inside.contains("..") && inside.chars().all(|char| char.is_ascii_digit() || ".-".contains(char))
    })?;
    let (inside, after) = pattern[open + 1..].split_once('>')?;
    let (low, high) = inside.split_once("..")?;
    Some((&pattern[..open], low, high, after))
}

#[test]
fn the_notation_tells_replies_apart() {
    let reply = Value::Array(vec![Value::bulk("a"), Value::Integer(5), Value::Nil]);
    for good in ["*", "[...]", "[\"a\", 5, nil]", "{nil, \"a\", 4..6}", "[*, ...]", "[~\"\", *, *]"] {
        assert!(Pattern::parse(good).matches(&reply), "{good}");
    }
    for bad in
        ["nil", "[]", "[\"a\", 5]", "[\"a\", 6..9, nil]", "{5, 5, nil}", "[\"a\", 5, nil-array]", "+OK"]
    {
        assert!(!Pattern::parse(bad).matches(&reply), "{bad}");
    }
}

#[test]
fn the_notation_tells_lines_apart() {
    let lines = ["+OK keys=12 x={}".to_owned(), String::new(), "<a>".to_owned()];
    let good =
        ["+OK keys=<1..20> x=<..> | <empty> | <a>", "<..> | <..> | <..>", "<..>keys=<1..> x={} | <rest>"];
    for good in good.into_iter().chain(["any order: <a> | <empty> | +<..>"]) {
        assert!(lines_match(good, &lines), "{good}");
    }
    for bad in
        ["+OK keys=<1..9> x=<..> | <rest>", "<..> | <..>", "<..> | a | <a>", "any order: <a> | <empty>"]
    {
        assert!(!lines_match(bad, &lines), "{bad}");
    }
}
