//! Clients that keep copies of keys: they are told when these change, and never keep one that is out of date.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::client::{Resp, Value, encoded};
use crate::process::Server;

/// A client of RESP3 that is told of changed keys.
fn tracking(server: &Server, options: &str) -> Resp {
    let mut client = server.resp();
    client.ask("HELLO 3");
    assert_eq!(client.ask(&format!("CLIENT TRACKING ON {options}")).to_string(), "+OK");
    client
}

#[test]
fn a_client_is_told_of_the_keys_that_it_has_read() {
    for shards in [1, 3] {
        let server = Server::start(shards, &[]);
        let (mut reader, mut writer) = (tracking(&server, ""), server.resp());
        for key in ["a", "b", "c", "d"] {
            for change in
                ["SET KEY 1", "INCR KEY", "EXPIRE KEY 100", "PERSIST KEY", "APPEND KEY x", "DEL KEY"]
            {
                reader.ask(&format!("GET {key}"));
                let told = format!(">[\"invalidate\", [\"{key}\"]]");
                writer.ask(&change.replace("KEY", key));
                assert_eq!(reader.read().to_string(), told, "{change}");
                // Once: it does not keep a copy any more.
                writer.ask(&change.replace("KEY", key));
            }
            writer.ask(&format!("SET {key} 1"));
        }
        assert_eq!(reader.ask("MGET a b c d").to_string(), "[\"1\", \"1\", \"1\", \"1\"]");
        writer.ask("MSET a 2 b 2 c 2 d 2");
        let told: HashSet<String> = (0..4).map(|_| reader.read().to_string()).collect();
        assert_eq!(told, ["a", "b", "c", "d"].map(|key| format!(">[\"invalidate\", [\"{key}\"]]")).into());
        reader.ask("GET a");
        writer.ask("SET a 1 PX 1");
        assert_eq!(reader.read().to_string(), ">[\"invalidate\", [\"a\"]]");
        writer.ask("FLUSHALL");
        assert_eq!(reader.read().to_string(), ">[\"invalidate\", null]");
    }
}

#[test]
fn copies_are_never_out_of_date() {
    const KEYS: u64 = 40;
    for (shards, flags) in [(1, &[][..]), (3, &[]), (2, &["--sync-mode", "always"])] {
        let server = Server::start(shards, flags);
        let mut writer = server.resp();
        let writing = std::thread::spawn(move || {
            for round in 0..4000_u64 {
                let key = format!("k{}", (round * 7919) % KEYS);
                match round % 5 {
                    0 => writer.ask(&format!("MSET {key} {round} k1 {round} k2 {round}")),
                    _ => writer.ask(&format!("SET {key} {round}")),
                };
            }
        });
        let mut reader = tracking(&server, "");
        let mut copies: HashMap<String, String> = HashMap::new();
        let mut asked: VecDeque<Vec<String>> = VecDeque::new();
        let mut round = 0;
        let mut is_over = false;
        loop {
            is_over |= writing.is_finished();
            if asked.len() < 20 && !is_over {
                round += 1;
                let keys: Vec<String> = match round % 4 {
                    0 => vec![format!("k{}", round % KEYS), "k1".into(), "k2".into()],
                    _ => vec![format!("k{}", (round * 31) % KEYS)],
                };
                let words: Vec<&str> =
                    std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
                reader.wire.send(&encoded(&words));
                asked.push_back(keys);
            }
            if asked.is_empty() {
                break;
            }
            take(&mut reader, &mut copies, &mut asked);
        }
        writing.join().unwrap();
        // What each shard had to tell before it answers has come by then.
        for key in 0..50 {
            reader.wire.send(&encoded(&["MGET", &format!("other{key}")]));
            asked.push_back(vec![format!("other{key}")]);
        }
        while !asked.is_empty() {
            take(&mut reader, &mut copies, &mut asked);
        }
        let mut judge = server.resp();
        for (key, copy) in copies {
            assert_eq!(judge.ask(&format!("GET {key}")).to_string(), copy, "{key} with {shards} shards");
        }
    }
}

/// Takes what comes next: copies, or that some are out of date.
fn take(reader: &mut Resp, copies: &mut HashMap<String, String>, asked: &mut VecDeque<Vec<String>>) {
    match reader.read() {
        Value::Push(items) => {
            for key in items[1].items() {
                copies.remove(std::str::from_utf8(key.bytes()).unwrap());
            }
        }
        Value::Array(values) => {
            let values = values.iter().map(|value| value.to_string().replace("null", "nil"));
            copies.extend(asked.pop_front().unwrap().into_iter().zip(values));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_client_that_wants_no_word_of_its_own_changes_gets_none() {
    for shards in [1, 3] {
        let server = Server::start(shards, &[]);
        let (mut quiet, mut told, mut other) =
            (tracking(&server, "NOLOOP"), tracking(&server, ""), server.resp());
        for key in ["a", "b", "c"] {
            for reader in [&mut quiet, &mut told] {
                reader.ask(&format!("GET {key}"));
            }
            assert_eq!(quiet.ask(&format!("SET {key} 1")).to_string(), "+OK");
            assert_eq!(told.read().to_string(), format!(">[\"invalidate\", [\"{key}\"]]"));
            assert_eq!(quiet.ask(&format!("GET {key}")).to_string(), "\"1\"");
            other.ask(&format!("SET {key} 2"));
            assert_eq!(quiet.read().to_string(), format!(">[\"invalidate\", [\"{key}\"]]"));
        }
    }
}

#[test]
fn what_is_read_behind_multi_counts() {
    for shards in [1, 3] {
        let server = Server::start(shards, &[]);
        let (mut reader, mut writer) = (tracking(&server, ""), server.resp());
        for keys in [&["a"][..], &["b"], &["c"], &["a", "b", "c", "d"]] {
            reader.ask("MULTI");
            keys.iter().for_each(|key| drop(reader.ask(&format!("GET {key}"))));
            assert_eq!(reader.ask("EXEC").items().len(), keys.len());
            for key in keys {
                writer.ask(&format!("INCR {key}"));
                assert_eq!(reader.read().to_string(), format!(">[\"invalidate\", [\"{key}\"]]"));
            }
        }
    }
}

#[test]
fn a_client_is_told_of_all_keys_with_its_prefixes() {
    for shards in [1, 3] {
        let server = Server::start(shards, &[]);
        let (mut listener, mut writer) =
            (tracking(&server, "BCAST PREFIX user: PREFIX item:"), server.resp());
        for number in 0..10 {
            writer.ask(&format!("SET other:{number} 1"));
            for key in [format!("user:{number}"), format!("item:{number}")] {
                writer.ask(&format!("SET {key} 1"));
                assert_eq!(listener.read().to_string(), format!(">[\"invalidate\", [\"{key}\"]]"));
            }
        }
        listener.ask("CLIENT TRACKING OFF");
        writer.ask("SET user:1 2");
        assert_eq!(listener.ask("PING").to_string(), "+PONG");
    }
}

#[test]
fn another_client_is_told_in_place_of_one_that_speaks_resp2() {
    for shards in [1, 3] {
        let server = Server::start(shards, &[]);
        let (mut listener, mut reader, mut writer) = (server.resp(), server.resp(), server.resp());
        let id = listener.ask("CLIENT ID").integer();
        listener.ask("SUBSCRIBE __redis__:invalidate");
        assert_eq!(reader.ask(&format!("CLIENT TRACKING ON REDIRECT {id}")).to_string(), "+OK");
        assert_eq!(reader.ask("CLIENT GETREDIR").integer(), id);
        for key in ["a", "b", "c"] {
            reader.ask(&format!("GET {key}"));
            writer.ask(&format!("SET {key} 1"));
            let told = format!("[\"message\", \"__redis__:invalidate\", [\"{key}\"]]");
            assert_eq!(listener.read().to_string(), told);
        }
        writer.ask("FLUSHALL");
        assert_eq!(listener.read().to_string(), "[\"message\", \"__redis__:invalidate\", nil]");
        drop(listener);
        let is_broken = crate::process::within_deadline(|| {
            reader.ask("GET a");
            writer.ask("SET a 1");
            reader.ask("CLIENT TRACKINGINFO").to_string().contains("broken_redirect")
        });
        assert!(is_broken);
    }
}

#[test]
fn of_too_many_keys_some_are_told_of_as_changed() {
    let server = Server::start(1, &["--tracking-table-max-keys", "10"]);
    let mut reader = tracking(&server, "");
    let mut told = 0;
    for number in 0..100 {
        reader.wire.send(&encoded(&["GET", &format!("k{number}")]));
        while let Value::Push(_) = reader.read() {
            told += 1;
        }
    }
    reader.wire.send(&encoded(&["PING"]));
    while let Value::Push(_) = reader.read() {
        told += 1;
    }
    assert_eq!(told, 90);
}
