//! Clients that get no further by their own doing: those that send without reading, and those that stop in the middle
//! of a request. They are shown, told of, and let go after `--request-timeout`; others are not.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Resp, Wire, encoded, is_closed};
use crate::process::{Server, within_deadline};

/// What `CLIENT LIST` has about the client of this name.
fn line_of(server: &Server, name: &str) -> Option<String> {
    let list = String::from_utf8(server.resp().ask("CLIENT LIST").bytes().to_vec()).unwrap();
    list.lines().find(|line| line.contains(&format!(" name={name} "))).map(ToOwned::to_owned)
}

/// The value of a field in it.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let mut fields = line.split(' ').filter_map(|field| field.split_once('='));
    fields.find(|(field, _)| *field == name).unwrap_or_else(|| panic!("no {name} in {line}")).1
}

/// A client that asks for far more than the buffers between it and the server hold, and reads nothing.
fn silent(server: &Server, name: &str) -> Resp {
    let mut client = server.resp();
    assert_eq!(client.ask(&format!("SET big {}", "v".repeat(100_000))).to_string(), "+OK");
    assert_eq!(client.ask(&format!("CLIENT SETNAME {name}")).to_string(), "+OK");
    let mut sender = client.wire.sender();
    // More than is taken in ahead, and less than the system takes at once.
    sender.write_all(&encoded(&["GET", "big"]).repeat(10_000)).unwrap();
    client
}

#[test]
fn what_a_large_reply_has_left_is_shown() {
    const LEN: usize = 64 << 20;
    let server = Server::start(1, &[]);
    let mut client = server.resp();
    assert_eq!(client.ask("CLIENT SETNAME reader").to_string(), "+OK");
    client.wire.send(&encoded(&["SET", "large", &"v".repeat(LEN)]));
    assert_eq!(client.read().to_string(), "+OK");
    client.wire.send(&encoded(&["GET", "large"]));
    let unread = || field(&line_of(&server, "reader").unwrap(), "omem").parse::<usize>().unwrap();
    assert!(within_deadline(|| unread() > LEN / 2), "{:?}", line_of(&server, "reader"));
    assert_eq!(client.read().bytes().len(), LEN);
    assert!(within_deadline(|| unread() == 0), "{:?}", line_of(&server, "reader"));
}

#[test]
fn a_client_that_does_not_read_is_shown_told_of_and_let_go() {
    let server = Server::start(2, &["--request-timeout", "10s"]);
    let mut client = silent(&server, "silent");
    let is_shown = || {
        let line = line_of(&server, "silent").expect("it is not let go yet");
        field(&line, "events") == "w"
            && field(&line, "qbuf").parse::<usize>().unwrap() >= 64 << 10
            && field(&line, "omem").parse::<usize>().unwrap() >= 1 << 20
    };
    assert!(within_deadline(is_shown), "{:?}", line_of(&server, "silent"));
    let told = || server.log.text().lines().filter(|line| line.contains("does not read its replies")).count();
    assert!(within_deadline(|| told() == 1), "{}", server.log.tail());
    assert!(within_deadline(|| line_of(&server, "silent").is_none()), "{:?}", line_of(&server, "silent"));
    let log = server.log.text();
    assert!(log.contains("a client is disconnected: it has not read its replies"), "{}", server.log.tail());
    assert_eq!(told(), 1, "once");
    // What the system holds of whole replies can still be read, and then the end.
    let end = loop {
        match client.try_read() {
            Ok(reply) => assert!(reply.to_string().starts_with("\"vvv"), "{reply}"),
            Err(error) => break error,
        }
    };
    assert!(is_closed(&end), "{end}");
}

#[test]
fn a_client_that_reads_slowly_is_not_let_go() {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let server = Server::start(1, &["--request-timeout", "5s"]);
    let mut client = silent(&server, "slow");
    let (mut reader, mut chunk, mut received) = (client.wire.sender(), vec![0; 16 << 10], 0);
    let begun = Instant::now();
    while begun.elapsed() < TIMEOUT.mul_f64(1.5) {
        received += reader.read(&mut chunk).unwrap();
        thread::sleep(Duration::from_millis(50)); // It is slow.
    }
    assert!(line_of(&server, "slow").is_some(), "{}", server.log.tail());
    let reply_bytes = "$100000\r\n".len() + 100_000 + "\r\n".len();
    let mut rest = vec![0; (reply_bytes - received % reply_bytes) % reply_bytes];
    reader.read_exact(&mut rest).unwrap();
    assert!(client.read().to_string().starts_with("\"vvv"), "it is in step");
}

#[test]
fn a_client_that_stops_in_the_middle_of_a_request_is_let_go_and_an_idle_one_is_not() {
    let server = Server::start(2, &["--request-timeout", "1s"]);
    let (mut idle, mut idle_text) = (server.resp(), server.text());
    assert_eq!(idle.ask("SET a 1").to_string(), "+OK");
    let error = "-ERR the rest of the request did not come within --request-timeout";
    let mut halves: Vec<(Wire, String)> =
        ["*2\r\n", "*2\r\n$3\r\nGET\r\n$100000\r\nab", "GET", "*2\r\n$3\r\nGET\r\n$1\r\na"]
            .map(|half| (server.resp().wire, half))
            .map(|(mut wire, half)| {
                wire.send(half.as_bytes());
                (wire, format!("{error}\r\n"))
            })
            .into();
    let mut wire = server.text().wire;
    wire.send(b"SET a 2");
    halves.push((wire, format!("{error}\n")));
    let mut wire = server.resp().wire;
    wire.send(&[encoded(&["ECHO", "whole"]), b"*1\r\n".to_vec()].concat());
    halves.push((wire, format!("$5\r\nwhole\r\n{error}\r\n")));
    for (wire, expected) in &mut halves {
        assert_eq!(String::from_utf8_lossy(&wire.until_closed()), *expected);
    }
    assert!(server.log.text().contains("it has not ended its request"), "{}", server.log.tail());
    assert_eq!(idle.ask("GET a").to_string(), "\"1\"");
    assert_eq!(idle_text.ask_one("GET a"), "1");
}

#[test]
fn a_request_that_comes_piece_by_piece_is_taken() {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let server = Server::start(1, &["--request-timeout", "5s"]);
    let mut client = server.resp();
    let request = encoded(&["ECHO", "slow"]);
    let pause = TIMEOUT.mul_f64(1.2) / request.len() as u32;
    for piece in request.chunks(1) {
        client.wire.send(piece);
        thread::sleep(pause); // It is slow.
    }
    assert_eq!(client.read().to_string(), "\"slow\"");
}

#[test]
fn how_far_a_client_may_send_ahead_is_an_option() {
    // 32 MiB, of which the system holds less than half on its way there and back.
    const COUNT: usize = 32 << 10;
    let server = Server::start(2, &["--client-query-buffer-limit", "64m"]);
    let mut client = server.resp();
    let value = "v".repeat(1 << 10);
    client.wire.send(&encoded(&["ECHO", &value]).repeat(COUNT));
    for _ in 0..COUNT {
        assert_eq!(client.read().bytes(), value.as_bytes());
    }
    let options = client
        .ask("CONFIG GET client-query-buffer-limit client-reply-buffer-limit request-timeout")
        .to_string();
    let expected = "[\"client-query-buffer-limit\", \"67108864\", \"client-reply-buffer-limit\", \"1048576\", \
                    \"request-timeout\", \"60s\"]";
    assert_eq!(options, expected);
}
