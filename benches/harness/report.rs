//! Medians, ratios, and the Markdown that they are kept in.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kvlite::config::usable_cpus;

use super::{Common, Outcome};

/// The middle value, or the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
}

/// The ratios `ours / others` of each round: their median, the least and the greatest.
pub fn ratio(ours: &[f64], others: &[f64]) -> String {
    let ratios: Vec<f64> = ours.iter().zip(others).map(|(ours, other)| ours / other).collect();
    let (least, greatest) =
        ratios.iter().fold((f64::MAX, f64::MIN), |(least, greatest), r| (least.min(*r), greatest.max(*r)));
    format!("{:.2} ({least:.2} to {greatest:.2})", median(ratios))
}

/// The ratios `ours / others` of each round: their median.
pub fn median_ratio(ours: &[f64], others: &[f64]) -> f64 {
    median(ours.iter().zip(others).map(|(ours, other)| ours / other).collect())
}

/// A report that grows table by table.
pub struct Report {
    text: String,
    output: Option<PathBuf>,
}

impl Report {
    /// A report with the facts that every figure depends on: the command, the machine, the versions of kvlite
    /// and of the `peers`, and the `notes`.
    pub fn new(
        name: &str,
        title: &str,
        options: &Common,
        complete: bool,
        peers: &[&str],
        notes: &[&str],
    ) -> Outcome<Report> {
        let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
        let args = if args.is_empty() { String::new() } else { format!(" ARGS=\"{}\"", args.join(" ")) };
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        let load = fs::read_to_string("/proc/loadavg")?;
        let kvlite = printed(&options.kvlite_binary.display().to_string(), &["--version"])?;
        let commit =
            printed("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(|_| "unknown".to_owned());
        let mut text = String::new();
        writeln!(text, "# {title}\n")?;
        for line in [
            format!("Command: `make bench-{name}{args}`"),
            format!("Day: {}", printed("date", &["-u", "+%F"])?),
            format!("Machine: {}, {} usable CPUs", model.trim_matches([' ', ':', '\t']), usable_cpus().len()),
            format!("Kernel: {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim()),
            format!("Load average before: {}", load.split(' ').take(3).collect::<Vec<_>>().join(" ")),
            format!("kvlite: {kvlite}, commit {commit}"),
            format!(
                "Figures: medians of {} rounds in turns; a ratio is kvlite's figure by the other's, the \
                 median of the rounds (least to greatest)",
                options.rounds()
            ),
        ] {
            writeln!(text, "- {line}")?;
        }
        for peer in peers {
            let program = Path::new(peer).file_name().unwrap_or_default().display();
            writeln!(text, "- {program}: {}", printed(peer, &["--version"])?)?;
        }
        for note in notes {
            writeln!(text, "- {note}")?;
        }
        Ok(Report { text, output: options.output(name, complete) })
    }

    /// Begins a section, with a text if there is one.
    pub fn section(&mut self, title: &str, text: &str) {
        self.text.push_str(&format!("\n## {title}\n"));
        if !text.is_empty() {
            self.text.push_str(&format!("\n{text}\n"));
        }
    }

    /// Appends a table; the first column is text, the others are right-aligned.
    pub fn table(&mut self, columns: &[&str], rows: &[Vec<String>]) {
        let rule = columns.iter().enumerate().map(|(index, _)| if index == 0 { "---" } else { "---:" });
        let rule: Vec<&str> = rule.collect();
        self.text.push_str(&format!("\n| {} |\n| {} |\n", columns.join(" | "), rule.join(" | ")));
        for row in rows {
            self.text.push_str(&format!("| {} |\n", row.join(" | ")));
        }
    }

    /// The path of a plot beside the report, where it is kept.
    pub fn plot_path(&self, name: &str) -> Option<PathBuf> {
        Some(self.output.as_ref()?.with_file_name(format!("{name}.svg")))
    }

    /// Shows a plot that was written to this path.
    pub fn image(&mut self, title: &str, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.text.push_str(&format!("\n![{title}]({name})\n"));
    }

    /// Prints the report, and writes it where it is kept.
    pub fn finish(&self) -> Outcome<()> {
        println!("\n{}", self.text);
        if let Some(path) = &self.output {
            fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            fs::write(path, &self.text)?;
            eprintln!("written to {}", path.display());
        }
        Ok(())
    }
}

/// The first line that a program prints.
pub fn printed(program: &str, args: &[&str]) -> Outcome<String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} ended with {}", output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}
