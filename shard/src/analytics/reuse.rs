//! The hit ratio to expect with more or less memory: [`MissRatio`].

/// Follows a sample of the keys of one shard.
#[derive(Debug, Default)]
pub struct MissRatio {}

/// What a shard knows of its hit ratio in relation to its memory.
#[derive(Clone, Debug, Default)]
pub struct Curve {}

impl MissRatio {
    /// Whether what happens to a key with this hash is to be told to the functions below.
    #[inline]
    pub fn samples(&self, _hash: u32) -> bool {
        false
    }

    /// A sampled key was read: it was there, with `bytes` bytes of memory, or it was not.
    pub fn read(&mut self, _hash: u32, _bytes: Option<usize>, _now_ms: u64) {}

    /// A sampled key was written: it has `bytes` bytes of memory and this deadline now.
    pub fn write(&mut self, _hash: u32, _bytes: usize, _deadline_ms: Option<u64>, _now_ms: u64) {}

    /// A sampled key was removed on purpose. That it expired or was evicted is not to be told.
    pub fn remove(&mut self, _hash: u32) {}

    /// Forgets all keys and what was counted.
    pub fn clear(&mut self) {}

    /// Makes everything counted so far count half; `reads` is the number of all reads until now. To be called once
    /// an hour, or as fast as the answer shall follow changes.
    pub fn age(&mut self, _reads: u64) {}

    /// What is known now; `reads` is the number of all reads until now, those of keys that are not sampled among them.
    pub fn curve(&self, _reads: u64) -> Curve {
        Curve::default()
    }

    /// The memory that is held, in bytes. At most 2 MiB.
    pub fn memory_bytes(&self) -> usize {
        0
    }
}

/// The hit ratio to expect if the shards of these curves had `bytes` bytes of memory for keys together, in equal
/// parts; `None` if too little is known.
pub fn hit_ratio(_curves: &[Curve], _bytes: u64) -> Option<f64> {
    None
}
