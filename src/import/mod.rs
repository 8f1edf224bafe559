//! `kvlite import`: the keys of files of other programs, for a server that runs or as a new data directory.
//!
//! A file is read through before the first key of it leaves, so that of one that is damaged nothing is taken unless that
//! is asked for. Files that tell of changes (append-only files, the log of the Go kvlite) are put together in memory;
//! RDB files, which may be larger than that, are read twice. What is not taken is counted, and changes the exit status.
//!
//! It never changes the file that it reads.

mod aof;
mod go_kvlite;
mod input;
mod keyspace;
mod rdb;
mod report;
mod target;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, FromArgMatches, ValueEnum};
use shard::DATABASES_MAX;

use crate::clock::wall_clock_us;
use crate::config::{Config, HELP_COLUMNS, usable_cpus};
use crate::failure;
use crate::insight::ask::Address;
use crate::progress::Progress;
use crate::recovery;

use go_kvlite::{Change, Entry};
use input::{Damage, Fault, Input};
use keyspace::{Databases, Keyspace, Outcome};
use rdb::{Item, Value};
use report::{LeftOut, Report};
use target::{Directory, Server, Target};

/// The options of the server that say where it listens for the Redis protocol, by the names of their fields.
const ADDRESS: [&str; 3] = ["host", "resp_port", "unix_socket"];

/// The directory below Redis' data directory in which its append-only files lie.
const DUMP: &str = "dump.rdb";
const APPEND_DIRECTORY: &str = "appendonlydir";

/// The exit status when something was not taken.
const EXIT_INCOMPLETE: i32 = 1;

/// The exit status when the import failed. 2 is that of a usage error.
const EXIT_FAILED: i32 = 3;

/// How often the bar moves, in items.
const PROGRESS_ITEMS: u64 = 256;

/// Besides those of the server that say where it listens.
#[derive(Debug, Args)]
struct Own {
    /// RDB file, append-only file, or log or snapshot of the Go kvlite, or a directory of them
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Write a new data directory instead of sending the keys to a server; it must be empty or not exist
    #[arg(long, value_name = "NEW", conflicts_with = "dry_run")]
    to: Option<PathBuf>,

    /// Only say what would be imported
    #[arg(long)]
    dry_run: bool,

    /// Give keys that the server has already the values of the file
    #[arg(long)]
    replace: bool,

    /// Take the keys of this database alone, into database 0 [default: each database into the one of its number]
    #[arg(long, value_name = "N")]
    db: Option<u64>,

    /// Of a file that is damaged, take what stands before the damage
    #[arg(long)]
    salvage: bool,

    /// Name everything that is not taken
    #[arg(long)]
    list: bool,

    /// Format of the file: redis (RDB or append-only file), go-log, json, or auto (by what it begins with)
    #[arg(long, value_enum, default_value = "auto", hide_possible_values = true)]
    format: Format,
}

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// By what it begins with.
    Auto,
    /// An RDB file, commands, or both.
    Redis,
    /// The log of the Go kvlite.
    GoLog,
    /// Its snapshot, a plain object, or what `kvlite dump --json` prints.
    Json,
}

/// A file that is to be read.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    path: PathBuf,
    format: Format,
    /// Whether one without changes has no bytes either.
    may_be_empty: bool,
}

/// Why nothing more could be imported.
#[derive(Debug)]
enum Failure {
    /// The file cannot be opened, or the target not be looked at.
    Open { path: PathBuf, error: io::Error },
    /// It is neither a file nor a directory.
    NoFile { path: PathBuf },
    /// It is empty, as no file is that is whole.
    Empty { path: PathBuf },
    /// It begins as no file that is known.
    NotKnown { path: PathBuf },
    /// A directory in which no file that is known lies.
    NothingThere { path: PathBuf },
    /// A directory with more than one manifest of append-only files.
    Manifests { path: PathBuf },
    /// A file that is one of those that a manifest names.
    Part { path: PathBuf, manifest: PathBuf },
    /// A directory with a file of keys beside its append-only files.
    TwoStates { path: PathBuf },
    /// The manifest of append-only files is not understood.
    Manifest { path: PathBuf, why: String },
    /// The file is damaged, and nothing was taken.
    Damaged { path: PathBuf, damage: Damage, keys: u64 },
    /// No server answers.
    Connect { address: Address, error: io::Error },
    /// Something else answers.
    NoKvlite { address: Address },
    /// The server does not answer any more.
    Lost { address: Address, error: io::Error },
    /// The server answers with an error.
    Refused { address: Address, said: String },
    /// Neither a port nor a socket is given.
    NoListener,
    /// The directory to be written has something in it.
    TargetNotEmpty { path: PathBuf },
    /// The new data directory cannot be written.
    Write { path: PathBuf, failure: Box<failure::Failure> },
}

/// Why a file is read no further: for what is in it, or for the target.
enum Stop {
    Damage(Damage),
    Failure(Failure),
}

/// The command line.
pub(crate) fn command() -> clap::Command {
    let command = Own::augment_args(Config::command_of(&ADDRESS)).name("import").bin_name("kvlite import");
    command
        .about("Imports keys from Redis, or from the Go kvlite")
        .max_term_width(HELP_COLUMNS)
        .after_help(
            "The keys go to the server that listens where one with the same variables and flags does: at \
             --resp-port, else at --unix-socket. Keys that it has already stay as they are without \
             --replace. With --to no server is needed.\n\
             A directory is that of Redis' append-only files, or the data directory of the Go kvlite.\n\
             Exit status: 0 when everything was taken or had expired, 1 when something was not, 2 for a usage error, \
             3 when it failed.",
        )
}

/// Imports, and says what came of it. Returns the exit status of the process; ends it by itself after `--help` and after
/// a usage error. The first of the arguments is the name of the command.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    let matches = command().get_matches_from(args);
    let own = Own::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let host = matches.get_one::<String>("host").expect("it has a default");
    let port = matches.get_one::<u16>("resp_port").copied().expect("it has a default");
    let address = Address::first(host, 0, port, matches.get_one::<PathBuf>("unix_socket").cloned());
    let progress = Progress::new();
    let mut report = Report::new(own.list, &progress);
    let imported = import(&own, address, &progress, &mut report);
    let summary = report.summary(own.dry_run);
    let (is_complete, has_keys) = (report.is_complete(), report.imported > 0);
    drop(progress);
    match imported {
        Ok(()) => {
            // Whether it can be written is another matter: the status tells it as well.
            let _ = writeln!(io::stdout(), "{summary}");
            if is_complete { 0 } else { EXIT_INCOMPLETE }
        }
        Err(failure) => {
            let _ = writeln!(io::stderr(), "error: {failure}");
            if has_keys {
                let _ = writeln!(io::stderr(), "until then: {summary}");
            }
            EXIT_FAILED
        }
    }
}

fn import(
    own: &Own,
    address: Option<Address>,
    progress: &Progress,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let sources = sources(&own.file, own.format)?;
    let mut target = match &own.to {
        Some(path) => Target::Directory(Directory::new(path, usable_cpus().len())?),
        None if own.dry_run => Target::Nowhere,
        None => Target::Server(Server::connect(address.ok_or(Failure::NoListener)?, own.replace)?),
    };
    let import = Import { own, progress, now_ms: wall_clock_us() / 1000 };
    match &sources[..] {
        [Source { path, format: Format::Redis, .. }] if import.is_rdb_alone(path)? => {
            import.stream(path, &mut target, report)?;
        }
        _ => {
            let databases = import.gather(&sources, report)?;
            progress.say("importing");
            for (db, keyspace) in databases.all() {
                import.hand_on(db, keyspace, &mut target, report)?;
            }
        }
    }
    target.finish(report)
}

/// A key on its way from a file.
struct Taken {
    /// Into which database it goes.
    database: u16,
    key: Vec<u8>,
    value: Vec<u8>,
    deadline_ms: Option<u64>,
}

/// One run, as far as all of its steps need it.
struct Import<'a> {
    own: &'a Own,
    progress: &'a Progress,
    now_ms: u64,
}

impl Import<'_> {
    fn open(&self, path: &Path, what: &'static str) -> Result<Input<File>, Failure> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (len, file) = opened.map_err(|error| Failure::Open { path: path.to_owned(), error })?;
        self.progress.begin_bytes(what, len);
        Ok(Input::new(file))
    }

    /// Reads a file through: whether it is an RDB file with nothing behind. One that is damaged is a failure, unless
    /// what stands before the damage is asked for.
    fn is_rdb_alone(&self, path: &Path) -> Result<bool, Failure> {
        let mut input = self.open(path, "checking")?;
        let begin = input.peek();
        if !matches!(begin, Ok(Some(b'R' | b'V'))) {
            return Ok(false);
        }
        let (mut keys, mut items) = (0, 0_u64);
        let read = rdb::read(&mut input, |item, offset| {
            keys += u64::from(matches!(item, Item::Key { value: Value::String(_), .. }));
            items += 1;
            if items.is_multiple_of(PROGRESS_ITEMS) {
                self.progress.at_byte(offset);
            }
            Ok::<_, Damage>(())
        });
        match read.and_then(|()| input.peek()) {
            Ok(behind) => Ok(behind.is_none()),
            Err(_) if self.own.salvage => Ok(true),
            Err(damage) => Err(Failure::Damaged { path: path.to_owned(), damage, keys }),
        }
    }

    /// Reads an RDB file and hands its keys on at once.
    fn stream(&self, path: &Path, target: &mut Target, report: &mut Report<'_>) -> Result<(), Failure> {
        let mut input = self.open(path, "importing")?;
        let mut items = 0_u64;
        let read = rdb::read(&mut input, |item, offset| {
            items += 1;
            if items.is_multiple_of(PROGRESS_ITEMS) {
                self.progress.at_byte(offset);
            }
            match self.string(item, report) {
                Some(Taken { database, key, deadline_ms, .. }) if self.has_expired(deadline_ms) => {
                    Ok(target.expire(database, &key, report)?)
                }
                Some(Taken { database, key, value, deadline_ms }) => {
                    Ok(target.put(database, &key, &value, deadline_ms, report)?)
                }
                None => Ok(()),
            }
        });
        match read {
            Ok(()) => Ok(()),
            Err(Stop::Failure(failure)) => Err(failure),
            Err(Stop::Damage(damage)) => {
                report.fail_to_read(LeftOut::behind(&damage), &format!("{}, {damage}", path.display()));
                Ok(())
            }
        }
    }

    fn has_expired(&self, deadline_ms: Option<u64>) -> bool {
        deadline_ms.is_some_and(|deadline_ms| deadline_ms <= self.now_ms)
    }

    /// Into which database the keys of one are taken, if they are.
    fn taken_into(&self, db: u64) -> Option<u16> {
        match self.own.db {
            Some(only) => (db == only).then_some(0),
            None => u16::try_from(db).ok().filter(|database| *database < DATABASES_MAX),
        }
    }

    /// What an item gives that is to be taken, or that has expired.
    fn string(&self, item: Item, report: &mut Report<'_>) -> Option<Taken> {
        let Item::Key { db, name, deadline_ms, value } = item else {
            report.leave_out(LeftOut::Functions, String::new);
            return None;
        };
        let shown = || name.escape_ascii().to_string();
        let Some(database) = self.taken_into(db) else {
            report.leave_out(LeftOut::Database(db), shown);
            return None;
        };
        match value {
            _ if self.has_expired(deadline_ms) => {
                Some(Taken { database, key: name, value: Vec::new(), deadline_ms })
            }
            Value::String(value) => Some(Taken { database, key: name, value, deadline_ms }),
            Value::TooLong => {
                report.leave_out(LeftOut::TooLong, shown);
                None
            }
            Value::Other(kind) => {
                report.leave_out(LeftOut::Type(kind), shown);
                None
            }
        }
    }

    /// Hands on the keys that were put together of a database, if it is the one that is to be taken.
    fn hand_on(
        &self,
        db: u64,
        keyspace: &Keyspace,
        target: &mut Target,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        keyspace.each(|key, value, deadline_ms| {
            let shown = || key.escape_ascii().to_string();
            let Some(database) = self.taken_into(db) else {
                report.leave_out(LeftOut::Database(db), shown);
                return Ok(());
            };
            match keyspace.reason(key) {
                _ if self.has_expired(deadline_ms) => target.expire(database, key, report)?,
                None => target.put(database, key, value, deadline_ms, report)?,
                Some(Some(as_what)) => report.leave_out(as_what.clone(), shown),
                Some(None) => {}
            }
            Ok(())
        })
    }

    /// Reads files that tell of changes, one after the other.
    fn gather(&self, sources: &[Source], report: &mut Report<'_>) -> Result<Databases, Failure> {
        let mut databases = Databases::new(self.now_ms);
        let own = self.own.db.unwrap_or(0);
        for (index, Source { path, format, .. }) in sources.iter().enumerate() {
            let mut input = self.open(path, "reading")?;
            let read = match format {
                Format::GoLog => self.gather_log(&mut input, databases.of(own), report),
                Format::Json => self.gather_json(&mut input, own, &mut databases, report),
                Format::Redis | Format::Auto => {
                    let is_last = index + 1 == sources.len();
                    self.gather_redis(path, &mut input, is_last, &mut databases, report)
                }
            };
            if let Err(damage) = read {
                if !self.own.salvage {
                    let taken = databases.all().filter(|(db, _)| self.taken_into(*db).is_some());
                    let keys = taken.map(|(_, keyspace)| keyspace.count()).sum();
                    return Err(Failure::Damaged { path: path.clone(), damage, keys });
                }
                report.fail_to_read(LeftOut::behind(&damage), &format!("{}, {damage}", path.display()));
                break;
            }
        }
        Ok(databases)
    }

    fn gather_log<R: Read>(
        &self,
        input: &mut Input<R>,
        keyspace: &mut Keyspace,
        report: &mut Report<'_>,
    ) -> Result<(), Damage> {
        let (mut line, mut number) = (Vec::new(), 0_u64);
        while let Some(is_whole) = input.line(&mut line, go_kvlite::LINE_BYTES_MAX)? {
            number += 1;
            if number.is_multiple_of(PROGRESS_ITEMS) {
                self.progress.at_byte(input.offset());
            }
            if line.is_empty() {
                continue;
            }
            match Change::parse(&line) {
                Ok(Change::Set { key, value, deadline_ms }) => keyspace.put(&key, &value, deadline_ms),
                Ok(Change::Delete { key }) if keyspace.remove(&key) => {}
                Ok(Change::Delete { key }) => {
                    report.leave_out(LeftOut::Removal, || key.escape_ascii().to_string());
                }
                Ok(Change::Clear) => keyspace.clear(),
                Err(error) => {
                    let cut = if is_whole { "" } else { " (the file is cut here)" };
                    report.fail_to_read(LeftOut::Line, &format!("line {number}: {error}{cut}"));
                }
            }
        }
        Ok(())
    }

    /// Reads JSON. What says nothing of its database belongs to `own`.
    fn gather_json<R: Read>(
        &self,
        input: &mut Input<R>,
        own: u64,
        databases: &mut Databases,
        report: &mut Report<'_>,
    ) -> Result<(), Damage> {
        go_kvlite::read_json(input, |entry| {
            match entry {
                Entry::Key { database, key, value, deadline_ms } => {
                    databases.of(database.unwrap_or(own)).put(&key, &value, deadline_ms);
                }
                Entry::Invalid(why) => report.fail_to_read(LeftOut::Line, &why),
                Entry::Count { expected, found } => {
                    let why = format!("the snapshot says that it has {expected} keys, and has {found}");
                    report.fail_to_read(LeftOut::Line, &why);
                }
            }
            Ok(())
        })
    }

    /// Reads an RDB file, commands, or both. `may_be_cut`: the last command may lack its end, as after a crash.
    fn gather_redis<R: Read>(
        &self,
        path: &Path,
        input: &mut Input<R>,
        may_be_cut: bool,
        databases: &mut Databases,
        report: &mut Report<'_>,
    ) -> Result<(), Damage> {
        if matches!(input.peek()?, Some(b'R' | b'V')) {
            rdb::read(input, |item, offset| {
                self.progress.at_byte(offset);
                // What has expired since may have been changed once more.
                match item {
                    Item::Functions => report.leave_out(LeftOut::Functions, String::new),
                    Item::Key { db, name, deadline_ms, value: Value::String(value) } => {
                        databases.of(db).put(&name, &value, deadline_ms);
                    }
                    Item::Key { db, name, deadline_ms, value } => {
                        let as_what = if let Value::Other(kind) = value {
                            LeftOut::Type(kind)
                        } else {
                            LeftOut::TooLong
                        };
                        databases.of(db).put(&name, b"", deadline_ms);
                        databases.of(db).leave_out(&name, Some(as_what));
                    }
                }
                Ok::<_, Damage>(())
            })?;
        }
        let mut replay = Replay { db: 0, transaction: None };
        let mut command = aof::Command::default();
        let mut commands = 0_u64;
        let read = loop {
            match command.read(input) {
                Ok(false) => break Ok(()),
                Ok(true) => replay.take(&command, databases, report),
                Err(damage) => break Err(damage),
            }
            commands += 1;
            if commands.is_multiple_of(PROGRESS_ITEMS) {
                self.progress.at_byte(input.offset());
            }
        };
        if replay.transaction.is_some() {
            if !may_be_cut && read.is_ok() {
                return Err(input.damage(Fault::Invalid("a transaction ends here without its EXEC")));
            }
            let why = format!("{}: a transaction whose EXEC is missing", path.display());
            report.fail_to_read(LeftOut::CutTransaction, &why);
        }
        match read {
            Err(damage) if may_be_cut && damage.is_cut() => {
                report.fail_to_read(LeftOut::Rest, &format!("{}, {damage}", path.display()));
                Ok(())
            }
            read => read,
        }
    }
}

/// The commands of an append-only file, in their order.
struct Replay {
    /// The database that is selected.
    db: u64,
    /// Since a `MULTI`: what counts only once its `EXEC` is there.
    transaction: Option<Vec<aof::Command>>,
}

impl Replay {
    fn take(&mut self, command: &aof::Command, databases: &mut Databases, report: &mut Report<'_>) {
        if command.is("MULTI") {
            self.transaction = Some(Vec::new());
        } else if command.is("EXEC") {
            let commands = self.transaction.take().unwrap_or_default();
            commands.iter().for_each(|command| self.run(command, databases, report));
        } else if let Some(commands) = &mut self.transaction {
            commands.push(command.clone());
        } else {
            self.run(command, databases, report);
        }
    }

    /// Runs a command, by itself where it is about several databases or names: Redis has written down what it has done, so
    /// no condition of it has to be looked at.
    fn run(&mut self, command: &aof::Command, databases: &mut Databases, report: &mut Report<'_>) {
        let key = (self.db, command.word(1));
        match (&*command.name(), command.words.len()) {
            ("SELECT", 2) => self.db = database(command.word(1)),
            ("FLUSHALL", _) => databases.clear(),
            ("SWAPDB", 3) => databases.swap(database(command.word(1)), database(command.word(2))),
            ("MOVE", 3) => transfer(command, databases, key, (database(command.word(2)), key.1)),
            ("RENAME" | "RENAMENX", 3) => transfer(command, databases, key, (self.db, command.word(2))),
            ("COPY", 3..) => {
                let named =
                    (3..command.words.len()).find(|index| command.word(*index).eq_ignore_ascii_case(b"DB"));
                let db = named.map_or(self.db, |index| database(command.word(index + 1)));
                transfer(command, databases, key, (db, command.word(2)));
            }
            _ => self.run_in_database(command, databases.of(self.db), report),
        }
    }

    fn run_in_database(&self, command: &aof::Command, keyspace: &mut Keyspace, report: &mut Report<'_>) {
        let keys = command.keys();
        let as_what = match keyspace.run(&command.buffer, &command.words) {
            Outcome::Done => return,
            // The keys are told of when it is clear which of them are left.
            Outcome::Unknown if !keys.is_empty() => Some(LeftOut::Command(command.name())),
            Outcome::Unknown => {
                let shown = || command.word(1).escape_ascii().to_string();
                return report.leave_out(LeftOut::Command(command.name()), shown);
            }
            Outcome::Refused(error) => {
                let shown: Vec<String> = keys.iter().map(|key| key.escape_ascii().to_string()).collect();
                let why = format!("{} of {}: {error}", command.name(), shown.join(" "));
                report.fail_to_read(LeftOut::Refused(command.name()), &why);
                None
            }
        };
        keys.into_iter().for_each(|key| keyspace.leave_out(key, as_what.clone()));
    }
}

/// A number that is none names a database that is not taken.
fn database(number: &[u8]) -> u64 {
    shard::parse_integer(number).and_then(|db| u64::try_from(db).ok()).unwrap_or(u64::MAX)
}

/// Runs a `COPY`, or a command that leaves nothing at the first of two keys, each with the number of its database.
fn transfer(command: &aof::Command, databases: &mut Databases, from: (u64, &[u8]), to: (u64, &[u8])) {
    if from == to {
        return;
    }
    if !databases.copy(from, to) {
        // A command that is not known made the key: what it holds is not known either.
        databases.of(to.0).leave_out(to.1, Some(LeftOut::Command(command.name())));
    } else if !command.is("COPY") {
        databases.of(from.0).remove(from.1);
    }
}

/// The files to be read, in their order. Each is looked at before any is opened, which would wait for a writer of a pipe.
fn sources(path: &Path, format: Format) -> Result<Vec<Source>, Failure> {
    let metadata = metadata(path)?;
    let sources = if metadata.is_dir() {
        directory_sources(path)?
    } else if !metadata.is_file() {
        return Err(Failure::NoFile { path: path.to_owned() });
    } else if let Some(manifest) = manifest_of(path) {
        return Err(Failure::Part { path: path.to_owned(), manifest });
    } else if path.to_string_lossy().ends_with(aof::MANIFEST_END) {
        manifest_sources(path)?
    } else {
        let format = if format == Format::Auto { recognise(path)? } else { format };
        vec![Source { path: path.to_owned(), format, may_be_empty: format == Format::GoLog }]
    };
    for Source { path, may_be_empty, .. } in &sources {
        let metadata = self::metadata(path)?;
        if !metadata.is_file() {
            return Err(Failure::NoFile { path: path.clone() });
        }
        if metadata.len() == 0 && !may_be_empty {
            return Err(Failure::Empty { path: path.clone() });
        }
    }
    Ok(sources)
}

/// The manifest beside a file that names it as one of several.
fn manifest_of(path: &Path) -> Option<PathBuf> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    manifests_in(directory.unwrap_or(Path::new("."))).ok()?.into_iter().find(|manifest| {
        let files = manifest_sources(manifest).unwrap_or_default();
        files.len() > 1 && files.iter().any(|file| file.path.file_name() == path.file_name())
    })
}

fn metadata(path: &Path) -> Result<std::fs::Metadata, Failure> {
    std::fs::metadata(path).map_err(|error| Failure::Open { path: path.to_owned(), error })
}

fn directory_sources(path: &Path) -> Result<Vec<Source>, Failure> {
    // The log goes on where the snapshot ends.
    let files = recovery::GO_NAMES.into_iter().zip([Format::Json, Format::GoLog]);
    let files = files.map(|(name, format)| Source {
        path: path.join(name),
        format,
        may_be_empty: format == Format::GoLog,
    });
    let files: Vec<Source> = files.filter(|source| source.path.exists()).collect();
    if !files.is_empty() {
        return Ok(files);
    }
    let append = path.join(APPEND_DIRECTORY);
    if append.is_dir() && path.join(DUMP).exists() {
        return Err(Failure::TwoStates { path: path.to_owned() });
    }
    let below = if append.is_dir() { append } else { path.to_owned() };
    match &manifests_in(&below)?[..] {
        [manifest] if metadata(manifest)?.is_file() => manifest_sources(manifest),
        [manifest] => Err(Failure::NoFile { path: manifest.clone() }),
        [] => Err(Failure::NothingThere { path: path.to_owned() }),
        _ => Err(Failure::Manifests { path: below.clone() }),
    }
}

fn manifests_in(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::Open { path: directory.to_owned(), error };
    let entries = std::fs::read_dir(directory).map_err(failed)?;
    let mut manifests: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    manifests.retain(|path| path.to_string_lossy().ends_with(aof::MANIFEST_END));
    Ok(manifests)
}

fn manifest_sources(path: &Path) -> Result<Vec<Source>, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::Open { path: path.to_owned(), error })?;
    let files = aof::manifest_files(path, &text);
    let aof::Files { base, increments } =
        files.map_err(|why| Failure::Manifest { path: path.to_owned(), why })?;
    let source = |path, may_be_empty| Source { path, format: Format::Redis, may_be_empty };
    let base = base.map(|path| source(path, false));
    Ok(base.into_iter().chain(increments.into_iter().map(|path| source(path, true))).collect())
}

/// The format of a file, by its first bytes. One that is empty holds no commands.
fn recognise(path: &Path) -> Result<Format, Failure> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut start));
    read.map_err(|error| Failure::Open { path: path.to_owned(), error })?;
    let is_redis = |magic: &[u8]| start.starts_with(magic);
    match start.trim_ascii_start().first() {
        _ if rdb::MAGICS.into_iter().any(is_redis) => Ok(Format::Redis),
        None | Some(b'*' | b'#') => Ok(Format::Redis),
        Some(b'{') => Ok(Format::Json),
        _ if go_kvlite::begins_log(&start) => Ok(Format::GoLog),
        _ => Err(Failure::NotKnown { path: path.to_owned() }),
    }
}

impl From<Damage> for Stop {
    fn from(damage: Damage) -> Stop {
        Stop::Damage(damage)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failure(failure)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Open { path, error } => write!(f, "cannot open {}: {error}", path.display()),
            Failure::NoFile { path } => {
                let path = path.display();
                write!(f, "{path} is no file, and what is imported is read more than once; write it to a file first")
            }
            Failure::Empty { path } => {
                write!(f, "{} is empty, so it is not whole; nothing was imported", path.display())
            }
            Failure::NotKnown { path } => write!(
                f,
                "{} begins as no file that is known: give an RDB file or an append-only file of Redis, or a log or a \
                 snapshot of the Go kvlite, or say by --format what it is",
                path.display()
            ),
            Failure::NothingThere { path } => write!(
                f,
                "{} holds neither a manifest of append-only files nor the data of the Go kvlite; name the file, \
                 such as {}",
                path.display(),
                path.join(DUMP).display()
            ),
            Failure::Manifests { path } => {
                write!(f, "{} holds several manifests; name the one that is to be taken", path.display())
            }
            Failure::Part { path, manifest } => {
                let (path, manifest) = (path.display(), manifest.display());
                write!(f, "{path} holds a part of the keys, as {manifest} says; name that, or its directory")
            }
            Failure::TwoStates { path } => write!(
                f,
                "{} holds append-only files and a dump.rdb, which may be newer; name the one that is to be taken",
                path.display()
            ),
            Failure::Manifest { path, why } => write!(f, "{}: {why}", path.display()),
            Failure::Damaged { path, damage, keys } => {
                write!(f, "{} is damaged {damage}; nothing was imported", path.display())?;
                fmt_salvageable(*keys, f)
            }
            Failure::Connect { address, error } => write!(
                f,
                "no server answers at {address}: {error}; start it, say where it listens, or write a new data \
                 directory by --to"
            ),
            Failure::NoKvlite { address } => write!(
                f,
                "what answers at {address} is no kvlite that speaks the Redis protocol, and got no key; say where \
                 kvlite does by --resp-port or --unix-socket. By default it is port 6379 as with Redis, unless that was \
                 taken when it started: its log says so"
            ),
            Failure::Lost { address, error } if error.kind() == io::ErrorKind::TimedOut => {
                write!(f, "the server at {address} does not answer in time; look at its log")
            }
            Failure::Lost { address, error } => write!(f, "the server at {address} is gone: {error}"),
            Failure::Refused { address, said } => {
                write!(f, "the server at {address} takes no more keys, it answers: {said}")
            }
            Failure::NoListener => f.write_str(
                "--resp-port is 0, and there is no --unix-socket: give one, or write a new data directory by --to",
            ),
            Failure::TargetNotEmpty { path } => {
                let path = path.display();
                write!(f, "{path} is not empty; give --to a directory that is, or that does not exist")
            }
            Failure::Write { path, failure } => {
                write!(f, "{failure}; {} is incomplete: remove it before you try again", path.display())
            }
        }
    }
}

/// What can be read of a damaged file.
fn fmt_salvageable(keys: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match keys {
        0 => Ok(()),
        1 => write!(f, ". One key before it can be read: --salvage imports it"),
        keys => write!(f, ". {keys} keys before it can be read: --salvage imports them"),
    }
}
