//! What many clients saw of a few keys on different shards, through kills and restarts, is what one client after the
//! other would have seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::client::{Resp, Value, encoded, is_closed};
use crate::order::{self, Key, Operation, Request};
use crate::process::{Server, within_deadline};
use crate::random::Random;
use crate::rounds::{self, SHARD_COUNTS, SYNC_MODES};
use crate::slots::spread_tags;

const CLIENT_COUNT: usize = 8;
const KEY_COUNT: usize = 4;

/// Operations of each client in one history.
const OPERATIONS_EACH: u64 = 40;

/// Histories of one server. The server is killed during every second one.
const HISTORY_COUNT: usize = 12;

#[test]
fn histories_through_kills_are_linearizable() {
    rounds::run("histories", |random| {
        let (shards, mode) = (random.one_of(&SHARD_COUNTS[1..]), random.one_of(&SYNC_MODES));
        // Compaction is under way too.
        let flags = ["--wal-segment-size", "65536", "--max-wal-entries", "200", "--compact-interval", "10ms"];
        let mut server = Server::stopped(None, &flags);
        server.set_flag("--sync-mode", mode);
        println!("  {shards} shards, --sync-mode {mode}");
        server.restart(shards);
        for index in 0..HISTORY_COUNT {
            let total = CLIENT_COUNT as u64 * OPERATIONS_EACH;
            let killed_at = (index % 2 == 1).then(|| random.below(total));
            let history = record(&mut server, shards, index, killed_at, random);
            if let Err(report) = order::check(&history, KEY_COUNT) {
                panic!(
                    "history {index}, {shards} shards, --sync-mode {mode}, killed at {killed_at:?}: {report}"
                );
            }
        }
    });
}

/// The history of one set of keys, through a kill when so many operations were answered.
fn record(
    server: &mut Server,
    shards: usize,
    index: usize,
    killed_at: Option<u64>,
    random: &mut Random,
) -> Vec<Operation> {
    let tags = spread_tags();
    let keys = [0, 2, 5, 7].map(|tag| format!("history:{index}:{}", tags[tag]));
    let clock = Arc::new(AtomicU64::new(1));
    let answered = Arc::new(AtomicU64::new(0));
    let mut clients: Vec<Client> = (0..CLIENT_COUNT)
        .map(|client| Client {
            index: client,
            keys: keys.clone(),
            clock: clock.clone(),
            answered: answered.clone(),
            random: random.fork(),
            left: OPERATIONS_EACH,
            history: Vec::new(),
        })
        .collect();
    let mut history = Vec::new();
    if let Some(count) = killed_at {
        let threads = start(server, clients);
        let reached = within_deadline(|| answered.load(Ordering::SeqCst) >= count);
        assert!(reached, "the clients are not answered\n{}", server.log.tail());
        server.kill9();
        clients = join(threads);
        server.restart(shards);
        let over = clock.fetch_add(1, Ordering::SeqCst);
        let operations = clients.iter_mut().flat_map(|client| &mut client.history);
        let cut_short = operations.filter(|operation| operation.reply.is_none());
        cut_short.for_each(|operation| operation.returned = over);
        history.push(read_all(server, &keys, &clock));
    }
    let clients = join(start(server, clients));
    history.extend(clients.into_iter().flat_map(|client| client.history));
    history.push(read_all(server, &keys, &clock));
    history
}

fn read_all(server: &Server, keys: &[String; KEY_COUNT], clock: &AtomicU64) -> Operation {
    let invoked = clock.fetch_add(1, Ordering::SeqCst);
    let request = Request::Mget((0..KEY_COUNT).collect());
    let reply = Some(server.resp().ask_bytes(&arguments(&request, keys)));
    let returned = clock.fetch_add(1, Ordering::SeqCst);
    Operation { client: CLIENT_COUNT, request, reply, invoked, returned }
}

fn start(server: &Server, clients: Vec<Client>) -> Vec<JoinHandle<Client>> {
    let start = |mut client: Client| {
        let resp = server.resp();
        thread::spawn(move || {
            client.work(resp);
            client
        })
    };
    clients.into_iter().map(start).collect()
}

fn join(threads: Vec<JoinHandle<Client>>) -> Vec<Client> {
    let joined = threads.into_iter().map(JoinHandle::join);
    joined.map(|client| client.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
}

struct Client {
    index: usize,
    keys: [String; KEY_COUNT],
    /// Shared by all clients. What one reads before it sends is above what others read when a reply had come.
    clock: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
    random: Random,
    left: u64,
    history: Vec<Operation>,
}

impl Client {
    /// One request after the other, until none is left or the connection ends.
    fn work(&mut self, mut resp: Resp) {
        while self.left > 0 {
            self.left -= 1;
            let invoked = self.clock.fetch_add(1, Ordering::SeqCst);
            let mut request = any_request(&mut self.random, invoked);
            if let Request::Exec(Some((key, seen)), _) = &mut request {
                let commands = [vec![b"WATCH".to_vec(), self.keys[*key].clone().into_bytes()]];
                let watched = send(&mut resp, &commands).and_then(|()| resp.try_read());
                let get = Request::Get(*key);
                match watched.and_then(|_| ask(&mut resp, &get, &self.keys)) {
                    Ok(value) => *seen = value,
                    Err(error) if is_closed(&error) => return,
                    Err(error) => panic!("WATCH and GET are not answered: {error}"),
                }
                let returned = self.clock.fetch_add(1, Ordering::SeqCst);
                let reply = Some(seen.clone());
                self.history.push(Operation { client: self.index, request: get, reply, invoked, returned });
            }
            let invoked = self.clock.fetch_add(1, Ordering::SeqCst);
            let reply = ask(&mut resp, &request, &self.keys);
            let returned = self.clock.fetch_add(1, Ordering::SeqCst);
            let (reply, ended) = match reply {
                // Nothing has run, and the values may be what they were again.
                Ok(Value::NilArray) => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                Ok(reply) => (Some(without_text(reply, &request)), false),
                Err(error) if is_closed(&error) => (None, true),
                Err(error) => panic!("{request:?} is not answered: {error}"),
            };
            self.history.push(Operation { client: self.index, request, reply, invoked, returned });
            if ended {
                return;
            }
            self.answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Sends commands, all at once.
fn send(resp: &mut Resp, commands: &[Vec<Vec<u8>>]) -> std::io::Result<()> {
    let bytes: Vec<u8> = commands.iter().flat_map(|command| encoded(command)).collect();
    resp.wire.try_send(&bytes)
}

/// Sends a request and reads the reply to it.
fn ask(resp: &mut Resp, request: &Request, keys: &[String; KEY_COUNT]) -> std::io::Result<Value> {
    let Request::Exec(_, requests) = request else {
        send(resp, &[arguments(request, keys)])?;
        return resp.try_read();
    };
    let word = |word: &str| vec![word.as_bytes().to_vec()];
    let queued = requests.iter().map(|request| arguments(request, keys));
    let commands: Vec<_> = [word("MULTI")].into_iter().chain(queued).chain([word("EXEC")]).collect();
    send(resp, &commands)?;
    for _ in 1..commands.len() {
        let told = resp.try_read()?;
        assert!(matches!(told, Value::Simple(_)), "{request:?} is not queued: {told}");
    }
    resp.try_read()
}

/// A reply in which every error is the same one.
fn without_text(reply: Value, request: &Request) -> Value {
    match reply {
        Value::Error(text) => {
            assert!(text.contains("integer"), "{request:?} is answered with -{text}");
            Value::Error(String::new())
        }
        Value::Array(items) => {
            Value::Array(items.into_iter().map(|item| without_text(item, request)).collect())
        }
        reply => reply,
    }
}

/// Any request; `number` makes the values that it writes its own.
pub fn any_request(random: &mut Random, number: u64) -> Request {
    let key = random.below(KEY_COUNT as u64) as Key;
    let mut keys: Vec<Key> = (0..KEY_COUNT).collect();
    random.shuffle(&mut keys);
    keys.truncate(2 + random.below(3) as usize);
    let value = number.to_string().into_bytes();
    match random.below(25) {
        20..25 => {
            // What is watched is read before it is sent.
            let watched = random.below(2) == 0;
            let requests = [
                Request::Mget(keys.clone()),
                Request::Incr(key),
                Request::Append(keys[0], vec![b'1' + (number % 9) as u8]),
                Request::Set(keys[1], value.clone()),
                Request::Mset(keys.into_iter().map(|key| (key, value.clone())).collect()),
            ];
            let first = random.below(3) as usize;
            let requests = requests[first..first + 3].to_vec();
            Request::Exec(watched.then_some((key, Value::Nil)), requests)
        }
        0..4 => Request::Get(key),
        4..6 => Request::Set(key, value),
        6..9 => Request::Incr(key),
        // A digit: the value stays a number, for INCR.
        9..11 => Request::Append(key, vec![b'1' + (number % 9) as u8]),
        11 => Request::Del(vec![key]),
        12 => Request::Del(keys),
        13..16 => Request::Mset(keys.into_iter().map(|key| (key, value.clone())).collect()),
        _ => Request::Mget(keys),
    }
}

fn arguments(request: &Request, keys: &[String; KEY_COUNT]) -> Vec<Vec<u8>> {
    let name = |key: &Key| keys[*key].clone().into_bytes();
    let command = |name: &str| name.as_bytes().to_vec();
    match request {
        Request::Get(key) => vec![command("GET"), name(key)],
        Request::Set(key, value) => vec![command("SET"), name(key), value.clone()],
        Request::Incr(key) => vec![command("INCR"), name(key)],
        Request::Append(key, tail) => vec![command("APPEND"), name(key), tail.clone()],
        Request::Del(keys) => [command("DEL")].into_iter().chain(keys.iter().map(name)).collect(),
        Request::Exec(..) => unreachable!("it is more than one command"),
        Request::Mget(keys) => [command("MGET")].into_iter().chain(keys.iter().map(name)).collect(),
        Request::Mset(pairs) => [command("MSET")]
            .into_iter()
            .chain(pairs.iter().flat_map(|(key, value)| [name(key), value.clone()]))
            .collect(),
    }
}
