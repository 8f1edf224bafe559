//! What becomes of a client's request: run on this worker's shard, sent to the one that owns its keys, or begun as a
//! job over several; and the answers that other workers give. Nothing here waits.

use bytes::Bytes;
use shard::command::{self, Flags, Group, Run, Server};
use shard::{Command, Error, OwnedRequest, PROBED_BYTES_MIN, Reply, Request, has_room_for};

use super::Worker;
use super::runtime::{Executed, give, is_long_read, is_staged};
use super::slowlog::slow_words;
use super::watchdog::{hangs, hangs_in_disk};
use crate::admin::backup::{self, Backup};
use crate::admin::{self, About, Ask, Gathered, Next, ScanArguments};
use crate::client::Client;
use crate::client::job::{Job, Wait};
use crate::client::reply::{answer, answer_error, fail, fill_error, job_id, reject};
use crate::durability::snapshotter;
use crate::mesh::{Answer, Asker, Batch, Call, RequestId, ShardImage};
use crate::metrics::calls::Measured;
use crate::metrics::errors;
use crate::protocol::{self, Dialect, Parser};
use crate::slots::{Route, owner, route};
use crate::txn::gather::Gather;
use crate::txn::scan::{Walk, Walked};

/// How often the arguments of a request are copied, where its memory cannot be shared: for another shard, into the
/// keyspace, the changes, the frame of the log.
const COPIES: usize = 4;

/// What became of a parsed request.
pub(super) enum Flow {
    /// It was answered, or will be.
    Taken,
    /// It cannot run yet: the client's earlier requests must be answered first.
    Later,
}

impl Worker {
    #[inline]
    pub(super) fn dispatch(
        &mut self,
        parser: &Parser,
        client: &mut Client,
        input: &[u8],
        memory: Option<&Bytes>,
    ) -> Flow {
        if self.control.is_active() | client.session.needs_care {
            return self.dispatch_with_care(parser, client, input, memory);
        }
        self.dispatch_plainly(parser, client, input, memory)
    }

    /// As [`Worker::dispatch`], where nothing is unusual about the server or this client, or that was looked at.
    #[inline]
    pub(super) fn dispatch_plainly(
        &mut self,
        parser: &Parser,
        client: &mut Client,
        input: &[u8],
        memory: Option<&Bytes>,
    ) -> Flow {
        client.waits_for_last = false;
        let Some(command) = parser.command() else {
            self.traffic.requests += 1;
            if let Some(queue) = &mut client.session.queue {
                queue.refuse();
            }
            answer_error(client, parser.unknown_command(input));
            return Flow::Taken;
        };
        let request = match memory {
            None => parser.request(input, command),
            Some(memory) => parser.request_in(memory, command),
        };
        let request = request.in_database(client.session.database);
        let admitted = match self.admit(request, client, input.len()) {
            Ok(admitted) => admitted,
            Err(reply) => {
                self.traffic.requests += 1;
                self.traffic.calls.count(command, None);
                self.answer_unrun(client, &request, reply);
                return Flow::Taken;
            }
        };
        let request = admitted;
        client.last_command = Some(request.command);
        if client.session.queue.is_some() && !request.command.has(Flags::NOT_QUEUED) {
            self.traffic.requests += 1;
            self.enqueue(client, &request);
            return Flow::Taken;
        }
        let is_measured = client.measured.is_none();
        let began = if is_measured { self.traffic.calls.begin(request.command) } else { None };
        let flow = self.run_request(client, &request);
        if matches!(flow, Flow::Taken) {
            if let Some(tracking) = client.tracking.as_deref_mut()
                && request.command.container != Some("CLIENT")
                && client.session.queue.is_none()
            {
                tracking.is_caching = false; // That was about this command.
            }
            self.traffic.requests += 1;
            if let Some(measured) = self.traffic.calls.count(request.command, began) {
                self.end_taken(client, measured, request.command, parser, input);
            }
        }
        flow
    }

    /// Answers a request that is not to run: with an error, or with the help for its command.
    #[cold]
    fn answer_unrun(&mut self, client: &mut Client, request: &Request<'_>, reply: Reply<'static>) {
        let is_exec = request.command.run == Run::Server(Server::Exec);
        match (reply, client.session.queue.as_mut()) {
            (Reply::Error(error), _) if is_exec => {
                client.session.queue = None;
                self.unwatch(client);
                reject(client, request.command, Error::ExecAbortedBy(Box::new(error)));
            }
            (Reply::Error(error), queue) => {
                if let Some(queue) = queue {
                    queue.refuse();
                }
                reject(client, request.command, error);
            }
            (_, Some(_)) => self.enqueue(client, request),
            (help, None) => answer(client, request, &help),
        }
    }

    /// A request that is measured was taken: it is answered, or will be.
    #[cold]
    fn end_taken(
        &mut self,
        client: &mut Client,
        measured: Measured,
        command: &'static Command,
        parser: &Parser,
        input: &[u8],
    ) {
        let awaited = match client.job {
            Some(_) => Some((client.replies.next_sequence(), None)),
            None => client.replies.last_awaited().map(|(sequence, worker)| (sequence, Some(worker))),
        };
        // Where only the disk is waited for, the work is done.
        let is_done = match awaited {
            None => true,
            Some((_, worker)) => worker == Some(self.index) && !client.waits_for_last,
        };
        if is_done {
            let took = measured.elapsed();
            self.note_if_slow(client, command, took, || slow_words(command, parser, input));
        } else {
            // It is done, too, where others are asked what they know of themselves; but what they tell is without it.
            let asks = matches!(client.job.as_deref(), Some(Job::Gather(_)));
            let took = (asks && matches!(command.run, Run::Server(_))).then(|| measured.elapsed());
            self.note_candidate(client, command, took, || slow_words(command, parser, input));
        }
        match awaited {
            Some((sequence, _)) => client.measured = Some((sequence, measured)),
            None => {
                self.traffic.calls.end(measured);
            }
        }
    }

    /// The request with its subcommand's row, or why it cannot run.
    #[inline]
    fn admit<'r>(
        &self,
        request: Request<'r>,
        client: &Client,
        request_bytes: usize,
    ) -> Result<Request<'r>, Reply<'static>> {
        let request = command::resolve(request).map_err(admin::unknown_subcommand)?;
        let command = request.command;
        protocol::check_arity(command, request.arg_count())?;
        let is_shared = request.large_arg().is_some() && !matches!(command.run, Run::Server(_));
        let copied_bytes = if request_bytes < PROBED_BYTES_MIN || is_shared { 0 } else { request_bytes };
        if !has_room_for(COPIES * copied_bytes) {
            return Err(Error::OutOfMemory.into());
        }
        let dialect = client.session.dialect;
        if client.subscriptions.is_some()
            && dialect != Dialect::Resp3
            && !command.has(Flags::WHILE_SUBSCRIBED)
        {
            return Err(Error::Subscribed(command).into());
        }
        if self.lifecycle.is_loading() && !command.has(Flags::LOADING) {
            return Err(Error::Loading { percent: self.shared.loading.percent() }.into());
        }
        if self.is_in_script && !command.has(Flags::ALLOW_BUSY) {
            return Err(self
                .shared
                .long_scripts
                .busy(self.index)
                .unwrap_or(Error::Busy { is_function: false })
                .into());
        }
        protocol::check_time(&request, dialect)?;
        Ok(request)
    }

    /// Has a request run where its keys live, or by the server.
    #[inline]
    fn run_request(&mut self, client: &mut Client, request: &Request<'_>) -> Flow {
        let command = request.command;
        let single = self.mesh.worker_count() == 1;
        match command.run {
            Run::Key | Run::Keys(..) | Run::Combine => match route(request, self.mesh.worker_count()) {
                Route::One(worker) if worker == self.index => self.run_here(client, request),
                Route::Any => self.run_here(client, request),
                Route::One(worker) if self.mesh.is_full(worker) && !self.watchdog.is_hung(worker) => {
                    client.waits_for = Some(worker);
                    return Flow::Later;
                }
                Route::One(worker) => self.run_there(worker, client, request),
                Route::Several if !client.is_quiet() => return Flow::Later,
                Route::Several => match self.refusal_of_owners(request) {
                    Some(error) => reject(client, command, error),
                    None => self.begin_transaction(client, request),
                },
            },
            Run::Server(
                server @ (Server::Discard | Server::Exec | Server::Multi | Server::Unwatch | Server::Watch),
            ) => return self.run_transaction_command(client, request, server),
            Run::EveryShard(..) if single => self.run_here(client, request),
            Run::EveryShard(..) | Run::Server(_) if !client.is_quiet() => return Flow::Later,
            Run::Server(
                server @ (Server::ClientCaching
                | Server::ClientGetredir
                | Server::ClientTracking
                | Server::ClientTrackinginfo),
            ) => self.run_tracking(client, request, server),
            Run::Server(server) if command.group == Group::Pubsub => {
                return self.run_pubsub_in_time(client, request, server);
            }
            Run::EveryShard(..) if let Some(error) = self.shared.long_scripts.any_busy() => {
                reject(client, command, error);
            }
            Run::EveryShard(..) if self.watchdog.some_hang() => reject(client, command, hangs()),
            Run::EveryShard(..) if command.has(Flags::WRITE) => {
                self.begin_transaction(client, request);
            }
            Run::EveryShard(..) => self.begin_gather(client, request, self.responsive(), |batch| {
                Call::RunPart { command: request.command, args: batch.args(request.database, request.args()) }
            }),
            Run::Server(_) => self.run_server_command(client, request),
            Run::Script => return self.dispatch_script(client, request),
        }
        Flow::Taken
    }

    /// Carries out a command of the server.
    pub(super) fn run_server_command(&mut self, client: &mut Client, request: &Request<'_>) {
        let command = request.command;
        if command.run == Run::Server(Server::Reset) {
            self.unwatch(client);
            self.forget_subscriptions(client);
        }
        if request.command.container == Some("CONFIG") {
            self.tell_events_to(Some(&mut *client)); // What has happened is told as it was wanted then.
        }
        let busy = self.shared.long_scripts.any_busy().filter(|_| !command.has(Flags::ALLOW_BUSY));
        // These change something before other workers are asked.
        let is_order = command.has(Flags::ADMIN) || command.group == Group::Scripting;
        if let Some(error) = busy.clone().filter(|_| is_order) {
            return reject(client, command, error);
        }
        match (admin::run(client, request, &self.about()), busy) {
            (next, Some(error)) if next.needs_others() => reject(client, command, error),
            (next, _) => self.take_next(client, request, next),
        }
    }

    /// Does what is to be done for a command of the server.
    fn take_next(&mut self, client: &mut Client, request: &Request<'_>, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Ask(ask) => self.ask(client, request, ask),
            Next::Scripting => self.run_scripting(client, request),
            Next::Describe => {
                let described = Reply::Text(self.describe_client(client, 0, 0));
                answer(client, request, &described);
            }
            Next::Wait { timeout_ms } => {
                let until_ms = timeout_ms.map(|ms| self.clock.now().uptime_ms.saturating_add(ms));
                self.next_timeout_ms = self.next_timeout_ms.min(until_ms.unwrap_or(u64::MAX));
                self.begin_job(client, Job::Wait(Wait { request: OwnedRequest::new(request), until_ms }));
            }
            Next::Stop => self.stop(client),
            Next::Sleep(time) => {
                // What it is for: a worker that does nothing for a while.
                std::thread::sleep(time);
                answer(client, request, &Reply::Ok);
            }
            Next::Backup => self.begin_transaction(client, request),
            Next::Listing(listing) => self.begin_job(client, Job::Listing(listing)),
            Next::Keys(pattern) => {
                let asks = (request, client.session.dialect);
                let walk = Walk::all(pattern, asks, job_id(client), &mut self.mesh);
                self.begin_job(client, Job::Walk(walk));
            }
            Next::Scan(ScanArguments { cursor, count, pattern }) => {
                let (asks, id) = ((request, client.session.dialect), job_id(client));
                match Walk::page(cursor, count, pattern, asks, id, &mut self.mesh) {
                    Some(walk) => self.begin_job(client, Job::Walk(walk)),
                    // A cursor that no `SCAN` has returned names an empty last page.
                    None => client.replies.now(|out| protocol::begin_page(0, 0, client.session.dialect, out)),
                }
            }
        }
    }

    /// What the commands of the server are told.
    pub(super) fn about(&self) -> About<'_> {
        About {
            shared: &self.shared,
            worker: self.index,
            workers: self.mesh.worker_count(),
            clock: self.clock.of_shard(),
            now_ms: self.clock.now().now_ms,
            uptime_ms: self.clock.now().uptime_ms,
            auto_ttl: self.runtime.auto_ttl(),
            some_hang: self.watchdog.some_hang(),
        }
    }

    /// Runs a command whose keys all lie on this worker's shard.
    #[inline]
    fn run_here(&mut self, client: &mut Client, request: &Request<'_>) {
        let Worker { runtime, clock, mesh, index, .. } = self;
        let (now, index) = (clock.now(), *index);
        let later = |client: &mut Client| {
            let sequence = client.replies.later(request.command, index, 0, now.uptime_ms);
            let request_id = RequestId { socket: client.socket, sequence };
            Asker { worker: index, request_id, dialect: client.session.dialect, tracks: client.tracks() }
        };
        if let Some(error) = runtime.refusal(request) {
            reject(client, request.command, error);
        } else if is_staged(request) {
            let asker = later(client);
            client.waits_for_last = true;
            runtime.stage(asker, OwnedRequest::new(request));
        } else if runtime.has_to_wait(request) {
            let asker = later(client);
            client.waits_for_last |= is_long_read(request);
            // It is answered as a request from a peer is.
            runtime.defer(asker, request);
        } else if is_long_read(request) {
            let asker = later(client);
            client.waits_for_last = true;
            runtime.begin_long_read(asker, request);
        } else {
            let tracks = client.tracks();
            if tracks.any() {
                runtime.gather_events(None);
            }
            let Executed { reply, seq, journal, siblings } = runtime.execute(request, now, mesh);
            if journal.holds_back(seq) {
                let is_alone = client.is_quiet();
                siblings.note(&mut client.counted_in, is_alone);
                let asker = later(client);
                give(journal, seq, asker, mesh, &reply, request);
            } else {
                client.shown_in_turn = now.turn;
                client.shown_command = Some(request.command);
                answer(client, request, &reply);
            }
            if tracks.any() {
                runtime.note_tracked((index, client.socket), tracks, request);
                self.tell_events_to(Some(client));
            }
        }
    }

    /// Why a command cannot run now whose keys lie on several shards, if one of these cannot take it.
    pub(super) fn refusal_of_owners(&self, request: &Request<'_>) -> Option<Error> {
        let workers = self.mesh.worker_count();
        let busy = request.keys().find_map(|key| self.shared.long_scripts.busy(owner(key, workers)));
        busy.or_else(|| self.watchdog.any_hangs(request.keys()).then(hangs))
    }

    /// Has another worker run a command whose keys all lie on its shard.
    pub(super) fn run_there(&mut self, worker: usize, client: &mut Client, request: &Request<'_>) {
        if self.watchdog.is_hung(worker) {
            return reject(client, request.command, hangs());
        }
        if let Some(error) = self.shared.long_scripts.busy(worker) {
            return reject(client, request.command, error);
        }
        let id = RequestId { socket: client.socket, sequence: client.replies.next_sequence() };
        client.waits_for_last |= is_staged(request) || is_long_read(request);
        self.traffic.forwarded += 1;
        let size_bytes = self.mesh.run(worker, id, request, client.session.dialect, client.tracks());
        client.replies.later(request.command, worker, size_bytes, self.clock.now().uptime_ms);
    }

    pub(super) fn begin_transaction(&mut self, client: &mut Client, request: &Request<'_>) {
        self.begin_program(client, request.command, (vec![OwnedRequest::new(request)], false), Vec::new());
    }

    pub(super) fn begin_job(&self, client: &mut Client, job: Job) {
        client.job = Some(Box::new(job));
        client.job_since_ms = self.clock.now().uptime_ms;
    }

    /// The workers that do not hang.
    fn responsive(&self) -> Vec<usize> {
        (0..self.mesh.worker_count()).filter(|worker| !self.watchdog.is_hung(*worker)).collect()
    }

    fn workers_for(&self, ask: &Ask) -> Vec<usize> {
        if ask.is_of_first {
            return vec![0];
        }
        if ask.asks_hung { (0..self.mesh.worker_count()).collect() } else { self.responsive() }
    }

    fn begin_gather(
        &mut self,
        client: &mut Client,
        request: &Request<'_>,
        workers: Vec<usize>,
        call: impl Fn(&mut Batch) -> Call,
    ) {
        let mut gather = Gather::begin(workers, request, job_id(client), &mut self.mesh, call);
        gather.report.wal_fault = self.watchdog.hung().iter().position(|hung| *hung).map(hangs_in_disk);
        self.begin_job(client, Job::Gather(gather));
    }

    /// Asks workers for a command of the server.
    pub(super) fn ask(&mut self, client: &mut Client, request: &Request<'_>, ask: Ask) {
        let workers = self.workers_for(&ask);
        self.begin_gather(client, request, workers, |_| ask.call.clone());
        if let Some(Job::Gather(gather)) = client.job.as_deref_mut() {
            gather.then = ask.then;
            gather.deadline_ms = ask.timeout_ms.map(|ms| client.job_since_ms.saturating_add(ms));
            self.next_timeout_ms = self.next_timeout_ms.min(gather.deadline_ms.unwrap_or(u64::MAX));
        }
    }

    /// The reply to a command of the server for which workers were asked, or what they have to be asked next.
    pub(super) fn conclude(
        &mut self,
        client: &mut Client,
        gathered: Gathered,
    ) -> Result<Reply<'static>, Box<Ask>> {
        match gathered {
            Gathered::Monitor => {
                client.session.monitors = true;
                Ok(Reply::Ok)
            }
            Gathered::Stop => {
                self.stop(client);
                client.replies.mute(); // The end of the connection is the answer.
                Ok(Reply::Ok)
            }
            Gathered::Reply(reply) => Ok(reply),
            Gathered::Ask(ask) => Err(ask),
            Gathered::Compact(reply) => {
                for worker in 0..self.mesh.worker_count() {
                    self.mesh.to(worker).call(snapshotter::REQUEST_ID, Call::CompactUnheard);
                }
                Ok(reply)
            }
        }
    }

    /// Begins to copy the shards, if all of them could be locked.
    fn begin_backup(
        &mut self,
        request: &OwnedRequest,
        shard_images: Vec<ShardImage>,
        request_id: RequestId,
    ) -> Result<(), Error> {
        let path = backup::place(self.shared.config.backup_dir.as_deref(), request.request().arg(0))?;
        let wakeup = self.net.wakeup().try_clone_to_owned();
        let wakeup = wakeup.map_err(|error| Error::BackupFailed { cause: error.to_string().into() })?;
        self.backup = Some(Backup::begin(
            self.shared.clone(),
            (shard_images, self.scripts.libraries().clone()),
            path,
            request_id,
            wakeup,
        )?);
        Ok(())
    }

    /// Tells the client that asked for a backup that it has ended. Returns whether one has.
    pub(super) fn end_backup(&mut self) -> bool {
        let ended =
            self.backup.as_ref().and_then(|backup| backup.ended(&self.shared, self.clock.now().now_ms));
        let Some((request_id, reply)) = ended else { return false };
        self.backup = None;
        self.mesh.to(self.index).answer(request_id, Answer::Part(reply));
        true
    }

    pub(super) fn on_answer(&mut self, from: usize, request_id: RequestId, answer: Answer, batch: &Batch) {
        if request_id == snapshotter::REQUEST_ID {
            let failed = matches!(answer, Answer::Part(Reply::Error(_)));
            self.runtime.on_peer_synced(!failed, &mut self.mesh);
            return;
        }
        let Some(mut connection) = self.clients.take_out(request_id.socket) else {
            unreachable!("a connection stays until everything it asked for is answered");
        };
        let client = &mut connection.client;
        if let Some(at) = client.given_up.iter().position(|(sequence, _)| *sequence == request_id.sequence) {
            if self.advance_given_up(&mut client.given_up[at].1, from, request_id, answer) {
                client.given_up.swap_remove(at);
            }
            return self.clients.put_back(connection);
        }
        let sent = match answer {
            Answer::Bytes(range) => {
                let bytes = batch.bytes(range);
                client.replies.fill(request_id.sequence, |out| out.extend_from_slice(bytes))
            }
            Answer::Value(value) => {
                let before = |out: &mut Vec<u8>| protocol::begin_value(&value, out);
                client.replies.fill_value(request_id.sequence, before, value.clone(), protocol::VALUE_END)
            }
            Answer::Failed(error) => fill_error(client, request_id.sequence, error, errors::note_failed),
            Answer::Rejected(error) => fill_error(client, request_id.sequence, error, errors::note_rejected),
            part => {
                let mut job = client.job.take().expect("only jobs are answered by parts");
                if !self.advance(client, &mut job, from, part) {
                    client.job = Some(job);
                    client.job_since_ms = self.clock.now().uptime_ms;
                } else if let Some((_, measured)) = client.measured.take() {
                    self.end_measured(client, measured);
                }
                if client.job.is_none() {
                    client.replies.release_all_messages();
                }
                return self.clients.put_back(connection);
            }
        };
        if sent.worker != self.index {
            self.mesh.answered(sent.worker, sent.size_bytes);
        }
        if let Some((_, measured)) = client.measured.take_if(|it| it.0 == request_id.sequence) {
            self.end_measured(client, measured);
        }
        self.clients.put_back(connection);
    }

    /// Takes one answer to a job. Returns whether the job has ended, with its reply given.
    pub(super) fn advance(&mut self, client: &mut Client, job: &mut Job, from: usize, given: Answer) -> bool {
        let request_id = job_id(client);
        match (&mut *job, given) {
            (Job::Program(running), given) => {
                if !self.on_program_answered(Some(client), running, (from, request_id), given) {
                    return false;
                }
                if running.program.is_of_backup() {
                    let (request, transaction) =
                        (running.program.first().clone(), running.program.transaction());
                    let fault = transaction.fault().cloned();
                    let begun = fault.map_or_else(
                        || self.begin_backup(&request, transaction.take_images(), request_id),
                        Err,
                    );
                    let Err(error) = begun else {
                        *job = Job::Backup(request);
                        return false;
                    };
                    self.shared.backups.end(true, self.clock.now().now_ms);
                    answer(client, &request.request(), &Reply::Error(error));
                }
            }
            (Job::Watch(watching), given) => return self.on_watch_answered(client, watching, from, given),
            (Job::Backup(request), Answer::Part(reply)) => answer(client, &request.request(), &reply),
            (Job::Backup(_), _) => unreachable!("a backup ends with one answer"),
            (Job::Walk(walk), Answer::Page(page)) => {
                let Some(walked) = walk.answer(*page, request_id, &mut self.mesh) else { return false };
                let Walked { items, count, cursor } = walked;
                client.replies.now(|out| match walk.is_all() {
                    true => protocol::begin_list(count, client.session.dialect, out),
                    false => protocol::begin_page(cursor, count, client.session.dialect, out),
                });
                client.replies.now_sealed(items);
            }
            (Job::Gather(gather), given) => {
                if !gather.answer(from, given) {
                    return false;
                }
                let request = gather.request.clone();
                let request = request.request();
                let gathered = match request.command.run {
                    Run::EveryShard(merge) => Gathered::Reply(gather.merge(merge)),
                    _ => admin::gathered(&request, client.session.dialect, gather, &self.about()),
                };
                let reply = match self.conclude(client, gathered) {
                    Ok(reply) => reply,
                    Err(ask) => {
                        let workers = self.workers_for(&ask);
                        let Ask { call, then, .. } = *ask;
                        *gather =
                            Gather::begin(workers, &request, request_id, &mut self.mesh, |_| call.clone());
                        gather.then = then;
                        return false;
                    }
                };
                answer(client, &request, &reply);
            }
            (Job::Subscribe(subscribing), Answer::Noted) => {
                if !subscribing.note(from) {
                    return false;
                }
                subscribing.tell(client);
            }
            (Job::FindClient(finding), Answer::FoundClient(socket)) => {
                if !finding.note(from, socket) {
                    return false;
                }
                self.on_client_found(client, finding);
                if let Some(next) = client.job.take() {
                    *job = *next;
                    return false;
                }
            }
            (Job::FindClient(_), _) => unreachable!("each worker says whether it serves a client"),
            (Job::Subscribe(_), _) => unreachable!("a subscription is taken note of"),
            (Job::Walk(walk), Answer::Part(Reply::Error(error))) => fail(client, walk.command(), error),
            (Job::Walk(_), _) => unreachable!("a walk is answered by pages"),
            (Job::Listing(_) | Job::Wait(_), _) => unreachable!("it asks no worker"),
        }
        true
    }

    /// Ends the server, as a signal does. The client that asks for it is not answered.
    fn stop(&mut self, client: &Client) {
        let (id, name) = (client.id, String::from_utf8_lossy(&client.session.name).into_owned());
        tracing::info!(client = id, name, "stopping, as a client asks");
        if self.lifecycle.is_loading() {
            // Nothing was acknowledged: it ends at once.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
            return;
        }
        self.shared.stop();
        for worker in 0..self.mesh.worker_count() {
            self.mesh.to(worker).call(snapshotter::REQUEST_ID, Call::Wake);
        }
    }
}
