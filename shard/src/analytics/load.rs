//! The measured load of a shard over the hours of the week: what the next hours will bring, and whether now is a
//! good moment for work that can wait.
//!
//! It is fed with the number of operations that were really executed, and never sees a request. It reads no clock,
//! and says so when it has seen too little.
//!
//! Each of the 168 hours of the week, in UTC, has a mean rate, smoothed over the weeks: the seasonal part of
//! exponential smoothing (Winters, Forecasting sales by exponentially weighted moving averages, 1960). An hour that
//! was not seen yet is forecast from the same hour of the other days.

/// The hours of a week.
pub const HOURS: usize = 168;

/// How many hours, the one under way among them, are compared with each other: a day.
pub const AHEAD: usize = 24;

/// The length of a profile in bytes.
pub const BYTES: usize = 1 + HOURS * size_of::<f32>();

/// How much the newest week weighs against all earlier ones.
const WEEK_WEIGHT: f32 = 0.3;

/// Low is what exceeds the lowest hour of the next day by at most this factor...
const NEAR_LOWEST: f32 = 1.1;
/// ...and has at most this share of its mean: where all hours are alike there is nothing to wait for.
const SHARE_OF_MEAN: f32 = 0.75;
/// What is measured may exceed the forecast by this factor, or else the hour is not as quiet as it used to be.
const ABOVE_FORECAST: f32 = 1.5;

/// An hour counts when so much of it was seen.
const HOUR_SEEN_MS_MIN: u64 = 1_800_000;

/// A longer time between two observations was no time in which the shard worked, and is left out.
const GAP_MS: u64 = 60_000;

/// The current rate is the mean over so long.
const RATE_MS: u64 = 60_000;

const HOUR_MS: u64 = 3_600_000;

/// The first byte of a profile in bytes.
const VERSION: u8 = 1;

/// Which hour of the week a time is, from 0 for the first hour of Monday on, in UTC. The time is in milliseconds
/// since the Unix epoch.
pub fn hour_of_week(unix_ms: u64) -> usize {
    // The epoch was the beginning of a Thursday.
    ((unix_ms / HOUR_MS + 3 * 24) % HOURS as u64) as usize
}

/// How many operations a second a shard executes in each hour of the week.
#[derive(Clone, Debug)]
pub struct LoadProfile {
    /// Operations per second. NaN where unknown.
    rates: [f32; HOURS],
    /// The last observation: the time, and how many operations there had been.
    last: Option<(u64, u64)>,
    /// The hour under way.
    hour: Span,
    /// The minute under way, and the rate of the last full one.
    minute: Span,
    rate: Option<f32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    /// Which hour since the epoch; only used for the hour.
    number: u64,
    operations: u64,
    seen_ms: u64,
}

impl Default for LoadProfile {
    fn default() -> Self {
        LoadProfile::new()
    }
}

impl LoadProfile {
    /// Knows nothing yet.
    pub fn new() -> LoadProfile {
        LoadProfile {
            rates: [f32::NAN; HOURS],
            last: None,
            hour: Span::default(),
            minute: Span::default(),
            rate: None,
        }
    }

    /// Takes how many `operations` the shard has executed since it was made. To be called once a second, about;
    /// `now_ms` is a time that never goes back, `unix_ms` the wall clock's, by which the hours go.
    pub fn observe(&mut self, operations: u64, now_ms: u64, unix_ms: u64) {
        let hour = unix_ms / HOUR_MS;
        let Some((last_ms, before)) = self.last.replace((now_ms, operations)) else {
            self.hour.number = hour;
            return;
        };
        let seen_ms = now_ms.saturating_sub(last_ms);
        if seen_ms <= GAP_MS {
            for span in [&mut self.hour, &mut self.minute] {
                span.operations += operations.saturating_sub(before);
                span.seen_ms += seen_ms;
            }
        }
        if self.hour.number != hour {
            self.learn();
            self.hour = Span { number: hour, ..Span::default() };
        }
        if self.minute.seen_ms >= RATE_MS {
            self.rate = Some(self.minute.rate());
            self.minute = Span::default();
        }
    }

    /// The operations per second of the last full minute that was observed.
    pub fn rate(&self) -> Option<f32> {
        self.rate
    }

    /// The operations per second that are to be expected in the hour of this time; none where neither that hour
    /// of the week nor the same hour of another day was seen.
    pub fn forecast(&self, at_ms: u64) -> Option<f32> {
        let hour = hour_of_week(at_ms);
        if !self.rates[hour].is_nan() {
            return Some(self.rates[hour]);
        }
        let same = self.rates.iter().skip(hour % 24).step_by(24).filter(|rate| !rate.is_nan());
        let (sum, count) = same.fold((0.0, 0), |(sum, count), rate| (sum + rate, count + 1));
        (count > 0).then(|| sum / count as f32)
    }

    /// What is measured now, and what the hours from `unix_ms` on will bring.
    pub fn outlook(&self, unix_ms: u64) -> Outlook {
        let mut forecast = [0.0; AHEAD];
        let mut hours_known = 0;
        for (ahead, expected) in (0..).zip(&mut forecast) {
            if let Some(rate) = self.forecast(unix_ms + ahead * HOUR_MS) {
                *expected = rate;
                hours_known += 1;
            }
        }
        Outlook { rate: self.rate.unwrap_or(0.0), hours_known, forecast }
    }

    /// The profile for keeping: the version, and a rate for each hour of the week, from Monday on, as 32 bits of
    /// IEEE 754 in little-endian order; NaN for an hour that is not known.
    ///
    /// ```text
    /// | 1 | Monday 00:00, f32 | Monday 01:00, f32 | ... | Sunday 23:00, f32 |
    /// ```
    pub fn to_bytes(&self) -> [u8; BYTES] {
        let mut bytes = [VERSION; BYTES];
        for (place, rate) in bytes[1..].as_chunks_mut::<4>().0.iter_mut().zip(self.rates) {
            *place = rate.to_le_bytes();
        }
        bytes
    }

    /// A profile that was kept; `None` for bytes of another version, or that no profile can have.
    pub fn from_bytes(bytes: &[u8]) -> Option<LoadProfile> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let mut profile = LoadProfile::new();
        for (place, rate) in bytes[1..].as_chunks::<4>().0.iter().zip(&mut profile.rates) {
            *rate = f32::from_le_bytes(*place);
        }
        let is_sound = |rate: &f32| rate.is_nan() || rate.is_finite() && *rate >= 0.0;
        (bytes[0] == VERSION && profile.rates.iter().all(is_sound)).then_some(profile)
    }

    fn learn(&mut self) {
        if self.hour.seen_ms >= HOUR_SEEN_MS_MIN {
            let known = &mut self.rates[hour_of_week(self.hour.number * HOUR_MS)];
            let newest = self.hour.rate();
            *known = if known.is_nan() { newest } else { *known + WEEK_WEIGHT * (newest - *known) };
        }
    }
}

impl Span {
    fn rate(&self) -> f32 {
        (self.operations as f64 * 1000.0 / self.seen_ms as f64) as f32
    }
}

/// The load of now and of the next day. Those of several shards add up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// The operations per second of the last minute.
    pub rate: f32,
    /// For how many hours of the day there is a forecast; of several shards, the fewest.
    pub hours_known: usize,
    /// The operations per second to be expected in the hour under way, the next one, and so on; 0 where unknown.
    pub forecast: [f32; AHEAD],
}

/// What an outlook says about now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Less than a day was seen.
    TooLittleData,
    /// Now is the best time of the next day, or nearly.
    Low,
    /// A better hour comes.
    LowerAhead,
    /// It should be quiet now, and is not.
    AboveForecast,
    /// No hour is much quieter than the others.
    Flat,
}

impl Outlook {
    /// Whether now is a good moment, and why.
    pub fn verdict(&self) -> Verdict {
        if self.hours_known < AHEAD {
            return Verdict::TooLittleData;
        }
        let (_, lowest) = self.lowest();
        let mean = self.forecast.iter().sum::<f32>() / AHEAD as f32;
        let now = self.forecast[0];
        if lowest > mean * SHARE_OF_MEAN {
            Verdict::Flat
        } else if now > lowest * NEAR_LOWEST || now > mean * SHARE_OF_MEAN {
            Verdict::LowerAhead
        } else if self.rate > now * ABOVE_FORECAST {
            Verdict::AboveForecast
        } else {
            Verdict::Low
        }
    }

    /// Which of the hours will be the quietest, counted from the one under way, and its operations per second.
    pub fn lowest(&self) -> (usize, f32) {
        let hours = self.forecast.iter().copied().enumerate();
        hours.min_by(|a, b| a.1.total_cmp(&b.1)).expect("a day has hours")
    }
}

impl std::ops::AddAssign for Outlook {
    fn add_assign(&mut self, other: Outlook) {
        self.rate += other.rate;
        self.hours_known = self.hours_known.min(other.hours_known);
        for (sum, rate) in self.forecast.iter_mut().zip(other.forecast) {
            *sum += rate;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of a Monday.
    const MONDAY_MS: u64 = 4 * 24 * HOUR_MS;

    /// Operations per second: 100 at night, 1000 by day, half of it on the weekend.
    fn rate(hour: usize) -> u64 {
        let by_day = if (6..22).contains(&(hour % 24)) { 1000 } else { 100 };
        if hour % HOURS >= 5 * 24 { by_day / 2 } else { by_day }
    }

    /// Feeds full hours of the `rate` of each from Monday on, once a minute; returns the end.
    fn feed(profile: &mut LoadProfile, hours: usize, rate: impl Fn(usize) -> u64) -> u64 {
        let mut operations = 0;
        for minute in 0..hours * 60 {
            let now_ms = MONDAY_MS + minute as u64 * 60_000;
            profile.observe(operations, now_ms, now_ms);
            operations += rate(minute / 60) * 60;
        }
        let end_ms = MONDAY_MS + hours as u64 * HOUR_MS;
        profile.observe(operations, end_ms, end_ms);
        end_ms
    }

    #[test]
    fn the_hours_follow_the_wall_clock_and_a_glitch_of_it_teaches_nothing() {
        let mut profile = LoadProfile::new();
        let feed = |profile: &mut LoadProfile, minutes: std::ops::Range<u64>, wall_ahead_ms: u64| {
            for minute in minutes {
                let now_ms = MONDAY_MS + minute * 60_000;
                profile.observe(minute * 60_000, now_ms, now_ms + wall_ahead_ms);
            }
        };
        let glitch_ms = 5 * HOUR_MS;
        feed(&mut profile, 0..70, 0);
        feed(&mut profile, 70..80, glitch_ms);
        feed(&mut profile, 80..181, 0);
        let known = |profile: &LoadProfile, ms| profile.rates[hour_of_week(ms)];
        assert_eq!([0, 1, 2].map(|hour| known(&profile, MONDAY_MS + hour * HOUR_MS)), [1000.0; 3]);
        assert!(known(&profile, MONDAY_MS + HOUR_MS + glitch_ms).is_nan());
        // Set for good, it is right.
        feed(&mut profile, 181..301, glitch_ms);
        assert_eq!(known(&profile, MONDAY_MS + 4 * HOUR_MS + glitch_ms), 1000.0);
    }

    #[test]
    fn the_week_begins_on_monday() {
        assert_eq!(hour_of_week(0), 3 * 24);
        assert_eq!(hour_of_week(MONDAY_MS), 0);
        assert_eq!(hour_of_week(MONDAY_MS - 1), HOURS - 1);
        assert_eq!(hour_of_week(1_772_445_600_000), 10, "10:00 of Monday, 2 March 2026");
    }

    #[test]
    fn it_knows_what_it_has_measured() {
        let mut profile = LoadProfile::new();
        assert_eq!((profile.rate(), profile.forecast(0)), (None, None));
        let now_ms = feed(&mut profile, 8 * 24, rate);
        assert_eq!(profile.rate(), Some(100.0));
        for ahead in 0..HOURS {
            let at_ms = now_ms + ahead as u64 * HOUR_MS;
            assert_eq!(
                profile.forecast(at_ms),
                Some(rate(hour_of_week(at_ms)) as f32),
                "{ahead} hours ahead"
            );
        }
    }

    #[test]
    fn less_than_a_day_is_too_little() {
        for (hours, verdict) in
            [(0, Verdict::TooLittleData), (23, Verdict::TooLittleData), (24, Verdict::Low)]
        {
            let mut profile = LoadProfile::new();
            let now_ms = feed(&mut profile, hours, rate);
            let outlook = profile.outlook(now_ms);
            assert_eq!((outlook.hours_known, outlook.verdict()), (hours, verdict), "after {hours} hours");
        }
    }

    #[test]
    fn an_hour_that_was_not_seen_is_as_the_same_hour_of_the_other_days() {
        let mut profile = LoadProfile::new();
        let now_ms = feed(&mut profile, 2 * 24, |hour| if hour < 24 { 100 } else { 300 });
        assert_eq!(profile.forecast(now_ms), Some(200.0));
    }

    #[test]
    fn the_newest_week_weighs_as_stated() {
        let mut profile = LoadProfile::new();
        let now_ms = feed(&mut profile, 2 * HOURS, |hour| if hour < HOURS { 1000 } else { 2000 });
        assert_eq!(profile.forecast(now_ms), Some(1300.0));
    }

    #[test]
    fn an_hour_half_seen_and_a_gap_do_not_count() {
        let mut profile = LoadProfile::new();
        // Twenty minutes of an hour, and nothing until the hour after the next.
        for minute in 0..20 {
            let now_ms = MONDAY_MS + minute * 60_000;
            profile.observe(minute * 60_000, now_ms, now_ms);
        }
        profile.observe(9_000_000, MONDAY_MS + 2 * HOUR_MS, MONDAY_MS + 2 * HOUR_MS);
        assert_eq!(profile.forecast(MONDAY_MS), None);
        assert_eq!(profile.forecast(MONDAY_MS + HOUR_MS), None);
    }

    #[test]
    fn verdicts() {
        let mut days = [500.0; AHEAD];
        days[5] = 100.0;
        let quiet_now = |rate| {
            let mut forecast = days;
            forecast.rotate_left(5);
            Outlook { rate, hours_known: AHEAD, forecast }
        };
        let flat = [500.0; AHEAD];
        for (outlook, verdict, lowest) in [
            (Outlook { rate: 400.0, hours_known: AHEAD, forecast: days }, Verdict::LowerAhead, 5),
            (Outlook { rate: 0.0, hours_known: AHEAD - 1, forecast: days }, Verdict::TooLittleData, 5),
            (quiet_now(0.0), Verdict::Low, 0),
            (quiet_now(150.0), Verdict::Low, 0),
            (quiet_now(151.0), Verdict::AboveForecast, 0),
            (Outlook { rate: 500.0, hours_known: AHEAD, forecast: flat }, Verdict::Flat, 0),
            (Outlook { rate: 0.0, hours_known: AHEAD, forecast: [0.0; AHEAD] }, Verdict::Low, 0),
        ] {
            assert_eq!((outlook.verdict(), outlook.lowest().0), (verdict, lowest), "{outlook:?}");
        }
    }

    #[test]
    fn the_outlooks_of_shards_add_up() {
        let mut sum = Outlook { rate: 1.0, hours_known: 24, forecast: [2.0; AHEAD] };
        sum += Outlook { rate: 3.0, hours_known: 7, forecast: [5.0; AHEAD] };
        assert_eq!(sum, Outlook { rate: 4.0, hours_known: 7, forecast: [7.0; AHEAD] });
    }

    #[test]
    fn a_profile_survives_as_these_bytes() {
        let mut profile = LoadProfile::new();
        let now_ms = feed(&mut profile, 2, |hour| if hour == 0 { 1 } else { 1000 });
        let bytes = profile.to_bytes();
        assert_eq!(bytes[..13], *b"\x01\x00\x00\x80\x3f\x00\x00\x7a\x44\x00\x00\xc0\x7f");
        assert_eq!(bytes.len(), 673);
        let kept = LoadProfile::from_bytes(&bytes).unwrap();
        assert_eq!(kept.to_bytes(), bytes);
        assert_eq!(kept.forecast(now_ms - HOUR_MS), Some(1000.0));
    }

    #[test]
    fn other_bytes_are_no_profile() {
        let good = LoadProfile::new().to_bytes();
        assert!(LoadProfile::from_bytes(&good).is_some());
        let with = |at: usize, bytes: &[u8]| {
            let mut changed = good;
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            changed.to_vec()
        };
        for bytes in [
            Vec::new(),
            good[1..].to_vec(),
            with(0, &[2]),
            with(1, &(-1.0f32).to_le_bytes()),
            with(5, &f32::INFINITY.to_le_bytes()),
        ] {
            assert!(LoadProfile::from_bytes(&bytes).is_none(), "{:?}", &bytes[..bytes.len().min(9)]);
        }
    }
}
