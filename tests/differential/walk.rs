//! Both servers, a walk over them, and what differed.

use std::collections::BTreeSet;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Resp, Value, encoded};
use crate::compare::{Check, shape};
use crate::differences;
use crate::generator::{CONNECTIONS, Plan, Request, Step, exists_all, shown};
use crate::process::{Server, within_deadline};
use crate::redis::Redis;

/// The databases in which keys are looked for; the generator names no others.
const DATABASES: [&str; 3] = ["0", "1", "15"];

/// How long a difference is looked into, to find fewer requests that show it.
const SHORTEN_FOR: Duration = Duration::from_secs(10);

/// A Redis and what is compared with it.
pub struct Pair {
    redis: Redis,
    /// With one shard, two, three.
    kvlites: Vec<Server>,
    /// A second Redis in their place.
    other: Option<Redis>,
}

/// What differed, and where.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Which step of the plan it was.
    pub step: usize,
    /// What was asked.
    request: String,
    redis: String,
    kvlite: String,
}

impl Difference {
    /// What differences of the same cause have in common: the command, and the beginnings of the replies.
    pub fn kind(&self) -> String {
        let name = self.request.split(' ').next().unwrap_or_default().to_uppercase();
        let container = [
            "CLIENT", "CONFIG", "COMMAND", "OBJECT", "PUBSUB", "SCRIPT", "FUNCTION", "SLOWLOG", "LATENCY",
            "MEMORY", "DEBUG",
        ];
        let sub = self
            .request
            .split(' ')
            .nth(1)
            .filter(|_| container.contains(&&*name))
            .unwrap_or_default()
            .to_uppercase();
        let begin = |text: &str| -> String {
            if text.starts_with('-') {
                text.chars().take(40).collect()
            } else {
                text.chars().take(1).collect()
            }
        };
        format!("{name} {sub} {} {}", begin(&self.redis), begin(&self.kvlite))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "differs: {}\n  Redis:  {}\n  kvlite: {}", self.request, self.redis, self.kvlite)
    }
}

/// One connection to each of the two servers, and what came over them unasked.
struct Ends {
    redis: End,
    kvlite: End,
    /// Whether events of keys are compared: a script over several shards tells of its effects, not of its commands.
    with_events: bool,
}

struct End {
    client: Resp,
    /// What was queued in a transaction.
    queued: Vec<Request>,
    /// Messages and other pushes.
    unasked: Vec<Value>,
    pings: u32,
}

impl End {
    fn new(client: Resp) -> End {
        End { client, queued: Vec::new(), unasked: Vec::new(), pings: 0 }
    }

    /// The next reply; what comes unasked before it is kept.
    fn reply(&mut self) -> Value {
        loop {
            match self.client.try_read() {
                Ok(value) if is_unasked(&value) => self.unasked.push(value),
                Ok(value) => return value,
                Err(error) => return Value::Error(format!("(no reply: {error})")),
            }
        }
    }

    /// All that comes before the reply to a `PING`, which a subscriber may send at any time.
    fn replies_of_subscriber(&mut self) -> Vec<Value> {
        self.pings += 1;
        let token = format!("token-{}", self.pings);
        self.client.wire.send(&encoded(&["PING", &token]));
        let mut replies = Vec::new();
        loop {
            let reply = self.reply();
            let ends = match &reply {
                Value::Bulk(bytes) => bytes == token.as_bytes(),
                Value::Array(items) => items.get(1) == Some(&Value::bulk(&token)),
                Value::Error(text) => text.starts_with("(no reply"),
                _ => false,
            };
            if ends {
                return replies;
            }
            replies.push(reply);
        }
    }
}

/// Whether no request has asked for this: messages, invalidations.
fn is_unasked(value: &Value) -> bool {
    let (Value::Array(items) | Value::Push(items)) = value else { return false };
    let kinds: [&[u8]; 4] = [b"message", b"pmessage", b"smessage", b"invalidate"];
    matches!(items.first(), Some(Value::Bulk(kind)) if items.len() > 1 && kinds.contains(&&kind[..]))
        && (matches!(value, Value::Push(_)) || items.len() >= 3)
}

impl Pair {
    /// `None`, said on standard error, where there is no Redis to compare with.
    pub fn start() -> Option<Pair> {
        let options = ["--enable-debug-command", "yes"];
        let redis = Redis::start("nothing is compared with it", &options)?;
        let version = redis.resp().ask("INFO server");
        if !String::from_utf8_lossy(version.bytes()).contains("redis_version:7.0.") {
            eprintln!("SKIPPED: redis-server is not of version 7.0, so nothing is compared with it");
            return None;
        }
        let other = std::env::var_os("KVLITE_DIFFERENTIAL_REDIS").and_then(|_| Redis::start("", &options));
        let shards: &[usize] = if other.is_some() { &[] } else { &[1, 2, 3] };
        let kvlites = shards.iter().map(|shards| Server::start(*shards, &options)).collect();
        Some(Pair { redis, kvlites, other })
    }

    /// Whether a second Redis stands in the place of kvlite.
    pub fn is_redis_twice(&self) -> bool {
        self.other.is_some()
    }

    fn ends(&self, shards: usize) -> Ends {
        let kvlite = self.other.as_ref().map_or_else(|| self.kvlites[shards - 1].resp(), Redis::resp);
        let redis = End::new(self.redis.resp());
        Ends { redis, kvlite: End::new(kvlite), with_events: shards == 1 }
    }

    /// Commands and subcommands that both have, in small letters.
    pub fn shared_commands(&mut self) -> BTreeSet<String> {
        let mut ends = self.ends(1);
        let kvlite = listed(&ends.kvlite.client.ask("COMMAND LIST"));
        listed(&ends.redis.client.ask("COMMAND LIST"))
            .into_iter()
            .filter(|name| kvlite.contains(name))
            .collect()
    }

    /// Those that only Redis has.
    pub fn missing_commands(&mut self) -> BTreeSet<String> {
        let shared = self.shared_commands();
        let redis = self.redis.resp().ask("COMMAND LIST");
        listed(&redis).into_iter().filter(|name| !shared.contains(name)).collect()
    }

    /// The digests of scripts, as Redis knows them.
    pub fn digests(&mut self, scripts: &[&str]) -> Vec<String> {
        let mut client = self.redis.resp();
        let mut load = |script: &&str| match client.ask_bytes(&["SCRIPT", "LOAD", script]) {
            Value::Bulk(digest) => Some(String::from_utf8(digest).unwrap()),
            _ => None,
        };
        scripts.iter().filter_map(&mut load).collect()
    }

    /// Some values as Redis dumps them.
    pub fn dumped(&mut self) -> Vec<Vec<u8>> {
        let mut client = self.redis.resp();
        let long = "x".repeat(300);
        let lines = [
            "SET d 17",
            "SET d -70000",
            "SET d text",
            "SET d \"\"",
            &format!("SET d {long}"),
            "PFADD h a b c",
            "RPUSH l a",
        ];
        for line in lines {
            client.ask(line);
        }
        let dumps = ["d", "h"].map(|key| client.ask_bytes(&["DUMP", key]).bytes().to_vec());
        let mut dumps = dumps.to_vec();
        for value in ["17", "-70000", "text", "", "4000000000"] {
            client.ask_bytes(&["SET", "d", value]);
            dumps.push(client.ask("DUMP d").bytes().to_vec());
        }
        dumps.extend([Vec::new(), b"short".to_vec(), vec![0; 30]]);
        client.ask("FLUSHALL");
        dumps
    }

    /// Walks over both servers, which are empty at first, up to the first difference.
    pub fn walk(&mut self, plan: &Plan) -> Result<(), Difference> {
        let mut control = self.ends(plan.shards);
        for end in [&mut control.redis, &mut control.kvlite] {
            empty(&mut end.client);
        }
        let mut ends: Vec<Ends> = (0..CONNECTIONS).map(|_| self.ends(plan.shards)).collect();
        for (at, step) in plan.steps.iter().enumerate() {
            let done = match step {
                Step::Send { connection, requests } => {
                    send(&mut ends[*connection], requests, *connection == CONNECTIONS - 1)
                }
                Step::Hello3 { connection } => send(
                    &mut ends[*connection],
                    &[request(&["HELLO", "3"], Check::Ignored)],
                    *connection == CONNECTIONS - 1,
                ),
                Step::Lapse { key } => lapse(&mut control, key),
                Step::Scan { options } => scan(&mut control, options),
                Step::Carry { from, to } => carry(&mut control, from, to),
                Step::Survey => survey(&mut control).and_then(|()| messages(&mut ends[CONNECTIONS - 1])),
            };
            done.map_err(|difference| Difference { step: at, ..difference })?;
        }
        Ok(())
    }

    /// Leaves out of a plan what a difference does not need, for a while.
    pub fn shorten(&mut self, mut plan: Plan, mut difference: Difference) -> (Plan, Difference) {
        let start = Instant::now();
        let mut piece = plan.steps.len().div_ceil(2);
        while start.elapsed() < SHORTEN_FOR {
            let mut at = 0;
            let mut fewer = false;
            while at < plan.steps.len() && start.elapsed() < SHORTEN_FOR {
                let mut candidate = plan.clone();
                candidate.steps.drain(at..(at + piece).min(plan.steps.len()));
                match self.walk(&candidate) {
                    Err(found) if found.kind() == difference.kind() => {
                        (plan, fewer) = (candidate.up_to(found.step), true);
                        difference = found;
                    }
                    _ => at += piece,
                }
            }
            if piece > 1 {
                piece = piece.div_ceil(2);
            } else if !fewer && !self.shorten_pieces(&mut plan, &mut difference, start) {
                break;
            }
        }
        (plan, difference)
    }

    /// Leaves out single requests of steps that send several.
    fn shorten_pieces(&mut self, plan: &mut Plan, difference: &mut Difference, start: Instant) -> bool {
        for at in 0..plan.steps.len() {
            let Step::Send { requests, .. } = &plan.steps[at] else { continue };
            for index in (0..requests.len()).filter(|_| requests.len() > 1) {
                let mut candidate = plan.clone();
                let Step::Send { requests, .. } = &mut candidate.steps[at] else {
                    unreachable!("it is a copy")
                };
                requests.remove(index);
                if start.elapsed() > SHORTEN_FOR {
                    return false;
                }
                if let Err(found) = self.walk(&candidate)
                    && found.kind() == difference.kind()
                {
                    *plan = candidate.up_to(found.step);
                    *difference = found;
                    return true;
                }
            }
        }
        false
    }
}

fn listed(names: &Value) -> BTreeSet<String> {
    names.items().iter().map(|name| String::from_utf8_lossy(name.bytes()).into_owned()).collect()
}

/// Makes a server as if it had been started just now. What it does not know yet it refuses, which is as well.
fn empty(client: &mut Resp) {
    for line in [
        "FLUSHALL",
        "SCRIPT FLUSH",
        "FUNCTION FLUSH",
        "CONFIG SET notify-keyspace-events \"\"",
        "CONFIG SET maxmemory-policy noeviction",
        "CONFIG SET slowlog-max-len 128",
        "DEBUG SET-ACTIVE-EXPIRE 0", // What expires does so when it is asked for: not at any time.
    ] {
        client.ask(line);
    }
    // The subscribers of the walk before are gone only when the server has noticed.
    let gone = |reply: Value| {
        matches!(reply, Value::Error(_) | Value::Integer(0)) || reply == Value::Array(Vec::new())
    };
    let quiet = ["PUBSUB CHANNELS", "PUBSUB NUMPAT", "PUBSUB SHARDCHANNELS"];
    assert!(
        within_deadline(|| quiet.iter().all(|line| gone(client.ask(line)))),
        "subscribers that are gone stay"
    );
}

fn request(words: &[&str], check: Check) -> Request {
    Request { words: words.iter().map(|word| word.as_bytes().to_vec()).collect(), check }
}

/// The replies with the names in one order of what is unsubscribed from: of all that it subscribes to Redis takes any.
fn in_one_order(mut replies: Vec<Value>) -> Vec<Value> {
    let is_end = |value: &&mut Value| {
        let (Value::Array(items) | Value::Push(items)) = value else { return false };
        matches!(items.first(), Some(Value::Bulk(kind)) if kind.ends_with(b"unsubscribe")) && items.len() == 3
    };
    let name = |value: &mut Value| match value {
        Value::Array(items) | Value::Push(items) => std::mem::replace(&mut items[1], Value::Nil),
        _ => unreachable!("only these are asked for one"),
    };
    let mut names: Vec<Value> = replies.iter_mut().filter(is_end).map(name).collect();
    names.sort_by_key(ToString::to_string);
    replies.extend(names);
    replies
}

/// Sends the same requests to both and compares what comes.
fn send(ends: &mut Ends, requests: &[Request], subscriber: bool) -> Result<(), Difference> {
    let bytes: Vec<u8> = requests.iter().flat_map(|request| encoded(&request.words)).collect();
    if subscriber {
        messages(ends)?; // What others have caused comes over their workers: not always before they are answered.
    }
    for end in [&mut ends.redis, &mut ends.kvlite] {
        end.client.wire.send(&bytes);
    }
    if subscriber {
        let replies =
            [&mut ends.redis, &mut ends.kvlite].map(|end| in_one_order(end.replies_of_subscriber()));
        for (index, reply) in replies[0].iter().enumerate() {
            let nothing = Value::Error("(nothing)".to_owned());
            let other = replies[1].get(index).unwrap_or(&nothing);
            // A request to subscribe has several replies, so any of the requests may be the one that this belongs to.
            if !requests.iter().any(|request| same(request, reply, other).is_ok()) {
                let all: Vec<String> = requests.iter().map(|request| shown(&request.words)).collect();
                return Err(differ(&all.join("; "), reply, other));
            }
        }
        return messages(ends);
    }
    for request in requests {
        let redis = ends.redis.reply();
        let kvlite = ends.kvlite.reply();
        compare(request, &redis, &kvlite, &mut ends.redis.queued)?;
    }
    let (redis, kvlite) = (std::mem::take(&mut ends.redis.unasked), std::mem::take(&mut ends.kvlite.unasked));
    if redis.len() != kvlite.len() {
        return Err(differ("(pushes)", &Value::Array(redis), &Value::Array(kvlite)));
    }
    Ok(())
}

/// The messages with what came of one request in a fixed order: Redis asks its patterns in any.
fn by_pattern(mut messages: Vec<Value>) -> Vec<Value> {
    let published = |message: &Value| match message {
        Value::Array(items) | Value::Push(items) => items[items.len().saturating_sub(2)..].to_vec(),
        _ => Vec::new(),
    };
    for same in messages.chunk_by_mut(|one, other| published(one) == published(other)) {
        same.sort_by_key(ToString::to_string);
    }
    messages
}

/// Whether a message is about what has happened to a key.
fn is_event(message: &Value) -> bool {
    let (Value::Array(items) | Value::Push(items)) = message else { return false };
    items
        .iter()
        .rev()
        .nth(1)
        .is_some_and(|channel| matches!(channel, Value::Bulk(name) if name.starts_with(b"__key")))
}

/// The messages that the subscriber has got are the same, after a moment.
fn messages(ends: &mut Ends) -> Result<(), Difference> {
    let with_events = ends.with_events;
    let gather = |end: &mut End| {
        end.replies_of_subscriber();
        end.unasked.retain(|message| with_events || !is_event(message));
        end.unasked.len()
    };
    let wanted = gather(&mut ends.redis);
    for _ in 0..100 {
        if gather(&mut ends.kvlite) >= wanted {
            break;
        }
        thread::sleep(Duration::from_millis(2)); // A message may come over another worker.
    }
    let [redis, kvlite] =
        [&mut ends.redis, &mut ends.kvlite].map(|end| by_pattern(std::mem::take(&mut end.unasked)));
    if redis == kvlite {
        Ok(())
    } else {
        Err(differ("(messages)", &Value::Array(redis), &Value::Array(kvlite)))
    }
}

/// Compares the replies to a request; those of a transaction one by one.
fn compare(
    request: &Request,
    redis: &Value,
    kvlite: &Value,
    queued: &mut Vec<Request>,
) -> Result<(), Difference> {
    let name = String::from_utf8_lossy(&request.words[0]).to_uppercase();
    let is_queued = *redis == Value::Simple("QUEUED".to_owned());
    if is_queued {
        queued.push(request.clone());
    }
    if let ("EXEC", Value::Array(ours), Value::Array(theirs)) = (&*name, redis, kvlite)
        && ours.len() == theirs.len()
    {
        return std::mem::take(queued)
            .iter()
            .zip(ours.iter().zip(theirs))
            .try_for_each(|(request, (one, other))| same(request, one, other));
    }
    if matches!(&*name, "EXEC" | "DISCARD" | "RESET") && !is_queued {
        queued.clear();
    }
    same(request, redis, kvlite)
}

fn same(request: &Request, redis: &Value, kvlite: &Value) -> Result<(), Difference> {
    if request.check.holds(redis, kvlite) || differences::reason(&request.words, redis, kvlite).is_some() {
        return Ok(());
    }
    Err(differ(&shown(&request.words), redis, kvlite))
}

fn differ(request: &str, redis: &Value, kvlite: &Value) -> Difference {
    let text = |value: &Value| match value {
        Value::Error(_) => value.to_string(),
        _ => format!("{value} ({})", shape(value)),
    };
    Difference { step: 0, request: request.to_owned(), redis: text(redis), kvlite: text(kvlite) }
}

/// Asks both the same, outside of any transaction.
fn ask(ends: &mut Ends, words: &[&[u8]], check: Check) -> Result<(Value, Value), Difference> {
    let (redis, kvlite) = (ends.redis.client.ask_bytes(words), ends.kvlite.client.ask_bytes(words));
    let request = Request { words: words.iter().map(|word| word.to_vec()).collect(), check };
    same(&request, &redis, &kvlite)?;
    Ok((redis, kvlite))
}

fn lapse(ends: &mut Ends, key: &[u8]) -> Result<(), Difference> {
    ask(ends, &[b"PEXPIRE", key, b"1"], Check::Exact)?;
    thread::sleep(Duration::from_millis(4)); // Time has to pass: that is what this is about.
    ask(ends, &[b"EXISTS", key], Check::Exact).map(drop)
}

/// Both walks find the same keys; how they come there is their own affair.
fn scan(ends: &mut Ends, options: &[Vec<u8>]) -> Result<(), Difference> {
    let walked = |client: &mut Resp| -> Value {
        let (mut cursor, mut found) = (b"0".to_vec(), BTreeSet::new());
        for _ in 0..10_000 {
            let mut words: Vec<&[u8]> = vec![b"SCAN", &cursor];
            words.extend(options.iter().map(|word| &word[..]));
            let reply = client.ask_bytes(&words);
            let Value::Array(items) = &reply else { return reply };
            found.extend(items[1].items().iter().map(|key| key.bytes().to_vec()));
            cursor = items[0].bytes().to_vec();
            if cursor == b"0" {
                return Value::Array(found.iter().map(Value::bulk).collect());
            }
        }
        Value::Error("(no end of the walk)".to_owned())
    };
    let replies = (walked(&mut ends.redis.client), walked(&mut ends.kvlite.client));
    let words = [&[b"SCAN".to_vec(), b"0".to_vec()][..], options].concat();
    same(&Request { words, check: Check::Exact }, &replies.0, &replies.1)
}

/// Each restores what the other one dumped.
fn carry(ends: &mut Ends, from: &[u8], to: &[u8]) -> Result<(), Difference> {
    let (redis, kvlite) = ask(ends, &[b"DUMP", from], Check::Shape)?;
    if let (Value::Bulk(of_redis), Value::Bulk(of_kvlite)) = (redis, kvlite) {
        let words: [&[u8]; 5] = [b"RESTORE", to, b"0", &of_kvlite, b"REPLACE"];
        let redis = ends.redis.client.ask_bytes(&words);
        let kvlite = ends.kvlite.client.ask_bytes(&[b"RESTORE", to, b"0", &of_redis, b"REPLACE"]);
        same(&Request { words: words.map(<[u8]>::to_vec).to_vec(), check: Check::Exact }, &redis, &kvlite)?;
    }
    ask(ends, &[b"GET", to], Check::Exact).map(drop)
}

/// Both have the same keys, with the same types, values and deadlines.
fn survey(ends: &mut Ends) -> Result<(), Difference> {
    for database in DATABASES {
        let kvlite = ends.kvlite.client.ask_bytes(&["SELECT", database]);
        if matches!(kvlite, Value::Error(_)) {
            continue; // A kvlite with fewer databases; that SELECT says so is compared elsewhere.
        }
        ends.redis.client.ask_bytes(&["SELECT", database]);
        ask(ends, &exists_all().iter().map(|word| &word[..]).collect::<Vec<_>>(), Check::Exact)?;
        let (keys, _) = ask(ends, &[b"KEYS", b"*"], Check::Sorted)?;
        for key in keys.items().iter().map(Value::bytes) {
            ask(ends, &[b"TYPE", key], Check::Exact)?;
            ask(ends, &[b"GET", key], Check::Exact)?;
            ask(ends, &[b"PTTL", key], Check::Near(3_000))?;
        }
    }
    for end in [&mut ends.redis, &mut ends.kvlite] {
        end.client.ask("SELECT 0");
    }
    Ok(())
}
