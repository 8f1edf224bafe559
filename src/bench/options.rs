//! The options of `kvlite bench`, and the small languages in which a mix of commands and a distribution of
//! value sizes are written. It connects to nothing.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};

use crate::config::{self, HELP_COLUMNS, InvalidValue, Io};

/// The most requests that one run sends, and the longest that it takes.
const REQUESTS_MAX: u64 = 100_000_000_000;
const DURATION_BOUNDS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_hours(24);

/// The duration where none is asked for: without and with a limit of requests.
const DURATION_USUAL: Duration = Duration::from_secs(10);
const DURATION_WITH_REQUESTS: Duration = Duration::from_mins(10);

/// The most bytes that all requests under way together may have.
const REQUESTS_BYTES_MAX: u64 = 1 << 30;

/// The longest value that a line of the text protocol has room for.
const TEXT_VALUE_BYTES_MAX: u32 = 1_000_000;

/// Loads and measures a server that speaks the Redis protocol, kvlite's text protocol or memcached's
#[derive(Clone, Debug, Parser)]
#[command(name = "kvlite bench", bin_name = "kvlite bench", version)]
#[command(max_term_width = HELP_COLUMNS, args_override_self = true)]
#[command(
    after_help = "Without --rate each client sends its next requests once the last are answered: that \
    finds the throughput. With --rate requests leave at fixed times whether or not the server keeps up, and \
    a latency counts from the time at which its request was due: that finds the latency under a load.\n\
    Every run ends: after --requests or --duration, whichever comes first, and with an error when the server \
    is silent for --timeout.\n\
    Exit status: 0 once measured, even if replies were errors (they are counted); 1 if the server could not \
    be reached, closed a connection or fell silent; 2 for a usage error; 78 where the system \
    refuses io_uring or threads."
)]
pub struct Options {
    /// Name or address of the server
    #[arg(long, default_value = "localhost", help_heading = SERVER)]
    pub host: String,

    /// Port of the server [default: 6379; for text 6380, for memcached 11211]
    #[arg(long, help_heading = SERVER)]
    #[arg(value_parser = |text: &str| config::number_within::<u16>(text, 1..=65_535))]
    pub port: Option<u16>,

    /// Path of the server's Unix socket, used instead of --host and --port
    #[arg(long, value_name = "PATH", help_heading = SERVER)]
    pub unix_socket: Option<PathBuf>,

    /// Protocol: resp, text (that of kvlite) or memcached
    #[arg(long, value_enum, default_value = "resp", hide_possible_values = true, help_heading = SERVER)]
    pub protocol: Protocol,

    /// Time without any reply after which the server counts as gone; 10ms to 24h
    #[arg(long, default_value = "10s", value_name = "DURATION", help_heading = SERVER)]
    #[arg(value_parser = duration)]
    pub timeout: Duration,

    /// How the kernel is asked: io_uring, epoll, or auto (io_uring where the system allows it, else epoll)
    #[arg(long, env = "KVLITE_IO", default_value = "auto", value_name = "BACKEND", help_heading = LOAD)]
    #[arg(value_enum, hide_possible_values = true, hide_env_values = true)]
    pub io: Io,

    /// Connections, 1 to 10000
    #[arg(short, long, default_value_t = 50, value_name = "N", help_heading = LOAD)]
    #[arg(value_parser = |text: &str| config::number_within::<u32>(text, 1..=10_000))]
    pub clients: u32,

    /// Threads of the load generator, 1 to 64
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = LOAD)]
    #[arg(value_parser = |text: &str| config::number_within::<u32>(text, 1..=64))]
    pub threads: u32,

    /// Requests that each connection sends ahead of their replies, 1 to 1024
    #[arg(short = 'P', long, default_value_t = 1, value_name = "N", help_heading = LOAD)]
    #[arg(value_parser = |text: &str| config::number_within::<u32>(text, 1..=1024))]
    pub pipeline: u32,

    /// Requests to send, at most; 0 with --fill only fills [default: no limit but --duration]
    #[arg(short = 'n', long, value_name = "N", help_heading = LOAD)]
    #[arg(value_parser = |text: &str| config::number_within::<u64>(text, 0..=REQUESTS_MAX))]
    requests: Option<u64>,

    /// Time to send requests for, 10ms to 24h [default: 10s, with --requests 10m]
    #[arg(short, long, value_name = "DURATION", help_heading = LOAD)]
    #[arg(value_parser = duration)]
    duration: Option<Duration>,

    /// Requests a second, over all connections, at fixed times [default: as fast as they are answered]
    #[arg(short, long, value_name = "N", help_heading = LOAD)]
    #[arg(value_parser = |text: &str| config::number_within::<u64>(text, 1..=100_000_000))]
    pub rate: Option<u64>,

    /// Commands and their weights: get, set, incr, mget, mset
    #[arg(long, default_value = "get:50,set:50", value_name = "COMMAND:WEIGHT,...", help_heading = WORK)]
    pub commands: Mix,

    /// Keys of one mget or mset, 1 to 1000
    #[arg(long, default_value_t = 10, value_name = "N", help_heading = WORK)]
    #[arg(value_parser = |text: &str| config::number_within::<u32>(text, 1..=1000))]
    pub batch: u32,

    /// Keys to choose from, key:000000000000 and following, 1 to 1000000000
    #[arg(short, long, default_value_t = 100_000, value_name = "N", help_heading = WORK)]
    #[arg(value_parser = |text: &str| config::number_within::<u64>(text, 1..=1_000_000_000))]
    pub keys: u64,

    /// Exponent of the Zipf distribution of the keys, such as 0.99; 0: each is as likely as any other
    #[arg(long, default_value_t = 0.0, value_name = "EXPONENT", help_heading = WORK)]
    #[arg(value_parser = zipf_exponent)]
    pub zipf: f64,

    /// Size of the values: a size, a range as 16-1k, or several with weights as 16:70,1k-4k:30
    #[arg(long, default_value = "16", value_name = "BYTES", help_heading = WORK)]
    pub value_size: Sizes,

    /// TTL of the values that set writes, in seconds [default: none]
    #[arg(long, value_name = "SECONDS", help_heading = WORK)]
    #[arg(value_parser = |text: &str| config::number_within::<u32>(text, 1..=0xffff_ffff))]
    pub ttl: Option<u32>,

    /// Set every key before measuring
    #[arg(long, help_heading = WORK)]
    pub fill: bool,

    /// Keys on the shard of their connection (local), on another (remote), or any; asks kvlite for its shards
    #[arg(long, value_enum, default_value = "any", hide_possible_values = true, help_heading = WORK)]
    pub locality: Locality,

    /// Where the sequences of keys, sizes and commands begin: the same seed, the same sequences
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = WORK)]
    #[arg(value_parser = |text: &str| config::number_within::<u64>(text, 0..=u64::MAX))]
    pub seed: u64,

    /// Print the result as JSON
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
}

const SERVER: &str = "Server";
const LOAD: &str = "Load";
const WORK: &str = "Keys, values, commands";
const OUTPUT: &str = "Output";

/// What is spoken with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// The Redis protocol.
    Resp,
    /// The text protocol of kvlite.
    Text,
    /// The text protocol of memcached.
    Memcached,
}

/// Where the keys of a connection live, seen from the shard that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Locality {
    /// Anywhere.
    Any,
    /// On the shard itself.
    Local,
    /// On another shard.
    Remote,
}

/// A command that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// Reads a key.
    Get,
    /// Writes a key.
    Set,
    /// Counts up a key of its own, `counter:000000000000`.
    Incr,
    /// Reads `--batch` keys.
    Mget,
    /// Writes `--batch` keys.
    Mset,
}

/// Values with weights, one of which is drawn by a number below the sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted<T>(Vec<(T, u32)>);

/// Commands with weights.
pub type Mix = Weighted<Kind>;

/// Ranges of sizes in bytes, with weights. Within a range every size is as likely as any other.
pub type Sizes = Weighted<SizeRange>;

/// The sizes from `least` to `most` bytes, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeRange {
    /// The smallest.
    pub least: u32,
    /// The largest.
    pub most: u32,
}

/// The largest sum of weights, and the most values that can be drawn from.
const WEIGHTS_MAX: u32 = 1_000_000;
const WEIGHTED_MAX: usize = 64;

impl<T: Copy> Weighted<T> {
    /// The sum of the weights.
    pub fn total(&self) -> u32 {
        self.0.iter().map(|(_, weight)| weight).sum()
    }

    /// The value that `number`, below [`Weighted::total`], falls on.
    pub fn at(&self, mut number: u32) -> T {
        for (value, weight) in &self.0 {
            match number.checked_sub(*weight) {
                Some(rest) => number = rest,
                None => return *value,
            }
        }
        unreachable!("the number is below the sum of the weights")
    }

    /// Every value that can be drawn.
    pub fn values(&self) -> impl Iterator<Item = T> + '_ {
        self.0.iter().map(|(value, _)| *value)
    }

    fn parse<E>(text: &str, value: impl Fn(&str) -> Result<T, E>) -> Result<Self, InvalidWork> {
        let mut weighted = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.rsplit_once(':').unwrap_or((part, "1"));
            let weight = weight.parse().map_err(|_| InvalidWork::Weight)?;
            let value = value(name).map_err(|_| InvalidWork::Unknown(name.to_owned()))?;
            if weight > 0 {
                weighted.push((value, weight));
            }
        }
        let sum: u64 = weighted.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let is_bounded = weighted.len() <= WEIGHTED_MAX && (1..=u64::from(WEIGHTS_MAX)).contains(&sum);
        if is_bounded { Ok(Weighted(weighted)) } else { Err(InvalidWork::Sum) }
    }
}

impl FromStr for Mix {
    type Err = InvalidWork;

    fn from_str(text: &str) -> Result<Mix, InvalidWork> {
        Weighted::parse(text, |name| Kind::from_str(name, true))
    }
}

impl FromStr for Sizes {
    type Err = InvalidWork;

    fn from_str(text: &str) -> Result<Sizes, InvalidWork> {
        Weighted::parse(text, |range| {
            let (least, most) = range.split_once('-').unwrap_or((range, range));
            let size = |text| u32::try_from(config::size(text).map_err(drop)?).map_err(drop);
            let range = SizeRange { least: size(least)?, most: size(most)? };
            if range.least <= range.most { Ok(range) } else { Err(()) }
        })
    }
}

/// Why a mix of commands or a distribution of sizes is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidWork {
    /// A weight is no number.
    Weight,
    /// The weights sum up to nothing or too much, or there are too many of them.
    Sum,
    /// No command or no size.
    Unknown(String),
}

impl fmt::Display for InvalidWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidWork::Weight => {
                write!(f, "a weight is a whole number behind a colon, as in get:90,set:10")
            }
            InvalidWork::Sum => {
                write!(f, "give at most {WEIGHTED_MAX} weights with a sum of 1 to {WEIGHTS_MAX}")
            }
            InvalidWork::Unknown(name) => write!(f, "'{name}' is not one of the choices"),
        }
    }
}

impl std::error::Error for InvalidWork {}

/// Options that are each in order but do not go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// More threads than connections.
    IdleThreads,
    /// The requests under way would have this many bytes.
    RequestsTooLarge(u64),
    /// Values that a line of the text protocol has no room for.
    ValueTooLongForText,
    /// Only the Redis protocol tells the shard of a connection.
    LocalityWithoutResp,
    /// memcached cannot set several keys at once, and counts only what was set before.
    NotInMemcached,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Contradiction::IdleThreads => {
                write!(f, "--threads is above --clients: some would have nothing to do")
            }
            Contradiction::RequestsTooLarge(bytes) => write!(
                f,
                "the requests under way would have {bytes} bytes, the limit is {REQUESTS_BYTES_MAX}: lower \
                 --clients, --pipeline, --batch or --value-size"
            ),
            Contradiction::ValueTooLongForText => {
                write!(f, "the text protocol takes lines of 1 MiB: lower --value-size or --batch")
            }
            Contradiction::LocalityWithoutResp => write!(f, "--locality needs --protocol resp"),
            Contradiction::NotInMemcached => {
                write!(
                    f,
                    "memcached has no mset and no incr of a key that does not exist: choose get, mget, set"
                )
            }
        }
    }
}

impl std::error::Error for Contradiction {}

impl Options {
    /// The options that these arguments give; the first is the program's name.
    ///
    /// # Errors
    /// What [`clap::Error`] says: a usage error, or a request for the help or the version.
    pub fn from_args<A: Into<std::ffi::OsString> + Clone>(
        args: impl IntoIterator<Item = A>,
    ) -> Result<Options, clap::Error> {
        let options = Options::try_parse_from(args)?;
        match options.contradiction() {
            None => Ok(options),
            Some(contradiction) => Err(Options::command().error(ErrorKind::ArgumentConflict, contradiction)),
        }
    }

    /// How many requests are sent, at most.
    pub fn requests_max(&self) -> u64 {
        self.requests.unwrap_or(REQUESTS_MAX)
    }

    /// For how long requests are sent, at most.
    pub fn duration_max(&self) -> Duration {
        let usual = if self.requests.is_some() { DURATION_WITH_REQUESTS } else { DURATION_USUAL };
        self.duration.unwrap_or(usual)
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.protocol {
            Protocol::Resp => 6379,
            Protocol::Text => 6380,
            Protocol::Memcached => 11211,
        })
    }

    /// The size of the largest value, in bytes.
    pub fn value_bytes_max(&self) -> u32 {
        self.value_size.values().map(|range| range.most).max().unwrap_or(0)
    }

    fn contradiction(&self) -> Option<Contradiction> {
        if self.threads > self.clients {
            return Some(Contradiction::IdleThreads);
        }
        if self.protocol != Protocol::Resp && self.locality != Locality::Any {
            return Some(Contradiction::LocalityWithoutResp);
        }
        let mut commands = self.commands.values();
        if self.protocol == Protocol::Memcached
            && commands.any(|kind| matches!(kind, Kind::Incr | Kind::Mset))
        {
            return Some(Contradiction::NotInMemcached);
        }
        let batched = self.commands.values().any(|kind| kind == Kind::Mset);
        let request_bytes =
            u64::from(self.value_bytes_max() + 64) * if batched { u64::from(self.batch) } else { 1 };
        if self.protocol == Protocol::Text && request_bytes > u64::from(TEXT_VALUE_BYTES_MAX) {
            return Some(Contradiction::ValueTooLongForText);
        }
        let bytes = request_bytes * u64::from(self.clients) * u64::from(self.pipeline);
        (bytes > REQUESTS_BYTES_MAX).then_some(Contradiction::RequestsTooLarge(bytes))
    }
}

fn duration(text: &str) -> Result<Duration, InvalidValue> {
    config::duration_within(text, DURATION_BOUNDS)
}

fn zipf_exponent(text: &str) -> Result<f64, &'static str> {
    let exponent = text.parse::<f64>().ok().filter(|exponent| (0.0..=10.0).contains(exponent));
    exponent.ok_or("give a number from 0 to 10")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Options, clap::Error> {
        Options::from_args(std::iter::once("kvlite bench").chain(args.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_sound_and_its_help_fits_80_columns() {
        Options::command().debug_assert();
        let help = Options::command().term_width(80).render_long_help().to_string();
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "too wide: {line}");
        }
        for flag in ["--help", "--no-such-flag"] {
            let shown = Options::from_args(["bench", flag]).unwrap_err().to_string();
            assert!(shown.contains("Usage: kvlite bench [OPTIONS]"), "{shown}");
        }
    }

    #[test]
    fn a_run_has_a_limit_whatever_was_asked_for() {
        let bounds = |args: &str| {
            let options = parse(args).unwrap();
            (options.requests_max(), options.duration_max().as_secs())
        };
        assert_eq!(bounds(""), (REQUESTS_MAX, 10));
        assert_eq!(bounds("-n 5"), (5, 600));
        assert_eq!(bounds("--duration 3s"), (REQUESTS_MAX, 3));
        assert_eq!(bounds("-n 5 -d 3"), (5, 3));
        assert!(parse("--duration 25h").is_err());
        assert!(parse("--duration 0").is_err());
        assert!(parse("-n 100000000001").is_err());
    }

    #[test]
    fn a_mix_is_drawn_by_its_weights() {
        let mix: Mix = "get:3,set,mget:0,INCR:2".parse().unwrap();
        let drawn: Vec<_> = (0..mix.total()).map(|number| mix.at(number)).collect();
        assert_eq!(drawn, [Kind::Get, Kind::Get, Kind::Get, Kind::Set, Kind::Incr, Kind::Incr]);
        assert_eq!("get:x".parse::<Mix>(), Err(InvalidWork::Weight));
        assert_eq!("get:0".parse::<Mix>(), Err(InvalidWork::Sum));
        assert_eq!("get:999999,set:2".parse::<Mix>(), Err(InvalidWork::Sum));
        assert_eq!("del:1".parse::<Mix>(), Err(InvalidWork::Unknown("del".to_owned())));
    }

    #[test]
    fn sizes_are_sizes_ranges_and_weighted_ranges() {
        let sizes = |text: &str| text.parse::<Sizes>().map(|Weighted(ranges)| ranges);
        let range = |least, most| SizeRange { least, most };
        assert_eq!(sizes("16"), Ok(vec![(range(16, 16), 1)]));
        assert_eq!(sizes("0-1k"), Ok(vec![(range(0, 1024), 1)]));
        assert_eq!(sizes("16:70,1k-4k:30"), Ok(vec![(range(16, 16), 70), (range(1024, 4096), 30)]));
        assert_eq!(sizes("9-8"), Err(InvalidWork::Unknown("9-8".to_owned())));
        assert_eq!(sizes("5g"), Err(InvalidWork::Unknown("5g".to_owned())));
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for (args, part) in [
            ("--threads 3 --clients 2", "nothing to do"),
            ("--value-size 2m --protocol text", "lines of 1 MiB"),
            ("--value-size 1m -P 1024", "under way"),
            ("--locality local --protocol text", "needs --protocol resp"),
            ("--commands get,incr --protocol memcached", "choose get, mget, set"),
            ("--value-size 1k -P 100 -c 100 --batch 1000 --commands mset", "under way"),
        ] {
            let error = parse(args).expect_err(args);
            assert_eq!(error.exit_code(), 2, "{args}");
            assert!(error.to_string().contains(part), "{args}: {error}");
        }
    }
}
