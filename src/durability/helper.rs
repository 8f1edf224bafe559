//! A thread for the work of a shard that blocks: syncing, renaming, removing. It never touches what its worker owns.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;

use crate::{net, process};

/// A piece of blocking work, and what comes of it.
type Work<T> = Box<dyn FnOnce() -> T + Send>;

/// The helper thread of one worker, which ends with this.
pub(super) struct Helper<T> {
    work: mpsc::Sender<Work<T>>,
    ended: mpsc::Receiver<T>,
    /// Pieces of work that have not ended, or whose end was not taken.
    running: usize,
}

impl<T: Send + 'static> Helper<T> {
    /// Nothing to do yet. `wakeup` makes the worker take a turn when a piece of work has ended.
    ///
    /// # Errors
    /// When there can be no other thread.
    pub fn new(wakeup: OwnedFd) -> io::Result<Helper<T>> {
        let (work, all_work) = mpsc::channel::<Work<T>>();
        let (sender, ended) = mpsc::channel();
        // Not the executor's own helper: glommio 0.9 panics where that cannot be started.
        let help = move || {
            // No client waits for what it does, but segments have to be ready in time on a busy core, too.
            process::stand_back();
            for work in all_work {
                let _ = sender.send(work()); // The worker waits for it as long as it runs.
                net::unpark(wakeup.as_fd());
            }
        };
        std::thread::Builder::new().name("kvlite-helper".to_owned()).spawn(help)?;
        Ok(Helper { work, ended, running: 0 })
    }

    /// Runs this behind the work that was given before.
    pub fn run(&mut self, work: impl FnOnce() -> T + Send + 'static) {
        self.running += 1;
        self.work.send(Box::new(work)).expect("the helper takes work as long as this is there");
    }

    /// What has come of work that has ended since.
    pub fn take_ended(&mut self) -> Vec<T> {
        let ended: Vec<T> = self.ended.try_iter().collect();
        self.running -= ended.len();
        ended
    }

    /// Whether work is under way; the executor must not end before it.
    pub fn is_busy(&self) -> bool {
        self.running > 0
    }
}
