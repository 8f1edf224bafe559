//! Clients that list, end, pause and watch each other over all workers, clients that want no replies or wait for what
//! does not come, and what is told of slow commands.

use std::time::{Duration, Instant};

use crate::client::{Resp, Value, encoded};
use crate::process::{Server, within_deadline};

/// The lines of a `CLIENT LIST`, each as the names and values of its fields.
fn listed(client: &mut Resp, request: &str) -> Vec<Vec<(String, String)>> {
    let list = String::from_utf8(client.ask(request).bytes().to_vec()).unwrap();
    let fields = |line: &str| {
        let fields = line.split(' ').map(|field| field.split_once('=').unwrap());
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    list.lines().map(fields).collect()
}

fn field<'a>(line: &'a [(String, String)], name: &str) -> &'a str {
    &line.iter().find(|(field, _)| field == name).unwrap_or_else(|| panic!("no {name} in {line:?}")).1
}

fn id(client: &mut Resp) -> i64 {
    client.ask("CLIENT ID").integer()
}

/// Whether the server has closed the connection of a client.
fn is_gone(client: &mut Resp) -> bool {
    client.wire.try_send(b"*1\r\n$4\r\nPING\r\n").is_err() || client.try_read().is_err()
}

/// Connections to all workers: each worker in turn gets one.
fn one_each(server: &Server, workers: usize) -> Vec<Resp> {
    (0..workers)
        .map(|_| {
            let mut client = server.resp();
            assert_eq!(client.ask("PING").to_string(), "+PONG");
            client
        })
        .collect()
}

#[test]
fn the_list_has_the_fields_of_redis_in_its_order() {
    let server = Server::start(2, &[]);
    let mut clients = one_each(&server, 4);
    let lines = listed(&mut clients[0], "CLIENT LIST");
    let ids: Vec<i64> = lines.iter().map(|line| field(line, "id").parse().unwrap()).collect();
    assert!(ids.len() == 4 && ids.is_sorted(), "{ids:?}");
    let names: Vec<&str> = lines[0].iter().map(|(name, _)| name.as_str()).collect();
    let of_redis = "id addr laddr fd name age idle flags db sub psub ssub multi qbuf qbuf-free argv-mem multi-mem rbs \
                    rbp obl oll omem tot-mem events cmd user redir resp";
    assert_eq!(names.join(" "), format!("{of_redis} lib-name lib-ver shard"));
    let shards: Vec<&str> = lines.iter().map(|line| field(line, "shard")).collect();
    assert!(shards.contains(&"0") && shards.contains(&"1"), "{shards:?}");
    for (line, client) in lines.iter().zip(&mut clients) {
        let address = client.wire.sender().local_addr().unwrap().to_string();
        assert_eq!((field(line, "addr"), field(line, "user")), (address.as_str(), "default"));
        assert_eq!(listed(client, "CLIENT INFO")[0][..3], line[..3]);
    }
    let wanted = format!("CLIENT LIST ID {} {} 999999", ids[3], ids[1]);
    let some = listed(&mut clients[0], &wanted);
    let some: Vec<&str> = some.iter().map(|line| field(line, "id")).collect();
    assert_eq!(some, [ids[1].to_string(), ids[3].to_string()]);
    assert_eq!(field(&listed(&mut clients[2], "CLIENT INFO")[0], "cmd"), "client|info");
}

#[test]
fn clients_of_all_workers_are_ended_by_what_they_are() {
    let server = Server::start(2, &[]);
    let mut clients = one_each(&server, 8);
    let mut victim = clients.pop().unwrap();
    let address = victim.wire.sender().local_addr().unwrap();
    assert_eq!(clients[0].ask(&format!("CLIENT KILL {address}")).to_string(), "+OK");
    assert!(is_gone(&mut victim));
    for victim in 5..7 {
        let id = id(&mut clients[victim]);
        let local = clients[0].wire.sender().peer_addr().unwrap();
        let answer = clients[0].ask(&format!("CLIENT KILL ID {id} LADDR {local}"));
        assert_eq!(answer.integer(), 1, "of worker {}", victim % 2);
        assert!(is_gone(&mut clients[victim]));
    }
    // The one that asks is left out, unless it says otherwise: then it gets its answer before it ends.
    assert_eq!(clients[0].ask("CLIENT KILL TYPE normal").integer(), 4);
    assert!(clients[1..5].iter_mut().all(is_gone));
    clients[0].wire.send(b"CLIENT KILL SKIPME no\r\nSET behind 1\r\n");
    assert_eq!(clients[0].read().integer(), 1);
    assert!(clients[0].try_read().is_err(), "nothing behind it is answered");
    assert_eq!(server.resp().ask("GET behind").to_string(), "nil");
}

#[test]
fn a_pause_holds_for_all_workers_and_what_waited_is_served_behind_it() {
    let server = Server::start(2, &[]);
    let mut clients = one_each(&server, 4);
    let mut asker = server.resp();
    assert_eq!(asker.ask("CLIENT PAUSE 60000 WRITE").to_string(), "+OK");
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.ask("GET a").to_string(), "nil", "reads go on");
        let [set, get] = [encoded(&["SET", &format!("k{number}"), "1"]), encoded(&["GET", "a"])];
        client.wire.send(&[set, get].concat());
    }
    let are_blocked = |asker: &mut Resp| {
        let lines = listed(asker, "CLIENT LIST");
        lines.iter().filter(|line| field(line, "flags") == "b").count() == 4
    };
    assert!(within_deadline(|| are_blocked(&mut asker)));
    assert_eq!(asker.ask("EXISTS k0 k1 k2 k3").integer(), 0);
    assert_eq!(asker.ask("CLIENT UNPAUSE").to_string(), "+OK");
    for client in &mut clients {
        assert_eq!([client.read().to_string(), client.read().to_string()], ["+OK", "nil"]);
    }
    // A shorter pause does not end a longer one, and each ends by itself.
    let begin = Instant::now();
    assert_eq!(asker.ask("CLIENT PAUSE 200 ALL").to_string(), "+OK");
    clients[1].wire.send(&encoded(&["PING"]));
    assert_eq!(clients[1].read().to_string(), "+PONG");
    assert!(begin.elapsed() >= Duration::from_millis(199), "{:?}", begin.elapsed());
}

#[test]
fn replies_that_are_not_wanted_do_not_come() {
    for shards in [1, 2] {
        let server = Server::start(shards, &[]);
        let mut client = server.resp();
        client.wire.send(b"SET a 1\r\nCLIENT REPLY OFF\r\nSET a 2\r\nMGET a b c d\r\nGET nope extra\r\nCLIENT REPLY ON\r\n");
        assert_eq!([client.read().to_string(), client.read().to_string()], ["+OK", "+OK"]);
        client.wire.send(b"CLIENT REPLY SKIP\r\nMSET b 1 c 1 d 1 e 1\r\nGET a\r\nGET e\r\n");
        assert_eq!([client.read().to_string(), client.read().to_string()], ["\"2\"", "\"1\""]);
        client.wire.send(b"CLIENT REPLY OFF\r\nCLIENT REPLY SKIP\r\nGET a\r\nRESET\r\n");
        assert_eq!(client.read().to_string(), "+RESET");
        assert_eq!(client.ask("GET a").to_string(), "\"2\"");
    }
}

#[test]
fn a_wait_for_replicas_ends_with_its_time_or_is_ended() {
    let mut server = Server::start(2, &[]);
    let mut clients = one_each(&server, 4);
    let begin = Instant::now();
    assert_eq!(clients[0].ask("WAIT 1 100").integer(), 0);
    assert!(begin.elapsed() >= Duration::from_millis(99), "{:?}", begin.elapsed());
    let mut asker = server.resp();
    for (number, reason) in [(1, ""), (2, " TIMEOUT"), (3, " ERROR")] {
        let client = &mut clients[number];
        let id = id(client);
        client.wire.send(b"WAIT 1 0\r\nPING\r\n");
        assert!(within_deadline(|| asker.ask(&format!("CLIENT UNBLOCK {id}{reason}")).integer() == 1));
        let expected = if number == 3 { "-UNBLOCKED client unblocked via CLIENT UNBLOCK" } else { "0" };
        assert_eq!(client.read().to_string(), expected);
        assert_eq!(client.read().to_string(), "+PONG");
    }
    // One that waits for ever does not keep the server from its end.
    clients[0].wire.send(b"WAIT 1 0\r\n");
    let waits =
        |asker: &mut Resp| listed(asker, "CLIENT LIST").iter().any(|line| field(line, "flags") == "b");
    assert!(within_deadline(|| waits(&mut asker)));
    let begin = Instant::now();
    assert!(server.terminate().success());
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[test]
fn a_monitor_is_shown_the_commands_of_all_workers() {
    let server = Server::start(2, &[]);
    let mut monitor = server.resp();
    assert_eq!(monitor.ask("MONITOR").to_string(), "+OK");
    let mut clients = one_each(&server, 4);
    (0..4).for_each(|_| assert!(monitor.read().to_string().ends_with("] \"PING\"")));
    for client in &mut clients {
        client.ask_bytes(&[&b"set"[..], b"a\n\"\\\x01", b"\xff"]);
        let shown = monitor.read().to_string();
        let address = client.wire.sender().local_addr().unwrap();
        let expected = format!(" [0 {address}] \"set\" \"a\\n\\\"\\\\\\x01\" \"\\xff\"");
        assert!(shown.starts_with('+') && shown.ends_with(&expected), "{shown}");
    }
    // Neither what those who run the server ask, nor what is refused; and no password.
    for request in [
        "CLIENT LIST",
        "CONFIG GET port",
        "NOPE",
        "GET",
        "AUTH default secret",
        "HELLO 2 AUTH default secret",
    ] {
        clients[0].ask(request);
    }
    assert!(monitor.read().to_string().ends_with("\"AUTH\" \"(redacted)\" \"(redacted)\""));
    assert!(monitor.read().to_string().ends_with("\"HELLO\" \"2\" \"AUTH\" \"(redacted)\" \"(redacted)\""));
    let flags = |asker: &mut Resp| {
        let lines = listed(asker, "CLIENT LIST");
        lines.iter().map(|line| field(line, "flags").to_owned()).collect::<Vec<_>>().concat()
    };
    assert_eq!(flags(&mut clients[1]), "ONNNN");
    assert_eq!(monitor.ask("RESET").to_string(), "+RESET");
    clients[0].ask("PING");
    assert_eq!(monitor.ask("GET a").to_string(), "nil", "it is one like all others again");
    // What is long is cut.
    assert_eq!(monitor.ask("MONITOR").to_string(), "+OK");
    clients[3].ask(&format!("SET a {}", "v".repeat(100_000)));
    let shown = monitor.read().to_string();
    assert!(shown.len() < 70_000 && shown.ends_with(" more bytes)"), "{}", &shown[shown.len() - 40..]);
}

#[test]
fn a_monitor_that_does_not_read_is_let_go() {
    let server = Server::start(2, &[]);
    let mut monitor = server.resp();
    assert_eq!(monitor.ask("MONITOR").to_string(), "+OK");
    let mut clients = one_each(&server, 2);
    let value = "v".repeat(60_000);
    let is_told = || {
        server.log.text().contains("clients are disconnected: there is more")
            || server.log.text().contains("it does not read what MONITOR shows")
    };
    assert!(within_deadline(|| {
        clients
            .iter_mut()
            .for_each(|client| assert_eq!(client.ask(&format!("SET a {value}")).to_string(), "+OK"));
        is_told()
    }));
    assert!(within_deadline(|| listed(&mut clients[0], "CLIENT LIST").len() == 2));
}

#[test]
fn a_client_may_end_the_server() {
    for request in ["SHUTDOWN", "SHUTDOWN NOSAVE NOW FORCE", "SHUTDOWN SAVE"] {
        let mut server = Server::start(2, &[]);
        let mut client = server.resp();
        assert_eq!(client.ask("MSET a 1 b 2 c 3").to_string(), "+OK");
        client.wire.send(format!("{request}\r\n").as_bytes());
        assert!(client.try_read().is_err(), "the end of the connection is the answer");
        assert!(server.wait().success());
        let log = server.log.text();
        assert!(
            log.contains("stopping, as a client asks") && log.contains("everything acknowledged is on disk"),
            "{log}"
        );
        server.restart(2);
        let kept = server.resp().ask("MGET a b c");
        assert_eq!(kept.items(), ["1", "2", "3"].map(Value::bulk));
    }
}

#[test]
fn debug_does_what_tests_need_where_it_is_allowed() {
    let server = Server::start(2, &["--enable-debug-command", "local"]);
    let mut client = server.resp();
    let begin = Instant::now();
    assert_eq!(client.ask("DEBUG SLEEP 0.2").to_string(), "+OK");
    assert!(begin.elapsed() >= Duration::from_millis(200));
    let asked = [
        ("DEBUG SLEEP soon", "+OK"),
        ("DEBUG SLEEP", "-ERR unknown subcommand or wrong number of arguments for 'SLEEP'. Try DEBUG HELP."),
        ("DEBUG nope", "-ERR unknown subcommand or wrong number of arguments for 'nope'. Try DEBUG HELP."),
        ("DEBUG ERROR \"MY text\"", "-MY text"),
        ("DEBUG STRINGMATCH-LEN 30 a*a?a", "1"),
        ("DEBUG STRINGMATCH-LEN 30 a*b", "0"),
        ("DEBUG RELOAD NOSAVE NOFLUSH", "+OK"),
        ("DEBUG RELOAD please", "-ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options."),
        ("DEBUG CHANGE-REPL-ID", "+OK"),
        ("DEBUG QUICKLIST-PACKED-THRESHOLD 100b", "+OK"),
        ("DEBUG LOADAOF", "+OK"),
        ("DEBUG PROTOCOL true", "1"),
        ("DEBUG PROTOCOL bignum", "\"1234567999999999999999999999999999999\""),
        ("DEBUG PROTOCOL push", "-ERR RESP2 is not supported by this command"),
    ];
    for (request, reply) in asked {
        assert_eq!(client.ask(request).to_string(), reply, "{request}");
    }
    // Expired keys stay, and are not seen, until they are asked for or the search goes on.
    assert_eq!(client.ask("DEBUG SET-ACTIVE-EXPIRE 0").to_string(), "+OK");
    assert_eq!(client.ask("SET a 1 PX 1").to_string(), "+OK");
    assert!(within_deadline(|| client.ask("TTL a").integer() == -2));
    assert_eq!(client.ask("SET b 1 PX 1").to_string(), "+OK");
    client.ask("DEBUG SLEEP 0.5");
    assert_eq!(client.ask("DBSIZE").integer(), 1);
    assert_eq!(client.ask("DEBUG SET-ACTIVE-EXPIRE 1").to_string(), "+OK");
    assert!(within_deadline(|| client.ask("DBSIZE").integer() == 0));
}

#[test]
fn slow_commands_of_all_workers_are_kept_and_events_told() {
    let of_debug = ["--enable-debug-command", "yes", "--latency-monitor-threshold", "150"];
    let of_slowlog = ["--slowlog-max-len", "3", "--slowlog-log-slower-than", "150000"];
    let server = Server::start(2, &[of_debug, of_slowlog].concat());
    let mut clients = one_each(&server, 4);
    for (number, client) in clients.iter_mut().enumerate() {
        client.ask(&format!("CLIENT SETNAME c{number}"));
        client.ask(&format!("DEBUG SLEEP 0.2{number}"));
    }
    assert_eq!(clients[0].ask("SLOWLOG LEN").integer(), 3);
    let slow = clients[1].ask("SLOWLOG GET 2");
    for (number, slow) in [3, 2].into_iter().zip(slow.items()) {
        let [id, at, took, words, peer, name] = slow.items() else { panic!("{slow}") };
        let address = clients[number].wire.sender().local_addr().unwrap().to_string();
        assert!(id.integer() >= number as i64, "{slow}");
        assert!(at.integer() > 1_600_000_000 && (200_000..5_000_000).contains(&took.integer()), "{slow}");
        assert_eq!(words.items(), ["DEBUG", "SLEEP", &format!("0.2{number}")].map(Value::bulk));
        assert_eq!((peer, name), (&Value::bulk(address), &Value::bulk(format!("c{number}"))));
    }
    assert_eq!(clients[0].ask("SLOWLOG RESET").to_string(), "+OK");
    assert_eq!(clients[1].ask("SLOWLOG LEN").integer(), 0);
    let latest = clients[1].ask("LATENCY LATEST");
    let [event] = latest.items() else { panic!("{latest}") };
    let [name, _, last_ms, max_ms] = event.items() else { panic!("{latest}") };
    assert_eq!(name, &Value::bulk("command"));
    assert!(last_ms.integer() >= 200 && max_ms.integer() >= last_ms.integer(), "{latest}");
    assert!(!clients[1].ask("LATENCY HISTORY command").items().is_empty());
    assert_eq!(clients[1].ask("LATENCY RESET fast-command").integer(), 0);
    assert_eq!(clients[1].ask("LATENCY RESET").integer(), 1);
    assert_eq!(clients[1].ask("LATENCY LATEST").items(), []);
}

#[test]
fn where_every_command_is_slow_every_command_is_kept_and_shortened() {
    let server = Server::start(1, &["--slowlog-log-slower-than", "0", "--slowlog-max-len", "1000"]);
    let mut client = server.resp();
    (0..100).for_each(|_| drop(client.ask("PING")));
    let slow = client.ask("SLOWLOG GET 100");
    assert!(slow.items().iter().all(|slow| slow.items()[3].items() == [Value::bulk("PING")]), "{slow}");
    let many: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
    client.ask(&format!("DEL {}", many.join(" ")));
    client.ask(&format!("SET a {}", "v".repeat(200)));
    let slow = client.ask("SLOWLOG GET 2");
    let words = |index: usize| slow.items()[index].items()[3].items().to_vec();
    assert_eq!(words(0)[2], Value::bulk(format!("{}... (72 more bytes)", "v".repeat(128))));
    assert_eq!((words(1).len(), words(1)[31].clone()), (32, Value::bulk("... (10 more arguments)")));
}

#[test]
fn what_is_slow_is_set_while_the_server_runs() {
    let server = Server::start(2, &[]);
    let mut client = server.resp();
    assert_eq!(client.ask("CONFIG SET slowlog-log-slower-than 0 slowlog-max-len 2").to_string(), "+OK");
    (0..20).for_each(|_| drop(client.ask("PING")));
    assert_eq!(client.ask("SLOWLOG LEN").integer(), 2);
    assert_eq!(client.ask("CONFIG SET slowlog-log-slower-than -1").to_string(), "+OK");
    assert_eq!(client.ask("SLOWLOG RESET").to_string(), "+OK");
    client.ask("PING");
    assert_eq!(client.ask("SLOWLOG LEN").integer(), 0);
}

#[test]
fn a_transaction_waits_for_the_end_of_a_pause_and_for_nothing_else() {
    let server = Server::start(2, &[]);
    let (mut client, mut asker) = (server.resp(), server.resp());
    client
        .wire
        .send(b"MULTI\r\nSET a 1\r\nWAIT 1 0\r\nWAITAOF 1 0 0\r\nCLIENT REPLY OFF\r\nMONITOR\r\nPING\r\n");
    (0..7).for_each(|_| drop(client.read()));
    assert_eq!(asker.ask("CLIENT PAUSE 60000 WRITE").to_string(), "+OK");
    client.wire.send(b"EXEC\r\n");
    let waits = |asker: &mut Resp| {
        let lines = listed(asker, "CLIENT LIST");
        lines.iter().any(|line| field(line, "flags") == "xb" && field(line, "multi") == "6")
    };
    assert!(within_deadline(|| waits(&mut asker)));
    assert_eq!(asker.ask("CLIENT UNPAUSE").to_string(), "+OK");
    let refused = "-ERR it has no place between MULTI and EXEC";
    assert_eq!(client.read().to_string(), format!("[+OK, 0, [0, 0], {refused}, {refused}, +PONG]"));
}

#[test]
fn a_list_of_clients_tells_of_tracking_and_of_what_is_queued() {
    let server = Server::start(2, &[]);
    let (mut client, mut asker) = (server.resp(), server.resp());
    let to = asker.ask("CLIENT ID").integer();
    assert_eq!(client.ask(&format!("CLIENT TRACKING ON BCAST REDIRECT {to}")).to_string(), "+OK");
    client.ask("MULTI");
    client.ask("SET a 1");
    let lines = listed(&mut asker, "CLIENT LIST");
    let line = lines.iter().find(|line| field(line, "multi") == "1").expect("the client that queues");
    assert_eq!((field(line, "flags"), field(line, "redir")), ("xtB", &*to.to_string()));
    assert_ne!(field(line, "multi-mem"), "0");
}
