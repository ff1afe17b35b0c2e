//! The request path: what happens to a request, in order, in [`forward`].
//!
//! Branching lives there; the other files of this folder compute and do not decide what comes next.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use hyper::body::Incoming;

use crate::error::RequestError;
use crate::plugin::{Failure, Instances};
use crate::routes::{Route, Target};
use crate::snapshot::{Current, Service, Snapshot};

pub mod body;
pub mod filter;
pub mod headers;
pub mod metrics;
pub mod pick;
pub mod reply;
pub mod upstream;

use body::{Body, Outgoing};
use headers::Client;
use upstream::Upstream;

/// What a worker thread keeps for its requests. Nothing here is shared with another thread but what says so.
pub struct Worker {
    snapshot: RefCell<View>,
    /// The running plugins.
    pub plugins: RefCell<Instances>,
    /// The connections to endpoints.
    pub upstream: Rc<Upstream>,
    /// What this worker counts; others only read it.
    pub metrics: Arc<metrics::Worker>,
    complained: Cell<Option<Instant>>,
    rng: RefCell<fastrand::Rng>,
}

/// The snapshot as this worker last saw it.
struct View {
    cache: arc_swap::Cache<Current, Arc<Snapshot>>,
    held: Rc<Held>,
}

/// A snapshot with a count of this thread's own: the one inside the `Arc` is written by all workers.
pub struct Held(Arc<Snapshot>);

impl std::ops::Deref for Held {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// At most one line about failing plugins in this time; the metrics have the numbers.
const COMPLAINTS: Duration = Duration::from_secs(1);

impl Worker {
    /// A worker with nothing running and no connections.
    pub fn new(current: Current, plugins: Instances, metrics: Arc<metrics::Worker>) -> Worker {
        let mut cache = arc_swap::Cache::new(current);
        let held = Rc::new(Held(cache.load().clone()));
        Worker {
            snapshot: RefCell::new(View { cache, held }),
            plugins: RefCell::new(plugins),
            upstream: Rc::new(Upstream::new(metrics.clone())),
            metrics,
            complained: Cell::new(None),
            rng: RefCell::new(fastrand::Rng::new()),
        }
    }

    /// One view of the world, for as long as a request needs it.
    pub fn snapshot(&self) -> Rc<Held> {
        let View { cache, held } = &mut *self.snapshot.borrow_mut();
        let latest = cache.load();
        if !Arc::ptr_eq(latest, &held.0) {
            *held = Rc::new(Held(latest.clone()));
        }
        held.clone()
    }

    /// To be called about once a second: lets go of what nobody uses.
    pub fn tidy(&self) {
        drop(self.snapshot());
        self.upstream.tidy();
    }

    fn complain(&self, plugin: &str, failure: &Failure) {
        let now = Instant::now();
        if self.complained.get().is_none_or(|last| now.duration_since(last) >= COMPLAINTS) {
            self.complained.set(Some(now));
            tracing::warn!(plugin, %failure, "plugin failed");
        }
    }
}

/// Answers a request, whatever happens.
pub async fn handle(worker: &Worker, client: &Client, request: Request<Incoming>) -> Response<Body> {
    let began = Instant::now();
    let (mut head, body) = request.into_parts();
    let id = headers::request_id(&mut head, &mut worker.rng.borrow_mut());
    let problem = reply::wants_problem(&head);
    let root = head.uri.path() == "/" && [Method::GET, Method::HEAD].contains(&head.method);

    let response = match unwinding(forward(worker, client, head, body)).await {
        Ok(response) => response,
        Err(RequestError::NoRoute) if root => reply::welcome(),
        Err(error) => {
            worker.metrics.error(&error);
            match error {
                // What callers do wrong, and what comes when there is already too much of everything.
                RequestError::NoRoute
                | RequestError::Overloaded
                | RequestError::Malformed(_)
                | RequestError::ClientBody(_)
                | RequestError::ClientTimeout(_) => {
                    tracing::debug!(%error, request = ?id, "request refused");
                }
                _ => tracing::info!(%error, request = ?id, "request failed"),
            }
            reply::error(&error, &id, problem)
        }
    };
    worker.metrics.answered(response.status(), began.elapsed());
    response
}

/// A panic in the handling of one request is that request's failure, not its neighbours' on the connection.
async fn unwinding<T>(work: impl Future<Output = Result<T, RequestError>>) -> Result<T, RequestError> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        let poll = std::panic::AssertUnwindSafe(|| work.as_mut().poll(context));
        std::panic::catch_unwind(poll).unwrap_or(Poll::Ready(Err(RequestError::Panic)))
    })
    .await
}

/// From request to response: route, filters, pick, upstream, filters.
async fn forward(
    worker: &Worker,
    client: &Client,
    mut head: http::request::Parts,
    body: Incoming,
) -> Result<Response<Body>, RequestError> {
    headers::check(&head)?;
    let snapshot = worker.snapshot();
    let (route, service, path) = locate(&snapshot, &head)?;

    headers::to_endpoint(&mut head, client);
    let original = std::mem::replace(&mut head.uri, path.into());
    if let Some(answer) = filter::request(worker, &snapshot, route, &mut head, &original, client.address)? {
        return Ok(answer);
    }
    let asked = filter::remember(&snapshot, route, &head, &original, client.address);

    let service = service.ok_or(RequestError::NoEndpoint)?;
    service.budget.deposit();
    let mut body = Outgoing::new(body);
    let mut tried = pick::Tried::default();
    let mut failed = None;
    let response = loop {
        let picked = pick::endpoint(worker, &snapshot, route, service, &mut head, client.address, &mut tried);
        // What happened before tells more than that nothing is left.
        let endpoint = picked.map_err(|error| failed.take().unwrap_or(error))?;
        let address = endpoint.spec.address;
        let error = match worker.upstream.send(endpoint, head, body, &route.timeout).await {
            Ok(response) => break response,
            Err(error) => error,
        };
        // At a limit it was not tried at all, so that trying another is no retry.
        let refused = matches!(error.error, RequestError::Overloaded);
        if refused {
            tried.refused();
        }
        let again = refused
            || tried.attempts() <= route.retries
                && tried.another(service)
                && error.unsent.is_some()
                && service.budget.withdraw(&service.settings.retry_budget, Instant::now());
        match error.unsent {
            Some(unsent) if again => {
                tracing::debug!(endpoint = %address, error = %error.error, "trying another endpoint");
                if !refused {
                    worker.metrics.retried();
                    failed = Some(error.error);
                }
                (head, body) = *unsent;
            }
            _ => return Err(error.error),
        }
    };

    let (mut head, body) = response.into_parts();
    headers::to_client(&mut head);
    filter::response(worker, &snapshot, route, asked, head, Body::Upstream(body))
}

/// The route of a request, its service if there is one, and the path to send on.
fn locate<'a>(
    snapshot: &'a Snapshot,
    head: &http::request::Parts,
) -> Result<(&'a Route, Option<&'a Arc<Service>>, http::uri::PathAndQuery), RequestError> {
    match snapshot.routes.find(head) {
        Target::Explicit(route, path) => Ok((route, snapshot.services.get(&route.service), path)),
        Target::Implicit(_, path) if headers::has_dot_segment(path.path()) => {
            Err(RequestError::Malformed(headers::DOT_SEGMENT))
        }
        Target::Implicit(name, path) => {
            let service = snapshot.services.get(&*name).ok_or(RequestError::NoRoute)?;
            let route = service.implicit.as_deref().ok_or(RequestError::NoRoute)?;
            Ok((route, Some(service), path))
        }
        Target::Malformed(why) => Err(RequestError::Malformed(why)),
        Target::Nothing => Err(RequestError::NoRoute),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_one_requests_failure() {
        let panicking = async {
            tokio::task::yield_now().await;
            assert!(std::hint::black_box(false), "a mistake of ours");
            Ok(())
        };
        assert!(matches!(unwinding(panicking).await, Err(RequestError::Panic)));
        assert!(matches!(unwinding(async { Ok(7) }).await, Ok(7)));
    }
}
