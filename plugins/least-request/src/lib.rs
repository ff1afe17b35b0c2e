//! Least request: of a few endpoints that are drawn, the one with the fewest requests in flight for its weight.
//!
//! ```toml
//! balancer = { plugin = "least-request", config = { choices = 2 } }
//! ```
//!
//! `choices`: how many endpoints are compared, 1 to 32, 2 if absent; 0: all of them. Two are enough for nearly all of
//! the good (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001; Envoy's LEAST_REQUEST). All is
//! best where there are few endpoints and requests are long, and costs in proportion to the number of endpoints.
//!
//! Endpoints are drawn in proportion to their weights, and compared by in-flight / weight: so the shares are those of
//! the weights while all keep up, and where they do not, an endpoint of weight 3 has three times as many in flight as
//! one of weight 1. Of equally busy endpoints each takes its turn. In-flight is counted over all workers and routes.

use moongate_plugin::{Balancer, Config, Draw, Endpoint, Turn, eligible, endpoints};

/// What the operator writes.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    choices: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { choices: 2 }
    }
}

#[derive(Debug)]
struct LeastRequest {
    /// 0: all.
    choices: u32,
    draw: Draw,
}

impl Balancer for LeastRequest {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        let Options { choices } = config.parse()?;
        if choices > 32 {
            return Err("`choices` is more than 32: it must be 1 to 32, or 0 for all endpoints".into());
        }
        Ok(Self { choices, draw: Draw::default() })
    }

    fn update(&mut self, endpoints: Vec<Endpoint>) -> Result<(), String> {
        let indices = eligible(&endpoints);
        self.draw = Draw::new(&endpoints, indices);
        Ok(())
    }

    fn pick(&mut self, turn: Turn) -> Option<u32> {
        let count = self.draw.indices().len();
        // The whole list in one call is cheaper than three single figures; but not for a few of a long list.
        if count > 2 && (self.choices == 0 || self.choices as usize >= count) {
            let inflight = endpoints::inflight_all();
            return self.least(turn, |index| inflight[index as usize]);
        }
        self.least(turn, endpoints::inflight)
    }
}

impl LeastRequest {
    fn least(&self, turn: Turn, inflight: impl Fn(u32) -> u32) -> Option<u32> {
        self.draw.least(turn, self.choices, |index, weight| f64::from(inflight(index)) / weight)
    }
}

moongate_plugin::plugin!(LeastRequest: Balancer; schema = include_str!("../schema.json"));

#[cfg(test)]
mod tests {
    use super::*;
    use moongate_plugin::hash::mix;
    use std::collections::VecDeque;

    fn balancer(json: &str, weights: &[u32]) -> LeastRequest {
        let endpoint = |&weight| Endpoint { address: String::new(), weight, zone: String::new(), labels: vec![] };
        let mut balancer = LeastRequest::configure(Config::new(json)).unwrap();
        balancer.update(weights.iter().map(endpoint).collect()).unwrap();
        balancer
    }

    /// Endpoints that serve one request after the other, each in its `service` time. A request comes every `interval`.
    /// How many each got, and the time that 99 % stay below.
    fn simulate(service: &[u64], interval: u64, pick: impl Fn(Turn, &[u32]) -> u32) -> (Vec<u32>, u64) {
        let mut queues = vec![VecDeque::new(); service.len()];
        let mut counts = vec![0; service.len()];
        let mut times = Vec::new();
        for sequence in 0..20_000 {
            let now = sequence * interval;
            for queue in &mut queues {
                while queue.front().is_some_and(|&end| end <= now) {
                    queue.pop_front();
                }
            }
            let inflight: Vec<_> = queues.iter().map(|queue| queue.len() as u32).collect();
            let index = pick(Turn { sequence, random: mix(sequence), attempt: 0 }, &inflight) as usize;
            let end = queues[index].back().copied().unwrap_or(now) + service[index];
            queues[index].push_back(end);
            counts[index] += 1;
            times.push(end - now);
        }
        times.sort_unstable();
        (counts, times[times.len() * 99 / 100])
    }

    #[test]
    fn a_slow_endpoint_gets_what_it_can_do() {
        let mut service = [1000; 10];
        service[3] = 10_000;
        // Half of what the nine can do, so that round robin would send the slow one five times too much.
        let (_, turns) = simulate(&service, 200, |turn, _| (turn.sequence % 10) as u32);
        for choices in [2, 3, 0] {
            let balancer = balancer(&format!(r#"{{"choices":{choices}}}"#), &[1; 10]);
            let least = |turn, inflight: &[u32]| balancer.least(turn, |index| inflight[index as usize]).unwrap();
            let (counts, slowest) = simulate(&service, 200, least);
            assert!(slowest * 5 <= turns, "{choices}: {slowest} {turns}");
            assert!(counts[3] <= 20_000 * 200 / 10_000 + 10, "{choices}: {counts:?}");
        }
    }

    #[test]
    fn shares_are_the_weights_idle_or_busy() {
        let balancer = balancer("{}", &[3, 1, 0, 2]);
        // As fast as they are heavy: with nothing to do, and with all that they can.
        for (interval, off) in [(6000, 10), (1000, 400)] {
            let least = |turn, inflight: &[u32]| balancer.least(turn, |index| inflight[index as usize]).unwrap();
            let (counts, _) = simulate(&[2000, 6000, 1, 3000], interval, least);
            for (count, due) in counts.iter().zip([10_000u32, 3333, 0, 6667]) {
                assert!(count.abs_diff(due) <= off, "{interval}: {counts:?}");
            }
        }
    }

    #[test]
    fn nothing_to_pick_from_is_none() {
        assert_eq!(balancer("{}", &[]).least(Turn { sequence: 5, random: 9, attempt: 0 }, |_| 0), None);
    }

    #[test]
    fn choices_are_two_unless_said_and_at_most_32() {
        let choices = |json| LeastRequest::configure(Config::new(json)).map(|it| it.choices);
        assert_eq!(choices("{}"), Ok(2));
        assert_eq!(choices(r#"{"choices":0}"#), Ok(0));
        assert_eq!(choices(r#"{"choices":32}"#), Ok(32));
        assert!(choices(r#"{"choices":33}"#).unwrap_err().contains("`choices` is more than 32"));
        assert_eq!(choices(r#"{"choice":1}"#).unwrap_err(), "unknown field `choice`, expected `choices`");
    }

    #[test]
    fn the_schema_names_the_options() {
        let schema: serde_json::Value = serde_json::from_str(include_str!("../schema.json")).unwrap();
        let named: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        // "unknown field `?`, expected one of `a`, `b`"
        let error = LeastRequest::configure(Config::new(r#"{"?":0}"#)).unwrap_err();
        let mut accepted: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        accepted.sort_unstable();
        assert_eq!(named, accepted);
    }
}
