//! What a client's connection and its streams share: windows, states, and what waits in either direction. Nothing here reads,
//! writes or waits.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::frame::{self, HEAD, Head, LONGEST, flag, kind, reason, setting};
use super::guard::Ledger;
use super::hpack::{Decoder, Encoder};
use super::outbox::Outbox;
use crate::config::limits;
use crate::http1::head::Limits;
use crate::message::Fields;

/// Bytes that a client may send on a stream before somebody takes them. With a round trip of 50 ms that is an upload of
/// 5 MB a second; what it costs us is only spent where an endpoint is slower than its client.
pub const STREAM_WINDOW: u32 = 256 << 10;

/// The same for all streams of a connection together: four slow uploads do not hold up the fifth, and a connection of
/// nothing but uploads that nobody takes is a megabyte.
pub const CONNECTION_WINDOW: u32 = 1 << 20;

/// The window of a connection that nobody has said anything about (RFC 9113, section 6.9.2).
pub const USUAL_WINDOW: i64 = 65_535;

/// What is in our PING frames: there is never more than one under way.
pub(super) const PING: [u8; 8] = *b"moongate";

/// A piece of a body up to this long is copied out of the buffer it was read into, and behind another one if there is one.
const SMALL: usize = 1 << 10;

/// How many of the streams that we have taken back are remembered: their clients may not know it yet.
const FORGOTTEN: usize = 128;

/// What waits and is shared.
pub struct Session {
    pub(super) limits: Limits,
    /// Streams at the same time.
    pub(super) most: usize,
    /// What the client costs.
    pub(super) ledger: Ledger,
    pub(super) decoder: Decoder,
    encoder: Encoder,
    pub(super) slots: Vec<Slot>,
    free: Vec<u32>,
    /// The slot that was looked for last.
    latest: usize,
    /// The highest stream that the client has opened.
    pub(super) last: u32,
    /// The streams that it went past last: from the first to before the second.
    pub(super) skipped: (u32, u32),
    /// Streams behind this one are not answered any more.
    pub(super) end: Option<u32>,
    /// What the client lets us send on all streams together, and on a new one.
    pub(super) window: i64,
    pub(super) initial: i64,
    /// What we let the client send on all streams together, and what of that was used and not given back yet.
    pub(super) credit: i64,
    used: u32,
    /// A field block that is under way.
    pub(super) block: Option<Block>,
    pub(super) out: Outbox,
    /// Streams to be looked at, each once.
    pub(super) ready: Vec<u32>,
    /// Streams that wait for room on the connection, in the order in which they get it.
    pub(super) waiting: VecDeque<(u32, u32)>,
    /// Streams that were given pieces of the shared buffer since they were last settled.
    lent: Vec<u32>,
    forgotten: VecDeque<u32>,
    /// The connection is over.
    pub(super) gone: bool,
    /// The client has sent its first SETTINGS.
    pub(super) greeted: bool,
    /// Our PING has come back.
    pub(super) answered: bool,
}

/// A field block of several frames.
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) over: bool,
    pub(super) bytes: Vec<u8>,
}

/// A stream.
#[derive(Default)]
pub(super) struct Slot {
    /// Its number; 0: nobody is here.
    pub(super) id: u32,
    /// What the client lets us send.
    pub(super) window: i64,
    /// What we let the client send, and what of that was used and not given back yet.
    pub(super) credit: i64,
    used: u32,
    /// Bytes that were announced and did not come yet; none if nothing was announced.
    pub(super) left: Option<u64>,
    /// The same of what was not taken yet.
    pub(super) untaken: Option<u64>,
    pub(super) pieces: VecDeque<Piece>,
    pub(super) trailers: Option<Fields>,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    /// It is no request with a body but a tunnel.
    pub(super) tunnel: bool,
    queued: bool,
    pub(super) waits: bool,
}

pub(super) enum Piece {
    /// It lies where others are to read to.
    Lent(Bytes),
    Own(BytesMut),
}

/// How far the client's half of a stream is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Incoming {
    #[default]
    Open,
    Ended,
    /// The client has taken the stream back.
    Reset,
    /// The client has broken the rules, and the stream was taken back for that.
    Broken,
}

/// How far our half of a stream is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Outgoing {
    #[default]
    Nothing,
    Head,
    Ended,
}

impl Session {
    /// With what we ask of the client, which is to be written first.
    pub fn new(limits: &limits::Limits) -> Session {
        let head = Limits {
            head: limits.header_size.0 as usize,
            fields: limits.headers as usize,
            target: limits.uri.0 as usize,
        };
        let mut session = Session {
            limits: head,
            most: limits.http2.streams as usize,
            ledger: Ledger::new(&limits.http2),
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            slots: Vec::new(),
            free: Vec::new(),
            latest: 0,
            last: 0,
            skipped: (0, 0),
            end: None,
            window: USUAL_WINDOW,
            initial: USUAL_WINDOW,
            credit: i64::from(CONNECTION_WINDOW),
            used: 0,
            block: None,
            out: Outbox::default(),
            ready: Vec::new(),
            waiting: VecDeque::new(),
            lent: Vec::new(),
            forgotten: VecDeque::new(),
            gone: false,
            greeted: false,
            answered: false,
        };
        let mut settings = Vec::new();
        for (name, value) in [
            (setting::MAX_CONCURRENT_STREAMS, limits.http2.streams),
            (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (setting::MAX_HEADER_LIST_SIZE, head.head as u32),
            (setting::ENABLE_CONNECT_PROTOCOL, 1),
        ] {
            settings.extend_from_slice(&name.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        session.frame(kind::SETTINGS, 0, 0, &settings);
        let more = i64::from(CONNECTION_WINDOW) - USUAL_WINDOW;
        session.frame(kind::WINDOW_UPDATE, 0, 0, &(more as u32).to_be_bytes());
        session
    }

    /// Puts a frame behind what is to be written.
    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let head = Head { length: payload.len(), kind, flags, stream };
        self.out.put(&head.bytes());
        self.out.put(payload);
    }

    /// Puts a field block behind what is to be written, in as many frames as it takes.
    pub(super) fn block(&mut self, stream: u32, over: bool, write: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let end = if over { flag::END_STREAM } else { 0 };
        let encoder = &mut self.encoder;
        self.out.text(|text| {
            let start = text.len();
            text.extend_from_slice(&[0; HEAD]);
            write(encoder, text);
            let length = text.len() - start - HEAD;
            if length <= LONGEST {
                let head = Head { length, kind: kind::HEADERS, flags: flag::END_HEADERS | end, stream };
                return text[start..start + HEAD].copy_from_slice(&head.bytes());
            }
            let block = text.split_off(start + HEAD);
            text.truncate(start);
            for (at, part) in block.chunks(LONGEST).enumerate() {
                let last = if (at + 1) * LONGEST >= length { flag::END_HEADERS } else { 0 };
                let (kind, flags) = if at == 0 { (kind::HEADERS, end | last) } else { (kind::CONTINUATION, last) };
                text.extend_from_slice(&Head { length: part.len(), kind, flags, stream }.bytes());
                text.extend_from_slice(part);
            }
        });
    }

    /// Has the client's encoder and ours agree.
    pub(super) fn limit_table(&mut self, size: usize) {
        self.encoder.limit(size);
    }

    /// Streams that are answered.
    pub fn streams(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Where a stream is.
    pub(super) fn find(&mut self, stream: u32) -> Option<usize> {
        // Most frames that ask for it come one behind the other.
        if self.slots.get(self.latest).is_some_and(|slot| slot.id == stream) {
            return Some(self.latest);
        }
        let found = self.slots.iter().position(|slot| slot.id == stream)?;
        self.latest = found;
        Some(found)
    }

    /// A place for a stream that begins. `over`: there is no body.
    pub(super) fn begin(&mut self, stream: u32, over: bool) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let incoming = if over { Incoming::Ended } else { Incoming::Open };
        let (window, credit) = (self.initial, i64::from(STREAM_WINDOW));
        self.slots[slot as usize] = Slot { id: stream, window, credit, incoming, ..Slot::default() };
        slot
    }

    /// Whoever answered a stream is done with it. What is not ended is taken back.
    pub fn finish(&mut self, slot: u32) {
        let stream = &self.slots[slot as usize];
        let id = stream.id;
        let reset = match (stream.outgoing, stream.incoming) {
            (_, Incoming::Reset | Incoming::Broken) => None,
            (Outgoing::Ended, Incoming::Ended) => None,
            // The rest of the body is not wanted (RFC 9113, section 8.1).
            (Outgoing::Ended, Incoming::Open) => Some(reason::NO_ERROR),
            _ => Some(reason::CANCEL),
        };
        if let Some(why) = reset {
            self.take_back(id, why);
        }
        let stream = &mut self.slots[slot as usize];
        let left: usize = stream.pieces.iter().map(Piece::len).sum();
        *stream = Slot::default();
        self.free.push(slot);
        self.give_back(left);
    }

    /// Takes a stream back.
    pub(super) fn take_back(&mut self, stream: u32, why: u32) {
        self.forget(stream);
        if !self.gone {
            self.ledger.took_back(why);
            self.frame(kind::RST_STREAM, 0, stream, &why.to_be_bytes());
        }
    }

    pub(super) fn forget(&mut self, stream: u32) {
        if self.forgotten.len() == FORGOTTEN {
            self.forgotten.pop_front();
        }
        self.forgotten.push_back(stream);
    }

    /// Whether the client may not know yet that we have taken this stream back.
    pub(super) fn is_forgotten(&self, stream: u32) -> bool {
        self.forgotten.contains(&stream)
    }

    /// The client has broken the rules of a stream, or has taken it back; `why`: what it is to be told.
    pub(super) fn broken(&mut self, slot: usize, why: Option<u32>) {
        let stream = &mut self.slots[slot];
        let id = stream.id;
        stream.incoming = if why.is_some() { Incoming::Broken } else { Incoming::Reset };
        stream.trailers = None;
        let left: usize = std::mem::take(&mut stream.pieces).iter().map(Piece::len).sum();
        self.give_back(left);
        if let Some(why) = why {
            self.take_back(id, why);
        }
    }

    /// So many bytes of bodies were taken, or are nobody's.
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.used += bytes as u32;
        if self.used >= CONNECTION_WINDOW / 2 {
            let used = std::mem::take(&mut self.used);
            self.credit += i64::from(used);
            if !self.gone {
                self.frame(kind::WINDOW_UPDATE, 0, 0, &used.to_be_bytes());
            }
        }
    }

    /// So many bytes of a stream were taken.
    pub(super) fn give_back_to(&mut self, slot: usize, bytes: usize) {
        let stream = &mut self.slots[slot];
        stream.used += bytes as u32;
        if stream.incoming == Incoming::Open && stream.used >= STREAM_WINDOW / 2 {
            let used = std::mem::take(&mut stream.used);
            stream.credit += i64::from(used);
            let id = stream.id;
            if !self.gone {
                self.frame(kind::WINDOW_UPDATE, 0, id, &used.to_be_bytes());
            }
        }
        self.give_back(bytes);
    }

    /// What was announced of a body.
    pub(super) fn announce(&mut self, slot: u32, length: Option<u64>) {
        let stream = &mut self.slots[slot as usize];
        (stream.left, stream.untaken) = (length, length);
    }

    /// Whether a stream has room for a piece where it can be copied; if not it is lent.
    pub(super) fn copy(&mut self, slot: usize, bytes: &[u8]) -> bool {
        if bytes.len() > SMALL {
            return false;
        }
        let pieces = &mut self.slots[slot].pieces;
        match pieces.back_mut() {
            Some(Piece::Own(last)) if last.len() + bytes.len() <= LONGEST => last.extend_from_slice(bytes),
            _ if bytes.is_empty() => {}
            _ => pieces.push_back(Piece::Own(BytesMut::from(bytes))),
        }
        true
    }

    pub(super) fn lend(&mut self, slot: usize, piece: Bytes) {
        self.slots[slot].pieces.push_back(Piece::Lent(piece));
        self.lent.push(slot as u32);
    }

    /// Copies what was lent and nobody has taken: others are to read there.
    pub fn settle(&mut self) {
        for slot in self.lent.drain(..) {
            for piece in &mut self.slots[slot as usize].pieces {
                if let Piece::Lent(bytes) = piece {
                    *piece = Piece::Own(BytesMut::from(&bytes[..]));
                }
            }
        }
    }

    /// The number of the stream that is there.
    pub fn stream(&self, slot: u32) -> u32 {
        self.slots[slot as usize].id
    }

    /// All that is to be written, as one; for tests.
    pub fn sent(&self) -> Vec<u8> {
        self.out.all()
    }

    /// Has a stream looked at.
    pub(super) fn wake(&mut self, slot: usize) {
        let stream = &mut self.slots[slot];
        if stream.id != 0 && !std::mem::replace(&mut stream.queued, true) {
            self.ready.push(slot as u32);
        }
    }

    pub(super) fn look(&mut self, slot: u32) {
        self.slots[slot as usize].queued = false;
    }

    /// The next stream that waits for room, if there is some.
    pub(super) fn next_waiting(&mut self) -> Option<u32> {
        while self.window > 0 && self.out.has_room() && !self.gone {
            let (slot, id) = self.waiting.pop_front()?;
            let stream = &mut self.slots[slot as usize];
            if stream.id == id {
                stream.waits = false;
                return Some(slot);
            }
        }
        None
    }

    /// Tells the client that streams behind the last one are not answered, and why.
    pub(super) fn go_away(&mut self, last: u32, why: u32) {
        let payload = [last.to_be_bytes(), why.to_be_bytes()];
        self.frame(kind::GOAWAY, 0, 0, payload.as_flattened());
    }

    /// More, or less, than before may be sent on every stream.
    ///
    /// # Errors
    /// If that would be more than windows can be.
    pub(super) fn resize_windows(&mut self, initial: i64) -> Result<(), u32> {
        let change = initial - std::mem::replace(&mut self.initial, initial);
        for slot in 0..self.slots.len() {
            self.slots[slot].window += change;
            if self.slots[slot].window > i64::from(frame::MOST) {
                return Err(reason::FLOW_CONTROL_ERROR);
            }
            self.wake(slot);
        }
        Ok(())
    }

    /// Lets go of what only busy connections need. Only without streams.
    pub(super) fn rest(&mut self) {
        debug_assert_eq!(self.streams(), 0);
        (self.slots, self.free, self.latest) = (Vec::new(), Vec::new(), 0);
        (self.ready, self.lent) = (Vec::new(), Vec::new());
        (self.waiting, self.forgotten) = (VecDeque::new(), VecDeque::new());
    }
}

impl Piece {
    pub(super) fn len(&self) -> usize {
        match self {
            Piece::Lent(bytes) => bytes.len(),
            Piece::Own(bytes) => bytes.len(),
        }
    }
}
