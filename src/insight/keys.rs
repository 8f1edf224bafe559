//! What the analytics know of the use of keys, as types, and the questions that tell it.

use std::time::Instant;

use redis_protocol::resp3::types::{OwnedFrame, Resp3Frame};

use super::ask::{Asker, Unanswered, bytes, field, items, number};

/// So many classes are asked for, the largest.
const CLASSES: &str = "12";

/// For so many of them a TTL is suggested.
const SUGGESTIONS: usize = 12;

/// What is known without a walk over all keys.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    /// The keys that are used most of late.
    pub hot: Vec<HotKey>,
    /// What more memory and less would give.
    pub advice: Advice,
    /// What is not as usual; what goes on first.
    pub anomalies: Vec<Anomaly>,
}

/// A key that is used much.
#[derive(Clone, Debug)]
pub struct HotKey {
    /// The key.
    pub key: Vec<u8>,
    /// How often it was read and written since it was made.
    pub reads: u64,
    /// See [`HotKey::reads`].
    pub writes: u64,
    /// How often it was used of late: an access counts half after a minute.
    pub recent: u64,
    /// There is no such key: it is looked for in vain.
    pub is_missing: bool,
}

/// What more memory and less would give.
#[derive(Clone, Debug, Default)]
pub struct Advice {
    /// The hit ratio since the start.
    pub hit_ratio_now: Option<f64>,
    /// With this multiple of today's memory of keys, in bytes, which hit ratio is to be expected.
    pub rows: Vec<AdviceRow>,
}

/// A row of [`Advice`].
#[derive(Clone, Debug)]
pub struct AdviceRow {
    /// The multiple of today's memory, such as `1/2`.
    pub memory: String,
    /// The same in bytes.
    pub bytes: u64,
    /// The hit ratio to expect; `None` where too little is known.
    pub hit_ratio: Option<f64>,
}

/// Something that is not as usual.
#[derive(Clone, Debug)]
pub struct Anomaly {
    /// The whole of it, as a sentence.
    pub text: Vec<u8>,
    /// What was measured.
    pub measure: String,
    /// Of which key or class; empty for the shard.
    pub name: Vec<u8>,
    /// From when on, in Unix seconds.
    pub since_s: u64,
    /// Until when; `None` while it goes on.
    pub until_s: Option<u64>,
}

/// A class of keys.
#[derive(Clone, Debug)]
pub struct Class {
    /// Its name.
    pub name: Vec<u8>,
    /// Its keys, and their size in bytes.
    pub keys: u64,
    /// See [`Class::keys`].
    pub bytes: u64,
    /// How often they were read and written.
    pub reads: u64,
    /// See [`Class::reads`].
    pub writes: u64,
    /// Of the reads, how many found their key.
    pub hit_ratio: Option<f64>,
    /// The TTL of half of them, in seconds.
    pub ttl_s: Option<u64>,
    /// The TTL that would suit them, in seconds; `None` where too little is known.
    pub suggested_ttl_s: Option<u64>,
}

impl Uses {
    /// Asks. The answers take no worker long.
    ///
    /// # Errors
    /// Those of [`Asker::ask`].
    pub fn ask(asker: &mut Asker, hot: usize, deadline: Instant) -> Result<Uses, Unanswered> {
        let hot = asker.ask(&[b"HOTKEYS", hot.to_string().as_bytes(), b"EXPLAIN"], deadline)?;
        let advice = asker.ask(&[b"CACHE-ADVICE"], deadline)?;
        let anomalies = asker.ask(&[b"ANOMALIES"], deadline)?;
        Ok(Uses {
            hot: items(&hot).iter().filter_map(hot_key).collect(),
            advice: advice_of(&advice),
            anomalies: items(&anomalies).iter().filter_map(anomaly).collect(),
        })
    }
}

/// Asks for the largest classes. Every shard walks over all its keys for that.
///
/// # Errors
/// Those of [`Asker::ask`].
pub fn classes(asker: &mut Asker, deadline: Instant) -> Result<Vec<Class>, Unanswered> {
    let answer = asker.ask(&[b"PREFIXES", CLASSES.as_bytes()], deadline)?;
    let mut classes: Vec<Class> = items(&answer).iter().filter_map(class).collect();
    for class in classes.iter_mut().take(SUGGESTIONS) {
        // Without a suggestion there is none: an error tells that as well.
        let suggested = asker.ask(&[b"SUGGEST-TTL", b"CLASS", &class.name], deadline);
        if let Ok(OwnedFrame::Number { data, .. }) = suggested {
            class.suggested_ttl_s = u64::try_from(data).ok();
        }
    }
    Ok(classes)
}

fn count(map: &OwnedFrame, name: &str) -> u64 {
    number(map, name).unwrap_or(0.0) as u64
}

fn text(map: &OwnedFrame, name: &str) -> Option<String> {
    bytes(map, name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn hot_key(map: &OwnedFrame) -> Option<HotKey> {
    let recent = ["recent_reads", "recent_writes", "recent_misses"].map(|name| count(map, name));
    Some(HotKey {
        key: bytes(map, "key")?,
        reads: count(map, "reads"),
        writes: count(map, "writes"),
        recent: recent.iter().sum(),
        is_missing: field(map, "missing").and_then(Resp3Frame::as_bool).unwrap_or(false),
    })
}

fn advice_of(list: &OwnedFrame) -> Advice {
    let rows = items(list).iter().filter_map(|map| {
        Some(AdviceRow {
            memory: text(map, "memory")?,
            bytes: count(map, "bytes"),
            hit_ratio: number(map, "hit_ratio"),
        })
    });
    let (now, rows): (Vec<_>, Vec<_>) = rows.partition(|row| row.memory == "now");
    Advice { hit_ratio_now: now.first().and_then(|row| row.hit_ratio), rows }
}

fn anomaly(map: &OwnedFrame) -> Option<Anomaly> {
    Some(Anomaly {
        text: bytes(map, "text")?,
        measure: text(map, "measure")?,
        name: bytes(map, "name")?,
        since_s: unix_s(&text(map, "since")?)?,
        until_s: text(map, "until").and_then(|text| unix_s(&text)),
    })
}

/// The Unix time of `2026-11-24T15:07:59Z`, by the algorithm of Howard Hinnant's `days_from_civil`.
fn unix_s(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1; // Years begin with March here.
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    let seconds = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    (days * 86_400 + seconds).checked_sub(719_468 * 86_400)
}

fn class(map: &OwnedFrame) -> Option<Class> {
    Some(Class {
        name: bytes(map, "class")?,
        keys: count(map, "keys"),
        bytes: count(map, "bytes"),
        reads: count(map, "reads"),
        writes: count(map, "writes"),
        hit_ratio: number(map, "hit_ratio"),
        ttl_s: number(map, "ttl_p50").map(|seconds| seconds as u64),
        suggested_ttl_s: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_they_are_written() {
        assert_eq!(unix_s("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_s("2024-02-29T23:59:59Z"), Some(1_709_251_199));
        assert_eq!(unix_s("2026-11-24T15:07:59Z"), Some(1_795_532_879));
        assert_eq!(unix_s("soon"), None);
    }
}
