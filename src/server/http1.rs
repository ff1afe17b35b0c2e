//! One HTTP/1 connection of a client: request after request, until one of both wants no more.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use http::{Method, StatusCode};

use super::drain::Open;
use crate::error::RequestError;
use crate::http1::body::{Link, Reader};
use crate::http1::head::{self, Framing, Limits};
use crate::http1::{Connection, Incoming, Shared, encode};
use crate::http2::PREFACE;
use crate::message::{Frame, Known, Length, ResponseHead, Version};
use crate::proxy::body::{Body, From, Interim, Upload};
use crate::proxy::headers::Client;
use crate::proxy::upgrade::Duplex;
use crate::proxy::{self, Request, Response, Worker, reply};
use crate::snapshot::Rules;
use crate::stream::Stream;
use crate::timer::{self, Patience};

/// After the last response: how long, and how many bytes, to listen to a client that still sends. Closing at once would
/// make its system discard the response unread (RFC 9112, section 9.6).
const LINGER: (Duration, usize) = (Duration::from_secs(2), 1 << 20);

/// How long a connection with nothing on it stays when all are to end. A request that is under way to us when we close is
/// lost, and the client may not dare to repeat it; one that comes in this time is answered, with `Connection: close`.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long a client that has ended its side waits for the head of a response. `nc` and scripts end theirs once they have
/// asked; others that end theirs have given up, and their requests would keep endpoints busy for nothing.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// What may be read ahead while a request is worked on: what the client has pipelined.
const AHEAD: usize = 16 << 10;

/// What became of a connection.
pub enum Outcome {
    /// It has ended.
    Over,
    /// The client speaks HTTP/2, as these bytes of it say.
    Http2(Stream, BytesMut),
}

/// What a client's side of a connection has come to.
enum Next {
    Request(Box<head::Request>),
    Refused(RequestError),
    Http2,
    Closed,
}

/// One request's facts that its response depends on.
struct Asked {
    head: bool,
    version: Version,
    keep_alive: bool,
}

/// Serves a connection to its end. `either`: the client may also speak HTTP/2, which its first bytes tell.
///
/// # Errors
/// What ended it otherwise than the two sides wanted.
pub async fn serve(
    stream: Stream,
    either: bool,
    worker: &Worker,
    client: &Client,
    open: &mut Open,
) -> io::Result<Outcome> {
    let link = Link { connection: Connection::new(stream), reader: Reader::Over };
    let link: Shared = Rc::new(RefCell::new(link));
    let mut first = true;
    timer::now();
    let mut rules = worker.snapshot().rules.clone();
    loop {
        // All workers count those who hold them, so not for each request anew.
        let latest = worker.snapshot();
        if !Arc::ptr_eq(&rules, &latest.rules) {
            rules = latest.rules.clone();
        }
        drop(latest);
        let mut waiting = Waiting { seen: 0, began: None, since: timer::recent(), first, either: first && either };
        let next = poll_fn(|context| poll_request(&mut link.borrow_mut(), &mut waiting, &rules, open, context)).await?;
        first = false;
        let request = match next {
            Next::Request(request) => *request,
            Next::Closed => return Ok(Outcome::Over),
            Next::Http2 => {
                let (stream, input) = take(link)?.connection.into_parts();
                return Ok(Outcome::Http2(stream, input));
            }
            Next::Refused(error) => return refuse(&link, worker, client, &error).await.map(|()| Outcome::Over),
        };
        let asked = Asked {
            head: request.head.method == Method::HEAD,
            version: request.head.version,
            keep_alive: request.keep_alive,
        };
        let working = pin!(proxy::handle(worker, client, received(request, &link)));
        let Some(response) = unless_gone(&link, working).await else { return Ok(Outcome::Over) };
        let Response { head, body, idle, place, mut note } = response;
        if let Body::Tunnel(tunnel) = body {
            encode::response(&mut link.borrow_mut().connection.output, &head);
            let connection = Box::new(take(link)?.connection);
            drop(place);
            note.iter_mut().for_each(|note| note.sent(0, true));
            drop(note);
            return tunnel.run(Duplex::Http1(connection), |waker| open.ending(waker)).await.map(|()| Outcome::Over);
        }
        let patience = Patience::new(idle, rules.limits.min_rate.0);
        let mut sent = 0;
        let responded = respond(&link, head, body, &asked, patience, open, &mut sent).await;
        note.iter_mut().for_each(|note| note.sent(sent, responded.is_ok()));
        drop((place, note));
        if !responded? {
            return linger(&link).await.map(|()| Outcome::Over);
        }
    }
}

/// The connection, which nobody else holds any more.
fn take(link: Shared) -> io::Result<Link> {
    Rc::try_unwrap(link).map(RefCell::into_inner).map_err(|_| io::Error::other("the connection is still being read"))
}

fn received(request: head::Request, link: &Shared) -> Request {
    let head::Request { mut head, framing, .. } = request;
    head.upgrade = head::upgrade(&head, framing);
    link.borrow_mut().reader = Reader::new(framing);
    let from = if framing == Framing::None { From::Nowhere } else { From::Http1(Incoming::new(link)) };
    let interim = if head.version == Version::Http10 { Interim::No } else { Interim::Http1(link.clone()) };
    Request { head, upload: Upload::new(from), interim }
}

/// How far the next request is.
struct Waiting {
    seen: usize,
    /// When its first byte was seen.
    began: Option<Instant>,
    since: Instant,
    /// Nothing was asked on this connection before.
    first: bool,
    /// It may be HTTP/2.
    either: bool,
}

fn poll_request(
    link: &mut Link,
    waiting: &mut Waiting,
    rules: &Rules,
    open: &mut Open,
    context: &mut Context<'_>,
) -> Poll<io::Result<Next>> {
    let connection = &mut link.connection;
    loop {
        if !connection.input.is_empty() {
            if let Some(next) = take_request(connection, waiting, rules) {
                return Poll::Ready(Ok(next));
            }
            waiting.began.get_or_insert_with(Instant::now);
        }
        match connection.poll_head(context) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Next::Closed)),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => break,
        }
    }
    let (header, idle) = (rules.limits.header_timeout.0, rules.limits.idle_timeout.0);
    let deadline = match (waiting.began, open.ending(context.waker())) {
        (Some(began), _) => began + header,
        (None, Some(since)) => since + LAST_CALL,
        (None, None) if waiting.first => waiting.since + header,
        (None, None) => waiting.since + idle,
    };
    ready!(connection.timer.poll(deadline, context));
    Poll::Ready(Ok(match waiting.began {
        // Nobody waits for an answer.
        None => Next::Closed,
        Some(_) => Next::Refused(RequestError::ClientHead(header)),
    }))
}

/// A request, if its head has arrived.
fn take_request(connection: &mut Connection, waiting: &mut Waiting, rules: &Rules) -> Option<Next> {
    let input = &mut connection.input;
    if waiting.either {
        let here = input.len().min(PREFACE.len());
        // From here on it can be no HTTP/1: `PRI` with this version is reserved.
        if input[..here] == PREFACE[..here] {
            return (here == PREFACE.len()).then_some(Next::Http2);
        }
    }
    let limits = Limits {
        head: rules.limits.header_size.0 as usize,
        fields: rules.limits.headers as usize,
        target: rules.limits.uri.0 as usize,
    };
    let length = match head::end(input, &mut waiting.seen, limits.head) {
        Ok(Some(length)) => length,
        Ok(None) => return None,
        Err(head::HeadError::TooLarge) => return Some(Next::Refused(head::too_large(input, &limits).into())),
        Err(error) => return Some(Next::Refused(error.into())),
    };
    let request = head::request(&input[..length], &limits);
    input.advance(length);
    Some(match request {
        Ok(request) => Next::Request(Box::new(request)),
        Err(error) => Next::Refused(error.into()),
    })
}

/// Waits for the response, unless the client leaves meanwhile. One that has only ended its own side still wants to hear, but
/// looks like one that has left: so it is answered if the answer comes soon.
async fn unless_gone(link: &Shared, mut working: Pin<&mut impl Future<Output = Response>>) -> Option<Response> {
    let mut ended = None;
    poll_fn(|context| {
        if let Poll::Ready(response) = working.as_mut().poll(context) {
            return Poll::Ready(Some(response));
        }
        let link = &mut *link.borrow_mut();
        if poll_ahead(link, context).is_err() {
            return Poll::Ready(None);
        }
        if link.connection.has_ended() {
            let since = *ended.get_or_insert_with(Instant::now);
            ready!(link.connection.timer.poll(since + HALF_CLOSED, context));
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

/// Reads what the client sends ahead of its turn.
fn poll_ahead(link: &mut Link, context: &mut Context<'_>) -> io::Result<()> {
    let Link { connection, reader } = link;
    while reader.is_over() && connection.input.len() < AHEAD && !connection.has_ended() {
        match connection.poll_head(context) {
            Poll::Ready(outcome) => drop(outcome?),
            Poll::Pending => break,
        }
    }
    Ok(())
}

/// Whether nobody listens to an event stream any more: its clients never end just their own side.
fn poll_gone(link: &mut Link, context: &mut Context<'_>) -> bool {
    poll_ahead(link, context).is_err() || link.connection.has_ended()
}

/// Sends a response, and counts the bytes of its body. Says whether the connection can take another request.
async fn respond(
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
    encode::response(&mut link.borrow_mut().connection.output, &head);
    if asked.head || framing == Framing::None {
        body = Body::Full(bytes::Bytes::new());
    }
    let mut sending = Sending { body, framing, stream: head.is_event_stream(), over: false, put: 0 };
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
    over: bool,
    /// Bytes of the body so far.
    put: u64,
}

impl Sending {
    /// Ready once everything is written.
    ///
    /// # Errors
    /// If the connection, the body or the client's patience fails: the response is incomplete then.
    fn poll(&mut self, link: &Shared, patience: &mut Patience, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut starved = false;
            if !self.over && link.borrow().connection.has_room() {
                // Not while the connection is borrowed: the body may be waiting for more of the request.
                match self.body.poll_frame(context) {
                    Poll::Ready(Some(Ok(frame))) => self.put(&mut link.borrow_mut().connection, frame),
                    Poll::Ready(None) => self.end(&mut link.borrow_mut().connection),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error))),
                    Poll::Pending => starved = true,
                }
            }
            let mut moved = 0;
            let flushed = link.borrow_mut().connection.poll_flush(context, &mut moved);
            if moved > 0 {
                patience.moved(moved);
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
                Poll::Pending if !self.over && !starved && link.borrow().connection.has_room() => {}
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
                encode::last_chunk(&mut connection.output, Some(&trailers));
                self.over = true;
            }
            // There is no place for them.
            (Frame::Trailers(_), _) => self.over = true,
        }
    }

    fn end(&mut self, connection: &mut Connection) {
        if self.framing == Framing::Chunked {
            encode::last_chunk(&mut connection.output, None);
        }
        self.over = true;
    }
}

/// Answers what could not be understood, and ends the connection: nobody knows where the next request would begin.
async fn refuse(link: &Shared, worker: &Worker, client: &Client, error: &RequestError) -> io::Result<()> {
    proxy::unread(worker, client, error);
    let Response { mut head, mut body, .. } = reply::error(error, "", reply::Form::Text);
    worker.date(&mut head);
    worker.metrics.answered(head.status, Duration::ZERO);
    head.fields.set(Known::Connection, b"close");
    if let Length::Known(length) = body.length() {
        head.fields.set(Known::ContentLength, encode::itoa(length, &mut [0; 20]));
    }
    {
        let connection = &mut link.borrow_mut().connection;
        encode::response(&mut connection.output, &head);
        if let Body::Full(text) = &mut body {
            connection.put(std::mem::take(text));
        }
    }
    linger(link).await
}

/// Sends what is left, ends our side, and listens for a while.
async fn linger(link: &Shared) -> io::Result<()> {
    let until = Instant::now() + LINGER.0;
    let mut heard = 0;
    let mut ended = false;
    poll_fn(|context| {
        let connection = &mut link.borrow_mut().connection;
        if connection.timer.poll(until, context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if !ended {
            ready!(connection.poll_flush(context, &mut 0))?;
            ready!(connection.poll_shutdown(context))?;
            ended = true;
        }
        loop {
            connection.input.clear();
            match ready!(connection.poll_head(context)) {
                Ok(read) if read > 0 && heard < LINGER.1 => heard += read,
                // It is over, one way or another.
                _ => return Poll::Ready(Ok(())),
            }
        }
    })
    .await
}
