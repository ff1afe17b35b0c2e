//! Drawing endpoints by weight, and the best of a few of them.

use crate::hash::{STEP, below, mix};
use crate::{Endpoint, Turn};

/// Endpoints to draw from. Each is drawn in proportion to its weight; those of weight 0 count as 1, so leave them out
/// where others have more ([`eligible`](crate::eligible)).
#[derive(Debug, Default)]
pub struct Draw {
    indices: Vec<u32>,
    /// Where the share of each in `0..total` ends; empty if all weights are alike.
    ends: Vec<u64>,
    total: u64,
}

impl Draw {
    /// To draw from the endpoints of these indices.
    pub fn new(endpoints: &[Endpoint], indices: Vec<u32>) -> Self {
        let weight = |&index: &u32| u64::from(endpoints[index as usize].weight.max(1));
        let mut weights = indices.iter().map(weight);
        let first = weights.next();
        if weights.all(|weight| Some(weight) == first) {
            let total = indices.len() as u64;
            return Self { indices, ends: Vec::new(), total };
        }
        let mut total = 0;
        let end = |index| {
            total += weight(index);
            total
        };
        let ends = indices.iter().map(end).collect();
        Self { indices, ends, total }
    }

    /// The endpoints, in the order in which they were given.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// Of so many endpoints the one of the least cost; 0, or as many as there are: of all. The cost is asked by index
    /// and weight; that is relative to the mean, so 1 if all are alike. None if the request failed at all of them.
    ///
    /// Two choices instead of one already make the longest queue exponentially shorter, and hold for figures that are a
    /// little old, where looking at all would send everybody to the same endpoint (Mitzenmacher, "The Power of Two
    /// Choices in Randomized Load Balancing", 2001). The first choice goes round by `turn.sequence`, in proportion to the
    /// weights, and is taken unless another costs less: endpoints that are equally good take turns. The others are
    /// random.
    pub fn least<C: PartialOrd>(&self, turn: Turn, choices: u32, cost: impl FnMut(u32, f64) -> C) -> Option<u32> {
        self.least_untried(turn, choices, |index| turn.tried(index), cost)
    }

    fn least_untried<C: PartialOrd>(
        &self,
        turn: Turn,
        choices: u32,
        tried: impl Fn(u32) -> bool,
        mut cost: impl FnMut(u32, f64) -> C,
    ) -> Option<u32> {
        let count = self.indices.len();
        let first = self.turn_of(turn.sequence)?;
        let mut best: Option<(usize, C)> = None;
        let mut consider = |best: &mut Option<(usize, C)>, place: usize| {
            let index = self.indices[place];
            if tried(index) {
                return;
            }
            let cost = cost(index, self.weight(place));
            if best.as_ref().is_none_or(|(_, least)| cost < *least) {
                *best = Some((place, cost));
            }
        };
        if choices == 0 || choices as usize >= count {
            (first..count).chain(0..first).for_each(|place| consider(&mut best, place));
        } else {
            consider(&mut best, first);
            let mut state = turn.random;
            for _ in 1..choices {
                state = state.wrapping_add(STEP);
                let place = self.other_than(best.as_ref().map_or(first, |(place, _)| *place), mix(state));
                consider(&mut best, place);
            }
        }
        match best {
            Some((place, _)) => Some(self.indices[place]),
            // All that were drawn have failed: then the next one round.
            None => self.indices[first..].iter().chain(&self.indices[..first]).copied().find(|&index| !tried(index)),
        }
    }

    /// Whose turn it is. By weight the turns are spread evenly too: multiples of the golden ratio never bunch.
    fn turn_of(&self, sequence: u64) -> Option<usize> {
        if self.ends.is_empty() {
            return sequence.checked_rem(self.total).map(|place| place as usize);
        }
        Some(self.at(below(self.total, sequence.wrapping_mul(STEP))))
    }

    /// Another than this one, by weight; this one if there is no other.
    fn other_than(&self, place: usize, random: u64) -> usize {
        let begin = if place == 0 { 0 } else { self.end(place - 1) };
        let width = self.end(place) - begin;
        let drawn = below(self.total - width, random);
        self.at(if drawn < begin { drawn } else { drawn + width })
    }

    fn end(&self, place: usize) -> u64 {
        self.ends.get(place).copied().unwrap_or(place as u64 + 1)
    }

    fn at(&self, share: u64) -> usize {
        if self.ends.is_empty() {
            return (share as usize).min(self.indices.len() - 1);
        }
        self.ends.partition_point(|&end| end <= share).min(self.indices.len() - 1)
    }

    /// The weight divided by the mean.
    fn weight(&self, place: usize) -> f64 {
        if self.ends.is_empty() {
            return 1.0;
        }
        let begin = if place == 0 { 0 } else { self.ends[place - 1] };
        (self.ends[place] - begin) as f64 * self.indices.len() as f64 / self.total as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eligible;

    fn draw(weights: &[u32]) -> Draw {
        let endpoint = |&weight| Endpoint { address: String::new(), weight, zone: String::new(), labels: vec![] };
        let endpoints: Vec<_> = weights.iter().map(endpoint).collect();
        Draw::new(&endpoints, eligible(&endpoints))
    }

    fn turn(sequence: u64) -> Turn {
        Turn { sequence, random: mix(sequence), attempt: 0 }
    }

    /// How often each is picked if all cost the same.
    fn idle(weights: &[u32], choices: u32, picks: u64) -> Vec<u32> {
        let draw = draw(weights);
        let mut counts = vec![0; weights.len()];
        for sequence in 0..picks {
            counts[draw.least_untried(turn(sequence), choices, |_| false, |_, _| 0).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn equally_good_endpoints_take_turns() {
        for choices in [0, 1, 2, 3, 32] {
            assert_eq!(idle(&[1, 1, 0, 1], choices, 300), [100, 100, 0, 100], "{choices}");
            assert_eq!(idle(&[0, 0], choices, 4), [2, 2], "{choices}");
        }
    }

    #[test]
    fn weights_are_shares() {
        for choices in [0, 1, 2, 32] {
            let counts = idle(&[6, 3, 0, 1], choices, 10_000);
            for (count, due) in counts.iter().zip([6000u32, 3000, 0, 1000]) {
                assert!(count.abs_diff(due) <= 10, "{choices}: {counts:?}");
            }
        }
    }

    #[test]
    fn the_least_of_those_drawn_is_picked() {
        let four = draw(&[1, 1, 1, 1]);
        let costs = [4, 3, 2, 1];
        let mut counts = [0u32; 4];
        for sequence in 0..12_000 {
            let index = four.least_untried(turn(sequence), 2, |_| false, |index, _| costs[index as usize]).unwrap();
            counts[index as usize] += 1;
            assert_eq!(four.least_untried(turn(sequence), 0, |_| false, |index, _| costs[index as usize]), Some(3));
        }
        // Of two different ones the dearest is never the better, the cheapest always: in half of the pairs.
        assert_eq!(counts[0], 0);
        for (count, due) in counts.into_iter().zip([0u32, 2000, 4000, 6000]) {
            assert!(count.abs_diff(due) < 200, "{counts:?}");
        }
    }

    #[test]
    fn the_second_choice_is_another_by_weight() {
        let uneven = draw(&[1, 2, 5, 2]);
        let mut counts = [0u32; 4];
        for number in 0..10_000 {
            counts[uneven.other_than(2, mix(number))] += 1;
        }
        for (count, due) in counts.into_iter().zip([2000u32, 4000, 0, 4000]) {
            assert!(count.abs_diff(due) < 200, "{counts:?}");
        }
        assert_eq!(
            (uneven.other_than(0, 0), uneven.other_than(0, u64::MAX), uneven.other_than(3, u64::MAX)),
            (1, 3, 2)
        );
    }

    #[test]
    fn costs_are_told_weights_relative_to_the_mean() {
        let uneven = draw(&[600, 300, 0, 0, 300]);
        let mut seen = Vec::new();
        let cost = |index, weight| {
            seen.push((index, weight));
            0
        };
        uneven.least_untried(turn(0), 0, |_| false, cost);
        assert_eq!(seen, [(0, 1.5), (1, 0.75), (4, 0.75)]);
    }

    #[test]
    fn a_retry_finds_what_is_left() {
        for weights in [[1; 8], [1, 2, 3, 4, 5, 6, 7, 8]] {
            let eight = draw(&weights);
            for sequence in 0..100 {
                let left = (sequence % 8) as u32;
                let picked = eight.least_untried(turn(sequence * 7), 2, |index| index != left, |_, _| 0);
                assert_eq!(picked, Some(left));
            }
            assert_eq!(eight.least_untried(turn(0), 2, |_| true, |_, _| 0), None);
        }
        assert_eq!(draw(&[]).least_untried(turn(7), 2, |_| false, |_, _| 0), None);
    }
}
