//! One core: its turn takes what arrived, runs it on the shard, logs what changed, and lets the replies go.
//!
//! ```text
//! turn:  ask the network -> serve clients -> read batches -> write the log -> send batches -> send replies
//! ```
//!
//! The log is written before any reply of the turn leaves, to a client or to another worker. A worker never waits
//! inside a turn; when a turn finds nothing to do, the worker parks until the network, a peer or its clock
//! wakes it.

mod accept;
mod client_list;
mod clients;
mod control;
mod dispatch;
mod lifecycle;
mod messages;
mod peer;
mod rewrites;
mod runtime;
mod scripts;
mod serve;
mod slowlog;
mod stuck_clients;
#[cfg(test)]
mod tests;
mod tracking;
mod transactions;
mod turn;
mod watchdog;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};

use shard::Error;

use crate::admin::backup::Backup;
use crate::client::Stage;
use crate::clock::{Clock, Reading};
use crate::config::SyncMode;
use crate::durability::journal::Outcome;
use crate::failure::Failure;
use crate::mesh::{Batch, Mesh};
use crate::metrics::slowlog::SlowLog;
use crate::metrics::{Traffic, errors};
use crate::net::listener::Endpoint;
use crate::net::{self, Backend, Doorbell, Event, Net};
use crate::pubsub::PubSub;
use crate::recovery;
use crate::scripting::Scripts;
use crate::shared::Shared;
use accept::Acceptor;
use clients::Clients;
use control::ControlView;
use lifecycle::Lifecycle;
use rewrites::Rewrites;
use runtime::ShardRuntime;
use scripts::LibraryKeeper;
use serve::BACKLOG_TIME_MIN;
use stuck_clients::StuckClients;
use turn::{Due, TICK_MS, Trace, Turn, TurnClock};
use watchdog::Watchdog;

pub(crate) use accept::REFUSED_AT_ONCE_MAX;
pub use lifecycle::ShardFiles;

/// In the mode `always`, how long what arrives during a sync may wait for more.
const GATHERING: Duration = Duration::from_micros(40);

/// While a sync waits for its commit siblings, so much of it is slept through, and for so long at most, since others
/// come as well.
const SIBLINGS_AT_ONCE_MAX: usize = 16;
const SIBLINGS_WAIT_MAX: Duration = Duration::from_micros(100);

/// One worker: it owns what a core serves, and takes turns.
pub struct Worker {
    index: usize,
    shared: Arc<Shared>,
    net: Net,
    mesh: Mesh,
    acceptor: Acceptor,
    clients: Clients,
    pubsub: PubSub,
    runtime: ShardRuntime,
    clock: TurnClock,
    lifecycle: Lifecycle,
    watchdog: Watchdog,
    stuck_clients: StuckClients,
    /// The backup that this worker leads.
    backup: Option<Backup>,
    rewrites: Rewrites,
    /// What the network has told; empty between turns.
    events: Vec<Event>,
    /// What the network has told of the client whose script takes long, until that has ended.
    late_events: Vec<Event>,
    /// What other workers have sent while a script took long.
    late_batches: VecDeque<(usize, Box<Batch>)>,
    /// The scripts that this worker knows, and runs.
    scripts: Scripts,
    /// What the libraries of functions become, which the first worker keeps.
    library_keeper: LibraryKeeper,
    /// A script takes long, and this is a turn within it.
    is_in_script: bool,
    /// What is counted of the clients' requests.
    traffic: Traffic,
    /// How many there were before the last turn that ran any.
    requests_before: u64,
    /// The slow ones among them.
    slow_log: SlowLog,
    /// What clients order for all workers.
    control: ControlView,
    /// When the first wait of a client is over that has a timeout, in milliseconds from the start of the server.
    next_timeout_ms: u64,
}

/// What a worker tells when it can be woken.
pub(crate) struct Ready {
    pub doorbell: Doorbell,
    pub wakeup: OwnedFd,
    pub waker: Waker,
}

/// What a worker tells the server.
pub(crate) enum WorkerReport {
    Ready(usize, Ready),
    /// The files of a shard are read back and found sound.
    Read,
    Ended(Result<(), Failure>),
    /// This worker has no executor; its thread ends with the reason.
    Unbegun(usize),
}

impl Worker {
    /// A worker whose shard is read back from `files`.
    ///
    /// # Errors
    /// When no more files can be opened.
    pub fn new(
        index: usize,
        shared: Arc<Shared>,
        net: Net,
        mesh: Mesh,
        files: ShardFiles,
    ) -> std::io::Result<Worker> {
        // Until the keys are read, which deadlines come with, any time will do.
        let clock = Clock::resume(None, 0, Reading::take_at_start(shared.started));
        let config = &shared.config;
        Ok(Worker {
            index,
            runtime: ShardRuntime::new(index, config, net.wakeup().try_clone_to_owned()?)?,
            clock: TurnClock::new(shared.started, clock, config.ttl_check_interval),
            watchdog: Watchdog::new(index, mesh.worker_count(), config.disk_timeout),
            shared,
            net,
            mesh,
            acceptor: Acceptor::default(),
            clients: Clients::default(),
            pubsub: PubSub::default(),
            lifecycle: Lifecycle::new(files),
            stuck_clients: StuckClients::default(),
            backup: None,
            rewrites: Rewrites::default(),
            events: Vec::new(),
            late_events: Vec::new(),
            late_batches: VecDeque::new(),
            scripts: Scripts::new(recovery::random_seeds()[0], Arc::default()),
            library_keeper: LibraryKeeper::default(),
            is_in_script: false,
            traffic: Traffic::default(),
            requests_before: 0,
            slow_log: SlowLog::default(),
            control: ControlView::default(),
            next_timeout_ms: u64::MAX,
        })
    }

    /// Accepts connections for all workers, and serves these of other threads of this process.
    pub fn accept_at(&mut self, listeners: Vec<(OwnedFd, Endpoint)>, insiders: Vec<OwnedFd>) {
        self.acceptor.listen(listeners, &mut self.net);
        self.welcome_insiders(insiders);
    }

    /// Takes turns until the server stops.
    pub async fn run(mut self) -> Result<(), Failure> {
        let config = &self.shared.config;
        let spin = Duration::from_micros(config.spin_us.into());
        let tick = config.ttl_check_interval.min(Duration::from_millis(TICK_MS));
        let wakeup = self.net.wakeup_file().map_err(Failure::Network)?;
        if wakeup.is_some() {
            self.spawn_ticker(tick).map_err(Failure::Network)?;
        }
        let mut idle_since = None;
        loop {
            let reads_back = self.lifecycle.is_loading() && self.go_on_loading()?;
            let progressed = self.turn()? || reads_back;
            if self.is_finished() {
                break;
            }
            if progressed {
                idle_since = None;
                self.let_others_run().await;
                continue;
            }
            if !spin.is_zero() && idle_since.get_or_insert_with(Instant::now).elapsed() < spin {
                std::thread::yield_now(); // Others that need this core go first: a load on this machine, another shard.
                continue;
            }
            idle_since = None;
            let siblings = self.runtime.awaited_siblings();
            let Some(wakeup) = wakeup.as_ref().filter(|_| self.awaits_threads()) else {
                // There is no executor, or it has nothing else to do: wait where the work comes from.
                let patience = self.until_due();
                if self.mesh.fall_asleep() {
                    match siblings {
                        Some((count, left)) => {
                            let count = count.min(SIBLINGS_AT_ONCE_MAX);
                            self.net.wait_for(count, left.min(patience).min(SIBLINGS_WAIT_MAX))
                        }
                        None => self.net.wait(patience),
                    }
                    .map_err(Failure::Network)?;
                    self.mesh.wake_up();
                }
                continue;
            };
            if siblings.is_some() || self.clients.next_gathered_us().is_some() {
                self.let_others_run().await;
                continue;
            }
            self.net.parking();
            if !self.net.ready() && self.mesh.fall_asleep() {
                wakeup.read_at(0, 8).await.map_err(|error| Failure::Network(error.into()))?;
                self.mesh.wake_up();
            }
            self.net.unparked();
        }
        self.runtime.close()
    }

    /// Lets the executor's own tasks run, where there is one.
    async fn let_others_run(&self) {
        if self.shared.io == Backend::IoUring {
            glommio::yield_if_needed().await;
        }
    }

    /// Whether another thread works for this one, and will wake it by its executor.
    fn awaits_threads(&self) -> bool {
        self.runtime.awaits_threads()
            || self.backup.is_some()
            || self.rewrites.is_under_way()
            || self.library_keeper.is_busy()
    }

    /// How long until something is due by the clock.
    fn until_due(&mut self) -> Duration {
        let (until, uptime_us) = (self.clock.until_tick(), self.clock.now().uptime_us);
        let pause_until_ms = self.control.pause_until_ms().unwrap_or(u64::MAX);
        let timeout_us = self.next_timeout_ms.min(pause_until_ms).saturating_mul(1000);
        let due_us = self.clients.next_gathered_us().unwrap_or(u64::MAX).min(timeout_us);
        Duration::from_micros(due_us.saturating_sub(uptime_us)).min(until)
    }

    /// Wakes the worker from its parking once every `tick`, for what is due by the clock.
    fn spawn_ticker(&self, tick: Duration) -> std::io::Result<()> {
        let wakeup = Rc::new(self.net.wakeup().try_clone_to_owned()?);
        glommio::spawn_local(async move {
            loop {
                glommio::timer::sleep(tick).await;
                net::unpark(std::os::fd::AsFd::as_fd(&*wakeup));
            }
        })
        .detach();
        Ok(())
    }

    /// The shard, and what this turn hands to those that work on it.
    fn runtime_and_turn(&mut self) -> (&mut ShardRuntime, Turn<'_>) {
        let Worker { runtime, clock, shared, net, mesh, .. } = self;
        (runtime, Turn { now: clock.now(), shared, clock: clock.of_shard(), net, mesh })
    }

    /// One turn. Returns whether it found anything to do.
    fn turn(&mut self) -> Result<bool, Failure> {
        self.choose_gathering();
        let mut events = std::mem::take(&mut self.events);
        let mut trace = Trace::begin();
        let mut progressed = self.net.turn(&mut events).map_err(Failure::Network)?;
        trace.end_part("net_us");
        let began = self.clock.begin_turn();
        let uptime_ms = self.clock.now().uptime_ms;
        self.shared.beat(self.index, uptime_ms);
        if self.control.has_to_look(&self.shared.control) {
            self.take_note();
        }
        if self.next_timeout_ms <= uptime_ms {
            self.end_timed_waits();
        }
        self.follow_settings();
        let requests_so_far = self.traffic.requests;
        // They are taken one by one: a turn within a script goes on with them.
        events.reverse();
        self.events = events;
        while let Some(event) = self.events.pop() {
            self.on_event(event);
        }
        if !self.late_events.is_empty() {
            std::mem::take(&mut self.late_events).into_iter().for_each(|event| self.on_event(event));
        }
        self.tell_events();
        trace.end_part("events_us");
        self.mesh.send_own();
        let mut others_served = self.traffic.requests != requests_so_far;
        while let Some((worker, batch)) = self.late_batches.pop_front() {
            progressed = true;
            others_served |= self.on_batch(worker, batch);
        }
        for worker in 0..self.mesh.worker_count() {
            while let Some(batch) = self.mesh.receive(worker) {
                progressed = true;
                others_served |= self.on_batch(worker, batch);
            }
        }
        self.tell_events();
        trace.end_part("batches_us");
        if self.clients.backlog_len() > 0 {
            let until = others_served.then(|| {
                let now = Instant::now();
                now + (now - began).max(BACKLOG_TIME_MIN)
            });
            progressed |= self.serve_backlog(until);
            self.tell_events();
        }
        trace.end_part("backlog_us");
        if self.clock.is_tick_due() {
            self.tick();
        }
        trace.end_part("tick_us");
        progressed |=
            !self.lifecycle.is_loading() && self.background() | self.end_backup() | self.end_library_change();
        self.tell_events();
        progressed |= self.rewrites.end(&mut self.mesh);
        trace.end_part("background_us");
        if self.lifecycle.is_loading() || !self.runtime.gathers() {
            let (runtime, mut turn) = self.runtime_and_turn();
            runtime.write_log(&mut turn);
        }
        self.follow_outcomes();
        trace.end_part("log_us");
        self.show_commands();
        self.mesh.send(&mut self.net);
        self.look_after_clients();
        trace.end_part("replies_us");
        trace.end(self.index);
        progressed |= self.clients.has_ready(); // Some rest until a later turn.
        self.clock.end_turn(progressed);
        Ok(progressed)
    }

    /// In the mode `always`, has what arrives during the next sync gather where that pays.
    fn choose_gathering(&mut self) {
        if self.shared.config.sync_mode != SyncMode::Always || self.lifecycle.is_loading() {
            return;
        }
        let requests = self.traffic.requests;
        let served = requests - std::mem::replace(&mut self.requests_before, requests);
        let gathers = self.runtime.expect_siblings(served, self.clock.now());
        if served > 0 {
            self.net.gather_for(if gathers { GATHERING } else { Duration::ZERO });
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Received(id, chunk) => self.on_bytes(id, &chunk),
            Event::Sent(id, buffer) => {
                self.clients.recycle(buffer);
                self.clients.make_ready(id);
            }
            Event::Accepted { listener, socket } => self.on_accepted(listener, socket),
            Event::AcceptFailed { listener, error } => {
                self.acceptor.on_failed(listener, &error, self.clock.now().uptime_ms);
            }
            Event::Ended(id, error) => {
                let gone = error.is_some();
                self.clients.set_stage(id, |stage| match stage {
                    Stage::Open if !gone => Stage::Ended,
                    Stage::Closing if !gone => Stage::Closing,
                    Stage::Ended if !gone => Stage::Ended,
                    _ => Stage::Gone,
                });
            }
            Event::SendFailed(id, _) => self.clients.set_stage(id, |_| Stage::Gone),
            Event::Synced(result) => {
                self.runtime.on_synced(result, &mut self.net, &mut self.mesh);
            }
        }
    }

    // ---- the log ----

    /// Holds replies back that show what could not be written, and lets them go once it is. To be called behind
    /// whatever may have written the log: replies that are given later do not depend on it.
    fn follow_outcomes(&mut self) {
        for outcome in self.runtime.take_outcomes() {
            match outcome {
                Outcome::AsBefore => {}
                Outcome::Failed => self.clients.hold_back(self.clock.now().turn),
                Outcome::Recovered => self.clients.let_go(),
            }
        }
    }

    /// What was answered in the turn whose frames could not be written is not coming: its clients are told, and let
    /// go.
    fn give_up_held_back(&mut self, error: &Error) {
        for id in self.clients.those(|connection| connection.client.held_back) {
            let mut connection = self.clients.take_out(id).expect("it is there");
            let client = &mut connection.client;
            client.held_back = false;
            client.shown_command.into_iter().for_each(errors::note_failed);
            self.end_with_error(client, error.clone());
            client.stage = Stage::Closing;
            self.clients.put_back(connection);
        }
    }

    // ---- what the clock and idle time ask for ----

    fn tick(&mut self) {
        let Due { expiry, second } = self.clock.tick();
        let (now, is_loading) = (self.clock.now(), self.lifecycle.is_loading());
        if expiry && self.shared.control.expires_actively.load(Ordering::Relaxed) {
            self.runtime.begin_to_expire();
        }
        if let Some(latency_us) = second {
            self.runtime.note_second(now, latency_us);
            self.look_for_lagging_subscribers();
            self.look_for_stuck_clients();
            self.publish();
            if !is_loading {
                self.log_clocks();
            }
        }
        if !is_loading {
            self.runtime.follow_clocks(self.clock.of_shard_mut(), self.shared.started);
        }
        let passed = self.watchdog.step_towards_timeouts(now.uptime_ms);
        self.look_for_hangs(passed);
        if let Some(error) = self.runtime.watch_disk(passed, &self.shared, &mut self.mesh) {
            self.give_up_held_back(&error);
        }
        if !is_loading {
            let (runtime, turn) = self.runtime_and_turn();
            runtime.write_down_progress(&turn);
        }
        self.acceptor.end_rest(&mut self.net);
        self.runtime.sync_each_second(&self.shared.config, &mut self.net);
        for id in self.clients.those(|connection| connection.client.is_overdue(now.uptime_ms)) {
            self.clients.set_stage(id, |_| Stage::Gone);
        }
    }

    /// Has the log tell what the clocks show, and which keys have expired.
    fn log_clocks(&mut self) {
        let now = self.clock.now();
        self.runtime.log_clocks(self.clock.of_shard_mut(), now);
    }

    /// One slice of each kind of work that no client waits for. Returns whether more is left.
    fn background(&mut self) -> bool {
        let (runtime, mut turn) = self.runtime_and_turn();
        let has_more = runtime.background(&mut turn);
        self.follow_outcomes();
        has_more
    }
}
