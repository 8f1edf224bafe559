//! The forecast of the load, against what the next hours brought, and the hour that is chosen for work that can wait,
//! against the hour that would have been best.

use std::fmt::Write as _;

use shard::analytics::load::{AHEAD, LoadProfile, Verdict};

use crate::weeks::{DAY_S, START_MS, WEEK_S, Weeks};
use crate::{Extent, Section};

/// How far the forecast of an hour may be off, on average, once it was seen; and how much more than in the best
/// hour there may be to do in the chosen one.
const ERROR_MAX: f64 = 0.15;
const EXCESS_MAX: f64 = 0.15;

const HOUR_S: u64 = 3600;

/// What was seen of a span of weeks.
#[derive(Default)]
struct Seen {
    hours: f64,
    /// Sums of the relative errors of the forecast of the next hour, and of yesterday's rate in its place.
    error: f64,
    yesterday_error: f64,
    /// Sums of how much more there was to do in the chosen hour than in the best of the next day.
    excess: f64,
    /// In how many hours it was said that the load is low, and the sum of the shares of the day's mean in them.
    low: f64,
    low_share: f64,
}

pub fn section(extent: Extent) -> Section {
    let (seeds, weeks_count) = if extent == Extent::Short { (1, 2) } else { (5, 6) };
    let mut seen = [Seen::default(), Seen::default()];
    eprintln!("forecast");
    for seed in 0..seeds {
        run(seed, weeks_count, &mut seen);
    }
    let mut text = String::from(
        "## Forecast of the load\n\nThe same synthetic load. *Error* is the mean of the relative errors of the forecast \
         of the next hour; *excess* is how much more load than the quietest of the next 24 hours the hour has that is \
         forecast as the quietest; *low* is how often the load is called low, and its share of the day's mean then.\n\n\
         | known for | hours | error | as yesterday | excess | called low | load then | target |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n",
    );
    let mut missed = Vec::new();
    for (known, is_target, seen) in [("first week", false, &seen[0]), ("later", true, &seen[1])] {
        let (error, excess) = (seen.error / seen.hours, seen.excess / seen.hours);
        let target =
            if is_target { format!("error <= {ERROR_MAX}, excess <= {EXCESS_MAX}") } else { String::new() };
        let _ = writeln!(
            text,
            "| {known} | {} | {error:.3} | {:.3} | {excess:.3} | {:.3} | {:.3} | {target} |",
            seen.hours,
            seen.yesterday_error / seen.hours,
            seen.low / seen.hours,
            seen.low_share / seen.low,
        );
        if is_target && (error > ERROR_MAX || excess > EXCESS_MAX) {
            missed.push(format!("forecast, {known}: error {error:.3}, excess {excess:.3}"));
        }
    }
    Section { text, missed }
}

fn run(seed: u64, weeks_count: u64, seen: &mut [Seen; 2]) {
    let mut weeks = Weeks::new(2000.0, seed);
    // Minutes are as good as seconds here; the last day is only there to be looked ahead to.
    let minutes = (weeks_count * WEEK_S + DAY_S) / 60;
    let counts: Vec<f64> = (0..minutes)
        .map(|minute| {
            let rate: f64 = (0..60).map(|second| weeks.rate(minute * 60 + second)).sum();
            weeks.arrivals(rate)
        })
        .collect();
    let actual: Vec<f64> = counts.chunks(60).map(|hour| hour.iter().sum::<f64>() / HOUR_S as f64).collect();
    let mut profile = LoadProfile::new();
    let mut operations = 0;
    profile.observe(0, START_MS, START_MS);
    for (count, minute) in counts.iter().zip(1..) {
        operations += *count as u64;
        let now_ms = START_MS + minute * 60_000;
        profile.observe(operations, now_ms, now_ms);
        let hour = (minute / 60) as usize;
        let is_known = hour >= AHEAD && hour + AHEAD <= actual.len();
        if minute % 60 == 0 && is_known {
            judge(&profile, now_ms, hour, &actual, &mut seen[usize::from(minute * 60 > WEEK_S)]);
        }
    }
}

/// Holds the outlook at the begin of an hour against what came.
fn judge(profile: &LoadProfile, now_ms: u64, hour: usize, actual: &[f64], seen: &mut Seen) {
    let outlook = profile.outlook(now_ms);
    let came = &actual[hour..hour + AHEAD];
    let relative = |forecast: f64| (forecast - came[0]).abs() / came[0];
    seen.hours += 1.0;
    seen.error += relative(outlook.forecast[0].into());
    seen.yesterday_error += relative(actual[hour - AHEAD]);
    let best = came.iter().copied().fold(f64::INFINITY, f64::min);
    seen.excess += came[outlook.lowest().0] / best - 1.0;
    if outlook.verdict() == Verdict::Low {
        seen.low += 1.0;
        seen.low_share += came[0] * AHEAD as f64 / came.iter().sum::<f64>();
    }
}
