//! Every option of the server: its flag, its environment variable, its unit, its default, its bounds.
//!
//! A flag `--max-wal-size` has the variable `KVLITE_MAX_WAL_SIZE`; the flag wins, and an empty variable
//! counts as not set. So does one whose value begins with a scheme, such as `tcp://`: Kubernetes sets `KVLITE_PORT`
//! in every pod beside a Service of the name `kvlite`, and no option takes such a value. Besides the environment and
//! the process' CPU affinity nothing of the machine is looked at here: whether a port is free or a directory can be
//! written is for those to find out who use them.

pub mod file;
mod output_limits;
pub mod parameters;
mod units;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, ValueEnum};
use serde::Serialize;
use shard::{AutoTtl, DATABASES_DEFAULT, DATABASES_MAX, EventClasses};
use wal::BootId;

use crate::machine::{CpuQuota, Machine};
use file::ConfigFile;
use parameters::Value;

pub use output_limits::{OutputLimit, OutputLimits};
pub use units::{CpuList, InvalidValue, ShardCount, auto_ttl, auto_ttl_text};
pub(crate) use units::{duration_within, number_within, size, size_text};

/// When a write that is acknowledged is safe from a power cut. None of them loses an acknowledged write
/// when the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SyncMode {
    /// Before the acknowledgement: nothing is lost.
    #[value(alias = "true")] // The Go kvlite had it as a switch.
    Always,
    /// Within a second.
    #[value(name = "everysec", alias = "false")]
    EverySecond,
    /// When the kernel writes it.
    No,
}

/// By what the kernel is asked for the network and for syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Io {
    /// By io_uring where the system allows it, else by epoll.
    Auto,
    /// By io_uring.
    #[value(name = "io_uring", alias = "io-uring")]
    IoUring,
    /// By epoll.
    Epoll,
}

/// From where `DEBUG` is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DebugCommand {
    /// From nowhere.
    No,
    /// From this machine.
    Local,
    /// From everywhere.
    Yes,
}

/// The form of the server's own log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// In which run of the machine a program takes itself to be. Tests that cut the power of a file system alone say so by
/// it; other programs do not need it.
#[derive(Clone, Copy, Debug, Args)]
pub struct Boot {
    /// Boot id that counts in place of the machine's: for tests that cut the power of a file system [default: none]
    #[arg(long, env = "KVLITE_BOOT_ID", value_name = "ID", hide = true, help_heading = PERSISTENCE)]
    boot_id: Option<BootId>,
}

impl Boot {
    /// The run of the machine; `None` where it is not known.
    pub fn id(self) -> Option<BootId> {
        self.boot_id.or_else(BootId::current)
    }
}

/// The options of one server, each within its bounds and none contradicting another.
#[derive(Clone, Debug, Parser)]
#[command(name = "kvlite", version, about, max_term_width = HELP_COLUMNS, args_override_self = true)]
#[command(after_help = "Each command has its own --help; without one, the server starts.\n\
    Each option can be set by its environment variable; the flag wins.\n\
    Sizes take the suffixes k, m, g, t (powers of 1024); durations ns, us, ms, s, m, h, and without a unit \
    they are seconds.\n\
    Exit status: 0 after SIGINT, SIGTERM or SIGQUIT, 2 for a usage error, 70 after a defect of kvlite, 78 where \
    the system refuses what the server needs (io_uring, locked memory, open files, threads), 128 + n at a \
    second signal n, 1 for any other failure.")]
pub struct Config {
    /// File of options: lines of a name and a value, which the command line and the environment override, and which
    /// CONFIG REWRITE brings up to date [default: none]
    #[arg(long = "config", env = "KVLITE_CONFIG", value_name = "FILE", help_heading = NETWORK)]
    config_path: Option<PathBuf>,

    /// Name or address on which ports listen
    #[arg(long, env = "KVLITE_HOST", default_value = "localhost", help_heading = NETWORK)]
    #[arg(value_parser = units::host)]
    pub host: String,

    /// Port of the kvlite text protocol; 0 for none
    #[arg(long, env = "KVLITE_PORT", default_value_t = 6380, help_heading = NETWORK)]
    #[arg(value_parser = |text: &str| units::number_within::<u16>(text, PORT_BOUNDS))]
    pub port: u16,

    /// Port of the Redis protocol (RESP2 and RESP3); 0 for none
    #[arg(long, env = "KVLITE_RESP_PORT", default_value_t = 6379, value_name = "PORT")]
    #[arg(value_parser = |text: &str| units::number_within::<u16>(text, PORT_BOUNDS))]
    #[arg(help_heading = NETWORK)]
    pub resp_port: u16,

    /// Path of a Unix socket for the Redis protocol [default: none]
    #[arg(long, env = "KVLITE_UNIX_SOCKET", value_name = "PATH", help_heading = NETWORK)]
    pub unix_socket: Option<PathBuf>,

    /// Port of a page, metrics and health over HTTP: /, /metrics, /livez, /readyz, /healthz; 0 for none
    #[arg(long, env = "KVLITE_ADMIN_PORT", default_value_t = 0, value_name = "PORT")]
    #[arg(value_parser = |text: &str| units::number_within::<u16>(text, PORT_BOUNDS))]
    #[arg(help_heading = NETWORK)]
    pub admin_port: u16,

    /// Name or address on which that port listens instead of --host
    #[arg(long, env = "KVLITE_ADMIN_HOST", help_heading = NETWORK)]
    #[arg(value_parser = units::host)]
    admin_host: Option<String>,

    /// File whose first line is the password that / and /metrics of that port ask for, of the user admin [default:
    /// none, and they ask for none]
    #[arg(long, env = "KVLITE_ADMIN_PASSWORD_FILE", value_name = "FILE", help_heading = NETWORK)]
    pub admin_password_file: Option<PathBuf>,

    /// Clients connected at the same time, at most, 0 to 1000000; lowered to what the limit of open files allows; 0
    /// for as many as it allows
    #[arg(long, env = "KVLITE_MAX_CONNECTIONS", default_value_t = 10_000, value_name = "N")]
    #[arg(value_parser = |text: &str| units::number_within::<u32>(text, 0..=CONNECTIONS_MAX.into()))]
    #[arg(help_heading = NETWORK)]
    pub max_connections: u32,

    /// Requests of one client that are taken in while it cannot be served, past which it is not read from; a single
    /// request may be larger; 16k to 1g
    #[arg(long, env = "KVLITE_CLIENT_QUERY_BUFFER_LIMIT", default_value = "64k", value_name = "BYTES")]
    #[arg(value_parser = |text: &str| units::size_within(text, CLIENT_BUFFER_BOUNDS))]
    #[arg(help_heading = NETWORK)]
    pub client_query_buffer_limit: u64,

    /// Replies of one client that wait until it reads, past which it is not served further; a single reply may be
    /// larger; 16k to 1g
    #[arg(long, env = "KVLITE_CLIENT_REPLY_BUFFER_LIMIT", default_value = "1m", value_name = "BYTES")]
    #[arg(value_parser = |text: &str| units::size_within(text, CLIENT_BUFFER_BOUNDS))]
    #[arg(help_heading = NETWORK)]
    pub client_reply_buffer_limit: u64,

    /// Messages that wait for a subscriber that does not read them: past the first size it is disconnected, past the
    /// second one after so many seconds; limits of other classes than pubsub are taken and have no effect
    #[arg(long, env = "KVLITE_CLIENT_OUTPUT_BUFFER_LIMIT", default_value = "pubsub 32mb 8mb 60")]
    #[arg(value_parser = output_limits::output_limits, value_name = "LIMITS", help_heading = NETWORK)]
    pub client_output_buffer_limit: OutputLimits,

    /// How long a client may stop in the middle of a request, or not read its replies while it waits to send more,
    /// before it is disconnected; up to 24h; 0 for ever
    #[arg(long, env = "KVLITE_REQUEST_TIMEOUT", default_value = "60s", value_name = "DURATION")]
    #[arg(value_parser = |text: &str| units::duration_within(text, REQUEST_TIMEOUT_BOUNDS))]
    #[arg(help_heading = NETWORK)]
    pub request_timeout: Duration,

    /// From where DEBUG is taken, by which a client can stop a shard for a while: no, local (this machine) or yes
    #[arg(long, env = "KVLITE_ENABLE_DEBUG_COMMAND", default_value = "no", value_name = "WHERE")]
    #[arg(value_enum, hide_possible_values = true, help_heading = NETWORK)]
    pub enable_debug_command: DebugCommand,
    /// How long a client may do nothing before it is disconnected, in whole seconds; 0 for ever
    #[arg(long, env = "KVLITE_TIMEOUT", default_value = "0", value_name = "DURATION")]
    #[arg(value_parser = |text: &str| units::duration_within(text, SECONDS_BOUNDS))]
    #[arg(help_heading = NETWORK)]
    pub timeout: Duration,

    /// How long a connection may be silent before the system asks whether its other end is still there, in whole
    /// seconds; 0 for ever
    #[arg(long, env = "KVLITE_TCP_KEEPALIVE", default_value = "300s", value_name = "DURATION")]
    #[arg(value_parser = |text: &str| units::duration_within(text, SECONDS_BOUNDS))]
    #[arg(help_heading = NETWORK)]
    pub tcp_keepalive: Duration,

    /// How the kernel is asked for network and syncs: io_uring, epoll, or auto (io_uring where the system allows it,
    /// else epoll)
    #[arg(long, env = "KVLITE_IO", default_value = "auto", value_name = "BACKEND", help_heading = NETWORK)]
    #[arg(value_enum, hide_possible_values = true)]
    pub io: Io,

    /// Directory of the log and the snapshots
    #[arg(long, env = "KVLITE_WAL_PATH", default_value = "./kvlite-data", value_name = "DIR")]
    #[arg(help_heading = PERSISTENCE)]
    pub wal_path: PathBuf,

    /// Whether to remove at the start what earlier starts cut off the logs and kept aside; the bare flag means true
    #[arg(long, env = "KVLITE_DISCARD_CUT", default_value = "false", default_missing_value = "true")]
    #[arg(action = clap::ArgAction::Set, value_parser = units::boolean, num_args = 0..=1)]
    #[arg(hide_possible_values = true, value_name = "BOOL", help_heading = PERSISTENCE)]
    pub discard_cut: bool,

    /// In which run of the machine the server starts; for tests.
    #[command(flatten)]
    pub boot: Boot,

    /// Directory below which BACKUP writes [default: none, and BACKUP is refused]
    #[arg(long, env = "KVLITE_BACKUP_DIR", value_name = "DIR", help_heading = PERSISTENCE)]
    pub backup_dir: Option<PathBuf>,

    /// When a write reaches the disk: always (before its reply), everysec (within a second) or no (when the
    /// kernel likes); the bare flag means always
    #[arg(long, env = "KVLITE_SYNC_MODE", default_value = "everysec", default_missing_value = "always")]
    #[arg(value_enum, hide_possible_values = true, num_args = 0..=1, value_name = "MODE")]
    #[arg(help_heading = PERSISTENCE)]
    pub sync_mode: SyncMode,

    /// How long a disk may hang or fail before the clients that wait for it are told that the outcome is unknown; 100ms
    /// to 24h
    #[arg(long, env = "KVLITE_DISK_TIMEOUT", default_value = "10s", value_name = "DURATION")]
    #[arg(value_parser = |text: &str| units::duration_within(text, DISK_TIMEOUT_BOUNDS))]
    #[arg(help_heading = PERSISTENCE)]
    pub disk_timeout: Duration,

    /// Changes in the log, over all shards, from which on it is compacted; 0 for no limit
    #[arg(long, env = "KVLITE_MAX_WAL_ENTRIES", default_value_t = 10_000_000, value_name = "N")]
    #[arg(value_parser = |text: &str| units::number_within::<u64>(text, 0..=u64::MAX))]
    #[arg(help_heading = PERSISTENCE)]
    pub max_wal_entries: u64,

    /// Size of the log, over all shards, from which on it is compacted; 0 for no limit
    #[arg(long, env = "KVLITE_MAX_WAL_SIZE", default_value = "1g", value_name = "BYTES")]
    #[arg(value_parser = units::size, help_heading = PERSISTENCE)]
    pub max_wal_size: u64,

    /// Size of one log file; 64k to 4g
    #[arg(long, env = "KVLITE_WAL_SEGMENT_SIZE", default_value = "64m", value_name = "BYTES")]
    #[arg(value_parser = |text: &str| units::size_within(text, SEGMENT_SIZE_BOUNDS))]
    #[arg(help_heading = PERSISTENCE)]
    pub wal_segment_size: u64,

    /// Time between two looks at whether the log is to be compacted; 10ms to 24h
    #[arg(long, env = "KVLITE_COMPACT_INTERVAL", default_value = "60s", value_name = "DURATION")]
    #[arg(value_parser = |text: &str| units::duration_within(text, INTERVAL_BOUNDS))]
    #[arg(help_heading = PERSISTENCE)]
    pub compact_interval: Duration,

    /// Shards of the keyspace, 1 to 1024, each with one thread; auto for one per CPU of --cpus, and no more than a CPU
    /// quota of the control group keeps running
    #[arg(long, env = "KVLITE_SHARDS", default_value = "auto", value_name = "N", help_heading = CORES)]
    shards: ShardCount,

    /// Databases that clients can SELECT, 1 to 1024; those that are not used cost nothing
    #[arg(long, env = "KVLITE_DATABASES", default_value_t = DATABASES_DEFAULT, value_name = "N")]
    #[arg(value_parser = |text: &str| units::number_within::<u16>(text, 1..=DATABASES_MAX.into()))]
    #[arg(help_heading = CORES)]
    pub databases: u16,

    /// CPUs to run on, such as 0-3,6; each shard is bound to one [default: those that the process may use, and shards
    /// are bound only if there is one for each]
    #[arg(long, env = "KVLITE_CPUS", value_name = "LIST", help_heading = CORES)]
    cpus: Option<CpuList>,

    /// Microseconds for which an idle shard spins before it sleeps, 0 to 100: faster answers for more CPU time
    #[arg(long, env = "KVLITE_SPIN_US", default_value_t = 0, value_name = "US", help_heading = CORES)]
    #[arg(value_parser = |text: &str| units::number_within::<u8>(text, 0..=100))]
    pub spin_us: u8,

    /// Whether the server counts how keys are used, true or false; the bare flag means true
    #[arg(long, env = "KVLITE_ENABLE_ANALYTICS", default_value = "true", default_missing_value = "true")]
    #[arg(action = clap::ArgAction::Set, value_parser = units::boolean, num_args = 0..=1)]
    #[arg(hide_possible_values = true, value_name = "BOOL", help_heading = ANALYTICS)]
    pub enable_analytics: bool,

    /// How long a script may run before other clients are told that the server is busy; without a unit, as in Redis,
    /// milliseconds; 0 for ever
    #[arg(long, env = "KVLITE_BUSY_REPLY_THRESHOLD", default_value = "5s", value_name = "DURATION")]
    #[arg(value_parser = units::milliseconds, help_heading = CORES)]
    pub busy_reply_threshold: Duration,

    /// TTLs of keys that are written without one: pairs of a glob pattern and a duration, such as
    /// 'session:* 1h cache:* 5m'; the first pattern that matches counts [default: none]
    #[arg(long, env = "KVLITE_AUTO_TTL", value_name = "PAIRS", help_heading = ANALYTICS)]
    #[arg(value_parser = units::auto_ttl)]
    pub auto_ttl: Option<AutoTtl>,

    /// Which events of keys are published as messages: letters of K (on __keyspace@DB__:KEY), E (on
    /// __keyevent@DB__:EVENT), g (any command on keys), $ (on strings), x (expired), e (evicted), n (new), m (missed),
    /// A (for all but n and m) [default: none]
    #[arg(long, env = "KVLITE_NOTIFY_KEYSPACE_EVENTS", value_name = "LETTERS")]
    #[arg(value_parser = units::event_classes, help_heading = ANALYTICS)]
    pub notify_keyspace_events: Option<EventClasses>,

    /// Keys of which clients keep copies (CLIENT TRACKING), at most; past that, some count as changed; 0 for no limit
    #[arg(long, env = "KVLITE_TRACKING_TABLE_MAX_KEYS", default_value_t = 1_000_000, value_name = "N")]
    #[arg(value_parser = |text: &str| units::number_within::<u64>(text, 0..=u64::MAX))]
    #[arg(help_heading = ANALYTICS)]
    pub tracking_table_max_keys: u64,

    /// Time between two searches for expired keys, whose memory they free; 10ms to 24h
    #[arg(long, env = "KVLITE_TTL_CHECK_INTERVAL", default_value = "100ms", value_name = "DURATION")]
    #[arg(value_parser = |text: &str| units::duration_within(text, INTERVAL_BOUNDS))]
    #[arg(help_heading = ANALYTICS)]
    pub ttl_check_interval: Duration,

    /// Microseconds from which on a command is kept for SLOWLOG; 0 for every command, -1 for none
    #[arg(long, env = "KVLITE_SLOWLOG_LOG_SLOWER_THAN", default_value_t = 10_000, value_name = "US")]
    #[arg(allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..), help_heading = LOGGING)]
    pub slowlog_log_slower_than: i64,

    /// How many commands SLOWLOG keeps, the newest, 0 to 100000
    #[arg(long, env = "KVLITE_SLOWLOG_MAX_LEN", default_value_t = 128, value_name = "N")]
    #[arg(value_parser = |text: &str| units::number_within::<u64>(text, SLOWLOG_LEN_BOUNDS), help_heading = LOGGING)]
    pub slowlog_max_len: u64,

    /// Milliseconds from which on a command is an event of LATENCY; 0 for none
    #[arg(long, env = "KVLITE_LATENCY_MONITOR_THRESHOLD", default_value_t = 0, value_name = "MS")]
    #[arg(value_parser = |text: &str| units::number_within::<u64>(text, 0..=LATENCY_MS_MAX), help_heading = LOGGING)]
    pub latency_monitor_threshold: u64,

    /// Least severe level that is logged (error, warn, info, debug, trace, off), or a filter such as
    /// info,kvlite=debug
    #[arg(long, env = "KVLITE_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    #[arg(value_parser = units::log_filter, help_heading = LOGGING)]
    pub log_level: String,

    /// Form of the log lines on standard error: text or json
    #[arg(long, env = "KVLITE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    #[arg(value_enum, hide_possible_values = true, help_heading = LOGGING)]
    pub log_format: LogFormat,

    /// Whether the RESP port was asked for: a default port that is taken is no reason to stop.
    #[arg(skip)]
    resp_port_is_explicit: bool,

    /// The CPUs that the process may use.
    #[arg(skip)]
    usable_cpus: Vec<usize>,

    /// What the process may use of the machine.
    #[arg(skip)]
    machine: Machine,

    /// No shard is bound to a CPU.
    #[arg(skip)]
    binds_none: bool,

    /// The variables that do not count because their values begin with a scheme.
    #[arg(skip)]
    ignored_variables: Vec<IgnoredVariable>,

    /// The flags that were given with one dash, with two.
    #[arg(skip)]
    single_dash_flags: Vec<String>,

    /// What the file of `--config` says.
    #[arg(skip)]
    file: Option<ConfigFile>,

    /// What it says of parameters that the command line does not have.
    #[arg(skip)]
    file_settings: Vec<(&'static str, Value)>,
}

/// An option with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The name of its flag, without dashes.
    pub option: String,
    /// The heading under which the help shows it.
    #[serde(skip)]
    pub heading: String,
    /// As `CONFIG GET` shows it.
    pub value: String,
    /// What has set it: the flag, the variable, or `default`.
    pub origin: String,
}

/// A variable that has the name of an option's and not a value of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredVariable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// How wide the help is, at most.
pub(crate) const HELP_COLUMNS: usize = 80;

const NETWORK: &str = "Network";
const PERSISTENCE: &str = "Persistence";
const CORES: &str = "Cores";
const ANALYTICS: &str = "Analytics and expiry";
const LOGGING: &str = "Logging";

/// How many slow commands each worker may have to keep.
pub(crate) const SLOWLOG_LEN_BOUNDS: std::ops::RangeInclusive<u64> = 0..=100_000;
pub(crate) const LATENCY_MS_MAX: u64 = 86_400_000;

const PORT_BOUNDS: std::ops::RangeInclusive<u64> = 0..=65_535;

/// The greatest number of clients, whatever the limit of open files is.
pub(crate) const CONNECTIONS_MAX: u32 = 1_000_000;

const SEGMENT_SIZE_BOUNDS: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 30;
const DISK_TIMEOUT_BOUNDS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_hours(24);
const CLIENT_BUFFER_BOUNDS: std::ops::RangeInclusive<u64> = 16 << 10..=1 << 30;
const REQUEST_TIMEOUT_BOUNDS: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24);
/// As `CONFIG SET` takes them.
const SECONDS_BOUNDS: std::ops::RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(i32::MAX as u64);
const INTERVAL_BOUNDS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_hours(24);

/// The longest path that the address of a Unix socket can hold, in bytes.
const UNIX_SOCKET_PATH_BYTES_MAX: usize = 107;

/// Options that are each in order but do not go together, or not with this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// Both ports are 0, and there is no Unix socket.
    NoListener,
    /// Two flags ask for this port.
    SamePort {
        /// The options, by their fields.
        options: [&'static str; 2],
        /// The port.
        port: u16,
    },
    /// There is a password of the admin port, and no admin port.
    PasswordWithoutPort,
    /// The path of the Unix socket has this many bytes.
    UnixSocketPathTooLong(usize),
    /// `--cpus` names a CPU outside the process' affinity mask.
    CpuNotUsable {
        /// The first such CPU.
        cpu: usize,
        /// The CPUs that the process may use.
        usable: Vec<usize>,
    },
}

impl Contradiction {
    /// The options that it is about, by their fields.
    fn options(&self) -> &[&'static str] {
        match self {
            Contradiction::NoListener => &["port", "resp_port"],
            Contradiction::SamePort { options, .. } => options,
            Contradiction::PasswordWithoutPort => &["admin_password_file", "admin_port"],
            Contradiction::UnixSocketPathTooLong(_) => &["unix_socket"],
            Contradiction::CpuNotUsable { .. } => &["cpus"],
        }
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Contradiction::NoListener => {
                write!(f, "no client could connect: give --port, --resp-port or --unix-socket")
            }
            Contradiction::SamePort { options, port } => {
                let [one, other] = options.map(|option| option.replace('_', "-"));
                write!(f, "--{one} and --{other} are both {port}: give each its own, or 0 to one of them")
            }
            Contradiction::PasswordWithoutPort => write!(
                f,
                "--admin-password-file guards nothing without --admin-port: give the port, or leave the file out"
            ),
            Contradiction::UnixSocketPathTooLong(bytes) => write!(
                f,
                "the path of --unix-socket has {bytes} bytes: give at most {UNIX_SOCKET_PATH_BYTES_MAX}"
            ),
            Contradiction::CpuNotUsable { cpu, usable } => {
                let usable = units::cpu_list_text(usable);
                write!(f, "--cpus names CPU {cpu}, which this process may not use: choose from {usable}")
            }
        }
    }
}

impl std::error::Error for Contradiction {}

impl Config {
    /// The options that these arguments (the first is the program's name) and the environment give to a
    /// process that may use these CPUs.
    ///
    /// # Errors
    /// What [`clap::Error`] says: an unknown flag, a value out of its bounds, options that contradict each
    /// other; or a request for the help or the version.
    pub fn parse_from_args<A: Into<OsString>>(
        args: impl IntoIterator<Item = A>,
        usable_cpus: Vec<usize>,
    ) -> Result<Config, clap::Error> {
        Config::parse_as(Config::command(), args, usable_cpus)
    }

    /// As [`Config::parse_from_args`], where `command` has the options and maybe more than those.
    ///
    /// # Errors
    /// As there.
    pub fn parse_as<A: Into<OsString>>(
        command: clap::Command,
        args: impl IntoIterator<Item = A>,
        usable_cpus: Vec<usize>,
    ) -> Result<Config, clap::Error> {
        Config::parse_with_origins(command, args, usable_cpus).map(|(config, _)| config)
    }

    /// As [`Config::parse_as`]; also what each option comes from.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn parse_with_origins<A: Into<OsString>>(
        command: clap::Command,
        args: impl IntoIterator<Item = A>,
        usable_cpus: Vec<usize>,
    ) -> Result<(Config, ArgMatches), clap::Error> {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let mut command = with_environment(command);
        let (args, single_dash_flags) = with_two_dashes(args, &command);
        let file = file_of(&args).map(|path| ConfigFile::read(&path)).transpose();
        let file = file.map_err(|error| command.error(ErrorKind::Io, error))?;
        let lines = file.as_ref().map_or(&[][..], |file| &file.lines);
        let of_options: Vec<(file::Line, String, String)> = lines
            .iter()
            .filter_map(|line| {
                let (name, value) = file::option_of_line(&command, &line.name, &line.value)?;
                Some((line.clone(), name, value))
            })
            .collect();
        let command = &mut with_defaults(command, &of_options);
        let matches = command.try_get_matches_from_mut(&args).map_err(|error| {
            let origin = |option: &str| {
                let (line, ..) = of_options.iter().rev().find(|(_, name, _)| name == option)?;
                file.as_ref().map(|file| file.place(line))
            };
            explained(error, command, &args, origin)
        })?;
        let mut config = Config::from_arg_matches(&matches).map_err(|error| error.format(command))?;
        let is_in_file = |option: &str| of_options.iter().any(|(_, name, _)| name == option);
        config.resp_port_is_explicit =
            is_in_file("resp-port") || matches.value_source("resp_port") != Some(ValueSource::DefaultValue);
        if config.max_connections == 0 {
            config.max_connections = CONNECTIONS_MAX;
        }
        config.usable_cpus = usable_cpus;
        config.ignored_variables = ignored_variables();
        config.single_dash_flags = single_dash_flags;
        if let Some(file) = &file {
            let is_option = |line: &file::Line| of_options.iter().any(|(known, ..)| known == line);
            let settings = file.settings(&config, is_option);
            config.file_settings = settings.map_err(|error| command.error(ErrorKind::InvalidValue, error))?;
        }
        config.file = file;
        match config.contradiction() {
            None => Ok((config, matches)),
            Some(contradiction) => {
                let is_from_variable = |arg: &&clap::Arg| {
                    let id = arg.get_id().as_str();
                    contradiction.options().contains(&id)
                        && matches.value_source(id) == Some(ValueSource::EnvVariable)
                };
                let variables =
                    command.get_arguments().filter(is_from_variable).filter_map(clap::Arg::get_env);
                let names: Vec<_> = variables.map(|name| name.to_string_lossy()).collect();
                let origin = match names[..] {
                    [] => String::new(),
                    _ => format!(" (from the environment: {})", names.join(", ")),
                };
                Err(command.error(ErrorKind::ArgumentConflict, format!("{contradiction}{origin}")))
            }
        }
    }

    /// Notes on which machine the server runs. Without it there is no limit but the CPUs.
    pub fn run_on(&mut self, machine: Machine) {
        self.machine = machine;
    }

    /// The machine on which the server runs.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The number of shards: as asked for, else one per CPU. A quota of CPU time lowers it to whole CPUs, since a
    /// thread that has used the quota up stands still, with its shard, until the next period begins.
    pub fn shard_count(&self) -> usize {
        let cpus = self.cpus().len();
        match self.shards {
            ShardCount::Given(count) => count.into(),
            ShardCount::Auto => self.quota_that_lowers().map_or(cpus, |quota| quota.whole_cpus()),
        }
    }

    /// What has set the number of shards: an option, the file with the quota, or the process' affinity mask.
    pub fn shards_set_by(&self) -> &'static str {
        match (self.shards, self.quota_that_lowers()) {
            (ShardCount::Given(_), _) => "--shards",
            (ShardCount::Auto, Some(quota)) => quota.file,
            (ShardCount::Auto, None) if self.cpus.is_some() => "--cpus",
            (ShardCount::Auto, None) => "affinity",
        }
    }

    /// The quota of CPU time, where it allows fewer shards than there are CPUs.
    fn quota_that_lowers(&self) -> Option<CpuQuota> {
        self.machine.cpu_quota.filter(|quota| quota.whole_cpus() < self.cpus().len())
    }

    /// The CPUs to run on, ascending, at least one.
    pub fn cpus(&self) -> &[usize] {
        self.cpus.as_ref().map_or(&self.usable_cpus, CpuList::as_slice)
    }

    /// The CPU that this shard is bound to. It is bound to none where the system knows better: without `--cpus` it may
    /// use CPUs that have no shard, and other servers on this machine would be bound to the same ones.
    pub fn cpu_of(&self, shard: usize) -> Option<usize> {
        let cpus = self.cpus();
        let is_bound = self.cpus.is_some() || self.shard_count() == cpus.len();
        (is_bound && !self.binds_none).then(|| cpus[shard % cpus.len()])
    }

    /// Whether CPUs were asked for.
    pub fn cpus_are_explicit(&self) -> bool {
        self.cpus.is_some()
    }

    /// Binds no shard to a CPU from now on.
    pub fn bind_none(&mut self) {
        self.binds_none = true;
    }

    /// The variables of the environment that have the names of options and do not count.
    pub fn ignored_variables(&self) -> &[IgnoredVariable] {
        &self.ignored_variables
    }

    /// The variables whose names begin as those of options do and are none, as one that is misspelt: sorted. Those that
    /// Kubernetes sets for a Service called kvlite are not among them.
    pub fn unknown_variables() -> Vec<String> {
        let command = Config::command();
        let is_known =
            |name: &str| command.get_arguments().any(|arg| arg.get_env().is_some_and(|env| env == name));
        let of_kubernetes =
            |name: &str| name.starts_with("KVLITE_SERVICE_") || name.starts_with("KVLITE_PORT_");
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let mut unknown: Vec<String> = names
            .filter(|name| name.starts_with("KVLITE_") && !is_known(name) && !of_kubernetes(name))
            .collect();
        unknown.sort();
        unknown
    }

    /// The flags that were given with one dash, as those of the Go kvlite were; here with two.
    pub fn single_dash_flags(&self) -> &[String] {
        &self.single_dash_flags
    }

    /// Every option that the help shows, in its order, with its value and where that comes from. `matches` are those
    /// that the options were read from.
    pub(crate) fn settings(&self, matches: &ArgMatches) -> Vec<Setting> {
        let command = Config::command();
        let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let settings = shown.filter_map(|arg| {
            let flag = arg.get_long()?;
            let (_, value) = self.option(flag.as_bytes())?;
            let origin = match matches.value_source(arg.get_id().as_str()) {
                Some(ValueSource::CommandLine) => format!("--{flag}"),
                Some(ValueSource::EnvVariable) => arg.get_env()?.to_string_lossy().into_owned(),
                _ => self.place_in_file(flag).unwrap_or_else(|| "default".to_owned()),
            };
            let heading = arg.get_help_heading().unwrap_or_default().to_owned();
            Some(Setting { option: flag.to_owned(), heading, value, origin })
        });
        settings.collect()
    }

    /// The file of `--config`.
    pub fn file(&self) -> Option<&ConfigFile> {
        self.file.as_ref()
    }

    /// The file and the line that say what an option is.
    fn place_in_file(&self, option: &str) -> Option<String> {
        let file = self.file.as_ref()?;
        let says = |line: &&file::Line| {
            let of_redis = parameters::option_of_redis(&line.name, &line.value);
            line.name == option || of_redis.is_some_and(|(name, _)| name == option)
        };
        file.lines.iter().rev().find(says).map(|line| file.place(line))
    }

    /// Whether the RESP port was given by flag or variable. If so, a port that is taken is an error; the
    /// default one that is taken only deserves a warning.
    pub fn resp_port_is_explicit(&self) -> bool {
        self.resp_port_is_explicit
    }

    /// The options of the server with these names, as a command line of their own that reads the same variables.
    pub(crate) fn command_of(names: &[&str]) -> clap::Command {
        let all = Config::command();
        let args = all.get_arguments().filter(|arg| names.contains(&arg.get_id().as_str()));
        with_environment(clap::Command::new("kvlite").args(args.cloned()))
    }

    /// Name or address on which the admin port listens.
    pub fn admin_host(&self) -> &str {
        self.admin_host.as_deref().unwrap_or(&self.host)
    }

    /// Every option as it was at the start, in the form of `CONFIG GET`, sorted by name.
    pub fn options(&self) -> Vec<(&'static str, String)> {
        let shown =
            |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let mut options = vec![
            ("admin-host", self.admin_host().to_owned()),
            ("admin-password-file", shown(&self.admin_password_file)),
            ("admin-port", self.admin_port.to_string()),
            ("auto-ttl", self.auto_ttl.as_ref().map_or(String::new(), auto_ttl_text)),
            ("backup-dir", shown(&self.backup_dir)),
            ("busy-reply-threshold", units::duration_text(self.busy_reply_threshold)),
            ("boot-id", self.boot.boot_id.map(|id| id.to_string()).unwrap_or_default()),
            ("client-output-buffer-limit", self.client_output_buffer_limit.text()),
            ("client-query-buffer-limit", self.client_query_buffer_limit.to_string()),
            ("client-reply-buffer-limit", self.client_reply_buffer_limit.to_string()),
            ("compact-interval", units::duration_text(self.compact_interval)),
            ("config", self.file.as_ref().map(|file| file.path.display().to_string()).unwrap_or_default()),
            ("cpus", units::cpu_list_text(self.cpus())),
            ("databases", self.databases.to_string()),
            ("discard-cut", self.discard_cut.to_string()),
            ("disk-timeout", units::duration_text(self.disk_timeout)),
            ("enable-debug-command", value_name(self.enable_debug_command)),
            ("enable-analytics", self.enable_analytics.to_string()),
            ("host", self.host.clone()),
            ("io", value_name(self.io)),
            ("latency-monitor-threshold", self.latency_monitor_threshold.to_string()),
            ("log-format", value_name(self.log_format)),
            ("log-level", self.log_level.clone()),
            ("max-connections", self.max_connections.to_string()),
            ("max-wal-entries", self.max_wal_entries.to_string()),
            ("max-wal-size", self.max_wal_size.to_string()),
            ("notify-keyspace-events", self.notify_keyspace_events.unwrap_or_default().text()),
            ("port", self.port.to_string()),
            ("request-timeout", units::duration_text(self.request_timeout)),
            ("resp-port", self.resp_port.to_string()),
            ("shards", self.shard_count().to_string()),
            ("slowlog-log-slower-than", self.slowlog_log_slower_than.to_string()),
            ("slowlog-max-len", self.slowlog_max_len.to_string()),
            ("spin-us", self.spin_us.to_string()),
            ("sync-mode", value_name(self.sync_mode)),
            ("tracking-table-max-keys", self.tracking_table_max_keys.to_string()),
            ("tcp-keepalive", self.tcp_keepalive.as_secs().to_string()),
            ("timeout", self.timeout.as_secs().to_string()),
            ("ttl-check-interval", units::duration_text(self.ttl_check_interval)),
            ("unix-socket", shown(&self.unix_socket)),
            ("wal-path", self.wal_path.display().to_string()),
            ("wal-segment-size", self.wal_segment_size.to_string()),
        ];
        options.sort_unstable_by_key(|(name, _)| *name);
        options
    }

    /// The option of this name, in any case, with `-` or `_` between its words.
    pub fn option(&self, name: &[u8]) -> Option<(&'static str, String)> {
        let name = option_name(name);
        self.options().into_iter().find(|(known, _)| known.as_bytes() == name)
    }

    fn contradiction(&self) -> Option<Contradiction> {
        if self.port == 0 && self.resp_port == 0 && self.unix_socket.is_none() {
            return Some(Contradiction::NoListener);
        }
        let ports = [("port", self.port), ("resp_port", self.resp_port), ("admin_port", self.admin_port)];
        for (place, (other, port)) in ports.into_iter().enumerate().filter(|(_, (_, port))| *port != 0) {
            if let Some((one, _)) = ports[..place].iter().find(|(_, earlier)| *earlier == port) {
                return Some(Contradiction::SamePort { options: [one, other], port });
            }
        }
        if self.admin_password_file.is_some() && self.admin_port == 0 {
            return Some(Contradiction::PasswordWithoutPort);
        }
        let socket_path_bytes = self.unix_socket.as_ref().map_or(0, |path| path.as_os_str().len());
        if socket_path_bytes > UNIX_SOCKET_PATH_BYTES_MAX {
            return Some(Contradiction::UnixSocketPathTooLong(socket_path_bytes));
        }
        let usable = &self.usable_cpus;
        let unusable = self.cpus().iter().find(|cpu| !usable.contains(cpu));
        unusable.map(|cpu| Contradiction::CpuNotUsable { cpu: *cpu, usable: usable.clone() })
    }
}

/// An option's name, or a pattern for names, as [`Config::options`] spells names: lower case, hyphens.
pub fn option_name(name: &[u8]) -> Vec<u8> {
    name.iter().map(|byte| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }).collect()
}

/// The CPUs that this process may use, ascending: its affinity mask, which follows `taskset` and container
/// limits. Where the mask cannot be read, as many as the system reports, counted from 0.
pub fn usable_cpus() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(mask) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| mask.is_set(*cpu)).collect(),
        Err(_) => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

/// The same command line, with the values of environment variables out of the help and those ignored that are empty or
/// begin with a scheme.
fn with_environment(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        let ignored =
            value.is_some_and(|value| value.is_empty() || units::has_scheme(&value.to_string_lossy()));
        // A value such as -1 is refused by the option's own bounds, not taken for a flag.
        let takes_value = arg.get_action().takes_values();
        let arg = arg.hide_env_values(true).allow_negative_numbers(takes_value);
        if ignored { arg.env(Resettable::Reset) } else { arg }
    })
}

/// The same arguments, where those that begin with one dash and go on as the name of a flag have two, as the Go kvlite
/// took them; and these flags. No short flag has more than a letter, so that nothing else changes its meaning: a name that
/// no flag has gets its second dash too, for the error that tells which one is like it.
fn with_two_dashes(args: Vec<OsString>, command: &clap::Command) -> (Vec<OsString>, Vec<String>) {
    let flags: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let (mut old, mut is_over) = (Vec::new(), false);
    let renamed = args.into_iter().enumerate().map(|(index, arg)| {
        is_over |= arg == "--";
        let text = arg.to_str().filter(|_| index > 0 && !is_over);
        let name = text.and_then(|text| text.strip_prefix('-')?.split('=').next());
        let is_flag = name.is_some_and(|name| flags.contains(&name));
        let is_word = name.is_some_and(|name| {
            name.len() > 2 && name.starts_with(|first: char| first.is_ascii_alphabetic())
        });
        if !is_flag && !is_word {
            return arg;
        }
        if is_flag {
            old.push(format!("--{}", name.unwrap_or_default()));
        }
        let mut renamed = OsString::from("-");
        renamed.push(&arg);
        renamed
    });
    (renamed.collect(), old)
}

/// The file that `--config` or its variable names, which is read before the other options are.
fn file_of(args: &[OsString]) -> Option<PathBuf> {
    let mut given = None;
    let mut args = args.iter().skip(1);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--config") => given = args.next().map(PathBuf::from),
            Some(text) => {
                if let Some(path) = text.strip_prefix("--config=") {
                    given = Some(path.into());
                }
            }
            None => {}
        }
    }
    let counts = |path: &OsString| !path.is_empty() && !units::has_scheme(&path.to_string_lossy());
    // One without a name is refused with the other options.
    let given = given.filter(|path: &PathBuf| !path.as_os_str().is_empty());
    given.or_else(|| std::env::var_os("KVLITE_CONFIG").filter(counts).map(PathBuf::from))
}

/// The same command line, where the lines of a file are the defaults.
fn with_defaults(command: clap::Command, lines: &[(file::Line, String, String)]) -> clap::Command {
    command.mut_args(|arg| {
        let line = lines.iter().rev().find(|(_, name, _)| arg.get_long() == Some(name.as_str()));
        match line {
            Some((.., value)) => arg.default_value(clap::builder::OsStr::from(&*value.clone().leak())),
            None => arg,
        }
    })
}

fn ignored_variables() -> Vec<IgnoredVariable> {
    let command = Config::command();
    let names = command.get_arguments().filter_map(|arg| arg.get_env());
    let variables = names.filter_map(|name| {
        let value = std::env::var_os(name)?.to_string_lossy().into_owned();
        units::has_scheme(&value)
            .then(|| IgnoredVariable { name: name.to_string_lossy().into_owned(), value })
    });
    variables.collect()
}

/// The error with what there is to do about it, where clap does not tell.
fn explained(
    error: clap::Error,
    command: &mut clap::Command,
    args: &[OsString],
    place_in_file: impl Fn(&str) -> Option<String>,
) -> clap::Error {
    match (error.kind(), error.get(ContextKind::InvalidSubcommand)) {
        // A word behind options is taken for a command.
        (ErrorKind::ArgumentConflict, Some(ContextValue::String(word)))
            if command.find_subcommand(word).is_none() =>
        {
            let what = format!(
                "unexpected word '{word}': options begin with --, and a value of several words stands in quotes, \
                 such as --auto-ttl 'session:* 1h cache:* 5m'"
            );
            command.error(ErrorKind::UnknownArgument, what)
        }
        (ErrorKind::InvalidUtf8, _) => match variable_that_is_no_text(command, args) {
            Some(name) => {
                let what = format!("the value of the environment variable {name} is not UTF-8");
                command.error(ErrorKind::InvalidUtf8, what)
            }
            None => error,
        },
        _ => with_origin_named(error, command, args, place_in_file),
    }
}

/// The first variable that counts and is not UTF-8, although its option takes text.
fn variable_that_is_no_text(command: &clap::Command, args: &[OsString]) -> Option<String> {
    let is_no_text = |arg: &&clap::Arg| {
        let takes_path = arg.get_value_parser().type_id() == std::any::TypeId::of::<PathBuf>();
        let value = arg.get_env().and_then(std::env::var_os);
        let is_given = arg.get_long().is_some_and(|name| is_given(&format!("--{name}"), args));
        !takes_path && !is_given && value.is_some_and(|value| value.to_str().is_none())
    };
    let name = command.get_arguments().find(is_no_text)?.get_env()?;
    Some(name.to_string_lossy().into_owned())
}

fn is_given(flag: &str, args: &[OsString]) -> bool {
    args.iter().any(|arg| arg.to_string_lossy().split('=').next() == Some(flag))
}

/// Adds to the error about an option whose flag was not given which variable its value came from, or which line.
fn with_origin_named(
    mut error: clap::Error,
    command: &clap::Command,
    args: &[OsString],
    place_in_file: impl Fn(&str) -> Option<String>,
) -> clap::Error {
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) {
        let value = units::quoted(value);
        error.insert(ContextKind::InvalidValue, ContextValue::String(value));
    }
    let Some(ContextValue::String(usage)) = error.get(ContextKind::InvalidArg) else { return error };
    let flag = usage.split([' ', '[']).next().unwrap_or_default().trim_end_matches('=');
    let mut known = command.get_arguments();
    let variable = known.find(|arg| arg.get_long() == flag.strip_prefix("--")).and_then(|arg| arg.get_env());
    let is_set = |variable: &&std::ffi::OsStr| std::env::var_os(variable).is_some();
    let origin = match (is_given(flag, args), variable.filter(is_set)) {
        (true, _) => None,
        (false, Some(variable)) => Some(format!("the environment variable {}", variable.display())),
        (false, None) => place_in_file(flag.trim_start_matches('-')),
    };
    if let Some(origin) = origin {
        let tip = format!("the value is that of {origin}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// The name of a value, as it is given on the command line.
pub(crate) fn value_name<V: ValueEnum + Copy>(value: V) -> String {
    value.to_possible_value().expect("no value is hidden").get_name().to_owned()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn parse(args: &str) -> Result<Config, clap::Error> {
        let args = std::iter::once("kvlite").chain(args.split_whitespace());
        Config::parse_from_args(args, vec![0, 1, 2, 5])
    }

    fn error(args: &str) -> String {
        let error = parse(args).expect_err(args);
        assert_eq!(error.exit_code(), 2, "{args}");
        error.to_string()
    }

    #[test]
    fn the_command_line_is_sound() {
        Config::command().debug_assert();
    }

    #[test]
    fn every_option_has_its_variable_its_heading_and_its_line_in_config_get() {
        let options = parse("").unwrap().options();
        let command = with_environment(Config::command());
        for arg in command.get_arguments() {
            let Some(flag) = arg.get_long() else { panic!("{arg} has no flag") };
            let variable = format!("KVLITE_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(variable.as_str()), "--{flag}");
            assert!(arg.get_help_heading().is_some(), "--{flag} stands under no heading");
            assert!(options.iter().any(|(name, _)| *name == flag), "CONFIG GET does not show {flag}");
        }
        assert!(options.is_sorted_by(|a, b| a.0 < b.0), "sorted, and no name twice");
    }

    #[test]
    fn shards_are_bound_to_cpus_only_where_each_has_one_or_they_are_asked_for() {
        let bound = |args: &str| {
            let config = parse(args).unwrap();
            (0..config.shard_count()).map(|shard| config.cpu_of(shard)).collect::<Vec<_>>()
        };
        assert_eq!(bound(""), [Some(0), Some(1), Some(2), Some(5)]);
        assert_eq!(bound("--shards 4"), [Some(0), Some(1), Some(2), Some(5)]);
        assert_eq!(bound("--shards 1"), [None]);
        assert_eq!(bound("--shards 3"), [None; 3]);
        assert_eq!(bound("--shards 5"), [None; 5]);
        assert_eq!(bound("--shards 1 --cpus 5"), [Some(5)]);
        assert_eq!(bound("--shards 3 --cpus 1-2"), [Some(1), Some(2), Some(1)]);
    }

    #[test]
    fn a_quota_of_cpu_time_lowers_the_number_of_shards_and_binds_them_to_no_cpu() {
        let limited = |args: &str, cpus: f64| {
            let mut config = parse(args).unwrap();
            config.run_on(Machine {
                cpu_quota: Some(CpuQuota { cpus, file: "cpu.max" }),
                ..Machine::default()
            });
            (config.shard_count(), config.cpu_of(0), config.shards_set_by())
        };
        assert_eq!(limited("", 2.5), (2, None, "cpu.max"));
        assert_eq!(limited("--shards auto", 0.5), (1, None, "cpu.max"));
        assert_eq!(limited("", 4.0), (4, Some(0), "affinity"));
        assert_eq!(limited("", 64.0), (4, Some(0), "affinity"));
        assert_eq!(limited("--cpus 1-2", 1.0), (1, Some(1), "cpu.max"));
        assert_eq!(limited("--cpus 1-2", 2.0), (2, Some(1), "--cpus"));
        assert_eq!(limited("--shards 4", 1.0), (4, Some(0), "--shards"));
        assert_eq!(parse("").unwrap().shards_set_by(), "affinity");
    }

    #[test]
    fn defaults() {
        let config = parse("").unwrap();
        let shown = |name: &str| config.option(name.as_bytes()).map(|(_, value)| value).unwrap();
        for (name, value) in [
            ("host", "localhost"),
            ("port", "6380"),
            ("resp-port", "6379"),
            ("unix-socket", ""),
            ("max-connections", "10000"),
            ("wal-path", "./kvlite-data"),
            ("sync-mode", "everysec"),
            ("disk-timeout", "10s"),
            ("max-wal-entries", "10000000"),
            ("max-wal-size", "1073741824"),
            ("wal-segment-size", "67108864"),
            ("compact-interval", "60s"),
            ("client-query-buffer-limit", "65536"),
            ("client-reply-buffer-limit", "1048576"),
            ("request-timeout", "60s"),
            ("shards", "4"),
            ("cpus", "0-2,5"),
            ("spin-us", "0"),
            ("enable-analytics", "true"),
            ("busy-reply-threshold", "5s"),
            ("ttl-check-interval", "100ms"),
            ("log-level", "info"),
            ("log-format", "text"),
        ] {
            assert_eq!(shown(name), value, "{name}");
        }
        assert!(!config.resp_port_is_explicit());
    }

    #[test]
    fn flags_set_their_options() {
        let config = parse(
            "--host ::1 --port 7000 --resp-port=6379 --unix-socket /tmp/k.sock --max-connections 7 \
             --wal-path /d --disk-timeout 500ms --max-wal-entries 0 --max-wal-size 2gib --wal-segment-size 1m \
             --compact-interval 1h30m --shards 3 --cpus 1,5 --spin-us 100 --ttl-check-interval 1s --busy-reply-threshold 50ms \
             --log-level warn,kvlite=trace --log-format json",
        )
        .unwrap();
        assert_eq!((config.host.as_str(), config.port, config.resp_port), ("::1", 7000, 6379));
        assert!(config.resp_port_is_explicit(), "the default's number, but asked for");
        assert_eq!(config.unix_socket, Some(PathBuf::from("/tmp/k.sock")));
        assert_eq!(config.disk_timeout, Duration::from_millis(500));
        assert_eq!((config.max_connections, config.max_wal_entries), (7, 0));
        assert_eq!((config.max_wal_size, config.wal_segment_size), (2 << 30, 1 << 20));
        assert_eq!(config.wal_path, PathBuf::from("/d"));
        assert_eq!(config.compact_interval, Duration::from_mins(90));
        assert_eq!((config.shard_count(), config.cpus(), config.spin_us), (3, [1, 5].as_slice(), 100));
        assert_eq!(config.ttl_check_interval, Duration::from_secs(1));
        assert_eq!(config.busy_reply_threshold, Duration::from_millis(50));
        assert_eq!((config.log_level.as_str(), config.log_format), ("warn,kvlite=trace", LogFormat::Json));
    }

    #[test]
    fn one_shard_per_chosen_cpu() {
        assert_eq!(parse("--cpus 0,5").unwrap().shard_count(), 2);
    }

    #[test]
    fn flags_that_may_stand_without_a_value() {
        assert_eq!(parse("--sync-mode").unwrap().sync_mode, SyncMode::Always);
        assert_eq!(parse("--sync-mode --port 7000").unwrap().sync_mode, SyncMode::Always);
        assert_eq!(parse("--sync-mode no").unwrap().sync_mode, SyncMode::No);
        assert_eq!(parse("--sync-mode=everysec").unwrap().sync_mode, SyncMode::EverySecond);
        assert!(parse("--enable-analytics").unwrap().enable_analytics);
        assert!(!parse("--enable-analytics=false").unwrap().enable_analytics);
        assert!(!parse("--enable-analytics off").unwrap().enable_analytics);
    }

    #[test]
    fn every_flag_may_begin_with_one_dash_as_those_of_the_go_kvlite_did() {
        let go = "-host ::1 -port=7000 -max-connections 7 -wal-path /d -sync-mode -max-wal-entries 5 -max-wal-size 6 \
            -compact-interval 1m0s -ttl-check-interval 1s -enable-analytics=false";
        let config = parse(go).unwrap();
        assert_eq!(
            config.options(),
            parse(&go.replace(" -", " --").replacen('-', "--", 1)).unwrap().options()
        );
        assert_eq!((config.host.as_str(), config.port, config.sync_mode), ("::1", 7000, SyncMode::Always));
        assert_eq!(config.single_dash_flags().len(), 10);
        assert_eq!(config.single_dash_flags()[..2], ["--host", "--port"]);
        for arg in Config::command().get_arguments() {
            let flag = arg.get_long().unwrap();
            let error = error(&format!("-{flag}= --unknown"));
            assert!(error.contains(&format!("--{flag}")) || error.contains("--unknown"), "{error}");
        }
        for (text, mode) in [("true", SyncMode::Always), ("false", SyncMode::EverySecond)] {
            assert_eq!(parse(&format!("-sync-mode={text}")).unwrap().sync_mode, mode);
        }
    }

    #[test]
    fn what_begins_with_a_dash_and_is_no_name_of_a_flag_keeps_its_meaning() {
        assert_eq!(parse("--wal-path=-port").unwrap().wal_path, PathBuf::from("-port"));
        assert_eq!(parse("-wal-path=-port").unwrap().wal_path, PathBuf::from("-port"));
        assert!(parse("--port 7000").unwrap().single_dash_flags().is_empty());
        assert!(error("-max-connections -1").contains("give a whole number from 0 to 1000000"));
        assert!(error("-prot 7000").contains("a similar argument exists: '--port'"));
        assert!(error("--wal-path -port").contains("--wal-path"));
        for help in ["-h", "-help", "-V", "-version"] {
            assert_eq!(parse(help).unwrap_err().exit_code(), 0, "{help}");
        }
    }

    #[test]
    fn a_setting_tells_where_it_comes_from() {
        let args = ["kvlite", "--port", "7000", "-spin-us=5"];
        let (config, matches) = Config::parse_with_origins(Config::command(), args, vec![0, 1]).unwrap();
        let settings = config.settings(&matches);
        let shown = Config::command().get_arguments().filter(|arg| !arg.is_hide_set()).count();
        assert_eq!(settings.len(), shown);
        let origin = |option: &str| {
            let setting = settings.iter().find(|setting| setting.option == option).unwrap();
            (setting.value.as_str(), setting.origin.as_str(), setting.heading.as_str())
        };
        assert_eq!(origin("port"), ("7000", "--port", NETWORK));
        assert_eq!(origin("spin-us"), ("5", "--spin-us", CORES));
        assert_eq!(origin("shards"), ("2", "default", CORES));
    }

    #[test]
    fn the_last_of_several_flags_wins() {
        assert_eq!(parse("--port 7000 --port 7001").unwrap().port, 7001);
    }

    #[test]
    fn a_port_of_zero_is_no_listener() {
        assert_eq!(parse("--port 0").unwrap().port, 0);
        assert_eq!(parse("--resp-port 0").unwrap().resp_port, 0);
        assert!(parse("--port 0 --resp-port 0 --unix-socket /tmp/k.sock").is_ok());
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        for (args, text) in [
            ("--port 0 --resp-port 0", "give --port, --resp-port or --unix-socket"),
            ("--port 7000 --resp-port 7000", "--port and --resp-port are both 7000"),
            ("--resp-port 7000 --admin-port 7000", "--resp-port and --admin-port are both 7000"),
            ("--admin-password-file password", "--admin-password-file guards nothing without --admin-port"),
            ("--cpus 0,3", "--cpus names CPU 3, which this process may not use: choose from 0-2,5"),
            ("--cpus 2-1", "such as 0-3,6"),
            (
                "--shards 0",
                "invalid value '0' for '--shards <N>': give a whole number from 1 to 1024, or auto",
            ),
            ("--shards 1025", "give a whole number from 1 to 1024, or auto"),
            ("--shards many", "give a whole number from 1 to 1024, or auto"),
            ("--spin-us 101", "give a whole number from 0 to 100"),
            ("--max-connections -1", "give a whole number from 0 to 1000000"),
            ("--max-connections 1000001", "give a whole number from 0 to 1000000"),
            ("--max-wal-entries many", "give a whole number from 0 on"),
            ("--port 65536", "give a whole number from 0 to 65535"),
            ("--port abc", "invalid value 'abc' for '--port <PORT>': give a whole number from 0 to 65535"),
            ("--resp-port 1.5", "give a whole number from 0 to 65535"),
            ("--sync-mode sometimes", "[possible values: always, everysec, no]"),
            ("--enable-analytics=perhaps", "write true or false"),
            ("--max-wal-size 1.5g", "such as 1073741824, 64k, 64mib or 1g"),
            ("--wal-segment-size 4k", "give from 65536 to 4294967296 bytes"),
            ("--compact-interval soon", "such as 60, 500ms, 60s, 5m or 1h30m"),
            ("--compact-interval 0", "give a duration from 10ms to 86400s"),
            (
                "--busy-reply-threshold 9223372036854775808",
                "give a duration from 0s to 9223372036854775807ms",
            ),
            ("--timeout 2147483648", "give a duration from 0s to 2147483647s"),
            ("--ttl-check-interval 25h", "give a duration from 10ms to 86400s"),
            ("--log-level loud", "'loud' is neither a level"),
            ("--log-format xml", "[possible values: text, json]"),
            ("--host=", "give one host name or address"),
            ("--prot 7000", "--port"),
        ] {
            let error = error(args);
            assert!(error.contains(text), "{args}: {error}");
        }
        let long_path = format!("--unix-socket /{}", "s".repeat(UNIX_SOCKET_PATH_BYTES_MAX));
        assert!(error(&long_path).contains("has 108 bytes: give at most 107"));
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for args in ["--help", "-h", "--version", "-V"] {
            assert_eq!(parse(args).unwrap_err().exit_code(), 0, "{args}");
        }
    }

    #[test]
    fn no_limit_of_connections_is_the_greatest_one() {
        assert_eq!(parse("--max-connections 0").unwrap().max_connections, CONNECTIONS_MAX);
    }

    #[test]
    fn option_names_are_found_in_every_spelling() {
        let config = parse("--sync-mode").unwrap();
        for name in ["max-connections", "max_connections", "MAX_CONNECTIONS"] {
            assert_eq!(
                config.option(name.as_bytes()),
                Some(("max-connections", "10000".to_owned())),
                "{name}"
            );
        }
        assert_eq!(config.option(b"sync-mode"), Some(("sync-mode", "always".to_owned())));
        assert_eq!(config.option(b"nope"), None);
    }

    #[test]
    fn the_process_may_use_at_least_one_cpu() {
        assert!(!usable_cpus().is_empty());
        assert!(usable_cpus().is_sorted());
    }

    /// The environment of a process is fixed while its threads run, so these tests look at it from a child:
    /// this very test binary, asked to run the test below it alone.
    fn in_child(variables: &[(&str, impl AsRef<OsStr>)], args: &str) -> String {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "config::tests::child_of_the_environment_tests", "--nocapture"]);
        // Those of the shell that runs the tests are none of theirs.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KVLITE_"))
        {
            child.env_remove(name);
        }
        child.env("CONFIG_TEST_ARGS", args).envs(variables.iter().map(|(name, value)| (name, value)));
        String::from_utf8(child.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn child_of_the_environment_tests() {
        let Ok(args) = std::env::var("CONFIG_TEST_ARGS") else { return };
        match parse(&args) {
            Ok(config) => {
                println!("{:?} explicit={}", config.options(), config.resp_port_is_explicit());
                config.ignored_variables().iter().for_each(|variable| println!("{variable:?}"));
                println!("unknown: {:?}", Config::unknown_variables());
            }
            Err(error) => println!("{error}"),
        }
    }

    #[test]
    fn variables_that_are_misspelt_are_told() {
        let of_kubernetes =
            [("KVLITE_SERVICE_HOST", "10.0.0.1"), ("KVLITE_PORT_6380_TCP", "tcp://10.0.0.1:6380")];
        let shown = in_child(&of_kubernetes, "");
        assert!(shown.contains("unknown: []"), "{shown}");
        let shown = in_child(&[("KVLITE_SYNC_MOD", "always"), ("KVLITE_SYNC_MODE", "no")], "");
        assert!(shown.contains(r#"unknown: ["KVLITE_SYNC_MOD"]"#), "{shown}");
    }

    #[test]
    fn variables_set_options() {
        let shown =
            in_child(&[("KVLITE_PORT", "7000"), ("KVLITE_SYNC_MODE", "no"), ("KVLITE_CPUS", "1")], "");
        for text in [r#"("port", "7000")"#, r#"("sync-mode", "no")"#, r#"("cpus", "1")"#, "explicit=false"] {
            assert!(shown.contains(text), "{text} is missing: {shown}");
        }
        assert!(in_child(&[("KVLITE_RESP_PORT", "6379")], "").contains("explicit=true"));
    }

    #[test]
    fn a_variable_that_is_not_utf_8_is_named() {
        let not_utf_8: &OsStr = OsStrExt::from_bytes(b"/\xff");
        let variables = [("KVLITE_WAL_PATH", not_utf_8), ("KVLITE_SHARDS", not_utf_8)];
        let shown = in_child(&variables, "");
        assert!(shown.contains("the environment variable KVLITE_SHARDS is not UTF-8"), "{shown}");
        assert!(in_child(&variables, "--shards 2").contains(r#"("shards", "2")"#));
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_an_empty_variable_is_none() {
        let shown = in_child(&[("KVLITE_PORT", "7000"), ("KVLITE_RESP_PORT", "")], "--port 7001");
        assert!(shown.contains(r#"("port", "7001")"#), "{shown}");
        assert!(shown.contains(r#"("resp-port", "6379")"#) && shown.contains("explicit=false"), "{shown}");
    }

    #[test]
    fn a_variable_with_a_scheme_is_none_and_is_told_of() {
        let args: Vec<_> = Config::command().get_arguments().cloned().collect();
        for name in args.iter().filter_map(|arg| arg.get_env().and_then(|name| name.to_str())) {
            for value in ["tcp://10.96.0.12:6380", "udp://[fd00::1]:53"] {
                let shown = in_child(&[(name, value)], "");
                assert!(shown.contains("explicit=false"), "{name}: {shown}");
                let ignored = IgnoredVariable { name: name.to_owned(), value: value.to_owned() };
                assert!(shown.contains(&format!("{ignored:?}")), "{shown}");
            }
        }
        let shown = in_child(&[("KVLITE_PORT", "tcp://10.96.0.12:6380")], "--port 7001");
        assert!(shown.contains(r#"("port", "7001")"#), "{shown}");
    }

    #[test]
    fn an_error_names_the_variable_that_caused_it() {
        let tip = "the value is that of the environment variable KVLITE_SHARDS";
        let shown = in_child(&[("KVLITE_SHARDS", "none")], "");
        assert!(shown.contains(tip), "{shown}");
        let shown = in_child(&[("KVLITE_SYNC_MODE", "sometimes")], "");
        assert!(shown.contains("environment variable KVLITE_SYNC_MODE"), "{shown}");
        assert!(!error("--shards none").contains("environment variable"));
        let shown = in_child(&[("KVLITE_CPUS", "7")], "");
        assert!(
            shown.contains("--cpus names CPU 7") && shown.contains("environment: KVLITE_CPUS)"),
            "{shown}"
        );
        let shown = in_child(&[("KVLITE_PORT", "7000"), ("KVLITE_RESP_PORT", "7000")], "");
        assert!(shown.contains("(from the environment: KVLITE_PORT, KVLITE_RESP_PORT)"), "{shown}");
        assert!(!error("--cpus 7").contains("environment:"));
    }
}
