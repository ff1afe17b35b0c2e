//! HTTP/2 by hand (RFC 9113), for both of its sides: every frame is the case's to write, and all that arrives is kept.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use crate::client::PATIENCE;
use crate::hpack::{Decoder, Field, encode};
use crate::stream::{Broken, End, Reader};

/// The kinds of frames.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags; the first means ACK in SETTINGS and PING.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITISED: u8 = 0x20;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it was on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// One direction of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) fields: Vec<Field>,
    pub(crate) interim: Vec<Vec<Field>>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<Vec<Field>>,
    /// The other side ended it in order.
    pub(crate) ended: bool,
    /// The code it was reset with.
    pub(crate) reset: Option<u32>,
    /// The connection went away under it: GOAWAY's code, or how it closed.
    pub(crate) lost: Option<String>,
}

fn value<'a>(fields: &'a [Field], name: &str) -> Option<&'a str> {
    let (_, value) = fields.iter().find(|(it, _)| it == name.as_bytes())?;
    std::str::from_utf8(value).ok()
}

impl Message {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        value(&self.fields, name)
    }

    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        value(self.trailers.as_deref()?, name)
    }

    /// 0 before there is any.
    pub(crate) fn status(&self) -> u16 {
        self.field(":status").and_then(|it| it.parse().ok()).unwrap_or(0)
    }

    /// In full, and a 200.
    pub(crate) fn ok(&self) -> bool {
        self.status() == 200 && self.ended && self.reset.is_none()
    }

    /// Nothing of it was accepted: an error status, a reset, or the end of the connection.
    pub(crate) fn refused(&self) -> bool {
        self.status() >= 400 || (self.status() == 0 && (self.reset.is_some() || self.lost.is_some()))
    }

    fn done(&self) -> bool {
        self.ended || self.reset.is_some() || self.lost.is_some()
    }

    fn block(&mut self, fields: Vec<Field>) {
        let interim = value(&fields, ":status").is_some_and(|it| it.starts_with('1'));
        if interim && self.fields.is_empty() {
            self.interim.push(fields);
        } else if self.fields.is_empty() {
            self.fields = fields;
        } else {
            self.trailers = Some(fields);
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for interim in &self.interim {
            write!(f, "{}, ", value(interim, ":status").unwrap_or("?"))?;
        }
        match self.status() {
            0 => f.write_str("no response")?,
            status => write!(f, "HTTP/2 {status} with {} bytes", self.body.len())?,
        }
        match (self.ended, self.reset, &self.lost) {
            (_, Some(code), _) => write!(f, ", reset with code {code}"),
            (_, _, Some(lost)) => write!(f, ", {lost}"),
            (true, _, _) => Ok(()),
            _ => f.write_str(", unfinished"),
        }
    }
}

/// A connection.
pub(crate) struct H2 {
    pub(crate) reader: Reader,
    decoder: Decoder,
    streams: BTreeMap<u32, Message>,
    /// Streams that the other side opened, in order.
    pub(crate) opened: VecDeque<u32>,
    /// GOAWAY's last stream and code.
    pub(crate) goaway: Option<(u32, u32)>,
    /// Frames that were answers to what is sent: acknowledgements of SETTINGS and PING.
    pub(crate) acknowledged: usize,
    /// The other side's settings.
    pub(crate) settings: BTreeMap<u16, u32>,
    /// Whether windows are opened again as DATA arrives.
    pub(crate) generous: bool,
    /// How much may be sent on the connection, and on each stream beyond its initial window.
    pub(crate) window: i64,
    windows: BTreeMap<u32, i64>,
    partial: Option<(u32, u8, Vec<u8>)>,
    pub(crate) patience: Duration,
}

impl H2 {
    pub(crate) fn new(reader: Reader) -> H2 {
        H2 {
            reader,
            decoder: Decoder::default(),
            streams: BTreeMap::new(),
            opened: VecDeque::new(),
            goaway: None,
            acknowledged: 0,
            settings: BTreeMap::new(),
            generous: true,
            window: 65_535,
            windows: BTreeMap::new(),
            partial: None,
            patience: PATIENCE,
        }
    }

    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> bool {
        self.reader.send(&frame(kind, flags, stream, payload))
    }

    pub(crate) fn set(&mut self, settings: &[(u16, u32)]) -> bool {
        self.frame(SETTINGS, 0, 0, settings_payload(settings))
    }

    /// A whole header block in one frame.
    pub(crate) fn headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        stream: u32,
        fields: &[(N, V)],
        end: bool,
    ) -> bool {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.frame(HEADERS, flags, stream, encode(fields))
    }

    /// DATA without asking whether the windows allow it.
    pub(crate) fn data(&mut self, stream: u32, bytes: impl AsRef<[u8]>, end: bool) -> bool {
        self.window -= bytes.as_ref().len() as i64;
        *self.windows.entry(stream).or_default() -= bytes.as_ref().len() as i64;
        self.frame(DATA, u8::from(end), stream, bytes)
    }

    fn may_send(&self, stream: u32) -> usize {
        let initial = i64::from(self.settings.get(&4).copied().unwrap_or(65_535));
        let own = initial + self.windows.get(&stream).copied().unwrap_or(0);
        usize::try_from(own.min(self.window).min(16_384)).unwrap_or(0)
    }

    /// All of it, as the windows allow; how much was sent before the stream or the connection ended.
    pub(crate) fn upload(&mut self, stream: u32, bytes: &[u8], end: bool) -> usize {
        let (mut sent, until) = (0, Instant::now() + self.patience);
        while sent < bytes.len() {
            let now = self.may_send(stream).min(bytes.len() - sent);
            if now == 0 {
                let over = self.message(stream).reset.is_some() || self.step(until).is_err();
                if over {
                    return sent;
                }
                continue;
            }
            let last = end && sent + now == bytes.len();
            if !self.data(stream, &bytes[sent..sent + now], last) {
                return sent;
            }
            sent += now;
        }
        sent
    }

    pub(crate) fn message(&mut self, stream: u32) -> &mut Message {
        self.streams.entry(stream).or_default()
    }

    /// Reads one frame and keeps what it says.
    pub(crate) fn step(&mut self, until: Instant) -> Result<Frame, Broken> {
        let head = self.reader.take(9, until)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let frame = Frame { kind: head[3], flags: head[4], stream, payload: self.reader.take(length, until)? };
        self.note(&frame);
        Ok(frame)
    }

    fn note(&mut self, frame: &Frame) {
        let word = |at: usize| frame.payload.get(at..at + 4).map_or(0, |it| u32::from_be_bytes(it.try_into().unwrap()));
        match frame.kind {
            DATA => {
                let body = unpadded(frame);
                let message = self.message(frame.stream);
                message.body.extend_from_slice(body);
                message.ended |= frame.flags & END_STREAM != 0;
                if self.generous && !frame.payload.is_empty() {
                    let more = (frame.payload.len() as u32).to_be_bytes();
                    self.frame(WINDOW_UPDATE, 0, 0, more);
                    self.frame(WINDOW_UPDATE, 0, frame.stream, more);
                }
            }
            HEADERS => {
                let mut block = unpadded(frame);
                if frame.flags & PRIORITISED != 0 {
                    block = block.get(5..).unwrap_or_default();
                }
                self.partial = Some((frame.stream, frame.flags, block.to_vec()));
                self.block_complete(frame.flags);
            }
            CONTINUATION => {
                if let Some((_, _, block)) = &mut self.partial {
                    block.extend_from_slice(&frame.payload);
                }
                self.block_complete(frame.flags);
            }
            RST_STREAM => self.message(frame.stream).reset = Some(word(0)),
            SETTINGS if frame.flags & ACK == 0 => {
                for pair in frame.payload.chunks_exact(6) {
                    let key = u16::from_be_bytes([pair[0], pair[1]]);
                    self.settings.insert(key, u32::from_be_bytes(pair[2..].try_into().unwrap()));
                }
                self.frame(SETTINGS, ACK, 0, []);
            }
            PING if frame.flags & ACK == 0 => drop(self.frame(PING, ACK, 0, &frame.payload)),
            SETTINGS | PING => self.acknowledged += 1,
            GOAWAY => self.goaway = Some((word(0) & 0x7fff_ffff, word(4))),
            WINDOW_UPDATE if frame.stream == 0 => self.window += i64::from(word(0)),
            WINDOW_UPDATE => *self.windows.entry(frame.stream).or_default() += i64::from(word(0)),
            _ => {}
        }
    }

    fn block_complete(&mut self, flags: u8) {
        if flags & END_HEADERS == 0 {
            return;
        }
        let Some((stream, first, block)) = self.partial.take() else { return };
        let fields = self.decoder.decode(&block).unwrap_or_else(|| vec![(b":status".to_vec(), b"0".to_vec())]);
        if !self.streams.contains_key(&stream) {
            self.opened.push_back(stream);
        }
        let message = self.message(stream);
        message.block(fields);
        message.ended |= first & END_STREAM != 0;
    }

    /// Reads until that stream is over; what it came to.
    pub(crate) fn answer(&mut self, stream: u32) -> Message {
        self.answer_until(stream, Message::done)
    }

    /// Reads until that stream's message is so, is over, or patience ends.
    pub(crate) fn answer_until(&mut self, stream: u32, is_so: impl Fn(&Message) -> bool) -> Message {
        let until = Instant::now() + self.patience;
        loop {
            let goaway = self.goaway.filter(|(last, _)| *last < stream);
            let message = self.message(stream);
            if let Some((_, code)) = goaway {
                message.lost = Some(format!("GOAWAY with code {code}"));
            }
            if message.done() || is_so(message) {
                return message.clone();
            }
            match self.step(until) {
                Ok(_) => {}
                Err(Broken::TooLate) => return self.message(stream).clone(),
                Err(broken) => {
                    let goaway = self.goaway.map_or(String::new(), |(_, code)| format!("GOAWAY with code {code}, "));
                    self.message(stream).lost = Some(format!("{goaway}{broken:?}"));
                }
            }
        }
    }

    /// Reads on until the connection ends or patience does; how it ended.
    pub(crate) fn end(&mut self) -> Option<End> {
        let until = Instant::now() + self.patience;
        loop {
            match self.step(until) {
                Ok(_) => {}
                Err(Broken::Ended(end)) => return Some(end),
                Err(_) => return None,
            }
        }
    }
}

fn unpadded(frame: &Frame) -> &[u8] {
    if frame.flags & PADDED == 0 {
        return &frame.payload;
    }
    let padding = usize::from(frame.payload.first().copied().unwrap_or(0));
    frame.payload.get(1..frame.payload.len().saturating_sub(padding)).unwrap_or_default()
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

pub(crate) fn settings_payload(settings: &[(u16, u32)]) -> Vec<u8> {
    settings.iter().flat_map(|(key, value)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect()
}
