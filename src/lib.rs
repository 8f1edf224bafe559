//! kvlite.

pub mod config;
#[cfg(test)]
mod documentation;
pub mod logging;
