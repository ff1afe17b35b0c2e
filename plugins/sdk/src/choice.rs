//! What balancers share: one turn of picking, which endpoints may be picked, and how a retry goes round those
//! that already failed.

use crate::{Endpoint, endpoints};

/// One pick.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// How many picks this use has had, over all workers and versions: round robin is `sequence % count`.
    pub sequence: u64,
    /// A fresh random number.
    pub random: u64,
    /// 0; 1, 2, … for retries.
    pub attempt: u32,
}

impl Turn {
    /// True if this request already failed at the endpoint of this index.
    pub fn tried(&self, index: u32) -> bool {
        self.attempt > 0 && endpoints::tried(index)
    }

    /// The endpoint at `start` of `choices`, or the next one round from there that this request has not failed at;
    /// the one at `start` if it failed at all of them. None only if there are no choices.
    pub fn untried_from(&self, choices: &[u32], start: usize) -> Option<u32> {
        untried_from(choices, start, |index| self.tried(index))
    }

    /// The first of `candidates` that this request has not failed at; the first of all if it failed at all of them.
    /// None only if there are no candidates. They may name an endpoint many times.
    pub fn untried(&self, candidates: impl IntoIterator<Item = u32>) -> Option<u32> {
        untried(candidates, |index| self.tried(index))
    }
}

/// The indices of the endpoints that may be picked: all but those of weight 0, unless every weight is 0.
pub fn eligible(endpoints: &[Endpoint]) -> Vec<u32> {
    let all = || (0..).zip(endpoints);
    let weighted: Vec<u32> = all().filter(|(_, endpoint)| endpoint.weight > 0).map(|(index, _)| index).collect();
    if weighted.is_empty() { all().map(|(index, _)| index).collect() } else { weighted }
}

fn untried_from(choices: &[u32], start: usize, tried: impl Fn(u32) -> bool) -> Option<u32> {
    let (before, from) = choices.split_at_checked(start)?;
    untried(from.iter().chain(before).copied(), tried)
}

fn untried(candidates: impl IntoIterator<Item = u32>, tried: impl Fn(u32) -> bool) -> Option<u32> {
    // A list may name an endpoint many times; each one that was tried costs one call of the host, not one a place.
    let mut failed = Vec::new();
    for index in candidates {
        if failed.contains(&index) {
            continue;
        }
        if !tried(index) {
            return Some(index);
        }
        failed.push(index);
    }
    failed.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
        let endpoint = |&weight| Endpoint { address: String::new(), weight, zone: String::new(), labels: vec![] };
        weights.iter().map(endpoint).collect()
    }

    #[test]
    fn weight_0_counts_only_where_every_weight_is_0() {
        assert!(eligible(&endpoints(&[])).is_empty());
        assert_eq!(eligible(&endpoints(&[1, 0, 7])), [0, 2]);
        assert_eq!(eligible(&endpoints(&[0, 0])), [0, 1]);
    }

    #[test]
    fn a_retry_goes_on_to_the_next_endpoint_not_tried() {
        assert_eq!(untried_from(&[4, 5, 6], 1, |_| false), Some(5));
        assert_eq!(untried_from(&[4, 5, 6], 2, |index| index == 6), Some(4));
        assert_eq!(untried_from(&[4, 4, 5, 4, 6], 0, |index| index != 6), Some(6));
        assert_eq!(untried_from(&[4, 5, 6], 1, |_| true), Some(5), "all failed: as if it were the first attempt");
        assert_eq!(untried_from(&[], 0, |_| false), None);
        assert_eq!(untried([7, 7, 3], |index| index == 7), Some(3));
        assert_eq!(untried([], |_| true), None);
    }
}
