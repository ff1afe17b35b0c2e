//! Zone-aware: requests stay in the gateway's own zone until its endpoints have too much to do.
//!
//! ```toml
//! balancer = { plugin = "zone-aware", config = { zone = "eu-1a", minimum = 2, spill = 1.5, slack = 8 } }
//! ```
//!
//! - `zone`: where the gateway stands; if absent, what its own configuration says. Endpoints of this zone are local.
//! - `minimum`: with fewer local endpoints than this, 1 if absent, requests are spread over all zones.
//! - `spill`, at least 1, 1.5 if absent, and `slack`, 8 if absent: when a local endpoint has too much to do, see below.
//!
//! # The rule
//!
//! The load of an endpoint is its requests in flight divided by its weight, with weights relative to their mean. Of two
//! local endpoints, drawn by weight, the one with the lesser load is taken (least request, with the power of two
//! choices), unless that load is above
//!
//! > `spill` × the lesser load of two of the others + `slack`:
//!
//! then the better one of the others is. So requests stay while local endpoints have up to `slack` in flight, which should
//! be what a healthy one has at its busiest: requests a second × seconds that each takes. From there on the excess, and
//! nothing but the excess, goes to the other zones, until these have 1/`spill` of the local load.
//!
//! It is stable, because a pick counts as in flight at once, for all workers, and so makes the next one a little less
//! likely to go the same way. There is no averaging over time that could make it swing, and as two endpoints are drawn
//! anew for each pick, near the limit some go and some stay, in proportion.
//!
//! A retry goes to a local endpoint that was not tried, if there is one, by the same rule.

use moongate_plugin::{Balancer, Config, Draw, Endpoint, Turn, eligible, endpoints};

/// What the operator writes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    zone: String,
    minimum: u32,
    spill: f64,
    slack: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { zone: String::new(), minimum: 1, spill: 1.5, slack: 8 }
    }
}

impl Balancer for ZoneAware {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        Self::new(config.parse()?, moongate_plugin::zone)
    }

    fn update(&mut self, endpoints: Vec<Endpoint>) -> Result<(), String> {
        self.divide(&endpoints);
        Ok(())
    }

    fn pick(&mut self, turn: Turn) -> Option<u32> {
        self.choose(turn, endpoints::inflight)
    }
}

moongate_plugin::plugin!(ZoneAware: Balancer; schema = include_str!("../schema.json"));

#[derive(Debug, Default)]
struct ZoneAware {
    zone: String,
    minimum: usize,
    spill: f64,
    slack: f64,
    /// All endpoints, if they are treated alike.
    local: Draw,
    others: Draw,
    /// By index, relative to the mean of all.
    weights: Vec<f64>,
}

impl ZoneAware {
    fn new(options: Options, own_zone: impl FnOnce() -> String) -> Result<Self, String> {
        let Options { zone, minimum, spill, slack } = options;
        let zone = if zone.is_empty() { own_zone() } else { zone };
        if zone.is_empty() {
            return Err(
                "`zone` is missing: say here where this gateway stands, such as `eu-1a`, or with the key `zone` of \
                        its own configuration"
                    .into(),
            );
        }
        if minimum == 0 {
            return Err("`minimum` must be at least 1".into());
        }
        if !(1.0..f64::INFINITY).contains(&spill) {
            return Err("`spill` must be at least 1, such as 1.5".into());
        }
        Ok(Self { zone, minimum: minimum as usize, spill, slack: slack.into(), ..Self::default() })
    }

    fn divide(&mut self, endpoints: &[Endpoint]) {
        let all = eligible(endpoints);
        let weight = |endpoint: &Endpoint| f64::from(endpoint.weight.max(1));
        let total: f64 = all.iter().map(|&index| weight(&endpoints[index as usize])).sum();
        self.weights = endpoints.iter().map(|endpoint| weight(endpoint) * all.len() as f64 / total).collect();
        let is_local = |&index: &u32| endpoints[index as usize].zone == self.zone;
        let (local, others): (Vec<u32>, Vec<u32>) = all.iter().copied().partition(is_local);
        let (local, others) = if local.len() < self.minimum { (all, Vec::new()) } else { (local, others) };
        self.local = Draw::new(endpoints, local);
        self.others = Draw::new(endpoints, others);
    }

    fn choose(&self, turn: Turn, inflight: impl Fn(u32) -> u32) -> Option<u32> {
        let load = |index: u32| f64::from(inflight(index)) / self.weights[index as usize];
        let Some((local, local_load)) = lesser(&self.local, turn, load) else {
            return lesser(&self.others, turn, load).map(|(other, _)| other);
        };
        if local_load <= self.slack {
            return Some(local);
        }
        match lesser(&self.others, turn, load) {
            Some((other, other_load)) if local_load > self.spill * other_load + self.slack => Some(other),
            _ => Some(local),
        }
    }
}

/// The endpoint with the lesser load of two, and that load. None if the request failed at all of them.
fn lesser(draw: &Draw, turn: Turn, load: impl Fn(u32) -> f64) -> Option<(u32, f64)> {
    // Each figure is a call of the gateway, so it is kept; not asked for where a retry goes on to the only one left.
    let mut least = None;
    let cost = |index, _| {
        let load = load(index);
        least = Some(least.map_or(load, |least: f64| least.min(load)));
        load
    };
    let index = draw.least(turn, 2, cost)?;
    Some((index, least.unwrap_or_else(|| load(index))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use moongate_plugin::hash::mix;
    use std::collections::VecDeque;

    fn endpoint(zone: &str, weight: u32) -> Endpoint {
        Endpoint { address: String::new(), weight, zone: zone.into(), labels: vec![] }
    }

    fn balancer(json: &str, endpoints: &[Endpoint]) -> ZoneAware {
        let mut balancer = ZoneAware::new(Config::new(json).parse().unwrap(), || "here".into()).unwrap();
        balancer.divide(endpoints);
        balancer
    }

    fn turn(sequence: u64) -> Turn {
        Turn { sequence, random: mix(sequence), attempt: 0 }
    }

    /// Endpoints that serve one request after the other, each in 1000. A request comes after each of these intervals.
    /// Where each went.
    fn simulate(balancer: &ZoneAware, intervals: impl IntoIterator<Item = u64>) -> Vec<u32> {
        let mut queues = vec![VecDeque::new(); balancer.weights.len()];
        let mut now = 0;
        let pick = |(sequence, interval)| {
            now += interval;
            for queue in &mut queues {
                while queue.front().is_some_and(|&end| end <= now) {
                    queue.pop_front();
                }
            }
            let index = balancer.choose(turn(sequence), |index| queues[index as usize].len() as u32).unwrap();
            let queue = &mut queues[index as usize];
            let end = queue.back().copied().unwrap_or(now) + 1000;
            queue.push_back(end);
            index
        };
        (0..).zip(intervals).map(pick).collect()
    }

    fn share(picks: &[u32], of: impl Fn(u32) -> bool) -> f64 {
        picks.iter().filter(|&&index| of(index)).count() as f64 / picks.len() as f64
    }

    #[test]
    fn requests_stay_while_the_zone_keeps_up() {
        let here_and_there = ["here", "there", "here", "there"].map(|zone| endpoint(zone, 1));
        // Nothing to do, and 90 % of what two can do, in bursts of four at once.
        for intervals in [vec![1000], vec![0, 0, 0, 2222]] {
            let picks = simulate(&balancer("{}", &here_and_there), intervals.into_iter().cycle().take(10_000));
            assert_eq!(share(&picks, |index| index % 2 == 0), 1.0);
            assert!((share(&picks, |index| index == 0) - 0.5).abs() < 0.02);
        }
    }

    #[test]
    fn a_short_zone_spills_the_excess_steadily() {
        // One local endpoint, three elsewhere, and twice what one can do.
        let endpoints = ["there", "here", "there", "far"].map(|zone| endpoint(zone, 1));
        let picks = simulate(&balancer("{}", &endpoints), std::iter::repeat_n(500, 20_000));
        // At first the slack fills up.
        for (number, part) in picks.chunks(100).enumerate().skip(1) {
            let local = share(part, |index| index == 1);
            assert!((local - 0.5).abs() < 0.1, "{number}: {local}");
        }
        let others = [0, 2, 3].map(|other| share(&picks, |index| index == other));
        assert!(others.iter().all(|&share| share > 0.1), "{others:?}");
    }

    #[test]
    fn requests_come_home_when_the_rush_is_over() {
        let endpoints = ["here", "there"].map(|zone| endpoint(zone, 1));
        let rush_and_rest = std::iter::repeat_n(300, 3000).chain(std::iter::repeat_n(1500, 3000));
        let picks = simulate(&balancer("{}", &endpoints), rush_and_rest);
        assert!(share(&picks[..3000], |index| index == 1) > 0.3);
        // What waits in the zone at the end of the rush takes a while.
        assert_eq!(share(&picks[5000..], |index| index == 0), 1.0);
    }

    #[test]
    fn load_is_relative_to_weight() {
        let endpoints = [endpoint("here", 30), endpoint("there", 10)];
        let balancer = balancer(r#"{"slack":2,"spill":2}"#, &endpoints);
        let pick = |local, other| balancer.choose(turn(0), |index| [local, other][index as usize]);
        // Weights relative to the mean are 1.5 and 0.5.
        assert_eq!((pick(3, 0), pick(4, 0)), (Some(0), Some(1)));
        assert_eq!((pick(9, 1), pick(10, 1)), (Some(0), Some(1)));
    }

    #[test]
    fn with_too_few_local_endpoints_all_are_alike() {
        let endpoints = ["here", "there", "there", ""].map(|zone| endpoint(zone, 1));
        let spread = balancer(r#"{"minimum":2}"#, &endpoints);
        let picks = simulate(&spread, std::iter::repeat_n(1000, 400));
        for index in 0..4 {
            assert_eq!(share(&picks, |it| it == index), 0.25, "{index}");
        }
        assert_eq!(share(&simulate(&balancer("{}", &endpoints), [1000; 40]), |it| it == 0), 1.0);
        assert_eq!(share(&simulate(&balancer("{}", &endpoints[1..]), [1000; 30]), |it| it < 3), 1.0);
        assert_eq!(balancer("{}", &[]).choose(turn(0), |_| 0), None);
        let drained = [endpoint("here", 0), endpoint("there", 1)];
        assert_eq!(balancer("{}", &drained).choose(turn(0), |_| 0), Some(1));
    }

    #[test]
    fn the_zone_is_the_gateway_s_unless_said_and_mistakes_are_named() {
        let new = |json, own: &str| ZoneAware::new(Config::new(json).parse()?, || own.into());
        assert_eq!(new("{}", "eu-1a").unwrap().zone, "eu-1a");
        assert_eq!(new(r#"{"zone":"eu-1b"}"#, "eu-1a").unwrap().zone, "eu-1b");
        for (json, words) in [
            ("{}", "`zone` is missing: say here"),
            (r#"{"zone":"a","minimum":0}"#, "`minimum` must be at least 1"),
            (r#"{"zone":"a","spill":0.5}"#, "`spill` must be at least 1"),
            (r#"{"zone":"a","slack":-1}"#, "expected u32"),
            (r#"{"zones":"a"}"#, "unknown field `zones`"),
        ] {
            let error = new(json, "").unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    #[test]
    fn the_schema_names_the_options() {
        let schema: serde_json::Value = serde_json::from_str(include_str!("../schema.json")).unwrap();
        let named: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        // "unknown field `?`, expected one of `a`, `b`"
        let error = Config::new(r#"{"?":0}"#).parse::<Options>().err().unwrap();
        let mut accepted: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        accepted.sort_unstable();
        assert_eq!(named, accepted);
    }
}
