//! Client-side caching: clients that keep copies of what they read are told when these are out of date.
//!
//! Each shard's worker knows which keys were read by which of these clients, whatever worker serves them. A client of
//! the broadcasting mode is told of all keys with its prefixes; of each prefix all workers know who has such clients.
//! While no client keeps copies, shards gather no changes, and nothing of this is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use shard::command::Server;
use shard::{Error, EventClasses, Reply, Request, parse_integer};

use super::Worker;
use crate::client::Client;
use crate::client::job::{FindingClient, Job};
use crate::client::reply::{answer, fail, job_id};
use crate::client::tracking::{Redirect, Tracking};
use crate::mesh::{Args, Batch, Call, RequestId, SubscriptionKind};
use crate::net::SocketId;
use crate::protocol::{self, Dialect};
use crate::pubsub::tracked::Tracker;

/// The channel of those that are told in place of others in RESP2.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// Changed keys, each with the client that has changed it and does not want to be told.
type Changed = [(Option<Tracker>, Box<[u8]>)];

/// What `CLIENT TRACKING ON` asks for.
#[derive(Default)]
struct Options {
    redirect: Option<i64>,
    prefixes: Vec<Bytes>,
    broadcasts: bool,
    opt_in: bool,
    opt_out: bool,
    no_loop: bool,
}

impl Options {
    fn parse(request: &Request<'_>) -> Result<Options, Error> {
        let mut options = Options::default();
        let mut args = request.args().skip(1);
        while let Some(arg) = args.next() {
            let is = |name: &str| arg.eq_ignore_ascii_case(name.as_bytes());
            if is("REDIRECT") {
                let id = args.next().ok_or(Error::Syntax)?;
                if options.redirect.is_some() {
                    return Err(Error::Unavailable("A client can only redirect to a single other client"));
                }
                options.redirect = Some(parse_integer(id).ok_or(Error::NotAnInteger)?);
            } else if is("PREFIX") {
                options.prefixes.push(Bytes::copy_from_slice(args.next().ok_or(Error::Syntax)?));
            } else if is("BCAST") {
                options.broadcasts = true;
            } else if is("OPTIN") {
                options.opt_in = true;
            } else if is("OPTOUT") {
                options.opt_out = true;
            } else if is("NOLOOP") {
                options.no_loop = true;
            } else {
                return Err(Error::Syntax);
            }
        }
        Ok(options)
    }

    /// Whether these go together, and with what is true of the client.
    fn check(&self, client: &Client) -> Result<(), Error> {
        let before = client.tracking.as_deref();
        let has_switched = |then: bool, before: Option<bool>| before.is_some_and(|before| before != then);
        let is_mode_switched =
            before.is_some_and(|before| self.opt_in && before.opt_out || self.opt_out && before.opt_in);
        Err(Error::Unavailable(if !self.broadcasts && !self.prefixes.is_empty() {
            "PREFIX option requires BCAST mode to be enabled"
        } else if has_switched(self.broadcasts, before.map(|before| before.broadcasts)) {
            "You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with \
             a different mode."
        } else if self.broadcasts && (self.opt_in || self.opt_out) {
            "OPTIN and OPTOUT are not compatible with BCAST"
        } else if self.opt_in && self.opt_out {
            "You can't specify both OPTIN mode and OPTOUT mode"
        } else if is_mode_switched {
            "You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with \
             a different mode."
        } else {
            return self.check_prefixes(before.map_or(&[], |before| &before.prefixes));
        }))
    }

    fn check_prefixes(&self, existing: &[Bytes]) -> Result<(), Error> {
        for (at, prefix) in self.prefixes.iter().enumerate() {
            let overlaps = |other: &&Bytes| other.starts_with(prefix) || prefix.starts_with(other);
            let existing = existing.iter().find(overlaps);
            let provided = || self.prefixes[at + 1..].iter().find(overlaps);
            if let Some(other) = existing.or_else(provided) {
                let (prefix, other) = (prefix[..].into(), other[..].into());
                return Err(Error::PrefixOverlap { prefix, other, is_provided: existing.is_none() });
            }
        }
        Ok(())
    }
}

impl Worker {
    /// Carries out a command about copies of keys.
    pub(super) fn run_tracking(&mut self, client: &mut Client, request: &Request<'_>, server: Server) {
        let reply = match server {
            Server::ClientTracking => match self.set_tracking(client, request) {
                Ok(None) => return,
                Ok(Some(reply)) => Ok(reply),
                Err(error) => Err(error),
            },
            Server::ClientCaching => set_caching(client, request.arg(0)),
            Server::ClientGetredir => Ok(Reply::Integer(redirection(client))),
            _ => Ok(tracking_info(client)),
        };
        match reply {
            Ok(reply) => answer(client, request, &reply),
            Err(error) => fail(client, request.command, error),
        }
    }

    /// Switches it on or off. Returns what the client is told, unless that is still to come.
    fn set_tracking(
        &mut self,
        client: &mut Client,
        request: &Request<'_>,
    ) -> Result<Option<Reply<'static>>, Error> {
        let options = Options::parse(request)?;
        if request.arg(0).eq_ignore_ascii_case(b"OFF") {
            self.end_tracking(client);
            return Ok(Some(Reply::Ok));
        }
        if !request.arg(0).eq_ignore_ascii_case(b"ON") {
            return Err(Error::Syntax);
        }
        options.check(client)?;
        let Some(client_id) = options.redirect else {
            self.begin_tracking(client, request, options, None);
            return Ok(None);
        };
        let id = u64::try_from(client_id).unwrap_or(0);
        let here = if id == client.id { Some(client.socket) } else { self.clients.socket_of(id) };
        if let Some(socket) = here {
            let place = (self.index, socket);
            self.begin_tracking(client, request, options, Some(Redirect { client_id, place }));
            return Ok(None);
        }
        let others: Vec<usize> =
            (0..self.mesh.worker_count()).filter(|worker| *worker != self.index).collect();
        if others.is_empty() {
            return Err(NO_SUCH_CLIENT);
        }
        for worker in &others {
            self.mesh.to(*worker).call(job_id(client), Call::FindClient(id));
        }
        let request = shard::OwnedRequest::new(request);
        self.begin_job(client, Job::FindClient(FindingClient { request, unanswered: others, found: None }));
        Ok(None)
    }

    /// All workers have said whether they serve the client that is to be told in place of another.
    pub(super) fn on_client_found(&mut self, client: &mut Client, finding: &FindingClient) {
        let request = finding.request.request();
        let options = Options::parse(&request).expect("it was understood before");
        let redirect = options.redirect.zip(finding.found);
        match redirect {
            Some((client_id, place)) => {
                self.begin_tracking(client, &request, options, Some(Redirect { client_id, place }));
            }
            None => fail(client, request.command, NO_SUCH_CLIENT),
        }
    }

    /// Begins it, or changes how. The client is told when all workers have taken note.
    fn begin_tracking(
        &mut self,
        client: &mut Client,
        request: &Request<'_>,
        options: Options,
        redirect: Option<Redirect>,
    ) {
        let is_new = client.tracking.is_none();
        let tracking = client.tracking.get_or_insert_default();
        let Options { mut prefixes, broadcasts, opt_in, opt_out, no_loop, .. } = options;
        if broadcasts && prefixes.is_empty() && tracking.prefixes.is_empty() {
            prefixes.push(Bytes::new());
        }
        let old = std::mem::take(&mut tracking.prefixes);
        let all = [&old[..], &prefixes].concat();
        **tracking =
            Tracking { prefixes: all, broadcasts, opt_in, opt_out, no_loop, redirect, ..Tracking::default() };
        let mut told = Vec::new();
        protocol::write_reply(&Reply::Ok, None, 0, client.session.dialect, &mut told);
        let mut begun = vec![(SubscriptionKind::Prefix, prefixes)];
        if is_new {
            begun.push((SubscriptionKind::Tracker, vec![Bytes::new()]));
        }
        for (kind, names) in &begun {
            names.iter().for_each(|name| self.pubsub.subscribe(*kind, name, client.socket));
        }
        self.follow_settings();
        self.tell_of_subscriptions(client, request.command, &begun, told);
    }

    /// Ends it.
    pub(super) fn end_tracking(&mut self, client: &mut Client) {
        let Some(tracking) = client.tracking.take() else { return };
        self.end_subscriptions(client, SubscriptionKind::Prefix, &tracking.prefixes, RequestId::NONE);
        self.end_subscriptions(client, SubscriptionKind::Tracker, &[Bytes::new()], RequestId::NONE);
    }

    /// Has the shard gather the events that are wanted by now.
    pub(super) fn follow_settings(&mut self) {
        let told = self.shared.settings.keyspace_events().wanted();
        let is_tracked = self.pubsub.topic_count(SubscriptionKind::Tracker) > 0;
        let classes = if is_tracked { told.with(EventClasses::CHANGE) } else { told };
        self.runtime.want_events(classes);
        if is_tracked {
            let keys_max = self.shared.settings.tracking_table_max_keys.load(Ordering::Relaxed) as usize;
            self.runtime.bound_tracked(keys_max.div_ceil(self.mesh.worker_count()));
        }
    }

    /// Tells the clients of the broadcasting mode; those of other workers, too, if `everywhere`.
    pub(super) fn broadcast(&mut self, changed: &Changed, everywhere: bool, mut aside: Option<&mut Client>) {
        let mut here: BTreeMap<Bytes, (Vec<SocketId>, BTreeSet<usize>)> = BTreeMap::new();
        let mut elsewhere: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (number, (_, key)) in changed.iter().enumerate() {
            self.pubsub.with_prefixes_of(key, |prefix, sockets, workers| {
                if !sockets.is_empty() {
                    let of_prefix = || (sockets.iter().copied().collect(), BTreeSet::new());
                    here.entry(prefix.clone()).or_insert_with(of_prefix).1.insert(number);
                }
                for (worker, _) in workers {
                    elsewhere.entry(*worker).or_default().insert(number);
                }
            });
        }
        for (sockets, numbers) in here.into_values() {
            for socket in sockets {
                let by = Some((self.index, socket));
                let keys = numbers.iter().map(|number| &changed[*number]).filter(|(it, _)| *it != by);
                let keys: BTreeSet<&[u8]> = keys.map(|(_, key)| &key[..]).collect();
                if !keys.is_empty() {
                    let keys: Vec<&[u8]> = keys.into_iter().collect();
                    self.tell_here(socket, Some(&keys), false, aside.as_deref_mut());
                }
            }
        }
        for (worker, numbers) in elsewhere.into_iter().filter(|_| everywhere) {
            for (by, key) in numbers.iter().map(|number| &changed[*number]) {
                let batch = self.mesh.to(worker);
                let args = batch.args(0, [&key[..]].into_iter());
                // A client of that worker that does not want to be told of its own changes is named by the call.
                let socket = by.filter(|(of, _)| *of == worker).map_or(RequestId::NONE.socket, |(_, it)| it);
                batch.call(RequestId { socket, ..RequestId::NONE }, Call::Broadcast(args));
            }
        }
    }

    /// Another worker tells of a key, for clients of the broadcasting mode.
    pub(super) fn on_broadcast(&mut self, by: SocketId, keys: Args, batch: &Batch) {
        let by = Some((self.index, by));
        let changed: Vec<_> = batch.args_of(keys).map(|key| (by, Box::from(key))).collect();
        self.broadcast(&changed, false, None);
    }

    /// All keys are gone. The first shard tells everyone: no other one answers before all are empty.
    pub(super) fn tell_of_clear(&mut self, aside: Option<&mut Client>) {
        if self.index == 0 {
            for worker in 1..self.mesh.worker_count() {
                self.mesh.to(worker).call(RequestId::NONE, Call::Invalidate(None));
            }
            self.tell_all_here(aside);
        }
    }

    /// All keys are gone: tells all clients of this worker that keep copies.
    fn tell_all_here(&mut self, mut aside: Option<&mut Client>) {
        for socket in self.pubsub.sockets_of(SubscriptionKind::Tracker, b"") {
            self.tell_here(socket, None, false, aside.as_deref_mut());
        }
    }

    /// Tells a client, of whatever worker, that keys have changed that it has read.
    pub(super) fn tell_tracker(
        &mut self,
        (worker, socket): Tracker,
        keys: &[&[u8]],
        aside: Option<&mut Client>,
    ) {
        if worker == self.index {
            return self.tell_here(socket, Some(keys), true, aside);
        }
        let batch = self.mesh.to(worker);
        let args = batch.args(0, keys.iter().copied());
        batch.call(RequestId { socket, ..RequestId::NONE }, Call::Invalidate(Some(args)));
    }

    /// Another worker tells a client of this one, or all, of keys that have changed.
    pub(super) fn on_invalidate(&mut self, socket: SocketId, keys: Option<Args>, batch: &Batch) {
        match keys {
            None => self.tell_all_here(None),
            Some(keys) => {
                let keys: Vec<&[u8]> = batch.args_of(keys).collect();
                self.tell_here(socket, Some(&keys), true, None);
            }
        }
    }

    /// Tells a client of this worker of keys that have changed, or that all are gone; of keys that it `has_read`, unless
    /// it has changed to the broadcasting mode meanwhile.
    fn tell_here(
        &mut self,
        socket: SocketId,
        keys: Option<&[&[u8]]>,
        has_read: bool,
        mut aside: Option<&mut Client>,
    ) {
        let mut redirect = None;
        self.deliver_to(socket, aside.as_deref_mut(), |client| {
            let tracking = client.tracking.as_deref()?;
            redirect = tracking.redirect.filter(|_| !(has_read && tracking.broadcasts));
            let is_told = redirect.is_none() && !(has_read && tracking.broadcasts);
            let dialect = client.session.dialect;
            (is_told && dialect != Dialect::Resp2).then(|| invalidation(keys, true, dialect))
        });
        match redirect.map(|redirect| redirect.place) {
            None => {}
            Some((worker, target)) if worker == self.index => {
                self.tell_in_place_of((worker, socket), target, keys, aside);
            }
            Some((worker, target)) => {
                let batch = self.mesh.to(worker);
                let keys = keys.map(|keys| batch.args(0, keys.iter().copied()));
                let id = RequestId { socket: target, ..RequestId::NONE };
                batch.call(id, Call::Redirect { of: socket, keys });
            }
        }
    }

    /// Another worker has its client told by one of this worker.
    pub(super) fn on_redirect(&mut self, of: Tracker, target: SocketId, keys: Option<Args>, batch: &Batch) {
        let keys: Option<Vec<&[u8]>> = keys.map(|keys| batch.args_of(keys).collect());
        self.tell_in_place_of(of, target, keys.as_deref(), None);
    }

    fn tell_in_place_of(
        &mut self,
        (worker, of): Tracker,
        target: SocketId,
        keys: Option<&[&[u8]]>,
        mut aside: Option<&mut Client>,
    ) {
        let is_there = self.deliver_to(target, aside.as_deref_mut(), |client| {
            let is_resp2 = client.session.dialect == Dialect::Resp2;
            let hears = !is_resp2 || client.subscriptions.is_some();
            hears.then(|| invalidation(keys, !is_resp2, client.session.dialect))
        });
        if is_there {
            return;
        }
        if worker == self.index {
            self.on_broken_redirect(of, aside);
        } else {
            self.mesh.to(worker).call(RequestId { socket: of, ..RequestId::NONE }, Call::RedirectIsBroken);
        }
    }

    /// The client that was told in place of this one is gone.
    pub(super) fn on_broken_redirect(&mut self, socket: SocketId, aside: Option<&mut Client>) {
        self.deliver_to(socket, aside, |client| {
            let dialect = client.session.dialect;
            let tracking = client.tracking.as_deref_mut()?;
            tracking.is_broken = true;
            let client_id = tracking.redirect?.client_id;
            let told = Reply::Push(vec![Reply::bytes(b"tracking-redir-broken"), Reply::Integer(client_id)]);
            (dialect != Dialect::Resp2).then(|| rendered(&told, dialect))
        });
    }
}

const NO_SUCH_CLIENT: Error = Error::Unavailable("The client ID you want redirect to does not exist");

fn rendered(message: &Reply<'_>, dialect: Dialect) -> Bytes {
    let mut out = Vec::new();
    protocol::write_reply(message, None, 0, dialect, &mut out);
    out.into()
}

/// What a client is told whose copies of keys, or of all, are out of date: itself, or as a message on a channel.
fn invalidation(keys: Option<&[&[u8]]>, is_own: bool, dialect: Dialect) -> Bytes {
    let keys =
        keys.map_or(Reply::Nil, |keys| Reply::Array(keys.iter().map(|key| Reply::bytes(key)).collect()));
    let mut items = match is_own {
        true => vec![Reply::bytes(b"invalidate")],
        false => vec![Reply::bytes(b"message"), Reply::bytes(CHANNEL)],
    };
    items.push(keys);
    rendered(&Reply::Push(items), dialect)
}

/// `CLIENT CACHING`.
fn set_caching(client: &mut Client, word: &[u8]) -> Result<Reply<'static>, Error> {
    let tracking = client.tracking.as_deref_mut().ok_or(Error::Unavailable(
        "CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
    ))?;
    if word.eq_ignore_ascii_case(b"YES") {
        if !tracking.opt_in {
            return Err(Error::Unavailable(
                "CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            ));
        }
    } else if word.eq_ignore_ascii_case(b"NO") {
        if !tracking.opt_out {
            return Err(Error::Unavailable(
                "CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            ));
        }
    } else {
        return Err(Error::Syntax);
    }
    tracking.is_caching = true;
    Ok(Reply::Ok)
}

/// The number of the client that is told in place of this one; 0 if it is told itself, -1 if it keeps no copies.
fn redirection(client: &Client) -> i64 {
    match client.tracking.as_deref() {
        None => -1,
        Some(tracking) => tracking.redirect.map_or(0, |redirect| redirect.client_id),
    }
}

/// `CLIENT TRACKINGINFO`.
fn tracking_info(client: &Client) -> Reply<'static> {
    let tracking = client.tracking.as_deref();
    let flags = tracking.map_or(vec!["off"], Tracking::flags);
    let text = |text: &'static str| Reply::bytes(text.as_bytes());
    let mut prefixes = tracking.map_or(Vec::new(), |tracking| tracking.prefixes.clone());
    prefixes.sort_unstable();
    let prefixes = prefixes.iter().map(|prefix| Reply::Bulk(prefix.to_vec().into()));
    Reply::Map(vec![
        ("flags".into(), Reply::Set(flags.into_iter().map(text).collect())),
        ("redirect".into(), Reply::Integer(redirection(client))),
        ("prefixes".into(), Reply::Array(prefixes.collect())),
    ])
}
