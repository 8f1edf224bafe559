//! Glob patterns on bytes, as the KEYS and SCAN commands of Redis 7.0 read them.
//!
//! `*` any bytes, `?` one byte, `[abc]` `[a-z]` `[^a]` one byte of a class, `\x` the byte `x`. Oddities that
//! clients may rely on are kept: a class that is not closed ends with the pattern, `[]` matches nothing and
//! `[^]` anything, in `[a-]` the bracket is the end of a range, `[z-a]` is `[a-z]`, a trailing `\` is itself,
//! and no pattern but the empty one and `*` matches the empty key. Bytes compare unsigned.
//!
//! A pattern is read once: then a class takes one look-up, however long it is written. Matching counts its steps
//! and can be left and gone on with, since a long pattern and a long key together take more of them than one turn
//! of the server has time for.

use std::collections::HashMap;

use crate::error::Error;

/// The longest pattern, in bytes: to read it takes a few milliseconds.
pub const PATTERN_LEN_MAX: usize = 1 << 20;

/// A pattern that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    elements: Vec<Element>,
    /// The classes, each once.
    classes: Vec<ByteSet>,
    matches_empty: bool,
}

/// What one byte of a text, or any number of them, is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    /// Any bytes. Never behind another star.
    Star,
    /// Any one byte.
    Any,
    /// This byte.
    Byte(u8),
    /// A byte of the class with this number.
    Class(u32),
}

/// A bit for each byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct ByteSet([u64; 4]);

impl ByteSet {
    fn add(&mut self, byte: u8) {
        self.0[usize::from(byte / 64)] |= 1 << (byte % 64);
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte / 64)] >> (byte % 64) & 1 == 1
    }

    fn negate(&mut self) {
        self.0 = self.0.map(|bits| !bits);
    }
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`Error::PatternTooLong`]: it has more than [`PATTERN_LEN_MAX`] bytes.
    pub fn new(pattern: &[u8]) -> Result<Glob, Error> {
        if pattern.len() > PATTERN_LEN_MAX {
            return Err(Error::PatternTooLong { limit: PATTERN_LEN_MAX });
        }
        let (mut elements, mut classes, mut numbers) = (Vec::new(), Vec::new(), HashMap::new());
        let mut rest = pattern;
        while let [first, behind @ ..] = rest {
            let (element, behind) = match (first, behind) {
                (b'*', _) => (Element::Star, behind),
                (b'?', _) => (Element::Any, behind),
                (b'[', _) => {
                    let (class, behind) = read_class(behind);
                    let number = *numbers.entry(class).or_insert_with(|| {
                        classes.push(class);
                        classes.len() as u32 - 1
                    });
                    (Element::Class(number), behind)
                }
                (b'\\', [literal, behind @ ..]) => (Element::Byte(*literal), behind),
                (literal, _) => (Element::Byte(*literal), behind),
            };
            rest = behind;
            if element != Element::Star || elements.last() != Some(&Element::Star) {
                elements.push(element);
            }
        }
        Ok(Glob { elements, classes, matches_empty: matches!(pattern, b"" | b"*") })
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        Matching::default().go_on(self, text, &mut { usize::MAX }).expect("the steps suffice")
    }

    /// As [`Glob::matches`], for the names of channels: among those `*` does not match the empty one.
    pub fn matches_channel(&self, name: &[u8]) -> bool {
        if name.is_empty() { self.elements.is_empty() } else { self.matches(name) }
    }

    fn matches_one(&self, element: Element, byte: u8) -> bool {
        match element {
            Element::Star | Element::Any => true,
            Element::Byte(literal) => literal == byte,
            Element::Class(number) => self.classes[number as usize].contains(byte),
        }
    }
}

/// Reads a class behind its opening bracket. Returns it with what stands behind its closing one, if it has one.
fn read_class(text: &[u8]) -> (ByteSet, &[u8]) {
    let (negated, mut rest) = match text {
        [b'^', behind @ ..] => (true, behind),
        _ => (false, text),
    };
    let mut class = ByteSet::default();
    loop {
        rest = match rest {
            [b'\\', literal, behind @ ..] => {
                class.add(*literal);
                behind
            }
            [] | [b']', ..] => break,
            [start, b'-', end, behind @ ..] => {
                (*start.min(end)..=*start.max(end)).for_each(|byte| class.add(byte));
                behind
            }
            [literal, behind @ ..] => {
                class.add(*literal);
                behind
            }
        };
    }
    if negated {
        class.negate();
    }
    (class, rest.get(1..).unwrap_or_default())
}

/// How far a text has been compared with a pattern.
#[derive(Clone, Copy, Debug, Default)]
pub struct Matching {
    element: usize,
    text: usize,
    /// Behind the last star seen, and the first text byte that the star has not been tried to swallow. Earlier
    /// stars never need another try: what the last one may skip, they need not.
    retry: Option<(usize, usize)>,
}

impl Matching {
    /// Goes on comparing, with the same pattern and text each time, and takes each step from `steps`. Returns
    /// whether the whole text matches, or `None` when no step was left to tell.
    pub fn go_on(&mut self, glob: &Glob, text: &[u8], steps: &mut usize) -> Option<bool> {
        if text.is_empty() {
            return Some(glob.matches_empty);
        }
        // In variables of its own, which stay in registers.
        let Matching { mut element, text: mut at, mut retry } = *self;
        let mut left = *steps;
        let found = loop {
            let Some(byte) = text.get(at) else {
                break Some(matches!(glob.elements[element..], [] | [Element::Star]));
            };
            if left == 0 {
                break None;
            }
            left -= 1;
            match glob.elements.get(element) {
                Some(Element::Byte(literal)) if literal == byte => (element, at) = (element + 1, at + 1),
                Some(Element::Star) => {
                    element += 1;
                    if element == glob.elements.len() {
                        break Some(true);
                    }
                    retry = Some((element, at + 1));
                }
                Some(one) if glob.matches_one(*one, *byte) => (element, at) = (element + 1, at + 1),
                _ => {
                    let Some((behind_star, swallowed)) = retry else { break Some(false) };
                    (element, at) = (behind_star, swallowed);
                    // The star swallows what the element behind it does not match.
                    let one = glob.elements[element];
                    while left > 0 && text.get(at).is_some_and(|byte| !glob.matches_one(one, *byte)) {
                        (at, left) = (at + 1, left - 1);
                    }
                    retry = Some((behind_star, at + 1));
                }
            }
        };
        (*self, *steps) = (Matching { element, text: at, retry }, left);
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        Glob::new(pattern).unwrap().matches(text)
    }

    /// The definition, without any thought for the time that it takes.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|skip| by_definition(rest, &text[skip..])),
            _ => text.split_first().is_some_and(|(byte, rest)| {
                one_by_definition(pattern, *byte).is_some_and(|len| by_definition(&pattern[len..], rest))
            }),
        }
    }

    /// The length of the element at the start of the pattern, which is no star, if it matches a byte.
    fn one_by_definition(pattern: &[u8], byte: u8) -> Option<usize> {
        match pattern {
            [b'?', ..] => Some(1),
            [b'[', class @ ..] => {
                let (contained, class_len) = in_class(class, byte);
                contained.then_some(1 + class_len)
            }
            [b'\\', literal, ..] => (*literal == byte).then_some(2),
            [literal, ..] => (*literal == byte).then_some(1),
            [] => None,
        }
    }

    /// Whether a byte belongs to a class, and the length of the class with its closing bracket, if it has one.
    fn in_class(class: &[u8], byte: u8) -> (bool, usize) {
        let negated = class.first() == Some(&b'^');
        let mut at = usize::from(negated);
        let mut contained = false;
        loop {
            match &class[at..] {
                [b'\\', literal, ..] => {
                    contained |= *literal == byte;
                    at += 2;
                }
                [b']', ..] => return (contained != negated, at + 1),
                [] => return (contained != negated, at),
                [start, b'-', end, ..] => {
                    contained |= (*start.min(end)..=*start.max(end)).contains(&byte);
                    at += 3;
                }
                [literal, ..] => {
                    contained |= *literal == byte;
                    at += 1;
                }
            }
        }
    }

    #[test]
    fn classes_match_what_redis_matches() {
        let texts = ["a", "ab", "aa", "a-", "a\\", "a]", "a[", "a^", "az", "a]]"];
        for (pattern, matching) in [
            ("a[b", "ab"),
            ("a[", ""),
            ("a[^", "aa ab az a- a[ a\\ a] a^"),
            ("a[a-", "a- aa"),
            ("a[a-]", "a] a^ aa"),
            ("a\\", "a\\"),
            ("a[\\", "a\\"),
            ("a[b\\]", "a] ab"),
            ("a[]", ""),
            ("a[^]", "aa ab az a- a[ a\\ a] a^"),
            ("a[z-a]", "aa ab az"),
            ("a[]]", ""),
            ("a\\]", "a]"),
            ("?", "a"),
            ("a?", "aa ab az a- a[ a\\ a] a^"),
            ("*]", "a] a]]"),
        ] {
            for text in texts {
                let expected = matching.split(' ').any(|each| each == text);
                assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
            }
        }
    }

    #[test]
    fn only_the_star_matches_the_empty_key() {
        assert!(matches(b"", b"") && matches(b"*", b""));
        assert!(!matches(b"**", b"") && !matches(b"?", b"") && !matches(b"[", b"") && !matches(b"", b"a"));
    }

    /// How many steps it takes to tell whether a text matches.
    fn steps(pattern: &[u8], text: &[u8]) -> usize {
        let (glob, mut left) = (Glob::new(pattern).unwrap(), usize::MAX);
        Matching::default().go_on(&glob, text, &mut left);
        usize::MAX - left
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let text = vec![b'a'; 2000];
        let pattern = [b"a*".repeat(50).as_slice(), b"b"].concat();
        assert!(!matches(&pattern, &text));
        assert!(steps(&pattern, &text) <= pattern.len() * text.len());
    }

    #[test]
    fn a_long_pattern_takes_no_more_steps_than_its_text_allows() {
        let class = [b"*[".as_slice(), &b"x".repeat(PATTERN_LEN_MAX - 4), b"]!"].concat();
        let letters = [b"*".as_slice(), &b"h".repeat(PATTERN_LEN_MAX - 1)].concat();
        let stars = b"*".repeat(PATTERN_LEN_MAX);
        for pattern in [class, letters, stars] {
            let steps = steps(&pattern, b"h:g12345678901");
            assert!(steps < 200, "{steps} steps for {}...", pattern[..4].escape_ascii());
        }
    }

    #[test]
    fn a_pattern_has_a_greatest_length() {
        assert!(Glob::new(&b"?".repeat(PATTERN_LEN_MAX)).is_ok());
        let too_long = Glob::new(&b"?".repeat(PATTERN_LEN_MAX + 1));
        assert_eq!(too_long, Err(Error::PatternTooLong { limit: PATTERN_LEN_MAX }));
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(
            pattern in "[ab*?^\\[\\]\\\\-]{0,10}", text in "[ab\\]^-]{1,8}",
        ) {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text), by_definition(pattern, text));
            // The same comes of it when it is left after each step.
            let (glob, mut matching) = (Glob::new(pattern).unwrap(), Matching::default());
            let found = std::iter::from_fn(|| Some(matching.go_on(&glob, text, &mut 1))).flatten().next();
            prop_assert_eq!(found, Some(by_definition(pattern, text)));
        }

        #[test]
        fn no_bytes_make_it_fail(pattern: Vec<u8>, text: Vec<u8>) {
            matches(&pattern, &text);
        }
    }
}
