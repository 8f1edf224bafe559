//! One thread of the load generator: its connections on a network of its own, the requests under way,
//! and the latencies of those that were answered. It knows neither the other threads nor the report.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Failure;
use super::options::{Kind, Options, Protocol};
use super::replies::{Answer, ReplyReader};
use super::requests::RequestWriter;
use super::schedule::{Cursor, Schedule};
use crate::net::{Backend, Event, Net};

/// Latencies are kept from this one up to the greatest one, in nanoseconds, to three digits.
const LATENCY_NS_MIN: u64 = 64;
const LATENCY_NS_MAX: u64 = 1 << 40;

/// How many different texts of errors are kept, and how long each may be.
const ERROR_TEXTS_MAX: usize = 16;
const ERROR_TEXT_BYTES_MAX: usize = 120;

/// How long a thread sleeps without looking whether it is to stop.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// Below this time to the next request it is not worth to sleep.
const SPIN_BELOW: Duration = Duration::from_micros(5);

/// How long requests that are due may still be sent after the end.
const LATE_MAX: Duration = Duration::from_millis(100);

/// Which requests are sent, and when.
#[derive(Clone, Copy, Debug)]
pub enum Plan {
    /// A request for each of so many keys sets it; as fast as they are answered.
    Fill(u64),
    /// The chosen commands, at most so many, as fast as they are answered.
    Closed(u64),
    /// The chosen commands, at their times.
    Open(Schedule),
}

/// What the threads of one phase share.
#[derive(Debug)]
pub struct Shared {
    /// By what the kernel is asked.
    pub backend: Backend,
    /// What is sent, and when.
    pub plan: Plan,
    /// Requests that each connection sends ahead of their replies.
    pub pipeline: usize,
    /// For how long requests are sent.
    pub duration: Duration,
    /// How long the server may be silent.
    pub timeout: Duration,
    /// The number of the next request, where they follow no schedule.
    pub next_number: AtomicU64,
    /// Requests that were answered: for the progress line.
    pub answered: AtomicU64,
    /// Another thread has failed.
    pub stop: AtomicBool,
}

/// What one thread counted.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Requests that were sent, and answered.
    pub answered: u64,
    /// Replies that said that there is no such key.
    pub missing: u64,
    /// Replies that were errors, by their text; further texts are counted under "other errors".
    pub errors: BTreeMap<String, u64>,
    /// Requests for each command.
    pub commands: BTreeMap<Kind, u64>,
    /// Nanoseconds from the time at which a request was due to its reply.
    pub latency: Histogram<u64>,
    /// Nanoseconds from the time at which a request was really sent to its reply.
    pub service_time: Histogram<u64>,
    /// The time of the last reply, from the start.
    pub ended_ns: u64,
}

impl Tally {
    /// Nothing counted.
    pub fn new() -> Tally {
        let empty =
            || Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, 3).expect("constant and in order");
        Tally {
            answered: 0,
            missing: 0,
            errors: BTreeMap::new(),
            commands: BTreeMap::new(),
            latency: empty(),
            service_time: empty(),
            ended_ns: 0,
        }
    }

    /// Takes in what another thread counted.
    pub fn add(&mut self, other: &Tally) {
        self.answered += other.answered;
        self.missing += other.missing;
        for (text, count) in &other.errors {
            self.count_error(text, *count);
        }
        for (kind, count) in &other.commands {
            *self.commands.entry(*kind).or_default() += count;
        }
        self.latency.add(&other.latency).expect("both have the same bounds");
        self.service_time.add(&other.service_time).expect("both have the same bounds");
        self.ended_ns = self.ended_ns.max(other.ended_ns);
    }

    fn count_error(&mut self, text: &str, count: u64) {
        let is_kept = self.errors.len() < ERROR_TEXTS_MAX || self.errors.contains_key(text);
        *self.errors.entry(if is_kept { text } else { "other errors" }.to_owned()).or_default() += count;
    }

    fn count_answer(&mut self, answer: Answer<'_>) {
        match answer {
            Answer::Done => {}
            Answer::Missing => self.missing += 1,
            Answer::Error(text) => {
                let shown = &text[..text.len().min(ERROR_TEXT_BYTES_MAX)];
                self.count_error(&String::from_utf8_lossy(shown), 1);
            }
        }
    }
}

/// A connection that is open and was greeted.
#[derive(Debug)]
pub struct Connection {
    /// The socket, in blocking mode.
    pub socket: OwnedFd,
    /// The shard that serves it, where that matters.
    pub shard: usize,
}

struct Awaited {
    due_ns: u64,
    sent_ns: u64,
    kind: Kind,
    /// Replies that are still to come: in text one for each line.
    lines_left: u32,
}

struct Client {
    shard: usize,
    reader: ReplyReader,
    /// Requests that were sent and not answered; at most `--pipeline`.
    awaited: VecDeque<Awaited>,
    /// The buffer of the next send; `None` while the ring sends it.
    buffer: Option<Vec<u8>>,
    /// Where a schedule holds: the next request of this connection.
    next_number: u64,
}

/// One thread.
pub struct Generator<'a> {
    shared: &'a Shared,
    options: Arc<Options>,
    writer: RequestWriter,
    net: Net,
    /// By the index of their sockets.
    clients: Vec<Client>,
    sockets: Vec<crate::net::SocketId>,
    cursor: Option<Cursor>,
    start: Instant,
    /// Requests under way.
    waiting: usize,
    /// When something was last sent or received, from the start.
    active_ns: u64,
    tally: Tally,
}

impl<'a> Generator<'a> {
    /// The thread `thread` of `--threads`, which has the connections `thread`, `thread + threads` and so on.
    ///
    /// # Errors
    /// The kernel refuses what the network needs.
    pub fn new(
        shared: &'a Shared,
        options: Arc<Options>,
        writer: RequestWriter,
        thread: u64,
        connections: Vec<Connection>,
    ) -> Result<Generator<'a>, Failure> {
        let mut net = Net::new(shared.backend).map_err(|error| Failure::no_network(shared.backend, error))?;
        let (mut clients, mut sockets) = (Vec::new(), Vec::new());
        let threads = u64::from(options.threads);
        for (position, Connection { socket, shard }) in connections.into_iter().enumerate() {
            let id = net.attach(socket);
            assert_eq!(id.index as usize, position, "a new ring numbers its sockets from 0");
            sockets.push(id);
            clients.push(Client {
                shard,
                reader: ReplyReader::new(options.protocol),
                awaited: VecDeque::with_capacity(shared.pipeline),
                buffer: Some(Vec::new()),
                next_number: thread + position as u64 * threads,
            });
        }
        let cursor = match shared.plan {
            Plan::Open(schedule) => Some(Cursor::new(schedule, thread, threads)),
            Plan::Fill(_) | Plan::Closed(_) => None,
        };
        let start = Instant::now(); // Until `run` is told the common one.
        let tally = Tally::new();
        Ok(Generator {
            shared,
            options,
            writer,
            net,
            clients,
            sockets,
            cursor,
            start,
            waiting: 0,
            active_ns: 0,
            tally,
        })
    }

    /// Sends, and awaits all replies. The times of the plan count from `start`.
    ///
    /// # Errors
    /// The server closed a connection, sent what is no reply, or fell silent; or the ring failed.
    pub fn run(mut self, start: Instant) -> Result<Tally, Failure> {
        self.start = start;
        // Sleeps end when they should, and not up to 50 us later. A kernel that refuses only costs precision.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let mut events = Vec::new();
        if self.cursor.is_none() {
            (0..self.clients.len()).for_each(|client| self.send_what_is_due(client));
        }
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now_ns = self.now_ns();
            while let Some(client) = self.cursor.as_mut().and_then(|cursor| cursor.take_due(now_ns)) {
                self.send_what_is_due(client);
            }
            if self.waiting == 0 && self.is_over(now_ns) {
                return Ok(self.tally);
            }
            let progressed = self.net.turn(&mut events).map_err(Failure::Network)?;
            for event in events.drain(..) {
                self.handle(event)?;
            }
            if !progressed {
                self.check_silence(now_ns)?;
                self.sleep(now_ns)?;
            }
        }
        Err(Failure::Stopped)
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Whether nothing more will be sent.
    fn is_over(&self, now_ns: u64) -> bool {
        let is_late = now_ns >= self.shared.duration.as_nanos() as u64;
        match self.shared.plan {
            Plan::Open(schedule) => {
                is_late && self.is_too_late(now_ns)
                    || self.clients.iter().all(|client| client.next_number >= schedule.count)
            }
            Plan::Fill(count) | Plan::Closed(count) => {
                is_late || self.shared.next_number.load(Ordering::Relaxed) >= count
            }
        }
    }

    fn is_too_late(&self, now_ns: u64) -> bool {
        now_ns >= (self.shared.duration + LATE_MAX).as_nanos() as u64
    }

    fn check_silence(&self, now_ns: u64) -> Result<(), Failure> {
        let silent_ns = now_ns.saturating_sub(self.active_ns);
        let is_silent = self.waiting > 0 && silent_ns > self.shared.timeout.as_nanos() as u64;
        if is_silent { Err(Failure::Silent(self.shared.timeout)) } else { Ok(()) }
    }

    fn sleep(&mut self, now_ns: u64) -> Result<(), Failure> {
        let next_due_ns = self.cursor.as_ref().and_then(Cursor::next_due_ns);
        let patience = next_due_ns
            .map_or(SLEEP_MAX, |due_ns| Duration::from_nanos(due_ns.saturating_sub(now_ns)).min(SLEEP_MAX));
        if patience > SPIN_BELOW {
            self.net.wait(patience).map_err(Failure::Network)?;
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Received(id, chunk) => {
                self.receive(id.index as usize, &chunk)?;
                self.send_what_is_due(id.index as usize);
            }
            Event::Sent(id, buffer) => {
                self.clients[id.index as usize].buffer = Some(buffer);
                self.send_what_is_due(id.index as usize);
            }
            Event::Ended(_, error) => return Err(Failure::Closed(error)),
            Event::SendFailed(_, error) => return Err(Failure::Closed(Some(error))),
            Event::Accepted { .. } | Event::AcceptFailed { .. } | Event::Synced(_) => {
                unreachable!("this ring neither listens nor syncs")
            }
        }
        Ok(())
    }

    fn receive(&mut self, client: usize, bytes: &[u8]) -> Result<(), Failure> {
        let now_ns = self.now_ns();
        self.active_ns = now_ns;
        let Client { reader, awaited, .. } = &mut self.clients[client];
        let (tally, waiting, mut unasked) = (&mut self.tally, &mut self.waiting, false);
        let mut answered = 0;
        let read = reader.read(bytes, |answer| {
            let Some(first) = awaited.front_mut() else {
                unasked = true;
                return;
            };
            first.lines_left -= 1;
            if first.lines_left > 0 && !matches!(answer, Answer::Error(_)) {
                return;
            }
            tally.count_answer(answer);
            *tally.commands.entry(first.kind).or_default() += 1;
            tally.latency.saturating_record(now_ns.saturating_sub(first.due_ns));
            tally.service_time.saturating_record(now_ns.saturating_sub(first.sent_ns));
            awaited.pop_front();
            answered += 1;
        });
        *waiting -= answered;
        tally.answered += answered as u64;
        tally.ended_ns = now_ns;
        self.shared.answered.fetch_add(answered as u64, Ordering::Relaxed);
        read.map_err(Failure::Malformed)?;
        if unasked { Err(Failure::Unasked) } else { Ok(()) }
    }

    /// Sends what a connection may send now: nothing while a send is on its way.
    fn send_what_is_due(&mut self, client: usize) {
        let Some(mut buffer) = self.clients[client].buffer.take() else { return };
        match self.shared.plan {
            Plan::Fill(count) => self.write_batch(client, count, &mut buffer),
            Plan::Closed(count) => self.write_batch(client, count, &mut buffer),
            Plan::Open(schedule) => self.write_scheduled(client, &schedule, &mut buffer),
        }
        if buffer.is_empty() {
            self.clients[client].buffer = Some(buffer);
        } else if self.net.send(self.sockets[client], buffer).is_err() {
            unreachable!("the socket is open, and its last send has ended");
        }
    }

    /// Writes the next batch once the last one was answered.
    fn write_batch(&mut self, client: usize, count: u64, buffer: &mut Vec<u8>) {
        if !self.clients[client].awaited.is_empty() {
            return;
        }
        let now_ns = self.now_ns();
        if now_ns >= self.shared.duration.as_nanos() as u64 {
            return;
        }
        let pipeline = self.shared.pipeline as u64;
        let first = self.shared.next_number.fetch_add(pipeline, Ordering::Relaxed);
        for number in first..(first + pipeline).min(count) {
            self.write(client, number, now_ns, now_ns, buffer);
        }
    }

    /// Writes the requests that are due, as far as the pipeline has room.
    fn write_scheduled(&mut self, client: usize, schedule: &Schedule, buffer: &mut Vec<u8>) {
        let now_ns = self.now_ns();
        while self.clients[client].awaited.len() < self.shared.pipeline {
            let number = self.clients[client].next_number;
            let due_ns = schedule.due_ns(number);
            if number >= schedule.count || due_ns > now_ns || self.is_too_late(now_ns) {
                break;
            }
            self.clients[client].next_number = schedule.next_of_client(number);
            self.write(client, number, due_ns, now_ns, buffer);
        }
    }

    fn write(&mut self, client: usize, number: u64, due_ns: u64, sent_ns: u64, buffer: &mut Vec<u8>) {
        let Client { shard, awaited, .. } = &mut self.clients[client];
        let kind = match self.shared.plan {
            Plan::Fill(_) => {
                self.writer.write_set(number, buffer);
                Kind::Set
            }
            Plan::Closed(_) | Plan::Open(_) => self.writer.write_next(*shard, buffer),
        };
        let in_lines = self.options.protocol == Protocol::Text && kind == Kind::Mget;
        let lines_left = if in_lines { self.options.batch } else { 1 };
        awaited.push_back(Awaited { due_ns, sent_ns, kind, lines_left });
        self.waiting += 1;
        self.active_ns = sent_ns;
    }
}
