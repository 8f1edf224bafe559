//! A process that is not run for a while, as by a host that stalls or a debugger: no disk is to blame for that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::client::encoded;
use crate::process::Server;

/// For how long the process is stopped, and what its disk is given.
const STOPPED: Duration = Duration::from_secs(4);
const DISK_TIMEOUT: &str = "2s";

#[test]
fn a_process_that_was_not_run_blames_no_disk() {
    const CLIENTS: usize = 6;
    const PIPELINE: usize = 200;
    let server = Server::start(2, &["--sync-mode", "always", "--disk-timeout", DISK_TIMEOUT]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                let mut resp = server.resp();
                let set = encoded(&["SET", &format!("key:{client}"), "v"]);
                let both = encoded(&["MSET", "a", "1", "b", "2", "c", "3", "d", "4"]);
                while !stop.load(Ordering::Relaxed) {
                    resp.wire.send(&[set.repeat(PIPELINE), both.clone()].concat());
                    (0..=PIPELINE).for_each(|_| assert_eq!(resp.read().to_string(), "+OK"));
                }
            });
        }
        // It is stopped in the middle of whatever it does; how long that is, is what the test is about.
        for _ in 0..2 {
            thread::sleep(Duration::from_millis(300));
            server.signal(Signal::STOP);
            thread::sleep(STOPPED);
            server.signal(Signal::CONT);
        }
        assert_eq!(server.resp().ask("PING").to_string(), "+PONG");
        stop.store(true, Ordering::Relaxed);
    });
    let log = server.log.text();
    for story in ["hangs", "refused", "unknown", "does not come to its end"] {
        assert!(!log.contains(story), "{story}: {}", server.log.tail());
    }
}
