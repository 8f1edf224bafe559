//! Channels: who is subscribed to them, and what their subscribers are sent.
//!
//! A worker knows its own subscribers one by one, and of every channel and pattern how many the other workers have,
//! which tell each other. So to publish a message costs a look-up, and a call to each worker that has subscribers; its
//! bytes are made once a worker and dialect. Nothing is sent here: the worker hands messages to its clients.

pub(crate) mod tracked;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use shard::{Error, Glob, Matching, PATTERN_LEN_MAX, Reply};

use crate::mesh::SubscriptionKind;
use crate::net::SocketId;
use crate::protocol::{self, Dialect};

/// How many steps, of a nanosecond or two each, a channel is compared with a pattern. What no sensible pattern takes
/// does not match.
const MATCHING_STEPS_MAX: usize = 1 << 20;

/// The subscriptions that there are, as one worker knows them.
#[derive(Debug, Default)]
pub(crate) struct PubSub {
    /// Those of each kind, by their names.
    topics: [HashMap<Bytes, Topic>; 5],
}

/// A channel or pattern that a client is subscribed to.
#[derive(Debug, Default)]
struct Topic {
    /// Of a pattern, how it is read.
    glob: Option<Glob>,
    here: HashSet<SocketId>,
    /// How many subscribers other workers have; none of which has none.
    elsewhere: Vec<(usize, usize)>,
}

impl Topic {
    fn receivers(&self) -> usize {
        self.here.len() + self.elsewhere.iter().map(|(_, count)| count).sum::<usize>()
    }
}

/// What became of a message: how many clients it goes to, and which other workers have some of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub receivers: usize,
    pub workers: Vec<usize>,
}

impl Heard {
    fn add(&mut self, topic: &Topic) {
        self.receivers += topic.receivers();
        for (worker, _) in &topic.elsewhere {
            if !self.workers.contains(worker) {
                self.workers.push(*worker);
            }
        }
    }
}

/// A message as subscribers get it, rendered when the first one asks.
pub(crate) struct Rendered<'a> {
    kind: SubscriptionKind,
    pattern: Option<&'a Bytes>,
    channel: &'a [u8],
    text: &'a Reply<'a>,
    of_dialect: [Option<Bytes>; 3],
}

impl Rendered<'_> {
    /// Its bytes, for a client that is answered in this dialect.
    pub fn bytes(&mut self, dialect: Dialect) -> &Bytes {
        let Rendered { kind, pattern, channel, text, of_dialect } = self;
        of_dialect[dialect as usize].get_or_insert_with(|| {
            let word = match kind {
                SubscriptionKind::Channel => "message",
                SubscriptionKind::Pattern => "pmessage",
                SubscriptionKind::ShardChannel => "smessage",
                SubscriptionKind::Prefix | SubscriptionKind::Tracker => {
                    unreachable!("they hear of no channel")
                }
            };
            let mut items = vec![Reply::bytes(word.as_bytes())];
            items.extend(pattern.map(|pattern| Reply::bytes(pattern)));
            items.extend([Reply::bytes(channel), text.clone()]);
            let mut out = Vec::new();
            protocol::write_reply(&Reply::Push(items), None, 0, dialect, &mut out);
            out.into()
        })
    }
}

/// Whether a client may subscribe to this name.
///
/// # Errors
/// [`Error::PatternTooLong`]
pub(crate) fn check_name(kind: SubscriptionKind, name: &[u8]) -> Result<(), Error> {
    match kind {
        SubscriptionKind::Pattern if name.len() > PATTERN_LEN_MAX => {
            Err(Error::PatternTooLong { limit: PATTERN_LEN_MAX })
        }
        _ => Ok(()),
    }
}

impl PubSub {
    /// A client of this worker subscribes to a name that was [checked](check_name).
    pub fn subscribe(&mut self, kind: SubscriptionKind, name: &Bytes, socket: SocketId) {
        self.topic(kind, name, Bytes::clone).here.insert(socket);
    }

    /// A client of this worker ends its subscription.
    pub fn unsubscribe(&mut self, kind: SubscriptionKind, name: &[u8], socket: SocketId) {
        let topics = &mut self.topics[kind as usize];
        let topic = topics.get_mut(name).expect("it was begun");
        topic.here.remove(&socket);
        if topic.receivers() == 0 {
            topics.remove(name);
        }
    }

    /// A client of another worker subscribes.
    pub fn note(&mut self, worker: usize, kind: SubscriptionKind, name: &[u8]) {
        let elsewhere = &mut self.topic(kind, name, Bytes::copy_from_slice).elsewhere;
        match elsewhere.iter_mut().find(|(other, _)| *other == worker) {
            Some((_, count)) => *count += 1,
            None => elsewhere.push((worker, 1)),
        }
    }

    /// A client of another worker ends its subscription.
    pub fn note_end(&mut self, worker: usize, kind: SubscriptionKind, name: &[u8]) {
        let topics = &mut self.topics[kind as usize];
        let topic = topics.get_mut(name).expect("its begin was noted");
        let at = topic.elsewhere.iter().position(|(other, _)| *other == worker);
        let (_, count) = &mut topic.elsewhere[at.expect("its begin was noted")];
        *count -= 1;
        topic.elsewhere.retain(|(_, count)| *count > 0);
        if topic.receivers() == 0 {
            topics.remove(name);
        }
    }

    fn topic<N: AsRef<[u8]> + ?Sized>(
        &mut self,
        kind: SubscriptionKind,
        name: &N,
        own: impl FnOnce(&N) -> Bytes,
    ) -> &mut Topic {
        let topics = &mut self.topics[kind as usize];
        if !topics.contains_key(name.as_ref()) {
            let glob = (kind == SubscriptionKind::Pattern)
                .then(|| Glob::new(name.as_ref()).expect("its length was checked"));
            topics.insert(own(name), Topic { glob, ..Topic::default() });
        }
        topics.get_mut(name.as_ref()).expect("it is there by now")
    }

    /// Whether there is any subscription that a message on a channel could be for.
    #[inline]
    pub fn has_subscribers(&self) -> bool {
        self.topics[..2].iter().any(|topics| !topics.is_empty())
    }

    /// Hands a message on a channel (or shard channel) to the subscribers at this worker, and tells who else gets it.
    pub fn publish(
        &self,
        kind: SubscriptionKind,
        channel: &[u8],
        text: &Reply<'_>,
        mut deliver: impl FnMut(SocketId, &mut Rendered<'_>),
    ) -> Heard {
        let mut heard = Heard::default();
        let mut hand_on = |topic: &Topic, kind, pattern| {
            heard.add(topic);
            let mut message = Rendered { kind, pattern, channel, text, of_dialect: Default::default() };
            topic.here.iter().for_each(|socket| deliver(*socket, &mut message));
        };
        if let Some(topic) = self.topics[kind as usize].get(channel) {
            hand_on(topic, kind, None);
        }
        if kind == SubscriptionKind::Channel {
            for (pattern, topic) in &self.topics[SubscriptionKind::Pattern as usize] {
                let glob = topic.glob.as_ref().expect("a pattern was read");
                let is_match = match channel {
                    b"" => glob.matches_channel(channel),
                    _ => Matching::default().go_on(glob, channel, &mut { MATCHING_STEPS_MAX }) == Some(true),
                };
                if is_match {
                    hand_on(topic, SubscriptionKind::Pattern, Some(pattern));
                }
            }
        }
        heard
    }

    /// Shows all prefixes of a key that clients want to hear of, with those who do: here, and how many at others.
    pub fn with_prefixes_of(
        &self,
        key: &[u8],
        mut show: impl FnMut(&Bytes, &HashSet<SocketId>, &[(usize, usize)]),
    ) {
        for (prefix, topic) in &self.topics[SubscriptionKind::Prefix as usize] {
            if key.starts_with(prefix) {
                show(prefix, &topic.here, &topic.elsewhere);
            }
        }
    }

    /// The clients of this worker that are subscribed to a name.
    pub fn sockets_of(&self, kind: SubscriptionKind, name: &[u8]) -> Vec<SocketId> {
        let topic = self.topics[kind as usize].get(name);
        topic.map_or(Vec::new(), |topic| topic.here.iter().copied().collect())
    }

    /// How many channels, patterns or shard channels have subscribers.
    pub fn topic_count(&self, kind: SubscriptionKind) -> usize {
        self.topics[kind as usize].len()
    }

    /// The names of the channels or shard channels with subscribers, as far as they match a pattern.
    pub fn channels(&self, kind: SubscriptionKind, pattern: Option<&Glob>) -> Reply<'static> {
        let names = self.topics[kind as usize].keys();
        let matching = names.filter(|name| pattern.is_none_or(|pattern| pattern.matches_channel(name)));
        Reply::Array(matching.map(|name| Reply::Bulk(name.to_vec().into())).collect())
    }

    /// Each of these channels or shard channels, and how many subscribers it has, those to patterns not counted.
    pub fn counts<'a>(&self, kind: SubscriptionKind, channels: impl Iterator<Item = &'a [u8]>) -> Reply<'a> {
        let topics = &self.topics[kind as usize];
        let counted = channels.flat_map(|channel| {
            let count = topics.get(channel).map_or(0, Topic::receivers);
            [Reply::bytes(channel), Reply::count(count)]
        });
        Reply::Array(counted.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SubscriptionKind::{Channel, Pattern, ShardChannel};

    fn socket(index: u32) -> SocketId {
        SocketId { index, generation: 0 }
    }

    /// Publishes `hi`; who gets what of it here, sorted, and who else.
    fn published(pubsub: &PubSub, kind: SubscriptionKind, channel: &str) -> (Vec<String>, Heard) {
        let mut got = Vec::new();
        let text = Reply::bytes(b"hi");
        let mut heard = pubsub.publish(kind, channel.as_bytes(), &text, |socket, message| {
            let bytes = message.bytes(Dialect::Text).escape_ascii().to_string();
            got.push(format!("{} {bytes}", socket.index));
        });
        got.sort();
        heard.workers.sort_unstable();
        (got, heard)
    }

    #[test]
    fn a_message_goes_to_the_subscribers_of_its_channel_and_of_patterns() {
        let mut pubsub = PubSub::default();
        pubsub.subscribe(Channel, &Bytes::from("news"), socket(1));
        pubsub.subscribe(Channel, &Bytes::from("news"), socket(2));
        pubsub.subscribe(Pattern, &Bytes::from("n*"), socket(1));
        pubsub.subscribe(ShardChannel, &Bytes::from("news"), socket(3));
        pubsub.note(5, Channel, b"news");
        pubsub.note(5, Pattern, b"*s");
        pubsub.note(5, Pattern, b"*s");
        pubsub.note(6, Pattern, b"x*");
        let (got, heard) = published(&pubsub, Channel, "news");
        assert_eq!(got, ["1 message news hi\\n", "1 pmessage n* news hi\\n", "2 message news hi\\n"]);
        assert_eq!(heard, Heard { receivers: 6, workers: vec![5] });
        let (got, heard) = published(&pubsub, ShardChannel, "news");
        assert_eq!((got.concat(), heard.receivers), ("3 smessage news hi\\n".to_owned(), 1));
        assert_eq!(published(&pubsub, Channel, "old").1, Heard::default());
    }

    #[test]
    fn what_nobody_is_subscribed_to_is_forgotten() {
        let mut pubsub = PubSub::default();
        pubsub.subscribe(Channel, &Bytes::from("a"), socket(1));
        pubsub.note(1, Channel, b"a");
        pubsub.note(1, Pattern, b"b");
        pubsub.unsubscribe(Channel, b"a", socket(1));
        assert_eq!(published(&pubsub, Channel, "a").1, Heard { receivers: 1, workers: vec![1] });
        assert!(pubsub.has_subscribers());
        pubsub.note_end(1, Channel, b"a");
        pubsub.note_end(1, Pattern, b"b");
        assert!(!pubsub.has_subscribers());
    }

    #[test]
    fn a_pattern_that_takes_too_long_to_compare_does_not_match() {
        let mut pubsub = PubSub::default();
        let pattern = format!("*{}b", "a".repeat(10_000));
        pubsub.subscribe(Pattern, &Bytes::from(pattern), socket(1));
        assert_eq!(published(&pubsub, Channel, &format!("{}b", "a".repeat(10_000))).1.receivers, 1);
        assert_eq!(published(&pubsub, Channel, &format!("{}b", "a".repeat(1_000_000))).1.receivers, 0);
    }
}
