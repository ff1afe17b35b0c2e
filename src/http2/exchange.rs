//! One stream of a client, for whoever answers it: what comes, and what goes.
//!
//! All of it is done in the future of the stream, which its connection polls, so that no waker has to be kept: when something
//! changes for a stream, the connection polls it again.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;

use super::answer::Gone;
use super::respond::{Refused, Sink};
use super::session::Session;
use crate::message::{BodyError, Fields, Frame, Length, ResponseHead};

/// A stream. Several may hold it: one to take what comes, one to send the response, one for what goes before.
#[derive(Clone)]
pub struct Exchange {
    session: Rc<RefCell<Session>>,
    slot: u32,
    stream: u32,
}

impl Exchange {
    pub(super) fn new(session: &Rc<RefCell<Session>>, slot: u32) -> Exchange {
        let stream = session.borrow().slots[slot as usize].id;
        Exchange { session: session.clone(), slot, stream }
    }

    /// Whether the client still waits for the response.
    pub fn is_there(&self) -> bool {
        self.session.borrow_mut().is_there(self.slot, self.stream)
    }

    /// Tells the client something before the response (RFC 9110, section 15.2). What cannot be sent is no loss: whoever sends
    /// the response will find out.
    pub fn tell(&self, head: &ResponseHead) {
        // HTTP/2 has no 101 (RFC 9113, section 8.6).
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            let _ = self.session.borrow_mut().respond(self.slot, self.stream, head, false);
        }
    }

    /// Sends the response's head. `over`: there is no body.
    ///
    /// # Errors
    /// If the stream or its connection is gone.
    pub fn respond(&self, head: &ResponseHead, over: bool) -> Result<(), Gone> {
        self.session.borrow_mut().respond(self.slot, self.stream, head, over)
    }

    /// Takes the stream back; `why` is one of [`super::frame::reason`].
    pub fn reset(&self, why: u32) {
        self.session.borrow_mut().reset(self.slot, self.stream, why);
    }

    /// The next piece of the request's body; none at the end.
    pub fn poll_frame(&mut self) -> Poll<Option<Result<Frame, BodyError>>> {
        match self.session.borrow_mut().next(self.slot, self.stream) {
            None => Poll::Pending,
            Some(next) => Poll::Ready(next.transpose()),
        }
    }

    /// Whether nothing is left of the request's body.
    pub fn is_over(&self) -> bool {
        self.session.borrow().is_over(self.slot, self.stream)
    }

    /// How much is left of the request's body, without what may stand behind it.
    pub fn length(&self) -> Length {
        self.session.borrow().length(self.slot, self.stream)
    }
}

impl From<Gone> for Refused {
    fn from(_: Gone) -> Refused {
        Refused
    }
}

impl Sink for Exchange {
    fn poll_room(&mut self, _: usize, _: &mut Context<'_>) -> Poll<Result<usize, Refused>> {
        match self.session.borrow_mut().room(self.slot, self.stream) {
            Ok(Some(room)) => Poll::Ready(Ok(room)),
            Ok(None) => Poll::Pending,
            Err(gone) => Poll::Ready(Err(gone.into())),
        }
    }

    fn put(&mut self, piece: Bytes, over: bool) -> Result<(), Refused> {
        Ok(self.session.borrow_mut().data(self.slot, self.stream, piece, over)?)
    }

    fn trailers(&mut self, fields: &Fields) -> Result<(), Refused> {
        Ok(self.session.borrow_mut().trailers(self.slot, self.stream, fields)?)
    }

    fn reset(&mut self, why: u32) {
        Exchange::reset(self, why);
    }
}

/// A stream that carries another protocol, after an extended CONNECT (RFC 8441): bytes both ways.
pub struct Passage {
    exchange: Exchange,
    /// What is to be written.
    piece: Bytes,
    ended: bool,
}

impl Passage {
    /// Over a stream whose heads have been exchanged.
    pub fn new(exchange: Exchange) -> Passage {
        Passage { exchange, piece: Bytes::new(), ended: false }
    }

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// If the stream was reset, or its connection is gone.
    pub fn poll_read(&mut self) -> Poll<io::Result<Bytes>> {
        match ready!(self.exchange.poll_frame()) {
            Some(Ok(Frame::Data(data))) => Poll::Ready(Ok(data)),
            Some(Ok(Frame::Trailers(_))) | None => Poll::Ready(Ok(Bytes::new())),
            Some(Err(_)) => Poll::Ready(Err(lost())),
        }
    }

    /// Takes a piece to be written; only when everything before is flushed.
    pub fn put(&mut self, piece: Bytes) {
        debug_assert!(self.piece.is_empty());
        self.piece = piece;
    }

    /// Ready when the connection has everything, and a place in all windows for it.
    ///
    /// # Errors
    /// If the stream was reset, or its connection is gone.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.piece.is_empty() {
            let room = match self.exchange.poll_room(self.piece.len(), context) {
                Poll::Ready(room) => room.map_err(|_| lost())?,
                Poll::Pending => {
                    if !self.piece.is_unique() {
                        // It lies where others are to read to.
                        self.piece = Bytes::copy_from_slice(&self.piece);
                    }
                    return Poll::Pending;
                }
            };
            let part = self.piece.split_to(room.min(self.piece.len()));
            self.exchange.put(part, false).map_err(|_| lost())?;
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more will be written.
    ///
    /// # Errors
    /// If the stream was reset, or its connection is gone.
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(context))?;
        if !std::mem::replace(&mut self.ended, true) {
            self.exchange.put(Bytes::new(), true).map_err(|_| lost())?;
        }
        Poll::Ready(Ok(()))
    }
}

fn lost() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
