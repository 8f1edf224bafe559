//! The server's own log lines: where they go and in which form. Never what they say.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Sends the log lines of every thread of this process to standard error from now on, filtered and formed as
/// the options ask. To be called once; a later call does nothing.
pub fn init(config: &Config) {
    let filter = EnvFilter::new(&config.log_level);
    let coloured = std::io::stderr().is_terminal();
    // Standard error may be a file on a disk that is full: a line that cannot be written is dropped, where the
    // default is to report that to standard error, which panics.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(coloured)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let _already_set = match config.log_format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
