//! Starts with another number of shards that are killed in the middle: whatever they leave, the next start finds every
//! key once, with any number of shards.
//!
//! The simulation stops a move at every operation on the disk; here real processes are killed at moments that are
//! spread over the whole start, as an undisturbed start has taken.

use std::time::{Duration, Instant};

use crate::client::encoded;
use crate::process::Server;

const KEYS: usize = 3000;

/// Kills, for each of the moves.
const KILLS: u32 = 12;

/// Keys set alone and together over all shards, counters, values that were appended to, and removed keys; then a kill.
fn killed_server(shards: usize) -> Server {
    let mut server = Server::start(shards, &["--wal-segment-size", "64k"]);
    let mut resp = server.resp();
    let mut requests = Vec::new();
    for key in (0..KEYS).step_by(3) {
        let names: Vec<String> = (key..key + 3).map(|key| format!("key:{key}")).collect();
        let values: Vec<String> = (key..key + 3).map(|key| format!("value of {key}")).collect();
        requests
            .extend(encoded(&["MSET", &names[0], &values[0], &names[1], &values[1], &names[2], &values[2]]));
        requests.extend(encoded(&["INCR", &format!("counter:{}", key % 10)]));
        requests.extend(encoded(&["APPEND", &format!("grown:{}", key % 10), "x"]));
        requests.extend(encoded(&["SET", "removed", "v"]));
        requests.extend(encoded(&["DEL", "removed", &format!("never:{key}")]));
    }
    resp.wire.send(&requests);
    for _ in 0..KEYS / 3 {
        assert_eq!(resp.read().to_string(), "+OK");
        assert!(resp.read().integer() > 0 && resp.read().integer() > 0);
        assert_eq!((resp.read().to_string(), resp.read().integer()), ("+OK".to_owned(), 1));
    }
    server.kill9();
    server
}

fn assert_whole(server: &Server, when: &str) {
    let mut resp = server.resp();
    assert_eq!(resp.ask("DBSIZE").integer(), KEYS as i64 + 20, "{when}");
    let mut requests = Vec::new();
    (0..KEYS).for_each(|key| requests.extend(encoded(&["GET", &format!("key:{key}")])));
    for counter in 0..10 {
        requests.extend(encoded(&["GET", &format!("counter:{counter}")]));
        requests.extend(encoded(&["STRLEN", &format!("grown:{counter}")]));
    }
    resp.wire.send(&requests);
    for key in 0..KEYS {
        assert_eq!(resp.read().bytes(), format!("value of {key}").as_bytes(), "key {key}, {when}");
    }
    for counter in 0..10 {
        let times = (0..KEYS).step_by(3).filter(|key| key % 10 == counter).count();
        assert_eq!(resp.read().bytes(), times.to_string().as_bytes(), "counter {counter}, {when}");
        assert_eq!(resp.read().integer(), times as i64, "length {counter}, {when}");
    }
}

/// The layout that counts, and its number of shards.
fn layout(server: &Server) -> (u64, usize) {
    let manifest = std::fs::read_to_string(server.data().join("MANIFEST")).unwrap();
    let number = |name: &str| {
        let line = manifest.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    (number("layout"), number("shards") as usize)
}

/// Moves between the two numbers of shards, and is killed all the way.
fn kills_while_keys_move(one: usize, other: usize) {
    let mut server = killed_server(one);
    let began = Instant::now();
    server.restart(other);
    let usual = began.elapsed();
    assert_whole(&server, "after an undisturbed move");
    server.kill9();
    let mut seen = [0, 0];
    for kill in 0..KILLS {
        let (id, now) = layout(&server);
        let to = if now == one { other } else { one };
        let until = Instant::now() + usual * kill / KILLS;
        server.begin_restart(to);
        while Instant::now() < until && !server.has_ended() {
            std::thread::sleep(Duration::from_millis(1)); // The moment of the kill, not something to wait for.
        }
        assert!(!server.has_ended(), "{}", server.log.tail());
        server.kill9();
        let (id_after, counts) = layout(&server);
        assert!(counts == to || (counts, id_after) == (now, id), "{counts} shards after kill {kill}");
        seen[usize::from(counts == to)] += 1;
        // With what counts now, with what was asked for, or with a third number.
        let shards = [counts, to, one + other][kill as usize % 3];
        server.restart(shards);
        assert_whole(&server, &format!("kill {kill} on the way from {now} to {to} shards, then {shards}"));
        server.kill9();
        if shards == one + other {
            server.restart(one);
            server.kill9();
        }
    }
    assert!(seen[0] > 0, "no kill came before the new layout counted: {seen:?}");
}

#[test]
fn kills_while_keys_move_to_more_shards_and_back_lose_nothing_and_double_nothing() {
    kills_while_keys_move(2, 5);
}

#[test]
fn kills_while_keys_move_to_one_shard_and_back_lose_nothing_and_double_nothing() {
    kills_while_keys_move(1, 3);
}
