//! Instructions per operation on the paths that every command takes, against a committed baseline.
//!
//! A time says little on a machine that is busy with other things; the number of instructions is the same at
//! every moment. Each operation runs twice under valgrind, `count` and then twice as many times, and the
//! difference is what `count` operations take without everything around them. Instructions in the kernel are
//! not counted.
//!
//! `make bench-instructions` prints the table and fails where an operation takes more than the baseline allows;
//! with `ARGS=--accept` the table becomes the baseline.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use clap::Parser as _;
use kvlite::protocol::{Dialect, Listener, Parsed, Parser, write_reply};
use kvlite::slots;
use shard::{Change, Changes, Glob, Reply, Request, Shard, Span, command};
use wal::{Kind, Log, OsDisk, Place};

/// By which part of its baseline an operation may exceed it: room for another build of the same code.
const TOLERANCE: f64 = 0.05;
/// What an operation may take more than that, for those that take hardly any.
const TOLERANCE_INSTRUCTIONS: f64 = 2.0;

/// Keys of a shard under measurement: enough for a directory of some depth.
const KEYS: usize = 10_000;
/// The distance between keys that are visited one after the other; without a factor of `KEYS`.
const STRIDE: usize = 6_131;
const VALUE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const NOW_MS: u64 = 1_000;
/// More requests than a shard observes one by one in a second.
const BUSY_COUNT: usize = 20_000;
const KEEP_BYTES: usize = 1 << 16;
const SEGMENT_BYTES: u64 = 64 << 20;

/// Counts instructions per operation under valgrind and compares them with the baseline
#[derive(Debug, clap::Parser)]
struct Options {
    /// Make what is measured the baseline
    #[arg(long)]
    accept: bool,
    /// Only operations whose name holds one of these words
    #[arg(value_name = "WORDS")]
    only: Vec<String>,
    /// What `cargo bench` passes to every benchmark; `cargo test --all-targets` does not
    #[arg(long, hide = true)]
    bench: bool,
    /// Run an operation, which has this name, so many times and say nothing: what valgrind observes
    #[arg(long, hide = true, num_args = 2, value_names = ["NAME", "COUNT"])]
    perform: Option<Vec<String>>,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// An operation, its name, and how often it runs in the shorter of both runs.
struct Operation {
    name: &'static str,
    count: usize,
    run: fn(usize),
}

#[rustfmt::skip] // One row an operation.
const OPERATIONS: &[Operation] = &[
    Operation { name: "execute GET hit", count: KEYS, run: |count| on_keys(false, "GET", "key", None, count) },
    Operation { name: "execute GET miss", count: KEYS, run: |count| on_keys(false, "GET", "other", None, count) },
    Operation { name: "execute SET over a value of the same size", count: KEYS, run: |count| on_keys(false, "SET", "key", Some(VALUE), count) },
    Operation { name: "execute SET of a new key", count: KEYS, run: |count| on_keys(false, "SET", "other", Some(VALUE), count) },
    Operation { name: "execute INCR", count: KEYS, run: |count| on_keys(false, "INCR", "number", None, count) },
    Operation { name: "execute DEL", count: KEYS / 4, run: |count| on_keys(false, "DEL", "key", None, count) },
    Operation { name: "execute GET hit, uses counted", count: KEYS, run: |count| on_keys(true, "GET", "key", None, count) },
    Operation { name: "execute GET miss, uses counted", count: KEYS, run: |count| on_keys(true, "GET", "other", None, count) },
    Operation { name: "execute SET over a value of the same size, uses counted", count: KEYS, run: |count| on_keys(true, "SET", "key", Some(VALUE), count) },
    Operation { name: "execute SET of a new key, uses counted", count: KEYS, run: |count| on_keys(true, "SET", "other", Some(VALUE), count) },
    Operation { name: "execute DEL, uses counted", count: KEYS / 4, run: |count| on_keys(true, "DEL", "key", None, count) },
    Operation { name: "parse RESP GET", count: 1000, run: |count| parse(&resp(&["GET", "key:00000042"]), Listener::Resp, count) },
    Operation { name: "parse RESP SET of 64 B", count: 1000, run: |count| parse(&resp(&["SET", "key:00000042", VALUE]), Listener::Resp, count) },
    Operation { name: "parse text GET", count: 1000, run: |count| parse("GET key:00000042\n", Listener::Text { resp_port: None }, count) },
    Operation { name: "parse text SET of 64 B", count: 1000, run: |count| parse(&format!("SET key:00000042 {VALUE}\n"), Listener::Text { resp_port: None }, count) },
    Operation { name: "render RESP bulk of 64 B", count: 1000, run: |count| render(&Reply::bytes(VALUE.as_bytes()), Dialect::Resp2, count) },
    Operation { name: "render RESP integer", count: 1000, run: |count| render(&Reply::Integer(1_234_567), Dialect::Resp2, count) },
    Operation { name: "render text bulk of 64 B", count: 1000, run: |count| render(&Reply::bytes(VALUE.as_bytes()), Dialect::Text, count) },
    Operation { name: "find the shard of a key of 12 B", count: 1000, run: find_shard },
    Operation { name: "append 100 B to the log and write", count: 1000, run: append },
    Operation { name: "glob with a prefix, 12 B", count: 1000, run: |count| glob("key:*", count) },
    Operation { name: "glob with a substring, 12 B", count: 1000, run: |count| glob("*42*", count) },
];

// ---- operations ----

/// Runs a command once for each of `count` keys of a shard that holds `KEYS` keys and as many numbers. All that
/// lies outside of the loop is the same for every count. Where the uses of keys are counted, so many have been seen in
/// this second that the others are sampled, as under load.
fn on_keys(counted: bool, name: &str, prefix: &str, value: Option<&str>, count: usize) {
    let mut shard = Shard::new([1, 2, 3, 4]);
    if counted {
        shard = shard.with_analytics(NOW_MS);
        let get = command::find(b"GET").expect("a command of the table");
        let busy = Request::new(get, b"busy", &[Span { start: 0, len: 4 }]);
        for _ in 0..BUSY_COUNT {
            shard.execute(&busy, NOW_MS, &mut Changes::default());
        }
    }
    for number in 0..KEYS {
        for (prefix, value) in [("key", VALUE), ("number", "1000000000")] {
            let (key, value) = (key(prefix, number), value.as_bytes());
            shard.apply(&Change::Put { key: key.as_bytes(), value, deadline_ms: None });
        }
    }
    let row = command::find(name.as_bytes()).expect("a command of the table");
    let (mut buffer, mut spans) = (VALUE.as_bytes().to_vec(), Vec::new());
    for number in 0..2 * KEYS {
        // The longer run sets twice as many new keys; it reads and changes those that are there twice.
        let number = number * STRIDE % if prefix == "other" { 2 * KEYS } else { KEYS };
        let key = key(prefix, number);
        spans.push(Span { start: buffer.len() as u32, len: key.len() as u32 });
        spans.extend(value.map(|value| Span { start: 0, len: value.len() as u32 }));
        buffer.extend_from_slice(key.as_bytes());
    }
    let mut changes = Changes::default();
    let args_each = 1 + usize::from(value.is_some());
    for spans in spans.chunks_exact(args_each).take(count) {
        let request = Request::new(row, &buffer, spans);
        black_box(shard.execute(black_box(&request), NOW_MS, &mut changes));
        black_box(changes.bytes());
        changes.clear(KEEP_BYTES);
    }
}

fn key(prefix: &str, number: usize) -> String {
    format!("{prefix}:{number:08}")
}

fn resp(words: &[&str]) -> String {
    let elements = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), elements.collect::<String>())
}

fn parse(input: &str, listener: Listener, count: usize) {
    let mut parser = Parser::new(listener);
    for _ in 0..count {
        let input = black_box(input.as_bytes());
        let Ok(Parsed::Request { .. }) = parser.parse(input) else {
            panic!("the input is a whole request");
        };
        let command = parser.command().expect("a command of the table");
        black_box(parser.request(input, command));
    }
}

fn render(reply: &Reply<'_>, dialect: Dialect, count: usize) {
    let get = command::find(b"GET");
    let mut out = Vec::with_capacity(KEEP_BYTES);
    for _ in 0..count {
        out.clear();
        write_reply(black_box(reply), get, 1, dialect, &mut out);
        black_box(&out);
    }
}

fn find_shard(count: usize) {
    for _ in 0..count {
        black_box(slots::owner(black_box(b"key:00000042"), 2));
    }
}

fn append(count: usize) {
    let directory = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("there is a directory");
    let place = Place { shard_index: 0, shard_count: 1, tag: 0 };
    let opened =
        Log::recover::<wal::Error>(&OsDisk::default(), directory.path(), place, SEGMENT_BYTES, |_| Ok(()));
    let (mut log, _) = opened.expect("an empty directory is a log");
    for _ in 0..count {
        log.append(Kind::Batch, 1, black_box(&[7; 100]));
        log.flush().expect("the disk takes the frames");
    }
}

fn glob(pattern: &str, count: usize) {
    let glob = Glob::new(pattern.as_bytes()).expect("it is short");
    for _ in 0..count {
        black_box(black_box(&glob).matches(black_box(b"key:00000042")));
    }
}

// ---- counting ----

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some([name, count]) = options.perform.as_deref() {
        let operation = OPERATIONS.iter().find(|operation| operation.name == name);
        let operation = operation.expect("only this program passes names");
        (operation.run)(count.parse().expect("only this program passes counts"));
        return ExitCode::SUCCESS;
    }
    if !options.bench {
        eprintln!("instructions: nothing is counted without --bench, which `cargo bench` passes");
        return ExitCode::SUCCESS;
    }
    match compare(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Counts, prints the table, and says whether every operation is within its baseline.
fn compare(options: &Options) -> Outcome<bool> {
    let wanted = |operation: &&Operation| {
        options.only.is_empty() || options.only.iter().any(|words| operation.name.contains(words.as_str()))
    };
    let operations: Vec<_> = OPERATIONS.iter().filter(wanted).collect();
    let counted = count_all(&operations)?;
    let path = baseline_path();
    let baseline = std::fs::read_to_string(&path).unwrap_or_default();
    let mut exceeded = Vec::new();
    println!("| operation | instructions | baseline | change |\n| --- | ---: | ---: | ---: |");
    for (operation, now) in operations.iter().zip(&counted) {
        let name = operation.name;
        let Some(before) = baseline_of(name, &baseline) else {
            println!("| {name} | {now:.1} | - | new |");
            exceeded.push(format!("{name} has no baseline"));
            continue;
        };
        println!("| {name} | {now:.1} | {before:.1} | {:+.1} % |", (now / before - 1.0) * 100.0);
        if *now > before * (1.0 + TOLERANCE) + TOLERANCE_INSTRUCTIONS {
            exceeded.push(format!("{name} takes {now:.1} instructions, {before:.1} in the baseline"));
        }
    }
    if options.accept {
        std::fs::write(&path, table(&operations, &counted, &baseline)?)?;
        eprintln!("the baseline is written to {}", path.display());
        return Ok(true);
    }
    for text in &exceeded {
        eprintln!("instructions: {text}");
    }
    if !exceeded.is_empty() {
        eprintln!(
            "instructions: more than {:.0} % over the baseline. If the work is wanted, accept it: make \
             bench-instructions ARGS=--accept, and say in the commit what it buys",
            TOLERANCE * 100.0
        );
    }
    Ok(exceeded.is_empty())
}

/// The instructions of each operation; several are counted at a time.
fn count_all(operations: &[&Operation]) -> Outcome<Vec<f64>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut counted = Vec::new();
    for group in operations.chunks(threads) {
        thread::scope(|scope| {
            let running: Vec<_> = group.iter().map(|operation| scope.spawn(|| count(operation))).collect();
            for thread in running {
                counted.push(thread.join().map_err(|_| "a thread that counts has panicked")??);
            }
            Outcome::Ok(())
        })?;
    }
    Ok(counted)
}

fn count(operation: &Operation) -> Outcome<f64> {
    let once = instructions(operation.name, operation.count)?;
    let twice = instructions(operation.name, 2 * operation.count)?;
    Ok((twice - once) as f64 / operation.count as f64)
}

/// The instructions of a process that performs an operation.
fn instructions(name: &str, count: usize) -> Outcome<i64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    command.arg(std::env::current_exe()?).args(["--perform", name, &count.to_string()]);
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let total = text.lines().find_map(|line| line.split_once("refs:")).filter(|_| output.status.success());
    let total = total.ok_or_else(|| format!("{name}: valgrind: {}\n{text}", output.status))?.1;
    Ok(total.trim().replace(',', "").parse()?)
}

// ---- the baseline ----

fn baseline_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results/instructions.md")
}

fn baseline_of(name: &str, baseline: &str) -> Option<f64> {
    let mut rows = baseline.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.find_map(|row| row.split_once(" | ").filter(|(of, _)| *of == name)?.1.parse().ok())
}

/// The new baseline. Operations that were not counted keep theirs.
fn table(operations: &[&Operation], counted: &[f64], baseline: &str) -> Outcome<String> {
    let mut text = String::from("# Instructions per operation\n\n");
    writeln!(text, "- Command: `make bench-instructions ARGS=--accept`")?;
    let rustc =
        Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-V").output()?;
    writeln!(text, "- Compiler: {}", String::from_utf8_lossy(&rustc.stdout).trim())?;
    writeln!(text, "- In user space, without the kernel; values of 64 bytes, {KEYS} keys of 12 bytes")?;
    writeln!(
        text,
        "- `make bench-instructions` fails where one takes more than {:.0} % and {TOLERANCE_INSTRUCTIONS:.0} \
         instructions above it\n",
        TOLERANCE * 100.0
    )?;
    writeln!(text, "| operation | instructions |\n| --- | ---: |")?;
    for Operation { name, .. } in OPERATIONS {
        let now = operations.iter().position(|operation| operation.name == *name).map(|at| counted[at]);
        if let Some(instructions) = now.or_else(|| baseline_of(name, baseline)) {
            writeln!(text, "| {name} | {instructions:.1} |")?;
        }
    }
    Ok(text)
}
