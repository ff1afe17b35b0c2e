//! How a response goes to an HTTP/1 client.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use http::StatusCode;

use super::drain::Open;
use super::http1::poll_ahead;
use crate::http1::body::Link;
use crate::http1::head::Framing;
use crate::http1::{Connection, Shared, encode};
use crate::message::{BodyError, Frame, Known, Length, ResponseHead, Version};
use crate::proxy;
use crate::proxy::body::Body;
use crate::timer::Patience;

/// One request's facts that its response depends on.
pub(super) struct Asked {
    /// Its method is HEAD.
    pub(super) head: bool,
    /// What the client speaks.
    pub(super) version: Version,
    /// Whether the client wants to go on using the connection.
    pub(super) keep_alive: bool,
}

/// Whether nobody listens to an event stream any more: its clients never end just their own side.
fn poll_gone(link: &mut Link, context: &mut Context<'_>) -> bool {
    poll_ahead(link, context).is_err() || link.connection.has_ended()
}

/// Sends a response, and counts the bytes of its body. Says whether the connection can take another request.
pub(super) async fn respond(
    link: &Shared,
    mut head: ResponseHead,
    mut body: Body,
    asked: &Asked,
    mut patience: Patience,
    open: &mut Open,
    sent: &mut u64,
) -> io::Result<bool> {
    let mut keep = asked.keep_alive && poll_fn(|context| Poll::Ready(open.ending(context.waker()).is_none())).await;
    if keep && !link.borrow().reader.is_over() {
        // A body that is here already, and that nobody wanted, is no reason to close.
        keep = matches!(body, Body::Endpoint(_)) || poll_fn(|context| Poll::Ready(skip(link, context))).await;
        keep &= link.borrow().reader.is_over();
    }
    let framing = frame(&mut head, &body, asked);
    keep &= framing != Framing::UntilClose && !link.borrow().connection.has_ended();
    if !keep {
        head.fields.set(Known::Connection, b"close");
    } else if asked.version == Version::Http10 {
        head.fields.set(Known::Connection, b"keep-alive");
    }
    link.borrow_mut().connection.put_line(|out| encode::response(out, &head));
    if asked.head || framing == Framing::None {
        body = Body::Full(bytes::Bytes::new());
    }
    let stream = head.is_event_stream();
    let mut sending = Sending { body, framing, stream, may_wait: keep, over: false, put: 0, broken: None };
    let outcome = poll_fn(|context| sending.poll(link, &mut patience, context)).await;
    *sent = sending.put;
    match outcome {
        Ok(()) => Ok(keep),
        Err(error) => {
            // The end of the connection is all that tells this client the end of the body, so it must not look like one.
            if framing == Framing::UntilClose {
                link.borrow().connection.reset();
            }
            Err(error)
        }
    }
}

/// How a response's body goes to this client, and what its head says of that.
fn frame(head: &mut ResponseHead, body: &Body, asked: &Asked) -> Framing {
    let bodiless = head.status.is_informational() || head.status == StatusCode::NO_CONTENT;
    if bodiless {
        head.fields.remove(Known::ContentLength);
        return Framing::None;
    }
    // What the length would be, if the endpoint said so.
    if head.status == StatusCode::NOT_MODIFIED || asked.head && matches!(body, Body::Endpoint(_)) {
        return Framing::None;
    }
    match body.length() {
        Length::Known(length) => {
            head.fields.set(Known::ContentLength, encode::itoa(length, &mut [0; 20]));
            if length == 0 { Framing::None } else { Framing::Length(length) }
        }
        Length::Unknown => {
            head.fields.remove(Known::ContentLength);
            if asked.version == Version::Http10 {
                return Framing::UntilClose;
            }
            head.fields.set(Known::TransferEncoding, b"chunked");
            Framing::Chunked
        }
    }
}

/// Takes in what has arrived of a body that nobody reads. Says whether that was all of it.
fn skip(link: &Shared, context: &mut Context<'_>) -> bool {
    let Link { connection, reader } = &mut *link.borrow_mut();
    for _ in 0..16 {
        match reader.poll_frame(connection, context) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(None) => return true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => return false,
        }
    }
    reader.is_over()
}

/// A response's body on its way to the client.
struct Sending {
    body: Body,
    framing: Framing,
    /// It may be silent for long, and somebody who is gone is noticed only by listening.
    stream: bool,
    /// Nothing was written yet, and the connection stays.
    may_wait: bool,
    over: bool,
    /// Bytes of the body so far.
    put: u64,
    /// What the body ended with instead of its end.
    broken: Option<BodyError>,
}

impl Sending {
    /// Ready once everything is written.
    ///
    /// # Errors
    /// If the connection, the body or the client's patience fails: the response is incomplete then.
    fn poll(&mut self, link: &Shared, patience: &mut Patience, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut starved = false;
            // What comes in small pieces goes in larger ones.
            while !self.over && !starved && self.broken.is_none() && link.borrow().connection.has_room() {
                // Not while the connection is borrowed: the body may be waiting for more of the request.
                match self.body.poll_frame(context) {
                    Poll::Ready(Some(Ok(frame))) => self.put(&mut link.borrow_mut().connection, frame),
                    Poll::Ready(None) => self.end(&mut link.borrow_mut().connection),
                    Poll::Ready(Some(Err(error))) => self.broken = Some(error),
                    Poll::Pending => starved = true,
                }
            }
            let mut moved = 0;
            let flushed = match std::mem::take(&mut self.may_wait) && self.over {
                true => link.borrow_mut().connection.poll_flush_later(context, &mut moved),
                false => link.borrow_mut().connection.poll_flush(context, &mut moved),
            };
            if moved > 0 {
                patience.moved(moved);
            }
            if matches!(flushed, Poll::Ready(Ok(())))
                && let Some(error) = self.broken.take()
            {
                // What came before it is with the client.
                return Poll::Ready(Err(io::Error::other(error)));
            }
            match flushed {
                Poll::Ready(Ok(())) if self.over => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if starved => {
                    patience.rest();
                    if self.stream && poll_gone(&mut link.borrow_mut(), context) {
                        return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.body.rest();
                    ready!(link.borrow_mut().connection.timer.poll(patience.deadline(), context));
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly")));
                }
            }
        }
    }

    fn put(&mut self, connection: &mut Connection, frame: Frame) {
        if let Frame::Data(data) = &frame {
            self.put += data.len() as u64;
        }
        match (frame, self.framing) {
            (Frame::Data(data), Framing::Chunked) => connection.put_chunk(data),
            (Frame::Data(data), _) => {
                connection.put(data);
                self.over = self.framing != Framing::UntilClose && self.body.length() == Length::Known(0);
            }
            (Frame::Trailers(mut trailers), Framing::Chunked) => {
                proxy::headers::trailers(&mut trailers);
                connection.put_line(|out| encode::last_chunk(out, Some(&trailers)));
                self.over = true;
            }
            // There is no place for them.
            (Frame::Trailers(_), _) => self.over = true,
        }
    }

    fn end(&mut self, connection: &mut Connection) {
        if self.framing == Framing::Chunked {
            connection.put_line(|out| encode::last_chunk(out, None));
        }
        self.over = true;
    }
}
