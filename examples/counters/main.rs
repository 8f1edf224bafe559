//! Counters that lose nothing: atomic ones, one over several keys for very high rates, and one for each minute.
//!
//! `cargo run --example counters -- --url redis://127.0.0.1:6379`

#[path = "../run/mod.rs"]
mod run;

use std::process::ExitCode;
use std::sync::Barrier;

use redis::{Connection, RedisResult, Value, cmd, pipe};
use run::{Run, random, say};

const THREADS: usize = 8;
const ROUNDS: usize = 250;

fn main() -> ExitCode {
    run::main("counters", |run| {
        naive(run)?;
        atomic(run)?;
        sharded(run)?;
        by_minute(run)
    })
}

fn naive(run: &Run) -> RedisResult<()> {
    say!("\nThe naive counter: GET, add one, SET. The worst case: all read before anyone writes.");
    let (views, all_have_read, all_have_written) =
        (run.key("naive"), Barrier::new(THREADS), Barrier::new(THREADS));
    run.at_once(THREADS, |_, connection| {
        for _ in 0..ROUNDS {
            let count: Option<usize> = cmd("GET").arg(&views).query(connection)?;
            all_have_read.wait();
            cmd("SET").arg((&views, count.unwrap_or(0) + 1)).exec(connection)?;
            all_have_written.wait();
        }
        Ok(())
    })?;
    let (made, count) = (THREADS * ROUNDS, value(&mut run.connect()?, &views)?);
    run.check(count == ROUNDS, format!("{made} views were counted as {count}: {} are lost", made - count));
    Ok(())
}

fn atomic(run: &Run) -> RedisResult<()> {
    say!("\nINCR reads, adds and writes in one step, and says what came out.");
    let views = run.key("page:17:views");
    let seen = run.at_once(THREADS, |_, connection| {
        (0..ROUNDS).map(|_| cmd("INCR").arg(&views).query(connection)).collect::<RedisResult<Vec<usize>>>()
    })?;
    let mut seen = seen.concat();
    seen.sort_unstable();
    let made = THREADS * ROUNDS;
    let connection = &mut run.connect()?;
    run.check(value(connection, &views)? == made, format!("{made} views were counted as {made}"));
    run.check(
        seen.into_iter().eq(1..=made),
        "and no two clients were told the same number: INCR makes ids, too",
    );

    let hottest: RedisResult<Vec<Vec<Value>>> = cmd("HOTKEYS").arg(20).query(connection);
    match hottest {
        Ok(hottest) => {
            let is_hot = |fields: &Vec<Value>| fields.iter().any(|field| is_text(field, &views));
            match hottest.iter().position(is_hot) {
                Some(index) => say!("  HOTKEYS: {views} is number {} of the hottest keys", index + 1),
                None => say!("  HOTKEYS: {views} is not among the 20 hottest keys"),
            }
        }
        Err(error) => say!("  HOTKEYS: {error}"),
    }
    Ok(())
}

fn sharded(run: &Run) -> RedisResult<()> {
    say!("\nA key lives on one shard, so one counter is as fast as one core. Eight keys are on all of them;");
    say!("who counts takes any, who asks takes all: MGET shows them as they are at one moment.");
    let parts: Vec<String> = (0..8).map(|part| run.key(format!("likes:{part}"))).collect();
    let sum = |connection: &mut Connection| -> RedisResult<usize> {
        let counts: Vec<Option<usize>> = cmd("MGET").arg(&parts).query(connection)?;
        Ok(counts.into_iter().flatten().sum())
    };
    let sums = run.at_once(THREADS, |_, connection| {
        let mut sums = Vec::new();
        for _ in 0..ROUNDS {
            let part = &parts[random() as usize % parts.len()];
            cmd("INCR").arg(part).exec(connection)?;
            sums.push(sum(connection)?);
        }
        Ok(sums)
    })?;
    let made = THREADS * ROUNDS;
    let count = sum(&mut run.connect()?)?;
    run.check(count == made, format!("{made} likes over {} keys, and their sum is {count}", parts.len()));
    run.check(sums.iter().all(|sums| sums.is_sorted()), "no client has seen the sum go back meanwhile");
    Ok(())
}

fn by_minute(run: &Run) -> RedisResult<()> {
    say!(
        "\nOne key for each minute, which goes by itself: the views of the last three minutes, at any time."
    );
    // INCR and then EXPIRE would leave a key for ever where the client dies in between. Here it gets its TTL as it is
    // made, and INCR keeps it.
    let key = |minute: u64| run.key(format!("views:{minute}"));
    let count_at = |connection: &mut Connection, minute: u64| -> RedisResult<()> {
        pipe().cmd("SET").arg((key(minute), 0, "NX", "EX", 600)).cmd("INCR").arg(key(minute)).exec(connection)
    };
    // The minutes of the clock, were this no example: seconds since 1970, divided by 60.
    const NOW: u64 = 29_000_000;
    run.at_once(THREADS, |_, connection| (0..40).try_for_each(|view| count_at(connection, NOW - view % 4)))?;
    let connection = &mut run.connect()?;
    let last_three: Vec<String> = (NOW - 2..=NOW).map(key).collect();
    let counts: Vec<Option<usize>> = cmd("MGET").arg(&last_three).query(connection)?;
    let count: usize = counts.into_iter().flatten().sum();
    run.check(
        count == THREADS * 30,
        format!("of {} views in four minutes {count} were in the last three", THREADS * 40),
    );
    let ttls = (NOW - 3..=NOW).map(|minute| cmd("TTL").arg(key(minute)).query(connection));
    let ttls = ttls.collect::<RedisResult<Vec<i64>>>()?;
    run.check(
        ttls.iter().all(|ttl| (1..=600).contains(ttl)),
        format!("all of them have a TTL: {ttls:?} seconds"),
    );
    Ok(())
}

fn value(connection: &mut Connection, key: &str) -> RedisResult<usize> {
    cmd("GET").arg(key).query(connection)
}

fn is_text(value: &Value, text: &str) -> bool {
    matches!(value, Value::BulkString(bytes) if bytes == text.as_bytes())
}
