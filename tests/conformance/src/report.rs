//! The table of all runs, for a terminal, for the documentation, and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::case::Severity;
use crate::cases::GROUPS;
use crate::run::{Run, State};

/// The runs of one call.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order of the columns.
    pub runs: Vec<Run>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    passed: usize,
    asked: usize,
    unsafe_: usize,
    not_offered: usize,
}

impl Count {
    fn of(run: &Run, group: Option<&str>) -> Count {
        let mut count = Count::default();
        for verdict in run.verdicts.iter().filter(|it| group.is_none_or(|group| it.group == group)) {
            match verdict.state {
                State::Passed | State::PassedLater => count.passed += 1,
                State::Failed(_) if verdict.severity == Severity::Safety => count.unsafe_ += 1,
                State::Failed(_) => {}
                State::NotOffered(_) => {
                    count.not_offered += 1;
                    continue;
                }
            }
            count.asked += 1;
        }
        count
    }

    fn text(self) -> String {
        let unsafe_ = if self.unsafe_ > 0 { format!(" !{}", self.unsafe_) } else { String::new() };
        let lacking = if self.not_offered > 0 { format!(" -{}", self.not_offered) } else { String::new() };
        format!("{}/{}{unsafe_}{lacking}", self.passed, self.asked)
    }
}

impl Report {
    /// A row for each group and one for all, a column for each gateway, in Markdown (which reads as a table as it is).
    pub fn table(&self) -> String {
        let mut rows = vec![vec!["group".to_owned()]];
        rows[0].extend(self.runs.iter().map(|it| format!("{} {}", it.kind, it.version).trim().to_owned()));
        let groups = GROUPS.iter().map(|(name, _)| Some(*name)).chain([None]);
        for group in groups {
            let counts: Vec<Count> = self.runs.iter().map(|run| Count::of(run, group)).collect();
            if counts.iter().all(|it| it.asked + it.not_offered == 0) {
                continue;
            }
            let name = group.map_or("**all**".to_owned(), str::to_owned);
            rows.push([name].into_iter().chain(counts.into_iter().map(Count::text)).collect());
        }
        let widths: Vec<usize> =
            (0..rows[0].len()).map(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or(0)).collect();
        let line = |row: &[String]| {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        let mut text = line(&rows[0]) + &line(&rule);
        text.extend(rows[1..].iter().map(|row| line(row)));
        text.push_str(
            "\npassed/asked; `!n`: failures that matter for safety; `-n`: cases about something not offered\n",
        );
        text
    }

    /// Each failure with what was expected and seen.
    pub fn failures(&self) -> String {
        let mut text = String::new();
        for run in &self.runs {
            let failures = run.failures();
            let _ = writeln!(text, "\n{}: {} failures in {:.0?}", run.kind, failures.len(), run.took);
            for (id, what) in failures {
                let _ = writeln!(text, "  {id}: {what}");
            }
            for later in run.verdicts.iter().filter(|it| matches!(it.state, State::PassedLater)) {
                let _ = writeln!(text, "  {}/{}: passed when run again", later.group, later.id);
            }
        }
        text
    }

    /// The cases that all of several gateways fail: the first to ask whether they judge fairly.
    pub fn failed_by_all(&self) -> Vec<String> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (id, _) in self.runs.iter().flat_map(Run::failures) {
            *counts.entry(id).or_default() += 1;
        }
        counts.into_iter().filter(|(_, count)| *count == self.runs.len() && *count > 1).map(|(id, _)| id).collect()
    }

    /// Everything, by gateway and case.
    pub fn json(&self) -> Value {
        let run = |run: &Run| {
            let cases: Vec<Value> = run
                .verdicts
                .iter()
                .map(|it| {
                    let (state, detail) = match &it.state {
                        State::Passed => ("passed", Value::Null),
                        State::PassedLater => ("passed later", Value::Null),
                        State::Failed(it) => ("failed", json!({ "expected": it.expected, "seen": it.seen })),
                        State::NotOffered(why) => ("not offered", (*why).into()),
                    };
                    json!({
                        "group": it.group, "id": it.id, "reference": it.reference,
                        "severity": it.severity.to_string(), "state": state, "detail": detail,
                        "milliseconds": it.took.as_millis() as u64,
                    })
                })
                .collect();
            json!({ "gateway": run.kind.name(), "version": run.version, "cases": cases })
        };
        self.runs.iter().map(run).collect()
    }
}
