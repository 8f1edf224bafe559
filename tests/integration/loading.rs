//! A start on data that takes a while to read back: what is answered meanwhile, and the end of it. And snapshots that
//! are asked for by Redis' names.
//!
//! Connections are accepted before the reading begins, so a client that is there from the first moment finds the
//! server loading. How long that lasts depends on the machine: a start that was too fast to be seen is repeated.

use std::os::unix::fs::FileExt;

use rustix::process::Signal;

use crate::client::Text;
use crate::process::{Server, run_to_end};

const KEYS: usize = 200_000;
const STARTS_MAX: usize = 20;

/// A server whose log holds [`KEYS`] keys.
fn full_and_running(shards: usize) -> Server {
    let server = Server::start(shards, &[]);
    let mut text = server.text();
    const KEYS_A_LINE: usize = 1000;
    for first in (0..KEYS).step_by(KEYS_A_LINE) {
        let pairs: String = (first..first + KEYS_A_LINE).map(|n| format!(" key:{n} value-{n}")).collect();
        assert_eq!(text.ask_one(&format!("MSET{pairs}")), "+OK");
    }
    server
}

/// The same, killed.
pub fn full_server(shards: usize) -> Server {
    let mut server = full_and_running(shards);
    server.kill9();
    server
}

/// Starts the server until `seen` tells, over a client that came at once, that it was still loading.
pub fn catch_loading<T>(server: &mut Server, shards: usize, seen: impl Fn(&Server, Text) -> Option<T>) -> T {
    for _ in 0..STARTS_MAX {
        server.restart_unloaded(shards);
        if let Some(seen) = seen(server, server.text()) {
            return seen;
        }
        server.kill9();
    }
    panic!("the data was loaded {STARTS_MAX} times before a client could look\n{}", server.log.tail());
}

fn percent(answer: &str) -> u32 {
    let (_, behind) = answer.split_once("\"loading_percent\":").expect("a loading server says how far it is");
    behind.trim_end_matches('}').parse().unwrap_or_else(|_| panic!("no percentage: {answer}"))
}

fn keys_are_refused_while_they_are_loaded(shards: usize) {
    let mut server = full_server(shards);
    let refusals = catch_loading(&mut server, shards, |server, mut text| {
        let mut resp = server.resp();
        let refused = [
            text.ask_one("GET key:0"),
            text.ask_one("SET key:0 lost"),
            text.ask_one("MGET key:0 key:1 key:2"),
            text.ask_one("CLEAR"),
            text.ask_one("SAVE"),
        ];
        let health = text.ask_one("HEALTH");
        let refused_resp = resp.ask("SET key:0 lost").to_string();
        let info = resp.ask("INFO persistence");
        let others =
            [resp.ask("PING"), resp.ask("ECHO a"), resp.ask("CONFIG GET port"), resp.ask("SELECT 0")];
        // The last answer that says so proves that the server was loading all the time before it.
        let last = text.ask_one("HEALTH");
        last.contains("\"status\":\"loading\"").then_some((refused, health, last, refused_resp, info, others))
    });
    let (refused, health, last, refused_resp, info, others) = refusals;
    for answer in refused {
        let percent =
            answer.strip_prefix("-ERR loading, try again: ").and_then(|it| it.strip_suffix(" percent"));
        assert!(percent.is_some_and(|it| it.parse().is_ok_and(|n: u32| n < 100)), "{answer}");
    }
    assert!(health.starts_with("{\"status\":\"loading\",\"keys\":"), "{health}");
    assert!(percent(&health) <= percent(&last) && percent(&last) < 100, "{health} then {last}");
    assert_eq!(refused_resp, "-LOADING Redis is loading the dataset in memory");
    let info = String::from_utf8_lossy(info.bytes()).into_owned();
    assert!(info.contains("loading:1\r\n") && info.contains("loading_loaded_perc:"), "{info}");
    let [ping, echo, config, select] = others.map(|value| value.to_string());
    assert_eq!((&*ping, &*echo, &*select), ("+PONG", "\"a\"", "+OK"));
    assert!(config.contains(&server.resp_port.to_string()), "{config}");

    server.wait_until_loaded().unwrap();
    assert_eq!(server.resp().ask("DBSIZE").integer(), KEYS as i64);
    assert_eq!(server.text().ask("MGET key:0 key:199999"), ["value-0", "value-199999"]);
    let health = server.text().ask_one("HEALTH");
    assert!(health.contains("\"status\":\"healthy\"") && !health.contains("loading"), "{health}");
    assert!(server.log.text().contains("is ready"), "{}", server.log.tail());
}

#[test]
fn keys_are_refused_while_one_shard_is_loaded() {
    keys_are_refused_while_they_are_loaded(1);
}

#[test]
fn keys_are_refused_while_any_shard_is_loaded() {
    keys_are_refused_while_they_are_loaded(3);
}

#[test]
fn a_signal_while_loading_ends_the_server_at_once() {
    let mut server = full_server(2);
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        for start in 0.. {
            assert!(start < STARTS_MAX, "no signal came while it was loading\n{}", server.log.tail());
            let said = server.log.text().len();
            server.restart_unloaded(2);
            server.signal(Signal::HUP); // Means nothing.
            server.signal(signal);
            assert_eq!(server.wait().code(), Some(0), "{signal:?}\n{}", server.log.tail());
            if server.log.text()[said..].contains("before the data was loaded") {
                break;
            }
        }
    }
    server.restart(2);
    assert_eq!(server.resp().ask("DBSIZE").integer(), KEYS as i64);
}

#[test]
fn damage_that_is_found_while_loading_ends_the_server_with_a_reason() {
    let mut server = Server::start(1, &[]);
    assert_eq!(server.text().ask_one("SET a 1"), "+OK");
    assert_eq!(server.text().ask_one("SYNC"), "+OK");
    assert_eq!(server.text().ask_one("SET a 2"), "+OK");
    server.kill9();
    let segment = walk(&server.data()).into_iter().find(|path| path.ends_with(".log")).expect("it has a log");
    let file = std::fs::File::options().write(true).open(&segment).unwrap();
    file.write_all_at(b"damage", 48 + 41).unwrap(); // In the body of the first frame.
    let ended = run_to_end(server.rival());
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.output.contains(&segment), "the error does not name {segment}: {ended:?}");
    assert!(!ended.output.contains("is ready"), "{ended:?}");
}

/// The paths of all files below a directory.
fn walk(directory: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| match path.is_dir() {
        true => walk(&path),
        false => vec![path.display().to_string()],
    });
    found.collect()
}

#[test]
fn lastsave_is_the_time_of_the_last_snapshot_of_all_shards() {
    let server = Server::start(2, &[]);
    let mut resp = server.resp();
    let started = resp.ask("LASTSAVE").integer();
    let later = crate::process::within_deadline(|| {
        assert_eq!(resp.ask("SAVE").to_string(), "+OK");
        resp.ask("LASTSAVE").integer() > started
    });
    assert!(later, "SAVE did not move the time of LASTSAVE");
    let saved = resp.ask("LASTSAVE");
    let info = String::from_utf8_lossy(resp.ask("INFO persistence").bytes()).into_owned();
    assert!(info.contains(&format!("rdb_last_save_time:{saved}\r\n")), "{info}");

    let saved = saved.integer();
    let later = crate::process::within_deadline(|| {
        let answer = resp.ask("BGSAVE").to_string();
        let busy = answer == "-ERR Background save already in progress";
        assert!(busy || answer == "+Background saving started", "{answer}");
        resp.ask("LASTSAVE").integer() > saved
    });
    assert!(later, "BGSAVE did not move the time of LASTSAVE");
}

#[test]
fn a_save_in_progress_is_told_and_another_can_be_scheduled() {
    let server = full_and_running(2);
    let mut resp = server.resp();
    for answer in ["+Background saving started", "-ERR Background save already in progress"] {
        assert_eq!(resp.ask("BGSAVE").to_string(), answer);
    }
    assert_eq!(resp.ask("BGSAVE SCHEDULE").to_string(), "+Background saving scheduled");
    assert_eq!(resp.ask("BGREWRITEAOF").to_string(), "+Background append only file rewriting scheduled");
    let info = String::from_utf8_lossy(resp.ask("INFO persistence").bytes()).into_owned();
    assert!(info.contains("rdb_bgsave_in_progress:1\r\n"), "{info}");
    let ended = crate::process::within_deadline(|| {
        let info = resp.ask("INFO persistence");
        String::from_utf8_lossy(info.bytes()).contains("rdb_bgsave_in_progress:0\r\n")
    });
    assert!(ended, "the snapshots do not end\n{}", server.log.tail());
    let written = server.log.text().matches("snapshot written").count();
    assert_eq!(written, 2 * 2, "one that was begun and one that was scheduled, of both shards");
}
