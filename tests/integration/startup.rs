//! How the program starts and ends: flags, exit statuses, one server per directory and port.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use rustix::process::Signal;

use crate::client::Value;
use crate::process::{
    Ended, Server, command, free_port, free_ports, io_backend, run_to_end, within_deadline,
};

/// Runs the program with these flags, a data directory and ports of its own, until it ends.
fn run(flags: &[&str]) -> Ended {
    let directory = tempfile::tempdir().unwrap();
    let mut command = command();
    let (port, resp_port) = free_ports();
    for (name, value) in [
        ("--host", "127.0.0.1"),
        ("--port", &*port.to_string()),
        ("--resp-port", &*resp_port.to_string()),
        ("--shards", "1"),
        ("--wal-path", directory.path().join("data").to_str().unwrap()),
    ] {
        if !flags.contains(&name) {
            command.args([name, value]);
        }
    }
    run_to_end({
        command.args(flags);
        command
    })
}

#[test]
fn help_and_version_are_shown() {
    let version = run(&["--version"]);
    assert_eq!(version.status.code(), Some(0), "{version:?}");
    assert!(version.output.starts_with("kvlite "), "{version:?}");
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0), "{help:?}");
    for flag in
        ["--port", "--resp-port", "--wal-path", "--sync-mode", "--shards", "--max-connections", "KVLITE_"]
    {
        assert!(help.output.contains(flag), "--help does not mention {flag}:\n{}", help.output);
    }
}

#[test]
fn bad_flags_are_refused_with_a_reason() {
    let cases: [(&[&str], &str); 9] = [
        (&["--sync-mode", "sometimes"], "sync-mode"),
        (&["--shards", "0"], "shards"),
        (&["--shards", "many"], "shards"),
        (&["--port", "70000"], "port"),
        (&["--host", "192.0.2.1"], "192.0.2.1"),
        (&["--no-such-option"], "--no-such-option"),
        (&["--max-connections", "-1"], "max-connections"),
        (&["--log-format", "xml"], "log-format"),
        (&["--wal-path", "/dev/null/data"], "/dev/null/data"),
    ];
    for (flags, reason) in cases {
        let ended = run(flags);
        let code = ended.status.code();
        assert!(matches!(code, Some(1 | 2 | 78)), "{flags:?} ended with {code:?}:\n{}", ended.output);
        assert!(
            ended.output.contains(reason),
            "{flags:?}: the error does not name {reason}:\n{}",
            ended.output
        );
        assert!(!ended.output.contains("panicked"), "{flags:?}:\n{}", ended.output);
    }
    assert_eq!(run(&["--no-such-option"]).status.code(), Some(2));
}

#[test]
fn bad_variables_are_refused_with_a_reason() {
    for (name, value) in [("KVLITE_SYNC_MODE", "sometimes"), ("KVLITE_MAX_CONNECTIONS", "many")] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = command();
        command.env(name, value).arg("--wal-path").arg(directory.path());
        let (port, resp_port) = free_ports();
        command.args(["--port", &port.to_string(), "--resp-port", &resp_port.to_string()]);
        let ended = run_to_end(command);
        assert!(matches!(ended.status.code(), Some(2 | 78)), "{name}={value}: {ended:?}");
        assert!(ended.output.contains(value), "{name}={value}: {ended:?}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for flag in ["--port", "--resp-port"] {
        let ended = run(&[flag, &port]);
        assert!(!ended.status.success(), "{flag} {port} is taken: {ended:?}");
        assert!(ended.output.contains(&port), "{flag} {port}: the error does not name the port: {ended:?}");
        assert!(ended.output.contains("in use"), "{flag} {port}: {ended:?}");
        assert!(ended.output.contains(&format!("choose another with {flag}")), "{ended:?}");
    }
    // Another server's port is as taken as any other, however the two share ports among their own threads.
    let server = Server::start(2, &[]);
    let ended = run(&["--port", &server.port.to_string()]);
    assert!(!ended.status.success() && ended.output.contains("in use"), "{ended:?}");
    assert_eq!(server.text().ask_one("PING"), "+PONG");
}

#[test]
fn an_address_of_another_machine_is_told_by_its_flag() {
    for host in ["8.8.8.8", "192.0.2.1", "no-such-host.invalid"] {
        for flags in [&["--host", host][..], &["--host", host, "--port", "0"]] {
            let ended = run(flags);
            assert_eq!(ended.status.code(), Some(1), "{flags:?}: {ended:?}");
            assert!(ended.output.contains("choose another with --host"), "{flags:?}: {ended:?}");
        }
    }
}

#[test]
fn a_server_that_no_client_could_reach_does_not_start() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 6379));
    let directory = tempfile::tempdir().unwrap();
    let mut command = command();
    // The default port of RESP may be taken, by this test or another program, but not where there is no other.
    command.args(["--host", "127.0.0.1", "--port", "0", "--wal-path"]).arg(directory.path());
    let ended = run_to_end(command);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.output.contains("choose another with --resp-port"), "{ended:?}");
    drop(taken);
}

#[test]
fn flags_with_one_dash_are_understood_and_told_of_once() {
    let mut server = Server::start(1, &["-max-connections", "7", "-spin-us=5", "-sync-mode"]);
    let mut resp = server.resp();
    for (option, value) in [("max-connections", "7"), ("spin-us", "5"), ("sync-mode", "always")] {
        assert_eq!(resp.ask(&format!("CONFIG GET {option}")).items()[1], Value::bulk(value), "{option}");
    }
    assert!(server.terminate().success());
    let log = server.log.text();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("flags are given with one dash")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("--max-connections --spin-us --sync-mode"), "{log}");
}

#[test]
fn the_options_are_shown_with_what_sets_them() {
    let mut command = command();
    command.args(["config", "--port", "7000", "-spin-us", "5"]).env("KVLITE_SYNC_MODE", "always");
    let ended = run_to_end(command);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    for words in ["--port 7000 --port", "--spin-us 5 --spin-us", "--sync-mode always KVLITE_SYNC_MODE"] {
        let is_shown = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ") == words;
        assert!(ended.output.lines().any(is_shown), "{words} is missing: {}", ended.output);
    }
    for arguments in [&["config", "--port", "1", "--resp-port", "1"][..], &["config", "--prot", "1"]] {
        let mut command = crate::process::command();
        command.args(arguments);
        let ended = run_to_end(command);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn the_variables_of_a_kubernetes_service_are_no_options() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = command();
    command.envs([
        ("KVLITE_SERVICE_HOST", "10.96.0.12"),
        ("KVLITE_SERVICE_PORT", "6380"),
        ("KVLITE_SERVICE_PORT_RESP", "6379"),
        ("KVLITE_PORT", "tcp://10.96.0.12:6380"),
        ("KVLITE_PORT_6380_TCP", "tcp://10.96.0.12:6380"),
        ("KVLITE_PORT_6380_TCP_PROTO", "tcp"),
        ("KVLITE_PORT_6380_TCP_PORT", "6380"),
        ("KVLITE_PORT_6380_TCP_ADDR", "10.96.0.12"),
        ("KVLITE_RESP_PORT", "udp://10.96.0.13:6379"),
    ]);
    // It ends, but not before it has read its options.
    command.args(["--host", "192.0.2.1", "--wal-path"]).arg(directory.path());
    let ended = run_to_end(command);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    for said in ["variable=KVLITE_PORT ", "variable=KVLITE_RESP_PORT ", "listen on 192.0.2.1:6380"] {
        assert!(ended.output.contains(said), "{said} is missing: {ended:?}");
    }
    assert_eq!(ended.output.matches("is ignored").count(), 2, "{ended:?}");
}

/// The CPUs on which the thread of shard 0 may run, as the system writes them.
fn cpus_of_shard_0(server: &Server) -> String {
    let status = std::fs::read_dir(format!("/proc/{}/task", server.id())).unwrap().find_map(|task| {
        let task = task.unwrap().path();
        let name = std::fs::read_to_string(task.join("comm")).unwrap();
        name.starts_with("kvlite-0").then(|| std::fs::read_to_string(task.join("status")).unwrap())
    });
    cpus_in(&status.expect("shard 0 has a thread"))
}

fn cpus_in(status: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.expect("a thread has CPUs").trim().to_owned()
}

#[test]
fn a_shard_is_bound_to_a_cpu_only_if_each_has_one_or_with_cpus() {
    let usable = cpus_in(&std::fs::read_to_string("/proc/self/status").unwrap());
    let first = usable.split(['-', ',']).next().unwrap();
    let last = usable.rsplit(['-', ',']).next().unwrap();
    let count = std::thread::available_parallelism().unwrap().get();
    for (shards, flags, expected) in [
        (1, &[][..], &*usable), // With a single CPU that is the same one.
        (1, &["--cpus", last], last),
        (count, &[], first),
        (count + 1, &[], &usable),
    ] {
        let server = Server::start(shards, flags);
        assert_eq!(cpus_of_shard_0(&server), expected, "{shards} shards, {flags:?}");
    }
}

/// Runs `work` on a thread on which the kernel refuses a system call, and so on every process started by it.
pub fn without_system_call<T: Send>(number: i64, errno: u32, work: impl FnOnce() -> T + Send) -> T {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
    let architecture = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let rules = [(number, vec![])].into_iter().collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), architecture);
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    std::thread::scope(|scope| {
        let restricted = scope.spawn(move || {
            seccompiler::apply_filter(&program).unwrap();
            work()
        });
        restricted.join().unwrap()
    })
}

/// Setup, enter and register have these numbers on every architecture.
const IO_URING_CALLS: [i64; 3] = [425, 426, 427];

#[test]
fn a_system_without_io_uring_is_served_by_epoll() {
    for (errno, call) in [(1, 425), (1, 426), (1, 427), (38, 425)] {
        let server = without_system_call(call, errno, || Server::start(2, &["--io", "auto"]));
        assert_eq!(server.text().ask_one("SET key value"), "+OK");
        let mut client = server.resp();
        assert_eq!(client.ask("GET key"), Value::bulk("value"));
        let info = client.ask("INFO server");
        assert!(String::from_utf8_lossy(info.bytes()).contains("\r\nio_backend:epoll\r\n"), "{info:?}");
        assert!(server.text().ask_one("HEALTH").contains("\"io_backend\":\"epoll\""));
        let log = server.log.text();
        assert_eq!(log.matches("io_uring cannot be used").count(), 1, "{log}");
        assert!(log.contains("io_uring_setup, io_uring_enter and io_uring_register") || errno != 1, "{log}");
        assert!(log.contains(" io=epoll "), "{log}");
    }
}

#[test]
fn a_system_without_io_uring_is_told_what_to_do() {
    for (errno, remedy) in [(1, "seccomp profile"), (38, "Linux 6.1")] {
        for call in IO_URING_CALLS {
            let ended = without_system_call(call, errno, || run(&["--io", "io_uring"]));
            assert_eq!(ended.status.code(), Some(78), "call {call}: {ended:?}");
            assert!(ended.output.contains("io_uring is not available"), "{ended:?}");
            assert!(ended.output.contains(remedy), "{ended:?}");
            assert!(!ended.output.contains("panicked"), "{ended:?}");
        }
    }
}

#[test]
fn too_little_locked_memory_for_all_shards_is_told_with_what_they_need() {
    use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
    let directory = tempfile::tempdir().unwrap();
    let (port, resp_port) = free_ports();
    let mut limited = std::process::Command::new("prlimit");
    limited.arg("--memlock=2097152:2097152").arg(crate::process::program());
    limited.args(["--io", "io_uring", "--host", "127.0.0.1", "--shards", "16"]);
    limited.args(["--wal-segment-size", "64k", "--wal-path"]);
    limited.arg(directory.path());
    limited.args(["--port", &port.to_string(), "--resp-port", &resp_port.to_string()]);
    limited.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    // The limit counts only for those who may not lock memory beyond it.
    let mut child = std::thread::scope(|scope| {
        let spawn = || {
            let _ = remove_capability_from_bounding_set(CapabilitySet::IPC_LOCK); // Others than root have none.
            limited.spawn().unwrap()
        };
        scope.spawn(spawn).join().unwrap()
    });
    let mut status = None;
    let serves = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
    assert!(within_deadline(|| {
        status = child.try_wait().unwrap();
        status.is_some() || !kernel_counts_rings() && serves()
    }));
    if status.is_none() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    if let Some(status) = status {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(status.code(), Some(78), "{said}");
        assert!(said.contains("locked memory is 2097152 bytes; io_uring needs 8"), "{said}");
    }
}

/// Since Linux 6.14 the queues of rings count as locked memory.
fn kernel_counts_rings() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(14))
}

#[test]
fn too_few_open_files_are_told_with_what_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    let mut limited = std::process::Command::new("prlimit");
    limited.env("KVLITE_IO", io_backend());
    limited.arg("--nofile=64:64").arg(crate::process::program());
    limited.args(["--host", "127.0.0.1", "--shards", "2", "--wal-path"]).arg(directory.path());
    let ended = run_to_end(limited);
    assert_eq!(ended.status.code(), Some(78), "{ended:?}");
    assert!(ended.output.contains("the limit of open files is 64, and the shards need 2"), "{ended:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was begun");
}

#[test]
fn too_few_threads_are_told_with_the_limits_to_raise() {
    const UNUSED_USER: &str = "--reuid=61237";
    let directory = tempfile::tempdir().unwrap();
    let everybody = || std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(directory.path(), everybody()).unwrap();
    let program = directory.path().join("kvlite");
    std::fs::copy(crate::process::program(), &program).unwrap();
    // The limit does not count for root. A server with four shards has more threads than any of these; each comes to
    // another one.
    for limit in [2, 3, 5, 7, 9, 11] {
        let mut limited = std::process::Command::new("prlimit");
        limited.env("KVLITE_IO", io_backend());
        limited.arg(format!("--nproc={limit}:{limit}"));
        if rustix::process::geteuid().is_root() {
            limited.args(["setpriv", UNUSED_USER, "--clear-groups"]);
        }
        let (port, resp_port) = free_ports();
        limited.arg(&program).args(["--host", "127.0.0.1", "--shards", "4", "--wal-segment-size", "64k"]);
        limited.args(["--port", &port.to_string(), "--resp-port", &resp_port.to_string()]);
        limited.arg("--wal-path").arg(directory.path().join("data"));
        let ended = run_to_end(limited);
        assert_eq!(ended.status.code(), Some(78), "{limit}: {ended:?}");
        assert_eq!(ended.output.matches("ulimit -u, TasksMax= of systemd").count(), 1, "{limit}: {ended:?}");
    }
}

#[test]
fn a_system_call_that_is_forbidden_is_named() {
    const BOTH: &[&str] = &[];
    const EPOLL: &[&str] = &["--io", "epoll"];
    for (name, number, flags) in [
        ("prlimit64", libc::SYS_prlimit64, BOTH),
        ("eventfd2", libc::SYS_eventfd2, BOTH),
        ("fdatasync", libc::SYS_fdatasync, BOTH),
        ("fallocate", libc::SYS_fallocate, BOTH),
        ("epoll_create1", libc::SYS_epoll_create1, EPOLL),
        ("epoll_ctl", libc::SYS_epoll_ctl, EPOLL),
        ("epoll_pwait", libc::SYS_epoll_pwait, EPOLL),
        ("accept4", libc::SYS_accept4, EPOLL),
    ] {
        let ended = without_system_call(number, 1, || run(flags));
        assert_eq!(ended.status.code(), Some(78), "{name}: {ended:?}");
        assert!(ended.output.contains(&format!("the system call {name} is forbidden")), "{ended:?}");
    }
}

#[test]
fn shards_that_cannot_be_bound_to_cpus_are_not_unless_asked_for() {
    let call = libc::SYS_sched_setaffinity;
    let usable = cpus_in(&std::fs::read_to_string("/proc/self/status").unwrap());
    let count = std::thread::available_parallelism().unwrap().get();
    let server = without_system_call(call, 1, || Server::start(count, &[]));
    assert_eq!(cpus_of_shard_0(&server), usable);
    assert!(server.log.text().contains("sched_setaffinity is forbidden"), "{}", server.log.tail());

    let first = usable.split(['-', ',']).next().unwrap();
    let ended = without_system_call(call, 1, || run(&["--cpus", first]));
    assert_eq!(ended.status.code(), Some(78), "{ended:?}");
    assert!(ended.output.contains("sched_setaffinity is forbidden"), "{ended:?}");
}

#[test]
fn too_little_locked_memory_is_told_by_its_limit() {
    let directory = tempfile::tempdir().unwrap();
    let mut limited = std::process::Command::new("prlimit");
    limited.arg("--memlock=65536:65536").arg(crate::process::program());
    limited.args(["--host", "127.0.0.1", "--port", &free_port().to_string(), "--resp-port", "0"]);
    limited.args(["--io", "io_uring", "--wal-path"]).arg(directory.path());
    let ended = run_to_end(limited);
    assert_eq!(ended.status.code(), Some(78), "{ended:?}");
    assert!(ended.output.contains("locked memory is 65536 bytes"), "{ended:?}");
}

#[test]
fn too_little_locked_memory_for_io_uring_is_enough_for_epoll() {
    let server = Server::start_under(&["prlimit", "--memlock=65536:65536"], 2, &["--io", "auto"]);
    assert_eq!(server.text().ask_one("SET key value"), "+OK");
    let log = server.log.text();
    assert!(log.contains("locked memory is 65536 bytes") && log.contains(" io=epoll "), "{log}");
}

#[test]
fn two_servers_never_share_a_directory() {
    let mut server = Server::start(2, &[]);
    assert_eq!(server.text().ask_one("SET a 1"), "+OK");
    let ended = run_to_end(server.rival());
    assert!(!ended.status.success(), "a second server started: {ended:?}");
    let directory = server.data().display().to_string();
    assert!(ended.output.contains(&directory), "the error does not name {directory}: {ended:?}");
    for said in ["waiting for the data directory", "ms=5000", "choose another directory with --wal-path"] {
        assert!(ended.output.contains(said), "{said} is missing: {ended:?}");
    }
    assert_eq!(server.text().ask_one("GET a"), "1", "the first one goes on");

    // A lock that a killed server left behind is no obstacle.
    server.kill9();
    server.restart(2);
    assert_eq!(server.text().ask_one("GET a"), "1");
}

#[test]
fn signals_that_end_the_server_do_so_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kvlite.sock");
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT, Signal::POWER, Signal::XCPU] {
        let mut server = Server::start(2, &["--unix-socket", socket.to_str().unwrap()]);
        let (mut resp, mut text) = (server.resp(), server.text());
        assert_eq!(resp.ask("SET a 1").to_string(), "+OK");
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0), "{signal:?}\n{}", server.log.tail());
        assert!(resp.wire.until_closed().is_empty(), "clients are closed");
        text.wire.until_closed();
        assert!(!socket.exists(), "{signal:?} leaves the socket file behind");
        let name = signal_name(signal);
        let said = format!("stopping; a second signal ends at once signal={name}\n");
        assert!(server.log.text().contains(&said), "{}", server.log.tail());
        server.restart(2);
        assert_eq!(server.resp().ask("GET a").to_string(), "\"1\"");
    }
}

#[test]
fn other_signals_are_ignored_and_logged_once() {
    let mut server = Server::start(2, &[]);
    let mut client = server.resp();
    let ignored = [
        Signal::HUP,
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::STKFLT,
        Signal::XFSZ,
        Signal::PIPE,
    ];
    for _ in 0..2 {
        for signal in ignored {
            server.signal(signal);
            assert!(client.ask("INCR signals").integer() > 0, "{signal:?}");
        }
        assert!(within_deadline(|| server.log.text().contains("signal=SIGXFSZ")), "{}", server.log.tail());
    }
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
    for name in ignored.into_iter().filter(|signal| *signal != Signal::PIPE).map(signal_name) {
        let lines = server.log.text().matches(&format!("signal={name}\n")).count();
        assert_eq!(lines, 1, "{name}\n{}", server.log.text());
    }
}

fn signal_name(signal: Signal) -> String {
    match signal_hook::low_level::signal_name(signal.as_raw()) {
        Some(name) => name.to_owned(),
        None => format!("signal {}", signal.as_raw()),
    }
}

#[test]
fn a_second_signal_ends_the_server_at_once_and_leaves_no_socket_file() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kvlite.sock");
    let mut server = Server::start(2, &["--unix-socket", socket.to_str().unwrap()]);
    let mut client = server.resp();
    assert_eq!(client.ask(&format!("SET large {}", "x".repeat(1 << 20))).to_string(), "+OK");
    // Replies that are not read keep the server from its end for a while.
    client.wire.send(&crate::client::encoded(&["GET", "large"]).repeat(64));
    let begun = client.wire.line();
    assert_eq!(begun, b"$1048576");
    server.signal(Signal::TERM);
    assert!(within_deadline(|| server.log.text().contains("stopping; ")), "{}", server.log.tail());
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(128 + 15), "{}", server.log.tail());
    assert!(server.log.text().contains("at once by a second signal"), "{}", server.log.tail());
    assert!(!socket.exists(), "the socket file stays behind");
}

#[test]
fn the_end_leaves_a_socket_file_of_another_server() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kvlite.sock");
    let flags = ["--unix-socket", socket.to_str().unwrap()];
    let mut first = Server::start(1, &flags);
    std::fs::remove_file(&socket).unwrap();
    let mut second = Server::start(1, &flags);
    assert_eq!(first.terminate().code(), Some(0), "{}", first.log.tail());
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
    assert_eq!(second.terminate().code(), Some(0), "{}", second.log.tail());
    assert!(!socket.exists());
}

#[test]
fn the_end_does_not_wait_for_the_next_search_for_expired_keys() {
    let mut server = Server::start(3, &["--ttl-check-interval", "1h"]);
    assert_eq!(server.text().ask_one("SET a 1"), "+OK");
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
}

#[test]
fn the_log_is_lines_of_json_when_asked_for() {
    let mut server = Server::start(1, &["--log-format", "json"]);
    assert_eq!(server.terminate().code(), Some(0));
    let text = server.log.text();
    assert!(!text.is_empty(), "the server logs its start");
    for line in text.lines() {
        assert!(line.starts_with('{') && line.ends_with('}'), "not JSON: {line}");
    }
}
