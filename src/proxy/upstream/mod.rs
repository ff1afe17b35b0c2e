//! Connections to endpoints: this worker's own pools, and one exchange over one of them.
//!
//! [`Upstream::send`] is all that the request path knows. A connection is one task's at a time; there is no task behind it
//! and no channel before it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::net::TcpStream;
use tokio::time::timeout;

use links::Links;

use super::body::{Interim, Upload};
use super::metrics;
use super::opening::Opening;
use super::upgrade::Duplex;
use crate::config::Timeouts;
use crate::config::upstream::Reuse;
use crate::endpoint::live::Open;
use crate::endpoint::{Endpoint, InFlight, Live, Trouble};
use crate::error::RequestError;
use crate::http1::Connection;
use crate::message::{RequestHead, ResponseHead};
use crate::stream::Stream;

mod http1;
mod http2;
mod links;
mod response;

pub use response::ResponseBody;

/// Idle connections kept for one endpoint. Each costs the endpoint a socket and us about 1 KB.
const IDLE: usize = 256;

/// How long a connection may be idle. Below the minute after which many servers close it, so that we are first.
const IDLE_TIME: Duration = Duration::from_secs(45);

/// How often one request is sent to an endpoint that refuses its stream, or has ended the connection. It may have just said how
/// many streams it allows, or be ending its connections one by one.
const ATTEMPTS: usize = 3;

/// This worker's connections.
pub struct Upstream {
    pools: RefCell<FxHashMap<u64, Pool>>,
    /// Of endpoints that speak HTTP/2.
    links: RefCell<FxHashMap<u64, Rc<Links>>>,
    metrics: Arc<metrics::Worker>,
}

/// The idle connections of one endpoint, the latest used last: it is the one most likely to be alive.
struct Pool {
    endpoint: std::sync::Weak<Live>,
    idle: Vec<Idle>,
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
    pub wire: Far,
    /// Counts the request.
    pub inflight: InFlight,
}

/// An endpoint's side of a tunnel.
pub enum Far {
    /// A connection of its own.
    Http1(Wire),
    /// A stream of a connection.
    Http2(Box<crate::http2::Duplex>, links::Busy),
}

impl Far {
    /// What to read and write, and what to keep until it is over.
    pub fn into_duplex(self) -> (Duplex, Counted) {
        match self {
            Far::Http1(Wire { connection, open }) => (Duplex::Http1(connection), Counted::Connection(open)),
            Far::Http2(stream, busy) => (Duplex::Http2(stream), Counted::Stream(busy)),
        }
    }
}

/// Counts a connection or a stream while it is there.
pub enum Counted {
    /// Among the endpoint's connections.
    Connection(Open),
    /// Among the connection's streams.
    Stream(links::Busy),
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
        inflight: InFlight,
        call: Call<'_>,
        upload: Upload,
    ) -> Result<Answer, SendError> {
        match inflight.spec.scheme.is_http2() {
            false => self.send_alone(inflight, call, upload).await,
            true => self.send_shared(inflight, call, upload).await,
        }
    }

    /// Sends it over a connection of its own.
    ///
    /// A connection may turn out to have been closed while it was idle, which is nobody's fault. So a request that may be
    /// repeated (RFC 9110, section 9.2.2) takes an idle one and, if that is so, a new one, unseen; any other takes a new one
    /// at once, because nobody can tell whether an endpoint that closes has acted on it.
    async fn send_alone(
        self: &Rc<Self>,
        inflight: InFlight,
        call: Call<'_>,
        mut upload: Upload,
    ) -> Result<Answer, SendError> {
        let endpoint: &Arc<Endpoint> = &inflight;
        if !inflight.occupy() {
            return Err(SendError { error: RequestError::Overloaded, again: Some(upload) });
        }
        let opening = Opening::of(call.head);
        let call = Call { head: opening.as_ref().map_or(call.head, |opening| &opening.head), ..call };
        let repeatable = call.head.is_idempotent() && upload.is_over();
        let reuse = repeatable || endpoint.settings.reuse == Reuse::Always;
        let mut pooled = if reuse { self.take(endpoint.live.id) } else { None };
        loop {
            let was_pooled = pooled.is_some();
            let wire = match pooled.take() {
                Some(wire) => wire,
                None => match self.connect(endpoint, call.timeouts.connect.0).await {
                    Ok((stream, open)) => Wire { connection: Box::new(Connection::new(stream)), open },
                    Err(error) => {
                        if !matches!(error, RequestError::Overloaded) {
                            inflight.failed(Trouble::Connect);
                        }
                        return Err(SendError { error, again: Some(upload) });
                    }
                },
            };
            let sent = Instant::now();
            let failed = match http1::exchange(wire, call, upload).await {
                Ok((head, _)) if opening.as_ref().is_some_and(|opening| !opening.is_answered(&head.head)) => {
                    inflight.failed(Trouble::Broken);
                    let error = RequestError::Upstream("it has not read the key".into());
                    return Err(SendError { error, again: None });
                }
                Ok((head, exchange)) => {
                    inflight.answered(head.head.status, sent.elapsed());
                    return Ok(response::alone(self, head, exchange, call, inflight));
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

    async fn connect(&self, endpoint: &Arc<Endpoint>, limit: Duration) -> Result<(Stream, Open), RequestError> {
        let _waiting = endpoint.wait().ok_or(RequestError::Overloaded)?;
        self.metrics.connected();
        let stream = match timeout(limit, TcpStream::connect(endpoint.spec.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(RequestError::Connect(error)),
            Err(_) => return Err(RequestError::ConnectTimeout(limit)),
        };
        // A proxy writes whole messages, so there is nothing to wait for.
        stream.set_nodelay(true).map_err(RequestError::Connect)?;
        Ok((Stream::plain(stream), endpoint.opened()))
    }

    /// An endpoint may refuse a stream, or end the connection before it, and say that it has not acted on it: then any request
    /// may be sent again (RFC 9113, section 8.7), here on another connection or there to another endpoint. Where it says
    /// nothing of the kind, only what may be repeated is.
    async fn send_shared(&self, inflight: InFlight, call: Call<'_>, mut upload: Upload) -> Result<Answer, SendError> {
        let endpoint: &Arc<Endpoint> = &inflight;
        let repeatable = call.head.is_idempotent() && upload.is_over();
        let links = self.links.borrow_mut().entry(endpoint.live.id).or_default().clone();
        let mut attempts = 0;
        loop {
            let (busy, new) = match links.take(|| self.connect(endpoint, call.timeouts.connect.0)).await {
                Ok(taken) => taken,
                Err(error) => {
                    if !matches!(error, RequestError::Overloaded) {
                        inflight.failed(Trouble::Connect);
                    }
                    return Err(SendError { error, again: Some(upload) });
                }
            };
            let sent = Instant::now();
            let failed = match http2::exchange(busy, call, upload).await {
                Ok(answer) => {
                    inflight.answered(answer.status(), sent.elapsed());
                    return Ok(response::shared(answer, call, inflight));
                }
                Err(failed) => failed,
            };
            attempts += 1;
            let again = failed.upload.filter(|_| failed.refused || failed.broke_off && repeatable);
            upload = match again {
                Some(upload) if (failed.refused || !new) && attempts < ATTEMPTS => upload,
                again => {
                    blame(&inflight, &failed.error);
                    return Err(SendError { error: failed.error, again });
                }
            };
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
            pool.idle.push(Idle { wire, since: Instant::now() });
        }
    }

    /// Closes what has been idle for too long, what the other side has closed, and what leads to endpoints that are gone.
    pub fn tidy(&self) {
        self.pools.borrow_mut().retain(|_, pool| {
            pool.idle.retain_mut(|idle| idle.since.elapsed() < IDLE_TIME && idle.wire.connection.is_quiet());
            pool.endpoint.strong_count() > 0 && !pool.idle.is_empty()
        });
        self.links.borrow_mut().retain(|_, links| links.tidy(IDLE_TIME));
    }
}

/// Notes what the endpoint did wrong, if it did.
fn blame(inflight: &InFlight, error: &RequestError) {
    match error {
        // The client's fault.
        RequestError::ClientBody(_) | RequestError::Malformed(_) => {}
        RequestError::HeaderTimeout(_) => inflight.failed(Trouble::Late),
        _ => inflight.failed(Trouble::Broken),
    }
}
