//! Sending: bodies with back-pressure both ways, over streams of ours and of `h2`.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;

use super::convert;
use super::frame::reason;
use crate::message::{BodyError, Fields, Frame};
use crate::timer::{Patience, Timer};

/// Where the pieces of a body go to: a stream, ours or `h2`'s.
pub trait Sink {
    /// How many bytes may be sent now, of so many; at least one.
    fn poll_room(&mut self, wanted: usize, context: &mut Context<'_>) -> Poll<Result<usize, Refused>>;

    /// Sends a piece, for which there is room. `over`: it is the last.
    ///
    /// # Errors
    /// If the stream or its connection is gone.
    fn put(&mut self, piece: Bytes, over: bool) -> Result<(), Refused>;

    /// Sends what stands behind the body, and ends it.
    ///
    /// # Errors
    /// If the stream or its connection is gone.
    fn trailers(&mut self, fields: &Fields) -> Result<(), Refused>;

    /// Takes the stream back; `why` is one of [`reason`].
    fn reset(&mut self, why: u32);
}

/// The receiver took the stream back, or its connection is gone.
#[derive(Clone, Copy, Debug)]
pub struct Refused;

impl Sink for SendStream<Bytes> {
    fn poll_room(&mut self, wanted: usize, context: &mut Context<'_>) -> Poll<Result<usize, Refused>> {
        self.reserve_capacity(wanted);
        let room = self.capacity();
        if room > 0 {
            // Also has the task woken if the stream is reset while the source is waited for.
            return match self.poll_reset(context) {
                Poll::Ready(_) => Poll::Ready(Err(Refused)),
                Poll::Pending => Poll::Ready(Ok(room)),
            };
        }
        match ready!(self.poll_capacity(context)) {
            Some(Ok(room)) => Poll::Ready(Ok(room)),
            Some(Err(_)) | None => Poll::Ready(Err(Refused)),
        }
    }

    fn put(&mut self, piece: Bytes, over: bool) -> Result<(), Refused> {
        self.send_data(piece, over).map_err(|_| Refused)
    }

    fn trailers(&mut self, fields: &Fields) -> Result<(), Refused> {
        self.send_trailers(convert::to_trailers(fields)).map_err(|_| Refused)
    }

    fn reset(&mut self, why: u32) {
        self.send_reset(why.into());
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
    /// The receiver took the stream back, or its connection is gone.
    Refused,
    /// The receiver took nothing, or too little.
    Slow(std::time::Duration),
}

/// A body on its way out.
///
/// A piece is asked for only when there is room for at least a byte of it, and what is handed on has its place in all
/// windows: so a stream that is held up costs one piece, and what ends it has nothing left to wait for but the connection.
pub struct Sending<S> {
    stream: S,
    piece: Bytes,
    /// Bytes of the body that were handed on.
    sent: u64,
    stage: Stage,
    patience: Patience,
    timer: Timer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The source has more.
    Taking,
    /// All is with us, or handed on.
    Last,
    /// All is handed on, or nothing more can be sent.
    Over,
}

impl<S: Sink> Sending<S> {
    /// A body behind a head that was sent.
    pub fn new(stream: S, patience: Patience) -> Sending<S> {
        Sending { stream, piece: Bytes::new(), sent: 0, stage: Stage::Taking, patience, timer: Timer::default() }
    }

    /// A message without a body, or whose body was sent.
    pub fn over(stream: S) -> Sending<S> {
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
            Poll::Ready(Err(Unsent::Source(_))) => self.stream.reset(reason::INTERNAL_ERROR),
            Poll::Ready(Err(Unsent::Slow(_))) => self.stream.reset(reason::CANCEL),
            Poll::Ready(Err(Unsent::Refused)) => {}
        }
        self.stage = Stage::Over;
        outcome
    }

    fn poll_send(&mut self, source: &mut impl Source, context: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        loop {
            match self.stage {
                Stage::Over => return Poll::Ready(Ok(())),
                Stage::Last if self.piece.is_empty() => {
                    return Poll::Ready(Ok(self.stream.put(Bytes::new(), true)?));
                }
                Stage::Taking | Stage::Last => {}
            }
            let room = match self.stream.poll_room(self.piece.len().max(1), context) {
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
                        return Poll::Ready(Ok(self.stream.trailers(&fields)?));
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
            self.stream.put(part, over)?;
            if over {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl From<Refused> for Unsent {
    fn from(_: Refused) -> Unsent {
        Unsent::Refused
    }
}
