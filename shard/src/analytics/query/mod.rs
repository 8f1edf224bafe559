//! What can be asked about the use of keys, and how the answers of several shards become one.
//!
//! A [`Question`] goes to every shard. There it is a [`Query`], which is advanced in slices where it has to walk over
//! the keys, so that requests are served meanwhile. It ends as a [`QueryResult`]; those of several shards, which hold
//! different keys, add up and become the reply.

mod question;
mod reply;
mod result;
mod walk;

pub use question::{COUNT_MAX, Question, Subject};
pub use reply::Detail;
pub use result::QueryResult;
pub use walk::Query;
