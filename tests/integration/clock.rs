use std::fs;
use std::process::Command;
use std::time::{Instant, UNIX_EPOCH};

use tempfile::TempDir;

use crate::process::{Server, within_deadline};

const HOUR_S: i64 = 3600;
const YEAR_S: i64 = 365 * 24 * HOUR_S;

/// The wall clock of a server.
struct WallClock {
    directory: TempDir,
    /// How often it was set while the server ran.
    set: usize,
}

impl WallClock {
    /// A server, not started yet, whose wall clock this is.
    fn of_stopped_server() -> (WallClock, Server) {
        let clock = WallClock { directory: TempDir::with_prefix("kvlite-test-").unwrap(), set: 0 };
        clock.write(0);
        let library = clock.directory.path().join("clock.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/clock.c");
        let compiled =
            Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
        assert!(compiled.is_ok_and(|status| status.success()), "these tests need a C compiler, cc");
        let mut server = Server::stopped(None, &[]);
        server.set_variable("LD_PRELOAD", library);
        server.set_variable("KVLITE_CLOCK_FILE", clock.directory.path().join("ahead"));
        (clock, server)
    }

    /// Sets it, so many seconds ahead of the system's.
    fn write(&self, ahead_s: i64) {
        let path = self.directory.path().join("ahead");
        fs::write(path.with_extension("new"), ahead_s.to_string()).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }

    /// Sets it, and waits until every shard of the server has noticed.
    fn set(&mut self, server: &Server, ahead_s: i64) {
        self.write(ahead_s);
        self.set += 1;
        let noticed = || server.log.text().matches("the wall clock was set").count();
        let expected = self.set * SHARDS;
        assert!(within_deadline(|| noticed() == expected), "{}\n{}", noticed(), server.log.tail());
    }
}

const SHARDS: usize = 2;

fn unix_s() -> i64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs() as i64
}

fn ask(server: &Server, request: &str) -> String {
    server.resp().ask(request).to_string()
}

fn pttl(server: &Server, key: &str) -> i64 {
    server.resp().ask(&format!("PTTL {key}")).integer()
}

#[test]
fn a_step_back_keeps_no_key_alive_and_brings_none_back() {
    let (mut clock, mut server) = WallClock::of_stopped_server();
    server.restart(SHARDS);
    let begun = Instant::now();
    assert_eq!(ask(&server, "SET short 1 EX 2"), "+OK");
    assert_eq!(ask(&server, "SET long 1 EX 3600"), "+OK");
    assert_eq!(ask(&server, &format!("SET passed 1 EXAT {}", unix_s() + 2)), "+OK");
    assert_eq!(ask(&server, &format!("SET at 1 EXAT {}", unix_s() + 1000)), "+OK");
    assert!(within_deadline(|| ask(&server, "GET passed") == "nil"), "{}", server.log.tail());
    clock.set(&server, -HOUR_S);
    assert!(within_deadline(|| ask(&server, "GET short") == "nil"), "{}", server.log.tail());
    assert!(begun.elapsed().as_secs() < 60, "it lives for two seconds, whatever the machine has to do");
    assert!((3_500_000..=3_600_000).contains(&pttl(&server, "long")));
    assert!(pttl(&server, "at") > 4_500_000, "it follows the wall clock");
    for _ in 0..2 {
        assert_eq!(ask(&server, "EXISTS short passed"), "0");
        server.kill9();
        server.restart(SHARDS);
    }
    assert!((3_500_000..=3_600_000).contains(&pttl(&server, "long")));
    clock.set(&server, HOUR_S);
    assert!(within_deadline(|| ask(&server, "GET at") == "nil"), "{}", server.log.tail());
    clock.set(&server, 0);
    assert_eq!(ask(&server, "EXISTS at"), "0", "it was removed");
    server.kill9();
    server.restart(SHARDS);
    assert_eq!(ask(&server, "EXISTS at"), "0", "it was removed");
    assert!((3_500_000..=3_600_000).contains(&pttl(&server, "long")));
}

#[test]
fn a_glitch_leaves_nothing_behind() {
    let (mut clock, mut server) = WallClock::of_stopped_server();
    server.restart(SHARDS);
    assert_eq!(ask(&server, "SET long 1 EX 3600"), "+OK");
    clock.set(&server, YEAR_S);
    let begun = Instant::now();
    assert_eq!(ask(&server, "SET lock 1 NX PX 1500"), "+OK");
    assert_eq!(ask(&server, "SET until 1 EX 3600"), "+OK");
    assert_eq!(ask(&server, "SAVE"), "+OK");
    assert!(server.resp().ask("LASTSAVE").integer() > unix_s() + YEAR_S - 60);
    clock.set(&server, 0);
    let now_s = unix_s();
    let saved_s = server.resp().ask("LASTSAVE").integer();
    assert!((now_s - 60..=now_s + 1).contains(&saved_s), "{saved_s} at {now_s}");
    assert!(ask(&server, "INFO persistence").contains(&format!("rdb_last_save_time:{saved_s}")));
    let analyzed = ask(&server, "ANALYZE until");
    let year = 1970 + now_s / (YEAR_S + 6 * HOUR_S);
    assert!(analyzed.matches(&format!("\"{year}-")).count() >= 1, "{analyzed} in {year}");
    assert!(!analyzed.contains(&format!("\"{}-", year + 1)), "{analyzed} in {year}");
    server.kill9();
    server.restart(SHARDS);
    assert!(within_deadline(|| ask(&server, "SET lock 2 NX") == "+OK"), "{}", server.log.tail());
    assert!(
        begun.elapsed().as_secs() < 60,
        "it lives for one and a half seconds, whatever the machine has to do"
    );
    assert!((3_500_000..=3_600_000).contains(&pttl(&server, "until")));
    assert!((3_500_000..=3_600_000).contains(&pttl(&server, "long")));
}

#[test]
fn a_clock_that_is_wrong_at_a_start_does_no_harm() {
    let (mut clock, mut server) = WallClock::of_stopped_server();
    clock.write(YEAR_S);
    server.restart(SHARDS);
    assert_eq!(ask(&server, "SET lock 1 PX 1500"), "+OK");
    assert_eq!(ask(&server, "SET long 1 EX 3600"), "+OK");
    server.kill9();
    for ahead_s in [0, YEAR_S, -YEAR_S] {
        clock.write(ahead_s);
        server.restart(SHARDS);
        assert!((3_500_000..=3_600_000).contains(&pttl(&server, "long")), "{ahead_s}");
        assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
    }
    server.restart(SHARDS);
    assert!(within_deadline(|| ask(&server, "GET lock") == "nil"), "{}", server.log.tail());
    clock.set(&server, 0);
    server.terminate();
    // To another number of shards.
    server.restart(1);
    assert!((3_500_000..=3_600_000).contains(&pttl(&server, "long")));
    assert_eq!(ask(&server, "GET lock"), "nil");
}
