//! The offline tools on a data directory: `kvlite check`, `kvlite repair`, `kvlite dump`.
//!
//! They read through a disk that cannot change anything, while holding the directory's lock: a server that
//! runs changes its files under the reader, so they refuse to look at those. What they find they say on
//! standard output, why they failed on standard error. They judge as recovery does, by the same code, and
//! never less strictly.

mod check;
mod dump;
mod repair;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use wal::{DataDir, Error, Inspection, Layout, Loss, Place, ReadOnlyDisk, Record, Recovered, Salvage};

use crate::config::HELP_COLUMNS;
use crate::failure::Failure;
use crate::progress::Progress;

/// How long a lock is waited for: that of a server that was just killed is free in a moment.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// One call of a tool.
#[derive(Clone, Debug, Subcommand)]
pub enum Tool {
    /// Verifies a data directory and changes nothing
    #[command(after_help = CHECK_STATUS)]
    Check(check::Options),
    /// Salvages what is readable of a damaged data directory into a new one
    #[command(after_help = REPAIR_STATUS)]
    Repair(repair::Options),
    /// Prints the records of a data directory
    #[command(after_help = DUMP_STATUS)]
    Dump(dump::Options),
}

const CHECK_STATUS: &str = "Exit status: 0 when the directory is sound (what a crash leaves is no damage: a \
    torn end, commands that it cut short), 1 when it is damaged, 2 for a usage error, 3 when it could not be \
    checked.";
const REPAIR_STATUS: &str = "Exit status: 0 when nothing was lost, 1 when something was, 2 for a usage \
    error, 3 when it failed and no new directory was completed.";
const DUMP_STATUS: &str = "Exit status: 0 when all was printed, 1 when --log met damage, 2 for a usage \
    error, 3 when it failed and not all was printed.";

/// The exit status of a tool that could not do its work. 2 is that of a usage error.
const EXIT_FAILED: i32 = 3;

/// What a tool found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing is wrong.
    Sound,
    /// Something is damaged or lost; it was said what.
    Damaged,
}

/// Why a tool could not do its work.
#[derive(Debug)]
pub enum ToolError {
    /// A server holds the lock.
    Running {
        /// The data directory.
        path: PathBuf,
    },
    /// The files cannot be read, or the new ones not be written.
    Failure(Failure),
    /// There is no log file and no snapshot.
    NoData {
        /// The data directory.
        path: PathBuf,
    },
    /// The directory to be written has something in it.
    TargetNotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The directory to be written is what an earlier repair was to fill and has not.
    TargetUnfinished {
        /// The directory.
        path: PathBuf,
    },
    /// The directory to be written lies in the one that is read.
    TargetInside {
        /// The directory.
        path: PathBuf,
    },
    /// The directory to be written was begun and not completed.
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// Why.
        failure: Box<Failure>,
    },
    /// No line of the text protocol can hold this key.
    KeyTooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// Standard output cannot be written.
    Output(io::Error),
}

/// The command line when it begins with a tool.
#[derive(Debug, Parser)]
#[command(name = "kvlite", version, max_term_width = HELP_COLUMNS)]
struct CommandLine {
    #[command(subcommand)]
    tool: Tool,
}

impl Tool {
    /// The tool that this process was called for; `None` if it is to be a server. Prints and exits by itself
    /// after `--help` and after a usage error.
    pub fn from_process() -> Option<Tool> {
        let args: Vec<OsString> = std::env::args_os().collect();
        let called = args.get(1).is_some_and(|name| Tool::has_subcommand(&name.to_string_lossy()));
        called.then(|| CommandLine::parse_from(args).tool)
    }

    /// Does the work and says on standard output what it found, on standard error why it failed. Returns the
    /// exit status of the process.
    pub fn run(&self) -> i32 {
        let mut out = BufWriter::new(io::stdout().lock());
        let done = self.run_to(&mut out).and_then(|finding| {
            out.flush()?;
            Ok(finding)
        });
        match done {
            Ok(Finding::Sound) => 0,
            Ok(Finding::Damaged) => 1,
            Err(error) => {
                // What was found before stands before the error.
                let _ = out.flush();
                // The reader that closed the pipe has seen enough.
                if !matches!(&error, ToolError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
                    eprintln!("error: {error}");
                }
                EXIT_FAILED
            }
        }
    }

    /// As [`Self::run`], with the output elsewhere.
    ///
    /// # Errors
    /// [`ToolError`].
    pub fn run_to(&self, out: &mut impl Write) -> Result<Finding, ToolError> {
        let progress = Progress::new();
        match self {
            Tool::Check(options) => check::run(options, out, &progress),
            Tool::Repair(options) => repair::run(options, out, &progress),
            Tool::Dump(options) => dump::run(options, out, &progress),
        }
    }
}

/// Locks a directory and reads its manifest, without changing anything.
fn inspect(disk: ReadOnlyDisk, path: &Path) -> Result<Inspection<ReadOnlyDisk>, ToolError> {
    DataDir::inspect(disk, path, LOCK_WAIT).map_err(|error| match error {
        Error::Locked { .. } => ToolError::Running { path: path.to_owned() },
        error => ToolError::from(error),
    })
}

fn place(layout: &Layout, index: usize) -> Place {
    layout.place(index as u32)
}

/// Reads a shard as a start does.
fn read<E: From<Error>>(
    disk: &ReadOnlyDisk,
    layout: &Layout,
    index: usize,
    on_record: impl FnMut(Record<'_>) -> Result<(), E>,
) -> Result<Recovered, E> {
    layout.expect_synced(disk, index as u32)?;
    wal::check(disk, &layout.shard_dir(index as u32), place(layout, index), on_record)
}

/// What can be read of a shard that [`read`] refuses.
fn salvage(disk: &ReadOnlyDisk, layout: &Layout, index: usize) -> Result<Salvage<ReadOnlyDisk>, Error> {
    let mut salvage = Salvage::plan(disk, &layout.shard_dir(index as u32), place(layout, index))?;
    if let Err(Error::MissingSynced { path, .. }) = layout.expect_synced(disk, index as u32) {
        salvage.add_loss(Loss::End { path });
    }
    Ok(salvage)
}

/// The name of a file without its directories, for reports that name those elsewhere.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(OsStr::new("")).to_string_lossy().into_owned()
}

impl From<Error> for ToolError {
    fn from(error: Error) -> ToolError {
        ToolError::Failure(Failure::Log { shard: None, error })
    }
}

impl From<Failure> for ToolError {
    fn from(failure: Failure) -> ToolError {
        ToolError::Failure(failure)
    }
}

impl From<io::Error> for ToolError {
    fn from(error: io::Error) -> ToolError {
        ToolError::Output(error)
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ToolError::Running { path } => write!(
                f,
                "a server is running on {}, and its files change while they are read; stop it, or work on a \
                 copy of the directory",
                path.display()
            ),
            ToolError::Failure(failure) => write!(f, "{failure}"),
            ToolError::NoData { path } => {
                write!(f, "{} holds no log file and no snapshot; is it a data directory?", path.display())
            }
            ToolError::TargetNotEmpty { path } => {
                write!(
                    f,
                    "{} is not empty; give --to a directory that is, or that does not exist",
                    path.display()
                )
            }
            ToolError::TargetUnfinished { path } => write!(
                f,
                "{} is incomplete: a repair is filling it, or was cut short; remove it once none runs, and try again",
                path.display()
            ),
            ToolError::TargetInside { path } => write!(
                f,
                "{} lies in the directory that is to be repaired, which is never changed; give --to \
                 another one",
                path.display()
            ),
            ToolError::Incomplete { path, failure } => {
                write!(f, "{failure}; {} is incomplete: remove it before you try again", path.display())
            }
            ToolError::KeyTooLong { bytes } => write!(
                f,
                "a key of {bytes} bytes fits no line of the text protocol; dump with --json instead"
            ),
            ToolError::Output(error) => write!(f, "cannot write to standard output: {error}"),
        }
    }
}

impl std::error::Error for ToolError {}

#[cfg(test)]
mod tests;
