//! Endpoints as the request path sees them: what the registry said, beside what was measured since.
//!
//! A list is immutable and replaced as a whole; the live figures sit behind `Arc`s that the next list takes over
//! by address, so that nothing is lost when a list changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::Notify;

use crate::config::upstream::Settings;
use crate::registry;

pub mod budget;
pub mod live;
pub mod standing;

pub use live::{InFlight, Live, Trouble};

/// One endpoint of one service.
#[derive(Debug)]
pub struct Endpoint {
    /// What the registry says of it.
    pub spec: registry::Endpoint,
    /// What was measured of it.
    pub live: Arc<Live>,
    /// How it is treated; the same for all of a service.
    pub settings: Arc<Settings>,
    /// It vanished from the registry and may be gone: the first failed connection decides.
    pub retained: bool,
}

/// The endpoints of a service at one moment, in the order of their addresses.
#[derive(Debug)]
pub struct Endpoints {
    /// Never the same for two lists of a process, so that an instance knows whether it has seen this one.
    pub version: u64,
    list: Box<[Arc<Endpoint>]>,
}

impl Endpoints {
    /// Those of a service that nobody has heard of before.
    pub fn new(service: &registry::Service, settings: &Arc<Settings>, alarm: &Arc<Notify>) -> Endpoints {
        Endpoints::following(&[], &service.endpoints, false, settings, alarm)
    }

    /// The list that follows those in `before`, whose endpoints lend their live figures to those of the same address.
    /// `alarm` is for the new ones: notified when there is something to judge, see [`standing`].
    pub fn following<'a>(
        before: &[&Endpoints],
        specs: impl IntoIterator<Item = &'a registry::Endpoint>,
        retained: bool,
        settings: &Arc<Settings>,
        alarm: &Arc<Notify>,
    ) -> Endpoints {
        let endpoint = |spec: &registry::Endpoint| {
            let known = before.iter().find_map(|before| before.find(spec));
            let same =
                |it: &Endpoint| it.spec == *spec && it.retained == retained && Arc::ptr_eq(&it.settings, settings);
            match known {
                Some(known) if same(known) => known.clone(),
                known => {
                    let live = known.map_or_else(|| Arc::new(Live::new(alarm.clone())), |known| known.live.clone());
                    Arc::new(Endpoint { spec: spec.clone(), live, settings: settings.clone(), retained })
                }
            }
        };
        Endpoints::of(specs.into_iter().map(endpoint))
    }

    /// A list of some of these, by index and in order.
    pub fn some(&self, chosen: &[usize]) -> Endpoints {
        Endpoints::of(chosen.iter().map(|at| self[*at].clone()))
    }

    /// Whether it is what [`Endpoints::some`] would make.
    pub fn is_of(&self, all: &Endpoints, chosen: &[usize]) -> bool {
        self.len() == chosen.len() && self.iter().zip(chosen).all(|(one, at)| Arc::ptr_eq(one, &all[*at]))
    }

    /// Whether an endpoint of this life is in it.
    pub fn has(&self, endpoint: &Endpoint) -> bool {
        self.find(&endpoint.spec).is_some_and(|it| it.live.id == endpoint.live.id)
    }

    fn of(list: impl Iterator<Item = Arc<Endpoint>>) -> Endpoints {
        static VERSIONS: AtomicU64 = AtomicU64::new(1);
        Endpoints { version: VERSIONS.fetch_add(1, Relaxed), list: list.collect() }
    }

    /// The one of this address and scheme.
    pub fn find(&self, spec: &registry::Endpoint) -> Option<&Arc<Endpoint>> {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn service(ports: &[u16]) -> registry::Service {
        let endpoint = |&port| registry::Endpoint {
            address: ([127, 0, 0, 1], port).into(),
            scheme: registry::Scheme::Http,
            weight: 1,
            zone: "".into(),
            labels: Vec::new(),
        };
        registry::Service { endpoints: ports.iter().map(endpoint).collect(), ..Default::default() }
    }

    /// An endpoint with these settings.
    pub(crate) fn one(settings: Settings) -> Arc<Endpoint> {
        many(settings, &[1])[0].clone()
    }

    /// A service's endpoints with these weights.
    pub(crate) fn many(settings: Settings, weights: &[u16]) -> Endpoints {
        let mut service = service(&(1..=weights.len() as u16).collect::<Vec<_>>());
        service.endpoints.iter_mut().zip(weights).for_each(|(endpoint, weight)| endpoint.weight = *weight);
        Endpoints::new(&service, &Arc::new(settings), &Arc::default())
    }

    #[test]
    fn live_figures_survive_a_new_list_and_new_settings() {
        let (settings, alarm) = (Arc::default(), Arc::default());
        let before = Endpoints::new(&service(&[1, 2]), &settings, &alarm);
        let request = before[1].admit().unwrap();
        let after = Endpoints::following(&[&before], &service(&[2, 3]).endpoints, false, &settings, &alarm);
        assert!(Arc::ptr_eq(&after[0], &before[1]));
        assert_eq!((after[0].live.inflight(), after[1].live.inflight()), (1, 0));
        assert_ne!(after.version, before.version);
        let settings = Arc::new(Settings { max_requests: 1, ..Settings::default() });
        let changed = Endpoints::following(&[&after], &service(&[2, 3]).endpoints, false, &settings, &alarm);
        assert!(changed[0].admit().is_none());
        drop(request);
        assert!(changed[0].admit().is_some());
        assert_eq!(after[0].live.inflight(), 0);
    }

    #[test]
    fn a_list_of_some_is_known_again() {
        let all = many(Settings::default(), &[1, 1, 1]);
        let some = all.some(&[0, 2]);
        assert!(some.is_of(&all, &[0, 2]) && !some.is_of(&all, &[0, 1]) && !some.is_of(&all, &[0, 1, 2]));
        assert!(some.has(&all[2]) && !some.has(&all[1]));
        assert!(!some.has(&one(Settings::default())), "the same address, but another life");
    }
}
