//! The server's own log lines: where they go and in which form. Never what they say.
//!
//! A thread that logs does not wait: its lines go into a bounded queue, and a thread of its own writes them to
//! standard error. Its reader may be slow, or stop: clients are served as before. Lines for which there is no
//! room are dropped and counted, and a later line tells how many. [`exit`] ends the process, and lets the lines that
//! wait leave first.
//!
//! No line holds a character that could begin another line or steer a terminal, wherever it came from.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tracing::Metadata;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, Writer};

use crate::config::{Config, LogFormat};

/// So many bytes of lines wait to be written; what comes on top of them is dropped.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// How long the end of the process waits for the lines that are left: standard error may not be read any more.
const FLUSH_MAX: Duration = Duration::from_secs(1);

static QUEUE: Queue = Queue::new();

/// Sets the filter of the lines.
static FILTER: OnceLock<Box<dyn Fn(EnvFilter) + Send + Sync>> = OnceLock::new();

/// Sends the log lines of every thread of this process to standard error from now on, filtered and formed as
/// the options ask. To be called once.
///
/// # Errors
/// When there can be no further descriptor or thread.
pub fn init(config: &Config) -> io::Result<()> {
    // Not the standard library's own: a panic must not find it locked by a write that does not end.
    let out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    std::thread::Builder::new().name("kvlite-log".to_owned()).spawn(move || {
        QUEUE.write_to(&out, |lines| {
            tracing::error!(
                lines,
                "lines of this log were dropped: standard error took them too slowly, or not at all"
            );
        })
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log_level))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(Lines { format: config.log_format, queue: &QUEUE })
        .log_internal_errors(false);
    let _already_set = match config.log_format {
        LogFormat::Text => {
            let lines =
                lines.fmt_fields(format::debug_fn(write_field).delimited(" ")).with_filter_reloading();
            let filter = lines.reload_handle();
            let _already_set = FILTER.set(Box::new(move |new| drop(filter.reload(new))));
            lines.try_init()
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let filter = lines.reload_handle();
            let _already_set = FILTER.set(Box::new(move |new| drop(filter.reload(new))));
            lines.try_init()
        }
    };
    Ok(())
}

/// Filters by this from now on.
pub fn set_filter(filter: &str) {
    if let Some(set) = FILTER.get() {
        set(EnvFilter::new(filter));
    }
}

/// Waits until all lines so far are written, or could not be for [`FLUSH_MAX`].
pub fn flush() {
    QUEUE.flush(FLUSH_MAX);
}

/// How many lines were dropped since the start.
pub fn dropped_lines() -> usize {
    let waiting = QUEUE.lock();
    waiting.dropped + waiting.told
}

/// Ends the process, after [`flush`]. Without it the last lines are lost.
#[expect(clippy::disallowed_methods, reason = "the lines have left")]
pub fn exit(status: i32) -> ! {
    flush();
    std::process::exit(status)
}

/// Lines on their way to standard error.
struct Queue {
    waiting: Mutex<Waiting>,
    has_lines: Condvar,
    is_written: Condvar,
}

struct Waiting {
    lines: Vec<u8>,
    /// Lines that had been taken out are still being written.
    is_writing: bool,
    /// How many lines were dropped, of which no line has told yet.
    dropped: usize,
    /// How many of them lines have told of.
    told: usize,
}

impl Queue {
    const fn new() -> Queue {
        let waiting = Waiting { lines: Vec::new(), is_writing: false, dropped: 0, told: 0 };
        Queue { waiting: Mutex::new(waiting), has_lines: Condvar::new(), is_written: Condvar::new() }
    }

    /// It is held for as long as it takes to copy a line.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line, if there is room or it does not need any.
    fn push(&self, line: &[u8], needs_room: bool) {
        let mut waiting = self.lock();
        if needs_room && waiting.lines.len() + line.len() > QUEUE_BYTES_MAX {
            waiting.dropped += 1;
            return;
        }
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        self.has_lines.notify_one();
    }

    /// Writes what is added, for ever. What cannot be written, to a disk that is full or a pipe without a reader, is
    /// dropped. `tell` is told of dropped lines once lines can be written again.
    fn write_to(&self, out: &File, tell: impl Fn(usize)) -> ! {
        let mut lines = Vec::new();
        let mut is_torn = false;
        loop {
            lines.clear();
            if is_torn {
                lines.push(b'\n'); // What was written of the last line stays a line of its own.
            }
            self.take(&mut lines);
            let (written, unwritten) = lines.split_at(write_all(out, &lines));
            is_torn = written.last().map_or(is_torn, |last| *last != b'\n');
            let dropped = self.note_dropped(unwritten);
            if dropped > 0 {
                tell(dropped);
            }
        }
    }

    /// Moves the lines that wait to the end of `lines`, when there are any.
    fn take(&self, lines: &mut Vec<u8>) {
        let mut waiting = self.lock();
        waiting.is_writing = false;
        self.is_written.notify_all();
        let has_none = |waiting: &mut Waiting| waiting.lines.is_empty();
        waiting = self.has_lines.wait_while(waiting, has_none).unwrap_or_else(PoisonError::into_inner);
        waiting.is_writing = true;
        lines.append(&mut waiting.lines);
    }

    /// Counts the lines that could not be written. Returns how many were dropped so far; 0 while nothing can be
    /// written, a line about it neither.
    fn note_dropped(&self, unwritten: &[u8]) -> usize {
        let mut waiting = self.lock();
        if unwritten.is_empty() {
            waiting.told += waiting.dropped;
            return std::mem::take(&mut waiting.dropped);
        }
        waiting.dropped += unwritten.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        0
    }

    fn flush(&self, patience: Duration) {
        let is_under_way = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        // When it takes too long, the lines are lost.
        let _ = self.is_written.wait_timeout_while(self.lock(), patience, is_under_way);
    }
}

/// Writes as many of the bytes as can be written, however long that takes. Returns how many.
fn write_all(mut out: &File, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(count) if count > 0 => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another process that has the same terminal or pipe may have asked for that.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(out, PollFlags::OUT)], None); // Writing tells what failed.
            }
            _ => break,
        }
    }
    written
}

/// Puts formatted lines into a queue, one with each write.
#[derive(Clone, Copy)]
struct Lines {
    format: LogFormat,
    queue: &'static Queue,
}

/// The way of one line into the queue.
struct Line {
    of: Lines,
    needs_room: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { of: *self, needs_room: true }
    }

    /// What this module itself has to say is that there was no room.
    fn make_writer_for(&'a self, origin: &Metadata<'_>) -> Line {
        Line { of: *self, needs_room: origin.target() != module_path!() }
    }
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.of.format {
            LogFormat::Text => self.of.queue.push(line, self.needs_room),
            LogFormat::Json => self.of.queue.push(&escaped_json(line), self.needs_room),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// ---- what lines do not hold ----

/// Whether a character could begin another line, steer a terminal or change the order in which a line is shown.
pub fn is_deceptive(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text that fits in a line of a reply, whatever the names of files hold.
pub fn printable(text: &str) -> Arc<str> {
    text.chars().map(|char| if is_deceptive(char) { '?' } else { char }).collect::<String>().into()
}

/// One field of a line of text.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let mut escaping = Escaping(writer);
    match field.name() {
        "message" => write!(escaping, "{value:?}"),
        name => write!(escaping, "{name}={value:?}"),
    }
}

/// Writes deceptive characters as `\n`, `\u{1b}`.
struct Escaping<'a, W>(&'a mut W);

impl<W: fmt::Write> fmt::Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, char)) = rest.char_indices().find(|(_, char)| is_deceptive(*char)) {
            self.0.write_str(&rest[..at])?;
            write!(self.0, "{}", char.escape_default())?;
            rest = &rest[at + char.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// A line of JSON without the deceptive characters that may stand in its strings.
fn escaped_json(line: &[u8]) -> Vec<u8> {
    let mut escaped = String::with_capacity(line.len());
    for char in String::from_utf8_lossy(line).trim_end_matches('\n').chars() {
        match is_deceptive(char) {
            true => write!(escaped, "\\u{:04x}", u32::from(char)).expect("a string takes everything"),
            false => escaped.push(char),
        }
    }
    escaped.push('\n');
    escaped.into_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::os::fd::OwnedFd;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// What another process or client could bring into a line.
    const DECEPTIVE: &str = "x\n2026-01-01 ERROR forged\x1b[31m\u{9b}31m\x7f\0\u{2028}\u{202e}\r";

    /// What stands in the log when a message and a field hold this.
    fn logged(form: LogFormat) -> String {
        static QUEUE: Queue = Queue::new();
        let lines =
            tracing_subscriber::fmt().with_ansi(false).with_writer(Lines { format: form, queue: &QUEUE });
        let log = || tracing::error!(path = %DECEPTIVE, name = DECEPTIVE, "of a client: {DECEPTIVE}");
        match form {
            LogFormat::Text => {
                let lines = lines.fmt_fields(format::debug_fn(write_field).delimited(" ")).finish();
                tracing::subscriber::with_default(lines, log);
            }
            LogFormat::Json => {
                tracing::subscriber::with_default(lines.json().flatten_event(true).finish(), log);
            }
        }
        let mut line = Vec::new();
        QUEUE.take(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn no_line_holds_what_could_pass_for_another_or_steer_a_terminal() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let line = logged(format);
            let line = line.strip_suffix('\n').expect("a line ends");
            assert!(!line.contains(is_deceptive), "{line:?}");
            assert!(line.contains("forged"), "{line:?}");
        }
        let text = logged(LogFormat::Text);
        let shown = r"of a client: x\n2026-01-01 ERROR forged\u{1b}[31m\u{9b}31m\u{7f}\u{0}\u{2028}\u{202e}\r path=x\n2026";
        assert!(text.contains(shown), "{text}");
        let json: serde_json::Value = serde_json::from_str(&logged(LogFormat::Json)).unwrap();
        assert_eq!((json["path"].as_str(), json["name"].as_str()), (Some(DECEPTIVE), Some(DECEPTIVE)));
    }

    #[test]
    fn lines_that_are_not_read_are_dropped_and_counted_and_the_others_come_whole() {
        static QUEUE: Queue = Queue::new();
        static TOLD: AtomicUsize = AtomicUsize::new(0);
        let (reader, writer) = io::pipe().unwrap();
        let writer = File::from(OwnedFd::from(writer));
        std::thread::spawn(move || {
            QUEUE.write_to(&writer, |lines| {
                TOLD.fetch_add(lines, Ordering::SeqCst);
            })
        });
        let line = "x".repeat(999) + "\n";
        let pushed = 5 * QUEUE_BYTES_MAX / line.len();
        (0..pushed).for_each(|_| QUEUE.push(line.as_bytes(), true)); // If it waited, it would wait for ever.
        QUEUE.push(b"the last\n", false);
        let mut lines = io::BufReader::new(reader).lines().map(Result::unwrap);
        let read = lines.by_ref().take_while(|read| read != "the last");
        let whole = read.inspect(|read| assert_eq!(read, line.trim_end(), "a line is torn")).count();
        QUEUE.flush(Duration::from_mins(1));
        assert!(whole < pushed / 2, "{whole} of {pushed} lines waited");
        assert_eq!(TOLD.load(Ordering::SeqCst), pushed - whole);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let queue = Queue::new();
        queue.push(b"one\ntwo\n", true);
        let mut lines = Vec::new();
        queue.take(&mut lines);
        assert_eq!(write_all(&full, &lines), 0);
        assert_eq!(queue.note_dropped(&lines[1..]), 0, "nothing is told while nothing can be written");
        assert_eq!(queue.note_dropped(&[]), 2);
    }
}
