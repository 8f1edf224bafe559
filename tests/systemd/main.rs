//! kvlite under systemd: its unit, and its Debian package in a machine that boots.
//!
//! The machine is this one's own file system under an overlay that is thrown away, booted by systemd-nspawn: nothing is
//! downloaded, and nothing here is changed. Where that does not work (it takes root, systemd-container and cargo-deb), the
//! tests say so aloud on standard error and pass.

#![allow(clippy::unwrap_used)] // A step that fails is a test that fails.

#[path = "../harness/mod.rs"]
mod harness; // servers, their clients
use harness::{client, process, words};
mod machine; // a machine that systemd boots
mod package; // the package from its installation to its end
mod unit; // what systemd says of the unit without a machine
