//! What systemd says of the unit, without running it.

use std::fs;
use std::process::{Command, Output};

use crate::machine::lacks;
use crate::process::program;

/// Where the exposure is stated.
const DOCUMENT: &str = include_str!("../../docs/systemd.md");

fn analyze(args: &[&str]) -> Output {
    // The unit of a machine where the program is elsewhere.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kvlite.service");
    let unit = include_str!("../../deploy/systemd/kvlite.service");
    fs::write(&path, unit.replace("/usr/bin/kvlite", program().to_str().unwrap())).unwrap();
    Command::new("systemd-analyze").args(args).arg(&path).output().unwrap()
}

#[test]
fn the_unit_has_no_line_that_systemd_does_not_know() {
    if lacks("the unit's lines", &["systemd-analyze"]) {
        return;
    }
    let said = analyze(&["verify", "--man=no"]);
    let complaints = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success() && !complaints.contains("kvlite"), "{complaints}");
}

#[test]
fn the_unit_is_as_exposed_as_the_document_says_and_no_more() {
    if lacks("the unit's exposure", &["systemd-analyze"]) {
        return;
    }
    let (_, promise) = DOCUMENT.split_once("exposure level of ").expect("the document states it");
    let promise: f64 =
        promise.split_whitespace().next().unwrap().trim_end_matches(['.', ',', ';']).parse().unwrap();
    let threshold = format!("--threshold={}", (promise * 10.0).round());
    let said = analyze(&["security", "--offline=true", "--no-pager", &threshold]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
}
