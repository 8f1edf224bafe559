//! Where the keys of a file go: to a server that runs, into a new data directory, or nowhere.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use shard::clock::deadline_by_wall_clock;
use shard::{Change, Shard};
use wal::{DataDir, OsDisk};

use super::Failure;
use super::report::{LeftOut, Report};
use crate::failure;
use crate::insight::ask::Address;
use crate::protocol::BULK_BYTES_MAX;
use crate::recovery;
use crate::slots;

/// How long a server may take to accept, and again to its first answer; later to answer or take in what it is sent.
const FIRST_ANSWER_WAIT: Duration = Duration::from_secs(5);
const ANSWER_WAIT: Duration = Duration::from_mins(2);

/// How long the lock of a new directory is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// So much is sent at a time, with as much on its way: the answers to it, errors at worst, fit into any socket's buffer.
const BATCH_BYTES: usize = 64 << 10;
const BATCH_REQUESTS_MAX: usize = 512;

/// A deadline that has passed for certain.
const PASSED_UNIX_MS: u64 = 1;

/// No answer to what is asked here is longer.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Where keys go.
pub enum Target {
    Server(Server),
    Directory(Directory),
    Nowhere,
}

impl Target {
    /// Sets a key that has not expired.
    pub fn put(
        &mut self,
        database: u16,
        key: &[u8],
        value: &[u8],
        deadline_unix_ms: Option<u64>,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        if key.len().max(value.len()) > BULK_BYTES_MAX {
            report.leave_out(LeftOut::TooLong, || key.escape_ascii().to_string());
            return Ok(());
        }
        match self {
            Target::Server(server) => server.put(database, key, value, deadline_unix_ms, report)?,
            Target::Directory(directory) => {
                directory.put(database, key, value, deadline_unix_ms);
                report.add(deadline_unix_ms.is_some());
            }
            Target::Nowhere => report.add(deadline_unix_ms.is_some()),
        }
        Ok(())
    }

    /// Removes a key that has expired by now from a server whose keys are replaced.
    pub fn expire(&mut self, database: u16, key: &[u8], report: &mut Report<'_>) -> Result<(), Failure> {
        match self {
            // A deadline that has passed: it removes what there is.
            Target::Server(server) if server.replaces => {
                server.put(database, key, b"", Some(PASSED_UNIX_MS), report)
            }
            _ => {
                report.expired += 1;
                Ok(())
            }
        }
    }

    /// Returns once everything is where it belongs, and on disk there.
    pub fn finish(self, report: &mut Report<'_>) -> Result<(), Failure> {
        match self {
            Target::Server(server) => server.finish(report),
            Target::Directory(directory) => directory.write(),
            Target::Nowhere => Ok(()),
        }
    }
}

/// A server that is being sent keys.
pub struct Server {
    address: Address,
    socket: File,
    answers: BufReader<File>,
    replaces: bool,
    /// The database that was selected last.
    selected: u16,
    batch: Vec<u8>,
    /// What was sent, or is in the batch, and has no answer yet.
    waiting: VecDeque<Sent>,
    /// How many of those are in the batch.
    in_batch: usize,
}

struct Sent {
    key: Vec<u8>,
    /// In milliseconds since the Unix epoch.
    deadline_unix_ms: Option<u64>,
}

impl Server {
    /// Connects, and makes sure that the server is kvlite and that its disk takes writes. With `replaces` keys that it has
    /// get other values.
    pub fn connect(address: Address, replaces: bool) -> Result<Server, Failure> {
        let opened = address.connect(Instant::now() + FIRST_ANSWER_WAIT).and_then(|socket| {
            set_socket_timeout(&socket, Timeout::Recv, Some(FIRST_ANSWER_WAIT))?;
            set_socket_timeout(&socket, Timeout::Send, Some(ANSWER_WAIT))?;
            let socket = File::from(socket);
            Ok((socket.try_clone()?, socket))
        });
        let (reader, socket) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err(Failure::Connect { address, error }),
        };
        let answers = BufReader::new(reader);
        let (batch, waiting) = (Vec::new(), VecDeque::new());
        let mut server =
            Server { address, socket, answers, replaces, selected: 0, batch, waiting, in_batch: 0 };
        // One that hangs is noticed at once; a disk may take its time.
        let greeted = server.ask("PING")?;
        set_socket_timeout(&server.socket, Timeout::Recv, Some(ANSWER_WAIT))
            .map_err(|error| server.lost(error.into()))?;
        // Another server takes keys as well, and would be told only at the end that it should sync them.
        let synced = if greeted == "+PONG" { server.ask("KVLITE.SYNC")? } else { greeted };
        match synced.as_str() {
            "+OK" => Ok(server),
            said if said.starts_with('-') && !said.contains("unknown command") => Err(server.said(said)),
            _ => Err(Failure::NoKvlite { address: server.address }),
        }
    }

    /// Asks by a word, with nothing on its way.
    fn ask(&mut self, word: &str) -> Result<String, Failure> {
        self.batch.extend_from_slice(format!("*1\r\n${}\r\n{word}\r\n", word.len()).as_bytes());
        self.send()?;
        self.answer()
    }

    fn put(
        &mut self,
        database: u16,
        key: &[u8],
        value: &[u8],
        deadline_unix_ms: Option<u64>,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        if database != self.selected {
            self.select(database, report)?;
        }
        let deadline = deadline_unix_ms.map(|ms| ms.to_string());
        let mut words: Vec<&[u8]> = vec![b"SET", key, value];
        if !self.replaces {
            words.push(b"NX");
        }
        if let Some(deadline) = &deadline {
            words.extend([b"PXAT", deadline.as_bytes()]);
        }
        self.add(&words);
        self.waiting.push_back(Sent { key: key.to_vec(), deadline_unix_ms });
        if self.batch.len() >= BATCH_BYTES || self.in_batch >= BATCH_REQUESTS_MAX {
            let sent = self.in_batch;
            self.send()?;
            self.take_answers(sent, report)?;
        }
        Ok(())
    }

    /// Selects another database, with nothing on its way: were it refused, what follows would go into a wrong one.
    fn select(&mut self, database: u16, report: &mut Report<'_>) -> Result<(), Failure> {
        self.send()?;
        self.take_answers(0, report)?;
        self.add(&[b"SELECT", database.to_string().as_bytes()]);
        self.send()?;
        self.selected = database;
        match self.answer()?.as_str() {
            "+OK" => Ok(()),
            said => Err(self.said(&format!("{said}, of the file's database {database}: see --databases"))),
        }
    }

    /// Adds a request to the batch.
    fn add(&mut self, words: &[&[u8]]) {
        self.batch.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.batch.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.batch.extend_from_slice(word);
            self.batch.extend_from_slice(b"\r\n");
        }
        self.in_batch += 1;
    }

    fn finish(mut self, report: &mut Report<'_>) -> Result<(), Failure> {
        self.send()?;
        self.take_answers(0, report)?;
        match self.ask("KVLITE.SYNC")?.as_str() {
            "+OK" => Ok(()),
            said => Err(self.said(said)),
        }
    }

    fn send(&mut self) -> Result<(), Failure> {
        self.socket.write_all(&self.batch).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => self.lost(io::ErrorKind::TimedOut.into()),
            _ => self.lost(error),
        })?;
        self.batch.clear();
        self.batch.shrink_to(2 * BATCH_BYTES);
        self.in_batch = 0;
        Ok(())
    }

    /// Takes in answers until no more than `left` are owed.
    fn take_answers(&mut self, left: usize, report: &mut Report<'_>) -> Result<(), Failure> {
        while self.waiting.len() > left {
            let said = self.answer()?;
            let sent = self.waiting.pop_front().expect("more are waiting than may be left");
            match said.as_str() {
                "+OK" if sent.deadline_unix_ms == Some(PASSED_UNIX_MS) => report.expired += 1,
                "+OK" => report.add(sent.deadline_unix_ms.is_some()),
                "$-1" | "_" => {
                    report.leave_out(LeftOut::Existing, || sent.key.escape_ascii().to_string());
                }
                // Of this key; all other errors are about the server.
                _ if said.starts_with("-ERR ") => {
                    let why = format!("the key {}: {said}", sent.key.escape_ascii());
                    report.fail_to_read(LeftOut::Refused("SET".to_owned()), &why);
                }
                _ => return Err(self.said(&said)),
            }
        }
        Ok(())
    }

    /// The next line of the server.
    fn answer(&mut self) -> Result<String, Failure> {
        let mut line = Vec::new();
        let read = (&mut self.answers).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut line);
        match read {
            Ok(_) if line.ends_with(b"\n") => Ok(String::from_utf8_lossy(&line).trim_end().to_owned()),
            Ok(_) => Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(self.lost(io::ErrorKind::TimedOut.into()))
            }
            Err(error) => Err(self.lost(error)),
        }
    }

    fn lost(&self, error: io::Error) -> Failure {
        Failure::Lost { address: self.address.clone(), error }
    }

    fn said(&self, said: &str) -> Failure {
        // What a terminal would obey is shown otherwise.
        let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        let said = said.trim_start_matches('-').chars().map(shown).collect();
        Failure::Refused { address: self.address.clone(), said }
    }
}

/// A new data directory, which is written once all keys are there.
pub struct Directory {
    path: PathBuf,
    shards: Vec<Shard>,
}

impl Directory {
    /// A directory for so many shards. It has to be empty, or not to exist.
    pub fn new(path: &Path, shards: usize) -> Result<Directory, Failure> {
        let empty = match std::fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(Failure::Open { path: path.to_owned(), error }),
        };
        if !empty {
            return Err(Failure::TargetNotEmpty { path: path.to_owned() });
        }
        let shards = (0..shards).map(|_| Shard::new(recovery::random_seeds())).collect();
        Ok(Directory { path: path.to_owned(), shards })
    }

    fn put(&mut self, database: u16, key: &[u8], value: &[u8], deadline_unix_ms: Option<u64>) {
        let owner = slots::owner(key, self.shards.len());
        let deadline_ms = deadline_unix_ms.map(deadline_by_wall_clock);
        self.shards[owner].apply(&Change::Keyspace(database));
        self.shards[owner].apply(&Change::Put { key, value, deadline_ms });
    }

    fn write(self) -> Result<(), Failure> {
        let Directory { path, shards } = self;
        let failed = |shard: Option<usize>| {
            let path = path.clone();
            move |error| {
                let failure = Box::new(failure::Failure::Log { shard, error });
                Failure::Write { path, failure }
            }
        };
        let mut directory = DataDir::begin(OsDisk::default(), &path, LOCK_WAIT).map_err(failed(None))?;
        let tag = recovery::random_tag();
        let layout = directory.create_layout(shards.len() as u32, tag).map_err(failed(None))?;
        for (index, shard) in shards.iter().enumerate() {
            let written =
                recovery::Target::create(&OsDisk::default(), &layout, index).and_then(|mut target| {
                    recovery::write_all(shard, |database, change| target.put(database, change))?;
                    target.finish()
                });
            written.map_err(failed(Some(index)))?;
        }
        directory.activate(layout).map_err(failed(None))
    }
}
