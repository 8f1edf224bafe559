//! Writers that work in numbered steps, and what a server may hold of their steps after a crash.
//!
//! Every writer has keys of its own and one connection. What step `n` leaves in each key follows from `n`, so the
//! value of a key tells up to which step it has come: not less far than what counts as safe, and not further than
//! what was sent.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::client::{Resp, Text, Value, encoded, is_closed};
use crate::process::{Server, within_deadline};
use crate::slots::spread_tags;
use crate::words::words;

/// Writers of one load; the first one speaks the text protocol.
pub const WRITER_COUNT: usize = 8;

/// Keys of each kind that are written in turns: step `n` writes number `n` modulo this.
const TURN: u64 = 16;

/// A pair is removed so many steps after it was set.
const PAIR_STEPS: u64 = 8;

/// What the clocks of a test and of a server may differ by when both read the same one.
const CLOCK_SLACK_MS: u64 = 5;

/// How far a writer goes ahead of the replies.
#[derive(Clone, Copy)]
pub enum Pace {
    /// Several steps at once.
    Pipelined,
    /// One command at a time; the first refusal ends the writer.
    OneCommand,
}

impl Pace {
    fn steps(self) -> u64 {
        match self {
            Pace::Pipelined => 8,
            Pace::OneCommand => 1,
        }
    }
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("the clock is set").as_millis() as u64
}

/// The writers at work.
pub struct Load {
    threads: Vec<JoinHandle<Ledger>>,
    steps_done: Arc<AtomicU64>,
    writers_left: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
}

impl Load {
    /// Starts the writers. Their keys begin with `name`, which no other load on this data has.
    pub fn start(server: &Server, name: &str, pace: Pace) -> Load {
        let steps_done = Arc::new(AtomicU64::new(0));
        let writers_left = Arc::new(AtomicU64::new(WRITER_COUNT as u64));
        let stopping = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for index in 0..WRITER_COUNT {
            let connection =
                if index == 0 { Connection::Text(server.text()) } else { Connection::Resp(server.resp()) };
            let mut ledger = Ledger::new(format!("{name}:{index}"));
            let (done, left, stop) = (steps_done.clone(), writers_left.clone(), stopping.clone());
            threads.push(thread::spawn(move || {
                ledger.work(connection, pace, &done, &stop);
                left.fetch_sub(1, Ordering::SeqCst);
                ledger
            }));
        }
        Load { threads, steps_done, writers_left, stopping }
    }

    /// Waits until the writers together have done so many steps, or all of them have ended.
    pub fn await_steps(&self, count: u64, server: &Server) {
        let done = || self.steps_done.load(Ordering::SeqCst);
        let reached = within_deadline(|| done() >= count || self.has_ended());
        assert!(reached, "only {} steps of {count}\n{}", done(), server.log.tail());
    }

    /// Whether every writer has ended.
    pub fn has_ended(&self) -> bool {
        self.writers_left.load(Ordering::SeqCst) == 0
    }

    /// Lets the writers end when they have the replies to what they have sent.
    #[allow(dead_code)] // What ends the server ends the writers in the campaigns beside this file.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Waits until the writers have ended, with the server's end at the latest; returns what they know.
    pub fn join(self) -> Vec<Ledger> {
        let joined = self.threads.into_iter().map(JoinHandle::join);
        joined.map(|ledger| ledger.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    }
}

/// What one writer knows.
pub struct Ledger {
    prefix: String,
    tags: [String; 8],
    /// When each step was sent, and when its last reply had come; milliseconds since the Unix epoch.
    sent_ms: Vec<u64>,
    acknowledged_ms: Vec<u64>,
    /// The error reply that ended the writer.
    pub refused: Option<String>,
    /// What was found at the first check. What was served once stays.
    found: Option<Found>,
}

/// What a server holds of one writer's keys.
#[derive(Debug, PartialEq)]
struct Found {
    counter: u64,
    stamp: u64,
    list_steps: u64,
    head: (u64, bool),
    pairs: Vec<u64>,
}

impl Ledger {
    fn new(prefix: String) -> Ledger {
        Ledger {
            prefix,
            tags: spread_tags(),
            sent_ms: Vec::new(),
            acknowledged_ms: Vec::new(),
            refused: None,
            found: None,
        }
    }

    /// The commands of a step, a transaction as one, in lines.
    fn commands(&self, step: u64) -> [String; 8] {
        let (prefix, turn) = (&self.prefix, step % TURN);
        let old = (step + TURN - PAIR_STEPS) % TURN;
        let ([left, right], [old_left, old_right]) = (self.pair(turn), self.pair(old));
        let [head, peer] = self.heads();
        // A transaction does what an MSET does, hop by hop or in one go.
        let set = |keys: &[String]| match step % 2 {
            0 => keys.iter().fold("MSET".to_owned(), |line, key| line + &format!(" {key} {step}")),
            _ => {
                keys.iter().fold("MULTI".to_owned(), |lines, key| lines + &format!("\nSET {key} {step}"))
                    + "\nEXEC"
            }
        };
        // Values of different lengths, so that frames end anywhere in a segment.
        let padding = ".".repeat((step * 37 % 300) as usize);
        [
            format!("INCR {prefix}:counter"),
            set(&self.stamps()),
            format!("APPEND {prefix}:list {step};"),
            format!("SETEX {prefix}:lease:{turn} {} {step}{padding}", ttl_ms(step) / 1000),
            format!("MSET {head} {step}: {peer} {step}:"),
            format!("APPEND {head} {step}"),
            set(&[left, right]),
            format!("DEL {old_left} {old_right}"),
        ]
    }

    fn stamps(&self) -> [String; 8] {
        self.tags.each_ref().map(|tag| format!("{}:stamp{tag}", self.prefix))
    }

    fn heads(&self) -> [String; 2] {
        [1, 6].map(|tag| format!("{}:head{}", self.prefix, self.tags[tag]))
    }

    fn pair(&self, turn: u64) -> [String; 2] {
        [0, 7].map(|tag| format!("{}:pair:{turn}{}", self.prefix, self.tags[tag]))
    }

    /// Works until the connection ends or, with one command at a time, a command is refused.
    fn work(
        &mut self,
        mut connection: Connection,
        pace: Pace,
        steps_done: &AtomicU64,
        stopping: &AtomicBool,
    ) {
        for first in (1..).step_by(pace.steps() as usize) {
            if stopping.load(Ordering::SeqCst) {
                return;
            }
            let steps = first..first + pace.steps();
            let commands: Vec<[String; 8]> = steps.clone().map(|step| self.commands(step)).collect();
            self.sent_ms.extend(steps.map(|_| now_ms()));
            if matches!(pace, Pace::Pipelined) && connection.send(commands.as_flattened()).is_err() {
                return;
            }
            for (index, commands) in commands.iter().enumerate() {
                for command in commands {
                    if matches!(pace, Pace::OneCommand)
                        && connection.send(std::slice::from_ref(command)).is_err()
                    {
                        return;
                    }
                    for _ in 0..connection.reply_count(command) {
                        match connection.refusal() {
                            Ok(None) => {}
                            Ok(refused) => {
                                // The disk is gone or full; what was acknowledged before counts.
                                self.refused = refused;
                                return;
                            }
                            Err(error) if is_closed(&error) => return,
                            Err(error) => {
                                let step = first + index as u64;
                                panic!("{}: step {step} is not answered: {error}", self.prefix)
                            }
                        }
                    }
                }
                self.acknowledged_ms.push(now_ms());
                steps_done.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// How many steps were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged_ms.len() as u64
    }

    /// How many steps were acknowledged by this time.
    pub fn acknowledged_by(&self, ms: u64) -> u64 {
        self.acknowledged_ms.partition_point(|at| *at <= ms) as u64
    }

    /// How long before `ms` the oldest acknowledged step was acknowledged that the server did not hold in some key
    /// at the check; 0 when it held them all.
    pub fn lost_ms(&self, ms: u64) -> u64 {
        let found = self.found.as_ref().expect("it was checked");
        let held = found.counter.min(found.stamp).min(found.list_steps).min(found.head.0);
        let first_lost = self.acknowledged_ms.get(held as usize);
        first_lost.map_or(0, |at| ms.saturating_sub(*at).max(1))
    }

    /// Checks what the server holds: at least everything up to step `least`, which is what the sync mode promises.
    pub fn check(&mut self, least: u64, resp: &mut Resp) {
        let bounds = Bounds {
            prefix: &self.prefix,
            least,
            acknowledged: self.acknowledged(),
            most: self.sent_ms.len() as u64,
        };
        let found = Found {
            counter: self.check_counter(&bounds, resp),
            stamp: self.check_stamps(&bounds, resp),
            list_steps: self.check_list(&bounds, resp),
            head: self.check_head(&bounds, resp),
            pairs: self.check_pairs(&bounds, resp),
        };
        self.check_leases(&bounds, resp);
        let first = self.found.get_or_insert_with(|| Found { pairs: found.pairs.clone(), ..found });
        assert_eq!(*first, found, "{bounds}: an earlier start served something else");
    }

    fn check_counter(&self, bounds: &Bounds<'_>, resp: &mut Resp) -> u64 {
        let counter = number(&resp.ask(&format!("GET {}:counter", self.prefix)));
        bounds.contain("counter", counter);
        counter
    }

    fn check_stamps(&self, bounds: &Bounds<'_>, resp: &mut Resp) -> u64 {
        let stamps = resp.ask(&format!("MGET {}", self.stamps().join(" ")));
        let whole = stamps.items().iter().all(|stamp| *stamp == stamps.items()[0]);
        assert!(whole, "{bounds}: half an MSET is there: {stamps}");
        let stamp = number(&stamps.items()[0]);
        bounds.contain("stamp", stamp);
        stamp
    }

    fn check_list(&self, bounds: &Bounds<'_>, resp: &mut Resp) -> u64 {
        let list = resp.ask(&format!("GET {}:list", self.prefix));
        let list = if list == Value::Nil { b"" } else { list.bytes() };
        let count = list.iter().filter(|byte| **byte == b';').count() as u64;
        let expected: String = (1..=count).map(|step| format!("{step};")).collect();
        assert!(list == expected.as_bytes(), "{bounds}: the list has a gap: {}", list.escape_ascii());
        bounds.contain("list", count);
        count
    }

    /// The step of the last MSET, and whether the APPEND is there that builds on it.
    fn check_head(&self, bounds: &Bounds<'_>, resp: &mut Resp) -> (u64, bool) {
        let heads = resp.ask(&format!("MGET {}", self.heads().join(" ")));
        let [head, peer] = heads.items() else { panic!("{bounds}: MGET of 2 keys: {heads}") };
        if (head, peer) == (&Value::Nil, &Value::Nil) {
            bounds.contain("head", 0);
            return (0, false);
        }
        let text = |value: &Value| match value {
            Value::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("{bounds}: half an MSET is there: {other} in {heads}"),
        };
        let (head, peer) = (text(head), text(peer));
        let step: u64 = peer.strip_suffix(':').and_then(|step| step.parse().ok()).unwrap_or_default();
        let appended = head == format!("{step}:{step}");
        assert!(appended || head == peer, "{bounds}: MSET and APPEND do not fit: {heads}");
        bounds.contain("head", step);
        assert!(appended || step > bounds.least, "{bounds}: an APPEND is missing: {heads}");
        (step, appended)
    }

    /// The step of each pair, 0 where it is removed.
    fn check_pairs(&self, bounds: &Bounds<'_>, resp: &mut Resp) -> Vec<u64> {
        let keys: Vec<String> = (0..TURN).flat_map(|turn| self.pair(turn)).collect();
        let values = resp.ask(&format!("MGET {}", keys.join(" ")));
        let mut pairs = Vec::new();
        for (turn, pair) in (0..TURN).zip(values.items().chunks(2)) {
            assert!(pair[0] == pair[1], "{bounds}: half of pair {turn} is there: {} {}", pair[0], pair[1]);
            let value = number(&pair[0]);
            // What the pair holds after a step: the last one that set it, unless it was removed since.
            let after = |step: u64| {
                let set = last_in_turn(turn, step);
                if step >= set + PAIR_STEPS { 0 } else { set }
            };
            let possible = (bounds.least..=bounds.most).any(|step| {
                // Within a step the MSET of one pair comes before the DEL of another.
                after(step) == value
            });
            assert!(possible, "{bounds}: pair {turn} holds {value}");
            pairs.push(value);
        }
        pairs
    }

    fn check_leases(&self, bounds: &Bounds<'_>, resp: &mut Resp) {
        for turn in 0..TURN {
            let key = format!("{}:lease:{turn}", self.prefix);
            let before_ms = now_ms();
            let (value, ttl) = (resp.ask(&format!("GET {key}")), resp.ask(&format!("PTTL {key}")).integer());
            let after_ms = now_ms();
            let least = last_in_turn(turn, bounds.least);
            if value == Value::Nil || ttl == -2 {
                let possible = (least..=bounds.most).step_by(TURN as usize);
                let may_miss = |step: u64| step == 0 || self.deadline_ms(step).0 <= after_ms;
                let steps: Vec<u64> = possible.collect();
                assert!(steps.iter().copied().any(may_miss), "{bounds}: {key} is missing");
                continue;
            }
            let step = String::from_utf8_lossy(value.bytes()).trim_end_matches('.').parse().unwrap_or(0);
            let known = step >= least.max(1) && step <= bounds.most && step % TURN == turn;
            assert!(known, "{bounds}: {key} holds {value}");
            let (earliest_ms, latest_ms) = self.deadline_ms(step);
            let (earliest, latest) =
                (earliest_ms.saturating_sub(after_ms), latest_ms.saturating_sub(before_ms));
            let ttl = u64::try_from(ttl).unwrap_or_else(|_| panic!("{bounds}: {key} has no TTL: {ttl}"));
            assert!(
                (earliest..=latest).contains(&ttl),
                "{bounds}: {key} of step {step} has a TTL of {ttl} ms, not {earliest} to {latest}"
            );
        }
    }

    /// Between which times the lease of a step ends.
    fn deadline_ms(&self, step: u64) -> (u64, u64) {
        let index = step as usize - 1;
        let latest = self.acknowledged_ms.get(index).copied().unwrap_or_else(|| self.sent_ms[index] + 20_000);
        let ttl_ms = ttl_ms(step);
        (self.sent_ms[index] + ttl_ms - CLOCK_SLACK_MS, latest + ttl_ms + CLOCK_SLACK_MS)
    }
}

/// Some leases end soon, most outlive the test; whole seconds.
fn ttl_ms(step: u64) -> u64 {
    if step % 4 == 3 { 1000 } else { 10_000_000 + 1000 * step }
}

/// The last step up to `step` that wrote key number `turn`; 0 for none.
fn last_in_turn(turn: u64, step: u64) -> u64 {
    step.saturating_sub((step + TURN - turn) % TURN)
}

fn number(value: &Value) -> u64 {
    match value {
        Value::Nil => 0,
        value => String::from_utf8_lossy(value.bytes()).parse().unwrap(),
    }
}

/// Between which steps each key of a writer has to be.
struct Bounds<'a> {
    prefix: &'a str,
    least: u64,
    acknowledged: u64,
    most: u64,
}

impl Bounds<'_> {
    fn contain(&self, what: &str, step: u64) {
        assert!((self.least..=self.most).contains(&step), "{self}: the {what} is at step {step}");
    }
}

impl fmt::Display for Bounds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds { prefix, least, acknowledged, most } = self;
        write!(f, "writer {prefix}: {acknowledged} steps acknowledged, {least} safe, {most} sent")
    }
}

enum Connection {
    Text(Text),
    Resp(Resp),
}

impl Connection {
    fn send(&mut self, commands: &[String]) -> io::Result<()> {
        match self {
            Connection::Text(text) => text.wire.try_send((commands.join("\n") + "\n").as_bytes()),
            Connection::Resp(resp) => {
                let bytes: Vec<u8> = commands
                    .iter()
                    .flat_map(|command| command.lines())
                    .flat_map(|line| encoded(&words(line)))
                    .collect();
                resp.wire.try_send(&bytes)
            }
        }
    }

    /// How many replies a command gets. In the text protocol those of a transaction follow each other.
    fn reply_count(&self, command: &str) -> usize {
        let lines = command.lines().count();
        match self {
            Connection::Text(_) if lines > 1 => 1 + 2 * (lines - 2),
            Connection::Text(_) | Connection::Resp(_) => lines,
        }
    }

    /// Reads a reply. Returns it if it is an error.
    fn refusal(&mut self) -> io::Result<Option<String>> {
        let reply = match self {
            Connection::Text(text) => String::from_utf8_lossy(&text.wire.try_line()?).into_owned(),
            Connection::Resp(resp) => resp.try_read()?.to_string(),
        };
        Ok(reply.starts_with('-').then_some(reply))
    }
}
