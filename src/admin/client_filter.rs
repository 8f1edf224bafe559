//! Which clients `CLIENT LIST` and `CLIENT KILL` are about.

use shard::{Error, Request, parse_integer};

use crate::mesh::{ClientFilter, ClientKind};

/// The only user there is.
pub(super) const DEFAULT_USER: &[u8] = b"default";

/// The clients that a `CLIENT LIST` is about.
pub(super) fn of_list(request: &Request<'_>, asker: u64) -> Result<ClientFilter, Error> {
    let mut filter = ClientFilter { asker, ..ClientFilter::default() };
    let is = |word: &str| request.arg(0).eq_ignore_ascii_case(word.as_bytes());
    match request.arg_count() {
        0 => {}
        2 if is("TYPE") => filter.kind = Some(kind(request.arg(1))?),
        2.. if is("ID") => {
            let mut ids = Vec::with_capacity(request.arg_count());
            for arg in request.args().skip(1) {
                let id = parse_integer(arg).ok_or(Error::OutOfRange("Invalid client ID"))?;
                ids.push(u64::try_from(id).unwrap_or(0)); // No client has the number 0.
            }
            ids.sort_unstable();
            filter.ids = Some(ids);
        }
        _ => return Err(Error::Syntax),
    }
    Ok(filter)
}

/// The clients that a `CLIENT KILL` is about: in its old form the one with an address.
pub(super) fn of_kill(request: &Request<'_>, asker: u64) -> Result<ClientFilter, Error> {
    let mut filter = ClientFilter { asker, ..ClientFilter::default() };
    if request.arg_count() == 1 {
        filter.peer = Some(request.arg(0).into());
        return Ok(filter);
    }
    filter.except = Some(asker);
    let mut args = request.args();
    while let Some(option) = args.next() {
        let value = args.next().ok_or(Error::Syntax)?;
        let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
        if is("ID") {
            let id = parse_integer(value).filter(|id| *id > 0);
            let id = id.ok_or(Error::OutOfRange("client-id should be greater than 0"))?;
            filter.ids = Some(vec![id as u64]);
        } else if is("TYPE") {
            filter.kind = Some(kind(value)?);
        } else if is("ADDR") {
            filter.peer = Some(value.into());
        } else if is("LADDR") {
            filter.local = Some(value.into());
        } else if is("USER") {
            if value != DEFAULT_USER {
                return Err(Error::NoSuchUser(value.into()));
            }
        } else if is("SKIPME") {
            filter.except = match value {
                yes if yes.eq_ignore_ascii_case(b"yes") => Some(asker),
                no if no.eq_ignore_ascii_case(b"no") => None,
                _ => return Err(Error::Syntax),
            };
        } else {
            return Err(Error::Syntax);
        }
    }
    Ok(filter)
}

fn kind(name: &[u8]) -> Result<ClientKind, Error> {
    Ok(match &*name.to_ascii_lowercase() {
        b"normal" => ClientKind::Normal,
        b"pubsub" => ClientKind::Pubsub,
        b"master" | b"replica" | b"slave" => ClientKind::Peer,
        _ => return Err(Error::UnknownClientType(name.into())),
    })
}
