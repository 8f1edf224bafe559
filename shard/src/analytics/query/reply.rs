//! The replies to questions, made of what all shards have found.

use std::borrow::Cow;

use super::question::Question;
use super::result::{Cold, Hot, Intervals, Prefix, QueryResult};
use crate::analytics::anomalies::Finding;
use crate::analytics::classes::OTHER;
use crate::analytics::intervals::suggest;
use crate::analytics::reuse::hit_ratio;
use crate::error::{Error, InsufficientData};
use crate::reply::Reply;
use crate::timestamp;

/// The multiples of today's memory that CACHE-ADVICE tells about.
const MULTIPLES: [(&str, f64); 5] = [("1/4", 0.25), ("1/2", 0.5), ("1", 1.0), ("2", 2.0), ("4", 4.0)];

/// How much a reply tells where the question does not ask for an explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What fits a line for people: of the hottest keys only counts, and an error says why no TTL can be suggested.
    Brief,
    /// Every field, for programs; null where no TTL can be suggested.
    Full,
}

impl QueryResult {
    /// The reply to the question.
    pub fn reply(mut self, question: &Question, detail: Detail) -> Reply<'static> {
        self.prune(question);
        match question {
            Question::Hot { explain, .. } => {
                let explain = *explain || detail == Detail::Full;
                Reply::Array(self.hot.iter().map(|hot| hot_reply(hot, explain)).collect())
            }
            Question::Cold { .. } => Reply::Array(self.cold.iter().map(cold_reply).collect()),
            Question::Prefixes { count } => {
                self.prefixes
                    .retain(|prefix| prefix.keys > 0 || prefix.class.reads + prefix.class.writes > 0);
                self.prefixes.sort_by(|a, b| (b.bytes, &a.class.name).cmp(&(a.bytes, &b.class.name)));
                Reply::Array(self.prefixes.iter().take(*count).map(prefix_reply).collect())
            }
            Question::Ttl { target, explain, .. } => self.ttl_reply(*target, *explain, detail),
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

    fn ttl_reply(&self, target: f64, explain: bool, detail: Detail) -> Reply<'static> {
        // Shards may know the key by different classes: the one with most to tell counts.
        let of_classes = self.intervals.iter().filter(|it| !it.of_key);
        let most = of_classes.max_by_key(|it| (it.class != OTHER, it.closed.count()));
        let Some(of_class) = most else {
            let refusal = InsufficientData::FewObservations { needed: 1, have: 0 };
            return refused(refusal, None, explain, detail);
        };
        // The history of the key itself counts where it is long enough, else that of its class.
        let ask = |it: &Intervals| suggest(&it.closed, &it.open, target, it.watched_ms);
        let of_key = self.intervals.iter().filter(|it| it.of_key);
        let by_key = of_key.filter_map(|it| Some((it, ask(it).ok()?))).next();
        let (intervals, suggestion) = match by_key.map_or_else(|| ask(of_class).map(|it| (of_class, it)), Ok)
        {
            Ok(found) => found,
            Err(refusal) => return refused(refusal, Some(&of_class.class), explain, detail),
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

fn refused(refusal: InsufficientData, class: Option<&[u8]>, explain: bool, detail: Detail) -> Reply<'static> {
    match (explain, detail) {
        (false, Detail::Brief) => Reply::Error(Error::InsufficientData(refusal)),
        (false, Detail::Full) => Reply::Nil,
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
    Reply::Double(digits.trim_end_matches('0').trim_end_matches('.').to_owned())
}

fn optional(number: Option<u64>) -> Reply<'static> {
    number.map_or(Reply::Nil, |number| Reply::Integer(number as i64))
}
