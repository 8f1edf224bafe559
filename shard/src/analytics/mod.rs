//! What a shard knows about the use of its keys. In reading order:
//!
//! - `load` the measured load over the hours of the week, and its forecast
//! - `anomalies` which series have left what is normal for them

pub mod anomalies;
pub mod load;
