//! What `moongate plugin test` prints: a line for each check, with what the plugin logged meanwhile where it failed.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Dispatch;
use tracing_subscriber::filter::LevelFilter;

use crate::plugin::Failure;

/// How a line begins that says what to do.
pub(super) const HINT: &str = "hint: ";

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is as it should be.
    Fine(String),
    /// It may be meant, and is worth knowing.
    Note(String),
    /// It would go wrong in the gateway.
    Wrong(String),
}

/// The lines so far; each is printed as it comes.
pub(super) struct Report {
    log: Log,
    /// How many findings there are of each kind.
    fine: usize,
    notes: usize,
    wrong: usize,
    /// Advice that was given already.
    given: HashSet<String>,
}

impl Report {
    /// Nothing found yet.
    pub(super) fn new() -> Report {
        Report { log: Log::default(), fine: 0, notes: 0, wrong: 0, given: HashSet::new() }
    }

    /// Where the plugin's log goes while `work` runs.
    pub(super) fn logging<T>(&self, work: impl FnOnce() -> T) -> T {
        tracing::dispatcher::with_default(&self.log.dispatch(), work)
    }

    /// Prints what a check has found.
    pub(super) fn add(&mut self, what: &str, finding: &Finding) {
        let log = self.log.take();
        match finding {
            Finding::Fine(_) => self.fine += 1,
            Finding::Note(_) => self.notes += 1,
            Finding::Wrong(_) => self.wrong += 1,
        }
        println!("{}", told(what, &self.once(finding), &log));
    }

    /// A finding without the advice that was given before: one fault makes many checks fail.
    fn once(&mut self, finding: &Finding) -> Finding {
        let Finding::Wrong(text) = finding else { return finding.clone() };
        let new = |line: &&str| !line.starts_with(HINT) || self.given.insert((*line).to_owned());
        Finding::Wrong(text.lines().filter(new).collect::<Vec<_>>().join("\n"))
    }

    /// Prints the sum. Whether nothing is wrong.
    pub(super) fn end(&self) -> bool {
        println!("{}", sum(self.fine, self.notes, self.wrong));
        self.wrong == 0
    }
}

/// A finding as it is printed.
fn told(what: &str, finding: &Finding, log: &str) -> String {
    let (mark, text) = match finding {
        Finding::Fine(text) => ("ok", text),
        Finding::Note(text) => ("note", text),
        Finding::Wrong(text) => ("FAILED", text),
    };
    let mut lines = format!("{what}: {text}");
    if matches!(finding, Finding::Wrong(_)) && !log.is_empty() {
        lines += &format!("\nits log: {}", log.trim_end());
    }
    format!("{mark:<7} {}", lines.replace('\n', "\n        "))
}

fn sum(fine: usize, notes: usize, wrong: usize) -> String {
    let notes = match notes {
        0 => String::new(),
        1 => ", 1 note".to_owned(),
        _ => format!(", {notes} notes"),
    };
    let outcome = if wrong == 0 { "nothing failed".to_owned() } else { format!("{wrong} FAILED") };
    format!("\n{outcome}: {fine} ok{notes}")
}

/// A failure in words, and what to do about it.
pub(super) fn advised(failure: &Failure) -> String {
    let advice = match failure {
        Failure::TimedOut => "do less in a call, or allow more: call_timeout in [plugins]",
        Failure::Trapped(why)
            if ["outside `configure`", "may open", "may declare"].iter().any(|it| why.contains(it)) =>
        {
            "see shared.open and request-keys.declare in wit/moongate.wit for when they may be called, and how often"
        }
        Failure::Trapped(_) => {
            "a panic, an abort or memory over memory_limit of [plugins] ends like this; what it logged before is shown \
             below, if there is anything"
        }
        Failure::Refused(_) => "this is its own answer: give it what it wants with --config, or accept what it got",
        Failure::Nonsense(why) if why.starts_with("`pick`") => {
            "an index must be below the number of endpoints of the last `update`; 0xffffffff means no opinion"
        }
        Failure::Nonsense(_) => {
            "an answer has a status from 200 to 599, at most 1 MiB of body and 64 KiB of head, and no header that HTTP \
             does not allow or the gateway manages itself (see `request` in wit/moongate.wit)"
        }
        Failure::Missing | Failure::Suspended => "it had failed before",
    };
    format!("{failure}\n{HINT}{advice}")
}

/// Collects what is logged, without colours and times.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

/// How much of a log is kept between two lines of the report.
const KEPT: usize = 4 << 10;

impl Log {
    fn dispatch(&self) -> Dispatch {
        let log = self.clone();
        let written = tracing_subscriber::fmt().with_writer(move || log.clone()).with_max_level(LevelFilter::INFO);
        Dispatch::new(written.without_time().with_target(false).with_ansi(false).finish())
    }

    /// What there is, which is then forgotten.
    fn take(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(&bytes[..room]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_shown_where_something_failed() {
        let fine = Finding::Fine("in 1 ms".into());
        assert_eq!(told("starts", &fine, "ERROR oh\n"), "ok      starts: in 1 ms");
        let wrong = Finding::Wrong("it trapped: x\ndo y".into());
        let wanted = "FAILED  picks: it trapped: x\n        do y\n        its log: ERROR oh";
        assert_eq!(told("picks", &wrong, "ERROR oh\n"), wanted);
        assert_eq!(told("picks", &wrong, ""), "FAILED  picks: it trapped: x\n        do y");
    }

    #[test]
    fn advice_is_given_once() {
        let mut report = Report::new();
        let wrong = |text: &str| Finding::Wrong(text.to_owned());
        assert_eq!(report.once(&wrong("a\nhint: x\nb")), wrong("a\nhint: x\nb"));
        assert_eq!(report.once(&wrong("a\nhint: x\nb\nhint: z")), wrong("a\nb\nhint: z"));
        let index = advised(&Failure::Nonsense("`pick` returned 9 of 2 endpoints".into()));
        let status = advised(&Failure::Nonsense("it responded with status 99".into()));
        assert!(index.contains("below the number of endpoints") && status.contains("200 to 599"), "{index} {status}");
    }

    #[test]
    fn what_is_logged_is_kept_until_it_is_taken() {
        let report = Report::new();
        report.logging(|| tracing::error!(target: "plugin", plugin = "it", "panicked at {}", "lib.rs"));
        report.logging(|| tracing::debug!(target: "plugin", "a detail"));
        let log = report.log.take();
        assert!(log.contains("ERROR panicked at lib.rs") && !log.contains("detail"), "{log}");
        assert_eq!(report.log.take(), "");
        report.logging(|| (0..1000).for_each(|_| tracing::warn!("again and again and again")));
        assert_eq!(report.log.take().len(), KEPT);
    }

    #[test]
    fn the_sum_decides() {
        let mut report = Report::new();
        report.add("one", &Finding::Fine(String::new()));
        report.add("two", &Finding::Note(String::new()));
        assert!(report.end());
        report.add("three", &Finding::Wrong(String::new()));
        assert!(!report.end());
        assert_eq!(sum(2, 1, 1), "\n1 FAILED: 2 ok, 1 note");
        assert_eq!(sum(2, 0, 0), "\nnothing failed: 2 ok");
    }
}
