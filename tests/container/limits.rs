//! What a container is given: CPU time, memory, a directory.

use std::os::unix::fs::PermissionsExt;

use crate::engine::{Container, image};

#[test]
fn a_quota_of_cpu_time_and_a_limit_of_memory_are_found_and_shown() {
    let Some(image) = image() else { return };
    let container = Container::serving(&image, &["--cpus=1.5", "--memory=256m"], &[]);
    assert_eq!(container.info("shards"), "1");
    assert_eq!(container.info("cpu_quota"), "1.50");
    assert_eq!(container.info("cgroup_memory_limit"), (256 << 20).to_string());
    let (file, log) = (container.info("shards_set_by"), container.log());
    assert!(["cpu.max", "cpu.cfs_quota_us"].contains(&file.as_str()), "{file}");
    assert!(log.contains(&format!(", {file} allows 1.5")) && log.contains("memory_limit=256m"), "{log}");
    assert_eq!(container.text().ask_one("CONFIG GET shards"), "1");

    let container = Container::serving(&image, &["--cpus=1"], &["--shards", "2"]);
    assert_eq!((container.info("shards"), container.info("shards_set_by")), ("2".into(), "--shards".into()));
    assert_eq!(container.info("cgroup_memory_limit"), "0");
}

#[test]
fn a_directory_that_cannot_be_written_to_is_told_with_what_to_do() {
    let Some(image) = image() else { return };
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let path = directory.path().display();
    let cases = [
        (format!("--volume={path}:/data"), "chown -R 10001:10001, or fsGroup: 10001 in Kubernetes"),
        (format!("--volume={path}:/data:ro"), "the data directory has to be writable: mount a volume there"),
    ];
    for (mount, remedy) in cases {
        let container = Container::started(&image, &[&mount], &[]);
        assert_eq!(container.ended(), 1, "{}", container.log());
        assert!(container.log().contains(remedy), "{}", container.log());
    }
}
