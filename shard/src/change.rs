//! Changes: the only way in which the state of a shard changes, live and in recovery.
//!
//! They carry absolute values and absolute deadlines, so that applying one twice, or onto a newer state,
//! does no harm. A log frame's payload is a run of them, back to back:
//!
//! ```text
//! put             01  key_len:u32  key  deadline_ms:u64  value_len:u32  value
//! splice          02  key_len:u32  key  offset:u32       bytes_len:u32  bytes
//! deadline        03  key_len:u32  key  deadline_ms:u64
//! remove          04  key_len:u32  key
//! clear           05
//! clocks          06  now_ms:u64  wall_ms:u64  boot:u64  booted_ms:u64
//! keyspace        07  number:u16
//! clear keyspace  08
//! databases       09  count:u16  number:u16 for each of them
//! ```
//!
//! What is said of keys is said of those of one keyspace: of the one that `keyspace` named last in the frame, and before
//! that of number 0. `clear` is about all of them. `databases` tells which keyspaces the first `count` databases are; the
//! others are those of their own number, as all are that were never swapped. Numbers lie below 1024, and each stands
//! once. So a swap, too, is absolute: it moves no key, and all that is said of keys goes on to be true.
//!
//! Integers are little-endian. A `deadline_ms` of 0 means: no deadline; others are drawn in [`clock`](crate::clock).
//! Deadlines by the wall clock come only with a put: recovery, which may apply `clocks` onto a newer state, has then
//! removed no key that a later change builds on.
//!
//! `clocks` is how a start knows what time it is for the deadlines before it, and that keys which had expired stay
//! away when the wall clock is set back: it is written before any deadline, whenever the clocks have moved against
//! each other, and after keys have expired.

use bytes::Bytes;

use crate::clock::Clocks;
use crate::databases::DATABASES_MAX;
use crate::integer::take;

/// The longest value, in bytes.
pub const VALUE_LEN_MAX: usize = 512 << 20;

/// One effect on the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The key now has this value and deadline.
    Put {
        /// The key.
        key: &'a [u8],
        /// The whole value.
        value: &'a [u8],
        /// When the key expires; see [`clock`](crate::clock).
        deadline_ms: Option<u64>,
    },
    /// These bytes now stand at this offset of the key's value, which grows (zero-filled) where needed.
    Splice {
        /// The key.
        key: &'a [u8],
        /// Offset into the value, in bytes.
        offset: u32,
        /// The new bytes.
        bytes: &'a [u8],
    },
    /// The key now has this deadline.
    Deadline {
        /// The key.
        key: &'a [u8],
        /// When the key expires; see [`clock`](crate::clock).
        deadline_ms: Option<u64>,
    },
    /// The key does not exist.
    Remove {
        /// The key.
        key: &'a [u8],
    },
    /// No key exists, in no keyspace.
    Clear,
    /// The changes of keys that follow in the frame are about the keyspace of this number.
    Keyspace(u16),
    /// No key of the keyspace exists.
    ClearKeyspace,
    /// The first databases are these keyspaces; the others are those of their own number.
    Databases(KeyspaceNumbers<'a>),
    /// The clocks show this, and no key exists whose deadline has come by them.
    Clocks(Clocks),
}

impl Change<'_> {
    /// The key that is changed; `None` for those that change all keys that a client may see, and for [`Change::Clocks`]
    /// and [`Change::Keyspace`], which change nothing that a client could still see.
    pub fn key(&self) -> Option<&[u8]> {
        match *self {
            Change::Put { key, .. }
            | Change::Splice { key, .. }
            | Change::Deadline { key, .. }
            | Change::Remove { key } => Some(key),
            Change::Clear
            | Change::Clocks(_)
            | Change::Keyspace(_)
            | Change::ClearKeyspace
            | Change::Databases(_) => None,
        }
    }

    /// Whether a client may see that it was made.
    pub fn is_visible(&self) -> bool {
        !matches!(self, Change::Clocks(_) | Change::Keyspace(_))
    }
}

/// The numbers of keyspaces, as they are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyspaceNumbers<'a>(&'a [u8]);

impl KeyspaceNumbers<'_> {
    /// The numbers in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.chunks_exact(2).map(|number| u16::from_le_bytes([number[0], number[1]]))
    }

    /// Whether they are as many, each once.
    fn are_permuted(self) -> bool {
        let count = self.0.len() / 2;
        let mut seen = vec![false; count];
        self.iter().all(|number| {
            seen.get_mut(usize::from(number)).is_some_and(|seen| !std::mem::replace(seen, true))
        })
    }
}

/// A place among changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    at: usize,
    /// The keyspace that a reader of the bytes before it has been told of.
    keyspace: u16,
}

/// What a change has changed, for those that may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched<'a> {
    /// A key of the keyspace of this number.
    Key(u16, &'a [u8]),
    /// All keys of a keyspace, or of all; they are gone.
    All,
    /// Which keyspaces the databases are.
    Databases,
}

/// Changes in the order in which they happened, encoded as in a log frame.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    bytes: Vec<u8>,
    /// Values that were not copied, and where in `bytes` they belong.
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
    count: usize,
    /// The keyspace that the changes of keys to come are about, and the one that a reader of the bytes has been told of.
    keyspace: u16,
    told_keyspace: u16,
}

const PUT: u8 = 1;
const SPLICE: u8 = 2;
const DEADLINE: u8 = 3;
const REMOVE: u8 = 4;
const CLEAR: u8 = 5;
const CLOCKS: u8 = 6;
const KEYSPACE: u8 = 7;
const CLEAR_KEYSPACE: u8 = 8;
const DATABASES: u8 = 9;

/// What [`Change::Keyspace`] takes.
const KEYSPACE_BYTES: usize = 1 + 2;

impl Changes {
    /// The changes of keys that are added from now on are about the keyspace of this number. The bytes tell it when the
    /// first of them comes.
    #[inline]
    pub fn set_keyspace(&mut self, number: u16) {
        self.keyspace = number;
    }

    /// Adds one change.
    pub fn push(&mut self, change: &Change<'_>) {
        self.count += 1;
        match *change {
            Change::Put { key, value, deadline_ms } => {
                self.bytes.reserve(17 + key.len() + value.len());
                self.tag_and_key(PUT, key);
                self.bytes.extend_from_slice(&deadline_ms.unwrap_or(0).to_le_bytes());
                self.counted(value);
            }
            Change::Splice { key, offset, bytes } => {
                self.tag_and_key(SPLICE, key);
                self.bytes.extend_from_slice(&offset.to_le_bytes());
                self.counted(bytes);
            }
            Change::Deadline { key, deadline_ms } => {
                self.tag_and_key(DEADLINE, key);
                self.bytes.extend_from_slice(&deadline_ms.unwrap_or(0).to_le_bytes());
            }
            Change::Remove { key } => self.tag_and_key(REMOVE, key),
            Change::Clear => self.bytes.push(CLEAR),
            Change::Keyspace(number) => {
                self.count -= 1; // It says what others are about.
                self.keyspace = number;
                self.tell_keyspace();
            }
            Change::ClearKeyspace => {
                self.expect_keyspace();
                self.bytes.push(CLEAR_KEYSPACE);
            }
            Change::Databases(KeyspaceNumbers(numbers)) => {
                self.bytes.push(DATABASES);
                self.bytes.extend_from_slice(&((numbers.len() / 2) as u16).to_le_bytes());
                self.bytes.extend_from_slice(numbers);
            }
            Change::Clocks(Clocks { now_ms, wall_ms, boot, booted_ms }) => {
                self.bytes.push(CLOCKS);
                for number in [now_ms, wall_ms, boot, booted_ms] {
                    self.bytes.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
    }

    /// Adds a [`Change::Put`] whose value is not copied.
    pub fn push_shared(&mut self, key: &[u8], value: Bytes, deadline_ms: Option<u64>) {
        self.count += 1;
        self.tag_and_key(PUT, key);
        self.bytes.extend_from_slice(&deadline_ms.unwrap_or(0).to_le_bytes());
        self.len_of(&value);
        if !value.is_empty() {
            self.shared_bytes += value.len();
            self.shared.push((self.bytes.len(), value));
        }
    }

    /// Adds a [`Change::Databases`].
    pub(crate) fn push_databases(&mut self, keyspaces: &[u16]) {
        let numbers: Vec<u8> = keyspaces.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.push(&Change::Databases(KeyspaceNumbers(&numbers)));
    }

    /// How many bytes stand before the value of a [`Change::Put`] in this keyspace that is the first change of a frame.
    pub fn put_head_bytes(key: &[u8], keyspace: u16) -> usize {
        let told = if keyspace == 0 { 0 } else { KEYSPACE_BYTES };
        told + 1 + 4 + key.len() + 8 + 4
    }

    /// Takes out the changes behind a mark, which was made since the last time that all were forgotten.
    #[must_use]
    pub fn split_off(&mut self, mark: Mark) -> Changes {
        let mut behind = Changes { keyspace: mark.keyspace, ..Changes::default() };
        behind.expect_keyspace();
        let told_bytes = behind.bytes.len();
        behind.bytes.extend_from_slice(&self.bytes[mark.at..]);
        behind.count = self.touched_from(mark).count();
        let first_shared = self.shared.partition_point(|(at, _)| *at <= mark.at);
        let shared = self.shared.split_off(first_shared);
        behind.shared = shared.into_iter().map(|(at, value)| (at - mark.at + told_bytes, value)).collect();
        behind.shared_bytes = behind.shared.iter().map(|(_, value)| value.len()).sum();
        (behind.keyspace, behind.told_keyspace) = (self.keyspace, self.told_keyspace);
        self.bytes.truncate(mark.at);
        self.shared_bytes -= behind.shared_bytes;
        self.count -= behind.count;
        self.told_keyspace = mark.keyspace;
        behind
    }

    /// The payload of a log frame, but for the [`shared`](Self::shared) values.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The values that were not copied, none of them empty, with the offsets in [`bytes`](Self::bytes) at which they
    /// belong, in order.
    pub fn shared(&self) -> &[(usize, Bytes)] {
        &self.shared
    }

    /// The length of the whole payload, in bytes.
    #[inline]
    pub fn payload_len(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    /// The place behind the changes so far.
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark { at: self.bytes.len(), keyspace: self.told_keyspace }
    }

    /// What the changes behind a mark have changed, in order.
    pub fn touched_from(&self, mark: Mark) -> impl Iterator<Item = Touched<'_>> {
        let (mut rest, mut keyspace) = (&self.bytes[mark.at..], mark.keyspace);
        std::iter::from_fn(move || {
            loop {
                let tag = *rest.split_off_first()?;
                match tag {
                    CLEAR | CLEAR_KEYSPACE => return Some(Touched::All),
                    KEYSPACE => keyspace = take_u16(&mut rest)?,
                    CLOCKS => drop(rest.split_off(..32)?),
                    DATABASES => {
                        let count = usize::from(take_u16(&mut rest)?);
                        rest.split_off(..2 * count)?;
                        return Some(Touched::Databases);
                    }
                    _ => {
                        let key = take_counted(&mut rest)?;
                        self.skip_behind_key(tag, &mut rest)?;
                        return Some(Touched::Key(keyspace, key));
                    }
                }
            }
        })
    }

    /// Skips what stands behind the key of a change.
    fn skip_behind_key(&self, tag: u8, rest: &mut &[u8]) -> Option<()> {
        let fixed_bytes = match tag {
            PUT | DEADLINE => 8,
            SPLICE => 4,
            _ => 0,
        };
        rest.split_off(..fixed_bytes)?;
        if matches!(tag, PUT | SPLICE) {
            let value_bytes = take_u32(rest)? as usize;
            let value_at = self.bytes.len() - rest.len();
            if self.shared.binary_search_by_key(&value_at, |(at, _)| *at).is_err() {
                rest.split_off(..value_bytes)?;
            }
        }
        Some(())
    }

    /// The number of changes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets all changes; the memory is kept for the next ones unless it is larger than `keep_bytes`.
    pub fn clear(&mut self, keep_bytes: usize) {
        self.count = 0;
        self.told_keyspace = 0;
        self.bytes.clear();
        self.bytes.shrink_to(keep_bytes);
        if self.shared_bytes > 0 {
            self.shared.clear();
            self.shared_bytes = 0;
        }
    }

    #[inline]
    fn expect_keyspace(&mut self) {
        if self.keyspace != self.told_keyspace {
            self.tell_keyspace();
        }
    }

    #[cold]
    fn tell_keyspace(&mut self) {
        self.told_keyspace = self.keyspace;
        self.bytes.push(KEYSPACE);
        self.bytes.extend_from_slice(&self.keyspace.to_le_bytes());
    }

    fn tag_and_key(&mut self, tag: u8, key: &[u8]) {
        self.expect_keyspace();
        self.bytes.push(tag);
        self.counted(key);
    }

    fn counted(&mut self, bytes: &[u8]) {
        self.len_of(bytes);
        self.bytes.extend_from_slice(bytes);
    }

    fn len_of(&mut self, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).expect("keys and values are bounded far below 4 GiB");
        self.bytes.extend_from_slice(&len.to_le_bytes());
    }
}

/// A payload that is not a run of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedChange {
    /// Offset of the malformed change in its payload, in bytes.
    pub offset: usize,
}

impl std::fmt::Display for MalformedChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "malformed change at byte {} of the payload", self.offset)
    }
}

impl std::error::Error for MalformedChange {}

/// Reads the changes of a log frame's payload in order; ends after the first malformed one.
pub fn decode(payload: &[u8]) -> impl Iterator<Item = Result<Change<'_>, MalformedChange>> {
    let mut rest = payload;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let offset = payload.len() - rest.len();
        let change = decode_one(&mut rest);
        if change.is_none() {
            rest = &[];
        }
        Some(change.ok_or(MalformedChange { offset }))
    })
}

fn decode_one<'a>(rest: &mut &'a [u8]) -> Option<Change<'a>> {
    let tag = rest.split_off_first()?;
    match *tag {
        CLEAR => return Some(Change::Clear),
        CLEAR_KEYSPACE => return Some(Change::ClearKeyspace),
        KEYSPACE => return take_u16(rest).filter(|number| *number < DATABASES_MAX).map(Change::Keyspace),
        DATABASES => {
            let count = take_u16(rest).filter(|count| *count <= DATABASES_MAX)?;
            let numbers = KeyspaceNumbers(rest.split_off(..2 * usize::from(count))?);
            return numbers.are_permuted().then_some(Change::Databases(numbers));
        }
        CLOCKS => {
            let (now_ms, wall_ms) = (take_u64(rest)?, take_u64(rest)?);
            let (boot, booted_ms) = (take_u64(rest)?, take_u64(rest)?);
            return Some(Change::Clocks(Clocks { now_ms, wall_ms, boot, booted_ms }));
        }
        _ => {}
    }
    let key = take_counted(rest)?;
    Some(match *tag {
        PUT => Change::Put { key, deadline_ms: take_deadline(rest)?, value: take_counted(rest)? },
        SPLICE => {
            let (offset, bytes) = (take_u32(rest)?, take_counted(rest)?);
            // No value has such an end; applied, it would fill up to it with zeros.
            (offset as usize + bytes.len() <= VALUE_LEN_MAX).then_some(Change::Splice {
                key,
                offset,
                bytes,
            })?
        }
        DEADLINE => Change::Deadline { key, deadline_ms: take_deadline(rest)? },
        REMOVE => Change::Remove { key },
        _ => return None,
    })
}

fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    take(rest).map(u16::from_le_bytes)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest).map(u32::from_le_bytes)
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

fn take_deadline(rest: &mut &[u8]) -> Option<Option<u64>> {
    Some(Some(take_u64(rest)?).filter(|ms| *ms != 0))
}

fn take_counted<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take_u32(rest)? as usize;
    rest.split_off(..len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const ALL: [Change<'static>; 11] = [
        Change::Put { key: b"k", value: b"v", deadline_ms: None },
        Change::Put { key: b"", value: b"", deadline_ms: Some(1_700_000_000_000) },
        Change::Splice { key: b"k", offset: 3, bytes: b"\0\xff" },
        Change::Deadline { key: b"k", deadline_ms: Some(9) },
        Change::Remove { key: b"k" },
        Change::Clear,
        Change::Clocks(Clocks { now_ms: 1, wall_ms: 2, boot: u64::MAX, booted_ms: 4 }),
        Change::Keyspace(1023),
        Change::ClearKeyspace,
        Change::Databases(KeyspaceNumbers(b"\x01\0\0\0")),
        Change::Remove { key: b"k" },
    ];

    fn encoded() -> Changes {
        let mut changes = Changes::default();
        ALL.iter().for_each(|change| changes.push(change));
        changes
    }

    #[test]
    fn decoding_gives_back_what_was_pushed() {
        let changes = encoded();
        let decoded: Result<Vec<_>, _> = decode(changes.bytes()).collect();
        assert_eq!(decoded.unwrap(), ALL);
    }

    #[test]
    fn the_format_is_the_one_that_is_drawn() {
        let mut changes = Changes::default();
        changes.push(&Change::Put { key: b"ab", value: b"c", deadline_ms: Some(0x0102) });
        changes.push(&Change::Splice { key: b"k", offset: 7, bytes: b"z" });
        let golden = b"\x01\x02\0\0\0ab\x02\x01\0\0\0\0\0\0\x01\0\0\0c\x02\x01\0\0\0k\x07\0\0\0\x01\0\0\0z";
        assert_eq!(changes.bytes(), golden);
        changes.clear(0);
        changes.push(&Change::Clocks(Clocks { now_ms: 0x0102, wall_ms: 3, boot: 0x80 << 56, booted_ms: 4 }));
        let deadline_ms = Some(clock::deadline_by_wall_clock(5));
        changes.push(&Change::Put { key: b"", value: b"", deadline_ms });
        let golden = b"\x06\x02\x01\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x80\x04\0\0\0\0\0\0\0\
            \x01\0\0\0\0\x05\0\0\0\0\0\0\x80\0\0\0\0";
        assert_eq!(changes.bytes(), golden);
    }

    #[test]
    fn a_keyspace_is_named_where_changes_of_keys_are_about_another_one_than_before() {
        let mut changes = Changes::default();
        for number in [0, 0x0102, 0x0102, 0] {
            changes.set_keyspace(number);
            changes.push(&Change::Remove { key: b"k" });
        }
        changes.set_keyspace(3);
        changes.push(&Change::Clear);
        changes.push(&Change::ClearKeyspace);
        changes.push_databases(&[1, 0]);
        let remove = b"\x04\x01\0\0\0k";
        let golden = [
            &remove[..],
            b"\x07\x02\x01",
            remove,
            remove,
            b"\x07\0\0",
            remove,
            b"\x05\x07\x03\0\x08\x09\x02\0\x01\0\0\0",
        ];
        assert_eq!((changes.bytes(), changes.count()), (&golden.concat()[..], 7));
        // The next frame begins in keyspace 0 again.
        changes.clear(0);
        changes.push(&Change::Remove { key: b"k" });
        assert_eq!(changes.bytes(), [&b"\x07\x03\0"[..], remove].concat());
        for malformed in [&b"\x07\0\x04"[..], b"\x09\x02\0\x01\0\x01\0", b"\x09\x01\0\x01\0", b"\x09\x01\x04"]
        {
            assert!(decode(malformed).all(|change| change.is_err()), "{malformed:?}");
        }
    }

    #[test]
    fn a_value_that_is_not_copied_belongs_where_a_copy_would_stand() {
        let (mut copied, mut shared) = (encoded(), encoded());
        for value in [&b"long"[..], b"", b"longer"] {
            copied.push(&Change::Put { key: b"k", value, deadline_ms: Some(5) });
            shared.push_shared(b"k", Bytes::from_static(value), Some(5));
        }
        assert_eq!((shared.shared().len(), shared.count()), (2, copied.count()));
        assert_eq!(shared.payload_len(), copied.bytes().len());
        assert_eq!(shared.shared()[0].0, encoded().bytes().len() + Changes::put_head_bytes(b"k", 0));
        let mut payload = shared.bytes().to_vec();
        for (at, value) in shared.shared().iter().rev() {
            payload.splice(at..at, value.iter().copied());
        }
        assert_eq!(payload, copied.bytes());
        let decoded: Result<Vec<_>, _> = decode(copied.bytes()).collect();
        let decoded = decoded.unwrap();
        let (mut keyspace, mut touched) = (0, Vec::new());
        for change in &decoded {
            match (change, change.key()) {
                (Change::Keyspace(number), _) => keyspace = *number,
                (Change::Clocks(_), _) => {}
                (Change::Databases(_), _) => touched.push(Touched::Databases),
                (_, Some(key)) => touched.push(Touched::Key(keyspace, key)),
                (_, None) => touched.push(Touched::All),
            }
        }
        for changes in [&copied, &shared] {
            assert!(changes.touched_from(Mark::default()).eq(touched.iter().copied()));
        }
        assert_eq!(shared.touched_from(encoded().mark()).count(), 3);
        shared.clear(0);
        assert!(shared.is_empty() && shared.shared().is_empty() && shared.payload_len() == 0);
    }

    #[test]
    fn changes_are_parted_at_a_mark_and_each_part_decodes_by_itself() {
        let put = |key| Change::Put { key, value: b"v", deadline_ms: None };
        let mut changes = Changes::default();
        changes.set_keyspace(3);
        changes.push(&put(b"before"));
        changes.push_shared(b"large before", Bytes::from_static(b"shared"), None);
        let mark = changes.mark();
        changes.push(&put(b"behind"));
        changes.push_shared(b"large behind", Bytes::from_static(b"as well"), None);
        changes.set_keyspace(0);
        changes.push(&put(b"elsewhere"));
        let behind = changes.split_off(mark);
        let touched = |changes: &Changes| {
            let all = changes.touched_from(Mark::default());
            all.map(|it| match it {
                Touched::Key(keyspace, key) => format!("{keyspace} {}", key.escape_ascii()),
                other => format!("{other:?}"),
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(touched(&changes), ["3 before", "3 large before"]);
        assert_eq!(touched(&behind), ["3 behind", "3 large behind", "0 elsewhere"]);
        assert_eq!((changes.count(), behind.count()), (2, 3));
        for (changes, value) in [(&changes, &b"shared"[..]), (&behind, b"as well")] {
            let [(at, shared)] = changes.shared() else { panic!("one value is shared") };
            assert_eq!(shared, value);
            assert_eq!(changes.bytes()[at - 4..*at], (value.len() as u32).to_le_bytes(), "behind its length");
            assert_eq!(changes.payload_len(), changes.bytes().len() + value.len());
        }
        changes.set_keyspace(3);
        changes.push(&put(b"more"));
        assert_eq!(touched(&changes)[2], "3 more", "the rest knows which keyspace was told");
    }

    #[test]
    fn a_cut_payload_never_decodes_to_something_else() {
        let changes = encoded();
        for cut in 0..changes.bytes().len() {
            let decoded: Vec<_> = decode(&changes.bytes()[..cut]).collect();
            let good = decoded.iter().filter(|change| change.is_ok()).count();
            assert!(decoded.iter().take(good).zip(ALL).all(|(got, want)| *got == Ok(want)), "cut at {cut}");
            assert!(decoded.len() - good <= 1, "cut at {cut}");
        }
    }

    #[test]
    fn a_splice_behind_the_largest_value_is_malformed() {
        for (offset, is_good) in
            [(VALUE_LEN_MAX - 1, true), (VALUE_LEN_MAX, false), (u32::MAX as usize, false)]
        {
            let mut changes = Changes::default();
            changes.push(&Change::Splice { key: b"k", offset: offset as u32, bytes: b"z" });
            assert_eq!(decode(changes.bytes()).all(|change| change.is_ok()), is_good, "offset {offset}");
        }
    }

    /// Pieces of payloads: arbitrary bytes, and numbers that are likely lengths.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            (1..10u8).prop_map(|tag| vec![tag]),
            (0..5u32).prop_map(|len| len.to_le_bytes().to_vec()),
            proptest::collection::vec(any::<u8>(), 0..9),
        ];
        proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn of_arbitrary_bytes_a_decoder_takes_exactly_what_an_encoder_gives(payload in pieces()) {
            let mut changes = Changes::default();
            let mut malformed = None;
            for change in decode(&payload) {
                prop_assert_eq!(malformed, None, "it ends after the first malformed one");
                match change {
                    Ok(change) => changes.push(&change),
                    Err(MalformedChange { offset }) => malformed = Some(offset),
                }
            }
            prop_assert_eq!(changes.bytes(), &payload[..malformed.unwrap_or(payload.len())]);
        }
    }
}
