//! How many of the hottest keys `TopKeys` names, and how well it counts them, against exact faded counts.

use std::collections::HashMap;

use shard::analytics::hot::{By, HALF_LIFE_MS, TopKeys, Touch};

use crate::streams::{self, Load, Random, Use, hash};
use crate::{Extent, Section};

/// Of so many uses one is observed, beyond some thousand a second.
const SAMPLED_ONE_OF: u32 = 64;

const READS: Load = Load::zipf("", 0, 0.0);
const LOADS: [Load; 5] = [
    Load { name: "Zipf 0.6", exponent: 0.6, ..READS },
    Load { name: "Zipf 0.9", exponent: 0.9, ..READS },
    Load { name: "Zipf 1.2", exponent: 1.2, ..READS },
    Load { name: "Zipf 0.9, churn", exponent: 0.9, churn: 1000, ..READS },
    Load { name: "Zipf 1.2, churn", exponent: 1.2, churn: 1000, ..READS },
];

/// How good one run was.
struct Quality {
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
         second. A shard observes every use while there are few, and one of {SAMPLED_ONE_OF} when there \
         are many. Precision is the share of the named keys that are among the exact ones. The error is \
         that of the faded counts of the named 100; bounded is the share of these that lie within the \
         stated bounds, and three standard deviations of the sample.\n\n\
         | load | uses a second | observed | precision@10 | precision@100 | count error | bounded |\n\
         | --- | ---: | --- | ---: | ---: | ---: | ---: |\n"
    );
    let mut missed = Vec::new();
    let mut row = |name: &str, a_second: u64, one_of: u32, quality: &Quality| {
        let observed = if one_of == 1 { "all".to_owned() } else { format!("1 of {one_of}") };
        let Quality { precision_10, precision_100, count_error, bounded } = quality;
        let line = format!(
            "| {name} | {a_second} | {observed} | {precision_10:.2} | {precision_100:.2} | {count_error:.4} \
             | {bounded:.2} |"
        );
        let (precision_min, error_max, bounded_min) =
            if one_of == 1 { (0.95, 0.01, 1.0) } else { (0.75, 0.15, 0.97) };
        let is_precise = *precision_10 >= 0.9 && *precision_100 >= precision_min;
        if !is_precise || *count_error > error_max || *bounded < bounded_min {
            missed.push(line.clone());
        }
        text.push_str(&line);
        text.push('\n');
    };
    for mut load in LOADS {
        let full = extent == Extent::Full;
        load.keys = keys;
        let quality = measure(load.stream(1, if full { 3_000_000 } else { 60_000 }), 1);
        row(load.name, load.a_second, 1, &quality);
        if full {
            load.a_second = 1_000_000;
            load.churn *= 50; // As many keys a second as at the lower rate.
            let quality = measure(load.stream(1, 20_000_000), SAMPLED_ONE_OF);
            row(load.name, load.a_second, SAMPLED_ONE_OF, &quality);
        }
    }
    if let Some(uses) = streams::oltp().filter(|_| extent == Extent::Full) {
        row("OLTP trace (real)", 1000, 1, &measure(uses.into_iter(), 1));
    }
    Section { text, missed }
}

/// Runs a stream; one of `one_of` uses, at random, is observed.
fn measure(uses: impl Iterator<Item = Use>, one_of: u32) -> Quality {
    let mut top = TopKeys::default();
    let mut exact: HashMap<u32, f64> = HashMap::new();
    let mut random = Random::new(7);
    let (mut first_ms, mut last_ms) = (None, 0);
    let growth = |age_ms: u64| (age_ms as f64 / HALF_LIFE_MS as f64).exp2();
    for Use { key, now_ms, .. } in uses {
        let start_ms = *first_ms.get_or_insert(now_ms);
        last_ms = now_ms;
        *exact.entry(key).or_default() += growth(now_ms - start_ms);
        if random.below(u64::from(one_of)) == 0 {
            top.observe(hash(key), &key.to_le_bytes(), Touch::Read, 100, one_of, now_ms);
        }
    }
    let fade = 1.0 / growth(last_ms - first_ms.expect("a stream has uses"));
    let mut ranking: Vec<(u32, f64)> = exact.iter().map(|(key, count)| (*key, *count)).collect();
    ranking.sort_by(|a, b| b.1.total_cmp(&a.1));
    let named = top.top(100, By::Operations, last_ms);
    let key = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("a key of four bytes"));
    let precision = |count: usize| {
        // Keys with the same count as the last one are as good as it.
        let least = ranking[count.min(ranking.len()) - 1].1;
        let right = named[..count.min(named.len())].iter().filter(|hot| exact[&key(&hot.key)] >= least);
        right.count() as f64 / count as f64
    };
    let (mut error, mut bounded) = (0.0, 0.0);
    for hot in &named {
        let truth = exact[&key(&hot.key)] * fade;
        error += (hot.reads - truth).abs() / truth / named.len() as f64;
        let chance = 3.0 * (truth * f64::from(one_of - 1)).sqrt() + 1e-6 * truth;
        let within = hot.reads <= truth + chance && truth <= hot.reads + hot.error + chance;
        bounded += f64::from(u8::from(within)) / named.len() as f64;
    }
    Quality { precision_10: precision(10), precision_100: precision(100), count_error: error, bounded }
}
