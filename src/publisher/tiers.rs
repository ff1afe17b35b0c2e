//! Which endpoints of a service are its first tier and which its second, from one snapshot to the next.
//!
//! The first is what the registry holds. The second is what vanished from there but may still live: it is used where the
//! first is empty, and who cannot be connected to leaves it for good. Whether something was taken away or only vanished
//! is for the registry to say, see [`crate::registry::Retained`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Notify;

use crate::config::upstream::Settings;
use crate::endpoint::Endpoints;
use crate::registry;
use crate::snapshot::Service;

/// What [`super::Publisher`] puts into a [`Service`].
pub(super) struct Tiers {
    /// See [`Service::all`].
    pub(super) all: Arc<Endpoints>,
    /// See [`Service::retained`].
    pub(super) retained: Arc<Endpoints>,
    /// See [`Service::given_up`].
    pub(super) given_up: Vec<(SocketAddr, SystemTime)>,
    /// See [`Service::makeshift`].
    pub(super) makeshift: bool,
}

impl Tiers {
    /// Those that follow what is `known`, and what is logged of them.
    pub(super) fn of(
        known: Option<&Service>,
        name: &str,
        spec: &registry::Service,
        settings: &Arc<Settings>,
        alarm: &Arc<Notify>,
    ) -> Tiers {
        let before: Vec<&Endpoints> = known.iter().flat_map(|known| [&*known.all, &*known.retained]).collect();
        let same = known.filter(|known| Arc::ptr_eq(&known.settings, settings));

        let first = match same {
            Some(known) if !known.makeshift && is(&known.all, &spec.endpoints) => known.all.clone(),
            _ => Arc::new(Endpoints::following(&before, &spec.endpoints, false, settings, alarm)),
        };
        let mut given_up = known.map_or_else(Vec::new, |known| known.given_up.clone());
        // Who comes back and vanishes once more gets another chance: the time is another.
        given_up.retain(|it| spec.retained.iter().any(|retained| *it == (retained.endpoint.address, retained.since)));
        for retained in &spec.retained {
            let id = (retained.endpoint.address, retained.since);
            let dead = |endpoints: &&Endpoints| {
                endpoints.find(&retained.endpoint).is_some_and(|endpoint| endpoint.live.unreachable())
            };
            if !given_up.contains(&id) && before.iter().any(dead) {
                tracing::info!(service = name, endpoint = %id.0, "vanished endpoint found dead");
                given_up.push(id);
            }
        }
        let left = || {
            let left = spec.retained.iter();
            left.filter(|it| !given_up.contains(&(it.endpoint.address, it.since))).map(|it| &it.endpoint)
        };
        let retained = match same {
            Some(known) if is(&known.retained, left()) => known.retained.clone(),
            _ => Arc::new(Endpoints::following(&before, left(), true, settings, alarm)),
        };

        let makeshift = first.is_empty() && !retained.is_empty();
        let all = if makeshift { retained.clone() } else { first };
        match (known.is_some_and(|known| known.makeshift), makeshift) {
            (false, true) => {
                tracing::warn!(service = name, endpoints = all.len(), "all endpoints have vanished, using those");
            }
            (true, false) if !all.is_empty() => {
                tracing::info!(service = name, endpoints = all.len(), "service has endpoints again");
            }
            _ => {}
        }
        if all.is_empty() && known.is_some_and(|known| !known.all.is_empty()) {
            tracing::info!(service = name, "service has no endpoints left");
        }
        Tiers { all, retained, given_up, makeshift }
    }
}

/// Whether the list is of these.
fn is<'a>(list: &Endpoints, specs: impl IntoIterator<Item = &'a registry::Endpoint>) -> bool {
    list.iter().map(|it| &it.spec).eq(specs)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::endpoint::Trouble;
    use crate::endpoint::budget::Budget;
    use crate::registry::{Retained, Vanished};

    fn endpoint(port: u16) -> registry::Endpoint {
        registry::Endpoint {
            address: ([127, 0, 0, 1], port).into(),
            scheme: registry::Scheme::Http,
            weight: 1,
            zone: "".into(),
            labels: Vec::new(),
        }
    }

    fn spec(endpoints: &[u16], retained: &[(u16, u64)]) -> registry::Service {
        let retained = retained.iter().map(|(port, since)| {
            let since = SystemTime::UNIX_EPOCH + Duration::from_secs(*since);
            Retained { endpoint: endpoint(*port), vanished: Vanished::Session, since, until: since }
        });
        registry::Service {
            endpoints: endpoints.iter().map(|port| endpoint(*port)).collect(),
            retained: retained.collect(),
            ..registry::Service::default()
        }
    }

    fn service(known: Option<&Service>, spec: registry::Service) -> Service {
        let settings = known.map_or_else(Arc::default, |known| known.settings.clone());
        let Tiers { all, retained, given_up, makeshift } = Tiers::of(known, "s", &spec, &settings, &Arc::default());
        Service {
            name: "s".into(),
            spec: Arc::new(spec),
            registry: None,
            endpoints: all.clone(),
            all,
            retained,
            given_up,
            makeshift,
            standings: Default::default(),
            panic: false,
            warming: None,
            budget: Arc::new(Budget::new(&settings.retry_budget, std::time::Instant::now())),
            settings,
            connector: crate::tls::Connector::load("test", &Default::default()).ok().unwrap().0,
            implicit: None,
            series: 0,
        }
    }

    fn ports(endpoints: &Endpoints) -> Vec<u16> {
        endpoints.iter().map(|it| it.spec.address.port()).collect()
    }

    #[test]
    fn the_second_tier_is_used_where_the_first_is_empty() {
        let first = service(None, spec(&[1, 2], &[]));
        let spare = service(Some(&first), spec(&[1], &[(2, 1)]));
        assert_eq!((ports(&spare.all), ports(&spare.retained), spare.makeshift), (vec![1], vec![2], false));
        assert!(!spare.all[0].retained && spare.retained[0].retained);
        let used = service(Some(&spare), spec(&[], &[(1, 2), (2, 1)]));
        assert_eq!((ports(&used.all), used.makeshift), (vec![1, 2], true));
        // Their lives go on, there and back.
        let back = service(Some(&used), spec(&[1, 2], &[]));
        assert_eq!((ports(&back.all), ports(&back.retained), back.makeshift), (vec![1, 2], vec![], false));
        for at in [0, 1] {
            assert_eq!(back.all[at].live.id, first.all[at].live.id);
        }
        let same = service(Some(&back), spec(&[1, 2], &[]));
        assert!(Arc::ptr_eq(&same.all, &back.all) && Arc::ptr_eq(&same.retained, &back.retained));
    }

    #[test]
    fn who_cannot_be_connected_to_is_given_up_until_it_vanishes_again() {
        let first = service(None, spec(&[1, 2], &[]));
        let used = service(Some(&first), spec(&[], &[(1, 1), (2, 1)]));
        used.all[0].admit().unwrap().failed(Trouble::Connect);
        used.all[1].admit().unwrap().failed(Trouble::Late);
        let left = service(Some(&used), spec(&[], &[(1, 1), (2, 1)]));
        assert_eq!((ports(&left.all), left.given_up.len()), (vec![2], 1));
        left.all[0].admit().unwrap().failed(Trouble::Connect);
        let none = service(Some(&left), spec(&[], &[(1, 1), (2, 1)]));
        assert_eq!((none.all.len(), none.makeshift, none.given_up.len()), (0, false, 2));
        let again = service(Some(&none), spec(&[1], &[(2, 1)]));
        assert_eq!((ports(&again.all), ports(&again.retained), again.given_up.len()), (vec![1], vec![], 1));
        let vanished = service(Some(&again), spec(&[], &[(1, 5), (2, 1)]));
        assert_eq!(ports(&vanished.all), [1]);
    }
}
