//! Options that may change while the server runs, where every worker looks.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use shard::EventClasses;

use crate::config::{Config, OutputLimit, OutputLimits};

/// Options that may change while the server runs.
#[derive(Debug)]
pub struct Settings {
    output_limits: [[AtomicU64; 3]; 3],
    keyspace_events: AtomicU32,
}

impl Settings {
    /// As the server is started.
    pub(super) fn new(config: &Config) -> Settings {
        let settings = Settings {
            output_limits: Default::default(),
            keyspace_events: AtomicU32::new(config.notify_keyspace_events.bits()),
        };
        settings.set_output_limits(config.client_output_buffer_limit);
        settings
    }

    /// From now on so much may wait for clients.
    pub fn set_output_limits(&self, limits: OutputLimits) {
        for (places, limit) in self.output_limits.iter().zip(limits.classes) {
            let numbers = [limit.hard_bytes, limit.soft_bytes, limit.soft_s];
            places.iter().zip(numbers).for_each(|(place, number)| place.store(number, Ordering::Relaxed));
        }
    }

    /// From now on these events of keys are published. Each worker follows with its next turn, or message.
    pub fn set_keyspace_events(&self, classes: EventClasses) {
        self.keyspace_events.store(classes.bits(), Ordering::Relaxed);
    }

    /// Which events of keys are published.
    #[inline]
    pub fn keyspace_events(&self) -> EventClasses {
        EventClasses::from_bits(self.keyspace_events.load(Ordering::Relaxed))
    }

    /// How much may wait for clients.
    pub fn output_limits(&self) -> OutputLimits {
        OutputLimits { classes: [0, 1, 2].map(|class| self.output_limit(class)) }
    }

    /// How much may wait for a client that gets messages.
    pub fn subscriber_output_limit(&self) -> OutputLimit {
        self.output_limit(2)
    }

    fn output_limit(&self, class: usize) -> OutputLimit {
        let [hard_bytes, soft_bytes, soft_s] =
            [0, 1, 2].map(|place: usize| self.output_limits[class][place].load(Ordering::Relaxed));
        OutputLimit { hard_bytes, soft_bytes, soft_s }
    }
}
