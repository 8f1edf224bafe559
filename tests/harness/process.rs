//! One server process: its ports, its data directory, its log, its end.
//!
//! The data directory outlives restarts and goes away with the [`Server`], unless its test has failed: then it stays,
//! and its path is printed. No server outlives its test.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
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

/// By what servers under test ask the kernel, unless a test says otherwise: `KVLITE_TEST_IO`, or else io_uring.
pub fn io_backend() -> String {
    std::env::var("KVLITE_TEST_IO").unwrap_or_else(|_| "io_uring".to_owned())
}

/// A command line of the program under test, free of the `KVLITE_*` variables of the shell that runs the tests.
pub fn command() -> Command {
    command_under(&[])
}

/// As [`command`], run by another program with these arguments.
fn command_under(under: &[String]) -> Command {
    let mut words = under.iter().map(OsString::from).chain([program().into_os_string()]);
    let mut command = Command::new(words.next().expect("the program under test is one of them"));
    command.args(words);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KVLITE_") {
            command.env_remove(name);
        }
    }
    command.env("KVLITE_IO", io_backend());
    command.stdin(Stdio::null());
    command
}

/// A loopback port that was free a moment ago, and that no other test in this process is given. It lies below those
/// that the system gives to clients and to programs that ask for any.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let own = std::process::id().wrapping_mul(97); // Two processes seldom begin at the same port.
    let next = || (FIRST + own.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % COUNT) as u16;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (0..COUNT).map(|_| next()).find(is_free).expect("loopback has a free port")
}

/// Two of them.
pub fn free_ports() -> (u16, u16) {
    (free_port(), free_port())
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
    /// A program and its arguments that run the server, such as `prlimit`.
    under: Vec<String>,
    variables: Vec<(String, OsString)>,
    directory: TempDir,
    data: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// A server with an empty data directory that has answered `PING` on both ports and is done with loading. `flags`
    /// are added to those of every test and win over them.
    pub fn start(shards: usize, flags: &[&str]) -> Server {
        let mut server = Server::stopped(None, flags);
        server.restart(shards);
        server
    }

    /// A server that does not run yet, on a data directory of its own or this one.
    pub fn stopped(data: Option<&Path>, flags: &[&str]) -> Server {
        let directory = TempDir::with_prefix("kvlite-test-").expect("the temporary directory is writable");
        Server {
            port: 0,
            resp_port: 0,
            log: Log(directory.path().join("stderr.log")),
            shards: 1,
            flags: flags.iter().map(ToString::to_string).collect(),
            under: Vec::new(),
            variables: Vec::new(),
            data: data.map_or_else(|| directory.path().join("data"), Path::to_path_buf),
            directory,
            child: None,
        }
    }

    /// As [`Server::start`], run by a program that becomes the server, such as `prlimit`.
    pub fn start_under(under: &[&str], shards: usize, flags: &[&str]) -> Server {
        let mut server = Server::stopped(None, flags);
        server.under = under.iter().map(ToString::to_string).collect();
        server.restart(shards);
        server
    }

    /// The directory given as `--wal-path`.
    pub fn data(&self) -> PathBuf {
        self.data.clone()
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
        self.status_bytes("VmRSS:")
    }

    /// The process's address space, in bytes.
    pub fn address_space_bytes(&self) -> u64 {
        self.status_bytes("VmSize:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the server runs");
        let line = status.lines().find(|line| line.starts_with(name)).expect("a process has it");
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

    /// Whether the process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.ended().is_some()
    }

    /// Starts the ended server again, on the same data and on new ports.
    pub fn restart(&mut self, shards: usize) {
        self.try_restart(shards).unwrap_or_else(|why| panic!("{why}\n{}", self.log.tail()));
    }

    /// As [`Server::restart`]; says why when the server ends instead.
    pub fn try_restart(&mut self, shards: usize) -> Result<(), String> {
        self.try_restart_unloaded(shards)?;
        self.wait_until_loaded()?;
        assert_eq!(self.text().ask("PING"), ["+PONG"], "{}", self.log.tail());
        assert_eq!(self.resp().ask("PING").to_string(), "+PONG", "{}", self.log.tail());
        Ok(())
    }

    /// As [`Server::restart`], but only waits until the server accepts connections: it may still be loading.
    pub fn restart_unloaded(&mut self, shards: usize) {
        self.try_restart_unloaded(shards).unwrap_or_else(|why| panic!("{why}\n{}", self.log.tail()));
    }

    /// As [`Server::try_restart`], but only waits until the server accepts connections: it may still be loading.
    fn try_restart_unloaded(&mut self, shards: usize) -> Result<(), String> {
        for _ in 0..5 {
            let heard = self.log.text().len();
            self.begin_restart(shards);
            match self.accepts() {
                Ok(()) => return Ok(()),
                // The port was taken between our look and the server's bind.
                Err(_) if self.log.text()[heard..].to_lowercase().contains("already in use") => {}
                Err(why) => return Err(why),
            }
        }
        Err("five pairs of free ports were taken by others".to_owned())
    }

    /// Starts the ended server again and does not wait until it serves.
    pub fn begin_restart(&mut self, shards: usize) {
        assert!(self.child.is_none(), "the server still runs");
        self.shards = shards;
        (self.port, self.resp_port) = free_ports();
        self.child = Some(self.command().spawn().expect("the program under test can be run"));
    }

    /// Waits until the server has loaded its data, or says why it does not.
    pub fn wait_until_loaded(&mut self) -> Result<(), String> {
        let port = self.port;
        let mut ended = None;
        let mut client = None;
        let loaded = within_deadline(|| {
            ended = self.ended();
            ended.is_some() || {
                // The server may end at any moment, which is not for the client to complain about.
                client = client.take().or_else(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
                client.as_mut().is_some_and(|client| has_loaded(client).unwrap_or(false))
            }
        });
        match ended {
            Some(status) => {
                self.child = None;
                Err(format!("the server ended while it loaded its data: {status}"))
            }
            None if loaded => Ok(()),
            None => Err(format!("the server still loads its data after {DEADLINE:?}")),
        }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut().expect("the server was started");
        child.try_wait().expect("a child can be waited for")
    }

    /// Gives a flag another value from the next restart on.
    pub fn set_flag(&mut self, name: &str, value: &str) {
        match self.flags.iter().position(|flag| flag == name) {
            Some(index) => value.clone_into(&mut self.flags[index + 1]),
            None => self.flags.extend([name.to_owned(), value.to_owned()]),
        }
    }

    /// Gives an environment variable a value from the next restart on.
    pub fn set_variable(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// Another process on the same data directory.
    pub fn rival(&self) -> Command {
        let mut command = command();
        command.args(["--host", "127.0.0.1", "--shards", "1"]);
        let (port, resp_port) = free_ports();
        command.args(["--port", &port.to_string(), "--resp-port", &resp_port.to_string()]);
        command.arg("--wal-path").arg(self.data());
        command
    }

    fn command(&self) -> Command {
        let log = File::options().create(true).append(true).open(&self.log.0).expect("the log can be opened");
        let mut command = command_under(&self.under);
        command.stdout(Stdio::null()).stderr(log);
        command.args(["--port", &self.port.to_string(), "--resp-port", &self.resp_port.to_string()]);
        command.args(["--shards", &self.shards.to_string()]);
        if !self.flags.iter().any(|flag| flag == "--wal-path") {
            command.arg("--wal-path").arg(self.data());
        }
        // Small segments: tests make many servers, and change segments often.
        let usual = [("--host", "127.0.0.1"), ("--wal-segment-size", "4194304"), ("--log-level", "info")];
        for (name, value) in usual {
            if !self.flags.iter().any(|flag| flag == name) {
                command.args([name, value]);
            }
        }
        command.args(self.flags.iter().map(OsStr::new));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Waits until both ports accept connections, or says why they do not.
    fn accepts(&mut self) -> Result<(), String> {
        for port in [self.port, self.resp_port] {
            let mut ended = None;
            let accepts = within_deadline(|| {
                ended = self.ended();
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
        if thread::panicking() {
            self.directory.disable_cleanup(true);
            let (log, data) = (self.directory.path().join("stderr.log"), &self.data);
            println!("kept for inspection: {} and {}", data.display(), log.display());
        }
    }
}

/// Whether a server says over the text protocol that its data is loaded.
fn has_loaded(client: &mut TcpStream) -> std::io::Result<bool> {
    client.set_read_timeout(Some(DEADLINE))?;
    client.write_all(b"HEALTH\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"}\n") {
        let mut chunk = [0; 4096];
        match client.read(&mut chunk)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&chunk[..read]),
        }
    }
    Ok(!String::from_utf8_lossy(&answer).contains("\"status\":\"loading\""))
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
