//! Commands that run as one: `MULTI` and what belongs to it, and every command over several shards.
//!
//! Where one shard owns all keys, `EXEC` is a request to it as any other. Else the commands are a
//! [`Program`], whose replies gather behind each other in the client's replies and leave together.

use shard::command::{self, Flags, Group, Run, Server};
use shard::{Command, Error, OwnedRequest, Reply, Request};

use super::Worker;
use super::dispatch::Flow;
use super::runtime::REPLIES_BYTES_MAX;
use super::watchdog::hangs;
use crate::admin::{self, listing};
use crate::client::Client;
use crate::client::job::{Job, Running, Watching};
use crate::client::multi::{Queue, Watched};
use crate::client::reply::{answer, fail, job_id, reject};
use crate::mesh::{Answer, Asker, Call, RequestId, Tracks, Watch};
use crate::protocol;
use crate::slots::owner;
use crate::txn::program::{HOP_COMMANDS_MAX, Program, Step};
use crate::txn::transaction::Told;

impl Worker {
    // ---- MULTI ----

    /// Queues a command behind `MULTI`.
    #[cold]
    pub(super) fn enqueue(&mut self, client: &mut Client, request: &Request<'_>) {
        let queue = client.session.queue.as_mut().expect("it was asked for");
        if request.command.has(Flags::NO_MULTI) {
            queue.refuse();
            return reject(client, request.command, Error::NotInMulti);
        }
        let databases = self.shared.config.databases;
        match queue.push(request, self.mesh.worker_count(), databases) {
            Ok(()) => answer(client, request, &Reply::Simple("QUEUED")),
            Err(error) => reject(client, request.command, error),
        }
    }

    /// `MULTI`, `DISCARD`, `EXEC`, `WATCH` or `UNWATCH`.
    pub(super) fn run_transaction_command(
        &mut self,
        client: &mut Client,
        request: &Request<'_>,
        server: Server,
    ) -> Flow {
        let is_in_multi = client.session.queue.is_some();
        match server {
            Server::Multi if is_in_multi => fail(client, request.command, Error::NestedMulti),
            Server::Watch if is_in_multi => fail(client, request.command, Error::WatchInMulti),
            Server::Exec | Server::Discard if !is_in_multi => {
                fail(client, request.command, Error::WithoutMulti(request.command));
            }
            Server::Multi => {
                client.session.queue = Some(Box::default());
                answer(client, request, &Reply::Ok);
            }
            Server::Exec => return self.exec(client, request),
            Server::Watch if !client.is_quiet() => return Flow::Later,
            Server::Watch => self.watch(client, request),
            Server::Discard | Server::Unwatch => {
                if server == Server::Discard {
                    client.session.queue = None;
                }
                self.unwatch(client);
                answer(client, request, &Reply::Ok);
            }
            _ => unreachable!("{} is not about transactions", request.command.name),
        }
        Flow::Taken
    }

    fn exec(&mut self, client: &mut Client, request: &Request<'_>) -> Flow {
        let command = request.command;
        let queue = client.session.queue.as_ref().expect("it is there behind MULTI");
        let watched = client.session.watched.as_ref().map(|watched| watched.owners()).unwrap_or_default();
        let lone_owner = queue.lone_owner(watched, self.index);
        match lone_owner {
            _ if queue.is_refused() => {
                self.end_multi(client);
                reject(client, command, Error::ExecAborted);
                return Flow::Taken;
            }
            Some(worker) if self.mesh.is_full(worker) && !self.watchdog.is_hung(worker) => {
                client.waits_for = Some(worker);
                return Flow::Later;
            }
            None if !client.is_quiet() => return Flow::Later,
            Some(_) | None => {}
        }
        let hangs_somewhere = match lone_owner {
            Some(worker) => self.watchdog.is_hung(worker),
            None => self.watchdog.some_hang(),
        };
        if hangs_somewhere {
            self.end_multi(client);
            reject(client, command, hangs());
            return Flow::Taken;
        }
        let busy = match lone_owner {
            Some(worker) => self.shared.long_scripts.busy(worker),
            None => self.shared.long_scripts.any_busy(),
        };
        if let Some(error) = busy {
            self.end_multi(client);
            reject(client, command, Error::ExecAbortedBy(Box::new(error)));
            return Flow::Taken;
        }
        let (queue, watches) = take_multi(client);
        for request in queue.requests() {
            self.traffic.calls.count(request.command, None);
        }
        match lone_owner {
            Some(worker) if worker == self.index => self.exec_here(client, command, queue, watches),
            Some(worker) => {
                let id = RequestId { socket: client.socket, sequence: client.replies.next_sequence() };
                self.traffic.forwarded += 1;
                let list = queue.into_list(watches, client.tracks());
                let size_bytes = self.mesh.run_all(worker, id, list, client.session.dialect);
                client.replies.later(command, worker, size_bytes, self.clock.now().uptime_ms);
            }
            None => {
                let requests = queue.into_list(Vec::new(), Tracks::default()).requests;
                self.begin_program(client, command, (requests, true), watches);
            }
        }
        Flow::Taken
    }

    /// Runs commands as one whose keys all lie on this worker's shard.
    fn exec_here(
        &mut self,
        client: &mut Client,
        command: &'static Command,
        queue: Queue,
        watches: Vec<Watch>,
    ) {
        let Worker { runtime, clock, mesh, index, .. } = self;
        let (now, index) = (clock.now(), *index);
        let tracks = client.tracks();
        let list = queue.into_list(watches, tracks);
        let id = RequestId { socket: client.socket, sequence: client.replies.next_sequence() };
        let asker = Asker { worker: index, request_id: id, dialect: client.session.dialect, tracks };
        if runtime.list_has_to_wait(&list) {
            client.replies.later(command, index, 0, now.uptime_ms);
            return runtime.defer_list(asker, Box::new(list));
        }
        if let Some(error) = runtime.refusal_of_list(&list) {
            runtime.forget_watches(&list.watches);
            return reject(client, command, error);
        }
        let mut out = Vec::new();
        let seq = runtime.execute_list(&list, asker, &mut out, now, mesh);
        let is_alone = client.is_quiet();
        if runtime.holds_back(seq, &mut client.counted_in, is_alone) {
            client.replies.later(command, index, 0, now.uptime_ms);
            runtime.answer_bytes(seq, asker, &out, mesh);
        } else {
            client.shown_in_turn = now.turn;
            client.shown_command = Some(command);
            client.replies.now(|replies| replies.extend_from_slice(&out));
        }
        if tracks.any() {
            self.tell_events_to(Some(client));
        }
    }

    /// Drops what is queued and forgets what is watched.
    fn end_multi(&mut self, client: &mut Client) {
        client.session.queue = None;
        self.unwatch(client);
    }

    // ---- WATCH ----

    fn watch(&mut self, client: &mut Client, request: &Request<'_>) {
        let watched = client.session.watched.get_or_insert_default();
        let new_keys = match watched.new_keys(request, self.mesh.worker_count()) {
            Ok(new_keys) => new_keys,
            Err(error) => return reject(client, request.command, error),
        };
        let is_own = new_keys.iter().all(|(worker, _)| *worker == self.index);
        if is_own {
            for (worker, keys) in new_keys {
                match self.runtime.watch(keys, self.clock.now()) {
                    Ok(watches) => watched.add(worker, watches),
                    Err(error) => return reject(client, request.command, error),
                }
            }
            return answer(client, request, &Reply::Ok);
        }
        let request_id = job_id(client);
        let unanswered = new_keys.iter().map(|(worker, _)| *worker).collect();
        for (worker, keys) in new_keys {
            self.mesh.to(worker).call(request_id, Call::Watch(keys));
        }
        self.begin_job(client, Job::Watch(Watching { command: request.command, unanswered, fault: None }));
    }

    /// Takes one answer to `WATCH`. Returns whether it was the last.
    pub(super) fn on_watch_answered(
        &mut self,
        client: &mut Client,
        watching: &mut Watching,
        from: usize,
        given: Answer,
    ) -> bool {
        match given {
            Answer::Watching(watches) => {
                client.session.watched.get_or_insert_default().add(from, watches);
            }
            Answer::Part(Reply::Error(error)) => watching.fault = Some(error),
            other => unreachable!("{other:?} is no answer to a watch"),
        }
        watching.unanswered.retain(|worker| *worker != from);
        if !watching.unanswered.is_empty() {
            return false;
        }
        match watching.fault.take() {
            Some(error) => reject(client, watching.command, error),
            None => client.replies.now(|out| {
                protocol::write_reply(&Reply::Ok, Some(watching.command), 1, client.session.dialect, out);
            }),
        }
        true
    }

    /// Forgets the keys that a client watches.
    pub(super) fn unwatch(&mut self, client: &mut Client) {
        let Some(watched) = client.session.watched.take() else { return };
        let workers = self.mesh.worker_count();
        let mut watches_of: Vec<Vec<Watch>> = vec![Vec::new(); workers];
        for watch in watched.into_watches() {
            watches_of[owner(&watch.key, workers)].push(watch);
        }
        for (worker, watches) in watches_of.into_iter().enumerate().filter(|(_, it)| !it.is_empty()) {
            if worker == self.index {
                self.runtime.forget_watches(&watches);
            } else {
                self.mesh.to(worker).call(job_id(client), Call::Unwatch(watches));
            }
        }
    }

    // ---- programs ----

    /// Runs a command of the server behind `MULTI`.
    fn run_server_in_multi(&mut self, client: &mut Client, request: &Request<'_>) {
        match request.command.run {
            Run::Server(server) if request.command.group == Group::Pubsub => {
                self.run_pubsub(client, request, server);
            }
            Run::Server(
                server @ (Server::ClientCaching
                | Server::ClientGetredir
                | Server::ClientTracking
                | Server::ClientTrackinginfo),
            ) => self.run_tracking(client, request, server),
            Run::Server(Server::Unwatch) => answer(client, request, &Reply::Ok),
            Run::Server(Server::Monitor | Server::ClientReply) => {
                let error = Error::Unavailable("it has no place between MULTI and EXEC");
                reject(client, request.command, error);
            }
            Run::Server(Server::Wait) => {
                self.run_server_command(client, request);
                if client.is_waiting() {
                    // Nothing waits within a transaction. The number under which its shards answer stays that of its client.
                    client.job = None;
                    answer(client, request, &Reply::Integer(0));
                }
            }
            // Nor does this; what the transaction itself has changed is not in the log yet.
            Run::Server(Server::Waitaof) => {
                let reply = admin::persistence::waitaof_at_once(request).unwrap_or_else(Reply::Error);
                answer(client, request, &reply);
            }
            Run::Server(Server::Container) => match command::resolve(*request) {
                Err(error) => answer(client, request, &admin::unknown_subcommand(error)),
                Ok(_) => unreachable!("only what has no row was queued without it"),
            },
            _ => self.run_server_command(client, request),
        }
    }

    /// Begins to run commands as one over several shards. `command` is what the client has sent.
    pub(super) fn begin_program(
        &mut self,
        client: &mut Client,
        command: &'static Command,
        requests: (Vec<OwnedRequest>, bool),
        watches: Vec<Watch>,
    ) {
        let (id, request_id) = (self.runtime.next_id(&self.shared), job_id(client));
        let program = Program::begin(id, requests, watches, client.tracks(), request_id, &mut self.mesh);
        let mut running = Running { program, command, inner: None, replies_from: None };
        if running.program.transaction().is_locked() {
            // It takes no locks.
            if self.go_on(Some(client), &mut running, request_id) {
                return;
            }
        }
        self.begin_job(client, Job::Program(running));
    }

    /// Takes one answer to a program, without its client where that waits no more. Returns whether it has ended, with its
    /// reply given.
    pub(super) fn on_program_answered(
        &mut self,
        mut client: Option<&mut Client>,
        running: &mut Running,
        (from, request_id): (usize, RequestId),
        given: Answer,
    ) -> bool {
        if let Some(mut inner) = running.inner.take() {
            let is_over = match client.as_deref_mut() {
                Some(client) => self.advance(client, &mut inner, from, given),
                None => self.advance_given_up(&mut inner, from, request_id, given),
            };
            if !is_over {
                running.inner = Some(inner);
                return false;
            }
            return self.go_on(client, running, request_id);
        }
        if let Answer::Part(Reply::Ok) = given {
            return self.go_on(client, running, request_id); // It has let others in between.
        }
        match running.program.answer(from, given, request_id, &mut self.mesh) {
            None => false,
            Some(Told::Ended(reply)) => {
                if let Some(client) = client {
                    end_unrun(client, running, reply);
                }
                true
            }
            Some(Told::Committed) => {
                self.take_replies(client.as_deref_mut(), running);
                if let Some(client) = client {
                    end_replies(client, running);
                }
                true
            }
            Some(Told::Locked) if running.program.is_of_backup() => {
                running.program.transaction().end(request_id, &mut self.mesh);
                true
            }
            Some(Told::Locked | Told::Ran) => {
                self.take_replies(client.as_deref_mut(), running);
                self.go_on(client, running, request_id)
            }
        }
    }

    /// Writes the replies of the hop that has run.
    fn take_replies(&mut self, client: Option<&mut Client>, running: &mut Running) {
        let replies: Vec<_> = running.program.take_replies().collect();
        let Some(client) = client else { return };
        replies.iter().for_each(|(number, reply)| write_reply(client, running, *number, reply));
    }

    /// Goes on with a listing that a program of this client has come to, if it has. Returns whether more can be done in
    /// the next turn.
    pub(super) fn go_on_listing(&mut self, client: &mut Client) -> bool {
        let is_of_program = |job: &mut Box<Job>| match &**job {
            Job::Program(running) => matches!(running.inner.as_deref(), Some(Job::Listing(_))),
            _ => false,
        };
        let Some(mut job) = client.job.take_if(is_of_program) else { return false };
        let Job::Program(running) = &mut *job else { unreachable!("it has just been looked at") };
        client.job = running.inner.take();
        // Its replies leave with those behind it, so it does not wait for the client to take them.
        let reply_bytes = std::mem::replace(&mut client.limits.reply_bytes, usize::MAX);
        let has_more = listing::go_on(client, &self.about());
        client.limits.reply_bytes = reply_bytes;
        running.inner = client.job.take();
        let request_id = job_id(client);
        if has_more || !self.go_on(Some(client), running, request_id) {
            client.job = Some(job);
        }
        has_more
    }

    /// Goes on with a program that waits for nothing. Returns whether it has ended.
    fn go_on(
        &mut self,
        mut client: Option<&mut Client>,
        running: &mut Running,
        request_id: RequestId,
    ) -> bool {
        for _ in 0..HOP_COMMANDS_MAX {
            let record = self.runtime.next_id(&self.shared);
            let terms = self.runtime.terms(self.clock.now());
            match running.program.step(record, &terms, request_id, &mut self.mesh) {
                Step::Awaited => return false,
                Step::Reply(number, reply) => {
                    if let Some(client) = client.as_deref_mut() {
                        begin_replies(client, running, true);
                        write_reply(client, running, number, &reply);
                    }
                }
                Step::Script(number) => {
                    let request = running.program.requests[number].clone();
                    let combined = running.program.take_held(number).and_then(|held| {
                        self.run_on_fetched(&request.request(), &held, client.as_deref_mut())
                    });
                    let step = running.program.apply(number, combined, record, request_id, &mut self.mesh);
                    let Step::Reply(number, reply) = step else { return false };
                    if let Some(client) = client.as_deref_mut() {
                        begin_replies(client, running, true);
                        write_reply(client, running, number, &reply);
                    }
                    if running.program.is_multi {
                        break; // It may have taken long: others go first.
                    }
                }
                Step::Over => {
                    if let Some(client) = client {
                        begin_replies(client, running, running.program.is_multi);
                        end_replies(client, running);
                    }
                    return true;
                }
                Step::Server(number) => {
                    // Without its client nothing but what it has changed matters.
                    let Some(client) = client.as_deref_mut() else { continue };
                    begin_replies(client, running, true);
                    let request = running.program.requests[number].clone();
                    if client.replies.size_bytes() > REPLIES_BYTES_MAX {
                        let error = Error::ReplyTooLarge { limit: REPLIES_BYTES_MAX };
                        fail(client, request.command, error);
                        continue;
                    }
                    self.run_server_in_multi(client, &request.request());
                    running.inner = client.job.take();
                    if running.inner.is_some() {
                        return false;
                    }
                }
            }
        }
        self.mesh.to(self.index).answer(request_id, Answer::Part(Reply::Ok));
        false
    }
}

fn take_multi(client: &mut Client) -> (Queue, Vec<Watch>) {
    let queue = client.session.queue.take().map(|queue| *queue).unwrap_or_default();
    let watches = client.session.watched.take().map(|watched| Watched::into_watches(*watched));
    (queue, watches.unwrap_or_default())
}

/// Writes the reply to a command behind those before it.
fn write_reply(client: &mut Client, running: &mut Running, number: usize, reply: &Reply<'static>) {
    begin_replies(client, running, running.program.is_multi);
    let request = running.program.requests[number].request();
    if running.program.is_multi && client.replies.size_bytes() > REPLIES_BYTES_MAX {
        fail(client, request.command, Error::ReplyTooLarge { limit: REPLIES_BYTES_MAX });
    } else {
        answer(client, &request, reply);
    }
}

/// Begins the list of replies, if that has not begun. Those that come before the end of the commands are to be `kept`
/// until then.
fn begin_replies(client: &mut Client, running: &mut Running, are_kept: bool) {
    if running.replies_from.is_some() || !are_kept {
        return;
    }
    running.replies_from = Some(client.replies.mark());
    if running.program.is_multi {
        let dialect = client.session.dialect;
        client.replies.now(|out| protocol::begin_list(running.program.requests.len(), dialect, out));
    }
}

/// Answers a program of which nothing has run.
fn end_unrun(client: &mut Client, running: &Running, reply: Reply<'static>) {
    match reply {
        _ if running.program.is_of_backup() => {} // Its worker has more to do.
        Reply::Error(error) if running.program.is_multi => {
            reject(client, running.command, Error::ExecAbortedBy(Box::new(error)));
        }
        Reply::Error(error) => reject(client, running.command, error),
        reply => {
            let dialect = client.session.dialect;
            client.replies.now(|out| protocol::write_item(&reply, dialect, out));
        }
    }
}

/// Lets the replies of a program go that has run. Where a shard could not bring its part to disk, the outcome is unknown.
fn end_replies(client: &mut Client, running: &mut Running) {
    let Some(mark) = running.replies_from.take() else { return };
    if let Some(error) = running.program.transaction().fault().cloned() {
        client.replies.rewind(mark);
        fail(client, running.command, error);
    }
    client.replies.release_messages();
}
