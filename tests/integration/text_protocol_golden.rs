//! The replies of the text protocol that existing clients rely on, to the letter.

use crate::client::{Value, Wire};
use crate::process::Server;
use crate::transcript::run_text;

/// One conversation with an empty server, on one connection.
const CONVERSATION: &str = concat!(
    r#"
    SET a -> -ERR SET requires key and value
    GET -> -ERR GET requires key
    GET nope -> -ERR key not found
    SET greeting "Hello, World!" -> +OK
    GET greeting -> Hello, World!
    SET a 1 -> +OK
    DELETE a -> +OK
    DELETE a -> -ERR key not found
    SET a 1 -> +OK
    DEL a -> +OK
    DEL a -> -ERR key not found
    SET a 1 -> +OK
    EXISTS a -> 1
    EXISTS nope -> 0
    MSET a 1 b 2 -> +OK
    MGET a b nope -> 1 | 2 | (nil)
    MSET a -> -ERR MSET requires key value pairs
    MDEL a b nope -> 2
    SETEX s 0 v -> -ERR invalid TTL
    SETEX s -1 v -> -ERR invalid TTL
    SET a 1 -> +OK
    EXPIRE a -1 -> -ERR invalid TTL
    TTL a -> -1
    TTL nope -> -2
    EXPIRE a 100 -> 1
    TTL a -> <99..100>
    PERSIST a -> 1
    PERSIST a -> 0
    SET text words -> +OK
    INCR text -> -ERR value is not an integer
    STRLEN nope -> 0
    EXISTS nope -> 0
    SETEX s 100 v -> +OK
    TTL s -> <99..100>
    APPEND s alue -> 5
    GET s -> value
    DECR n -> -1
    INCR n -> 0
    KEYS nothing* -> (empty list)
    CONFIG GET max_connections -> 10000
    CLEAR -> +OK
    KEYS * -> (empty list)
    MSET user:1 a user:2 b -> +OK
    KEYS user:* -> any order: user:1 | user:2
    FOO -> -ERR unknown command 'FOO'
    foo bar -> -ERR unknown command 'foo'
    SYNC -> +OK
    COMPACT -> +OK
    INFO -> +OK keys=2 connections=<1..> wal_size=<1..>
"#,
    "STATS -> +OK keys=2 connections=<1..> wal_size=<1..> wal_entries=<0..> needs_compaction=false ",
    "ttl_expired=<0..> ttl_checks=<0..> reads=<1..> writes=<1..><..>",
    r#"
    HEALTH -> {"status":"healthy","keys":2,"connections":<1..>,"wal_size":<1..>,"wal_healthy":true<..>}
    PING -> +PONG
    QUIT -> +OK goodbye
    (closed)
"#
);

/// How values are shown: as they are, or quoted where they could be misread.
const VALUES: &str = r#"
    SET v plain text -> +OK
    GET v -> plain text
    SET v   leading and trailing blanks go   -> +OK
    GET v -> leading and trailing blanks go
    SET v "  kept in quotes  " -> +OK
    STRLEN v -> 18
    SET v "two\nlines" -> +OK
    GET v -> "two\nlines"
    SET v "cr\rtab\tnul\x00del\x7f" -> +OK
    GET v -> "cr\rtab\tnul\x00del\x7f"
    SET v "\"quoted\"" -> +OK
    GET v -> "\"quoted\""
    SET v in"side -> +OK
    GET v -> in"side
    SET v "back\\slash" -> +OK
    GET v -> back\slash
    SET v "+OK" -> +OK
    GET v -> "+OK"
    SET v "-ERR no" -> +OK
    GET v -> "-ERR no"
    SET v -5 -> +OK
    GET v -> -5
    SET v "(nil)" -> +OK
    GET v -> "(nil)"
    MGET v nope -> "(nil)" | (nil)
    SET v "(empty list)" -> +OK
    GET v -> "(empty list)"
    SET v (nil) really -> +OK
    GET v -> (nil) really
    SET v 'it\'s "so"' -> +OK
    GET v -> it's "so"
    SET v "one" and more -> +OK
    GET v -> "\"one\" and more"
"#;

#[test]
fn replies_of_the_text_protocol_stay_to_the_letter() {
    let server = Server::start(2, &[]);
    let failures = run_text("conversation", CONVERSATION, &mut server.text());
    let failures = failures + &run_text("values", VALUES, &mut server.text());
    assert!(failures.is_empty(), "{failures}{}", server.log.tail());
    lines_may_end_and_begin_in_several_ways(&server);
    options_show_what_was_asked_for(&server);
}

fn lines_may_end_and_begin_in_several_ways(server: &Server) {
    let mut wire = Wire::connect((std::net::Ipv4Addr::LOCALHOST, server.port).into(), &server.log);
    wire.send(b"\n\r\n  \nping\r\nPiNg\n  PING\n\tPING  \r\nSET\tt  tabs\tinside\r\nGET t\n");
    let expected = ["+OK kvlite ready", "+PONG", "+PONG", "+PONG", "+PONG", "+OK"];
    for expected in expected {
        assert_eq!(wire.line().escape_ascii().to_string(), expected);
    }
    assert_eq!(wire.line(), b"\"tabs\\tinside\"", "a tab is a control byte");
}

fn options_show_what_was_asked_for(server: &Server) {
    let mut text = server.text();
    let resp_port = server.resp_port.to_string();
    let wal_path = server.data().display().to_string();
    let wanted =
        [("resp_port", &*resp_port), ("shards", "2"), ("wal_path", &wal_path), ("host", "127.0.0.1")];
    for (option, value) in wanted {
        assert_eq!(text.ask_one(&format!("CONFIG GET {option}")), value, "CONFIG GET {option}");
        let pair = server.resp().ask(&format!("CONFIG GET {option}"));
        assert_eq!(pair.items().get(1), Some(&Value::bulk(value)), "CONFIG GET {option}: {pair}");
    }
    assert_eq!(text.ask_one("CONFIG GET port"), server.port.to_string());
    let pair = server.resp().ask("CONFIG GET port"); // Clients of Redis connect to it.
    assert_eq!(pair.items().get(1), Some(&Value::bulk(&resp_port)), "{pair}");
    assert_eq!(text.ask_one("CONFIG GET sync_mode"), "everysec");
    assert!(text.ask_one("CONFIG GET max_connections").parse::<u32>().is_ok());
}
