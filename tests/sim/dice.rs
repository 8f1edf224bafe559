use std::env;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::sync::LazyLock;

/// Splitmix64 (Steele, Lea, Flood 2014): small, fast, and the same everywhere.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound as u64) as usize
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// Where a run is; says so when the run panics.
pub struct Trace {
    test: &'static str,
    seed: u64,
    step: u64,
}

impl Trace {
    /// Counts a step.
    pub fn step(&mut self) {
        self.step += 1;
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Trace { test, seed, step } = self;
            eprintln!("seed {seed}, step {step}; again: KVLITE_SIM_SEED={seed} cargo test --test sim {test}");
        }
    }
}

/// The seeds that the test with the most of them usually runs.
const USUAL_COUNT_MAX: u64 = 80;

/// From here on seeds are fresh, so that each run sees lives that no run has seen.
static FRESH_SEED: LazyLock<u64> = LazyLock::new(|| {
    let seed = RandomState::new().hash_one(()) >> 1;
    // The test harness shows what `println` writes only when a test fails; one that hangs is to be repeated, too.
    writeln!(io::stderr(), "fresh seeds: from {seed} on").expect("stderr is open");
    seed
});

/// Runs a test with every seed below `usual_count` and as many fresh ones, or with those that the environment asks
/// for: a count there is for the test with the most seeds, and others keep their share.
pub fn each_seed(test: &'static str, usual_count: u64, run: impl Fn(&mut Dice, &mut Trace)) {
    let number = |name| env::var(name).ok().map(|text| text.parse().expect("a number in the environment"));
    let run = |seed| run(&mut Dice::new(seed), &mut Trace { test, seed, step: 0 });
    if let Some(seed) = number("KVLITE_SIM_SEED") {
        return run(seed);
    }
    let share = |count: u64| (count * usual_count).div_ceil(USUAL_COUNT_MAX);
    let count = number("KVLITE_SIM_SEEDS").map_or(usual_count, share);
    (0..count).chain(*FRESH_SEED..*FRESH_SEED + count).for_each(run);
}
