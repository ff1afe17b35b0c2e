//! In which order weighted endpoints take their turns: exactly by weight, and never in bunches.
//!
//! A schedule is a pure function of the weights and a sequence number, so that workers that share the number share
//! the rotation, and a new version of the plugin goes on where the old one was.

/// The longest rotation that is written down. 1,024 places of 2 bytes keep 5,000 services in 10 MB of the
/// instance's 64 MiB, and the work of `update`, places times endpoints, within a few milliseconds.
const WRITTEN: u64 = 1024;

/// One rotation, by position among the weights.
#[derive(Debug)]
pub(crate) enum Schedule {
    /// Smooth weighted round robin as in nginx: the best order there is.
    Smooth(Vec<u16>),
    /// For rotations too long to write down: each endpoint owns as many of `total` places as its weight says, and
    /// `sequence * stride` visits every place once a rotation, because the two have no divisor in common. With a
    /// stride near the golden ratio of `total`, any run of visits is spread evenly over the places. As exact over
    /// a rotation, only a little less smooth, and its memory is one number for an endpoint.
    Strided { ends: Vec<u64>, total: u64, stride: u64 },
}

impl Schedule {
    pub(crate) fn new(weights: &[u32]) -> Self {
        let divisor = weights.iter().fold(0, |divisor, &weight| gcd(divisor, u64::from(weight))).max(1);
        let weights: Vec<u64> = weights.iter().map(|&weight| u64::from(weight) / divisor).collect();
        let total = weights.iter().sum();
        if total <= WRITTEN {
            return Self::Smooth(smooth(&weights, total as i64));
        }
        let ends = weights.iter().scan(0, |end, &weight| {
            *end += weight;
            Some(*end)
        });
        let mut stride = if total == weights.len() as u64 { 1 } else { (total as f64 * 0.618_033_988_75) as u64 };
        while gcd(stride, total) != 1 {
            stride += 1;
        }
        Self::Strided { ends: ends.collect(), total, stride }
    }

    /// Whose turn it is; none if there are no weights, or only 0.
    pub(crate) fn at(&self, sequence: u64) -> Option<usize> {
        match self {
            Self::Smooth(order) => {
                let place = sequence.checked_rem(order.len() as u64)?;
                Some(order[place as usize].into())
            }
            Self::Strided { ends, total, stride } => {
                // Both factors are below 2^32 as long as there are fewer than 65,536 endpoints of the highest weight.
                let place = (sequence % total).wrapping_mul(*stride) % total;
                Some(ends.partition_point(|&end| end <= place))
            }
        }
    }
}

/// Each turn every endpoint gains its weight; the richest is picked and pays the total.
fn smooth(weights: &[u64], total: i64) -> Vec<u16> {
    if total == weights.len() as i64 {
        return (0..weights.len() as u16).collect(); // All alike: what the rule gives, without the work.
    }
    let mut credits = vec![0; weights.len()];
    let turn = |_| {
        let mut richest = 0;
        for index in 0..weights.len() {
            credits[index] += weights[index] as i64;
            if credits[index] > credits[richest] {
                richest = index;
            }
        }
        credits[richest] -= total;
        richest as u16
    };
    (0..total).map(turn).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(weights: &[u32], picks: u64) -> Vec<u64> {
        let schedule = Schedule::new(weights);
        let mut counts = vec![0; weights.len()];
        (0..picks).for_each(|sequence| counts[schedule.at(sequence).unwrap()] += 1);
        counts
    }

    #[test]
    fn shares_are_exact() {
        assert_eq!(counts(&[5, 3, 2], 1000), [500, 300, 200]);
        assert_eq!(counts(&[50, 30, 20], 10), [5, 3, 2], "the rotation is as short as it can be");
        assert_eq!(counts(&[1, 1, 1], 9), [3, 3, 3]);
        assert_eq!(counts(&[7], 5), [5]);
        assert_eq!(counts(&[65_535, 1, 4_000], 69_536), [65_535, 1, 4_000]);
        assert_eq!(counts(&[1; 3000], 6000), [2; 3000]);
    }

    #[test]
    fn the_order_is_nginx_s() {
        let order = |weights: &[u32], picks| -> Vec<_> {
            let schedule = Schedule::new(weights);
            (0..picks).map(|sequence| schedule.at(sequence).unwrap()).collect()
        };
        assert_eq!(order(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(order(&[5, 3, 2], 10), [0, 1, 2, 0, 0, 1, 0, 2, 1, 0]);
        assert_eq!(order(&[1, 1, 1], 4), [0, 1, 2, 0]);
    }

    /// After any number of picks each endpoint has had its share, give or take a few.
    fn worst_lead(weights: &[u32], picks: u64) -> f64 {
        let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        let schedule = Schedule::new(weights);
        let mut counts = vec![0.0; weights.len()];
        let mut worst = 0.0f64;
        for sequence in 0..picks {
            counts[schedule.at(sequence).unwrap()] += 1.0;
            for (count, &weight) in counts.iter().zip(weights) {
                let due = (sequence + 1) as f64 * f64::from(weight) / total;
                worst = worst.max((count - due).abs());
            }
        }
        worst
    }

    #[test]
    fn nobody_is_far_ahead_or_behind() {
        assert!(worst_lead(&[5, 3, 2], 1000) < 1.0);
        assert!(worst_lead(&[100, 7, 7, 7, 1], 1000) < 2.0);
        assert!(worst_lead(&[40_000, 30_011, 20_000, 999], 91_010) < 5.0, "a strided schedule is nearly as smooth");
    }

    #[test]
    fn nothing_to_pick_from_is_none() {
        assert_eq!(Schedule::new(&[]).at(3), None);
        assert_eq!(Schedule::new(&[0, 0]).at(3), None);
    }

    #[test]
    fn the_greatest_weights_do_not_overflow() {
        let schedule = Schedule::new(&[65_535, 65_534].repeat(30_000));
        assert!((0..1000).chain(u64::MAX - 1000..u64::MAX).all(|sequence| schedule.at(sequence).unwrap() < 60_000));
    }
}
