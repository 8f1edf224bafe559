//! `kvlite check`: whether a server would start on a data directory, and what is in it.
//!
//! Shards are judged one by one, by the code that recovery judges with; damage in one does not end the
//! search. Never changes a file.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use wal::{Error, Evidence, Inspection, Layout, ReadOnlyDisk, Record, Recovered};

use super::{Finding, Progress, ToolError, file_name, inspect, read, salvage};
use crate::config::Boot;
use crate::failure::{Contradiction, damage_remedy};
use crate::recovery::{ReplayError, in_doubt};

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Data directory, as in --wal-path
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    boot: Boot,
}

/// What was found in a directory.
#[derive(Debug, Serialize)]
struct Report {
    directory: String,
    sound: bool,
    /// What is wrong with the manifest; the layout is then the one that most likely counts.
    manifest_damage: Option<Damage>,
    layout: Option<u64>,
    shards: Vec<ShardReport>,
    /// Commands over several shards that a crash cut short, and which a start leaves out. `None` where damage
    /// hides it.
    transactions_aborted: Option<usize>,
    total: Total,
}

#[derive(Debug, Serialize)]
struct ShardReport {
    shard: usize,
    snapshot: Option<SnapshotReport>,
    log: LogReport,
    torn_end: Option<TornEnd>,
    lost_ground: Option<LostGround>,
    /// One of the two files that tell what is known of the log; it has a copy, and a start writes it again.
    lacking_synced: Option<String>,
    damage: Option<Damage>,
    /// What a repair could not bring back.
    losses: Vec<String>,
}

#[derive(Debug, Serialize)]
struct SnapshotReport {
    file: String,
    entries: u64,
    /// `None` for a damaged one.
    bytes: Option<u64>,
}

#[derive(Debug, Default, Serialize)]
struct LogReport {
    segments: u64,
    frames: u64,
    changes: u64,
    bytes: u64,
    first_seq: Option<u64>,
    last_seq: Option<u64>,
}

#[derive(Debug, Serialize)]
struct TornEnd {
    file: String,
    offset: u64,
    bytes: u64,
    frames: u64,
}

/// The frames at the end of a log that build on what another shard lost in a power cut. A start cuts them
/// off.
#[derive(Debug, Serialize)]
struct LostGround {
    first_seq: u64,
    frames: u64,
}

#[derive(Debug, Serialize)]
struct Damage {
    file: String,
    /// In bytes from the start of the file.
    offset: Option<u64>,
    expected: String,
    found: String,
    what_to_do: String,
}

#[derive(Debug, Default, Serialize)]
struct Total {
    snapshot_entries: u64,
    frames: u64,
    changes: u64,
    log_bytes: u64,
    damaged_shards: u64,
}

pub fn run(options: &Options, out: &mut impl Write, progress: &Progress) -> Result<Finding, ToolError> {
    let disk = ReadOnlyDisk::in_boot(options.boot.id());
    let inspection = inspect(disk, &options.directory)?;
    let report = examine(options, &disk, inspection, progress)?;
    if options.json {
        serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        print(&report, out)?;
    }
    Ok(if report.sound { Finding::Sound } else { Finding::Damaged })
}

fn examine(
    options: &Options,
    disk: &ReadOnlyDisk,
    mut inspection: Inspection<ReadOnlyDisk>,
    progress: &Progress,
) -> Result<Report, ToolError> {
    let named = std::mem::replace(&mut inspection.layout, Ok(None));
    let (layout, manifest_damage) = match named {
        Ok(layout) => (layout, None),
        Err(error @ (Error::MissingManifest { .. } | Error::DamagedManifest { .. })) => {
            (inspection.likely_layout().ok().flatten(), Some(Damage::of(&error)))
        }
        Err(error) if error.is_forbidden() => return Err(error.into()),
        Err(error) => (None, Some(Damage::of(&error))),
    };
    let mut report = Report {
        directory: options.directory.display().to_string(),
        sound: manifest_damage.is_none(),
        manifest_damage,
        layout: layout.as_ref().map(|layout| layout.id),
        shards: Vec::new(),
        transactions_aborted: None,
        total: Total::default(),
    };
    let Some(layout) = layout else {
        let path = options.directory.clone();
        return if report.sound { Err(ToolError::NoData { path }) } else { Ok(report) };
    };
    for index in 0..layout.shards as usize {
        progress.begin("checking", index, layout.shards);
        let shard = check_shard(disk, &layout, index, progress)?;
        report.total.add(&shard);
        report.shards.push(shard);
    }
    if report.total.damaged_shards > 0 {
        report.sound = false;
        return Ok(report);
    }
    progress.say("comparing the shards");
    let resolution = in_doubt::reach(disk, &layout)?;
    if let Some(contradiction) = &resolution.contradiction {
        let shard = &mut report.shards[contradiction.lacking];
        shard.damage = Some(Damage::of_contradiction(contradiction, &layout));
        report.total.damaged_shards = 1;
        report.sound = false;
        return Ok(report);
    }
    report.transactions_aborted = Some(resolution.aborted.len());
    for (shard, cut) in report.shards.iter_mut().zip(&resolution.truncations) {
        let frames = |first_seq| shard.log.last_seq.map_or(0, |last_seq| last_seq + 1 - first_seq);
        shard.lost_ground = cut.map(|first_seq| LostGround { first_seq, frames: frames(first_seq) });
    }
    Ok(report)
}

/// Counts of the records that were read.
#[derive(Default)]
struct Counts {
    snapshot_entries: u64,
    changes: u64,
}

fn check_shard(
    disk: &ReadOnlyDisk,
    layout: &Layout,
    index: usize,
    progress: &Progress,
) -> Result<ShardReport, ToolError> {
    let directory = layout.shard_dir(index as u32);
    let mut counts = Counts::default();
    let checked = read(disk, layout, index, |record: Record<'_>| {
        progress.at(&record);
        let count = if record.in_snapshot { &mut counts.snapshot_entries } else { &mut counts.changes };
        *count += u64::from(record.entries);
        let malformed = |error| ReplayError::Malformed { seq: record.seq, error };
        shard::decode(record.payload).try_for_each(|change| change.map(drop).map_err(malformed))
    });
    let report = match checked {
        Err(ReplayError::Log(error)) if error.is_forbidden() => return Err(error.into()),
        Ok(recovered) => ShardReport::sound(index, &recovered, &counts),
        Err(ReplayError::Log(Error::Io { source, .. })) if source.kind() == std::io::ErrorKind::NotFound => {
            ShardReport::damaged(
                disk,
                layout,
                index,
                Damage::of(&Error::MissingDirectory { path: directory }),
            )
        }
        Err(ReplayError::Log(error)) => ShardReport::damaged(disk, layout, index, Damage::of(&error)),
        Err(ReplayError::Malformed { seq, error }) => {
            let damage = Damage {
                file: directory.display().to_string(),
                offset: None,
                expected: format!("changes in frame {seq}"),
                found: error.to_string(),
                what_to_do: "kvlite repair leaves it out".to_owned(),
            };
            ShardReport::damaged(disk, layout, index, damage)
        }
    };
    Ok(report)
}

impl ShardReport {
    fn sound(shard: usize, recovered: &Recovered, counts: &Counts) -> ShardReport {
        let snapshot = recovered.snapshot.as_ref().map(|snapshot| SnapshotReport {
            file: file_name(&snapshot.path),
            entries: counts.snapshot_entries,
            bytes: Some(snapshot.bytes),
        });
        let log = LogReport {
            segments: recovered.segments,
            frames: recovered.log_frames,
            changes: counts.changes,
            bytes: recovered.log_bytes,
            first_seq: (recovered.log_frames > 0).then(|| recovered.next_seq - recovered.log_frames),
            last_seq: (recovered.log_frames > 0).then(|| recovered.next_seq - 1),
        };
        let torn_end = recovered.cut.as_ref().map(|cut| TornEnd {
            file: cut.path.display().to_string(),
            offset: cut.offset,
            bytes: cut.bytes,
            frames: cut.frames,
        });
        let lacking_synced = recovered.lacking_synced.as_ref().map(|path| path.display().to_string());
        let (lost_ground, damage, losses) = (None, None, Vec::new());
        ShardReport { shard, snapshot, log, torn_end, lost_ground, lacking_synced, damage, losses }
    }

    /// What is readable of a damaged shard, and what is not.
    fn damaged(disk: &ReadOnlyDisk, layout: &Layout, shard: usize, damage: Damage) -> ShardReport {
        let mut report = ShardReport {
            shard,
            snapshot: None,
            log: LogReport::default(),
            torn_end: None,
            lost_ground: None,
            lacking_synced: None,
            damage: Some(damage),
            losses: Vec::new(),
        };
        match salvage(disk, layout, shard) {
            Ok(salvage) => {
                let readable = salvage.readable();
                report.snapshot = readable.snapshot.as_ref().map(|path| SnapshotReport {
                    file: file_name(path),
                    entries: readable.snapshot_entries,
                    bytes: None,
                });
                report.log = LogReport {
                    segments: readable.segments,
                    frames: readable.log_frames,
                    changes: readable.log_entries,
                    bytes: readable.log_bytes,
                    first_seq: readable.log_seqs.map(|(first, _)| first),
                    last_seq: readable.log_seqs.map(|(_, last)| last),
                };
                report.losses.extend(salvage.losses().iter().map(ToString::to_string));
            }
            Err(error) => report.losses.push(format!("all of this shard: {error}")),
        }
        report
    }
}

impl Total {
    fn add(&mut self, shard: &ShardReport) {
        self.snapshot_entries += shard.snapshot.as_ref().map_or(0, |snapshot| snapshot.entries);
        self.frames += shard.log.frames;
        self.changes += shard.log.changes;
        self.log_bytes += shard.log.bytes;
        self.damaged_shards += u64::from(shard.damage.is_some());
    }
}

impl Damage {
    fn of_contradiction(contradiction: &Contradiction, layout: &Layout) -> Damage {
        let Contradiction { shard, seq, lacking, .. } = contradiction;
        Damage {
            file: layout.shard_dir(*lacking as u32).display().to_string(),
            offset: None,
            expected: format!(
                "its part of a command over several shards that shard {shard} knows of in frame {seq}"
            ),
            found: "a log that ends before it, although no crash can have taken it".to_owned(),
            what_to_do: format!(
                "put the files of shard {lacking} back from a copy, or keep what is readable with `kvlite repair`"
            ),
        }
    }

    fn of(error: &Error) -> Damage {
        if let (Some(evidence), Some((what_to_do, _))) = (error.evidence(), damage_remedy(error)) {
            let Evidence { path, offset, expected, found } = evidence;
            return Damage { file: path.display().to_string(), offset, expected, found, what_to_do };
        }
        let (file, found) = match error {
            Error::Io { path, source, .. } => (path.display().to_string(), source.to_string()),
            error => (String::new(), error.to_string()),
        };
        let what_to_do = "see to the disk and the permissions".to_owned();
        Damage { file, offset: None, expected: "a file that can be read".to_owned(), found, what_to_do }
    }
}

fn print(report: &Report, out: &mut impl Write) -> Result<(), ToolError> {
    if let Some(damage) = &report.manifest_damage {
        writeln!(out, "manifest: DAMAGED")?;
        print_damage(damage, out)?;
    }
    match report.layout {
        Some(id) => writeln!(out, "layout {id}, {} shards", report.shards.len())?,
        None => writeln!(out, "no layout: there is nothing that could be read")?,
    }
    for shard in &report.shards {
        print_shard(shard, out)?;
    }
    let Total { snapshot_entries, frames, changes, log_bytes, damaged_shards } = report.total;
    writeln!(
        out,
        "total: {snapshot_entries} snapshot entries; {frames} frames, {changes} changes, {log_bytes} bytes \
         of log"
    )?;
    if let Some(count @ 1..) = report.transactions_aborted {
        writeln!(out, "{count} commands over several shards were cut short by a crash; a start aborts them")?;
    }
    match (report.sound, damaged_shards) {
        (true, _) => writeln!(out, "{} is sound", report.directory)?,
        (false, 0) => writeln!(out, "{} is DAMAGED", report.directory)?,
        (false, _) => {
            writeln!(
                out,
                "{} is DAMAGED: {damaged_shards} of {} shards",
                report.directory,
                report.shards.len()
            )?;
        }
    }
    Ok(())
}

fn print_shard(shard: &ShardReport, out: &mut impl Write) -> Result<(), ToolError> {
    let is_damaged = shard.damage.is_some();
    writeln!(out, "shard {}: {}", shard.shard, if is_damaged { "DAMAGED; readable are" } else { "sound" })?;
    match &shard.snapshot {
        Some(SnapshotReport { file, entries, bytes: Some(bytes) }) => {
            writeln!(out, "  snapshot: {file}, {entries} entries, {bytes} bytes")?;
        }
        Some(SnapshotReport { file, entries, bytes: None }) => {
            writeln!(out, "  snapshot: {file}, {entries} entries")?;
        }
        None => writeln!(out, "  snapshot: none")?,
    }
    let LogReport { segments, frames, changes, bytes, first_seq, last_seq } = shard.log;
    write!(out, "  log: {segments} segments, {frames} frames, {changes} changes, {bytes} bytes")?;
    if let (Some(first), Some(last)) = (first_seq, last_seq) {
        write!(out, ", frames {first} to {last}")?;
    }
    writeln!(out)?;
    if let Some(TornEnd { file, offset, bytes, frames }) = &shard.torn_end {
        writeln!(
            out,
            "  torn end, as a crash leaves it: {file} from byte {offset} on, {bytes} bytes, {frames} whole \
             frames; a start cuts it off"
        )?;
    }
    if let Some(LostGround { first_seq, frames }) = shard.lost_ground {
        writeln!(
            out,
            "  from frame {first_seq} on, {frames} frames build on what another shard lost in a power cut; a \
             start cuts them off"
        )?;
    }
    if let Some(file) = &shard.lacking_synced {
        writeln!(out, "  missing or damaged: {file}; it has a copy, and a start writes it again")?;
    }
    if let Some(damage) = &shard.damage {
        print_damage(damage, out)?;
    }
    for loss in &shard.losses {
        writeln!(out, "  lost: {loss}")?;
    }
    Ok(())
}

fn print_damage(damage: &Damage, out: &mut impl Write) -> Result<(), ToolError> {
    write!(out, "  damage: {}", damage.file)?;
    if let Some(offset) = damage.offset {
        write!(out, " at byte {offset}")?;
    }
    writeln!(out, "\n    expected: {}\n    found: {}", damage.expected, damage.found)?;
    writeln!(out, "    what to do: {}", damage.what_to_do)?;
    Ok(())
}
