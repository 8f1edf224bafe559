//! The documents: their command lines run, their links lead somewhere, and what they name exists.
//!
//! A code block that begins with ```` ```sh ```` is run; one that begins with ```` ```sh not-run: REASON ```` is not. The
//! blocks of a document run in their order in one bash with `-eu`, in a new directory that shows the files of the
//! repository, with the program under test as `kvlite`. What stands in a block ```` ```output ```` behind one has to be
//! in what that one wrote, line by line; `...` in a line stands for anything. The shell has a network and processes of its
//! own, so the default ports are free, and a server that a document starts ends with it. That takes root; otherwise the
//! test says on standard error that it is skipped, as it does for a document whose programs are not installed.
//!
//! `KVLITE_TEST_DOCUMENT=docs/QUICKSTART.md` runs those of one document.

#![allow(clippy::unwrap_used)] // A step that fails is a test that fails.

#[path = "../harness/mod.rs"]
mod harness; // where the program under test is
use harness::{client, process, words};

mod markdown; // what a document holds

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use markdown::Document;

/// How long all blocks of a document may take together.
const LIMIT: Duration = Duration::from_secs(180);

/// Programs that a document may use and a machine may lack.
const PROGRAMS: [&str; 8] =
    ["curl", "jq", "nc", "promtool", "python3", "redis-benchmark", "redis-cli", "sha256sum"];

/// What a line of a script says before the block that begins at this line of its document.
const MARK: &str = "=== the block at line ";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document of the repository.
fn documents() -> Vec<Document> {
    fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap_or_default().to_owned();
            if path.is_symlink() || name.starts_with('.') || name == "target" || name == "kvlite-data" {
                continue;
            }
            if path.is_dir() {
                collect(&path, found);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    for entry in ["benches", "deploy", "docs", "examples", "shard", "src", "tests", "wal"] {
        collect(&root().join(entry), &mut paths);
    }
    let tops = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    paths.extend(tops.filter(|path| path.extension().is_some_and(|it| it == "md")));
    paths.sort();
    paths.iter().map(|path| Document::read(root(), path)).collect()
}

#[test]
fn every_block_of_commands_says_whether_it_is_run() {
    let mut wrong = Vec::new();
    for document in documents() {
        for (index, block) in document.blocks.iter().enumerate() {
            let language = block.info.split_whitespace().next().unwrap_or_default();
            let is_right = match language {
                "sh" => block.is_run() || block.reason().is_some_and(|reason| reason.len() > 5),
                // Shells by other names would be missed.
                "bash" | "shell" | "console" | "zsh" | "shell-session" => false,
                "output" => index > 0 && document.blocks[index - 1].is_run(),
                _ => true,
            };
            if !is_right {
                wrong.push(format!("{}:{}: ```{}", document.path, block.line, block.info));
            }
        }
    }
    let wrong = wrong.join("\n");
    assert!(
        wrong.is_empty(),
        "write ```sh or ```sh not-run: REASON, and ```output only behind one that runs:\n{wrong}"
    );
}

#[test]
fn the_command_lines_of_the_documents_run() {
    if let Err(why) =
        own_machine("ip link set lo up").map_err(|error| error.to_string()).and_then(|mut command| {
            let output = command.output().map_err(|error| error.to_string())?;
            output
                .status
                .success()
                .then_some(())
                .ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
        })
    {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: the command lines of the documents: {}\nremedy: run as root, with util-linux and iproute2",
            why.trim()
        );
        return;
    }
    let only = std::env::var("KVLITE_TEST_DOCUMENT").ok();
    let mut failures = Vec::new();
    let mut ran = 0;
    for document in documents() {
        if only.as_ref().is_some_and(|only| *only != document.path)
            || !document.blocks.iter().any(markdown::Block::is_run)
        {
            continue;
        }
        let missing: Vec<_> =
            PROGRAMS.into_iter().filter(|it| document.runs_program(it) && !is_installed(it)).collect();
        if missing.is_empty() {
            ran += 1;
            failures.extend(run(&document).err());
        } else {
            let _ = writeln!(std::io::stderr(), "SKIPPED: {}: {missing:?} are missing", document.path);
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(ran > 0 || only.is_none(), "no document {only:?} has a block that runs");
}

fn is_installed(program: &str) -> bool {
    Command::new("which").arg(program).output().is_ok_and(|output| output.status.success())
}

/// A bash that sees no network but its own, and whose processes all end with it.
fn own_machine(script: &str) -> std::io::Result<Command> {
    if !rustix::process::geteuid().is_root() {
        return Err(std::io::Error::other("not root"));
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-euc", script]);
    Ok(command)
}

/// Runs the blocks of a document; the error shows the block that failed and what it wrote.
fn run(document: &Document) -> Result<(), String> {
    let directory = tempfile::TempDir::with_prefix("kvlite-documents-").unwrap();
    let (work, programs) = (directory.path().join("work"), directory.path().join("bin"));
    fs::create_dir(&work).unwrap();
    fs::create_dir(&programs).unwrap();
    symlink(process::program(), programs.join("kvlite")).unwrap();
    for name in ["deploy", "docs", "examples", "README.md"] {
        symlink(root().join(name), work.join(name)).unwrap();
    }
    // Nothing that a document writes below these stays on this machine.
    let mut script = "ip link set lo up\nfor path in /mnt /srv /var/backups /var/lib; do\n\
                      mkdir -p $path; mount -t tmpfs none $path; done\n"
        .to_owned();
    for block in document.blocks.iter().filter(|block| block.is_run()) {
        script += &format!("echo; echo '{MARK}{}'\n{}\n", block.line, block.text);
    }
    script += &format!("echo; echo '{MARK}0'\n"); // The end, so that the last block is over, too.

    let output_path = directory.path().join("output");
    let output = File::create(&output_path).unwrap();
    let mut command = own_machine(&script).unwrap();
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KVLITE_")) {
        command.env_remove(name);
    }
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    command.env("PATH", path).env("HOME", &work).env("KVLITE_IO", process::io_backend()).current_dir(&work);
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let mut child = command.spawn().unwrap();
    let begin = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if begin.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(10)),
            None => {
                child.kill().unwrap(); // Its child, and thereby all of its processes, ends with it.
                child.wait().unwrap();
                break None;
            }
        }
    };

    let output = String::from_utf8_lossy(&fs::read(&output_path).unwrap()).into_owned();
    let at = |line: &str| format!("{}:{line}", document.path);
    let parts: Vec<(&str, &str)> =
        output.split(MARK).skip(1).map(|part| part.split_once('\n').unwrap_or((part, ""))).collect();
    if !status.is_some_and(|status| status.success()) {
        let (line, text) = parts.last().copied().unwrap_or(("0", output.as_str()));
        let how = status.map_or(format!("has not ended after {LIMIT:?}"), |status| status.to_string());
        return Err(format!("{}: {how}; it wrote:\n{text}", at(line)));
    }
    for pair in document.blocks.windows(2).filter(|pair| pair[1].info == "output") {
        let line = pair[0].line.to_string();
        let (_, wrote) = parts.iter().find(|(mark, _)| *mark == line).unwrap();
        shows(wrote, &pair[1].text)
            .map_err(|lacks| format!("{}: it does not write {lacks:?} but\n{wrote}", at(&line)))?;
    }
    Ok(())
}

/// Whether all lines of `expected` are in `wrote`, in their order; the first one that is not.
fn shows<'a>(wrote: &str, expected: &'a str) -> Result<(), &'a str> {
    let mut lines = wrote.lines();
    match expected.lines().find(|expected| !lines.any(|line| matches(line.trim_end(), expected.trim_end()))) {
        Some(lacks) => Err(lacks),
        None => Ok(()),
    }
}

/// Whether a line is as expected, where `...` stands for anything.
fn matches(line: &str, expected: &str) -> bool {
    let Some((begin, rest)) = expected.split_once("...") else { return line == expected };
    let Some(line) = line.strip_prefix(begin) else { return false };
    line.char_indices().map(|(at, _)| at).chain([line.len()]).any(|at| matches(&line[at..], rest))
}

#[test]
fn an_expected_line_matches_with_dots_for_anything() {
    assert!(matches("keys=17 bytes=3", "keys=... bytes=..."));
    assert!(matches("OK", "OK") && matches("", "..."));
    assert!(!matches("keys=17 size=3", "keys=... bytes=...") && !matches("OK", "O") && !matches("O", "OK"));
    assert_eq!(shows("a\nb\nc\n", "a\nc\n"), Ok(()));
    assert_eq!(shows("a\nb\nc\n", "c\na\n"), Err("a"));
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    let mut broken = Vec::new();
    for document in &documents {
        for (line, link) in &document.links {
            if let Err(why) = resolve(&documents, document, link) {
                broken.push(format!("{}:{line}: {link}: {why}", document.path));
            }
        }
    }
    assert!(documents.iter().map(|it| it.links.len()).sum::<usize>() > 50, "hardly any link was found");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Follows a link within the repository; of others, only the form is looked at.
fn resolve(documents: &[Document], from: &Document, link: &str) -> Result<(), &'static str> {
    if let Some((scheme, rest)) = link.split_once(':') {
        let host = rest.strip_prefix("//").and_then(|rest| rest.split(['/', '#', '?']).next());
        return match scheme {
            "http" | "https" if host.is_some_and(|host| !host.is_empty() && !host.contains(' ')) => Ok(()),
            "mailto" => Ok(()),
            "http" | "https" => Err("it has no host"),
            _ => Err("neither a path nor a scheme that is known"),
        };
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let mut target = root().join(&from.path);
    if !path.is_empty() {
        target = target.parent().unwrap().join(path);
    }
    let Ok(target) = target.canonicalize() else { return Err("there is no such file") };
    if !target.starts_with(root()) {
        return Err("it leads out of the repository");
    }
    let Some(anchor) = anchor else { return Ok(()) };
    match documents.iter().find(|it| root().join(&it.path) == target) {
        Some(document) if document.anchors.contains(anchor) => Ok(()),
        Some(_) => Err("that document has no such heading"),
        None => Err("an anchor in what is no document"),
    }
}

#[test]
fn what_the_documents_tell_to_call_exists() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let has_target = |name: &str| {
        // `make bench-...` means all that begin so.
        let begin = if name.ends_with('-') { name.to_owned() } else { format!("{name}:") };
        makefile.lines().any(|line| line.starts_with(&begin))
    };
    let has_file = |kind: &str, name: &str| {
        let folders = match kind {
            "--test" => ["tests", "shard/tests", "wal/tests"],
            "--bench" => ["benches", "shard/benches", "wal/benches"],
            _ => ["examples"; 3],
        };
        let files = [format!("{name}.rs"), format!("{name}/main.rs")];
        folders.iter().any(|folder| files.iter().any(|file| root().join(folder).join(file).exists()))
    };
    let (mut named, mut wrong) = (0, Vec::new());
    for document in documents() {
        for (line, code) in &document.code {
            let words: Vec<&str> = code.split([' ', '(', ')', ';']).collect();
            for pair in words.windows(2) {
                let name: &str = pair[1].trim_end_matches([',', '.']);
                let is_name = name.starts_with(|it: char| it.is_ascii_lowercase());
                let exists = match pair[0] {
                    "make" if is_name => has_target(name),
                    kind @ ("--test" | "--bench" | "--example") if is_name => has_file(kind, name),
                    _ => continue,
                };
                named += 1;
                if !exists {
                    wrong.push(format!("{}:{line}: {} {name}", document.path, pair[0]));
                }
            }
        }
    }
    assert!(named > 20, "hardly any was found");
    assert!(wrong.is_empty(), "these do not exist:\n{}", wrong.join("\n"));
}

#[test]
fn make_without_a_target_tells_of_every_target() {
    // As a user calls it, also where a make runs these tests.
    let mut make = Command::new("make");
    make.current_dir(root()).env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    let output = make.output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Vec<&str> = told.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let is_name =
        |name: &&str| !name.is_empty() && name.chars().all(|it| it.is_ascii_lowercase() || it == '-');
    let targets: Vec<&str> = makefile
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name)
        .filter(is_name)
        .collect();
    assert_eq!(told, targets, "each target has a text behind ##");
    for target in ["build", "run", "test", "test-race", "bench", "fmt", "lint", "check", "clean", "help"] {
        assert!(targets.contains(&target), "{target}");
    }
}
