//! Data directories to be damaged: what real servers have left after some sessions with writes, in every sync mode and
//! with any number of shards, ended in order, killed, or without power; moved, repaired, backed up.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Once;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::{Resp, Value, encoded};
use crate::ledger::{Ledger, State};
use crate::mount::{Journal, Mount};
use crate::process::{Server, within_deadline};
use crate::program::{Directory, Start, copy_all, read, scratch};
use crate::random::Random;

const SYNC_MODES: [&str; 3] = ["always", "everysec", "no"];
const SHARD_COUNTS: [usize; 3] = [1, 2, 3];
const SESSIONS_MAX: u64 = 3;
const PHASES_MAX: u64 = 3;
const COMMANDS_MAX: u64 = 120;
/// Commands that are sent before their replies are read.
const BURST_MAX: u64 = 12;
/// Commands of which some are not answered when the end comes.
const LAST_BURST: u64 = 30;

/// Among so many commands there are some for every shard.
const COMMANDS_FOR_ALL: usize = 60;

/// What was written, or what a sync has covered, is noted after this time.
const NOTED_AFTER: Duration = Duration::from_millis(1600);
/// In `everysec` it is a second later before a sync has covered what was written.
const SYNCED_AND_NOTED_AFTER: Duration = Duration::from_millis(2700);

/// Room for all that is written; the file is sparse.
const MOUNT_MIB: u64 = 128;

/// A directory before any damage.
pub struct Specimen {
    pub directory: Directory,
    /// Copies of the directory from earlier in its life.
    pub older: Vec<PathBuf>,
    pub ledger: Ledger,
    /// The steps up to this one are in the files.
    pub safe: usize,
    /// The steps up to this one must not be lost in silence, whatever single file is damaged: something says that
    /// they were there.
    pub noted: usize,
    /// Every shard has written something after this step, in this boot: of what was written up to there nothing may be
    /// lost to bytes that are changed, even if it was not noted yet.
    pub superseded: usize,
    /// How it was left, in a few words.
    pub origin: String,
    /// How it came about.
    pub story: String,
    root: TempDir,
    boots: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Orderly,
    /// After a rest, or in the middle of commands.
    Kill {
        busy: bool,
    },
    /// The process is killed, and the machine then goes down in order and up again.
    KillAndReboot {
        busy: bool,
    },
    PowerCut {
        busy: bool,
        journal_lost: bool,
    },
    /// Killed too; what counts is a copy that it made before.
    Backup,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            End::Orderly => "orderly end",
            End::Kill { .. } => "kill",
            End::KillAndReboot { .. } => "kill, reboot",
            End::PowerCut { .. } => "power cut",
            End::Backup => "backup",
        }
    }
}

/// One server at work on a specimen.
struct Session {
    server: Server,
    mode: &'static str,
    /// Where the directory lies if the power is to be cut.
    mount: Option<Mount>,
    /// The last step that was acknowledged.
    acknowledged: usize,
    /// The last step that is noted as written.
    written: usize,
    /// The last step that is noted as synced.
    synced: usize,
    /// The last step that is noted as synced by a note that is itself on disk.
    persisted: usize,
}

impl Specimen {
    /// Lets servers write one.
    pub fn prepare(random: &mut Random) -> Specimen {
        let root = scratch();
        let path = root.path().join("data-0");
        let mut specimen = Specimen {
            directory: Directory { path, shards: random.one_of(&SHARD_COUNTS), boot: None },
            older: Vec::new(),
            ledger: Ledger::default(),
            safe: 0,
            noted: 0,
            superseded: 0,
            origin: String::new(),
            story: String::new(),
            root,
            boots: 0,
        };
        for left in (0..=random.below(SESSIONS_MAX)).rev() {
            specimen.live(random, left == 0);
            if random.below(5) == 0 {
                specimen.repair();
            } else if left > 0 {
                specimen.keep_older_copy();
            }
        }
        specimen
    }

    /// One session, from its start to its end.
    fn live(&mut self, random: &mut Random, is_last: bool) {
        let shards_before = self.directory.shards;
        let only_moves = random.below(4) == 0;
        if only_moves || random.below(4) == 0 {
            self.directory.shards = random.one_of(&SHARD_COUNTS);
        }
        let mode = random.one_of(&SYNC_MODES);
        let busy = random.below(2) == 0;
        let mut end = match random.below(if is_last { 10 } else { 6 }) {
            0..3 => End::Orderly,
            3..5 => End::Kill { busy },
            5 => End::KillAndReboot { busy },
            6..9 => End::PowerCut { busy, journal_lost: random.below(2) == 0 },
            _ => End::Backup,
        };
        let mount = match end {
            End::PowerCut { .. } => mount(),
            _ => None,
        };
        if mount.is_none() && matches!(end, End::PowerCut { .. }) {
            end = End::Kill { busy };
        }
        let moved = if only_moves && self.directory.shards != shards_before { ", moved" } else { "" };
        self.origin = format!("{}{moved}, {mode}", end.name());
        let shards = self.directory.shards;
        self.story += &format!("\n  {shards} shards, --sync-mode {mode}, ends by {end:?}{moved}");

        let mut session = self.begin(mode, mount, shards_before);
        if !only_moves {
            for _ in 0..=random.below(PHASES_MAX) {
                self.write(random, &mut session);
                if random.below(3) == 0 {
                    self.story += ", compacts";
                    session.ask("COMPACT");
                }
                if random.below(3) == 0 {
                    self.rest(random, &mut session);
                    self.keep_older_copy();
                }
            }
        }
        self.end(random, session, end);
    }

    /// Starts a server, which has to serve what the last one left.
    fn begin(&mut self, mode: &'static str, mount: Option<Mount>, shards_before: usize) -> Session {
        if let Some(mount) = &mount {
            let inside = mount.path().join("data");
            if self.directory.path.exists() {
                copy_all(&self.directory.path, &inside);
            }
            self.directory.path = inside;
        }
        let backups = self.backups();
        let mut flags = self.directory.flags();
        flags.extend(["--sync-mode", mode, "--backup-dir", backups.to_str().unwrap()]);
        let mut server = Server::stopped(Some(&self.directory.path), &flags);
        server.restart(self.directory.shards);
        let found = read(&server, &self.ledger);
        self.settle(&found, shards_before);
        let step = self.ledger.steps();
        let session =
            Session { server, mode, mount, acknowledged: step, written: step, synced: step, persisted: step };
        session.persist();
        session
    }

    /// Takes what is served for what is there from now on.
    fn settle(&mut self, found: &State, shards: usize) {
        if let Err(why) = self.ledger.allows(found, self.safe, shards) {
            panic!("without any damage: {why}{}", self.story);
        }
        self.ledger.settle(found);
        (self.safe, self.noted) = (self.ledger.steps(), self.ledger.steps());
        self.superseded = self.noted;
    }

    /// Sends commands and waits for their replies.
    fn write(&mut self, random: &mut Random, session: &mut Session) {
        let mut resp = session.server.resp();
        let mut left = random.below(COMMANDS_MAX);
        while left > 0 {
            let burst = (1 + random.below(BURST_MAX)).min(left);
            left -= burst;
            self.send(random, &mut resp, burst);
            (0..burst).for_each(|_| expect_success(&mut resp));
        }
        session.acknowledged = self.ledger.steps();
    }

    fn send(&mut self, random: &mut Random, resp: &mut Resp, count: u64) {
        for _ in 0..count {
            resp.wire.send(&encoded(&self.ledger.command(random)));
        }
    }

    /// Lets time pass without a command, after a `SYNC` or not.
    fn rest(&mut self, random: &mut Random, session: &mut Session) {
        let syncs = random.below(2) == 0;
        if syncs {
            session.ask("SYNC");
        }
        let waits_for_sync = session.mode == "everysec" && !syncs;
        let time = if waits_for_sync { SYNCED_AND_NOTED_AFTER } else { NOTED_AFTER };
        let begun = Instant::now();
        within_deadline(|| begun.elapsed() > time);
        let step = self.ledger.steps();
        session.written = step;
        if syncs || session.mode != "no" {
            session.synced = step;
            // As the system does by itself, some half a minute later.
            if random.below(2) == 0 {
                session.persist();
                session.persisted = step;
            }
        }
        self.story += &format!(", rests after step {step}{}", if syncs { " and a SYNC" } else { "" });
    }

    fn end(&mut self, random: &mut Random, mut session: Session, end: End) {
        let mut resp = session.server.resp();
        match end {
            End::Kill { busy: true }
            | End::KillAndReboot { busy: true }
            | End::PowerCut { busy: true, .. } => {
                self.send(random, &mut resp, LAST_BURST);
                let answered = random.below(LAST_BURST);
                (0..answered).for_each(|_| expect_success(&mut resp));
                session.acknowledged += answered as usize;
            }
            End::Kill { .. } | End::KillAndReboot { .. } | End::PowerCut { .. } => {
                self.rest(random, &mut session);
            }
            End::Orderly | End::Backup => {}
        }
        let Session { mut server, mode, mount, acknowledged, written, synced, persisted } = session;
        (self.safe, self.noted) = match end {
            End::Orderly | End::Backup => (acknowledged, acknowledged),
            End::Kill { .. } => (acknowledged, written),
            End::KillAndReboot { .. } => (acknowledged, synced),
            End::PowerCut { .. } if mode == "always" => (acknowledged, persisted),
            End::PowerCut { .. } => (synced, persisted),
        };
        self.superseded = match end {
            End::Kill { .. } => self.noted.max(acknowledged.saturating_sub(COMMANDS_FOR_ALL)),
            _ => self.noted,
        };
        match end {
            End::Orderly => assert!(server.terminate().success(), "{}", server.log.tail()),
            End::Kill { .. } => server.kill9(),
            End::KillAndReboot { .. } => {
                server.kill9();
                self.reboot();
            }
            End::PowerCut { journal_lost, .. } => {
                let mut mount = mount.expect("the power of a mount is cut");
                mount.cut_power(if journal_lost { Journal::Lost } else { Journal::Written });
                server.kill9();
                mount.reboot();
                self.reboot();
                self.directory = self.directory.copy(&self.new_path("data"));
            }
            End::Backup => {
                resp.wire.send(&encoded(&["BACKUP", "backup"]));
                expect_success(&mut resp);
                server.kill9();
                self.older.clear();
                self.directory.path = self.backups().join("backup");
            }
        }
    }

    /// Whatever reads the directory from now on takes itself to run in another boot.
    fn reboot(&mut self) {
        self.boots += 1;
        self.directory.boot = Some(format!("{:08x}-8a41-4b7d-9c53-07d4e1b6a920", self.boots));
    }

    /// Goes on with what a repair makes of the directory.
    fn repair(&mut self) {
        self.story += "\n  repaired";
        self.origin += ", repaired";
        let path = self.new_path("data");
        let ended = self.directory.repair(&path);
        assert_eq!(ended.status.code(), Some(0), "a repair without any damage: {ended:?}{}", self.story);
        self.older.clear(); // Nothing ties a directory to files of another one.
        self.directory = Directory { path, boot: None, ..self.directory.clone() };
        let copy = self.directory.copy(&self.root.path().join("copy"));
        match copy.start(&self.ledger) {
            Start::Serves { found, .. } => self.settle(&found, self.directory.shards),
            Start::Refuses { log, .. } => panic!("no start after a repair{}\n{log}", self.story),
        }
        fs::remove_dir_all(copy.path).unwrap();
    }

    fn keep_older_copy(&mut self) {
        let path = self.new_path("older");
        copy_all(&self.directory.path, &path);
        self.older.push(path);
    }

    fn backups(&self) -> PathBuf {
        self.root.path().join("backups")
    }

    fn new_path(&self, name: &str) -> PathBuf {
        let mut paths = (0..).map(|number| self.root.path().join(format!("{name}-{number}")));
        paths.find(|path| !path.exists()).expect("numbers are endless")
    }
}

impl Session {
    fn ask(&self, command: &str) {
        assert_eq!(self.server.text().ask_one(command), "+OK", "{}", self.server.log.tail());
    }

    /// Brings to disk what the file system of the directory has not written yet. Only a power cut shows the difference.
    fn persist(&self) {
        if let Some(mount) = &self.mount {
            let root = fs::File::open(mount.path()).expect("it is mounted");
            rustix::fs::syncfs(root).expect("what is mounted can be synced");
        }
    }
}

/// A file system that can lose its power; where there is none this is said once.
fn mount() -> Option<Mount> {
    static SAID: Once = Once::new();
    let mounted = Mount::with_power(MOUNT_MIB);
    let skip = |why: &String| {
        SAID.call_once(|| {
            writeln!(std::io::stderr(), "SKIPPED: power cuts before the damage: {why}")
                .expect("stderr is open");
        });
    };
    mounted.inspect_err(skip).ok()
}

fn expect_success(resp: &mut Resp) {
    let reply = resp.read();
    assert!(!matches!(reply, Value::Error(_)), "{reply}");
}
