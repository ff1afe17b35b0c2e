//! Versions that are tried on real requests: a canary decides a share of them and is left alone when it is found wanting;
//! a shadow decides none and is only compared.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustc_hash::FxHashMap;

use super::Binding;
use crate::config::plugins::{Rollback, Share};

/// Failures in a row that count whatever was before: a plugin that does nothing but fail is out in a moment.
const IN_A_ROW: u64 = 3;

/// Picks that each endpoint could have had before their balance is judged.
const PICKS: u64 = 10;

/// Another version of a plugin, on a share of the calls.
#[derive(Debug)]
pub struct Canary {
    /// What is called.
    pub binding: Arc<Binding>,
    /// Its share, in millionths.
    pub share: u32,
    rollback: Rollback,
    earned: AtomicU32,
    /// The version that was found wanting, see [`super::Plugin::id`]; zero: none.
    wanting: AtomicU64,
    counts: Counts,
    judged: Mutex<Judged>,
}

/// What is known of the version that is called.
#[derive(Debug, Default)]
struct Counts {
    version: AtomicU64,
    calls: AtomicU64,
    failures: AtomicU64,
    in_a_row: AtomicU64,
    /// Requests that it decided, and how many of them went wrong.
    requests: AtomicU64,
    errors: AtomicU64,
    /// The same of the requests that it did not decide.
    other_requests: AtomicU64,
    other_errors: AtomicU64,
}

#[derive(Debug, Default)]
struct Judged {
    verdict: Option<Verdict>,
    /// How often it picked whom, where that is looked at.
    picks: FxHashMap<u64, u64>,
}

/// Why a canary is left alone.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// In words for the operator.
    pub reason: String,
    /// Since when.
    pub at: SystemTime,
}

/// Figures for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Its calls.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Requests that it decided.
    pub requests: u64,
    /// Those that failed, or were answered with 5xx.
    pub errors: u64,
}

impl Canary {
    /// One that has not been called.
    pub fn new(binding: Arc<Binding>, share: u32, rollback: Rollback) -> Canary {
        Canary {
            binding,
            share,
            rollback,
            earned: AtomicU32::new(0),
            wanting: AtomicU64::new(0),
            counts: Counts::default(),
            judged: Mutex::default(),
        }
    }

    /// Whether this version decides the next call: of a million exactly its share, evenly spread over all workers.
    pub fn takes(&self, version: u64) -> bool {
        if self.wanting.load(Relaxed) == version {
            return false;
        }
        self.meet(version);
        let before = self.earned.fetch_add(self.share, Relaxed) % Share::WHOLE;
        before + self.share >= Share::WHOLE
    }

    /// The same for whoever has to stay with the decision: `lot` is drawn once for each request.
    pub fn takes_lot(&self, version: u64, lot: u32) -> bool {
        if self.wanting.load(Relaxed) == version {
            return false;
        }
        self.meet(version);
        self.has(lot)
    }

    fn has(&self, lot: u32) -> bool {
        (u64::from(lot) * u64::from(Share::WHOLE)) >> 32 < u64::from(self.share)
    }

    /// Another version begins with a clean sheet.
    fn meet(&self, version: u64) {
        let counts = &self.counts;
        if counts.version.load(Relaxed) == version {
            return;
        }
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.version.swap(version, Relaxed) == version {
            return;
        }
        *judged = Judged::default();
        for count in [
            &counts.calls,
            &counts.failures,
            &counts.in_a_row,
            &counts.requests,
            &counts.errors,
            &counts.other_requests,
            &counts.other_errors,
        ] {
            count.store(0, Relaxed);
        }
    }

    /// Notes one of its calls, and leaves it alone if that was one failure too many.
    pub fn called(&self, failed: bool) {
        let counts = &self.counts;
        let calls = counts.calls.fetch_add(1, Relaxed) + 1;
        if !failed {
            if counts.in_a_row.load(Relaxed) != 0 {
                counts.in_a_row.store(0, Relaxed);
            }
            return;
        }
        let failures = counts.failures.fetch_add(1, Relaxed) + 1;
        if counts.in_a_row.fetch_add(1, Relaxed) + 1 >= IN_A_ROW {
            self.leave(format!("{IN_A_ROW} of its calls in a row failed"));
        } else if calls >= self.rollback.after.into() && above(failures, calls, self.rollback.failures) {
            self.leave(format!("{failures} of its {calls} calls failed"));
        }
    }

    /// Notes whom it picked, of so many endpoints.
    pub fn picked(&self, endpoint: u64, of: usize) {
        if self.rollback.imbalance == 0 || of < 2 {
            return;
        }
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if judged.picks.len() > 4 * of {
            // Endpoints come and go; what was long ago says little.
            judged.picks.clear();
        }
        let picks = judged.picks.entry(endpoint).or_default();
        *picks += 1;
        let (picks, all) = (*picks, judged.picks.values().sum::<u64>());
        let (of, most) = (of as u64, u64::from(self.rollback.imbalance));
        drop(judged);
        if all >= PICKS * of && picks * of * 100 > all * most {
            self.leave(format!("one of {of} endpoints had {picks} of its {all} picks"));
        }
    }

    /// Notes how a request ended, whether it decided it or not.
    pub fn ended(&self, decided: bool, failed: bool) {
        let counts = &self.counts;
        let (requests, errors) = match decided {
            true => (&counts.requests, &counts.errors),
            false => (&counts.other_requests, &counts.other_errors),
        };
        requests.fetch_add(1, Relaxed);
        if !failed {
            return;
        }
        errors.fetch_add(1, Relaxed);
        let (requests, errors) = (counts.requests.load(Relaxed), counts.errors.load(Relaxed));
        if !decided || requests < self.rollback.after.into() {
            return;
        }
        let others = (counts.other_errors.load(Relaxed), counts.other_requests.load(Relaxed));
        let usual = (others.0 * u64::from(Share::WHOLE)).checked_div(others.1).unwrap_or(0) as u32;
        if above(errors, requests, Share(self.rollback.errors.0.saturating_add(usual))) {
            self.leave(format!("{errors} of its {requests} requests failed, of others {} of {}", others.0, others.1));
        }
    }

    fn leave(&self, reason: String) {
        let version = self.counts.version.load(Relaxed);
        if self.wanting.swap(version, Relaxed) == version {
            return;
        }
        let (plugin, sent) = (&*self.binding.plugin, "to the version before");
        tracing::warn!(plugin, reason, "canary rolled back {sent}");
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        judged.verdict = Some(Verdict { reason, at: SystemTime::now() });
    }

    /// Why it is left alone; none: it is not.
    pub fn verdict(&self) -> Option<Verdict> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner).verdict.clone()
    }

    /// What was counted of the version that is called.
    pub fn figures(&self) -> Figures {
        let get = |count: &AtomicU64| count.load(Relaxed);
        let counts = &self.counts;
        Figures {
            calls: get(&counts.calls),
            failures: get(&counts.failures),
            requests: get(&counts.requests),
            errors: get(&counts.errors),
        }
    }
}

/// Whether so many of so many are more than this share.
fn above(some: u64, of: u64, share: Share) -> bool {
    some * u64::from(Share::WHOLE) > of * u64::from(share.0)
}

/// A balancer that picks beside the one that decides.
#[derive(Debug)]
pub struct Shadow {
    /// What is called.
    pub binding: Arc<Binding>,
    /// Picks that were the same.
    pub same: AtomicU64,
    /// Picks that were others.
    pub different: AtomicU64,
    /// Calls that brought nothing.
    pub failures: AtomicU64,
}

impl Shadow {
    /// One that has not been called.
    pub fn new(binding: Arc<Binding>) -> Shadow {
        Shadow { binding, same: AtomicU64::new(0), different: AtomicU64::new(0), failures: AtomicU64::new(0) }
    }

    /// Notes what it picked where this was picked.
    pub fn compared<E>(&self, picked: Option<u32>, own: Result<Option<u32>, E>) {
        let count = match own {
            Ok(own) if own == picked => &self.same,
            Ok(_) => &self.different,
            Err(_) => &self.failures,
        };
        count.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{Kind, Numbers};

    fn canary(share: u32, rollback: Rollback) -> Canary {
        let number = Numbers::default().take();
        Canary::new(Arc::new(Binding::new(0, "new".into(), Kind::Balancer, "{}".into(), number)), share, rollback)
    }

    #[test]
    fn a_canary_gets_exactly_its_share_evenly_spread() {
        let canary = self::canary(50_000, Rollback::default());
        let taken: Vec<u32> = (0..10_000).filter(|_| canary.takes(1)).collect();
        assert_eq!(taken.len(), 500);
        assert!(taken.windows(2).all(|pair| pair[1] - pair[0] == 20), "every twentieth");
        let lots = (0..=u16::MAX).filter(|lot| canary.takes_lot(1, u32::from(*lot) << 16)).count();
        assert_eq!(lots, 65_536 / 20 + 1);
        let all = self::canary(Share::WHOLE, Rollback::default());
        assert!((0..100).all(|_| all.takes(1)) && all.takes_lot(1, u32::MAX));
        let none = self::canary(0, Rollback::default());
        assert!(!(0..100).any(|_| none.takes(1)) && !none.takes_lot(1, 0));
    }

    #[test]
    fn failures_in_a_row_are_enough() {
        let canary = canary(500_000, Rollback::default());
        assert!(canary.takes_lot(7, 0));
        for failed in [true, true, false, true, true] {
            canary.called(failed);
        }
        assert!(canary.takes_lot(7, 0) && canary.verdict().is_none());
        canary.called(true);
        assert!(!canary.takes_lot(7, 0));
        assert_eq!(canary.verdict().unwrap().reason, "3 of its calls in a row failed");
        assert!(canary.takes_lot(8, 0), "another version is another matter");
        assert!(canary.verdict().is_none() && canary.figures().calls == 0);
    }

    #[test]
    fn a_rate_counts_once_there_were_enough_calls() {
        let canary = canary(500_000, Rollback { after: 100, failures: Share(20_000), ..Rollback::default() });
        canary.takes(7);
        // One in twenty fails: five times the first hundred, and two are allowed.
        (1..100).for_each(|call| canary.called(call % 20 == 0));
        assert!(canary.verdict().is_none());
        canary.called(true);
        assert_eq!(canary.verdict().unwrap().reason, "5 of its 100 calls failed");
    }

    #[test]
    fn errors_count_against_those_of_the_others() {
        let canary = canary(500_000, Rollback { after: 100, errors: Share(50_000), ..Rollback::default() });
        canary.takes(7);
        (0..1000).for_each(|it| canary.ended(false, it % 10 == 0));
        (0..1000).for_each(|it| canary.ended(true, it % 8 == 0));
        assert!(canary.verdict().is_none(), "12.5 % where 10 % are usual");
        (0..1000).for_each(|it| canary.ended(true, it % 4 == 0));
        let reason = canary.verdict().unwrap().reason;
        assert!(reason.ends_with("requests failed, of others 100 of 1000"), "{reason}");
    }

    #[test]
    fn imbalance_counts_where_it_is_looked_at() {
        let picks = |imbalance, whom: fn(u64) -> u64| {
            let canary = canary(Share::WHOLE, Rollback { imbalance, ..Rollback::default() });
            canary.takes(7);
            (0..1000).for_each(|it| canary.picked(whom(it), 4));
            canary.verdict().map(|it| it.reason)
        };
        assert_eq!(picks(0, |_| 1), None);
        assert_eq!(picks(200, |it| it % 4), None);
        assert_eq!(picks(200, |_| 1).unwrap(), "one of 4 endpoints had 40 of its 40 picks");
    }

    #[test]
    fn a_shadow_is_compared() {
        let number = Numbers::default().take();
        let shadow = Shadow::new(Arc::new(Binding::new(0, "new".into(), Kind::Balancer, "{}".into(), number)));
        for own in [Ok(Some(1)), Ok(Some(2)), Ok(None), Err(())] {
            shadow.compared(Some(1), own);
        }
        let counts = [&shadow.same, &shadow.different, &shadow.failures].map(|it| it.load(Relaxed));
        assert_eq!(counts, [1, 2, 1]);
    }
}
