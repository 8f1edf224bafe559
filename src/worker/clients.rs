//! The clients of a worker: their connections, and which of them have to be looked after, served or waited for.

use std::collections::VecDeque;

use crate::client::{Client, Connection, Stage};
use crate::net::SocketId;

/// Emptied send buffers are kept for reuse up to this size, and at most so many.
const SPARE_BUFFER_BYTES: usize = 64 * 1024;
const SPARE_BUFFERS_MAX: usize = 256;

/// How long replies that are ready wait for those behind them, which other shards owe: a pipeline whose keys live on
/// several shards is then answered with one send and not with two.
const GATHERING_US: u64 = 1000;

/// The clients of a worker.
#[derive(Default)]
pub(super) struct Clients {
    /// By the index of their sockets.
    connections: Vec<Option<Box<Connection>>>,
    /// Clients to look after at the end of the turn: something of theirs may have to be sent, or has ended.
    ready: Vec<SocketId>,
    /// Clients with bytes that could not be served when they arrived.
    backlog: VecDeque<SocketId>,
    /// Clients whose replies wait for those behind them, and since when, in microseconds from the start of the server:
    /// the longest first. Those whose replies have left meanwhile do not count.
    gathering: VecDeque<(SocketId, u64)>,
    spare_buffers: Vec<Vec<u8>>,
}

impl Clients {
    /// Adds a client.
    pub(super) fn add(&mut self, mut connection: Box<Connection>) -> &mut Connection {
        let id = connection.client.socket;
        let index = id.index as usize;
        if index >= self.connections.len() {
            self.connections.resize_with(index + 1, || None);
        }
        connection.client.listed = true;
        self.ready.push(id);
        self.connections[index].insert(connection)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().flatten().map(|connection| &**connection)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.connections.iter_mut().flatten().map(|connection| &mut **connection)
    }

    /// The sockets of those clients of whom this is true.
    pub(super) fn those(&self, is: impl Fn(&Connection) -> bool) -> Vec<SocketId> {
        self.iter().filter(|connection| is(connection)).map(|it| it.client.socket).collect()
    }

    /// Whether a client is here, and not taken out.
    pub(super) fn has(&self, id: SocketId) -> bool {
        let connection = self.connections.get(id.index as usize).and_then(Option::as_ref);
        connection.is_some_and(|connection| connection.client.socket == id)
    }

    fn get_mut(&mut self, id: SocketId) -> Option<&mut Box<Connection>> {
        let connection = self.connections.get_mut(id.index as usize)?.as_mut();
        connection.filter(|connection| connection.client.socket == id)
    }

    /// The socket of the client with this number.
    pub(super) fn socket_of(&self, client_id: u64) -> Option<SocketId> {
        let clients = self.iter().filter(|connection| !connection.client.refused && !connection.is_inside());
        clients.map(|connection| &connection.client).find(|it| it.id == client_id).map(|it| it.socket)
    }

    /// Shows a client, if it is there, and has it looked after.
    pub(super) fn with<T>(&mut self, id: SocketId, change: impl FnOnce(&mut Client) -> T) -> Option<T> {
        let client = &mut self.connections.get_mut(id.index as usize)?.as_mut()?.client;
        if client.socket != id {
            return None;
        }
        let changed = change(client);
        if !std::mem::replace(&mut client.listed, true) {
            self.ready.push(id);
        }
        Some(changed)
    }

    /// Takes a connection out, so that it can be served with the rest of the worker at hand.
    #[inline]
    pub(super) fn take_out(&mut self, id: SocketId) -> Option<Box<Connection>> {
        let place = self.connections.get_mut(id.index as usize)?;
        place.take_if(|connection| connection.client.socket == id)
    }

    /// Puts it back; it is looked after at the end of the turn.
    #[inline]
    pub(super) fn put_back(&mut self, mut connection: Box<Connection>) {
        self.list(&mut connection.client);
        self.keep(connection);
    }

    /// Puts it back as it is.
    #[inline]
    pub(super) fn keep(&mut self, connection: Box<Connection>) {
        let index = connection.client.socket.index as usize;
        self.connections[index] = Some(connection);
    }

    /// Has a client looked after at the end of this turn or, while that is under way, of the next one.
    #[inline]
    pub(super) fn list(&mut self, client: &mut Client) {
        if !std::mem::replace(&mut client.listed, true) {
            self.ready.push(client.socket);
        }
    }

    /// As [`Clients::list`], for a client that may be gone.
    pub(super) fn make_ready(&mut self, id: SocketId) {
        if let Some(connection) = self.get_mut(id)
            && !std::mem::replace(&mut connection.client.listed, true)
        {
            self.ready.push(id);
        }
    }

    pub(super) fn set_stage(&mut self, id: SocketId, next: impl FnOnce(Stage) -> Stage) {
        if let Some(connection) = self.get_mut(id) {
            connection.client.stage = next(connection.client.stage);
            self.make_ready(id);
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Those to look after, each once.
    pub(super) fn take_ready(&mut self) -> Vec<SocketId> {
        std::mem::take(&mut self.ready)
    }

    /// Takes out of those to look after the ones that are not at hand.
    pub(super) fn take_absent_ready(&mut self) -> Vec<SocketId> {
        let ready = std::mem::take(&mut self.ready);
        let (here, absent) = ready.into_iter().partition(|id| self.has(*id));
        self.ready = here;
        absent
    }

    /// Puts back what [`Clients::take_absent_ready`] has taken out.
    pub(super) fn put_back_ready(&mut self, absent: Vec<SocketId>) {
        self.ready.extend(absent);
    }

    // ---- those who could not be served when their bytes arrived ----

    pub(super) fn backlog_len(&self) -> usize {
        self.backlog.len()
    }

    pub(super) fn next_in_backlog(&mut self) -> Option<SocketId> {
        self.backlog.pop_front()
    }

    pub(super) fn stay_in_backlog(&mut self, connection: Box<Connection>) {
        self.backlog.push_back(connection.client.socket);
        self.keep(connection);
    }

    #[cfg(test)]
    pub(super) fn last_in_backlog(&self) -> SocketId {
        self.backlog.back().copied().unwrap()
    }

    pub(super) fn add_to_backlog(&mut self, client: &mut Client) {
        client.is_in_backlog = true;
        self.backlog.push_back(client.socket);
    }

    // ---- replies that wait for those behind them ----

    /// When the first replies that wait for later ones have waited for long enough.
    pub(super) fn next_gathered_us(&mut self) -> Option<u64> {
        while let Some((id, since_us)) = self.gathering.front().copied() {
            let client = self.get_mut(id).map(|connection| &connection.client);
            if client.is_some_and(|client| client.gathering_since_us == Some(since_us)) {
                return Some(since_us + GATHERING_US);
            }
            self.gathering.pop_front(); // They have left.
        }
        None
    }

    /// Has those clients looked after whose replies have waited for long enough.
    pub(super) fn end_gathering(&mut self, uptime_us: u64) {
        while self.next_gathered_us().is_some_and(|due_us| due_us <= uptime_us) {
            let (id, _) = self.gathering.pop_front().expect("it is due");
            self.make_ready(id);
        }
    }

    /// Whether a client's replies wait for those behind them, and for how long has not passed yet.
    pub(super) fn gathers(&mut self, client: &mut Client, uptime_us: u64) -> bool {
        if !client.replies.should_gather() && !client.is_greeted_first {
            return false;
        }
        let since_us = client.gathering_since_us.unwrap_or_else(|| {
            self.gathering.push_back((client.socket, uptime_us));
            uptime_us
        });
        client.gathering_since_us = Some(since_us);
        uptime_us < since_us + GATHERING_US
    }

    // ---- what could not be brought to the log ----

    /// The replies that showed in this turn what the worker's shard holds must not leave.
    pub(super) fn hold_back(&mut self, turn: u64) {
        let Clients { connections, ready, .. } = self;
        for id in ready {
            let connection = connections[id.index as usize].as_mut();
            if let Some(connection) = connection.filter(|connection| connection.client.socket == *id) {
                connection.client.held_back = connection.client.shown_in_turn == turn;
            }
        }
    }

    /// What was held back may leave.
    pub(super) fn let_go(&mut self) {
        let Clients { connections, ready, .. } = self;
        for connection in connections.iter_mut().flatten() {
            let client = &mut connection.client;
            if std::mem::take(&mut client.held_back) && !std::mem::replace(&mut client.listed, true) {
                ready.push(client.socket);
            }
        }
    }

    // ---- send buffers ----

    /// An emptied buffer, or a new one.
    #[inline]
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.spare_buffers.pop().unwrap_or_default()
    }

    /// Takes a buffer back that was sent.
    #[inline]
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        let is_kept = (1..=SPARE_BUFFER_BYTES).contains(&buffer.capacity());
        if is_kept && self.spare_buffers.len() < SPARE_BUFFERS_MAX {
            self.spare_buffers.push(buffer);
        }
    }
}
