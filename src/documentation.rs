//! Tests that keep the documents true: what the table of options holds, what is logged and what errors say, the documents
//! show.
//!
//! Holds no code of the server.

mod compatibility;
mod errors;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use crate::config::Config;

#[test]
fn the_manual_shows_every_option_with_its_variable_and_default() {
    let manual = include_str!("../docs/OPERATIONS.md");
    for arg in Config::command().get_arguments().filter(|arg| !arg.is_hide_set()) {
        let flag = arg.get_long().expect("every option has a flag");
        let variable = arg.get_env().and_then(|name| name.to_str()).expect("every option has a variable");
        let start = format!("| `--{flag}` | `{variable}` | ");
        let row = manual.lines().find_map(|line| line.strip_prefix(start.as_str()));
        let Some(row) = row else { panic!("docs/OPERATIONS.md has no row that starts with {start}") };
        if let [default] = arg.get_default_values() {
            let default = format!("`{}` | ", default.display());
            assert!(
                row.starts_with(&default),
                "docs/OPERATIONS.md shows another default of --{flag} than {default}: {row}"
            );
        }
    }
}

/// A line that the server may log: level, message, names of the fields, as a row of a table shows them.
fn row_of(level: &str, message: &str, fields: &[String]) -> String {
    let fields: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
    format!("| {level} | {message} | {} |", fields.join(", "))
}

/// The arguments of a macro, from behind its opening parenthesis on.
fn arguments(text: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let (mut depth, mut is_in_string, mut is_escaped) = (0, false, false);
    for char in text.chars() {
        match char {
            '"' if !is_escaped => is_in_string = !is_in_string,
            '(' | '[' | '{' if !is_in_string => depth += 1,
            ')' if !is_in_string && depth == 0 => break,
            ')' | ']' | '}' if !is_in_string => depth -= 1,
            ',' if !is_in_string && depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        is_escaped = char == '\\' && !is_escaped;
        arguments.last_mut().expect("there is one").push(char);
    }
    arguments.into_iter().map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect()
}

/// The rows of all lines that a source may log.
fn logged_by(path: &str, source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut rows = Vec::new();
    for level in ["error", "warn", "info", "debug", "trace"] {
        let call = format!("tracing::{level}!(");
        for (at, _) in code.match_indices(&call) {
            let mut fields = arguments(&code[at + call.len()..]);
            let literal = fields.pop().unwrap_or_default();
            let message = literal.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
            let message = message.unwrap_or_else(|| panic!("{path}: a line without a message: {literal}"));
            assert!(!message.contains('{'), "{path}: the message is not constant, use fields: {message}");
            let message: Vec<&str> = message.split("\\\n").map(str::trim_start).collect();
            for field in &mut fields {
                let name = field.split('=').next().unwrap_or_default();
                *field = name.trim().trim_start_matches(['%', '?']).to_owned();
            }
            rows.push(row_of(level, &message.concat(), &fields));
        }
    }
    rows
}

fn sources_below(directory: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(directory).expect("the sources are there").map(|it| it.expect("readable").path());
    let of_entry = |path: PathBuf| if path.is_dir() { sources_below(&path) } else { vec![path] };
    entries
        .flat_map(of_entry)
        .filter(|path| !path.ends_with("tests.rs") && !path.ends_with("documentation.rs"))
        .collect()
}

#[test]
fn the_list_of_log_lines_shows_every_one_with_its_fields_and_no_other() {
    let sources = sources_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let logged: BTreeSet<String> = sources
        .iter()
        .flat_map(|path| {
            logged_by(&path.display().to_string(), &std::fs::read_to_string(path).expect("readable"))
        })
        .collect();
    assert!(logged.len() > 40, "{logged:#?}");
    let document = include_str!("../docs/logging.md");
    let rows = document.lines().filter(|line| {
        ["error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|level| line.starts_with(&format!("| {level} | ")))
    });
    // The last column says what to do, which the sources do not know.
    let shown: BTreeSet<String> = rows
        .map(|row| {
            row.trim_end_matches(" |").rsplit_once(" | ").expect("a row has columns").0.to_owned() + " |"
        })
        .collect();
    let lacks: Vec<_> = logged.difference(&shown).collect();
    let invents: Vec<_> = shown.difference(&logged).collect();
    assert!(lacks.is_empty(), "docs/logging.md lacks these lines: {lacks:#?}");
    assert!(invents.is_empty(), "docs/logging.md shows lines that do not exist: {invents:#?}");
}

#[test]
fn a_line_is_read_from_the_source_however_it_is_laid_out() {
    let source = "tracing::warn!(%error, shard = f(a, \"b)\"), ?x, \"torn, as \\\n     it (was)\");\n\
                  #[cfg(test)]\nmod tests { tracing::info!(\"not this\") }";
    assert_eq!(logged_by("a.rs", source), ["| warn | torn, as it (was) | `error`, `shard`, `x` |"]);
}
