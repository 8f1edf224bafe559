//! A machine that systemd boots: this one's file system, under an overlay in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::process::within_deadline;

/// Whether one of these programs is missing, which is said aloud.
pub fn lacks(test: &str, programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_missing =
        |name: &&&str| !std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    let missing = programs.iter().find(is_missing);
    if let Some(name) = missing {
        skip(test, &format!("there is no {name}"));
    }
    missing.is_some()
}

/// Says aloud that a test is skipped.
fn skip(test: &str, why: &str) {
    use std::io::Write;
    // The test runner would swallow what is printed.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
}

/// The machine. It is switched off and forgotten in the end.
pub struct Machine {
    directory: TempDir,
    container: Child,
    /// The process that is its first one.
    init: u32,
}

impl Machine {
    /// A machine that has booted, or the reason why there is none here, said aloud.
    pub fn boot(test: &str) -> Option<Machine> {
        if !rustix::process::geteuid().is_root() {
            skip(test, "it takes root to boot a machine");
            return None;
        }
        if lacks(test, &["systemd-nspawn", "nsenter", "dpkg", "cargo-deb"]) {
            return None;
        }
        if !Path::new("/usr/lib/systemd/systemd").exists() && !Path::new("/lib/systemd/systemd").exists() {
            skip(test, "systemd is not installed, so nothing boots");
            return None;
        }
        let machine = Machine::begin();
        if machine.is_none() {
            skip(test, "no overlay can be mounted, or systemd-nspawn does not boot here");
        }
        machine
    }

    fn begin() -> Option<Machine> {
        let directory = TempDir::with_prefix("kvlite-machine-").unwrap();
        let base = directory.path();
        let mount = |args: &[&str]| Command::new("mount").args(args).status().is_ok_and(|it| it.success());
        if !mount(&["-t", "tmpfs", "-o", "size=4g", "kvlite-machine", base.to_str().unwrap()]) {
            return None;
        }
        let [upper, work, root] = ["upper", "work", "root"].map(|name| base.join(name));
        [&upper, &work, &root].into_iter().for_each(|path| fs::create_dir(path).unwrap());
        let layers = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
        let is_mounted = mount(&["-t", "overlay", "kvlite-machine", "-o", &layers, root.to_str().unwrap()]);
        // In images of containers it forbids packages to start what they install.
        let _ = fs::remove_file(root.join("usr/sbin/policy-rc.d"));
        let log = fs::File::create(base.join("console.log")).unwrap();
        let container = Command::new("systemd-nspawn")
            .arg(format!("--directory={}", root.display()))
            .arg(format!("--machine=kvlite-test-{}", std::process::id()))
            .args(["--boot", "--register=no", "--keep-unit", "--console=read-only"])
            // Nothing of what this machine runs besides.
            .args(["systemd.unit=basic.target", "systemd.mask=docker.socket"])
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .spawn()
            .unwrap();
        let mut machine = Machine { directory, container, init: 0 };
        let has_booted = is_mounted
            && within_deadline(|| {
                machine.init = machine.first_process().unwrap_or(0);
                machine.init != 0 && machine.has_booted()
            });
        if !has_booted {
            println!("{}", fs::read_to_string(machine.directory.path().join("console.log")).unwrap());
        }
        has_booted.then_some(machine) // Or it is cleared away here.
    }

    fn first_process(&self) -> Option<u32> {
        let id = self.container.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    fn has_booted(&self) -> bool {
        let state = self.command(&["systemctl", "is-system-running"]).output().unwrap();
        matches!(String::from_utf8_lossy(&state.stdout).trim(), "running" | "degraded")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "-a", "--"]).args(words).stdin(Stdio::null());
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Runs a program in the machine.
    pub fn try_run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a program that has to succeed, and returns what it prints.
    pub fn run(&self, words: &[&str]) -> String {
        let done = self.try_run(words);
        assert!(done.status.success(), "{words:?}: {done:?}\n{}", self.journal());
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// A property of the unit.
    pub fn property(&self, name: &str) -> String {
        self.run(&["systemctl", "show", "kvlite", "--value", "-p", name])
    }

    /// What the unit has logged.
    pub fn journal(&self) -> String {
        let journal =
            self.try_run(&["journalctl", "-u", "kvlite", "--no-pager", "-n", "60", "-o", "short-precise"]);
        String::from_utf8_lossy(&journal.stdout).into_owned()
    }

    /// Where a path of the machine lies here.
    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join("root").join(path.trim_start_matches('/'))
    }

    /// Writes a file of the machine.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its processes end with its first one. All of this fails only where it is done already.
        if let Some(init) = self.first_process().and_then(|id| rustix::process::Pid::from_raw(id as i32)) {
            let _ = rustix::process::kill_process(init, rustix::process::Signal::KILL);
        }
        within_deadline(|| matches!(self.container.try_wait(), Ok(Some(_)) | Err(_)));
        let _ = self.container.kill();
        let _ = self.container.wait();
        for path in [self.directory.path().join("root"), self.directory.path().to_owned()] {
            let _ =
                Command::new("umount").args(["-l", path.to_str().unwrap()]).stderr(Stdio::null()).status();
        }
    }
}
