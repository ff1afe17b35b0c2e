//! A circle of hashes on which every endpoint has points; a key belongs to the first point after it.
//!
//! A point is a pure function of its endpoint's address and its number. So each gateway and worker has the same ring,
//! whatever the order of the endpoints, and one that comes or goes moves only the keys that it takes or leaves.

use moongate_plugin::{
    Endpoint,
    hash::{STEP, below, mix, sip},
};

/// Points of a ring, if there are no more endpoints than that. With the rest of the work this takes three of the ten
/// milliseconds that a call may take. Where the endpoints' points are more, each has fewer, in proportion, but one.
const POINTS: u64 = 1 << 17;

/// The lower bits of a point: the place of its endpoint among the owners. The upper ones are its position.
const OWNER: u64 = (1 << 24) - 1;

/// A ring; empty without endpoints.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    /// In order of their positions.
    points: Vec<u64>,
    /// Where in `points` each of equal parts of the circle begins. There are half as many parts as points, so a key's
    /// point is at hand without a search.
    parts: Vec<u32>,
    /// A position shifted right by this is its part.
    shift: u32,
    /// Indices of endpoints, in the order of the hashes of their addresses: of two points at one position, the same comes
    /// first in every gateway.
    owners: Vec<u32>,
}

impl Ring {
    /// A ring of the endpoints of these indices, with so many points for each unit of weight.
    pub(crate) fn new(endpoints: &[Endpoint], indices: &[u32], points: u32) -> Self {
        let seed = |&index: &u32| (sip((0, 0), endpoints[index as usize].address.as_bytes()), index);
        let mut seeds: Vec<(u64, u32)> = indices.iter().map(seed).collect();
        seeds.sort_unstable_by_key(|&(seed, _)| seed);
        let wanted = |index: u32| u64::from(endpoints[index as usize].weight.max(1)) * u64::from(points);
        let total: u64 = indices.iter().map(|&index| wanted(index)).sum();
        let mut unsorted = Vec::with_capacity(total.min(POINTS) as usize);
        for (owner, &(seed, index)) in (0..).zip(&seeds) {
            // Rounded up or down by the seed: if all were rounded alike, all would gain a point at once when one leaves.
            let scaled = || (wanted(index) * POINTS + below(total, mix(seed))) / total;
            let count = if total > POINTS { scaled().max(1) } else { wanted(index) };
            let position = |number: u64| mix(seed.wrapping_add(number.wrapping_mul(STEP)));
            unsorted.extend((1..=count).map(|number| position(number) & !OWNER | owner));
        }
        let Some(bits) = unsorted.len().checked_ilog2() else { return Self::default() };
        let shift = 64 - bits.saturating_sub(1).max(1);
        let (points, parts) = sorted(&unsorted, shift);
        Self { points, parts, shift, owners: seeds.into_iter().map(|(_, index)| index).collect() }
    }

    /// The endpoints of the points from this key on, once around. None follow an empty ring's.
    pub(crate) fn from(&self, key: u64) -> impl Iterator<Item = u32> + Clone + '_ {
        let mut place = self.parts.get((key >> self.shift) as usize).map_or(0, |&begin| begin as usize);
        while self.points.get(place).is_some_and(|&point| point < key & !OWNER) {
            place += 1;
        }
        let (before, after) = self.points.split_at(place);
        after.iter().chain(before).map(|point| self.owners[(point & OWNER) as usize])
    }
}

/// The points in order, and where each part begins. By counting: to compare them takes several times as long, and the
/// code that `sort_unstable` has for numbers is a fifth of this plugin.
fn sorted(points: &[u64], shift: u32) -> (Vec<u64>, Vec<u32>) {
    let part = |point: u64| (point >> shift) as usize;
    let mut begins = vec![0u32; 1 << (64 - shift)];
    points.iter().for_each(|&point| begins[part(point)] += 1);
    let mut sum = 0;
    for begin in &mut begins {
        sum += std::mem::replace(begin, sum);
    }
    let mut free = begins.clone();
    let mut sorted = vec![0; points.len()];
    for &point in points {
        let place = &mut free[part(point)];
        sorted[*place as usize] = point;
        *place += 1;
    }
    // Each part is in its place; what is left is to sort the few points in it, which goes by inserting each.
    for (&begin, &end) in begins.iter().zip(&free) {
        for next in begin as usize + 1..end as usize {
            let mut place = next;
            while place > begin as usize && sorted[place - 1] > sorted[place] {
                sorted.swap(place - 1, place);
                place -= 1;
            }
        }
    }
    (sorted, begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint((address, weight): (usize, u32)) -> Endpoint {
        Endpoint { address: format!("10.0.0.{address}:80"), weight, zone: String::new(), labels: vec![] }
    }

    fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
        weights.iter().copied().enumerate().map(endpoint).collect()
    }

    fn ring(endpoints: &[Endpoint], points: u32) -> Ring {
        Ring::new(endpoints, &(0..endpoints.len() as u32).collect::<Vec<_>>(), points)
    }

    fn owner<'a>(endpoints: &'a [Endpoint], ring: &Ring, key: u64) -> &'a str {
        &endpoints[ring.from(key).next().unwrap() as usize].address
    }

    /// Keys as the gateway's hash makes them.
    fn keys(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(mix)
    }

    #[test]
    fn points_are_in_order_and_a_key_finds_the_next() {
        for (count, points) in [(1, 1), (1, 2), (3, 1), (7, 160)] {
            let ring = ring(&endpoints(&vec![1; count]), points);
            assert_eq!(ring.points.len(), count * points as usize);
            assert!(ring.points.is_sorted());
            for key in keys(1000).chain([0, u64::MAX]) {
                let place = ring.points.partition_point(|&point| point < key & !OWNER) % ring.points.len();
                let expected = ring.owners[(ring.points[place] & OWNER) as usize];
                assert_eq!(ring.from(key).next(), Some(expected));
                assert_eq!(ring.from(key).count(), ring.points.len());
            }
        }
        assert_eq!(ring(&[], 160).from(9).next(), None);
    }

    #[test]
    fn only_the_keys_of_the_one_that_left_move() {
        for count in [2, 3, 10, 50, 200] {
            let before = endpoints(&vec![1; count]);
            for left in [0, count / 2, count - 1] {
                let mut after = before.clone();
                let gone = after.remove(left).address;
                let (old, new) = (ring(&before, 160), ring(&after, 160));
                let mut moved = 0;
                for key in keys(10_000) {
                    let (was, is) = (owner(&before, &old, key), owner(&after, &new, key));
                    moved += u32::from(was != is);
                    assert!(was == is || was == gone, "{was} has its keys still");
                }
                assert!(f64::from(moved) <= 10_000.0 * (1.0 / count as f64 + 0.05), "{count}: {moved}");
                assert!(moved > 0);
            }
        }
    }

    #[test]
    fn keys_are_spread_by_weight() {
        for weights in [vec![1; 3], vec![1; 50], vec![1, 2, 5, 3, 3]] {
            let endpoints = endpoints(&weights);
            let ring = ring(&endpoints, 160);
            let mut counts = vec![0u32; weights.len()];
            keys(100_000).for_each(|key| counts[ring.from(key).next().unwrap() as usize] += 1);
            for (&count, &weight) in counts.iter().zip(&weights) {
                let due = 100_000.0 * f64::from(weight) / f64::from(weights.iter().sum::<u32>());
                assert!((f64::from(count) / due - 1.0).abs() < 0.3, "{weights:?} {counts:?}");
            }
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let list = endpoints(&[1, 2, 3, 4, 5]);
        let mut reversed = list.clone();
        reversed.reverse();
        let (one, other) = (ring(&list, 160), ring(&reversed, 160));
        assert!(keys(1000).all(|key| owner(&list, &one, key) == owner(&reversed, &other, key)));
    }

    #[test]
    fn a_large_ring_has_fewer_points_for_each_and_stays_consistent() {
        let before = endpoints(&[[1; 5], [9; 5]].concat().repeat(400));
        let old = ring(&before, 160);
        assert!(old.points.len().abs_diff(POINTS as usize) < 1000, "{}", old.points.len());
        let after = &before[..3999];
        let new = ring(after, 160);
        let moved = keys(10_000).filter(|&key| owner(&before, &old, key) != owner(after, &new, key)).count();
        assert!(moved < 100, "{moved}");
        let uneven = ring(&endpoints(&[65_535, 65_535, 1]), 1024);
        assert!((0..3).all(|index| uneven.from(0).any(|it| it == index)), "the lightest has a point too");
    }
}
