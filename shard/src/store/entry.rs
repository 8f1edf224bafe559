//! The bytes of one key: its name, its value and its deadline, back to back in one slot of the arena.
//!
//! ```text
//! flags:1  key_len:1 or 4  [usage:14]  key  value  [deadline_ms:8]  slack:0..=15
//!
//! flags    bits 0..=3  number of slack bytes at the end of the slot
//!          bit  4      the deadline is there
//!          bit  5      key_len takes four bytes, not one
//!          bit  6      the usage is there
//!          bit  7      the value is an object outside of the arena; in its place stand the four bytes of its number
//! usage    bits 0..=27  reads    28..=55  last access    56..=83  writes    84..=111  created
//! ```
//!
//! Integers are little-endian. The length of the value is what the slot leaves: it is never stored. The
//! deadline stands behind the value, so that to give a key a deadline, or to take it away, moves no byte
//! of the value, however long it is. The usage stands near the front, in the bytes that every look-up
//! reads; its numbers stay at their greatest value once they have reached it. This module never allocates
//! and knows neither slots nor tables.

use bytes::Bytes;

const SLACK: u8 = 0b00_1111;
const DEADLINE: u8 = 0b01_0000;
const LONG_KEY: u8 = 0b10_0000;
const USAGE: u8 = 0b100_0000;
const OBJECT: u8 = 0b1000_0000;
const DEADLINE_LEN: usize = 8;
const USAGE_LEN: usize = 14;
const USAGE_BITS: u32 = 28;

/// The most bytes by which a slot may exceed the length of its entry.
pub(crate) const SLACK_MAX: usize = SLACK as usize;
/// The length of the shortest entry.
pub(crate) const ENTRY_LEN_MIN: usize = 2;

/// How a key has been used. Times are seconds since a moment that the keyspace's owner has chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) reads: u32,
    pub(crate) writes: u32,
    pub(crate) last_access_s: u32,
    pub(crate) created_s: u32,
}

impl Usage {
    /// The greatest number that is told from greater ones.
    pub(crate) const MAX: u32 = (1 << USAGE_BITS) - 1;

    /// Of a key that was made now, by a first write.
    pub(crate) fn created(now_s: u32) -> Self {
        Usage { reads: 0, writes: 1, last_access_s: now_s, created_s: now_s }
    }

    /// How long the key has rested, in seconds, if it was used before.
    #[inline]
    fn rest_s(self, now_s: u32) -> Option<u32> {
        (self.reads | self.writes != 0).then(|| now_s.saturating_sub(self.last_access_s))
    }

    #[inline]
    fn read(bytes: &[u8; USAGE_LEN]) -> Self {
        let (low, high) = halves(bytes);
        Usage::of(low, high)
    }

    #[inline]
    fn of(low: u64, high: u64) -> Self {
        let part = |bits: u64| bits as u32 & Usage::MAX;
        Usage {
            reads: part(low),
            last_access_s: part(low >> USAGE_BITS),
            writes: part(high),
            created_s: part(high >> USAGE_BITS),
        }
    }

    #[inline]
    fn write(self, bytes: &mut [u8; USAGE_LEN]) {
        let half = |low: u32, high: u32| {
            u64::from(low.min(Usage::MAX)) | u64::from(high.min(Usage::MAX)) << USAGE_BITS
        };
        let (low, high) = (half(self.reads, self.last_access_s), half(self.writes, self.created_s));
        bytes[..8].copy_from_slice(&(low | high << (2 * USAGE_BITS)).to_le_bytes());
        bytes[6..].copy_from_slice(&(low >> 48 | high << 8).to_le_bytes());
    }
}

/// The two halves of a usage, of 56 bits each, read as whole words.
#[inline]
fn halves(bytes: &[u8; USAGE_LEN]) -> (u64, u64) {
    let word = |bytes: Option<&[u8; 8]>| u64::from_le_bytes(*bytes.expect("a usage is longer than a word"));
    (word(bytes.first_chunk()) & (u64::MAX >> 8), word(bytes.last_chunk()) >> 8)
}

/// One entry, read in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    slot: &'a [u8],
    shared: Option<&'a Bytes>,
}

impl<'a> Entry<'a> {
    /// The entry that fills this slot. A value that is an object has to be given before it is read.
    #[inline]
    pub(crate) fn of(slot: &'a [u8]) -> Self {
        Entry { slot, shared: None }
    }

    /// The same entry with its value, which is an object.
    #[inline]
    pub(crate) fn with_shared(self, value: &'a Bytes) -> Self {
        Entry { shared: Some(value), ..self }
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
        match self.shared {
            Some(value) => value,
            None => {
                debug_assert!(!self.is_object(), "the value is an object");
                self.stored()
            }
        }
    }

    /// The value, if it is an object: bytes that are shared.
    #[inline]
    pub(crate) fn shared(self) -> Option<&'a Bytes> {
        self.shared
    }

    /// Whether the value is an object.
    #[inline]
    pub(crate) fn is_object(self) -> bool {
        self.slot[0] & OBJECT != 0
    }

    /// The number of the value, if it is an object.
    #[inline]
    pub(crate) fn object_number(self) -> Option<u32> {
        if !self.is_object() {
            return None;
        }
        let (number, _) = self.stored().split_first_chunk().expect("the flag says so");
        Some(u32::from_le_bytes(*number))
    }

    /// What stands in the slot: the value or its number.
    #[inline]
    pub(crate) fn stored(self) -> &'a [u8] {
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

    /// How the key has been used, where that is counted.
    #[inline]
    pub(crate) fn usage(self) -> Option<Usage> {
        if self.slot[0] & USAGE == 0 {
            return None;
        }
        let (usage, _) = self.slot[head_len(self.slot[0])..].split_first_chunk().expect("the flag says so");
        Some(Usage::read(usage))
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

    #[inline(always)] // Each look-up comes here more than once.
    fn key_len(self) -> usize {
        match self.slot[0] & LONG_KEY {
            0 => usize::from(self.slot[1]),
            _ => u32::from_le_bytes([self.slot[1], self.slot[2], self.slot[3], self.slot[4]]) as usize,
        }
    }
}

/// The length of the flags and of the key's length.
#[inline]
fn head_len(flags: u8) -> usize {
    if flags & LONG_KEY == 0 { 2 } else { 5 }
}

/// The length of everything before the key.
#[inline]
fn prefix_len_by_flags(flags: u8) -> usize {
    head_len(flags) + if flags & USAGE == 0 { 0 } else { USAGE_LEN }
}

/// The length of everything before the value, for a key of `key_len` bytes.
pub(crate) fn body_len(key_len: usize, has_usage: bool) -> usize {
    let head_len = if key_len <= usize::from(u8::MAX) { 2 } else { 5 };
    head_len + if has_usage { USAGE_LEN } else { 0 } + key_len
}

/// The length of an entry without slack, whose value is preceded by `body_len` bytes.
pub(crate) fn entry_len(body_len: usize, value_len: usize, deadline_ms: Option<u64>) -> usize {
    body_len + value_len + if deadline_ms.is_some() { DEADLINE_LEN } else { 0 }
}

/// Writes everything before the value into a fresh slot. [`frame`] has to follow.
pub(crate) fn write_key(slot: &mut [u8], key: &[u8], usage: Option<Usage>) {
    let flags = if usage.is_some() { USAGE } else { 0 };
    match u8::try_from(key.len()) {
        Ok(len) => {
            slot[0] = flags;
            slot[1] = len;
        }
        Err(_) => {
            let len = u32::try_from(key.len()).expect("keys are bounded far below 4 GiB");
            slot[0] = flags | LONG_KEY;
            slot[1..5].copy_from_slice(&len.to_le_bytes());
        }
    }
    if let Some(usage) = usage {
        usage.write(usage_mut(slot).expect("the flag was just set"));
    }
    let start = prefix_len_by_flags(slot[0]);
    slot[start..start + key.len()].copy_from_slice(key);
}

/// Counts a read of the entry in `slot`, where its usage is counted. Returns how many seconds it had rested,
/// if it was used before. Reads and writes only the word that changes: this is done with every read.
#[inline]
pub(crate) fn count_read(slot: &mut [u8], now_s: u32) -> Option<u32> {
    let bytes = usage_mut(slot)?;
    let (low, high) = halves(bytes);
    let usage = Usage::of(low, high);
    let reads = (usage.reads + 1).min(Usage::MAX);
    let counted = u64::from(reads) | u64::from(now_s.min(Usage::MAX)) << USAGE_BITS;
    bytes[..8].copy_from_slice(&(counted | high << (2 * USAGE_BITS)).to_le_bytes());
    usage.rest_s(now_s)
}

/// Counts a write, in the same way.
#[inline]
pub(crate) fn count_write(slot: &mut [u8], now_s: u32) -> Option<u32> {
    let bytes = usage_mut(slot)?;
    let usage = Usage::read(bytes);
    Usage { writes: usage.writes + 1, last_access_s: now_s, ..usage }.write(bytes);
    usage.rest_s(now_s)
}

#[inline]
fn usage_mut(slot: &mut [u8]) -> Option<&mut [u8; USAGE_LEN]> {
    if slot[0] & USAGE == 0 {
        return None;
    }
    let start = head_len(slot[0]);
    slot[start..].first_chunk_mut()
}

/// Makes the entry in `slot` one of `len` bytes with this deadline. The value keeps its bytes, and has to be
/// filled where it grew.
#[inline]
pub(crate) fn frame(slot: &mut [u8], len: usize, deadline_ms: Option<u64>) {
    let slack = slot.len() - len;
    debug_assert!(slack <= SLACK_MAX);
    let deadline = if deadline_ms.is_some() { DEADLINE } else { 0 };
    slot[0] = (slot[0] & (LONG_KEY | USAGE | OBJECT)) | deadline | slack as u8;
    if let Some(deadline_ms) = deadline_ms {
        slot[len - DEADLINE_LEN..len].copy_from_slice(&deadline_ms.to_le_bytes());
    }
}

/// Says whether the value of the entry in `slot` is an object, so that its number takes its place.
#[inline]
pub(crate) fn set_object(slot: &mut [u8], yes: bool) {
    slot[0] = if yes { slot[0] | OBJECT } else { slot[0] & !OBJECT };
}

/// What stands in the slot for the value of its entry, for writing.
#[inline]
pub(crate) fn stored_mut(slot: &mut [u8]) -> &mut [u8] {
    let entry = Entry::of(slot);
    let (start, end) = (entry.body_len(), entry.value_end());
    &mut slot[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(
        slack: usize,
        key: &[u8],
        value: &[u8],
        deadline_ms: Option<u64>,
        usage: Option<Usage>,
    ) -> Vec<u8> {
        let len = entry_len(body_len(key.len(), usage.is_some()), value.len(), deadline_ms);
        let mut slot = vec![0xee; len + slack];
        write_key(&mut slot, key, usage);
        frame(&mut slot, len, deadline_ms);
        stored_mut(&mut slot).copy_from_slice(value);
        slot
    }

    const USED: Usage =
        Usage { reads: 0x123_4567, last_access_s: 0xedc_ba98, writes: 1, created_s: Usage::MAX };

    #[test]
    fn the_bytes_are_those_that_are_drawn() {
        assert_eq!(
            written(2, b"ab", b"xyz", Some(0x0102), None),
            b"\x12\x02abxyz\x02\x01\0\0\0\0\0\0\xee\xee"
        );
        assert_eq!(written(0, b"ab", b"xyz", None, None), b"\x00\x02abxyz");
        assert_eq!(&written(0, &[7; 256], b"", None, None)[..6], b"\x20\x00\x01\x00\x00\x07");
        let usage = b"\x67\x45\x23\x81\xa9\xcb\xed\x01\0\0\xf0\xff\xff\xff";
        assert_eq!(written(0, b"ab", b"xyz", None, Some(USED)), [&b"\x40\x02"[..], usage, b"abxyz"].concat());
        let long = written(0, &[7; 256], b"", None, Some(USED));
        assert_eq!(long[..20], [&b"\x60\x00\x01\x00\x00"[..], usage, b"\x07"].concat());
    }

    #[test]
    fn a_value_that_stands_elsewhere_leaves_its_number() {
        let mut slot = written(2, b"ab", &7u32.to_le_bytes(), Some(0x0102), None);
        set_object(&mut slot, true);
        assert_eq!(slot, b"\x92\x02ab\x07\0\0\0\x02\x01\0\0\0\0\0\0\xee\xee");
        let value = Bytes::from_static(b"a long value");
        let entry = Entry::of(&slot).with_shared(&value);
        assert_eq!((entry.object_number(), entry.value()), (Some(7), &b"a long value"[..]));
        assert_eq!((entry.key(), entry.deadline_ms()), (&b"ab"[..], Some(0x0102)));
        // It stays elsewhere with another deadline.
        let len = entry_len(body_len(2, false), 4, None);
        frame(&mut slot[..len], len, None);
        assert_eq!(Entry::of(&slot[..len]).object_number(), Some(7));
        set_object(&mut slot, false);
        assert_eq!(Entry::of(&slot[..len]).value(), 7u32.to_le_bytes());
    }

    #[test]
    fn an_entry_reads_back_as_it_was_written() {
        for key_len in [0, 1, 255, 256, 70_000] {
            for value_len in [0, 1, 64, 100_000] {
                for (slack, deadline_ms) in [(0, None), (15, None), (3, Some(0)), (0, Some(u64::MAX))] {
                    for usage in [None, Some(USED)] {
                        let (key, value) = (vec![b'k'; key_len], vec![b'v'; value_len]);
                        let slot = written(slack, &key, &value, deadline_ms, usage);
                        let entry = Entry::of(&slot);
                        assert_eq!(entry.key(), key);
                        assert!(entry.has_key(&key) && !entry.has_key(b"another"));
                        assert_eq!(entry.value(), value);
                        assert_eq!(entry.deadline_ms(), deadline_ms);
                        assert_eq!(entry.usage(), usage);
                    }
                }
            }
        }
    }

    #[test]
    fn accesses_are_counted_up_to_the_greatest_number() {
        let nearly = Usage { reads: Usage::MAX - 1, ..Usage::created(5) };
        let mut slot = written(3, b"key", b"value", Some(9), Some(nearly));
        (6..9).for_each(|now_s| assert_eq!(count_read(&mut slot, now_s), Some(1)));
        assert_eq!(count_write(&mut slot, 9), Some(1));
        let usage = Usage { reads: Usage::MAX, writes: 2, last_access_s: 9, created_s: 5 };
        assert_eq!(Entry::of(&slot).usage(), Some(usage));
        assert_eq!((Entry::of(&slot).key(), Entry::of(&slot).value()), (&b"key"[..], &b"value"[..]));
        let mut slot = written(0, b"key", b"value", None, None);
        assert_eq!(count_write(&mut slot, 9), None);
        assert_eq!(Entry::of(&slot).value(), b"value");
        let mut slot = written(0, b"key", b"value", None, Some(Usage::default()));
        assert_eq!((count_read(&mut slot, 9), count_read(&mut slot, 12)), (None, Some(3)), "of the log");
    }
}
