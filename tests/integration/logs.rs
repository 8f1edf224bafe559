//! The server's own log: its reader holds up no client, and no client writes into it.

use std::io::{BufRead, BufReader, PipeReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::Resp;
use crate::process::{Log, Server, command, free_ports, within_deadline};

/// How many lines are much more than a pipe and the server's own queue take.
const LINES: usize = 4000;

/// A server whose log goes into a pipe.
struct Piped {
    process: Child,
    resp_port: u16,
    log: Option<PipeReader>,
    directory: TempDir,
}

impl Piped {
    fn start(format: &str) -> Piped {
        let directory = TempDir::with_prefix("kvlite-logs-").unwrap();
        let (log, writer) = std::io::pipe().unwrap();
        let (port, resp_port) = free_ports();
        let mut command = command();
        command.args(["--host", "127.0.0.1", "--shards", "2", "--wal-segment-size", "1m"]);
        command.args(["--port", &port.to_string(), "--resp-port", &resp_port.to_string()]);
        command
            .args(["--log-level", "debug", "--log-format", format])
            .arg("--wal-path")
            .arg(directory.path().join("data"));
        command.arg("--backup-dir").arg(directory.path().join("backups")).stderr(writer);
        let process = command.spawn().unwrap();
        let piped = Piped { process, resp_port, log: Some(log), directory };
        assert!(within_deadline(|| TcpStream::connect((Ipv4Addr::LOCALHOST, resp_port)).is_ok()));
        assert!(within_deadline(|| piped.resp().ask("DBSIZE").to_string() == "0"));
        piped
    }

    fn resp(&self) -> Resp {
        Resp::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.resp_port)), &Log::elsewhere())
    }

    /// Has the server log all these lines, while they are not read, and demands that it serves as before.
    fn fill_the_log(&self) {
        let path = format!("{}/b", vec!["d".repeat(200); 4].join("/"));
        std::fs::create_dir_all(self.directory.path().join("backups").join(&path).join("taken")).unwrap();
        let (mut resp, mut other) = (self.resp(), self.resp());
        for _ in 0..LINES {
            let answer = resp.ask(&format!("BACKUP {path}")).to_string();
            assert!(answer.contains("exists already"), "{answer}");
        }
        for client in [&mut resp, &mut other, &mut self.resp()] {
            assert_eq!(client.ask("PING").to_string(), "+PONG");
            assert_eq!(client.ask("SET key value").to_string(), "+OK");
        }
    }

    /// Sends a signal, and returns the exit status.
    fn end(&mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
        let mut status = None;
        let ended = within_deadline(|| {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        assert!(ended, "the server does not end");
        status.and_then(|status| status.code())
    }

    /// The lines that are left in the pipe, once the server has ended.
    fn lines(&mut self) -> Vec<String> {
        BufReader::new(self.log.take().unwrap()).lines().map(Result::unwrap).collect()
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // Both fail only when the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_log_that_is_not_read_holds_up_no_client_and_not_the_end() {
    let mut piped = Piped::start("text");
    piped.fill_the_log();
    assert_eq!(piped.end(Signal::TERM), Some(0));
    // What the pipe holds is whole, but for the line that was under way.
    let mut lines = piped.lines();
    lines.pop();
    assert!(lines.len() > 10, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("Z ") && line.contains(" kvlite::")), "{lines:#?}");
}

#[test]
fn a_client_whose_backups_are_refused_writes_no_lines_into_the_log() {
    let root = TempDir::with_prefix("kvlite-backups-").unwrap();
    std::fs::create_dir_all(root.path().join("full/a")).unwrap();
    std::fs::write(root.path().join("file"), "a").unwrap();
    let mut server = Server::start(1, &["--backup-dir", root.path().to_str().unwrap()]);
    let mut resp = server.resp();
    for path in ["full", "file/a", "..", "/a", ".a"] {
        assert!(resp.ask(&format!("BACKUP {path}")).to_string().starts_with("-ERR "), "{path}");
    }
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
    assert!(!server.log.text().contains("backup"), "{}", server.log.tail());
}

#[test]
fn a_log_that_is_read_again_tells_what_it_lacks_and_holds_the_last_line() {
    for format in ["text", "json"] {
        let mut piped = Piped::start(format);
        piped.fill_the_log();
        let log = piped.log.take().unwrap();
        let reading =
            std::thread::spawn(|| BufReader::new(log).lines().map(Result::unwrap).collect::<Vec<_>>());
        assert_eq!(piped.end(Signal::TERM), Some(0));
        let lines = reading.join().unwrap();
        let told: Vec<_> =
            lines.iter().filter(|line| line.contains("lines of this log were dropped")).collect();
        assert!(!told.is_empty(), "{} lines", lines.len());
        assert!(lines[lines.len() - 1].contains("stopped; everything acknowledged is on disk"));
        let mut dropped = 0;
        for line in &told {
            dropped += match format {
                "json" => serde_json::from_str::<serde_json::Value>(line).unwrap()["lines"].as_u64().unwrap()
                    as usize,
                _ => line.rsplit_once("lines=").unwrap().1.parse::<usize>().unwrap(),
            };
        }
        let failures = lines.iter().filter(|line| line.contains("no backup was made")).count();
        // There may have been no room for other lines either.
        assert!(failures + dropped >= LINES, "{format}: {failures} and {dropped}");
    }
}

/// The lines that the server may log: by level and message, the names of their fields.
fn listed_fields(level: &str, message: &str) -> Option<Vec<String>> {
    let list = include_str!("../../docs/logging.md");
    let start = format!("| {} | {message} | ", level.to_lowercase());
    let row = list.lines().find_map(|line| line.strip_prefix(start.as_str()))?;
    let fields = row.split(" | ").next().unwrap_or_default();
    Some(
        fields
            .split(", ")
            .map(|field| field.trim_matches('`').to_owned())
            .filter(|it| !it.is_empty())
            .collect(),
    )
}

fn is_rfc_3339(timestamp: &str) -> bool {
    let pattern = "0000-00-00T00:00:00.000000Z";
    let fits =
        |(char, wanted): (char, char)| if wanted == '0' { char.is_ascii_digit() } else { char == wanted };
    timestamp.len() == pattern.len() && timestamp.chars().zip(pattern.chars()).all(fits)
}

#[test]
fn a_line_of_json_holds_a_message_that_is_listed_and_its_fields() {
    let backups = TempDir::with_prefix("kvlite-backups-").unwrap();
    let flags = ["--log-format", "json", "--log-level", "info,kvlite=debug", "--backup-dir"];
    let mut server = Server::start(2, &[&flags[..], &[backups.path().to_str().unwrap()]].concat());
    let mut resp = server.resp();
    assert_eq!(resp.ask("SET key value").to_string(), "+OK");
    assert_eq!(resp.ask("SAVE").to_string(), "+OK");
    assert!(resp.ask("BACKUP one").to_string().contains("keys"));
    assert!(resp.ask("BACKUP one").to_string().contains("exists already"));
    assert!(within_deadline(|| server.log.text().contains("no backup was made")), "{}", server.log.tail());
    server.signal(Signal::HUP);
    assert!(within_deadline(|| server.log.text().contains("SIGHUP")), "{}", server.log.tail());
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
    let mut messages = Vec::new();
    for line in server.log.text().lines() {
        let event: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        let text = |name: &str| {
            event.get(name).and_then(|it| it.as_str()).unwrap_or_else(|| panic!("{name}: {line}"))
        };
        assert!(is_rfc_3339(text("timestamp")), "{line}");
        assert!(text("target").starts_with("kvlite"), "{line}");
        let (level, message) = (text("level"), text("message"));
        let mut listed =
            listed_fields(level, message).unwrap_or_else(|| panic!("docs/logging.md lacks {line}"));
        let mut fields: Vec<String> = event.keys().cloned().collect();
        fields.retain(|name| !["timestamp", "level", "target", "message"].contains(&name.as_str()));
        listed.sort();
        fields.sort();
        assert_eq!(fields, listed, "{line}");
        messages.push(message.to_owned());
    }
    for expected in [
        "kvlite is ready",
        "snapshot written",
        "backup complete",
        "stopped; everything acknowledged is on disk",
    ] {
        assert!(messages.iter().any(|message| message == expected), "{expected}: {messages:?}");
    }
}
