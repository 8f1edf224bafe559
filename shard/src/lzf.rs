//! LZF, the compression of strings in RDB files, as LibLZF packs it: what is packed here are the same bytes, as long as
//! LibLZF has found its table empty.
//!
//! ```text
//! 000LLLLL                       L + 1 bytes follow as they are
//! LLLooooo oooooooo              L + 2 bytes as they stand o + 1 bytes before the end, L from 1 to 6
//! 111ooooo LLLLLLLL oooooooo     the same, with L + 9 bytes
//! ```

/// The longest run of bytes as they are.
const RUN_LEN_MAX: usize = 32;
/// The longest repetition, and from how far back.
const REPETITION_LEN_MAX: usize = (1 << 8) + (1 << 3);
const DISTANCE_MAX: usize = 1 << 13;
/// So many bits of a hash of three bytes choose where their last place is noted.
const HASH_BITS: u32 = 16;

/// Bytes in fewer than `len_max`, if that can be done. Takes a step for each byte.
pub fn pack(bytes: &[u8], len_max: usize) -> Option<Vec<u8>> {
    let place = |at: usize| {
        let three = u32::from(bytes[at]) << 16 | u32::from(bytes[at + 1]) << 8 | u32::from(bytes[at + 2]);
        ((three >> (24 - HASH_BITS)).wrapping_sub(three.wrapping_mul(5)) & ((1 << HASH_BITS) - 1)) as usize
    };
    // The first byte is never repeated from: its place stands for none.
    let mut places = vec![0u32; 1 << HASH_BITS];
    let mut packed = Packed { bytes: vec![0], run_len: 0 };
    let mut at = 0;
    while at + 2 < bytes.len() {
        let before = std::mem::replace(&mut places[place(at)], at as u32) as usize;
        let is_repeated =
            before > 0 && at - before <= DISTANCE_MAX && bytes[before..before + 3] == bytes[at..at + 3];
        if !is_repeated {
            if packed.bytes.len() >= len_max {
                return None;
            }
            packed.push(bytes[at]);
            at += 1;
            continue;
        }
        let spare = usize::from(packed.run_len == 0);
        if packed.bytes.len() - spare + 4 >= len_max {
            return None;
        }
        let rest = bytes.len() - at;
        // LibLZF leaves the last two bytes to the run behind, unless its unrolled loop has passed them already.
        let limit = match (rest - 2).min(REPETITION_LEN_MAX) {
            17 | 18 => 19,
            limit => limit,
        };
        let mut len = 3;
        while len < limit && bytes[before + len] == bytes[at + len] {
            len += 1;
        }
        packed.repeat(len, at - before);
        at += len;
        if at + 2 >= bytes.len() {
            break;
        }
        for noted in [at - 2, at - 1] {
            places[place(noted)] = noted as u32;
        }
    }
    if packed.bytes.len() + 3 > len_max {
        return None;
    }
    bytes[at..].iter().for_each(|byte| packed.push(*byte));
    Some(packed.end())
}

/// Packed bytes, the last of which are a run that is not ended yet.
struct Packed {
    bytes: Vec<u8>,
    run_len: usize,
}

impl Packed {
    fn push(&mut self, byte: u8) {
        self.bytes.push(byte);
        self.run_len += 1;
        if self.run_len == RUN_LEN_MAX {
            self.end_run();
            self.bytes.push(0);
        }
    }

    /// Writes the length of the run in front of it; an empty one leaves nothing.
    fn end_run(&mut self) {
        let head = self.bytes.len() - self.run_len - 1;
        match self.run_len {
            0 => self.bytes.truncate(head),
            len => self.bytes[head] = (len - 1) as u8,
        }
        self.run_len = 0;
    }

    fn repeat(&mut self, len: usize, distance: usize) {
        self.end_run();
        let (len, distance) = (len - 2, distance - 1);
        let high = (distance >> 8) as u8;
        match len {
            0..7 => self.bytes.push(high | (len as u8) << 5),
            _ => self.bytes.extend_from_slice(&[high | 7 << 5, (len - 7) as u8]),
        }
        self.bytes.extend_from_slice(&[distance as u8, 0]);
    }

    fn end(mut self) -> Vec<u8> {
        self.end_run();
        self.bytes
    }
}

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

    #[test]
    fn what_is_packed_comes_back() {
        let texts = [3, 4, 17, 18, 19, 20, 21, 31, 32, 33, 263, 264, 265, 267, 300, 9000];
        for len in texts {
            for period in [1, 2, 5, 8191, 8192, 8193] {
                let bytes: Vec<u8> = (0..len).map(|at| ((at % period) * 31 % 251) as u8).collect();
                if let Some(packed) = pack(&bytes, len - 1) {
                    assert!(packed.len() < len);
                    assert_eq!(unpack(&packed, len as u64).unwrap(), bytes, "{len} bytes of period {period}");
                }
            }
        }
        assert_eq!(pack(&[7; 300], 296).map(|packed| packed.len()), Some(12));
        assert_eq!(pack(b"all are different", 16), None);
        assert_eq!((pack(b"ab", 1), pack(b"ab", 5)), (None, Some(b"\x01ab".to_vec())));
    }
}
