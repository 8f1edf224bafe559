//! The arguments of functions that Lua calls, with the messages of Lua's own functions.

use mlua::{Lua, Value};

use super::engine::lua_error;

/// The error for argument `index`, counted from 1, of a function.
pub fn bad(lua: &Lua, index: usize, function: &str, why: &str) -> mlua::Error {
    lua_error(lua, &format!("bad argument #{index} to '{function}' ({why})"))
}

fn wrong_type(lua: &Lua, args: &[Value], index: usize, function: &str, expected: &str) -> mlua::Error {
    let got = args.get(index - 1).map_or("no value", type_name);
    bad(lua, index, function, &format!("{expected} expected, got {got}"))
}

/// The name of a value's type, in Lua's words.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) | Value::Number(_) => "number",
        Value::LightUserData(_) | Value::UserData(_) | Value::Error(_) => "userdata",
        other => other.type_name(),
    }
}

/// Argument `index` as a number.
pub fn number(lua: &Lua, args: &[Value], index: usize, function: &str) -> mlua::Result<f64> {
    let given = match args.get(index - 1) {
        Some(Value::Integer(n)) => Some(*n as f64),
        Some(Value::Number(number)) => Some(*number),
        Some(text @ Value::String(_)) => lua.coerce_number(text.clone())?,
        _ => None,
    };
    given.ok_or_else(|| wrong_type(lua, args, index, function, "number"))
}

/// Argument `index` as text; a number is shown by its digits.
pub fn text(lua: &Lua, args: &[Value], index: usize, function: &str) -> mlua::Result<Vec<u8>> {
    let given = args.get(index - 1).and_then(super::values::text_of);
    given.ok_or_else(|| wrong_type(lua, args, index, function, "string"))
}
