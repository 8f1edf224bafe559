//! Locks with a lease: who holds one, how it is given back, and why what it protects has to look as well.
//!
//! `cargo run --example locks -- --url redis://127.0.0.1:6379`

#[path = "../run/mod.rs"]
mod run;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Connection, RedisResult, cmd};
use run::{Run, exists, random, say, wait_until};

const THREADS: usize = 8;

/// A place in the queue for a lock that was first for some time, perhaps still is, and gives the number to write with.
struct Held {
    place: String,
    token: u64,
    /// Grows with each holder.
    fence: u64,
}

/// A lock as a queue. Who wants it draws a number with `INCR` and puts a key of that number there, its place, with a TTL:
/// its lease. It holds the lock once every place before its own is gone.
///
/// - The number orders the holders: it is the fencing token.
/// - A place belongs to one client, by its number, so to renew it or to give it back can hit nobody else's. With one key
///   for all holders, `DELIFEQ` gives back only one's own, but it orders nobody and has no number for fencing.
/// - Who drew a number and has not put its place there yet finds it closed by those behind, and draws again.
/// - A holder or a waiter that dies is gone when its lease ends. Two small keys for each lock stay for good.
struct Lock<'a> {
    run: &'a Run,
    name: &'static str,
    lease_ms: u64,
}

impl Lock<'_> {
    /// Waits for the lock. Clients are served in the order in which they came.
    fn acquire(&self, connection: &mut Connection) -> RedisResult<Held> {
        let token = random();
        'again: loop {
            let fence: u64 = cmd("INCR").arg(self.key("numbers")).query(connection)?;
            let held = Held { place: self.place(fence), token, fence };
            let is_mine: bool =
                cmd("SET").arg((&held.place, token, "NX", "PX", self.lease_ms)).query(connection)?;
            if !is_mine {
                continue; // Closed by one behind: too slow.
            }
            // All before the last holder are gone, else it could not have become that.
            let last_holder: Option<u64> = cmd("GET").arg(self.key("holder")).query(connection)?;
            let mut before = last_holder.unwrap_or(1).min(fence);
            let mut is_lost = false;
            wait_until(|| {
                while before < fence && self.is_gone(connection, before)? {
                    before += 1;
                }
                is_lost = !self.renew(connection, &held)?;
                Ok(before == fence || is_lost)
            })?;
            if is_lost {
                continue 'again;
            }
            cmd("SET").arg((self.key("holder"), fence)).exec(connection)?; // Saves those behind some looks.
            return Ok(held);
        }
    }

    /// Whether nobody has this place, nor will: a place that is not there is closed in the same step.
    fn is_gone(&self, connection: &mut Connection, number: u64) -> RedisResult<bool> {
        let place = self.place(number);
        let found: Option<String> =
            cmd("SET").arg((place, "closed", "NX", "GET", "PX", 60_000)).query(connection)?;
        Ok(found.is_none_or(|found| found == "closed"))
    }

    /// Begins the lease anew; says whether there still was one.
    fn renew(&self, connection: &mut Connection, held: &Held) -> RedisResult<bool> {
        let found: Option<String> = cmd("GETEX").arg((&held.place, "PX", self.lease_ms)).query(connection)?;
        Ok(found == Some(held.token.to_string()))
    }

    /// Gives the lock back, if it is held at all: this number's place, and nobody else's.
    fn release(&self, connection: &mut Connection, held: &Held) -> RedisResult<()> {
        cmd("DEL").arg(&held.place).exec(connection)
    }

    fn place(&self, number: u64) -> String {
        self.key(&format!("place:{number}"))
    }

    fn key(&self, part: &str) -> String {
        self.run.key(format!("lock:{}:{part}", self.name))
    }
}

/// What the lock protects: a balance somewhere else, which only lets those read and write that come with the highest
/// number so far. Reads count as well: what a new holder has read must not change under it.
#[derive(Default)]
struct Account(Mutex<(u64, u32)>);

impl Account {
    fn read(&self, fence: u64) -> Option<u32> {
        let (highest, balance) = &mut *self.0.lock().expect("no holder panics");
        *highest = fence.max(*highest);
        (fence == *highest).then_some(*balance)
    }

    fn write(&self, fence: u64, new: u32) -> bool {
        let (highest, balance) = &mut *self.0.lock().expect("no holder panics");
        *highest = fence.max(*highest);
        if fence == *highest {
            *balance = new;
        }
        fence == *highest
    }

    fn balance(&self) -> u32 {
        self.0.lock().expect("no holder panics").1
    }
}

fn main() -> ExitCode {
    run::main("locks", |run| {
        naive_release(run)?;
        exclusion(run)?;
        paused_holder(run)?;
        renewal(run)?;
        dead_holder(run)
    })
}

fn naive_release(run: &Run) -> RedisResult<()> {
    say!("\nThe simple lock, SET NX PX with a random token, and its naive release, DEL.");
    let (connection, lock) = (&mut run.connect()?, run.key("simple"));
    let mut take = |token: &str| -> RedisResult<bool> {
        cmd("SET").arg((&lock, token, "NX", "PX", 60_000)).query(connection)
    };
    let took = [take("a")?, take("b")?];
    run.check(took == [true, false], "of two clients, a and b, one gets it");
    cmd("GETEX").arg((&lock, "PX", 1)).exec(&mut run.connect()?)?; // As if the minute were over.
    wait_until(|| take("b"))?;
    say!("  a works for longer than its lease; b gets the lock; a is done and releases it:");
    cmd("DEL").arg(&lock).exec(&mut run.connect()?)?;
    run.check(take("c")?, "naive: that was b's lock, and now c works beside b");
    say!(
        "  GET first, and DEL if it is one's own token, leaves the same hole between the two. DELIFEQ has none:"
    );
    let release = |token: &str| cmd("DELIFEQ").arg((&lock, token)).query::<bool>(&mut run.connect()?);
    run.check(!release("a")? && release("c")?, "DELIFEQ: a releases nothing, c its own lock");
    say!(
        "  That is enough for work that may be done twice. Nobody is served in order, though, and what the lock"
    );
    say!("  protects cannot tell a holder whose lease is over. A queue with numbers can:");
    Ok(())
}

fn exclusion(run: &Run) -> RedisResult<()> {
    say!("\nThe lock as a queue of places, each a key of its own: {THREADS} clients, 25 times each.");
    let (lock, account) = (Lock { run, name: "queue", lease_ms: 20_000 }, Account::default());
    let (inside, met) = (AtomicU32::new(0), AtomicBool::new(false));
    let fences = run.at_once(THREADS, |_, connection| {
        let mut fences = Vec::new();
        for _ in 0..25 {
            let held = lock.acquire(connection)?;
            met.fetch_or(inside.fetch_add(1, Ordering::SeqCst) != 0, Ordering::SeqCst);
            let balance = account.read(held.fence);
            thread::yield_now();
            if balance.is_some_and(|balance| account.write(held.fence, balance + 1)) {
                fences.push(held.fence);
            }
            inside.fetch_sub(1, Ordering::SeqCst);
            lock.release(connection, &held)?;
        }
        Ok(fences)
    })?;
    let mut fences = fences.concat();
    let accepted = fences.len();
    fences.sort_unstable();
    fences.dedup();
    run.check(!met.load(Ordering::SeqCst), "no two of them were inside at the same time");
    run.check(fences.len() == accepted, "no two of them had the same number");
    let balance = account.balance();
    run.check(
        balance as usize == THREADS * 25 && accepted == THREADS * 25,
        format!("all {balance} payments are there"),
    );
    Ok(())
}

fn paused_holder(run: &Run) -> RedisResult<()> {
    say!("\nA holder that is paused: a has read the balance and stands still until its lease is over.");
    let lock = Lock { run, name: "paused", lease_ms: 100 };
    for is_fenced in [false, true] {
        let (account, connection) = (Account::default(), &mut run.connect()?);
        let no_fence = |held: &Held| if is_fenced { held.fence } else { u64::MAX };
        let a = lock.acquire(connection)?;
        let read_by_a = account.read(no_fence(&a)).expect("it is the first");
        wait_until(|| Ok(!exists(connection, &a.place)?))?;

        let b = lock.acquire(connection)?;
        let read_by_b = account.read(no_fence(&b)).expect("it has the highest number");
        account.write(no_fence(&b), read_by_b + 10);
        lock.release(connection, &b)?;

        let was_written = account.write(no_fence(&a), read_by_a + 1); // a goes on, and knows of nothing.
        let balance = account.balance();
        if is_fenced {
            run.check(
                !was_written && balance == 10,
                format!("with it: a is refused; b's 10 are there ({balance})"),
            );
        } else {
            run.check(
                balance == 1,
                format!("without a fencing token: b's 10 are lost, the balance is {balance}"),
            );
        }
        lock.release(connection, &a)?;
    }
    Ok(())
}

fn renewal(run: &Run) -> RedisResult<()> {
    say!(
        "\nWork that takes three leases: a thread renews it, and another client waits for the lock meanwhile."
    );
    let lock = Lock { run, name: "renewed", lease_ms: 1500 };
    let connection = &mut run.connect()?;
    let held = lock.acquire(connection)?;
    let (is_done, is_other_in) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let renewal = scope.spawn(|| -> RedisResult<()> {
            let connection = &mut run.connect()?;
            while !is_done.load(Ordering::SeqCst) && lock.renew(connection, &held)? {
                thread::sleep(Duration::from_millis(lock.lease_ms / 5));
            }
            Ok(()) // Where the lease was lost meanwhile, it would stop the work here.
        });
        let other = scope.spawn(|| -> RedisResult<()> {
            let connection = &mut run.connect()?;
            let held = lock.acquire(connection)?;
            is_other_in.store(true, Ordering::SeqCst);
            lock.release(connection, &held)
        });
        thread::sleep(Duration::from_millis(3 * lock.lease_ms)); // The work.
        is_done.store(true, Ordering::SeqCst);
        renewal.join().expect("the renewal does not panic")?;

        // On a machine that stands still for a whole lease the lock is lost. Then the holder must know.
        let was_other_in = is_other_in.load(Ordering::SeqCst);
        let is_held = lock.renew(connection, &held)?;
        say!("  it was {}", if is_held { "held all the time" } else { "lost, and the worker was told" });
        run.check(!(was_other_in && is_held), "nobody else had it while it was held");
        lock.release(connection, &held)?;
        other.join().expect("the other one does not panic")
    })?;
    run.check(is_other_in.load(Ordering::SeqCst), "after its release the other client got it");
    Ok(())
}

fn dead_holder(run: &Run) -> RedisResult<()> {
    say!("\nA holder that dies: the next one gets the lock when the lease is over, and not before.");
    let lock = Lock { run, name: "dead", lease_ms: 500 };
    let connection = &mut run.connect()?;
    let begin = Instant::now();
    let dead = lock.acquire(connection)?;
    let next = lock.acquire(connection)?;
    let after_ms = begin.elapsed().as_millis();
    run.check(
        after_ms > 450 && next.fence > dead.fence,
        format!("with a lease of 500 ms, after {after_ms} ms"),
    );
    lock.release(connection, &next)
}
