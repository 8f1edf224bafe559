//! Append-only files of Redis: the commands in them, and which files a directory of them consists of.
//!
//! ```text
//! file     = [an RDB file] (command | "#" ... newline)*
//! command  = "*" <words> CRLF ("$" <bytes> CRLF <bytes> CRLF)*
//! manifest = ("file" <name> "seq" <number> "type" ("b" | "i" | "h") newline)*
//! ```

use std::io::Read;
use std::path::{Path, PathBuf};

use shard::Span;
use shard::command::find;

use super::input::{Damage, Fault, Input};
use crate::protocol::{BULK_BYTES_MAX, ELEMENTS_MAX, REQUEST_BYTES_MAX};

/// The longest line with a number, and the longest one with a comment.
const LINE_BYTES_MAX: usize = 1024;

/// The end of the name of a manifest.
pub const MANIFEST_END: &str = ".manifest";

/// One command: its name and its arguments, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Their bytes.
    pub buffer: Vec<u8>,
    /// Where each lies.
    pub words: Vec<Span>,
}

impl Command {
    /// Word `index`, the name being 0; empty where there are fewer.
    pub fn word(&self, index: usize) -> &[u8] {
        self.words.get(index).map_or(b"", |span| span.of(&self.buffer))
    }

    /// Whether it has this name.
    pub fn is(&self, name: &str) -> bool {
        self.word(0).eq_ignore_ascii_case(name.as_bytes())
    }

    /// The name in capitals, and as text whatever it holds.
    pub fn name(&self) -> String {
        self.word(0).to_ascii_uppercase().escape_ascii().to_string()
    }

    /// The keys that it may change. Of a command that is not known those are told by what Redis' commands have in
    /// common: the first argument is the key, with few exceptions.
    pub fn keys(&self) -> Vec<&[u8]> {
        let words = || (1..self.words.len()).map(|index| self.word(index));
        let name = self.word(0).to_ascii_uppercase();
        // Of these it changes the first key only.
        match &name[..] {
            b"BITOP" => return words().skip(1).take(1).collect(),
            b"PFMERGE" | b"PFCOUNT" => return words().take(1).collect(),
            _ => {}
        }
        if let Some(command) = find(&name) {
            let (range, step) =
                command.keys.range(self.words.len().saturating_sub(1), |index| self.word(index + 1));
            return range.step_by(step).map(|index| self.word(index + 1)).collect();
        }
        let counted = |index| shard::parse_integer(self.word(index)).and_then(|n| usize::try_from(n).ok());
        match &name[..] {
            b"EVAL" | b"EVALSHA" | b"FCALL" => words().skip(2).take(counted(2).unwrap_or(0)).collect(),
            b"FUNCTION" | b"SCRIPT" | b"PUBLISH" | b"SPUBLISH" => Vec::new(),
            b"XGROUP" => words().skip(1).take(1).collect(),
            b"SMOVE" | b"RPOPLPUSH" | b"BRPOPLPUSH" | b"LMOVE" | b"BLMOVE" => words().take(2).collect(),
            b"SORT" | b"GEORADIUS" | b"GEORADIUSBYMEMBER" => {
                let stores = |word: &&[u8]| {
                    word.eq_ignore_ascii_case(b"STORE") || word.eq_ignore_ascii_case(b"STOREDIST")
                };
                words().skip_while(|word| !stores(word)).skip(1).take(1).collect()
            }
            _ => words().take(1).collect(),
        }
    }

    /// Reads the next command; `false` at the end of the file.
    ///
    /// # Errors
    /// [`Damage`]: at the first byte of the command if the file ends in it.
    pub fn read<R: Read>(&mut self, input: &mut Input<R>) -> Result<bool, Damage> {
        self.buffer.clear();
        self.words.clear();
        while input.peek()? == Some(b'#') {
            let mut comment = Vec::new();
            input.line(&mut comment, LINE_BYTES_MAX)?;
        }
        if input.peek()?.is_none() {
            return Ok(false);
        }
        let start = input.offset();
        let from_start = |damage: Damage| match damage.is_cut() {
            true => Damage { offset: start, ..damage },
            false => damage,
        };
        let words =
            number(input, b'*', "the count of a command's words (*)", ELEMENTS_MAX).map_err(from_start)?;
        for _ in 0..words {
            self.read_word(input).map_err(from_start)?;
        }
        Ok(true)
    }

    fn read_word<R: Read>(&mut self, input: &mut Input<R>) -> Result<(), Damage> {
        let len = number(input, b'$', "the length of a word ($)", BULK_BYTES_MAX)?;
        if self.buffer.len() + len > REQUEST_BYTES_MAX {
            return Err(input.damage(Fault::Invalid("the command is longer than 1 GiB")));
        }
        self.words.push(Span { start: self.buffer.len() as u32, len: len as u32 });
        input.append_to(&mut self.buffer, len as u64)?;
        for end in [b'\r', b'\n'] {
            expect(input, end, "the end of a word")?;
        }
        Ok(())
    }
}

fn expect<R: Read>(input: &mut Input<R>, byte: u8, expected: &'static str) -> Result<(), Damage> {
    let offset = input.offset();
    match input.byte()? {
        found if found == byte => Ok(()),
        found => Err(Damage { offset, fault: Fault::Unexpected { expected, found } }),
    }
}

/// A line of a marker and a number of at most `max`.
fn number<R: Read>(
    input: &mut Input<R>,
    marker: u8,
    expected: &'static str,
    max: usize,
) -> Result<usize, Damage> {
    expect(input, marker, expected)?;
    let offset = input.offset();
    let invalid = Damage { offset, fault: Fault::Invalid("no number, or too great a one, stands here") };
    let mut digits = Vec::new();
    loop {
        match input.byte()? {
            b'\r' => break,
            digit if digits.len() < LINE_BYTES_MAX => digits.push(digit),
            _ => return Err(invalid),
        }
    }
    expect(input, b'\n', "the end of a line")?;
    let number = shard::parse_integer(&digits).and_then(|number| usize::try_from(number).ok());
    number.filter(|number| *number <= max).ok_or(invalid)
}

/// The files that a manifest names, in the order in which they are read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// What was there when the first of the others began.
    pub base: Option<PathBuf>,
    /// The commands since then.
    pub increments: Vec<PathBuf>,
}

/// What a manifest says; a line that says nothing known is an error, and so is none at all.
pub fn manifest_files(manifest: &Path, text: &str) -> Result<Files, String> {
    let (mut base, mut increments) = (None, Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let unclear = || format!("the line {line:?} is not understood");
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let ["file", name, "seq", seq, "type", kind, ..] = words[..] else { return Err(unclear()) };
        let seq: u64 = seq.parse().map_err(|_| unclear())?;
        // A name with a directory in it would be none of Redis'.
        let path = manifest.with_file_name(Path::new(name).file_name().ok_or_else(unclear)?);
        match kind {
            "b" => base = Some(path),
            "i" => increments.push((seq, path)),
            "h" => {} // Replaced by the base, and about to be removed.
            _ => return Err(unclear()),
        }
    }
    if base.is_none() && increments.is_empty() {
        return Err("it names no file".to_owned());
    }
    increments.sort();
    Ok(Files { base, increments: increments.into_iter().map(|(_, path)| path).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Vec<String>, Option<Damage>) {
        let mut input = Input::new(bytes);
        let (mut commands, mut command) = (Vec::new(), Command::default());
        loop {
            match command.read(&mut input) {
                Ok(true) => {
                    let words = (0..command.words.len()).map(|index| command.word(index));
                    let words: Vec<String> = words.map(|word| word.escape_ascii().to_string()).collect();
                    commands.push(words.join(" "));
                }
                Ok(false) => return (commands, None),
                Err(damage) => return (commands, Some(damage)),
            }
        }
    }

    const FILE: &[u8] = b"*1\r\n$5\r\nMULTI\r\n#TS:1700000000\r\n*2\r\n$3\r\nDEL\r\n$2\r\n\r\n\r\n";

    #[test]
    fn commands_and_comments() {
        let (commands, damage) = read(FILE);
        assert_eq!((commands, damage.is_none()), (vec!["MULTI".to_owned(), "DEL \\r\\n".to_owned()], true));
    }

    #[test]
    fn a_file_that_is_cut_ends_before_the_command_that_is() {
        for len in 1..FILE.len() {
            let (commands, damage) = read(&FILE[..len]);
            let whole = if len < 15 { 0 } else { 1 };
            assert_eq!(commands.len(), whole, "{len}");
            if let Some(damage) = damage {
                assert!(damage.is_cut(), "{len}: {damage}");
                assert_eq!(damage.offset, if len < 15 { 0 } else { 31 }, "{len}");
            } else {
                assert!((15..=31).contains(&len), "{len}");
            }
        }
    }

    #[test]
    fn damage_is_told_with_its_place() {
        for (bytes, offset) in [
            (b"*1\r\n:5\r\n".as_slice(), 4),
            (b"*x\r\n", 1),
            (b"*1\r\n$-1\r\n", 5),
            (b"*1\r\n$99999999999\r\n", 5),
            (b"*1\r\n$1\r\nab\r\n", 9),
            (b"PING\r\n", 0),
        ] {
            let damage = read(bytes).1.unwrap();
            assert!(!damage.is_cut() && damage.offset == offset, "{bytes:?}: {damage}");
        }
    }

    #[test]
    fn the_base_comes_before_the_increments_and_history_is_none() {
        let text = "file a.2.base.rdb seq 2 type b\nfile a.3.incr.aof seq 3 type i\n\
            file a.1.base.rdb seq 1 type h\nfile a.2.incr.aof seq 2 type i startoffset 0\n";
        let files = manifest_files(Path::new("/d/a.manifest"), text).unwrap();
        assert_eq!(files.base, Some("/d/a.2.base.rdb".into()));
        assert_eq!(files.increments, ["/d/a.2.incr.aof", "/d/a.3.incr.aof"].map(PathBuf::from));
        assert!(manifest_files(Path::new("m"), "").is_err());
        assert!(manifest_files(Path::new("m"), "file a seq 1 type z\n").is_err());
        assert!(manifest_files(Path::new("m"), "nonsense\n").is_err());
    }
}
