//! The image, its containers and its volumes. What a test has made goes away with it.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::client::{Resp, Text};
use crate::process::{Log, within_deadline};

/// The image under test; `None`, once that was said, where there is none.
pub fn image() -> Option<String> {
    let image = std::env::var("KVLITE_TEST_IMAGE").ok();
    if image.is_none() {
        skipped("KVLITE_TEST_IMAGE names no image", "make test-container");
    }
    image
}

/// Says that a test is skipped, and what would change that.
pub fn skipped(cause: &str, remedy: &str) {
    // The test runner would swallow what is printed.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {cause}\nremedy: {remedy}");
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The engine's answer to a command that has to succeed, without the end of its last line.
#[track_caller]
pub fn docker(args: &[&str]) -> String {
    let Output { status, stdout, stderr } = try_docker(args);
    assert!(status.success(), "docker {args:?}: {status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap().trim_end().to_owned()
}

fn try_docker(args: &[&str]) -> Output {
    Command::new("docker").args(args).output().expect("KVLITE_TEST_IMAGE was set where docker is")
}

/// The profile that the project ships.
pub fn shipped_profile() -> PathBuf {
    root().join("deploy/seccomp.json")
}

/// What engines allow that forbid io_uring: the profile that the project ships, and the three calls refused.
pub fn profile_without_io_uring(directory: &Path) -> PathBuf {
    let text = std::fs::read_to_string(shipped_profile()).unwrap();
    let mut profile: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rules = profile["syscalls"].as_array_mut().unwrap();
    let of_ring = |name: &serde_json::Value| name.as_str().is_some_and(|name| name.starts_with("io_uring_"));
    let rule = rules.iter_mut().find(|rule| rule["names"].as_array().unwrap().iter().all(of_ring)).unwrap();
    rule["action"] = "SCMP_ACT_ERRNO".into();
    rule["errnoRet"] = 1.into();
    let path = directory.join("seccomp.json");
    std::fs::write(&path, profile.to_string()).unwrap();
    path
}

/// A volume of the engine.
pub struct Volume(String);

impl Volume {
    pub fn new() -> Volume {
        Volume(docker(&["volume", "create"]))
    }

    /// As an option of `docker run`.
    pub fn mounted(&self) -> String {
        format!("--volume={}:/data", self.0)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        try_docker(&["volume", "rm", "--force", &self.0]);
    }
}

/// A container of the image.
pub struct Container {
    id: String,
}

impl Container {
    /// One that serves: with these options of `docker run` and of kvlite, both ports published.
    #[track_caller]
    pub fn serving(image: &str, options: &[&str], flags: &[&str]) -> Container {
        let publish = ["--publish=127.0.0.1::6380", "--publish=127.0.0.1::6379", "--publish=127.0.0.1::9121"];
        let container = Container::started(image, &[&publish, options].concat(), flags);
        container.await_ready(1);
        container
    }

    /// One that may end at once.
    #[track_caller]
    pub fn started(image: &str, options: &[&str], flags: &[&str]) -> Container {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let name = format!("--name=kvlite-test-{process}-{number}");
        let id = docker(&[&["create", &name], options, &[image], flags].concat());
        let container = Container { id }; // From here on it goes away with its test, also where it does not start.
        container.command("start");
        container
    }

    /// Waits until it has said that it is ready for the time with this number.
    #[track_caller]
    pub fn await_ready(&self, time: usize) {
        let is_ready = || self.log().matches(" is ready").count() == time;
        let has_begun = within_deadline(|| is_ready() || !self.is_running());
        assert!(has_begun && is_ready() && self.is_running(), "it is not ready:\n{}", self.log());
    }

    /// Its log, over all starts.
    pub fn log(&self) -> String {
        String::from_utf8(try_docker(&["logs", &self.id]).stderr).unwrap()
    }

    /// A client of the text protocol, from outside.
    pub fn text(&self) -> Text {
        Text::connect(self.address(6380).port(), &Log::elsewhere())
    }

    /// A client of the Redis protocol, from outside.
    pub fn resp(&self) -> Resp {
        Resp::connect(self.address(6379), &Log::elsewhere())
    }

    /// Where a port of it is published on this machine.
    pub fn address(&self, port: u16) -> SocketAddr {
        let published = docker(&["port", &self.id, &port.to_string()]);
        let (_, port) = published.lines().next().unwrap().rsplit_once(':').unwrap();
        (Ipv4Addr::LOCALHOST, port.parse().unwrap()).into()
    }

    /// The value of a field of `INFO`.
    pub fn info(&self, field: &str) -> String {
        let reply = self.resp().ask("INFO");
        let text = String::from_utf8(reply.bytes().to_vec()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("INFO has no {field}:\n{text}")).to_owned()
    }

    /// A part of what the engine knows of it, as a Go template names it.
    pub fn inspect(&self, template: &str) -> String {
        docker(&["inspect", "--format", template, &self.id])
    }

    pub fn is_running(&self) -> bool {
        self.inspect("{{.State.Running}}") == "true"
    }

    /// Waits for its end, and returns its exit status.
    #[track_caller]
    pub fn ended(&self) -> i32 {
        assert!(within_deadline(|| !self.is_running()), "it has not ended:\n{}", self.log());
        self.inspect("{{.State.ExitCode}}").parse().unwrap()
    }

    /// Runs `docker COMMAND ID`.
    #[track_caller]
    pub fn command(&self, command: &str) {
        docker(&[command, &self.id]);
    }

    /// The files of the container, and with them those of the image.
    pub fn files(&self) -> BTreeSet<String> {
        let script = format!("docker export {} | tar t", self.id);
        let listed = Command::new("bash").args(["-o", "pipefail", "-c", &script]).output().unwrap();
        assert!(listed.status.success(), "{script}: {listed:?}");
        String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of the container:\n{}", self.log());
        }
        try_docker(&["rm", "--force", "--volumes", &self.id]);
    }
}
