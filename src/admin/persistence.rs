//! Commands that bring data to disk: `SYNC`, `WAITAOF`, `SAVE`, `BGSAVE`, `BGREWRITEAOF`, `COMPACT`, `BACKUP`.

use std::borrow::Cow;

use shard::analytics::load::{AHEAD, Outlook};
use shard::command::Server;
use shard::{Error, Reply, Request, parse_integer};

use super::{About, Ask, Gathered, NO_REPLICATION, Next, backup};
use crate::client::Client;
use crate::durability::compaction;
use crate::mesh::Call;
use crate::protocol::Dialect;
use crate::txn::gather::Gather;

/// What is to be done for such a command; nothing for a `WAITAOF` that waits for no server.
pub(super) fn run(
    client: &Client,
    request: &Request<'_>,
    server: Server,
    about: &About<'_>,
) -> Result<Option<Next>, Error> {
    let next = match server {
        Server::Bgsave if request.args().any(|arg| !arg.eq_ignore_ascii_case(b"SCHEDULE")) => {
            return Err(Error::Syntax);
        }
        Server::Bgsave | Server::Bgrewriteaof => Call::Report.into(),
        Server::SyncOfText if client.session.dialect != Dialect::Text => return Err(NO_REPLICATION),
        Server::Replication => return Err(NO_REPLICATION),
        Server::Waitaof if waitaof_arguments(request)?.numlocal == 0 => return Ok(None),
        _ if about.some_hang => {
            return Err(Error::Unavailable("the disk of a shard hangs; nothing was done"));
        }
        Server::Backup => {
            backup::place(about.shared.config.backup_dir.as_deref(), request.arg(0))?;
            about.shared.backups.begin()?;
            Next::Backup
        }
        Server::Waitaof => {
            let timeout_ms = Some(waitaof_arguments(request)?.timeout_ms).filter(|ms| *ms > 0);
            Next::Ask(Ask { call: Call::Sync, asks_hung: false, then: None, timeout_ms, is_of_first: false })
        }
        Server::Compact | Server::Save => Call::Compact.into(),
        _ => Call::Sync.into(),
    };
    Ok(Some(next))
}

/// What comes of a `BGSAVE` or `BGREWRITEAOF`: a snapshot, which follows the one that is being written, if any.
pub(super) fn begin_compaction(request: &Request<'_>, server: Server, is_compacting: bool) -> Gathered {
    let is_save = server == Server::Bgsave;
    if is_save && is_compacting && request.arg_count() == 0 {
        return Gathered::Reply(Reply::Error(Error::SaveInProgress));
    }
    Gathered::Compact(Reply::Simple(match (is_save, is_compacting) {
        (true, false) => "Background saving started",
        (true, true) => "Background saving scheduled",
        (false, false) => "Background append only file rewriting started",
        (false, true) => "Background append only file rewriting scheduled",
    }))
}

/// When the log will be compacted: the load now, by the forecast, and in the quietest hour of the next day.
pub(super) fn compact_when(about: &About<'_>, gather: &Gather) -> Reply<'static> {
    let report = &gather.report;
    let decision = compaction::decide(report.log_fill, report.outlook.as_deref());
    let integer = |rate: f32| Reply::Integer(rate.round() as i64);
    let known = report.outlook.as_deref().filter(|outlook| outlook.hours_known == AHEAD);
    let (hours_ahead, lowest) = known.map(Outlook::lowest).unzip();
    let unix_ms = about.clock.unix_ms(about.now_ms);
    let hour = hours_ahead.map(|ahead| (unix_ms / 3_600_000 + ahead as u64) % 24);
    let text = |text: String| Reply::Bulk(Cow::Owned(text.into_bytes()));
    Reply::Map(vec![
        ("reason".into(), Reply::bytes(decision.reason().as_bytes())),
        ("log_percent".into(), Reply::Integer((report.log_fill * 100.0) as i64)),
        ("load".into(), report.outlook.as_ref().map_or(Reply::Nil, |outlook| integer(outlook.rate))),
        ("forecast".into(), known.map_or(Reply::Nil, |outlook| integer(outlook.forecast[0]))),
        ("lowest".into(), lowest.map_or(Reply::Nil, integer)),
        ("hour".into(), hour.map_or(Reply::Nil, |hour| text(format!("{hour:02}:00Z")))),
        ("hours_known".into(), Reply::Integer(report.outlook.as_ref().map_or(0, |it| it.hours_known as i64))),
    ])
}

/// What `WAITAOF` answers: on how many servers everything is on disk, of which there is this one, and no replica.
pub(crate) fn synced_count(local: i64) -> Reply<'static> {
    Reply::Array(vec![Reply::Integer(local), Reply::Integer(0)])
}

/// What is to be done for a `SHUTDOWN`. `NOSAVE` takes nothing back: what was acknowledged is in the log. There are no
/// replicas to wait for, so that `NOW` changes nothing, and a stop that has begun cannot be ended: no client is served
/// meanwhile.
pub(super) fn shutdown(request: &Request<'_>, about: &About<'_>) -> Result<Next, Error> {
    let is = |word: &str| request.args().any(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
    let known = ["SAVE", "NOSAVE", "NOW", "FORCE", "ABORT"];
    let is_known = |arg: &[u8]| known.iter().any(|word| arg.eq_ignore_ascii_case(word.as_bytes()));
    if !request.args().all(is_known) || is("SAVE") && is("NOSAVE") || is("ABORT") && request.arg_count() > 1 {
        return Err(Error::Syntax);
    }
    if is("ABORT") {
        return Err(Error::OutOfRange("No shutdown in progress."));
    }
    if !is("NOSAVE")
        && let Some(busy) = about.shared.long_scripts.any_busy()
    {
        return Err(busy); // It may have changed a part of what it is to change.
    }
    Ok(if is("SAVE") { Call::Compact.into() } else { Next::Stop })
}

/// Whether a `SHUTDOWN` is to end the server whatever becomes of its snapshot.
pub(super) fn is_forced(request: &Request<'_>) -> bool {
    request.args().any(|arg| arg.eq_ignore_ascii_case(b"FORCE"))
}

/// For how many milliseconds a `WAIT` waits, 0 for ever: there are no replicas. `None` where it does not wait at all.
pub(super) fn wait_timeout(request: &Request<'_>) -> Result<Option<u64>, Error> {
    let timeout_ms = timeout_ms(request.arg(1));
    let numreplicas = parse_integer(request.arg(0)).ok_or(Error::NotAnInteger)?;
    Ok(Some(timeout_ms?).filter(|_| numreplicas > 0))
}

/// A timeout of so many milliseconds.
pub(super) fn timeout_ms(arg: &[u8]) -> Result<u64, Error> {
    let timeout = parse_integer(arg).ok_or(Error::OutOfRange("timeout is not an integer or out of range"))?;
    timeout.try_into().map_err(|_| Error::OutOfRange("timeout is negative"))
}

/// What a `WAITAOF` asks for.
struct WaitaofArguments {
    /// How many servers, this one only, have to have everything on disk; 0 to wait for none.
    numlocal: i64,
    /// 0 for no end.
    timeout_ms: u64,
}

/// The reply to a `WAITAOF` that does not wait.
pub(crate) fn waitaof_at_once(request: &Request<'_>) -> Result<Reply<'static>, Error> {
    waitaof_arguments(request).map(|_| synced_count(0))
}

fn waitaof_arguments(request: &Request<'_>) -> Result<WaitaofArguments, Error> {
    let numlocal = parse_integer(request.arg(0)).ok_or(Error::NotAnInteger)?;
    if !(0..=1).contains(&numlocal) {
        return Err(Error::OutOfRange("value is out of range, value must between 0 and 1"));
    }
    // There are no replicas to wait for, however many are asked for: the reply says that none has anything on disk.
    if parse_integer(request.arg(1)).ok_or(Error::NotAnInteger)? < 0 {
        return Err(Error::OutOfRange("value is out of range, must be positive"));
    }
    Ok(WaitaofArguments { numlocal, timeout_ms: timeout_ms(request.arg(2))? })
}
