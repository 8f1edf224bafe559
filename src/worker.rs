//! One core: its turn takes what arrived, runs it on the shard, logs what changed, and lets the replies go.
//!
//! ```text
//! turn:  reap the network ring -> serve clients -> read mail -> write the log -> send mail -> send replies
//! ```
//!
//! The log is written before any reply of the turn leaves, to a client or to another worker. A worker never waits
//! inside a turn; when a turn finds nothing to do, the worker parks until the network ring, a peer or its clock
//! wakes it.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use shard::analytics::inquiry::Inquiry;
use shard::command::{Access, Run};
use shard::{Dialect, Error, LockKeys, LockTable, Reply, Request, Shard, Waiter};
use wal::Kind;

use crate::backup::{self, Backup, Still};
use crate::config::SyncMode;
use crate::connection::{Client, Connection, Door, INPUT_HIGH_BYTES, Stage};
use crate::journal::{Journal, Outcome};
use crate::loading::Loaded;
use crate::mail::{Answer, Call, Mail, Newcomer, Page, Post, Token, TransactionId};
use crate::net::{Event, Net, SocketId};
use crate::protocol::{self, Listener, Parsed, Parser};
use crate::recovery::{self, ShardData};
use crate::report::Report;
use crate::router::{self, Gather, Job, OwnedRequest, Route, SHARDS_MAX, Transaction, Walk, Walked, route};
use crate::server::{Failure, Shared};
use crate::upkeep::{self, Upkeep};
use crate::verdict;

/// How many commands of one client a turn runs before the others have theirs.
const COMMANDS_PER_TURN_MAX: usize = 1024;

/// How many requests of a pipeline are read ahead at a time.
const READ_AHEAD_MAX: usize = 32;

/// Up to this size the bytes at hand are taken for one request, for which reading ahead is not worth it.
const LONE_REQUEST_BYTES: usize = 128;

/// How many due keys one turn removes.
const EXPIRED_PER_TURN_MAX: usize = 512;

/// How many steps, of some microseconds each, one turn takes to free dropped keyspaces.
const RECLAIM_STEPS_PER_TURN: usize = 16;

/// How many keys one turn visits to answer a question about the use of keys.
const INQUIRY_KEYS_PER_TURN: usize = 512;

/// How long a client that was sent its last reply may take to close its side.
const LINGER_MS: u64 = 1000;

/// Emptied send buffers are kept for reuse up to this size, and at most so many.
const SPARE_BUFFER_BYTES: usize = 64 * 1024;
const SPARE_BUFFERS_MAX: usize = 256;

/// How often a worker looks for what is due by the clock.
const TICK_MS: u64 = 100;

/// How often a shard takes note of what is found out over time.
const NOTE_MS: u64 = 1000;

/// How long `everysec` leaves data unsynced.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// In the mode `always`, how long what arrives during a sync may wait for more, where turns serve fewer commands than
/// this and several clients wait.
const GATHERING: Duration = Duration::from_micros(40);
const GATHERING_COMMANDS_MAX: u64 = 16;

/// How much longer than its disk a client waits for an answer: what the shard itself has to say comes first.
const ANSWER_SLACK_MS: u64 = 500;

/// How long a shutdown waits for what is under way.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// One worker.
pub struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) net: Net,
    pub(crate) post: Post,
    /// Empty while it is being read back.
    pub(crate) shard: Shard,
    journal: Loaded<Journal>,
    /// Some shard is not in memory yet: commands that need keys or files are refused.
    loading: bool,
    /// Where the shard is to be read back from, once that is known.
    data: mpsc::Receiver<ShardData>,
    upkeep: Upkeep,
    /// The backup that this worker leads.
    backup: Option<Backup>,
    /// Which workers hang in their disks.
    hung: Vec<bool>,
    last_tick_ms: u64,
    locks: LockTable<Deferred>,
    /// The locked or waiting parts of transactions.
    prepared: HashMap<TransactionId, Prepared>,
    /// The time of the last transaction id that was made or met; see [`Shared::id_time_us`].
    last_id_us: u64,
    /// Questions about the use of keys; the first one is being answered. Each client has one at most.
    inquiries: VecDeque<Asked>,
    /// Which change of the rules for times to live counts here.
    auto_ttl_version: u64,
    /// The upkeep stands in line at the lock table, for a lull.
    awaits_lull: bool,
    connections: Vec<Option<Box<Connection>>>,
    /// Clients to look after at the end of the turn: something of theirs may have to be sent, or has ended.
    attention: Vec<SocketId>,
    /// Clients with bytes that could not be served when they arrived.
    hungry: Vec<SocketId>,
    /// The doors behind the ring's listeners, by their number; empty where this worker does not accept.
    doors: Vec<Door>,
    /// Listeners that rest because accepting failed.
    resting: Vec<usize>,
    next_worker: usize,
    events: Vec<Event>,
    spare_buffers: Vec<Vec<u8>>,
    /// The number of this turn, from 1 on.
    turn_number: u64,
    /// The time of this turn, in milliseconds since the Unix epoch. It never goes back.
    pub(crate) now_ms: u64,
    /// Milliseconds from the start of the server to this turn: what happens at intervals goes by it, since somebody
    /// may set the clock back.
    uptime_ms: u64,
    /// When this turn began, in microseconds since the start of the server, and whether it found anything to do.
    turn_began_us: u64,
    turn_progressed: bool,
    turn_times: TurnTimes,
    next_note_ms: u64,
    next_tick_ms: u64,
    next_expiry_ms: u64,
    expiring: bool,
    commands: u64,
    /// How many of them before the last turn that served any.
    commands_before: u64,
    last_sync: Instant,
    stopping_since: Option<Instant>,
    drained: bool,
}

/// What waits for locks.
enum Deferred {
    /// A command on one shard.
    Request { origin: usize, token: Token, request: OwnedRequest },
    /// A part of a transaction; see [`Worker::prepared`].
    Part(TransactionId),
    /// The upkeep, for a moment without transactions.
    Upkeep,
}

/// A question about the use of keys, and who has asked it.
struct Asked {
    origin: usize,
    token: Token,
    inquiry: Inquiry,
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
    token: Token,
    request: OwnedRequest,
    participants: Arc<[u32]>,
}

/// What became of a parsed request.
enum Flow {
    /// It was answered, or will be.
    Taken,
    /// It cannot run yet: the client's earlier requests must be answered first.
    Later,
}

impl Worker {
    /// A worker whose shard is read back from what comes out of `data`.
    ///
    /// # Errors
    /// When no more files can be opened.
    pub fn new(
        index: usize,
        shared: Arc<Shared>,
        net: Net,
        post: Post,
        data: mpsc::Receiver<ShardData>,
    ) -> std::io::Result<Worker> {
        let now_ms = wall_clock_ms();
        let upkeep = Upkeep::new(&shared.config, net.wakeup().try_clone_to_owned()?);
        // Until the keys are read, an empty one stands in for the shard, and keeps what is set meanwhile.
        let mut shard = Shard::new(recovery::random_seeds());
        shard.set_auto_ttl(Arc::new(shared.config.auto_ttl.clone().unwrap_or_default()));
        Ok(Worker {
            index,
            shared,
            upkeep,
            hung: vec![false; post.worker_count()],
            last_tick_ms: 0,
            net,
            post,
            shard,
            journal: Loaded::not_yet(),
            loading: true,
            data,
            backup: None,
            locks: LockTable::new(recovery::random_seeds()),
            prepared: HashMap::new(),
            last_id_us: 0,
            inquiries: VecDeque::new(),
            auto_ttl_version: 0,
            awaits_lull: false,
            connections: Vec::new(),
            attention: Vec::new(),
            hungry: Vec::new(),
            doors: Vec::new(),
            resting: Vec::new(),
            next_worker: 0,
            events: Vec::new(),
            spare_buffers: Vec::new(),
            turn_number: 0,
            now_ms,
            uptime_ms: 0,
            turn_began_us: 0,
            turn_progressed: false,
            turn_times: TurnTimes::default(),
            next_note_ms: 0,
            next_tick_ms: 0,
            next_expiry_ms: 0,
            expiring: false,
            commands: 0,
            commands_before: 0,
            last_sync: Instant::now(),
            stopping_since: None,
            drained: false,
        })
    }

    /// Accepts connections for all workers.
    pub fn accept_at(&mut self, listeners: Vec<(std::os::fd::OwnedFd, Door)>) {
        for (descriptor, door) in listeners {
            self.net.listen(descriptor);
            self.doors.push(door);
        }
    }

    /// Reads the shard back once it is known what counts, taking a turn now and then, and begins to serve when every
    /// worker has its shard.
    fn go_on_loading(&mut self) -> Result<(), Failure> {
        if let Ok(data) = self.data.try_recv() {
            let (index, shared) = (self.index, self.shared.clone());
            let mut turned = Ok(true);
            let mut empty = Shard::new(recovery::random_seeds());
            if shared.config.enable_analytics {
                empty = empty.with_analytics(self.now_ms);
            }
            let (shard, log) = data.recover_with_pauses(empty, |record, keys| {
                shared.loading.note(index, record, keys);
                if turned.is_ok() {
                    turned = self.turn();
                }
            })?;
            turned?;
            let auto_ttl = self.shard.auto_ttl().clone();
            self.shard = shard;
            self.shard.set_auto_ttl(auto_ttl);
            self.journal.set(Journal::new(log, &shared.config));
            shared.shard_loaded(index, self.shard.key_count());
        }
        self.loading = !self.shared.loading.is_over();
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
            if self.turn()? {
                idle_since = None;
                glommio::yield_if_needed().await;
                continue;
            }
            if self.is_finished() {
                break;
            }
            if !spin.is_zero() && idle_since.get_or_insert_with(Instant::now).elapsed() < spin {
                std::hint::spin_loop();
                continue;
            }
            idle_since = None;
            if !self.awaits_threads() {
                // The executor has nothing else to do: wait where the work comes from.
                if self.post.fall_asleep() {
                    self.net.wait(self.until_due()).map_err(Failure::NetworkRing)?;
                    self.post.wake_up();
                }
                continue;
            }
            self.net.parking();
            if !self.net.ready() && self.post.fall_asleep() {
                wakeup.read_at(0, 8).await.map_err(|error| Failure::NetworkRing(error.into()))?;
                self.post.wake_up();
            }
            self.net.unparked();
        }
        let index = self.index;
        // A server that is told to stop while it is loading ends without an end of its workers.
        let Some(journal) = self.journal.into_inner() else { return Ok(()) };
        journal.log.close().map_err(|error| Failure::log(index, error))
    }

    /// Whether another thread works for this one, and will wake it by its executor.
    fn awaits_threads(&self) -> bool {
        self.upkeep.is_busy() || self.backup.is_some() || self.journal.get().is_none()
    }

    /// How long until something is due by the clock.
    fn until_due(&self) -> Duration {
        let due_ms = self.next_tick_ms.min(self.next_expiry_ms);
        Duration::from_millis(due_ms.saturating_sub(self.uptime_ms).max(1))
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
        self.now_ms = self.now_ms.max(wall_clock_ms());
        let uptime_us = self.shared.started.elapsed().as_micros() as u64;
        self.uptime_ms = uptime_us / 1000;
        if self.turn_progressed {
            // Nobody slept since: the clock need not be read twice a turn.
            self.turn_times.add(uptime_us - self.turn_began_us);
        }
        self.turn_began_us = uptime_us;
        self.shared.beat(self.index, self.uptime_ms);
        for event in events.drain(..) {
            self.on_event(event);
        }
        self.events = events;
        self.post.send_own();
        for worker in 0..self.post.worker_count() {
            while let Some(mail) = self.post.receive(worker) {
                progressed = true;
                self.on_mail(worker, mail);
            }
        }
        progressed |= self.serve_hungry();
        if self.uptime_ms >= self.next_tick_ms.min(self.next_expiry_ms) {
            self.tick();
        }
        progressed |= !self.loading && self.background() | self.end_backup();
        if self.loading || !self.journal.gathers() {
            self.write_log();
        }
        self.post.send(&mut self.net);
        self.look_after_clients();
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
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Received(id, chunk) => self.on_bytes(id, &chunk),
            Event::Sent(id, buffer) => {
                if buffer.capacity() <= SPARE_BUFFER_BYTES && self.spare_buffers.len() < SPARE_BUFFERS_MAX {
                    self.spare_buffers.push(buffer);
                }
                self.attend(id);
            }
            Event::Accepted { listener, socket } => self.on_accepted(self.doors[listener], socket),
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
                self.journal.on_synced(result, &mut self.net, &mut self.post);
            }
        }
    }

    // ---- clients ----

    fn on_accepted(&mut self, door: Door, socket: std::os::fd::OwnedFd) {
        if door != Door::Unix && crate::net::prepare_tcp(&socket).is_err() {
            return; // The peer is gone already.
        }
        let client_id = self.shared.clients_accepted.next();
        let newcomer = Newcomer { socket, door, client_id };
        if self.shared.connections.count() >= self.shared.config.max_connections as usize {
            self.refuse(newcomer);
            return;
        }
        self.shared.connections.add();
        let count = self.post.worker_count();
        let mut in_turn = (0..count).map(|step| (self.next_worker + step) % count);
        let worker = in_turn.find(|worker| !self.hung[*worker]).expect("this worker does not hang");
        self.next_worker = (worker + 1) % count;
        if worker == self.index {
            self.welcome(newcomer);
        } else {
            self.post.to(worker).newcomer(newcomer);
        }
    }

    fn welcome(&mut self, newcomer: Newcomer) -> &mut Connection {
        let Newcomer { socket, door, client_id } = newcomer;
        let id = self.net.attach(socket);
        let listener = match door {
            Door::Text => Listener::Text { resp_port: self.shared.resp_port },
            Door::Resp | Door::Unix => Listener::Resp,
        };
        let mut connection = Connection::new(id, client_id, door, Parser::new(listener));
        if door == Door::Text {
            connection.client.replies.now(|out| out.extend_from_slice(protocol::GREETING));
        }
        let index = id.index as usize;
        if index >= self.connections.len() {
            self.connections.resize_with(index + 1, || None);
        }
        connection.client.listed = true;
        self.attention.push(id);
        self.connections[index].insert(connection)
    }

    fn refuse(&mut self, newcomer: Newcomer) {
        self.shared.connections_refused.next();
        let client = &mut self.welcome(newcomer).client;
        client.refused = true;
        client.replies.discard();
        answer_error(client, Error::ConnectionLimit);
        client.stage = Stage::Closing;
    }

    fn connection(&mut self, id: SocketId) -> Option<&mut Box<Connection>> {
        let connection = self.connections.get_mut(id.index as usize)?.as_mut();
        connection.filter(|connection| connection.client.socket == id)
    }

    /// Takes a connection out, so that it can be served with the rest of the worker at hand.
    fn take_out(&mut self, id: SocketId) -> Option<Box<Connection>> {
        let place = self.connections.get_mut(id.index as usize)?;
        place.take_if(|connection| connection.client.socket == id)
    }

    fn put_back(&mut self, mut connection: Box<Connection>) {
        let id = connection.client.socket;
        if !std::mem::replace(&mut connection.client.listed, true) {
            self.attention.push(id);
        }
        self.connections[id.index as usize] = Some(connection);
    }

    fn attend(&mut self, id: SocketId) {
        if let Some(connection) = self.connection(id)
            && !std::mem::replace(&mut connection.client.listed, true)
        {
            self.attention.push(id);
        }
    }

    fn set_stage(&mut self, id: SocketId, next: impl FnOnce(Stage) -> Stage) {
        if let Some(connection) = self.connection(id) {
            connection.client.stage = next(connection.client.stage);
            self.attend(id);
        }
    }

    fn on_bytes(&mut self, id: SocketId, chunk: &[u8]) {
        let Some(mut connection) = self.take_out(id) else { return };
        if connection.input.is_empty() {
            let used = self.serve(&mut connection, chunk);
            connection.input.extend_from_slice(&chunk[used..]);
        } else {
            connection.input.extend_from_slice(chunk);
            if !connection.client.hungry {
                self.serve_input(&mut connection);
            }
        }
        self.put_back(connection);
    }

    fn serve_hungry(&mut self) -> bool {
        let mut progressed = false;
        for id in std::mem::take(&mut self.hungry) {
            let Some(mut connection) = self.take_out(id) else { continue };
            let client = &mut connection.client;
            let full = client.waits_for.is_some_and(|worker| self.post.is_full(worker));
            if client.is_servable() && !full && !self.shared.stopping() {
                let before = connection.input.len();
                client.hungry = false;
                client.waits_for = None;
                self.serve_input(&mut connection);
                progressed |= connection.input.len() != before;
                self.put_back(connection);
            } else {
                self.hungry.push(id);
                self.connections[id.index as usize] = Some(connection);
            }
        }
        progressed
    }

    fn serve_input(&mut self, connection: &mut Connection) {
        if connection.input.len() < connection.input_needed {
            return;
        }
        let mut input = std::mem::take(&mut connection.input);
        let used = self.serve(connection, &input);
        if used == input.len() {
            input.clear();
            input.shrink_to(INPUT_HIGH_BYTES);
        } else {
            input.drain(..used);
        }
        connection.input = input;
    }

    /// Runs the requests in `bytes` in order, as far as they go now. Returns how many bytes are done with.
    fn serve(&mut self, connection: &mut Connection, bytes: &[u8]) -> usize {
        let Connection { parser, client, input_needed, .. } = connection;
        let mut used = 0;
        let mut commands_left = COMMANDS_PER_TURN_MAX;
        *input_needed = 0;
        let mut until_ahead = 0;
        while used < bytes.len() {
            if matches!(client.stage, Stage::Closing | Stage::Lingering { .. } | Stage::Gone) {
                return bytes.len();
            }
            if !client.is_servable() || commands_left == 0 || self.shared.stopping() {
                self.starve(client);
                return used;
            }
            let rest = &bytes[used..];
            if until_ahead == 0 && rest.len() > LONE_REQUEST_BYTES {
                until_ahead = READ_AHEAD_MAX;
                self.read_ahead(rest);
            }
            until_ahead = until_ahead.saturating_sub(1);
            match parser.parse(rest) {
                Ok(Parsed::Request { consumed }) => match self.dispatch(parser, client, rest) {
                    Flow::Taken => used += consumed,
                    Flow::Later => {
                        self.starve(client);
                        return used;
                    }
                },
                Ok(Parsed::Skip { consumed }) => used += consumed,
                Ok(Parsed::Incomplete { needed }) => {
                    *input_needed = needed;
                    return used;
                }
                Err(error) => {
                    client.replies.now(|out| error.write(client.dialect, out));
                    client.stage = Stage::Closing;
                    return bytes.len();
                }
            }
            commands_left -= 1;
        }
        used
    }

    /// Makes the memory behind the keys of the next requests ready: the waits for several keys overlap.
    fn read_ahead(&self, bytes: &[u8]) {
        let shards = self.post.worker_count();
        let own = |key: &&[u8]| router::owner(key, shards) == self.index;
        self.shard.warm(protocol::first_args(bytes).take(READ_AHEAD_MAX).filter(own));
    }

    fn starve(&mut self, client: &mut Client) {
        client.hungry = true;
        self.hungry.push(client.socket);
    }

    // ---- commands ----

    fn dispatch(&mut self, parser: &Parser, client: &mut Client, input: &[u8]) -> Flow {
        let Some(command) = parser.command() else {
            self.commands += 1;
            answer_error(client, parser.unknown_command(input));
            return Flow::Taken;
        };
        let request = parser.request(input, command, client.dialect);
        if let Err(error) = protocol::check_arity(command, request.arg_count()) {
            self.commands += 1;
            answer(client, &request, &Reply::Error(error));
            return Flow::Taken;
        }
        if self.loading && !command.runs_while_loading() {
            self.commands += 1;
            let percent = self.shared.loading.percent();
            answer(client, &request, &Reply::Error(Error::Loading { percent }));
            return Flow::Taken;
        }
        let single = self.post.worker_count() == 1;
        match command.run {
            Run::Key(_) | Run::Keys(..) => match route(&request, self.post.worker_count()) {
                Route::One(worker) if worker == self.index => self.run_here(client, &request),
                Route::One(worker) if self.hung[worker] => answer(client, &request, &hangs()),
                Route::One(worker) if self.post.is_full(worker) => {
                    client.waits_for = Some(worker);
                    return Flow::Later;
                }
                Route::One(worker) => {
                    let token = Token { socket: client.socket, sequence: client.replies.next_sequence() };
                    let size_bytes = self.post.run(worker, token, &request);
                    client.replies.later(worker, size_bytes, self.uptime_ms);
                }
                Route::Several if !client.is_quiet() => return Flow::Later,
                Route::Several => match self.any_hangs(request.keys()) {
                    true => answer(client, &request, &hangs()),
                    false => self.begin_transaction(client, &request),
                },
            },
            Run::EveryShard(..) if single => self.run_here(client, &request),
            Run::EveryShard(..) | Run::Server(_) if !client.is_quiet() => return Flow::Later,
            Run::EveryShard(..) if self.some_hang() => answer(client, &request, &hangs()),
            Run::EveryShard(..) if command.access == Access::Write => {
                self.begin_transaction(client, &request);
            }
            Run::EveryShard(..) => self.begin_gather(client, &request, |mail| Call::RunPart {
                command: request.command,
                args: mail.args(request.args()),
            }),
            Run::Server(_) => self.run_server_command(client, &request),
        }
        self.commands += 1;
        Flow::Taken
    }

    /// Runs a command whose keys all lie on this worker's shard.
    fn run_here(&mut self, client: &mut Client, request: &Request<'_>) {
        if let Some(error) = self.refusal(request) {
            answer(client, request, &Reply::Error(error));
        } else if self.locks.is_idle() || !self.conflicts(request) {
            let Worker { shard, journal, post, index, now_ms, uptime_ms, turn_number, .. } = self;
            let journal = &mut **journal;
            journal.bound_frame();
            let changes_before = journal.changes.count();
            let reply = shard.execute(request, *now_ms, &mut journal.changes);
            let seq = journal.frame_behind(request, journal.changes.count() != changes_before);
            if journal.holds_back(seq) {
                let sequence = client.replies.later(*index, 0, *uptime_ms);
                let token = Token { socket: client.socket, sequence };
                let asker = (*index, token);
                journal
                    .answer_bytes(seq, asker, request.dialect, post, |out| write_reply(&reply, request, out));
            } else {
                client.shown_in_turn = *turn_number;
                answer(client, request, &reply);
            }
        } else {
            let sequence = client.replies.later(self.index, 0, self.uptime_ms);
            let token = Token { socket: client.socket, sequence };
            // It is answered as a request from a peer is.
            self.defer(self.index, token, request);
        }
    }

    /// The error for a command that writes, while the log takes no changes.
    #[inline]
    fn refusal(&self, request: &Request<'_>) -> Option<Error> {
        if request.command.access == Access::Write { self.journal.refusal() } else { None }
    }

    pub(crate) fn begin_transaction(&mut self, client: &mut Client, request: &Request<'_>) {
        let id = self.next_id();
        let transaction = Transaction::begin(id, request, job_token(client), &mut self.post);
        self.begin_job(client, Job::Transaction(transaction));
    }

    pub(crate) fn begin_job(&self, client: &mut Client, job: Job) {
        client.job = Some(Box::new(job));
        client.job_since_ms = self.uptime_ms;
    }

    /// Whether a shard hangs in its disk.
    pub(crate) fn some_hang(&self) -> bool {
        self.hung.contains(&true)
    }

    /// Whether a shard that owns one of these keys hangs.
    fn any_hangs<'a>(&self, mut keys: impl Iterator<Item = &'a [u8]>) -> bool {
        self.some_hang() && keys.any(|key| self.hung[router::owner(key, self.hung.len())])
    }

    fn next_id(&mut self) -> TransactionId {
        self.last_id_us = self.shared.id_time_us().max(self.last_id_us + 1);
        verdict::transaction_id(self.last_id_us, self.index)
    }

    pub(crate) fn begin_gather(
        &mut self,
        client: &mut Client,
        request: &Request<'_>,
        call: impl Fn(&mut Mail) -> Call,
    ) {
        let workers = (0..self.hung.len()).filter(|worker| !self.hung[*worker]).collect();
        let mut gather = Gather::begin(workers, request, job_token(client), &mut self.post, call);
        gather.report.wal_fault = self.hung.iter().position(|hung| *hung).map(hangs_in_disk);
        self.begin_job(client, Job::Gather(gather));
    }

    pub(crate) fn begin_keys(&mut self, client: &mut Client, pattern: &[u8]) {
        let walk = Walk::all(pattern, client.dialect, job_token(client), &mut self.post);
        self.begin_job(client, Job::Walk(walk));
    }

    /// Starts a page of `SCAN`. A cursor that no `SCAN` has returned names an empty last page.
    pub(crate) fn begin_scan(
        &mut self,
        client: &mut Client,
        cursor: u64,
        count: usize,
        pattern: Option<Box<[u8]>>,
    ) {
        let token = job_token(client);
        match Walk::page(cursor, count, pattern, client.dialect, token, &mut self.post) {
            Some(walk) => self.begin_job(client, Job::Walk(walk)),
            None => client.replies.now(|out| protocol::begin_page(0, 0, client.dialect, out)),
        }
    }

    /// Begins to copy the shards, if all of them could be locked.
    fn begin_backup(
        &mut self,
        request: &OwnedRequest,
        stills: Vec<Still>,
        locked: Reply<'static>,
        token: Token,
    ) -> Result<(), Error> {
        if let Reply::Error(error) = locked {
            return Err(error);
        }
        let path = backup::place(self.shared.config.backup_dir.as_deref(), request.request().arg(0))?;
        let wakeup = self.net.wakeup().try_clone_to_owned();
        let wakeup = wakeup.map_err(|error| Error::BackupFailed { cause: error.to_string().into() })?;
        self.backup = Some(Backup::begin(self.shared.clone(), stills, path, token, wakeup)?);
        Ok(())
    }

    /// Tells whoever asked for a backup that it has ended. Returns whether one has.
    fn end_backup(&mut self) -> bool {
        let ended = self.backup.as_ref().and_then(|backup| backup.ended(&self.shared));
        let Some((token, reply)) = ended else { return false };
        self.backup = None;
        self.post.to(self.index).answer(token, Answer::Part(reply));
        true
    }

    fn conflicts(&self, request: &Request<'_>) -> bool {
        let exclusive = request.command.access == Access::Write;
        if matches!(request.command.run, Run::EveryShard(..)) {
            // Only counted, not changed, outside of a transaction.
            return false;
        }
        self.locks.conflicts(request.keys(), exclusive)
    }

    fn defer(&mut self, origin: usize, token: Token, request: &Request<'_>) {
        let (keys, exclusive) = locks_of(request);
        let payload = Deferred::Request { origin, token, request: OwnedRequest::new(request) };
        self.locks.wait(Waiter { keys, exclusive, payload, lock_for: None });
    }

    // ---- mail ----

    fn on_mail(&mut self, from: usize, mut mail: Box<Mail>) {
        for newcomer in mail.take_newcomers() {
            self.welcome(newcomer);
        }
        self.shard.warm(mail.first_args(READ_AHEAD_MAX));
        let mut calls = mail.take_calls();
        for (token, call) in calls.drain(..) {
            self.on_call(from, token, call, &mail);
        }
        let mut answers = mail.take_answers();
        for (token, answer) in answers.drain(..) {
            self.on_answer(from, token, answer, &mail);
        }
        mail.take_back(calls, answers);
        self.post.recycle(mail);
    }

    fn on_call(&mut self, from: usize, token: Token, call: Call, mail: &Mail) {
        match call {
            Call::Run { command, dialect, args } => {
                let request = mail.request(command, dialect, args);
                if self.locks.is_idle() || !self.conflicts(&request) {
                    self.run_for(from, token, &request);
                } else {
                    self.defer(from, token, &request);
                }
            }
            Call::RunPart { command, args } => {
                let request = mail.request(command, Dialect::Resp3, args);
                let (reply, seq) = self.execute(&request);
                self.journal.answer(seq, from, token, Answer::Part(reply), &mut self.post);
            }
            Call::Lock { transaction, wait, command, args, participants } => {
                let request = OwnedRequest::new(&mail.request(command, Dialect::Resp3, args));
                let part = Prepared { origin: from, token, request, participants };
                self.lock_part(transaction, wait, part);
            }
            Call::Commit { transaction, record } => {
                let part = self.prepared.remove(&transaction).expect("a part is committed once");
                self.last_id_us = self.last_id_us.max(verdict::id_micros(record));
                let (reply, seq) = self.run_part(record, &part);
                self.journal.answer(seq, from, token, Answer::Committed(reply), &mut self.post);
            }
            Call::Release(transaction) => {
                self.prepared.remove(&transaction);
                self.unlock(transaction);
            }
            Call::Scan { position, count, pattern, dialect } => {
                let mut page = Page::default();
                page.next = self.shard.scan(position, count, pattern.as_deref(), self.now_ms, |key| {
                    protocol::write_item(&Reply::bytes(key), dialect, &mut page.items);
                    page.count += 1;
                });
                let seq = self.journal.frame_behind_all();
                self.journal.answer(seq, from, token, Answer::Page(Box::new(page)), &mut self.post);
            }
            Call::Ask(question) => {
                let inquiry = self.shard.ask(question, self.index, self.now_ms);
                let inquiry = inquiry.expect("questions are asked only where something is counted");
                self.inquiries.push_back(Asked { origin: from, token, inquiry });
            }
            Call::SetAutoTtl { auto_ttl, version } => {
                if version > self.auto_ttl_version {
                    self.auto_ttl_version = version;
                    self.shard.set_auto_ttl(auto_ttl);
                }
                self.post.to(from).answer(token, Answer::Part(Reply::Ok));
            }
            Call::Report => {
                let report = self.report();
                self.post.to(from).answer(token, Answer::Report(Box::new(report)));
            }
            Call::Sync => {
                self.write_log();
                self.journal.answer_synced(from, token, &mut self.net, &mut self.post);
            }
            Call::Compact => self.upkeep.ask(from, token),
            Call::CompactUnheard => self.upkeep.ask_unheard(),
        }
    }

    fn run_for(&mut self, origin: usize, token: Token, request: &Request<'_>) {
        let refusal = self.refusal(request);
        let Worker { shard, journal, post, now_ms, .. } = self;
        if let Some(error) = refusal {
            return post
                .to(origin)
                .answer_bytes(token, |out| write_reply(&Reply::Error(error), request, out));
        }
        let journal = &mut **journal;
        journal.bound_frame();
        let changes_before = journal.changes.count();
        let reply = shard.execute(request, *now_ms, &mut journal.changes);
        let seq = journal.frame_behind(request, journal.changes.count() != changes_before);
        let asker = (origin, token);
        journal.answer_bytes(seq, asker, request.dialect, post, |out| write_reply(&reply, request, out));
    }

    /// Runs a request; returns its reply, and the frame that it depends on.
    fn execute(&mut self, request: &Request<'_>) -> (Reply<'static>, u64) {
        let journal = &mut *self.journal;
        journal.bound_frame();
        let changes_before = journal.changes.count();
        let reply = self.shard.execute(request, self.now_ms, &mut journal.changes).into_owned();
        let seq = journal.frame_behind(request, journal.changes.count() != changes_before);
        (reply, seq)
    }

    fn on_answer(&mut self, from: usize, token: Token, answer: Answer, mail: &Mail) {
        if token == upkeep::TOKEN {
            let failed = matches!(answer, Answer::Part(Reply::Error(_)));
            self.upkeep.on_synced(!failed, &self.journal.log, &mut self.post);
            return;
        }
        let Some(mut connection) = self.take_out(token.socket) else {
            unreachable!("a connection stays until everything it asked for is answered");
        };
        let client = &mut connection.client;
        if let Some(at) = client.given_up.iter().position(|(sequence, _)| *sequence == token.sequence) {
            if self.advance_given_up(&mut client.given_up[at].1, from, token, answer) {
                client.given_up.swap_remove(at);
            }
            return self.put_back(connection);
        }
        match (answer, client.job.take()) {
            (Answer::Bytes(range), job) => {
                client.job = job;
                let bytes = mail.bytes(range);
                let sent = client.replies.fill(token.sequence, |out| out.extend_from_slice(bytes));
                if sent.worker != self.index {
                    self.post.answered(sent.worker, sent.size_bytes);
                }
            }
            (answer, Some(mut job)) => {
                if !self.advance(client, &mut job, from, answer) {
                    client.job = Some(job);
                    client.job_since_ms = self.uptime_ms;
                }
            }
            (_, None) => unreachable!("only jobs are answered by parts"),
        }
        self.put_back(connection);
    }

    /// Takes one answer to a job. Returns whether the job has ended, with its reply given.
    fn advance(&mut self, client: &mut Client, job: &mut Job, from: usize, given: Answer) -> bool {
        let token = job_token(client);
        match (&mut *job, given) {
            (Job::Transaction(transaction), given) => {
                let record = self.next_id();
                let Some(reply) = transaction.answer(from, given, record, token, &mut self.post) else {
                    return false;
                };
                if let Run::Server(_) = transaction.request.request().command.run {
                    let (request, stills) = (transaction.request.clone(), transaction.take_stills());
                    let Err(error) = self.begin_backup(&request, stills, reply, token) else {
                        *job = Job::Backup(request);
                        return false;
                    };
                    self.shared.backups.end(true);
                    answer(client, &request.request(), &Reply::Error(error));
                } else {
                    answer(client, &transaction.request.request(), &reply);
                }
            }
            (Job::Backup(request), Answer::Part(reply)) => answer(client, &request.request(), &reply),
            (Job::Backup(_), _) => unreachable!("a backup ends with one answer"),
            (Job::Walk(walk), Answer::Page(page)) => {
                let Some(walked) = walk.answer(*page, token, &mut self.post) else { return false };
                let Walked { items, count, cursor } = walked;
                client.replies.now(|out| match walk.is_all() {
                    true => protocol::begin_list(count, client.dialect, out),
                    false => protocol::begin_page(cursor, count, client.dialect, out),
                });
                client.replies.now_sealed(items);
            }
            (Job::Gather(gather), given) => {
                if !gather.answer(from, given) {
                    return false;
                }
                let request = gather.request.clone();
                let request = request.request();
                let is_first = gather.then.is_none();
                let reply = match request.command.run {
                    Run::EveryShard(_, merge) => gather.merge(merge),
                    _ => self.gathered(&request, gather),
                };
                if is_first && let Some(next) = self.follow_up(&request, &reply, token) {
                    *gather = next;
                    return false;
                }
                answer(client, &request, &reply);
            }
            (Job::Walk(_), Answer::Part(Reply::Error(error))) => answer_error(client, error),
            (Job::Walk(_), _) => unreachable!("a walk is answered by pages"),
        }
        true
    }

    // ---- disks that hang ----

    /// Finds out which workers hang. While one does, or a disk fails, clients that have waited for too long are told:
    /// what they asked for goes on without them.
    fn look_for_hangs(&mut self) {
        // When this worker itself was not run for a while, neither were the others.
        let late =
            self.uptime_ms - self.last_tick_ms > self.shared.config.disk_timeout.as_millis() as u64 / 2;
        self.last_tick_ms = self.uptime_ms;
        if late || self.loading {
            return;
        }
        for worker in 0..self.hung.len() {
            let hangs = worker != self.index && self.shared.hangs(worker, self.uptime_ms);
            if hangs != std::mem::replace(&mut self.hung[worker], hangs) {
                let state = if hangs { "hangs in its disk" } else { "goes on" };
                tracing::warn!(shard = worker, "{state}, as shard {} sees it", self.index);
            }
        }
        if !self.some_hang() && !self.shared.some_disk_fails() {
            return;
        }
        let waiting = self.connections.iter().flatten().filter(|connection| !connection.client.is_quiet());
        let waiting: Vec<_> = waiting.map(|connection| connection.client.socket).collect();
        for id in waiting {
            let mut connection = self.take_out(id).expect("it is there");
            self.give_up_what_hangs(&mut connection.client);
            self.put_back(connection);
        }
    }

    fn give_up_what_hangs(&mut self, client: &mut Client) {
        let wait_ms = self.shared.config.disk_timeout.as_millis() as u64 + ANSWER_SLACK_MS;
        let Some(before_ms) = self.uptime_ms.checked_sub(wait_ms) else { return };
        let dialect = client.dialect;
        client.replies.give_up(before_ms, |worker, out| {
            let error = Error::NotOnDisk { cause: no_answer(&[worker]) };
            protocol::write_reply(&Reply::Error(error), None, 0, dialect, out);
        });
        let awaited = match client.job.as_deref_mut() {
            Some(Job::Transaction(transaction)) if client.job_since_ms < before_ms => {
                transaction.give_up();
                transaction.unanswered()
            }
            Some(Job::Gather(gather)) => gather.unanswered().to_vec(),
            Some(Job::Walk(walk)) => vec![walk.shard()],
            _ => return,
        };
        let is_transaction = matches!(client.job.as_deref(), Some(Job::Transaction(_)));
        if !is_transaction && !awaited.iter().any(|worker| self.hung[*worker]) {
            return;
        }
        let mut job = client.job.take().expect("it was looked at");
        let sequence = client.replies.skip_number();
        match &mut *job {
            Job::Gather(gather) if gather.is_of_reports() => {
                gather.report.wal_fault = awaited.first().copied().map(hangs_in_disk);
                let request = gather.request.clone();
                let reply = self.gathered(&request.request(), gather);
                answer(client, &request.request(), &reply);
            }
            _ => answer_error(client, Error::NotOnDisk { cause: no_answer(&awaited) }),
        }
        client.given_up.push((sequence, job));
    }

    /// Takes one answer to a job that its client waits for no more. Returns whether it has ended.
    fn advance_given_up(&mut self, job: &mut Job, from: usize, token: Token, given: Answer) -> bool {
        match job {
            Job::Transaction(transaction) => {
                let record = self.next_id();
                let ended = transaction.answer(from, given, record, token, &mut self.post).is_some();
                if ended && matches!(transaction.request.request().command.run, Run::Server(_)) {
                    self.shared.backups.end(true);
                }
                ended
            }
            Job::Gather(gather) => gather.answer(from, given),
            Job::Walk(_) => true,
            Job::Backup(_) => unreachable!("a backup that is being copied is waited for"),
        }
    }

    // ---- transactions, at the shards that take part ----

    fn lock_part(&mut self, transaction: TransactionId, wait: bool, part: Prepared) {
        let (keys, exclusive) = locks_of(&part.request.request());
        if self.locks.try_lock(transaction, keys.clone(), exclusive) {
            self.prepared.insert(transaction, part);
            self.locked(transaction);
        } else if wait {
            let payload = Deferred::Part(transaction);
            self.locks.wait(Waiter { keys, exclusive, payload, lock_for: Some(transaction) });
            self.prepared.insert(transaction, part);
        } else {
            self.post.to(part.origin).answer(part.token, Answer::Refused);
        }
    }

    /// Tells that a part holds its locks, or that it cannot be run. A part that only reads does so now.
    fn locked(&mut self, transaction: TransactionId) {
        let part = &self.prepared[&transaction];
        let (origin, token) = (part.origin, part.token);
        if part.request.request().command.access == Access::Write {
            let refusal = self.journal.refusal().map(|error| Answer::Part(Reply::Error(error)));
            self.post.to(origin).answer(token, refusal.unwrap_or(Answer::Locked));
            return;
        }
        if let Run::Server(_) = part.request.request().command.run {
            let still = self.still();
            self.post.to(origin).answer(token, still);
            return;
        }
        let request = part.request.clone();
        let (reply, seq) = self.execute(&request.request());
        self.journal.answer(seq, origin, token, Answer::Part(reply), &mut self.post);
    }

    /// How this shard is, for a backup; it is locked, and stays so until all shards are.
    fn still(&mut self) -> Answer {
        self.write_log();
        let log = &mut self.journal.log;
        if log.buffered_bytes() == 0 && !log.needs_snapshot() {
            let (image, keys) = (log.image(), self.shard.key_count() as u64);
            return Answer::Still(Box::new(Still { image, keys }));
        }
        let error = self.journal.refusal().expect("writes are refused while the log lacks any");
        Answer::Part(Reply::Error(error))
    }

    fn run_part(&mut self, record: TransactionId, part: &Prepared) -> (Reply<'static>, u64) {
        self.journal.seal();
        let (reply, _) = self.execute(&part.request.request());
        // A part that changes nothing is logged too: to recovery, a part without a frame was cut short.
        let seq = self.journal.append(Kind::Transaction { id: record, participants: &part.participants });
        (reply, seq)
    }

    fn unlock(&mut self, transaction: TransactionId) {
        let mut granted = Vec::new();
        self.locks.release(transaction, &mut granted);
        for deferred in granted {
            match deferred {
                Deferred::Request { origin, token, request } => {
                    self.run_for(origin, token, &request.request());
                }
                Deferred::Part(transaction) => self.locked(transaction),
                Deferred::Upkeep => self.on_lull(),
            }
        }
    }

    // ---- the log ----

    /// Writes the log. What this turn has answered so far leaves only if that succeeds.
    fn write_log(&mut self) {
        if self.journal.get().is_none() {
            return; // Nothing was changed.
        }
        match self.journal.write(&mut self.net, &mut self.post) {
            Outcome::AsBefore => {}
            Outcome::Failed => {
                for id in &self.attention {
                    let connection = self.connections[id.index as usize].as_mut();
                    if let Some(connection) = connection.filter(|connection| connection.client.socket == *id)
                    {
                        connection.client.held_back = connection.client.shown_in_turn == self.turn_number;
                    }
                }
            }
            Outcome::Recovered => {
                let Worker { connections, attention, .. } = self;
                for connection in connections.iter_mut().flatten() {
                    let client = &mut connection.client;
                    if std::mem::take(&mut client.held_back) && !std::mem::replace(&mut client.listed, true) {
                        attention.push(client.socket);
                    }
                }
            }
        }
    }

    /// What was answered in the turn whose frames could not be written is not coming: its clients are told, and let
    /// go.
    fn give_up_held_back(&mut self) {
        let Worker { connections, attention, journal, .. } = self;
        for connection in connections.iter_mut().flatten() {
            let client = &mut connection.client;
            if std::mem::take(&mut client.held_back) {
                client.replies.discard();
                answer_error(client, journal.not_on_disk());
                client.stage = Stage::Closing;
                if !std::mem::replace(&mut client.listed, true) {
                    attention.push(client.socket);
                }
            }
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
        }
        self.look_for_hangs();
        if self.journal.get().is_some() {
            if self.journal.watch(&mut self.post) {
                self.give_up_held_back();
            }
            self.shared.note_disk(self.index, self.journal.is_failing());
        }
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

    /// One slice of each kind of work that no client waits for. Returns whether more is left.
    fn background(&mut self) -> bool {
        if self.expiring {
            self.expiring = self.shard.expire(self.now_ms, EXPIRED_PER_TURN_MAX) == EXPIRED_PER_TURN_MAX;
        }
        let reclaiming = self.shard.reclaim(RECLAIM_STEPS_PER_TURN);
        let inquiring = self.inquire();
        if self.upkeep.is_compacting() {
            // A snapshot counts the frames so far: whatever its slices show must be in one of them.
            self.journal.seal();
        }
        let Worker { upkeep, uptime_ms, now_ms, shard, journal, post, .. } = self;
        upkeep.step(self.shared.stopping(), *uptime_ms, *now_ms, shard, journal, post);
        if self.upkeep.waits_for_lull() && !self.awaits_lull {
            if self.locks.is_idle() {
                self.on_lull();
            } else {
                self.awaits_lull = true;
                let (keys, payload) = (LockKeys::Whole, Deferred::Upkeep);
                self.locks.wait(Waiter { keys, exclusive: true, payload, lock_for: None });
            }
        }
        self.expiring || reclaiming || inquiring || self.upkeep.is_writing()
    }

    /// Goes on with the first question. Returns whether questions are left.
    fn inquire(&mut self) -> bool {
        let Some(Asked { origin, token, inquiry }) = self.inquiries.front_mut() else { return false };
        if let Some(findings) = self.shard.advance(inquiry, INQUIRY_KEYS_PER_TURN) {
            let (origin, token, answer) = (*origin, *token, Answer::Findings(Box::new(findings)));
            let seq = self.journal.frame_behind_all();
            self.journal.answer(seq, origin, token, answer, &mut self.post);
            self.inquiries.pop_front();
        }
        !self.inquiries.is_empty()
    }

    /// No transaction has a lock here: what the upkeep waits for.
    fn on_lull(&mut self) {
        self.awaits_lull = false;
        self.journal.seal();
        let now_us = self.shared.id_time_us().max(self.last_id_us);
        let now_id = verdict::transaction_id(now_us, SHARDS_MAX - 1);
        self.upkeep.on_lull(now_id, &mut self.journal.log, &mut self.post);
    }

    /// What this worker counts.
    pub(crate) fn report(&self) -> Report {
        let saved_s = Some(self.upkeep.saved_s().unwrap_or(self.shared.started_unix_s));
        let Some(journal) = self.journal.get() else {
            let shard = shard::Stats { keys: self.shared.loading.keys(self.index), ..Default::default() };
            return Report { commands: self.commands, saved_s, shard, ..Report::default() };
        };
        let log = &journal.log;
        let log_fill = self.upkeep.schedule().fill(log);
        Report {
            wal_size_bytes: log.size_bytes() + log.snapshot().map_or(0, |snapshot| snapshot.bytes),
            wal_entries: log.entries(),
            needs_compaction: self.upkeep.is_compacting() || log_fill > 1.0,
            log_fill,
            outlook: self.upkeep.schedule().outlook(self.now_ms).map(Box::new),
            wal_fault: journal.fault().map(|cause| format!("shard {}: {cause}", self.index).into()),
            compacting: self.upkeep.is_compacting(),
            saved_s,
            commands: self.commands,
            shard: self.shard.stats(),
        }
    }

    // ---- the end of a turn, and of everything ----

    fn look_after_clients(&mut self) {
        for id in std::mem::take(&mut self.attention) {
            let Some(mut connection) = self.take_out(id) else { continue };
            connection.client.listed = false;
            if self.look_after(&mut connection) {
                self.connections[id.index as usize] = Some(connection);
            } else {
                self.net.close(id);
                if !connection.client.refused {
                    self.shared.connections.remove();
                }
            }
        }
    }

    /// Moves a client's replies on, and its connection towards its end. Returns whether it stays.
    fn look_after(&mut self, connection: &mut Connection) -> bool {
        let client = &mut connection.client;
        let id = client.socket;
        if client.stage == Stage::Gone {
            client.replies.discard();
            return !client.is_done();
        }
        if client.replies.is_ready() && !client.held_back && !self.net.is_sending(id) {
            let bytes = client.replies.take(|| self.spare_buffers.pop().unwrap_or_default());
            self.net.send(id, bytes).expect("nothing is being sent, and the socket is open");
        }
        let hold = connection.input.len() >= INPUT_HIGH_BYTES.max(connection.input_needed) && client.hungry;
        if hold != client.paused {
            client.paused = hold;
            if hold { self.net.pause(id) } else { self.net.resume(id) }
        }
        if !client.is_quiet() || client.replies.is_ready() || self.net.is_sending(id) {
            return true;
        }
        match client.stage {
            Stage::Ended if client.hungry || client.is_done() => client.hungry,
            Stage::Ended | Stage::Closing => {
                self.net.shutdown_write(id);
                client.stage = Stage::Lingering { until_ms: self.uptime_ms + LINGER_MS };
                true
            }
            Stage::Open | Stage::Lingering { .. } | Stage::Gone => true,
        }
    }

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
        let all_drained = self.shared.drained.count() == self.post.worker_count();
        // Nobody waits for the thread that copies a backup: what it leaves is none.
        self.drained && all_drained && self.post.is_idle() && !self.upkeep.is_busy()
    }
}

fn hangs() -> Reply<'static> {
    Reply::Error(Error::Unavailable("the disk of a shard that it needs hangs; nothing was done"))
}

fn hangs_in_disk(shard: usize) -> Arc<str> {
    format!("shard {shard}: its disk hangs").into()
}

/// The cause of an error for clients of workers that do not answer.
fn no_answer(workers: &[usize]) -> Arc<str> {
    let shards: Vec<_> = workers.iter().map(ToString::to_string).collect();
    format!("no answer from shard {} in time, whose disk hangs or fails", shards.join(", ")).into()
}

/// What a request locks, and whether for itself alone.
fn locks_of(request: &Request<'_>) -> (LockKeys, bool) {
    let keys = match request.command.keys.any {
        true => LockKeys::Each(request.keys().map(Into::into).collect()),
        false => LockKeys::Whole,
    };
    (keys, request.command.access == Access::Write)
}

/// Under which name a job's calls are answered: a client has one job at a time.
pub(crate) fn job_token(client: &Client) -> Token {
    Token { socket: client.socket, sequence: client.replies.next_sequence() }
}

pub(crate) fn answer(client: &mut Client, request: &Request<'_>, reply: &Reply<'_>) {
    client.replies.now(|out| write_reply(reply, request, out));
}

fn write_reply(reply: &Reply<'_>, request: &Request<'_>, out: &mut Vec<u8>) {
    protocol::write_reply(reply, Some(request.command), request.arg_count(), request.dialect, out);
}

fn answer_error(client: &mut Client, error: Error) {
    let dialect = client.dialect;
    client.replies.now(|out| protocol::write_reply(&Reply::Error(error), None, 0, dialect, out));
}

pub(crate) fn wall_clock_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

fn wall_clock_ms() -> u64 {
    wall_clock_us() / 1000
}
