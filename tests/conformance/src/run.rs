//! Runs the cases against one gateway: several of its processes side by side, one case at a time on each.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::case::{Case, Failure, Severity};
use crate::cases;
use crate::certificates::Certificates;
use crate::lane::Lane;
use crate::origin::Origin;
use crate::peer::Kind;

/// After this long a case has failed. What cases wait for is bounded by itself; this is for what nobody thought of.
const DEADLINE: Duration = Duration::from_secs(40);

/// Up to this many failures are looked at a second time, with the machine to themselves.
const SECOND_LOOKS: usize = 25;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only cases whose group and name contain this.
    pub filter: String,
    /// How many processes of the gateway are judged side by side.
    pub lanes: usize,
}

impl Default for Options {
    /// Everything, eight at a time: most of a case's time is waiting.
    fn default() -> Options {
        Options { filter: String::new(), lanes: 8 }
    }
}

/// How a case came out.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Passed,
    /// Only when it was run again.
    PassedLater,
    Failed(Failure),
    /// Why it could not be asked.
    NotOffered(&'static str),
}

/// A case's verdict on one gateway.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) group: &'static str,
    pub(crate) id: String,
    pub(crate) reference: &'static str,
    pub(crate) severity: Severity,
    pub(crate) state: State,
    pub(crate) took: Duration,
}

/// All verdicts on one gateway.
#[derive(Debug)]
pub struct Run {
    /// Which one.
    pub kind: Kind,
    pub(crate) version: String,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) took: Duration,
}

impl Run {
    /// `group/case` of each failure with a text for people.
    pub fn failures(&self) -> Vec<(String, String)> {
        let all = self.verdicts.iter().filter_map(|it| match &it.state {
            State::Failed(failure) => {
                let text = format!("{}: expected {}; seen {}", it.severity, failure.expected, failure.seen);
                Some((format!("{}/{}", it.group, it.id), text))
            }
            State::Passed | State::PassedLater | State::NotOffered(_) => None,
        });
        all.collect()
    }

    /// How many cases were judged.
    pub fn judged(&self) -> usize {
        self.verdicts.iter().filter(|it| !matches!(it.state, State::NotOffered(_))).count()
    }

    /// Judges a gateway. Fails if it cannot be started.
    pub fn of(kind: Kind, binary: &Path, options: &Options) -> Result<Run, String> {
        let began = Instant::now();
        let certificate_dir = tempfile::TempDir::new().map_err(|error| format!("a directory: {error}"))?;
        let certificates = Arc::new(Certificates::make(certificate_dir.path()));
        let start = {
            let (binary, dir) = (binary.to_owned(), certificate_dir.path().to_owned());
            move || Lane::start(kind, &binary, &dir, &certificates).map(Arc::new)
        };
        let all = selected(options);
        let (asked, not_offered): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|case| case.needs.and_then(|need| kind.lacks(need)).is_none());
        let mut verdicts: Vec<Verdict> = not_offered
            .iter()
            .map(|case| {
                let why = case.needs.and_then(|need| kind.lacks(need)).unwrap_or_default();
                verdict(case, State::NotOffered(why), Duration::ZERO)
            })
            .collect();
        let (alone, together): (Vec<_>, Vec<_>) = asked.into_iter().partition(|case| case.heavy);
        verdicts.extend(judge(&together, options.lanes, &start)?);
        verdicts.extend(judge(&alone, 2, &start)?);
        let failed: Vec<Arc<Case>> = together
            .iter()
            .chain(&alone)
            .filter(|case| verdicts.iter().any(|it| it.is_of(case) && matches!(it.state, State::Failed(_))))
            .cloned()
            .collect();
        if failed.len() <= SECOND_LOOKS {
            for second in judge(&failed, 2, &start)? {
                let first = verdicts.iter_mut().find(|it| it.group == second.group && it.id == second.id).unwrap();
                // What was unsafe once is unsafe.
                if matches!(second.state, State::Passed) && first.severity != Severity::Safety {
                    first.state = State::PassedLater;
                }
            }
        }
        verdicts.sort_by_key(|it| cases::GROUPS.iter().position(|(name, _)| *name == it.group));
        Ok(Run { kind, version: version(binary), verdicts, took: began.elapsed() })
    }
}

impl Verdict {
    fn is_of(&self, case: &Case) -> bool {
        self.group == case.group && self.id == case.id
    }
}

fn selected(options: &Options) -> Vec<Arc<Case>> {
    let all = cases::all().into_iter();
    all.filter(|it| format!("{}/{}", it.group, it.id).contains(&options.filter)).map(Arc::new).collect()
}

/// The names of all cases that the options select, with severity and reference.
pub fn list(options: &Options) -> Vec<String> {
    let line = |it: Arc<Case>| format!("{}/{} ({}, {})", it.group, it.id, it.severity, it.reference);
    selected(options).into_iter().map(line).collect()
}

fn version(binary: &Path) -> String {
    for flag in ["-v", "--version", "version"] {
        let Ok(output) = Command::new(binary).arg(flag).output() else { continue };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let numbers = text.split(|it: char| !it.is_ascii_digit() && it != '.').map(|it| it.trim_matches('.'));
        let found = numbers.filter(|it| it.split('.').count() == 3).map(str::to_owned).next();
        if let Some(found) = found {
            return found;
        }
    }
    String::new()
}

type Start<'a> = &'a (dyn Fn() -> Result<Arc<Lane>, String> + Sync);

fn judge(cases: &[Arc<Case>], lanes: usize, start: Start<'_>) -> Result<Vec<Verdict>, String> {
    let queue: Mutex<VecDeque<Arc<Case>>> = Mutex::new(cases.iter().cloned().collect());
    let results = Mutex::new((Vec::new(), None));
    std::thread::scope(|scope| {
        for _ in 0..lanes.min(cases.len()) {
            scope.spawn(|| {
                if let Err(error) = work(&queue, start, |it| results.lock().unwrap().0.push(it)) {
                    results.lock().unwrap().1 = Some(error);
                }
            });
        }
    });
    match results.into_inner().unwrap() {
        (_, Some(error)) => Err(error),
        (verdicts, None) => Ok(verdicts),
    }
}

fn work(queue: &Mutex<VecDeque<Arc<Case>>>, start: Start<'_>, done: impl Fn(Verdict)) -> Result<(), String> {
    let mut lane = start()?;
    loop {
        let Some(case) = queue.lock().unwrap().pop_front() else { return Ok(()) };
        let began = Instant::now();
        if let Err(error) = lane.prepare(case.fresh) {
            return Err(format!("before {}/{}: {error}", case.group, case.id));
        }
        let (sender, receiver) = channel();
        let (its_lane, its_case) = (lane.clone(), case.clone());
        std::thread::spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| (its_case.run)(&its_lane)));
            // Nobody listens any more where the deadline has passed.
            let _ = sender.send(outcome);
        });
        let outcome = match receiver.recv_timeout(DEADLINE) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => {
                Err(Failure { expected: "a verdict".into(), seen: "the case panicked: a bug of the suite".into() })
            }
            Err(RecvTimeoutError::Timeout) => {
                // Its thread may still use the lane.
                lane = start()?;
                Err(Failure { expected: "a verdict".into(), seen: format!("none within {DEADLINE:?}") })
            }
        };
        let (outcome, unsafe_) = aftermath(&lane, outcome);
        let state = outcome.map_or_else(State::Failed, |()| State::Passed);
        let mut verdict = verdict(&case, state, began.elapsed());
        if unsafe_ {
            verdict.severity = Severity::Safety;
        }
        done(verdict);
    }
}

/// What no case may bring about: a dead gateway, or something at an endpoint that no gateway may send.
fn aftermath(lane: &Lane, outcome: Result<(), Failure>) -> (Result<(), Failure>, bool) {
    if let Some(log) = lane.obituary() {
        return (Err(Failure { expected: "a gateway that lives on".into(), seen: format!("it ended: {log}") }), true);
    }
    let complaints: Vec<String> = lane.origins.all().flat_map(Origin::complaints).collect();
    match complaints.first() {
        None => (outcome, false),
        Some(first) => {
            let seen = format!("at the endpoint: {first}");
            (Err(Failure { expected: "nothing at the endpoint but sound requests".into(), seen }), true)
        }
    }
}

fn verdict(case: &Case, state: State, took: Duration) -> Verdict {
    let (group, reference, severity) = (case.group, case.reference, case.severity);
    Verdict { group, id: case.id.clone(), reference, severity, state, took }
}

/// The gateways that this machine has, and those it lacks.
pub fn available(kinds: &[Kind], moongate: Option<&Path>) -> (Vec<(Kind, PathBuf)>, Vec<Kind>) {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for kind in kinds {
        let own = moongate.filter(|_| *kind == Kind::Moongate).map(Path::to_owned);
        match own.or_else(|| kind.find()) {
            Some(binary) => found.push((*kind, binary)),
            None => missing.push(*kind),
        }
    }
    (found, missing)
}
