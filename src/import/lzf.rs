//! LZF, the compression of strings in RDB files, as LibLZF packs it. Only the way back.
//!
//! ```text
//! 000LLLLL                       L + 1 bytes follow as they are
//! LLLooooo oooooooo              L + 2 bytes as they stand o + 1 bytes before the end, L from 1 to 6
//! 111ooooo LLLLLLLL oooooooo     the same, with L + 9 bytes
//! ```

/// The bytes that were packed, if it is `len` of them. Takes no more memory than they do, and one step.
pub fn unpack(mut packed: &[u8], len: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(control) = packed.split_off_first() {
        let count = usize::from(control >> 5);
        if count == 0 {
            bytes.extend_from_slice(packed.split_off(..usize::from(*control) + 1)?);
        } else {
            let more = if count == 7 { usize::from(*packed.split_off_first()?) } else { 0 };
            let low = usize::from(*packed.split_off_first()?);
            let distance = (usize::from(control & 31) << 8 | low) + 1;
            let start = bytes.len().checked_sub(distance)?;
            // What is copied may only come about while it is.
            (start..start + count + more + 2).for_each(|index| bytes.push(bytes[index]));
        }
        if bytes.len() as u64 > len {
            return None;
        }
    }
    (bytes.len() as u64 == len).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_repetitions() {
        assert_eq!(unpack(b"\x02abc", 3).unwrap(), b"abc");
        assert_eq!(unpack(b"\x01ab\x40\x01", 6).unwrap(), b"ababab");
        assert_eq!(unpack(b"\x00a\xe0\x5b\x00", 101).unwrap(), [b'a'; 101]);
        assert_eq!(unpack(b"", 0).unwrap(), b"");
    }

    #[test]
    fn what_is_not_packed_bytes_is_refused() {
        for (packed, len) in [
            (b"\x02ab".as_slice(), 3), // A run that is cut.
            (b"\x00a\x20", 4),         // A repetition that is cut.
            (b"\x00a\xe0\x01", 11),
            (b"\x00a\x20\x01", 4), // One that begins before the first byte.
            (b"\x02abc", 2),       // Too much.
            (b"\x02abc", 4),       // Too little, and
            (b"\x02abc", u64::MAX),
        ] {
            assert_eq!(unpack(packed, len), None, "{packed:?}");
        }
    }
}
