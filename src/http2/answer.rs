//! What whoever answers a stream does on it: sends a head and a body, takes what comes.

use bytes::Bytes;

use super::frame::{Head, LONGEST, flag, kind};
use super::response;
use super::session::{Incoming, Outgoing, Piece, Session, Slot};
use crate::message::{BodyError, Fields, Frame, Length, ResponseHead};

/// The stream, or its connection, is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl Session {
    fn slot(&mut self, slot: u32, id: u32) -> Result<&mut Slot, Gone> {
        let gone = self.gone;
        let stream = self.slots.get_mut(slot as usize).filter(|it| it.id == id && !gone).ok_or(Gone)?;
        match stream.incoming {
            Incoming::Reset | Incoming::Broken => Err(Gone),
            Incoming::Open | Incoming::Ended => Ok(stream),
        }
    }

    /// Whether the client still wants to hear.
    pub(super) fn is_there(&mut self, slot: u32, id: u32) -> bool {
        self.slot(slot, id).is_ok()
    }

    /// Sends a head; `over`: nothing follows. An informational one is followed by another head.
    pub fn respond(&mut self, slot: u32, id: u32, head: &ResponseHead, over: bool) -> Result<(), Gone> {
        let interim = head.status.is_informational();
        let stream = self.slot(slot, id)?;
        if stream.outgoing != Outgoing::Nothing {
            return Err(Gone);
        }
        if !interim {
            stream.outgoing = if over { Outgoing::Ended } else { Outgoing::Head };
        }
        if over {
            self.ledger.ended();
        }
        self.block(id, over, |encoder, out| response::head(encoder, head, out));
        Ok(())
    }

    /// Sends what stands behind a body.
    pub(super) fn trailers(&mut self, slot: u32, id: u32, fields: &Fields) -> Result<(), Gone> {
        if fields.is_empty() {
            return self.data(slot, id, Bytes::new(), true);
        }
        self.end(slot, id)?;
        self.block(id, true, |encoder, out| response::trailers(encoder, fields, out));
        Ok(())
    }

    fn end(&mut self, slot: u32, id: u32) -> Result<(), Gone> {
        let stream = self.slot(slot, id)?;
        if stream.outgoing != Outgoing::Head {
            return Err(Gone);
        }
        stream.outgoing = Outgoing::Ended;
        self.ledger.ended();
        Ok(())
    }

    /// How many bytes of a body may be sent now; at least one. None: the stream is looked at again when that may have changed.
    pub fn room(&mut self, slot: u32, id: u32) -> Result<Option<usize>, Gone> {
        let crowded = self.window <= 0 || !self.out.has_room();
        let whole = self.window.max(0);
        let stream = self.slot(slot, id)?;
        if stream.window <= 0 {
            return Ok(None);
        }
        if crowded {
            if !std::mem::replace(&mut stream.waits, true) {
                self.waiting.push_back((slot, id));
            }
            return Ok(None);
        }
        Ok(Some(stream.window.min(whole).min(LONGEST as i64) as usize))
    }

    /// Sends a piece of a body, for which there is room.
    pub fn data(&mut self, slot: u32, id: u32, piece: Bytes, over: bool) -> Result<(), Gone> {
        let length = piece.len();
        if over {
            self.end(slot, id)?;
        }
        let stream = self.slot(slot, id)?;
        debug_assert!(length <= LONGEST && (length == 0 || stream.window >= length as i64));
        stream.window -= length as i64;
        self.window -= length as i64;
        self.ledger.sent(length as u32);
        let flags = if over { flag::END_STREAM } else { 0 };
        self.out.put(&Head { length, kind: kind::DATA, flags, stream: id }.bytes());
        self.out.piece(piece);
        Ok(())
    }

    /// Takes a stream back.
    pub(super) fn reset(&mut self, slot: u32, id: u32, why: u32) {
        if let Ok(stream) = self.slot(slot, id) {
            stream.incoming = Incoming::Broken;
            self.take_back(id, why);
        }
    }

    /// The next piece of what the client sends; `Ok(None)` at the end. Nothing: there is no more yet.
    pub fn next(&mut self, slot: u32, id: u32) -> Option<Result<Option<Frame>, BodyError>> {
        if self.gone {
            return Some(Err(BodyError::Truncated));
        }
        let Some(stream) = self.slots.get_mut(slot as usize).filter(|it| it.id == id) else {
            return Some(Err(BodyError::Reset));
        };
        if let Some(piece) = stream.pieces.pop_front() {
            let length = piece.len();
            stream.untaken = stream.untaken.map(|left| left.saturating_sub(length as u64));
            self.give_back_to(slot as usize, length);
            let data = match piece {
                Piece::Lent(bytes) => bytes,
                Piece::Own(bytes) => bytes.freeze(),
            };
            return Some(Ok(Some(Frame::Data(data))));
        }
        match stream.incoming {
            Incoming::Open => None,
            Incoming::Ended => Some(Ok(stream.trailers.take().map(Frame::Trailers))),
            Incoming::Reset => Some(Err(BodyError::Reset)),
            Incoming::Broken => Some(Err(BodyError::Malformed("the body is not as it was announced"))),
        }
    }

    /// How much is left of what the client sends, without what may stand behind it.
    pub(super) fn length(&self, slot: u32, id: u32) -> Length {
        match self.slots.get(slot as usize).filter(|it| it.id == id) {
            Some(stream) if stream.incoming != Incoming::Ended || !stream.pieces.is_empty() => {
                stream.untaken.map_or(Length::Unknown, Length::Known)
            }
            _ => Length::Known(0),
        }
    }

    /// Whether nothing is left of what the client sends.
    pub(super) fn is_over(&self, slot: u32, id: u32) -> bool {
        match self.slots.get(slot as usize).filter(|it| it.id == id) {
            Some(stream) => stream.incoming == Incoming::Ended && stream.pieces.is_empty() && stream.trailers.is_none(),
            None => true,
        }
    }
}
