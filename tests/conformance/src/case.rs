//! What a case is, and how it tells its verdict.

use std::fmt;

use crate::lane::Lane;
use crate::peer::Need;

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Somebody gets what is not theirs, or takes the gateway down, or data is lost in silence.
    Safety,
    /// The RFC says otherwise.
    Correctness,
    /// Allowed, but others do better.
    Courtesy,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Safety => "safety",
            Severity::Correctness => "correctness",
            Severity::Courtesy => "courtesy",
        })
    }
}

/// What was expected, and what came instead.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) expected: String,
    pub(crate) seen: String,
}

/// A client that could not even connect, and the like.
impl From<String> for Failure {
    fn from(seen: String) -> Failure {
        Failure { expected: "a gateway that takes connections".into(), seen }
    }
}

pub(crate) type Outcome = Result<(), Failure>;

/// Fails the case unless the condition holds: the condition, what is expected in words, and what was seen, formatted.
macro_rules! want {
    ($condition:expr, $expected:expr, $($seen:tt)+) => {
        if !$condition {
            return Err($crate::case::Failure { expected: ($expected).to_string(), seen: format!($($seen)+) });
        }
    };
}
pub(crate) use want;

type Run = Box<dyn Fn(&Lane) -> Outcome + Send + Sync>;

/// One question to a gateway.
pub(crate) struct Case {
    pub(crate) group: &'static str,
    pub(crate) id: String,
    /// The RFC's section, or the advisory.
    pub(crate) reference: &'static str,
    pub(crate) severity: Severity,
    pub(crate) needs: Option<Need>,
    /// Wants a gateway that has just started.
    pub(crate) fresh: bool,
    /// Takes long, or the machine to itself: run before the others, or after them alone.
    pub(crate) heavy: bool,
    pub(crate) run: Run,
}

impl Case {
    pub(crate) fn needs(&mut self, need: Need) -> &mut Case {
        self.needs = Some(need);
        self
    }

    pub(crate) fn severity(&mut self, severity: Severity) -> &mut Case {
        self.severity = severity;
        self
    }

    pub(crate) fn fresh(&mut self) -> &mut Case {
        self.fresh = true;
        self
    }

    pub(crate) fn heavy(&mut self) -> &mut Case {
        self.heavy = true;
        self
    }
}

/// A group being filled.
pub(crate) struct Group {
    name: &'static str,
    pub(crate) cases: Vec<Case>,
}

impl Group {
    pub(crate) fn new(name: &'static str) -> Group {
        Group { name, cases: Vec::new() }
    }

    pub(crate) fn add(
        &mut self,
        severity: Severity,
        reference: &'static str,
        id: impl Into<String>,
        run: impl Fn(&Lane) -> Outcome + Send + Sync + 'static,
    ) -> &mut Case {
        self.cases.push(Case {
            group: self.name,
            id: id.into(),
            reference,
            severity,
            needs: None,
            fresh: false,
            heavy: false,
            run: Box::new(run),
        });
        self.cases.last_mut().unwrap()
    }
}
