//! Maglev hashing: requests with the same key go to the same endpoint, and the keys are shared almost exactly.
//!
//! ```toml
//! balancer = { plugin = "maglev", config = { by = { cookie = "id" }, table = 65537 } }
//! ```
//!
//! - `by`: the key, `"client-address"`, `"path"`, `"authority"`, `"method"`, `{ header = "NAME" }`, `{ cookie = "NAME" }`
//!   or `{ query = "NAME" }`. A request without it goes where the gateway sends it by itself.
//! - `table`: entries of the table, a prime up to 5,000,011, 65,537 if absent. It should be 100 times the number of
//!   endpoints, so that shares are exact to a percent. An entry takes two bytes for each use of the balancer, and to
//!   fill 65,537 takes two or three of the milliseconds that a call may take: far larger tables need a higher
//!   `plugins.call_timeout`.
//!
//! Compared with `consistent-hash` the shares are more even and a pick is one look at a table, but when one of n
//! endpoints goes, about a percent of the keys of others move as well as its own, and there is no bound on the load.
//! Weights are shares, as in Envoy's MAGLEV. Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network
//! Load Balancer" (2016).

mod table;

use moongate_plugin::{
    Balancer, Config, Endpoint, Turn, eligible,
    keys::{By, Key},
};
use table::Table;

/// What the operator writes.
#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    by: By,
    #[serde(default = "size")]
    table: u32,
}

fn size() -> u32 {
    65_537
}

/// What the paper's authors call large; a prime.
const LARGEST: u32 = 5_000_011;

impl Options {
    fn parse(config: Config<'_>) -> Result<Self, String> {
        let options: Self = config.parse()?;
        let size = options.table;
        if !(2..=LARGEST).contains(&size) {
            return Err("`table` must be a prime from 2 to 5000011, such as 65537".into());
        }
        if !is_prime(size) {
            let next = (size..).find(|&number| is_prime(number)).unwrap_or(LARGEST);
            return Err(format!("`table` is {size}, which is no prime: the next one is {next}"));
        }
        Ok(options)
    }
}

fn is_prime(number: u32) -> bool {
    number > 1 && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

struct Maglev {
    key: Key,
    size: u32,
    table: Table,
}

impl Balancer for Maglev {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        let options = Options::parse(config)?;
        Ok(Self { key: options.by.declare(), size: options.table, table: Table::default() })
    }

    fn update(&mut self, endpoints: Vec<Endpoint>) -> Result<(), String> {
        self.table.fill(&endpoints, &eligible(&endpoints), self.size)
    }

    fn pick(&mut self, turn: Turn) -> Option<u32> {
        match self.key.hash() {
            0 => None,
            // What follows an entry belongs to anybody: the keys of one that fails are spread over all others.
            key => turn.untried(self.table.from(key)),
        }
    }
}

moongate_plugin::plugin!(Maglev: Balancer; schema = include_str!("../schema.json"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_defaults_and_mistakes_are_named() {
        let parse = |json: &str| Options::parse(Config::new(json));
        assert_eq!(parse(r#"{"by":"path"}"#), Ok(Options { by: By::Path, table: 65_537 }));
        for size in [2, 251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071, 5_000_011] {
            let json = format!(r#"{{"by":"method","table":{size}}}"#);
            assert_eq!(parse(&json), Ok(Options { by: By::Method, table: size }));
        }
        for (json, words) in [
            ("{}", "missing field `by`"),
            (r#"{"by":"path","table":65536}"#, "`table` is 65536, which is no prime: the next one is 65537"),
            (r#"{"by":"path","table":4}"#, "the next one is 5"),
            (r#"{"by":"path","table":1}"#, "`table` must be a prime from 2 to 5000011"),
            (r#"{"by":"path","table":5000012}"#, "`table` must be a prime from 2 to 5000011"),
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
