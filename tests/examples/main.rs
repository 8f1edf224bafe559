//! Every example of `examples/`, on a real server: each checks itself, says so, and leaves no key behind.
//!
//! The Rust ones are found where cargo builds them, beside the server. `cargo test` does so by itself; before
//! `cargo test --test examples` alone it takes `cargo build --examples`. The ones in Python take an interpreter
//! that has redis-py, `target/python/bin/python` or `python3`, the one for the shell takes `nc`; where these are missing,
//! the tests say so on standard error and pass.

#![allow(clippy::unwrap_used)] // A step that fails is a test that fails.

#[path = "../harness/mod.rs"]
mod harness; // one server, its clients
use harness::{client, process, words};

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use process::Server;

/// How long one example may take. They take less than ten seconds on a quiet machine.
const LIMIT: Duration = Duration::from_secs(180);

const NAMES: [&str; 5] = ["caching", "counters", "locks", "rate_limiting", "sessions"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Says that a test does nothing, past the capture of the test runner.
fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}: {why}");
}

/// Runs a command until it ends by itself; whether it ended well, and all that it has written.
fn run(mut command: Command) -> (bool, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("output");
    let output = File::create(&path).unwrap();
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let begin = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begin.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(5)),
            None => {
                child.kill().unwrap();
                break child.wait().unwrap();
            }
        }
    };
    (status.success(), fs::read_to_string(path).unwrap())
}

/// Runs an example on a server of its own, and returns what it has written.
fn passes(command: impl FnOnce(&Server) -> Command) -> String {
    let server = Server::start(2, &[]);
    let (is_success, output) = run(command(&server));
    assert!(is_success && !output.contains("BROKEN"), "{output}\n{}", server.log.tail());
    assert!(output.contains("  ok    "), "it checks nothing:\n{output}");
    assert_eq!(server.text().ask("DBSIZE"), ["0"], "keys are left:\n{output}");
    output
}

fn url(server: &Server) -> String {
    format!("redis://127.0.0.1:{}", server.resp_port)
}

fn rust_program(name: &str) -> PathBuf {
    let modified = |path: &Path| fs::metadata(path).and_then(|it| it.modified()).ok();
    let program = Path::new(env!("CARGO_BIN_EXE_kvlite")).with_file_name("examples").join(name);
    let sources = [root().join("examples").join(name).join("main.rs"), root().join("examples/run/mod.rs")];
    let is_fresh = sources.iter().all(|source| modified(&program) > modified(source));
    assert!(is_fresh, "{} is missing or old: run cargo build --examples first", program.display());
    program
}

fn rust(name: &str) -> String {
    passes(|server| {
        let mut command = Command::new(rust_program(name));
        command.args(["--url", &url(server)]);
        command
    })
}

/// An interpreter that has redis-py; `None`, once that was said, where there is none.
fn python() -> Option<PathBuf> {
    let has_redis = |python: &PathBuf| {
        let found = Command::new(python).args(["-c", "import redis"]).stderr(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    };
    let found = [root().join("target/python/bin/python"), "python3".into()].into_iter().find(has_redis);
    if found.is_none() {
        skipped(
            "examples in Python",
            "no redis-py: pip install -r examples/python/requirements.txt, see .ci/run",
        );
    }
    found
}

fn in_python(name: &str) -> Option<String> {
    let python = python()?;
    Some(passes(|server| {
        let mut command = Command::new(python);
        command.arg(root().join("examples/python").join(name).with_extension("py"));
        command.args(["--url", &url(server)]).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }))
}

#[test]
fn every_example_is_run_here_and_told_of_in_their_readme() {
    let names_in = |folder: &str, suffix: &str| {
        let mut names: Vec<String> = fs::read_dir(root().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| name.strip_suffix(suffix).map(str::to_owned))
            .filter(|name| !suffix.is_empty() || root().join(folder).join(name).join("main.rs").exists())
            .filter(|name| name != "run") // What the others share.
            .collect();
        names.sort();
        names
    };
    assert_eq!(names_in("examples", ""), NAMES);
    assert_eq!(names_in("examples/python", ".py"), NAMES);
    assert_eq!(names_in("examples", ".py"), ["analytics"]);
    assert_eq!(names_in("examples", ".sh"), ["text_protocol"]);
    let readme = fs::read_to_string(root().join("examples/README.md")).unwrap();
    for name in NAMES {
        for file in [format!("({name}/main.rs)"), format!("(python/{name}.py)")] {
            assert!(readme.contains(&file), "examples/README.md has no link {file}");
        }
    }
}

#[test]
fn caching() {
    let output = rust("caching");
    assert!(output.contains("PREFIXES: class=caching-"), "{output}");
    // A server that has just begun may answer that it knows too little.
    assert!(output.contains(":page:*, in seconds: "), "{output}");
}

#[test]
fn counters() {
    let output = rust("counters");
    assert!(output.contains(" of the hottest keys"), "{output}");
}

#[test]
fn locks() {
    rust("locks");
}

#[test]
fn rate_limiting() {
    rust("rate_limiting");
}

#[test]
fn sessions() {
    rust("sessions");
}

#[test]
fn caching_in_python() {
    if let Some(output) = in_python("caching") {
        assert!(output.contains("PREFIXES: ['class', 'caching-"), "{output}");
    }
}

#[test]
fn counters_in_python() {
    if let Some(output) = in_python("counters") {
        assert!(output.contains(":views is number "), "{output}");
    }
}

#[test]
fn locks_in_python() {
    in_python("locks");
}

#[test]
fn rate_limiting_in_python() {
    in_python("rate_limiting");
}

#[test]
fn sessions_in_python() {
    in_python("sessions");
}

#[test]
fn the_text_protocol_in_a_shell() {
    // Others than that of OpenBSD need options to end when the server does.
    let help = Command::new("nc").arg("-h").output();
    let is_openbsd = |text: &[u8]| String::from_utf8_lossy(text).contains("OpenBSD");
    if !help.is_ok_and(|help| is_openbsd(&help.stderr) || is_openbsd(&help.stdout)) {
        return skipped("examples/text_protocol.sh", "no nc of OpenBSD: apt-get install netcat-openbsd");
    }
    passes(|server| {
        let mut command = Command::new(root().join("examples/text_protocol.sh"));
        command.args(["127.0.0.1", &server.port.to_string()]);
        command
    });
}

#[test]
fn an_example_without_a_server_says_so() {
    let mut command = Command::new(rust_program("counters"));
    command.args(["--url", &format!("redis://127.0.0.1:{}", process::free_port())]);
    let (is_success, output) = run(command);
    assert!(!is_success && output.contains("is the server running?"), "{output}");
}

#[test]
fn analytics() {
    let output = passes(|server| {
        let mut command = Command::new("python3");
        command.arg(root().join("examples/analytics.py")).args(["--seconds", "20"]);
        command.args(["--port", &server.port.to_string()]);
        command
    });
    assert!(output.contains("> SUGGEST-TTL CLASS session:* APPLY EXPLAIN\n"), "{output}");
}
