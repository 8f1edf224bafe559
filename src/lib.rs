//! kvlite.
pub mod net;
