//! Bodies as they arrive over a stream.

use std::task::{Context, Poll, ready};

use super::convert;
use crate::message::{BodyError, Frame, Length};
use h2::{Reason, RecvStream};

/// A body that is being received. The sender may be a window ahead of whoever takes the pieces, and no more.
pub struct Incoming {
    stream: RecvStream,
    /// Bytes that were announced and did not come yet; none if nothing was announced.
    left: Option<u64>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Data,
    Trailers,
    Over,
}

impl Incoming {
    /// The body of a message that announced this length.
    pub fn new(stream: RecvStream, length: Option<u64>) -> Incoming {
        let stage = if stream.is_end_stream() { Stage::Over } else { Stage::Data };
        Incoming { stream, left: length, stage }
    }

    /// The next piece; none at the end.
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        while self.stage == Stage::Data {
            match ready!(self.stream.poll_data(context)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    // Whoever took the last piece is ready for another, so the sender may send as much again.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    if self.stream.is_end_stream() {
                        self.stage = Stage::Over;
                    }
                    return Poll::Ready(Some(Ok(Frame::Data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(failure(error)))),
                None => self.stage = Stage::Trailers,
            }
        }
        if self.stage == Stage::Trailers {
            let trailers = ready!(self.stream.poll_trailers(context));
            self.stage = Stage::Over;
            return Poll::Ready(match trailers {
                Ok(Some(map)) => Some(convert::trailers(&map).map(Frame::Trailers).map_err(|_| MALFORMED)),
                Ok(None) => None,
                Err(error) => Some(Err(failure(error))),
            });
        }
        Poll::Ready(None)
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over || self.stream.is_end_stream()
    }

    /// How much is left, without what may stand behind the body.
    pub fn length(&self) -> Length {
        match self.left {
            _ if self.is_over() => Length::Known(0),
            Some(left) => Length::Known(left),
            None => Length::Unknown,
        }
    }
}

const MALFORMED: BodyError = BodyError::Malformed("the trailers are malformed");

/// What became of a body that did not come to its end.
pub fn failure(error: h2::Error) -> BodyError {
    if error.is_io() {
        return match error.into_io() {
            // What `h2` says when the connection ended, whichever way.
            Some(error) if error.kind() == std::io::ErrorKind::BrokenPipe => BodyError::Truncated,
            Some(error) => BodyError::Io(error),
            None => BodyError::Truncated,
        };
    }
    match error.reason() {
        // `h2` has seen that the length is wrong, or that a frame came where none may.
        Some(Reason::PROTOCOL_ERROR) if error.is_library() => {
            BodyError::Malformed("the body is not as it was announced")
        }
        _ if error.is_go_away() => BodyError::Truncated,
        _ => BodyError::Reset,
    }
}
