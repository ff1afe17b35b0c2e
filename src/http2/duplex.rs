//! A stream that carries another protocol, after an extended CONNECT (RFC 8441): bytes both ways.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use super::incoming::failure;
use crate::message::BodyError;

/// One side of a tunnel.
pub struct Duplex {
    incoming: RecvStream,
    outgoing: SendStream<Bytes>,
    /// What is to be written.
    piece: Bytes,
    ended: bool,
}

impl Duplex {
    /// Both halves of a stream whose heads have been exchanged.
    pub fn new(incoming: RecvStream, outgoing: SendStream<Bytes>) -> Duplex {
        Duplex { incoming, outgoing, piece: Bytes::new(), ended: false }
    }

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// If the stream was reset, or its connection is gone.
    pub fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            match ready!(self.incoming.poll_data(context)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    let _ = self.incoming.flow_control().release_capacity(data.len());
                    return Poll::Ready(Ok(data));
                }
                Some(Err(error)) => return Poll::Ready(Err(lost(error))),
                None => return Poll::Ready(Ok(Bytes::new())),
            }
        }
    }

    /// Takes a piece to be written; only when everything before is flushed.
    pub fn put(&mut self, piece: Bytes) {
        debug_assert!(self.piece.is_empty());
        self.piece = piece;
    }

    /// Ready when `h2` has everything, and a place in all windows for it.
    ///
    /// # Errors
    /// If the stream was reset, or its connection is gone.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.piece.is_empty() {
            self.outgoing.reserve_capacity(self.piece.len());
            let mut room = self.outgoing.capacity();
            if room == 0 {
                room = match ready!(self.outgoing.poll_capacity(context)) {
                    Some(Ok(room)) => room,
                    Some(Err(error)) => return Poll::Ready(Err(lost(error))),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                };
            }
            let part = self.piece.split_to(room.min(self.piece.len()));
            self.outgoing.send_data(part, false).map_err(lost)?;
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
            self.outgoing.send_data(Bytes::new(), true).map_err(lost)?;
        }
        Poll::Ready(Ok(()))
    }
}

fn lost(error: h2::Error) -> io::Error {
    match failure(error) {
        BodyError::Io(error) => error,
        _ => io::ErrorKind::ConnectionReset.into(),
    }
}
