//! What outlives the process: every kind of change, through `kill -9`, SIGTERM, compaction and other shard
//! counts.

use std::time::{SystemTime, UNIX_EPOCH};

use shard::analytics::load::hour_of_week;
use wal::{Note, OsDisk, Place};

use crate::client::{Resp, Value, encoded};
use crate::process::{Server, within_deadline};
use crate::transcript::{run_resp, run_text};

/// Changes of every kind, the last of each key being what has to be found again.
const CHANGES_RESP: &str = r#"
    SET plain 1 -> +OK
    SET plain 2 -> +OK
    SET empty "" -> +OK
    SET "bin\x00\xff\r\n" "\x00\xff\r\n" -> +OK
    SET minute v PX 60000 -> +OK
    SET hour v -> +OK
    EXPIRE hour 3600 -> 1
    SET kept v EX 100 -> +OK
    SET kept w KEEPTTL -> +OK
    SET freed v EX 100 -> +OK
    PERSIST freed -> 1
    SET overwritten v EX 100 -> +OK
    SET overwritten w -> +OK
    SET deleted v -> +OK
    DEL deleted -> 1
    SET back v -> +OK
    DEL back -> 1
    SET back again -> +OK
    SETNX once 1 -> 1
    SETNX once 2 -> 0
    INCR counter -> 1
    INCRBY counter 41 -> 42
    DECRBY down 8 -> -8
    DECR down -> -9
    APPEND grown ab -> 2
    APPEND grown cd -> 4
    MSET m1 a m2 b m3 c m4 d -> +OK
    DEL m3 m4 nope -> 2
    SET past v -> +OK
    EXPIRE past -1 -> 1
    SET soon v PX 30 -> +OK
"#;

const CHANGES_TEXT: &str = r#"
    SET text:greeting "Hello, World!" -> +OK
    SETEX text:timed 100 two words -> +OK
    INCR text:counter -> 1
    INCR text:counter -> 2
    APPEND text:grown Hello -> 5
    APPEND text:grown " world" -> 11
    MSET text:a 1 text:b 2 text:c 3 -> +OK
    MDEL text:a text:b -> 2
    SET text:gone v -> +OK
    DELETE text:gone -> +OK
"#;

const FOUND: &str = r#"
    MGET plain empty "bin\x00\xff\r\n" back once -> ["2", "", "\x00\xff\r\n", "again", "1"]
    PTTL minute -> 30000..60000
    TTL hour -> 3500..3600
    GET kept -> "w"
    TTL kept -> 70..100
    TTL freed -> -1
    GET overwritten -> "w"
    TTL overwritten -> -1
    EXISTS deleted m3 m4 past nope -> 0
    MGET counter down grown m1 m2 -> ["42", "-9", "abcd", "a", "b"]
    GET text:greeting -> "Hello, World!"
    GET text:timed -> "two words"
    TTL text:timed -> 70..100
    MGET text:counter text:grown text:c -> ["2", "Hello world", "3"]
    EXISTS text:a text:b text:gone -> 0
    eventually EXISTS soon -> 0
    eventually DBSIZE -> 20
"#;

fn passes(server: &Server, name: &str, script: &str) {
    let failures = run_resp(name, script, &mut server.resp());
    assert!(failures.is_empty(), "{failures}{}", server.log.tail());
}

fn change(server: &Server) {
    passes(server, "changes", CHANGES_RESP);
    let failures = run_text("changes", CHANGES_TEXT, &mut server.text());
    assert!(failures.is_empty(), "{failures}{}", server.log.tail());
}

fn every_kind_of_change_is_found_again(shards: usize, sync_mode: &str) {
    let mut server = Server::start(shards, &["--sync-mode", sync_mode]);
    change(&server);
    let before = server.resp().ask("PTTL minute").integer();
    server.kill9();
    server.restart(shards);
    passes(&server, "after kill -9", FOUND);
    let after = server.resp().ask("PTTL minute").integer();
    assert!(after < before, "time stood still for a TTL: {before} ms, then {after} ms");

    // The same through an orderly end, with the log of the first life still there.
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
    server.restart(shards);
    passes(&server, "after SIGTERM", FOUND);
    passes(
        &server,
        "goes on",
        "INCR counter -> 43\n APPEND grown ef -> 6\n DECRBY counter 1 -> 42\n SET grown abcd -> +OK",
    );

    assert_eq!(server.text().ask_one("COMPACT"), "+OK");
    passes(&server, "after COMPACT", FOUND);
    passes(
        &server,
        "behind the snapshot",
        "SET plain 3 -> +OK\n SET plain 2 -> +OK\n SET new v -> +OK\n DEL new -> 1",
    );
    server.kill9();
    server.restart(shards);
    passes(&server, "after COMPACT and kill -9", FOUND);
}

#[test]
fn what_is_known_of_classes_and_hours_outlives_the_process_and_is_never_missed() {
    let mut server = Server::start(2, &[]);
    let mut text = server.text();
    for key in ["user:1", "user:2", "user:3"] {
        assert_eq!(text.ask_one(&format!("SET {key} v")), "+OK");
        (0..10).for_each(|_| assert_eq!(text.ask_one(&format!("GET {key}")), "v"));
    }
    let class = |server: &Server| server.text().ask_one("PREFIXES");
    assert!(class(&server).starts_with("user:* (keys=3 bytes=21 reads=30 writes=3 "), "{}", class(&server));
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
    server.restart(2);
    assert!(class(&server).starts_with("user:* (keys=3 bytes=21 reads=30 writes=3 "), "{}", class(&server));

    // A note comes with each snapshot, too, so that it outlives a kill.
    let data = server.data();
    let note = |shard: usize| data.join(format!("layout-1/shard-{shard}/analytics"));
    let notes = || -> Vec<_> { (0..2).map(|shard| std::fs::read(note(shard)).unwrap()).collect() };
    let before = notes();
    for key in ["user:1", "user:2", "user:3"] {
        assert_eq!(server.text().ask_one(&format!("GET {key}")), "v");
    }
    assert_eq!(server.text().ask_one("COMPACT"), "+OK");
    let all_are_new = || notes().iter().zip(&before).all(|(now, before)| now != before);
    assert!(within_deadline(all_are_new), "{}", server.log.tail());
    server.kill9();
    server.restart(2);
    assert!(class(&server).starts_with("user:* (keys=3 bytes=21 reads=33 writes=3 "), "{}", class(&server));

    // A note that cannot be read is done without, and so is one of another number of shards.
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
    for (shard, bytes) in [(0, &b"KVLITNTE"[..]), (1, b"")] {
        std::fs::write(note(shard), bytes).unwrap();
    }
    server.restart(2);
    assert!(class(&server).contains("keys=3 bytes=21 reads=0 writes=0 "), "{}", class(&server));
    assert!(server.log.text().contains("the analytics begin anew"), "{}", server.log.tail());
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
    server.restart(3);
    assert!(class(&server).contains("keys=3 bytes=21 reads=0 writes=0 "), "{}", class(&server));
}

#[test]
fn a_time_to_live_that_a_rule_gave_outlives_the_rule() {
    let mut server = Server::start(2, &["--auto-ttl", "session:* 1h"]);
    let mut text = server.text();
    for key in ["session:1", "session:2", "session:3", "user:1"] {
        assert_eq!(text.ask_one(&format!("SET {key} a")), "+OK");
    }
    assert_eq!(text.ask_one("CONFIG SET auto-ttl \"user:* 2h\""), "+OK");
    assert_eq!(text.ask_one("SET user:2 a"), "+OK");
    server.kill9();
    server.restart(3);
    let mut text = server.text();
    assert_eq!(text.ask_one("CONFIG GET auto-ttl"), "session:* 3600s", "what was set is not kept");
    for (key, ttl) in
        [("session:1", 3600), ("session:2", 3600), ("session:3", 3600), ("user:1", -1), ("user:2", 7200)]
    {
        let left: i64 = text.ask_one(&format!("TTL {key}")).parse().unwrap();
        assert!(
            left == ttl || ttl > 0 && (ttl - 60..ttl).contains(&left),
            "{key} has {left} of {ttl} seconds left"
        );
    }
}

/// Databases 1 and 3 have each other's keys, and so have 0 and 15.
const IN_DATABASES: &str = r#"
    MSET a 0 b 0 c 0 d 0 moved 0 -> +OK
    MOVE moved 1 -> 1
    SELECT 1 -> +OK
    MSET a 1 b 1 c 1 d 1 -> +OK
    EXPIRE a 1000 -> 1
    SELECT 3 -> +OK
    MSET a 3 b 3 c 3 d 3 -> +OK
    SWAPDB 1 3 -> +OK
    APPEND a + -> 2
    SWAPDB 0 15 -> +OK
    SELECT 2 -> +OK
    MSET a 2 b 2 c 2 d 2 -> +OK
    FLUSHDB -> +OK
    SET only 2 -> +OK
"#;

const FOUND_IN_DATABASES: &str = r#"
    DBSIZE -> 0
    SELECT 15 -> +OK
    MGET a b c d moved -> ["0", "0", "0", "0", nil]
    SELECT 3 -> +OK
    MGET a b c d moved -> ["1+", "1", "1", "1", "0"]
    TTL a -> 900..1000
    SELECT 1 -> +OK
    MGET a b c d -> ["3", "3", "3", "3"]
    SELECT 2 -> +OK
    KEYS * -> ["only"]
    INFO keyspace -> ~"db1:keys=4,expires=0,avg_ttl=0\r\ndb2:keys=1,expires=0,avg_ttl=0\r\ndb3:keys=5,expires=1,avg_ttl=9"
    INFO keyspace -> ~"db15:keys=4,expires=0,avg_ttl=0\r\n"
"#;

#[test]
fn databases_are_found_again_with_their_keys_by_any_number_of_shards() {
    let mut server = Server::start(2, &[]);
    passes(&server, "databases", IN_DATABASES);
    for (shards, compacts) in [(2, false), (2, true), (3, false), (1, true), (2, false)] {
        if compacts {
            assert_eq!(server.text().ask_one("COMPACT"), "+OK");
        }
        server.kill9();
        server.restart(shards);
        passes(&server, &format!("with {shards} shards"), FOUND_IN_DATABASES);
        // Swapped twice: a frame more that tells of databases, behind the snapshot.
        passes(&server, "swaps", "SWAPDB 3 1 -> +OK\n SWAPDB 1 3 -> +OK");
    }
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
    server.set_flag("--databases", "15");
    assert!(server.try_restart(2).is_err());
    let told = "there are keys in database 15, which no client can select of 15; give a greater number of --databases";
    assert!(server.log.text().contains(told), "{}", server.log.tail());
    server.set_flag("--databases", "17");
    server.restart(2);
    passes(&server, "with more databases", FOUND_IN_DATABASES);
    passes(
        &server,
        "the last one",
        "SELECT 16 -> +OK\n SELECT 17 -> -ERR DB index is out of range\n FLUSHALL -> +OK",
    );
    passes(&server, "all are empty", "SELECT 15 -> +OK\n DBSIZE -> 0\n SELECT 3 -> +OK\n DBSIZE -> 0");
    server.kill9();
    server.restart(2);
    passes(&server, "all stay empty", "SELECT 15 -> +OK\n DBSIZE -> 0\n SELECT 3 -> +OK\n DBSIZE -> 0");
}

#[test]
fn every_kind_of_change_is_found_again_by_one_shard() {
    every_kind_of_change_is_found_again(1, "everysec");
}

#[test]
fn every_kind_of_change_is_found_again_by_two_shards() {
    every_kind_of_change_is_found_again(2, "always");
}

#[test]
fn every_kind_of_change_is_found_again_by_five_shards() {
    every_kind_of_change_is_found_again(5, "no");
}

#[test]
fn what_was_cleared_stays_cleared() {
    for shards in [1, 2, 5] {
        let mut server = Server::start(shards, &[]);
        let mut resp = server.resp();
        for clear in ["CLEAR", "FLUSHALL", "FLUSHDB"] {
            let mset = (0..100).fold("MSET".to_owned(), |line, key| line + &format!(" {clear}{key} v"));
            assert_eq!(resp.ask(&mset).to_string(), "+OK");
            assert_eq!(server.text().ask_one("DBSIZE"), "100");
            assert_eq!(server.text().ask_one(clear), "+OK");
            assert_eq!(resp.ask("DBSIZE").integer(), 0);
            assert_eq!(resp.ask("SET later v").to_string(), "+OK");
            server.kill9();
            server.restart(shards);
            resp = server.resp();
            assert_eq!(resp.ask("KEYS *").to_string(), "[\"later\"]", "{clear}, {shards} shards");
            assert_eq!(resp.ask("DEL later").integer(), 1);
        }
    }
}

/// Sets 2,000 keys of all kinds of names, some with a TTL.
fn fill(resp: &mut Resp) {
    let mut bytes = Vec::new();
    for key in 0..2000 {
        let name = if key % 3 == 0 { format!("{{tag{}}}:{key}", key % 7) } else { format!("key:{key}") };
        let value = format!("value of {key}");
        bytes.extend(match key % 5 {
            0 => encoded(&["SET", &name, &value, "EX", "1000"]),
            _ => encoded(&["SET", &name, &value]),
        });
    }
    resp.wire.send(&bytes);
    (0..2000).for_each(|_| assert_eq!(resp.read().to_string(), "+OK"));
}

fn assert_filled(resp: &mut Resp, when: &str) {
    assert_eq!(resp.ask("DBSIZE").integer(), 2000, "{when}");
    let mut bytes = Vec::new();
    for key in 0..2000 {
        let name = if key % 3 == 0 { format!("{{tag{}}}:{key}", key % 7) } else { format!("key:{key}") };
        bytes.extend(encoded(&["GET", &name]));
        bytes.extend(encoded(&["TTL", &name]));
    }
    resp.wire.send(&bytes);
    for key in 0..2000 {
        assert_eq!(resp.read(), Value::bulk(format!("value of {key}")), "key {key}, {when}");
        let ttl = resp.read().integer();
        let timed = key % 5 == 0;
        assert!(
            if timed { (900..=1000).contains(&ttl) } else { ttl == -1 },
            "key {key} has TTL {ttl}, {when}"
        );
    }
}

#[test]
fn every_key_is_kept_when_the_shard_count_changes() {
    let mut server = Server::start(1, &[]);
    fill(&mut server.resp());
    for (index, shards) in [2, 5, 3, 1].into_iter().enumerate() {
        if index % 2 == 0 {
            server.kill9();
        } else {
            assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
        }
        server.restart(shards);
        assert_filled(&mut server.resp(), &format!("with {shards} shards"));
        assert_eq!(server.text().ask_one("CONFIG GET shards"), shards.to_string());
        // The new layout takes writes that the next one has to find.
        passes(
            &server,
            "written in the new layout",
            &format!("SET layout {shards} -> +OK\n DEL layout -> 1"),
        );
    }
    server.kill9();
    server.restart(1);
    assert_filled(&mut server.resp(), "restarted with the same count");
}

#[test]
fn compaction_shrinks_the_log_and_loses_nothing() {
    let mut server = Server::start(2, &[]);
    let mut resp = server.resp();
    fill(&mut resp);
    resp.wire.send(&encoded(&["SET", "again", &"x".repeat(1000)]).repeat(5000));
    (0..5000).for_each(|_| assert_eq!(resp.read().to_string(), "+OK"));
    let before = field(&server, "wal_size");
    assert!(before > 5_000_000, "the log holds 5,000 changes of 1,000 bytes in {before} bytes");
    assert_eq!(server.text().ask_one("COMPACT"), "+OK");
    let after = field(&server, "wal_size");
    assert!(after < before / 4, "COMPACT took the log from {before} to {after} bytes");
    assert_eq!(resp.ask("DEL again").integer(), 1);
    assert_filled(&mut resp, "after COMPACT");
    server.kill9();
    server.restart(2);
    assert_filled(&mut server.resp(), "after COMPACT and kill -9");
}

#[test]
fn compaction_comes_by_itself_when_the_log_is_long() {
    let mut server = Server::start(2, &["--max-wal-entries", "1000", "--compact-interval", "1"]);
    let mut resp = server.resp();
    fill(&mut resp);
    resp.wire.send(&encoded(&["INCR", "again"]).repeat(5000));
    (1..=5000).for_each(|number| assert_eq!(resp.read().integer(), number));
    assert!(
        within_deadline(|| field(&server, "wal_entries") < 1000),
        "the log still has {} entries\n{}",
        field(&server, "wal_entries"),
        server.log.tail()
    );
    server.kill9();
    server.restart(2);
    let mut resp = server.resp();
    assert_eq!(resp.ask("GET again").to_string(), "\"5000\"");
    assert_eq!(resp.ask("DEL again").integer(), 1);
    assert_filled(&mut resp, "after a compaction by itself");
}

#[test]
fn compaction_comes_early_in_the_quietest_hour() {
    let mut server = Server::start(1, &["--max-wal-entries", "2000", "--compact-interval", "1"]);
    let mut resp = server.resp();
    resp.wire.send(&encoded(&["INCR", "counter"]).repeat(1500));
    (1..=1500).for_each(|number| assert_eq!(resp.read().integer(), number));
    let when = server.text().ask_one("COMPACT WHEN");
    assert!(when.contains("too-little-data"), "{when}");
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
    assert_eq!(server.log.text().matches("snapshot written").count(), 0, "{}", server.log.tail());

    // A server that ran for a week would have written that it is busy at all hours but this one and the next.
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let note = Note::new(
        &OsDisk::default(),
        &server.data().join("layout-1/shard-0"),
        Place { shard_index: 0, shard_count: 1, tag: 0 },
    );
    let mut learnt = note.read().unwrap().expect("a note was left");
    for hour in 0..7 * 24 {
        let is_quiet = (0..2).any(|ahead| hour == hour_of_week(now_ms + ahead * 3_600_000));
        let rate: f32 = if is_quiet { 10.0 } else { 1000.0 };
        learnt[1 + 4 * hour..][..4].copy_from_slice(&rate.to_le_bytes());
    }
    note.write(&learnt).unwrap();
    server.restart(1);
    assert!(
        within_deadline(|| field(&server, "wal_entries") < 1000),
        "the log still has {} entries, {}\n{}",
        field(&server, "wal_entries"),
        server.text().ask_one("COMPACT WHEN"),
        server.log.tail()
    );
    assert_eq!(server.resp().ask("GET counter").to_string(), "\"1500\"");
}

/// A number among the fields of the text protocol's `STATS`.
fn field(server: &Server, name: &str) -> u64 {
    let stats = server.text().ask_one("STATS");
    let value = stats.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {stats}"))
}

#[test]
fn a_command_of_which_one_shard_has_nothing_to_do_is_found_again() {
    let mut server = Server::start(5, &[]);
    passes(&server, "half of them exist", "MSET a 1 c 3 e 5 g 7 -> +OK\n DEL a b c d e f g h -> 4");
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
    server.restart(5);
    passes(&server, "none of them is back", "EXISTS a c e g -> 0\n DBSIZE -> 0");
    assert!(!server.log.text().contains("cut short"), "{}", server.log.tail());
}

#[test]
fn an_empty_server_takes_little_of_the_disk_however_many_shards_it_has() {
    use std::os::unix::fs::MetadataExt;
    const SHARDS: u64 = 16;
    /// The first segment, two ahead of need, and what else an idle shard keeps.
    const SHARD_BYTES_MAX: u64 = (12 << 20) + (64 << 10);
    let mut server = Server::start(SHARDS as usize, &["--wal-segment-size", "64m"]);
    let shard_files = |shard: u64| {
        let directory = server.data().join(format!("layout-1/shard-{shard}"));
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let is_ready = |shard| shard_files(shard).iter().any(|path| path.ends_with("spare"));
    assert!(within_deadline(|| (0..SHARDS).all(is_ready)), "{}", server.log.tail());
    for shard in 0..SHARDS {
        let files = shard_files(shard);
        let taken: u64 = files.iter().map(|path| path.metadata().unwrap().blocks() * 512).sum();
        assert!(taken <= SHARD_BYTES_MAX, "shard {shard} takes {taken} bytes: {files:?}");
    }
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
}
