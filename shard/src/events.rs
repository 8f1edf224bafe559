//! What happens to keys, for those who want to be told: events by their classes, and the changes of keys that clients
//! keep copies of.

/// The classes of events that are wanted, a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventClasses(u32);

impl EventClasses {
    /// Told to who asks for the key.
    pub const KEYSPACE: EventClasses = EventClasses(1 << 0);
    /// Told to who asks for the event.
    pub const KEYEVENT: EventClasses = EventClasses(1 << 1);
    /// Commands on keys, whatever their values are.
    pub const GENERIC: EventClasses = EventClasses(1 << 2);
    /// Commands on strings.
    pub const STRING: EventClasses = EventClasses(1 << 3);
    /// Keys that have expired.
    pub const EXPIRED: EventClasses = EventClasses(1 << 8);
    /// Keys that had to go for want of memory.
    pub const EVICTED: EventClasses = EventClasses(1 << 9);
    /// Reads of keys that do not exist.
    pub const MISS: EventClasses = EventClasses(1 << 12);
    /// Keys that are made.
    pub const NEW: EventClasses = EventClasses(1 << 13);
    /// For the server itself: any change of a key, without a name.
    pub const CHANGE: EventClasses = EventClasses(1 << 14);

    /// The letter of each class, in the order in which Redis shows them; those of `ALL` first.
    const LETTERS: [(EventClasses, char); 14] = [
        (EventClasses::GENERIC, 'g'),
        (EventClasses::STRING, '$'),
        (EventClasses(1 << 4), 'l'),
        (EventClasses(1 << 5), 's'),
        (EventClasses(1 << 6), 'h'),
        (EventClasses(1 << 7), 'z'),
        (EventClasses::EXPIRED, 'x'),
        (EventClasses::EVICTED, 'e'),
        (EventClasses(1 << 10), 't'),
        (EventClasses(1 << 11), 'd'),
        (EventClasses::NEW, 'n'),
        (EventClasses::KEYSPACE, 'K'),
        (EventClasses::KEYEVENT, 'E'),
        (EventClasses::MISS, 'm'),
    ];

    /// What the letter A stands for.
    const ALL: EventClasses = EventClasses(0b1111_1111_1100);

    /// The classes of these letters; `None` if one of them means nothing.
    pub fn parse(text: &str) -> Option<EventClasses> {
        text.chars().try_fold(EventClasses::default(), |classes, letter| {
            let class = match letter {
                'A' => EventClasses::ALL,
                _ => EventClasses::LETTERS.iter().find(|(_, known)| *known == letter)?.0,
            };
            Some(classes.with(class))
        })
    }

    /// Their letters, as Redis shows them.
    pub fn text(self) -> String {
        let has_all = self.has(EventClasses::ALL);
        let mut text = if has_all { "A".to_owned() } else { String::new() };
        // Redis shows no n behind an A.
        let is_in_all = |class: EventClasses| EventClasses::ALL.has(class) || class == EventClasses::NEW;
        let shown = EventClasses::LETTERS.iter().filter(|(class, _)| self.has(*class));
        text.extend(shown.filter(|(class, _)| !(has_all && is_in_all(*class))).map(|(_, letter)| letter));
        text
    }

    /// These and others.
    #[must_use]
    pub const fn with(self, other: EventClasses) -> EventClasses {
        EventClasses(self.0 | other.0)
    }

    /// These but for others.
    #[must_use]
    pub(crate) const fn without(self, other: EventClasses) -> EventClasses {
        EventClasses(self.0 & !other.0)
    }

    /// Whether all of these others are among them.
    #[inline]
    pub const fn has(self, other: EventClasses) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of these others is among them.
    #[inline]
    pub(crate) const fn has_any(self, other: EventClasses) -> bool {
        self.0 & other.0 != 0
    }

    /// As a number, from which [`EventClasses::from_bits`] makes them again.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The classes of such a number.
    pub const fn from_bits(bits: u32) -> EventClasses {
        EventClasses(bits)
    }

    /// What a shard has to tell of for these: nothing where no client could be told.
    #[must_use]
    pub const fn wanted(self) -> EventClasses {
        let is_told = self.has_any(EventClasses::KEYSPACE.with(EventClasses::KEYEVENT));
        if is_told { self } else { EventClasses(0) }
    }
}

/// Something that has happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// In a database, an event by its name, of a key.
    Named(u16, &'static str, Box<[u8]>),
    /// A change of a key, whatever it was.
    Changed(Box<[u8]>),
    /// All keys of a database are gone.
    Cleared,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_read_and_shown_as_in_redis() {
        let shown = |text| EventClasses::parse(text).map(EventClasses::text);
        for (text, expected) in [
            ("", ""),
            ("A", "A"),
            ("KEA", "AKE"),
            ("KEAn", "AKE"),
            ("g$KE", "g$KE"),
            ("nKE", "nKE"),
            ("m", "m"),
            ("mKE", "KEm"),
            ("lshzxetdg$", "A"),
            ("xKeEd", "xedKE"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!((shown("KQ"), shown("a")), (None, None));
        assert_eq!(EventClasses::parse("A").unwrap().wanted(), EventClasses::default());
        assert!(EventClasses::parse("Kg").unwrap().wanted().has(EventClasses::GENERIC));
    }
}
