//! Tests that keep the documents true: what the tables of options and commands hold, README and docs show.
//!
//! Holds no code of the server.

use clap::CommandFactory;
use shard::command::{TABLE, call};

use crate::config::Config;

#[test]
fn the_readme_shows_every_option_with_its_variable_and_default() {
    let readme = include_str!("../README.md");
    for arg in Config::command().get_arguments().filter(|arg| !arg.is_hide_set()) {
        let flag = arg.get_long().expect("every option has a flag");
        let variable = arg.get_env().and_then(|name| name.to_str()).expect("every option has a variable");
        let start = format!("| `--{flag}` | `{variable}` | ");
        let row = readme.lines().find_map(|line| line.strip_prefix(start.as_str()));
        let Some(row) = row else { panic!("README.md has no row that starts with {start}") };
        if let [default] = arg.get_default_values() {
            let default = format!("`{}` | ", default.display());
            assert!(
                row.starts_with(&default),
                "README.md shows another default of --{flag} than {default}: {row}"
            );
        }
    }
}

#[test]
fn the_protocol_reference_shows_every_command_as_its_row_has_it() {
    let reference = include_str!("../docs/protocol.md");
    for row in TABLE {
        let call = call(row).replace('|', "\\|");
        let line = format!("| `{call}` | {} |", row.summary);
        assert!(reference.lines().any(|shown| shown == line), "docs/protocol.md lacks this line: {line}");
    }
    let shown =
        reference.lines().skip_while(|line| *line != "## Commands").filter(|line| line.starts_with("| `"));
    assert_eq!(shown.count(), TABLE.len(), "docs/protocol.md shows a command that does not exist");
}
