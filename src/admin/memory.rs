//! What the memory is used for: `MEMORY STATS`, and what is wrong with it: `MEMORY DOCTOR`.

use std::borrow::Cow;

use shard::{Reply, Stats};

use crate::metrics::Report;
use crate::process;
use crate::shared::Shared;

/// With fewer bytes of keys than this, how the memory is used says nothing.
const LITTLE_BYTES: u64 = 5 << 20;

/// From this proportion of resident to used memory on, much is held for nothing.
const RESIDENT_SHARE_HIGH: f64 = 1.4;

/// From this proportion of the peak to the memory in use on, the peak explains what is held.
const PEAK_SHARE_HIGH: f64 = 1.5;

/// What is used of the memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// By the keys and by what is known of their use.
    pub used: u64,
    /// By the keys alone.
    pub dataset: u64,
    /// The most that was ever used, as far as it was looked at.
    pub peak: u64,
    /// By the whole process, as the system counts; `None` where it does not tell.
    pub resident: Option<u64>,
}

impl Usage {
    pub fn of(shared: &Shared, report: &Report) -> Usage {
        let Stats { memory_bytes, analytics_memory_bytes, .. } = report.shard;
        let used = memory_bytes + analytics_memory_bytes;
        let resident = process::usage().map(|usage| usage.resident_bytes);
        Usage { used, dataset: memory_bytes, peak: shared.peak_memory(used), resident }
    }

    /// How many times the memory in use is resident; 0 where the system does not tell.
    pub fn resident_share(&self) -> f64 {
        self.resident.map_or(0.0, |resident| resident as f64 / self.used.max(1) as f64)
    }

    /// A part of the memory in use, in percent.
    pub fn percent(&self, part: u64) -> f64 {
        part as f64 * 100.0 / self.used.max(1) as f64
    }

    /// The memory in use as a part of the peak, in percent.
    pub fn peak_percent(&self) -> f64 {
        self.used as f64 * 100.0 / self.peak.max(1) as f64
    }
}

/// What the memory is used for. The names are those of Redis where they mean the same.
pub(super) fn memory_stats(shared: &Shared, report: &Report) -> Reply<'static> {
    let Stats { keys, analytics_memory_bytes, .. } = report.shard;
    let usage = Usage::of(shared, report);
    let integer = |number: u64| Reply::Integer(number as i64);
    let decimal = |number: f64| Reply::Double(format!("{number:.2}"));
    let fragmentation = usage.resident.map(|resident| resident as i64 - usage.used as i64);
    Reply::Map(vec![
        ("peak.allocated".into(), integer(usage.peak)),
        ("total.allocated".into(), integer(usage.used)),
        ("startup.allocated".into(), integer(0)),
        ("replication.backlog".into(), integer(0)),
        ("clients.slaves".into(), integer(0)),
        ("clients.normal".into(), integer(report.traffic.buffered_bytes)),
        ("cluster.links".into(), integer(0)),
        ("overhead.total".into(), integer(analytics_memory_bytes)),
        ("keys.count".into(), integer(keys)),
        ("keys.bytes-per-key".into(), integer(usage.dataset.checked_div(keys).unwrap_or(0))),
        ("dataset.bytes".into(), integer(usage.dataset)),
        ("dataset.percentage".into(), decimal(usage.percent(usage.dataset))),
        ("peak.percentage".into(), decimal(usage.peak_percent())),
        ("analytics.bytes".into(), integer(analytics_memory_bytes)),
        ("resident.bytes".into(), usage.resident.map_or(Reply::Nil, integer)),
        ("fragmentation".into(), usage.resident.map_or(Reply::Nil, |_| decimal(usage.resident_share()))),
        ("fragmentation.bytes".into(), fragmentation.map_or(Reply::Nil, Reply::Integer)),
    ])
}

/// What is wrong with the memory, and what helps, in words.
pub(super) fn doctor(shared: &Shared, report: &Report) -> Reply<'static> {
    Reply::Text(diagnosis(Usage::of(shared, report)))
}

fn diagnosis(usage: Usage) -> String {
    if usage.dataset < LITTLE_BYTES {
        return "There is too little data to tell anything by it.".to_owned();
    }
    let mut found = Vec::new();
    let has_peak = usage.peak as f64 > usage.used as f64 * PEAK_SHARE_HIGH;
    if has_peak {
        found.push(
            "There was once half as much data again as there is now, or more. The system gets back what was freed, \
             but for what lies beside memory in use.",
        );
    }
    if usage.resident_share() > RESIDENT_SHARE_HIGH {
        found.push(match has_peak {
            true => "So the process holds much more memory than its keys need. A restart packs them closely.",
            false => {
                "The process holds much more memory than its keys need: buffers of clients and of the log, or memory \
                 in pieces. CLIENT LIST shows the buffers; a restart packs the keys closely."
            }
        });
    }
    if found.is_empty() { "The memory is as it should be.".to_owned() } else { found.join("\n") }
}

/// `MEMORY MALLOC-STATS`.
pub(super) fn malloc_stats() -> Reply<'static> {
    Reply::Bulk(Cow::Borrowed(b"Stats not supported for the current allocator"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_diagnosis_tells_what_is_held_for_nothing() {
        let usage = |used: u64, peak: u64, resident: u64| {
            let [used, peak, resident] = [used, peak, resident].map(|mib| mib << 20);
            diagnosis(Usage { used, dataset: used, peak, resident: Some(resident) })
        };
        assert!(usage(1, 100, 100).contains("too little data"));
        assert!(usage(100, 110, 120).contains("as it should be"));
        assert!(usage(100, 110, 200).contains("CLIENT LIST"));
        let after_peak = usage(100, 200, 210);
        assert!(after_peak.contains("once") && after_peak.contains("restart"), "{after_peak}");
    }
}
