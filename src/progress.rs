//! A bar on standard error while something lasts, if that is a terminal; nothing otherwise.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use wal::Record;

/// The bar of one tool. It vanishes when the tool is done.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar that shows nothing yet.
    #[allow(clippy::new_without_default)] // It draws on a terminal, which has no default.
    pub fn new() -> Progress {
        // The target hides the bar where it is not seen.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}");
        Progress(bar.with_style(style.expect("the template names only what indicatif knows")))
    }

    /// Begins one shard.
    pub fn begin(&self, what: &str, index: usize, count: u32) {
        self.0.reset();
        self.0.set_message(format!("{what} shard {} of {count}", index + 1));
    }

    /// Begins something of so many bytes.
    pub fn begin_bytes(&self, what: &'static str, total: u64) {
        self.0.reset();
        self.0.set_message(what);
        self.0.set_length(total);
    }

    /// Begins something whose length is not known.
    pub fn say(&self, what: &'static str) {
        self.0.reset();
        self.0.set_message(what);
    }

    /// Goes on to this record.
    pub fn at(&self, record: &Record<'_>) {
        self.0.set_length(record.total_bytes);
        self.0.set_position(record.read_bytes);
    }

    /// Goes on to this byte.
    pub fn at_byte(&self, offset: u64) {
        self.0.set_position(offset);
    }

    /// Writes a line to standard error, above the bar.
    pub fn tell(&self, line: &str) {
        self.0.suspend(|| eprintln!("{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
