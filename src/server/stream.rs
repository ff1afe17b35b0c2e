//! One stream of an HTTP/2 connection: a request and its response, in a future that the connection polls.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use super::drain::Drain;
use crate::config::limits::Limits;
use crate::error::RequestError;
use crate::http1::encode;
use crate::http2::frame::reason;
use crate::http2::respond::{Sending, Unsent};
use crate::http2::{Begun, Exchange, Passage};
use crate::message::{Frame, Known, Length, ResponseHead};
use crate::proxy::body::{Body, From, Interim, Upload};
use crate::proxy::headers::Client;
use crate::proxy::{self, Request, Response, Worker, grpc, reply, upgrade};
use crate::timer::Patience;

/// How long, and for how many bytes, to listen to a client that still sends when its response is complete.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 1 << 20);

/// What the streams of a connection share.
pub(super) struct Setup {
    worker: Rc<Worker>,
    client: Rc<Client>,
    drain: Rc<Drain>,
    /// Bytes a second that it must take.
    rate: u64,
}

impl Setup {
    pub(super) fn new(worker: Rc<Worker>, client: Rc<Client>, drain: Rc<Drain>, limits: &Limits) -> Setup {
        Setup { worker, client, drain, rate: limits.min_rate.0 }
    }
}

/// Answers a request.
pub(super) async fn serve(setup: Rc<Setup>, begun: Begun) {
    let setup = &*setup;
    let Begun { exchange, head, over } = begun;
    let head = match *head {
        Ok(head) => head,
        Err(error) => return Box::pin(refuse(setup, exchange, &error.into())).await,
    };
    let is_head = head.method == Method::HEAD;
    let until = grpc::until(&head);
    // What follows an extended CONNECT is no body.
    let (tunnel, body) = (head.upgrade.is_some(), !over && head.upgrade.is_none());
    let from = if body { From::Http2(exchange.clone()) } else { From::Nowhere };
    let request = Request { head, upload: Upload::new(from), interim: Interim::Http2(exchange.clone()) };
    let working = pin!(proxy::handle(&setup.worker, &setup.client, request));
    let Some(response) = unless_reset(&exchange, working).await else { return };
    match response.body {
        Body::Tunnel(endpoint) if tunnel => {
            drop(response.place);
            let mut records = response.records;
            records.sent(0, true);
            drop(records);
            Box::pin(tunnelled(setup, &exchange, response.head, *endpoint)).await;
        }
        body => respond(setup, exchange.clone(), Response { body, ..response }, is_head, until).await,
    }
    if body && !exchange.is_over() {
        Box::pin(linger(exchange)).await;
    }
}

/// Takes in the rest of a body that nobody wants any more, for a while. By the book the stream could be taken back at once,
/// with NO_ERROR (RFC 9113, section 8.1); but there are clients, curl 7 among them, that lose the response then.
async fn linger(mut exchange: Exchange) {
    let mut heard = 0;
    let ending = poll_fn(|_| {
        while heard < LINGER.1 {
            match ready!(exchange.poll_frame()) {
                Some(Ok(Frame::Data(data))) => heard += data.len(),
                _ => break,
            }
        }
        Poll::Ready(())
    });
    // It does not matter which of both ends it.
    let _ = tokio::time::timeout(LINGER.0, ending).await;
}

/// Waits for the response, unless the client takes the request back.
async fn unless_reset(exchange: &Exchange, mut working: Pin<&mut impl Future<Output = Response>>) -> Option<Response> {
    poll_fn(|context| match exchange.is_there() {
        true => working.as_mut().poll(context).map(Some),
        false => Poll::Ready(None),
    })
    .await
}

/// `until`: when the caller of gRPC gives up.
async fn respond(setup: &Setup, exchange: Exchange, response: Response, is_head: bool, until: Option<Instant>) {
    let Response { mut head, body, idle, place: _place, mut records } = response;
    let over = frame(&mut head, &body, is_head);
    if exchange.respond(&head, over).is_err() {
        return;
    }
    if over {
        records.sent(0, true);
        return;
    }
    let mut body = grpc::Ending::new(&head, body, until);
    let mut sending = Sending::new(exchange, Patience::new(idle, setup.rate));
    let outcome = poll_fn(|context| sending.poll(&mut body, context)).await;
    records.sent(sending.sent(), outcome.is_ok());
    match outcome {
        Ok(()) => {}
        Err(Unsent::Source(error)) => tracing::debug!(%error, "a response broke off"),
        Err(Unsent::Slow(time)) => tracing::debug!(?time, "a client reads too slowly"),
        Err(Unsent::Refused) => {}
    }
}

/// Says in the head how long the body is, if that is known. Whether there is none to be sent.
fn frame(head: &mut ResponseHead, body: &Body, is_head: bool) -> bool {
    if head.status == StatusCode::NO_CONTENT || head.status.is_informational() {
        head.fields.remove(Known::ContentLength);
        return true;
    }
    // What the length would be, if the endpoint said so.
    if head.status == StatusCode::NOT_MODIFIED || is_head && matches!(body, Body::Endpoint(_)) {
        return true;
    }
    match body.length() {
        // Trailers may still come.
        Length::Known(length) if length > 0 || body.is_over() => {
            head.fields.set(Known::ContentLength, encode::itoa(length, &mut [0; 20]));
        }
        Length::Known(_) | Length::Unknown => drop(head.fields.remove(Known::ContentLength)),
    }
    is_head || body.is_over()
}

/// Answers an extended CONNECT with 200 instead of 101 (RFC 8441, section 5), and passes bytes on.
async fn tunnelled(setup: &Setup, exchange: &Exchange, mut head: ResponseHead, endpoint: upgrade::Tunnel) {
    head.status = StatusCode::OK;
    head.fields.remove(Known::WebSocketAccept);
    if exchange.respond(&head, false).is_err() {
        return;
    }
    let client = upgrade::Duplex::Client(Box::new(Passage::new(exchange.clone())));
    let mut open = setup.drain.open();
    if let Err(error) = endpoint.run(client, |waker| open.ending(waker)).await {
        tracing::debug!(%error, "a tunnel ended");
        exchange.reset(reason::CANCEL);
    }
}

/// Answers what could not be understood. What is malformed is an error of its stream (RFC 9113, section 8.1.1).
async fn refuse(setup: &Setup, exchange: Exchange, error: &RequestError) {
    proxy::unread(&setup.worker, &setup.client, error);
    let response = reply::error(error, "", reply::Form::Text);
    setup.worker.metrics.answered(response.head.status, Duration::ZERO);
    match error {
        RequestError::Malformed(_) => exchange.reset(reason::PROTOCOL_ERROR),
        _ => respond(setup, exchange, response, false, None).await,
    }
}
