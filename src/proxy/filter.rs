//! Where requests and responses are rewritten: the route's filters, on the way in and in reverse on the way out. What
//! they do to bodies is in [`super::shown`].

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use super::{Response, Worker, reply};
use crate::config::FilterFailure;
use crate::error::RequestError;
use crate::message::{RequestHead, ResponseHead};
use crate::plugin::canary::Canary;
use crate::plugin::host::{Answered, Exchange, Show, Step};
use crate::plugin::instance::{Said, Verdict};
use crate::plugin::{Binding, Failure, Kinds};
use crate::routes::{Route, Use};
use crate::snapshot::Snapshot;

/// What the request filters leave for later.
#[derive(Default)]
pub struct Passed {
    /// What later steps are about; none if there are none.
    pub shared: Option<Shared>,
    /// Who wants to see the request's body.
    pub shown: Vec<Shown>,
    /// The canaries that see this exchange.
    pub canaries: Vec<Arc<Canary>>,
}

/// An exchange that several steps need in turn.
#[derive(Clone)]
pub struct Shared(Rc<Lent>);

struct Lent {
    exchange: Cell<Option<Box<Exchange>>>,
    /// The request's head is not in the exchange, but with whoever sends the request.
    headless: Cell<bool>,
    /// What a filter has said in the middle of a body.
    said: RefCell<Option<Result<Response, RequestError>>>,
}

/// A filter that wants to see a body.
pub struct Shown {
    binding: Arc<Binding>,
    on_failure: FilterFailure,
    canary: Option<Arc<Canary>>,
    /// How it wants to see it.
    pub how: Show,
}

/// A filter as it is called: which plugin, and what its failure means.
#[derive(Clone, Copy)]
pub struct Called<'a> {
    binding: &'a Arc<Binding>,
    on_failure: FilterFailure,
    canary: Option<&'a Arc<Canary>>,
}

impl<'a> Called<'a> {
    fn of(used: &'a Use<FilterFailure>) -> Called<'a> {
        Called { binding: &used.binding, on_failure: used.on_failure, canary: used.canary.as_ref() }
    }

    /// A balancer that looks at a response: what it adds guards nothing.
    fn balancer(binding: &'a Arc<Binding>) -> Called<'a> {
        Called { binding, on_failure: FilterFailure::Skip, canary: None }
    }

    fn wants(self, how: Show) -> Shown {
        let Called { binding, on_failure, canary } = self;
        Shown { binding: binding.clone(), on_failure, canary: canary.cloned(), how }
    }
}

impl Shown {
    /// To be called again.
    pub(super) fn filter(&self) -> Called<'_> {
        Called { binding: &self.binding, on_failure: self.on_failure, canary: self.canary.as_ref() }
    }
}

impl Shared {
    fn new(exchange: Box<Exchange>, headless: bool) -> Shared {
        let (exchange, headless) = (Cell::new(Some(exchange)), Cell::new(headless));
        Shared(Rc::new(Lent { exchange, headless, said: RefCell::default() }))
    }

    /// Lends the exchange for one call.
    pub(super) fn lend<T>(&self, call: impl FnOnce(Box<Exchange>) -> (Box<Exchange>, T)) -> Option<T> {
        // It is away only while a call runs, and no call runs within another.
        let (exchange, outcome) = call(self.0.exchange.take()?);
        self.0.exchange.set(Some(exchange));
        Some(outcome)
    }

    /// Leaves what a filter has said where the request path finds it.
    pub(super) fn say(&self, what: Result<Response, RequestError>) {
        self.0.said.borrow_mut().get_or_insert(what);
    }

    /// What was left.
    pub fn said(&self) -> Option<Result<Response, RequestError>> {
        self.0.said.borrow_mut().take()
    }
}

/// Calls one filter, or its canary; what its failure means has been decided.
pub(super) fn call(
    worker: &Worker,
    snapshot: &Snapshot,
    filter: Called<'_>,
    mut exchange: Box<Exchange>,
    step: Step<'_>,
) -> (Box<Exchange>, Said<RequestError>) {
    let Called { binding, on_failure, canary } = filter;
    let outcome;
    if let Some(canary) = canary
        && let Some(plugin) = snapshot.plugins.get(canary.binding.slot)
        && canary.takes_lot(plugin.id, exchange.lot)
    {
        let outcome;
        (exchange, outcome) = worker.plugins.borrow_mut().filter(plugin, &canary.binding, exchange, step);
        canary.called(outcome.is_err());
        match outcome {
            Ok(verdict) => return (exchange, Ok(verdict)),
            // The version that it stands in for looks then.
            Err(failure) => worker.complain(&canary.binding.plugin, &failure),
        }
    }
    (exchange, outcome) = match snapshot.plugins.get(binding.slot) {
        Some(plugin) if plugin.described.kinds.filters() => {
            worker.plugins.borrow_mut().filter(plugin, binding, exchange, step)
        }
        // Not there, or something else by now: what it guarded stays closed.
        _ => (exchange, Err(Failure::Missing)),
    };
    let outcome = match outcome {
        Ok(said) => Ok(said),
        Err(failure) => failed(worker, binding, on_failure, failure),
    };
    (exchange, outcome)
}

#[cold]
fn failed(worker: &Worker, binding: &Binding, on_failure: FilterFailure, failure: Failure) -> Said<RequestError> {
    worker.complain(&binding.plugin, &failure);
    match on_failure {
        FilterFailure::Skip => Ok((Verdict::Next, None)),
        FilterFailure::Reject => Err(RequestError::Plugin { name: binding.plugin.clone(), failure }),
    }
}

/// Whether a plugin, or its canary, takes part in a step; one that is no filter at all fails in each.
fn takes_part(snapshot: &Snapshot, filter: Called<'_>, part: fn(Kinds) -> bool) -> bool {
    let kinds = |binding: &Binding| snapshot.plugins.get(binding.slot).map(|plugin| plugin.described.kinds);
    let canary = filter.canary.and_then(|canary| kinds(&canary.binding));
    kinds(filter.binding).is_none_or(|kinds| part(kinds) || !kinds.filters()) || canary.is_some_and(part)
}

/// Shows the request to the route's filters; an answer if one of them has it. `body`: there is one.
///
/// # Errors
/// If a filter failed and its `on_failure` says `reject`.
pub fn request(
    worker: &Worker,
    snapshot: &Snapshot,
    route: &Route,
    head: &mut RequestHead,
    original: Option<String>,
    (client, body): (IpAddr, bool),
) -> Passage<Passed> {
    let lent = std::mem::replace(head, RequestHead::nothing());
    let lot = worker.rng.borrow_mut().u32(..);
    let mut exchange = Box::new(Exchange::new(lent, original, client, lot));
    let mut passed = Passed::default();
    for used in &route.filters {
        let filter = Called::of(used);
        let decides = |canary: &&Arc<Canary>| {
            snapshot.plugins.get(canary.binding.slot).is_some_and(|plugin| canary.takes_lot(plugin.id, lot))
        };
        passed.canaries.extend(filter.canary.filter(decides).cloned());
        if !takes_part(snapshot, filter, |kinds| kinds.request_filter) {
            continue;
        }
        let outcome;
        (exchange, outcome) = call(worker, snapshot, filter, exchange, Step::Request { body });
        match outcome {
            Ok((Verdict::Next | Verdict::Replace(_), None)) => {}
            Ok((Verdict::Next | Verdict::Replace(_), Some(how))) => passed.shown.push(filter.wants(how)),
            Ok((Verdict::Respond(head, body), _)) => return Ok(Err(reply::by_filter(head, body))),
            Err(error) => {
                // How the client is told depends on what it asked for.
                *head = exchange.head;
                return Err(error);
            }
        }
    }
    let later = |used| takes_part(snapshot, Called::of(used), |kinds| kinds.response_filter);
    let shown = !passed.shown.is_empty();
    // While the body is shown it is needed by two.
    *head = if shown { exchange.head.clone() } else { std::mem::replace(&mut exchange.head, RequestHead::nothing()) };
    if shown || route.filters.iter().any(later) || marking(snapshot, route).is_some() {
        passed.shared = Some(Shared::new(exchange, !shown));
    }
    Ok(Ok(passed))
}

/// The request, for a balancer that will see the response on a route without filters.
pub fn remember(snapshot: &Snapshot, route: &Route, original: Option<String>, client: IpAddr) -> Option<Shared> {
    marking(snapshot, route)?;
    Some(Shared::new(Box::new(Exchange::new(RequestHead::nothing(), original, client, 0)), true))
}

/// The balancer of the route that wants to see responses.
fn marking<'a>(snapshot: &Snapshot, route: &'a Route) -> Option<&'a Arc<Binding>> {
    let marks = |binding: &&Arc<Binding>| {
        snapshot.plugins.get(binding.slot).is_some_and(|plugin| plugin.described.kinds.response_filter)
    };
    route.balancers.iter().map(|it| &it.binding).find(marks)
}

/// The request as later steps see it, where filters have changed it in the middle of its body.
pub(super) fn settle(shared: &Shared, head: &mut RequestHead) {
    shared.lend(|exchange| {
        *head = exchange.head.clone();
        (exchange, ())
    });
}

/// Shows the response to the balancer that chose its endpoint, if it wants to see it, and to the route's filters, in
/// reverse. Who wants to see the body is in the order in which it is to be shown.
///
/// # Errors
/// As for [`request`].
pub fn response(
    worker: &Worker,
    snapshot: &Snapshot,
    route: &Route,
    (request, shared): (&mut RequestHead, &Shared),
    head: ResponseHead,
    (endpoint, body): (SocketAddr, bool),
) -> Passage<(ResponseHead, Vec<Shown>)> {
    let Some(mut exchange) = shared.0.exchange.take() else { return Ok(Ok((head, Vec::new()))) };
    exchange.response = Some(Answered { head, endpoint });
    if shared.0.headless.get() {
        std::mem::swap(request, &mut exchange.head);
    }
    let (mut exchange, outcome) = respond(worker, snapshot, route, exchange, body);
    let shown = matches!(&outcome, Ok(Ok(shown)) if !shown.is_empty());
    if shared.0.headless.get() {
        std::mem::swap(request, &mut exchange.head);
        if shown {
            exchange.head = request.clone();
            shared.0.headless.set(false);
        }
    }
    // While the body is shown it is needed by two.
    let head = if shown {
        exchange.response.as_ref().map(|it| it.head.clone())
    } else {
        exchange.response.take().map(|it| it.head)
    };
    shared.0.exchange.set(Some(exchange));
    Ok(match outcome? {
        Ok(shown) => Ok((head.unwrap_or_else(|| ResponseHead::new(http::StatusCode::OK)), shown)),
        Err(answer) => Err(answer),
    })
}

/// What goes on, or the answer that a filter has instead.
type Passage<T> = Result<Result<T, Response>, RequestError>;

/// The same over the exchange itself.
fn respond(
    worker: &Worker,
    snapshot: &Snapshot,
    route: &Route,
    mut exchange: Box<Exchange>,
    body: bool,
) -> (Box<Exchange>, Passage<Vec<Shown>>) {
    let mut shown = Vec::new();
    let balancer = marking(snapshot, route).map(Called::balancer);
    for filter in balancer.into_iter().chain(route.filters.iter().rev().map(Called::of)) {
        if !takes_part(snapshot, filter, |kinds| kinds.response_filter) {
            continue;
        }
        let outcome;
        (exchange, outcome) = call(worker, snapshot, filter, exchange, Step::Response { body });
        match outcome {
            Ok((Verdict::Next | Verdict::Replace(_), None)) => {}
            Ok((Verdict::Next | Verdict::Replace(_), Some(how))) => shown.push(filter.wants(how)),
            Ok((Verdict::Respond(head, body), _)) => return (exchange, Ok(Err(reply::by_filter(head, body)))),
            Err(error) => return (exchange, Err(error)),
        }
    }
    (exchange, Ok(Ok(shown)))
}

/// Tells the canaries of a route how a request ended at its endpoint; `decided`: those that had a say in it.
pub fn ended(route: &Route, decided: &[Arc<Canary>], failed: bool) {
    for canary in route.canaries() {
        canary.ended(decided.iter().any(|it| Arc::ptr_eq(it, canary)), failed);
    }
}

/// The head of the response, where filters have changed it after they saw the body.
pub fn answered(shared: &Shared) -> Option<ResponseHead> {
    shared.lend(|exchange| {
        let head = exchange.response.as_ref().map(|it| it.head.clone());
        (exchange, head)
    })?
}
