//! kvlite.

pub mod protocol;
