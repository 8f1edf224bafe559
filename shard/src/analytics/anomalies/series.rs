//! One series: what its values were, what is normal for it, and its finding while there is one.
//!
//! It knows no other series: what all of them have in common it is told.

use super::super::load::{HOURS, hour_of_week};
use super::finding::{Finding, Measure, Scope, SeriesId};

/// Observations that make up the recent past, and how many there have to be before anything is judged by them.
const RECENT: usize = 120;
pub(super) const RECENT_MIN: usize = 60;

/// How often the median and its like are computed anew: at the same moments in all series, so that what they have in
/// common stays comparable.
const REFRESH_EVERY_MS: u64 = 8000;

/// A single value counts for at most so many standard deviations.
const SCORE_MAX: f32 = 6.0;

/// Slack and threshold of the sum over observations, in standard deviations: four values of the greatest score
/// in a row are an alarm, three are not.
const QUICK: Chart = Chart { slack: 3.0, threshold: 11.0 };

/// The same for the sum over minutes.
const SLOW: Chart = Chart { slack: 2.0, threshold: 10.0 };

/// How long all has to be normal for a finding to end.
const CALM_MS: u64 = 30_000;

/// A series that has not been observed for so long has no finding any more.
pub(super) const SILENT_MS: u64 = 30_000;

/// After a longer gap between two observations, sums start from zero.
pub(super) const GAP_MS: u64 = 10_000;

/// What has been different for so long is normal.
const NEW_NORMAL_MS: u64 = 3_600_000;

/// What is not normal for no longer than this is part of what its hour of the week brings: a job, for example.
const PASSING_MS: u64 = 600_000;

/// The fewest observations that make a minute's mean, and the fewest minutes that make an hour.
const MINUTE_OBSERVATIONS_MIN: u32 = 20;
const HOUR_MINUTES_MIN: u32 = 30;

/// How much the newest week weighs in the profile of the hours.
const WEEK_WEIGHT: f32 = 0.5;

const MINUTE_MS: u64 = 60_000;
pub(super) const HOUR_MS: u64 = 3_600_000;

/// One series: its recent past, its weeks, its sums.
#[derive(Debug)]
pub(super) struct Series {
    scope: Scope,
    measure: Measure,
    pub(super) name: Box<[u8]>,
    pub(super) observed_ms: u64,
    /// How far the wall clock, by which the hours go, is ahead of the time of the observations.
    pub(super) wall_ahead_ms: i64,
    /// The last values that are not under suspicion, in a ring.
    recent: [f32; RECENT],
    recent_len: usize,
    recent_next: usize,
    /// In which span of [`REFRESH_EVERY_MS`] `normal` was computed.
    refreshed: u64,
    newest: f32,
    normal: Normal,
    /// Sums of the deviations upwards and downwards.
    quick: [Sum; 2],
    slow: [Sum; 2],
    minute: Mean,
    hour: Hour,
    weeks: Box<Weeks>,
    /// Since when all is normal while there is a finding.
    calm_since_ms: Option<u64>,
    pub(super) finding: Option<Finding>,
    /// The value furthest from normal since the finding began.
    extreme: f32,
}

/// What the recent past says is normal.
#[derive(Clone, Copy, Debug, Default)]
struct Normal {
    median: f32,
    deviation: f32,
    p1: f32,
    p99: f32,
    is_bound: bool,
}

/// Slack and threshold of a CUSUM chart.
struct Chart {
    slack: f32,
    threshold: f32,
}

/// One side of a CUSUM chart.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    sum: f32,
    left_zero_ms: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    /// Which minute since the epoch.
    number: u64,
    sum: f64,
    count: u32,
}

/// The means of the minutes of the hour that is under way, without those of lasting findings.
#[derive(Clone, Copy, Debug, Default)]
struct Hour {
    /// Which hour since the epoch.
    number: u64,
    minutes: u32,
    low: f32,
    high: f32,
}

/// The lowest and the highest minute of each hour of the week, smoothed over weeks. NaN where unknown.
#[derive(Debug)]
pub(super) struct Weeks {
    low: [f32; HOURS],
    high: [f32; HOURS],
}

impl Series {
    pub(super) fn new(id: SeriesId<'_>, now_ms: u64, wall_ahead_ms: i64) -> Series {
        Series {
            scope: id.scope,
            measure: id.measure,
            name: id.name.into(),
            observed_ms: now_ms,
            wall_ahead_ms,
            recent: [0.0; RECENT],
            recent_len: 0,
            recent_next: 0,
            refreshed: 0,
            newest: 0.0,
            normal: Normal::default(),
            quick: Default::default(),
            slow: Default::default(),
            minute: Mean::default(),
            hour: Hour::default(),
            weeks: Box::new(Weeks { low: [f32::NAN; HOURS], high: [f32::NAN; HOURS] }),
            calm_since_ms: None,
            finding: None,
            extreme: 0.0,
        }
    }

    pub(super) fn id(&self) -> SeriesId<'_> {
        SeriesId { scope: self.scope, measure: self.measure, name: &self.name }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.recent_len >= RECENT_MIN
    }

    pub(super) fn is_silent(&self, now_ms: u64) -> bool {
        self.observed_ms + SILENT_MS < now_ms
    }

    /// The newest value, in multiples of what is normal.
    pub(super) fn times_normal(&self) -> f32 {
        self.newest / self.normal.median
    }

    /// Ends the finding of a series that was not observed for a while.
    pub(super) fn end_in_silence(&mut self, now_ms: u64) -> Option<Finding> {
        if !self.is_silent(now_ms) {
            return None;
        }
        (self.quick, self.slow) = Default::default();
        let finding = self.finding.take()?;
        Some(Finding { value: f64::from(self.extreme), ..finding.ended(self.observed_ms) })
    }

    /// Takes it as known that the values were not above `normal_max` so far.
    pub(super) fn assume(&mut self, normal_max: f32, now_ms: u64) {
        self.recent[..RECENT_MIN].fill(normal_max);
        (self.recent_len, self.recent_next) = (RECENT_MIN, RECENT_MIN);
        self.observed_ms = now_ms;
        self.refresh(now_ms);
        self.normal.is_bound = true;
    }

    /// Takes a value, of which `common` times what is normal is no news; returns a finding that ended with it.
    pub(super) fn observe(&mut self, value: f32, common: f32, now_ms: u64) -> Option<Finding> {
        if !value.is_finite() {
            return None;
        }
        if now_ms > self.observed_ms + GAP_MS {
            self.quick = Default::default();
        }
        (self.observed_ms, self.newest) = (now_ms, value);
        self.end_minute(now_ms);
        self.minute.sum += f64::from(value);
        self.minute.count += 1;
        let mut score = 0.0;
        if self.is_ready() {
            score = self.score(value, common, now_ms);
            self.quick[0].add(score, &QUICK, now_ms);
            self.quick[1].add(-score, &QUICK, now_ms);
        }
        let ended = self.judge(value, score, now_ms);
        let suspicious = self.quick.iter().any(|sum| sum.sum > QUICK.threshold / 2.0);
        if self.finding.is_none() && !suspicious {
            self.admit(value, now_ms);
        }
        ended
    }

    fn unix_ms(&self, ms: u64) -> u64 {
        ms.saturating_add_signed(self.wall_ahead_ms)
    }

    /// How far the value is from normal, in standard deviations of the recent past; towards what this hour of
    /// the week is known to bring it counts only as far as it leaves that.
    fn score(&self, value: f32, common: f32, now_ms: u64) -> f32 {
        let Normal { median, deviation, .. } = self.normal;
        let own = (value - median) / deviation;
        let with_all = (value - median * common) / (deviation * common.max(1.0));
        let score = if own > 0.0 { own.min(with_all.max(0.0)) } else { own.max(with_all.min(0.0)) };
        match self.weeks.habit(self.unix_ms(now_ms)) {
            Some((_, high)) if score > 0.0 => score.min(((value - high) / deviation).max(0.0)),
            Some((low, _)) if score < 0.0 => score.max(((value - low) / deviation).min(0.0)),
            _ => score,
        }
    }

    /// Begins, updates or ends the finding.
    fn judge(&mut self, value: f32, score: f32, now_ms: u64) -> Option<Finding> {
        if self.finding.is_none() {
            self.begin(value, now_ms);
        }
        let finding = self.finding.as_mut()?;
        finding.value = f64::from(value);
        finding.score = finding.score.max(f64::from(score.abs()));
        let distance = |value: f32| (value - finding.normal as f32).abs();
        if distance(value) > distance(self.extreme) {
            self.extreme = value;
        }
        let slow = self.slow.iter().any(|sum| sum.sum > 0.0);
        let is_calm = score.abs() < QUICK.slack && !slow;
        self.calm_since_ms = is_calm.then(|| self.calm_since_ms.unwrap_or(now_ms));
        let until_ms = self.calm_since_ms.unwrap_or(now_ms);
        let is_new_normal = now_ms >= finding.since_ms + NEW_NORMAL_MS;
        if now_ms < until_ms + CALM_MS && !is_new_normal {
            return None;
        }
        finding.value = f64::from(self.extreme);
        let ended = finding.ended(until_ms);
        if is_new_normal {
            self.accept(value, now_ms);
        }
        self.finding = None;
        (self.quick, self.slow) = Default::default();
        Some(ended)
    }

    fn begin(&mut self, value: f32, now_ms: u64) {
        let may_fall = self.id().may_fall();
        let crossed = |sums: &[Sum; 2], chart: &Chart| {
            let sides = if may_fall { &sums[..] } else { &sums[..1] };
            let over = sides.iter().filter(|sum| sum.sum > chart.threshold);
            over.map(|sum| sum.left_zero_ms).min()
        };
        let quick = crossed(&self.quick, &QUICK);
        let slow = crossed(&self.slow, &SLOW);
        let Some(since_ms) = quick.into_iter().chain(slow).min() else { return };
        let mut normal = self.normal;
        if quick.is_none()
            && let Some((low, high)) = self.weeks.range(self.unix_ms(now_ms))
        {
            // The recent past has crept along.
            (normal.median, normal.p1, normal.p99) = (f32::midpoint(low, high), low, high);
        }
        self.calm_since_ms = None;
        self.extreme = value;
        self.finding = Some(Finding {
            scope: self.scope,
            measure: self.measure,
            name: self.name.clone(),
            since_ms,
            until_ms: None,
            value: f64::from(value),
            normal: f64::from(normal.median),
            normal_p1: f64::from(normal.p1),
            normal_p99: f64::from(normal.p99),
            normal_is_bound: normal.is_bound,
            score: f64::from((value - normal.median).abs() / normal.deviation),
        });
    }

    fn admit(&mut self, value: f32, now_ms: u64) {
        self.recent[self.recent_next] = value;
        self.recent_next = (self.recent_next + 1) % RECENT;
        self.recent_len = RECENT.min(self.recent_len + 1);
        if self.refreshed != now_ms / REFRESH_EVERY_MS || self.recent_len <= 1 {
            self.refresh(now_ms);
        }
    }

    fn refresh(&mut self, now_ms: u64) {
        self.refreshed = now_ms / REFRESH_EVERY_MS;
        let mut sorted = self.recent;
        let sorted = &mut sorted[..self.recent_len];
        sorted.sort_unstable_by(f32::total_cmp);
        let at = |sorted: &[f32], share: f32| sorted[((sorted.len() - 1) as f32 * share).round() as usize];
        let (p1, median, p99) = (at(sorted, 0.01), at(sorted, 0.5), at(sorted, 0.99));
        for value in &mut *sorted {
            *value = (*value - median).abs();
        }
        sorted.sort_unstable_by(f32::total_cmp);
        // For values of a normal distribution, the standard deviation is so many times the median deviation.
        let deviation = (1.4826 * at(sorted, 0.5)).max(self.measure.least_deviation(median));
        // Until as many values were seen as were assumed, normal is an assumption.
        let is_bound = self.normal.is_bound && self.recent_len < RECENT;
        self.normal = Normal { median, deviation, p1, p99, is_bound };
    }

    /// Closes the minute, and the hour, that have ended.
    fn end_minute(&mut self, now_ms: u64) {
        let number = now_ms / MINUTE_MS;
        let minute = self.minute;
        if minute.number == number {
            return;
        }
        self.minute = Mean { number, ..Mean::default() };
        if minute.count >= MINUTE_OBSERVATIONS_MIN {
            let mean = (minute.sum / f64::from(minute.count)) as f32;
            let begun_ms = minute.number * MINUTE_MS;
            if let Some((low, high)) = self.weeks.range(self.unix_ms(begun_ms)) {
                let deviation = self.measure.least_deviation(f32::midpoint(low, high));
                self.slow[0].add((mean - high) / deviation, &SLOW, begun_ms);
                self.slow[1].add((low - mean) / deviation, &SLOW, begun_ms);
            }
            let lasting =
                self.finding.as_ref().is_some_and(|finding| finding.since_ms + PASSING_MS < begun_ms);
            if !lasting {
                self.hour.add(mean);
            }
        }
        let hour = self.unix_ms(now_ms) / HOUR_MS;
        if self.hour.number != hour {
            if self.hour.minutes >= HOUR_MINUTES_MIN {
                self.weeks.learn(&self.hour);
            }
            self.hour = Hour { number: hour, ..Hour::default() };
        }
    }

    /// What is not normal has lasted so long that it is: the past is forgotten, and the weeks are scaled to it.
    fn accept(&mut self, value: f32, now_ms: u64) {
        (self.recent_len, self.recent_next, self.refreshed) = (0, 0, 0);
        if let Some((low, high)) = self.weeks.range(self.unix_ms(now_ms)) {
            self.weeks.scale(value / f32::midpoint(low, high));
        }
    }
}

impl Sum {
    fn add(&mut self, score: f32, chart: &Chart, now_ms: u64) {
        if self.sum == 0.0 {
            self.left_zero_ms = now_ms;
        }
        // Bounded above, so that what is over is soon forgotten.
        self.sum = (self.sum + score.min(SCORE_MAX) - chart.slack).clamp(0.0, 2.0 * chart.threshold);
    }
}

impl Hour {
    fn add(&mut self, mean: f32) {
        self.low = if self.minutes == 0 { mean } else { self.low.min(mean) };
        self.high = if self.minutes == 0 { mean } else { self.high.max(mean) };
        self.minutes += 1;
    }
}

impl Weeks {
    /// The lowest and the highest minute of this hour of the week, where known.
    fn range(&self, unix_ms: u64) -> Option<(f32, f32)> {
        let hour = hour_of_week(unix_ms);
        (!self.low[hour].is_nan()).then_some((self.low[hour], self.high[hour]))
    }

    /// The same; where it is not known, what this hour brought on the other days.
    fn habit(&self, unix_ms: u64) -> Option<(f32, f32)> {
        let same = (hour_of_week(unix_ms) % 24..HOURS).step_by(24).filter(|hour| !self.low[*hour].is_nan());
        let days = same.map(|hour| (self.low[hour], self.high[hour]));
        self.range(unix_ms).or_else(|| days.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))))
    }

    fn learn(&mut self, newest: &Hour) {
        let hour = hour_of_week(newest.number * HOUR_MS);
        for (known, newest) in [(&mut self.low, newest.low), (&mut self.high, newest.high)] {
            let known = &mut known[hour];
            *known = if known.is_nan() { newest } else { *known + WEEK_WEIGHT * (newest - *known) };
        }
    }

    fn scale(&mut self, factor: f32) {
        let factor = if factor.is_finite() { factor.clamp(0.1, 10.0) } else { 1.0 };
        for value in self.low.iter_mut().chain(&mut self.high) {
            *value *= factor;
        }
    }
}
