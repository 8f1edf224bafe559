//! The bytes of one key: its name, its value and its deadline, back to back in one slot of the arena.
//!
//! ```text
//! flags:1  key_len:1 or 4  key  value  [deadline_ms:8]  slack:0..=15
//!
//! flags    bits 0..=3  number of slack bytes at the end of the slot
//!          bit  4      the deadline is there
//!          bit  5      key_len takes four bytes, not one
//! ```
//!
//! Integers are little-endian. The length of the value is what the slot leaves: it is never stored. The
//! deadline stands behind the value, so that to give a key a deadline, or to take it away, moves no byte
//! of the value, however long it is. This module never allocates and knows neither slots nor tables.

const SLACK: u8 = 0b00_1111;
const DEADLINE: u8 = 0b01_0000;
const LONG_KEY: u8 = 0b10_0000;
const DEADLINE_LEN: usize = 8;

/// The most bytes by which a slot may exceed the length of its entry.
pub(crate) const SLACK_MAX: usize = SLACK as usize;
/// The length of the shortest entry.
pub(crate) const ENTRY_LEN_MIN: usize = 2;

/// One entry, read in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    slot: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The entry that fills this slot.
    #[inline]
    pub(crate) fn of(slot: &'a [u8]) -> Self {
        Entry { slot }
    }

    /// The key.
    #[inline]
    pub(crate) fn key(self) -> &'a [u8] {
        let start = prefix_len_by_flags(self.slot[0]);
        &self.slot[start..start + self.key_len()]
    }

    /// Whether this is the entry of `key`.
    #[inline]
    pub(crate) fn has_key(self, key: &[u8]) -> bool {
        let start = prefix_len_by_flags(self.slot[0]);
        self.key_len() == key.len() && self.slot[start..].starts_with(key)
    }

    /// The value.
    #[inline]
    pub(crate) fn value(self) -> &'a [u8] {
        &self.slot[self.body_len()..self.value_end()]
    }

    /// Milliseconds since the Unix epoch at which the key expires.
    #[inline]
    pub(crate) fn deadline_ms(self) -> Option<u64> {
        if self.slot[0] & DEADLINE == 0 {
            return None;
        }
        let (deadline, _) = self.slot[self.value_end()..].split_first_chunk().expect("the flag says so");
        Some(u64::from_le_bytes(*deadline))
    }

    /// The length of everything before the value.
    #[inline]
    pub(crate) fn body_len(self) -> usize {
        prefix_len_by_flags(self.slot[0]) + self.key_len()
    }

    #[inline]
    fn value_end(self) -> usize {
        let deadline_len = if self.slot[0] & DEADLINE == 0 { 0 } else { DEADLINE_LEN };
        self.slot.len() - usize::from(self.slot[0] & SLACK) - deadline_len
    }

    #[inline]
    fn key_len(self) -> usize {
        match self.slot[0] & LONG_KEY {
            0 => usize::from(self.slot[1]),
            _ => u32::from_le_bytes([self.slot[1], self.slot[2], self.slot[3], self.slot[4]]) as usize,
        }
    }
}

#[inline]
fn prefix_len_by_flags(flags: u8) -> usize {
    if flags & LONG_KEY == 0 { 2 } else { 5 }
}

/// The length of everything before the value, for a key of `key_len` bytes.
pub(crate) fn body_len(key_len: usize) -> usize {
    key_len + if key_len <= usize::from(u8::MAX) { 2 } else { 5 }
}

/// The length of an entry without slack.
pub(crate) fn entry_len(key_len: usize, value_len: usize, deadline_ms: Option<u64>) -> usize {
    body_len(key_len) + value_len + if deadline_ms.is_some() { DEADLINE_LEN } else { 0 }
}

/// Writes everything before the value into a fresh slot. [`frame`] has to follow.
pub(crate) fn write_key(slot: &mut [u8], key: &[u8]) {
    let start = match u8::try_from(key.len()) {
        Ok(len) => {
            slot[0] = 0;
            slot[1] = len;
            2
        }
        Err(_) => {
            let len = u32::try_from(key.len()).expect("keys are bounded far below 4 GiB");
            slot[0] = LONG_KEY;
            slot[1..5].copy_from_slice(&len.to_le_bytes());
            5
        }
    };
    slot[start..start + key.len()].copy_from_slice(key);
}

/// Makes the entry in `slot` one of `len` bytes with this deadline. The value keeps its bytes, and has to be
/// filled where it grew.
#[inline]
pub(crate) fn frame(slot: &mut [u8], len: usize, deadline_ms: Option<u64>) {
    let slack = slot.len() - len;
    debug_assert!(slack <= SLACK_MAX);
    let deadline = if deadline_ms.is_some() { DEADLINE } else { 0 };
    slot[0] = (slot[0] & LONG_KEY) | deadline | slack as u8;
    if let Some(deadline_ms) = deadline_ms {
        slot[len - DEADLINE_LEN..len].copy_from_slice(&deadline_ms.to_le_bytes());
    }
}

/// The value of the entry in `slot`, for writing.
#[inline]
pub(crate) fn value_mut(slot: &mut [u8]) -> &mut [u8] {
    let entry = Entry::of(slot);
    let (start, end) = (entry.body_len(), entry.value_end());
    &mut slot[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(slack: usize, key: &[u8], value: &[u8], deadline_ms: Option<u64>) -> Vec<u8> {
        let len = entry_len(key.len(), value.len(), deadline_ms);
        let mut slot = vec![0xee; len + slack];
        write_key(&mut slot, key);
        frame(&mut slot, len, deadline_ms);
        value_mut(&mut slot).copy_from_slice(value);
        slot
    }

    #[test]
    fn the_bytes_are_those_that_are_drawn() {
        assert_eq!(written(2, b"ab", b"xyz", Some(0x0102)), b"\x12\x02abxyz\x02\x01\0\0\0\0\0\0\xee\xee");
        assert_eq!(written(0, b"ab", b"xyz", None), b"\x00\x02abxyz");
        assert_eq!(&written(0, &[7; 256], b"", None)[..6], b"\x20\x00\x01\x00\x00\x07");
    }

    #[test]
    fn an_entry_reads_back_as_it_was_written() {
        for key_len in [0, 1, 255, 256, 70_000] {
            for value_len in [0, 1, 64, 100_000] {
                for (slack, deadline_ms) in [(0, None), (15, None), (3, Some(0)), (0, Some(u64::MAX))] {
                    let (key, value) = (vec![b'k'; key_len], vec![b'v'; value_len]);
                    let slot = written(slack, &key, &value, deadline_ms);
                    let entry = Entry::of(&slot);
                    assert_eq!(entry.key(), key);
                    assert!(entry.has_key(&key) && !entry.has_key(b"another"));
                    assert_eq!(entry.value(), value);
                    assert_eq!(entry.deadline_ms(), deadline_ms);
                }
            }
        }
    }
}
