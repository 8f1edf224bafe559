//! The image, run by a real engine and asked from outside, and the files of `deploy/` that other programs read.
//!
//! `KVLITE_TEST_IMAGE` names the image; `make test-container` builds it and sets the variable. Without it, and where a
//! program is missing that reads the files, a test says so on standard error and passes.

#![allow(clippy::unwrap_used)] // A step that fails is a test that fails.

// What the tests stand on.
mod engine; // the image, containers, volumes
#[path = "../harness/mod.rs"]
mod harness; // clients
use harness::{client, process, words};

mod ends; // what is left after docker stop and docker kill
mod limits; // CPUs, memory, a directory that is not writable
mod manifests; // compose, Kubernetes, the seccomp profile
mod serving; // both ports, both backends, any user, a volume that outlives its container
