//! The end of a container under load: nothing that was acknowledged is lost, whichever way it ends.

use std::thread;
use std::time::{Duration, Instant};

use crate::client::Value;
use crate::engine::{Container, image};
use crate::process::within_deadline;

const WRITERS: usize = 4;

/// How long `docker stop` waits before it kills.
const GRACE: Duration = Duration::from_secs(10);

/// Ends a container by a command of docker while clients write, and starts it again. Returns its exit status and how
/// long the command took.
fn ended_under_load(image: &str, command: &str) -> (i32, Duration) {
    let container = Container::serving(image, &[], &[]);
    // Each writer counts up one key, and returns the last number that was acknowledged.
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let mut client = container.resp();
            thread::spawn(move || {
                for number in 1_u64.. {
                    let request =
                        crate::client::encoded(&["SET", &format!("key-{writer}"), &number.to_string()]);
                    let sent = client.wire.try_send(&request);
                    match sent.and_then(|()| client.try_read()) {
                        Ok(Value::Simple(text)) if text == "OK" => {}
                        _ => return number - 1,
                    }
                }
                unreachable!("a writer ends with its server")
            })
        })
        .collect();
    let mut observer = container.text();
    let is_under_way =
        || (0..WRITERS).all(|it| observer.ask_one(&format!("STRLEN key-{it}")).parse::<u32>().unwrap() > 2);
    assert!(within_deadline(is_under_way), "the writers have not come to 100");
    let begin = Instant::now();
    container.command(command);
    let took = begin.elapsed();
    let status = container.ended();
    let acknowledged: Vec<u64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    container.command("start");
    container.await_ready(2);
    let mut text = container.text();
    for (writer, acknowledged) in acknowledged.into_iter().enumerate() {
        let kept: u64 = text.ask_one(&format!("GET key-{writer}")).parse().unwrap();
        assert!(kept == acknowledged || kept == acknowledged + 1, "{kept} is left of {acknowledged}");
    }
    (status, took)
}

#[test]
fn a_container_that_is_stopped_ends_in_order_within_the_grace_period() {
    let Some(image) = image() else { return };
    let (status, took) = ended_under_load(&image, "stop");
    assert_eq!(status, 0);
    assert!(took < GRACE, "it took {took:?}");
}

#[test]
fn a_container_that_is_killed_loses_nothing_acknowledged() {
    let Some(image) = image() else { return };
    let (status, _) = ended_under_load(&image, "kill");
    assert_eq!(status, 128 + 9);
}
