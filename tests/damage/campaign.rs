//! All cases: which specimen, which damage, what became of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tempfile::TempDir;

use crate::harm::{Done, HARMS, Harm, PARTS, Part};
use crate::ledger::State;
use crate::program::{Start, content, copy_all, scratch};
use crate::random::Random;
use crate::specimen::Specimen;
use crate::verdicts::{Outcome, judge};

/// Cases of a test run, and of one specimen.
const CASES: u64 = 336;
const CASES_PER_SPECIMEN: u64 = 16;
/// Servers rest while a specimen is written: others work meanwhile.
const THREADS_PER_CPU: usize = 6;
/// One case in so many has two damages.
const SECOND_DAMAGE: u64 = 6;
/// How often a damage is looked for that can be done to a specimen.
const TRIES: u64 = 200;
/// A campaign stops after so many failures.
const FAILURES_MAX: usize = 20;

/// How often what was done to what, and what became of it.
type Counts = BTreeMap<(Part, Harm), BTreeMap<Outcome, u64>>;

#[derive(Default)]
struct Findings {
    counts: Counts,
    /// The cases of each kind of specimen.
    origins: BTreeMap<String, u64>,
    failures: usize,
}

impl Findings {
    /// A long campaign tells at once.
    fn add_failure(&mut self, failure: &str) {
        println!("\nFAILED: {failure}\n");
        self.failures += 1;
    }
}

#[test]
fn no_damage_is_silently_wrong() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let first_seed = number("KVLITE_TEST_SEED").unwrap_or(1);
    let only_case = number("KVLITE_DAMAGE_CASE");
    let cases = number("KVLITE_DAMAGE_CASES").unwrap_or(CASES);
    let specimens = if only_case.is_some() { 1 } else { cases.div_ceil(CASES_PER_SPECIMEN) };

    let findings = Mutex::new(Findings::default());
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= specimens || findings.lock().unwrap().failures >= FAILURES_MAX {
                return;
            }
            let seed = first_seed + index;
            println!("specimen {} of {specimens}: KVLITE_TEST_SEED={seed}", index + 1);
            let examined = catch_unwind(AssertUnwindSafe(|| examine(seed, only_case, &findings)));
            if let Err(panic) = examined {
                let failure = format!("KVLITE_TEST_SEED={seed}: {}", message(&*panic));
                findings.lock().unwrap().add_failure(&failure);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from) * THREADS_PER_CPU;
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));

    let Findings { counts, origins, failures } = findings.into_inner().unwrap();
    println!("{}{}", of_origins(&origins), of_damages(&counts));
    assert_eq!(failures, 0, "so many cases failed, as told above");
    assert!(cases < CASES || only_case.is_some() || counts.len() > 40, "most kinds of damage were done");
}

/// Lets a specimen be written, and damages copies of it.
fn examine(seed: u64, only_case: Option<u64>, findings: &Mutex<Findings>) {
    let mut random = Random::seeded(seed);
    let specimen = Specimen::prepare(&mut random);
    let copy = scratch();
    let undamaged = specimen.directory.copy(&copy.path().join("data"));
    let whole = match undamaged.start(&specimen.ledger) {
        Start::Serves { found, .. } => found,
        Start::Refuses { why, log } => panic!("without any damage: {why}{}\n{log}", specimen.story),
    };
    if let Err(why) = specimen.ledger.allows(&whole, specimen.safe, specimen.directory.shards) {
        panic!("without any damage: {why}{}", specimen.story);
    }
    for case in only_case.map_or(0..CASES_PER_SPECIMEN, |case| case..case + 1) {
        let place = scratch();
        let damaged = place.path().join("data");
        let mut done = Vec::new();
        let judged = catch_unwind(AssertUnwindSafe(|| {
            done = damage(&specimen, seed, case, &damaged);
            judge(&specimen, &whole, &damaged, &done)
        }));
        let judged = judged.unwrap_or_else(|panic| Err(message(&*panic)));
        let mut findings = findings.lock().unwrap();
        match judged {
            Ok(outcome) => {
                *findings.origins.entry(specimen.origin.clone()).or_default() += 1;
                for done in &done {
                    let counts = findings.counts.entry((done.part, done.harm)).or_default();
                    *counts.entry(outcome).or_default() += 1;
                }
            }
            Err(why) => findings.add_failure(&failure(&specimen, &whole, seed, case, &done, &why)),
        }
    }
}

/// Does the damage of a case to a copy of the specimen. The kinds take turns; what cannot be done to this specimen
/// is left to others.
fn damage(specimen: &Specimen, seed: u64, case: u64, damaged: &Path) -> Vec<Done> {
    let mut random = Random::seeded(seed << 20 | case);
    let pairs = PARTS.into_iter().flat_map(|part| HARMS.map(|harm| (part, harm)));
    let pairs: Vec<_> = pairs.filter(|(part, harm)| harm.befalls(*part)).collect();
    let turn = (seed * CASES_PER_SPECIMEN + case) as usize;
    let wanted = if random.below(SECOND_DAMAGE) == 0 { 2 } else { 1 };
    let mut done: Vec<Done> = Vec::new();
    copy_all(&specimen.directory.path, damaged);
    for attempt in 0..TRIES {
        let (part, harm) = if attempt == 0 { pairs[turn % pairs.len()] } else { random.one_of(&pairs) };
        if part.vouches() && done.iter().any(|done| done.part.vouches()) {
            continue;
        }
        let before = content(damaged);
        let harmed = harm.befall(part, damaged, &specimen.older, &mut random);
        done.extend(harmed.filter(|_| content(damaged) != before));
        if done.len() == wanted {
            break;
        }
    }
    done
}

fn failure(specimen: &Specimen, whole: &State, seed: u64, case: u64, done: &[Done], why: &str) -> String {
    let kept = TempDir::with_prefix("kvlite-damage-failed-").unwrap().keep();
    copy_all(&specimen.directory.path, &kept.join("before"));
    damage(specimen, seed, case, &kept.join("damaged"));
    let mut text = format!("{why}\n--- the damage:");
    done.iter().for_each(|done| write!(text, "\n  {done}").unwrap());
    let Specimen { story, safe, noted, ledger, directory, .. } = specimen;
    write!(
        text,
        "\n--- the directory:{story}\n  {} keys of {} steps, safe are {safe}, noted {noted}; boot {:?}\n\
         --- kept: {}\n\
         --- again: KVLITE_TEST_SEED={seed} KVLITE_DAMAGE_CASE={case} cargo test --workspace --test damage",
        whole.len(),
        ledger.steps(),
        directory.boot,
        kept.display()
    )
    .unwrap();
    text
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied()).unwrap_or("a panic without a message").to_owned()
}

fn of_origins(origins: &BTreeMap<String, u64>) -> String {
    let mut table = format!("{:40} {:>7}\n", "directory", "cases");
    for (origin, cases) in origins {
        writeln!(table, "{origin:40} {cases:7}").unwrap();
    }
    table
}

fn of_damages(counts: &Counts) -> String {
    let mut table =
        format!("\n{:15} {:10} {:>7} {:>9} {:>8}\n", "part", "damage", "whole", "end lost", "refused");
    for ((part, harm), outcomes) in counts {
        let count = |outcome| outcomes.get(&outcome).copied().unwrap_or(0);
        let (part, harm) = (format!("{part:?}"), format!("{harm:?}"));
        let [whole, lost, refused] = [Outcome::Whole, Outcome::EndLost, Outcome::Refused].map(count);
        writeln!(table, "{part:15} {harm:10} {whole:7} {lost:9} {refused:8}").unwrap();
    }
    table
}
