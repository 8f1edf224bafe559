//! How much may wait for a client until it is disconnected.

use super::units::{InvalidValue, size};

/// The classes of clients, as their limits show them.
const CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];

/// How much may wait for the clients of a class; 0 for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// A client for which more bytes wait is disconnected at once.
    pub hard_bytes: u64,
    /// A client for which more bytes wait is disconnected after a time.
    pub soft_bytes: u64,
    /// That time, in seconds.
    pub soft_s: u64,
}

/// The limits of all classes of clients. That of subscribers counts: normal clients are not served further before much
/// waits for them, and there are no replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimits {
    /// Of normal clients, of replicas, and of subscribers.
    pub classes: [OutputLimit; 3],
}

impl Default for OutputLimits {
    fn default() -> Self {
        let mib = |count: u64| count << 20;
        OutputLimits {
            classes: [
                OutputLimit::default(),
                OutputLimit { hard_bytes: mib(256), soft_bytes: mib(64), soft_s: 60 },
                OutputLimit { hard_bytes: mib(32), soft_bytes: mib(8), soft_s: 60 },
            ],
        }
    }
}

impl OutputLimits {
    /// These limits, with others for the classes that a text names: a class, its two limits in bytes, and the seconds
    /// of the second one, for each.
    ///
    /// # Errors
    /// [`InvalidValue::OutputLimits`]
    pub fn with(mut self, text: &str) -> Result<OutputLimits, InvalidValue> {
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        let (limits, []) = words.as_chunks::<4>() else { return Err(InvalidValue::OutputLimits) };
        for [class, hard, soft, seconds] in limits {
            let class = if class.eq_ignore_ascii_case("replica") { "slave" } else { class };
            let class = CLASSES.iter().position(|known| known.eq_ignore_ascii_case(class));
            let limit = || {
                let soft_s = seconds.parse().ok()?;
                Some(OutputLimit { hard_bytes: size(hard).ok()?, soft_bytes: size(soft).ok()?, soft_s })
            };
            self.classes[class.ok_or(InvalidValue::OutputLimits)?] =
                limit().ok_or(InvalidValue::OutputLimits)?;
        }
        Ok(self)
    }

    /// All classes with their limits, in bytes and seconds.
    pub fn text(&self) -> String {
        let of_class = |(class, limit): (&str, &OutputLimit)| {
            format!("{class} {} {} {}", limit.hard_bytes, limit.soft_bytes, limit.soft_s)
        };
        CLASSES.into_iter().zip(&self.classes).map(of_class).collect::<Vec<_>>().join(" ")
    }
}

/// Reads limits; the classes that are not named have those of [`OutputLimits::default`].
pub(super) fn output_limits(text: &str) -> Result<OutputLimits, InvalidValue> {
    OutputLimits::default().with(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_class_by_class_and_the_others_stay() {
        let shown = |text| output_limits(text).map(|limits| limits.text());
        let default = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(shown("").unwrap(), default);
        assert_eq!(shown(default).unwrap(), default);
        let other = "normal 0 0 0 slave 268435456 67108864 60 pubsub 1048576 2048 10";
        assert_eq!(shown("PubSub 1mb 2k 10").unwrap(), other);
        assert_eq!(shown("replica 256mb 64mb 60 pubsub 1m 2kb 10").unwrap(), other);
        for wrong in ["pubsub 1mb", "other 1 1 1", "pubsub x 1 1", "pubsub 1 x 1", "pubsub 1 1 x"] {
            assert_eq!(shown(wrong), Err(InvalidValue::OutputLimits), "{wrong}");
        }
    }
}
