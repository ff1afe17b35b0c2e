//! Active health checks: asks the endpoints of services that want it, again and again, and publishes what it has
//! against them.
//!
//! What a check sends is in [`probe`]; what follows from a verdict is the publisher's business. Which endpoints there
//! are is read from the snapshot whenever there is a new one: an endpoint that appears is checked at once, and one that
//! is gone no more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustc_hash::FxHashMap;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::config::upstream::HealthCheck;
use crate::endpoint::Live;
use crate::endpoint::standing::{Unhealthy, Verdicts};
use crate::registry::Scheme;
use crate::snapshot::{Current, Snapshot};
use crate::tls::Connector;

mod probe;

pub use probe::probe as ask;

/// Checks at the same time. Each is a socket for as long as its timeout at most; whoever waits here is checked a little
/// later.
const AT_ONCE: usize = 128;

/// So much time each, up to the whole interval, is given to endpoints that appear together: a thousand are not asked
/// all at once, and a single one is asked at once.
const SPREAD: Duration = Duration::from_millis(5);

/// Checks for ever. `published` is notified of each new snapshot.
pub async fn run(current: Current, published: Arc<Notify>, verdicts: watch::Sender<Verdicts>) {
    let shared = Shared { at_once: Semaphore::new(AT_ONCE), verdicts };
    let mut checks = Checks { running: FxHashMap::default(), tasks: JoinSet::new(), shared: Arc::new(shared) };
    loop {
        checks.follow(&current.load_full());
        loop {
            tokio::select! {
                () = published.notified() => break,
                Some(ended) = checks.tasks.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(%error, "a health check panicked, which is a mistake in the gateway");
                    }
                }
            }
        }
    }
}

struct Checks {
    /// By `Live::id`.
    running: FxHashMap<u64, Running>,
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
}

struct Running {
    check: HealthCheck,
    task: AbortHandle,
}

struct Shared {
    at_once: Semaphore,
    verdicts: watch::Sender<Verdicts>,
}

/// An endpoint to be checked.
#[derive(Clone)]
struct Target {
    address: SocketAddr,
    scheme: Scheme,
    connector: Arc<Connector>,
    live: Arc<Live>,
    check: HealthCheck,
}

impl Checks {
    /// Stops what is not wanted any more, and starts what is new.
    fn follow(&mut self, snapshot: &Snapshot) {
        let mut wanted = targets(snapshot);
        self.running.retain(|id, running| {
            let stays = wanted.get(id).is_some_and(|target| target.check == running.check);
            if stays {
                wanted.remove(id);
            } else {
                running.task.abort();
            }
            stays
        });
        // One that is checked otherwise from now on keeps the verdict until there is another.
        let known = |id: &u64| self.running.contains_key(id) || wanted.contains_key(id);
        self.shared.verdicts.send_if_modified(|verdicts| {
            let before = verdicts.len();
            verdicts.retain(|id, _| known(id));
            verdicts.len() < before
        });
        let count = wanted.len() as u32;
        for (id, target) in wanted {
            let delay = SPREAD.saturating_mul(count).min(target.check.interval).mul_f64(fastrand::f64());
            let check = target.check.clone();
            let task = self.tasks.spawn(watch_over(target, delay, self.shared.clone()));
            self.running.insert(id, Running { check, task });
        }
    }
}

fn targets(snapshot: &Snapshot) -> FxHashMap<u64, Target> {
    let mut targets = FxHashMap::default();
    for service in snapshot.services.values() {
        let Some(check) = &service.settings.health_check else { continue };
        for endpoint in service.all.iter() {
            let (address, scheme) = (endpoint.spec.address, endpoint.spec.scheme);
            let (live, connector) = (endpoint.live.clone(), service.connector.clone());
            let target = Target { address, scheme, connector, live, check: check.clone() };
            targets.insert(endpoint.live.id, target);
        }
    }
    targets
}

/// Checks one endpoint until it is aborted.
async fn watch_over(target: Target, delay: Duration, shared: Arc<Shared>) {
    let Target { address, scheme, connector, live, check } = target;
    let mut tally = Tally::new(&check);
    sleep(delay).await;
    loop {
        // Not all at the same pace, or they would meet again and again.
        let next = Instant::now() + check.interval.mul_f64(0.9 + fastrand::f64() / 5.0);
        let outcome = {
            // It is never closed.
            let _turn = shared.at_once.acquire().await;
            match timeout(check.timeout, probe::probe(address, scheme, &connector, &check)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("nothing in {:?}", check.timeout)),
            }
        };
        live.checked(outcome.is_ok());
        let verdict = tally.count(outcome.is_ok());
        tracing::trace!(endpoint = %address, ?outcome, ?verdict, "health check");
        if let Some(healthy) = verdict {
            let reason = outcome.err().unwrap_or_default();
            shared.verdicts.send_if_modified(|verdicts| match healthy {
                true => verdicts.remove(&live.id).is_some(),
                false => {
                    let unhealthy = || Unhealthy { since: SystemTime::now(), reason: reason.into() };
                    let known = verdicts.contains_key(&live.id);
                    verdicts.entry(live.id).or_insert_with(unhealthy);
                    !known
                }
            });
        }
        sleep_until(next).await;
    }
}

/// Counts checks in a row.
struct Tally {
    /// None before the first check.
    healthy: Option<bool>,
    /// Checks in a row that say otherwise.
    against: u32,
    /// How many of these it takes to become healthy, and unhealthy.
    needed: (u32, u32),
}

impl Tally {
    fn new(check: &HealthCheck) -> Tally {
        Tally { healthy: None, against: 0, needed: (check.healthy, check.unhealthy) }
    }

    /// What the endpoint has become, if that is news. The first check decides at once: nothing speaks against it.
    fn count(&mut self, passed: bool) -> Option<bool> {
        self.against = if self.healthy == Some(passed) { 0 } else { self.against + 1 };
        let needed = match self.healthy {
            None => 1,
            Some(true) => self.needed.1,
            Some(false) => self.needed.0,
        };
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.healthy = Some(passed);
        self.healthy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_take_checks_in_a_row() {
        let mut tally = Tally::new(&HealthCheck { healthy: 2, unhealthy: 3, ..HealthCheck::default() });
        let (good, bad) = (true, false);
        let checks = [
            (good, Some(true)),
            (good, None),
            (bad, None),
            (bad, None),
            (good, None),
            (bad, None),
            (bad, None),
            (bad, Some(false)),
            (bad, None),
            (good, None),
            (bad, None),
            (good, None),
            (good, Some(true)),
        ];
        for (at, (passed, verdict)) in checks.into_iter().enumerate() {
            assert_eq!(tally.count(passed), verdict, "check {at}");
        }
    }

    #[test]
    fn the_first_check_decides_at_once() {
        let check = HealthCheck { healthy: 5, unhealthy: 5, ..HealthCheck::default() };
        assert_eq!(Tally::new(&check).count(true), Some(true));
        assert_eq!(Tally::new(&check).count(false), Some(false));
    }
}
