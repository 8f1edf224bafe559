//! Messages: what clients say about them, and how they get to the clients that want them.

use bytes::Bytes;
use shard::command::{self, Server};
use shard::{Command, Error, Event, EventClasses, Glob, Reply, Request};

use super::Worker;
use super::dispatch::Flow;
use super::stuck_clients::Told;
use crate::client::job::{Job, Subscribing};
use crate::client::replies::Replies;
use crate::client::reply::{answer, fail, job_id};
use crate::client::subscriptions::{SUBSCRIPTIONS_MAX, Subscriptions};
use crate::client::{Client, Stage};
use crate::config::OutputLimit;
use crate::mesh::{Args, Batch, Call, Message, RequestId, SubscriptionKind};
use crate::net::{Net, SocketId};
use crate::protocol::{self, Dialect};
use crate::pubsub::{Heard, check_name};

/// So many clients to which a message goes are as much work as an argument of a command.
const RECEIVERS_PER_ARG: usize = 8;

/// Which messages a command is about.
pub(super) fn kind_of(server: Server) -> SubscriptionKind {
    match server {
        Server::Psubscribe | Server::Punsubscribe => SubscriptionKind::Pattern,
        Server::Spublish
        | Server::Ssubscribe
        | Server::Sunsubscribe
        | Server::PubsubShardchannels
        | Server::PubsubShardnumsub => SubscriptionKind::ShardChannel,
        _ => SubscriptionKind::Channel,
    }
}

/// Appends what a client is told when a subscription begins or ends.
fn tell(request: &Request<'_>, name: Option<&[u8]>, count: usize, dialect: Dialect, out: &mut Vec<u8>) {
    let word = request.command.name.to_ascii_lowercase();
    let name = name.map_or(Reply::Nil, Reply::bytes);
    let told = Reply::Push(vec![Reply::bytes(word.as_bytes()), name, Reply::count(count)]);
    protocol::write_reply(&told, None, 0, dialect, out);
}

impl Worker {
    /// Carries out a command about messages, once no worker is owed as much as may be. Behind `MULTI` nothing waits for
    /// that: what fills a worker may itself wait for the locks of these commands.
    pub(super) fn run_pubsub_in_time(
        &mut self,
        client: &mut Client,
        request: &Request<'_>,
        server: Server,
    ) -> Flow {
        if matches!(server, Server::Publish | Server::Spublish)
            && let Some(full) = self.mesh.full_peer(self.watchdog.hung())
        {
            client.waits_for = Some(full);
            return Flow::Later;
        }
        self.run_pubsub(client, request, server);
        Flow::Taken
    }

    /// Carries out a command about messages.
    pub(super) fn run_pubsub(&mut self, client: &mut Client, request: &Request<'_>, server: Server) {
        let kind = kind_of(server);
        let reply = match server {
            Server::Publish | Server::Spublish => {
                self.tell_events_to(Some(client));
                let shared = request.large_arg().filter(|large| large.len() == request.arg(1).len());
                let receivers =
                    self.publish_message(kind, request.arg(0), request.arg(1), shared.as_ref(), Some(client));
                client.share.count_work(receivers / RECEIVERS_PER_ARG);
                Reply::count(receivers)
            }
            Server::Subscribe | Server::Psubscribe | Server::Ssubscribe => {
                if let Err(error) = self.subscribe(client, request, kind) {
                    fail(client, request.command, error);
                }
                return;
            }
            Server::Unsubscribe | Server::Punsubscribe | Server::Sunsubscribe => {
                self.unsubscribe(client, request, kind);
                return;
            }
            Server::PubsubChannels | Server::PubsubShardchannels if request.arg_count() > 1 => {
                let command = command::find(b"PUBSUB").expect("it has subcommands");
                Reply::Error(Error::WrongUse { command, name: request.command.name.as_bytes().into() })
            }
            Server::PubsubChannels | Server::PubsubShardchannels => {
                match request.args().next().map(Glob::new).transpose() {
                    Ok(pattern) => self.pubsub.channels(kind, pattern.as_ref()),
                    Err(error) => Reply::Error(error),
                }
            }
            Server::PubsubNumsub | Server::PubsubShardnumsub => self.pubsub.counts(kind, request.args()),
            Server::PubsubNumpat => Reply::count(self.pubsub.topic_count(SubscriptionKind::Pattern)),
            _ => unreachable!("{} is not about messages", request.command.name),
        };
        answer(client, request, &reply);
    }

    /// Begins subscriptions. The client is told of them when all other workers have taken note: a message that is
    /// published after that reaches it.
    fn subscribe(
        &mut self,
        client: &mut Client,
        request: &Request<'_>,
        kind: SubscriptionKind,
    ) -> Result<(), Error> {
        request.args().try_for_each(|name| check_name(kind, name))?;
        let count = client.subscriptions.as_ref().map_or(0, |subscriptions| subscriptions.count());
        if count + request.arg_count() > SUBSCRIPTIONS_MAX {
            return Err(Error::Unavailable("a client has 1048576 subscriptions at most"));
        }
        let subscriptions = client.subscriptions.get_or_insert_default();
        let (mut begun, mut told) = (Vec::new(), Vec::new());
        for name in request.args().map(Bytes::copy_from_slice) {
            if subscriptions.insert(kind, &name) {
                self.pubsub.subscribe(kind, &name, client.socket);
                begun.push(name.clone());
            }
            tell(request, Some(&name), subscriptions.told_count(kind), client.session.dialect, &mut told);
        }
        self.tell_of_subscriptions(client, request.command, &[(kind, begun)], told);
        Ok(())
    }

    /// Tells the other workers of subscriptions that have begun, and the client when these have taken note.
    pub(super) fn tell_of_subscriptions(
        &mut self,
        client: &mut Client,
        command: &'static Command,
        begun: &[(SubscriptionKind, Vec<Bytes>)],
        told: Vec<u8>,
    ) {
        let Some(last) = begun.iter().rposition(|(_, names)| !names.is_empty()) else {
            return client.replies.tell(told);
        };
        let unanswered: Vec<usize> =
            (0..self.mesh.worker_count()).filter(|worker| *worker != self.index).collect();
        for worker in &unanswered {
            for (place, (kind, names)) in begun.iter().enumerate().filter(|(_, (_, names))| !names.is_empty())
            {
                let batch = self.mesh.to(*worker);
                let names = batch.args(0, names.iter().map(|name| &name[..]));
                // With the last of them it has taken note of all.
                let id = if place == last { job_id(client) } else { RequestId::NONE };
                batch.call(id, Call::Subscribe(*kind, names));
            }
        }
        self.tell_when_noted(client, Subscribing { command, told, unanswered });
    }

    fn tell_when_noted(&self, client: &mut Client, subscribing: Subscribing) {
        if subscribing.unanswered.is_empty() {
            client.replies.tell(subscribing.told);
        } else {
            client.replies.hold_messages();
            self.begin_job(client, Job::Subscribe(subscribing));
        }
    }

    /// Ends the subscriptions to these names, or all of a kind. The client is told when all other workers have taken
    /// note: what is published after that is not counted as received.
    fn unsubscribe(&mut self, client: &mut Client, request: &Request<'_>, kind: SubscriptionKind) {
        let mut subscriptions = client.subscriptions.take().unwrap_or_default();
        let names: Vec<Bytes> = match request.arg_count() {
            0 => subscriptions.names(kind),
            _ => request.args().map(Bytes::copy_from_slice).collect(),
        };
        let (mut ended, mut told) = (Vec::new(), Vec::new());
        for name in &names {
            ended.extend(subscriptions.remove(kind, name));
            tell(request, Some(name), subscriptions.told_count(kind), client.session.dialect, &mut told);
        }
        if names.is_empty() {
            tell(request, None, subscriptions.told_count(kind), client.session.dialect, &mut told);
        }
        client.subscriptions = (subscriptions.count() > 0).then_some(subscriptions);
        let unanswered = self.end_subscriptions(client, kind, &ended, job_id(client));
        self.tell_when_noted(client, Subscribing { command: request.command, told, unanswered });
    }

    /// Ends all subscriptions of a client, which is not told, and keeps it no more up to date.
    pub(super) fn forget_subscriptions(&mut self, client: &mut Client) {
        self.end_tracking(client);
        let Some(subscriptions) = client.subscriptions.take() else { return };
        for kind in [SubscriptionKind::Channel, SubscriptionKind::Pattern, SubscriptionKind::ShardChannel] {
            self.end_subscriptions(
                client,
                kind,
                &Subscriptions::names(&subscriptions, kind),
                RequestId::NONE,
            );
        }
    }

    /// Ends subscriptions. Returns the workers that will answer the request that waits for them to take note, if one
    /// does.
    pub(super) fn end_subscriptions(
        &mut self,
        client: &Client,
        kind: SubscriptionKind,
        names: &[Bytes],
        id: RequestId,
    ) -> Vec<usize> {
        if names.is_empty() {
            return Vec::new();
        }
        for name in names {
            self.pubsub.unsubscribe(kind, name, client.socket);
        }
        let others: Vec<usize> =
            (0..self.mesh.worker_count()).filter(|worker| *worker != self.index).collect();
        for worker in &others {
            let batch = self.mesh.to(*worker);
            let names = batch.args(0, names.iter().map(|name| &name[..]));
            batch.call(id, Call::Unsubscribe(kind, names));
        }
        others
    }

    /// Takes note of the subscriptions of another worker's clients.
    pub(super) fn note_subscriptions(
        &mut self,
        from: usize,
        kind: SubscriptionKind,
        names: Args,
        begin: bool,
        batch: &Batch,
    ) {
        for name in batch.args_of(names) {
            match begin {
                true => self.pubsub.note(from, kind, name),
                false => self.pubsub.note_end(from, kind, name),
            }
        }
    }

    /// Hands a message of another worker to the clients of this one.
    pub(super) fn deliver(&mut self, kind: SubscriptionKind, message: &Message, batch: &Batch) {
        match message {
            Message::Copied(args) => {
                let mut args = batch.args_of(*args);
                let (channel, text) = (args.next().expect("a channel"), args.next().expect("a text"));
                self.hand_on(kind, channel, text, None);
            }
            Message::Shared(channel, text) => {
                self.hand_on(kind, channel, text, None);
            }
        }
    }

    /// Sends a message to all clients that are subscribed to its channel. Returns how many there are. The one that
    /// publishes it is not in the worker's table meanwhile.
    pub(super) fn publish_message(
        &mut self,
        kind: SubscriptionKind,
        channel: &[u8],
        text: &[u8],
        shared: Option<&Bytes>,
        publisher: Option<&mut Client>,
    ) -> usize {
        let heard = self.hand_on(kind, channel, text, publisher);
        for worker in &heard.workers {
            // What hangs, and is owed as much as may be, is not waited for. Others are owed more for a while: by scripts,
            // by transactions and by what happens to keys.
            let is_full = self.mesh.is_full(*worker) && self.watchdog.is_hung(*worker);
            if !is_full && !self.mesh.is_flooded(*worker) {
                self.mesh.publish(*worker, kind, channel, text, shared);
            }
        }
        heard.receivers
    }

    /// Tells of what has happened to keys of this worker's shard.
    #[inline]
    pub(super) fn tell_events(&mut self) {
        if self.runtime.has_events() {
            self.tell_events_to(None);
        }
    }

    /// As [`Worker::tell_events`], while a client is not in the worker's table.
    #[cold]
    pub(super) fn tell_events_to(&mut self, mut aside: Option<&mut Client>) {
        let mut changed = Vec::new();
        for happened in self.runtime.take_events() {
            match happened.event {
                Event::Named(database, name, key) => {
                    self.tell_event(database, name, &key, aside.as_deref_mut());
                }
                Event::Changed(key) => {
                    for reader in happened.readers.iter().filter(|it| Some(**it) != happened.by) {
                        self.tell_tracker(*reader, &[&key], aside.as_deref_mut());
                    }
                    changed.push((happened.by, key));
                }
                Event::Cleared => {
                    self.broadcast(&std::mem::take(&mut changed), true, aside.as_deref_mut());
                    self.tell_of_clear(aside.as_deref_mut());
                }
            }
        }
        self.broadcast(&changed, true, aside);
    }

    /// Publishes what has happened to a key.
    fn tell_event(&mut self, database: u16, event: &str, key: &[u8], mut aside: Option<&mut Client>) {
        if !self.pubsub.has_subscribers() {
            return;
        }
        let classes = self.shared.settings.keyspace_events();
        let channel = |prefix: &str, of: &[u8]| [format!("{prefix}@{database}__:").as_bytes(), of].concat();
        let kind = SubscriptionKind::Channel;
        if classes.has(EventClasses::KEYSPACE) {
            let channel = channel("__keyspace", key);
            self.publish_message(kind, &channel, event.as_bytes(), None, aside.as_deref_mut());
        }
        if classes.has(EventClasses::KEYEVENT) {
            let channel = channel("__keyevent", event.as_bytes());
            self.publish_message(kind, &channel, key, None, aside);
        }
    }

    /// Gives a client of this worker a message that `render` makes for it, if it is to get one: it overtakes no reply. Returns
    /// whether there is such a client. `aside` is the client that is not in the worker's table, if there is one.
    pub(super) fn deliver_to(
        &mut self,
        socket: SocketId,
        aside: Option<&mut Client>,
        render: impl FnOnce(&mut Client) -> Option<Bytes>,
    ) -> bool {
        let Worker { clients, net, clock, shared, stuck_clients, .. } = self;
        let (now_ms, limit) = (clock.now().uptime_ms, shared.settings.subscriber_output_limit());
        let give = |client: &mut Client| {
            if let Some(message) = render(client) {
                if client.job.is_some() {
                    client.replies.hold_messages(); // Its reply may show what the message is about.
                }
                let push = Replies::push_in_order;
                give_message(client, &message, push, net, limit, now_ms, &mut stuck_clients.behind);
            }
            matches!(client.stage, Stage::Open | Stage::Ended)
        };
        match aside {
            Some(client) if client.socket == socket => give(client),
            _ => clients.with(socket, give).unwrap_or(false),
        }
    }

    fn hand_on(
        &mut self,
        kind: SubscriptionKind,
        channel: &[u8],
        text: &[u8],
        mut publisher: Option<&mut Client>,
    ) -> Heard {
        let Worker { pubsub, clients, net, clock, shared, stuck_clients, .. } = self;
        let (now_ms, limit) = (clock.now().uptime_ms, shared.settings.subscriber_output_limit());
        pubsub.publish(kind, channel, &Reply::bytes(text), |socket, message| {
            let mut give = |client: &mut Client| {
                let message = message.bytes(client.session.dialect);
                give_message(client, message, Replies::push, net, limit, now_ms, &mut stuck_clients.behind);
            };
            match publisher.as_deref_mut() {
                Some(client) if client.socket == socket => give(client),
                _ => {
                    clients.with(socket, give);
                }
            }
        })
    }

    /// Lets those clients go for which too many messages have waited for too long; to be called once a second.
    pub(super) fn look_for_lagging_subscribers(&mut self) {
        let (now_ms, limit) = (self.clock.now().uptime_ms, self.shared.settings.subscriber_output_limit());
        for id in self.clients.those(|connection| connection.client.lags_since_ms.is_some()) {
            let unsent_bytes = self.net.unsent_bytes(id);
            let behind = &mut self.stuck_clients.behind;
            self.clients.with(id, |client| {
                let waiting_bytes = client.replies.size_bytes() + unsent_bytes;
                if is_over(&mut client.lags_since_ms, waiting_bytes, limit, now_ms)
                    && matches!(client.stage, Stage::Open | Stage::Ended)
                {
                    behind.add(client);
                    client.stage = Stage::Gone;
                }
            });
        }
    }
}

/// Gives a client a message, or lets it go where too much waits for it.
fn give_message(
    client: &mut Client,
    message: &Bytes,
    push: fn(&mut Replies, &Bytes),
    net: &Net,
    limit: OutputLimit,
    now_ms: u64,
    behind: &mut Told,
) {
    if !matches!(client.stage, Stage::Open | Stage::Ended) {
        return;
    }
    push(&mut client.replies, message);
    let waiting_bytes = client.replies.size_bytes() + net.unsent_bytes(client.socket);
    if is_over(&mut client.lags_since_ms, waiting_bytes, limit, now_ms) {
        behind.add(client);
        client.stage = Stage::Gone;
    }
}

/// Whether more bytes wait for a client than may, or have done so for too long.
fn is_over(lags_since_ms: &mut Option<u64>, waiting_bytes: usize, limit: OutputLimit, now_ms: u64) -> bool {
    let exceeds = |limit: u64| limit > 0 && waiting_bytes as u64 > limit;
    if !exceeds(limit.soft_bytes) {
        *lags_since_ms = None;
        return exceeds(limit.hard_bytes);
    }
    let since_ms = *lags_since_ms.get_or_insert(now_ms);
    exceeds(limit.hard_bytes) || now_ms - since_ms > limit.soft_s.saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_is_let_go_at_once_or_after_a_time() {
        let limit = OutputLimit { hard_bytes: 100, soft_bytes: 10, soft_s: 2 };
        let mut since = None;
        assert!(!is_over(&mut since, 10, limit, 0) && since.is_none());
        assert!(!is_over(&mut since, 100, limit, 1000) && since == Some(1000));
        assert!(!is_over(&mut since, 100, limit, 3000));
        assert!(is_over(&mut since, 11, limit, 3001), "for more than two seconds");
        assert!(!is_over(&mut since, 10, limit, 4000) && since.is_none(), "it has caught up");
        assert!(is_over(&mut since, 101, limit, 4001));
        let none = OutputLimit::default();
        assert!(!is_over(&mut since, usize::MAX, none, u64::MAX));
    }
}
