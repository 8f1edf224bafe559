//! The file of `--config`: lines of a name and a value, which count where neither the command line nor the environment
//! says otherwise, and which `CONFIG REWRITE` brings up to date.
//!
//! Names are those of the options and those of Redis' parameters. A line that begins with `#` is a comment.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::parameters::{Refusal, Shown, Value, parameter};
use super::{Config, option_name, parameters};

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
                    return Err(format!("{}:{}: {name} has no value", path.display(), index + 1));
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
        let settings = parameters::Settings::default();
        let shown =
            Shown { config, settings: &settings, port: config.port, auto_ttl: &shard::AutoTtl::default() };
        let read = |line: &Line| {
            let place = self.place(line);
            let parameter = parameter(line.name.as_bytes())
                .ok_or_else(|| format!("{place}: there is no option {}", line.name))?;
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
        _ => fs::read_to_string(path),
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

/// What `CONFIG REWRITE` writes: the names of the options that have changed, and the values to write under each name
/// that they have.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// The file.
    pub path: PathBuf,
    /// For each option that has changed: its names, the one to add first, with the values under them.
    pub changed: Vec<Vec<(&'static str, String)>>,
}

impl Rewrite {
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

    fn apply(&self, text: &str) -> String {
        let mut is_written = vec![false; self.changed.len()];
        let mut lines = Vec::new();
        for line in text.lines() {
            let of_line = parse(line).and_then(|(name, _)| {
                self.changed.iter().enumerate().find_map(|(index, names)| {
                    names.iter().find(|(known, _)| *known == name).map(|change| (index, change))
                })
            });
            match of_line {
                None => lines.push(line.to_owned()),
                Some((index, (name, value))) => {
                    if !std::mem::replace(&mut is_written[index], true) {
                        lines.push(line_of(name, value));
                    }
                }
            }
        }
        let added = self.changed.iter().zip(is_written).filter(|(_, is_written)| !is_written);
        let added = added.filter_map(|(names, _)| names.first()).map(|(name, value)| line_of(name, value));
        lines.extend(added);
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

fn line_of(name: &str, value: &str) -> String {
    if value.is_empty() { format!("{name} \"\"") } else { format!("{name} {value}") }
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

    #[test]
    fn a_rewrite_keeps_what_it_does_not_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kvlite.conf");
        fs::write(&path, "# ours\nport 7000\n\nmaxclients 5 \n# more\nmax-connections 6\n").unwrap();
        let changed = vec![
            vec![("max-connections", "9".to_owned()), ("maxclients", "9".to_owned())],
            vec![("auto-ttl", String::new())],
        ];
        Rewrite { path: path.clone(), changed }.carry_out().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "# ours\nport 7000\n\nmaxclients 9\n# more\nauto-ttl \"\"\n");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left there");
        let elsewhere = directory.path().join("none/kvlite.conf");
        assert!(Rewrite { path: elsewhere, changed: Vec::new() }.carry_out().is_err());
    }
}
