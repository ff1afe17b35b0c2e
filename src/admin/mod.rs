//! The admin listener: what the gateway says of itself. It only reads the snapshot and the counters, and changes
//! nothing but the level of the log. Who may ask is in [`guard`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};

use crate::access::Log;
use crate::config::Secret;
use crate::events::Events;
use crate::fleet::plugins::Status;
use crate::plugin::Engine;
use crate::proxy::metrics;
use crate::registry::Stats;
use crate::server::listener::Listener;
use crate::snapshot::Current;
use crate::trace;

mod api;
mod body;
mod dashboard;
mod explain;
mod exposition;
mod guard;
mod level;
mod live;
mod prometheus;
mod query;
mod stream;

use body::Body;
use query::Query;

/// How long to wait after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// How long a client may take for a request's head.
const HEADER_TIME: Duration = Duration::from_secs(30);

/// Connections at the same time. Whoever gathers metrics needs one, an open dashboard two.
const CONNECTIONS: usize = 256;

/// Streams of events at the same time: each has a task that has something to do every second.
const WATCHERS: usize = 32;

/// Explanations at the same time. Each makes an instance of a plugin.
const EXPLANATIONS: usize = 4;

/// What can be told.
pub struct State {
    /// Where the snapshot is.
    pub current: Current,
    /// What the workers count.
    pub workers: Vec<Arc<metrics::Worker>>,
    /// What the registries count, by name.
    pub registries: Vec<(&'static str, Arc<Stats>)>,
    /// Which versions of plugins ZooKeeper wants.
    pub announced: watch::Receiver<Arc<Vec<Status>>>,
    /// Where requests are taken.
    pub listeners: Vec<Arc<Listener>>,
    /// Some when the gateway takes no new connections any more.
    pub stop: watch::Receiver<Option<Duration>>,
    /// Where a line for each request goes, if it does. Not held: it ends with those who write to it.
    pub log: Weak<Log>,
    /// What became of spans, if there are any.
    pub traces: Option<Arc<trace::Shared>>,
    /// What plugins run in.
    pub engine: Engine,
    /// What has happened lately.
    pub events: Arc<Events>,
    /// What whoever asks has to show, if anything.
    pub token: Option<Secret>,
    /// Endpoints that have time series of their own.
    pub endpoint_series: usize,
    /// When the gateway was started.
    pub started: SystemTime,
}

/// The state, and what is bounded over all connections.
struct Admin {
    state: State,
    bound: SocketAddr,
    watchers: Arc<Semaphore>,
    explanations: Semaphore,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, state: State) {
    // A socket that is listened on has an address; whatever it is, it is not loopback then.
    let bound = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    let (watchers, explanations) = (Arc::new(Semaphore::new(WATCHERS)), Semaphore::new(EXPLANATIONS));
    let admin = Arc::new(Admin { state, bound, watchers, explanations });
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection on the admin address, retrying");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Ok(place) = connections.clone().try_acquire_owned() else { continue };
        let admin = admin.clone();
        tokio::spawn(async move {
            let stalled = Arc::new(Notify::new());
            let service = service_fn(|request: Request<Incoming>| {
                let (admin, stalled) = (admin.clone(), stalled.clone());
                async move { Ok::<_, Infallible>(answer(&admin, request, stalled).await) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
            tokio::select! {
                served = builder.serve_connection(TokioIo::new(stream), service) => {
                    if let Err(error) = served {
                        tracing::debug!(%error, "admin connection ended");
                    }
                }
                () = stalled.notified() => tracing::debug!("admin connection ended: nobody reads the stream"),
            }
            drop(place);
        });
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// `stalled`: notified when the client does not take what a stream has for it.
async fn answer(admin: &Arc<Admin>, request: Request<Incoming>, stalled: Arc<Notify>) -> Response<Body> {
    let state = &admin.state;
    if let Some((status, why)) = guard::refusal(&request, admin.bound, state.token.as_ref()) {
        let mut response = respond(status, TEXT, why);
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        return response;
    }
    // The one place where something can be changed, and where a body is read.
    if request.uri().path() == level::PATH {
        return level::answer(request).await;
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is served here\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let snapshot = state.current.load_full();
    let query = Query::read(request.uri().query().unwrap_or_default());
    match request.uri().path() {
        "/healthz" => respond(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" if state.stop.borrow().is_some() => {
            respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready: the gateway is stopping\n")
        }
        "/readyz" if snapshot.ready() => respond(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready: a registry has not been read yet\n"),
        "/metrics" => {
            let format = exposition::Format::wanted(request.headers().get(header::ACCEPT));
            let mut response =
                respond(StatusCode::OK, format.content_type(), prometheus::text(state, &snapshot, format));
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
            response
        }
        "/api/v1/services" => respond(StatusCode::OK, JSON, api::services(&snapshot)),
        "/api/v1/routes" => respond(StatusCode::OK, JSON, api::routes(&snapshot)),
        "/api/v1/plugins" => respond(StatusCode::OK, JSON, api::plugins(&snapshot, &state.announced.borrow())),
        "/api/v1/explain" => {
            let asked = match explain::Asked::read(&query) {
                Ok(asked) => asked,
                Err(why) => return respond(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
            };
            // It is never closed.
            let _turn = admin.explanations.acquire().await;
            let (snapshot, engine) = (snapshot.clone(), state.engine.clone());
            let told = tokio::task::spawn_blocking(move || explain::explain(&snapshot, &engine, asked).to_string());
            match told.await {
                Ok(told) => respond(StatusCode::OK, JSON, told),
                Err(_) => {
                    respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "explaining this panicked; please report it\n")
                }
            }
        }
        path @ ("/api/v1/events" | "/api/v1/live") => {
            let after = match query.get("since").map(str::parse::<u64>) {
                Some(Ok(after)) => Some(after),
                Some(Err(_)) => return respond(StatusCode::BAD_REQUEST, TEXT, "since is no event's number\n"),
                None => None,
            };
            if path == "/api/v1/events" && query.get("format") == Some("json") {
                return respond(StatusCode::OK, JSON, stream::list(&state.events, after.unwrap_or(0)));
            }
            // What a browser says when it comes back is newer than what the address says.
            let last = request.headers().get("last-event-id").and_then(|it| it.to_str().ok()?.parse().ok());
            let after = last.or(after).unwrap_or(0);
            if request.method() == Method::HEAD {
                return respond(StatusCode::OK, stream::CONTENT_TYPE, "");
            }
            let Ok(place) = admin.watchers.clone().try_acquire_owned() else {
                return respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "too many watch already\n");
            };
            let watcher = stream::Watcher { admin: admin.clone(), place, stalled, after };
            let body = if path == "/api/v1/events" { stream::events(watcher) } else { stream::live(watcher) };
            respond(StatusCode::OK, stream::CONTENT_TYPE, body)
        }
        path => match dashboard::file(path) {
            Some((content_type, text)) => {
                let mut response = respond(StatusCode::OK, content_type, text);
                dashboard::protect(response.headers_mut());
                response
            }
            None => respond(StatusCode::NOT_FOUND, TEXT, INDEX),
        },
    }
}

const INDEX: &str = "Moongate admin: / /healthz /readyz /metrics /api/v1/services /api/v1/routes /api/v1/plugins \
                     /api/v1/explain?path=/ /api/v1/events /api/v1/log-level\n";

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::SERVER, HeaderValue::from_static("moongate"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Body::Whole(Bytes::from_static(text.as_bytes()))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Body::Whole(text.into())
    }
}
