//! The library `cmsgpack`: values in MessagePack.

use mlua::{Lua, MultiValue, Table, Value, Variadic};

use super::arguments::{bad, number, text};
use super::engine::{VALUES_MAX, check_room, lua_error, reply_error};

/// Tables that stand deeper in others than this are packed as nothing.
const DEPTH_MAX: usize = 16;

/// The functions and the names of the library.
pub fn table(lua: &Lua) -> mlua::Result<Table> {
    let msgpack = lua.create_table()?;
    msgpack.raw_set(
        "pack",
        lua.create_function(|lua, args: Variadic<Value>| {
            if args.is_empty() {
                return Err(bad(lua, 0, "pack", "MessagePack pack needs input."));
            }
            let mut out = Vec::new();
            args.iter().try_for_each(|value| pack(value, 0, &mut out))?;
            lua.create_string(out)
        })?,
    )?;
    msgpack.raw_set(
        "unpack",
        lua.create_function(|lua, args: Variadic<Value>| {
            let data = text(lua, &args, 1, "unpack")?;
            unpack_all(lua, &data, None, 0)
        })?,
    )?;
    msgpack.raw_set(
        "unpack_one",
        lua.create_function(|lua, args: Variadic<Value>| {
            let data = text(lua, &args, 1, "unpack_one")?;
            let offset = if args.len() < 2 { 0.0 } else { number(lua, &args, 2, "unpack_one")? };
            unpack_all(lua, &data, Some(1), offset as i64)
        })?,
    )?;
    msgpack.raw_set(
        "unpack_limit",
        lua.create_function(|lua, args: Variadic<Value>| {
            let data = text(lua, &args, 1, "unpack_limit")?;
            let limit = number(lua, &args, 2, "unpack_limit")?;
            let offset = if args.len() < 3 { 0.0 } else { number(lua, &args, 3, "unpack_limit")? };
            unpack_all(lua, &data, Some(limit as i64), offset as i64)
        })?,
    )?;
    for (name, text) in [
        ("_NAME", "cmsgpack"),
        ("_VERSION", "lua-cmsgpack 0.4.0"),
        ("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo"),
        ("_DESCRIPTION", "MessagePack C implementation for Lua"),
    ] {
        msgpack.raw_set(name, text)?;
    }
    Ok(msgpack)
}

fn pack(value: &Value, depth: usize, out: &mut Vec<u8>) -> mlua::Result<()> {
    check_room(out.len())?;
    match value {
        Value::Boolean(yes) => out.push(if *yes { 0xc3 } else { 0xc2 }),
        Value::Integer(n) => pack_integer(*n, out),
        Value::Number(number) => pack_number(*number, out),
        Value::String(text) => {
            let text = text.as_bytes();
            check_room(out.len() + text.len())?;
            pack_len(text.len(), [(31, 0xa0), (0xff, 0xd9), (0xffff, 0xda)], 0xdb, out);
            out.extend_from_slice(&text);
        }
        Value::Table(_) if depth >= DEPTH_MAX => out.push(0xc0),
        Value::Table(table) => pack_table(table, depth + 1, out)?,
        _ => out.push(0xc0),
    }
    Ok(())
}

/// A length: within the first byte, or in one, two or four bytes behind it. A form that is missing has the limit 0.
fn pack_len(len: usize, [fixed, byte, short]: [(usize, u8); 3], long: u8, out: &mut Vec<u8>) {
    if len <= fixed.0 {
        out.push(fixed.1 | len as u8);
    } else if len <= byte.0 {
        out.extend([byte.1, len as u8]);
    } else if len <= short.0 {
        out.push(short.1);
        out.extend((len as u16).to_be_bytes());
    } else {
        out.push(long);
        out.extend((len as u32).to_be_bytes());
    }
}

fn pack_number(number: f64, out: &mut Vec<u8>) {
    if number == number.trunc() && number.abs() < -(i64::MIN as f64) || number == i64::MIN as f64 {
        return pack_integer(number as i64, out);
    }
    if f64::from(number as f32) == number {
        out.push(0xca);
        out.extend((number as f32).to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend(number.to_be_bytes());
    }
}

fn pack_integer(n: i64, out: &mut Vec<u8>) {
    match n {
        0..=127 => out.push(n as u8),
        128..=0xff => out.extend([0xcc, n as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend((n as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend((n as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend(n.to_be_bytes());
        }
        -32..=-1 => out.push(n as u8),
        -128..=-33 => out.extend([0xd0, n as u8]),
        -0x8000..=-129 => {
            out.push(0xd1);
            out.extend((n as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xd2);
            out.extend((n as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend(n.to_be_bytes());
        }
    }
}

/// A table is a list if its keys are the numbers from 1 to how many there are.
fn pack_table(table: &Table, depth: usize, out: &mut Vec<u8>) -> mlua::Result<()> {
    let (mut count, mut max, mut is_list) = (0, 0, true);
    for pair in table.pairs::<Value, Value>() {
        count += 1;
        match pair?.0 {
            Value::Integer(index) if index > 0 => max = max.max(index as usize),
            _ => is_list = false,
        }
    }
    if is_list && max == count {
        pack_len(count, [(15, 0x90), (0, 0), (0xffff, 0xdc)], 0xdd, out);
        return (1..=count).try_for_each(|index| pack(&table.raw_get(index)?, depth, out));
    }
    pack_len(count, [(15, 0x80), (0, 0), (0xffff, 0xde)], 0xdf, out);
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        pack(&key, depth, out)?;
        pack(&value, depth, out)?;
    }
    Ok(())
}

/// What the data holds from `offset` on: all of it, or so many values behind the offset of the next one.
fn unpack_all(lua: &Lua, data: &[u8], limit: Option<i64>, offset: i64) -> mlua::Result<MultiValue> {
    if offset < 0 || limit.is_some_and(|limit| limit < 0) {
        let limit = limit.unwrap_or_default();
        let text = format!("Invalid request to unpack with offset of {offset} and limit of {}.", limit);
        return Err(lua_error(lua, &text));
    }
    let start = offset as usize;
    if start > data.len() {
        let text = format!("Start offset {offset} greater than input length {}.", data.len());
        return Err(lua_error(lua, &text));
    }
    let count_max = limit.filter(|limit| *limit > 0).map_or(usize::MAX, |limit| limit as usize);
    let mut reader = Reader { lua, data, at: start };
    let mut values = Vec::new();
    while reader.at < data.len() && values.len() < count_max {
        if values.len() >= VALUES_MAX {
            let text =
                "stack overflow (too many return values at once; use unpack_one or unpack_limit instead.)";
            return Err(lua_error(lua, text));
        }
        values.push(reader.value(0)?);
    }
    if limit.is_some() {
        let next = if reader.at < data.len() { reader.at as f64 } else { -1.0 };
        values.insert(0, Value::Number(next));
    }
    Ok(MultiValue::from_iter(values))
}

struct Reader<'a> {
    lua: &'a Lua,
    data: &'a [u8],
    at: usize,
}

/// Lists in lists are read to this depth.
const READ_DEPTH_MAX: usize = 100;

impl Reader<'_> {
    fn take(&mut self, count: usize) -> mlua::Result<&[u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.data.len());
        let end = end.ok_or_else(|| lua_error(self.lua, "Missing bytes in input."))?;
        let taken = &self.data[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn unsigned(&mut self, bytes: usize) -> mlua::Result<u64> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn value(&mut self, depth: usize) -> mlua::Result<Value> {
        if depth > READ_DEPTH_MAX {
            return Err(lua_error(self.lua, "Bad data format in input."));
        }
        let first = self.take(1)?[0];
        let signed = |n: u64, bytes: u32| ((n << (64 - 8 * bytes)).cast_signed() >> (64 - 8 * bytes)) as f64;
        Ok(match first {
            0..=0x7f => Value::Number(first.into()),
            0xe0.. => Value::Number(first.cast_signed().into()),
            0xcc => Value::Number(self.unsigned(1)? as f64),
            0xcd => Value::Number(self.unsigned(2)? as f64),
            0xce => Value::Number(self.unsigned(4)? as f64),
            0xcf => Value::Number(signed(self.unsigned(8)?, 8)),
            0xd0 => Value::Number(signed(self.unsigned(1)?, 1)),
            0xd1 => Value::Number(signed(self.unsigned(2)?, 2)),
            0xd2 => Value::Number(signed(self.unsigned(4)?, 4)),
            0xd3 => Value::Number(signed(self.unsigned(8)?, 8)),
            0xc0 => Value::Nil,
            0xc2 | 0xc3 => Value::Boolean(first == 0xc3),
            0xca => Value::Number(f32::from_bits(self.unsigned(4)? as u32).into()),
            0xcb => Value::Number(f64::from_bits(self.unsigned(8)?)),
            0xa0..=0xbf => self.string(usize::from(first & 31))?,
            0xc4 | 0xd9 => self.string_of(1)?,
            0xc5 | 0xda => self.string_of(2)?,
            0xc6 | 0xdb => self.string_of(4)?,
            0x90..=0x9f => self.list(usize::from(first & 15), depth)?,
            0xdc | 0xdd => {
                let count = self.unsigned(if first == 0xdc { 2 } else { 4 })? as usize;
                self.list(count, depth)?
            }
            0x80..=0x8f => self.map(usize::from(first & 15), depth)?,
            0xde | 0xdf => {
                let count = self.unsigned(if first == 0xde { 2 } else { 4 })? as usize;
                self.map(count, depth)?
            }
            _ => return Err(lua_error(self.lua, "Bad data format in input.")),
        })
    }

    fn string_of(&mut self, len_bytes: usize) -> mlua::Result<Value> {
        let len = self.unsigned(len_bytes)? as usize;
        self.string(len)
    }

    fn string(&mut self, len: usize) -> mlua::Result<Value> {
        let lua = self.lua;
        lua.create_string(self.take(len)?).map(Value::String)
    }

    fn list(&mut self, count: usize, depth: usize) -> mlua::Result<Value> {
        let list = self.lua.create_table()?;
        for index in 1..=count {
            list.raw_set(index, self.value(depth + 1)?)?;
        }
        Ok(Value::Table(list))
    }

    fn map(&mut self, count: usize, depth: usize) -> mlua::Result<Value> {
        let map = self.lua.create_table()?;
        for _ in 0..count {
            let (key, value) = (self.value(depth + 1)?, self.value(depth + 1)?);
            match &key {
                Value::Nil => return Err(reply_error("table index is nil")),
                Value::Number(number) if number.is_nan() => return Err(reply_error("table index is NaN")),
                _ => map.raw_set(key, value)?,
            }
        }
        Ok(Value::Table(map))
    }
}
