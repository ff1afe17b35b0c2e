//! The request path: what happens to a request, in order, in [`forward`].
//!
//! Branching lives there; the other files of this folder compute and do not decide what comes next.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use crate::access::Journal;
use crate::error::RequestError;
use crate::message::{BodyError, Known, RequestHead, ResponseHead, Target, Version};
use crate::plugin::{Failure, Instances};
use crate::routes::{Found, Route, Sent};
use crate::snapshot::{Current, Service, Snapshot};
use crate::timer::{self, Patience};
use crate::trace::Recorder;

pub mod access;
pub mod body;
pub mod filter;
pub mod grpc;
pub mod headers;
pub mod metrics;
pub mod opening;
pub mod pick;
mod places;
pub mod records;
pub mod reply;
pub mod shown;
pub mod told;
pub mod trace;
pub mod upgrade;
pub mod upstream;
pub mod websocket;

use body::{Body, From, Interim, Upload};
use filter::Shared;
use headers::{Client, RequestId};
use places::AllPlaces;
pub use places::{Place, Places};
use records::Records;
use shown::{Audience, Whose};
use upgrade::Tunnel;
use upstream::{Answer, AnswerBody, Call, Upstream};

/// A request, whatever protocol it came over.
pub struct Request {
    /// Its head, as the client sent it.
    pub head: RequestHead,
    /// Its body, as it arrives.
    pub upload: Upload,
    /// How the client is told something before the response.
    pub interim: Interim,
}

/// A response, whatever protocol it goes over.
pub struct Response {
    /// Its head. How the body is framed is not in it, but for an endpoint's `content-length`.
    pub head: ResponseHead,
    /// Its body, as it arrives.
    pub body: Body,
    /// How long the client may take no piece of it.
    pub idle: Duration,
    /// Its place among the requests in flight, until it is sent.
    pub place: Option<Place>,
    /// What is written down of it, which is told what was sent and ends when this is dropped.
    pub records: Records,
}

impl Response {
    /// An answer of the gateway's own.
    fn own(head: ResponseHead, body: Body) -> Response {
        // It is short: the client need only take it.
        Response { head, body, idle: Duration::from_secs(10), place: None, records: Records::default() }
    }
}

/// What a worker thread keeps for its requests. Nothing here is shared with another thread but what says so.
pub struct Worker {
    snapshot: RefCell<View>,
    /// The running plugins.
    pub plugins: RefCell<Instances>,
    /// The connections to endpoints.
    pub upstream: Rc<Upstream>,
    /// What this worker counts; others only read it.
    pub metrics: Arc<metrics::Worker>,
    places: Rc<AllPlaces>,
    /// The access log, if there is one.
    pub journal: Option<Rc<Journal>>,
    /// Where traces go, if there are any.
    pub recorder: Option<Rc<Recorder>>,
    clock: RefCell<reply::Clock>,
    complained: Cell<Option<Instant>>,
    /// Client connections that keep the memory of a request while they wait for the next.
    pub warm: Cell<usize>,
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
    pub fn new(
        current: Current,
        plugins: Instances,
        metrics: Arc<metrics::Worker>,
        places: Arc<Places>,
        journal: Option<Rc<Journal>>,
        recorder: Option<Rc<Recorder>>,
    ) -> Worker {
        let mut cache = arc_swap::Cache::new(current);
        let held = Rc::new(Held(cache.load().clone()));
        Worker {
            snapshot: RefCell::new(View { cache, held }),
            plugins: RefCell::new(plugins),
            upstream: Rc::new(Upstream::new(metrics.clone())),
            metrics,
            places: Rc::new(AllPlaces::new(places)),
            journal,
            recorder,
            clock: RefCell::default(),
            complained: Cell::new(None),
            warm: Cell::new(0),
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
        timer::now();
        self.upstream.tidy();
        self.journal.iter().for_each(|journal| journal.flush());
        self.recorder.iter().for_each(|recorder| recorder.flush());
    }

    /// Says when the response was made, if the endpoint does not (RFC 9110, section 6.6.1).
    pub fn date(&self, head: &mut ResponseHead) {
        if !head.fields.contains(Known::Date) {
            head.fields.append(Known::Date, self.clock.borrow_mut().date());
        }
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
pub async fn handle(worker: &Rc<Worker>, client: &Client, request: Request) -> Response {
    let began = timer::now();
    let Request { mut head, upload, interim } = request;
    let id = RequestId::of(&mut head, &mut worker.rng.borrow_mut());
    let until = grpc::until(&head);
    let root = head.target.path() == "/" && [Method::GET, Method::HEAD].contains(&head.method);

    let snapshot = worker.snapshot();
    let place = Place::enter(&worker.places, snapshot.rules.limits.requests);
    let mut records = Records::begin(worker, &snapshot.rules, &mut head, (client, &id), began);
    let answer = {
        // Pinned where it is made: it is large, and would be copied on its way.
        let work = pin!(async {
            if place.is_none() {
                return Err(RequestError::Overloaded);
            }
            forward(worker, client, &mut head, upload, &interim, &mut records).await
        });
        unwinding(work).await
    };
    let mut response = match answer {
        Ok(response) => response,
        Err(RequestError::NoRoute) if root => reply::welcome(),
        Err(error) => {
            refused(worker, &error, id.text());
            records.failed(&error);
            reply::error(&error, id.text(), reply::Form::of(&head, until))
        }
    };
    worker.date(&mut response.head);
    let (placed, after) = (records.counted(), timer::now().saturating_duration_since(began));
    worker.metrics.answered_for(response.head.status, after, placed);
    records.answered(&snapshot.rules, &mut response.head);
    Response { place, records, ..response }
}

/// Counts and logs what could not be read as a request.
pub fn unread(worker: &Worker, client: &Client, error: &RequestError) {
    refused(worker, error, "");
    if let Some(journal) = &worker.journal {
        access::Note::refused(journal, &client.peer, error.status(), error.kind());
    }
}

/// Counts and logs a request that no endpoint has answered.
fn refused(worker: &Worker, error: &RequestError, id: &str) {
    worker.metrics.error(error);
    // What callers do wrong, and what comes when there is already too much of everything.
    if error.is_clients() || matches!(error, RequestError::Overloaded) {
        tracing::debug!(%error, request = id, "request refused");
    } else {
        tracing::info!(%error, request = id, "request failed");
    }
}

/// A panic in the handling of one request is that request's failure, not its neighbours' on the connection.
async fn unwinding<T>(mut work: Pin<&mut impl Future<Output = Result<T, RequestError>>>) -> Result<T, RequestError> {
    std::future::poll_fn(|context| {
        let poll = std::panic::AssertUnwindSafe(|| work.as_mut().poll(context));
        std::panic::catch_unwind(poll).unwrap_or(Poll::Ready(Err(RequestError::Panic)))
    })
    .await
}

/// From request to response: route, filters, pick, upstream, filters.
async fn forward(
    worker: &Rc<Worker>,
    connection: &Client,
    head: &mut RequestHead,
    mut upload: Upload,
    interim: &Interim,
    records: &mut Records,
) -> Result<Response, RequestError> {
    let snapshot = worker.snapshot();
    headers::settle(head, &snapshot.rules.paths)?;
    let mut expects = headers::expects(head)?;
    let (asked_for, version) = (head.upgrade.clone(), head.version);
    if head.target.as_str() == "*" {
        return Ok(reply::options());
    }
    let client = headers::introduce(head, connection, &snapshot.rules)?;
    let Located { route, service, original } = locate(&snapshot, head)?;
    records.placed(client, connection, route, service);
    if upload.limit(route.max_body) {
        return Err(RequestError::ClientBody(BodyError::TooLarge));
    }

    headers::to_endpoint(head, upload.length(), expects);
    let mut tried = pick::Tried::default();
    let shared;
    if !route.filters.is_empty() {
        let body = !upload.is_over();
        let passed = match filter::request(worker, &snapshot, route, head, original, (client, body))? {
            Ok(passed) => passed,
            Err(answer) => return Ok(answer),
        };
        shared = passed.shared;
        tried.canaries = passed.canaries;
        if let (false, Some(shared)) = (passed.shown.is_empty(), &shared) {
            let audience = Audience::new(worker, shared, passed.shown, Whose::Request);
            let patience = Patience::new(route.timeout.idle.0, snapshot.rules.limits.min_rate.0);
            let gathering = show_upload(audience, shared, upload, (head, &mut expects), interim, patience);
            match Box::pin(gathering).await? {
                Ok(shown) => upload = shown,
                Err(answer) => return Ok(answer),
            }
        }
    } else {
        shared = filter::remember(&snapshot, route, original, client);
    }

    let service = service.ok_or(RequestError::NoEndpoint)?;
    service.budget.deposit();
    let timeouts = &route.timeout;
    let whole = (timeouts.whole.0 > Duration::ZERO).then(|| Instant::now() + timeouts.whole.0);
    let until = whole.into_iter().chain(grpc::until(head)).min();
    let rate = snapshot.rules.limits.min_rate.0;
    let mut failed = None;
    let (answer, address) = loop {
        let picked = pick::endpoint(worker, &snapshot, route, service, head, client, &mut tried);
        // What happened before tells more than that nothing is left.
        let endpoint = picked.map_err(|error| failed.take().unwrap_or(error))?;
        let address = endpoint.spec.address;
        records.tries(head, &snapshot, (route, service), &tried, &endpoint);
        let call = Call { head, expects, interim, timeouts, until, rate, connector: &service.connector };
        let sent = worker.upstream.send(endpoint, call, upload).await;
        records.tried(sent.as_ref().map(|it| it.head.status).map_err(|it| &it.error));
        let error = match sent {
            Ok(answer) => break (answer, address),
            Err(error) => error,
        };
        if let RequestError::ClientBody(BodyError::Refused) = error.error
            && let Some(said) = shared.as_ref().and_then(Shared::said)
        {
            return said;
        }
        // At a limit it was not tried at all, so that trying another is no retry.
        let refused = matches!(error.error, RequestError::Overloaded);
        if refused {
            tried.refused();
        }
        // The registry did not promise this one any more. To find it dead costs the request nothing but the attempt.
        let dead = service.makeshift && error.error.is_connect();
        let again = refused
            || dead && tried.another(service)
            || tried.attempts() <= route.retries
                && tried.another(service)
                && error.again.is_some()
                && service.budget.withdraw(&service.settings.retry_budget, timer::now());
        match error.again {
            Some(body) if again => {
                tracing::debug!(endpoint = %address, error = %error.error, "trying another endpoint");
                if !refused && !dead {
                    worker.metrics.retried();
                    failed = Some(error.error);
                }
                upload = body;
            }
            _ => {
                if !error.error.is_clients() {
                    filter::ended(route, &tried.canaries, true);
                }
                return Err(if dead { RequestError::NoEndpoint } else { error.error });
            }
        }
    };
    filter::ended(route, &tried.canaries, answer.head.status.is_server_error());

    let request = head;
    let Answer { mut head, body } = answer;
    let tunnel = matches!(body, AnswerBody::Switched(_));
    if asked_for.is_some() && version == Version::Http2 && head.status.is_success() && !tunnel {
        // To an extended CONNECT it would mean that there is a tunnel (RFC 8441, section 5).
        return Err(RequestError::Upstream("it has not changed the protocol".into()));
    }
    headers::to_client(&mut head);
    let body = match body {
        AnswerBody::Body(body) => Body::Endpoint(body),
        AnswerBody::Switched(switched) => {
            let protocol = asked_for.as_deref().unwrap_or_default();
            Body::Tunnel(Box::new(Tunnel::new(switched, protocol, route.timeout.stream.0)))
        }
    };
    let response = match &shared {
        None => Response::own(head, body),
        Some(shared) => {
            let shows = !tunnel && !body.is_over();
            match filter::response(worker, &snapshot, route, (request, shared), head, (address, shows))? {
                Ok((head, shown)) if shown.is_empty() => Response::own(head, body),
                Ok((head, shown)) => {
                    let audience = Audience::new(worker, shared, shown, Whose::Response);
                    Box::pin(show_body(audience, shared, head, body)).await?
                }
                Err(answer) => answer,
            }
        }
    };
    Ok(Response { idle: route.timeout.idle.0, ..response })
}

/// Lets filters see what the client sends; an answer if one of them has it already.
async fn show_upload(
    audience: Audience,
    shared: &Shared,
    mut upload: Upload,
    (head, expects): (&mut RequestHead, &mut bool),
    interim: &Interim,
    patience: Patience,
) -> Result<Result<Upload, Response>, RequestError> {
    let upload = match audience.whole() {
        None => upload.shown(audience),
        Some(most) => {
            if std::mem::take(expects) {
                // The endpoint is asked only when the body is here.
                head.fields.remove(Known::Expect);
                interim.send(&ResponseHead::new(StatusCode::CONTINUE)).await;
            }
            let gathered = audience.gather(&mut upload, most, Some(patience)).await;
            match gathered {
                Ok(bytes) => {
                    filter::settle(shared, head);
                    head.fields.remove(Known::Expect);
                    Upload::new(From::Full(bytes))
                }
                Err(BodyError::Refused) => return shared.said().ok_or(RequestError::Panic)?.map(Err),
                Err(error) => return Err(RequestError::ClientBody(error)),
            }
        }
    };
    headers::reframe(head, upload.length());
    Ok(Ok(upload))
}

/// Lets filters see what the endpoint sends.
async fn show_body(
    audience: Audience,
    shared: &Shared,
    mut head: ResponseHead,
    mut body: Body,
) -> Result<Response, RequestError> {
    let Some(most) = audience.whole() else {
        head.fields.remove(Known::ContentLength);
        return Ok(Response::own(head, Body::Shown(Box::new(audience.through(body)))));
    };
    match audience.gather(&mut body, most, None).await {
        Ok(bytes) => {
            head = filter::answered(shared).unwrap_or(head);
            head.fields.remove(Known::ContentLength);
            Ok(Response::own(head, Body::Full(bytes)))
        }
        Err(BodyError::Refused) => shared.said().ok_or(RequestError::Panic)?,
        Err(BodyError::Slow(time)) => Err(RequestError::HeaderTimeout(time)),
        Err(error) => Err(RequestError::Upstream(error.to_string().into())),
    }
}

/// What the client is told of a path in a header that is none.
const API_NAME: &str = "the header api_name is not a path that starts with a slash";

/// Where a request goes.
pub(crate) struct Located<'a> {
    /// What takes it.
    pub(crate) route: &'a Route,
    /// None if there is no such service.
    pub(crate) service: Option<&'a Arc<Service>>,
    /// What the request asked for, if the target to send on was not made of it by taking off its beginning.
    original: Option<String>,
}

/// The route of a request and its service; the head is left with the path to send on.
pub(crate) fn locate<'a>(snapshot: &'a Snapshot, head: &mut RequestHead) -> Result<Located<'a>, RequestError> {
    let (route, service, sent) = match snapshot.routes.find(head) {
        Found::Explicit(route, cut) => (route, snapshot.services.get(&route.service), Ok(cut)),
        Found::Implicit(name, sent) => {
            let service = snapshot.services.get(&*name).ok_or(RequestError::NoRoute)?;
            let route = service.implicit.as_deref().ok_or(RequestError::NoRoute)?;
            let sent = match sent {
                Sent::Rest(cut) => Ok(cut),
                Sent::Other(path) if !path.starts_with(b"/") => return Err(RequestError::Malformed(API_NAME)),
                Sent::Other(path) => Err(match headers::settled(&snapshot.rules.paths, path)? {
                    Some(settled) => settled,
                    None => Target::new(String::from_utf8_lossy(path).into_owned()),
                }),
            };
            (route, Some(service), sent)
        }
        Found::Malformed(why) => return Err(RequestError::Malformed(why)),
        Found::Nothing => return Err(RequestError::NoRoute),
    };
    let original = match sent {
        Ok(cut) => head.target.cut(cut),
        Err(other) => Some(std::mem::replace(&mut head.target, other).whole().to_owned()),
    };
    Ok(Located { route, service, original })
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
        assert!(matches!(unwinding(pin!(panicking)).await, Err(RequestError::Panic)));
        assert!(matches!(unwinding(pin!(async { Ok(7) })).await, Ok(7)));
    }
}
