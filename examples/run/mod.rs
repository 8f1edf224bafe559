//! What the examples share: the command line, keys of their own, threads that begin together, and checks.
//!
//! Holds nothing about the subject of any example.

#![allow(dead_code)] // Each example includes it and uses its part.

use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use redis::{Client, Connection, RedisError, RedisResult, cmd};

#[derive(Parser)]
struct Options {
    /// The server to speak to
    #[arg(long, default_value = "redis://127.0.0.1:6379")]
    url: String,
}

/// One run of an example. Its keys are its own, by a random name, and are removed at the end, whatever that is.
pub struct Run {
    client: Client,
    prefix: String,
    broken: AtomicU32,
}

/// Runs an example from its command line to its exit status: 0 when all that it checks is so.
pub fn main(name: &str, example: fn(&Run) -> RedisResult<()>) -> ExitCode {
    let url = Options::parse().url;
    let ended = Client::open(url.as_str()).and_then(|client| {
        let run = Run { client, prefix: format!("{name}-{}", letters()), broken: AtomicU32::new(0) };
        run.connect()?;
        say!("its keys begin with {}:", run.prefix);
        example(&run)?;
        Ok(run.broken.load(Ordering::Relaxed))
    });
    match ended {
        Ok(0) => ExitCode::SUCCESS,
        Ok(broken) => {
            eprintln!("{broken} of the checks failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{url}: {error}; is the server running?");
            ExitCode::FAILURE
        }
    }
}

impl Run {
    /// A new connection.
    pub fn connect(&self) -> RedisResult<Connection> {
        self.client.get_connection()
    }

    /// The name of a key of this run.
    pub fn key(&self, name: impl Display) -> String {
        format!("{}:{name}", self.prefix)
    }

    /// Says whether something is as it has to be; the example fails at its end if it is not.
    pub fn check(&self, holds: bool, what: impl Display) {
        println!("  {} {what}", if holds { "ok    " } else { "BROKEN" });
        self.broken.fetch_add(u32::from(!holds), Ordering::Relaxed);
    }

    /// Does `work` on so many threads, which have a number and a connection each and begin at the same moment.
    pub fn at_once<T: Send>(
        &self,
        threads: usize,
        work: impl Fn(usize, &mut Connection) -> RedisResult<T> + Sync,
    ) -> RedisResult<Vec<T>> {
        let connections = (0..threads).map(|_| self.connect()).collect::<RedisResult<Vec<_>>>()?;
        let (begin, work) = (Barrier::new(threads), &work);
        thread::scope(|scope| {
            let threads: Vec<_> = connections
                .into_iter()
                .enumerate()
                .map(|(number, mut connection)| {
                    let begin = &begin;
                    scope.spawn(move || {
                        begin.wait();
                        work(number, &mut connection)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("the work does not panic")).collect()
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Err(error) = self.remove_keys() {
            eprintln!("the keys {}:* are left: {error}", self.prefix);
        }
    }
}

impl Run {
    fn remove_keys(&self) -> RedisResult<()> {
        let connection = &mut self.connect()?;
        let mut cursor = 0_u64;
        loop {
            let pattern = self.key('*');
            let (next, keys): (u64, Vec<String>) =
                cmd("SCAN").arg((cursor, "MATCH", pattern, "COUNT", 1000)).query(connection)?;
            if !keys.is_empty() {
                cmd("DEL").arg(keys).exec(connection)?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

/// Prints a line of the story.
macro_rules! say {
    ($($words:tt)*) => { println!($($words)*) };
}
pub(crate) use say;

/// A random number, from what the standard library seeds its hash maps with.
pub fn random() -> u64 {
    RandomState::new().hash_one(Instant::now())
}

/// Waits until `condition` holds, looking every few milliseconds; an error when it does not within half a minute.
pub fn wait_until(mut condition: impl FnMut() -> RedisResult<bool>) -> RedisResult<()> {
    let begin = Instant::now();
    while !condition()? {
        if begin.elapsed() > Duration::from_secs(30) {
            return Err(RedisError::from((redis::ErrorKind::Client, "waited for half a minute in vain")));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Milliseconds since 1970, by the clock of this machine.
pub fn now_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("the clock shows a time after 1970");
    u64::try_from(since.as_millis()).expect("it is not set to the far future")
}

/// Whether the key is there: `EXISTS`, which renews nothing.
pub fn exists(connection: &mut Connection, key: &str) -> RedisResult<bool> {
    cmd("EXISTS").arg(key).query(connection)
}

/// Six random letters. No digits: a part of a name that looks like a number would end its class in `PREFIXES`.
fn letters() -> String {
    let mut random = random();
    let letter = |_| {
        let letter = char::from(b'a' + (random % 26) as u8);
        random /= 26;
        letter
    };
    (0..6).map(letter).collect()
}
