//! Sums of floats as `INCRBYFLOAT` answers them, by exact fractions: another way than the shard's. Numbers have 64 bits
//! times a power of two, and every step takes the nearest of them, ties to even.

use num_bigint::BigInt;
use shard::Error;

const BITS: u64 = 64;
const EXPONENT_MIN: i64 = -16_445;
const EXPONENT_MAX: i64 = 16_320;
/// Numbers of more or fewer digits than that are too large or too small.
const DIGITS_MAX: i64 = 5_000;
const FRACTION_DIGITS: u32 = 17;

/// An integer times a power of two.
struct Float {
    integer: BigInt,
    exponent: i64,
}

/// The sum, as it is shown. A value that is missing counts as 0.
pub fn sum(value: Option<&[u8]>, increment: &[u8]) -> Result<String, Error> {
    let read = |text| read(text).ok_or(Error::NotAFloat);
    let value = value.map(read).transpose()?.unwrap_or(Some(Float { integer: BigInt::ZERO, exponent: 0 }));
    let increment = read(increment)?;
    let (a, b) = value.zip(increment).ok_or(Error::NotFinite)?;
    let exponent = a.exponent.min(b.exponent);
    let sum = (a.integer << (a.exponent - exponent)) + (b.integer << (b.exponent - exponent));
    nearest(&sum, &BigInt::from(1), exponent).map(shown).ok_or(Error::NotFinite)
}

/// Nothing of what is no number or does not fit, and nothing in it of what is infinite.
fn read(text: &[u8]) -> Option<Option<Float>> {
    let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    if ["inf", "infinity"].contains(&text) {
        return Some(None);
    }
    let (base, text, letter) = match text.strip_prefix("0x") {
        Some(text) => (16, text, 'p'),
        None => (10, text, 'e'),
    };
    let (mantissa, power) = text.split_once(letter).unwrap_or((text, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{integer}{fraction}");
    let are_digits = |text: &str, base| !text.is_empty() && text.chars().all(|c| c.is_digit(base));
    if !are_digits(&digits, base) || !are_digits(power.strip_prefix(['-', '+']).unwrap_or(power), 10) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(Some(Float { integer: BigInt::ZERO, exponent: 0 }));
    }
    let power: i64 = power.parse().ok()?;
    let number = BigInt::parse_bytes(digits.as_bytes(), base)?;
    let number = if is_negative { -number } else { number };
    let behind = fraction.len() as i64;
    let float = if base == 16 {
        nearest(&number, &BigInt::from(1), power - 4 * behind)?
    } else {
        let power = power.checked_sub(behind)?;
        if power.checked_add(digits.len() as i64)?.abs() > DIGITS_MAX {
            return None;
        }
        let factor = BigInt::from(10).pow(power.unsigned_abs() as u32);
        match power {
            0.. => nearest(&(number * factor), &BigInt::from(1), 0)?,
            _ => nearest(&number, &factor, 0)?,
        }
    };
    (float.integer != BigInt::ZERO).then_some(Some(float))
}

/// The nearest number to a fraction times two to the power of `exponent`, if it is not too large.
fn nearest(numerator: &BigInt, denominator: &BigInt, exponent: i64) -> Option<Float> {
    let bits = numerator.bits() as i64 - denominator.bits() as i64;
    // The quotient has one bit more than the difference, or as many.
    let at = |surplus: i64| {
        let new = (exponent + bits - BITS as i64 + surplus).max(EXPONENT_MIN);
        let shift = exponent - new;
        let integer = match shift {
            0.. => rounded(numerator << shift, denominator),
            _ => rounded(numerator.clone(), &(denominator << -shift)),
        };
        Float { integer, exponent: new }
    };
    let float = Some(at(0)).filter(|float| float.integer.bits() <= BITS).unwrap_or_else(|| at(1));
    let highest = float.integer.bits() as i64 + float.exponent;
    (highest <= EXPONENT_MAX + BITS as i64).then_some(float)
}

/// The nearest integer to a fraction, ties to even.
fn rounded(numerator: BigInt, denominator: &BigInt) -> BigInt {
    let is_negative = numerator < BigInt::ZERO;
    let magnitude = if is_negative { -numerator } else { numerator };
    let (floor, twice) = (&magnitude / denominator, (&magnitude % denominator) * 2);
    let is_up = twice > *denominator || twice == *denominator && floor.bit(0);
    let rounded = if is_up { floor + 1 } else { floor };
    if is_negative { -rounded } else { rounded }
}

fn shown(float: Float) -> String {
    let scaled = float.integer * BigInt::from(10).pow(FRACTION_DIGITS);
    let scaled = match float.exponent {
        0.. => scaled << float.exponent,
        _ => rounded(scaled, &(BigInt::from(1) << -float.exponent)),
    };
    let sign = if scaled < BigInt::ZERO { "-" } else { "" };
    let digits = format!("{:0>18}", scaled.magnitude().to_string());
    let (integer, fraction) = digits.split_at(digits.len() - FRACTION_DIGITS as usize);
    format!("{sign}{integer}.{fraction}").trim_end_matches('0').trim_end_matches('.').to_owned()
}
