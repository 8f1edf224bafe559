//! Values that count distinct elements in a few bytes (HyperLogLog), byte for byte as Redis keeps them, so that `GET` and
//! `DUMP` of either are of use to the other. It knows no key and no command.
//!
//! An element is hashed. 14 bits of the hash choose one of 16,384 registers, and the register keeps the greatest rank of
//! its elements: how many of the other 50 bits, from the lowest on, it takes to find a 1.
//!
//! ```text
//! value   "HYLL"  encoding:1  0 0 0  count:8  registers
//!
//! encoding  0  dense: 6 bits for each register, the first in the lowest bits of the first byte: 12,288 bytes
//!           1  sparse: runs of registers that are equal
//! count     little-endian, what was counted last; with the highest bit set it is out of date
//! run       00LLLLLL           L + 1 registers are 0
//!           01LLLLLL LLLLLLLL  the same, big-endian
//!           1VVVVVLL           L + 1 registers are V + 1
//! ```
//!
//! A sparse value becomes dense when a register exceeds 32, or when it would grow past 3000 bytes.

use crate::error::Error;

const PRECISION: u32 = 14;
const REGISTERS: usize = 1 << PRECISION;
const REGISTER_BITS: usize = 6;
const REGISTER_MAX: u8 = (1 << REGISTER_BITS) - 1;
/// So many bits of a hash are looked through for a 1.
const RANK_BITS: u32 = 64 - PRECISION;

const MAGIC: &[u8] = b"HYLL";
const ENCODING_AT: usize = 4;
const COUNT_AT: usize = 8;
const HEAD_LEN: usize = 16;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const DENSE_LEN: usize = HEAD_LEN + REGISTERS * REGISTER_BITS / 8;
const STALE: u8 = 1 << 7;

/// A sparse value with more bytes becomes dense: what Redis has for its option hll-sparse-max-bytes.
const SPARSE_LEN_MAX: usize = 3000;
/// The longest run of zeros that takes one byte.
const ZEROS_MAX: usize = 64;
/// The longest run of another value.
const VALUES_MAX: usize = 4;
/// The greatest register of a sparse value.
const SPARSE_REGISTER_MAX: u8 = 32;
/// So many runs, from the one before a change on, are looked at for neighbours that make one run.
const MERGED_RUNS: usize = 5;

/// The seed of the hash function in Redis.
const SEED: u64 = 0xadc8_3b19;

/// The registers of one value or of several, a byte each.
pub(crate) type Registers = [u8; REGISTERS];

/// A run of registers in a sparse value.
#[derive(Clone, Copy)]
struct Run {
    register: u8,
    len: usize,
    /// Its own length, in bytes.
    bytes: usize,
}

/// The run at the start of these bytes.
fn first_run(bytes: &[u8]) -> Option<Run> {
    let first = *bytes.first()?;
    let low = usize::from(first & 0x3f);
    Some(match first >> 6 {
        0 => Run { register: 0, len: low + 1, bytes: 1 },
        1 => Run { register: 0, len: (low << 8 | usize::from(*bytes.get(1)?)) + 1, bytes: 2 },
        _ => Run { register: (first >> 2 & 0x1f) + 1, len: usize::from(first & 3) + 1, bytes: 1 },
    })
}

/// The runs of a sparse value. They end where bytes are no run.
fn runs(value: &[u8]) -> impl Iterator<Item = Run> {
    let mut rest = &value[HEAD_LEN..];
    std::iter::from_fn(move || {
        let run = first_run(rest)?;
        rest = &rest[run.bytes..];
        Some(run)
    })
}

/// Appends the runs of so many registers with this value, which fit into one.
fn push_run(bytes: &mut Vec<u8>, register: u8, len: usize) {
    if len == 0 {
        return;
    }
    let low = len - 1;
    match register {
        0 if len <= ZEROS_MAX => bytes.push(low as u8),
        0 => bytes.extend_from_slice(&[0x40 | (low >> 8) as u8, low as u8]),
        _ => bytes.push(0x80 | (register - 1) << 2 | low as u8),
    }
}

/// Whether a value is one of these.
///
/// # Errors
/// [`Error::NotAHyperloglog`]
pub(crate) fn check(value: &[u8]) -> Result<(), Error> {
    let is_one = value.len() >= HEAD_LEN
        && value.starts_with(MAGIC)
        && (value[ENCODING_AT] == SPARSE || value[ENCODING_AT] == DENSE && value.len() == DENSE_LEN);
    if is_one { Ok(()) } else { Err(Error::NotAHyperloglog) }
}

/// What was counted of a value last, if that is not out of date.
pub(crate) fn known_count(value: &[u8]) -> Option<u64> {
    let count = value[COUNT_AT..].first_chunk().expect("the head was checked");
    (count[7] & STALE == 0).then(|| u64::from_le_bytes(*count))
}

/// Raises registers to those of a value that was checked.
///
/// # Errors
/// [`Error::CorruptHyperloglog`]
pub(crate) fn merge(value: &[u8], into: &mut Registers) -> Result<(), Error> {
    if value[ENCODING_AT] == DENSE {
        for (index, register) in into.iter_mut().enumerate() {
            *register = (*register).max(dense_register(value, index));
        }
        return Ok(());
    }
    let mut index = 0;
    for run in runs(value) {
        let registers = into.get_mut(index..index + run.len).ok_or(Error::CorruptHyperloglog)?;
        registers.iter_mut().for_each(|register| *register = (*register).max(run.register));
        index += run.len;
    }
    if index == REGISTERS { Ok(()) } else { Err(Error::CorruptHyperloglog) }
}

/// How many distinct elements a value that was checked has seen, about.
///
/// # Errors
/// [`Error::CorruptHyperloglog`]
pub(crate) fn count(value: &[u8]) -> Result<u64, Error> {
    let mut registers = [0; REGISTERS];
    merge(value, &mut registers)?;
    Ok(estimate(&registers))
}

/// How many distinct elements these registers have seen, about: Ertl, "New cardinality estimation algorithms for
/// HyperLogLog sketches", 2017, algorithm 6.
pub(crate) fn estimate(registers: &Registers) -> u64 {
    /// 1 / (2 ln 2)
    const ALPHA: f64 = 0.721_347_520_444_481_7;
    let mut histogram = [0u32; REGISTER_MAX as usize + 1];
    registers.iter().for_each(|register| histogram[usize::from(*register)] += 1);
    let m = REGISTERS as f64;
    let part = |rank: u32| f64::from(histogram[rank as usize]);
    let mut z = m * tau((m - part(RANK_BITS + 1)) / m);
    for rank in (1..=RANK_BITS).rev() {
        z = (z + part(rank)) * 0.5;
    }
    z += m * sigma(part(0) / m);
    (ALPHA * m * m / z).round() as u64
}

/// The part of the registers that are 0 in the estimate.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// The part of the registers that are as great as can be.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

/// The register at this index of a dense value.
fn dense_register(value: &[u8], index: usize) -> u8 {
    let bit = index * REGISTER_BITS;
    let at = HEAD_LEN + bit / 8;
    let bytes = u16::from_le_bytes([value[at], value.get(at + 1).copied().unwrap_or_default()]);
    (bytes >> (bit % 8)) as u8 & REGISTER_MAX
}

/// Which register an element concerns, and its rank.
fn place(element: &[u8]) -> (usize, u8) {
    let hash = murmur_hash(element, SEED);
    let rank = (hash >> PRECISION | 1 << RANK_BITS).trailing_zeros() + 1;
    (hash as usize % REGISTERS, rank as u8)
}

/// MurmurHash64A of Austin Appleby.
fn murmur_hash(bytes: &[u8], seed: u64) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks();
    for word in words {
        let mut word = u64::from_le_bytes(*word).wrapping_mul(FACTOR);
        word ^= word >> SHIFT;
        hash = (hash ^ word.wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let last = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        hash = (hash ^ last).wrapping_mul(FACTOR);
    }
    hash ^= hash >> SHIFT;
    hash = hash.wrapping_mul(FACTOR);
    hash ^ hash >> SHIFT
}

/// A value on its own, to be changed.
#[derive(Clone, Debug)]
pub(crate) struct Hyperloglog(Vec<u8>);

impl Hyperloglog {
    /// One that has seen nothing, as Redis makes it.
    pub(crate) fn new() -> Self {
        let mut value = [MAGIC, &[SPARSE, 0, 0, 0], &[0; 8]].concat();
        push_run(&mut value, 0, REGISTERS);
        Hyperloglog(value)
    }

    /// A copy of a value.
    ///
    /// # Errors
    /// [`Error::NotAHyperloglog`]
    pub(crate) fn of(value: &[u8]) -> Result<Self, Error> {
        check(value)?;
        Ok(Hyperloglog(value.to_vec()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn is_dense(&self) -> bool {
        self.0[ENCODING_AT] == DENSE
    }

    /// Adds an element; whether a register changed.
    ///
    /// # Errors
    /// [`Error::CorruptHyperloglog`]
    pub(crate) fn add(&mut self, element: &[u8]) -> Result<bool, Error> {
        let (index, rank) = place(element);
        self.raise(index, rank)
    }

    /// Raises registers to these.
    ///
    /// # Errors
    /// [`Error::CorruptHyperloglog`]
    pub(crate) fn raise_all(&mut self, registers: &Registers) -> Result<(), Error> {
        for (index, register) in registers.iter().enumerate().filter(|(_, register)| **register > 0) {
            self.raise(index, *register)?;
        }
        Ok(())
    }

    /// What was counted last is out of date.
    pub(crate) fn make_stale(&mut self) {
        self.0[COUNT_AT + 7] |= STALE;
    }

    /// Notes what was counted.
    pub(crate) fn set_count(&mut self, count: u64) {
        self.0[COUNT_AT..HEAD_LEN].copy_from_slice(&count.to_le_bytes());
    }

    /// Raises a register; whether it was lower.
    fn raise(&mut self, index: usize, rank: u8) -> Result<bool, Error> {
        if self.is_dense() { Ok(self.raise_dense(index, rank)) } else { self.raise_sparse(index, rank) }
    }

    fn raise_dense(&mut self, index: usize, rank: u8) -> bool {
        if dense_register(&self.0, index) >= rank {
            return false;
        }
        let bit = index * REGISTER_BITS;
        let (at, shift) = (HEAD_LEN + bit / 8, bit % 8);
        let (mask, rank) = (u16::from(REGISTER_MAX) << shift, u16::from(rank) << shift);
        for (byte, (mask, rank)) in
            self.0[at..].iter_mut().zip(mask.to_le_bytes().into_iter().zip(rank.to_le_bytes()))
        {
            *byte = *byte & !mask | rank;
        }
        true
    }

    fn raise_sparse(&mut self, index: usize, rank: u8) -> Result<bool, Error> {
        if rank > SPARSE_REGISTER_MAX {
            self.make_dense()?;
            return Ok(self.raise_dense(index, rank));
        }
        let (mut at, mut before, mut first) = (HEAD_LEN, HEAD_LEN, 0);
        let run = loop {
            let run = first_run(&self.0[at..]).ok_or(Error::CorruptHyperloglog)?;
            if index < first + run.len {
                break run;
            }
            (before, at, first) = (at, at + run.bytes, first + run.len);
        };
        if run.register >= rank {
            return Ok(false);
        }
        let mut split = Vec::with_capacity(5);
        push_run(&mut split, run.register, index - first);
        push_run(&mut split, rank, 1);
        push_run(&mut split, run.register, first + run.len - index - 1);
        if split.len() > run.bytes && self.0.len() + split.len() - run.bytes > SPARSE_LEN_MAX {
            self.make_dense()?;
            return Ok(self.raise_dense(index, rank));
        }
        self.0.splice(at..at + run.bytes, split);
        self.merge_runs(before);
        self.make_stale();
        Ok(true)
    }

    /// Makes one run of neighbours with the same register, from this place on.
    fn merge_runs(&mut self, mut at: usize) {
        for _ in 0..MERGED_RUNS {
            let Some(run) = first_run(&self.0[at..]) else { return };
            let next = first_run(&self.0[at + run.bytes..]);
            match next {
                Some(next)
                    if run.register > 0
                        && next.register == run.register
                        && run.len + next.len <= VALUES_MAX =>
                {
                    let mut merged = Vec::with_capacity(1);
                    push_run(&mut merged, run.register, run.len + next.len);
                    self.0.splice(at..at + 2, merged);
                }
                _ => at += run.bytes,
            }
        }
    }

    /// Makes a sparse value dense; what was counted stays as it was.
    ///
    /// # Errors
    /// [`Error::CorruptHyperloglog`]
    pub(crate) fn make_dense(&mut self) -> Result<(), Error> {
        if self.is_dense() {
            return Ok(());
        }
        let registers = self.registers()?;
        self.0.truncate(HEAD_LEN);
        self.0.resize(DENSE_LEN, 0);
        self.0[ENCODING_AT] = DENSE;
        for (index, register) in registers.iter().enumerate().filter(|(_, register)| **register > 0) {
            self.raise_dense(index, *register);
        }
        Ok(())
    }

    /// Its registers.
    ///
    /// # Errors
    /// [`Error::CorruptHyperloglog`]
    pub(crate) fn registers(&self) -> Result<Box<Registers>, Error> {
        let mut registers = Box::new([0; REGISTERS]);
        merge(&self.0, &mut registers)?;
        Ok(registers)
    }

    /// The runs of a sparse value as `PFDEBUG DECODE` of Redis shows them; `None` of a dense one.
    pub(crate) fn shown_runs(&self) -> Option<String> {
        let shown = |run: Run| match (run.register, run.bytes) {
            (0, 1) => format!("z:{}", run.len),
            (0, _) => format!("Z:{}", run.len),
            (register, _) => format!("v:{register},{}", run.len),
        };
        (!self.is_dense()).then(|| runs(&self.0).map(shown).collect::<Vec<_>>().join(" "))
    }
}

/// Whether both forms count as they should: elements are added to either, and the counts compared with how many there
/// were. Some milliseconds.
pub fn passes_self_test() -> bool {
    const ELEMENTS: u64 = 10_000;
    /// Six times the standard error of so many registers, in thousandths.
    const ERROR_MAX: u64 = 49;
    let (mut sparse, mut dense) = (Hyperloglog::new(), Hyperloglog::new());
    let mut counts_well = dense.make_dense().is_ok();
    for element in 1..=ELEMENTS {
        let bytes = element.to_le_bytes();
        counts_well &= sparse.add(&bytes) == dense.add(&bytes);
        if element.is_power_of_two() || element == ELEMENTS {
            let counted = count(sparse.as_bytes());
            counts_well &= counted == count(dense.as_bytes())
                && counted.is_ok_and(|counted| counted.abs_diff(element) <= 1 + element * ERROR_MAX / 1000);
        }
    }
    counts_well && sparse.is_dense()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload;

    fn counted(elements: std::ops::Range<u32>) -> Hyperloglog {
        let mut value = Hyperloglog::new();
        for element in elements {
            value.add(element.to_string().as_bytes()).unwrap();
        }
        value
    }

    #[test]
    fn values_are_those_that_redis_makes() {
        // Length, checksum of the payload and count that Redis 7.0.15 gives after PFADD of 0 up to the number.
        for (elements, len, checksum, expected) in [
            (100, 287, 0x9f70_6425_94bd_8d5b, 100),
            (1000, 1923, 0x09a8_315c_0e4d_a7dd, 1001),
            (2000, 12304, 0x164d_f21a_5794_192c, 2007),
            (20_000, 12304, 0x7424_0bde_10be_f8ff, 19_891),
        ] {
            let mut value = counted(0..elements);
            value.make_stale();
            let payload = payload::of_string(value.as_bytes());
            assert_eq!(value.as_bytes().len(), len);
            assert_eq!(u64::from_le_bytes(*payload.last_chunk().unwrap()), checksum, "{elements} elements");
            assert_eq!(count(value.as_bytes()).unwrap(), expected);
        }
    }

    #[test]
    fn both_forms_hold_the_same_registers() {
        let sparse = counted(0..800);
        let mut dense = sparse.clone();
        dense.make_dense().unwrap();
        assert!(dense.is_dense() && !sparse.is_dense());
        assert_eq!(dense.registers(), sparse.registers());
        assert_eq!(count(dense.as_bytes()), count(sparse.as_bytes()));
        let mut merged = Hyperloglog::new();
        merged.raise_all(&sparse.registers().unwrap()).unwrap();
        merged.raise_all(&counted(500..1000).registers().unwrap()).unwrap();
        assert_eq!(merged.registers(), counted(0..1000).registers());
    }

    #[test]
    fn a_register_past_the_sparse_ones_makes_a_value_dense() {
        let mut value = Hyperloglog::new();
        assert_eq!(value.raise(REGISTERS - 1, SPARSE_REGISTER_MAX), Ok(true));
        assert_eq!(value.shown_runs().unwrap(), "Z:16383 v:32,1");
        assert_eq!(value.raise(REGISTERS - 1, SPARSE_REGISTER_MAX), Ok(false));
        assert_eq!(value.raise(REGISTERS - 1, SPARSE_REGISTER_MAX + 1), Ok(true));
        assert!(value.is_dense());
        assert_eq!(dense_register(value.as_bytes(), REGISTERS - 1), SPARSE_REGISTER_MAX + 1);
        assert_eq!(value.registers().unwrap().iter().filter(|register| **register > 0).count(), 1);
    }

    #[test]
    fn neighbours_become_one_run_of_four_at_most() {
        let mut value = Hyperloglog::new();
        for index in [10, 12, 11, 13, 14] {
            value.raise(index, 2).unwrap();
        }
        assert_eq!(value.shown_runs().unwrap(), "z:10 v:2,4 v:2,1 Z:16369");
        value.raise(11, 3).unwrap();
        assert_eq!(value.shown_runs().unwrap(), "z:10 v:2,1 v:3,1 v:2,3 Z:16369");
    }

    #[test]
    fn what_is_no_hyperloglog_is_refused() {
        let whole = counted(0..100);
        let with =
            |at: usize, byte: u8| [&whole.as_bytes()[..at], &[byte], &whole.as_bytes()[at + 1..]].concat();
        for value in [&b""[..], b"HYLL", &with(0, b'h'), &with(ENCODING_AT, 2), &with(ENCODING_AT, DENSE)] {
            assert_eq!(check(value), Err(Error::NotAHyperloglog));
        }
        let cut = &whole.as_bytes()[..whole.as_bytes().len() - 1];
        let longer = [whole.as_bytes(), &[0x7f, 0xff]].concat();
        for value in [cut, &longer, &with(HEAD_LEN, 0x7f)] {
            check(value).unwrap();
            assert_eq!(count(value), Err(Error::CorruptHyperloglog));
            assert_eq!(Hyperloglog::of(value).unwrap().make_dense(), Err(Error::CorruptHyperloglog));
        }
        let mut cut = Hyperloglog::of(&[whole.as_bytes()[..HEAD_LEN].to_vec(), vec![0x7f]].concat()).unwrap();
        assert_eq!(cut.add(b"x"), Err(Error::CorruptHyperloglog));
    }

    #[test]
    fn the_self_test_passes() {
        assert!(passes_self_test());
    }
}
