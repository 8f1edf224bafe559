//! The clients of a worker as `CLIENT LIST` shows them, and their end by `CLIENT KILL`.

use super::Worker;
use crate::admin::client_commands::{Facts, describe};
use crate::client::{Client, Connection, Stage};
use crate::mesh::ClientFilter;

impl Worker {
    /// A line for each of these clients.
    pub(super) fn client_list(&self, filter: &ClientFilter) -> String {
        let lines = self.clients.iter().filter(|connection| self.is_named(connection, filter));
        let lines = lines.map(|connection| {
            let free_bytes = connection.input.capacity() - connection.input.len();
            self.describe_client(&connection.client, connection.unserved_bytes(), free_bytes)
        });
        lines.collect()
    }

    /// The line of a client with so many bytes of requests that were not served, and room for so many more.
    pub(super) fn describe_client(
        &self,
        client: &Client,
        unserved_bytes: usize,
        free_bytes: usize,
    ) -> String {
        let facts = Facts {
            shard: self.index,
            uptime_ms: self.clock.now().uptime_ms,
            unserved_bytes,
            free_bytes,
            unsent_bytes: self.net.unsent_bytes(client.socket),
            is_sending: self.net.is_sending(client.socket),
            unix_socket: self.shared.config.unix_socket.as_deref(),
        };
        describe(client, &facts)
    }

    /// Ends these clients. Returns how many there are.
    pub(super) fn kill_clients(&mut self, filter: &ClientFilter) -> usize {
        let named = self.clients.those(|connection| self.is_named(connection, filter));
        for id in &named {
            let mut connection = self.clients.take_out(*id).expect("it is there");
            let client = &mut connection.client;
            // The one that asks is answered before it ends.
            client.stage = if client.id == filter.asker { Stage::Closing } else { Stage::Gone };
            self.clients.put_back(connection);
        }
        named.len()
    }

    fn is_named(&self, connection: &Connection, filter: &ClientFilter) -> bool {
        let client = &connection.client;
        let is_leaving = client.refused || client.stage == Stage::Gone;
        if is_leaving || connection.is_inside() {
            return false;
        }
        filter.names(client.id, client.kind(), || {
            client.addresses.text(self.shared.config.unix_socket.as_deref())
        })
    }
}
