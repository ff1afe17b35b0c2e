//! One stream of an HTTP/2 connection: a request and its response, in a task of their own.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Method, StatusCode};

use super::drain::Drain;
use crate::config::limits::Limits;
use crate::error::RequestError;
use crate::http1::{encode, head};
use crate::http2::respond::{Sending, Unsent};
use crate::http2::{Duplex, Incoming, Responder, convert};
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
    limits: head::Limits,
    /// Bytes a second that it must take.
    rate: u64,
}

impl Setup {
    pub(super) fn new(worker: Rc<Worker>, client: Rc<Client>, drain: Rc<Drain>, limits: &Limits) -> Setup {
        let head = head::Limits {
            head: limits.header_size.0 as usize,
            fields: limits.headers as usize,
            target: limits.uri.0 as usize,
        };
        Setup { worker, client, drain, limits: head, rate: limits.min_rate.0 }
    }
}

/// Begins to answer a request.
pub(super) fn begin(setup: &Rc<Setup>, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
    // In a box because the runtime moves it several times, and it is large.
    tokio::task::spawn_local(Box::pin(serve(setup.clone(), request, Responder::new(respond))));
}

async fn serve(setup: Rc<Setup>, request: http::Request<RecvStream>, stream: Responder) {
    let setup = &*setup;
    let (parts, incoming) = request.into_parts();
    let head = match convert::request(parts, &setup.limits) {
        Ok(head) => head,
        Err(error) => return refuse(setup, &stream, &error.into()).await,
    };
    let is_head = head.method == Method::HEAD;
    let until = grpc::until(&head);
    // What follows an extended CONNECT is no body.
    let (body, tunnel) = match head.upgrade {
        Some(_) => (None, Some(incoming)),
        None if incoming.is_end_stream() => (None, None),
        None => (Some(Rc::new(RefCell::new(Incoming::new(incoming, convert::announced(&head.fields))))), None),
    };
    let from = body.clone().map_or(From::Nowhere, From::Http2);
    let request = Request { head, upload: Upload::new(from), interim: Interim::Http2(stream.clone()) };
    let working = pin!(proxy::handle(&setup.worker, &setup.client, request));
    let Some(response) = unless_reset(&stream, working).await else { return };
    match (response.body, tunnel) {
        (Body::Tunnel(endpoint), Some(incoming)) => {
            drop(response.place);
            let mut note = response.note;
            note.iter_mut().for_each(|note| note.sent(0, true));
            drop(note);
            tunnelled(setup, &stream, response.head, *endpoint, incoming).await;
        }
        (body, _) => respond(setup, &stream, Response { body, ..response }, is_head, until).await,
    }
    if let Some(rest) = body {
        linger(&rest).await;
    }
}

/// Takes in the rest of a body that nobody wants any more, for a while. By the book the stream could be taken back at once,
/// with NO_ERROR (RFC 9113, section 8.1); but there are clients, curl 7 among them, that lose the response then.
async fn linger(rest: &RefCell<Incoming>) {
    let mut heard = 0;
    let ending = poll_fn(|context| {
        while heard < LINGER.1 {
            match ready!(rest.borrow_mut().poll_frame(context)) {
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
async fn unless_reset(stream: &Responder, mut working: Pin<&mut impl Future<Output = Response>>) -> Option<Response> {
    poll_fn(|context| {
        if stream.poll_reset(context).is_ready() {
            return Poll::Ready(None);
        }
        working.as_mut().poll(context).map(Some)
    })
    .await
}

/// `until`: when the caller of gRPC gives up.
async fn respond(setup: &Setup, stream: &Responder, response: Response, is_head: bool, until: Option<Instant>) {
    let Response { mut head, body, idle, place: _place, mut note } = response;
    let over = frame(&mut head, &body, is_head);
    let Ok(outgoing) = stream.respond(&head, over) else { return };
    if over {
        note.iter_mut().for_each(|note| note.sent(0, true));
        return;
    }
    let mut body = grpc::Ending::new(&head, body, until);
    let mut sending = Sending::new(outgoing, Patience::new(idle, setup.rate));
    let outcome = poll_fn(|context| sending.poll(&mut body, context)).await;
    note.iter_mut().for_each(|note| note.sent(sending.sent(), outcome.is_ok()));
    match outcome {
        Ok(()) => {}
        Err(Unsent::Source(error)) => tracing::debug!(%error, "a response broke off"),
        Err(Unsent::Slow(time)) => tracing::debug!(?time, "a client reads too slowly"),
        Err(Unsent::Refused(_)) => {}
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
async fn tunnelled(
    setup: &Setup,
    stream: &Responder,
    mut head: ResponseHead,
    endpoint: upgrade::Tunnel,
    incoming: RecvStream,
) {
    head.status = StatusCode::OK;
    head.fields.remove(Known::WebSocketAccept);
    let Ok(outgoing) = stream.respond(&head, false) else { return };
    let client = upgrade::Duplex::Http2(Box::new(Duplex::new(incoming, outgoing)));
    let mut open = setup.drain.open();
    if let Err(error) = endpoint.run(client, |waker| open.ending(waker)).await {
        tracing::debug!(%error, "a tunnel ended");
        stream.reset(Reason::CANCEL);
    }
}

/// Answers what could not be understood. What is malformed is an error of its stream (RFC 9113, section 8.1.1).
async fn refuse(setup: &Setup, stream: &Responder, error: &RequestError) {
    proxy::unread(&setup.worker, &setup.client, error);
    let response = reply::error(error, "", reply::Form::Text);
    setup.worker.metrics.answered(response.head.status, Duration::ZERO);
    match error {
        RequestError::Malformed(_) => stream.reset(Reason::PROTOCOL_ERROR),
        _ => respond(setup, stream, response, false, None).await,
    }
}
