//! Bad input on the wire: it is answered or the connection is closed; nothing of it is executed, no memory is
//! set aside for what was only announced, and other clients notice nothing.

use std::net::Ipv4Addr;

use crate::client::{Resp, Value, Wire, encoded};
use crate::process::{Server, within_deadline};

/// What must have happened to the connection after the reply.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Open,
    Closed,
}

/// One bad input on the RESP port and the start of its reply.
struct Case {
    name: &'static str,
    sent: Vec<u8>,
    reply: &'static str,
    then: Then,
}

fn case(name: &'static str, sent: impl AsRef<[u8]>, reply: &'static str, then: Then) -> Case {
    Case { name, sent: sent.as_ref().to_vec(), reply, then }
}

fn resp_cases() -> Vec<Case> {
    use Then::{Closed, Open};
    let multibulk = "-ERR Protocol error: invalid multibulk length";
    let bulk = "-ERR Protocol error: invalid bulk length";
    let long_name = encoded(&["x".repeat(1 << 20)]);
    vec![
        case("no arguments", "*0\r\n", "", Open),
        case("minus one arguments", "*-1\r\n", "", Open),
        case("2^31 arguments", "*2147483648\r\n", multibulk, Closed),
        case("2^30 arguments", "*1073741824\r\n", "-ERR Protocol error", Closed),
        case("2^63-1 arguments", "*9223372036854775807\r\n", multibulk, Closed),
        case("a word for a count", "*abc\r\n", multibulk, Closed),
        case("a count with a plus", "*+1\r\n", multibulk, Closed),
        case("a count with a zero before it", "*01\r\n", multibulk, Closed),
        case("a length of minus one", "*1\r\n$-1\r\n", bulk, Closed),
        case("a length of 512 MiB and one", "*2\r\n$3\r\nGET\r\n$536870913\r\n", bulk, Closed),
        case("a length of 20 digits", "*1\r\n$12345678901234567890\r\n", bulk, Closed),
        case("a word for a length", "*1\r\n$four\r\n", bulk, Closed),
        case("an empty name", "*1\r\n$0\r\n\r\n", "-ERR unknown command ''", Open),
        case(
            "an integer for a bulk string",
            "*1\r\n:5\r\n",
            "-ERR Protocol error: expected '$', got ':'",
            Closed,
        ),
        case(
            "a nested array",
            "*1\r\n*1\r\n$4\r\nPING\r\n",
            "-ERR Protocol error: expected '$', got '*'",
            Closed,
        ),
        case(
            "a bulk string that does not end with CRLF",
            "*1\r\n$4\r\nPINGxx",
            "-ERR Protocol error",
            Closed,
        ),
        case("an inline command that ends with LF", "PING\n", "+PONG", Open),
        case("blank lines", "\r\n\n\r\nPING\r\n", "+PONG", Open),
        case("inline words in quotes", "ECHO \"\\x00a\\n\"\r\n", "$3", Open),
        case(
            "unbalanced quotes",
            "SET a \"b\r\n",
            "-ERR Protocol error: unbalanced quotes in request",
            Closed,
        ),
        case(
            "70 KB without a newline",
            "a".repeat(70_000),
            "-ERR Protocol error: too big inline request",
            Closed,
        ),
        case(
            "70 KB of digits",
            format!("*{}", "1".repeat(70_000)),
            "-ERR Protocol error: too big mbulk count string",
            Closed,
        ),
        case(
            "70 KB of digits for a length",
            format!("*1\r\n${}", "1".repeat(70_000)),
            "-ERR Protocol error: too big bulk count string",
            Closed,
        ),
        case("a name of 1 MiB", long_name, "-ERR unknown command 'xxxx", Open),
        case(
            "a line break in a name",
            encoded(&["A\r\nB\n+OK"]),
            "-ERR unknown command 'A  B +OK', with args beginning with: ",
            Open,
        ),
        case("an unknown version", encoded(&["HELLO", "99"]), "-NOPROTO unsupported protocol version", Open),
        case("half of MSET's pairs", encoded(&["MSET", "bad", "1", "z"]), "-ERR wrong number of arg", Open),
        case("a crash on request", encoded(&["DEBUG", "SEGFAULT"]), "-ERR", Open),
        case("a directory set by a client", encoded(&["CONFIG", "SET", "dir", "/tmp"]), "-ERR", Open),
        case("POST of HTTP", "POST / HTTP/1.1\r\nHost: a\r\n\r\nSET bad 1\r\n", "", Closed),
        case("a header of HTTP", "Host: a\r\nSET bad 1\r\n", "", Closed),
        case("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", "", Closed),
    ]
}

#[test]
fn bad_input_on_the_resp_port_is_answered_or_closed() {
    let server = Server::start(2, &[]);
    let mut witness = server.resp();
    for Case { name, sent, reply, then } in resp_cases() {
        let mut client = server.resp();
        // The server may close before it has read all.
        let _ = client.wire.try_send(&sent);
        if !reply.is_empty() {
            let line = String::from_utf8_lossy(&client.wire.line()).into_owned();
            assert!(line.starts_with(reply), "{name}: expected {reply}, got {line}");
            assert!(line.len() < 1000, "{name}: the echo of the input is cut");
            if let (Some(len), true) = (line.strip_prefix('$'), then == Then::Open) {
                client.wire.try_exactly(len.parse::<usize>().unwrap() + 2).unwrap();
            }
        }
        match then {
            Then::Open => assert_eq!(client.ask("ECHO on").to_string(), "\"on\"", "{name}: stays open"),
            Then::Closed => drop(client.wire.until_closed()),
        }
        assert_eq!(witness.ask("PING").to_string(), "+PONG", "{name}: others are served");
    }
    assert_eq!(witness.ask("EXISTS bad z").integer(), 0, "nothing was executed");
    assert_eq!(witness.ask("DBSIZE").integer(), 0, "nothing was stored");
}

#[test]
fn http_is_closed_at_once_on_both_ports() {
    let server = Server::start(1, &[]);
    let requests =
        ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\nSET bad 1\r\n", "POST /x HTTP/1.1\r\nSET bad 1\r\n"];
    for port in [server.port, server.resp_port] {
        for request in requests {
            let mut wire = Wire::connect((Ipv4Addr::LOCALHOST, port).into(), &server.log);
            let _ = wire.try_send(request.as_bytes());
            let answer = String::from_utf8_lossy(&wire.until_closed()).into_owned();
            assert!(answer.lines().count() <= 2, "port {port}: {request:?} was answered {answer:?}");
        }
    }
    assert_eq!(server.resp().ask("EXISTS bad").integer(), 0, "nothing was executed");
}

#[test]
fn bad_input_on_the_text_port_is_answered_or_closed() {
    let server = Server::start(2, &[]);
    let connect = || server.text().wire;

    let mut wire = connect();
    wire.send(b"*1\r\n$4\r\nPING\r\n");
    let answer = String::from_utf8_lossy(&wire.until_closed()).into_owned();
    assert!(answer.starts_with("-ERR "), "RESP on the text port: {answer:?}");
    assert!(answer.contains(&server.resp_port.to_string()), "the error names the RESP port: {answer:?}");

    let mut wire = connect();
    let _ = wire.try_send(format!("SET long {}\n", "x".repeat(1 << 20)).as_bytes());
    assert_eq!(String::from_utf8_lossy(&wire.line()), "-ERR line too long");
    wire.until_closed();

    let mut wire = connect();
    let _ = wire.try_send("x".repeat((1 << 20) + 2).as_bytes());
    assert_eq!(String::from_utf8_lossy(&wire.line()), "-ERR line too long", "without a newline too");
    wire.until_closed();

    let mut text = server.text();
    let answer = text.ask_one("\u{1b}[31mRED\x00 a");
    assert!(answer.starts_with("-ERR unknown command '"), "{answer:?}");
    assert!(!answer.contains(['\u{1b}', '\0']), "control bytes are not echoed: {answer:?}");
    let answer = text.ask_one(&"n".repeat(100_000));
    assert!(answer.starts_with("-ERR unknown command 'nnn") && answer.len() < 1000, "the echo is cut");
    assert_eq!(text.ask_bytes(b"GET \xff\xfe"), [b"-ERR key not found"]);
    assert_eq!(text.ask_one("PING"), "+PONG", "the connection stays open");
    assert_eq!(text.ask_one("EXISTS long"), "0");
}

#[test]
fn what_follows_quit_is_dropped() {
    let server = Server::start(2, &[]);
    let mut resp = server.resp();
    resp.wire.send(&[encoded(&["QUIT"]), encoded(&["SET", "late", "1"])].concat());
    assert_eq!(resp.wire.until_closed(), b"+OK\r\n");
    let mut text = server.text();
    text.wire.send(b"QUIT\nSET late 1\n");
    assert_eq!(text.wire.until_closed(), b"+OK goodbye\n");
    assert_eq!(server.resp().ask("EXISTS late").integer(), 0);
}

#[test]
fn a_command_that_breaks_off_is_not_executed() {
    let server = Server::start(2, &[]);
    let whole = encoded(&["MSET", "a", "1", "b", "2", "c", "3", "d", "4"]);
    let mut counter = server.resp();
    for cut in 1..whole.len() {
        let mut client = server.resp();
        client.wire.send(&whole[..cut]);
        drop(client);
        let mut text = server.text();
        text.wire.send(&b"MSET a 1 b 2 c 3 d 4 e 5 f 6 g 7"[..cut.min(32)]);
        drop(text);
        assert_eq!(counter.ask("DBSIZE").integer(), 0, "cut after {cut} bytes");
    }
}

#[test]
fn announced_lengths_take_no_memory() {
    let server = Server::start(2, &[]);
    let before = server.resident_bytes();
    let announce: Vec<Resp> = (0..50)
        .map(|_| {
            let mut client = server.resp();
            client.wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$536870912\r\nonly this");
            client
        })
        .collect();
    let count: Vec<Resp> = (0..50)
        .map(|_| {
            let mut client = server.resp();
            client.wire.send(b"*1000000\r\n$4\r\nMGET\r\n");
            client
        })
        .collect();
    let mut other = server.resp();
    for _ in 0..100 {
        assert_eq!(other.ask("PING").to_string(), "+PONG");
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "100 announcements made the server grow by {grown} bytes");
    drop((announce, count));
    assert!(within_deadline(|| other.ask("EXISTS a") == Value::Integer(0)));
}

#[test]
fn a_request_for_which_there_is_no_memory_is_refused_and_the_server_goes_on() {
    const ROOM_BYTES: u64 = 192 << 20;
    let server = Server::start(2, &[]);
    let mut other = server.resp();
    let limit = server.address_space_bytes() + ROOM_BYTES;
    let id = rustix::process::Pid::from_raw(server.id().cast_signed());
    let limit = rustix::process::Rlimit { current: Some(limit), maximum: None };
    rustix::process::prlimit(id, rustix::process::Resource::As, limit).unwrap();
    // What was only claimed is not taken.
    let mut claims: Vec<Resp> = (0..8).map(|_| server.resp()).collect();
    for client in &mut claims {
        client.wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$536870912\r\n");
        client.wire.send(&vec![b'v'; 512 << 10]);
    }
    assert_eq!(other.ask("PING").to_string(), "+PONG");
    // Nor is what would have to be copied.
    let half = "v".repeat(24 << 20);
    let reply = other.ask_bytes(&["MSET", "c", &half, "d", &half]).to_string();
    assert!(reply.starts_with("-OOM "), "{reply}");
    assert_eq!(other.ask_bytes(&["SET", "e", &half]).to_string(), "+OK");
    let reply = other.ask_bytes(&["APPEND", "e", &half]).to_string();
    assert!(reply == "50331648" || reply.starts_with("-OOM "), "{reply}");
    // What is sent is refused once there is no room for it.
    let mut client = server.resp();
    client.wire.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$536870912\r\n");
    let _ = client.wire.try_send(&vec![b'v'; 400 << 20]);
    let line = String::from_utf8_lossy(&client.wire.line()).into_owned();
    assert!(line.starts_with("-OOM "), "{line}");
    assert_eq!(other.ask("SET b 1").to_string(), "+OK");
    assert_eq!(other.ask("EXISTS a b c d e").integer(), 2);
}

#[test]
fn a_pattern_full_of_stars_is_matched_fast() {
    let server = Server::start(1, &[]);
    let mut resp = server.resp();
    assert_eq!(resp.ask(&format!("SET {} 1", "a".repeat(4000))).to_string(), "+OK");
    let start = std::time::Instant::now();
    assert_eq!(resp.ask(&format!("KEYS {}b", "a*".repeat(40))).to_string(), "[]");
    for odd in ["[", "[a-", "\\", "[^", "a[", "*[", "[]", "[z-a]*"] {
        let reply = resp.ask(&format!("KEYS {odd}"));
        assert!(reply.items().len() <= 1, "KEYS {odd}: {reply}");
    }
    assert!(start.elapsed().as_secs() < 5, "took {:?}", start.elapsed());
}

#[test]
fn a_pattern_may_be_long_and_others_are_served_while_it_is_matched() {
    let server = Server::start(2, &["--auto-ttl", "s:* 1h"]);
    let (mut resp, mut other) = (server.resp(), server.resp());
    for key in 0..1000 {
        resp.wire.send(&encoded(&["SET", &format!("h:g{key}!"), "1"]));
    }
    (0..1000).for_each(|_| assert_eq!(resp.read().to_string(), "+OK"));
    let long = "x".repeat(200_000);
    for (pattern, count) in [(format!("h:g*[{long}]!"), 0), (format!("h:g*[{long}0-9]!"), 1000)] {
        assert_eq!(resp.ask_bytes(&["KEYS", &pattern]).items().len(), count);
        let page = resp.ask_bytes(&["SCAN", "0", "MATCH", &pattern, "COUNT", "10000"]);
        assert_eq!(page.items()[1].items().len(), count);
        assert!(resp.ask_bytes(&["CONFIG", "GET", &pattern]).items().is_empty());
    }
    // As many comparisons as the lengths of both, multiplied.
    let key = "a".repeat(6000);
    assert_eq!(resp.ask_bytes(&["SET", &key, "1"]).to_string(), "+OK");
    resp.wire.send(&encoded(&["KEYS", &format!("*{}b", &key[..2000])]));
    assert_eq!(other.ask_bytes(&["GET", &key]).to_string(), "\"1\"");
    assert_eq!(resp.read().to_string(), "[]");
    let too_long = "?".repeat((1 << 20) + 1);
    for request in
        [vec!["KEYS", &too_long], vec!["SCAN", "0", "MATCH", &too_long], vec!["CONFIG", "GET", &too_long]]
    {
        let reply = resp.ask_bytes(&request).to_string();
        assert_eq!(reply, "-ERR pattern too long; it may have 1048576 bytes");
    }
}

#[test]
fn one_mset_of_a_hundred_thousand_keys_is_taken_whole() {
    let server = Server::start(5, &[]);
    let mut arguments = vec!["MSET".to_owned()];
    arguments.extend((0..100_000).flat_map(|key| [format!("big:{key}"), key.to_string()]));
    let mut resp = server.resp();
    resp.wire.send(&encoded(&arguments));
    let mut other = server.resp();
    let seen = other.ask("EXISTS big:0 big:1 big:50000 big:99999").integer();
    assert!(seen == 0 || seen == 4, "a reader saw {seen} of 4 keys");
    assert_eq!(resp.read().to_string(), "+OK");
    assert_eq!(resp.ask("DBSIZE").integer(), 100_000);
    let some = resp.ask("MGET big:0 big:777 big:99999 big:100000");
    assert_eq!(some.to_string(), "[\"0\", \"777\", \"99999\", nil]");
}

#[test]
fn a_redis_client_on_the_text_port_is_told_so_by_an_error_that_it_can_read() {
    let server = Server::start(2, &[]);
    let told =
        format!("-ERR this port speaks the kvlite text protocol; for RESP use port {}\r\n", server.resp_port);
    let connect = || Wire::connect((Ipv4Addr::LOCALHOST, server.port).into(), &server.log);
    // A client that waits for the greeting gets it all the same.
    let mut patient = connect();
    assert_eq!(patient.line(), b"+OK kvlite ready");
    patient.send(&encoded(&["PING"]));
    assert_eq!(String::from_utf8_lossy(&patient.until_closed()), told);
    // To one that speaks first, as Redis clients do, it would be the reply. Its request may come late.
    let first_heard = || {
        let mut hasty = connect();
        hasty.send(&encoded(&["PING"]));
        String::from_utf8_lossy(&hasty.until_closed()).into_owned()
    };
    assert!(within_deadline(|| first_heard() == told), "the greeting comes first\n{}", server.log.tail());
}
