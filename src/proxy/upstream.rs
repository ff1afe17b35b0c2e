//! Connections to endpoints: this worker's own pools, and one exchange over one of them.
//!
//! This is hyper's client and its only home; whoever replaces it by a leaner one keeps [`Upstream::send`] and
//! [`ResponseBody`].

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustc_hash::FxHashMap;
use tokio::net::TcpStream;
use tokio::time::{Sleep, timeout};

use super::body::{Outgoing, Progress, Upload};
use super::metrics;
use crate::config::Timeouts;
use crate::endpoint::{Endpoint, InFlight, Live, Trouble};
use crate::error::RequestError;

/// Idle connections kept for one endpoint. Each costs the endpoint a socket and us about 17 KB.
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
    endpoint: Weak<Live>,
    idle: Vec<Idle>,
}

struct Idle {
    sender: SendRequest<Outgoing>,
    since: Instant,
}

/// Why an exchange brought no response.
pub struct SendError {
    /// What happened.
    pub error: RequestError,
    /// The request, if no endpoint can have acted on it: it may be sent to another.
    pub unsent: Option<Box<(http::request::Parts, Outgoing)>>,
}

impl Upstream {
    /// No connections yet.
    pub fn new(metrics: Arc<metrics::Worker>) -> Upstream {
        Upstream { pools: RefCell::default(), metrics }
    }

    /// Sends a request to an endpoint and waits for the head of the response.
    ///
    /// A pooled connection that turns out to be closed is replaced by a new one, unseen: where the request was not
    /// written at all, or where it may be repeated (RFC 9110, section 9.2.2) and has no body.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(
        self: &Rc<Self>,
        inflight: InFlight,
        head: http::request::Parts,
        body: Outgoing,
        timeouts: &Timeouts,
    ) -> Result<Response<ResponseBody>, SendError> {
        let endpoint: &Arc<Endpoint> = &inflight;
        if !inflight.occupy() {
            let unsent = Some(Box::new((head, body)));
            return Err(SendError { error: RequestError::Overloaded, unsent });
        }
        let mut pooled = self.take(endpoint.live.id);
        let mut request = Request::from_parts(head, body);
        if matches!(request.body(), Outgoing::Stream(..)) && !request.headers().contains_key(header::CONTENT_LENGTH) {
            // Said outright, because hyper takes a GET without a length for one without a body.
            request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        loop {
            let copy = repeatable(&request).then(|| copy(&request));
            let (mut sender, was_pooled) = match pooled.take() {
                Some(sender) => (sender, true),
                None => match self.connect(endpoint, timeouts.connect.0).await {
                    Ok(sender) => (sender, false),
                    Err(error) => {
                        if !matches!(error, RequestError::Overloaded) {
                            inflight.failed(Trouble::Connect);
                        }
                        return Err(SendError { error, unsent: Some(Box::new(request.into_parts())) });
                    }
                },
            };
            let sent = Instant::now();
            let progress = request.body().progress();
            if let Some(progress) = &progress {
                // Connecting, here and elsewhere, was not the body's time.
                progress.start();
            }
            let mut error = match in_time(sender.try_send_request(request), progress, timeouts).await {
                Ok(Ok(response)) => {
                    inflight.answered(response.status(), sent.elapsed());
                    return Ok(self.respond(response, sender, inflight, timeouts.idle.0));
                }
                Ok(Err(error)) => error,
                Err(error) => {
                    if !matches!(error, RequestError::ClientTimeout(_)) {
                        inflight.failed(Trouble::Late);
                    }
                    return Err(SendError { error, unsent: None });
                }
            };
            let unsent = error.take_message();
            let error = error.into_error();
            match (unsent, copy) {
                // A pooled connection was closed while it was idle, or just now: nobody's fault.
                (Some(unsent), _) if was_pooled => request = unsent,
                (None, Some(copy)) if was_pooled && broke_off(&error) => request = copy,
                (unsent, copy) => {
                    // What may be repeated may be so elsewhere, too.
                    let unsent = unsent.or(copy.filter(|_| broke_off(&error)));
                    if error.is_user() {
                        return Err(SendError { error: RequestError::ClientBody(error), unsent: None });
                    }
                    inflight.failed(Trouble::Broken);
                    return Err(SendError {
                        error: RequestError::Upstream(error),
                        unsent: unsent.map(|it| Box::new(it.into_parts())),
                    });
                }
            }
        }
    }

    async fn connect(&self, endpoint: &Arc<Endpoint>, limit: Duration) -> Result<SendRequest<Outgoing>, RequestError> {
        let _waiting = endpoint.wait().ok_or(RequestError::Overloaded)?;
        self.metrics.connected();
        let stream = match timeout(limit, TcpStream::connect(endpoint.spec.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(RequestError::Connect(error)),
            Err(_) => return Err(RequestError::ConnectTimeout(limit)),
        };
        // A proxy writes whole messages, so there is nothing to wait for.
        stream.set_nodelay(true).map_err(RequestError::Connect)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(RequestError::Upstream)?;
        let (address, open) = (endpoint.spec.address, endpoint.opened());
        tokio::task::spawn_local(async move {
            let _open = open;
            if let Err(error) = connection.await {
                // Whoever waits for the response is told as well.
                tracing::debug!(%address, %error, "connection to an endpoint ended");
            }
        });
        Ok(sender)
    }

    /// The latest idle connection that can take a request.
    fn take(&self, endpoint: u64) -> Option<SendRequest<Outgoing>> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&endpoint)?;
        let mut at = pool.idle.len();
        while at > 0 {
            at -= 1;
            let sender = &pool.idle[at].sender;
            if sender.is_ready() {
                return Some(pool.idle.remove(at).sender);
            }
            if sender.is_closed() {
                pool.idle.remove(at);
            }
            // Neither: its last exchange is not quite over. It will be, and we do not wait for it.
        }
        None
    }

    fn put(&self, endpoint: &Endpoint, sender: SendRequest<Outgoing>) {
        if sender.is_closed() || endpoint.crowded() {
            return;
        }
        let mut pools = self.pools.borrow_mut();
        let new = || Pool { endpoint: Arc::downgrade(&endpoint.live), idle: Vec::new() };
        let pool = pools.entry(endpoint.live.id).or_insert_with(new);
        if pool.idle.len() < IDLE {
            pool.idle.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Closes what was idle for too long, and what belongs to endpoints that are gone.
    pub fn tidy(&self) {
        self.pools.borrow_mut().retain(|_, pool| {
            pool.idle.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < IDLE_TIME);
            pool.endpoint.strong_count() > 0
        });
    }

    /// Idle connections, over all endpoints.
    pub fn idle(&self) -> usize {
        self.pools.borrow().values().map(|pool| pool.idle.len()).sum()
    }

    fn respond(
        self: &Rc<Self>,
        response: Response<Incoming>,
        sender: SendRequest<Outgoing>,
        inflight: InFlight,
        idle: Duration,
    ) -> Response<ResponseBody> {
        response.map(|incoming| {
            let lease = Lease { sender, home: self.clone(), inflight };
            let mut body = ResponseBody { incoming, lease: Some(lease), idle, timer: None };
            body.finish_if_over();
            body
        })
    }
}

/// Whether the connection ended before a response did, one way or another.
fn broke_off(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    let lost = [BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected];
    error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || source.is_some_and(|error| lost.contains(&error.kind()))
}

/// Waits for a response's head: as long as the request's body moves, and then for the time that an endpoint has.
async fn in_time<T>(
    response: impl Future<Output = T>,
    progress: Option<Rc<Progress>>,
    timeouts: &Timeouts,
) -> Result<T, RequestError> {
    let Some(progress) = progress else {
        let late = |_| RequestError::HeaderTimeout(timeouts.header.0);
        return timeout(timeouts.header.0, response).await.map_err(late);
    };
    let mut response = std::pin::pin!(response);
    loop {
        let (upload, since) = progress.now();
        let limit = if upload == Upload::Over { timeouts.header.0 } else { timeouts.idle.0 };
        if let Ok(outcome) = tokio::time::timeout_at((since + limit).into(), response.as_mut()).await {
            return Ok(outcome);
        }
        if progress.now() == (upload, since) {
            return Err(match upload {
                Upload::Client => RequestError::ClientTimeout(limit),
                Upload::Endpoint | Upload::Over => RequestError::HeaderTimeout(limit),
            });
        }
    }
}

/// Whether sending it twice is as good as once, and possible.
fn repeatable(request: &Request<Outgoing>) -> bool {
    use http::Method;
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE];
    matches!(request.body(), Outgoing::Empty) && idempotent.contains(request.method())
}

fn copy(request: &Request<Outgoing>) -> Request<Outgoing> {
    let mut copy = Request::new(Outgoing::Empty);
    *copy.method_mut() = Method::clone(request.method());
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// A response on its way, and the connection that it comes over.
pub struct ResponseBody {
    incoming: Incoming,
    /// Until the end; given up unused if the response is not read to it, which closes the connection.
    lease: Option<Lease>,
    idle: Duration,
    /// Only there while waiting: most bodies are.
    timer: Option<Pin<Box<Sleep>>>,
}

struct Lease {
    sender: SendRequest<Outgoing>,
    home: Rc<Upstream>,
    inflight: InFlight,
}

/// Why a response ended before its end. The client sees its connection closed.
#[derive(Debug)]
pub enum BodyError {
    /// The endpoint's connection failed.
    Broken(hyper::Error),
    /// Nothing came for this long.
    Idle(Duration),
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BodyError::Broken(error) => write!(out, "reading a response: {error}"),
            BodyError::Idle(time) => write!(out, "reading a response: nothing in {time:?}"),
        }
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BodyError::Broken(error) => Some(error),
            BodyError::Idle(_) => None,
        }
    }
}

impl ResponseBody {
    fn finish_if_over(&mut self) {
        if self.incoming.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(Lease { sender, home, inflight }) = self.lease.take() {
            home.put(&inflight, sender);
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.timer = None;
                this.finish_if_over();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(lease) = this.lease.take() {
                    lease.inflight.failed(Trouble::Broken);
                }
                Poll::Ready(Some(Err(BodyError::Broken(error))))
            }
            Poll::Pending => {
                let idle = this.idle;
                let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
                match timer.as_mut().poll(context) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => {
                        if let Some(lease) = this.lease.take() {
                            lease.inflight.failed(Trouble::Late);
                        }
                        Poll::Ready(Some(Err(BodyError::Idle(idle))))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
