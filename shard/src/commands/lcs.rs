//! `LCS`: the longest common subsequence of two strings.
//!
//! Two neighbours in a row of the usual table of lengths differ by 0 or 1. So a row is kept as the bits of these
//! differences, and made out of the row before with a few operations on words (Hyyrö, "Bit-parallel LCS-length
//! computation revisited", 2004): what would be a table of half a GiB is 16 MiB, and made in milliseconds.

use crate::combine::{Combined, Held, Terms};
use crate::command::row::{Row, combining};
use crate::command::spec::{Command, Flags, Group, Keys};
use crate::error::Error;
use crate::integer;
use crate::reply::Reply;
use crate::request::Request;
use crate::room::has_room_for;

/// What Redis would take for its table of lengths may not be more; it has four bytes for each pair of bytes.
const TABLE_BYTES_MAX: u64 = 512 << 20;

#[rustfmt::skip] // A row is a paragraph.
pub(super) const ROWS: &[Row] = &[
    combining(lcs, Command {
        name: "LCS", group: Group::String, args_min: 2, args_max: Command::MANY, flags: Flags::READONLY,
        keys: Keys::Range { first: 0, last: 1, step: 1 }, needs: "two keys",
        usage: "key1 key2 [LEN] [IDX] [MINMATCHLEN length] [WITHMATCHLEN]",
        summary: "Finds the longest subsequence that the values of two keys have in common",
        example: "MSET a ohmytext b mynewtext\nLCS a b\nLCS a b LEN\nLCS a b IDX MINMATCHLEN 4 WITHMATCHLEN",
        complexity: "O(n * m / 64), n and m the bytes of the values",
        ..Command::OF_KEY
    }),
];

/// What stands behind the keys.
#[derive(Default)]
struct Options {
    len: bool,
    ranges: bool,
    with_match_len: bool,
    match_len_min: i64,
}

impl Options {
    fn parse(request: &Request<'_>) -> Result<Options, Error> {
        let mut options = Options::default();
        let mut args = request.args().skip(2);
        while let Some(arg) = args.next() {
            let is = |name: &str| arg.eq_ignore_ascii_case(name.as_bytes());
            if is("IDX") {
                options.ranges = true;
            } else if is("LEN") {
                options.len = true;
            } else if is("WITHMATCHLEN") {
                options.with_match_len = true;
            } else if is("MINMATCHLEN") {
                let len = args.next().ok_or(Error::Syntax)?;
                options.match_len_min = integer::parse(len).ok_or(Error::NotAnInteger)?;
            } else {
                return Err(Error::Syntax);
            }
        }
        if options.len && options.ranges {
            return Err(Error::Unavailable("If you want both the length and indexes, please just use IDX."));
        }
        Ok(options)
    }
}

/// `LCS key1 key2 [LEN] [IDX] [MINMATCHLEN length] [WITHMATCHLEN]`.
fn lcs(request: &Request<'_>, held: &[Option<Held<'_>>], _terms: &Terms) -> Result<Combined, Error> {
    let options = Options::parse(request)?;
    let value = |key: usize| held[key].as_ref().map_or(&b""[..], Held::value);
    let (a, b) = (value(0), value(1));
    if (a.len() as u64 + 1) * (b.len() as u64 + 1) * 4 > TABLE_BYTES_MAX {
        return Err(Error::Unavailable(
            "Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    }
    if !has_room_for(a.len() * b.len().div_ceil(8) + a.len()) {
        return Err(Error::OutOfMemory);
    }
    let differences = Differences::new(a, b, !options.len);
    if options.len {
        return Ok(Reply::count(differences.len).into());
    }
    let matches = differences.matches(a, b);
    if !options.ranges {
        let bytes = matches.iter().rev().flat_map(|range| &a[range.a..range.a + range.len]);
        return Ok(Reply::Bulk(bytes.copied().collect()).into());
    }
    let bounds =
        |start: usize, len: usize| Reply::Array(vec![Reply::count(start), Reply::count(start + len - 1)]);
    let shown = matches.into_iter().filter(|range| range.len as i64 >= options.match_len_min).map(|range| {
        let mut item = vec![bounds(range.a, range.len), bounds(range.b, range.len)];
        if options.with_match_len {
            item.push(Reply::count(range.len));
        }
        Reply::Array(item)
    });
    let fields = vec![
        ("matches".into(), Reply::Array(shown.collect())),
        ("len".into(), Reply::count(differences.len)),
    ];
    Ok(Reply::Map(fields).into())
}

/// The sum of two words and a carry, and whether it carries.
fn add_carrying(left: u64, right: u64, carry: bool) -> (u64, bool) {
    let (sum, first) = left.overflowing_add(right);
    let (sum, second) = sum.overflowing_add(u64::from(carry));
    (sum, first | second)
}

/// So many bytes, from these places on, are the same.
struct Match {
    a: usize,
    b: usize,
    len: usize,
}

/// By how much the lengths for prefixes of `a` differ between prefixes of `b` and those that are a byte shorter.
struct Differences {
    /// A row for each prefix of `a` but the empty one, if they are kept: a bit for each byte of `b`, which is 0 where
    /// the lengths differ.
    rows: Vec<u8>,
    row_bytes: usize,
    /// The length of the longest common subsequence.
    len: usize,
}

impl Differences {
    fn new(a: &[u8], b: &[u8], keeps_rows: bool) -> Self {
        let words = b.len().div_ceil(64);
        let row_bytes = b.len().div_ceil(8);
        // Where in `b` a byte stands, of those that `a` has.
        let mut places: [Option<Box<[u64]>>; 256] = [const { None }; 256];
        for byte in a {
            places[usize::from(*byte)].get_or_insert_with(|| vec![0; words].into());
        }
        for (index, byte) in b.iter().enumerate() {
            if let Some(places) = &mut places[usize::from(*byte)] {
                places[index / 64] |= 1 << (index % 64);
            }
        }
        let mut row = vec![u64::MAX; words];
        let mut rows =
            Vec::with_capacity(if keeps_rows { a.len() * row_bytes + size_of::<u64>() } else { 0 });
        for byte in a {
            let places = places[usize::from(*byte)].as_deref().expect("it is a byte of the string");
            let mut carry = false;
            for (word, places) in row.iter_mut().zip(places) {
                let here = *word & places;
                let (sum, carried) = add_carrying(*word, here, carry);
                carry = carried;
                *word = sum | (*word & !here);
            }
            if keeps_rows {
                let end = rows.len() + row_bytes;
                row.iter().for_each(|word| rows.extend_from_slice(&word.to_le_bytes()));
                rows.truncate(end);
            }
        }
        // No byte of `b` stands behind its end, so the bits there stay 1.
        let zeros: usize = row.iter().map(|word| word.count_zeros() as usize).sum();
        Differences { rows, row_bytes, len: zeros }
    }

    /// The runs of bytes that make up the subsequence, the last one first: those that Redis finds, where there are
    /// several subsequences of this length.
    fn matches(&self, a: &[u8], b: &[u8]) -> Vec<Match> {
        let mut matches: Vec<Match> = Vec::new();
        let (mut i, mut j) = (a.len(), b.len());
        let mut goes_on = false;
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                match matches.last_mut() {
                    Some(range) if goes_on => *range = Match { a: i, b: j, len: range.len + 1 },
                    _ => matches.push(Match { a: i, b: j, len: 1 }),
                }
                goes_on = true;
                continue;
            }
            goes_on = false;
            let differs = self.rows[(i - 1) * self.row_bytes + (j - 1) / 8] & 1 << ((j - 1) % 8) == 0;
            if differs { i -= 1 } else { j -= 1 }
        }
        matches
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::transcript;

    #[test]
    fn lcs_shows_the_subsequence_its_length_and_where_it_is() {
        transcript::run(
            r#"> MSET a ohmytext b mynewtext
               OK
               > LCS a b
               "mytext"
               !
               > LCS a b LEN
               6
               > LCS a b IDX
               matches: 4 7 5 8 2 3 0 1, len: 6
               > LCS a b idx minmatchlen 4 withmatchlen
               matches: 4 7 5 8 4, len: 6
               > LCS a b IDX MINMATCHLEN -1
               matches: 4 7 5 8 2 3 0 1, len: 6
               > LCS a nope
               ""
               > LCS nope a IDX
               matches: , len: 0
               > LCS a b LEN IDX
               Unavailable("If you want both the length and indexes, please just use IDX.")
               > LCS a b IDX MINMATCHLEN
               Syntax
               > LCS a b IDX MINMATCHLEN x
               NotAnInteger"#,
        );
    }

    /// Lengths by the usual table, and the subsequence by the way back through it that Redis takes.
    fn by_table(a: &[u8], b: &[u8]) -> Vec<u8> {
        let mut lens = vec![vec![0; b.len() + 1]; a.len() + 1];
        for i in 1..=a.len() {
            for j in 1..=b.len() {
                lens[i][j] = match a[i - 1] == b[j - 1] {
                    true => lens[i - 1][j - 1] + 1,
                    false => lens[i - 1][j].max(lens[i][j - 1]),
                };
            }
        }
        let (mut i, mut j, mut found) = (a.len(), b.len(), Vec::new());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                found.push((i, j));
                (i, j) = (i - 1, j - 1);
            } else if lens[i - 1][j] > lens[i][j - 1] {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        found.iter().rev().map(|(i, _)| a[i - 1]).collect()
    }

    proptest! {
        #[test]
        fn bits_find_what_the_table_finds(
            a in proptest::collection::vec(b'a'..b'e', 0..200), b in proptest::collection::vec(b'a'..b'f', 0..200),
        ) {
            let differences = Differences::new(&a, &b, true);
            let matches = differences.matches(&a, &b);
            let found: Vec<u8> =
                matches.iter().rev().flat_map(|range| &a[range.a..range.a + range.len]).copied().collect();
            let are_equal = |it: &Match| a[it.a..it.a + it.len] == b[it.b..it.b + it.len];
            prop_assert!(matches.iter().all(are_equal));
            prop_assert_eq!(differences.len, found.len());
            prop_assert_eq!(found, by_table(&a, &b));
        }
    }
}
