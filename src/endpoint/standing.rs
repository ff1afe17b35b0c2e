//! Which endpoints of a service are to get requests: what the control side makes of the workers' notes and the active
//! checks. Nothing here waits or looks at a clock: whoever asks says what time it is.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustc_hash::FxHashMap;

use super::live::Trouble;
use super::{Endpoint, Endpoints};
use crate::config::upstream::{Outlier, Settings};

/// A moment on both clocks: the one that only moves forwards, and the one that people read.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// To reckon with.
    pub instant: Instant,
    /// To be shown.
    pub wall: SystemTime,
}

impl Moment {
    /// This moment.
    pub fn now() -> Moment {
        Moment { instant: Instant::now(), wall: SystemTime::now() }
    }
}

/// What is held against an endpoint. An endpoint without one is as good as any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Requests failed there, so it rests for a while.
    pub ejected: Option<Ejected>,
    /// Its active checks fail.
    pub unhealthy: Option<Unhealthy>,
    /// How often its rest was doubled, as of `returned`.
    doubled: u32,
    returned: Option<Instant>,
    /// Since when it is new or back, if its share is to grow.
    warm_since: Option<Instant>,
}

/// An endpoint's rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejected {
    /// When it began.
    pub since: SystemTime,
    /// When it is to end; it ends earlier if the endpoint answers a request that went there for want of others.
    pub until: SystemTime,
    /// What happened, in a few words.
    pub reason: Arc<str>,
    end: Instant,
}

/// A verdict of the active checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unhealthy {
    /// When it was reached.
    pub since: SystemTime,
    /// What the last check met.
    pub reason: Arc<str>,
}

/// What the active checks have against endpoints, by their `Live::id`. Who is not in it is well, or is not checked.
pub type Verdicts = FxHashMap<u64, Unhealthy>;

/// What has become of an endpoint, to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It rests for so long.
    Ejected(Arc<str>, Duration),
    /// Its rest has ended, and why.
    Returned(&'static str),
    /// Its checks fail.
    Unhealthy(Arc<str>),
    /// Its checks pass again.
    Healthy,
}

impl Standing {
    /// Whether the endpoint is to get requests.
    pub fn good(&self) -> bool {
        self.ejected.is_none() && self.unhealthy.is_none()
    }

    /// Whether it says less than nothing, and need not be kept.
    pub fn is_default(&self) -> bool {
        *self == Standing::default()
    }

    /// When its rest ends.
    pub fn ends(&self) -> Option<Instant> {
        self.ejected.as_ref().map(|it| it.end)
    }

    /// Whether [`Standing::judge`] would change anything.
    pub fn outdated(&self, endpoint: &Endpoint, unhealthy: Option<&Unhealthy>, now: Instant) -> bool {
        let outlier = &endpoint.settings.outlier;
        self.unhealthy.as_ref() != unhealthy
            || match &self.ejected {
                Some(ejected) => ejected.end <= now || endpoint.live.proved() || outlier.consecutive == 0,
                None => outlier.consecutive > 0 && endpoint.live.strikes().0 >= outlier.consecutive,
            }
    }

    /// Looks at an endpoint again, and tells the workers what has changed. `unhealthy`: what its checks say.
    pub fn judge(&mut self, endpoint: &Endpoint, unhealthy: Option<&Unhealthy>, now: Moment) -> Vec<Change> {
        let Settings { outlier, slow_start, .. } = &*endpoint.settings;
        let live = &endpoint.live;
        let (was_good, mut changes) = (self.good(), Vec::new());
        if self.unhealthy.as_ref() != unhealthy {
            live.set_unhealthy(unhealthy.is_some());
            match (unhealthy, &self.unhealthy) {
                (Some(it), _) => changes.push(Change::Unhealthy(it.reason.clone())),
                (None, _) => changes.push(Change::Healthy),
            }
            self.unhealthy = unhealthy.cloned();
        }
        let returns = self.ejected.as_ref().and_then(|ejected| {
            let over = (ejected.end <= now.instant).then_some("its time is over");
            let proved = live.proved().then_some("it answers");
            over.or(proved).or((outlier.consecutive == 0).then_some("the configuration has changed"))
        });
        if let Some(why) = returns {
            live.set_ejected(false);
            self.ejected = None;
            self.returned = Some(now.instant);
            changes.push(Change::Returned(why));
        }
        let (strikes, trouble) = live.strikes();
        if self.ejected.is_none() && outlier.consecutive > 0 && strikes >= outlier.consecutive {
            let length = self.rest(outlier, now.instant);
            let reason: Arc<str> = reason(strikes, trouble).into();
            self.ejected = Some(Ejected {
                since: now.wall,
                until: now.wall + length,
                reason: reason.clone(),
                end: now.instant + length,
            });
            live.set_ejected(true);
            changes.push(Change::Ejected(reason, length));
        }
        if !was_good && self.good() {
            self.warm_up(*slow_start, now.instant);
        }
        // What is past is forgotten, so that an endpoint that does well costs nothing.
        self.warm_since = self.warm_since.filter(|since| now.instant < *since + *slow_start);
        if self.ejected.is_none() && self.doubled_now(outlier, now.instant) == 0 {
            (self.doubled, self.returned) = (0, None);
        }
        changes
    }

    /// Its share grows from now on.
    pub fn warm_up(&mut self, slow_start: Duration, now: Instant) {
        self.warm_since = Some(now).filter(|_| !slow_start.is_zero());
    }

    /// How long it is to rest this time; the next time it is longer.
    fn rest(&mut self, outlier: &Outlier, now: Instant) -> Duration {
        let doubled = self.doubled_now(outlier, now);
        let factor = 1u32.checked_shl(doubled).unwrap_or(u32::MAX);
        let longest = outlier.max_eject.max(outlier.eject);
        let length = outlier.eject.saturating_mul(factor).min(longest);
        // Once it is as long as it gets, more doublings would only take longer to forget.
        self.doubled = if length < longest { doubled + 1 } else { doubled };
        length
    }

    /// What is left of the doublings: each time as long as `eject` that it has been back takes one away.
    fn doubled_now(&self, outlier: &Outlier, now: Instant) -> u32 {
        let Some(returned) = self.returned else { return self.doubled };
        let back = now.saturating_duration_since(returned).as_nanos() / outlier.eject.as_nanos().max(1);
        self.doubled.saturating_sub(u32::try_from(back).unwrap_or(u32::MAX))
    }
}

fn reason(strikes: u32, trouble: Option<Trouble>) -> String {
    match trouble {
        Some(trouble) => format!("{strikes} failures in a row, the last: {trouble}"),
        None => format!("{strikes} failures in a row"),
    }
}

/// The endpoints of a service that requests go to.
#[derive(Debug)]
pub struct Candidates {
    /// Which of the service's, by index; in order.
    pub chosen: Vec<usize>,
    /// So few are good that all are used.
    pub panic: bool,
}

/// Chooses the candidates among all endpoints of a service. `good`: by index.
///
/// Where a share of endpoints is meant, those with weight 0 do not count unless all have it: they get no requests
/// while others are there, so they are nobody's replacement.
pub fn candidates(all: &Endpoints, good: impl Fn(usize) -> bool, only_ejected: impl Fn(usize) -> bool) -> Candidates {
    let everything = || (0..all.len()).collect::<Vec<_>>();
    let chosen: Vec<usize> = everything().into_iter().filter(|at| good(*at)).collect();
    if chosen.len() == all.len() {
        return Candidates { chosen, panic: false };
    }
    let counts = |at: &usize| all[*at].spec.weight > 0;
    let weighted = everything().iter().filter(|at| counts(at)).count();
    let (left, of) = match weighted {
        0 => (chosen.len(), all.len()),
        weighted => (chosen.iter().filter(|at| counts(at)).count(), weighted),
    };
    // One service, one set of settings: any endpoint has them.
    let panic = all.first().map_or(0, |it| it.settings.outlier.panic.0 as usize);
    if left * 100 < panic * of {
        return Candidates { chosen: everything(), panic: true };
    }
    if left > 0 {
        return Candidates { chosen, panic: false };
    }
    // The checks may leave nothing over, if they are believed whatever they say. What requests met may not: an endpoint
    // that fails at times is better than none.
    let chosen: Vec<usize> = everything().into_iter().filter(|at| good(*at) || only_ejected(*at)).collect();
    Candidates { panic: chosen.iter().any(|at| !good(*at)), chosen }
}

/// Which candidates get less than their share, because they are new or back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warming {
    /// By index in the list of candidates.
    since: Box<[Option<Instant>]>,
    slow_start: Duration,
    /// When the last one has its whole share.
    until: Instant,
}

/// The share that a warming endpoint begins with, in units of 1/65536: a tenth, so that something is seen of it.
const FIRST_SHARE: u32 = 65536 / 10;

impl Warming {
    /// None if all have their whole share.
    pub fn of<'a>(standings: impl Iterator<Item = Option<&'a Standing>>, slow_start: Duration) -> Option<Warming> {
        let since: Box<[_]> = standings.map(|it| it.and_then(|it| it.warm_since)).collect();
        let until = *since.iter().flatten().max()? + slow_start;
        Some(Warming { since, slow_start, until })
    }

    /// The share of a candidate, in units of 1/65536; none: the whole. It grows evenly from a tenth.
    pub fn share(&self, index: u32, now: Instant) -> Option<u16> {
        if now >= self.until {
            return None;
        }
        let passed = now.saturating_duration_since((*self.since.get(index as usize)?)?);
        let share = passed.as_micros() * 65536 / self.slow_start.as_micros().max(1);
        u16::try_from(share.max(FIRST_SHARE.into())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Percent;
    use crate::endpoint::tests::{many, one};

    fn settings() -> Settings {
        Settings { slow_start: Duration::from_secs(20), ..Settings::default() }
    }

    struct Case {
        endpoint: Arc<Endpoint>,
        standing: Standing,
        unhealthy: Option<Unhealthy>,
        now: Moment,
    }

    impl Case {
        fn of(settings: Settings) -> Case {
            Case { endpoint: one(settings), standing: Standing::default(), unhealthy: None, now: Moment::now() }
        }

        fn after(&mut self, seconds: u64) -> &mut Case {
            let time = Duration::from_secs(seconds);
            self.now = Moment { instant: self.now.instant + time, wall: self.now.wall + time };
            self
        }

        fn fails(&mut self, times: u32) -> &mut Case {
            (0..times).for_each(|_| self.endpoint.admit().unwrap().failed(Trouble::Connect));
            self
        }

        fn succeeds(&mut self) -> &mut Case {
            self.endpoint.admit().unwrap().answered(http::StatusCode::OK, Duration::from_millis(1));
            self
        }

        fn changes(&mut self) -> Vec<Change> {
            let outdated = self.standing.outdated(&self.endpoint, self.unhealthy.as_ref(), self.now.instant);
            let changes = self.standing.judge(&self.endpoint, self.unhealthy.as_ref(), self.now);
            assert_eq!(outdated, !changes.is_empty(), "{changes:?}");
            changes
        }

        /// Fails until it is ejected, and for how long.
        fn rest(&mut self) -> u64 {
            match self.fails(5).changes().as_slice() {
                [Change::Ejected(_, length)] => length.as_secs(),
                other => panic!("{other:?}"),
            }
        }

        fn served(&mut self, seconds: u64) -> &mut Case {
            assert_eq!(self.after(seconds).changes(), [Change::Returned("its time is over")]);
            self
        }
    }

    #[test]
    fn failures_in_a_row_eject_for_a_time() {
        let mut case = Case::of(settings());
        assert_eq!(case.fails(4).changes(), []);
        assert_eq!(case.succeeds().fails(4).changes(), []);
        let reason = "5 failures in a row, the last: no connection";
        assert_eq!(case.fails(1).changes(), [Change::Ejected(reason.into(), Duration::from_secs(10))]);
        let ejected = case.standing.ejected.clone().unwrap();
        assert_eq!(ejected.until.duration_since(ejected.since).unwrap(), Duration::from_secs(10));
        assert!(!case.standing.good() && case.endpoint.live.out());
        assert_eq!(case.after(9).changes(), []);
        case.served(1);
        assert!(case.standing.good() && !case.endpoint.live.out());
    }

    #[test]
    fn the_rest_doubles_up_to_a_limit_and_is_forgotten_step_by_step() {
        let mut case = Case::of(settings());
        let mut lengths = Vec::new();
        for _ in 0..7 {
            let length = case.rest();
            lengths.push(length);
            case.served(length);
        }
        assert_eq!(lengths, [10, 20, 40, 80, 160, 300, 300]);
        // Two times 10 s of service take two doublings away.
        assert_eq!(case.after(25).rest(), 80);
        assert_eq!(case.served(80).after(3600).rest(), 10);
        case.served(10).after(20).changes();
        assert!(case.standing.is_default(), "{:?}", case.standing);
    }

    #[test]
    fn an_ejected_endpoint_that_answers_is_back_at_once() {
        let mut case = Case::of(settings());
        case.rest();
        assert_eq!(case.after(1).succeeds().changes(), [Change::Returned("it answers")]);
        assert_eq!(case.rest(), 20, "it counts as an ejection all the same");
    }

    #[test]
    fn zero_failures_means_never_also_for_those_ejected_before() {
        let mut case = Case::of(settings());
        case.rest();
        let outlier = Outlier { consecutive: 0, ..Outlier::default() };
        let settings = Arc::new(Settings { outlier, ..settings() });
        let Endpoint { spec, live, retained, .. } = &*case.endpoint;
        case.endpoint = Arc::new(Endpoint { spec: spec.clone(), live: live.clone(), settings, retained: *retained });
        assert_eq!(case.changes(), [Change::Returned("the configuration has changed")]);
        assert_eq!(case.fails(100).changes(), []);
    }

    #[test]
    fn checks_and_requests_are_judged_apart() {
        let mut case = Case::of(settings());
        case.unhealthy = Some(Unhealthy { since: case.now.wall, reason: "status 500".into() });
        assert_eq!(case.changes(), [Change::Unhealthy("status 500".into())]);
        case.rest();
        case.unhealthy = None;
        assert_eq!(case.changes(), [Change::Healthy]);
        assert!(!case.standing.good() && case.endpoint.live.out());
        case.served(10);
        assert!(case.standing.good() && !case.endpoint.live.out());
    }

    #[test]
    fn who_comes_back_begins_with_a_tenth() {
        let mut case = Case::of(settings());
        case.rest();
        case.served(10);
        let start = case.now.instant;
        let warming = |standing: &Standing| Warming::of([None, Some(standing)].into_iter(), Duration::from_secs(20));
        let share = |after: u64| {
            let share = warming(&case.standing).unwrap().share(1, start + Duration::from_secs(after));
            share.map(|it| (f64::from(it) / 655.36).round() as u32)
        };
        assert_eq!([share(0), share(1), share(10), share(19)], [Some(10), Some(10), Some(50), Some(95)]);
        assert_eq!(share(20), None);
        assert_eq!(warming(&case.standing).unwrap().share(0, start), None);
        case.after(20).changes();
        assert_eq!(warming(&case.standing), None);
    }

    /// `weights` of all, `good` and `unhealthy` by index; the others are ejected.
    fn chosen(panic: u32, weights: &[u16], good: &[usize], unhealthy: &[usize]) -> (Vec<usize>, bool) {
        let outlier = Outlier { panic: Percent(panic), ..Outlier::default() };
        let all = many(Settings { outlier, ..Settings::default() }, weights);
        let is_ejected = |at| !good.contains(&at) && !unhealthy.contains(&at);
        let Candidates { chosen, panic } = candidates(&all, |at| good.contains(&at), is_ejected);
        (chosen, panic)
    }

    #[test]
    fn below_the_panic_threshold_all_are_candidates() {
        assert_eq!(chosen(50, &[1, 1, 1, 1], &[0, 1, 2, 3], &[]), (vec![0, 1, 2, 3], false));
        assert_eq!(chosen(50, &[1, 1, 1, 1], &[1, 3], &[0]), (vec![1, 3], false));
        assert_eq!(chosen(50, &[1, 1, 1, 1], &[3], &[0, 1]), (vec![0, 1, 2, 3], true));
        assert_eq!(chosen(50, &[1], &[], &[0]), (vec![0], true));
        assert_eq!(chosen(100, &[1, 1], &[0], &[]), (vec![0, 1], true));
        assert_eq!(chosen(0, &[1, 1, 1], &[2], &[0]), (vec![2], false));
        assert_eq!(chosen(50, &[], &[], &[]), (vec![], false));
    }

    #[test]
    fn requests_alone_never_empty_a_service() {
        assert_eq!(chosen(0, &[1], &[], &[]), (vec![0], true));
        assert_eq!(chosen(0, &[1, 1, 1], &[], &[1]), (vec![0, 2], true));
        assert_eq!(chosen(0, &[1, 1], &[], &[0, 1]), (vec![], false), "the checks may");
    }

    #[test]
    fn endpoints_without_weight_replace_nobody() {
        assert_eq!(chosen(50, &[1, 1, 0, 0], &[2, 3], &[0, 1]), (vec![0, 1, 2, 3], true));
        assert_eq!(chosen(50, &[0, 0], &[1], &[]), (vec![1], false));
        assert_eq!(chosen(0, &[1, 0], &[1], &[]), (vec![0, 1], true));
    }
}
