//! How many retries a service may have: enough for an endpoint that fails, too few to bury a service that does.
//!
//! The rule is that of Finagle's `RetryBudget` (Twitter), which Linkerd took over, with their window: requests pay in a
//! share of a retry, some retries a second are there whatever happens, and either is good for ten seconds. Theirs keep
//! counters for parts of the window; here everything is worked out when a retry is asked for, which is rare, so that a
//! request costs one addition.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::config::upstream::RetryBudget;

/// How long a request, or the passing of time, is good for retries.
const WINDOW: Duration = Duration::from_secs(10);

/// Balances count in thousandths of a retry.
const RETRY: u64 = 1000;

/// The budget of one service. On a cache line of its own, because every request writes here.
#[derive(Debug)]
#[repr(align(64))]
pub struct Budget {
    requests: AtomicU64,
    began: Instant,
    /// The requests that are in `earned` already.
    settled: AtomicU64,
    /// When that was, in milliseconds since `began`: finer, and what time brings would be lost in rounding.
    settled_at: AtomicU64,
    /// What requests have paid in, decaying.
    earned: AtomicU64,
    /// What time has brought; at most what it brings in a window.
    floor: AtomicU64,
    exhausted: AtomicU64,
}

impl Budget {
    /// That of a service that had no request yet: a window's worth of `min`.
    pub fn new(settings: &RetryBudget, now: Instant) -> Budget {
        Budget {
            requests: AtomicU64::new(0),
            began: now,
            settled: AtomicU64::new(0),
            settled_at: AtomicU64::new(0),
            earned: AtomicU64::new(0),
            floor: AtomicU64::new(most(settings)),
            exhausted: AtomicU64::new(0),
        }
    }

    /// Counts a request; not its retries.
    pub fn deposit(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Takes a retry out, if there is one.
    pub fn withdraw(&self, settings: &RetryBudget, now: Instant) -> bool {
        self.settle(settings, now);
        let take = |from: &AtomicU64| from.fetch_update(Relaxed, Relaxed, |it| it.checked_sub(RETRY)).is_ok();
        let granted = take(&self.earned) || take(&self.floor);
        if !granted {
            self.exhausted.fetch_add(1, Relaxed);
        }
        granted
    }

    /// Retries that there would have been, had the budget been larger.
    pub fn exhausted(&self) -> u64 {
        self.exhausted.load(Relaxed)
    }

    /// Brings the balances up to date. Workers may do so at the same time: each `swap` hands a stretch of time, or a
    /// number of requests, to one of them only.
    fn settle(&self, settings: &RetryBudget, now: Instant) {
        let window = WINDOW.as_millis() as u64;
        let at = u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX);
        let elapsed = at.saturating_sub(self.settled_at.fetch_max(at, Relaxed));
        let requests = self.requests.load(Relaxed);
        let new = requests.saturating_sub(self.settled.fetch_max(requests, Relaxed));
        // Of a longer time only as much as falls into the window, were it evenly spread.
        let new = u128::from(new) * u128::from(window) / u128::from(window.max(elapsed));
        let paid = (new as u64).saturating_mul(u64::from(settings.ratio.0) * RETRY / 100);
        let left = window.saturating_sub(elapsed);
        let decay = |it: u64| (u128::from(it) * u128::from(left) / u128::from(window)) as u64;
        let _ = self.earned.fetch_update(Relaxed, Relaxed, |it| Some(decay(it).saturating_add(paid)));

        let most = most(settings);
        let brought = u64::from(settings.min).saturating_mul(elapsed) * RETRY / 1000;
        let _ = self.floor.fetch_update(Relaxed, Relaxed, |it| Some(it.saturating_add(brought).min(most)));
    }
}

/// What time may bring.
fn most(settings: &RetryBudget) -> u64 {
    u64::from(settings.min) * WINDOW.as_secs() * RETRY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Percent;

    fn settings(ratio: u32, min: u32) -> RetryBudget {
        RetryBudget { ratio: Percent(ratio), min }
    }

    fn granted(budget: &Budget, settings: &RetryBudget, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| budget.withdraw(settings, now)).count()
    }

    #[test]
    fn retries_are_a_share_of_the_requests_and_some_a_second() {
        let (settings, began) = (settings(20, 10), Instant::now());
        let budget = Budget::new(&settings, began);
        (0..1000).for_each(|_| budget.deposit());
        assert_eq!(granted(&budget, &settings, began, 1000), 300);
        assert_eq!(budget.exhausted(), 700);
        let later = began + Duration::from_millis(500);
        assert_eq!(granted(&budget, &settings, later, 100), 5);
        let much_later = began + Duration::from_secs(3600);
        assert_eq!(granted(&budget, &settings, much_later, 1000), 100, "time alone brings a window's worth");
    }

    #[test]
    fn what_was_paid_in_long_ago_is_gone() {
        let (settings, began) = (settings(50, 0), Instant::now());
        let budget = Budget::new(&settings, began);
        (0..100).for_each(|_| budget.deposit());
        assert!(budget.withdraw(&settings, began));
        assert_eq!(granted(&budget, &settings, began + Duration::from_secs(5), 100), 24, "half of what was left");
        (0..100).for_each(|_| budget.deposit());
        assert_eq!(granted(&budget, &settings, began + Duration::from_secs(25), 100), 25, "10 s of 20 s' requests");
        assert_eq!(granted(&budget, &settings, began + Duration::from_secs(60), 100), 0);
    }

    #[test]
    fn in_a_storm_the_share_holds_over_time() {
        let (settings, mut now) = (settings(20, 10), Instant::now());
        let budget = Budget::new(&settings, now);
        let mut retries = 0;
        // 1,000 requests a second for 30 s, each of which fails and asks twice.
        for _ in 0..30_000 {
            now += Duration::from_millis(1);
            budget.deposit();
            retries += granted(&budget, &settings, now, 2);
        }
        let most = 30_000 / 5 + 40 * 10;
        assert!((most * 9 / 10..=most).contains(&retries), "{retries}");
    }

    #[test]
    fn nothing_is_granted_twice_over_workers() {
        let (settings, began) = (settings(100, 0), Instant::now());
        let budget = Budget::new(&settings, began);
        let total: usize = std::thread::scope(|scope| {
            let work = || {
                let both = |_| {
                    budget.deposit();
                    granted(&budget, &settings, began, 2)
                };
                (0..10_000).map(both).sum::<usize>()
            };
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!(total + granted(&budget, &settings, began, 100_000), 40_000);
    }
}
