//! `docs/compatibility.md` says of every command of Redis and Valkey whether kvlite has it: held to the command table.
//! `KVLITE_ACCEPT=1 cargo test documentation::compatibility` rewrites its tables.

use std::collections::BTreeSet;

use shard::{Command, command};

use crate::admin::vocabulary::{KNOWN, Known};

/// Commands that kvlite has in part: what it does not do of them, or does in another way.
const PARTLY: &[(&str, &str)] = &[
    ("bgrewriteaof", "writes a snapshot and shortens the log, as BGSAVE does"),
    ("client", "with SETINFO and without NO-TOUCH, which are of Redis 7.2"),
    ("command", "arguments are derived from the usage, without their history"),
    ("config", "parameters of Redis that have a meaning here; [which](OPERATIONS.md#names-of-redis)"),
    ("hello", ""),
    ("memory", "MALLOC-STATS: the allocator is built without statistics; USAGE: SAMPLES changes nothing"),
    ("monitor", "shows commands of a transaction when they are queued, and none of scripts"),
    ("psync", "refused: there is no replication yet"),
    ("replconf", "refused: there is no replication yet"),
    ("sync", "refused on the RESP port: there is no replication yet"),
    ("waitaof", "without replicas"),
];

/// Why kvlite does not have commands, by their names.
const NOT_HERE: &[(&str, &str)] = &[
    ("acl", "users come with TLS, later"),
    ("asking", "no cluster: one node"),
    ("migrate", "no other server is called; DUMP and RESTORE move keys"),
    ("module", "no modules: code that is loaded into the server"),
    ("readonly", "no cluster: one node"),
    ("readwrite", "no cluster: one node"),
    ("restore-asking", "no cluster: one node"),
    ("sort", "with lists and sets, later"),
    ("sort_ro", "with lists and sets, later"),
    ("failover", "no replication yet"),
];

/// Why kvlite does not have commands of a group, where that is not said of the command itself.
const GROUPS_NOT_HERE: &[(&str, &str)] = &[
    ("cluster", "no cluster: one node"),
    ("geo", "this type comes later"),
    ("hash", "this type comes later"),
    ("list", "this type comes later"),
    ("set", "this type comes later"),
    ("sorted-set", "this type comes later"),
    ("stream", "this type comes later"),
];

fn about<'a>(list: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    list.iter().find(|(known, _)| *known == name).map(|(_, what)| *what).filter(|what| !what.is_empty())
}

/// The names of the subcommands of a known command that have no row, without `HELP`, which every container has.
fn missing_subcommands(known: &Known) -> Vec<String> {
    let prefix = format!("{}|", known.name);
    let all = KNOWN.iter().filter(|it| it.is_of_redis && it.name.starts_with(&prefix));
    let missing =
        all.filter(|it| command::find_full(it.name.as_bytes()).is_none() && !it.name.ends_with("|help"));
    missing.map(|it| it.name[prefix.len()..].to_uppercase()).collect()
}

/// The row of a command: name, first version, yes or no, remarks.
fn row(known: &Known) -> String {
    let of = if known.is_of_redis { "" } else { " (Valkey)" };
    let name = known.name.to_uppercase();
    let (answer, remark) = match command::find(name.as_bytes()) {
        None => {
            let why = about(NOT_HERE, known.name).or_else(|| about(GROUPS_NOT_HERE, known.group));
            ("no", why.unwrap_or("not yet").to_owned())
        }
        Some(_) => {
            let missing = missing_subcommands(known);
            let missing = (!missing.is_empty()).then(|| format!("without {}", missing.join(", ")));
            let remarks: Vec<String> =
                missing.into_iter().chain(about(PARTLY, known.name).map(str::to_owned)).collect();
            (if remarks.is_empty() { "yes" } else { "partly" }, remarks.join("; "))
        }
    };
    format!("| `{name}` | {}{of} | {answer} | {remark} |", known.since)
}

fn tables() -> String {
    let commands = || KNOWN.iter().filter(|known| !known.name.contains('|'));
    let groups: BTreeSet<&str> = commands().map(|known| known.group).collect();
    let mut text = String::new();
    for group in groups {
        let rows: Vec<String> = commands().filter(|known| known.group == group).map(row).collect();
        text += &format!("### {group}\n\n| command | since | kvlite | |\n| --- | --- | --- | --- |\n");
        text += &format!("{}\n\n", rows.join("\n"));
    }
    let is_known = |row: &&Command| KNOWN.iter().any(|known| known.name == row.full_name());
    let own: Vec<String> = command::TABLE
        .iter()
        .filter(|row| !is_known(row))
        .map(|row| format!("| `{}` | {} |", row.name, row.summary))
        .collect();
    text + &format!("### Only in kvlite\n\n| command | |\n| --- | --- |\n{}\n", own.join("\n"))
}

#[test]
fn the_document_says_of_every_command_whether_it_is_there() {
    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/compatibility.md");
    let document = std::fs::read_to_string(PATH).unwrap();
    let [begin, end] = ["<!-- commands: begin -->\n", "<!-- commands: end -->"];
    let (before, rest) = document.split_once(begin).expect("a line says where the tables begin");
    let (written, after) = rest.split_once(end).expect("a line says where the tables end");
    let tables = format!("\n{}\n", tables());
    if std::env::var_os("KVLITE_ACCEPT").is_some() {
        std::fs::write(PATH, [before, begin, &tables, end, after].concat()).unwrap();
    } else if written != tables {
        let [now, then] = [&tables, written].map(|text| text.lines().collect::<BTreeSet<_>>());
        let differences: Vec<_> = now.symmetric_difference(&then).collect();
        panic!(
            "docs/compatibility.md differs from the command table; KVLITE_ACCEPT=1 rewrites it:\n{differences:#?}"
        );
    }
}

#[test]
fn no_command_that_is_there_is_said_to_be_missing() {
    for (name, why) in NOT_HERE {
        assert!(
            command::find(name.as_bytes()).is_none(),
            "{name} is in the command table: take it out of NOT_HERE in {}, where it stands with \"{why}\"",
            file!()
        );
        assert!(KNOWN.iter().any(|known| known.name == *name), "{name} is no command of Redis");
    }
    for (name, _) in PARTLY {
        assert!(
            command::find(name.as_bytes()).is_some(),
            "{name} is not there at all: take it out of PARTLY"
        );
    }
}

#[test]
fn what_is_known_is_sorted_and_agrees_with_the_table() {
    assert!(KNOWN.is_sorted_by(|a, b| a.name < b.name), "it is searched by name");
    for known in KNOWN {
        let Some(row) = command::find_full(known.name.as_bytes()) else { continue };
        assert_eq!(row.group.name(), known.group, "the group of {}", known.name);
    }
}

#[test]
fn the_manual_lists_every_parameter_of_config() {
    let manual = include_str!("../../docs/OPERATIONS.md");
    let section = manual.split("## Names of Redis").nth(1).expect("there is such a section");
    for parameter in crate::config::parameters::PARAMETERS {
        let name = format!("`{}`", parameter.name);
        let line = section.lines().find(|line| line.contains(&name));
        let line = line.unwrap_or_else(|| panic!("docs/OPERATIONS.md does not speak of {name}"));
        assert_eq!(line.contains("no effect"), parameter.is_remembered(), "{name}: {line}");
    }
}
