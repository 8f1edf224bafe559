//! Both wire protocols: bytes become requests, replies become bytes.
//!
//! Owns the grammar of the text protocol and of RESP, the bounds of one request, and the wording of every
//! reply and error. It never does I/O, never executes a command and never decides what a connection does
//! next, except that a [`ProtocolError`] ends it.

mod resp;
mod text;

use std::{fmt, io::Write};

use bytes::Bytes;
use shard::{
    Command, Error, Reply, Request, Span,
    command::{self, Flags, TextForm},
    parse_integer,
};

pub use resp::first_args;
pub use text::GREETING;

/// The most bytes of one request. It bounds what a half-sent request can hold, and keeps every offset within
/// the 32 bits of a [`Span`].
pub const REQUEST_BYTES_MAX: usize = 1 << 30;

/// The most bytes of one argument of a RESP request.
pub const BULK_BYTES_MAX: usize = 512 << 20;

/// The most elements of a RESP request: as many as empty arguments, of six bytes each, fill the largest one.
pub const ELEMENTS_MAX: usize = REQUEST_BYTES_MAX / 6;

/// The most bytes of an inline RESP request and of the line of a length, without the line's end.
pub const INLINE_BYTES_MAX: usize = 64 << 10;

/// The most bytes of a line of the text protocol, without the line's end.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// The most elements of a RESP request of a client that has yet to authenticate.
pub const GUEST_ELEMENTS_MAX: usize = 10;

/// The most bytes of one argument of a client that has yet to authenticate.
pub const GUEST_BULK_BYTES_MAX: usize = 16 << 10;

/// The most arguments of a command that takes no list of keys or names: no two options need be given twice.
const OPTIONS_MAX: usize = 128;

/// The most bytes that an error echoes of a name or of the arguments.
const ECHO_BYTES_MAX: usize = 128;

/// The arguments and unescaped bytes for which a parser keeps its memory between requests.
const SPANS_KEPT: usize = 512;
const SCRATCH_BYTES_KEPT: usize = 4 << 10;

/// From this size on a value is sent from where it lies: it takes three sends, which cost more than to copy less.
pub const LONE_VALUE_BYTES_MIN: usize = 256 << 10;

/// What stands behind a value in RESP.
pub const VALUE_END: &[u8] = b"\r\n";

/// The language in which a client is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The kvlite text protocol.
    Text,
    /// RESP2, as Redis speaks it before `HELLO 3`.
    Resp2,
    /// RESP3, after `HELLO 3`.
    Resp3,
}

/// The language of a listener, with what its errors have to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The kvlite text protocol. An error that meets a RESP client names `resp_port`, where there is one.
    Text {
        /// The port of the RESP listener.
        resp_port: Option<u16>,
    },
    /// RESP2 and RESP3, which differ in replies only.
    Resp,
}

/// What the bytes at hand amount to. All byte counts are from the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole request of `consumed` bytes. [`Parser::request`] shows it until the next call of `parse`.
    Request {
        /// Bytes of the input that belong to it.
        consumed: usize,
    },
    /// `consumed` bytes hold nothing to execute: a blank line, an empty or a negative array.
    Skip {
        /// Bytes of the input to drop.
        consumed: usize,
    },
    /// The request goes on. The next input has to begin with the same bytes; before it holds `needed` bytes
    /// another call finds nothing new. `needed` rests on what the client claims: allocate for bytes that
    /// have arrived, never for this.
    Incomplete {
        /// The least size in bytes of an input that lets the parser proceed.
        needed: usize,
    },
}

/// Finds the requests in what one client sends.
///
/// The input of [`parse`](Parser::parse) always begins at the start of a request. Where a request is
/// incomplete the parser remembers how far it came, so that the work is linear in the bytes received however
/// they are cut, and the same requests come of it. A request that needs no unescaping lies in the input and
/// nothing is copied; its spans, and the scratch copy of one with escapes, reuse the memory of the last.
#[derive(Debug)]
pub struct Parser {
    listener: Listener,
    guest: bool,
    command: Option<&'static Command>,
    args: Arguments,
    progress: Progress,
}

/// How far an incomplete request has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// Everything before this offset is parsed.
    at: usize,
    /// No end of the line that begins at `at` lies before this offset, which may be one of an earlier line.
    scanned: usize,
    /// Elements of the array that are still to come; 0 while its header is.
    elements_left: usize,
}

/// The elements of a request, its name first.
#[derive(Debug, Default)]
struct Arguments {
    spans: Vec<Span>,
    /// When not empty, a copy of the request's line in which escapes have been replaced. Unescaping only
    /// shortens, so an element starts at the same offset here and in the input, and spans fit both.
    scratch: Vec<u8>,
}

impl Arguments {
    fn push(&mut self, start: usize, len: usize) {
        debug_assert!(start + len <= REQUEST_BYTES_MAX, "a request is bounded");
        self.spans.push(Span { start: start as u32, len: len as u32 });
    }

    /// As [`Self::push`], for requests of any size.
    #[inline]
    fn try_push(&mut self, start: usize, len: usize) -> Result<(), ProtocolError> {
        if self.spans.len() == self.spans.capacity() {
            self.spans.try_reserve(1).map_err(|_| ProtocolError::OutOfMemory)?;
        }
        self.push(start, len);
        Ok(())
    }

    /// The copy of `line` in which escapes may be replaced.
    fn scratch_of(&mut self, line: &[u8]) -> &mut [u8] {
        if self.scratch.is_empty() {
            self.scratch.extend_from_slice(line);
        }
        &mut self.scratch
    }

    fn clear(&mut self) {
        self.spans.clear();
        self.scratch.clear();
        if self.spans.capacity() > SPANS_KEPT || self.scratch.capacity() > SCRATCH_BYTES_KEPT {
            self.spans.shrink_to(SPANS_KEPT);
            self.scratch.shrink_to(SCRATCH_BYTES_KEPT);
        }
    }
}

impl Parser {
    /// A parser for a client of this listener; the client counts as authenticated.
    pub fn new(listener: Listener) -> Self {
        Parser {
            listener,
            guest: false,
            command: None,
            args: Arguments::default(),
            progress: Progress::default(),
        }
    }

    /// Whether the client may send requests of any size from now on. One that has yet to authenticate is held
    /// to [`GUEST_ELEMENTS_MAX`] and [`GUEST_BULK_BYTES_MAX`], and to lines of [`INLINE_BYTES_MAX`].
    pub fn set_authenticated(&mut self, yes: bool) {
        self.guest = !yes;
    }

    /// Looks for one request at the start of `input`.
    ///
    /// # Errors
    ///
    /// The client does not speak the listener's language, or sends more than it may. No further request can
    /// be made out: write the error, then close the connection.
    pub fn parse(&mut self, input: &[u8]) -> Result<Parsed, ProtocolError> {
        if self.progress == Progress::default() {
            self.args.clear();
            self.command = None;
        }
        let parsed = match self.listener {
            Listener::Resp => self.parse_resp(input)?,
            Listener::Text { resp_port } => self.parse_text(input, resp_port)?,
        };
        if !matches!(parsed, Parsed::Incomplete { .. }) {
            self.progress = Progress::default();
        }
        Ok(parsed)
    }

    /// The name of the request just parsed, as the client wrote it. `input` is that of `parse`.
    pub fn name<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        self.args.spans.first().map_or(&[], |span| span.of(self.buffer(input)))
    }

    /// The row of the request just parsed; `None` where no command has its name.
    pub fn command(&self) -> Option<&'static Command> {
        self.command
    }

    /// The words of the request just parsed: its name, and its arguments. `input` is that of `parse`.
    pub fn words<'a>(&'a self, input: &'a [u8]) -> impl ExactSizeIterator<Item = &'a [u8]> {
        let buffer = self.buffer(input);
        self.args.spans.iter().map(move |span| span.of(buffer))
    }

    /// The number of arguments of the request just parsed, without the name.
    pub fn arg_count(&self) -> usize {
        self.args.spans.len().saturating_sub(1)
    }

    /// The request just parsed, for the row that [`command`](Parser::command) gave. `input` is that of
    /// `parse`.
    pub fn request<'a>(&'a self, input: &'a [u8], command: &'static Command) -> Request<'a> {
        Request::new(command, self.buffer(input), self.args.spans.get(1..).unwrap_or_default())
    }

    /// As [`Self::request`], for input that may be shared.
    pub fn request_in<'a>(&'a self, memory: &'a Bytes, command: &'static Command) -> Request<'a> {
        match self.args.scratch.is_empty() {
            true => Request::in_memory(command, memory, self.args.spans.get(1..).unwrap_or_default()),
            false => self.request(memory, command),
        }
    }

    /// The error for a request without a row. It holds no more of the request than its text echoes.
    pub fn unknown_command(&self, input: &[u8]) -> Error {
        let cut = |bytes: &[u8], max: usize| Box::from(&bytes[..bytes.len().min(max)]);
        let buffer = self.buffer(input);
        let mut args = Vec::new();
        let mut echoed = 0; // Redis ends the list once it has grown to the limit, quotes and blanks included.
        for span in self.args.spans.iter().skip(1) {
            if echoed >= ECHO_BYTES_MAX {
                break;
            }
            let arg: Box<[u8]> = cut(span.of(buffer), ECHO_BYTES_MAX - echoed);
            echoed += arg.len() + "'' ".len();
            args.push(arg);
        }
        Error::UnknownCommand { name: cut(self.name(input), ECHO_BYTES_MAX), args }
    }

    fn buffer<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        if self.args.scratch.is_empty() { input } else { &self.args.scratch }
    }

    /// The end of the line at the start of `input`: the offset of its newline. At most `max` bytes may stand
    /// before it.
    fn line_end(&mut self, input: &[u8], max: usize) -> Result<Option<usize>, TooLong> {
        let scanned = self.progress.scanned;
        let end = memchr::memchr(b'\n', &input[scanned..]).map(|offset| scanned + offset);
        self.progress.scanned = input.len();
        if end.unwrap_or(input.len()) > max { Err(TooLong) } else { Ok(end) }
    }

    /// Ends a request: looks up its row, and refuses what a web page makes a browser send.
    fn finish(&mut self, input: &[u8], consumed: usize) -> Result<Parsed, ProtocolError> {
        let name = self.name(input);
        let command = command::find(name);
        if command.is_none() && (name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"HOST:")) {
            return Err(ProtocolError::Http);
        }
        self.command = command;
        Ok(Parsed::Request { consumed })
    }

    /// Refuses the first line of a web request by GET, which has the name of a command. GET takes one
    /// argument, so this takes nothing away from any client.
    fn refuse_http_get(&self, input: &[u8]) -> Result<(), ProtocolError> {
        let buffer = self.buffer(input);
        match self.args.spans[..] {
            [name, _, version]
                if name.of(buffer).eq_ignore_ascii_case(b"GET")
                    && version.of(buffer).starts_with(b"HTTP/") =>
            {
                Err(ProtocolError::Http)
            }
            _ => Ok(()),
        }
    }
}

/// A line exceeds its bound.
struct TooLong;

/// Whether `input` starts a TLS handshake; `None` while a byte more is needed to tell.
fn starts_tls(input: &[u8]) -> Option<bool> {
    match input {
        [0x16] => None,
        [0x16, 0x03, ..] => Some(true),
        _ => Some(false),
    }
}

/// Why a connection ends: what the client sent is not the protocol of the listener, or exceeds a bound of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The number of elements is no number or too large.
    InvalidElementCount,
    /// The length of an argument is no number, negative or too large.
    InvalidBulkLength,
    /// A client that has yet to authenticate announced more than [`GUEST_ELEMENTS_MAX`] elements.
    GuestElementCount,
    /// A client that has yet to authenticate announced an argument past [`GUEST_BULK_BYTES_MAX`].
    GuestBulkLength,
    /// An element of a request is not a bulk string; its first byte.
    ExpectedBulk(u8),
    /// The bytes of an argument are not followed by CRLF.
    BulkNotTerminated,
    /// The line of an element count does not end.
    ElementCountTooLong,
    /// The line of an argument's length does not end.
    BulkLengthTooLong,
    /// A request would exceed [`REQUEST_BYTES_MAX`].
    RequestTooLarge,
    /// An inline request exceeds [`INLINE_BYTES_MAX`].
    InlineTooLong,
    /// An inline request has a quote that is not closed, or is followed by something other than a blank.
    UnbalancedQuotes,
    /// A line of the text protocol exceeds [`LINE_BYTES_MAX`].
    LineTooLong,
    /// A RESP client on the port of the text protocol.
    RespOnTextPort {
        /// The port on which RESP is spoken, if it is.
        resp_port: Option<u16>,
    },
    /// There is no memory for so many arguments.
    OutOfMemory,
    /// A TLS client on a port without TLS.
    Tls,
    /// An HTTP client, most likely a browser that a web page misuses. It gets no answer.
    Http,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            ProtocolError::ExpectedBulk(got) => {
                return write!(f, "Protocol error: expected '$', got '{}'", got.escape_ascii());
            }
            ProtocolError::RespOnTextPort { resp_port: Some(port) } => {
                return write!(f, "this port speaks the kvlite text protocol; for RESP use port {port}");
            }
            ProtocolError::RespOnTextPort { resp_port: None } => {
                "this port speaks the kvlite text protocol; for RESP start with --resp-port"
            }
            ProtocolError::InvalidElementCount => "Protocol error: invalid multibulk length",
            ProtocolError::InvalidBulkLength => "Protocol error: invalid bulk length",
            ProtocolError::GuestElementCount => "Protocol error: unauthenticated multibulk length",
            ProtocolError::GuestBulkLength => "Protocol error: unauthenticated bulk length",
            ProtocolError::BulkNotTerminated => "Protocol error: expected CRLF after bulk",
            ProtocolError::ElementCountTooLong => "Protocol error: too big mbulk count string",
            ProtocolError::BulkLengthTooLong => "Protocol error: too big bulk count string",
            ProtocolError::RequestTooLarge => "Protocol error: too big request, the limit is 1 GiB",
            ProtocolError::InlineTooLong => "Protocol error: too big inline request",
            ProtocolError::UnbalancedQuotes => "Protocol error: unbalanced quotes in request",
            ProtocolError::LineTooLong => "line too long",
            ProtocolError::OutOfMemory => "there is no memory for so many arguments",
            ProtocolError::Tls => "Protocol error: this port does not speak TLS",
            ProtocolError::Http => "HTTP request",
        })
    }
}

impl std::error::Error for ProtocolError {}

impl ProtocolError {
    /// Appends what the client is told before its connection is closed: nothing in the case of HTTP.
    pub fn write(&self, dialect: Dialect, out: &mut Vec<u8>) {
        match *self {
            ProtocolError::Http => return,
            ProtocolError::OutOfMemory => resp::write_error(&Error::OutOfMemory, out),
            ProtocolError::ExpectedBulk(got) => {
                out.extend_from_slice(b"-ERR Protocol error: expected '$', got '");
                push_echo(&[got], out); // Redis shows the byte itself, where Display has to escape it.
                out.push(b'\'');
            }
            _ => write!(out, "-ERR {self}").expect("writing to memory succeeds"),
        }
        let is_for_redis = matches!(self, ProtocolError::RespOnTextPort { .. });
        out.extend_from_slice(line_ending(if is_for_redis { Dialect::Resp2 } else { dialect }));
    }
}

/// Whether `command` takes this many arguments, its name not counted.
///
/// # Errors
///
/// [`Error::WrongArity`]: too few, too many, or keys and values that do not pair up. [`Error::Syntax`]: more than
/// [`OPTIONS_MAX`] where they are no list of keys or names.
pub fn check_arity(command: &'static Command, arg_count: usize) -> Result<(), Error> {
    let fits = (command.args_min..=command.args_max).contains(&arg_count);
    if !fits || !command.keys.are_complete(arg_count) {
        return Err(Error::WrongArity(command));
    }
    if arg_count > OPTIONS_MAX && !command.has(Flags::LISTS) { Err(Error::Syntax) } else { Ok(()) }
}

/// Whether a client that is answered in this dialect may ask so: the text protocol takes only times to come.
///
/// # Errors
///
/// [`Error::InvalidExpire`]
#[inline]
pub fn check_time(request: &Request<'_>, dialect: Dialect) -> Result<(), Error> {
    match request.command.positive_arg {
        Some(index)
            if dialect == Dialect::Text
                && parse_integer(request.arg(index)).is_some_and(|amount| amount < 1) =>
        {
            Err(Error::InvalidExpire(request.command))
        }
        _ => Ok(()),
    }
}

/// Appends the answer to a request of `arg_count` arguments; `command` is its row where it has one.
pub fn write_reply(
    reply: &Reply<'_>,
    command: Option<&'static Command>,
    arg_count: usize,
    dialect: Dialect,
    out: &mut Vec<u8>,
) {
    match dialect {
        Dialect::Text => {
            let form = command.map_or(TextForm::Plain, |row| row.text_form);
            text::write_reply(reply, form, arg_count, out);
        }
        Dialect::Resp2 | Dialect::Resp3 => resp::write_reply(reply, dialect, out),
    }
}

/// Appends an error in place of an answer.
pub fn write_error(error: Error, dialect: Dialect, out: &mut Vec<u8>) {
    write_reply(&Reply::Error(error), None, 0, dialect, out);
}

/// The value that a reply consists of, where it is worth being sent from where it lies: between what
/// [`begin_value`] writes and [`VALUE_END`].
pub fn lone_value<'a>(reply: &'a Reply<'_>, dialect: Dialect) -> Option<&'a Bytes> {
    match reply {
        Reply::Shared(value) if dialect != Dialect::Text && value.len() >= LONE_VALUE_BYTES_MIN => {
            Some(value)
        }
        _ => None,
    }
}

/// Appends what stands before a value in RESP.
pub fn begin_value(value: &[u8], out: &mut Vec<u8>) {
    resp::write_count(b'$', value.len(), out);
}

/// Appends what stands before the `len` items of a list. Each item is then written by [`write_item`], now or
/// elsewhere, and appended in order.
pub fn begin_list(len: usize, dialect: Dialect, out: &mut Vec<u8>) {
    match dialect {
        Dialect::Text => text::begin_list(len, out),
        Dialect::Resp2 | Dialect::Resp3 => resp::write_count(b'*', len, out),
    }
}

/// Appends one item of a list.
pub fn write_item(item: &Reply<'_>, dialect: Dialect, out: &mut Vec<u8>) {
    match dialect {
        Dialect::Text => text::write_item(item, out),
        Dialect::Resp2 | Dialect::Resp3 => resp::write_reply(item, dialect, out),
    }
}

/// Appends what stands before the `len` items of a page of SCAN: the cursor of the next page, and the
/// beginning of a list as by [`begin_list`].
pub fn begin_page(next_cursor: u64, len: usize, dialect: Dialect, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    let cursor = Reply::bytes(digits.format(next_cursor).as_bytes());
    if dialect != Dialect::Text {
        resp::write_count(b'*', 2, out);
    }
    write_item(&cursor, dialect, out);
    begin_list(len, dialect, out);
}

/// So many bytes of a request are shown to those that are shown all of them.
const MONITORED_BYTES_MAX: usize = 64 << 10;

/// Appends what a client is shown that is shown all requests, in RESP: when the request ran in microseconds of the Unix
/// time, in which database, from where it came, its name and its arguments.
pub fn push_monitored<'a>(
    unix_us: u64,
    database: u16,
    from: &str,
    words: impl ExactSizeIterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) {
    let (seconds, micros) = (unix_us / 1_000_000, unix_us % 1_000_000);
    write!(out, "+{seconds}.{micros:06} [{database} {from}]").expect("writing to memory succeeds");
    let (count, mut left) = (words.len(), MONITORED_BYTES_MAX);
    for (index, word) in words.enumerate() {
        if left == 0 {
            write!(out, " ... ({} more arguments)", count - index).expect("writing to memory succeeds");
            break;
        }
        let shown = &word[..word.len().min(left)];
        left -= shown.len();
        out.extend_from_slice(b" \"");
        shown.iter().for_each(|byte| push_escaped(*byte, out));
        out.push(b'"');
        if shown.len() < word.len() {
            write!(out, " ... ({} more bytes)", word.len() - shown.len())
                .expect("writing to memory succeeds");
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends lines of [`push_monitored`] as a client is answered in this dialect.
pub fn write_monitored(lines: &[u8], dialect: Dialect, out: &mut Vec<u8>) {
    match dialect {
        Dialect::Text => out.extend(lines.iter().filter(|byte| **byte != b'\r')),
        Dialect::Resp2 | Dialect::Resp3 => out.extend_from_slice(lines),
    }
}

/// Appends a byte as Redis shows those of arguments to people.
fn push_escaped(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x07 => out.extend_from_slice(b"\\a"),
        0x08 => out.extend_from_slice(b"\\b"),
        b' '..=b'~' => out.push(byte),
        _ => write!(out, "\\x{byte:02x}").expect("writing to memory succeeds"),
    }
}

fn line_ending(dialect: Dialect) -> &'static [u8] {
    match dialect {
        Dialect::Text => b"\n",
        Dialect::Resp2 | Dialect::Resp3 => b"\r\n",
    }
}

/// Appends what a client sent to a line that others read: its first bytes, without what could end the line
/// or steer a terminal.
fn push_echo(bytes: &[u8], out: &mut Vec<u8>) {
    let shown = &bytes[..bytes.len().min(ECHO_BYTES_MAX)];
    out.extend(shown.iter().map(|byte| if byte.is_ascii_control() { b' ' } else { *byte }));
}

fn push_integer(n: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

#[cfg(test)]
mod tests;
