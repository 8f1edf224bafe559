//! The load of a service over weeks, second by second. Synthetic: no trace that is free to use is long enough.
//!
//! The rate of requests follows the day (four times as much at its peak in the afternoon as at night) and the week
//! (60 % on Saturday and Sunday). Each day has a level of its own (standard deviation 5 %), and within the day the
//! level wanders (4 % over some ten minutes). A job adds 60 % from 03:00 to 03:20 every night. About every ten
//! minutes there is a burst of one to three seconds, of 1.5 to 3 times the rate. What arrives in a second is
//! Poisson distributed.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp, Normal, Poisson};

pub const DAY_S: u64 = 86_400;
pub const WEEK_S: u64 = 7 * DAY_S;

/// The beginning of Monday, 5 January 2026, in milliseconds since the Unix epoch.
pub const START_MS: u64 = 1_767_571_200_000;

/// The rate of requests that a service is asked, without what chance does within a second.
pub struct Weeks {
    random: Xoshiro256PlusPlus,
    mean: f64,
    day_level: f64,
    wander: f64,
    next_burst_s: u64,
    burst_until_s: u64,
    burst: f64,
}

impl Weeks {
    /// A service with about so many requests per second.
    pub fn new(mean: f64, seed: u64) -> Weeks {
        let random = Xoshiro256PlusPlus::seed_from_u64(seed);
        Weeks { random, mean, day_level: 1.0, wander: 0.0, next_burst_s: 60, burst_until_s: 0, burst: 1.0 }
    }

    /// The rate of this second; to be asked for one second after the other.
    pub fn rate(&mut self, second: u64) -> f64 {
        if second.is_multiple_of(DAY_S) {
            self.day_level = (1.0 + 0.05 * self.normal()).max(0.5);
        }
        self.wander += -self.wander / 600.0 + 0.04 * (2.0f64 / 600.0).sqrt() * self.normal();
        if second == self.next_burst_s {
            self.burst = self.random.random_range(1.5..3.0);
            self.burst_until_s = second + self.random.random_range(1..=3);
            let pause_s = Exp::new(1.0 / 600.0).expect("a positive rate").sample(&mut self.random);
            self.next_burst_s = self.burst_until_s + 1 + pause_s as u64;
        }
        let burst = if second < self.burst_until_s { self.burst } else { 1.0 };
        season(second) * self.mean * self.day_level * self.wander.exp() * burst
    }

    /// How many requests come in a second of this rate.
    pub fn arrivals(&mut self, rate: f64) -> f64 {
        if rate <= 0.0 { 0.0 } else { Poisson::new(rate).expect("a positive rate").sample(&mut self.random) }
    }

    /// A draw from the standard normal distribution.
    pub fn normal(&mut self) -> f64 {
        Normal::new(0.0, 1.0).expect("a deviation").sample(&mut self.random)
    }

    /// A draw from 0 to below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound)
    }
}

/// What day, week and nightly job make of the mean rate.
pub fn season(second: u64) -> f64 {
    let day = second / DAY_S % 7;
    let hour = (second % DAY_S) as f64 / 3600.0;
    let daily = 1.0 + 0.6 * ((hour - 9.0) / 24.0 * std::f64::consts::TAU).sin();
    let job = if (3.0..3.0 + 1.0 / 3.0).contains(&hour) { 1.6 } else { 1.0 };
    daily * job * if day >= 5 { 0.6 } else { 1.0 }
}
