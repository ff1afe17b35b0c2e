//! What was measured, as it is kept: every round, so that whoever doubts a number can look.

use serde::{Deserialize, Serialize};

use crate::cpu::Memory;
use crate::load::Outcome;
use crate::rounds::Options;
use crate::workload::Workload;

/// One measurement of one contender.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) outcome: Outcome,
    /// Of the proxy, right after.
    pub(crate) memory: Memory,
    /// Bytes that an idle connection took; 0 where that is not the question.
    pub(crate) for_each_connection: f64,
}

impl Round {
    /// Microseconds on a processor for each request.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.outcome.used.seconds * 1e6 / self.outcome.requests.max(1) as f64
    }

    pub(crate) fn user_us(&self) -> f64 {
        self.outcome.used.user_seconds * 1e6 / self.outcome.requests.max(1) as f64
    }

    pub(crate) fn requests_a_second(&self) -> f64 {
        self.outcome.requests as f64 / self.outcome.seconds.max(1e-9)
    }

    /// How busy the proxy was; near 1 for each worker it was what limited the load.
    pub(crate) fn utilisation(&self) -> f64 {
        self.outcome.used.seconds / self.outcome.seconds.max(1e-9)
    }

    /// What the workload is about: processor time, or memory.
    pub(crate) fn cost(&self) -> f64 {
        if self.for_each_connection > 0.0 { self.for_each_connection } else { self.cpu_us() }
    }
}

/// A contender with its rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) kind: String,
    /// Whose cost its own is divided by.
    pub(crate) against: String,
    pub(crate) rounds: Vec<Round>,
}

/// Middle, least and most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut all: Vec<f64> = values.into_iter().filter(|it| it.is_finite()).collect();
        all.sort_by(f64::total_cmp);
        let (&least, &most) = (all.first()?, all.last()?);
        let middle = all.len() / 2;
        let median = if all.len() % 2 == 1 { all[middle] } else { (all[middle - 1] + all[middle]) / 2.0 };
        Some(Spread { median, least, most })
    }
}

impl Row {
    /// The median of something over the rounds.
    pub(crate) fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        Spread::of(self.rounds.iter().map(of)).map_or(f64::NAN, |it| it.median)
    }

    /// Its cost divided by another's, round by round.
    pub(crate) fn ratio(&self, to: &Row) -> Option<Spread> {
        Spread::of(self.rounds.iter().zip(&to.rounds).map(|(mine, its)| mine.cost() / its.cost()))
    }
}

/// A workload with everybody who took part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// How many threads wanted to run on the machine, when it began.
    pub(crate) machine_load: f64,
    pub(crate) rows: Vec<Row>,
    /// Who was left out, and why.
    pub(crate) notes: Vec<String>,
}

impl Measured {
    pub(crate) fn new(workload: &Workload, options: &Options) -> Measured {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Measured {
            name: workload.name.into(),
            about: workload.about.into(),
            rounds: options.rounds,
            seconds: options.seconds,
            machine_load: load.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or(0.0),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(crate) fn row(&self, label: &str) -> Option<&Row> {
        self.rows.iter().find(|it| it.label == label)
    }

    /// Whether it is about memory.
    pub(crate) fn is_idle(&self) -> bool {
        self.rows.iter().flat_map(|it| &it.rounds).any(|it| it.for_each_connection > 0.0)
    }
}

/// A run of the benchmark.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The machine and the versions of who took part.
    pub(crate) about: Vec<String>,
    pub(crate) workloads: Vec<Measured>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let spread = |all: &[f64]| Spread::of(all.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(spread(&[f64::NAN]), None);
    }
}
