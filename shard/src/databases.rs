//! The databases of a shard. A keyspace has a number for ever, by which the log and the snapshots name it; a database is
//! a client's name for one. `SWAPDB` gives two keyspaces to each other's databases and touches no key. At first every
//! database is the keyspace of its own number.
//!
//! One keyspace is where commands work; it stands in [`Parts`](crate::context::Parts), so that a shard of which one
//! database is used pays for no other. Those that were worked in before rest here.

use crate::error::Error;
use crate::integer;
use crate::store::keyspace::Keyspace;

/// The most databases that there can be.
pub const DATABASES_MAX: u16 = 1024;

/// How many databases there are unless the server says otherwise.
pub const DATABASES_DEFAULT: u16 = 16;

/// The database of which it is followed how its keys are used.
pub(crate) const ANALYSED: u16 = 0;

/// Refuses a question about how the keys of another database are used.
///
/// # Errors
/// [`Error::Unavailable`]
pub(crate) fn expect_analysed(database: u16) -> Result<(), Error> {
    if database == ANALYSED {
        return Ok(());
    }
    Err(Error::Unavailable("only how the keys of database 0 are used is known: SELECT 0 first"))
}

/// Reads the number of one of `count` databases.
///
/// # Errors
/// [`Error::InvalidDbIndex`], [`Error::DbIndexOutOfRange`]; [`Error::OutOfRange`] where it has more than 32 bits.
pub fn parse_database(text: &[u8], count: u16) -> Result<u16, Error> {
    let number = integer::parse(text).ok_or(Error::InvalidDbIndex)?;
    if i32::try_from(number).is_err() {
        return Err(Error::OutOfRange(
            "value is out of range, value must between -2147483648 and 2147483647",
        ));
    }
    u16::try_from(number).ok().filter(|number| *number < count).ok_or(Error::DbIndexOutOfRange)
}

/// The keyspaces that rest, and which keyspace each database is.
#[derive(Debug)]
pub(crate) struct Databases {
    /// How many there are.
    pub(crate) count: u16,
    /// The number of the keyspace in which commands work.
    pub(crate) working: u16,
    /// The numbers of the databases' keyspaces, a permutation; those behind the end are their own.
    keyspaces: Vec<u16>,
    /// The keyspaces that are not worked in, with their numbers. There is none that never was.
    resting: Vec<(u16, Keyspace)>,
}

impl Databases {
    pub(crate) fn new(count: u16) -> Databases {
        Databases { count, working: 0, keyspaces: Vec::new(), resting: Vec::new() }
    }

    /// The number of a database's keyspace.
    pub(crate) fn keyspace(&self, database: u16) -> u16 {
        self.keyspaces.get(usize::from(database)).copied().unwrap_or(database)
    }

    /// The database that a keyspace is.
    pub(crate) fn database(&self, keyspace: u16) -> u16 {
        let found = self.keyspaces.iter().position(|it| *it == keyspace);
        found.map_or(keyspace, |database| database as u16)
    }

    /// Gives each of two databases the keyspace of the other.
    pub(crate) fn swap(&mut self, one: u16, other: u16) {
        let len = self.keyspaces.len() as u16;
        self.keyspaces.extend(len..=one.max(other));
        self.keyspaces.swap(one.into(), other.into());
    }

    /// The numbers of the databases' keyspaces; those behind the end are their own.
    pub(crate) fn keyspaces(&self) -> &[u16] {
        &self.keyspaces
    }

    /// Says which keyspaces the databases are; a permutation.
    pub(crate) fn set_keyspaces(&mut self, keyspaces: impl Iterator<Item = u16>) {
        self.keyspaces = keyspaces.collect();
    }

    /// Makes sure that there is a keyspace of this number, one like the one that is worked in.
    pub(crate) fn expect(&mut self, number: u16, worked_in: &Keyspace) {
        if number != self.working && self.resting.iter().all(|(resting, _)| *resting != number) {
            self.resting.push((number, worked_in.empty()));
        }
    }

    /// Has commands work in another keyspace than `worked_in`, which rests from now on.
    pub(crate) fn change(&mut self, worked_in: &mut Keyspace, keyspace: u16) {
        self.expect(keyspace, worked_in);
        let at = self.resting.iter().position(|(number, _)| *number == keyspace);
        let at = at.expect("it was made where there was none");
        std::mem::swap(worked_in, &mut self.resting[at].1);
        self.resting[at].0 = std::mem::replace(&mut self.working, keyspace);
    }

    /// The keyspaces that rest.
    pub(crate) fn resting(&self) -> &[(u16, Keyspace)] {
        &self.resting
    }

    /// The keyspaces that rest, to be changed.
    pub(crate) fn resting_mut(&mut self) -> impl Iterator<Item = (u16, &mut Keyspace)> {
        self.resting.iter_mut().map(|(number, keyspace)| (*number, keyspace))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::commands::transcript;
    use crate::{Change, Changes, Shard, decode};

    /// Requests of three databases with few keys.
    fn requests() -> impl Strategy<Value = Vec<(u16, String)>> {
        let request =
            (0..12u8, 0..3u8, 0..3u8, 0..100u8).prop_map(|(command, key, database, value)| match command {
                0..4 => format!("SET k{key} {value}"),
                4 => format!("APPEND k{key} {value}"),
                5 => format!("DEL k{key}"),
                6 | 7 => format!("MOVE k{key} {database}"),
                8 | 9 => format!("SWAPDB {} {database}", value % 3),
                10 => "FLUSHDB".to_owned(),
                _ => (if value < 20 { "FLUSHALL" } else { "DBSIZE" }).to_owned(),
            });
        proptest::collection::vec((0..3u16, request), 1..60)
    }

    fn apply(shard: &mut Shard, frame: &Changes) {
        shard.apply(&Change::Keyspace(0));
        decode(frame.bytes()).for_each(|change| shard.apply(&change.unwrap()));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

        /// Whenever a snapshot is begun, and however many keys are written of it after each request, it gives the
        /// state with the log from its begin on; and so it does when that is replayed twice.
        #[test]
        fn a_snapshot_and_the_log_behind_it_give_the_databases(
            requests in requests(), begin: usize, step in 1..4usize,
        ) {
            let begin = begin % requests.len();
            let (mut shard, mut recovered) = (Shard::new([1, 2, 3, 4]), Shard::new([5, 6, 7, 8]));
            let (mut log, mut snapshot, mut position) = (Vec::new(), Changes::default(), Some(0));
            let mut write_slice = |shard: &Shard, snapshot: &mut Changes| {
                let Some(from) = position else { return false };
                if from == 0 {
                    shard.tell_databases(snapshot);
                }
                position = shard.walk(from, step, 1000, |keyspace, key, value, deadline_ms| {
                    snapshot.set_keyspace(keyspace);
                    snapshot.push(&Change::Put { key, value, deadline_ms });
                });
                true
            };
            for (index, (database, request)) in requests.iter().enumerate() {
                let mut frame = Changes::default();
                let words: Vec<_> = request.split(' ').map(|word| word.as_bytes().to_vec()).collect();
                transcript::execute_in(*database, &mut shard, &words, 1000, &mut frame);
                if index >= begin {
                    log.push(frame);
                    write_slice(&shard, &mut snapshot);
                }
            }
            while write_slice(&shard, &mut snapshot) {}
            apply(&mut recovered, &snapshot);
            for _ in 0..2 {
                log.iter().for_each(|frame| apply(&mut recovered, frame));
                prop_assert_eq!(transcript::content(&recovered, 1000), transcript::content(&shard, 1000));
            }
        }
    }

    #[test]
    fn a_scan_shows_the_keys_of_its_database_alone() {
        let mut shard = Shard::new([1, 2, 3, 4]);
        for (database, request) in [(0, "SET a 1"), (2, "SET b 1"), (2, "SET c 1")] {
            let words: Vec<_> = request.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            transcript::execute_in(database, &mut shard, &words, 1000, &mut Changes::default());
        }
        let seen = |database| {
            let (mut scan, mut keys) = (crate::Scan::new(database, 0, None), Vec::new());
            while scan.position().is_some() {
                shard.scan(&mut scan, 10, &mut { usize::MAX }, 1000, |key| keys.push(key.to_vec()));
            }
            keys.sort();
            keys
        };
        assert_eq!((seen(0), seen(1)), (vec![b"a".to_vec()], vec![]));
        assert_eq!(seen(2), [b"b".to_vec(), b"c".to_vec()]);
    }

    #[test]
    fn keys_of_every_database_expire_and_their_times_are_summed() {
        let mut shard = Shard::new([1, 2, 3, 4]);
        shard.set_wall_ahead(1_000_000);
        let requests = [
            (0, "SET a 1 PX 300"),
            (0, "SET b 1 PX 100"),
            (1, "SET c 1 PX 200"),
            (1, "SET d 1 PXAT 1001600"),
            (4, "SET e 1"),
        ];
        for (database, request) in requests {
            let words: Vec<_> = request.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            transcript::execute_in(database, &mut shard, &words, 1000, &mut Changes::default());
        }
        let databases = |shard: &Shard| {
            let mut all: Vec<_> = (shard.databases(1100))
                .map(|it| (it.number, it.keys, it.keys_with_deadline, it.time_left_ms))
                .collect();
            all.sort_unstable();
            all
        };
        assert_eq!(databases(&shard), [(0, 2, 2, 200), (1, 2, 2, 600), (4, 1, 0, 0)]);
        assert_eq!((shard.next_deadline_ms(), shard.expire(1250, 10)), (Some(1100), 2));
        assert_eq!((shard.next_deadline_ms(), shard.expire(2000, 10)), (Some(1300), 2));
        assert_eq!((shard.key_count(), shard.last_database()), (1, Some(4)));
        assert_eq!(databases(&shard), [(4, 1, 0, 0)]);
    }
}
