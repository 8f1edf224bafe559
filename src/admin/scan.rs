//! What a `SCAN` asks for.

use std::sync::Arc;

use shard::{Error, Glob, Request, parse_integer};

/// How many keys a page of `SCAN` visits when the client does not say.
const SCAN_COUNT_DEFAULT: usize = 10;

/// What a `SCAN` asks for.
pub(crate) struct ScanArguments {
    pub cursor: u64,
    /// The number of keys to visit, about.
    pub count: usize,
    pub pattern: Option<Arc<Glob>>,
}

pub(super) fn scan_arguments(request: &Request<'_>) -> Result<ScanArguments, Error> {
    let cursor = std::str::from_utf8(request.arg(0)).ok().and_then(|digits| digits.parse().ok());
    let cursor = cursor.ok_or(Error::InvalidCursor)?;
    let (mut count, mut pattern, mut of_another_type) = (SCAN_COUNT_DEFAULT, None, false);
    let mut args = request.args().skip(1);
    while let Some(option) = args.next() {
        let value = args.next().ok_or(Error::Syntax)?;
        match &option.to_ascii_uppercase()[..] {
            b"COUNT" => {
                let given = parse_integer(value).ok_or(Error::NotAnInteger)?;
                count = usize::try_from(given).ok().filter(|n| *n > 0).ok_or(Error::Syntax)?;
            }
            b"MATCH" => pattern = Some(Arc::new(Glob::new(value)?)),
            b"TYPE" => of_another_type = !value.eq_ignore_ascii_case(b"string"),
            _ => return Err(Error::Syntax),
        }
    }
    if of_another_type {
        // Every value is a string, and no key matches a byte out of none.
        pattern = Some(Arc::new(Glob::new(b"[^\0-\xff]")?));
    }
    Ok(ScanArguments { cursor, count, pattern })
}
