//! What an import has done, and what it has not: counted, and told on standard error.

use std::collections::BTreeMap;
use std::fmt;

use crate::progress::Progress;

use super::input::{Damage, Fault};
use super::rdb::Type;

/// So much that could not be read is named one by one without `--list`.
const NAMED_MAX: u64 = 20;

/// Something that the file holds and the target does not get.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// A key whose value is no string.
    Type(Type),
    /// A library of functions.
    Functions,
    /// A key of a database other than the one that is imported.
    Database(u64),
    /// A key that was changed by a command that is not known here, or such a command that names no key.
    Command(String),
    /// A command that is known and could not be run.
    Refused(String),
    /// A line that is no record.
    Line,
    /// A removal of a key that the file does not hold.
    Removal,
    /// A key that the server has already.
    Existing,
    /// A key or a value that is longer than a client may send.
    TooLong,
    /// A transaction without its end.
    CutTransaction,
    /// What is behind a place at which the file is damaged or cut.
    Rest,
    /// Nothing, but the sum of the file says that something in it is wrong.
    Sum,
}

/// What has become of everything in a file.
pub struct Report<'a> {
    /// Keys that the target has now.
    pub imported: u64,
    /// Those of them that expire.
    pub with_ttl: u64,
    /// Keys whose deadline had passed.
    pub expired: u64,
    left_out: BTreeMap<LeftOut, u64>,
    lists: bool,
    named: u64,
    progress: &'a Progress,
}

impl<'a> Report<'a> {
    /// Nothing yet. `lists`: everything that is left out is named on standard error.
    pub fn new(lists: bool, progress: &'a Progress) -> Report<'a> {
        let left_out = BTreeMap::new();
        Report { imported: 0, with_ttl: 0, expired: 0, left_out, lists, named: 0, progress }
    }

    /// Counts a key that the target has now.
    pub fn add(&mut self, has_ttl: bool) {
        self.imported += 1;
        self.with_ttl += u64::from(has_ttl);
    }

    /// Counts something that is left out, which `--list` names.
    pub fn leave_out(&mut self, what: LeftOut, name: impl FnOnce() -> String) {
        if self.lists {
            self.progress.tell(&format!("not taken: {}: {}", what.named(1), name()));
        }
        *self.left_out.entry(what).or_default() += 1;
    }

    /// Counts something that could not be read; the first of it is named in any case.
    pub fn fail_to_read(&mut self, what: LeftOut, why: &dyn fmt::Display) {
        self.named += 1;
        if self.lists || self.named <= NAMED_MAX {
            self.progress.tell(&format!("not taken: {why}"));
        } else if self.named == NAMED_MAX + 1 {
            self.progress.tell("not taken: more, which --list names");
        }
        *self.left_out.entry(what).or_default() += 1;
    }

    /// Whether the target has everything.
    pub fn is_complete(&self) -> bool {
        self.left_out.is_empty()
    }

    /// What is done, in a sentence.
    pub fn summary(&self, is_rehearsal: bool) -> String {
        let done = if is_rehearsal { "would import" } else { "imported" };
        let keys = counted(self.imported, "key", "keys");
        let mut text =
            format!("{done} {keys} ({} with a TTL), {} expired", digits(self.with_ttl), digits(self.expired));
        let parts: Vec<String> = self.left_out.iter().map(|(what, count)| what.named(*count)).collect();
        if !parts.is_empty() {
            text.push_str(", not taken: ");
            text.push_str(&parts.join(", "));
        }
        text
    }
}

impl LeftOut {
    /// What is not taken after this damage.
    pub fn behind(damage: &Damage) -> LeftOut {
        if matches!(damage.fault, Fault::Checksum { .. }) { LeftOut::Sum } else { LeftOut::Rest }
    }

    fn named(&self, count: u64) -> String {
        match self {
            LeftOut::Type(Type::Hash) => counted(count, "hash", "hashes"),
            LeftOut::Type(Type::List) => counted(count, "list", "lists"),
            LeftOut::Type(Type::Module) => counted(count, "module value", "module values"),
            LeftOut::Type(Type::Set) => counted(count, "set", "sets"),
            LeftOut::Type(Type::SortedSet) => counted(count, "sorted set", "sorted sets"),
            LeftOut::Type(Type::Stream) => counted(count, "stream", "streams"),
            LeftOut::Functions => counted(count, "function library", "function libraries"),
            LeftOut::Database(u64::MAX) => {
                let what = counted(count, "key", "keys");
                format!("{what} of databases whose number is none")
            }
            LeftOut::Database(db) => {
                let what = counted(count, "key", "keys");
                format!("{what} of database {db} (--db {db} takes them alone)")
            }
            LeftOut::Command(name) => format!("{} {name}", digits(count)),
            LeftOut::Refused(name) => format!("{} {name} that failed", digits(count)),
            LeftOut::Line => counted(count, "line", "lines"),
            LeftOut::Removal => {
                let what = counted(count, "removal of a key", "removals of keys");
                format!("{what} that the file does not hold")
            }
            LeftOut::Existing => {
                let what = counted(count, "key that exists", "keys that exist");
                format!("{what} (--replace takes them)")
            }
            LeftOut::TooLong => counted(count, "key that is too long", "keys that are too long"),
            LeftOut::CutTransaction => counted(count, "transaction that is cut", "transactions that are cut"),
            LeftOut::Rest => "what is behind the damage".to_owned(),
            LeftOut::Sum => "nothing, but any key may be wrong: the checksum does not say where".to_owned(),
        }
    }
}

fn counted(count: u64, one: &str, several: &str) -> String {
    format!("{} {}", digits(count), if count == 1 { one } else { several })
}

/// A number with a comma before each three of its digits.
fn digits(number: u64) -> String {
    let text = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in text.chars().enumerate() {
        if index > 0 && (text.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_everything() {
        let progress = Progress::new();
        let mut report = Report::new(false, &progress);
        assert_eq!(report.summary(true), "would import 0 keys (0 with a TTL), 0 expired");
        assert!(report.is_complete());
        (0..1234).for_each(|index| report.add(index < 56));
        report.expired = 7;
        (0..3).for_each(|_| report.leave_out(LeftOut::Type(Type::Hash), String::new));
        report.leave_out(LeftOut::Type(Type::Stream), String::new);
        report.leave_out(LeftOut::Command("HSET".to_owned()), String::new);
        assert!(!report.is_complete());
        assert_eq!(
            report.summary(false),
            "imported 1,234 keys (56 with a TTL), 7 expired, not taken: 3 hashes, 1 stream, 1 HSET"
        );
        assert_eq!([0, 12, 999, 1000, 1_234_567].map(digits), ["0", "12", "999", "1,000", "1,234,567"]);
    }
}
