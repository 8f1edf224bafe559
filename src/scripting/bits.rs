//! The library `bit`: numbers as 32 bits.

use mlua::{Lua, Table, Value, Variadic};

use super::arguments::number;

/// The low 32 bits of a number, rounded to the nearest integer, to the even one of two.
fn bits_of(number: f64) -> u32 {
    let rounded = number.round_ties_even() % 4_294_967_296.0;
    rounded as i64 as u32
}

fn shown(bits: u32) -> f64 {
    f64::from(bits.cast_signed())
}

/// A function of one number.
type Unary = fn(u32) -> u32;

/// A function of two numbers.
type Binary = fn(u32, u32) -> u32;

/// The functions of the library.
pub fn table(lua: &Lua) -> mlua::Result<Table> {
    let bit = lua.create_table()?;
    let unary: [(&str, Unary); 3] =
        [("tobit", |bits| bits), ("bnot", |bits| !bits), ("bswap", u32::swap_bytes)];
    for (name, of) in unary {
        let function = move |lua: &Lua, args: Variadic<Value>| {
            number(lua, &args, 1, name).map(|number| shown(of(bits_of(number))))
        };
        bit.raw_set(name, lua.create_function(function)?)?;
    }
    let folds: [(&str, Binary); 3] = [("band", |a, b| a & b), ("bor", |a, b| a | b), ("bxor", |a, b| a ^ b)];
    for (name, of) in folds {
        let function = move |lua: &Lua, args: Variadic<Value>| {
            let mut bits = bits_of(number(lua, &args, 1, name)?);
            for index in 2..=args.len() {
                bits = of(bits, bits_of(number(lua, &args, index, name)?));
            }
            Ok(shown(bits))
        };
        bit.raw_set(name, lua.create_function(function)?)?;
    }
    let shifts: [(&str, Binary); 5] = [
        ("lshift", |bits, by| bits << by),
        ("rshift", |bits, by| bits >> by),
        ("arshift", |bits, by| (bits.cast_signed() >> by).cast_unsigned()),
        ("rol", u32::rotate_left),
        ("ror", u32::rotate_right),
    ];
    for (name, of) in shifts {
        let function = move |lua: &Lua, args: Variadic<Value>| {
            let (bits, by) = (number(lua, &args, 1, name)?, number(lua, &args, 2, name)?);
            Ok(shown(of(bits_of(bits), bits_of(by) & 31)))
        };
        bit.raw_set(name, lua.create_function(function)?)?;
    }
    let tohex = |lua: &Lua, args: Variadic<Value>| {
        let bits = bits_of(number(lua, &args, 1, "tohex")?);
        let digits = if args.len() < 2 { 8 } else { bits_of(number(lua, &args, 2, "tohex")?).cast_signed() };
        let all = if digits < 0 { format!("{bits:08X}") } else { format!("{bits:08x}") };
        let count = digits.unsigned_abs().min(8) as usize;
        Ok(all[all.len() - count..].to_owned())
    };
    bit.raw_set("tohex", lua.create_function(tohex)?)?;
    Ok(bit)
}
