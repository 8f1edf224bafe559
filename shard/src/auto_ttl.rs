//! The longest time to live of keys that are written without one, by what they are called.
//!
//! A write gets its deadline when it happens, and that is logged like any other: whoever reads the log needs to know
//! nothing of this.

use crate::glob;

/// The most rules.
pub const RULES_MAX: usize = 64;

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
    /// The time to live, in milliseconds; more than 0.
    pub ttl_ms: u64,
}

impl AutoTtl {
    /// These rules, of which there are at most [`RULES_MAX`].
    pub fn new(rules: Vec<Rule>) -> AutoTtl {
        assert!(rules.len() <= RULES_MAX, "whoever reads rules bounds them");
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

    fn matching(&self, key: &[u8]) -> Option<u64> {
        self.rules.iter().find(|rule| glob::matches(&rule.pattern, key)).map(|rule| rule.ttl_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, ttl_ms: u64) -> Rule {
        Rule { pattern: pattern.as_bytes().into(), ttl_ms }
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
    fn a_rule_takes_the_place_of_one_for_the_same_keys() {
        let rules = AutoTtl::new(vec![rule("a:*", 1), rule("b:*", 2)]);
        let changed = rules.with(rule("a:*", 3)).and_then(|rules| rules.with(rule("c:*", 4))).unwrap();
        assert_eq!(changed.rules(), [rule("a:*", 3), rule("b:*", 2), rule("c:*", 4)]);
        let full = AutoTtl::new((0..RULES_MAX as u64).map(|n| rule(&n.to_string(), 1)).collect());
        assert_eq!(full.with(rule("one more", 1)), None);
        assert!(full.with(rule("7", 9)).is_some());
    }
}
