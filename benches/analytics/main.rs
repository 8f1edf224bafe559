//! The quality of the analytics: what they say, held against what is known to be true.
//!
//! Each module makes a load of which the truth is known, feeds the analytics with it, and prints a table. The
//! loads are synthetic, and every table says so; `TRACES=folder` adds real traces that lie there. The same
//! seeds give the same tables on every machine: nothing here is a timing.
//!
//! `cargo bench --profile sim --bench analytics` prints all tables and keeps them in
//! `benches/results/analytics.md`. Under `cargo test` a short version runs on fixed seeds. Both end with an
//! error if a target is missed.

mod anomalies;
mod forecast;
mod hot;
mod reuse;
mod streams;
mod ttl;
mod weeks;

use std::path::Path;
use std::process::ExitCode;

/// How much is computed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Some seconds without optimisation: it finds what is broken.
    Short,
    /// Minutes with it: figures to keep.
    Full,
}

/// A part of the table of qualities.
pub struct Section {
    /// Markdown: a heading, where the load comes from, a table.
    pub text: String,
    /// The targets that were missed, with the figures.
    pub missed: Vec<String>,
}

fn main() -> ExitCode {
    // What `cargo bench` passes and `cargo test` does not.
    let extent = if std::env::args().any(|arg| arg == "--bench") { Extent::Full } else { Extent::Short };
    let sections = [
        hot::section(extent),
        ttl::section(extent),
        reuse::section(extent),
        anomalies::section(extent),
        forecast::section(extent),
    ];
    let mut report = String::from(
        "# Quality of the analytics\n\nMade by `make analytics-quality`. Loads are synthetic but for \
         traces that are called real: see `benches/analytics`.\n",
    );
    for section in &sections {
        report.push('\n');
        report.push_str(&section.text);
    }
    println!("{report}");
    if extent == Extent::Full {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results/analytics.md");
        if let Err(error) = std::fs::write(&kept, report) {
            eprintln!("{}: {error}", kept.display());
            return ExitCode::FAILURE;
        }
        eprintln!("written to {}", kept.display());
    }
    let missed: Vec<_> = sections.iter().flat_map(|section| &section.missed).collect();
    for target in &missed {
        eprintln!("missed: {target}");
    }
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
