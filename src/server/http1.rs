//! One HTTP/1 connection of a client: request after request, until one of both wants no more.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use http::Method;

use super::drain::Open;
use super::respond::{Asked, respond};
use crate::error::RequestError;
use crate::http1::body::{Link, Reader};
use crate::http1::head::{self, Framing, Limits};
use crate::http1::{Connection, Incoming, Shared, encode};
use crate::http2::PREFACE;
use crate::message::{Known, Length, Version};
use crate::proxy::body::{Body, From, Interim, Upload};
use crate::proxy::headers::Client;
use crate::proxy::upgrade::{Duplex, Tunnel};
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

/// How long no request may come before a connection holds no more than it needs to wait.
const QUIET: Duration = Duration::from_secs(1);

/// Connections of a worker that keep the memory of a request while they wait for the next: enough for all that are in use. It
/// is as large as all else of them, and thousands of them would leave holes that the system does not get back.
const WARM: usize = 256;

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
    /// Nothing for [`QUIET`].
    Quiet,
    Closed,
}

/// Serves a connection to its end. `either`: the client may also speak HTTP/2, which its first bytes tell.
///
/// # Errors
/// What ended it otherwise than the two sides wanted.
pub async fn serve(
    stream: Stream,
    either: bool,
    worker: &Rc<Worker>,
    client: &Client,
    open: &mut Open,
) -> io::Result<Outcome> {
    let link = Link { connection: Connection::new(stream), reader: Reader::Over };
    let link: Shared = Rc::new(RefCell::new(link));
    timer::now();
    let mut rules = worker.snapshot().rules.clone();
    let mut waiting = Waiting { first: true, either, ..Waiting::since(timer::recent()) };
    loop {
        let next = poll_fn(|context| poll_request(&mut link.borrow_mut(), &mut waiting, &rules, open, context)).await?;
        let request = match next {
            Next::Request(request) => request,
            Next::Quiet => continue,
            Next::Closed => return Ok(Outcome::Over),
            Next::Http2 => {
                let (stream, input) = take(link)?.connection.into_parts()?;
                return Ok(Outcome::Http2(stream, input));
            }
            Next::Refused(error) => {
                return Box::pin(refuse(&link, worker, client, &error)).await.map(|()| Outcome::Over);
            }
        };
        match Box::pin(busy(&link, worker, client, &mut rules, open, request)).await? {
            After::Quiet(since) => waiting = Waiting::since(since),
            After::Over => return Ok(Outcome::Over),
            After::Linger => return Box::pin(linger(&link)).await.map(|()| Outcome::Over),
            After::Refused(error) => {
                return Box::pin(refuse(&link, worker, client, &error)).await.map(|()| Outcome::Over);
            }
            After::Tunnel(tunnel) => {
                let client = Duplex::Http1(Box::new(take(link)?.connection));
                return Box::pin(tunnel.run(client, |waker| open.ending(waker))).await.map(|()| Outcome::Over);
            }
        }
    }
}

/// What comes after requests.
enum After {
    /// None has come for [`QUIET`]; since when the connection is idle.
    Quiet(Instant),
    /// Nothing: the connection may be closed as it is.
    Over,
    /// The end, for which the client has to be heard out.
    Linger,
    /// Something that cannot be understood.
    Refused(RequestError),
    /// Something that is no HTTP.
    Tunnel(Box<Tunnel>),
}

/// Answers a request and those that follow soon. In memory of its own, three times as much as all else of a connection, which
/// is given back when none comes.
///
/// # Errors
/// What ended the connection before an answer was complete.
async fn busy(
    link: &Shared,
    worker: &Rc<Worker>,
    client: &Client,
    rules: &mut Arc<Rules>,
    open: &mut Open,
    mut request: Box<head::Request>,
) -> io::Result<After> {
    loop {
        let asked = Asked {
            head: request.head.method == Method::HEAD,
            version: request.head.version,
            keep_alive: request.keep_alive,
        };
        link.borrow_mut().connection.keep();
        let response = {
            // Over before the response is sent, so that both can have the same memory.
            let working = pin!(proxy::handle(worker, client, received(*request, link)));
            unless_gone(link, working).await
        };
        let Some(Response { head, body, idle, place, mut records }) = response else { return Ok(After::Over) };
        if let Body::Tunnel(tunnel) = body {
            link.borrow_mut().connection.put_line(|out| encode::response(out, &head));
            records.sent(0, true);
            return Ok(After::Tunnel(tunnel));
        }
        let patience = Patience::new(idle, rules.limits.min_rate.0);
        let mut sent = 0;
        let responded = respond(link, head, body, &asked, patience, open, &mut sent).await;
        records.sent(sent, responded.is_ok());
        drop((place, records));
        if !responded? {
            // Who has said that this was the last request, and has sent it to its end, has nothing more to say.
            let over = !asked.keep_alive && is_finished(&link.borrow());
            return Ok(if over { After::Over } else { After::Linger });
        }

        // All workers count those who hold them, so not for each request anew.
        let latest = worker.snapshot();
        if !Arc::ptr_eq(rules, &latest.rules) {
            *rules = latest.rules.clone();
        }
        drop(latest);
        let Some(_warm) = Warm::of(&worker.warm) else { return Ok(After::Quiet(timer::recent())) };
        let mut waiting = Waiting { busy: true, ..Waiting::since(timer::recent()) };
        let next = poll_fn(|context| poll_request(&mut link.borrow_mut(), &mut waiting, rules, open, context)).await?;
        request = match next {
            Next::Request(request) => request,
            Next::Quiet => return Ok(After::Quiet(waiting.since)),
            Next::Refused(error) => return Ok(After::Refused(error)),
            Next::Closed | Next::Http2 => return Ok(After::Over),
        };
    }
}

/// One of [`WARM`], until it is dropped.
struct Warm<'a>(&'a Cell<usize>);

impl Warm<'_> {
    fn of(count: &Cell<usize>) -> Option<Warm<'_>> {
        (count.get() < WARM).then(|| {
            count.set(count.get() + 1);
            Warm(count)
        })
    }
}

impl Drop for Warm<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Whether all that came was used, and whoever reads the end of our side can tell that it is one.
fn is_finished(link: &Link) -> bool {
    link.reader.is_over() && link.connection.input.is_empty() && !link.connection.is_tls()
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
    /// There was a request just before.
    busy: bool,
}

impl Waiting {
    /// For a request that is not the first.
    fn since(since: Instant) -> Waiting {
        Waiting { seen: 0, began: None, since, first: false, either: false, busy: false }
    }
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
    let quiet = waiting.busy && waiting.began.is_none() && waiting.since + QUIET < deadline;
    ready!(connection.timer.poll(if quiet { waiting.since + QUIET } else { deadline }, context));
    Poll::Ready(Ok(match waiting.began {
        None if quiet => Next::Quiet,
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
    if waiting.seen == 0
        && let Some((request, length)) = head::whole_request(input, &limits)
    {
        input.advance(length);
        return Some(Next::Request(Box::new(request)));
    }
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
pub(super) fn poll_ahead(link: &mut Link, context: &mut Context<'_>) -> io::Result<()> {
    let Link { connection, reader } = link;
    while reader.is_over() && connection.input.len() < AHEAD && !connection.has_ended() {
        match connection.poll_head(context) {
            Poll::Ready(outcome) => drop(outcome?),
            Poll::Pending => break,
        }
    }
    Ok(())
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
        connection.put_line(|out| encode::response(out, &head));
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
