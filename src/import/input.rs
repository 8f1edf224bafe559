//! The bytes of a file: counted and summed up as they are read, and never more of them in memory than the file holds,
//! whatever length it claims.
//!
//! It knows no format.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use crc::{CRC_64_REDIS, Crc, Digest, Table};

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// How much is read from the file at a time.
const READ_BYTES: usize = 256 << 10;

/// As much memory is taken for what is announced; for more only once its bytes are there.
const TRUSTED_BYTES: u64 = 64 << 10;

/// A file while it is read from its beginning to its end.
pub struct Input<R> {
    reader: BufReader<R>,
    offset: u64,
    digest: Digest<'static, u64, Table<16>>,
}

/// Where a file cannot be read any further, and why.
#[derive(Debug)]
pub struct Damage {
    /// Of the first byte that is not understood.
    pub offset: u64,
    /// Why.
    pub fault: Fault,
}

/// Why a file cannot be read any further.
#[derive(Debug)]
pub enum Fault {
    /// It ends in the middle of something.
    Ends,
    /// The system cannot read it.
    Io(io::Error),
    /// Another byte stands where this is expected.
    Unexpected {
        /// What should stand there.
        expected: &'static str,
        /// What does.
        found: u8,
    },
    /// It is not what it should be.
    Invalid(&'static str),
    /// A version of Redis wrote it whose RDB files are not known.
    UnknownType(u8),
    /// The sum at the end is another one than that of what was read.
    Checksum {
        /// As the file says.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// It is no JSON.
    Json(serde_json::Error),
}

impl<R: Read> Input<R> {
    /// Reads from the beginning.
    pub fn new(reader: R) -> Input<R> {
        Input { reader: BufReader::with_capacity(READ_BYTES, reader), offset: 0, digest: CRC.digest() }
    }

    /// How many bytes have been read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The CRC64 of Redis over all bytes that have been read.
    pub fn checksum(&self) -> u64 {
        self.digest.clone().finalize()
    }

    /// The next byte, which stays to be read; `None` at the end of the file.
    pub fn peek(&mut self) -> Result<Option<u8>, Damage> {
        Ok(self.buffered()?.first().copied())
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, Damage> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let mut bytes = [0; N];
        let mut filled = 0;
        while filled < N {
            let buffered = self.buffered()?;
            let count = buffered.len().min(N - filled);
            bytes[filled..filled + count].copy_from_slice(&buffered[..count]);
            self.take(count)?;
            filled += count;
        }
        Ok(bytes)
    }

    /// Adds the next `len` bytes to `bytes`. Memory is taken as they come.
    pub fn append_to(&mut self, bytes: &mut Vec<u8>, mut len: u64) -> Result<(), Damage> {
        bytes.reserve(len.min(TRUSTED_BYTES) as usize);
        while len > 0 {
            let buffered = self.buffered()?;
            let count = (buffered.len() as u64).min(len) as usize;
            bytes.extend_from_slice(&buffered[..count]);
            self.take(count)?;
            len -= count as u64;
        }
        Ok(())
    }

    /// Passes over the next `len` bytes.
    pub fn skip(&mut self, mut len: u64) -> Result<(), Damage> {
        while len > 0 {
            let count = (self.buffered()?.len() as u64).min(len) as usize;
            self.take(count)?;
            len -= count as u64;
        }
        Ok(())
    }

    /// The bytes up to the next newline, without it and a carriage return before it, and whether there is one: the
    /// last line may have none. `None` at the end of the file. A line of much more than `max` bytes is damage.
    pub fn line(&mut self, line: &mut Vec<u8>, max: usize) -> Result<Option<bool>, Damage> {
        line.clear();
        loop {
            let buffered = self.buffered()?;
            if buffered.is_empty() {
                return Ok((!line.is_empty()).then_some(false));
            }
            let end = memchr::memchr(b'\n', buffered);
            let count = end.unwrap_or(buffered.len());
            if line.len() > max {
                return Err(self.damage(Fault::Invalid("the line does not end")));
            }
            line.extend_from_slice(&buffered[..count]);
            self.take(count + usize::from(end.is_some()))?;
            if end.is_some() {
                line.pop_if(|last| *last == b'\r');
                return Ok(Some(true));
            }
        }
    }

    /// An error at this place.
    pub fn damage(&self, fault: Fault) -> Damage {
        Damage { offset: self.offset, fault }
    }

    fn buffered(&mut self) -> Result<&[u8], Damage> {
        while let Err(error) = self.reader.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(self.damage(Fault::Io(error)));
            }
        }
        Ok(self.reader.buffer())
    }

    /// Goes on over bytes that are buffered; none at all means that the file has ended.
    fn take(&mut self, count: usize) -> Result<(), Damage> {
        if count == 0 {
            return Err(self.damage(Fault::Ends));
        }
        self.digest.update(&self.reader.buffer()[..count]);
        self.reader.consume(count);
        self.offset += count as u64;
        Ok(())
    }
}

/// For readers that know nothing of damage.
impl<R: Read> Read for Input<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let buffered = self.buffered().map_err(|damage| io::Error::other(damage.to_string()))?;
        let count = buffered.len().min(bytes.len());
        bytes[..count].copy_from_slice(&buffered[..count]);
        if count > 0 {
            self.take(count).map_err(|damage| io::Error::other(damage.to_string()))?;
        }
        Ok(count)
    }
}

impl Damage {
    /// Whether nothing is wrong but that the end is missing.
    pub fn is_cut(&self) -> bool {
        matches!(self.fault, Fault::Ends)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset, self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Ends => write!(f, "the file ends in the middle of something"),
            Fault::Io(error) => write!(f, "it cannot be read: {error}"),
            Fault::Unexpected { expected, found } => {
                write!(f, "{expected} is expected, and '{}' stands there", found.escape_ascii())
            }
            Fault::Invalid(what) => write!(f, "{what}"),
            Fault::UnknownType(kind) => {
                write!(f, "type {kind} is not known, so that nothing behind it can be read")
            }
            Fault::Checksum { expected, found } => {
                write!(f, "the checksum is {found:016x}, and should be {expected:016x}")
            }
            Fault::Json(error) => write!(f, "{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_and_without_their_ends() {
        let mut input = Input::new(b"one\r\n\nthree".as_slice());
        let mut line = Vec::new();
        let mut lines = Vec::new();
        while let Some(is_whole) = input.line(&mut line, 5).unwrap() {
            lines.push((String::from_utf8(line.clone()).unwrap(), is_whole));
        }
        assert_eq!(lines, [("one".to_owned(), true), (String::new(), true), ("three".to_owned(), false)]);
        assert_eq!(input.offset(), 11);
        let mut endless = Input::new(io::repeat(b'x'));
        assert!(matches!(endless.line(&mut line, 1 << 20).unwrap_err().fault, Fault::Invalid(_)));
        assert!(line.len() <= (1 << 20) + READ_BYTES);
    }

    #[test]
    fn a_length_that_the_file_does_not_have_takes_no_memory() {
        let mut input = Input::new(b"abc".as_slice());
        let mut bytes = Vec::new();
        let damage = input.append_to(&mut bytes, u64::MAX).unwrap_err();
        assert!(damage.is_cut() && damage.offset == 3, "{damage}");
        assert!(bytes.capacity() <= 2 * TRUSTED_BYTES as usize, "{}", bytes.capacity());
    }

    #[test]
    fn the_checksum_is_that_of_redis() {
        let mut input = Input::new(b"123456789".as_slice());
        input.skip(9).unwrap();
        assert_eq!(input.checksum(), 0xe9c6_d914_c4b8_d9ca); // The check value that Redis' own source names.
    }
}
