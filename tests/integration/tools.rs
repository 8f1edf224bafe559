//! `kvlite check`, `repair` and `dump` as a user calls them: exit statuses, a server that runs, and one that
//! starts on what they made.

use std::fs;

use crate::process::{Ended, Server, command, run_to_end};

fn run(args: &[&str]) -> Ended {
    let mut command = command();
    command.args(args);
    run_to_end(command)
}

/// A stopped server with some keys.
fn stopped(shards: usize) -> Server {
    let mut server = Server::start(shards, &[]);
    let mut text = server.text();
    for number in 0..200 {
        assert_eq!(text.ask_one(&format!("SET key-{number} \"the value of {number}.\"")), "+OK");
    }
    assert_eq!(text.ask_one("MSET left 1 right 2 middle 3"), "+OK");
    assert_eq!(text.ask_one("EXPIRE left 5000"), "1");
    drop(text);
    assert!(server.terminate().success());
    server
}

#[test]
fn the_help_shows_the_tools_and_wrong_usage_is_refused() {
    let help = run(&["--help"]);
    for tool in ["check", "repair", "dump"] {
        assert!(help.output.contains(&format!("\n  {tool} ")), "--help lacks {tool}: {help:?}");
        let own = run(&[tool, "--help"]);
        assert_eq!(own.status.code(), Some(0));
        assert!(own.output.contains("Exit status:") && own.output.contains("<DIR>"), "{own:?}");
        assert_eq!(run(&[tool]).status.code(), Some(2), "{tool} without a directory");
        assert_eq!(run(&["--port", "7000", tool, "."]).status.code(), Some(2), "options of the server");
    }
    assert_eq!(run(&["repair", "."]).status.code(), Some(2), "repair without --to");
    assert_eq!(run(&["check", "/nonexistent/kvlite"]).status.code(), Some(3));
    // Variables of the server have no say in a tool.
    let mut command = command();
    command.env("KVLITE_PORT", "none").args(["check", "--help"]);
    assert_eq!(run_to_end(command).status.code(), Some(0));
}

#[test]
fn a_running_server_is_left_alone() {
    let server = Server::start(1, &[]);
    let data = server.data();
    let ended = run(&["check", data.to_str().unwrap()]);
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert!(ended.output.contains("a server is running on"), "{ended:?}");
    assert_eq!(server.text().ask_one("PING"), "+PONG");
}

#[test]
fn what_a_server_left_is_sound_and_its_dump_fills_another_server() {
    let server = stopped(2);
    let data = server.data();
    let checked = run(&["check", data.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let dump = run(&["dump", data.to_str().unwrap()]);
    assert_eq!(dump.status.code(), Some(0), "{dump:?}");
    let other = Server::start(3, &[]);
    let mut text = other.text();
    for line in dump.output.lines() {
        assert_eq!(text.ask_one(line), "+OK", "{line}");
    }
    assert_eq!(text.ask_one("GET key-77"), "the value of 77.");
    assert_eq!(text.ask("MGET left right middle"), ["1", "2", "3"]);
    let ttl: u64 = text.ask_one("TTL left").parse().unwrap();
    assert!((4900..=5000).contains(&ttl), "{ttl}");
    assert_eq!(other.resp().ask("DBSIZE").integer(), 203);
}

#[test]
fn a_server_starts_on_what_was_repaired() {
    let mut server = stopped(2);
    let data = server.data();
    let needle = b"the value of 77.";
    let mut damaged = 0;
    for shard in fs::read_dir(data.join("layout-1")).unwrap() {
        for file in fs::read_dir(shard.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
                bytes[at] ^= 0x20;
                fs::write(&path, bytes).unwrap();
                damaged += 1;
            }
        }
    }
    assert_eq!(damaged, 1);
    let checked = run(&["check", data.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let new = data.with_file_name("repaired");
    let repaired = run(&["repair", data.to_str().unwrap(), "--to", new.to_str().unwrap()]);
    assert_eq!(repaired.status.code(), Some(1), "something is lost: {repaired:?}");
    assert!(repaired.output.contains("kept 202 keys in 2 shards"), "{repaired:?}");
    fs::rename(&data, data.with_file_name("damaged")).unwrap();
    fs::rename(&new, &data).unwrap();
    server.restart(2);
    let mut text = server.text();
    assert_eq!(text.ask_one("GET key-76"), "the value of 76.");
    assert_eq!(text.ask_one("GET key-77"), "-ERR key not found");
    assert_eq!(text.ask("MGET left right middle"), ["1", "2", "3"]);
}
