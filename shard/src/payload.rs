//! A value by itself, as `DUMP` of Redis 7.0 gives it and `RESTORE` takes it.
//!
//! ```text
//! payload  = <type> <value> <version:2> <CRC64 of all before:8>     numbers are little-endian
//! string   = <len> <bytes> | c0 <1> | c1 <2> | c2 <4> | c3 <packed len> <len> <LZF>
//! len      = 00LLLLLL | 01LLLLLL <1> | 80 <4, big-endian> | 81 <8, big-endian>
//! ```
//!
//! A string that is an integer of at most 32 bits is written as one; one of more than 20 bytes is packed, if that saves
//! four of them.

use std::borrow::Cow;

use crc::{CRC_64_REDIS, Crc, Table};

use crate::error::Error;
use crate::integer;
use crate::lzf;

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// The version of RDB files that Redis 7.0 writes, and the newest that it reads.
const VERSION: u16 = 10;
const FOOTER_LEN: usize = 10;
/// The type of a string.
const STRING: u8 = 0;
/// Shorter strings are not packed, nor are longer ones, for which that would take long.
const PACKED_LEN_MIN: usize = 21;
const PACKED_LEN_MAX: usize = 1 << 20;
/// So many bytes are saved at least.
const SAVED_BYTES_MIN: usize = 4;

/// The most bytes by which the payload of a string is longer than it.
pub(crate) const OVERHEAD_BYTES_MAX: usize = 1 + 5 + FOOTER_LEN;

/// The payload of a string.
pub(crate) fn of_string(value: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(value.len() + OVERHEAD_BYTES_MAX);
    payload.push(STRING);
    let packed = match value.len() {
        PACKED_LEN_MIN..=PACKED_LEN_MAX => lzf::pack(value, value.len() - SAVED_BYTES_MIN),
        _ => None,
    };
    match (integer::parse(value).map(i32::try_from), packed) {
        (Some(Ok(integer)), _) => push_integer(&mut payload, integer),
        (_, Some(packed)) => {
            payload.push(0xc3);
            push_len(&mut payload, packed.len());
            push_len(&mut payload, value.len());
            payload.extend_from_slice(&packed);
        }
        (_, None) => {
            push_len(&mut payload, value.len());
            payload.extend_from_slice(value);
        }
    }
    payload.extend_from_slice(&VERSION.to_le_bytes());
    payload.extend_from_slice(&CRC.checksum(&payload).to_le_bytes());
    payload
}

fn push_integer(payload: &mut Vec<u8>, integer: i32) {
    if let Ok(byte) = i8::try_from(integer) {
        payload.extend_from_slice(&[0xc0, byte as u8]);
    } else if let Ok(short) = i16::try_from(integer) {
        payload.push(0xc1);
        payload.extend_from_slice(&short.to_le_bytes());
    } else {
        payload.push(0xc2);
        payload.extend_from_slice(&integer.to_le_bytes());
    }
}

fn push_len(payload: &mut Vec<u8>, len: usize) {
    match len {
        0..0x40 => payload.push(len as u8),
        0x40..0x4000 => payload.extend_from_slice(&(0x4000 | len as u16).to_be_bytes()),
        _ => {
            payload.push(0x80);
            payload.extend_from_slice(&u32::try_from(len).expect("values are shorter").to_be_bytes());
        }
    }
}

/// The string of a payload; at most `len_max` bytes of one that is packed.
///
/// # Errors
/// It is none: [`Error::WrongPayload`], [`Error::MalformedPayload`], [`Error::NotAString`]. Or [`Error::ValueTooLarge`].
pub(crate) fn string(payload: &[u8], len_max: usize) -> Result<Cow<'_, [u8]>, Error> {
    let (summed, sum) = payload.split_last_chunk().ok_or(Error::WrongPayload)?;
    let (body, version) = summed.split_last_chunk().ok_or(Error::WrongPayload)?;
    if u16::from_le_bytes(*version) > VERSION || CRC.checksum(summed) != u64::from_le_bytes(*sum) {
        return Err(Error::WrongPayload);
    }
    let (kind, mut value) = body.split_first().ok_or(Error::MalformedPayload)?;
    match kind {
        &STRING => take_string(&mut value, len_max)?.ok_or(Error::MalformedPayload),
        1 | 10 | 14 | 18 => Err(Error::NotAString("list")),
        2 | 11 => Err(Error::NotAString("set")),
        3 | 5 | 12 | 17 => Err(Error::NotAString("sorted set")),
        4 | 9 | 13 | 16 => Err(Error::NotAString("hash")),
        6 | 7 => Err(Error::NotAString("module's value")),
        15 | 19 => Err(Error::NotAString("stream")),
        _ => Err(Error::MalformedPayload),
    }
}

fn take_string<'a>(bytes: &mut &'a [u8], len_max: usize) -> Result<Option<Cow<'a, [u8]>>, Error> {
    let integer = |integer: i32| Some(Cow::Owned(integer.to_string().into_bytes()));
    let is_too_long = |len: u64| len > len_max as u64;
    Ok(match bytes.first() {
        Some(0xc0) => bytes.get(1).and_then(|byte| integer((*byte as i8).into())),
        Some(0xc1) => bytes[1..].first_chunk().and_then(|bytes| integer(i16::from_le_bytes(*bytes).into())),
        Some(0xc2) => bytes[1..].first_chunk().and_then(|bytes| integer(i32::from_le_bytes(*bytes))),
        Some(0xc3) => {
            *bytes = &bytes[1..];
            let Some((packed_len, len)) = take_len(bytes).zip(take_len(bytes)) else { return Ok(None) };
            if is_too_long(len) {
                return Err(Error::ValueTooLarge { limit: len_max });
            }
            let packed = usize::try_from(packed_len).ok().and_then(|len| bytes.get(..len));
            packed.and_then(|packed| lzf::unpack(packed, len)).map(Cow::Owned)
        }
        _ => match take_len(bytes) {
            Some(len) if is_too_long(len) && len <= bytes.len() as u64 => {
                return Err(Error::ValueTooLarge { limit: len_max });
            }
            len => len
                .and_then(|len| usize::try_from(len).ok())
                .and_then(|len| bytes.get(..len))
                .map(Cow::Borrowed),
        },
    })
}

fn take_len(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.split_off_first()?;
    Some(match (first >> 6, first) {
        (0, _) => u64::from(first),
        (1, _) => u64::from(first & 0x3f) << 8 | u64::from(*bytes.split_off_first()?),
        (_, 0x80) => u32::from_be_bytes(*bytes.split_off(..4)?.first_chunk()?).into(),
        (_, 0x81) => u64::from_be_bytes(*bytes.split_off(..8)?.first_chunk()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values, and the payloads that Redis 7.0.15 gives for them.
    const OF_REDIS: [(&[u8], &[u8]); 11] = [
        (b"", b"\x00\x00\x0a\x00]\x9b\\@\x0f\x7f\xa2\xda"),
        (b"-1", b"\x00\xc0\xff\x0a\x00\x0c\x93~$\x85\x08\x9d\xc5"),
        (b"127", b"\x00\xc0\x7f\x0a\x00\r\xb5\xeb1RT\xc5\x14"),
        (b"128", b"\x00\xc1\x80\x00\x0a\x00\xebz\xb3\xb5\x10\xcfKe"),
        (b"32768", b"\x00\xc2\x00\x80\x00\x00\x0a\x00E\xd8.\xed\xd5\xbd\xa9\x10"),
        (b"-2147483648", b"\x00\xc2\x00\x00\x00\x80\x0a\x00\xc7O\x87>3U\x81\x87"),
        (b"2147483648", b"\x00\x0a2147483648\x0a\x00\xe7\xb1)\xa3L\x1dv\xee"),
        (&[b'a'; 20], b"\x00\x14aaaaaaaaaaaaaaaaaaaa\x0a\x00\x83\xb4k^\x1b\x11\xac\xf1"),
        (&[b'a'; 21], b"\x00\xc3\x06\x15\x01aa\xe0\x0a\x00\x0a\x00\xfd\x0c\xb3h\x07A?h"),
        (
            b"abcabcabcabcabcabcabcabc",
            b"\x00\xc3\x0a\x18\x03abca\xe0\x0a\x02\x00c\x0a\x00\x7f\xc3\xe2 \x12\x81\x16n",
        ),
        (&[b'x'; 300], b"\x00\xc3\x0cA,\x01xx\xe0\xff\x00\xe0\x17\x00\x01xx\x0a\x00\xf03\x19Z\x8bf\r\x84"),
    ];

    /// A payload of this version around these bytes.
    fn wrapped(body: &[u8], version: u16) -> Vec<u8> {
        let mut payload = [body, &version.to_le_bytes()].concat();
        payload.extend_from_slice(&CRC.checksum(&payload).to_le_bytes());
        payload
    }

    #[test]
    fn payloads_are_those_of_redis() {
        for (value, payload) in OF_REDIS {
            assert_eq!(of_string(value).escape_ascii().to_string(), payload.escape_ascii().to_string());
            assert_eq!(string(payload, VALUE_LEN_MAX).unwrap(), value);
        }
    }

    const VALUE_LEN_MAX: usize = 1 << 20;

    #[test]
    fn what_is_no_payload_is_refused() {
        let (_, payload) = OF_REDIS[8];
        for at in 0..payload.len() {
            assert_eq!(string(&payload[..at], VALUE_LEN_MAX), Err(Error::WrongPayload), "{at} bytes");
            let mut damaged = payload.to_vec();
            damaged[at] ^= 1;
            assert_eq!(string(&damaged, VALUE_LEN_MAX), Err(Error::WrongPayload), "byte {at}");
        }
        assert_eq!(string(&wrapped(b"\x00\x01x", 9), VALUE_LEN_MAX).unwrap(), &b"x"[..]);
        assert_eq!(string(&wrapped(b"\x00\x01x", 11), VALUE_LEN_MAX), Err(Error::WrongPayload));
        for body in [
            &b""[..],
            b"\x00",
            b"\x00\x02x",
            b"\x00\xc0",
            b"\x00\xc1\x01",
            b"\x00\xc2\x01\x01\x01",
            b"\x00\xc3\x06",
            b"\x00\xc4",
            b"\x00\x80\x00\x00",
            b"\x00\x81\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x00\xc3\x02\x15\x01aa",
            b"\x63\x01x",
        ] {
            let payload = wrapped(body, VERSION);
            let refused = string(&payload, VALUE_LEN_MAX);
            assert_eq!(refused, Err(Error::MalformedPayload), "{}", body.escape_ascii());
        }
        assert_eq!(string(&wrapped(b"\x0d\x01x", VERSION), VALUE_LEN_MAX), Err(Error::NotAString("hash")));
        let large = Err(Error::ValueTooLarge { limit: 20 });
        assert_eq!(
            (string(payload, 20), string(&of_string(b"012345678901234567890"), 20)),
            (large.clone(), large)
        );
    }

    proptest! {
        #[test]
        fn a_value_comes_back(value in proptest::collection::vec(b'a'..b'd', 0..400)) {
            let payload = of_string(&value);
            prop_assert_eq!(string(&payload, VALUE_LEN_MAX).unwrap(), value);
        }
    }
}
