//! Every endpoint with the same chance, whatever its weight (but 0).

use moongate_plugin::{Balancer, Config, Endpoint, Turn, eligible};

#[derive(Default)]
struct Random {
    choices: Vec<u32>,
}

impl Balancer for Random {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        config.none().map(|()| Self::default())
    }

    fn update(&mut self, endpoints: Vec<Endpoint>) -> Result<(), String> {
        self.choices = eligible(&endpoints);
        Ok(())
    }

    fn pick(&mut self, turn: Turn) -> Option<u32> {
        if turn.attempt > 0 {
            // Among those left, so that the load of a failed endpoint does not fall on its neighbour.
            let left: Vec<u32> = self.choices.iter().copied().filter(|&index| !turn.tried(index)).collect();
            if !left.is_empty() {
                return draw(&left, turn.random);
            }
        }
        draw(&self.choices, turn.random)
    }
}

moongate_plugin::plugin!(Random: Balancer);

/// One of `choices`; none if there are none. Multiply and shift: no endpoint is more likely than another by more
/// than `choices.len()` in 2^32, and there is no division.
fn draw(choices: &[u32], random: u64) -> Option<u32> {
    choices.get((((random >> 32) * choices.len() as u64) >> 32) as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_has_the_same_chance() {
        let choices: Vec<u32> = (0..10).collect();
        let mut counts = [0u32; 10];
        let mut state = 42u64;
        for _ in 0..100_000 {
            // SplitMix64 with a fixed seed.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut random = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            counts[draw(&choices, random ^ (random >> 31)).unwrap() as usize] += 1;
        }
        let chi_square: f64 = counts.iter().map(|&count| (f64::from(count) - 10_000.0).powi(2) / 10_000.0).sum();
        // Nine degrees of freedom: more than 27.9 has a chance of one in a thousand.
        assert!(chi_square < 27.9, "{chi_square} {counts:?}");
    }

    #[test]
    fn the_ends_of_the_range_are_endpoints() {
        assert_eq!(draw(&[7, 8, 9], 0), Some(7));
        assert_eq!(draw(&[7, 8, 9], u64::MAX), Some(9));
        assert_eq!(draw(&[], 1), None);
    }
}
