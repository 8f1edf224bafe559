//! A request: a row of the command table and argument slices that lie in somebody else's buffer.

use crate::command::Command;

/// Where one argument lies in the buffer of its request, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Span {
    /// The bytes of `buffer` that this span names.
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..][..self.len as usize]
    }
}

/// The language in which a client asks and is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The kvlite text protocol.
    Text,
    /// RESP2, as Redis speaks it before `HELLO 3`.
    Resp2,
    /// RESP3, after `HELLO 3`.
    Resp3,
}

/// One command with its arguments. Copying it copies no bytes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The row of the command table.
    pub command: &'static Command,
    /// The language of the client that asked.
    pub dialect: Dialect,
    buffer: &'a [u8],
    args: &'a [Span],
}

impl<'a> Request<'a> {
    /// A request whose arguments (the command's name is not among them) lie in `buffer`.
    pub fn new(command: &'static Command, dialect: Dialect, buffer: &'a [u8], args: &'a [Span]) -> Self {
        Request { command, dialect, buffer, args }
    }

    /// The subcommand that the first argument names, with the arguments behind it.
    #[must_use]
    pub fn subcommand(&self, row: &'static Command) -> Self {
        Request { command: row, args: &self.args[1..], ..*self }
    }

    /// The number of arguments, without the command's name.
    pub fn arg_count(&self) -> usize {
        self.args.len()
    }

    /// Argument `index`, counted from 0 behind the command's name. The arity of the row guards the index.
    pub fn arg(&self, index: usize) -> &'a [u8] {
        self.args[index].of(self.buffer)
    }

    /// All arguments in order.
    pub fn args(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let buffer = self.buffer;
        self.args.iter().map(move |span| span.of(buffer))
    }

    /// The arguments that are keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let keys = self.command.keys;
        let count = keys.end(self.args.len());
        let buffer = self.buffer;
        self.args[keys.first.min(count)..count].iter().step_by(keys.step.max(1)).map(move |s| s.of(buffer))
    }
}
