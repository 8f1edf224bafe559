//! The admin port: the metrics that it tells and documents, health, hostile clients; and the programs that read it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::http::{get, request, value};
use crate::process::{Server, free_port, run_to_end, within_deadline};

const OPEN_METRICS: &str = "Accept: application/openmetrics-text; version=1.0.0\r\n";

/// A server with an admin port.
pub fn start(shards: usize, flags: &[&str]) -> (Server, u16) {
    let port = free_port();
    let port_text = port.to_string();
    let flags = [&["--admin-port", &port_text], flags].concat();
    (Server::start(shards, &flags), port)
}

/// The sum over the samples of a metric.
fn sum(page: &str, name: &str) -> f64 {
    let samples = page.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
    });
    samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

/// The first page of metrics of which this is true.
fn page_where(port: u16, what: &str, is: impl Fn(&str) -> bool) -> String {
    let mut page = String::new();
    let found = within_deadline(|| {
        page = get(port, "/metrics").body;
        is(&page)
    });
    assert!(found, "{what} is never told:\n{page}");
    page
}

/// Whether a program is there; a test that needs one says that it is skipped, and passes.
fn is_installed(test: &str, program: &str, package: &str) -> bool {
    let found = Command::new(program).arg("--version").output();
    if found.is_err() {
        writeln!(std::io::stderr(), "SKIPPED: {test}: {program} is missing").expect("stderr is open");
        writeln!(std::io::stderr(), "remedy: apt-get install {package}").expect("stderr is open");
    }
    found.is_ok()
}

/// A program that runs beside the test, and ends with it.
struct Beside(Child);

impl Beside {
    fn start(command: &mut Command) -> Beside {
        Beside(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// ---- what is told ----

/// Of every metric on a page its type and the names of its labels.
fn families(page: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    let mut current = String::new();
    for line in page.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            current = name.to_owned();
            families.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&current), "{line} stands below {current}");
            let labels =
                line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |it| it.0);
            let names = labels.split("\",").filter_map(|label| Some(label.split_once("=\"")?.0.to_owned()));
            families.get_mut(&current).unwrap().1.extend(names.filter(|name| name != "le"));
        }
    }
    families
}

/// The same as `docs/metrics.md` has it.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = include_str!("../../docs/metrics.md");
    let quoted =
        |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", name, kind @ ("counter" | "gauge" | "histogram"), labels, _, ""] = cells[..] else {
            return None;
        };
        Some((name.trim_matches('`').to_owned(), (kind.to_owned(), quoted(labels).into_iter().collect())))
    });
    rows.collect()
}

/// A server that has done everything of which there are metrics.
fn experienced() -> (Server, u16, TempDir) {
    let backups = TempDir::with_prefix("kvlite-backups-").unwrap();
    let (server, port) = start(2, &["--backup-dir", backups.path().to_str().unwrap()]);
    let mut resp = server.resp();
    for command in [
        "MSET a 1 b 2 c 3 d 4",
        "GET a",
        "GET nope",
        "SETEX s 1000 v",
        "CONFIG GET port",
        "SAVE",
        "BACKUP first",
    ] {
        let answer = resp.ask(command).to_string();
        assert!(!answer.starts_with('-'), "{command}: {answer}");
    }
    assert!(resp.ask("INCR s").to_string().starts_with("-ERR"));
    (server, port, backups)
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_told() {
    let (_server, port, _backups) = experienced();
    let page = page_where(port, "the snapshot of each shard", |page| {
        sum(page, "kvlite_snapshots_total") == 2.0
            && page.contains("kvlite_commands_failed_total{command=\"incr\"} 1")
    });
    let (told, documented) = (families(&page), documented());
    for (name, what) in &told {
        assert_eq!(documented.get(name), Some(what), "{name} stands otherwise in docs/metrics.md");
    }
    for name in documented.keys() {
        assert!(told.contains_key(name), "docs/metrics.md has {name}, which no server tells:\n{page}");
    }
}

#[test]
fn the_kinds_of_errors_are_documented() {
    let (_server, port) = start(1, &[]);
    let page = page_where(port, "the kinds of errors", |page| page.contains("kvlite_errors_total{"));
    let told =
        page.lines().filter_map(|line| line.strip_prefix("kvlite_errors_total{kind=\"")?.split('"').next());
    let row = include_str!("../../docs/metrics.md")
        .lines()
        .find(|line| line.starts_with("| `kvlite_errors_total`"));
    let meaning = row.unwrap().split('|').nth(4).unwrap();
    assert_eq!(told.collect::<Vec<_>>(), meaning.split('`').skip(1).step_by(2).collect::<Vec<_>>());
}

#[test]
fn rules_and_dashboard_name_metrics_that_are_told_and_every_alert_is_documented() {
    let documented = documented();
    let is_told = |name: &str| {
        documented.contains_key(name)
            || ["_bucket", "_sum", "_count"].iter().any(|suffix| {
                let family = name.strip_suffix(suffix).and_then(|name| documented.get(name));
                family.is_some_and(|(kind, _)| kind == "histogram")
            })
    };
    let rules = include_str!("../../deploy/prometheus/alerts.yml");
    let texts = [rules, include_str!("../../deploy/prometheus/tests.yml")];
    let dashboard = include_str!("../../deploy/grafana/dashboards/kvlite.json");
    let mut count = 0;
    for text in texts.into_iter().chain([dashboard]) {
        for word in text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_') {
            if word.starts_with("kvlite_") || word.starts_with("process_") {
                assert!(is_told(word), "{word} is no metric of docs/metrics.md");
                count += 1;
            }
        }
    }
    assert!(count > 100, "only {count} names were found");
    let panels: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let queries = panels["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    assert!(queries.clone().all(|panel| !panel["targets"].as_array().unwrap().is_empty()));
    let docs = include_str!("../../docs/metrics.md");
    let names: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 10);
    for name in names {
        assert!(docs.contains(&format!("| `{name}` |")), "docs/metrics.md does not say what to do on {name}");
    }
}

#[test]
fn both_formats_are_what_their_readers_demand() {
    let (_server, port, _backups) = experienced();
    let plain = get(port, "/metrics");
    assert_eq!(plain.code, 200);
    assert!(plain.head.contains("content-type: text/plain; version=0.0.4"), "{}", plain.head);
    let open = request(port, "GET", "/metrics", OPEN_METRICS).unwrap();
    assert!(open.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", open.head);
    assert!(open.body.ends_with("\n# EOF\n"));
    assert!(open.body.contains("# TYPE kvlite_hits counter\n") && open.body.contains("\nkvlite_hits_total{"));
    if !is_installed("both_formats", "promtool", "prometheus") {
        return;
    }
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(plain.body.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.is_empty(), "promtool says: {said}");
}

#[test]
fn the_rules_do_what_they_are_tested_for() {
    if !is_installed("the_rules", "promtool", "prometheus") {
        return;
    }
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
    for args in [["check", "config", "prometheus.yml"], ["test", "rules", "tests.yml"]] {
        let ended = Command::new("promtool").args(args).current_dir(&place).output().unwrap();
        assert!(ended.status.success(), "{args:?}: {ended:?}");
    }
}

// ---- whether it is true ----

#[test]
fn what_clients_did_is_counted_exactly_once() {
    let (server, port) = start(3, &[]);
    let mut resp = server.resp();
    for key in 0..200 {
        assert_eq!(resp.ask(&format!("SET key:{key} {key}")).to_string(), "+OK");
        assert_eq!(resp.ask(&format!("GET key:{key}")).to_string(), format!("\"{key}\""));
    }
    assert_eq!(resp.ask("GET nope").to_string(), "nil");
    assert_eq!(resp.ask("MGET key:0 key:1 key:2 key:3").to_string(), "[\"0\", \"1\", \"2\", \"3\"]");
    for (request, error) in [
        ("GET", "-ERR wrong number"),
        ("SET word x EX nope", "-ERR"),
        ("NO-SUCH-COMMAND", "-ERR unknown command"),
        ("CONFIG NOPE", "-ERR unknown subcommand"),
        ("HELLO 9", "-NOPROTO"),
        ("MULTI", "+OK"),
        ("GET", "-ERR wrong number"),
        ("EXEC", "-EXECABORT"),
    ] {
        let answer = resp.ask(request).to_string();
        assert!(answer.starts_with(error), "{request}: {answer}");
    }
    assert_eq!(resp.ask("SET word x").to_string(), "+OK");
    for key in 0..20 {
        assert!(resp.ask("INCR word").to_string().starts_with("-ERR"), "{key}");
    }
    let mut stranger = server.resp();
    stranger.wire.send(b"*x\r\n");
    assert!(stranger.read().to_string().starts_with("-ERR Protocol error"));
    let counts = [
        ("kvlite_commands_total{command=\"set\"}", 202.0),
        ("kvlite_commands_total{command=\"get\"}", 203.0),
        ("kvlite_commands_total{command=\"config\"}", 1.0),
        ("kvlite_commands_total{command=\"mget\"}", 1.0),
        ("kvlite_commands_total{command=\"incr\"}", 20.0),
        ("kvlite_commands_rejected_total{command=\"get\"}", 2.0),
        ("kvlite_commands_rejected_total{command=\"config\"}", 1.0),
        ("kvlite_commands_failed_total{command=\"set\"}", 1.0),
        ("kvlite_commands_failed_total{command=\"incr\"}", 20.0),
        ("kvlite_commands_failed_total{command=\"hello\"}", 1.0),
        ("kvlite_errors_total{kind=\"ERR\"}", 26.0),
        ("kvlite_errors_total{kind=\"EXECABORT\"}", 1.0),
        ("kvlite_errors_total{kind=\"NOPROTO\"}", 1.0),
        ("kvlite_errors_total{kind=\"OOM\"}", 0.0),
    ];
    let page = page_where(port, "what the clients did", |page| {
        counts.iter().all(|(sample, count)| value(page, sample) == Some(*count))
    });
    assert_eq!(sum(&page, "kvlite_keys"), 201.0);
    assert_eq!(sum(&page, "kvlite_hits_total"), 204.0);
    assert_eq!(sum(&page, "kvlite_misses_total"), 1.0);
    assert!(!page.contains("NO-SUCH") && !page.to_lowercase().contains("no-such"), "{page}");
    // Of few calls each second all are measured; of those of a busier one some stand for others.
    let measured = value(&page, "kvlite_command_duration_seconds_count{command=\"mget\"}");
    assert_eq!(measured, Some(1.0), "an answer that several shards gave");
    let measured = value(&page, "kvlite_command_duration_seconds_count{command=\"get\"}").unwrap();
    assert!((8.0..=203.0).contains(&measured), "{measured}");
    let forwarded = sum(&page, "kvlite_forwarded_requests_total");
    assert!((100.0..400.0).contains(&forwarded), "{forwarded} of 200 keys twice, on 3 shards");
    assert!(sum(&page, "kvlite_batches_total") >= forwarded / 16.0);
    assert!(sum(&page, "kvlite_received_bytes_total") > 10_000.0);
    assert!(sum(&page, "kvlite_sent_bytes_total") > 1_000.0);
    assert!(sum(&page, "kvlite_turn_duration_seconds_count") > 100.0);

    let mut info = |request: &str| String::from_utf8_lossy(resp.ask(request).bytes()).into_owned();
    let stats = info("INFO commandstats errorstats stats");
    for line in ["cmdstat_get:calls=203,usec=", "cmdstat_incr:calls=20,usec=", "errorstat_NOPROTO:count=1"] {
        assert!(stats.contains(line), "{line} is missing: {stats}");
    }
    let get = stats.split("cmdstat_get:").nth(1).unwrap().lines().next().unwrap();
    assert!(get.contains(",rejected_calls=2,failed_calls=0"), "{get}");
    assert!(stats.contains("errorstat_ERR:count=26") && stats.contains("total_error_replies:28"), "{stats}");
    assert!(!info("INFO").contains("cmdstat_"), "as in Redis, only for those who ask");
    assert!(info("INFO all").contains("cmdstat_get:"));
}

#[test]
fn scrapes_under_load_never_go_back_and_end_at_what_was_done() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 300;
    const PIPELINE: usize = 16;
    let (server, port) = start(2, &[]);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let work = |client: usize| {
            let mut resp = server.resp();
            for round in 0..ROUNDS {
                for step in 0..PIPELINE {
                    let line = format!("SET key:{client}:{} {round}\r\n", step * 7 % 5);
                    resp.wire.send(line.as_bytes());
                }
                for _ in 0..PIPELINE {
                    assert_eq!(resp.read().to_string(), "+OK");
                }
            }
        };
        let scrapes = scope.spawn(|| {
            let mut last = 0.0;
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                let page = get(port, "/metrics").body;
                let now = sum(&page, "kvlite_requests_total");
                assert!(now >= last, "{now} requests after {last}");
                (last, count) = (now, count + 1);
            }
            count
        });
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || work(client))).collect();
        let ended: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(ended.into_iter().all(|ended| ended.is_ok()));
        assert!(scrapes.join().unwrap() > 0);
    });
    let done = (CLIENTS * ROUNDS * PIPELINE) as f64;
    let page = page_where(port, "all that was done", |page| {
        value(page, "kvlite_commands_total{command=\"set\"}") == Some(done)
    });
    assert_eq!(sum(&page, "kvlite_writes_total"), done);
    let measured = value(&page, "kvlite_command_duration_seconds_count{command=\"set\"}").unwrap();
    // A measured call stands for those before it; of each shard up to the last gap may be left.
    assert!(
        measured <= done && measured >= done - 2.0 * 128.0 - (CLIENTS * 128) as f64,
        "{measured} of {done}"
    );
}

// ---- how it is asked ----

#[test]
fn other_paths_and_methods_are_refused_with_what_there_is() {
    let (server, port) = start(1, &[]);
    let answer = get(port, "/nothing");
    assert_eq!(answer.code, 404);
    for path in ["/metrics", "/livez", "/readyz", "/healthz"] {
        assert!(answer.body.contains(path), "{}", answer.body);
        let found = get(port, path);
        assert_eq!(found.code, 200, "{path}: {found:?}");
        assert!(found.head.contains("cache-control: no-store"), "{}", found.head);
        let head = request(port, "HEAD", path, "").unwrap();
        assert_eq!((head.code, head.body.as_str()), (200, ""), "{path}");
        assert!(
            head.head.contains("content-length: ") && !head.head.contains("content-length: 0"),
            "{head:?}"
        );
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let refused = request(port, method, path, "Content-Length: 0\r\n").unwrap();
            assert_eq!(refused.code, 405, "{method} {path}");
            assert!(refused.head.contains("allow: get, head"), "{}", refused.head);
        }
    }
    let health = get(port, "/readyz").body;
    let told: serde_json::Value = serde_json::from_str(&health).unwrap();
    assert_eq!(told["status"], "healthy", "{health}");
    assert_eq!(get(port, "/metrics?name=x").code, 200);
    // A head past the bound is refused or cut off, whatever it says.
    let long = format!("X-Long: {}\r\n", "x".repeat(1 << 20));
    let answer = request(port, "GET", "/metrics", &long);
    assert!(answer.is_err() || answer.is_ok_and(|it| it.code == 431), "a head of a megabyte is taken");
    for noise in
        [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"PING\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
    {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let _ = stream.write_all(noise);
    }
    assert_eq!(get(port, "/livez").code, 200);
    assert_eq!(server.text().ask_one("CONFIG GET admin-port"), port.to_string());
}

#[test]
fn an_admin_port_that_is_taken_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let server = Server::stopped(None, &[]);
    let mut rival = server.rival();
    rival.args(["--admin-port", &port]);
    let ended = run_to_end(rival);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(
        ended.output.contains(&port) && ended.output.contains("choose another with --admin-port"),
        "{ended:?}"
    );
}

#[test]
fn a_thousand_stalled_connections_hold_up_neither_scrapes_nor_clients() {
    const STALLED: usize = 1000;
    let (server, port) = start(2, &[]);
    let mut resp = server.resp();
    assert_eq!(resp.ask("SET key value").to_string(), "+OK");
    let open_files = || fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count();
    let before = open_files();
    let stall = |number: usize| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let sent: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /metrics HTTP/1.1\r\nHost: loc",
            _ => b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", // And the answer is not read.
        };
        let _ = stream.write_all(sent); // It may have been replaced already.
        stream
    };
    let mut stalled = Vec::with_capacity(STALLED);
    for number in 0..STALLED {
        stalled.push(stall(number));
        if number % 50 == 0 {
            assert_eq!(resp.ask("GET key").to_string(), "\"value\"");
            assert_eq!(get(port, "/readyz").code, 200);
            assert!(get(port, "/metrics").body.contains("kvlite_ready 1\n"));
        }
    }
    for _ in 0..100 {
        assert_eq!(resp.ask("GET key").to_string(), "\"value\"");
    }
    assert!(get(port, "/metrics").body.contains("kvlite_ready 1\n"));
    assert!(within_deadline(|| open_files() <= before + 64 + 8), "{} files are open", open_files());
    drop(stalled);
}

/// A connection to a port of this machine, from another address of it.
fn connect_from(address: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Closed, it is gone: its port is free for the next one.
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    rustix::net::bind(&socket, &SocketAddrV4::new(address, 0))?;
    rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    Ok(TcpStream::from(socket))
}

#[test]
fn a_scrape_gets_through_however_many_connect_from_elsewhere() {
    /// More than there may be, and fewer than may wait to be accepted.
    const CONNECTIONS: usize = 60;
    const FLOODING: usize = 4;
    const SCRAPES: usize = 20;
    let (_server, port) = start(1, &[]);
    let (is_over, connected) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..FLOODING {
            scope.spawn(|| {
                let mut open: VecDeque<TcpStream> = VecDeque::new();
                while !is_over.load(Ordering::Relaxed) {
                    open.push_back(connect_from(Ipv4Addr::new(127, 0, 0, 2), port).unwrap());
                    connected.fetch_add(1, Ordering::Relaxed);
                    if open.len() == CONNECTIONS {
                        // Soon another one takes its place. So no more than are open wait to be accepted.
                        let mut oldest = open.pop_front().unwrap();
                        oldest.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                        let _ = oldest.read(&mut [0]);
                    }
                }
            });
        }
        let scraped: Vec<std::io::Result<u16>> = (0..SCRAPES)
            .map(|_| {
                let before = connected.load(Ordering::Relaxed);
                assert!(within_deadline(|| connected.load(Ordering::Relaxed) > before + 2 * CONNECTIONS));
                request(port, "GET", "/metrics", "").map(|answer| answer.code)
            })
            .collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(scraped.iter().all(|code| matches!(code, Ok(200))), "{scraped:?}");
    });
}

#[test]
fn the_thread_of_the_admin_port_stands_back_behind_the_workers() {
    let (server, port) = start(1, &[]);
    assert_eq!(get(port, "/livez").code, 200);
    let niceness = |stat: &str| {
        stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse::<i32>().unwrap()
    };
    let process = format!("/proc/{}", server.id());
    let threads = fs::read_dir(format!("{process}/task")).unwrap();
    let mut stats = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")).unwrap());
    let admin = stats.find(|stat| stat.contains("(kvlite-admin)")).unwrap();
    assert!(niceness(&admin) > niceness(&fs::read_to_string(format!("{process}/stat")).unwrap()));
}

#[test]
fn the_admin_port_may_listen_at_an_address_of_its_own() {
    let (server, port) = start(1, &["--admin-host", "127.0.0.3"]);
    assert!(TcpStream::connect((Ipv4Addr::new(127, 0, 0, 3), port)).is_ok());
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(), "it listens where clients do as well");
    assert_eq!(server.text().ask_one("CONFIG GET admin-host"), "127.0.0.3");
}

// ---- the programs that read it ----

#[test]
fn prometheus_scrapes_it() {
    if !is_installed("prometheus_scrapes_it", "prometheus", "prometheus") {
        return;
    }
    let (server, port) = start(2, &[]);
    let mut resp = server.resp();
    for key in 0..25 {
        assert_eq!(resp.ask(&format!("SET key:{key} v")).to_string(), "+OK");
    }
    let directory = TempDir::with_prefix("kvlite-prometheus-").unwrap();
    let config = directory.path().join("prometheus.yml");
    let shipped = include_str!("../../deploy/prometheus/prometheus.yml");
    let adapted = shipped.replace("kvlite:9121", &format!("127.0.0.1:{port}")).replace("15s", "1s");
    assert!(adapted.contains(&format!("127.0.0.1:{port}")));
    fs::write(&config, adapted).unwrap();
    fs::write(directory.path().join("alerts.yml"), include_str!("../../deploy/prometheus/alerts.yml"))
        .unwrap();
    let web = free_port();
    let _prometheus = Beside::start(
        Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{web}")),
    );
    let asked = |path: &str| request(web, "GET", path, "").map(|it| it.body).unwrap_or_default();
    let mut answer = String::new();
    let is_up = within_deadline(|| {
        answer = asked("/api/v1/targets");
        answer.contains("\"health\":\"up\"")
    });
    assert!(is_up, "prometheus does not see the server: {answer}");
    let is_known = within_deadline(|| {
        answer = asked("/api/v1/query?query=sum(kvlite_keys)");
        answer.contains("\"25\"")
    });
    assert!(is_known, "prometheus does not know the number of keys: {answer}");
    let rules = asked("/api/v1/rules");
    assert!(rules.contains("KvliteWritesRefused") && !rules.contains("\"health\":\"err\""), "{rules}");
}

#[test]
fn the_exporter_of_redis_reads_the_resp_port() {
    const EXPORTER: &str = "prometheus-redis-exporter";
    if !is_installed("the_exporter_of_redis", EXPORTER, EXPORTER) {
        return;
    }
    let server = Server::start(2, &[]);
    let mut resp = server.resp();
    for key in 0..25 {
        assert_eq!(resp.ask(&format!("SET key:{key} v")).to_string(), "+OK");
    }
    let web = free_port();
    let _exporter = Beside::start(
        Command::new(EXPORTER)
            .arg(format!("--redis.addr=redis://127.0.0.1:{}", server.resp_port))
            .arg(format!("--web.listen-address=127.0.0.1:{web}")),
    );
    let mut page = String::new();
    let is_up = within_deadline(|| {
        page = request(web, "GET", "/metrics", "").map(|it| it.body).unwrap_or_default();
        value(&page, "redis_up") == Some(1.0)
    });
    assert!(is_up, "the exporter does not see the server: {page}");
    assert_eq!(value(&page, "redis_db_keys{db=\"db0\"}"), Some(25.0), "{page}");
    assert_eq!(value(&page, "redis_commands_total{cmd=\"set\"}"), Some(25.0), "{page}");
    assert!(
        value(&page, "redis_commands_duration_seconds_total{cmd=\"set\"}").is_some_and(|s| s > 0.0),
        "{page}"
    );
    assert!(value(&page, "redis_net_input_bytes_total").is_some_and(|bytes| bytes > 500.0), "{page}");
    assert_eq!(value(&page, "redis_exporter_last_scrape_error{err=\"\"}"), Some(0.0), "{page}");
}
