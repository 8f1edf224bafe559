//! What signals do to the server: some end it, the others that would are ignored.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
};
use signal_hook::iterator::Signals;

use super::listeners::SocketFile;
use super::notify;
use crate::failure::Failure;
use crate::logging;
use crate::net;
use crate::shared::Shared;

/// Signals that end the server in order. The last two say that it is about to lose its power, or its right to a CPU.
const ENDING: [i32; 5] = [SIGTERM, SIGINT, SIGQUIT, libc::SIGPWR, SIGXCPU];

/// Signals that would end the process and mean nothing here. SIGHUP reloads nothing: options are read at the start
/// alone. SIGXFSZ comes with a write past the limit of file sizes (`ulimit -f`), which is to fail as one to a
/// full disk does. The runtime ignores SIGPIPE already; those that tell of a defect, such as SIGSEGV, still end the
/// process.
const IGNORED: [i32; 9] =
    [SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, libc::SIGSTKFLT, SIGXFSZ];

/// The server as far as signals are concerned: what there is to stop, as the start goes on.
#[derive(Default)]
pub(super) struct Stoppable {
    /// The file of the Unix socket that is listened on.
    pub unix_socket: OnceLock<SocketFile>,
    /// The workers, once they can be woken.
    pub running: OnceLock<Running>,
}

/// What ends a server that runs.
pub(super) struct Running {
    pub shared: Arc<Shared>,
    /// Where the workers are woken.
    pub wakeups: Vec<OwnedFd>,
}

impl Stoppable {
    /// Removes the file of the Unix socket, if there is one.
    pub fn remove_unix_socket(&self) {
        if let Some(file) = self.unix_socket.get() {
            file.remove();
        }
    }
}

/// Ends the server at a signal that is to end it; at a second one, at once. Before it runs or while it is loading the
/// first one ends it at once too: nothing was acknowledged, and a start that is cut short leaves the files whole. Other
/// signals that would end the process are ignored, and logged when they come for the first time.
pub(super) fn stop_on_signal() -> Result<Arc<Stoppable>, Failure> {
    let stoppable: Arc<Stoppable> = Arc::default();
    let stopped = stoppable.clone();
    let mut signals = awaited().map_err(Failure::Signals)?;
    let wait = move || {
        let mut ignored = HashSet::new();
        for signal in signals.forever() {
            let name = name(signal);
            if !ENDING.contains(&signal) {
                if ignored.insert(signal) {
                    tracing::warn!(signal = %name, "a signal changes nothing and is ignored, further ones without a word");
                }
                continue;
            }
            let loaded = stopped.running.get().filter(|running| running.shared.loading.is_over());
            let Some(Running { shared, wakeups }) = loaded else {
                tracing::info!(signal = %name, "stopped before the data was loaded");
                stopped.remove_unix_socket();
                logging::exit(0)
            };
            if shared.stop() {
                tracing::warn!(signal = %name, "stopped at once by a second signal");
                stopped.remove_unix_socket();
                logging::exit(128 + signal);
            }
            tracing::info!(signal = %name, "stopping; a second signal ends at once");
            notify::tell_stopping(); // Before the workers know, who may be quick to end.
            wakeups.iter().for_each(|wakeup| net::unpark(wakeup.as_fd()));
        }
    };
    let thread = std::thread::Builder::new().name("kvlite-signals".to_owned()).spawn(wait);
    thread.map(|_| stoppable).map_err(Failure::Thread)
}

/// All of these, from now on. A handler that was set before runs as well.
///
/// # Errors
/// Where the system does not let a signal be handled.
fn awaited() -> std::io::Result<Signals> {
    let signals = Signals::new(ENDING.iter().chain(&IGNORED))?;
    for signal in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        let _ = signals.handle().add_signal(signal); // Valgrind keeps one for itself.
    }
    Ok(signals)
}

/// The name of a signal.
fn name(signal: i32) -> String {
    match signal_hook::low_level::signal_name(signal) {
        Some(name) => name.to_owned(),
        None => format!("signal {signal}"),
    }
}
