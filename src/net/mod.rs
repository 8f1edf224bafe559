//! The network of one worker: its sockets and listeners, wake-ups by other threads, and the syncing of files. It owns
//! the sockets and every buffer that the kernel reads or writes. It never parses, never blocks but where it is told to
//! wait, and knows nothing of commands.
//!
//! There are two backends behind one API: `ring.rs` on io_uring, and `epoll.rs` where that is forbidden. This is the
//! only room with unsafe code: the ring's buffers and system calls, and one socket option.

/// The same call for the backend there is.
macro_rules! of_backend {
    ($net:expr, $backend:ident => $call:expr) => {
        match $net {
            Kind::Ring($backend) => $call,
            Kind::Epoll($backend) => $call,
        }
    };
}

mod buffers;
mod epoll;
pub mod listener;
mod pool;
mod ring;
mod sockets;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use glommio::io::BufferedFile;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use epoll::Epoll;
use ring::Ring;
use sockets::{Outgoing, taken_bytes};

pub use listener::{Addresses, bind_tcp, bind_unix, prepare_tcp};
pub use ring::PINNED_BYTES;

/// How many connections of one listener are accepted at most before a turn looks at them. Without a bound a storm of
/// connections could take every descriptor that the log's files need.
pub const ACCEPTS_AT_ONCE: usize = 8;

/// How much one send hands to the kernel at most; the rest follows as after any short send. To a ring the kernel gives
/// a blocked thread of its own for a send that has to wait more than some hundred times for a slow reader: a bound on
/// the size keeps sends below that. With epoll, other sockets come first.
const SEND_BYTES_MAX: usize = 256 * 1024;

/// What the kernel is asked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `io_uring`, with the worker as a task of an executor.
    IoUring,
    /// `epoll`, with the worker on a plain thread.
    Epoll,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::IoUring => "io_uring",
            Backend::Epoll => "epoll",
        })
    }
}

impl Backend {
    /// The one that `KVLITE_TEST_IO` asks for.
    #[cfg(test)]
    pub fn of_test() -> Backend {
        match std::env::var("KVLITE_TEST_IO").as_deref() {
            Ok("epoll") => Backend::Epoll,
            Ok("io_uring") | Err(_) => Backend::IoUring,
            Ok(other) => panic!("KVLITE_TEST_IO is {other}, and neither io_uring nor epoll"),
        }
    }

    /// Finds out whether the kernel allows it.
    ///
    /// # Errors
    /// Why it does not.
    pub fn probe(self) -> io::Result<()> {
        Net::new(self)?.wait(Duration::ZERO)
    }
}

/// Names one socket of one network. A name comes back only after its index has served 2^24 sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// A small number, free again for a later socket once this one is closed: for tables indexed by socket.
    pub index: u32,
    /// Tells sockets with the same index apart. 24 bits.
    pub generation: u32,
}

/// What one turn found.
#[derive(Debug)]
pub enum Event {
    /// A connection was accepted. It is served by whichever network it is [attached](Net::attach) to.
    Accepted {
        /// The number that [`Net::listen`] returned.
        listener: usize,
        /// The connection.
        socket: OwnedFd,
    },
    /// Accepting failed, mostly for want of file descriptors. The listener rests until [`Net::accept`].
    AcceptFailed {
        /// The number that [`Net::listen`] returned.
        listener: usize,
        /// Why.
        error: io::Error,
    },
    /// Bytes arrived.
    Received(SocketId, Chunk),
    /// The peer will send no more (`None`), or receiving failed. The socket may still be sent to.
    Ended(SocketId, Option<io::Error>),
    /// The whole buffer was handed to the kernel. It comes back for reuse, emptied; a new one for a shared one.
    Sent(SocketId, Vec<u8>),
    /// Sending failed: the peer is gone. Nothing more can be sent.
    SendFailed(SocketId, io::Error),
    /// A sync that [`Net::sync`] asked for has ended; whether the file is on disk.
    Synced(io::Result<()>),
}

/// Received bytes in a buffer of the backend's, which goes back to it when the chunk is dropped. Chunks are few: copy
/// what has to stay.
pub enum Chunk {
    /// Of the ring's pool, from which the kernel picked it.
    Ring(buffers::Filled),
    /// Of the pool of the epoll backend.
    Pooled(pool::PooledChunk),
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Chunk::Ring(chunk) => chunk,
            Chunk::Pooled(chunk) => chunk,
        }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.len())
    }
}

/// What of a file is brought to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncOf {
    /// The data, and what is needed to read it back (`fdatasync`).
    Data,
    /// Everything, the names in a directory for one (`fsync`).
    Everything,
}

/// Bytes to be sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Outbound {
    /// They come back for reuse when they are sent.
    Owned(Vec<u8>),
    /// Others may have them, too.
    Shared(Bytes),
}

impl Deref for Outbound {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Outbound::Owned(bytes) => bytes,
            Outbound::Shared(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Outbound {
    fn from(bytes: Vec<u8>) -> Outbound {
        Outbound::Owned(bytes)
    }
}

impl From<Bytes> for Outbound {
    fn from(bytes: Bytes) -> Outbound {
        Outbound::Shared(bytes)
    }
}

/// The doorbell of a network, for those of other threads: of a ring the ring itself, else what makes its wait end.
#[derive(Clone, Debug)]
pub struct Doorbell(Arc<OwnedFd>);

/// The network of one worker. It belongs to the thread that made it.
pub struct Net(Kind);

enum Kind {
    Ring(Box<Ring>),
    Epoll(Box<Epoll>),
}

impl Net {
    /// A network without sockets.
    ///
    /// # Errors
    /// The kernel refuses what the backend needs; a ring needs Linux 6.1 or newer.
    pub fn new(backend: Backend) -> io::Result<Net> {
        Ok(Net(match backend {
            Backend::IoUring => Kind::Ring(Box::new(Ring::new()?)),
            Backend::Epoll => Kind::Epoll(Box::new(Epoll::new()?)),
        }))
    }

    /// The means by which other threads' networks wake this one.
    pub fn doorbell(&self) -> Doorbell {
        of_backend!(&self.0, net => net.doorbell())
    }

    /// Wakes the network that has this doorbell, which has the same backend: at once, or with the next turn.
    pub fn ring_doorbell(&mut self, peer: &Doorbell) {
        match &mut self.0 {
            Kind::Ring(ring) => ring.ring_doorbell(peer),
            Kind::Epoll(_) => unpark(std::os::fd::AsFd::as_fd(&*peer.0)),
        }
    }

    /// Starts to accept on a listening socket. Returns the number under which events name it.
    pub fn listen(&mut self, descriptor: OwnedFd) -> usize {
        of_backend!(&mut self.0, net => net.listen(descriptor))
    }

    /// Accepts again after [`Event::AcceptFailed`]. Does nothing while the listener accepts.
    pub fn accept(&mut self, listener: usize) {
        of_backend!(&mut self.0, net => net.accept(listener));
    }

    /// Serves a connected socket that is in blocking mode, as accepted ones are: what arrives comes as
    /// [`Event::Received`].
    pub fn attach(&mut self, descriptor: OwnedFd) -> SocketId {
        of_backend!(&mut self.0, net => net.attach(descriptor))
    }

    /// Stops receiving; what the peer sends stays in the kernel and slows the peer down. Chunks that are on
    /// their way still arrive.
    pub fn pause(&mut self, id: SocketId) {
        of_backend!(&mut self.0, net => net.pause(id));
    }

    /// Receives again after [`Net::pause`]. Does nothing once the end was reported.
    pub fn resume(&mut self, id: SocketId) {
        of_backend!(&mut self.0, net => net.resume(id));
    }

    /// Sends all of `bytes`, which comes back in [`Event::Sent`]. One send at a time: while
    /// [`Net::is_sending`], or on a socket that is closed, it returns the bytes.
    pub fn send(&mut self, id: SocketId, bytes: impl Into<Outbound>) -> Result<(), Outbound> {
        of_backend!(&mut self.0, net => net.send(id, bytes.into()))
    }

    fn sending(&self, id: SocketId) -> Option<&Outgoing> {
        of_backend!(&self.0, net => net.sockets.get(id)?.sending.as_ref())
    }

    /// Whether a send is on its way.
    pub fn is_sending(&self, id: SocketId) -> bool {
        self.sending(id).is_some()
    }

    /// How many bytes of the send on its way have not left.
    pub fn unsent_bytes(&self, id: SocketId) -> usize {
        self.sending(id).map_or(0, |sending| sending.rest().len())
    }

    /// How many bytes the peer has taken, to see whether it goes on: those it has acknowledged over TCP; over a Unix
    /// socket, which has no such count, those of the send on its way that have left.
    pub fn taken_bytes(&self, id: SocketId) -> Option<u64> {
        of_backend!(&self.0, net => {
            let socket = net.sockets.get(id)?;
            taken_bytes(&socket.descriptor, socket.sending.as_ref())
        })
    }

    /// Tells the peer that nothing more will be sent; what it sends still arrives.
    pub fn shutdown_write(&mut self, id: SocketId) {
        let descriptor = of_backend!(&self.0, net => net.sockets.get(id).map(|socket| &socket.descriptor));
        if let Some(descriptor) = descriptor {
            // A peer that is gone already needs not be told.
            let _ = rustix::net::shutdown(descriptor, rustix::net::Shutdown::Write);
        }
    }

    /// Closes the socket. No later turn's event names it; the descriptor is closed once the kernel is done
    /// with it. A send that is on its way is cut off.
    pub fn close(&mut self, id: SocketId) {
        of_backend!(&mut self.0, net => net.close(id));
    }

    /// Brings a file to disk, on another thread; [`Event::Synced`] tells the end.
    pub fn sync(&mut self, file: Arc<File>, of: SyncOf) {
        of_backend!(&mut self.0, net => net.sync(file, of));
    }

    /// Finds out what has happened, and appends it to `events`. Returns whether a wait would be out of place: false
    /// when nothing was found but sends that have ended, of which this tells as well.
    pub fn turn(&mut self, events: &mut Vec<Event>) -> io::Result<bool> {
        of_backend!(&mut self.0, net => net.turn(events))
    }

    /// Whether a turn would find something, as far as is known without a system call.
    pub fn ready(&mut self) -> bool {
        of_backend!(&mut self.0, net => net.ready())
    }

    /// How long [`Net::wait`] lets what arrives at sockets gather while a sync is under way that begins from now on;
    /// at first not at all.
    pub fn gather_for(&mut self, gathering: Duration) {
        of_backend!(&mut self.0, net => net.gather_for(gathering));
    }

    /// Blocks the thread until something has happened, at most for `patience`.
    pub fn wait(&mut self, patience: Duration) -> io::Result<()> {
        self.wait_for(1, patience)
    }

    /// As [`Net::wait`], but until so much has happened; while a sync is under way, until one thing has.
    pub fn wait_for(&mut self, count: usize, patience: Duration) -> io::Result<()> {
        of_backend!(&mut self.0, net => net.wait_for(count, patience))
    }

    /// A file that becomes readable (8 bytes) by [`unpark`], and when something completes between [`Net::parking`] and
    /// [`Net::unparked`]: an executor can sleep on it, and still serves its timers and tasks. There is none where
    /// [`Net::wait`] hears [`unpark`].
    pub fn wakeup_file(&self) -> io::Result<Option<BufferedFile>> {
        match &self.0 {
            Kind::Ring(ring) => ring.wakeup_file().map(Some),
            Kind::Epoll(_) => Ok(None),
        }
    }

    /// Lets what completes make the wake-up file readable. Call [`Net::ready`] after it, and sleep only when that is
    /// false.
    pub fn parking(&mut self) {
        if let Kind::Ring(ring) = &mut self.0 {
            ring.parking();
        }
    }

    /// Ends [`Net::parking`].
    pub fn unparked(&mut self) {
        if let Kind::Ring(ring) = &mut self.0 {
            ring.unparked();
        }
    }

    /// What other threads wake the worker by; see [`unpark`].
    pub fn wakeup(&self) -> BorrowedFd<'_> {
        of_backend!(&self.0, net => net.wakeup())
    }
}

/// Wakes the worker that sleeps on its [`Net::wakeup`].
pub fn unpark(wakeup: BorrowedFd<'_>) {
    // The counter overflows only after 2^64 wake-ups that are not read.
    let _ = rustix::io::write(wakeup, &1u64.to_ne_bytes());
}

/// Waits until the descriptor can be read; false after `patience`, or an interruption.
fn is_readable_within(descriptor: BorrowedFd<'_>, patience: Duration) -> io::Result<bool> {
    let patience = Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
    match rustix::event::poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], Some(&patience)) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
