//! A cache in front of a slow source: cache-aside, write-through, and one that a popular key cannot bring down.
//!
//! `cargo run --example caching -- --url redis://127.0.0.1:6379`

#[path = "../run/mod.rs"]
mod run;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use redis::{Connection, RedisResult, Value, cmd, pipe};
use run::{Run, say, wait_until};

const THREADS: usize = 16;

/// What the cache stands in front of: a database with one product, whose reads take 20 ms and are counted.
struct Source {
    price: Mutex<u32>,
    loads: AtomicU32,
}

impl Source {
    fn new(price: u32) -> Source {
        Source { price: Mutex::new(price), loads: AtomicU32::new(0) }
    }

    fn load(&self) -> u32 {
        self.loads.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(20)); // This is how slow it is.
        *self.price.lock().expect("no holder panics")
    }

    fn loads(&self) -> u32 {
        self.loads.swap(0, Ordering::Relaxed)
    }
}

fn main() -> ExitCode {
    run::main("caching", |run| {
        cache_aside(run)?;
        write_through(run)?;
        stampede(run)?;
        stampede_protection(run)?;
        analytics(run)
    })
}

fn cache_aside(run: &Run) -> RedisResult<()> {
    say!("\nCache-aside: look into the cache; on a miss load, and leave it there for a minute.");
    let (source, product) = (Source::new(100), run.key("product:1"));
    let read = |connection: &mut Connection| -> RedisResult<u32> {
        if let Some(price) = cmd("GET").arg(&product).query(connection)? {
            return Ok(price);
        }
        let price = source.load();
        cmd("SET").arg((&product, price, "EX", 60)).exec(connection)?;
        Ok(price)
    };
    let connection = &mut run.connect()?;
    let prices = [read(connection)?, read(connection)?];
    run.check(prices == [100, 100] && source.loads() == 1, "two reads, one load of the source");

    // Who writes removes the key, and does not set it: see below why. A reader that has loaded the old price just
    // before and sets it just after leaves it there until the TTL ends; that is why there is one.
    *source.price.lock().expect("no holder panics") = 120;
    cmd("DEL").arg(&product).exec(connection)?;
    run.check(read(connection)? == 120, "a write removes the key, and the next read finds the new price");
    Ok(())
}

fn write_through(run: &Run) -> RedisResult<()> {
    say!("\nWrite-through: who writes the source writes the cache as well.");
    let (source, product) = (Source::new(0), run.key("product:2"));
    let connection = &mut run.connect()?;

    // The naive form writes one after the other. Two writers, and the second overtakes the first:
    *source.price.lock().expect("no holder panics") = 1;
    *source.price.lock().expect("no holder panics") = 2;
    cmd("SET").arg((&product, 2, "EX", 60)).exec(connection)?;
    cmd("SET").arg((&product, 1, "EX", 60)).exec(connection)?;
    let cached: u32 = cmd("GET").arg(&product).query(connection)?;
    let price = *source.price.lock().expect("no holder panics");
    say!("  naive: the source holds {price}, the cache {cached}, until the TTL ends");
    run.check(cached != price, "without an order of the two writes the cache may hold what is outdated");

    // Both writes in one critical section: that of the source, such as the lock of the row in a transaction.
    run.at_once(8, |number, connection| {
        for round in 0..50 {
            let mut price = source.price.lock().expect("no holder panics");
            *price = number as u32 * 1000 + round;
            cmd("SET").arg((&product, *price, "EX", 60)).exec(connection)?;
        }
        Ok(())
    })?;
    let cached: u32 = cmd("GET").arg(&product).query(connection)?;
    let price = *source.price.lock().expect("no holder panics");
    run.check(cached == price, "8 writers under the source's own lock: cache and source agree");
    Ok(())
}

fn stampede(run: &Run) -> RedisResult<()> {
    say!(
        "\nThe naive form of cache-aside when a popular key expires: everybody looks before anybody is done."
    );
    let (source, product, all_have_looked) = (Source::new(7), run.key("product:3"), Barrier::new(THREADS));
    run.at_once(THREADS, |_, connection| {
        let cached: Option<u32> = cmd("GET").arg(&product).query(connection)?;
        all_have_looked.wait();
        match cached {
            Some(price) => Ok(price),
            None => {
                let price = source.load();
                cmd("SET").arg((&product, price, "EX", 60)).exec(connection)?;
                Ok(price)
            }
        }
    })?;
    let loads = source.loads();
    run.check(
        loads == THREADS as u32,
        format!("{THREADS} readers of one expired key, {loads} loads of the source"),
    );
    Ok(())
}

/// A read of which only one at a time loads. The price stays for long, and a lease says how fresh it is: who finds no
/// lease and sets it (`NX`: one only) is the one that loads; the others take the old price meanwhile. If the one that
/// loads dies, its lease ends after `LOAD_MS`, and another one loads.
fn read_protected(
    connection: &mut Connection,
    source: &Source,
    product: &str,
    fresh_ms: u32,
) -> RedisResult<u32> {
    const LOAD_MS: u32 = 5000;
    let lease = format!("{product}:lease");
    let is_mine: bool = cmd("SET").arg((&lease, "loading", "NX", "PX", LOAD_MS)).query(connection)?;
    if is_mine {
        let price = source.load();
        // The price first: with a lease and without a price, readers would wait for nothing.
        cmd("SET").arg((product, price, "EX", 3600)).exec(connection)?;
        cmd("SET").arg((&lease, "fresh", "PX", fresh_ms)).exec(connection)?;
        return Ok(price);
    }
    let mut price: Option<u32> = None;
    wait_until(|| {
        price = cmd("GET").arg(product).query(connection)?; // Only the very first readers find none.
        Ok(price.is_some())
    })?;
    Ok(price.expect("it was waited for"))
}

fn stampede_protection(run: &Run) -> RedisResult<()> {
    say!("\nStampede protection: a lease, SET NX PX, and the old value while the one that has it loads.");
    let (source, product) = (Source::new(7), run.key("product:4"));
    let read = |fresh_ms| {
        let source = &source;
        let product = product.as_str();
        run.at_once(THREADS, move |_, connection| read_protected(connection, source, product, fresh_ms))
    };
    let prices = read(60_000)?;
    let loads = source.loads();
    run.check(
        loads == 1 && prices.iter().all(|price| *price == 7),
        format!("nothing cached yet: {loads} load"),
    );

    cmd("DEL").arg(format!("{product}:lease")).exec(&mut run.connect()?)?; // As if the minute were over.
    *source.price.lock().expect("no holder panics") = 8;
    let prices = read(60_000)?;
    let (loads, old) = (source.loads(), prices.iter().filter(|price| **price == 7).count());
    let are_known = prices.iter().all(|price| [7, 8].contains(price));
    run.check(
        loads == 1 && are_known,
        format!("not fresh any more: {loads} load, {old} readers got the old price"),
    );
    run.check(read(60_000)?.iter().all(|price| *price == 8), "from then on all get the new price");
    Ok(())
}

fn analytics(run: &Run) -> RedisResult<()> {
    say!("\nWhat the server says of such a cache (docs/analytics.md):");
    let connection = &mut run.connect()?;
    for round in 0..1200_u32 {
        let page = run.key(format!("page:{}", round % 40));
        let cached: Option<u32> = cmd("GET").arg(&page).query(connection)?;
        if cached.is_none() {
            cmd("SET").arg((&page, round, "EX", 60)).exec(connection)?;
        }
        thread::sleep(Duration::from_millis(1)); // The load of this example: a thousand requests a second.
    }
    let class = run.key("page:*");
    let classes: RedisResult<Vec<Vec<Value>>> = cmd("PREFIXES").query(connection);
    let classes = match classes {
        Ok(classes) => classes,
        Err(error) => {
            say!("  nothing: {error}");
            return Ok(());
        }
    };
    let own = classes.iter().find(|fields| fields.get(1).is_some_and(|name| text(name) == class));
    match own {
        Some(fields) => say!("  PREFIXES: {}", pairs(fields)),
        None => say!("  PREFIXES: other classes are used more than {class}"),
    }
    let (advice, reason): (Value, Vec<Value>) = pipe()
        .cmd("SUGGEST-TTL")
        .arg(("CLASS", &class))
        .cmd("SUGGEST-TTL")
        .arg(("CLASS", &class, "EXPLAIN"))
        .query(connection)?;
    say!("  SUGGEST-TTL CLASS {class}, in seconds: {}\n  because {}", text(&advice), pairs(&reason));
    Ok(())
}

/// `name=value` of each field of a map.
fn pairs(fields: &[Value]) -> String {
    fields
        .chunks(2)
        .map(|pair| pair.iter().map(text).collect::<Vec<_>>().join("="))
        .collect::<Vec<_>>()
        .join(" ")
}

fn text(value: &Value) -> String {
    redis::from_redis_value_ref::<Option<String>>(value).ok().flatten().unwrap_or_else(|| "(nil)".to_owned())
}
