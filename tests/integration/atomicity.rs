//! Commands over several shards are seen whole or not at all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::client::{Value, encoded};
use crate::process::Server;

const KEY_COUNT: usize = 8;
const WRITER_COUNT: usize = 3;
const STAMP_COUNT: usize = 800;

fn keys() -> String {
    // Without hash tags, so that they lie on different shards.
    (0..KEY_COUNT).map(|key| format!(" stamped:{key}")).collect()
}

fn mset(stamp: &str) -> String {
    (0..KEY_COUNT).fold("MSET".to_owned(), |line, key| line + &format!(" stamped:{key} {stamp}"))
}

/// Writers set all keys to one stamp or, where `delete` says so, remove them all; readers on both protocols
/// must see one stamp everywhere, or nothing anywhere.
fn stamps_are_seen_whole(shards: usize, delete: bool) {
    let server = Server::start(shards, &[]);
    assert_eq!(server.text().ask_one(&mset("first")), "+OK");
    let writing = AtomicUsize::new(WRITER_COUNT + 1);
    let (server, writing) = (&server, &writing);
    thread::scope(|scope| {
        for writer in 0..WRITER_COUNT {
            scope.spawn(move || {
                let _done = CountDown(writing);
                let mut resp = server.resp();
                for stamp in 0..STAMP_COUNT {
                    assert_eq!(resp.ask(&mset(&format!("{writer}-{stamp}"))).to_string(), "+OK");
                    if delete && stamp % 3 == 0 {
                        let removed = resp.ask(&format!("DEL{}", keys())).integer();
                        assert!(removed == 0 || removed == 8, "DEL found {removed} of 8 keys");
                    }
                }
            });
        }
        scope.spawn(move || {
            let _done = CountDown(writing);
            let mut text = server.text();
            for stamp in 0..STAMP_COUNT {
                assert_eq!(text.ask_one(&mset(&format!("text-{stamp}"))), "+OK");
                if delete && stamp % 3 == 0 {
                    let removed = text.ask_one(&format!("MDEL{}", keys()));
                    assert!(removed == "0" || removed == "8", "MDEL found {removed} of 8 keys");
                }
            }
        });
        scope.spawn(move || {
            // Snapshots begin and end between transactions, however many there are.
            let mut text = server.text();
            while writing.load(Ordering::Relaxed) > 0 {
                assert_eq!(text.ask_one("COMPACT"), "+OK", "{}", server.log.tail());
            }
        });
        scope.spawn(move || {
            let mut resp = server.resp();
            let mget = encoded(&crate::words::words(&format!("MGET{}", keys())));
            let exists = encoded(&crate::words::words(&format!("EXISTS{}", keys())));
            while writing.load(Ordering::Relaxed) > 0 {
                resp.wire.send(&[&*mget, &*exists, &*mget].concat());
                for reply in [resp.read(), resp.read(), resp.read()] {
                    let whole = match &reply {
                        Value::Integer(count) => *count == 8 || delete && *count == 0,
                        Value::Array(items) => {
                            items.iter().all(|item| *item == items[0]) && (delete || items[0] != Value::Nil)
                        }
                        _ => false,
                    };
                    assert!(whole, "half of a write was seen: {reply}\n{}", server.log.tail());
                }
            }
        });
        scope.spawn(move || {
            let mut text = server.text();
            while writing.load(Ordering::Relaxed) > 0 {
                let lines = text.ask(&format!("MGET{}", keys()));
                let whole = lines.len() == 8 && lines.iter().all(|line| *line == lines[0]);
                assert!(whole && (delete || lines[0] != "(nil)"), "half of a write was seen: {lines:?}");
            }
        });
    });
}

/// Tells the readers that a writer has ended, also when it panics.
/// A transaction of several hops moves amounts between keys of several shards; readers, which are transactions too or
/// single commands, always see the same sum.
#[test]
fn transactions_in_hops_are_seen_whole() {
    for shards in [1, 3] {
        let server = Server::start(shards, &[]);
        let accounts: Vec<String> = (0..KEY_COUNT).map(|key| format!("account:{key}")).collect();
        let open = accounts.iter().fold("MSET".to_owned(), |line, name| line + &format!(" {name} 100"));
        assert_eq!(server.resp().ask(&open).to_string(), "+OK");
        let writing = AtomicUsize::new(WRITER_COUNT);
        let (server, writing, accounts) = (&server, &writing, &accounts);
        thread::scope(|scope| {
            for writer in 0..WRITER_COUNT {
                scope.spawn(move || {
                    let _done = CountDown(writing);
                    let mut resp = server.resp();
                    for step in 0..STAMP_COUNT / 2 {
                        let (from, to) =
                            (&accounts[(writer + step) % KEY_COUNT], &accounts[step * 3 % KEY_COUNT]);
                        // PING parts the hops.
                        let commands = [
                            &["MULTI"][..],
                            &["DECRBY", from, "7"],
                            &["PING"],
                            &["INCRBY", to, "7"],
                            &["EXEC"],
                        ];
                        resp.wire.send(&commands.map(encoded).concat());
                        let replies: Vec<Value> = commands.iter().map(|_| resp.read()).collect();
                        assert_eq!(replies[4].items().len(), 3, "{}", replies[4]);
                    }
                });
            }
            for is_transaction in [false, true] {
                scope.spawn(move || {
                    let mut resp = server.resp();
                    while writing.load(Ordering::Relaxed) > 0 {
                        let values = if is_transaction {
                            resp.ask("MULTI");
                            accounts.iter().for_each(|name| drop(resp.ask(&format!("GET {name}"))));
                            resp.ask("EXEC")
                        } else {
                            resp.ask(&format!("MGET {}", accounts.join(" ")))
                        };
                        let number =
                            |value: &Value| String::from_utf8_lossy(value.bytes()).parse::<i64>().unwrap();
                        let sum: i64 = values.items().iter().map(number).sum();
                        assert_eq!(sum, 100 * KEY_COUNT as i64, "{values}\n{}", server.log.tail());
                    }
                });
            }
        });
    }
}

struct CountDown<'a>(&'a AtomicUsize);

impl Drop for CountDown<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn readers_never_see_half_an_mset_with_two_shards() {
    stamps_are_seen_whole(2, false);
}

#[test]
fn readers_never_see_half_an_mset_with_five_shards() {
    stamps_are_seen_whole(5, false);
}

#[test]
fn readers_never_see_half_an_mset_or_mdel() {
    stamps_are_seen_whole(2, true);
    stamps_are_seen_whole(5, true);
}

#[test]
fn no_increment_is_lost_between_clients() {
    let server = Server::start(2, &[]);
    let (server, each) = (&server, 500);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                let mut resp = server.resp();
                resp.wire.send(
                    &[encoded(&["INCR", "n:0"]), encoded(&["INCRBY", "n:1", "2"])].concat().repeat(each),
                );
                let mut last = 0;
                for index in 0..2 * each {
                    let now = resp.read().integer();
                    assert!(index % 2 == 1 || now > last, "a counter fell from {last} to {now}");
                    last = if index % 2 == 0 { now } else { last };
                }
            });
            scope.spawn(move || {
                let mut text = server.text();
                text.wire.send(&b"APPEND log ab\n".repeat(each));
                for _ in 0..each {
                    text.wire.line();
                }
            });
        }
    });
    let mut resp = server.resp();
    assert_eq!(resp.ask("MGET n:0 n:1").to_string(), "[\"2000\", \"4000\"]");
    assert_eq!(resp.ask("GET log"), Value::bulk("ab".repeat(2000)));
}
