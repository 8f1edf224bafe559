//! What other workers ask of this one. Each call is answered in a batch.

use shard::command::Run;
use shard::{Reply, Scan};

use super::Worker;
use super::runtime::Prepared;
use super::serve::READ_AHEAD_MAX;
use crate::mesh::{Answer, Asker, Batch, Call, RequestId, SubscriptionKind, Tracks};
use crate::metrics::{Report, errors};

impl Worker {
    /// Takes a message in. Returns whether it asked for anything.
    pub(super) fn on_batch(&mut self, from: usize, mut batch: Box<Batch>) -> bool {
        for accepted in batch.take_accepted() {
            self.welcome(accepted);
        }
        self.follow_settings();
        let mut calls = batch.take_calls();
        let asks = !calls.is_empty();
        let mut rest = calls.drain(..);
        while !rest.as_slice().is_empty() {
            let (database, keys) = batch.first_args(rest.as_slice().iter().take(READ_AHEAD_MAX));
            self.runtime.prefetch(database, keys);
            for (request_id, call) in rest.by_ref().take(READ_AHEAD_MAX) {
                self.on_call(from, request_id, call, &batch);
                self.follow_outcomes();
            }
        }
        drop(rest);
        let mut answers = batch.take_answers();
        for (request_id, answer) in answers.drain(..) {
            self.on_answer(from, request_id, answer, &batch);
        }
        self.mesh.note_messages(from, &batch);
        batch.take_back(calls, answers);
        self.mesh.recycle(batch);
        asks
    }

    fn on_call(&mut self, from: usize, id: RequestId, call: Call, batch: &Batch) {
        let (runtime, turn) = &mut self.runtime_and_turn();
        match call {
            Call::Run { command, dialect, args } if command.run == Run::Script => {
                let asker = Asker { worker: from, request_id: id, dialect, tracks: Tracks::default() };
                self.take_script(asker, &batch.request(command, args));
            }
            Call::Run { command, dialect, args } => {
                let asker = Asker { worker: from, request_id: id, dialect, tracks: Tracks::default() };
                runtime.take(asker, &batch.request(command, args), turn);
            }
            Call::RunOwned(request, dialect, tracks) if request.command.run == Run::Script => {
                let asker = Asker { worker: from, request_id: id, dialect, tracks };
                self.take_script(asker, &request.request());
            }
            Call::LearnScript(_)
            | Call::LoadScript(_)
            | Call::ForgetScripts
            | Call::ChangeLibraries(_)
            | Call::TakeLibraries(_) => self.on_scripting_call(from, id, call),
            Call::RunOwned(request, dialect, tracks) => {
                runtime.take_large(Asker { worker: from, request_id: id, dialect, tracks }, request, turn);
            }
            Call::RunPart { command, args } => {
                let request = batch.request(command, args);
                runtime.run_part_for(from, id, &request, turn);
            }
            Call::RunAll(list, dialect) => {
                runtime.take_list(
                    Asker { worker: from, request_id: id, dialect, tracks: list.tracks },
                    list,
                    turn,
                );
            }
            Call::Lock { transaction, wait, locks } => {
                runtime.lock_part(transaction, wait, Prepared::new(from, id, locks), turn);
            }
            Call::Hop { transaction, hop, record } => runtime.hop(transaction, hop, record, (from, id), turn),
            Call::Release(transaction) => {
                runtime.release(transaction, turn);
                self.run_granted();
            }
            Call::Watch(keys) => {
                let watches = runtime.watch(keys, turn.now);
                let answer = watches.map_or_else(|error| Answer::Part(Reply::Error(error)), Answer::Watching);
                turn.mesh.to(from).answer(id, answer);
            }
            Call::Unwatch(watches) => runtime.forget_watches(&watches),
            Call::Scan { database, position, count, pattern, dialect } => {
                let asker = Asker { worker: from, request_id: id, dialect, tracks: Tracks::default() };
                runtime.begin_walk(asker, Scan::new(database, position, pattern), count);
            }
            Call::Ask(question) => runtime.ask((from, id), question, turn.now),
            Call::Forget => runtime.forget((from, id), turn.mesh),
            Call::SetAutoTtl { auto_ttl, version } => {
                runtime.set_auto_ttl(auto_ttl, version);
                turn.mesh.to(from).answer(id, Answer::Part(Reply::Ok));
            }
            Call::RandomKey { database, random } => {
                let found = runtime.shard_mut().random_key(database, random, turn.now.now_ms);
                let found = found.map_or(Reply::Nil, |(key, count)| {
                    Reply::Array(vec![Reply::Bulk(key.into()), Reply::count(count)])
                });
                turn.mesh.to(from).answer(id, Answer::Part(found));
            }
            Call::Subscribe(kind, names) => {
                self.note_subscriptions(from, kind, names, true, batch);
                if id != RequestId::NONE {
                    self.mesh.to(from).answer(id, Answer::Noted);
                }
            }
            Call::Unsubscribe(kind, names) => {
                self.note_subscriptions(from, kind, names, false, batch);
                if id != RequestId::NONE {
                    self.mesh.to(from).answer(id, Answer::Noted);
                }
            }
            Call::FindClient(client_id) => {
                let found = self.clients.socket_of(client_id);
                self.mesh.to(from).answer(id, Answer::FoundClient(found));
            }
            Call::Invalidate(keys) => self.on_invalidate(id.socket, keys, batch),
            Call::Redirect { of, keys } => self.on_redirect((from, of), id.socket, keys, batch),
            Call::RedirectIsBroken => self.on_broken_redirect(id.socket, None),
            Call::Broadcast(keys) => self.on_broadcast(id.socket, keys, batch),
            Call::Publish(kind, message) => self.deliver(kind, &message, batch),
            Call::Sync => {
                runtime.sync_for(from, id, turn);
            }
            Call::Compact => runtime.compact(Some((from, id))),
            Call::CompactUnheard => runtime.compact(None),
            Call::RewriteConfig { worker, rewrite } if worker == self.index => {
                match self.rewrites.begin(rewrite, (from, id), self.net.wakeup()) {
                    Ok(()) => {}
                    Err(error) => self.mesh.to(from).answer(id, Answer::Part(error.into())),
                }
            }
            Call::RewriteConfig { .. } => self.mesh.to(from).answer(id, Answer::Part(Reply::Ok)),
            Call::Report => {
                let report = self.report();
                self.mesh.to(from).answer(id, Answer::Report(Box::new(report)));
            }
            Call::Clients(filter) => {
                let clients = Reply::Text(self.client_list(&filter));
                self.mesh.to(from).answer(id, Answer::Part(clients));
            }
            Call::KillClients(filter) => {
                let killed = Reply::count(self.kill_clients(&filter));
                self.mesh.to(from).answer(id, Answer::Part(killed));
            }
            Call::Unblock { client_id, with_error } => {
                let unblocked = Reply::one_or_zero(self.unblock_client(client_id, with_error));
                self.mesh.to(from).answer(id, Answer::Part(unblocked));
            }
            Call::TakeNote => {
                self.take_note();
                self.mesh.to(from).answer(id, Answer::Part(Reply::Ok));
            }
            Call::SlowLog(asked) => {
                let told = self.slow_log_reply(&asked);
                self.mesh.to(from).answer(id, Answer::Part(told));
            }
            Call::Wake => {}
            Call::Show(lines) => self.on_shown(&lines),
        }
    }

    /// What this worker counts, for a client that asks.
    fn report(&self) -> Report {
        let (clock, now) = (self.clock.of_shard(), self.clock.now());
        let mut report = self.with_own_counts(self.runtime.whole_report(clock, now, &self.shared));
        let traffic = &mut report.traffic;
        let kinds = [
            SubscriptionKind::Channel,
            SubscriptionKind::Pattern,
            SubscriptionKind::ShardChannel,
            SubscriptionKind::Prefix,
        ];
        traffic.subscribed = kinds.map(|kind| self.pubsub.topic_count(kind) as u64);
        let trackers = self.pubsub.sockets_of(SubscriptionKind::Tracker, b"").len();
        let [keys, copies] = self.runtime.tracked_counts();
        traffic.tracked = [trackers as u64, keys as u64, copies as u64];
        for connection in self.clients.iter() {
            let socket = connection.client.socket;
            traffic.blocked += u64::from(connection.client.is_postponed || connection.client.is_waiting());
            let replies = connection.client.replies.size_bytes() + self.net.unsent_bytes(socket);
            let waiting = [connection.unserved_bytes() as u64, replies as u64];
            traffic.buffered_bytes += waiting[0] + waiting[1];
            traffic.buffered_max = [0, 1].map(|way| traffic.buffered_max[way].max(waiting[way]));
        }
        report
    }

    /// Tells those that watch the server what this worker counts. To be called once a second.
    pub(super) fn publish(&mut self) {
        self.traffic.note_second();
        let (clock, now) = (self.clock.of_shard(), self.clock.now());
        let report = self.with_own_counts(self.runtime.report(clock, now, &self.shared));
        self.shared.publish(self.index, report);
    }

    fn with_own_counts(&self, report: Report) -> Report {
        Report {
            traffic: self.traffic.clone(),
            errors: errors::answered(),
            turns: *self.clock.turns(),
            batches: self.mesh.batches(),
            scripts: self.scripts.usage(),
            ..report
        }
    }
}
