//! Floats as `INCRBYFLOAT` computes with them: the 80-bit format of x87, `long double` of C on x86-64, in which Redis
//! reads, adds and writes them. Every step rounds to the nearest, ties to even, and gives what Redis gives there, digit
//! for digit.
//!
//! ```text
//! value = mantissa * 2^exponent     mantissa: 64 bits, the highest set unless exponent is the least
//! ```

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
/// How many digits are written behind the point, at most.
const FRACTION_DIGITS: usize = 17;

/// A number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongDouble {
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
    pub const ZERO: LongDouble = LongDouble { negative: false, magnitude: ZERO };

    /// Reads a number as `strtold` of C does, without blanks around it: decimal or hexadecimal, with or without an
    /// exponent, or infinite. `None` for any other text, for no number at all, and for one that is too large, or too
    /// small to be told from 0.
    pub fn parse(text: &[u8]) -> Option<LongDouble> {
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
    pub fn checked_add(self, other: LongDouble) -> Option<LongDouble> {
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
    pub fn to_text(self) -> String {
        let Magnitude::Finite { mantissa, exponent } = self.magnitude else {
            return if self.negative { "-inf" } else { "inf" }.to_owned();
        };
        let sign = if self.negative { "-" } else { "" };
        if exponent >= 0 {
            let mut integer = Natural::from(mantissa);
            integer.shift_left(exponent as u32);
            return format!("{sign}{}", integer.into_decimal());
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

/// The digits of a number without their point, and the power of the base by which they count.
struct Numeral {
    digits: Vec<u8>,
    /// In units of a digit, but for the part that is written as an exponent.
    point: i64,
    exponent: i64,
}

impl Numeral {
    /// Reads digits with at most one point, and an exponent behind this letter, which may be missing.
    fn read(text: &[u8], base: u32, letter: u8) -> Option<Numeral> {
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
        let digits = integer.iter().chain(fraction);
        let digits = digits.map(|digit| char::from(*digit).to_digit(base).map(|digit| digit as u8));
        let digits = digits.collect::<Option<Vec<u8>>>().filter(|digits| !digits.is_empty())?;
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        Some(Numeral { digits: digits[zeros..].to_vec(), point: -(fraction.len() as i64), exponent })
    }

    fn decimal(&self) -> Option<Magnitude> {
        let power = self.point + self.exponent;
        if self.digits.is_empty() {
            return Some(ZERO);
        }
        if (self.digits.len() as i64 + power).abs() > DECIMAL_MAGNITUDE_MAX {
            return None;
        }
        let mut value = Natural::of_digits(&self.digits, 10);
        if power >= 0 {
            value.multiply_by_powers_of_ten(power as u32);
            return value.rounded(0, false);
        }
        // A quotient of more than enough bits. Its division by small numbers, one after the other, leaves a remainder
        // if and only if that by their product does.
        let shift = 4 * power.unsigned_abs() as u32 + MANTISSA_BITS + 2;
        value.shift_left(shift);
        let is_inexact = value.divide_by_powers_of_ten(power.unsigned_abs() as u32);
        value.rounded(-(shift as i32), is_inexact)
    }

    fn hexadecimal(&self) -> Option<Magnitude> {
        if self.digits.is_empty() {
            return Some(ZERO);
        }
        let exponent = 4 * self.point + self.exponent;
        Natural::of_digits(&self.digits, 16).rounded(i32::try_from(exponent).ok()?, false)
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

/// A natural number of any size: digits to the base 2^32, the lowest first, without zeros at the end.
struct Natural(Vec<u32>);

impl From<u64> for Natural {
    fn from(number: u64) -> Self {
        let mut natural = Natural(vec![number as u32, (number >> 32) as u32]);
        natural.trim();
        natural
    }
}

impl Natural {
    fn of_digits(digits: &[u8], base: u32) -> Natural {
        let mut natural = Natural(Vec::new());
        // Seven digits at a time: 16^7 fits.
        for digits in digits.chunks(7) {
            let (mut factor, mut sum) = (1, 0);
            for digit in digits {
                factor *= base;
                sum = base * sum + u32::from(*digit);
            }
            natural.multiply_and_add(factor, sum);
        }
        natural
    }

    fn multiply_and_add(&mut self, factor: u32, summand: u32) {
        let mut carry = u64::from(summand);
        for digit in &mut self.0 {
            carry += u64::from(*digit) * u64::from(factor);
            *digit = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    /// Divides, and returns the remainder.
    fn divide(&mut self, divisor: u32) -> u32 {
        let mut remainder = 0;
        for digit in self.0.iter_mut().rev() {
            let part = u64::from(remainder) << 32 | u64::from(*digit);
            *digit = (part / u64::from(divisor)) as u32;
            remainder = (part % u64::from(divisor)) as u32;
        }
        self.trim();
        remainder
    }

    fn multiply_by_powers_of_ten(&mut self, power: u32) {
        powers_of_ten(power).for_each(|factor| self.multiply_and_add(factor, 0));
    }

    /// Divides, rounding down; whether anything was left.
    fn divide_by_powers_of_ten(&mut self, power: u32) -> bool {
        powers_of_ten(power).fold(false, |left, divisor| left | (self.divide(divisor) != 0))
    }

    fn shift_left(&mut self, bits: u32) {
        self.multiply_and_add(1 << (bits % 32), 0);
        self.0.splice(0..0, std::iter::repeat_n(0, bits as usize / 32));
        self.trim();
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    /// The nearest number of the format, of this one times 2^`exponent`, and a little more where that is inexact.
    fn rounded(&self, exponent: i32, is_inexact: bool) -> Option<Magnitude> {
        let below = self.0.len().saturating_sub(4);
        let high = self.0[below..].iter().rev().fold(0, |bits, digit| bits << 32 | u128::from(*digit));
        let rest = is_inexact || self.0[..below].iter().any(|digit| *digit != 0);
        round(high, rest, exponent.checked_add(32 * below as i32)?).filter(|magnitude| *magnitude != ZERO)
    }

    fn into_decimal(mut self) -> String {
        let mut parts = Vec::new();
        while !self.0.is_empty() {
            parts.push(self.divide(1_000_000_000));
        }
        let first = parts.pop().unwrap_or(0).to_string();
        parts.iter().rev().fold(first, |digits, part| format!("{digits}{part:09}"))
    }
}

/// Factors that fit 32 bits, whose product is this power of ten.
fn powers_of_ten(power: u32) -> impl Iterator<Item = u32> {
    std::iter::repeat_n(1_000_000_000, power as usize / 9).chain([10_u32.pow(power % 9)])
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
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        let [a, b] = [a, b].map(|text| LongDouble::parse(text.as_bytes()).expect(text));
        a.checked_add(b).map(LongDouble::to_text)
    }

    #[test]
    fn sums_have_the_digits_that_redis_shows() {
        // As INCRBYFLOAT of Redis 7.0.15 on x86-64 answers.
        for (a, b, expected) in [
            ("10.5", "0.1", "10.6"),
            ("10.6", "-5", "5.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "1.1", "4.1"),
            ("0x1.8p1", "0XfP-4", "3.9375"),
            ("9223372036854775807", "0.5", "9223372036854775807.5"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("1", "-1", "0"),
            ("-0", "-0", "0"),
            ("1e-17", "0", "0.00000000000000001"),
            ("-1e-19", "0", "0"),
            (".5", "5.", "5.5"),
            ("+007", "0e-99999", "7"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Some(expected), "{a} + {b}");
        }
        assert_eq!(sum("1e4932", "0").map(|digits| digits.len()), Some(4933));
        assert_eq!((sum("1.1e4932", "1.1e4932"), sum("inf", "1"), sum("1", "-Infinity")), (None, None, None));
    }

    #[test]
    fn what_is_no_number_or_does_not_fit_is_refused() {
        let refused = "|.|-|+|e5|1e|1e+|1e5.0|1.2.3|0x|0x.p1|1p3|nan|infin|1 | 1|--1|1_0|1e5000|1e-5000|1e999999999999|x";
        for text in refused.split('|') {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(LongDouble::parse(&[b'1'; TEXT_LEN_MAX + 1]), None);
        assert_eq!(LongDouble::parse(b"1\0"), None);
    }

    #[test]
    fn numbers_are_rounded_to_64_bits_and_ties_to_even() {
        let mantissa = |bits, rest| match round(bits, rest, 0) {
            Some(Magnitude::Finite { mantissa, exponent }) => (mantissa, exponent),
            other => panic!("{other:?}"),
        };
        assert_eq!(mantissa(1 << 65 | 1, false), (1 << 63, 2));
        assert_eq!(mantissa(1 << 65 | 2, false), (1 << 63, 2));
        assert_eq!(mantissa(1 << 65 | 2, true), (1 << 63 | 1, 2));
        assert_eq!(mantissa(1 << 65 | 6, false), (1 << 63 | 2, 2));
        assert_eq!(mantissa((1 << 65) - 1, false), (1 << 63, 2));
        assert_eq!(round(1, false, EXPONENT_MIN - 1), Some(ZERO), "half of the least number, a tie");
        assert_eq!(
            round(1, true, EXPONENT_MIN - 1),
            Some(Magnitude::Finite { mantissa: 1, exponent: EXPONENT_MIN })
        );
    }
}
