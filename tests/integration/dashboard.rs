//! The page of the admin port: what it shows in each state of the server, hostile names, its password.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::admin_port::start;
use crate::http::{Answer, get, request, request_raw, value};
use crate::loading::{catch_loading, full_server};
use crate::process::{Server, free_port, run_to_end, within_deadline};

/// The first page of which this is true.
fn page_where(port: u16, what: &str, is: impl Fn(&str) -> bool) -> String {
    let mut page = String::new();
    let found = within_deadline(|| {
        page = get(port, "/").body;
        is(&page)
    });
    assert!(found, "{what} is never shown:\n{page}");
    page
}

/// A place that does not exist, whatever the page holds.
fn assert_is_no_element(page: &str, name: &str) {
    assert!(!page.contains(name), "{name} is not escaped:\n{page}");
}

#[test]
fn an_empty_server_says_what_will_be_seen_and_a_busy_one_shows_it() {
    let (server, port) = start(2, &[]);
    let page = page_where(port, "a worker's answer", |page| page.contains("No key is used at the moment."));
    for part in [
        "<title>kvlite</title>",
        "healthy",
        env!("CARGO_PKG_VERSION"),
        "2 shards",
        "There are no keys yet.",
        "kvlite bench",
    ] {
        assert!(page.contains(part), "{part} is missing:\n{page}");
    }
    let mut resp = server.resp();
    for n in 0..40 {
        resp.ask(&format!("SET user:{n}:profile {n}"));
    }
    for _ in 0..200 {
        resp.ask("GET user:7:profile");
    }
    let parts = [
        "<code>user:7:profile</code>",
        "<code>user:*</code>",
        "<code>GET</code>",
        "<caption>Commands</caption>",
    ];
    page_where(port, "a hot key with its class and its command", |page| {
        parts.iter().all(|part| page.contains(part)) && !page.contains("There are no keys yet.")
    });
    // Its own questions come from no client; those of the start may take a moment to go.
    let is_alone = within_deadline(|| {
        let clients = resp.ask("CLIENT LIST");
        let listed = String::from_utf8_lossy(clients.bytes()).lines().count();
        let counted = value(&get(port, "/metrics").body, "kvlite_clients_connected");
        (listed, counted) == (1, Some(1.0))
    });
    assert!(is_alone, "{}", resp.ask("CLIENT LIST"));
}

#[test]
fn every_plot_says_in_words_what_it_shows() {
    let (server, port) = start(1, &[]);
    let mut resp = server.resp();
    for n in 0..300 {
        resp.ask(&format!("SET key:{n} value"));
        for _ in 0..5 {
            resp.ask(&format!("GET key:{n}"));
        }
    }
    let page =
        page_where(port, "the plots of load and hit ratio", |page| page.matches("role=\"img\"").count() >= 2);
    for plot in page.split("role=\"img\" aria-label=\"").skip(1) {
        let (words, rest) = plot.split_once('"').unwrap();
        assert!(words.len() > 40 && words.contains(|c: char| c.is_ascii_digit()), "{words}");
        assert!(rest.contains("<svg"), "{rest}");
    }
}

#[test]
fn names_that_clients_make_up_are_shown_and_nothing_else() {
    let (server, port) = start(1, &[]);
    let mut resp = server.resp();
    let long = "long:".to_owned() + &"x".repeat(5000);
    let names: [&[u8]; 8] = [
        b"",
        b" ",
        b"<script>alert(1)</script>",
        b"\"><img src=x onerror=alert(1)>",
        b"'quoted'&amp;",
        b"line\nbreak\x1b[31m",
        b"invalid\xff\xfe",
        long.as_bytes(),
    ];
    for name in names {
        for _ in 0..20 {
            resp.ask_bytes(&[b"SET", name, b"value"]);
        }
    }
    let page = page_where(port, "the last name", |page| page.contains("<code title=\"long:xxxx"));
    for part in [
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "&quot;&gt;&lt;img src=x onerror=alert(1)&gt;",
        "'quoted'&amp;amp;",
        "line\\nbreak\\u{1b}[31m",
        "invalid\\xff\\xfe",
        "<code>(empty)</code>",
        "<code>&quot; &quot;</code>",
    ] {
        assert!(page.contains(part), "{part} is missing:\n{page}");
    }
    assert_is_no_element(&page, "<script>alert");
    assert_is_no_element(&page, "<img");
    assert!(!page.contains(&"x".repeat(1200)), "a name of 5,000 bytes is shown as a whole");
    assert!(page.len() < 100_000, "{}", page.len());
}

#[test]
fn the_page_may_load_nothing_from_elsewhere() {
    let (_server, port) = start(1, &[]);
    for path in ["/", "/figures", "/dashboard.css", "/dashboard.js", "/icon.svg"] {
        let Answer { code, head, body } = get(port, path);
        assert_eq!(code, 200, "{path}");
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(head.contains(header), "{path}: {header} is missing: {head}");
        }
        let elsewhere = body.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("://"), "{path} names another place: {elsewhere}");
    }
    assert!(get(port, "/figures").body.starts_with("<header"));
    let head = request(port, "HEAD", "/", "").unwrap();
    assert_eq!((head.code, &*head.body), (200, ""));
    assert_eq!(request(port, "POST", "/", "").unwrap().code, 405);
    assert!(get(port, "/nothing").body.contains("a page to look at"));
}

#[test]
fn without_analytics_it_says_how_to_turn_them_on() {
    let (_server, port) = start(1, &["--enable-analytics=false"]);
    let page = get(port, "/").body;
    assert!(page.contains("Analytics are off.") && page.contains("--enable-analytics"), "{page}");
    assert!(!page.contains("Hottest keys"), "{page}");
}

#[test]
fn a_server_that_loads_shows_how_far_it_is() {
    let mut server = full_server(1);
    let port = free_port();
    server.set_flag("--admin-port", &port.to_string());
    let page = catch_loading(&mut server, 1, |_, mut text| {
        let page = get(port, "/").body;
        text.ask_one("HEALTH").contains("\"status\":\"loading\"").then_some(page)
    });
    assert!(page.contains("The data is being read back.") && page.contains("<progress"), "{page}");
    assert!(!page.contains("Hottest keys"), "{page}");
    server.wait_until_loaded().unwrap();
    page_where(port, "the loaded data", |page| {
        page.contains("healthy") && page.contains("<strong>200k</strong>")
    });
}

#[test]
fn a_server_that_refuses_writes_says_why_on_top() {
    const SEGMENT_BYTES: u64 = 1 << 20;
    let (server, port) = start(1, &["--wal-segment-size", &SEGMENT_BYTES.to_string()]);
    let process = Pid::from_raw(i32::try_from(server.id()).unwrap());
    prlimit(process, Resource::Fsize, Rlimit { current: Some(SEGMENT_BYTES - 1), maximum: None }).unwrap();
    let (mut resp, value) = (server.resp(), "v".repeat(10_000));
    // Until the disk is full for good: a segment may have been made ready before.
    let mut key = 0;
    let mut page = String::new();
    let is_told = within_deadline(|| {
        for _ in 0..50 {
            key += 1;
            resp.ask(&format!("SET key:{key} {value}"));
        }
        page = get(port, "/").body;
        page.contains("Not everything is served.") && page.contains("<dd>refused</dd>")
    });
    assert!(is_told, "the reason is never shown:\n{page}");
    let (banner, rest) = page.split_once("<dl class=\"tiles\">").unwrap();
    assert!(banner.contains("degraded") && banner.contains("shard 0: cannot allocate "), "{banner}");
    for part in ["Writes are refused on 1 of 1 shard:", "; raise the limit of the size of files (ulimit -f"] {
        assert!(banner.contains(part), "{part} is missing: {banner}");
    }
    assert!(rest.contains("<dd>refused</dd>"), "{rest}");
}

#[test]
fn a_password_guards_what_holds_data_and_not_the_probes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "open sésame\n").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let (server, port) = start(1, &["--admin-password-file", file.to_str().unwrap()]);
    for path in ["/", "/figures", "/metrics"] {
        let refused = get(port, path);
        assert_eq!(refused.code, 401, "{path}");
        assert!(refused.head.contains("www-authenticate: basic realm=\"kvlite\""), "{}", refused.head);
        // admin:wrong, admin:open sésame, other:open sésame
        for (encoded, code) in
            [("YWRtaW46d3Jvbmc=", 401), ("YWRtaW46b3BlbiBzw6lzYW1l", 200), ("b3RoZXI6b3BlbiBzw6lzYW1l", 401)]
        {
            let given = request(port, "GET", path, &format!("Authorization: Basic {encoded}\r\n")).unwrap();
            assert_eq!(given.code, code, "{path} {encoded}");
        }
    }
    for path in ["/livez", "/readyz", "/healthz", "/dashboard.css", "/dashboard.js"] {
        assert_eq!(get(port, path).code, 200, "{path}");
    }
    assert!(
        server.log.text().contains("every user of this machine can read the password"),
        "{}",
        server.log.tail()
    );
    assert!(!server.log.text().contains("sésame"), "{}", server.log.text());
    let options = server.text().ask("CONFIG GET *").join("\n");
    assert!(!options.contains("sésame"), "{options}");
}

#[test]
fn a_name_that_anybody_can_give_the_server_gets_no_page() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "secret").unwrap();
    let code = |port: u16, path: &str, headers: &str| {
        let asked = request_raw(port, &format!("GET {path} HTTP/1.0\r\n{headers}\r\n")).unwrap();
        assert!(asked.code != 421 || asked.body.contains("--admin-password-file"), "{}", asked.body);
        asked.code
    };
    let (_server, port) = start(1, &["--admin-host", "localhost"]);
    for path in ["/", "/figures"] {
        for own in ["", "Host: 127.0.0.1:9121\r\n", "Host: [::1]\r\n", "Host: a.localhost:1\r\n"] {
            assert_eq!(code(port, path, own), 200, "{path} {own}");
        }
        for strange in ["Host: evil.example:9121\r\n", "Host: localhost\r\nHost: evil.example\r\n"] {
            assert_eq!(code(port, path, strange), 421, "{path} {strange}");
        }
    }
    for path in ["/metrics", "/livez", "/readyz", "/healthz"] {
        assert_eq!(code(port, path, "Host: kvlite.example:9121\r\n"), 200, "{path}");
    }
    let (_server, port) = start(1, &["--admin-password-file", file.to_str().unwrap()]);
    let with = "Host: kvlite.example\r\nAuthorization: Basic YWRtaW46c2VjcmV0\r\n"; // admin:secret
    assert_eq!(code(port, "/", with), 200);
    assert_eq!(code(port, "/", "Host: kvlite.example\r\n"), 401);
}

#[test]
fn a_password_that_cannot_be_read_is_no_password_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    let told = |expected: &str| {
        let mut command: Command = Server::stopped(None, &[]).rival();
        command.args(["--admin-port", &free_port().to_string(), "--admin-password-file"]).arg(&file);
        let ended = run_to_end(command);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.output.contains(expected), "{ended:?}");
    };
    told("cannot read --admin-password-file");
    std::fs::write(&file, "\n").unwrap();
    told("is empty; write the password into it");
}

#[test]
fn many_who_look_at_once_are_all_answered_and_do_not_keep_the_server_from_its_end() {
    let (mut server, port) = start(2, &[]);
    page_where(port, "a worker's answer", |page| page.contains("No key is used at the moment."));
    let looking: Vec<_> = (0..20).map(|_| thread::spawn(move || get(port, "/figures").code)).collect();
    assert!(looking.into_iter().all(|it| it.join().unwrap() == 200));
    server.signal(Signal::TERM);
    assert!(server.wait().success(), "{}", server.log.tail());
}
