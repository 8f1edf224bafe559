//! The file of `--config`: lines of a name and a value, which count where neither the command line nor the environment
//! says otherwise, and which `CONFIG REWRITE` brings up to date.
//!
//! Names are those of the options and those of Redis' parameters. A line that begins with `#` is a comment.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::{Arg, Command, CommandFactory, FromArgMatches};
use shard::AutoTtl;

use super::parameters::{PARAMETERS, Refusal, Settings, Shown, Value, parameter};
use super::{Config, option_name, parameters, units};

/// A greater file is none of options.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A line of the file that sets something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: usize,
    /// The name, as options are spelt.
    pub name: String,
    /// The value, without quotes around it.
    pub value: String,
}

/// What a file says.
#[derive(Clone, Debug, Default)]
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it sets.
    pub lines: Vec<Line>,
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, with its name and line.
    pub fn read(path: &Path) -> Result<ConfigFile, String> {
        let failed = |error: io::Error| format!("the configuration file {}: {error}", path.display());
        // An absolute path: a relative one means the directory of the start.
        let path = std::path::absolute(path).map_err(failed)?;
        let text = read(&path).map_err(failed)?;
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            match parse(line) {
                None => {}
                Some((name, Some(value))) => lines.push(Line { number: index + 1, name, value }),
                Some((name, None)) => {
                    return Err(format!(
                        "{}:{}: {} has no value",
                        path.display(),
                        index + 1,
                        units::quoted(&name)
                    ));
                }
            }
        }
        Ok(ConfigFile { path, lines })
    }

    /// The file and the line, for errors.
    pub fn place(&self, line: &Line) -> String {
        format!("{}:{}", self.path.display(), line.number)
    }

    /// The values of those lines that are no options of the command line, in their order.
    ///
    /// # Errors
    /// What is wrong with the first line that says nothing true or known.
    pub(super) fn settings(
        &self,
        config: &Config,
        is_option: impl Fn(&Line) -> bool,
    ) -> Result<Vec<(&'static str, Value)>, String> {
        let settings = Settings::default();
        let shown = Shown { config, settings: &settings, port: config.port, auto_ttl: &AutoTtl::default() };
        let read = |line: &Line| {
            let place = self.place(line);
            let parameter = parameter(line.name.as_bytes())
                .ok_or_else(|| format!("{place}: there is no option {}", units::quoted(&line.name)))?;
            let refused = |refusal| match refusal {
                Refusal::Invalid(why) => format!("{place}: {}: {why}", line.name),
                Refusal::Fixed => {
                    let value = parameter.show(&shown);
                    format!("{place}: {} is always '{value}' here; leave the line out", line.name)
                }
            };
            // Redis takes any value of a parameter at the start that it does not change later.
            match parameter.changes() || line.value != parameter.show(&shown) {
                true => parameter
                    .read(&line.value, &shown)
                    .map(|value| Some((parameter.name, value)))
                    .map_err(refused),
                false => Ok(None),
            }
        };
        self.lines.iter().filter(|line| !is_option(line)).map(read).filter_map(Result::transpose).collect()
    }
}

fn read(path: &Path) -> io::Result<String> {
    match fs::metadata(path)? {
        about if about.len() > FILE_BYTES_MAX => {
            Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than a mebibyte"))
        }
        _ => {
            let text = fs::read_to_string(path)?;
            // Some editors begin a file with a byte order mark.
            Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
        }
    }
}

/// The name of a line that is not blank and no comment, and its value, if it has one.
fn parse(line: &str) -> Option<(String, Option<String>)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (name, value) = match line.split_once(char::is_whitespace) {
        Some((name, value)) => (name, Some(value.trim())),
        None => (line, None),
    };
    let name = String::from_utf8(option_name(name.as_bytes())).unwrap_or_default();
    let unquoted = value.map(|value| {
        let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        inner.unwrap_or(value).to_owned()
    });
    Some((name, unquoted))
}

/// What `CONFIG REWRITE` writes: the options that change, as they are now.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// The file.
    pub path: PathBuf,
    /// More clients than these there cannot be, whatever a line says.
    clients_max: u32,
    options: Vec<Current>,
}

/// An option as it is now.
#[derive(Clone, Debug)]
struct Current {
    /// Its names, the one to add first, with the values under them.
    names: Vec<(&'static str, String)>,
    /// Whether a line is added where the file has none: the next start would have another value without it.
    is_added: bool,
}

impl Rewrite {
    /// The options as they are now; `None` where the server was started without a file.
    pub fn new(now: &Shown<'_>) -> Option<Rewrite> {
        let file = now.config.file()?;
        let settings = Settings::new(now.config);
        let then = Shown { settings: &settings, auto_ttl: &rules(now.config), ..*now };
        let mut options: Vec<Current> = Vec::new();
        for it in PARAMETERS.iter().filter(|it| it.changes()) {
            let name = (it.name, it.show(now));
            let is_added = name.1 != it.show(&then) || file.lines.iter().any(|line| it.is_set_by(&line.name));
            match options.iter_mut().find(|option| it.is_set_by(option.names[0].0)) {
                Some(option) => {
                    option.names.push(name);
                    option.is_added |= is_added;
                }
                None => options.push(Current { names: vec![name], is_added }),
            }
        }
        let clients_max = now.settings.max_connections_bound();
        Some(Rewrite { path: file.path.clone(), clients_max, options })
    }

    /// Brings the file up to date: what stands in it is kept, comments included, but for the values that have changed.
    /// At any moment the file is there, as it was or as it is to be. Waits for the disk.
    ///
    /// # Errors
    /// When the file or its directory cannot be written.
    pub fn carry_out(&self) -> io::Result<()> {
        let text = match read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = directory.join(format!(".{name}.unfinished"));
        let written = (|| {
            let mut file = fs::File::create(&unfinished)?;
            if let Ok(about) = fs::metadata(&self.path) {
                file.set_permissions(about.permissions())?;
            }
            file.write_all(self.apply(&text).as_bytes())?;
            file.sync_all()?;
            fs::rename(&unfinished, &self.path)?;
            fs::File::open(directory)?.sync_all()
        })();
        if written.is_err() {
            let _ = fs::remove_file(&unfinished); // It may not be there.
        }
        written
    }

    /// The text of the file to be. A line that says what is so stays, in whichever way it says it.
    fn apply(&self, text: &str) -> String {
        let parsed: Vec<_> = text.lines().map(|line| (line, parse(line))).collect();
        let mut to_write: Vec<bool> = vec![true; self.options.len()];
        for (option, to_write) in self.options.iter().zip(&mut to_write) {
            let mut lines = parsed.iter().rev().filter_map(|(_, line)| line.as_ref());
            let last = lines.find_map(|(name, value)| Some((option.under(name)?, name, value)));
            *to_write = match last {
                Some((now, name, value)) => {
                    let said = value.as_ref().and_then(|value| self.value_said(name, value));
                    said.as_ref() != Some(now)
                }
                None => option.is_added,
            };
        }
        let mut is_written = vec![false; self.options.len()];
        let mut lines = Vec::new();
        for (line, parsed) in parsed {
            let of_line = parsed.and_then(|(name, _)| {
                let mut options = self.options.iter().enumerate().filter(|(index, _)| to_write[*index]);
                options.find_map(|(index, option)| Some((index, line_of(&name, option.under(&name)?))))
            });
            match of_line {
                None => lines.push(line.to_owned()),
                Some((index, line)) => {
                    if !std::mem::replace(&mut is_written[index], true) {
                        lines.push(line);
                    }
                }
            }
        }
        for (index, option) in self.options.iter().enumerate() {
            if to_write[index] && !is_written[index] {
                let (name, value) = &option.names[0];
                lines.push(line_of(name, value));
            }
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The value of an option, as it is shown, where nothing but this line sets it; `None` where the line is refused.
    fn value_said(&self, name: &str, value: &str) -> Option<String> {
        // The environment of this process is none of the file.
        let command = Config::command().mut_args(|arg| arg.env(Resettable::Reset));
        let option = option_of_line(&command, name, value);
        let flag = option.as_ref().map(|(option, value)| format!("--{option}={value}"));
        let matches = command.try_get_matches_from(["kvlite".to_owned()].into_iter().chain(flag)).ok()?;
        let mut config = Config::from_arg_matches(&matches).ok()?;
        if config.max_connections == 0 || config.max_connections > self.clients_max {
            config.max_connections = self.clients_max;
        }
        let (settings, auto_ttl) = (Settings::new(&config), rules(&config));
        let shown = Shown { config: &config, settings: &settings, port: 0, auto_ttl: &auto_ttl };
        let parameter = parameter(name.as_bytes())?;
        if option.is_none() {
            parameter.set(parameter.read(value, &shown).ok()?, &settings);
        }
        Some(parameter.show(&shown))
    }
}

impl Current {
    /// Its value under one of its names.
    fn under(&self, name: &str) -> Option<&String> {
        self.names.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// The option of the command line that a line of a file sets, and its value there.
pub(super) fn option_of_line(command: &Command, name: &str, value: &str) -> Option<(String, String)> {
    let is_option =
        |arg: &Arg| arg.get_long() == Some(name) && arg.get_action().takes_values() && name != "config";
    match command.get_arguments().any(is_option) {
        true => Some((name.to_owned(), value.to_owned())),
        false => parameters::option_of_redis(name, value).map(|(option, value)| (option.to_owned(), value)),
    }
}

/// The rules for TTLs with which a server begins.
fn rules(config: &Config) -> AutoTtl {
    config.auto_ttl.clone().unwrap_or_default()
}

fn line_of(name: &str, value: &str) -> String {
    let is_in_quotes = value.starts_with('"') && value.ends_with('"');
    match value.is_empty() || value.trim() != value || is_in_quotes {
        true => format!("{name} \"{value}\""),
        false => format!("{name} {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_name_and_a_value() {
        let own = |name: &str, value: &str| Some((name.to_owned(), Some(value.to_owned())));
        assert_eq!(parse("maxclients 100"), own("maxclients", "100"));
        assert_eq!(parse("  MAX_connections\t 7  "), own("max-connections", "7"));
        assert_eq!(parse("auto-ttl \"a:* 1h b:* 2h\""), own("auto-ttl", "a:* 1h b:* 2h"));
        assert_eq!(parse("save \"\""), own("save", ""));
        assert_eq!(parse("port"), Some(("port".to_owned(), None)));
        for line in ["", "   ", "# port 1", "  # x"] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    /// What a server that was started with this file shows, once these were set.
    struct Running {
        config: Config,
        settings: Settings,
        auto_ttl: AutoTtl,
    }

    impl Running {
        fn start(path: &Path) -> Running {
            let config = Config::parse_from_args([Path::new("kvlite"), Path::new("--config"), path], vec![0]);
            let config = config.unwrap_or_else(|error| panic!("{error}"));
            let (settings, auto_ttl) = (Settings::new(&config), rules(&config));
            Running { config, settings, auto_ttl }
        }

        fn shown(&self) -> Shown<'_> {
            let Running { config, settings, auto_ttl } = self;
            Shown { config, settings, port: 0, auto_ttl }
        }

        fn get(&self, name: &str) -> String {
            parameter(name.as_bytes()).unwrap().show(&self.shown())
        }

        fn set(&mut self, name: &str, value: &str) {
            let parameter = parameter(name.as_bytes()).unwrap();
            let value =
                parameter.read(value, &self.shown()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            if name == "auto-ttl"
                && let Value::Text(text) = &value
            {
                self.auto_ttl = units::auto_ttl(text).unwrap();
            }
            parameter.set(value, &self.settings);
        }

        fn rewrite(&self) {
            Rewrite::new(&self.shown()).unwrap().carry_out().unwrap();
        }
    }

    #[test]
    fn a_rewrite_keeps_what_it_does_not_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kvlite.conf");
        let kept = "# ours\nport 7000\n\nclient-query-buffer-limit 64k\nmax-connections 0\nrequest-timeout 1m\n# more\n";
        fs::write(&path, format!("\u{feff}{kept}slowlog-max-len 9\nslowlog-max-len 8")).unwrap();
        let mut running = Running::start(&path);
        running.rewrite();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{kept}slowlog-max-len 9\nslowlog-max-len 8\n"), "the last line counts");
        running.set("slowlog-max-len", "7");
        running.set("auto-ttl", "a 5s");
        running.rewrite();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{kept}slowlog-max-len 7\nauto-ttl a 5s\n"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left there");
        fs::remove_dir_all(&directory).unwrap();
        assert!(Rewrite::new(&running.shown()).unwrap().carry_out().is_err());
    }

    #[test]
    fn what_is_set_back_is_rewritten_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kvlite.conf");
        for (name, line, other, back) in [
            ("hz", "", "0", "10"),
            ("timeout", "", "7", "0"),
            ("latency-tracking", "", "no", "yes"),
            ("auto-ttl", "", "a* 5s", ""),
            ("slowlog-max-len", "slowlog-max-len 50\n", "0", "50"),
            ("maxclients", "maxclients 50\n", "7", "50"),
        ] {
            fs::write(&path, line).unwrap();
            let mut running = Running::start(&path);
            for value in [other, back] {
                running.set(name, value);
                running.rewrite();
                assert_eq!(Running::start(&path).get(name), value, "{name}");
            }
            fs::write(&path, "").unwrap();
            running.rewrite();
            assert_eq!(Running::start(&path).get(name), back, "{name}: its line was taken out by hand");
        }
    }

    #[test]
    fn a_start_takes_every_value_that_a_rewrite_writes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kvlite.conf");
        for it in PARAMETERS.iter().filter(|it| it.changes()) {
            fs::write(&path, "").unwrap();
            for value in it.extremes() {
                let mut running = Running::start(&path); // With the line of the value before.
                running.set(it.name, &value);
                running.rewrite();
                let text = fs::read_to_string(&path).unwrap();
                assert!(text.lines().count() <= 1, "{}: {text}", it.name);
                assert_eq!(Running::start(&path).get(it.name), running.get(it.name), "{}: {text}", it.name);
            }
        }
    }

    #[test]
    fn what_is_quoted_of_a_line_is_short() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kvlite.conf");
        let long = "x".repeat(1_000_000);
        for line in [
            long.clone(),
            format!("{long} 1"),
            format!("bind {long}"),
            format!("shards {long}"),
            format!("auto-ttl {long} x"),
            format!("log-level {long}"),
            format!("sync-mode {long}"),
            format!("hz {long}"),
        ] {
            fs::write(&path, &line).unwrap();
            let args = [Path::new("kvlite"), Path::new("--config"), &path];
            let error = Config::parse_from_args(args, vec![0]).unwrap_err().to_string();
            assert!(error.len() < 1000, "{}: {} bytes", &line[..20], error.len());
        }
    }
}
