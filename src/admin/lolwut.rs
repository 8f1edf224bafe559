//! `LOLWUT`, which draws something and tells the version.

use shard::{Error, Reply, Request, parse_integer};

use super::REDIS_VERSION;

/// How much is drawn, in characters, unless the client says otherwise, and at most.
const COLUMNS: i64 = 64;
const ROWS: i64 = 16;
const COLUMNS_MAX: i64 = 160;
const ROWS_MAX: i64 = 80;

/// `LOLWUT [VERSION version [columns [rows]]]`. As in Redis, only the arguments of versions that draw are looked at.
pub(super) fn lolwut(request: &Request<'_>) -> Result<Reply<'static>, Error> {
    let number = |index: usize| parse_integer(request.arg(index)).ok_or(Error::NotAnInteger);
    let names_version = request.arg_count() >= 2 && request.arg(0).eq_ignore_ascii_case(b"VERSION");
    let draws = names_version && matches!(number(1)?, 5 | 6);
    let size = |index: usize, default: i64, max: i64| match draws && index < request.arg_count() {
        true => Ok(number(index)?.clamp(1, max)),
        false => Ok(default),
    };
    let columns = size(2, COLUMNS, COLUMNS_MAX)?;
    let rows = size(3, ROWS, ROWS_MAX)?;
    let version = env!("CARGO_PKG_VERSION");
    let drawn = drawing(columns as usize, rows as usize);
    Ok(Reply::Text(format!("{drawn}\nkvlite ver. {version} Redis ver. {REDIS_VERSION}\n")))
}

/// Pascal's triangle with its odd numbers only, which is Sierpinski's.
fn drawing(columns: usize, rows: usize) -> String {
    let mut drawn = String::with_capacity(rows * (columns + 1));
    for row in 0..rows {
        for column in 0..columns {
            drawn.push(if column & row == 0 { '#' } else { ' ' });
        }
        drawn.truncate(drawn.trim_end_matches(' ').len());
        drawn.push('\n');
    }
    drawn
}
