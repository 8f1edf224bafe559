//! What the server tells a service manager such as systemd, which is a socket of the test here.

use std::time::Duration;

use crate::client::encoded;
use crate::process::Server;
use crate::service_manager::ServiceManager;

/// Long enough that no turn of this machine comes near it.
const LONG: Duration = Duration::from_mins(1);

#[test]
fn ready_is_said_once_the_data_is_loaded_and_stopping_at_the_end() {
    const KEYS: usize = 100_000;
    let mut server = Server::start(2, &[]);
    let mut text = server.text();
    for first in (0..KEYS).step_by(1000) {
        let pairs: String = (first..first + 1000).map(|n| format!(" key:{n} value-{n}")).collect();
        assert_eq!(text.ask_one(&format!("MSET{pairs}")), "+OK");
    }
    server.kill9();
    let manager = ServiceManager::of(&mut server, LONG);
    server.begin_restart(2);
    let heard = manager.hear_until("READY=1");
    // A server that is not whole would say that it is loading.
    assert_eq!(server.resp().ask("DBSIZE").integer(), KEYS as i64);
    assert_eq!(server.text().ask_one("GET key:99999"), "value-99999");
    let (ready, loading) = heard.split_last().unwrap();
    assert_eq!(ready, "READY=1\nSTATUS=Serving with 2 shards\n");
    assert!(!loading.is_empty(), "a start over a large log is given no time");
    for message in loading {
        let status = message.strip_prefix("EXTEND_TIMEOUT_USEC=600000000\nSTATUS=Loading: ");
        assert!(status.is_some_and(|status| status.ends_with(" keys\n")), "{message}");
    }
    manager.hear_until("WATCHDOG=1");
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
    let heard = manager.hear_until("STOPPING=1");
    assert_eq!(heard.last().unwrap(), "STOPPING=1\nSTATUS=Stopping\n");
}

#[test]
fn the_watchdog_hears_nothing_while_a_worker_computes_for_too_long() {
    // Longer than a worker that has nothing to do rests, and much shorter than what it gets to do here.
    let mut server = Server::stopped(None, &[]);
    let manager = ServiceManager::of(&mut server, Duration::from_millis(600));
    server.restart(1);
    (0..3).for_each(|_| drop(manager.hear_until("WATCHDOG=1")));
    // As many pairs as this build and this machine need for it; a request may hold some 30 million of them.
    let is_told = (0..6).any(|round| {
        let names: Vec<String> = (0..250_000 << round).map(|number| format!("{round}:{number}")).collect();
        let pairs = names.iter().flat_map(|name| [name.as_str(), "value"]);
        let mut resp = server.resp();
        resp.wire.send(&encoded(&std::iter::once("MSET").chain(pairs).collect::<Vec<_>>()));
        assert_eq!(resp.read().to_string(), "+OK");
        server.log.text().contains("does=\"computes\"")
    });
    assert!(is_told, "{}", server.log.tail());
    let stuck = manager.hear_until("STATUS=Stuck: shard 0 has computed for ");
    assert!(stuck.iter().any(|message| message == "WATCHDOG=1\n"));
    let meanwhile = manager.hear_until("STATUS=Serving with 1 shards");
    assert!(!meanwhile.iter().any(|message| message == "WATCHDOG=1\n"), "{meanwhile:?}");
    manager.hear_until("WATCHDOG=1");
}
