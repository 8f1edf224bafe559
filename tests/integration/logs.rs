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
fn a_log_that_nobody_reads_holds_up_no_client_and_not_the_end() {
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
