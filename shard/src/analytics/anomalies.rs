//! Anomalies: which of a bounded number of measured series have left what is normal for them, since when, and by
//! how much.
//!
//! It is fed with one value per series about once a second, and never sees a request. It reads no clock: the
//! same values at the same times give the same findings.
//!
//! Every value is judged twice:
//!
//! - Against the last two minutes: how many robust standard deviations it lies from their median. The standard
//!   deviation is estimated from the median absolute deviation, which a storm cannot inflate (Hampel, The
//!   influence curve and its role in robust estimation, 1974). What this hour of the week has shown in other
//!   weeks, or in the first week on other days, is not held against it.
//! - Minute by minute, against the range that this hour of the week has shown in other weeks: what creeps up too
//!   slowly for the first one is found here.
//!
//! Keys and classes rise and fall with the whole server. What half of them do at once is no news about each: beside
//! its own past, the rate of a key or a class is held against that past times the median of what all of them do
//! now, and the smaller deviation counts. The server as a whole is judged by its own rate alone, so that a load that
//! changes is one finding and not one for each of its parts.
//!
//! Neither alarms on a single value. The deviations, each bounded, are summed up less a slack, and the sum has to
//! cross a threshold: the CUSUM chart (Page, Continuous inspection schemes, 1954) over bounded scores, so that a
//! lone spike, however high, never suffices. Where the sum left zero is the estimate of when the change began.
//! Values under suspicion do not become part of the recent past, until a change has lasted for an hour: then it
//! is the new normal.

mod finding;
mod series;

use series::{GAP_MS, Series, Weeks};

pub use finding::{Finding, Measure, Scope, SeriesId};

/// How many series are followed at most. Beyond, a new one takes the place of the one that was not observed for
/// the longest time.
pub const SERIES_MAX: usize = 128;

/// Longer names of keys and classes are not followed.
pub const NAME_LEN_MAX: usize = 1024;

/// How many findings that are over are kept, and how long.
pub const ENDED_MAX: usize = 64;
const ENDED_KEPT_MS: u64 = 600_000;

/// So many keys and classes have to be followed before anything is called common to them.
const COMMON_MIN: usize = 8;
/// What is common to them multiplies their rates by at most so much.
const COMMON_MAX: f32 = 10.0;
/// Whose last observation is older says nothing of what they have in common now.
const COMMON_AGE_MS: u64 = 3000;

/// Follows series and says which of them are not normal.
#[derive(Debug, Default)]
pub struct Detector {
    /// Sorted by id.
    series: Vec<Series>,
    /// What is over, oldest first.
    ended: Vec<Finding>,
    /// The time of the last observations, and by what the rates of keys and classes were multiplied before it,
    /// where that is known.
    now_ms: u64,
    common: Option<f32>,
    /// How far the wall clock is ahead of the time of the observations.
    wall_ahead_ms: i64,
}

/// How many series are followed, and how many of them are not normal; those of several shards add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Series that are followed.
    pub series: u64,
    /// Those that are not normal, in the orders of [`Scope::ALL`] and [`Measure::ALL`].
    pub anomalies: [[u64; Measure::ALL.len()]; Scope::ALL.len()],
}

impl std::ops::AddAssign for Watched {
    fn add_assign(&mut self, other: Watched) {
        self.series += other.series;
        let (all, more) = (self.anomalies.iter_mut().flatten(), other.anomalies.iter().flatten());
        all.zip(more).for_each(|(sum, count)| *sum += count);
    }
}

impl Detector {
    /// Follows nothing yet.
    pub fn new() -> Detector {
        Detector::default()
    }

    /// From now on the wall clock, by which the hours of the week go, is so far ahead of the time of the observations.
    pub fn set_wall_ahead(&mut self, wall_ahead_ms: i64) {
        self.wall_ahead_ms = wall_ahead_ms;
        self.series.iter_mut().for_each(|series| series.wall_ahead_ms = wall_ahead_ms);
    }

    /// Takes the newest value of a series, which is followed from its first value on. To be called about once a
    /// second for each series that has a value; `now_ms` never goes back.
    ///
    /// Nothing is found in a series before it has been observed for a minute, and nothing that creeps before it
    /// has been observed for a week.
    pub fn observe(&mut self, id: SeriesId<'_>, value: f64, now_ms: u64) {
        if now_ms != self.now_ms {
            (self.now_ms, self.common) = (now_ms, self.common(now_ms));
        }
        let common = self.common.filter(|_| id.has_common());
        let Some(series) = self.series_of(id, now_ms) else { return };
        let silenced = series.end_in_silence(now_ms);
        let ended = series.observe(value as f32, common.unwrap_or(1.0), now_ms);
        silenced.into_iter().chain(ended).for_each(|finding| self.keep(finding));
    }

    /// Starts to follow a series of which nothing is known but that its values were not above `normal_max` so
    /// far, as with a key that a list of the hottest did not hold until now: it can be found at once. Without
    /// effect for a series that was observed within the last half minute.
    pub fn introduce(&mut self, id: SeriesId<'_>, normal_max: f64, now_ms: u64) {
        let known = self.position(id).is_ok();
        let Some(series) = self.series_of(id, now_ms) else { return };
        if !known || series.is_silent(now_ms) {
            let ended = series.end_in_silence(now_ms);
            series.assume(normal_max as f32, now_ms);
            ended.into_iter().for_each(|finding| self.keep(finding));
        }
    }

    /// What is not normal at `now_ms`, and then what is over since at most ten minutes; each part with the
    /// greatest score first.
    pub fn findings(&self, now_ms: u64) -> Vec<Finding> {
        let silent = |series: &Series| series.is_silent(now_ms);
        let end = |series: &Series| series.finding.as_ref().map(|finding| finding.ended(series.observed_ms));
        let active = self.series.iter().filter(|series| !silent(series));
        let mut found: Vec<Finding> = active.filter_map(|series| series.finding.clone()).collect();
        let silenced = self.series.iter().filter(|series| silent(series)).filter_map(end);
        let mut over: Vec<Finding> = self.ended.iter().cloned().chain(silenced).collect();
        over.retain(|finding| finding.until_ms.is_some_and(|until_ms| until_ms + ENDED_KEPT_MS >= now_ms));
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        over.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.append(&mut over);
        let by_wall_clock = |ms: u64| ms.saturating_add_signed(self.wall_ahead_ms);
        for finding in &mut found {
            finding.since_ms = by_wall_clock(finding.since_ms);
            finding.until_ms = finding.until_ms.map(by_wall_clock);
        }
        found
    }

    /// How many series are followed, and how many of them are not normal at `now_ms`.
    pub fn watched(&self, now_ms: u64) -> Watched {
        let mut watched = Watched { series: self.series.len() as u64, ..Watched::default() };
        let lasting = self.series.iter().filter(|series| !series.is_silent(now_ms));
        for finding in lasting.filter_map(|series| series.finding.as_ref()) {
            watched.anomalies[finding.scope as usize][finding.measure as usize] += 1;
        }
        watched
    }

    /// How many series are followed, and how many of them long enough for a finding.
    pub fn series_counts(&self) -> (usize, usize) {
        (self.series.len(), self.series.iter().filter(|series| series.is_ready()).count())
    }

    /// The memory it holds, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let series = self.series.iter().map(|series| size_of::<Weeks>() + series.name.len());
        let ended = self.ended.iter().map(|finding| finding.name.len());
        series.sum::<usize>()
            + ended.sum::<usize>()
            + self.series.capacity() * size_of::<Series>()
            + self.ended.capacity() * size_of::<Finding>()
    }

    /// The median of what the rates of keys and classes are times what is normal for them.
    fn common(&self, now_ms: u64) -> Option<f32> {
        let is_current = |it: &&Series| it.is_ready() && it.observed_ms + COMMON_AGE_MS >= now_ms;
        let rates = self.series.iter().filter(|series| series.id().has_common()).filter(is_current);
        let mut all: Vec<f32> = rates.map(Series::times_normal).filter(|times| times.is_finite()).collect();
        if all.len() < COMMON_MIN {
            return None;
        }
        let middle = all.len() / 2;
        Some(all.select_nth_unstable_by(middle, f32::total_cmp).1.clamp(0.0, COMMON_MAX))
    }

    fn position(&self, id: SeriesId<'_>) -> Result<usize, usize> {
        self.series.binary_search_by(|series| series.id().cmp(&id))
    }

    fn series_of(&mut self, id: SeriesId<'_>, now_ms: u64) -> Option<&mut Series> {
        let place = match self.position(id) {
            Ok(place) => place,
            Err(_) if id.name.len() > NAME_LEN_MAX => return None,
            Err(place) if self.series.len() < SERIES_MAX => {
                self.series.insert(place, Series::new(id, now_ms, self.wall_ahead_ms));
                place
            }
            Err(_) => {
                self.forget_one(now_ms)?;
                let place = self.position(id).unwrap_or_else(|place| place);
                self.series.insert(place, Series::new(id, now_ms, self.wall_ahead_ms));
                place
            }
        };
        Some(&mut self.series[place])
    }

    /// Makes room: the series that was not observed for the longest time goes, if not all are in use.
    fn forget_one(&mut self, now_ms: u64) -> Option<()> {
        let idle = self.series.iter().enumerate().filter(|(_, series)| series.observed_ms + GAP_MS < now_ms);
        let (oldest, _) = idle.min_by_key(|(_, series)| series.observed_ms)?;
        let series = self.series.remove(oldest);
        if let Some(finding) = series.finding {
            self.keep(finding.ended(series.observed_ms));
        }
        Some(())
    }

    fn keep(&mut self, finding: Finding) {
        if self.ended.len() == ENDED_MAX {
            self.ended.remove(0);
        }
        self.ended.push(finding);
    }
}

impl Finding {
    fn ended(&self, until_ms: u64) -> Finding {
        Finding { until_ms: Some(until_ms), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::series::{HOUR_MS, RECENT_MIN, SILENT_MS};
    use super::*;

    /// Noon of a Monday.
    const NOON_MS: u64 = (4 * 24 + 12) * HOUR_MS;
    const RATE: SeriesId<'static> = SeriesId { scope: Scope::Shard, measure: Measure::Rate, name: b"" };

    /// Feeds seconds of a series from `from_ms` on; returns the time after the last one.
    fn feed(
        detector: &mut Detector,
        id: SeriesId<'_>,
        from_ms: u64,
        values: impl IntoIterator<Item = f64>,
    ) -> u64 {
        let mut now_ms = from_ms;
        for value in values {
            detector.observe(id, value, now_ms);
            now_ms += 1000;
        }
        now_ms
    }

    /// Values around `level`, up to 5 % off.
    fn around(level: f64, seconds: usize) -> impl Iterator<Item = f64> {
        (0..seconds).map(move |second| level * (1.0 + 0.05 * ((second * 7 % 11) as f64 - 5.0) / 5.0))
    }

    #[test]
    fn a_storm_is_found_within_seconds_and_says_since_when() {
        let mut detector = Detector::new();
        let id = SeriesId::key(Measure::Rate, b"user:42");
        let storm_ms = feed(&mut detector, id, NOON_MS, around(120.0, 130));
        assert_eq!(detector.findings(storm_ms), []);
        let now_ms = feed(&mut detector, id, storm_ms, [9310.0; 5]);
        let findings = detector.findings(now_ms);
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((finding.since_ms, finding.until_ms), (storm_ms, None));
        let Watched { series, anomalies } = detector.watched(now_ms);
        assert_eq!((series, anomalies[Scope::Key as usize]), (1, [1, 0, 0, 0, 0]));
        assert_eq!(anomalies.as_flattened().iter().sum::<u64>(), 1);
        assert_eq!(detector.watched(now_ms + SILENT_MS + 1).anomalies, Watched::default().anomalies);
        assert_eq!(finding.explanation(0), "rate user:42 9310/s, normal 120/s (p99 126/s), since 12:02:10Z");
    }

    #[test]
    fn a_finding_ends_when_all_is_normal_again_and_is_forgotten_later() {
        let mut detector = Detector::new();
        let storm_ms = feed(&mut detector, RATE, NOON_MS, around(1000.0, 120));
        let over_ms = feed(&mut detector, RATE, storm_ms, [5000.0, 5000.0, 5000.0, 5000.0, 6000.0, 5000.0]);
        let now_ms = feed(&mut detector, RATE, over_ms, around(1000.0, 40));
        let findings = detector.findings(now_ms);
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((finding.since_ms, finding.until_ms), (storm_ms, Some(over_ms)));
        assert_eq!(
            finding.explanation(3),
            "rate shard 3 6000/s, normal 1000/s (p99 1050/s), from 12:02:00Z to 12:02:06Z"
        );
        assert_eq!(detector.findings(over_ms + ENDED_KEPT_MS + 1), []);
    }

    #[test]
    fn a_lone_spike_is_no_finding_however_high() {
        let mut detector = Detector::new();
        let mut now_ms = feed(&mut detector, RATE, NOON_MS, around(1000.0, 120));
        for _ in 0..20 {
            now_ms = feed(&mut detector, RATE, now_ms, [1e9, 1e9, 1e9]);
            now_ms = feed(&mut detector, RATE, now_ms, around(1000.0, 10));
        }
        assert_eq!(detector.findings(now_ms), []);
    }

    #[test]
    fn silence_is_found_in_the_rate_of_a_shard_but_not_of_a_key() {
        for (id, count) in [(RATE, 1), (SeriesId::key(Measure::Rate, b"k"), 0)] {
            let mut detector = Detector::new();
            let now_ms = feed(&mut detector, id, NOON_MS, around(1000.0, 120));
            let now_ms = feed(&mut detector, id, now_ms, [0.0; 10]);
            assert_eq!(detector.findings(now_ms).len(), count, "{id:?}");
        }
    }

    #[test]
    fn too_little_data_finds_nothing() {
        let mut detector = Detector::new();
        let now_ms = feed(&mut detector, RATE, NOON_MS, around(1000.0, RECENT_MIN - 1));
        assert_eq!(detector.series_counts(), (1, 0));
        let now_ms = feed(&mut detector, RATE, now_ms, [9000.0]);
        assert_eq!(detector.findings(now_ms), []);
        assert_eq!(detector.series_counts(), (1, 1));
    }

    #[test]
    fn a_key_out_of_nowhere_is_found_by_what_it_cannot_have_been() {
        let mut detector = Detector::new();
        let id = SeriesId::key(Measure::Rate, b"user:42");
        detector.introduce(id, 50.0, NOON_MS);
        let now_ms = feed(&mut detector, id, NOON_MS, [9310.0; 5]);
        let findings = detector.findings(now_ms);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].explanation(0), "rate user:42 9310/s, normal at most 50/s, since 12:00:00Z");
    }

    #[test]
    fn a_key_that_falls_silent_has_no_finding_and_is_found_again() {
        let mut detector = Detector::new();
        let id = SeriesId::key(Measure::Rate, b"user:42");
        for storm_ms in [NOON_MS, NOON_MS + HOUR_MS] {
            detector.introduce(id, 50.0, storm_ms);
            let over_ms = feed(&mut detector, id, storm_ms, [9310.0; 10]);
            let lasting = |now_ms| {
                let findings = detector.findings(now_ms).into_iter();
                findings.filter(|it| it.until_ms.is_none()).map(|it| it.since_ms).collect::<Vec<_>>()
            };
            assert_eq!(lasting(over_ms), [storm_ms]);
            assert_eq!(lasting(over_ms + SILENT_MS + 1), []);
        }
    }

    #[test]
    fn what_all_do_at_once_is_one_finding_and_a_storm_in_it_another() {
        let mut detector = Detector::new();
        let names: Vec<String> = (0..12).map(|number| format!("key:{number}")).collect();
        let mut second = 0;
        let mut turn = |detector: &mut Detector, seconds: usize, factor: f64, storm: f64| {
            for noise in around(1.0, seconds) {
                second += 1;
                let now_ms = NOON_MS + second * 1000;
                let rate = |storm: f64| 100.0 * noise * factor * storm;
                detector.observe(RATE, 11.0 * rate(1.0) + rate(storm), now_ms);
                for (name, scope) in names.iter().zip([Scope::Key, Scope::Class].into_iter().cycle()) {
                    let storm = if name == "key:7" { storm } else { 1.0 };
                    let id = SeriesId { scope, measure: Measure::Rate, name: name.as_bytes() };
                    detector.observe(id, rate(storm), now_ms);
                }
            }
            let found = detector.findings(NOON_MS + second * 1000).into_iter();
            found.map(|it| String::from_utf8_lossy(&it.name).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(turn(&mut detector, 200, 1.0, 1.0), Vec::<String>::new());
        assert_eq!(turn(&mut detector, 300, 1.8, 1.0), [""], "the whole shard");
        assert_eq!(
            turn(&mut detector, 10, 1.8, 5.0).len(),
            2,
            "the shard and the class that left the others"
        );
        assert_eq!(turn(&mut detector, 300, 1.8, 1.0).len(), 2);
        // All of it ends, and then all of it ceases: the shard tells, once.
        assert_eq!(turn(&mut detector, 1200, 1.0, 1.0), Vec::<String>::new());
        assert_eq!(turn(&mut detector, 60, 0.0, 1.0), [""]);
    }

    #[test]
    fn what_lasts_for_an_hour_is_normal() {
        let mut detector = Detector::new();
        let now_ms = feed(&mut detector, RATE, NOON_MS, around(1000.0, 120));
        let now_ms = feed(&mut detector, RATE, now_ms, around(3000.0, 3500));
        assert_eq!(detector.findings(now_ms).iter().filter(|it| it.until_ms.is_none()).count(), 1);
        let now_ms = feed(&mut detector, RATE, now_ms, around(3000.0, 400));
        assert_eq!(detector.findings(now_ms).iter().filter(|it| it.until_ms.is_none()).count(), 0);
        let now_ms = feed(&mut detector, RATE, now_ms, around(9000.0, 10));
        assert_eq!(detector.findings(now_ms)[0].normal, 3000.0);
    }

    #[test]
    fn what_each_week_brings_at_this_hour_is_normal() {
        let mut detector = Detector::new();
        // A job runs on Mondays from 12:20 to 12:25.
        let hour = |job: f64| around(1000.0, 1200).chain(around(job, 300)).chain(around(1000.0, 2100));
        let mut found = Vec::new();
        for week in 0..3 {
            let begin_ms = NOON_MS + week * 7 * 24 * HOUR_MS;
            feed(&mut detector, RATE, begin_ms, hour(1350.0));
            found.push(detector.findings(begin_ms + HOUR_MS / 2).len());
        }
        assert_eq!(found, [1, 0, 0]);
    }

    #[test]
    fn what_creeps_up_is_found_against_last_week() {
        let mut detector = Detector::new();
        feed(&mut detector, RATE, NOON_MS, around(1000.0, 3700));
        let next_week_ms = NOON_MS + 7 * 24 * HOUR_MS;
        let creeping = around(1.0, 3000).zip(0..).map(|(noise, second)| noise * (1000.0 + f64::from(second)));
        let now_ms = feed(&mut detector, RATE, next_week_ms, creeping.take(1500));
        let findings = detector.findings(now_ms);
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert!((990.0..1010.0).contains(&finding.normal), "{finding:?}");
    }

    #[test]
    fn memory_is_bounded_whatever_is_observed() {
        let mut detector = Detector::new();
        for second in 0..10_000u64 {
            for key in 0..10 {
                let name = format!("key:{}", second / 3 + key);
                detector.introduce(SeriesId::key(Measure::Rate, name.as_bytes()), 1.0, second * 1000);
                let rate = if key % 2 == 0 { 1e6 } else { 1.0 };
                detector.observe(SeriesId::key(Measure::Rate, name.as_bytes()), rate, second * 1000);
            }
        }
        detector.observe(SeriesId::key(Measure::Rate, &[b'x'; NAME_LEN_MAX + 1]), 1.0, 10_000_000);
        assert!(detector.series_counts().0 <= SERIES_MAX);
        assert!(detector.findings(10_000_000).len() <= SERIES_MAX + ENDED_MAX);
        assert!(detector.memory_bytes() < 512 * 1024, "{}", detector.memory_bytes());
    }
}
