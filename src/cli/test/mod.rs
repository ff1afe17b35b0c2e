//! `moongate plugin test`: a plugin in the real host, against what every plugin must bear and what its author expects.
//!
//! Here is what both kinds have in common; what is asked of a balancer is in [`balancer`], of a filter in [`filter`], and
//! the author's own scenario in [`mod@scenario`] and [`play`].

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use super::rig::{self, Pace, Rig};
use super::subject;
use crate::config::Kind;
use crate::plugin::engine::Limits;
use crate::plugin::{Binding, Engine, Failure, Plugin};

mod balancer;
mod expect;
mod filter;
mod passage;
mod play;
mod report;
mod scenario;

use report::{Finding, HINT, Report, advised};
use scenario::Scenario;

/// How many times longer than in a gateway a call may take here before it is stopped: whether it is too slow is judged
/// over many calls, so that one moment of a busy machine is no verdict.
const GRACE: u32 = 100;

/// Calls over which memory must not grow.
const MANY: u64 = 100_000;

/// No more of them than go into this time: a slow plugin is told as slow, and not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be tested, and how.
#[derive(Args, Clone, Debug)]
pub struct TestOptions {
    /// The WebAssembly file
    pub file: PathBuf,
    /// What the plugin is configured with: JSON, or @FILE with JSON [default: {}]
    #[arg(long, value_name = "JSON", value_parser = subject::config)]
    pub config: Option<Arc<str>>,
    /// What is expected of it, in TOML; see docs/plugins.md
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
}

/// Runs all checks.
pub fn run(options: &TestOptions) -> ExitCode {
    match test(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing failed.
fn test(options: &TestOptions) -> Result<bool> {
    let scenario = options.scenario.as_deref().map(scenario::load).transpose()?;
    let limits = subject::limits();
    let engine = Engine::new(Limits { call: limits.call * GRACE, ..limits })?;
    let plugin = subject::load(&engine, &options.file).map_err(|error| about(&options.file, &error))?;
    if let Some(scenario) = &scenario {
        scenario.suits(plugin.described.kinds)?;
    }
    let config = options.config.clone().or_else(|| scenario.as_ref()?.config.clone()).unwrap_or_else(|| "{}".into());
    let pace = Rc::new(RefCell::new(Pace { limit: limits.call, ..Pace::default() }));
    let mut tester = Tester { engine, plugin, config, pace, report: Report::new() };
    tester.all(scenario.as_ref());
    Ok(tester.report.end())
}

fn about(file: &Path, error: &anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("{}: {error:#}", file.display())
}

/// A plugin, its configuration and what was found so far.
struct Tester {
    engine: Engine,
    plugin: Arc<Plugin>,
    config: Arc<str>,
    pace: Rc<RefCell<Pace>>,
    report: Report,
}

/// What a check comes to; what keeps it from coming to an end is wrong.
type Checked = Result<Finding, String>;

impl Tester {
    fn all(&mut self, scenario: Option<&Scenario>) {
        let balancer = self.plugin.described.kinds.balancer;
        let configured = if balancer { "takes its configuration, and picks" } else { "takes its configuration" };
        if !self.check("starts", starts) || !self.check(configured, configures) {
            return;
        }
        self.check("refuses a wrong configuration", refuses);
        if balancer {
            balancer::all(self);
        }
        if self.plugin.described.kinds.filters() {
            filter::all(self);
        }
        if let Some(scenario) = scenario {
            play::all(self, scenario);
        }
        self.check("time of a call", |tester| Ok(punctual(*tester.pace.borrow())));
    }

    /// Makes a check and prints what it found. Whether it found nothing wrong.
    fn check(&mut self, what: &str, check: impl FnOnce(&Tester) -> Checked) -> bool {
        let finding = self.report.logging(|| check(self)).unwrap_or_else(Finding::Wrong);
        self.report.add(what, &finding);
        !matches!(finding, Finding::Wrong(_))
    }

    /// A worker's place, with an instance of its own.
    fn rig(&self) -> Rig {
        Rig::new(&self.engine, &self.plugin, Some(self.pace.clone()))
    }

    /// A use with the configuration it is tested with. What picks and looks at responses does so as a balancer.
    fn bind(&self, rig: &Rig) -> Arc<Binding> {
        let kind = if self.plugin.described.kinds.balancer { Kind::Balancer } else { Kind::Filter };
        rig.bind(kind, &self.config)
    }
}

/// The shortest of three times, because the first of something is no measure.
fn shortest(mut work: impl FnMut() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        work()?;
        shortest = shortest.min(began.elapsed());
    }
    Ok(shortest)
}

fn starts(tester: &Tester) -> Checked {
    let rig = tester.rig();
    let time = shortest(|| rig.start()).map_err(|failure| advised(&failure))?;
    Ok(within("in", time, tester.pace.borrow().limit))
}

fn configures(tester: &Tester) -> Checked {
    let (mut rig, endpoints) = (tester.rig(), rig::endpoints(&[1; 8]));
    // So that it is running when the time is taken.
    let mut configure = || {
        let binding = tester.bind(&rig);
        rig.configure(&binding, &endpoints)
    };
    let told = |failure| format!("with {}: {}", tester.config, advised(&failure));
    configure().map_err(told)?;
    let time = shortest(configure).map_err(told)?;
    Ok(within(&format!("{} in", tester.config), time, tester.pace.borrow().limit))
}

/// That something does not take longer than it may.
fn within(what: &str, time: Duration, limit: Duration) -> Finding {
    let text = format!("{what} {}", short(time));
    if time <= limit {
        return Finding::Fine(text);
    }
    Finding::Wrong(format!(
        "{text}, and the gateway waits {}\n{HINT}do less there, or allow more: call_timeout in [plugins]",
        short(limit)
    ))
}

/// What no plugin can have as an option.
const NO_OPTION: &str = "no-such-option-of-any-plugin";

fn refuses(tester: &Tester) -> Checked {
    let mut rig = tester.rig();
    let mut wrong: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&tester.config).map_err(|error| error.to_string())?;
    wrong.insert(NO_OPTION.to_owned(), 1.into());
    let kind = if tester.plugin.described.kinds.balancer { Kind::Balancer } else { Kind::Filter };
    let binding = rig.bind(kind, &serde_json::Value::Object(wrong).to_string().into());
    Ok(match rig.configure(&binding, &rig::endpoints(&[1; 3])) {
        Err(Failure::Refused(why)) if why.trim().is_empty() => {
            Finding::Note("without a word: say which option is wrong, and what would be right".into())
        }
        Err(Failure::Refused(why)) => Finding::Fine(format!("in its words: {why}")),
        Err(failure) => Finding::Wrong(format!("with an option that it does not have, {}", advised(&failure))),
        Ok(()) => Finding::Note(format!(
            "it accepts {NO_OPTION:?}: an operator's slip of the finger will go unnoticed; in Rust, \
             #[serde(deny_unknown_fields)] refuses it"
        )),
    })
}

/// Whether calls take no longer than a gateway waits.
fn punctual(Pace { limit, calls, late, slowest }: Pace) -> Finding {
    let text = format!("{} at the slowest, and {} is allowed, over {calls} calls", short(slowest), short(limit));
    match late {
        0 if slowest > limit / 2 => Finding::Note(format!("{text}; that is close")),
        0 => Finding::Fine(text),
        // A thread that has to wait for a processor is late as well.
        _ if late <= 3 || late * 1000 <= calls => {
            Finding::Note(format!("{text}; {late} took longer, as happens on a busy machine"))
        }
        _ => Finding::Wrong(format!(
            "{text}; {late} took longer, and would be stopped\n{HINT}do less in a call, or allow more: call_timeout in [plugins]"
        )),
    }
}

/// Calls many times, and looks whether memory grows. `call` is given how many calls there were before.
fn steady(calls: &str, mut call: impl FnMut(u64) -> Result<u64, String>) -> Checked {
    let began = Instant::now();
    let mut memory = Vec::with_capacity(MANY as usize);
    for n in 0..MANY {
        memory.push(call(n)?);
        if n.is_multiple_of(100) && began.elapsed() > PATIENCE {
            break;
        }
    }
    Ok(growth(&memory, calls))
}

/// What the bytes of memory after each call say. At first a plugin takes what it needs; what it takes both in the
/// middle and at the end is a leak.
fn growth(memory: &[u64], calls: &str) -> Finding {
    let count = memory.len();
    let at = |part: usize| memory[(count * part / 20).min(count - 1)];
    let (early, middle, end) = (at(2), at(11), memory[count - 1]);
    let counted = format!("over {count} {calls}");
    match (middle > early, end > middle) {
        (true, true) => Finding::Wrong(format!(
            "memory grows, from {} to {}, {counted}\n{HINT}what a call allocates must be free when it is over; at memory_limit \
             of [plugins] it would trap",
            bytes(early),
            bytes(end)
        )),
        (false, false) => Finding::Fine(format!("memory stays at {} {counted}", bytes(end))),
        _ => Finding::Note(format!("memory grew once, from {} to {}, {counted}", bytes(early), bytes(end))),
    }
}

/// A time in three digits.
fn short(time: Duration) -> String {
    let ns = time.as_nanos() as f64;
    let (value, unit) = match ns {
        _ if ns < 1e3 => (ns, "ns"),
        _ if ns < 1e6 => (ns / 1e3, "µs"),
        _ if ns < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    let digits = if value >= 100.0 || unit == "ns" {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}

/// A size as people write it.
fn bytes(count: u64) -> String {
    bytesize::ByteSize(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grows_on_and_on_is_a_leak() {
        let memory = |at: &dyn Fn(u64) -> u64| (0..1000).map(|n| at(n) << 16).collect::<Vec<_>>();
        assert!(matches!(growth(&memory(&|_| 17), "picks"), Finding::Fine(text) if text.contains("over 1000 picks")));
        assert!(matches!(growth(&memory(&|n| 17 + n.min(50)), "picks"), Finding::Fine(_)), "the start is its own");
        assert!(matches!(growth(&memory(&|n| 17 + u64::from(n > 300)), "picks"), Finding::Note(_)));
        let Finding::Wrong(text) = growth(&memory(&|n| 17 + n / 100), "picks") else { panic!("a leak") };
        assert!(text.contains("memory grows") && text.contains("memory_limit"), "{text}");
        assert!(matches!(growth(&[5], "picks"), Finding::Fine(_)));
    }

    #[test]
    fn lateness_is_judged_over_many_calls() {
        let limit = Duration::from_millis(10);
        let pace = |calls, late, ms| Pace { limit, calls, late, slowest: Duration::from_millis(ms) };
        assert!(matches!(punctual(pace(1000, 0, 1)), Finding::Fine(_)));
        assert!(matches!(punctual(pace(1000, 0, 9)), Finding::Note(_)));
        assert!(matches!(punctual(pace(1000, 3, 40)), Finding::Note(_)));
        assert!(matches!(punctual(pace(100_000, 100, 40)), Finding::Note(_)));
        assert!(matches!(punctual(pace(1000, 30, 40)), Finding::Wrong(text) if text.contains("call_timeout")));
        assert!(matches!(within("in", limit, limit), Finding::Fine(_)));
        assert!(matches!(within("in", limit * 2, limit), Finding::Wrong(_)));
    }

    #[test]
    fn times_have_three_digits() {
        for (ns, text) in
            [(7, "7 ns"), (1_234, "1.23 µs"), (12_345, "12.3 µs"), (123_456_789, "123 ms"), (2_500_000_000, "2.50 s")]
        {
            assert_eq!(short(Duration::from_nanos(ns)), text);
        }
    }
}
