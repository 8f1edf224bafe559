//! The names of classes within one shard: numbers.

/// Names a class of one shard. Once the class is given up, it names that of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub(super) u32);

/// The class of the rest.
pub const OTHER_ID: ClassId = ClassId(0);
