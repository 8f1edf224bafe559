//! The backend for systems that forbid io_uring: readiness by `epoll`, and one `recv` and one `send` for each client
//! and turn. It asks nothing newer than Linux 4.18, and has no unsafe code.
//!
//! Sockets are watched by edge: the kernel tells once that bytes have come, and [`Epoll`] remembers it until a receive
//! finds no more. So a socket that is paused, or for which no buffer is free, costs nothing, and no system call but
//! its receives and sends is paid for a socket in the usual case. A send is tried at once; only when the kernel takes
//! a part of it the socket is watched for room.
//!
//! Files are synced by a thread of their own, one after the other.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::pool::Pool;
use super::sockets::{Outgoing, Sockets};
use super::{
    ACCEPTS_AT_ONCE, Chunk, Doorbell, Event, Outbound, SEND_BYTES_MAX, SocketId, SyncOf, is_readable_within,
};

/// How many sockets one look at the kernel tells of, at most; the next look tells of others.
const EVENTS_AT_ONCE: usize = 512;

/// How many chunks a turn receives, at least, as long as there are some: from each socket one, and then again.
const CHUNKS_PER_TURN_MIN: usize = 8;

/// What an event is about: the wake-up, a listener by its number, or a socket `0:8 generation:24 index:32`.
const WAKEUP: u64 = u64::MAX;
const LISTENER: u64 = 1 << 63;

/// What sockets are watched for.
const ARRIVALS: EventFlags =
    EventFlags::IN.union(EventFlags::PRI).union(EventFlags::RDHUP).union(EventFlags::ET);
/// What tells that a receive may stop before all that has come: at the end, or at a byte that is marked as urgent.
const STOPS: EventFlags =
    EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR).union(EventFlags::PRI);

pub(super) struct Socket {
    pub(super) descriptor: OwnedFd,
    /// The caller wants to receive: it has not paused the socket.
    wanted: bool,
    /// The kernel has told of something to receive, and no receive has found the end of it.
    has_more: bool,
    /// The kernel has told of something at which a receive stops: only one that finds nothing tells that no more is
    /// there.
    has_stop: bool,
    /// The end was reported: nothing is received any more.
    ended: bool,
    /// It stands in [`Epoll::readable`].
    listed: bool,
    pub(super) sending: Option<Outgoing>,
    /// It is watched for room.
    awaits_room: bool,
}

struct Listener {
    pub(super) descriptor: OwnedFd,
    /// A connection waits.
    is_ready: bool,
    /// Accepting failed: it is not watched until the caller wants it.
    resting: bool,
}

/// A thread that syncs one file after the other.
pub(super) struct Syncs {
    begin: mpsc::Sender<(Arc<File>, SyncOf)>,
    ended: mpsc::Receiver<io::Result<()>>,
    /// Syncs whose ends are not told.
    pub(super) untold: usize,
    /// An end that was waited for.
    awaited: Option<io::Result<()>>,
}

pub(super) struct Epoll {
    epoll: OwnedFd,
    /// Readable when another thread wants a turn to be taken.
    wakeup: Arc<OwnedFd>,
    pub(super) sockets: Sockets<Socket>,
    listeners: Vec<Listener>,
    pub(super) pool: Rc<Pool>,
    pub(super) syncs: Syncs,
    /// How long what arrives at sockets may gather while a sync is under way.
    gathering: Duration,
    /// Sockets with something to receive that is wanted.
    readable: VecDeque<SocketId>,
    /// Sockets with something to send that the kernel may take.
    sendable: VecDeque<SocketId>,
    /// What the next turn tells: sends that have ended.
    told: Vec<Event>,
    /// The kernel was asked what has happened, and the next turn need not do it again.
    has_looked: bool,
    /// The last turn only told how sends ended, and did not ask the kernel.
    has_skipped: bool,
    /// A wake-up, a connection, or room for a send came with the last look.
    has_news: bool,
    happened: Vec<epoll::Event>,
}

impl Socket {
    fn is_readable(&self) -> bool {
        self.wanted && self.has_more && !self.ended
    }
}

impl Syncs {
    /// Nothing to do yet. `wakeup` tells that a sync has ended.
    fn new(wakeup: Weak<OwnedFd>) -> io::Result<Syncs> {
        let (begin, begun) = mpsc::channel::<(Arc<File>, SyncOf)>();
        let (sender, ended) = mpsc::channel();
        let work = move || {
            for (file, of) in begun {
                let result = match of {
                    SyncOf::Data => rustix::fs::fdatasync(&file),
                    SyncOf::Everything => rustix::fs::fsync(&file),
                };
                drop(file);
                let _ = sender.send(result.map_err(io::Error::from)); // The backend may have been dropped.
                if let Some(wakeup) = wakeup.upgrade() {
                    super::unpark((*wakeup).as_fd());
                }
            }
        };
        std::thread::Builder::new().name("kvlite-sync".to_owned()).spawn(work)?;
        Ok(Syncs { begin, ended, untold: 0, awaited: None })
    }

    /// Waits until one has ended, at most for `patience`.
    fn await_end(&mut self, patience: Duration) {
        if self.awaited.is_none() {
            self.awaited = self.ended.recv_timeout(patience).ok();
        }
    }

    /// Tells of those that have ended. Returns whether there were some.
    fn tell(&mut self, events: &mut Vec<Event>) -> bool {
        if self.untold == 0 {
            return false;
        }
        let before = events.len();
        events.extend(self.awaited.take().into_iter().chain(self.ended.try_iter()).map(Event::Synced));
        let ended = events.len() - before;
        self.untold -= ended;
        ended > 0
    }
}

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wakeup = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, &wakeup, EventData::new_u64(WAKEUP), EventFlags::IN | EventFlags::ET)?;
        Ok(Epoll {
            epoll,
            syncs: Syncs::new(Arc::downgrade(&wakeup))?,
            wakeup,
            sockets: Sockets::default(),
            listeners: Vec::new(),
            pool: Pool::new(),
            gathering: Duration::ZERO,
            readable: VecDeque::new(),
            sendable: VecDeque::new(),
            told: Vec::new(),
            has_looked: false,
            has_skipped: false,
            has_news: false,
            happened: Vec::with_capacity(EVENTS_AT_ONCE),
        })
    }

    pub fn doorbell(&self) -> Doorbell {
        Doorbell(self.wakeup.clone())
    }

    pub fn listen(&mut self, descriptor: OwnedFd) -> usize {
        self.listeners.push(Listener { descriptor, is_ready: false, resting: true });
        self.accept(self.listeners.len() - 1);
        self.listeners.len() - 1
    }

    pub fn accept(&mut self, listener: usize) {
        let Listener { descriptor, resting, .. } = &mut self.listeners[listener];
        if !std::mem::take(resting) {
            return;
        }
        let token = EventData::new_u64(LISTENER | listener as u64);
        let watched = rustix::io::ioctl_fionbio(&*descriptor, true)
            .and_then(|()| epoll::add(&self.epoll, &*descriptor, token, EventFlags::IN));
        if let Err(error) = watched {
            *resting = true;
            self.told.push(Event::AcceptFailed { listener, error: error.into() });
        }
    }

    pub fn attach(&mut self, descriptor: OwnedFd) -> SocketId {
        let id = self.sockets.insert(Socket {
            descriptor,
            wanted: true,
            has_more: false,
            has_stop: false,
            ended: false,
            listed: false,
            sending: None,
            awaits_room: false,
        });
        let descriptor = &self.sockets.get(id).expect("it was inserted").descriptor;
        if let Err(error) = epoll::add(&self.epoll, descriptor, token_of(id), ARRIVALS) {
            let remedy = "raise the sysctl fs.epoll.max_user_watches";
            tracing::warn!(%error, remedy, "a connection cannot be watched and is closed");
            self.told.push(Event::Ended(id, Some(error.into())));
        }
        id
    }

    pub fn pause(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(id) {
            socket.wanted = false;
        }
    }

    pub fn resume(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(id) {
            socket.wanted = true;
            self.list(id);
        }
    }

    pub fn send(&mut self, id: SocketId, bytes: Outbound) -> Result<(), Outbound> {
        match self.sockets.get_mut(id) {
            Some(socket) if socket.sending.is_none() => socket.sending = Some(Outgoing::new(bytes)),
            _ => return Err(bytes),
        }
        self.go_on_sending(id);
        Ok(())
    }

    pub fn close(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.remove(id) {
            // The peer is told at once even where another process has the descriptor as well.
            let _ = rustix::net::shutdown(&socket.descriptor, rustix::net::Shutdown::Both);
        }
    }

    pub fn sync(&mut self, file: Arc<File>, of: SyncOf) {
        self.syncs.untold += 1;
        self.syncs.begin.send((file, of)).expect("the thread takes syncs as long as this is there");
    }

    pub fn turn(&mut self, events: &mut Vec<Event>) -> io::Result<bool> {
        let tells_ends = self.tell(events);
        // A turn that tells how sends ended does not look at the kernel: a wait may come next, which does. But no two
        // such turns follow each other, as a worker with other work would not wait.
        let has_looked = std::mem::take(&mut self.has_looked);
        self.has_skipped = !has_looked && tells_ends && !self.has_skipped;
        if !has_looked && !self.has_skipped {
            self.look(Duration::ZERO)?;
        }
        let mut progressed = std::mem::take(&mut self.has_news);
        progressed |= self.syncs.tell(events);
        for _ in 0..self.sendable.len() {
            let id = self.sendable.pop_front().expect("there are as many as were counted");
            self.go_on_sending(id);
            progressed = true;
        }
        for listener in 0..self.listeners.len() {
            self.accept_some(listener, events);
        }
        Ok(progressed | self.receive(events))
    }

    pub fn ready(&self) -> bool {
        let can_receive = !self.readable.is_empty() && self.pool.free_count() > 0;
        can_receive || self.has_news || !self.told.is_empty() || !self.sendable.is_empty()
    }

    pub fn gather_for(&mut self, gathering: Duration) {
        self.gathering = gathering;
    }

    pub fn wait_for(&mut self, count: usize, patience: Duration) -> io::Result<()> {
        if self.ready() {
            return Ok(());
        }
        if self.syncs.untold == 0 {
            return self.wait_for_sockets(count, patience);
        }
        if !self.gathering.is_zero() {
            self.syncs.await_end(self.gathering.min(patience));
        }
        let patience = if self.syncs.awaited.is_some() { Duration::ZERO } else { patience };
        self.wait_for_sockets(1, patience)
    }

    /// Waits until so many sockets have something to receive, something else has happened, or patience ends.
    fn wait_for_sockets(&mut self, count: usize, patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        let mut left = patience;
        loop {
            self.look(left)?;
            self.has_looked = true;
            left = until.saturating_duration_since(Instant::now());
            let has_enough = self.has_news || !self.sendable.is_empty() || self.readable.len() >= count;
            if has_enough || count <= 1 || left.is_zero() {
                return Ok(());
            }
        }
    }

    pub fn wakeup(&self) -> BorrowedFd<'_> {
        (*self.wakeup).as_fd()
    }

    /// Takes note of what has happened; waits for it, at most for `patience`.
    fn look(&mut self, patience: Duration) -> io::Result<()> {
        let mut happened = std::mem::take(&mut self.happened);
        let result = wait_for_events(&self.epoll, &mut happened, patience);
        for event in happened.drain(..) {
            let flags = event.flags;
            match event.data.u64() {
                // It need not be read: an edge tells of the next wake-up all the same.
                WAKEUP => self.has_news = true,
                token if token & LISTENER != 0 => {
                    self.listeners[(token & !LISTENER) as usize].is_ready = true;
                    self.has_news = true;
                }
                token => self.on_socket(id_of(token), flags),
            }
        }
        self.happened = happened;
        result
    }

    fn on_socket(&mut self, id: SocketId, flags: EventFlags) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        if socket.awaits_room && flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR) {
            self.sendable.push_back(id);
        }
        if flags.intersects(EventFlags::IN | STOPS) {
            socket.has_more = true;
            socket.has_stop |= flags.intersects(STOPS);
            self.list(id);
        }
    }

    /// Has the next turn receive from a socket, if it has something that is wanted.
    fn list(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        if socket.is_readable() && !std::mem::replace(&mut socket.listed, true) {
            self.readable.push_back(id);
        }
    }

    /// Tells of what has ended meanwhile at sockets that are open. Returns whether there was something.
    fn tell(&mut self, events: &mut Vec<Event>) -> bool {
        let told = !self.told.is_empty();
        for event in self.told.drain(..) {
            let is_open = match &event {
                Event::Sent(id, _) | Event::SendFailed(id, _) | Event::Ended(id, _) => {
                    self.sockets.get(*id).is_some()
                }
                _ => true,
            };
            if is_open {
                events.push(event);
            }
        }
        told
    }

    fn accept_some(&mut self, index: usize, events: &mut Vec<Event>) {
        let listener = &mut self.listeners[index];
        if !std::mem::take(&mut listener.is_ready) {
            return;
        }
        for _ in 0..ACCEPTS_AT_ONCE {
            match rustix::net::accept_with(&listener.descriptor, SocketFlags::CLOEXEC) {
                Ok(socket) => events.push(Event::Accepted { listener: index, socket }),
                // The peer gave up while it waited.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    listener.resting = true;
                    let _ = epoll::delete(&self.epoll, &listener.descriptor); // It is watched: this cannot fail.
                    events.push(Event::AcceptFailed { listener: index, error: error.into() });
                    break;
                }
            }
        }
    }

    /// Receives a chunk from each socket that has something, and then again from those that have more, as far as
    /// buffers and the turn go. Returns whether anything came.
    fn receive(&mut self, events: &mut Vec<Event>) -> bool {
        let mut progressed = false;
        for _ in 0..self.readable.len().max(CHUNKS_PER_TURN_MIN) {
            if self.pool.free_count() == 0 {
                break;
            }
            let Some(id) = self.readable.pop_front() else { break };
            let Some(socket) = self.sockets.get_mut(id) else { continue };
            socket.listed = false;
            if !socket.is_readable() {
                continue;
            }
            progressed = true;
            let Socket { descriptor, has_more, has_stop, ended, .. } = socket;
            let received = self.pool.fill(|buffer| {
                let capacity = buffer.len();
                let count = receive_some(descriptor, buffer)?;
                // Less than there was room for: nothing is left, unless something has stopped it.
                *has_more = *has_stop || count == capacity;
                Ok(count)
            });
            match received {
                Ok(Some(chunk)) => events.push(Event::Received(id, Chunk::Pooled(chunk))),
                Ok(None) => {
                    *ended = true;
                    events.push(Event::Ended(id, None));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => *has_more = false,
                Err(error) => {
                    *ended = true;
                    events.push(Event::Ended(id, Some(error)));
                }
            }
            self.list(id);
        }
        progressed
    }

    /// Hands to the kernel what it takes now of the send on its way.
    fn go_on_sending(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id) else { return };
        let Some(outgoing) = &mut socket.sending else { return };
        let rest = outgoing.rest();
        let piece = &rest[..rest.len().min(SEND_BYTES_MAX)];
        let whole = piece.len();
        let sent = loop {
            match rustix::net::send(&socket.descriptor, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break Ok(0),
                sent => break sent,
            }
        };
        let takes_more = match sent {
            Ok(count) => {
                outgoing.advance(count);
                count == whole
            }
            Err(error) => {
                socket.sending = None;
                self.told.push(Event::SendFailed(id, error.into()));
                return;
            }
        };
        if let Some(outgoing) = socket.sending.take_if(|outgoing| outgoing.is_done()) {
            self.told.push(Event::Sent(id, outgoing.into_buffer()));
        } else if takes_more {
            return self.sendable.push_back(id); // Others come first: this turn has sent enough of it.
        }
        let awaits_room = socket.sending.is_some();
        if awaits_room != std::mem::replace(&mut socket.awaits_room, awaits_room) {
            let flags = if awaits_room { ARRIVALS | EventFlags::OUT } else { ARRIVALS };
            // Only a descriptor that is not watched could make this fail, or memory that is too short by some bytes.
            if let Err(error) = epoll::modify(&self.epoll, &socket.descriptor, token_of(id), flags) {
                socket.sending = None;
                self.told.push(Event::SendFailed(id, error.into()));
            }
        }
    }
}

fn token_of(id: SocketId) -> EventData {
    EventData::new_u64(u64::from(id.generation) << 32 | u64::from(id.index))
}

fn id_of(token: u64) -> SocketId {
    SocketId { index: token as u32, generation: (token >> 32) as u32 }
}

fn receive_some(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Err(Errno::INTR) => {}
            received => return received.map(|(count, _)| count).map_err(io::Error::from),
        }
    }
}

/// Waits for events. The system call counts in milliseconds: what is shorter is waited for with another one before.
fn wait_for_events(epoll: &OwnedFd, happened: &mut Vec<epoll::Event>, patience: Duration) -> io::Result<()> {
    let whole_ms = i64::from(i32::try_from(patience.as_millis()).unwrap_or(i32::MAX));
    if whole_ms == 0 && !patience.is_zero() && !is_readable_within(epoll.as_fd(), patience)? {
        return Ok(());
    }
    let timeout = Timespec { tv_sec: whole_ms / 1000, tv_nsec: whole_ms % 1000 * 1_000_000 };
    match epoll::wait(epoll, spare_capacity(happened), Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
