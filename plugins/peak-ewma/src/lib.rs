//! Peak EWMA: of a few endpoints that are drawn, the one where a request is likely to be answered first.
//!
//! ```toml
//! balancer = { plugin = "peak-ewma", config = { choices = 2 } }
//! ```
//!
//! `choices`: how many endpoints are compared, 1 to 32, 2 if absent; 0: all of them, at two calls of the gateway each.
//!
//! The cost of an endpoint is its latency × (requests in flight / weight + 1), with weights relative to their mean. The
//! latency is the gateway's peak EWMA of the time to the response head, which a slow response raises at once and fast
//! ones lower gradually: the balancer of Finagle (`PeakEwma`) and Linkerd, with their power of two choices. Endpoints are
//! drawn in proportion to their weights.
//!
//! An endpoint without any response yet is tried first, but with a single request: until that is answered, one whose
//! latency is known is better, however slow (Finagle's penalty). If it has no response because it failed, it is tried
//! with one of 32 requests that could go there, or it would draw them all.

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
struct PeakEwma {
    /// 0: all.
    choices: u32,
    draw: Draw,
}

impl Balancer for PeakEwma {
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
        let probes = probes(turn);
        let cost = |index, weight| {
            let welcome = || probes || endpoints::failures(index) == 0;
            cost(endpoints::peak_us(index), endpoints::inflight(index), weight, welcome)
        };
        self.draw.least(turn, self.choices, cost)
    }
}

moongate_plugin::plugin!(PeakEwma: Balancer; schema = include_str!("../schema.json"));

/// Whether a request may try an endpoint that has only failed so far: one in 32.
fn probes(turn: Turn) -> bool {
    turn.random.is_multiple_of(32)
}

/// What a request to an endpoint costs; the penalty first, for which there is no latency to multiply. `welcome` is asked
/// only of an idle endpoint without a response.
fn cost(peak_us: u32, inflight: u32, weight: f64, welcome: impl FnOnce() -> bool) -> (bool, f64) {
    let busy = f64::from(inflight) / weight;
    match peak_us {
        0 if inflight == 0 && welcome() => (false, 0.0),
        0 => (true, busy),
        _ => (false, f64::from(peak_us) * (busy + 1.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moongate_plugin::hash::mix;

    fn balancer(json: &str, weights: &[u32]) -> PeakEwma {
        let endpoint = |&weight| Endpoint { address: String::new(), weight, zone: String::new(), labels: vec![] };
        let mut balancer = PeakEwma::configure(Config::new(json)).unwrap();
        balancer.update(weights.iter().map(endpoint).collect()).unwrap();
        balancer
    }

    /// An endpoint that answers each request after the same time, however many it has, or never; and what the gateway
    /// would know of it.
    #[derive(Clone, Default)]
    struct Server {
        /// 0: it never answers.
        latency_us: u32,
        peak_us: u32,
        ends: Vec<u64>,
        picks: u32,
    }

    /// A request comes every `interval_us`. The time that 99 % of those picked after the first 1000 stay below.
    fn simulate(servers: &mut [Server], interval_us: u64, pick: impl Fn(Turn, &[Server]) -> u32) -> u32 {
        let mut times = Vec::new();
        for sequence in 0..20_000 {
            let now = sequence * interval_us;
            for server in servers.iter_mut() {
                let before = server.ends.len();
                server.ends.retain(|&end| end > now);
                for _ in server.ends.len()..before {
                    server.peak_us = server.latency_us.max(server.peak_us - server.peak_us / 8);
                }
            }
            let picked = pick(Turn { sequence, random: mix(sequence), attempt: 0 }, servers);
            let server = &mut servers[picked as usize];
            server.picks += 1;
            let latency = if server.latency_us == 0 { u64::MAX / 2 } else { server.latency_us.into() };
            server.ends.push(now + latency);
            if sequence >= 1000 {
                times.push(server.latency_us);
            }
        }
        times.sort_unstable();
        times[times.len() * 99 / 100]
    }

    fn by_cost(balancer: &PeakEwma) -> impl Fn(Turn, &[Server]) -> u32 + '_ {
        |turn, servers| {
            let cost = |index: u32, weight| {
                let server = &servers[index as usize];
                cost(server.peak_us, server.ends.len() as u32, weight, || true)
            };
            balancer.draw.least(turn, balancer.choices, cost).unwrap()
        }
    }

    #[test]
    fn a_slow_endpoint_is_left_to_rest() {
        let mut servers = vec![Server { latency_us: 2000, ..Server::default() }; 10];
        servers[7].latency_us = 20_000;
        let turns = simulate(&mut servers.clone(), 1000, |turn, _| (turn.sequence % 10) as u32);
        let best = simulate(&mut servers, 1000, by_cost(&balancer("{}", &[1; 10])));
        assert!(best * 5 <= turns, "{best} {turns}");
        assert!(servers[7].picks < 100, "{}", servers[7].picks);
    }

    #[test]
    fn an_unknown_endpoint_gets_one_request_at_a_time() {
        let mut servers = vec![Server { latency_us: 2000, peak_us: 2000, ..Server::default() }; 4];
        servers[2] = Server::default();
        simulate(&mut servers, 100, by_cost(&balancer(r#"{"choices":0}"#, &[1; 4])));
        assert_eq!(servers[2].picks, 1, "it never answers");
        servers[2] = Server { latency_us: 1000, ..Server::default() };
        simulate(&mut servers, 100, by_cost(&balancer(r#"{"choices":0}"#, &[1; 4])));
        assert!(servers[2].picks > 5000, "it is the fastest: {}", servers[2].picks);
    }

    #[test]
    fn an_endpoint_that_only_failed_is_tried_now_and_then() {
        let failed = |probes| cost(0, 0, 1.0, || probes);
        assert!(failed(true) < cost(1, 0, 1.0, || true) && failed(false) > cost(u32::MAX, u32::MAX, 1.0, || true));
        let turn = |sequence| Turn { sequence, random: mix(sequence), attempt: 0 };
        let tried = (0..3200).filter(|&sequence| probes(turn(sequence))).count();
        assert!(tried.abs_diff(100) < 30, "{tried}");
    }

    #[test]
    fn cost_grows_with_latency_and_requests_and_falls_with_weight() {
        let cost = |peak, inflight, weight| cost(peak, inflight, weight, || true);
        assert_eq!(cost(100, 3, 1.0), (false, 400.0));
        assert_eq!(cost(100, 3, 1.5), (false, 300.0));
        assert!(cost(0, 1, 1.0) < cost(0, 2, 1.0), "unknown and busy: the one with less to do");
    }

    #[test]
    fn shares_are_the_weights_where_latencies_are_alike() {
        let mut servers = vec![Server { latency_us: 2000, ..Server::default() }; 4];
        simulate(&mut servers, 100, by_cost(&balancer("{}", &[3, 1, 0, 2])));
        for (server, due) in servers.iter().zip([10_000u32, 3333, 0, 6667]) {
            assert!(server.picks.abs_diff(due) < 700, "{} {due}", server.picks);
        }
    }

    #[test]
    fn choices_are_two_unless_said_and_at_most_32() {
        let choices = |json| PeakEwma::configure(Config::new(json)).map(|it| it.choices);
        assert_eq!(choices("{}"), Ok(2));
        assert_eq!(choices(r#"{"choices":0}"#), Ok(0));
        assert!(choices(r#"{"choices":33}"#).unwrap_err().contains("`choices` is more than 32"));
        assert_eq!(choices(r#"{"choice":1}"#).unwrap_err(), "unknown field `choice`, expected `choices`");
    }

    #[test]
    fn the_schema_names_the_options() {
        let schema: serde_json::Value = serde_json::from_str(include_str!("../schema.json")).unwrap();
        let named: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        // "unknown field `?`, expected one of `a`, `b`"
        let error = PeakEwma::configure(Config::new(r#"{"?":0}"#)).unwrap_err();
        let mut accepted: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        accepted.sort_unstable();
        assert_eq!(named, accepted);
    }
}
