//! One HTTP/2 connection of a client: how long it may take for what. What its frames do is in [`crate::http2::connection`],
//! and what happens on one stream in [`super::stream`].

use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::drain::Open;
use super::stream::{self, Setup};
use crate::http2::guard::Offence;
use crate::http2::{Begun, Connection, Fault};
use crate::proxy::Worker;
use crate::proxy::headers::Client;
use crate::stream::Stream;
use crate::timer::{self, Timer};

/// With streams open and nothing heard for this long, the client is asked whether it is still there.
const PULSE: Duration = Duration::from_secs(30);

/// How long it may take to answer.
const PULSE_ANSWER: Duration = Duration::from_secs(20);

/// How long a connection without streams may take to end once both sides have been told.
const GRACE: Duration = Duration::from_secs(5);

/// How long no request may come before the connection holds no more than it needs to wait.
const QUIET: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug)]
pub enum End {
    /// Both sides wanted it, or the client did.
    Over,
    /// The connection failed.
    Failed(io::Error),
    /// The client broke the protocol; the code says how (RFC 9113, section 7).
    Broken(u32),
    /// The client did too much of something.
    Abuse(Offence),
    /// The client did nothing where it had to do something.
    Silent(&'static str),
}

impl From<Option<Fault>> for End {
    fn from(fault: Option<Fault>) -> End {
        match fault {
            None => End::Over,
            Some(Fault::Protocol(reason)) => End::Broken(reason),
            Some(Fault::Abuse(offence)) => End::Abuse(offence),
        }
    }
}

/// Serves a connection to its end. `read`: what was read of it already.
pub async fn serve(link: Stream, read: BytesMut, worker: Rc<Worker>, client: Rc<Client>, open: &mut Open) -> End {
    let rules = worker.snapshot().rules.clone();
    let limits = &rules.limits;
    let now = timer::now();
    let mut watch = Watch {
        header: limits.header_timeout.0,
        idle: limits.idle_timeout.0,
        began: now,
        pulse: Pulse::Quiet(now),
        idle_since: None,
        rests: true,
        timer: Timer::default(),
    };
    let mut link = Connection::new(link, read, limits);
    let setup = Rc::new(Setup::new(worker, client, open.drain().clone(), limits));
    let mut begin = |begun: Begun| stream::serve(setup.clone(), begun);
    poll_fn(|context| {
        loop {
            if open.ending(context.waker()).is_some() {
                link.end();
            }
            match link.poll(context, &mut begin) {
                Poll::Ready(Ok(fault)) => return Poll::Ready(fault.into()),
                Poll::Ready(Err(error)) => return Poll::Ready(End::Failed(error)),
                Poll::Pending => {}
            }
            match watch.poll(&mut link, context) {
                Poll::Ready(Some(end)) => return Poll::Ready(end),
                // There is something to be written.
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// What is waited for.
struct Watch {
    /// How long a header block may take.
    header: Duration,
    /// How long the connection may be without streams, and writing without progress.
    idle: Duration,
    began: Instant,
    pulse: Pulse,
    /// Since when there is no stream.
    idle_since: Option<Instant>,
    /// It holds no more than it needs to wait.
    rests: bool,
    timer: Timer,
}

/// Whether the client is still there.
#[derive(Clone, Copy)]
enum Pulse {
    /// Something was heard since this.
    Quiet(Instant),
    /// It was asked then.
    Asked(Instant),
}

/// What a deadline means.
enum What {
    Over(End),
    Idle,
    Rest,
    Ask,
}

impl Watch {
    /// Ready when the client has kept us waiting for too long, and if nothing is said of an end, when there is something to be
    /// said to it.
    fn poll<F: Future<Output = ()>>(
        &mut self,
        link: &mut Connection<F>,
        context: &mut Context<'_>,
    ) -> Poll<Option<End>> {
        loop {
            let (deadline, what) = self.deadline(link);
            if self.timer.poll(deadline, context).is_pending() {
                return Poll::Pending;
            }
            match what {
                What::Over(end) => return Poll::Ready(Some(end)),
                What::Rest => {
                    self.rests = true;
                    link.rest();
                }
                What::Idle => {
                    link.end();
                    return Poll::Ready(None);
                }
                What::Ask => {
                    self.pulse = Pulse::Asked(timer::now());
                    link.ask();
                    return Poll::Ready(None);
                }
            }
        }
    }

    /// What is waited for that must come first, and until when.
    fn deadline<F: Future<Output = ()>>(&mut self, link: &Connection<F>) -> (Instant, What) {
        if let Some((until, fault)) = link.must_end() {
            return (until, What::Over(fault.into()));
        }
        if !link.is_greeted() {
            return (self.began + self.header, What::Over(End::Silent("the preface did not come")));
        }
        let now = timer::recent();
        let busy = link.streams() > 0;
        self.idle_since = if busy { None } else { Some(self.idle_since.unwrap_or(now)) };
        self.rests &= !busy;
        let (heard, block, stalled) =
            link.ledger(|ledger| (ledger.heard(), ledger.block_since(), ledger.stalled_since()));
        if heard || !busy {
            self.pulse = Pulse::Quiet(now);
        }
        let mut first = match self.pulse {
            Pulse::Quiet(since) => (since + PULSE, What::Ask),
            Pulse::Asked(since) => (since + PULSE_ANSWER, What::Over(End::Silent("it does not answer"))),
        };
        let mut at = |since: Option<Instant>, limit: Duration, what: What| {
            if let Some(since) = since
                && since + limit < first.0
            {
                first = (since + limit, what);
            }
        };
        let silent = |why| What::Over(End::Silent(why));
        at(block, self.header, silent("a request's head did not come to its end"));
        at(stalled, self.idle, silent("it reads nothing"));
        match link.is_ending() {
            false => at(self.idle_since, self.idle, What::Idle),
            true => at(self.idle_since, GRACE, silent("it does not end")),
        }
        if !self.rests {
            at(self.idle_since, QUIET, What::Rest);
        }
        first
    }
}
