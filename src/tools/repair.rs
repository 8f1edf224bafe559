//! `kvlite repair`: what is readable of a data directory, as a new one on which a server starts.
//!
//! Sound shards are taken over as recovery reads them, damaged ones as far as [`wal::Salvage`] reads them.
//! The old directory is never changed.
//!
//! Behind lost frames of a log a key may have an older value than the log's next changes expect. What such a
//! change sets as a whole counts; an append to a value of which nothing tells that it is the right one is
//! skipped, so that no value comes out that never was.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use shard::{Change, Shard};
use wal::{
    DataDir, Error, Inspection, Layout, Loss, OsDisk, ReadOnlyDisk, Record, Recovered, Salvage, Salvaged,
};

use super::{Finding, LOCK_WAIT, Progress, ToolError, inspect};
use crate::config::Boot;
use crate::failure::Failure;
use crate::recovery::in_doubt::{self, Resolution, Standing};
use crate::recovery::{self, ReplayError, Target};
use crate::slots;

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Damaged data directory; it is not changed
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Directory for what is readable; it must be empty or not exist
    #[arg(long, value_name = "NEW")]
    to: PathBuf,

    /// Also bring back commands over several shards that a start aborted after a crash, where all of their parts are
    /// there by now
    #[arg(long)]
    with_aborted: bool,

    #[command(flatten)]
    boot: Boot,
}

/// One shard of the old directory.
struct Source<'a> {
    disk: ReadOnlyDisk,
    layout: &'a Layout,
    index: usize,
    /// What can be read of it; `None` when it is sound.
    salvage: Option<Salvage<ReadOnlyDisk>>,
}

/// A shard while it is put together from what is readable.
struct Restored {
    shard: Shard,
    /// The keyspace that the changes of the frame are about.
    keyspace: u16,
    /// Since frames were lost: the keys that were set as a whole since, with their keyspaces. `None` while every value is
    /// the right one.
    known: Option<HashSet<(u16, Box<[u8]>)>>,
    appends_skipped: u64,
    malformed_seqs: Vec<u64>,
    /// Changes of keys that other shards own: a file of one of them lies here, and its header does not say so any more.
    strange: u64,
}

pub fn run(options: &Options, out: &mut impl Write, progress: &Progress) -> Result<Finding, ToolError> {
    let disk = ReadOnlyDisk::in_boot(options.boot.id());
    let mut inspection = inspect(disk, &options.directory)?;
    refuse_target(&options.directory, &options.to)?;
    let named = std::mem::replace(&mut inspection.layout, Ok(None));
    let (layout, without_manifest) = layout(options, named, &inspection)?;
    if let Some(reason) = without_manifest {
        writeln!(out, "{reason}")?;
        writeln!(
            out,
            "  taken instead, by what is in the files: layout {}, {} shards",
            layout.id, layout.shards
        )?;
    }
    let mut sources = Vec::new();
    for index in 0..layout.shards as usize {
        progress.begin("reading", index, layout.shards);
        sources.push(Source::examine(disk, &layout, index, progress)?);
    }
    progress.say("comparing the shards");
    let mut shortened = HashSet::new();
    let resolution = loop {
        let resolution = compare(&sources, &shortened, options.with_aborted)?;
        // A log that seems whole and lacks what another one knows of has lost its end.
        let Some(contradiction) = resolution.contradiction else { break resolution };
        shortened.insert(contradiction.lacking);
    };

    let incomplete = |failure| ToolError::Incomplete { path: options.to.clone(), failure: Box::new(failure) };
    let failed = |error| incomplete(Failure::Log { shard: None, error });
    let mut directory = DataDir::begin(OsDisk::default(), &options.to, LOCK_WAIT).map_err(failed)?;
    let new = directory.create_layout(layout.shards, recovery::random_tag()).map_err(failed)?;
    let (mut keys, mut has_lost) = (0, resolution.in_doubt > 0);
    for (index, source) in sources.iter().enumerate() {
        progress.begin("writing", index, layout.shards);
        let restored = Restored::from(source, &resolution, progress)
            .map_err(|error| incomplete(error.of_shard(index)))?;
        restored.write(&new, index).map_err(|error| incomplete(Failure::log(index, error)))?;
        print(&restored, source, &resolution, shortened.contains(&index), out)?;
        has_lost |= restored.has_lost(source) || shortened.contains(&index);
        keys += restored.shard.key_count();
    }
    directory.activate(new).map_err(failed)?;
    if !resolution.aborted.is_empty() {
        let count = resolution.aborted.len();
        writeln!(out, "{count} commands over several shards were cut short by a crash and are aborted")?;
    }
    if resolution.in_doubt > 0 {
        let count = resolution.in_doubt;
        writeln!(
            out,
            "{count} commands over several shards are kept in part: frames of other parts are lost"
        )?;
    }
    writeln!(out, "kept {keys} keys in {} shards, written to {}", layout.shards, options.to.display())?;
    Ok(if has_lost { Finding::Damaged } else { Finding::Sound })
}

/// What counts of all shards; those of which damage has taken something, and those that are `shortened`, may lack
/// parts. `with_aborted`: what a start has said of transactions does not count.
fn compare(
    sources: &[Source<'_>],
    shortened: &HashSet<usize>,
    with_aborted: bool,
) -> Result<Resolution, ToolError> {
    let resolution = in_doubt::reach_by(sources.len() as u32, |index, on_record| {
        let source = &sources[index as usize];
        let read = source.read(|salvaged| {
            if let Salvaged::Record(record) = salvaged
                && !(with_aborted && in_doubt::is_mark(&record))
            {
                on_record(record);
            }
            Ok::<_, Error>(())
        });
        let recovered = read.map_err(|error| Failure::log(source.index, error))?;
        let has_lost = source.salvage.is_some() || shortened.contains(&source.index);
        let Recovered { settled_seq, is_same_boot, .. } = recovered.unwrap_or_default();
        Ok(Standing { has_lost, settled_seq, is_same_boot })
    })?;
    Ok(resolution)
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
                let path = to.to_owned();
                return Err(match wal::is_unfinished(to) {
                    true => ToolError::TargetUnfinished { path },
                    false => ToolError::TargetNotEmpty { path },
                });
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
    named: Result<Option<Layout>, Error>,
    inspection: &Inspection<ReadOnlyDisk>,
) -> Result<(Layout, Option<String>), ToolError> {
    let no_data = || ToolError::NoData { path: options.directory.clone() };
    match named {
        Ok(layout) => {
            let named = layout.ok_or_else(no_data)?;
            let likely = if inspection.is_foreign(&named)? { inspection.likely_layout()? } else { None };
            let manifest = options.directory.join("MANIFEST");
            Ok(match likely {
                None => (named, None),
                Some(likely) => {
                    (likely, Some(format!("{} is of another data directory", manifest.display())))
                }
            })
        }
        Err(error @ (Error::MissingManifest { .. } | Error::DamagedManifest { .. })) => {
            let likely = inspection.likely_layout()?.ok_or_else(no_data)?;
            Ok((likely, Some(error.to_string())))
        }
        Err(error @ (Error::NewerVersion { .. } | Error::Unfinished { .. })) => Err(error.into()),
        Err(error) if error.is_forbidden() => Err(error.into()),
        Err(_) => Err(no_data()),
    }
}

impl Source<'_> {
    /// Reads a shard once: whether it is sound, and if not, where its good frames are.
    fn examine<'a>(
        disk: ReadOnlyDisk,
        layout: &'a Layout,
        index: usize,
        progress: &Progress,
    ) -> Result<Source<'a>, ToolError> {
        let source = Source { disk, layout, index, salvage: None };
        let checked = source.read(|salvaged| {
            let Salvaged::Record(record) = salvaged else { return Ok(()) };
            progress.at(&record);
            let malformed = |error| ReplayError::Malformed { seq: record.seq, error };
            shard::decode(record.payload).try_for_each(|change| change.map(drop).map_err(malformed))
        });
        if checked.is_ok() {
            return Ok(source);
        }
        let salvage = super::salvage(&disk, layout, index).map_err(|error| Failure::log(index, error))?;
        Ok(Source { salvage: Some(salvage), ..source })
    }

    /// Hands on everything readable, in order. Returns what a start would find, where it would.
    fn read<E: From<Error>>(
        &self,
        mut on_salvaged: impl FnMut(Salvaged<'_>) -> Result<(), E>,
    ) -> Result<Option<Recovered>, E> {
        if let Some(salvage) = &self.salvage {
            return salvage.replay(on_salvaged).map(|()| None);
        }
        let on_record = |record: Record<'_>| on_salvaged(Salvaged::Record(record));
        super::read(&self.disk, self.layout, self.index, on_record).map(Some)
    }

    fn losses(&self) -> &[Loss] {
        self.salvage.as_ref().map_or(&[], Salvage::losses)
    }
}

impl Restored {
    fn from(
        source: &Source<'_>,
        resolution: &Resolution,
        progress: &Progress,
    ) -> Result<Restored, ReplayError> {
        let mut restored = Restored {
            shard: Shard::new(recovery::random_seeds()),
            keyspace: 0,
            known: None,
            appends_skipped: 0,
            malformed_seqs: Vec::new(),
            strange: 0,
        };
        source.read(|salvaged| {
            match salvaged {
                Salvaged::Gap => restored.known = Some(HashSet::new()),
                Salvaged::Record(record) => {
                    progress.at(&record);
                    if resolution.counts(source.index as u32, &record) {
                        restored.apply(&record, source);
                    }
                }
            }
            Ok::<_, ReplayError>(())
        })?;
        Ok(restored)
    }

    fn apply(&mut self, record: &Record<'_>, source: &Source<'_>) {
        self.keyspace = 0;
        self.shard.apply(&Change::Keyspace(0));
        for change in shard::decode(record.payload) {
            let Ok(change) = change else {
                self.malformed_seqs.push(record.seq);
                self.known = Some(HashSet::new());
                return;
            };
            let owner = |key| slots::owner(key, source.layout.shards as usize);
            if change.key().is_some_and(|key| owner(key) != source.index) {
                self.strange += 1;
            } else if self.is_trusted(&change) {
                self.shard.apply(&change);
            } else {
                self.appends_skipped += 1;
            }
        }
    }

    /// Whether a change gives a value that once was, whatever was lost before it.
    fn is_trusted(&mut self, change: &Change<'_>) -> bool {
        if let Change::Keyspace(number) = change {
            self.keyspace = *number;
        }
        let Some(known) = &mut self.known else { return true };
        match change {
            Change::Put { key, .. } | Change::Remove { key } => {
                known.insert((self.keyspace, (*key).into()));
            }
            Change::Clear => self.known = None,
            // A key that is not there is made as a whole, and then known.
            Change::ClearKeyspace => {}
            Change::Deadline { .. } | Change::Clocks(_) | Change::Keyspace(_) | Change::Databases(_) => {}
            Change::Splice { key, .. } => return known.contains(&(self.keyspace, (*key).into())),
        }
        true
    }

    fn has_lost(&self, source: &Source<'_>) -> bool {
        let aborted = self.appends_skipped + self.strange;
        !source.losses().is_empty() || aborted > 0 || !self.malformed_seqs.is_empty()
    }

    /// Writes all keys into the shard of the new layout. What has expired is kept too, and expires when the
    /// server starts.
    fn write(&self, new: &Layout, index: usize) -> Result<(), Error> {
        let mut target = Target::create(&OsDisk::default(), new, index)?;
        recovery::write_all(&self.shard, |database, change| target.put(database, change))?;
        target.finish()
    }
}

fn print(
    restored: &Restored,
    source: &Source<'_>,
    resolution: &Resolution,
    is_shortened: bool,
    out: &mut impl Write,
) -> Result<(), ToolError> {
    let lost = if restored.has_lost(source) || is_shortened { "" } else { ", lost nothing" };
    writeln!(out, "shard {}: kept {} keys{lost}", source.index, restored.shard.key_count())?;
    for loss in source.losses() {
        writeln!(out, "  lost: {loss}")?;
    }
    if is_shortened {
        writeln!(out, "  lost: the end of the log, of which another shard knows")?;
    }
    if let Some(Some(seq)) = resolution.truncations.get(source.index) {
        writeln!(
            out,
            "  left out: frame {seq} of the log and what follows, which build on what another shard lost in \
             a power cut"
        )?;
    }
    for seq in &restored.malformed_seqs {
        writeln!(out, "  lost: changes in frame {seq}, which are malformed")?;
    }
    if restored.strange > 0 {
        let count = restored.strange;
        writeln!(out, "  lost: {count} changes of keys that belong to other shards, whose file lies here")?;
    }
    if restored.appends_skipped > 0 {
        let count = restored.appends_skipped;
        writeln!(out, "  left out: {count} changes to a part of a value whose other parts are lost")?;
    }
    if restored.known.is_some() {
        writeln!(out, "  keys that were last changed in lost frames have older values, or are there again")?;
    }
    Ok(())
}
