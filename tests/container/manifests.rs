//! The files of `deploy/` that other programs read, as those programs understand them.

use std::process::{Command, Output};

use crate::client::Text;
use crate::engine::{image, root, shipped_profile, skipped};
use crate::process::{self, Log};

/// What a program says in a directory of the repository; `None`, once that was said, where it is missing.
fn output(directory: &str, program: &str, args: &[&str], package: &str) -> Option<Output> {
    match Command::new(program).args(args).current_dir(root().join(directory)).output() {
        Ok(output) => Some(output),
        Err(error) => {
            skipped(&format!("{program} cannot be run: {error}"), &format!("install {package}"));
            None
        }
    }
}

/// As [`output`], of a program that has to succeed.
#[track_caller]
fn text(directory: &str, program: &str, args: &[&str], package: &str) -> Option<String> {
    let Output { status, stdout, stderr } = output(directory, program, args, package)?;
    let (text, errors) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(status.success(), "{program} {args:?}: {status}\n{text}\n{errors}");
    Some(text)
}

#[test]
fn the_seccomp_profile_is_what_its_script_makes() {
    const DEFAULT: &str = "/usr/share/containers/seccomp.json";
    if !std::path::Path::new(DEFAULT).exists() {
        return skipped(&format!("there is no {DEFAULT}"), "apt-get install golang-github-containers-common");
    }
    let Some(made) = text("deploy", "./make-seccomp.sh", &[], "jq") else { return };
    assert_eq!(
        made,
        std::fs::read_to_string(shipped_profile()).unwrap(),
        "deploy/make-seccomp.sh makes another one"
    );
}

#[test]
fn the_seccomp_profile_has_no_condition_that_an_engine_may_not_know() {
    let text = std::fs::read_to_string(shipped_profile()).unwrap();
    let profile: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let rules = profile["syscalls"].as_array().unwrap();
    let known = ["names", "action", "errnoRet", "args"];
    for rule in rules {
        let unknown: Vec<_> =
            rule.as_object().unwrap().keys().filter(|key| !known.contains(&key.as_str())).collect();
        assert!(unknown.is_empty(), "{unknown:?} of {rule}");
    }
    let action = |call: &str| {
        let rules =
            rules.iter().filter(|rule| rule["names"].as_array().unwrap().iter().any(|name| name == call));
        rules.map(|rule| rule["action"].as_str().unwrap()).collect::<Vec<_>>()
    };
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register", "read"] {
        assert_eq!(action(call), ["SCMP_ACT_ALLOW"], "{call}");
    }
    for call in ["mount", "unshare", "setns", "keyctl", "clone3"] {
        assert!(!action(call).contains(&"SCMP_ACT_ALLOW"), "{call}");
    }
}

#[test]
fn compose_understands_its_file() {
    let Some(config) = text("deploy", "docker-compose", &["config"], "docker-compose") else { return };
    for service in ["kvlite:", "prometheus:", "grafana:"] {
        assert!(config.lines().any(|line| line.trim() == service), "{service} is missing: {config}");
    }
}

#[test]
fn compose_starts_the_server_of_its_file() {
    let Some(image) = image() else { return };
    let (port, resp_port) = process::free_ports();
    let project = format!("kvlite-test-{}", std::process::id());
    // Prometheus and Grafana are not started: no registry may answer here.
    let compose = |args: &[&str]| {
        let mut command = Command::new("docker-compose");
        command.args(["--project-name", &project]).args(args).current_dir(root().join("deploy"));
        command.envs([("KVLITE_PORT", port.to_string()), ("KVLITE_RESP_PORT", resp_port.to_string())]);
        command.env("KVLITE_IMAGE", &image).output()
    };
    let Ok(started) = compose(&["up", "--detach", "--no-build", "kvlite"]) else {
        return skipped("docker-compose cannot be run", "install docker-compose");
    };
    let is_serving = started.status.success()
        && process::within_deadline(|| compose(&["logs", "kvlite"]).is_ok_and(|log| is_ready(&log)));
    let answer = is_serving.then(|| Text::connect(port, &Log::elsewhere()).ask_one("SET a 1"));
    let log = compose(&["logs", "kvlite"]);
    compose(&["down", "--volumes"]).unwrap();
    assert_eq!(answer.as_deref(), Some("+OK"), "{started:?} {log:?}");
}

fn is_ready(log: &Output) -> bool {
    String::from_utf8_lossy(&log.stdout).contains(" is ready")
}

/// The objects of a kustomization, as the API server would get them.
fn objects(directory: &str) -> Option<String> {
    text(directory, "kubectl", &["kustomize", "."], "kubectl")
}

#[test]
fn kubernetes_knows_every_object_and_every_field() {
    for directory in ["deploy/kubernetes/base", "deploy/kubernetes/io-uring"] {
        let Some(objects) = objects(directory) else { return };
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        std::fs::write(file.path(), objects).unwrap();
        let args = ["--strict", file.path().to_str().unwrap()];
        let Some(_) = text(".", "kubernetes-validate", &args, "kubernetes-validate from PyPI") else {
            return;
        };
    }
}

#[test]
fn the_variants_for_kubernetes_differ_in_their_seccomp_profile_alone() {
    let (Some(base), Some(ring)) = (objects("deploy/kubernetes/base"), objects("deploy/kubernetes/io-uring"))
    else {
        return;
    };
    let default = "seccompProfile:\n          type: RuntimeDefault\n";
    let shipped =
        "seccompProfile:\n          localhostProfile: profiles/kvlite.json\n          type: Localhost\n";
    assert_eq!(base.matches(default).count(), 1, "{base}");
    assert_eq!(base.replace(default, shipped), ring);
}

#[test]
fn the_service_monitor_selects_the_service_that_has_the_admin_port() {
    let overlay = tempfile::tempdir().unwrap();
    let place = overlay.path().canonicalize().unwrap();
    // Only paths from here are taken.
    let up = "../".repeat(place.components().count() - 1);
    let manifests = format!("{up}{}/deploy/kubernetes", root().display().to_string().trim_start_matches('/'));
    let kustomization = format!("resources: [{manifests}/base]\ncomponents: [{manifests}/service-monitor]\n");
    std::fs::write(place.join("kustomization.yaml"), kustomization).unwrap();
    let Some(objects) = objects(place.to_str().unwrap()) else { return };
    let object = |kind: &str, name: &str| {
        let is_it = |text: &&str| {
            text.contains(&format!("kind: {kind}\n")) && text.contains(&format!("\n  name: {name}\n"))
        };
        objects.split("---\n").find(is_it).unwrap_or_else(|| panic!("no {kind} {name}: {objects}"))
    };
    let (monitor, service) = (object("ServiceMonitor", "kvlite"), object("Service", "kvlite-headless"));
    // The job by whose name alerts know the server.
    assert!(monitor.contains("\n  jobLabel: app.kubernetes.io/name\n"), "{monitor}");
    assert!(service.contains("\n    app.kubernetes.io/name: kvlite\n"), "{service}");
    let alerts = std::fs::read_to_string(root().join("deploy/prometheus/alerts.yml")).unwrap();
    let prometheus = std::fs::read_to_string(root().join("deploy/prometheus/prometheus.yml")).unwrap();
    assert_eq!(alerts.matches("job=").count(), alerts.matches("job=\"kvlite\"").count(), "{alerts}");
    assert!(prometheus.contains("job_name: kvlite\n"), "{prometheus}");
    let (_, selector) = monitor.split_once("matchLabels:\n").unwrap();
    assert_eq!(selector.lines().count(), 2, "{monitor}");
    for label in selector.lines().map(str::trim) {
        let (metadata, _) = service.split_once("spec:").unwrap();
        assert!(metadata.contains(label), "{label} is no label of {service}");
    }
    assert!(monitor.contains("port: admin") && service.contains("name: admin"), "{objects}");
}
