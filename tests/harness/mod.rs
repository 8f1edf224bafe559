//! What tests of the real process stand on: a server from outside, its clients, choices that can be repeated.
//!
//! Each test binary includes this folder and uses its part of it. It knows no test.

#![allow(dead_code)] // Neither binary uses all of it.

pub mod client; // connections of both protocols
pub mod http; // one request to an HTTP server
pub mod process; // one server: start, signals, restart, its log
pub mod random; // random choices that can be repeated
pub mod redis; // the real Redis, to compare with
pub mod service_manager; // what the server tells systemd
pub mod words; // a request's words, from a line of text
