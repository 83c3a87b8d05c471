//! The status page: a small HTTP server that tells how the broker is doing (`metrics_listen`, off by default).
//!
//! `/` is a page without outside assets, `/status.json` what it shows, `/metrics` the same for Prometheus. Every connection
//! is one request and lives no longer than [`CONNECTION_TIME`]; there are at most [`CONNECTIONS_MAX`] at one time. What is
//! answered is looked up at most once in [`FRESH`], however many ask. It changes nothing and knows no secrets.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use self::snapshot::Snapshot;
use crate::node::Node;

mod process;
mod prometheus;
mod snapshot;

/// Connections at one time; further ones are closed at once.
const CONNECTIONS_MAX: usize = 32;
/// How long a connection may take, for its request and its answer together.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// How long what was looked up is good.
const FRESH: Duration = Duration::from_millis(500);
/// The rest after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes and fields of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEAD_FIELDS_MAX: usize = 64;

const PAGE: &str = include_str!("status/page.html");
/// The page runs its own script and asks its own server, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Serves until it is dropped.
pub(crate) async fn run(listener: TcpListener, node: Arc<Node>) {
    let status = Arc::new(Status {
        node,
        started: Instant::now(),
        last: Mutex::new(None),
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the status page takes no connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let status = status.clone();
        connections.spawn(async move {
            let _place = place;
            // Whoever asks sees that there was no answer.
            let _ = timeout(CONNECTION_TIME, serve(stream, status)).await;
        });
    }
}

async fn serve(stream: TcpStream, status: Arc<Status>) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let status = status.clone();
        async move {
            let (method, path) = (request.method(), request.uri().path());
            Ok::<_, Infallible>(status.answer(method, path).await)
        }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEAD_FIELDS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a request for the status page failed");
    }
}

struct Status {
    node: Arc<Node>,
    started: Instant,
    last: Mutex<Option<(Instant, Arc<Snapshot>)>>,
}

impl Status {
    async fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
        }
        match path {
            "/" => answer(StatusCode::OK, "text/html; charset=utf-8", PAGE),
            "/status.json" => match serde_json::to_string(&*self.snapshot().await) {
                Ok(json) => answer(StatusCode::OK, "application/json", json),
                Err(error) => answer(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    TEXT,
                    format!("{error}\n"),
                ),
            },
            "/metrics" => {
                let text = prometheus::render(&*self.snapshot().await);
                answer(StatusCode::OK, prometheus::CONTENT_TYPE, text)
            }
            _ => answer(
                StatusCode::NOT_FOUND,
                TEXT,
                "there are /, /status.json and /metrics\n",
            ),
        }
    }

    async fn snapshot(&self) -> Arc<Snapshot> {
        // Held while it looks: who comes meanwhile gets the same.
        let mut last = self.last.lock().await;
        if let Some((at, snapshot)) = &*last
            && at.elapsed() < FRESH
        {
            return snapshot.clone();
        }
        let uptime_s = self.started.elapsed().as_secs_f64();
        let snapshot = Arc::new(Snapshot::of(&self.node, uptime_s).await);
        *last = Some((Instant::now(), snapshot.clone()));
        snapshot
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
