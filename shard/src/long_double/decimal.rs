//! Digits of numbers that are given to the base 2, and the reverse. Clients choose the numbers, so nothing divides a
//! long one, and what is asked of a number decides how many of its digits are computed.
//!
//! ```text
//! digits -> Approximation, 128 bits    enough for nearly every text to know which number is the nearest
//! number -> Decimal                    to show it, and to compare a text with the middle between two numbers
//! ```

/// One limb of a long number has eighteen decimal digits, so that hundreds of products of limbs have a sum of 128 bits.
const BASE: u64 = 1_000_000_000_000_000_000;
const LIMB_DIGITS: usize = 18;
/// A column of the square of a longer number could overflow. 5^8223, the longest that is squared, has 320 limbs.
const SQUARED_LIMBS_MAX: usize = 340;
/// How many limbs of leading digits are kept beside those that are asked for. The first one may have only one digit,
/// and errors reach no further than into the third.
const SPARE_LIMBS: usize = 4;
/// More than the errors of all steps together, in units of the second limb.
const ERROR_MAX: u64 = 1_000_000_000;

/// A decimal number above 0: its digits, the highest first, neither the first nor the last of them 0, and the power of
/// ten by which a point before the first one is moved.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Decimal {
    // The order of the fields makes the order of numbers.
    pub(super) point: i64,
    pub(super) digits: Vec<u8>,
}

impl Decimal {
    /// The digits of `mantissa` times 2^`exponent`, all of them; the mantissa has up to 65 bits and is not 0.
    pub(super) fn of(mantissa: u128, exponent: i32) -> Decimal {
        Limbs::of(mantissa, exponent, usize::MAX).into_decimal(0, exponent)
    }

    /// As [`Decimal::of`], but it may lack digits behind the first `len` ones.
    pub(super) fn leading(mantissa: u128, exponent: i32, len: usize) -> Decimal {
        let limbs = Limbs::of(mantissa, exponent, len / LIMB_DIGITS + SPARE_LIMBS);
        if !limbs.is_cut {
            return limbs.into_decimal(0, exponent);
        }
        if limbs.limbs[1] >= BASE - ERROR_MAX {
            // What was cut away could carry into the digits that are asked for.
            return Decimal::of(mantissa, exponent);
        }
        limbs.into_decimal(2, exponent)
    }
}

/// A natural number, or the first of its digits: limbs, the lowest first.
struct Limbs {
    limbs: Vec<u64>,
    /// How many more limbs there are below, which were cut away.
    below: usize,
    is_cut: bool,
    kept: usize,
}

impl Limbs {
    /// `mantissa` times 2^`exponent`, or times 5^`-exponent`, which has the same digits as a division by 2^`-exponent`.
    fn of(mantissa: u128, exponent: i32, kept: usize) -> Limbs {
        let (base, power) =
            if exponent < 0 { (5, exponent.unsigned_abs()) } else { (2, exponent.unsigned_abs()) };
        let mut limbs = Limbs { limbs: vec![1], below: 0, is_cut: false, kept };
        for bit in (0..u32::BITS - power.leading_zeros()).rev() {
            limbs.square();
            if power >> bit & 1 == 1 {
                limbs.multiply(base);
            }
        }
        limbs.multiply(mantissa);
        limbs
    }

    fn square(&mut self) {
        let limbs = &self.limbs;
        debug_assert!(limbs.len() <= SQUARED_LIMBS_MAX);
        let columns = 2 * limbs.len() - 1;
        // The column below the kept ones is computed for what it carries.
        let first = columns.saturating_sub(self.kept.saturating_add(1));
        let mut square = Vec::with_capacity(columns - first + 2);
        let mut carry = 0_u128;
        for column in first..columns {
            let pairs = column.div_ceil(2);
            let lowest = (column + 1).saturating_sub(limbs.len());
            let (low, high) = (&limbs[lowest..pairs], &limbs[column + 1 - pairs..=column - lowest]);
            let product = |(low, high): (&u64, &u64)| u128::from(*low) * u128::from(*high);
            let mut sum = 2 * low.iter().zip(high.iter().rev()).map(product).sum::<u128>();
            if column % 2 == 0 {
                sum += product((&limbs[column / 2], &limbs[column / 2]));
            }
            count_products(low.len() + 1);
            sum += carry;
            let (above, limb) = split(sum);
            square.push(limb);
            carry = above;
        }
        self.limbs = square;
        self.below = 2 * self.below + first;
        self.is_cut |= first > 0;
        self.push_and_cut(carry);
    }

    /// Multiplies by a number of up to 65 bits.
    fn multiply(&mut self, factor: u128) {
        let mut carry = 0_u128;
        for limb in &mut self.limbs {
            let product = u128::from(*limb) * factor + carry;
            (carry, *limb) = split(product);
        }
        count_products(self.limbs.len());
        self.push_and_cut(carry);
    }

    fn push_and_cut(&mut self, mut carry: u128) {
        while carry > 0 {
            let (above, limb) = split(carry);
            self.limbs.push(limb);
            carry = above;
        }
        let surplus = self.limbs.len().saturating_sub(self.kept);
        self.limbs.drain(..surplus);
        self.below += surplus;
        self.is_cut |= surplus > 0;
    }

    /// The digits without those of so many limbs at the end.
    fn into_decimal(self, left_out: usize, exponent: i32) -> Decimal {
        let mut digits = Vec::with_capacity(LIMB_DIGITS * self.limbs.len());
        for limb in self.limbs[left_out..].iter().rev() {
            let at = digits.len();
            digits.resize(at + LIMB_DIGITS, 0);
            // Divisions of 32 bits, in two chains that do not wait for one another.
            let (mut high, mut low) = ((limb / 1_000_000_000) as u32, (limb % 1_000_000_000) as u32);
            let (highs, lows) = digits[at..].split_at_mut(LIMB_DIGITS / 2);
            for (high_digit, low_digit) in highs.iter_mut().zip(lows).rev() {
                (*high_digit, *low_digit) = ((high % 10) as u8, (low % 10) as u8);
                (high, low) = (high / 10, low / 10);
            }
        }
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        let point = digits.len() + LIMB_DIGITS * (self.below + left_out);
        while digits.last() == Some(&0) {
            digits.pop();
        }
        Decimal { point: point as i64 + i64::from(exponent.min(0)), digits }
    }
}

/// What a column carries, and the limb that stays of it: quotient and remainder by [`BASE`], without a long division.
fn split(column: u128) -> (u128, u64) {
    // 2^64 divided by the base, before and behind the point.
    const INTEGER: u128 = (1 << 64) / BASE as u128;
    const FRACTION: u128 = (((1 << 64) % BASE as u128) << 64) / BASE as u128;
    let (high, low) = (column >> 64, column as u64);
    if high == 0 {
        return (u128::from(low / BASE), low % BASE);
    }
    let quotient = high * INTEGER + ((high * FRACTION) >> 64) + u128::from(low / BASE);
    // It lacks less than three.
    let remainder = low.wrapping_sub((quotient as u64).wrapping_mul(BASE));
    (quotient + u128::from(remainder / BASE), remainder % BASE)
}

/// A number above 0 of 128 bits, the highest of them set, times a power of two: at most what it stands for, and
/// hardly less.
#[derive(Clone, Copy)]
pub(super) struct Approximation {
    bits: u128,
    exponent: i32,
}

/// How much less it is at most, in units of the lowest bit: one for every rounding, which each squaring doubles. Powers
/// of ten here are below 2^14.
const APPROXIMATION_ERROR: u128 = 1 << 19;
/// So many digits are a number of 128 bits.
const HEAD_DIGITS: usize = 38;

impl Approximation {
    /// These digits, of which the first is not 0, as a natural number times ten to this power.
    pub(super) fn of(digits: &[u8], power: i64) -> Approximation {
        let head = &digits[..digits.len().min(HEAD_DIGITS)];
        let number = head.iter().fold(0_u128, |number, digit| 10 * number + u128::from(*digit));
        let power = power + (digits.len() - head.len()) as i64;
        let base = match power {
            0.. => Approximation { bits: 10 << 124, exponent: -124 },
            // 0.8 times 2^-3.
            _ => Approximation { bits: u128::MAX / 5 * 4, exponent: -131 },
        };
        let mut product = Approximation {
            bits: number << number.leading_zeros(),
            exponent: -(number.leading_zeros() as i32),
        };
        let mut square = base;
        let mut power = power.unsigned_abs();
        while power > 0 {
            if power & 1 == 1 {
                product = product.times(square);
            }
            square = square.times(square);
            power >>= 1;
        }
        product
    }

    /// The product, rounded down.
    fn times(self, other: Approximation) -> Approximation {
        let halves = |bits: u128| (bits >> 64, bits & u128::from(u64::MAX));
        let ((a, b), (c, d)) = (halves(self.bits), halves(other.bits));
        let (ad, bc) = (a * d, b * c);
        let middle = ((b * d) >> 64) + (ad & u128::from(u64::MAX)) + (bc & u128::from(u64::MAX));
        let bits = a * c + (ad >> 64) + (bc >> 64) + (middle >> 64);
        let shift = bits.leading_zeros();
        Approximation { bits: bits << shift, exponent: self.exponent + other.exponent + 128 - shift as i32 }
    }

    /// Two numbers between which, or on which, lies what this stands for: bits of each, and their power of two.
    pub(super) fn bounds(self) -> (u128, u128, i32) {
        let low = self.bits >> 1;
        (low, low + 1 + APPROXIMATION_ERROR / 2, self.exponent + 1)
    }
}

#[cfg(not(test))]
fn count_products(_: usize) {}

#[cfg(test)]
use tests::count_products;

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Products of two limbs since the thread began.
        static PRODUCTS: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count_products(count: usize) {
        PRODUCTS.set(PRODUCTS.get() + count);
    }

    /// How many products of two limbs this takes.
    pub(in super::super) fn products(action: impl FnOnce()) -> usize {
        let before = PRODUCTS.get();
        action();
        PRODUCTS.get() - before
    }

    #[test]
    fn digits_of_powers_of_two_are_all_there() {
        let shown = |mantissa, exponent| {
            let Decimal { point, digits } = Decimal::of(mantissa, exponent);
            (digits.iter().map(|digit| char::from(b'0' + digit)).collect::<String>(), point)
        };
        assert_eq!(shown(1, 0), ("1".to_owned(), 1));
        assert_eq!(shown(5, 1), ("1".to_owned(), 2));
        assert_eq!(shown(1, -4), ("625".to_owned(), -1));
        assert_eq!(shown(1, 64), (format!("{}", 1_u128 << 64), 20));
        assert_eq!(shown(u128::MAX >> 63, 60), (format!("{}", u128::MAX >> 63 << 60), 38));
        let (digits, point) = shown(1, -16_446);
        assert_eq!((digits.len(), point), (11_496, -4950));
        assert!(digits.starts_with("182259976594123730") && digits.ends_with("5"), "{digits:.30}");
    }

    #[test]
    fn leading_digits_are_those_of_all_digits() {
        for exponent in [-16_446, -16_445, -9_000, -8_191, -1_000, -65, -1, 0, 1, 70, 4_095, 16_320] {
            for mantissa in [1, 3, u128::MAX >> 63, 0x1_2345_6789_abcd_ef01] {
                let all = Decimal::of(mantissa, exponent);
                for len in [1, 18, 100, 1_000, 5_119] {
                    let leading = Decimal::leading(mantissa, exponent, len);
                    assert_eq!(leading.point, all.point);
                    assert!(all.digits.starts_with(&leading.digits));
                    assert!(
                        leading.digits.len() >= len
                            || all.digits[leading.digits.len()..]
                                .iter()
                                .take(len - leading.digits.len())
                                .all(|digit| *digit == 0)
                    );
                }
            }
        }
    }
}
