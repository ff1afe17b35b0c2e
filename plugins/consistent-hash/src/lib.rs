//! Consistent hashing with bounded loads: requests with the same key go to the same endpoint, unless it has too much
//! to do.
//!
//! ```toml
//! balancer = { plugin = "consistent-hash", config = { by = { header = "x-user" }, load_factor = 1.25 } }
//! ```
//!
//! - `by`: the key, `"client-address"`, `"path"`, `"authority"`, `"method"`, `{ header = "NAME" }`, `{ cookie = "NAME" }`
//!   or `{ query = "NAME" }`. A request without it goes where the gateway sends it by itself.
//! - `load_factor`: an endpoint takes at most this many times its share (by weight) of the requests in flight, rounded up;
//!   what is more goes on to the next endpoint on the ring that has room. 1.25 if absent, at least 1: the lower, the more
//!   even the load and the more keys stray under load. 0: no bound, so that a key never strays.
//! - `points`: points on the ring for each unit of weight, 1 to 1024, 160 if absent. More of them share the keys more
//!   evenly: with p points, an endpoint's share is off by about 1/√p. Each takes 10 bytes; where weights are in the
//!   hundreds a few will do. A ring has 131,072 at most, and beyond that fewer for each endpoint.
//!
//! When one of n endpoints goes, its keys (about 1/n) move, and no others; when one comes, those that it gets. Sources:
//! Karger et al., "Consistent Hashing and Random Trees" (1997); Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing
//! with Bounded Loads" (2016).

mod ring;

use moongate_plugin::{
    Balancer, Config, Endpoint, Turn, eligible, endpoints,
    keys::{By, Key},
};
use ring::Ring;

/// What the operator writes.
#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    by: By,
    #[serde(default = "load_factor")]
    load_factor: f64,
    #[serde(default = "points")]
    points: u32,
}

fn load_factor() -> f64 {
    1.25
}

fn points() -> u32 {
    160
}

impl Options {
    fn parse(config: Config<'_>) -> Result<Self, String> {
        let options: Self = config.parse()?;
        if options.load_factor != 0.0 && !(1.0..f64::INFINITY).contains(&options.load_factor) {
            return Err("`load_factor` must be at least 1, such as 1.25, or 0 for no bound".into());
        }
        if !(1..=1024).contains(&options.points) {
            return Err("`points` must be 1 to 1024".into());
        }
        Ok(options)
    }
}

struct ConsistentHash {
    key: Key,
    points: u32,
    placement: Placement,
}

impl Balancer for ConsistentHash {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        let options = Options::parse(config)?;
        let placement = Placement::new(options.load_factor);
        Ok(Self { key: options.by.declare(), points: options.points, placement })
    }

    fn update(&mut self, endpoints: Vec<Endpoint>) -> Result<(), String> {
        self.placement.update(&endpoints, self.points);
        Ok(())
    }

    fn pick(&mut self, turn: Turn) -> Option<u32> {
        match self.key.hash() {
            0 => None,
            key => self.placement.pick(key, turn, endpoints::inflight, endpoints::inflight_all),
        }
    }
}

moongate_plugin::plugin!(ConsistentHash: Balancer; schema = include_str!("../schema.json"));

/// Where keys belong, and where they go.
#[derive(Debug, Default)]
struct Placement {
    /// 0: no bound.
    load_factor: f64,
    ring: Ring,
    /// By index, what part of the requests in flight an endpoint takes; 0 for those that get none.
    bounds: Vec<f64>,
}

impl Placement {
    fn new(load_factor: f64) -> Self {
        Self { load_factor, ..Self::default() }
    }

    fn update(&mut self, endpoints: &[Endpoint], points: u32) {
        let eligible = eligible(endpoints);
        let weight = |index: u32| f64::from(endpoints[index as usize].weight.max(1));
        let total: f64 = eligible.iter().map(|&index| weight(index)).sum();
        self.bounds = vec![0.0; endpoints.len()];
        for &index in &eligible {
            self.bounds[index as usize] = self.load_factor * weight(index) / total;
        }
        self.ring = Ring::new(endpoints, &eligible, points);
    }

    /// The first endpoint on the ring from the key on that has room and did not fail the request; where none has room,
    /// the first that did not fail. None if there are no endpoints.
    fn pick(
        &self,
        key: u64,
        turn: Turn,
        inflight: impl Fn(u32) -> u32,
        inflight_all: impl FnOnce() -> Vec<u32>,
    ) -> Option<u32> {
        let around = self.ring.from(key);
        if self.load_factor == 0.0 {
            return turn.untried(around);
        }
        let first = around.clone().next()?;
        // Any bound leaves room for one: the usual case costs one call.
        if turn.attempt == 0 && inflight(first) == 0 {
            return Some(first);
        }
        let inflight = inflight_all();
        let counted = |(&inflight, &bound): (&u32, &f64)| if bound > 0.0 { f64::from(inflight) } else { 0.0 };
        let with_this = inflight.iter().zip(&self.bounds).map(counted).sum::<f64>() + 1.0;
        // A whole number is below the bound rounded up exactly if it is below the bound.
        let room = |&index: &u32| f64::from(inflight[index as usize]) < self.bounds[index as usize] * with_this;
        turn.untried(around.clone().filter(room).chain(around))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moongate_plugin::hash::mix;

    const TURN: Turn = Turn { sequence: 0, random: 0, attempt: 0 };

    fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
        let address = |number| format!("10.0.0.{number}:80");
        let endpoint =
            |(number, &weight)| Endpoint { address: address(number), weight, zone: String::new(), labels: vec![] };
        weights.iter().enumerate().map(endpoint).collect()
    }

    fn placement(load_factor: f64, endpoints: &[Endpoint]) -> Placement {
        let mut placement = Placement::new(load_factor);
        placement.update(endpoints, 160);
        placement
    }

    fn pick(placement: &Placement, key: u64, inflight: &[u32]) -> Option<u32> {
        placement.pick(key, TURN, |index| inflight[index as usize], || inflight.to_vec())
    }

    /// Where each key goes if all of them are in flight at once.
    fn place(placement: &Placement, count: usize, keys: u64) -> (Vec<u32>, Vec<u32>) {
        let mut inflight = vec![0; count];
        let mut places = Vec::new();
        for key in 0..keys {
            let index = pick(placement, mix(key), &inflight).unwrap();
            inflight[index as usize] += 1;
            places.push(index);
        }
        (places, inflight)
    }

    #[test]
    fn nobody_takes_more_than_the_bound() {
        for weights in [&[1; 10][..], &[1, 2, 0, 5], &[0, 0, 0]] {
            for load_factor in [1.0, 1.25, 2.0] {
                let (_, inflight) = place(&placement(load_factor, &endpoints(weights)), weights.len(), 10_000);
                let all_alike = weights.iter().all(|&weight| weight == 0);
                let weight = |weight: u32| f64::from(if all_alike { 1 } else { weight });
                let total: f64 = weights.iter().map(|&it| weight(it)).sum();
                for (&inflight, &it) in inflight.iter().zip(weights) {
                    let bound = (load_factor * 10_000.0 * weight(it) / total).ceil();
                    assert!(f64::from(inflight) <= bound, "{weights:?} {load_factor}: {inflight} {bound}");
                }
            }
        }
    }

    #[test]
    fn few_keys_move_under_load_and_none_stray_without_a_bound() {
        for count in [3, 5, 10, 20] {
            let list = endpoints(&vec![1; count]);
            let left = &list[..count - 1];
            for (load_factor, more) in [(0.0, 0.05), (1.25, 0.10)] {
                let (before, _) = place(&placement(load_factor, &list), count, 10_000);
                let (after, _) = place(&placement(load_factor, left), count - 1, 10_000);
                let moved = before.iter().zip(&after).filter(|(was, is)| was != is).count() as f64;
                assert!(moved <= 10_000.0 * (1.0 / count as f64 + more), "{count} {load_factor}: {moved}");
            }
        }
    }

    #[test]
    fn a_key_stays_until_its_endpoint_is_full() {
        let placement = placement(1.25, &endpoints(&[1, 1, 1, 1]));
        let home = pick(&placement, 77, &[0; 4]).unwrap() as usize;
        let mut inflight = [10; 4];
        // 41 requests with this one: at most 12.8 each.
        assert_eq!(pick(&placement, 77, &inflight), Some(home as u32));
        inflight[home] = 40;
        let other = pick(&placement, 77, &inflight).unwrap();
        assert_ne!(other, home as u32);
        inflight[other as usize] = 40;
        assert!(![home as u32, other].contains(&pick(&placement, 77, &inflight).unwrap()));
    }

    #[test]
    fn without_endpoints_there_is_none() {
        assert_eq!(pick(&placement(1.25, &[]), 5, &[]), None);
        assert_eq!(pick(&placement(0.0, &[]), 5, &[]), None);
    }

    #[test]
    fn options_have_defaults_and_mistakes_are_named() {
        let parse = |json| Options::parse(Config::new(json));
        assert_eq!(parse(r#"{"by":"path"}"#), Ok(Options { by: By::Path, load_factor: 1.25, points: 160 }));
        let by = By::Query("user".into());
        let json = r#"{"by":{"query":"user"},"load_factor":2,"points":1024}"#;
        assert_eq!(parse(json), Ok(Options { by, load_factor: 2.0, points: 1024 }));
        assert!(parse(r#"{"by":"path","load_factor":0}"#).is_ok());
        for (json, words) in [
            ("{}", "missing field `by`"),
            (r#"{"by":"user"}"#, "`by` as"),
            (r#"{"by":"path","load_factor":0.5}"#, "`load_factor` must be at least 1"),
            (r#"{"by":"path","load_factor":-1}"#, "`load_factor` must be at least 1"),
            (r#"{"by":"path","points":0}"#, "`points` must be 1 to 1024"),
            (r#"{"by":"path","points":1025}"#, "`points` must be 1 to 1024"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
    }

    #[test]
    fn the_schema_names_the_options() {
        let schema: serde_json::Value = serde_json::from_str(include_str!("../schema.json")).unwrap();
        let named: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        // "unknown field `?`, expected one of `a`, `b`"
        let error = Options::parse(Config::new(r#"{"?":0}"#)).unwrap_err();
        let mut accepted: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        accepted.sort_unstable();
        assert_eq!(named, accepted);
    }
}
