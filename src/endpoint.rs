//! Endpoints as the request path sees them: what the registry said, beside what was measured since.
//!
//! A list is immutable and replaced as a whole; the live figures sit behind `Arc`s that the next list takes over
//! by address, so that nothing is lost when a list changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::registry;

/// One endpoint of one service.
#[derive(Debug)]
pub struct Endpoint {
    /// What the registry says of it.
    pub spec: registry::Endpoint,
    /// What was measured of it.
    pub live: Arc<Live>,
}

/// The endpoints of a service at one moment, in the order of their addresses.
#[derive(Debug)]
pub struct Endpoints {
    /// Never the same for two lists of a process, so that an instance knows whether it has seen this one.
    pub version: u64,
    list: Box<[Arc<Endpoint>]>,
}

impl Endpoints {
    /// The list that follows `before`, whose endpoints lend their live figures to those of the same address.
    pub fn following(before: Option<&Endpoints>, service: &registry::Service) -> Endpoints {
        static VERSIONS: AtomicU64 = AtomicU64::new(1);
        let list = service
            .endpoints
            .iter()
            .map(|spec| {
                let known = before.and_then(|before| before.find(spec));
                match known {
                    Some(known) if known.spec == *spec => known.clone(),
                    Some(known) => Arc::new(Endpoint { spec: spec.clone(), live: known.live.clone() }),
                    None => Arc::new(Endpoint { spec: spec.clone(), live: Arc::default() }),
                }
            })
            .collect();
        Endpoints { version: VERSIONS.fetch_add(1, Relaxed), list }
    }

    fn find(&self, spec: &registry::Endpoint) -> Option<&Arc<Endpoint>> {
        // A registry's lists are ordered by address, see `registry::Service`.
        let at = self.list.binary_search_by(|it| it.spec.address.cmp(&spec.address)).ok()?;
        Some(&self.list[at]).filter(|it| it.spec.scheme == spec.scheme)
    }
}

impl std::ops::Deref for Endpoints {
    type Target = [Arc<Endpoint>];

    fn deref(&self) -> &Self::Target {
        &self.list
    }
}

/// What all workers measure of one endpoint. On a cache line of its own, because every request writes here.
#[derive(Debug)]
#[repr(align(64))]
pub struct Live {
    /// Names the endpoint for as long as it lives, across lists; never used twice in a process.
    pub id: u64,
    inflight: AtomicU32,
    latency_us: AtomicU32,
    failures: AtomicU32,
    picks: AtomicU64,
    failed: AtomicU64,
}

impl Default for Live {
    fn default() -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Live {
            id: IDS.fetch_add(1, Relaxed),
            inflight: AtomicU32::new(0),
            latency_us: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            picks: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }
}

/// A new sample counts for 1/8 of the mean, as in TCP's smoothed round-trip time (RFC 6298).
const SMOOTHING: u32 = 8;

/// `failures` counts in units of 1/65536, so that the mean can fall to nothing in integer steps.
const ALL_FAILED: u32 = 1 << 16;

impl Live {
    /// Requests sent whose response has not ended.
    pub fn inflight(&self) -> u32 {
        self.inflight.load(Relaxed)
    }

    /// Decaying mean time to the response head; zero before the first.
    pub fn latency(&self) -> Duration {
        Duration::from_micros(self.latency_us.load(Relaxed).into())
    }

    /// Decaying share of requests that failed, in thousandths.
    pub fn failures(&self) -> u32 {
        (u64::from(self.failures.load(Relaxed)) * 1000 / u64::from(ALL_FAILED)) as u32
    }

    /// How often it was picked, and how many of these requests failed.
    pub fn totals(&self) -> (u64, u64) {
        (self.picks.load(Relaxed), self.failed.load(Relaxed))
    }

    /// Counts a request from now until the guard is dropped.
    pub fn start(self: &Arc<Self>) -> InFlight {
        self.picks.fetch_add(1, Relaxed);
        self.inflight.fetch_add(1, Relaxed);
        InFlight(self.clone())
    }

    /// A response head came after this time.
    pub fn succeeded(&self, after: Duration) {
        let sample = u32::try_from(after.as_micros()).unwrap_or(u32::MAX).max(1);
        let mean = self.latency_us.load(Relaxed);
        // Two workers may overwrite each other's sample: a mean does not mind, and a lock would cost more.
        self.latency_us.store(if mean == 0 { sample } else { mean - mean / SMOOTHING + sample / SMOOTHING }, Relaxed);
        let failures = self.failures.load(Relaxed);
        if failures != 0 {
            self.failures.store(failures - failures.div_ceil(SMOOTHING), Relaxed);
        }
    }

    /// No connection, no response, or not in time.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
        let failures = self.failures.load(Relaxed);
        self.failures.store(failures + (ALL_FAILED - failures) / SMOOTHING, Relaxed);
    }
}

/// A request that an endpoint is working on.
#[derive(Debug)]
pub struct InFlight(Arc<Live>);

impl std::ops::Deref for InFlight {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.inflight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(ports: &[u16]) -> registry::Service {
        let endpoint = |&port| registry::Endpoint {
            address: ([127, 0, 0, 1], port).into(),
            scheme: registry::Scheme::Http,
            weight: 1,
            zone: "".into(),
            labels: Vec::new(),
        };
        registry::Service { endpoints: ports.iter().map(endpoint).collect() }
    }

    #[test]
    fn live_figures_survive_a_new_list() {
        let before = Endpoints::following(None, &service(&[1, 2]));
        let request = before[1].live.start();
        let after = Endpoints::following(Some(&before), &service(&[2, 3]));
        assert_eq!(after[0].live.id, before[1].live.id);
        assert_eq!((after[0].live.inflight(), after[1].live.inflight()), (1, 0));
        assert_ne!(after.version, before.version);
        drop(request);
        assert_eq!(after[0].live.inflight(), 0);
    }

    #[test]
    fn failures_and_latency_decay() {
        let live = Live::default();
        (0..50).for_each(|_| live.failed());
        assert!(live.failures() > 950, "{}", live.failures());
        (0..200).for_each(|_| live.succeeded(Duration::from_micros(800)));
        assert_eq!(live.failures(), 0);
        assert!((790..=800).contains(&live.latency().as_micros()), "{:?}", live.latency());
    }
}
