//! Replies as Lua's values, and Lua's values as replies, by the rules of Redis.

use std::borrow::Cow;

use mlua::{Lua, Table, Value};
use shard::{Error, Reply};

use super::engine::Raised;
use crate::protocol::{self, Dialect, REQUEST_BYTES_MAX};

/// Tables in tables are shown to this depth.
const DEPTH_MAX: usize = 100;
/// The most bytes of what a script returns.
const REPLY_BYTES_MAX: usize = REQUEST_BYTES_MAX;

/// A reply as the script that asked for it sees it, which has chosen RESP3 or not. An error is a table like any other.
pub fn to_lua(lua: &Lua, reply: &Reply<'_>, is_resp3: bool) -> mlua::Result<Value> {
    let text = |bytes: &[u8]| lua.create_string(bytes).map(Value::String);
    let field = |name: &str, value: Value| {
        let table = lua.create_table_with_capacity(0, 1)?;
        table.raw_set(name, value)?;
        Ok(Value::Table(table))
    };
    match reply {
        Reply::Ok => field("ok", text(b"OK")?),
        Reply::Simple(status) => field("ok", text(status.as_bytes())?),
        Reply::Status(status) => field("ok", text(status)?),
        Reply::Line(line) => field("ok", text(line.as_bytes())?),
        Reply::Integer(n) => Ok(Value::Number(*n as f64)),
        Reply::Bool(yes) if is_resp3 => Ok(Value::Boolean(*yes)),
        Reply::Bool(yes) => Ok(Value::Integer(i64::from(*yes))),
        Reply::Double(digits) if is_resp3 => {
            field("double", Value::Number(digits.parse().unwrap_or(f64::NAN)))
        }
        Reply::Double(digits) => text(digits.as_bytes()),
        Reply::BigNumber(digits) if is_resp3 => field("big_number", text(digits)?),
        Reply::Bulk(bytes) | Reply::BigNumber(bytes) => text(bytes),
        Reply::Shared(bytes) => text(bytes),
        Reply::Nil | Reply::NilArray if is_resp3 => Ok(Value::Nil),
        Reply::Nil | Reply::NilArray => Ok(Value::Boolean(false)),
        Reply::Set(items) if is_resp3 => {
            let set = lua.create_table_with_capacity(0, items.len())?;
            for item in items {
                let item = to_lua(lua, item, true)?;
                set.raw_set(item, true)?;
            }
            field("set", Value::Table(set))
        }
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            let list = lua.create_table_with_capacity(items.len(), 0)?;
            for (index, item) in items.iter().enumerate() {
                list.raw_set(index + 1, to_lua(lua, item, is_resp3)?)?;
            }
            Ok(Value::Table(list))
        }
        Reply::Map(fields) => {
            let pairs = fields.iter().map(|(name, value)| (text(name.as_bytes()), value));
            pairs_to_lua(lua, pairs, is_resp3)
        }
        Reply::Pairs(pairs) => {
            let pairs = pairs.iter().map(|(name, value)| (to_lua(lua, name, is_resp3), value));
            pairs_to_lua(lua, pairs, is_resp3)
        }
        Reply::Text(shown) if is_resp3 => verbatim(lua, b"txt", shown.as_bytes()),
        Reply::Text(shown) => text(shown.as_bytes()),
        Reply::Verbatim(format, shown) if is_resp3 => verbatim(lua, format, shown),
        Reply::Verbatim(_, shown) => text(shown),
        Reply::Error(error) => field("err", text(&error_text(error))?),
    }
}

fn pairs_to_lua<'r>(
    lua: &Lua,
    pairs: impl ExactSizeIterator<Item = (mlua::Result<Value>, &'r Reply<'r>)>,
    is_resp3: bool,
) -> mlua::Result<Value> {
    let (list_len, map_len) = if is_resp3 { (0, pairs.len()) } else { (2 * pairs.len(), 0) };
    let table = lua.create_table_with_capacity(list_len, map_len)?;
    for (index, (name, value)) in pairs.enumerate() {
        let (name, value) = (name?, to_lua(lua, value, is_resp3)?);
        if is_resp3 {
            table.raw_set(name, value)?;
        } else {
            table.raw_set(2 * index + 1, name)?;
            table.raw_set(2 * index + 2, value)?;
        }
    }
    if !is_resp3 {
        return Ok(Value::Table(table));
    }
    let map = lua.create_table_with_capacity(0, 1)?;
    map.raw_set("map", table)?;
    Ok(Value::Table(map))
}

fn verbatim(lua: &Lua, format: &[u8], text: &[u8]) -> mlua::Result<Value> {
    let (inner, outer) = (lua.create_table_with_capacity(0, 2)?, lua.create_table_with_capacity(0, 1)?);
    inner.raw_set("string", lua.create_string(text)?)?;
    inner.raw_set("format", lua.create_string(format)?)?;
    outer.raw_set("verbatim_string", inner)?;
    Ok(Value::Table(outer))
}

/// The text of an error as RESP has it, without the minus sign in front.
pub fn error_text(error: &Error) -> Vec<u8> {
    let mut line = Vec::new();
    protocol::write_error(error.clone(), Dialect::Resp2, &mut line);
    line.truncate(line.len() - 2);
    line.remove(0);
    line
}

/// What a script returns, as the reply to its client. `is_resp3` says what the script has chosen.
pub fn to_reply(value: &Value, is_resp3: bool) -> mlua::Result<Reply<'static>> {
    Builder { is_resp3, left_bytes: REPLY_BYTES_MAX }.reply_of(value, 0)
}

/// Makes a reply, which may have only so many bytes more: a script may return one large value many times.
struct Builder {
    is_resp3: bool,
    left_bytes: usize,
}

impl Builder {
    fn take(&mut self, bytes: usize) -> mlua::Result<()> {
        let left_bytes = self.left_bytes.checked_sub(bytes);
        self.left_bytes = left_bytes.ok_or_else(|| {
            let error = Error::ReplyTooLarge { limit: REPLY_BYTES_MAX };
            mlua::Error::external(Raised::Reply(error_text(&error)))
        })?;
        Ok(())
    }

    fn reply_of(&mut self, value: &Value, depth: usize) -> mlua::Result<Reply<'static>> {
        self.take(size_of::<Reply<'_>>())?;
        let is_resp3 = self.is_resp3;
        Ok(match value {
            Value::String(text) => {
                self.take(text.as_bytes().len())?;
                Reply::Bulk(Cow::Owned(text.as_bytes().to_vec()))
            }
            Value::Integer(n) => Reply::Integer(*n),
            Value::Number(number) => Reply::Integer(to_integer(*number)),
            Value::Boolean(yes) if is_resp3 => Reply::Bool(*yes),
            Value::Boolean(true) => Reply::Integer(1),
            Value::Table(_) if depth > DEPTH_MAX => {
                Reply::Error(Error::OfScript(b"ERR reached lua stack limit"[..].into()))
            }
            Value::Table(table) => self.table_reply(table, depth)?,
            _ => Reply::Nil,
        })
    }

    fn table_reply(&mut self, table: &Table, depth: usize) -> mlua::Result<Reply<'static>> {
        let text = |value: &Value| match value {
            Value::String(text) => Some(spaced(&text.as_bytes())),
            _ => None,
        };
        if let Some(error) = text(&table.raw_get("err")?) {
            return Ok(Reply::Error(Error::OfScript(error.into())));
        }
        if let Some(status) = text(&table.raw_get("ok")?) {
            return Ok(Reply::Status(Cow::Owned(status)));
        }
        match table.raw_get("double")? {
            Value::Integer(n) => return Ok(Reply::Double(n.to_string())),
            Value::Number(number) => return Ok(Reply::Double(double_digits(number))),
            _ => {}
        }
        if let Value::Table(map) = table.raw_get("map")? {
            let mut pairs = Vec::new();
            for pair in map.pairs::<Value, Value>() {
                let (name, value) = pair?;
                pairs.push((self.reply_of(&name, depth + 1)?, self.reply_of(&value, depth + 1)?));
            }
            return Ok(Reply::Pairs(pairs));
        }
        if let Value::Table(set) = table.raw_get("set")? {
            let items = set.pairs::<Value, Value>().map(|pair| self.reply_of(&pair?.0, depth + 1));
            return Ok(Reply::Set(items.collect::<mlua::Result<_>>()?));
        }
        if let Some(digits) = text(&table.raw_get("big_number")?) {
            return Ok(Reply::BigNumber(Cow::Owned(digits)));
        }
        if let Value::Table(verbatim) = table.raw_get("verbatim_string")?
            && let (Some(shown), Some(format)) =
                (text_of(&verbatim.raw_get("string")?), text_of(&verbatim.raw_get("format")?))
        {
            let mut three = *b"   ";
            three.iter_mut().zip(&format).for_each(|(to, from)| *to = *from);
            return Ok(Reply::Verbatim(three, Cow::Owned(shown)));
        }
        self.list_reply(table, depth)
    }

    /// The items up to the first that is missing.
    fn list_reply(&mut self, table: &Table, depth: usize) -> mlua::Result<Reply<'static>> {
        let mut items = Vec::new();
        for index in 1.. {
            let item: Value = table.raw_get(index)?;
            if item == Value::Nil {
                break;
            }
            items.push(self.reply_of(&item, depth + 1)?);
        }
        Ok(Reply::Array(items))
    }
}

/// A text, or a number in its digits: what Lua takes for a text.
pub fn text_of(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(n) => Some(n.to_string().into_bytes()),
        Value::Number(number) => Some(format_general(*number, 14).into_bytes()),
        _ => None,
    }
}

/// The text on one line.
fn spaced(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect()
}

/// A number cut to an integer, as the processor's instruction does it that Redis relies on.
pub fn to_integer(number: f64) -> i64 {
    let fits = number >= i64::MIN as f64 && number < -(i64::MIN as f64);
    if fits { number as i64 } else { i64::MIN }
}

/// A double in RESP.
fn double_digits(number: f64) -> String {
    if number.is_infinite() {
        return String::from(if number > 0.0 { "inf" } else { "-inf" });
    }
    format_general(number, 17)
}

/// A number as C's `%.*g` writes it.
pub fn format_general(number: f64, precision: usize) -> String {
    if number.is_nan() {
        return String::from(if number.is_sign_negative() { "-nan" } else { "nan" });
    }
    if number.is_infinite() {
        return String::from(if number > 0.0 { "inf" } else { "-inf" });
    }
    let precision = precision.max(1);
    let scientific = format!("{number:.*e}", precision - 1);
    let (mantissa, exponent) = scientific.split_once('e').expect("the form has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    let trimmed = |digits: &str| match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => digits.to_owned(),
    };
    if exponent < -4 || exponent >= precision as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs());
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    trimmed(&format!("{number:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_c_writes_them() {
        for (number, digits) in [
            (0.1, "0.10000000000000001"),
            (100.0, "100"),
            (1e20, "1e+20"),
            (1e-5, "1.0000000000000001e-05"),
            (3.5, "3.5"),
            (f64::INFINITY, "inf"),
            (0.0, "0"),
            (123456789012345680.0, "1.2345678901234568e+17"),
        ] {
            assert_eq!(format_general(number, 17), digits);
        }
        assert_eq!(format_general(0.1, 14), "0.1");
        assert_eq!(format_general(99999999999999.9, 14), "1e+14");
        assert_eq!([to_integer(3.99), to_integer(-0.5), to_integer(1e20)], [3, 0, i64::MIN]);
        assert_eq!(to_integer(f64::NAN), i64::MIN);
    }
}
