//! Bodies on their way through: never gathered, only passed on, piece by piece, as fast as the slower side takes
//! them.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::headers;
use super::shown::{Audience, Through};
use super::upgrade::Tunnel;
use super::upstream::ResponseBody;
use crate::http2::respond::Source;
use crate::message::{BodyError, Frame, Length, ResponseHead};
use crate::{http1, http2};

/// What a client sends behind a request's head.
pub struct Upload {
    from: From,
    /// Bytes that may still come; none: any number.
    limit: Option<u64>,
}

/// Where an upload comes from.
pub enum From {
    /// There is none.
    Nowhere,
    /// An HTTP/1 client.
    Http1(http1::Incoming),
    /// An HTTP/2 client.
    Http2(http2::Exchange),
    /// What filters have made of all of it; empty once it is sent.
    Full(Bytes),
    /// Whatever of these, through the filters that see it.
    Shown(Box<Through<Upload>>),
}

impl Upload {
    /// What comes from there.
    pub fn new(from: From) -> Upload {
        Upload { from, limit: None }
    }

    /// Nothing.
    pub fn none() -> Upload {
        Upload::new(From::Nowhere)
    }

    /// What comes from here, through these filters.
    pub fn shown(self, audience: Audience) -> Upload {
        Upload::new(From::Shown(Box::new(audience.through(self))))
    }

    /// Lets no more than so many bytes through; zero: any number. Says whether the client has announced more.
    pub fn limit(&mut self, bytes: u64) -> bool {
        self.limit = (bytes > 0).then_some(bytes);
        matches!((self.length(), self.limit), (Length::Known(length), Some(limit)) if length > limit)
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        match &self.from {
            From::Nowhere => true,
            From::Http1(body) => body.is_over(),
            From::Http2(body) => body.is_over(),
            From::Full(bytes) => bytes.is_empty(),
            From::Shown(body) => body.is_over(),
        }
    }

    /// How much is left.
    pub fn length(&self) -> Length {
        match &self.from {
            From::Nowhere => Length::Known(0),
            From::Http1(body) => body.length(),
            From::Http2(body) => body.length(),
            From::Full(bytes) => Length::Known(bytes.len() as u64),
            From::Shown(body) => body.length(),
        }
    }

    /// Whoever takes it is slow.
    pub fn rest(&mut self) {
        match &mut self.from {
            From::Http1(body) => body.rest(),
            From::Shown(body) => body.source.rest(),
            From::Nowhere | From::Http2(_) | From::Full(_) => {}
        }
    }

    /// The next piece; none at the end.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let frame = match &mut self.from {
            From::Nowhere => return Poll::Ready(None),
            From::Http1(body) => body.poll_frame(context),
            From::Http2(body) => body.poll_frame(),
            From::Full(bytes) if bytes.is_empty() => return Poll::Ready(None),
            From::Full(bytes) => return Poll::Ready(Some(Ok(Frame::Data(std::mem::take(bytes))))),
            From::Shown(body) => return body.poll_frame(context),
        };
        if let (Poll::Ready(Some(Ok(Frame::Data(data)))), Some(limit)) = (&frame, &mut self.limit) {
            match limit.checked_sub(data.len() as u64) {
                Some(left) => *limit = left,
                None => return Poll::Ready(Some(Err(BodyError::TooLarge))),
            }
        }
        frame
    }
}

/// What a client receives behind a response's head.
pub enum Body {
    /// Nothing, or an answer of our own; empty once it is sent.
    Full(Bytes),
    /// An endpoint's response.
    Endpoint(ResponseBody),
    /// An endpoint's response, through the filters that see it.
    Shown(Box<Through<Body>>),
    /// The connection goes on in another protocol.
    Tunnel(Box<Tunnel>),
}

impl Body {
    /// How much is left.
    pub fn length(&self) -> Length {
        match self {
            Body::Full(bytes) => Length::Known(bytes.len() as u64),
            Body::Endpoint(body) => body.length(),
            Body::Shown(body) => body.length(),
            Body::Tunnel(_) => Length::Known(0),
        }
    }

    /// The next piece; none at the end.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self {
            Body::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Full(bytes) => Poll::Ready(Some(Ok(Frame::Data(std::mem::take(bytes))))),
            Body::Endpoint(body) => body.poll_frame(context),
            Body::Shown(body) => body.poll_frame(context),
            Body::Tunnel(_) => Poll::Ready(None),
        }
    }

    /// Whether nothing is left, not even trailers.
    pub fn is_over(&self) -> bool {
        match self {
            Body::Full(bytes) => bytes.is_empty(),
            Body::Endpoint(body) => body.is_over(),
            Body::Shown(body) => body.is_over(),
            Body::Tunnel(_) => true,
        }
    }

    /// The client takes its time: what comes meanwhile is not late.
    pub fn rest(&mut self) {
        match self {
            Body::Endpoint(body) => body.rest(),
            Body::Shown(body) => body.source.rest(),
            Body::Full(_) | Body::Tunnel(_) => {}
        }
    }
}

impl Source for Body {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let mut frame = self.poll_frame(context);
        if let Poll::Ready(Some(Ok(Frame::Trailers(fields)))) = &mut frame {
            headers::trailers(fields);
        }
        frame
    }

    fn is_over(&self) -> bool {
        self.is_over()
    }

    fn meanwhile(&mut self, context: &mut Context<'_>) {
        match self {
            Body::Endpoint(body) => {
                body.rest();
                body.poll_upload(context);
            }
            Body::Shown(body) => body.source.meanwhile(context),
            Body::Full(_) | Body::Tunnel(_) => {}
        }
    }
}

/// How a client is told something before the response: `100 Continue`, `103 Early Hints` (RFC 9110, section 15.2).
pub enum Interim {
    /// Not at all: HTTP/1.0 has nothing of the kind.
    No,
    /// An HTTP/1 client.
    Http1(http1::Shared),
    /// An HTTP/2 client.
    Http2(http2::Exchange),
}

impl Interim {
    /// Tells the client, without waiting for it to listen: what it does not take now goes before the response, and what
    /// there is no room for is no loss.
    pub async fn send(&self, head: &ResponseHead) {
        match self {
            Interim::No => {}
            Interim::Http2(stream) => stream.tell(head),
            Interim::Http1(link) => {
                let flush = |context: &mut Context<'_>| {
                    let connection = &mut link.borrow_mut().connection;
                    if connection.has_room() {
                        connection.put_line(|out| http1::encode::response(out, head));
                        // A connection that fails is noticed by whoever sends the response.
                        let _ = connection.poll_flush(context, &mut 0);
                    }
                    Poll::Ready(())
                };
                std::future::poll_fn(flush).await;
            }
        }
    }
}
