//! What of the analytics is kept over a restart: the classes, and for how long keys have been watched. It is
//! written down and read back; it decides nothing.
//!
//! ```text
//! version:1 = 1  watched_ms:8  class_count:2  classes, that of the rest first
//!
//! class      name_len:1  name  whole:1  points:4  reads:8  writes:8  hits:8  misses:8  intervals  ttls
//! intervals, ttls
//!            observations:8  used:1  of each used bucket:  bucket:1  count:4
//! ```
//!
//! Integers are little-endian.

use super::classes::{Class, Classes};
use super::intervals::Histogram;
use crate::integer::take;

const VERSION: u8 = 1;

/// The bytes of what is kept. At most 350 KiB.
pub(super) fn to_bytes(classes: &Classes, watched_ms: u64) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&watched_ms.to_le_bytes());
    out.extend_from_slice(&(classes.kept().count() as u16).to_le_bytes());
    for (class, points, whole) in classes.kept() {
        out.push(class.name.len() as u8);
        out.extend_from_slice(&class.name);
        out.push(u8::from(whole));
        out.extend_from_slice(&points.to_le_bytes());
        for count in [class.reads, class.writes, class.hits, class.misses] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        class.intervals.write(&mut out);
        class.ttls.write(&mut out);
    }
    out
}

/// What was kept; `None` for bytes of another version, or that are no such bytes.
pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<(Classes, u64)> {
    let bytes = &mut bytes;
    if take(bytes)? != [VERSION] {
        return None;
    }
    let watched_ms = take(bytes).map(u64::from_le_bytes)?;
    let count = take(bytes).map(u16::from_le_bytes)?;
    let mut classes = Classes::default();
    for _ in 0..count {
        let [name_len] = take(bytes)?;
        let name = bytes.split_off(..usize::from(name_len))?.to_vec();
        let [whole] = take(bytes)?;
        let points = take(bytes).map(u32::from_le_bytes)?;
        let mut number = || take(bytes).map(u64::from_le_bytes);
        let (reads, writes, hits, misses) = (number()?, number()?, number()?, number()?);
        let (intervals, ttls) = (Histogram::read(bytes)?, Histogram::read(bytes)?);
        classes.restore(&Class { name, reads, writes, hits, misses, intervals, ttls }, points, whole != 0);
    }
    bytes.is_empty().then_some((classes, watched_ms))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Many classes: some of one part, some of many, one as a whole, and the rest.
    fn learnt() -> Classes {
        let mut classes = Classes::default();
        for number in 0..2000u32 {
            let word: String = number.to_string().bytes().map(|digit| char::from(digit + 49)).collect();
            let key = match number % 4 {
                0 => format!("user:{word}:mail"),
                1 => format!("app:page:{number}"),
                2 => format!("cache.v{}.item-{number}", number % 7),
                _ => word,
            };
            let id = classes.learn(key.as_bytes());
            let class = classes.class_mut(id);
            class.reads += 3;
            class.hits += 2;
            class.misses += 1;
            class.writes += u64::from(number);
            class.intervals.record(u64::from(number) * 1000, 64);
            class.ttls.record(u64::from(number), 1);
        }
        classes
    }

    #[test]
    fn classes_come_back_as_they_were() {
        let classes = learnt();
        let bytes = to_bytes(&classes, 77_000);
        let (mut kept, watched_ms) = from_bytes(&bytes).unwrap();
        let by_name = |classes: &Classes| -> BTreeMap<Vec<u8>, (Class, u32, bool)> {
            let kept = classes.kept();
            kept.map(|(class, points, whole)| (class.name.clone(), (class.clone(), points, whole))).collect()
        };
        assert_eq!((by_name(&kept), watched_ms), (by_name(&classes), 77_000));
        assert!(by_name(&classes).len() > 5, "{:?}", by_name(&classes).keys());
        assert!(by_name(&kept)[&b"user:*"[..]].2, "it is a class as a whole");
        let id = kept.learn(b"user:never seen:mail");
        assert_eq!(kept.class(id).name, b"user:*");
    }

    #[test]
    fn the_bytes_are_those_that_are_drawn() {
        let mut classes = Classes::default();
        let id = classes.learn(b"a:1");
        classes.class_mut(id).reads = 5;
        classes.class_mut(id).ttls.record(3, 2);
        let rest = b"\x05other\0\0\0\0\0".iter().chain(&[0; 4 * 8 + 2 * 9]);
        let counts = [&b"\x03a:*\0\x01\0\0\0\x05"[..], &[0; 7 + 3 * 8 + 9]].concat();
        let golden: Vec<u8> = b"\x01\x09\0\0\0\0\0\0\0\x02\0".iter().chain(rest).copied().collect();
        let golden = [golden, counts, b"\x01\0\0\0\0\0\0\0\x01\x03\x02\0\0\0".to_vec()].concat();
        assert_eq!(to_bytes(&classes, 9), golden);
        let (kept, watched_ms) = from_bytes(&golden).unwrap();
        assert_eq!((to_bytes(&kept, watched_ms), watched_ms), (golden, 9));
    }

    #[test]
    fn other_bytes_are_refused_or_harmless() {
        let bytes = to_bytes(&learnt(), 1);
        for len in 0..bytes.len() {
            assert!(from_bytes(&bytes[..len]).is_none(), "{len} bytes of {}", bytes.len());
        }
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 0xff;
            // Whatever it says, the classes are such as keys could have made.
            if let Some((classes, _)) = from_bytes(&changed) {
                assert!(classes.iter().count() <= super::super::classes::CLASSES_MAX + 1);
            }
        }
        assert!(from_bytes(&[&bytes[..], b"x"].concat()).is_none());
    }
}
