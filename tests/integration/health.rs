//! `kvlite health` and the paths of the admin port, on a server that is well, down, loading, or has a full disk.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output};
use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::admin_port::start;
use crate::http::{self, get};
use crate::loading::{catch_loading, full_server};
use crate::process::{DEADLINE, Server, command, free_port, within_deadline};

fn health(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command: Command = command();
    command.arg("health").args(args).envs(variables.iter().copied());
    command.output().unwrap()
}

fn health_of(server: &Server) -> Output {
    health(&["--host", "127.0.0.1", "--port", &server.port.to_string()], &[])
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A verdict of status 1, with the reason and nothing else.
fn assert_unwell(output: &Output, reason: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = said(&output.stderr);
    assert!(told.starts_with("error: ") && told.contains(reason), "{told}");
    assert!(told.lines().count() == 1 && output.stdout.is_empty(), "{output:?}");
}

/// What the three paths of health answer.
fn paths(admin_port: u16) -> [u16; 3] {
    ["/livez", "/readyz", "/healthz"].map(|path| get(admin_port, path).code)
}

#[test]
fn a_healthy_server_is_found_by_each_protocol() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let socket = socket.to_str().unwrap();
    let (server, admin_port) = start(2, &["--unix-socket", socket]);
    assert_eq!(server.resp().ask("SET key value").to_string(), "+OK");
    let (port, resp_port) = (server.port.to_string(), server.resp_port.to_string());
    let ways = [
        health(&["--host", "127.0.0.1", "--port", &port], &[]),
        health(&[], &[("KVLITE_HOST", "0.0.0.0"), ("KVLITE_PORT", &port), ("KVLITE_RESP_PORT", "1")]),
        health(&["--host", "127.0.0.1", "--port", "0", "--resp-port", &resp_port], &[]),
        health(&["--port", "0", "--resp-port", "0", "--unix-socket", socket], &[]),
    ];
    for way in ways {
        assert_eq!(way.status.code(), Some(0), "{way:?}");
        let told = said(&way.stdout);
        assert!(told.starts_with("healthy keys=1 connections="), "{told}");
        assert!(told.lines().count() == 1 && way.stderr.is_empty(), "{way:?}");
    }
    let json = health(&["--host", "127.0.0.1", "--port", &port, "--json"], &[]);
    let told: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((told["status"].as_str(), told["keys"].as_u64()), (Some("healthy"), Some(1)));
    assert_eq!(paths(admin_port), [200, 200, 200]);
}

#[test]
fn a_server_that_does_not_answer_is_told_with_what_to_do() {
    let port = free_port().to_string();
    let args = ["--host", "127.0.0.1", "--port", &port];
    assert_unwell(&health(&args, &[]), "no server answers at 127.0.0.1:");
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let output = health(&["--host", "127.0.0.1", "--port", &port, "--timeout", "100ms"], &[]);
    assert_unwell(&output, "does not answer in time");
    let stopping = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = stopping.local_addr().unwrap().port().to_string();
    let greeter = std::thread::spawn(move || {
        let (mut client, _) = stopping.accept().unwrap();
        client.write_all(b"+OK kvlite ready\n").unwrap();
        let mut asked = [0; 64];
        let _ = client.read(&mut asked).unwrap();
    });
    let output = health(&["--host", "127.0.0.1", "--port", &port], &[]);
    assert_unwell(&output, "has closed the connection before it told how it is");
    greeter.join().unwrap();
    let (_server, admin_port) = start(1, &[]);
    let output = health(&["--host", "127.0.0.1", "--port", &admin_port.to_string()], &[]);
    assert_unwell(&output, "is no kvlite");
    assert_unwell(&health(&["--port", "0", "--resp-port", "0"], &[]), "give one at which to ask");
    assert_eq!(health(&["--no-such-option"], &[]).status.code(), Some(2));
    assert_eq!(health(&["--help"], &[]).status.code(), Some(0));
}

#[test]
fn a_server_at_its_limit_of_clients_is_told_in_its_own_words() {
    let server = Server::start(1, &["--max-connections", "10"]);
    let mut clients = Vec::new();
    let is_full = || {
        clients.push(TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).unwrap());
        !health_of(&server).status.success()
    };
    assert!(within_deadline(is_full));
    assert_unwell(&health_of(&server), "it answers: ERR connection limit reached");
    let resp_port = server.resp_port.to_string();
    let output = health(&["--host", "127.0.0.1", "--port", "0", "--resp-port", &resp_port], &[]);
    assert_unwell(&output, "it answers: ERR max number of clients reached");
}

#[test]
fn a_unix_socket_that_takes_no_connection_is_waited_for_no_longer_than_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _waits_to_be_accepted = UnixStream::connect(&path).unwrap();
    let begun = Instant::now();
    let args =
        ["--port", "0", "--resp-port", "0", "--unix-socket", path.to_str().unwrap(), "--timeout", "300ms"];
    assert_unwell(&health(&args, &[]), "does not answer in time");
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
}

#[test]
fn an_idle_server_is_ready_however_little_its_disk_may_take() {
    let (_server, admin_port) = start(2, &["--disk-timeout", "100ms"]);
    let uptime_s = |json: &str| {
        serde_json::from_str::<serde_json::Value>(json).unwrap()["uptime_seconds"].as_u64().unwrap()
    };
    let begun_s = uptime_s(&get(admin_port, "/healthz").body);
    loop {
        let answer = get(admin_port, "/readyz");
        assert_eq!(answer.code, 200, "{}", answer.body);
        if uptime_s(&answer.body) > begun_s + 3 {
            break;
        }
    }
}

#[test]
fn a_server_that_loads_is_alive_and_not_ready() {
    let mut server = full_server(1);
    let admin_port = free_port();
    server.set_flag("--admin-port", &admin_port.to_string());
    let (output, before, codes) = catch_loading(&mut server, 1, |server, mut text| {
        let (output, before, codes) =
            (health_of(server), get(admin_port, "/metrics").body, paths(admin_port));
        // This answer proves that it was loading all the time before.
        text.ask_one("HEALTH").contains("\"status\":\"loading\"").then_some((output, before, codes))
    });
    assert_unwell(&output, "the server is loading its data, ");
    assert_eq!(codes, [200, 503, 200]);
    assert!(before.contains("\nkvlite_loading 1\n") && before.contains("\nkvlite_ready 0\n"), "{before}");
    server.wait_until_loaded().unwrap();
    assert_eq!(health_of(&server).status.code(), Some(0));
    assert!(within_deadline(|| paths(admin_port) == [200, 200, 200]));
    let after = get(admin_port, "/metrics").body;
    for line in
        ["kvlite_loading 0", "kvlite_loading_ratio 1", "kvlite_ready 1", "kvlite_recovery_keys 200000"]
    {
        assert!(after.lines().any(|it| it == line), "{line} is missing: {after}");
    }
}

/// The smallest segment.
const SEGMENT_BYTES: u64 = 1 << 20;

/// No file of the server may have more bytes: for segments that is a disk that is full.
fn limit_files(server: &Server, bytes: Option<u64>) {
    let process = Pid::from_raw(i32::try_from(server.id()).unwrap());
    prlimit(process, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn what_the_shards_of_other_workers_refuse_is_counted_once_and_with_all_requests() {
    let (server, admin_port) = start(3, &["--wal-segment-size", &SEGMENT_BYTES.to_string()]);
    limit_files(&server, Some(SEGMENT_BYTES - 1));
    let (mut resp, value) = (server.resp(), "v".repeat(10_000));
    let (mut sent, mut refused, mut refused_in_a_row) = (0, 0, 0);
    // So many in a row are refused by all shards.
    while refused_in_a_row < 100 {
        let reply = resp.ask(&format!("SET key:{sent} {value}")).to_string();
        let is_refused = reply.starts_with("-MISCONF");
        assert!(is_refused || reply == "+OK", "{reply}");
        sent += 1;
        refused += u32::from(is_refused);
        refused_in_a_row = if is_refused { refused_in_a_row + 1 } else { 0 };
        assert!(sent < 10_000, "the server takes what no disk holds");
    }
    assert!(resp.ask("MSET a 1 b 2 c 3 d 4 e 5 f 6").to_string().starts_with("-MISCONF"));
    let counts = [
        ("kvlite_commands_total{command=\"set\"}", sent),
        ("kvlite_commands_rejected_total{command=\"set\"}", refused),
        ("kvlite_commands_failed_total{command=\"set\"}", 0),
        ("kvlite_commands_total{command=\"mset\"}", 1),
        ("kvlite_commands_rejected_total{command=\"mset\"}", 1),
        ("kvlite_commands_failed_total{command=\"mset\"}", 0),
        ("kvlite_errors_total{kind=\"MISCONF\"}", refused + 1),
    ];
    let is_told = within_deadline(|| {
        let page = get(admin_port, "/metrics").body;
        counts.iter().all(|(sample, count)| http::value(&page, sample) == Some(f64::from(*count)))
    });
    assert!(is_told, "{counts:?}: {}", get(admin_port, "/metrics").body);
    let stats = String::from_utf8_lossy(resp.ask("INFO commandstats").bytes()).into_owned();
    assert!(stats.contains(&format!("cmdstat_set:calls={sent},")), "{stats}");
}

#[test]
fn a_server_whose_disk_is_full_is_alive_and_not_ready_until_there_is_room() {
    let (server, admin_port) = start(1, &["--wal-segment-size", &SEGMENT_BYTES.to_string()]);
    limit_files(&server, Some(SEGMENT_BYTES - 1));
    let (mut resp, value) = (server.resp(), "v".repeat(10_000));
    let is_refused =
        (0..1000).any(|key| resp.ask(&format!("SET key:{key} {value}")).to_string().starts_with("-MISCONF"));
    assert!(is_refused, "the server takes what no disk holds");
    assert_unwell(&health_of(&server), "the server is degraded: shard 0: cannot allocate ");
    assert!(within_deadline(|| paths(admin_port) == [200, 503, 503]), "{:?}", paths(admin_port));
    assert!(get(admin_port, "/readyz").body.contains("\"wal_error\":\"shard 0: cannot allocate "));
    let told = within_deadline(|| {
        let page = get(admin_port, "/metrics").body;
        ["kvlite_log_fault{shard=\"0\"} 1", "kvlite_healthy 0"]
            .iter()
            .all(|it| page.lines().any(|line| line == *it))
            && page.contains("kvlite_commands_rejected_total{command=\"set\"} 1\n")
            && page.contains("kvlite_errors_total{kind=\"MISCONF\"} 1\n")
    });
    assert!(told, "{}", get(admin_port, "/metrics").body);
    limit_files(&server, None);
    assert!(within_deadline(|| paths(admin_port) == [200, 200, 200]), "{}", server.log.tail());
    assert!(within_deadline(|| health_of(&server).status.success()));
}
