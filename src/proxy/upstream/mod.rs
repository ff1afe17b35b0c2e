//! Connections to endpoints: this worker's own pools, and one exchange over one of them.
//!
//! [`Upstream::send`] is all that the request path knows. A connection is one task's at a time; there is no task behind it
//! and no channel before it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::net::TcpStream;
use tokio::time::timeout;

use links::{Busy, Links};

use super::body::{Interim, Upload};
use super::metrics;
use super::opening::Opening;
use super::upgrade::Duplex;
use crate::config::upstream::Reuse;
use crate::config::{Protocol, Timeouts};
use crate::endpoint::live::Open;
use crate::endpoint::{Endpoint, InFlight, Live, Trouble};
use crate::error::RequestError;
use crate::http1::Connection;
use crate::message::{RequestHead, ResponseHead, Version};
use crate::stream::{self, Stream};
use crate::timer;
use crate::tls::Connector;

mod http1;
mod http2;
mod links;
mod response;

pub use response::ResponseBody;

/// Idle connections kept for one endpoint. Each costs the endpoint a socket and us about 1 KB.
const IDLE: usize = 256;

/// How long a connection may be idle. Below the minute after which many servers close it, so that we are first.
const IDLE_TIME: Duration = Duration::from_secs(45);

/// How often an endpoint may refuse one request over HTTP/2 before it is taken at its word. Once is usual where it has just
/// said how many streams it allows, or is ending its connections one by one.
const REFUSALS: usize = 2;

/// This worker's connections.
pub struct Upstream {
    pools: RefCell<FxHashMap<u64, Pool>>,
    /// Of endpoints that speak HTTP/2.
    links: RefCell<FxHashMap<u64, Linked>>,
    metrics: Arc<metrics::Worker>,
}

/// The idle connections of one endpoint, the latest used last: it is the one most likely to be alive.
struct Pool {
    endpoint: std::sync::Weak<Live>,
    idle: Vec<Idle>,
}

/// The connections of an endpoint that speaks HTTP/2.
struct Linked {
    endpoint: std::sync::Weak<Live>,
    links: Rc<Links>,
}

struct Idle {
    wire: Wire,
    since: Instant,
}

/// A connection, counted among those of its endpoint.
pub struct Wire {
    /// The connection.
    pub connection: Box<Connection>,
    /// Counts it.
    pub open: Open,
}

/// What is to be sent, but for the body.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The head, ready to be sent.
    pub head: &'a RequestHead,
    /// The client waits to be told that it may send the body (`Expect: 100-continue`).
    pub expects: bool,
    /// How to tell the client what comes before the response.
    pub interim: &'a Interim,
    /// How long each step may take.
    pub timeouts: &'a Timeouts,
    /// When everything must be over; none: whenever.
    pub until: Option<Instant>,
    /// Bytes a second that a body must move with.
    pub rate: u64,
    /// How to connect where the endpoint wants TLS.
    pub connector: &'a Connector,
}

impl Call<'_> {
    /// How long a pause of the body may be, and how fast it must be (0: it need not). A call of gRPC may be a stream of
    /// messages, either way, that come when they come.
    fn pace(&self) -> (Duration, u64) {
        if self.head.is_grpc() { (self.timeouts.stream.0, 0) } else { (self.timeouts.idle.0, self.rate) }
    }

    /// How long the response's head may take. That of gRPC may come with the first message.
    fn header(&self) -> Duration {
        if self.head.is_grpc() { self.timeouts.stream.0 } else { self.timeouts.header.0 }
    }
}

/// An endpoint's answer.
pub struct Answer {
    /// Its head.
    pub head: ResponseHead,
    /// Its body, or what there is instead of one.
    pub body: AnswerBody,
}

/// What stands behind an endpoint's head.
pub enum AnswerBody {
    /// A body, which may be empty.
    Body(ResponseBody),
    /// The connection, which goes on in another protocol; and what was read from it already.
    Switched(Switched),
}

/// A connection or stream that has changed to another protocol; the endpoint counts as busy until this is dropped.
pub struct Switched {
    /// What it goes on over.
    pub stream: Duplex,
    /// Counts the request.
    pub inflight: InFlight,
    /// Counts what it goes on over.
    pub held: Held,
}

/// What a tunnel holds of its endpoint's connections.
pub enum Held {
    /// A whole one.
    Connection(Open),
    /// A stream of one.
    Stream(Busy),
}

/// Why an exchange brought no response.
pub struct SendError {
    /// What happened.
    pub error: RequestError,
    /// The body, if the request may be sent to another endpoint: none can have acted on it, or acting twice does no harm;
    /// and nothing of the body is gone.
    pub again: Option<Upload>,
}

impl Upstream {
    /// No connections yet.
    pub fn new(metrics: Arc<metrics::Worker>) -> Upstream {
        Upstream { pools: RefCell::default(), links: RefCell::default(), metrics }
    }

    /// Sends a request to an endpoint and waits for the head of the response.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(
        self: &Rc<Self>,
        endpoint: InFlight,
        call: Call<'_>,
        upload: Upload,
    ) -> Result<Answer, SendError> {
        match endpoint.spec.scheme.is_http2() {
            false => self.send_http1(endpoint, call, upload).await,
            true => Box::pin(self.send_http2(endpoint, call, upload)).await,
        }
    }

    /// A connection may turn out to have been closed while it was idle, which is nobody's fault. So a request that may be
    /// repeated (RFC 9110, section 9.2.2) takes an idle one and, if that is so, a new one, unseen; any other takes a new one
    /// at once, because nobody can tell whether an endpoint that closes has acted on it.
    async fn send_http1(
        self: &Rc<Self>,
        inflight: InFlight,
        call: Call<'_>,
        mut upload: Upload,
    ) -> Result<Answer, SendError> {
        let endpoint: &Arc<Endpoint> = &inflight;
        if !inflight.occupy() {
            return Err(SendError { error: RequestError::Overloaded, again: Some(upload) });
        }
        let repeatable = call.head.is_idempotent() && upload.is_over();
        let opening =
            (call.head.version == Version::Http2 && call.head.upgrade.is_some()).then(|| Opening::new(call.head));
        let call = Call { head: opening.as_ref().map_or(call.head, |opening| &opening.head), ..call };
        let reuse = repeatable || endpoint.settings.reuse == Reuse::Always;
        let mut pooled = if reuse { self.take(endpoint.live.id) } else { None };
        loop {
            let was_pooled = pooled.is_some();
            let wire = match pooled.take() {
                Some(wire) => wire,
                // Only few requests need it, and it would make the memory of all of them larger by half.
                None => match Box::pin(self.connect(endpoint, call)).await {
                    Ok((stream, open)) => Wire { connection: Box::new(Connection::new(stream)), open },
                    Err(error) => {
                        if !matches!(error, RequestError::Overloaded) {
                            inflight.failed(Trouble::Connect);
                        }
                        return Err(SendError { error, again: Some(upload) });
                    }
                },
            };
            // Who had to wait for no connection has just begun.
            let sent = if was_pooled { timer::recent() } else { timer::now() };
            let failed = match http1::exchange(wire, call, upload).await {
                Ok((head, _)) if opening.as_ref().is_some_and(|opening| !opening.is_answered(&head.head)) => {
                    inflight.failed(Trouble::Broken);
                    return Err(SendError {
                        error: RequestError::Upstream("it has not read the key".into()),
                        again: None,
                    });
                }
                Ok((head, exchange)) => {
                    inflight.answered(head.head.status, timer::now().saturating_duration_since(sent));
                    return Ok(self.answer(head, exchange, call, inflight));
                }
                Err(failed) => failed,
            };
            // What nobody can have acted on, or may be acted on twice.
            let again = failed.upload.filter(|_| failed.broke_off && (repeatable || !failed.began));
            upload = match again {
                // It was closed while it was idle, which is nobody's fault.
                Some(upload) if was_pooled => upload,
                again => {
                    blame(&inflight, &failed.error);
                    return Err(SendError { error: failed.error, again });
                }
            };
        }
    }

    /// An endpoint may refuse a stream, or end the connection before it, and say that it has not acted on it: then any request
    /// may be sent again (RFC 9113, section 8.7), here on another connection or there to another endpoint. Where it says
    /// nothing of the kind, only what may be repeated is.
    async fn send_http2(&self, inflight: InFlight, call: Call<'_>, mut upload: Upload) -> Result<Answer, SendError> {
        let endpoint: &Arc<Endpoint> = &inflight;
        let repeatable = call.head.is_idempotent() && upload.is_over();
        let links = self.links(&endpoint.live);
        let mut refusals = 0;
        loop {
            let (busy, new) = match links.take(|| Box::pin(self.connect(endpoint, call))).await {
                Ok(taken) => taken,
                Err(error) => {
                    if !matches!(error, RequestError::Overloaded) {
                        inflight.failed(Trouble::Connect);
                    }
                    return Err(SendError { error, again: Some(upload) });
                }
            };
            let sent = timer::now();
            let failed = match http2::exchange(busy, call, upload).await {
                Ok(answer) => {
                    inflight.answered(answer.status(), sent.elapsed());
                    return Ok(self.answered(answer, call, inflight));
                }
                Err(failed) => failed,
            };
            upload = match failed.upload {
                Some(upload) if failed.refused && refusals < REFUSALS => upload,
                Some(upload) if failed.broke_off && repeatable && !new => upload,
                again => {
                    blame(&inflight, &failed.error);
                    let again = again.filter(|_| failed.refused || failed.broke_off && repeatable);
                    return Err(SendError { error: failed.error, again });
                }
            };
            refusals += 1;
        }
    }

    fn links(&self, endpoint: &Arc<Live>) -> Rc<Links> {
        let mut links = self.links.borrow_mut();
        let new = || Linked { endpoint: Arc::downgrade(endpoint), links: Rc::default() };
        links.entry(endpoint.id).or_insert_with(new).links.clone()
    }

    async fn connect(&self, endpoint: &Arc<Endpoint>, call: Call<'_>) -> Result<(Stream, Open), RequestError> {
        let limit = call.timeouts.connect.0;
        let _waiting = endpoint.wait().ok_or(RequestError::Overloaded)?;
        self.metrics.connected();
        let (address, scheme) = (endpoint.spec.address, endpoint.spec.scheme);
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            if stream::is_own_peer(&stream) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            // A proxy writes whole messages, so there is nothing to wait for.
            stream.set_nodelay(true)?;
            if !scheme.is_secure() {
                return Ok(Stream::plain(stream));
            }
            let protocol = if scheme.is_http2() { Protocol::Http2 } else { Protocol::Http1 };
            call.connector.connect(stream, address.ip(), protocol).await
        };
        match timeout(limit, connecting).await {
            Ok(Ok(stream)) => Ok((stream, endpoint.opened())),
            Ok(Err(error)) => Err(RequestError::Connect(error)),
            Err(_) => Err(RequestError::ConnectTimeout(limit)),
        }
    }

    /// The latest idle connection that can take a request.
    fn take(&self, endpoint: u64) -> Option<Wire> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&endpoint)?;
        while let Some(mut idle) = pool.idle.pop() {
            // One that has something to say is closing, or says what nobody asked for.
            if idle.wire.connection.is_quiet() {
                return Some(idle.wire);
            }
        }
        None
    }

    /// Takes back a connection whose exchange has ended cleanly.
    fn put(&self, endpoint: &Endpoint, wire: Wire) {
        if endpoint.crowded() {
            return;
        }
        let mut pools = self.pools.borrow_mut();
        let new = || Pool { endpoint: Arc::downgrade(&endpoint.live), idle: Vec::new() };
        let pool = pools.entry(endpoint.live.id).or_insert_with(new);
        if pool.idle.len() < IDLE {
            pool.idle.push(Idle { wire, since: timer::recent() });
        }
    }

    /// Closes what has been idle for too long, what the other side has closed, and what leads to endpoints that are gone.
    pub fn tidy(&self) {
        self.pools.borrow_mut().retain(|_, pool| {
            pool.idle.retain_mut(|idle| idle.since.elapsed() < IDLE_TIME && idle.wire.connection.is_quiet());
            pool.endpoint.strong_count() > 0 && !pool.idle.is_empty()
        });
        self.links.borrow_mut().retain(|_, linked| linked.links.tidy(IDLE_TIME) && linked.endpoint.strong_count() > 0);
    }
}

/// Holds an endpoint to account for what went wrong, if it was not the client.
fn blame(endpoint: &InFlight, error: &RequestError) {
    match error {
        RequestError::ClientBody(_) => {}
        RequestError::HeaderTimeout(_) => endpoint.failed(Trouble::Late),
        _ => endpoint.failed(Trouble::Broken),
    }
}
