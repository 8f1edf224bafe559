//! Commands that read what some keys hold and then change others (`RENAME`, `BITOP`, `PFMERGE`, ...), as pure functions:
//! what the keys hold goes in, a reply and effects come out. One shard that owns all of the keys runs such a function
//! in one go. Where several own them, a transaction [fetches](crate::Shard::fetch) what they hold, calls the same
//! function, and has each shard [apply](crate::Shard::apply_effects) the effects on its own keys. This module knows no
//! shard.

use std::borrow::Cow;

use bytes::Bytes;

use crate::clock;
use crate::error::Error;
use crate::events::EventClasses;
use crate::reply::Reply;
use crate::request::Request;
use crate::room::has_room_for;

/// What a key holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Held<'a> {
    value: Value<'a>,
    /// When the key expires, which is not due yet; see [`clock`].
    pub deadline_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
enum Value<'a> {
    /// It lies in the shard.
    Borrowed(&'a [u8]),
    /// Its memory is counted.
    Shared(Cow<'a, Bytes>),
}

impl<'a> Held<'a> {
    /// A value that lies in the shard.
    pub(crate) fn borrowed(value: &'a [u8], deadline_ms: Option<u64>) -> Self {
        Held { value: Value::Borrowed(value), deadline_ms }
    }

    /// A value that is not copied to be kept.
    pub(crate) fn shared(value: &'a Bytes, deadline_ms: Option<u64>) -> Self {
        Held { value: Value::Shared(Cow::Borrowed(value)), deadline_ms }
    }

    /// The bytes of the value.
    pub fn value(&self) -> &[u8] {
        match &self.value {
            Value::Borrowed(value) => value,
            Value::Shared(value) => value,
        }
    }

    /// The value, free of the shard: counted where it is shared, else copied.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]: there is no memory for a copy.
    pub fn to_bytes(&self) -> Result<Bytes, Error> {
        match &self.value {
            Value::Borrowed(value) if !has_room_for(value.len()) => Err(Error::OutOfMemory),
            Value::Borrowed(value) => Ok(Bytes::copy_from_slice(value)),
            Value::Shared(value) => Ok(value.clone().into_owned()),
        }
    }

    /// The same, free of the shard.
    ///
    /// # Errors
    /// As [`Held::to_bytes`].
    pub fn to_owned(&self) -> Result<Held<'static>, Error> {
        Ok(Held { value: Value::Shared(Cow::Owned(self.to_bytes()?)), deadline_ms: self.deadline_ms })
    }
}

/// What is true for a command whatever its keys hold.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The server's time, in milliseconds.
    pub now_ms: u64,
    /// How far the wall clock is ahead of the server's time.
    pub wall_ahead_ms: i64,
    /// The longest value, in bytes.
    pub value_len_max: usize,
    /// How many databases there are.
    pub databases: u16,
}

impl Terms {
    /// Whether a value may have so many bytes.
    ///
    /// # Errors
    /// [`Error::ValueTooLarge`]
    pub(crate) fn check_value_len(&self, len: usize) -> Result<(), Error> {
        let limit = self.value_len_max;
        if len > limit { Err(Error::ValueTooLarge { limit }) } else { Ok(()) }
    }

    /// Whether a deadline has come.
    pub(crate) fn is_due(&self, deadline_ms: u64) -> bool {
        clock::due_ms(deadline_ms, self.wall_ahead_ms) <= self.now_ms
    }
}

/// What a command answers, and what it does to its keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Combined {
    /// The reply.
    pub reply: Reply<'static>,
    /// The effects, in their order.
    pub effects: Vec<Effect>,
}

impl From<Reply<'static>> for Combined {
    /// It does nothing but answer.
    fn from(reply: Reply<'static>) -> Self {
        Combined { reply, effects: Vec::new() }
    }
}

/// What happens to one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// The number of the key among the keys of the request.
    pub key: usize,
    /// What it holds then.
    pub outcome: Outcome,
    /// The event by which it is told of, and its class.
    pub event: (EventClasses, &'static str),
}

/// What a key holds from now on.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A value, until its deadline.
    Put(Bytes, Deadline),
    /// Nothing; the key need not have existed.
    Removed,
}

/// When a key expires that is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// As before; never, if there was no such key.
    Kept,
    /// Then, as [`clock`] has it; without a deadline as a key that is set without one.
    At(Option<u64>),
    /// Then, or never: where it has none, none is added as to a key that is set without one.
    Exactly(Option<u64>),
}

impl Effect {
    /// The key gets this value and deadline, as by a `SET`.
    pub fn put(key: usize, value: Bytes, deadline: Deadline) -> Self {
        Effect { key, outcome: Outcome::Put(value, deadline), event: (EventClasses::STRING, "set") }
    }

    /// How many bytes the key is to hold.
    pub fn put_bytes(&self) -> usize {
        match &self.outcome {
            Outcome::Put(value, _) => value.len(),
            Outcome::Removed => 0,
        }
    }

    /// The key is removed, if it exists, as by a `DEL`.
    pub fn remove(key: usize) -> Self {
        Effect { key, outcome: Outcome::Removed, event: (EventClasses::GENERIC, "del") }
    }

    /// The same, told of by another event.
    pub(crate) fn told_as(self, class: EventClasses, event: &'static str) -> Self {
        Effect { event: (class, event), ..self }
    }
}

/// Such a command: the request, and what each of its keys holds, in the order in which it names them. The table has
/// checked the number of arguments. It depends on nothing else.
pub(crate) type Combine = fn(&Request<'_>, &[Option<Held<'_>>], &Terms) -> Result<Combined, Error>;
