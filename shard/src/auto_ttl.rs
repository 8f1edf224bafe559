//! The longest TTL of keys that are written without one, by what they are called.
//!
//! A write gets its deadline when it happens, and that is logged like any other: the reader of the log needs to know
//! nothing of this.

use crate::error::Error;
use crate::glob::{Glob, Matching};

/// The most rules.
pub const RULES_MAX: usize = 64;

/// So many steps of comparing a key with the patterns are taken at most: it happens with each write. A pattern for all
/// keys that begin alike takes as many as it has bytes.
const STEPS_MAX: usize = 1 << 16;

/// Rules in order; the first one whose pattern matches a key counts for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AutoTtl {
    rules: Vec<Rule>,
}

/// Keys that match the glob pattern live so long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The pattern.
    pub pattern: Box<[u8]>,
    glob: Glob,
    /// The TTL, in milliseconds; more than 0.
    pub ttl_ms: u64,
}

impl Rule {
    /// A rule.
    ///
    /// # Errors
    /// As [`Glob::new`].
    pub fn new(pattern: &[u8], ttl_ms: u64) -> Result<Rule, Error> {
        Ok(Rule { pattern: pattern.into(), glob: Glob::new(pattern)?, ttl_ms })
    }
}

impl AutoTtl {
    /// These rules, of which there are at most [`RULES_MAX`].
    pub fn new(rules: Vec<Rule>) -> AutoTtl {
        assert!(rules.len() <= RULES_MAX, "the reader of the rules bounds them");
        AutoTtl { rules }
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The same rules and this one, in place of one with the same pattern, else behind all others. `None` if there
    /// are too many.
    pub fn with(&self, rule: Rule) -> Option<AutoTtl> {
        let mut rules = self.rules.clone();
        match rules.iter().position(|known| known.pattern == rule.pattern) {
            Some(index) => rules[index] = rule,
            None => rules.push(rule),
        }
        (rules.len() <= RULES_MAX).then_some(AutoTtl { rules })
    }

    /// The deadline of a key that is written at `now_ms` without one.
    #[inline]
    pub(crate) fn deadline_ms(&self, key: &[u8], now_ms: u64) -> Option<u64> {
        if self.rules.is_empty() { None } else { self.matching(key).map(|ttl_ms| now_ms + ttl_ms) }
    }

    /// The TTL of the first rule that matches; `None` also where more than [`STEPS_MAX`] are needed to tell.
    fn matching(&self, key: &[u8]) -> Option<u64> {
        let mut steps = STEPS_MAX;
        for rule in &self.rules {
            if Matching::default().go_on(&rule.glob, key, &mut steps)? {
                return Some(rule.ttl_ms);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, ttl_ms: u64) -> Rule {
        Rule::new(pattern.as_bytes(), ttl_ms).unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rules = AutoTtl::new(vec![rule("session:admin:*", 5000), rule("session:*", 1000)]);
        assert_eq!(rules.deadline_ms(b"session:admin:1", 10), Some(5010));
        assert_eq!(rules.deadline_ms(b"session:1", 10), Some(1010));
        assert_eq!(rules.deadline_ms(b"user:1", 10), None);
        assert_eq!(AutoTtl::default().deadline_ms(b"session:1", 10), None);
    }

    #[test]
    fn a_key_that_takes_too_long_to_match_has_no_rule() {
        let nasty = rule(&format!("*{}b", "a".repeat(1000)), 1);
        let rules = AutoTtl::new(vec![rule("session:*", 3), nasty, rule("*", 2)]);
        assert_eq!(rules.deadline_ms(&b"a".repeat(50), 0), Some(2));
        assert_eq!(rules.deadline_ms(&b"a".repeat(1_000_000), 0), None);
        assert_eq!(
            rules.deadline_ms(&[b"session:".as_slice(), &b"a".repeat(1_000_000)].concat(), 0),
            Some(3)
        );
    }

    #[test]
    fn a_rule_takes_the_place_of_one_for_the_same_keys() {
        let rules = AutoTtl::new(vec![rule("a:*", 1), rule("b:*", 2)]);
        let changed = rules.with(rule("a:*", 3)).and_then(|rules| rules.with(rule("c:*", 4))).unwrap();
        assert_eq!(changed.rules(), [rule("a:*", 3), rule("b:*", 2), rule("c:*", 4)]);
        let full = AutoTtl::new((0..RULES_MAX as u64).map(|n| rule(&n.to_string(), 1)).collect());
        assert_eq!(full.with(rule("one more", 1)), None);
        assert!(full.with(rule("7", 9)).is_some());
    }
}
