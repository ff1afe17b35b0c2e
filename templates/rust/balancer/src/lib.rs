//! Of two endpoints taken at random, the one that is less loaded (Mitzenmacher, "The Power of Two Choices in Randomized
//! Load Balancing", 2001): nearly as even as asking all of them, and without the herd that runs to the same one.

wit_bindgen::generate!({ path: "wit", world: "balancer-plugin" });

use exports::moongate::plugin::balancer::{Endpoint, Guest as Balancer};
use exports::moongate::plugin::configurable::Guest as Configurable;
use moongate::plugin::endpoints;
use std::cell::RefCell;
use std::collections::HashMap;

/// What the operator writes; an unknown key is an error that names it.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    #[serde(default)]
    by: Load,
}

#[derive(Clone, Copy, Default, PartialEq, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Load {
    /// Requests in flight.
    #[default]
    Inflight,
    /// Mean time to the response head.
    Latency,
}

/// One configured use of the plugin.
#[derive(Default)]
struct Binding {
    by: Load,
    /// The indices of the endpoints that may be picked.
    choices: Vec<u32>,
}

thread_local! {
    static BINDINGS: RefCell<HashMap<u32, Binding>> = RefCell::default();
}

struct MyPlugin;

impl Configurable for MyPlugin {
    fn configure(binding: u32, config: String) -> Result<(), String> {
        let by = options(&config)?.by;
        BINDINGS.with_borrow_mut(|all| all.insert(binding, Binding { by, choices: Vec::new() }));
        Ok(())
    }
}

impl Balancer for MyPlugin {
    fn update(binding: u32, endpoints: Vec<Endpoint>) -> Result<(), String> {
        let choices = eligible(endpoints.iter().map(|endpoint| endpoint.weight));
        BINDINGS.with_borrow_mut(|all| all.entry(binding).or_default().choices = choices);
        Ok(())
    }

    fn pick(binding: u32, _sequence: u64, random: u64, attempt: u32) -> u32 {
        let picked = BINDINGS.with_borrow(|all| {
            let Binding { by, choices } = all.get(&binding)?;
            let load = |index| match by {
                Load::Inflight => endpoints::inflight(index),
                Load::Latency => endpoints::latency_us(index),
            };
            choose(choices, random, load, |index| attempt > 0 && endpoints::tried(index))
        });
        picked.unwrap_or(u32::MAX) // no opinion: the gateway picks, round robin
    }
}

fn options(config: &str) -> Result<Options, String> {
    serde_json::from_str(config).map_err(|error| error.to_string())
}

/// Weight 0 means only where every endpoint has 0.
fn eligible(weights: impl Iterator<Item = u32> + Clone) -> Vec<u32> {
    let all_zero = weights.clone().all(|weight| weight == 0);
    (0..).zip(weights).filter(|&(_, weight)| all_zero || weight > 0).map(|(index, _)| index).collect()
}

/// A retry, for which an endpoint is `tried`, goes elsewhere. None: nothing is left to pick.
fn choose(choices: &[u32], random: u64, load: impl Fn(u32) -> u32, tried: impl Fn(u32) -> bool) -> Option<u32> {
    let left: Vec<u32> = choices.iter().copied().filter(|&index| !tried(index)).collect();
    let count = left.len() as u64;
    if count < 2 {
        return left.first().copied();
    }
    // Two places out of one random number: its quotient is as random as its remainder.
    let (rest, first) = (random / count, random % count);
    let second = (first + 1 + rest % (count - 1)) % count;
    [left[first as usize], left[second as usize]].into_iter().min_by_key(|&index| load(index))
}

export!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn options_are_checked_by_name() {
        assert_eq!(options("{}").unwrap().by, Load::Inflight);
        assert_eq!(options(r#"{"by":"latency"}"#).unwrap().by, Load::Latency);
        for (config, words) in [(r#"{"bye":1}"#, "unknown field `bye`"), (r#"{"by":"weight"}"#, "`weight`, expected")] {
            let error = options(config).err().unwrap();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn weight_0_is_left_out_unless_all_are_0() {
        assert_eq!(eligible([0, 3, 0, 1].into_iter()), [1, 3]);
        assert_eq!(eligible([0, 0].into_iter()), [0, 1]);
        assert_eq!(eligible([].into_iter()), [0; 0]);
    }

    #[test]
    fn the_less_loaded_of_two_is_picked() {
        let load = |index| [5, 4, 9][index as usize];
        let picked = |choices: &[u32], load: &dyn Fn(u32) -> u32| -> BTreeSet<u32> {
            (0..16).map(|random| choose(choices, random, load, |_| false).unwrap()).collect()
        };
        assert_eq!(picked(&[0, 1], &load), [1].into());
        assert_eq!(picked(&[0, 1, 2], &load), [0, 1].into(), "the worst never wins");
        assert_eq!(picked(&[0, 1, 2], &|_| 0), [0, 1, 2].into());
    }

    #[test]
    fn a_retry_goes_elsewhere() {
        assert_eq!(choose(&[4, 5], 0, |_| 0, |index| index == 4), Some(5));
        assert_eq!(choose(&[4], 0, |_| 0, |_| true), None);
        assert_eq!(choose(&[], 0, |_| 0, |_| false), None);
    }
}
