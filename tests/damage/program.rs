//! The program under test on a directory: a start, `kvlite check`, `kvlite repair`; and what they leave of it.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::client::Value;
use crate::ledger::{Ledger, State};
use crate::process::{Ended, Server, command, run_to_end, within_deadline};

/// Room that a campaign needs, by far.
const SCRATCH_BYTES: u64 = 2 << 30;

/// A data directory, and how a server is started on it.
#[derive(Clone, Debug)]
pub struct Directory {
    pub path: PathBuf,
    pub shards: usize,
    /// The boot in which the server takes itself to run, if not in this one.
    pub boot: Option<String>,
}

/// What became of a start.
pub enum Start {
    /// It serves these keys, and has logged this.
    Serves { found: State, log: String },
    /// It has ended with this.
    Refuses { why: String, log: String },
}

impl Directory {
    /// The flags of every server on it. A machine with much other work is no failing disk.
    pub fn flags(&self) -> Vec<&str> {
        let mut flags = vec!["--wal-segment-size", "65536", "--disk-timeout", "60s"];
        flags.extend(self.boot.iter().flat_map(|boot| ["--boot-id", boot]));
        flags
    }

    /// Starts a server, reads the keys that the ledger knows, and kills it.
    pub fn start(&self, ledger: &Ledger) -> Start {
        let mut server = Server::stopped(Some(&self.path), &self.flags());
        match server.try_restart(self.shards) {
            Ok(()) => {
                let found = read(&server, ledger);
                // A server that is killed takes those lines with it that it has not written yet.
                let has_said_all = within_deadline(|| server.log.text().contains(" is ready "));
                assert!(has_said_all, "{}", server.log.tail());
                server.kill9();
                Start::Serves { found, log: server.log.text() }
            }
            Err(why) => Start::Refuses { why, log: server.log.text() },
        }
    }

    pub fn check(&self) -> Ended {
        self.tool(&["check"])
    }

    pub fn repair(&self, to: &Path) -> Ended {
        self.tool(&["repair", "--to", to.to_str().expect("the tests' own paths are text")])
    }

    fn tool(&self, args: &[&str]) -> Ended {
        let mut command = command();
        command.args(args).arg(&self.path).envs(self.boot.iter().map(|boot| ("KVLITE_BOOT_ID", boot)));
        run_to_end(command)
    }

    /// A copy at this path.
    pub fn copy(&self, path: &Path) -> Directory {
        copy_all(&self.path, path);
        Directory { path: path.to_owned(), ..self.clone() }
    }
}

/// A directory for a while, in memory where there is room: how long a disk with other work takes is not the question.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let state = rustix::fs::statvfs(memory);
    let has_room = state.is_ok_and(|state| state.f_bavail * state.f_frsize >= SCRATCH_BYTES);
    let parent = if has_room { memory.to_owned() } else { std::env::temp_dir() };
    TempDir::with_prefix_in("kvlite-damage-", parent).expect("the temporary directory is writable")
}

/// Every key that a server holds. It holds none that the ledger does not know.
pub fn read(server: &Server, ledger: &Ledger) -> State {
    let mut resp = server.resp();
    let keys: Vec<&str> = ledger.keys().collect();
    let mut found = State::new();
    if !keys.is_empty() {
        let values = resp.ask_bytes(&[&["MGET"], &keys[..]].concat());
        for (key, value) in keys.iter().zip(values.items()) {
            if *value != Value::Nil {
                found.insert((*key).to_owned(), value.bytes().to_vec());
            }
        }
    }
    assert_eq!(resp.ask("DBSIZE").integer(), found.len() as i64, "there are keys that no client has written");
    found
}

pub fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in entries(from) {
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_all(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

/// What is in a directory, in order.
pub fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

/// Every directory, and every file with its bytes, below a directory; but for the file of the lock.
pub fn content(directory: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for path in entries(directory) {
        if path.is_dir() {
            let below = content(&path);
            found.push((path, None));
            found.extend(below);
        } else if !path.ends_with("LOCK") {
            let bytes = fs::read(&path).unwrap();
            found.push((path, Some(bytes)));
        }
    }
    found
}
