//! Workers that hang in their disks, and what clients that wait for one are told. Nothing that was begun is undone
//! here: it goes on without them.

use std::sync::Arc;

use shard::command::Run;
use shard::{Error, Reply};

use super::Worker;
use super::clients::{answer, answer_error};
use crate::connection::Client;
use crate::mail::{Answer, Token};
use crate::protocol;
use crate::router::Job;
use crate::session::synced_count;

/// How much longer than its disk a client waits for an answer: what the shard itself has to say comes first.
const ANSWER_SLACK_MS: u64 = 500;

impl Worker {
    /// Finds out which workers hang. While one does, or a disk fails, clients that have waited for too long are told:
    /// what they asked for goes on without them.
    pub(super) fn look_for_hangs(&mut self) {
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
            protocol::write_error(error, dialect, out);
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

    /// Answers the clients whose `WAITAOF` has waited for as long as they wanted.
    pub(super) fn end_timed_waits(&mut self) {
        let is_due = |client: &Client| match client.job.as_deref() {
            Some(Job::Gather(gather)) => gather.deadline_ms.is_some_and(|due_ms| due_ms <= self.uptime_ms),
            _ => false,
        };
        let clients = self.connections.iter().flatten().map(|connection| &connection.client);
        let due: Vec<_> = clients.filter(|client| is_due(client)).map(|client| client.socket).collect();
        for id in due {
            let mut connection = self.take_out(id).expect("it is there");
            let client = &mut connection.client;
            let job = client.job.take().expect("it was looked at");
            let sequence = client.replies.skip_number();
            if let Job::Gather(gather) = &*job {
                answer(client, &gather.request.request(), &synced_count(0));
            }
            client.given_up.push((sequence, job));
            self.put_back(connection);
        }
    }

    /// Takes one answer to a job that its client waits for no more. Returns whether it has ended.
    pub(super) fn advance_given_up(
        &mut self,
        job: &mut Job,
        from: usize,
        token: Token,
        given: Answer,
    ) -> bool {
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
            Job::Walk(_) | Job::Backup(_) => true,
            Job::Listing(_) => unreachable!("a listing asks nobody"),
        }
    }
}

pub(super) fn hangs() -> Reply<'static> {
    Reply::Error(Error::Unavailable("the disk of a shard that it needs hangs; nothing was done"))
}

pub(super) fn hangs_in_disk(shard: usize) -> Arc<str> {
    format!("shard {shard}: its disk hangs").into()
}

/// The cause of an error for clients of workers that do not answer.
fn no_answer(workers: &[usize]) -> Arc<str> {
    let shards: Vec<_> = workers.iter().map(ToString::to_string).collect();
    format!("no answer from shard {} in time, whose disk hangs or fails", shards.join(", ")).into()
}
