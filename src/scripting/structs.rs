//! The library `struct`: values in the forms that structures of C have.

use mlua::{Lua, MultiValue, Table, Value, Variadic};

use super::arguments::{bad, number, text};
use super::engine::{VALUES_MAX, lua_error};

/// The greatest alignment, and the greatest size of an integer.
const SIZE_MAX: usize = 32;

/// A format, read from its start on.
struct Format<'a> {
    text: &'a [u8],
    at: usize,
    is_little: bool,
    align: usize,
    function: &'static str,
}

/// One thing that a format asks for.
struct Item {
    option: u8,
    size: usize,
    /// So many bytes stand before it, so that it is aligned.
    padding: usize,
}

impl<'a> Format<'a> {
    fn new(text: &'a [u8], function: &'static str) -> Format<'a> {
        Format { text, at: 0, is_little: cfg!(target_endian = "little"), align: 1, function }
    }

    /// The digits at hand as a number, or what stands for none.
    fn count(&mut self, lua: &Lua, default: usize) -> mlua::Result<usize> {
        let mut count = None;
        while let Some(digit) = self.text.get(self.at).filter(|byte| byte.is_ascii_digit()) {
            let next = count.unwrap_or(0) * 10 + usize::from(digit - b'0');
            if next > i32::MAX as usize {
                return Err(lua_error(lua, "integral size overflow"));
            }
            count = Some(next);
            self.at += 1;
        }
        Ok(count.unwrap_or(default))
    }

    /// The next thing, `total` bytes behind the start of the data.
    fn next(&mut self, lua: &Lua, total: usize) -> mlua::Result<Option<Item>> {
        while let Some(option) = self.text.get(self.at).copied() {
            self.at += 1;
            let size = match option {
                b' ' => continue,
                b'<' | b'>' => {
                    self.is_little = option == b'<';
                    continue;
                }
                b'!' => {
                    let align = self.count(lua, 8)?;
                    if align == 0 || !align.is_power_of_two() {
                        return Err(lua_error(lua, &format!("alignment {align} is not a power of 2")));
                    }
                    self.align = align;
                    continue;
                }
                b'B' | b'b' | b'x' => 1,
                b'H' | b'h' => 2,
                b'L' | b'l' | b'T' | b'd' => 8,
                b'f' => 4,
                b's' => 0,
                b'c' => self.count(lua, 1)?,
                b'I' | b'i' => {
                    let size = self.count(lua, 4)?;
                    if size > SIZE_MAX {
                        let why = format!("integral size {size} is larger than limit of {SIZE_MAX}");
                        return Err(lua_error(lua, &why));
                    }
                    size
                }
                other => {
                    let why = format!("invalid format option '{}'", other.escape_ascii());
                    return Err(bad(lua, 1, self.function, &why));
                }
            };
            let is_aligned =
                !matches!(option, b'c' | b's' | b'x' | b'B' | b'b') && size > 1 && self.align > 1;
            let align = size.min(self.align);
            let padding = if is_aligned { (align - (total & (align - 1))) & (align - 1) } else { 0 };
            return Ok(Some(Item { option, size, padding }));
        }
        Ok(None)
    }
}

/// The functions of the library.
pub fn table(lua: &Lua) -> mlua::Result<Table> {
    let structs = lua.create_table()?;
    structs.raw_set("pack", lua.create_function(|lua, args: Variadic<Value>| pack(lua, &args))?)?;
    structs.raw_set("unpack", lua.create_function(|lua, args: Variadic<Value>| unpack(lua, &args))?)?;
    structs.raw_set("size", lua.create_function(|lua, args: Variadic<Value>| size(lua, &args))?)?;
    Ok(structs)
}

fn pack(lua: &Lua, args: &[Value]) -> mlua::Result<mlua::String> {
    let format = text(lua, args, 1, "pack")?;
    let mut format = Format::new(&format, "pack");
    let (mut out, mut index) = (Vec::new(), 2);
    // A value that is missing shows as nil here.
    let number = |index: usize| {
        if index > args.len() {
            return Err(bad(lua, index, "pack", "number expected, got nil"));
        }
        number(lua, args, index, "pack")
    };
    while let Some(Item { option, size, padding }) = format.next(lua, out.len())? {
        out.extend(std::iter::repeat_n(0, padding));
        match option {
            b'x' => {
                out.push(0);
                continue;
            }
            b's' | b'c' => {
                if index > args.len() {
                    return Err(bad(lua, index, "pack", "string expected, got nil"));
                }
                let bytes = text(lua, args, index, "pack")?;
                let size = if size == 0 { bytes.len() } else { size };
                if bytes.len() < size {
                    return Err(bad(lua, index + 1, "pack", "string too short"));
                }
                out.extend_from_slice(&bytes[..size]);
                if option == b's' {
                    out.push(0);
                }
            }
            b'f' => {
                let bytes = number(index)? as f32;
                out.extend(if format.is_little { bytes.to_le_bytes() } else { bytes.to_be_bytes() });
            }
            b'd' => {
                let bytes = number(index)?;
                out.extend(if format.is_little { bytes.to_le_bytes() } else { bytes.to_be_bytes() });
            }
            _ => {
                let given = number(index)?;
                let bits = if given < 0.0 { (given as i64).cast_unsigned() } else { given as u64 };
                let start = out.len();
                out.extend((0..size).map(|byte| if byte < 8 { (bits >> (8 * byte)) as u8 } else { 0 }));
                if !format.is_little {
                    out[start..].reverse();
                }
            }
        }
        index += 1;
    }
    lua.create_string(out)
}

fn unpack(lua: &Lua, args: &[Value]) -> mlua::Result<MultiValue> {
    let format = text(lua, args, 1, "unpack")?;
    let data = text(lua, args, 2, "unpack")?;
    let start = if args.len() < 3 { 1.0 } else { number(lua, args, 3, "unpack")? };
    let short = || bad(lua, 2, "unpack", "data string too short");
    let mut at = if start >= 1.0 { start as usize - 1 } else { usize::MAX };
    let mut format = Format::new(&format, "unpack");
    let mut values: Vec<Value> = Vec::new();
    while let Some(Item { option, size, padding }) = format.next(lua, at)? {
        if values.len() >= VALUES_MAX {
            return Err(lua_error(lua, "stack overflow (too many results)"));
        }
        at = at.checked_add(padding).ok_or_else(short)?;
        let rest = data.get(at..).filter(|rest| rest.len() >= size).ok_or_else(short)?;
        let mut used = size;
        match option {
            b'x' => {}
            b'c' => {
                if size == 0 {
                    let count = match values.pop() {
                        Some(Value::Number(count)) if count >= 0.0 => count as usize,
                        Some(Value::Integer(count)) if count >= 0 => count as usize,
                        _ => return Err(lua_error(lua, "format 'c0' needs a previous size")),
                    };
                    used = count;
                }
                values.push(Value::String(lua.create_string(rest.get(..used).ok_or_else(short)?)?));
            }
            b's' => {
                let end = rest.iter().position(|byte| *byte == 0);
                let end = end.ok_or_else(|| lua_error(lua, "unfinished string in data"))?;
                used = end + 1;
                values.push(Value::String(lua.create_string(&rest[..end])?));
            }
            b'f' => {
                let bytes: [u8; 4] = rest[..4].try_into().expect("four bytes");
                let number =
                    if format.is_little { f32::from_le_bytes(bytes) } else { f32::from_be_bytes(bytes) };
                values.push(Value::Number(number.into()));
            }
            b'd' => {
                let bytes: [u8; 8] = rest[..8].try_into().expect("eight bytes");
                let number =
                    if format.is_little { f64::from_le_bytes(bytes) } else { f64::from_be_bytes(bytes) };
                values.push(Value::Number(number));
            }
            _ => values.push(Value::Number(integer(
                &rest[..size],
                format.is_little,
                option.is_ascii_lowercase(),
            ))),
        }
        at += used;
    }
    values.push(Value::Number(at as f64 + 1.0));
    Ok(MultiValue::from_iter(values))
}

/// The integer that these bytes hold; of more than eight the low ones count.
fn integer(bytes: &[u8], is_little: bool, is_signed: bool) -> f64 {
    let byte =
        |index: usize| u64::from(if is_little { bytes[index] } else { bytes[bytes.len() - 1 - index] });
    let bits = (0..bytes.len().min(8)).fold(0, |bits, index| bits | byte(index) << (8 * index));
    if !is_signed {
        return bits as f64;
    }
    let unused = 64 - 8 * bytes.len().min(8);
    let shifted = if unused == 64 { 0 } else { (bits << unused).cast_signed() >> unused };
    shifted as f64
}

fn size(lua: &Lua, args: &[Value]) -> mlua::Result<f64> {
    let format = text(lua, args, 1, "size")?;
    let mut format = Format::new(&format, "size");
    let mut total = 0;
    while let Some(Item { option, size, padding }) = format.next(lua, total)? {
        if option == b's' {
            return Err(bad(lua, 1, "size", "option 's' has no fixed size"));
        }
        if option == b'c' && size == 0 {
            return Err(bad(lua, 1, "size", "option 'c0' has no fixed size"));
        }
        total += padding + size;
    }
    Ok(total as f64)
}
