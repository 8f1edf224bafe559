//! Notices slow commands among those that are measured anyway: of each command the first of a second, all whose time
//! grows with what is stored, and of the others a sample; below a threshold of a millisecond all of them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use shard::command::Flags;
use shard::{Command, Reply};

use super::Worker;
use crate::admin::client_commands::without_secrets;
use crate::client::{Client, SlowCandidate};
use crate::clock::wall_clock_us;
use crate::config::parameters::Settings;
use crate::mesh::SlowLogCall;
use crate::metrics::calls::Measured;
use crate::metrics::slowlog::{EVENTS, Latency, SlowCommand, cut_words};
use crate::protocol::Parser;

/// Whether a command that took so long is noted: as a slow one, and as an event.
fn is_slow(settings: &Settings, took: Duration) -> (bool, bool) {
    let slower_than_us = settings.slowlog_log_slower_than_us.load(Ordering::Relaxed);
    let latency_ms = settings.latency_monitor_threshold_ms.load(Ordering::Relaxed);
    let is_slow = u64::try_from(slower_than_us).is_ok_and(|us| took.as_micros() >= us.into());
    (is_slow, latency_ms > 0 && took.as_millis() >= latency_ms as u128)
}

impl Worker {
    /// A command was carried out within so long.
    pub(super) fn note_if_slow(
        &mut self,
        client: &Client,
        command: &'static Command,
        took: Duration,
        words: impl FnOnce() -> Vec<Vec<u8>>,
    ) {
        let (is_slow, is_event) = is_slow(&self.shared.settings, took);
        let is_slow = is_slow && !command.has(Flags::SKIP_SLOWLOG);
        if !is_slow && !is_event {
            return;
        }
        let unix_s = wall_clock_us() / 1_000_000;
        if is_event {
            let event = usize::from(command.has(Flags::FAST));
            self.slow_log.latencies[event].note(unix_s, took.as_millis() as u64);
        }
        if is_slow {
            let [peer, _] = client.addresses.text(self.shared.config.unix_socket.as_deref());
            let slow = SlowCommand {
                id: self.shared.control.slowlog_ids.next() - 1,
                unix_s,
                took_us: took.as_micros() as u64,
                words: words(),
                peer,
                name: client.session.name.clone(),
            };
            let len_max = self.shared.settings.slowlog_max_len.load(Ordering::Relaxed);
            self.slow_log.keep(slow, len_max as usize);
        }
    }

    /// A request that is measured was taken, and will be answered later: it may turn out to be slow. How long it `took`
    /// is known already, or it is as long as until it is answered.
    pub(super) fn note_candidate(
        &mut self,
        client: &mut Client,
        command: &'static Command,
        took: Option<Duration>,
        words: impl FnOnce() -> Vec<Vec<u8>>,
    ) {
        let settings = &self.shared.settings;
        let is_noted = settings.slowlog_log_slower_than_us.load(Ordering::Relaxed) >= 0
            || settings.latency_monitor_threshold_ms.load(Ordering::Relaxed) > 0;
        client.slow_candidate = is_noted.then(|| SlowCandidate { command, words: words(), took });
    }

    /// What this worker tells of slow commands.
    pub(super) fn slow_log_reply(&mut self, asked: &SlowLogCall) -> Reply<'static> {
        let log = &mut self.slow_log;
        match asked {
            SlowLogCall::Newest(count) => Reply::Array(log.newest(*count).map(SlowCommand::reply).collect()),
            SlowLogCall::Len => Reply::count(log.len()),
            SlowLogCall::Clear => {
                log.clear();
                Reply::Ok
            }
            SlowLogCall::Latencies => Reply::Array(log.latencies.iter().map(Latency::to_reply).collect()),
            SlowLogCall::ForgetLatencies(names) => {
                let is_meant = |event: &str| {
                    names.is_empty() || names.iter().any(|name| name.eq_ignore_ascii_case(event.as_bytes()))
                };
                let forgotten = EVENTS.iter().zip(&mut log.latencies).map(|(event, latency)| {
                    if is_meant(event) { std::mem::take(latency) } else { Latency::default() }
                });
                Reply::Array(forgotten.map(|latency| latency.to_reply()).collect())
            }
        }
    }

    /// A request that is measured was answered, which took until now.
    pub(super) fn end_measured(&mut self, client: &mut Client, measured: Measured) {
        let took = self.traffic.calls.end(measured);
        if let Some(SlowCandidate { command, words, took: known }) = client.slow_candidate.take() {
            self.note_if_slow(client, command, known.unwrap_or(took), || words);
        }
    }
}

/// The words of a request, as much of them as is kept.
pub(super) fn slow_words(command: &Command, parser: &Parser, input: &[u8]) -> Vec<Vec<u8>> {
    cut_words(without_secrets(command, parser.words(input).collect()).into_iter())
}
