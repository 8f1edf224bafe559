//! The command line: a tool or the load generator if the first argument names one, else the server.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Arg, ArgAction, CommandFactory, Subcommand, value_parser};
use clap_complete::Shell;

use crate::config::{Config, HELP_COLUMNS, usable_cpus};
use crate::machine::Machine;
use crate::tools::Tool;
use crate::{bench, health, import, top};

/// What the process was called for.
pub enum Call {
    /// A tool.
    Tool(Tool),
    /// The load generator, with its arguments.
    Bench(Vec<OsString>),
    /// What a shell completes, with its arguments.
    Completions(Vec<OsString>),
    /// The server's options and where they come from, with the arguments of a server.
    Config(Vec<OsString>),
    /// The question how a server is, with its arguments.
    Health(Vec<OsString>),
    /// The import of files of other programs, with its arguments.
    Import(Vec<OsString>),
    /// The manual pages, with its arguments.
    Man(Vec<OsString>),
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
        let name = std::env::args_os().nth(1);
        let args = std::env::args_os().skip(1).collect();
        match name.as_deref().and_then(OsStr::to_str) {
            Some("bench") => Call::Bench(args),
            Some("completions") => Call::Completions(args),
            Some("config") => Call::Config(args),
            Some("health") => Call::Health(args),
            Some("import") => Call::Import(args),
            Some("man") => Call::Man(args),
            Some("top") => Call::Top(args),
            _ => {
                let config = Config::parse_as(server_command(), std::env::args_os(), usable_cpus());
                Call::Server(Box::new(config.unwrap_or_else(|error| error.exit())))
            }
        }
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
        .subcommand(import::command())
        .subcommand(config_command())
        .subcommand(completions_command())
        .subcommand(man_command())
        .subcommand(top::command())
        .args_conflicts_with_subcommands(true)
}

fn config_command() -> clap::Command {
    let json =
        Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print one JSON object per option");
    let server = Config::command();
    let options = server.get_arguments().map(|option| option.clone().hide(true));
    clap::Command::new("config")
        .bin_name("kvlite config")
        .about("Prints every option that a server would have, and what sets it")
        .override_usage("kvlite config [--json] [OPTIONS OF THE SERVER]")
        .arg(json)
        .args(options)
        .args_override_self(true)
        .max_term_width(HELP_COLUMNS)
        .after_help(
            "Takes the options of the server, which kvlite --help shows, and the same variables. Each line has the \
             flag, the value as CONFIG GET shows it, and the flag or variable that sets it, or default.\n\
             Exit status: 0, or 2 where a server would not start with these options.",
        )
}

/// Prints the options that a server with these arguments would have. Returns the exit status of the process; ends it by
/// itself after `--help` and after a usage error.
pub fn print_config(args: Vec<OsString>) -> i32 {
    let parsed = Config::parse_with_origins(config_command(), args, usable_cpus());
    let (mut config, matches) = parsed.unwrap_or_else(|error| error.exit());
    config.run_on(Machine::of_this_process());
    if let names @ [_, ..] = &Config::unknown_variables()[..] {
        eprintln!("no option has the name of these variables, which change nothing: {}", names.join(" "));
    }
    for variable in config.ignored_variables() {
        eprintln!("{} is ignored, for its value has a scheme: {}", variable.name, variable.value);
    }
    let mut lines = Vec::new();
    let mut heading = String::new();
    for setting in config.settings(&matches) {
        if matches.get_flag("json") {
            lines.push(serde_json::to_string(&setting).expect("strings are always JSON"));
            continue;
        }
        if setting.heading != heading {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            lines.push(format!("{}:", setting.heading));
            heading.clone_from(&setting.heading);
        }
        let flag = format!("--{}", setting.option);
        let value = if setting.value.is_empty() { "none" } else { &setting.value };
        lines.push(format!("  {flag:<27} {value:<20} {}", setting.origin));
    }
    print(lines.join("\n").as_bytes())
}

fn completions_command() -> clap::Command {
    clap::Command::new("completions")
        .bin_name("kvlite completions")
        .about("Prints what a shell needs to complete kvlite's options")
        .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell)))
        .max_term_width(HELP_COLUMNS)
        .after_help(
            "For bash: kvlite completions bash > /etc/bash_completion.d/kvlite\n\
             For zsh:  kvlite completions zsh > /usr/local/share/zsh/site-functions/_kvlite\n\
             For fish: kvlite completions fish > ~/.config/fish/completions/kvlite.fish",
        )
}

/// Prints what a shell needs. Returns the exit status of the process; ends it by itself after `--help` and after a usage
/// error.
pub fn print_completions(args: Vec<OsString>) -> i32 {
    let matches = completions_command().get_matches_from(args);
    let shell = *matches.get_one::<Shell>("shell").expect("it is required");
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut server_command(), "kvlite", &mut script);
    print(&script)
}

fn man_command() -> clap::Command {
    clap::Command::new("man")
        .bin_name("kvlite man")
        .about("Writes the manual pages, kvlite.1 and one for each command")
        .arg(Arg::new("directory").value_name("DIR").required(true).value_parser(value_parser!(PathBuf)))
        .max_term_width(HELP_COLUMNS)
        .after_help("DIR has to exist. To read a page: man -l DIR/kvlite.1")
}

/// Writes the manual pages. Returns the exit status of the process; ends it by itself after `--help` and after a usage
/// error.
pub fn write_man(args: Vec<OsString>) -> i32 {
    let matches = man_command().get_matches_from(args);
    let directory = matches.get_one::<PathBuf>("directory").expect("it is required");
    match clap_mangen::generate_to(server_command().disable_help_subcommand(true), directory) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: cannot write to {}: {error}", directory.display());
            1
        }
    }
}

/// Writes to standard output; a reader that has seen enough is no failure.
fn print(bytes: &[u8]) -> i32 {
    let mut out = io::stdout().lock();
    match out.write_all(bytes.trim_ascii_end()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "error: cannot write to standard output: {error}");
            1
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_fits_80_columns_and_shows_every_command() {
        // As wide as it gets: the terminal that runs this does not matter.
        let help = server_command().render_help().to_string();
        let about = Config::command().get_about().unwrap().to_string();
        assert!(help.replace('\n', " ").starts_with(&about), "{help}");
        for name in
            ["bench", "check", "completions", "config", "dump", "health", "import", "man", "repair", "top"]
        {
            assert!(help.contains(&format!("\n  {name} ")), "{name} is missing: {help}");
        }
        for heading in ["Network", "Persistence", "Cores", "Analytics and expiry", "Logging"] {
            assert!(help.contains(&format!("\n{heading}:\n")), "{heading} is missing");
        }
        // Of each command both forms, since the long one may be wider.
        let mut all = vec![help];
        for command in server_command().get_subcommands() {
            let mut command = command.clone().max_term_width(HELP_COLUMNS);
            all.extend([command.render_help(), command.render_long_help()].map(|help| help.to_string()));
        }
        for line in all.iter().flat_map(|help| help.lines()) {
            assert!(line.chars().count() <= HELP_COLUMNS, "too wide: {line}");
        }
    }

    #[test]
    fn every_command_has_a_manual_page_and_completions() {
        let directory = tempfile::tempdir().unwrap();
        let args = ["man".into(), directory.path().as_os_str().to_owned()];
        assert_eq!(write_man(args.to_vec()), 0);
        let page = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        let main = page("kvlite.1");
        for command in server_command().get_subcommands() {
            let name = command.get_name();
            assert!(page(&format!("kvlite-{name}.1")).contains(".SH NAME"), "{name}");
            assert!(main.contains(&format!("kvlite\\-{name}(1)")), "{name}: {main}");
        }
        for arg in Config::command().get_arguments().filter(|arg| !arg.is_hide_set()) {
            let flag = arg.get_long().unwrap().replace('-', "\\-");
            assert!(main.contains(&format!("\\-\\-{flag}")), "{flag}: {main}");
        }
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut server_command(), "kvlite", &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["sync-mode", "everysec", "import", "salvage"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
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
