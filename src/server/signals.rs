//! What a signal means to the server. Never what is done about it: see `server.rs`.

use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
};
use signal_hook::iterator::Signals;

/// Signals that end the server in order. The last two say that it is about to lose its power, or its right to a CPU.
pub const ENDING: [i32; 5] = [SIGTERM, SIGINT, SIGQUIT, libc::SIGPWR, SIGXCPU];

/// Signals that would end the process and mean nothing here. SIGHUP has nothing to reload: every option is a flag or
/// a variable. SIGXFSZ comes with a write past the limit of file sizes (`ulimit -f`), which is to fail as one to a
/// full disk does. The runtime ignores SIGPIPE already; those that tell of a defect, such as SIGSEGV, still end the
/// process.
const IGNORED: [i32; 9] =
    [SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, libc::SIGSTKFLT, SIGXFSZ];

/// All of these, from now on. A handler that was set before runs as well.
///
/// # Errors
/// Where the system does not let a signal be handled.
pub fn awaited() -> std::io::Result<Signals> {
    let signals = Signals::new(ENDING.iter().chain(&IGNORED))?;
    for signal in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        let _ = signals.handle().add_signal(signal); // Valgrind keeps one for itself.
    }
    Ok(signals)
}

/// The name of a signal.
pub fn name(signal: i32) -> String {
    match signal_hook::low_level::signal_name(signal) {
        Some(name) => name.to_owned(),
        None => format!("signal {signal}"),
    }
}
