//! Connections of both protocols. They read and write what a test asks for and never repair anything.
//!
//! Every read and write has a deadline; a failure says what was sent last and how the server's log ends.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::process::{DEADLINE, Log};
use crate::words::words;

/// The bytes of one connection, in both directions.
pub struct Wire {
    stream: Stream,
    chunk: Box<[u8]>,
    input: Vec<u8>,
    input_at: usize,
    last_sent: Vec<u8>,
    log: Log,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    /// Connects over TCP.
    pub fn connect(address: SocketAddr, log: &Log) -> Wire {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)
            .unwrap_or_else(|error| panic!("connect to {address}: {error}\n{}", log.tail()));
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Wire::over(Stream::Tcp(stream), log)
    }

    fn over(stream: Stream, log: &Log) -> Wire {
        let chunk = vec![0; 64 << 10].into_boxed_slice();
        Wire { stream, chunk, input: Vec::new(), input_at: 0, last_sent: Vec::new(), log: log.clone() }
    }

    /// Sends bytes; panics when the server does not take them.
    pub fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.try_send(bytes) {
            self.fail(&format!("send {} bytes: {error}", bytes.len()));
        }
    }

    /// Sends bytes; the server may have closed the connection.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.last_sent.clear();
        self.last_sent.extend_from_slice(&bytes[..bytes.len().min(300)]);
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// The sending half, for a thread that writes while another reads.
    pub fn sender(&self) -> TcpStream {
        match &self.stream {
            Stream::Tcp(stream) => stream.try_clone().expect("a socket can be cloned"),
            Stream::Unix(_) => unreachable!("no test splits a Unix connection"),
        }
    }

    /// The next line, without its `\n` or `\r\n`; an error when the connection ends first.
    pub fn try_line(&mut self) -> std::io::Result<Vec<u8>> {
        let mut seen = 0;
        loop {
            let rest = &self.input[self.input_at..];
            if let Some(len) = rest[seen..].iter().position(|byte| *byte == b'\n') {
                let line = &rest[..seen + len];
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.input_at += seen + len + 1;
                return Ok(line);
            }
            seen = rest.len();
            self.fill()?;
        }
    }

    /// The next line; panics when there is none.
    pub fn line(&mut self) -> Vec<u8> {
        self.try_line().unwrap_or_else(|error| self.fail(&format!("read a line: {error}")))
    }

    /// The next `len` bytes.
    pub fn try_exactly(&mut self, len: usize) -> std::io::Result<Vec<u8>> {
        while self.input.len() - self.input_at < len {
            self.fill()?;
        }
        let bytes = self.input[self.input_at..][..len].to_vec();
        self.input_at += len;
        Ok(bytes)
    }

    /// All bytes up to the end of the connection; panics when the server keeps it open.
    pub fn until_closed(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(error) if is_closed(&error) => return self.input.split_off(self.input_at),
                Err(error) => self.fail(&format!("wait for the server to close: {error}")),
            }
        }
    }

    /// Ends this test with the state of the connection.
    pub fn fail(&self, what: &str) -> ! {
        let rest = &self.input[self.input_at..];
        panic!(
            "{what}\nlast sent: {}\nunread: {}\n{}",
            self.last_sent.escape_ascii(),
            rest[..rest.len().min(300)].escape_ascii(),
            self.log.tail()
        );
    }

    /// Waits for more input; an ended connection is an error.
    fn fill(&mut self) -> std::io::Result<()> {
        if self.input_at == self.input.len() {
            self.input.clear();
            self.input_at = 0;
        }
        let len = loop {
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(&mut self.chunk),
                Stream::Unix(stream) => stream.read(&mut self.chunk),
            };
            match read {
                Ok(len) => break len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        self.input.extend_from_slice(&self.chunk[..len]);
        if len == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// Whether the connection has ended, in whatever way, rather than stayed silent.
pub fn is_closed(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// A client of the text protocol.
pub struct Text {
    /// The connection.
    pub wire: Wire,
    asked: u64,
    is_in_multi: bool,
}

impl Text {
    /// Connects and takes the greeting.
    pub fn connect(port: u16, log: &Log) -> Text {
        let mut wire = Wire::connect((Ipv4Addr::LOCALHOST, port).into(), log);
        let greeting = wire.line();
        if greeting != b"+OK kvlite ready" {
            wire.fail(&format!("greeted with {}", greeting.escape_ascii()));
        }
        Text { wire, asked: 0, is_in_multi: false }
    }

    /// Sends one command and returns the lines of its reply.
    pub fn ask(&mut self, command: &str) -> Vec<String> {
        let lines = self.ask_bytes(command.as_bytes());
        lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    /// Sends one command and returns its reply, which is one line.
    pub fn ask_one(&mut self, command: &str) -> String {
        let mut lines = self.ask(command);
        if lines.len() != 1 {
            self.wire.fail(&format!("`{command}` was answered with {} lines: {lines:?}", lines.len()));
        }
        lines.remove(0)
    }

    /// Sends one command and returns the lines of its reply. A reply does not say how many lines it has, so
    /// a `PING`, which subscribers may send as well, marks its end, and behind `MULTI`, where that would be queued, the refusal of a `WATCH`.
    pub fn ask_bytes(&mut self, command: &[u8]) -> Vec<Vec<u8>> {
        self.asked += 1;
        let is =
            |name: &[u8]| command.len() >= name.len() && command[..name.len()].eq_ignore_ascii_case(name);
        self.is_in_multi = (self.is_in_multi || command.eq_ignore_ascii_case(b"MULTI"))
            && !is(b"EXEC")
            && !is(b"DISCARD")
            && !is(b"RESET");
        let (asks, mark) = match self.is_in_multi {
            true => ("WATCH .".to_owned(), "-ERR WATCH inside MULTI is not allowed".to_owned()),
            false => {
                let mark = format!("end-of-reply-{}", self.asked);
                (format!("PING {mark}"), mark)
            }
        };
        self.wire.send(&[command, b"\n", asks.as_bytes(), b"\n"].concat());
        let mut lines = Vec::new();
        loop {
            let line = self.wire.line();
            if line == mark.as_bytes() {
                return lines;
            }
            lines.push(line);
        }
    }
}

/// A value as RESP carries it. Its `Display` is the notation of the scripts.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    /// `$-1`
    Nil,
    /// `*-1`
    NilArray,
    /// `_`, of RESP3
    Null,
    Bool(bool),
    Double(String),
    /// The format and the text.
    Verbatim(String, Vec<u8>),
    Array(Vec<Value>),
    Set(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// `>`, of RESP3: what no request asked for
    Push(Vec<Value>),
}

impl Value {
    /// The bulk string with these bytes.
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Value {
        Value::Bulk(bytes.as_ref().to_vec())
    }

    /// The number; panics for anything else.
    pub fn integer(&self) -> i64 {
        match self {
            Value::Integer(number) => *number,
            other => panic!("expected an integer, got {other}"),
        }
    }

    /// The bytes; panics for anything else.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Value::Bulk(bytes) | Value::Verbatim(_, bytes) => bytes,
            other => panic!("expected a bulk string, got {other}"),
        }
    }

    /// The items; panics for anything else.
    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) => items,
            other => panic!("expected an array, got {other}"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Simple(text) => write!(f, "+{text}"),
            Value::Error(text) => write!(f, "-{text}"),
            Value::Integer(number) => write!(f, "{number}"),
            Value::Bulk(bytes) if bytes.len() > 2000 => {
                write!(f, "\"{}...\" ({} bytes)", bytes[..200].escape_ascii(), bytes.len())
            }
            Value::Bulk(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Value::Nil => f.write_str("nil"),
            Value::NilArray => f.write_str("nil-array"),
            Value::Null => f.write_str("null"),
            Value::Bool(true) => f.write_str("#t"),
            Value::Bool(false) => f.write_str("#f"),
            Value::Double(text) => write!(f, ",{text}"),
            Value::Verbatim(format, bytes) => write!(f, "={format}:\"{}\"", bytes.escape_ascii()),
            Value::Array(items) => write!(f, "[{}]", listed(items)),
            Value::Set(items) => write!(f, "~[{}]", listed(items)),
            Value::Push(items) => write!(f, ">[{}]", listed(items)),
            Value::Map(pairs) => {
                let flat: Vec<Value> = pairs.iter().flat_map(|(k, v)| [k.clone(), v.clone()]).collect();
                write!(f, "%[{}]", listed(&flat))
            }
        }
    }
}

fn listed(items: &[Value]) -> String {
    let shown: Vec<String> = items.iter().take(40).map(ToString::to_string).collect();
    let more = if items.len() > 40 { format!(", ... ({} items)", items.len()) } else { String::new() };
    shown.join(", ") + &more
}

/// A request as RESP clients send it: an array of bulk strings.
pub fn encoded<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A client of RESP2 and RESP3.
pub struct Resp {
    /// The connection.
    pub wire: Wire,
}

impl Resp {
    /// Connects over TCP.
    pub fn connect(address: SocketAddr, log: &Log) -> Resp {
        Resp { wire: Wire::connect(address, log) }
    }

    /// Connects to a Unix socket.
    pub fn connect_unix(path: &Path, log: &Log) -> Resp {
        let stream = UnixStream::connect(path)
            .unwrap_or_else(|error| panic!("connect to {}: {error}\n{}", path.display(), log.tail()));
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Resp { wire: Wire::over(Stream::Unix(stream), log) }
    }

    /// Sends one command, written as in a script, and returns its reply.
    pub fn ask(&mut self, command: &str) -> Value {
        self.ask_bytes(&words(command))
    }

    /// Sends one command of these arguments and returns its reply.
    pub fn ask_bytes<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Value {
        self.wire.send(&encoded(arguments));
        self.read()
    }

    /// The next reply.
    pub fn read(&mut self) -> Value {
        self.try_read().unwrap_or_else(|error| self.wire.fail(&format!("read a reply: {error}")))
    }

    /// The next reply; an error when the connection ends first.
    pub fn try_read(&mut self) -> std::io::Result<Value> {
        let line = self.wire.try_line()?;
        let Some((kind, rest)) = line.split_first() else { self.wire.fail("a reply is an empty line") };
        let text = String::from_utf8_lossy(rest).into_owned();
        Ok(match kind {
            b'+' => Value::Simple(text),
            b'-' => Value::Error(text),
            b':' => Value::Integer(self.number(&text)),
            b'$' if text == "-1" => Value::Nil,
            b'*' if text == "-1" => Value::NilArray,
            b'_' => Value::Null,
            b'#' => Value::Bool(text == "t"),
            b',' => Value::Double(text),
            b'$' => Value::Bulk(self.counted(&text)?),
            b'=' => {
                let bytes = self.counted(&text)?;
                let format = String::from_utf8_lossy(&bytes[..3]).into_owned();
                Value::Verbatim(format, bytes[4..].to_vec())
            }
            b'*' => Value::Array(self.several(&text, 1)?),
            b'~' => Value::Set(self.several(&text, 1)?),
            b'>' => Value::Push(self.several(&text, 1)?),
            b'%' => {
                let mut flat = self.several(&text, 2)?.into_iter();
                Value::Map(std::iter::from_fn(|| flat.next().zip(flat.next())).collect())
            }
            _ => self.wire.fail(&format!("not a RESP reply: {}", line.escape_ascii())),
        })
    }

    fn counted(&mut self, len: &str) -> std::io::Result<Vec<u8>> {
        let len = self.number(len);
        let mut bytes = self.wire.try_exactly(len + 2)?;
        if !bytes.ends_with(b"\r\n") {
            self.wire.fail("a bulk string does not end with CRLF");
        }
        bytes.truncate(len);
        Ok(bytes)
    }

    fn several(&mut self, count: &str, each: usize) -> std::io::Result<Vec<Value>> {
        let count = self.number::<usize>(count) * each;
        (0..count).map(|_| self.try_read()).collect()
    }

    fn number<N: std::str::FromStr>(&self, text: &str) -> N {
        text.parse().unwrap_or_else(|_| self.wire.fail(&format!("not a number: {text}")))
    }
}
