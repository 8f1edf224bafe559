//! `kvlite bench` against the real server, and against Redis where it is installed: its bounds, its counts,
//! its latencies, its exit status.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::client::Resp;
use crate::process::{Ended, Log, Server, command, free_port, run_to_end, within_deadline};

fn bench(port: u16, flags: &str) -> Command {
    let mut command = command();
    command.args(["bench", "--host", "127.0.0.1", "--port", &port.to_string()]);
    command.args(flags.split_whitespace());
    command
}

/// Runs the generator to its end, which has to be a good one, and returns its report.
fn measured(port: u16, flags: &str) -> Value {
    let ended = run_to_end(bench(port, &format!("--json {flags}")));
    assert_eq!(ended.status.code(), Some(0), "{flags}: {ended:?}");
    serde_json::from_str(&ended.output).unwrap_or_else(|error| panic!("{flags}: {error}: {ended:?}"))
}

fn failed(ended: &Ended, text: &str) {
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.output.contains(text), "{ended:?} does not contain {text:?}");
}

#[test]
fn every_request_is_answered_and_counted_on_both_protocols() {
    let server = Server::start(2, &[]);
    for (port, protocol) in [(server.resp_port, "resp"), (server.port, "text")] {
        server.resp().ask("CLEAR");
        let flags = "--fill --keys 500 -n 5000 --clients 7 --threads 3 --pipeline 5 --value-size 0-100 \
            --zipf 0.9 --commands get:1,set:1,incr:1,mget:1,mset:1 --batch 3";
        let report = measured(port, &format!("--protocol {protocol} {flags}"));
        assert_eq!(report["requests"], 5000, "{report}");
        assert_eq!((&report["errors"], &report["missing"]), (&0.into(), &0.into()), "{report}");
        let counts = report["commands"].as_object().expect("counts");
        assert_eq!(counts.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 5000, "{report}");
        assert!(counts.values().all(|count| (800..1200).contains(&count.as_u64().unwrap())), "{report}");
        let mut client = server.resp();
        let stats = client.ask("KEYS key:*");
        assert_eq!(stats.items().len(), 500, "each of the keys was filled in, and no other");
        assert!(client.ask("DBSIZE").integer() > 500, "counters have keys of their own");
    }
}

#[test]
fn nothing_but_filling_with_a_time_to_live() {
    let server = Server::start(1, &[]);
    let report = measured(server.resp_port, "--fill --keys 300 -n 0 --ttl 100");
    assert_eq!(report["requests"], 300, "{report}");
    let mut client = server.resp();
    assert_eq!(client.ask("DBSIZE").integer(), 300);
    assert!((1..=100).contains(&client.ask("TTL key:000000000299").integer()));
}

#[test]
fn a_run_ends_after_its_requests_or_its_time_whichever_comes_first() {
    let server = Server::start(1, &[]);
    let by_count = measured(server.resp_port, "-n 100 -d 1h --clients 3 --pipeline 16");
    assert_eq!(by_count["requests"], 100, "{by_count}");
    let start = Instant::now();
    let by_time = measured(server.resp_port, "-n 1000000000 -d 300ms");
    assert!(by_time["requests"].as_u64().unwrap() > 0, "{by_time}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let scheduled = measured(server.resp_port, "--rate 400 -d 500ms --clients 3 --threads 2");
    assert_eq!(scheduled["requests"].as_u64().unwrap() + scheduled["unsent"].as_u64().unwrap(), 200);
}

#[test]
fn replies_that_are_errors_are_counted_with_their_text() {
    let server = Server::start(1, &[]);
    server.resp().ask("SET counter:000000000000 text");
    let report = measured(server.resp_port, "--commands incr --keys 1 -n 50");
    assert_eq!((&report["errors"], &report["requests"]), (&50.into(), &50.into()), "{report}");
    assert_eq!(report["error_texts"]["-ERR value is not an integer or out of range"], 50, "{report}");
    let report = measured(server.resp_port, "--commands get --keys 10 -n 50");
    assert_eq!(report["missing"], 50, "{report}");
}

/// A server that stands still for a while keeps a closed loop from asking, so that it sees one slow request.
/// At a fixed rate every request that was due meanwhile has waited, and its latency says so.
#[test]
fn requests_that_a_stall_held_back_count_with_their_waiting_time() {
    const STALL: Duration = Duration::from_millis(1000);
    let server = Server::start(1, &[]);
    let mut generator =
        bench(server.resp_port, "--json --rate 200 -d 3s --clients 1 --commands set --keys 1");
    let generator = generator.stdout(Stdio::piped()).spawn().unwrap();
    wait_for_key(&server);
    server.signal(Signal::STOP);
    thread::sleep(STALL); // The stall is what is measured.
    server.signal(Signal::CONT);
    let output = generator.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["requests"].as_u64().unwrap() + report["unsent"].as_u64().unwrap(), 600, "{report}");
    let ms = |distribution: &str, quantile: &str| report[distribution][quantile].as_f64().unwrap();
    // A third of the requests was due in the stall, and waited for half of it on average.
    assert!(ms("latency_ms", "p90") > 500.0, "{report}");
    assert!(ms("latency_ms", "max") > 900.0, "{report}");
    assert!(ms("service_time_ms", "p90") < ms("latency_ms", "p90") / 2.0, "one request took long: {report}");
    assert!(ms("service_time_ms", "max") > 900.0, "{report}");
}

#[test]
fn a_server_that_is_not_there_goes_away_or_falls_silent_is_a_failure() {
    failed(&run_to_end(bench(free_port(), "-n 1")), "cannot connect to 127.0.0.1:");
    let mut server = Server::start(1, &[]);
    failed(&run_to_end(bench(server.port, "-n 1")), "instead of the Redis protocol's +PONG");
    failed(&run_to_end(bench(server.resp_port, "-n 1 --protocol text --timeout 200ms")), "has not answered");
    let long = "-d 1m --commands set --keys 1 --threads 2";
    let mut generator = bench(server.resp_port, &format!("{long} --timeout 200ms"));
    let generator = generator.stderr(Stdio::piped()).spawn().unwrap();
    wait_for_key(&server);
    server.signal(Signal::STOP);
    assert_fails(generator, "has not answered for 200ms");
    server.signal(Signal::CONT);
    server.resp().ask("CLEAR");
    let generator = bench(server.resp_port, long).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_key(&server);
    server.kill9();
    assert_fails(generator, "connection");
}

fn wait_for_key(server: &Server) {
    let mut client = server.resp();
    assert!(within_deadline(|| client.ask("EXISTS key:000000000000").integer() == 1));
}

fn assert_fails(generator: Child, text: &str) {
    let output = generator.wait_with_output().unwrap();
    failed(&Ended { status: output.status, output: String::from_utf8(output.stderr).unwrap() }, text);
}

#[test]
fn keys_of_the_own_shard_and_of_the_others() {
    let server = Server::start(3, &[]);
    for locality in ["local", "remote"] {
        let flags = format!("--locality {locality} --fill --keys 999 --commands get -n 2000");
        let report = measured(server.resp_port, &flags);
        assert_eq!((&report["requests"], &report["missing"]), (&2000.into(), &0.into()), "{report}");
    }
    let single = Server::start(1, &[]);
    failed(&run_to_end(bench(single.resp_port, "--locality remote -n 1")), "there is only one shard");
}

#[test]
fn the_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let server = Server::start(1, &["--unix-socket", path.to_str().unwrap()]);
    let report = measured(server.port, &format!("-n 100 --unix-socket {}", path.display()));
    assert_eq!((&report["requests"], &report["errors"]), (&100.into(), &0.into()), "{report}");
}

#[test]
fn redis_is_measured_the_same_way() {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let installed: Option<PathBuf> =
        std::env::split_paths(&paths).map(|path| path.join("redis-server")).find(|path| path.is_file());
    let Some(program) = installed else {
        eprintln!("redis-server is not installed: nothing is measured");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut redis = Command::new(program)
        .args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"])
        .arg(directory.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let reached = within_deadline(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let report = reached.then(|| {
        let flags = "--fill --keys 200 -n 2000 --pipeline 8 --commands get,set,incr,mget,mset --ttl 100";
        let report = measured(port, flags);
        let mut client = Resp::connect(([127, 0, 0, 1], port).into(), &Log::elsewhere());
        (report, client.ask("EXISTS key:000000000199").integer())
    });
    redis.kill().unwrap();
    redis.wait().unwrap();
    let (report, exists) = report.expect("redis-server listens");
    assert_eq!(
        (&report["requests"], &report["errors"], &report["missing"]),
        (&2000.into(), &0.into(), &0.into())
    );
    assert_eq!(exists, 1);
}
