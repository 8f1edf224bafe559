//! Names and numbers as people read them.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How a name without any character is shown.
const EMPTY: &str = "(empty)";

/// A name that clients have made up, so that it can be seen where it begins and ends: as [`text`], in quotation marks
/// where it begins or ends with a blank.
pub fn name(bytes: &[u8]) -> String {
    let shown = text(bytes);
    match &*shown {
        "" => EMPTY.to_owned(),
        EMPTY => format!("\"{EMPTY}\""),
        shown if shown.starts_with(' ') || shown.ends_with(' ') => format!("\"{shown}\""),
        _ => shown,
    }
}

/// A text with names in it that clients have made up, so that each character of it can be seen: what is no text, control
/// characters, and those that change the direction of the text or have no width, are shown as escapes.
pub fn text(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' | '\'' => shown.push(char),
                char => shown.extend(char.escape_debug()),
            }
        }
        shown.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    shown
}

/// How many columns of a terminal a text takes: two for a character such as `日`.
pub fn columns(shown: &str) -> usize {
    shown.width()
}

/// The beginning of a text that takes at most so many columns.
pub fn fitting(shown: &str, columns_max: usize) -> &str {
    &shown[..bytes_fitting(shown.chars(), columns_max)]
}

/// The same text, with a `…` in its middle where it takes more than `columns_max` columns.
pub fn shortened(shown: &str, columns_max: usize) -> String {
    if columns(shown) <= columns_max {
        return shown.to_owned();
    }
    let tail = columns_max / 3;
    let begin = fitting(shown, columns_max.saturating_sub(tail + 1));
    let end = &shown[shown.len() - bytes_fitting(shown.chars().rev(), tail)..];
    format!("{begin}…{end}")
}

/// How many bytes the first of these characters have that together take at most so many columns.
fn bytes_fitting(chars: impl Iterator<Item = char>, columns_max: usize) -> usize {
    let fitting = chars.scan(0, |columns, char| {
        *columns += char.width().unwrap_or(0);
        (*columns <= columns_max).then(|| char.len_utf8())
    });
    fitting.sum()
}

/// A size, to three digits.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.5 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{} {}", digits(value, unit > 0), units[unit])
}

/// A number of things: whole below 10,000, then to three digits.
pub fn count(number: u64) -> String {
    if number < 10_000 {
        return match number {
            0..1000 => number.to_string(),
            _ => format!("{},{:03}", number / 1000, number % 1000),
        };
    }
    let units = ["", "k", "M", "G", "T", "P", "E"];
    let (mut value, mut unit) = (number as f64, 0);
    while value >= 999.5 && unit + 1 < units.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    format!("{}{}", digits(value, unit > 0), units[unit])
}

/// Time in microseconds.
pub fn micros(us: f64) -> String {
    match us {
        _ if us <= 0.0 => "–".to_owned(),
        _ if us < 999.5 => format!("{} µs", digits(us, true)),
        _ if us < 999_500.0 => format!("{} ms", digits(us / 1e3, true)),
        _ => format!("{} s", digits(us / 1e6, true)),
    }
}

/// A time span in seconds, by its two largest units.
pub fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, 0) => format!("{minutes} min"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, 0, _) => format!("{hours} h"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, 0, _, _) => format!("{days} d"),
        (days, hours, _, _) => format!("{days} d {hours} h"),
    }
}

/// A time span in seconds that is known roughly, by its largest unit.
pub fn about(seconds: u64) -> String {
    let rounded = |unit: u64| (seconds + unit / 2) / unit;
    match seconds {
        0..120 => format!("~{seconds} s"),
        120..7200 => format!("~{} min", rounded(60)),
        7200..172_800 => format!("~{} h", rounded(3600)),
        _ => format!("~{} d", rounded(86_400)),
    }
}

/// A share, in percent. Only what is whole is shown as 100 %.
pub fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent >= 100.0 => "100 %".to_owned(),
        percent if percent >= 99.0 => format!("{:.2} %", (percent * 100.0).floor() / 100.0),
        percent => format!("{percent:.1} %"),
    }
}

/// Three digits.
fn digits(value: f64, may_have_point: bool) -> String {
    match value {
        _ if !may_have_point || value >= 99.95 => format!("{value:.0}"),
        _ if value >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_shows_each_of_its_characters() {
        assert_eq!(name("user:ß:\"'<b>".as_bytes()), "user:ß:\"'<b>");
        assert_eq!(name(b"a\nb\x1b[31m\xff\\"), "a\\nb\\u{1b}[31m\\xff\\\\");
        assert_eq!(name("a\u{202e}b\u{200b}".as_bytes()), "a\\u{202e}b\\u{200b}");
    }

    #[test]
    fn a_name_without_a_visible_character_is_seen() {
        assert_eq!(
            [&b""[..], b" ", b"a ", b"a b", b"(empty)"].map(name),
            ["(empty)", "\" \"", "\"a \"", "a b", "\"(empty)\""]
        );
    }

    #[test]
    fn what_is_wide_takes_two_columns() {
        assert_eq!(["", "a", "日本", "🚀"].map(columns), [0, 1, 4, 2]);
        assert_eq!(fitting("日本語", 5), "日本");
        assert_eq!(shortened("日本語", 6), "日本語");
        assert_eq!(shortened("日本語日本語", 9), "日本…語");
        assert_eq!(shortened("日本", 1), "…");
    }

    #[test]
    fn what_is_long_loses_its_middle() {
        assert_eq!(shortened("abcdefghij", 10), "abcdefghij");
        assert_eq!(shortened("abcdefghijk", 10), "abcdef…ijk");
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([0, 999, 1000, 1_047_552].map(size), ["0 B", "999 B", "0.98 KiB", "1.00 MiB"]);
        assert_eq!([999, 9_999, 10_000, 1_234_567].map(count), ["999", "9,999", "10.0k", "1.23M"]);
        assert_eq!([0.0, 1.5, 999.6, 2e6].map(micros), ["–", "1.50 µs", "1.00 ms", "2.00 s"]);
        assert_eq!([59, 60, 3661, 90_000].map(span), ["59 s", "1 min", "1 h 1 min", "1 d 1 h"]);
        assert_eq!([66, 1836, 86_400, 604_800].map(about), ["~66 s", "~31 min", "~24 h", "~7 d"]);
        assert_eq!([0.5, 0.99999, 1.0].map(percent), ["50.0 %", "99.99 %", "100 %"]);
    }
}
