//! One server process: its ports, its data directory, its log, its end.
//!
//! The data directory outlives restarts and goes away with the [`Server`]. No server outlives its test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::{Resp, Text};

/// How long any single thing may take before the test fails. Generous: debug builds on busy machines.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds, at most [`DEADLINE`]; says whether it does.
pub fn within_deadline(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > DEADLINE {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The program under test.
pub fn program() -> PathBuf {
    std::env::var_os("KVLITE_TEST_SERVER").map_or_else(|| env!("CARGO_BIN_EXE_kvlite").into(), PathBuf::from)
}

/// A command line of the program under test, free of the `KVLITE_*` variables of whoever runs the tests.
pub fn command() -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KVLITE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A loopback port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// Where the server writes what it has to say; shown when a test fails.
#[derive(Clone, Debug)]
pub struct Log(PathBuf);

impl Log {
    /// The log of a server that this process did not start, which is not to be seen.
    pub fn elsewhere() -> Log {
        Log(PathBuf::new())
    }

    /// All of it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.0).unwrap_or_default()).into_owned()
    }

    /// Its last lines, under a caption.
    pub fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        format!("server log, last lines:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    }
}

/// A running server, or one that was ended and can be restarted.
pub struct Server {
    /// The port of the text protocol.
    pub port: u16,
    /// The port of RESP.
    pub resp_port: u16,
    /// The server's stderr, over all restarts.
    pub log: Log,
    shards: usize,
    flags: Vec<String>,
    directory: TempDir,
    child: Option<Child>,
}

impl Server {
    /// A server with an empty data directory that has answered `PING` on both ports and is done with
    /// loading. `flags` are added to those of every test and win over them.
    pub fn start(shards: usize, flags: &[&str]) -> Server {
        let directory = TempDir::with_prefix("kvlite-test-").expect("the temporary directory is writable");
        let mut server = Server {
            port: 0,
            resp_port: 0,
            log: Log(directory.path().join("stderr.log")),
            shards,
            flags: flags.iter().map(ToString::to_string).collect(),
            directory,
            child: None,
        };
        server.spawn();
        server
    }

    /// The directory given as `--wal-path`.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A new connection of the text protocol that has been greeted.
    pub fn text(&self) -> Text {
        Text::connect(self.port, &self.log)
    }

    /// A new RESP connection.
    pub fn resp(&self) -> Resp {
        Resp::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.resp_port)), &self.log)
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Memory of the process that is resident now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the server runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has an RSS");
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Sends SIGTERM, waits for the end and returns the exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Sends a signal and returns at once.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("a child has a process id");
        kill_process(pid, signal).expect("a child can be signalled");
    }

    /// Waits until the process has ended, at most [`DEADLINE`].
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server runs");
        let mut status = None;
        let ended = within_deadline(|| {
            status = child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        if !ended {
            end(&mut child);
            panic!("the server has not ended {DEADLINE:?} after its signal\n{}", self.log.tail());
        }
        status.expect("the process has ended")
    }

    /// Starts the ended server again, on the same data and on new ports.
    pub fn restart(&mut self, shards: usize) {
        assert!(self.child.is_none(), "the server still runs");
        self.shards = shards;
        self.spawn();
    }

    /// Starts the ended server again as [`Server::restart`] does, but only waits until it accepts connections:
    /// it may still be loading.
    pub fn restart_unloaded(&mut self) {
        assert!(self.child.is_none(), "the server still runs");
        self.launch();
    }

    /// Waits until the server has loaded its data.
    pub fn wait_until_loaded(&self) {
        let mut text = self.text();
        let loaded = within_deadline(|| !text.ask_one("HEALTH").contains("\"status\":\"loading\""));
        assert!(loaded, "the server still loads its data after {DEADLINE:?}\n{}", self.log.tail());
    }

    /// Gives a flag another value from the next restart on.
    pub fn set_flag(&mut self, name: &str, value: &str) {
        match self.flags.iter().position(|flag| flag == name) {
            Some(index) => value.clone_into(&mut self.flags[index + 1]),
            None => self.flags.extend([name.to_owned(), value.to_owned()]),
        }
    }

    /// Another process on the same data directory.
    pub fn rival(&self) -> Command {
        let mut command = command();
        command.args(["--host", "127.0.0.1", "--shards", "1"]);
        command.args(["--port", &free_port().to_string(), "--resp-port", &free_port().to_string()]);
        command.arg("--wal-path").arg(self.data());
        command
    }

    fn spawn(&mut self) {
        self.launch();
        assert_eq!(self.text().ask("PING"), ["+PONG"], "{}", self.log.tail());
        assert_eq!(self.resp().ask("PING").to_string(), "+PONG", "{}", self.log.tail());
        self.wait_until_loaded();
    }

    fn launch(&mut self) {
        for _ in 0..5 {
            (self.port, self.resp_port) = (free_port(), free_port());
            let heard = self.log.text().len();
            self.child = Some(self.command().spawn().expect("the program under test can be run"));
            match self.accepts() {
                Ok(()) => return,
                // The port was taken between our look and the server's bind.
                Err(_) if self.log.text()[heard..].to_lowercase().contains("in use") => {}
                Err(why) => panic!("{why}\n{}", self.log.tail()),
            }
        }
        panic!("five pairs of free ports were taken by others\n{}", self.log.tail());
    }

    fn command(&self) -> Command {
        let log = File::options().create(true).append(true).open(&self.log.0).expect("the log can be opened");
        let mut command = command();
        command.stdout(Stdio::null()).stderr(log);
        command.args(["--port", &self.port.to_string(), "--resp-port", &self.resp_port.to_string()]);
        command.args(["--shards", &self.shards.to_string()]);
        command.arg("--wal-path").arg(self.data());
        // Small segments: tests make many servers, and change segments often.
        let usual = [("--host", "127.0.0.1"), ("--wal-segment-size", "4194304"), ("--log-level", "info")];
        for (name, value) in usual {
            if !self.flags.iter().any(|flag| flag == name) {
                command.args([name, value]);
            }
        }
        command.args(self.flags.iter().map(OsStr::new));
        command
    }

    /// Waits until both ports accept connections, or says why they do not.
    fn accepts(&mut self) -> Result<(), String> {
        for port in [self.port, self.resp_port] {
            let mut ended = None;
            let accepts = within_deadline(|| {
                ended = self.child.as_mut().expect("it was spawned").try_wait().expect("it is our child");
                ended.is_some() || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
            });
            if let Some(status) = ended {
                self.child = None;
                return Err(format!("the server ended while it started: {status}"));
            }
            if !accepts {
                return Err(format!("the server does not accept on port {port} after {DEADLINE:?}"));
            }
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
        }
    }
}

fn end(child: &mut Child) {
    // Both fail only when the process has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// What a command that ends by itself has left.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Stdout and then stderr.
    pub output: String,
}

/// Runs a command that is expected to end by itself within [`DEADLINE`].
pub fn run_to_end(mut command: Command) -> Ended {
    let directory = TempDir::with_prefix("kvlite-test-").expect("the temporary directory is writable");
    let (stdout, stderr) = (directory.path().join("stdout"), directory.path().join("stderr"));
    command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
    let mut child = command.spawn().expect("the program under test can be run");
    let mut status = None;
    let ended = within_deadline(|| {
        status = child.try_wait().expect("a child can be waited for");
        status.is_some()
    });
    let output = [&stdout, &stderr].map(|path: &PathBuf| read_lossy(path)).concat();
    if !ended {
        end(&mut child);
        panic!("{command:?} has not ended after {DEADLINE:?}; it wrote:\n{output}");
    }
    Ended { status: status.expect("the process has ended"), output }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
