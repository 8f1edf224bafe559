//! Starts the real server process and speaks to it as its clients do: text, RESP, signals and `kill -9`.
//!
//! It knows the server from outside only: sockets, exit status, stderr, `/proc`. What a failing step sent,
//! what it expected, what came and the end of the server's log stand in the panic.
//!
//! Variables for the run:
//!
//! - `KVLITE_TEST_SERVER=PATH` tests that program (a release build, one with a sanitizer) in place of the one
//!   that cargo has just built.
//! - `KVLITE_TEST_IO=epoll` has servers run on epoll in place of io_uring.
//! - `KVLITE_TEST_RESP_ADDR=HOST:PORT` runs the RESP scripts against a server that is already there: Redis,
//!   whose answers they claim to be. That server is emptied; scripts of kvlite's own commands are left out.
//! - `KVLITE_TEST_SEED=N` repeats the random choices of a run that has printed this seed.

#![allow(clippy::unwrap_used)] // A step that fails is a test that fails.

// What the tests stand on.
#[path = "../harness/mod.rs"]
mod harness; // one server, its clients, choices that can be repeated
use harness::{client, http, process, random, service_manager, words};
mod transcript; // request -> reply, in lines of text

// What one client sees.
mod api_reference; // docs/API_REFERENCE.md: the example of every command, as it is answered
mod commands; // every command on both protocols, 1, 2 and 5 shards
mod text_protocol_golden; // the replies that existing clients rely on
mod values; // sizes from nothing to 64 MiB, every byte, sent in any pieces
mod wire; // bad input: what is answered, what is closed

// What many clients see.
mod atomicity; // commands over several shards are seen whole or not at all
mod bench; // the load generator: its bounds, its counts, its exit status
mod clients; // clients that list, end, pause and watch each other, and what was slow
mod connections; // the limit, thousands that idle, half requests, the Unix socket
mod messages; // channels, patterns and those who do not read; order, several workers, both protocols
mod pipelines; // thousands of commands ahead of their replies, shards that flood each other
mod scanning;
mod scripts; // over several shards, long ones, libraries // SCAN and KEYS over keys that come and go, expiry by itself
mod tracking; // clients that keep copies of keys and are told of their changes // SCAN and KEYS over keys that come and go, expiry by itself

// What watches the server.
mod admin_port; // metrics and health over HTTP, hostile clients, Prometheus and the exporter of Redis
mod dashboard; // the page of the admin port: what it shows in each state, hostile names, its password
mod health; // kvlite health, and the paths of the admin port, in each state of the server
mod top; // kvlite top without a terminal

// What outlives the process.
mod backup; // copies of one moment while clients write, and what may go wrong with them
mod clock; // a wall clock that is set forward and back, while the server runs and while it is down
mod crash; // kill -9 and SIGTERM under load
mod damage; // every kind of damage: what a start says, check tells, repair brings back
mod disk_faults; // a disk that is full or fails, and is well again
mod import; // kvlite import: files of the real Redis and of the Go kvlite, damage, another server
mod loading; // a start on much data: what is answered meanwhile, SIGTERM, damage
mod logs; // a log that is not read, clients that would like to write into it
mod notify; // what systemd hears of the start, the workers and the end
mod options; // a file of options, CONFIG REWRITE, --timeout
mod persistence; // every kind of change, restarts, other shard counts
mod resharding; // starts with another number of shards that are killed in the middle
mod stalls; // a process that is not run for a while
mod startup; // flags, exit statuses, one server per directory
mod stuck_clients; // clients that send and do not read, and those that stop in the middle
mod tools; // check, repair and dump on what a server left
