//! Random choices that can be repeated: every generator prints the seed it starts from.

/// A `SplitMix64` generator (Steele, Lea and Flood, 2014): small, and good enough to choose test data.
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator seeded from `KVLITE_TEST_SEED` or, without it, from the clock. The seed is printed: the
    /// test harness shows it when the test fails.
    pub fn new(what: &str) -> Random {
        let seed = Random::first_seed();
        println!("{what}: KVLITE_TEST_SEED={seed}");
        Random::seeded(seed)
    }

    /// The number in `KVLITE_TEST_SEED` or, without it, one from the clock.
    pub fn first_seed() -> u64 {
        match std::env::var("KVLITE_TEST_SEED") {
            Ok(seed) => seed.parse().expect("KVLITE_TEST_SEED is a number"),
            Err(_) => std::time::UNIX_EPOCH.elapsed().expect("the clock is set").subsec_nanos().into(),
        }
    }

    /// A generator of the choices that follow from this seed.
    pub fn seeded(seed: u64) -> Random {
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

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// Puts them into any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
