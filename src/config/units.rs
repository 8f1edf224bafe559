//! Texts of options to values and back: durations, byte sizes, CPU lists, log filters.
//!
//! Owns no option and no default, and never looks at the machine.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use shard::PATTERN_LEN_MAX;
use shard::auto_ttl::{RULES_MAX, Rule};
use shard::{AutoTtl, EventClasses};

use tracing_subscriber::EnvFilter;

/// Why a text is not the value that its option takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidValue {
    /// Not a whole number within these bounds.
    Number(RangeInclusive<u64>),
    /// Neither a number of shards nor `auto`.
    ShardCount,
    /// Neither true nor false.
    Boolean,
    /// Not a duration.
    Duration,
    /// A duration outside the option's bounds.
    DurationOutOfBounds(RangeInclusive<Duration>),
    /// Not a number of bytes.
    Size,
    /// A number of bytes outside the option's bounds.
    SizeOutOfBounds(RangeInclusive<u64>),
    /// Not a list of CPU numbers.
    CpuList,
    /// The number of a CPU past the greatest that the kernel's masks hold.
    CpuOutOfBounds(usize),
    /// A host name that is empty or holds blanks.
    Host,
    /// Not letters of classes of keyspace events.
    EventClasses,
    /// Not classes of clients with their limits.
    OutputLimits,
    /// Not pairs of a pattern and a TTL.
    AutoTtl,
    /// The TTL of this pattern is none, or out of its bounds.
    AutoTtlDuration(String),
    /// A pattern that is longer than one may be.
    AutoTtlPattern,
    /// More rules than are looked through at each write.
    AutoTtlTooMany,
    /// Not a log filter; the text is the part that is wrong.
    LogFilter(String),
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidValue::Number(bounds) if *bounds.end() == u64::MAX => {
                write!(f, "give a whole number from {} on", bounds.start())
            }
            InvalidValue::Number(bounds) => {
                write!(f, "give a whole number from {} to {}", bounds.start(), bounds.end())
            }
            InvalidValue::ShardCount => {
                let (least, greatest) = (SHARD_BOUNDS.start(), SHARD_BOUNDS.end());
                write!(f, "give a whole number from {least} to {greatest}, or auto")
            }
            InvalidValue::Boolean => write!(f, "write true or false"),
            InvalidValue::Duration => write!(f, "write a duration such as 60, 500ms, 60s, 5m or 1h30m"),
            InvalidValue::DurationOutOfBounds(bounds) => {
                let (least, greatest) = (duration_text(*bounds.start()), duration_text(*bounds.end()));
                write!(f, "give a duration from {least} to {greatest}")
            }
            InvalidValue::Size => write!(f, "write a number of bytes such as 1073741824, 64k, 64mib or 1g"),
            InvalidValue::SizeOutOfBounds(bounds) => {
                write!(f, "give from {} to {} bytes", bounds.start(), bounds.end())
            }
            InvalidValue::CpuList => write!(f, "write CPU numbers and ranges such as 0-3,6"),
            InvalidValue::CpuOutOfBounds(cpu) => write!(f, "CPU {cpu} is past the greatest, {CPU_MAX}"),
            InvalidValue::Host => write!(f, "give one host name or address, without blanks"),
            InvalidValue::EventClasses => {
                write!(f, "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")
            }
            InvalidValue::OutputLimits => write!(
                f,
                "write a class (normal, replica, pubsub), two sizes and a number of seconds, such as \
                 'pubsub 32mb 8mb 60'"
            ),
            InvalidValue::AutoTtl => write!(f, "write pairs such as 'session:* 1h cache:* 5m'"),
            InvalidValue::AutoTtlDuration(pattern) => {
                let (least, greatest) =
                    (duration_text(*TTL_BOUNDS.start()), duration_text(*TTL_BOUNDS.end()));
                let pattern = quoted(pattern);
                write!(f, "give '{pattern}' a duration such as 90s or 1h30m, from {least} to {greatest}")
            }
            InvalidValue::AutoTtlPattern => write!(f, "give patterns of at most {PATTERN_LEN_MAX} bytes"),
            InvalidValue::AutoTtlTooMany => write!(f, "give at most {RULES_MAX} pairs"),
            InvalidValue::LogFilter(part) => write!(
                f,
                "'{}' is neither a level (error, warn, info, debug, trace, off) nor a filter such as \
                 info,kvlite=debug",
                quoted(part)
            ),
        }
    }
}

impl std::error::Error for InvalidValue {}

/// How much of a text an error quotes.
const QUOTED_CHARS_MAX: usize = 100;

/// A text as errors quote it.
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Reads a whole number within bounds.
pub fn number_within<N: TryFrom<u64>>(text: &str, bounds: RangeInclusive<u64>) -> Result<N, InvalidValue> {
    let number = text.parse().ok().filter(|number| bounds.contains(number));
    number.and_then(|number| N::try_from(number).ok()).ok_or(InvalidValue::Number(bounds))
}

/// Reads true or false, in the spellings of clap's own parser.
pub fn boolean(text: &str) -> Result<bool, InvalidValue> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "y" | "on" | "t" | "1" => Ok(true),
        "false" | "no" | "n" | "off" | "f" | "0" => Ok(false),
        _ => Err(InvalidValue::Boolean),
    }
}

/// Whether a text begins with the scheme of a URL, such as `tcp://`: no option takes one.
pub fn has_scheme(text: &str) -> bool {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    !text.contains(char::is_whitespace) && text.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme))
}

/// Reads a duration: a bare number counts seconds; else numbers with the units ns, us, ms, s, m, h, one
/// after the other, as in `1h30m` or `1.5s`.
pub fn duration(text: &str) -> Result<Duration, InvalidValue> {
    if text.is_empty() {
        return Err(InvalidValue::Duration);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(number_len);
        let unit_len = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, tail) = behind.split_at(unit_len);
        let unit_seconds = match unit {
            "" if number.len() == text.len() => 1.0,
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(InvalidValue::Duration),
        };
        let count: f64 = number.parse().map_err(|_| InvalidValue::Duration)?;
        let part = Duration::try_from_secs_f64(count * unit_seconds).map_err(|_| InvalidValue::Duration)?;
        total = total.checked_add(part).ok_or(InvalidValue::Duration)?;
        rest = tail;
    }
    Ok(total)
}

/// As [`duration`], within bounds.
pub fn duration_within(text: &str, bounds: RangeInclusive<Duration>) -> Result<Duration, InvalidValue> {
    let value = duration(text)?;
    if bounds.contains(&value) { Ok(value) } else { Err(InvalidValue::DurationOutOfBounds(bounds)) }
}

/// Reads a duration of which, as in Redis, a bare number counts milliseconds.
pub fn milliseconds(text: &str) -> Result<Duration, InvalidValue> {
    let longest = Duration::from_millis(i64::MAX as u64);
    match text.parse().map(Duration::from_millis) {
        Ok(value) if value <= longest => Ok(value),
        _ => duration_within(text, Duration::ZERO..=longest),
    }
}

/// The duration as a whole number of the largest unit, up to seconds, that holds it exactly.
pub fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    for (unit, unit_nanos) in [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)] {
        if nanos.is_multiple_of(unit_nanos) {
            return format!("{}{unit}", nanos / unit_nanos);
        }
    }
    format!("{nanos}ns")
}

/// Reads a number of bytes. The suffixes k, m, g and t, alone or with `b` or `ib` behind them, in any case,
/// are powers of 1024; a lone `b` changes nothing.
pub fn size(text: &str) -> Result<u64, InvalidValue> {
    let digits_len = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(digits_len);
    let shift = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(InvalidValue::Size),
    };
    let count: u64 = digits.parse().map_err(|_| InvalidValue::Size)?;
    count.checked_mul(1 << shift).ok_or(InvalidValue::Size)
}

/// The number of bytes as a whole number of the largest unit that holds it exactly.
pub fn size_text(bytes: u64) -> String {
    let shift = if bytes == 0 { 0 } else { bytes.trailing_zeros() / 10 * 10 };
    let shift = shift.min(40);
    format!("{}{}", bytes >> shift, ["", "k", "m", "g", "t"][shift as usize / 10])
}

/// As [`size`], within bounds.
pub fn size_within(text: &str, bounds: RangeInclusive<u64>) -> Result<u64, InvalidValue> {
    let value = size(text)?;
    if bounds.contains(&value) { Ok(value) } else { Err(InvalidValue::SizeOutOfBounds(bounds)) }
}

const SHARD_BOUNDS: RangeInclusive<u64> = 1..=1024;

/// How many shards there are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardCount {
    /// As many as the CPUs and their quota keep running.
    Auto,
    /// So many.
    Given(u16),
}

impl FromStr for ShardCount {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.eq_ignore_ascii_case("auto") {
            true => Ok(ShardCount::Auto),
            false => {
                number_within(text, SHARD_BOUNDS).map(ShardCount::Given).map_err(|_| InvalidValue::ShardCount)
            }
        }
    }
}

/// The greatest CPU number that the kernel's affinity masks, as they are read here, can hold.
const CPU_MAX: usize = rustix::thread::CpuSet::MAX_CPU - 1;

/// CPU numbers in ascending order, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(Vec<usize>);

impl CpuList {
    /// The CPU numbers.
    pub fn as_slice(&self) -> &[usize] {
        &self.0
    }
}

impl FromStr for CpuList {
    type Err = InvalidValue;

    /// Reads numbers and ranges separated by commas, such as `0-3,6`.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |digits: &str| digits.trim().parse::<usize>().map_err(|_| InvalidValue::CpuList);
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(InvalidValue::CpuList);
            }
            if last > CPU_MAX {
                return Err(InvalidValue::CpuOutOfBounds(last));
            }
            cpus.extend(first..=last);
        }
        cpus.sort_unstable();
        cpus.dedup();
        Ok(CpuList(cpus))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&cpu_list_text(&self.0))
    }
}

/// Ascending CPU numbers as numbers and ranges, such as `0-3,6`.
pub fn cpu_list_text(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|a, b| a + 1 == *b);
    let texts = runs.map(|run| match run {
        [one] => one.to_string(),
        _ => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    texts.collect::<Vec<_>>().join(",")
}

/// The bounds of a TTL that keys get by themselves: up to ten years.
const TTL_BOUNDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(10 * 365 * 24);

/// Reads pairs of a glob pattern and a TTL, such as `session:* 1h cache:* 5m`. No pair: no rule.
pub fn auto_ttl(text: &str) -> Result<AutoTtl, InvalidValue> {
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    let (pairs, []) = words.as_chunks::<2>() else { return Err(InvalidValue::AutoTtl) };
    if pairs.len() > RULES_MAX {
        return Err(InvalidValue::AutoTtlTooMany);
    }
    let rules = pairs.iter().map(|[pattern, ttl]| {
        let ttl = duration_within(ttl, TTL_BOUNDS);
        let ttl = ttl.map_err(|_| InvalidValue::AutoTtlDuration((*pattern).to_owned()))?;
        Rule::new(pattern.as_bytes(), ttl.as_millis() as u64).map_err(|_| InvalidValue::AutoTtlPattern)
    });
    rules.collect::<Result<_, _>>().map(AutoTtl::new)
}

/// Reads the letters of classes of keyspace events.
pub fn event_classes(text: &str) -> Result<EventClasses, InvalidValue> {
    EventClasses::parse(text).ok_or(InvalidValue::EventClasses)
}

/// The rules as [`auto_ttl`] reads them.
pub fn auto_ttl_text(auto_ttl: &AutoTtl) -> String {
    let rule = |rule: &Rule| {
        let ttl = duration_text(Duration::from_millis(rule.ttl_ms));
        format!("{} {ttl}", String::from_utf8_lossy(&rule.pattern))
    };
    auto_ttl.rules().iter().map(rule).collect::<Vec<_>>().join(" ")
}

/// The longest name that the system of names has.
const HOST_BYTES_MAX: usize = 253;

/// Accepts a host name or an address.
pub fn host(text: &str) -> Result<String, InvalidValue> {
    let plain = (1..=HOST_BYTES_MAX).contains(&text.len())
        && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    if plain { Ok(text.to_owned()) } else { Err(InvalidValue::Host) }
}

/// Accepts a level or a filter of `tracing`. A lone word that is no level is refused: the filter would take
/// it for the name of a module and silence all others. So is what is not ASCII: module names are, and the
/// filter's own parser slices the text bytewise. And what is no line: a file of options could not say it.
pub fn log_filter(text: &str) -> Result<String, InvalidValue> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    if !text.is_ascii() || text.contains(|char: char| char.is_ascii_control()) {
        return Err(InvalidValue::LogFilter(text.to_owned()));
    }
    for part in text.split(',') {
        let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part));
        if !is_level && !part.contains(['=', '[']) {
            return Err(InvalidValue::LogFilter(part.to_owned()));
        }
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(InvalidValue::LogFilter(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_within_their_bounds() {
        assert_eq!(number_within::<u16>("65535", 0..=65535), Ok(u16::MAX));
        for text in ["abc", "", "-1", "0", "65536", "1.5", "0x10", "99999999999999999999"] {
            let error = number_within::<u16>(text, 1..=65535).unwrap_err();
            assert_eq!(error.to_string(), "give a whole number from 1 to 65535", "{text}");
        }
        let error = number_within::<u64>("many", 0..=u64::MAX).unwrap_err();
        assert_eq!(error.to_string(), "give a whole number from 0 on");
    }

    #[test]
    fn schemes_are_told_from_other_texts() {
        for text in ["tcp://10.96.0.12:6380", "udp://[fd00::1]:53", "sctp://x", "http+unix://a", "tcp://"] {
            assert!(has_scheme(text), "{text}");
        }
        for text in
            ["", "6380", "::1", "./a//b", "://x", "1tcp://x", "a/b://c", "http://* 1h", "localhost:6380"]
        {
            assert!(!has_scheme(text), "{text}");
        }
    }

    #[test]
    fn durations_are_read_in_every_spelling() {
        let cases = [
            ("60", 60_000_000),
            ("0.5", 500_000),
            ("60s", 60_000_000),
            ("5m", 300_000_000),
            ("1h", 3_600_000_000),
            ("500ms", 500_000),
            ("1.5s", 1_500_000),
            ("1h30m", 5_400_000_000),
            ("1m0s", 60_000_000),
            ("250us", 250),
            ("250µs", 250),
            ("0", 0),
        ];
        for (text, micros) in cases {
            assert_eq!(duration(text), Ok(Duration::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "s", "-1s", "+1s", "1x", "1s5", "5 s", "1..5s", ".", "1e3", "nan", "9999999999999999h"]
        {
            assert_eq!(duration(text), Err(InvalidValue::Duration), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_with_every_suffix() {
        let cases = [
            ("0", 0),
            ("17", 17),
            ("17b", 17),
            ("1k", 1 << 10),
            ("1K", 1 << 10),
            ("64kb", 64 << 10),
            ("64MiB", 64 << 20),
            ("1g", 1 << 30),
            ("2GB", 2 << 30),
            ("1tib", 1 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "-1", "1.5g", "1 g", "1kk", "1ki", "99999999999999999999", "18014398509481984t"]
        {
            assert_eq!(size(text), Err(InvalidValue::Size), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_as_they_are_read() {
        for (bytes, text) in [
            (0, "0"),
            (17, "17"),
            (1536, "1536"),
            (64 << 10, "64k"),
            (512 << 20, "512m"),
            (3 << 29, "1536m"),
            (1 << 40, "1t"),
            (1 << 50, "1024t"),
        ] {
            assert_eq!(size_text(bytes), text);
            assert_eq!(size(text), Ok(bytes));
        }
    }

    #[test]
    fn times_to_live_are_read_as_pairs() {
        for (text, shown) in [
            ("", ""),
            ("session:* 1h", "session:* 3600s"),
            ("  a:* 90s\tb:[12]* 1h30m x 1.5s ", "a:* 90s b:[12]* 5400s x 1500ms"),
        ] {
            let rules = auto_ttl(text).unwrap();
            assert_eq!(auto_ttl_text(&rules), shown);
            assert_eq!(auto_ttl(shown), Ok(rules));
        }
        assert_eq!(auto_ttl("session:*"), Err(InvalidValue::AutoTtl));
        for ttl in ["soon", "0", "-1s", "999ms", "87601h"] {
            let refused = auto_ttl(&format!("a:* 1h b:* {ttl}"));
            assert_eq!(refused, Err(InvalidValue::AutoTtlDuration("b:*".to_owned())), "{ttl}");
        }
        assert_eq!(auto_ttl(&"a 1s ".repeat(RULES_MAX + 1)), Err(InvalidValue::AutoTtlTooMany));
    }

    #[test]
    fn cpu_lists_are_sorted_and_without_repeats() {
        let list = |text: &str| text.parse::<CpuList>().map(|cpus| cpus.0);
        assert_eq!(list("0-3,6"), Ok(vec![0, 1, 2, 3, 6]));
        assert_eq!(list("6,0-2,1"), Ok(vec![0, 1, 2, 6]));
        assert_eq!(list("5"), Ok(vec![5]));
        for text in ["", ",", "1-", "-1", "3-1", "a", "0,,1"] {
            assert_eq!(list(text), Err(InvalidValue::CpuList), "{text}");
        }
        assert_eq!(list("0-99999999999"), Err(InvalidValue::CpuOutOfBounds(99_999_999_999)));
    }

    #[test]
    fn a_lone_word_that_is_no_level_is_no_log_filter() {
        for text in ["info", "WARN", "off", "info,kvlite=debug", "kvlite::net=trace"] {
            assert_eq!(log_filter(text), Ok(text.to_owned()), "{text}");
        }
        for text in ["loud", "", "info,loud", "kvlite=loud", "¹="] {
            assert!(matches!(log_filter(text), Err(InvalidValue::LogFilter(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn durations_read_back_as_they_were_written(micros in 0u64..100_000_000_000) {
            let value = Duration::from_micros(micros);
            prop_assert_eq!(duration(&duration_text(value)), Ok(value));
        }

        #[test]
        fn cpu_lists_read_back_as_they_were_written(
            cpus in prop::collection::btree_set(0usize..1024, 1..20)
        ) {
            let cpus: Vec<usize> = cpus.into_iter().collect();
            prop_assert_eq!(cpu_list_text(&cpus).parse(), Ok(CpuList(cpus)));
        }

        #[test]
        fn no_text_panics(text in ".{0,12}|[-a-z=,:\\[\\]{}\".0-9]{0,12}") {
            let _ = (duration(&text), size(&text), text.parse::<CpuList>(), log_filter(&text), host(&text));
        }
    }
}
