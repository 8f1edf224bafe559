//! What one turn does at most, turn by turn on this thread. Nothing here waits for time to pass.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use shard::{Reply, Request, Span};

use super::{ShardFiles, Worker};
use crate::client::Stage;
use crate::config::Config;
use crate::mesh::{AcceptedSocket, Mesh};
use crate::net::listener::Endpoint;
use crate::net::{Backend, Net};
use crate::recovery;
use crate::shared::Shared;

const COMMANDS_PER_TURN: u64 = 256;
const KEYS_PER_TURN: usize = 512;
const LARGE_BYTES_PER_TURN: usize = 128 << 10;

/// After so many turns a test gives up.
const TURNS_MAX: usize = 10_000;

/// Runs a test with a worker that has one shard, an empty one, and takes a turn when the test says so.
pub(super) fn with_worker(test: impl FnOnce(&mut Worker)) {
    with_worker_of(&[], test);
}

/// As [`with_worker`], with these flags.
fn with_worker_of(flags: &[&str], test: impl FnOnce(&mut Worker)) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let args = ["kvlite", "--wal-path", path, "--shards", "1"].into_iter().chain(flags.iter().copied());
    let config = Config::parse_from_args(args, vec![0]).unwrap();
    let backend = Backend::of_test();
    let work = async {
        let found = recovery::lock(&config).unwrap();
        let shared = Arc::new(Shared::new(config, backend, None, Instant::now(), found.loading()));
        let (sender, data) = mpsc::channel();
        sender.send(found.prepare(&shared.loading).unwrap().shard(0)).unwrap();
        let (net, mut mesh) = (Net::new(backend).unwrap(), Mesh::connect_all(1, 64).remove(0));
        mesh.connect(&[net.doorbell()]);
        shared.loading.open_logs();
        let files = ShardFiles { data, read: mpsc::channel().0 };
        let mut worker = Worker::new(0, shared, net, mesh, files).unwrap();
        worker.go_on_loading().unwrap();
        assert!(!worker.lifecycle.is_loading());
        test(&mut worker);
    };
    if backend == Backend::Epoll {
        return futures_lite::future::block_on(work);
    }
    let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound).io_memory(64 * 1024);
    executor.make().unwrap().run(work);
}

/// The other end of a connection of the worker's.
struct Client(UnixStream);

impl Client {
    fn connect(worker: &mut Worker) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        worker.shared.connections.add();
        worker.welcome(AcceptedSocket { socket: theirs.into(), endpoint: Endpoint::Unix, client_id: 1 });
        worker.turn().unwrap();
        Client(ours)
    }

    fn send(&mut self, requests: &str) {
        self.0.write_all(requests.as_bytes()).expect("the socket takes that much");
    }

    /// What has arrived.
    fn received(&mut self) -> String {
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            match self.0.read(&mut piece) {
                Ok(0) => panic!("the worker has closed the connection"),
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return String::from_utf8(bytes).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Takes turns until `is_over`, which looks at the worker after each.
fn turns(worker: &mut Worker, mut is_over: impl FnMut(&mut Worker) -> bool) {
    for _ in 0..TURNS_MAX {
        worker.turn().unwrap();
        if is_over(worker) {
            return;
        }
    }
    panic!("not over after {TURNS_MAX} turns");
}

/// Commands that are sent at once, of `bytes` each, together less than what a socket takes without being read.
fn pipeline(count: usize, bytes: usize) -> String {
    (0..count).map(|number| format!("SET {number:06} {:v<1$}\r\n", "", bytes - 13)).collect()
}

#[test]
fn a_turn_runs_a_bounded_part_of_a_pipeline_however_it_arrives() {
    // The first fill the chunks in which they arrive with more than a turn takes, the second with less.
    for (count, bytes) in [(5000, 20), (1000, 100)] {
        with_worker(|worker| {
            let mut client = Client::connect(worker);
            client.send(&pipeline(count, bytes));
            let (mut before, mut largest, mut replies) = (0, 0, 0);
            turns(worker, |worker| {
                largest = largest.max(worker.traffic.requests - before);
                before = worker.traffic.requests;
                replies += client.received().lines().count();
                replies == count
            });
            assert_eq!(largest, COMMANDS_PER_TURN, "{count} commands of {bytes} bytes");
            assert_eq!(worker.runtime.key_count(), count);
        });
    }
}

#[test]
fn clients_with_much_to_do_take_turns_when_time_is_short() {
    with_worker(|worker| {
        let mut clients = [Client::connect(worker), Client::connect(worker), Client::connect(worker)];
        clients.iter_mut().for_each(|client| client.send(&pipeline(2000, 20)));
        turns(worker, |worker| worker.clients.backlog_len() == clients.len());
        let is_over = Some(Instant::now());
        let mut served = Vec::new();
        for _ in 0..2 * clients.len() {
            worker.clock.begin_turn();
            let before = worker.traffic.requests;
            assert!(worker.serve_backlog(is_over));
            assert_eq!(worker.traffic.requests - before, 16, "a few of one of them");
            served.push(worker.clients.last_in_backlog());
        }
        let (first, second) = served.split_at(clients.len());
        assert!(first[0] != first[1] && first[1] != first[2] && first[2] != first[0]);
        assert_eq!(first, second);
        let mut replies = 0;
        turns(worker, |_| {
            replies += clients.iter_mut().map(|client| client.received().lines().count()).sum::<usize>();
            replies == 3 * 2000
        });
    });
}

#[test]
fn a_turn_visits_a_bounded_part_of_the_keys_and_serves_others_meanwhile() {
    const KEYS: usize = 5000;
    with_worker(|worker| {
        let mut clients = [Client::connect(worker), Client::connect(worker)];
        let mut other = Client::connect(worker);
        clients[0].send(&pipeline(KEYS, 20));
        turns(worker, |worker| worker.runtime.key_count() == KEYS);
        turns(worker, |_| clients[0].received().is_empty());
        clients.iter_mut().for_each(|client| client.send("KEYS *\r\n"));
        turns(worker, |worker| worker.runtime.walks().0 == 2);
        let mut found = ["", ""].map(str::to_owned);
        let (mut turns_taken, mut pongs) = (1, 0);
        let visited = |worker: &Worker| worker.runtime.walks().1;
        while found.iter().any(|found| found.lines().count() < 1 + 2 * KEYS) {
            let before = visited(worker);
            other.send("PING\r\n");
            worker.turn().unwrap();
            assert!(visited(worker) <= before + KEYS_PER_TURN);
            for (client, found) in clients.iter_mut().zip(&mut found) {
                found.push_str(&client.received());
            }
            pongs += other.received().lines().count();
            turns_taken += 1;
            assert!(turns_taken < TURNS_MAX);
        }
        assert!(turns_taken > 2 * KEYS / KEYS_PER_TURN, "all in {turns_taken} turns");
        assert!(pongs + 3 > turns_taken, "a reply with each turn, not {pongs} with {turns_taken}");
        assert!(found.iter().all(|found| found.starts_with("*5000\r\n")));
    });
}

#[test]
fn a_turn_receives_a_bounded_part_of_a_large_request_and_serves_others_meanwhile() {
    const BYTES: usize = 3 << 20; // Not so many that the value is written ahead.
    let request = format!("*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n${BYTES}\r\n{}\r\n", "v".repeat(BYTES));
    for is_alone in [true, false] {
        with_worker(|worker| {
            let (mut client, mut other) = (Client::connect(worker), Client::connect(worker));
            rustix::net::sockopt::set_socket_send_buffer_size(&client.0, 4 * LARGE_BYTES_PER_TURN).unwrap();
            let (mut sent, mut pongs, mut turns_taken) = (0, 0, 0);
            while client.received().is_empty() {
                // Each turn finds as much as the socket takes, which is more than a turn should take from it.
                match client.0.write(&request.as_bytes()[sent..]) {
                    Ok(count) => sent += count,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                if !is_alone {
                    other.send("PING\r\n");
                }
                let goes_on = worker.turn().unwrap() || worker.net.ready();
                assert!(goes_on, "a worker that sleeps now receives nothing more");
                pongs += other.received().lines().count();
                turns_taken += 1;
                assert!(turns_taken < TURNS_MAX);
            }
            // The last bytes that the kernel delivered, half a megabyte at most, have the request run at once.
            assert!(
                turns_taken >= (BYTES - (512 << 10)) / LARGE_BYTES_PER_TURN,
                "all in {turns_taken} turns"
            );
            assert!(is_alone || pongs + 3 > turns_taken, "{pongs} replies with {turns_taken} turns");
            assert_eq!(worker.runtime.key_count(), 1);
        });
    }
}

/// Takes turns until the worker has received all of this.
fn send_all(worker: &mut Worker, client: &mut Client, request: &[u8]) {
    let mut sent = 0;
    turns(worker, |_| {
        match client.0.write(&request[sent..]) {
            Ok(count) => sent += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        sent == request.len()
    });
}

#[test]
fn what_a_client_asked_for_ends_with_it() {
    const KEYS: usize = 20_000;
    const VALUE_BYTES: usize = 64 << 20;
    let value = "v".repeat(VALUE_BYTES);
    let set = format!("*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n${VALUE_BYTES}\r\n{value}\r\n");
    type UnderWay = fn(&Worker) -> usize;
    let requests: [(&str, UnderWay); 4] = [
        ("KEYS *\r\n", |worker| worker.runtime.walks().0),
        ("SCAN 0 COUNT 4000\r\n", |worker| worker.runtime.walks().0),
        ("COLDKEYS 0\r\n", |worker| worker.runtime.query_count()),
        (&set, |worker| worker.runtime.staging_count()),
    ];
    for (request, under_way) in requests {
        let name = &request[..request.len().min(20)];
        with_worker_of(&["--enable-analytics"], |worker| {
            let mut filler = Client::connect(worker);
            send_all(worker, &mut filler, pipeline(KEYS, 20).as_bytes());
            turns(worker, |worker| worker.runtime.key_count() == KEYS);
            let mut client = Client::connect(worker);
            // A reply that was not read makes the end of the connection a reset.
            client.send("PING\r\n");
            turns(worker, |worker| worker.traffic.requests > KEYS as u64);
            send_all(worker, &mut client, request.as_bytes());
            turns(worker, |worker| under_way(worker) == 1);
            drop(client);
            let clients = |worker: &Worker| worker.clients.iter().count();
            let mut turns_taken = 0;
            turns(worker, |worker| {
                turns_taken += 1;
                clients(worker) == 1
            });
            assert_eq!(under_way(worker), 0, "{name}");
            assert!(turns_taken < 10, "{name} ended after {turns_taken} turns");
            assert_eq!(worker.runtime.key_count(), KEYS, "{name}");
        });
    }
}

#[test]
fn a_turn_looks_at_a_bounded_part_of_a_long_list_of_names_and_no_client_is_owed_many_replies() {
    const NAMES: usize = 30_000;
    for (command, reply_bytes_min) in [("COMMAND INFO", 50 * NAMES), ("COMMAND DOCS", 50), ("CONFIG GET", 20)]
    {
        let (command, subcommand) = command.split_once(' ').unwrap();
        let name = if command == "CONFIG" { "port" } else { "get" };
        let mut request = format!("*{}\r\n${}\r\n{command}\r\n", NAMES + 2, command.len());
        request += &format!("${}\r\n{subcommand}\r\n", subcommand.len());
        request += &format!("${}\r\n{name}\r\n", name.len()).repeat(NAMES);
        with_worker(|worker| {
            let (mut client, mut other) = (Client::connect(worker), Client::connect(worker));
            send_all(worker, &mut client, request.as_bytes());
            let owed = |worker: &Worker| {
                let clients = worker.clients.iter().map(|connection| &connection.client);
                clients.map(|client| client.replies.size_bytes()).max().unwrap()
            };
            // Nothing is read: what is owed to the client stays bounded, however long that takes.
            let is_busy = |worker: &Worker| worker.clients.iter().any(|it| it.client.job.is_some());
            let (mut turns_taken, mut pongs) = (0, 0);
            let mut received = 0;
            while turns_taken < 3 * NAMES / 256 || is_busy(worker) {
                other.send("PING\r\n");
                worker.turn().unwrap();
                assert!(owed(worker) < 2 << 20, "{command} {subcommand}");
                pongs += other.received().lines().count();
                turns_taken += 1;
                if turns_taken > 2 * NAMES / 256 {
                    received += client.received().len();
                }
                assert!(turns_taken < TURNS_MAX);
            }
            turns(worker, |_| {
                received += client.received().len();
                received >= reply_bytes_min
            });
            assert!(pongs + 3 > turns_taken, "{pongs} replies with {turns_taken} turns");
            client.send("PING\r\n");
            let mut last = String::new();
            turns(worker, |_| {
                last += &client.received();
                last.ends_with("+PONG\r\n")
            });
        });
    }
}

/// Runs a command of the worker's own, in the middle of what its clients asked for.
fn execute(worker: &mut Worker, words: &[&str]) -> Reply<'static> {
    let command = shard::command::find(words[0].as_bytes()).expect("a command");
    let mut start = 0;
    let args: Vec<_> = (words.iter())
        .map(|word| {
            let span = Span { start, len: word.len() as u32 };
            start += span.len;
            span
        })
        .collect();
    let concatenated = words.concat();
    let request = Request::new(command, concatenated.as_bytes(), &args[1..]);
    let (runtime, turn) = worker.runtime_and_turn();
    runtime.execute_part(&request, turn.now, turn.mesh).0
}

/// A request over RESP.
fn request<'a>(words: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = words.len();
    words.fold(format!("*{count}\r\n"), |text, word| format!("{text}${}\r\n{word}\r\n", word.len()))
}

/// Which key changes while very many are being read.
#[derive(Clone, Copy, PartialEq)]
enum Changed {
    Read,
    Unread,
}

#[test]
fn a_turn_reads_a_bounded_part_of_very_many_keys_and_all_as_of_one_moment() {
    const KEYS: usize = 20_000;
    let keys: Vec<_> = (0..KEYS).map(|number| format!("{number:06}")).collect();
    for command in ["MGET", "EXISTS"] {
        for changed in [None, Some(Changed::Read), Some(Changed::Unread)] {
            let words: Vec<_> = [command].into_iter().chain(keys.iter().map(String::as_str)).collect();
            let long_read = request(words.into_iter()) + "PING\r\n";
            with_worker(|worker| {
                let (mut client, mut other) = (Client::connect(worker), Client::connect(worker));
                send_all(worker, &mut other, pipeline(KEYS, 20).as_bytes());
                turns(worker, |worker| worker.runtime.key_count() == KEYS);
                send_all(worker, &mut client, long_read.as_bytes());
                turns(worker, |worker| worker.runtime.long_reads(b"").0 == 1);
                // Of the first key, the old value was read; one of the last is read behind the change. Keys are known
                // by hashes, and one that shares its hash with a key that was read would count as read.
                let is_unread = |key: &&String| worker.runtime.long_reads(key.as_bytes()).1 == 0;
                let key = match changed {
                    None => None,
                    Some(Changed::Read) => keys.first(),
                    Some(Changed::Unread) => keys.iter().rev().find(is_unread),
                };
                if let Some(key) = key {
                    assert_eq!(execute(worker, &["DEL", key]), Reply::Integer(1));
                }
                let (mut received, mut turns_taken) = (String::new(), 0);
                turns(worker, |_| {
                    turns_taken += 1;
                    received += &client.received();
                    received.ends_with("+PONG\r\n")
                });
                let found = if changed == Some(Changed::Unread) { KEYS - 1 } else { KEYS };
                match command {
                    "EXISTS" => assert_eq!(received, format!(":{found}\r\n+PONG\r\n")),
                    _ => {
                        assert!(received.starts_with(&format!("*{KEYS}\r\n")));
                        let values = received.lines().filter(|line| line.starts_with("vv")).count();
                        assert_eq!((values, received.matches("$-1").count()), (found, KEYS - found));
                    }
                }
                let ends_early = changed == Some(Changed::Read);
                assert_eq!(turns_taken < KEYS / 512, ends_early, "{turns_taken} turns");
            });
        }
    }
}

#[test]
fn a_change_of_what_was_read_ends_reads_with_very_many_keys_left_with_an_error() {
    const READERS: usize = 3;
    const KEYS: usize = 50_000; // All of one read can be read in a turn, and not of two.
    let long_read = format!("*{}\r\n$6\r\nEXISTS\r\n", KEYS + 1) + &"$0\r\n\r\n".repeat(KEYS);
    with_worker(|worker| {
        let mut readers: Vec<_> = (0..READERS).map(|_| Client::connect(worker)).collect();
        for reader in &mut readers {
            send_all(worker, reader, long_read.as_bytes());
        }
        turns(worker, |worker| worker.runtime.long_reads(b"").1 == READERS);
        assert_eq!(execute(worker, &["SET", "other", "1"]), Reply::Ok);
        assert_eq!(worker.runtime.long_reads(b"").0, READERS, "another key is no matter");
        assert_eq!(execute(worker, &["SET", "", "v"]), Reply::Ok);
        assert_eq!(worker.runtime.long_reads(b"").0, 0, "they have come to their end before");
        let mut received = [const { String::new() }; READERS];
        turns(worker, |_| {
            readers
                .iter_mut()
                .zip(&mut received)
                .for_each(|(reader, received)| *received += &reader.received());
            received.iter().all(|received| received.ends_with('\n'))
        });
        let error = "-ERR a key changed while very many were read: ask for fewer at a time\r\n";
        assert_eq!(received.iter().filter(|received| *received == ":0\r\n").count(), 1, "{received:?}");
        assert_eq!(
            received.iter().filter(|received| *received == error).count(),
            READERS - 1,
            "{received:?}"
        );
    });
}

#[test]
fn a_client_in_the_middle_of_a_request_is_let_go_after_time_in_which_it_could_have_gone_on() {
    with_worker(|worker| {
        let mut client = Client::connect(worker);
        client.send("*1\r\n");
        worker.turn().unwrap();
        let look = |worker: &mut Worker, passed_ms: u64| {
            worker.clock.pass(passed_ms);
            worker.look_for_stuck_clients();
            worker.clients.iter().next().unwrap().client.stage
        };
        look(worker, 1000);
        assert_eq!(look(worker, 100_000), Stage::Open, "the process was not run");
        for second in 1..60 {
            assert_eq!(look(worker, 1000), Stage::Open, "{second} seconds of 60");
        }
        assert_eq!(look(worker, 1000), Stage::Closing);
    });
}

#[test]
fn a_client_on_the_unix_socket_that_takes_one_large_reply_slowly_is_not_let_go() {
    const VALUE_BYTES: usize = 3 << 20;
    const TAKEN_BYTES: usize = 512 << 10;
    with_worker_of(&["--request-timeout", "3s"], |worker| {
        let mut client = Client::connect(worker);
        let set = request(["SET", "big", &"v".repeat(VALUE_BYTES)].into_iter());
        send_all(worker, &mut client, set.as_bytes());
        turns(worker, |_| client.received() == "+OK\r\n");
        client.send(&"GET big\r\n".repeat(10));
        turns(worker, |worker| worker.clients.iter().all(|connection| connection.client.is_in_backlog));
        worker.clock.pass(0); // No looks but these.
        let look = |worker: &mut Worker| {
            worker.clock.pass(1000);
            worker.look_for_stuck_clients();
            worker.clients.iter().next().unwrap().client.stage
        };
        let mut piece = vec![0; TAKEN_BYTES];
        for second in 1..VALUE_BYTES / TAKEN_BYTES {
            let mut taken = 0;
            turns(worker, |_| {
                taken += client.0.read(&mut piece[taken..]).unwrap_or(0);
                taken == TAKEN_BYTES
            });
            assert_eq!(look(worker), Stage::Open, "{second} seconds of 3");
        }
        let stages: Vec<_> = (0..5).map(|_| look(worker)).collect();
        assert!(matches!(stages[4], Stage::Lingering { .. }), "it has taken nothing for long: {stages:?}");
    });
}
