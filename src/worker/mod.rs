//! One core: its turn takes what arrived, runs it on the shard, logs what changed, and lets the replies go.
//!
//! ```text
//! turn:  reap the network ring -> serve clients -> read batches -> write the log -> send batches -> send replies
//! ```
//!
//! The log is written before any reply of the turn leaves, to a client or to another worker. A worker never waits
//! inside a turn; when a turn finds nothing to do, the worker parks until the network ring, a peer or its clock
//! wakes it.

mod dispatch;
mod large_values;
mod listing;
mod long_reads;
mod peer;
mod serve;
mod settling;
mod stuck_clients;
#[cfg(test)]
mod tests;
mod watchdog;

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::Waker;
use std::time::{Duration, Instant};

use shard::analytics::inquiry::Inquiry;
use shard::{Dialect, LockKeys, LockTable, OwnedRequest, Scan, Shard, Waiter};
use wal::{OsDisk, Replayed};

use crate::admin::backup::Backup;
use crate::client::{Connection, Stage};
use crate::clock::{Clock, Followed, Reading, ShardClock};
use crate::config::SyncMode;
use crate::durability::commit_delay::CommitSiblings;
use crate::durability::journal::{Journal, Outcome};
use crate::durability::snapshotter::Snapshotter;
use crate::failure::Failure;
use crate::mesh::{Answer, Mesh, Page, RequestId, TransactionId};
use crate::metrics::Report;
use crate::net::listener::Endpoint;
use crate::net::{Doorbell, Event, Net, SocketId};
use crate::recovery::{self, ShardData};
use crate::shared::Shared;
use crate::shared::progress::Loaded;
use crate::slots::SHARDS_MAX;
use crate::txn::id::transaction_id;
use large_values::Stagings;
use long_reads::Readings;
use serve::BACKLOG_TIME_MIN;
use settling::Settling;
use watchdog::Peer;

pub(crate) use serve::REFUSED_AT_ONCE_MAX;

/// How many due keys one turn removes. Each costs a microsecond or two where millions are due and none is cached; a
/// client without a pipeline is served once a turn.
const EXPIRED_PER_TURN_MAX: usize = 64;

/// How many steps, of some microseconds each, one turn takes to free dropped keyspaces.
const RECLAIM_STEPS_PER_TURN: usize = 16;

/// How many keys one turn visits to answer a question about the use of keys.
const INQUIRY_KEYS_PER_TURN: usize = 512;

/// Emptied send buffers are kept for reuse up to this size, and at most so many.
const SPARE_BUFFER_BYTES: usize = 64 * 1024;
const SPARE_BUFFERS_MAX: usize = 256;

/// How often a worker looks for what is due by the clock.
const TICK_MS: u64 = 100;

/// How often a shard takes note of what is found out over time.
const NOTE_MS: u64 = 1000;

/// By so much a wall clock has to be set for a line in the server's log: one that is only corrected is not worth it.
const TOLD_STEP_MS: u64 = 1000;

/// How long `everysec` leaves data unsynced.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// In the mode `always`, how long what arrives during a sync may wait for more, where turns serve fewer commands than
/// this and several clients wait.
const GATHERING: Duration = Duration::from_micros(40);
const GATHERING_COMMANDS_MAX: u64 = 16;

/// While a sync waits for siblings, so much of it is slept through, and for so long at most, since others come as well.
const SIBLINGS_AT_ONCE_MAX: usize = 16;
const SIBLINGS_WAIT_MAX: Duration = Duration::from_micros(100);

/// How long a shutdown waits for what is under way.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// One worker.
pub struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) net: Net,
    pub(crate) mesh: Mesh,
    /// Empty while it is being read back.
    pub(crate) shard: Shard,
    journal: Loaded<Journal>,
    /// Some shard is not in memory yet: commands that need keys or files are refused.
    loading: bool,
    files: ShardFiles,
    /// Its log, read back, until those of all shards are.
    read_back: Option<(ShardData, Replayed<OsDisk>)>,
    snapshotter: Snapshotter,
    /// The backup that this worker leads.
    backup: Option<Backup>,
    /// Which workers hang in their disks, and what tells that.
    hung: Vec<bool>,
    peers: Vec<Peer>,
    last_look_ms: u64,
    locks: LockTable<Deferred>,
    /// The locked or waiting parts of transactions.
    prepared: HashMap<TransactionId, Prepared>,
    /// The time of the last transaction id that was made or met; see [`Shared::id_time_us`].
    last_id_us: u64,
    /// Questions about the use of keys; the first one is being answered. Each client has one at most.
    inquiries: VecDeque<Asked>,
    /// Walks of `SCAN` and `KEYS`, which take turns. Each client has one at most.
    walks: VecDeque<Walking>,
    /// Reads of very many keys.
    readings: Readings,
    /// Commands that wait until their large values are written.
    stagings: Stagings,
    /// Which change of the rules for times to live counts here.
    auto_ttl_version: u64,
    /// The snapshotter stands in line at the lock table, for a quiescent point.
    awaits_quiescence: bool,
    settling: Settling,
    connections: Vec<Option<Box<Connection>>>,
    /// Clients to look after at the end of the turn: something of theirs may have to be sent, or has ended.
    ready: Vec<SocketId>,
    /// Clients with bytes that could not be served when they arrived.
    backlog: VecDeque<SocketId>,
    /// Clients whose replies wait for those behind them, and since when, in microseconds from the start of the server:
    /// the longest first. Those whose replies have left meanwhile do not count.
    gathering: VecDeque<(SocketId, u64)>,
    /// The endpoints behind the ring's listeners, by their number; empty where this worker does not accept.
    endpoints: Vec<Endpoint>,
    /// Listeners that rest because accepting failed.
    resting: Vec<usize>,
    next_worker: usize,
    /// Clients that were one too many and have not gone yet.
    refusing: usize,
    events: Vec<Event>,
    spare_buffers: Vec<Vec<u8>>,
    /// The number of this turn, from 1 on.
    turn_number: u64,
    pub(crate) clock: ShardClock,
    /// The time of this turn, by the clock. It never goes back.
    pub(crate) now_ms: u64,
    /// Milliseconds from the start of the server to this turn: what happens at intervals goes by it.
    uptime_ms: u64,
    /// When this turn began, in microseconds since the start of the server, and whether it found anything to do.
    turn_began_us: u64,
    turn_progressed: bool,
    turn_times: TurnTimes,
    next_note_ms: u64,
    looked_for_stuck_clients_ms: u64,
    next_tick_ms: u64,
    next_expiry_ms: u64,
    expiring: bool,
    commands: u64,
    /// How many of them before the last turn that served any.
    commands_before: u64,
    /// In the mode `always`: who waits for syncs.
    siblings: CommitSiblings,
    last_sync: Instant,
    stopping_since: Option<Instant>,
    drained: bool,
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

/// Where a shard is to be read back from, once that is known, and who is told that it is.
pub struct ShardFiles {
    /// Tells it.
    pub data: mpsc::Receiver<ShardData>,
    pub(crate) read: mpsc::Sender<WorkerReport>,
}

/// What waits for locks.
enum Deferred {
    /// A command on one shard.
    Request { origin: usize, request_id: RequestId, request: OwnedRequest },
    /// A part of a transaction; see [`Worker::prepared`].
    Part(TransactionId),
    /// The snapshotter, for a moment without transactions.
    Snapshotter,
}

/// A question about the use of keys, and who has asked it.
struct Asked {
    origin: usize,
    request_id: RequestId,
    inquiry: Inquiry,
}

/// A part of a walk over the shard's keys, on its way.
struct Walking {
    origin: usize,
    request_id: RequestId,
    dialect: Dialect,
    scan: Scan,
    /// How many keys are still to be visited, about.
    keys_left: usize,
    /// What was found.
    page: Page,
}

/// How long turns took that found something to do.
#[derive(Default)]
struct TurnTimes {
    sum_us: u64,
    sum_of_squares: u64,
}

impl TurnTimes {
    fn add(&mut self, us: u64) {
        self.sum_us += us;
        self.sum_of_squares = self.sum_of_squares.saturating_add(us.saturating_mul(us));
    }

    /// The length of the turn into which a moment of busy time falls, on average, in microseconds: about how long
    /// requests take. A mean over the turns would hide a few that are long behind many that are short.
    fn typical_us(&self) -> Option<f64> {
        (self.sum_us > 0).then(|| self.sum_of_squares as f64 / self.sum_us as f64)
    }
}

/// A part of a transaction at the shard that holds its keys.
struct Prepared {
    origin: usize,
    request_id: RequestId,
    request: OwnedRequest,
    participants: Arc<[u32]>,
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
        let clock = ShardClock::new(Clock::resume(None, 0, Reading::take_at_start(shared.started)));
        let snapshotter = Snapshotter::new(&shared.config, net.wakeup().try_clone_to_owned()?)?;
        // Until the keys are read, an empty one stands in for the shard, and keeps what is set meanwhile.
        let mut shard = Shard::new(recovery::random_seeds());
        shard.set_auto_ttl(Arc::new(shared.config.auto_ttl.clone().unwrap_or_default()));
        Ok(Worker {
            index,
            shared,
            snapshotter,
            hung: vec![false; mesh.worker_count()],
            peers: vec![Peer::default(); mesh.worker_count()],
            last_look_ms: 0,
            net,
            mesh,
            shard,
            journal: Loaded::not_yet(),
            loading: true,
            files,
            read_back: None,
            backup: None,
            locks: LockTable::new(recovery::random_seeds()),
            prepared: HashMap::new(),
            last_id_us: 0,
            inquiries: VecDeque::new(),
            walks: VecDeque::new(),
            readings: Readings::new(),
            stagings: Stagings::new(),
            auto_ttl_version: 0,
            awaits_quiescence: false,
            settling: Settling::default(),
            connections: Vec::new(),
            ready: Vec::new(),
            backlog: VecDeque::new(),
            gathering: VecDeque::new(),
            endpoints: Vec::new(),
            resting: Vec::new(),
            next_worker: 0,
            refusing: 0,
            events: Vec::new(),
            spare_buffers: Vec::new(),
            turn_number: 0,
            clock,
            now_ms: 0,
            uptime_ms: 0,
            turn_began_us: 0,
            turn_progressed: false,
            turn_times: TurnTimes::default(),
            next_note_ms: 0,
            looked_for_stuck_clients_ms: 0,
            next_tick_ms: 0,
            next_expiry_ms: 0,
            expiring: false,
            commands: 0,
            commands_before: 0,
            siblings: CommitSiblings::default(),
            last_sync: Instant::now(),
            stopping_since: None,
            drained: false,
        })
    }

    /// Accepts connections for all workers.
    pub fn accept_at(&mut self, listeners: Vec<(OwnedFd, Endpoint)>) {
        for (descriptor, endpoint) in listeners {
            self.net.listen(descriptor);
            self.endpoints.push(endpoint);
        }
    }

    /// Reads the shard back once it is known what counts, taking a turn now and then; opens its log when every worker
    /// has read its own; and begins to serve when every worker has its shard.
    fn go_on_loading(&mut self) -> Result<(), Failure> {
        if let Ok(data) = self.files.data.try_recv() {
            let (index, shared) = (self.index, self.shared.clone());
            let mut turned = Ok(true);
            let mut empty = Shard::new(recovery::random_seeds());
            if shared.config.enable_analytics {
                empty = empty.with_analytics(self.now_ms);
            }
            let (mut shard, replayed) = data.read(empty, |record, keys| {
                shared.loading.note(index, record, keys);
                if turned.is_ok() {
                    turned = self.turn();
                }
            })?;
            turned?;
            if shared.config.enable_analytics {
                self.snapshotter.take_up(&data.note(), &mut shard);
            }
            let auto_ttl = self.shard.auto_ttl().clone();
            self.shard = shard;
            self.shard.set_auto_ttl(auto_ttl);
            shared.clock.learn(self.shard.clocks());
            self.read_back = Some((data, replayed));
            let _ = self.files.read.send(WorkerReport::Read); // Nobody listens when the process is ending.
        }
        if self.shared.loading.is_read()
            && let Some((data, replayed)) = self.read_back.take()
        {
            let shared = &self.shared;
            self.journal.set(Journal::new(data.open(replayed)?, &shared.config));
            shared.shard_loaded(self.index, self.shard.key_count());
        }
        self.loading = !self.shared.loading.is_over();
        if !self.loading {
            let clock = self.shared.clock.resume(self.shared.started, self.shared.config.boot);
            self.clock = ShardClock::start(clock, self.turn_began_us, &mut self.shard);
            self.now_ms = self.clock.now_ms(self.turn_began_us);
            self.log_clocks();
            self.write_down_progress();
        }
        Ok(())
    }

    /// Takes turns until the server stops.
    pub async fn run(mut self) -> Result<(), Failure> {
        let config = &self.shared.config;
        let spin = Duration::from_micros(config.spin_us.into());
        let tick = config.ttl_check_interval.min(Duration::from_millis(TICK_MS));
        let wakeup = self.net.wakeup_file().map_err(Failure::NetworkRing)?;
        self.spawn_ticker(tick).map_err(Failure::NetworkRing)?;
        let mut idle_since = None;
        loop {
            if self.loading {
                self.go_on_loading()?;
            }
            let progressed = self.turn()?;
            if self.is_finished() {
                break;
            }
            if progressed {
                idle_since = None;
                glommio::yield_if_needed().await;
                continue;
            }
            if !spin.is_zero() && idle_since.get_or_insert_with(Instant::now).elapsed() < spin {
                std::thread::yield_now(); // Whoever needs this core goes first: a load on this machine, another shard.
                continue;
            }
            idle_since = None;
            let siblings = self.journal.get().and_then(Journal::awaited_siblings);
            if !self.awaits_threads() {
                // The executor has nothing else to do: wait where the work comes from.
                let patience = self.until_due();
                if self.mesh.fall_asleep() {
                    match siblings {
                        Some((count, left)) => {
                            let count = count.min(SIBLINGS_AT_ONCE_MAX);
                            self.net.wait_for(count, left.min(patience).min(SIBLINGS_WAIT_MAX))
                        }
                        None => self.net.wait(patience),
                    }
                    .map_err(Failure::NetworkRing)?;
                    self.mesh.wake_up();
                }
                continue;
            }
            if siblings.is_some() || self.next_gathered_us().is_some() {
                glommio::yield_if_needed().await;
                continue;
            }
            self.net.parking();
            if !self.net.ready() && self.mesh.fall_asleep() {
                wakeup.read_at(0, 8).await.map_err(|error| Failure::NetworkRing(error.into()))?;
                self.mesh.wake_up();
            }
            self.net.unparked();
        }
        let index = self.index;
        // A server that is told to stop while it is loading ends without an end of its workers.
        let Some(journal) = self.journal.into_inner() else { return Ok(()) };
        journal.close().map_err(|error| Failure::log(index, error))
    }

    /// Whether another thread works for this one, and will wake it by its executor.
    fn awaits_threads(&self) -> bool {
        self.snapshotter.is_busy() || self.backup.is_some() || self.journal.get().is_none()
    }

    /// How long until something is due by the clock.
    fn until_due(&mut self) -> Duration {
        let due_ms = self.next_tick_ms.min(self.next_expiry_ms);
        let until = Duration::from_millis(due_ms.saturating_sub(self.uptime_ms).max(1));
        let gathered_us = self.next_gathered_us();
        gathered_us.map_or(until, |due_us| Duration::from_micros(due_us - self.turn_began_us).min(until))
    }

    /// Wakes the worker from its parking once every `tick`, for what is due by the clock.
    fn spawn_ticker(&self, tick: Duration) -> std::io::Result<()> {
        let wakeup = Rc::new(self.net.wakeup().try_clone_to_owned()?);
        glommio::spawn_local(async move {
            loop {
                glommio::timer::sleep(tick).await;
                Net::unpark(std::os::fd::AsFd::as_fd(&*wakeup));
            }
        })
        .detach();
        Ok(())
    }

    /// One turn. Returns whether it found anything to do.
    fn turn(&mut self) -> Result<bool, Failure> {
        self.choose_gathering();
        let mut events = std::mem::take(&mut self.events);
        let mut progressed = self.net.turn(&mut events).map_err(Failure::NetworkRing)?;
        self.turn_number += 1;
        let began = Instant::now();
        let uptime_us = (began - self.shared.started).as_micros() as u64;
        self.uptime_ms = uptime_us / 1000;
        self.now_ms = self.clock.now_ms(uptime_us);
        if self.turn_progressed {
            // Nobody slept since: the clock need not be read twice a turn.
            self.turn_times.add(uptime_us - self.turn_began_us);
        }
        self.turn_began_us = uptime_us;
        self.shared.beat(self.index, self.uptime_ms);
        let commands_so_far = self.commands;
        for event in events.drain(..) {
            self.on_event(event);
        }
        self.events = events;
        self.mesh.send_own();
        let mut others_served = self.commands != commands_so_far;
        for worker in 0..self.mesh.worker_count() {
            while let Some(batch) = self.mesh.receive(worker) {
                progressed = true;
                others_served |= self.on_batch(worker, batch);
            }
        }
        if !self.backlog.is_empty() {
            let until = others_served.then(|| {
                let now = Instant::now();
                now + (now - began).max(BACKLOG_TIME_MIN)
            });
            progressed |= self.serve_backlog(until);
        }
        if self.uptime_ms >= self.next_tick_ms.min(self.next_expiry_ms) {
            self.tick();
        }
        progressed |= !self.loading && self.background() | self.end_backup();
        if self.loading || !self.journal.gathers() {
            self.write_log();
        }
        self.mesh.send(&mut self.net);
        self.look_after_clients();
        progressed |= !self.ready.is_empty(); // Somebody rests until a later turn.
        self.turn_progressed = progressed;
        Ok(progressed)
    }

    /// Whether what arrives during the next sync gathers: where each packet brings one command, most of a turn's cost
    /// is that it happens at all.
    fn choose_gathering(&mut self) {
        if self.shared.config.sync_mode != SyncMode::Always || self.loading {
            return;
        }
        if self.commands != self.commands_before {
            let served = self.commands - std::mem::replace(&mut self.commands_before, self.commands);
            let gathers = served < GATHERING_COMMANDS_MAX && self.journal.awaiting_sync() > 1;
            self.net.gather_for(if gathers { GATHERING } else { Duration::ZERO });
        }
        self.journal.expect_siblings(self.siblings.expected(self.turn_began_us));
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Received(id, chunk) => self.on_bytes(id, &chunk),
            Event::Sent(id, buffer) => {
                if (1..=SPARE_BUFFER_BYTES).contains(&buffer.capacity())
                    && self.spare_buffers.len() < SPARE_BUFFERS_MAX
                {
                    self.spare_buffers.push(buffer);
                }
                self.make_ready(id);
            }
            Event::Accepted { listener, socket } => self.on_accepted(self.endpoints[listener], socket),
            Event::AcceptFailed { listener, error } => {
                tracing::warn!(%error, "cannot accept connections; trying again (raise the limit of open files?)");
                self.resting.push(listener);
            }
            Event::Ended(id, error) => {
                let gone = error.is_some();
                self.set_stage(id, |stage| match stage {
                    Stage::Open if !gone => Stage::Ended,
                    Stage::Closing if !gone => Stage::Closing,
                    Stage::Ended if !gone => Stage::Ended,
                    _ => Stage::Gone,
                });
            }
            Event::SendFailed(id, _) => self.set_stage(id, |_| Stage::Gone),
            Event::Synced(result) => {
                self.journal.on_synced(result, &mut self.net, &mut self.mesh);
            }
        }
    }

    // ---- the log ----

    /// Writes the log. What this turn has answered so far leaves only if that succeeds.
    fn write_log(&mut self) {
        if self.journal.get().is_none() {
            return; // Nothing was changed.
        }
        let outcome = self.journal.write(&mut self.net, &mut self.mesh);
        self.shared.note_log(self.index, self.journal.log.written_seq(), self.journal.log.durable_seq());
        match outcome {
            Outcome::AsBefore => {}
            Outcome::Failed => {
                for id in &self.ready {
                    let connection = self.connections[id.index as usize].as_mut();
                    if let Some(connection) = connection.filter(|connection| connection.client.socket == *id)
                    {
                        connection.client.held_back = connection.client.shown_in_turn == self.turn_number;
                    }
                }
            }
            Outcome::Recovered => {
                let Worker { connections, ready, .. } = self;
                for connection in connections.iter_mut().flatten() {
                    let client = &mut connection.client;
                    if std::mem::take(&mut client.held_back) && !std::mem::replace(&mut client.listed, true) {
                        ready.push(client.socket);
                    }
                }
            }
        }
    }

    /// What was answered in the turn whose frames could not be written is not coming: its clients are told, and let
    /// go.
    fn give_up_held_back(&mut self) {
        let clients = self.connections.iter().flatten().map(|connection| &connection.client);
        let held_back: Vec<_> =
            clients.filter(|client| client.held_back).map(|client| client.socket).collect();
        for id in held_back {
            let mut connection = self.take_out(id).expect("it is there");
            let client = &mut connection.client;
            client.held_back = false;
            self.end_with_error(client, self.journal.not_on_disk());
            client.stage = Stage::Closing;
            self.put_back(connection);
        }
    }

    // ---- what the clock and idle time ask for ----

    fn tick(&mut self) {
        self.next_tick_ms = self.uptime_ms + TICK_MS;
        if self.uptime_ms >= self.next_expiry_ms {
            self.next_expiry_ms = self.uptime_ms + self.shared.config.ttl_check_interval.as_millis() as u64;
            self.expiring = true;
        }
        if self.uptime_ms >= self.next_note_ms {
            self.next_note_ms = self.uptime_ms + NOTE_MS;
            let latency_us = std::mem::take(&mut self.turn_times).typical_us();
            self.shard.note_second(self.now_ms, latency_us);
            self.look_for_stuck_clients();
            if !self.loading {
                self.log_clocks();
            }
        }
        if !self.loading {
            self.follow_clocks();
        }
        let passed = self.step_towards_timeouts();
        self.look_for_hangs(passed);
        self.end_timed_waits();
        if self.journal.get().is_some() {
            if self.journal.watch(passed, &mut self.mesh) {
                self.give_up_held_back();
            }
            self.shared.note_disk(self.index, self.journal.is_failing());
        }
        self.write_down_progress();
        for listener in std::mem::take(&mut self.resting) {
            self.net.accept(listener);
        }
        let everysec = self.shared.config.sync_mode == SyncMode::EverySecond;
        if everysec && self.journal.get().is_some() && self.last_sync.elapsed() >= SYNC_INTERVAL {
            self.last_sync = Instant::now();
            self.journal.begin_sync(&mut self.net);
        }
        let uptime_ms = self.uptime_ms;
        let overdue = |connection: &Connection| matches!(connection.client.stage, Stage::Lingering { until_ms } if until_ms <= uptime_ms);
        let connections = self.connections.iter().flatten().map(|connection| &**connection);
        let overdue: Vec<_> =
            connections.filter(|it| overdue(it)).map(|connection| connection.client.socket).collect();
        for id in overdue {
            self.set_stage(id, |_| Stage::Gone);
        }
    }

    /// Notices that the wall clock was set, or that the machine was suspended.
    fn follow_clocks(&mut self) {
        let Some(reading) = Reading::take(self.shared.started) else { return };
        if self.journal.fault().is_some() {
            return; // The log has to tell of it.
        }
        match self.clock.follow(reading, &mut self.shard, &mut self.journal.changes) {
            Followed::AsBefore => {}
            Followed::Set { by_ms } if by_ms.unsigned_abs() < TOLD_STEP_MS => {}
            Followed::Set { by_ms } => {
                tracing::warn!(
                    shard = self.index,
                    by_ms,
                    "the wall clock was set; times to live run on as before"
                );
            }
            Followed::Later => self.expiring = true,
        }
    }

    /// Has the log tell what the clocks show, and which keys have expired.
    fn log_clocks(&mut self) {
        if self.journal.fault().is_none() {
            self.clock.log(self.turn_began_us, &self.shard, &mut self.journal.changes);
        }
    }

    /// One slice of each kind of work that no client waits for. Returns whether more is left.
    fn background(&mut self) -> bool {
        if self.expiring {
            self.expiring = self.shard.expire(self.now_ms, EXPIRED_PER_TURN_MAX) == EXPIRED_PER_TURN_MAX;
        }
        let reclaiming = self.shard.reclaim(RECLAIM_STEPS_PER_TURN);
        let (walking, inquiring, staging) = (self.walk(), self.inquire(), self.go_on_staging());
        let reading = self.go_on_reading();
        if self.snapshotter.is_compacting() {
            // A snapshot counts the frames so far: whatever its slices show must be in one of them.
            self.journal.seal();
        }
        let Worker { snapshotter, turn_began_us, clock, shard, journal, mesh, .. } = self;
        snapshotter.step(self.shared.stopping(), *turn_began_us, clock, shard, journal, mesh);
        if self.snapshotter.waits_for_quiescence() && !self.awaits_quiescence {
            if self.locks.is_idle() {
                self.on_quiescence();
            } else {
                self.awaits_quiescence = true;
                let (keys, payload) = (LockKeys::Whole, Deferred::Snapshotter);
                self.locks.wait(Waiter { keys, exclusive: true, payload, lock_for: None });
            }
        }
        self.expiring
            || reclaiming
            || walking
            || inquiring
            || staging
            || reading
            || self.snapshotter.is_writing()
    }

    /// Goes on with the first question. Returns whether questions are left.
    fn inquire(&mut self) -> bool {
        let Some(Asked { origin, request_id, inquiry }) = self.inquiries.front_mut() else { return false };
        if let Some(findings) = self.shard.advance(inquiry, INQUIRY_KEYS_PER_TURN) {
            let (origin, request_id, answer) = (*origin, *request_id, Answer::Findings(Box::new(findings)));
            let seq = self.journal.frame_behind_all();
            self.journal.answer(seq, origin, request_id, answer, &mut self.mesh);
            self.inquiries.pop_front();
        }
        !self.inquiries.is_empty()
    }

    /// No transaction has a lock here: what the snapshotter waits for.
    fn on_quiescence(&mut self) {
        self.awaits_quiescence = false;
        self.journal.seal();
        let now_us = self.shared.id_time_us().max(self.last_id_us);
        let now_id = transaction_id(now_us, SHARDS_MAX - 1);
        let clocks = self.clock.clocks(self.turn_began_us);
        self.snapshotter.on_quiescence(now_id, clocks, &mut self.journal.log, &mut self.mesh);
    }

    /// What this worker counts.
    pub(crate) fn report(&self) -> Report {
        let saved_ms = self.snapshotter.saved_ms().unwrap_or_else(|| self.clock.now_ms(0));
        let saved_s = Some(self.clock.unix_ms(saved_ms) / 1000);
        let Some(journal) = self.journal.get() else {
            let shard = shard::Stats { keys: self.shared.loading.keys(self.index), ..Default::default() };
            return Report { commands: self.commands, saved_s, shard, ..Report::default() };
        };
        let log = &journal.log;
        let log_fill = self.snapshotter.policy().fill(log);
        let of_shard = |cause: &Arc<str>| format!("shard {}: {cause}", self.index).into();
        Report {
            wal_size_bytes: log.size_bytes() + log.snapshot().map_or(0, |snapshot| snapshot.bytes),
            wal_entries: log.entries(),
            needs_compaction: self.snapshotter.is_compacting() || log_fill > 1.0,
            log_fill,
            outlook: self.snapshotter.policy().outlook(self.clock.unix_ms(self.now_ms)).map(Box::new),
            wal_fault: journal.fault().map(of_shard),
            snapshot_fault: self.snapshotter.failure().map(of_shard),
            compacting: self.snapshotter.is_compacting(),
            saved_s,
            commands: self.commands,
            shard: self.shard.stats(),
        }
    }

    // ---- the end of everything ----

    /// Whether the server stops and this worker has nothing left to do. All workers end together: until then
    /// each answers the others.
    fn is_finished(&mut self) -> bool {
        if !self.shared.stopping() {
            return false;
        }
        let since = *self.stopping_since.get_or_insert_with(Instant::now);
        let quiet = self.connections.iter().flatten().all(|connection| {
            let client = &connection.client;
            client.is_quiet() && !client.replies.is_ready() && !self.net.is_sending(client.socket)
        });
        if !self.drained && (quiet || since.elapsed() > DRAIN_MAX) {
            self.drained = true;
            self.shared.drained.add();
        }
        let all_drained = self.shared.drained.count() == self.mesh.worker_count();
        let awaits_sync = self.journal.get().is_some_and(Journal::awaits_sync);
        // Nobody waits for the thread that copies a backup: what it leaves is none.
        self.drained && all_drained && self.mesh.is_idle() && !self.snapshotter.is_busy() && !awaits_sync
    }
}
