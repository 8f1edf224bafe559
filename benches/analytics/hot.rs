//! How many of the hottest keys `TopKeys` names, and how well it counts them, against exact faded counts.

use std::collections::HashMap;

use shard::analytics::hot::{By, Counted, HALF_LIFE_MS, Observation, TopKeys, Touch};
use shard::analytics::{OBSERVED_A_SECOND, SAMPLED_ONE_OF};

use crate::streams::{self, Load, Random, Use, hash};
use crate::{Extent, Section};

const READS: Load = Load::zipf("", 0, 0.0);
const LOADS: [Load; 7] = [
    Load { name: "Zipf 0.6", exponent: 0.6, ..READS },
    Load { name: "Zipf 0.9", exponent: 0.9, ..READS },
    Load { name: "Zipf 1.2", exponent: 1.2, ..READS },
    Load { name: "Zipf 0.9, churn", exponent: 0.9, churn: 1000, ..READS },
    Load { name: "Zipf 1.2, churn", exponent: 1.2, churn: 1000, ..READS },
    Load { name: "as Twitter's cluster 19", exponent: 0.735, writes: 0.25, ..READS },
    Load { name: "as Twitter's cluster 29", exponent: 1.2323, writes: 0.13, ..READS },
];

/// The load of which the short version measures a sample, too: its hottest keys are the ones most used.
const SHORT_AND_SAMPLED: &str = "Zipf 1.2";

/// What every row is to reach.
const PRECISION_MIN: f64 = 0.95;
const ERROR_MAX: f64 = 0.05;
const BOUNDED_MIN: f64 = 0.97;

/// By so many weights of a sample a count may be off: what was before the first observation of a key and after the
/// last one is not known. Each is longer than three weights in one of twenty cases.
const LEFT_OPEN: f64 = 4.0;

/// How good one run was.
struct Quality {
    /// The share of the uses that were observed.
    observed: f64,
    /// The share of the named 10 that are among the exact 10; of the named 100 that are among the exact 100.
    precision_10: f64,
    precision_100: f64,
    /// The mean of the relative errors of the named 100.
    count_error: f64,
    /// The share of the named 100 whose exact count lies within the bounds that were stated.
    bounded: f64,
}

/// The table, and the targets that were missed.
pub fn section(extent: Extent) -> Section {
    let keys = if extent == Extent::Full { 1_000_000 } else { 100_000 };
    let mut text = format!(
        "## HOTKEYS: the most used keys\n\n\
         {keys} keys by Zipf's law, synthetic; churn replaces one of the 2000 most popular 20 times a \
         second. As in a shard, the first {OBSERVED_A_SECOND} uses of a second are observed, and one of \
         {SAMPLED_ONE_OF} beyond. Precision is the share of the named keys that are among the exact ones. The \
         error is that of the faded counts of the named 100; bounded is the share of these that lie within \
         the stated bounds, and what a sample leaves open. Target of every row: precision of at least \
         {PRECISION_MIN}, an error of at most {ERROR_MAX}.\n\n\
         | load | uses a second | observed | precision@10 | precision@100 | count error | bounded |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    let mut missed = Vec::new();
    let mut row = |name: &str, a_second: u64, quality: &Quality| {
        let Quality { observed, precision_10, precision_100, count_error, bounded } = quality;
        let line = format!(
            "| {name} | {a_second} | {:.1} % | {precision_10:.2} | {precision_100:.2} | {count_error:.4} \
             | {bounded:.2} |",
            observed * 100.0
        );
        let precision = precision_10.min(*precision_100);
        if precision < PRECISION_MIN || *count_error > ERROR_MAX || *bounded < BOUNDED_MIN {
            missed.push(line.clone());
        }
        text.push_str(&line);
        text.push('\n');
    };
    for mut load in LOADS {
        load.keys = keys;
        if extent == Extent::Full {
            row(load.name, load.a_second, &measure(load.stream(1, 3_000_000)));
            load.a_second = 1_000_000;
            load.churn *= 50; // As many keys a second as at the lower rate.
            row(load.name, load.a_second, &measure(load.stream(1, 20_000_000)));
            continue;
        }
        // In some seconds only few keys are used often enough for a sample of them to tell.
        load.a_second = OBSERVED_A_SECOND.into();
        row(load.name, load.a_second, &measure(load.stream(1, 60_000)));
        if load.name == SHORT_AND_SAMPLED {
            load.a_second = 100_000;
            row(load.name, load.a_second, &measure(load.stream(1, 2_000_000)));
        }
    }
    if let Some(uses) = streams::oltp().filter(|_| extent == Extent::Full) {
        row("OLTP trace (real)", 1000, &measure(uses.into_iter()));
    }
    Section { text, missed }
}

/// Runs a stream, of which a part is observed as in a shard.
fn measure(uses: impl Iterator<Item = Use>) -> Quality {
    let mut top = TopKeys::default();
    let mut exact: HashMap<u32, (f64, Counted)> = HashMap::new();
    let mut random = Random::new(7);
    let (mut second, mut budget, mut all, mut observed) = (0, 0, 0u64, 0u64);
    let (mut first_ms, mut last_ms) = (None, 0);
    let growth = |age_ms: u64| (age_ms as f64 / HALF_LIFE_MS as f64).exp2();
    for Use { key, now_ms, writes } in uses {
        let start_ms = *first_ms.get_or_insert(now_ms);
        last_ms = now_ms;
        let (faded, counted) = exact.entry(key).or_default();
        *faded += growth(now_ms - start_ms);
        counted.reads += u32::from(!writes);
        counted.writes += u32::from(writes);
        if now_ms / 1000 != second {
            (second, budget) = (now_ms / 1000, OBSERVED_A_SECOND);
        }
        let weight = if budget > 0 { 1 } else { SAMPLED_ONE_OF };
        budget -= budget.min(1);
        all += 1;
        if random.below(u64::from(weight)) == 0 {
            observed += 1;
            let touch = if writes { Touch::Write } else { Touch::Read };
            let (hash, name, counted) = (hash(key), key.to_le_bytes(), Some(*counted));
            top.observe(&Observation { key: &name, hash, touch, bytes: 100, weight, counted }, now_ms);
        }
    }
    let fade = 1.0 / growth(last_ms - first_ms.expect("a stream has uses"));
    let mut ranking: Vec<(u32, f64)> = exact.iter().map(|(key, (faded, _))| (*key, *faded)).collect();
    ranking.sort_by(|a, b| b.1.total_cmp(&a.1));
    let named = top.top(100, By::Operations, last_ms);
    let key = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("a key of four bytes"));
    let precision = |count: usize| {
        // Keys with the same count as the last one are as good as it.
        let least = ranking[count.min(ranking.len()) - 1].1;
        let right = named[..count.min(named.len())].iter().filter(|hot| exact[&key(&hot.key)].0 >= least);
        right.count() as f64 / count as f64
    };
    let (mut error, mut bounded) = (0.0, 0.0);
    for hot in &named {
        let truth = exact[&key(&hot.key)].0 * fade;
        let count = hot.reads + hot.writes;
        error += (count - truth).abs() / truth / named.len() as f64;
        let chance = if observed < all { LEFT_OPEN * f64::from(SAMPLED_ONE_OF) } else { 1e-6 * truth };
        let within = count <= truth + chance && truth <= count + hot.error + chance;
        bounded += f64::from(u8::from(within)) / named.len() as f64;
    }
    let observed = observed as f64 / all as f64;
    Quality {
        observed,
        precision_10: precision(10),
        precision_100: precision(100),
        count_error: error,
        bounded,
    }
}
