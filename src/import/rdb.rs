//! RDB files of Redis and Valkey: what keys they hold, and the values of those that are strings.
//!
//! ```text
//! file     = ("REDIS" <4 digits> | "VALKEY" <3 digits>) entry* ff [<CRC64 of all before, little-endian, or 0>]
//! entry    = fe <db>                       the keys behind it are in this database
//!          | fc <ms:8> | fd <s:4>          the key behind it expires then
//!          | f8 <len> | f9 <1 byte>        how recently, how often it was used
//!          | fa <string> <string>          about the file
//!          | fb <len> <len>                sizes of the database
//!          | f7 <module> ...               of a module
//!          | f5 <string>                   a function library
//!          | f4 <len> <len> <len>          of a slot
//!          | <type> <key> <value>
//! string   = <len> <bytes> | c0 <1> | c1 <2> | c2 <4> | c3 <packed len> <len> <LZF>
//! len      = 00LLLLLL | 01LLLLLL <1> | 80 <4, big-endian> | 81 <8, big-endian>
//! ```
//!
//! All other values are passed over by their lengths; how their bytes are laid out inside stays unknown. A type that
//! is not known ends the reading, since its end cannot be told.

use std::io::Read;

use super::input::{Damage, Fault, Input};
use crate::protocol::BULK_BYTES_MAX;
use shard::lzf;

/// What the files of Redis and of Valkey begin with.
pub const MAGICS: [&[u8]; 2] = [b"REDIS", b"VALKEY"];

/// Files of older versions end without a sum.
const CHECKSUM_VERSION_MIN: u32 = 5;

/// The raw id of an entry of a stream.
const STREAM_ID_BYTES: u64 = 16;

/// Something in the file, in its order.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// A key.
    Key {
        /// The number of its database.
        db: u64,
        /// Its name.
        name: Vec<u8>,
        /// When it expires, in milliseconds since the Unix epoch.
        deadline_ms: Option<u64>,
        /// What it holds.
        value: Value,
    },
    /// A library of functions.
    Functions,
}

/// The value of a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Value {
    /// Its bytes.
    String(Vec<u8>),
    /// A string that is longer than a client may send; its bytes were passed over.
    TooLong,
    /// It is no string.
    Other(Type),
}

/// What kind a value is of that is no string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // Each is named as in Redis.
pub enum Type {
    Hash,
    List,
    Module,
    Set,
    SortedSet,
    Stream,
}

/// Reads a file up to its end mark and the sum behind it, and hands on what is in it.
///
/// # Errors
/// [`Damage`], and those of `on_item`.
pub fn read<R: Read, E: From<Damage>>(
    input: &mut Input<R>,
    mut on_item: impl FnMut(Item, u64) -> Result<(), E>,
) -> Result<(), E> {
    let Header { version, is_valkey } = header(input)?;
    let (mut db, mut deadline_ms) = (0, None);
    loop {
        let code = input.byte()?;
        match code {
            0xff => break,
            0xfe => db = plain_length(input)?,
            0xfd => deadline_ms = Some(u64::from(u32::from_le_bytes(input.array()?)) * 1000),
            0xfc => deadline_ms = Some(i64::from_le_bytes(input.array()?).max(0) as u64),
            0xfb => skip_lengths(input, 2)?,
            0xfa => skip_strings(input, 2)?,
            0xf9 => input.skip(1)?,
            0xf8 => skip_lengths(input, 1)?,
            0xf7 => {
                // Id and the moment at which it counts, which is a number as in the values of modules.
                skip_lengths(input, 3)?;
                skip_module(input)?;
            }
            0xf5 => {
                skip_string(input)?;
                on_item(Item::Functions, input.offset())?;
            }
            0xf4 => skip_lengths(input, 3)?,
            kind => {
                let at = input.offset() - 1;
                let fault = Fault::Invalid("the name of a key is longer than 512 MiB");
                let name = string(input)?.ok_or(Damage { offset: at, fault })?;
                let value = match kind {
                    0 => string(input)?.map_or(Value::TooLong, Value::String),
                    _ => Value::Other(skip_value(input, kind, is_valkey, at)?),
                };
                let deadline_ms = deadline_ms.take();
                on_item(Item::Key { db, name, deadline_ms, value }, input.offset())?;
            }
        }
    }
    if version >= CHECKSUM_VERSION_MIN {
        let found = input.checksum();
        let offset = input.offset();
        let expected = u64::from_le_bytes(input.array()?);
        // Redis writes 0 where it is told not to count.
        if expected != 0 && expected != found {
            return Err(Damage { offset, fault: Fault::Checksum { expected, found } }.into());
        }
    }
    Ok(())
}

struct Header {
    version: u32,
    is_valkey: bool,
}

fn header<R: Read>(input: &mut Input<R>) -> Result<Header, Damage> {
    let start = input.array::<9>()?;
    let is_valkey = start.starts_with(MAGICS[1]);
    let magic = MAGICS[usize::from(is_valkey)];
    let digits = start.strip_prefix(magic).and_then(|digits| str::from_utf8(digits).ok());
    let version = digits.and_then(|digits| digits.parse().ok());
    let version = version.ok_or(Damage {
        offset: 0,
        fault: Fault::Invalid("it does not begin as an RDB file does: with REDIS or VALKEY and a version"),
    })?;
    Ok(Header { version, is_valkey })
}

/// A length, or how a string is encoded that has none.
enum Length {
    Plain(u64),
    Encoded(u8),
}

fn length<R: Read>(input: &mut Input<R>) -> Result<Length, Damage> {
    let offset = input.offset();
    let first = input.byte()?;
    Ok(match (first >> 6, first) {
        (0, _) => Length::Plain(u64::from(first)),
        (1, _) => Length::Plain(u64::from(first & 0x3f) << 8 | u64::from(input.byte()?)),
        (_, 0x80) => Length::Plain(u32::from_be_bytes(input.array()?).into()),
        (_, 0x81) => Length::Plain(u64::from_be_bytes(input.array()?)),
        (_, 0xc0..=0xc3) => Length::Encoded(first & 0x3f),
        _ => return Err(Damage { offset, fault: Fault::Invalid("no length stands here") }),
    })
}

fn plain_length<R: Read>(input: &mut Input<R>) -> Result<u64, Damage> {
    let offset = input.offset();
    match length(input)? {
        Length::Plain(length) => Ok(length),
        Length::Encoded(_) => Err(Damage { offset, fault: Fault::Invalid("no number stands here") }),
    }
}

/// A string; `None` if it is longer than a client may send, which is known before any of it is in memory.
fn string<R: Read>(input: &mut Input<R>) -> Result<Option<Vec<u8>>, Damage> {
    let is_too_long = |len| len > BULK_BYTES_MAX as u64;
    let integer = |integer: i32| integer.to_string().into_bytes();
    let mut bytes = Vec::new();
    match length(input)? {
        Length::Plain(len) if is_too_long(len) => return input.skip(len).map(|()| None),
        Length::Plain(len) => input.append_to(&mut bytes, len)?,
        Length::Encoded(0) => bytes = integer(input.array().map(i8::from_le_bytes)?.into()),
        Length::Encoded(1) => bytes = integer(input.array().map(i16::from_le_bytes)?.into()),
        Length::Encoded(2) => bytes = integer(input.array().map(i32::from_le_bytes)?),
        Length::Encoded(_) => {
            let (packed_len, len) = (plain_length(input)?, plain_length(input)?);
            if is_too_long(len) || is_too_long(packed_len) {
                return input.skip(packed_len).map(|()| None);
            }
            let offset = input.offset();
            input.append_to(&mut bytes, packed_len)?;
            let fault = Fault::Invalid("these bytes are not compressed as they should be");
            bytes = lzf::unpack(&bytes, len).ok_or(Damage { offset, fault })?;
        }
    }
    Ok(Some(bytes))
}

fn skip_string<R: Read>(input: &mut Input<R>) -> Result<(), Damage> {
    match length(input)? {
        Length::Plain(len) => input.skip(len),
        Length::Encoded(kind @ 0..3) => input.skip(1 << kind),
        Length::Encoded(_) => {
            let packed_len = plain_length(input)?;
            skip_lengths(input, 1)?;
            input.skip(packed_len)
        }
    }
}

fn skip_lengths<R: Read>(input: &mut Input<R>, count: u64) -> Result<(), Damage> {
    (0..count).try_for_each(|_| plain_length(input).map(drop))
}

fn skip_strings<R: Read>(input: &mut Input<R>, count: u64) -> Result<(), Damage> {
    (0..count).try_for_each(|_| skip_string(input))
}

/// Passes over the value of a key whose type stands at `offset`.
fn skip_value<R: Read>(input: &mut Input<R>, kind: u8, is_valkey: bool, offset: u64) -> Result<Type, Damage> {
    let mut each = |skip: &dyn Fn(&mut Input<R>) -> Result<(), Damage>| -> Result<(), Damage> {
        let count = plain_length(input)?;
        (0..count).try_for_each(|_| skip(input))
    };
    Ok(match kind {
        // One string holds all of it.
        9 | 13 | 16 | 23 => skip_string(input).map(|()| Type::Hash)?,
        10 => skip_string(input).map(|()| Type::List)?,
        11 | 20 => skip_string(input).map(|()| Type::Set)?,
        12 | 17 => skip_string(input).map(|()| Type::SortedSet)?,
        // A string for each element, or for each node of a list.
        1 | 14 => each(&skip_string).map(|()| Type::List)?,
        2 => each(&skip_string).map(|()| Type::Set)?,
        4 => each(&|input| skip_strings(input, 2)).map(|()| Type::Hash)?,
        18 => each(&|input| skip_lengths(input, 1).and_then(|()| skip_string(input))).map(|()| Type::List)?,
        3 => each(&|input| {
            skip_string(input)?;
            // A score in digits; the three greatest lengths stand for what has none.
            let len = input.byte()?;
            input.skip(if len >= 253 { 0 } else { len.into() })
        })
        .map(|()| Type::SortedSet)?,
        5 => each(&|input| skip_string(input).and_then(|()| input.skip(8))).map(|()| Type::SortedSet)?,
        // Fields that expire, as Valkey 9 writes them, and as Redis 7.4 does.
        22 if is_valkey => {
            each(&|input| skip_strings(input, 2).and_then(|()| input.skip(8))).map(|()| Type::Hash)?
        }
        22 | 24 => {
            if kind == 24 {
                input.skip(8)?;
            }
            let count = plain_length(input)?;
            (0..count).try_for_each(|_| skip_lengths(input, 1).and_then(|()| skip_strings(input, 2)))?;
            Type::Hash
        }
        25 => {
            input.skip(8)?;
            skip_string(input).map(|()| Type::Hash)?
        }
        7 => {
            skip_lengths(input, 1)?;
            skip_module(input).map(|()| Type::Module)?
        }
        15 | 19 | 21 | 26 => skip_stream(input, kind).map(|()| Type::Stream)?,
        _ => return Err(Damage { offset, fault: Fault::UnknownType(kind) }),
    })
}

/// What a module has written behind its id: each part says what it is, 0 that there are no more.
fn skip_module<R: Read>(input: &mut Input<R>) -> Result<(), Damage> {
    loop {
        let offset = input.offset();
        match plain_length(input)? {
            0 => return Ok(()),
            1 | 2 => skip_lengths(input, 1)?,
            3 => input.skip(4)?,
            4 => input.skip(8)?,
            5 => skip_string(input)?,
            _ => return Err(Damage { offset, fault: Fault::Invalid("no module writes this") }),
        }
    }
}

/// Passes over a stream: 19 has more about its ids than 15, 21 more about its consumers than 19, and 26 names its
/// producers.
fn skip_stream<R: Read>(input: &mut Input<R>, kind: u8) -> Result<(), Damage> {
    let nodes = plain_length(input)?;
    (0..nodes).try_for_each(|_| skip_strings(input, 2))?;
    skip_lengths(input, if kind == 15 { 3 } else { 8 })?;
    let groups = plain_length(input)?;
    for _ in 0..groups {
        skip_string(input)?;
        skip_lengths(input, if kind == 15 { 2 } else { 3 })?;
        let pending = plain_length(input)?;
        (0..pending).try_for_each(|_| {
            input.skip(STREAM_ID_BYTES + 8)?;
            skip_lengths(input, 1)
        })?;
        let consumers = plain_length(input)?;
        for _ in 0..consumers {
            skip_string(input)?;
            input.skip(if kind >= 21 { 16 } else { 8 })?;
            let pending = plain_length(input)?;
            (0..pending).try_for_each(|_| input.skip(STREAM_ID_BYTES))?;
        }
    }
    if kind == 26 {
        skip_lengths(input, 2)?;
        let producers = plain_length(input)?;
        for _ in 0..producers {
            skip_string(input)?;
            let entries = plain_length(input)?;
            (0..entries).try_for_each(|_| skip_string(input).and_then(|()| skip_lengths(input, 2)))?;
        }
        skip_lengths(input, 2)?;
    }
    Ok(())
}
