//! `CONFIG REWRITE`: one file at a time, on a thread of its own, since it waits for the disk.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, mpsc};

use shard::{Error, Reply};

use crate::config::file::Rewrite;
use crate::mesh::{Answer, Mesh, RequestId};
use crate::net;

/// The error for a client that asks while another's is under way.
const UNDER_WAY: Error =
    Error::Unavailable("the configuration file is being written for another client: try again");

/// The rewrite that is under way.
#[derive(Default)]
pub(super) struct Rewrites {
    under_way: Option<UnderWay>,
}

struct UnderWay {
    outcome: mpsc::Receiver<Reply<'static>>,
    /// The worker that asked, and for which request.
    asker: (usize, RequestId),
}

impl Rewrites {
    /// Begins one. `wakeup` makes the worker take a turn when it has ended.
    pub fn begin(
        &mut self,
        rewrite: Arc<Rewrite>,
        asker: (usize, RequestId),
        wakeup: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        if self.is_under_way() {
            return Err(UNDER_WAY);
        }
        let failed = |error: std::io::Error| Error::RewriteFailed { cause: error.to_string().into() };
        let wakeup = wakeup.try_clone_to_owned().map_err(failed)?;
        let (sender, outcome) = mpsc::channel();
        let work = move || {
            let reply = match rewrite.carry_out() {
                Ok(()) => {
                    tracing::info!(path = %rewrite.path.display(), "the configuration file was rewritten");
                    Reply::Ok
                }
                Err(error) => {
                    tracing::warn!(path = %rewrite.path.display(), %error, "the configuration file was not rewritten");
                    failed(error).into()
                }
            };
            let _ = sender.send(reply); // The worker waits for it as long as it runs.
            net::unpark(wakeup.as_fd());
        };
        std::thread::Builder::new().name("kvlite-config".to_owned()).spawn(work).map_err(failed)?;
        self.under_way = Some(UnderWay { outcome, asker });
        Ok(())
    }

    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Answers the client whose rewrite has ended. Returns whether one has.
    pub fn end(&mut self, mesh: &mut Mesh) -> bool {
        let Some(UnderWay { outcome, asker: (worker, request_id) }) = &self.under_way else { return false };
        let Ok(reply) = outcome.try_recv() else { return false };
        mesh.to(*worker).answer(*request_id, Answer::Part(reply));
        self.under_way = None;
        true
    }
}
