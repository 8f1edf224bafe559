//! The admin port: metrics and health over HTTP, on a thread of its own.
//!
//! It asks no worker anything and none waits for it: what it tells are counters that all threads share, and what each
//! worker has [published](Shared::published). Its clients cost no more than its bounds allow: [`CONNECTIONS_MAX`]
//! connections, where a new one takes the place of one of the address that has most; one request each, of
//! [`REQUEST_BYTES_MAX`] at most, within [`CONNECTION_TIME_MAX`]; and answers that are made anew no more often than each
//! [`ANSWER_KEPT`]. So a scrape gets through whatever clients at other addresses do. The thread stands back behind the
//! workers.

mod exposition;
mod families;
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
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
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
use exposition::Format;
use status::Status;

/// The name of the thread. A defect in it costs an answer, and not the server.
pub(crate) const THREAD: &str = "kvlite-admin";

/// How many connections there are at most.
const CONNECTIONS_MAX: usize = 64;

/// Descriptors that the thread needs: its connections, one more that has just come, the listeners, and its own.
pub(crate) const FILES: u64 = CONNECTIONS_MAX as u64 + 1 + 4 + 4;

/// The longest head of a request; the body of one is not read.
const REQUEST_BYTES_MAX: usize = 16 << 10;

/// How long a connection lives: Prometheus gives a scrape as much.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);

/// How long an answer is kept for others that ask.
const ANSWER_KEPT: Duration = Duration::from_millis(200);

/// How long no connection is accepted after that has failed.
const ACCEPT_REST: Duration = Duration::from_millis(100);

const PATHS: &str = "\
/metrics  metrics, as OpenMetrics or in the text format of Prometheus
/livez    whether the process works: 503 where only a restart helps
/readyz   whether it serves: 503 while it loads, a disk fails or hangs, or it stops
/healthz  whether all is well: 503 while it is degraded or stops
";

/// Answers at these listening sockets from now on, until the process ends.
///
/// # Errors
/// [`Failure::Thread`], [`Failure::Admin`]
pub(crate) fn serve(listeners: Vec<OwnedFd>, shared: Arc<Shared>) -> Result<(), Failure> {
    if listeners.is_empty() {
        return Ok(());
    }
    let failed = |error| Failure::from_start(error, Failure::Admin);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let listeners = {
        let _entered = runtime.enter();
        listeners.into_iter().map(listener).collect::<std::io::Result<Vec<_>>>().map_err(failed)?
    };
    let work = move || {
        process::stand_back();
        let admin = Rc::new(Admin::new(shared));
        let local = LocalSet::new();
        for listener in listeners {
            local.spawn_local(accept(listener, admin.clone()));
        }
        runtime.block_on(local);
    };
    let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(work);
    thread.map(drop).map_err(failed)
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
    /// The page of each format.
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
        let mut kept = self.0.borrow_mut();
        match &*kept {
            Some((made, it)) if made.elapsed() < ANSWER_KEPT => it.clone(),
            _ => {
                let it = make();
                kept.insert((Instant::now(), it)).1.clone()
            }
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
    fn new(shared: Arc<Shared>) -> Admin {
        let started_s = wall_clock_us() as f64 / 1e6 - shared.started.elapsed().as_secs_f64();
        let connections = RefCell::default();
        Admin { shared, started_s, connections, pages: Default::default(), health: Kept::default() }
    }

    /// Serves a connection, in place of another where there are too many.
    fn welcome(self: Rc<Self>, socket: TcpStream, peer: IpAddr) {
        let (admin, has_asked) = (self.clone(), Rc::new(Cell::new(false)));
        let asks = has_asked.clone();
        let served = tokio::task::spawn_local(async move {
            let answer = service_fn(move |request| {
                asks.set(true);
                let answer = admin.answer(&request);
                async { Ok::<_, Infallible>(answer) }
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

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        type Judge = fn(Status) -> bool;
        let judge: Judge = match request.uri().path() {
            _ if !matches!(*request.method(), Method::GET | Method::HEAD) => {
                let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n");
                refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                return refused;
            }
            "/metrics" => return self.metrics(request),
            "/livez" => Status::is_alive,
            "/readyz" => Status::is_ready,
            "/healthz" => Status::is_well,
            _ => return text(StatusCode::NOT_FOUND, PATHS),
        };
        let (status, json) = self.health.get(|| {
            let (status, json) = status::tell(&self.shared);
            (status, json.into())
        });
        let code = if judge(status) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        response(code, "application/json", json)
    }

    fn metrics(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let accepted = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let format = Format::accepted(accepted);
        let page = self.pages[format as usize]
            .get(|| Bytes::from(families::page(&self.shared, self.started_s, format)));
        response(StatusCode::OK, format.content_type(), page)
    }
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
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
