//! The errors that clients were answered, by their kind and by their command.
//!
//! They are rendered in many places, some of which know no worker: each thread counts its own, and a worker is a thread.
//! An error is counted by the worker of its client, as it is rendered: one that is never told is not counted, and none is
//! counted twice.

use std::cell::RefCell;

use shard::{Command, Error, command};

/// The kinds of errors: the first words of their texts, as Redis has them.
pub const KINDS: [&str; 15] = [
    "BUSY",
    "BUSYKEY",
    "ERR",
    "EXECABORT",
    "INVALIDOBJ",
    "LOADING",
    "MISCONF",
    "NOPROTO",
    "NOSCRIPT",
    "NOTBUSY",
    "OOM",
    "UNBLOCKED",
    "UNKILLABLE",
    "WRONGPASS",
    "WRONGTYPE",
];

/// The errors that a thread has answered.
#[derive(Clone, Debug)]
pub struct Errors {
    /// By kind, in the order of [`KINDS`].
    pub kinds: [u64; KINDS.len()],
    /// Requests that were refused before they ran, by the index of their command's row.
    rejected: Box<[u64]>,
    /// Requests that ran, in vain.
    failed: Box<[u64]>,
}

thread_local! {
    static ANSWERED: RefCell<Errors> = RefCell::default();
}

impl Default for Errors {
    fn default() -> Errors {
        let none = || vec![0; command::rows().len()].into();
        Errors { kinds: [0; KINDS.len()], rejected: none(), failed: none() }
    }
}

/// The kind of an error.
pub fn kind(error: &Error) -> &'static str {
    match error {
        Error::BusyKey => "BUSYKEY",
        Error::CorruptHyperloglog => "INVALIDOBJ",
        Error::NotAHyperloglog => "WRONGTYPE",
        Error::ExecAborted | Error::ExecAbortedBy(_) => "EXECABORT",
        Error::Loading { .. } => "LOADING",
        Error::WritesRefused { .. } | Error::NotOnDisk { .. } => "MISCONF",
        Error::NoProtocol => "NOPROTO",
        Error::NoScript => "NOSCRIPT",
        Error::NotBusy => "NOTBUSY",
        Error::Busy { .. } => "BUSY",
        Error::Unkillable => "UNKILLABLE",
        Error::OfScript(text) => {
            let word = text.split(|byte| *byte == b' ').next().unwrap_or_default();
            KINDS.into_iter().find(|kind| kind.as_bytes() == word).unwrap_or("ERR")
        }
        Error::OutOfMemory => "OOM",
        Error::Unblocked => "UNBLOCKED",
        Error::WrongPassword => "WRONGPASS",
        _ => "ERR",
    }
}

/// Counts an error of this kind that a client is answered.
pub fn note_kind(kind: &str) {
    let kind = KINDS.iter().position(|it| *it == kind).expect("every kind has a name");
    ANSWERED.with_borrow_mut(|answered| answered.kinds[kind] += 1);
}

/// Counts a request of this command that is refused before it runs; only the code that refuses it knows that.
pub fn note_rejected(command: &Command) {
    ANSWERED.with_borrow_mut(|answered| answered.rejected[command.index()] += 1);
}

/// Counts a request of this command that ran, or may have run, and is answered with an error.
pub fn note_failed(command: &Command) {
    ANSWERED.with_borrow_mut(|answered| answered.failed[command.index()] += 1);
}

/// What this thread has counted.
pub fn answered() -> Errors {
    ANSWERED.with_borrow(Errors::clone)
}

impl Errors {
    /// Takes away what was counted up to then.
    pub fn subtract(&mut self, earlier: &Errors) {
        let take = |counts: &mut [u64], earlier: &[u64]| {
            counts.iter_mut().zip(earlier).for_each(|(now, then)| *now = now.saturating_sub(*then));
        };
        take(&mut self.kinds, &earlier.kinds);
        take(&mut self.rejected, &earlier.rejected);
        take(&mut self.failed, &earlier.failed);
    }

    /// How many requests of a command were refused before they ran, and how many ran in vain.
    pub fn of(&self, command: &Command) -> (u64, u64) {
        (self.rejected[command.index()], self.failed[command.index()])
    }
}

impl std::ops::AddAssign<&Errors> for Errors {
    fn add_assign(&mut self, other: &Errors) {
        let add = |sums: &mut [u64], counts: &[u64]| {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        };
        add(&mut self.kinds, &other.kinds);
        add(&mut self.rejected, &other.rejected);
        add(&mut self.failed, &other.failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_kind_and_by_whether_the_command_ran() {
        let get = command::find(b"GET").unwrap();
        let before = answered();
        for error in [Error::Loading { percent: 1 }, Error::NotAnInteger] {
            note_kind(kind(&error));
        }
        note_rejected(get);
        (0..2).for_each(|_| note_failed(get));
        let after = answered();
        assert_eq!(after.of(get), (before.of(get).0 + 1, before.of(get).1 + 2));
        assert_eq!(after.kinds.iter().sum::<u64>(), before.kinds.iter().sum::<u64>() + 2);
    }
}
