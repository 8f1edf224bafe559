//! Both protocols from outside: bytes in, requests out; replies in, bytes out.
//!
//! The RESP tables hold what Redis 7.0.15 does with the same bytes, except where a comment says otherwise.

use proptest::prelude::*;
use shard::command::find;

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
                    let request = parser.request(&buffer, find(b"PING").unwrap(), Dialect::Resp2);
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
