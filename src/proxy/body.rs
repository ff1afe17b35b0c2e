//! Bodies on their way through: never gathered, only passed on, piece by piece, as fast as the slower side takes
//! them.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::upstream;

/// What a client receives.
pub enum Body {
    /// An answer of our own; empty once it is sent.
    Full(Bytes),
    /// An endpoint's response.
    Upstream(upstream::ResponseBody),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = upstream::BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Body::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Body::Upstream(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Full(bytes) => bytes.is_empty(),
            Body::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Upstream(body) => body.size_hint(),
        }
    }
}

/// What an endpoint receives.
pub enum Outgoing {
    /// A request without a body, which can be sent again.
    Empty,
    /// The client's, as it arrives, and how far it is.
    Stream(Incoming, Rc<Progress>),
}

/// How far a request's body is.
pub struct Progress {
    last: Cell<Instant>,
    state: Cell<Upload>,
}

/// Whose turn it is in an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    /// The client's: there was nothing to send on.
    Client,
    /// The endpoint's: it has not taken what there was.
    Endpoint,
    /// Everything is sent.
    Over,
}

impl Outgoing {
    /// A client's body; one that is already over is none.
    pub fn new(body: Incoming) -> Outgoing {
        if body.is_end_stream() {
            return Outgoing::Empty;
        }
        let progress = Progress { last: Cell::new(Instant::now()), state: Cell::new(Upload::Endpoint) };
        Outgoing::Stream(body, Rc::new(progress))
    }

    /// How far it is; none if there is nothing to send.
    pub fn progress(&self) -> Option<Rc<Progress>> {
        match self {
            Outgoing::Empty => None,
            Outgoing::Stream(_, progress) => Some(progress.clone()),
        }
    }
}

impl Progress {
    /// Whose turn it is, and since when.
    pub fn now(&self) -> (Upload, Instant) {
        (self.state.get(), self.last.get())
    }

    /// Counts from now.
    pub fn start(&self) {
        self.last.set(Instant::now());
    }

    fn to(&self, state: Upload) {
        self.state.set(state);
        self.last.set(Instant::now());
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Outgoing::Stream(body, progress) = self.get_mut() else { return Poll::Ready(None) };
        let frame = Pin::new(&mut *body).poll_frame(context);
        match &frame {
            Poll::Pending if progress.state.get() == Upload::Client => {}
            Poll::Pending => progress.to(Upload::Client),
            Poll::Ready(Some(Ok(_))) if !body.is_end_stream() => progress.to(Upload::Endpoint),
            Poll::Ready(_) => progress.to(Upload::Over),
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Empty => true,
            Outgoing::Stream(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Empty => SizeHint::with_exact(0),
            Outgoing::Stream(body, _) => body.size_hint(),
        }
    }
}
