//! Values from nothing to 64 MiB, every byte in keys and values, requests in pieces of any size.

use std::collections::BTreeMap;
use std::io::Write;

use crate::client::{Value, encoded};
use crate::process::{Server, within_deadline};
use crate::random::Random;
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

/// Sizes around those from which on values are not copied, on the way in and on the way out, and one that is written
/// before its command runs.
const SIZES: [usize; 9] =
    [0, 100, (16 << 10) - 1, 16 << 10, 20_000, (256 << 10) - 1, 256 << 10, 1_300_000, 5_000_000];

/// One request with a large value or about one, and its reply by a model of the keys.
fn large_exchange(random: &mut Random, keys: &mut BTreeMap<String, Vec<u8>>) -> (Vec<u8>, Value) {
    let key = format!("{{{}}}", random.below(6));
    let size = random.one_of(&SIZES);
    let mut value = pattern(size);
    value.iter_mut().take(8).for_each(|byte| *byte = random.below(256) as u8);
    let (ok, shown) =
        (Value::Simple("OK".to_owned()), |value: Option<&Vec<u8>>| value.map_or(Value::Nil, Value::bulk));
    let word = |word: &str| word.as_bytes().to_vec();
    let name = key.clone().into_bytes();
    match random.below(10) {
        0..4 => {
            let mut request = vec![word("SET"), name, value.clone()];
            let mut reply = ok;
            match random.below(4) {
                0 => request.extend([word("EX"), word("1000")]),
                1 => {
                    request.extend([word("GET"), word("PX"), word("1000000")]);
                    reply = shown(keys.get(&key));
                }
                2 if keys.contains_key(&key) => {
                    request.push(word("NX"));
                    return (encoded(&request), Value::Nil);
                }
                _ => {}
            }
            keys.insert(key, value);
            (encoded(&request), reply)
        }
        4 => {
            keys.insert(key, value.clone());
            (encoded(&[word("SETEX"), name, word("1000"), value]), ok)
        }
        5 => {
            let all = keys.entry(key).or_default();
            all.extend(&value[..value.len().min(30_000)]);
            let len = Value::Integer(all.len() as i64);
            (encoded(&[word("APPEND"), name, value[..value.len().min(30_000)].to_vec()]), len)
        }
        6 => {
            let other = format!("{{{}}}", random.below(6));
            let request =
                encoded(&[word("MSET"), name, value.clone(), other.clone().into_bytes(), word("short")]);
            keys.insert(key, value);
            keys.insert(other, word("short"));
            (request, ok)
        }
        7 => {
            let removed = keys.remove(&key).is_some();
            (encoded(&[word("DEL"), name]), Value::Integer(removed.into()))
        }
        _ => (encoded(&[word("GET"), name]), shown(keys.get(&key))),
    }
}

#[test]
fn large_values_in_pipelines_and_pieces_are_those_of_a_model() {
    for (shards, mode) in [(1, "everysec"), (2, "always"), (3, "everysec")] {
        let mut server = Server::start(shards, &["--sync-mode", mode]);
        let mut random = Random::new("large values").fork();
        let mut keys = BTreeMap::new();
        let (requests, replies): (Vec<_>, Vec<_>) =
            (0..300).map(|_| large_exchange(&mut random, &mut keys)).unzip();
        let mut resp = server.resp();
        let mut sender = resp.wire.sender();
        let sending = std::thread::spawn(move || {
            let mut rest = &*requests.concat();
            while !rest.is_empty() {
                let most = random.one_of(&[1, 100, 16 << 10, 200_000]);
                let piece = rest.len().min(1 + random.below(most) as usize);
                sender.write_all(&rest[..piece]).unwrap();
                rest = &rest[piece..];
            }
        });
        for (number, expected) in replies.iter().enumerate() {
            assert!(resp.read() == *expected, "{shards} shards, reply {number} differs");
        }
        sending.join().unwrap();
        server.kill9();
        server.restart(shards);
        let mut resp = server.resp();
        assert_eq!(resp.ask("DBSIZE").integer(), keys.len() as i64);
        for (key, value) in &keys {
            assert!(
                resp.ask(&format!("GET {key}")) == Value::bulk(value),
                "{shards} shards, {key} after a restart"
            );
        }
    }
}

#[test]
fn a_reply_shows_the_value_of_its_time_whatever_becomes_of_the_key() {
    let server = Server::start(2, &[]);
    let mut other = server.resp();
    let old = pattern(24 << 20);
    for (key, end) in
        [("{a}", "SET"), ("{b}", "DEL"), ("{a}", "APPEND"), ("{b}", "FLUSHALL"), ("{a}", "EXPIRE")]
    {
        assert_eq!(other.ask_bytes(&[b"SET", key.as_bytes(), &old]).to_string(), "+OK");
        // The rest of it is more than what the system keeps for a client that does not read.
        let mut slow = server.resp();
        slow.wire.send(&encoded(&["GET", key]));
        slow.wire.send(&encoded(&["PING"]));
        let mut first = [0];
        slow.wire.sender().peek(&mut first).unwrap();
        match end {
            "SET" => assert_eq!(other.ask_bytes(&[b"SET", key.as_bytes(), &[7; 100_000]]).to_string(), "+OK"),
            "APPEND" => assert_eq!(other.ask(&format!("APPEND {key} end")).integer() as usize, old.len() + 3),
            "EXPIRE" => assert_eq!(other.ask(&format!("EXPIRE {key} 0")).integer(), 1),
            "DEL" => assert_eq!(other.ask(&format!("DEL {key}")).integer(), 1),
            _ => assert_eq!(other.ask("FLUSHALL").to_string(), "+OK"),
        }
        assert!(slow.read() == Value::bulk(&old), "{end} shows in an earlier reply");
        assert_eq!(slow.read().to_string(), "+PONG");
    }
}

#[test]
fn the_memory_of_large_values_is_counted() {
    let server = Server::start(1, &[]);
    let mut resp = server.resp();
    let mut used = || {
        let info = resp.ask("INFO memory");
        let info = String::from_utf8_lossy(info.bytes()).into_owned();
        info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().parse::<i64>().unwrap()
    };
    let mut writer = server.resp();
    let (empty, len) = (used(), 20 << 20);
    let is_about = |bytes: i64, expected: usize| (bytes - expected as i64).abs() < 100_000;
    for key in ["one", "two"] {
        assert_eq!(writer.ask_bytes(&[b"SET", key.as_bytes(), &pattern(len)]).to_string(), "+OK");
    }
    assert!(is_about(used() - empty, 2 * len), "{empty} before, {} with both", used());
    let usage = writer.ask("MEMORY USAGE one").integer();
    assert!(is_about(usage, len), "{usage}");
    assert_eq!(writer.ask("SET one short").to_string(), "+OK");
    assert!(is_about(used() - empty, len), "{empty} before, {} with one", used());
    assert_eq!(writer.ask("DEL two").integer(), 1);
    assert!(is_about(used() - empty, 0), "{empty} before, {} after", used());
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
