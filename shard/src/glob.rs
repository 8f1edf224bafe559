//! Glob patterns on bytes, as the KEYS and SCAN commands of Redis 7.0 read them.
//!
//! `*` any bytes, `?` one byte, `[abc]` `[a-z]` `[^a]` one byte of a class, `\x` the byte `x`. Oddities that
//! clients may rely on are kept: a class that is not closed ends with the pattern, `[]` matches nothing and
//! `[^]` anything, in `[a-]` the bracket is the end of a range, `[z-a]` is `[a-z]`, a trailing `\` is itself,
//! and no pattern but the empty one and `*` matches the empty key. Bytes compare unsigned.

/// Whether the whole text matches the pattern. Takes at most pattern length times text length steps.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return matches!(pattern, b"" | b"*");
    }
    let (mut pattern_at, mut text_at) = (0, 0);
    // Behind the last star seen, and the first text byte that the star has not been tried to swallow. Earlier
    // stars never need another try: what the last one may skip, they need not.
    let mut retry: Option<(usize, usize)> = None;
    while text_at < text.len() {
        if pattern.get(pattern_at) == Some(&b'*') {
            pattern_at += 1;
            if pattern_at == pattern.len() {
                return true;
            }
            retry = Some((pattern_at, text_at + 1));
            continue;
        }
        if let Some(next) = matches_one(pattern, pattern_at, text[text_at]) {
            pattern_at = next;
            text_at += 1;
            continue;
        }
        let Some((behind_star, swallowed)) = &mut retry else { return false };
        (pattern_at, text_at) = (*behind_star, *swallowed);
        *swallowed += 1;
    }
    pattern[pattern_at..].iter().all(|byte| *byte == b'*')
}

/// Matches one byte against the element of the pattern at `at`, which is no star; the place behind it.
fn matches_one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match pattern.get(at..)? {
        [b'?', ..] => Some(at + 1),
        [b'[', class @ ..] => {
            let (contained, class_len) = in_class(class, byte);
            contained.then_some(at + 1 + class_len)
        }
        [b'\\', literal, ..] => (*literal == byte).then_some(at + 2),
        [literal, ..] => (*literal == byte).then_some(at + 1),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, without any thought for the time that it takes.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|skip| by_definition(rest, &text[skip..])),
            _ => text.split_first().is_some_and(|(byte, rest)| {
                matches_one(pattern, 0, *byte).is_some_and(|next| by_definition(&pattern[next..], rest))
            }),
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

    #[test]
    fn many_stars_take_no_exponential_time() {
        let text = vec![b'a'; 20_000];
        let pattern = [b"a*".repeat(50).as_slice(), b"b"].concat();
        assert!(!matches(&pattern, &text));
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(
            pattern in "[ab*?^\\[\\]\\\\-]{0,10}", text in "[ab\\]^-]{1,8}",
        ) {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text), by_definition(pattern, text));
        }

        #[test]
        fn no_bytes_make_it_fail(pattern: Vec<u8>, text: Vec<u8>) {
            matches(&pattern, &text);
        }
    }
}
