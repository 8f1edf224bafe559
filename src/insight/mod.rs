//! What is asked of a server so that people can see how it is, and the answers as types: for `kvlite top`, and for the
//! page of the admin port. It only asks and reads; how anything looks is for those two to decide.

pub mod ask;
pub mod figures;
pub mod keys;
pub mod shown;
