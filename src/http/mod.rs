//! The admin port: a page, metrics and health over HTTP, on a thread of its own.
//!
//! Metrics and health ask no worker anything: what they tell are counters that all threads share, and what each worker
//! has [published](Shared::published). The page asks a worker as a client does, while a browser shows it, and comes without
//! the answer where that takes long. No worker waits for any of it. Its clients cost no more than its bounds allow:
//! [`CONNECTIONS_MAX`] connections, where a new one takes the place of one of the address that has most; one request each, of
//! [`REQUEST_BYTES_MAX`] at most, within [`CONNECTION_TIME_MAX`]; and answers that are made anew no more often than each
//! [`ANSWER_KEPT`]. So a scrape gets through whatever clients at other addresses do. The thread stands back behind the
//! workers.

mod dashboard;
mod exposition;
mod families;
mod history;
mod observer;
mod page;
pub(crate) mod password;
mod plots;
mod status;

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::convert::Infallible;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue,
    REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, LocalSet};

use crate::clock::wall_clock_us;
use crate::failure::Failure;
use crate::process;
use crate::shared::Shared;
use dashboard::{Dashboard, Links};
use exposition::Format;
use password::Password;
use status::Status;

/// The name of the thread. A defect in it costs an answer, and not the server.
pub(crate) const THREAD: &str = "kvlite-admin";

/// How many connections there are at most.
const CONNECTIONS_MAX: usize = 64;

/// Descriptors that the thread needs: its connections, one more that has just come, the listeners, its own, and those
/// by which it asks a worker.
pub(crate) const FILES: u64 = CONNECTIONS_MAX as u64 + 1 + 4 + 4 + 4;

/// The longest head of a request; the body of one is not read.
const REQUEST_BYTES_MAX: usize = 16 << 10;

/// How long a connection lives: Prometheus gives a scrape as much.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);

/// How long an answer is kept for others that ask.
const ANSWER_KEPT: Duration = Duration::from_millis(200);

/// How long no connection is accepted after that has failed.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What the page may do: load from this port what belongs to it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Why a page is refused under a name that anybody can give the address of this port. Without that a page from elsewhere
/// could have its own name mean this port, and read the names of keys as its own: DNS rebinding.
const STRANGE_NAME: &str = "ask for this page by an IP address, as localhost, or by the name that --admin-host has; \
    any other name is answered where --admin-password-file is given\n";

const HTML: &str = "text/html; charset=utf-8";

/// The parts of the page that never change, and hold no data: their paths, types and contents.
const PARTS: [(&str, &str, &str); 3] = [
    ("/dashboard.css", "text/css; charset=utf-8", include_str!("dashboard.css")),
    ("/dashboard.js", "text/javascript; charset=utf-8", include_str!("dashboard.js")),
    ("/icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

const PATHS: &str = "\
/         a page to look at
/metrics  metrics, as OpenMetrics or in the text format of Prometheus
/livez    whether the process works: 503 where only a restart helps
/readyz   whether it serves: 503 while it loads, a disk fails or hangs, or it stops
/healthz  whether all is well: 503 while it is degraded or stops
";

/// Answers at these listening sockets from now on, until the process ends.
///
/// Returns connections for a worker to serve, by which the page asks it.
///
/// # Errors
/// [`Failure::Thread`], [`Failure::Admin`]
pub(crate) fn serve(
    listeners: Vec<OwnedFd>,
    shared: Arc<Shared>,
    password: Option<Password>,
) -> Result<Vec<OwnedFd>, Failure> {
    if listeners.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |error| Failure::from_start(error, Failure::Admin);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name(THREAD)
        .max_blocking_threads(dashboard::ASKING)
        .build()
        .map_err(failed)?;
    let (links, insiders) = Links::new().map_err(failed)?;
    let listeners = {
        let _entered = runtime.enter();
        listeners.into_iter().map(listener).collect::<std::io::Result<Vec<_>>>().map_err(failed)?
    };
    let work = move || {
        process::stand_back();
        let admin = Rc::new(Admin::new(shared, links, password));
        let local = LocalSet::new();
        let noting = admin.clone();
        local.spawn_local(async move { noting.dashboard.note_load().await });
        for listener in listeners {
            local.spawn_local(accept(listener, admin.clone()));
        }
        runtime.block_on(local);
    };
    let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(work);
    thread.map(|_| insiders).map_err(failed)
}

fn listener(socket: OwnedFd) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// What all connections share.
struct Admin {
    shared: Arc<Shared>,
    /// The Unix time of the start, in seconds.
    started_s: f64,
    /// The connections, the oldest first; some may have ended.
    connections: RefCell<Vec<Connection>>,
    /// What the paths with data ask for.
    password: Option<Password>,
    dashboard: Dashboard,
    /// What the page shows, whole and in part.
    shown: [Awaited<Bytes>; 2],
    /// The metrics in each format.
    pages: [Kept<Bytes>; Format::ALL.len()],
    /// How the server is, and the same as JSON.
    health: Kept<(Status, Bytes)>,
}

/// A connection.
struct Connection {
    /// Where it comes from.
    peer: IpAddr,
    /// A whole request has come.
    has_asked: Rc<Cell<bool>>,
    task: AbortHandle,
}

/// Something that is made anew no more often than each [`ANSWER_KEPT`], with when that was.
struct Kept<T>(RefCell<Option<(Instant, T)>>);

impl<T> Default for Kept<T> {
    fn default() -> Kept<T> {
        Kept(RefCell::new(None))
    }
}

impl<T: Clone> Kept<T> {
    fn get(&self, make: impl FnOnce() -> T) -> T {
        self.kept().unwrap_or_else(|| self.keep(make()))
    }

    /// What was kept, unless that is too old.
    fn kept(&self) -> Option<T> {
        let kept = self.0.borrow();
        kept.as_ref().filter(|(made, _)| made.elapsed() < ANSWER_KEPT).map(|(_, it)| it.clone())
    }

    fn keep(&self, it: T) -> T {
        self.0.borrow_mut().insert((Instant::now(), it)).1.clone()
    }
}

/// The same of what takes a while to make: it is made once for all that wait for it.
struct Awaited<T> {
    kept: Kept<T>,
    making: tokio::sync::Mutex<()>,
}

impl<T> Default for Awaited<T> {
    fn default() -> Awaited<T> {
        Awaited { kept: Kept::default(), making: tokio::sync::Mutex::default() }
    }
}

impl<T: Clone> Awaited<T> {
    async fn get(&self, make: impl AsyncFnOnce() -> T) -> T {
        let _alone = self.making.lock().await;
        match self.kept.kept() {
            Some(it) => it,
            None => self.kept.keep(make().await),
        }
    }
}

/// Accepts connections for ever.
async fn accept(listener: TcpListener, admin: Rc<Admin>) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                admin.clone().welcome(socket, peer.ip().to_canonical());
                // Those that are there already go on first, with what has come from them.
                tokio::task::yield_now().await;
            }
            Err(_) => tokio::time::sleep(ACCEPT_REST).await, // Too many open files, mostly; it is tried again.
        }
    }
}

impl Admin {
    fn new(shared: Arc<Shared>, links: Links, password: Option<Password>) -> Admin {
        let started_s = wall_clock_us() as f64 / 1e6 - shared.started.elapsed().as_secs_f64();
        Admin {
            dashboard: Dashboard::new(shared.clone(), links),
            shared,
            started_s,
            password,
            connections: RefCell::default(),
            shown: Default::default(),
            pages: Default::default(),
            health: Kept::default(),
        }
    }

    /// Serves a connection, in place of another where there are too many.
    fn welcome(self: Rc<Self>, socket: TcpStream, peer: IpAddr) {
        let (admin, has_asked) = (self.clone(), Rc::new(Cell::new(false)));
        let asks = has_asked.clone();
        let served = tokio::task::spawn_local(async move {
            let answer = service_fn(move |request| {
                asks.set(true);
                let admin = admin.clone();
                async move { Ok::<_, Infallible>(admin.answer(&request).await) }
            });
            let connection = http1::Builder::new()
                .keep_alive(false)
                .max_buf_size(REQUEST_BYTES_MAX)
                .serve_connection(TokioIo::new(socket), answer);
            // Whether it ends by itself, with an error or for want of time: there is nothing to be done about it.
            let _ = tokio::time::timeout(CONNECTION_TIME_MAX, connection).await;
        });
        let mut connections = self.connections.borrow_mut();
        if connections.len() >= CONNECTIONS_MAX {
            connections.retain(|connection| !connection.task.is_finished());
        }
        if connections.len() >= CONNECTIONS_MAX {
            let at = replaceable(&connections);
            connections.remove(at).task.abort();
        }
        connections.push(Connection { peer, has_asked, task: served.abort_handle() });
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        type Judge = fn(Status) -> bool;
        let path = request.uri().path();
        let judge: Judge = match path {
            _ if !matches!(*request.method(), Method::GET | Method::HEAD) => {
                let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n");
                refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                return refused;
            }
            "/" | "/figures" | "/metrics" if !self.is_let_in(request) => {
                let mut refused =
                    text(StatusCode::UNAUTHORIZED, "the user is admin, and the password is needed\n");
                let asks = HeaderValue::from_static("Basic realm=\"kvlite\", charset=\"UTF-8\"");
                refused.headers_mut().insert(WWW_AUTHENTICATE, asks);
                return refused;
            }
            "/" | "/figures" if self.password.is_none() && !self.is_named_well(request) => {
                return text(StatusCode::MISDIRECTED_REQUEST, STRANGE_NAME);
            }
            "/" | "/figures" => return self.page(path == "/").await,
            "/metrics" => return self.metrics(request),
            "/livez" => Status::is_alive,
            "/readyz" => Status::is_ready,
            "/healthz" => Status::is_well,
            _ => {
                let part = PARTS.iter().find(|part| part.0 == path);
                return part.map_or_else(
                    || text(StatusCode::NOT_FOUND, PATHS),
                    |(_, of_type, part)| {
                        response(StatusCode::OK, of_type, Bytes::from_static(part.as_bytes()))
                    },
                );
            }
        };
        let (status, json) = self.health.get(|| {
            let (status, json) = status::tell(&self.shared);
            (status, json.into())
        });
        let code = if judge(status) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        response(code, "application/json", json)
    }

    fn is_let_in(&self, request: &Request<Incoming>) -> bool {
        let given = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        self.password.as_ref().is_none_or(|password| password.is_given(given))
    }

    /// Whether all names under which the server is asked are its own. None comes from what is no browser.
    fn is_named_well(&self, request: &Request<Incoming>) -> bool {
        let config = &self.shared.config;
        let own = [config.admin_host(), &config.host];
        let names = request.headers().get_all(HOST).iter().map(HeaderValue::as_bytes);
        names.into_iter().all(|name| is_own_name(name, &own))
    }

    async fn page(&self, is_whole: bool) -> Response<Full<Bytes>> {
        let shown = &self.shown[usize::from(is_whole)];
        let page = shown.get(async || self.dashboard.show(is_whole).await.into()).await;
        response(StatusCode::OK, HTML, page)
    }

    fn metrics(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let accepted = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let format = Format::accepted(accepted);
        let page = self.pages[format as usize]
            .get(|| Bytes::from(families::page(&self.shared, self.started_s, format)));
        response(StatusCode::OK, format.content_type(), page)
    }
}

/// Whether a header `Host` names this machine in a way that no DNS server decides, or by one of its own names.
fn is_own_name(host: &[u8], own: &[&str]) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    address.parse::<IpAddr>().is_ok()
        || host == "localhost"
        || host.ends_with(".localhost")
        || own.iter().any(|own| own.eq_ignore_ascii_case(&host))
}

/// Which of these connections makes room for another one: of those of the address that has most, one that has not asked
/// for anything, if there is any, and the oldest.
fn replaceable(connections: &[Connection]) -> usize {
    let count = |peer: IpAddr| connections.iter().filter(|other| other.peer == peer).count();
    let places = connections.iter().enumerate();
    let first = places.min_by_key(|(_, it)| (Reverse(count(it.peer)), it.has_asked.get()));
    first.expect("there are connections").0
}

fn text(code: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(code, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn response(code: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_made_once_for_all_that_wait_for_it() {
        let (page, made) = (Rc::new(Awaited::default()), Rc::new(Cell::new(0)));
        let local = LocalSet::new();
        for _ in 0..20 {
            let (page, made) = (page.clone(), made.clone());
            local.spawn_local(async move {
                let got = page.get(async || {
                    made.set(made.get() + 1);
                    tokio::task::yield_now().await;
                    made.get()
                });
                assert_eq!(got.await, 1);
            });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(local);
        assert_eq!(made.get(), 1);
    }

    #[test]
    fn only_names_that_mean_this_machine_are_its_own() {
        let is_own = |host: &str| is_own_name(host.as_bytes(), &["cache.example", "0.0.0.0"]);
        for own in [
            "127.0.0.1:9121",
            "10.0.0.7",
            "[::1]:9121",
            "[fd00::7]",
            "localhost",
            "LocalHost:9121",
            "localhost.:9121",
            "kvlite.localhost",
            "Cache.Example:9121",
        ] {
            assert!(is_own(own), "{own}");
        }
        for strange in [
            "",
            "evil.example",
            "evil.example:9121",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evillocalhost",
            "localhost@evil.example",
            "not.cache.example",
            "a b",
            "localhost/evil",
        ] {
            assert!(!is_own(strange), "{strange}");
        }
    }
}
