//! Which part of the requests goes to the canaries.

use moongate_plugin::hash::{below, mix};

/// A part of the whole, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Share(u64);

const WHOLE: u64 = 1_000_000;

impl Share {
    /// None unless from 0 to 1.
    pub(crate) fn new(part: f64) -> Option<Self> {
        (0.0..=1.0).contains(&part).then_some(Self((part * WHOLE as f64 + 0.5) as u64))
    }

    /// Whether the turn of this number, counted from 0, is one of the share, and how many turns of its kind there were
    /// before. Of any run of turns as many are as the share says, give or take one: the turns of the share are those at
    /// which the number of turns × share comes to the next whole number.
    pub(crate) fn at(self, turn: u64) -> (bool, u64) {
        let shares = |turn: u64| turn / WHOLE * self.0 + turn % WHOLE * self.0 / WHOLE;
        let before = shares(turn);
        // The turn after the last is the first again, which is the end of a whole.
        let belongs = shares(turn % WHOLE + 1) > shares(turn % WHOLE);
        (belongs, if belongs { before } else { turn - before })
    }

    /// Whether a key of this hash belongs to the share. A larger share has all keys of a smaller one.
    pub(crate) fn has(self, hash: u64) -> bool {
        // Mixed, so that the keys are not all neighbours to a balancer that goes by the same hash.
        below(WHOLE, mix(hash)) < self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: [f64; 9] = [0.0, 0.000_001, 0.01, 0.05, 1.0 / 3.0, 0.5, 0.618, 0.999, 1.0];

    #[test]
    fn any_run_of_turns_has_its_share() {
        for part in PARTS {
            let share = Share::new(part).unwrap();
            for begin in [0, 1, 7777, 999_999, 12_345_678_901, u64::MAX - 10_000] {
                let count = (begin..begin + 10_000).filter(|&turn| share.at(turn).0).count() as f64;
                assert!((count - 10_000.0 * part).abs() <= 1.01, "{part} {begin}: {count}");
            }
        }
    }

    #[test]
    fn turns_of_either_kind_are_counted_without_a_gap() {
        for part in PARTS {
            let share = Share::new(part).unwrap();
            for begin in [0, 995_000, 3_000_000_000] {
                let mut next = [None; 2];
                for turn in begin..begin + 10_000 {
                    let (belongs, place) = share.at(turn);
                    let next = &mut next[usize::from(belongs)];
                    assert!(next.is_none_or(|next| next == place), "{part} {turn}");
                    *next = Some(place + 1);
                }
            }
            assert_eq!(share.at(0).1, 0);
        }
    }

    #[test]
    fn keys_are_shared_and_stay_when_the_share_grows() {
        for (smaller, larger) in [(0.0, 0.05), (0.05, 0.2), (0.2, 1.0)] {
            let count = |part| (0..100_000).filter(|&key| Share::new(part).unwrap().has(mix(key))).count() as f64;
            assert!((count(larger) - 100_000.0 * larger).abs() < 500.0, "{larger}");
            let [small, large] = [smaller, larger].map(|part| Share::new(part).unwrap());
            assert!((0..100_000).all(|key| !small.has(key) || large.has(key)));
        }
        assert!(!Share::new(0.0).unwrap().has(0) && Share::new(1.0).unwrap().has(u64::MAX));
    }

    #[test]
    fn a_share_is_from_0_to_1() {
        assert!([-0.1, 1.1, f64::NAN, f64::INFINITY].iter().all(|&part| Share::new(part).is_none()));
        assert_eq!(Share::new(0.1 + 0.2), Share::new(0.3));
    }
}
