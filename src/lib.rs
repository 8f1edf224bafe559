//! kvlite.
