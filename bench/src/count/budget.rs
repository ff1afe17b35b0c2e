//! How much a request may cost: a file with what was counted when somebody last agreed, and how much more is still the
//! same.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

const HEAD: &str =
    "# What a request of Moongate's costs: `cargo run --release -p bench -- count` compares, and `--bless` writes this
# file. Smaller is better; whoever raises a number says in the commit what was bought with it.

";

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Budget {
    /// How much more than the number is still within it: 0.02 is two in a hundred.
    allowance: f64,
    /// By case.
    instructions: BTreeMap<String, f64>,
    /// By case.
    system_calls: BTreeMap<String, f64>,
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Instructions,
    SystemCalls,
}

impl Budget {
    /// An empty one where there is no file.
    pub(super) fn load(file: &Path) -> Result<Budget> {
        match std::fs::read_to_string(file) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("in {}", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Budget { allowance: 0.02, instructions: BTreeMap::new(), system_calls: BTreeMap::new() })
            }
            Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
        }
    }

    pub(super) fn save(&self, file: &Path) -> Result<()> {
        let text = format!("{HEAD}{}", toml::to_string(self)?);
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }

    /// Compares and prints; with `bless` the number becomes the budget. `false`: it is above, or has no budget.
    pub(super) fn hold(&mut self, kind: Kind, case: &str, counted: f64, bless: bool) -> bool {
        let (budget, name) = match kind {
            Kind::Instructions => (&mut self.instructions, "instructions"),
            Kind::SystemCalls => (&mut self.system_calls, "system calls"),
        };
        if bless {
            budget.insert(case.to_owned(), counted);
        }
        let most = budget.get(case).map(|it| it * (1.0 + self.allowance));
        let within = most.is_some_and(|it| counted <= it);
        let number = |it: Option<f64>| it.map_or("none".into(), |it| format!("{it:.2}"));
        println!(
            "{:28} {counted:>10.2} {:>10} {:>10}{}",
            format!("{name}, {case}"),
            number(budget.get(case).copied()),
            number(most),
            if within { "" } else { "   ABOVE" }
        );
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_the_budget_does_not_hold() {
        let mut budget: Budget =
            toml::from_str("allowance = 0.02\n[instructions]\nsmall = 1000.0\n[system_calls]\n").unwrap();
        assert!(budget.hold(Kind::Instructions, "small", 1020.0, false));
        assert!(!budget.hold(Kind::Instructions, "small", 1021.0, false));
        assert!(!budget.hold(Kind::Instructions, "new", 1.0, false), "without a budget nothing is within it");
        assert!(budget.hold(Kind::Instructions, "small", 2000.0, true));
        let text = toml::to_string(&budget).unwrap();
        assert!(text.contains("small = 2000.0"), "{text}");
    }
}
