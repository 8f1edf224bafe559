//! Floats as `INCRBYFLOAT` computes with them: the 80-bit format of x87, `long double` of C on x86-64, in which Redis
//! reads, adds and writes them. Every step rounds to the nearest, ties to even, and gives what Redis gives there, digit
//! for digit.
//!
//! ```text
//! value = mantissa * 2^exponent     mantissa: 64 bits, the highest set unless exponent is the least
//! ```

mod decimal;

use std::cmp::Ordering;

use decimal::{Approximation, Decimal};

/// The longest text that is read, in bytes.
const TEXT_LEN_MAX: usize = 5119;
const MANTISSA_BITS: u32 = 64;
/// How many bits below those of a number its sum with a smaller one is exact.
const ROOM_BITS: i32 = 62;
/// Exponents of the least number and of the greatest ones.
const EXPONENT_MIN: i32 = -16_445;
const EXPONENT_MAX: i32 = 16_320;
/// Decimal numbers with their first digit this far before or behind the point are too large, or as good as 0.
const DECIMAL_MAGNITUDE_MAX: i64 = 5_000;
/// So many hexadecimal digits are more than enough bits, and fit 128.
const HEXADECIMAL_HEAD_DIGITS: usize = 31;
/// How many digits are written behind the point, at most.
const FRACTION_DIGITS: usize = 17;

/// A number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LongDouble {
    negative: bool,
    magnitude: Magnitude,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Magnitude {
    Finite { mantissa: u64, exponent: i32 },
    Infinite,
}

const ZERO: Magnitude = Magnitude::Finite { mantissa: 0, exponent: EXPONENT_MIN };

impl LongDouble {
    /// Zero.
    pub(crate) const ZERO: LongDouble = LongDouble { negative: false, magnitude: ZERO };

    /// Reads a number as `strtold` of C does, without blanks around it: decimal or hexadecimal, with or without an
    /// exponent, or infinite. `None` for any other text, for no number at all, and for one that is too large, or too
    /// small to be told from 0.
    pub(crate) fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.len() > TEXT_LEN_MAX {
            return None;
        }
        let (negative, digits) = match text {
            [b'-', digits @ ..] => (true, digits),
            [b'+', digits @ ..] | digits => (false, digits),
        };
        let magnitude = if digits.eq_ignore_ascii_case(b"inf") || digits.eq_ignore_ascii_case(b"infinity") {
            Magnitude::Infinite
        } else if let [b'0', b'x' | b'X', digits @ ..] = digits {
            Numeral::read(digits, 16, b'p')?.hexadecimal()?
        } else {
            Numeral::read(digits, 10, b'e')?.decimal()?
        };
        Some(LongDouble { negative, magnitude })
    }

    /// The sum; `None` if it is infinite or no number.
    pub(crate) fn checked_add(self, other: LongDouble) -> Option<LongDouble> {
        let Magnitude::Finite { mantissa: a, exponent: a_exponent } = self.magnitude else { return None };
        let Magnitude::Finite { mantissa: b, exponent: b_exponent } = other.magnitude else { return None };
        let (high, low, exponent) = match a_exponent >= b_exponent {
            true => ((self.negative, a), (other.negative, b), a_exponent),
            false => ((other.negative, b), (self.negative, a), b_exponent),
        };
        // There is so much room below the higher one that what the lower one loses there counts only for not being 0.
        let high = (high.0, u128::from(high.1) << ROOM_BITS);
        let low = (low.0, shifted_right(u128::from(low.1) << ROOM_BITS, a_exponent.abs_diff(b_exponent)));
        let signed = |(negative, bits)| if negative { -(bits as i128) } else { bits as i128 };
        let sum = signed(high) + signed(low);
        let magnitude = round(sum.unsigned_abs(), false, exponent - ROOM_BITS)?;
        let negative = if sum == 0 { self.negative && other.negative } else { sum < 0 };
        Some(LongDouble { negative, magnitude })
    }

    /// The digits, as `%.17Lf` of C writes them, without zeros at the end.
    pub(crate) fn to_text(self) -> String {
        let Magnitude::Finite { mantissa, exponent } = self.magnitude else {
            return if self.negative { "-inf" } else { "inf" }.to_owned();
        };
        let sign = if self.negative { "-" } else { "" };
        if exponent >= 0 {
            let Decimal { point, digits } = Decimal::of(mantissa.into(), exponent);
            let mut text = sign.as_bytes().to_vec();
            text.extend(digits.iter().map(|digit| b'0' + digit));
            text.resize(sign.len() + point as usize, b'0');
            return String::from_utf8(text).expect("digits are ASCII");
        }
        // At most 121 bits.
        let scaled = u128::from(mantissa) * 10_u128.pow(FRACTION_DIGITS as u32);
        let digits = format!("{:018}", rounded_right(scaled, false, exponent.unsigned_abs()));
        let (integer, fraction) = digits.split_at(digits.len() - FRACTION_DIGITS);
        let fraction = fraction.trim_end_matches('0');
        match (integer, fraction) {
            ("0", "") => "0".to_owned(),
            (integer, "") => format!("{sign}{integer}"),
            (integer, fraction) => format!("{sign}{integer}.{fraction}"),
        }
    }
}

/// The digits of a number without their point and without zeros at both ends, and the power of the base by which they
/// count.
struct Numeral {
    digits: Vec<u8>,
    /// In units of a digit, but for the part that is written as an exponent.
    point: i64,
    exponent: i64,
}

impl Numeral {
    /// Reads digits with at most one point, and an exponent behind this letter, which may be missing.
    fn read(text: &[u8], base: u8, letter: u8) -> Option<Numeral> {
        let end = text.iter().position(|byte| byte.to_ascii_lowercase() == letter).unwrap_or(text.len());
        let (mantissa, exponent) = text.split_at(end);
        let exponent = match exponent {
            [] => 0,
            [_, b'-', digits @ ..] => -number(digits)?,
            [_, b'+', digits @ ..] | [_, digits @ ..] => number(digits)?,
        };
        let (integer, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
            Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
            None => (mantissa, &[][..]),
        };
        // In a form of which the compiler makes vector instructions.
        let digit = |byte: &u8| match byte.wrapping_sub(b'0') {
            digit @ ..10 => digit,
            _ => byte.to_ascii_lowercase().wrapping_sub(b'a').saturating_add(10),
        };
        let mut digits = Vec::with_capacity(text.len());
        digits.extend(integer.iter().map(digit));
        digits.extend(fraction.iter().map(digit));
        if digits.is_empty() || digits.iter().any(|digit| *digit >= base) {
            return None;
        }
        let point = -(fraction.len() as i64);
        let is_zero = |digit: &u8| *digit == 0;
        let zeros = digits.iter().rev().take_while(|digit| is_zero(digit)).count();
        digits.truncate(digits.len() - zeros);
        digits.drain(..digits.iter().take_while(|digit| is_zero(digit)).count());
        Some(Numeral { digits, point: point + zeros as i64, exponent })
    }

    fn decimal(self) -> Option<Magnitude> {
        let power = self.point + self.exponent;
        if self.digits.is_empty() {
            return Some(ZERO);
        }
        let point = self.digits.len() as i64 + power;
        if point.abs() > DECIMAL_MAGNITUDE_MAX {
            return None;
        }
        let (low, high, exponent) = Approximation::of(&self.digits, power).bounds();
        let (low, high) = (round(low, false, exponent), round(high, false, exponent));
        let nearest = match low {
            Some(Magnitude::Finite { mantissa, exponent }) if low != high => {
                // They are neighbours, and the number lies close to the middle between them.
                let middle = 2 * u128::from(mantissa) + 1;
                let middle = Decimal::leading(middle, exponent - 1, self.digits.len());
                match (Decimal { point, digits: self.digits }).cmp(&middle) {
                    Ordering::Less => low,
                    Ordering::Equal if mantissa % 2 == 0 => low,
                    Ordering::Equal | Ordering::Greater => high,
                }
            }
            _ => low,
        };
        nearest.filter(|magnitude| *magnitude != ZERO)
    }

    fn hexadecimal(self) -> Option<Magnitude> {
        if self.digits.is_empty() {
            return Some(ZERO);
        }
        let (head, rest) = self.digits.split_at(self.digits.len().min(HEXADECIMAL_HEAD_DIGITS));
        let bits = head.iter().fold(0, |bits, digit| bits << 4 | u128::from(*digit));
        let exponent = 4 * (self.point + rest.len() as i64) + self.exponent;
        let magnitude = round(bits, !rest.is_empty(), i32::try_from(exponent).ok()?);
        magnitude.filter(|magnitude| *magnitude != ZERO)
    }
}

/// The number that these digits are, or one that is as good where it is very large.
fn number(digits: &[u8]) -> Option<i64> {
    const ENOUGH: i64 = 1_000_000_000;
    let mut number = 0;
    for digit in digits {
        number = (10 * number + i64::from(char::from(*digit).to_digit(10)?)).min(ENOUGH);
    }
    (!digits.is_empty()).then_some(number)
}

/// Shifts to the right; the lowest bit then also stands for all that was shifted out.
fn shifted_right(bits: u128, shift: u32) -> u128 {
    let shifted = bits.checked_shr(shift).unwrap_or(0);
    shifted | u128::from(shifted.checked_shl(shift).unwrap_or(0) != bits)
}

/// Shifts to the right, and rounds to the nearest, ties to even; `rest` says that there is a little more than `bits`.
fn rounded_right(bits: u128, rest: bool, shift: u32) -> u128 {
    if shift == 0 || shift > u128::BITS {
        return if shift == 0 { bits } else { 0 };
    }
    let quotient = bits.checked_shr(shift).unwrap_or(0);
    let is_half_or_more = bits >> (shift - 1) & 1 == 1;
    let is_no_tie = rest || bits & ((1 << (shift - 1)) - 1) != 0;
    quotient + u128::from(is_half_or_more && (is_no_tie || quotient & 1 == 1))
}

/// The nearest number of the format to `bits` times 2^`exponent`, and a little more where there is a `rest`; `None` if
/// it is too large.
fn round(bits: u128, rest: bool, exponent: i32) -> Option<Magnitude> {
    if bits == 0 {
        return Some(ZERO);
    }
    let surplus = (u128::BITS - bits.leading_zeros()) as i32 - MANTISSA_BITS as i32;
    let shift = surplus.max(EXPONENT_MIN.saturating_sub(exponent));
    let exponent = exponent.checked_add(shift)?;
    let mantissa = match u32::try_from(shift) {
        Ok(shift) => rounded_right(bits, rest, shift),
        Err(_) => bits << shift.unsigned_abs(),
    };
    match u64::try_from(mantissa) {
        _ if exponent > EXPONENT_MAX => None,
        Ok(0) => Some(ZERO),
        Ok(mantissa) => Some(Magnitude::Finite { mantissa, exponent }),
        // It was rounded up to the next power of two.
        Err(_) if exponent == EXPONENT_MAX => None,
        Err(_) => Some(Magnitude::Finite { mantissa: (mantissa >> 1) as u64, exponent: exponent + 1 }),
    }
}

#[cfg(test)]
mod tests;
