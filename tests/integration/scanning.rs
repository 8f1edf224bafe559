//! Walking the keyspace: SCAN and KEYS while keys come and go, and expiry by itself.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::client::{Resp, Text, Value, encoded};
use crate::process::{Server, within_deadline};

/// Walks all of SCAN over RESP and returns the keys as they came.
fn scan_resp(client: &mut Resp, options: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut cursor = "0".to_owned();
    for _ in 0..100_000 {
        let reply = client.ask(&format!("SCAN {cursor} {options}"));
        let [next, page] = reply.items() else { panic!("SCAN was answered with {reply}") };
        keys.extend(page.items().iter().map(|key| String::from_utf8_lossy(key.bytes()).into_owned()));
        cursor = String::from_utf8(next.bytes().to_vec()).unwrap();
        if cursor == "0" {
            return keys;
        }
    }
    panic!("SCAN does not come to an end");
}

/// Walks all of SCAN over the text protocol.
fn scan_text(client: &mut Text, options: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut cursor = "0".to_owned();
    for _ in 0..100_000 {
        let mut lines = client.ask(&format!("SCAN {cursor} {options}")).into_iter();
        cursor = lines.next().expect("SCAN answers with a cursor");
        assert!(cursor.parse::<u64>().is_ok(), "a cursor is a number, not {cursor:?}");
        keys.extend(lines.filter(|line| line != "(empty list)"));
        if cursor == "0" {
            return keys;
        }
    }
    panic!("SCAN does not come to an end");
}

fn fill(client: &mut Resp, prefix: &str, count: usize) {
    let mut pending = 0;
    for start in (0..count).step_by(1000) {
        let mut arguments = vec!["MSET".to_owned()];
        arguments
            .extend((start..count.min(start + 1000)).flat_map(|key| [format!("{prefix}:{key}"), "v".into()]));
        client.wire.send(&encoded(&arguments));
        pending += 1;
        if pending == 8 {
            (0..pending).for_each(|_| assert_eq!(client.read().to_string(), "+OK"));
            pending = 0;
        }
    }
    (0..pending).for_each(|_| assert_eq!(client.read().to_string(), "+OK"));
}

fn scan_returns_every_key_that_stays(shards: usize) {
    const STAYS: usize = 2000;
    let server = &Server::start(shards, &[]);
    let (mut resp, mut text) = (server.resp(), server.text());
    fill(&mut resp, "stays", STAYS);
    let expected: HashSet<String> = (0..STAYS).map(|key| format!("stays:{key}")).collect();

    // Nothing changes: every key once, whatever the page.
    for options in ["COUNT 7", "", "COUNT 100000"] {
        let keys = scan_resp(&mut resp, options);
        assert_eq!(keys.len(), STAYS, "{shards} shards, SCAN {options}: a key is missing or came twice");
        assert!(keys.into_iter().collect::<HashSet<_>>() == expected);
    }
    let matching = scan_resp(&mut resp, "MATCH stays:1? COUNT 50");
    assert_eq!(
        matching.into_iter().collect::<HashSet<_>>(),
        (10..20).map(|key| format!("stays:{key}")).collect()
    );
    assert!(scan_text(&mut text, "COUNT 100").into_iter().collect::<HashSet<_>>() == expected);

    let scanning = &AtomicBool::new(true);
    thread::scope(|scope| {
        for churner in 0..2 {
            scope.spawn(move || {
                let mut client = server.resp();
                let mut round = 0;
                // Many keys at once, so that the tables grow and shrink under the cursor.
                while scanning.load(Ordering::Relaxed) {
                    let keys: Vec<String> =
                        (0..1000).map(|key| format!("goes:{churner}:{round}:{key}")).collect();
                    let mset: Vec<&str> =
                        ["MSET"].into_iter().chain(keys.iter().flat_map(|key| [&**key, "v"])).collect();
                    let del: Vec<&str> = ["DEL"].into_iter().chain(keys.iter().map(|key| &**key)).collect();
                    client.wire.send(&[encoded(&mset), encoded(&del)].concat());
                    assert_eq!(client.read().to_string(), "+OK");
                    assert_eq!(client.read().integer(), 1000);
                    round += 1;
                }
            });
        }
        let stop = StopAtDrop(scanning);
        for count in [10, 50, 500] {
            let seen: HashSet<String> = scan_resp(&mut resp, &format!("COUNT {count}")).into_iter().collect();
            let missed: Vec<_> = expected.difference(&seen).collect();
            assert!(missed.is_empty(), "{shards} shards, COUNT {count}: SCAN missed {missed:?}");
            let seen: HashSet<String> =
                scan_text(&mut text, &format!("MATCH stays:* COUNT {count}")).into_iter().collect();
            assert!(
                seen == expected,
                "{shards} shards, text, COUNT {count}: SCAN returned {} keys",
                seen.len()
            );
        }
        drop(stop);
    });
}

/// Lets the churning threads end, also when the scanning one panics.
struct StopAtDrop<'a>(&'a AtomicBool);

impl Drop for StopAtDrop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn scan_returns_every_key_that_stays_with_one_shard() {
    scan_returns_every_key_that_stays(1);
}

#[test]
fn scan_returns_every_key_that_stays_with_two_shards() {
    scan_returns_every_key_that_stays(2);
}

#[test]
fn scan_returns_every_key_that_stays_with_five_shards() {
    scan_returns_every_key_that_stays(5);
}

#[test]
fn keys_returns_all_of_two_hundred_thousand() {
    const COUNT: usize = 200_000;
    let server = Server::start(2, &[]);
    let (mut resp, mut text) = (server.resp(), server.text());
    fill(&mut resp, "k", COUNT);
    assert_eq!(resp.ask("DBSIZE").integer(), i64::try_from(COUNT).unwrap());
    let reply = resp.ask("KEYS *");
    let unique: HashSet<&[u8]> = reply.items().iter().map(Value::bytes).collect();
    assert_eq!((reply.items().len(), unique.len()), (COUNT, COUNT));
    assert_eq!(resp.ask("KEYS k:19999?").items().len(), 10);
    assert_eq!(text.ask("KEYS *").len(), COUNT);
    // Others are served while it works.
    text.wire.send(b"KEYS k:*\n");
    assert_eq!(resp.ask("GET k:7").to_string(), "\"v\"");
    (0..COUNT).for_each(|_| assert!(text.wire.line().starts_with(b"k:")));
    assert_eq!(resp.ask("FLUSHALL").to_string(), "+OK");
    assert_eq!(text.ask_one("KEYS *"), "(empty list)");
}

#[test]
fn the_keys_for_clients_that_are_gone_take_no_memory() {
    const COUNT: usize = 50_000;
    for shards in [1, 2] {
        let server = Server::start(shards, &[]);
        let mut resp = server.resp();
        fill(&mut resp, "a-key-with-quite-a-long-name", COUNT);
        assert_eq!(resp.ask("KEYS *").items().len(), COUNT);
        let before = server.resident_bytes();
        for _ in 0..200 {
            let client = server.resp();
            let mut sender = client.wire.sender();
            let linger = Some(std::time::Duration::ZERO);
            rustix::net::sockopt::set_socket_linger(&sender, linger).unwrap();
            std::io::Write::write_all(&mut sender, b"KEYS *\r\n").unwrap();
        }
        assert_eq!(resp.ask("PING").to_string(), "+PONG");
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < 64 << 20, "{shards} shards: 200 clients that are gone hold {grown} bytes");
    }
}

#[test]
fn expired_keys_go_without_being_asked_for() {
    for shards in [1, 5] {
        let server = Server::start(shards, &[]);
        let mut resp = server.resp();
        let mut bytes = Vec::new();
        for key in 0..10_000 {
            bytes.extend(encoded(&["SET", &format!("short:{key}"), "v", "PX", "50"]));
            if key % 100 == 0 {
                bytes.extend(encoded(&["SET", &format!("long:{key}"), "v", "EX", "1000"]));
            }
        }
        let mut sender = resp.wire.sender();
        thread::scope(|scope| {
            scope.spawn(move || std::io::Write::write_all(&mut sender, &bytes).unwrap());
            (0..10_100).for_each(|_| assert_eq!(resp.read().to_string(), "+OK"));
        });
        let mut left = 0;
        let gone = within_deadline(|| {
            left = resp.ask("DBSIZE").integer();
            left == 100
        });
        assert!(gone, "{shards} shards: {left} keys are left, 100 of them rightly\n{}", server.log.tail());
        assert_eq!(resp.ask("EXISTS long:0 long:9900 short:0 short:9999").integer(), 2);
    }
}
