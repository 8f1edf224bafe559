//! Where a server is asked, and questions over RESP3, each with a deadline.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use redis_protocol::resp3::decode::complete::decode;
use redis_protocol::resp3::types::{OwnedFrame, Resp3Frame};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// No answer is longer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// No answer is nested deeper. The decoder calls itself for each level, so that one which is would use up the stack.
const LEVELS_MAX: usize = 32;

/// How many bytes are read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Where a server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // A host and a port are what they are called.
pub enum Address {
    /// The text protocol.
    Text { host: String, port: u16 },
    /// RESP over TCP.
    Resp { host: String, port: u16 },
    /// RESP over a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The first at which a server with these options listens, on this machine where it does so on all of its addresses.
    /// Port 0 stands for none.
    pub fn first(host: &str, text: u16, resp: u16, unix_socket: Option<PathBuf>) -> Option<Address> {
        let host = match host {
            "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            host => host,
        }
        .to_owned();
        match (text, resp) {
            (0, 0) => unix_socket.map(Address::Unix),
            (0, port) => Some(Address::Resp { host, port }),
            (port, _) => Some(Address::Text { host, port }),
        }
    }

    /// A connection that is there by the deadline; only to find the addresses of a name may take longer.
    ///
    /// # Errors
    /// That of the last address of the host.
    pub fn connect(&self, deadline: Instant) -> io::Result<OwnedFd> {
        match self {
            Address::Text { host, port } | Address::Resp { host, port } => connect_tcp(host, *port, deadline),
            Address::Unix(path) => {
                let flags = SocketFlags::CLOEXEC;
                let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                // A server that is stopped takes no more clients than fit into its queue: the next one waits.
                set_socket_timeout(&socket, Timeout::Send, Some(left(deadline)?))?;
                rustix::net::connect(&socket, &SocketAddrUnix::new(path)?).map_err(|error| match error {
                    rustix::io::Errno::AGAIN => ErrorKind::TimedOut.into(),
                    error => io::Error::from(error),
                })?;
                set_socket_timeout(&socket, Timeout::Send, None)?;
                Ok(socket)
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Text { host, port } => write!(f, "{host}:{port} (--port)"),
            Address::Resp { host, port } => write!(f, "{host}:{port} (--resp-port)"),
            Address::Unix(path) => write!(f, "{} (--unix-socket)", path.display()),
        }
    }
}

/// A connection by which questions are asked. An answer that did not come in time is passed over when it comes, so that
/// the next question gets its own.
pub struct Asker {
    socket: OwnedFd,
    input: Vec<u8>,
    /// Answers that have not come yet.
    owed: usize,
    is_greeted: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// It did not come, or is none.
    Io(io::Error),
    /// The server answers with this error.
    Error(String),
}

impl From<io::Error> for Unanswered {
    fn from(error: io::Error) -> Unanswered {
        Unanswered::Io(error)
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unanswered::Io(error) => error.fmt(f),
            Unanswered::Error(text) => f.write_str(text),
        }
    }
}

impl Asker {
    /// Asks by this connection, over which nothing was said yet.
    pub fn new(socket: OwnedFd) -> Asker {
        Asker { socket, input: Vec::new(), owed: 0, is_greeted: false }
    }

    /// Asks, and waits for the answer up to the deadline.
    ///
    /// # Errors
    /// [`Unanswered`]; after an answer that is none, the connection is of no further use.
    pub fn ask(&mut self, words: &[&[u8]], deadline: Instant) -> Result<OwnedFrame, Unanswered> {
        if !self.is_greeted {
            checked(self.exchange(&[b"HELLO", b"3"], deadline)?)?;
            self.is_greeted = true;
        }
        checked(self.exchange(words, deadline)?)
    }

    fn exchange(&mut self, words: &[&[u8]], deadline: Instant) -> io::Result<OwnedFrame> {
        while self.owed > 0 {
            self.next(deadline)?;
        }
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        set_socket_timeout(&self.socket, Timeout::Send, Some(left(deadline)?))?;
        let sent = rustix::net::send(&self.socket, &request, SendFlags::NOSIGNAL)?;
        if sent < request.len() {
            return Err(ErrorKind::WriteZero.into()); // Questions are short: the other end does not read.
        }
        self.owed += 1;
        self.next(deadline)
    }

    /// The next answer.
    fn next(&mut self, deadline: Instant) -> io::Result<OwnedFrame> {
        loop {
            let line_end = memchr::memchr(b'\n', &self.input);
            if line_end.is_some_and(|end| end == 0 || self.input[end - 1] != b'\r') {
                return Err(io::Error::new(ErrorKind::InvalidData, "no RESP: its lines end otherwise"));
            }
            if is_too_deep(&self.input) {
                return Err(io::Error::new(ErrorKind::InvalidData, "the answer is nested too deeply"));
            }
            let found = match line_end {
                None => None,
                Some(_) => decode(&self.input).map_err(|error| {
                    io::Error::new(ErrorKind::InvalidData, format!("no RESP: {}", error.details()))
                })?,
            };
            if let Some((frame, length)) = found {
                self.input.drain(..length);
                self.owed -= 1;
                return Ok(frame);
            }
            if self.input.len() > ANSWER_BYTES_MAX {
                return Err(io::Error::new(ErrorKind::InvalidData, "the answer does not end"));
            }
            set_socket_timeout(&self.socket, Timeout::Recv, Some(left(deadline)?))?;
            let before = self.input.len();
            self.input.resize(before + CHUNK_BYTES, 0);
            let read = rustix::io::read(&self.socket, &mut self.input[before..]);
            self.input.truncate(before + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Err(ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether the first answer, as far as it is there, is nested deeper than [`LEVELS_MAX`]. What is no RESP is not: the
/// decoder tells that.
fn is_too_deep(mut input: &[u8]) -> bool {
    let mut left = vec![1_usize]; // What is still to come on each level; the first is the answer itself.
    while left.len() <= LEVELS_MAX + 1 {
        left.truncate(left.iter().rposition(|left| *left > 0).map_or(0, |at| at + 1));
        let (Some(here), Some(end)) = (left.last_mut(), memchr::memchr(b'\n', input)) else { return false };
        *here -= 1;
        let (line, rest) = (input[..end].trim_ascii_end(), &input[end + 1..]);
        let Some((kind, length)) = line.split_first() else { return false };
        // What is streamed has no length, and ends with a line of its own.
        let length = str::from_utf8(length).ok().and_then(|it| it.parse().ok()).unwrap_or(usize::MAX);
        let (skipped, below) = match kind {
            b'$' | b'!' | b'=' => (length.saturating_add(2), 0),
            b'*' | b'~' | b'>' => (0, length),
            b'%' => (0, length.saturating_mul(2)),
            b'|' => (0, length.saturating_mul(2).saturating_add(1)), // And the value that it belongs to.
            _ => (0, 0),
        };
        let Some(rest) = rest.get(skipped..) else { return false };
        input = rest;
        left.push(below);
    }
    true
}

/// An answer that is no error.
fn checked(frame: OwnedFrame) -> Result<OwnedFrame, Unanswered> {
    match frame {
        OwnedFrame::SimpleError { data, .. } => Err(Unanswered::Error(data)),
        OwnedFrame::BlobError { data, .. } => {
            Err(Unanswered::Error(String::from_utf8_lossy(&data).into_owned()))
        }
        frame => Ok(frame),
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left.max(Duration::from_millis(1))) }
}

/// A connection to the first address of the host that takes one. None takes the time of those that are left.
fn connect_tcp(host: &str, port: u16, deadline: Instant) -> io::Result<OwnedFd> {
    let mut failed = io::Error::new(ErrorKind::NotFound, "the host name has no address");
    let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
    for (left, address) in (1..=addresses.len() as u32).rev().zip(addresses) {
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match TcpStream::connect_timeout(&address, share.max(Duration::from_millis(1))) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream.into());
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The value of a field of a map.
pub(super) fn field<'f>(map: &'f OwnedFrame, name: &str) -> Option<&'f OwnedFrame> {
    let OwnedFrame::Map { data, .. } = map else { return None };
    data.iter().find(|(key, _)| key.as_bytes() == Some(name.as_bytes())).map(|(_, value)| value)
}

/// A field that is a number.
pub(super) fn number(map: &OwnedFrame, name: &str) -> Option<f64> {
    match field(map, name)? {
        OwnedFrame::Number { data, .. } => Some(*data as f64),
        OwnedFrame::Double { data, .. } => Some(*data),
        _ => None,
    }
}

/// A field that is a string.
pub(super) fn bytes(map: &OwnedFrame, name: &str) -> Option<Vec<u8>> {
    field(map, name)?.as_bytes().map(<[u8]>::to_vec)
}

/// The items of a list.
pub(super) fn items(list: &OwnedFrame) -> &[OwnedFrame] {
    if let OwnedFrame::Array { data, .. } = list { data } else { &[] }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn the_first_protocol_that_is_on_is_asked_on_this_machine() {
        let text = |host: &str| Some(Address::Text { host: host.to_owned(), port: 1 });
        assert_eq!(Address::first("localhost", 1, 2, None), text("localhost"));
        assert_eq!(Address::first("0.0.0.0", 1, 2, None), text("127.0.0.1"));
        assert_eq!(Address::first("::", 1, 2, None), text("::1"));
        let path = PathBuf::from("/run/kvlite.sock");
        let resp = Address::Resp { host: "::1".to_owned(), port: 2 };
        assert_eq!(Address::first("::1", 0, 2, Some(path.clone())), Some(resp));
        assert_eq!(Address::first("localhost", 0, 0, Some(path.clone())), Some(Address::Unix(path)));
        assert_eq!(Address::first("localhost", 0, 0, None), None);
    }

    #[test]
    fn a_server_that_takes_no_client_is_not_waited_for_past_the_deadline() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let address = Address::Unix(path);
        let mut clients = Vec::new();
        let refused = loop {
            match address.connect(Instant::now() + Duration::from_millis(20)) {
                Ok(client) => clients.push(client),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), ErrorKind::TimedOut, "after {} clients", clients.len());
    }

    #[test]
    fn an_answer_that_comes_late_is_not_taken_for_that_of_the_next_question() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut asker = Asker::new(ours.into());
        theirs.write_all(b"%0\r\n").unwrap();
        let missed = asker.ask(&[b"GET", b"first"], Instant::now() + Duration::from_millis(5)).unwrap_err();
        assert!(matches!(&missed, Unanswered::Io(error) if error.kind() == ErrorKind::TimedOut), "{missed}");
        theirs.write_all(b"$5\r\nfirst\r\n$6\r\nsec").unwrap();
        let second = std::thread::spawn(move || asker.ask(&[b"GET", b"second"], soon()));
        let mut asked = vec![0; "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*2\r\n$3\r\nGET\r\n$5\r\nfirst\r\n".len()];
        theirs.read_exact(&mut asked).unwrap();
        theirs.write_all(b"ond\r\n").unwrap();
        assert_eq!(second.join().unwrap().unwrap().as_bytes(), Some(&b"second"[..]));
    }

    #[test]
    fn an_error_is_no_answer_and_what_is_no_resp_is_told() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut asker = Asker::new(ours.into());
        theirs.write_all(b"%0\r\n-ERR analytics not enabled\r\nHTTP/1.1 400 Bad\r\n").unwrap();
        let refused = asker.ask(&[b"HOTKEYS"], soon()).unwrap_err();
        assert_eq!(refused.to_string(), "ERR analytics not enabled");
        let broken = asker.ask(&[b"HOTKEYS"], soon()).unwrap_err();
        assert!(
            matches!(&broken, Unanswered::Io(error) if error.kind() == ErrorKind::InvalidData),
            "{broken}"
        );
    }

    #[test]
    fn an_answer_that_is_nested_too_deeply_is_refused_before_it_is_decoded() {
        for level in
            ["*1\r\n", "~1\r\n", "%1\r\n+key\r\n", "|1\r\n+key\r\n+value\r\n", "*2\r\n$3\r\n*\r\n\r\n"]
        {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut asker = Asker::new(ours.into());
            let hostile = level.repeat(200_000);
            let sent = std::thread::spawn(move || {
                theirs.write_all(b"%0\r\n").unwrap();
                let _ = theirs.write_all(hostile.as_bytes()); // It is not read to its end.
                theirs
            });
            let refused = asker.ask(&[b"INFO"], soon()).unwrap_err();
            assert!(refused.to_string().contains("nested too deeply"), "{level:?}: {refused}");
            drop(asker);
            sent.join().unwrap();
        }
        // As deep as may be, many beside each other, and what only looks like levels.
        assert!(!is_too_deep(("*1\r\n".repeat(LEVELS_MAX - 1) + ":1\r\n").as_bytes()));
        assert!(is_too_deep(("*1\r\n".repeat(LEVELS_MAX) + ":1\r\n").as_bytes()));
        assert!(!is_too_deep(format!("*100\r\n{}", "*1\r\n+a\r\n*0\r\n".repeat(50)).as_bytes()));
        assert!(!is_too_deep(format!("$400\r\n{}", "*1\r\n".repeat(100)).as_bytes()));
    }
}
