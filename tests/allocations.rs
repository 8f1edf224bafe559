//! How often the path of a command asks for memory: from the bytes of a request, through the parser, the routing, the
//! shard, the frame of the log and its write, to the bytes of the reply. A command that asks for none cannot wait for
//! the allocator, nor spread its data over memory.
//!
//! What is left out: a server's first commands, in which the buffers grow to their size and the analytics fill their
//! tables, whose size is fixed ([`Path::settle`]); and, with new keys, the growth of what holds all keys (tables, the
//! directory, pages of entries), which one in [`GROWTH_STEP`] of them or fewer may pay for. The network ring is left
//! out as well: its buffers are made once.

#![allow(clippy::unwrap_used)] // A step that fails is a test that fails.

use allocation_counter::measure;
use bytes::Bytes;
use kvlite::client::replies::Replies;
use kvlite::net::Outbound;
use kvlite::protocol::{self, Dialect, Listener, Parsed, Parser};
use kvlite::slots;
use kvlite::slots::Route;
use shard::{Changes, Shard};
use wal::{Kind, Log, OsDisk, Place};

/// Commands of each kind. What is asked for once in a hundred commands would be seen.
const COMMANDS: usize = 2000;

/// Keys that are there.
const KEYS: usize = 5000;

/// So many keys that are asked for once fill what the analytics keep of single keys.
const SETTLING_KEYS: usize = 40_000;

/// At most one new key in so many finds a table or a page full.
const GROWTH_STEP: usize = 16;

const SEGMENT_BYTES: u64 = 64 << 20;
const CHANGES_KEPT_BYTES: usize = 64 << 10;

/// All that a command passes on one worker.
struct Path {
    shard: Shard,
    parser: Parser,
    dialect: Dialect,
    changes: Changes,
    log: Log<OsDisk>,
    replies: Replies,
    sent: Vec<u8>,
    now_ms: u64,
    _directory: tempfile::TempDir,
}

impl Path {
    fn new(listener: Listener, dialect: Dialect) -> Path {
        let directory = tempfile::tempdir().unwrap();
        let place = Place { shard_index: 0, shard_count: 1, tag: 0 };
        let opened = Log::recover::<wal::Error>(
            &OsDisk::default(),
            directory.path(),
            place,
            SEGMENT_BYTES,
            |_| Ok(()),
        );
        Path {
            shard: Shard::new([1, 2, 3, 4]).with_analytics(1),
            parser: Parser::new(listener),
            dialect,
            changes: Changes::default(),
            log: opened.unwrap().0,
            replies: Replies::default(),
            sent: Vec::new(),
            now_ms: 1,
            _directory: directory,
        }
    }

    /// Sets the keys that are there before anything is counted, and has everything of a fixed size filled.
    fn settle(&mut self, value: &str) {
        let mut serve = |words: &[&str]| {
            let request = request(self.dialect, words);
            self.serve(&request);
        };
        (0..KEYS).for_each(|number| serve(&["SET", &key(number), value]));
        (0..SETTLING_KEYS).for_each(|number| serve(&["GET", &format!("asked:once:{number:012}")]));
        (0..2 * KEYS).for_each(|number| serve(&["GET", &key(number)]));
    }

    /// Serves one request as a turn does, a millisecond after the last one. The reply stays in `sent`.
    fn serve(&mut self, bytes: &[u8]) {
        self.serve_in(bytes, None);
    }

    /// As [`Path::serve`], for a request whose memory may be shared.
    fn serve_in(&mut self, bytes: &[u8], memory: Option<&Bytes>) {
        self.now_ms += 1;
        let Path { shard, parser, changes, log, replies, .. } = self;
        shard.prefetch(0, protocol::first_args(bytes));
        assert_eq!(parser.parse(bytes), Ok(Parsed::Request { consumed: bytes.len() }));
        let command = parser.command().unwrap();
        let request = match memory {
            None => parser.request(bytes, command),
            Some(memory) => parser.request_in(memory, command),
        };
        protocol::check_arity(request.command, request.arg_count()).unwrap();
        assert!(matches!(slots::route(&request, 2), Route::One(_)));
        let reply = shard.execute(&request, self.now_ms, changes);
        let (command, count) = (Some(request.command), request.arg_count());
        replies.now(|out| protocol::write_reply(&reply, command, count, self.dialect, out));
        if !changes.is_empty() {
            log.append_parts(Kind::Batch, changes.count() as u32, changes.bytes(), changes.shared());
            changes.clear(CHANGES_KEPT_BYTES);
            log.flush().unwrap();
        }
        let mut spare = std::mem::take(&mut self.sent);
        spare.clear();
        let Outbound::Owned(sent) = replies.take(|| spare) else { panic!("short replies are copied") };
        self.sent = sent;
    }

    /// Serves these requests, with a few before them that are not counted. Returns how often each of the others asked
    /// for memory.
    fn counts(&mut self, requests: &[Vec<u8>], replies: impl Fn(&[u8]) -> bool) -> Vec<u64> {
        let (first, others) = requests.split_at(requests.len() - COMMANDS);
        first.iter().for_each(|request| self.serve(request));
        let count = |request: &Vec<u8>| {
            let count = measure(|| self.serve(request)).count_total;
            let sent = String::from_utf8_lossy(&self.sent[..self.sent.len().min(64)]);
            assert!(replies(&self.sent), "{sent:?}");
            count
        };
        others.iter().map(count).collect()
    }
}

fn request(dialect: Dialect, words: &[&str]) -> Vec<u8> {
    if dialect == Dialect::Text {
        return format!("{}\n", words.join(" ")).into_bytes();
    }
    let elements = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), elements.collect::<String>()).into_bytes()
}

/// Serves requests on both protocols, on a path that holds keys with this value. `words` tells those of the request
/// with a number.
fn on_both(value: &str, words: impl Fn(usize) -> Vec<String>, check: impl Fn(&mut Path, &[Vec<u8>])) {
    let text = Listener::Text { resp_port: None };
    for (listener, dialect) in [(Listener::Resp, Dialect::Resp2), (text, Dialect::Text)] {
        let mut path = Path::new(listener, dialect);
        path.settle(value);
        let words = (0..COMMANDS + 100).map(&words);
        let requests =
            words.map(|words| request(dialect, &words.iter().map(String::as_str).collect::<Vec<_>>()));
        check(&mut path, &requests.collect::<Vec<_>>());
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

fn key(number: usize) -> String {
    format!("key:{:012}", number % KEYS)
}

const VALUE: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn get_asks_for_no_memory() {
    on_both(
        VALUE,
        |number| words(["GET", &key(number)]),
        |path, requests| {
            let ends_with_value = |reply: &[u8]| String::from_utf8_lossy(reply).contains(VALUE);
            assert_eq!(path.counts(requests, ends_with_value), [0; COMMANDS]);
        },
    );
}

#[test]
fn get_of_a_key_that_is_not_there_asks_for_no_memory() {
    on_both(
        VALUE,
        |number| words(["GET", &format!("nope:{number}")]),
        |path, requests| {
            let is_nil = |reply: &[u8]| reply == b"$-1\r\n" || reply == b"-ERR key not found\n";
            assert_eq!(path.counts(requests, is_nil), [0; COMMANDS]);
        },
    );
}

#[test]
fn a_value_over_one_of_its_size_asks_for_no_memory() {
    let other = VALUE.to_uppercase();
    on_both(
        VALUE,
        |number| words(["SET", &key(number), &other]),
        |path, requests| {
            assert_eq!(
                path.counts(requests, |reply| reply.windows(2).any(|two| two == b"OK")),
                [0; COMMANDS]
            );
        },
    );
}

#[test]
fn incr_asks_for_no_memory() {
    on_both(
        "1000",
        |number| words(["INCR", &key(number)]),
        |path, requests| {
            let is_number = |reply: &[u8]| String::from_utf8_lossy(reply).contains("100");
            assert_eq!(path.counts(requests, is_number), [0; COMMANDS]);
        },
    );
}

/// The memory into which a large request was received is the value, in the keyspace and for the log.
#[test]
fn a_large_value_asks_for_no_memory_of_its_size() {
    let value = VALUE.repeat(32 << 10);
    let mut path = Path::new(Listener::Resp, Dialect::Resp2);
    path.settle(VALUE);
    for number in 0..20 {
        let key = key(number % 10); // New ones, and then such that have a large value already.
        let memory = Bytes::from(request(Dialect::Resp2, &["SET", &key, &value]));
        let asked = measure(|| path.serve_in(&memory, Some(&memory)));
        assert_eq!(path.sent, b"+OK\r\n");
        assert!(asked.bytes_total < 4096, "{} bytes for SET {number}", asked.bytes_total);
        assert!(!memory.is_unique(), "it is kept");
        path.serve(&request(Dialect::Resp2, &["GET", &key]));
        assert!(path.sent == format!("${}\r\n{value}\r\n", value.len()).into_bytes(), "the value differs");
    }
}

/// A new key with a short value lies in a page of entries, one with a long value in memory of its own.
#[test]
fn a_new_key_asks_for_memory_once_at_most() {
    for (value, most) in [(VALUE.to_owned(), 0), (VALUE.repeat(256), 1)] {
        on_both(
            VALUE,
            |number| words(["SET", &format!("new:{number:012}"), &value]),
            |path, requests| {
                let counts = path.counts(requests, |reply| reply.windows(2).any(|two| two == b"OK"));
                let growths = counts.iter().filter(|count| **count > most).count();
                assert!(growths * GROWTH_STEP <= COMMANDS, "{growths} of {COMMANDS}: {counts:?}");
            },
        );
    }
}
