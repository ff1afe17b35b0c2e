//! The table that keys are looked up in (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer",
//! 2016, section 3.4).
//!
//! Every endpoint has an order of its own in which it likes the entries. They take turns, each taking the entry that it
//! likes best of those that are free, until none is. So they get equally many, and when one goes most entries stay,
//! because the others like what they liked.

use moongate_plugin::{
    Endpoint,
    hash::{STEP, mix, sip},
};

/// Of an entry that is free. So no endpoint may have this index.
const FREE: u16 = u16::MAX;

/// Which endpoint each entry belongs to; empty without endpoints.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<u16>);

/// The order in which an endpoint likes the entries: one after the other, `skip` apart. As the number of entries is a
/// prime, it comes to all of them.
struct Liking {
    index: u16,
    next: u32,
    skip: u32,
}

impl Table {
    /// Shares `size` entries, a prime, among the endpoints of these indices, by weight.
    pub(crate) fn fill(&mut self, endpoints: &[Endpoint], indices: &[u32], size: u32) -> Result<(), String> {
        self.0.clear();
        if indices.is_empty() {
            return Ok(());
        }
        if endpoints.len() > usize::from(FREE) {
            return Err("there are more than 65,535 endpoints, too many for this balancer".into());
        }
        if indices.len() > size as usize {
            return Err("there are more endpoints than entries: `table` must be a prime of 100 times as many".into());
        }
        // Whose turn it is must not depend on the order of the list, which need not be the same in each gateway.
        let hash = |&index: &u32| (sip((0, 0), endpoints[index as usize].address.as_bytes()), index);
        let mut hashes: Vec<(u64, u32)> = indices.iter().map(hash).collect();
        hashes.sort_unstable_by_key(|&(hash, _)| hash);
        let liking = |&(hash, index): &(u64, u32)| {
            let next = (hash % u64::from(size)) as u32;
            let skip = (mix(hash.wrapping_add(STEP)) % u64::from(size - 1)) as u32 + 1;
            Liking { index: index as u16, next, skip }
        };
        let mut likings: Vec<Liking> = hashes.iter().map(liking).collect();
        let weights: Vec<u32> = hashes.iter().map(|&(_, index)| endpoints[index as usize].weight.max(1)).collect();

        self.0.resize(size as usize, FREE);
        for place in turns(&weights, size) {
            let Liking { index, next, skip } = &mut likings[usize::from(place)];
            while self.0[*next as usize] != FREE {
                *next += *skip;
                *next -= if *next < size { 0 } else { size };
            }
            self.0[*next as usize] = *index;
        }
        Ok(())
    }

    /// The endpoints of the entries from this key's on, once around.
    pub(crate) fn from(&self, key: u64) -> impl Iterator<Item = u32> + '_ {
        let place = key.checked_rem(self.0.len() as u64).unwrap_or(0) as usize;
        let (before, after) = self.0.split_at(place);
        after.iter().chain(before).map(|&index| index.into())
    }
}

/// Whose turn it is, `size` times, by place among the weights. In a round those of the greatest weight have a turn each,
/// those of a third of it one in three rounds. In the first round all have one.
///
/// The turns are counted out by round instead of asking everybody in each, which would take a time without bounds if
/// one weight is much greater than many others.
fn turns(weights: &[u32], size: u32) -> Vec<u16> {
    let most = weights.iter().copied().max().unwrap_or(1);
    let total: u64 = weights.iter().copied().map(u64::from).sum();
    let rounds = (u64::from(size) * u64::from(most)).div_ceil(total) as u32;
    // An endpoint's turn `n` is in round `n * most / weight`, rounded down.
    let rounds_of = |weight: u32| {
        let (step, rest) = (most / weight, most % weight);
        let (mut round, mut over) = (0, 0);
        std::iter::from_fn(move || {
            let this = round;
            (round, over) = (round + step, over + rest);
            if over >= weight {
                (round, over) = (round + 1, over - weight);
            }
            (this < rounds).then_some(this as usize)
        })
    };
    let mut begins = vec![0; rounds as usize];
    weights.iter().flat_map(|&weight| rounds_of(weight)).for_each(|round| begins[round] += 1);
    let mut sum = 0;
    for begin in &mut begins {
        sum += std::mem::replace(begin, sum);
    }
    let mut turns = vec![0; sum];
    for (place, &weight) in (0..).zip(weights) {
        for round in rounds_of(weight) {
            turns[begins[round]] = place;
            begins[round] += 1;
        }
    }
    turns.truncate(size as usize);
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
        let address = |number| format!("10.0.0.{number}:80");
        let endpoint =
            |(number, &weight)| Endpoint { address: address(number), weight, zone: String::new(), labels: vec![] };
        weights.iter().enumerate().map(endpoint).collect()
    }

    fn table(endpoints: &[Endpoint], size: u32) -> Table {
        let mut table = Table::default();
        table.fill(endpoints, &(0..endpoints.len() as u32).collect::<Vec<_>>(), size).unwrap();
        table
    }

    fn owner<'a>(endpoints: &'a [Endpoint], table: &Table, key: u64) -> &'a str {
        &endpoints[table.from(key).next().unwrap() as usize].address
    }

    #[test]
    fn turns_are_by_weight() {
        assert_eq!(turns(&[1, 1, 1], 7), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(turns(&[3, 1], 8), [0, 1, 0, 0, 0, 1, 0, 0]);
        assert_eq!(turns(&[2, 3], 10), [0, 1, 0, 1, 1, 0, 1, 0, 1, 1]);
        assert_eq!(turns(&[7], 3), [0, 0, 0]);
    }

    #[test]
    fn entries_are_shared_within_a_percent() {
        for weights in [vec![1; 3], vec![1; 100], vec![5, 3, 2], vec![100, 1, 50, 7], [[1; 50], [8; 50]].concat()] {
            let table = table(&endpoints(&weights), 65_537);
            let mut counts = vec![0u32; weights.len()];
            table.from(0).for_each(|index| counts[index as usize] += 1);
            assert_eq!(counts.iter().sum::<u32>(), 65_537);
            for (&count, &weight) in counts.iter().zip(&weights) {
                let due = 65_537.0 * f64::from(weight) / f64::from(weights.iter().sum::<u32>());
                assert!((f64::from(count) - due).abs() < (0.01 * due).max(2.0), "{weights:?} {counts:?}");
            }
        }
    }

    #[test]
    fn few_keys_move_when_one_leaves() {
        for count in [2, 3, 10, 50, 200] {
            let before = endpoints(&vec![1; count]);
            for left in [0, count / 2, count - 1] {
                let mut after = before.clone();
                let gone = after.remove(left).address;
                let (old, new) = (table(&before, 65_537), table(&after, 65_537));
                let keys = || (0..10_000).map(mix);
                let moved = keys().filter(|&key| owner(&before, &old, key) != owner(&after, &new, key)).count();
                assert!(moved as f64 <= 10_000.0 * (1.0 / count as f64 + 0.02), "{count}: {moved}");
                assert!(keys().all(|key| owner(&after, &new, key) != gone));
            }
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let list = endpoints(&[1, 2, 3, 4, 5]);
        let mut reversed = list.clone();
        reversed.reverse();
        let (one, other) = (table(&list, 251), table(&reversed, 251));
        assert!((0..251).all(|key| owner(&list, &one, key) == owner(&reversed, &other, key)));
    }

    #[test]
    fn extremes_end_and_leave_nobody_out() {
        let one_heavy = [vec![65_535], vec![1; 200]].concat();
        for (weights, size) in [(one_heavy, 251), (vec![1; 251], 251), (vec![9], 2), (vec![1; 2], 2)] {
            let table = table(&endpoints(&weights), size);
            let all: std::collections::BTreeSet<_> = table.from(7).collect();
            assert_eq!(all.len(), weights.len());
        }
    }

    #[test]
    fn too_many_endpoints_are_an_error_and_none_an_empty_table() {
        let mut table = table(&endpoints(&[1; 3]), 5);
        assert!(
            table.fill(&endpoints(&[1; 6]), &[0, 1, 2, 3, 4, 5], 5).unwrap_err().contains("`table` must be a prime")
        );
        assert!(table.fill(&endpoints(&vec![1; 65_536]), &[0], 5).unwrap_err().contains("65,535"));
        table.fill(&[], &[], 5).unwrap();
        assert_eq!(table.from(3).next(), None);
    }
}
