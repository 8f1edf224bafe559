//! `docs/API_REFERENCE.md`: every row of the command table, its example asked of a real server on both protocols.
//!
//! The document is compared with what the server answers now; with `KVLITE_ACCEPT=1` (`make api-reference`) it is
//! written anew. What stands above [`MARK`] is written by hand and stays.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shard::Command;
use shard::command::{self, Flags, Group, Keys, Run, Server as OnServer, TABLE};
use tempfile::TempDir;

use crate::client::{Resp, Text, Value};
use crate::process::{Server, within_deadline};

/// The line behind which the command table writes the document.
const MARK: &str = "<!-- The command table writes what follows: make api-reference -->";

/// Fields whose values differ from run to run or from machine to machine, of a command or of any (`""`), and what stands
/// for them in the document.
const MASKED: &[(&str, &str, &str)] = &[
    ("", "addr", "<address>"),
    ("", "age", "<seconds>"),
    ("", "analytics.bytes", "<bytes>"),
    ("", "analytics_memory_bytes", "<bytes>"),
    ("", "clients.normal", "<bytes>"),
    ("", "connections", "<count>"),
    ("", "created", "<time>"),
    ("", "dataset.bytes", "<bytes>"),
    ("", "dataset.percentage", "<percent>"),
    ("", "fd", "<number>"),
    ("", "fragmentation", "<ratio>"),
    ("", "fragmentation.bytes", "<bytes>"),
    ("", "id", "<id>"),
    ("", "idle", "<seconds>"),
    ("", "interval_p50_ms", "<milliseconds>"),
    ("", "interval_p99_ms", "<milliseconds>"),
    ("", "io_backend", "<backend>"),
    ("", "laddr", "<address>"),
    ("", "last_access", "<time>"),
    ("", "load", "<per-second>"),
    ("", "memory_bytes", "<bytes>"),
    ("", "ms", "<milliseconds>"),
    ("", "obl", "<bytes>"),
    ("", "omem", "<bytes>"),
    ("", "overhead.total", "<bytes>"),
    ("", "peak.allocated", "<bytes>"),
    ("", "peak.percentage", "<percent>"),
    ("", "qbuf", "<bytes>"),
    ("", "qbuf-free", "<bytes>"),
    ("", "rate", "<per-second>"),
    ("", "rbp", "<bytes>"),
    ("", "rbs", "<bytes>"),
    ("", "resident.bytes", "<bytes>"),
    ("", "series", "<count>"),
    ("", "series_ready", "<count>"),
    ("", "tot-mem", "<bytes>"),
    ("", "total.allocated", "<bytes>"),
    ("", "uptime_seconds", "<seconds>"),
    ("", "wal_entries", "<count>"),
    ("", "wal_size", "<bytes>"),
    ("", "watched_seconds", "<seconds>"),
    ("BACKUP", "bytes", "<bytes>"),
    ("CACHE-ADVICE", "bytes", "<bytes>"),
    ("CACHE-ADVICE", "hit_ratio", "<ratio>"),
    ("STATS", "commands", "<count>"),
    ("STATS", "hits", "<count>"),
    ("STATS", "misses", "<count>"),
    ("STATS", "reads", "<count>"),
    ("STATS", "ttl_checks", "<count>"),
    ("STATS", "ttl_expired", "<count>"),
    ("STATS", "writes", "<count>"),
];

/// Commands whose reply is one such number, or a list of them.
const MASKED_NUMBERS: &[(&str, &[&str])] = &[
    ("CLIENT ID", &["<id>"]),
    ("LASTSAVE", &["<unix-time>"]),
    ("MEMORY USAGE", &["<bytes>"]),
    ("PTTL", &["<milliseconds>"]),
    ("TIME", &["<unix-time>", "<microseconds>"]),
];

/// Commands whose reply lists every command; the document shows the first of them.
const CUT: &[&str] = &["COMMAND", "COMMAND LIST"];
const ITEMS_SHOWN: usize = 2;

/// In an example that has taken longer a TTL may have been rounded to another second.
const EXAMPLE_MAX: Duration = Duration::from_millis(400);

#[test]
fn the_api_reference_shows_what_the_server_answers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/API_REFERENCE.md");
    let document = fs::read_to_string(&path).unwrap();
    let (by_hand, _) = document.split_once(MARK).expect("the document has its mark");
    let mut written = format!("{by_hand}{MARK}\n");
    write_index(&mut written);
    let asked = Asked::start();
    for row in TABLE {
        write_command(&mut written, row, "##", &asked);
        for row in command::subcommands(row) {
            write_command(&mut written, row, "###", &asked);
        }
    }
    if std::env::var_os("KVLITE_ACCEPT").is_some() {
        return fs::write(&path, written).unwrap();
    }
    let differs = document.lines().zip(written.lines()).position(|(shown, now)| shown != now);
    let differs = differs.unwrap_or(document.lines().count().min(written.lines().count()));
    let near =
        |text: &str| text.lines().skip(differs.saturating_sub(8)).take(12).collect::<Vec<_>>().join("\n");
    assert!(
        document == written,
        "docs/API_REFERENCE.md, line {}, shows\n{}\nand now it is\n{}\nIf that is meant: make api-reference",
        differs + 1,
        near(&document),
        near(&written)
    );
}

/// The part of the index in which a command stands.
fn part(row: &Command) -> &'static str {
    let is_question = |row: &Command| matches!(row.run, Run::Server(OnServer::Question(_)));
    match row.group {
        _ if row.name == "ANALYZE" || is_question(row) => "The use of keys",
        _ if command::subcommands(row).iter().any(is_question) => "The use of keys",
        Group::Bitmap => "Bits",
        Group::String => "Values",
        Group::Generic => "Keys and expiry",
        Group::Hyperloglog => "Distinct things",
        Group::Pubsub => "Messages",
        Group::Scripting => "Scripts",
        Group::Transactions => "Transactions",
        Group::Server => "Server and log",
        Group::Connection => "Connection",
    }
}

fn write_index(out: &mut String) {
    const PARTS: [&str; 10] = [
        "Values",
        "Bits",
        "Distinct things",
        "Keys and expiry",
        "Transactions",
        "Scripts",
        "Messages",
        "The use of keys",
        "Server and log",
        "Connection",
    ];
    for name in PARTS {
        let rows: Vec<_> = TABLE.iter().filter(|row| part(row) == name).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = write!(out, "\n**{name}**\n\n| command | what it does |\n| --- | --- |\n");
        for row in rows {
            let arguments = command::usage(row).replace('|', "\\|");
            let arguments = if arguments.is_empty() { arguments } else { format!(" `{arguments}`") };
            let _ = writeln!(out, "| [`{}`](#{}){arguments} | {} |", row.name, anchor(row.name), row.summary);
        }
    }
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace('.', "").replace(' ', "-")
}

fn write_command(out: &mut String, row: &Command, heading: &str, asked: &Asked) {
    let name = row.full_name().replace('|', " ").to_uppercase();
    let usage = command::usage(row);
    let call = format!("{name} {usage}");
    let _ = write!(out, "\n{heading} {name}\n\n`{}`\n\n{}.", call.trim_end(), row.summary);
    if row.example.is_empty() {
        out.push('\n');
        return;
    }
    let _ = writeln!(out, " {}. {}{}.", arguments(row), flags(row), row.complexity);
    if row.args_min > 0 || row.args_max != Command::MANY {
        let resp = format!("ERR wrong number of arguments for '{}' command", row.full_name());
        let text = match row.container {
            None => format!("ERR {} requires {}", row.name, row.needs),
            Some(_) => resp.clone(),
        };
        let both = if text == resp { String::new() } else { format!(", in the Redis protocol `-{resp}`") };
        let _ = writeln!(out, "With another number of arguments: `-{text}`{both}.");
    }
    let _ = write!(out, "\nText protocol:\n\n```\n{}```\n", asked.text(&name, row.example));
    let resp2 = asked.resp(&name, row.example, false);
    let resp3 = asked.resp(&name, row.example, true);
    let _ = write!(out, "\nRedis protocol:\n\n```\n{resp2}```\n");
    if resp3 != resp2 {
        let _ = write!(out, "\nRedis protocol, RESP3:\n\n```\n{resp3}```\n");
    }
}

fn arguments(row: &Command) -> String {
    let named =
        |count: usize| if count == 1 { "1 argument".to_owned() } else { format!("{count} arguments") };
    let count = match (row.args_min, row.args_max) {
        (0, 0) => "No arguments".to_owned(),
        (0, Command::MANY) => "Any number of arguments".to_owned(),
        (least, Command::MANY) => format!("{} or more", named(least)),
        (least, most) if least == most => named(most),
        (0, most) => format!("At most {}", named(most)),
        (least, most) if least + 1 == most => format!("{least} or {}", named(most)),
        (least, most) => format!("{least} to {}", named(most)),
    };
    let keys = match row.keys {
        Keys::None => String::new(),
        Keys::ONE => ", the first is the key".to_owned(),
        Keys::ALL => ", each a key".to_owned(),
        Keys::PAIRS => ", every other one a key".to_owned(),
        Keys::Range { first, last: -1, step: 1 } => format!(", those from number {} on are keys", first + 1),
        Keys::Range { first, last, step: 1 } => format!(", numbers {} to {} are keys", first + 1, last + 1),
        Keys::Range { .. } => unreachable!("no row has such keys"),
        Keys::Numbered { at, .. } => format!(", number {} says how many keys follow", at + 1),
        Keys::NumberedPairs { at } => format!(", number {} says how many keys with values follow", at + 1),
    };
    count + &keys
}

fn flags(row: &Command) -> String {
    let told = Flags::WRITE.with(Flags::READONLY).with(Flags::ADMIN).with(Flags::LOADING).with(Flags::FAST);
    let told: Vec<&str> = told.names().collect();
    let names: Vec<String> =
        row.flags.names().filter(|name| told.contains(name)).map(|name| format!("`{name}`")).collect();
    if names.is_empty() { String::new() } else { names.join(", ") + ". " }
}

/// The server that is asked.
struct Asked {
    server: Server,
    backups: TempDir,
}

impl Asked {
    fn start() -> Asked {
        let backups = TempDir::with_prefix("kvlite-test-").unwrap();
        let server = Server::start(1, &["--backup-dir", backups.path().to_str().unwrap()]);
        Asked { server, backups }
    }

    /// Takes back whatever an example has done.
    fn empty(&self) {
        let mut resp = self.server.resp();
        for request in ["CONFIG SET auto-ttl \"\"", "CLEAR", "SAVE", "ANALYTICS RESET"] {
            assert_eq!(resp.ask(request), Value::Simple("OK".to_owned()), "{request}");
        }
        drop(resp);
        let copies: Vec<PathBuf> =
            fs::read_dir(self.backups.path()).unwrap().map(|it| it.unwrap().path()).collect();
        copies.iter().for_each(|copy| fs::remove_dir_all(copy).unwrap());
    }

    /// What `ask` has to show of an example over a client that is alone with an empty server, in a time in which no TTL
    /// shows.
    fn in_time<C>(
        &self,
        connect: impl Fn() -> C,
        is_alone: impl Fn(&mut C) -> bool,
        ask: impl Fn(C) -> String,
    ) -> String {
        for _ in 0..20 {
            self.empty();
            let mut client = connect();
            assert!(
                within_deadline(|| is_alone(&mut client)),
                "another client stays\n{}",
                self.server.log.tail()
            );
            let start = Instant::now();
            let shown = ask(client);
            if start.elapsed() < EXAMPLE_MAX {
                return shown;
            }
        }
        panic!("no example of twenty took less than {EXAMPLE_MAX:?}\n{}", self.server.log.tail());
    }

    fn text(&self, name: &str, example: &str) -> String {
        let is_alone = |client: &mut Text| client.ask("CLIENT LIST").len() == 1;
        let masks = masks_of(name);
        self.in_time(
            || self.server.text(),
            is_alone,
            |mut client| {
                let mut shown = String::new();
                for request in example.lines().filter(|line| !line.starts_with("resp: ")) {
                    let mut lines = match request {
                        "QUIT" => {
                            client.wire.send(b"QUIT\n");
                            let rest = String::from_utf8(client.wire.until_closed()).unwrap();
                            rest.lines().map(str::to_owned).collect()
                        }
                        _ => client.ask(request),
                    };
                    let stand_ins = masked_numbers(request);
                    if lines.len() == stand_ins.len() && !lines[0].starts_with('-') {
                        lines = stand_ins.iter().map(ToString::to_string).collect();
                    }
                    let _ = writeln!(shown, "> {request}");
                    let count = lines.len();
                    if CUT.contains(&name) {
                        lines.truncate(ITEMS_SHOWN);
                        lines.push(format!("... {} lines more", count - ITEMS_SHOWN));
                    }
                    lines.iter().for_each(|line| shown.push_str(&(masked_line(line, &masks) + "\n")));
                }
                shown
            },
        )
    }

    fn resp(&self, name: &str, example: &str, resp3: bool) -> String {
        let is_alone =
            |client: &mut Resp| client.ask("CLIENT LIST").bytes().split(|byte| *byte == b'\n').count() == 2;
        let masks = masks_of(name);
        self.in_time(
            || self.server.resp(),
            is_alone,
            |mut client| {
                if resp3 {
                    client.ask("HELLO 3");
                }
                let mut shown = String::new();
                for request in example.lines().map(|line| line.strip_prefix("resp: ").unwrap_or(line)) {
                    let mut reply = client.ask(request);
                    let _ = writeln!(shown, "> {request}");
                    let mut left_out = 0;
                    if let (true, Value::Array(items)) = (CUT.contains(&name), &mut reply) {
                        left_out = items.len() - ITEMS_SHOWN;
                        items.truncate(ITEMS_SHOWN);
                    }
                    let stand_ins = masked_numbers(request);
                    let stand_in = match (&mut reply, stand_ins) {
                        (Value::Integer(0..), [stand_in]) => Some(*stand_in),
                        (Value::Array(items), [_, _, ..]) => {
                            *items = stand_ins.iter().map(|it| Value::Bulk(it.as_bytes().to_vec())).collect();
                            None
                        }
                        _ => None,
                    };
                    shown.push_str(&in_client(&reply, stand_in, &masks));
                    if left_out > 0 {
                        let _ = writeln!(shown, "... {left_out} items more");
                    }
                }
                shown
            },
        )
    }
}

fn masked_numbers(request: &str) -> &'static [&'static str] {
    MASKED_NUMBERS.iter().find(|(name, _)| request.starts_with(name)).map_or(&[], |(_, stand_ins)| stand_ins)
}

/// The fields of a command that are masked, and what stands for them.
type Masks = Vec<(&'static str, &'static str)>;

fn masks_of(name: &str) -> Masks {
    let of_command = MASKED.iter().filter(|(command, ..)| command.is_empty() || *command == name);
    of_command.map(|(_, field, stand_in)| (*field, *stand_in)).collect()
}

fn masked_field(name: &Value, masks: &Masks) -> Option<&'static str> {
    let Value::Bulk(name) = name else { return None };
    let (_, stand_in) = masks.iter().find(|(masked, _)| masked.as_bytes() == name)?;
    Some(stand_in)
}

/// A line with fields such as `name=value`, `name:value` and `"name":value`, of which some are masked.
fn masked_line(line: &str, masks: &Masks) -> String {
    let mut shown = line.to_owned();
    for (name, stand_in) in masks {
        for (before, assigns) in [("", "="), ("", ":"), ("\"", "\":")] {
            let field = format!("{before}{name}{assigns}");
            let mut from = 0;
            while let Some(at) = shown[from..].find(&field) {
                let start = from + at + field.len();
                from = start;
                if shown[..start - field.len()].ends_with(|last: char| !" ({,".contains(last)) {
                    continue;
                }
                let rest = &shown[start..];
                let len = match rest.strip_prefix(['"', '(']) {
                    Some(inside) => inside.find(['"', ')']).expect("what is opened is closed") + 2,
                    None => rest.find([' ', ',', ')', '}']).unwrap_or(rest.len()),
                };
                shown.replace_range(start..start + len, stand_in);
            }
        }
    }
    shown
}

/// A reply as `redis-cli` shows it, its last line ended. `stand_in` stands for the value.
fn in_client(reply: &Value, stand_in: Option<&str>, masks: &Masks) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let shown = match (reply, stand_in) {
        (Value::Integer(_), Some(stand_in)) => format!("(integer) {stand_in}"),
        (_, Some(stand_in)) => stand_in.to_owned(),
        (Value::Simple(text), _) => text.clone(),
        (Value::Error(text), _) => format!("(error) {text}"),
        (Value::Integer(number), _) => format!("(integer) {number}"),
        (Value::Nil | Value::NilArray | Value::Null, _) => "(nil)".to_owned(),
        (Value::Bool(yes), _) => format!("({yes})"),
        (Value::Double(digits), _) => format!("(double) {digits}"),
        (Value::Bulk(bytes) | Value::Verbatim(_, bytes), _) => {
            let Ok(text) = String::from_utf8(bytes.clone()) else {
                return format!("\"{}\"\n", bytes.escape_ascii());
            };
            let lines: Vec<String> = text.trim_end().lines().map(|line| masked_line(line, masks)).collect();
            // What is made of lines is shown as it is.
            if text.ends_with('\n') {
                lines.join("\n")
            } else {
                format!("\"{}\"", escaped(&lines.join("\n")))
            }
        }
        (Value::Array(items), _) if items.is_empty() => "(empty array)".to_owned(),
        (Value::Array(items) | Value::Push(items), _) => listed(items, ')', masks),
        (Value::Set(items), _) => listed(items, '~', masks),
        (Value::Map(fields), _) => {
            let of_field = |(name, value): &(Value, Value)| {
                let shown = in_client(value, masked_field(name, masks), masks);
                format!("{} => {shown}", in_client(name, None, masks).trim_end())
            };
            numbered(fields.iter().map(of_field), fields.len(), '#')
        }
    };
    shown.trim_end().to_owned() + "\n"
}

fn listed(items: &[Value], mark: char, masks: &Masks) -> String {
    let of_item = |(index, item): (usize, &Value)| {
        // RESP2 shows a map as a list of names and values.
        let stand_in = if index % 2 == 1 { masked_field(&items[index - 1], masks) } else { None };
        in_client(item, stand_in, masks)
    };
    numbered(items.iter().enumerate().map(of_item), items.len(), mark)
}

fn numbered(items: impl Iterator<Item = String>, count: usize, mark: char) -> String {
    let width = count.to_string().len();
    let of_item = |(number, item): (usize, String)| {
        let indented = item.trim_end().replace('\n', &format!("\n{}", " ".repeat(width + 2)));
        format!("{number:>width$}{mark} {indented}")
    };
    (1..).zip(items).map(of_item).collect::<Vec<_>>().join("\n")
}
