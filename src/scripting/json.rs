//! The library `cjson`: values as JSON, with the choices that its functions make.

use std::cell::Cell;
use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value, Variadic};

use super::arguments::{bad, number, text, type_name};
use super::engine::{check_room, lua_error};
use super::values::{format_general, text_of};

/// What the functions of the library choose.
#[derive(Clone, Copy)]
struct Choices {
    converts_sparse: bool,
    sparse_ratio: i64,
    sparse_safe: i64,
    encode_depth_max: i64,
    decode_depth_max: i64,
    encodes_invalid: Invalid,
    decodes_invalid: bool,
    keeps_buffer: bool,
    precision: i64,
}

/// What becomes of numbers that JSON does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Invalid {
    Refused,
    Shown,
    Null,
}

/// The functions and the names of the library.
pub fn table(lua: &Lua) -> mlua::Result<Table> {
    let json = lua.create_table()?;
    let choices = Rc::new(Cell::new(Choices {
        converts_sparse: false,
        sparse_ratio: 2,
        sparse_safe: 10,
        encode_depth_max: 1000,
        decode_depth_max: 1000,
        encodes_invalid: Invalid::Refused,
        decodes_invalid: true,
        keeps_buffer: true,
        precision: 14,
    }));
    let of = choices.clone();
    json.raw_set(
        "encode",
        lua.create_function(move |lua, args: Variadic<Value>| {
            let [value] = &args[..] else { return Err(bad(lua, 1, "encode", "expected 1 argument")) };
            let mut out = Vec::new();
            Encoder { lua, choices: of.get() }.encode(value, &mut out)?;
            lua.create_string(out)
        })?,
    )?;
    let of = choices.clone();
    json.raw_set(
        "decode",
        lua.create_function(move |lua, args: Variadic<Value>| {
            if args.len() != 1 {
                return Err(bad(lua, 1, "decode", "expected 1 argument"));
            }
            let data = text(lua, &args, 1, "decode")?;
            if data.len() >= 2 && data[..2].contains(&0) {
                return Err(lua_error(lua, "JSON parser does not support UTF-16 or UTF-32"));
            }
            let mut decoder = Decoder { lua, choices: of.get(), data: &data, at: 0 };
            let first = decoder.token();
            let value = decoder.value(first)?;
            match decoder.token() {
                (_, Token::End) => Ok(value),
                other => Err(decoder.unexpected("the end", &other)),
            }
        })?,
    )?;
    json.raw_set("null", Value::NULL)?;
    json.raw_set("new", lua.create_function(|lua, _: MultiValue| table(lua))?)?;
    json.raw_set("_NAME", "cjson")?;
    json.raw_set("_VERSION", "2.1.0")?;
    add_choices(lua, &json, &choices)?;
    Ok(json)
}

fn add_choices(lua: &Lua, json: &Table, choices: &Rc<Cell<Choices>>) -> mlua::Result<()> {
    let of = choices.clone();
    json.raw_set(
        "encode_sparse_array",
        lua.create_function(move |lua, args: Variadic<Value>| {
            const NAME: &str = "encode_sparse_array";
            let mut choices = of.get();
            at_most(lua, &args, 3, NAME)?;
            if let Some(yes) = flag(lua, &args, NAME)? {
                choices.converts_sparse = yes;
            }
            choices.sparse_ratio =
                integer(lua, &args, 2, NAME, (0, i64::from(i32::MAX)), choices.sparse_ratio)?;
            choices.sparse_safe =
                integer(lua, &args, 3, NAME, (0, i64::from(i32::MAX)), choices.sparse_safe)?;
            of.set(choices);
            Ok((choices.converts_sparse, choices.sparse_ratio, choices.sparse_safe))
        })?,
    )?;
    type Field = fn(&mut Choices) -> &mut i64;
    let numbers: [(&str, i64, Field); 3] = [
        ("encode_max_depth", i64::from(i32::MAX), |choices| &mut choices.encode_depth_max),
        ("decode_max_depth", i64::from(i32::MAX), |choices| &mut choices.decode_depth_max),
        ("encode_number_precision", 14, |choices| &mut choices.precision),
    ];
    for (name, max, field) in numbers {
        let of = choices.clone();
        json.raw_set(
            name,
            lua.create_function(move |lua, args: Variadic<Value>| {
                let mut choices = of.get();
                at_most(lua, &args, 1, name)?;
                let chosen = integer(lua, &args, 1, name, (1, max), *field(&mut choices))?;
                *field(&mut choices) = chosen;
                of.set(choices);
                Ok(chosen)
            })?,
        )?;
    }
    let of = choices.clone();
    json.raw_set(
        "encode_keep_buffer",
        lua.create_function(move |lua, args: Variadic<Value>| {
            let mut choices = of.get();
            at_most(lua, &args, 1, "encode_keep_buffer")?;
            choices.keeps_buffer = flag(lua, &args, "encode_keep_buffer")?.unwrap_or(choices.keeps_buffer);
            of.set(choices);
            Ok(choices.keeps_buffer)
        })?,
    )?;
    let of = choices.clone();
    json.raw_set(
        "decode_invalid_numbers",
        lua.create_function(move |lua, args: Variadic<Value>| {
            let mut choices = of.get();
            at_most(lua, &args, 1, "decode_invalid_numbers")?;
            choices.decodes_invalid =
                flag(lua, &args, "decode_invalid_numbers")?.unwrap_or(choices.decodes_invalid);
            of.set(choices);
            Ok(choices.decodes_invalid)
        })?,
    )?;
    let of = choices.clone();
    json.raw_set(
        "encode_invalid_numbers",
        lua.create_function(move |lua, args: Variadic<Value>| {
            let mut choices = of.get();
            at_most(lua, &args, 1, "encode_invalid_numbers")?;
            if args.first().and_then(text_of).is_some_and(|word| word == b"null") {
                choices.encodes_invalid = Invalid::Null;
            } else if let Some(yes) = flag(lua, &args, "encode_invalid_numbers")? {
                choices.encodes_invalid = if yes { Invalid::Shown } else { Invalid::Refused };
            }
            of.set(choices);
            Ok(match choices.encodes_invalid {
                Invalid::Refused => Value::Boolean(false),
                Invalid::Shown => Value::Boolean(true),
                Invalid::Null => Value::String(lua.create_string("null")?),
            })
        })?,
    )?;
    Ok(())
}

fn at_most(lua: &Lua, args: &[Value], count: usize, function: &str) -> mlua::Result<()> {
    if args.len() > count { Err(bad(lua, count + 1, function, "found too many arguments")) } else { Ok(()) }
}

fn integer(
    lua: &Lua,
    args: &[Value],
    index: usize,
    function: &str,
    (min, max): (i64, i64),
    present: i64,
) -> mlua::Result<i64> {
    if matches!(args.get(index - 1), None | Some(Value::Nil)) {
        return Ok(present);
    }
    let given = number(lua, args, index, function)? as i64;
    if (min..=max).contains(&given) {
        return Ok(given);
    }
    Err(bad(lua, index, function, &format!("expected integer between {min} and {max}")))
}

/// The first argument as a yes or no; none where it is missing.
fn flag(lua: &Lua, args: &[Value], function: &str) -> mlua::Result<Option<bool>> {
    match args.first() {
        None | Some(Value::Nil) => Ok(None),
        Some(Value::Boolean(yes)) => Ok(Some(*yes)),
        Some(_) => match text(lua, args, 1, function)?.as_slice() {
            b"on" => Ok(Some(true)),
            b"off" => Ok(Some(false)),
            word => {
                let why = format!("invalid option '{}'", String::from_utf8_lossy(word));
                Err(bad(lua, 1, function, &why))
            }
        },
    }
}

/// Tables stand in others to this depth at most, whatever a script chooses: Lua has 8,000 places for what is open, and
/// where none is left the process ends.
const ENCODE_DEPTH_LIMIT: i64 = 3500;
const DECODE_DEPTH_LIMIT: i64 = 7000;

/// A table that is being written, without a handle for each of its items: there may be any number of them.
struct OpenTable {
    table: Table,
    /// The keys, of what is no list.
    keys: Option<Table>,
    count: i64,
    /// How many items are written.
    written: i64,
}

impl OpenTable {
    /// The key, if it has one, and the value of the next item.
    fn next(&mut self) -> mlua::Result<Option<(Value, Value)>> {
        if self.written == self.count {
            return Ok(None);
        }
        self.written += 1;
        let Some(keys) = &self.keys else { return Ok(Some((Value::Nil, self.table.raw_get(self.written)?))) };
        let key: Value = keys.raw_get(self.written)?;
        let value = self.table.raw_get(&key)?;
        Ok(Some((key, value)))
    }
}

struct Encoder<'l> {
    lua: &'l Lua,
    choices: Choices,
}

impl Encoder<'_> {
    fn refused(&self, what: &str, why: &str) -> mlua::Error {
        lua_error(self.lua, &format!("Cannot serialise {what}: {why}"))
    }

    /// Tables that are in work stand on a list, not on the stack: a script decides how deep they go.
    fn encode(&self, value: &Value, out: &mut Vec<u8>) -> mlua::Result<()> {
        let mut open = Vec::new();
        self.begin(value, &mut open, out)?;
        while let Some(table) = open.last_mut() {
            check_room(out.len())?;
            let Some((key, value)) = table.next()? else {
                out.push(if table.keys.is_some() { b'}' } else { b']' });
                open.pop();
                continue;
            };
            if table.written > 1 {
                out.push(b',');
            }
            if table.keys.is_some() {
                self.push_key(&key, out)?;
            }
            self.begin(&value, &mut open, out)?;
        }
        Ok(())
    }

    /// Writes a value, or the beginning of a table, which is then open.
    fn begin(&self, value: &Value, open: &mut Vec<OpenTable>, out: &mut Vec<u8>) -> mlua::Result<()> {
        match value {
            Value::String(text) => push_string(&text.as_bytes(), out)?,
            Value::Integer(n) => self.push_number(*n as f64, out)?,
            Value::Number(number) => self.push_number(*number, out)?,
            Value::Boolean(yes) => out.extend_from_slice(if *yes { b"true" } else { b"false" }),
            Value::Nil => out.extend_from_slice(b"null"),
            Value::LightUserData(data) if data.0.is_null() => out.extend_from_slice(b"null"),
            Value::Table(table) => {
                let depth = open.len() as i64 + 1;
                if depth > self.choices.encode_depth_max.min(ENCODE_DEPTH_LIMIT) {
                    let text = format!("Cannot serialise, excessive nesting ({depth})");
                    return Err(lua_error(self.lua, &text));
                }
                let (keys, count) = match self.list_len(table)? {
                    Some(len) => {
                        check_room(out.len().saturating_add(len as usize))?;
                        (None, len)
                    }
                    None => {
                        let (keys, mut count) = (self.lua.create_table()?, 0);
                        for pair in table.pairs::<Value, Value>() {
                            count += 1;
                            keys.raw_set(count, pair?.0)?;
                        }
                        (Some(keys), count)
                    }
                };
                out.push(if keys.is_some() { b'{' } else { b'[' });
                open.push(OpenTable { table: table.clone(), keys, count, written: 0 });
            }
            other => return Err(self.refused(type_name(other), "type not supported")),
        }
        Ok(())
    }

    /// The length of a table as a list, if that is what it is.
    fn list_len(&self, table: &Table) -> mlua::Result<Option<i64>> {
        let (mut max, mut count) = (0, 0);
        for pair in table.pairs::<Value, Value>() {
            match pair?.0 {
                Value::Integer(index) if index >= 1 => max = max.max(index),
                _ => return Ok(None),
            }
            count += 1;
        }
        let Choices { converts_sparse, sparse_ratio, sparse_safe, .. } = self.choices;
        if sparse_ratio > 0 && max > count * sparse_ratio && max > sparse_safe {
            if !converts_sparse {
                return Err(self.refused("table", "excessively sparse array"));
            }
            return Ok(None);
        }
        Ok((max > 0).then_some(max))
    }

    fn push_key(&self, key: &Value, out: &mut Vec<u8>) -> mlua::Result<()> {
        let number = match key {
            Value::String(text) => {
                push_string(&text.as_bytes(), out)?;
                out.push(b':');
                return Ok(());
            }
            Value::Integer(n) => *n as f64,
            Value::Number(number) => *number,
            other => return Err(self.refused(type_name(other), "table key must be a number or string")),
        };
        out.push(b'"');
        self.push_number(number, out)?;
        out.extend_from_slice(b"\":");
        Ok(())
    }

    fn push_number(&self, number: f64, out: &mut Vec<u8>) -> mlua::Result<()> {
        if !number.is_finite() {
            match self.choices.encodes_invalid {
                Invalid::Refused => return Err(self.refused("number", "must not be NaN or Inf")),
                Invalid::Null => {
                    out.extend_from_slice(b"null");
                    return Ok(());
                }
                Invalid::Shown => {}
            }
        }
        out.extend_from_slice(format_general(number, self.choices.precision as usize).as_bytes());
        Ok(())
    }
}

fn push_string(text: &[u8], out: &mut Vec<u8>) -> mlua::Result<()> {
    check_room(out.len() + text.len())?;
    out.push(b'"');
    for (index, byte) in text.iter().enumerate() {
        if index.is_multiple_of(1 << 16) {
            check_room(out.len())?; // A byte becomes six at most.
        }
        match byte {
            b'"' | b'\\' | b'/' => out.extend([b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            0..32 | 127 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
    Ok(())
}

/// A token of JSON.
enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    String(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    /// None, and why not.
    Error(&'static str),
}

impl Token {
    fn name(&self) -> &'static str {
        match self {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::String(_) => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Error(why) => why,
        }
    }
}

struct Decoder<'a> {
    lua: &'a Lua,
    choices: Choices,
    data: &'a [u8],
    at: usize,
}

impl Decoder<'_> {
    fn unexpected(&self, expected: &str, (at, found): &(usize, Token)) -> mlua::Error {
        let found = found.name();
        lua_error(self.lua, &format!("Expected {expected} but found {found} at character {}", at + 1))
    }

    /// The next token, and where it begins or is wrong.
    fn token(&mut self) -> (usize, Token) {
        while matches!(self.data.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        let at = self.at;
        let rest = &self.data[at..];
        let Some(first) = rest.first() else { return (at, Token::End) };
        let single = match first {
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b':' => Token::Colon,
            b',' => Token::Comma,
            b'"' => return self.string(),
            b'-' | b'0'..=b'9' if !self.choices.decodes_invalid && is_invalid_number(rest) => {
                return (at, Token::Error("invalid number"));
            }
            b'-' | b'0'..=b'9' => return (at, self.number()),
            _ => {
                for (word, token) in
                    [("true", Token::Boolean(true)), ("false", Token::Boolean(false)), ("null", Token::Null)]
                {
                    if rest.starts_with(word.as_bytes()) {
                        self.at += word.len();
                        return (at, token);
                    }
                }
                if self.choices.decodes_invalid && is_invalid_number(rest) {
                    return (at, self.number());
                }
                return (at, Token::Error("invalid token"));
            }
        };
        self.at += 1;
        (at, single)
    }

    fn number(&mut self) -> Token {
        match parse_number(&self.data[self.at..]) {
            Some((number, len)) => {
                self.at += len;
                Token::Number(number)
            }
            None => Token::Error("invalid number"),
        }
    }

    fn string(&mut self) -> (usize, Token) {
        let start = self.at;
        let mut text = Vec::new();
        let mut at = start + 1;
        loop {
            match self.data.get(at) {
                None => return (at, Token::Error("unexpected end of string")),
                Some(b'"') => break,
                Some(b'\\') => {
                    let escaped = match self.data.get(at + 1) {
                        Some(b'u') => match self.unicode(at, &mut text) {
                            Some(next) => {
                                at = next;
                                continue;
                            }
                            None => return (at, Token::Error("invalid unicode escape code")),
                        },
                        Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
                        Some(b'b') => 8,
                        Some(b'f') => 12,
                        Some(b'n') => b'\n',
                        Some(b'r') => b'\r',
                        Some(b't') => b'\t',
                        _ => return (at, Token::Error("invalid escape code")),
                    };
                    text.push(escaped);
                    at += 2;
                }
                Some(byte) => {
                    text.push(*byte);
                    at += 1;
                }
            }
        }
        self.at = at + 1;
        (start, Token::String(text))
    }

    /// Adds the character whose escape begins at `at`. Returns where it ends.
    fn unicode(&self, at: usize, text: &mut Vec<u8>) -> Option<usize> {
        let unit = |at: usize| {
            let digits = self.data.get(at + 2..at + 6)?;
            let is_escape = self.data[at] == b'\\' && self.data[at + 1] == b'u';
            let digits = std::str::from_utf8(digits).ok().filter(|_| is_escape)?;
            digits
                .bytes()
                .all(|digit| digit.is_ascii_hexdigit())
                .then(|| u32::from_str_radix(digits, 16).ok())?
        };
        let high = unit(at)?;
        let (code, next) = match high {
            0xD800..0xDC00 => {
                let low = unit(at + 6).filter(|low| (0xDC00..0xE000).contains(low))?;
                (0x1_0000 + ((high & 0x3FF) << 10 | low & 0x3FF), at + 12)
            }
            _ => (high, at + 6),
        };
        let character = char::from_u32(code)?;
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Some(next)
    }

    fn descend(&self, depth: usize) -> mlua::Result<()> {
        if depth as i64 <= self.choices.decode_depth_max.min(DECODE_DEPTH_LIMIT) {
            return Ok(());
        }
        let at = self.at;
        Err(lua_error(
            self.lua,
            &format!("Found too many nested data structures ({depth}) at character {at}"),
        ))
    }

    /// A value that begins with this token. Tables that are in work stand on a list, not on the stack.
    fn value(&mut self, first: (usize, Token)) -> mlua::Result<Value> {
        let mut open: Vec<(Table, Option<Vec<u8>>, usize)> = Vec::new();
        let mut token = first;
        loop {
            let mut value = match token.1 {
                Token::String(text) => Value::String(self.lua.create_string(text)?),
                Token::Number(number) => Value::Number(number),
                Token::Boolean(yes) => Value::Boolean(yes),
                Token::Null => Value::NULL,
                Token::ObjectBegin | Token::ArrayBegin => {
                    let table = self.lua.create_table()?;
                    self.descend(open.len() + 1)?;
                    let is_object = matches!(token.1, Token::ObjectBegin);
                    token = self.token();
                    match (&token.1, is_object) {
                        (Token::ObjectEnd, true) | (Token::ArrayEnd, false) => Value::Table(table),
                        (_, true) => {
                            let key = self.key(token)?;
                            open.push((table, Some(key), 0));
                            token = self.token();
                            continue;
                        }
                        (_, false) => {
                            open.push((table, None, 0));
                            continue;
                        }
                    }
                }
                _ => return Err(self.unexpected("value", &token)),
            };
            // The value is complete, and with it the tables that end behind it.
            loop {
                let Some((table, key, count)) = open.last_mut() else { return Ok(value) };
                *count += 1;
                match key {
                    Some(key) => table.raw_set(self.lua.create_string(&*key)?, value)?,
                    None => table.raw_set(*count, value)?,
                }
                token = self.token();
                match (&token.1, key.is_some()) {
                    (Token::ObjectEnd, true) | (Token::ArrayEnd, false) => {
                        let (table, ..) = open.pop().expect("it is the last one");
                        value = Value::Table(table);
                    }
                    (Token::Comma, true) => {
                        let next = self.token();
                        let next = self.key(next)?;
                        open.last_mut().expect("it is open").1 = Some(next);
                        token = self.token();
                        break;
                    }
                    (Token::Comma, false) => {
                        token = self.token();
                        break;
                    }
                    (_, true) => return Err(self.unexpected("comma or object end", &token)),
                    (_, false) => return Err(self.unexpected("comma or array end", &token)),
                }
            }
        }
    }

    /// The key that this token is, and the colon behind it.
    fn key(&mut self, token: (usize, Token)) -> mlua::Result<Vec<u8>> {
        let Token::String(key) = token.1 else {
            return Err(self.unexpected("object key string", &token));
        };
        let colon = self.token();
        if matches!(colon.1, Token::Colon) { Ok(key) } else { Err(self.unexpected("colon", &colon)) }
    }
}

/// Whether this begins with a number that C knows and JSON does not.
fn is_invalid_number(text: &[u8]) -> bool {
    let rest = match text {
        [b'+', ..] => return true,
        [b'-', rest @ ..] => rest,
        rest => rest,
    };
    match rest {
        [b'0', second, ..] => matches!(second, b'x' | b'X' | b'0'..=b'9'),
        [b'0'..=b'9', ..] => false,
        _ => {
            rest.len() >= 3
                && (rest[..3].eq_ignore_ascii_case(b"inf") || rest[..3].eq_ignore_ascii_case(b"nan"))
        }
    }
}

/// The number at the start of a text, as C's `strtod` reads it, and its length.
fn parse_number(text: &[u8]) -> Option<(f64, usize)> {
    let (sign, at) = match text.first() {
        Some(b'-') => (-1.0, 1),
        Some(b'+') => (1.0, 1),
        _ => (1.0, 0),
    };
    let rest = &text[at..];
    for (word, number) in [("infinity", f64::INFINITY), ("inf", f64::INFINITY), ("nan", f64::NAN)] {
        if rest.len() >= word.len() && rest[..word.len()].eq_ignore_ascii_case(word.as_bytes()) {
            return Some((sign * number, at + word.len()));
        }
    }
    if let [b'0', b'x' | b'X', digits @ ..] = rest {
        let count = digits.iter().take_while(|digit| digit.is_ascii_hexdigit()).count();
        if count > 0 {
            let number = digits[..count].iter().fold(0.0, |number, digit| {
                number * 16.0 + f64::from((*digit as char).to_digit(16).unwrap_or(0))
            });
            return Some((sign * number, at + 2 + count));
        }
    }
    let digits =
        |from: usize| rest[from.min(rest.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(0);
    let mut end = whole;
    if rest.get(end) == Some(&b'.') && whole + digits(end + 1) > 0 {
        end += 1 + digits(end + 1);
    }
    if end == 0 {
        return None;
    }
    if matches!(rest.get(end), Some(b'e' | b'E')) {
        let signed = usize::from(matches!(rest.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + signed);
        if exponent > 0 {
            end += 1 + signed + exponent;
        }
    }
    let number = std::str::from_utf8(&rest[..end]).ok()?.parse::<f64>().ok()?;
    Some((sign * number, at + end))
}
