//! One server, whichever it is: started on its CPUs and a free loopback port, paused while others are
//! measured.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Outcome;

/// How long a server may take to start (millions of keys included), and to end.
const START_DEADLINE: Duration = Duration::from_secs(300);
const STOP_DEADLINE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// How long one answer may take: that of a snapshot, too.
const ANSWER_DEADLINE: Duration = Duration::from_secs(300);

/// Stands behind every answer, whose end it shows.
const END_OF_ANSWER: &str = "end-of-answer";

/// Whose flags a server takes, and when its log is synced: `always`, `everysec` or `no`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// kvlite always has a log.
    Kvlite {
        /// Its `--sync-mode`.
        sync: &'static str,
    },
    /// Redis and Valkey.
    Redis {
        /// With an append-only file, synced like this.
        appendfsync: Option<&'static str>,
    },
    /// memcached has no log at all.
    Memcached,
}

/// A server as it is to be started.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Its name in tables.
    pub name: String,
    /// The program.
    pub binary: PathBuf,
    /// Whose flags it takes.
    pub flavour: Flavour,
    /// Flags besides those that every run needs.
    pub flags: Vec<String>,
    /// The CPUs it may use, as `taskset -c` takes them.
    pub cpus: String,
}

impl Contender {
    /// kvlite. A program named redis-server or valkey-server is started the way Redis is, to compare it with
    /// itself.
    pub fn kvlite(name: &str, binary: &Path, sync: &'static str, cpus: &str) -> Contender {
        let flavour = if is_redis(binary) {
            Flavour::Redis { appendfsync: Some(sync) }
        } else {
            Flavour::Kvlite { sync }
        };
        let (name, binary, cpus) = (name.to_owned(), binary.to_owned(), cpus.to_owned());
        Contender { name, binary, flavour, flags: Vec::new(), cpus }
    }

    /// Redis, with or without its append-only file.
    pub fn redis(name: &str, appendfsync: Option<&'static str>, cpus: &str) -> Contender {
        let (name, binary, cpus) = (name.to_owned(), "redis-server".into(), cpus.to_owned());
        Contender { name, binary, flavour: Flavour::Redis { appendfsync }, flags: Vec::new(), cpus }
    }

    /// memcached with this many threads.
    pub fn memcached(threads: usize, cpus: &str) -> Contender {
        let flags = vec!["-t".to_owned(), threads.to_string()];
        let (name, binary, cpus) = ("memcached".to_owned(), "memcached".into(), cpus.to_owned());
        Contender { name, binary, flavour: Flavour::Memcached, flags, cpus }
    }

    /// With further flags.
    pub fn with(mut self, flags: &[&str]) -> Contender {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// Whether it is kvlite itself.
    pub fn is_kvlite(&self) -> bool {
        matches!(self.flavour, Flavour::Kvlite { .. })
    }

    fn command(&self, port: u16, dir: &Path) -> Command {
        // Ended with this process whatever happens to it, even while stopped; pinned as a whole.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "taskset", "-c", &self.cpus]).arg(&self.binary);
        let port = port.to_string();
        match self.flavour {
            Flavour::Kvlite { sync } => {
                command.args(["--host", "127.0.0.1", "--port", "0", "--resp-port", &port]);
                command.args(["--sync-mode", sync, "--log-level", "warn", "--wal-path"]).arg(dir);
            }
            Flavour::Redis { appendfsync } => {
                command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--dir"]).arg(dir);
                command.args(["--appendonly", if appendfsync.is_some() { "yes" } else { "no" }]);
                command.args(["--appendfsync", appendfsync.unwrap_or("no")]);
                command.args(["--auto-aof-rewrite-percentage", "0", "--loglevel", "warning"]);
            }
            Flavour::Memcached => {
                command.args(["-l", "127.0.0.1", "-p", &port, "-U", "0", "-u", "root"]);
                command.args(["-m", "8192", "-c", "4096"]);
            }
        }
        command.args(&self.flags);
        command
    }
}

/// Whether a program is a Redis or takes its flags.
pub fn is_redis(binary: &Path) -> bool {
    binary.file_name().is_some_and(|name| name == "redis-server" || name == "valkey-server")
}

/// A running server. Dropping it ends the process.
pub struct Server {
    /// Its name in tables.
    pub name: String,
    /// What it speaks.
    pub flavour: Flavour,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// From the start of the process until it answered about its keys.
    pub start_seconds: f64,
    child: Child,
}

impl Server {
    /// Starts a server on this directory, with the data that lies there, and waits until it serves.
    pub fn start(contender: &Contender, dir: &Path) -> Outcome<Server> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        fs::create_dir_all(dir)?;
        let log_path = dir.join("server.log");
        let log = File::create(&log_path)?;
        let mut command = contender.command(port, dir);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let start = Instant::now();
        let child = command.spawn()?;
        let (name, flavour) = (contender.name.clone(), contender.flavour);
        let mut server = Server { name, flavour, port, start_seconds: 0.0, child };
        match server.wait_until_it_serves(start) {
            Ok(()) => {
                server.start_seconds = start.elapsed().as_secs_f64();
                Ok(server)
            }
            Err(error) => {
                let log = fs::read_to_string(&log_path).unwrap_or_default();
                Err(format!("{} did not start: {error}\n{log}", contender.name).into())
            }
        }
    }

    fn wait_until_it_serves(&mut self, start: Instant) -> Outcome<()> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("it ended with {status}").into());
            }
            match self.key_count() {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > START_DEADLINE => return Err(error),
                Err(_) => std::thread::sleep(POLL_INTERVAL),
            }
        }
    }

    /// How many keys it holds. An error while it loads them.
    pub fn key_count(&self) -> Outcome<u64> {
        if self.flavour == Flavour::Memcached {
            return self.answer_to("stats\r\nversion\r\n", "VERSION").and_then(|text| {
                let count = text.lines().find_map(|line| line.strip_prefix("STAT curr_items "));
                Ok(count.ok_or("memcached has no count")?.trim().parse()?)
            });
        }
        let answer = self.answer_to("DBSIZE\r\n", "\r\n")?;
        let count = answer.strip_prefix(':').ok_or_else(|| format!("DBSIZE was answered with {answer:?}"))?;
        Ok(count.trim().parse()?)
    }

    /// The answer to an inline command of the Redis protocol, as its bytes.
    pub fn ask(&self, command: &str) -> Outcome<String> {
        self.answer_to(&format!("{command}\r\nECHO {END_OF_ANSWER}\r\n"), END_OF_ANSWER).map(|answer| {
            // In front of the mark stands its length.
            answer.rsplit_once("$13\r\n").map_or(answer.clone(), |(answer, _)| answer.to_owned())
        })
    }

    /// The number behind `name` in the answer to a command that describes the server.
    pub fn ask_number(&self, command: &str, name: &str) -> Outcome<u64> {
        let answer = self.ask(command)?;
        let rest = answer.split_once(name).ok_or_else(|| format!("{command} tells no {name}"))?.1;
        let digits: String =
            rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        Ok(digits.parse()?)
    }

    fn answer_to(&self, request: &str, mark: &str) -> Outcome<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
        stream.write_all(request.as_bytes())?;
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let count = match stream.read(&mut piece) {
                // A read with a timeout ends when the process was stopped and goes on.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            answer.extend_from_slice(&piece[..count]);
            let text = String::from_utf8_lossy(&answer);
            if text.contains(mark) && text.ends_with('\n') {
                return Ok(text.into_owned());
            }
            if count == 0 {
                return Err(format!("{} closed the connection after {text:?}", self.name).into());
            }
        }
    }

    /// Stops the process: it takes no CPU time while others are measured.
    pub fn pause(&self) -> Outcome<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it run again.
    pub fn resume(&self) -> Outcome<()> {
        self.signal(Signal::CONT)
    }

    /// CPU time of all threads so far, those that have ended included: user and system time of
    /// `/proc/PID/stat`, in steps of 10 ms. Children that it waited for count, too: the ones that write
    /// snapshots.
    pub fn cpu_seconds(&self) -> Outcome<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let behind_name = stat.rsplit_once(") ").ok_or("/proc/PID/stat has no name")?.1;
        // The fields 14 to 17, counted from 1, of which the name is field 2.
        let ticks = behind_name.split(' ').skip(11).take(4).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Memory of the process that is resident now.
    pub fn resident_bytes(&self) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Ends it in order, so that its data is on disk.
    pub fn end(mut self) -> Outcome<()> {
        self.resume()?;
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + STOP_DEADLINE;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("{} ended with {status}", self.name).into()),
                None if Instant::now() > deadline => return Err(format!("{} does not end", self.name).into()),
                None => std::thread::sleep(POLL_INTERVAL),
            }
        }
    }

    fn signal(&self, signal: Signal) -> Outcome<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails where the process has ended already; its data is not wanted any more.
        let _already_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A directory for the servers' files, on the disk that the build is on; removed when dropped.
pub struct DataDir(pub PathBuf);

impl DataDir {
    /// An empty directory.
    pub fn create() -> Outcome<DataDir> {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(DataDir(path))
    }

    /// The directory of one server.
    pub fn of(&self, name: &str) -> PathBuf {
        self.0.join(name.replace(' ', "-"))
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}
