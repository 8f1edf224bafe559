//! The analytics of one shard and of several, asked as a client asks.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::query::{Detail, QueryResult, Question};
use super::*;
use crate::commands::transcript;
use crate::{Changes, Reply, Request, Shard, Span, command};

const EPOCH_MS: u64 = 1_768_473_000_000;

fn counting() -> Shard {
    Shard::new([1, 2, 3, 4]).with_analytics(EPOCH_MS)
}

fn run(shard: &mut Shard, request: &str, now_ms: u64) -> Reply<'static> {
    let words: Vec<_> = request.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    transcript::execute(shard, &words, now_ms, &mut Changes::default()).into_owned()
}

/// What the shards answer together to a question, asked as a client does.
fn ask(shards: &mut [Shard], request: &str, now_ms: u64, keys_a_step: usize) -> Reply<'static> {
    let words: Vec<_> = request.split(' ').collect();
    let mut spans = Vec::new();
    let mut start = 0;
    for word in &words {
        spans.push(Span { start: start as u32, len: word.len() as u32 });
        start += word.len();
    }
    let buffer = words.concat().into_bytes();
    let row = command::find(words[0].as_bytes()).expect("a command of the table");
    let request = command::resolve(Request::new(row, &buffer, &spans[1..])).unwrap();
    let question = Question::of(&request).unwrap();
    let mut all: Option<QueryResult> = None;
    for (number, shard) in shards.iter_mut().enumerate() {
        let mut query = shard.ask(question.clone(), number, now_ms).unwrap();
        let found = std::iter::from_fn(|| Some(shard.advance(&mut query, keys_a_step))).flatten().next();
        let found = found.expect("a walk ends");
        match &mut all {
            Some(all) => all.add(found, &question),
            None => all = Some(found),
        }
    }
    all.unwrap().reply(&question, Detail::Full)
}

fn field(reply: &Reply<'_>, name: &str) -> String {
    let Reply::Map(fields) = reply else { panic!("{reply:?} is no map") };
    match fields.iter().find(|(known, _)| known == name).map(|(_, value)| value) {
        Some(Reply::Integer(number)) => number.to_string(),
        Some(Reply::Double(digits)) => digits.clone(),
        Some(Reply::Bulk(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Some(Reply::Nil) => "nil".to_owned(),
        other => panic!("{name} is {other:?}"),
    }
}

fn column(reply: &Reply<'_>, name: &str) -> Vec<String> {
    let Reply::Array(rows) = reply else { panic!("{reply:?} is no list") };
    rows.iter().map(|row| field(row, name)).collect()
}

#[test]
fn a_key_keeps_its_counters_while_it_exists() {
    let mut shard = counting();
    run(&mut shard, "SET a 1", EPOCH_MS + 2000);
    run(&mut shard, "GET a", EPOCH_MS + 3999);
    run(&mut shard, &format!("SET a {}", "x".repeat(3000)), EPOCH_MS + 4000);
    run(&mut shard, "EXPIRE a 100", EPOCH_MS + 5000);
    run(&mut shard, "STRLEN a", EPOCH_MS + 64_000);
    for _ in 0..2 {
        let reply = run(&mut shard, "ANALYZE a", EPOCH_MS + 65_000);
        let fields = ["reads", "writes", "created", "last_access", "idle", "ttl", "size"];
        let expected = ["2", "3", "2026-01-15T10:30:02Z", "2026-01-15T10:31:04Z", "1", "40", "3000"];
        assert_eq!(fields.map(|name| field(&reply, name)), expected, "to be analyzed is no use");
    }
    assert_eq!(run(&mut shard, "ANALYZE a", EPOCH_MS + 105_000), Reply::Nil);
    run(&mut shard, "SET a 1", EPOCH_MS + 106_000);
    assert_eq!(field(&run(&mut shard, "ANALYZE a", EPOCH_MS + 106_000), "reads"), "0");
}

#[test]
fn keys_of_the_log_count_from_the_start_on() {
    let mut shard = counting();
    shard.apply(&crate::Change::Put { key: b"a", value: b"1", deadline_ms: None });
    run(&mut shard, "GET a", EPOCH_MS + 7000);
    let reply = run(&mut shard, "ANALYZE a", EPOCH_MS + 8000);
    let fields = ["reads", "writes", "created", "last_access"];
    let expected = ["1", "0", "2026-01-15T10:30:00Z", "2026-01-15T10:30:07Z"];
    assert_eq!(fields.map(|name| field(&reply, name)), expected);
}

#[test]
fn shards_answer_together_as_one() {
    let mut shards: Vec<_> = (0..3).map(|_| counting()).collect();
    for number in 0..30 {
        let shard = &mut shards[number % 3];
        run(shard, &format!("SET key:{number} {}", "v".repeat(number)), EPOCH_MS);
        (0..number).for_each(|_| drop(run(shard, &format!("GET key:{number}"), EPOCH_MS + 10_000)));
    }
    let hottest = ["key:29", "key:28", "key:27", "key:26"];
    for request in ["HOTKEYS 4", "HOTKEYS 4 TOTAL", "HOTKEYS 4 BY reads", "HOTKEYS 4 BY bytes"] {
        for keys_a_step in [1, 4, 1000] {
            let reply = ask(&mut shards, request, EPOCH_MS + 11_000, keys_a_step);
            assert_eq!(column(&reply, "key"), hottest, "{request}");
            assert_eq!(column(&reply, "reads"), ["29", "28", "27", "26"], "{request}");
        }
    }
    run(&mut shards[1], "GET key:28", EPOCH_MS + 20_000);
    let cold = ask(&mut shards, "COLDKEYS 10 3", EPOCH_MS + 21_000, 2);
    assert_eq!(column(&cold, "key"), ["key:29", "key:27", "key:26"]);
    assert_eq!(column(&cold, "idle"), ["11", "11", "11"]);
    let prefixes = ask(&mut shards, "PREFIXES 100", EPOCH_MS + 21_000, 2);
    let sum = |name| column(&prefixes, name).iter().map(|n| n.parse::<u64>().unwrap()).sum::<u64>();
    assert_eq!((sum("keys"), sum("reads"), sum("writes")), (30, 436, 30));
    let sizes = (0..30).map(|n| n + "key:".len() as u64 + if n < 10 { 1 } else { 2 });
    assert_eq!(sum("bytes"), sizes.sum::<u64>());
}

#[test]
fn what_is_gone_is_not_listed() {
    let mut shards = [counting()];
    for request in ["SET a 1", "SET b 1 PX 500", "GET a", "GET a", "GET b", "SET c 1"] {
        run(&mut shards[0], request, EPOCH_MS);
    }
    run(&mut shards[0], "DEL a", EPOCH_MS);
    for request in ["HOTKEYS", "HOTKEYS TOTAL", "COLDKEYS 0"] {
        let reply = ask(&mut shards, request, EPOCH_MS + 500, 9);
        assert_eq!(column(&reply, "key"), ["c"], "{request}");
    }
    run(&mut shards[0], "CLEAR", EPOCH_MS + 600);
    run(&mut shards[0], "SET d 1", EPOCH_MS + 600);
    for request in ["HOTKEYS", "HOTKEYS TOTAL", "COLDKEYS 0"] {
        assert_eq!(column(&ask(&mut shards, request, EPOCH_MS + 700, 9), "key"), ["d"], "{request}");
    }
}

/// 100 keys are read every 20 s, one of them every second.
#[test]
fn a_ttl_is_learnt_from_the_key_where_it_has_a_history_and_else_from_its_class() {
    let mut shard = counting();
    for number in 0..100 {
        run(&mut shard, &format!("SET user:{number} v"), EPOCH_MS);
    }
    let mut now_ms = EPOCH_MS;
    for second in 1..=2000 {
        now_ms = EPOCH_MS + second * 1000;
        run(&mut shard, "GET user:1", now_ms);
        for number in (0..100).filter(|number| number % 20 == second % 20) {
            run(&mut shard, &format!("GET user:{number}"), now_ms);
        }
    }
    let shards = &mut [shard];
    let mut ttl_s = |question: &str| {
        let reply = ask(shards, question, now_ms, 10);
        let number = |name| field(&reply, name).parse::<u64>().unwrap();
        (number("ttl"), field(&reply, "learnt_from"), number("observations"))
    };
    let (ttl, learnt_from, observations) = ttl_s("SUGGEST-TTL user:1 EXPLAIN");
    assert!((1..=2).contains(&ttl) && learnt_from == "key" && observations == 2100, "{ttl} {observations}");
    for question in ["SUGGEST-TTL CLASS user:* EXPLAIN", "SUGGEST-TTL user:new EXPLAIN"] {
        let (ttl, learnt_from, observations) = ttl_s(question);
        assert!((20..=25).contains(&ttl) && learnt_from == "class", "{ttl} for {question}");
        assert_eq!(observations, 2000 + 10_000);
    }
    let analyzed = run(&mut shards[0], "ANALYZE user:1", now_ms);
    assert_eq!(field(&analyzed, "interval_p50_ms"), "1023");
}

#[test]
fn the_hit_ratio_to_expect_is_that_of_an_lru_cache() {
    let mut shard = counting();
    let mut now_ms = EPOCH_MS;
    for round in 0..20 {
        for number in 0..1000 {
            now_ms += 1;
            run(&mut shard, &format!("GET key:{number}"), now_ms);
            if round == 0 {
                run(&mut shard, &format!("SET key:{number} value"), now_ms);
            }
        }
    }
    let Reply::Array(rows) = ask(&mut [shard], "CACHE-ADVICE", now_ms, 10) else { panic!("no list") };
    let hit_ratio = |row: &Reply<'_>| field(row, "hit_ratio").parse::<f64>().unwrap();
    let ratios: Vec<_> = rows.iter().map(hit_ratio).collect();
    assert_eq!(ratios[0], 0.95);
    assert!(ratios[1..3].iter().all(|ratio| *ratio < 0.01), "{ratios:?}: a cycle that does not fit misses");
    assert!(
        ratios[4..].iter().all(|ratio| (ratio - 0.95).abs() < 0.01),
        "{ratios:?}: and one that fits hits"
    );
}

#[test]
fn a_sample_stands_for_all() {
    let mut shards = [counting()];
    run(&mut shards[0], "SET often 1", EPOCH_MS);
    run(&mut shards[0], "SET seldom 1", EPOCH_MS);
    let mut gets = 0;
    for round in 0..8 * u64::from(OBSERVED_A_SECOND) {
        let key = if round % 4 == 0 { "seldom" } else { "often" };
        gets += u64::from(key == "often");
        run(&mut shards[0], &format!("GET {key}"), EPOCH_MS + 1000);
    }
    let reply = ask(&mut shards, "HOTKEYS 1", EPOCH_MS + 1000, 1);
    let recent: f64 = column(&reply, "recent_reads")[0].parse().unwrap();
    // What was before the first observation that is one of many, and after the last one, is not known.
    assert!((recent - gets as f64).abs() < 256.0, "{recent} of {gets} reads");
    assert_eq!(column(&reply, "reads"), [gets.to_string()], "the key's own counters are exact");
}

#[test]
fn memory_is_bounded_whatever_the_keys() {
    let mut shard = counting();
    for number in 0..50_000u64 {
        let key = format!("{number}:{}:{number}", "k".repeat(number as usize % 700));
        run(&mut shard, &format!("SET {key} 1 PX 100"), EPOCH_MS + number);
        run(&mut shard, &format!("GET {key}"), EPOCH_MS + number);
        shard.expire(EPOCH_MS + number, 9);
        if number % 1000 == 0 {
            shard.note_second(EPOCH_MS + number, Some(100.0));
        }
    }
    let bytes = shard.stats().analytics_memory_bytes;
    assert!(bytes < 16 << 20, "{bytes} bytes");
}

#[test]
fn a_storm_on_a_key_is_an_anomaly_of_that_key() {
    let mut shards = [counting()];
    let mut now_ms = EPOCH_MS;
    run(&mut shards[0], "SET user:42 1", now_ms);
    run(&mut shards[0], "SET user:7 1", now_ms);
    for second in 0..300u64 {
        let reads = if second < 290 { 20 + second % 3 } else { 5000 };
        (0..reads).for_each(|_| drop(run(&mut shards[0], "GET user:42", now_ms)));
        (0..20).for_each(|_| drop(run(&mut shards[0], "GET user:7", now_ms)));
        now_ms += 1000;
        shards[0].note_second(now_ms, Some(80.0));
        if second == 289 {
            assert_eq!(ask(&mut shards, "ANOMALIES", now_ms, 1), Reply::Array(vec![]));
        }
    }
    let reply = ask(&mut shards, "ANOMALIES", now_ms, 1);
    let names = column(&reply, "name");
    assert!(names.iter().any(|name| name == "user:42"), "{reply:?}");
    assert!(!names.iter().any(|name| name == "user:7"), "{reply:?}");
    assert_eq!(column(&reply, "since")[0], timestamp_of(EPOCH_MS + 291_000));
}

#[test]
fn a_key_that_was_removed_on_purpose_has_no_rest_and_no_place_in_a_larger_cache() {
    for is_missed in [false, true] {
        let mut shards = [counting()];
        let mut now_ms = EPOCH_MS;
        for round in 0..1200 {
            let key = format!("page:{}", round % 10);
            run(&mut shards[0], &format!("SET {key} x"), now_ms);
            run(&mut shards[0], &format!("GET {key}"), now_ms + 1000);
            run(&mut shards[0], &format!("DEL {key}"), now_ms + 1000);
            now_ms += 10_000;
            if is_missed {
                run(&mut shards[0], &format!("GET {key}"), now_ms);
            }
        }
        if is_missed {
            let advice = ask(&mut shards, "CACHE-ADVICE", now_ms, 7);
            let ratios = column(&advice, "hit_ratio");
            assert_eq!((&*ratios[0], &*ratios[5]), ("0.5", "0.5"), "no memory brings back what was removed");
        } else {
            let prefixes = ask(&mut shards, "PREFIXES", now_ms, 9);
            assert_eq!(column(&prefixes, "interval_p99_ms"), ["1023"], "a second, to a quarter");
        }
    }
}

#[test]
fn clear_and_reset_forget_what_was_learnt() {
    for (request, keeps) in [("ANALYTICS RESET", false), ("CLEAR", true)] {
        let mut shards: Vec<_> = (0..2).map(|_| counting()).collect();
        let mut now_ms = EPOCH_MS;
        for second in 0..1000u64 {
            now_ms += 1000;
            // The shard that answers last has the storm.
            let reads = if (980..990).contains(&second) { 1000 } else { 5 };
            (0..reads).for_each(|_| drop(run(&mut shards[1], "GET user:1", now_ms)));
            for shard in &mut shards {
                if second == 0 || second % 10 == 9 {
                    run(shard, "SET user:1 x", now_ms);
                    run(shard, "GET user:2", now_ms);
                }
                shard.note_second(now_ms, None);
            }
        }
        let known = |shards: &mut [Shard], now_ms| {
            let mut rows = |request| match ask(shards, request, now_ms, 9) {
                Reply::Array(rows) => rows.len(),
                other => panic!("{other:?}"),
            };
            let (anomalies, hot) = (rows("ANOMALIES"), rows("HOTKEYS"));
            let advice = column(&ask(shards, "CACHE-ADVICE", now_ms, 9), "hit_ratio")[3] != "nil";
            let ttl = ask(shards, "SUGGEST-TTL user:1", now_ms, 9) != Reply::Nil;
            let class = ask(shards, "SUGGEST-TTL CLASS user:*", now_ms, 9) != Reply::Nil;
            (anomalies > 0, hot > 0, advice, ttl, class)
        };
        assert_eq!(known(&mut shards, now_ms), (true, true, true, true, true));
        let watched = |shards: &mut [Shard], now_ms| {
            field(&ask(shards, "ANALYTICS STATUS", now_ms, 9), "watched_seconds")
        };
        assert_eq!(watched(&mut shards, now_ms), "1000");
        if request == "CLEAR" {
            shards.iter_mut().for_each(|shard| drop(run(shard, "CLEAR", now_ms)));
        } else {
            assert_eq!(ask(&mut shards, request, now_ms, 9), Reply::Ok);
        }
        assert_eq!(watched(&mut shards, now_ms), "0", "{request}");
        // What is not as usual, and how well another memory would have done, is no knowledge of keys.
        let (anomalies, hot, advice, ttl, class) = known(&mut shards, now_ms + 500_000);
        assert_eq!((hot, ttl, class), (false, false, false), "{request}");
        assert_eq!((anomalies, advice), (keeps, keeps), "{request}");
    }
}

/// Some sessions are used every 61 seconds, others every 97.
fn with_sessions(shards: &mut [Shard]) -> u64 {
    let mut now_ms = EPOCH_MS;
    for second in 0..8000u64 {
        now_ms += 1000;
        for key in [second % 97, 200 + second % 61] {
            let number = key as usize % shards.len();
            let request = if second < 97 { "SET session:{} x" } else { "GET session:{}" };
            run(&mut shards[number], &request.replace("{}", &key.to_string()), now_ms);
        }
    }
    now_ms
}

#[test]
fn a_time_to_live_is_suggested_from_the_rests_of_the_class() {
    let mut shards: Vec<_> = (0..2).map(|_| counting()).collect();
    let now_ms = with_sessions(&mut shards);
    let explained = ask(&mut shards, "SUGGEST-TTL CLASS session:* EXPLAIN", now_ms, 7);
    let number = |name| field(&explained, name).parse::<f64>().unwrap();
    // Half of the uses come after 61 seconds, the others after 97: a bucket ends up to a quarter later.
    assert!((97.0..=122.0).contains(&number("ttl")), "{explained:?}");
    assert!(number("expected_hit_ratio") >= 0.99 && number("observations") > 1000.0, "{explained:?}");
    assert_eq!((number("keys"), number("watched_seconds")), (158.0, 8000.0));
    let short = ask(&mut shards, "SUGGEST-TTL CLASS session:* TARGET 0.4", now_ms, 7);
    assert!(matches!(short, Reply::Integer(61..=77)), "{short:?}");
    let of_key = ask(&mut shards, "SUGGEST-TTL session:250 EXPLAIN", now_ms, 7);
    assert_eq!(field(&of_key, "learnt_from"), "class", "its own history is too short: {of_key:?}");
    let mut now_ms = now_ms;
    for _ in 0..100 {
        now_ms += 61_000;
        run(&mut shards[0], "GET session:250", now_ms);
    }
    let of_key = ask(&mut shards, "SUGGEST-TTL session:250 EXPLAIN", now_ms, 7);
    assert_eq!(field(&of_key, "learnt_from"), "key", "{of_key:?}");
    assert!((61..=77).contains(&field(&of_key, "ttl").parse::<u32>().unwrap()), "{of_key:?}");
    let apply = Question::Ttl {
        subject: query::Subject::Class(b"session:*"[..].into()),
        target: 0.99,
        explain: false,
        apply: true,
    };
    let rule = apply.rule_to_apply(&explained).unwrap();
    assert_eq!((&rule.pattern[..], rule.ttl_ms as f64), (&b"session:*"[..], number("ttl") * 1000.0));
}

#[test]
fn keys_that_rest_count_on_whichever_shard_they_are() {
    for idle in [0, 1] {
        let mut shards: Vec<_> = (0..2).map(|_| counting()).collect();
        for round in 0..100u64 {
            for number in 0..100 {
                // The keys of one shard are used to the end, those of the other for a tenth of the time.
                if number % 2 != idle || round < 10 {
                    let request = if round == 0 { "SET page:{} x" } else { "GET page:{}" };
                    let request = request.replace("{}", &number.to_string());
                    run(&mut shards[number % 2], &request, EPOCH_MS + round * 10_000);
                }
            }
        }
        let explained = ask(&mut shards, "SUGGEST-TTL CLASS page:* EXPLAIN", EPOCH_MS + 1_000_000, 7);
        assert_eq!(field(&explained, "idle_share"), "0.5", "{explained:?}");
        assert_eq!(field(&explained, "observations"), (50 * 99 + 50 * 9).to_string());
    }
}

#[test]
fn shards_have_watched_for_as_long_as_the_youngest_of_them() {
    for late in [0, 1] {
        let began_ms = |shard| EPOCH_MS + if shard == late { 900_000 } else { 0 };
        let mut shards: Vec<_> =
            (0..2).map(|shard| Shard::new([1, 2, 3, 4]).with_analytics(began_ms(shard))).collect();
        for (shard, round) in (0..2).flat_map(|shard| (0..1000u64).map(move |round| (shard, round))) {
            let now_ms = EPOCH_MS + round * 1000;
            if now_ms >= began_ms(shard) {
                run(&mut shards[shard], &format!("SET page:{} x", 2 * (round % 10) as usize + shard), now_ms);
            }
        }
        let now_ms = EPOCH_MS + 1_000_000;
        let explained = ask(&mut shards, "SUGGEST-TTL CLASS page:* EXPLAIN", now_ms, 7);
        assert_eq!(field(&explained, "watched_seconds"), "100", "{explained:?}");
    }
}

#[test]
fn after_a_clear_no_key_has_rested() {
    let mut shard = counting();
    for time_ms in [EPOCH_MS, EPOCH_MS + 1_000_000] {
        (0..100).for_each(|number| drop(run(&mut shard, &format!("SET page:{number} x"), time_ms)));
        run(&mut shard, "CLEAR", time_ms);
    }
    let now_ms = EPOCH_MS + 1_001_000;
    (0..100).for_each(|number| drop(run(&mut shard, &format!("SET page:{number} x"), now_ms)));
    let prefixes = ask(&mut [shard], "PREFIXES", now_ms, 9);
    assert_eq!(column(&prefixes, "interval_p99_ms"), ["nil"]);
}

#[test]
fn a_key_that_expires_too_early_shows_in_the_rests_of_its_class() {
    let mut shards = [counting()];
    let mut now_ms = EPOCH_MS;
    for _ in 0..400 {
        now_ms += 1000;
        for key in 0..20 {
            run(&mut shards[0], &format!("GET page:{key}"), now_ms + key * 7);
        }
        // The next use comes after 50 seconds, when the key has been gone for 40.
        now_ms += 49_000;
        for key in 0..20 {
            run(&mut shards[0], &format!("SETEX page:{key} 10 x"), now_ms - 49_000 + key * 7);
        }
        shards[0].expire(now_ms, 100);
    }
    let suggested = ask(&mut shards, "SUGGEST-TTL CLASS page:*", now_ms, 7);
    let Reply::Integer(seconds) = suggested else { panic!("{suggested:?}") };
    assert!((50..=64).contains(&seconds), "{seconds} seconds");
}

#[test]
fn more_memory_is_advised_where_it_would_help() {
    let mut shards = [counting()];
    let mut now_ms = EPOCH_MS;
    for round in 0..30_000u64 {
        now_ms += 10;
        let key = round * 7919 % 1000;
        if run(&mut shards[0], &format!("GET page:{key}"), now_ms) == Reply::Nil {
            run(&mut shards[0], &format!("SET page:{key} {}", "v".repeat(100)), now_ms);
        }
    }
    let advice = ask(&mut shards, "CACHE-ADVICE", now_ms, 7);
    assert_eq!(column(&advice, "memory"), ["now", "1/4", "1/2", "1", "2", "4"]);
    let ratios: Vec<f64> = column(&advice, "hit_ratio").iter().map(|it| it.parse().unwrap()).collect();
    // Each key comes again after all others: with less memory it would be gone by then.
    assert!(ratios[0] > 0.95 && ratios[1] < 0.3 && ratios[5] > 0.9, "{ratios:?}");
}

fn timestamp_of(ms: u64) -> String {
    crate::timestamp::format(ms)
}

/// What a key's counters have to be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counters {
    reads: u32,
    writes: u32,
    last_access_s: u32,
    created_s: u32,
    deadline_ms: Option<u64>,
}

proptest! {
    #[test]
    fn counters_agree_with_a_model(
        requests in proptest::collection::vec((0..9u8, 0..5u8, 0..1500u64), 1..200),
    ) {
        let mut shard = counting();
        let mut model: BTreeMap<String, Counters> = BTreeMap::new();
        let mut now_ms = EPOCH_MS;
        for (command, key, pause_ms) in requests {
            now_ms += pause_ms;
            let now_s = ((now_ms - EPOCH_MS) / 1000) as u32;
            model.retain(|_, counters| counters.deadline_ms.is_none_or(|deadline_ms| deadline_ms > now_ms));
            let key = format!("k{key}");
            let deadline_ms = Some(now_ms + 2000);
            let long = "x".repeat(pause_ms as usize);
            let request = match command {
                0 => format!("SET {key} {long}"),
                1 => format!("SET {key} 1 EX 2"),
                2 => format!("APPEND {key} {long}x"),
                3 => format!("EXPIRE {key} 2"),
                4 => format!("DEL {key}"),
                5 if pause_ms > 1400 => "CLEAR".to_owned(),
                5 | 6 => format!("GET {key}"),
                7 => format!("MGET {key} {key}"),
                _ => format!("SET {key} 1 NX"),
            };
            run(&mut shard, &request, now_ms);
            let known = model.contains_key(&key);
            let unused = Counters { created_s: now_s, ..Counters::default() };
            let mut used = |reads, writes, deadline: Option<Option<u64>>| {
                let counters = model.entry(key.clone()).or_insert(unused);
                counters.reads += reads;
                counters.writes += writes;
                counters.last_access_s = now_s;
                counters.deadline_ms = deadline.unwrap_or(counters.deadline_ms);
            };
            match command {
                0 => used(0, 1, Some(None)),
                1 => used(0, 1, Some(deadline_ms)),
                2 => used(0, 1, None),
                3 if known => used(0, 1, Some(deadline_ms)),
                4 => drop(model.remove(&key)),
                5 if pause_ms > 1400 => model.clear(),
                5 | 6 if known => used(1, 0, None),
                7 if known => used(2, 0, None),
                8 if !known => used(0, 1, Some(None)),
                _ => {}
            }
            let mut counted = BTreeMap::new();
            for number in 0..5 {
                let key = format!("k{number}");
                let keyspace = shard.keyspace();
                let Some(found) = keyspace.find(keyspace.probe(key.as_bytes())) else { continue };
                let entry = keyspace.entry(found);
                if entry.deadline_ms().is_some_and(|deadline_ms| deadline_ms <= now_ms) {
                    continue;
                }
                let Usage { reads, writes, last_access_s, created_s } = entry.usage().unwrap();
                let deadline_ms = entry.deadline_ms();
                counted.insert(key, Counters { reads, writes, last_access_s, created_s, deadline_ms });
            }
            prop_assert_eq!(&counted, &model);
        }
    }
}
