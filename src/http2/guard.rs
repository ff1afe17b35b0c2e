//! What a client may cost on one connection: its frames are counted, before anything is done about them.
//!
//! A frame of nine bytes can make us send, search or set something, and none of that breaks the protocol: PING, SETTINGS and
//! PRIORITY floods (CVE-2019-9512, -9515, -9513), empty frames (CVE-2019-9518), window updates byte by byte (CVE-2019-9511,
//! -9517), streams that are opened and reset (CVE-2023-44487) or that we are made to reset (CVE-2025-8671), and header blocks
//! that never end (CVE-2024-27316). So there are two budgets, [`limits::Http2::resets`] and
//! [`limits::Http2::control_frames`], which fill up again with time and with work that was worth it.

use std::time::{Duration, Instant};

use super::frame::{Head, flag, kind, reason};
use crate::config::limits;

/// CONTINUATION frames behind one HEADERS frame. A head within the default limit of 32 KiB is done with two; the largest that
/// can be configured, 1 MiB, with 64 (a frame has 16 KiB).
const CONTINUATIONS: u32 = 64;

/// A CONTINUATION frame shorter than this makes no progress worth its handling, unless it ends the block.
const SMALL_CONTINUATION: usize = 256;

/// Window updates that one DATA frame of ours may bring, at most: two are usual, for the stream and the connection. Envoy
/// allows ten.
const UPDATES: u32 = 10;

/// Bytes of a DATA frame that earn one control frame. A client that opens its window byte by byte earns nothing.
const EARNING: u32 = 16;

/// Control frames that a request earns: clients set its priority, and change it.
const REQUEST: u32 = 4;

/// What a client did too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// Streams that ended by reset.
    Resets,
    /// Frames that carry nothing.
    Control,
    /// A header block in too many frames.
    Continuations,
}

impl Offence {
    /// For the log and the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Offence::Resets => "resets",
            Offence::Control => "control-frames",
            Offence::Continuations => "continuations",
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

/// What was counted, and what is under way.
#[derive(Debug)]
pub struct Ledger {
    resets: Budget,
    control: Budget,
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
    pub fn came(&mut self, frame: Head) {
        match frame.kind {
            kind::DATA if frame.has(flag::END_STREAM) => {}
            // What is padding is not known without looking further; a short padded frame may be nothing else.
            kind::DATA if frame.length == 0 || (frame.has(flag::PADDED) && frame.length <= 256) => self.control(),
            kind::DATA => self.control.earn((frame.length as u32 / EARNING).min(REQUEST)),
            kind::HEADERS => {
                self.control.earn(REQUEST);
                self.continuations = 0;
            }
            kind::CONTINUATION => {
                self.continuations += 1;
                if self.continuations > CONTINUATIONS {
                    self.offence.get_or_insert(Offence::Continuations);
                }
                if !frame.has(flag::END_HEADERS) && frame.length < SMALL_CONTINUATION {
                    self.control();
                }
            }
            kind::RST_STREAM => self.reset(),
            _ => self.control(),
        }
    }

    /// We have taken a stream back.
    pub fn took_back(&mut self, why: u32) {
        use reason::{FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, STREAM_CLOSED};
        // We were made to.
        if [PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM].contains(&why) {
            self.reset();
        }
    }

    /// A stream was answered to its end.
    pub fn ended(&mut self) {
        self.resets.earn(1);
    }

    /// So many bytes of a body were sent in a frame.
    pub fn sent(&mut self, bytes: u32) {
        self.control.earn((bytes / EARNING).min(UPDATES));
    }

    /// Something was read; `block`: it has ended within a field block.
    pub fn read(&mut self, block: bool) {
        self.heard = true;
        self.block_since = block.then(|| self.block_since.unwrap_or_else(Instant::now));
    }

    /// Something was to be written; `moved`: and some of it was, or there was nothing.
    pub fn wrote(&mut self, moved: bool) {
        match moved {
            true => self.stalled = None,
            false => drop(self.stalled.get_or_insert_with(Instant::now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::Time;

    fn head(kind: u8, flags: u8, length: usize) -> Head {
        Head { length, kind, flags, stream: 1 }
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
    fn passed(ledger: &mut Ledger, frame: Head) -> usize {
        (0..1000)
            .take_while(|_| {
                ledger.came(frame);
                ledger.offence.is_none()
            })
            .count()
    }

    #[test]
    fn floods_end() {
        for (name, frame, count) in [
            ("ping", head(kind::PING, 0, 8), 20),
            ("settings", head(kind::SETTINGS, 0, 0), 20),
            ("priority", head(kind::PRIORITY, 0, 5), 20),
            ("window update", head(kind::WINDOW_UPDATE, 0, 4), 20),
            ("empty data", head(kind::DATA, 0, 0), 20),
            ("padding alone", head(kind::DATA, flag::PADDED, 4), 20),
            ("unknown", head(0xb, 0, 1), 20),
            ("reset", head(kind::RST_STREAM, 0, 4), 5),
            ("small continuations", head(kind::CONTINUATION, 0, 0), 20),
            ("large continuations", head(kind::CONTINUATION, 0, 1000), CONTINUATIONS as usize),
            ("data", head(kind::DATA, 0, 100), 1000),
            ("requests", head(kind::HEADERS, flag::END_HEADERS, 100), 1000),
        ] {
            assert_eq!(passed(&mut ledger(), frame), count, "{name}");
        }
    }

    #[test]
    fn work_pays_for_control_frames() {
        let mut ledger = ledger();
        for _ in 0..100 {
            ledger.sent(16384);
            (0..UPDATES).for_each(|_| ledger.came(head(kind::WINDOW_UPDATE, 0, 4)));
            assert_eq!(ledger.offence, None);
        }
        for _ in 0..100 {
            // A window that is opened byte by byte.
            ledger.sent(1);
            ledger.came(head(kind::WINDOW_UPDATE, 0, 4));
        }
        assert_eq!(ledger.offence, Some(Offence::Control));
    }

    #[test]
    fn streams_that_end_well_pay_for_resets() {
        let mut ledger = ledger();
        for _ in 0..100 {
            ledger.came(head(kind::RST_STREAM, 0, 4));
            ledger.ended();
        }
        assert_eq!(ledger.offence, None);
        // Resets of ours that the client did not bring about.
        (0..100).for_each(|_| ledger.took_back(reason::INTERNAL_ERROR));
        assert_eq!(ledger.offence, None);
        (0..6).for_each(|_| ledger.took_back(reason::PROTOCOL_ERROR));
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
    fn what_does_not_go_on_is_noticed() {
        let mut ledger = ledger();
        assert!(!ledger.heard());
        ledger.read(true);
        let since = ledger.block_since();
        ledger.read(true);
        assert!(since.is_some() && ledger.block_since() == since && ledger.heard() && !ledger.heard());
        ledger.read(false);
        assert_eq!(ledger.block_since(), None);
        ledger.wrote(false);
        let since = ledger.stalled_since();
        ledger.wrote(false);
        assert!(since.is_some() && ledger.stalled_since() == since);
        ledger.wrote(true);
        assert_eq!(ledger.stalled_since(), None);
    }
}
