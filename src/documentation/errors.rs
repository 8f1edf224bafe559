//! Holds `docs/ERRORS.md` to the code, both ways: every error that a client can be told, on both protocols, and every
//! message with which a process ends or does not start.
//!
//! The errors of clients come from their types: a variant that is not listed here does not compile. The other messages
//! are read from the sources of their `Display` and of the remedies, where what varies stands in braces.

use std::collections::BTreeSet;
use std::path::Path;

use shard::{Command, Error, InsufficientData, command};

use super::arguments;
use crate::protocol::{self, Dialect, ProtocolError};

const DOCUMENT: &str = include_str!("../../docs/ERRORS.md");

/// One value of every variant of a type. A variant without a line does not compile, nor does one that is never listed.
macro_rules! one_of_each {
    ($type:ty: $($pattern:pat => $sample:expr,)+) => {{
        fn is_listed(value: &$type) {
            match value { $($pattern => {})+ }
        }
        let samples: Vec<$type> = vec![$({
            let sample: $type = $sample;
            assert!(matches!(sample, $pattern), "listed as another variant: {sample:?}");
            sample
        }),+];
        samples.iter().for_each(is_listed);
        samples
    }};
}

fn row(name: &str) -> &'static Command {
    command::find_full(name.as_bytes()).expect("the command exists")
}

fn bytes(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

fn errors() -> Vec<Error> {
    let mut errors = one_of_each!(Error:
        Error::UnknownCommand { .. } => Error::UnknownCommand { name: bytes("NAME"), args: vec![bytes("ARG")] },
        Error::UnknownSubcommand { .. } => Error::UnknownSubcommand { command: row("config"), name: bytes("NAME") },
        Error::WrongArity(_) => Error::WrongArity(row("set")),
        Error::WrongUse { .. } => Error::WrongUse { command: row("client"), name: bytes("NAME") },
        Error::NotAnInteger => Error::NotAnInteger,
        Error::NotAFloat => Error::NotAFloat,
        Error::NotFinite => Error::NotFinite,
        Error::Overflow => Error::Overflow,
        Error::DecrementOverflow => Error::DecrementOverflow,
        Error::NotAHyperloglog => Error::NotAHyperloglog,
        Error::CorruptHyperloglog => Error::CorruptHyperloglog,
        Error::UnknownPfdebug(_) => Error::UnknownPfdebug(bytes("NAME")),
        Error::WrongPayload => Error::WrongPayload,
        Error::MalformedPayload => Error::MalformedPayload,
        Error::BusyKey => Error::BusyKey,
        Error::NotAString(_) => Error::NotAString("hash"),
        Error::NoSuchKey => Error::NoSuchKey,
        Error::Syntax => Error::Syntax,
        Error::UnsupportedOption(_) => Error::UnsupportedOption(bytes("OPTION")),
        Error::IncompatibleOptions(_) => Error::IncompatibleOptions("GT and LT"),
        Error::InvalidExpire(_) => Error::InvalidExpire(row("setex")),
        Error::ExpireNotAnInteger => Error::ExpireNotAnInteger,
        Error::InvalidCursor => Error::InvalidCursor,
        Error::InvalidCount => Error::InvalidCount,
        Error::UnknownSetting(_) => Error::UnknownSetting(bytes("OPTION")),
        Error::FixedOption(_) => Error::FixedOption(bytes("OPTION")),
        Error::InvalidSetting(..) => Error::InvalidSetting("auto-ttl", "REASON".into()),
        Error::InvalidSeconds => Error::InvalidSeconds,
        Error::InvalidTarget => Error::InvalidTarget,
        Error::AnalyticsOff => Error::AnalyticsOff,
        Error::InsufficientData(_) => Error::InsufficientData(InsufficientData::Target),
        Error::DbIndexOutOfRange => Error::DbIndexOutOfRange,
        Error::InvalidDbIndex => Error::InvalidDbIndex,
        Error::NoProtocol => Error::NoProtocol,
        Error::ProtocolNotAnInteger => Error::ProtocolNotAnInteger,
        Error::InvalidClientName => Error::InvalidClientName,
        Error::HelloSyntax(_) => Error::HelloSyntax(bytes("OPTION")),
        Error::UnknownClientAttribute(_) => Error::UnknownClientAttribute(bytes("NAME")),
        Error::UnknownClientType(_) => Error::UnknownClientType(bytes("NAME")),
        Error::NoSuchUser(_) => Error::NoSuchUser(bytes("NAME")),
        Error::WrongPassword => Error::WrongPassword,
        Error::Unblocked => Error::Unblocked,
        Error::AsAsked(_) => Error::AsAsked(bytes("TEXT")),
        Error::ValueTooLarge { .. } => Error::ValueTooLarge { limit: 536_870_912 },
        Error::PatternTooLong { .. } => Error::PatternTooLong { limit: 1_048_576 },
        Error::UnknownOption(_) => Error::UnknownOption(bytes("OPTION")),
        Error::ConnectionLimit => Error::ConnectionLimit,
        Error::ReplyTooLarge { .. } => Error::ReplyTooLarge { limit: 1_073_741_824 },
        Error::OutOfMemory => Error::OutOfMemory,
        Error::WritesRefused { .. } => Error::WritesRefused { cause: "CAUSE".into(), remedy: "REMEDY" },
        Error::NotOnDisk { .. } => Error::NotOnDisk { cause: "CAUSE".into() },
        Error::Loading { .. } => Error::Loading { percent: 42 },
        Error::BackupFailed { .. } => Error::BackupFailed { cause: "CAUSE".into() },
        Error::RewriteFailed { .. } => Error::RewriteFailed { cause: "CAUSE".into() },
        Error::SaveInProgress => Error::SaveInProgress,
        Error::ExecAborted => Error::ExecAborted,
        Error::ExecAbortedBy(_) => Error::ExecAbortedBy(Box::new(Error::Unavailable("REASON"))),
        Error::NestedMulti => Error::NestedMulti,
        Error::WatchInMulti => Error::WatchInMulti,
        Error::WithoutMulti(_) => Error::WithoutMulti(row("exec")),
        Error::NotInMulti => Error::NotInMulti,
        Error::Subscribed(_) => Error::Subscribed(row("get")),
        Error::NoScript => Error::NoScript,
        Error::Busy { .. } => Error::Busy { is_function: false },
        Error::NotBusy => Error::NotBusy,
        Error::Unkillable => Error::Unkillable,
        Error::OfScript(_) => Error::OfScript(bytes("ERR REASON")),
        Error::PrefixOverlap { .. } => Error::PrefixOverlap { prefix: bytes("PREFIX"), other: bytes("PRE"), is_provided: true },
        Error::OutOfRange(_) => Error::OutOfRange("REASON"),
        Error::Unavailable(_) => Error::Unavailable("REASON"),
    );
    let refusals = one_of_each!(InsufficientData:
        InsufficientData::Target => InsufficientData::Target,
        InsufficientData::FewObservations { .. } => InsufficientData::FewObservations { needed: 200, have: 12 },
        InsufficientData::ShortTime { .. } => InsufficientData::ShortTime { needed_s: 600, have_s: 30 },
    );
    errors.extend(refusals.into_iter().map(Error::InsufficientData));
    // A command with subcommands words it in the same way on both protocols.
    errors.push(Error::WrongArity(row("config|get")));
    // Those that carry their whole text: each text stands in the sources beside the name of the variant.
    errors.retain(|error| {
        !matches!(
            error,
            Error::OutOfRange(_) | Error::Unavailable(_) | Error::IncompatibleOptions(_) | Error::OfScript(_) // It is the script's, or Redis' to the letter.
        )
    });
    errors.extend(texts_of("Error::OutOfRange(").into_iter().map(Error::OutOfRange));
    errors.extend(texts_of("Error::Unavailable(").into_iter().map(Error::Unavailable));
    errors.extend(texts_of("Error::IncompatibleOptions(").into_iter().map(Error::IncompatibleOptions));
    errors
}

fn protocol_errors() -> Vec<ProtocolError> {
    let mut errors = one_of_each!(ProtocolError:
        ProtocolError::InvalidElementCount => ProtocolError::InvalidElementCount,
        ProtocolError::InvalidBulkLength => ProtocolError::InvalidBulkLength,
        ProtocolError::GuestElementCount => ProtocolError::GuestElementCount,
        ProtocolError::GuestBulkLength => ProtocolError::GuestBulkLength,
        ProtocolError::ExpectedBulk(_) => ProtocolError::ExpectedBulk(b'x'),
        ProtocolError::BulkNotTerminated => ProtocolError::BulkNotTerminated,
        ProtocolError::ElementCountTooLong => ProtocolError::ElementCountTooLong,
        ProtocolError::BulkLengthTooLong => ProtocolError::BulkLengthTooLong,
        ProtocolError::RequestTooLarge => ProtocolError::RequestTooLarge,
        ProtocolError::InlineTooLong => ProtocolError::InlineTooLong,
        ProtocolError::UnbalancedQuotes => ProtocolError::UnbalancedQuotes,
        ProtocolError::LineTooLong => ProtocolError::LineTooLong,
        ProtocolError::RespOnTextPort { .. } => ProtocolError::RespOnTextPort { resp_port: Some(6379) },
        ProtocolError::OutOfMemory => ProtocolError::OutOfMemory,
        ProtocolError::Tls => ProtocolError::Tls,
        ProtocolError::Http => ProtocolError::Http,
    );
    errors.push(ProtocolError::RespOnTextPort { resp_port: None });
    errors
}

/// The sources of the workspace's library code, without their tests.
fn sources() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let below = |directory: &str| super::sources_below(&root.join(directory));
    let paths = [below("src"), below("shard/src"), below("wal/src")].concat();
    paths.iter().filter(|path| !path.ends_with("documentation/errors.rs")).map(|path| code_of(path)).collect()
}

fn code_of(path: &Path) -> String {
    let source = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

/// The texts that the sources give to something, such as a variant with its parenthesis. They stay until the end of the
/// process, as a variant wants them.
fn texts_of(call: &str) -> Vec<&'static str> {
    let given = |source: String| {
        let calls: Vec<String> = source
            .match_indices(call)
            .map(|(at, _)| arguments(&source[at + call.len()..]).join(", "))
            .collect();
        calls.iter().flat_map(|given| literals(given)).collect::<Vec<String>>()
    };
    let texts: BTreeSet<String> = sources().into_iter().flat_map(given).collect();
    assert!(!texts.is_empty(), "no source has a text for {call}");
    texts.into_iter().map(|text| &*text.leak()).collect()
}

/// The strings in a piece of code, as the program has them.
fn literals(code: &str) -> Vec<String> {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n").replace("'\"'", "").replace("b'\"'", "");
    let mut literals = Vec::new();
    let mut rest = code.as_str();
    while let Some(start) = rest.find('"') {
        let inside = &rest[start + 1..];
        let mut end = 0;
        while !inside[end..].starts_with('"') {
            end += if inside[end..].starts_with('\\') {
                2
            } else {
                inside[end..].chars().next().map_or(1, char::len_utf8)
            };
        }
        let joined: Vec<&str> = inside[..end].split("\\\n").collect();
        let joined = joined.iter().enumerate().map(|(n, line)| if n > 0 { line.trim_start() } else { line });
        literals.push(joined.collect::<String>().replace("\\\"", "\"").replace("\\n", " "));
        rest = &inside[end + 1..];
    }
    literals
}

/// The code from where it begins in this way to the line that ends what it opens; of a constant, its value.
fn block(source: &str, start: &str) -> String {
    let at = source.find(start).unwrap_or_else(|| panic!("no source has {start}"));
    let line = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let indent: String = source[line..].chars().take_while(|char| *char == ' ').collect();
    let end = if start.starts_with("const ") { ";\n".to_owned() } else { format!("\n{indent}}}") };
    let end = source[at..].find(&end).expect("it ends");
    source[at..at + end].to_owned()
}

/// The sentences in blocks of a source, with `...` for what varies. What has no blank is no sentence.
fn sentences(file: &str, starts: &[&str]) -> BTreeSet<String> {
    let source = code_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
    let of_block = |start: &&str| literals(&block(&source, start));
    starts.iter().flat_map(of_block).map(|text| with_dots(&text)).filter(|text| is_sentence(text)).collect()
}

fn with_dots(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        shown.push_str(&rest[..at]);
        shown.push_str("...");
        rest = rest[at..].split_once('}').expect("a brace is closed").1;
    }
    (shown + rest).trim_start_matches([';', ' ']).trim_end().to_owned()
}

fn is_sentence(text: &str) -> bool {
    text.contains(' ') && text.split(' ').any(|word| word.starts_with(|first: char| first.is_alphabetic()))
}

/// The first cells of the rows of a section's tables, as many as `columns`.
fn shown(section: &str, columns: usize) -> BTreeSet<Vec<String>> {
    let heading = format!("## {section}\n");
    let (_, text) =
        DOCUMENT.split_once(&heading).unwrap_or_else(|| panic!("docs/ERRORS.md has no ## {section}"));
    let text = text.split("\n## ").next().unwrap_or_default();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let row = row.trim_start_matches('|').trim_end().trim_end_matches('|');
        let cells: Vec<&str> = row.split(" | ").map(str::trim).collect();
        assert!(cells.len() > columns && !cells[cells.len() - 1].is_empty(), "says not what to do: {row}");
        cells[..columns].iter().map(ToString::to_string).collect()
    })
    .collect()
}

fn compare(section: &str, columns: usize, told: &BTreeSet<Vec<String>>) {
    let shown = shown(section, columns);
    let rows = |rows: Vec<&Vec<String>>| {
        rows.iter().map(|row| format!("| {} |\n", row.join(" | "))).collect::<String>()
    };
    let lacks = rows(told.difference(&shown).collect());
    let invents = rows(shown.difference(told).collect());
    assert!(
        lacks.is_empty() && invents.is_empty(),
        "docs/ERRORS.md, \"{section}\", lacks\n{lacks}and shows what no source has\n{invents}"
    );
}

fn compare_sentences(section: &str, told: &BTreeSet<String>) {
    compare(section, 1, &told.iter().map(|text| vec![cell(text)]).collect());
}

/// A text as a cell of a table shows it.
fn cell(text: &str) -> String {
    let text = text.trim_end().replace('|', "\\|");
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

#[test]
fn every_error_of_a_command_is_explained() {
    let told = errors().into_iter().map(|error| {
        let [text, resp] = [Dialect::Text, Dialect::Resp2].map(|dialect| {
            let mut out = Vec::new();
            protocol::write_error(error.clone(), dialect, &mut out);
            cell(&String::from_utf8(out).unwrap())
        });
        vec![text.clone(), if resp == text { "the same".to_owned() } else { resp }]
    });
    compare("Replies to commands", 2, &told.collect());
}

#[test]
fn every_error_that_ends_a_connection_is_explained() {
    let told = protocol_errors().into_iter().map(|error| {
        let mut out = Vec::new();
        error.write(Dialect::Resp2, &mut out);
        vec![cell(if out.is_empty() { "(no answer)" } else { std::str::from_utf8(&out).unwrap() })]
    });
    compare("Errors that end the connection", 1, &told.collect());
}

#[test]
fn every_cause_and_remedy_of_a_refused_write_is_explained() {
    let mut told = sentences("src/durability/disk_health.rs", &["const SYNC_HANGS", "fn remedy"]);
    told.extend(sentences("src/worker/watchdog.rs", &["fn hangs_in_disk", "fn no_answer"]));
    compare_sentences("Causes and remedies of the disk", &told);
}

#[test]
fn every_reason_why_there_is_no_backup_is_explained() {
    let mut told = sentences("src/admin/backup.rs", &["impl std::fmt::Display for Failure"]);
    told.extend(texts_of("Failure::Place(").into_iter().map(with_dots).filter(|text| is_sentence(text)));
    compare_sentences("Why a backup was not made", &told);
}

#[test]
fn every_failure_of_a_start_is_explained() {
    let starts = [
        "impl fmt::Display for Failure",
        "fn fmt_log",
        "fn access_remedy",
        "fn damage_remedy",
        "fn io_uring_remedy",
        "impl fmt::Display for Contradiction",
    ];
    compare_sentences("Why a server does not start, or ends", &sentences("src/failure.rs", &starts));
}

#[test]
fn every_fault_of_the_files_is_explained() {
    let starts = [
        "fn of_absence",
        "fn of_content",
        "impl fmt::Display for Error",
        "impl fmt::Display for Proof",
        "impl fmt::Display for Fault",
    ];
    compare_sentences("What is wrong with the files", &sentences("wal/src/error.rs", &starts));
}

#[test]
fn every_usage_error_of_the_server_is_explained() {
    let mut told = sentences("src/config/units.rs", &["impl fmt::Display for InvalidValue"]);
    told.extend(sentences("src/config/mod.rs", &["impl fmt::Display for Contradiction", "fn explained"]));
    compare_sentences("Usage errors", &told);
}

#[test]
fn every_error_of_the_tools_is_explained() {
    compare_sentences("The tools", &sentences("src/tools/mod.rs", &["impl fmt::Display for ToolError"]));
    compare_sentences("kvlite health", &sentences("src/health.rs", &["impl fmt::Display for Trouble"]));
    compare_sentences(
        "kvlite import",
        &sentences("src/import/mod.rs", &["impl fmt::Display for Failure", "fn fmt_salvageable"]),
    );
    let mut told = sentences("src/bench/options.rs", &["impl fmt::Display for InvalidWork"]);
    told.extend(sentences("src/bench/options.rs", &["impl fmt::Display for Contradiction"]));
    told.extend(sentences("src/bench/mod.rs", &["impl fmt::Display for Failure"]));
    compare_sentences("kvlite bench", &told);
}

#[test]
fn strings_are_read_from_code_as_the_program_has_them() {
    let code = "// \"not this\"\n    f(\"one \\\n       line, a \\\"word\\\"\", '\"', \"{x:08x} b c\")";
    assert_eq!(literals(code), ["one line, a \"word\"", "{x:08x} b c"]);
    assert_eq!(with_dots("; {x:08x} b {}"), "... b ...");
}
