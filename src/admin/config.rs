//! `CONFIG`: the options of the server, and those that change while it runs. What each shows and takes says the table in
//! [`parameters`](crate::config::parameters).

use std::borrow::Cow;

use shard::{AutoTtl, Error, Glob, Reply, Request};

use super::About;
use crate::config::file::Rewrite;
use crate::config::parameters::{PARAMETERS, Parameter, Refusal, Shown, Value, parameter};
use crate::config::{auto_ttl, option_name};
use crate::logging;
use crate::protocol::Dialect;

/// The error of `CONFIG REWRITE` in a server that was started without `--config`.
const NO_FILE: Error = Error::Unavailable("The server is running without a config file");

/// Which of all options a `CONFIG GET` shows, and the name by which it asks for each.
pub(crate) type Asked = Vec<Option<String>>;

/// `CONFIG GET`. In the text protocol the value alone, where no pattern is asked for.
pub(super) fn get(
    about: &About<'_>,
    request: &Request<'_>,
    dialect: Dialect,
) -> Result<Reply<'static>, Error> {
    if dialect == Dialect::Text
        && request.arg_count() == 1
        && let name = option_name(request.arg(0))
        && !is_pattern(&name)
    {
        let option = options(about, dialect).into_iter().find(|(known, _)| known.as_bytes() == name);
        let (_, value) = option.ok_or_else(|| Error::UnknownOption(request.arg(0).into()))?;
        return Ok(Reply::Bulk(Cow::Owned(value.into_bytes())));
    }
    let mut asked = Asked::new();
    mark_options(about, request.args(), &mut asked)?;
    Ok(shown_options(about, &asked, dialect))
}

fn is_pattern(name: &[u8]) -> bool {
    name.iter().any(|byte| b"*?[\\".contains(byte))
}

/// What the values are shown from, for a client of this dialect: each protocol has its port.
fn shown<'a>(about: &'a About<'_>, dialect: Dialect) -> Shown<'a> {
    let shared = about.shared;
    let port = match dialect {
        Dialect::Text => shared.config.port,
        _ => shared.resp_port.unwrap_or(0),
    };
    Shown { config: &shared.config, settings: &shared.settings, port, auto_ttl: about.auto_ttl }
}

/// All options and their values, sorted by name.
fn options(about: &About<'_>, dialect: Dialect) -> Vec<(&'static str, String)> {
    let shown = shown(about, dialect);
    let mut options = about.shared.config.options();
    options.retain(|(name, _)| parameter(name.as_bytes()).is_none());
    options.extend(PARAMETERS.iter().map(|it| (it.name, it.show(&shown))));
    options.sort_unstable_by_key(|(name, _)| *name);
    options
}

/// The reply with those options that are asked for, in their order.
pub(super) fn shown_options(about: &About<'_>, asked: &Asked, dialect: Dialect) -> Reply<'static> {
    let asked = options(about, dialect).into_iter().zip(asked);
    let asked = asked.filter_map(|((_, text), name)| Some((name.clone()?, text)));
    let bulk = |text: Vec<u8>| Reply::Bulk(Cow::Owned(text));
    match dialect {
        Dialect::Text => {
            Reply::Array(asked.map(|(name, text)| bulk(format!("{name} {text}").into_bytes())).collect())
        }
        _ => Reply::Map(asked.map(|(name, text)| (name.into(), bulk(text.into_bytes()))).collect()),
    }
}

/// Notes which options these names and patterns ask for. An option that is named is shown by the name that the client
/// has for it, as far as that differs by capitals.
pub(super) fn mark_options<'a>(
    about: &About<'_>,
    names: impl Iterator<Item = &'a [u8]>,
    asked: &mut Asked,
) -> Result<(), Error> {
    let options = options(about, Dialect::Resp2);
    asked.resize(options.len(), None);
    for name in names {
        let normal = option_name(name);
        if !is_pattern(&normal) {
            if let Ok(index) = options.binary_search_by(|(known, _)| known.as_bytes().cmp(&normal)) {
                let known = options[index].0;
                let named = str::from_utf8(name).ok().filter(|name| name.eq_ignore_ascii_case(known));
                asked[index].get_or_insert_with(|| named.unwrap_or(known).to_owned());
            }
            continue;
        }
        let glob = Glob::new(&normal)?;
        for ((name, _), asked) in options.iter().zip(&mut *asked) {
            if glob.matches(name.as_bytes()) {
                asked.get_or_insert_with(|| (*name).to_owned());
            }
        }
    }
    Ok(())
}

/// `CONFIG SET`: all of the pairs, or none. Returns the rules for TTLs, if they are among them: those are for the
/// workers to set.
pub(super) fn set(
    about: &About<'_>,
    request: &Request<'_>,
    dialect: Dialect,
) -> Result<Option<AutoTtl>, Error> {
    if !request.arg_count().is_multiple_of(2) {
        return Err(Error::Syntax);
    }
    let shown = shown(about, dialect);
    let mut found: Vec<&'static Parameter> = Vec::new();
    for name in request.args().step_by(2) {
        let option = parameter(&option_name(name));
        let Some(parameter) = option else {
            return Err(match about.shared.config.option(name) {
                Some(_) => Error::FixedOption(name.into()),
                None => Error::UnknownSetting(name.into()),
            });
        };
        if found.iter().any(|other| other.name == parameter.name) {
            return Err(Error::InvalidSetting(parameter.name, "duplicate parameter".into()));
        }
        found.push(parameter);
    }
    let texts = request.args().skip(1).step_by(2);
    let read = |(parameter, text): (&'static Parameter, &[u8])| {
        let text = String::from_utf8_lossy(text); // No value is other than text, and this is none.
        parameter.read(&text, &shown).map_err(|refusal| match refusal {
            Refusal::Fixed => Error::FixedOption(parameter.name.as_bytes().into()),
            Refusal::Invalid(why) => Error::InvalidSetting(parameter.name, why.into()),
        })
    };
    let values: Vec<Value> = found.iter().copied().zip(texts).map(read).collect::<Result<_, _>>()?;
    let mut rules = None;
    for (parameter, value) in found.into_iter().zip(values) {
        if let ("auto-ttl", Value::Text(text)) = (parameter.name, &value) {
            rules = auto_ttl(text).ok();
        }
        parameter.set(value, shown.settings);
        if parameter.canonical_name() == "log-level" {
            logging::set_filter(&shown.settings.log_level());
        }
    }
    Ok(rules)
}

/// What `CONFIG REWRITE` has to write.
pub(super) fn rewrite(about: &About<'_>) -> Result<Rewrite, Error> {
    Rewrite::new(&shown(about, Dialect::Text)).ok_or(NO_FILE)
}
