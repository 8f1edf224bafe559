//! What the analytics know of the use of keys, as types, and the questions that tell it.

use std::time::Instant;

use redis_protocol::resp3::types::{OwnedFrame, Resp3Frame};

use super::ask::{Asker, Unanswered, bytes, field, items, number};
use super::shown;

/// So many classes are asked for, the largest.
const CLASSES: &str = "12";

/// For so many of them a TTL is suggested.
const SUGGESTIONS: usize = 12;

/// An access that is sampled under load stands for so many, whether or not the key had them.
const SAMPLED: u64 = 64;

/// Where keys without a class are counted.
const OTHER: &[u8] = b"other";

/// What is known without a walk over all keys.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    /// The keys that are used most of late, as far as they [stand out](HotKey::stands_out).
    pub hot: Vec<HotKey>,
    /// Keys are used, but none of them stands out.
    pub is_even: bool,
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
    /// How often it was used or looked for in vain of late: an access counts half after a minute.
    pub recent: u64,
    /// By how much that may be too high, since the key has taken the place of another one.
    pub error: u64,
    /// There is no such key: it is looked for in vain.
    pub is_missing: bool,
}

impl HotKey {
    /// Whether its count of late tells more than that an access was sampled by chance, as of any key where all are used
    /// alike. A count above the key's own is one with such a sample, unless the key was made again: it tells something
    /// where most of it is not that sample.
    fn stands_out(&self) -> bool {
        let is_seen = self.is_missing || self.recent <= self.reads + self.writes;
        self.recent > if is_seen { self.error } else { 2 * (self.error + SAMPLED) }
    }
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

impl Anomaly {
    /// The whole of it, with the name as [`shown::name`] shows it.
    pub fn sentence(&self) -> String {
        let begin = format!("{} {} ", self.measure, self.name.escape_ascii());
        self.text.strip_prefix(begin.as_bytes()).map_or_else(
            || shown::text(&self.text),
            |rest| format!("{} {} {}", self.measure, shown::name(&self.name), shown::text(rest)),
        )
    }
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
        let used: Vec<HotKey> = items(&hot).iter().filter_map(hot_key).collect();
        let hot: Vec<HotKey> = used.iter().filter(|it| it.stands_out()).cloned().collect();
        Ok(Uses {
            is_even: hot.is_empty() && !used.is_empty(),
            hot,
            advice: advice_of(&advice),
            anomalies: items(&anomalies).iter().filter_map(anomaly).collect(),
        })
    }
}

/// Asks for the largest classes that have keys; the keys without a class come last. Every shard walks over all its keys for that.
///
/// # Errors
/// Those of [`Asker::ask`].
pub fn classes(asker: &mut Asker, deadline: Instant) -> Result<Vec<Class>, Unanswered> {
    let answer = asker.ask(&[b"PREFIXES", CLASSES.as_bytes()], deadline)?;
    let mut classes: Vec<Class> = items(&answer).iter().filter_map(class).collect();
    classes.retain(|class| class.keys > 0);
    classes.sort_by_key(|class| class.name == OTHER); // The rest stays in its order, by size.
    // Of a class that has too few reads for a hit ratio too little is known, and keys without a class have nothing in
    // common.
    let known = classes.iter_mut().filter(|class| class.hit_ratio.is_some() && class.name != OTHER);
    for class in known.take(SUGGESTIONS) {
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
        error: count(map, "error"),
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
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    /// A key that was used of late and has these counts of its own.
    fn hot(recent: u64, error: u64, own: u64, is_missing: bool) -> HotKey {
        HotKey { key: b"key".to_vec(), reads: 0, writes: own, recent, error, is_missing }
    }

    #[test]
    fn a_key_that_chance_may_have_sampled_does_not_stand_out() {
        assert!(!hot(61, 0, 3, false).stands_out(), "one sample, of a key with three accesses");
        assert!(!hot(72, 1, 15, false).stands_out(), "the same, and what followed it");
        assert!(!hot(60, 61, 100, false).stands_out(), "within the error");
        assert!(hot(9, 0, 9, false).stands_out(), "each access was seen");
        assert!(hot(682, 0, 0, false).stands_out(), "it was made again of late");
        assert!(hot(1561, 0, 0, true).stands_out(), "it is looked for in vain");
    }

    #[test]
    fn classes_without_keys_are_left_out_and_suggestions_need_a_hit_ratio() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let class = |name: &str, keys: u32, hit_ratio: &str| {
            format!("%3\r\n+class\r\n+{name}\r\n+keys\r\n:{keys}\r\n+hit_ratio\r\n{hit_ratio}\r\n")
        };
        let rows = [
            class("other", 9, ",0.5"),
            class("user:*", 5, ",0.5"),
            class("new:*", 1, "_"),
            class("old:*", 0, "_"),
        ];
        // The greeting, the classes, and the one suggestion that is asked for.
        let answers = format!("%0\r\n*4\r\n{}:60\r\n", rows.concat());
        theirs.write_all(answers.as_bytes()).unwrap();
        let found = classes(&mut Asker::new(ours.into()), Instant::now() + Duration::from_secs(5)).unwrap();
        let found: Vec<_> = found.iter().map(|it| (&it.name[..], it.suggested_ttl_s)).collect();
        assert_eq!(found, [(&b"user:*"[..], Some(60)), (b"new:*", None), (b"other", None)]);
    }

    #[test]
    fn an_anomaly_names_its_key_as_tables_do() {
        let anomaly = |name: &[u8], text: &str| Anomaly {
            text: text.as_bytes().to_vec(),
            measure: "rate".into(),
            name: name.to_vec(),
            since_s: 0,
            until_s: None,
        };
        assert_eq!(anomaly(b"", "rate  9/s, normal 1/s").sentence(), "rate (empty) 9/s, normal 1/s");
        assert_eq!(anomaly(b" ", "rate   9/s").sentence(), "rate \" \" 9/s");
        assert_eq!(anomaly("ü".as_bytes(), "rate \\xc3\\xbc 9/s").sentence(), "rate ü 9/s");
        assert_eq!(anomaly(b"", "rate shard 2 9/s").sentence(), "rate shard 2 9/s");
    }

    #[test]
    fn moments_are_read_as_they_are_written() {
        assert_eq!(unix_s("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_s("2024-02-29T23:59:59Z"), Some(1_709_251_199));
        assert_eq!(unix_s("2026-11-24T15:07:59Z"), Some(1_795_532_879));
        assert_eq!(unix_s("soon"), None);
    }
}
