//! The admin listener: what the gateway says of itself. It only reads the snapshot and the counters, and changes
//! nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::access::Log;
use crate::proxy::metrics;
use crate::registry::Stats;
use crate::server::listener::Listener;
use crate::snapshot::Current;

mod api;
mod prometheus;

/// How long to wait after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// How long a client may take for a request's head.
const HEADER_TIME: Duration = Duration::from_secs(30);

/// What can be told.
pub struct State {
    /// Where the snapshot is.
    pub current: Current,
    /// What the workers count.
    pub workers: Vec<Arc<metrics::Worker>>,
    /// What the registries count, by name.
    pub registries: Vec<(&'static str, Arc<Stats>)>,
    /// Where requests are taken.
    pub listeners: Vec<Arc<Listener>>,
    /// Some when the gateway takes no new connections any more.
    pub stop: watch::Receiver<Option<Duration>>,
    /// Where a line for each request goes, if it does.
    pub log: Option<Arc<Log>>,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, state: Arc<State>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection on the admin address, retrying");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let state = state.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&state, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "admin connection ended");
            }
        });
    }
}

fn answer(state: &State, request: &Request<Incoming>) -> Response<Text> {
    const TEXT: &str = "text/plain; charset=utf-8";
    const JSON: &str = "application/json";
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is served here\n".into());
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let snapshot = state.current.load();
    let ok = |content_type, body| respond(StatusCode::OK, content_type, body);
    match request.uri().path() {
        "/" => ok(TEXT, INDEX.into()),
        "/healthz" => ok(TEXT, "ok\n".into()),
        "/readyz" if state.stop.borrow().is_some() => {
            respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready: the gateway is stopping\n".into())
        }
        "/readyz" if snapshot.ready() => ok(TEXT, "ok\n".into()),
        "/readyz" => {
            respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready: a registry has not been read yet\n".into())
        }
        "/metrics" => ok(prometheus::CONTENT_TYPE, prometheus::text(state, &snapshot)),
        "/api/v1/services" => ok(JSON, api::services(&snapshot)),
        "/api/v1/routes" => ok(JSON, api::routes(&snapshot)),
        "/api/v1/plugins" => ok(JSON, api::plugins(&snapshot)),
        _ => respond(StatusCode::NOT_FOUND, TEXT, INDEX.into()),
    }
}

const INDEX: &str = "Moongate admin: /healthz /readyz /metrics /api/v1/services /api/v1/routes /api/v1/plugins\n";

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Text> {
    let mut response = Response::new(Text(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::SERVER, HeaderValue::from_static("moongate"));
    response
}

/// A body in one piece.
struct Text(Bytes);

impl http_body::Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.get_mut().0);
        std::task::Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.len() as u64)
    }
}
