//! Rate limits that hold under concurrency and leave nothing behind: fixed and sliding window, token and leaky bucket.
//!
//! `cargo run --example rate_limiting -- --url redis://127.0.0.1:6379`
//!
//! No form here needs a script: each decides by the answer of one atomic command. Time is an argument, so that many
//! threads can ask at the same moment; a site passes the time of its clock. Where the clocks of its machines differ,
//! each machine is early or late by that at the borders of windows, and no more.

#[path = "../run/mod.rs"]
mod run;

use std::process::ExitCode;
use std::sync::Barrier;

use redis::{Connection, RedisResult, cmd, pipe};
use run::{Run, say};

const THREADS: usize = 8;
const LIMIT: u64 = 100;
const WINDOW_MS: u64 = 60_000;

/// Some time of some day, at the begin of a window.
const NOON_MS: u64 = 29_000_000 * WINDOW_MS;

fn main() -> ExitCode {
    run::main("rate_limiting", |run| {
        naive(run)?;
        fixed_window(run)?;
        sliding_window(run)?;
        token_bucket(run)?;
        leaky_bucket(run)
    })
}

/// Lets each thread ask so often; the sum of what was granted.
fn granted(
    run: &Run,
    requests: u64,
    ask: impl Fn(&mut Connection) -> RedisResult<bool> + Sync,
) -> RedisResult<u64> {
    let granted = run.at_once(THREADS, |_, connection| {
        (0..requests).map(|_| ask(connection).map(u64::from)).sum::<RedisResult<u64>>()
    })?;
    Ok(granted.into_iter().sum())
}

fn naive(run: &Run) -> RedisResult<()> {
    say!(
        "\nNaive, GET and then SET: {THREADS} clients, one request is left, and all look before anyone has written."
    );
    let (key, all_have_read, connection) = (run.key("naive:17"), Barrier::new(THREADS), &mut run.connect()?);
    cmd("SET").arg((&key, LIMIT - 1, "EX", 60)).exec(connection)?;
    let granted = granted(run, 1, |connection| {
        let count: u64 = cmd("GET").arg(&key).query(connection)?;
        all_have_read.wait();
        cmd("SET").arg((&key, count + 1, "KEEPTTL")).exec(connection)?;
        Ok(count < LIMIT)
    })?;
    run.check(granted == THREADS as u64, format!("{granted} were let through where 1 was left"));

    say!(
        "Naive, INCR and then EXPIRE for the first one: a client that dies in between leaves the key for ever."
    );
    let key = run.key("naive:18");
    cmd("INCR").arg(&key).exec(connection)?; // Here it dies.
    let ttl: i64 = cmd("TTL").arg(&key).query(connection)?;
    run.check(ttl == -1, "a counter without a TTL is left: the user of a fixed key is locked out for good");
    Ok(())
}

/// Counts one for a window and returns what comes out. The key gets its TTL as it is made, and lives for a window
/// longer than its own, so that it cannot end between the two commands. `INCR` keeps the TTL.
fn count(connection: &mut Connection, key: &str) -> RedisResult<u64> {
    pipe()
        .cmd("SET")
        .arg((key, 0, "NX", "PX", 2 * WINDOW_MS))
        .ignore()
        .cmd("INCR")
        .arg(key)
        .query::<(u64,)>(connection)
        .map(|(count,)| count)
}

/// At most `LIMIT` from one full minute to the next.
fn allow_fixed(connection: &mut Connection, client: &str, now_ms: u64) -> RedisResult<bool> {
    Ok(count(connection, &format!("{client}:{}", now_ms / WINDOW_MS))? <= LIMIT)
}

fn fixed_window(run: &Run) -> RedisResult<()> {
    say!("\nFixed window: a counter for each minute.");
    let client = run.key("fixed:17");
    let at = |now_ms| granted(run, 50, |connection| allow_fixed(connection, &client, now_ms));
    let first = at(NOON_MS + WINDOW_MS - 1)?;
    run.check(
        first == LIMIT,
        format!("of {} requests at the same moment {first} were let through", THREADS * 50),
    );
    let second = at(NOON_MS + WINDOW_MS)?;
    run.check(
        second == LIMIT,
        format!("its weakness: a millisecond later begins a new window, with {second} more"),
    );

    let key = format!("{client}:{}", NOON_MS / WINDOW_MS);
    let ttl_ms: i64 = cmd("PTTL").arg(key).query(&mut run.connect()?)?;
    run.check(ttl_ms > 0, format!("its key goes in {ttl_ms} ms, whoever dies meanwhile"));
    Ok(())
}

/// At most `LIMIT` in any minute, if the requests of the last window came evenly. Who is refused gives back what it has
/// counted. Until then it stands in the way of others, so that a crowd may get a few less, and never more.
fn allow_sliding(connection: &mut Connection, client: &str, now_ms: u64) -> RedisResult<bool> {
    let window = now_ms / WINDOW_MS;
    let (this, last) = (format!("{client}:{window}"), format!("{client}:{}", window - 1));
    let of_this = count(connection, &this)?;
    let of_last: Option<u64> = cmd("GET").arg(&last).query(connection)?;
    let weighted = of_last.unwrap_or(0) * (WINDOW_MS - now_ms % WINDOW_MS) / WINDOW_MS;
    let is_allowed = weighted + of_this <= LIMIT;
    if !is_allowed {
        cmd("DECR").arg(&this).exec(connection)?;
    }
    Ok(is_allowed)
}

fn sliding_window(run: &Run) -> RedisResult<()> {
    say!("\nSliding window: this minute's counter, and the last one's by the share of it that still counts.");
    let client = run.key("sliding:17");
    let at = |now_ms| granted(run, 50, |connection| allow_sliding(connection, &client, now_ms));
    let few_less = LIMIT - THREADS as u64 + 1..=LIMIT;
    let first = at(NOON_MS + WINDOW_MS - 1)?;
    run.check(few_less.contains(&first), format!("{first} were let through, at most {LIMIT}"));
    let second = at(NOON_MS + WINDOW_MS)?;
    run.check(second < THREADS as u64, format!("a millisecond later, in the next window: {second} more"));
    let third = at(NOON_MS + WINDOW_MS * 5 / 4)?;
    run.check((10..=25).contains(&third), format!("a quarter of a minute later: {third} more, of about 25"));
    Ok(())
}

/// Reserves the first free tick of the next `ticks`, from that of `now` on: `SET NX` gives each to one client only. A
/// key for each tick is dearer than one state for all, which needs a script; its bounds are the rate and a minute.
fn reserve(connection: &mut Connection, client: &str, now_tick: u64, ticks: u64) -> RedisResult<Option<u64>> {
    let key = |tick| format!("{client}:{tick}");
    let taken: Vec<Option<u8>> =
        cmd("MGET").arg((now_tick..now_tick + ticks).map(key).collect::<Vec<_>>()).query(connection)?;
    // A tick that is taken stays so, and all from now up to the last one are: there is no gap.
    for tick in (now_tick..now_tick + ticks).skip(taken.iter().flatten().count()) {
        let is_mine: bool = cmd("SET").arg((key(tick), 1, "NX", "PX", 2 * WINDOW_MS)).query(connection)?;
        if is_mine {
            return Ok(Some(tick));
        }
    }
    Ok(None)
}

/// One request a second, and up to 20 at once after a rest. Each request takes a token, and a tick is the second in
/// which that is there again: the bucket is empty when the next 20 are taken (the generic cell rate algorithm of ATM
/// networks, ITU-T I.371, with ticks for its virtual time).
fn allow_token(connection: &mut Connection, client: &str, now_ms: u64) -> RedisResult<bool> {
    Ok(reserve(connection, client, now_ms / 1000, 20)?.is_some())
}

fn token_bucket(run: &Run) -> RedisResult<()> {
    say!("\nToken bucket: 20 tokens, one more each second. Bursts pass, the rate in the long run holds.");
    let client = run.key("token:17");
    let at = |now_ms| granted(run, 10, |connection| allow_token(connection, &client, now_ms));
    let burst = at(NOON_MS)?;
    run.check(
        burst == 20,
        format!("of {} requests at the same moment {burst} were let through", THREADS * 10),
    );
    let later = at(NOON_MS + 5000)?;
    run.check(later == 5, format!("five seconds later: {later}"));
    let rested = at(NOON_MS + 100_000)?;
    run.check(rested == 20, format!("after a rest of 95 seconds: {rested}, the bucket holds no more"));
    Ok(())
}

/// One request a second, evenly: it is told when its turn is, at most 20 seconds from now, and waits for that.
fn turn_of_leaky(connection: &mut Connection, client: &str, now_ms: u64) -> RedisResult<Option<u64>> {
    Ok(reserve(connection, client, now_ms / 1000, 20)?.map(|tick| tick * 1000))
}

fn leaky_bucket(run: &Run) -> RedisResult<()> {
    say!("\nLeaky bucket: a queue of 20 that lets out one each second. Nothing passes in a burst.");
    let client = run.key("leaky:17");
    let turns = run.at_once(THREADS, |_, connection| {
        (0..10).map(|_| turn_of_leaky(connection, &client, NOON_MS)).collect::<RedisResult<Vec<_>>>()
    })?;
    let mut turns: Vec<u64> = turns.into_iter().flatten().flatten().collect();
    turns.sort_unstable();
    let evenly = (0..20).map(|second| NOON_MS + second * 1000);
    run.check(
        turns.iter().copied().eq(evenly),
        format!("{} of {} may wait, each for a second of its own", turns.len(), THREADS * 10),
    );

    let ttl_ms: i64 = cmd("PTTL").arg(format!("{client}:{}", NOON_MS / 1000)).query(&mut run.connect()?)?;
    run.check(ttl_ms > 0, "the keys of the ticks go by themselves");
    Ok(())
}
