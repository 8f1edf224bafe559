//! Random choices that can be repeated: every generator prints the seed it starts from.

/// A `SplitMix64` generator (Steele, Lea and Flood, 2014): small, and good enough to choose test data.
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator seeded from `KVLITE_TEST_SEED` or, without it, from the clock. The seed is printed: the
    /// test harness shows it when the test fails.
    pub fn new(what: &str) -> Random {
        let seed = match std::env::var("KVLITE_TEST_SEED") {
            Ok(seed) => seed.parse().expect("KVLITE_TEST_SEED is a number"),
            Err(_) => std::time::UNIX_EPOCH.elapsed().expect("the clock is set").subsec_nanos().into(),
        };
        println!("{what}: KVLITE_TEST_SEED={seed}");
        Random { state: seed }
    }

    /// An independent generator, for one thread of a test.
    pub fn fork(&mut self) -> Random {
        Random { state: self.next() }
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
