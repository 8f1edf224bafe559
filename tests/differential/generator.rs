//! A walk from its seed: which connection sends what, and in which pieces. It knows no server and no reply.

use std::collections::BTreeSet;
use std::fmt;

use crate::compare::Check;
use crate::random::Random;
use crate::rows::{By, LIBRARIES, ROWS, Row, SCRIPTS_ALONE, SCRIPTS_OF_KEYS};
use crate::walk::Pair;

/// Connections of a walk; the last one is the subscriber.
pub const CONNECTIONS: usize = 3;

/// Keys of a walk: few, so that requests meet. Some lie together by their hash tags.
const KEYS: &[&str] = &["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "{t}a", "{t}b", "", "\u{e9}\n"];
/// Keys that hold counts of distinct things more often than others.
const COUNTS: &[&str] = &["h0", "h1", "{t}h"];
const CHANNELS: &[&str] = &["c1", "c2", "{t}c", "news.tech", ""];
const PATTERNS: &[&str] =
    &["*", "k?", "k[0-3]", "k[^0-3]", "c*", "news.*", "{t}*", "", "\\*", "k[", "__key*__:*", "nothing"];
/// Where something else is expected, or at the edge of what is.
const ODD: &[&str] = &[
    "",
    "abc",
    "0",
    "-1",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "1e400",
    "nan",
    "inf",
    "-inf",
    " 1",
    "1 ",
    "0x10",
    "+1",
    "00",
    "-0",
    "1.5",
    "NX",
    "EX",
    "GET",
    "KEEPTTL",
    "*",
    "k0",
    "\u{0}\u{1}",
    "18446744073709551616",
    "1e3",
    "two words",
    "\r\n",
];
const BITS: &[&str] =
    &["u1", "u8", "i8", "u16", "i16", "u32", "i64", "u63", "i5", "u64", "i65", "u0", "i0", "f8"];

/// What both servers have, and what walks are made of.
pub struct Vocabulary {
    /// Rows whose command both servers have.
    rows: Vec<&'static Row>,
    /// Subcommands that kvlite has not, as `container|name`.
    missing: BTreeSet<String>,
    /// Digests of the scripts of two keys.
    digests: Vec<String>,
    /// Values as `DUMP` shows them.
    dumped: Vec<Vec<u8>>,
}

impl Vocabulary {
    /// The rows that both servers of the pair know, or neither.
    pub fn shared(pair: &mut Pair) -> Vocabulary {
        let shared = pair.shared_commands();
        let knows = |row: &&Row| shared.contains(&row.name.to_lowercase()) || row.name == "nonsense";
        let missing = pair.missing_commands();
        let rows: Vec<&Row> = ROWS.iter().filter(knows).collect();
        let commands: Vec<&str> = rows.iter().map(|row| row.name).collect();
        println!("sent: {}", commands.join(" "));
        Vocabulary { rows, missing, digests: pair.digests(SCRIPTS_OF_KEYS), dumped: pair.dumped() }
    }

    fn knows(&self, name: &str) -> bool {
        self.rows.iter().any(|row| row.name == name)
    }
}

/// One request and how its replies are compared.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its words.
    pub words: Vec<Vec<u8>>,
    /// How replies to it are compared.
    pub check: Check,
}

/// What happens next.
#[derive(Clone, Debug)]
pub enum Step {
    /// A connection sends these at once.
    Send { connection: usize, requests: Vec<Request> },
    /// A connection speaks RESP3 from now on.
    Hello3 { connection: usize },
    /// A key expires, and both servers have noticed it.
    Lapse { key: Vec<u8> },
    /// All keys are walked through by `SCAN`.
    Scan { options: Vec<Vec<u8>> },
    /// What one server dumps the other one restores.
    Carry { from: Vec<u8>, to: Vec<u8> },
    /// All keys, their values and deadlines are compared.
    Survey,
}

/// A walk.
#[derive(Clone)]
pub struct Plan {
    /// In their order.
    pub steps: Vec<Step>,
    /// Shards of the kvlite.
    pub shards: usize,
}

impl Plan {
    /// The walk of this seed.
    pub fn new(seed: u64, requests: usize, vocabulary: &Vocabulary) -> Plan {
        let mut generator =
            Generator { random: Random::seeded(seed), vocabulary, in_transaction: [false; CONNECTIONS] };
        // Two neighbours in the order of seeds begin with other requests.
        let mut plan = Plan { steps: Vec::new(), shards: 1 + (seed % 3) as usize };
        for connection in 0..CONNECTIONS {
            if generator.random.below(2) == 0 {
                plan.steps.push(Step::Hello3 { connection });
            }
        }
        while plan.len() < requests {
            plan.steps.push(generator.step());
        }
        plan.steps.push(Step::Survey);
        plan
    }

    /// Requests in it.
    pub fn len(&self) -> usize {
        self.steps
            .iter()
            .map(|step| if let Step::Send { requests, .. } = step { requests.len() } else { 1 })
            .sum()
    }

    /// Its steps up to this one.
    pub fn up_to(mut self, step: usize) -> Plan {
        self.steps.truncate(step + 1);
        self
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "shards: {}", self.shards)?;
        for step in &self.steps {
            match step {
                Step::Send { connection, requests } => {
                    for request in requests {
                        writeln!(f, "  {connection}> {}", shown(&request.words))?;
                    }
                    if requests.len() > 1 {
                        writeln!(f, "     ({} in one piece)", requests.len())?;
                    }
                }
                Step::Hello3 { connection } => writeln!(f, "  {connection}> HELLO 3")?,
                Step::Lapse { key } => {
                    writeln!(f, "  PEXPIRE {} 1, and it is over", shown(std::slice::from_ref(key)))?;
                }
                Step::Scan { options } => writeln!(f, "  SCAN to its end {}", shown(options))?,
                Step::Carry { from, to } => {
                    writeln!(f, "  DUMP {}, RESTORE elsewhere", shown(&[from.clone(), to.clone()]))?;
                }
                Step::Survey => writeln!(f, "  all keys are compared")?,
            }
        }
        Ok(())
    }
}

/// Asks for all keys that a walk may have: those that have expired are gone for sure then.
pub fn exists_all() -> Vec<Vec<u8>> {
    let keys = KEYS.iter().chain(COUNTS).chain(ODD).map(|key| key.as_bytes().to_vec());
    [b"EXISTS".to_vec()].into_iter().chain(keys).collect()
}

/// Words as one writes them for `redis-cli`.
pub fn shown(words: &[Vec<u8>]) -> String {
    let word = |word: &Vec<u8>| {
        let plain =
            !word.is_empty() && word.iter().all(|byte| byte.is_ascii_graphic() && !b"\"'\\".contains(byte));
        let text = word[..word.len().min(400)].escape_ascii().to_string();
        let more = if word.len() > 400 { format!("...({} bytes)", word.len()) } else { String::new() };
        if plain { text + &more } else { format!("\"{}\"{more}", text.replace("\\'", "'")) }
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

struct Generator<'a> {
    random: Random,
    vocabulary: &'a Vocabulary,
    /// Whether a connection has probably begun a transaction.
    in_transaction: [bool; CONNECTIONS],
}

impl Generator<'_> {
    fn step(&mut self) -> Step {
        match self.random.below(100) {
            0 | 1 => Step::Lapse { key: self.word("key") },
            2 => Step::Scan {
                options: self.form("[MATCH pattern] [COUNT small] [TYPE (string|hash|odd)] [odd]"),
            },
            3 if self.vocabulary.knows("DUMP") => {
                Step::Carry { from: self.word("key"), to: self.word("key") }
            }
            4 => Step::Survey,
            _ => {
                let connection = self.random.below(CONNECTIONS as u64) as usize;
                let count = if self.random.below(2) == 0 { 1 } else { 1 + self.random.below(16) };
                let requests = (0..count).flat_map(|_| self.requests(connection)).collect();
                Step::Send { connection, requests }
            }
        }
    }

    /// One request, or two where the first sets up what the second asks for.
    fn requests(&mut self, connection: usize) -> Vec<Request> {
        let subscriber = connection == CONNECTIONS - 1;
        let own = |row: &&&Row| row.by == By::All || (row.by == By::Subscriber) == subscriber;
        if self.in_transaction[connection] && self.random.below(6) == 0 {
            self.in_transaction[connection] = false;
            return vec![Request { words: vec![b"EXEC".to_vec()], check: Check::Exact }];
        }
        let rows: Vec<&Row> = self.vocabulary.rows.iter().filter(own).copied().collect();
        let mut at = self.random.below(rows.iter().map(|row| u64::from(row.weight)).sum());
        let row = rows.into_iter().find(|row| {
            let found = at < u64::from(row.weight);
            at = at.saturating_sub(u64::from(row.weight));
            found
        });
        let row = row.expect("the weights are those that were added");
        if row.name == "MULTI" {
            self.in_transaction[connection] = true;
        }
        let request = Request { words: self.words(row), check: row.check };
        // What has expired is counted until somebody notices.
        if matches!(row.name, "DBSIZE" | "RANDOMKEY" | "KEYS") {
            let exists = Request { words: exists_all(), check: Check::Exact };
            return vec![exists, request];
        }
        vec![request]
    }

    fn words(&mut self, row: &Row) -> Vec<Vec<u8>> {
        let mut words = loop {
            let mut words = vec![self.cased(row.name)];
            words.extend(self.form(row.form));
            let subcommand =
                words.get(1).map_or(String::new(), |word| String::from_utf8_lossy(word).to_lowercase());
            if !self.vocabulary.missing.contains(&format!("{}|{subcommand}", row.name.to_lowercase())) {
                break words;
            }
            if self.random.below(10) == 0 {
                return vec![b"PING".to_vec()]; // All that the row says may be missing.
            }
        };
        match self.random.below(60) {
            // A key without its value is refused when it is queued, not when it runs: all behind it would differ.
            0..=2 if matches!(row.name, "MSET" | "MSETNX") => {}
            0 if words.len() > 1 => drop(words.pop()),
            1 => words.push(self.word("odd")),
            2 if words.len() > 1 => {
                let at = 1 + self.random.below(words.len() as u64 - 1) as usize;
                words[at] = self.word("odd");
            }
            _ => {}
        }
        words
    }

    /// The words of a form; see `rows.rs`.
    fn form(&mut self, form: &str) -> Vec<Vec<u8>> {
        let mut words = Vec::new();
        let mut rest = form.trim();
        while !rest.is_empty() {
            let (item, tail) = first_item(rest);
            rest = tail.trim_start();
            let (item, repeats) = match item.strip_suffix('+') {
                Some(item) => (item, 1 + self.random.below(3)),
                None => (item, 1),
            };
            for _ in 0..repeats {
                if let Some(inner) = item.strip_prefix('[') {
                    if self.random.below(2) == 0 {
                        words.extend(self.form(&inner[..inner.len() - 1]));
                    }
                } else if let Some(inner) = item.strip_prefix('(') {
                    let choices = alternatives(&inner[..inner.len() - 1]);
                    let choice = choices[self.random.below(choices.len() as u64) as usize];
                    words.extend(self.form(choice));
                } else if item == "pair" {
                    words.extend([self.word("key"), self.word("value")]);
                } else if item == "bitget" {
                    words.extend(self.form("GET bits bitoffset"));
                } else if item == "bitfield" {
                    words.extend(self.form(
                        "(GET bits bitoffset|SET bits bitoffset integer|INCRBY bits bitoffset integer|OVERFLOW (WRAP|SAT|FAIL|odd))",
                    ));
                } else if item == "request" {
                    let rows = &self.vocabulary.rows;
                    let row = rows[self.random.below(rows.len() as u64) as usize];
                    words.extend(row.name.split(' ').map(|word| word.as_bytes().to_vec()));
                    words.extend(self.form(row.form.trim_start_matches("request")));
                } else {
                    words.push(self.word(item));
                }
            }
        }
        words
    }

    /// One word of a class, or the word itself.
    fn word(&mut self, class: &str) -> Vec<u8> {
        let random = &mut self.random;
        let odd = random.below(25) == 0;
        let text = |words: &[&str], random: &mut Random| random.one_of(words).as_bytes().to_vec();
        let number = |number: i64| number.to_string().into_bytes();
        match class {
            "key" if random.below(8) == 0 => text(COUNTS, random),
            "key" => text(KEYS, random),
            "hll" if random.below(8) == 0 => text(KEYS, random),
            "hll" => text(COUNTS, random),
            "channel" => text(CHANNELS, random),
            "pattern" => text(PATTERNS, random),
            "name" => text(&["me", "you", "two words", "", "a\nb"], random),
            "script2" | "script0" | "sha2" | "library" | "dumped" | "command" => self.listed(class),
            "value" => self.value(),
            "odd" => text(ODD, random),
            "integer" | "index" | "offset" | "float" | "seconds" | "ms" | "at" | "atms" | "small" | "bit"
            | "bits" | "bitoffset" | "db"
                if odd =>
            {
                text(ODD, random)
            }
            "integer" => match random.below(6) {
                0 => number(i64::MAX - random.below(3) as i64),
                1 => number(i64::MIN + random.below(3) as i64),
                _ => number(random.below(2000) as i64 - 1000),
            },
            "index" => number(random.below(60) as i64 - 30),
            "offset" => {
                number(if random.below(8) == 0 { random.below(100_000) } else { random.below(100) } as i64)
            }
            "bitoffset" => {
                let hash = if random.below(3) == 0 { "#" } else { "" };
                format!("{hash}{}", random.below(80)).into_bytes()
            }
            "bits" => text(BITS, random),
            "bit" => number(random.below(2) as i64),
            "float" => text(
                &[
                    "0.1",
                    "-2.5",
                    "3",
                    "1e3",
                    "5.0e-3",
                    "1e17",
                    "0.00000000000001",
                    "-0.0",
                    "100000000000000000000",
                ],
                random,
            ),
            "seconds" => text(&["100", "1000", "100000", "5000000000", "-1", "0"], random),
            "ms" => text(&["100000", "1000000", "5000000000000", "-1", "0"], random),
            // Far from now on either side: what expires meanwhile is no difference.
            "at" => text(&["4102444800", "5102444800", "4102444801", "1000000000", "1", "0", "-5"], random),
            "atms" => {
                text(&["4102444800000", "5102444800000", "4102444800001", "1000000000000", "1", "0"], random)
            }
            "small" => number(random.below(12) as i64),
            "db" => text(&["0", "0", "0", "1", "15", "16"], random),
            _ => self.cased(class),
        }
    }

    fn listed(&mut self, class: &str) -> Vec<u8> {
        let random = &mut self.random;
        match class {
            "script2" => random.one_of(SCRIPTS_OF_KEYS).as_bytes().to_vec(),
            "script0" => random.one_of(SCRIPTS_ALONE).as_bytes().to_vec(),
            "library" => random.one_of(LIBRARIES).as_bytes().to_vec(),
            "command" => {
                let row = random.one_of(&self.vocabulary.rows);
                row.name.to_lowercase().into_bytes()
            }
            "sha2" if random.below(6) == 0 => b"ffffffffffffffffffffffffffffffffffffffff".to_vec(),
            "sha2" => {
                let digests = &self.vocabulary.digests;
                digests
                    .get(random.below(digests.len().max(1) as u64) as usize)
                    .map_or(b"none".to_vec(), |digest| digest.clone().into_bytes())
            }
            _ => {
                let dumped = &self.vocabulary.dumped;
                let mut bytes = dumped[random.below(dumped.len() as u64) as usize].clone();
                if random.below(4) == 0 && !bytes.is_empty() {
                    let at = random.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1;
                }
                bytes
            }
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        match random.below(10) {
            0 => random.one_of(ODD).as_bytes().to_vec(),
            1..=3 => (random.below(2000) as i64 - 1000).to_string().into_bytes(),
            4 => random.one_of(&["1.5", "-0.25", "3.0e2", "1e308", "10.50"]).as_bytes().to_vec(),
            5 => vec![b'x'; random.one_of(&[43, 44, 45, 64, 512, 5000])],
            6 => (0..random.below(40)).map(|_| random.below(256) as u8).collect(),
            _ => {
                let len = 1 + random.below(20);
                (0..len).map(|_| b'a' + random.below(6) as u8).collect()
            }
        }
    }

    fn cased(&mut self, word: &str) -> Vec<u8> {
        match self.random.below(10) {
            0 => word.to_lowercase().into_bytes(),
            _ => word.as_bytes().to_vec(),
        }
    }
}

/// The first item of a form with its brackets and its `+`, and what comes after it.
fn first_item(form: &str) -> (&str, &str) {
    let mut depth = 0;
    for (at, byte) in form.bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b' ' if depth == 0 => return form.split_at(at),
            _ => {}
        }
    }
    (form, "")
}

/// What stands between the bars that are in no brackets.
fn alternatives(choices: &str) -> Vec<&str> {
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    for (at, byte) in choices.bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'|' if depth == 0 => {
                found.push(&choices[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(&choices[from..]);
    found
}
