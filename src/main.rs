//! kvlite
fn main() {}
