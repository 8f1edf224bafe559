//! What the memory is used for: `MEMORY STATS`.

use std::borrow::Cow;

use shard::{Error, Reply, Request, Stats, command};

use super::Next;
use crate::mesh::Call;
use crate::metrics::Report;

/// What is to be done for a `MEMORY`.
pub(super) fn memory_command(request: &Request<'_>) -> Result<Next, Error> {
    let (subcommand, args) = (request.arg(0), request.arg_count() - 1);
    let is = |name: &str| subcommand.eq_ignore_ascii_case(name.as_bytes());
    let [row] = command::subcommands(request.command) else { unreachable!("MEMORY has one") };
    match args {
        _ if is("USAGE") && !(row.args_min..=row.args_max).contains(&args) => {
            Err(Error::WrongSubcommandArity(request.command, "usage"))
        }
        _ if is("USAGE") => Ok(Next::AtOwner(row)),
        0 if is("STATS") => Ok(Call::Report.into()),
        _ if is("STATS") => Err(Error::WrongSubcommandArity(request.command, "stats")),
        _ => Err(Error::UnknownSubcommand { command: request.command, name: subcommand.into() }),
    }
}

/// What the memory is used for. The names are those of Redis where they mean the same.
pub(super) fn memory_stats(report: &Report) -> Reply<'static> {
    let Stats { keys, memory_bytes, analytics_memory_bytes, .. } = report.shard;
    let allocated_bytes = memory_bytes + analytics_memory_bytes;
    let resident_bytes = resident_bytes();
    let fragmentation = resident_bytes.map(|resident| resident as f64 / allocated_bytes.max(1) as f64);
    let integer = |number: u64| Reply::Integer(number as i64);
    let decimal = |number: f64| Reply::Bulk(Cow::Owned(format!("{number:.2}").into_bytes()));
    Reply::Map(vec![
        ("total.allocated".into(), integer(allocated_bytes)),
        ("dataset.bytes".into(), integer(memory_bytes)),
        ("keys.count".into(), integer(keys)),
        ("keys.bytes-per-key".into(), integer(memory_bytes.checked_div(keys).unwrap_or(0))),
        ("analytics.bytes".into(), integer(analytics_memory_bytes)),
        ("resident.bytes".into(), resident_bytes.map_or(Reply::Nil, integer)),
        ("fragmentation".into(), fragmentation.map_or(Reply::Nil, decimal)),
    ])
}

/// The memory that the process occupies, in bytes, as far as the system tells.
pub(super) fn resident_bytes() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
