//! Sending: a stream's interim responses, its response, and bodies with back-pressure both ways.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::StatusCode;

use super::convert;
use crate::message::{BodyError, Frame, ResponseHead};
use crate::timer::{Patience, Timer};

/// How a client is answered on one stream. Several may hold it: one to send the response, one what comes before.
#[derive(Clone)]
pub struct Responder(Rc<RefCell<SendResponse<Bytes>>>);

impl Responder {
    /// For a stream that was accepted.
    pub fn new(stream: SendResponse<Bytes>) -> Responder {
        Responder(Rc::new(RefCell::new(stream)))
    }

    /// Tells the client something before the response (RFC 9110, section 15.2). What cannot be sent is no loss: whoever sends
    /// the response will find out.
    pub fn tell(&self, head: &ResponseHead) {
        // HTTP/2 has no 101 (RFC 9113, section 8.6).
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            let _ = self.0.borrow_mut().send_informational(convert::to_response(head));
        }
    }

    /// Sends the response's head. `over`: there is no body.
    ///
    /// # Errors
    /// If the stream or its connection is gone.
    pub fn respond(&self, head: &ResponseHead, over: bool) -> Result<SendStream<Bytes>, h2::Error> {
        self.0.borrow_mut().send_response(convert::to_response(head), over)
    }

    /// Takes the stream back.
    pub fn reset(&self, reason: Reason) {
        self.0.borrow_mut().send_reset(reason);
    }

    /// Ready when the client has taken the stream back, or its connection is gone. Only before the response.
    pub fn poll_reset(&self, context: &mut Context<'_>) -> Poll<()> {
        self.0.borrow_mut().poll_reset(context).map(drop)
    }
}

/// Where the pieces of a body come from.
pub trait Source {
    /// The next piece; none at the end.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>>;

    /// Whether nothing is left, not even trailers.
    fn is_over(&self) -> bool;

    /// The receiver has the turn: time that passes now is not the source's, and what does not depend on the receiver may go on.
    fn meanwhile(&mut self, context: &mut Context<'_>);
}

/// Why a body was not sent to its end.
#[derive(Debug)]
pub enum Unsent {
    /// The source failed.
    Source(BodyError),
    /// The receiver took the stream back; none: its connection is gone.
    Refused(Option<Reason>),
    /// The receiver took nothing, or too little.
    Slow(std::time::Duration),
}

/// A body on its way out.
///
/// A piece is asked for only when there is room for at least a byte of it, and what is handed to `h2` has its place in all
/// windows: so a stream that is held up costs one piece, and what ends it has nothing left to wait for but the connection.
pub struct Sending {
    stream: SendStream<Bytes>,
    piece: Bytes,
    /// Bytes of the body that `h2` has been given.
    sent: u64,
    stage: Stage,
    patience: Patience,
    timer: Timer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The source has more.
    Taking,
    /// All is with us or with `h2`.
    Last,
    /// All is with `h2`, or nothing more can be sent.
    Over,
}

impl Sending {
    /// A body behind a head that was sent.
    pub fn new(stream: SendStream<Bytes>, patience: Patience) -> Sending {
        Sending { stream, piece: Bytes::new(), sent: 0, stage: Stage::Taking, patience, timer: Timer::default() }
    }

    /// A message without a body, or whose body was sent.
    pub fn over(stream: SendStream<Bytes>) -> Sending {
        Sending { stage: Stage::Over, ..Sending::new(stream, Patience::new(std::time::Duration::ZERO, 0)) }
    }

    /// Whether all was sent, or nothing more will be.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Bytes of the body that were sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether it is the receiver that keeps us waiting.
    pub fn waits_for_receiver(&self) -> bool {
        self.patience.is_waiting()
    }

    /// Ready when all was sent. To be called again whenever the task is woken.
    ///
    /// # Errors
    /// See [`Unsent`]. The stream is reset where that is still of use, so that the receiver does not take what came for the
    /// whole: with INTERNAL_ERROR if the source failed, with CANCEL if the receiver is too slow.
    pub fn poll(&mut self, source: &mut impl Source, context: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        let outcome = self.poll_send(source, context);
        match &outcome {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(Unsent::Source(_))) => self.stream.send_reset(Reason::INTERNAL_ERROR),
            Poll::Ready(Err(Unsent::Slow(_))) => self.stream.send_reset(Reason::CANCEL),
            Poll::Ready(Err(Unsent::Refused(_))) => {}
        }
        self.stage = Stage::Over;
        outcome
    }

    fn poll_send(&mut self, source: &mut impl Source, context: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        loop {
            match self.stage {
                Stage::Over => return Poll::Ready(Ok(())),
                Stage::Last if self.piece.is_empty() => {
                    return Poll::Ready(self.stream.send_data(Bytes::new(), true).map_err(|_| Unsent::Refused(None)));
                }
                Stage::Taking | Stage::Last => {}
            }
            let room = match self.poll_room(context) {
                Poll::Ready(room) => room?,
                Poll::Pending => {
                    if !self.piece.is_empty() && !self.piece.is_unique() {
                        // It lies where others are to read to.
                        self.piece = Bytes::copy_from_slice(&self.piece);
                    }
                    source.meanwhile(context);
                    ready!(self.timer.poll(self.patience.deadline(), context));
                    return Poll::Ready(Err(Unsent::Slow(self.patience.idle())));
                }
            };
            self.patience.rest();
            if self.piece.is_empty() {
                match ready!(source.poll_frame(context)) {
                    Some(Ok(Frame::Data(data))) => self.piece = data,
                    Some(Ok(Frame::Trailers(fields))) => {
                        let sent = self.stream.send_trailers(convert::to_trailers(&fields));
                        return Poll::Ready(sent.map_err(|_| Unsent::Refused(None)));
                    }
                    Some(Err(error)) => return Poll::Ready(Err(Unsent::Source(error))),
                    None => self.stage = Stage::Last,
                }
                if source.is_over() {
                    self.stage = Stage::Last;
                }
                // There may be room for more of it now that it is known how much is wanted.
                continue;
            }
            let part = self.piece.split_to(room.min(self.piece.len()));
            self.patience.moved(part.len());
            self.sent += part.len() as u64;
            let over = self.stage == Stage::Last && self.piece.is_empty();
            self.stream.send_data(part, over).map_err(|_| Unsent::Refused(None))?;
            if over {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// How many bytes may be sent now; at least one.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Unsent>> {
        self.stream.reserve_capacity(self.piece.len().max(1));
        let room = self.stream.capacity();
        if room > 0 {
            // Also has the task woken if the stream is reset while the source is waited for.
            return match self.stream.poll_reset(context) {
                Poll::Ready(outcome) => Poll::Ready(Err(Unsent::Refused(outcome.ok()))),
                Poll::Pending => Poll::Ready(Ok(room)),
            };
        }
        match ready!(self.stream.poll_capacity(context)) {
            Some(Ok(room)) => Poll::Ready(Ok(room)),
            Some(Err(error)) => Poll::Ready(Err(Unsent::Refused(error.reason()))),
            None => {
                let reason = match self.stream.poll_reset(context) {
                    Poll::Ready(Ok(reason)) => Some(reason),
                    _ => None,
                };
                Poll::Ready(Err(Unsent::Refused(reason)))
            }
        }
    }
}
