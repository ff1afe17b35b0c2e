//! Which endpoint takes a request: the balancer's word, and what happens when it has none.

use std::net::IpAddr;
use std::sync::Arc;

use super::Worker;
use crate::config::BalancerFailure;
use crate::endpoint::{Endpoint, Endpoints};
use crate::error::RequestError;
use crate::message::RequestHead;
use crate::plugin::{Failure, instance::Turn};
use crate::routes::Route;
use crate::snapshot::Snapshot;

/// The endpoint for this attempt, with its index. `tried`: the indices of those that failed before.
///
/// # Errors
/// If there is no endpoint, or the balancer failed and `on_failure` says `reject`.
pub fn endpoint(
    worker: &Worker,
    snapshot: &Snapshot,
    route: &Route,
    endpoints: &Arc<Endpoints>,
    head: &mut RequestHead,
    client: IpAddr,
    tried: &[u32],
) -> Result<(u32, Arc<Endpoint>), RequestError> {
    if endpoints.is_empty() {
        return Err(RequestError::NoEndpoint);
    }
    let binding = &route.balancer.binding;
    let sequence = binding.count();
    let turn = Turn { sequence, attempt: tried.len() as u32, tried, client };
    let picked = match snapshot.plugins.get(binding.slot) {
        Some(plugin) => worker.plugins.borrow_mut().pick(plugin, binding, endpoints, head, turn),
        None => Err(Failure::Missing),
    };
    let index = match picked {
        Ok(Some(index)) if !tried.contains(&index) => index,
        // No opinion, or one that has already failed.
        Ok(_) => native(endpoints, sequence, tried),
        Err(failure) => {
            worker.complain(&binding.plugin, &failure);
            match route.balancer.on_failure {
                BalancerFailure::Fallback => {
                    worker.metrics.fell_back();
                    native(endpoints, sequence, tried)
                }
                BalancerFailure::Reject => {
                    return Err(RequestError::Plugin { name: binding.plugin.clone(), failure });
                }
            }
        }
    };
    // Both ways of choosing stay inside the list.
    Ok((index, endpoints[index as usize].clone()))
}

/// Round robin over the endpoints that were not tried and have a weight; over all that were not tried if none has.
/// The list is not empty, and not all of it was tried.
pub fn native(endpoints: &[Arc<Endpoint>], sequence: u64, tried: &[u32]) -> u32 {
    let untried = |index: &u32| !tried.contains(index);
    let weighted = |index: &u32| endpoints[*index as usize].spec.weight > 0;
    let all = 0..endpoints.len() as u32;
    let nth = |count: usize| (sequence % count.max(1) as u64) as usize;
    let count = all.clone().filter(untried).filter(weighted).count();
    if count > 0 {
        return all.filter(untried).filter(weighted).nth(nth(count)).unwrap_or(0);
    }
    let count = all.clone().filter(untried).count();
    all.filter(untried).nth(nth(count)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;

    fn endpoints(weights: &[u16]) -> Endpoints {
        let endpoint = |(port, weight): (usize, &u16)| registry::Endpoint {
            address: ([127, 0, 0, 1], port as u16).into(),
            scheme: registry::Scheme::Http,
            weight: *weight,
            zone: "".into(),
            labels: Vec::new(),
        };
        let endpoints = weights.iter().enumerate().map(endpoint).collect();
        Endpoints::following(None, &registry::Service { endpoints })
    }

    #[test]
    fn the_fallback_goes_round_what_is_left() {
        let picks = |weights: &[u16], tried: &[u32]| -> Vec<u32> {
            let endpoints = endpoints(weights);
            (0..4).map(|sequence| native(&endpoints, sequence, tried)).collect()
        };
        assert_eq!(picks(&[1, 1, 1], &[]), [0, 1, 2, 0]);
        assert_eq!(picks(&[1, 1, 1], &[1]), [0, 2, 0, 2]);
        assert_eq!(picks(&[1, 0, 5], &[]), [0, 2, 0, 2]);
        assert_eq!(picks(&[1, 0, 0], &[0]), [1, 2, 1, 2]);
        assert_eq!(picks(&[0, 0], &[]), [0, 1, 0, 1]);
    }
}
