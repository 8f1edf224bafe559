//! The admin port: metrics and health over HTTP, on a thread of its own.
//!
//! It asks no worker anything and none waits for it: what it tells are counters that all threads share, and what each
//! worker has [published](Shared::published). Its clients cost no more than its bounds allow: [`CONNECTIONS_MAX`]
//! connections, of which a new one replaces the oldest, so that a scrape gets through whatever others do; one
//! request each, of [`REQUEST_BYTES_MAX`] at most, within [`CONNECTION_TIME_MAX`]; and a page of metrics that is made
//! anew no more often than each [`PAGE_KEPT`].

mod exposition;
mod families;
mod status;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
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

/// How long a page of metrics is kept for others that ask.
const PAGE_KEPT: Duration = Duration::from_millis(200);

/// How long no connection is accepted after that has failed.
const ACCEPT_REST: Duration = Duration::from_millis(100);

const PATHS: &str = "\
/metrics  metrics, as OpenMetrics or in the text format of Prometheus
/livez    whether the process works: 503 where only a restart helps
/readyz   whether it serves: 503 while it loads, is degraded or stops
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
    connections: RefCell<VecDeque<AbortHandle>>,
    /// The last page of each format, and when it was made.
    pages: RefCell<[Option<(Instant, Bytes)>; Format::ALL.len()]>,
}

/// Accepts connections for ever.
async fn accept(listener: TcpListener, admin: Rc<Admin>) {
    loop {
        match listener.accept().await {
            Ok(accepted) => admin.clone().welcome(accepted),
            Err(_) => tokio::time::sleep(ACCEPT_REST).await, // Too many open files, mostly; it is tried again.
        }
    }
}

impl Admin {
    fn new(shared: Arc<Shared>) -> Admin {
        let started_s = wall_clock_us() as f64 / 1e6 - shared.started.elapsed().as_secs_f64();
        Admin { shared, started_s, connections: RefCell::default(), pages: RefCell::default() }
    }

    /// Serves a connection, in place of the oldest where there are too many.
    fn welcome(self: Rc<Self>, (socket, _): (TcpStream, SocketAddr)) {
        let admin = self.clone();
        let served = tokio::task::spawn_local(async move {
            let answer = service_fn(move |request| {
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
            connections.retain(|connection| !connection.is_finished());
        }
        if connections.len() >= CONNECTIONS_MAX
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        connections.push_back(served.abort_handle());
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
        let (status, json) = status::tell(&self.shared);
        let code = if judge(status) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        response(code, "application/json", json.into())
    }

    fn metrics(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let accepted = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let format = Format::accepted(accepted);
        let page = &mut self.pages.borrow_mut()[format as usize];
        let page = match page {
            Some((made, page)) if made.elapsed() < PAGE_KEPT => page.clone(),
            _ => {
                let made = Bytes::from(families::page(&self.shared, self.started_s, format));
                page.insert((Instant::now(), made)).1.clone()
            }
        };
        response(StatusCode::OK, format.content_type(), page)
    }
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
