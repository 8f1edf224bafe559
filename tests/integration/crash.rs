//! Ends under load: nothing acknowledged is missing, nothing is there by half, nothing was made up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::client::{Resp, Text, Value, encoded, is_closed};
use crate::process::{Server, within_deadline};
use crate::random::Random;
use crate::words::words;

/// Steps that one client has in flight at most.
const IN_FLIGHT: u64 = 8;

/// What one client of the load knows. In step `n` it increments a counter, sets eight keys to `n` with one
/// MSET and appends `n;` to a list: three commands.
struct Client {
    prefix: String,
    steps_sent: AtomicU64,
    steps_acknowledged: AtomicU64,
}

impl Client {
    fn commands(&self, step: u64) -> [String; 3] {
        let prefix = &self.prefix;
        let mset =
            (0..8).fold("MSET".to_owned(), |line, key| line + &format!(" {prefix}:stamp:{key} {step}"));
        [format!("INCR {prefix}:counter"), mset, format!("APPEND {prefix}:list {step};")]
    }

    /// Works until the connection ends.
    fn work(&self, mut connection: Connection) {
        for first in (1..).step_by(usize::try_from(IN_FLIGHT).unwrap()) {
            let steps = first..first + IN_FLIGHT;
            let commands: Vec<String> = steps.clone().flat_map(|step| self.commands(step)).collect();
            self.steps_sent.store(steps.end - 1, Ordering::SeqCst);
            if connection.send(&commands).is_err() {
                return;
            }
            for step in steps {
                match connection.acknowledged(step) {
                    Ok(()) => self.steps_acknowledged.store(step, Ordering::SeqCst),
                    Err(error) if is_closed(&error) => return,
                    Err(error) => panic!("{}: step {step} is not answered: {error}", self.prefix),
                }
            }
        }
    }

    /// Checks what the restarted server holds.
    fn check(&self, resp: &mut Resp) {
        let (least, most) =
            (self.steps_acknowledged.load(Ordering::SeqCst), self.steps_sent.load(Ordering::SeqCst));
        let prefix = &self.prefix;
        let within = |what: &str, found: u64| {
            assert!(
                (least..=most).contains(&found),
                "{prefix}:{what} is at step {found}; {least} were acknowledged, {most} sent"
            );
        };
        let number = |value: &Value| match value {
            Value::Nil => 0,
            value => String::from_utf8_lossy(value.bytes()).parse().unwrap(),
        };
        within("counter", number(&resp.ask(&format!("GET {prefix}:counter"))));

        let mget = (0..8).fold("MGET".to_owned(), |line, key| line + &format!(" {prefix}:stamp:{key}"));
        let stamps = resp.ask(&mget);
        let whole = stamps.items().iter().all(|stamp| *stamp == stamps.items()[0]);
        assert!(whole, "{prefix}: half an MSET is there: {stamps}; {least} were acknowledged, {most} sent");
        within("stamp", number(&stamps.items()[0]));

        let list = resp.ask(&format!("GET {prefix}:list"));
        let list = if list == Value::Nil { b"" } else { list.bytes() };
        let count = list.iter().filter(|byte| **byte == b';').count() as u64;
        let expected: String = (1..=count).map(|step| format!("{step};")).collect();
        assert!(list == expected.as_bytes(), "{prefix}:list has a gap: {}", list.escape_ascii());
        within("list", count);
    }
}

enum Connection {
    Text(Text),
    Resp(Resp),
}

impl Connection {
    fn send(&mut self, commands: &[String]) -> io::Result<()> {
        match self {
            Connection::Text(text) => text.wire.try_send((commands.join("\n") + "\n").as_bytes()),
            Connection::Resp(resp) => {
                let bytes: Vec<u8> = commands.iter().flat_map(|command| encoded(&words(command))).collect();
                resp.wire.try_send(&bytes)
            }
        }
    }

    /// Reads the three replies of a step.
    fn acknowledged(&mut self, step: u64) -> io::Result<()> {
        let (counter, mset) = match self {
            Connection::Text(text) => {
                let line = |line: Vec<u8>| String::from_utf8_lossy(&line).into_owned();
                let replies = (line(text.wire.try_line()?), line(text.wire.try_line()?));
                text.wire.try_line()?;
                replies
            }
            Connection::Resp(resp) => {
                let replies = (resp.try_read()?.to_string(), resp.try_read()?.to_string());
                resp.try_read()?;
                replies
            }
        };
        assert_eq!((counter, &*mset), (step.to_string(), "+OK"), "the replies of step {step}");
        Ok(())
    }
}

/// Four clients at work, one of them on the text protocol.
struct Load {
    clients: Vec<Arc<Client>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(server: &Server, name: &str) -> Load {
        let mut load = Load { clients: Vec::new(), threads: Vec::new() };
        for index in 0..4 {
            let client = Arc::new(Client {
                prefix: format!("{name}:{index}"),
                steps_sent: AtomicU64::new(0),
                steps_acknowledged: AtomicU64::new(0),
            });
            let connection =
                if index == 0 { Connection::Text(server.text()) } else { Connection::Resp(server.resp()) };
            load.clients.push(Arc::clone(&client));
            load.threads.push(thread::spawn(move || client.work(connection)));
        }
        load
    }

    fn await_steps(&self, count: u64, server: &Server) {
        let done = || {
            self.clients.iter().map(|client| client.steps_acknowledged.load(Ordering::SeqCst)).sum::<u64>()
        };
        assert!(
            within_deadline(|| done() >= count),
            "only {} steps of {count}\n{}",
            done(),
            server.log.tail()
        );
    }

    /// Waits until the server's end has ended the clients.
    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }

    fn check(&self, server: &Server) {
        let mut resp = server.resp();
        self.clients.iter().for_each(|client| client.check(&mut resp));
    }
}

#[test]
fn kill_9_under_load_loses_nothing_acknowledged() {
    let mut random = Random::new("kill -9 under load");
    // Small segments and few entries, so that rotation and compaction are met by the signal too.
    let flags = ["--max-wal-entries", "500", "--compact-interval", "1", "--sync-mode", "everysec"];
    let mut server = Server::start(2, &flags);
    let mut loads: Vec<Load> = Vec::new();
    let rounds = [(5, "always"), (1, "no"), (2, "everysec"), (2, "always"), (5, "everysec")];
    for (round, (shards, sync_mode)) in rounds.into_iter().enumerate() {
        let mut load = Load::start(&server, &format!("round{round}"));
        let steps = 20 + random.below(800);
        println!("round {round}: killed after {steps} steps, then {shards} shards, --sync-mode {sync_mode}");
        load.await_steps(steps, &server);
        server.kill9();
        load.join();
        loads.push(load);
        server.set_flag("--sync-mode", sync_mode);
        server.restart(shards);
        // What earlier rounds left has to outlive this one too.
        loads.iter().for_each(|load| load.check(&server));
    }
}

#[test]
fn sigterm_under_load_loses_nothing_acknowledged() {
    let mut server = Server::start(2, &[]);
    let mut load = Load::start(&server, "term");
    load.await_steps(200, &server);
    let status = server.terminate();
    load.join();
    assert_eq!(status.code(), Some(0), "{}", server.log.tail());
    server.restart(2);
    load.check(&server);
}
