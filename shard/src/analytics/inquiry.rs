//! What can be asked about the use of keys, and how the answers of several shards become one.
//!
//! A [`Question`] goes to every shard. There it is an [`Inquiry`], which is advanced in slices where it has
//! to walk over the keys, so that requests are served meanwhile. It ends as [`Findings`]; those of several
//! shards, which hold different keys, add up and become the reply.

use std::borrow::Cow;
use std::collections::HashMap;

use super::Analytics;
use super::anomalies::Finding;
use super::class_id::ClassId;
use super::classes::{Class, OTHER};
use super::hot::{By, HotKey};
use super::intervals::{Histogram, suggest};
use super::reuse::{Curve, hit_ratio};
use crate::auto_ttl::Rule;
use crate::command::spec::{Run, Server, Topic};
use crate::error::{Error, InsufficientData};
use crate::integer;
use crate::reply::Reply;
use crate::request::{Dialect, Request};
use crate::scan::{KEY_STEPS, steps_of};
use crate::stats::Stats;
use crate::store::entry::Entry;
use crate::store::keyspace::Keyspace;
use crate::timestamp;

/// So many items are listed when the client does not say.
const COUNT_DEFAULT: usize = 10;
/// So many are listed at most.
pub const COUNT_MAX: usize = 8192;
/// The share of re-accesses that a suggested TTL is to keep hits when the client does not say.
const TARGET_DEFAULT: f64 = 0.99;
/// The multiples of today's memory that CACHE-ADVICE tells about.
const MULTIPLES: [(&str, f64); 5] = [("1/4", 0.25), ("1/2", 0.5), ("1", 1.0), ("2", 2.0), ("4", 4.0)];

/// What is asked of every shard.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// `HOTKEYS`.
    Hot {
        /// How many keys.
        count: usize,
        /// What is ranked by.
        by: By,
        /// Since each key was made, in place of lately.
        total: bool,
        /// All that is known is asked for, not only the counts.
        explain: bool,
    },
    /// `COLDKEYS`.
    Cold {
        /// For how many seconds nobody has used the keys.
        idle_s: u32,
        /// How many keys.
        count: usize,
    },
    /// `PREFIXES`.
    Prefixes {
        /// How many classes.
        count: usize,
    },
    /// `SUGGEST-TTL`.
    Ttl {
        /// The key, or the class.
        subject: Subject,
        /// The share of re-accesses that are to be hits.
        target: f64,
        /// The whole reasoning is asked for, not only the number.
        explain: bool,
        /// The class is to get what is suggested.
        apply: bool,
    },
    /// `CACHE-ADVICE`.
    Cache,
    /// `ANOMALIES`.
    Anomalies,
    /// `ANALYTICS STATUS`.
    Status,
    /// `ANALYTICS RESET`.
    Reset,
}

/// About what a TTL is suggested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A key.
    Key(Box<[u8]>),
    /// A class, by its name.
    Class(Box<[u8]>),
}

impl Question {
    /// What a request asks.
    ///
    /// # Errors
    /// When its arguments are not those of its command.
    pub fn of(request: &Request<'_>) -> Result<Question, Error> {
        let Run::Server(Server::Question(topic)) = request.command.run else {
            unreachable!("{} asks nothing about the use of keys", request.command.name);
        };
        match topic {
            Topic::Anomalies => Ok(Question::Anomalies),
            Topic::CacheAdvice => Ok(Question::Cache),
            Topic::Coldkeys => cold_keys(request),
            Topic::Hotkeys => hot_keys(request),
            Topic::Prefixes => Ok(Question::Prefixes { count: count_argument(request, 0)? }),
            Topic::Reset => Ok(Question::Reset),
            Topic::Status => Ok(Question::Status),
            Topic::SuggestTtl => suggest_ttl(request),
        }
    }

    /// The rule that follows from the reply, if the question asks to apply it and the reply knows one.
    pub fn rule_to_apply(&self, reply: &Reply<'_>) -> Option<Rule> {
        let Question::Ttl { subject: Subject::Class(name), apply: true, .. } = self else { return None };
        let ttl = match reply {
            Reply::Map(fields) => &fields.first()?.1,
            reply => reply,
        };
        let Reply::Integer(ttl_s) = ttl else { return None };
        // But for the star at its end, the name of a class is to be taken as it is.
        let begin = name.strip_suffix(b"*")?;
        let escaped = begin.iter().flat_map(|byte| {
            let escape = b"*?[\\".contains(byte).then_some(b'\\');
            escape.into_iter().chain([*byte])
        });
        let pattern: Vec<u8> = escaped.chain([b'*']).collect();
        Rule::new(&pattern, u64::try_from(*ttl_s).ok()?.saturating_mul(1000)).ok()
    }

    /// Whether a class is the one that the question names.
    fn is_about(&self, class: &Class) -> bool {
        matches!(self, Question::Ttl { subject: Subject::Class(name), .. } if class.name == **name)
    }
}

fn count_argument(request: &Request<'_>, index: usize) -> Result<usize, Error> {
    if index >= request.arg_count() {
        return Ok(COUNT_DEFAULT);
    }
    let count = integer::parse(request.arg(index)).and_then(|count| usize::try_from(count).ok());
    count.filter(|count| *count > 0).map(|count| count.min(COUNT_MAX)).ok_or(Error::InvalidCount)
}

/// `HOTKEYS [n] [BY reads | writes | bytes] [TOTAL] [EXPLAIN]`.
fn hot_keys(request: &Request<'_>) -> Result<Question, Error> {
    let (mut count, mut by, mut total, mut explain) = (COUNT_DEFAULT, By::Operations, false, false);
    let mut args = request.args().enumerate();
    while let Some((index, arg)) = args.next() {
        let is = |word: &str| arg.eq_ignore_ascii_case(word.as_bytes());
        if is("TOTAL") {
            total = true;
        } else if is("EXPLAIN") {
            explain = true;
        } else if is("BY") {
            let (_, what) = args.next().ok_or(Error::Syntax)?;
            let is = |word: &str| what.eq_ignore_ascii_case(word.as_bytes());
            by = match () {
                () if is("READS") => By::Reads,
                () if is("WRITES") => By::Writes,
                () if is("BYTES") => By::Bytes,
                () => return Err(Error::Syntax),
            };
        } else if index == 0 {
            count = count_argument(request, 0)?;
        } else {
            return Err(Error::Syntax);
        }
    }
    match (total, by) {
        (true, By::Bytes) => Err(Error::Syntax), // No key counts the bytes that it moves.
        _ => Ok(Question::Hot { count, by, total, explain }),
    }
}

/// `COLDKEYS seconds [n]`.
fn cold_keys(request: &Request<'_>) -> Result<Question, Error> {
    let idle = integer::parse(request.arg(0)).ok_or(Error::NotAnInteger)?;
    let idle_s = u32::try_from(idle).map_err(|_| Error::InvalidSeconds)?;
    Ok(Question::Cold { idle_s, count: count_argument(request, 1)? })
}

/// `SUGGEST-TTL key | CLASS name [TARGET share] [EXPLAIN] [APPLY]`.
fn suggest_ttl(request: &Request<'_>) -> Result<Question, Error> {
    let is = |arg: &[u8], word: &str| arg.eq_ignore_ascii_case(word.as_bytes());
    let mut args = request.args();
    let first = args.next().ok_or(Error::Syntax)?;
    let mut target = TARGET_DEFAULT;
    let (mut explain, mut apply) = (false, false);
    let mut subject = Subject::Key(first.into());
    if is(first, "CLASS")
        && let Some(name) = request.args().nth(1).filter(|arg| !is(arg, "TARGET") && !is(arg, "EXPLAIN"))
    {
        args.next();
        subject = Subject::Class(name.into());
    }
    while let Some(option) = args.next() {
        if is(option, "EXPLAIN") {
            explain = true;
        } else if is(option, "APPLY") {
            apply = true;
        } else if is(option, "TARGET") {
            let share = args.next().ok_or(Error::Syntax)?;
            let share = std::str::from_utf8(share).ok().and_then(|text| text.parse().ok());
            target = share.filter(|share| *share > 0.0 && *share < 1.0).ok_or(Error::InvalidTarget)?;
        } else {
            return Err(Error::Syntax);
        }
    }
    match &subject {
        Subject::Key(_) if apply => Err(Error::Syntax), // A rule is for a class.
        Subject::Class(name) if apply && name.iter().any(u8::is_ascii_whitespace) => {
            Err(Error::InvalidSetting("auto-ttl", "the name of the class holds blanks".into()))
        }
        Subject::Class(name) if apply && **name == *OTHER => {
            Err(Error::InvalidSetting("auto-ttl", "the keys of the class have no name in common".into()))
        }
        _ => Ok(Question::Ttl { subject, target, explain, apply }),
    }
}

/// A question at one shard, and how far it is answered.
#[derive(Debug)]
pub struct Inquiry {
    question: Question,
    /// Where the walk over the keys goes on; `None`: no more keys are needed.
    position: Option<u64>,
    /// Keys and bytes of the classes.
    sizes: HashMap<ClassId, (u64, u64)>,
    findings: Findings,
}

impl Inquiry {
    /// Begins to answer.
    pub(crate) fn begin(
        question: Question,
        analytics: &mut Analytics,
        keyspace: &Keyspace,
        stats: Stats,
        shard: usize,
    ) -> Inquiry {
        let mut findings = Findings::default();
        let walks = match &question {
            Question::Hot { count, by, total: false, .. } => {
                findings.hot = hot_of_late(*count, *by, analytics, keyspace);
                false
            }
            Question::Hot { .. } | Question::Cold { .. } | Question::Prefixes { .. } => true,
            Question::Ttl { explain, .. } => {
                findings.intervals = intervals(&question, analytics, keyspace);
                *explain
            }
            Question::Cache => {
                findings.curves.push(analytics.reuse.curve(stats.hits, stats.misses));
                findings.memory_bytes = keyspace.memory_bytes() as u64;
                (findings.hits, findings.lookups) = (stats.hits, stats.hits + stats.misses);
                false
            }
            Question::Anomalies => {
                let found = analytics.detector.findings(analytics.now_ms);
                findings.anomalies = found.into_iter().map(|finding| (shard, finding)).collect();
                false
            }
            Question::Status => {
                findings.status = Status::of(analytics);
                false
            }
            Question::Reset => {
                analytics.reset(stats);
                false
            }
        };
        Inquiry { question, position: walks.then_some(0), sizes: HashMap::new(), findings }
    }

    /// Visits about `keys_max` keys more, fewer if they are long. Returns the findings once there are no more to visit.
    pub(crate) fn advance(
        &mut self,
        keys_max: usize,
        analytics: &Analytics,
        keyspace: &Keyspace,
    ) -> Option<Findings> {
        let Inquiry { question, position, sizes, findings } = self;
        if let Some(from) = *position {
            let mut steps = keys_max * KEY_STEPS;
            *position = keyspace.walk_while(from, keys_max, |entry| {
                steps = steps.saturating_sub(steps_of(entry.key()));
                let goes_on = steps > 0;
                let Some(usage) = entry.usage() else { return goes_on };
                if entry.deadline_ms().is_some_and(|deadline_ms| analytics.has_come(deadline_ms)) {
                    return goes_on;
                }
                let bytes = entry.key().len() + entry.value().len();
                match question {
                    Question::Hot { by, .. } => {
                        let (reads, writes) = (u64::from(usage.reads), u64::from(usage.writes));
                        let key = || entry.key().to_vec();
                        let hot = |key| Hot { key, reads, writes, ..Hot::default() };
                        let rank = hot(Vec::new()).rank(*by, true);
                        if rank > findings.floor {
                            findings.hot.push(hot(key()));
                        }
                    }
                    Question::Cold { idle_s, .. } => {
                        let idle = analytics.now_s.saturating_sub(usage.last_access_s);
                        if idle >= *idle_s && bytes as f64 > findings.floor {
                            let key = entry.key().to_vec();
                            findings.cold.push(Cold { key, bytes: bytes as u64, idle_s: idle });
                        }
                    }
                    _ => {
                        let (keys, sum) = sizes.entry(analytics.classes.find(entry.key())).or_default();
                        *keys += 1;
                        *sum += bytes as u64;
                    }
                }
                goes_on
            });
            findings.prune(question);
        }
        if self.position.is_some() {
            return None;
        }
        let classes = || {
            analytics.classes.iter().map(|(id, class)| {
                let (keys, bytes) = sizes.get(&id).copied().unwrap_or_default();
                Prefix { class: class.clone(), keys, bytes }
            })
        };
        match question {
            Question::Prefixes { .. } => findings.prefixes = classes().collect(),
            Question::Ttl { subject: Subject::Class(_), .. } => {
                findings.prefixes = classes().filter(|prefix| question.is_about(&prefix.class)).collect();
            }
            Question::Ttl { subject: Subject::Key(key), .. } => {
                let id = analytics.classes.find(key);
                let name = &analytics.classes.class(id).name;
                findings.prefixes = classes().filter(|prefix| prefix.class.name == *name).collect();
            }
            _ => {}
        }
        Some(std::mem::take(findings))
    }
}

/// The hottest keys of late that exist or are looked for, with what their entries have counted.
fn hot_of_late(count: usize, by: By, analytics: &Analytics, keyspace: &Keyspace) -> Vec<Hot> {
    let mut found = Vec::new();
    // Keys that are gone are passed over; there may be any number of them.
    for hot in analytics.top.top(COUNT_MAX, by, analytics.now_ms) {
        if found.len() == count {
            break;
        }
        let entry = keyspace.find(keyspace.probe(&hot.key)).map(|found| keyspace.entry(found));
        let entry = entry.filter(|entry| !entry.deadline_ms().is_some_and(|ms| analytics.has_come(ms)));
        let usage = entry.and_then(Entry::usage);
        let is_cut = hot.key.len() < hot.key_len;
        let (reads, writes) = match usage {
            Some(usage) => (u64::from(usage.reads), u64::from(usage.writes)),
            None if is_cut => (hot.reads.round() as u64, hot.writes.round() as u64),
            None if hot.misses < 0.5 => continue,
            None => (0, 0),
        };
        let exists = entry.is_some() || is_cut;
        found.push(Hot { key: hot.key.clone(), reads, writes, is_missing: !exists, of_late: Some(hot) });
    }
    found
}

fn intervals(question: &Question, analytics: &Analytics, keyspace: &Keyspace) -> Vec<Intervals> {
    let of = |id: ClassId, class: &Class| Intervals {
        class: class.name.clone(),
        of_key: false,
        closed: class.intervals.clone(),
        open: analytics.tracker.open(Some(id), analytics.now_ms),
        watched_ms: analytics.classes_watched_ms(),
        bytes: 0,
    };
    match question {
        Question::Ttl { subject: Subject::Key(key), .. } => {
            let id = analytics.classes.find(key);
            let of_class = of(id, analytics.classes.class(id));
            let probe = keyspace.probe(key);
            let Some(closed) = analytics.histories.closed(probe.hash) else { return vec![of_class] };
            let entry = keyspace.find(probe).map(|found| keyspace.entry(found));
            let mut open = Histogram::default();
            if let Some(usage) = entry.and_then(Entry::usage) {
                open.record(u64::from(analytics.idle_s(usage.last_access_s)) * 1000, 1);
            }
            let class = of_class.class.clone();
            let (closed, watched_ms) = (closed.clone(), analytics.watched_ms());
            let bytes = entry.map_or(0, |entry| key.len() + entry.value().len()) as u64;
            vec![Intervals { class, of_key: true, closed, open, watched_ms, bytes }, of_class]
        }
        _ => {
            let classes = analytics.classes.iter().filter(|(_, class)| question.is_about(class));
            classes.map(|(id, class)| of(id, class)).collect()
        }
    }
}

/// What one shard, or several, have found. Only the fields that the question is about are filled.
#[derive(Debug, Default)]
pub struct Findings {
    hot: Vec<Hot>,
    cold: Vec<Cold>,
    /// What ranks no higher than this is not among those asked for.
    floor: f64,
    prefixes: Vec<Prefix>,
    intervals: Vec<Intervals>,
    curves: Vec<Curve>,
    memory_bytes: u64,
    hits: u64,
    lookups: u64,
    anomalies: Vec<(usize, Finding)>,
    status: Status,
}

#[derive(Debug, Default)]
struct Hot {
    key: Vec<u8>,
    reads: u64,
    writes: u64,
    /// No such key exists: it is looked for in vain.
    is_missing: bool,
    of_late: Option<HotKey>,
}

#[derive(Debug)]
struct Cold {
    key: Vec<u8>,
    bytes: u64,
    idle_s: u32,
}

#[derive(Debug)]
struct Prefix {
    class: Class,
    keys: u64,
    bytes: u64,
}

/// How long the keys of a class, or one of them, rest between two uses.
#[derive(Debug)]
struct Intervals {
    class: Vec<u8>,
    /// Whether it is about the key that was asked for alone.
    of_key: bool,
    closed: Histogram,
    open: Histogram,
    watched_ms: u64,
    /// The size of the key and its value; of a class, the walk finds it out.
    bytes: u64,
}

/// How much is known.
#[derive(Clone, Copy, Debug, Default)]
struct Status {
    memory_bytes: u64,
    classes: u64,
    series: u64,
    series_ready: u64,
    watched_ms: u64,
}

impl Status {
    fn of(analytics: &Analytics) -> Status {
        let (series, series_ready) = analytics.detector.series_counts();
        Status {
            memory_bytes: analytics.memory_bytes() as u64,
            classes: analytics.classes.iter().count() as u64,
            series: series as u64,
            series_ready: series_ready as u64,
            watched_ms: analytics.watched_ms(),
        }
    }
}

impl Hot {
    fn rank(&self, by: By, total: bool) -> f64 {
        match (&self.of_late, total, by) {
            (Some(hot), false, By::Operations) => hot.reads + hot.writes + hot.misses,
            (Some(hot), false, By::Reads) => hot.reads,
            (Some(hot), false, By::Writes) => hot.writes,
            (Some(hot), false, By::Bytes) => hot.bytes,
            (_, _, By::Reads) => self.reads as f64,
            (_, _, By::Writes) => self.writes as f64,
            (_, _, By::Operations | By::Bytes) => (self.reads + self.writes) as f64,
        }
    }
}

impl Findings {
    /// Adds what another shard has found.
    pub fn add(&mut self, other: Findings, question: &Question) {
        self.hot.extend(other.hot);
        self.cold.extend(other.cold);
        for prefix in other.prefixes {
            match self.prefixes.iter_mut().find(|known| known.class.name == prefix.class.name) {
                Some(known) => {
                    known.class.add(&prefix.class);
                    known.keys += prefix.keys;
                    known.bytes += prefix.bytes;
                }
                None => self.prefixes.push(prefix),
            }
        }
        for intervals in other.intervals {
            let same =
                |known: &&mut Intervals| known.class == intervals.class && known.of_key == intervals.of_key;
            match self.intervals.iter_mut().find(same) {
                Some(known) => {
                    known.closed.add(&intervals.closed);
                    known.open.add(&intervals.open);
                    known.watched_ms = known.watched_ms.min(intervals.watched_ms);
                }
                None => self.intervals.push(intervals),
            }
        }
        self.curves.extend(other.curves);
        self.memory_bytes += other.memory_bytes;
        self.hits += other.hits;
        self.lookups += other.lookups;
        self.anomalies.extend(other.anomalies);
        self.status.memory_bytes += other.status.memory_bytes;
        self.status.classes += other.status.classes;
        self.status.series += other.status.series;
        self.status.series_ready += other.status.series_ready;
        self.status.watched_ms = self.status.watched_ms.max(other.status.watched_ms);
        self.prune(question);
    }

    /// Drops what is not among those asked for, once there is much of it.
    fn prune(&mut self, question: &Question) {
        match *question {
            Question::Hot { count, by, total, .. } => {
                let rank = |hot: &Hot| hot.rank(by, total);
                self.floor = keep_best(&mut self.hot, count, rank, |hot| &hot.key).unwrap_or(self.floor);
            }
            Question::Cold { count, .. } => {
                let rank = |cold: &Cold| cold.bytes as f64;
                self.floor = keep_best(&mut self.cold, count, rank, |cold| &cold.key).unwrap_or(self.floor);
            }
            _ => {}
        }
    }

    /// The reply to the question.
    pub fn reply(mut self, question: &Question, dialect: Dialect) -> Reply<'static> {
        self.prune(question);
        match question {
            Question::Hot { explain, .. } => {
                let explain = *explain || dialect != Dialect::Text;
                Reply::Array(self.hot.iter().map(|hot| hot_reply(hot, explain)).collect())
            }
            Question::Cold { .. } => Reply::Array(self.cold.iter().map(cold_reply).collect()),
            Question::Prefixes { count } => {
                self.prefixes
                    .retain(|prefix| prefix.keys > 0 || prefix.class.reads + prefix.class.writes > 0);
                self.prefixes.sort_by(|a, b| (b.bytes, &a.class.name).cmp(&(a.bytes, &b.class.name)));
                Reply::Array(self.prefixes.iter().take(*count).map(prefix_reply).collect())
            }
            Question::Ttl { target, explain, .. } => self.ttl_reply(*target, *explain, dialect),
            Question::Cache => self.cache_reply(),
            Question::Anomalies => {
                self.anomalies.sort_by(|(_, a), (_, b)| {
                    (a.until_ms.is_some()).cmp(&b.until_ms.is_some()).then(b.score.total_cmp(&a.score))
                });
                Reply::Array(self.anomalies.iter().map(anomaly_reply).collect())
            }
            Question::Status => self.status_reply(),
            Question::Reset => Reply::Ok,
        }
    }

    fn ttl_reply(&self, target: f64, explain: bool, dialect: Dialect) -> Reply<'static> {
        // Shards may know the key by different classes: the one with most to tell counts.
        let of_classes = self.intervals.iter().filter(|it| !it.of_key);
        let most = of_classes.max_by_key(|it| (it.class != OTHER, it.closed.count()));
        let Some(of_class) = most else {
            let refusal = InsufficientData::FewObservations { needed: 1, have: 0 };
            return refused(refusal, None, explain, dialect);
        };
        // The history of the key itself counts where it is long enough, else that of its class.
        let ask = |it: &Intervals| suggest(&it.closed, &it.open, target, it.watched_ms);
        let of_key = self.intervals.iter().filter(|it| it.of_key);
        let by_key = of_key.filter_map(|it| Some((it, ask(it).ok()?))).next();
        let (intervals, suggestion) = match by_key.map_or_else(|| ask(of_class).map(|it| (of_class, it)), Ok)
        {
            Ok(found) => found,
            Err(refusal) => return refused(refusal, Some(&of_class.class), explain, dialect),
        };
        let ttl_s = suggestion.ttl_s as i64;
        if !explain {
            return Reply::Integer(ttl_s);
        }
        let size = self.prefixes.iter().find(|prefix| prefix.class.name == intervals.class);
        let (keys, bytes) = match size {
            _ if intervals.of_key => (1, intervals.bytes),
            Some(prefix) => (prefix.keys, prefix.bytes),
            None => (0, 0),
        };
        map([
            ("ttl", Reply::Integer(ttl_s)),
            ("expected_hit_ratio", decimal(suggestion.expected_hit_ratio)),
            ("target", decimal(target)),
            ("class", text(&intervals.class)),
            ("learnt_from", text(if intervals.of_key { b"key" } else { b"class" })),
            ("observations", Reply::Integer(suggestion.observations as i64)),
            ("watched_seconds", Reply::Integer((intervals.watched_ms / 1000) as i64)),
            ("p50_ms", optional(intervals.closed.quantile(0.5))),
            ("p99_ms", optional(intervals.closed.quantile(0.99))),
            ("idle_share", decimal(suggestion.idle_share)),
            ("keys", Reply::Integer(keys as i64)),
            ("bytes", Reply::Integer(bytes as i64)),
            ("bytes_saved", Reply::Integer((suggestion.idle_share * bytes as f64) as i64)),
        ])
    }

    fn cache_reply(&self) -> Reply<'static> {
        let rows = MULTIPLES.map(|(name, factor)| {
            let bytes = (self.memory_bytes as f64 * factor) as u64;
            let expected = hit_ratio(&self.curves, bytes);
            map([
                ("memory", text(name.as_bytes())),
                ("bytes", Reply::Integer(bytes as i64)),
                ("hit_ratio", expected.map_or(Reply::Nil, decimal)),
            ])
        });
        let measured = self.hits as f64 / self.lookups.max(1) as f64;
        let now = map([
            ("memory", text(b"now")),
            ("bytes", Reply::Integer(self.memory_bytes as i64)),
            ("hit_ratio", if self.lookups == 0 { Reply::Nil } else { decimal(measured) }),
        ]);
        Reply::Array(std::iter::once(now).chain(rows).collect())
    }

    fn status_reply(&self) -> Reply<'static> {
        let status = &self.status;
        let numbers = [
            ("memory_bytes", status.memory_bytes),
            ("watched_seconds", status.watched_ms / 1000),
            ("classes", status.classes),
            ("series", status.series),
            ("series_ready", status.series_ready),
        ];
        map(numbers.map(|(name, number)| (name, Reply::Integer(number as i64))))
    }
}

/// Keeps about the `count` best once there are twice as many; the rank of the last one kept, if it did.
fn keep_best<T>(
    items: &mut Vec<T>,
    count: usize,
    rank: impl Fn(&T) -> f64,
    key: impl Fn(&T) -> &Vec<u8>,
) -> Option<f64> {
    items.sort_by(|a, b| rank(b).total_cmp(&rank(a)).then_with(|| key(a).cmp(key(b))));
    items.truncate(count);
    (items.len() == count).then(|| items.last().map_or(0.0, &rank))
}

/// Without an explanation, RESP says null, and the text protocol the reason, which it has a line for.
fn refused(
    refusal: InsufficientData,
    class: Option<&[u8]>,
    explain: bool,
    dialect: Dialect,
) -> Reply<'static> {
    match (explain, dialect) {
        (false, Dialect::Text) => Reply::Error(Error::InsufficientData(refusal)),
        (false, Dialect::Resp2 | Dialect::Resp3) => Reply::Nil,
        (true, _) => map([
            ("ttl", Reply::Nil),
            ("reason", text(refusal.to_string().as_bytes())),
            ("class", class.map_or(Reply::Nil, text)),
        ]),
    }
}

/// The lines of the text protocol stay short unless asked otherwise: clients rely on what they look like.
fn hot_reply(hot: &Hot, explain: bool) -> Reply<'static> {
    let mut fields = vec![
        ("key", text(&hot.key)),
        ("reads", Reply::Integer(hot.reads as i64)),
        ("writes", Reply::Integer(hot.writes as i64)),
    ];
    let rounded = |count: f64| Reply::Integer(count.round() as i64);
    if let Some(recent) = &hot.of_late
        && explain
    {
        fields.extend([
            ("recent_reads", rounded(recent.reads)),
            ("recent_writes", rounded(recent.writes)),
            ("recent_misses", rounded(recent.misses)),
            ("recent_bytes", rounded(recent.bytes)),
            ("error", rounded(recent.error)),
            ("missing", Reply::Bool(hot.is_missing)),
        ]);
    } else if let (Some(recent), true) = (&hot.of_late, hot.is_missing) {
        fields.push(("misses", rounded(recent.misses)));
    }
    map(fields)
}

fn cold_reply(cold: &Cold) -> Reply<'static> {
    map([
        ("key", text(&cold.key)),
        ("bytes", Reply::Integer(cold.bytes as i64)),
        ("idle", Reply::Integer(i64::from(cold.idle_s))),
    ])
}

fn prefix_reply(prefix: &Prefix) -> Reply<'static> {
    let class = &prefix.class;
    let lookups = class.hits + class.misses;
    let ratio = if lookups == 0 { Reply::Nil } else { decimal(class.hits as f64 / lookups as f64) };
    map([
        ("class", text(&class.name)),
        ("keys", Reply::Integer(prefix.keys as i64)),
        ("bytes", Reply::Integer(prefix.bytes as i64)),
        ("reads", Reply::Integer(class.reads as i64)),
        ("writes", Reply::Integer(class.writes as i64)),
        ("hit_ratio", ratio),
        ("ttl_p50", optional(class.ttls.quantile(0.5).map(|ms| ms.div_ceil(1000)))),
        ("interval_p50_ms", optional(class.intervals.quantile(0.5))),
        ("interval_p99_ms", optional(class.intervals.quantile(0.99))),
    ])
}

fn anomaly_reply((shard, finding): &(usize, Finding)) -> Reply<'static> {
    map([
        ("text", text(finding.explanation(*shard).as_bytes())),
        ("measure", text(finding.measure.name().as_bytes())),
        ("name", text(&finding.name)),
        ("shard", Reply::Integer(*shard as i64)),
        ("value", decimal(finding.value)),
        ("normal", decimal(finding.normal)),
        ("normal_p99", decimal(finding.normal_p99)),
        ("score", decimal(finding.score)),
        ("since", text(timestamp::format(finding.since_ms).as_bytes())),
        ("until", finding.until_ms.map_or(Reply::Nil, |ms| text(timestamp::format(ms).as_bytes()))),
    ])
}

fn map(fields: impl IntoIterator<Item = (&'static str, Reply<'static>)>) -> Reply<'static> {
    Reply::Map(fields.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect())
}

fn text(bytes: &[u8]) -> Reply<'static> {
    Reply::Bulk(Cow::Owned(bytes.to_vec()))
}

fn decimal(number: f64) -> Reply<'static> {
    let digits = format!("{number:.4}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    text(digits.as_bytes())
}

fn optional(number: Option<u64>) -> Reply<'static> {
    number.map_or(Reply::Nil, |number| Reply::Integer(number as i64))
}
