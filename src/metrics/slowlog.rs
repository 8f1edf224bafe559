//! The slow commands of a worker: the newest of them, and when the slowest ones of the last times were.

use std::borrow::Cow;
use std::collections::VecDeque;

use shard::Reply;

/// How much of a command is kept: so many words, so many bytes of each.
const WORDS_MAX: usize = 32;
const WORD_BYTES_MAX: usize = 128;

/// How many samples of an event are kept, one a second at most.
const SAMPLES_MAX: usize = 160;

/// A slow command.
#[derive(Clone, Debug)]
pub struct SlowCommand {
    /// Its number among those of all workers.
    pub id: u64,
    /// When it ran, in seconds of the Unix time.
    pub unix_s: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// Its words, cut.
    pub words: Vec<Vec<u8>>,
    /// From where its client has connected.
    pub peer: String,
    /// The name of the client.
    pub name: Vec<u8>,
}

/// The words of a command, as much of them as is kept.
pub fn cut_words<'a>(words: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let count = words.len();
    let kept = if count > WORDS_MAX { WORDS_MAX - 1 } else { count };
    let cut = |word: &[u8]| match word.len().saturating_sub(WORD_BYTES_MAX) {
        0 => word.to_vec(),
        more => [&word[..WORD_BYTES_MAX], format!("... ({more} more bytes)").as_bytes()].concat(),
    };
    let mut kept_words: Vec<Vec<u8>> = words.take(kept).map(cut).collect();
    if count > kept {
        kept_words.push(format!("... ({} more arguments)", count - kept).into_bytes());
    }
    kept_words
}

impl SlowCommand {
    /// As `SLOWLOG GET` shows it.
    pub fn reply(&self) -> Reply<'static> {
        let bytes = |bytes: &[u8]| Reply::Bulk(Cow::Owned(bytes.to_vec()));
        Reply::Array(vec![
            Reply::Integer(self.id as i64),
            Reply::Integer(self.unix_s as i64),
            Reply::Integer(self.took_us as i64),
            Reply::Array(self.words.iter().map(|word| bytes(word)).collect()),
            bytes(self.peer.as_bytes()),
            bytes(&self.name),
        ])
    }
}

/// The kinds of events that are watched: commands that take constant time, and all others.
pub const EVENTS: [&str; 2] = ["command", "fast-command"];

/// When an event was slow, in seconds of the Unix time, and how slow it was at most in that second, in milliseconds.
pub type Sample = (u64, u64);

/// What is known of one kind of events.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    /// The newest samples, the oldest first.
    pub samples: VecDeque<Sample>,
    /// The slowest ever, in milliseconds.
    pub max_ms: u64,
}

impl Latency {
    /// An event was slow.
    pub fn note(&mut self, unix_s: u64, ms: u64) {
        self.max_ms = self.max_ms.max(ms);
        match self.samples.back_mut() {
            Some((last_s, last_ms)) if *last_s == unix_s => *last_ms = ms.max(*last_ms),
            _ => self.samples.push_back((unix_s, ms)),
        }
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
    }

    /// As workers tell it: the slowest ever, then time and length of each sample.
    pub fn to_reply(&self) -> Reply<'static> {
        let samples = self.samples.iter().flat_map(|(unix_s, ms)| [*unix_s, *ms]);
        let numbers = std::iter::once(self.max_ms).chain(samples);
        Reply::Array(numbers.map(|number| Reply::Integer(number as i64)).collect())
    }

    /// What [`Latency::to_reply`] says.
    pub fn of_reply(reply: &Reply<'_>) -> Latency {
        let Reply::Array(numbers) = reply else { unreachable!("workers tell lists of numbers") };
        let number = |reply: &Reply<'_>| if let Reply::Integer(number) = reply { *number as u64 } else { 0 };
        let (max_ms, samples) = numbers.split_first().map_or((0, &[][..]), |(max, rest)| (number(max), rest));
        let samples = samples.chunks_exact(2).map(|pair| (number(&pair[0]), number(&pair[1])));
        Latency { samples: samples.collect(), max_ms }
    }

    /// Adds what another worker knows of the same kind.
    pub fn add(&mut self, other: &Latency) {
        let mut all: Vec<Sample> = self.samples.iter().chain(&other.samples).copied().collect();
        all.sort_unstable();
        *self = Latency { samples: VecDeque::new(), max_ms: self.max_ms.max(other.max_ms) };
        let max_ms = self.max_ms;
        all.into_iter().for_each(|(unix_s, ms)| self.note(unix_s, ms));
        self.max_ms = max_ms;
    }
}

/// The slow commands of a worker.
#[derive(Clone, Debug, Default)]
pub struct SlowLog {
    /// The newest, the oldest first.
    commands: VecDeque<SlowCommand>,
    /// By kind, in the order of [`EVENTS`].
    pub latencies: [Latency; EVENTS.len()],
}

impl SlowLog {
    /// Keeps a command, of so many at most.
    pub fn keep(&mut self, command: SlowCommand, len_max: usize) {
        self.commands.push_back(command);
        self.commands.drain(..self.commands.len().saturating_sub(len_max));
    }

    /// The newest of those that are kept, so many at most, the newest first.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = &SlowCommand> {
        self.commands.iter().rev().take(count)
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Keeps none of them any more.
    pub fn clear(&mut self) {
        self.commands.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_is_cut_and_says_so() {
        let long = [b'x'; 130];
        let words: Vec<&[u8]> = std::iter::repeat_n(&long[..], 33).collect();
        let cut = cut_words(words.iter().copied());
        assert_eq!(cut.len(), 32);
        assert_eq!(cut[0], [&[b'x'; 128][..], b"... (2 more bytes)"].concat());
        assert_eq!(cut[31], b"... (2 more arguments)");
        assert_eq!(cut_words(words[..32].iter().copied())[31], cut[0]);
    }

    #[test]
    fn the_slowest_of_a_second_stands_for_it_over_all_workers() {
        let (mut one, mut other) = (Latency::default(), Latency::default());
        [(1, 5), (1, 9), (1, 7), (3, 2)].iter().for_each(|(unix_s, ms)| one.note(*unix_s, *ms));
        [(1, 11), (2, 4)].iter().for_each(|(unix_s, ms)| other.note(*unix_s, *ms));
        one.add(&other);
        assert_eq!(one.samples, [(1, 11), (2, 4), (3, 2)]);
        assert_eq!(one.max_ms, 11);
        (0..200).for_each(|second| one.note(100 + second, 1));
        assert_eq!((one.samples.len(), one.samples[0]), (SAMPLES_MAX, (140, 1)));
    }

    #[test]
    fn the_newest_commands_are_kept() {
        let mut log = SlowLog::default();
        for id in 0..5 {
            let words = cut_words([&b"GET"[..]].into_iter());
            let command = SlowCommand { id, unix_s: 0, took_us: 1, words, peer: String::new(), name: vec![] };
            log.keep(command, 3);
        }
        assert_eq!(log.newest(2).map(|command| command.id).collect::<Vec<_>>(), [4, 3]);
        assert_eq!(log.len(), 3);
    }
}
