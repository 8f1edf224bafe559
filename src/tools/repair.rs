//! `kvlite repair`: what is readable of a data directory, as a new one on which a server starts.
//!
//! Sound shards are taken over as recovery reads them, damaged ones as far as [`wal::Salvage`] reads them.
//! The old directory is never changed.
//!
//! Behind lost frames of a log a key may have an older value than the log's next changes expect. What such a
//! change sets as a whole counts; an append to a value of which nothing tells that it is the right one is
//! left out, so that no value comes out that never was.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use shard::Change;
use wal::{DataDir, Error, Inspection, Layout, OsDisk, ReadOnlyDisk, Record, Salvage, Salvaged};

use super::{LOCK_WAIT, Progress, ToolError, Verdict, inspect, place};
use crate::mail::TransactionId;
use crate::recovery::{self, Rebuild, Replay, Target, Traces};
use crate::server::Failure;

/// How many keys are written at a time.
const WRITE_KEYS: usize = 1024;

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Damaged data directory; it is not changed
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Directory for what is readable; it must be empty or not exist
    #[arg(long, value_name = "NEW")]
    to: PathBuf,
}

/// How one shard is read.
enum Source {
    Sound,
    Damaged(Salvage<ReadOnlyDisk>),
}

/// A shard while it is put together from what is readable.
struct Restored<'a> {
    rebuild: Rebuild<'a>,
    /// Since frames were lost: the keys that were set as a whole since. `None` while every value is the right
    /// one.
    known: Option<HashSet<Box<[u8]>>>,
    appends_left_out: u64,
    malformed_seqs: Vec<u64>,
}

pub fn run(options: &Options, out: &mut impl Write, progress: &Progress) -> Result<Verdict, ToolError> {
    let inspection = inspect(&options.directory)?;
    refuse_target(&options.directory, &options.to)?;
    let (layout, without_manifest) = layout(options, inspection.layout.as_ref(), &inspection)?;
    if let Some(reason) = without_manifest {
        writeln!(out, "{reason}")?;
        writeln!(
            out,
            "  taken instead, by what is in the files: layout {}, {} shards",
            layout.id, layout.shards
        )?;
    }
    let mut sources = Vec::new();
    let mut traces = Vec::new();
    for index in 0..layout.shards as usize {
        progress.begin("reading", index, layout.shards);
        let (source, its_traces) = examine(&layout, index, progress)?;
        sources.push(source);
        traces.push(its_traces);
    }
    let (cut_short, doubtful) = recovery::judge(&traces);
    drop(traces);

    let incomplete = |failure| ToolError::Incomplete { path: options.to.clone(), failure };
    let failed = |error| incomplete(Failure::Log { shard: None, error });
    let mut directory = DataDir::open(OsDisk, &options.to, LOCK_WAIT).map_err(failed)?;
    let new = directory.create_layout(layout.shards).map_err(failed)?;
    let (mut keys, mut has_lost) = (0, false);
    for (index, source) in sources.iter().enumerate() {
        progress.begin("writing", index, layout.shards);
        let restored = restore(&layout, index, source, &cut_short, progress);
        let restored = restored.map_err(|error| incomplete(error.of_shard(index)))?;
        let written =
            write(&restored, &new, index).map_err(|error| incomplete(Failure::log(index, error)))?;
        has_lost |= restored.has_lost(source);
        print(index, written, &restored, source, out)?;
        keys += written;
    }
    directory.activate(new).map_err(failed)?;
    if !cut_short.is_empty() {
        let count = cut_short.len();
        writeln!(out, "{count} commands over several shards were cut short by a crash and are left out")?;
    }
    if doubtful > 0 {
        writeln!(
            out,
            "{doubtful} commands over several shards are kept in part: frames of other parts are lost"
        )?;
    }
    writeln!(out, "kept {keys} keys in {} shards, written to {}", layout.shards, options.to.display())?;
    Ok(if has_lost || doubtful > 0 { Verdict::Damaged } else { Verdict::Sound })
}

/// Refuses a target that is in use, or whose files would lie within the directory that is read.
fn refuse_target(directory: &Path, to: &Path) -> Result<(), ToolError> {
    let cannot = |action, path: &Path| {
        let path = path.to_owned();
        move |source| ToolError::from(Error::Io { action, path, source })
    };
    match std::fs::read_dir(to) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(ToolError::TargetNotEmpty { path: to.to_owned() });
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(cannot("list", to)(error)),
    }
    let directory = directory.canonicalize().map_err(cannot("resolve", directory))?;
    let absolute = std::path::absolute(to).map_err(cannot("resolve", to))?;
    // What does not exist yet will lie where its nearest parent that does exist lies.
    let parent = absolute.ancestors().find_map(|parent| parent.canonicalize().ok());
    if parent.is_some_and(|parent| parent.starts_with(&directory)) {
        return Err(ToolError::TargetInside { path: to.to_owned() });
    }
    Ok(())
}

/// The layout to be read, and, if no manifest tells it, why.
fn layout(
    options: &Options,
    named: Result<&Option<Layout>, &Error>,
    inspection: &Inspection<ReadOnlyDisk>,
) -> Result<(Layout, Option<String>), ToolError> {
    let no_data = || ToolError::NoData { path: options.directory.clone() };
    match named {
        Ok(layout) => Ok((layout.clone().ok_or_else(no_data)?, None)),
        Err(error @ (Error::MissingManifest { .. } | Error::DamagedManifest { .. })) => {
            let likely = inspection.likely_layout()?.ok_or_else(no_data)?;
            Ok((likely, Some(error.to_string())))
        }
        Err(Error::NewerVersion { path, found, supported }) => {
            let (path, found, supported) = (path.clone(), *found, *supported);
            Err(Error::NewerVersion { path, found, supported }.into())
        }
        Err(_) => Err(no_data()),
    }
}

/// Reads a shard once: whether it is sound, where its good frames are, and what they tell about transactions.
fn examine(layout: &Layout, index: usize, progress: &Progress) -> Result<(Source, Traces), ToolError> {
    let (directory, place) = (layout.shard_dir(index as u32), place(layout, index));
    let mut traces = Traces::default();
    let checked = wal::check(&ReadOnlyDisk, &directory, place, |record: Record<'_>| {
        progress.at(&record);
        traces.note(&record);
        let malformed = |error| Replay::Malformed { seq: record.seq, error };
        shard::decode(record.payload).try_for_each(|change| change.map(drop).map_err(malformed))
    });
    if checked.is_ok() {
        return Ok((Source::Sound, traces));
    }
    let failed = |error| Failure::log(index, error);
    let salvage = Salvage::plan(&ReadOnlyDisk, &directory, place).map_err(failed)?;
    traces = Traces::default();
    traces.has_gaps = true;
    let note = |salvaged: Salvaged<'_>| {
        if let Salvaged::Record(record) = salvaged {
            progress.at(&record);
            traces.note(&record);
        }
        Ok(())
    };
    salvage.replay(note).map_err(failed)?;
    Ok((Source::Damaged(salvage), traces))
}

fn restore<'a>(
    layout: &Layout,
    index: usize,
    source: &Source,
    cut_short: &'a HashSet<TransactionId>,
    progress: &Progress,
) -> Result<Restored<'a>, Replay> {
    let mut restored = Restored {
        rebuild: Rebuild::new(cut_short),
        known: None,
        appends_left_out: 0,
        malformed_seqs: Vec::new(),
    };
    match source {
        Source::Sound => {
            let (directory, place) = (layout.shard_dir(index as u32), place(layout, index));
            wal::check(&ReadOnlyDisk, &directory, place, |record: Record<'_>| {
                progress.at(&record);
                restored.rebuild.apply(&record)
            })?;
        }
        Source::Damaged(salvage) => salvage.replay(|salvaged| {
            match salvaged {
                Salvaged::Gap => restored.known = Some(HashSet::new()),
                Salvaged::Record(record) => {
                    progress.at(&record);
                    restored.apply(&record);
                }
            }
            Ok::<_, Replay>(())
        })?,
    }
    Ok(restored)
}

impl Restored<'_> {
    fn apply(&mut self, record: &Record<'_>) {
        if self.rebuild.leaves_out(record) {
            return;
        }
        for change in shard::decode(record.payload) {
            let Ok(change) = change else {
                self.malformed_seqs.push(record.seq);
                self.known = Some(HashSet::new());
                return;
            };
            if self.is_trusted(&change) {
                self.rebuild.shard.apply(&change);
            } else {
                self.appends_left_out += 1;
            }
        }
    }

    /// Whether a change gives a value that once was, whatever was lost before it.
    fn is_trusted(&mut self, change: &Change<'_>) -> bool {
        let Some(known) = &mut self.known else { return true };
        match change {
            Change::Put { key, .. } | Change::Remove { key } => {
                known.insert((*key).into());
            }
            Change::Clear => self.known = None,
            Change::Deadline { .. } => {}
            Change::Splice { key, .. } => return known.contains(*key),
        }
        true
    }

    fn has_lost(&self, source: &Source) -> bool {
        let lost_frames = matches!(source, Source::Damaged(salvage) if !salvage.losses().is_empty());
        lost_frames || self.appends_left_out > 0 || !self.malformed_seqs.is_empty()
    }
}

/// Writes all keys into the shard of the new layout; returns how many.
fn write(restored: &Restored<'_>, new: &Layout, index: usize) -> Result<u64, Error> {
    let mut target = Target::create(&OsDisk, new, index)?;
    let mut keys = 0;
    let mut position = Some(0);
    while let Some(from) = position {
        let mut written = Ok(());
        // Time 0: what has expired is kept too, and expires when the server starts.
        position = restored.rebuild.shard.walk(from, WRITE_KEYS, 0, |key, value, deadline_ms| {
            if written.is_ok() {
                written = target.put(&Change::Put { key, value, deadline_ms });
                keys += 1;
            }
        });
        written?;
    }
    target.finish()?;
    Ok(keys)
}

fn print(
    index: usize,
    keys: u64,
    restored: &Restored<'_>,
    source: &Source,
    out: &mut impl Write,
) -> Result<(), ToolError> {
    let lost = if restored.has_lost(source) { "" } else { ", lost nothing" };
    writeln!(out, "shard {index}: kept {keys} keys{lost}")?;
    if let Source::Damaged(salvage) = source {
        for loss in salvage.losses() {
            writeln!(out, "  lost: {loss}")?;
        }
    }
    for seq in &restored.malformed_seqs {
        writeln!(out, "  lost: changes in frame {seq}, which are malformed")?;
    }
    if restored.appends_left_out > 0 {
        let count = restored.appends_left_out;
        writeln!(out, "  left out: {count} changes to a part of a value whose other parts are lost")?;
    }
    if restored.known.is_some() {
        writeln!(out, "  keys that were last changed in lost frames have older values, or are there again")?;
    }
    Ok(())
}
