//! Both backends against real sockets. Every wait is bounded and ends with its condition; a ring that waits does so
//! parked, so that a wake-up that gets lost fails a test.

#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::opcode;
use rustix::event::poll;
use rustix::net::{SendFlags, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::buffers::CHUNK_COUNT;
use super::ring::{COMPLETIONS, Operation, Receiving};
use super::sockets::GENERATION_MASK;
use super::*;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Marks a process that a test started from its own program.
const CHILD: &str = "KVLITE_NET_TEST_CHILD";

/// Makes a test for each backend of a function.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod ring {
            $(#[test] fn $test() { super::$test(super::Backend::IoUring) })*
        }
        mod epoll {
            $(#[test] fn $test() { super::$test(super::Backend::Epoll) })*
        }
    };
}

on_both! {
    tcp_bytes_come_back_in_order,
    unix_bytes_come_back_in_order,
    nothing_is_lost_when_the_buffers_run_out,
    a_slow_reader_gets_a_large_buffer_whole,
    a_peer_that_sends_no_more_still_gets_replies,
    shutting_down_one_side_leaves_the_other,
    a_reset_ends_receiving_and_sending,
    generations_wrap_around,
    accepting_goes_on_when_descriptors_are_free_again,
    a_storm_of_connections_is_accepted_a_few_at_a_time,
    nothing_arrives_while_paused_and_everything_after,
    pausing_and_resuming_loses_nothing,
    a_doorbell_wakes_a_sleeping_network_every_time,
    bytes_wake_a_sleeping_network_every_time,
    a_sync_reports_its_end,
    a_wait_for_a_sync_hears_sockets,
    a_sync_ends_the_wait_for_it,
    a_wait_for_several_ends_with_them_with_a_doorbell_or_with_its_patience,
    what_follows_an_urgent_byte_is_received,
    dropping_a_network_ends_what_is_under_way,
    thousands_of_connections_leave_nothing_behind,
}

/// A `SplitMix64` generator (Steele, Lea and Flood, 2014).
#[derive(Clone)]
struct Random(u64);

impl Random {
    /// Seeded from `KVLITE_TEST_SEED` or else from the clock; prints the seed.
    fn new(what: &str) -> Random {
        let seed = match std::env::var("KVLITE_TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into(),
        };
        println!("{what}: KVLITE_TEST_SEED={seed}");
        Random(seed)
    }

    fn fork(&mut self) -> Random {
        Random(self.next())
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// What a network receives into.
enum Memory {
    Buffers(Rc<buffers::Buffers>),
    Pool(Rc<pool::Pool>),
}

impl Memory {
    fn free_count(&self) -> usize {
        match self {
            Memory::Buffers(buffers) => buffers.free_count().into(),
            Memory::Pool(pool) => pool.free_count(),
        }
    }

    fn owner_count(&self) -> usize {
        match self {
            Memory::Buffers(buffers) => Rc::strong_count(buffers),
            Memory::Pool(pool) => Rc::strong_count(pool),
        }
    }
}

/// A network and its events that were not looked at yet.
struct Rig {
    net: Net,
    events: VecDeque<Event>,
}

impl Rig {
    fn new(backend: Backend) -> Rig {
        Rig { net: Net::new(backend).unwrap(), events: VecDeque::new() }
    }

    /// Takes one turn, and parks first when there is nothing to do unless `awake` says otherwise.
    fn turn(&mut self, deadline: Instant, what: &str, awake: impl FnOnce() -> bool) {
        self.net.parking();
        if !self.net.ready() && !awake() {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain: {what}");
            self.sleep(left);
        }
        self.net.unparked();
        let mut events = Vec::new();
        self.net.turn(&mut events).unwrap();
        self.events.extend(events);
    }

    /// Sleeps as a worker does whose executor has other work, or that has no executor.
    fn sleep(&mut self, patience: Duration) {
        if let Kind::Epoll(_) = &self.net.0 {
            return self.net.wait(patience).unwrap();
        }
        let patience = Timespec { tv_sec: patience.as_secs() as i64 + 1, tv_nsec: 0 };
        if poll(&mut [PollFd::new(&self.net.wakeup(), PollFlags::IN)], Some(&patience)).unwrap() > 0 {
            rustix::io::read(self.net.wakeup(), &mut [0; 8]).unwrap();
        }
    }

    /// Takes turns until `done`.
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Rig) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            self.turn(deadline, what, || false);
        }
    }

    /// The next event.
    fn next(&mut self, what: &str) -> Event {
        self.until(what, |rig| !rig.events.is_empty());
        self.events.pop_front().unwrap()
    }

    /// Takes turns, without waiting, until three in a row found nothing.
    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            let mut events = Vec::new();
            quiet = if self.net.turn(&mut events).unwrap() { 0 } else { quiet + 1 };
            self.events.extend(events);
        }
    }

    /// A socket of the network, and its peer.
    fn unix_pair(&mut self) -> (SocketId, UnixStream) {
        let (own, peer) = UnixStream::pair().unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.set_write_timeout(Some(PATIENCE)).unwrap();
        (self.net.attach(own.into()), peer)
    }

    fn tcp_pair(&mut self) -> (SocketId, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = connect(listener.local_addr().unwrap());
        (self.net.attach(listener.accept().unwrap().0.into()), peer)
    }

    fn listen_tcp(&mut self) -> SocketAddr {
        let (listener, _) = bind_tcp("127.0.0.1", 0).unwrap().remove(0);
        let address = TcpListener::from(listener.try_clone().unwrap()).local_addr().unwrap();
        self.net.listen(listener);
        address
    }

    /// The backend, where it is the ring.
    fn ring(&mut self) -> Option<&mut Ring> {
        match &mut self.net.0 {
            Kind::Ring(ring) => Some(ring),
            Kind::Epoll(_) => None,
        }
    }

    fn descriptor(&self, id: SocketId) -> BorrowedFd<'_> {
        match &self.net.0 {
            Kind::Ring(ring) => ring.sockets.get(id).unwrap().descriptor.as_fd(),
            Kind::Epoll(epoll) => epoll.sockets.get(id).unwrap().descriptor.as_fd(),
        }
    }

    fn has_no_sockets(&self) -> bool {
        of_backend!(&self.net.0, net => net.sockets.is_empty())
    }

    fn memory(&self) -> Memory {
        match &self.net.0 {
            Kind::Ring(ring) => Memory::Buffers(ring.buffers.clone()),
            Kind::Epoll(epoll) => Memory::Pool(epoll.pool.clone()),
        }
    }

    /// Notes that so many syncs are under way that do not end.
    fn set_syncs(&mut self, count: usize) {
        match &mut self.net.0 {
            Kind::Ring(ring) => ring.syncs_apart = count,
            Kind::Epoll(epoll) => epoll.syncs.untold = count,
        }
    }

    /// Fails when a slot, a buffer or a file is in use.
    #[track_caller]
    fn assert_empty(&self) {
        assert!(self.has_no_sockets(), "a socket is left, or a slot is lost or free twice");
        assert_eq!(self.memory().free_count(), usize::from(CHUNK_COUNT), "a buffer is lost or free twice");
        let files_left = match &self.net.0 {
            Kind::Ring(ring) => ring.syncs.iter().flatten().count(),
            Kind::Epoll(epoll) => epoll.syncs.untold,
        };
        assert_eq!(files_left, 0, "a file is left");
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Makes the peer's close a reset.
fn reset_on_close(stream: &TcpStream) {
    sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
}

fn assert_error(error: &io::Error, expected: &[i32]) {
    assert!(expected.contains(&error.raw_os_error().unwrap()), "{error}");
}

/// Runs the calling test again in a process of its own, where limits and descriptors are its own too. Returns
/// false there, and true where the child has passed.
fn passed_in_child(backend: Backend, test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return false;
    }
    let of = if backend == Backend::IoUring { "ring" } else { "epoll" };
    let path = format!("{}::{of}::{test}", module_path!().split_once("::").unwrap().1);
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", &path, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && text.contains("1 passed"),
        "the child process failed: {}",
        output.status
    );
    true
}

/// What an echo server knows of a client.
#[derive(Default)]
struct Echoed {
    pending: Vec<u8>,
    paused: bool,
    ended: bool,
}

/// Sends back what arrives, with bounded memory, and closes a socket when its peer has ended and has
/// everything.
#[derive(Default)]
struct Echo {
    clients: HashMap<SocketId, Echoed>,
    closed: usize,
}

impl Echo {
    const PENDING_HIGH_BYTES: usize = 256 * 1024;

    fn on(&mut self, net: &mut Net, event: Event) {
        let id = match event {
            Event::Accepted { socket, .. } => {
                self.clients.insert(net.attach(socket), Echoed::default());
                return;
            }
            Event::Received(id, chunk) => {
                self.clients.get_mut(&id).unwrap().pending.extend_from_slice(&chunk);
                id
            }
            Event::Sent(id, _) => id,
            Event::Ended(id, None) => {
                let client = self.clients.get_mut(&id).unwrap();
                assert!(!std::mem::replace(&mut client.ended, true), "the end is told once");
                id
            }
            other => panic!("{other:?}"),
        };
        let client = self.clients.get_mut(&id).unwrap();
        let hold = client.pending.len() > Self::PENDING_HIGH_BYTES;
        if hold != std::mem::replace(&mut client.paused, hold) {
            if hold { net.pause(id) } else { net.resume(id) }
        }
        if !client.pending.is_empty() && !net.is_sending(id) {
            net.send(id, std::mem::take(&mut client.pending)).unwrap();
        }
        if client.ended && !net.is_sending(id) {
            net.close(id);
            self.clients.remove(&id);
            self.closed += 1;
        }
    }
}

/// Echoes `clients` streams of random bytes, in writes of random sizes, and compares what comes back.
fn echo<S: Read + Write + Send + 'static>(
    rig: &mut Rig,
    clients: usize,
    connect: impl Fn() -> S,
    try_clone: impl Fn(&S) -> S,
    end: impl Fn(&S) + Send + Copy + 'static,
) {
    const BYTES: usize = 4 * 1024 * 1024;
    let mut random = Random::new("echo");
    let mut threads = Vec::new();
    for _ in 0..clients {
        let mut random = random.fork();
        let (mut reader, mut writer) = (connect(), None);
        writer.replace(try_clone(&reader));
        let sent = random.clone().bytes(BYTES);
        threads.push(thread::spawn(move || {
            let mut received = Vec::new();
            reader.read_to_end(&mut received).unwrap();
            received
        }));
        let expected = sent.clone();
        threads.push(thread::spawn(move || {
            let mut writer = writer.unwrap();
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(1 + random.below(100_000)));
                writer.write_all(now).unwrap();
                rest = later;
            }
            end(&writer);
            expected
        }));
    }
    let mut echo = Echo::default();
    while echo.closed < clients {
        let event = rig.next("the next event of an echo");
        echo.on(&mut rig.net, event);
    }
    let mut streams = threads.into_iter().map(|thread| thread.join().unwrap());
    while let Some(received) = streams.next() {
        assert!(received == streams.next().unwrap(), "the bytes that came back differ");
    }
    rig.settle();
    rig.assert_empty();
}

fn tcp_bytes_come_back_in_order(backend: Backend) {
    let mut rig = Rig::new(backend);
    let address = rig.listen_tcp();
    let end = |stream: &TcpStream| stream.shutdown(Shutdown::Write).unwrap();
    echo(&mut rig, 3, || connect(address), |stream| stream.try_clone().unwrap(), end);
}

fn unix_bytes_come_back_in_order(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut rig = Rig::new(backend);
    rig.net.listen(bind_unix(&path).unwrap());
    let end = |stream: &UnixStream| stream.shutdown(Shutdown::Write).unwrap();
    echo(&mut rig, 3, || UnixStream::connect(&path).unwrap(), |stream| stream.try_clone().unwrap(), end);
}

#[test]
fn a_unix_path_is_taken_over_from_the_dead_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let alive = bind_unix(&path).unwrap();
    assert_eq!(bind_unix(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(alive);
    drop(bind_unix(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "kept").unwrap();
    assert_eq!(bind_unix(&path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"kept");
}

fn nothing_is_lost_when_the_buffers_run_out(backend: Backend) {
    const SOCKETS: usize = 4;
    const BYTES: usize = 5 * 1024 * 1024;
    let mut random = Random::new("buffers");
    let mut rig = Rig::new(backend);
    let mut expected = HashMap::new();
    let mut threads = Vec::new();
    for _ in 0..SOCKETS {
        let (id, mut peer) = rig.unix_pair();
        let bytes = random.bytes(BYTES);
        expected.insert(id, bytes.clone());
        threads.push(thread::spawn(move || peer.write_all(&bytes).unwrap()));
    }
    let mut held: Vec<(SocketId, usize, Chunk)> = Vec::new();
    let mut positions: HashMap<SocketId, usize> = HashMap::new();
    let (mut open, mut droughts) = (SOCKETS, 0);
    while open > 0 {
        match rig.next("a chunk or an end") {
            Event::Received(id, chunk) => {
                let position = positions.entry(id).or_default();
                let start = std::mem::replace(position, *position + chunk.len());
                held.push((id, start, chunk));
            }
            Event::Ended(id, None) => {
                rig.net.close(id);
                open -= 1;
            }
            other => panic!("{other:?}"),
        }
        if held.len() == usize::from(CHUNK_COUNT) {
            rig.settle();
            assert!(rig.events.iter().all(|event| matches!(event, Event::Ended(..))), "out of buffers");
            droughts += 1;
        }
        if held.len() == usize::from(CHUNK_COUNT) || open == 0 {
            let kept = if open == 0 { 0 } else { random.below(held.len()) };
            while held.len() > kept {
                let (id, start, chunk) = held.swap_remove(random.below(held.len()));
                assert!(expected[&id][start..][..chunk.len()] == *chunk, "a held chunk changed");
            }
        }
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(positions.values().all(|position| *position == BYTES), "{positions:?}");
    assert!(droughts > 2, "the buffers ran out {droughts} times only");
    rig.settle();
    rig.assert_empty();
}

fn a_slow_reader_gets_a_large_buffer_whole(backend: Backend) {
    const BYTES: usize = 8 * 1024 * 1024;
    let bytes = Random::new("slow reader").bytes(BYTES);
    let mut rig = Rig::new(backend);
    let (id, mut peer) = rig.tcp_pair();
    sockopt::set_socket_send_buffer_size(rig.descriptor(id), 16 * 1024).unwrap();
    sockopt::set_socket_recv_buffer_size(&peer, 16 * 1024).unwrap();
    rig.net.send(id, bytes.clone()).unwrap();
    rig.settle();
    assert!(rig.net.is_sending(id), "more was sent than fits");
    assert_eq!(rig.net.send(id, b"second".to_vec()), Err(b"second".to_vec().into()));
    let reader = thread::spawn(move || {
        let mut received = Vec::with_capacity(BYTES);
        while received.len() < BYTES {
            let start = received.len();
            received.resize(start + 5000.min(BYTES - start), 0);
            peer.read_exact(&mut received[start..]).unwrap();
        }
        (received, peer)
    });
    let Event::Sent(sent, buffer) = rig.next("the end of the send") else { panic!("not sent") };
    assert!(sent == id && buffer.is_empty() && buffer.capacity() >= BYTES);
    // Threads that the kernel runs operations on bear the number of the thread they work for.
    let workers = format!("iou-wrk-{}", rustix::thread::gettid().as_raw_nonzero());
    let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    assert_eq!(names.filter(|name| name.trim() == workers).count(), 0, "the send took a thread");
    let (received, mut peer) = reader.join().unwrap();
    assert!(received == bytes, "the bytes that arrived differ");
    rig.net.send(id, b"second".to_vec()).unwrap();
    rig.net.shutdown_write(id);
    if backend == Backend::IoUring {
        // What was queued before the shutdown, but not submitted, is refused; nothing else can follow either.
        assert!(matches!(rig.next("the refusal"), Event::SendFailed(failed, _) if failed == id));
    } else {
        assert!(matches!(rig.next("the end of the send"), Event::Sent(sent, _) if sent == id));
        peer.read_exact(&mut [0; 6]).unwrap();
    }
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
}

fn a_peer_that_sends_no_more_still_gets_replies(backend: Backend) {
    let mut rig = Rig::new(backend);
    let (id, mut peer) = rig.tcp_pair();
    peer.write_all(b"request").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(rig.next("the request"), Event::Received(_, chunk) if *chunk == *b"request"));
    assert!(matches!(rig.next("the end"), Event::Ended(ended, None) if ended == id));
    rig.net.pause(id);
    rig.net.resume(id);
    rig.settle();
    assert!(rig.events.is_empty(), "the end is told once: {:?}", rig.events);
    for reply in ["one", "two"] {
        rig.net.send(id, reply.as_bytes().to_vec()).unwrap();
        assert!(matches!(rig.next("a reply"), Event::Sent(..)));
    }
    rig.net.close(id);
    let mut replies = String::new();
    peer.read_to_string(&mut replies).unwrap();
    assert_eq!(replies, "onetwo");
    rig.settle();
    rig.assert_empty();
}

fn shutting_down_one_side_leaves_the_other(backend: Backend) {
    let mut rig = Rig::new(backend);
    let (id, mut peer) = rig.unix_pair();
    rig.net.shutdown_write(id);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    peer.write_all(b"last words").unwrap();
    assert!(matches!(rig.next("the last words"), Event::Received(_, chunk) if *chunk == *b"last words"));
    drop(peer);
    assert!(matches!(rig.next("the end"), Event::Ended(_, None)));
}

fn a_reset_ends_receiving_and_sending(backend: Backend) {
    let mut rig = Rig::new(backend);
    let (receiving, peer) = rig.tcp_pair();
    rig.settle();
    reset_on_close(&peer);
    drop(peer);
    match rig.next("the reset") {
        Event::Ended(id, Some(error)) if id == receiving => assert_error(&error, &[libc::ECONNRESET]),
        other => panic!("{other:?}"),
    }

    let (sending, peer) = rig.tcp_pair();
    rig.net.pause(sending);
    rig.net.send(sending, vec![0; 64 * 1024 * 1024]).unwrap();
    rig.settle();
    assert!(rig.net.is_sending(sending));
    reset_on_close(&peer);
    drop(peer);
    match rig.next("the reset") {
        Event::SendFailed(id, error) if id == sending => {
            assert_error(&error, &[libc::ECONNRESET, libc::EPIPE]);
        }
        other => panic!("{other:?}"),
    }
    assert!(!rig.net.is_sending(sending));
    rig.net.close(receiving);
    rig.net.close(sending);
    rig.settle();
    rig.assert_empty();
}

#[test]
fn a_slot_is_reused_only_after_its_operations() {
    let backend = Backend::IoUring;
    let mut rig = Rig::new(backend);
    let (old, mut old_peer) = rig.unix_pair();
    rig.net.send(old, vec![7; 16 * 1024 * 1024]).unwrap();
    old_peer.write_all(b"unread").unwrap();
    rig.until("the receive", |rig| rig.events.pop_front().is_some());
    rig.net.close(old);
    assert!(rig.ring().unwrap().sockets.get(old).unwrap().is_busy(), "a receive and a send are on their way");
    let (other, _other_peer) = rig.unix_pair();
    assert_ne!(other.index, old.index);
    rig.until("the slot", |rig| rig.ring().unwrap().sockets.get(old).is_none());

    let (new, mut new_peer) = rig.unix_pair();
    assert_eq!(new.index, old.index);
    assert_ne!(new.generation, old.generation);
    assert_eq!(rig.net.send(old, b"stale".to_vec()), Err(b"stale".to_vec().into()));
    rig.net.pause(old);
    rig.net.shutdown_write(old);
    rig.net.close(old);
    rig.net.resume(old);
    assert!(!rig.net.is_sending(old));
    new_peer.write_all(b"ping").unwrap();
    assert!(matches!(rig.next("a ping"), Event::Received(id, chunk) if id == new && *chunk == *b"ping"));
    rig.net.send(new, b"pong".to_vec()).unwrap();
    assert!(matches!(rig.next("a pong"), Event::Sent(id, _) if id == new));
    let mut pong = [0; 4];
    new_peer.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"pong");
    // The old peer gets what the kernel had taken over, then the end.
    let mut rest = Vec::new();
    old_peer.read_to_end(&mut rest).unwrap_or_else(|error| {
        assert_error(&error, &[libc::ECONNRESET]);
        0
    });
    assert!(rest.len() < 16 * 1024 * 1024 && rest.iter().all(|byte| *byte == 7));
}

fn generations_wrap_around(backend: Backend) {
    let mut rig = Rig::new(backend);
    for expected in [0, GENERATION_MASK, 0] {
        let (id, mut peer) = rig.unix_pair();
        assert_eq!(id, SocketId { index: 0, generation: expected });
        peer.write_all(b"x").unwrap();
        assert!(matches!(rig.next("a byte"), Event::Received(from, _) if from == id));
        rig.net.send(id, b"y".to_vec()).unwrap();
        assert!(matches!(rig.next("the reply"), Event::Sent(to, _) if to == id));
        rig.net.close(id);
        rig.until("the slot", |rig| rig.has_no_sockets());
        if expected == 0 {
            of_backend!(&mut rig.net.0, net => net.sockets.set_generation(0, GENERATION_MASK));
        }
    }
}

fn accepting_goes_on_when_descriptors_are_free_again(backend: Backend) {
    if passed_in_child(backend, "accepting_goes_on_when_descriptors_are_free_again") {
        return;
    }
    const CLIENTS: usize = 8;
    let mut rig = Rig::new(backend);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect(listener.local_addr().unwrap())).collect();
    let lowest_free = File::open("/dev/null").unwrap().as_raw_fd() as u64;
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(lowest_free + 3), maximum }).unwrap();
    let number = rig.net.listen(listener.into());
    let (mut accepted, mut failed) = (0, 0);
    let mut open = Vec::new();
    while accepted < CLIENTS {
        match rig.next("a connection or a failure") {
            Event::Accepted { listener, socket } => {
                assert_eq!(listener, number);
                open.push(rig.net.attach(socket));
                accepted += 1;
            }
            Event::AcceptFailed { listener, error } => {
                assert_eq!(listener, number);
                assert_error(&error, &[libc::EMFILE]);
                failed += 1;
                rig.settle();
                assert!(rig.events.is_empty(), "a listener that failed rests");
                open.drain(..).for_each(|id| rig.net.close(id));
                rig.until("free descriptors", |rig| rig.has_no_sockets());
                rig.net.accept(number);
                rig.net.accept(number);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(failed >= 2, "descriptors ran out {failed} times only");
    for id in open {
        rig.net.close(id);
    }
    rig.settle();
    for client in &mut clients {
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "every client was accepted, and closed");
    }
}

fn a_storm_of_connections_is_accepted_a_few_at_a_time(backend: Backend) {
    const CLIENTS: usize = 5 * ACCEPTS_AT_ONCE;
    let mut rig = Rig::new(backend);
    let address = rig.listen_tcp();
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect(address)).collect();
    let (mut accepted, began) = (Vec::new(), Instant::now());
    while accepted.len() < CLIENTS {
        assert!(began.elapsed() < PATIENCE, "{} of {CLIENTS} were accepted", accepted.len());
        let mut events = Vec::new();
        rig.net.turn(&mut events).unwrap();
        assert!(events.len() <= ACCEPTS_AT_ONCE, "{} in one turn", events.len());
        for event in events {
            let Event::Accepted { socket, .. } = event else { panic!("{event:?}") };
            accepted.push(socket);
        }
    }
    drop(clients);
}

fn nothing_arrives_while_paused_and_everything_after(backend: Backend) {
    let bytes = Random::new("pause").bytes(1024 * 1024);
    let mut rig = Rig::new(backend);
    let (id, mut peer) = rig.unix_pair();
    rig.net.pause(id);
    rig.until("the pause", |rig| {
        rig.ring().is_none_or(|it| it.sockets.get(id).unwrap().receiving == Receiving::Idle)
    });
    peer.set_nonblocking(true).unwrap();
    let mut written = 0;
    while let Ok(count) = peer.write(&bytes[written..]) {
        written += count;
    }
    assert!(0 < written && written < bytes.len());
    rig.settle();
    assert!(rig.events.is_empty(), "{:?}", rig.events);
    peer.set_nonblocking(false).unwrap();
    let (rest, expected) = (bytes[written..].to_vec(), bytes);
    let writer = thread::spawn(move || peer.write_all(&rest).unwrap());
    rig.net.resume(id);
    let mut received = Vec::new();
    while let Event::Received(_, chunk) = rig.next("the rest") {
        received.extend_from_slice(&chunk);
    }
    assert!(received == expected);
    writer.join().unwrap();
}

fn pausing_and_resuming_loses_nothing(backend: Backend) {
    let mut random = Random::new("pausing");
    let bytes = random.bytes(8 * 1024 * 1024);
    let mut rig = Rig::new(backend);
    let (id, mut peer) = rig.unix_pair();
    // A short queue takes many turns.
    sockopt::set_socket_send_buffer_size(&peer, 16 * 1024).unwrap();
    let expected = bytes.clone();
    let mut sizes = random.fork();
    let writer = thread::spawn(move || {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(1 + sizes.below(30_000)));
            peer.write_all(now).unwrap();
            rest = later;
        }
    });
    let mut received = Vec::new();
    let mut toggles = 0;
    'stream: loop {
        for _ in 0..random.below(5) {
            if random.below(2) == 0 {
                rig.net.pause(id);
            } else {
                rig.net.resume(id);
            }
            toggles += 1;
        }
        if random.below(3) == 0 {
            rig.net.resume(id);
            rig.until("the stream", |rig| !rig.events.is_empty());
        } else {
            let mut events = Vec::new();
            rig.net.turn(&mut events).unwrap();
            rig.events.extend(events);
        }
        for event in rig.events.drain(..) {
            match event {
                Event::Received(_, chunk) => received.extend_from_slice(&chunk),
                Event::Ended(_, None) => break 'stream,
                other => panic!("{other:?}"),
            }
        }
    }
    writer.join().unwrap();
    assert!(received == expected, "{} bytes after {toggles} toggles", received.len());
    assert!(toggles > 100);
}

fn a_doorbell_wakes_a_sleeping_network_every_time(backend: Backend) {
    const ROUNDS: u64 = 10_000;
    let turn_of = AtomicU64::new(0);
    let (to_odd, at_odd) = mpsc::channel();
    let (to_even, at_even) = mpsc::channel();
    let play = |own: u64, to_peer: mpsc::Sender<Doorbell>, from_peer: mpsc::Receiver<Doorbell>| {
        let mut rig = Rig::new(backend);
        to_peer.send(rig.net.doorbell()).unwrap();
        let peer = from_peer.recv().unwrap();
        for round in (own..ROUNDS).step_by(2) {
            let deadline = Instant::now() + PATIENCE;
            while turn_of.load(Ordering::SeqCst) != round {
                rig.turn(deadline, "the bell", || turn_of.load(Ordering::SeqCst) == round);
            }
            turn_of.store(round + 1, Ordering::SeqCst);
            rig.net.ring_doorbell(&peer);
        }
        rig.settle();
        rig // Its doorbell is rung until both have ended.
    };
    thread::scope(|scope| {
        scope.spawn(|| drop((play(0, to_odd, at_even), &turn_of)));
        scope.spawn(|| drop((play(1, to_even, at_odd), &turn_of)));
    });
    assert_eq!(turn_of.into_inner(), ROUNDS);
}

fn bytes_wake_a_sleeping_network_every_time(backend: Backend) {
    const ROUNDS: usize = 10_000;
    let mut rig = Rig::new(backend);
    let (id, mut peer) = rig.tcp_pair();
    peer.set_nodelay(true).unwrap();
    let client = thread::spawn(move || {
        for round in 0..ROUNDS {
            let mut byte = [round as u8];
            peer.write_all(&byte).unwrap();
            peer.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [round as u8]);
        }
    });
    let mut echo = Echo::default();
    echo.clients.insert(id, Echoed::default());
    while echo.closed == 0 {
        let event = rig.next("a byte");
        echo.on(&mut rig.net, event);
    }
    client.join().unwrap();
}

#[test]
fn more_entries_and_completions_than_the_queues_hold_get_through() {
    let backend = Backend::IoUring;
    const BELLS: u32 = 2 * COMPLETIONS + 100;
    let mut rig = Rig::new(backend);
    let mut peers: Vec<_> = (0..40).map(|_| rig.unix_pair()).collect();
    rig.settle();
    let own = rig.net.doorbell();
    let mut ringer = Rig::new(backend);
    for (_, peer) in &mut peers {
        peer.write_all(b"before").unwrap();
        for _ in 0..BELLS / 40 {
            ringer.net.ring_doorbell(&own);
        }
        ringer.settle();
        // Completes when it is submitted, which the full submission queue forces long before the next turn.
        let nothing = opcode::Nop::new().build().user_data(Operation::Ignored.tag(0, 0));
        (0..BELLS / 40).for_each(|_| rig.ring().unwrap().push(&nothing));
        peer.write_all(b"after").unwrap();
    }
    assert!(rig.ring().unwrap().ring.submission().cq_overflow());
    let mut received: HashMap<SocketId, Vec<u8>> = HashMap::new();
    while received.values().map(Vec::len).sum::<usize>() < peers.len() * "beforeafter".len() {
        match rig.next("the bytes between the bells") {
            Event::Received(id, chunk) => received.entry(id).or_default().extend_from_slice(&chunk),
            other => panic!("{other:?}"),
        }
    }
    assert!(peers.iter().all(|(id, _)| received[id] == b"beforeafter"));
    drop(received);
    rig.settle();
    assert_eq!(rig.memory().free_count(), usize::from(CHUNK_COUNT));
}

fn a_sync_reports_its_end(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::create(folder.path().join("file")).unwrap();
    file.write_all(b"data").unwrap();
    let file = Arc::new(file);
    let directory = Arc::new(File::open(folder.path()).unwrap());
    let mut rig = Rig::new(backend);
    rig.net.sync(file.clone(), SyncOf::Data);
    rig.net.sync(file.clone(), SyncOf::Everything);
    rig.net.sync(directory, SyncOf::Everything);
    assert_eq!(Arc::strong_count(&file), 3, "the file is open until it is on disk");
    for _ in 0..3 {
        assert!(matches!(rig.next("a sync"), Event::Synced(Ok(()))));
    }
    assert_eq!(Arc::strong_count(&file), 1);
    let (pipe, _other_end) = io::pipe().unwrap();
    rig.net.sync(Arc::new(OwnedFd::from(pipe).into()), SyncOf::Data);
    match rig.next("a failed sync") {
        Event::Synced(Err(error)) => assert_error(&error, &[libc::EINVAL]),
        other => panic!("{other:?}"),
    }
    rig.assert_empty();
}

fn a_wait_for_a_sync_hears_sockets(backend: Backend) {
    let mut rig = Rig::new(backend);
    let (_, mut peer) = rig.unix_pair();
    rig.settle();
    rig.set_syncs(1); // One that does not end.
    for gathering in [Duration::ZERO, Duration::from_millis(20)] {
        rig.net.gather_for(gathering);
        let start = Instant::now();
        let client = thread::spawn({
            let mut peer = peer.try_clone().unwrap();
            move || peer.write_all(b"request").unwrap()
        });
        while rig.events.is_empty() {
            rig.net.wait(PATIENCE).unwrap();
            rig.settle();
        }
        assert!(start.elapsed() >= gathering, "what arrives waits for siblings");
        assert!(start.elapsed() < PATIENCE, "it slept through it");
        assert!(matches!(rig.next("a request"), Event::Received(_, chunk) if *chunk == *b"request"));
        client.join().unwrap();
    }
    let start = Instant::now();
    rig.net.wait(Duration::from_millis(1)).unwrap();
    assert!(start.elapsed() < PATIENCE, "patience ends the wait");
    rig.set_syncs(0);
    peer.write_all(b"more").unwrap();
    assert!(matches!(rig.next("a request"), Event::Received(..)));
}

fn a_wait_for_several_ends_with_them_with_a_doorbell_or_with_its_patience(backend: Backend) {
    let mut rig = Rig::new(backend);
    let pairs: Vec<_> = (0..3).map(|_| rig.unix_pair()).collect();
    rig.settle();
    let begun = Instant::now();
    // Without patience, and with too few that have something to say.
    for patience in [Duration::ZERO, Duration::from_millis(5)] {
        (&pairs[0].1).write_all(b"a").unwrap();
        rig.net.wait_for(3, patience).unwrap();
        assert!(matches!(rig.next("a byte"), Event::Received(id, _) if id == pairs[0].0));
    }
    for (_, peer) in &pairs {
        (&*peer).write_all(b"b").unwrap();
    }
    rig.net.wait_for(3, PATIENCE).unwrap();
    let mut events = Vec::new();
    rig.net.turn(&mut events).unwrap();
    assert_eq!(events.len(), 3, "{events:?}");
    let (bell, mut ringer) = (rig.net.doorbell(), Rig::new(backend));
    ringer.net.ring_doorbell(&bell);
    ringer.settle();
    rig.net.wait_for(if backend == Backend::Epoll { 3 } else { 1 }, PATIENCE).unwrap();
    assert!(begun.elapsed() < PATIENCE, "it slept through it");
}

fn what_follows_an_urgent_byte_is_received(backend: Backend) {
    let mut rig = Rig::new(backend);
    let (id, peer) = rig.tcp_pair();
    rig.settle();
    for (bytes, flags) in
        [(&b"before"[..], SendFlags::empty()), (b"!", SendFlags::OOB), (b"behind", SendFlags::empty())]
    {
        rustix::net::send(&peer, bytes, flags).unwrap();
    }
    let mut received = Vec::new();
    while received.len() < "beforebehind".len() {
        let Event::Received(from, chunk) = rig.next("what follows the urgent byte") else { panic!() };
        assert_eq!(from, id);
        received.extend_from_slice(&chunk);
    }
    assert_eq!(received, b"beforebehind");
}

fn a_sync_ends_the_wait_for_it(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let file = Arc::new(File::create(folder.path().join("file")).unwrap());
    let mut rig = Rig::new(backend);
    for gathering in [Duration::ZERO, PATIENCE] {
        rig.net.gather_for(gathering);
        rig.net.sync(file.clone(), SyncOf::Data);
        let start = Instant::now();
        let mut events = Vec::new();
        while !rig.net.turn(&mut events).unwrap() {
            rig.net.wait(PATIENCE).unwrap();
        }
        assert!(matches!(events[..], [Event::Synced(Ok(()))]), "{events:?}");
        assert!(start.elapsed() < PATIENCE, "it slept through it");
    }
}

fn dropping_a_network_ends_what_is_under_way(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::create(folder.path().join("file")).unwrap();
    file.write_all(&vec![1; 4 * 1024 * 1024]).unwrap();
    for turns in 0..4 {
        let mut rig = Rig::new(backend);
        let address = rig.listen_tcp();
        let doorbell = rig.net.doorbell();
        let mut peers = Vec::new();
        for _ in 0..20 {
            let (id, peer) = rig.unix_pair();
            rig.net.send(id, vec![7; 4 * 1024 * 1024]).unwrap();
            peers.push(peer);
        }
        peers[0].write_all(b"kept").unwrap();
        rig.net.sync(Arc::new(file.try_clone().unwrap()), SyncOf::Everything);
        let mut events = Vec::new();
        for _ in 0..turns {
            rig.net.turn(&mut events).unwrap();
        }
        let mut waiting = connect(address);
        let chunks: Vec<_> = events
            .drain(..)
            .filter_map(|event| if let Event::Received(_, chunk) = event { Some(chunk) } else { None })
            .collect();
        assert!(turns < 2 || chunks.len() == 1, "{turns} turns, {} chunks", chunks.len());
        let writers = peers.iter().map(|peer| peer.try_clone().unwrap()).enumerate();
        let writers: Vec<_> = writers
            .map(|(index, mut peer)| {
                thread::spawn(move || while index % 2 == 0 && peer.write_all(b"more").is_ok() {})
            })
            .collect();
        let memory = rig.memory();
        drop(rig);
        for mut peer in peers {
            // What the kernel had taken over arrives, then the end.
            let mut rest = Vec::new();
            let end = peer.read_to_end(&mut rest);
            assert!(end.is_ok() || end.unwrap_err().kind() == ErrorKind::ConnectionReset);
            assert!(rest.iter().all(|byte| *byte == 7));
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let end = waiting.read(&mut [0]);
        assert!(end.map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |count| count == 0));
        assert!(TcpStream::connect(address).is_err(), "the listener is closed");
        assert!(chunks.iter().all(|chunk| **chunk == *b"kept"));
        assert_eq!(memory.free_count() + chunks.len(), usize::from(CHUNK_COUNT));
        drop((chunks, doorbell));
        assert_eq!(memory.owner_count(), 1, "the memory was not given up");
    }
}

#[test]
fn an_executor_sleeps_on_the_ring() {
    let backend = Backend::IoUring;
    let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound).io_memory(64 * 1024);
    let handle = executor.spawn(move || async move {
        let mut rig = Rig::new(backend);
        let wakeup = rig.net.wakeup_file().unwrap().unwrap();
        let (id, mut peer) = rig.unix_pair();
        let other = rig.net.wakeup().try_clone_to_owned().unwrap();
        let client = thread::spawn(move || {
            for _ in 0..1000 {
                peer.write_all(b"ping").unwrap();
                peer.read_exact(&mut [0; 4]).unwrap();
            }
            unpark(other.as_fd());
        });
        let mut echo = Echo::default();
        echo.clients.insert(id, Echoed::default());
        let mut sleeps = 0;
        let serve = async {
            while echo.closed == 0 {
                let mut events = Vec::new();
                if rig.net.turn(&mut events).unwrap() {
                    events.drain(..).for_each(|event| echo.on(&mut rig.net, event));
                    continue;
                }
                rig.net.parking();
                if !rig.net.ready() {
                    assert_eq!(wakeup.read_at(0, 8).await.unwrap().len(), 8);
                    sleeps += 1;
                }
                rig.net.unparked();
            }
            Ok::<(), glommio::GlommioError<()>>(())
        };
        glommio::timer::timeout(PATIENCE, serve).await.expect("the executor is woken");
        client.join().unwrap();
        assert!(sleeps > 0, "the executor never slept");
        wakeup.close().await.unwrap();
    });
    handle.unwrap().join().unwrap();
}

/// What a client of the stress test asks of the network with its first byte.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Wish {
    /// Echo, and close after the client's end.
    Echo = b'e',
    /// Close at once.
    Close = b'c',
    /// Send much, and close in the middle of it.
    Cut = b'x',
    /// Say that nothing more will be sent, and wait for the client's end.
    Finish = b'f',
}

/// One network of the stress test: serves what is accepted by any of them, until told to stop and all are gone.
fn serve_stress(
    mut rig: Rig,
    attachments: &mpsc::Receiver<OwnedFd>,
    others: &[(mpsc::Sender<OwnedFd>, Doorbell)],
    stop: &AtomicBool,
) -> Rig {
    let mut clients: HashMap<SocketId, (Option<u8>, Echoed)> = HashMap::new();
    let mut accepted = 0;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let is_over = |rig: &Rig| stop.load(Ordering::SeqCst) && rig.has_no_sockets();
        if is_over(&rig) {
            return rig;
        }
        // Attaching fills the submission queue, so that the turn does not park.
        for socket in attachments.try_iter() {
            clients.insert(rig.net.attach(socket), Default::default());
        }
        let mut late = None;
        rig.turn(deadline, "the stress to end", || {
            late = attachments.try_recv().ok();
            late.is_some() || stop.load(Ordering::SeqCst)
        });
        if let Some(socket) = late {
            clients.insert(rig.net.attach(socket), Default::default());
        }
        while let Some(event) = rig.events.pop_front() {
            if let Event::Accepted { socket, .. } = event {
                let (target, doorbell) = &others[accepted % others.len()];
                accepted += 1;
                // One that has stopped serves no more: its connections close, their clients are gone.
                assert!(target.send(socket).is_ok() || stop.load(Ordering::SeqCst));
                rig.net.ring_doorbell(doorbell);
                continue;
            }
            on_stress(&mut rig.net, &mut clients, &event);
        }
    }
}

fn on_stress(net: &mut Net, clients: &mut HashMap<SocketId, (Option<u8>, Echoed)>, event: &Event) {
    let (id, gone) = match event {
        Event::Received(id, _) | Event::Ended(id, None) | Event::Sent(id, _) => (*id, false),
        Event::Ended(id, Some(_)) | Event::SendFailed(id, _) => (*id, true),
        other => panic!("{other:?}"),
    };
    let Some((wish, client)) = clients.get_mut(&id) else { return };
    match event {
        Event::Received(_, chunk) => {
            let first = *wish.get_or_insert(chunk[0]);
            if first == Wish::Echo as u8 {
                client.pending.extend_from_slice(chunk);
            } else if first == Wish::Cut as u8 && !net.is_sending(id) {
                net.send(id, vec![0; 8 * 1024 * 1024]).unwrap();
            } else if first == Wish::Finish as u8 {
                net.shutdown_write(id);
            }
        }
        Event::Ended(..) => client.ended = true,
        _ => {}
    }
    if !client.pending.is_empty() && !net.is_sending(id) && !gone {
        net.send(id, std::mem::take(&mut client.pending)).unwrap();
    }
    let unwanted = *wish == Some(Wish::Close as u8) || *wish == Some(Wish::Cut as u8);
    if gone || unwanted || client.ended && !net.is_sending(id) {
        clients.remove(&id);
        net.close(id);
    }
}

/// One connection of the stress test, over TCP or a Unix socket.
enum Line {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Line {
    fn open(random: &mut Random, tcp: SocketAddr, unix: &Path) -> Line {
        if random.below(2) == 0 {
            return Line::Tcp(connect(tcp));
        }
        let stream = UnixStream::connect(unix).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Line::Unix(stream)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Line::Tcp(stream) => stream.write_all(bytes),
            Line::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// Sends the end, and reads up to the peer's.
    fn finish(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self {
            Line::Tcp(stream) => {
                stream.shutdown(Shutdown::Write).and_then(|()| stream.read_to_end(&mut bytes))?
            }
            Line::Unix(stream) => {
                stream.shutdown(Shutdown::Write).and_then(|()| stream.read_to_end(&mut bytes))?
            }
        };
        Ok(bytes)
    }
}

/// Opens `count` connections, at most 50 at a time, and sends on and ends random ones of them.
fn stress_clients(mut random: Random, count: usize, tcp: SocketAddr, unix: &Path) {
    const OPEN_MAX: usize = 50;
    let wishes = [Wish::Echo, Wish::Echo, Wish::Echo, Wish::Close, Wish::Cut, Wish::Finish];
    let mut lines: Vec<(Line, Wish, Vec<u8>)> = Vec::new();
    let mut opened = 0;
    while opened < count || !lines.is_empty() {
        if opened < count && lines.len() < OPEN_MAX && random.below(3) > 0 {
            let line = Line::open(&mut random, tcp, unix);
            lines.push((line, wishes[random.below(wishes.len())], Vec::new()));
            opened += 1;
            continue;
        }
        if lines.is_empty() {
            continue;
        }
        let index = random.below(lines.len());
        let (line, wish, sent) = &mut lines[index];
        if random.below(2) == 0 && sent.len() < 40_000 {
            let len = 1 + random.below(10_000);
            let mut bytes = random.bytes(len);
            if sent.is_empty() {
                bytes[0] = *wish as u8;
            }
            // The other side may be gone, as it was asked to be.
            assert!(line.write(&bytes).is_ok() || !matches!(wish, Wish::Echo | Wish::Finish));
            sent.extend(bytes);
            continue;
        }
        let (mut line, wish, sent) = lines.swap_remove(index);
        match (random.below(4), &line) {
            (0, Line::Tcp(stream)) => reset_on_close(stream),
            (1, _) => {}
            _ => match (line.finish(), wish) {
                (Ok(received), Wish::Echo) => assert!(received == sent, "the echo differs"),
                (Ok(received), Wish::Finish) => assert!(received.is_empty()),
                (Err(error), Wish::Echo | Wish::Finish) => panic!("{error}"),
                (Err(error), _) => assert!(error.kind() != ErrorKind::WouldBlock, "not closed"),
                (Ok(_), _) => {}
            },
        }
    }
}

fn thousands_of_connections_leave_nothing_behind(backend: Backend) {
    if passed_in_child(backend, "thousands_of_connections_leave_nothing_behind") {
        return;
    }
    const NETWORKS: usize = 3;
    const CLIENT_THREADS: usize = 3;
    const CONNECTIONS: usize = 1500;
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let mut random = Random::new("stress");
    let folder = tempfile::tempdir().unwrap();
    let unix = folder.path().join("socket");
    let stop = AtomicBool::new(false);
    let (doorbells_out, doorbells_in) = mpsc::channel();
    let (mut to_networks, mut at_networks) = (Vec::new(), Vec::new());
    for _ in 0..NETWORKS {
        let (to_network, at_network) = mpsc::channel();
        to_networks.push(to_network);
        at_networks.push(at_network);
    }
    thread::scope(|scope| {
        let mut doorbells_to = Vec::new();
        for (index, at_network) in at_networks.into_iter().enumerate() {
            let (to_networks, doorbells_out, unix, stop) =
                (to_networks.clone(), doorbells_out.clone(), &unix, &stop);
            let (to_network, doorbells) = mpsc::channel::<Vec<Doorbell>>();
            doorbells_to.push(to_network);
            scope.spawn(move || {
                let mut rig = Rig::new(backend);
                let tcp = (index == 0).then(|| {
                    rig.net.listen(bind_unix(unix).unwrap());
                    rig.listen_tcp()
                });
                let wakeup = rig.net.wakeup().try_clone_to_owned().unwrap();
                doorbells_out.send((index, rig.net.doorbell(), wakeup, tcp)).unwrap();
                let others: Vec<_> = to_networks.into_iter().zip(doorbells.recv().unwrap()).collect();
                let mut rig = serve_stress(rig, &at_network, &others, stop);
                rig.settle();
                rig.assert_empty();
            });
        }
        let mut known: Vec<_> = (0..NETWORKS).map(|_| doorbells_in.recv_timeout(PATIENCE).unwrap()).collect();
        known.sort_by_key(|(index, ..)| *index);
        let tcp = known[0].3.unwrap();
        let doorbells: Vec<_> = known.iter().map(|(_, doorbell, ..)| doorbell.clone()).collect();
        doorbells_to.iter().for_each(|to_network| to_network.send(doorbells.clone()).unwrap());
        let clients: Vec<_> = (0..CLIENT_THREADS)
            .map(|_| {
                let (random, unix) = (random.fork(), &unix);
                scope.spawn(move || stress_clients(random, CONNECTIONS, tcp, unix))
            })
            .collect();
        let ended: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
        // Also when a client has failed, so that the test ends.
        stop.store(true, Ordering::SeqCst);
        known.iter().for_each(|(_, _, wakeup, _)| unpark(wakeup.as_fd()));
        ended.into_iter().for_each(|client| client.unwrap());
    });
    drop((to_networks, doorbells_out, doorbells_in));
    drop(folder);
    assert_eq!(descriptors(), before, "a descriptor is left");
}
