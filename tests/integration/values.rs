//! Values from nothing to 64 MiB, every byte in keys and values, requests in pieces of any size.

use crate::client::{Value, encoded};
use crate::process::{Server, within_deadline};
use crate::words::quoted;

/// Bytes that differ from place to place, so that a shifted or repeated piece is seen.
fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 4096);
    let mut block = 0_u32;
    while bytes.len() < len {
        bytes.extend_from_slice(&block.wrapping_mul(0x9e37_79b9).to_le_bytes());
        bytes.extend_from_slice(&[0x5a; 1020]);
        block += 1;
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn values_of_all_sizes_come_back_as_they_were_sent() {
    let mut server = Server::start(2, &["--wal-segment-size", "67108864"]);
    let mut resp = server.resp();
    let sizes = [0, 1, 1000, 64 << 10, 1 << 20, 64 << 20];
    for size in sizes {
        let value = pattern(size);
        // Two keys on different shards: one of them is not the shard of the connection.
        for key in [format!("{{a}}{size}"), format!("{{b}}{size}")] {
            assert_eq!(resp.ask_bytes(&[b"SET", key.as_bytes(), &value]).to_string(), "+OK", "{size} bytes");
            assert_eq!(resp.ask(&format!("STRLEN {key}")).integer(), i64::try_from(size).unwrap());
            assert!(resp.ask(&format!("GET {key}")) == Value::bulk(&value), "GET of {size} bytes differs");
        }
    }
    let both = resp.ask("MGET {a}65536 {b}65536 {a}0");
    assert!(both == Value::Array([64 << 10, 64 << 10, 0].map(|size| Value::bulk(pattern(size))).to_vec()));
    server.kill9();
    server.restart(2);
    let mut resp = server.resp();
    for size in sizes {
        assert!(
            resp.ask(&format!("GET {{b}}{size}")) == Value::bulk(pattern(size)),
            "{size} bytes, restarted"
        );
    }
}

#[test]
fn long_values_fit_into_lines_of_the_text_protocol() {
    let server = Server::start(2, &[]);
    let mut text = server.text();
    for size in [1, 64 << 10, (1 << 20) - 100] {
        let value = "abcdefgh".repeat(size / 8 + 1)[..size].to_owned();
        assert_eq!(text.ask_one(&format!("SET k \"{value}\"")), "+OK");
        assert_eq!(text.ask_one("STRLEN k"), size.to_string());
        assert!(text.ask_one("GET k") == value, "GET of {size} bytes differs");
    }
}

#[test]
fn keys_and_values_may_hold_any_byte() {
    let server = Server::start(2, &[]);
    let (mut resp, mut text) = (server.resp(), server.text());
    let all: Vec<u8> = (0..=255).collect();
    let escaped: String = all.iter().map(|byte| format!("\\x{byte:02x}")).collect();

    assert_eq!(resp.ask_bytes(&[b"SET", &*all, &*all]).to_string(), "+OK");
    assert_eq!(resp.ask_bytes(&[b"GET", &*all]), Value::bulk(&all));
    assert_eq!(resp.ask("KEYS *"), Value::Array(vec![Value::bulk(&all)]));

    // The text protocol reads the same key, and shows the value in a form that it can read.
    assert_eq!(text.ask_one(&format!("STRLEN \"{escaped}\"")), "256");
    let shown = text.ask_bytes(format!("GET \"{escaped}\"").as_bytes());
    assert_eq!(shown.len(), 1, "one line: {shown:?}");
    let again = [b"SET copy ", &*shown[0]].concat();
    assert_eq!(text.ask_bytes(&again), [b"+OK"]);
    assert_eq!(resp.ask("GET copy"), Value::bulk(&all));
    let shown_keys = text.ask_bytes(b"KEYS *");
    assert!(shown_keys.contains(&shown[0]), "KEYS shows the key as GET shows the same bytes: {shown_keys:?}");

    for byte in 0..=255_u8 {
        assert_eq!(text.ask_one(&format!("SET \"k\\x{byte:02x}\" \"\\x{byte:02X}v\"")), "+OK");
        assert_eq!(
            resp.ask_bytes(&[b"GET".as_slice(), &[b'k', byte]]),
            Value::bulk([byte, b'v']),
            "byte {byte}"
        );
    }
    // What could lose bytes on the way is shown so that it can be read back.
    for value in ["", " ", " a ", "'a'", "\"", "a\\", "+OK", "(nil)", "\t"] {
        resp.ask_bytes(&["SET", "shown", value]);
        let shown = text.ask_bytes(b"GET shown");
        assert_eq!(shown.len(), 1, "{value:?} is shown as {shown:?}");
        if !value.trim().is_empty() && value.trim() == value {
            assert_eq!(text.ask_bytes(&[b"SET copy ", &*shown[0]].concat()), [b"+OK"]);
            assert_eq!(resp.ask("GET copy"), Value::bulk(value), "shown as {}", shown[0].escape_ascii());
        }
    }
    let mut rest = "\"a\\x00\\xff\\\"\\\\\"";
    assert_eq!(text.ask_one(&format!("SET q {rest}")), "+OK");
    assert_eq!(resp.ask("GET q"), Value::Bulk(quoted(&mut rest)));
}

#[test]
fn requests_may_arrive_byte_by_byte() {
    let server = Server::start(2, &[]);
    let mut resp = server.resp();
    let requests = [
        encoded(&["SET", "piece", "some\r\nvalue"]),
        encoded(&["GET", "piece"]),
        b"PING\r\n".to_vec(),
        b"SET \"inline key\" \"a b\"\r\n".to_vec(),
        encoded(&["MGET", "piece", "inline key", "nope"]),
    ];
    for byte in requests.concat() {
        resp.wire.send(&[byte]);
    }
    for expected in ["+OK", "\"some\\r\\nvalue\"", "+PONG", "+OK", "[\"some\\r\\nvalue\", \"a b\", nil]"] {
        assert_eq!(resp.read().to_string(), expected);
    }
    let mut text = server.text();
    for byte in *b"SET t \"two\\x20words\"\r\nGET t\nMGET t nope\n\nPING\n" {
        text.wire.send(&[byte]);
    }
    for expected in ["+OK", "two words", "two words", "(nil)", "+PONG"] {
        assert_eq!(text.wire.line().escape_ascii().to_string(), expected);
    }
}

#[test]
fn memory_of_removed_values_goes_back_to_the_system() {
    let server = Server::start(2, &[]);
    let mut resp = server.resp();
    let empty = server.resident_bytes();
    for (key_count, value_len, keys_a_request) in [(60_000, 300, 500), (600, 50_000, 20)] {
        let value = pattern(value_len);
        for start in (0..key_count).step_by(keys_a_request) {
            let mut arguments = vec![b"MSET".to_vec()];
            for number in start..start + keys_a_request {
                arguments.extend([format!("{value_len}:{number}").into_bytes(), value.clone()]);
            }
            assert_eq!(resp.ask_bytes(&arguments).to_string(), "+OK");
        }
    }
    let full = server.resident_bytes();
    assert!(full - empty > 45 << 20, "{} bytes for 48 MB", full - empty);
    assert_eq!(resp.ask("FLUSHALL").to_string(), "+OK");
    let is_small = || server.resident_bytes() < empty + (full - empty) / 4;
    assert!(within_deadline(is_small), "{} of {full} bytes are left", server.resident_bytes());
}
