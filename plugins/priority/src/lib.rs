//! Priorities: the endpoints of the first tier take turns, and those of the next step in when there are too few.
//!
//! ```toml
//! balancer = { plugin = "priority", config = { label = "priority", minimum = 2 } }
//! ```
//!
//! - `label`: which label of an endpoint tells its tier, `"priority"` if absent. It is a whole number; 0 is the first
//!   tier, and that of an endpoint without the label. A label that is no such number makes the endpoint one of the last
//!   resort, so that a misspelt standby does not take part.
//! - `minimum`: how many endpoints are to share the requests, 1 if absent. While the first tier has fewer, the next one
//!   joins it, and so on.
//!
//! Endpoints that the gateway finds unhealthy are not in the list, so a tier empties as its endpoints fail. Those of
//! weight 0 do not count while others have more; other weights are not looked at. Turns are strict, over all workers.
//! A retry goes to the endpoints of the same tiers first, then to the next tier.

use moongate_plugin::{Balancer, Config, Endpoint, Level, Turn, eligible, log};

/// What the operator writes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    label: String,
    minimum: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { label: "priority".into(), minimum: 1 }
    }
}

#[derive(Debug)]
struct Priority {
    label: String,
    minimum: u32,
    tiers: Tiers,
}

impl Balancer for Priority {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        let Options { label, minimum } = config.parse()?;
        if label.is_empty() {
            return Err("`label` is empty: it must be the name of a label, such as `priority`".into());
        }
        if minimum == 0 {
            return Err("`minimum` must be at least 1".into());
        }
        Ok(Self { label, minimum, tiers: Tiers::default() })
    }

    fn update(&mut self, endpoints: Vec<Endpoint>) -> Result<(), String> {
        if let Some(misspelt) = endpoints.iter().find(|endpoint| tier(endpoint, &self.label) == LAST_RESORT) {
            let line = ["the label `", &self.label, "` of ", &misspelt.address, " is no whole number: used last"];
            log(Level::Warn, &line.concat());
        }
        self.tiers = Tiers::new(&endpoints, &self.label, self.minimum);
        Ok(())
    }

    fn pick(&mut self, turn: Turn) -> Option<u32> {
        turn.untried(self.tiers.in_turn(turn.sequence))
    }
}

moongate_plugin::plugin!(Priority: Balancer; schema = include_str!("../schema.json"));

/// The tier of an endpoint whose label is no tier.
const LAST_RESORT: u64 = u64::MAX;

fn tier(endpoint: &Endpoint, label: &str) -> u64 {
    match endpoint.labels.iter().find(|(name, _)| name == label) {
        None => 0,
        Some((_, value)) => value.parse::<u32>().map_or(LAST_RESORT, u64::from),
    }
}

#[derive(Debug, Default)]
struct Tiers {
    /// Indices, tier after tier.
    order: Vec<u32>,
    /// Where in `order` the tiers end; those that share the requests are one.
    ends: Vec<usize>,
}

impl Tiers {
    fn new(endpoints: &[Endpoint], label: &str, minimum: u32) -> Self {
        let tier_of = |index: u32| (tier(&endpoints[index as usize], label), index);
        let mut order: Vec<(u64, u32)> = eligible(endpoints).into_iter().map(tier_of).collect();
        order.sort_unstable();
        let mut ends = Vec::new();
        for end in 1..=order.len() {
            let last = end == order.len();
            // Too few so far: what comes next belongs to them.
            let enough = !ends.is_empty() || end >= minimum as usize;
            if last || enough && order[end - 1].0 != order[end].0 {
                ends.push(end);
            }
        }
        Self { order: order.into_iter().map(|(_, index)| index).collect(), ends }
    }

    /// All endpoints, tier after tier, each tier from the one on whose turn it is.
    fn in_turn(&self, sequence: u64) -> impl Iterator<Item = u32> + '_ {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).flat_map(move |(begin, &end)| {
            let tier = &self.order[begin..end];
            let (before, from) = tier.split_at((sequence % tier.len() as u64) as usize);
            from.iter().chain(before).copied()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers(labels: &[Option<&str>], minimum: u32) -> Tiers {
        let label = |label: &&str| ("tier".to_string(), label.to_string());
        let endpoint = |it: &Option<&str>| Endpoint {
            address: String::new(),
            weight: 1,
            zone: String::new(),
            labels: it.iter().map(label).collect(),
        };
        Tiers::new(&labels.iter().map(endpoint).collect::<Vec<_>>(), "tier", minimum)
    }

    fn picks(tiers: &Tiers, count: u64) -> Vec<u32> {
        (0..count).filter_map(|sequence| tiers.in_turn(sequence).next()).collect()
    }

    #[test]
    fn the_first_tier_takes_turns() {
        let three = tiers(&[Some("1"), None, Some("0"), Some("2"), None], 1);
        assert_eq!(picks(&three, 6), [1, 2, 4, 1, 2, 4]);
        assert_eq!(picks(&tiers(&[Some("10"), Some("9")], 1), 2), [1, 1], "by number, not by text");
        assert!(picks(&tiers(&[], 1), 1).is_empty());
    }

    #[test]
    fn the_next_tier_joins_while_there_are_too_few() {
        let labels = [Some("0"), Some("0"), Some("1"), Some("2"), Some("2")];
        assert_eq!(picks(&tiers(&labels, 2), 4), [0, 1, 0, 1]);
        assert_eq!(picks(&tiers(&labels, 3), 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(picks(&tiers(&labels, 4), 5), [0, 1, 2, 3, 4]);
        assert_eq!(picks(&tiers(&labels, 9), 5), [0, 1, 2, 3, 4]);
        assert_eq!(picks(&tiers(&labels[2..], 1), 2), [0, 0], "the first tier is gone");
    }

    #[test]
    fn a_retry_stays_in_the_tier_and_then_goes_on_to_the_next() {
        let labels = [Some("1"), Some("0"), Some("0"), Some("1"), Some("standby")];
        let order = |sequence| tiers(&labels, 1).in_turn(sequence).collect::<Vec<_>>();
        assert_eq!(order(0), [1, 2, 0, 3, 4]);
        assert_eq!(order(1), [2, 1, 3, 0, 4]);
    }

    #[test]
    fn a_label_that_is_no_number_is_the_last_resort() {
        for label in ["backup", "-1", "", "1.5", "99999999999"] {
            assert_eq!(picks(&tiers(&[Some(label), Some("4294967295")], 1), 2), [1, 1], "{label}");
        }
        assert_eq!(picks(&tiers(&[Some("backup")], 1), 1), [0]);
    }

    #[test]
    fn weight_0_is_no_member_of_a_tier() {
        let endpoint = |weight, tier: &str| Endpoint {
            address: String::new(),
            weight,
            zone: String::new(),
            labels: vec![("tier".into(), tier.into())],
        };
        let drained = [endpoint(0, "0"), endpoint(5, "1")];
        assert_eq!(picks(&Tiers::new(&drained, "tier", 1), 2), [1, 1]);
        assert_eq!(picks(&Tiers::new(&[endpoint(0, "0"), endpoint(0, "1")], "tier", 1), 2), [0, 0]);
    }

    #[test]
    fn options_have_defaults_and_mistakes_are_named() {
        let configure = |json| Priority::configure(Config::new(json)).map(|it| (it.label, it.minimum));
        assert_eq!(configure("{}"), Ok(("priority".into(), 1)));
        assert_eq!(configure(r#"{"label":"tier","minimum":2}"#), Ok(("tier".into(), 2)));
        for (json, words) in [
            (r#"{"label":""}"#, "`label` is empty"),
            (r#"{"minimum":0}"#, "`minimum` must be at least 1"),
            (r#"{"min":1}"#, "unknown field `min`, expected `label` or `minimum`"),
        ] {
            let error = configure(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    #[test]
    fn the_schema_names_the_options() {
        let schema: serde_json::Value = serde_json::from_str(include_str!("../schema.json")).unwrap();
        let named: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        // "unknown field `?`, expected one of `a`, `b`"
        let error = Priority::configure(Config::new(r#"{"?":0}"#)).unwrap_err();
        let mut accepted: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        accepted.sort_unstable();
        assert_eq!(named, accepted);
    }
}
