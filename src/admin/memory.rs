//! What the memory is used for: `MEMORY STATS`.

use shard::{Reply, Stats};

use crate::metrics::Report;
use crate::process;

/// What the memory is used for. The names are those of Redis where they mean the same.
pub(super) fn memory_stats(report: &Report) -> Reply<'static> {
    let Stats { keys, memory_bytes, analytics_memory_bytes, .. } = report.shard;
    let allocated_bytes = memory_bytes + analytics_memory_bytes;
    let resident_bytes = process::usage().map(|usage| usage.resident_bytes);
    let fragmentation = resident_bytes.map(|resident| resident as f64 / allocated_bytes.max(1) as f64);
    let integer = |number: u64| Reply::Integer(number as i64);
    let decimal = |number: f64| Reply::Double(format!("{number:.2}"));
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
