//! What `CONFIG` shows and sets: the parameters that have a name of Redis', and the options that change while the server
//! runs. An option of the command line that has no row here is shown as it was at the start, and stays so.
//!
//! To let an option change at run time takes two lines: a field in [`Settings`], which its readers load whenever they
//! need it, and a row in [`PARAMETERS`] which says what values it takes and which field holds them. `CONFIG GET`, `SET`
//! and `REWRITE` and the file of `--config` follow. A field that begins with the value of an option of the command line
//! gets it in [`Settings::new`]; one without such an option begins with the value of Redis.
//!
//! A row of the kind [`Place::Remembered`] is a parameter that has no effect here: it is shown as it was set, because
//! test suites and frameworks set it and stop where that fails. `docs/OPERATIONS.md` lists them all.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use shard::{AutoTtl, EventClasses};

use super::units;
use super::{CLIENT_BUFFER_BOUNDS, CONNECTIONS_MAX, Config, REQUEST_TIMEOUT_BOUNDS};
use super::{LATENCY_MS_MAX, SLOWLOG_LEN_BOUNDS};
use super::{OutputLimit, OutputLimits, auto_ttl, auto_ttl_text, value_name};

/// The options that change while the server runs. A field is loaded without an order: its reader needs a number and no more.
#[derive(Debug, Default)]
pub struct Settings {
    /// Clients connected at the same time, at most.
    pub max_connections: AtomicI64,
    /// What the limit of open files was raised for at the start: more clients than these there cannot be.
    max_connections_bound: u32,
    /// Seconds after which an idle client is disconnected; 0 for never.
    pub timeout_s: AtomicI64,
    /// Seconds without a byte after which the system asks whether a client is still there; 0 for never.
    pub tcp_keepalive_s: AtomicI64,
    /// As the option of that name, in milliseconds.
    pub request_timeout_ms: AtomicI64,
    /// The same; 0 for never.
    pub busy_reply_threshold_ms: AtomicI64,
    /// As the options of these names; new clients get them.
    pub client_query_buffer_limit: AtomicI64,
    /// See there.
    pub client_reply_buffer_limit: AtomicI64,
    /// Microseconds from which on a command is kept for `SLOWLOG`; negative for none.
    pub slowlog_log_slower_than_us: AtomicI64,
    /// How many of them are kept.
    pub slowlog_max_len: AtomicI64,
    /// Milliseconds from which on a command is an event of `LATENCY`; 0 for none.
    pub latency_monitor_threshold_ms: AtomicI64,
    /// Which events of keys are published, as bits.
    keyspace_events: AtomicU32,
    /// Keys of which clients keep copies, at most; 0 for no limit.
    pub tracking_table_max_keys: AtomicI64,
    /// How much may wait for a client, by class: two sizes and a time each.
    output_limits: [[AtomicU64; 3]; 3],
    /// The filter of the log.
    log_level: Mutex<String>,
    /// The percentiles of `INFO latencystats`, as they were set.
    latency_percentiles: Mutex<String>,
    /// Values of parameters without an effect, where they were set.
    remembered: Mutex<BTreeMap<&'static str, String>>,
}

impl Settings {
    /// Those with which a server of these options begins.
    pub fn new(config: &Config) -> Settings {
        let cell = |value: u64| AtomicI64::new(i64::try_from(value).unwrap_or(i64::MAX));
        let settings = Settings {
            max_connections: cell(config.max_connections.into()),
            max_connections_bound: config.max_connections,
            timeout_s: cell(config.timeout.as_secs()),
            tcp_keepalive_s: cell(config.tcp_keepalive.as_secs()),
            request_timeout_ms: cell(config.request_timeout.as_millis() as u64),
            busy_reply_threshold_ms: cell(config.busy_reply_threshold.as_millis() as u64),
            client_query_buffer_limit: cell(config.client_query_buffer_limit),
            client_reply_buffer_limit: cell(config.client_reply_buffer_limit),
            slowlog_log_slower_than_us: AtomicI64::new(config.slowlog_log_slower_than),
            slowlog_max_len: cell(config.slowlog_max_len),
            latency_monitor_threshold_ms: cell(config.latency_monitor_threshold),
            keyspace_events: AtomicU32::new(config.notify_keyspace_events.unwrap_or_default().bits()),
            tracking_table_max_keys: cell(config.tracking_table_max_keys),
            output_limits: Default::default(),
            log_level: Mutex::new(config.log_level.clone()),
            latency_percentiles: Mutex::new("50 99 99.9".to_owned()),
            remembered: Mutex::default(),
        };
        settings.set_output_limits(config.client_output_buffer_limit);
        for (name, value) in &config.file_settings {
            let parameter = parameter(name.as_bytes()).expect("the file was read by the same table");
            parameter.set(value.clone(), &settings);
        }
        settings
    }

    /// The percentiles of `INFO latencystats`, in the order in which they were asked for.
    pub fn latency_percentiles(&self) -> Vec<f64> {
        let text = held(&self.latency_percentiles);
        text.split_whitespace().filter_map(|percentile| percentile.parse().ok()).collect()
    }

    /// Which events of keys are published. Each worker looks with every turn, and with every message of another.
    #[inline]
    pub fn keyspace_events(&self) -> EventClasses {
        EventClasses::from_bits(self.keyspace_events.load(Ordering::Relaxed))
    }

    /// More clients than these there cannot be.
    pub(super) fn max_connections_bound(&self) -> u32 {
        self.max_connections_bound
    }

    /// From now on so much may wait for clients.
    pub fn set_output_limits(&self, limits: OutputLimits) {
        for (places, limit) in self.output_limits.iter().zip(limits.classes) {
            let numbers = [limit.hard_bytes, limit.soft_bytes, limit.soft_s];
            places.iter().zip(numbers).for_each(|(place, number)| place.store(number, Ordering::Relaxed));
        }
    }

    /// How much may wait for clients.
    pub fn output_limits(&self) -> OutputLimits {
        OutputLimits { classes: [0, 1, 2].map(|class| self.output_limit(class)) }
    }

    /// How much may wait for a client that gets messages.
    pub fn subscriber_output_limit(&self) -> OutputLimit {
        self.output_limit(2)
    }

    fn output_limit(&self, class: usize) -> OutputLimit {
        let [hard_bytes, soft_bytes, soft_s] =
            [0, 1, 2].map(|place: usize| self.output_limits[class][place].load(Ordering::Relaxed));
        OutputLimit { hard_bytes, soft_bytes, soft_s }
    }

    /// The filter of the log.
    pub fn log_level(&self) -> String {
        held(&self.log_level)
    }
}

fn held(text: &Mutex<String>) -> String {
    text.lock().expect("no thread panics with it").clone()
}

/// What the values of parameters are shown from.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// The options as they were at the start.
    pub config: &'a Config,
    /// Those that change.
    pub settings: &'a Settings,
    /// The port on which the asking client's protocol is spoken.
    pub port: u16,
    /// The rules for TTLs.
    pub auto_ttl: &'a AutoTtl,
}

/// A parameter of `CONFIG`.
pub struct Parameter {
    /// Its name, as `CONFIG GET` shows it.
    pub name: &'static str,
    takes: Takes,
    place: Place,
}

/// Which values a parameter takes.
enum Takes {
    /// A whole number.
    Number(RangeInclusive<i64>),
    /// Bytes, with the units of Redis.
    Memory(RangeInclusive<i64>),
    /// Bytes, with the units of kvlite.
    Size(RangeInclusive<u64>),
    /// A duration with the units of kvlite; held in milliseconds.
    Duration(RangeInclusive<Duration>),
    /// One of these words.
    Words(&'static [&'static str]),
    /// Whatever this does not refuse; it returns the value as it is shown.
    Text(fn(&str) -> Result<String, String>),
}

/// Where the value of a parameter is held.
enum Place {
    Number(fn(&Settings) -> &AtomicI64),
    Text(fn(&Settings) -> &Mutex<String>),
    /// Behind these methods.
    Methods {
        show: fn(&Settings) -> String,
        set: fn(&Settings, &str),
    },
    /// Every worker has the rules for TTLs: they are sent to them.
    AutoTtl,
    /// Nowhere: this is its value, and it takes no other.
    Fixed(fn(&Shown<'_>) -> String),
    /// It changes nothing; this is its value at first.
    Remembered(&'static str),
}

/// A value that a parameter takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number in the unit in which it is held.
    Number(i64),
    /// A text as it is shown.
    Text(String),
}

/// Why a parameter is not set.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// It never changes while the server runs.
    Fixed,
    /// It takes no such value; the text says which.
    Invalid(String),
}

const YES_NO: Takes = Takes::Words(&["yes", "no"]);
const ANY: Takes = Takes::Text(|text| Ok(text.to_owned()));
const COUNT: Takes = Takes::Number(0..=i64::MAX);
const SMALL: Takes = Takes::Number(0..=i32::MAX as i64);
const SIZE: Takes = Takes::Memory(0..=i64::MAX);
const POLICIES: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
];

const fn row(name: &'static str, takes: Takes, place: Place) -> Parameter {
    Parameter { name, takes, place }
}

const fn fixed(name: &'static str, takes: Takes, show: fn(&Shown<'_>) -> String) -> Parameter {
    row(name, takes, Place::Fixed(show))
}

const fn remembered(name: &'static str, takes: Takes, first: &'static str) -> Parameter {
    row(name, takes, Place::Remembered(first))
}

/// Every parameter that Redis has and that has a meaning here, and every option that changes at run time.
pub static PARAMETERS: &[Parameter] = &[
    // Those that change what the server does.
    row("auto-ttl", ANY, Place::AutoTtl),
    row("busy-reply-threshold", Takes::Number(0..=i64::MAX), Place::Number(|it| &it.busy_reply_threshold_ms)),
    row(
        "client-output-buffer-limit",
        Takes::Text(output_limits),
        Place::Methods { show: |it| it.output_limits().text(), set: set_output_limits },
    ),
    row(
        "client-query-buffer-limit",
        Takes::Size(CLIENT_BUFFER_BOUNDS),
        Place::Number(|it| &it.client_query_buffer_limit),
    ),
    row(
        "client-reply-buffer-limit",
        Takes::Size(CLIENT_BUFFER_BOUNDS),
        Place::Number(|it| &it.client_reply_buffer_limit),
    ),
    row(
        "latency-monitor-threshold",
        Takes::Number(0..=LATENCY_MS_MAX as i64),
        Place::Number(|it| &it.latency_monitor_threshold_ms),
    ),
    row(
        "slowlog-log-slower-than",
        Takes::Number(-1..=i64::MAX),
        Place::Number(|it| &it.slowlog_log_slower_than_us),
    ),
    row(
        "slowlog-max-len",
        Takes::Number(0..=*SLOWLOG_LEN_BOUNDS.end() as i64),
        Place::Number(|it| &it.slowlog_max_len),
    ),
    row(
        "latency-tracking-info-percentiles",
        Takes::Text(percentiles),
        Place::Text(|it| &it.latency_percentiles),
    ),
    row("log-level", Takes::Text(log_filter), Place::Text(|it| &it.log_level)),
    row("loglevel", Takes::Text(log_level_of_redis), Place::Text(|it| &it.log_level)),
    row("lua-time-limit", Takes::Number(0..=i64::MAX), Place::Number(|it| &it.busy_reply_threshold_ms)),
    row("max-connections", Takes::Number(1..=u32::MAX as i64), Place::Number(|it| &it.max_connections)),
    row("maxclients", Takes::Number(1..=u32::MAX as i64), Place::Number(|it| &it.max_connections)),
    row(
        "notify-keyspace-events",
        Takes::Text(event_classes),
        Place::Methods { show: |it| it.keyspace_events().text(), set: set_keyspace_events },
    ),
    row(
        "request-timeout",
        Takes::Duration(REQUEST_TIMEOUT_BOUNDS),
        Place::Number(|it| &it.request_timeout_ms),
    ),
    row("tcp-keepalive", SMALL, Place::Number(|it| &it.tcp_keepalive_s)),
    row("timeout", SMALL, Place::Number(|it| &it.timeout_s)),
    row("tracking-table-max-keys", COUNT, Place::Number(|it| &it.tracking_table_max_keys)),
    // Those that say how the server is. They take the value that they have, and no other.
    fixed("appendfsync", Takes::Words(&["everysec", "always", "no"]), |it| value_name(it.config.sync_mode)),
    fixed("appendonly", YES_NO, |_| "yes".to_owned()),
    fixed("bind", ANY, |it| it.config.host.clone()),
    fixed("dir", ANY, |it| it.config.wal_path.display().to_string()),
    fixed("maxmemory", SIZE, |_| "0".to_owned()),
    fixed("maxmemory-policy", Takes::Words(POLICIES), |_| "noeviction".to_owned()),
    fixed("min-replicas-to-write", SMALL, |_| "0".to_owned()),
    fixed("min-slaves-to-write", SMALL, |_| "0".to_owned()),
    fixed("port", Takes::Number(0..=65_535), |it| it.port.to_string()),
    fixed("proto-max-bulk-len", Takes::Memory(1 << 20..=i64::MAX), |_| (512 << 20).to_string()),
    fixed("protected-mode", YES_NO, |_| "no".to_owned()),
    fixed("requirepass", ANY, |_| String::new()),
    fixed("save", Takes::Text(save_points), |_| String::new()),
    // Those that say how the server is and of which Redis allows no change either.
    fixed("cluster-enabled", Takes::Words(&[]), |_| "no".to_owned()),
    fixed("daemonize", Takes::Words(&[]), |_| "no".to_owned()),
    fixed("databases", Takes::Words(&[]), |it| it.config.databases.to_string()),
    fixed("io-threads", Takes::Words(&[]), |_| "1".to_owned()),
    fixed("unixsocket", Takes::Words(&[]), |it| {
        it.config.unix_socket.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }),
    // Those without an effect.
    remembered("active-expire-effort", Takes::Number(1..=10), "1"),
    remembered("activedefrag", YES_NO, "no"),
    remembered("activerehashing", YES_NO, "yes"),
    remembered("auto-aof-rewrite-min-size", SIZE, "67108864"),
    remembered("auto-aof-rewrite-percentage", SMALL, "100"),
    remembered("hash-max-listpack-entries", COUNT, "512"),
    remembered("hash-max-listpack-value", COUNT, "64"),
    remembered("hash-max-ziplist-entries", COUNT, "512"),
    remembered("hash-max-ziplist-value", COUNT, "64"),
    remembered("hz", Takes::Number(0..=i32::MAX as i64), "10"),
    remembered("latency-tracking", YES_NO, "yes"),
    remembered("lazyfree-lazy-eviction", YES_NO, "no"),
    remembered("lazyfree-lazy-expire", YES_NO, "no"),
    remembered("lazyfree-lazy-server-del", YES_NO, "no"),
    remembered("lazyfree-lazy-user-del", YES_NO, "no"),
    remembered("lazyfree-lazy-user-flush", YES_NO, "no"),
    remembered("lfu-decay-time", SMALL, "1"),
    remembered("lfu-log-factor", SMALL, "10"),
    remembered("list-compress-depth", SMALL, "0"),
    remembered("list-max-listpack-size", Takes::Number(i32::MIN as i64..=i32::MAX as i64), "-2"),
    remembered("list-max-ziplist-size", Takes::Number(i32::MIN as i64..=i32::MAX as i64), "-2"),
    remembered("maxmemory-samples", Takes::Number(1..=i32::MAX as i64), "5"),
    remembered("min-replicas-max-lag", SMALL, "10"),
    remembered("min-slaves-max-lag", SMALL, "10"),
    remembered("no-appendfsync-on-rewrite", YES_NO, "no"),
    remembered("rdbcompression", YES_NO, "yes"),
    remembered("repl-backlog-size", Takes::Memory(1..=i64::MAX), "1048576"),
    remembered("replica-read-only", YES_NO, "yes"),
    remembered("set-max-intset-entries", COUNT, "512"),
    remembered("slave-read-only", YES_NO, "yes"),
    remembered("stop-writes-on-bgsave-error", YES_NO, "yes"),
    remembered("stream-node-max-bytes", SIZE, "4096"),
    remembered("stream-node-max-entries", COUNT, "100"),
    remembered("zset-max-listpack-entries", COUNT, "128"),
    remembered("zset-max-listpack-value", COUNT, "64"),
    remembered("zset-max-ziplist-entries", COUNT, "128"),
    remembered("zset-max-ziplist-value", COUNT, "64"),
];

/// Two names for the same thing: what is set by the first is shown under the second, too.
const ALIASES: [(&str, &str); 8] = [
    ("hash-max-ziplist-entries", "hash-max-listpack-entries"),
    ("hash-max-ziplist-value", "hash-max-listpack-value"),
    ("list-max-ziplist-size", "list-max-listpack-size"),
    ("min-slaves-max-lag", "min-replicas-max-lag"),
    ("min-slaves-to-write", "min-replicas-to-write"),
    ("slave-read-only", "replica-read-only"),
    ("zset-max-ziplist-entries", "zset-max-listpack-entries"),
    ("zset-max-ziplist-value", "zset-max-listpack-value"),
];

/// The parameter of this name, in any case.
pub fn parameter(name: &[u8]) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|it| it.name.as_bytes().eq_ignore_ascii_case(name))
}

impl Parameter {
    /// Its value as `CONFIG GET` shows it.
    pub fn show(&self, shown: &Shown<'_>) -> String {
        match self.place {
            Place::Number(cell) => {
                let number = cell(shown.settings).load(Ordering::Relaxed);
                match self.takes {
                    Takes::Duration(_) => units::duration_text(Duration::from_millis(number.unsigned_abs())),
                    _ => number.to_string(),
                }
            }
            Place::Text(cell) => match self.name {
                "loglevel" => level_as_redis_shows_it(&held(cell(shown.settings))).to_owned(),
                _ => held(cell(shown.settings)),
            },
            Place::Methods { show, .. } => show(shown.settings),
            Place::AutoTtl => auto_ttl_text(shown.auto_ttl),
            Place::Fixed(show) => show(shown),
            Place::Remembered(first) => {
                let remembered = shown.settings.remembered.lock().expect("no thread panics with it");
                remembered.get(self.canonical_name()).map_or_else(|| first.to_owned(), Clone::clone)
            }
        }
    }

    /// The value that a text gives it, which may be set.
    ///
    /// # Errors
    /// Why not.
    pub fn read(&self, text: &str, shown: &Shown<'_>) -> Result<Value, Refusal> {
        if matches!(self.takes, Takes::Words([])) {
            return Err(Refusal::Fixed);
        }
        let value = self.takes.read(text).map_err(Refusal::Invalid)?;
        if let Place::AutoTtl = self.place {
            let rules = auto_ttl(text).map_err(|error| Refusal::Invalid(error.to_string()))?;
            return Ok(Value::Text(auto_ttl_text(&rules)));
        }
        let clients_max = shown.settings.max_connections_bound;
        match (&self.place, &value) {
            (Place::Fixed(show), value)
                if *value != self.takes.read(&show(shown)).unwrap_or(Value::Number(-1)) =>
            {
                Err(Refusal::Fixed)
            }
            (Place::Number(_), Value::Number(number))
                if self.canonical_name() == "max-connections" && *number > clients_max.into() =>
            {
                Err(Refusal::Invalid(format!(
                    "The operating system is not able to handle the specified number of clients, try with {clients_max}"
                )))
            }
            _ => Ok(value),
        }
    }

    /// Sets it to a value that was [read](Parameter::read).
    pub fn set(&self, value: Value, settings: &Settings) {
        match (&self.place, value) {
            (Place::Number(cell), Value::Number(number)) => {
                cell(settings).store(number, Ordering::Relaxed);
            }
            (Place::Text(cell), Value::Text(text)) => {
                *cell(settings).lock().expect("no thread panics with it") = text;
            }
            (Place::Methods { set, .. }, Value::Text(text)) => set(settings, &text),
            (Place::Remembered(_), value) => {
                let text = match value {
                    Value::Number(number) => number.to_string(),
                    Value::Text(text) => text,
                };
                let mut remembered = settings.remembered.lock().expect("no thread panics with it");
                remembered.insert(self.canonical_name(), text);
            }
            _ => {} // It has the value, or the workers are told.
        }
    }

    /// Whether it has no effect.
    pub fn is_remembered(&self) -> bool {
        matches!(self.place, Place::Remembered(_))
    }

    /// Whether it takes values other than the one that it has.
    pub fn changes(&self) -> bool {
        !matches!(self.place, Place::Fixed(_))
    }

    /// Values that it takes, the least and the greatest among them.
    #[cfg(test)]
    pub(super) fn extremes(&self) -> Vec<String> {
        match &self.takes {
            // The greatest first: a start with few lets no more be set.
            _ if self.canonical_name() == "max-connections" => vec!["10000".into(), "1".into()],
            Takes::Number(bounds) | Takes::Memory(bounds) => {
                vec![bounds.start().to_string(), bounds.end().to_string()]
            }
            Takes::Size(bounds) => vec![bounds.start().to_string(), bounds.end().to_string()],
            Takes::Duration(bounds) => {
                [bounds.start(), bounds.end()].map(|it| units::duration_text(*it)).into()
            }
            Takes::Words(words) => words.iter().map(|word| (*word).to_owned()).collect(),
            Takes::Text(_) => {
                let texts: &[&str] = match self.name {
                    "auto-ttl" => &["", "a* 1s", "\" 87600h", "\u{a0}b 1s c 1h"],
                    "client-output-buffer-limit" => {
                        &["normal 0 0 0", "pubsub 1 18446744073709551615 18446744073709551615"]
                    }
                    "latency-tracking-info-percentiles" => &["", "0 100 99.99"],
                    "log-level" => &["off", "trace", "info,kvlite=debug,[{a=\"b c\"}]=warn"],
                    "loglevel" => &["debug", "verbose", "notice", "warning"],
                    "notify-keyspace-events" => &["", "KEA", "KEg$xenm"],
                    name => unreachable!("{name} takes texts that no test has"),
                };
                texts.iter().map(|text| (*text).to_owned()).collect()
            }
        }
    }

    /// Whether a value under this name, as names are spelt, is its value.
    pub(super) fn is_set_by(&self, name: &str) -> bool {
        parameter(name.as_bytes()).is_some_and(|other| other.canonical_name() == self.canonical_name())
    }

    /// The name under which its value is held: two parameters may be one.
    pub fn canonical_name(&self) -> &'static str {
        let alias = ALIASES.iter().find(|(alias, _)| *alias == self.name);
        match self.name {
            "maxclients" => "max-connections",
            "loglevel" => "log-level",
            "lua-time-limit" => "busy-reply-threshold",
            name => alias.map_or(name, |(_, name)| name),
        }
    }
}

impl Takes {
    fn read(&self, text: &str) -> Result<Value, String> {
        let within = |number: i64, bounds: &RangeInclusive<i64>| match bounds.contains(&number) {
            true => Ok(Value::Number(number)),
            false => {
                let (least, greatest) = (bounds.start(), bounds.end());
                Err(format!("argument must be between {least} and {greatest} inclusive"))
            }
        };
        match self {
            Takes::Number(bounds) => {
                let number = shard::parse_integer(text.as_bytes());
                within(number.ok_or("argument couldn't be parsed into an integer")?, bounds)
            }
            Takes::Memory(bounds) => within(memory(text).ok_or("argument must be a memory value")?, bounds),
            Takes::Size(bounds) => {
                let size = units::size_within(text, bounds.clone()).map_err(|error| error.to_string())?;
                Ok(Value::Number(size as i64)) // No bound is as great as that.
            }
            Takes::Duration(bounds) => {
                let duration =
                    units::duration_within(text, bounds.clone()).map_err(|error| error.to_string())?;
                Ok(Value::Number(duration.as_millis() as i64))
            }
            Takes::Words(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
                Some(word) => Ok(Value::Text((*word).to_owned())),
                None if **words == ["yes", "no"] => Err("argument must be 'yes' or 'no'".to_owned()),
                None => Err(format!("argument(s) must be one of the following: {}", words.join(", "))),
            },
            Takes::Text(read) => read(text).map(Value::Text),
        }
    }
}

/// A number of bytes as Redis reads it: `1k` are 1,000, `1kb` 1,024.
fn memory(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: i64 = text[..digits].parse().ok()?;
    let unit: i64 = match text[digits..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// Pairs of seconds and changes, as Redis takes them.
fn save_points(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_number = |word: &&str| word.parse::<u32>().is_ok();
    match words.len().is_multiple_of(2) && words.iter().all(is_number) {
        true => Ok(words.join(" ")),
        false => Err("Invalid save parameters".to_owned()),
    }
}

fn percentiles(text: &str) -> Result<String, String> {
    let words = text.split_whitespace().map(|word| match word.parse::<f64>() {
        Ok(percentile) if (0.0..=100.0).contains(&percentile) => Ok(percentile.to_string()),
        _ => Err("latency-tracking-info-percentiles contains an invalid percentile: use decimals from 0.0 to 100.0"),
    });
    let words: Result<Vec<String>, &str> = words.collect();
    Ok(words?.join(" "))
}

fn output_limits(text: &str) -> Result<String, String> {
    OutputLimits::default().with(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn event_classes(text: &str) -> Result<String, String> {
    units::event_classes(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn set_keyspace_events(settings: &Settings, text: &str) {
    if let Ok(classes) = units::event_classes(text) {
        settings.keyspace_events.store(classes.bits(), Ordering::Relaxed);
    }
}

/// The classes that a text names get other limits, the others keep theirs.
fn set_output_limits(settings: &Settings, text: &str) {
    if let Ok(limits) = settings.output_limits().with(text) {
        settings.set_output_limits(limits);
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    units::log_filter(text).map_err(|error| error.to_string())
}

/// The levels of Redis, each with the filter that lets through as much.
const LEVELS: [(&str, &str); 4] =
    [("debug", "debug"), ("verbose", "info,kvlite=debug"), ("notice", "info"), ("warning", "warn")];

fn log_level_of_redis(text: &str) -> Result<String, String> {
    let level = LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    let level = level.ok_or("argument(s) must be one of the following: debug, verbose, notice, warning");
    Ok(level?.1.to_owned())
}

/// The level of Redis that is nearest to a filter.
fn level_as_redis_shows_it(filter: &str) -> &'static str {
    if let Some((name, _)) = LEVELS.iter().find(|(_, of_kvlite)| *of_kvlite == filter) {
        return name;
    }
    match filter.split(',').find(|part| !part.contains('=')).unwrap_or("info") {
        "trace" => "debug",
        "error" | "off" => "warning",
        _ => "notice",
    }
}

/// The option of the command line that is meant by a name of Redis, and its value there.
pub(crate) fn option_of_redis(name: &str, value: &str) -> Option<(&'static str, String)> {
    let same = |option| Some((option, value.to_owned()));
    match name {
        "maxclients" => same("max-connections"),
        "lua-time-limit" => same("busy-reply-threshold"),
        "bind" => same("host"),
        "dir" => same("wal-path"),
        "appendfsync" => same("sync-mode"),
        "unixsocket" => same("unix-socket"),
        "loglevel" => Some(("log-level", log_level_of_redis(value).unwrap_or_else(|_| value.to_owned()))),
        _ => None,
    }
}

const _: () = assert!(CONNECTIONS_MAX <= i32::MAX as u32, "a greater one would not fit the text of an error");
