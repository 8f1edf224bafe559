//! The ring: a second `io_uring` beside the executor's, for sockets, wake-ups between workers and the syncing of files.
//!
//! The contract that makes its API safe:
//!
//! 1. The kernel writes into provided buffers alone ([`Filled`]); see `buffers.rs`.
//! 2. The kernel reads from a buffer that was moved into [`Ring::send`], and that comes back in
//!    [`Event::Sent`] once the kernel is done with it, or from one that is shared and that is not changed. A
//!    socket's slot, its descriptor and that buffer live until every operation on the socket has completed,
//!    whatever the caller does with the socket meanwhile.
//! 3. Dropping the ring first ends every operation on a socket and reaps its completion, then frees the
//!    memory. Closing the ring's descriptor would not do: doorbells keep the ring alive in the kernel.
//!
//! One turn is one system call for all sockets: [`Ring::turn`] submits what was queued and reaps what
//! completed. Syncs have a second, small ring, which is submitted to at once.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use glommio::io::BufferedFile;
use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::buffers::{Buffers, CHUNK_COUNT};
use super::sockets::{GENERATION_MASK, Outgoing, Sockets};
use super::{
    ACCEPTS_AT_ONCE, Chunk, Doorbell, Event, Outbound, SEND_BYTES_MAX, SocketId, SyncOf, is_readable_within,
};

/// Entries of the submission queue: what one turn may queue before it is submitted early.
const SUBMISSIONS: u32 = 2048;

/// Entries of the completion queue: what the kernel may complete before it has to wait for a turn.
pub(super) const COMPLETIONS: u32 = 8192;

/// Entries of the disk ring's queue; what is queued is submitted at once.
const SYNC_SUBMISSIONS: u32 = 16;

/// What one ring pins of the memory that a user may lock, on kernels that count it (6.14 and newer): the queues of
/// both rings and the ring of buffers.
pub const PINNED_BYTES: u64 = 284 << 10;

/// How often a ring that is dropped cancels what is left, and how long it waits for an answer each time.
const DRAIN_ROUNDS_MAX: usize = 500;
const DRAIN_ROUND_NS: u32 = 10_000_000;

/// The group under which the provided buffers are registered.
const BUFFER_GROUP: u16 = 0;

/// `IORING_ENTER_GETEVENTS`: run deferred completions even where nothing is waited for.
const ENTER_GETEVENTS: u32 = 1;

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    Accept = 1,
    Receive,
    Send,
    Sync,
    Woken,
    Ignored,
}

impl Operation {
    fn of(user_data: u64) -> Operation {
        match (user_data >> 56) as u8 {
            1 => Operation::Accept,
            2 => Operation::Receive,
            3 => Operation::Send,
            4 => Operation::Sync,
            5 => Operation::Woken,
            _ => Operation::Ignored,
        }
    }

    /// `operation:8 generation:24 index:32`
    pub(super) fn tag(self, generation: u32, index: u32) -> u64 {
        (self as u64) << 56 | u64::from(generation) << 32 | u64::from(index)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiving {
    /// The kernel delivers what arrives.
    Armed,
    /// The kernel is being asked to stop; chunks may still arrive.
    Stopping,
    /// Nothing is received: paused, or out of buffers.
    Idle,
    /// Nothing is received any more: the end was reported.
    Ended,
}

pub(super) struct Socket {
    pub(super) descriptor: OwnedFd,
    pub(super) receiving: Receiving,
    /// The caller wants to receive: it has not paused or closed the socket.
    wanted: bool,
    pub(super) sending: Option<Outgoing>,
    /// The caller has closed it; the slot stays until the kernel is done.
    closed: bool,
}

pub(super) struct Listener {
    pub(super) descriptor: OwnedFd,
    /// Accepts that are queued or in the kernel.
    accepting: usize,
    /// Accepting failed: no more are queued until the caller wants them.
    resting: bool,
}

/// The ring of sockets, and that of the disk. They belong to the thread that made it.
pub(super) struct Ring {
    pub(super) ring: IoUring,
    /// A ring for syncs alone: it can be waited for without waking for every packet.
    disk: IoUring,
    /// How many syncs are under way there.
    pub(super) syncs_apart: usize,
    /// How long what arrives at sockets may gather while one is.
    gathering: Duration,
    pub(super) buffers: Rc<Buffers>,
    pub(super) sockets: Sockets<Socket>,
    listeners: Vec<Listener>,
    /// Files that are being synced: open until it is done.
    pub(super) syncs: Vec<Option<Arc<File>>>,
    /// Sockets that found no free buffer, and receive again when there are some.
    starved: VecDeque<SocketId>,
    doorbell: Doorbell,
    /// Signalled by the kernel when something completes while [`Ring::parking`] waits.
    wakeup: OwnedFd,
    completions: Vec<cqueue::Entry>,
}

impl Socket {
    /// Whether an operation on the socket is queued or in the kernel.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.receiving, Receiving::Armed | Receiving::Stopping) || self.sending.is_some()
    }
}

impl Ring {
    /// A ring without sockets. Needs Linux 6.1 or newer.
    pub fn new() -> io::Result<Ring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let buffers = Buffers::new();
        // SAFETY: 1. the address is that of `CHUNK_COUNT` entries, aligned to a page; 2. they live as long as
        // `buffers`, which is freed once no operation takes buffers from them any more.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.ring_address(),
                CHUNK_COUNT,
                BUFFER_GROUP,
                0,
            )?;
        }
        let wakeup = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        ring.submitter().register_eventfd(wakeup.as_raw_fd())?;
        let disk = IoUring::new(SYNC_SUBMISSIONS)?;
        disk.submitter().register_eventfd(wakeup.as_raw_fd())?;
        // SAFETY: 1. the ring's descriptor is open while `ring` lives, and the borrow ends before that.
        let doorbell = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) }.try_clone_to_owned()?;
        let mut net = Ring {
            ring,
            disk,
            syncs_apart: 0,
            gathering: Duration::ZERO,
            buffers,
            sockets: Sockets::default(),
            listeners: Vec::new(),
            syncs: Vec::new(),
            starved: VecDeque::new(),
            doorbell: Doorbell(Arc::new(doorbell)),
            wakeup,
            completions: Vec::new(),
        };
        net.unparked();
        Ok(net)
    }

    /// The means by which other rings wake this one.
    pub fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    /// Wakes the ring that has this doorbell. The bell rings with the next turn's submission.
    pub fn ring_doorbell(&mut self, peer: &Doorbell) {
        let bell =
            opcode::MsgRingData::new(types::Fd(peer.0.as_raw_fd()), 0, Operation::Woken.tag(0, 0), None);
        self.push(&bell.build().flags(squeue::Flags::SKIP_SUCCESS).user_data(Operation::Ignored.tag(0, 0)));
    }

    /// Starts to accept on a listening socket. Returns the number under which events name it.
    pub fn listen(&mut self, descriptor: OwnedFd) -> usize {
        self.listeners.push(Listener { descriptor, accepting: 0, resting: false });
        self.accept(self.listeners.len() - 1);
        self.listeners.len() - 1
    }

    /// Accepts again after [`Event::AcceptFailed`]. Does nothing while the listener accepts.
    pub fn accept(&mut self, listener: usize) {
        let Listener { descriptor, accepting, resting } = &mut self.listeners[listener];
        *resting = false;
        let missing = ACCEPTS_AT_ONCE - std::mem::replace(accepting, ACCEPTS_AT_ONCE);
        let fd = types::Fd(descriptor.as_raw_fd());
        let accept = opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut());
        let entry = accept.flags(libc::SOCK_CLOEXEC).build();
        let entry = entry.user_data(Operation::Accept.tag(0, listener as u32));
        (0..missing).for_each(|_| self.push(&entry));
    }

    /// Serves a connected socket that is in blocking mode, as accepted ones are: what arrives comes as
    /// [`Event::Received`].
    pub fn attach(&mut self, descriptor: OwnedFd) -> SocketId {
        let id = self.sockets.insert(Socket {
            descriptor,
            receiving: Receiving::Idle,
            wanted: true,
            sending: None,
            closed: false,
        });
        self.receive(id);
        id
    }

    /// Stops receiving; what the peer sends stays in the kernel and slows the peer down. Chunks that are on
    /// their way still arrive.
    pub fn pause(&mut self, id: SocketId) {
        let Some(socket) = self.open(id) else { return };
        socket.wanted = false;
        if socket.receiving == Receiving::Armed {
            socket.receiving = Receiving::Stopping;
            let target = Operation::Receive.tag(id.generation, id.index);
            self.push(&opcode::AsyncCancel::new(target).build().user_data(Operation::Ignored.tag(0, 0)));
        }
    }

    /// Receives again after [`Ring::pause`]. Does nothing once the end was reported.
    pub fn resume(&mut self, id: SocketId) {
        let Some(socket) = self.open(id) else { return };
        socket.wanted = true;
        if socket.receiving == Receiving::Idle {
            self.receive(id);
        }
    }

    /// Sends all of `bytes`, which comes back in [`Event::Sent`]. One send at a time: while
    /// a send is on its way, or on a socket that is closed, it returns the bytes.
    pub fn send(&mut self, id: SocketId, bytes: impl Into<Outbound>) -> Result<(), Outbound> {
        let bytes = bytes.into();
        match self.open(id) {
            Some(socket) if socket.sending.is_none() => socket.sending = Some(Outgoing::new(bytes)),
            _ => return Err(bytes),
        }
        self.push_send(id);
        Ok(())
    }

    /// Closes the socket. No later turn's event names it; the descriptor is closed once the kernel is done
    /// with it. A send that is on its way is cut off.
    pub fn close(&mut self, id: SocketId) {
        let Some(socket) = self.open(id) else { return };
        socket.closed = true;
        socket.wanted = false;
        // Ends a receive and a send that are on their way.
        let _ = rustix::net::shutdown(&socket.descriptor, rustix::net::Shutdown::Both);
        self.release(id);
    }

    /// Brings a file to disk, on a thread of the kernel; [`Event::Synced`] tells the end.
    pub fn sync(&mut self, file: Arc<File>, of: SyncOf) {
        let index = self.syncs.iter().position(Option::is_none).unwrap_or_else(|| {
            self.syncs.push(None);
            self.syncs.len() - 1
        });
        let flags = match of {
            SyncOf::Data => types::FsyncFlags::DATASYNC,
            SyncOf::Everything => types::FsyncFlags::empty(),
        };
        let entry = opcode::Fsync::new(types::Fd(file.as_raw_fd())).flags(flags).build();
        let entry = entry.user_data(Operation::Sync.tag(0, index as u32));
        self.syncs[index] = Some(file);
        if self.gathering.is_zero() {
            return self.push(&entry);
        }
        self.syncs_apart += 1;
        // SAFETY: 1. a sync names no memory; 2. the file is open until its completion is reaped.
        while unsafe { self.disk.submission().push(&entry) }.is_err() {
            self.submit_syncs();
        }
        self.submit_syncs();
    }

    /// What the kernel does not take now, for want of memory, the next turn submits.
    fn submit_syncs(&mut self) {
        let _ = self.disk.submit();
    }

    /// Submits what was queued, reaps what completed, and appends it to `events`: one system call, and none
    /// when there is nothing to submit and nothing has completed. Returns whether anything completed.
    pub fn turn(&mut self, events: &mut Vec<Event>) -> io::Result<bool> {
        self.feed_starved();
        if !self.ready() {
            return Ok(false);
        }
        if self.network_ready() {
            self.enter()?;
        }
        if !self.disk.submission().is_empty() {
            self.submit_syncs();
        }
        let mut completions = std::mem::take(&mut self.completions);
        completions.extend(self.ring.completion());
        let network_count = completions.len();
        completions.extend(self.disk.completion()); // Last: the next sync serves what arrived with them as well.
        self.syncs_apart -= completions.len() - network_count;
        let progressed = !completions.is_empty();
        for completion in completions.drain(..) {
            self.complete(&completion, events);
        }
        self.completions = completions;
        Ok(progressed)
    }

    /// Whether a turn would submit or reap something.
    pub fn ready(&mut self) -> bool {
        self.network_ready() || !self.disk.completion().is_empty() || !self.disk.submission().is_empty()
    }

    fn network_ready(&mut self) -> bool {
        let submissions = self.ring.submission();
        if !submissions.is_empty() || submissions.taskrun() || submissions.cq_overflow() {
            return true;
        }
        drop(submissions);
        let fed = !self.starved.is_empty() && self.buffers.free_count() > 0;
        fed || !self.ring.completion().is_empty()
    }

    /// How long [`Ring::wait_for`] lets what arrives at sockets gather while a sync is under way that begins from now on;
    /// at first not at all.
    pub fn gather_for(&mut self, gathering: Duration) {
        self.gathering = gathering;
    }

    /// Submits what was queued and blocks the thread until so many operations have completed, at most for `patience`;
    /// while a sync is under way, until one has.
    pub fn wait_for(&mut self, count: usize, patience: Duration) -> io::Result<()> {
        if self.syncs_apart > 0 {
            return self.wait_for_both(patience);
        }
        let patience = types::Timespec::from(patience);
        let args = types::SubmitArgs::new().timespec(&patience);
        match self.ring.submitter().submit_with_args(count, &args) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ETIME) || is_passing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// As [`Ring::wait_for`], while a sync is under way.
    fn wait_for_both(&mut self, patience: Duration) -> io::Result<()> {
        if !self.ring.submission().is_empty() {
            self.enter()?;
        }
        if !self.gathering.is_zero() {
            // SAFETY: 1. the descriptor is open while the ring lives, and the borrow ends before that.
            let disk = unsafe { BorrowedFd::borrow_raw(self.disk.as_raw_fd()) };
            if is_readable_within(disk, self.gathering)? {
                return Ok(());
            }
        }
        // The descriptor of the other ring would not do: it does not tell of completions that wait to be run.
        self.parking();
        if !self.ready() && is_readable_within(self.wakeup.as_fd(), patience)? {
            rustix::io::read(&self.wakeup, &mut [0; 8])?;
        }
        self.unparked();
        Ok(())
    }

    /// A file that becomes readable (8 bytes) when something completes between [`Ring::parking`] and
    /// [`Ring::unparked`]: the executor sleeps on it, and still serves its timers and tasks.
    pub fn wakeup_file(&self) -> io::Result<BufferedFile> {
        let descriptor = self.wakeup.try_clone()?.into_raw_fd();
        // SAFETY: 1. the descriptor is open; 2. nothing else owns it.
        Ok(unsafe { BufferedFile::from_raw_fd(descriptor) })
    }

    /// Lets completions signal the wake-up file. Call [`Ring::ready`] after it, and sleep only when that is
    /// false.
    pub fn parking(&mut self) {
        self.ring.completion().enable_eventfd();
        self.disk.completion().enable_eventfd();
        // The kernel reads the flag after it publishes a completion; this side publishes the flag, then reads
        // the completions. Without a full fence both could miss each other.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// Ends [`Ring::parking`].
    pub fn unparked(&mut self) {
        self.ring.completion().disable_eventfd();
        self.disk.completion().disable_eventfd();
    }

    /// The descriptor behind [`Ring::wakeup_file`].
    pub fn wakeup(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }

    /// The socket, unless it was closed.
    fn open(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.sockets.get_mut(id).filter(|socket| !socket.closed)
    }

    fn receive(&mut self, id: SocketId) {
        let Some(socket) = self.open(id) else { return };
        socket.receiving = Receiving::Armed;
        let fd = types::Fd(socket.descriptor.as_raw_fd());
        let entry = opcode::RecvMulti::new(fd, BUFFER_GROUP).build();
        self.push(&entry.user_data(Operation::Receive.tag(id.generation, id.index)));
    }

    fn push_send(&mut self, id: SocketId) {
        let Some(Socket { descriptor, sending: Some(outgoing), .. }) = self.sockets.get(id) else { return };
        let rest = outgoing.rest();
        let len = rest.len().min(SEND_BYTES_MAX) as u32;
        let entry = opcode::Send::new(types::Fd(descriptor.as_raw_fd()), rest.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.push(&entry.user_data(Operation::Send.tag(id.generation, id.index)));
    }

    pub(super) fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: 1. receives name no memory, they take provided buffers; 2. the memory that a send names is
        // the heap memory of `Outgoing::bytes`, which stays where it is and untouched until the completion is
        // reaped: shared bytes cannot be changed; `sending` is not handed out before, `release` and `drop` wait
        // for it; 3. no other operation names memory: an accept asks for no address. Sockets, listeners and files
        // keep their descriptors open; a doorbell that is closed too early rings nothing, and the number in its
        // entry is only ever sent a message.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            // The queue is full: hand over what there is. The kernel takes it all at once, unless it is out
            // of memory, and then there is nothing better than to ask again.
            let _ = self.ring.submit();
        }
    }

    fn enter(&mut self) -> io::Result<()> {
        let count = self.ring.submission().len() as u32;
        // SAFETY: 1. no argument is passed besides the flags, so the kernel reads no memory of ours.
        match unsafe { self.ring.submitter().enter::<libc::sigset_t>(count, 0, ENTER_GETEVENTS, None) } {
            Ok(_) => Ok(()),
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn feed_starved(&mut self) {
        if self.buffers.free_count() == 0 {
            return;
        }
        while let Some(id) = self.starved.pop_front() {
            if self.open(id).is_some_and(|socket| socket.wanted && socket.receiving == Receiving::Idle) {
                self.receive(id);
            }
        }
    }

    fn complete(&mut self, completion: &cqueue::Entry, events: &mut Vec<Event>) {
        let user_data = completion.user_data();
        let index = user_data as u32;
        let id = SocketId { index, generation: (user_data >> 32) as u32 & GENERATION_MASK };
        match Operation::of(user_data) {
            Operation::Accept => self.accepted(index as usize, completion, events),
            Operation::Receive => self.received(id, completion, events),
            Operation::Send => self.sent(id, completion.result(), events),
            Operation::Sync => {
                self.syncs[index as usize] = None;
                events.push(Event::Synced(outcome(completion.result()).map(drop)));
            }
            Operation::Woken | Operation::Ignored => {}
        }
    }

    fn accepted(&mut self, index: usize, completion: &cqueue::Entry, events: &mut Vec<Event>) {
        let listener = &mut self.listeners[index];
        listener.accepting -= 1;
        match outcome(completion.result()) {
            Ok(descriptor) => {
                // SAFETY: 1. a successful accept returns a new open descriptor; 2. it is returned once, so
                // nothing else owns it.
                let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
                events.push(Event::Accepted { listener: index, socket });
            }
            // The peer gave up while it waited.
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {}
            Err(error) => {
                if !std::mem::replace(&mut listener.resting, true) {
                    events.push(Event::AcceptFailed { listener: index, error });
                }
            }
        }
        if !self.listeners[index].resting {
            self.accept(index);
        }
    }

    fn received(&mut self, id: SocketId, completion: &cqueue::Entry, events: &mut Vec<Event>) {
        let result = completion.result();
        let chunk = cqueue::buffer_select(completion.flags()).map(|buffer| {
            // SAFETY: 1. this completion hands the buffer over, with this length, or with none when it
            // failed; 2. a completion is reaped once, and the kernel names the buffer again only after it was
            // given back.
            Chunk::Ring(unsafe { self.buffers.take(buffer, result.max(0) as u32) })
        });
        let socket = self.sockets.get_mut(id).expect("a slot outlives its operations");
        if !cqueue::more(completion.flags()) {
            socket.receiving = Receiving::Idle;
        }
        let idle = socket.receiving == Receiving::Idle;
        if socket.closed {
            drop(chunk);
            self.release(id);
            return;
        }
        match outcome(result) {
            Ok(0) => {
                socket.receiving = Receiving::Ended;
                events.push(Event::Ended(id, None));
            }
            Ok(_) => {
                let chunk = chunk.expect("received bytes lie in a provided buffer");
                events.push(Event::Received(id, chunk));
                if idle && socket.wanted {
                    self.receive(id);
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.starved.push_back(id),
            // Paused; or resumed before the pause took effect.
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {
                if socket.wanted {
                    self.receive(id);
                }
            }
            Err(error) => {
                socket.receiving = Receiving::Ended;
                events.push(Event::Ended(id, Some(error)));
            }
        }
    }

    fn sent(&mut self, id: SocketId, result: i32, events: &mut Vec<Event>) {
        let socket = self.sockets.get_mut(id).expect("a slot outlives its operations");
        let mut outgoing = socket.sending.take().expect("a send completes once");
        if socket.closed {
            self.release(id);
            return;
        }
        match outcome(result) {
            Ok(count) => {
                outgoing.advance(count as usize);
                if outgoing.is_done() {
                    events.push(Event::Sent(id, outgoing.into_buffer()));
                } else {
                    socket.sending = Some(outgoing);
                    self.push_send(id);
                }
            }
            Err(error) => events.push(Event::SendFailed(id, error)),
        }
    }

    /// Frees the slot of a closed socket once no operation names it any more.
    fn release(&mut self, id: SocketId) {
        if self.sockets.get(id).is_some_and(|socket| socket.closed && !socket.is_busy()) {
            self.sockets.remove(id);
        }
    }
}

impl Ring {
    /// Ends every operation on a socket and reaps its completion. Returns whether all of them have ended.
    fn drain(&mut self) -> bool {
        // Also ends what a thread of the kernel is blocked in, and has `complete` free the slots.
        for id in self.sockets.ids() {
            self.close(id);
        }
        // Doorbells that were rung last have to be heard.
        let _ = self.ring.submit();
        let mut events = Vec::new();
        for _ in 0..DRAIN_ROUNDS_MAX {
            if self.sockets.is_empty() && !self.listeners.iter().any(|listener| listener.accepting > 0) {
                return true;
            }
            // Only what was submitted can be cancelled. Nothing may be left to cancel, when all that is
            // missing is the reaping; and whatever fails here is tried again.
            let _ = self.ring.submit();
            let all = types::CancelBuilder::any().all();
            let _ = self.ring.submitter().register_sync_cancel(None, all);
            let patience = types::Timespec::new().nsec(DRAIN_ROUND_NS);
            let _ = self.ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&patience));
            let completions: Vec<_> = self.ring.completion().collect();
            for completion in &completions {
                self.complete(completion, &mut events);
            }
            // Closes connections that were accepted meanwhile, and gives buffers back.
            events.clear();
        }
        false
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.drain() {
            // The kernel may still use the memory: better to lose it than to share it.
            std::mem::forget(self.buffers.clone());
            std::mem::forget(std::mem::take(&mut self.sockets));
        }
    }
}

/// Interrupted, or too many completions wait: what is there is reaped, and the next turn goes on.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN))
}

fn outcome(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}
