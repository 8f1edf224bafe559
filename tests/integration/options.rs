//! Options from a file, and those that change while the server runs.

use std::fs;

use crate::client::Value;
use crate::process::{Server, command, run_to_end};

#[test]
fn a_file_sets_options_and_a_rewrite_writes_down_what_has_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kvlite.conf");
    let lines = "# ours\nmaxclients 77\nsave \"\"\n\nhash-max-listpack-entries 5\ntimeout 100\nmax-wal-entries 1000\n";
    fs::write(&path, lines).unwrap();
    let flags = ["--config", path.to_str().unwrap(), "--timeout", "50"];
    let mut server = Server::start(2, &flags);
    let shown = |server: &Server, name: &str| {
        let reply = server.resp().ask(&format!("CONFIG GET {name}"));
        String::from_utf8_lossy(reply.items()[1].bytes()).into_owned()
    };
    let options = ["maxclients", "hash-max-ziplist-entries", "timeout", "max-wal-entries"];
    assert_eq!(
        options.map(|name| shown(&server, name)),
        ["77", "5", "50", "1000"],
        "a flag wins over the file"
    );
    let ok = Value::Simple("OK".into());
    let mut client = server.resp();
    assert_eq!(client.ask("CONFIG REWRITE"), ok);
    let lines = lines.replace("timeout 100", "timeout 50");
    assert_eq!(fs::read_to_string(&path).unwrap(), lines, "nothing has changed but what the flag says");
    assert_eq!(
        client.ask("CONFIG SET maxclients 70 loglevel warning auto-ttl \"a:* 90s\" lua-time-limit 0"),
        ok
    );
    assert_eq!(client.ask("CONFIG REWRITE"), ok);
    let rewritten = fs::read_to_string(&path).unwrap();
    let kept = lines.replace("maxclients 77", "maxclients 70");
    assert_eq!(rewritten, format!("{kept}auto-ttl a:* 90s\nbusy-reply-threshold 0\nlog-level warn\n"));
    drop(client);
    server.terminate();
    server.restart(2);
    // The level of the log is a variable of every test.
    let options = ["max-connections", "auto-ttl", "busy-reply-threshold"];
    assert_eq!(options.map(|name| shown(&server, name)), ["70", "a:* 90s", "0"]);
    for (value, line) in [("a:* 5s", "auto-ttl a:* 5s\n"), ("", "auto-ttl \"\"\n")] {
        assert_eq!(server.resp().ask_bytes(&["CONFIG", "SET", "auto-ttl", value]), ok);
        assert_eq!(server.resp().ask("CONFIG REWRITE"), ok);
        assert!(fs::read_to_string(&path).unwrap().contains(line), "{line}");
    }
    fs::remove_dir_all(directory.path()).unwrap();
    let refused = server.resp().ask("CONFIG SET timeout 60");
    assert_eq!(refused, ok);
    let Value::Error(error) = server.resp().ask("CONFIG REWRITE") else { panic!("there is no directory") };
    assert!(error.contains("Rewriting config file: "), "{error}");
}

#[test]
fn a_file_with_a_mistake_is_refused_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kvlite.conf");
    for (line, told) in [
        ("no-such-option 1", "kvlite.conf:2: there is no option no-such-option"),
        ("timeout", "kvlite.conf:2: timeout has no value"),
        ("maxclients many", "kvlite.conf:2"),
        ("appendonly no", "kvlite.conf:2: appendonly is always 'yes' here"),
        ("hash-max-listpack-entries x", "argument couldn't be parsed into an integer"),
    ] {
        fs::write(&path, format!("# first\n{line}\n")).unwrap();
        let ended = run_to_end({
            let mut command = command();
            command.arg("--config").arg(&path);
            command
        });
        assert_eq!(ended.status.code(), Some(2), "{line}: {ended:?}");
        assert!(ended.output.contains(told), "{line}: {ended:?}");
    }
}

#[test]
fn an_idle_client_is_disconnected_and_one_that_is_not_stays() {
    let server = Server::start(1, &["--timeout", "1"]);
    let (mut idle, mut busy) = (server.resp(), server.resp());
    let pong = Value::Simple("PONG".into());
    assert_eq!(idle.ask("PING"), pong);
    let waits = std::thread::spawn(move || idle.wire.until_closed());
    while !waits.is_finished() {
        assert_eq!(busy.ask("PING"), pong);
    }
    assert_eq!(waits.join().unwrap(), b"", "it is told nothing, as by Redis");
    assert_eq!(busy.ask("CONFIG SET timeout 0"), Value::Simple("OK".into()));
}
