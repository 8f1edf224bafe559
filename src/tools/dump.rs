//! `kvlite dump`: the records of a data directory, to be read or to be imported elsewhere.
//!
//! One shard is in memory at a time. Nothing is printed of a directory on which a server would not start,
//! except with `--log`, which prints all up to the damage. Never changes a file.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use shard::clock::{due_ms, unix_deadline_ms};
use shard::{Change, Clocks, MalformedChange, Shard};
use wal::{Kind, Layout, ReadOnlyDisk, Record};

use super::{Finding, Progress, ToolError, inspect, read};
use crate::clock::{self, Clock, Reading};
use crate::config::Boot;
use crate::failure::Failure;
use crate::protocol::LINE_BYTES_MAX;
use crate::recovery::in_doubt::{self, Resolution};
use crate::recovery::{self, ReplayError};

/// How many keys are printed at a time.
const PRINT_KEYS: usize = 1024;

/// A value is printed in pieces of this size, so that each fits a line of the text protocol.
const PIECE_BYTES: usize = 128 * 1024;

/// The most characters that a byte takes when it is quoted.
const QUOTED_BYTES_MAX: usize = 4;

/// What a key may take when it is quoted, so that the line of a piece has room for it.
const QUOTED_KEY_BYTES_MAX: usize = LINE_BYTES_MAX - QUOTED_BYTES_MAX * PIECE_BYTES - 64;

#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Data directory, as in --wal-path
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Print one JSON object a line instead of commands of the text protocol
    #[arg(long)]
    json: bool,

    /// Print the frames of the snapshots and logs with their changes, in order, instead of the records
    #[arg(long)]
    log: bool,

    #[command(flatten)]
    boot: Boot,
}

pub fn run(options: &Options, out: &mut impl Write, progress: &Progress) -> Result<Finding, ToolError> {
    let disk = ReadOnlyDisk::in_boot(options.boot.id());
    let mut inspection = inspect(disk, &options.directory)?;
    let layout = std::mem::replace(&mut inspection.layout, Ok(None))?;
    let Some(layout) = layout else { return Err(ToolError::NoData { path: options.directory.clone() }) };
    if options.log {
        return dump_log(&disk, &layout, options.json, out, progress);
    }
    let (started, boot) = (Instant::now(), clock::name_of_boot(options.boot.id()));
    let resolution = in_doubt::reach(&disk, &layout)?.accept(&layout)?;
    let last = last_clocks(&disk, &layout, &resolution, progress)?;
    let mut selected = 0;
    for index in 0..layout.shards as usize {
        progress.begin("dumping", index, layout.shards);
        let mut shard = Shard::new(recovery::random_seeds());
        let read = read(&disk, &layout, index, |record: Record<'_>| {
            progress.at(&record);
            if resolution.counts(index as u32, &record) {
                recovery::apply(&mut shard, &record)
            } else {
                Ok(())
            }
        });
        read.map_err(|error: ReplayError| error.of_shard(index))?;
        let reading = Reading::take_at_start(started);
        let clock = Clock::resume(last, boot, reading);
        shard.set_wall_ahead(clock.wall_ahead_ms());
        let now_ms = clock.now_ms(reading.uptime_us);
        print_shard(&shard, options.json, &clock, now_ms, &mut selected, out)?;
    }
    Ok(Finding::Sound)
}

/// The newest of what the logs tell of the clocks: a start has all shards go on from it.
fn last_clocks(
    disk: &ReadOnlyDisk,
    layout: &Layout,
    resolution: &Resolution,
    progress: &Progress,
) -> Result<Option<Clocks>, ToolError> {
    let mut newest: Option<Clocks> = None;
    for index in 0..layout.shards as usize {
        progress.begin("looking for the time in", index, layout.shards);
        let mut last = None;
        let read = read(disk, layout, index, |record: Record<'_>| {
            progress.at(&record);
            if !resolution.counts(index as u32, &record) {
                return Ok(());
            }
            for change in shard::decode(record.payload) {
                let change = change.map_err(|error| ReplayError::Malformed { seq: record.seq, error })?;
                if let Change::Clocks(clocks) = change {
                    last = Some(clocks);
                }
            }
            Ok(())
        });
        read.map_err(|error: ReplayError| error.of_shard(index))?;
        newest = newest.into_iter().chain(last).max_by_key(|clocks| clocks.now_ms);
    }
    Ok(newest)
}

/// Prints the records that are alive at `now_ms`; `selected` is the database of the record before them.
fn print_shard(
    shard: &Shard,
    json: bool,
    clock: &Clock,
    now_ms: u64,
    selected: &mut u16,
    out: &mut impl Write,
) -> Result<(), ToolError> {
    let mut position = Some(0);
    while let Some(from) = position {
        let mut printed = Ok(());
        position = shard.walk(from, PRINT_KEYS, now_ms, |keyspace, key, value, deadline_ms| {
            if printed.is_err() {
                return;
            }
            let database = shard.database_of(keyspace);
            let due_ms = deadline_ms.map(|deadline_ms| due_ms(deadline_ms, clock.wall_ahead_ms()));
            printed = if json {
                let deadline_ms = due_ms.map(|due_ms| clock.unix_ms(due_ms));
                let (key, value) = (Bytes("key", key), Some(Bytes("value", value)));
                json_line(&JsonRecord { database, key, value, deadline_ms, unix_deadline_ms: None }, out)
                    .map_err(ToolError::Output)
            } else {
                let is_selected = std::mem::replace(selected, database) == database;
                let select = if is_selected { Ok(()) } else { writeln!(out, "SELECT {database}") };
                select
                    .map_err(ToolError::Output)
                    .and_then(|()| print_record(key, value, due_ms.map(|due_ms| due_ms - now_ms), out))
            };
        });
        printed?;
    }
    Ok(())
}

/// Prints a record as commands of the text protocol. A TTL is in milliseconds; it is rounded up to
/// seconds, which that protocol speaks. A key that expires gets its value in one command, or else its
/// deadline only when the value is whole: an import never makes a half value.
fn print_record(
    key: &[u8],
    value: &[u8],
    ttl_ms: Option<u64>,
    out: &mut impl Write,
) -> Result<(), ToolError> {
    let bytes = key.len();
    let key = word(key);
    if key.len() > QUOTED_KEY_BYTES_MAX {
        return Err(ToolError::KeyTooLong { bytes });
    }
    let ttl_s = ttl_ms.map(|ms| ms.div_ceil(1000));
    if let (Some(ttl_s), true) = (ttl_s, value.len() <= PIECE_BYTES) {
        writeln!(out, "SETEX {key} {ttl_s} {}", quoted(value))?;
        return Ok(());
    }
    let (first, rest) = value.split_at(value.len().min(PIECE_BYTES));
    writeln!(out, "SET {key} {}", quoted(first))?;
    for piece in rest.chunks(PIECE_BYTES) {
        writeln!(out, "APPEND {key} {}", quoted(piece))?;
    }
    if let Some(ttl_s) = ttl_s {
        writeln!(out, "EXPIRE {key} {ttl_s}")?;
    }
    Ok(())
}

/// Prints every frame of every shard; of a damaged one those before the damage.
fn dump_log(
    disk: &ReadOnlyDisk,
    layout: &Layout,
    json: bool,
    out: &mut impl Write,
    progress: &Progress,
) -> Result<Finding, ToolError> {
    // Of a damaged directory it is not known which transactions count.
    let resolution =
        in_doubt::reach(disk, layout).and_then(|resolution| resolution.accept(layout)).unwrap_or_default();
    let mut finding = Finding::Sound;
    for index in 0..layout.shards as usize {
        progress.begin("dumping", index, layout.shards);
        let read = read(disk, layout, index, |record: Record<'_>| {
            progress.at(&record);
            let frame =
                Frame { shard: index, record: &record, counts: resolution.counts(index as u32, &record) };
            let printed = if json { json_line(&frame.to_json(), out) } else { frame.print(out) };
            printed.map_err(Stop::Output)
        });
        match read {
            Ok(_) => {}
            Err(Stop::Output(error)) => return Err(error.into()),
            Err(Stop::Log(error)) => {
                eprintln!("error: {}", Failure::log(index, error));
                finding = Finding::Damaged;
            }
        }
    }
    Ok(finding)
}

/// Why the frames of a shard are not printed to the end.
enum Stop {
    Log(wal::Error),
    Output(io::Error),
}

impl From<wal::Error> for Stop {
    fn from(error: wal::Error) -> Stop {
        Stop::Log(error)
    }
}

/// A frame of a shard, as it is printed.
struct Frame<'a> {
    shard: usize,
    record: &'a Record<'a>,
    /// Whether a start applies it.
    counts: bool,
}

impl<'a> Frame<'a> {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Frame { shard, record, counts } = *self;
        let file = if record.in_snapshot { "snapshot" } else { "log" };
        write!(out, "shard {shard} {file} frame {} ", record.seq)?;
        match record.kind {
            Kind::Batch => write!(out, "batch")?,
            Kind::Transaction { id, participants: [] } if record.in_snapshot => write!(out, "begun at {id}")?,
            Kind::Transaction { id, participants: [] } => write!(out, "leaves out transaction {id}")?,
            Kind::Transaction { id, participants } => write!(out, "transaction {id} of {participants:?}")?,
        }
        let changes = if record.entries == 1 { "change" } else { "changes" };
        writeln!(out, ", {} {changes}{}", record.entries, if counts { "" } else { ", does not count" })?;
        shard::decode(record.payload).try_for_each(|change| print_change(change, out))
    }

    fn to_json(&self) -> JsonFrame<'a> {
        let Frame { shard, record, counts } = *self;
        let (transaction, participants) = match record.kind {
            Kind::Batch => (None, None),
            Kind::Transaction { id, participants } => (Some(id), Some(participants)),
        };
        let changes = shard::decode(record.payload).map(json_change).collect();
        let (seq, in_snapshot) = (record.seq, record.in_snapshot);
        JsonFrame { shard, in_snapshot, seq, counts, transaction, participants, changes }
    }
}

fn print_change(change: Result<Change<'_>, MalformedChange>, out: &mut impl Write) -> io::Result<()> {
    match change {
        Ok(Change::Put { key, value, deadline_ms: None }) => {
            writeln!(out, "  put {} {}", word(key), quoted(value))
        }
        Ok(Change::Put { key, value, deadline_ms: Some(at) }) => {
            writeln!(out, "  put {} {} {}", word(key), quoted(value), deadline(at))
        }
        Ok(Change::Splice { key, offset, bytes }) => {
            writeln!(out, "  splice {} {offset} {}", word(key), quoted(bytes))
        }
        Ok(Change::Deadline { key, deadline_ms: Some(at) }) => {
            writeln!(out, "  deadline {} {}", word(key), deadline(at))
        }
        Ok(Change::Deadline { key, deadline_ms: None }) => writeln!(out, "  deadline {} none", word(key)),
        Ok(Change::Remove { key }) => writeln!(out, "  remove {}", word(key)),
        Ok(Change::Clear) => writeln!(out, "  clear"),
        Ok(Change::Keyspace(number)) => writeln!(out, "  keyspace {number}"),
        Ok(Change::ClearKeyspace) => writeln!(out, "  clear keyspace"),
        Ok(Change::Databases(keyspaces)) => {
            write!(out, "  databases are keyspaces")?;
            keyspaces.iter().try_for_each(|number| write!(out, " {number}"))?;
            writeln!(out)
        }
        Ok(Change::Clocks(Clocks { now_ms, wall_ms, boot, booted_ms })) => {
            writeln!(out, "  clocks now_ms {now_ms} wall_ms {wall_ms} boot {boot:016x} booted_ms {booted_ms}")
        }
        Err(error) => writeln!(out, "  {error}"),
    }
}

/// A deadline as it is printed: by the server's time, or by the wall clock since the Unix epoch.
fn deadline(deadline_ms: u64) -> String {
    match unix_deadline_ms(deadline_ms) {
        None => format!("deadline_ms {deadline_ms}"),
        Some(unix_ms) => format!("unix_deadline_ms {unix_ms}"),
    }
}

fn json_change(change: Result<Change<'_>, MalformedChange>) -> JsonChange<'_> {
    match change {
        Ok(Change::Put { key, value, deadline_ms }) => {
            let (key, value) = (Bytes("key", key), Some(Bytes("value", value)));
            JsonChange::Put(JsonRecord::of_log(key, value, deadline_ms))
        }
        Ok(Change::Splice { key, offset, bytes }) => {
            JsonChange::Splice { key: Bytes("key", key), offset, bytes: Bytes("bytes", bytes) }
        }
        Ok(Change::Deadline { key, deadline_ms }) => {
            JsonChange::Deadline(JsonRecord::of_log(Bytes("key", key), None, deadline_ms))
        }
        Ok(Change::Remove { key }) => JsonChange::Remove { key: Bytes("key", key) },
        Ok(Change::Clear) => JsonChange::Clear,
        Ok(Change::Keyspace(number)) => JsonChange::Keyspace { number },
        Ok(Change::ClearKeyspace) => JsonChange::ClearKeyspace,
        Ok(Change::Databases(keyspaces)) => JsonChange::Databases { keyspaces: keyspaces.iter().collect() },
        Ok(Change::Clocks(Clocks { now_ms, wall_ms, boot, booted_ms })) => {
            JsonChange::Clocks { now_ms, wall_ms, boot: format!("{boot:016x}"), booted_ms }
        }
        Err(error) => JsonChange::Malformed { offset: error.offset },
    }
}

/// Bytes as a JSON field: under this name as text, or, if they are not UTF-8, under the name with `_base64`.
struct Bytes<'a>(&'static str, &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut field = serializer.serialize_map(Some(1))?;
        match str::from_utf8(self.1) {
            Ok(text) => field.serialize_entry(self.0, text)?,
            Err(_) => field.serialize_entry(&format!("{}_base64", self.0), &BASE64.encode(self.1))?,
        }
        field.end()
    }
}

#[derive(Serialize)]
struct JsonRecord<'a> {
    /// Of a record only, and only where it is not 0.
    #[serde(skip_serializing_if = "is_zero")]
    database: u16,
    #[serde(flatten)]
    key: Bytes<'a>,
    #[serde(flatten)]
    value: Option<Bytes<'a>>,
    /// Of a record since the Unix epoch, of a change in the server's time.
    deadline_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unix_deadline_ms: Option<u64>,
}

impl<'a> JsonRecord<'a> {
    /// With a deadline as the log has it.
    fn of_log(key: Bytes<'a>, value: Option<Bytes<'a>>, deadline_ms: Option<u64>) -> JsonRecord<'a> {
        let unix_deadline_ms = deadline_ms.and_then(unix_deadline_ms);
        let deadline_ms = deadline_ms.filter(|_| unix_deadline_ms.is_none());
        JsonRecord { database: 0, key, value, deadline_ms, unix_deadline_ms }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(database: &u16) -> bool {
    *database == 0
}

#[derive(Serialize)]
struct JsonFrame<'a> {
    shard: usize,
    in_snapshot: bool,
    seq: u64,
    counts: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    participants: Option<&'a [u32]>,
    changes: Vec<JsonChange<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "change", rename_all = "lowercase")]
enum JsonChange<'a> {
    Put(JsonRecord<'a>),
    Splice {
        #[serde(flatten)]
        key: Bytes<'a>,
        offset: u32,
        #[serde(flatten)]
        bytes: Bytes<'a>,
    },
    Deadline(JsonRecord<'a>),
    Remove {
        #[serde(flatten)]
        key: Bytes<'a>,
    },
    Clear,
    Keyspace {
        number: u16,
    },
    #[serde(rename = "clear keyspace")]
    ClearKeyspace,
    Databases {
        keyspaces: Vec<u16>,
    },
    Clocks {
        now_ms: u64,
        wall_ms: u64,
        boot: String,
        booted_ms: u64,
    },
    Malformed {
        offset: usize,
    },
}

fn json_line(line: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    writeln!(out)
}

/// A word of the text protocol: as it is if every byte is plain, else quoted.
fn word(bytes: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    match str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && bytes.iter().all(is_plain) => text.to_owned(),
        _ => quoted(bytes),
    }
}

/// Bytes in the double quotes of the text protocol. What is no readable character is written `\xHH`, so that
/// the whole is always text.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    let escape = |text: &mut String, bytes: &[u8]| {
        bytes.iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    };
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => text.extend(['\\', character]),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                _ if character.is_control() => {
                    escape(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => text.push(character),
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text.push('"');
    text
}
