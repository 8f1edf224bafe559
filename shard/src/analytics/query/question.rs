//! What is asked, as requests say it.

use crate::analytics::classes::{Class, OTHER};
use crate::analytics::hot::By;
use crate::auto_ttl::Rule;
use crate::command::spec::{Run, Server, Topic};
use crate::databases::expect_analysed;
use crate::error::Error;
use crate::integer;
use crate::reply::Reply;
use crate::request::Request;

/// So many items are listed when the client does not say.
const COUNT_DEFAULT: usize = 10;
/// So many are listed at most.
pub const COUNT_MAX: usize = 8192;
/// The share of re-accesses that a suggested TTL is to keep hits when the client does not say.
const TARGET_DEFAULT: f64 = 0.99;
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
        /// For how many seconds the keys have not been used.
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
    /// When its arguments are not those of its command, or the client has selected a database whose keys' use is not
    /// followed.
    pub fn of(request: &Request<'_>) -> Result<Question, Error> {
        expect_analysed(request.database)?;
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
    pub(super) fn is_about(&self, class: &Class) -> bool {
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
