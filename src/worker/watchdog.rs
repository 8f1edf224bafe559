//! Workers that hang in their disks, and what clients that wait for one are told. Nothing that was begun is undone
//! here: it goes on without them.
//!
//! A worker whose thread computes, or is not given a CPU, does not hang: clients wait for it. Neither does a worker
//! hang while the whole process is not run. So what counts is the time that was seen to pass, in small steps, and what
//! the system says of the thread.

use std::sync::Arc;
use std::time::Duration;

use shard::{Error, Reply};

use super::Worker;
use super::turn::TICK_MS;
use crate::admin::persistence::synced_count;
use crate::client::job::Job;
use crate::client::reply::{answer, fail, write_error};
use crate::client::{Client, Connection};
use crate::mesh::{Answer, Call, RequestId};
use crate::metrics::errors;
use crate::shared::Shared;
use crate::{admin, slots};

/// How much longer than its disk a client waits for an answer: what the shard itself has to say comes first.
const ANSWER_SLACK_MS: u64 = 500;

/// So much of the time between two looks at the disks counts at most, and so large a part of what a disk may take. What
/// is longer was a long turn of the worker that looks, or the process was not run.
const STEP_MS_MAX: u64 = 250;
const STEP_PART: u64 = 4;

/// A worker that has not begun a turn for longer than this is looked at: one that sleeps begins one with each tick.
const LONG_TURN_MS: u64 = 2 * TICK_MS;

/// What a worker knows of another one.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// When it began the turn in which it was seen last.
    turn_began_ms: u64,
    /// For how long it was seen in this turn, and for how much of that its thread was seen to wait in a system call.
    in_turn_ms: u64,
    waiting_ms: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    TakesTurns,
    /// It has been in one turn for longer than a disk may take, and waits in the system: in a call to its disk, since
    /// it waits for nothing else inside a turn.
    Hangs,
    /// It has been in one turn for as long, but computes, or gets no CPU.
    IsBusy,
}

impl Peer {
    /// Looks at it again, after `passed_ms`. Where it matters, `waits` tells whether its thread waits in a system call.
    fn look(
        &mut self,
        turn_began_ms: u64,
        passed_ms: u64,
        disk_timeout_ms: u64,
        waits: impl FnOnce() -> bool,
    ) -> State {
        if turn_began_ms != self.turn_began_ms {
            *self = Peer { turn_began_ms, ..Peer::default() };
            return self.state;
        }
        self.in_turn_ms += passed_ms;
        if self.is_in_long_turn() && waits() {
            self.waiting_ms += passed_ms;
        }
        self.state = match disk_timeout_ms {
            timeout_ms if self.waiting_ms > timeout_ms => State::Hangs,
            timeout_ms if self.in_turn_ms > timeout_ms + LONG_TURN_MS + TICK_MS => State::IsBusy,
            _ => State::TakesTurns,
        };
        self.state
    }

    fn is_in_long_turn(&self) -> bool {
        self.in_turn_ms > LONG_TURN_MS
    }
}

/// Watches the other workers.
pub(super) struct Watchdog {
    own: usize,
    /// Which workers hang in their disks, and what tells that.
    hung: Vec<bool>,
    peers: Vec<Peer>,
    last_look_ms: u64,
    disk_timeout_ms: u64,
}

impl Watchdog {
    /// Of this worker, of so many.
    pub(super) fn new(own: usize, workers: usize, disk_timeout: Duration) -> Watchdog {
        Watchdog {
            own,
            hung: vec![false; workers],
            peers: vec![Peer::default(); workers],
            last_look_ms: 0,
            disk_timeout_ms: disk_timeout.as_millis() as u64,
        }
    }

    /// Of each worker, whether it hangs in its disk.
    pub(super) fn hung(&self) -> &[bool] {
        &self.hung
    }

    #[inline]
    pub(super) fn is_hung(&self, worker: usize) -> bool {
        self.hung[worker]
    }

    /// Whether a shard hangs in its disk.
    #[inline]
    pub(super) fn some_hang(&self) -> bool {
        self.hung.contains(&true)
    }

    /// Whether a shard that owns one of these keys hangs.
    pub(super) fn any_hangs<'a>(&self, mut keys: impl Iterator<Item = &'a [u8]>) -> bool {
        self.some_hang() && keys.any(|key| self.hung[slots::owner(key, self.hung.len())])
    }

    /// How much of the time since the last look at the disks counts for them.
    pub(super) fn step_towards_timeouts(&mut self, uptime_ms: u64) -> Duration {
        let passed_ms = uptime_ms - std::mem::replace(&mut self.last_look_ms, uptime_ms);
        Duration::from_millis(step_ms(passed_ms, self.disk_timeout_ms))
    }

    /// Finds out which workers hang.
    fn look(&mut self, passed: Duration, shared: &Shared) {
        for worker in (0..self.peers.len()).filter(|worker| *worker != self.own) {
            let peer = &mut self.peers[worker];
            let (before, waits) = (peer.state, || shared.waits_in_system_call(worker));
            let turn_began_ms = shared.turn_began_ms(worker);
            let state = peer.look(turn_began_ms, passed.as_millis() as u64, self.disk_timeout_ms, waits);
            self.hung[worker] = state == State::Hangs;
            if state != before {
                let (shard, seen_by) = (worker, self.own);
                match state {
                    State::Hangs => tracing::warn!(shard, seen_by, "a shard hangs in its disk"),
                    State::IsBusy => tracing::warn!(
                        shard,
                        seen_by,
                        "a shard is busy with one turn, or gets no CPU; its disk does not hang"
                    ),
                    State::TakesTurns => tracing::warn!(shard, seen_by, "a shard goes on"),
                }
            }
        }
    }

    /// Workers that hang, or whose disks fail.
    fn sick(&self, shared: &Shared) -> Vec<usize> {
        let is_sick = |worker: &usize| self.hung[*worker] || shared.disk_fails(*worker);
        (0..self.peers.len()).filter(is_sick).collect()
    }
}

/// Ends what a client waits for whose time is over.
fn end_wait(client: &mut Client) {
    let job = client.job.take().expect("it waits");
    let sequence = client.replies.skip_number();
    match &*job {
        Job::Gather(gather) => answer(client, &gather.request.request(), &synced_count(0)),
        Job::Wait(wait) => return answer(client, &wait.request.request(), &Reply::Integer(0)),
        _ => unreachable!("nothing else has a timeout"),
    }
    client.given_up.push((sequence, job));
}

impl Worker {
    /// Finds out which workers hang. While one does, or a disk fails, clients that have waited for too long are told:
    /// what they asked for goes on without them.
    pub(super) fn look_for_hangs(&mut self, passed: Duration) {
        if self.lifecycle.is_loading() {
            return;
        }
        self.watchdog.look(passed, &self.shared);
        let sick = self.watchdog.sick(&self.shared);
        if sick.is_empty() {
            return;
        }
        for id in self.clients.those(|connection| !connection.client.is_quiet()) {
            let mut connection = self.clients.take_out(id).expect("it is there");
            self.give_up_what_hangs(&mut connection.client, &sick);
            self.clients.put_back(connection);
        }
    }

    /// Answers what a client has waited for too long, as far as it may be for the disks of these workers.
    fn give_up_what_hangs(&mut self, client: &mut Client, sick: &[usize]) {
        let Watchdog { hung, peers, disk_timeout_ms, .. } = &self.watchdog;
        let uptime_ms = self.clock.now().uptime_ms;
        let Some(before_ms) = uptime_ms.checked_sub(disk_timeout_ms + ANSWER_SLACK_MS) else { return };
        let dialect = client.session.dialect;
        let is_busy = |worker: usize| !sick.contains(&worker) && peers[worker].is_in_long_turn();
        client.replies.give_up(before_ms, is_busy, |command, worker, out| {
            errors::note_failed(command);
            let error = Error::NotOnDisk { cause: no_answer(&[worker], sick) };
            write_error(error, dialect, out);
        });
        let awaited = match client.job.as_deref() {
            Some(Job::Program(_)) if client.job_since_ms >= before_ms => return,
            Some(Job::Backup(_) | Job::Listing(_)) | None => return,
            Some(job) => job.unanswered(),
        };
        let may_be_for_disks = match client.job.as_deref() {
            Some(Job::Program(_)) => !awaited.iter().all(|worker| is_busy(*worker)),
            _ => awaited.iter().any(|worker| hung[*worker]),
        };
        if !may_be_for_disks {
            return;
        }
        let mut job = client.job.take().expect("it was looked at");
        let sequence = client.replies.skip_number();
        match &mut *job {
            Job::Gather(gather) if gather.is_of_reports() => {
                let hung = awaited.iter().copied().find(|worker| hung[*worker]);
                gather.report.wal_fault = hung.map(hangs_in_disk);
                let request = gather.request.clone();
                let gathered = admin::gathered(&request.request(), dialect, gather, &self.about());
                let reply = self
                    .conclude(client, gathered)
                    .unwrap_or_else(|_| unreachable!("reports lead to no other question"));
                answer(client, &request.request(), &reply);
            }
            // It takes note before it publishes anything, once it goes on.
            Job::Subscribe(subscribing) => subscribing.tell(client),
            other => {
                if let Job::Program(running) = other {
                    running.give_up(&mut client.replies);
                }
                fail(client, other.command(), Error::NotOnDisk { cause: no_answer(&awaited, sick) });
            }
        }
        client.given_up.push((sequence, job));
    }

    /// Answers the clients whose `WAITAOF` has waited for as long as they wanted.
    pub(super) fn end_timed_waits(&mut self) {
        let uptime_ms = self.clock.now().uptime_ms;
        let due_ms = |connection: &Connection| match connection.client.job.as_deref() {
            Some(Job::Gather(gather)) => gather.deadline_ms,
            Some(Job::Wait(wait)) => wait.until_ms,
            _ => None,
        };
        let is_due = |connection: &Connection| due_ms(connection).is_some_and(|due_ms| due_ms <= uptime_ms);
        for id in self.clients.those(is_due) {
            let mut connection = self.clients.take_out(id).expect("it is there");
            end_wait(&mut connection.client);
            self.clients.put_back(connection);
        }
        self.next_timeout_ms = self.clients.iter().filter_map(due_ms).min().unwrap_or(u64::MAX);
    }

    /// Ends what a client waits for that need not come, with an error or as its timeout would. Returns whether the
    /// client is one of this worker's and waits for such a thing.
    pub(super) fn unblock_client(&mut self, client_id: u64, with_error: bool) -> bool {
        let waits = |connection: &Connection| match connection.client.job.as_deref() {
            Some(Job::Gather(gather)) => gather.is_of_waitaof(),
            Some(Job::Wait(_)) => true,
            _ => false,
        };
        let is_named = |connection: &Connection| connection.client.id == client_id && waits(connection);
        let Some(id) = self.clients.those(is_named).pop() else { return false };
        let mut connection = self.clients.take_out(id).expect("it is there");
        let client = &mut connection.client;
        if with_error {
            let job = client.job.take().expect("it was looked at");
            let sequence = client.replies.skip_number();
            fail(client, job.command(), Error::Unblocked);
            if !matches!(*job, Job::Wait(_)) {
                client.given_up.push((sequence, job));
            }
        } else {
            end_wait(client);
        }
        self.clients.put_back(connection);
        true
    }

    /// Takes one answer to a job that its client waits for no more. Returns whether it has ended.
    pub(super) fn advance_given_up(
        &mut self,
        job: &mut Job,
        from: usize,
        request_id: RequestId,
        given: Answer,
    ) -> bool {
        match job {
            Job::Program(running) => {
                let ended = self.on_program_answered(None, running, (from, request_id), given);
                if ended && running.program.is_of_backup() {
                    self.shared.backups.end(true, self.clock.now().now_ms);
                }
                ended
            }
            Job::Watch(watching) => {
                if let Answer::Watching(watches) = given {
                    self.mesh.to(from).call(request_id, Call::Unwatch(watches));
                }
                watching.unanswered.retain(|worker| *worker != from);
                watching.unanswered.is_empty()
            }
            Job::Gather(gather) => gather.answer(from, given),
            Job::Subscribe(subscribing) => subscribing.note(from),
            Job::FindClient(finding) => finding.note(from, None),
            Job::Walk(_) | Job::Backup(_) => true,
            Job::Listing(_) | Job::Wait(_) => unreachable!("it asks no worker"),
        }
    }
}

fn step_ms(passed_ms: u64, disk_timeout_ms: u64) -> u64 {
    passed_ms.min((disk_timeout_ms / STEP_PART).clamp(TICK_MS, STEP_MS_MAX))
}

/// The error for a request that needs a shard that hangs, and is not run.
pub(super) fn hangs() -> Error {
    Error::Unavailable("the disk of a shard that it needs hangs; nothing was done")
}

pub(super) fn hangs_in_disk(shard: usize) -> Arc<str> {
    format!("shard {shard}: its disk hangs").into()
}

/// The cause of an error for clients that wait for the answers of some workers, while the disks of some hang or fail.
fn no_answer(awaited: &[usize], sick: &[usize]) -> Arc<str> {
    let list = |workers: &[usize]| workers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let to_blame: Vec<usize> = awaited.iter().copied().filter(|worker| sick.contains(worker)).collect();
    match to_blame.is_empty() {
        false => format!("no answer from shard {} in time, whose disk hangs or fails", list(&to_blame)),
        // It waits for a command over several shards, most likely.
        true => format!(
            "no answer from shard {} in time, while the disk of shard {} hangs or fails",
            list(awaited),
            list(sick)
        ),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::config::Config;
    use crate::net::Backend;
    use crate::recovery;
    use crate::shared::Shared;

    const TIMEOUT_MS: u64 = 1000;

    /// Looks at a peer each tick for so long, and returns what it was seen as last.
    fn looked_at(peer: &mut Peer, for_ms: u64, turn_began_ms: u64, waits: bool) -> State {
        (0..for_ms / TICK_MS).for_each(|_| {
            peer.look(turn_began_ms, TICK_MS, TIMEOUT_MS, || waits);
        });
        peer.state
    }

    #[test]
    fn only_a_thread_that_waits_in_the_system_hangs() {
        let mut peer = Peer::default();
        assert_eq!(looked_at(&mut peer, 900, 1, true), State::TakesTurns);
        assert_eq!(looked_at(&mut peer, 600, 1, true), State::Hangs);
        assert_eq!(looked_at(&mut peer, 100, 2, true), State::TakesTurns);
        assert_eq!(looked_at(&mut peer, 60_000, 2, false), State::IsBusy);
        // It pages now and then, or gets a CPU so seldom.
        assert_eq!(looked_at(&mut peer, 900, 2, true), State::IsBusy);
        assert_eq!(looked_at(&mut peer, 60_000, 2, false), State::IsBusy);
        // It computed for long, and then its disk hung.
        assert_eq!(looked_at(&mut peer, 200, 2, true), State::Hangs);
        assert_eq!(looked_at(&mut peer, 100, 3, true), State::TakesTurns);
        assert!(!peer.is_in_long_turn());
    }

    #[test]
    fn a_thread_that_waits_in_the_system_is_not_called_busy_before_it_hangs() {
        let mut peer = Peer::default();
        let states: Vec<State> = (0..30).map(|_| looked_at(&mut peer, TICK_MS, 1, true)).collect();
        assert_eq!(*states.last().unwrap(), State::Hangs);
        assert!(!states.contains(&State::IsBusy), "{states:?}");
    }

    #[test]
    fn a_process_that_was_not_run_for_long_has_seen_little_of_that_time() {
        const HOUR_MS: u64 = 3_600_000;
        for (timeout_ms, most_ms) in
            [(100, TICK_MS), (800, 200), (10_000, STEP_MS_MAX), (HOUR_MS, STEP_MS_MAX)]
        {
            assert_eq!(step_ms(HOUR_MS, timeout_ms), most_ms, "{timeout_ms}");
            assert_eq!(step_ms(TICK_MS - 1, timeout_ms), TICK_MS - 1);
        }
    }

    #[test]
    fn the_system_tells_a_thread_that_computes_from_one_that_waits() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let config =
            Config::parse_from_args(["kvlite", "--wal-path", path, "--shards", "2"], vec![0]).unwrap();
        let found = recovery::lock(&config).unwrap();
        let shared = Shared::new(config, Backend::of_test(), None, Instant::now(), found.loading());
        assert!(shared.waits_in_system_call(0), "a thread that is not known");
        let is_over = AtomicBool::new(false);
        let (mut reader, writer) = std::io::pipe().unwrap();
        // Says whether the thread of a worker is seen in this state soon. One that computes may wait for a page now and
        // then, one that waits does so all the time.
        let is_seen = |worker: usize, waits: bool| {
            let begun = Instant::now();
            while shared.waits_in_system_call(worker) != waits {
                if begun.elapsed() > Duration::from_secs(20) {
                    return false;
                }
                std::thread::yield_now();
            }
            !waits || (0..1000).all(|_| shared.waits_in_system_call(worker))
        };
        let (spins, blocks) = std::thread::scope(|scope| {
            scope.spawn(|| {
                shared.note_thread(0);
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            scope.spawn(|| {
                shared.note_thread(1);
                assert_eq!(reader.read(&mut [0]).unwrap(), 0);
            });
            let seen = (is_seen(0, false), is_seen(1, true));
            is_over.store(true, Ordering::Relaxed);
            drop(writer);
            seen
        });
        assert!(spins, "a thread that computes, or waits for a CPU, was seen to wait in a system call");
        assert!(blocks, "a thread that waits in a system call was not seen to");
    }

    #[test]
    fn the_shard_whose_disk_hangs_is_named_and_not_the_one_that_waits_for_it() {
        assert_eq!(&*no_answer(&[1], &[1]), "no answer from shard 1 in time, whose disk hangs or fails");
        assert_eq!(
            &*no_answer(&[0, 1, 2], &[2, 1]),
            "no answer from shard 1, 2 in time, whose disk hangs or fails"
        );
        assert_eq!(
            &*no_answer(&[0], &[1]),
            "no answer from shard 0 in time, while the disk of shard 1 hangs or fails"
        );
    }
}
