//! Canary releases: a share of the requests, and those that are marked, go to the endpoints with certain labels.
//!
//! ```toml
//! [routes.balancer]
//! plugin = "canary"
//! config = { label = { version = "2" }, share = "5%", header = "x-canary", by = { cookie = "user" } }
//! ```
//!
//! - `label`: the labels that make an endpoint a canary; all must be as said. The others are the stable ones.
//! - `share`: the canaries' share of the requests, `"5%"` or `0.05`; 0 if absent.
//! - `header`, `cookie`: a name, or `{ name = "x-canary", value = "yes" }`. A request that has it (with that value, if one
//!   is said) goes to a canary, whatever the share.
//! - `by`: `"client-address"`, `"path"`, `"authority"`, `"method"`, `{ header = "NAME" }`, `{ cookie = "NAME" }` or
//!   `{ query = "NAME" }`. The share is one of the values of this key, so that a user stays on one side, and while the share
//!   grows nobody goes back. Without it, or where a request has no such key, the share is one of the requests, and exact:
//!   of any run of requests the canaries get their share, give or take one.
//!
//! Canaries take turns, and so do stable endpoints, strictly and over all workers. Weights are not looked at, but for 0:
//! such an endpoint takes part only if all have 0. If there are no canaries, or nothing else, all requests go to what
//! there is. A retry goes to an endpoint of the same kind that was not tried, then to one of the other.

mod options;
mod share;

use moongate_plugin::{Balancer, Config, Endpoint, Turn, eligible, keys::Key, shared::Slot};
use options::{Labels, Mark, Options};
use share::Share;

struct Canary {
    label: Labels,
    share: Share,
    groups: Groups,
    /// None: the share is all that decides.
    marks: Option<Marks>,
}

/// What else decides than the share. Then the gateway's number of a turn does not tell how many there were of a kind,
/// and they are counted here.
struct Marks {
    marks: Vec<(Key, Option<String>)>,
    by: Option<Key>,
    /// Requests about which the share decided.
    shared: Slot,
    canary: Slot,
    stable: Slot,
}

impl Balancer for Canary {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        let Options { label, share, header, cookie, by } = config.parse()?;
        let declare = |key: fn(String) -> Key| move |Mark { name, value }| (key(name), value);
        let header = header.map(declare(Key::header));
        let marks: Vec<_> = header.into_iter().chain(cookie.map(declare(Key::cookie))).collect();
        let marks = (by.is_some() || !marks.is_empty()).then(|| Marks {
            marks,
            by: by.map(|by| by.declare()),
            shared: Slot::open("shared"),
            canary: Slot::open("canary"),
            stable: Slot::open("stable"),
        });
        Ok(Self { label, share, groups: Groups::default(), marks })
    }

    fn update(&mut self, endpoints: Vec<Endpoint>) -> Result<(), String> {
        self.groups = Groups::new(&endpoints, &self.label);
        Ok(())
    }

    fn pick(&mut self, turn: Turn) -> Option<u32> {
        let (canary, place) = match (self.groups.only(), &self.marks) {
            (Some(only), _) => (only, turn.sequence),
            // To the kind that it was sent to, and not one more for the share.
            _ if turn.attempt > 0 => (self.groups.canary.iter().any(|&index| turn.tried(index)), turn.sequence),
            (None, None) => self.share.at(turn.sequence),
            (None, Some(marks)) => {
                let canary = marks.decide(self.share);
                (canary, if canary { marks.canary } else { marks.stable }.fetch_add(1))
            }
        };
        turn.untried(self.groups.in_turn(canary, place))
    }
}

moongate_plugin::plugin!(Canary: Balancer; schema = include_str!("../schema.json"));

impl Marks {
    /// Whether the request in hand goes to a canary.
    fn decide(&self, share: Share) -> bool {
        let has = |(key, value): &(Key, Option<String>)| match value {
            Some(value) => key.text().as_ref() == Some(value),
            None => key.hash() != 0,
        };
        if self.marks.iter().any(has) {
            return true;
        }
        match self.by.map_or(0, Key::hash) {
            0 => share.at(self.shared.fetch_add(1)).0,
            hash => share.has(hash),
        }
    }
}

/// Canary and stable endpoints, by index.
#[derive(Debug, Default)]
struct Groups {
    canary: Vec<u32>,
    stable: Vec<u32>,
}

impl Groups {
    fn new(endpoints: &[Endpoint], Labels(wanted): &Labels) -> Self {
        let is_canary = |&index: &u32| wanted.iter().all(|label| endpoints[index as usize].labels.contains(label));
        let (canary, stable) = eligible(endpoints).into_iter().partition(is_canary);
        Self { canary, stable }
    }

    /// Whether it is the canaries that are alone, if one kind is.
    fn only(&self) -> Option<bool> {
        match (self.canary.is_empty(), self.stable.is_empty()) {
            (false, false) => None,
            (no_canary, _) => Some(!no_canary),
        }
    }

    /// The endpoints of a kind, from the one whose turn is the `place`th, then those of the other.
    fn in_turn(&self, canary: bool, place: u64) -> impl Iterator<Item = u32> + '_ {
        let groups = if canary { [&self.canary, &self.stable] } else { [&self.stable, &self.canary] };
        groups.into_iter().flat_map(move |group| {
            let start = place.checked_rem(group.len() as u64).unwrap_or(0) as usize;
            let (before, from) = group.split_at(start);
            from.iter().chain(before).copied()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(weight: u32, labels: &[(&str, &str)]) -> Endpoint {
        let labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Endpoint { address: String::new(), weight, zone: String::new(), labels }
    }

    fn canary(json: &str, endpoints: Vec<Endpoint>) -> Canary {
        let mut canary = Canary::configure(Config::new(json)).unwrap();
        canary.update(endpoints).unwrap();
        canary
    }

    #[test]
    fn the_share_is_exact_and_both_kinds_take_turns() {
        let new = [("version", "2")];
        let endpoints = [&new[..], &[("version", "1")], &[], &new, &[("version", "20")]];
        let endpoints: Vec<_> = endpoints.iter().map(|labels| endpoint(1, labels)).collect();
        for (share, canaries) in [("\"20%\"", 2000), ("0.5", 5000), ("0", 0), ("1", 10_000)] {
            let json = format!(r#"{{"label":{{"version":"2"}},"share":{share}}}"#);
            let mut balancer = canary(&json, endpoints.clone());
            let mut counts = [0i32; 5];
            for sequence in 3000..13_000 {
                let index = balancer.pick(Turn { sequence, random: 0, attempt: 0 }).unwrap();
                counts[index as usize] += 1;
            }
            assert_eq!([counts[0], counts[3]], [canaries / 2; 2], "{share}: {counts:?}");
            for stable in [1, 2, 4] {
                assert!((10_000 - canaries - 3 * counts[stable]).abs() <= 3, "{share}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_canary_has_all_labels() {
        let wanted = Labels(vec![("version".into(), "2".into()), ("track".into(), "new".into())]);
        let endpoints = [
            endpoint(1, &[("track", "new"), ("version", "2")]),
            endpoint(1, &[("version", "2")]),
            endpoint(1, &[("track", "new"), ("version", "2"), ("zone", "a")]),
            endpoint(0, &[("track", "new"), ("version", "2")]),
        ];
        let groups = Groups::new(&endpoints, &wanted);
        assert_eq!((groups.canary, groups.stable), (vec![0, 2], vec![1]));
    }

    #[test]
    fn one_kind_alone_gets_everything() {
        let json = r#"{"label":{"new":"yes"},"share":0.5}"#;
        for label in ["yes", "no"] {
            let mut balancer = canary(json, vec![endpoint(1, &[("new", label)]); 3]);
            let picks: Vec<_> =
                (0..6).map(|sequence| balancer.pick(Turn { sequence, random: 0, attempt: 0 })).collect();
            assert_eq!(picks, [0, 1, 2, 0, 1, 2].map(Some), "{label}");
        }
        assert_eq!(canary(json, vec![]).pick(Turn { sequence: 1, random: 0, attempt: 0 }), None);
    }

    #[test]
    fn a_retry_stays_with_its_kind_and_then_takes_the_other() {
        let groups = Groups { canary: vec![4, 5], stable: vec![1, 2, 3] };
        assert_eq!(groups.in_turn(true, 3).collect::<Vec<_>>(), [5, 4, 1, 2, 3]);
        assert_eq!(groups.in_turn(false, 1).collect::<Vec<_>>(), [2, 3, 1, 5, 4]);
    }
}
