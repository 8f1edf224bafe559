//! A request: a row of the command table and argument slices that lie in the caller's buffer.

use bytes::Bytes;

use crate::command::spec::{Command, Flags};
use crate::databases::DATABASES_MAX;
use crate::error::Error;
use crate::integer;

/// From this length on a value is not copied from the memory of its request.
pub const SHARED_LEN_MIN: usize = 16 << 10;

/// A value keeps the memory of its request only if at most one byte in so many is not the value's.
const WASTED_PART_MAX: usize = 16;

/// Whether an argument is large, and nearly all that its memory holds.
fn deserves(memory: &Bytes, span: Span) -> bool {
    let len = span.len as usize;
    len >= SHARED_LEN_MIN && memory.len() - len <= memory.len() / WASTED_PART_MAX
}

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

/// One command with its arguments. Copying it copies no bytes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The row of the command table.
    pub command: &'static Command,
    /// The number of the database in which it runs; 0 unless its client has selected another.
    pub database: u16,
    buffer: &'a [u8],
    args: &'a [Span],
    /// The buffer, where the shard may share it.
    memory: Option<&'a Bytes>,
}

impl<'a> Request<'a> {
    /// A request whose arguments (the command's name is not among them) lie in `buffer`.
    pub fn new(command: &'static Command, buffer: &'a [u8], args: &'a [Span]) -> Self {
        Request { command, database: 0, buffer, args, memory: None }
    }

    /// As [`Request::new`], for arguments in a buffer that may be shared: a large value is then not copied.
    pub fn in_memory(command: &'static Command, memory: &'a Bytes, args: &'a [Span]) -> Self {
        Request { command, database: 0, buffer: memory, args, memory: Some(memory) }
    }

    /// The number of the database in which the key with this number is looked for, which is nearly always that of the
    /// request.
    #[inline]
    pub fn database_of_key(&self, number: usize) -> u16 {
        if self.command.has(Flags::NAMES_DATABASE) { self.named_database(number) } else { self.database }
    }

    /// The database that the last option `DB` names; the request's own where that is none, or for another key.
    #[cold]
    fn named_database(&self, number: usize) -> u16 {
        let (keys, _) = self.command.keys.range(self.args.len(), |at| self.arg(at));
        if number + 1 != keys.len() {
            return self.database;
        }
        let (mut named, mut options) = (None, self.args().skip(keys.end));
        while let Some(option) = options.next() {
            if option.eq_ignore_ascii_case(b"DB") {
                named = options.next();
            }
        }
        let number = named.and_then(integer::parse).and_then(|number| u16::try_from(number).ok());
        number.filter(|number| *number < DATABASES_MAX).unwrap_or(self.database)
    }

    /// The same request in another database.
    #[must_use]
    pub fn in_database(self, database: u16) -> Self {
        Request { database, ..self }
    }

    /// The buffer and the places of the arguments in it, if it may be shared and most of it is one large argument.
    pub fn memory(&self) -> Option<(&'a Bytes, &'a [Span])> {
        let memory = self.memory?;
        self.args.iter().any(|span| deserves(memory, *span)).then_some((memory, self.args))
    }

    /// A copy of the bytes from the first argument to the end of the last one, with what stands between them, and the
    /// places of the arguments in it: a million arguments are copied in a millisecond or two.
    pub fn to_parts(&self) -> (Vec<u8>, Vec<Span>) {
        let [first, .., last] = self.args else {
            let args = self.args.iter().map(|span| Span { start: 0, len: span.len }).collect();
            return (self.args().next().unwrap_or_default().to_vec(), args);
        };
        debug_assert!(self.args.is_sorted_by_key(|span| span.start), "arguments stand in their order");
        let copied = &self.buffer[first.start as usize..(last.start + last.len) as usize];
        let args = self.args.iter().map(|span| Span { start: span.start - first.start, ..*span });
        (copied.to_vec(), args.collect())
    }

    /// The subcommand that the first argument names, with the arguments behind it.
    #[must_use]
    pub fn subcommand(&self, row: &'static Command) -> Self {
        Request { command: row, args: &self.args[1..], ..*self }
    }

    /// The same command with a part of the arguments: at most `count` of them, from `first` on.
    #[must_use]
    pub fn args_from(&self, first: usize, count: usize) -> Self {
        let end = first.saturating_add(count).min(self.args.len());
        Request { args: &self.args[first..end], ..*self }
    }

    /// The number of arguments, without the command's name.
    pub fn arg_count(&self) -> usize {
        self.args.len()
    }

    /// Argument `index`, counted from 0 behind the command's name. The arity of the row guards the index.
    pub fn arg(&self, index: usize) -> &'a [u8] {
        self.args[index].of(self.buffer)
    }

    /// Argument `index` as a 64-bit signed decimal integer.
    ///
    /// # Errors
    /// [`Error::NotAnInteger`]
    pub(crate) fn integer(&self, index: usize) -> Result<i64, Error> {
        integer::parse(self.arg(index)).ok_or(Error::NotAnInteger)
    }

    /// The large argument that is nearly all that its memory holds, if there is one.
    #[inline]
    pub fn large_arg(&self) -> Option<Bytes> {
        self.memory?;
        (0..self.args.len()).find_map(|index| self.shared_arg(index))
    }

    /// Argument `index`, if it is large and nearly all that its memory holds, so that a value may keep that.
    #[inline]
    pub(crate) fn shared_arg(&self, index: usize) -> Option<Bytes> {
        let memory = self.memory?;
        let span = self.args[index];
        let start = span.start as usize;
        deserves(memory, span).then(|| memory.slice(start..start + span.len as usize))
    }

    /// Argument `index`, free of the request: shared if it is large and its memory can be kept, else copied.
    pub(crate) fn arg_bytes(&self, index: usize) -> Bytes {
        self.shared_arg(index).unwrap_or_else(|| Bytes::copy_from_slice(self.arg(index)))
    }

    /// All arguments in order.
    pub fn args(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let buffer = self.buffer;
        self.args.iter().map(move |span| span.of(buffer))
    }

    /// The arguments that are keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let (range, step) = self.command.keys.range(self.args.len(), |index| self.arg(index));
        let buffer = self.buffer;
        self.args[range].iter().step_by(step).map(move |span| span.of(buffer))
    }
}

/// A request that owns its arguments, or shares their memory.
#[derive(Clone, Debug)]
pub struct OwnedRequest {
    /// The row of the command table.
    pub command: &'static Command,
    database: u16,
    memory: Bytes,
    args: Vec<Span>,
}

impl OwnedRequest {
    /// Copies a request, unless it is one large argument whose memory can be shared.
    pub fn new(request: &Request<'_>) -> OwnedRequest {
        let Request { command, database, .. } = *request;
        if let Some((memory, args)) = request.memory() {
            return OwnedRequest { command, database, memory: memory.clone(), args: args.to_vec() };
        }
        let (buffer, args) = request.to_parts();
        OwnedRequest { command, database, memory: buffer.into(), args }
    }

    /// A request with these arguments in a database.
    pub fn of_args<'k>(
        command: &'static Command,
        database: u16,
        arguments: impl Iterator<Item = &'k [u8]>,
    ) -> OwnedRequest {
        let (mut buffer, mut args) = (Vec::new(), Vec::new());
        for arg in arguments {
            args.push(Span { start: buffer.len() as u32, len: arg.len() as u32 });
            buffer.extend_from_slice(arg);
        }
        OwnedRequest { command, database, memory: buffer.into(), args }
    }

    /// The same command with these of its keys, by their numbers in ascending order, and what belongs to them. The memory
    /// is shared.
    #[must_use]
    pub fn part(&self, keys: &[usize]) -> OwnedRequest {
        let spec = self.command.keys;
        let args = keys.iter().flat_map(|number| spec.part(*number)).map(|index| self.args[index]);
        OwnedRequest { args: args.collect(), memory: self.memory.clone(), ..*self }
    }

    /// About how much memory it takes, in bytes.
    pub fn size_bytes(&self) -> usize {
        size_of::<OwnedRequest>() + self.memory.len() + self.args.len() * size_of::<Span>()
    }

    /// The request.
    pub fn request(&self) -> Request<'_> {
        Request::in_memory(self.command, &self.memory, &self.args).in_database(self.database)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_same_arguments_whatever_stands_around_them() {
        let buffer = b"*4 $4 MGET $1 a $0  $3 bcd";
        let spans = [(14, 1), (19, 0), (23, 3)].map(|(start, len)| Span { start, len });
        for count in 0..=spans.len() {
            let command = crate::command::find(b"MGET").unwrap();
            let request = Request::new(command, buffer, &spans[..count]);
            let (copy, args) = request.to_parts();
            let copied = Request::new(command, &copy, &args);
            assert!(copied.args().eq(request.args()), "{count} arguments");
            assert!(copy.len() <= 12);
        }
    }
}
