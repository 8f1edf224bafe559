//! How integers are read and written: decimal ones in arguments and values, with one spelling for each number, as Redis
//! reads them; and those of fixed length in what is kept on disk.

/// Reads a 64-bit signed integer. No plus sign, no leading zero, no blank, no `-0`: whatever is accepted is
/// also what the number would be written as.
pub fn parse(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    // Counted downwards, since the range reaches one further below zero than above.
    let mut number: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(number) } else { number.checked_neg() }
}

/// Takes the bytes of an integer, or of several, from the front, if they are there.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

/// The digits of an integer.
#[derive(Debug)]
pub(crate) struct Digits {
    bytes: [u8; 20],
    start: usize,
}

impl Digits {
    /// Writes an integer in decimal.
    pub(crate) fn of(number: i64) -> Self {
        let mut digits = Digits { bytes: [0; 20], start: 20 };
        let mut rest = number.unsigned_abs();
        loop {
            digits.push_front(b'0' + (rest % 10) as u8);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            digits.push_front(b'-');
        }
        digits
    }

    /// The text.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn push_front(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_one_spelling() {
        for number in [0, 1, -1, 9, 10, -10, 42, i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1] {
            let text = number.to_string();
            assert_eq!(parse(text.as_bytes()), Some(number));
            assert_eq!(Digits::of(number).as_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let refused = "|-|+1|01|-01|-0|00| 1|1 |1.0|0x1|1e3|--1|1-|9223372036854775808|-9223372036854775809";
        for text in refused.split('|').chain(["99999999999999999999999", "１", "1\0"]) {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
