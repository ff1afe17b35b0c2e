//! What a client's frames do to its connection and its streams (RFC 9113, sections 5 and 6).

use bytes::{Buf, BytesMut};

use super::frame::{self, Frame, HEAD, Head, LONGEST, MOST, flag, kind, reason, setting};
use super::guard::Offence;
use super::request::{Draft, Trailers};
use super::session::{Block, Incoming, Session};
use crate::http1::head::{HeadError, number};
use crate::message::{Known, RequestHead};

/// Bytes of a field block that is as large as may be when it is read, and of what is written more clumsily than it has to be.
/// Twice, because a code of Huffman's can make a text longer.
const fn largest_block(head: usize) -> usize {
    2 * head + LONGEST
}

/// What a frame has brought.
pub enum Event {
    /// A request has begun, for which there is a slot.
    Request {
        /// Where.
        slot: u32,
        /// What was asked, if that can be understood. In a box, because nearly every frame has none.
        head: Box<Result<RequestHead, HeadError>>,
        /// There is no body.
        over: bool,
    },
    /// Nothing more comes of a stream, and nobody waits for its answer.
    Gone {
        /// Where.
        slot: u32,
    },
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client has broken the protocol; of [`reason`].
    Protocol(u32),
    /// The client did too much of something.
    Abuse(Offence),
}

impl From<u32> for Fault {
    fn from(reason: u32) -> Fault {
        Fault::Protocol(reason)
    }
}

impl Session {
    /// Takes one frame from what was read. `Ok(None)`: it has brought nothing that anybody has to know. Nothing at all: it has
    /// not come in full.
    ///
    /// # Errors
    /// Why nothing more is to be read.
    pub fn take(&mut self, input: &mut BytesMut) -> Option<Result<Option<Event>, Fault>> {
        let head = Head::read(input)?;
        if head.length > LONGEST {
            return Some(Err(Fault::Protocol(reason::FRAME_SIZE_ERROR)));
        }
        if input.len() < HEAD + head.length {
            return None;
        }
        self.ledger.came(head);
        if let Some(offence) = self.ledger.offence() {
            return Some(Err(Fault::Abuse(offence)));
        }
        let outcome = self.take_whole(head, input);
        // By what we were made to do, it may have become too much.
        Some(match self.ledger.offence() {
            Some(offence) => Err(Fault::Abuse(offence)),
            None => outcome.map_err(Fault::from),
        })
    }

    /// Of a frame that has not come in full: whether it is a part of a field block.
    pub fn is_within_block(&self, input: &[u8]) -> bool {
        let part = |head: &u8| [kind::HEADERS, kind::CONTINUATION].contains(head);
        self.block.is_some() || input.get(3).is_some_and(part)
    }

    fn take_whole(&mut self, head: Head, input: &mut BytesMut) -> Result<Option<Event>, u32> {
        // Nothing may come before (RFC 9113, section 3.4), nor between the frames of a block (section 6.10).
        if !self.greeted && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(reason::PROTOCOL_ERROR);
        }
        match &self.block {
            Some(block) if head.kind != kind::CONTINUATION || head.stream != block.stream => {
                return Err(reason::PROTOCOL_ERROR);
            }
            None if head.kind == kind::CONTINUATION => return Err(reason::PROTOCOL_ERROR),
            _ => {}
        }
        let payload = &input[HEAD..HEAD + head.length];
        let event = match frame::read(head, payload)? {
            Frame::Data { skip, length } => return self.take_data(head, skip, length, input),
            Frame::Headers(block) => self.take_headers(head, block)?,
            Frame::Continuation(more) => self.take_continuation(head, more)?,
            Frame::Reset(_) => self.take_reset(head.stream)?,
            Frame::Settings(settings) => {
                self.take_settings(settings)?;
                None
            }
            Frame::Ping(bytes) => {
                self.frame(kind::PING, flag::ACK, 0, &bytes);
                None
            }
            Frame::Pong(bytes) => {
                self.answered |= bytes == super::session::PING;
                None
            }
            Frame::WindowUpdate(more) => self.take_window(head.stream, more)?,
            Frame::SettingsAck | Frame::Nothing => None,
        };
        input.advance(HEAD + head.length);
        Ok(event)
    }

    /// Whether a client can have opened this stream.
    fn check_opened(&self, stream: u32) -> Result<(), u32> {
        if !stream.is_multiple_of(2) && stream <= self.last { Ok(()) } else { Err(reason::PROTOCOL_ERROR) }
    }

    /// Whether the client went past this stream without opening it.
    fn is_skipped(&self, stream: u32) -> bool {
        (self.skipped.0..self.skipped.1).contains(&stream)
    }

    /// An error of one stream.
    fn fault(&mut self, slot: usize, why: u32) -> Result<Option<Event>, u32> {
        self.broken(slot, Some(why));
        Ok(Some(Event::Gone { slot: slot as u32 }))
    }

    fn take_headers(&mut self, head: Head, block: &[u8]) -> Result<Option<Event>, u32> {
        if head.stream.is_multiple_of(2) {
            return Err(reason::PROTOCOL_ERROR);
        }
        let over = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.take_block(head.stream, over, block);
        }
        self.block = Some(Block { stream: head.stream, over, bytes: block.to_vec() });
        Ok(None)
    }

    fn take_continuation(&mut self, head: Head, more: &[u8]) -> Result<Option<Event>, u32> {
        let most = largest_block(self.limits.head);
        let Some(mut block) = self.block.take() else { return Err(reason::PROTOCOL_ERROR) };
        if block.bytes.len() + more.len() > most {
            return Err(reason::ENHANCE_YOUR_CALM);
        }
        block.bytes.extend_from_slice(more);
        if head.has(flag::END_HEADERS) {
            return self.take_block(block.stream, block.over, &block.bytes);
        }
        self.block = Some(block);
        Ok(None)
    }

    /// A field block is there as a whole.
    fn take_block(&mut self, stream: u32, over: bool, block: &[u8]) -> Result<Option<Event>, u32> {
        if stream > self.last {
            return self.take_request(stream, over, block);
        }
        let found = self.find(stream);
        let Some(slot) = found.filter(|slot| matches!(self.slots[*slot].incoming, Incoming::Open | Incoming::Ended))
        else {
            // It has to be read, because it may change what the next one means.
            self.decoder.decode(block, |_| {}).map_err(|_| reason::COMPRESSION_ERROR)?;
            return match () {
                () if found.is_some() || self.is_forgotten(stream) => Ok(None),
                () if self.is_skipped(stream) => Err(reason::PROTOCOL_ERROR),
                () => Err(reason::STREAM_CLOSED),
            };
        };
        let mut trailers = Trailers::new(self.limits.head);
        self.decoder.decode(block, |field| trailers.field(field)).map_err(|_| reason::COMPRESSION_ERROR)?;
        let fields = trailers.finish();
        let known = &mut self.slots[slot];
        if known.incoming == Incoming::Ended {
            return self.fault(slot, reason::STREAM_CLOSED);
        }
        let right = over && !known.tunnel && known.left.is_none_or(|left| left == 0);
        let Some(fields) = fields.filter(|_| right) else {
            return self.fault(slot, reason::PROTOCOL_ERROR);
        };
        known.trailers = (!fields.is_empty()).then_some(fields);
        known.incoming = Incoming::Ended;
        self.wake(slot);
        Ok(None)
    }

    fn take_request(&mut self, stream: u32, over: bool, block: &[u8]) -> Result<Option<Event>, u32> {
        if stream > self.last + 2 {
            self.skipped = (self.last + 1, stream);
        }
        self.last = stream;
        let mut draft = Draft::new(&self.limits);
        self.decoder.decode(block, |field| draft.field(field)).map_err(|_| reason::COMPRESSION_ERROR)?;
        if self.end.is_some_and(|end| stream > end) {
            // The client was told, and sends it again elsewhere (RFC 9113, section 6.8).
            self.forget(stream);
            return Ok(None);
        }
        if self.streams() >= self.most {
            self.take_back(stream, reason::REFUSED_STREAM);
            return Ok(None);
        }
        let head = draft.finish(over);
        let slot = self.begin(stream, over);
        if let Ok(head) = &head {
            self.slots[slot as usize].tunnel = head.upgrade.is_some();
            if head.upgrade.is_none() {
                self.announce(slot, head.fields.get(Known::ContentLength).and_then(number));
            }
        }
        Ok(Some(Event::Request { slot, head: Box::new(head), over }))
    }

    fn take_data(
        &mut self,
        head: Head,
        skip: usize,
        length: usize,
        input: &mut BytesMut,
    ) -> Result<Option<Event>, u32> {
        self.check_opened(head.stream)?;
        // All of it counts, what fills it up as well (section 6.9.1).
        self.credit -= head.length as i64;
        if self.credit < 0 {
            return Err(reason::FLOW_CONTROL_ERROR);
        }
        let over = head.has(flag::END_STREAM);
        let found = self.find(head.stream);
        let taken = match found {
            None if self.is_forgotten(head.stream) => Err(None),
            None => {
                self.take_back(head.stream, reason::STREAM_CLOSED);
                Err(None)
            }
            Some(slot) => {
                let stream = &mut self.slots[slot];
                stream.credit -= head.length as i64;
                let left = stream.left.map(|left| left.checked_sub(length as u64));
                match (stream.incoming, left) {
                    (Incoming::Reset | Incoming::Broken, _) => Err(None),
                    (Incoming::Ended, _) => Err(Some((slot, reason::STREAM_CLOSED))),
                    (Incoming::Open, _) if stream.credit < 0 => Err(Some((slot, reason::FLOW_CONTROL_ERROR))),
                    (Incoming::Open, Some(None)) => Err(Some((slot, reason::PROTOCOL_ERROR))),
                    (Incoming::Open, Some(Some(1..))) if over => Err(Some((slot, reason::PROTOCOL_ERROR))),
                    (Incoming::Open, left) => {
                        stream.left = left.flatten();
                        if over {
                            stream.incoming = Incoming::Ended;
                        }
                        Ok(slot)
                    }
                }
            }
        };
        match taken {
            Ok(slot) => {
                let from = HEAD + skip;
                if self.copy(slot, &input[from..from + length]) {
                    input.advance(HEAD + head.length);
                } else {
                    input.advance(from);
                    self.lend(slot, input.split_to(length).freeze());
                    input.advance(head.length - skip - length);
                }
                self.give_back_to(slot, head.length - length);
                self.wake(slot);
                Ok(None)
            }
            Err(fault) => {
                input.advance(HEAD + head.length);
                self.give_back(head.length);
                fault.map_or(Ok(None), |(slot, why)| self.fault(slot, why))
            }
        }
    }

    fn take_reset(&mut self, stream: u32) -> Result<Option<Event>, u32> {
        self.check_opened(stream)?;
        let Some(slot) = self.find(stream) else { return Ok(None) };
        if !matches!(self.slots[slot].incoming, Incoming::Open | Incoming::Ended) {
            return Ok(None);
        }
        self.broken(slot, None);
        Ok(Some(Event::Gone { slot: slot as u32 }))
    }

    fn take_window(&mut self, stream: u32, more: u32) -> Result<Option<Event>, u32> {
        if stream == 0 {
            self.window += i64::from(more);
            return match more {
                0 => Err(reason::PROTOCOL_ERROR),
                _ if self.window > i64::from(MOST) => Err(reason::FLOW_CONTROL_ERROR),
                _ => Ok(None),
            };
        }
        self.check_opened(stream)?;
        let Some(slot) = self.find(stream) else { return Ok(None) };
        let known = &mut self.slots[slot];
        if !matches!(known.incoming, Incoming::Open | Incoming::Ended) {
            return Ok(None);
        }
        known.window += i64::from(more);
        match more {
            0 => self.fault(slot, reason::PROTOCOL_ERROR),
            _ if known.window > i64::from(MOST) => self.fault(slot, reason::FLOW_CONTROL_ERROR),
            _ => {
                self.wake(slot);
                Ok(None)
            }
        }
    }

    fn take_settings(&mut self, settings: &[[u8; 6]]) -> Result<(), u32> {
        self.greeted = true;
        let mut initial = None;
        for [name_a, name_b, value @ ..] in settings {
            let value = u32::from_be_bytes(*value);
            match u16::from_be_bytes([*name_a, *name_b]) {
                setting::HEADER_TABLE_SIZE => self.limit_table(value as usize),
                setting::ENABLE_PUSH | setting::ENABLE_CONNECT_PROTOCOL if value > 1 => {
                    return Err(reason::PROTOCOL_ERROR);
                }
                setting::INITIAL_WINDOW_SIZE if value > MOST => return Err(reason::FLOW_CONTROL_ERROR),
                // The last one counts: each costs a look at all streams.
                setting::INITIAL_WINDOW_SIZE => initial = Some(value.into()),
                setting::MAX_FRAME_SIZE if !(LONGEST as u32..1 << 24).contains(&value) => {
                    return Err(reason::PROTOCOL_ERROR);
                }
                _ => {}
            }
        }
        if let Some(initial) = initial {
            self.resize_windows(initial)?;
        }
        self.frame(kind::SETTINGS, flag::ACK, 0, b"");
        Ok(())
    }
}
