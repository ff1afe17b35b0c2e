//! One exchange with an HTTP/2 endpoint, over one stream of a connection that others use as well. The connections are in
//! [`super::links`].

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::{Response, StatusCode};

use super::super::body::{Interim, Upload};
use super::super::headers;
use super::Call;
use super::links::Busy;
use crate::endpoint::{InFlight, Trouble};
use crate::error::RequestError;
use crate::http2::respond::{Sending, Source, Unsent};
use crate::http2::{Duplex, Incoming, convert};
use crate::message::{BodyError, Frame, Length, ResponseHead};
use crate::timer::{Patience, Timer};

/// Interim responses before a response, as for HTTP/1.
const INTERIM: usize = 64;

/// How long an endpoint may take to say `100 Continue`, before the gateway says it; as for HTTP/1.
const CONTINUE: Duration = Duration::from_secs(1);

/// Why there is no response.
pub(super) struct Failed {
    /// What happened.
    pub(super) error: RequestError,
    /// The endpoint has said that it did not act on the request (RFC 9113, section 8.7).
    pub(super) refused: bool,
    /// The stream or the connection ended before anything came back.
    pub(super) broke_off: bool,
    /// The body, if nothing was taken from it.
    pub(super) upload: Option<Upload>,
}

/// An endpoint's answer.
pub(super) enum Answer {
    /// A response, whose body is to come.
    Response(ResponseHead, Box<Body>),
    /// The endpoint goes on in another protocol, over this stream.
    Switched(ResponseHead, Box<Duplex>, Busy),
}

impl Answer {
    /// The status of its head.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Answer::Response(head, _) | Answer::Switched(head, ..) => head.status,
        }
    }
}

/// The half of an exchange that goes to the endpoint.
struct Exchange {
    upload: Uploading,
    sending: Sending<SendStream<Bytes>>,
    timer: Timer,
    busy: Busy,
}

/// A client's body, and how long the client keeps us waiting for it.
struct Uploading {
    body: Upload,
    client: Patience,
    /// Whether anything was taken from it.
    began: bool,
}

impl Source for Uploading {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let mut frame = self.body.poll_frame(context);
        match &mut frame {
            Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                self.began = true;
                self.client.moved(data.len());
            }
            Poll::Ready(Some(Ok(Frame::Trailers(fields)))) => {
                self.began = true;
                headers::trailers(fields);
            }
            _ => {}
        }
        frame
    }

    fn is_over(&self) -> bool {
        self.body.is_over()
    }

    fn meanwhile(&mut self, _: &mut Context<'_>) {
        self.client.rest();
    }
}

/// Who kept the request from being sent.
enum Stuck {
    Client(BodyError),
    Endpoint(Duration),
}

/// Sends the request and waits for the head of the response.
pub(super) async fn exchange(busy: Busy, call: Call<'_>, upload: Upload) -> Result<Answer, Failed> {
    let unsent = |error, refused, upload| Failed { error, refused, broke_off: false, upload: Some(upload) };
    let request = match convert::to_request(call.head, busy.is_encrypted()) {
        Ok(request) => request,
        Err(error) => return Err(unsent(error.into(), false, upload)),
    };
    let tunnel = call.head.upgrade.is_some();
    let over = upload.is_over() && !tunnel;
    let (mut response, outgoing) = match busy.send(request, over) {
        Ok(sent) => sent,
        // The connection is ending, or has just ended: nothing of the request went out.
        Err(error) => return Err(unsent(failure(&error), true, upload)),
    };
    if tunnel {
        return switch(busy, call, response, outgoing).await;
    }
    let (idle, rate) = call.pace();
    let patience = || Patience::new(idle, rate);
    let mut exchange = Exchange {
        upload: Uploading { body: upload, client: patience(), began: false },
        sending: if over { Sending::over(outgoing) } else { Sending::new(outgoing, patience()) },
        timer: Timer::default(),
        busy,
    };
    let mut waiting = Waiting { call, began: Instant::now(), sent: None, told: !call.expects, interims: 0 };
    loop {
        match poll_fn(|context| exchange.poll_head(&mut response, &mut waiting, context)).await {
            Ok(Event::Interim(head)) => pass_on(call.interim, head, &mut waiting).await,
            Ok(Event::Continue) => {
                waiting.told = true;
                call.interim.send(&ResponseHead::new(StatusCode::CONTINUE)).await;
            }
            Ok(Event::Response(head, incoming)) => return Ok(exchange.answer(head, incoming)),
            Err(problem) => return Err(exchange.failed(problem)),
        }
    }
}

/// Tells the client what the endpoint said before its response; `100 Continue` once, and only if it was asked for.
async fn pass_on(interim: &Interim, mut head: ResponseHead, waiting: &mut Waiting<'_>) {
    if head.status == StatusCode::CONTINUE && std::mem::replace(&mut waiting.told, true) {
        return;
    }
    headers::interim_to_client(&mut head);
    interim.send(&head).await;
}

/// Waits for the answer to an extended CONNECT (RFC 8441, section 5).
async fn switch(
    busy: Busy,
    call: Call<'_>,
    response: ResponseFuture,
    outgoing: SendStream<Bytes>,
) -> Result<Answer, Failed> {
    let failed = |error, refused| Failed { error, refused, broke_off: false, upload: Some(Upload::none()) };
    let header = call.timeouts.header.0;
    let (head, incoming) = match tokio::time::timeout(header, response).await {
        Ok(Ok(response)) => split(response).map_err(|error| failed(error, false))?,
        Ok(Err(error)) => return Err(failed(failure(&error), is_refused(&error))),
        Err(_) => {
            busy.suspect();
            return Err(failed(RequestError::HeaderTimeout(header), false));
        }
    };
    if head.status.is_success() {
        return Ok(Answer::Switched(head, Box::new(Duplex::new(incoming, outgoing)), busy));
    }
    let upload = Uploading { body: Upload::none(), client: Patience::new(header, 0), began: false };
    let exchange = Exchange { upload, sending: Sending::over(outgoing), timer: Timer::default(), busy };
    Ok(exchange.answer(head, incoming))
}

fn split(response: Response<RecvStream>) -> Result<(ResponseHead, RecvStream), RequestError> {
    let (parts, incoming) = response.into_parts();
    let head = convert::response(Response::from_parts(parts, ()));
    let head = head.map_err(|error| RequestError::Upstream(error.to_string().into()))?;
    Ok((head, incoming))
}

struct Waiting<'a> {
    call: Call<'a>,
    /// When the exchange began.
    began: Instant,
    /// When the request was sent to its end.
    sent: Option<Instant>,
    /// The client needs no leave to send its body, or has it.
    told: bool,
    interims: usize,
}

enum Event {
    Response(ResponseHead, RecvStream),
    Interim(ResponseHead),
    /// The endpoint says nothing about the expectation.
    Continue,
}

/// What went wrong before the response's head.
enum Problem {
    /// With the stream or its connection.
    Stream(h2::Error),
    /// With anything else.
    Other(RequestError),
}

impl Exchange {
    fn failed(self, problem: Problem) -> Failed {
        let upload = (!self.upload.began).then_some(self.upload.body);
        match problem {
            Problem::Stream(error) => {
                let broke_off = error.is_io() || error.is_remote();
                Failed { error: failure(&error), refused: is_refused(&error), broke_off, upload }
            }
            Problem::Other(error) => {
                if matches!(error, RequestError::HeaderTimeout(_)) {
                    // It may be the request, or the whole connection.
                    self.busy.suspect();
                }
                Failed { error, refused: false, broke_off: false, upload }
            }
        }
    }

    fn answer(self, head: ResponseHead, incoming: RecvStream) -> Answer {
        let length = convert::announced(&head.fields);
        let body = Body { incoming: Tail(Some(Incoming::new(incoming, length))), exchange: Some(self), lease: None };
        Answer::Response(head, Box::new(body))
    }

    /// Sends on what there is of the request. Ready when all is sent, or when the endpoint takes no more, which is no error:
    /// it may have answered already (RFC 9113, section 8.1).
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Stuck>> {
        if self.sending.is_over() {
            return Poll::Ready(Ok(()));
        }
        match self.sending.poll(&mut self.upload, context) {
            Poll::Ready(Ok(()) | Err(Unsent::Refused)) => Poll::Ready(Ok(())),
            Poll::Ready(Err(Unsent::Source(error))) => Poll::Ready(Err(Stuck::Client(error))),
            Poll::Ready(Err(Unsent::Slow(time))) => Poll::Ready(Err(Stuck::Endpoint(time))),
            Poll::Pending if self.sending.waits_for_receiver() => Poll::Pending,
            Poll::Pending => {
                let late = self.timer.poll(self.upload.client.deadline(), context);
                late.map(|()| Err(Stuck::Client(BodyError::Slow(self.upload.client.idle()))))
            }
        }
    }

    /// The next thing that the endpoint says, while the request is sent on.
    fn poll_head(
        &mut self,
        response: &mut ResponseFuture,
        waiting: &mut Waiting<'_>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Event, Problem>> {
        match self.poll_upload(context) {
            Poll::Ready(Ok(())) => drop(waiting.sent.get_or_insert_with(Instant::now)),
            Poll::Ready(Err(Stuck::Client(error))) => return other(RequestError::ClientBody(error)),
            Poll::Ready(Err(Stuck::Endpoint(time))) => return other(RequestError::HeaderTimeout(time)),
            Poll::Pending => {}
        }
        match response.poll_informational(context) {
            Poll::Ready(Some(Ok(interim))) => {
                waiting.interims += 1;
                if waiting.interims > INTERIM {
                    return other(RequestError::Upstream("there are too many interim responses".into()));
                }
                return match convert::response(interim) {
                    Ok(head) => Poll::Ready(Ok(Event::Interim(head))),
                    Err(error) => other(RequestError::Upstream(error.to_string().into())),
                };
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Problem::Stream(error))),
            Poll::Ready(None) => match Pin::new(response).poll(context) {
                Poll::Ready(Ok(response)) => {
                    let split = split(response).map_err(Problem::Other);
                    return Poll::Ready(split.map(|(head, incoming)| Event::Response(head, incoming)));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Problem::Stream(error))),
                Poll::Pending => {}
            },
            Poll::Pending => {}
        }
        self.poll_deadline(waiting, context)
    }

    /// Whether the endpoint has kept us waiting for too long. How long the body may take is seen to where it is sent.
    fn poll_deadline(&mut self, waiting: &mut Waiting<'_>, context: &mut Context<'_>) -> Poll<Result<Event, Problem>> {
        let call = waiting.call;
        let header = call.header();
        let limit = match (waiting.sent.map(|sent| sent + header), call.until) {
            (Some(limit), Some(until)) => Some(limit.min(until)),
            (limit, until) => limit.or(until),
        };
        let leave = waiting.began + CONTINUE;
        let gives_leave = !waiting.told && !self.upload.began && limit.is_none_or(|limit| leave < limit);
        let Some(deadline) = limit.filter(|_| !gives_leave).or(gives_leave.then_some(leave)) else {
            return Poll::Pending;
        };
        if self.timer.poll(deadline, context).is_pending() {
            return Poll::Pending;
        }
        if gives_leave {
            return Poll::Ready(Ok(Event::Continue));
        }
        other(RequestError::HeaderTimeout(if call.until == limit { waiting.began.elapsed() } else { header }))
    }
}

fn other<T>(error: RequestError) -> Poll<Result<T, Problem>> {
    Poll::Ready(Err(Problem::Other(error)))
}

fn failure(error: &h2::Error) -> RequestError {
    RequestError::Upstream(error.to_string().into())
}

/// Whether the endpoint says that it has not acted on the request: it refuses the stream, or ends the connection before it.
/// `h2` gives the error of a GOAWAY only to streams behind the last that was acted on.
fn is_refused(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}

/// A response's body on its way, and the rest of the request.
pub(super) struct Body {
    incoming: Tail,
    /// Until the end; dropped before, the stream is taken back.
    exchange: Option<Exchange>,
    lease: Option<Lease>,
}

/// What the rest of an exchange is measured by.
struct Lease {
    inflight: InFlight,
    patience: Patience,
    until: Option<Instant>,
    timer: Timer,
}

impl Body {
    /// Begins to count the time that it takes.
    pub(super) fn lease(&mut self, inflight: InFlight, patience: Patience, until: Option<Instant>) {
        self.lease = Some(Lease { inflight, patience, until, timer: Timer::default() });
        self.finish_if_over();
    }

    pub(super) fn length(&self) -> Length {
        self.incoming.length()
    }

    pub(super) fn is_over(&self) -> bool {
        self.incoming.is_over()
    }

    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
        match exchange.poll_upload(context) {
            Poll::Ready(Err(Stuck::Client(error))) => return self.give_up(error, false),
            Poll::Ready(Err(Stuck::Endpoint(time))) => return self.give_up(BodyError::Slow(time), true),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        match self.incoming.poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Frame::Data(data), Some(lease)) = (&frame, &mut self.lease) {
                    lease.patience.moved(data.len());
                }
                self.finish_if_over();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => self.give_up(error, true),
            Poll::Ready(None) => {
                self.finish_if_over();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Some(lease) = &mut self.lease else { return Poll::Pending };
                let idle = lease.patience.deadline();
                let deadline = lease.until.map_or(idle, |until| until.min(idle));
                if lease.timer.poll(deadline, context).is_pending() {
                    return Poll::Pending;
                }
                let error = BodyError::Slow(lease.patience.idle());
                if let Some(exchange) = &self.exchange {
                    exchange.busy.suspect();
                }
                self.give_up(error, true)
            }
        }
    }

    /// Sends on what there is of the request, while nobody takes the response.
    pub(super) fn poll_upload(&mut self, context: &mut Context<'_>) {
        if let Some(exchange) = &mut self.exchange {
            // A failure is found again by whoever asks for the next piece.
            let _ = exchange.poll_upload(context);
        }
    }

    pub(super) fn rest(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.patience.rest();
        }
    }

    fn give_up(&mut self, error: BodyError, failed: bool) -> Poll<Option<Result<Frame, BodyError>>> {
        self.exchange = None;
        if let Some(lease) = self.lease.take().filter(|_| failed) {
            lease.inflight.failed(if matches!(error, BodyError::Slow(_)) { Trouble::Late } else { Trouble::Broken });
        }
        Poll::Ready(Some(Err(error)))
    }

    fn finish_if_over(&mut self) {
        if self.incoming.is_over() {
            self.exchange = None;
            self.lease = None;
        }
    }
}

/// How long an endpoint may take to end a stream whose body has come in full.
const END: Duration = Duration::from_secs(1);

/// What is received. Some endpoints end a stream with a frame of its own, behind a body of known length: whoever has had all
/// of that waits for no more, and to take the stream back then would look like a client who gives up.
struct Tail(Option<Incoming>);

impl Tail {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |incoming| incoming.poll_frame(context))
    }

    fn length(&self) -> Length {
        self.0.as_ref().map_or(Length::Known(0), Incoming::length)
    }

    fn is_over(&self) -> bool {
        self.0.as_ref().is_none_or(Incoming::is_over)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if self.is_over() || self.length() != Length::Known(0) {
            return;
        }
        if let Some(mut incoming) = self.0.take() {
            let end = async move { while let Some(Ok(_)) = poll_fn(|context| incoming.poll_frame(context)).await {} };
            tokio::task::spawn_local(tokio::time::timeout(END, end));
        }
    }
}
