//! An endpoint's response on its way: over a connection of its own, or over a stream of one.

use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use super::super::opening;
use super::super::upgrade::Duplex;
use super::{Answer, AnswerBody, Call, Held, Switched, Upstream, Wire, http1, http2};
use crate::endpoint::{InFlight, Trouble};
use crate::http1::body::Reader;
use crate::http1::head;
use crate::message::{BodyError, Frame, Length};
use crate::timer::Patience;

/// A response on its way.
pub struct ResponseBody(Over);

enum Over {
    /// A connection of its own.
    Http1(Box<Http1Body>),
    /// A stream.
    Http2(Box<http2::Body>),
}

impl ResponseBody {
    /// How much is left.
    pub fn length(&self) -> Length {
        match &self.0 {
            Over::Http1(body) => body.reader.length(),
            Over::Http2(body) => body.length(),
        }
    }

    /// Whether nothing is left, not even trailers.
    pub fn is_over(&self) -> bool {
        match &self.0 {
            Over::Http1(body) => body.reader.is_over(),
            Over::Http2(body) => body.is_over(),
        }
    }

    /// The next piece; none at the end. The rest of the request is sent on meanwhile.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match &mut self.0 {
            Over::Http1(body) => body.poll_frame(context),
            Over::Http2(body) => body.poll_frame(context),
        }
    }

    /// Sends on what there is of the request, while nobody takes the response. A failure is found out by
    /// [`ResponseBody::poll_frame`].
    pub fn poll_upload(&mut self, context: &mut Context<'_>) {
        match &mut self.0 {
            Over::Http1(body) => body.poll_upload(context),
            Over::Http2(body) => body.poll_upload(context),
        }
    }

    /// The client is slow or busy: what the endpoint does meanwhile is not its fault.
    pub fn rest(&mut self) {
        match &mut self.0 {
            Over::Http1(body) => body.rest(),
            Over::Http2(body) => body.rest(),
        }
    }
}

impl Upstream {
    /// What came over a connection of its own.
    pub(super) fn answer(
        self: &Rc<Self>,
        head: head::Response,
        exchange: http1::Exchange,
        call: Call<'_>,
        inflight: InFlight,
    ) -> Answer {
        if head.head.status == http::StatusCode::SWITCHING_PROTOCOLS {
            let Wire { connection, open } = exchange.into_wire();
            let switched = Switched { stream: Duplex::Http1(connection), inflight, held: Held::Connection(open) };
            return Answer { head: head.head, body: AnswerBody::Switched(switched) };
        }
        let lease = Lease { home: Rc::downgrade(self), inflight };
        let stream = head.head.is_event_stream();
        let (idle, rate) = if stream { (call.timeouts.stream.0, 0) } else { (call.timeouts.idle.0, call.rate) };
        let mut body = Http1Body {
            reader: Reader::new(head.framing),
            keep_alive: head.keep_alive,
            exchange: Some(exchange),
            lease: Some(lease),
            patience: Patience::new(idle, rate),
            until: call.until.filter(|_| !stream),
        };
        body.finish_if_over();
        Answer { head: head.head, body: AnswerBody::Body(ResponseBody(Over::Http1(Box::new(body)))) }
    }

    /// What came over a stream.
    pub(super) fn answered(&self, answer: http2::Answer, call: Call<'_>, inflight: InFlight) -> Answer {
        let (head, body) = match answer {
            http2::Answer::Response(head, mut body) => {
                let stream = head.is_event_stream();
                let (idle, rate) = if stream { (call.timeouts.stream.0, 0) } else { call.pace() };
                let until = call.until.filter(|_| !stream);
                body.lease(inflight, Patience::new(idle, rate), until);
                (head, AnswerBody::Body(ResponseBody(Over::Http2(body))))
            }
            http2::Answer::Switched(mut head, stream, busy) => {
                opening::answer(call.head, &mut head);
                let stream = Duplex::Http2(stream);
                (head, AnswerBody::Switched(Switched { stream, inflight, held: Held::Stream(busy) }))
            }
        };
        Answer { head, body }
    }
}

/// A response on its way, and the connection that it comes over.
struct Http1Body {
    reader: Reader,
    keep_alive: bool,
    /// Until the end; given up unused if the response is not read to it, which closes the connection.
    exchange: Option<http1::Exchange>,
    lease: Option<Lease>,
    patience: Patience,
    until: Option<Instant>,
}

struct Lease {
    home: Weak<Upstream>,
    inflight: InFlight,
}

impl Http1Body {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
        if let Poll::Ready(Err(error)) = exchange.poll_upload(context) {
            self.give_up(None);
            return Poll::Ready(Some(Err(error)));
        }
        let connection = exchange.connection();
        match self.reader.poll_frame(connection, context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Frame::Data(data) = &frame {
                    self.patience.moved(data.len());
                }
                self.finish_if_over();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.give_up(Some(Trouble::Broken));
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                self.finish_if_over();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let idle = self.patience.deadline();
                let deadline = self.until.map_or(idle, |until| until.min(idle));
                match connection.timer.poll(deadline, context) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => {
                        self.give_up(Some(Trouble::Late));
                        Poll::Ready(Some(Err(BodyError::Slow(self.patience.idle()))))
                    }
                }
            }
        }
    }

    fn poll_upload(&mut self, context: &mut Context<'_>) {
        if let Some(exchange) = &mut self.exchange {
            let _ = exchange.poll_upload(context);
        }
    }

    fn rest(&mut self) {
        self.patience.rest();
        if let Some(exchange) = &mut self.exchange {
            exchange.connection().rest();
        }
    }

    /// `trouble`: what the endpoint is to blame for.
    fn give_up(&mut self, trouble: Option<Trouble>) {
        self.exchange = None;
        if let (Some(lease), Some(trouble)) = (self.lease.take(), trouble) {
            lease.inflight.failed(trouble);
        }
    }

    fn finish_if_over(&mut self) {
        if !self.reader.is_over() {
            return;
        }
        let (Some(exchange), Some(lease)) = (self.exchange.take(), self.lease.take()) else { return };
        if !self.keep_alive {
            return;
        }
        if let (Some(mut wire), Some(home)) = (exchange.into_idle(), lease.home.upgrade())
            && wire.connection.input.is_empty()
            && !wire.connection.has_ended()
        {
            wire.connection.keep();
            home.put(&lease.inflight, wire);
        }
    }
}
