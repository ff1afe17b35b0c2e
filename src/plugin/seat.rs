//! Where the instance of one plugin sits in one worker, and what is remembered of its failures: what keeps failing is left
//! alone for a while, and a version that does nothing else is reported.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::instance::Instance;
use super::{Counters, Failure, Plugin};

/// Failures in a row after which a plugin is left alone: a loop costs a worker the whole time limit, every time.
const PATIENCE: u32 = 3;

/// How long it is left alone at first; twice as long each time after.
const PAUSE: Duration = Duration::from_millis(100);

/// How long at most, so that a plugin that depends on something that came back is back soon as well.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Bindings in trouble that a worker remembers of one plugin: they are not told when a binding is gone.
const TROUBLES: usize = 10_000;

/// Where the instance of one plugin sits.
#[derive(Default)]
pub(super) struct Seat {
    pub(super) instance: Option<Instance>,
    /// Another version starts afresh.
    pub(super) version: u64,
    /// Failures in a row of a binding, by its generation, so that one route's trouble is not another's; those of the
    /// start are under [`START`].
    pub(super) troubles: FxHashMap<u64, Trouble>,
}

/// How a version did lately, in all workers together. Only failures look at it.
#[derive(Debug, Default)]
pub(super) struct Record(Mutex<Option<Recent>>);

/// From the first failure of a second on.
#[derive(Clone, Copy, Debug)]
struct Recent {
    since: Instant,
    /// How many calls there were before it.
    calls: u64,
    failures: u64,
    /// What they weigh together.
    weight: u64,
}

/// How a version keeps failing.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    failures: u64,
    calls: u64,
    within: Duration,
}

/// What failures of a second have to weigh, if they are at least half of the calls, for a version to count as one that
/// keeps failing. A use that is suspended reaches that within a third of a second.
const KEEPS_FAILING: u64 = 5;

/// What a call weighs that was stopped; others weigh one. It has held its worker, and so everybody else's requests, for the
/// whole time limit: three are enough.
const STOPPED: u64 = 2;

/// How far back a version's failures count.
const LATELY: Duration = Duration::from_secs(1);

/// Stands for the plugin itself among the bindings' generations, which start at 1.
pub(super) const START: u64 = 0;

/// Failures in a row.
#[derive(Default)]
pub(super) struct Trouble {
    count: u32,
    until: Option<Instant>,
}

impl Seat {
    /// For this version, without an instance.
    pub(super) fn of(version: u64) -> Seat {
        Seat { version, ..Seat::default() }
    }

    /// Whether one that keeps failing is left alone.
    pub(super) fn suspended(&self, whose: u64) -> bool {
        let until = self.troubles.get(&whose).and_then(|trouble| trouble.until);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Notes a failure; whether this version has just been found to keep failing.
    pub(super) fn failed(
        &mut self,
        plugin: &Plugin,
        whose: u64,
        failure: &Failure,
        counters: Option<&Counters>,
    ) -> bool {
        let (poisoned, count) = match failure {
            Failure::Trapped(_) => (true, counters.map(|it| &it.traps)),
            Failure::TimedOut => (true, counters.map(|it| &it.timeouts)),
            Failure::Nonsense(_) => (false, counters.map(|it| &it.nonsense)),
            Failure::Refused(_) | Failure::Missing | Failure::Suspended => (false, None),
        };
        let (mut bad, mut news) = (false, false);
        if let Some(count) = count {
            count.fetch_add(1, Relaxed);
            let found = plugin.record.failed(failure, plugin.total(|it| &it.calls));
            bad = found.is_some();
            // Put into words once, and not for each failure of one that there is nothing to replace with.
            news =
                found.is_some_and(|it| plugin.failing.get().is_none() && plugin.failing.set(it.says(failure)).is_ok());
        }
        if !poisoned {
            return news;
        }
        // After a trap no call may enter the store again.
        self.instance = None;
        if self.troubles.len() >= TROUBLES {
            self.troubles.clear();
        }
        let trouble = self.troubles.entry(whose).or_default();
        trouble.count += 1;
        // One that keeps failing is about to be replaced, and has no more patience until then.
        if trouble.count < PATIENCE && !bad {
            return news;
        }
        let pause = PAUSE.saturating_mul(1 << trouble.count.saturating_sub(PATIENCE).min(10)).min(LONGEST_PAUSE);
        trouble.until = Some(Instant::now() + pause);
        tracing::warn!(plugin = %plugin.name, %failure, failures = trouble.count, ?pause, "suspending a use of a plugin");
        news
    }
}

impl Record {
    /// Notes a failure; `calls` so far, this one too. Something if the version now counts as one that keeps failing.
    fn failed(&self, failure: &Failure, calls: u64) -> Option<Finding> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Recent { since: Instant::now(), calls: calls.saturating_sub(1), failures: 0, weight: 0 };
        let mut now = recent.filter(|it| it.since.elapsed() <= LATELY).unwrap_or_else(new);
        now.failures += 1;
        now.weight += if *failure == Failure::TimedOut { STOPPED } else { 1 };
        *recent = Some(now);
        // Where several workers fail at once, one that was counted may not have been noted yet.
        let calls = calls.saturating_sub(now.calls).max(now.failures);
        if now.weight < KEEPS_FAILING || now.failures * 2 < calls {
            return None;
        }
        Some(Finding { failures: now.failures, calls, within: now.since.elapsed() })
    }
}

impl Finding {
    fn says(&self, last: &Failure) -> String {
        let Finding { failures, calls, within } = self;
        format!("{failures} of {calls} calls failed within {} ms; the last: {last}", within.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_failing_is_told_from_what_fails_now_and_then() {
        let trapped = Failure::Trapped("unreachable".to_owned());
        // Failures of so many, one after the other: after how many it is said.
        let after = |failure: &Failure, calls_each: u64| {
            let record = Record::default();
            (1..=20).find(|number| record.failed(failure, number * calls_each).is_some())
        };
        assert_eq!((after(&trapped, 1), after(&trapped, 2), after(&trapped, 3)), (Some(5), Some(5), None));
        assert_eq!((after(&Failure::TimedOut, 1), after(&Failure::TimedOut, 3)), (Some(3), None));
        // Of two that were stopped at the same moment, both were counted before either was noted.
        let record = Record::default();
        assert_eq!(record.failed(&Failure::TimedOut, 2), None);
        assert_eq!(record.failed(&Failure::TimedOut, 2), None);
        let reason = record.failed(&Failure::TimedOut, 3).unwrap().says(&Failure::TimedOut);
        assert!(reason.starts_with("3 of 3 calls failed within"), "{reason}");
    }
}
