//! What all workers measure of one endpoint, and what they count to keep its limits.
//!
//! Only atomics, and nothing here waits. Workers note what they see; whether an endpoint is to be left out is judged by
//! the control side, see [`super::standing`], which they wake when there is something to judge.

use std::cell::Cell;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::sync::Notify;

use super::Endpoint;
use crate::timer;

/// The figures of one endpoint. On a cache line of its own, because every request writes here; what is written rarely
/// is on the next.
#[derive(Debug)]
#[repr(align(64))]
pub struct Live {
    /// Names the endpoint for as long as it lives, across lists; never used twice in a process.
    pub id: u64,
    picks: AtomicU64,
    failed: AtomicU64,
    inflight: AtomicU32,
    /// Connections with a request on them.
    busy: AtomicU32,
    /// Connections, idle ones too.
    open: AtomicU32,
    pending: AtomicU32,
    latency_us: AtomicU32,
    /// The same, but what is slower counts in full.
    peak_us: AtomicU32,
    /// When both were last written, in [`seconds`].
    sampled: AtomicU32,
    failures: AtomicU32,
    /// Failures since the last success, and the flags below.
    strikes: AtomicU32,
    /// The fraction of a request that a warming endpoint has earned, in its lower 16 bits.
    earned: AtomicU32,
    rare: Rare,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Rare {
    /// The last failure, see [`Trouble::code`].
    trouble: AtomicU16,
    refused: AtomicU64,
    ejections: AtomicU64,
    checks_passed: AtomicU64,
    checks_failed: AtomicU64,
    /// Wakes whoever judges.
    alarm: Arc<Notify>,
}

/// It is ejected: set and taken back by the control side.
const EJECTED: u32 = 1 << 31;
/// Its active checks fail: set and taken back by the control side.
const UNHEALTHY: u32 = 1 << 30;
/// It was ejected, was asked all the same, and answered well: set by workers.
const PROVED: u32 = 1 << 29;
/// The rest counts failures, and stops counting before it reaches the flags.
const COUNT: u32 = (1 << 20) - 1;

/// A new sample counts for 1/8 of the mean, as in TCP's smoothed round-trip time (RFC 6298).
const SMOOTHING: u32 = 8;

/// Seconds without a response after which a latency counts for half.
const HALF_LIFE: u32 = 10;

/// A latency after so many half-lives. Known, however long ago: zero would say that it was never asked.
fn aged(figure: u32, halvings: u32) -> u32 {
    if halvings == 0 { figure } else { figure.checked_shr(halvings).unwrap_or(0).max(figure.min(1)) }
}

/// Seconds since this process first asked, by the coarse clock of the thread.
fn seconds() -> u32 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let now = timer::recent();
    now.saturating_duration_since(*BEGAN.get_or_init(|| now)).as_secs() as u32
}

/// `failures` counts in units of 1/65536, so that the mean can fall to nothing in integer steps.
const ALL_FAILED: u32 = 1 << 16;

/// What an endpoint did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It took no connection, or not in time, or TLS could not be agreed upon.
    Connect,
    /// It closed the connection, reset it or spoke nonsense.
    Broken,
    /// Nothing came in time.
    Late,
    /// It answered with a status that counts as a failure.
    Status(StatusCode),
}

impl Trouble {
    fn code(self) -> u16 {
        match self {
            Trouble::Connect => 1,
            Trouble::Broken => 2,
            Trouble::Late => 3,
            Trouble::Status(status) => status.as_u16(),
        }
    }

    fn of(code: u16) -> Option<Trouble> {
        match code {
            1 => Some(Trouble::Connect),
            2 => Some(Trouble::Broken),
            3 => Some(Trouble::Late),
            status => StatusCode::from_u16(status).ok().map(Trouble::Status),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Connect => out.write_str("no connection"),
            Trouble::Broken => out.write_str("broken connection or invalid answer"),
            Trouble::Late => out.write_str("no answer in time"),
            Trouble::Status(status) => write!(out, "status {}", status.as_u16()),
        }
    }
}

/// What an endpoint has of each kind of limit, at this moment and over all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Requests sent whose response has not ended.
    pub requests: u32,
    /// Connections, idle ones too.
    pub connections: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
}

impl Live {
    /// Nothing measured yet; `alarm` is notified when there is something to judge.
    pub fn new(alarm: Arc<Notify>) -> Live {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Live {
            id: IDS.fetch_add(1, Relaxed),
            picks: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            inflight: AtomicU32::new(0),
            busy: AtomicU32::new(0),
            open: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            latency_us: AtomicU32::new(0),
            peak_us: AtomicU32::new(0),
            sampled: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            strikes: AtomicU32::new(0),
            earned: AtomicU32::new(0),
            rare: Rare { alarm, ..Rare::default() },
        }
    }

    /// Requests sent whose response has not ended.
    pub fn inflight(&self) -> u32 {
        self.inflight.load(Relaxed)
    }

    /// What counts against its limits.
    pub fn load(&self) -> Load {
        Load {
            requests: self.inflight.load(Relaxed),
            connections: self.open.load(Relaxed),
            pending: self.pending.load(Relaxed),
        }
    }

    /// Mean time to the response head, in which each response counts for an eighth, and which halves in every ten seconds
    /// without one; zero before the first. So an endpoint that was slow, and is not asked for that, is tried again.
    pub fn latency(&self) -> Duration {
        self.aged(&self.latency_us, seconds())
    }

    /// The same, but a slower response counts in full and at once: Finagle's peak EWMA.
    pub fn peak(&self) -> Duration {
        self.aged(&self.peak_us, seconds())
    }

    fn aged(&self, figure: &AtomicU32, now: u32) -> Duration {
        Duration::from_micros(aged(figure.load(Relaxed), self.halvings(now)).into())
    }

    /// How often the latencies have halved.
    fn halvings(&self, now: u32) -> u32 {
        now.saturating_sub(self.sampled.load(Relaxed)) / HALF_LIFE
    }

    /// Decaying share of requests that failed, in thousandths.
    pub fn failures(&self) -> u32 {
        (u64::from(self.failures.load(Relaxed)) * 1000 / u64::from(ALL_FAILED)) as u32
    }

    /// How often it was picked, and how many of these requests failed.
    pub fn totals(&self) -> (u64, u64) {
        (self.picks.load(Relaxed), self.failed.load(Relaxed))
    }

    /// Requests that it did not get because of a limit.
    pub fn refused(&self) -> u64 {
        self.rare.refused.load(Relaxed)
    }

    /// How often it was ejected.
    pub fn ejections(&self) -> u64 {
        self.rare.ejections.load(Relaxed)
    }

    /// Active checks that passed, and that failed.
    pub fn checks(&self) -> (u64, u64) {
        (self.rare.checks_passed.load(Relaxed), self.rare.checks_failed.load(Relaxed))
    }

    /// Counts an active check.
    pub fn checked(&self, passed: bool) {
        let count = if passed { &self.rare.checks_passed } else { &self.rare.checks_failed };
        count.fetch_add(1, Relaxed);
    }

    /// Whether the control side advises against it; it is among the candidates all the same if there are not enough
    /// others.
    pub fn out(&self) -> bool {
        self.strikes.load(Relaxed) & (EJECTED | UNHEALTHY) != 0
    }

    /// Failures since the last success, for as long as it is not ejected, and what the last one was.
    pub(super) fn strikes(&self) -> (u32, Option<Trouble>) {
        (self.strikes.load(Relaxed) & COUNT, Trouble::of(self.rare.trouble.load(Relaxed)))
    }

    /// Whether the last thing that is known of it is that no connection could be made.
    pub fn unreachable(&self) -> bool {
        matches!(self.strikes(), (1.., Some(Trouble::Connect)))
    }

    /// Whether it answered well although ejected.
    pub(super) fn proved(&self) -> bool {
        self.strikes.load(Relaxed) & PROVED != 0
    }

    /// Told to the workers; what they noted before counts no more.
    pub(super) fn set_ejected(&self, ejected: bool) {
        let flag = if ejected { EJECTED } else { 0 };
        self.rare.ejections.fetch_add(ejected.into(), Relaxed);
        let _ = self.strikes.fetch_update(Relaxed, Relaxed, |before| Some(before & UNHEALTHY | flag));
    }

    /// Told to the workers.
    pub(super) fn set_unhealthy(&self, unhealthy: bool) {
        if unhealthy {
            self.strikes.fetch_or(UNHEALTHY, Relaxed);
        } else {
            self.strikes.fetch_and(!UNHEALTHY, Relaxed);
        }
    }

    fn strike(&self, trouble: Trouble, limit: u32) {
        let before = self.strikes.load(Relaxed);
        self.rare.trouble.store(trouble.code(), Relaxed);
        if before & COUNT == COUNT {
            return;
        }
        let count = (self.strikes.fetch_add(1, Relaxed) & COUNT) + 1;
        if limit > 0 && count >= limit && before & EJECTED == 0 {
            self.rare.alarm.notify_one();
        }
    }

    /// `proving`: it was asked although it is ejected, and knows nothing of the requests before.
    fn clear(&self, proving: bool) {
        let before = self.strikes.load(Relaxed);
        if before & EJECTED != 0 {
            if proving && before & PROVED == 0 {
                self.strikes.fetch_or(PROVED, Relaxed);
                self.rare.alarm.notify_one();
            }
        } else if before & COUNT != 0 {
            // If it is ejected at this very moment, that stays.
            let _ = self.strikes.compare_exchange(before, before & !COUNT, Relaxed, Relaxed);
        }
    }

    fn sample(&self, after: Duration) {
        self.sample_at(after, seconds());
    }

    fn sample_at(&self, after: Duration, now: u32) {
        let sample = u32::try_from(after.as_micros()).unwrap_or(u32::MAX).max(1);
        // The longer ago the others are, the more this one counts.
        let halvings = self.halvings(now);
        let part = SMOOTHING.checked_shr(halvings).unwrap_or(0).max(1);
        let smooth = |before: u32| if before == 0 { sample } else { before - before / part + sample / part };
        // Two workers may overwrite each other's sample: a mean does not mind, and a lock would cost more.
        let mean = aged(self.latency_us.load(Relaxed), halvings);
        let peak = aged(self.peak_us.load(Relaxed), halvings);
        self.latency_us.store(smooth(mean), Relaxed);
        self.peak_us.store(if sample > peak { sample } else { smooth(peak) }, Relaxed);
        if self.sampled.load(Relaxed) != now {
            self.sampled.store(now, Relaxed);
        }
        let failures = self.failures.load(Relaxed);
        if failures != 0 {
            self.failures.store(failures - failures.div_ceil(SMOOTHING), Relaxed);
        }
    }

    fn fail(&self) {
        self.failed.fetch_add(1, Relaxed);
        let failures = self.failures.load(Relaxed);
        self.failures.store(failures + (ALL_FAILED - failures) / SMOOTHING, Relaxed);
    }

    /// Whether a warming endpoint takes this request, given its share in units of 1/65536: of each 65,536 it takes
    /// exactly so many, evenly spread, whichever workers they come to.
    pub fn takes(&self, share: u16) -> bool {
        let before = self.earned.fetch_add(share.into(), Relaxed);
        (before as u16).overflowing_add(share).1
    }

    /// Counts one more, unless that would be more than the limit.
    fn within(&self, count: &AtomicU32, limit: u32) -> bool {
        let within = count.fetch_add(1, Relaxed) < limit || limit == 0;
        if !within {
            count.fetch_sub(1, Relaxed);
            self.rare.refused.fetch_add(1, Relaxed);
        }
        within
    }
}

/// A request that an endpoint is working on, from its pick to the end of the response. To be dropped there: that is
/// where its success is counted, and what it held of the endpoint's limits is given back.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    occupies: Cell<bool>,
    outcome: Cell<Outcome>,
    /// The endpoint was ejected when this began.
    proving: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Unknown,
    Answered,
    Failed,
}

impl Endpoint {
    /// Takes a request, unless there are `max_requests` of them.
    pub fn admit(self: &Arc<Self>) -> Option<InFlight> {
        let live = &self.live;
        live.within(&live.inflight, self.settings.max_requests).then(|| {
            live.picks.fetch_add(1, Relaxed);
            let proving = live.strikes.load(Relaxed) & EJECTED != 0;
            InFlight {
                endpoint: self.clone(),
                occupies: Cell::new(false),
                outcome: Cell::new(Outcome::Unknown),
                proving,
            }
        })
    }

    /// Lets a request wait for a connection until the guard is dropped, unless there are `max_pending` of them.
    pub fn wait(self: &Arc<Self>) -> Option<Waiting> {
        let live = &self.live;
        live.within(&live.pending, self.settings.max_pending).then(|| Waiting(self.clone()))
    }

    /// Counts a connection until the guard is dropped. It may be idle: the limit is kept by [`InFlight::occupy`].
    pub fn opened(self: &Arc<Self>) -> Open {
        self.live.open.fetch_add(1, Relaxed);
        Open { endpoint: self.clone(), shared: false }
    }

    /// Whether a connection that becomes idle is to be closed, because there are more than `max_connections`.
    pub fn crowded(&self) -> bool {
        let limit = self.settings.max_connections;
        limit > 0 && self.live.open.load(Relaxed) > limit
    }
}

impl InFlight {
    /// Takes a connection for this request alone, idle or new, for as long as it lasts; false if there are
    /// `max_connections` with a request on them. Not for connections of many requests, see [`Open::share`].
    pub fn occupy(&self) -> bool {
        let live = &self.endpoint.live;
        if !self.occupies.get() {
            self.occupies.set(live.within(&live.busy, self.endpoint.settings.max_connections));
        }
        self.occupies.get()
    }

    /// The head of a response came after this time. If the response does not [fail](InFlight::failed) after that, the
    /// request counts as a success when it ends.
    pub fn answered(&self, status: StatusCode, after: Duration) {
        let Endpoint { live, settings, .. } = &*self.endpoint;
        live.sample(after);
        if settings.outlier.status.contains(status) {
            live.strike(Trouble::Status(status), settings.outlier.consecutive);
            self.outcome.set(Outcome::Failed);
        } else {
            self.outcome.set(Outcome::Answered);
        }
    }

    /// No connection, no response, not in time, or not all of it.
    pub fn failed(&self, trouble: Trouble) {
        let Endpoint { live, settings, retained, .. } = &*self.endpoint;
        live.fail();
        if self.outcome.replace(Outcome::Failed) != Outcome::Failed {
            let last_word = *retained && trouble == Trouble::Connect;
            live.strike(trouble, if last_word { 1 } else { settings.outlier.consecutive });
        }
    }
}

impl std::ops::Deref for InFlight {
    type Target = Arc<Endpoint>;

    fn deref(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let live = &self.endpoint.live;
        live.inflight.fetch_sub(1, Relaxed);
        if self.occupies.get() {
            live.busy.fetch_sub(1, Relaxed);
        }
        if self.outcome.get() == Outcome::Answered {
            live.clear(self.proving);
        }
    }
}

/// A request that waits for a connection.
#[derive(Debug)]
pub struct Waiting(Arc<Endpoint>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.live.pending.fetch_sub(1, Relaxed);
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Open {
    endpoint: Arc<Endpoint>,
    shared: bool,
}

impl Open {
    /// Lets it carry many requests at a time: it then counts as one that is never idle. False if there are
    /// `max_connections` of these.
    pub fn share(&mut self) -> bool {
        let live = &self.endpoint.live;
        if !self.shared {
            self.shared = live.within(&live.busy, self.endpoint.settings.max_connections);
        }
        self.shared
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let live = &self.endpoint.live;
        live.open.fetch_sub(1, Relaxed);
        if self.shared {
            live.busy.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::upstream::Settings;
    use crate::endpoint::tests::one;

    const OK: StatusCode = StatusCode::OK;
    const SOON: Duration = Duration::from_micros(800);

    fn limited(max_requests: u32, max_connections: u32, max_pending: u32) -> Arc<Endpoint> {
        one(Settings { max_requests, max_connections, max_pending, ..Settings::default() })
    }

    #[test]
    fn the_hot_figures_are_on_one_cache_line() {
        // Two lines, of which the rare ones are one.
        assert_eq!((size_of::<Live>(), size_of::<Rare>()), (128, 64));
    }

    #[test]
    fn failures_and_latency_decay() {
        let endpoint = one(Settings::default());
        let live = &endpoint.live;
        (0..50).for_each(|_| live.fail());
        assert!(live.failures() > 950, "{}", live.failures());
        (0..200).for_each(|_| live.sample(SOON));
        assert_eq!(live.failures(), 0);
        assert!((790..=800).contains(&live.latency().as_micros()), "{:?}", live.latency());
    }

    #[test]
    fn a_latency_ages_and_a_peak_counts_at_once() {
        let endpoint = one(Settings::default());
        let live = &endpoint.live;
        let figures = |now| [&live.latency_us, &live.peak_us].map(|it| live.aged(it, now).as_micros());
        assert_eq!(figures(7), [0, 0], "never asked");
        live.sample_at(Duration::from_micros(800), 5);
        live.sample_at(Duration::from_micros(8000), 5);
        assert_eq!(figures(5), [1700, 8000]);
        live.sample_at(Duration::from_micros(800), 5);
        assert_eq!(figures(14), [1588, 7100]);
        assert_eq!(figures(5 + HALF_LIFE), [794, 3550]);
        assert_eq!(figures(u32::MAX), [1, 1], "known, though long ago");
        // What comes then is not measured against what is long over.
        live.sample_at(Duration::from_micros(900), 5 + 20 * HALF_LIFE);
        assert_eq!(figures(5 + 20 * HALF_LIFE), [900, 900]);
    }

    #[test]
    fn limits_are_kept_and_given_back() {
        let endpoint = limited(2, 1, 1);
        let first = endpoint.admit().unwrap();
        let second = endpoint.admit().unwrap();
        assert!(endpoint.admit().is_none());
        assert!(first.occupy() && first.occupy() && !second.occupy());
        let waiting = endpoint.wait().unwrap();
        assert!(endpoint.wait().is_none());
        assert_eq!(endpoint.live.load(), Load { requests: 2, connections: 0, pending: 1 });
        assert_eq!(endpoint.live.refused(), 3);
        drop(first);
        drop(waiting);
        assert!(second.occupy() && endpoint.wait().is_some() && endpoint.admit().is_some());
        drop(second);
        assert_eq!(endpoint.live.load(), Load { requests: 0, connections: 0, pending: 0 });
        assert_eq!(endpoint.live.busy.load(Relaxed), 0);
        assert_eq!(endpoint.live.totals(), (3, 0));
    }

    #[test]
    fn zero_is_no_limit() {
        let endpoint = limited(0, 0, 0);
        let all: Vec<InFlight> = (0..10_000).map(|_| endpoint.admit().unwrap()).collect();
        assert!(all.iter().all(InFlight::occupy));
        let waiting: Vec<Waiting> = (0..10_000).map(|_| endpoint.wait().unwrap()).collect();
        assert_eq!(endpoint.live.load().pending, waiting.len() as u32);
    }

    #[test]
    fn idle_connections_are_too_many_only_with_the_busy_ones() {
        let endpoint = limited(0, 2, 0);
        let mut open: Vec<Open> = (0..2).map(|_| endpoint.opened()).collect();
        assert!(!endpoint.crowded());
        open.push(endpoint.opened());
        assert!(endpoint.crowded());
        assert!(open[0].share() && open[0].share() && open[1].share() && !open[2].share());
        drop(open);
        assert!(!endpoint.crowded());
        assert_eq!((endpoint.live.load().connections, endpoint.live.busy.load(Relaxed)), (0, 0));
    }

    #[test]
    fn only_what_ended_well_makes_up_for_failures() {
        let endpoint = one(Settings::default());
        let count = || endpoint.live.strikes().0;
        for _ in 0..3 {
            endpoint.admit().unwrap().failed(Trouble::Broken);
        }
        assert_eq!((count(), endpoint.live.strikes().1), (3, Some(Trouble::Broken)));
        let answered = endpoint.admit().unwrap();
        answered.answered(OK, SOON);
        assert_eq!(count(), 3, "it may yet break off");
        answered.failed(Trouble::Broken);
        drop(answered);
        assert_eq!(count(), 4);
        // The client went away before there was an answer: nothing is known.
        drop(endpoint.admit().unwrap());
        let unavailable = endpoint.admit().unwrap();
        unavailable.answered(StatusCode::SERVICE_UNAVAILABLE, SOON);
        unavailable.failed(Trouble::Late);
        drop(unavailable);
        assert_eq!(count(), 5, "one request is one failure");
        let good = endpoint.admit().unwrap();
        good.answered(StatusCode::INTERNAL_SERVER_ERROR, SOON);
        drop(good);
        assert_eq!(count(), 0);
    }

    #[tokio::test]
    async fn the_control_side_is_woken_at_the_limit_and_when_an_ejected_endpoint_answers() {
        let endpoint = one(Settings::default());
        let woken = async || {
            let notified = endpoint.live.rare.alarm.notified();
            tokio::time::timeout(Duration::from_millis(1), notified).await.is_ok()
        };
        let before = endpoint.admit().unwrap();
        for _ in 0..4 {
            endpoint.admit().unwrap().failed(Trouble::Connect);
        }
        assert!(!woken().await);
        endpoint.admit().unwrap().failed(Trouble::Connect);
        assert!(woken().await);

        endpoint.live.set_ejected(true);
        assert!(endpoint.live.out());
        endpoint.admit().unwrap().failed(Trouble::Connect);
        before.answered(OK, SOON);
        drop(before);
        assert!(!woken().await && !endpoint.live.proved(), "a request from before proves nothing");
        let after = endpoint.admit().unwrap();
        after.answered(OK, SOON);
        drop(after);
        assert!(woken().await && endpoint.live.proved());
        endpoint.live.set_unhealthy(true);
        endpoint.live.set_ejected(false);
        assert!(endpoint.live.out() && !endpoint.live.proved());
        endpoint.live.set_unhealthy(false);
        assert!(!endpoint.live.out());
        assert_eq!(endpoint.live.ejections(), 1);
    }

    #[test]
    fn a_share_is_exact_and_evenly_spread() {
        let endpoint = one(Settings::default());
        let taken: Vec<bool> = (0..400).map(|_| endpoint.live.takes(u16::MAX / 4 + 1)).collect();
        assert_eq!(taken.iter().filter(|it| **it).count(), 100);
        assert!(taken.chunks(4).all(|four| four.iter().filter(|it| **it).count() == 1));
    }
}
