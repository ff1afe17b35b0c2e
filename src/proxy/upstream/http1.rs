//! One exchange with an HTTP/1.1 endpoint: the request goes out while the response may already come in.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Buf;
use http::StatusCode;

use super::super::body::{Interim, Upload};
use super::{Call, Wire};
use crate::error::RequestError;
use crate::http1::head::{self, HeadError, Limits};
use crate::http1::{Connection, encode};
use crate::message::{BodyError, Frame, Known, Length, ResponseHead, Version};
use crate::timer::{self, Patience};

/// What an endpoint's head may be: more than a client's, since endpoints are ours.
const LIMITS: Limits = Limits { head: 64 << 10, fields: 256, target: 0 };

/// Interim responses before a response. Each costs the client a message; some send progress as `102 Processing`.
const INTERIM: usize = 64;

/// How long an endpoint may take to say `100 Continue`, before the gateway says it: a server that does not know the
/// expectation waits for the body, as the client waits for leave (RFC 9110, section 10.1.1).
const CONTINUE: Duration = Duration::from_secs(1);

/// A connection, and the part of the request that is not sent yet.
pub(super) struct Exchange {
    wire: Wire,
    sending: Sending,
}

struct Sending {
    upload: Upload,
    chunked: bool,
    stage: Stage,
    /// Who kept the other waiting when nothing moved.
    waits_for: Side,
    /// Whether the client has lent any of its body.
    began: bool,
    /// Nothing was written yet.
    may_wait: bool,
    client: Patience,
    endpoint: Patience,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The client has more.
    Taking,
    /// The rest is with us.
    Flushing,
    /// All is sent.
    Over,
    /// The endpoint takes no more; it may still have answered.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Endpoint,
}

/// Why there is no response.
pub(super) struct Failed {
    /// What happened.
    pub error: RequestError,
    /// The connection ended or failed before anything came back.
    pub broke_off: bool,
    /// Bytes of the request went out.
    pub began: bool,
    /// The body, if nothing was taken from it.
    pub upload: Option<Upload>,
}

/// Sends the request and waits for the head of the response.
pub(super) async fn exchange(
    mut wire: Wire,
    call: Call<'_>,
    upload: Upload,
) -> Result<(head::Response, Exchange), Failed> {
    wire.connection.put_line(|out| encode::request(out, call.head));
    wire.connection.begin(call.head.version == Version::Http2);
    let idle = call.timeouts.idle.0;
    let sending = Sending {
        chunked: upload.length() == Length::Unknown,
        stage: if upload.is_over() { Stage::Flushing } else { Stage::Taking },
        waits_for: Side::Endpoint,
        began: false,
        may_wait: true,
        client: Patience::new(idle, call.rate),
        endpoint: Patience::new(idle, call.rate),
        upload,
    };
    let mut exchange = Exchange { wire, sending };
    let mut waiting =
        Waiting { call, began: timer::recent(), sent: None, polled: false, wrote: false, seen: 0, told: !call.expects };
    let mut interims = 0;
    loop {
        match poll_fn(|context| exchange.poll_head(&mut waiting, context)).await {
            Ok(Event::Response(response)) => return Ok((response, exchange)),
            Ok(Event::Interim(head)) => {
                interims += 1;
                if interims > INTERIM {
                    let error = RequestError::Upstream("there are too many interim responses".into());
                    return Err(exchange.failed(error, false, &waiting));
                }
                pass_on(call.interim, head, &mut waiting).await;
            }
            Ok(Event::Continue) => {
                waiting.told = true;
                call.interim.send(&ResponseHead::new(StatusCode::CONTINUE)).await;
            }
            Err((error, broke_off)) => return Err(exchange.failed(error, broke_off, &waiting)),
        }
    }
}

/// Tells the client what the endpoint said before its response; `100 Continue` once, and only if it was asked for.
async fn pass_on(interim: &Interim, mut head: ResponseHead, waiting: &mut Waiting<'_>) {
    if head.status == StatusCode::CONTINUE && std::mem::replace(&mut waiting.told, true) {
        return;
    }
    super::super::headers::interim_to_client(&mut head);
    interim.send(&head).await;
}

struct Waiting<'a> {
    call: Call<'a>,
    /// When the exchange began.
    began: Instant,
    /// When the request was sent to its end.
    sent: Option<Instant>,
    /// It was tried at least once to send it.
    polled: bool,
    /// Bytes went out.
    wrote: bool,
    /// How far the head was looked through.
    seen: usize,
    /// The client needs no leave to send its body, or has it.
    told: bool,
}

enum Event {
    Response(head::Response),
    Interim(ResponseHead),
    /// The endpoint says nothing about the expectation.
    Continue,
}

impl Exchange {
    /// The connection, to read the response from.
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.wire.connection
    }

    /// The connection, if the request was sent to its end.
    pub(super) fn into_idle(self) -> Option<Wire> {
        (self.sending.stage == Stage::Over && self.wire.connection.is_flushed()).then_some(self.wire)
    }

    /// The connection, whatever of the request is left.
    pub(super) fn into_wire(self) -> Wire {
        self.wire
    }

    fn failed(self, error: RequestError, broke_off: bool, waiting: &Waiting<'_>) -> Failed {
        let upload = (!self.sending.began).then_some(self.sending.upload);
        Failed { error, broke_off, began: waiting.wrote && self.wire.connection.has_sent(), upload }
    }

    /// Sends on what there is of the request. Ready when all is sent, or when nothing more can be.
    ///
    /// # Errors
    /// If the client's body is at fault, or one of both is too slow. An endpoint that takes no more is no error: it may
    /// have answered already.
    pub(super) fn poll_upload(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let outcome = self.poll_send(context, &mut 0);
        if outcome.is_pending() {
            let patience = self.sending.patience();
            if self.wire.connection.timer.poll(patience.deadline(), context).is_ready() {
                return Poll::Ready(Err(BodyError::Slow(patience.idle())));
            }
        }
        outcome
    }

    fn poll_send(&mut self, context: &mut Context<'_>, moved: &mut usize) -> Poll<Result<(), BodyError>> {
        let Exchange { wire, sending } = self;
        let connection = &mut *wire.connection;
        if matches!(sending.stage, Stage::Over | Stage::Broken) {
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut starved = false;
            // What comes in small pieces goes in larger ones.
            while sending.stage == Stage::Taking && connection.has_room() && !starved {
                match sending.upload.poll_frame(context) {
                    Poll::Ready(Some(Ok(frame))) => sending.put(connection, frame),
                    Poll::Ready(None) => sending.end(connection),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Pending => starved = true,
                }
            }
            let before = *moved;
            let flushed = match std::mem::take(&mut sending.may_wait) && sending.stage == Stage::Flushing {
                true => connection.poll_flush_later(context, moved),
                false => connection.poll_flush(context, moved),
            };
            if *moved > before {
                sending.endpoint.moved(*moved - before);
            }
            match flushed {
                Poll::Ready(Ok(())) if sending.stage == Stage::Flushing => {
                    sending.stage = Stage::Over;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(())) if starved => {
                    sending.wait_for(Side::Client);
                    return Poll::Pending;
                }
                // What was put together last is gone; there may be more.
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    sending.stage = Stage::Broken;
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {
                    sending.wait_for(Side::Endpoint);
                    sending.upload.rest();
                    return Poll::Pending;
                }
            }
        }
    }

    /// The next thing that the endpoint says, while the request is sent on.
    fn poll_head(
        &mut self,
        waiting: &mut Waiting<'_>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Event, (RequestError, bool)>> {
        if !matches!(self.sending.stage, Stage::Over | Stage::Broken) {
            let mut moved = 0;
            let sent = self.poll_send(context, &mut moved);
            waiting.wrote |= moved > 0;
            // Most are sent at once, and then no time has passed.
            match sent {
                Poll::Ready(Ok(())) => waiting.sent = Some(if waiting.polled { Instant::now() } else { waiting.began }),
                Poll::Ready(Err(error)) => return Poll::Ready(Err((RequestError::ClientBody(error), false))),
                Poll::Pending => {}
            }
            waiting.polled = true;
        }
        loop {
            match self.take_head(waiting) {
                Ok(Some(event)) => return Poll::Ready(Ok(event)),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err((RequestError::Upstream(error.to_string().into()), false))),
            }
            let empty = self.wire.connection.input.is_empty();
            match self.wire.connection.poll_body(context) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err((RequestError::Upstream("it closed".into()), empty))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    let empty = empty && is_lost(&error);
                    return Poll::Ready(Err((RequestError::Upstream(error.to_string().into()), empty)));
                }
                Poll::Pending => break,
            }
        }
        self.poll_deadline(waiting, context)
    }

    /// A head, if one has arrived.
    fn take_head(&mut self, waiting: &mut Waiting<'_>) -> Result<Option<Event>, HeadError> {
        let input = &mut self.wire.connection.input;
        if input.is_empty() {
            return Ok(None);
        }
        let method = &waiting.call.head.method;
        let whole = if waiting.seen == 0 { head::whole_response(input, method, &LIMITS) } else { None };
        let (response, length) = match whole {
            Some(whole) => whole,
            None => {
                let Some(length) = head::end(input, &mut waiting.seen, LIMITS.head)? else { return Ok(None) };
                (head::response(&input[..length], method, &LIMITS)?, length)
            }
        };
        input.advance(length);
        waiting.seen = 0;
        let status = response.head.status;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let fields = &response.head.fields;
            let asked = waiting.call.head.upgrade.as_deref().is_some_and(|asked| {
                let mut protocols = fields.tokens(Known::Upgrade);
                protocols.next().is_some_and(|it| it.eq_ignore_ascii_case(asked.as_bytes()))
                    && protocols.next().is_none()
            });
            return match asked {
                true => Ok(Some(Event::Response(response))),
                false => Err(HeadError::Malformed("it changes to a protocol that nobody asked for")),
            };
        }
        if status.is_informational() {
            return Ok(Some(Event::Interim(response.head)));
        }
        Ok(Some(Event::Response(response)))
    }

    /// Whether somebody has kept us waiting for too long.
    fn poll_deadline(
        &mut self,
        waiting: &mut Waiting<'_>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Event, (RequestError, bool)>> {
        let header = waiting.call.timeouts.header.0;
        let mut limit = match self.sending.stage {
            Stage::Taking | Stage::Flushing => self.sending.patience().deadline(),
            Stage::Over | Stage::Broken => waiting.sent.unwrap_or(waiting.began) + header,
        };
        if let Some(until) = waiting.call.until {
            limit = limit.min(until);
        }
        let leave = waiting.began + CONTINUE;
        let gives_leave = !waiting.told && !self.sending.began && leave < limit;
        if self.wire.connection.timer.poll(if gives_leave { leave } else { limit }, context).is_pending() {
            return Poll::Pending;
        }
        if gives_leave {
            return Poll::Ready(Ok(Event::Continue));
        }
        let idle = waiting.call.timeouts.idle.0;
        Poll::Ready(Err((
            match (self.sending.stage, self.sending.waits_for) {
                _ if waiting.call.until == Some(limit) => RequestError::HeaderTimeout(waiting.began.elapsed()),
                (Stage::Over | Stage::Broken, _) => RequestError::HeaderTimeout(header),
                (_, Side::Client) => RequestError::ClientBody(BodyError::Slow(idle)),
                (_, Side::Endpoint) => RequestError::HeaderTimeout(idle),
            },
            false,
        )))
    }
}

impl Sending {
    fn patience(&mut self) -> &mut Patience {
        match self.waits_for {
            Side::Client => &mut self.client,
            Side::Endpoint => &mut self.endpoint,
        }
    }

    fn wait_for(&mut self, side: Side) {
        self.waits_for = side;
        match side {
            Side::Client => self.endpoint.rest(),
            Side::Endpoint => self.client.rest(),
        }
    }

    fn put(&mut self, connection: &mut Connection, frame: Frame) {
        self.began = true;
        match frame {
            Frame::Data(data) => {
                self.client.moved(data.len());
                if !self.chunked {
                    connection.put(data);
                    if self.upload.is_over() {
                        self.stage = Stage::Flushing;
                    }
                    return;
                }
                connection.put_chunk(data);
            }
            Frame::Trailers(mut trailers) => {
                super::super::headers::trailers(&mut trailers);
                connection.put_line(|out| encode::last_chunk(out, Some(&trailers)));
                self.stage = Stage::Flushing;
            }
        }
    }

    fn end(&mut self, connection: &mut Connection) {
        if self.chunked {
            connection.put_line(|out| encode::last_chunk(out, None));
        }
        self.stage = Stage::Flushing;
    }
}

/// Whether this is how a connection ends that the other side has given up.
fn is_lost(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    [BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof].contains(&error.kind())
}
