//! Where the instance of one plugin sits in one worker, and what is remembered of its failures: what keeps failing is left
//! alone for a while, and a version that does nothing else is reported.

use std::sync::atomic::Ordering::Relaxed;
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
    recent: Recent,
}

/// How this version did lately, from the first failure of a second on.
struct Recent {
    since: Instant,
    /// The worker's count of calls at that moment.
    calls: u64,
    failures: u64,
}

impl Default for Recent {
    fn default() -> Recent {
        Recent { since: Instant::now(), calls: 0, failures: 0 }
    }
}

/// Failures in a second, and at least half of the calls, after which a version counts as one that keeps failing. A use
/// that is suspended reaches that within a third of a second.
const KEEPS_FAILING: u64 = 5;

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
        let mut keeps_failing = false;
        if let (Some(count), Some(counters)) = (count, counters) {
            count.fetch_add(1, Relaxed);
            keeps_failing = self.recent.failed(counters.calls.load(Relaxed), failure, plugin);
        }
        if !poisoned {
            return keeps_failing;
        }
        // After a trap no call may enter the store again.
        self.instance = None;
        if self.troubles.len() >= TROUBLES {
            self.troubles.clear();
        }
        let trouble = self.troubles.entry(whose).or_default();
        trouble.count += 1;
        if trouble.count < PATIENCE {
            return keeps_failing;
        }
        let pause = PAUSE.saturating_mul(1 << (trouble.count - PATIENCE).min(10)).min(LONGEST_PAUSE);
        trouble.until = Some(Instant::now() + pause);
        tracing::warn!(plugin = %plugin.name, %failure, failures = trouble.count, ?pause, "suspending a use of a plugin");
        keeps_failing
    }
}

impl Recent {
    /// Notes a failure; `calls` so far, this one too. Whether it is the one after which the version counts as failing.
    fn failed(&mut self, calls: u64, failure: &Failure, plugin: &Plugin) -> bool {
        if self.failures == 0 || self.since.elapsed() > LATELY {
            *self = Recent { since: Instant::now(), calls: calls.saturating_sub(1), failures: 0 };
        }
        self.failures += 1;
        let calls = calls - self.calls;
        if self.failures < KEEPS_FAILING || self.failures * 2 < calls {
            return false;
        }
        let (failures, within) = (self.failures, self.since.elapsed().as_millis());
        plugin
            .failing
            .set(format!("{failures} of {calls} calls failed within {within} ms; the last: {failure}"))
            .is_ok()
    }
}
