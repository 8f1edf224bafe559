//! What workers send each other: one message a turn and destination, in bounded queues, without waiting.
//!
//! Every worker has one open [`Batch`] for each peer, to which a turn adds calls to the peer's shard and answers to
//! the peer's earlier calls. At the end of the turn the batch is sent if the queue has room; otherwise it stays
//! open and the next turn adds to it. A worker never waits for room, so two that flood each other cannot
//! block each other; and batches cannot grow without bound, because a worker has at most [`CALLS_IN_FLIGHT_MAX`]
//! calls without an answer at each peer: clients that ask for more are not read from meanwhile.

mod clients;
mod message;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use bytes::Bytes;
use shard::{Error, OwnedRequest, Request};

use crate::net::{Doorbell, Net};
use crate::protocol::Dialect;

pub use clients::{ClientFilter, ClientKind};
pub use message::{
    AcceptedSocket, Answer, Args, Asker, Batch, Call, CommandList, Hop, Locks, Message, Page, RequestId,
    ShardImage, SlowLogCall, SubscriptionKind, Tracks, TransactionId, Watch,
};

/// How many requests of its clients a worker may have under way at one peer.
pub const CALLS_IN_FLIGHT_MAX: usize = 16 * 1024;

/// How many bytes of requests a worker may have under way at one peer before its clients are not read from.
pub const BYTES_IN_FLIGHT_MAX: usize = 8 * 1024 * 1024;

/// How many bytes a worker may have under way at one peer before messages to subscribers are dropped: more than all that
/// one client may queue behind `MULTI`.
const FLOOD_BYTES: usize = 512 * 1024 * 1024;

/// How many bytes of messages to subscribers a worker hands on before it says so with a batch of its own.
const DELIVERED_BYTES_MAX: usize = BYTES_IN_FLIGHT_MAX / 8;

/// What a message to subscribers takes beside its bytes.
const MESSAGE_BYTES: usize = 64;

/// How many messages fit between two workers. One would do; more lets both sides run ahead.
pub const QUEUE_CAPACITY: usize = 64;

/// How many emptied batches a worker keeps for reuse.
const POOL_MAX: usize = 64;

/// One end of the mesh that joins all workers: the queues of one worker.
pub struct Mesh {
    own: usize,
    peers: Vec<Peer>,
    #[allow(clippy::vec_box)] // The boxes travel.
    pool: Vec<Box<Batch>>,
    /// This worker sleeps, or is about to, and wants to be woken by a peer that sends.
    asleep: Arc<AtomicBool>,
    /// How many batches were sent to others.
    batches: u64,
}

struct Peer {
    open: Box<Batch>,
    outbox: rtrb::Producer<Box<Batch>>,
    inbox: rtrb::Consumer<Box<Batch>>,
    asleep: Arc<AtomicBool>,
    doorbell: Option<Doorbell>,
    calls_in_flight: usize,
    bytes_in_flight: usize,
    /// Messages of this worker that were handed on here, which it is yet to be told.
    delivered_bytes: usize,
}

impl Mesh {
    /// The ends of a mesh of `workers` workers, one for each, whose queues hold `capacity` messages.
    pub fn connect_all(workers: usize, capacity: usize) -> Vec<Mesh> {
        let mut outboxes: Vec<Vec<_>> = (0..workers).map(|_| Vec::with_capacity(workers)).collect();
        let mut inboxes: Vec<Vec<_>> = (0..workers).map(|_| Vec::with_capacity(workers)).collect();
        for outbox in &mut outboxes {
            for inbox in &mut inboxes {
                let (producer, consumer) = rtrb::RingBuffer::new(capacity);
                outbox.push(producer);
                inbox.push(consumer);
            }
        }
        let asleep: Vec<Arc<AtomicBool>> = (0..workers).map(|_| Arc::default()).collect();
        let ends = outboxes.into_iter().zip(inboxes).enumerate();
        ends.map(|(own, (outboxes, inboxes))| Mesh {
            own,
            peers: (outboxes.into_iter().zip(inboxes).zip(&asleep))
                .map(|((outbox, inbox), asleep)| Peer {
                    open: Box::default(),
                    outbox,
                    inbox,
                    asleep: asleep.clone(),
                    doorbell: None,
                    calls_in_flight: 0,
                    bytes_in_flight: 0,
                    delivered_bytes: 0,
                })
                .collect(),
            pool: Vec::new(),
            asleep: asleep[own].clone(),
            batches: 0,
        })
        .collect()
    }

    /// Tells by which doorbells the workers are woken, in the order of their numbers.
    pub fn connect(&mut self, doorbells: &[Doorbell]) {
        for (peer, doorbell) in self.peers.iter_mut().zip(doorbells) {
            peer.doorbell = Some(doorbell.clone());
        }
    }

    /// The number of this worker.
    pub fn own(&self) -> usize {
        self.own
    }

    /// How many batches were sent to other workers.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// The number of workers.
    pub fn worker_count(&self) -> usize {
        self.peers.len()
    }

    /// The open batch for a worker; this one's own included, which arrives with its next turn.
    pub fn to(&mut self, worker: usize) -> &mut Batch {
        &mut self.peers[worker].open
    }

    /// Sends a client's request to the worker that owns its keys. Returns its size in bytes, for
    /// [`Mesh::answered`].
    pub fn run(
        &mut self,
        worker: usize,
        request_id: RequestId,
        request: &Request<'_>,
        dialect: Dialect,
        tracks: Tracks,
    ) -> usize {
        let peer = &mut self.peers[worker];
        let size_bytes = request.args().map(<[u8]>::len).sum();
        peer.calls_in_flight += 1;
        peer.bytes_in_flight += size_bytes;
        let command = request.command;
        let call = match request.memory() {
            None if !tracks.any() => {
                Call::Run { command, dialect, args: peer.open.args(request.database, request.args()) }
            }
            _ => Call::RunOwned(OwnedRequest::new(request), dialect, tracks),
        };
        peer.open.call(request_id, call);
        size_bytes
    }

    /// As [`Mesh::run`], for commands that run as one.
    pub fn run_all(
        &mut self,
        worker: usize,
        request_id: RequestId,
        list: CommandList,
        dialect: Dialect,
    ) -> usize {
        let peer = &mut self.peers[worker];
        let size_bytes = list.requests.iter().map(OwnedRequest::size_bytes).sum();
        peer.calls_in_flight += 1;
        peer.bytes_in_flight += size_bytes;
        peer.open.call(request_id, Call::RunAll(Box::new(list), dialect));
        size_bytes
    }

    /// Sends a message to the subscribers at a worker; `shared` is what it says, where that is large and can be shared.
    pub fn publish(
        &mut self,
        worker: usize,
        kind: SubscriptionKind,
        channel: &[u8],
        text: &[u8],
        shared: Option<&Bytes>,
    ) {
        let Peer { open, bytes_in_flight, .. } = &mut self.peers[worker];
        let size_bytes = MESSAGE_BYTES + channel.len() + text.len();
        *bytes_in_flight += size_bytes;
        open.published_bytes += size_bytes;
        let message = match shared {
            None => Message::Copied(open.args(0, [channel, text].into_iter())),
            Some(text) => Message::Shared(Bytes::copy_from_slice(channel), text.clone()),
        };
        open.call(RequestId::NONE, Call::Publish(kind, message));
    }

    /// Takes note of the messages to subscribers of which a batch tells; to be called when they were handed on.
    pub fn note_messages(&mut self, from: usize, batch: &Batch) {
        let peer = &mut self.peers[from];
        peer.delivered_bytes += batch.published_bytes;
        peer.bytes_in_flight -= batch.delivered_bytes;
    }

    /// A worker to which as much is under way as may be, and which does not hang.
    pub fn full_peer(&self, hung: &[bool]) -> Option<usize> {
        (0..self.peers.len()).find(|worker| self.is_full(*worker) && !hung[*worker])
    }

    /// Takes out of the open batches the answers that show what the shard holds. Those of a request, rendered in the
    /// batch that `keep` is given, can be copied from it.
    pub fn withdraw_answers(&mut self, mut keep: impl FnMut(usize, RequestId, Answer, &Batch)) {
        for (worker, Peer { open, .. }) in self.peers.iter_mut().enumerate() {
            for (request_id, answer) in open.take_answers() {
                match answer {
                    // It shows nothing of the shard.
                    Answer::Failed(Error::NotOnDisk { .. }) | Answer::Rejected(_) => {
                        open.answer(request_id, answer);
                    }
                    Answer::Bytes(_)
                    | Answer::Value(_)
                    | Answer::Failed(_)
                    | Answer::Part(_)
                    | Answer::Ran(_)
                    | Answer::Held { .. }
                    | Answer::Committed(_)
                    | Answer::Changed
                    | Answer::Page(_)
                    | Answer::QueryResult(_) => {
                        keep(worker, request_id, answer, open);
                    }
                    Answer::Noted
                    | Answer::FoundClient(_)
                    | Answer::Locked
                    | Answer::Watching(_)
                    | Answer::Image(_)
                    | Answer::Libraries(_)
                    | Answer::Refused
                    | Answer::Report(_) => {
                        open.answer(request_id, answer);
                    }
                }
            }
        }
    }

    /// Notes that a request of `size_bytes` sent by [`Mesh::run`] was answered.
    pub fn answered(&mut self, worker: usize, size_bytes: usize) {
        let peer = &mut self.peers[worker];
        peer.calls_in_flight -= 1;
        peer.bytes_in_flight -= size_bytes;
    }

    /// Whether a peer has as many requests as it may have: clients that have more for it must wait.
    pub fn is_full(&self, worker: usize) -> bool {
        let peer = &self.peers[worker];
        peer.calls_in_flight >= CALLS_IN_FLIGHT_MAX || peer.bytes_in_flight >= BYTES_IN_FLIGHT_MAX
    }

    /// Whether a peer is owed so much that it gets no more messages to subscribers, which nothing waits with.
    pub fn is_flooded(&self, worker: usize) -> bool {
        self.peers[worker].bytes_in_flight >= FLOOD_BYTES
    }

    /// The next message from a worker, if one is there.
    pub fn receive(&mut self, worker: usize) -> Option<Box<Batch>> {
        self.peers[worker].inbox.pop().ok()
    }

    /// Takes an emptied message back for reuse.
    pub fn recycle(&mut self, mut batch: Box<Batch>) {
        if self.pool.len() < POOL_MAX {
            batch.reset();
            self.pool.push(batch);
        }
    }

    /// Sends this worker's batch to itself, which else leaves with that to the others.
    pub fn send_own(&mut self) {
        let Mesh { own, peers, pool, .. } = self;
        let Peer { open, outbox, .. } = &mut peers[*own];
        if !open.is_empty() && !outbox.is_full() {
            let batch = std::mem::replace(open, pool.pop().unwrap_or_default());
            outbox.push(batch).expect("only this worker fills the queue, and it had room");
        }
    }

    /// Sends the open batches and wakes the receivers that sleep. A batch whose queue is full stays open.
    pub fn send(&mut self, net: &mut Net) {
        let Mesh { own, peers, pool, batches, .. } = self;
        for (worker, peer) in peers.iter_mut().enumerate() {
            if !peer.open.is_empty() || peer.delivered_bytes >= DELIVERED_BYTES_MAX {
                peer.open.delivered_bytes += std::mem::take(&mut peer.delivered_bytes);
            }
            if peer.open.is_empty() || peer.outbox.is_full() {
                continue;
            }
            let batch = std::mem::replace(&mut peer.open, pool.pop().unwrap_or_default());
            if peer.outbox.push(batch).is_err() {
                unreachable!("only this worker fills the queue, and it had room");
            }
            if worker == *own {
                continue;
            }
            *batches += 1;
            // The batch is published before the flag is read; the receiver publishes the flag, then looks for
            // batches (`fall_asleep`). One of both sees the other.
            fence(Ordering::SeqCst);
            if peer.asleep.load(Ordering::Relaxed) && peer.asleep.swap(false, Ordering::Relaxed) {
                net.ring_doorbell(peer.doorbell.as_ref().expect("workers are connected before they serve"));
            }
        }
    }

    /// Asks peers to wake this worker when they send. Returns false, and asks nothing, when a batch is there already
    /// or waits to be sent.
    pub fn fall_asleep(&mut self) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let idle = self.is_idle();
        if !idle {
            self.wake_up();
        }
        idle
    }

    /// Ends [`Mesh::fall_asleep`].
    pub fn wake_up(&mut self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Whether no batch has arrived, and none waits to be sent.
    pub fn is_idle(&self) -> bool {
        self.peers.iter().all(|peer| peer.inbox.is_empty() && peer.open.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::AtomicUsize;
    use std::thread;
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use shard::Span;

    use super::*;
    use crate::net::{Backend, SocketId};

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A mesh with its rings, all on this thread.
    fn connected(workers: usize, capacity: usize) -> Vec<(Mesh, Net)> {
        let ends = Mesh::connect_all(workers, capacity).into_iter();
        let mut ends: Vec<_> = ends.map(|mesh| (mesh, Net::new(Backend::of_test()).unwrap())).collect();
        let doorbells: Vec<_> = ends.iter().map(|(_, net)| net.doorbell()).collect();
        ends.iter_mut().for_each(|(mesh, _)| mesh.connect(&doorbells));
        ends
    }

    fn request_id(sequence: u32) -> RequestId {
        RequestId { socket: SocketId { index: 0, generation: 0 }, sequence }
    }

    /// Sends the request `GET <key>` to a worker; returns its size.
    fn ask(mesh: &mut Mesh, worker: usize, sequence: u32, key: &[u8]) -> usize {
        let spans = [Span { start: 0, len: key.len() as u32 }];
        let command = shard::command::find(b"GET").unwrap();
        mesh.run(
            worker,
            request_id(sequence),
            &Request::new(command, key, &spans),
            Dialect::Resp2,
            Tracks::default(),
        )
    }

    /// Answers every call of a batch with its first argument, and returns the numbers that were asked.
    fn answer_all(mesh: &mut Mesh, worker: usize, batch: &mut Batch) -> Vec<u32> {
        let calls = batch.take_calls();
        for (request_id, call) in &calls {
            let Call::Run { command, args, .. } = call else { panic!("{call:?}") };
            let request = batch.request(command, *args);
            mesh.to(worker).answer_bytes(*request_id, |out| out.extend_from_slice(request.arg(0)));
        }
        calls.iter().map(|(request_id, _)| request_id.sequence).collect()
    }

    /// The answers of a batch: their numbers and bytes.
    fn answers(batch: &mut Batch) -> Vec<(u32, Vec<u8>)> {
        let answers = batch.take_answers().into_iter();
        let bytes = |answer: &Answer| match answer {
            Answer::Bytes(span) => batch.bytes(span.clone()).to_vec(),
            other => panic!("{other:?}"),
        };
        answers.map(|(request_id, answer)| (request_id.sequence, bytes(&answer))).collect()
    }

    #[test]
    fn calls_and_answers_arrive_in_order() {
        let mut ends = connected(2, 64);
        let [(alice, alice_net), (bob, bob_net)] = &mut ends[..] else { unreachable!() };
        let mut sizes = Vec::new();
        for sequence in 0..100u32 {
            sizes.push(ask(alice, 1, sequence, format!("key:{sequence}").as_bytes()));
            if sequence % 7 == 0 {
                alice.send(alice_net);
            }
        }
        alice.send(alice_net);
        assert_eq!(alice.peers[1].calls_in_flight, 100);
        assert_eq!(alice.peers[1].bytes_in_flight, sizes.iter().sum::<usize>());
        let mut asked = Vec::new();
        while let Some(mut batch) = bob.receive(0) {
            asked.extend(answer_all(bob, 0, &mut batch));
            bob.recycle(batch);
            bob.send(bob_net);
        }
        assert_eq!(asked, (0..100).collect::<Vec<_>>());
        let mut answered = Vec::new();
        while let Some(mut batch) = alice.receive(1) {
            answered.extend(answers(&mut batch));
            alice.recycle(batch);
        }
        let expected: Vec<_> = (0..100u32).map(|n| (n, format!("key:{n}").into_bytes())).collect();
        assert_eq!(answered, expected);
        sizes.into_iter().for_each(|size_bytes| alice.answered(1, size_bytes));
        assert_eq!((alice.peers[1].calls_in_flight, alice.peers[1].bytes_in_flight), (0, 0));
        assert!(alice.is_idle() && bob.is_idle());
    }

    #[test]
    fn a_batch_stays_open_while_the_queue_is_full() {
        let mut ends = connected(2, 1);
        let [(alice, alice_net), (bob, bob_net)] = &mut ends[..] else { unreachable!() };
        for sequence in 0..10 {
            ask(alice, 1, sequence, b"key");
            alice.send(alice_net);
            assert_eq!(alice.is_idle(), sequence == 0, "the first batch has left, the others wait");
        }
        assert!(!alice.fall_asleep(), "a worker with a batch to send stays awake");
        assert!(!alice.asleep.load(Ordering::Relaxed));
        let mut batches = Vec::new();
        while let Some(mut batch) = bob.receive(0) {
            batches.push(answer_all(bob, 0, &mut batch));
            alice.send(alice_net);
        }
        assert_eq!(batches, [vec![0], (1..10).collect()]);
        assert!(alice.is_idle());
        bob.send(bob_net);
        assert!(!alice.fall_asleep(), "a worker that has got a batch stays awake");
    }

    #[test]
    fn a_worker_gets_its_own_batch() {
        let mut ends = connected(1, 4);
        let (mesh, net) = &mut ends[0];
        assert!(mesh.fall_asleep());
        mesh.wake_up();
        ask(mesh, 0, 7, b"own");
        mesh.send(net);
        let mut batch = mesh.receive(0).unwrap();
        assert_eq!(answer_all(mesh, 0, &mut batch), [7]);
        assert!(!mesh.is_idle(), "the answer waits to be sent");
    }

    #[test]
    fn a_peer_is_full_by_calls_and_by_bytes() {
        let (mut mesh, _net) = connected(2, 4).remove(0);
        for sequence in 0..CALLS_IN_FLIGHT_MAX as u32 {
            assert!(!mesh.is_full(1));
            assert_eq!(ask(&mut mesh, 1, sequence, b"k"), 1);
        }
        assert!(mesh.is_full(1) && !mesh.is_full(0));
        (0..CALLS_IN_FLIGHT_MAX).for_each(|_| mesh.answered(1, 1));
        let value = vec![0; BYTES_IN_FLIGHT_MAX];
        let size_bytes = ask(&mut mesh, 1, 0, &value);
        assert!(size_bytes == value.len() && mesh.is_full(1));
        mesh.answered(1, size_bytes);
        assert!(!mesh.is_full(1));
    }

    /// Asks every peer for `total` answers, as fast as the limits allow, answers the peers meanwhile, and
    /// sleeps when there is nothing to do. Ends when all workers have their answers.
    fn flood(own: usize, mut mesh: Mesh, mut net: Net, total: u32, finished: &AtomicUsize) {
        let deadline = Instant::now() + PATIENCE;
        let workers = mesh.worker_count();
        let (mut asked, mut answered) = (vec![0; workers], vec![0; workers]);
        asked[own] = total;
        answered[own] = total;
        let mut has_all = false;
        let mut events = Vec::new();
        while finished.load(Ordering::SeqCst) < workers || !mesh.is_idle() {
            assert!(Instant::now() < deadline, "worker {own}: asked {asked:?}, answered {answered:?}");
            let mut progressed = net.turn(&mut events).unwrap();
            for peer in 0..workers {
                for _ in 0..300 {
                    if asked[peer] < total && !mesh.is_full(peer) {
                        ask(&mut mesh, peer, asked[peer], &asked[peer].to_le_bytes());
                        asked[peer] += 1;
                        progressed = true;
                    }
                }
                while let Some(mut batch) = mesh.receive(peer) {
                    progressed = true;
                    answer_all(&mut mesh, peer, &mut batch);
                    for (sequence, bytes) in answers(&mut batch) {
                        assert_eq!((sequence, bytes), (answered[peer], sequence.to_le_bytes().to_vec()));
                        answered[peer] += 1;
                        mesh.answered(peer, 4);
                    }
                    mesh.recycle(batch);
                }
            }
            mesh.send(&mut net);
            if !has_all && answered.iter().all(|count| *count == total) {
                has_all = true;
                finished.fetch_add(1, Ordering::SeqCst);
                // Those who wait for nothing but this one's end sleep.
                mesh.peers.iter().for_each(|peer| net.ring_doorbell(peer.doorbell.as_ref().unwrap()));
                net.turn(&mut events).unwrap();
                continue;
            }
            if progressed {
                continue;
            }
            net.parking();
            if !net.ready() && finished.load(Ordering::SeqCst) < workers && mesh.fall_asleep() {
                let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
                let wakeup = net.wakeup();
                assert_eq!(poll(&mut [PollFd::new(&wakeup, PollFlags::IN)], Some(&patience)).unwrap(), 1);
                rustix::io::read(wakeup.as_fd(), &mut [0; 8]).unwrap();
                mesh.wake_up();
            }
            net.unparked();
        }
        for peer in &mesh.peers {
            assert_eq!((peer.calls_in_flight, peer.bytes_in_flight), (0, 0));
        }
    }

    #[test]
    fn workers_that_flood_each_other_are_all_answered() {
        for (workers, capacity, total) in [(2, 1, 100_000), (3, 1, 50_000), (3, QUEUE_CAPACITY, 50_000)] {
            let finished = AtomicUsize::new(0);
            let (doorbells_out, doorbells_in) = std::sync::mpsc::channel();
            thread::scope(|scope| {
                let mut doorbells_to = Vec::new();
                for (own, mut mesh) in Mesh::connect_all(workers, capacity).into_iter().enumerate() {
                    let (to_worker, doorbells) = std::sync::mpsc::channel::<Vec<Doorbell>>();
                    doorbells_to.push(to_worker);
                    let (doorbells_out, finished) = (doorbells_out.clone(), &finished);
                    scope.spawn(move || {
                        let net = Net::new(Backend::of_test()).unwrap();
                        doorbells_out.send((own, net.doorbell())).unwrap();
                        mesh.connect(&doorbells.recv().unwrap());
                        flood(own, mesh, net, total, finished);
                    });
                }
                let mut known: Vec<_> = (0..workers).map(|_| doorbells_in.recv().unwrap()).collect();
                known.sort_by_key(|(own, _)| *own);
                let known: Vec<_> = known.into_iter().map(|(_, doorbell)| doorbell).collect();
                doorbells_to.iter().for_each(|to_worker| to_worker.send(known.clone()).unwrap());
            });
        }
    }
}
