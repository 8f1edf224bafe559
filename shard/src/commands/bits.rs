//! Commands on the bits of strings. Bit 0 is the highest one of the first byte, and bits that a value does not have are
//! zeros.

use crate::combine::{Combined, Deadline, Effect, Held, Terms};
use crate::command::row::{Row, combining, on_shard};
use crate::command::spec::{Command, Flags, Group, Keys};
use crate::context::{Context, FoundString};
use crate::error::Error;
use crate::events::EventClasses;
use crate::integer;
use crate::reply::Reply;
use crate::request::Request;
use crate::room::has_room_for;

/// One more than the greatest number of a bit: the last bit of a value of 512 MiB is below it.
const OFFSET_END: u64 = 1 << 32;

/// The most bytes over which a field of 64 bits lies.
const FIELD_BYTES_MAX: usize = 9;

const INVALID_OFFSET: Error = Error::OutOfRange("bit offset is not an integer or out of range");
const INVALID_TYPE: Error = Error::OutOfRange(
    "Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
);

const READ: Command = Command { group: Group::Bitmap, flags: Flags::READONLY, ..Command::OF_KEY };
const WRITE: Command = Command { flags: Flags::WRITE.with(Flags::DENYOOM), ..READ };

#[rustfmt::skip] // A row is a paragraph.
pub(super) const ROWS: &[Row] = &[
    on_shard(bitcount, Command {
        name: "BITCOUNT", args_max: Command::MANY, usage: "key [start end [BYTE | BIT]]",
        summary: "Counts the bits of the value of a key, or of a part of it, that are 1",
        example: "SET bits foobar\nBITCOUNT bits\nBITCOUNT bits 1 1\nBITCOUNT bits 5 30 BIT", complexity: "O(n), n bytes counted",
        ..READ
    }),
    on_shard(bitfield, Command {
        name: "BITFIELD", args_max: Command::MANY,
        usage: "key [GET type offset | [OVERFLOW WRAP | SAT | FAIL] SET type offset value | INCRBY type offset increment] ...",
        summary: "Reads and changes integers of 1 to 64 bits that lie in the value of a key",
        example: "BITFIELD counters SET u8 0 200 INCRBY u8 0 100\nBITFIELD counters OVERFLOW SAT INCRBY u8 0 300 GET u8 0", complexity: "O(n), n integers",
        ..WRITE
    }),
    on_shard(bitfield_ro, Command {
        name: "BITFIELD_RO", args_max: Command::MANY, flags: READ.flags.with(Flags::FAST),
        usage: "key [GET type offset ...]",
        summary: "Reads integers of 1 to 64 bits that lie in the value of a key",
        example: "SETBIT bits 1 1\nBITFIELD_RO bits GET u4 0 GET u4 4", complexity: "O(n), n integers",
        ..READ
    }),
    combining(bitop, Command {
        name: "BITOP", args_min: 3, args_max: Command::MANY, keys: Keys::Range { first: 1, last: -1, step: 1 },
        flags: WRITE.flags.with(Flags::LISTS), needs: "operation, destination key and keys",
        usage: "AND | OR | XOR | NOT destkey key [key ...]",
        summary: "Combines the bits of the values of keys into that of another key, and returns its length",
        example: "MSET a foobar b abcdef\nBITOP AND both a b\nGET both\nBITOP NOT inverse a", complexity: "O(n), n bytes of all values",
        ..WRITE
    }),
    on_shard(bitpos, Command {
        name: "BITPOS", args_min: 2, args_max: Command::MANY, needs: "key and bit",
        usage: "key bit [start [end [BYTE | BIT]]]",
        summary: "Finds the first bit of the value of a key that is 0, or 1",
        example: "SETBIT bits 9 1\nBITPOS bits 1\nBITPOS bits 0", complexity: "O(n), n bytes searched",
        ..READ
    }),
    on_shard(getbit, Command {
        name: "GETBIT", args_min: 2, args_max: 2, flags: READ.flags.with(Flags::FAST), needs: "key and offset",
        usage: "key offset", summary: "Returns a bit of the value of a key",
        example: "SETBIT bits 7 1\nGETBIT bits 7\nGETBIT bits 100", complexity: "O(1)",
        ..READ
    }),
    on_shard(setbit, Command {
        name: "SETBIT", args_min: 3, args_max: 3, needs: "key, offset and bit", usage: "key offset bit",
        summary: "Sets a bit of the value of a key, which grows where needed, and returns what it was",
        example: "SETBIT bits 7 1\nSETBIT bits 7 0\nSTRLEN bits", complexity: "O(1), O(n) where the value grows to n bytes",
        ..WRITE
    }),
];

/// `GETBIT key offset`.
fn getbit<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let offset = offset_of(request.arg(1), 0)?;
    let found = context.look_up_string(request.arg(0))?;
    Ok(Reply::one_or_zero(found.is_some_and(|found| bit(context.string(found), offset))))
}

/// `SETBIT key offset bit`. The log gets the byte that has changed.
fn setbit<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let key = request.arg(0);
    let offset = offset_of(request.arg(1), 0)?;
    let yes = match integer::parse(request.arg(2)) {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(Error::OutOfRange("bit is not an integer or out of range")),
    };
    let found = context.find_string(key)?;
    let grows = found.is_none_or(|found| context.string(found).len() <= byte(offset));
    let found = grow(&mut context, found, key, offset)?;
    let value = context.string(found);
    let was = bit(value, offset);
    if grows || was != yes {
        context.notify(EventClasses::STRING, "setbit", key);
    }
    let value = context.string(found);
    if was != yes {
        let at = byte(offset);
        let changed = value[at] ^ mask(offset);
        context.splice(Some(found), key, at, &[changed]);
    }
    Ok(Reply::one_or_zero(was))
}

/// `BITOP AND | OR | XOR | NOT destkey key [key ...]`. What a value does not have counts as zeros.
fn bitop(request: &Request<'_>, held: &[Option<Held<'_>>], _terms: &Terms) -> Result<Combined, Error> {
    let name = request.arg(0);
    let is = |operation: &str| name.eq_ignore_ascii_case(operation.as_bytes());
    let operation: fn(u8, u8) -> u8 = match () {
        () if is("AND") => |left, right| left & right,
        () if is("OR") => |left, right| left | right,
        () if is("XOR") => |left, right| left ^ right,
        () if is("NOT") && held.len() > 2 => {
            return Err(Error::Unavailable("BITOP NOT must be called with a single source key."));
        }
        () if is("NOT") => |left, _| !left,
        () => return Err(Error::Syntax),
    };
    let mut values = held[1..].iter().map(|held| held.as_ref().map_or(&b""[..], Held::value));
    let len = values.clone().map(<[u8]>::len).max().unwrap_or_default();
    if !has_room_for(len) {
        return Err(Error::OutOfMemory);
    }
    let mut result = Vec::with_capacity(len);
    result.extend_from_slice(values.next().unwrap_or_default());
    result.resize(len, 0);
    if is("NOT") {
        result.iter_mut().for_each(|byte| *byte = operation(*byte, 0));
    }
    for value in values {
        let (met, rest) = result.split_at_mut(value.len());
        met.iter_mut().zip(value).for_each(|(byte, other)| *byte = operation(*byte, *other));
        rest.iter_mut().for_each(|byte| *byte = operation(*byte, 0));
    }
    let effect = match len {
        0 => Effect::remove(0),
        _ => Effect::put(0, result.into(), Deadline::At(None)),
    };
    Ok(Combined { reply: Reply::count(len), effects: vec![effect] })
}

/// `BITCOUNT key [start end [BYTE | BIT]]`.
fn bitcount<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let Some(found) = context.look_up_string(request.arg(0))? else { return Ok(Reply::Integer(0)) };
    let value = context.into_string(found);
    let (start, end, unit) = match request.arg_count() {
        1 => (0, -1, Unit::Byte),
        3 => (request.integer(1)?, request.integer(2)?, Unit::Byte),
        4 => {
            let (start, end) = (request.integer(1)?, request.integer(2)?);
            // As Redis has it, which looks at the unit only then.
            let is_empty = start < 0 && end < 0 && start > end;
            (start, end, if is_empty { Unit::Byte } else { Unit::parse(request.arg(3))? })
        }
        _ => return Err(Error::Syntax),
    };
    let is_empty = start < 0 && end < 0 && start > end;
    let Some((first, last)) = unit.bits(value, start, end).filter(|_| !is_empty) else {
        return Ok(Reply::Integer(0));
    };
    let bytes = &value[byte(first)..=byte(last)];
    let (words, rest) = bytes.as_chunks();
    let all: u64 = words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum::<u64>()
        + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
    let before = value[byte(first)] & !(0xff_u8 >> (first % 8));
    let behind = value[byte(last)] & (mask(last) - 1);
    Ok(Reply::Integer((all - u64::from(before.count_ones() + behind.count_ones())) as i64))
}

/// `BITPOS key bit [start [end [BYTE | BIT]]]`. Where no end is given, zeros follow the value.
fn bitpos<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let wanted = match request.integer(1)? {
        0 => false,
        1 => true,
        _ => return Err(Error::OutOfRange("The bit argument must be 1 or 0.")),
    };
    let Some(found) = context.look_up_string(request.arg(0))? else {
        return Ok(Reply::Integer(if wanted { -1 } else { 0 }));
    };
    let value = context.into_string(found);
    let count = request.arg_count();
    if count > 5 {
        return Err(Error::Syntax);
    }
    let start = if count > 2 { request.integer(2)? } else { 0 };
    let unit = if count > 4 { Unit::parse(request.arg(4))? } else { Unit::Byte };
    let end = if count > 3 { request.integer(3)? } else { -1 };
    let Some((first, last)) = unit.bits(value, start, end) else { return Ok(Reply::Integer(-1)) };
    Ok(Reply::Integer(match position(value, wanted, first, last) {
        Some(at) => at as i64,
        None if !wanted && count <= 3 => value.len() as i64 * 8,
        None => -1,
    }))
}

/// The first bit of a range that is as wanted.
fn position(value: &[u8], wanted: bool, first: u64, last: u64) -> Option<u64> {
    let unwanted_byte = if wanted { 0 } else { 0xff };
    let mut at = first;
    while at <= last {
        if at.is_multiple_of(8) {
            let bytes = &value[byte(at)..=byte(last)];
            // Words first, which is several times as fast.
            let (words, _) = bytes.as_chunks::<8>();
            let skipped =
                8 * words.iter().position(|word| *word != [unwanted_byte; 8]).unwrap_or(words.len());
            let of_rest = bytes[skipped..].iter().position(|byte| *byte != unwanted_byte)?;
            at += 8 * (skipped + of_rest) as u64;
        }
        if at <= last && bit(value, at) == wanted {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// `BITFIELD key [GET type offset | [OVERFLOW WRAP | SAT | FAIL] SET type offset value | INCRBY ...] ...`. The log gets
/// the bytes that are changed.
fn bitfield<'s>(mut context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let key = request.arg(0);
    let steps = steps(request)?;
    let written = steps.iter().filter(|step| !matches!(step.action, Action::Get)).map(Step::last_bit).max();
    let Some(last) = written else { return read(context, key, &steps) };
    let mut found = context.find_string(key)?;
    let mut changes = found.is_none_or(|found| context.string(found).len() <= byte(last));
    found = Some(grow(&mut context, found, key, last)?);
    let mut replies = Vec::with_capacity(steps.len());
    for step in &steps {
        let found = found.as_mut().expect("it was made where it was missing");
        let value = context.string(*found);
        let before = step.field.read(value, step.offset);
        let (shown, after) = match step.action {
            Action::Get => (Some(before), None),
            Action::Set(number) => {
                // What is set in an unsigned field is read as an unsigned number first, as Redis has it.
                let number = if step.field.signed { i128::from(number) } else { i128::from(number as u64) };
                let after = step.field.fitted(number, step.overflow);
                (after.map(|_| before), after)
            }
            Action::Add(increment) => {
                let after = step.field.fitted(before + i128::from(increment), step.overflow);
                (after, after)
            }
        };
        replies.push(shown.map_or(Reply::Nil, |number| Reply::Integer(number as i64)));
        if let Some(after) = after.filter(|after| *after != before) {
            let (at, bytes, len) = step.field.written(value, step.offset, after);
            context.splice(Some(*found), key, at, &bytes[..len]);
            changes = true;
            *found = context.find_string(key)?.expect("it has just been written");
        }
    }
    if changes {
        context.notify(EventClasses::STRING, "setbit", key);
    }
    Ok(Reply::Array(replies))
}

/// `BITFIELD_RO key [GET type offset ...]`.
fn bitfield_ro<'s>(context: Context<'s, '_>, request: &Request<'_>) -> Result<Reply<'s>, Error> {
    let steps = steps(request)?;
    if steps.iter().any(|step| !matches!(step.action, Action::Get)) {
        return Err(Error::OutOfRange("BITFIELD_RO only supports the GET subcommand"));
    }
    read(context, request.arg(0), &steps)
}

/// The fields that steps read.
fn read<'s>(mut context: Context<'s, '_>, key: &[u8], steps: &[Step]) -> Result<Reply<'s>, Error> {
    let found = context.look_up_string(key)?;
    let value = found.map_or(&b""[..], |found| context.into_string(found));
    let fields = steps.iter().map(|step| Reply::Integer(step.field.read(value, step.offset) as i64));
    Ok(Reply::Array(fields.collect()))
}

/// One of the things that BITFIELD does.
struct Step {
    action: Action,
    field: Field,
    offset: u64,
    overflow: Overflow,
}

enum Action {
    Get,
    Set(i64),
    Add(i64),
}

/// What becomes of a number that does not fit its field.
#[derive(Clone, Copy)]
enum Overflow {
    /// Its lowest bits are taken.
    Wrap,
    /// The nearest number that fits is taken.
    Saturate,
    /// Nothing is changed.
    Fail,
}

impl Step {
    fn last_bit(&self) -> u64 {
        self.offset + u64::from(self.field.bits) - 1
    }
}

/// What a request of BITFIELD asks for, in order.
fn steps(request: &Request<'_>) -> Result<Vec<Step>, Error> {
    let (mut steps, mut overflow) = (Vec::new(), Overflow::Wrap);
    let mut args = request.args().skip(1);
    while let Some(name) = args.next() {
        let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
        if is("OVERFLOW") && args.len() >= 1 {
            let word = args.next().ok_or(Error::Syntax)?;
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            overflow = match word {
                _ if is("WRAP") => Overflow::Wrap,
                _ if is("SAT") => Overflow::Saturate,
                _ if is("FAIL") => Overflow::Fail,
                _ => return Err(Error::OutOfRange("Invalid OVERFLOW type specified")),
            };
            continue;
        }
        let needed = if is("GET") { 2 } else { 3 };
        if !(is("GET") || is("SET") || is("INCRBY")) || args.len() < needed {
            return Err(Error::Syntax);
        }
        let mut next = || args.next().expect("they were counted");
        let field = Field::parse(next())?;
        let offset = offset_of(next(), u64::from(field.bits))?;
        let mut number = || integer::parse(next()).ok_or(Error::NotAnInteger);
        let action = match needed {
            2 => Action::Get,
            _ if is("SET") => Action::Set(number()?),
            _ => Action::Add(number()?),
        };
        steps.push(Step { action, field, offset, overflow });
    }
    Ok(steps)
}

/// An integer that lies anywhere in a value, its highest bit first.
#[derive(Clone, Copy)]
struct Field {
    signed: bool,
    /// From 1 to 64, and to 63 without a sign.
    bits: u32,
}

impl Field {
    /// A type such as `i16` or `u8`.
    fn parse(text: &[u8]) -> Result<Field, Error> {
        let (signed, bits) = match text {
            [b'i', bits @ ..] => (true, bits),
            [b'u', bits @ ..] => (false, bits),
            _ => return Err(INVALID_TYPE),
        };
        let bits = integer::parse(bits).and_then(|bits| u32::try_from(bits).ok()).ok_or(INVALID_TYPE)?;
        let bits_max = if signed { 64 } else { 63 };
        if (1..=bits_max).contains(&bits) { Ok(Field { signed, bits }) } else { Err(INVALID_TYPE) }
    }

    fn read(self, value: &[u8], offset: u64) -> i128 {
        let bits = offset..offset + u64::from(self.bits);
        let number = bits.fold(0, |number, at| number << 1 | i128::from(bit(value, at)));
        self.wrapped(number)
    }

    /// The lowest bits of a number, as the field shows them.
    fn wrapped(self, number: i128) -> i128 {
        let low = number & ((1 << self.bits) - 1);
        let is_negative = self.signed && low >> (self.bits - 1) == 1;
        if is_negative { low - (1 << self.bits) } else { low }
    }

    /// What the field holds when it is to hold this number; `None` if it is left as it is.
    fn fitted(self, number: i128, overflow: Overflow) -> Option<i128> {
        let (min, max) = match self.signed {
            true => (-(1_i128 << (self.bits - 1)), (1_i128 << (self.bits - 1)) - 1),
            false => (0, (1_i128 << self.bits) - 1),
        };
        match overflow {
            _ if (min..=max).contains(&number) => Some(number),
            Overflow::Wrap => Some(self.wrapped(number)),
            Overflow::Saturate => Some(number.clamp(min, max)),
            Overflow::Fail => None,
        }
    }

    /// The bytes of a value in which the field lies, with this number in it: where they begin, they, and how many.
    fn written(self, value: &[u8], offset: u64, number: i128) -> (usize, [u8; FIELD_BYTES_MAX], usize) {
        let end = offset + u64::from(self.bits);
        let (first, last) = (byte(offset), byte(end - 1));
        let mut bytes = [0; FIELD_BYTES_MAX];
        let len = last - first + 1;
        bytes[..len].copy_from_slice(&value[first..=last]);
        for at in offset..end {
            let byte = &mut bytes[byte(at) - first];
            if number >> (end - 1 - at) & 1 == 1 { *byte |= mask(at) } else { *byte &= !mask(at) }
        }
        (first, bytes, len)
    }
}

/// In what the indexes of a range count.
#[derive(Clone, Copy)]
enum Unit {
    Byte,
    Bit,
}

impl Unit {
    fn parse(name: &[u8]) -> Result<Unit, Error> {
        match name {
            _ if name.eq_ignore_ascii_case(b"BYTE") => Ok(Unit::Byte),
            _ if name.eq_ignore_ascii_case(b"BIT") => Ok(Unit::Bit),
            _ => Err(Error::Syntax),
        }
    }

    /// The first and the last bit between two indexes, of which negative ones count from the end; `None` if there are
    /// none.
    fn bits(self, value: &[u8], start: i64, end: i64) -> Option<(u64, u64)> {
        let each = match self {
            Unit::Byte => 8,
            Unit::Bit => 1,
        };
        let count = value.len() as i64 * 8 / each;
        let from_front = |index: i64| if index < 0 { (count + index).max(0) } else { index };
        let (start, end) = (from_front(start), from_front(end).min(count - 1));
        (start <= end).then(|| ((start * each) as u64, ((end + 1) * each - 1) as u64))
    }
}

/// The number of a bit. Where fields have a width, `#3` is the offset of the fourth one of that width.
fn offset_of(text: &[u8], field_bits: u64) -> Result<u64, Error> {
    let (digits, unit) = match text {
        [b'#', digits @ ..] if field_bits > 0 => (digits, field_bits),
        digits => (digits, 1),
    };
    let number = integer::parse(digits).and_then(|number| u64::try_from(number).ok());
    number
        .and_then(|number| number.checked_mul(unit))
        .filter(|offset| *offset < OFFSET_END)
        .ok_or(INVALID_OFFSET)
}

/// Makes sure that a value has this bit: it grows with zeros, and one that is not there is made.
fn grow(
    context: &mut Context<'_, '_>,
    found: Option<FoundString>,
    key: &[u8],
    last_bit: u64,
) -> Result<FoundString, Error> {
    let before = found.map_or(0, |found| context.string(found).len());
    let len = byte(last_bit) + 1;
    context.check_value_len(len)?;
    let is_shared = found.is_some_and(|found| context.is_shared(found));
    if (before < len || is_shared) && !has_room_for(2 * len.max(before)) {
        return Err(Error::OutOfMemory);
    }
    match found {
        Some(found) if before >= len => Ok(found),
        _ => {
            context.splice(found, key, len - 1, &[0]);
            Ok(context.find_string(key)?.expect("it has just been written"))
        }
    }
}

fn byte(bit: u64) -> usize {
    usize::try_from(bit / 8).expect("the offset of a bit is bounded")
}

fn mask(bit: u64) -> u8 {
    0x80 >> (bit % 8)
}

fn bit(value: &[u8], at: u64) -> bool {
    value.get(byte(at)).is_some_and(|byte| byte & mask(at) != 0)
}

#[cfg(test)]
mod tests {
    use crate::commands::transcript;

    #[test]
    fn a_bit_is_set_and_the_log_gets_its_byte() {
        transcript::run(
            r#"> SETBIT a 7 1
               0
               ! put a=, splice a@0=, splice a@0=
               > GETBIT a 7
               1
               > GETBIT a 6
               0
               > GETBIT a 4294967295
               0
               > SETBIT a 7 1
               1
               !
               > STRLEN a
               1
               > SETBIT a 23 0
               0
               > STRLEN a
               3
               > SETBIT a 4294967296 1
               OutOfRange("bit offset is not an integer or out of range")
               > SETBIT a -1 1
               OutOfRange("bit offset is not an integer or out of range")
               > SETBIT a 0 2
               OutOfRange("bit is not an integer or out of range")
               > SETBIT a 524288 1
               ValueTooLarge { limit: 65536 }
               !"#
            .replace("put a=, splice a@0=, splice a@0=", "put a=, splice a@0=\0, splice a@0=\u{1}")
            .as_str(),
        );
    }

    #[test]
    fn bits_are_counted_and_found() {
        transcript::run(
            "> SET a foobar
             OK
             > BITCOUNT a
             26
             > BITCOUNT a 0 0
             4
             > BITCOUNT a 1 1
             6
             > BITCOUNT a 5 30 BIT
             17
             > BITCOUNT a 5 5 bit
             1
             > BITCOUNT a -5 -10
             0
             > BITCOUNT nope x
             0
             > BITCOUNT a 1
             Syntax
             > BITPOS a 1
             1
             > BITPOS a 0
             0
             > BITPOS a 1 -1
             41
             > BITPOS a 1 3 9 BIT
             5
             > BITPOS a 1 9 8 BIT
             -1
             > BITPOS nope 1
             -1
             > BITPOS nope 0 5
             0
             > BITPOS a 2
             OutOfRange(\"The bit argument must be 1 or 0.\")
             > BITFIELD b SET u16 0 65535
             0
             > BITPOS b 0
             16
             > BITPOS b 0 0 -1
             -1
             > BITPOS b 0 1 1
             -1",
        );
    }

    #[test]
    fn fields_wrap_saturate_and_fail() {
        transcript::run(
            "> BITFIELD a INCRBY i5 100 1 GET u4 0
             1 0
             > STRLEN a
             14
             > BITFIELD a SET i8 0 -1 GET u8 0 GET i8 0 GET u4 2 GET u8 #1
             0 255 -1 15 0
             > BITFIELD a OVERFLOW SAT INCRBY u2 102 5 OVERFLOW FAIL INCRBY u2 102 1 OVERFLOW WRAP INCRBY u2 102 1
             3 nil 0
             > BITFIELD a OVERFLOW SAT SET u8 0 -1 SET i8 0 200 GET i8 0
             255 -1 127
             > BITFIELD a INCRBY i64 0 9223372036854775807
             -72057594037927937
             > BITFIELD_RO a GET u8 0
             254
             > BITFIELD_RO a SET u8 0 1
             OutOfRange(\"BITFIELD_RO only supports the GET subcommand\")
             > BITFIELD a SET u64 0 1
             OutOfRange(\"Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.\")
             > BITFIELD a GET u8
             Syntax
             > BITFIELD a OVERFLOW never
             OutOfRange(\"Invalid OVERFLOW type specified\")
             > BITFIELD a GET u8 #4294967295
             OutOfRange(\"bit offset is not an integer or out of range\")
             > BITFIELD nope GET u8 0
             0
             !",
        );
    }

    #[test]
    fn bitop_takes_what_is_missing_for_zeros() {
        transcript::run(
            "> MSET a abc b A
               OK
               > BITOP AND d a b
               3
               ! put d=A\0\0
               > BITOP or d b a
               3
               ! put d=abc
               > BITOP XOR d a b nope
               3
               ! put d= bc
               > BITOP XOR d d d
               3
               ! put d=\0\0\0
               > BITOP NOT d d
               3
               > BITCOUNT d
               24
               > BITOP NOT d a b
               Unavailable(\"BITOP NOT must be called with a single source key.\")
               > BITOP NAND d a b
               Syntax
               > BITOP OR d nope
               0
               ! remove d
               > BITOP OR d nope
               0
               !",
        );
    }
}
