//! Many connections: the limit, thousands that idle, requests that never end, the Unix socket.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::client::{Resp, Value, Wire, encoded, is_closed};
use crate::process::{DEADLINE, Server, within_deadline};

/// Opens a connection and asks `PING`; `None` when the server refuses to serve it.
fn served(server: &Server, port: u16) -> Option<Wire> {
    let mut wire = Wire::connect((Ipv4Addr::LOCALHOST, port).into(), &server.log);
    let _ = wire.try_send(b"PING\r\n");
    loop {
        match wire.try_line() {
            Ok(line) if line == b"+PONG" => return Some(wire),
            Ok(line) if line.starts_with(b"-") => return None,
            Ok(_) => {}
            Err(error) if is_closed(&error) => return None,
            Err(error) => wire.fail(&format!("no answer to PING: {error}")),
        }
    }
}

/// Opens a connection as soon as the server has a place for it.
fn served_eventually(server: &Server, port: u16) -> Wire {
    let mut wire = None;
    within_deadline(|| {
        wire = served(server, port);
        wire.is_some()
    });
    wire.unwrap_or_else(|| panic!("no connection is served within {DEADLINE:?}\n{}", server.log.tail()))
}

#[test]
fn connections_over_the_limit_are_refused_with_a_reason() {
    let server = Server::start(2, &["--max-connections", "10"]);
    let ports = [server.port, server.resp_port];
    // The connections that saw the server start may still be counted, hence "eventually".
    let mut clients: Vec<Wire> = (0..10).map(|index| served_eventually(&server, ports[index % 2])).collect();

    let refusals = ["-ERR connection limit reached\n", "-ERR max number of clients reached\r\n"];
    for _ in 0..3 {
        for (port, refusal) in ports.into_iter().zip(refusals) {
            let mut eleventh = Wire::connect((Ipv4Addr::LOCALHOST, port).into(), &server.log);
            assert_eq!(String::from_utf8_lossy(&eleventh.until_closed()), refusal, "port {port}");
        }
    }
    for client in &mut clients {
        client.send(b"PING\r\n");
        assert_eq!(client.line(), b"+PONG", "those within the limit are still served");
    }
    for port in ports {
        clients.pop();
        clients.push(served_eventually(&server, port));
    }
    assert!(served(&server, server.port).is_none(), "the limit still holds");

    // Refused ones that do not go away take no client's place.
    let address = (Ipv4Addr::LOCALHOST, server.port);
    let refused: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert!(served(&server, server.port).is_none());
    let connected = |client: &mut Wire| {
        client.send(b"INFO\r\n");
        String::from_utf8_lossy(&client.line()).into_owned()
    };
    let info = connected(&mut clients[8]);
    assert!(info.contains("connections=10 "), "{info}");
    drop(refused);
}

/// The value of an option.
fn option(server: &Server, name: &str) -> usize {
    let Value::Array(pair) = server.resp().ask(&format!("CONFIG GET {name}")) else {
        panic!("no option {name}");
    };
    pair[1].to_string().trim_matches('"').parse().unwrap()
}

#[test]
fn clients_leave_the_log_its_descriptors() {
    const FILES: usize = 256;
    let backups = tempfile::tempdir().unwrap();
    for mode in ["everysec", "no", "always"] {
        let server = Server::start_under(
            &["prlimit", &format!("--nofile={FILES}:{FILES}")],
            1,
            &[
                "--wal-segment-size",
                "64k",
                "--sync-mode",
                mode,
                "--backup-dir",
                backups.path().to_str().unwrap(),
            ],
        );
        let clients_max = option(&server, "maxclients");
        assert!((16..FILES - 64).contains(&clients_max), "{clients_max} clients of {FILES} descriptors");
        assert_eq!(option(&server, "max_connections"), clients_max);
        let told = format!("clients={clients_max} asked=10000 limit={FILES} ");
        assert!(server.log.text().contains(&told), "{}", server.log.tail());

        let mut busy = server.resp();
        let idle: Vec<Wire> =
            (1..clients_max).map(|_| served_eventually(&server, server.resp_port)).collect();
        // A storm of clients that are one too many, and that stay for as long as they are let.
        let refused: Vec<TcpStream> = (0..FILES)
            .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, server.resp_port)).unwrap())
            .collect();
        let value = "x".repeat(8000);
        busy.wire.send(&encoded(&["SET", "key", &value]).repeat(1000));
        for number in 0..1000 {
            assert_eq!(busy.read().to_string(), "+OK", "{mode}: SET {number}\n{}", server.log.tail());
        }
        assert_eq!(busy.ask("COMPACT").to_string(), "+OK", "{}", server.log.tail());
        assert!(busy.ask(&format!("BACKUP {mode}")).to_string().contains("keys"), "{}", server.log.tail());
        let health = busy.ask("HEALTH").to_string();
        assert!(health.contains("healthy"), "{health}\n{}", server.log.tail());
        let open = std::fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count();
        assert!(open < FILES, "{open} descriptors are open");
        for heard in ["writes are refused", "cannot accept", "no segment could be made"] {
            assert!(!server.log.text().contains(heard), "{mode}\n{}", server.log.tail());
        }
        drop((idle, refused));
    }
}

#[test]
fn no_limit_of_clients_is_what_the_descriptors_allow() {
    let server = Server::start_under(&["prlimit", "--nofile=300:300"], 2, &["--max-connections", "0"]);
    let clients_max = option(&server, "maxclients");
    assert!((16..300).contains(&clients_max), "{clients_max}");
    let told = format!("as the limit of open files allows clients={clients_max} limit=300");
    assert!(server.log.text().contains(&told), "{}", server.log.tail());
}

#[test]
fn every_refused_client_is_told_so_however_many_there_are() {
    let server = Server::start(2, &["--max-connections", "10"]);
    let served: Vec<Wire> = (0..10).map(|_| served_eventually(&server, server.resp_port)).collect();
    let address = (Ipv4Addr::LOCALHOST, server.resp_port).into();
    let refused: Vec<Wire> = (0..200).map(|_| Wire::connect(address, &server.log)).collect();
    for mut wire in refused {
        let told = String::from_utf8_lossy(&wire.until_closed()).into_owned();
        assert_eq!(told, "-ERR max number of clients reached\r\n");
    }
    drop(served);
    served_eventually(&server, server.resp_port);
}

#[test]
fn two_thousand_idle_connections_cost_little() {
    const IDLE_COUNT: usize = 2000;
    /// What one idle connection may cost in resident memory, sockets of the kernel not counted.
    const IDLE_BYTES_MAX: u64 = 32 << 10;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    assert!(
        limit.maximum.is_none_or(|max| max > 5000),
        "the hard limit of open files is {:?}",
        limit.maximum
    );

    let server = Server::start(2, &["--max-connections", "4096"]);
    let mut busy = server.resp();
    let before = server.resident_bytes();
    let idle: Vec<TcpStream> = (0..IDLE_COUNT)
        .map(|index| {
            let (port, greeted): (u16, &[u8]) = match index % 2 {
                0 => (server.port, b"+OK kvlite ready\n+PONG\n"),
                _ => (server.resp_port, b"+PONG\r\n"),
            };
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(b"PING\r\n").unwrap();
            let mut answer = vec![0; greeted.len()];
            stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("connection {index}: {error}"));
            assert_eq!(answer.escape_ascii().to_string(), greeted.escape_ascii().to_string());
            stream
        })
        .collect();
    for number in 1..=2000 {
        assert_eq!(busy.ask("INCR served").integer(), number);
    }
    let grown = server.resident_bytes().saturating_sub(before);
    let bound = IDLE_COUNT as u64 * IDLE_BYTES_MAX;
    assert!(grown < bound, "{IDLE_COUNT} idle connections cost {grown} bytes, more than {bound}");
    drop(idle);
    let info = || server.text().ask_one("INFO");
    assert!(
        within_deadline(|| ["=1 ", "=2 ", "=3 "]
            .iter()
            .any(|few| info().contains(&format!("connections{few}")))),
        "closed connections are still counted: {}",
        info()
    );
}

#[test]
fn half_requests_held_open_disturb_no_other_client() {
    let server = Server::start(2, &[]);
    let mut held: Vec<Wire> = (0..100)
        .map(|index| {
            if index % 2 == 0 {
                let mut wire = server.resp().wire;
                wire.send(format!("*3\r\n$3\r\nSET\r\n$6\r\nheld{index:02}\r\n$5\r\nval").as_bytes());
                wire
            } else {
                let mut wire = server.text().wire;
                wire.send(format!("SET held{index:02} val").as_bytes());
                wire
            }
        })
        .collect();
    let (mut resp, mut text) = (server.resp(), server.text());
    for number in 1..=500 {
        assert_eq!(resp.ask("INCR resp").integer(), number);
        assert_eq!(text.ask_one("INCR text"), number.to_string());
    }
    assert_eq!(resp.ask("DBSIZE").integer(), 2, "half a request has no effect");
    for (index, wire) in held.iter_mut().enumerate() {
        wire.send(if index % 2 == 0 { b"ue\r\n" } else { b"ue\n" });
        assert_eq!(wire.line(), b"+OK", "the other half completes it");
    }
    assert_eq!(resp.ask("MGET held00 held01 held99").to_string(), "[\"value\", \"value\", \"value\"]");
    assert_eq!(resp.ask("DBSIZE").integer(), 102);
}

#[test]
fn names_of_clients_are_short() {
    let server = Server::start(1, &[]);
    let mut client = server.resp();
    let (longest, longer) = ("n".repeat(1024), "n".repeat(1025));
    for command in ["CLIENT SETNAME", "CLIENT SETINFO lib-name", "HELLO 2 SETNAME"] {
        let refused = client.ask(&format!("{command} {longer}")).to_string();
        assert_eq!(
            refused, "-ERR the names of a client and of its library have 1024 bytes at most",
            "{command}"
        );
        assert!(!client.ask(&format!("{command} {longest}")).to_string().starts_with('-'), "{command}");
    }
}

#[test]
fn a_search_that_takes_minutes_does_not_hold_up_the_end() {
    let mut server = Server::start(2, &[]);
    let mut client = server.resp();
    for number in 0..20 {
        client.wire.send(&encoded(&["SET", &format!("{number}{}", "x".repeat(30_000)), ""]));
        assert_eq!(client.read().to_string(), "+OK");
    }
    let pattern = format!("*{}!", "\\x".repeat(14_000));
    client.wire.send(&[encoded(&["SET", "started", "1"]), encoded(&["KEYS", &pattern])].concat());
    assert!(within_deadline(|| server.resp().ask("GET started").to_string() == "\"1\""));
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
}

#[test]
fn resp_is_spoken_over_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kvlite.sock");
    let mut server = Server::start(2, &["--unix-socket", path.to_str().unwrap()]);
    assert!(within_deadline(|| path.exists()), "no socket at {}\n{}", path.display(), server.log.tail());
    let mut unix = Resp::connect_unix(&path, &server.log);
    assert_eq!(unix.ask("SET a \"over unix\"").to_string(), "+OK");
    assert_eq!(server.resp().ask("GET a").to_string(), "\"over unix\"");
    unix.wire.send(&encoded(&["INCR", "n"]).repeat(1000));
    for number in 1..=1000 {
        assert_eq!(unix.read().integer(), number);
    }
    assert_eq!(unix.ask("HELLO 3 SETNAME u").to_string().chars().next(), Some('%'));
    assert_eq!(server.terminate().code(), Some(0), "{}", server.log.tail());
    assert!(!path.exists(), "the socket file stays behind");

    // A file that a killed server left behind is no obstacle.
    server.restart(2);
    assert_eq!(Resp::connect_unix(&path, &server.log).ask("GET n").to_string(), "\"1000\"");
    server.kill9();
    server.restart(2);
    assert!(within_deadline(|| path.exists()));
    assert_eq!(Resp::connect_unix(&path, &server.log).ask("GET n").to_string(), "\"1000\"");
}
