//! The command line: a tool or the load generator if the first argument names one, else the server.

use std::ffi::OsString;

use clap::{CommandFactory, Subcommand};

use crate::config::{Config, usable_cpus};
use crate::tools::Tool;
use crate::{bench, health, top};

/// What the process was called for.
pub enum Call {
    /// A tool.
    Tool(Tool),
    /// The load generator, with its arguments.
    Bench(Vec<OsString>),
    /// The question how a server is, with its arguments.
    Health(Vec<OsString>),
    /// The view of a running server on a terminal, with its arguments.
    Top(Vec<OsString>),
    /// The server.
    Server(Box<Config>),
}

impl Call {
    /// What this process was called for, from its arguments and its environment. Prints and exits by itself: with
    /// status 0 after `--help` and `--version`, with 2 after a usage error.
    pub fn from_process() -> Call {
        if let Some(tool) = Tool::from_process() {
            return Call::Tool(tool);
        }
        if std::env::args_os().nth(1).is_some_and(|name| name == "bench") {
            return Call::Bench(std::env::args_os().skip(1).collect());
        }
        if std::env::args_os().nth(1).is_some_and(|name| name == "health") {
            return Call::Health(std::env::args_os().skip(1).collect());
        }
        if std::env::args_os().nth(1).is_some_and(|name| name == "top") {
            return Call::Top(std::env::args_os().skip(1).collect());
        }
        let config = Config::parse_as(server_command(), std::env::args_os(), usable_cpus());
        Call::Server(Box::new(config.unwrap_or_else(|error| error.exit())))
    }
}

/// The server's command line. The tools and the load generator are in it for the help's sake: a command line that
/// begins with one never comes here.
fn server_command() -> clap::Command {
    let server = Config::command();
    let about = server.get_about().cloned();
    Tool::augment_subcommands(server)
        .about(about.unwrap_or_default()) // Not that of the tools.
        .subcommand(bench::Options::command().name("bench"))
        .subcommand(health::command())
        .subcommand(top::command())
        .args_conflicts_with_subcommands(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HELP_COLUMNS;

    #[test]
    fn the_help_fits_80_columns_and_shows_every_command() {
        // As wide as it gets: the terminal that runs this does not matter.
        let help = server_command().render_help().to_string();
        let about = Config::command().get_about().unwrap().to_string();
        assert!(help.replace('\n', " ").starts_with(&about), "{help}");
        for name in ["bench", "check", "dump", "health", "repair", "top"] {
            assert!(help.contains(&format!("\n  {name} ")), "{name} is missing: {help}");
        }
        for heading in ["Network", "Persistence", "Cores", "Analytics and expiry", "Logging"] {
            assert!(help.contains(&format!("\n{heading}:\n")), "{heading} is missing");
        }
        let tools = Tool::augment_subcommands(clap::Command::new("kvlite").max_term_width(HELP_COLUMNS));
        let mut all = vec![help, bench::Options::command().render_help().to_string()];
        all.push(health::command().render_help().to_string());
        all.push(top::command().render_help().to_string());
        all.extend(
            tools
                .get_subcommands()
                .map(|tool| tool.clone().max_term_width(HELP_COLUMNS).render_long_help().to_string()),
        );
        for line in all.iter().flat_map(|help| help.lines()) {
            assert!(line.chars().count() <= HELP_COLUMNS, "too wide: {line}");
        }
    }

    #[test]
    fn words_behind_options_are_refused_with_what_to_do() {
        for (args, told) in [
            ("--port 1 extra", "unexpected word 'extra': options begin with --"),
            ("--shards 1 --auto-ttl a* 1h b*", "unexpected word '1h': options begin with --"),
            ("--port 1 check", "the subcommand 'check' cannot be used with '--port"),
        ] {
            let args = std::iter::once("kvlite").chain(args.split_whitespace());
            let error = Config::parse_as(server_command(), args, vec![0, 1]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            assert!(error.to_string().contains(told), "{error}");
        }
    }
}
