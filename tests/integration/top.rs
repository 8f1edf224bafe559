//! `kvlite top` without a terminal, against servers that are well, down, and no kvlite. On a terminal it is run by
//! `tests/browser/top`.

use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Output};

use crate::admin_port::start;
use crate::process::{Server, command, free_port, within_deadline};

fn top(args: &[&str]) -> Output {
    let mut command: Command = command();
    command.arg("top").args(args);
    command.output().unwrap()
}

fn top_of(server: &Server) -> String {
    let output = top(&["--host", "127.0.0.1", "--resp-port", &server.resp_port.to_string(), "--once"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn assert_refused(output: &Output, reason: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.starts_with("error: ") && told.contains(reason) && told.lines().count() == 1, "{told}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn one_page_shows_the_server_its_keys_and_its_commands() {
    let server = Server::start(2, &[]);
    let mut resp = server.resp();
    resp.ask_bytes::<&[u8]>(&[b"SET", b"evil\n\x1b[2J\xff", b"value"]);
    let wide = "日本語🚀".repeat(10);
    for _ in 0..50 {
        resp.ask_bytes::<&[u8]>(&[b"SET", wide.as_bytes(), b"value"]);
        resp.ask_bytes::<&[u8]>(&[b"SET", b"", b"value"]);
        resp.ask("GET user:1:profile");
        resp.ask("SET user:2:profile value");
    }
    let page = top_of(&server);
    for part in [
        "2 shards",
        "healthy",
        "user:1:profile",
        "user:2:profile",
        "user:*",
        "evil\\n\\u{1b}[2J\\xff",
        "(empty)",
        "GET",
        "Anomalies",
        "ops/s",
    ] {
        assert!(page.contains(part), "{part} is missing:\n{page}");
    }
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    let row = page.lines().find(|line| line.starts_with("日本語🚀日本"));
    let recent = row.and_then(|row| row.split_whitespace().nth(1)?.parse::<u32>().ok());
    // Of 50, some fade while the test runs.
    assert!(recent.is_some_and(|recent| (10..=50).contains(&recent)), "{page}");
    assert!(page.chars().all(|char| char == '\n' || !char.is_control()), "{page}");
}

#[test]
fn without_analytics_there_is_the_rest() {
    let (server, _) = start(1, &["--enable-analytics=false"]);
    server.resp().ask("SET key value");
    let page = top_of(&server);
    assert!(page.contains("SET") && !page.contains("ERR"), "{page}");
    assert_eq!(page.matches("analytics not enabled").count(), 1, "{page}");
}

#[test]
fn who_does_not_answer_as_kvlite_does_is_told_with_what_to_do() {
    let port = free_port().to_string();
    assert_refused(
        &top(&["--host", "127.0.0.1", "--resp-port", &port, "--once"]),
        "no server answers at 127.0.0.1:",
    );
    let (server, admin_port) = start(1, &["--max-connections", "10"]);
    // That of the text protocol says so itself, unless its greeting has come first.
    for port in [admin_port, server.port] {
        let output = top(&["--host", "127.0.0.1", "--resp-port", &port.to_string(), "--once"]);
        let told = String::from_utf8_lossy(&output.stderr);
        let names_the_port = port == server.port && told.contains("for RESP use port");
        assert_refused(
            &output,
            if names_the_port { "it answers: ERR" } else { "which is not its --port nor" },
        );
    }
    let mut clients = Vec::new();
    let is_full = || {
        clients.push(TcpStream::connect((Ipv4Addr::LOCALHOST, server.resp_port)).unwrap());
        let output = top(&["--host", "127.0.0.1", "--resp-port", &server.resp_port.to_string(), "--once"]);
        String::from_utf8_lossy(&output.stderr).contains("it answers: ERR max number of clients reached")
    };
    assert!(within_deadline(is_full), "a server that takes no more clients is not told");
    assert_refused(&top(&["--resp-port", "0"]), "give the --resp-port or the --unix-socket");
    assert_eq!(top(&["--no-such-option"]).status.code(), Some(2));
    assert_eq!(top(&["--help"]).status.code(), Some(0));
}
