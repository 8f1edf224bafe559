//! What the service manager is told, in the protocol of systemd (`sd_notify`): how far the start is, that the server is
//! ready, that its workers are well, that it stops. Where none asks for it, by `NOTIFY_SOCKET`, nothing happens.
//!
//! A thread of its own tells: it may have to wait for the service manager, which no worker does.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::failure::Failure;
use crate::shared::Shared;
use crate::shared::verdict::Stuck;

/// Where the service manager listens.
const SOCKET: &str = "NOTIFY_SOCKET";

/// How often it is looked whether the data is loaded, and how often the service manager hears of that at most.
const LOADING_INTERVAL: Duration = Duration::from_millis(20);
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked how the server is, at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A start or a stop that gets on may take so much longer, each time. The writing of a shard of a new layout is not seen
/// to get on.
const START_PATIENCE: Duration = Duration::from_mins(10);
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// How long the watchdog of the service manager waits, if there is one.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|_| std::env::var_os(SOCKET).is_some())
}

/// Tells the service manager from now on how the server is, if there is one that asks for it.
pub(super) fn tell_service_manager(shared: Arc<Shared>) -> Result<(), Failure> {
    if std::env::var_os(SOCKET).is_none() {
        return Ok(());
    }
    let work = move || {
        tell_of_loading(&shared);
        tell_of_serving(&shared);
        tell_of_stop(&shared)
    };
    let thread = thread::Builder::new().name("kvlite-notify".to_owned()).spawn(work);
    thread.map(drop).map_err(Failure::Thread)
}

/// Tells that the server is about to end.
pub(super) fn tell_stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("Stopping")]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}

/// Until every shard is in memory. A start that gets on is given time.
fn tell_of_loading(shared: &Shared) {
    let loading = &shared.loading;
    let mut told = None;
    while !loading.is_over() {
        let extent = loading.extent();
        let is_due = |(before, at): (_, Instant)| before != extent && at.elapsed() >= STATUS_INTERVAL;
        if told.is_none_or(is_due) {
            told = Some((extent, Instant::now()));
            let status = format!("Loading: {} percent, {} keys", loading.percent(), extent.keys);
            tell(&[longer(START_PATIENCE), NotifyState::Status(&status)]);
        }
        thread::sleep(LOADING_INTERVAL);
    }
    tell(&[NotifyState::Ready, NotifyState::Status(&serving(shared, None))]);
}

/// Until the server is to end. The watchdog of the service manager hears nothing while a worker is stuck.
fn tell_of_serving(shared: &Shared) {
    let watchdog = watchdog();
    let step = watchdog.map_or(LOOK_INTERVAL, |period| LOOK_INTERVAL.min(period / 4));
    let mut told = serving(shared, None);
    let mut beat: Option<Instant> = None;
    while !shared.stopping() {
        let stuck = shared.next_verdict(step).stuck;
        let status = serving(shared, stuck);
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
        let is_due = |at: Instant| watchdog.is_some_and(|period| at.elapsed() + step > period / 2);
        if watchdog.is_some() && stuck.is_none() && beat.is_none_or(is_due) {
            beat = Some(Instant::now());
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// Until the end. A stop in which workers take turns is given time: clients get what they wait for.
fn tell_of_stop(shared: &Shared) -> ! {
    let mut turns_before = None;
    loop {
        let turns: Vec<u64> =
            (0..shared.config.shard_count()).map(|worker| shared.turn_began_ms(worker)).collect();
        if turns_before.as_ref() != Some(&turns) {
            tell(&[longer(STOP_PATIENCE)]);
            turns_before = Some(turns);
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

fn longer(by: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).expect("it is less than an hour"))
}

/// What the server does, in a line for `systemctl status`.
fn serving(shared: &Shared, stuck: Option<Stuck>) -> String {
    if let Some(stuck) = stuck {
        return format!("Stuck: {stuck}");
    }
    let shards = shared.config.shard_count();
    let failing: Vec<String> =
        (0..shards).filter(|shard| shared.disk_fails(*shard)).map(|shard| shard.to_string()).collect();
    match failing[..] {
        [] => format!("Serving with {shards} shards"),
        _ => format!("Writes are refused: the disk of shard {} fails", failing.join(", ")),
    }
}
