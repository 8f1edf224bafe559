//! Why a request was refused. A variant names the fault and carries the evidence; the protocols word it.

use std::fmt;
use std::sync::Arc;

use crate::command::spec::Command;

/// The reason for which a request was refused; nothing was changed by it, except where the variant says so.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// No row of the command table has this name.
    UnknownCommand {
        /// The name as it came, cut to a printable length by the protocol.
        name: Box<[u8]>,
        /// The first arguments, for the error's text.
        args: Vec<Box<[u8]>>,
    },
    /// A container command (`CLIENT`, `CONFIG`, ...) has no such subcommand.
    UnknownSubcommand {
        /// The container.
        command: &'static Command,
        /// The subcommand as it came.
        name: Box<[u8]>,
    },
    /// Too few or too many arguments.
    WrongArity(&'static Command),
    /// Too many arguments of a subcommand that takes some more or fewer, or an unknown one of a command without rows
    /// for its subcommands.
    WrongUse {
        /// The container.
        command: &'static Command,
        /// The subcommand as it came.
        name: Box<[u8]>,
    },
    /// An argument that has to be a 64-bit signed decimal integer is not one; or the stored value is not.
    NotAnInteger,
    /// An argument that has to be a float is not one; or the stored value is not.
    NotAFloat,
    /// A float plus its increment would be infinite, or no number; the value is unchanged.
    NotFinite,
    /// An increment would leave the range of a 64-bit signed integer; the value is unchanged.
    Overflow,
    /// The amount of DECRBY cannot be negated.
    DecrementOverflow,
    /// A command needs a key that does not exist.
    NoSuchKey,
    /// The value of a key does not count distinct elements.
    NotAHyperloglog,
    /// The value of a key begins as one that counts distinct elements, and goes on as none.
    CorruptHyperloglog,
    /// PFDEBUG has no such subcommand.
    UnknownPfdebug(Box<[u8]>),
    /// The key of RESTORE exists.
    BusyKey,
    /// What RESTORE is given is no payload, of another version, or damaged.
    WrongPayload,
    /// The payload of RESTORE is whole and holds no value.
    MalformedPayload,
    /// RESTORE of a value that is no string; what it is.
    NotAString(&'static str),
    /// An option is unknown, misplaced, repeated or contradicts another.
    Syntax,
    /// An option of EXPIRE is unknown.
    UnsupportedOption(Box<[u8]>),
    /// Options of EXPIRE exclude each other; these, e.g. `GT and LT`.
    IncompatibleOptions(&'static str),
    /// A TTL that is zero, negative or too large.
    InvalidExpire(&'static Command),
    /// A TTL that is not an integer.
    ExpireNotAnInteger,
    /// A SCAN cursor that is not an unsigned integer.
    InvalidCursor,
    /// A count of one of kvlite's own commands (HOTKEYS) that is not a positive integer. SCAN, whose faults
    /// Redis names, answers `Syntax` and `NotAnInteger`.
    InvalidCount,
    /// CONFIG SET of something that is no option of the server.
    UnknownSetting(Box<[u8]>),
    /// CONFIG SET of an option that cannot change while the server runs.
    FixedOption(Box<[u8]>),
    /// CONFIG SET of a value that is none of the option's; why not.
    InvalidSetting(&'static str, Box<str>),
    /// A number of seconds of one of kvlite's own commands that is negative or too large.
    InvalidSeconds,
    /// The share of hits that SUGGEST-TTL is to keep is not between 0 and 1.
    InvalidTarget,
    /// A question about the use of keys, of which nothing is counted.
    AnalyticsOff,
    /// Too little is known to suggest a TTL.
    InsufficientData(InsufficientData),
    /// SELECT of another database than 0: there is only one.
    DbIndexOutOfRange,
    /// A database index that is not an integer.
    InvalidDbIndex,
    /// `HELLO` with a protocol version other than 2 and 3.
    NoProtocol,
    /// `HELLO` with a version that is not an integer.
    ProtocolNotAnInteger,
    /// A client name with blanks, newlines or other characters that are not printable.
    InvalidClientName,
    /// An unknown, incomplete or misplaced option of `HELLO`.
    HelloSyntax(Box<[u8]>),
    /// An unknown attribute of `CLIENT SETINFO`.
    UnknownClientAttribute(Box<[u8]>),
    /// `CLIENT LIST` or `CLIENT KILL` of a kind of clients that there is not.
    UnknownClientType(Box<[u8]>),
    /// A user that does not exist.
    NoSuchUser(Box<[u8]>),
    /// `AUTH` or `HELLO` with a name and a password that do not go together.
    WrongPassword,
    /// `CLIENT UNBLOCK` has ended what the client waited for.
    Unblocked,
    /// The text that `DEBUG ERROR` asks for.
    AsAsked(Box<[u8]>),
    /// A value that would grow past `limit` bytes.
    ValueTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// A glob pattern with more than `limit` bytes.
    PatternTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The text protocol asked for an option that does not exist.
    UnknownOption(Box<[u8]>),
    /// As many clients as `--max-connections` allows are already connected.
    ConnectionLimit,
    /// A reply with more than `limit` bytes of values.
    ReplyTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// There is no memory for the request or its reply.
    OutOfMemory,
    /// The log takes no changes at the moment, so no command that writes is run.
    WritesRefused {
        /// What failed, in the system's words.
        cause: Arc<str>,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The command was run, but what it changed or read could not be brought to disk: a crash may take it back.
    NotOnDisk {
        /// What failed, in the system's words.
        cause: Arc<str>,
    },
    /// The keys are still being read back from the disk; how far that is, in percent.
    Loading {
        /// From 0 to 99.
        percent: u8,
    },
    /// No backup was made.
    BackupFailed {
        /// Why, in one line.
        cause: Arc<str>,
    },
    /// The file of options was not rewritten.
    RewriteFailed {
        /// Why, in one line.
        cause: Arc<str>,
    },
    /// A snapshot was asked for while one is being written.
    SaveInProgress,
    /// A command between `MULTI` and this `EXEC` was refused, so none has run.
    ExecAborted,
    /// No script has this name.
    NoScript,
    /// A script of another client takes so long that nothing else runs; `SCRIPT KILL` or, for a function of a library,
    /// `FUNCTION KILL` ends it.
    Busy {
        /// It is a function of a library.
        is_function: bool,
    },
    /// There is no script to be killed.
    NotBusy,
    /// The script that was to be killed has changed keys.
    Unkillable,
    /// What a script or a library ends with, or cannot begin for: a code in capitals, and a sentence.
    OfScript(Box<[u8]>),
    /// This `EXEC` itself was refused, so nothing behind `MULTI` has run.
    ExecAbortedBy(Box<Error>),
    /// `MULTI` behind `MULTI`.
    NestedMulti,
    /// `WATCH` behind `MULTI`.
    WatchInMulti,
    /// This command, `EXEC` or `DISCARD`, without `MULTI`.
    WithoutMulti(&'static Command),
    /// A command that cannot stand between `MULTI` and `EXEC`.
    NotInMulti,
    /// The client has subscriptions and could not tell the reply to this command from a message.
    Subscribed(&'static Command),
    /// A client wants to be told of the same keys by two prefixes.
    PrefixOverlap {
        /// One of them.
        prefix: Box<[u8]>,
        /// The other one.
        other: Box<[u8]>,
        /// Which comes with the same request; else it has it already.
        is_provided: bool,
    },
    /// A number that is out of its bounds, which the text says.
    OutOfRange(&'static str),
    /// The server cannot do this, and the text says why and what to do.
    Unavailable(&'static str),
}

/// Why too little is known of how keys are used to suggest a TTL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InsufficientData {
    /// The target does not lie between 0 and 1.
    Target,
    /// Too few re-accesses were seen.
    FewObservations {
        /// How many it takes for this target.
        needed: u64,
        /// How many there are.
        have: u64,
    },
    /// Keys were watched for too short a time in comparison with the TTL.
    ShortTime {
        /// For how many seconds they have to be watched.
        needed_s: u64,
        /// For how many they were.
        have_s: u64,
    },
}

impl fmt::Display for InsufficientData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InsufficientData::FewObservations { needed, have } => {
                write!(f, "{have} re-accesses were seen, {needed} are needed")
            }
            InsufficientData::ShortTime { needed_s, have_s } => {
                write!(f, "{have_s} seconds were watched, {needed_s} are needed")
            }
            InsufficientData::Target => write!(f, "the target is not between 0 and 1"),
        }
    }
}
