//! What the programs that compare kvlite with other servers stand on: servers that are started and measured
//! in turns, load from outside, CPU time and memory as the kernel counts them, tables, plots.
//!
//! A figure is the median over the rounds; a ratio is the median of the ratios of single rounds, so that a
//! machine that slows down meanwhile slows both sides. Nothing is measured without a peer in the same run,
//! and neither a process nor data is left behind.

#![allow(dead_code)] // No program uses all of it.

pub mod load; // requests from outside, and what they found
pub mod plot; // bars, as SVG
pub mod report; // medians, ratios, Markdown
pub mod server; // one server: start, pause, CPU time, memory, end

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What can fail, in words.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The options of every program.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Rounds; each measures every server once [default: 5, with --quick 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Measure less and shorter: for a first look, not for figures to keep
    #[arg(long)]
    pub quick: bool,
    /// Server to measure as kvlite
    #[arg(long, default_value = env!("CARGO_BIN_EXE_kvlite"), value_name = "PATH")]
    pub kvlite_binary: PathBuf,
    /// File to write the tables to, and plots beside it [default: in benches/results for complete runs]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What `cargo bench` passes to every benchmark; `cargo test --all-targets` does not
    #[arg(long, hide = true)]
    bench: bool,
}

impl Common {
    /// How often each server is measured.
    pub fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 5 }) as usize
    }

    /// The file that takes the tables, if one does. Only a run that is `complete` and long enough replaces
    /// the results that are kept.
    pub fn output(&self, name: &str, complete: bool) -> Option<PathBuf> {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results").join(format!("{name}.md"));
        self.output.clone().or((complete && !self.quick).then_some(kept))
    }
}

/// Runs a program, unless it was only built and started by `cargo test --all-targets`.
pub fn run(name: &str, options: &Common, body: impl FnOnce() -> Outcome<()>) -> ExitCode {
    if !options.bench {
        eprintln!("{name}: nothing is measured without --bench, which `cargo bench` passes");
        return ExitCode::SUCCESS;
    }
    match body() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
