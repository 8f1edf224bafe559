//! Both protocols from outside: bytes in, requests out; replies in, bytes out.
//!
//! The RESP tables hold what Redis 7.0.15 does with the same bytes, except where a comment says otherwise.

use proptest::prelude::*;
use shard::InsufficientData;
use shard::command::{find, find_full};

use super::*;

const TEXT: Listener = Listener::Text { resp_port: Some(6379) };
const RESP: Listener = Listener::Resp;

/// A request as its words, the name first.
type Words = Vec<Vec<u8>>;

/// Parses what arrives in these pieces as a connection does, up to the first error.
fn parse_pieces(parser: &mut Parser, pieces: &[&[u8]]) -> (Vec<Words>, Option<ProtocolError>) {
    let (mut buffer, mut requests) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match parser.parse(&buffer) {
                Ok(Parsed::Request { consumed }) => {
                    let request = parser.request(&buffer, find(b"PING").unwrap());
                    assert_eq!(request.arg_count(), parser.arg_count());
                    let name = std::iter::once(parser.name(&buffer).to_vec());
                    requests.push(name.chain(request.args().map(<[u8]>::to_vec)).collect());
                    buffer.drain(..consumed);
                }
                Ok(Parsed::Skip { consumed }) => {
                    assert!(consumed > 0, "a parser that skips nothing never ends");
                    buffer.drain(..consumed);
                }
                Ok(Parsed::Incomplete { needed }) => {
                    assert!(needed > buffer.len(), "needs {needed} bytes and has {}", buffer.len());
                    break;
                }
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

fn parse(listener: Listener, input: &[u8]) -> (Vec<Words>, Option<ProtocolError>) {
    parse_pieces(&mut Parser::new(listener), &[input])
}

/// Checks requests, written as words with `|` between them, and the error that ends them.
#[track_caller]
fn check(listener: Listener, input: &[u8], requests: &[&[u8]], error: Option<ProtocolError>) {
    let shown = input[..input.len().min(200)].escape_ascii();
    let (got, got_error) = parse(listener, input);
    let got: Vec<_> = got.iter().map(|words| words.join(&b'|').escape_ascii().to_string()).collect();
    let want: Vec<_> = requests.iter().map(|words| words.escape_ascii().to_string()).collect();
    assert_eq!((got, got_error), (want, error), "{shown}");
}

#[test]
fn arrays_are_requests() {
    for (input, requests) in [
        (&b"*1\r\n$4\r\nPING\r\n"[..], &[&b"PING"[..]][..]),
        (b"*2\r\n$3\r\nget\r\n$2\r\n\r\n\r\n*1\r\n$4\r\nPING\r\n", &[b"get|\r\n", b"PING"]),
        (b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$3\r\n\0\xff*\r\n", &[b"SET||\0\xff*"]),
        (b"*1\r\n$0\r\n\r\n", &[b""]),
        (b"*2\r\n$4\r\nECHO\r\n$11\r\nhello world\r\n", &[b"ECHO|hello world"]),
        (b"*-1\r\n*0\r\n*-5\r\nPING\r\n", &[b"PING"]),
        (b"*-9223372036854775808\r\nPING\r\n", &[b"PING"]),
        (b"*1\r\n$4\r\nPI", &[]),
        (b"*2147483", &[]),
        (b"*1\r\n$536870912\r\n", &[]),
        (b"*1\n", &[]),
        (b"", &[]),
    ] {
        check(RESP, input, requests, None);
    }
}

#[test]
fn malformed_arrays_end_the_connection() {
    use ProtocolError::*;
    for (input, error) in [
        (&b"*2147483648\r\n"[..], InvalidElementCount),
        (b"*9223372036854775808\r\n", InvalidElementCount),
        (b"*-9223372036854775809\r\n", InvalidElementCount),
        (b"*abc\r\n", InvalidElementCount),
        (b"*+1\r\n", InvalidElementCount),
        (b"*01\r\n", InvalidElementCount),
        (b"*00\r\n", InvalidElementCount),
        (b"*-0\r\n", InvalidElementCount),
        (b"*-01\r\n", InvalidElementCount),
        (b"*\r\n", InvalidElementCount),
        (b"*1 \r\n", InvalidElementCount),
        (b"*1\n$4\r\nPING\r\n", InvalidElementCount),
        (b"*\xff\r\n", InvalidElementCount),
        // Redis accepts counts up to 2^31-1, and any byte behind the carriage return.
        (b"*1073741824\r\n", InvalidElementCount),
        (b"*178956971\r\n", InvalidElementCount),
        (b"*1\rx$4\r\nPING\r\n", InvalidElementCount),
        (b"*1\r\n$-1\r\n", InvalidBulkLength),
        (b"*1\r\n$536870913\r\n", InvalidBulkLength),
        (b"*1\r\n$12345678901234567890\r\n", InvalidBulkLength),
        (b"*1\r\n$04\r\nPING\r\n", InvalidBulkLength),
        (b"*1\r\n$\r\n", InvalidBulkLength),
        (b"*1\r\nPING\r\n", ExpectedBulk(b'P')),
        (b"*1\r\n*1\r\n", ExpectedBulk(b'*')),
        (b"*1\r\n:5\r\n", ExpectedBulk(b':')),
        (b"*1\r\n\r\n", ExpectedBulk(b'\r')),
        (b"*1\r\n\xff\r\n", ExpectedBulk(0xff)),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", ExpectedBulk(b'f')),
        // Redis skips two bytes behind an argument whatever they are.
        (b"*1\r\n$4\r\nPINGxx", BulkNotTerminated),
        (b"*1\r\n$3\r\nPING\r\n", BulkNotTerminated),
        // Redis waits for more of these.
        (b"\x16\x03\x01\x00\x05hello", Tls),
    ] {
        check(RESP, input, &[], Some(error));
    }
    check(RESP, b"*1\r\n$4\r\nPING\r\n*x\r\n", &[b"PING"], Some(InvalidElementCount));
}

#[test]
fn a_request_past_the_limit_is_refused_before_it_arrives() {
    let (head, tail) = (b"*4\r\n$536870912\r\n", b"\r\n$536870880\r\n");
    let mut input = vec![0; head.len() + BULK_BYTES_MAX + tail.len()]; // Zero pages, few of them touched.
    input[..head.len()].copy_from_slice(head);
    input[head.len() + BULK_BYTES_MAX..].copy_from_slice(tail);
    let mut parser = Parser::new(RESP);
    assert_eq!(parser.parse(&input), Ok(Parsed::Incomplete { needed: REQUEST_BYTES_MAX }));
    let last_digit = input.len() - 3;
    input[last_digit] += 1;
    assert_eq!(parser.parse(&input), Err(ProtocolError::RequestTooLarge));
}

#[test]
fn inline_requests_split_into_words_as_in_redis() {
    for (input, requests) in [
        (&b"PING\r\n"[..], &[&b"PING"[..]][..]),
        (b"PING\n", &[b"PING"]),
        (b"PING\r\r\nPING\r\n", &[b"PING", b"PING"]),
        (b"\r\n\r\n\n  \r\n\t\r\r\nPING\r\n", &[b"PING"]),
        (b"  echo   a\tb \r\n", &[b"echo|a|b"]),
        (b"echo 'a\\'b\\x'\r\n", &[b"echo|a'b\\x"]),
        (
            b"echo \"\\x00\\xFf\\xg1\\x4\\n\\r\\t\\b\\a\\q\\\"\\\\\"\r\n",
            &[b"echo|\0\xffxg1x4\n\r\t\x08\x07q\"\\"],
        ),
        (b"echo abc\"d e\" a'd'\r\n", &[b"echo|abcd e|ad"]),
        (b"echo a\"b\"\x0bc\r\n", &[b"echo|ab|c"]),
        (b"echo \x0b\x0ca\x0bb c\x0c\r\n", &[b"echo|a\x0bb|c\x0c"]),
        (b"echo a\rb\r\n", &[b"echo|a|b"]),
        (b"\"\"\r\n'' a\r\necho \"\"\r\n", &[b"", b"|a", b"echo|"]),
        (b"echo \"*1\" $4 \xc3\xa4\r\n", &[b"echo|*1|$4|\xc3\xa4"]),
        (b"\x16 a\r\n", &[b"\x16|a"]),
        // Redis, which looks for the end of a C string, waits for more behind a NUL.
        (b"ec\0ho a\0b\r\n", &[b"ec\0ho|a\0b"]),
    ] {
        check(RESP, input, requests, None);
    }
}

#[test]
fn unbalanced_quotes_end_the_connection() {
    for line in [
        &b"echo \"abc"[..],
        b"echo \"abc\"d",
        b"echo 'abc'd",
        b"echo 'abc",
        b"echo ab\"d",
        b"echo \"abc\\",
        b"echo \"abc\\\"",
        b"echo 'abc\\'",
        b"echo 'a''b'",
    ] {
        let input = [b"PING\r\n", line, b"\r\n"].concat();
        check(RESP, &input, &[b"PING"], Some(ProtocolError::UnbalancedQuotes));
    }
}

#[test]
fn lines_of_resp_have_a_bound() {
    use ProtocolError::*;
    let (inline, header) = ("A".repeat(INLINE_BYTES_MAX), "1".repeat(INLINE_BYTES_MAX));
    check(RESP, inline.as_bytes(), &[], None);
    check(RESP, format!("{inline}\n").as_bytes(), &[inline.as_bytes()], None);
    check(RESP, format!("{inline}A").as_bytes(), &[], Some(InlineTooLong));
    check(RESP, format!("{inline}A\n").as_bytes(), &[], Some(InlineTooLong));
    check(RESP, format!("*{}", &header[1..]).as_bytes(), &[], None);
    check(RESP, format!("*{header}").as_bytes(), &[], Some(ElementCountTooLong));
    check(RESP, format!("*1\r\n${header}").as_bytes(), &[], Some(BulkLengthTooLong));
}

#[test]
fn http_is_refused_on_both_ports() {
    for input in [
        &b"POST / HTTP/1.1\r\n"[..],
        b"post\r\n",
        b"Host: x\r\n",
        b"HOST: x\n",
        b"GET / HTTP/1.1\r\n",
        b"get /?q=1 HTTP/1.0\n",
    ] {
        check(TEXT, input, &[], Some(ProtocolError::Http));
        check(RESP, input, &[], Some(ProtocolError::Http));
    }
    check(RESP, b"*2\r\n$4\r\nPOST\r\n$1\r\na\r\n", &[], Some(ProtocolError::Http));
    check(RESP, b"*1\r\n$5\r\nhost:\r\n", &[], Some(ProtocolError::Http));
    for listener in [TEXT, RESP] {
        check(listener, b"GET POST\nDEL a HTTP/1.1\n", &[b"GET|POST", b"DEL|a|HTTP/1.1"], None);
    }
}

#[test]
fn a_guest_is_held_to_small_requests() {
    let guest = |listener, input: &[u8]| {
        let mut parser = Parser::new(listener);
        parser.set_authenticated(false);
        parse_pieces(&mut parser, &[input]).1
    };
    assert_eq!(guest(RESP, b"*10\r\n$16384\r\n"), None);
    assert_eq!(guest(RESP, b"*11\r\n"), Some(ProtocolError::GuestElementCount));
    assert_eq!(guest(RESP, b"*1\r\n$16385\r\n"), Some(ProtocolError::GuestBulkLength));
    assert_eq!(guest(TEXT, &[b'a'; INLINE_BYTES_MAX]), None);
    assert_eq!(guest(TEXT, &[b'a'; INLINE_BYTES_MAX + 2]), Some(ProtocolError::LineTooLong));
    let mut parser = Parser::new(RESP);
    parser.set_authenticated(false);
    parser.set_authenticated(true);
    assert_eq!(parser.parse(b"*11\r\n"), Ok(Parsed::Incomplete { needed: 6 }));
}

#[test]
fn lines_of_the_text_protocol_are_requests() {
    for (input, requests) in [
        (&b"PING\n"[..], &[&b"PING"[..]][..]),
        (b"get a\r\n\n \t\r\n\r\nGET b\n", &[b"get|a", b"GET|b"]),
        (b"SET key value\n", &[b"SET|key|value"]),
        (b"  set \t key   two  words \t \r\n", &[b"set|key|two  words"]),
        (b"SET greeting \"Hello, World!\"\n", &[b"SET|greeting|Hello, World!"]),
        (b"APPEND msg \" world\"\n", &[b"APPEND|msg| world"]),
        (b"SET k {\"a\": \"b c\"}\n", &[b"SET|k|{\"a\": \"b c\"}"]),
        (b"SET k \"\"\nSET k ''\n", &[b"SET|k|", b"SET|k|"]),
        (b"SET k\nSET k \t\nSET\n", &[b"SET|k", b"SET|k", b"SET"]),
        (b"SET k \"a\" and \"b\"\n", &[b"SET|k|\"a\" and \"b\""]),
        (b"SET k \"a\"b\n", &[b"SET|k|\"a\"b"]),
        (b"SET k \"a\nSET k it's\nSET k 'tis\n", &[b"SET|k|\"a", b"SET|k|it's", b"SET|k|'tis"]),
        (b"SET \"my key\" v\nGET 'my \\'key'\n", &[b"SET|my key|v", b"GET|my 'key"]),
        (b"SET k \"\\\"\\\\\\n\\r\\t\\x00\\xFf\"\n", &[b"SET|k|\"\\\n\r\t\0\xff"]),
        (b"SET k \"C:\\dir\\xg\"\nSET k 'a\\n\\\\b'\n", &[b"SET|k|C:\\dir\\xg", b"SET|k|a\\n\\\\b"]),
        (b"SET k a\\nb\n", &[b"SET|k|a\\nb"]),
        (b"SETEX k 10 a b\nECHO a  b\nPING\n", &[b"SETEX|k|10|a b", b"ECHO|a  b", b"PING"]),
        (b"MSET a 1 \"b c\" \"2\\n\"\n", &[b"MSET|a|1|b c|2\n"]),
        (b"MGET \"a b 'c \"d\" e\nGET 'c \"d\" e'\n", &[b"MGET|\"a|b|'c|d|e", b"GET|c \"d\" e"]),
        (b"FOO a  b\n", &[b"FOO|a|b"]),
        (b"GET a\x0bb \0 \xff\n", &[b"GET|a\x0bb|\0|\xff"]),
        (b"SET k v\r\r\n", &[b"SET|k|v\r"]),
        (b"* a\n*\n$4\n", &[b"*|a", b"*", b"$4"]),
        (b"\"SE\\x54\" k v w\n", &[b"SET|k|v w"]),
        (b"SET k unfinished", &[]),
        (b"", &[]),
    ] {
        check(TEXT, input, requests, None);
    }
}

#[test]
fn what_is_no_text_ends_the_connection() {
    use ProtocolError::*;
    let line = "A".repeat(LINE_BYTES_MAX);
    for (input, requests, error) in [
        (
            &b"GET a\n*1\r\n$4\r\nPING\r\n"[..],
            &[&b"GET|a"[..]][..],
            Some(RespOnTextPort { resp_port: Some(6379) }),
        ),
        (b"*-1\r\n", &[], Some(RespOnTextPort { resp_port: Some(6379) })),
        (b"\x16\x03\x01", &[], Some(Tls)),
        (line.as_bytes(), &[], None),
        (format!("{line}\r").as_bytes(), &[], None),
        (format!("{line}\r\n").as_bytes(), &[line.as_bytes()], None),
        (format!("{line}A\n").as_bytes(), &[], Some(LineTooLong)),
        (format!("{line}AA").as_bytes(), &[], Some(LineTooLong)),
    ] {
        check(TEXT, input, requests, error);
    }
}

/// Feeds `input` byte by byte, as many calls as bytes. A parser that starts over each time would need hours.
fn parse_bytewise(listener: Listener, input: &[u8]) -> (Result<Parsed, ProtocolError>, usize) {
    let mut parser = Parser::new(listener);
    for len in 1..input.len() {
        let parsed = parser.parse(&input[..len]);
        assert!(matches!(parsed, Ok(Parsed::Incomplete { .. })), "{parsed:?} after {len} bytes");
    }
    (parser.parse(input), parser.arg_count())
}

#[test]
fn work_is_linear_in_the_bytes_however_they_arrive() {
    let args = 300_000;
    let array = format!("*{}\r\n$4\r\nMGET\r\n{}", args + 1, "$1\r\nk\r\n".repeat(args));
    let value = format!("*2\r\n$4\r\nECHO\r\n$2000000\r\n{}\r\n", "v".repeat(2_000_000));
    let words = format!("MGET {}\n", "k ".repeat(LINE_BYTES_MAX / 2 - 3));
    let quotes = format!("MGET {}\n", "\"k 'k ".repeat(LINE_BYTES_MAX / 6 - 1));
    let escapes = format!("MGET {}\n", "\"\\x41\" ".repeat(LINE_BYTES_MAX / 7 - 1));
    let inline = format!("MGET {}\n", "'k' ".repeat(INLINE_BYTES_MAX / 4 - 2));
    for (listener, input, arg_count) in [
        (RESP, array, args),
        (RESP, value, 1),
        (TEXT, words, LINE_BYTES_MAX / 2 - 3),
        (TEXT, quotes, (LINE_BYTES_MAX / 6 - 1) * 2),
        (TEXT, escapes, LINE_BYTES_MAX / 7 - 1),
        (RESP, inline, INLINE_BYTES_MAX / 4 - 2),
    ] {
        let parsed = parse_bytewise(listener, input.as_bytes());
        assert_eq!(parsed, (Ok(Parsed::Request { consumed: input.len() }), arg_count));
    }
}

/// The memory that a parser holds, in bytes.
fn held(parser: &Parser) -> usize {
    parser.args.spans.capacity() * size_of::<Span>() + parser.args.scratch.capacity()
}

#[test]
fn a_claimed_size_reserves_nothing_and_a_large_request_is_forgotten() {
    let mut parser = Parser::new(RESP);
    parser.parse(b"*100000000\r\n$536870912\r\nabc").unwrap();
    assert_eq!(held(&parser), 0);

    let mut parser = Parser::new(RESP);
    let large = format!("*100000\r\n{}PING\r\n", "$1\r\nk\r\n".repeat(100_000));
    let (requests, error) = parse_pieces(&mut parser, &[large.as_bytes()]);
    assert_eq!((requests.len(), error), (2, None));
    assert!(held(&parser) <= SPANS_KEPT * size_of::<Span>() + SCRATCH_BYTES_KEPT, "{}", held(&parser));
}

#[test]
fn requests_of_one_size_reuse_the_memory_of_the_first() {
    for (listener, input) in [
        (RESP, &b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n"[..]),
        (RESP, b"SET a \"b\"\n"),
        (TEXT, b"SET a \"\\n\"\n"),
    ] {
        let mut parser = Parser::new(listener);
        parser.parse(input).unwrap();
        let place = (parser.args.spans.as_ptr(), parser.args.scratch.as_ptr(), held(&parser));
        parser.parse(input).unwrap();
        assert_eq!((parser.args.spans.as_ptr(), parser.args.scratch.as_ptr(), held(&parser)), place);
    }
}

#[test]
fn a_request_without_escapes_lies_in_the_input() {
    for (listener, input) in [
        (RESP, &b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n"[..]),
        (RESP, b"GET a\r\n"),
        (TEXT, b"GET a\n"),
        (TEXT, b"ECHO \"a b\"\n"),
    ] {
        let mut parser = Parser::new(listener);
        parser.parse(input).unwrap();
        let request = parser.request(input, parser.command().unwrap());
        assert!(input.as_ptr_range().contains(&request.arg(0).as_ptr()));
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(
        prop_oneof![4 => prop::sample::select(b"a\"' \\\n\r\t\0\x0b+*$-1x\xff".to_vec()), 1 => any::<u8>()],
        0..40,
    )
}

/// Pieces of streams: whole requests, broken ones, and noise.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let array = prop::collection::vec(bytes(), 0..4).prop_map(|words| array_of(&words));
    let line = bytes().prop_map(|mut bytes| {
        bytes.extend_from_slice(b"\r\n");
        bytes
    });
    let set = bytes().prop_map(|bytes| [b"SET k ", &bytes[..], b"\n"].concat());
    prop::collection::vec(prop_oneof![4 => array, 2 => line, 2 => set, 1 => bytes()], 1..6)
        .prop_map(|parts| parts.concat())
}

fn array_of(words: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    resp::write_count(b'*', words.len(), &mut out);
    words.iter().for_each(|word| resp::write_reply(&Reply::bytes(word), Dialect::Resp2, &mut out));
    out
}

/// Cuts `input` at offsets derived from `cuts`.
fn pieces<'a>(input: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut offsets: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    offsets.sort_unstable();
    offsets.push(input.len());
    let mut from = 0;
    offsets.into_iter().map(|to| &input[std::mem::replace(&mut from, to)..to]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn cutting_the_stream_changes_no_request(
        input in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        listener in prop::sample::select(vec![TEXT, RESP]),
    ) {
        let whole = parse(listener, &input);
        prop_assert_eq!(&parse_pieces(&mut Parser::new(listener), &pieces(&input, &cuts)), &whole);
        let single: Vec<_> = input.chunks(1).collect();
        prop_assert_eq!(&parse_pieces(&mut Parser::new(listener), &single), &whole);
    }

    #[test]
    fn an_array_gives_back_its_words(
        words in prop::collection::vec(bytes(), 1..8),
    ) {
        prop_assert_eq!(parse(RESP, &array_of(&words)), (vec![words], None));
    }

    #[test]
    fn memory_stays_below_the_bytes_received(
        input in stream(),
        listener in prop::sample::select(vec![TEXT, RESP]),
    ) {
        let mut parser = Parser::new(listener);
        parse_pieces(&mut parser, &[&input]);
        prop_assert!(held(&parser) <= 64 + 4 * size_of::<Span>() * input.len());
    }

    #[test]
    fn a_value_that_was_shown_can_be_sent_back(value in bytes()) {
        let mut line = b"SET k ".to_vec();
        text::write_reply(&Reply::bytes(&value), TextForm::Plain, 1, &mut line);
        prop_assert_eq!(parse(TEXT, &line), (vec![vec![b"SET".to_vec(), b"k".to_vec(), value]], None));
    }

    #[test]
    fn a_value_is_never_taken_for_another_reply(value in bytes()) {
        let mut shown = Vec::new();
        text::write_reply(&Reply::bytes(&value), TextForm::Plain, 1, &mut shown);
        prop_assert_eq!(shown.iter().filter(|byte| byte.is_ascii_control()).count(), 1);
        prop_assert!(!shown.starts_with(b"+") && !shown.starts_with(b"-ERR"));
        prop_assert!(shown != b"(nil)\n" && shown != b"(empty list)\n" && shown != b"\n");
    }

    #[test]
    fn errors_echo_nothing_that_steers_a_terminal_or_ends_the_line(
        words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..6),
    ) {
        let input = array_of(&words);
        let mut parser = Parser::new(RESP);
        parser.parse(&input).unwrap();
        let reply = Reply::Error(parser.unknown_command(&input));
        for (dialect, end) in [(Dialect::Text, &b"\n"[..]), (Dialect::Resp3, b"\r\n")] {
            let mut out = Vec::new();
            write_reply(&reply, None, 0, dialect, &mut out);
            let line = out.strip_suffix(end).expect("a whole line");
            prop_assert!(!line.iter().any(u8::is_ascii_control));
            prop_assert!(line.len() <= 400);
        }
    }
}

fn shown(reply: &Reply<'_>, command: &str, arg_count: usize, dialect: Dialect) -> String {
    let mut out = Vec::new();
    write_reply(reply, find(command.as_bytes()), arg_count, dialect, &mut out);
    String::from_utf8(out).expect("the tables hold text")
}

#[test]
fn replies_in_three_dialects() {
    let fields = || {
        vec![
            ("proto".into(), Reply::Integer(3)),
            ("name".into(), Reply::bytes(b"a b")),
            ("up".into(), Reply::Bool(true)),
        ]
    };
    let page = |keys| Reply::Array(vec![Reply::bytes(b"17"), Reply::Array(keys)]);
    for (reply, text, resp2, resp3) in [
        (Reply::Ok, "+OK\n", "+OK\r\n", "+OK\r\n"),
        (Reply::Simple("PONG"), "+PONG\n", "+PONG\r\n", "+PONG\r\n"),
        (Reply::Simple("OK goodbye"), "+OK goodbye\n", "+OK goodbye\r\n", "+OK goodbye\r\n"),
        (
            Reply::Integer(i64::MIN),
            "-9223372036854775808\n",
            ":-9223372036854775808\r\n",
            ":-9223372036854775808\r\n",
        ),
        (Reply::Bool(true), "1\n", ":1\r\n", "#t\r\n"),
        (Reply::Bool(false), "0\n", ":0\r\n", "#f\r\n"),
        (Reply::Double("0.25".to_owned()), "0.25\n", "$4\r\n0.25\r\n", ",0.25\r\n"),
        (
            Reply::bytes(b"Hello, World!"),
            "Hello, World!\n",
            "$13\r\nHello, World!\r\n",
            "$13\r\nHello, World!\r\n",
        ),
        (Reply::bytes(b""), "\"\"\n", "$0\r\n\r\n", "$0\r\n\r\n"),
        (Reply::Nil, "-ERR key not found\n", "$-1\r\n", "_\r\n"),
        (Reply::Array(vec![]), "(empty list)\n", "*0\r\n", "*0\r\n"),
        (
            Reply::Array(vec![
                Reply::bytes(b"1"),
                Reply::Nil,
                Reply::bytes(b"(nil)"),
                Reply::Error(Error::Syntax),
            ]),
            "1\n(nil)\n\"(nil)\"\n-ERR syntax error\n",
            "*4\r\n$1\r\n1\r\n$-1\r\n$5\r\n(nil)\r\n-ERR syntax error\r\n",
            "*4\r\n$1\r\n1\r\n_\r\n$5\r\n(nil)\r\n-ERR syntax error\r\n",
        ),
        (
            page(vec![Reply::bytes(b"a"), Reply::bytes(b"b c")]),
            "17\na\nb c\n",
            "*2\r\n$2\r\n17\r\n*2\r\n$1\r\na\r\n$3\r\nb c\r\n",
            "*2\r\n$2\r\n17\r\n*2\r\n$1\r\na\r\n$3\r\nb c\r\n",
        ),
        (page(vec![]), "17\n(empty list)\n", "*2\r\n$2\r\n17\r\n*0\r\n", "*2\r\n$2\r\n17\r\n*0\r\n"),
        (
            Reply::Map(fields()),
            "3 (name=\"a b\" up=true)\n",
            "*6\r\n$5\r\nproto\r\n:3\r\n$4\r\nname\r\n$3\r\na b\r\n$2\r\nup\r\n:1\r\n",
            "%3\r\n$5\r\nproto\r\n:3\r\n$4\r\nname\r\n$3\r\na b\r\n$2\r\nup\r\n#t\r\n",
        ),
        (
            Reply::Array(vec![Reply::Map(vec![
                ("key".into(), Reply::bytes(b"user:1")),
                ("reads".into(), Reply::Integer(150)),
                ("writes".into(), Reply::Integer(10)),
            ])]),
            "user:1 (reads=150 writes=10)\n",
            "*1\r\n*6\r\n$3\r\nkey\r\n$6\r\nuser:1\r\n$5\r\nreads\r\n:150\r\n$6\r\nwrites\r\n:10\r\n",
            "*1\r\n%3\r\n$3\r\nkey\r\n$6\r\nuser:1\r\n$5\r\nreads\r\n:150\r\n$6\r\nwrites\r\n:10\r\n",
        ),
        (
            Reply::Array(vec![Reply::Line("  GET \"a\"".into())]),
            "  GET \"a\"\n",
            "*1\r\n+  GET \"a\"\r\n",
            "*1\r\n+  GET \"a\"\r\n",
        ),
        (Reply::Text(String::new()), "\n", "$0\r\n\r\n", "=4\r\ntxt:\r\n"),
        (
            Reply::Text("# Server\r\nport:1\r\n".into()),
            "# Server\nport:1\n",
            "$18\r\n# Server\r\nport:1\r\n\r\n",
            "=22\r\ntxt:# Server\r\nport:1\r\n\r\n",
        ),
    ] {
        for (dialect, want) in [(Dialect::Text, text), (Dialect::Resp2, resp2), (Dialect::Resp3, resp3)] {
            assert_eq!(shown(&reply, "GET", 1, dialect), want, "{reply:?} in {dialect:?}");
        }
    }
}

#[test]
fn the_text_protocol_answers_some_commands_in_forms_of_their_own() {
    for (command, arg_count, reply, text) in [
        ("DEL", 1, Reply::Integer(1), "+OK\n"),
        ("delete", 1, Reply::Integer(0), "-ERR key not found\n"),
        ("DEL", 2, Reply::Integer(1), "1\n"),
        ("DEL", 2, Reply::Integer(0), "0\n"),
        ("DEL", 1, Reply::Error(Error::Syntax), "-ERR syntax error\n"),
        ("MDEL", 1, Reply::Integer(1), "1\n"),
        ("EXISTS", 1, Reply::Integer(0), "0\n"),
        (
            "STATS",
            0,
            Reply::Map(vec![
                ("keys".into(), Reply::Integer(5)),
                ("needs_compaction".into(), Reply::Bool(false)),
                ("since".into(), Reply::Simple("2026-01-15T10:30:00Z")),
                ("name".into(), Reply::bytes(b"a b")),
            ]),
            "+OK keys=5 needs_compaction=false since=2026-01-15T10:30:00Z name=\"a b\"\n",
        ),
    ] {
        assert_eq!(shown(&reply, command, arg_count, Dialect::Text), text, "{command}");
    }
    assert_eq!(shown(&Reply::Integer(1), "DEL", 1, Dialect::Resp2), ":1\r\n");
}

#[test]
fn values_that_read_as_something_else_are_quoted() {
    for (value, text) in [
        (&b"plain"[..], &b"plain"[..]),
        (b"two  words", b"two  words"),
        (b"say \"hi\"", b"say \"hi\""),
        (b"it's", b"it's"),
        (b"'tis", b"'tis"),
        (b"-1", b"-1"),
        (b"C:\\dir", b"C:\\dir"),
        (b"{\"a\": \"b c\"}", b"{\"a\": \"b c\"}"),
        (b"\xc3\xa4 \xff", b"\xc3\xa4 \xff"),
        (b"(nil) ", b"\"(nil) \""),
        (b" x", b"\" x\""),
        (b"'x y'", b"\"'x y'\""),
        (b"\"x\"", b"\"\\\"x\\\"\""),
        (b"+OK", b"\"+OK\""),
        (b"-ERR no", b"\"-ERR no\""),
        (b"(empty list)", b"\"(empty list)\""),
        (b"a\nb\r\t\\", b"\"a\\nb\\r\\t\\\\\""),
        (b"\0\x1b\x7f", b"\"\\x00\\x1b\\x7f\""),
    ] {
        let mut out = Vec::new();
        write_item(&Reply::bytes(value), Dialect::Text, &mut out);
        assert_eq!(out.escape_ascii().to_string(), [text, b"\n"].concat().escape_ascii().to_string());
    }
}

#[test]
fn errors_in_the_words_of_each_protocol() {
    let row = |name: &str| find(name.as_bytes()).unwrap();
    let integer = "value is not an integer or out of range";
    for (error, text, resp) in [
        (
            Error::WrongArity(row("SET")),
            "SET requires key and value",
            "wrong number of arguments for 'set' command",
        ),
        (Error::WrongArity(row("GET")), "GET requires key", "wrong number of arguments for 'get' command"),
        (
            Error::WrongArity(row("MSET")),
            "MSET requires key value pairs",
            "wrong number of arguments for 'mset' command",
        ),
        (
            Error::WrongArity(find_full(b"client|setname").unwrap()),
            "wrong number of arguments for 'client|setname' command",
            "wrong number of arguments for 'client|setname' command",
        ),
        (
            Error::UnknownSubcommand { command: row("CLIENT"), name: Box::from(&b"f\r\no\x1b'x"[..]) },
            "unknown subcommand 'f  o 'x'. Try CLIENT HELP.",
            "unknown subcommand 'f  o 'x'. Try CLIENT HELP.",
        ),
        (Error::NotAnInteger, "value is not an integer", integer),
        (Error::Overflow, "increment or decrement would overflow", "increment or decrement would overflow"),
        (Error::DecrementOverflow, "decrement would overflow", "decrement would overflow"),
        (Error::Syntax, "syntax error", "syntax error"),
        (Error::InvalidExpire(row("SETEX")), "invalid TTL", "invalid expire time in 'setex' command"),
        (Error::ExpireNotAnInteger, "invalid TTL", integer),
        (Error::InvalidCursor, "invalid cursor", "invalid cursor"),
        (Error::InvalidCount, "invalid count", "invalid count"),
        (
            Error::UnknownSetting(Box::from(&b"nope"[..])),
            "Unknown option or number of arguments for CONFIG SET - 'nope'",
            "Unknown option or number of arguments for CONFIG SET - 'nope'",
        ),
        (
            Error::FixedOption(Box::from(&b"port"[..])),
            "CONFIG SET failed (possibly related to argument 'port') - can't set immutable config",
            "CONFIG SET failed (possibly related to argument 'port') - can't set immutable config",
        ),
        (
            Error::InvalidSetting("auto-ttl", "write x".into()),
            "CONFIG SET failed (possibly related to argument 'auto-ttl') - write x",
            "CONFIG SET failed (possibly related to argument 'auto-ttl') - write x",
        ),
        (Error::InvalidSeconds, "invalid number of seconds", "invalid number of seconds"),
        (
            Error::InvalidTarget,
            "the target is a share above 0 and below 1, such as 0.99",
            "the target is a share above 0 and below 1, such as 0.99",
        ),
        (
            Error::AnalyticsOff,
            "analytics not enabled; start the server with --enable-analytics",
            "analytics not enabled; start the server with --enable-analytics",
        ),
        (
            Error::InsufficientData(InsufficientData::FewObservations { needed: 9, have: 2 }),
            "analytics not enabled or insufficient data: 2 re-accesses were seen, 9 are needed",
            "insufficient data: 2 re-accesses were seen, 9 are needed",
        ),
        (Error::DbIndexOutOfRange, "DB index is out of range", "DB index is out of range"),
        (Error::InvalidDbIndex, "database index is not an integer", integer),
        (
            Error::ProtocolNotAnInteger,
            "Protocol version is not an integer or out of range",
            "Protocol version is not an integer or out of range",
        ),
        (
            Error::InvalidClientName,
            "Client names cannot contain spaces, newlines or special characters.",
            "Client names cannot contain spaces, newlines or special characters.",
        ),
        (
            Error::HelloSyntax(Box::from(&b"foo"[..])),
            "Syntax error in HELLO option 'foo'",
            "Syntax error in HELLO option 'foo'",
        ),
        (Error::UnsupportedOption(Box::from(&b"QQ"[..])), "Unsupported option QQ", "Unsupported option QQ"),
        (
            Error::IncompatibleOptions("NX and XX, GT or LT"),
            "NX and XX, GT or LT options at the same time are not compatible",
            "NX and XX, GT or LT options at the same time are not compatible",
        ),
        (
            Error::IncompatibleOptions("GT and LT"),
            "GT and LT options at the same time are not compatible",
            "GT and LT options at the same time are not compatible",
        ),
        (
            Error::UnknownClientAttribute(Box::from(&b"x"[..])),
            "Unrecognized option 'x'",
            "Unrecognized option 'x'",
        ),
        (Error::UnknownOption(Box::from(&b"prot"[..])), "unknown option 'prot'", "unknown option 'prot'"),
        (
            Error::ValueTooLarge { limit: 1024 },
            "value would exceed 1024 bytes",
            "string exceeds maximum allowed size (proto-max-bulk-len)",
        ),
        (Error::ConnectionLimit, "connection limit reached", "max number of clients reached"),
        (Error::Unavailable("the disk is full"), "the disk is full", "the disk is full"),
    ] {
        let reply = Reply::Error(error);
        assert_eq!(shown(&reply, "GET", 1, Dialect::Text), format!("-ERR {text}\n"));
        for dialect in [Dialect::Resp2, Dialect::Resp3] {
            assert_eq!(shown(&reply, "GET", 1, dialect), format!("-ERR {resp}\r\n"));
        }
    }
    let cause: std::sync::Arc<str> = "cannot write x".into();
    for (error, text) in [
        (
            Error::WritesRefused { cause: cause.clone(), remedy: "do y" },
            "writes are refused: cannot write x; do y",
        ),
        (Error::NotOnDisk { cause }, "the outcome is unknown: cannot write x; it may be lost in a crash"),
    ] {
        let reply = Reply::Error(error);
        assert_eq!(shown(&reply, "SET", 2, Dialect::Text), format!("-ERR {text}\n"));
        assert_eq!(shown(&reply, "SET", 2, Dialect::Resp2), format!("-MISCONF {text}\r\n"));
    }
    let loading = Reply::Error(Error::Loading { percent: 42 });
    assert_eq!(shown(&loading, "GET", 1, Dialect::Text), "-ERR loading, try again: 42 percent\n");
    let resp = "-LOADING Redis is loading the dataset in memory\r\n";
    assert_eq!(shown(&loading, "GET", 1, Dialect::Resp3), resp);
    let no_protocol = Reply::Error(Error::NoProtocol);
    assert_eq!(shown(&no_protocol, "HELLO", 1, Dialect::Resp2), "-NOPROTO unsupported protocol version\r\n");
}

#[test]
fn unknown_commands_are_echoed_as_by_redis() {
    let (a, b, c) = ("A".repeat(300), "b".repeat(100), "c".repeat(100));
    let z = "z ".repeat(40);
    for (line, text, resp) in [
        ("FOO".into(), "FOO", "'FOO', with args beginning with: ".into()),
        ("foo a b".into(), "foo", "'foo', with args beginning with: 'a' 'b' ".into()),
        ("\"f\\r\\noo\" \"a\\nb\\x1b\"".into(), "f  oo", "'f  oo', with args beginning with: 'a b ' ".into()),
        ("'' a".into(), "", "'', with args beginning with: 'a' ".into()),
        (a.clone(), &a[..128], format!("'{}', with args beginning with: ", &a[..128])),
        (
            format!("foo {b} {c} ddd"),
            "foo",
            format!("'foo', with args beginning with: '{b}' '{}' ", &c[..25]),
        ),
        (format!("foo '' {a}"), "foo", format!("'foo', with args beginning with: '' '{}' ", &a[..125])),
        (format!("foo {z}"), "foo", format!("'foo', with args beginning with: {}", "'z' ".repeat(32))),
    ] {
        let input = line + "\n";
        let mut parser = Parser::new(RESP);
        parser.parse(input.as_bytes()).unwrap();
        assert_eq!(parser.command(), None);
        let reply = Reply::Error(parser.unknown_command(input.as_bytes()));
        assert_eq!(shown(&reply, "", 0, Dialect::Text), format!("-ERR unknown command '{text}'\n"));
        assert_eq!(shown(&reply, "", 0, Dialect::Resp2), format!("-ERR unknown command {resp}\r\n"));
    }
}

#[test]
fn protocol_errors_in_the_words_of_redis() {
    use ProtocolError::*;
    for (error, text) in [
        (InvalidElementCount, &b"-ERR Protocol error: invalid multibulk length\r\n"[..]),
        (InvalidBulkLength, b"-ERR Protocol error: invalid bulk length\r\n"),
        (GuestElementCount, b"-ERR Protocol error: unauthenticated multibulk length\r\n"),
        (GuestBulkLength, b"-ERR Protocol error: unauthenticated bulk length\r\n"),
        (ExpectedBulk(b'P'), b"-ERR Protocol error: expected '$', got 'P'\r\n"),
        (ExpectedBulk(b'\r'), b"-ERR Protocol error: expected '$', got ' '\r\n"),
        (ExpectedBulk(0xff), b"-ERR Protocol error: expected '$', got '\xff'\r\n"),
        (ElementCountTooLong, b"-ERR Protocol error: too big mbulk count string\r\n"),
        (BulkLengthTooLong, b"-ERR Protocol error: too big bulk count string\r\n"),
        (InlineTooLong, b"-ERR Protocol error: too big inline request\r\n"),
        (UnbalancedQuotes, b"-ERR Protocol error: unbalanced quotes in request\r\n"),
        (Http, b""),
        // These have no equal in Redis.
        (BulkNotTerminated, b"-ERR Protocol error: expected CRLF after bulk\r\n"),
        (RequestTooLarge, b"-ERR Protocol error: too big request, the limit is 1 GiB\r\n"),
        (Tls, b"-ERR Protocol error: this port does not speak TLS\r\n"),
    ] {
        let mut out = Vec::new();
        error.write(Dialect::Resp2, &mut out);
        assert_eq!(out, text, "{error}");
    }
    for (error, text) in [
        (LineTooLong, "-ERR line too long\n"),
        (
            RespOnTextPort { resp_port: Some(6379) },
            "-ERR this port speaks the kvlite text protocol; for RESP use port 6379\r\n",
        ),
        (
            RespOnTextPort { resp_port: None },
            "-ERR this port speaks the kvlite text protocol; for RESP start with --resp-port\r\n",
        ),
    ] {
        let mut out = Vec::new();
        error.write(Dialect::Text, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }
}

#[test]
fn arity_is_that_of_the_row() {
    for (line, right) in [
        ("GET", false),
        ("GET a", true),
        ("GET a b", false),
        ("SET a", false),
        ("SET a \"\"", true),
        ("SET a b c", true),
        ("SETEX a 1", false),
        ("SETEX a 1 b c", true),
        ("MSET a b", true),
        ("MSET a b c", false),
        ("MSET", false),
        ("PING", true),
        ("PING a b", true),
        ("DBSIZE x", false),
        ("MGET a b c", true),
    ] {
        let input = format!("{line}\n");
        let mut parser = Parser::new(TEXT);
        parser.parse(input.as_bytes()).unwrap();
        let command = parser.command().unwrap();
        let want = if right { Ok(()) } else { Err(Error::WrongArity(command)) };
        assert_eq!(check_arity(command, parser.arg_count()), want, "{line}");
    }
}

#[test]
fn the_text_protocol_takes_only_times_to_come() {
    for (line, refused) in [
        ("EXPIRE a 1", false),
        ("EXPIRE a 0", true),
        ("EXPIRE a -1 NX", true),
        ("EXPIRE a -9223372036854775808", true),
        ("EXPIRE a ten", false), // The shard refuses that.
        ("PERSIST a", false),
        ("DECRBY a -1", false),
    ] {
        let input = format!("{line}\n");
        let mut parser = Parser::new(TEXT);
        parser.parse(input.as_bytes()).unwrap();
        let request = parser.request(input.as_bytes(), parser.command().unwrap());
        let want = if refused { Err(Error::InvalidExpire(request.command)) } else { Ok(()) };
        assert_eq!(check_time(&request, Dialect::Text), want, "{line}");
        assert_eq!(check_time(&request, Dialect::Resp2), Ok(()), "{line}");
    }
}

#[test]
fn a_list_put_together_from_parts_is_the_list() {
    for dialect in [Dialect::Text, Dialect::Resp2, Dialect::Resp3] {
        for count in [0, 1, 3] {
            let items = [Reply::bytes(b"a b"), Reply::Nil, Reply::bytes(b"\n")];
            let items = &items[..count];
            let (mut list, mut page, mut parts) = (Vec::new(), Vec::new(), Vec::new());
            begin_list(count, dialect, &mut list);
            begin_page(u64::MAX, count, dialect, &mut page);
            items.iter().for_each(|item| write_item(item, dialect, &mut parts));
            list.extend_from_slice(&parts);
            page.extend_from_slice(&parts);

            let whole = Reply::Array(items.to_vec());
            assert_eq!(String::from_utf8(list).unwrap(), shown(&whole, "KEYS", 1, dialect));
            let whole = Reply::Array(vec![Reply::bytes(b"18446744073709551615"), whole]);
            assert_eq!(String::from_utf8(page).unwrap(), shown(&whole, "SCAN", 1, dialect));
        }
    }
}

#[test]
fn first_arguments_are_read_ahead_as_far_as_requests_are_whole_and_usual() {
    let ahead = |input: &[u8]| -> Vec<String> {
        first_args(input).map(|key| key.escape_ascii().to_string()).collect()
    };
    let get = b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n";
    let set = b"*3\r\n$3\r\nSET\r\n$12\r\nkey:00000001\r\n$0\r\n\r\n";
    let ping = b"*1\r\n$4\r\nPING\r\n";
    let all = [&get[..], set, ping, get].concat();
    assert_eq!(ahead(&all), ["key", "key:00000001", "", "key"]);
    for cut in 0..all.len() {
        let whole = [get.len(), get.len() + set.len(), get.len() + set.len() + ping.len()];
        assert_eq!(ahead(&all[..cut]).len(), whole.iter().filter(|end| **end <= cut).count(), "cut at {cut}");
    }
    for unusual in
        [&b"PING\r\n"[..], b"*-1\r\n", b"*2\r\n$3\r\nGET\r\n:5\r\n", b"*1\r\n$9999\r\n", b"*x\r\n", b""]
    {
        assert_eq!(ahead(unusual), Vec::<String>::new());
    }
}
