//! `CONFIG`: the options of the server, and those that change while it runs.

use std::borrow::Cow;

use shard::{AutoTtl, Error, Glob, Reply, Request};

use super::About;
use crate::config::{InvalidValue, auto_ttl, auto_ttl_text, option_name};
use crate::protocol::Dialect;

/// `CONFIG GET`. In the text protocol the value alone, where no pattern is asked for.
pub(super) fn get(
    about: &About<'_>,
    request: &Request<'_>,
    dialect: Dialect,
) -> Result<Reply<'static>, Error> {
    let options = options(about);
    if dialect == Dialect::Text
        && request.arg_count() == 1
        && let name = option_name(request.arg(0))
        && !name.iter().any(|byte| b"*?[\\".contains(byte))
    {
        let option = options.into_iter().find(|(known, _)| known.as_bytes() == name);
        let (_, value) = option.ok_or_else(|| Error::UnknownOption(request.arg(0).into()))?;
        return Ok(Reply::Bulk(Cow::Owned(value.into_bytes())));
    }
    let mut shown = Vec::new();
    mark_options(about, request.args(), &mut shown)?;
    Ok(shown_options(about, &shown, dialect))
}

/// The options of the server and their values.
fn options(about: &About<'_>) -> Vec<(&'static str, String)> {
    let options = about.shared.config.options().into_iter().map(|(name, value)| match name {
        "auto-ttl" => (name, auto_ttl_text(about.auto_ttl)),
        "notify-keyspace-events" => (name, about.shared.settings.keyspace_events().text()),
        "client-output-buffer-limit" => (name, about.shared.settings.output_limits().text()),
        _ => (name, value),
    });
    options.collect()
}

/// The reply with those options that are marked, in their order.
pub(super) fn shown_options(about: &About<'_>, shown: &[bool], dialect: Dialect) -> Reply<'static> {
    let shown = options(about).into_iter().zip(shown).filter_map(|(option, shown)| shown.then_some(option));
    let value = |value: String| Reply::Bulk(Cow::Owned(value.into_bytes()));
    match dialect {
        Dialect::Text => Reply::Array(shown.map(|(name, text)| value(format!("{name} {text}"))).collect()),
        _ => Reply::Map(shown.map(|(name, text)| (name.into(), value(text))).collect()),
    }
}

/// What `CONFIG SET` asks for; of all options, one can change while the server runs.
pub(super) fn setting(about: &About<'_>, request: &Request<'_>) -> Result<AutoTtl, Error> {
    let name = request.arg(0);
    match about.shared.config.option(name) {
        Some(("auto-ttl", _)) => {}
        Some(_) => return Err(Error::FixedOption(name.into())),
        None => return Err(Error::UnknownSetting(name.into())),
    }
    let rules = std::str::from_utf8(request.arg(1)).map_err(|_| InvalidValue::AutoTtl).and_then(auto_ttl);
    rules.map_err(|error| Error::InvalidSetting("auto-ttl", error.to_string().into()))
}

/// Notes which options these patterns match.
pub(super) fn mark_options<'a>(
    about: &About<'_>,
    patterns: impl Iterator<Item = &'a [u8]>,
    shown: &mut Vec<bool>,
) -> Result<(), Error> {
    let options = options(about);
    shown.resize(options.len(), false);
    for pattern in patterns {
        let glob = Glob::new(&option_name(pattern))?;
        for ((name, _), shown) in options.iter().zip(&mut *shown) {
            *shown |= glob.matches(name.as_bytes());
        }
    }
    Ok(())
}
