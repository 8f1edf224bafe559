//! The Debian package on a machine: installed, started, killed, stuck, stopped under load, updated, purged.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::client::{Resp, Value};
use crate::machine::Machine;
use crate::process::{Log, free_ports, program, within_deadline};

/// The package, with the program under test in it.
fn package(directory: &Path) -> PathBuf {
    // cargo-deb takes the program from where a release build leaves it.
    let release = directory.join("target/release");
    fs::create_dir_all(&release).unwrap();
    fs::copy(program(), release.join("kvlite")).unwrap();
    // And beside it what `make deb` has it write.
    assert!(Command::new(program()).arg("man").arg(&release).status().unwrap().success());
    for shell in ["bash", "zsh", "fish"] {
        let script = Command::new(program()).args(["completions", shell]).output().unwrap();
        fs::write(release.join(format!("kvlite.{shell}")), script.stdout).unwrap();
    }
    let made = Command::new("cargo-deb")
        .args(["--no-build", "--strip", "--fast", "--compress-system", "--output"])
        .arg(directory.join("kvlite.deb"))
        .env("CARGO_TARGET_DIR", directory.join("target"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    directory.join("kvlite.deb")
}

/// A machine on which the package is installed.
struct Installed {
    machine: Machine,
    resp_port: u16,
}

impl Installed {
    fn begin() -> Option<Installed> {
        let machine = Machine::boot("the package on a machine")?;
        let directory = tempfile::tempdir().unwrap();
        fs::copy(package(directory.path()), machine.path("root/kvlite.deb")).unwrap();
        let (port, resp_port) = free_ports();
        let installed = Installed { machine, resp_port };
        // It shares the network with this machine. The watchdog is to come to its end while the test waits.
        installed.set_up(&format!(
            "Environment=KVLITE_PORT={port} KVLITE_RESP_PORT={resp_port} KVLITE_SHARDS=2 KVLITE_SYNC_MODE=always\n\
             WatchdogSec=4s\nRestartSec=100ms\n"
        ));
        installed.machine.run(&["dpkg", "-i", "/root/kvlite.deb"]);
        Some(installed)
    }

    fn set_up(&self, lines: &str) {
        let path = "/etc/systemd/system/kvlite.service.d/test.conf";
        let before = fs::read_to_string(self.machine.path(path)).unwrap_or("[Service]\n".to_owned());
        self.machine.write(path, &(before + lines));
        self.machine.run(&["systemctl", "daemon-reload"]);
    }

    fn systemctl(&self, verb: &str) {
        self.machine.run(&["systemctl", verb, "kvlite"]);
    }

    fn resp(&self) -> Resp {
        Resp::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.resp_port)), &Log::elsewhere())
    }

    fn main_pid(&self) -> String {
        self.machine.property("MainPID")
    }

    /// Sends a signal to the server, and waits until systemd has started another one that is ready.
    fn expect_restart(&self, signal: &str) {
        let (before, restarts) = (self.main_pid(), self.machine.property("NRestarts"));
        self.machine.run(&["kill", &format!("-{signal}"), &before]);
        let is_back = within_deadline(|| {
            self.machine.property("NRestarts") != restarts && self.machine.property("ActiveState") == "active"
        });
        assert!(is_back, "{signal}: {}", self.machine.journal());
        assert_ne!(self.main_pid(), before);
    }

    /// Stops the unit while clients write, and demands of the next start what they were told is written.
    fn stop_under_load(&self) {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let mut resp = self.resp();
                let written = move || {
                    let mut acknowledged = 0;
                    loop {
                        let sent = resp.wire.try_send(format!("INCR load:{writer}\r\n").as_bytes());
                        match sent.and_then(|()| resp.try_read()) {
                            Ok(Value::Integer(number)) => acknowledged = number,
                            _ => return acknowledged,
                        }
                    }
                };
                thread::spawn(written)
            })
            .collect();
        let mut resp = self.resp();
        let count = |resp: &mut Resp, writer: usize| {
            resp.ask(&format!("GET load:{writer}")).to_string().trim_matches('"').parse().unwrap_or(0)
        };
        assert!(
            within_deadline(|| (0..4).all(|writer| count(&mut resp, writer) > 50)),
            "{}",
            self.machine.journal()
        );
        self.systemctl("stop");
        let acknowledged: Vec<i64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        assert_eq!(self.machine.property("Result"), "success", "{}", self.machine.journal());
        assert!(self.machine.journal().contains("everything acknowledged is on disk"));
        self.systemctl("start");
        let mut resp = self.resp();
        for (writer, acknowledged) in acknowledged.into_iter().enumerate() {
            assert_eq!(count(&mut resp, writer), acknowledged, "{}", self.machine.journal());
        }
    }
}

#[test]
fn the_package_serves_from_its_installation_to_its_removal_and_leaves_the_data() {
    let Some(installed) = Installed::begin() else { return };
    let machine = &installed.machine;

    // Installed: a user, a unit that is enabled, and a server that answers.
    assert!(machine.run(&["getent", "passwd", "kvlite"]).starts_with("kvlite:"));
    assert_eq!(machine.run(&["systemctl", "is-enabled", "kvlite"]), "enabled");
    assert_eq!(machine.property("ActiveState"), "active", "{}", machine.journal());
    assert_eq!(machine.property("StatusText"), "Serving with 2 shards");
    assert_eq!(machine.run(&["stat", "-c", "%U:%G %a", "/var/lib/kvlite"]), "kvlite:kvlite 750");
    assert_eq!(installed.resp().ask("SET kept 1").to_string(), "+OK");
    let pairs: String = (0..2000).map(|number| format!(" key:{number} value")).collect();
    assert_eq!(installed.resp().ask(&format!("MSET{pairs}")).to_string(), "+OK");

    // Started: once `systemctl start` returns, the keys are there.
    installed.systemctl("stop");
    installed.systemctl("start");
    assert_eq!(installed.resp().ask("DBSIZE").integer(), 2001);

    // Killed, and stuck: systemd starts it again, and the keys are there.
    installed.expect_restart("KILL");
    assert_eq!(installed.resp().ask("GET kept").to_string(), "\"1\"");
    installed.expect_restart("STOP");
    assert_eq!(installed.resp().ask("DBSIZE").integer(), 2001);
    assert!(machine.journal().contains("Watchdog timeout"), "{}", machine.journal());

    installed.stop_under_load();

    // Updated: the server is another one, on the same data.
    let before = installed.main_pid();
    machine.run(&["dpkg", "-i", "/root/kvlite.deb"]);
    assert_ne!(installed.main_pid(), before);
    assert_eq!(installed.resp().ask("GET kept").to_string(), "\"1\"");

    // A usage error is not tried again and again.
    installed.systemctl("stop");
    machine.write("/etc/kvlite/kvlite.conf", "KVLITE_SYNC_MODE=sometimes\n");
    assert!(!machine.try_run(&["systemctl", "start", "kvlite"]).status.success());
    assert_eq!((&*machine.property("ActiveState"), &*machine.property("NRestarts")), ("failed", "0"));
    assert_eq!(machine.property("ExecMainStatus"), "2", "{}", machine.journal());

    // Purged: unit, program and options are gone, the data is not.
    machine.run(&["dpkg", "--purge", "kvlite"]);
    for gone in ["/usr/bin/kvlite", "/etc/kvlite/kvlite.conf", "/usr/lib/systemd/system/kvlite.service"] {
        assert!(!machine.path(gone).exists(), "{gone} is left");
    }
    assert!(machine.path("/var/lib/kvlite/data").is_dir(), "the data is gone");
}
