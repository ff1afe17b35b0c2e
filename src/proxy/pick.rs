//! Which endpoint takes a request: the balancer's word, and what happens when it has none.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::Worker;
use crate::config::BalancerFailure;
use crate::endpoint::standing::Warming;
use crate::endpoint::{Endpoint, Endpoints, InFlight};
use crate::error::RequestError;
use crate::message::RequestHead;
use crate::plugin::canary::Canary;
use crate::plugin::{Failure, instance::Turn};
use crate::routes::{Route, Use};
use crate::snapshot::{Service, Snapshot};

/// Where a request has been already, or could not go.
#[derive(Debug, Default)]
pub struct Tried {
    /// Indices of candidates.
    listed: Vec<u32>,
    /// The one of the attempt under way: most requests need no second, and then nothing is allocated.
    latest: Option<u32>,
    /// Endpoints that are no candidates, by their `Live::id`.
    others: Vec<u64>,
    /// How often it was sent somewhere, or that was tried.
    attempts: u32,
    /// The canaries that had a say.
    pub canaries: Vec<Arc<Canary>>,
    /// Whose word the latest attempt was.
    by: By,
    /// How many picks there were before the latest attempt.
    sequence: u64,
}

/// Whose word a pick was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum By {
    /// The gateway's own round robin: no balancer has said anything, or what it said was not to be.
    #[default]
    Native,
    /// This of the route's balancers.
    Balancer(usize),
    /// What is tried in its place.
    Canary(usize),
}

impl Tried {
    /// Whether there is an endpoint left for another attempt. After a failure those count that are no candidates, too:
    /// better one that is in doubt than no answer.
    pub fn another(&self, service: &Service) -> bool {
        let gone = self.listed.len() + usize::from(self.latest.is_some()) + self.others.len();
        gone < service.all.len()
    }

    /// Attempts that were more than a look at a limit.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whose word the latest attempt was: the plugin and the beginning of its hash, which is empty for the gateway's own
    /// round robin.
    pub fn decided<'a>(&self, route: &'a Route, snapshot: &'a Snapshot) -> (&'a str, &'a str) {
        let binding = match self.by {
            By::Native => None,
            By::Balancer(place) => route.balancers.get(place).map(|it| &it.binding),
            By::Canary(place) => route.balancers.get(place).and_then(|it| Some(&it.canary.as_ref()?.binding)),
        };
        let Some(binding) = binding else { return ("native", "") };
        let plugin = snapshot.plugins.get(binding.slot);
        (&binding.plugin, plugin.and_then(|it| it.described.sha256.get(..8)).unwrap_or_default())
    }

    /// How many picks the balancer had before the latest attempt.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The latest attempt came to nothing because of a limit: it does not count as one.
    pub fn refused(&mut self) {
        self.attempts -= 1;
    }
}

/// The endpoint for this attempt, with room for the request.
///
/// An endpoint at a limit counts as tried.
///
/// # Errors
/// If there is no endpoint, none with room, or the balancer failed and `on_failure` says `reject`.
pub fn endpoint(
    worker: &Worker,
    snapshot: &Snapshot,
    route: &Route,
    service: &Service,
    head: &mut RequestHead,
    client: IpAddr,
    tried: &mut Tried,
) -> Result<InFlight, RequestError> {
    tried.listed.extend(tried.latest.take());
    let endpoints = &service.endpoints;
    let sequence = route.balancers.first().map_or(0, |it| it.binding.count());
    (tried.by, tried.sequence) = (By::Native, sequence);
    let mut picked = None;
    if tried.listed.len() < endpoints.len() {
        let turn = Turn { sequence, attempt: tried.listed.len() as u32, tried: &tried.listed, client };
        for (place, used) in route.balancers.iter().enumerate() {
            // Each that is asked has a sequence of its own, or shares would show in it.
            let sequence = if place == 0 { sequence } else { used.binding.count() };
            let turn = Turn { sequence, ..turn };
            let before = tried.canaries.len();
            picked = balancer(worker, snapshot, used, endpoints, head, turn, &mut tried.canaries)?;
            if picked.is_some() {
                tried.by = if tried.canaries.len() > before { By::Canary(place) } else { By::Balancer(place) };
                break;
            }
        }
    }
    let first = tried.attempts == 0;
    let usable = |index: &u32| !tried.listed.contains(index) && (first || !endpoints[*index as usize].live.out());
    // No opinion, one that has failed already, or one that a retry had better not go to.
    let mut next = picked.filter(usable);
    if next.is_none() {
        tried.by = By::Native;
        next = native(endpoints, sequence, &tried.listed);
    }
    if let (Some(index), Some(warming)) = (next, &service.warming) {
        next = Some(hand_on(endpoints, warming, index, sequence, &tried.listed));
    }
    while let Some(index) = next {
        // Both ways of choosing stay inside the list.
        if let Some(room) = endpoints[index as usize].admit() {
            tried.latest = Some(index);
            tried.attempts += 1;
            return Ok(room);
        }
        tried.listed.push(index);
        tried.by = By::Native;
        next = native(endpoints, sequence, &tried.listed);
    }
    if !first && let Some(room) = last_resort(service, tried) {
        return Ok(room);
    }
    Err(if endpoints.is_empty() { RequestError::NoEndpoint } else { RequestError::Overloaded })
}

/// A warming endpoint takes its share of what is meant for it, whichever balancer meant it; the rest goes round those
/// that are not warming. Not by chance: of ten requests, an endpoint with a share of 30 % takes exactly three.
fn hand_on(endpoints: &[Arc<Endpoint>], warming: &Warming, index: u32, sequence: u64, tried: &[u32]) -> u32 {
    let now = Instant::now();
    let Some(share) = warming.share(index, now) else { return index };
    if endpoints[index as usize].live.takes(share) {
        return index;
    }
    let all = 0..endpoints.len() as u32;
    let not: Vec<u32> = all.filter(|it| tried.contains(it) || warming.share(*it, now).is_some()).collect();
    native(endpoints, sequence, &not).unwrap_or(index)
}

/// The balancer's word, if it has one. `canaries`: those that decide something of this request.
fn balancer(
    worker: &Worker,
    snapshot: &Snapshot,
    used: &Use<BalancerFailure>,
    endpoints: &Arc<Endpoints>,
    head: &mut RequestHead,
    turn: Turn<'_>,
    canaries: &mut Vec<Arc<Canary>>,
) -> Result<Option<u32>, RequestError> {
    if let Some(canary) = &used.canary
        && let Some(plugin) = snapshot.plugins.get(canary.binding.slot)
        && canary.takes(plugin.id)
    {
        let turn = Turn { sequence: canary.binding.count(), ..turn };
        let picked = worker.plugins.borrow_mut().pick(plugin, &canary.binding, endpoints, head, turn);
        canary.called(picked.is_err());
        match picked {
            Ok(picked) => {
                picked.iter().for_each(|it| canary.picked(endpoints[*it as usize].live.id, endpoints.len()));
                canaries.push(canary.clone());
                return Ok(picked);
            }
            // The version that it stands in for decides then.
            Err(failure) => worker.complain(&canary.binding.plugin, &failure),
        }
    }
    let binding = &used.binding;
    let picked = match snapshot.plugins.get(binding.slot) {
        Some(plugin) => worker.plugins.borrow_mut().pick(plugin, binding, endpoints, head, turn),
        None => Err(Failure::Missing),
    };
    if let (Some(shadow), Ok(picked)) = (&used.shadow, &picked) {
        let turn = Turn { sequence: shadow.binding.count(), ..turn };
        let own = match snapshot.plugins.get(shadow.binding.slot) {
            Some(plugin) => worker.plugins.borrow_mut().pick(plugin, &shadow.binding, endpoints, head, turn),
            None => Err(Failure::Missing),
        };
        shadow.compared(*picked, own);
    }
    picked.or_else(|failure| {
        worker.complain(&binding.plugin, &failure);
        match used.on_failure {
            BalancerFailure::Fallback => {
                worker.metrics.fell_back();
                Ok(None)
            }
            BalancerFailure::Reject => Err(RequestError::Plugin { name: binding.plugin.clone(), failure }),
        }
    })
}

/// Round robin over the endpoints that were not tried and have a weight; over all that were not tried if none has.
/// Where something was tried, those that the control side advises against come last. None if all were tried.
pub fn native(endpoints: &[Arc<Endpoint>], sequence: u64, tried: &[u32]) -> Option<u32> {
    let untried = |index: &u32| !tried.contains(index);
    let weighted = |index: &u32| endpoints[*index as usize].spec.weight > 0;
    let good = |index: &u32| tried.is_empty() || !endpoints[*index as usize].live.out();
    let nth = |filter: &dyn Fn(&u32) -> bool| {
        let some = || (0..endpoints.len() as u32).filter(|it| untried(it) && filter(it));
        let count = some().count() as u64;
        some().nth(sequence.checked_rem(count)? as usize)
    };
    nth(&|it| weighted(it) && good(it)).or_else(|| nth(&good)).or_else(|| nth(&weighted)).or_else(|| nth(&|_| true))
}

/// An endpoint that is no candidate, for a request that has failed at all that are.
fn last_resort(service: &Service, tried: &mut Tried) -> Option<InFlight> {
    for endpoint in service.all.iter() {
        let id = endpoint.live.id;
        if service.endpoints.has(endpoint) || tried.others.contains(&id) {
            continue;
        }
        tried.others.push(id);
        if let Some(room) = endpoint.admit() {
            tried.attempts += 1;
            return Some(room);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::upstream::Settings;
    use crate::endpoint::tests::many;

    fn picks(endpoints: &Endpoints, tried: &[u32]) -> Vec<u32> {
        (0..4).map(|sequence| native(endpoints, sequence, tried).unwrap()).collect()
    }

    #[test]
    fn the_fallback_goes_round_what_is_left() {
        let picks = |weights: &[u16], tried: &[u32]| picks(&many(Settings::default(), weights), tried);
        assert_eq!(picks(&[1, 1, 1], &[]), [0, 1, 2, 0]);
        assert_eq!(picks(&[1, 1, 1], &[1]), [0, 2, 0, 2]);
        assert_eq!(picks(&[1, 0, 5], &[]), [0, 2, 0, 2]);
        assert_eq!(picks(&[1, 0, 0], &[0]), [1, 2, 1, 2]);
        assert_eq!(picks(&[0, 0], &[]), [0, 1, 0, 1]);
        assert_eq!(native(&many(Settings::default(), &[1, 1]), 0, &[1, 0]), None);
    }

    #[test]
    fn a_retry_goes_to_those_in_doubt_last() {
        let endpoints = many(Settings::default(), &[1, 1, 1, 0]);
        for _ in 0..5 {
            endpoints[1].admit().unwrap().failed(crate::endpoint::Trouble::Connect);
        }
        let mut standing = crate::endpoint::standing::Standing::default();
        standing.judge(&endpoints[1], None, crate::endpoint::standing::Moment::now());
        assert_eq!(picks(&endpoints, &[]), [0, 1, 2, 0], "at first they are all equal");
        assert_eq!(picks(&endpoints, &[0]), [2, 2, 2, 2]);
        assert_eq!(picks(&endpoints, &[0, 2]), [3, 3, 3, 3], "none is meant to, and this one is well");
        assert_eq!(picks(&endpoints, &[0, 2, 3]), [1, 1, 1, 1]);
    }
}
