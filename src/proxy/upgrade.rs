//! Connections that go on in another protocol, such as WebSocket: bytes both ways until both sides have ended.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::upstream::Switched;
use super::websocket::{self, Frames};
use crate::http1::Connection;
use crate::http2;
use crate::timer::Timer;

/// How long the two sides of a WebSocket have to say goodbye when the gateway ends.
const GOODBYE: Duration = Duration::from_secs(2);

/// An endpoint's half of a tunnel, waiting for the client's.
pub struct Tunnel {
    switched: Switched,
    idle: Duration,
    websocket: bool,
}

/// One side of a tunnel.
pub enum Duplex {
    /// A whole connection.
    Http1(Box<Connection>),
    /// One stream of a connection to an endpoint.
    Http2(Box<http2::Duplex>),
    /// One stream of a client's connection.
    Client(Box<http2::Passage>),
}

impl Tunnel {
    /// A tunnel to the endpoint that has switched to `protocol`. `idle`: how long it may be silent.
    pub fn new(switched: Switched, protocol: &str, idle: Duration) -> Tunnel {
        Tunnel { switched, idle, websocket: protocol.eq_ignore_ascii_case("websocket") }
    }

    /// Passes bytes on until both sides have ended, one has failed, or nothing came for too long. `ending` says since when
    /// the gateway has been ending, if it is: both sides of a WebSocket are told then, others have to find out.
    ///
    /// # Errors
    /// What ended it otherwise than by the will of both.
    pub async fn run(self, client: Duplex, mut ending: impl FnMut(&Waker) -> Option<Instant>) -> io::Result<()> {
        let Switched { stream: mut endpoint, inflight: _inflight, held: _held } = self.switched;
        let mut client = client;
        let frames = || self.websocket.then(Frames::default);
        let mask = Some(fastrand::u32(..).to_ne_bytes());
        let mut up = Pipe { frames: frames(), goodbye: websocket::goodbye(mask), stage: Stage::Open };
        let mut down = Pipe { frames: frames(), goodbye: websocket::goodbye(None), stage: Stage::Open };
        let (mut timer, mut last) = (Timer::default(), Instant::now());
        poll_fn(|context| {
            let since = ending(context.waker()).filter(|_| self.websocket);
            let mut moved = false;
            let there = up.poll(&mut client, &mut endpoint, since.is_some(), &mut moved, context)?;
            let back = down.poll(&mut endpoint, &mut client, since.is_some(), &mut moved, context)?;
            if there.is_ready() && back.is_ready() {
                return Poll::Ready(Ok(()));
            }
            if moved {
                last = Instant::now();
            }
            ready!(timer.poll(since.map_or(last + self.idle, |since| since + GOODBYE), context));
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }
}

/// One direction of a tunnel.
struct Pipe {
    /// Where in a frame it is, if it is a WebSocket.
    frames: Option<Frames>,
    goodbye: Bytes,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// The writer was told goodbye; what else the reader says has nowhere to go.
    Goodbye,
    /// The reader has ended; the writer is to be told.
    Ended,
    Over,
}

impl Pipe {
    /// Ready once this direction has ended, and the other side knows.
    fn poll(
        &mut self,
        from: &mut Duplex,
        to: &mut Duplex,
        ending: bool,
        moved: &mut bool,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(to.poll_flush(context))?;
            match self.stage {
                Stage::Over => return Poll::Ready(Ok(())),
                Stage::Ended => {
                    ready!(to.poll_shutdown(context))?;
                    self.stage = Stage::Over;
                }
                Stage::Open if ending && self.frames.as_ref().is_some_and(Frames::at_boundary) => {
                    to.put(self.goodbye.clone());
                    self.stage = Stage::Goodbye;
                }
                Stage::Open => {
                    let mut piece = ready!(from.poll_read(context))?;
                    if piece.is_empty() {
                        self.stage = Stage::Ended;
                        continue;
                    }
                    *moved = true;
                    match &mut self.frames {
                        Some(frames) if ending => piece.truncate(frames.to_boundary(&piece)),
                        Some(frames) => frames.pass(&piece),
                        None => {}
                    }
                    to.put(piece);
                }
                Stage::Goodbye => {
                    if ready!(from.poll_read(context))?.is_empty() {
                        self.stage = Stage::Ended;
                    }
                }
            }
        }
    }
}

impl Duplex {
    /// The next bytes; none at the end.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        match self {
            Duplex::Http1(connection) => {
                if connection.input.is_empty() {
                    ready!(connection.poll_body(context))?;
                }
                Poll::Ready(Ok(connection.input.split().freeze()))
            }
            Duplex::Http2(stream) => stream.poll_read(context),
            Duplex::Client(stream) => stream.poll_read(),
        }
    }

    /// Takes a piece to be written; only when everything before is flushed.
    fn put(&mut self, piece: Bytes) {
        match self {
            Duplex::Http1(connection) => connection.put(piece),
            Duplex::Http2(stream) => stream.put(piece),
            Duplex::Client(stream) => stream.put(piece),
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Duplex::Http1(connection) => connection.poll_flush(context, &mut 0),
            Duplex::Http2(stream) => stream.poll_flush(context),
            Duplex::Client(stream) => stream.poll_flush(context),
        }
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Duplex::Http1(connection) => connection.poll_shutdown(context),
            Duplex::Http2(stream) => stream.poll_shutdown(context),
            Duplex::Client(stream) => stream.poll_shutdown(context),
        }
    }
}
