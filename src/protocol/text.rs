//! The text protocol: a line is a request, its replies are lines.
//!
//! ```text
//! line   = word (blank word)... [\r]\n           blanks are spaces and tabs
//! word   = "..." with \" \\ \n \r \t \xHH  |  '...' with \'  |  bytes other than blanks
//! ```
//!
//! A quoted word ends with its closing quote and stands between blanks; any other quote, and a backslash that
//! begins no escape, is an ordinary byte. Where a command takes a value last, the value is the rest of the
//! line, or what the quotes hold if the rest is one quoted word.

use std::borrow::Cow;
use std::io::Write;

use shard::{Error, Reply, command::TextForm};

use super::{
    INLINE_BYTES_MAX, LINE_BYTES_MAX, Parsed, Parser, ProtocolError, TooLong, push_echo, push_integer, resp,
    starts_tls,
};

/// What the server says when a client connects to the port of the text protocol.
pub const GREETING: &[u8] = b"+OK kvlite ready\n";

const NOT_FOUND: &[u8] = b"-ERR key not found\n";
const NIL: &[u8] = b"(nil)";
const EMPTY_LIST: &[u8] = b"(empty list)";
const NO_ANOMALIES: &[u8] = b"(no anomalies detected)\n";

impl Parser {
    /// Parses the line at the start of `input`, or goes on where the last call stopped.
    pub(super) fn parse_text(
        &mut self,
        input: &[u8],
        resp_port: Option<u16>,
    ) -> Result<Parsed, ProtocolError> {
        match (starts_tls(input), input) {
            (None, _) | (_, [b'*']) => return Ok(Parsed::Incomplete { needed: 2 }),
            (Some(true), _) => return Err(ProtocolError::Tls),
            (_, [b'*', b'0'..=b'9' | b'-', ..]) => return Err(ProtocolError::RespOnTextPort { resp_port }),
            _ => {}
        }
        let max = if self.guest { INLINE_BYTES_MAX } else { LINE_BYTES_MAX };
        // The carriage return before the newline is no part of the line, so one byte more may come before it.
        let end = self.line_end(input, max + 1).map_err(|TooLong| ProtocolError::LineTooLong)?;
        let Some(end) = end else { return Ok(Parsed::Incomplete { needed: input.len() + 1 }) };
        let line = &input[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > max {
            return Err(ProtocolError::LineTooLong);
        }
        let consumed = end + 1;
        let Some(mut at) = self.parse_word(line, 0) else { return Ok(Parsed::Skip { consumed }) };
        let finished = self.finish(input, consumed)?;
        let value_index = self.command.and_then(|row| row.rest_of_line);
        while value_index != Some(self.arg_count()) {
            let Some(next) = self.parse_word(line, at) else {
                self.refuse_http_get(input)?;
                return Ok(finished);
            };
            at = next;
        }
        self.parse_rest(line, at);
        Ok(finished)
    }

    /// Parses the word at or behind `at`; returns the offset behind it, or `None` at the end of the line.
    fn parse_word(&mut self, line: &[u8], at: usize) -> Option<usize> {
        let start = at + line[at..].iter().position(|byte| !is_blank(*byte))?;
        if let Some(quoted) = Quoted::at(line, start) {
            self.push_quoted(line, &quoted);
            return Some(quoted.end + 1);
        }
        let len = memchr::memchr2(b' ', b'\t', &line[start..]).unwrap_or(line.len() - start);
        self.args.push(start, len);
        Some(start + len)
    }

    /// Takes the rest of the line from `at` as one argument, unless there is none.
    fn parse_rest(&mut self, line: &[u8], at: usize) {
        let Some(blanks) = line[at..].iter().position(|byte| !is_blank(*byte)) else { return };
        let start = at + blanks;
        let end = line.iter().rposition(|byte| !is_blank(*byte)).map_or(start, |last| last + 1);
        match Quoted::at(line, start) {
            Some(quoted) if quoted.end + 1 == end => self.push_quoted(line, &quoted),
            _ => self.args.push(start, end - start),
        }
    }

    fn push_quoted(&mut self, line: &[u8], quoted: &Quoted) {
        let inner = &line[quoted.start..quoted.end];
        let len = if quoted.has_escapes {
            let single = line[quoted.end] == b'\'';
            unescape(inner, single, &mut self.args.scratch_of(line)[quoted.start..])
        } else {
            inner.len()
        };
        self.args.push(quoted.start, len);
    }
}

/// A quoted word of a line.
struct Quoted {
    /// Offset of the first byte between the quotes.
    start: usize,
    /// Offset of the closing quote.
    end: usize,
    has_escapes: bool,
}

impl Quoted {
    /// The quoted word at `at`, if one begins there and is closed before a blank or the end of the line.
    ///
    /// A search that fails ends at the next word that begins with the same quote, so that all searches of a
    /// line together are linear in its length.
    fn at(line: &[u8], at: usize) -> Option<Self> {
        let quote = *line.get(at).filter(|byte| matches!(byte, b'"' | b'\''))?;
        let mut has_escapes = false;
        let mut from = at + 1;
        loop {
            let found = from + memchr::memchr2(quote, b'\\', line.get(from..)?)?;
            let following = line.get(found + 1);
            if line[found] == quote {
                let closed = following.is_none_or(|byte| is_blank(*byte));
                return closed.then_some(Quoted { start: at + 1, end: found, has_escapes });
            }
            let is_escape = quote == b'"' || following == Some(&b'\'');
            has_escapes |= is_escape;
            from = found + if is_escape { 2 } else { 1 };
        }
    }
}

/// Writes `inner`, the inside of a quoted word, to the start of `to` with its escapes replaced; returns the
/// number of bytes.
fn unescape(inner: &[u8], single: bool, to: &mut [u8]) -> usize {
    let (mut at, mut len) = (0, 0);
    while at < inner.len() {
        let (byte, taken) = match &inner[at..] {
            [b'\\', b'\'', ..] if single => (b'\'', 2),
            [byte, ..] if single => (*byte, 1),
            [b'\\', escaped @ (b'"' | b'\\'), ..] => (*escaped, 2),
            [b'\\', b'n', ..] => (b'\n', 2),
            [b'\\', b'r', ..] => (b'\r', 2),
            [b'\\', b't', ..] => (b'\t', 2),
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (resp::hex_digit(*high) << 4 | resp::hex_digit(*low), 4)
            }
            rest => (rest[0], 1),
        };
        to[len] = byte;
        len += 1;
        at += taken;
    }
    len
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Appends the answer to a request of `arg_count` arguments.
pub(super) fn write_reply(reply: &Reply<'_>, form: TextForm, arg_count: usize, out: &mut Vec<u8>) {
    match (reply, form) {
        (Reply::Nil | Reply::NilArray, _) => out.extend_from_slice(NOT_FOUND),
        (Reply::Integer(1), TextForm::OkOrNotFound) if arg_count == 1 => out.extend_from_slice(b"+OK\n"),
        (Reply::Integer(0), TextForm::OkOrNotFound) if arg_count == 1 => out.extend_from_slice(NOT_FOUND),
        (Reply::Map(fields), TextForm::Fields) => {
            out.extend_from_slice(b"+OK");
            for (name, value) in fields {
                out.push(b' ');
                push_field(name, value, out);
            }
            out.push(b'\n');
        }
        (Reply::Array(items), TextForm::Sentences) => {
            if items.is_empty() {
                out.extend_from_slice(NO_ANOMALIES);
            }
            for item in items {
                let Reply::Map(fields) = item else { unreachable!("a list of maps says so in its row") };
                push_scalar(&fields[0].1, out);
                out.push(b'\n');
            }
        }
        _ => write_item(reply, out),
    }
}

/// Appends what stands before the items of a list: a word for those that have none.
pub(super) fn begin_list(len: usize, out: &mut Vec<u8>) {
    if len == 0 {
        out.extend_from_slice(EMPTY_LIST);
        out.push(b'\n');
    }
}

/// Appends one item of a list. A list in a list becomes its items; a map becomes one line, the value of its
/// first field and then the other fields in parentheses.
pub(super) fn write_item(item: &Reply<'_>, out: &mut Vec<u8>) {
    match item {
        Reply::Array(items) | Reply::Set(items) => {
            begin_list(items.len(), out);
            items.iter().for_each(|item| write_item(item, out));
        }
        Reply::Push(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b' ');
                }
                push_word(item, out);
            }
            out.push(b'\n');
        }
        Reply::Text(text) => {
            for line in text.trim_end().split('\n') {
                out.extend_from_slice(line.trim_end_matches('\r').as_bytes());
                out.push(b'\n');
            }
        }
        Reply::Map(fields) => {
            push_map(fields, out);
            out.push(b'\n');
        }
        Reply::Pairs(pairs) => {
            begin_list(pairs.len(), out);
            for (name, value) in pairs {
                write_item(name, out);
                write_item(value, out);
            }
        }
        _ => {
            push_scalar(item, out);
            out.push(b'\n');
        }
    }
}

fn push_map(fields: &[(Cow<'static, str>, Reply<'_>)], out: &mut Vec<u8>) {
    let Some(((_, title), details)) = fields.split_first() else {
        return out.extend_from_slice(EMPTY_LIST);
    };
    push_scalar(title, out);
    for (index, (name, value)) in details.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b" (" } else { b" " });
        push_field(name, value, out);
    }
    if !details.is_empty() {
        out.push(b')');
    }
}

/// Appends a part of a message, which is one word of its line: what a word could not hold is quoted.
fn push_word(item: &Reply<'_>, out: &mut Vec<u8>) {
    match item {
        Reply::Bulk(bytes) if bytes.iter().any(|byte| is_blank(*byte)) => push_quoted(bytes, out),
        _ => push_scalar(item, out),
    }
}

/// Appends `name=value`; the value is one word, quoted where it has to be.
fn push_field(name: &str, value: &Reply<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    match value {
        Reply::Simple(text) => out.extend_from_slice(text.as_bytes()),
        Reply::Bool(yes) => out.extend_from_slice(if *yes { b"true" } else { b"false" }),
        Reply::Bulk(bytes) if bytes.iter().any(|byte| is_blank(*byte)) => push_quoted(bytes, out),
        Reply::Text(text) if text.bytes().any(is_blank) => push_quoted(text.as_bytes(), out),
        _ => push_scalar(value, out),
    }
}

/// Appends a reply that fits one line, without the line's end.
fn push_scalar(reply: &Reply<'_>, out: &mut Vec<u8>) {
    match reply {
        Reply::Ok => out.extend_from_slice(b"+OK"),
        Reply::Simple(text) => {
            out.push(b'+');
            out.extend_from_slice(text.as_bytes());
        }
        Reply::Status(text) => {
            out.push(b'+');
            push_echo(text, out);
        }
        Reply::Line(line) => out.extend_from_slice(line.as_bytes()),
        Reply::Integer(n) => push_integer(*n, out),
        Reply::Bool(yes) => push_integer(u8::from(*yes), out),
        Reply::Double(digits) => out.extend_from_slice(digits.as_bytes()),
        Reply::BigNumber(bytes) | Reply::Bulk(bytes) | Reply::Verbatim(_, bytes) => push_value(bytes, out),
        Reply::Shared(bytes) => push_value(bytes, out),
        Reply::Text(text) => push_value(text.as_bytes(), out),
        Reply::Nil | Reply::NilArray => out.extend_from_slice(NIL),
        Reply::Error(error) => push_error(error, out),
        // A field that is itself a list or a map shows its size: its line stays one line.
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => push_integer(items.len(), out),
        Reply::Map(fields) => push_integer(fields.len(), out),
        Reply::Pairs(pairs) => push_integer(pairs.len(), out),
    }
}

/// Appends a value as it stands, or quoted where the bytes alone could be read as something else: by a client
/// as another reply, or by this module as other bytes.
fn push_value(bytes: &[u8], out: &mut Vec<u8>) {
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
    } else {
        push_quoted(bytes, out);
    }
}

fn is_plain(bytes: &[u8]) -> bool {
    let ([first, ..], [.., last]) = (bytes, bytes) else { return false };
    let starts_reply = matches!(first, b'"' | b'+') || bytes.starts_with(b"-ERR");
    let loses_bytes = is_blank(*first)
        || is_blank(*last)
        || Quoted::at(bytes, 0).is_some_and(|quoted| quoted.end + 1 == bytes.len());
    !starts_reply && !loses_bytes && bytes != NIL && bytes != EMPTY_LIST && !holds_control_byte(bytes)
}

/// Whether any byte is an ASCII control byte. Blocks without an exit inside let the compiler use vectors.
fn holds_control_byte(bytes: &[u8]) -> bool {
    bytes.chunks(64).any(|block| block.iter().fold(false, |found, byte| found | byte.is_ascii_control()))
}

fn push_quoted(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    for byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ if byte.is_ascii_control() => {
                let [high, low] = [byte >> 4, byte & 15].map(|half| HEX[usize::from(half)]);
                out.extend_from_slice(&[b'\\', b'x', high, low]);
            }
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}

/// Appends the line of an error without its end. Faults without words of their own here have those of RESP.
fn push_error(error: &Error, out: &mut Vec<u8>) {
    let text = match error {
        Error::UnknownCommand { name, .. } => {
            out.extend_from_slice(b"-ERR unknown command '");
            push_echo(name, out);
            "'"
        }
        Error::WrongArity(command) if command.container.is_none() => {
            for part in ["-ERR ", command.name, " requires ", command.needs] {
                out.extend_from_slice(part.as_bytes());
            }
            return;
        }
        Error::InvalidExpire(_) | Error::ExpireNotAnInteger => "-ERR invalid TTL",
        Error::Loading { percent } => {
            out.extend_from_slice(b"-ERR loading, try again: ");
            push_integer(*percent, out);
            " percent"
        }
        Error::NotAnInteger => "-ERR value is not an integer",
        Error::InvalidDbIndex => "-ERR database index is not an integer",
        Error::ExecAborted => "-ERR transaction discarded because of previous errors",
        Error::ExecAbortedBy(error) => {
            out.extend_from_slice(b"-ERR transaction discarded because of: ");
            return resp::write_cause(error, out);
        }
        Error::ConnectionLimit => "-ERR connection limit reached",
        Error::ValueTooLarge { limit } => {
            out.extend_from_slice(b"-ERR value would exceed ");
            push_integer(*limit, out);
            " bytes"
        }
        Error::InsufficientData(refusal) => {
            write!(out, "-ERR analytics not enabled or insufficient data: {refusal}")
                .expect("writing to memory succeeds");
            return;
        }
        Error::WritesRefused { .. } | Error::NotOnDisk { .. } => {
            out.extend_from_slice(b"-ERR ");
            return resp::write_disk_fault(error, out);
        }
        _ => return resp::write_error(error, out),
    };
    out.extend_from_slice(text.as_bytes());
}
