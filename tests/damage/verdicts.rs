//! What is demanded of a damaged directory, whatever was damaged: a start that serves has lost nothing that was noted,
//! one that refuses changes nothing and says what and where; `check`, start and `repair` say the same.

use std::path::Path;

use crate::harm::{Done, Part};
use crate::ledger::{State, difference};
use crate::process::Ended;
use crate::program::{Directory, Start, content, scratch};
use crate::specimen::Specimen;

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It serves everything.
    Whole,
    /// It serves, and has said that it leaves out the end, which nothing says was safe.
    EndLost,
    /// It refuses.
    Refused,
}

/// Judges a damaged copy of a specimen, of which a start finds `whole` while it is not damaged.
pub fn judge(specimen: &Specimen, whole: &State, damaged: &Path, done: &[Done]) -> Result<Outcome, String> {
    let mut directory = specimen.directory.clone();
    damaged.clone_into(&mut directory.path);
    let place = scratch();
    let before = content(damaged);
    let unchanged = |who: &str| -> Result<(), String> {
        let now = content(damaged);
        let changed = || before.iter().zip(&now).find(|(before, now)| before != now);
        let path = || changed().map_or(damaged, |(before, _)| &before.0).display().to_string();
        (now == before).then_some(()).ok_or_else(|| format!("{who} has changed the directory: {}", path()))
    };

    let check = directory.check();
    unchanged("check")?;
    let new = place.path().join("new");
    let repair = directory.repair(&new);
    unchanged("repair")?;
    let start = directory.start(&specimen.ledger);
    let told = |what: String| {
        let log = match &start {
            Start::Serves { log, .. } | Start::Refuses { log, .. } => log,
        };
        format!(
            "{what}\n--- check: {}\n{}--- repair: {}\n{}--- start:\n{log}",
            check.status, check.output, repair.status, repair.output
        )
    };

    let outcome = match &start {
        Start::Serves { found, log } => {
            // Status 3: there is no data directory. Nor was there one before, or nothing tells of it.
            let is_unknown = whole.is_empty() || specimen.noted <= 1;
            let status = if check.status.code() == Some(3) && is_unknown { 3 } else { 0 };
            expect_status(&check, status, "check of what a start serves").map_err(told)?;
            let outcome = judge_served(specimen, whole, found, done, log).map_err(told)?;
            let again = match directory.start(&specimen.ledger) {
                Start::Serves { found, .. } => found,
                Start::Refuses { why, log } => {
                    return Err(told(format!("a second start does not serve: {why}\n{log}")));
                }
            };
            if let Some(difference) = difference(found, &again) {
                return Err(told(format!("a second start serves something else: {difference}")));
            }
            outcome
        }
        Start::Refuses { why, log } => {
            unchanged("a start that refuses").map_err(told)?;
            judge_refusal(damaged, done, why, log).map_err(told)?;
            expect_status(&check, 1, "check of what a start refuses").map_err(told)?;
            Outcome::Refused
        }
    };
    let mut repaired = directory.clone();
    new.clone_into(&mut repaired.path);
    judge_repair(specimen, whole, &start, &repair, &repaired).map_err(told)?;
    Ok(outcome)
}

fn expect_status(ended: &Ended, status: i32, what: &str) -> Result<(), String> {
    let right = ended.status.code() == Some(status);
    right.then_some(()).ok_or_else(|| format!("{what}: {}, not {status}", ended.status))
}

fn judge_served(
    specimen: &Specimen,
    whole: &State,
    found: &State,
    done: &[Done],
    log: &str,
) -> Result<Outcome, String> {
    let Some(lost) = difference(whole, found) else { return Ok(Outcome::Whole) };
    if done.iter().all(|done| done.part.is_dispensable()) {
        return Err(format!("no key was in what is damaged, and {lost}"));
    }
    let Specimen { ledger, noted, superseded, directory, .. } = specimen;
    let least = if done.iter().all(|done| done.leaves_trace) { superseded } else { noted };
    ledger.allows(found, *least, directory.shards).map_err(|why| format!("silently wrong: {why}"))?;
    if done.iter().any(|done| done.leaves_trace) && !log.contains(" WARN ") {
        return Err(format!("the end is lost without a warning: {lost}"));
    }
    Ok(Outcome::EndLost)
}

fn judge_refusal(damaged: &Path, done: &[Done], why: &str, log: &str) -> Result<(), String> {
    if !why.contains("exit status: 1") {
        return Err(format!("a start does not serve and does not end with status 1: {why}"));
    }
    if done.iter().all(|done| done.part.is_dispensable()) {
        return Err("refused, although no key was in what is damaged".to_owned());
    }
    let error = log.lines().find(|line| line.contains(" ERROR ")).unwrap_or_default();
    let names = |place: &Path| error.contains(&place.display().to_string());
    // What an old or foreign manifest or note promises is missing elsewhere.
    let names_any = done.iter().any(|done| done.part.vouches() || done.part == Part::Manifest)
        && names(&damaged.join(""));
    let places = done.iter().flat_map(|done| &done.paths).flat_map(|path| path.ancestors());
    let mut places = places.filter(|place| *place != damaged && place.starts_with(damaged));
    if !names_any && !places.any(names) {
        return Err("the refusal does not say where".to_owned());
    }
    let remedies = ["kvlite repair", "put it back", "move it to", "start a newer kvlite"];
    if !remedies.iter().any(|remedy| error.contains(remedy)) {
        return Err("the refusal does not say what to do".to_owned());
    }
    Ok(())
}

/// What a repair has made: all that a start serves, or else all that it does not say is lost; and nothing else.
fn judge_repair(
    specimen: &Specimen,
    whole: &State,
    start: &Start,
    repair: &Ended,
    repaired: &Directory,
) -> Result<(), String> {
    let status = repair.status.code();
    let refused = matches!(start, Start::Refuses { .. });
    if status == Some(3) && (refused || whole.is_empty() || specimen.noted <= 1) && !repaired.path.exists() {
        // Nothing is left to be salvaged, or never was there; or a newer version is needed.
        let says_why = ["holds no log file", "start a newer kvlite"];
        let says_why = says_why.iter().any(|why| repair.output.contains(why));
        return says_why.then_some(()).ok_or_else(|| "a repair fails and does not say why".to_owned());
    }
    if status != Some(0) && !(refused && status == Some(1)) {
        return Err(format!("repair: {}", repair.status));
    }
    let found = match repaired.start(&specimen.ledger) {
        Start::Serves { found, .. } => found,
        Start::Refuses { why, log } => return Err(format!("no start on what was repaired: {why}\n{log}")),
    };
    let Specimen { ledger, noted, directory, .. } = specimen;
    ledger.invents_nothing(&found).map_err(|why| format!("a repair invents a value: {why}"))?;
    if let Start::Serves { found: served, .. } = start
        && let Some(difference) = difference(served, &found)
    {
        return Err(format!("a start and a repair differ: {difference}"));
    }
    let says_lost = repair.output.contains("  lost: ");
    if status == Some(0) && says_lost {
        return Err("repair: status 0, and something is lost".to_owned());
    }
    // A command of which parts are lost to damage is told by itself.
    let says_lost = says_lost || repair.output.contains(" are kept in part: ");
    // What a start may leave out at the end, a repair may as well.
    if let (Some(lost), Err(_)) = (difference(whole, &found), ledger.allows(&found, *noted, directory.shards))
        && !says_lost
    {
        return Err(format!("repair: {}, and no line says what is lost: {lost}", repair.status));
    }
    Ok(())
}
