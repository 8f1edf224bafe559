//! Classes of keys (`user:*`, `session:*`), learnt from the names of the keys: [`Classes`].
//!
//! A name is cut behind each `:`, `/` and `|`, or, if it has none of these, behind each `.`, `_` and `-`.
//! What stands before a cut is a *prefix*; the part behind the last cut tells keys apart and belongs to no
//! prefix. The class of a key is the longest prefix that seems to be shared for a reason:
//!
//! - a part that looks like a number, a hexadecimal hash or another made-up id ends the prefix before it: the
//!   class of `user:123:profile` is `user:*`, from the first key on;
//! - a prefix that more than [`FANOUT_MAX`] different parts were seen to follow becomes a class as a whole,
//!   with all that was counted below it: `user:alice:profile`, `user:bob:profile` and so on end up in
//!   `user:*`, while `app:user:*` and `app:order:*` stay apart.
//!
//! At most [`CLASSES_MAX`] classes are told apart. Which ones is found by counting up and down (Misra and
//! Gries, "Finding Repeated Elements", 1982): a key learnt from gives its class a point; a key of a new class
//! that finds no place costs every class a point, and a class without points gives its place up. A class with
//! more than one in `CLASSES_MAX` of the keys that were learnt from is thus always there in the end. Keys
//! without a cut and those of classes that found no place, or lost it, are counted in [`OTHER`].
//!
//! To learn from a key, or to find its class, takes a hash and a look-up for each part of its name: for
//! sampled operations, not for every one.

use ahash::RandomState;
use hashbrown::HashTable;

use super::class_id::{ClassId, OTHER_ID};
use super::intervals::Histogram;

/// The most classes that are told apart, the rest not counted.
pub const CLASSES_MAX: usize = 256;
/// The name of the class of all keys without another one. All other names end with a star.
pub const OTHER: &[u8] = b"other";
/// So many different parts may follow a prefix before it becomes a class as a whole.
pub const FANOUT_MAX: u32 = 32;

/// Prefixes are learnt up to this length, in bytes, and this number of parts.
const PREFIX_LEN_MAX: usize = 64;
const PARTS_MAX: usize = 6;
/// Longer parts count as made up.
const PART_LEN_MAX: usize = 32;
/// Parts of at least this length count as made up if a quarter of them are digits.
const ID_LEN_MIN: usize = 8;
/// The bits of an id that name a place; the others count how often the place was given up.
const PLACE_BITS: u32 = 9;

/// What a byte is to a name: a bit each.
const DIGIT: u8 = 1;
const LETTER_OF_HASH: u8 = 2;
const STRONG_CUT: u8 = 4;
const WEAK_CUT: u8 = 8;
static KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'0'..=b'9' => DIGIT,
            b'a'..=b'f' | b'A'..=b'F' => LETTER_OF_HASH,
            b':' | b'/' | b'|' => STRONG_CUT,
            b'.' | b'_' | b'-' => WEAK_CUT,
            _ => 0,
        };
        byte += 1;
    }
    kinds
};

/// What is known of a class. Its user counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// The beginning that its keys share and a star, or [`OTHER`].
    pub name: Vec<u8>,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Times between two uses of a key, in milliseconds.
    pub intervals: Histogram,
    /// TTLs that keys were given, in milliseconds.
    pub ttls: Histogram,
}

/// The classes of one shard's keys.
#[derive(Debug)]
pub struct Classes {
    /// The first place is that of the rest, which is never given up.
    places: Vec<Place>,
    /// The points of each place.
    points: Vec<u32>,
    free: Vec<u16>,
    nodes: HashTable<Node>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Place {
    id: ClassId,
    class: Option<Box<Class>>,
}

/// A prefix that was learnt.
#[derive(Debug)]
struct Node {
    prefix: Box<[u8]>,
    /// Where it is counted, if keys of this very prefix were seen.
    place: Option<u16>,
    /// The number of learnt prefixes that are longer by one part.
    children: u32,
    /// Whether it is a class as a whole, and has no children any more.
    whole: bool,
}

/// What the name of a key says of its class.
struct Walk {
    /// The longest prefix that was learnt, 0 for none, and the one that the class has.
    known: usize,
    wanted: usize,
    place: Option<u16>,
}

impl Default for Classes {
    fn default() -> Self {
        let other = Place { id: OTHER_ID, class: Some(Box::new(Class::new(OTHER.to_vec()))) };
        Classes {
            places: vec![other],
            points: vec![0],
            free: Vec::new(),
            nodes: HashTable::new(),
            // Learnt prefixes are so few that no client can make their table slow.
            hasher: RandomState::with_seeds(1, 2, 3, 4),
        }
    }
}

impl Classes {
    /// The class of a key, which is learnt from.
    pub fn learn(&mut self, key: &[u8]) -> ClassId {
        let walk = self.walk(key);
        let place = match walk.place {
            Some(place) => place,
            None if walk.wanted == 0 => return OTHER_ID,
            None => match self.add(key, &walk) {
                Some(place) => place,
                None => return OTHER_ID,
            },
        };
        self.points[usize::from(place)] = self.points[usize::from(place)].saturating_add(1);
        self.places[usize::from(place)].id
    }

    /// The class of a key. Learns nothing.
    pub fn find(&self, key: &[u8]) -> ClassId {
        self.walk(key).place.map_or(OTHER_ID, |place| self.places[usize::from(place)].id)
    }

    /// A class; that of the rest, if this one was given up.
    pub fn class(&self, id: ClassId) -> &Class {
        self.places[self.place(id)].class.as_ref().expect("a place with an id in use has a class")
    }

    /// A class, to count in; that of the rest, if this one was given up.
    pub fn class_mut(&mut self, id: ClassId) -> &mut Class {
        let place = self.place(id);
        self.places[place].class.as_mut().expect("a place with an id in use has a class")
    }

    /// All classes, that of the rest first.
    pub fn iter(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        self.places.iter().filter_map(|place| Some((place.id, place.class.as_deref()?)))
    }

    /// All classes with their points, and whether each is one as a whole, for keeping; that of the rest first.
    pub fn kept(&self) -> impl Iterator<Item = (&Class, u32, bool)> {
        self.places.iter().zip(&self.points).filter_map(|(place, points)| {
            let class = place.class.as_deref()?;
            let prefix = class.name.strip_suffix(b"*").unwrap_or_default();
            Some((class, *points, self.node(prefix).is_some_and(|node| node.whole)))
        })
    }

    /// Adds a class that was kept. One whose name no key leads to, or that finds no place, is added to the rest.
    pub fn restore(&mut self, kept: &Class, points: u32, whole: bool) {
        let mut place = 0;
        if let Some(prefix) = kept.name.strip_suffix(b"*") {
            // A part that tells keys apart makes a key of the class.
            let id = self.learn(&[prefix, b"0"].concat());
            if self.class(id).name == kept.name {
                place = self.place(id);
                self.points[place] = self.points[place].max(points);
                let node = self.node_mut(prefix).expect("a class has a prefix");
                node.whole |= whole && node.children == 0;
            }
        }
        self.places[place].class.as_mut().expect("it was found, or is the rest's").add(kept);
    }

    /// Forgets all classes.
    pub fn clear(&mut self) {
        *self = Classes::default();
    }

    /// The memory that is held, in bytes. At most 1 MiB.
    pub fn memory_bytes(&self) -> usize {
        let classes = self.iter().map(|(_, class)| size_of::<Class>() + class.name.capacity());
        let prefixes = self.nodes.iter().map(|node| node.prefix.len());
        classes.chain(prefixes).sum::<usize>()
            + self.places.capacity() * size_of::<Place>()
            + self.points.capacity() * size_of::<u32>()
            + self.free.capacity() * size_of::<u16>()
            + self.nodes.allocation_size()
    }

    fn place(&self, id: ClassId) -> usize {
        let place = (id.0 & ((1 << PLACE_BITS) - 1)) as usize;
        self.places.get(place).filter(|held| held.id == id && held.class.is_some()).map_or(0, |_| place)
    }

    fn walk(&self, key: &[u8]) -> Walk {
        let mut walk = Walk { known: 0, wanted: 0, place: None };
        for end in prefix_ends(key) {
            if looks_made_up(&key[walk.wanted..end - 1]) {
                break;
            }
            if walk.known == walk.wanted
                && let Some(node) = self.node(&key[..end])
            {
                walk = Walk { known: end, wanted: end, place: node.place };
                if node.whole {
                    break;
                }
            } else {
                (walk.wanted, walk.place) = (end, None);
            }
        }
        walk
    }

    /// Learns the prefix of a class that has no place, and makes one.
    fn add(&mut self, key: &[u8], walk: &Walk) -> Option<u16> {
        let (mut prefix, mut below) = (&key[..walk.known], None);
        for end in prefix_ends(key).filter(|end| *end > walk.known && *end <= walk.wanted) {
            if let Some(parent) = self.node_mut(prefix) {
                parent.children += 1;
                if parent.children > FANOUT_MAX {
                    below = Some(self.make_whole(prefix));
                    break;
                }
            }
            prefix = &key[..end];
            self.insert(Node { prefix: prefix.into(), place: None, children: 0, whole: false });
        }
        let node = self.node_mut(prefix).expect("it was learnt before, or just now");
        let place = match node.place {
            Some(place) => Some(place),
            None => {
                node.children += 1; // Keeps it while another class is given up.
                let place = self.take_place();
                let node = self.node_mut(prefix).expect("it has a child");
                node.children -= 1;
                node.place = place;
                place
            }
        };
        match place {
            Some(place) => {
                let class = &mut self.places[usize::from(place)].class;
                class.get_or_insert_with(|| Box::new(Class::new([prefix, b"*"].concat())));
            }
            None => self.prune(prefix),
        }
        if let Some((class, points)) = below {
            let place = usize::from(place.unwrap_or(0));
            self.places[place].class.as_mut().expect("it has just been made").add(&class);
            self.points[place] = self.points[place].saturating_add(points);
        }
        place
    }

    /// Makes a prefix a class as a whole: longer ones are forgotten. What was counted in their classes, and
    /// their points.
    fn make_whole(&mut self, prefix: &[u8]) -> (Class, u32) {
        let mut below = Vec::new();
        self.nodes.retain(|node| {
            let keep = node.prefix.len() <= prefix.len() || !node.prefix.starts_with(prefix);
            below.extend(node.place.filter(|_| !keep));
            keep
        });
        let node = self.node_mut(prefix).expect("what has children was learnt");
        (node.whole, node.children) = (true, 0);
        let (mut sum, mut points) = (Class::new(Vec::new()), 0u32);
        for place in below {
            points = points.saturating_add(self.points[usize::from(place)]);
            sum.add(&self.vacate(place));
        }
        (sum, points)
    }

    /// A place without a class. If there is none, a class without points gives its place up; if none is
    /// without, each loses one.
    fn take_place(&mut self) -> Option<u16> {
        if self.free.is_empty() && self.places.len() <= CLASSES_MAX {
            let place = self.places.len() as u16;
            self.places.push(Place { id: ClassId(u32::from(place)), class: None });
            self.points.push(0);
            return Some(place);
        }
        if self.free.is_empty() {
            let Some(place) = (1..self.points.len()).find(|place| self.points[*place] == 0) else {
                self.points.iter_mut().for_each(|points| *points = points.saturating_sub(1));
                return None;
            };
            let class = self.vacate(place as u16);
            let prefix = &class.name[..class.name.len() - 1];
            self.node_mut(prefix).expect("a class has a prefix").place = None;
            self.prune(prefix);
            self.places[0].class.as_mut().expect("the rest has a class").add(&class);
        }
        self.free.pop()
    }

    /// Takes the class out of a place, whose id no longer names it.
    fn vacate(&mut self, place: u16) -> Class {
        let held = &mut self.places[usize::from(place)];
        held.id = ClassId(held.id.0.wrapping_add(1 << PLACE_BITS));
        self.points[usize::from(place)] = 0;
        self.free.push(place);
        *held.class.take().expect("a place that is taken has a class")
    }

    /// Forgets a prefix that leads to no class, and those that lead to it only.
    fn prune(&mut self, prefix: &[u8]) {
        let mut prefix = prefix;
        while let Ok(node) =
            self.nodes.find_entry(self.hasher.hash_one(prefix), |node| *node.prefix == *prefix)
            && node.get().place.is_none()
            && node.get().children == 0
        {
            node.remove();
            let parent_end = prefix_ends(prefix).filter(|end| *end < prefix.len()).last().unwrap_or(0);
            prefix = &prefix[..parent_end];
            if let Some(parent) = self.node_mut(prefix) {
                parent.children -= 1;
            }
        }
    }

    fn node(&self, prefix: &[u8]) -> Option<&Node> {
        self.nodes.find(self.hasher.hash_one(prefix), |node| *node.prefix == *prefix)
    }

    fn node_mut(&mut self, prefix: &[u8]) -> Option<&mut Node> {
        self.nodes.find_mut(self.hasher.hash_one(prefix), |node| *node.prefix == *prefix)
    }

    fn insert(&mut self, node: Node) {
        let hash = |node: &Node| self.hasher.hash_one(&*node.prefix);
        self.nodes.insert_unique(hash(&node), node, hash);
    }
}

impl Class {
    /// A class of this name that has counted nothing.
    pub fn new(name: Vec<u8>) -> Self {
        Class {
            name,
            reads: 0,
            writes: 0,
            hits: 0,
            misses: 0,
            intervals: Histogram::default(),
            ttls: Histogram::default(),
        }
    }

    /// Adds what another class has counted: one of the same name, in another shard, or of a part of the keys.
    pub fn add(&mut self, other: &Class) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.hits += other.hits;
        self.misses += other.misses;
        self.intervals.add(&other.intervals);
        self.ttls.add(&other.ttls);
    }
}

/// The ends of the prefixes of a name, the shortest first.
fn prefix_ends(key: &[u8]) -> impl Iterator<Item = usize> {
    let start = &key[..key.len().min(PREFIX_LEN_MAX)];
    let kind = |byte: &u8| KINDS[usize::from(*byte)];
    let cut = if start.iter().any(|byte| kind(byte) & STRONG_CUT != 0) { STRONG_CUT } else { WEAK_CUT };
    let cuts = start.iter().enumerate().filter(move |(_, byte)| kind(byte) & cut != 0);
    cuts.map(|(index, _)| index + 1).take(PARTS_MAX)
}

/// Whether a part of a name is a number, a hash or the like, rather than a word.
fn looks_made_up(part: &[u8]) -> bool {
    let (mut digits, mut hexadecimal) = (0, true);
    for byte in part {
        let kind = KINDS[usize::from(*byte)];
        digits += usize::from(kind & DIGIT);
        hexadecimal &= kind & (DIGIT | LETTER_OF_HASH) != 0;
    }
    part.len() > PART_LEN_MAX
        || digits * 2 > part.len()
        || (part.len() >= ID_LEN_MIN && digits > 0 && (hexadecimal || digits * 4 >= part.len()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn class_of(classes: &mut Classes, key: &str) -> String {
        let id = classes.learn(key.as_bytes());
        assert_eq!(classes.find(key.as_bytes()), id);
        String::from_utf8(classes.class(id).name.clone()).unwrap()
    }

    fn names(classes: &Classes) -> Vec<String> {
        let name = |class: &Class| String::from_utf8_lossy(&class.name).into_owned();
        let mut names: Vec<_> = classes.iter().map(|(_, class)| name(class)).collect();
        names.sort();
        names
    }

    /// Every prefix leads to a class, and is counted by its parent.
    fn check(classes: &Classes) {
        let mut children: BTreeMap<&[u8], u32> = BTreeMap::new();
        let mut places = 0;
        for node in &classes.nodes {
            let parent_end = prefix_ends(&node.prefix).filter(|end| *end < node.prefix.len()).last();
            *children.entry(&node.prefix[..parent_end.unwrap_or(0)]).or_default() += 1;
            assert!(node.place.is_some() || node.children > 0);
            if let Some(place) = node.place {
                places += 1;
                let name = [&node.prefix, &b"*"[..]].concat();
                assert_eq!(classes.places[usize::from(place)].class.as_ref().unwrap().name, name);
            }
        }
        for node in &classes.nodes {
            assert_eq!(node.children, children.get(&*node.prefix).copied().unwrap_or(0));
            assert!(node.children <= FANOUT_MAX && (node.children == 0 || !node.whole));
        }
        assert_eq!(classes.iter().count(), places + 1);
        assert_eq!(classes.places.len(), places + 1 + classes.free.len());
        assert!(places <= CLASSES_MAX);
    }

    #[test]
    fn names_tell_classes() {
        let mut classes = Classes::default();
        for (key, class) in [
            ("user:123", "user:*"),
            ("user:123:profile", "user:*"),
            ("user:alice", "user:*"),
            ("app:order:77", "app:order:*"),
            ("app:cart:550e8400-e29b-41d4-a716-446655440000", "app:cart:*"),
            ("page/shop/5f3a9c2b11/en", "page/shop/*"),
            ("user_profile:42", "user_profile:*"),
            ("cache.v2.item-7", "cache.v2.item-*"),
            ("session_9f86d081", "session_*"),
            ("{tenant}:a:1", "{tenant}:a:*"),
            ("counter", "other"),
            ("2024:sales", "other"),
            ("", "other"),
            (":", ":*"),
        ] {
            assert_eq!(class_of(&mut classes, key), class, "{key}");
            check(&classes);
        }
    }

    #[test]
    fn a_prefix_of_many_parts_becomes_a_class_as_a_whole() {
        let mut classes = Classes::default();
        let letters = |number: u32| {
            char::from(b'a' + number as u8 / 6).to_string() + "xyzuvw".split_at(number as usize % 6).0
        };
        for number in 0..FANOUT_MAX {
            let class = class_of(&mut classes, &format!("app:user:{}:mail", letters(number)));
            assert_eq!(class, format!("app:user:{}:*", letters(number)));
            let id = classes.learn(format!("app:user:{}:mail", letters(number)).as_bytes());
            classes.class_mut(id).reads += 2;
        }
        let before = classes.learn(b"app:user:a:mail");
        assert_eq!(class_of(&mut classes, "app:user:zoe:mail"), "app:user:*");
        check(&classes);
        assert_eq!(names(&classes), ["app:user:*", "other"]);
        assert_eq!(classes.class(before).name, OTHER, "the class is gone");
        let id = classes.find(b"app:user:never seen:mail");
        assert_eq!(classes.class(id).reads, u64::from(2 * FANOUT_MAX), "nothing that was counted is lost");
    }

    #[test]
    fn frequent_classes_stay_among_any_number_of_others() {
        let mut classes = Classes::default();
        let mut total = 0;
        for number in 0..20_000u32 {
            let name = format!(
                "{}{}:1",
                char::from(b'a' + (number % 26) as u8),
                "q".repeat((number / 26 % 30) as usize)
            );
            for key in [&format!("x{name}"), "often:1"] {
                let id = classes.learn(key.as_bytes());
                classes.class_mut(id).writes += 1;
                total += 1;
            }
        }
        check(&classes);
        assert!(names(&classes).contains(&"often:*".to_owned()));
        assert_eq!(classes.iter().map(|(_, class)| class.writes).sum::<u64>(), total);
        assert!(classes.memory_bytes() < 1 << 20, "{} bytes", classes.memory_bytes());
    }

    #[test]
    fn a_class_that_becomes_frequent_takes_the_place_of_one_that_is_not() {
        let mut classes = Classes::default();
        let letters = |number: usize| [number / 26, number % 26].map(|digit| char::from(b'a' + digit as u8));
        for number in 0..=CLASSES_MAX {
            let [first, second] = letters(number);
            // Each beneath one of a few words, so that none of these has too many.
            classes.learn(format!("{first}:{second}:1").as_bytes());
        }
        assert!(classes.iter().count() > CLASSES_MAX - 1, "{} classes", classes.iter().count());
        (0..3).for_each(|_| drop(class_of(&mut classes, "often:1")));
        assert_eq!(class_of(&mut classes, "often:1"), "often:*");
        check(&classes);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn learning_keeps_the_tree_in_order(
            keys in proptest::collection::vec("([a-h]{1,2}[:._]){0,4}[a-c]", 1..300),
        ) {
            let (mut classes, mut twin) = (Classes::default(), Classes::default());
            let mut total = 0;
            for key in &keys {
                let id = classes.learn(key.as_bytes());
                prop_assert_eq!(twin.learn(key.as_bytes()), id);
                classes.class_mut(id).reads += 1;
                total += 1;
            }
            check(&classes);
            prop_assert_eq!(classes.iter().map(|(_, class)| class.reads).sum::<u64>(), total);
        }
    }
}
