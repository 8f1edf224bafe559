//! Scripts: where a call runs, what its commands do, and what happens while it takes long.

use std::collections::{HashSet, VecDeque};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use shard::combine::{Combined, Deadline, Effect, Held};
use shard::command::{Flags, Library, Run, Server};
use shard::{Change, Changes, Error, Glob, Mark, Reply, Request, Shard, parse_database};

use super::Worker;
use super::dispatch::Flow;
use super::messages::kind_of;
use super::runtime::{Executed, Granted};
use super::turn::Now;
use crate::admin::Ask;
use crate::client::Client;
use crate::client::reply::{answer, reject};
use crate::clock::wall_clock_us;
use crate::mesh::{Answer, Asker, Batch, Call, RequestId};
use crate::net::{self, Event};
use crate::protocol::REQUEST_BYTES_MAX;
use crate::recovery;
use crate::scripting::libraries::{Libraries, LibraryChange};
use crate::scripting::{Host, Script, file, refusal};
use crate::slots::{Route, owner, route};
use crate::txn::program::{CHANGE_BYTES_MAX, changes_too_much};

/// A key that the script has not declared, and that cannot be reached.
const UNDECLARED: Error = Error::Unavailable(
    "a script uses a key of another shard, or one that another transaction has locked: name it among the keys",
);
/// A command that only a client can send.
const NOT_FROM_SCRIPT: Error = Error::Unavailable("this command does not run within a script");

/// The most bytes of what keys hold that a script over several shards has changed: a frame has less than 2 GiB.
const EFFECT_BYTES_MAX: usize = REQUEST_BYTES_MAX;

/// How a script's debugger is refused.
const NO_DEBUGGER: &str = "there is no debugger for scripts: redis.log writes into the log of the server";

impl Worker {
    /// Has a script run where its keys live.
    pub(super) fn dispatch_script(&mut self, client: &mut Client, request: &Request<'_>) -> Flow {
        let is_looked_for = std::mem::take(&mut client.looks_for_script);
        let prepared = match self.scripts.prepare(request) {
            Ok(prepared) => prepared,
            // Another worker may have told of it already, to be heard in this turn.
            Err(Error::NoScript) if !is_looked_for && self.mesh.worker_count() > 1 => {
                client.looks_for_script = true;
                return Flow::Later;
            }
            Err(error) => {
                reject(client, request.command, error);
                return Flow::Taken;
            }
        };
        if let Some(script) = prepared.new {
            self.tell_of(&script);
        }
        match route(request, self.mesh.worker_count()) {
            Route::Any => self.run_script_here(client, request),
            Route::One(worker) if worker == self.index => self.run_script_here(client, request),
            Route::One(worker) if self.mesh.is_full(worker) && !self.watchdog.is_hung(worker) => {
                client.waits_for = Some(worker);
                return Flow::Later;
            }
            Route::One(worker) => {
                // The worker that told this one of the script may be heard there behind this one.
                if let Some(script) = self.scripts.not_told(request, worker) {
                    self.mesh.to(worker).call(RequestId::NONE, Call::LearnScript(script));
                }
                self.run_there(worker, client, request);
            }
            Route::Several if !client.is_quiet() => return Flow::Later,
            Route::Several => match self.refusal_of_owners(request) {
                Some(error) => reject(client, request.command, error),
                None => self.begin_transaction(client, request),
            },
        }
        Flow::Taken
    }

    /// Has the other workers know a script.
    fn tell_of(&mut self, script: &Arc<Script>) {
        for worker in (0..self.mesh.worker_count()).filter(|worker| *worker != self.index) {
            self.mesh.to(worker).call(RequestId::NONE, Call::LearnScript(script.clone()));
        }
    }

    fn run_script_here(&mut self, client: &mut Client, request: &Request<'_>) {
        let (now, index) = (self.clock.now(), self.index);
        let later = |client: &mut Client| {
            let sequence = client.replies.later(request.command, index, 0, now.uptime_ms);
            let request_id = RequestId { socket: client.socket, sequence };
            Asker { worker: index, request_id, dialect: client.session.dialect, tracks: client.tracks() }
        };
        if self.runtime.has_to_wait(request) {
            let asker = later(client);
            client.waits_for_last = true;
            return self.runtime.defer(asker, request);
        }
        let tracks = client.tracks();
        if tracks.any() {
            self.runtime.gather_events(None);
        }
        let (reply, seq) = self.run_script(request, Some(&mut *client));
        if tracks.any() {
            self.runtime.note_tracked((index, client.socket), tracks, request);
        }
        let is_alone = client.is_quiet();
        if self.runtime.holds_back(seq, &mut client.counted_in, is_alone) {
            let asker = later(client);
            return self.runtime.give_reply(seq, asker, &mut self.mesh, &reply, request);
        }
        client.shown_in_turn = now.turn;
        client.shown_command = Some(request.command);
        answer(client, request, &reply);
    }

    /// Runs a script for a worker, now or as soon as no transaction has its keys.
    pub(super) fn take_script(&mut self, asker: Asker, request: &Request<'_>) {
        if self.runtime.has_to_wait(request) {
            self.runtime.defer(asker, request);
        } else {
            self.run_script_for(asker, request);
        }
    }

    fn run_script_for(&mut self, asker: Asker, request: &Request<'_>) {
        if asker.tracks.any() {
            self.runtime.gather_events(None);
        }
        let (reply, seq) = self.run_script(request, None);
        if asker.tracks.any() {
            self.runtime.note_tracked((asker.worker, asker.request_id.socket), asker.tracks, request);
        }
        self.runtime.give_reply(seq, asker, &mut self.mesh, &reply, request);
    }

    /// Runs the requests that got their locks, in order.
    pub(super) fn run_granted(&mut self) {
        while let Some(granted) = self.runtime.next_granted() {
            match granted {
                Granted::Request(asker, request) if request.command.run == Run::Script => {
                    self.run_script_for(asker, &request.request());
                }
                Granted::Request(asker, request) => {
                    let (runtime, turn) = &mut self.runtime_and_turn();
                    runtime.run_for(asker, &request.request(), turn);
                }
                Granted::List(asker, list) => {
                    let (runtime, turn) = &mut self.runtime_and_turn();
                    runtime.run_list_for(asker, &list, turn);
                }
                Granted::Part(transaction) => {
                    let (runtime, turn) = &mut self.runtime_and_turn();
                    runtime.locked(transaction, turn);
                }
                Granted::Snapshotter => {
                    let (runtime, turn) = &mut self.runtime_and_turn();
                    runtime.on_quiescence(turn);
                }
            }
        }
    }

    /// Runs a script. Returns its reply, and the frame that this depends on.
    fn run_script(&mut self, request: &Request<'_>, client: Option<&mut Client>) -> (Reply<'static>, u64) {
        let mark = self.runtime.begin_script();
        let mut scripts = self.scripts.lend();
        let mut run = RunningScript::new(self, client, request, mark);
        let reply = scripts.run(request, &mut run);
        let (seq, changes) = (run.seq, run.end());
        self.scripts = scripts;
        (reply, changes.map_or(seq, |changes| seq.max(self.runtime.adopt(changes))))
    }

    /// Runs a script on copies of what its keys hold, which several shards own or a transaction has changed. Its effects
    /// are what has become of them.
    ///
    /// # Errors
    /// The script's; it has no effects then.
    pub(super) fn run_on_fetched(
        &mut self,
        request: &Request<'_>,
        held: &[Option<Held<'static>>],
        client: Option<&mut Client>,
    ) -> Result<Combined, Error> {
        if let Some(script) = self.scripts.prepare(request)?.new {
            self.tell_of(&script);
        }
        let now = self.clock.now();
        let terms = self.runtime.terms(now);
        let databases = self.shared.config.databases;
        let mut copies = Shard::new(recovery::random_seeds()).with_databases(databases);
        copies = copies.with_value_len_max(terms.value_len_max);
        copies.set_wall_ahead(terms.wall_ahead_ms);
        copies.set_auto_ttl(self.runtime.auto_ttl().clone());
        copies.apply(&Change::Keyspace(request.database));
        for (key, held) in request.keys().zip(held) {
            if let Some(held) = held {
                copies.apply(&Change::Put { key, value: held.value(), deadline_ms: held.deadline_ms });
            }
        }
        let copies = Copies {
            shard: copies,
            changes: Changes::default(),
            keys: request.keys().map(Box::from).collect(),
        };
        let mark = self.runtime.begin_script();
        let mut scripts = self.scripts.lend();
        let mut run = RunningScript::new(self, client, request, mark);
        run.copies = Some(copies);
        let reply = scripts.run(request, &mut run);
        let copies = run.copies.take().filter(|_| !run.is_cut);
        let nothing = run.end();
        debug_assert!(nothing.is_none_or(|changes| changes.is_empty()), "the shard itself was left alone");
        self.scripts = scripts;
        let Some(mut copies) = copies else { return Ok(reply.into()) };
        let (mut effects, mut bytes) = (Vec::new(), 0);
        if !copies.changes.is_empty() {
            let after = copies.shard.fetch(request.database, request.keys(), now.now_ms)?;
            for (key, (before, after)) in held.iter().zip(after).enumerate() {
                let name = request.keys().nth(key).expect("each key is held, or not");
                // A key may be named twice.
                let is_first = copies.keys.remove(name);
                match after {
                    _ if !is_first || *before == after => {}
                    None => effects.push(Effect::remove(key)),
                    Some(after) => {
                        bytes += name.len() + after.value().len();
                        if bytes > EFFECT_BYTES_MAX {
                            return Err(changes_too_much());
                        }
                        let deadline = Deadline::Exactly(after.deadline_ms);
                        effects.push(Effect::put(key, after.to_bytes()?, deadline));
                    }
                }
            }
        }
        Ok(Combined { reply, effects })
    }

    /// A turn in which no command runs but what ends a script, or does not mind it.
    fn reduced_turn(&mut self) {
        {
            let (runtime, mut turn) = self.runtime_and_turn();
            runtime.write_log(&mut turn);
        }
        self.follow_outcomes();
        self.shared.beat(self.index, self.shared.started.elapsed().as_millis() as u64);
        let mut fresh = Vec::new();
        if self.net.turn(&mut fresh).is_err() {
            return; // The next turn meets the same fault, and ends the worker.
        }
        fresh.reverse();
        fresh.append(&mut self.events);
        self.events = fresh;
        while let Some(event) = self.events.pop() {
            match event {
                // The client of the script is not at hand: what it has sent waits for the script's end.
                Event::Received(id, _)
                | Event::Ended(id, _)
                | Event::SendFailed(id, _)
                | Event::Sent(id, _)
                    if !self.clients.has(id) =>
                {
                    self.late_events.push(event);
                }
                event => self.on_event(event),
            }
        }
        for worker in 0..self.mesh.worker_count() {
            while let Some(batch) = self.mesh.receive(worker) {
                self.look_through(worker, batch);
            }
        }
        self.mesh.send(&mut self.net);
        // The script's own client is one of those that may be listed, and is looked after behind it.
        let absent = self.clients.take_absent_ready();
        self.look_after_clients();
        self.clients.put_back_ready(absent);
    }

    /// Takes from a message what can be dealt with while a script takes long: clients that ask for keys are told so. The
    /// rest is for later.
    fn look_through(&mut self, from: usize, mut batch: Box<Batch>) {
        for accepted in batch.take_accepted() {
            self.welcome(accepted);
        }
        let busy = self.shared.long_scripts.busy(self.index).unwrap_or(Error::Busy { is_function: false });
        let (mut calls, mut answers) = (batch.take_calls(), batch.take_answers());
        calls.retain(|(id, call)| {
            let is_refused = matches!(call, Call::Run { .. } | Call::RunOwned(..) | Call::RunAll(..));
            if is_refused {
                if let Call::RunAll(list, _) = call {
                    self.runtime.forget_watches(&list.watches);
                }
                self.mesh.to(from).answer(*id, Answer::Rejected(busy.clone()));
            }
            !is_refused
        });
        let (now, later) = answers.drain(..).partition(|(id, answer)| {
            let is_reply = matches!(
                answer,
                Answer::Bytes(_) | Answer::Value(_) | Answer::Failed(_) | Answer::Rejected(_)
            );
            is_reply && self.clients.has(id.socket)
        });
        let now: Vec<(RequestId, Answer)> = now;
        now.into_iter().for_each(|(id, answer)| self.on_answer(from, id, answer, &batch));
        answers = later;
        if calls.is_empty() && answers.is_empty() {
            self.mesh.note_messages(from, &batch);
            batch.take_back(calls, answers);
            self.mesh.recycle(batch);
        } else {
            batch.put_back(calls, answers);
            self.late_batches.push_back((from, batch));
        }
    }

    // ---- commands about scripts and libraries ----

    /// Carries out a command about scripts or libraries.
    pub(super) fn run_scripting(&mut self, client: &mut Client, request: &Request<'_>) {
        match self.try_scripting(request) {
            Ok(Done::Reply(reply)) => answer(client, request, &reply),
            Ok(Done::Ask(ask)) => self.ask(client, request, *ask),
            Err(error) => answer(client, request, &Reply::Error(error)),
        }
    }

    fn try_scripting(&mut self, request: &Request<'_>) -> Result<Done, Error> {
        let Run::Server(server) = request.command.run else {
            unreachable!("the interpreter runs {}", request.command.name);
        };
        let ask = |call, then, is_of_first| {
            Done::Ask(Box::new(Ask { call, asks_hung: true, then, timeout_ms: None, is_of_first }))
        };
        Ok(match server {
            Server::ScriptExists => {
                let known = request.args().map(|name| Reply::one_or_zero(self.scripts.knows(name)));
                Done::Reply(Reply::Array(known.collect()))
            }
            Server::ScriptLoad => {
                let (sha, new) = self.scripts.load(request.arg(0), true)?;
                let name = Reply::Bulk(sha.to_vec().into());
                match new {
                    Some(script) => ask(Call::LoadScript(script), Some(name), false),
                    None => Done::Reply(name),
                }
            }
            Server::ScriptFlush => {
                let is_mode =
                    |arg: &[u8]| arg.eq_ignore_ascii_case(b"SYNC") || arg.eq_ignore_ascii_case(b"ASYNC");
                match request.arg_count() {
                    0 => {}
                    1 if is_mode(request.arg(0)) => {}
                    _ => return Err(refusal("SCRIPT FLUSH only support SYNC|ASYNC option")),
                }
                ask(Call::ForgetScripts, None, false)
            }
            Server::ScriptKill => Done::Reply(self.shared.long_scripts.kill(false).map(|()| Reply::Ok)?),
            Server::ScriptDebug => match request.arg(0).to_ascii_uppercase().as_slice() {
                b"NO" => Done::Reply(Reply::Ok),
                b"YES" | b"SYNC" => return Err(refusal(NO_DEBUGGER)),
                _ => return Err(refusal("Use SCRIPT DEBUG YES/SYNC/NO")),
            },
            Server::Function(what) => return self.run_function_command(what, request),
            _ => unreachable!("{} is about something else", request.command.name),
        })
    }

    fn run_function_command(&mut self, what: Library, request: &Request<'_>) -> Result<Done, Error> {
        let change = |change, then| {
            let call = Call::ChangeLibraries(Arc::new(change));
            Done::Ask(Box::new(Ask { call, asks_hung: false, then, timeout_ms: None, is_of_first: true }))
        };
        Ok(match what {
            Library::Load => {
                let mut replaces = false;
                for index in 0..request.arg_count() - 1 {
                    if !request.arg(index).eq_ignore_ascii_case(b"REPLACE") {
                        let option = String::from_utf8_lossy(request.arg(index));
                        return Err(refusal(format_args!("Unknown option given: {option}")));
                    }
                    replaces = true;
                }
                let code = request.arg(request.arg_count() - 1);
                let library = self.scripts.try_library(code, replaces)?;
                let name = Reply::Bulk(library.name.clone().into_bytes().into());
                change(LibraryChange::Load { library: Arc::new(library), replaces }, Some(name))
            }
            Library::Delete => {
                if !self.scripts.libraries().has(request.arg(0)) {
                    return Err(refusal("Library not found"));
                }
                change(LibraryChange::Delete(String::from_utf8_lossy(request.arg(0)).into_owned()), None)
            }
            Library::Flush => {
                if request.arg_count() > 1 {
                    let text =
                        "unknown subcommand or wrong number of arguments for 'FLUSH'. Try FUNCTION HELP.";
                    return Err(refusal(text));
                }
                if request.arg_count() == 1
                    && !request.arg(0).eq_ignore_ascii_case(b"SYNC")
                    && !request.arg(0).eq_ignore_ascii_case(b"ASYNC")
                {
                    return Err(refusal("FUNCTION FLUSH only supports SYNC|ASYNC option"));
                }
                change(LibraryChange::Flush, None)
            }
            Library::List => Done::Reply(self.list_libraries(request)?),
            Library::Stats => Done::Reply(self.function_stats()),
            Library::Kill => Done::Reply(self.shared.long_scripts.kill(true).map(|()| Reply::Ok)?),
        })
    }

    fn list_libraries(&self, request: &Request<'_>) -> Result<Reply<'static>, Error> {
        let (mut with_code, mut pattern, mut index) = (false, None, 0);
        while index < request.arg_count() {
            let arg = request.arg(index);
            if !with_code && arg.eq_ignore_ascii_case(b"WITHCODE") {
                with_code = true;
            } else if pattern.is_none() && arg.eq_ignore_ascii_case(b"LIBRARYNAME") {
                index += 1;
                if index >= request.arg_count() {
                    return Err(refusal("library name argument was not given"));
                }
                pattern = Some(Glob::new(request.arg(index))?);
            } else {
                return Err(refusal(format_args!("Unknown argument {}", String::from_utf8_lossy(arg))));
            }
            index += 1;
        }
        Ok(self.scripts.libraries().list(pattern.as_ref(), with_code))
    }

    fn function_stats(&self) -> Reply<'static> {
        let libraries = self.scripts.libraries();
        let counts = Reply::Map(vec![
            ("libraries_count".into(), Reply::count(libraries.library_count())),
            ("functions_count".into(), Reply::count(libraries.function_count())),
        ]);
        Reply::Map(vec![
            ("running_script".into(), Reply::Nil),
            ("engines".into(), Reply::Map(vec![("LUA".into(), counts)])),
        ])
    }

    /// What another worker asks about scripts and libraries.
    pub(super) fn on_scripting_call(&mut self, from: usize, id: RequestId, call: Call) {
        let done = Answer::Part(Reply::Ok);
        let reply = match call {
            Call::LearnScript(script) => return self.scripts.learn(script, false),
            Call::LoadScript(script) => {
                self.scripts.learn(script, true);
                done
            }
            Call::ForgetScripts => {
                self.scripts.forget();
                done
            }
            Call::TakeLibraries(libraries) => {
                self.scripts.set_libraries(libraries);
                done
            }
            Call::ChangeLibraries(change) => {
                self.library_keeper.asked.push_back((from, id, change));
                return self.begin_library_change();
            }
            _ => unreachable!("other calls go elsewhere"),
        };
        self.mesh.to(from).answer(id, reply);
    }
}

/// What comes of the writing of libraries, once it has ended.
type Written = mpsc::Receiver<Result<(), wal::Error>>;

/// Changes of the libraries of functions, which go to disk one after the other.
#[derive(Default)]
pub(super) struct LibraryKeeper {
    /// What is asked for, and who asks.
    asked: VecDeque<(usize, RequestId, Arc<LibraryChange>)>,
    /// What a thread writes, for whom, and what comes of it.
    written: Option<(usize, RequestId, Arc<Libraries>, Written)>,
}

impl LibraryKeeper {
    /// Whether a thread writes, which will wake the worker.
    pub(super) fn is_busy(&self) -> bool {
        self.written.is_some()
    }
}

impl Worker {
    /// Begins to write what the libraries are to become, unless that is under way.
    fn begin_library_change(&mut self) {
        while !self.library_keeper.is_busy()
            && let Some((from, id, change)) = self.library_keeper.asked.pop_front()
        {
            match self.scripts.libraries().changed(&change).and_then(|libraries| self.keep(libraries)) {
                Ok((libraries, written)) => {
                    self.library_keeper.written = Some((from, id, libraries, written));
                }
                Err(error) => self.mesh.to(from).answer(id, Answer::Part(Reply::Error(error))),
            }
        }
    }

    /// Has a thread write the libraries.
    fn keep(&self, libraries: Libraries) -> Result<(Arc<Libraries>, Written), Error> {
        let libraries = Arc::new(libraries);
        let (sender, written) = mpsc::channel();
        let (shared, kept) = (self.shared.clone(), libraries.clone());
        let wakeup = self.net.wakeup().try_clone_to_owned().map_err(not_kept)?;
        let work = move || {
            let outcome = match shared.found_libraries.get() {
                Some((disk, _)) => file::write(disk, &shared.config.wal_path, &kept),
                None => Ok(()),
            };
            let _ = sender.send(outcome); // The worker waits for it as long as it runs.
            net::unpark(wakeup.as_fd());
        };
        std::thread::Builder::new().name("kvlite-functions".to_owned()).spawn(work).map_err(not_kept)?;
        Ok((libraries, written))
    }

    /// Answers the change of the libraries that was written. Returns whether one was.
    pub(super) fn end_library_change(&mut self) -> bool {
        let Some((from, id, libraries, written)) = &self.library_keeper.written else { return false };
        let Ok(outcome) = written.try_recv() else { return false };
        let (from, id) = (*from, *id);
        let answer = match outcome {
            Ok(()) => {
                self.scripts.set_libraries(libraries.clone());
                Answer::Libraries(libraries.clone())
            }
            Err(error) => Answer::Part(Reply::Error(not_kept(error))),
        };
        self.library_keeper.written = None;
        self.mesh.to(from).answer(id, answer);
        self.begin_library_change();
        true
    }
}

fn not_kept(error: impl std::fmt::Display) -> Error {
    refusal(format_args!("the libraries could not be written to disk: {error}"))
}

/// What came of a command about scripts.
enum Done {
    Reply(Reply<'static>),
    Ask(Box<Ask>),
}

/// Turns within a script come at least so long after each other.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// A script that runs, as the host of its commands.
struct RunningScript<'w> {
    worker: &'w mut Worker,
    /// Its client, if that is one of this worker's.
    client: Option<&'w mut Client>,
    /// The call.
    request: &'w Request<'w>,
    /// The database of its commands, which it may select.
    database: u16,
    /// The time that all of its commands see.
    now: Now,
    is_function: bool,
    began: Instant,
    /// When a turn was taken last within it.
    looked_at: Instant,
    /// Others have waited for it for so long that they are told.
    is_long: bool,
    /// It has run a command that may change the shard itself.
    wrote: bool,
    /// It has to end because the server does, or was killed before any of it was seen: nothing of it has happened.
    is_cut: bool,
    /// The frame that what it has seen depends on.
    seq: u64,
    /// Where its changes begin among those of the turn.
    mark: Mark,
    /// Its changes, once those of the turn had to be written before it has ended.
    changes: Option<Changes>,
    /// What its keys hold, where it does not run on the shard itself.
    copies: Option<Copies>,
}

/// Copies of what the keys of a script hold.
struct Copies {
    shard: Shard,
    changes: Changes,
    keys: HashSet<Box<[u8]>>,
}

impl<'w> RunningScript<'w> {
    fn new(
        worker: &'w mut Worker,
        client: Option<&'w mut Client>,
        request: &'w Request<'w>,
        mark: Mark,
    ) -> RunningScript<'w> {
        let began = Instant::now();
        RunningScript {
            now: worker.clock.now(),
            worker,
            client,
            request,
            database: request.database,
            is_function: request.command.name.starts_with('F'),
            began,
            looked_at: began,
            is_long: false,
            wrote: false,
            is_cut: false,
            seq: 0,
            mark,
            changes: None,
            copies: None,
        }
    }

    /// Ends it. Returns its changes, if they are not among those of the turn and count.
    fn end(self) -> Option<Changes> {
        if self.is_long {
            self.worker.shared.long_scripts.end(self.worker.index);
            self.worker.is_in_script = false;
        }
        if self.is_cut && self.changes.as_ref().is_some_and(|changes| !changes.is_empty()) {
            self.worker.runtime.note_cut();
        }
        self.changes.filter(|_| !self.is_cut)
    }

    /// Runs a command on copies of what its keys hold.
    fn run_on_copies(&mut self, request: &Request<'_>, show: &mut dyn FnMut(&Reply<'_>)) {
        if let Some(error) = self.worker.runtime.refusal(request) {
            return show(&Reply::Error(error));
        }
        let Copies { shard, changes, keys } = self.copies.as_mut().expect("there are copies");
        if request.database != self.request.database || !request.keys().all(|key| keys.contains(key)) {
            return show(&Reply::Error(UNDECLARED));
        }
        if request.command.has(Flags::WRITE) && changes.payload_len() > CHANGE_BYTES_MAX {
            return show(&Reply::Error(changes_too_much()));
        }
        show(&shard.execute(request, self.now.now_ms, changes));
    }

    /// Runs a command on this worker's shard.
    fn run_on_shard(&mut self, request: &Request<'_>, show: &mut dyn FnMut(&Reply<'_>)) {
        let worker = &mut *self.worker;
        let error = worker.runtime.refusal(request).or_else(|| {
            // It was its turn on the keys that it has declared.
            let is_locked = worker.runtime.has_to_wait(request);
            let is_declared = |key: &[u8]| self.request.keys().any(|declared| declared == key);
            (is_locked && !request.keys().all(is_declared)).then_some(UNDECLARED)
        });
        let is_too_much = || {
            request.command.has(Flags::WRITE)
                && worker.runtime.script_change_bytes(self.changes.as_ref()) > CHANGE_BYTES_MAX
        };
        let error = error.or_else(|| is_too_much().then(changes_too_much));
        if let Some(error) = error {
            return show(&Reply::Error(error));
        }
        let Worker { runtime, mesh, .. } = worker;
        let Executed { reply, seq, .. } =
            runtime.execute_in_script(request, self.now, mesh, self.changes.as_mut());
        self.seq = self.seq.max(seq);
        show(&reply);
        if request.command.has(Flags::WRITE) {
            self.wrote = true;
            if self.is_long {
                worker.shared.long_scripts.note_write(worker.index);
            }
        }
    }
}

impl Host for RunningScript<'_> {
    fn run(&mut self, request: &Request<'_>, show: &mut dyn FnMut(&Reply<'_>)) {
        let request = &request.in_database(self.database);
        let workers = self.worker.mesh.worker_count();
        let is_own = |key: &[u8]| owner(key, workers) == self.worker.index;
        match request.command.run {
            Run::Key | Run::Keys(_) | Run::Combine if self.copies.is_some() => {
                self.run_on_copies(request, show);
            }
            Run::Key | Run::Keys(_) | Run::Combine if request.keys().all(is_own) => {
                self.run_on_shard(request, show);
            }
            Run::Key | Run::Keys(_) | Run::Combine => show(&Reply::Error(UNDECLARED)),
            Run::EveryShard(_) if workers == 1 && self.copies.is_none() => self.run_on_shard(request, show),
            Run::Server(Server::Ping) if request.arg_count() == 0 => show(&Reply::Simple("PONG")),
            Run::Server(Server::Ping | Server::Echo) => show(&Reply::bytes(request.arg(0))),
            Run::Server(server @ (Server::Publish | Server::Spublish)) => {
                let (kind, client) = (kind_of(server), self.client.as_deref_mut());
                let (channel, text) = (request.arg(0), request.arg(1));
                let receivers = self.worker.publish_message(kind, channel, text, None, client);
                show(&Reply::count(receivers));
            }
            Run::Server(Server::Select) => {
                let databases = self.worker.shared.config.databases;
                let selected = parse_database(request.arg(0), databases);
                show(&selected.as_ref().map_or_else(|error| Reply::Error(error.clone()), |_| Reply::Ok));
                self.database = selected.unwrap_or(self.database);
            }
            Run::Server(Server::Time) => {
                let unix_us = wall_clock_us();
                let number = |number: u64| Reply::Bulk(number.to_string().into_bytes().into());
                show(&Reply::Array(vec![number(unix_us / 1_000_000), number(unix_us % 1_000_000)]));
            }
            Run::EveryShard(_) | Run::Server(_) | Run::Script => show(&Reply::Error(NOT_FROM_SCRIPT)),
        }
    }

    fn look_up(&mut self) -> bool {
        let worker = &mut *self.worker;
        if !self.is_long {
            let threshold_ms = worker.shared.settings.busy_reply_threshold_ms.load(Ordering::Relaxed);
            let threshold_ms = u64::try_from(threshold_ms).ok().filter(|ms| *ms > 0).unwrap_or(u64::MAX);
            if self.began.elapsed() < Duration::from_millis(threshold_ms) {
                let ends = worker.shared.stopping() && !self.wrote;
                self.is_cut = ends;
                return ends;
            }
            self.is_long = true;
            worker.is_in_script = true;
            worker.shared.long_scripts.begin(worker.index, self.is_function);
            if self.wrote {
                worker.shared.long_scripts.note_write(worker.index);
            }
            tracing::warn!(
                shard = worker.index,
                "a script takes long; others are told that the server is busy"
            );
        }
        if self.changes.is_none() {
            self.changes = Some(worker.runtime.split_changes(self.mark));
        }
        if self.looked_at.elapsed() >= LOOK_INTERVAL {
            worker.reduced_turn();
            self.looked_at = Instant::now();
        }
        let is_killed = worker.shared.long_scripts.is_killed(worker.index);
        // One that was killed has changed nothing, but for copies.
        self.is_cut = worker.shared.stopping() || is_killed && self.copies.is_some();
        self.is_cut || is_killed
    }
}
