//! Whether a history is linearizable: whether its operations can have run one at a time, each at some moment between
//! its request and its reply, with the replies that came.
//!
//! The search is that of Wing and Gong (Testing and Verifying Concurrent Objects, 1993) with Lowe's memory of the
//! configurations that were tried (Testing for Linearizability, 2017). Keys that no operation has in common are
//! searched apart. It knows no server: only operations, and what each does to a few values.
//!
//! Why not a crate: through a crash there are operations without a reply, which took effect before the crash was over
//! or never. `todc-utils` (0.1, the same search) demands a reply to each operation; `stateright` (0.31) lets one of
//! each thread be without, but for ever, tries every order without a memory of those that failed, which takes
//! exponential time where clients overlap as they do here, and brings a model checker with a web server along.

use std::collections::HashSet;
use std::fmt::{self, Write as _};

use crate::client::Value;

/// Configurations that a search tries at most.
const CONFIGURATIONS_MAX: usize = 2_000_000;

/// The number of a key.
pub type Key = usize;

/// What an operation asks for. It names a key once, but for a transaction, whose requests do.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Get(Key),
    Set(Key, Vec<u8>),
    Incr(Key),
    Append(Key, Vec<u8>),
    Del(Vec<Key>),
    Mset(Vec<(Key, Vec<u8>)>),
    Mget(Vec<Key>),
    /// Requests as one, if the key, where one was watched, still has the value that was seen; else nothing.
    Exec(Option<(Key, Value)>, Vec<Request>),
}

/// An operation of a client. Times are those of any clock that all clients share; no two are the same.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Whose it is; for messages.
    pub client: usize,
    /// What it asks for.
    pub request: Request,
    /// What came; `None` when a crash came first. Then it took effect by `returned`, or never. Every error is the
    /// same one.
    pub reply: Option<Value>,
    /// When it was sent.
    pub invoked: u64,
    /// When its reply had come or, without one, when the crash was over.
    pub returned: u64,
}

impl Request {
    /// The keys.
    pub fn keys(&self) -> Vec<Key> {
        match self {
            Request::Get(key) | Request::Set(key, _) | Request::Incr(key) | Request::Append(key, _) => {
                vec![*key]
            }
            Request::Del(keys) | Request::Mget(keys) => keys.clone(),
            Request::Mset(pairs) => pairs.iter().map(|(key, _)| *key).collect(),
            Request::Exec(watched, requests) => {
                let watched = watched.iter().map(|(key, _)| *key);
                watched.chain(requests.iter().flat_map(Request::keys)).collect()
            }
        }
    }

    /// Runs it.
    fn run(&self, values: &mut [Option<Vec<u8>>]) -> Value {
        let read = |value: &Option<Vec<u8>>| value.as_ref().map_or(Value::Nil, Value::bulk);
        let done = || Value::Simple("OK".to_owned());
        match self {
            Request::Get(key) => read(&values[*key]),
            Request::Set(key, value) => {
                values[*key] = Some(value.clone());
                done()
            }
            Request::Incr(key) => {
                let text = values[*key].as_deref().unwrap_or(b"0");
                let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
                let Some(number) = number.and_then(|number| number.checked_add(1)) else {
                    return Value::Error(String::new());
                };
                values[*key] = Some(number.to_string().into_bytes());
                Value::Integer(number)
            }
            Request::Append(key, tail) => {
                let value = values[*key].get_or_insert_default();
                value.extend_from_slice(tail);
                Value::Integer(value.len() as i64)
            }
            Request::Del(keys) => {
                Value::Integer(keys.iter().filter(|key| values[**key].take().is_some()).count() as i64)
            }
            Request::Mset(pairs) => {
                pairs.iter().for_each(|(key, value)| values[*key] = Some(value.clone()));
                done()
            }
            Request::Mget(keys) => Value::Array(keys.iter().map(|key| read(&values[*key])).collect()),
            Request::Exec(Some((key, seen)), _) if read(&values[*key]) != *seen => Value::NilArray,
            Request::Exec(_, requests) => {
                Value::Array(requests.iter().map(|request| request.run(values)).collect())
            }
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5} to {:>5}  client {}  ", self.invoked, self.returned, self.client)?;
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let listed = |keys: &[Key]| keys.iter().fold(String::new(), |line, key| line + &format!(" k{key}"));
        match &self.request {
            Request::Get(key) => write!(f, "GET k{key}"),
            Request::Set(key, value) => write!(f, "SET k{key} {}", text(value)),
            Request::Incr(key) => write!(f, "INCR k{key}"),
            Request::Append(key, tail) => write!(f, "APPEND k{key} {}", text(tail)),
            Request::Del(keys) => write!(f, "DEL{}", listed(keys)),
            Request::Mget(keys) => write!(f, "MGET{}", listed(keys)),
            Request::Mset(pairs) => pairs.iter().fold(write!(f, "MSET"), |so_far, (key, value)| {
                so_far.and(write!(f, " k{key} {}", text(value)))
            }),
            Request::Exec(watched, requests) => write!(f, "EXEC if {watched:?} {requests:?}"),
        }?;
        match &self.reply {
            Some(reply) => write!(f, " -> {reply}"),
            None => write!(f, " (a crash came before the reply)"),
        }
    }
}

/// Checks a history over keys `0..key_count`, all without a value at its begin.
///
/// # Errors
/// Says that there is no order, or that the search was given up, and shows the part of the history that it is about.
pub fn check(history: &[Operation], key_count: usize) -> Result<(), String> {
    let component_of = components(history, key_count);
    for component in 0..key_count {
        let belongs = |operation: &&Operation| component_of[operation.request.keys()[0]] == component;
        let mut operations: Vec<&Operation> = history.iter().filter(belongs).collect();
        operations.sort_by_key(|operation| operation.invoked);
        Search { operations, key_count }.run()?;
    }
    Ok(())
}

/// For each key, the least key that operations connect it with.
fn components(history: &[Operation], key_count: usize) -> Vec<Key> {
    let mut component_of: Vec<Key> = (0..key_count).collect();
    for operation in history {
        let keys = operation.request.keys();
        let least = keys.iter().map(|key| component_of[*key]).min().expect("an operation has a key");
        let joined: Vec<Key> = keys.iter().map(|key| component_of[*key]).collect();
        component_of.iter_mut().filter(|component| joined.contains(component)).for_each(|c| *c = least);
    }
    component_of
}

/// Which operations have run, and what they left.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Configuration {
    done: Vec<u64>,
    values: Vec<Option<Vec<u8>>>,
}

impl Configuration {
    fn has_done(&self, index: usize) -> bool {
        self.done[index / 64] & 1 << (index % 64) != 0
    }

    fn done_count(&self) -> u32 {
        self.done.iter().map(|word| word.count_ones()).sum()
    }
}

struct Search<'a> {
    /// In the order in which they were sent.
    operations: Vec<&'a Operation>,
    key_count: usize,
}

impl Search<'_> {
    fn run(&self) -> Result<(), String> {
        let begin = Configuration {
            done: vec![0; self.operations.len().div_ceil(64)],
            values: vec![None; self.key_count],
        };
        let mut furthest = begin.clone();
        let mut met = HashSet::from([begin.clone()]);
        // Depth first: the configurations on the way, each with what can be tried next.
        let mut path = vec![(self.next(&begin), begin)];
        while let Some((candidates, configuration)) = path.last_mut() {
            if self.is_complete(configuration) {
                return Ok(());
            }
            let Some(index) = candidates.pop() else {
                path.pop();
                continue;
            };
            let mut next = configuration.clone();
            let reply = self.operations[index].request.run(&mut next.values);
            if self.operations[index].reply.as_ref().is_some_and(|came| *came != reply) {
                continue;
            }
            next.done[index / 64] |= 1 << (index % 64);
            if !met.insert(next.clone()) {
                continue;
            }
            if met.len() > CONFIGURATIONS_MAX {
                return Err(self.report("no order was found in time; the furthest", &furthest));
            }
            if next.done_count() > furthest.done_count() {
                furthest = next.clone();
            }
            path.push((self.next(&next), next));
        }
        Err(self.report("there is no order in which these can have run; the furthest", &furthest))
    }

    /// Whether everything that was answered has run.
    fn is_complete(&self, configuration: &Configuration) -> bool {
        let left = |(index, operation): (usize, &&Operation)| {
            operation.reply.is_some() && !configuration.has_done(index)
        };
        !self.operations.iter().enumerate().any(left)
    }

    /// The operations that can run next; the one that was sent first is the last.
    fn next(&self, configuration: &Configuration) -> Vec<usize> {
        let mut candidates = Vec::new();
        // Whatever was sent after the reply to an operation runs after it.
        let mut first_return = u64::MAX;
        for (index, operation) in self.operations.iter().enumerate() {
            if operation.invoked > first_return {
                break;
            }
            if !configuration.has_done(index) {
                candidates.push(index);
                if operation.reply.is_some() {
                    first_return = first_return.min(operation.returned);
                }
            }
        }
        // What a crash cut short cannot run after anything that was sent when the crash was over.
        let is_done = |index: &usize| configuration.has_done(*index);
        let last_sent = (0..self.operations.len()).rev().find(is_done);
        let last_sent = last_sent.map_or(0, |index| self.operations[index].invoked);
        candidates.retain(|index| {
            let operation = self.operations[*index];
            operation.invoked <= first_return && operation.returned > last_sent
        });
        candidates.reverse();
        candidates
    }

    fn report(&self, verdict: &str, furthest: &Configuration) -> String {
        let mut report = format!(
            "{verdict} try ran {} of {} operations, and left {}\n",
            furthest.done_count(),
            self.operations.len(),
            furthest.values.iter().enumerate().fold(String::new(), |line, (key, value)| {
                let value = value.as_ref().map_or("nothing".into(), |value| value.escape_ascii().to_string());
                line + &format!("k{key}={value} ")
            })
        );
        for (index, operation) in self.operations.iter().enumerate() {
            let mark = if furthest.has_done(index) { ' ' } else { '*' };
            let _ = writeln!(report, "{mark} {operation}");
        }
        report + "(* did not run in that try)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histories::any_request;
    use crate::random::Random;

    fn text(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    fn ok() -> Option<Value> {
        Some(Value::Simple("OK".to_owned()))
    }

    fn array(items: &[Option<&str>]) -> Option<Value> {
        Some(Value::Array(items.iter().map(|item| item.map_or(Value::Nil, Value::bulk)).collect()))
    }

    /// An operation of client 0 from one time to another.
    fn operation(invoked: u64, returned: u64, request: Request, reply: Option<Value>) -> Operation {
        Operation { client: 0, request, reply, invoked, returned }
    }

    fn mset(first: &str, second: &str) -> Request {
        Request::Mset(vec![(0, text(first)), (1, text(second))])
    }

    #[track_caller]
    fn accepts(history: &[Operation]) {
        check(history, 4).unwrap_or_else(|report| panic!("{report}"));
    }

    #[track_caller]
    fn refuses(history: &[Operation]) {
        assert!(check(history, 4).is_err(), "this has no order: {history:#?}");
    }

    #[test]
    fn a_reader_beside_a_writer_sees_the_old_value_or_the_new_one() {
        let write = operation(1, 4, Request::Set(0, text("a")), ok());
        for seen in [Value::Nil, Value::bulk("a")] {
            accepts(&[write.clone(), operation(2, 3, Request::Get(0), Some(seen))]);
        }
        refuses(&[write.clone(), operation(2, 3, Request::Get(0), Some(Value::bulk("b")))]);
        // Once it was answered, it has run.
        refuses(&[write, operation(5, 6, Request::Get(0), Some(Value::Nil))]);
    }

    #[test]
    fn a_value_that_was_seen_does_not_go_back() {
        let write = operation(1, 8, Request::Set(0, text("a")), ok());
        let new = |invoked| operation(invoked, invoked + 1, Request::Get(0), Some(Value::bulk("a")));
        let old = |invoked| operation(invoked, invoked + 1, Request::Get(0), Some(Value::Nil));
        accepts(&[write.clone(), old(2), new(4)]);
        refuses(&[write, new(2), old(4)]);
    }

    #[test]
    fn half_a_transaction_and_one_on_a_value_that_was_overwritten_are_refused() {
        let requests = vec![Request::Set(0, text("a")), Request::Incr(1)];
        let done = Some(Value::Array(vec![Value::Simple("OK".to_owned()), Value::Integer(1)]));
        let exec = operation(1, 4, Request::Exec(None, requests.clone()), done.clone());
        let read = |items: &[Option<&str>]| operation(2, 3, Request::Mget(vec![0, 1]), array(items));
        accepts(&[exec.clone(), read(&[None, None])]);
        accepts(&[exec.clone(), read(&[Some("a"), Some("1")])]);
        refuses(&[exec.clone(), read(&[Some("a"), None])]);
        refuses(&[exec, read(&[None, Some("1")])]);
        let watching = Request::Exec(Some((0, Value::Nil)), requests);
        let write = operation(1, 2, Request::Set(0, text("b")), ok());
        refuses(&[write.clone(), operation(3, 4, watching.clone(), done)]);
        accepts(&[write, operation(3, 4, watching, Some(Value::NilArray))]);
    }

    #[test]
    fn half_an_mset_is_refused() {
        let read = |items: &[Option<&str>]| operation(2, 3, Request::Mget(vec![0, 1]), array(items));
        let write = operation(1, 4, mset("a", "b"), ok());
        accepts(&[write.clone(), read(&[None, None])]);
        accepts(&[write.clone(), read(&[Some("a"), Some("b")])]);
        refuses(&[write.clone(), read(&[Some("a"), None])]);
        refuses(&[write.clone(), read(&[None, Some("b")])]);
        // Nor by two readers of one key each, the later of which sees what was before.
        let get = |invoked, key, seen| operation(invoked, invoked, Request::Get(key), Some(seen));
        refuses(&[write.clone(), get(2, 0, Value::bulk("a")), get(3, 1, Value::Nil)]);
        accepts(&[write, get(2, 0, Value::Nil), get(3, 1, Value::bulk("b"))]);
    }

    #[test]
    fn two_msets_do_not_mix() {
        let history = |items: &[Option<&str>]| {
            [
                operation(1, 10, mset("a", "a"), ok()),
                operation(2, 9, mset("b", "b"), ok()),
                operation(11, 12, Request::Mget(vec![0, 1]), array(items)),
            ]
        };
        accepts(&history(&[Some("a"), Some("a")]));
        accepts(&history(&[Some("b"), Some("b")]));
        refuses(&history(&[Some("a"), Some("b")]));
    }

    #[test]
    fn what_a_crash_cut_short_ran_before_its_end_or_never() {
        let cut = operation(1, 10, Request::Incr(0), None);
        let get = |invoked, seen| operation(invoked, invoked + 1, Request::Get(0), Some(seen));
        accepts(&[cut.clone(), get(11, Value::Nil), get(13, Value::Nil)]);
        accepts(&[cut.clone(), get(2, Value::Nil), get(11, Value::bulk("1"))]);
        refuses(&[cut.clone(), get(11, Value::Nil), get(13, Value::bulk("1"))]);
        // It runs once, and by half never.
        refuses(&[cut, get(11, Value::bulk("2"))]);
        let cut = operation(1, 10, mset("a", "b"), None);
        let read = |items: &[Option<&str>]| operation(11, 12, Request::Mget(vec![0, 1]), array(items));
        accepts(&[cut.clone(), read(&[Some("a"), Some("b")])]);
        refuses(&[cut, read(&[Some("a"), None])]);
    }

    #[test]
    fn counters_and_lists_count_every_change_once() {
        let incr = |client, reply| Operation {
            client,
            ..operation(1 + client as u64, 9, Request::Incr(0), Some(Value::Integer(reply)))
        };
        accepts(&[incr(0, 3), incr(1, 1), incr(2, 2)]);
        refuses(&[incr(0, 3), incr(1, 1), incr(2, 1)]);
        refuses(&[incr(0, 3), incr(1, 1)]);
        let append = |reply| operation(1, 9, Request::Append(1, text("xy")), Some(Value::Integer(reply)));
        accepts(&[append(4), append(2)]);
        refuses(&[append(2), append(2)]);
        let error = || Some(Value::Error(String::new()));
        accepts(&[append(2), operation(10, 11, Request::Incr(1), error())]);
        let del = |reply| operation(10, 11, Request::Del(vec![0, 1]), Some(Value::Integer(reply)));
        accepts(&[append(2), del(1)]);
        refuses(&[append(2), del(2)]);
    }

    /// How a server runs operations.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Way {
        /// Each at one moment between its request and its reply.
        Right,
        /// MSETs in two halves.
        TornMset,
        /// A write is acknowledged and gone, now and then.
        LostWrite,
        /// What is read was true some operations ago, now and then.
        StaleRead,
    }

    impl Way {
        fn run(
            self,
            request: &Request,
            states: &mut Vec<Vec<Option<Vec<u8>>>>,
            random: &mut Random,
        ) -> Value {
            let is_read = matches!(request, Request::Get(_) | Request::Mget(_));
            let slips = random.below(15) == 0;
            let mut values = states[states.len() - 1].clone();
            match self {
                Way::LostWrite if slips && !is_read => request.run(&mut values),
                Way::StaleRead if slips && is_read => {
                    request.run(&mut states[states.len().saturating_sub(12)].clone())
                }
                _ => {
                    let reply = request.run(&mut values);
                    states.push(values);
                    reply
                }
            }
        }
    }

    /// A history as such a server gives it.
    fn run_in_turns(random: &mut Random, clients: usize, each: usize, way: Way) -> Vec<Operation> {
        let mut states = vec![vec![None; 4]];
        let mut history: Vec<Operation> = Vec::new();
        // Of each client: operations begun, and the one under way with what of it is still to run.
        let mut begun = vec![0; clients];
        let mut under_way: Vec<Option<(usize, Vec<Request>)>> = vec![None; clients];
        for time in 1.. {
            let busy = |client: &usize| begun[*client] < each || under_way[*client].is_some();
            let clients: Vec<usize> = (0..clients).filter(busy).collect();
            if clients.is_empty() {
                break;
            }
            let client = random.one_of(&clients);
            let Some((index, to_run)) = &mut under_way[client] else {
                let request = any_request(random, time);
                let to_run = match &request {
                    Request::Mset(pairs) if way == Way::TornMset => {
                        let (first, second) = pairs.split_at(1);
                        vec![Request::Mset(second.to_vec()), Request::Mset(first.to_vec())]
                    }
                    whole => vec![whole.clone()],
                };
                begun[client] += 1;
                under_way[client] = Some((history.len(), to_run));
                history.push(Operation { client, request, reply: None, invoked: time, returned: 0 });
                continue;
            };
            match to_run.pop() {
                Some(request) => history[*index].reply = Some(way.run(&request, &mut states, random)),
                None => {
                    history[*index].returned = time;
                    under_way[client] = None;
                }
            }
        }
        history
    }

    #[test]
    fn what_a_true_server_did_is_accepted_and_another_reply_is_not() {
        let mut random = Random::new("histories of a true server");
        for _ in 0..40 {
            let mut history = run_in_turns(&mut random, 8, 40, Way::Right);
            accepts(&history);
            let is_get = |operation: &&mut Operation| matches!(operation.request, Request::Get(_));
            let mut reads: Vec<&mut Operation> = history.iter_mut().filter(is_get).collect();
            let index = random.below(reads.len() as u64) as usize;
            reads[index].reply = Some(Value::bulk("never written"));
            refuses(&history);
        }
    }

    #[test]
    fn torn_msets_lost_writes_and_stale_reads_are_refused() {
        let mut random = Random::new("histories of servers with a defect");
        for way in [Way::TornMset, Way::LostWrite, Way::StaleRead] {
            let histories = (0..12).map(|_| run_in_turns(&mut random, 8, 40, way));
            let refused = histories.filter(|history| check(history, 4).is_err()).count();
            assert!(refused >= 9, "{way:?}: only {refused} of 12 are refused");
        }
    }

    #[test]
    fn an_acknowledged_write_that_a_crash_takes_is_refused() {
        let set = operation(1, 2, Request::Set(0, text("a")), ok());
        let cut = operation(3, 10, Request::Set(1, text("b")), None);
        let after = |items: &[Option<&str>]| operation(11, 12, Request::Mget(vec![0, 1]), array(items));
        accepts(&[set.clone(), cut.clone(), after(&[Some("a"), None])]);
        accepts(&[set.clone(), cut.clone(), after(&[Some("a"), Some("b")])]);
        refuses(&[set, cut, after(&[None, None])]);
    }
}
