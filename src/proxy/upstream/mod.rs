//! Connections to endpoints: this worker's own pools, and one exchange over one of them.
//!
//! [`Upstream::send`] is all that the request path knows. A connection is one task's at a time; there is no task behind it
//! and no channel before it.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::body::{Interim, Upload};
use super::metrics;
use crate::config::Timeouts;
use crate::endpoint::{Endpoint, InFlight, Live};
use crate::error::RequestError;
use crate::http1::Connection;
use crate::message::{BodyError, Frame, Length, RequestHead, ResponseHead};
use crate::stream::Stream;
use crate::timer::Patience;

mod http1;

/// Idle connections kept for one endpoint. Each costs the endpoint a socket and us about 1 KB.
const IDLE: usize = 256;

/// How long a connection may be idle. Below the minute after which many servers close it, so that we are first.
const IDLE_TIME: Duration = Duration::from_secs(45);

/// This worker's connections.
pub struct Upstream {
    pools: RefCell<FxHashMap<u64, Pool>>,
    metrics: Arc<metrics::Worker>,
}

/// The idle connections of one endpoint, the latest used last: it is the one most likely to be alive.
struct Pool {
    endpoint: std::sync::Weak<Live>,
    idle: Vec<Idle>,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// What is to be sent, but for the body.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// Where to.
    pub endpoint: &'a Endpoint,
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
    /// Whether a request that must not be sent twice may go over a connection that was idle, and may be closing.
    pub reuse: bool,
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

/// A connection that has changed to another protocol; the endpoint counts as busy until this is dropped.
pub struct Switched {
    /// The connection.
    pub connection: Box<Connection>,
    /// Counts it.
    pub inflight: InFlight,
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
        Upstream { pools: RefCell::default(), metrics }
    }

    /// Sends a request to an endpoint and waits for the head of the response.
    ///
    /// A connection may turn out to have been closed while it was idle, which is nobody's fault. So a request that may be
    /// repeated (RFC 9110, section 9.2.2) takes an idle one and, if that is so, a new one, unseen; any other takes a new one
    /// at once, because nobody can tell whether an endpoint that closes has acted on it.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(self: &Rc<Self>, call: Call<'_>, mut upload: Upload) -> Result<Answer, SendError> {
        let live = &call.endpoint.live;
        let inflight = live.start();
        let repeatable = call.head.is_idempotent() && upload.is_over();
        let mut pooled = if repeatable || call.reuse { self.take(live.id) } else { None };
        loop {
            let was_pooled = pooled.is_some();
            let connection = match pooled.take() {
                Some(connection) => connection,
                None => match self.connect(call.endpoint, call.timeouts.connect.0).await {
                    Ok(connection) => connection,
                    Err(error) => {
                        inflight.failed();
                        return Err(SendError { error, again: Some(upload) });
                    }
                },
            };
            let sent = Instant::now();
            let failed = match http1::exchange(connection, call, upload).await {
                Ok((head, exchange)) => {
                    inflight.succeeded(sent.elapsed());
                    return Ok(self.answer(head, exchange, call, inflight));
                }
                Err(failed) => failed,
            };
            if failed.ours() {
                inflight.failed();
            }
            upload = match failed.upload {
                Some(upload) if was_pooled && failed.broke_off && (repeatable || !failed.began) => upload,
                again => {
                    let again = again.filter(|_| failed.broke_off && (repeatable || !failed.began));
                    return Err(SendError { error: failed.error, again });
                }
            };
        }
    }

    async fn connect(&self, endpoint: &Endpoint, limit: Duration) -> Result<Box<Connection>, RequestError> {
        self.metrics.connected();
        let stream = match timeout(limit, TcpStream::connect(endpoint.spec.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(RequestError::Connect(error)),
            Err(_) => return Err(RequestError::ConnectTimeout(limit)),
        };
        // A proxy writes whole messages, so there is nothing to wait for.
        stream.set_nodelay(true).map_err(RequestError::Connect)?;
        Ok(Box::new(Connection::new(Stream::plain(stream))))
    }

    fn answer(
        self: &Rc<Self>,
        head: crate::http1::head::Response,
        exchange: http1::Exchange,
        call: Call<'_>,
        inflight: InFlight,
    ) -> Answer {
        if head.head.status == http::StatusCode::SWITCHING_PROTOCOLS {
            let switched = Switched { connection: exchange.into_connection(), inflight };
            return Answer { head: head.head, body: AnswerBody::Switched(switched) };
        }
        let lease = Lease { endpoint: call.endpoint.live.clone(), home: Rc::downgrade(self), _inflight: inflight };
        let stream = head.head.is_event_stream();
        let (idle, rate) = if stream { (call.timeouts.stream.0, 0) } else { (call.timeouts.idle.0, call.rate) };
        let mut body = ResponseBody {
            reader: crate::http1::body::Reader::new(head.framing),
            keep_alive: head.keep_alive,
            exchange: Some(exchange),
            lease: Some(lease),
            patience: Patience::new(idle, rate),
            until: call.until.filter(|_| !stream),
        };
        body.finish_if_over();
        Answer { head: head.head, body: AnswerBody::Body(body) }
    }

    /// The latest idle connection that can take a request.
    fn take(&self, endpoint: u64) -> Option<Box<Connection>> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&endpoint)?;
        while let Some(mut idle) = pool.idle.pop() {
            // One that has something to say is closing, or says what nobody asked for.
            if idle.connection.is_quiet() {
                return Some(idle.connection);
            }
        }
        None
    }

    /// Takes back a connection whose exchange has ended cleanly.
    fn put(&self, endpoint: &Arc<Live>, connection: Box<Connection>) {
        let mut pools = self.pools.borrow_mut();
        let pool =
            pools.entry(endpoint.id).or_insert_with(|| Pool { endpoint: Arc::downgrade(endpoint), idle: Vec::new() });
        if pool.idle.len() < IDLE {
            pool.idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Closes what has been idle for too long, what the other side has closed, and what leads to endpoints that are gone.
    pub fn tidy(&self) {
        self.pools.borrow_mut().retain(|_, pool| {
            pool.idle.retain_mut(|idle| idle.since.elapsed() < IDLE_TIME && idle.connection.is_quiet());
            pool.endpoint.strong_count() > 0 && !pool.idle.is_empty()
        });
    }
}

/// A response on its way, and the connection that it comes over.
pub struct ResponseBody {
    reader: crate::http1::body::Reader,
    keep_alive: bool,
    /// Until the end; given up unused if the response is not read to it, which closes the connection.
    exchange: Option<http1::Exchange>,
    lease: Option<Lease>,
    patience: Patience,
    until: Option<Instant>,
}

struct Lease {
    endpoint: Arc<Live>,
    home: Weak<Upstream>,
    _inflight: InFlight,
}

impl ResponseBody {
    /// How much is left.
    pub fn length(&self) -> Length {
        self.reader.length()
    }

    /// The next piece; none at the end. The rest of the request is sent on meanwhile.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
        if let Poll::Ready(Err(error)) = exchange.poll_upload(context) {
            self.give_up(false);
            return Poll::Ready(Some(Err(error)));
        }
        let connection = exchange.connection();
        match self.reader.poll_frame(connection, context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Frame::Data(data) = &frame {
                    self.patience.moved(data.len());
                }
                self.finish_if_over();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.give_up(true);
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                self.finish_if_over();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let idle = self.patience.deadline();
                let deadline = self.until.map_or(idle, |until| until.min(idle));
                match connection.timer.poll(deadline, context) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => {
                        self.give_up(true);
                        Poll::Ready(Some(Err(BodyError::Slow(self.patience.idle()))))
                    }
                }
            }
        }
    }

    /// Whether nothing is left, not even trailers.
    pub fn is_over(&self) -> bool {
        self.reader.is_over()
    }

    /// Sends on what there is of the request, while nobody takes the response. A failure is found out by
    /// [`ResponseBody::poll_frame`].
    pub fn poll_upload(&mut self, context: &mut Context<'_>) {
        if let Some(exchange) = &mut self.exchange {
            let _ = exchange.poll_upload(context);
        }
    }

    /// The client is slow or busy: what the endpoint does meanwhile is not its fault.
    pub fn rest(&mut self) {
        self.patience.rest();
    }

    fn give_up(&mut self, failed: bool) {
        self.exchange = None;
        if let Some(lease) = self.lease.take().filter(|_| failed) {
            lease.endpoint.failed();
        }
    }

    fn finish_if_over(&mut self) {
        if !self.reader.is_over() {
            return;
        }
        let (Some(exchange), Some(lease)) = (self.exchange.take(), self.lease.take()) else { return };
        if !self.keep_alive {
            return;
        }
        if let (Some(mut connection), Some(home)) = (exchange.into_idle(), lease.home.upgrade())
            && connection.input.is_empty()
            && !connection.has_ended()
        {
            connection.input = bytes::BytesMut::new();
            home.put(&lease.endpoint, connection);
        }
    }
}
