//! `kvlite top`: how a running server is, on a terminal.
//!
//! It is a client of the server's RESP port like any other, and asks over two connections: what is answered at once, each
//! second, and for the classes of keys, which takes every shard a walk over all its keys, less often. Where there is no
//! terminal it writes one page of text.

mod screen;

use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fmt, thread};

use clap::{Args, FromArgMatches};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use redis_protocol::resp3::types::Resp3Frame;

use crate::config::{Config, HELP_COLUMNS};
use crate::insight::ask::{Address, Asker, Unanswered};
use crate::insight::figures::{Figures, SECTIONS};
use crate::insight::keys::{Class, Uses, classes};
use screen::Screen;

/// The options that say where a server listens, by the names of their fields.
const ADDRESS: [&str; 3] = ["host", "resp_port", "unix_socket"];

/// How often the server is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// What took the server long is asked again after so many times as long.
const REST: u32 = 20;

/// How long an answer may take, and one for which the server walks over all keys.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const WALK_MAX: Duration = Duration::from_mins(2);

/// How long the page that is written to no terminal waits for that walk.
const WALK_MAX_ONCE: Duration = Duration::from_secs(10);

/// So many of the hottest keys are asked for.
const HOT_KEYS: usize = 30;

/// How soon a key that is pressed is noticed, and a signal.
const LOOK: Duration = Duration::from_millis(100);

/// Besides those of the server that say where it listens.
#[derive(Debug, Args)]
struct Own {
    /// Write one page of text and end, as without a terminal
    #[arg(long)]
    once: bool,
}

/// Why nothing can be shown.
#[derive(Debug)]
enum Trouble {
    /// No connection, or no answer.
    NoAnswer { address: Address, error: io::Error },
    /// The answer is none of kvlite's.
    NoKvlite { address: Address },
    /// It answers with an error, such as that it takes no more clients.
    Refused { address: Address, error: String },
    /// The Redis protocol is off.
    NoListener,
    /// The terminal, or where the page is written.
    Output(io::Error),
}

/// What is known of the server.
#[derive(Debug)]
struct Known {
    figures: Figures,
    /// Or why it is not told, as with analytics off, or while the server loads.
    uses: Result<Uses, String>,
}

/// What a thread that asks has learnt.
enum News {
    Known(Result<Box<Known>, Trouble>),
    Classes(Vec<Class>),
}

/// The command line.
pub(crate) fn command() -> clap::Command {
    let command = Own::augment_args(Config::command_of(&ADDRESS)).name("top").bin_name("kvlite top");
    command.about("Shows how a running server is, each second").max_term_width(HELP_COLUMNS).after_help(
        "The server is looked for where one with the same variables and flags listens: at --resp-port, else at \
         --unix-socket; a --host that stands for every address means this machine. q ends it.\n\
         Exit status: 0, 1 when no kvlite answers, and standard error says why, 2 for a usage error.",
    )
}

/// Shows how the server is, until it is told to end. Returns the exit status of the process; ends it by itself after
/// `--help` and after a usage error. The first of the arguments is the name of the command.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    let matches = command().get_matches_from(args);
    let own = Own::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let host = matches.get_one::<String>("host").expect("it has a default");
    let port = matches.get_one::<u16>("resp_port").copied().expect("it has a default");
    let unix_socket = matches.get_one::<PathBuf>("unix_socket").cloned();
    let shown = Address::first(host, 0, port, unix_socket).ok_or(Trouble::NoListener).and_then(|address| {
        if own.once || !io::stdout().is_terminal() { once(&address) } else { follow(&address) }
    });
    match shown {
        Ok(()) => 0,
        Err(trouble) => {
            let _ = writeln!(io::stderr(), "error: {trouble}");
            1
        }
    }
}

/// Writes one page.
fn once(address: &Address) -> Result<(), Trouble> {
    let mut asker = open(address)?;
    let mut screen = Screen::new(*known(&mut asker, address)?);
    thread::sleep(INTERVAL); // Rates are those of this time.
    screen.tell(*known(&mut asker, address)?);
    if screen.known.uses.is_ok() {
        screen.classes = classes(&mut asker, Instant::now() + WALK_MAX_ONCE).unwrap_or_default();
    }
    match io::stdout().write_all(screen.text().as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Trouble::Output(error)),
        _ => Ok(()),
    }
}

/// Shows the server on the terminal until a key or a signal ends it.
fn follow(address: &Address) -> Result<(), Trouble> {
    let mut asker = open(address)?;
    let mut screen = Screen::new(*known(&mut asker, address)?);
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, is_over.clone()).map_err(Trouble::Output)?;
    }
    let (news, heard) = mpsc::channel();
    let (asks, walks) = (address.clone(), address.clone());
    let of_walks = news.clone();
    thread::spawn(move || ask_for_ever(&asks, asker, &news));
    thread::spawn(move || walk_for_ever(&walks, &of_walks));
    // It sees to it that a panic leaves the terminal as it was.
    let mut terminal = ratatui::try_init().map_err(Trouble::Output)?;
    let shown = (|| {
        loop {
            terminal.draw(|frame| screen.draw(frame.area(), frame.buffer_mut()))?;
            if event::poll(LOOK)? && ends(&event::read()?) || is_over.load(Ordering::Relaxed) {
                return Ok(());
            }
            for news in heard.try_iter() {
                match news {
                    News::Known(Ok(known)) => screen.tell(*known),
                    News::Known(Err(trouble)) => screen.trouble = Some(trouble.to_string()),
                    News::Classes(classes) => screen.classes = classes,
                }
            }
        }
    })();
    if ratatui::try_restore().is_err() {
        // The terminal is gone. There is nowhere to say so, and what would be said when this is dropped ends the process.
        std::mem::forget(terminal);
    }
    shown.map_err(Trouble::Output)
}

/// Whether an event tells it to end.
fn ends(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_interrupt =
        key.modifiers.contains(KeyModifiers::CONTROL) && matches!(key.code, KeyCode::Char('c' | 'd'));
    is_interrupt || matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc)
}

fn ask_for_ever(address: &Address, mut asker: Asker, news: &mpsc::Sender<News>) {
    loop {
        thread::sleep(INTERVAL);
        let mut known = known(&mut asker, address);
        if known.is_err() {
            // The server may have been started again.
            known = open(address).and_then(|new| {
                asker = new;
                self::known(&mut asker, address)
            });
        }
        if news.send(News::Known(known)).is_err() {
            return;
        }
    }
}

fn walk_for_ever(address: &Address, news: &mpsc::Sender<News>) {
    loop {
        let began = Instant::now();
        let asked = open(address).ok().and_then(|mut asker| classes(&mut asker, began + WALK_MAX).ok());
        if asked.is_some_and(|classes| news.send(News::Classes(classes)).is_err()) {
            return;
        }
        thread::sleep((2 * INTERVAL).max(began.elapsed() * REST));
    }
}

/// Asks how the server is.
fn known(asker: &mut Asker, address: &Address) -> Result<Box<Known>, Trouble> {
    let deadline = Instant::now() + ANSWER_MAX;
    let info =
        asker.ask(&[b"INFO", SECTIONS.as_bytes()], deadline).map_err(|unanswered| match unanswered {
            Unanswered::Io(error)
                if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
            {
                Trouble::NoKvlite { address: address.clone() }
            }
            Unanswered::Io(error) => Trouble::NoAnswer { address: address.clone(), error },
            Unanswered::Error(error) => Trouble::Refused { address: address.clone(), error },
        })?;
    let figures = info.as_str().and_then(Figures::read);
    let figures = figures.ok_or_else(|| Trouble::NoKvlite { address: address.clone() })?;
    let uses = Uses::ask(asker, HOT_KEYS, deadline).map_err(|why| match why {
        Unanswered::Io(error) => error.to_string(),
        // People need no code of an error.
        Unanswered::Error(text) => text.strip_prefix("ERR ").unwrap_or(&text).to_owned(),
    });
    Ok(Box::new(Known { figures, uses }))
}

fn open(address: &Address) -> Result<Asker, Trouble> {
    let opened = address.connect(Instant::now() + ANSWER_MAX);
    opened.map(Asker::new).map_err(|error| Trouble::NoAnswer { address: address.clone(), error })
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::NoAnswer { address, error } if error.kind() == ErrorKind::TimedOut => {
                write!(f, "{address} does not answer in time; look at its log")
            }
            Trouble::NoAnswer { address, error } => write!(
                f,
                "no server answers at {address}: {error}; start it, or say where it listens by the flags or variables \
                 that it was started with"
            ),
            Trouble::NoKvlite { address } => {
                write!(
                    f,
                    "what answers at {address} does not speak the Redis protocol as kvlite does; say where kvlite \
                     speaks it by its flags, which is not its --port nor its --admin-port"
                )
            }
            Trouble::Refused { address, error } => {
                write!(f, "the server at {address} does not tell how it is, it answers: {error}")
            }
            Trouble::NoListener => write!(
                f,
                "no server is to be asked: give the --resp-port or the --unix-socket at which it speaks the Redis \
                 protocol"
            ),
            Trouble::Output(error) => write!(f, "cannot write to standard output: {error}"),
        }
    }
}
