//! Sums against those of Redis, and what they cost.

use super::decimal::tests::products;
use super::*;

/// Two numbers, and their sum as `INCRBYFLOAT` of Redis 7.0.15 on x86-64 answers it; nothing where it refuses one of
/// them or the sum.
#[rustfmt::skip] // A row is a line.
const SUMS: &[(&str, &str, Option<&str>)] = &[
    ("0.1", "0.2", Some("0.3")),
    ("3.0", "-2.9", Some("0.1")),
    ("1.1", "2.2", Some("3.3")),
    ("100", "0.000000001", Some("100.000000001")),
    ("123456789.123456789", "0.1", Some("123456789.22345678899728227")),
    ("-0.5", "0.25", Some("-0.25")),
    ("1e3", "1e-3", Some("1000.001")),
    ("9007199254740993", "0.1", Some("9007199254740993.099609375")),
    ("0.3", "-0.1", Some("0.2")),
    ("1.005", "1000", Some("1001.005")),
    ("2.5", "-5", Some("-2.5")),
    ("-0.1", "0.1", Some("0")),
    ("0", "-0", Some("0")),
    ("-0", "0", Some("0")),
    ("0.000000000000000005", "0", Some("0")),
    ("0.0000000000000000049", "0", Some("0")),
    ("-4e-18", "0", Some("0")),
    ("6e-18", "0", Some("0.00000000000000001")),
    ("1e-18", "1e-17", Some("0.00000000000000001")),
    ("0.00000000000000001", "-0.000000000000000004", Some("0.00000000000000001")),
    ("999999999999999999", "0.5", Some("999999999999999999.5")),
    ("9999999999999999999", "0.5", Some("10000000000000000000")),
    ("0.99999999999999999", "0.00000000000000001", Some("1")),
    ("0.99999999999999999999", "0", Some("1")),
    ("4.35", "100", Some("104.35")),
    ("1e19", "0.1", Some("10000000000000000000")),
    ("1e18", "0.01", Some("1000000000000000000")),
    ("1e17", "0.001", Some("100000000000000000")),
    ("18446744073709551616", "1", Some("18446744073709551616")),
    ("18446744073709551616", "1.0000000000000000001", Some("18446744073709551618")),
    ("18446744073709551616", "3", Some("18446744073709551620")),
    ("18446744073709551615", "0.5", Some("18446744073709551616")),
    ("18446744073709551614", "0.5", Some("18446744073709551614")),
    ("18446744073709551617", "0", Some("18446744073709551616")),
    ("18446744073709551619", "0", Some("18446744073709551620")),
    ("36893488147419103234", "0", Some("36893488147419103232")),
    ("36893488147419103238", "0", Some("36893488147419103240")),
    ("1e30", "-1e30", Some("0")),
    ("1e30", "1", Some("1000000000000000000024696061952")),
    ("1e30", "-999999999999999999999999999999", Some("0")),
    ("12345678901234567890123", "-12345678901234567890000", Some("0")),
    ("1e20", "-99999999999999999999.5", Some("0")),
    ("1", "-0.99999999999999999", Some("0.00000000000000001")),
    ("1", "-0.9999999999999999999", Some("0")),
    ("1e-4950", "0", Some("0")),
    ("1e-4950", "1", Some("1")),
    ("3.6e-4951", "0", Some("0")),
    ("1.9e-4951", "0", Some("0")),
    ("1.8e-4951", "0", None),
    ("1e-4951", "0", None),
    ("-1e-4950", "1e-4950", Some("0")),
    ("5e-4940", "-5e-4940", Some("0")),
    ("0x1p-16445", "0", Some("0")),
    ("0x1p-16446", "0", None),
    ("0x1.8p-16446", "0", Some("0")),
    ("0x1.00000000000000001p0", "0", Some("1")),
    ("0x1.0000000000000003p0", "-1", Some("0")),
    ("0xffffffffffffffffff", "0", Some("4722366482869645213696")),
    ("-0x.8p1", "1", Some("0")),
    ("0x1p16383", "-0x1p16383", Some("0")),
    ("0x1p16384", "0", None),
    ("1.19e4932", "0", None),
    ("1.18e4932", "1.18e4932", None),
    ("1e4933", "0", None),
    ("12e4931", "0", None),
    ("182259976594123730126420296680e-4980", "0", None),
    ("182259976594123730126420296681e-4980", "0", Some("0")),
    ("118973149535723176505351158982e4903", "0", Some("1189731495357231765021263853030970205169..1989770240 (4933)")),
    ("118973149535723176505351158983e4903", "0", None),
    ("182259976594123730126420296680970990819952540784678167186049e-5010", "0", None),
    ("182259976594123730126420296680970990819952540784678167186050e-5010", "0", Some("0")),
    ("118973149535723176505351158982948866796625400469556721895649e4873", "0", Some("1189731495357231765021263853030970205169..1989770240 (4933)")),
    ("118973149535723176505351158982948866796625400469556721895650e4873", "0", None),
];

/// A text, another one so many times, and a third.
type Long = (&'static str, &'static str, usize, &'static str);

/// As [`SUMS`].
#[rustfmt::skip] // A row is a line.
const SUMS_OF_LONG_TEXTS: &[(Long, &str, Option<&str>)] = &[
    (("", "7", 5119, ""), "0", None),
    (("0.", "3", 5117, ""), "0", Some("0.33333333333333333")),
    (("0.", "3", 5117, ""), "-0.25", Some("0.08333333333333333")),
    (("0.", "9", 5117, ""), "0", Some("1")),
    (("-0.", "9", 5117, ""), "1", None),
    (("1.", "0", 5116, "1"), "0", Some("1")),
    (("18446744073709551617.", "0", 5000, "1"), "0", Some("18446744073709551618")),
    (("18446744073709551617.", "0", 5000, "0"), "0", Some("18446744073709551616")),
    (("18446744073709551616.", "9", 5000, ""), "0", Some("18446744073709551616")),
    (("18446744073709551619.", "0", 5000, ""), "0", Some("18446744073709551620")),
    (("18446744073709551618.", "9", 5000, ""), "0", Some("18446744073709551618")),
    (("1", "0", 4931, ""), "0", Some("1000000000000000000006018949387963891323..9188662272 (4932)")),
    (("1", "0", 4932, ""), "0", Some("1000000000000000000006018949387963891323..1886622720 (4933)")),
    (("-1", "0", 4932, ""), "0", Some("-100000000000000000000601894938796389132..1886622720 (4934)")),
    (("", "9", 4932, ""), "0", Some("1000000000000000000006018949387963891323..1886622720 (4933)")),
    (("1.", "1", 5100, "e4931"), "0", Some("1111111111111111111144671946652058598246..4291887104 (4932)")),
    (("1.", "1", 5100, "e-5000"), "0", None),
    (("0.", "0", 4950, "3"), "0", Some("0")),
    (("0.", "0", 4950, "2"), "0", Some("0")),
    (("0.", "0", 4950, "1"), "0", None),
    (("0.", "0", 4960, "1"), "0", None),
    (("0.", "0", 60, "1"), "0.5", Some("0.5")),
    (("", "0", 5000, "7"), "0.5", Some("7.5")),
    (("1.", "5", 5110, "e4"), "-15555.5", Some("0.05555555555555536")),
    (("", "8", 5110, "e-5109"), "-8.875", Some("0.01388888888888889")),
    (("0x", "f", 4000, ""), "0", Some("3019469337239227579530658446615279709295..5882469376 (4817)")),
    (("0x", "f", 4097, ""), "0", None),
    (("0x1.", "0", 5000, "1"), "0", Some("1")),
    (("0x1.000000000000000", "1", 5000, "p63"), "0", Some("9223372036854775809")),
    (("0x1.0000000000000001", "0", 5000, "1p63"), "0", Some("9223372036854775809")),
    (("0x1.0000000000000001", "0", 5000, "p63"), "0", Some("9223372036854775808")),
    (("0x1.0000000000000003", "0", 5000, "p63"), "0", Some("9223372036854775810")),
];

fn sum(a: &str, b: &str) -> Option<String> {
    let [a, b] = [a, b].map(|text| LongDouble::parse(text.as_bytes()));
    a?.checked_add(b?).map(LongDouble::to_text)
}

/// A long sum by its two ends and its length.
fn shortened(sum: String) -> String {
    match sum.len() {
        ..=60 => sum,
        len => format!("{}..{} ({len})", &sum[..40], &sum[len - 10..]),
    }
}

#[test]
fn sums_have_the_digits_that_redis_shows() {
    for (a, b, expected) in SUMS {
        assert_eq!(sum(a, b).map(shortened).as_deref(), *expected, "{a} + {b}");
        assert_eq!(sum(b, a).map(shortened).as_deref(), *expected, "{b} + {a}");
    }
    for ((head, unit, count, tail), b, expected) in SUMS_OF_LONG_TEXTS {
        let a = format!("{head}{}{tail}", unit.repeat(*count));
        assert_eq!(
            sum(&a, b).map(shortened).as_deref(),
            *expected,
            "{head}{unit} {count} times {tail} + {b}"
        );
    }
}

#[test]
fn spellings_are_read_as_c_reads_them() {
    for (a, b, expected) in [
        ("5.0e3", "2.0e2", "5200"),
        ("0x1.8p1", "0XfP-4", "3.9375"),
        (".5", "5.", "5.5"),
        ("+007", "0e-99999", "7"),
    ] {
        assert_eq!(sum(a, b).as_deref(), Some(expected), "{a} + {b}");
    }
    assert_eq!((sum("inf", "1"), sum("1", "-Infinity")), (None, None));
}

/// The texts of the least number's half and of the least number that is too large, and ones that are a little less and
/// a little more, with as many digits as are read.
fn longest_texts_at_the_limits() -> [[String; 3]; 2] {
    [(1, EXPONENT_MIN - 1), ((1 << 65) - 1, EXPONENT_MAX - 1)].map(|(mantissa, exponent)| {
        let Decimal { point, mut digits } = Decimal::of(mantissa, exponent);
        digits.resize(5_100, 0);
        let text = |digits: &[u8]| {
            let digits = digits.iter().map(|digit| char::from(b'0' + digit)).collect::<String>();
            format!("{digits}e{}", point - digits.len() as i64)
        };
        let at = text(&digits);
        let last = digits.iter().rposition(|digit| *digit > 0).expect("it is not 0");
        let (mut less, mut more) = (digits.clone(), digits);
        less[last] -= 1;
        *more.last_mut().expect("there are digits") += 1;
        [text(&less), at, text(&more)]
    })
}

#[test]
fn no_digit_is_too_far_behind_to_count() {
    let is_read = |texts: [String; 3]| texts.map(|text| LongDouble::parse(text.as_bytes()).is_some());
    let [half_of_least, too_large] = longest_texts_at_the_limits();
    // Of the half of the least number there are more digits than are read.
    assert_eq!(is_read(half_of_least), [false, false, true]);
    assert_eq!(is_read(too_large), [true, false, false]);
}

#[test]
fn no_text_takes_long() {
    let steps = |text: &str| {
        let mut number = None;
        let read = products(|| number = LongDouble::parse(text.as_bytes()));
        (read, products(|| drop(number.map(LongDouble::to_text))))
    };
    for text in [
        "0.1",
        "1e-4950",
        "12345678901234567890123",
        &"7".repeat(4_000),
        &format!("{}e-10000", "7".repeat(5_000)),
    ] {
        assert_eq!(steps(text).0, 0, "{text:.20}");
    }
    for text in longest_texts_at_the_limits().as_flattened() {
        let (read, shown) = steps(text);
        assert!((1_000..50_000).contains(&read) && shown < 20_000, "{read} {shown} {text:.20}");
    }
    assert!((1_000..20_000).contains(&steps("1e4932").1));
}

#[test]
fn what_is_no_number_or_does_not_fit_is_refused() {
    let refused =
        "|.|-|+|e5|1e|1e+|1e5.0|1.2.3|0x|0x.p1|1p3|nan|infin|1 | 1|--1|1_0|1e5000|1e-5000|1e999999999999|x";
    for text in refused.split('|') {
        assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
    }
    assert_eq!(LongDouble::parse(&[b'1'; TEXT_LEN_MAX + 1]), None);
    assert_eq!(LongDouble::parse(b"1\0"), None);
}

#[test]
fn numbers_are_rounded_to_64_bits_and_ties_to_even() {
    let mantissa = |bits, rest| match round(bits, rest, 0) {
        Some(Magnitude::Finite { mantissa, exponent }) => (mantissa, exponent),
        other => panic!("{other:?}"),
    };
    assert_eq!(mantissa(1 << 65 | 1, false), (1 << 63, 2));
    assert_eq!(mantissa(1 << 65 | 2, false), (1 << 63, 2));
    assert_eq!(mantissa(1 << 65 | 2, true), (1 << 63 | 1, 2));
    assert_eq!(mantissa(1 << 65 | 6, false), (1 << 63 | 2, 2));
    assert_eq!(mantissa((1 << 65) - 1, false), (1 << 63, 2));
    assert_eq!(round(1, false, EXPONENT_MIN - 1), Some(ZERO), "half of the least number, a tie");
    assert_eq!(
        round(1, true, EXPONENT_MIN - 1),
        Some(Magnitude::Finite { mantissa: 1, exponent: EXPONENT_MIN })
    );
}
