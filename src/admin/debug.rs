//! `DEBUG`: what suites of tests and libraries of clients ask for.

use std::time::Duration;

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use shard::{Error, Reply, Request, parse_integer};

use super::{About, Next};
use crate::client::Client;
use crate::config::DebugCommand;
use crate::mesh::Call;
use crate::net::listener::Endpoint;
use crate::protocol::Dialect;

/// For so long a worker may be asked to do nothing.
const SLEEP_MAX: Duration = Duration::from_secs(30);

const NOT_ALLOWED: Error = Error::OutOfRange(
    "DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local \
     connection, otherwise you need to set this option in the configuration file, and then restart the server.",
);

const HELP: [&str; 21] = [
    "DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CHANGE-REPL-ID",
    "    Changes nothing: there is no replication.",
    "ERROR <string>",
    "    Returns this error.",
    "LOADAOF",
    "    As RELOAD.",
    "PROTOCOL <type>",
    "    Returns a reply of a type: string, integer, double, bignum, null, array, set, push, verbatim, true, false.",
    "QUICKLIST-PACKED-THRESHOLD <size>",
    "    Changes nothing: there are no lists.",
    "RELOAD [NOSAVE] [NOFLUSH] [MERGE]",
    "    Brings everything to disk; the keys stay as they are.",
    "SET-ACTIVE-EXPIRE <0|1>",
    "    Whether expired keys are removed that no client asks for.",
    "SLEEP <seconds>",
    "    Has the worker of this client do nothing for so long, 30 seconds at most.",
    "STRINGMATCH-LEN <length> <pattern>",
    "    Whether a string of so many letters a matches a pattern.",
    "HELP",
    "    Prints this help.",
];

/// What comes of a `DEBUG`.
pub(super) enum Debugged {
    /// A reply.
    Reply(Reply<'static>),
    /// Work for the worker.
    Next(Next),
}

/// Carries out a `DEBUG`.
pub(super) fn run(request: &Request<'_>, client: &Client, about: &About<'_>) -> Result<Debugged, Error> {
    let is = |word: &str, args: std::ops::RangeInclusive<usize>| {
        request.arg(0).eq_ignore_ascii_case(word.as_bytes()) && args.contains(&(request.arg_count() - 1))
    };
    let is_local = client.endpoint == Endpoint::Unix
        || client.addresses.peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    let is_allowed = match about.shared.config.enable_debug_command {
        DebugCommand::Yes => true,
        DebugCommand::Local => is_local,
        DebugCommand::No => false,
    };
    let reply = if is("HELP", 0..=0) {
        Reply::Array(HELP.map(|line| Reply::Line(line.into())).to_vec())
    } else if !is_allowed {
        return Err(NOT_ALLOWED);
    } else if is("SLEEP", 1..=1) {
        return Ok(Debugged::Next(Next::Sleep(seconds(request.arg(1)).min(SLEEP_MAX))));
    } else if is("ERROR", 1..=1) {
        return Err(Error::AsAsked(request.arg(1).into()));
    } else if is("PROTOCOL", 1..=1) {
        sample(request.arg(1), client.session.dialect)?
    } else if is("LOADAOF", 0..=0) {
        return Ok(Debugged::Next(Call::Sync.into()));
    } else if is("RELOAD", 0..=3) {
        let known = ["MERGE", "NOFLUSH", "NOSAVE"];
        let is_known = |arg: &[u8]| known.iter().any(|word| arg.eq_ignore_ascii_case(word.as_bytes()));
        if !request.args().skip(1).all(is_known) {
            return Err(Error::OutOfRange(
                "DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
            ));
        }
        return Ok(Debugged::Next(Call::Sync.into()));
    } else if is("SET-ACTIVE-EXPIRE", 1..=1) {
        let is_on = parse_integer(request.arg(1)).is_some_and(|number| number != 0);
        about.shared.control.expires_actively.store(is_on, Ordering::Relaxed);
        Reply::Ok
    } else if is("STRINGMATCH-LEN", 2..=2) {
        let len = parse_integer(request.arg(1)).and_then(|len| usize::try_from(len).ok());
        let len = len.filter(|len| *len <= 1 << 20).ok_or(Error::NotAnInteger)?;
        Reply::one_or_zero(shard::Glob::new(request.arg(2))?.matches(&vec![b'a'; len]))
    } else if is("CHANGE-REPL-ID", 0..=0) || is("QUICKLIST-PACKED-THRESHOLD", 1..=1) {
        Reply::Ok
    } else {
        return Err(Error::WrongUse { command: request.command, name: request.arg(0).into() });
    };
    Ok(Debugged::Reply(reply))
}

/// A number of seconds as C reads one: what is none is 0.
fn seconds(text: &[u8]) -> Duration {
    let seconds = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
    Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or_default()
}

/// A reply of a kind, as Redis has it.
fn sample(kind: &[u8], dialect: Dialect) -> Result<Reply<'static>, Error> {
    let numbers = || (0..3).map(Reply::Integer).collect();
    Ok(match &*kind.to_ascii_lowercase() {
        b"string" => Reply::Bulk(Cow::Borrowed(b"Hello World")),
        b"integer" => Reply::Integer(12345),
        b"double" => Reply::Double("3.141".to_owned()),
        b"bignum" => Reply::BigNumber(Cow::Borrowed(b"1234567999999999999999999999999999999")),
        b"null" => Reply::Nil,
        b"array" => Reply::Array(numbers()),
        b"set" => Reply::Set(numbers()),
        b"push" if dialect != Dialect::Resp3 => {
            return Err(Error::OutOfRange("RESP2 is not supported by this command"));
        }
        b"push" => Reply::Push(vec![Reply::bytes(b"server-cpu-usage"), Reply::Integer(42)]),
        b"verbatim" => Reply::Text("This is a verbatim\nstring".to_owned()),
        b"true" => Reply::Bool(true),
        b"false" => Reply::Bool(false),
        _ => {
            return Err(Error::OutOfRange(
                "Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    })
}
