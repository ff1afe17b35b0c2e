//! One HTTP/2 connection of a client: its streams, and what ends it. What happens on one stream is in [`super::stream`].

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::{Ping, PingPong, Reason};

use super::drain::Open;
use super::stream::{self, Setup};
use crate::config::limits::Limits;
use crate::http2::Guard;
use crate::http2::guard::{Ledger, Offence};
use crate::proxy::Worker;
use crate::proxy::headers::Client;
use crate::stream::Stream;
use crate::timer::Timer;

/// Bytes that a client may send on a stream before somebody takes them. With a round trip of 50 ms that is an upload of
/// 5 MB a second; what it costs us is only spent where an endpoint is slower than its client.
const STREAM_WINDOW: u32 = 256 << 10;

/// The same for all streams of a connection together: four slow uploads do not hold up the fifth, and a connection of
/// nothing but uploads that nobody takes is a megabyte.
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Bytes of a stream that wait for the connection to take them.
const SEND_BUFFER: usize = 64 << 10;

/// With streams open and nothing heard for this long, the client is asked whether it is still there.
const PULSE: Duration = Duration::from_secs(30);

/// How long it may take to answer.
const PULSE_ANSWER: Duration = Duration::from_secs(20);

/// How long a connection without streams may take to end once both sides have been told.
const GRACE: Duration = Duration::from_secs(5);

/// How long one that must end may take to be told why.
const FAREWELL: Duration = Duration::from_secs(1);

/// Streams that are begun before others of this worker have a turn.
const TURN: usize = 32;

/// Why a connection ended.
#[derive(Debug)]
pub enum End {
    /// Both sides wanted it.
    Over,
    /// The client broke the protocol, or the connection failed.
    Failed(h2::Error),
    /// The client did too much of something.
    Abuse(Offence),
    /// The client did nothing where it had to do something.
    Silent(&'static str),
}

/// Serves a connection to its end. `read`: what was read of it already.
pub async fn serve(link: Stream, read: BytesMut, worker: Rc<Worker>, client: Rc<Client>, open: &mut Open) -> End {
    let rules = worker.snapshot().rules.clone();
    let limits = &rules.limits;
    let ledger = Rc::new(RefCell::new(Ledger::new(&limits.http2)));
    let guard = Guard::new(link, read, ledger.clone());
    let handshake = settings(limits).handshake::<_, Bytes>(guard);
    let mut link = match tokio::time::timeout(limits.header_timeout.0, handshake).await {
        Ok(Ok(link)) => link,
        Ok(Err(error)) => return End::Failed(error),
        Err(_) => return End::Silent("the preface did not come"),
    };
    let mut connection = Connection {
        ping: link.ping_pong(),
        link,
        setup: Rc::new(Setup::new(worker, client, open.drain().clone(), limits)),
        ledger,
        header: limits.header_timeout.0,
        idle: limits.idle_timeout.0,
        pulse: Pulse::Quiet(Instant::now()),
        idle_since: None,
        stage: Stage::Serving,
        timer: Timer::default(),
    };
    poll_fn(|context| connection.poll(open, context)).await
}

fn settings(limits: &Limits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    let resets = limits.http2.resets as usize;
    builder
        .max_concurrent_streams(limits.http2.streams)
        .max_header_list_size(limits.header_size.0 as u32)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        // Streams reset before we have looked at them once: less than what the guard counts within its time.
        .max_pending_accept_reset_streams(resets)
        // Counted for the whole life of a connection, which may be days; the guard counts them within its time.
        .max_local_error_reset_streams(None)
        .enable_connect_protocol();
    builder
}

/// One connection.
struct Connection {
    link: h2::server::Connection<Guard<Stream>, Bytes>,
    setup: Rc<Setup>,
    ledger: Rc<RefCell<Ledger>>,
    /// How long a header block may take.
    header: Duration,
    /// How long the connection may be without streams, and writing without progress.
    idle: Duration,
    ping: Option<PingPong>,
    pulse: Pulse,
    /// Since when there is no stream.
    idle_since: Option<Instant>,
    stage: Stage,
    timer: Timer,
}

/// Whether the client is still there.
#[derive(Clone, Copy)]
enum Pulse {
    /// Something was heard since this.
    Quiet(Instant),
    /// It was asked then.
    Asked(Instant),
}

/// How far the end of a connection is.
#[derive(Clone, Copy)]
enum Stage {
    Serving,
    /// The client was told to open no more streams.
    Ending,
    /// It must be over by then, for this reason.
    Closing(Instant, Offence),
}

impl Connection {
    fn poll(&mut self, open: &mut Open, context: &mut Context<'_>) -> Poll<End> {
        if open.ending(context.waker()).is_some() {
            self.end();
        }
        for turn in 0.. {
            if turn == TURN {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.link.poll_accept(context) {
                Poll::Ready(Some(Ok((request, respond)))) => stream::begin(&self.setup, request, respond),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(self.ended(Some(error))),
                Poll::Ready(None) => return Poll::Ready(self.ended(None)),
                Poll::Pending if self.offended() => {}
                Poll::Pending => break,
            }
        }
        self.poll_time(context)
    }

    fn ended(&self, error: Option<h2::Error>) -> End {
        match (self.stage, error) {
            (Stage::Closing(_, offence), _) => End::Abuse(offence),
            (_, Some(error)) => End::Failed(error),
            (_, None) => End::Over,
        }
    }

    /// Tells the client to open no more streams; those that are open are finished (RFC 9113, section 6.8).
    fn end(&mut self) {
        if matches!(self.stage, Stage::Serving) {
            self.stage = Stage::Ending;
            self.link.graceful_shutdown();
        }
    }

    /// Whether the client has just done too much of something, and is being told.
    fn offended(&mut self) -> bool {
        let offence = self.ledger.borrow().offence();
        match (offence, self.stage) {
            (Some(offence), Stage::Serving | Stage::Ending) => {
                self.stage = Stage::Closing(Instant::now() + FAREWELL, offence);
                self.link.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                true
            }
            _ => false,
        }
    }

    /// Ready when the client has kept us waiting for too long.
    fn poll_time(&mut self, context: &mut Context<'_>) -> Poll<End> {
        loop {
            let now = Instant::now();
            let busy = self.link.has_streams();
            self.idle_since = if busy { None } else { Some(self.idle_since.unwrap_or(now)) };
            let (deadline, what) = self.deadline(busy, now, context);
            if self.timer.poll(deadline, context).is_pending() {
                return Poll::Pending;
            }
            match what {
                What::Offence(offence) => return Poll::Ready(End::Abuse(offence)),
                What::Dead(why) => return Poll::Ready(End::Silent(why)),
                What::Idle => {
                    self.end();
                    // The end is to be written.
                    context.waker().wake_by_ref();
                }
                What::Ask => {
                    self.pulse = Pulse::Asked(now);
                    if let Some(ping) = &mut self.ping {
                        // Fails only if one is under way.
                        let _ = ping.send_ping(Ping::opaque());
                    }
                }
            }
        }
    }

    /// What is waited for that must come first, and until when.
    fn deadline(&mut self, busy: bool, now: Instant, context: &mut Context<'_>) -> (Instant, What) {
        let ledger = &mut *self.ledger.borrow_mut();
        if let Stage::Closing(until, offence) = self.stage {
            return (until, What::Offence(offence));
        }
        if let Some(ping) = &mut self.ping {
            // Nothing else makes room for the next one.
            let _ = ping.poll_pong(context);
        }
        if ledger.heard() || !busy {
            self.pulse = Pulse::Quiet(now);
        }
        let mut first = match self.pulse {
            Pulse::Quiet(since) => (since + PULSE, What::Ask),
            Pulse::Asked(since) => (since + PULSE_ANSWER, What::Dead("it does not answer")),
        };
        let mut at = |since: Option<Instant>, limit: Duration, what: What| {
            if let Some(since) = since
                && since + limit < first.0
            {
                first = (since + limit, what);
            }
        };
        at(ledger.block_since(), self.header, What::Dead("a request's head did not come to its end"));
        at(ledger.stalled_since(), self.idle, What::Dead("it reads nothing"));
        match self.stage {
            Stage::Serving => at(self.idle_since, self.idle, What::Idle),
            _ => at(self.idle_since, GRACE, What::Dead("it does not end")),
        }
        first
    }
}

/// What a deadline means.
enum What {
    Offence(Offence),
    Dead(&'static str),
    Idle,
    Ask,
}
