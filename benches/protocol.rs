//! Both protocols without a socket: bytes to requests, replies to bytes.
//!
//! Parsing includes the look-up of the command and a pass over the arguments; rendering goes into a buffer
//! that has its size already.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kvlite::protocol::{Dialect, Listener, Parsed, Parser, write_reply};
use shard::{Reply, command};

const PIPELINE_DEPTH: usize = 16;

/// The values of the requests: 64 bytes.
const VALUE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn resp(words: &[&str]) -> String {
    let elements = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), elements.collect::<String>())
}

fn text(words: &[&str]) -> String {
    words.join(" ") + "\n"
}

/// Parses all of `input`; the number of requests.
fn parse(parser: &mut Parser, mut input: &[u8]) -> usize {
    let mut count = 0;
    while !input.is_empty() {
        let Ok(Parsed::Request { consumed }) = parser.parse(input) else {
            panic!("the input consists of whole requests");
        };
        let command = parser.command().expect("a command of the table");
        for arg in parser.request(input, command).args() {
            black_box(arg);
        }
        input = &input[consumed..];
        count += 1;
    }
    count
}

fn parsing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let (get, set) = (["GET", "key:00000042"], ["SET", "key:00000042", VALUE]);
    type Encode = fn(&[&str]) -> String;
    let protocols: [(&str, Listener, Encode); 2] =
        [("RESP", Listener::Resp, resp), ("text", Listener::Text { resp_port: None }, text)];
    for (protocol, listener, encode) in protocols {
        for (name, input, request_count) in [
            ("GET", encode(&get), 1),
            ("SET of 64 B", encode(&set), 1),
            ("16 GETs", encode(&get).repeat(PIPELINE_DEPTH), PIPELINE_DEPTH),
            ("16 SETs of 64 B", encode(&set).repeat(PIPELINE_DEPTH), PIPELINE_DEPTH),
        ] {
            let mut parser = Parser::new(listener);
            group.throughput(Throughput::Elements(request_count as u64));
            group.bench_function(format!("{protocol} {name}"), |bencher| {
                bencher.iter(|| {
                    let parsed_count = parse(&mut parser, black_box(input.as_bytes()));
                    assert_eq!(parsed_count, request_count);
                });
            });
        }
    }
    group.finish();
}

fn rendering(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("render");
    let get = command::find(b"GET");
    let long = "v".repeat(4 << 10);
    for (protocol, dialect) in [("RESP2", Dialect::Resp2), ("text", Dialect::Text)] {
        for (name, reply) in [
            ("bulk of 64 B", Reply::bytes(VALUE.as_bytes())),
            ("bulk of 4 KiB", Reply::bytes(long.as_bytes())),
            ("integer", Reply::Integer(1_234_567)),
            ("array of 16 bulks", Reply::Array(vec![Reply::bytes(VALUE.as_bytes()); 16])),
        ] {
            let mut out = Vec::new();
            group.bench_function(format!("{protocol} {name}"), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    write_reply(black_box(&reply), get, 1, dialect, &mut out);
                    black_box(&out);
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = parsing, rendering
}
criterion_main!(benches);
