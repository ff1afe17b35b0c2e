//! Which endpoints of a service are candidates for requests, from one snapshot to the next, and what is logged of it.
//!
//! The rules are in [`crate::endpoint::standing`]; here they are applied to a whole service.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::endpoint::standing::{Candidates, Change, Moment, Standing, Unhealthy, Verdicts, Warming, candidates};
use crate::endpoint::{Endpoint, Endpoints};
use crate::snapshot::Service;

/// What [`super::Publisher`] puts into a [`Service`].
pub(super) struct Members {
    /// See [`Service::endpoints`].
    pub(super) endpoints: Arc<Endpoints>,
    /// See [`Service::standings`].
    pub(super) standings: FxHashMap<u64, Standing>,
    /// See [`Service::panic`].
    pub(super) panic: bool,
    /// See [`Service::warming`].
    pub(super) warming: Option<Warming>,
}

/// Whether [`judge`] would find anything else now than what is published.
pub(super) fn outdated(service: &Service, verdicts: &Verdicts, now: Moment) -> bool {
    let nothing = Standing::default();
    service.all.iter().any(|endpoint| {
        let id = endpoint.live.id;
        let standing = service.standings.get(&id).unwrap_or(&nothing);
        endpoint.retained && endpoint.live.unreachable()
            || standing.outdated(endpoint, verdict(endpoint, verdicts), now.instant)
    })
}

/// Looks at all endpoints of a service, of which `known` is what was published last.
pub(super) fn judge(
    name: &str,
    known: Option<&Service>,
    all: &Arc<Endpoints>,
    verdicts: &Verdicts,
    now: Moment,
) -> Members {
    let mut standings = FxHashMap::default();
    for endpoint in all.iter() {
        let id = endpoint.live.id;
        let before = known.and_then(|known| known.standings.get(&id));
        let mut standing = before.cloned().unwrap_or_default();
        // Whoever comes when others are there already is new; where all are, they are equals.
        let joins = known
            .is_some_and(|known| !known.all.is_empty() && !known.all.has(endpoint) && !known.retained.has(endpoint));
        if joins {
            standing.warm_up(endpoint.settings.slow_start, now.instant);
        }
        let changes = standing.judge(endpoint, verdict(endpoint, verdicts), now);
        changes.iter().for_each(|change| tell(name, endpoint, change));
        if !standing.is_default() {
            standings.insert(id, standing);
        }
    }

    let standing = |at: usize| standings.get(&all[at].live.id);
    let good = |at| standing(at).is_none_or(Standing::good);
    let only_ejected = |at| standing(at).is_some_and(|it| it.ejected.is_some() && it.unhealthy.is_none());
    let Candidates { chosen, panic } = candidates(all, good, only_ejected);
    match (known.is_some_and(|known| known.panic), panic) {
        (false, true) => tracing::warn!(service = name, endpoints = all.len(), "too few endpoints are well, using all"),
        (true, false) => tracing::info!(service = name, endpoints = chosen.len(), "enough endpoints are well again"),
        _ => {}
    }
    let endpoints = match known {
        // The same list has the same version, and no balancer needs to be told.
        Some(known) if known.endpoints.is_of(all, &chosen) => known.endpoints.clone(),
        _ if chosen.len() == all.len() => all.clone(),
        _ => Arc::new(all.some(&chosen)),
    };
    let slow_start = all.first().map_or_else(Default::default, |it| it.settings.slow_start);
    let warming = Warming::of(chosen.iter().map(|at| standing(*at)), slow_start);
    Members { endpoints, standings, panic, warming }
}

/// What the checks say against an endpoint, if it is checked.
fn verdict<'a>(endpoint: &Endpoint, verdicts: &'a Verdicts) -> Option<&'a Unhealthy> {
    endpoint.settings.health_check.as_ref()?;
    verdicts.get(&endpoint.live.id)
}

fn tell(service: &str, endpoint: &Endpoint, change: &Change) {
    let endpoint = endpoint.spec.address;
    match change {
        Change::Ejected(reason, length) => {
            tracing::warn!(service, %endpoint, %reason, ?length, "endpoint ejected");
        }
        Change::Returned(reason) => tracing::info!(service, %endpoint, reason, "endpoint back"),
        Change::Unhealthy(reason) => tracing::warn!(service, %endpoint, %reason, "endpoint unhealthy"),
        Change::Healthy => tracing::info!(service, %endpoint, "endpoint healthy"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::upstream::Settings;
    use crate::endpoint::Trouble;
    use crate::endpoint::budget::Budget;
    use crate::endpoint::tests::many;

    fn service(all: &Arc<Endpoints>, members: Members) -> Service {
        let Members { endpoints, standings, panic, warming } = members;
        let settings = Arc::new(Settings::default());
        let budget = Arc::new(Budget::new(&settings.retry_budget, Moment::now().instant));
        let (name, spec) = ("s".into(), Arc::default());
        let all = all.clone();
        Service {
            name,
            spec,
            registry: None,
            all,
            retained: Arc::new(many(Settings::default(), &[])),
            given_up: Vec::new(),
            makeshift: false,
            endpoints,
            standings,
            panic,
            warming,
            settings,
            budget,
            connector: crate::tls::Connector::load("test", &Default::default()).ok().unwrap().0,
            implicit: None,
            series: 0,
        }
    }

    fn fail(endpoint: &Arc<Endpoint>) {
        (0..5).for_each(|_| endpoint.admit().unwrap().failed(Trouble::Late));
    }

    #[test]
    fn an_ejected_endpoint_leaves_the_list_and_comes_back_to_it() {
        let (verdicts, now) = (Verdicts::default(), Moment::now());
        let all = Arc::new(many(Settings::default(), &[1, 1, 1]));
        let first = service(&all, judge("s", None, &all, &verdicts, now));
        assert!(Arc::ptr_eq(&first.endpoints, &all) && !outdated(&first, &verdicts, now));

        fail(&all[1]);
        assert!(outdated(&first, &verdicts, now));
        let second = service(&all, judge("s", Some(&first), &all, &verdicts, now));
        assert_eq!((second.endpoints.len(), second.all.len(), second.panic), (2, 3, false));
        assert!(!outdated(&second, &verdicts, now));
        let third = service(&all, judge("s", Some(&second), &all, &verdicts, now));
        assert!(Arc::ptr_eq(&third.endpoints, &second.endpoints), "nothing changed, so neither does the version");

        fail(&all[0]);
        let panicking = service(&all, judge("s", Some(&third), &all, &verdicts, now));
        assert_eq!((panicking.endpoints.len(), panicking.panic), (3, true));

        let later = Moment { instant: now.instant + Duration::from_secs(10), ..now };
        assert!(outdated(&panicking, &verdicts, later));
        let last = service(&all, judge("s", Some(&panicking), &all, &verdicts, later));
        assert_eq!((last.endpoints.len(), last.panic), (3, false));
    }

    #[test]
    fn verdicts_count_only_where_there_are_checks() {
        let now = Moment::now();
        let unchecked = Arc::new(many(Settings::default(), &[1, 1]));
        let settings = Settings { health_check: Some(Default::default()), ..Settings::default() };
        let checked = Arc::new(many(settings, &[1, 1]));
        let unhealthy = Unhealthy { since: now.wall, reason: "no".into() };
        let ids = [&unchecked, &checked].map(|it| it[0].live.id);
        let verdicts: Verdicts = ids.into_iter().map(|id| (id, unhealthy.clone())).collect();
        assert_eq!(judge("s", None, &unchecked, &verdicts, now).endpoints.len(), 2);
        let members = judge("s", None, &checked, &verdicts, now);
        assert_eq!(members.endpoints.len(), 1);
        assert_eq!(members.endpoints[0].live.id, checked[1].live.id);
    }

    #[test]
    fn who_joins_others_warms_up() {
        let (verdicts, now) = (Verdicts::default(), Moment::now());
        let settings = Settings { slow_start: Duration::from_secs(10), ..Settings::default() };
        let all = Arc::new(many(settings.clone(), &[1, 1, 1]));
        let two = Arc::new(all.some(&[0, 2]));
        let empty = Arc::new(all.some(&[]));
        let nobody = service(&empty, judge("s", None, &empty, &verdicts, now));
        assert_eq!(judge("s", Some(&nobody), &two, &verdicts, now).warming, None);
        let first = judge("s", None, &two, &verdicts, now);
        assert_eq!(first.warming, None);
        let first = service(&two, first);
        let warming = judge("s", Some(&first), &all, &verdicts, now).warming.unwrap();
        let share = |index| warming.share(index, now.instant + Duration::from_secs(5));
        assert_eq!([share(0), share(1), share(2)], [None, Some(32768), None]);
    }
}
