//! A balancer that picks the endpoint with the fewest requests in flight.
//!
//! It uses nothing but the gateway's WIT, so it shows what is behind the SDK: one instance serves many bindings,
//! and every call names its own.

wit_bindgen::generate!({ path: "wit", world: "balancer-plugin" });

use exports::moongate::plugin::balancer::{Endpoint, Guest as Balancer};
use exports::moongate::plugin::configurable::Guest as Configurable;
use moongate::plugin::endpoints;

struct LeastInflight;

impl Configurable for LeastInflight {
    fn configure(_binding: u32, config: String) -> Result<(), String> {
        match config.trim() {
            "{}" => Ok(()),
            _ => Err("least-inflight has no options".into()),
        }
    }
}

impl Balancer for LeastInflight {
    /// Nothing to remember: the gateway counts, and knows how many endpoints there are.
    fn update(_binding: u32, _endpoints: Vec<Endpoint>) -> Result<(), String> {
        Ok(())
    }

    fn pick(_binding: u32, sequence: u64, _random: u64, attempt: u32) -> u32 {
        least(&endpoints::inflight_all(), sequence, |index| attempt > 0 && endpoints::tried(index)).unwrap_or(u32::MAX) // no opinion
    }
}

/// The least loaded endpoint. Those that already failed come last; among equals the sequence decides where to
/// begin, so that idle endpoints take turns.
fn least(inflight: &[u32], sequence: u64, tried: impl Fn(u32) -> bool) -> Option<u32> {
    let count = inflight.len() as u64;
    let start = sequence.checked_rem(count)?;
    (0..count).map(|step| ((start + step) % count) as u32).min_by_key(|&index| (tried(index), inflight[index as usize]))
}

export!(LeastInflight);

#[cfg(test)]
mod tests {
    use super::least;

    #[test]
    fn the_idlest_is_picked_and_equals_take_turns() {
        assert_eq!(least(&[3, 1, 2], 0, |_| false), Some(1));
        assert_eq!([0, 1, 2, 3].map(|sequence| least(&[1, 1, 1], sequence, |_| false).unwrap()), [0, 1, 2, 0]);
        assert_eq!(least(&[3, 1, 2], 0, |index| index == 1), Some(2), "a retry goes elsewhere");
        assert_eq!(least(&[], 0, |_| false), None);
    }
}
