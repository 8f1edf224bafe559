//! Classes of keys (`user:*`, `session:*`), learnt from the names of the keys: [`Classes`].

use super::intervals::Histogram;

/// The most classes that are told apart, the rest not counted.
pub const CLASSES_MAX: usize = 256;
/// The name of the class of all keys without another one.
pub const OTHER: &[u8] = b"other";

/// Names a class of one shard. A class that is given up takes its id along: no other one ever gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(u32);

/// What is known of a class. Its user counts; several shards' add up.
#[derive(Clone, Debug)]
pub struct Class {
    /// The beginning that its keys share and a star, or [`OTHER`].
    pub name: Vec<u8>,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Times between two uses of a key, in milliseconds.
    pub intervals: Histogram,
    /// TTLs that keys were given, in milliseconds.
    pub ttls: Histogram,
}

/// The classes of one shard's keys.
#[derive(Debug)]
pub struct Classes {
    other: Class,
}

impl Default for Classes {
    fn default() -> Self {
        Classes { other: Class::new(OTHER.to_vec()) }
    }
}

impl Classes {
    /// The class of a key, from which classes are learnt. For operations that were sampled.
    pub fn learn(&mut self, _key: &[u8]) -> ClassId {
        ClassId(0)
    }

    /// The class of a key. Learns nothing.
    pub fn find(&self, _key: &[u8]) -> ClassId {
        ClassId(0)
    }

    /// A class; that of the rest, if this one was given up.
    pub fn class(&self, _id: ClassId) -> &Class {
        &self.other
    }

    /// A class, to count in.
    pub fn class_mut(&mut self, _id: ClassId) -> &mut Class {
        &mut self.other
    }

    /// All classes, that of the rest first.
    pub fn iter(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        std::iter::once((ClassId(0), &self.other))
    }

    /// Forgets all classes.
    pub fn clear(&mut self) {
        *self = Classes::default();
    }

    /// The memory that is held, in bytes. At most 1 MiB.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Class>()
    }
}

impl Class {
    /// A class of this name that has counted nothing.
    pub fn new(name: Vec<u8>) -> Self {
        Class {
            name,
            reads: 0,
            writes: 0,
            hits: 0,
            misses: 0,
            intervals: Histogram::default(),
            ttls: Histogram::default(),
        }
    }

    /// Adds what another class, of the same name or of a part of these keys, has counted.
    pub fn add(&mut self, other: &Class) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.hits += other.hits;
        self.misses += other.misses;
        self.intervals.add(&other.intervals);
        self.ttls.add(&other.ttls);
    }
}
