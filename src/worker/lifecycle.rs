//! The begin and the end of a worker: its shard is read back, then it serves, then all workers end together.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use shard::Shard;
use wal::{OsDisk, Replayed};

use super::runtime::ShardRuntime;
use super::{Worker, WorkerReport};
use crate::failure::Failure;
use crate::recovery::{self, Restoring, ShardData};
use crate::shared::Shared;

/// How long a shutdown waits for what is under way.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Where a shard is to be read back from, once that is known, and the server that is told when it is.
pub struct ShardFiles {
    /// Tells it.
    pub data: mpsc::Receiver<ShardData>,
    pub(crate) read: mpsc::Sender<WorkerReport>,
}

/// How far a worker is between its begin and its end.
pub(super) struct Lifecycle {
    /// Some shard is not in memory yet: commands that need keys or files are refused.
    loading: bool,
    files: ShardFiles,
    /// The shard on its way into memory.
    restoring: Option<(ShardData, Restoring)>,
    /// Its log, read back, until those of all shards are.
    read_back: Option<(ShardData, Replayed<OsDisk>)>,
    stopping_since: Option<Instant>,
    drained: bool,
}

impl Lifecycle {
    pub(super) fn new(files: ShardFiles) -> Lifecycle {
        Lifecycle {
            loading: true,
            files,
            restoring: None,
            read_back: None,
            stopping_since: None,
            drained: false,
        }
    }

    #[inline]
    pub(super) fn is_loading(&self) -> bool {
        self.loading
    }

    /// Opens the shard's log once every worker has read its own. Returns whether all shards are in memory.
    fn open_log(&mut self, runtime: &mut ShardRuntime, shared: &Shared) -> Result<bool, Failure> {
        if shared.loading.is_read()
            && let Some((data, replayed)) = self.read_back.take()
        {
            runtime.open_log(data.open(replayed)?, shared);
        }
        self.loading = !shared.loading.is_over();
        Ok(!self.loading)
    }

    /// Notes that the server stops, and whether the clients have what they asked for. Returns whether those of all
    /// workers have, or are not waited for any more.
    fn drain(&mut self, is_quiet: bool, shared: &Shared, workers: usize) -> bool {
        let since = *self.stopping_since.get_or_insert_with(Instant::now);
        if !self.drained && (is_quiet || since.elapsed() > DRAIN_MAX) {
            self.drained = true;
            shared.drained.add();
        }
        self.drained && shared.drained.count() == workers
    }
}

impl Worker {
    /// Reads a part of the shard back, once it is known what counts; opens its log when every worker has read its own;
    /// and begins to serve when every worker has its shard. Returns whether there is more to read.
    pub(super) fn go_on_loading(&mut self) -> Result<bool, Failure> {
        let (lifecycle, shared) = (&mut self.lifecycle, &self.shared);
        if let Ok(data) = lifecycle.files.data.try_recv() {
            let mut empty = Shard::new(recovery::random_seeds()).with_databases(shared.config.databases);
            if shared.config.enable_analytics {
                empty = empty.with_analytics(self.clock.now().now_ms);
            }
            let restoring = data.restore(empty)?;
            lifecycle.restoring = Some((data, restoring));
        }
        if let Some((_, restoring)) = &mut lifecycle.restoring
            && restoring.step()?
        {
            restoring.note(&shared.loading);
            return Ok(true);
        }
        if let Some((data, restoring)) = lifecycle.restoring.take() {
            let (shard, replayed) = restoring.finish()?;
            if let Some(database) = shard.last_database().filter(|it| *it >= shared.config.databases) {
                return Err(Failure::Databases { database, databases: shared.config.databases });
            }
            let note = shared.config.enable_analytics.then(|| data.note());
            self.runtime.take_up(shard, note.as_ref());
            shared.clock.learn(self.runtime.clocks());
            lifecycle.read_back = Some((data, replayed));
            let _ = lifecycle.files.read.send(WorkerReport::Read); // The process may be ending.
            self.publish(); // Once the server is ready, its metrics have all keys.
        }
        if self.lifecycle.open_log(&mut self.runtime, &self.shared)? {
            let clock = self.shared.clock.resume(self.shared.started, self.shared.config.boot);
            self.clock.resume(clock, self.runtime.shard_mut());
            if let Some((_, libraries)) = self.shared.found_libraries.get() {
                self.scripts.set_libraries(libraries.clone());
            }
            self.log_clocks();
            let (runtime, turn) = self.runtime_and_turn();
            runtime.write_down_progress(&turn);
        }
        Ok(false)
    }

    /// Whether the server stops and this worker has nothing left to do. All workers end together: until then
    /// each answers the others.
    pub(super) fn is_finished(&mut self) -> bool {
        if !self.shared.stopping() {
            return false;
        }
        let is_quiet = self.clients.iter().all(|connection| {
            let client = &connection.client;
            (client.is_quiet() || client.is_waiting())
                && !client.replies.is_ready()
                && !self.net.is_sending(client.socket)
        });
        let all_drained = self.lifecycle.drain(is_quiet, &self.shared, self.mesh.worker_count());
        // The thread that copies a backup is not waited for: what it leaves is none.
        // The server may have begun to stop in the middle of this turn, behind that work.
        let has_ended = self.lifecycle.is_loading() || self.runtime.has_ended_background();
        all_drained && has_ended && self.mesh.is_idle() && !self.runtime.is_busy()
    }
}
