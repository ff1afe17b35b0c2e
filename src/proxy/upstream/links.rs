//! Connections to HTTP/2 endpoints, each shared by many exchanges: as few as the endpoint's limit on streams allows.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::Request;
use tokio::sync::Mutex;

use crate::endpoint::live::Open;
use crate::error::RequestError;
use crate::stream::Stream;
use crate::timer::Timer;

/// Bytes that an endpoint may send on a stream before the client takes them: what a client that reads nothing costs us.
const STREAM_WINDOW: u32 = 64 << 10;

/// The same for all streams of a connection: so much that clients who read nothing do not hold up the others.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Streams on one connection, whatever the endpoint allows: no more than have room in the connection's window.
const STREAMS: usize = 256;

/// Streams until the endpoint has said how many it allows (RFC 9113, section 6.5.2 recommends no fewer).
const FIRST_STREAMS: usize = 100;

/// Bytes of a stream that wait for the connection to take them.
const SEND_BUFFER: usize = 64 << 10;

/// Bytes of a response's fields; as for HTTP/1.
const HEAD: u32 = 64 << 10;

/// How often an endpoint with streams open is asked whether it is still there. gRPC's servers allow it every five minutes,
/// and end the connections of those who ask more often.
const PULSE: Duration = Duration::from_secs(310);

/// How long it may take to answer.
const PULSE_ANSWER: Duration = Duration::from_secs(10);

/// How often somebody may doubt that it is still there.
const DOUBT: Duration = Duration::from_secs(20);

/// The connections to one endpoint.
#[derive(Default)]
pub(super) struct Links {
    open: RefCell<Vec<Rc<Link>>>,
    /// Held by whoever opens the next one: many requests that come at once need no connection each.
    opening: Mutex<()>,
    /// When that last went wrong, and how.
    failed: RefCell<Option<(Instant, RequestError)>>,
}

/// One connection.
struct Link {
    sender: RefCell<SendRequest<Bytes>>,
    busy: Cell<usize>,
    idle_since: Cell<Instant>,
    /// It takes no more streams.
    leaving: Cell<bool>,
    encrypted: bool,
    /// Somebody has waited in vain.
    suspect: Cell<bool>,
    task: RefCell<Option<Waker>>,
    /// Counts it.
    _open: Open,
}

/// A connection with one of its streams taken.
pub struct Busy(Rc<Link>);

impl Links {
    /// A connection with room for a stream, made by `connect` if there is none. Says as well whether it is a new one.
    ///
    /// # Errors
    /// Those of `connect`.
    pub(super) async fn take<F>(&self, connect: impl FnOnce() -> F) -> Result<(Busy, bool), RequestError>
    where
        F: Future<Output = Result<(Stream, Open), RequestError>>,
    {
        if let Some(busy) = self.room() {
            return Ok((busy, false));
        }
        let since = Instant::now();
        let _turn = self.opening.lock().await;
        if let Some(busy) = self.room() {
            return Ok((busy, false));
        }
        // Whoever was first has tried for all who waited.
        if let Some((at, error)) = &*self.failed.borrow()
            && *at > since
        {
            return Err(same(error));
        }
        match self.open(connect).await {
            Ok(busy) => Ok((busy, true)),
            Err(error) => {
                *self.failed.borrow_mut() = Some((Instant::now(), same(&error)));
                Err(error)
            }
        }
    }

    fn room(&self) -> Option<Busy> {
        let mut open = self.open.borrow_mut();
        open.retain(|link| !link.is_leaving());
        let link = open.iter().find(|link| link.busy.get() < link.room())?;
        Some(Busy::new(link))
    }

    async fn open<F>(&self, connect: impl FnOnce() -> F) -> Result<Busy, RequestError>
    where
        F: Future<Output = Result<(Stream, Open), RequestError>>,
    {
        let (stream, mut open) = connect().await?;
        if !open.share() {
            return Err(RequestError::Overloaded);
        }
        let encrypted = stream.is_tls();
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(FIRST_STREAMS)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(HEAD);
        let broken = |error: h2::Error| RequestError::Upstream(error.to_string().into());
        let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(broken)?;
        let link = Rc::new(Link {
            sender: RefCell::new(sender),
            busy: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            leaving: Cell::new(false),
            encrypted,
            suspect: Cell::new(false),
            task: RefCell::default(),
            _open: open,
        });
        tokio::task::spawn_local(drive(connection, Rc::downgrade(&link)));
        let busy = Busy::new(&link);
        self.open.borrow_mut().push(link);
        Ok(busy)
    }

    /// Closes what has been idle for so long. Says whether anything is left.
    pub(super) fn tidy(&self, idle: Duration) -> bool {
        let mut open = self.open.borrow_mut();
        // Nobody can ask for another stream then, and a connection that nobody can ask for anything ends by itself.
        open.retain(|link| !link.is_leaving() && (link.busy.get() > 0 || link.idle_since.get().elapsed() < idle));
        !open.is_empty() || self.opening.try_lock().is_err()
    }
}

/// The same error for another who waited for the same thing.
fn same(error: &RequestError) -> RequestError {
    match error {
        RequestError::ConnectTimeout(time) => RequestError::ConnectTimeout(*time),
        RequestError::Overloaded => RequestError::Overloaded,
        RequestError::Connect(error) => RequestError::Connect(std::io::Error::new(error.kind(), error.to_string())),
        error => RequestError::Upstream(error.to_string().into()),
    }
}

impl Link {
    fn is_leaving(&self) -> bool {
        if !self.leaving.get() {
            // It says so where the endpoint has ended the connection, or is about to, or there are no more numbers for streams.
            let ready = self.sender.borrow_mut().poll_ready(&mut Context::from_waker(Waker::noop()));
            self.leaving.set(matches!(ready, Poll::Ready(Err(_))));
        }
        self.leaving.get()
    }

    /// Streams that it has room for, with those that are there.
    fn room(&self) -> usize {
        self.sender.borrow().current_max_send_streams().min(STREAMS)
    }
}

impl Busy {
    fn new(link: &Rc<Link>) -> Busy {
        link.busy.set(link.busy.get() + 1);
        Busy(link.clone())
    }

    /// Whether nobody on the way can read it.
    pub(super) fn is_encrypted(&self) -> bool {
        self.0.encrypted
    }

    /// Sends the head of a request. `over`: there is no body.
    ///
    /// # Errors
    /// If the connection takes no more streams.
    pub(super) fn send(
        &self,
        request: Request<()>,
        over: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let sent = self.0.sender.borrow_mut().clone().send_request(request, over);
        if sent.is_err() {
            self.0.leaving.set(true);
        }
        sent
    }

    /// The endpoint has kept somebody waiting for too long: it is asked whether it is still there.
    pub(super) fn suspect(&self) {
        self.0.suspect.set(true);
        if let Some(task) = self.0.task.borrow_mut().take() {
            task.wake();
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

/// Moves a connection's bytes until it ends.
async fn drive(connection: Connection<Stream, Bytes>, link: Weak<Link>) {
    let mut driver = Driver::new(connection, link);
    poll_fn(|context| driver.poll(context)).await;
    if let Some(link) = driver.link.upgrade() {
        link.leaving.set(true);
    }
}

struct Driver {
    connection: Connection<Stream, Bytes>,
    link: Weak<Link>,
    ping: Option<PingPong>,
    pulse: Pulse,
    timer: Timer,
}

/// Whether the endpoint is still there.
#[derive(Clone, Copy)]
enum Pulse {
    /// It has said so then.
    Felt(Instant),
    /// It was asked then.
    Asked(Instant),
}

impl Driver {
    fn new(mut connection: Connection<Stream, Bytes>, link: Weak<Link>) -> Driver {
        let ping = connection.ping_pong();
        Driver { connection, link, ping, pulse: Pulse::Felt(Instant::now()), timer: Timer::default() }
    }

    /// Ready when the connection has ended, or is to be given up.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Poll::Ready(outcome) = Pin::new(&mut self.connection).poll(context) {
                if let Err(error) = outcome {
                    // Whoever waits for a response is told as well.
                    tracing::debug!(%error, "connection to an endpoint ended");
                }
                return Poll::Ready(());
            }
            let (Some(link), Some(ping)) = (self.link.upgrade(), &mut self.ping) else { return Poll::Pending };
            let task = &mut *link.task.borrow_mut();
            if !task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
                *task = Some(context.waker().clone());
            }
            if ping.poll_pong(context).is_ready() {
                self.pulse = Pulse::Felt(Instant::now());
                link.suspect.set(false);
            }
            let deadline = match self.pulse {
                Pulse::Asked(at) => at + PULSE_ANSWER,
                Pulse::Felt(at) if link.suspect.get() => at + DOUBT,
                Pulse::Felt(at) => at + PULSE,
            };
            if self.timer.poll(deadline, context).is_pending() {
                return Poll::Pending;
            }
            match self.pulse {
                Pulse::Asked(_) => {
                    tracing::debug!("an endpoint does not answer any more");
                    return Poll::Ready(());
                }
                // Nobody waits for it.
                Pulse::Felt(_) if link.busy.get() == 0 && !link.suspect.get() => {
                    self.pulse = Pulse::Felt(Instant::now())
                }
                Pulse::Felt(_) => {
                    // Fails only if one is under way.
                    let _ = ping.send_ping(Ping::opaque());
                    self.pulse = Pulse::Asked(Instant::now());
                }
            }
        }
    }
}
