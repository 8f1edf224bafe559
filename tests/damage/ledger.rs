//! What a client has written, command by command, and whether what a server holds can be what is left of it.
//!
//! The client sends one command after the other. Each is a step: after step `n` every key has a value that follows from
//! the commands up to there. What survives on a shard has to be its state after some step, never older than what is
//! safe, and of what one command wrote on several shards all or nothing.

use std::collections::BTreeMap;

use kvlite::slots;

use crate::random::Random;

/// Keys that are written on their own, again and again.
const SINGLES: u64 = 40;

/// Keys that are only written together, in groups.
const GROUPS: u64 = 6;
const MEMBERS: u64 = 4;

/// The bytes that a usual value, or what is appended to it, has at most.
const VALUE_BYTES_MAX: u64 = 1200;

/// A value of this size goes its own way through a log.
const LARGE_VALUE_BYTES: u64 = 140_000;

/// Keys and their values.
pub type State = BTreeMap<String, Vec<u8>>;

/// A value that a key has had, and the step that gave it; `None` for a removed key.
type Change = (usize, Option<Vec<u8>>);

/// The commands of a client, and what they leave.
#[derive(Clone, Default)]
pub struct Ledger {
    steps: usize,
    keys: BTreeMap<String, Vec<Change>>,
}

impl Ledger {
    /// The number of steps so far.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Every key that was ever written.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// The state after the last step.
    pub fn state(&self) -> State {
        let last = |(key, _): (&String, _)| Some((key.clone(), self.last(key)?.clone()));
        self.keys.iter().filter_map(last).collect()
    }

    /// The arguments of the next command; its step counts as sent.
    pub fn command(&mut self, random: &mut Random) -> Vec<Vec<u8>> {
        self.steps += 1;
        let step = self.steps;
        let single = format!("single-{}", random.below(SINGLES));
        match random.below(100) {
            0..40 => {
                let value = value(step, random.below(VALUE_BYTES_MAX));
                self.set(&format!("once-{step}"), value)
            }
            40..41 => self.set(&single, value(step, LARGE_VALUE_BYTES)),
            41..60 => {
                let value = value(step, random.below(VALUE_BYTES_MAX));
                self.set(&single, value)
            }
            60..70 => {
                let piece = value(step, random.below(VALUE_BYTES_MAX));
                let whole = self.last(&single).map_or(piece.clone(), |old| [&**old, &piece].concat());
                self.note(&single, Some(whole));
                vec![b"APPEND".to_vec(), single.into_bytes(), piece]
            }
            70..78 => {
                self.note(&single, None);
                vec![b"DEL".to_vec(), single.into_bytes()]
            }
            kind => {
                let removes = kind >= 95;
                let group = random.below(GROUPS);
                let mut arguments = vec![if removes { b"DEL".to_vec() } else { b"MSET".to_vec() }];
                for member in 0..MEMBERS {
                    let key = format!("group-{group}:{member}");
                    arguments.push(key.clone().into_bytes());
                    let value = (!removes).then(|| value(step, random.below(VALUE_BYTES_MAX)));
                    arguments.extend(value.clone());
                    self.note(&key, value);
                }
                arguments
            }
        }
    }

    fn set(&mut self, key: &str, value: Vec<u8>) -> Vec<Vec<u8>> {
        self.note(key, Some(value.clone()));
        vec![b"SET".to_vec(), key.as_bytes().to_vec(), value]
    }

    fn note(&mut self, key: &str, value: Option<Vec<u8>>) {
        self.keys.entry(key.to_owned()).or_default().push((self.steps, value));
    }

    fn last(&self, key: &str) -> Option<&Vec<u8>> {
        self.keys.get(key)?.last()?.1.as_ref()
    }

    /// Takes what a server has served for what is there from now on: a step of its own.
    pub fn settle(&mut self, found: &State) {
        self.steps += 1;
        for (key, values) in &mut self.keys {
            let found = found.get(key);
            if values.last().is_some_and(|(_, last)| last.as_ref() != found) {
                values.push((self.steps, found.cloned()));
            }
        }
    }

    /// Whether `found` is, shard by shard, the state after some step from `least` on; if not, what contradicts.
    pub fn allows(&self, found: &State, least: usize, shards: usize) -> Result<(), String> {
        self.invents_nothing(found)?;
        let mut units: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for key in self.keys() {
            let unit = match key.split_once(':') {
                Some((group, _)) => group.to_owned(),
                None => format!("shard {}", slots::owner(key.as_bytes(), shards)),
            };
            units.entry(unit).or_default().push(key);
        }
        units.iter().try_for_each(|(unit, keys)| self.allows_unit(found, least, unit, keys))
    }

    fn allows_unit(&self, found: &State, least: usize, unit: &str, keys: &[&str]) -> Result<(), String> {
        let mut agreeing = vec![0; self.steps + 1];
        for key in keys {
            let mut is_possible = false;
            for step in self.steps_of(key, found.get(*key)).filter(|step| *step >= least) {
                agreeing[step] += 1;
                is_possible = true;
            }
            if !is_possible {
                let (found, last) = (found.get(*key), self.last(key));
                return Err(format!(
                    "{key} is {}, after the last step {}; all up to step {least} of {} is safe",
                    shown(found),
                    shown(last),
                    self.steps
                ));
            }
        }
        if agreeing.contains(&keys.len()) {
            return Ok(());
        }
        Err(format!("the keys of {unit} have values that they never had at one moment: {}", keys.join(" ")))
    }

    /// Whether every key has a value that it once had.
    pub fn invents_nothing(&self, found: &State) -> Result<(), String> {
        for (key, value) in found {
            if self.steps_of(key, Some(value)).next().is_none() {
                return Err(format!("{key} never was {}", shown(Some(value))));
            }
        }
        Ok(())
    }

    /// The steps after which a key had this value.
    fn steps_of<'a>(
        &'a self,
        key: &str,
        value: Option<&'a Vec<u8>>,
    ) -> impl Iterator<Item = usize> + use<'a> {
        let values = self.keys.get(key).map_or(&[][..], Vec::as_slice);
        let first = values.first().map_or(self.steps + 1, |(step, _)| *step);
        let before = if value.is_none() { 0..first } else { 0..0 };
        let ends = values.iter().skip(1).map(|(step, _)| *step).chain([self.steps + 1]);
        let spans = values.iter().zip(ends).filter(move |((_, had), _)| had.as_ref() == value);
        before.chain(spans.flat_map(|((step, _), end)| *step..end))
    }
}

/// A value that no other step writes.
fn value(step: usize, bytes: u64) -> Vec<u8> {
    let mut value = format!("<{step}>").into_bytes();
    value.extend((0..bytes).map(|at| b'a' + ((step as u64 + at) % 26) as u8));
    value
}

/// A value by its beginning, for a message.
fn shown(value: Option<&Vec<u8>>) -> String {
    let shown =
        |value: &Vec<u8>| format!("\"{:.40}\" ({} bytes)", String::from_utf8_lossy(value), value.len());
    value.map_or("missing".to_owned(), shown)
}

/// The first difference between two states.
pub fn difference(left: &State, right: &State) -> Option<String> {
    let keys = left.keys().chain(right.keys());
    let mut differing = keys.filter(|key| left.get(*key) != right.get(*key));
    let key = differing.next()?;
    Some(format!("{key} is {} and {}", shown(left.get(key)), shown(right.get(key))))
}

#[test]
fn a_ledger_tells_what_may_be_left() {
    let mut ledger = Ledger { steps: 4, keys: BTreeMap::new() };
    let some = |value: &str| Some(value.as_bytes().to_vec());
    ledger.keys.insert("a".to_owned(), vec![(1, some("1")), (3, some("3"))]);
    ledger.keys.insert("b".to_owned(), vec![(2, some("2")), (4, None)]);
    let state = |keys: &[(&str, &str)]| -> State {
        keys.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
    };
    assert!(ledger.state() == state(&[("a", "3")]));
    for (found, least, is_allowed) in [
        (&[("a", "3")][..], 4, true),
        (&[("a", "3"), ("b", "2")], 3, true),
        (&[("a", "3"), ("b", "2")], 4, false), // `b` was removed.
        (&[("a", "1")], 1, true),
        (&[("a", "1")], 2, false),
        (&[], 0, true),
        (&[("b", "2")], 0, false), // `a` was there first.
        (&[("a", "2")], 0, false),
        (&[("c", "1")], 0, false),
    ] {
        assert_eq!(ledger.allows(&state(found), least, 1).is_ok(), is_allowed, "{found:?} from {least} on");
    }
    assert!(ledger.invents_nothing(&state(&[("b", "2")])).is_ok());
}
