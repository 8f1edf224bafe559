//! Shards without sockets and logs: threads that run commands on their own shard and on each other's, as fast as
//! they can. What a command costs that is local, what one that is remote costs more, and what a message costs.

use std::fs;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use kvlite::mesh::{Answer, Batch, Call, Mesh, QUEUE_CAPACITY, RequestId, Tracks};
use kvlite::net::{Backend, Net, SocketId};
use kvlite::protocol::Dialect;
use kvlite::{protocol, slots};
use shard::{Changes, Command, Reply, Request, Shard, Span};

use crate::harness::Outcome;

/// Keys of each shard. They and their values fit no cache of one core, as in the load over sockets.
const KEYS: usize = 100_000;

/// The value of every key.
const VALUE: &[u8] = b"0123456789abcdef";

/// How many messages without an answer a worker has at each peer: enough that no worker waits for the other.
const MESSAGES_AHEAD: usize = 16;

/// How many keys are read ahead, as in the server.
const READ_AHEAD: usize = 32;

/// The changes of a turn are forgotten, and their memory kept up to this size.
const CHANGES_KEPT_BYTES: usize = 64 * 1024;

/// How the replies are rendered.
const DIALECT: Dialect = Dialect::Resp2;

/// A time of the keyspace; nothing here expires.
const NOW_MS: u64 = 1_700_000_000_000;

/// Where the commands of a worker go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To its own shard.
    Local,
    /// To those of the others, in turns.
    Remote,
}

/// Has `workers` threads run commands for this time, half GET and half SET, `batch` of them a turn and peer. Returns
/// the CPU time that one command takes, in microseconds, on all threads together.
pub fn cpu_us_per_command(workers: usize, place: Place, batch: usize, time: Duration) -> Outcome<f64> {
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let keys = keys_of_shards(workers);
    let filled = Barrier::new(workers + 1);
    let results: Vec<std::io::Result<(u64, f64)>> = thread::scope(|scope| {
        let threads: Vec<_> = (Mesh::connect_all(workers, QUEUE_CAPACITY).into_iter())
            .map(|mesh| {
                let (stop, done, keys, filled) = (&stop, &done, &keys, &filled);
                scope.spawn(move || {
                    let worker = Worker::new(mesh, keys);
                    filled.wait();
                    Ok(worker?.run(place, batch, stop, done))
                })
            })
            .collect();
        filled.wait();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("a worker does not panic")).collect()
    });
    let (mut commands, mut cpu_us) = (0, 0.0);
    for result in results {
        let (count, us) = result?;
        (commands, cpu_us) = (commands + count, cpu_us + us);
    }
    Ok(cpu_us / commands as f64)
}

fn keys_of_shards(shards: usize) -> Vec<Vec<Vec<u8>>> {
    let mut keys = vec![Vec::new(); shards];
    let mut number: u64 = 0;
    while keys.iter().any(|keys| keys.len() < KEYS) {
        // Scattered, so that neighbours in the list are none in memory.
        let key = format!("key:{:012}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000_000_000_000);
        let keys = &mut keys[slots::owner(key.as_bytes(), shards)];
        if keys.len() < KEYS {
            keys.push(key.into_bytes());
        }
        number += 1;
    }
    keys
}

struct Worker<'a> {
    mesh: Mesh,
    net: Net,
    shard: Shard,
    changes: Changes,
    keys: &'a [Vec<Vec<u8>>],
    commands: [&'static Command; 2],
    next_key: usize,
    in_flight: Vec<usize>,
    answered: u64,
    replies: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(mesh: Mesh, keys: &'a [Vec<Vec<u8>>]) -> std::io::Result<Worker<'a>> {
        let find = |name: &[u8]| shard::command::find(name).expect("a command of the table");
        let mut worker = Worker {
            in_flight: vec![0; mesh.worker_count()],
            net: Net::new(Backend::IoUring)?,
            shard: Shard::new([1, 2, 3, 4]),
            changes: Changes::default(),
            keys,
            commands: [find(b"GET"), find(b"SET")],
            next_key: 0,
            answered: 0,
            replies: Vec::new(),
            mesh,
        };
        for key in &keys[worker.mesh.own()] {
            let (bytes, spans) = arguments(key, true);
            let set = Request::new(worker.commands[1], &bytes, &spans);
            worker.shard.execute(&set, NOW_MS, &mut worker.changes);
            worker.changes.clear(CHANGES_KEPT_BYTES);
        }
        Ok(worker)
    }

    /// Takes turns until it is told to stop, everything was answered and no worker asks any more. Returns the number
    /// of commands that it had run, and its CPU time in microseconds.
    fn run(mut self, place: Place, batch: usize, stop: &AtomicBool, done: &AtomicUsize) -> (u64, f64) {
        let workers = self.mesh.worker_count();
        let begun_us = thread_cpu_us();
        let mut has_all = false;
        while done.load(Ordering::Relaxed) < workers {
            if stop.load(Ordering::Relaxed) {
                if !has_all && self.in_flight.iter().all(|count| *count == 0) {
                    has_all = true;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            } else if place == Place::Local {
                self.run_own(batch);
            } else {
                self.ask_peers(batch);
            }
            for peer in 0..workers {
                while let Some(batch) = self.mesh.receive(peer) {
                    self.on_batch(peer, batch);
                }
            }
            self.changes.clear(CHANGES_KEPT_BYTES);
            self.mesh.send(&mut self.net);
        }
        (self.answered, thread_cpu_us() - begun_us)
    }

    /// The next key of a shard, and whether it is to be written.
    fn next(&mut self, shard: usize) -> (&'a [u8], bool) {
        self.next_key += 1;
        (&self.keys[shard][self.next_key % KEYS], self.next_key.is_multiple_of(2))
    }

    fn run_own(&mut self, batch: usize) {
        let own = self.mesh.own();
        for first in (0..batch).step_by(READ_AHEAD) {
            let count = READ_AHEAD.min(batch - first);
            let ahead = (1..=count).map(|step| &*self.keys[own][(self.next_key + step) % KEYS]);
            self.shard.prefetch(0, ahead);
            for _ in 0..count {
                let (key, writes) = self.next(own);
                let (bytes, spans) = arguments(key, writes);
                let spans = &spans[..1 + usize::from(writes)];
                let request = Request::new(self.commands[usize::from(writes)], &bytes, spans);
                let reply = self.shard.execute(&request, NOW_MS, &mut self.changes);
                write_reply(&reply, &request, &mut self.replies);
            }
        }
        self.replies.clear();
        self.answered += batch as u64;
    }

    fn ask_peers(&mut self, batch: usize) {
        for peer in 0..self.mesh.worker_count() {
            if peer == self.mesh.own() || self.in_flight[peer] + batch > MESSAGES_AHEAD * batch {
                continue;
            }
            for _ in 0..batch {
                let (key, writes) = self.next(peer);
                let (bytes, spans) = arguments(key, writes);
                let spans = &spans[..1 + usize::from(writes)];
                let request = Request::new(self.commands[usize::from(writes)], &bytes, spans);
                let request_id = RequestId { socket: SocketId { index: 0, generation: 0 }, sequence: 0 };
                self.mesh.run(peer, request_id, &request, DIALECT, Tracks::default());
            }
            self.in_flight[peer] += batch;
        }
    }

    fn on_batch(&mut self, from: usize, mut batch: Box<Batch>) {
        let mut calls = batch.take_calls();
        let mut rest = calls.drain(..);
        while !rest.as_slice().is_empty() {
            let (database, keys) = batch.first_args(rest.as_slice().iter().take(READ_AHEAD));
            self.shard.prefetch(database, keys);
            for (request_id, call) in rest.by_ref().take(READ_AHEAD) {
                let Call::Run { command, args, .. } = call else { unreachable!("nothing else is asked") };
                let request = batch.request(command, args);
                let reply = self.shard.execute(&request, NOW_MS, &mut self.changes);
                self.mesh.to(from).answer_bytes(request_id, |out| write_reply(&reply, &request, out));
            }
        }
        drop(rest);
        let mut answers = batch.take_answers();
        for (_, answer) in answers.drain(..) {
            let Answer::Bytes(range) = answer else { unreachable!("a command is answered with bytes") };
            self.replies.extend_from_slice(batch.bytes(range));
            self.in_flight[from] -= 1;
            self.answered += 1;
        }
        self.replies.clear();
        batch.take_back(calls, answers);
        self.mesh.recycle(batch);
    }
}

/// The arguments of a GET or a SET, as they stand in a buffer that was received.
fn arguments(key: &[u8], writes: bool) -> ([u8; 32], [Span; 2]) {
    let mut bytes = [0; 32];
    bytes[..key.len()].copy_from_slice(key);
    if writes {
        bytes[key.len()..][..VALUE.len()].copy_from_slice(VALUE);
    }
    let spans =
        [Span { start: 0, len: key.len() as u32 }, Span { start: key.len() as u32, len: VALUE.len() as u32 }];
    (bytes, spans)
}

fn write_reply(reply: &Reply<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    protocol::write_reply(reply, Some(request.command), request.arg_count(), DIALECT, out);
}

/// The CPU time of this thread so far.
fn thread_cpu_us() -> f64 {
    let times = fs::read_to_string("/proc/thread-self/schedstat").expect("procfs is mounted");
    let ns = times.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds come first");
    ns / 1000.0
}
