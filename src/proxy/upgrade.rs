//! Connections that go on in another protocol, such as WebSocket: bytes both ways until both sides have ended.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::upstream::Switched;
use crate::http1::Connection;
use crate::http2;
use crate::timer::Timer;

/// An endpoint's half of a tunnel, waiting for the client's.
pub struct Tunnel {
    switched: Switched,
    idle: Duration,
}

/// One side of a tunnel.
pub enum Duplex {
    /// A whole connection.
    Http1(Connection),
    /// One stream of a connection.
    Http2(http2::Duplex),
}

impl Tunnel {
    /// A tunnel to the endpoint that has switched. `idle`: how long it may be silent.
    pub fn new(switched: Switched, idle: Duration) -> Tunnel {
        Tunnel { switched, idle }
    }

    /// Passes bytes on until both sides have ended, one has failed, or nothing came for too long.
    ///
    /// # Errors
    /// What ended it otherwise than by the will of both.
    pub async fn run(self, mut client: Duplex) -> io::Result<()> {
        let Switched { connection, inflight: _inflight } = self.switched;
        let mut endpoint = Duplex::Http1(*connection);
        let (mut up, mut down) = (Pipe::Open, Pipe::Open);
        let (mut timer, mut last) = (Timer::default(), Instant::now());
        poll_fn(|context| {
            let mut moved = false;
            let there = up.poll(&mut client, &mut endpoint, &mut moved, context)?;
            let back = down.poll(&mut endpoint, &mut client, &mut moved, context)?;
            if there.is_ready() && back.is_ready() {
                return Poll::Ready(Ok(()));
            }
            if moved {
                last = Instant::now();
            }
            ready!(timer.poll(last + self.idle, context));
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }
}

/// One direction of a tunnel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pipe {
    Open,
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
        moved: &mut bool,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(to.poll_flush(context))?;
            match self {
                Pipe::Over => return Poll::Ready(Ok(())),
                Pipe::Ended => {
                    ready!(to.poll_shutdown(context))?;
                    *self = Pipe::Over;
                }
                Pipe::Open => {
                    let piece = ready!(from.poll_read(context))?;
                    if piece.is_empty() {
                        *self = Pipe::Ended;
                    } else {
                        *moved = true;
                        to.put(piece);
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
        }
    }

    /// Takes a piece to be written; only when everything before is flushed.
    fn put(&mut self, piece: Bytes) {
        match self {
            Duplex::Http1(connection) => connection.put(piece),
            Duplex::Http2(stream) => stream.put(piece),
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Duplex::Http1(connection) => connection.poll_flush(context, &mut 0),
            Duplex::Http2(stream) => stream.poll_flush(context),
        }
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Duplex::Http1(connection) => connection.poll_shutdown(context),
            Duplex::Http2(stream) => stream.poll_shutdown(context),
        }
    }
}
