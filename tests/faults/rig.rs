//! A server with two shards on a disk of which the part of one shard can be made to fail.

use crate::client::{Resp, Value};
use crate::disk::{Disk, Fault, Operation};
use crate::process::{Server, free_port, within_deadline};
use crate::rounds;
use crate::slots::spread_tags;

/// The shard whose files fail, and the other one.
pub const SICK: usize = 1;
pub const WELL: usize = 0;

/// What the paths of that shard's files have in common, and those of its log's segments.
const FILES: &str = "shard-1";
const SEGMENTS: &str = "shard-1/0";

/// How long the server waits for its disk before it tells its clients.
pub const DISK_TIMEOUT: &str = "1s";

/// Server and disk.
pub struct Rig {
    pub server: Server,
    pub disk: Disk,
    pub admin_port: u16,
    /// How often the machine has ended.
    power_cuts: u32,
}

impl Rig {
    /// A server that has started, unless there can be no such disk here, which is said.
    pub fn start(test: &str, mode: &str) -> Option<Rig> {
        let disk = match Disk::mount() {
            Ok(disk) => disk,
            Err(why) => {
                rounds::skip(test, &why);
                return None;
            }
        };
        // Segments of one MiB: the next one is made ready soon, and is full soon.
        let flags = ["--wal-segment-size", "1m", "--sync-mode", mode, "--disk-timeout", DISK_TIMEOUT];
        let mut server = Server::stopped(Some(&disk.path().join("data")), &flags);
        let admin_port = free_port();
        server.set_flag("--admin-port", &admin_port.to_string());
        server.set_flag("--wal-path", disk.path().join("data").to_str().expect("a plain path"));
        server.restart(2);
        // From here on the disk is used for what the test asks for.
        let is_ready = within_deadline(|| disk.synced_files("spare") == 2);
        assert!(is_ready, "no segments are made ready\n{}", server.log.tail());
        Some(Rig { server, disk, admin_port, power_cuts: 0 })
    }

    /// From now on these operations of the sick shard fail.
    pub fn fail(&self, operations: &[Operation], fault: Fault) {
        self.disk.fail(operations, FILES, fault);
    }

    /// As [`Rig::fail`], for the log alone: the next segment is made ready, and snapshots are written.
    pub fn fail_log(&self, operations: &[Operation], fault: Fault) {
        self.disk.fail(operations, SEGMENTS, fault);
    }

    /// Waits until operations have met a fault.
    pub fn await_faults(&self, count: usize) {
        assert!(within_deadline(|| self.disk.met() >= count), "no fault is met\n{}", self.server.log.tail());
    }

    /// Waits until operations hang.
    pub fn await_hanging(&self) {
        assert!(within_deadline(|| self.disk.hanging() > 0), "nothing hangs\n{}", self.server.log.tail());
    }

    /// A connection that the worker of this shard serves.
    pub fn client_at(&self, shard: usize) -> Resp {
        let mine = format!("shard={shard}\n");
        for _ in 0..100 {
            let mut resp = self.server.resp();
            if resp.ask("CLIENT INFO").bytes().ends_with(mine.as_bytes()) {
                return resp;
            }
        }
        panic!("no connection goes to shard {shard}");
    }

    /// What `HEALTH` says, asked for at a worker that does not touch the sick disk.
    pub fn health(&self, resp: &mut Resp) -> String {
        String::from_utf8_lossy(resp.ask("HEALTH").bytes()).into_owned()
    }

    /// Waits until `HEALTH` says so.
    pub fn await_health(&self, resp: &mut Resp, wanted: &str) -> String {
        let mut health = String::new();
        let said = within_deadline(|| {
            health = self.health(resp);
            health.contains(&format!("\"status\":\"{wanted}\""))
        });
        assert!(said, "{health}\n{}", self.server.log.tail());
        health
    }

    /// Ends the process as a crash does, and with `power` the machine, and starts it again on what the disk holds.
    /// A write that hangs never ends.
    pub fn crash(&mut self, power: bool) {
        self.server.signal(rustix::process::Signal::KILL);
        // What hangs keeps the process; when it comes back, nothing of the process runs any more.
        self.disk.abandon();
        self.server.wait();
        if power {
            self.disk.cut_power();
            self.power_cuts += 1;
            self.server.set_flag("--boot-id", &format!("{:032x}", self.power_cuts));
        }
        let below = self.disk.below().join("data");
        self.server.set_flag("--wal-path", below.to_str().expect("a plain path"));
        self.server.restart(2);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.disk.heal(); // Or the server would never end.
    }
}

/// A key of this shard.
pub fn key(shard: usize, name: &str) -> String {
    let tags = spread_tags();
    format!("{}{name}", if shard == WELL { &tags[0] } else { &tags[7] })
}

/// Sends a command and does not wait for its reply.
pub fn send(resp: &mut Resp, command: &str) {
    resp.wire.send(&crate::client::encoded(&crate::words::words(command)));
}

/// Whether a command was refused because the log takes no changes.
pub fn is_refused(reply: &Value) -> bool {
    reply.to_string().starts_with("-MISCONF writes are refused: ")
}

/// Whether the reply says that the outcome is unknown.
pub fn is_unknown(reply: &Value) -> bool {
    reply.to_string().starts_with("-MISCONF the outcome is unknown: ")
}
