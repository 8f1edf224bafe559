//! What a shard has counted since it was made. Counting is all it does.

/// Counters of one shard; those of several shards add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Executed requests that read.
    pub reads: u64,
    /// Executed requests that may write.
    pub writes: u64,
    /// Keys that a reading command found.
    pub hits: u64,
    /// Keys that a reading command did not find.
    pub misses: u64,
    /// Keys that were removed because their deadline had passed.
    pub ttl_expired: u64,
    /// Deadlines that background expiry looked at.
    pub ttl_checks: u64,
    /// Keys there are, those that have expired but were not yet removed among them.
    pub keys: u64,
    /// Keys with a deadline. Keys that share deadline and hash may count as one.
    pub keys_with_deadline: u64,
    /// Memory that the keyspace holds, in bytes.
    pub memory_bytes: u64,
    /// Memory that is held to know how the keys are used, in bytes, besides what stands in the keyspace.
    pub analytics_memory_bytes: u64,
}

/// What there is in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseStats {
    /// Its number.
    pub number: u16,
    /// Keys there are, those that have expired but were not yet removed among them.
    pub keys: u64,
    /// Keys with a deadline. Keys that share deadline and hash may count as one.
    pub keys_with_deadline: u64,
    /// The sum of the times until those deadlines, in milliseconds.
    pub time_left_ms: u128,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Stats) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.hits += other.hits;
        self.misses += other.misses;
        self.ttl_expired += other.ttl_expired;
        self.ttl_checks += other.ttl_checks;
        self.keys += other.keys;
        self.keys_with_deadline += other.keys_with_deadline;
        self.memory_bytes += other.memory_bytes;
        self.analytics_memory_bytes += other.analytics_memory_bytes;
    }
}
