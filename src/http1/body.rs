//! Bodies as they arrive over a connection.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::chunked::{Decoder, Step};
use super::connection::Connection;
use super::head::Framing;
use crate::message::{BodyError, Frame, Length};

/// A piece up to this long is copied out of the buffer it was read into.
const SMALL: usize = 1 << 10;

/// A connection and the body that is being read from it.
pub struct Link {
    /// The connection.
    pub connection: Connection,
    /// How far the body of the current message was read.
    pub reader: Reader,
}

/// A connection that both the reader of a body and the writer of the answer use. They take turns on one thread.
pub type Shared = Rc<RefCell<Link>>;

/// How far a body was read.
#[derive(Debug)]
pub enum Reader {
    /// Nothing is left.
    Over,
    /// So many bytes are left, more than zero.
    Length(u64),
    /// In chunks.
    Chunked(Decoder),
    /// Until the connection ends.
    UntilClose,
}

impl Reader {
    /// Of a body that has just begun.
    pub fn new(framing: Framing) -> Reader {
        match framing {
            Framing::None => Reader::Over,
            Framing::Length(length) => Reader::Length(length),
            Framing::Chunked => Reader::Chunked(Decoder::default()),
            Framing::UntilClose => Reader::UntilClose,
        }
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        matches!(self, Reader::Over)
    }

    /// How much is left.
    pub fn length(&self) -> Length {
        match self {
            Reader::Over => Length::Known(0),
            Reader::Length(left) => Length::Known(*left),
            Reader::Chunked(_) | Reader::UntilClose => Length::Unknown,
        }
    }

    /// The next piece; none at the end.
    pub fn poll_frame(
        &mut self,
        connection: &mut Connection,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            match self.take(connection) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(None) if self.is_over() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(connection.poll_body(context)) {
                Ok(0) if matches!(self, Reader::UntilClose) => {
                    *self = Reader::Over;
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(BodyError::Truncated))),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    // TLS was not closed as it must be: somebody may have cut the message short.
                    return Poll::Ready(Some(Err(BodyError::Truncated)));
                }
                Err(error) => return Poll::Ready(Some(Err(BodyError::Io(error)))),
            }
        }
    }

    /// A piece of what has arrived already.
    fn take(&mut self, connection: &mut Connection) -> Result<Option<Frame>, BodyError> {
        let input = &mut connection.input;
        match self {
            Reader::Over => Ok(None),
            Reader::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                if here == 0 {
                    return Ok(None);
                }
                *left -= here as u64;
                if *left == 0 {
                    *self = Reader::Over;
                }
                if here == input.len() && here <= SMALL {
                    // A buffer that a piece lies in is of no use for the next head.
                    let data = Bytes::copy_from_slice(input);
                    input.clear();
                    return Ok(Some(Frame::Data(data)));
                }
                Ok(Some(Frame::Data(input.split_to(here).freeze())))
            }
            Reader::Chunked(decoder) => match decoder.decode(input).map_err(BodyError::Malformed)? {
                Step::Data(data) => Ok(Some(Frame::Data(data))),
                Step::More => Ok(None),
                Step::End(trailers) => {
                    *self = Reader::Over;
                    Ok(trailers.map(Frame::Trailers))
                }
            },
            Reader::UntilClose if input.is_empty() => Ok(None),
            Reader::UntilClose => Ok(Some(Frame::Data(input.split().freeze()))),
        }
    }
}

/// A client's body.
pub struct Incoming(Shared);

impl Incoming {
    /// The body of the request whose head was read from this connection last.
    pub fn new(link: &Shared) -> Incoming {
        Incoming(link.clone())
    }

    /// The next piece; none at the end.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let link = &mut *self.0.borrow_mut();
        link.reader.poll_frame(&mut link.connection, context)
    }

    /// Whoever takes it is slow.
    pub fn rest(&mut self) {
        self.0.borrow_mut().connection.rest();
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.borrow().reader.is_over()
    }

    /// How much is left.
    pub fn length(&self) -> Length {
        self.0.borrow().reader.length()
    }
}

/// Bytes that came behind a head, for whoever goes on with the connection in another protocol.
pub fn rest(connection: &mut Connection) -> Bytes {
    connection.input.split().freeze()
}
