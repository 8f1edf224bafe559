//! Messages: who gets them, in which order, over several workers, and what becomes of those who do not read.

use std::collections::BTreeMap;

use crate::client::{Resp, Value, encoded, is_closed};
use crate::process::{Server, within_deadline};

/// Clients of a server of so many shards, as many as reach all workers: they are accepted by each in turn.
fn clients(server: &Server, shards: usize) -> Vec<Resp> {
    (0..shards).map(|_| server.resp()).collect()
}

#[test]
fn a_message_reaches_whoever_was_told_of_a_subscription_before() {
    for shards in [1, 3] {
        let server = Server::start(shards, &[]);
        let (mut subscribers, mut publishers) = (clients(&server, shards), clients(&server, shards));
        for round in 0..50 {
            let channel = format!("channel:{round}");
            for (count, subscriber) in subscribers.iter_mut().enumerate() {
                let told = subscriber.ask(&format!("SUBSCRIBE {channel}")).to_string();
                assert_eq!(told, format!("[\"subscribe\", \"{channel}\", {}]", round + 1));
                // Whichever worker is asked next knows of it.
                let publisher = &mut publishers[round % shards];
                assert_eq!(publisher.ask(&format!("PUBLISH {channel} {count}")).integer(), count as i64 + 1);
            }
            for (first, subscriber) in subscribers.iter_mut().enumerate() {
                for count in first..shards {
                    let message = subscriber.read().to_string();
                    assert_eq!(message, format!("[\"message\", \"{channel}\", \"{count}\"]"));
                }
            }
        }
        drop(subscribers);
        let mut publisher = server.resp();
        assert!(within_deadline(|| publisher.ask("PUBSUB CHANNELS").items().is_empty()), "they are gone");
        assert_eq!(publisher.ask("PUBLISH channel:1 x").integer(), 0);
    }
}

#[test]
fn each_publisher_is_heard_in_its_order() {
    const COUNT: usize = 3000;
    let server = Server::start(3, &[]);
    let mut subscribers = clients(&server, 4);
    for subscriber in &mut subscribers {
        subscriber.ask("SUBSCRIBE a");
        subscriber.ask("PSUBSCRIBE ?");
    }
    let publishers: Vec<_> = (0..3)
        .map(|name| {
            let mut publisher = server.resp();
            std::thread::spawn(move || {
                let said = |number| encoded(&["PUBLISH", "a", &format!("{name}:{number}")]);
                publisher.wire.send(&(0..COUNT).flat_map(said).collect::<Vec<u8>>());
                (0..COUNT).for_each(|_| assert_eq!(publisher.read().integer(), 8));
            })
        })
        .collect();
    for subscriber in &mut subscribers {
        let mut heard: BTreeMap<(String, String), usize> = BTreeMap::new();
        for _ in 0..3 * 2 * COUNT {
            let message = subscriber.read();
            let [kind, .., text] = message.items() else { panic!("{message}") };
            let text = String::from_utf8(text.bytes().to_vec()).unwrap();
            let (name, number) = text.split_once(':').unwrap();
            let next = heard.entry((kind.to_string(), name.to_owned())).or_default();
            assert_eq!(number, next.to_string(), "of {name}");
            *next += 1;
        }
        assert!(heard.len() == 6 && heard.values().all(|count| *count == COUNT));
    }
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
}

#[test]
fn messages_stand_between_replies_and_never_within_one() {
    let server = Server::start(2, &[]);
    let (mut reader, mut publisher) = (server.resp(), server.resp());
    assert_eq!(publisher.ask(&format!("SET large {}", "v".repeat(1 << 20))).to_string(), "+OK");
    reader.ask("HELLO 3");
    reader.ask("SUBSCRIBE a");
    let names = " get".repeat(2000);
    let requests = ["GET large", &format!("COMMAND INFO{names}"), "MGET large large", "PING"];
    let text = "m".repeat(40_000);
    for _ in 0..20 {
        for request in requests {
            let words: Vec<&str> = request.split(' ').collect();
            reader.wire.send(&encoded(&words));
            assert_eq!(publisher.ask(&format!("PUBLISH a {text}")).integer(), 1);
            publisher.ask("PUBLISH a small");
        }
        let (mut replies, mut messages) = (0, 0);
        while replies < requests.len() || messages < 2 * requests.len() {
            match reader.read() {
                Value::Push(items) => {
                    let expected = if messages % 2 == 0 { text.as_bytes() } else { b"small" };
                    assert!(items.len() == 3 && items[2].bytes() == expected);
                    messages += 1;
                }
                reply => {
                    let is_whole = match (replies, &reply) {
                        (0, Value::Bulk(value)) => value.len() == 1 << 20,
                        (1, Value::Array(items)) => items.len() == 2000,
                        (2, Value::Array(items)) => items.iter().all(|item| item.bytes().len() == 1 << 20),
                        (3, Value::Simple(text)) => text == "PONG",
                        _ => false,
                    };
                    assert!(is_whole, "reply {replies} is {}", &reply.to_string()[..40]);
                    replies += 1;
                }
            }
        }
    }
}

#[test]
fn a_subscriber_that_does_not_read_is_let_go_and_stops_no_publisher() {
    let server = Server::start(2, &["--client-output-buffer-limit", "pubsub 4mb 2mb 3600"]);
    let (mut silent, mut patient, mut publisher) = (server.resp(), server.resp(), server.resp());
    silent.ask("CLIENT SETNAME silent");
    silent.ask("SUBSCRIBE a");
    patient.ask("SUBSCRIBE a");
    let text = "m".repeat(64 << 10);
    let mut told = 2;
    let is_let_go = within_deadline(|| {
        let receivers = publisher.ask(&format!("PUBLISH a {text}")).integer();
        assert!(receivers <= told, "{receivers} after {told}");
        told = receivers;
        assert_eq!(patient.read().items()[2].bytes().len(), text.len());
        receivers == 1
    });
    assert!(is_let_go, "{}", server.log.tail());
    let line =
        "a subscriber is disconnected: more messages waited for it than --client-output-buffer-limit allows";
    assert!(within_deadline(|| server.log.text().contains(line)), "{}", server.log.tail());
    assert!(server.log.text().contains("silent"), "{}", server.log.tail());
    let end = loop {
        if let Err(error) = silent.try_read() {
            break error;
        }
    };
    assert!(is_closed(&end), "{end}");
}

#[test]
fn messages_are_lines_of_the_text_protocol() {
    let server = Server::start(2, &[]);
    let (mut text, mut resp) = (server.text(), server.resp());
    assert_eq!(text.ask("SUBSCRIBE news"), ["subscribe news 1"]);
    assert_eq!(text.ask("PSUBSCRIBE n*"), ["psubscribe n* 2"]);
    assert_eq!(resp.ask_bytes(&["PUBLISH", "news", "two \"words\"\n"]).integer(), 2);
    assert_eq!(text.wire.line(), br#"message news "two \"words\"\n""#);
    assert_eq!(text.wire.line(), br#"pmessage n* news "two \"words\"\n""#);
    resp.ask("SUBSCRIBE news");
    assert_eq!(server.text().ask_one("PUBLISH news  all  of it "), "3");
    assert_eq!(resp.read().to_string(), r#"["message", "news", "all  of it"]"#);
}

/// What a client that has all keyspace events come is told of next: a key and an event of it.
fn next_event(listener: &mut Resp) -> String {
    let message = listener.read();
    let [_, _, channel, text] = message.items() else { panic!("{message}") };
    let [channel, text] = [channel, text].map(|it| String::from_utf8(it.bytes().to_vec()).unwrap());
    format!("{} {text}", channel.strip_prefix("__key").unwrap())
}

#[test]
fn what_happens_to_keys_is_told_of() {
    for shards in [1, 3] {
        let server = Server::start(shards, &["--notify-keyspace-events", "KEAmn"]);
        let (mut listener, mut client) = (server.resp(), server.resp());
        assert_eq!(client.ask("CONFIG GET notify-keyspace-events").items()[1].to_string(), "\"AKEm\"");
        listener.ask("PSUBSCRIBE __key*@*__:*");
        for (request, events) in [
            ("SET a 1", "new set"),
            ("SET a 2 EX 100", "set expire"),
            ("SET a 3 NX", ""),
            ("GETEX a PERSIST", "persist"),
            ("EXPIRE a 100", "expire"),
            ("PERSIST a", "persist"),
            ("PERSIST a", ""),
            ("INCR a", "incrby"),
            ("INCRBYFLOAT a 1", "incrbyfloat"),
            ("APPEND a 1", "append"),
            ("SETRANGE a 1 2", "setrange"),
            ("SETBIT a 2 1", ""),
            ("SETBIT a 2 0", "setbit"),
            ("BITFIELD a SET u8 0 255", "setbit"),
            ("GET a", ""),
            ("GETDEL a", "del"),
            ("GET a", "keymiss"),
            ("TYPE a", "keymiss"),
            ("SETEX a 100 1", "new set expire"),
            ("EXPIRE a 0", "del"),
            ("SET a 1 EXAT 1", "new set expire expired"),
            ("SET a 1 PX 1", "new set expire expired"),
            ("MSET a 1 a 2", "new set set"),
            ("DEL a", "del"),
        ] {
            client.ask(request);
            for event in events.split_whitespace() {
                assert_eq!(next_event(&mut listener), format!("space@0__:a {event}"), "{request}");
                assert_eq!(next_event(&mut listener), format!("event@0__:{event} a"), "{request}");
            }
        }
    }
}

#[test]
fn only_the_events_are_told_of_that_were_asked_for() {
    let server = Server::start(2, &["--notify-keyspace-events", "KA"]);
    let (mut listener, mut client) = (server.resp(), server.resp());
    assert_eq!(client.ask("CONFIG SET notify-keyspace-events xE").to_string(), "+OK");
    assert_eq!(client.ask("CONFIG GET notify-keyspace-events").items()[1].to_string(), "\"xE\"");
    let refused = "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.";
    assert!(client.ask("CONFIG SET notify-keyspace-events q").to_string().ends_with(refused));
    listener.ask("PSUBSCRIBE *");
    client.ask("SET a 1 PX 1");
    client.ask("SET b 1");
    assert_eq!(next_event(&mut listener), "event@0__:expired a");
    assert_eq!(client.ask("PUBLISH __keyspace@0__:b end").integer(), 1);
    assert_eq!(next_event(&mut listener), "space@0__:b end");
}
