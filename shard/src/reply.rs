//! What a command answers. Each protocol renders these values; none of them knows a protocol.

use std::borrow::Cow;

use bytes::Bytes;

use crate::error::Error;

/// The answer to one request. It may borrow the value it shows from the shard.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply<'a> {
    /// Done, nothing to show.
    Ok,
    /// A fixed short text, such as `PONG`.
    Simple(&'static str),
    /// A short text that is not known before, as a script makes one. It has no line ends.
    Status(Cow<'a, [u8]>),
    /// A number.
    Integer(i64),
    /// A yes or no that RESP2 and the text protocol show as 1 or 0, RESP3 as a boolean.
    Bool(bool),
    /// A number with a fraction, in its digits. RESP2 has no such kind and shows a value.
    Double(String),
    /// An integer of any size, in its digits. RESP2 has no such kind and shows a value.
    BigNumber(Cow<'a, [u8]>),
    /// A value: any bytes.
    Bulk(Cow<'a, [u8]>),
    /// A large value, as [`Reply::Bulk`]; its memory is counted, and lives for as long as a reader keeps it.
    Shared(Cow<'a, Bytes>),
    /// No such value.
    Nil,
    /// No such list, where RESP2 tells that from a missing value.
    NilArray,
    /// An ordered list.
    Array(Vec<Reply<'a>>),
    /// Things without an order, each once; RESP2 and the text protocol show a list.
    Set(Vec<Reply<'a>>),
    /// A message that answers no request: its kind, then what belongs to that. RESP2 and the text protocol show a list.
    Push(Vec<Reply<'a>>),
    /// Named fields in order; RESP2 flattens them.
    Map(Vec<(Cow<'static, str>, Reply<'a>)>),
    /// Pairs of any two things, in order; RESP2 flattens them.
    Pairs(Vec<(Reply<'a>, Reply<'a>)>),
    /// A line of help for people, without a line end. The text protocol shows it as it stands.
    Line(Cow<'static, str>),
    /// A text for people, such as `INFO`; RESP3 marks it as verbatim.
    Text(String),
    /// The same in a format of three letters, and of any bytes.
    Verbatim([u8; 3], Cow<'a, [u8]>),
    /// The request was refused.
    Error(Error),
}

impl<'a> Reply<'a> {
    /// A value that lies in the shard.
    pub fn bytes(bytes: &'a [u8]) -> Self {
        Reply::Bulk(Cow::Borrowed(bytes))
    }

    /// A length or a number of things.
    pub fn count(count: usize) -> Self {
        Reply::Integer(i64::try_from(count).expect("nothing in memory is counted past 2^63"))
    }

    /// The length of a value, in bytes; 0 of any other reply.
    pub fn value_len(&self) -> usize {
        match self {
            Reply::Bulk(bytes) => bytes.len(),
            Reply::Shared(bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// 1 or 0, as Redis answers yes and no in RESP2 and RESP3 alike.
    pub fn one_or_zero(yes: bool) -> Self {
        Reply::Integer(i64::from(yes))
    }

    /// The same reply with its own copy of every value, or its count of a shared one, free of the shard.
    pub fn into_owned(self) -> Reply<'static> {
        match self {
            Reply::Ok => Reply::Ok,
            Reply::Simple(text) => Reply::Simple(text),
            Reply::Status(text) => Reply::Status(Cow::Owned(text.into_owned())),
            Reply::Integer(n) => Reply::Integer(n),
            Reply::Bool(yes) => Reply::Bool(yes),
            Reply::Double(digits) => Reply::Double(digits),
            Reply::BigNumber(digits) => Reply::BigNumber(Cow::Owned(digits.into_owned())),
            Reply::Bulk(bytes) => Reply::Bulk(Cow::Owned(bytes.into_owned())),
            Reply::Shared(bytes) => Reply::Shared(Cow::Owned(bytes.into_owned())),
            Reply::Nil => Reply::Nil,
            Reply::NilArray => Reply::NilArray,
            Reply::Array(items) => Reply::Array(items.into_iter().map(Reply::into_owned).collect()),
            Reply::Set(items) => Reply::Set(items.into_iter().map(Reply::into_owned).collect()),
            Reply::Push(items) => Reply::Push(items.into_iter().map(Reply::into_owned).collect()),
            Reply::Map(fields) => Reply::Map(fields.into_iter().map(|(k, v)| (k, v.into_owned())).collect()),
            Reply::Pairs(pairs) => {
                Reply::Pairs(pairs.into_iter().map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
            }
            Reply::Line(line) => Reply::Line(line),
            Reply::Text(text) => Reply::Text(text),
            Reply::Verbatim(format, text) => Reply::Verbatim(format, Cow::Owned(text.into_owned())),
            Reply::Error(error) => Reply::Error(error),
        }
    }
}

impl From<Error> for Reply<'_> {
    fn from(error: Error) -> Self {
        Reply::Error(error)
    }
}

impl<'a> From<Result<Reply<'a>, Error>> for Reply<'a> {
    fn from(result: Result<Reply<'a>, Error>) -> Self {
        result.unwrap_or_else(Reply::Error)
    }
}
