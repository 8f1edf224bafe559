//! Replies, as far as a load generator needs to know them: where each ends, and whether it is an error. It
//! keeps no value, however large, only the bytes of a line that has not ended yet.

use std::fmt;

use super::options::Protocol;

/// The longest line of a reply.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// What stands in front of a line that is quoted in an error.
const QUOTED_BYTES_MAX: usize = 80;

/// What one reply said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// It was done, or here is the value.
    Done,
    /// There is no such key; among several keys, one of them does not exist.
    Missing,
    /// An error; its text.
    Error(&'a [u8]),
}

/// Bytes that are no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A line begins with a byte or holds a length that no reply has; its first bytes.
    Line(Vec<u8>),
    /// A line does not end.
    EndlessLine,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Line(line) => write!(f, "'{}' is no reply", line.escape_ascii()),
            Malformed::EndlessLine => write!(f, "a line of a reply has more than {LINE_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Finds the replies in the bytes of one connection, which may be cut anywhere. In the text protocol each
/// line counts as a reply: how many belong to one request is for the caller to know.
#[derive(Debug)]
pub struct ReplyReader {
    protocol: Protocol,
    /// A line that has not ended yet.
    line: Vec<u8>,
    /// Bytes of a value, with its line end, that are still to come.
    skip: u64,
    /// Items of the reply that are still to come; 0 between replies.
    items_left: u64,
    missing: bool,
}

impl ReplyReader {
    /// A reader at the beginning of a reply.
    pub fn new(protocol: Protocol) -> ReplyReader {
        ReplyReader { protocol, line: Vec::new(), skip: 0, items_left: 0, missing: false }
    }

    /// Takes in the next bytes, and calls `on_reply` for each reply that ends in them.
    ///
    /// # Errors
    /// The bytes are no replies; nothing more can be made out behind them.
    pub fn read(&mut self, mut bytes: &[u8], mut on_reply: impl FnMut(Answer<'_>)) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let count = self.skip.min(bytes.len() as u64);
                bytes = &bytes[count as usize..];
                self.skip -= count;
                if self.skip == 0 {
                    self.end_item(&mut on_reply);
                }
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                self.line.extend_from_slice(bytes);
                let is_bounded = self.line.len() <= LINE_BYTES_MAX;
                return if is_bounded { Ok(()) } else { Err(Malformed::EndlessLine) };
            };
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.line.is_empty() {
                self.read_line(line, &mut on_reply)?;
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.read_line(&whole, &mut on_reply)?;
                whole.clear();
                self.line = whole;
            }
        }
        Ok(())
    }

    fn read_line(&mut self, line: &[u8], on_reply: &mut impl FnMut(Answer<'_>)) -> Result<(), Malformed> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.protocol {
            Protocol::Resp => self.read_resp_line(line, on_reply),
            Protocol::Text => {
                on_reply(match line {
                    b"(nil)" | b"-ERR key not found" => Answer::Missing,
                    [b'-', b'E', b'R', b'R', ..] => Answer::Error(line),
                    _ => Answer::Done,
                });
                Ok(())
            }
            Protocol::Memcached => self.read_memcached_line(line, on_reply),
        }
    }

    /// Of several keys, memcached returns those that exist.
    fn read_memcached_line(
        &mut self,
        line: &[u8],
        on_reply: &mut impl FnMut(Answer<'_>),
    ) -> Result<(), Malformed> {
        let answer = match line {
            [b'V', b'A', b'L', b'U', b'E', b' ', words @ ..] => {
                let length = words.split(|byte| *byte == b' ').nth(2).and_then(number);
                self.skip = length.ok_or_else(|| malformed(line))? + "\r\n".len() as u64;
                self.items_left = 2; // The value and END, or a further value.
                return Ok(());
            }
            b"END" if self.items_left == 0 => Answer::Missing,
            b"END" | b"STORED" => Answer::Done,
            _ if line.ends_with(b"ERROR") || line.windows(7).any(|part| part == b"_ERROR ") => {
                Answer::Error(line)
            }
            _ => return Err(malformed(line)),
        };
        self.items_left = 0;
        on_reply(answer);
        Ok(())
    }

    fn read_resp_line(
        &mut self,
        line: &[u8],
        on_reply: &mut impl FnMut(Answer<'_>),
    ) -> Result<(), Malformed> {
        let is_whole_reply = self.items_left == 0;
        self.items_left = self.items_left.max(1);
        match line {
            [b'+' | b':' | b',' | b'#' | b'(', ..] => self.end_item(on_reply),
            [b'-', ..] if is_whole_reply => {
                self.items_left = 0;
                on_reply(Answer::Error(line));
            }
            [b'-', ..] => self.end_item(on_reply),
            [b'_'] | b"$-1" | b"*-1" => {
                self.missing = true;
                self.end_item(on_reply);
            }
            [b'$' | b'=' | b'!', length @ ..] => {
                self.skip = number(length).ok_or_else(|| malformed(line))? + "\r\n".len() as u64;
            }
            [kind @ (b'*' | b'~' | b'>' | b'%'), count @ ..] => {
                let items = number(count).ok_or_else(|| malformed(line))?;
                self.items_left += if *kind == b'%' { 2 * items } else { items };
                self.end_item(on_reply);
            }
            _ => return Err(malformed(line)),
        }
        Ok(())
    }

    fn end_item(&mut self, on_reply: &mut impl FnMut(Answer<'_>)) {
        self.items_left -= 1;
        if self.items_left == 0 {
            on_reply(if std::mem::take(&mut self.missing) { Answer::Missing } else { Answer::Done });
        }
    }
}

/// A length, or a number of items. At most ten digits: no reply is as large as that.
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = (1..=10).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

fn malformed(line: &[u8]) -> Malformed {
    Malformed::Line(line[..line.len().min(QUOTED_BYTES_MAX)].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers in `bytes` when they arrive in pieces of `step` bytes.
    fn answers(protocol: Protocol, bytes: &[u8], step: usize) -> Result<Vec<String>, Malformed> {
        let mut reader = ReplyReader::new(protocol);
        let mut answers = Vec::new();
        for piece in bytes.chunks(step) {
            reader.read(piece, |answer| {
                answers.push(match answer {
                    Answer::Error(text) => String::from_utf8_lossy(text).into_owned(),
                    other => format!("{other:?}"),
                });
            })?;
        }
        Ok(answers)
    }

    #[test]
    fn every_form_of_a_resp_reply_is_one_reply_wherever_it_is_cut() {
        let bytes = b"+OK\r\n:12\r\n$-1\r\n$5\r\n+O\r\nK\r\n-ERR no\r\n$0\r\n\r\n*2\r\n$1\r\na\r\n$-1\r\n\
            *2\r\n*1\r\n:1\r\n%1\r\n+k\r\n#t\r\n*0\r\n_\r\n*2\r\n-ERR in\r\n:1\r\n,1.5\r\n";
        let expected = [
            "Done", "Done", "Missing", "Done", "-ERR no", "Done", "Missing", "Done", "Done", "Missing",
            "Done", "Done",
        ];
        for step in 1..bytes.len() {
            assert_eq!(answers(Protocol::Resp, bytes, step).unwrap(), expected, "in pieces of {step}");
        }
    }

    #[test]
    fn every_line_of_text_is_a_reply() {
        let bytes = b"+OK\nvalue\n(nil)\n-ERR key not found\n-ERR value is not an integer\n12\n";
        let expected = ["Done", "Done", "Missing", "Missing", "-ERR value is not an integer", "Done"];
        for step in 1..bytes.len() {
            assert_eq!(answers(Protocol::Text, bytes, step).unwrap(), expected, "in pieces of {step}");
        }
    }

    #[test]
    fn values_of_memcached_end_with_end() {
        let bytes =
            b"VALUE key:1 0 5\r\nEND\r\n\r\nEND\r\nEND\r\nSTORED\r\nVALUE a 0 0\r\n\r\nVALUE b 0 1\r\n\
            b\r\nEND\r\nERROR\r\nSERVER_ERROR out of memory\r\n";
        let expected = ["Done", "Missing", "Done", "Done", "ERROR", "SERVER_ERROR out of memory"];
        for step in 1..bytes.len() {
            assert_eq!(answers(Protocol::Memcached, bytes, step).unwrap(), expected, "in pieces of {step}");
        }
        let refused = answers(Protocol::Memcached, b"+PONG\r\n", 9).unwrap_err();
        assert_eq!(refused, Malformed::Line(b"+PONG".to_vec()));
    }

    #[test]
    fn what_is_no_reply_is_refused_with_its_beginning() {
        let refused = |bytes: &[u8]| answers(Protocol::Resp, bytes, 7).unwrap_err();
        assert_eq!(refused(b"HTTP/1.1 400\r\n"), Malformed::Line(b"HTTP/1.1 400".to_vec()));
        assert_eq!(refused(b"$-2\r\n"), Malformed::Line(b"$-2".to_vec()));
        assert_eq!(refused(b"*99999999999\r\n"), Malformed::Line(b"*99999999999".to_vec()));
        assert_eq!(refused(b"\r\n"), Malformed::Line(Vec::new()));
        assert_eq!(refused(&[b'x'; LINE_BYTES_MAX + 1]), Malformed::EndlessLine);
    }
}
