//! The regret of a suggested TTL: learnt from the first half of a stream, judged by the second, against the
//! best TTL in hindsight.

use std::collections::HashMap;

use shard::InsufficientData;
use shard::analytics::class_id::OTHER_ID;
use shard::analytics::intervals::{Histogram, Tracker, suggest};

use crate::streams::{self, Load, Use, hash};
use crate::{Extent, Section};

/// What the reached share of re-accesses may miss of the target, or exceed of what the best TTL reached.
const REGRET_MAX: f64 = 0.02;
/// The shares of re-accesses that are asked for.
const TARGETS: [f64; 3] = [0.8, 0.9, 0.99];

const SLOW: Load = Load { a_second: 2000, ..Load::zipf("", 20_000, 0.0) };
const LOADS: [Load; 7] = [
    Load { name: "Zipf 0.6", exponent: 0.6, ..SLOW },
    Load { name: "Zipf 0.9", exponent: 0.9, ..SLOW },
    Load { name: "Zipf 1.2", exponent: 1.2, ..SLOW },
    Load { name: "Zipf 0.9, churn", exponent: 0.9, churn: 20, ..SLOW },
    Load { name: "Zipf 0.9, many keys", keys: 1_000_000, exponent: 0.9, ..SLOW },
    Load { name: "as Twitter's cluster 4", keys: 200_000, exponent: 1.1004, churn: 100, ..SLOW },
    Load { name: "as Twitter's cluster 29", keys: 200_000, exponent: 1.2323, churn: 100, ..SLOW },
];

/// How good one suggestion was.
struct Quality {
    /// The suggested TTL, and the shortest that reaches the target in the second half, in seconds.
    ttl_s: u64,
    best_ttl_s: u64,
    /// What was expected of the suggestion, what it reached, and what the best TTL reached.
    expected: f64,
    reached: f64,
    best: f64,
    /// What the suggestion reaches where only writes renew it, of all reads of keys seen before.
    renewed_by_writes: f64,
}

/// The table, and the targets that were missed.
pub fn section(extent: Extent) -> Section {
    let count = if extent == Extent::Full { 8_000_000 } else { 100_000 };
    let mut text = format!(
        "## SUGGEST-TTL: the regret of the suggested TTL\n\n\
         {count} uses at 2000 a second by Zipf's law, synthetic; churn replaces one of the 2000 most \
         popular every 20 or 100 uses. The TTL is learnt from the first half and judged by the second; \
         the best one is the shortest that reaches the target there. Regret is what is missing of the \
         target. A TTL counts from the last use: the last column says what share it keeps where only \
         writes renew it. Target: a regret of at most {REGRET_MAX}, or a refusal.\n\n\
         | load | keys | target | TTL | best TTL | expected | reached | best | regret | renewed by writes |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    let mut missed = Vec::new();
    let mut rows = |name: &str, keys: &str, uses: &[Use]| {
        for target in TARGETS {
            let line = match measure(uses, target) {
                Ok(quality) => {
                    let Quality { ttl_s, best_ttl_s, expected, reached, best, renewed_by_writes } = quality;
                    let regret = f64::max(target - reached, 0.0);
                    let line = format!(
                        "| {name} | {keys} | {target} | {ttl_s} s | {best_ttl_s} s | {expected:.4} \
                         | {reached:.4} | {best:.4} | {regret:.4} | {renewed_by_writes:.4} |"
                    );
                    // TTLs are whole seconds: the next one may reach much more.
                    let is_long = ttl_s > best_ttl_s + 1 && reached - best > REGRET_MAX;
                    if regret > REGRET_MAX || is_long {
                        missed.push(line.clone());
                    }
                    line
                }
                Err(refusal) => format!("| {name} | {keys} | {target} | refused: {refusal} | | | | | | |"),
            };
            text.push_str(&line);
            text.push('\n');
        }
    };
    for mut load in LOADS.into_iter().take(if extent == Extent::Full { LOADS.len() } else { 5 }) {
        if extent == Extent::Short {
            load.keys /= 20;
        }
        rows(load.name, &load.keys.to_string(), &load.stream(1, count).collect::<Vec<_>>());
    }
    if let Some(uses) = streams::oltp().filter(|_| extent == Extent::Full) {
        rows("OLTP trace (real)", "", &uses);
    }
    Section { text, missed }
}

/// Asks for a TTL after half of the uses.
///
/// # Errors
/// The refusal, if there was one.
fn measure(uses: &[Use], target: f64) -> Result<Quality, InsufficientData> {
    let (learnt, judged) = uses.split_at(uses.len() / 2);
    let (mut tracker, mut closed) = (Tracker::default(), Histogram::default());
    let mut used_ms: HashMap<u32, u64> = HashMap::new();
    for Use { key, now_ms, .. } in learnt {
        // As in a shard: closed rests come from the last use that stands with each key, open ones from the
        // tracker.
        if let Some(before_ms) = used_ms.insert(*key, *now_ms) {
            closed.record(*now_ms - before_ms, 1);
        }
        if tracker.tracks(hash(*key)) {
            tracker.touch(hash(*key), OTHER_ID, *now_ms);
        }
    }
    let (first_ms, half_ms) = (learnt[0].now_ms, judged[0].now_ms);
    let suggestion = suggest(&closed, &tracker.open(None, half_ms), target, half_ms - first_ms)?;

    let ttl_ms = suggestion.ttl_s * 1000;
    let (mut rests, mut written_ms, mut renewed) = (Vec::new(), HashMap::new(), 0u64);
    for Use { key, now_ms, .. } in judged {
        if let Some(before_ms) = used_ms.insert(*key, *now_ms) {
            rests.push(now_ms - before_ms);
            let written_ms = written_ms.entry(*key).or_insert(before_ms);
            if now_ms - *written_ms < ttl_ms {
                renewed += 1;
            } else {
                *written_ms = *now_ms;
            }
        }
    }
    rests.sort_unstable();
    let reached = |ttl_s: u64| rests.partition_point(|ms| *ms < ttl_s * 1000) as f64 / rests.len() as f64;
    let longest = rests[((rests.len() as f64 * target).ceil() as usize).min(rests.len() - 1)];
    let best_ttl_s = (longest / 1000).saturating_sub(1)..=longest / 1000 + 1;
    let best_ttl_s = best_ttl_s.into_iter().find(|ttl_s| reached(*ttl_s) >= target);
    let best_ttl_s = best_ttl_s.expect("a TTL longer than all rests reaches every target");
    Ok(Quality {
        ttl_s: suggestion.ttl_s,
        best_ttl_s,
        expected: suggestion.expected_hit_ratio,
        reached: reached(suggestion.ttl_s),
        best: reached(best_ttl_s),
        renewed_by_writes: renewed as f64 / rests.len() as f64,
    })
}
