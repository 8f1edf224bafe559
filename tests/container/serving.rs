//! The image serves: without any option, under both kinds of seccomp profiles, as any user, with its data on a volume.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::client::Value;
use crate::engine::{Container, Volume, docker, image, profile_without_io_uring, shipped_profile, skipped};
use crate::process::within_deadline;

/// Sets a key over each protocol, and gets it over the other one.
#[track_caller]
fn expect_served(container: &Container) {
    let (mut text, mut resp) = (container.text(), container.resp());
    assert_eq!(text.ask_one("SET text 1"), "+OK");
    assert_eq!(resp.ask("SET resp 2"), Value::Simple("OK".to_owned()));
    assert_eq!(text.ask_one("GET resp"), "2");
    assert_eq!(resp.ask("GET text"), Value::bulk("1"));
}

#[test]
fn it_serves_both_ports_without_any_option() {
    let Some(image) = image() else { return };
    let container = Container::serving(&image, &[], &[]);
    expect_served(&container);
    // Arguments behind the name of the image are those of the server.
    let container = Container::serving(&image, &[], &["--shards", "3", "--sync-mode", "always"]);
    expect_served(&container);
    assert_eq!(container.text().ask_one("CONFIG GET sync-mode"), "always");
    assert_eq!(container.info("shards"), "3");
}

#[test]
fn the_profile_decides_between_io_uring_and_epoll() {
    let Some(image) = image() else { return };
    let directory = tempfile::tempdir().unwrap();
    let profiles = [(shipped_profile(), "io_uring"), (profile_without_io_uring(directory.path()), "epoll")];
    for (profile, backend) in profiles {
        let profile = format!("--security-opt=seccomp={}", profile.display());
        let container = Container::serving(&image, &[&profile], &[]);
        expect_served(&container);
        assert_eq!(container.info("io_backend"), backend);
        assert!(container.log().contains(&format!("io={backend}")), "{}", container.log());
    }
}

#[test]
fn it_serves_as_any_user_with_no_capability_and_nothing_to_write_to_but_its_volume() {
    let Some(image) = image() else { return };
    let hardened = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"];
    for user in ["--user=12345:12345", "--user=54321:0", "--user=10001"] {
        let container = Container::serving(&image, &[&hardened[..], &[user]].concat(), &[]);
        expect_served(&container);
        container.command("stop");
        assert_eq!(container.ended(), 0);
    }
}

#[test]
fn the_data_on_a_volume_outlives_its_container_and_the_number_of_cpus() {
    let Some(image) = image() else { return };
    let volume = Volume::new();
    let usable = rustix::thread::sched_getaffinity(None).unwrap();
    let mut usable = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| usable.is_set(*cpu));
    let (Some(one), Some(other)) = (usable.next(), usable.next()) else {
        return skipped("there is one CPU only", "run it on two");
    };
    let (one, both, other) = (one.to_string(), format!("{one},{other}"), other.to_string());
    for (cpus, before) in [(one, 0), (both, 100), (other, 200)] {
        let cpuset = format!("--cpuset-cpus={cpus}");
        let container = Container::serving(&image, &[&volume.mounted(), &cpuset], &[]);
        assert_eq!(container.info("shards"), cpus.split(',').count().to_string());
        let mut text = container.text();
        for key in 0..before {
            assert_eq!(text.ask_one(&format!("GET key-{key}")), key.to_string());
        }
        for key in before..before + 100 {
            assert_eq!(text.ask_one(&format!("SET key-{key} {key}")), "+OK");
        }
    }
}

#[test]
fn the_engine_finds_it_healthy_and_the_admin_port_answers() {
    let Some(image) = image() else { return };
    let container = Container::serving(&image, &["--health-interval=1s"], &[]);
    let status = || container.inspect("{{.State.Health.Status}}");
    assert!(within_deadline(|| status() == "healthy"), "{}", container.inspect("{{json .State.Health}}"));
    let mut stream = TcpStream::connect(container.address(9121)).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.lines().next().unwrap().contains(" 200 "), "{answer}");
}

#[test]
fn the_image_holds_the_program_and_its_libraries_alone() {
    let Some(image) = image() else { return };
    let told = docker(&["image", "inspect", "--format", "{{json .Config}}", &image]);
    let config: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(config["User"], "10001:10001");
    assert_eq!(config["StopSignal"], "SIGTERM");
    assert_eq!(config["Volumes"], serde_json::json!({ "/data": {} }));
    let ports: Vec<&String> = config["ExposedPorts"].as_object().unwrap().keys().collect();
    assert_eq!(ports, ["6379/tcp", "6380/tcp", "9121/tcp"]);
    assert_eq!(config["Labels"]["org.opencontainers.image.title"], "kvlite");
    let container = Container::started(&image, &[], &["--version"]);
    assert_eq!(container.ended(), 0);
    // The engine adds files of its own: /etc/hosts, /dev/console and the like.
    let added = ["etc/", "dev/", "proc/", "sys/", ".dockerenv", "data/"];
    let is_known = |name: &&String| {
        name.ends_with('/')
            || name.as_str() == "usr/local/bin/kvlite"
            || name.contains(".so")
            || added.iter().any(|prefix| name.starts_with(prefix))
    };
    let files = container.files();
    assert!(files.contains("usr/local/bin/kvlite"), "{files:?}");
    let unknown: Vec<&String> = files.iter().filter(|name| !is_known(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
