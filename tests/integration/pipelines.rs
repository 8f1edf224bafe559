//! Thousands of commands sent ahead of their replies: everything is answered, in order.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;

use crate::client::{Resp, Text, encoded};
use crate::process::Server;
use crate::random::Random;
use crate::words::words;

const DEPTH: usize = 10_000;

/// A command and its reply on both protocols.
struct Exchange {
    request: String,
    resp: String,
    text: Vec<String>,
}

fn exchange(request: String, resp: impl Into<String>, text: &[impl ToString]) -> Exchange {
    Exchange { request, resp: resp.into(), text: text.iter().map(ToString::to_string).collect() }
}

/// The commands of a pipeline, over keys of all shards; each reply names its place in the order.
fn ordered(prefix: &str) -> Vec<Exchange> {
    (0..DEPTH)
        .map(|index| {
            let key = format!("{prefix}:{}", index / 4 % 50);
            let value = index / 4;
            match index % 4 {
                0 => exchange(format!("SET {key} {value}"), "+OK", &["+OK"]),
                1 => exchange(format!("GET {key}"), format!("\"{value}\""), &[value]),
                2 => exchange(format!("ECHO {index}"), format!("\"{index}\""), &[index]),
                _ => exchange(
                    format!("MGET {key} {prefix}:nope"),
                    format!("[\"{value}\", nil]"),
                    &[value.to_string(), "(nil)".to_owned()],
                ),
            }
        })
        .collect()
}

fn resp_bytes(exchanges: &[Exchange]) -> Vec<u8> {
    exchanges.iter().flat_map(|exchange| encoded(&words(&exchange.request))).collect()
}

fn text_bytes(exchanges: &[Exchange]) -> Vec<u8> {
    exchanges.iter().flat_map(|exchange| format!("{}\n", exchange.request).into_bytes()).collect()
}

fn read_resp(client: &mut Resp, exchanges: &[Exchange]) {
    for (index, exchange) in exchanges.iter().enumerate() {
        let reply = client.read().to_string();
        if reply != exchange.resp {
            let Exchange { request, resp, .. } = exchange;
            client.wire.fail(&format!("command {index}, {request}: expected {resp}, got {reply}"));
        }
    }
}

fn read_text(client: &mut Text, exchanges: &[Exchange]) {
    for (index, exchange) in exchanges.iter().enumerate() {
        for expected in &exchange.text {
            let line = client.wire.line();
            if line != expected.as_bytes() {
                let (request, line) = (&exchange.request, line.escape_ascii());
                client.wire.fail(&format!("command {index}, {request}: expected {expected}, got {line}"));
            }
        }
    }
}

fn pipelines_are_answered_in_order(shards: usize, flags: &[&str]) {
    let server = Server::start(shards, flags);
    let (mut resp, mut text) = (server.resp(), server.text());

    // Written while the replies are read, on both protocols at once.
    thread::scope(|scope| {
        let (mut resp_sender, mut text_sender) = (resp.wire.sender(), text.wire.sender());
        scope.spawn(move || resp_sender.write_all(&resp_bytes(&ordered("r"))).unwrap());
        scope.spawn(move || text_sender.write_all(&text_bytes(&ordered("t"))).unwrap());
        scope.spawn(|| read_text(&mut text, &ordered("t")));
        read_resp(&mut resp, &ordered("r"));
    });

    // Written to the end before the first reply is read.
    let (for_resp, for_text) = (ordered("R"), ordered("T"));
    resp.wire.send(&resp_bytes(&for_resp));
    text.wire.send(&text_bytes(&for_text));
    read_resp(&mut resp, &for_resp);
    read_text(&mut text, &for_text);
    assert_eq!(resp.ask("DBSIZE").integer(), 4 * 50);
}

#[test]
fn pipelines_are_answered_in_order_by_one_shard() {
    pipelines_are_answered_in_order(1, &[]);
}

#[test]
fn pipelines_are_answered_in_order_by_two_shards() {
    pipelines_are_answered_in_order(2, &[]);
}

#[test]
fn pipelines_are_answered_in_order_by_two_shards_that_spin() {
    pipelines_are_answered_in_order(2, &["--spin-us", "100"]);
}

#[test]
fn pipelines_are_answered_in_order_by_five_shards() {
    pipelines_are_answered_in_order(5, &[]);
}

/// Random commands over a client's own keys, with the replies that a map of them gives.
fn random_batch(client: usize, model: &mut HashMap<u64, i64>, random: &mut Random) -> Vec<Exchange> {
    (0..500)
        .map(|_| {
            let id = random.below(200);
            let key = format!("flood:{client}:{id}");
            match random.below(5) {
                0 => {
                    let value = i64::try_from(random.below(1 << 40)).unwrap();
                    model.insert(id, value);
                    exchange(format!("SET {key} {value}"), "+OK", &["+OK"])
                }
                1 => {
                    let value = model.entry(id).or_insert(0);
                    *value += 1;
                    exchange(format!("INCR {key}"), value.to_string(), &[*value])
                }
                2 => match model.remove(&id) {
                    Some(_) => exchange(format!("DEL {key}"), "1", &["+OK"]),
                    None => exchange(format!("DEL {key}"), "0", &["-ERR key not found"]),
                },
                _ => match model.get(&id) {
                    Some(value) => exchange(format!("GET {key}"), format!("\"{value}\""), &[value]),
                    None => exchange(format!("GET {key}"), "nil", &["-ERR key not found"]),
                },
            }
        })
        .collect()
}

/// Every shard is busy sending to the others while they send to it.
fn shards_that_flood_each_other(shards: usize) {
    const CLIENT_COUNT: usize = 10;
    const BATCH_COUNT: usize = 12;
    let server = &Server::start(shards, &[]);
    let mut random = Random::new("shards that flood each other");
    thread::scope(|scope| {
        for client in 0..CLIENT_COUNT {
            let mut random = random.fork();
            scope.spawn(move || {
                let mut model = HashMap::new();
                let (mut resp, mut text) = (server.resp(), server.text());
                for _ in 0..BATCH_COUNT {
                    let batch = random_batch(client, &mut model, &mut random);
                    if client % 5 == 0 {
                        text.wire.send(&text_bytes(&batch));
                        read_text(&mut text, &batch);
                    } else {
                        resp.wire.send(&resp_bytes(&batch));
                        read_resp(&mut resp, &batch);
                    }
                }
            });
        }
    });
}

#[test]
fn two_shards_that_flood_each_other_answer_everything() {
    shards_that_flood_each_other(2);
}

#[test]
fn five_shards_that_flood_each_other_answer_everything() {
    shards_that_flood_each_other(5);
}

#[test]
fn a_client_that_never_reads_stops_no_other() {
    let server = Server::start(2, &[]);
    let mut other = server.resp();
    let value = "v".repeat(100_000);
    assert_eq!(other.ask(&format!("SET big {value}")).to_string(), "+OK");
    let before = server.resident_bytes();
    let silent = server.resp();
    // 1,000 replies of 100 KB: far more than the buffers between the two hold.
    silent.wire.sender().write_all(&encoded(&["GET", "big"]).repeat(1000)).unwrap();
    for number in 1..=1000 {
        assert_eq!(other.ask("INCR n").integer(), number);
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "replies that are not read made the server grow by {grown} bytes");
    drop(silent);
    assert_eq!(other.ask("STRLEN big").integer(), 100_000);
}

#[test]
fn a_pipeline_of_commands_that_take_long_lets_others_in_between() {
    const COUNT: usize = 200;
    let server = Server::start(1, &[]);
    let mut other = server.resp();
    other.ask(&format!("SETBIT large {} 1", 8 * (8 << 20) - 1));
    let mut pipeline = TcpStream::connect((Ipv4Addr::LOCALHOST, server.resp_port)).unwrap();
    let count = encoded(&words("BITCOUNT large"));
    let mut answer = [0; 4];
    pipeline.write_all(&count).unwrap();
    pipeline.read_exact(&mut answer).unwrap(); // It is known to the server, which takes its requests from now on.
    pipeline.write_all(&count.repeat(COUNT)).unwrap();
    other.ask("GET nothing");
    // What has been answered by now.
    pipeline.set_nonblocking(true).unwrap();
    let mut answered = Vec::new();
    match pipeline.read_to_end(&mut answered) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        read => panic!("{read:?}"),
    }
    let answered = answered.iter().filter(|byte| **byte == b'\n').count();
    assert!(answered < COUNT / 2, "another client waited for {answered} of {COUNT}");
    pipeline.set_nonblocking(false).unwrap();
    let mut rest = vec![0; 4 * (COUNT - answered)];
    pipeline.read_exact(&mut rest).unwrap();
    assert_eq!(rest, b":1\r\n".repeat(COUNT - answered));
}
