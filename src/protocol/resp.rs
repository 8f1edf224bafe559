//! RESP2, RESP3 and inline requests, as Redis 7 reads and writes them.
//!
//! ```text
//! request  = *<elements>\r\n ($<bytes>\r\n<bytes>\r\n)...      the first element is the command's name
//!          | <word> <word> ...\n                               inline: words as a shell would quote them
//! ```
//!
//! Stricter than Redis: a length line and an argument end with CR and LF, not with any two bytes; a count
//! that no request could hold is refused at once; so is the start of a TLS handshake. More lenient: a NUL
//! byte in an inline request is a byte like any other, where Redis waits for more.

use std::fmt;
use std::io::Write;

use shard::{Error, Reply};

use super::{
    Arguments, BULK_BYTES_MAX, Dialect, ELEMENTS_MAX, GUEST_BULK_BYTES_MAX, GUEST_ELEMENTS_MAX,
    INLINE_BYTES_MAX, Parsed, Parser, ProtocolError, REQUEST_BYTES_MAX, TooLong, push_echo, push_integer,
    starts_tls,
};

/// The first arguments of the whole requests at the start of `input`, most of them keys, found by the lengths alone.
/// For reading ahead: it ends where anything is unusual, and only the parser decides what a request is.
pub fn first_args(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = input;
    std::iter::from_fn(move || {
        let elements = short_number(&mut rest, b'*')?;
        let mut first = None;
        for element in 0..elements {
            let len = short_number(&mut rest, b'$')?;
            let bytes = rest.split_off(..len + 2)?;
            if element == 1 {
                first = Some(&bytes[..len]);
            }
        }
        Some(first.unwrap_or_default())
    })
}

/// Takes a line that consists of `marker` and a number of at most three digits.
#[inline]
fn short_number(rest: &mut &[u8], marker: u8) -> Option<usize> {
    let (number, len) = match **rest {
        [first, a, b'\r', b'\n', ..] if first == marker => (digit(a)?, 4),
        [first, a, b, b'\r', b'\n', ..] if first == marker => (digit(a)? * 10 + digit(b)?, 5),
        [first, a, b, c, b'\r', b'\n', ..] if first == marker => {
            (digit(a)? * 100 + digit(b)? * 10 + digit(c)?, 6)
        }
        _ => return None,
    };
    rest.split_off(..len)?;
    Some(number)
}

#[inline]
fn digit(byte: u8) -> Option<usize> {
    byte.is_ascii_digit().then(|| usize::from(byte - b'0'))
}

impl Parser {
    /// Parses what begins at the start of `input`, or goes on where the last call stopped.
    pub(super) fn parse_resp(&mut self, input: &[u8]) -> Result<Parsed, ProtocolError> {
        match input.first() {
            None => Ok(Parsed::Incomplete { needed: 1 }),
            Some(b'*') => self.parse_array(input),
            Some(_) => self.parse_inline(input),
        }
    }

    fn parse_array(&mut self, input: &[u8]) -> Result<Parsed, ProtocolError> {
        if self.progress.elements_left == 0 {
            let (elements, next) = match self.length(input, 0) {
                Length::Is(elements, next) => (elements, next),
                Length::Incomplete => return Ok(Parsed::Incomplete { needed: input.len() + 1 }),
                Length::Invalid => return Err(ProtocolError::InvalidElementCount),
                Length::TooLong => return Err(ProtocolError::ElementCountTooLong),
            };
            if elements <= 0 {
                return Ok(Parsed::Skip { consumed: next });
            }
            if elements > ELEMENTS_MAX as i64 {
                return Err(ProtocolError::InvalidElementCount);
            }
            if self.guest && elements > GUEST_ELEMENTS_MAX as i64 {
                return Err(ProtocolError::GuestElementCount);
            }
            self.progress.at = next;
            self.progress.elements_left = elements as usize;
        }
        while self.progress.elements_left > 0 {
            if let Some(needed) = self.parse_bulk(input)? {
                return Ok(Parsed::Incomplete { needed });
            }
            self.progress.elements_left -= 1;
        }
        self.finish(input, self.progress.at)
    }

    /// Parses one element; `Some` is the size of the input without which it cannot be completed.
    #[inline]
    fn parse_bulk(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let at = self.progress.at;
        match input.get(at) {
            Some(b'$') => {}
            Some(other) => return Err(ProtocolError::ExpectedBulk(*other)),
            None => return Ok(Some(at + 1)),
        }
        let (len, start) = match self.length(input, at) {
            Length::Is(len, next) => (len, next),
            Length::Incomplete => return Ok(Some(input.len() + 1)),
            Length::Invalid => return Err(ProtocolError::InvalidBulkLength),
            Length::TooLong => return Err(ProtocolError::BulkLengthTooLong),
        };
        if len < 0 || len > BULK_BYTES_MAX as i64 {
            return Err(ProtocolError::InvalidBulkLength);
        }
        if self.guest && len > GUEST_BULK_BYTES_MAX as i64 {
            return Err(ProtocolError::GuestBulkLength);
        }
        let end = start + len as usize;
        let next = end + 2;
        if next > REQUEST_BYTES_MAX {
            return Err(ProtocolError::RequestTooLarge);
        }
        match input.get(end..next) {
            Some(b"\r\n") => {}
            Some(_) => return Err(ProtocolError::BulkNotTerminated),
            None => return Ok(Some(next)),
        }
        self.args.try_push(start, end - start)?;
        self.progress.at = next;
        Ok(None)
    }

    /// Reads the number of a line such as `*3\r\n` or `$5\r\n`, whose first byte stands at `at`.
    #[inline]
    fn length(&mut self, input: &[u8], at: usize) -> Length {
        // Most numbers have one digit or two.
        match input[at + 1..] {
            [a, b'\r', b'\n', ..] if a.is_ascii_digit() => return Length::Is((a - b'0').into(), at + 4),
            [a @ b'1'..=b'9', b, b'\r', b'\n', ..] if b.is_ascii_digit() => {
                return Length::Is(i64::from(a - b'0') * 10 + i64::from(b - b'0'), at + 5);
            }
            _ => {}
        }
        let mut number = 0;
        for (digits, byte) in input[at + 1..].iter().enumerate() {
            match byte {
                b'0'..=b'9' if digits < 10 => number = number * 10 + i64::from(byte - b'0'),
                b'\r' if digits == 1 || (digits > 1 && input[at + 1] != b'0') => {
                    let newline = at + 1 + digits + 1;
                    return match input.get(newline) {
                        Some(b'\n') => Length::Is(number, newline + 1),
                        Some(_) => Length::Invalid,
                        None => Length::Incomplete,
                    };
                }
                _ => break,
            }
        }
        self.unusual_length(input, at)
    }

    /// The same for a line that is incomplete, has a sign or eleven digits, or is no number at all.
    #[cold]
    fn unusual_length(&mut self, input: &[u8], at: usize) -> Length {
        let from = self.progress.scanned.max(at);
        let end = memchr::memchr(b'\r', &input[from..]).map(|offset| from + offset);
        self.progress.scanned = input.len();
        if end.unwrap_or(input.len()) - at > INLINE_BYTES_MAX {
            return Length::TooLong;
        }
        let Some(end) = end else { return Length::Incomplete };
        self.progress.scanned = end;
        let Some(newline) = input.get(end + 1) else { return Length::Incomplete };
        let text = &input[at + 1..end];
        let number = str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
        match number {
            // Only the one form in which Redis would write the number: no plus sign, no leading zero.
            Some(n) if *newline == b'\n' && itoa::Buffer::new().format(n).as_bytes() == text => {
                Length::Is(n, end + 2)
            }
            _ => Length::Invalid,
        }
    }

    fn parse_inline(&mut self, input: &[u8]) -> Result<Parsed, ProtocolError> {
        match starts_tls(input) {
            None => return Ok(Parsed::Incomplete { needed: 2 }),
            Some(true) => return Err(ProtocolError::Tls),
            Some(false) => {}
        }
        let Some(end) =
            self.line_end(input, INLINE_BYTES_MAX).map_err(|TooLong| ProtocolError::InlineTooLong)?
        else {
            return Ok(Parsed::Incomplete { needed: input.len() + 1 });
        };
        split_words(&input[..end], &mut self.args)?;
        if self.args.spans.is_empty() {
            return Ok(Parsed::Skip { consumed: end + 1 });
        }
        self.refuse_http_get(input)?;
        self.finish(input, end + 1)
    }
}

/// What a length line says.
enum Length {
    /// The number, and the offset behind the line.
    Is(i64, usize),
    Incomplete,
    Invalid,
    TooLong,
}

/// Splits an inline request into words. Quotes may begin anywhere in a word, but only a blank may follow one
/// that closes. A blank is what C calls a space; within a word, vertical tabs and form feeds belong to it.
fn split_words(line: &[u8], args: &mut Arguments) -> Result<(), ProtocolError> {
    let mut at = 0;
    while let Some(blanks) = line[at..].iter().position(|byte| !is_space(*byte)) {
        at += blanks;
        let start = at;
        while line.get(at).is_some_and(|byte| !ends_word(*byte) && !matches!(byte, b'"' | b'\'')) {
            at += 1;
        }
        if line.get(at).is_none_or(|byte| ends_word(*byte)) {
            args.push(start, at - start);
            continue;
        }
        let (len, next) = unquote_word(line, start, args.scratch_of(line))?;
        args.push(start, len);
        at = next;
    }
    Ok(())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

fn ends_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Writes the word at `start`, without its quotes and with its escapes replaced, to the same offset of
/// `scratch`. Returns its length and the offset at which the line goes on.
fn unquote_word(line: &[u8], start: usize, scratch: &mut [u8]) -> Result<(usize, usize), ProtocolError> {
    let mut quote = None;
    let (mut at, mut to) = (start, start);
    loop {
        let rest = &line[at..];
        let (byte, len) = match (quote, rest) {
            (None, []) => break,
            (None, [byte, ..]) if ends_word(*byte) => break,
            (None, [opening @ (b'"' | b'\''), ..]) => {
                quote = Some(*opening);
                at += 1;
                continue;
            }
            (Some(_), []) => return Err(ProtocolError::UnbalancedQuotes),
            (Some(open), [byte, tail @ ..]) if *byte == open => {
                if tail.first().is_some_and(|byte| !is_space(*byte)) {
                    return Err(ProtocolError::UnbalancedQuotes);
                }
                at += 1;
                break;
            }
            (Some(b'"'), [b'\\', b'x', high, low, ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_digit(*high) << 4 | hex_digit(*low), 4)
            }
            (Some(b'"'), [b'\\', escaped, ..]) => (unescape(*escaped), 2),
            (Some(b'\''), [b'\\', b'\'', ..]) => (b'\'', 2),
            (_, [byte, ..]) => (*byte, 1),
        };
        scratch[to] = byte;
        to += 1;
        at += len;
    }
    Ok((to - start, at))
}

/// What a backslash and this byte stand for between double quotes.
fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

/// The value of a hexadecimal digit.
pub(super) fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Appends a reply.
pub(super) fn write_reply(reply: &Reply<'_>, dialect: Dialect, out: &mut Vec<u8>) {
    let resp3 = dialect == Dialect::Resp3;
    match reply {
        Reply::Ok => out.extend_from_slice(b"+OK\r\n"),
        Reply::Simple(text) => {
            out.push(b'+');
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Reply::Status(text) => {
            out.push(b'+');
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
        Reply::Line(line) => {
            out.push(b'+');
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Reply::Integer(n) => {
            out.push(b':');
            push_integer(*n, out);
            out.extend_from_slice(b"\r\n");
        }
        Reply::Bool(yes) => out.extend_from_slice(match (resp3, yes) {
            (true, true) => b"#t\r\n",
            (true, false) => b"#f\r\n",
            (false, true) => b":1\r\n",
            (false, false) => b":0\r\n",
        }),
        Reply::Double(digits) if resp3 => {
            out.push(b',');
            out.extend_from_slice(digits.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Reply::Double(digits) => write_bulk(digits.as_bytes(), out),
        Reply::BigNumber(digits) if resp3 => {
            out.push(b'(');
            out.extend_from_slice(digits);
            out.extend_from_slice(b"\r\n");
        }
        Reply::BigNumber(digits) => write_bulk(digits, out),
        Reply::Bulk(bytes) => write_bulk(bytes, out),
        Reply::Shared(bytes) => write_bulk(bytes, out),
        Reply::Nil | Reply::NilArray if resp3 => out.extend_from_slice(b"_\r\n"),
        Reply::Nil => out.extend_from_slice(b"$-1\r\n"),
        Reply::NilArray => out.extend_from_slice(b"*-1\r\n"),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            let marker = match reply {
                Reply::Set(_) if resp3 => b'~',
                Reply::Push(_) if resp3 => b'>',
                _ => b'*',
            };
            write_count(marker, items.len(), out);
            items.iter().for_each(|item| write_reply(item, dialect, out));
        }
        Reply::Map(fields) => {
            let (marker, count) = if resp3 { (b'%', fields.len()) } else { (b'*', fields.len() * 2) };
            write_count(marker, count, out);
            for (name, value) in fields {
                write_bulk(name.as_bytes(), out);
                write_reply(value, dialect, out);
            }
        }
        Reply::Pairs(pairs) => {
            let (marker, count) = if resp3 { (b'%', pairs.len()) } else { (b'*', pairs.len() * 2) };
            write_count(marker, count, out);
            for (key, value) in pairs {
                write_reply(key, dialect, out);
                write_reply(value, dialect, out);
            }
        }
        Reply::Text(text) if resp3 => {
            write_count(b'=', "txt:".len() + text.len(), out);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Reply::Text(text) => write_bulk(text.as_bytes(), out),
        Reply::Verbatim(format, text) if resp3 => {
            write_count(b'=', format.len() + 1 + text.len(), out);
            out.extend_from_slice(format);
            out.push(b':');
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
        Reply::Verbatim(_, text) => write_bulk(text, out),
        Reply::Error(error) => {
            write_error(error, out);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends a line such as `*3`, which announces a number of things.
pub(super) fn write_count(marker: u8, count: usize, out: &mut Vec<u8>) {
    out.push(marker);
    push_integer(count, out);
    out.extend_from_slice(b"\r\n");
}

fn write_bulk(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + 16); // One growth at most, whatever the size.
    write_count(b'$', bytes.len(), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends what both protocols say about a disk that fails; nothing for other errors.
pub(super) fn write_disk_fault(error: &Error, out: &mut Vec<u8>) {
    let parts = match error {
        Error::WritesRefused { cause, remedy } => ["writes are refused: ", cause, "; ", remedy],
        Error::NotOnDisk { cause } => ["the outcome is unknown: ", cause, "; ", "it may be lost in a crash"],
        _ => return,
    };
    parts.into_iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

/// Appends the line of an error without its end: in Redis' words where Redis has the fault.
pub(super) fn write_error(error: &Error, out: &mut Vec<u8>) {
    let text = match error {
        Error::UnknownCommand { name, args } => {
            echo(b"-ERR unknown command '", name, b"', with args beginning with: ", out);
            return args.iter().for_each(|arg| echo(b"'", arg, b"' ", out));
        }
        Error::UnknownSubcommand { command, name } => {
            echo(b"-ERR unknown subcommand '", name, b"'. Try ", out);
            out.extend_from_slice(command.name.as_bytes());
            " HELP."
        }
        Error::WrongUse { command, name } => {
            echo(b"-ERR unknown subcommand or wrong number of arguments for '", name, b"'. Try ", out);
            out.extend_from_slice(command.name.as_bytes());
            " HELP."
        }
        Error::WrongArity(command) => {
            out.extend_from_slice(b"-ERR wrong number of arguments for '");
            out.extend_from_slice(command.full_name().as_bytes());
            "' command"
        }
        Error::InvalidExpire(command) => {
            out.extend_from_slice(b"-ERR invalid expire time in '");
            out.extend_from_slice(command.full_name().as_bytes());
            "' command"
        }
        Error::Subscribed(command) => {
            out.extend_from_slice(b"-ERR Can't execute '");
            out.extend_from_slice(command.full_name().as_bytes());
            "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
        }
        Error::PrefixOverlap { prefix, other, is_provided } => {
            echo(b"-ERR Prefix '", prefix, b"' overlaps with ", out);
            let which = if *is_provided { "another provided" } else { "an existing" };
            put(format_args!("{which} prefix '"), out);
            return echo(b"", other, b"'. Prefixes for a single client must not overlap.", out);
        }
        Error::HelloSyntax(option) => return echo(b"-ERR Syntax error in HELLO option '", option, b"'", out),
        Error::IncompatibleOptions(options) => {
            let behind = b" options at the same time are not compatible";
            return echo(b"-ERR ", options.as_bytes(), behind, out);
        }
        Error::UnsupportedOption(option) => return echo(b"-ERR Unsupported option ", option, b"", out),
        Error::UnknownClientType(name) => return echo(b"-ERR Unknown client type '", name, b"'", out),
        Error::NoSuchUser(name) => return echo(b"-ERR No such user '", name, b"'", out),
        Error::AsAsked(text) => return echo(b"-", text, b"", out),
        Error::UnknownClientAttribute(name) => return echo(b"-ERR Unrecognized option '", name, b"'", out),
        Error::UnknownSetting(name) => {
            let before = b"-ERR Unknown option or number of arguments for CONFIG SET - '";
            return echo(before, name, b"'", out);
        }
        Error::FixedOption(name) => {
            let before = b"-ERR CONFIG SET failed (possibly related to argument '";
            return echo(before, name, b"') - can't set immutable config", out);
        }
        Error::InvalidSetting(name, reason) => {
            let what = "CONFIG SET failed (possibly related to argument";
            put(format_args!("-ERR {what} '{name}') - "), out);
            return push_echo(reason.as_bytes(), out);
        }
        Error::ExecAbortedBy(error) => {
            out.extend_from_slice(b"-EXECABORT Transaction discarded because of: ");
            return write_cause(error, out);
        }
        Error::WithoutMulti(command) => {
            return echo(b"-ERR ", command.name.as_bytes(), b" without MULTI", out);
        }
        Error::ReplyTooLarge { limit } => {
            let what = "ask for fewer keys at a time";
            return put(format_args!("-ERR the reply would exceed {limit} bytes; {what}"), out);
        }
        Error::PatternTooLong { limit } => {
            return put(format_args!("-ERR pattern too long; it may have {limit} bytes"), out);
        }
        Error::UnknownPfdebug(name) => return echo(b"-ERR Unknown PFDEBUG subcommand '", name, b"'", out),
        Error::NotAString(kind) => {
            let what = "a value that is a";
            return put(
                format_args!("-ERR Bad data format: {what} {kind} cannot be kept, only strings"),
                out,
            );
        }
        Error::UnknownOption(name) => return echo(b"-ERR unknown option '", name, b"'", out),
        Error::OfScript(text) => {
            out.push(b'-');
            return out
                .extend(text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
        }
        Error::WritesRefused { .. } | Error::NotOnDisk { .. } => {
            out.extend_from_slice(b"-MISCONF ");
            return write_disk_fault(error, out);
        }
        Error::OutOfRange(reason) | Error::Unavailable(reason) => {
            out.extend_from_slice(b"-ERR ");
            reason
        }
        Error::InsufficientData(refusal) => {
            return put(format_args!("-ERR insufficient data: {refusal}"), out);
        }
        Error::BackupFailed { cause } => {
            out.extend_from_slice(b"-ERR no backup was made: ");
            out.extend_from_slice(cause.as_bytes());
            return;
        }
        Error::RewriteFailed { cause } => {
            return put(format_args!("-ERR Rewriting config file: {cause}"), out);
        }
        other => fixed_text(other),
    };
    out.extend_from_slice(text.as_bytes());
}

/// The line of an error that carries nothing.
fn fixed_text(error: &Error) -> &'static str {
    match error {
        Error::NotAnInteger | Error::ExpireNotAnInteger | Error::InvalidDbIndex => {
            "-ERR value is not an integer or out of range"
        }
        Error::NotAFloat => "-ERR value is not a valid float",
        Error::NotFinite => "-ERR increment would produce NaN or Infinity",
        Error::Overflow => "-ERR increment or decrement would overflow",
        Error::DecrementOverflow => "-ERR decrement would overflow",
        Error::NotAHyperloglog => "-WRONGTYPE Key is not a valid HyperLogLog string value.",
        Error::CorruptHyperloglog => "-INVALIDOBJ Corrupted HLL object detected",
        Error::WrongPayload => "-ERR DUMP payload version or checksum are wrong",
        Error::MalformedPayload => "-ERR Bad data format",
        Error::BusyKey => "-BUSYKEY Target key name already exists.",
        Error::NoSuchKey => "-ERR no such key",
        Error::Syntax => "-ERR syntax error",
        Error::InvalidCursor => "-ERR invalid cursor",
        Error::InvalidCount => "-ERR invalid count",
        Error::InvalidSeconds => "-ERR invalid number of seconds",
        Error::InvalidTarget => "-ERR the target is a share above 0 and below 1, such as 0.99",
        Error::AnalyticsOff => "-ERR analytics not enabled; start the server with --enable-analytics",
        Error::DbIndexOutOfRange => "-ERR DB index is out of range",
        Error::NestedMulti => "-ERR MULTI calls can not be nested",
        Error::WatchInMulti => "-ERR WATCH inside MULTI is not allowed",
        Error::NotInMulti => "-ERR Command not allowed inside a transaction",
        Error::ExecAborted => "-EXECABORT Transaction discarded because of previous errors.",
        Error::NoScript => "-NOSCRIPT No matching script. Please use EVAL.",
        Error::Busy { is_function: false } => {
            "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
        }
        Error::Busy { is_function: true } => {
            "-BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
        }
        Error::NotBusy => "-NOTBUSY No scripts in execution right now.",
        Error::Unkillable => {
            "-UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait \
             the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command."
        }
        Error::NoProtocol => "-NOPROTO unsupported protocol version",
        Error::ProtocolNotAnInteger => "-ERR Protocol version is not an integer or out of range",
        Error::InvalidClientName => {
            "-ERR Client names cannot contain spaces, newlines or special characters."
        }
        Error::ValueTooLarge { .. } => "-ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        Error::ConnectionLimit => "-ERR max number of clients reached",
        Error::OutOfMemory => {
            "-OOM there is no memory for this request; send less at a time, or give the server more memory"
        }
        Error::WrongPassword => "-WRONGPASS invalid username-password pair or user is disabled.",
        Error::Unblocked => "-UNBLOCKED client unblocked via CLIENT UNBLOCK",
        Error::SaveInProgress => "-ERR Background save already in progress",
        Error::Loading { .. } => "-LOADING Redis is loading the dataset in memory",
        // These carry something, and have their own lines.
        Error::UnknownCommand { .. }
        | Error::UnknownSubcommand { .. }
        | Error::WrongArity(..)
        | Error::WrongUse { .. }
        | Error::UnknownClientType(..)
        | Error::NoSuchUser(..)
        | Error::AsAsked(..)
        | Error::InvalidExpire(..)
        | Error::Subscribed(..)
        | Error::PrefixOverlap { .. }
        | Error::HelloSyntax(..)
        | Error::IncompatibleOptions(..)
        | Error::UnsupportedOption(..)
        | Error::UnknownClientAttribute(..)
        | Error::UnknownSetting(..)
        | Error::FixedOption(..)
        | Error::InvalidSetting(..)
        | Error::ExecAbortedBy(..)
        | Error::WithoutMulti(..)
        | Error::ReplyTooLarge { .. }
        | Error::PatternTooLong { .. }
        | Error::UnknownOption(..)
        | Error::UnknownPfdebug(..)
        | Error::NotAString(..)
        | Error::WritesRefused { .. }
        | Error::NotOnDisk { .. }
        | Error::OfScript(..)
        | Error::OutOfRange(..)
        | Error::Unavailable(..)
        | Error::InsufficientData(..)
        | Error::BackupFailed { .. }
        | Error::RewriteFailed { .. } => "-ERR",
    }
}

/// Appends the line of an error without the word that it begins with, where that is `-ERR`, and without its end.
pub(super) fn write_cause(error: &Error, out: &mut Vec<u8>) {
    let start = out.len();
    write_error(error, out);
    let word_bytes = if out[start..].starts_with(b"-ERR ") { 5 } else { 1 };
    out.drain(start..start + word_bytes);
}

fn put(text: fmt::Arguments<'_>, out: &mut Vec<u8>) {
    out.write_fmt(text).expect("writing to memory succeeds");
}

fn echo(before: &[u8], echoed: &[u8], after: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(before);
    push_echo(echoed, out);
    out.extend_from_slice(after);
}
