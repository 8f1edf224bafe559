use std::borrow::Cow;
use std::collections::BTreeMap;

use shard::clock::{deadline_by_wall_clock, due_ms};
use shard::{Command, DATABASES_DEFAULT, Error, Reply};

use crate::floats;
use crate::requests::Call;

/// The longest value in the simulation, in bytes: short, so that the limit is met.
pub const VALUE_LEN_MAX: usize = 400;

/// The names of keys, and for each its value and its deadline.
pub type Content = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

/// The name of a key: itself in database 0, behind the name of its database in others.
pub fn name(database: u16, key: &[u8]) -> Vec<u8> {
    if database == 0 { key.to_vec() } else { [prefix(database).as_bytes(), key].concat() }
}

/// The key that a name is of.
pub fn key_of_name(name: &[u8]) -> &[u8] {
    (1..DATABASES_DEFAULT).find_map(|other| name.strip_prefix(prefix(other).as_bytes())).unwrap_or(name)
}

fn prefix(database: u16) -> String {
    format!("db{database} ")
}

/// The database of a name.
fn database(of: &[u8]) -> u16 {
    (1..DATABASES_DEFAULT).find(|other| of.starts_with(prefix(*other).as_bytes())).unwrap_or(0)
}

/// The number of a database, out of the sixteen.
fn database_index(text: &[u8]) -> Result<u16, Error> {
    let number = integer(text).map_err(|_| Error::InvalidDbIndex)?;
    if i32::try_from(number).is_err() {
        return Err(Error::OutOfRange(
            "value is out of range, value must between -2147483648 and 2147483647",
        ));
    }
    if (0..16).contains(&number) { Ok(number as u16) } else { Err(Error::DbIndexOutOfRange) }
}

/// What a shard has to be: a map, and the commands as their documentation has them. Keys that have expired
/// stay in it, unseen, until they are replaced or swept.
#[derive(Clone, Debug, Default)]
pub struct Model {
    content: Content,
}

/// When a deadline comes. The wall clock agrees with the server's time here; `clocks` is where it does not.
pub fn due(deadline_ms: u64) -> u64 {
    due_ms(deadline_ms, 0)
}

type Answer = Result<Reply<'static>, Error>;

impl Model {
    pub fn new(content: Content) -> Model {
        Model { content }
    }

    /// The keys that exist.
    pub fn live(&self, now_ms: u64) -> Content {
        let live = |deadline_ms: Option<u64>| deadline_ms.is_none_or(|deadline_ms| due(deadline_ms) > now_ms);
        let entries = self.content.iter().filter(|(_, (_, deadline_ms))| live(*deadline_ms));
        entries.map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }

    /// The number of keys, those that have expired among them.
    pub fn count(&self) -> usize {
        self.content.len()
    }

    /// Value and deadline of a key that exists.
    pub fn find(&self, key: &[u8], now_ms: u64) -> Option<&(Vec<u8>, Option<u64>)> {
        self.content.get(key).filter(|(_, deadline_ms)| deadline_ms.is_none_or(|at| due(at) > now_ms))
    }

    /// The earliest deadline that has not passed.
    pub fn next_deadline_ms(&self, now_ms: u64) -> Option<u64> {
        self.content
            .values()
            .filter_map(|(_, deadline_ms)| deadline_ms.map(due))
            .filter(|at| *at > now_ms)
            .min()
    }

    /// Forgets what has expired.
    pub fn sweep(&mut self, now_ms: u64) {
        self.content.retain(|_, (_, deadline_ms)| deadline_ms.is_none_or(|at| due(at) > now_ms));
    }

    /// Runs a request. The answer to `DBSIZE` counts the keys that exist.
    pub fn execute(&mut self, call: &Call, now_ms: u64) -> Reply<'static> {
        let Call { row, database, ref args } = *call;
        let mut args = args.clone();
        let (range, step) = row.keys.range(args.len(), |at| &args[at]);
        range.step_by(step).for_each(|at| args[at] = name(database, &args[at]));
        let call = &Call { row, database, args };
        let keys = &call.args;
        match call.row.name {
            "GET" => self.value(&keys[0], now_ms),
            "GETDEL" => {
                let value = self.value(&keys[0], now_ms);
                self.remove(&keys[0], now_ms);
                value
            }
            "GETEX" => self.getex(call, now_ms).into(),
            "MGET" => Reply::Array(keys.iter().map(|key| self.value(key, now_ms)).collect()),
            "GETRANGE" | "SUBSTR" => self.getrange(call, now_ms).into(),
            "STRLEN" => number(self.find(&keys[0], now_ms).map_or(0, |(value, _)| value.len())),
            "TYPE" => {
                let exists = self.find(&keys[0], now_ms).is_some();
                Reply::Simple(if exists { "string" } else { "none" })
            }
            "GETBIT" => self.getbit(call, now_ms).into(),
            "BITCOUNT" => self.bitcount(call, now_ms).into(),
            "BITPOS" => self.bitpos(call, now_ms).into(),
            "SETBIT" => self.setbit(call, now_ms).into(),
            "BITFIELD" | "BITFIELD_RO" => self.bitfield(call, now_ms).into(),
            "GETSET" => self.getset(call, now_ms).into(),
            "DELIFEQ" => {
                let is_equal = self.find(&keys[0], now_ms).is_some_and(|(value, _)| *value == keys[1]);
                Reply::Integer(i64::from(is_equal && self.remove(&keys[0], now_ms)))
            }
            "EXISTS" | "TOUCH" => number(keys.iter().filter(|key| self.find(key, now_ms).is_some()).count()),
            "DBSIZE" => {
                number(self.live(now_ms).keys().filter(|name| self::database(name) == database).count())
            }
            "MOVE" => self.move_key(call, now_ms).into(),
            "SWAPDB" => self.swap(call).into(),
            "DEL" | "DELETE" | "MDEL" | "UNLINK" => {
                number(keys.iter().filter(|key| self.remove(key, now_ms)).count())
            }
            "CLEAR" | "FLUSHALL" | "FLUSHDB" => self.clear(call),
            "SET" => self.set(call, now_ms).into(),
            "SETNX" => self.setnx(call, now_ms).into(),
            "SETEX" => self.setex(call, "EX", now_ms).into(),
            "PSETEX" => self.setex(call, "PX", now_ms).into(),
            "MSET" => self.mset(call).into(),
            "MSETNX" => self.msetnx(call, now_ms).into(),
            "MSETEX" => self.msetex(call, now_ms).into(),
            "RENAME" | "RENAMENX" => self.rename(call, now_ms).into(),
            "COPY" => self.copy(call, now_ms).into(),
            "BITOP" => self.bitop(call, now_ms).into(),
            "LCS" => self.lcs(call, now_ms),
            "SETRANGE" => self.setrange(call, now_ms).into(),
            "APPEND" => self.append(call, now_ms).into(),
            "INCR" => self.add(call, Ok(1), now_ms).into(),
            "DECR" => self.add(call, Ok(-1), now_ms).into(),
            "INCRBY" => self.add(call, integer(&call.args[1]), now_ms).into(),
            "INCRBYFLOAT" => self.add_float(call, now_ms).into(),
            "DECRBY" => {
                let amount = integer(&call.args[1]);
                let negated = amount.and_then(|by| by.checked_neg().ok_or(Error::DecrementOverflow));
                self.add(call, negated, now_ms).into()
            }
            "EXPIRE" => self.expire(call, "EX", now_ms).into(),
            "PEXPIRE" => self.expire(call, "PX", now_ms).into(),
            "EXPIREAT" => self.expire(call, "EXAT", now_ms).into(),
            "PEXPIREAT" => self.expire(call, "PXAT", now_ms).into(),
            "PERSIST" => match self.find(&keys[0], now_ms) {
                Some((value, Some(_))) => {
                    self.content.insert(keys[0].clone(), (value.clone(), None));
                    Reply::Integer(1)
                }
                _ => Reply::Integer(0),
            },
            "PTTL" => Reply::Integer(self.time_to_live_ms(&keys[0], now_ms)),
            "TTL" => Reply::Integer(to_seconds(self.time_to_live_ms(&keys[0], now_ms))),
            "PEXPIRETIME" => Reply::Integer(self.moment_ms(&keys[0], now_ms)),
            "EXPIRETIME" => Reply::Integer(to_seconds(self.moment_ms(&keys[0], now_ms))),
            name => panic!("the model does not know {name}"),
        }
    }

    fn value(&self, key: &[u8], now_ms: u64) -> Reply<'static> {
        self.find(key, now_ms).map_or(Reply::Nil, |(value, _)| Reply::Bulk(Cow::Owned(value.clone())))
    }

    fn put(&mut self, key: &[u8], value: &[u8], deadline_ms: Option<u64>) {
        self.content.insert(key.to_vec(), (value.to_vec(), deadline_ms));
    }

    fn remove(&mut self, key: &[u8], now_ms: u64) -> bool {
        let existed = self.find(key, now_ms).is_some();
        if existed {
            self.content.remove(key);
        }
        existed
    }

    fn clear(&mut self, call: &Call) -> Reply<'static> {
        match call.args.first().map(|mode| mode.to_ascii_uppercase()) {
            Some(mode) if mode != b"ASYNC" && mode != b"SYNC" => Reply::Error(Error::Syntax),
            _ => {
                let all = call.row.name != "FLUSHDB";
                self.content.retain(|name, _| !all && database(name) != call.database);
                Reply::Ok
            }
        }
    }

    fn move_key(&mut self, call: &Call, now_ms: u64) -> Answer {
        let to = database_index(&call.args[1])?;
        if to == call.database {
            return Err(Error::Unavailable("source and destination objects are the same"));
        }
        let (from, to) = (&call.args[0], name(to, key_of_name(&call.args[0])));
        let Some(entry) = self.find(from, now_ms).cloned() else { return Ok(Reply::Integer(0)) };
        if self.find(&to, now_ms).is_some() {
            return Ok(Reply::Integer(0));
        }
        self.content.remove(from);
        self.content.insert(to, entry);
        Ok(Reply::Integer(1))
    }

    fn swap(&mut self, call: &Call) -> Answer {
        let [one, other] = &call.args[..] else { unreachable!("it has two arguments") };
        let is_number = |text: &Vec<u8>| integer(text).is_ok_and(|number| i32::try_from(number).is_ok());
        if !is_number(one) {
            return Err(Error::OutOfRange("invalid first DB index"));
        }
        if !is_number(other) {
            return Err(Error::OutOfRange("invalid second DB index"));
        }
        let (one, other) = (database_index(one)?, database_index(other)?);
        let content = std::mem::take(&mut self.content).into_iter();
        let renamed = content.map(|(old, entry)| {
            let swapped = match database(&old) {
                it if it == one => other,
                it if it == other => one,
                it => it,
            };
            (name(swapped, key_of_name(&old)), entry)
        });
        self.content = renamed.collect();
        Ok(Reply::Ok)
    }

    fn set(&mut self, call: &Call, now_ms: u64) -> Answer {
        let (key, value) = (&call.args[0], &call.args[1]);
        let options: Vec<_> = call.args[2..].iter().map(|arg| arg.to_ascii_uppercase()).collect();
        let (mut names, mut time, mut equal) = (Vec::new(), None, None);
        let mut at = 0;
        while at < options.len() {
            let name = std::str::from_utf8(&options[at]).map_err(|_| Error::Syntax)?;
            match name {
                "NX" | "XX" | "GET" | "KEEPTTL" => names.push(name),
                "EX" | "PX" | "EXAT" | "PXAT" => {
                    at += 1;
                    let amount = call.args.get(2 + at).ok_or(Error::Syntax)?;
                    if time.is_some_and(|(unit, _)| unit != name) {
                        return Err(Error::Syntax);
                    }
                    time = Some((name, amount));
                }
                "IFEQ" if equal.is_none() => {
                    at += 1;
                    equal = Some(call.args.get(2 + at).ok_or(Error::Syntax)?);
                }
                _ => return Err(Error::Syntax),
            }
            at += 1;
        }
        let has = |name| names.contains(&name);
        if [has("NX"), has("XX"), equal.is_some()].iter().filter(|yes| **yes).count() > 1 {
            return Err(Error::Syntax);
        }
        if has("KEEPTTL") && time.is_some() {
            return Err(Error::Syntax);
        }
        let new_deadline_ms = match time {
            Some((unit, amount)) => Some(deadline(call, unit, amount, now_ms)?),
            None => None,
        };
        bounded(value.len())?;
        let old = self.find(key, now_ms).cloned();
        let differs = |equal| old.as_ref().is_none_or(|(value, _)| value != equal);
        let refused = has("NX") && old.is_some() || has("XX") && old.is_none() || equal.is_some_and(differs);
        if !refused {
            let old_deadline_ms = old.as_ref().and_then(|(_, deadline_ms)| *deadline_ms);
            self.put(key, value, if has("KEEPTTL") { old_deadline_ms } else { new_deadline_ms });
        }
        Ok(match old {
            Some((value, _)) if has("GET") => Reply::Bulk(Cow::Owned(value)),
            None if has("GET") => Reply::Nil,
            _ if refused => Reply::Nil,
            _ => Reply::Ok,
        })
    }

    fn getex(&mut self, call: &Call, now_ms: u64) -> Answer {
        let key = &call.args[0];
        let (mut persists, mut time) = (false, None);
        let mut options = call.args[1..].iter();
        while let Some(option) = options.next() {
            match &option.to_ascii_uppercase()[..] {
                b"PERSIST" if time.is_none() => persists = true,
                name @ (b"EX" | b"PX" | b"EXAT" | b"PXAT") if !persists => {
                    let name = std::str::from_utf8(name).expect("it is ASCII").to_owned();
                    let amount = options.next().ok_or(Error::Syntax)?;
                    if time.is_some_and(|(other, _)| other != name) {
                        return Err(Error::Syntax);
                    }
                    time = Some((name, amount));
                }
                _ => return Err(Error::Syntax),
            }
        }
        let Some((value, _)) = self.find(key, now_ms).cloned() else { return Ok(Reply::Nil) };
        if persists {
            self.put(key, &value, None);
        } else if let Some((unit, amount)) = time {
            let deadline_ms = deadline(call, &unit, amount, now_ms)?;
            self.put(key, &value, Some(deadline_ms));
            if due(deadline_ms) <= now_ms {
                self.content.remove(key);
            }
        }
        Ok(Reply::Bulk(Cow::Owned(value)))
    }

    fn getrange(&self, call: &Call, now_ms: u64) -> Answer {
        let (start, end) = (i128::from(integer(&call.args[1])?), i128::from(integer(&call.args[2])?));
        let value = self.find(&call.args[0], now_ms).map_or(&[][..], |(value, _)| value);
        let len = value.len() as i128;
        let from_front = |index: i128| if index < 0 { (len + index).max(0) } else { index };
        let (first, last) = (from_front(start), from_front(end).min(len - 1));
        let none = start < 0 && end < 0 && start > end || first > last;
        let part = if none { &[][..] } else { &value[first as usize..=last as usize] };
        Ok(Reply::Bulk(Cow::Owned(part.to_vec())))
    }

    fn setnx(&mut self, call: &Call, now_ms: u64) -> Answer {
        bounded(call.args[1].len())?;
        if self.find(&call.args[0], now_ms).is_some() {
            return Ok(Reply::Integer(0));
        }
        self.put(&call.args[0], &call.args[1], None);
        Ok(Reply::Integer(1))
    }

    fn setex(&mut self, call: &Call, unit: &str, now_ms: u64) -> Answer {
        let deadline_ms = deadline(call, unit, &call.args[1], now_ms)?;
        bounded(call.args[2].len())?;
        self.put(&call.args[0], &call.args[2], Some(deadline_ms));
        Ok(Reply::Ok)
    }

    fn mset(&mut self, call: &Call) -> Answer {
        let pairs = call.args.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(Error::WrongArity(call.row));
        }
        pairs.clone().try_for_each(|pair| bounded(pair[1].len()))?;
        pairs.for_each(|pair| self.put(&pair[0], &pair[1], None));
        Ok(Reply::Ok)
    }

    fn msetnx(&mut self, call: &Call, now_ms: u64) -> Answer {
        let pairs = call.args.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(Error::WrongArity(call.row));
        }
        pairs.clone().try_for_each(|pair| bounded(pair[1].len()))?;
        if pairs.clone().any(|pair| self.find(&pair[0], now_ms).is_some()) {
            return Ok(Reply::Integer(0));
        }
        pairs.for_each(|pair| self.put(&pair[0], &pair[1], None));
        Ok(Reply::Integer(1))
    }

    fn msetex(&mut self, call: &Call, now_ms: u64) -> Answer {
        let said = integer(&call.args[0]).ok().filter(|said| (1..=i64::from(i32::MAX)).contains(said));
        let said = said.ok_or(Error::OutOfRange("invalid numkeys value or out of range"))?;
        let behind = call.args[1..].split_at_checked(2 * said as usize).ok_or(Error::Syntax)?;
        let (pairs, options) = (behind.0.chunks_exact(2), behind.1);
        let (mut condition, mut keeps, mut deadline_ms) = (None, false, None);
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match &option.to_ascii_uppercase()[..] {
                b"NX" => condition = Some(false),
                b"XX" => condition = Some(true),
                b"KEEPTTL" => keeps = true,
                unit @ (b"EX" | b"PXAT") => {
                    let amount = options.next().ok_or(Error::Syntax)?;
                    let unit = std::str::from_utf8(unit).expect("it is one of these");
                    deadline_ms = Some(deadline(call, unit, amount, now_ms)?);
                }
                _ => return Err(Error::Syntax),
            }
        }
        pairs.clone().try_for_each(|pair| bounded(pair[1].len()))?;
        let is_met =
            |pair: &[Vec<u8>]| condition.is_none_or(|exists| self.find(&pair[0], now_ms).is_some() == exists);
        if !pairs.clone().all(is_met) {
            return Ok(Reply::Integer(0));
        }
        for pair in pairs {
            let before = self.find(&pair[0], now_ms).and_then(|(_, deadline_ms)| *deadline_ms);
            self.put(&pair[0], &pair[1], if keeps { before } else { deadline_ms });
            if deadline_ms.is_some_and(|deadline_ms| due(deadline_ms) <= now_ms) {
                self.content.remove(&pair[0]);
            }
        }
        Ok(Reply::Integer(1))
    }

    fn rename(&mut self, call: &Call, now_ms: u64) -> Answer {
        let only_new = call.row.name == "RENAMENX";
        let source = self.find(&call.args[0], now_ms).cloned().ok_or(Error::NoSuchKey)?;
        if only_new && self.find(&call.args[1], now_ms).is_some() {
            return Ok(Reply::Integer(0));
        }
        self.remove(&call.args[0], now_ms);
        self.content.insert(call.args[1].clone(), source);
        Ok(if only_new { Reply::Integer(1) } else { Reply::Ok })
    }

    fn copy(&mut self, call: &Call, now_ms: u64) -> Answer {
        let (mut replaces, mut database) = (false, call.database);
        let mut options = call.args[2..].iter();
        while let Some(option) = options.next() {
            match &option.to_ascii_uppercase()[..] {
                b"REPLACE" => replaces = true,
                b"DB" => database = database_index(options.next().ok_or(Error::Syntax)?)?,
                _ => return Err(Error::Syntax),
            }
        }
        let (from, to) = (&call.args[0], name(database, key_of_name(&call.args[1])));
        if *from == to {
            return Err(Error::Unavailable("source and destination objects are the same"));
        }
        let source = self.find(from, now_ms).cloned();
        let is_free = replaces || self.find(&to, now_ms).is_none();
        let Some(source) = source.filter(|_| is_free) else { return Ok(Reply::Integer(0)) };
        self.content.insert(to, source);
        Ok(Reply::Integer(1))
    }

    fn bitop(&mut self, call: &Call, now_ms: u64) -> Answer {
        let operation = call.args[0].to_ascii_uppercase();
        let held = |key| self.find(key, now_ms).map_or(&b""[..], |(value, _)| value);
        let values: Vec<_> = call.args[2..].iter().map(|key| held(key)).collect();
        let len = values.iter().map(|value| value.len()).max().unwrap_or_default();
        let combined = |at: usize| {
            let mut bytes = values.iter().map(|value| value.get(at).copied().unwrap_or_default());
            match &operation[..] {
                b"AND" => bytes.reduce(|a, b| a & b),
                b"OR" => bytes.reduce(|a, b| a | b),
                b"XOR" => bytes.reduce(|a, b| a ^ b),
                _ => bytes.next().map(|byte| !byte),
            }
        };
        match &operation[..] {
            b"NOT" if values.len() > 1 => {
                return Err(Error::Unavailable("BITOP NOT must be called with a single source key."));
            }
            b"AND" | b"OR" | b"XOR" | b"NOT" => {}
            _ => return Err(Error::Syntax),
        }
        let result: Vec<u8> = (0..len).map(|at| combined(at).expect("there is a value")).collect();
        match len {
            0 => drop(self.remove(&call.args[1], now_ms)),
            _ => self.put(&call.args[1], &result, None),
        }
        Ok(number(len))
    }

    /// By the lengths for all prefixes; of several subsequences that which Redis finds on its way back.
    fn lcs(&self, call: &Call, now_ms: u64) -> Reply<'static> {
        let held = |key| self.find(key, now_ms).map_or(&b""[..], |(value, _)| value);
        let (a, b) = (held(&call.args[0]), held(&call.args[1]));
        let mut lens = vec![vec![0; b.len() + 1]; a.len() + 1];
        for (i, j) in (1..=a.len()).flat_map(|i| (1..=b.len()).map(move |j| (i, j))) {
            let longer = lens[i - 1][j].max(lens[i][j - 1]);
            lens[i][j] = if a[i - 1] == b[j - 1] { lens[i - 1][j - 1] + 1 } else { longer };
        }
        if call.args.len() > 2 {
            return number(lens[a.len()][b.len()]);
        }
        let (mut i, mut j, mut found) = (a.len(), b.len(), Vec::new());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                found.push(a[i]);
            } else if lens[i - 1][j] > lens[i][j - 1] {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        found.reverse();
        Reply::Bulk(Cow::Owned(found))
    }

    fn append(&mut self, call: &Call, now_ms: u64) -> Answer {
        let (mut value, deadline_ms) = self.find(&call.args[0], now_ms).cloned().unwrap_or_default();
        value.extend_from_slice(&call.args[1]);
        bounded(value.len())?;
        self.put(&call.args[0], &value, deadline_ms);
        Ok(number(value.len()))
    }

    fn setrange(&mut self, call: &Call, now_ms: u64) -> Answer {
        let (key, bytes) = (&call.args[0], &call.args[2]);
        let offset = integer(&call.args[1])?;
        let offset = usize::try_from(offset).map_err(|_| Error::OutOfRange("offset is out of range"))?;
        let (mut value, deadline_ms) = self.find(key, now_ms).cloned().unwrap_or_default();
        if bytes.is_empty() {
            return Ok(number(value.len()));
        }
        let end = offset.saturating_add(bytes.len());
        bounded(end)?;
        value.resize(value.len().max(end), 0);
        value[offset..end].copy_from_slice(bytes);
        self.put(key, &value, deadline_ms);
        Ok(number(value.len()))
    }

    fn add(&mut self, call: &Call, amount: Result<i64, Error>, now_ms: u64) -> Answer {
        let amount = amount?;
        let (before, deadline_ms) = match self.find(&call.args[0], now_ms) {
            Some((value, deadline_ms)) => (integer(value)?, *deadline_ms),
            None => (0, None),
        };
        let sum = before.checked_add(amount).ok_or(Error::Overflow)?;
        self.put(&call.args[0], sum.to_string().as_bytes(), deadline_ms);
        Ok(Reply::Integer(sum))
    }

    fn add_float(&mut self, call: &Call, now_ms: u64) -> Answer {
        let found = self.find(&call.args[0], now_ms);
        let deadline_ms = found.and_then(|(_, deadline_ms)| *deadline_ms);
        let sum = floats::sum(found.map(|(value, _)| &value[..]), &call.args[1])?;
        self.put(&call.args[0], sum.as_bytes(), deadline_ms);
        Ok(Reply::Bulk(Cow::Owned(sum.into_bytes())))
    }

    fn expire(&mut self, call: &Call, unit: &str, now_ms: u64) -> Answer {
        let (mut none, mut some, mut later, mut earlier) = (false, false, false, false);
        for option in &call.args[2..] {
            match option.to_ascii_uppercase().as_slice() {
                b"NX" => none = true,
                b"XX" => some = true,
                b"GT" => later = true,
                b"LT" => earlier = true,
                _ => return Err(Error::UnsupportedOption(option.as_slice().into())),
            }
        }
        if none && (some || later || earlier) {
            return Err(Error::IncompatibleOptions("NX and XX, GT or LT"));
        }
        if later && earlier {
            return Err(Error::IncompatibleOptions("GT and LT"));
        }
        let moment = moment(call, unit, &call.args[1], now_ms)?;
        let Some((value, before)) = self.find(&call.args[0], now_ms).cloned() else {
            return Ok(Reply::Integer(0));
        };
        // No deadline is one that never comes; one before the epoch is as good as the epoch.
        let (old, new) = (before.map(due).map_or(i128::MAX, i128::from), moment.max(0));
        if none && before.is_some()
            || some && before.is_none()
            || later && new <= old
            || earlier && new >= old
        {
            return Ok(Reply::Integer(0));
        }
        if new <= i128::from(now_ms) {
            self.content.remove(&call.args[0]);
        } else {
            let by_wall_clock = unit.ends_with("AT");
            let deadline_ms = if by_wall_clock { deadline_by_wall_clock(new as u64) } else { new as u64 };
            self.put(&call.args[0], &value, Some(deadline_ms));
        }
        Ok(Reply::Integer(1))
    }

    fn getset(&mut self, call: &Call, now_ms: u64) -> Answer {
        bounded(call.args[1].len())?;
        let old = self.value(&call.args[0], now_ms);
        self.put(&call.args[0], &call.args[1], None);
        Ok(old)
    }

    fn getbit(&self, call: &Call, now_ms: u64) -> Answer {
        let offset = bit_offset(&call.args[1], 0)?;
        let value = self.find(&call.args[0], now_ms).map_or(&[][..], |(value, _)| value);
        Ok(Reply::Integer(i64::from(bits_of(value).get(offset) == Some(&true))))
    }

    fn setbit(&mut self, call: &Call, now_ms: u64) -> Answer {
        let offset = bit_offset(&call.args[1], 0)?;
        let yes = match &call.args[2][..] {
            b"0" => false,
            b"1" => true,
            _ => return Err(Error::OutOfRange("bit is not an integer or out of range")),
        };
        let (value, deadline_ms) = self.find(&call.args[0], now_ms).cloned().unwrap_or_default();
        let mut bits = grown(&value, offset)?;
        let was = std::mem::replace(&mut bits[offset], yes);
        self.put(&call.args[0], &bytes_of(&bits), deadline_ms);
        Ok(Reply::Integer(i64::from(was)))
    }

    fn bitcount(&self, call: &Call, now_ms: u64) -> Answer {
        let Some((value, _)) = self.find(&call.args[0], now_ms) else { return Ok(Reply::Integer(0)) };
        let bits = bits_of(value);
        let range = match &call.args[1..] {
            [] => 0..bits.len(),
            [start, end, unit @ ..] if unit.len() < 2 => {
                let (start, end) = (integer(start)?, integer(end)?);
                if start < 0 && end < 0 && start > end {
                    return Ok(Reply::Integer(0));
                }
                bit_range(value.len(), start, end, unit.first())?
            }
            _ => return Err(Error::Syntax),
        };
        Ok(number(bits[range].iter().filter(|bit| **bit).count()))
    }

    fn bitpos(&self, call: &Call, now_ms: u64) -> Answer {
        let wanted = match integer(&call.args[1])? {
            0 => false,
            1 => true,
            _ => return Err(Error::OutOfRange("The bit argument must be 1 or 0.")),
        };
        let Some((value, _)) = self.find(&call.args[0], now_ms) else {
            return Ok(Reply::Integer(if wanted { -1 } else { 0 }));
        };
        let options = &call.args[2..];
        if options.len() > 3 {
            return Err(Error::Syntax);
        }
        let start = options.first().map_or(Ok(0), |start| integer(start))?;
        bit_range(0, 0, 0, options.get(2))?;
        let end = options.get(1).map_or(Ok(-1), |end| integer(end))?;
        let range = bit_range(value.len(), start, end, options.get(2))?;
        let (first, is_empty) = (range.start, range.is_empty());
        let found = bits_of(value)[range].iter().position(|bit| *bit == wanted).map(|at| first + at);
        Ok(match found {
            Some(at) => number(at),
            None if !is_empty && !wanted && options.len() < 2 => number(value.len() * 8),
            None => Reply::Integer(-1),
        })
    }

    fn bitfield(&mut self, call: &Call, now_ms: u64) -> Answer {
        let steps = field_steps(&call.args[1..])?;
        let writes = steps.iter().filter(|step| step.name != "GET");
        let last = writes.map(|step| step.offset + step.width - 1).max();
        if last.is_some() && call.row.name == "BITFIELD_RO" {
            return Err(Error::OutOfRange("BITFIELD_RO only supports the GET subcommand"));
        }
        let (value, deadline_ms) = self.find(&call.args[0], now_ms).cloned().unwrap_or_default();
        let mut bits = last.map_or_else(|| Ok(bits_of(&value)), |last| grown(&value, last))?;
        let mut replies = Vec::new();
        for step in &steps {
            let before = step.read(&bits);
            let wish = match step.name {
                "GET" => before,
                "SET" if step.signed => i128::from(step.amount),
                "SET" => i128::from(step.amount as u64),
                _ => before + i128::from(step.amount),
            };
            let (low, high) = step.bounds();
            let after = match step.overflow {
                _ if low <= wish && wish <= high => Some(wish),
                "WRAP" => Some((wish - low).rem_euclid(1 << step.width) + low),
                "SAT" => Some(wish.clamp(low, high)),
                _ => None,
            };
            for at in 0..after.map_or(0, |_| step.width) {
                if let Some(bit) = bits.get_mut(step.offset + at) {
                    *bit = after.is_some_and(|after| after >> (step.width - 1 - at) & 1 == 1);
                }
            }
            let shown = if step.name == "SET" { after.map(|_| before) } else { after };
            replies.push(shown.map_or(Reply::Nil, |shown| Reply::Integer(shown as i64)));
        }
        if last.is_some() {
            self.put(&call.args[0], &bytes_of(&bits), deadline_ms);
        }
        Ok(Reply::Array(replies))
    }

    fn moment_ms(&self, key: &[u8], now_ms: u64) -> i64 {
        match self.find(key, now_ms) {
            Some((_, Some(deadline_ms))) => due(*deadline_ms) as i64,
            Some((_, None)) => -1,
            None => -2,
        }
    }

    fn time_to_live_ms(&self, key: &[u8], now_ms: u64) -> i64 {
        match self.find(key, now_ms) {
            Some((_, Some(deadline_ms))) => (due(*deadline_ms) - now_ms) as i64,
            Some((_, None)) => -1,
            None => -2,
        }
    }
}

/// One thing that BITFIELD does.
struct FieldStep {
    name: &'static str,
    signed: bool,
    width: usize,
    offset: usize,
    amount: i64,
    overflow: &'static str,
}

impl FieldStep {
    fn bounds(&self) -> (i128, i128) {
        let low = if self.signed { -(1 << (self.width - 1)) } else { 0 };
        (low, low + (1 << self.width) - 1)
    }

    fn read(&self, bits: &[bool]) -> i128 {
        let number = (self.offset..self.offset + self.width)
            .fold(0, |number, at| 2 * number + i128::from(bits.get(at) == Some(&true)));
        if number > self.bounds().1 { number - (1 << self.width) } else { number }
    }
}

fn field_steps(args: &[Vec<u8>]) -> Result<Vec<FieldStep>, Error> {
    let known = |arg: &Vec<u8>, names: &[&'static str]| {
        names.iter().copied().find(|name| arg.eq_ignore_ascii_case(name.as_bytes()))
    };
    let (mut steps, mut overflow, mut rest) = (Vec::new(), "WRAP", args);
    while let [first, ..] = rest {
        let name = known(first, &["GET", "SET", "INCRBY", "OVERFLOW"]).ok_or(Error::Syntax)?;
        let len = match name {
            "OVERFLOW" => 2,
            "GET" => 3,
            _ => 4,
        };
        let (step, behind) = rest.split_at_checked(len).ok_or(Error::Syntax)?;
        rest = behind;
        if name == "OVERFLOW" {
            let invalid = Error::OutOfRange("Invalid OVERFLOW type specified");
            overflow = known(&step[1], &["WRAP", "SAT", "FAIL"]).ok_or(invalid)?;
            continue;
        }
        let invalid = Error::OutOfRange(
            "Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
        );
        let signed = step[1].first() == Some(&b'i');
        let width = match step[1].first() {
            Some(b'i' | b'u') => integer(&step[1][1..]).map_err(|_| invalid.clone())?,
            _ => return Err(invalid),
        };
        if width < 1 || width > if signed { 64 } else { 63 } {
            return Err(invalid);
        }
        let offset = bit_offset(&step[2], i128::from(width))?;
        let amount = step.get(3).map_or(Ok(0), |amount| integer(amount))?;
        steps.push(FieldStep { name, signed, width: width as usize, offset, amount, overflow });
    }
    Ok(steps)
}

fn bits_of(value: &[u8]) -> Vec<bool> {
    value.iter().flat_map(|byte| (0..8).map(move |at| byte << at & 0x80 != 0)).collect()
}

fn bytes_of(bits: &[bool]) -> Vec<u8> {
    bits.chunks(8).map(|byte| byte.iter().fold(0, |byte, bit| 2 * byte + u8::from(*bit))).collect()
}

/// The bits of a value that is to have this one.
fn grown(value: &[u8], last: usize) -> Result<Vec<bool>, Error> {
    let len = value.len().max(last / 8 + 1);
    bounded(last / 8 + 1)?;
    let mut bits = bits_of(value);
    bits.resize(8 * len, false);
    Ok(bits)
}

/// The number of a bit; behind a `#` that of a field of this width.
fn bit_offset(text: &[u8], width: i128) -> Result<usize, Error> {
    let (digits, unit) = match text.strip_prefix(b"#") {
        Some(digits) if width > 0 => (digits, width),
        _ => (text, 1),
    };
    let offset = integer(digits).map_or(-1, |number| i128::from(number) * unit);
    let invalid = Error::OutOfRange("bit offset is not an integer or out of range");
    if (0..1 << 32).contains(&offset) { Ok(offset as usize) } else { Err(invalid) }
}

fn bit_range(
    len: usize,
    start: i64,
    end: i64,
    unit: Option<&Vec<u8>>,
) -> Result<std::ops::Range<usize>, Error> {
    let each = match unit.map(|unit| unit.to_ascii_uppercase()).as_deref() {
        None | Some(b"BYTE") => 8,
        Some(b"BIT") => 1,
        Some(_) => return Err(Error::Syntax),
    };
    let count = (len * 8 / each) as i128;
    let place = |index: i64| if index < 0 { (i128::from(index) + count).max(0) } else { index.into() };
    let (first, past) = (place(start), (place(end) + 1).min(count));
    Ok(if first < past { first as usize * each..past as usize * each } else { 0..0 })
}

/// Milliseconds to the nearest second; no time stays none.
fn to_seconds(ms: i64) -> i64 {
    match ms {
        none @ (-1 | -2) => none,
        ms if ms % 1000 >= 500 => ms / 1000 + 1,
        ms => ms / 1000,
    }
}

fn number(count: usize) -> Reply<'static> {
    Reply::Integer(count as i64)
}

/// An integer in its only spelling.
fn integer(text: &[u8]) -> Result<i64, Error> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    number.filter(|number| number.to_string().as_bytes() == text).ok_or(Error::NotAnInteger)
}

fn bounded(len: usize) -> Result<(), Error> {
    if len <= VALUE_LEN_MAX { Ok(()) } else { Err(Error::ValueTooLarge { limit: VALUE_LEN_MAX }) }
}

/// The moment that an amount means, in milliseconds since the epoch, if 64 bits hold it.
fn moment(call: &Call, unit: &str, amount: &[u8], now_ms: u64) -> Result<i128, Error> {
    let row: &'static Command = call.row;
    let amount = i128::from(integer(amount).map_err(|_| Error::ExpireNotAnInteger)?);
    let now_ms = i128::from(now_ms);
    let moment = match unit {
        "EX" => 1000 * amount + now_ms,
        "PX" => amount + now_ms,
        "EXAT" => 1000 * amount,
        _ => amount,
    };
    // Seconds have to fit in milliseconds before the time is added, too.
    let fits = |number: i128| i64::try_from(number).is_ok();
    let factor = if unit.starts_with("EX") { 1000 } else { 1 };
    if fits(moment) && fits(amount * factor) { Ok(moment) } else { Err(Error::InvalidExpire(row)) }
}

/// The deadline of a new value: it is given as a positive amount.
fn deadline(call: &Call, unit: &str, amount: &[u8], now_ms: u64) -> Result<u64, Error> {
    let moment = moment(call, unit, amount, now_ms)?;
    match unit {
        _ if integer(amount)? <= 0 => Err(Error::InvalidExpire(call.row)),
        "EXAT" | "PXAT" => Ok(deadline_by_wall_clock(moment as u64)),
        _ => Ok(moment as u64),
    }
}
