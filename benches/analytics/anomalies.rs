//! Storms, drifts and outages that are put into weeks of load: how many the detector finds and how soon, and how
//! often it cries wolf.

use std::collections::HashSet;
use std::fmt::Write as _;

use shard::analytics::anomalies::{Detector, Finding, Measure, Scope, SeriesId};

use crate::weeks::{DAY_S, START_MS, WEEK_S, Weeks};
use crate::{Extent, Section};

/// The share of the storms that are to be found, and how many false alarms a day are not too many.
const RECALL_MIN: f64 = 0.95;
const FALSE_ALARMS_A_DAY_MAX: f64 = 1.0;

/// How long after its end an event may be found at the latest.
const AFTER_S: u64 = 10;

/// The findings that were seen.
type Known = HashSet<(Scope, Measure, Box<[u8]>, u64)>;

/// What happens to a series.
#[derive(Clone, Copy)]
struct Event {
    name: &'static str,
    /// By what it is multiplied in the end, and how long it takes to get there.
    factor: f64,
    rise_s: u64,
    /// How long it stays there.
    hold_s: u64,
    /// Whether it has to be found in 95 of 100 cases.
    is_target: bool,
}

const fn sudden(name: &'static str, factor: f64, hold_s: u64, is_target: bool) -> Event {
    Event { name, factor, rise_s: 0, hold_s, is_target }
}

const EVENTS: [Event; 9] = [
    sudden("storm of 5x, 10 s", 5.0, 10, true),
    sudden("storm of 10x, 10 s", 10.0, 10, true),
    sudden("storm of 3x, 30 s", 3.0, 30, true),
    sudden("storm of 2x, 60 s", 2.0, 60, false),
    sudden("storm of 1.5x, 5 min", 1.5, 300, false),
    sudden("outage, 30 s", 0.02, 30, true),
    sudden("half is missing, 5 min", 0.5, 300, false),
    Event { name: "drift to 3x in 30 min", factor: 3.0, rise_s: 1800, hold_s: 600, is_target: false },
    Event { name: "drift to 2x in 60 min", factor: 2.0, rise_s: 3600, hold_s: 1200, is_target: false },
];

/// What became of the events of a series.
#[derive(Default)]
struct Found {
    events: u32,
    found: u32,
    delays_s: Vec<u64>,
    /// Findings outside of events.
    false_alarms: u32,
    days: f64,
}

/// Which series the events are put into.
#[derive(Clone, Copy)]
enum Subject {
    /// The rate of a shard, of 2000/s on average.
    Shard,
    /// The rate of a key, of 100/s on average.
    Key,
    /// The rate of a key that was not followed before: it is introduced as the event begins.
    NewKey,
    /// A miss ratio of 0.1.
    MissRatio,
}

pub fn section(extent: Extent) -> Section {
    let mut text = String::from(
        "## ANOMALIES\n\nWeeks of synthetic load (daily, weekly, nightly job, wandering level, bursts, Poisson noise), \
         into which an event is put about every six hours. *First day*: the detector was started ten minutes before \
         the first event. *Third week*: it was started two weeks before. A finding counts if it comes \
         while the event lasts or within ten seconds after.\n\n\
         | event | series | known for | events | recall | delay p50 | delay p95 | target |\n\
         | --- | --- | --- | ---: | ---: | ---: | ---: | --- |\n",
    );
    let mut missed = Vec::new();
    for (event, subject, learnt_s) in experiments(extent) {
        eprintln!("{} in {}", event.name, subject.name());
        let found = run(event, subject, learnt_s, extent);
        let recall = f64::from(found.found) / f64::from(found.events);
        let target = if event.is_target { format!("recall >= {RECALL_MIN}") } else { String::new() };
        let known = if learnt_s < DAY_S { "first day" } else { "third week" };
        let (p50, p95) = (quantile(&found.delays_s, 0.5), quantile(&found.delays_s, 0.95));
        let _ = writeln!(
            text,
            "| {} | {} | {known} | {} | {recall:.3} | {p50} | {p95} | {target} |",
            event.name,
            subject.name(),
            found.events,
        );
        if event.is_target && recall < RECALL_MIN {
            missed.push(format!("{} in {}, {known}: recall {recall:.3}", event.name, subject.name()));
        }
    }
    text.push_str(
        "\nThe same load without events: every finding is a false alarm. A server is the rate, the ratios of misses \
         and writes, the latency and the growth of the memory of a shard, 16 keys and 16 classes. On the first day \
         the nightly job is new, and in the first week the weekend.\n\n\
         | series | known for | days | false alarms a day | target |\n| --- | --- | ---: | ---: | --- |\n",
    );
    eprintln!("without events");
    for (name, quiet) in quiet(extent) {
        let spans = [("first day", false), ("first week", true), ("later", true)].into_iter().zip(quiet);
        for ((known, is_target), found) in spans.filter(|(_, found)| found.days > 0.0) {
            let a_day = f64::from(found.false_alarms) / found.days;
            let target = if is_target { format!("<= {FALSE_ALARMS_A_DAY_MAX}") } else { String::new() };
            let _ = writeln!(text, "| {name} | {known} | {} | {a_day:.3} | {target} |", found.days);
            if is_target && a_day > FALSE_ALARMS_A_DAY_MAX {
                missed.push(format!("{name}, {known}: {a_day:.3} false alarms a day"));
            }
        }
    }
    Section { text, missed }
}

fn experiments(extent: Extent) -> Vec<(Event, Subject, u64)> {
    let (first_day, third_week) = (600, 2 * WEEK_S);
    let storm = EVENTS[0];
    if extent == Extent::Short {
        return vec![(storm, Subject::Shard, first_day), (storm, Subject::NewKey, first_day)];
    }
    let mut experiments = Vec::new();
    for learnt_s in [first_day, third_week] {
        let sudden_only = |event: &Event| learnt_s == third_week || event.rise_s == 0;
        experiments
            .extend(EVENTS.iter().filter(|it| sudden_only(it)).map(|it| (*it, Subject::Shard, learnt_s)));
        experiments.push((storm, Subject::Key, learnt_s));
        experiments.push((storm, Subject::MissRatio, learnt_s));
    }
    experiments.push((storm, Subject::NewKey, first_day));
    experiments
}

/// Puts an event into a series about every six hours, from `learnt_s` on.
fn run(event: Event, subject: Subject, learnt_s: u64, extent: Extent) -> Found {
    let (seeds, length_s) = match (extent, learnt_s < DAY_S) {
        (Extent::Short, _) => (1, 2 * DAY_S),
        (Extent::Full, true) => (30, DAY_S),
        (Extent::Full, false) => (2, 2 * WEEK_S),
    };
    let mut sum = Found::default();
    for seed in 0..seeds {
        let mut detector = Detector::new();
        let mut known = Known::new();
        let mut weeks = Weeks::new(subject.mean(), seed);
        let mut begin_s = learnt_s + weeks.below(3600);
        let mut is_found = false;
        for second in 0..learnt_s + length_s {
            let now_ms = START_MS + second * 1000;
            let over_s = begin_s + event.rise_s + event.hold_s;
            let value = subject.value(&mut weeks, second, event.factor_at(second, begin_s));
            if subject.is_followed(second, begin_s, over_s) {
                if let Subject::NewKey = subject {
                    detector.introduce(subject.id(), subject.mean(), now_ms);
                }
                detector.observe(subject.id(), value, now_ms);
            }
            let is_during = (begin_s..=over_s + AFTER_S).contains(&second);
            for _ in new_findings(&detector, now_ms, &mut known) {
                if is_during && !is_found {
                    is_found = true;
                    sum.delays_s.push(second - begin_s + 1);
                } else if !is_during {
                    sum.false_alarms += 1;
                }
            }
            if second == over_s + AFTER_S {
                sum.events += 1;
                sum.found += u32::from(is_found);
                is_found = false;
                begin_s = over_s + 5 * 3600 + weeks.below(2 * 3600);
            }
        }
        sum.days += length_s as f64 / DAY_S as f64;
    }
    sum
}

impl Event {
    /// By what a series is multiplied at a time, if the event begins at `begin_s`.
    fn factor_at(&self, second: u64, begin_s: u64) -> f64 {
        let Some(passed_s) = second.checked_sub(begin_s) else { return 1.0 };
        if passed_s < self.rise_s {
            1.0 + (self.factor - 1.0) * passed_s as f64 / self.rise_s as f64
        } else if passed_s < self.rise_s + self.hold_s {
            self.factor
        } else {
            1.0
        }
    }
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Subject::Shard => "rate of a shard",
            Subject::Key => "rate of a key",
            Subject::NewKey => "rate of a new key",
            Subject::MissRatio => "miss ratio",
        }
    }

    fn mean(self) -> f64 {
        match self {
            Subject::Shard | Subject::MissRatio => 2000.0,
            Subject::Key | Subject::NewKey => 100.0,
        }
    }

    fn id(self) -> SeriesId<'static> {
        match self {
            Subject::Shard => SeriesId::shard(Measure::Rate),
            Subject::Key | Subject::NewKey => SeriesId::key(Measure::Rate, b"user:42"),
            Subject::MissRatio => SeriesId::shard(Measure::MissRatio),
        }
    }

    fn value(self, weeks: &mut Weeks, second: u64, factor: f64) -> f64 {
        let rate = weeks.rate(second);
        match self {
            Subject::Shard | Subject::Key | Subject::NewKey => weeks.arrivals(rate * factor),
            Subject::MissRatio => ratio(weeks, rate, 0.1 * factor),
        }
    }

    /// A new key is only seen while it is hot.
    fn is_followed(self, second: u64, begin_s: u64, over_s: u64) -> bool {
        !matches!(self, Subject::NewKey) || (begin_s..over_s).contains(&second)
    }
}

/// The share of some of the requests of a second, if each is one of them with this probability.
fn ratio(weeks: &mut Weeks, rate: f64, probability: f64) -> f64 {
    let deviation = (probability * (1.0 - probability) / rate.max(1.0)).sqrt();
    (probability + deviation * weeks.normal()).clamp(0.0, 1.0)
}

/// Weeks without an event: false alarms of the first day, of the rest of the first week, and of the later ones.
fn quiet(extent: Extent) -> Vec<(&'static str, [Found; 3])> {
    let weeks = if extent == Extent::Short { 1 } else { 4 };
    let seeds = if extent == Extent::Short { 1 } else { 4 };
    let (mut rate, mut server) = Default::default();
    for seed in 0..seeds {
        quiet_run(seed, weeks, &mut rate, |weeks, second, now_ms, detector| {
            detector.observe(
                SeriesId::shard(Measure::Rate),
                Subject::Shard.value(weeks, second, 1.0),
                now_ms,
            );
        });
    }
    if extent == Extent::Short {
        return vec![(Subject::Shard.name(), rate)];
    }
    for seed in 0..seeds / 2 {
        quiet_run(seed, weeks, &mut server, observe_server);
    }
    vec![(Subject::Shard.name(), rate), ("a server", server)]
}

fn quiet_run(
    seed: u64,
    weeks_count: u64,
    found: &mut [Found; 3],
    mut feed: impl FnMut(&mut Weeks, u64, u64, &mut Detector),
) {
    let (mut detector, mut known) = (Detector::new(), Known::new());
    let mut weeks = Weeks::new(2000.0, seed);
    for second in 0..weeks_count * WEEK_S {
        let now_ms = START_MS + second * 1000;
        feed(&mut weeks, second, now_ms, &mut detector);
        found[usize::from(second >= DAY_S) + usize::from(second >= WEEK_S)].false_alarms +=
            new_findings(&detector, now_ms, &mut known).count() as u32;
    }
    for (found, days) in found.iter_mut().zip([1, 6, 7 * (weeks_count - 1)]) {
        found.days += days as f64;
    }
}

/// All series of a server, of which the busiest key has a tenth of the load, and the others less by Zipf's law.
fn observe_server(weeks: &mut Weeks, second: u64, now_ms: u64, detector: &mut Detector) {
    let rate = weeks.rate(second);
    // A sync now and then makes a second slow.
    let slow = if weeks.below(300) == 0 { 10.0 } else { 1.0 };
    for (measure, value) in [
        (Measure::Rate, weeks.arrivals(rate)),
        (Measure::MissRatio, ratio(weeks, rate, 0.1)),
        (Measure::WriteRatio, ratio(weeks, rate, 0.2)),
        (Measure::LatencyUs, 40.0 * (0.3 * weeks.normal()).exp() * slow),
        (Measure::MemoryGrowth, 200.0 * 0.2 * rate * (0.5 + weeks.normal())),
    ] {
        detector.observe(SeriesId::shard(measure), value, now_ms);
    }
    for rank in 1..=16 {
        let share = rate * 0.1 / f64::from(rank);
        let (key, class) = (weeks.arrivals(share), weeks.arrivals(3.0 * share));
        detector.observe(SeriesId::key(Measure::Rate, format!("key:{rank}").as_bytes()), key, now_ms);
        detector.observe(SeriesId::class(Measure::Rate, format!("class{rank}:*").as_bytes()), class, now_ms);
    }
}

/// The findings that were not there before.
fn new_findings<'a>(
    detector: &Detector,
    now_ms: u64,
    known: &'a mut Known,
) -> impl Iterator<Item = Finding> + use<'a> {
    let findings = detector.findings(now_ms).into_iter();
    findings.filter(|finding| {
        known.insert((finding.scope, finding.measure, finding.name.clone(), finding.since_ms))
    })
}

fn quantile(values: &[u64], share: f64) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    match sorted.len() {
        0 => "-".to_owned(),
        len => format!("{} s", sorted[((len - 1) as f64 * share).round() as usize]),
    }
}
