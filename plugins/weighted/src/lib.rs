//! Weighted round robin: exact shares in a smooth order, over all workers.

mod schedule;

use moongate_plugin::{Balancer, Config, Endpoint, Turn, eligible};
use schedule::Schedule;

struct Weighted {
    choices: Vec<u32>,
    schedule: Schedule,
}

impl Balancer for Weighted {
    fn configure(config: Config<'_>) -> Result<Self, String> {
        config.none().map(|()| Self { choices: Vec::new(), schedule: Schedule::new(&[]) })
    }

    fn update(&mut self, endpoints: Vec<Endpoint>) -> Result<(), String> {
        self.choices = eligible(&endpoints);
        // Where every weight is 0, all count alike.
        let weight = |&index: &u32| endpoints[index as usize].weight.max(1);
        self.schedule = Schedule::new(&self.choices.iter().map(weight).collect::<Vec<_>>());
        Ok(())
    }

    fn pick(&mut self, turn: Turn) -> Option<u32> {
        // A retry takes the next endpoint in the schedule that was not tried.
        let mut start = self.schedule.at(turn.sequence)?;
        for ahead in 1..=u64::from(turn.attempt) * 8 {
            if !turn.tried(self.choices[start]) {
                break;
            }
            start = self.schedule.at(turn.sequence.wrapping_add(ahead))?;
        }
        // The few turns ahead may all belong to heavy endpoints that failed: then the next one in the list.
        turn.untried_from(&self.choices, start)
    }
}

moongate_plugin::plugin!(Weighted: Balancer);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_decide_and_0_is_left_out_unless_all_are_0() {
        let endpoint = |weight| Endpoint { address: String::new(), weight, zone: String::new(), labels: vec![] };
        let mut balancer = Weighted::configure(Config::new("{}")).unwrap();
        let mut counts = |weights: &[u32], picks| {
            balancer.update(weights.iter().map(|&weight| endpoint(weight)).collect()).unwrap();
            let mut counts = vec![0; weights.len()];
            for sequence in 0..picks {
                let index = balancer.pick(Turn { sequence, random: 0, attempt: 0 }).unwrap();
                counts[index as usize] += 1;
            }
            counts
        };
        assert_eq!(counts(&[5, 3, 2], 1000), [500, 300, 200]);
        assert_eq!(counts(&[2, 0, 1], 6), [4, 0, 2]);
        assert_eq!(counts(&[0, 0], 6), [3, 3]);
        assert!(counts(&[], 0).is_empty());
    }
}
