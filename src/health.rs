//! `kvlite health`: asks a running server how it is, for scripts and for the `HEALTHCHECK` of a container.
//!
//! It is a client of the first protocol that is on, at the address at which a server with the same variables and flags
//! listens. It needs no other program, and says on standard error what to do where the answer is not a good one.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use clap::{Args, FromArgMatches};

use crate::config::{Config, HELP_COLUMNS, duration_within};
use crate::insight::ask::Address;
use crate::protocol::GREETING;

/// The options that say where a server listens, by the names of their fields.
const ADDRESS: [&str; 4] = ["host", "port", "resp_port", "unix_socket"];

const TIMEOUT_BOUNDS: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(1);

/// No answer is longer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Besides those of the server that say where it listens.
#[derive(Debug, Args)]
struct Own {
    /// How long the answer may take; 1ms to 1h
    #[arg(long, default_value = "3s", value_name = "DURATION")]
    #[arg(value_parser = |text: &str| duration_within(text, TIMEOUT_BOUNDS))]
    timeout: Duration,

    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
}

/// Why a server is not well.
#[derive(Debug)]
enum Trouble {
    /// No connection, or no answer.
    NoAnswer { address: Address, error: io::Error },
    /// An answer that is none to `HEALTH`.
    NotUnderstood { address: Address, answer: String },
    /// It answers with an error, such as that it takes no more clients.
    Refused { address: Address, error: String },
    /// It is still reading its data.
    Loading { percent: u64 },
    /// It says that it is not well.
    Unwell { status: String, causes: String },
    /// No protocol is on.
    NoListener,
}

/// The command line.
pub(crate) fn command() -> clap::Command {
    let command = Own::augment_args(Config::command_of(&ADDRESS)).name("health").bin_name("kvlite health");
    command
        .about("Asks a running server how it is")
        .max_term_width(HELP_COLUMNS)
        .after_help(
            "The server is looked for where one with the same variables and flags listens: at --port, else at \
             --resp-port, else at --unix-socket; a --host that stands for every address means this machine.\n\
             Exit status: 0 when the server is healthy, 1 when it is not or does not answer, and standard error says \
             why, 2 for a usage error.",
        )
}

/// Asks, and says what came of it. Returns the exit status of the process; ends it by itself after `--help` and after a
/// usage error. The first of the arguments is the name of the command.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    let matches = command().get_matches_from(args);
    let own = Own::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let number = |name| matches.get_one::<u16>(name).copied().expect("it has a default");
    let host = matches.get_one::<String>("host").expect("it has a default");
    let unix_socket = matches.get_one::<PathBuf>("unix_socket").cloned();
    match ask(Address::first(host, number("port"), number("resp_port"), unix_socket), own.timeout) {
        // Whether it can be written is another matter: the status tells it as well.
        Ok(health) if own.json => drop(writeln!(io::stdout(), "{health}")),
        Ok(health) => drop(writeln!(
            io::stdout(),
            "healthy keys={} connections={} shards={} uptime_seconds={}",
            health["keys"],
            health["connections"],
            health["shards"],
            health["uptime_seconds"]
        )),
        Err(trouble) => {
            let _ = writeln!(io::stderr(), "error: {trouble}");
            return 1;
        }
    }
    0
}

/// The answer of a server that is healthy.
fn ask(address: Option<Address>, timeout: Duration) -> Result<serde_json::Value, Trouble> {
    let address = address.ok_or(Trouble::NoListener)?;
    let (address, answer) = answer(address, timeout);
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Err(Trouble::NoAnswer { address, error }),
    };
    // The object is the last line: before it stand a greeting, or the length of a string.
    let json = answer.lines().last().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let Some((health, status)) = json.and_then(|json| {
        let status = json["status"].as_str()?.to_owned();
        Some((json, status))
    }) else {
        return Err(match answer.lines().last().and_then(|line| line.strip_prefix('-')) {
            Some(error) if !error.to_ascii_lowercase().contains("unknown command") => {
                Trouble::Refused { address, error: error.to_owned() }
            }
            _ => Trouble::NotUnderstood { address, answer },
        });
    };
    match &*status {
        "healthy" => Ok(health),
        "loading" => Err(Trouble::Loading { percent: health["loading_percent"].as_u64().unwrap_or(0) }),
        _ => {
            let causes = ["wal_error", "snapshot_error"].iter().filter_map(|name| health[name].as_str());
            Err(Trouble::Unwell { status, causes: causes.collect::<Vec<_>>().join("; ") })
        }
    }
}

/// What the server says to `HEALTH`, up to the end of the JSON. Another thread asks: not all that it waits for, such as the
/// addresses of a name, has a limit of its own.
fn answer(address: Address, timeout: Duration) -> (Address, io::Result<String>) {
    let (sender, answered) = mpsc::channel();
    let asked = address.clone();
    thread::spawn(move || {
        let answer = asked.connect(Instant::now() + timeout).map(File::from).and_then(converse);
        let _ = sender.send(answer); // It may not be waited for any more.
    });
    let answer = answered.recv_timeout(timeout).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    (address, answer)
}

/// Both protocols take the command as a line. The server answers with more than the JSON before it, and with nothing
/// behind it. One that takes no client says so at once, and may be gone before the command has come.
fn converse(mut stream: impl Read + Write) -> io::Result<String> {
    let mut ended = stream.write_all(b"HEALTH\r\n");
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                ended = ended.and(Err(error));
                break;
            }
        }
        let is_whole = answer.trim_ascii_end().ends_with(b"}") || is_error(&answer);
        if is_whole || answer.len() > ANSWER_BYTES_MAX {
            break;
        }
    }
    match ended {
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// Whether an answer ends with the line of an error.
fn is_error(answer: &[u8]) -> bool {
    let last = answer.strip_suffix(b"\n").and_then(|lines| lines.rsplit(|byte| *byte == b'\n').next());
    last.is_some_and(|line| line.starts_with(b"-"))
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::NoAnswer { address, error } if error.kind() == io::ErrorKind::TimedOut => {
                write!(f, "{address} does not answer in time; look at its log, or give it a longer --timeout")
            }
            Trouble::NoAnswer { address, error } => write!(
                f,
                "no server answers at {address}: {error}; start it, or say where it listens by the flags or variables \
                 that it was started with"
            ),
            Trouble::NotUnderstood { address, answer } => {
                let answer = answer.lines().last().unwrap_or_default();
                if GREETING.trim_ascii_end() == answer.as_bytes() {
                    return write!(
                        f,
                        "{address} has closed the connection before it told how it is; it stops, perhaps"
                    );
                }
                write!(
                    f,
                    "{address} is no kvlite, it answers {answer:?}; say where kvlite listens by its flags"
                )
            }
            Trouble::Refused { address, error } => {
                write!(f, "the server at {address} does not tell how it is, it answers: {error}")
            }
            Trouble::Loading { percent } => {
                write!(f, "the server is loading its data, {percent} percent; it serves once that is done")
            }
            Trouble::Unwell { status, causes } => {
                write!(f, "the server is {status}: {causes}; its log says what to do")
            }
            Trouble::NoListener => {
                write!(
                    f,
                    "--port and --resp-port are 0, and there is no --unix-socket: give one at which to ask"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_those_of_the_server_and_its_own() {
        command().debug_assert();
        let matches = command().get_matches_from(["health", "--port", "7000", "--timeout", "50ms"]);
        assert_eq!(matches.get_one::<u16>("port"), Some(&7000));
        assert_eq!(Own::from_arg_matches(&matches).unwrap().timeout, Duration::from_millis(50));
        assert!(command().try_get_matches_from(["health", "--wal-path", "x"]).is_err());
    }
}
