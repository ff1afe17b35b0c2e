//! Strict round robin: the endpoints take turns, over all workers.

use moongate_plugin::{Balancer, Config, Endpoint, Turn, eligible};

#[derive(Default)]
struct RoundRobin {
    choices: Vec<u32>,
}

impl Balancer for RoundRobin {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        config.none().map(|()| Self::default())
    }

    fn update(&mut self, endpoints: Vec<Endpoint>) -> Result<(), String> {
        self.choices = eligible(&endpoints);
        Ok(())
    }

    fn pick(&mut self, turn: Turn) -> Option<u32> {
        let start = turn.sequence.checked_rem(self.choices.len() as u64)?;
        turn.untried_from(&self.choices, start as usize)
    }
}

moongate_plugin::plugin!(RoundRobin: Balancer);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_take_turns_and_weight_0_is_left_out() {
        let endpoint = |weight| Endpoint { address: String::new(), weight, zone: String::new(), labels: vec![] };
        let mut balancer = RoundRobin::default();
        let mut picks = |endpoints: &[u32], count| -> Vec<_> {
            balancer.update(endpoints.iter().map(|&weight| endpoint(weight)).collect()).unwrap();
            (0..count).map(|sequence| balancer.pick(Turn { sequence, random: 0, attempt: 0 })).collect()
        };
        assert_eq!(picks(&[1, 0, 5], 4), [Some(0), Some(2), Some(0), Some(2)]);
        assert_eq!(picks(&[0, 0], 3), [Some(0), Some(1), Some(0)]);
        assert_eq!(picks(&[], 1), [None]);
    }
}
