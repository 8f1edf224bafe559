//! kvlite: a fast in-memory key-value store with persistence and TTL, a shard per core on `io_uring`.
//!
//! Follow one `SET` from its socket to its reply:
//!
//! 1. [`net`]: the kernel puts the bytes into a buffer of the worker's network; the worker's turn finds them.
//! 2. [`protocol`]: the client's parser finds a request in them, without a copy.
//! 3. [`worker`]: the turn looks up who owns the key ([`slots`]). If it is this worker's shard, it runs there at
//!    once; if not, it goes into the open batch to the owner ([`mesh`]), which is sent at the end of the turn.
//! 4. [`shard`]: the state machine changes the keyspace, and says by a reply and by changes what it did.
//! 5. [`wal`]: the changes of the turn are written as one frame.
//! 6. [`client`]: the reply takes its place in the order of the client's requests, and leaves through the ring.
//!
//! [`clock`] knows what time it is. [`server`] starts and ends all this; [`recovery`] is the way back from the log into
//! the shard, and [`tools`] look at a log while no server runs.

mod admin;
pub mod bench;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
#[cfg(test)]
mod documentation;
mod durability;
pub mod failure;
pub mod health;
mod http;
pub mod import;
pub mod insight;
pub mod logging;
pub mod machine;
pub mod mesh;
pub mod metrics;
pub mod net;
mod process;
mod progress;
pub mod protocol;
mod pubsub;
pub mod recovery;
pub mod scripting;
pub mod server;
pub mod shared;
pub mod slots;
pub mod tools;
pub mod top;
pub mod txn;
pub mod worker;

pub use server::run;
