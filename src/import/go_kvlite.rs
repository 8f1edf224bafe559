//! The files of the earlier kvlite, which was written in Go, and JSON.
//!
//! ```text
//! log       kvlite.wal: a line for each change
//! line      = <ns> "|" ("SET" | "DELETE" | "CLEAR") "|" <key> "|" <value> ["|" <deadline ns>] "|" <CRC32>
//! snapshot  kvlite.snapshot: {"timestamp": ..., "version": 1, "key_count": 2, "data": {"key": "value", ...}}
//! ```
//!
//! In keys and values of the log a backslash, `|` and a newline are written `\\`, `\|` and `\n`. The sum, in decimal, is
//! the CRC32 (IEEE) of what stands before it, without these escapes. Versions before 0.5 have no deadline; 0 stands for
//! none. Since 0.5 the entry of a snapshot is an object with a value and a deadline in nanoseconds, 0 for none; it is
//! read by the names `value` or `Value`, and `expires_at`, `expiresAt` or `ExpiresAt`.
//!
//! JSON is taken as well as `{"key": "value", ...}`, and as what `kvlite dump --json` prints.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crc::{CRC_32_ISO_HDLC, Crc, Table};
use serde::Deserialize;
use serde_json::Value;

use super::input::{Damage, Fault, Input};

static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// The Go kvlite takes commands of 4 MiB, and writes two bytes at most for each.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// One change of the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    Set { key: Vec<u8>, value: Vec<u8>, deadline_ms: Option<u64> },
    Delete { key: Vec<u8> },
    Clear,
}

/// Why a line is no change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidLine {
    Fields(usize),
    Operation,
    Time,
    Sum { expected: u32, found: u32 },
}

impl Change {
    /// Reads a line, without its newline.
    ///
    /// # Errors
    /// [`InvalidLine`]
    pub fn parse(line: &[u8]) -> Result<Change, InvalidLine> {
        let fields = fields(line);
        let (time, operation, key, value, deadline, sum) = match &fields[..] {
            [time, operation, key, value, sum] => (time, operation, key, value, None, sum),
            [time, operation, key, value, deadline, sum] => {
                (time, operation, key, value, Some(deadline), sum)
            }
            _ => return Err(InvalidLine::Fields(fields.len())),
        };
        let nanoseconds = |field: &Vec<u8>| shard::parse_integer(field).ok_or(InvalidLine::Time);
        nanoseconds(time)?;
        let deadline_ns = deadline.map(nanoseconds).transpose()?.filter(|ns| *ns != 0);
        let deadline_ms = deadline_ns.map(|ns| ns.max(0).unsigned_abs() / 1_000_000);
        let digits = str::from_utf8(sum).ok().and_then(|sum| sum.parse::<u32>().ok());
        let expected = digits.ok_or(InvalidLine::Fields(fields.len()))?;
        let summed = fields[..fields.len() - 1].join(&b'|');
        let found = CRC.checksum(&summed);
        if found != expected {
            return Err(InvalidLine::Sum { expected, found });
        }
        match &operation[..] {
            b"SET" => Ok(Change::Set { key: key.clone(), value: value.clone(), deadline_ms }),
            b"DELETE" => Ok(Change::Delete { key: key.clone() }),
            b"CLEAR" => Ok(Change::Clear),
            _ => Err(InvalidLine::Operation),
        }
    }
}

/// The fields of a line, without their escapes.
fn fields(line: &[u8]) -> Vec<Vec<u8>> {
    let mut fields = vec![Vec::new()];
    let mut bytes = line.iter();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'|' => {
                fields.push(Vec::new());
                continue;
            }
            b'\\' => match bytes.next() {
                Some(b'n') => b'\n',
                Some(escaped) => *escaped,
                None => b'\\',
            },
            byte => *byte,
        };
        fields.last_mut().expect("there is one from the beginning").push(byte);
    }
    fields
}

/// Whether a file that begins so is a log of the Go kvlite.
pub fn begins_log(start: &[u8]) -> bool {
    let digits = start.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && start.get(digits) == Some(&b'|')
}

/// An entry of JSON.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    Key {
        /// The number of its database, where that is said.
        database: Option<u64>,
        key: Vec<u8>,
        value: Vec<u8>,
        deadline_ms: Option<u64>,
    },
    /// It is no key with a value: what it is, and why.
    Invalid(String),
    /// A snapshot says that it has another number of keys.
    Count { expected: u64, found: u64 },
}

/// Reads one JSON object after the other and hands on what is in them.
///
/// # Errors
/// [`Damage`], and those of `on_entry`.
pub fn read_json<R: Read, E: From<Damage>>(
    input: &mut Input<R>,
    mut on_entry: impl FnMut(Entry) -> Result<(), E>,
) -> Result<(), E> {
    let begin = input.offset();
    let mut documents = serde_json::Deserializer::from_reader(input).into_iter::<BTreeMap<String, Value>>();
    let mut is_empty = true;
    loop {
        let offset = begin + documents.byte_offset() as u64;
        match documents.next() {
            None if is_empty => return Err(Damage { offset, fault: Fault::Ends }.into()),
            None => return Ok(()),
            Some(Ok(object)) => {
                is_empty = false;
                entries(object, &mut on_entry)?;
            }
            Some(Err(error)) => {
                let fault = if error.is_eof() { Fault::Ends } else { Fault::Json(error) };
                return Err(Damage { offset, fault }.into());
            }
        }
    }
}

fn entries<E>(
    mut object: BTreeMap<String, Value>,
    on_entry: &mut impl FnMut(Entry) -> Result<(), E>,
) -> Result<(), E> {
    if let (Some(Value::Number(_)), Some(Value::Object(data))) = (object.get("version"), object.get("data")) {
        let expected = object.get("key_count").and_then(Value::as_u64);
        let found = data.len() as u64;
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            on_entry(Entry::Count { expected, found })?;
        }
        let Some(Value::Object(data)) = object.remove("data") else { return Ok(()) };
        return data.into_iter().try_for_each(|(key, value)| on_entry(entry(key, value)));
    }
    let is_dumped = |name: &str| object.contains_key(name) || object.contains_key(&format!("{name}_base64"));
    // `kvlite dump` writes all three, and a deadline is never a string, nor is the database, which it writes where that is
    // not 0: a plain object may well have such keys.
    let has_deadline = matches!(object.get("deadline_ms"), Some(Value::Number(_) | Value::Null));
    let fields = if matches!(object.get("database"), Some(Value::Number(_))) { 4 } else { 3 };
    if has_deadline && object.len() == fields && is_dumped("key") && is_dumped("value") {
        return on_entry(dumped(Value::Object(object.into_iter().collect())));
    }
    object.into_iter().try_for_each(|(key, value)| on_entry(entry(key, value)))
}

/// The entry of a snapshot, or of a plain object.
fn entry(key: String, value: Value) -> Entry {
    /// A field of another name may say when the key expires, so there must be none.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Expiring {
        #[serde(alias = "Value")]
        value: String,
        #[serde(default, alias = "ExpiresAt", alias = "expiresAt")]
        expires_at: i64,
    }

    let key = key.into_bytes();
    match value {
        Value::String(value) => {
            Entry::Key { database: None, key, value: value.into_bytes(), deadline_ms: None }
        }
        value => match serde_json::from_value::<Expiring>(value) {
            Ok(Expiring { value, expires_at }) => {
                let deadline_ms = (expires_at != 0).then(|| expires_at.max(0).unsigned_abs() / 1_000_000);
                Entry::Key { database: None, key, value: value.into_bytes(), deadline_ms }
            }
            Err(_) => Entry::Invalid(format!(
                "the value of {} is neither a string nor an object with value and expires_at",
                key.escape_ascii()
            )),
        },
    }
}

/// A line of `kvlite dump --json`.
fn dumped(object: Value) -> Entry {
    #[derive(Deserialize)]
    struct Dumped {
        database: Option<u64>,
        key: Option<String>,
        key_base64: Option<String>,
        value: Option<String>,
        value_base64: Option<String>,
        deadline_ms: Option<u64>,
    }

    fn bytes(text: Option<String>, base64: Option<String>) -> Option<Vec<u8>> {
        text.map(String::into_bytes).or_else(|| BASE64_STANDARD.decode(base64?).ok())
    }

    let shown = object.to_string();
    let read = serde_json::from_value::<Dumped>(object).ok().and_then(|dumped| {
        let key = bytes(dumped.key, dumped.key_base64)?;
        let value = bytes(dumped.value, dumped.value_base64)?;
        Some(Entry::Key { database: dumped.database, key, value, deadline_ms: dumped.deadline_ms })
    });
    read.unwrap_or_else(|| {
        Entry::Invalid(format!("no record: {}", shown.chars().take(200).collect::<String>()))
    })
}

impl fmt::Display for InvalidLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidLine::Fields(count) => {
                write!(
                    f,
                    "no record: a record has 5 or 6 fields, the last one a number, and this has {count}"
                )
            }
            InvalidLine::Operation => write!(f, "the operation is neither SET nor DELETE nor CLEAR"),
            InvalidLine::Time => write!(f, "the time is no number of nanoseconds"),
            InvalidLine::Sum { expected, found } => {
                write!(f, "the checksum is {found}, and should be {expected}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line as the Go kvlite writes it.
    fn line(fields: &[&str]) -> Vec<u8> {
        let sum = CRC.checksum(fields.join("|").as_bytes());
        let escaped =
            fields.iter().map(|field| field.replace('\\', "\\\\").replace('|', "\\|").replace('\n', "\\n"));
        let mut parts: Vec<String> = escaped.collect();
        parts.push(sum.to_string());
        parts.join("|").into_bytes()
    }

    fn set(key: &str, value: &str, deadline_ms: Option<u64>) -> Change {
        Change::Set { key: key.into(), value: value.into(), deadline_ms }
    }

    #[test]
    fn lines_of_both_versions() {
        // Its sum was taken from another implementation of CRC32, Python's zlib.
        let golden = b"1700000000000000000|SET|user:1|a\\|b\\\\c\\nd|3867098953";
        assert_eq!(Change::parse(golden), Ok(set("user:1", "a|b\\c\nd", None)));
        for (key, value) in
            [("k", "v"), ("", ""), ("a|b", "|"), ("back\\slash", "\\n"), ("line\nend", "\\\\n|")]
        {
            assert_eq!(Change::parse(&line(&["1", "SET", key, value])), Ok(set(key, value, None)));
            let old = line(&["1", "SET", key, value, "0"]);
            assert_eq!(Change::parse(&old), Ok(set(key, value, None)));
            let expiring = line(&["1", "SET", key, value, "1700000000123456789"]);
            assert_eq!(Change::parse(&expiring), Ok(set(key, value, Some(1_700_000_000_123))));
        }
        let delete = Change::Delete { key: b"k".to_vec() };
        assert_eq!(Change::parse(&line(&["1", "DELETE", "k", "", "0"])), Ok(delete));
        assert_eq!(Change::parse(&line(&["1", "CLEAR", "", ""])), Ok(Change::Clear));
    }

    #[test]
    fn a_line_that_is_changed_anywhere_is_refused() {
        let whole = line(&["1700000000000000000", "SET", "key", "value", "0"]);
        assert!(Change::parse(&whole).is_ok());
        for index in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[index] ^= 1 << bit;
                assert!(Change::parse(&damaged).is_err(), "{}", damaged.escape_ascii());
            }
            assert!(Change::parse(&whole[..index]).is_err(), "{index}");
        }
        assert_eq!(Change::parse(&line(&["1", "INCR", "k", "v"])), Err(InvalidLine::Operation));
        assert_eq!(Change::parse(b""), Err(InvalidLine::Fields(1)));
    }

    fn json(text: &str) -> Result<Vec<Entry>, Damage> {
        let mut entries = Vec::new();
        read_json(&mut Input::new(text.as_bytes()), |entry| {
            entries.push(entry);
            Ok::<_, Damage>(())
        })?;
        Ok(entries)
    }

    fn key(key: &str, value: &[u8], deadline_ms: Option<u64>) -> Entry {
        Entry::Key { database: None, key: key.into(), value: value.into(), deadline_ms }
    }

    #[test]
    fn snapshots_plain_objects_and_dumps() {
        let snapshot = r#"{"timestamp": 1700000000000000000, "version": 1, "key_count": 2,
            "data": {"a": "1", "b": {"value": "2", "expires_at": 1700000000123456789}}}"#;
        assert_eq!(json(snapshot).unwrap(), [key("a", b"1", None), key("b", b"2", Some(1_700_000_000_123))]);
        let short = r#"{"version": 1, "key_count": 3, "data": {"a": "1"}}"#;
        assert_eq!(json(short).unwrap(), [Entry::Count { expected: 3, found: 1 }, key("a", b"1", None)]);
        assert_eq!(
            json(r#"{"a": "1", "data": "x"}"#).unwrap(),
            [key("a", b"1", None), key("data", b"x", None)]
        );
        let dump = "{\"key\":\"a\",\"value_base64\":\"/w==\",\"deadline_ms\":null}\n\
            {\"key\":\"b\",\"value\":\"2\",\"deadline_ms\":7}\n";
        assert_eq!(json(dump).unwrap(), [key("a", b"\xff", None), key("b", b"2", Some(7))]);
        let dump = r#"{"database":3,"key":"a","value":"1","deadline_ms":null}"#;
        let Entry::Key { database: Some(3), key: name, .. } = &json(dump).unwrap()[0] else {
            panic!("{dump}")
        };
        assert_eq!(name, b"a");
        let named = r#"{"a": {"Value": "2", "ExpiresAt": 7000000}}"#;
        assert_eq!(json(named).unwrap(), [key("a", b"2", Some(7))]);
        let unclear = r#"{"a": {"value": "2", "ttl": 7}}"#;
        assert!(matches!(json(unclear).unwrap()[..], [Entry::Invalid(_)]));
        assert!(matches!(json(r#"{"a": 1}"#).unwrap()[..], [Entry::Invalid(_)]));
        let plain = r#"{"key": "x", "value": "y"}"#;
        assert_eq!(json(plain).unwrap(), [key("key", b"x", None), key("value", b"y", None)]);
        let plain = r#"{"key": "x", "value": "y", "deadline_ms": "7"}"#;
        assert_eq!(json(plain).unwrap().len(), 3);
        let no_record = r#"{"key": "a", "value": 1, "deadline_ms": null}"#;
        assert!(matches!(json(no_record).unwrap()[..], [Entry::Invalid(_)]));
    }

    #[test]
    fn json_that_is_cut_or_none_is_damage() {
        let whole = r#"{"version":1,"data":{"a":"1"}}"#;
        for len in 0..whole.len() {
            assert!(json(&whole[..len]).unwrap_err().is_cut(), "{len}");
        }
        assert!(matches!(json("[1]").unwrap_err().fault, Fault::Json(_)));
        assert!(matches!(json("{} x").unwrap_err().fault, Fault::Json(_)));
    }
}
