//! What a client may cost on one connection: its frames are counted as they go by, before `h2` reads them.
//!
//! A frame of nine bytes can make us send, search or set something, and none of that breaks the protocol: PING, SETTINGS and
//! PRIORITY floods (CVE-2019-9512, -9515, -9513), empty frames (CVE-2019-9518), window updates byte by byte (CVE-2019-9511,
//! -9517), streams that are opened and reset (CVE-2023-44487) or that we are made to reset (CVE-2025-8671), and header blocks
//! that never end (CVE-2024-27316). So there are two budgets, [`limits::Http2::resets`] and
//! [`limits::Http2::control_frames`], which fill up again with time and with work that was worth it. Nothing is copied: of a
//! frame only its head is looked at.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::PREFACE;
use crate::config::limits;
use crate::timer::Timer;

/// CONTINUATION frames behind one HEADERS frame. A head within the default limit of 32 KiB is done with two; the largest that
/// can be configured, 1 MiB, with 64 (a frame has 16 KiB).
const CONTINUATIONS: u32 = 64;

/// A CONTINUATION frame shorter than this makes no progress worth its handling, unless it ends the block.
const SMALL_CONTINUATION: u32 = 256;

/// Window updates that one DATA frame of ours may bring, at most: two are usual, for the stream and the connection. Envoy
/// allows ten.
const UPDATES: u32 = 10;

/// Bytes of a DATA frame that earn one control frame. A client that opens its window byte by byte earns nothing.
const EARNING: u32 = 16;

/// Control frames that a request earns: clients set its priority, and change it.
const REQUEST: u32 = 4;

/// After we have ended our side: how long, and how many bytes, to listen to a client that still sends. Closing at once would
/// make its system discard what it has not read yet.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 1 << 20);

/// What a client did too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// Streams that ended by reset.
    Resets,
    /// Frames that carry nothing.
    Control,
    /// A header block in too many frames.
    Continuations,
    /// Another frame before the first SETTINGS.
    NoSettings,
}

impl Offence {
    /// For the log and the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Offence::Resets => "resets",
            Offence::Control => "control-frames",
            Offence::Continuations => "continuations",
            Offence::NoSettings => "no-settings",
        }
    }
}

/// Something that is used up and comes back, evenly, within a time.
#[derive(Debug)]
struct Budget {
    left: u32,
    full: u32,
    within: Duration,
    /// When `left` was last brought up to date.
    at: Instant,
}

impl Budget {
    fn new(full: u32, within: Duration, now: Instant) -> Budget {
        Budget { left: full, full, within: within.max(Duration::from_millis(1)), at: now }
    }

    fn earn(&mut self, more: u32) {
        self.left = self.full.min(self.left.saturating_add(more));
    }

    /// Takes one; says whether there was one. The clock is only asked when there is none.
    fn spend(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.left == 0 {
            let now = now();
            let since = now.saturating_duration_since(self.at);
            let back = since.as_micros().saturating_mul(self.full.into()) / self.within.as_micros();
            self.left = u32::try_from(back).unwrap_or(u32::MAX).min(self.full);
            self.at = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }
}

/// The head of a frame (RFC 9113, section 4.1), and of RST_STREAM the reason as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FrameHead {
    length: u32,
    kind: u8,
    flags: u8,
    /// Why a stream is reset; 0 for other frames.
    reason: u32,
}

mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const CONTINUATION: u8 = 9;
}

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const HEAD: usize = 9;

/// Finds the heads of frames in bytes that come in pieces of any size.
#[derive(Debug, Default)]
struct Frames {
    /// The frame's head as far as it is there, and the four bytes behind it if it is RST_STREAM.
    head: [u8; HEAD + 4],
    have: usize,
    /// Bytes until the next frame.
    skip: u32,
    /// What is being skipped.
    kind: u8,
}

impl Frames {
    /// Behind so many bytes that are no frames.
    fn behind(bytes: usize) -> Frames {
        Frames { skip: bytes as u32, kind: u8::MAX, ..Frames::default() }
    }

    /// Whether the last piece ended inside a frame of this kind.
    fn is_inside(&self, kinds: &[u8]) -> bool {
        let kind = if self.skip > 0 { self.kind } else { self.head[3] };
        (self.skip > 0 || self.have > 3) && kinds.contains(&kind)
    }

    fn watch(&mut self, mut bytes: &[u8], mut each: impl FnMut(FrameHead)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = bytes.len().min(self.skip as usize);
                self.skip -= skipped as u32;
                bytes = &bytes[skipped..];
                continue;
            }
            let wanted = self.wanted();
            let taken = bytes.len().min(wanted - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == self.wanted() {
                each(self.take());
            }
        }
    }

    /// Bytes to look at: they are only known once the head's first four are there.
    fn wanted(&self) -> usize {
        match self.have >= HEAD && self.head[3] == kind::RST_STREAM && self.length() >= 4 {
            true => HEAD + 4,
            false => HEAD,
        }
    }

    fn length(&self) -> u32 {
        u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]])
    }

    fn take(&mut self) -> FrameHead {
        let more = self.have - HEAD;
        let reason = match more {
            0 => 0,
            _ => u32::from_be_bytes([self.head[9], self.head[10], self.head[11], self.head[12]]),
        };
        self.skip = self.length() - more as u32;
        self.kind = self.head[3];
        self.have = 0;
        FrameHead { length: self.length(), kind: self.head[3], flags: self.head[4], reason }
    }
}

/// What was counted, and what is under way: shared by the guard and whoever serves the connection.
#[derive(Debug)]
pub struct Ledger {
    resets: Budget,
    control: Budget,
    /// A header block has begun and not ended.
    block: bool,
    continuations: u32,
    /// Since when a header block is under way.
    block_since: Option<Instant>,
    /// Since when the other side has taken nothing of what we want to write.
    stalled: Option<Instant>,
    /// Whether anything was read since somebody last asked.
    heard: bool,
    offence: Option<Offence>,
}

impl Ledger {
    /// With full budgets.
    pub fn new(limits: &limits::Http2) -> Ledger {
        let now = Instant::now();
        Ledger {
            resets: Budget::new(limits.resets, limits.within.0, now),
            control: Budget::new(limits.control_frames, limits.within.0, now),
            block: false,
            continuations: 0,
            block_since: None,
            stalled: None,
            heard: false,
            offence: None,
        }
    }

    /// What the client did too much of. From then on nothing more is read.
    pub fn offence(&self) -> Option<Offence> {
        self.offence
    }

    /// Since when a header block is under way; none if there is none.
    pub fn block_since(&self) -> Option<Instant> {
        self.block_since
    }

    /// Since when the other side has taken nothing; none if nothing waits to be written.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.stalled
    }

    /// Whether anything was read since this was last asked.
    pub fn heard(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }

    fn spend(&mut self, budget: fn(&mut Ledger) -> &mut Budget, offence: Offence) {
        if !budget(self).spend(Instant::now) {
            self.offence.get_or_insert(offence);
        }
    }

    fn control(&mut self) {
        self.spend(|ledger| &mut ledger.control, Offence::Control);
    }

    fn reset(&mut self) {
        self.spend(|ledger| &mut ledger.resets, Offence::Resets);
    }

    /// A frame from the client.
    fn came(&mut self, frame: FrameHead) {
        match frame.kind {
            kind::DATA if frame.flags & END_STREAM != 0 => {}
            // What is padding is not known without looking further; a short padded frame may be nothing else.
            kind::DATA if frame.length == 0 || (frame.flags & PADDED != 0 && frame.length <= 256) => self.control(),
            kind::DATA => self.control.earn((frame.length / EARNING).min(REQUEST)),
            kind::HEADERS => {
                self.control.earn(REQUEST);
                self.block = frame.flags & END_HEADERS == 0;
                self.continuations = 0;
            }
            kind::CONTINUATION => {
                self.continuations += 1;
                if self.continuations > CONTINUATIONS {
                    self.offence.get_or_insert(Offence::Continuations);
                }
                self.block = frame.flags & END_HEADERS == 0;
                if self.block && frame.length < SMALL_CONTINUATION {
                    self.control();
                }
            }
            kind::RST_STREAM => self.reset(),
            _ => self.control(),
        }
    }

    /// A frame of ours.
    fn went(&mut self, frame: FrameHead) {
        if matches!(frame.kind, kind::DATA | kind::HEADERS) && frame.flags & END_STREAM != 0 {
            // A stream ended well.
            self.resets.earn(1);
        }
        match frame.kind {
            kind::DATA => self.control.earn((frame.length / EARNING).min(UPDATES)),
            // We were made to: PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM.
            kind::RST_STREAM if matches!(frame.reason, 1 | 3 | 5 | 6 | 7) => self.reset(),
            _ => {}
        }
    }

    fn read(&mut self, frames: &Frames) {
        self.heard = true;
        let under_way = self.block || frames.is_inside(&[kind::HEADERS, kind::CONTINUATION]);
        self.block_since = under_way.then(|| self.block_since.unwrap_or_else(Instant::now));
    }
}

/// A client's connection whose frames are counted.
#[derive(Debug)]
pub struct Guard<S> {
    stream: S,
    /// What was read before it was clear that this is HTTP/2.
    before: BytesMut,
    incoming: Frames,
    outgoing: Frames,
    ledger: Rc<RefCell<Ledger>>,
    linger: Option<Linger>,
    /// The frame that must come first has come.
    greeted: bool,
}

/// Our side has ended.
#[derive(Debug)]
struct Linger {
    until: Instant,
    heard: usize,
    timer: Timer,
}

impl<S> Guard<S> {
    /// A connection of which this much was read already, preface included.
    pub fn new(stream: S, before: BytesMut, ledger: Rc<RefCell<Ledger>>) -> Guard<S> {
        let (incoming, outgoing) = (Frames::behind(PREFACE.len()), Frames::default());
        Guard { stream, before, incoming, outgoing, ledger, linger: None, greeted: false }
    }

    /// Counts what came. Says whether `h2` may see it.
    fn came(&mut self, bytes: &[u8]) -> bool {
        let ledger = &mut *self.ledger.borrow_mut();
        let greeted = &mut self.greeted;
        self.incoming.watch(bytes, |frame| {
            // Nothing may come before (RFC 9113, section 3.4).
            if !std::mem::replace(greeted, true) && frame.kind != kind::SETTINGS {
                ledger.offence.get_or_insert(Offence::NoSettings);
            }
            ledger.came(frame);
        });
        ledger.read(&self.incoming);
        ledger.offence.is_none()
    }

    fn wrote<'a>(&mut self, outcome: &Poll<io::Result<usize>>, pieces: impl Iterator<Item = &'a [u8]>) {
        let ledger = &mut *self.ledger.borrow_mut();
        match outcome {
            Poll::Ready(Ok(wrote)) => {
                ledger.stalled = None;
                let mut left = *wrote;
                for piece in pieces {
                    let part = left.min(piece.len());
                    self.outgoing.watch(&piece[..part], |frame| ledger.went(frame));
                    left -= part;
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => drop(ledger.stalled.get_or_insert_with(Instant::now)),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ledger.borrow().offence.is_some() {
            // Whoever serves the connection finds this out at once, in the same call, and ends it.
            return Poll::Pending;
        }
        let before = into.filled().len();
        if this.before.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(context, into))?;
        } else {
            let length = this.before.len().min(into.remaining());
            into.put_slice(&this.before[..length]);
            this.before.advance(length);
            if this.before.is_empty() {
                this.before = BytesMut::new();
            }
        }
        if this.came(&into.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        into.set_filled(before);
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(context, from);
        this.wrote(&outcome, std::iter::once(from));
        outcome
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(context, from);
        this.wrote(&outcome, from.iter().map(|slice| &**slice));
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(context);
        let ledger = &mut *this.ledger.borrow_mut();
        match outcome {
            // TLS has something of its own to write.
            Poll::Pending => drop(ledger.stalled.get_or_insert_with(Instant::now)),
            Poll::Ready(_) => ledger.stalled = None,
        }
        outcome
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            if this.ledger.borrow().offence.is_some() {
                return Poll::Ready(Ok(()));
            }
        }
        let new = || Linger { until: Instant::now() + LINGER.0, heard: 0, timer: Timer::default() };
        let linger = this.linger.get_or_insert_with(new);
        let mut bytes = [0; 4096];
        while linger.heard < LINGER.1 {
            let mut into = ReadBuf::new(&mut bytes);
            match Pin::new(&mut this.stream).poll_read(context, &mut into) {
                Poll::Ready(Ok(())) if !into.filled().is_empty() => linger.heard += into.filled().len(),
                // It is over, one way or another.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return linger.timer.poll(linger.until, context).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::Time;

    const RST: u8 = kind::RST_STREAM;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        bytes.extend_from_slice(payload);
        bytes
    }

    fn heads(pieces: &[&[u8]]) -> Vec<(u8, u8, u32, u32)> {
        let mut frames = Frames::behind(PREFACE.len());
        let mut seen = Vec::new();
        for piece in pieces {
            frames.watch(piece, |it| seen.push((it.kind, it.flags, it.length, it.reason)));
        }
        seen
    }

    #[test]
    fn frames_are_found_wherever_they_are_cut() {
        let mut bytes = PREFACE.to_vec();
        for frame in [
            frame(4, 0, b""),
            frame(0, END_STREAM, b"some data"),
            frame(RST, 0, &[0, 0, 0, 8]),
            frame(RST, 0, &[0, 0]),
            frame(RST, 0, &[0, 0, 0, 7, 9, 9]),
            frame(1, END_HEADERS, &[7; 300]),
            frame(6, 0, &[0; 8]),
        ] {
            bytes.extend_from_slice(&frame);
        }
        let expected =
            vec![(4, 0, 0, 0), (0, 1, 9, 0), (3, 0, 4, 8), (3, 0, 2, 0), (3, 0, 6, 7), (1, 4, 300, 0), (6, 0, 8, 0)];
        assert_eq!(heads(&[&bytes]), expected);
        for cut in 0..=bytes.len() {
            assert_eq!(heads(&[&bytes[..cut], &bytes[cut..]]), expected, "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(heads(&single), expected);
    }

    fn ledger() -> Ledger {
        Ledger::new(&limits::Http2 {
            streams: 10,
            resets: 5,
            control_frames: 20,
            within: Time(Duration::from_secs(10)),
        })
    }

    /// How many of these frames are let through, of at most 1,000.
    fn passed(ledger: &mut Ledger, bytes: &[u8]) -> usize {
        let mut frames = Frames::default();
        (0..1000)
            .take_while(|_| {
                frames.watch(bytes, |frame| ledger.came(frame));
                ledger.offence.is_none()
            })
            .count()
    }

    #[test]
    fn floods_end() {
        for (name, bytes, count) in [
            ("ping", frame(6, 0, &[0; 8]), 20),
            ("settings", frame(4, 0, b""), 20),
            ("priority", frame(2, 0, &[0; 5]), 20),
            ("window update", frame(8, 0, &[0, 0, 0, 1]), 20),
            ("empty data", frame(0, 0, b""), 20),
            ("padding alone", frame(0, PADDED, &[3, 0, 0, 0]), 20),
            ("unknown", frame(0xb, 0, b"x"), 20),
            ("reset", frame(RST, 0, &[0, 0, 0, 8]), 5),
            ("small continuations", frame(9, 0, b""), 20),
            ("large continuations", frame(9, 0, &[0; 1000]), CONTINUATIONS as usize),
            ("data", frame(0, 0, &[0; 100]), 1000),
            ("requests", frame(1, END_HEADERS, &[0; 100]), 1000),
        ] {
            assert_eq!(passed(&mut ledger(), &bytes), count, "{name}");
        }
    }

    #[test]
    fn work_pays_for_control_frames() {
        let mut ledger = ledger();
        let mut frames = Frames::default();
        for _ in 0..100 {
            ledger.went(FrameHead { length: 16384, kind: kind::DATA, flags: 0, reason: 0 });
            for _ in 0..UPDATES {
                frames.watch(&frame(8, 0, &[0, 0, 64, 0]), |frame| ledger.came(frame));
            }
            assert_eq!(ledger.offence, None);
        }
        for _ in 0..100 {
            // A window that is opened byte by byte.
            ledger.went(FrameHead { length: 1, kind: kind::DATA, flags: 0, reason: 0 });
            frames.watch(&frame(8, 0, &[0, 0, 0, 1]), |frame| ledger.came(frame));
        }
        assert_eq!(ledger.offence, Some(Offence::Control));
    }

    #[test]
    fn streams_that_end_well_pay_for_resets() {
        let reset = |reason| FrameHead { length: 4, kind: RST, flags: 0, reason };
        let end = FrameHead { length: 0, kind: kind::DATA, flags: END_STREAM, reason: 0 };
        let mut ledger = ledger();
        for _ in 0..100 {
            ledger.came(reset(8));
            ledger.went(end);
        }
        assert_eq!(ledger.offence, None);
        // Resets of ours that the client did not bring about.
        (0..100).for_each(|_| ledger.went(reset(2)));
        assert_eq!(ledger.offence, None);
        (0..6).for_each(|_| ledger.went(reset(1)));
        assert_eq!(ledger.offence, Some(Offence::Resets));
    }

    #[test]
    fn a_budget_comes_back_with_time() {
        let begin = Instant::now();
        let after = |seconds| move || begin + Duration::from_secs(seconds);
        let mut budget = Budget::new(10, Duration::from_secs(10), begin);
        assert_eq!((0..20).filter(|_| budget.spend(after(0))).count(), 10);
        assert_eq!((0..20).filter(|_| budget.spend(after(3))).count(), 3);
        assert_eq!((0..20).filter(|_| budget.spend(after(300))).count(), 10);
    }

    #[test]
    fn an_unfinished_header_block_is_noticed() {
        let block = frame(1, 0, &[7; 50]);
        let end = frame(9, END_HEADERS, b"x");
        let mut frames = Frames::default();
        let mut ledger = ledger();
        let mut feed = |bytes: &[u8]| {
            frames.watch(bytes, |frame| ledger.came(frame));
            ledger.read(&frames);
            ledger.block_since().is_some()
        };
        assert!(!feed(&frame(0, 0, &[0; 30])[..20]), "data may take its time");
        assert!(!feed(&[0; 19]));
        assert!(feed(&block[..5]));
        assert!(feed(&block[5..]));
        assert!(feed(&end[..9]));
        assert!(!feed(&end[9..]));
        assert!(feed(&frame(1, END_HEADERS, &[7; 50])[..30]));
    }

    #[tokio::test]
    async fn nothing_more_is_read_after_an_offence() {
        use tokio::io::AsyncWriteExt;
        let ledger = Rc::new(RefCell::new(ledger()));
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut before = BytesMut::from(PREFACE);
        before.extend_from_slice(&frame(kind::SETTINGS, 0, &[]));
        before.extend_from_slice(&frame(6, 0, &[0; 8]));
        let mut guard = Guard::new(server, before, ledger.clone());
        let mut read = async || {
            let mut bytes = [0; 4096];
            let mut into = ReadBuf::new(&mut bytes);
            let poll = std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut guard).poll_read(context, &mut into)));
            poll.await.is_ready().then(|| into.filled().len())
        };
        assert_eq!(read().await, Some(24 + 9 + 17));
        client.write_all(&frame(6, 0, &[0; 8])).await.unwrap();
        assert_eq!(read().await, Some(17));
        client.write_all(&frame(6, 0, &[0; 8]).repeat(100)).await.unwrap();
        assert_eq!(read().await, None);
        assert_eq!(ledger.borrow().offence(), Some(Offence::Control));
        assert_eq!(read().await, None);
    }
}
